//! A `jsonb` value taken apart, and its text.

use std::collections::BTreeMap;

use super::{Error, MAX_BYTES, MAX_DEPTH, Result, quoted};

/// Members in their order: by how long their names are, then by these.
pub(super) type Members = BTreeMap<(usize, String), Value>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// A number, a string or a word, as it is written.
    Plain(String),
    Array(Vec<Value>),
    Object(Members),
}

/// A member's name with what it is sorted by.
pub(super) fn key(name: &str) -> (usize, String) {
    (name.len(), name.to_owned())
}

impl Value {
    /// The value's text on one line.
    ///
    /// # Errors
    /// It has more bytes or levels than a value may have.
    pub(super) fn text(&self) -> Result<String> {
        self.written(None)
    }

    /// The same on many lines, as `jsonb_pretty` has it.
    pub(super) fn pretty(&self) -> Result<String> {
        self.written(Some(0))
    }

    fn written(&self, level: Option<usize>) -> Result<String> {
        let mut text = String::new();
        self.write(&mut text, 0, level)?;
        Ok(text)
    }

    /// `level`: how deep a line begins, where each part has its own.
    fn write(&self, text: &mut String, depth: usize, level: Option<usize>) -> Result<()> {
        let (open, close) = match self {
            Self::Plain(plain) => {
                text.push_str(plain);
                return if text.len() > MAX_BYTES { Err(Error::TooLarge) } else { Ok(()) };
            }
            Self::Array(_) => ('[', ']'),
            Self::Object(_) => ('{', '}'),
        };
        if depth >= MAX_DEPTH {
            return Err(Error::TooDeep);
        }
        let inner = level.map(|level| level + 1);
        text.push(open);
        let mut first = true;
        let mut begin = |text: &mut String| {
            match (first, inner) {
                (true, None) => {}
                (false, None) => text.push_str(", "),
                (true, Some(level)) => new_line(text, level),
                (false, Some(level)) => {
                    text.push(',');
                    new_line(text, level);
                }
            }
            first = false;
        };
        match self {
            Self::Plain(_) => {}
            Self::Array(items) => {
                for item in items {
                    begin(text);
                    item.write(text, depth + 1, inner)?;
                }
            }
            Self::Object(members) => {
                for ((_, name), value) in members {
                    begin(text);
                    text.push_str(&quoted(name));
                    text.push_str(": ");
                    value.write(text, depth + 1, inner)?;
                }
            }
        }
        if let Some(level) = level {
            new_line(text, level);
        }
        text.push(close);
        if text.len() > MAX_BYTES { Err(Error::TooLarge) } else { Ok(()) }
    }
}

fn new_line(text: &mut String, level: usize) {
    text.push('\n');
    (0..level).for_each(|_| text.push_str("    "));
}
