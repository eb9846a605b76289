//! A file as parts of CSV that end between records.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{DataType, Field, SchemaRef};
use bytes::Bytes;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use serde_json::{Map, Value};

use super::Format;
use crate::cli::error::{Error, Result};
use crate::storage;
use crate::values::encode::{TextStyle, text};
use crate::values::types;

/// Names of columns.
pub type Columns = Vec<String>;

/// Records that tell the types of a table to be made.
const SAMPLE: usize = 1000;

const BATCH: usize = 8192;

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Records for COPY, and how much of the file is behind them.
pub struct Part {
    pub csv: Bytes,
    /// Bytes of the file.
    pub position: u64,
    pub start: Start,
}

/// Where a part begins in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Start {
    bytes: u64,
    /// Lines before it; of Parquet, rows.
    lines: u64,
}

pub struct Parts {
    path: PathBuf,
    source: Source,
    /// Bytes of one part, about.
    bytes: usize,
    delimiter: u8,
    size: u64,
    position: u64,
    /// Lines that have been read; of Parquet, rows.
    lines: u64,
    /// The number of the line that the last record begins with.
    line: u64,
    /// As the file has them, if it names them.
    names: Option<Columns>,
    chosen: Columns,
}

enum Source {
    Csv(BufReader<File>),
    Json(BufReader<File>),
    Parquet { reader: ParquetRecordBatchReader, schema: SchemaRef, rows: u64, read: u64 },
}

impl Parts {
    pub fn open(
        path: &Path,
        format: Format,
        header: bool,
        delimiter: u8,
        bytes: usize,
    ) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("read", path))?;
        let size = file.metadata().map_err(Error::io("read", path))?.len();
        let mut parts = Self {
            path: path.to_owned(),
            source: Source::Csv(BufReader::new(file)),
            bytes,
            delimiter: if format == Format::Csv { delimiter } else { b',' },
            size,
            position: 0,
            lines: 0,
            line: 0,
            names: None,
            chosen: Vec::new(),
        };
        let file = || File::open(path).map_err(Error::io("read", path));
        match format {
            Format::Csv => {
                parts.skip_mark()?;
                if header {
                    parts.names = Some(parts.header()?);
                }
            }
            Format::Json => {
                parts.source = Source::Json(BufReader::new(file()?));
                parts.skip_mark()?;
            }
            Format::Parquet => {
                let wrong = |error: &dyn ToString| Error::File {
                    path: path.to_owned(),
                    reason: not_parquet(&error.to_string()),
                };
                storage::check_file(&file()?).map_err(|error| wrong(&error))?;
                let builder = ParquetRecordBatchReaderBuilder::try_new(file()?)
                    .map_err(|error| wrong(&error))?;
                let schema = builder.schema().clone();
                let rows =
                    u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
                let reader =
                    builder.with_batch_size(BATCH).build().map_err(|error| wrong(&error))?;
                let names = schema.fields().iter().map(|field| field.name().clone()).collect();
                parts.names = Some(names);
                parts.source = Source::Parquet { reader, schema, rows, read: 0 };
            }
        }
        Ok(parts)
    }

    /// Passes over the mark with which some programs begin a text in UTF-8: it belongs to no value.
    fn skip_mark(&mut self) -> Result<()> {
        let (Source::Csv(input) | Source::Json(input)) = &mut self.source else { return Ok(()) };
        let begin = input.fill_buf().map_err(Error::io("read", &self.path))?;
        if begin.starts_with(BYTE_ORDER_MARK) {
            input.consume(BYTE_ORDER_MARK.len());
            self.position += BYTE_ORDER_MARK.len() as u64;
        }
        Ok(())
    }

    /// The names that the first record has.
    fn header(&mut self) -> Result<Columns> {
        let mut line = Vec::new();
        if self.record(&mut line)? == 0 {
            return Err(Error::Usage(format!("{} is empty", self.path.display())));
        }
        Ok(fields(&line, self.delimiter).into_iter().map(|(name, _)| name).collect())
    }

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn delimiter(&self) -> u8 {
        self.delimiter
    }

    /// The columns that the records have values for.
    pub fn chosen(&self) -> &Columns {
        &self.chosen
    }

    /// Where the names of a CSV file look like those of several columns that something else stands between.
    pub fn doubt(&self) -> Option<String> {
        let (Source::Csv(_), [name]) = (&self.source, self.names.as_deref()?) else { return None };
        let others = [b';', b'\t', b'|', b','].into_iter().filter(|other| *other != self.delimiter);
        let other = others.map(char::from).find(|other| name.contains(*other))?;
        let shown = if other == '\t' { "$'\\t'".to_owned() } else { format!("'{other}'") };
        Some(format!(
            "If several columns are meant, --delimiter {shown} says what stands between them"
        ))
    }

    /// Settles which columns of the table the records are for.
    pub fn choose(&mut self, columns: &Columns) -> Result<()> {
        let Some(names) = &self.names else {
            self.chosen.clone_from(columns);
            return Ok(());
        };
        let known = |name: &String| {
            let exact = columns.iter().find(|column| *column == name);
            exact.or_else(|| columns.iter().find(|column| column.eq_ignore_ascii_case(name)))
        };
        let chosen = names.iter().map(|name| {
            known(name).cloned().ok_or_else(|| {
                Error::Usage(format!(
                    "the table has no column \"{name}\" as the file has: its columns are {}{}",
                    columns.join(", "),
                    self.doubt().map_or(String::new(), |doubt| format!(". {doubt}"))
                ))
            })
        });
        self.chosen = chosen.collect::<Result<_>>()?;
        Ok(())
    }

    /// Names and types for a table of such records.
    pub fn columns_of_file(&self) -> Result<Vec<(String, String)>> {
        if let Source::Parquet { schema, .. } = &self.source {
            let kind = |field: &Field| match types::pg_type(field).name() {
                "numeric" => match field.data_type() {
                    DataType::Decimal128(precision, scale)
                    | DataType::Decimal256(precision, scale) => {
                        format!("numeric({precision}, {scale})")
                    }
                    _ => "numeric".to_owned(),
                },
                other => other.to_owned(),
            };
            let fields = schema.fields().iter();
            return Ok(fields.map(|field| (field.name().clone(), kind(field))).collect());
        }
        let format = match &self.source {
            Source::Json(_) => Format::Json,
            _ => Format::Csv,
        };
        let mut sample =
            Self::open(&self.path, format, self.names.is_some(), self.delimiter, self.bytes)?;
        sample.sample()
    }

    fn sample(&mut self) -> Result<Vec<(String, String)>> {
        let mut found: Vec<(String, Kind)> = Vec::new();
        for _ in 0..SAMPLE {
            let mut line = Vec::new();
            if self.record(&mut line)? == 0 {
                break;
            }
            let values: Vec<(String, Kind)> = match &self.source {
                Source::Json(_) => {
                    let object =
                        object(&line).map_err(|reason| Error::Rows(self.wrong(&reason)))?;
                    object
                        .iter()
                        .map(|(name, value)| (name.clone(), Kind::of_json(value)))
                        .collect()
                }
                _ => (fields(&line, self.delimiter).into_iter().enumerate())
                    .map(|(at, (text, quoted))| {
                        let name = self.names.as_ref().and_then(|names| names.get(at).cloned());
                        let kind = if text.is_empty() && !quoted {
                            Kind::Unknown
                        } else {
                            Kind::of(&text)
                        };
                        (name.unwrap_or_else(|| format!("column{}", at + 1)), kind)
                    })
                    .collect(),
            };
            for (name, kind) in values {
                match found.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, known)) => *known = known.or(kind),
                    None => found.push((name, kind)),
                }
            }
        }
        if found.is_empty() {
            return Err(Error::Usage(format!("{} has no records", self.path.display())));
        }
        Ok(found.into_iter().map(|(name, kind)| (name, kind.name().to_owned())).collect())
    }

    /// The next part; `None` at the end.
    pub fn next(&mut self) -> Result<Option<Part>> {
        let mut csv = Vec::new();
        let start = Start { bytes: self.position, lines: self.lines };
        if let Source::Parquet { reader, rows, read, .. } = &mut self.source {
            while csv.len() < self.bytes {
                let Some(batch) = reader.next() else { break };
                let batch = batch.map_err(|error| Error::File {
                    path: self.path.clone(),
                    reason: not_parquet(&error.to_string()),
                })?;
                *read += batch.num_rows() as u64;
                write_batch(&batch, &mut csv)?;
            }
            self.position = self.size * *read / (*rows).max(1);
            self.lines = *read;
        } else {
            while csv.len() < self.bytes {
                let mut line = Vec::new();
                if self.record(&mut line)? == 0 {
                    break;
                }
                match &self.source {
                    Source::Json(_) => self.write_object(&line, &mut csv)?,
                    _ => csv.extend_from_slice(&line),
                }
            }
        }
        let part = Part { csv: csv.into(), position: self.position, start };
        Ok((!part.csv.is_empty()).then_some(part))
    }

    /// A line of JSON, or a record of CSV with all lines that its quotes hold; the number of its bytes.
    /// However the file ends its lines, the record ends with a newline: COPY wants all of them to end alike.
    fn record(&mut self, line: &mut Vec<u8>) -> Result<usize> {
        let failed = Error::io("read", &self.path);
        let read = match &mut self.source {
            Source::Json(input) => loop {
                line.clear();
                self.lines += 1;
                self.line = self.lines;
                match input.read_until(b'\n', line) {
                    // Empty lines say nothing.
                    Ok(1..) if line.trim_ascii().is_empty() => self.position += line.len() as u64,
                    other => break other.map(|_| line.len()),
                }
            },
            Source::Csv(input) => loop {
                if line.is_empty() {
                    self.line = self.lines + 1;
                }
                self.lines += 1;
                match input.read_until(b'\n', line) {
                    Ok(0) => break Ok(line.len()),
                    Ok(_) if line.iter().filter(|byte| **byte == b'"').count() % 2 == 1 => {}
                    Ok(_) if line.trim_ascii().is_empty() && self.chosen.len() != 1 => {
                        self.position += line.len() as u64;
                        line.clear();
                    }
                    Ok(_) => break Ok(line.len()),
                    Err(error) => break Err(error),
                }
            },
            Source::Parquet { .. } => Ok(0),
        };
        let read = read.map_err(failed)?;
        self.position += read as u64;
        if read > 0 {
            line.pop_if(|byte| *byte == b'\n');
            line.pop_if(|byte| *byte == b'\r');
            line.push(b'\n');
        }
        Ok(read)
    }

    /// Where the file has the record in which COPY has met this line of a part: a line, or a row.
    pub fn place(&self, start: Start, csv: &[u8], line: u64) -> Result<String> {
        let before = records_before(csv, line);
        let path = self.path.display();
        let file = || File::open(&self.path).map_err(Error::io("read", &self.path));
        let source = |mut file: File| {
            let sought = file.seek(SeekFrom::Start(start.bytes));
            sought.map(|_| BufReader::new(file)).map_err(Error::io("read", &self.path))
        };
        let source = match &self.source {
            Source::Parquet { .. } => {
                return Ok(format!("{path}, row {}", start.lines + before + 1));
            }
            Source::Csv(_) => Source::Csv(source(file()?)?),
            Source::Json(_) => Source::Json(source(file()?)?),
        };
        let mut again = Self {
            path: self.path.clone(),
            source,
            bytes: self.bytes,
            delimiter: self.delimiter,
            size: self.size,
            position: start.bytes,
            lines: start.lines,
            line: start.lines,
            names: None,
            chosen: self.chosen.clone(),
        };
        for _ in 0..=before {
            again.record(&mut Vec::new())?;
        }
        Ok(format!("{path}, line {}", again.line))
    }

    /// What is wrong with the record that was read last.
    fn wrong(&self, reason: &str) -> String {
        format!("{}, line {}: {reason}", self.path.display(), self.line)
    }

    fn write_object(&self, line: &[u8], csv: &mut Vec<u8>) -> Result<()> {
        let object = object(line).map_err(|reason| Error::Rows(self.wrong(&reason)))?;
        let unknown = object
            .keys()
            .find(|name| !self.chosen.iter().any(|column| column.eq_ignore_ascii_case(name)));
        if let Some(name) = unknown {
            return Err(Error::Usage(self.wrong(&format!(
                "the table has no column \"{name}\": its columns are {}",
                self.chosen.join(", ")
            ))));
        }
        for (at, column) in self.chosen.iter().enumerate() {
            if at > 0 {
                csv.push(b',');
            }
            let value = object.get(column).or_else(|| {
                object
                    .iter()
                    .find(|(name, _)| name.eq_ignore_ascii_case(column))
                    .map(|(_, value)| value)
            });
            match value {
                None | Some(Value::Null) => {}
                Some(Value::String(text)) => write_field(text, csv),
                Some(other) => write_field(&other.to_string(), csv),
            }
        }
        csv.push(b'\n');
        Ok(())
    }
}

fn object(line: &[u8]) -> Result<Map<String, Value>, String> {
    serde_json::from_slice(line.trim_ascii_end()).map_err(|error| {
        let line = String::from_utf8_lossy(line);
        let begin: String = line.trim().chars().take(60).collect();
        if line.trim_start().starts_with('[') {
            return format!(
                "no JSON object, but a list, and each line is to be an object (jq -c '.[]' makes such lines of a \
                 file that is one list): {begin}"
            );
        }
        // Each line is one text, so that its own "line 1" says nothing.
        let error = error.to_string().replace(" at line 1 column ", " at character ");
        format!("no JSON object ({error}): {begin}")
    })
}

/// In quotes, so that it is no NULL.
fn write_field(text: &str, csv: &mut Vec<u8>) {
    csv.push(b'"');
    csv.extend_from_slice(text.replace('"', "\"\"").as_bytes());
    csv.push(b'"');
}

fn write_batch(batch: &RecordBatch, csv: &mut Vec<u8>) -> Result<()> {
    let schema = batch.schema();
    let texts = (schema.fields().iter().zip(batch.columns()))
        .map(|(field, array)| text(field, array, &TextStyle::default()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Error::Rows(error.to_string()))?;
    for row in 0..batch.num_rows() {
        for (at, column) in texts.iter().enumerate() {
            if at > 0 {
                csv.push(b',');
            }
            if column.is_valid(row) {
                write_field(column.value(row), csv);
            }
        }
        csv.push(b'\n');
    }
    Ok(())
}

/// The fields of a record, and whether they are in quotes.
fn fields(record: &[u8], delimiter: u8) -> Vec<(String, bool)> {
    let text = String::from_utf8_lossy(record);
    let text = text.trim_end_matches(['\n', '\r']);
    let (mut all, mut field, mut quoted, mut within) = (Vec::new(), String::new(), false, false);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if within && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' => (within, quoted) = (!within, true),
            character if character == char::from(delimiter) && !within => {
                all.push((std::mem::take(&mut field), quoted));
                quoted = false;
            }
            character => field.push(character),
        }
    }
    all.push((field, quoted));
    all
}

/// The records of a part.
pub fn records(csv: &[u8]) -> u64 {
    let (mut within, mut count) = (false, 0);
    for byte in csv {
        match byte {
            b'"' => within = !within,
            b'\n' if !within => count += 1,
            _ => {}
        }
    }
    count
}

/// The records that end before a line of a part, counted from 1.
fn records_before(csv: &[u8], line: u64) -> u64 {
    let (mut within, mut count, mut at) = (false, 0, 1);
    for byte in csv {
        match byte {
            b'"' => within = !within,
            b'\n' => {
                if at >= line {
                    break;
                }
                at += 1;
                count += u64::from(!within);
            }
            _ => {}
        }
    }
    count
}

/// What a value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Unknown,
    Bool,
    Integer,
    Float,
    Date,
    Timestamp,
    Text,
}

impl Kind {
    fn of(text: &str) -> Self {
        let is = |format: &str| chrono::NaiveDateTime::parse_from_str(text, format).is_ok();
        match text {
            "true" | "false" | "TRUE" | "FALSE" => Self::Bool,
            // A number with zeros before it is a code.
            _ if text.len() > 1
                && text.starts_with('0')
                && text.bytes().all(|b| b.is_ascii_digit()) =>
            {
                Self::Text
            }
            _ if text.parse::<i64>().is_ok() => Self::Integer,
            _ if text.parse::<f64>().is_ok() => Self::Float,
            _ if chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok() => Self::Date,
            _ if is("%Y-%m-%d %H:%M:%S%.f") || is("%Y-%m-%dT%H:%M:%S%.f") => Self::Timestamp,
            _ => Self::Text,
        }
    }

    fn of_json(value: &Value) -> Self {
        match value {
            Value::Null => Self::Unknown,
            Value::Bool(_) => Self::Bool,
            Value::Number(number) if number.is_i64() => Self::Integer,
            Value::Number(_) => Self::Float,
            Value::String(text) => match Self::of(text) {
                date @ (Self::Date | Self::Timestamp) => date,
                _ => Self::Text,
            },
            Value::Array(_) | Value::Object(_) => Self::Text,
        }
    }

    /// What holds both.
    fn or(self, other: Self) -> Self {
        match (self, other) {
            (a, b) if a == b => a,
            (Self::Unknown, known) | (known, Self::Unknown) => known,
            (Self::Integer, Self::Float) | (Self::Float, Self::Integer) => Self::Float,
            (Self::Date, Self::Timestamp) | (Self::Timestamp, Self::Date) => Self::Timestamp,
            _ => Self::Text,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Bool => "boolean",
            Self::Integer => "bigint",
            Self::Float => "double precision",
            Self::Date => "date",
            Self::Timestamp => "timestamp",
            Self::Unknown | Self::Text => "text",
        }
    }
}

/// What is wrong with a file that is no Parquet file, or none that can be read, in other words than the
/// reader's.
fn not_parquet(said: &str) -> String {
    let said = said.strip_prefix("Parquet error: ").unwrap_or(said);
    format!(
        "it cannot be read as Parquet: {said}. --format says what a file is whose name does not; a Parquet \
         file that was not copied whole has lost its end"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_end_outside_of_quotes() {
        let directory = tempfile::tempdir().expect("a folder");
        let path = directory.path().join("t.csv");
        std::fs::write(&path, "a,b\n1,\"x\ny\"\n2,\"\"\"\"\n3,\n4,last").expect("a file");
        let mut parts = Parts::open(&path, Format::Csv, true, b',', 8).expect("open");
        let columns = parts.columns_of_file().expect("a sample");
        let of = |name: &str, kind: &str| (name.to_owned(), kind.to_owned());
        assert_eq!(columns, [of("a", "bigint"), of("b", "text")]);
        parts.choose(&vec!["b".to_owned(), "A".to_owned()]).expect("there");
        assert_eq!(parts.chosen(), &["A", "b"]);
        let mut texts = Vec::new();
        while let Some(part) = parts.next().expect("read") {
            texts.push(String::from_utf8(part.csv.to_vec()).expect("text"));
        }
        assert_eq!(texts, ["1,\"x\ny\"\n", "2,\"\"\"\"\n3,\n", "4,last\n"]);
        assert_eq!(parts.position, parts.size());
        assert_eq!(records(texts[0].as_bytes()), 1);
        let place = |lines: u64, bytes: u64, part: usize, line: u64| {
            let place = parts.place(Start { bytes, lines }, texts[part].as_bytes(), line);
            place.expect("read").rsplit_once(", ").map(|(_, line)| line.to_owned())
        };
        // The quotes of the first part hold two lines.
        assert_eq!(place(1, 4, 0, 1).as_deref(), Some("line 2"));
        assert_eq!(place(1, 4, 0, 2).as_deref(), Some("line 2"));
        assert_eq!(place(3, 12, 1, 2).as_deref(), Some("line 5"));
        assert_eq!(place(5, 22, 2, 1).as_deref(), Some("line 6"));
        assert!(parts.choose(&vec!["a".to_owned()]).is_err());
    }

    #[test]
    fn lines_end_as_they_like_and_marks_are_passed_over() {
        let directory = tempfile::tempdir().expect("a folder");
        let path = directory.path().join("t.csv");
        let texts = |content: &str, format, header| {
            std::fs::write(&path, content).expect("a file");
            let mut parts = Parts::open(&path, format, header, b',', 8).expect("open");
            let columns = parts.columns_of_file().expect("a sample");
            parts.choose(&vec!["a".to_owned(), "b".to_owned()]).expect("there");
            let mut texts = String::new();
            while let Some(part) = parts.next().expect("read") {
                texts += std::str::from_utf8(&part.csv).expect("text");
            }
            assert_eq!(parts.position, parts.size(), "{content:?}");
            (columns[0].0.clone(), texts)
        };
        let expected = ("a".to_owned(), "1,\"x\r\ny\"\n2,z\n".to_owned());
        for content in [
            "a,b\r\n1,\"x\r\ny\"\r\n2,z",
            "a,b\r\n1,\"x\r\ny\"\r\n2,z\r\n",
            "a,b\n1,\"x\r\ny\"\r\n2,z\n",
            "\u{feff}a,b\r\n1,\"x\r\ny\"\r\n2,z",
            "\u{feff}\"a\",b\n1,\"x\r\ny\"\n2,z",
        ] {
            assert_eq!(texts(content, Format::Csv, true), expected, "{content:?}");
        }
        let (name, text) = texts("\u{feff}1,x\r\n2,y", Format::Csv, false);
        assert_eq!((name.as_str(), text.as_str()), ("column1", "1,x\n2,y\n"));
        let (name, text) = texts("\u{feff}{\"a\": 1}\r\n{\"b\": 2}", Format::Json, true);
        assert_eq!((name.as_str(), text.as_str()), ("a", "\"1\",\n,\"2\"\n"));
    }

    #[test]
    fn objects_are_records() {
        let directory = tempfile::tempdir().expect("a folder");
        let path = directory.path().join("t.json");
        let lines = "{\"a\": 1, \"b\": \"x\\\"\"}\n\n{\"b\": null, \"a\": 1.5}\n{\"A\": 2}\n";
        std::fs::write(&path, lines).expect("a file");
        let mut parts = Parts::open(&path, Format::Json, true, b',', 1000).expect("open");
        parts.choose(&vec!["a".to_owned(), "b".to_owned()]).expect("there");
        let part = parts.next().expect("read").expect("a part");
        assert_eq!(&part.csv[..], b"\"1\",\"x\"\"\"\n\"1.5\",\n\"2\",\n");
        assert!(parts.next().expect("read").is_none());
        // An empty line is none for COPY.
        let place = parts.place(part.start, &part.csv, 2).expect("read");
        assert!(place.ends_with("t.json, line 3"), "{place}");
        let lines = "{\"a\": 1, \"b\": 2}\n{\"a\": 1,\n";
        std::fs::write(&path, lines).expect("a file");
        let mut parts = Parts::open(&path, Format::Json, true, b',', 1000).expect("open");
        parts.choose(&vec!["a".to_owned(), "b".to_owned()]).expect("there");
        let error = parts.next().err().expect("no object").to_string();
        assert!(error.contains("t.json, line 2: no JSON object"), "{error}");
    }

    #[test]
    fn a_sample_tells_types() {
        for (text, name) in [
            ("1", "bigint"),
            ("007", "text"),
            ("1.5", "double precision"),
            ("2026-11-29", "date"),
            ("2026-11-29T12:00:00", "timestamp"),
            ("true", "boolean"),
            ("x", "text"),
        ] {
            assert_eq!(Kind::of(text).name(), name, "{text}");
        }
        assert_eq!(Kind::Integer.or(Kind::Float), Kind::Float);
        assert_eq!(Kind::Bool.or(Kind::Date), Kind::Text);
    }
}
