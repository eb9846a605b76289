//! COPY ... FROM: bytes as they arrive, cut anywhere, to batches of a table's columns.
//!
//! - [`input`]: what has arrived; text must be UTF-8.
//! - [`lines`]: where lines end, in text and CSV; [`fields`]: what values are in them.
//! - [`binary`]: rows of the binary format.
//! - [`columns`]: values to arrays; [`fast`]: those in their usual spelling.
//! - [`scan`]: finds the few bytes that mean something.
//! - [`error`]: what is wrong, and where.
//!
//! What is taken and what is refused, and with which words, is as in PostgreSQL 15
//! (`copyfromparse.c`). In memory are at most the bytes pushed last, one row, and one batch.

mod binary;
mod columns;
mod error;
mod fast;
mod fields;
mod input;
mod lines;
mod scan;
#[cfg(test)]
mod tests;

use arrow::array::RecordBatch;
use arrow::datatypes::FieldRef;

use self::binary::{Found, Rows};
use self::columns::{Columns, Place};
pub use self::error::{Error, Fault, LineEnd};
pub use self::fields::Csv;
use self::fields::Fields;
use self::input::Input;
use self::lines::{Line, Lines, Quotes};
use crate::values::encode::{CopyText, Format, TimeZone};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Rows of a batch, unless they are long.
const BATCH_ROWS: usize = 8192;

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Bytes that come in for a batch.
const BATCH_BYTES: usize = 4 << 20;

/// No row may be longer, as in PostgreSQL (`MaxAllocSize`).
const MAX_ROW: usize = (1 << 30) - 1;

/// How the bytes are to be read. Delimiter, quote and escape are single bytes of ASCII.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopySource {
    Text(CopyText, Header),
    Csv(Csv, Header),
    Binary,
}

/// What the first line is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Header {
    /// A row.
    #[default]
    None,
    /// Names that do not matter.
    Skip,
    /// The columns' names.
    Match,
}

/// Decodes what one COPY brings. After an error it is of no use any more.
#[derive(Debug)]
pub struct CopyDecoder {
    input: Input,
    columns: Columns,
    reader: Reader,
    limit: usize,
    /// Bytes that went into the rows of the next batch.
    bytes: usize,
    rows: u64,
}

#[derive(Debug)]
enum Reader {
    Lines { form: Form, lines: Lines, fields: Fields, header: Header },
    Binary(Rows),
}

#[derive(Debug)]
enum Form {
    Text(CopyText),
    Csv(Csv),
}

/// What came of looking for a row.
enum Step {
    Row,
    /// Something that is no row was passed.
    Passed,
    More,
    End,
}

impl CopyDecoder {
    /// A decoder for values of these columns, in the order in which they come. A row may have
    /// `limit` bytes. `zone` is that of timestamps without one.
    pub fn new(
        table: impl Into<String>,
        fields: &[FieldRef],
        source: CopySource,
        zone: TimeZone,
        limit: usize,
    ) -> Self {
        let limit = limit.min(MAX_ROW);
        let (reader, format) = match source {
            CopySource::Text(text, header) => {
                (Reader::lines(Form::Text(text), header), Format::Text)
            }
            CopySource::Csv(csv, header) => (Reader::lines(Form::Csv(csv), header), Format::Text),
            CopySource::Binary => (Reader::Binary(Rows::new(fields.len(), limit)), Format::Binary),
        };
        Self {
            input: Input::new(format == Format::Text),
            columns: Columns::new(table.into(), fields, format, zone),
            reader,
            limit,
            bytes: 0,
            rows: 0,
        }
    }

    /// Rows that were decoded so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Takes bytes in; [`Self::next_batch`] decodes them.
    pub fn push(&mut self, bytes: &[u8]) {
        self.input.push(bytes);
    }

    /// Nothing more will be pushed.
    pub fn end(&mut self) {
        self.input.end();
    }

    /// The next batch of what is there; `None` if more has to come for one, or, after
    /// [`Self::end`], if that was all.
    pub fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            match self.step()? {
                Step::Row => {
                    self.rows += 1;
                    self.columns.end_row();
                    if self.columns.rows() >= BATCH_ROWS || self.bytes >= BATCH_BYTES {
                        return self.batch().map(Some);
                    }
                }
                Step::Passed => {}
                Step::More => return Ok(None),
                Step::End if self.columns.rows() > 0 => return self.batch().map(Some),
                Step::End => return Ok(None),
            }
        }
    }

    /// What the client, or the connection, gives as the reason that no more comes.
    pub fn fail(&self, fault: Fault) -> Error {
        let (number, place) = match &self.reader {
            Reader::Lines { lines, .. } => (lines.expected(), Place::Row),
            Reader::Binary(rows) => (rows.expected(), rows.place()),
        };
        self.columns.error(number, place, fault)
    }

    fn batch(&mut self) -> Result<RecordBatch> {
        self.bytes = 0;
        self.columns.finish().map_err(|fault| Error { fault, context: None })
    }

    fn step(&mut self) -> Result<Step> {
        let Self { input, columns, reader, limit, .. } = self;
        let (step, length) = match reader {
            Reader::Lines { form, lines, fields, header } => {
                step_line(form, lines, fields, header, input, columns, *limit)?
            }
            Reader::Binary(rows) => step_row(rows, input, columns)?,
        };
        self.bytes += length;
        self.input.take(length);
        if let (Step::End, Reader::Lines { .. }) = (&step, &self.reader) {
            // Whatever follows the marker is ignored.
            self.input.close();
        }
        Ok(step)
    }
}

impl Reader {
    fn lines(form: Form, header: Header) -> Self {
        let quotes = match &form {
            Form::Text(_) => None,
            Form::Csv(csv) => {
                // Zero, which is not in the data: a quote that is its own escape is just a quote.
                let escape = if csv.escape == csv.quote { 0 } else { csv.escape };
                Some(Quotes { quote: csv.quote, escape })
            }
        };
        Self::Lines { form, lines: Lines::new(quotes), fields: Fields::default(), header }
    }
}

/// The next line: what it was, and how many bytes it took.
fn step_line(
    form: &Form,
    lines: &mut Lines,
    fields: &mut Fields,
    header: &mut Header,
    input: &Input,
    columns: &mut Columns,
    limit: usize,
) -> Result<(Step, usize)> {
    if lines.is_over() {
        return Ok((Step::End, 0));
    }
    let data = input.rest();
    let found = lines.next(data, input.is_last());
    let found = found.map_err(|fault| columns.error(lines.number, Place::Row, fault))?;
    let Some(Line { end, next, is_special, is_last }) = found else {
        let long = || (data.len() > limit).then_some(Fault::TooLong { limit });
        return match input.fault().or_else(long) {
            Some(fault) => Err(columns.error(lines.expected(), Place::Row, fault)),
            None => Ok((Step::More, 0)),
        };
    };
    let number = lines.number;
    if end > limit {
        return Err(columns.error(number, Place::Row, Fault::TooLong { limit }));
    }
    let first = std::mem::take(header);
    let line = match first {
        // With that some programs begin a text in UTF-8: it belongs to no name.
        Header::Match => data[..end].strip_prefix(BYTE_ORDER_MARK).unwrap_or(&data[..end]),
        Header::None | Header::Skip => &data[..end],
    };
    if is_last && line.is_empty() && first != Header::Match {
        return Ok((Step::End, next));
    }
    if first == Header::Skip {
        return Ok((Step::Passed, next));
    }
    // One more, to tell that there are too many.
    let most = columns.count() + 1;
    let split = match form {
        Form::Text(text) => fields.text(line, text, is_special, most),
        Form::Csv(csv) => fields.csv(line, csv, is_special, most),
    };
    let wrong = |fault| columns.error(number, Place::Line(line), fault);
    split.map_err(wrong)?;
    if first == Header::Match {
        let null = match form {
            Form::Text(text) => &text.null,
            Form::Csv(csv) => &csv.null,
        };
        match_header(fields, line, columns, null).map_err(wrong)?;
        return Ok((Step::Passed, next));
    }
    push_line(fields, line, columns, number)?;
    Ok((Step::Row, next))
}

fn push_line(fields: &Fields, line: &[u8], columns: &mut Columns, number: u64) -> Result<()> {
    let count = columns.count();
    let wrong = |columns: &Columns, fault| Err(columns.error(number, Place::Line(line), fault));
    if fields.count > count && (count > 0 || !line.is_empty()) {
        return wrong(columns, Fault::format("extra data after last expected column"));
    }
    let mut missing = None;
    for at in 0..count {
        if at >= fields.count {
            let text = format!("missing data for column \"{}\"", columns.name(at));
            return wrong(columns, Fault::format(text));
        }
        let value = fields.get(line, at);
        if value.is_none() && columns.refuses_null(at) {
            missing = missing.or(Some(at));
        }
        if let Err(fault) = columns.push(at, value) {
            return Err(columns.error(number, Place::Column(at, value), fault));
        }
    }
    match missing {
        Some(at) => wrong(columns, columns.null_in(at)),
        None => Ok(()),
    }
}

fn match_header(fields: &Fields, line: &[u8], columns: &Columns, null: &str) -> Result<(), Fault> {
    let (found, expected) = (fields.count, columns.count());
    if found != expected {
        let text =
            format!("wrong number of fields in header line: got {found}, expected {expected}");
        return Err(Fault::format(text));
    }
    for at in 0..expected {
        let (number, name) = (at + 1, columns.name(at));
        let got = match fields.get(line, at) {
            Some(value) if value == name.as_bytes() => continue,
            Some(value) => format!("\"{}\"", String::from_utf8_lossy(value)),
            None => format!("null value (\"{null}\")"),
        };
        let text = format!(
            "column name mismatch in header line field {number}: got {got}, expected \"{name}\""
        );
        return Err(Fault::format(text));
    }
    Ok(())
}

/// The next row in binary: what it was, and how many bytes it took.
fn step_row(rows: &mut Rows, input: &Input, columns: &mut Columns) -> Result<(Step, usize)> {
    let data = input.rest();
    let (fault, length) = match rows.next(data, input.is_last()) {
        Ok(Found::Row(length)) => (None, length),
        Ok(Found::Skip(length)) => return Ok((Step::Passed, length)),
        Ok(Found::More) => return Ok((Step::More, 0)),
        Ok(Found::End) => return Ok((Step::End, 0)),
        Err(fault) => (Some(fault), data.len()),
    };
    let mut missing = None;
    // What is wrong with a value comes before what is wrong behind it.
    for at in 0..rows.known() {
        let value = rows.get(&data[..length], at);
        if value.is_none() && columns.refuses_null(at) {
            missing = missing.or(Some(at));
        }
        if let Err(fault) = columns.push(at, value) {
            return Err(columns.error(rows.number, Place::Column(at, None), fault));
        }
    }
    match (fault, missing) {
        (Some(fault), _) => Err(columns.error(rows.number, rows.place(), fault)),
        (None, Some(at)) => Err(columns.error(rows.number, Place::Row, columns.null_in(at))),
        (None, None) => Ok((Step::Row, length)),
    }
}
