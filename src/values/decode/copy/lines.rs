//! Where lines of text and CSV end (PostgreSQL's `CopyReadLineText`).

use memchr::memchr3;

use super::error::{Fault, LineEnd};
use super::scan::find;

/// Finds lines, wherever the bytes are cut.
#[derive(Debug)]
pub(super) struct Lines {
    csv: Option<Quotes>,
    /// How lines end, once the first has.
    end: Option<End>,
    /// How many lines have begun, those inside of quotes included.
    pub number: u64,
    /// How far the present line was looked through.
    scanned: usize,
    in_quotes: bool,
    after_escape: bool,
    has_backslash: bool,
    has_quote: bool,
    over: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Quotes {
    pub quote: u8,
    pub escape: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Newline,
    Return,
    Both,
}

/// A line, from the start of what was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Where it ends, without its end's bytes.
    pub end: usize,
    /// Where the next one begins.
    pub next: usize,
    /// It has a backslash in text, a quote in CSV.
    pub is_special: bool,
    /// It is the last one.
    pub is_last: bool,
}

/// What a look at the bytes has found.
enum Found {
    Line(usize, usize),
    /// The end-of-copy marker, after so many bytes of its line.
    Marker(usize),
    /// More is needed, from this position.
    More(usize),
}

/// What a backslash and a dot are.
enum Marker {
    Yes,
    No,
    More,
}

impl Lines {
    pub fn new(csv: Option<Quotes>) -> Self {
        Self {
            csv,
            end: None,
            number: 0,
            scanned: 0,
            in_quotes: false,
            after_escape: false,
            has_backslash: false,
            has_quote: false,
            over: false,
        }
    }

    /// The number of the line that is not there as a whole.
    pub fn expected(&self) -> u64 {
        self.number + u64::from(self.scanned == 0)
    }

    pub fn is_over(&self) -> bool {
        self.over
    }

    /// The line that `data` begins with; `None` if more of it has to come first. Nothing follows
    /// `data` if it is the `last`. A fault is that of the line whose number is shown.
    pub fn next(&mut self, data: &[u8], last: bool) -> Result<Option<Line>, Fault> {
        if self.scanned == 0 {
            self.number += 1;
        }
        let found = match self.csv {
            None => self.text(data, last)?,
            Some(quotes) => self.quoted(quotes, data, last)?,
        };
        let (end, next) = match found {
            Found::Line(end, next) => (end, next),
            Found::Marker(end) => {
                self.over = true;
                (end, data.len())
            }
            Found::More(at) if !last => {
                if at == 0 {
                    // Nothing of it is here: it begins with what comes.
                    self.number -= 1;
                }
                self.scanned = at;
                return Ok(None);
            }
            Found::More(_) => {
                self.over = true;
                (data.len(), data.len())
            }
        };
        let is_special = self.has_backslash || self.has_quote;
        self.scanned = 0;
        (self.in_quotes, self.after_escape) = (false, false);
        (self.has_backslash, self.has_quote) = (false, false);
        Ok(Some(Line { end, next, is_special, is_last: self.over }))
    }

    fn text(&mut self, data: &[u8], last: bool) -> Result<Found, Fault> {
        let mut at = self.scanned;
        loop {
            at = match memchr3(b'\n', b'\r', b'\\', &data[at..]) {
                Some(found) => at + found,
                None => return Ok(Found::More(data.len())),
            };
            match data[at] {
                b'\n' => return self.newline(at),
                b'\r' => return self.carriage_return(data, at, last),
                _ => match data.get(at + 1) {
                    None if last => {
                        self.has_backslash = true;
                        return Ok(Found::More(at));
                    }
                    None => return Ok(Found::More(at)),
                    Some(b'.') => match self.marker(data, at, last)? {
                        Marker::More => return Ok(Found::More(at)),
                        Marker::Yes => return Ok(Found::Marker(at)),
                        Marker::No => at += 1,
                    },
                    // Whatever it is, it belongs to the value.
                    Some(_) => {
                        self.has_backslash = true;
                        at += 2;
                    }
                },
            }
        }
    }

    fn quoted(&mut self, quotes: Quotes, data: &[u8], last: bool) -> Result<Found, Fault> {
        let Quotes { quote, escape } = quotes;
        let mut at = self.scanned;
        // Alone in its line it is the marker; elsewhere it is a value.
        if at == 0 && data.first() == Some(&b'\\') {
            match data.get(1) {
                None => return Ok(Found::More(0)),
                Some(b'.') => match self.marker(data, 0, last)? {
                    Marker::More => return Ok(Found::More(0)),
                    Marker::Yes => return Ok(Found::Marker(0)),
                    Marker::No => {}
                },
                Some(_) => {}
            }
        }
        loop {
            let from = at;
            let found = match escape {
                // None but the quote itself.
                0 => memchr3(b'\n', b'\r', quote, &data[at..]).map(|found| at + found),
                _ => find([b'\n', b'\r', quote, escape], data, at),
            };
            at = match found {
                Some(at) => at,
                None => {
                    self.after_escape &= from == data.len();
                    return Ok(Found::More(data.len()));
                }
            };
            self.after_escape &= at == from;
            let byte = data[at];
            if byte == b'\r' && !self.in_quotes {
                return self.carriage_return(data, at, last);
            }
            if self.in_quotes && byte == escape {
                self.after_escape = !self.after_escape;
            }
            if byte == quote && !self.after_escape {
                self.in_quotes = !self.in_quotes;
                self.has_quote = true;
            }
            self.after_escape &= byte == escape;
            if byte == b'\n' && !self.in_quotes {
                return self.newline(at);
            }
            let counted = if self.end == Some(End::Newline) { b'\n' } else { b'\r' };
            self.number += u64::from(self.in_quotes && byte == counted);
            at += 1;
        }
    }

    fn wrong_end(&self, carriage_return: bool) -> Fault {
        Fault::LineEnd(LineEnd { carriage_return, csv: self.csv.is_some() })
    }

    fn newline(&mut self, at: usize) -> Result<Found, Fault> {
        match self.end.get_or_insert(End::Newline) {
            End::Newline => Ok(Found::Line(at, at + 1)),
            End::Return | End::Both => Err(self.wrong_end(false)),
        }
    }

    fn carriage_return(&mut self, data: &[u8], at: usize, last: bool) -> Result<Found, Fault> {
        match (self.end, data.get(at + 1)) {
            (Some(End::Newline), _) => Err(self.wrong_end(true)),
            (Some(End::Return), _) => Ok(Found::Line(at, at + 1)),
            (None | Some(End::Both), None) if !last => Ok(Found::More(at)),
            (None | Some(End::Both), Some(b'\n')) => {
                self.end = Some(End::Both);
                Ok(Found::Line(at, at + 2))
            }
            (Some(End::Both), _) => Err(self.wrong_end(true)),
            (None, _) => {
                self.end = Some(End::Return);
                Ok(Found::Line(at, at + 1))
            }
        }
    }

    /// Whether `\.` at this place ends the data: it must be followed by the end of a line.
    fn marker(&self, data: &[u8], at: usize, last: bool) -> Result<Marker, Fault> {
        let corrupt = |text: &str| match self.csv {
            // Then it is a value.
            Some(_) => Ok(Marker::No),
            None => Err(Fault::format(text)),
        };
        const CORRUPT: &str = "end-of-copy marker corrupt";
        const STYLE: &str = "end-of-copy marker does not match previous newline style";
        let mut end = at + 2;
        if self.end == Some(End::Both) {
            match data.get(end) {
                None if !last => return Ok(Marker::More),
                Some(b'\r') => end += 1,
                Some(b'\n') => return corrupt(STYLE),
                _ => return corrupt(CORRUPT),
            }
        }
        match (data.get(end), self.end) {
            (None, _) if !last => Ok(Marker::More),
            (Some(b'\n'), None | Some(End::Newline | End::Both))
            | (Some(b'\r'), None | Some(End::Return)) => Ok(Marker::Yes),
            (Some(b'\n' | b'\r'), _) => Err(Fault::format(STYLE)),
            _ => corrupt(CORRUPT),
        }
    }
}
