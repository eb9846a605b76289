//! COPY's formats: rows as `CopyData` messages, one for each row as PostgreSQL sends them.
//!
//! A value is written as in any result; what its format wants escaped or quoted is then widened
//! where it stands. Most columns need not even be looked at: no number, date or time has a byte
//! that could be special, unless the client chose such a delimiter.

use ::bytes::BytesMut;
use arrow::datatypes::Schema;
use postgres_types::Type;

use super::Result;
use super::column::Column;
use super::sink::{Escaped, MAX_LENGTH, Sink};
use crate::values::types::pg_type;

/// What a binary COPY begins with: the signature, no flags, no extension of the header.
const SIGNATURE: [u8; 19] = *b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// What it ends with, in place of a row's number of values.
const TRAILER: [u8; 2] = (-1_i16).to_be_bytes();

/// How COPY writes rows. Delimiter, quote and escape are single bytes of ASCII.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyFormat {
    Text(CopyText),
    Csv(CopyCsv),
    Binary,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyText {
    pub delimiter: u8,
    /// What stands for null.
    pub null: Box<str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyCsv {
    pub delimiter: u8,
    /// What stands for null. A value of this text is quoted.
    pub null: Box<str>,
    pub quote: u8,
    /// What stands before a quote, or itself, within quotes.
    pub escape: u8,
    /// For each column, whether its values are always quoted.
    pub force_quote: Vec<bool>,
}

impl CopyFormat {
    /// The line with the columns' names, as a message; nothing in binary.
    pub fn header<'a>(&self, names: impl ExactSizeIterator<Item = &'a str>) -> BytesMut {
        let mut out = Sink::after(BytesMut::new());
        if *self == Self::Binary {
            return out.into_bytes();
        }
        let columns = names.len();
        out.put_array([b'd']);
        let start = out.open();
        for (at, name) in names.enumerate() {
            if at > 0 {
                out.put_array([self.delimiter()]);
            }
            let from = out.len();
            out.put(name.as_bytes());
            match self {
                Self::Text(text) => text.escape(from, &mut out),
                Self::Csv(csv) => csv.quote_if_needed(from, columns == 1, &mut out),
                Self::Binary => {}
            }
        }
        out.put_array([b'\n']);
        // Names are too short to fail here.
        let _ = out.close(start, true);
        out.into_bytes()
    }

    /// What follows the last of so many rows, as a message; nothing but in binary.
    pub fn trailer(&self, rows: u64) -> BytesMut {
        let mut out = Sink::after(BytesMut::new());
        if *self == Self::Binary {
            out.put_array([b'd']);
            let start = out.open();
            if rows == 0 {
                out.put_array(SIGNATURE);
            }
            out.put_array(TRAILER);
            let _ = out.close(start, true);
        }
        out.into_bytes()
    }

    fn delimiter(&self) -> u8 {
        match self {
            Self::Text(text) => text.delimiter,
            Self::Csv(csv) => csv.delimiter,
            Self::Binary => 0,
        }
    }

    /// Whether a value made of [`is_plain`] bytes may need more than to be written.
    fn minds_plain(&self) -> bool {
        match self {
            Self::Text(text) => is_plain(&text.delimiter),
            Self::Csv(csv) => {
                is_plain(&csv.delimiter)
                    || is_plain(&csv.quote)
                    || (!csv.null.is_empty() && csv.null.as_bytes().iter().all(is_plain))
            }
            Self::Binary => false,
        }
    }
}

impl CopyText {
    /// Puts a backslash before what must not be taken for the end of a value or a line
    /// (PostgreSQL's `CopyAttributeOutText`).
    fn escape(&self, start: usize, out: &mut Sink) {
        let delimiter = self.delimiter;
        // A delimiter is neither a lower-case letter nor a digit.
        let any = |b| (b < b' ') | (b == b'\\') | (b == delimiter);
        if !out.any_since(start, b'x', any) {
            return;
        }
        let letter = |b: u8| match b {
            8 => Some(b'b'),
            b'\t' => Some(b't'),
            b'\n' => Some(b'n'),
            11 => Some(b'v'),
            12 => Some(b'f'),
            b'\r' => Some(b'r'),
            b'\\' => Some(b),
            _ => (b == delimiter).then_some(b),
        };
        let extra = out.since(start).iter().filter(|b| letter(**b).is_some()).count();
        out.widen(start, extra, None, |b| match letter(b) {
            Some(letter) => Escaped::pair(b'\\', letter),
            None => Escaped::plain(b),
        });
    }
}

impl CopyCsv {
    /// As PostgreSQL's `CopyAttributeOutCSV`. Alone in its line, `\.` would end the data.
    fn quote_if_needed(&self, start: usize, alone: bool, out: &mut Sink) {
        let Self { delimiter, quote, .. } = *self;
        let any = |b| (b == delimiter) | (b == quote) | (b == b'\n') | (b == b'\r');
        let filler = if any(b'x') { b'y' } else { b'x' };
        let filler = if any(filler) { b'z' } else { filler };
        let text = out.since(start);
        if text == self.null.as_bytes()
            || (alone && text == b"\\.")
            || out.any_since(start, filler, any)
        {
            self.quote(start, out);
        }
    }

    fn quote(&self, start: usize, out: &mut Sink) {
        let special = |b| (b == self.quote) | (b == self.escape);
        let extra = out.since(start).iter().filter(|b| special(**b)).count();
        out.widen(start, extra, Some(self.quote), |b| match special(b) {
            true => Escaped::pair(self.escape, b),
            false => Escaped::plain(b),
        });
    }
}

/// Bytes in the text of numbers, truth values, dates, times, intervals and UUIDs.
fn is_plain(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.' | b':' | b' ')
}

/// Types whose text has [`is_plain`] bytes only.
fn has_plain_text(pg: &Type) -> bool {
    [
        Type::BOOL,
        Type::INT2,
        Type::INT4,
        Type::INT8,
        Type::OID,
        Type::FLOAT4,
        Type::FLOAT8,
        Type::NUMERIC,
        Type::DATE,
        Type::TIME,
        Type::TIMESTAMP,
        Type::TIMESTAMPTZ,
        Type::INTERVAL,
        Type::UUID,
    ]
    .contains(pg)
}

/// Writes the rows of one COPY.
pub(super) struct Rows {
    format: CopyFormat,
    /// For each column, what is done about its values' text.
    care: Vec<Care>,
    /// The signature goes with the first row.
    begun: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Care {
    None,
    Look,
    Quote,
}

impl Rows {
    pub(super) fn new(schema: &Schema, format: CopyFormat) -> Self {
        let minds_plain = format.minds_plain();
        let care = |(at, pg): (usize, Type)| match &format {
            CopyFormat::Csv(csv) if csv.force_quote.get(at) == Some(&true) => Care::Quote,
            _ if has_plain_text(&pg) && !minds_plain => Care::None,
            _ => Care::Look,
        };
        let types = schema.fields().iter().map(|field| pg_type(field)).enumerate();
        let care = types.map(care).collect();
        Self { format, care, begun: false }
    }

    /// Appends a message for each of the first `count` rows.
    pub(super) fn write(&mut self, columns: &[Column], count: usize, out: &mut Sink) -> Result<()> {
        match &self.format {
            CopyFormat::Text(text) => (0..count).try_for_each(|row| {
                let (form, columns) = ((text.delimiter, &*text.null), (columns, &*self.care));
                line(form, columns, row, out, |care, from, out| match care {
                    Care::None => {}
                    Care::Look | Care::Quote => text.escape(from, out),
                })
            }),
            CopyFormat::Csv(csv) => (0..count).try_for_each(|row| {
                let (form, alone) = ((csv.delimiter, &*csv.null), columns.len() == 1);
                line(form, (columns, &*self.care), row, out, |care, from, out| match care {
                    Care::None => {}
                    Care::Look => csv.quote_if_needed(from, alone, out),
                    Care::Quote => csv.quote(from, out),
                })
            }),
            CopyFormat::Binary => (0..count).try_for_each(|row| {
                let first = !std::mem::replace(&mut self.begun, true);
                binary_row(columns, row, first, out)
            }),
        }
    }
}

/// A row as a line. `finish` is given each value's care and start, once it is written.
#[inline]
fn line(
    (delimiter, null): (u8, &str),
    (columns, care): (&[Column], &[Care]),
    row: usize,
    out: &mut Sink,
    finish: impl Fn(Care, usize, &mut Sink),
) -> Result<()> {
    out.put_array([b'd']);
    let start = out.open();
    for (at, (column, care)) in columns.iter().zip(care).enumerate() {
        if at > 0 {
            out.put_array([delimiter]);
        }
        if column.is_null(row) {
            out.put(null.as_bytes());
            continue;
        }
        let from = out.len();
        column.write(row, out)?;
        finish(*care, from, out);
        if out.len() - start > MAX_LENGTH {
            break;
        }
    }
    out.put_array([b'\n']);
    out.close(start, true)
}

fn binary_row(columns: &[Column], row: usize, first: bool, out: &mut Sink) -> Result<()> {
    out.put_array([b'd']);
    let start = out.open();
    if first {
        out.put_array(SIGNATURE);
    }
    super::values(columns, row, start, out)?;
    out.close(start, true)
}
