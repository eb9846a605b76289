//! The terminal: its mode, its size, and what is drawn on it.

use std::io::{self, Write, stdin, stdout};
use std::os::fd::AsFd;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use unicode_width::UnicodeWidthChar;

/// Columns where a terminal does not say how wide it is.
const COLUMNS: usize = 80;

/// Keys come one by one, unseen, for as long as this is there.
#[derive(Debug)]
pub struct Raw {
    before: Termios,
    pastes: bool,
}

impl Raw {
    pub fn enter() -> io::Result<Self> {
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        // Output goes on as usual.
        raw.output_modes = before.output_modes;
        tcsetattr(stdin(), OptionalActions::Drain, &raw)?;
        let mut out = stdout();
        // What is pasted comes marked as such.
        let pastes = out.write_all(b"\x1b[?2004h").and_then(|()| out.flush()).is_ok();
        Ok(Self { before, pastes })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if self.pastes {
            let mut out = stdout();
            let _ = out.write_all(b"\x1b[?2004l").and_then(|()| out.flush());
        }
        let _ = tcsetattr(stdin(), OptionalActions::Drain, &self.before);
    }
}

/// What is typed is not seen for as long as this is there: for passwords.
#[derive(Debug)]
pub struct Unseen<F: AsFd> {
    terminal: F,
    before: Termios,
}

impl<F: AsFd> Unseen<F> {
    pub fn at(terminal: F) -> io::Result<Self> {
        let before = tcgetattr(&terminal)?;
        let mut unseen = before.clone();
        unseen.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&terminal, OptionalActions::Flush, &unseen)?;
        Ok(Self { terminal, before })
    }
}

impl<F: AsFd> Drop for Unseen<F> {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, OptionalActions::Drain, &self.before);
    }
}

pub fn columns() -> usize {
    match tcgetwinsize(stdout()) {
        Ok(size) if size.ws_col > 0 => usize::from(size.ws_col),
        _ => COLUMNS,
    }
}

/// Columns that a text takes.
pub fn width(text: &str) -> usize {
    text.chars().map(|character| character.width().unwrap_or(0)).sum()
}

/// Where things are on the screen, counted from where a prompt begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spot {
    pub row: usize,
    pub column: usize,
}

/// A text under its prompts as it is drawn, and where the cursor and the end are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    pub drawn: String,
    pub cursor: Spot,
    pub end: Spot,
}

/// Draws a text on so many columns. `next` stands before each further line.
pub fn picture(prompt: &str, next: &str, text: &[char], cursor: usize, columns: usize) -> Picture {
    let mut drawn = prompt.to_owned();
    let mut spot = Spot { row: 0, column: width(prompt) };
    let mut at_cursor = None;
    let place = |spot: Spot| match spot.column >= columns {
        true => Spot { row: spot.row + 1, column: 0 },
        false => spot,
    };
    for (at, &character) in text.iter().enumerate() {
        if at == cursor {
            at_cursor = Some(place(spot));
        }
        if character == '\n' {
            drawn.push_str("\r\n");
            drawn.push_str(next);
            spot = Spot { row: spot.row + 1, column: width(next) };
            continue;
        }
        // Control characters would move the cursor.
        let shown = if character.is_control() { '\u{fffd}' } else { character };
        let wide = shown.width().unwrap_or(0);
        if spot.column + wide > columns {
            spot = Spot { row: spot.row + 1, column: 0 };
        }
        spot.column += wide;
        drawn.push(shown);
    }
    if spot.column >= columns {
        // The terminal goes to the next line only with the next character.
        drawn.push_str("\r\n");
        spot = Spot { row: spot.row + 1, column: 0 };
    }
    Picture { drawn, cursor: at_cursor.unwrap_or(spot), end: spot }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spots(text: &str, cursor: usize) -> (Spot, Spot) {
        let text: Vec<char> = text.chars().collect();
        let picture = picture("=> ", "-> ", &text, cursor, 10);
        (picture.cursor, picture.end)
    }

    #[test]
    fn long_lines_are_wrapped() {
        let spot = |row, column| Spot { row, column };
        assert_eq!(spots("abc", 1), (spot(0, 4), spot(0, 6)));
        assert_eq!(spots("abcdefg", 7), (spot(1, 0), spot(1, 0)), "the line is just full");
        assert_eq!(spots("abcdefgh", 7), (spot(1, 0), spot(1, 1)));
        assert_eq!(spots("a\nbc", 4), (spot(1, 5), spot(1, 5)));
        assert_eq!(spots("日本語日", 3), (spot(0, 9), spot(1, 2)), "no half of a wide one");
    }
}
