//! COPY's rows. Whole answers are compared with PostgreSQL's in `tests/protocol/copy.txt`.

use std::sync::Arc;

use ::bytes::BytesMut;
use arrow::array::*;
use arrow::datatypes::*;

use super::super::sink::Sink;
use super::super::{CopyCsv, CopyFormat, CopyText, RowEncoder};
use super::style;

fn text() -> CopyFormat {
    CopyFormat::Text(CopyText { delimiter: b'\t', null: "\\N".into() })
}

fn csv(quote: u8, escape: u8) -> CopyFormat {
    let (delimiter, null, force_quote) = (b',', "".into(), Vec::new());
    CopyFormat::Csv(CopyCsv { delimiter, null, quote, escape, force_quote })
}

fn batch(columns: Vec<ArrayRef>) -> RecordBatch {
    let names = (0..columns.len()).map(|at| format!("c{at}"));
    RecordBatch::try_from_iter_with_nullable(names.zip(columns).map(|(n, c)| (n, c, true))).unwrap()
}

/// The contents of each message, in two batches.
fn messages(batch: &RecordBatch, format: CopyFormat) -> Vec<Vec<u8>> {
    let mut encoder = RowEncoder::copy(&batch.schema(), format, style("UTC")).unwrap();
    let (mut out, half) = (BytesMut::new(), batch.num_rows() / 2);
    encoder.encode(batch, 0..half, &mut out).unwrap();
    encoder.encode(batch, half..batch.num_rows(), &mut out).unwrap();
    let mut messages = Vec::new();
    let mut rest = &out[..];
    while let Some((kind, after)) = rest.split_first() {
        assert_eq!(*kind, b'd');
        let length = u32::from_be_bytes(after[..4].try_into().unwrap()) as usize;
        messages.push(after[4..length].to_vec());
        rest = &after[length..];
    }
    messages
}

fn lines(batch: &RecordBatch, format: CopyFormat) -> Vec<String> {
    let text = |message| String::from_utf8(message).unwrap();
    messages(batch, format).into_iter().map(text).collect()
}

/// Every byte at every place, against the simplest way to write PostgreSQL's rules.
#[test]
fn special_bytes_anywhere() {
    let places = [0, 1, 7, 14, 15, 16, 17, 30, 31, 32, 33];
    let mut values = vec![String::new()];
    for place in places {
        for byte in 0..128_u8 {
            let (before, after) =
                ("é".repeat(place / 2) + &"-".repeat(place % 2), "x".repeat(place));
            values.push(format!("{before}{}{after}", char::from(byte)));
        }
    }
    let array: ArrayRef = Arc::new(StringArray::from(values.clone()));
    let two = batch(vec![array.clone(), array.clone()]);
    let escaped = |value: &str| {
        let escaped = |c: char| match c {
            '\u{8}' => "\\b".to_owned(),
            '\t' => "\\t".to_owned(),
            '\n' => "\\n".to_owned(),
            '\u{b}' => "\\v".to_owned(),
            '\u{c}' => "\\f".to_owned(),
            '\r' => "\\r".to_owned(),
            '\\' => "\\\\".to_owned(),
            c => c.to_string(),
        };
        value.chars().map(escaped).collect::<String>()
    };
    for (line, value) in lines(&two, text()).iter().zip(&values) {
        assert_eq!(*line, format!("{0}\t{0}\n", escaped(value)));
    }
    for (quote, escape) in [('"', '"'), ('\'', '\\'), ('x', '-')] {
        let quoted = |value: &str| {
            if !value.is_empty() && !value.contains([',', '\n', '\r', quote]) {
                return value.to_owned();
            }
            let inner = value.chars().map(|c| match c == quote || c == escape {
                true => format!("{escape}{c}"),
                false => c.to_string(),
            });
            format!("{quote}{}{quote}", inner.collect::<String>())
        };
        let lines = lines(&two, csv(quote as u8, escape as u8));
        for (line, value) in lines.iter().zip(&values) {
            assert_eq!(*line, format!("{0},{0}\n", quoted(value)));
        }
    }
}

#[test]
fn dictionaries_and_nulls() {
    let words = [Some("a,b"), None, Some("c\\"), Some("a,b"), Some("c\\")];
    let words: DictionaryArray<Int8Type> = words.into_iter().collect();
    let numbers = Int64Array::from(vec![Some(1), Some(-2), None, Some(4), Some(5)]);
    let batch = batch(vec![Arc::new(words), Arc::new(numbers)]);
    let expected = ["a,b\t1\n", "\\N\t-2\n", "c\\\\\t\\N\n", "a,b\t4\n", "c\\\\\t5\n"];
    assert_eq!(lines(&batch, text()), expected);
    let expected = ["\"a,b\",1\n", ",-2\n", "c\\,\n", "\"a,b\",4\n", "c\\,5\n"];
    assert_eq!(lines(&batch, csv(b'"', b'"')), expected);
}

#[test]
fn the_signature_goes_with_the_first_row_only() {
    let batch = batch(vec![Arc::new(Int32Array::from(vec![Some(1), None]))]);
    let signature = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
    let expected = [
        [&signature[..], b"\0\x01\0\0\0\x04\0\0\0\x01"].concat(),
        b"\0\x01\xff\xff\xff\xff".to_vec(),
    ];
    assert_eq!(messages(&batch, CopyFormat::Binary), expected);
    assert_eq!(CopyFormat::Binary.trailer(2)[..], *b"d\0\0\0\x06\xff\xff");
    let alone = [b"d\0\0\0\x19", &signature[..], b"\xff\xff"].concat();
    assert_eq!(CopyFormat::Binary.trailer(0)[..], alone);
    assert!(text().trailer(0).is_empty());
    assert!(CopyFormat::Binary.header(["a"].into_iter()).is_empty());
}

#[test]
fn a_value_that_cannot_be_sent_leaves_nothing() {
    let moments = TimestampSecondArray::from(vec![0, i64::MAX]);
    let batch = batch(vec![Arc::new(moments)]);
    for format in [text(), csv(b'"', b'"'), CopyFormat::Binary] {
        let mut encoder = RowEncoder::copy(&batch.schema(), format, style("UTC")).unwrap();
        let mut out = BytesMut::from(&b"before"[..]);
        assert!(encoder.encode(&batch, 0..2, &mut out).is_err());
        assert_eq!(out, "before");
    }
}

#[test]
fn bytes_are_looked_at_up_to_the_end() {
    for length in 0..50 {
        let mut sink = Sink::after(BytesMut::new());
        sink.put(b"!");
        sink.put(&vec![b'a'; length]);
        assert!(!sink.any_since(1, b'x', |b| b == b'!'));
        assert_eq!(sink.any_since(1, b'x', |b| b == b'a'), length > 0);
        sink.put(b"!");
        assert!(sink.any_since(1, b'x', |b| b == b'!'));
        // What follows is no part of it.
        sink.truncate(length + 1);
        assert!(!sink.any_since(1, b'x', |b| b == b'!'));
    }
}
