//! Keys, from the bytes that a terminal sends for them.

use std::io::{self, BufRead};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    Char(char),
    /// With Ctrl: the small letter.
    Ctrl(char),
    /// With Alt, or after Escape.
    Alt(char),
    Enter,
    /// A line break that ends nothing.
    Break,
    Tab,
    Backspace,
    Delete,
    Left,
    Right,
    WordLeft,
    WordRight,
    Up,
    Down,
    Home,
    End,
    DeleteWord,
    /// Text that was pasted, as it is.
    Paste(String),
    /// No more keys come.
    Closed,
    Unknown,
}

/// What ends text that is pasted.
const PASTED: &[u8] = b"\x1b[201~";

/// Waits for a key.
pub fn read(input: &mut impl BufRead) -> io::Result<Key> {
    let Some(byte) = next(input)? else { return Ok(Key::Closed) };
    Ok(match byte {
        b'\r' | b'\n' => Key::Enter,
        b'\t' => Key::Tab,
        0x7f | 0x08 => Key::Backspace,
        0x1b => return escape(input),
        0x01..=0x1a => Key::Ctrl(char::from(byte - 1 + b'a')),
        0x00..=0x1f => Key::Unknown,
        _ => character(byte, input)?.map_or(Key::Unknown, Key::Char),
    })
}

fn next(input: &mut impl BufRead) -> io::Result<Option<u8>> {
    loop {
        let first = match input.fill_buf() {
            Ok(bytes) => bytes.first().copied(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // The terminal has gone.
            Err(error) if error.raw_os_error() == Some(5) => None,
            Err(error) => return Err(error),
        };
        input.consume(usize::from(first.is_some()));
        return Ok(first);
    }
}

fn character(first: u8, input: &mut impl BufRead) -> io::Result<Option<char>> {
    let more = match first {
        0xc0..=0xdf => 1,
        0xe0..=0xef => 2,
        0xf0..=0xf7 => 3,
        _ => 0,
    };
    let mut bytes = vec![first];
    for _ in 0..more {
        bytes.extend(next(input)?);
    }
    Ok(std::str::from_utf8(&bytes).ok().and_then(|text| text.chars().next()))
}

fn escape(input: &mut impl BufRead) -> io::Result<Key> {
    let Some(byte) = next(input)? else { return Ok(Key::Closed) };
    Ok(match byte {
        b'[' => return sequence(input),
        b'O' => next(input)?.map_or(Key::Closed, |byte| letter(byte, false)),
        b'\r' | b'\n' => Key::Break,
        0x7f | 0x08 => Key::DeleteWord,
        0x00..=0x1f => Key::Unknown,
        _ => character(byte, input)?.map_or(Key::Unknown, Key::Alt),
    })
}

fn letter(byte: u8, with_modifier: bool) -> Key {
    match byte {
        b'A' => Key::Up,
        b'B' => Key::Down,
        b'C' if with_modifier => Key::WordRight,
        b'D' if with_modifier => Key::WordLeft,
        b'C' => Key::Right,
        b'D' => Key::Left,
        b'H' => Key::Home,
        b'F' => Key::End,
        _ => Key::Unknown,
    }
}

/// What follows `ESC [`: parameters and a letter that ends them.
fn sequence(input: &mut impl BufRead) -> io::Result<Key> {
    let mut parameters = String::new();
    let last = loop {
        match next(input)? {
            None => return Ok(Key::Closed),
            Some(byte @ 0x40..=0x7e) => break byte,
            Some(byte) => parameters.push(char::from(byte)),
        }
    };
    Ok(match (last, parameters.as_str()) {
        (b'~', "1" | "7") => Key::Home,
        (b'~', "4" | "8") => Key::End,
        (b'~', "3") => Key::Delete,
        (b'~', "200") => return paste(input),
        (b'~', _) => Key::Unknown,
        (letter_byte, parameters) => letter(letter_byte, parameters.contains(';')),
    })
}

fn paste(input: &mut impl BufRead) -> io::Result<Key> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(PASTED) {
        match next(input)? {
            Some(byte) => bytes.push(byte),
            None => return Ok(Key::Closed),
        }
    }
    bytes.truncate(bytes.len() - PASTED.len());
    let text = String::from_utf8_lossy(&bytes).replace("\r\n", "\n").replace('\r', "\n");
    Ok(Key::Paste(text.replace('\t', "    ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_keys() {
        let mut input: &[u8] =
            b"a\xc3\xb6\x01\x1b[A\x1b[1;5D\x1b[3~\x1bOH\x1bb\x1b\r\x7f\r\x1b[200~x\ry\x1b[201~\t";
        let mut keys = Vec::new();
        loop {
            match read(&mut input).expect("bytes") {
                Key::Closed => break,
                key => keys.push(key),
            }
        }
        let expected = [
            Key::Char('a'),
            Key::Char('ö'),
            Key::Ctrl('a'),
            Key::Up,
            Key::WordLeft,
            Key::Delete,
            Key::Home,
            Key::Alt('b'),
            Key::Break,
            Key::Backspace,
            Key::Enter,
            Key::Paste("x\ny".to_owned()),
            Key::Tab,
        ];
        assert_eq!(keys, expected);
    }
}
