//! How fast rows come in: megabytes of COPY data a second on one core, for TPC-H lineitem and for
//! single columns of it. `cargo bench --bench decode [-- name]`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::FieldRef;
use bytes::BytesMut;
use oribi::values::decode::copy::{CopyDecoder, CopySource, Csv, Header};
use oribi::values::encode::{CopyCsv, CopyFormat, CopyText, RowEncoder, TextStyle, TimeZone};
use tpchgen::generators::LineItemGenerator;
use tpchgen_arrow::LineItemArrow;

const ROWS: usize = 8192;

/// Bytes that arrive at once.
const CHUNK: usize = 256 * 1024;

/// How long each case runs.
const TIME: Duration = Duration::from_millis(500);

fn main() {
    let only: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let wanted = |name: &str| only.is_empty() || only.iter().any(|part| name.contains(part));
    println!("{:<24}{:>12}{:>10}{:>12}{:>12}", "", "format", "MB/s", "ns/value", "bytes/value");
    for (name, batches) in cases().into_iter().filter(|(name, _)| wanted(name)) {
        for way in WAYS {
            measure(&name, &batches, way);
        }
    }
}

const WAYS: [&str; 3] = ["text", "csv", "binary"];

/// How rows leave, and how they are read again.
fn formats(way: &str) -> (CopyFormat, CopySource) {
    let (delimiter, quote) = (b',', b'"');
    match way {
        "text" => {
            let text = CopyText { delimiter: b'\t', null: "\\N".into() };
            (CopyFormat::Text(text.clone()), CopySource::Text(text, Header::None))
        }
        "csv" => {
            let (escape, force_quote) = (quote, Vec::new());
            let to = CopyCsv { delimiter, null: "".into(), quote, escape, force_quote };
            let (null, force_not_null, force_null) = ("".into(), Vec::new(), Vec::new());
            let from = Csv { delimiter, null, quote, escape, force_not_null, force_null };
            (CopyFormat::Csv(to), CopySource::Csv(from, Header::None))
        }
        _ => (CopyFormat::Binary, CopySource::Binary),
    }
}

/// The bytes of all rows, as COPY TO sends them.
fn data(batches: &[RecordBatch], format: CopyFormat) -> Vec<u8> {
    let mut encoder = RowEncoder::copy(&batches[0].schema(), format, TextStyle::default())
        .expect("a supported schema");
    let mut data = Vec::new();
    for batch in batches {
        let mut messages = BytesMut::new();
        encoder.encode(batch, 0..batch.num_rows(), &mut messages).expect("encodes");
        let mut rest = &messages[..];
        while let [b'd', a, b, c, d, tail @ ..] = rest {
            let (body, next) = tail.split_at(u32::from_be_bytes([*a, *b, *c, *d]) as usize - 4);
            data.extend_from_slice(body);
            rest = next;
        }
    }
    data
}

fn measure(name: &str, batches: &[RecordBatch], way: &str) {
    let (format, source) = formats(way);
    let data = data(batches, format);
    let fields: Vec<FieldRef> = batches[0].schema().fields().iter().cloned().collect();
    let sent: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let mut best = Duration::MAX;
    let start = Instant::now();
    while start.elapsed() < TIME {
        let round = Instant::now();
        let utc = TimeZone::utc();
        let mut decoder = CopyDecoder::new("t", &fields, source.clone(), utc, 64 << 20);
        let mut rows = 0;
        for chunk in data.chunks(CHUNK) {
            decoder.push(black_box(chunk));
            while let Some(batch) = decoder.next_batch().expect("decodes") {
                rows += black_box(batch).num_rows();
            }
        }
        decoder.end();
        while let Some(batch) = decoder.next_batch().expect("decodes") {
            rows += black_box(batch).num_rows();
        }
        assert_eq!(rows, sent);
        best = best.min(round.elapsed());
    }
    let values = (sent * fields.len()) as f64;
    println!(
        "{name:<24}{way:>12}{:>10.0}{:>12.1}{:>12.1}",
        data.len() as f64 / best.as_secs_f64() / 1e6,
        best.as_secs_f64() * 1e9 / values,
        data.len() as f64 / values
    );
}

fn cases() -> Vec<(String, Vec<RecordBatch>)> {
    let generator = LineItemGenerator::new(0.02, 1, 1);
    let batches = LineItemArrow::new(generator).with_batch_size(ROWS);
    let lineitem: Vec<_> = batches.collect::<Result<_, _>>().expect("lineitem");
    let schema = lineitem[0].schema();
    let plain = concat_batches(&schema, &lineitem[..4]).expect("one schema");
    let mut cases = vec![("lineitem".to_string(), lineitem)];
    for (field, column) in schema.fields().iter().zip(plain.columns()) {
        cases.push(single(field.name(), column.clone()));
    }
    cases
}

fn single(name: &str, column: ArrayRef) -> (String, Vec<RecordBatch>) {
    let batch = RecordBatch::try_from_iter_with_nullable([("c", column, true)]).expect("a batch");
    (name.to_string(), vec![batch])
}
