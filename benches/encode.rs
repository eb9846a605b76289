//! How fast rows leave: megabytes of `DataRow` and `CopyData` messages a second on one core, for
//! TPC-H lineitem and for single columns. `cargo bench --bench encode [-- name]`.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::*;
use arrow::compute::concat_batches;
use arrow::datatypes::*;
use bytes::BytesMut;
use oribi::values::encode::{
    CopyCsv, CopyFormat, CopyText, Format, RowEncoder, TextStyle, TimeZone,
};
use tpchgen::generators::LineItemGenerator;
use tpchgen_arrow::LineItemArrow;

const ROWS: usize = 8192;

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

const WAYS: [&str; 5] = ["text", "binary", "copy text", "copy csv", "copy binary"];

fn encoder(way: &str, schema: &Schema) -> RowEncoder {
    let style = TextStyle {
        time_zone: TimeZone::parse("Europe/Paris").unwrap_or_default(),
        ..TextStyle::default()
    };
    let all = |format| vec![format; schema.fields().len()];
    let copy = |format| RowEncoder::copy(schema, format, style.clone());
    let (null, quote, force_quote) = ("".into(), b'"', Vec::new());
    let encoder = match way {
        "text" => RowEncoder::new(schema, all(Format::Text), style),
        "binary" => RowEncoder::new(schema, all(Format::Binary), style),
        "copy text" => copy(CopyFormat::Text(CopyText { delimiter: b'\t', null: "\\N".into() })),
        "copy csv" => {
            let (delimiter, escape) = (b',', quote);
            copy(CopyFormat::Csv(CopyCsv { delimiter, null, quote, escape, force_quote }))
        }
        _ => copy(CopyFormat::Binary),
    };
    encoder.expect("a supported schema")
}

fn measure(name: &str, batches: &[RecordBatch], way: &str) {
    let schema = batches[0].schema();
    let mut encoder = encoder(way, &schema);
    let mut out = BytesMut::new();
    let (mut bytes, mut rows, mut best) = (0, 0, Duration::MAX);
    let start = Instant::now();
    while start.elapsed() < TIME {
        let round = Instant::now();
        (bytes, rows) = (0, 0);
        for batch in batches {
            out.clear();
            encoder.encode(black_box(batch), 0..batch.num_rows(), &mut out).expect("encodes");
            bytes += black_box(&out).len();
            rows += batch.num_rows();
        }
        best = best.min(round.elapsed());
    }
    let values = (rows * schema.fields().len()) as f64;
    println!(
        "{name:<24}{way:>12}{:>10.0}{:>12.1}{:>12.1}",
        bytes as f64 / best.as_secs_f64() / 1e6,
        best.as_secs_f64() * 1e9 / values,
        bytes as f64 / values
    );
}

fn cases() -> Vec<(String, Vec<RecordBatch>)> {
    let generator = LineItemGenerator::new(0.02, 1, 1);
    let batches = LineItemArrow::new(generator).with_batch_size(ROWS);
    let lineitem: Vec<_> = batches.collect::<Result<_, _>>().expect("lineitem");
    let schema = lineitem[0].schema();
    let plain = concat_batches(&schema, &lineitem[..2]).expect("one schema");
    let mut cases = vec![("lineitem".to_string(), lineitem)];
    for (field, column) in schema.fields().iter().zip(plain.columns()) {
        cases.push(single(field.name(), column.clone()));
    }
    cases.extend(others().into_iter().map(|(name, column)| single(name, column)));
    cases
}

fn single(name: &str, column: ArrayRef) -> (String, Vec<RecordBatch>) {
    let batch = RecordBatch::try_from_iter_with_nullable([("c", column, true)]).expect("a batch");
    (name.to_string(), vec![batch])
}

/// Reproducible numbers over the whole range (xorshift).
fn random() -> impl Iterator<Item = u64> + Clone {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    })
    .take(2 * ROWS)
}

fn array<T: ArrowPrimitiveType>(values: impl Iterator<Item = T::Native>) -> PrimitiveArray<T> {
    PrimitiveArray::from_iter_values(values)
}

fn others() -> Vec<(&'static str, ArrayRef)> {
    let small = || random().map(|n| (n >> 40) as i64);
    let micros = || array::<TimestampMicrosecondType>(small().map(|n| n * 100_000_007));
    let words = ["spring", "summer", "autumn", "winter"];
    let seasons = random().map(|n| words[n as usize % words.len()]);
    let nulls = random().map(|n| (n & 1 == 0).then_some(n as i64 >> 40));
    let lists = random().map(|n| Some((0..n % 5).map(move |i| Some((n >> 40) as i32 + i as i32))));
    let numbers: ArrayRef = Arc::new(array::<Int64Type>(small()));
    let member = |name| (Arc::new(Field::new(name, DataType::Int64, true)), numbers.clone());
    let object = StructArray::from(vec![member("a"), member("b")]);
    let wide = array::<Decimal128Type>(random().map(|n| i128::from(n) * 1_000_000_007));
    vec![
        ("int8 any", Arc::new(array::<Int64Type>(random().map(|n| n as i64)))),
        ("int8 half null", Arc::new(nulls.collect::<Int64Array>())),
        ("bool", Arc::new(random().map(|n| Some(n & 1 == 0)).collect::<BooleanArray>())),
        ("float8 any", Arc::new(array::<Float64Type>(random().map(|n| n as f64 / 1e19)))),
        ("float8 prices", Arc::new(array::<Float64Type>(small().map(|n| n as f64 / 100.0)))),
        ("float4", Arc::new(array::<Float32Type>(small().map(|n| n as f32 / 100.0)))),
        ("decimal wide", Arc::new(wide)),
        ("timestamp", Arc::new(micros())),
        ("timestamptz", Arc::new(micros().with_timezone("UTC"))),
        ("time", Arc::new(array::<Time64MicrosecondType>(small().map(|n| n * 1003)))),
        ("interval", Arc::new(array::<DurationMicrosecondType>(small().map(|n| n * 1003)))),
        ("bytea", Arc::new(random().map(|n| Some(n.to_be_bytes())).collect::<BinaryArray>())),
        ("dictionary text", Arc::new(seasons.collect::<DictionaryArray<Int32Type>>())),
        ("int4[]", Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists))),
        ("json", Arc::new(object)),
    ]
}
