//! A line editor: history, search in it, completion, and text of several lines.
//!
//! The crates made for this (`rustyline`, `reedline`) switch features of `libc`, `mio` and `rustix` on
//! with which all of the engine would be built anew; what is wanted here is little.
//!
//! - [`keys`]: bytes to keys.
//! - [`buffer`]: the text and its cursor.
//! - [`history`]: what was typed before.
//! - [`terminal`]: what is seen.

mod buffer;
mod history;
mod keys;
pub mod terminal;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write, stderr, stdin, stdout};
use std::os::fd::AsFd;

use self::buffer::Buffer;
pub use self::history::History;
use self::keys::Key;
use self::terminal::{Raw, Spot, Unseen, columns, picture, width};

/// Candidates that are listed at most.
const LISTED: usize = 200;

/// What reading came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    Text(String),
    /// Ctrl-C: what was typed is left.
    Interrupted,
    /// Ctrl-D, or the terminal has gone.
    End,
}

/// What stands before the first line, and before further ones.
#[derive(Clone, Debug)]
pub struct Prompts {
    pub first: String,
    pub next: String,
}

/// What the editor has to be told about the language.
pub trait Language {
    /// Whether Enter ends the text, or begins another line.
    fn is_whole(&self, text: &str) -> bool;

    /// What may stand in place of what is before the cursor, from which byte on.
    fn complete(&mut self, text: &str, cursor: usize) -> (usize, Vec<String>);
}

#[derive(Debug)]
pub struct Editor {
    pub history: History,
}

/// A text while it is edited.
struct Edit<'a> {
    history: &'a [String],
    language: &'a mut dyn Language,
    prompts: &'a Prompts,
    buffer: Buffer,
    /// The entry that is shown; as many as there are: what is typed now.
    entry: usize,
    /// What is typed now, while an entry is shown.
    typed: String,
    /// What is looked for in the history, and the entry it is found in.
    search: Option<(String, usize)>,
    /// The last key was Tab, and there was more than one candidate.
    tabbed: bool,
    /// Where the cursor is on the screen.
    spot: Spot,
}

impl Editor {
    /// Reads a text.
    pub fn read(&mut self, prompts: &Prompts, language: &mut dyn Language) -> io::Result<Read> {
        let raw = Raw::enter()?;
        let mut edit = Edit {
            history: self.history.entries(),
            language,
            prompts,
            buffer: Buffer::default(),
            entry: self.history.entries().len(),
            typed: String::new(),
            search: None,
            tabbed: false,
            spot: Spot::default(),
        };
        let read = edit.run()?;
        drop(raw);
        if let Read::Text(text) = &read {
            // A history that cannot be written is only shorter.
            let _ = self.history.add(text);
        }
        Ok(read)
    }
}

/// Reads an answer, which is neither seen nor kept if it is `hidden`: from standard input, or, where a script
/// is read from there, at the terminal itself, as psql does. Fails if there is none.
pub fn ask(prompt: &str, hidden: bool, script_on_stdin: bool) -> io::Result<String> {
    if !script_on_stdin {
        let unseen = hidden.then(|| Unseen::at(stdin())).transpose()?;
        return answer(prompt, unseen, &mut stdin().lock(), &mut stderr());
    }
    let terminal = File::options().read(true).write(true).open("/dev/tty").map_err(|_| {
        io::Error::other(
            "the script is on standard input, and there is no terminal to ask at: with the script in a \
             file (-f FILE), standard input answers",
        )
    })?;
    let unseen = hidden.then(|| Unseen::at(&terminal)).transpose()?;
    answer(prompt, unseen, &mut BufReader::new(&terminal), &mut &terminal)
}

fn answer<F: AsFd>(
    prompt: &str,
    unseen: Option<Unseen<F>>,
    input: &mut dyn BufRead,
    out: &mut dyn Write,
) -> io::Result<String> {
    write!(out, "{prompt}")?;
    out.flush()?;
    let mut line = String::new();
    input.read_line(&mut line)?;
    if unseen.is_some() {
        writeln!(out)?;
    }
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

impl Edit<'_> {
    fn run(&mut self) -> io::Result<Read> {
        self.draw()?;
        loop {
            let key = keys::read(&mut stdin().lock())?;
            if let Some(read) = self.take(key)? {
                self.search = None;
                self.draw_at_end()?;
                return Ok(read);
            }
            self.draw()?;
        }
    }

    fn take(&mut self, key: Key) -> io::Result<Option<Read>> {
        if self.search.is_some() && self.take_in_search(&key) {
            return Ok(None);
        }
        let tabbed = std::mem::take(&mut self.tabbed);
        match key {
            Key::Enter => {
                let text = self.buffer.text();
                if self.language.is_whole(&text) {
                    return Ok(Some(Read::Text(text)));
                }
                self.buffer.insert("\n");
            }
            Key::Closed => return Ok(Some(Read::End)),
            Key::Ctrl('c') => return Ok(Some(Read::Interrupted)),
            Key::Ctrl('d') if self.buffer.is_empty() => return Ok(Some(Read::End)),
            Key::Ctrl('l') => {
                write!(stdout(), "\x1b[H\x1b[2J")?;
                self.spot = Spot::default();
            }
            Key::Ctrl('r') => self.search = Some((String::new(), self.history.len())),
            Key::Tab => self.complete(tabbed)?,
            Key::Up | Key::Ctrl('p') => {
                if key == Key::Ctrl('p') || !self.buffer.up() {
                    self.show_entry(self.entry.checked_sub(1));
                }
            }
            Key::Down | Key::Ctrl('n') => {
                if key == Key::Ctrl('n') || !self.buffer.down() {
                    self.show_entry(Some(self.entry + 1));
                }
            }
            key => self.edit(key),
        }
        Ok(None)
    }

    fn edit(&mut self, key: Key) {
        let buffer = &mut self.buffer;
        match key {
            Key::Char(character) => buffer.insert(character.encode_utf8(&mut [0; 4])),
            Key::Paste(text) => buffer.insert(&text),
            Key::Break => buffer.insert("\n"),
            Key::Backspace => buffer.backspace(),
            Key::Delete | Key::Ctrl('d') => buffer.delete(),
            Key::Left | Key::Ctrl('b') => buffer.left(),
            Key::Right | Key::Ctrl('f') => buffer.right(),
            Key::WordLeft | Key::Alt('b') => buffer.word_left(),
            Key::WordRight | Key::Alt('f') => buffer.word_right(),
            Key::Home | Key::Ctrl('a') => buffer.home(),
            Key::End | Key::Ctrl('e') => buffer.end(),
            Key::Ctrl('k') => buffer.cut_to_end(),
            Key::Ctrl('u') => buffer.cut_to_start(),
            Key::Ctrl('w') => buffer.cut_to_space(),
            Key::DeleteWord => buffer.cut_word_before(),
            Key::Alt('d') => buffer.cut_word_after(),
            Key::Ctrl('y') => buffer.paste_cut(),
            Key::Ctrl('t') => buffer.swap(),
            _ => {}
        }
    }

    fn show_entry(&mut self, entry: Option<usize>) {
        let Some(entry) = entry.filter(|&entry| entry <= self.history.len()) else { return };
        if self.entry == self.history.len() {
            self.typed = self.buffer.text();
        }
        self.entry = entry;
        let text = self.history.get(entry).unwrap_or(&self.typed).clone();
        self.buffer.set(&text);
    }

    /// Whether the key is part of the search; else what is found is edited on.
    fn take_in_search(&mut self, key: &Key) -> bool {
        let Some((wanted, at)) = &mut self.search else { return false };
        let mut from = *at + 1;
        match key {
            Key::Char(character) => wanted.push(*character),
            Key::Backspace => {
                wanted.pop();
                from = self.history.len();
            }
            Key::Ctrl('r') => from = *at,
            Key::Ctrl('g' | 'c') => {
                self.search = None;
                return true;
            }
            _ => {
                self.search = None;
                return false;
            }
        }
        let earlier = &self.history[..from.min(self.history.len())];
        if let Some(found) = earlier.iter().rposition(|entry| entry.contains(wanted.as_str())) {
            *at = found;
            self.entry = found;
            self.buffer.set(&self.history[found]);
        }
        true
    }

    fn complete(&mut self, again: bool) -> io::Result<()> {
        let cursor = self.buffer.cursor_bytes();
        let text = self.buffer.text();
        let before = &text[..cursor];
        let line = before.rsplit('\n').next().unwrap_or_default();
        if line.trim().is_empty() {
            self.buffer.insert("    ");
            return Ok(());
        }
        let (start, candidates) = self.language.complete(&text, cursor);
        let Some(first) = candidates.first() else { return Ok(()) };
        if candidates.len() == 1 {
            self.buffer.replace_from(start, first);
            return Ok(());
        }
        let shared = candidates.iter().fold(first.as_str(), |shared, other| {
            let same = shared.char_indices().zip(other.chars()).find(|((_, a), b)| a != b);
            let length = same.map_or(shared.len().min(other.len()), |((at, _), _)| at);
            &shared[..length]
        });
        let begun = &before[start..];
        if shared.len() > begun.len() || (shared.len() == begun.len() && shared != begun) {
            let shared = shared.to_owned();
            self.buffer.replace_from(start, &shared);
        }
        if again {
            self.list(&candidates)?;
        }
        self.tabbed = true;
        Ok(())
    }

    /// Shows candidates in columns below the text.
    fn list(&mut self, candidates: &[String]) -> io::Result<()> {
        self.draw_at_end()?;
        let shown = &candidates[..candidates.len().min(LISTED)];
        let widest = shown.iter().map(|candidate| width(candidate.trim_end())).max();
        let cell = widest.unwrap_or_default() + 2;
        let across = (columns() / cell).max(1);
        let down = shown.len().div_ceil(across);
        let mut text = String::new();
        for row in 0..down {
            for candidate in shown.iter().skip(row).step_by(down) {
                let candidate = candidate.trim_end();
                let space = cell - width(candidate);
                text.push_str(candidate);
                text.push_str(&" ".repeat(space));
            }
            text.truncate(text.trim_end().len());
            text.push_str("\r\n");
        }
        if candidates.len() > shown.len() {
            text.push_str(&format!("... and {} more\r\n", candidates.len() - shown.len()));
        }
        write!(stdout(), "{text}")
    }

    fn prompt(&self) -> String {
        match &self.search {
            Some((wanted, _)) => format!("(search)`{wanted}': "),
            None => self.prompts.first.clone(),
        }
    }

    /// Draws the text anew where it was drawn before.
    fn draw(&mut self) -> io::Result<()> {
        let picture = picture(
            &self.prompt(),
            &self.prompts.next,
            self.buffer.chars(),
            self.buffer.cursor(),
            columns(),
        );
        let mut out = self.above();
        out.push_str(&picture.drawn);
        if picture.end.row > picture.cursor.row {
            out.push_str(&format!("\x1b[{}A", picture.end.row - picture.cursor.row));
        }
        out.push('\r');
        if picture.cursor.column > 0 {
            out.push_str(&format!("\x1b[{}C", picture.cursor.column));
        }
        self.spot = picture.cursor;
        let mut stdout = stdout();
        stdout.write_all(out.as_bytes())?;
        stdout.flush()
    }

    /// To where the prompt begins, with nothing behind it.
    fn above(&self) -> String {
        let mut out = String::from("\r");
        if self.spot.row > 0 {
            out.push_str(&format!("\x1b[{}A", self.spot.row));
        }
        out.push_str("\x1b[J");
        out
    }

    /// Draws the text, and goes to the line below it.
    fn draw_at_end(&mut self) -> io::Result<()> {
        let all = self.buffer.chars();
        let picture = picture(&self.prompt(), &self.prompts.next, all, all.len(), columns());
        let out = self.above() + &picture.drawn + "\r\n";
        self.spot = Spot::default();
        let mut stdout = stdout();
        stdout.write_all(out.as_bytes())?;
        stdout.flush()
    }
}
