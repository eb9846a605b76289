//! Rows out: side by side for people, or as CSV, JSON or Parquet for programs.
//!
//! Those for programs pass through, with a batch (of Parquet: a group) of rows in memory at most.
//! Rows side by side are all read before the first is printed, since their widths are not known
//! before.

use std::fs::{self, File};
use std::io::{self, BufWriter, Stdout, Write, stdout};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch, StructArray};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use clap::{Args, ValueEnum};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use tokio_postgres::types::Type;

use crate::catalog::Column;
use crate::cli::error::{Error, Result};
use crate::cli::link::client::{Client, is_lost};
use crate::cli::text_table;
use crate::values::decode::copy::{CopyDecoder, CopySource};
use crate::values::encode::{TextStyle, TimeZone, text};
use crate::values::types;

/// Bytes of Parquet that wait in memory before they are written as a group of rows.
const GROUP: usize = 64 << 20;

#[derive(Clone, Debug, Args)]
pub struct Options {
    /// How rows are written. As JSON they are an array of objects, one a line, moments in UTC as
    /// 2026-11-29T12:00:00Z; parquet needs --output.
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    format: Format,
    /// The same as --format json.
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Where to; without it, to standard output (which parquet is not written to). The file is there
    /// once it is whole.
    #[arg(short, long, value_name = "FILE", required_if_eq("format", "parquet"))]
    output: Option<PathBuf>,
}

impl Options {
    pub fn format(&self) -> Format {
        if self.json { Format::Json } else { self.format }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Csv,
    Json,
    Parquet,
}

/// Writes the rows of a query. When a daemon dies under it another is asked from the beginning, unless
/// some of it is out already. `known` are its columns, where more of them is known than a daemon says
/// of a statement: how many dimensions arrays have.
pub async fn fetch(
    client: &mut Client,
    sql: &str,
    known: &[Column],
    options: &Options,
) -> Result<()> {
    loop {
        let mut target = Target::open(options.output.as_deref())?;
        let written = match options.format() {
            Format::Csv => csv(client.link().await?, sql, &mut target).await,
            format => rows(client.link().await?, sql, known, format, &mut target).await,
        };
        match written {
            Ok(()) => return target.finish(),
            Err(Error::Statement(error)) if is_lost(&error) && target.can_be_taken_back() => {
                client.lose();
            }
            Err(error) => return Err(error),
        }
    }
}

/// As the daemon writes it.
async fn csv(client: &tokio_postgres::Client, sql: &str, target: &mut Target) -> Result<()> {
    let copy = format!("COPY ({sql}) TO STDOUT (FORMAT csv, HEADER)");
    let bytes = client.copy_out(&copy).await.map_err(Error::Statement)?;
    let mut bytes = pin!(bytes);
    while let Some(bytes) = bytes.try_next().await.map_err(Error::Statement)? {
        target.write_all(&bytes).map_err(Error::Print)?;
    }
    Ok(())
}

async fn rows(
    client: &tokio_postgres::Client,
    sql: &str,
    known: &[Column],
    format: Format,
    target: &mut Target,
) -> Result<()> {
    let statement = client.prepare(sql).await.map_err(Error::Statement)?;
    let (exprs, fields): (Vec<String>, Vec<FieldRef>) = (statement.columns().iter())
        .map(|column| {
            let known = known.iter().find(|known| known.name == column.name());
            readable(column, known.map(Column::field), format)
        })
        .unzip();
    let schema = Arc::new(Schema::new(fields.clone()));
    let exprs = exprs.join(", ");
    let copy = format!("COPY (SELECT {exprs} FROM ({sql}) AS rows) TO STDOUT (FORMAT binary)");
    let bytes = client.copy_out(&copy).await.map_err(Error::Statement)?;
    let batches = batches(bytes.map_err(Error::Statement), &fields);
    match format {
        Format::Json => json(schema, batches, target).await,
        Format::Parquet => parquet(schema, batches, target).await,
        Format::Table | Format::Csv => table(&schema, batches, target).await,
    }
}

/// A column as it is asked for, so that its values can be read here and have a place in the format,
/// and as it comes then.
fn readable(
    column: &tokio_postgres::Column,
    known: Option<Field>,
    format: Format,
) -> (String, FieldRef) {
    let name = format!("\"{}\"", column.name().replace('"', "\"\""));
    let pg = column.type_();
    let cast = match *pg {
        Type::OID => Some(Type::INT8),
        // Parquet has a type for intervals that cannot hold all of them, and few read it.
        Type::INTERVAL if format == Format::Parquet => Some(Type::TEXT),
        // Types of system tables, and arrays of them.
        _ if types::parameter(pg).is_none() => Some(Type::TEXT),
        Type::OID_ARRAY | Type::OID_VECTOR | Type::INT2_VECTOR => Some(Type::TEXT),
        Type::INTERVAL_ARRAY if format == Format::Parquet => Some(Type::TEXT),
        _ => None,
    };
    if let Some(cast) = cast {
        let field = types::column(column.name(), &cast, -1);
        return (format!("CAST({name} AS {}) AS {name}", cast.name()), field);
    }
    // Where a daemon's own description leaves out dimensions, or a precision.
    let exact = known.filter(|field| {
        let dimensions = types::dimensions(field.data_type());
        pg.name().starts_with('_') && (dimensions > 1 || *pg == Type::NUMERIC_ARRAY)
    });
    let field = exact.map_or_else(
        || types::column(column.name(), pg, column.type_modifier()),
        |field| Arc::new(field.with_nullable(true)),
    );
    (name, field)
}

/// What comes in COPY's binary format.
fn batches(
    bytes: impl Stream<Item = Result<bytes::Bytes>>,
    fields: &[FieldRef],
) -> impl Stream<Item = Result<RecordBatch>> {
    let zone = TimeZone::utc();
    let decoder = CopyDecoder::new("result", fields, CopySource::Binary, zone, usize::MAX);
    // What follows the last row is not for whoever reads rows.
    let start = (Box::pin(bytes.fuse()), decoder);
    stream::try_unfold(start, async |(mut bytes, mut decoder)| {
        loop {
            let found = decoder.next_batch().map_err(|error| Error::Rows(error.to_string()))?;
            if let Some(batch) = found {
                return Ok(Some((batch, (bytes, decoder))));
            }
            match bytes.try_next().await? {
                Some(bytes) => decoder.push(&bytes),
                None => {
                    decoder.end();
                    let last = decoder.next_batch();
                    let last = last.map_err(|error| Error::Rows(error.to_string()))?;
                    return Ok(last.map(|batch| (batch, (bytes, decoder))));
                }
            }
        }
    })
}

/// All rows side by side, as psql prints them.
async fn table(
    schema: &SchemaRef,
    batches: impl Stream<Item = Result<RecordBatch>>,
    target: &mut Target,
) -> Result<()> {
    let names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    let (mut rows, mut batches) = (Vec::new(), pin!(batches));
    while let Some(batch) = batches.try_next().await? {
        let texts = (schema.fields().iter().zip(batch.columns()))
            .map(|(field, array)| text(field, array, &TextStyle::default()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Error::Rows(error.to_string()))?;
        for row in 0..batch.num_rows() {
            let value = |column: &arrow::array::StringViewArray| {
                column.is_valid(row).then(|| column.value(row).to_owned())
            };
            rows.push(texts.iter().map(value).collect());
        }
    }
    writeln!(target, "{}", text_table::render(&names, &rows, usize::MAX)).map_err(Error::Print)
}

/// An array of objects, as `row_to_json` writes them, but moments as all commands do: of UTC, with a `Z`.
async fn json(
    schema: SchemaRef,
    batches: impl Stream<Item = Result<RecordBatch>>,
    target: &mut Target,
) -> Result<()> {
    let row = Field::new("row", DataType::Struct(schema.fields().clone()), false);
    let style = TextStyle { time_zone: TimeZone::utc(), json_z: true };
    let (mut before, mut batches) = ("[", pin!(batches));
    while let Some(batch) = batches.try_next().await? {
        let rows = StructArray::new(schema.fields().clone(), batch.columns().to_vec(), None);
        let rows = text(&row, &(Arc::new(rows) as _), &style);
        let rows = rows.map_err(|error| Error::Rows(error.to_string()))?;
        for row in rows.iter().flatten() {
            write!(target, "{before}{row}").map_err(Error::Print)?;
            before = ",\n";
        }
    }
    let end = if before == "[" { "[]\n" } else { "]\n" };
    target.write_all(end.as_bytes()).map_err(Error::Print)
}

async fn parquet(
    schema: SchemaRef,
    batches: impl Stream<Item = Result<RecordBatch>>,
    target: &mut Target,
) -> Result<()> {
    let path = target.path();
    let failed = |source| Error::Write { path: path.clone(), source: Box::new(source) };
    let compression = Compression::ZSTD(ZstdLevel::default());
    let properties = WriterProperties::builder().set_compression(compression).build();
    let writer = ArrowWriter::try_new(&mut *target, schema.clone(), Some(properties));
    let mut writer = writer.map_err(failed)?;
    let mut batches = pin!(batches);
    while let Some(batch) = batches.try_next().await? {
        let batch = RecordBatch::try_new(schema.clone(), batch.columns().to_vec());
        let batch = batch.map_err(|error| Error::Rows(error.to_string()))?;
        writer.write(&batch).map_err(failed)?;
        if writer.in_progress_size() > GROUP {
            writer.flush().map_err(failed)?;
        }
    }
    writer.finish().map(drop).map_err(failed)
}

/// Where rows go.
enum Target {
    Stdout {
        out: BufWriter<Stdout>,
        used: bool,
    },
    /// Under another name until it is whole.
    File {
        out: BufWriter<File>,
        unfinished: Unfinished,
        path: PathBuf,
    },
}

/// A file that is removed unless it gets its name.
struct Unfinished(Option<PathBuf>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            // Nothing more can be done about it.
            let _ = fs::remove_file(path);
        }
    }
}

impl Target {
    fn open(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else {
            return Ok(Self::Stdout { out: BufWriter::new(stdout()), used: false });
        };
        // A pipe or a device is no file that another could take the place of.
        let special = fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
        let mut name = path.as_os_str().to_owned();
        if !special {
            name.push(format!(".part-{}", std::process::id()));
        }
        let part = PathBuf::from(name);
        let file = File::options().write(true).create(true).truncate(!special).open(&part);
        let out = BufWriter::new(file.map_err(Error::io("write", path))?);
        let unfinished = Unfinished((!special).then_some(part));
        Ok(Self::File { out, unfinished, path: path.to_owned() })
    }

    fn path(&self) -> PathBuf {
        match self {
            Self::Stdout { .. } => PathBuf::from("standard output"),
            Self::File { path, .. } => path.clone(),
        }
    }

    /// Nobody has seen anything of it.
    fn can_be_taken_back(&self) -> bool {
        match self {
            Self::Stdout { used, .. } => !used,
            Self::File { unfinished, .. } => unfinished.0.is_some(),
        }
    }

    fn finish(mut self) -> Result<()> {
        self.flush().map_err(Error::Print)?;
        if let Self::File { out, unfinished, path } = &mut self
            && let Some(part) = &unfinished.0
        {
            out.get_ref().sync_all().map_err(Error::io("write", path))?;
            fs::rename(part, &*path).map_err(Error::io("write", path))?;
            unfinished.0 = None;
        }
        Ok(())
    }
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout { out, used } => {
                *used = true;
                out.write(bytes)
            }
            Self::File { out, .. } => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout { out, .. } => out.flush(),
            Self::File { out, .. } => out.flush(),
        }
    }
}
