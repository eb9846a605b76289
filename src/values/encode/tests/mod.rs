//! Whole rows, against what PostgreSQL 15 sends.

mod copy;
mod shapes;
mod values;

use std::sync::Arc;

use ::bytes::BytesMut;
use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema};

use super::{Error, Format, RowEncoder, TextStyle, TimeZone};

pub(super) fn style(zone: &str) -> TextStyle {
    TextStyle { time_zone: TimeZone::parse(zone).unwrap(), ..TextStyle::default() }
}

pub(super) fn batch(field: Field, array: ArrayRef) -> RecordBatch {
    let options = RecordBatchOptions::new().with_row_count(Some(array.len()));
    let schema = Arc::new(Schema::new(vec![field]));
    RecordBatch::try_new_with_options(schema, vec![array], &options).unwrap()
}

/// The messages of a batch.
pub(super) fn encoded(batch: &RecordBatch, format: Format, zone: &str) -> Result<BytesMut, Error> {
    let formats = vec![format; batch.num_columns()];
    let mut encoder = RowEncoder::new(&batch.schema(), formats, style(zone))?;
    let mut out = BytesMut::new();
    encoder.encode(batch, 0..batch.num_rows(), &mut out)?;
    Ok(out)
}

/// The values of the messages, row by row.
pub(super) fn values(mut messages: &[u8]) -> Vec<Vec<Option<Vec<u8>>>> {
    let mut rows = Vec::new();
    while !messages.is_empty() {
        assert_eq!(messages[0], b'D');
        let length = u32::from_be_bytes(messages[1..5].try_into().unwrap()) as usize;
        let (mut row, rest) = messages[5..].split_at(length - 4);
        messages = rest;
        let count = u16::from_be_bytes(row[..2].try_into().unwrap());
        row = &row[2..];
        let mut values = Vec::new();
        for _ in 0..count {
            let length = i32::from_be_bytes(row[..4].try_into().unwrap());
            row = &row[4..];
            values.push(usize::try_from(length).ok().map(|length| {
                let (value, rest) = row.split_at(length);
                row = rest;
                value.to_vec()
            }));
        }
        assert!(row.is_empty());
        rows.push(values);
    }
    rows
}

/// The texts of a column, "NULL" where there is none.
pub(super) fn texts_of(field: Field, array: ArrayRef, zone: &str) -> Vec<String> {
    let messages = encoded(&batch(field, array), Format::Text, zone).unwrap();
    let text = |value: &Option<Vec<u8>>| match value {
        Some(value) => String::from_utf8(value.clone()).unwrap(),
        None => "NULL".into(),
    };
    values(&messages).iter().map(|row| text(&row[0])).collect()
}

pub(super) fn texts(array: impl Array + 'static) -> Vec<String> {
    let field = Field::new("c", array.data_type().clone(), true);
    texts_of(field, Arc::new(array), "UTC")
}

/// A column's binary values as hexadecimal digits, "NULL" where there is none.
pub(super) fn binaries(array: impl Array + 'static) -> Vec<String> {
    let field = Field::new("c", array.data_type().clone(), true);
    let messages = encoded(&batch(field, Arc::new(array)), Format::Binary, "UTC").unwrap();
    let value = |value: &Option<Vec<u8>>| match value {
        Some(value) => super::testing::hex(value),
        None => "NULL".into(),
    };
    values(&messages).iter().map(|row| value(&row[0])).collect()
}
