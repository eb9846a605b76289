//! The tables that both servers have: PostgreSQL's rows, written to files for the daemon.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::record_batch::RecordBatch;
use fallible_iterator::FallibleIterator;
use parquet::arrow::ArrowWriter;
use postgres_protocol::message::backend::Message;

use crate::Pair;
use crate::script::Step;
use crate::session::{Heard, Session};

/// Becomes a Parquet file.
const ITEMS: &str = "
    CREATE TABLE items (id int, big bigint, small smallint, single real, double float8,
        price numeric(10,2), name text, born date, seen timestamp, moment timestamptz,
        flag boolean);
    INSERT INTO items VALUES
        (1, 10, 1, 0.5, 1.25, 9.99, 'apple', '2024-01-31', '2024-01-31 10:00',
            '2024-01-31 10:00+00', true),
        (2, 9223372036854775807, 32767, 3.4028235e38, 1.7976931348623157e308, 99999999.99,
            'Zoë ☃', '9999-12-31', '9999-12-31 23:59:59.999999', '9999-12-31 23:59:59+00', false),
        (3, -9223372036854775808, -32768, 'NaN', '-Infinity', -99999999.99, '', '0001-01-01',
            '0001-01-01 00:00', '0001-01-01 00:00+00', NULL),
        (4, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
        (5, 10, 2, 1.5, -0.0, 0.01, 'apple', '1970-01-01', '1970-01-01 00:00:00.000001',
            '1969-12-31 23:59:59.999999+00', true);";

/// Becomes a CSV file.
const SALES: &str = "
    CREATE TABLE sales (item int, day date, region text, amount numeric(10,2));
    INSERT INTO sales SELECT 1 + i % 5, date '2024-01-01' + i % 40,
        (ARRAY['north', 'south', 'east', NULL])[1 + i % 4], (i * 37 % 1000) / 100.0
        FROM generate_series(0, 199) i;";

pub fn make(pair: &Pair) {
    let theirs = pair.postgres.address();
    let directory = pair.oribi.options().directory();
    ask(theirs, ITEMS);
    ask(theirs, SALES);
    let items = directory.join("items.parquet");
    write_parquet(&items, &ask(theirs, "SELECT * FROM items ORDER BY id"));
    let sales = directory.join("sales.csv");
    let copied =
        ask(theirs, "COPY (SELECT * FROM sales ORDER BY item, day) TO STDOUT (FORMAT csv)");
    let lines = copied.iter().filter_map(|message| match message {
        Message::CopyData(line) => Some(line.data()),
        _ => None,
    });
    fs::write(&sales, lines.collect::<Vec<_>>().concat()).expect("sales.csv is written");
    let ours = pair.oribi.postgres();
    ask(
        ours,
        &format!("CREATE EXTERNAL TABLE items STORED AS PARQUET LOCATION '{}'", items.display()),
    );
    ask(
        ours,
        &format!(
            "CREATE EXTERNAL TABLE sales (item int, day date, region text, \
             amount numeric(10,2)) STORED AS CSV LOCATION '{}' OPTIONS ('has_header' 'false')",
            sales.display()
        ),
    );
}

/// All that a server answers to SQL that has to succeed.
fn ask(address: SocketAddr, sql: &str) -> Vec<Message> {
    let mut session = Session::open(address);
    session.say(&Step::usual_start());
    session.hear('Z');
    session.say(&Step::Query(sql.to_owned()));
    let heard = session.hear('Z').into_iter().map(|heard| match heard {
        Heard::Message(message) if !matches!(message, Message::ErrorResponse(_)) => message,
        other => panic!("{sql}: {}", crate::transcript::shown(&other, true)),
    });
    heard.collect()
}

/// Rows of [`ITEMS`] with the columns' types as a Parquet file has them.
fn write_parquet(path: &Path, answer: &[Message]) {
    let timestamp =
        |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
    let columns = [
        ("id", DataType::Int32),
        ("big", DataType::Int64),
        ("small", DataType::Int16),
        ("single", DataType::Float32),
        ("double", DataType::Float64),
        ("price", DataType::Decimal128(10, 2)),
        ("name", DataType::Utf8),
        ("born", DataType::Date32),
        ("seen", timestamp(None)),
        ("moment", timestamp(Some("UTC"))),
        ("flag", DataType::Boolean),
    ];
    let rows: Vec<Vec<Option<String>>> = answer.iter().filter_map(texts).collect();
    let column = |(at, (name, kind)): (usize, &(&str, DataType))| {
        let texts: StringArray = rows.iter().map(|row| row[at].clone()).collect();
        let values: ArrayRef = cast(&texts, kind).expect("a cast");
        let lost = (0..texts.len()).find(|row| texts.is_null(*row) != values.is_null(*row));
        assert_eq!(lost, None, "{name}: a text that is no {kind}");
        values
    };
    let arrays: Vec<ArrayRef> = columns.iter().enumerate().map(column).collect();
    let fields: Vec<_> =
        columns.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect();
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).expect("a batch");
    let file = File::create(path).expect("a file");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("rows are written");
    writer.close().expect("the file is complete");
}

fn texts(message: &Message) -> Option<Vec<Option<String>>> {
    let Message::DataRow(row) = message else { return None };
    let text = |range: Option<std::ops::Range<usize>>| {
        Ok(range.map(|range| String::from_utf8_lossy(&row.buffer()[range]).into_owned()))
    };
    row.ranges().map(text).collect().ok()
}
