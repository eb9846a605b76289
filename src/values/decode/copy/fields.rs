//! Lines to values: what stands between delimiters, its escapes taken away.

use super::error::Fault;
use super::scan::{each, find};
use crate::values::encode::CopyText;

/// The values of one line.
#[derive(Debug, Default)]
pub(super) struct Fields {
    fields: Vec<Field>,
    /// How many there are, also those that were not kept.
    pub count: usize,
    /// What is not in the line as it stands.
    made: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Field {
    start: usize,
    end: usize,
    is: Is,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    Null,
    InLine,
    Made,
}

/// How values stand in a line of CSV.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Csv {
    pub delimiter: u8,
    /// What stands for null, without quotes.
    pub null: Box<str>,
    pub quote: u8,
    pub escape: u8,
    /// For each column, whether what stands for null is a value.
    pub force_not_null: Vec<bool>,
    /// For each column, whether what stands for null is null in quotes, too.
    pub force_null: Vec<bool>,
}

impl Fields {
    /// `None`: null, or no such value.
    pub fn get<'a>(&'a self, line: &'a [u8], at: usize) -> Option<&'a [u8]> {
        let Field { start, end, is } = *self.fields.get(at)?;
        match is {
            Is::Null => None,
            Is::InLine => line.get(start..end),
            Is::Made => self.made.get(start..end),
        }
    }

    fn clear(&mut self) {
        self.fields.clear();
        self.made.clear();
        self.count = 0;
    }

    /// Values beyond `most` are counted, but not kept.
    #[inline]
    fn push(&mut self, most: usize, field: Field) {
        if self.count < most {
            self.fields.push(field);
        }
        self.count += 1;
    }

    /// Takes a line apart in which nothing is special but the delimiter.
    fn plain(
        &mut self,
        line: &[u8],
        delimiter: u8,
        null: &[u8],
        force_not_null: &[bool],
        most: usize,
    ) {
        let mut field = |start: usize, end: usize| {
            let is_null =
                line[start..end] == *null && force_not_null.get(self.count) != Some(&true);
            let is = if is_null { Is::Null } else { Is::InLine };
            self.push(most, Field { start, end, is });
        };
        let mut start = 0;
        each(delimiter, line, |at| {
            field(start, at);
            start = at + 1;
        });
        field(start, line.len());
    }

    /// Takes a line of text apart (`CopyReadAttributesText`).
    pub fn text(
        &mut self,
        line: &[u8],
        form: &CopyText,
        has_backslash: bool,
        most: usize,
    ) -> Result<(), Fault> {
        self.clear();
        let null = form.null.as_bytes();
        if !has_backslash {
            self.plain(line, form.delimiter, null, &[], most);
            return Ok(());
        }
        let mut start = 0;
        loop {
            let mut end = find([form.delimiter, b'\\'], line, start);
            let mut is = Is::InLine;
            let made = self.made.len();
            if end.is_some_and(|at| line[at] == b'\\') {
                is = Is::Made;
                end = self.unescape(line, start, form.delimiter)?;
            }
            let found = end;
            let end = end.unwrap_or(line.len());
            // At the end of the data a backslash may be the last of all.
            let raw = &line[start..end];
            let field = match is {
                _ if raw == null => Field { start, end, is: Is::Null },
                Is::Made => {
                    let value = &self.made[made..];
                    if value.iter().any(|byte| *byte == 0 || *byte >= 0x80)
                        && let Some(fault) = Fault::not_text(value)
                    {
                        return Err(fault);
                    }
                    Field { start: made, end: self.made.len(), is }
                }
                is => Field { start, end, is },
            };
            if self.count >= most {
                // Only how many there are matters.
                self.made.truncate(made);
            }
            self.push(most, field);
            match found {
                Some(at) => start = at + 1,
                None => return Ok(()),
            }
        }
    }

    /// Copies a value without its escapes; where its delimiter is.
    fn unescape(
        &mut self,
        line: &[u8],
        start: usize,
        delimiter: u8,
    ) -> Result<Option<usize>, Fault> {
        let mut at = start;
        loop {
            let found = find([delimiter, b'\\'], line, at);
            self.made.extend_from_slice(&line[at..found.unwrap_or(line.len())]);
            let Some(special) = found else { return Ok(None) };
            if line[special] == delimiter {
                return Ok(Some(special));
            }
            let Some(byte) = line.get(special + 1) else { return Ok(None) };
            at = special + 2;
            let octal = |at: usize| line.get(at).filter(|byte| (b'0'..=b'7').contains(byte));
            let hex = |at: usize| char::from(*line.get(at)?).to_digit(16);
            self.made.push(match byte {
                b'b' => 8,
                b'f' => 12,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'v' => 11,
                b'0'..=b'7' => {
                    let mut value = u32::from(byte - b'0');
                    for _ in 0..2 {
                        let Some(digit) = octal(at) else { break };
                        value = value * 8 + u32::from(digit - b'0');
                        at += 1;
                    }
                    value as u8
                }
                b'x' => match hex(at) {
                    None => b'x',
                    Some(mut value) => {
                        at += 1;
                        if let Some(digit) = hex(at) {
                            value = value * 16 + digit;
                            at += 1;
                        }
                        value as u8
                    }
                },
                other => *other,
            });
        }
    }

    /// Takes a line of CSV apart (`CopyReadAttributesCSV`).
    pub fn csv(
        &mut self,
        line: &[u8],
        form: &Csv,
        has_quote: bool,
        most: usize,
    ) -> Result<(), Fault> {
        self.clear();
        let null = form.null.as_bytes();
        if !has_quote {
            self.plain(line, form.delimiter, null, &form.force_not_null, most);
            return Ok(());
        }
        let mut start = 0;
        loop {
            let made = self.made.len();
            let (found, quoted) = match find([form.delimiter, form.quote], line, start) {
                Some(at) if line[at] == form.quote => (self.unquote(line, start, at, form)?, true),
                found => (found, false),
            };
            let end = found.unwrap_or(line.len());
            let field = if quoted {
                let (start, end) = (made, self.made.len());
                let forced =
                    form.force_null.get(self.count) == Some(&true) && self.made[start..] == *null;
                Field { start, end, is: if forced { Is::Null } else { Is::Made } }
            } else {
                let is_null =
                    line[start..end] == *null && form.force_not_null.get(self.count) != Some(&true);
                Field { start, end, is: if is_null { Is::Null } else { Is::InLine } }
            };
            if self.count >= most {
                self.made.truncate(made);
            }
            self.push(most, field);
            match found {
                Some(at) => start = at + 1,
                None => return Ok(()),
            }
        }
    }

    /// Copies a value that has quotes, the first of them at `quote`; where its delimiter is.
    fn unquote(
        &mut self,
        line: &[u8],
        start: usize,
        quote: usize,
        form: &Csv,
    ) -> Result<Option<usize>, Fault> {
        self.made.extend_from_slice(&line[start..quote]);
        let mut at = quote + 1;
        loop {
            // Within quotes.
            loop {
                let special = find([form.quote, form.escape], line, at);
                let Some(special) = special else {
                    return Err(Fault::format("unterminated CSV quoted field"));
                };
                self.made.extend_from_slice(&line[at..special]);
                at = special + 1;
                let byte = line[special];
                let next = line.get(at).filter(|next| [form.escape, form.quote].contains(next));
                match next {
                    Some(next) if byte == form.escape => {
                        self.made.push(*next);
                        at += 1;
                    }
                    _ if byte == form.quote => break,
                    _ => self.made.push(byte),
                }
            }
            // Without.
            let special = find([form.delimiter, form.quote], line, at);
            self.made.extend_from_slice(&line[at..special.unwrap_or(line.len())]);
            match special {
                Some(special) if line[special] == form.quote => at = special + 1,
                delimiter => return Ok(delimiter),
            }
        }
    }
}
