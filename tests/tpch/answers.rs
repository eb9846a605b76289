//! The queries, their tables, and what an independent engine answers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tokio_postgres::{Client, SimpleQueryMessage};

use crate::common::daemon::{binary, explain};

const TABLES: [&str; 8] =
    ["customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier"];

pub const QUERIES: usize = 22;

pub type Row = Vec<Option<String>>;

/// Makes the tables' files below `directory/tpch/sf<scale>`.
pub fn generate(scale: &str, directory: &Path) {
    let mut command = Command::new(binary());
    command.args(["demo", "--generate-only", "--scale", scale, "--data-dir"]);
    let output = command.arg(directory).output().expect("oribi demo starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "oribi demo --generate-only --scale {scale}: {errors}");
}

/// The statements that make tables of a directory's files, in a schema of their own.
pub fn tables(schema: &str, directory: &Path) -> String {
    let mut setup = format!("CREATE SCHEMA IF NOT EXISTS {schema}; SET search_path = {schema};");
    for table in TABLES {
        let file = directory.join(format!("{table}.parquet"));
        setup += &format!(
            "CREATE EXTERNAL TABLE IF NOT EXISTS {schema}.{table} STORED AS PARQUET \
             LOCATION '{}';",
            file.display()
        );
    }
    setup
}

/// The text of a query.
pub fn query(number: usize) -> String {
    read(&format!("queries/q{number:02}.sql"))
}

fn read(name: &str) -> String {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tpch").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What a query must give.
pub struct Answer {
    ordered: bool,
    kinds: Vec<String>,
    rows: Vec<Row>,
}

impl Answer {
    /// The answer to a query at a scale.
    pub fn to(number: usize, scale: &str) -> Self {
        Self::parse(&read(&format!("answers/sf{scale}/q{number:02}.tsv")))
    }

    /// From its normal form.
    pub fn parse(text: &str) -> Self {
        let mut lines = text.lines();
        let ordered = match lines.next() {
            Some("# order: total") => true,
            Some("# order: none") => false,
            other => panic!("the first line is {other:?}"),
        };
        let header = lines.next().expect("a line with the columns");
        let kind = |column: &str| column.rsplit(':').next().unwrap_or_default().to_owned();
        let value = |text: &str| (text != "\\N").then(|| text.to_owned());
        Self {
            ordered,
            kinds: header.split('\t').map(kind).collect(),
            rows: lines.map(|line| line.split('\t').map(value).collect()).collect(),
        }
    }

    /// Says where rows differ from it.
    pub fn compare(&self, rows: Vec<Row>) -> Result<(), String> {
        if rows.len() != self.rows.len() {
            return Err(format!("{} rows came instead of {}", rows.len(), self.rows.len()));
        }
        if let Some(row) = rows.iter().find(|row| row.len() != self.kinds.len()) {
            return Err(format!("{} columns came instead of {}", row.len(), self.kinds.len()));
        }
        let (mut actual, mut expected) = (rows, self.rows.clone());
        actual.iter_mut().for_each(|row| self.normalise(row));
        if !self.ordered {
            actual.sort();
            expected.sort();
        }
        for (number, (actual, expected)) in (1..).zip(actual.iter().zip(&expected)) {
            let mut cells = actual.iter().zip(expected).zip(&self.kinds);
            if !cells.all(|((actual, expected), kind)| equal(kind, actual, expected)) {
                return Err(format!("row {number} is {actual:?} instead of {expected:?}"));
            }
        }
        Ok(())
    }

    fn normalise(&self, row: &mut Row) {
        for (value, kind) in row.iter_mut().zip(&self.kinds) {
            if let Some(text) = value
                && kind == "decimal"
                && text.contains('.')
            {
                *text = text.trim_end_matches('0').trim_end_matches('.').to_owned();
            }
        }
    }
}

/// The rows as the simple protocol shows them.
pub async fn texts(client: &Client, sql: &str) -> Result<Vec<Row>, String> {
    let messages = client.simple_query(sql).await.map_err(|error| explain(&error))?;
    let rows = messages.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
        }
        _ => None,
    });
    Ok(rows.collect())
}

fn equal(kind: &str, actual: &Option<String>, expected: &Option<String>) -> bool {
    let (Some(actual), Some(expected)) = (actual, expected) else { return actual == expected };
    if kind != "approx" {
        return actual == expected;
    }
    let (Ok(actual), Ok(expected)) = (actual.parse::<f64>(), expected.parse::<f64>()) else {
        return false;
    };
    let difference = (actual - expected).abs();
    difference <= 1e-5 || difference <= 1e-9 * expected.abs()
}
