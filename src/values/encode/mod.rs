//! Rows out: Arrow batches as PostgreSQL `DataRow` messages, or as COPY's `CopyData`.
//!
//! A column is downcast once per batch to a [`ValueWriter`](column::ValueWriter), which writes one
//! value in text or binary format and knows nothing of rows; this module and [`copy`] put the values
//! together.
//! Every value is byte for byte what PostgreSQL 15 sends with `DateStyle` ISO, `IntervalStyle`
//! postgres, `bytea_output` hex and `extra_float_digits` 1. PostgreSQL has microseconds:
//! nanoseconds are rounded down in times and timestamps, and toward zero in intervals.

mod bytes;
pub(super) mod calendar;
mod column;
mod copy;
mod datetime;
mod digits;
mod float;
mod interval;
mod json;
mod list;
mod numeric;
mod sink;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod zone;

use std::ops::Range;

use ::bytes::BytesMut;
use arrow::array::{Array, ArrayRef, RecordBatch, StringViewArray, StringViewBuilder};
use arrow::compute::cast;
use arrow::datatypes::{Field, FieldRef, Schema};

use self::column::Column;
pub use self::copy::{CopyCsv, CopyFormat, CopyText};
use self::sink::{MAX_LENGTH, Sink};
pub use self::zone::TimeZone;
use super::types::pg_type;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("a list of lists of different lengths cannot be sent as an array")]
    Ragged,
    /// PostgreSQL's `MAXDIM` is 6.
    #[error("number of array dimensions ({found}) exceeds the maximum allowed (6)")]
    TooManyDimensions { found: usize },
    #[error("{pg} out of range: {value}")]
    OutOfRange { pg: &'static str, value: i64 },
    #[error("a row or value of {bytes} bytes exceeds the limit of 1 GB")]
    TooLarge { bytes: usize },
    #[error("{columns} columns are more than a row can have")]
    TooManyColumns { columns: usize },
    #[error("{formats} formats were given for {columns} columns")]
    Formats { formats: usize, columns: usize },
    /// The batch does not have the schema that was announced.
    #[error("the batch does not match the announced row description: {detail}")]
    Schema { detail: String },
    #[error("rows {start} to {end} of a batch of {rows} rows")]
    NoSuchRows { start: usize, end: usize, rows: usize },
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
}

impl Error {
    /// The error code that PostgreSQL gives in this case; XX000 for what is a defect of the plan.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            Self::Ragged => "2202E",
            Self::OutOfRange { .. } => "22008",
            Self::TooManyDimensions { .. } | Self::TooLarge { .. } => "54000",
            Self::TooManyColumns { .. } => "54011",
            Self::Formats { .. } => "08P01",
            Self::Schema { .. } | Self::NoSuchRows { .. } | Self::Arrow(_) => "XX000",
        }
    }
}

/// How a value travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Text,
    Binary,
}

/// The session's settings that change a value's text.
#[derive(Clone, Debug, Default)]
pub struct TextStyle {
    /// The zone in which `timestamptz` is shown.
    pub time_zone: TimeZone,
    /// Whether JSON has moments of UTC with a `Z`, as RFC 3339 writes them. PostgreSQL's has `+00:00`.
    pub json_z: bool,
}

/// Encodes the batches of one result.
pub struct RowEncoder {
    columns: Vec<(FieldRef, Format)>,
    /// COPY's rows, if it is COPY that asks.
    copy: Option<copy::Rows>,
    style: TextStyle,
    /// Bytes that a row took so far, for the next reservation.
    row_bytes: usize,
}

impl RowEncoder {
    /// An encoder for results of this schema, with a format for every column.
    pub fn new(schema: &Schema, formats: Vec<Format>, style: TextStyle) -> Result<Self> {
        let columns = schema.fields().len();
        if formats.len() != columns {
            return Err(Error::Formats { formats: formats.len(), columns });
        }
        if i16::try_from(columns).is_err() {
            return Err(Error::TooManyColumns { columns });
        }
        let columns: Vec<_> = schema.fields().iter().cloned().zip(formats).collect();
        let row_bytes = 7 + 16 * columns.len();
        Ok(Self { columns, copy: None, style, row_bytes })
    }

    /// An encoder for COPY of such results, with a `CopyData` message for every row.
    pub fn copy(schema: &Schema, format: CopyFormat, style: TextStyle) -> Result<Self> {
        let values = match format {
            CopyFormat::Text(_) | CopyFormat::Csv(_) => Format::Text,
            CopyFormat::Binary => Format::Binary,
        };
        let encoder = Self::new(schema, vec![values; schema.fields().len()], style)?;
        Ok(Self { copy: Some(copy::Rows::new(schema, format)), ..encoder })
    }

    /// Appends a message to `out` for each of the rows. After an error `out` is as it was.
    pub fn encode(
        &mut self,
        batch: &RecordBatch,
        rows: Range<usize>,
        out: &mut BytesMut,
    ) -> Result<()> {
        let columns = self.columns(batch, rows.clone())?;
        let count = rows.len();
        out.reserve(count.saturating_mul(self.row_bytes).min(MAX_LENGTH));
        let mut sink = Sink::after(std::mem::take(out));
        let start = sink.len();
        let written = match &mut self.copy {
            None => (0..count).try_for_each(|row| data_row(&columns, row, &mut sink)),
            Some(copy) => copy.write(&columns, count, &mut sink),
        };
        if written.is_err() {
            sink.truncate(start);
        } else if let Some(bytes) = (sink.len() - start).checked_div(count) {
            // One eighth more, so that a slightly longer batch does not make it grow.
            self.row_bytes = bytes * 9 / 8 + 1;
        }
        *out = sink.into_bytes();
        written
    }

    /// Downcasts the columns, cut to the rows.
    fn columns(&self, batch: &RecordBatch, rows: Range<usize>) -> Result<Vec<Column>> {
        if rows.start > rows.end || rows.end > batch.num_rows() {
            let Range { start, end } = rows;
            return Err(Error::NoSuchRows { start, end, rows: batch.num_rows() });
        }
        if batch.num_columns() != self.columns.len() {
            let detail = format!("{} columns, not {}", batch.num_columns(), self.columns.len());
            return Err(Error::Schema { detail });
        }
        let arrays = batch.columns().iter().map(|array| array.slice(rows.start, rows.len()));
        self.columns.iter().zip(arrays).map(|(column, array)| self.column(column, &array)).collect()
    }

    fn column(&self, (field, format): &(FieldRef, Format), array: &ArrayRef) -> Result<Column> {
        if array.data_type() == field.data_type() {
            return column::build(field, array, *format, &self.style);
        }
        // The metadata of what is nested may be lost on the way: what was announced counts.
        if array.data_type().equals_datatype(field.data_type()) {
            let array = cast(array, field.data_type())?;
            return column::build(field, &array, *format, &self.style);
        }
        // An operator may hand out another encoding of the type that its schema says.
        let actual = field.as_ref().clone().with_data_type(array.data_type().clone());
        if pg_type(&actual) != pg_type(field) {
            let (name, expected, found) = (field.name(), field.data_type(), array.data_type());
            let detail = format!("column {name} is {found}, not {expected}");
            return Err(Error::Schema { detail });
        }
        column::build(&actual, array, *format, &self.style)
    }
}

/// The values of a column as text, each as it stands in a result's column.
pub fn text(field: &Field, array: &ArrayRef, style: &TextStyle) -> Result<StringViewArray> {
    let column = column::build(field, array, Format::Text, style)?;
    let mut texts = StringViewBuilder::with_capacity(array.len());
    let mut sink = Sink::after(BytesMut::new());
    for row in 0..array.len() {
        if column.is_null(row) {
            texts.append_null();
            continue;
        }
        sink.truncate(0);
        column.write(row, &mut sink)?;
        // Text of ours is UTF-8 throughout.
        texts.append_value(String::from_utf8_lossy(sink.since(0)));
    }
    Ok(texts.finish())
}

/// The values of a column as JSON, each as PostgreSQL's `to_json` writes it.
pub fn json(field: &Field, array: &ArrayRef, style: &TextStyle) -> Result<StringViewArray> {
    if array.data_type().is_null() {
        return Ok(StringViewArray::new_null(array.len()));
    }
    let mut texts = StringViewBuilder::with_capacity(array.len());
    let nulls = array.logical_nulls();
    let writer = json::writer(field, array, style)?;
    let mut sink = Sink::after(BytesMut::new());
    for row in 0..array.len() {
        if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            texts.append_null();
            continue;
        }
        sink.truncate(0);
        column::ValueWriter::write(writer.as_ref(), row, &mut sink)?;
        // JSON of ours is UTF-8 throughout.
        texts.append_value(String::from_utf8_lossy(sink.since(0)));
    }
    Ok(texts.finish())
}

/// Writes one message: 'D', its length, the number of values, and each value behind its length.
fn data_row(columns: &[Column], row: usize, out: &mut Sink) -> Result<()> {
    out.put_array([b'D']);
    let start = out.open();
    values(columns, row, start, out)?;
    out.close(start, true)
}

/// Writes the number of values, and each behind its length, as far as a message that began at
/// `start` may become long.
#[inline(always)]
fn values(columns: &[Column], row: usize, start: usize, out: &mut Sink) -> Result<()> {
    // `RowEncoder::new` refused more than an i16 counts.
    out.put_array((columns.len() as u16).to_be_bytes());
    for column in columns {
        column.frame(row, out)?;
        if out.len() - start > MAX_LENGTH {
            break;
        }
    }
    Ok(())
}
