//! Results of queries in files of their own, to be read later; and as files that leave as they are made.
//!
//! Parquet has no place for an interval of months, days and nanoseconds: there it is text, in arrays as
//! well, and an interval again for who reads it.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Column as Name;
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, cast as cast_expr};
use object_store::buffered::BufWriter;
use parquet::arrow::{ArrowWriter, AsyncArrowWriter};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::managed::TableFiles;
use super::{Error, Result, open};
use crate::catalog::{Column, External, FileFormat};

/// Writes one result to a Parquet file.
pub struct ResultWriter {
    url: String,
    schema: SchemaRef,
    rows: AsyncArrowWriter<BufWriter>,
}

impl ResultWriter {
    /// A file that is there once [`finish`](Self::finish) has returned.
    pub fn new(files: &TableFiles, url: &str, columns: &[Column]) -> Result<Self> {
        let fields = columns.iter().map(|column| stored(column).field());
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let sink = files.sink(url)?;
        let compression = Compression::ZSTD(ZstdLevel::default());
        let properties = WriterProperties::builder().set_compression(compression).build();
        let rows = AsyncArrowWriter::try_new(sink, schema.clone(), Some(properties));
        let rows = rows.map_err(|error| Error::not_written(url, error))?;
        Ok(Self { url: url.to_owned(), schema, rows })
    }

    /// Writes rows whose columns are of the result's types.
    pub async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let batch =
            in_schema(batch, &self.schema).map_err(|error| Error::of_file(&self.url, error))?;
        self.rows.write(&batch).await.map_err(|error| Error::not_written(&self.url, error))
    }

    /// Returns the file's bytes.
    pub async fn finish(mut self) -> Result<u64> {
        self.rows.finish().await.map_err(|error| Error::not_written(&self.url, error))?;
        Ok(self.rows.bytes_written() as u64)
    }
}

/// Bytes of rows that are gathered before they leave.
const ROW_GROUP: usize = 16 << 20;

/// Makes a Parquet file of a result, piece by piece, for whoever takes the pieces.
#[derive(Clone)]
pub struct ResultFile(Arc<Mutex<Making>>);

struct Making {
    schema: SchemaRef,
    /// `None` at the end.
    writer: Option<ArrowWriter<Pieces>>,
    made: Pieces,
}

/// Bytes that are made and not taken yet.
#[derive(Clone, Default)]
struct Pieces(Arc<Mutex<Vec<u8>>>);

impl io::Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Pieces {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ResultFile {
    pub fn new(columns: &[Column]) -> Result<Self> {
        let fields = columns.iter().map(|column| stored(column).field());
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let compression = Compression::ZSTD(ZstdLevel::default());
        let properties = WriterProperties::builder().set_compression(compression).build();
        let made = Pieces::default();
        let writer = ArrowWriter::try_new(made.clone(), schema.clone(), Some(properties));
        let writer = Some(writer.map_err(|error| failed(STREAM, error))?);
        Ok(Self(Arc::new(Mutex::new(Making { schema, writer, made }))))
    }

    /// Takes rows; returns the bytes that are to leave by now.
    pub fn write(&self, batch: &RecordBatch) -> Result<Vec<u8>> {
        let mut making = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Making { schema, writer: Some(writer), made } = &mut *making else {
            return Ok(Vec::new());
        };
        let batch = in_schema(batch, schema).map_err(|error| Error::of_file(STREAM, error))?;
        let written = writer.write(&batch).and_then(|()| match writer.in_progress_size() {
            ROW_GROUP.. => writer.flush(),
            _ => Ok(()),
        });
        written.map_err(|error| failed(STREAM, error))?;
        Ok(made.take())
    }

    /// The rest of the file.
    pub fn finish(&self) -> Result<Vec<u8>> {
        let mut making = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(writer) = making.writer.take() {
            writer.close().map_err(|error| failed(STREAM, error))?;
        }
        Ok(making.made.take())
    }
}

/// What messages call a file without a name.
const STREAM: &str = "(a result)";

/// Rows with the types that they have in a file.
fn in_schema(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, DataFusionError> {
    let columns = (batch.columns().iter().zip(schema.fields()))
        .map(|(array, field)| match array.data_type() == field.data_type() {
            true => Ok(array.clone()),
            false => cast(array, field.data_type()),
        })
        .collect::<Result<_, _>>()?;
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}

/// A result that was written with these columns.
pub fn open_result(
    session: &dyn Session,
    columns: &[Column],
    url: &str,
) -> Result<Arc<dyn TableProvider>> {
    let external = External {
        location: url.to_owned(),
        format: FileFormat::Parquet,
        partition_columns: Vec::new(),
        options: Default::default(),
    };
    let in_file: Vec<Column> = columns.iter().map(stored).collect();
    let file = open(session, &in_file, &external)?;
    if in_file == columns {
        return Ok(file);
    }
    let back = |(column, in_file): (&Column, &Column)| {
        let own = Expr::Column(Name::from_name(&column.name));
        match column.data_type == in_file.data_type {
            true => own,
            false => cast_expr(own, column.data_type.clone()).alias(&column.name),
        }
    };
    let exprs: Vec<Expr> = columns.iter().zip(&in_file).map(back).collect();
    let plan = LogicalPlanBuilder::scan("result", provider_as_source(file), None)
        .and_then(|scan| scan.project(exprs)?.build());
    let plan = plan.map_err(|error: DataFusionError| Error::of_file(url, error))?;
    Ok(Arc::new(ViewTable::new(plan, None)))
}

/// A column as it is in the file.
fn stored(column: &Column) -> Column {
    Column { data_type: stored_type(&column.data_type), ..column.clone() }
}

fn stored_type(kind: &DataType) -> DataType {
    match kind {
        DataType::Interval(_) => DataType::Utf8,
        DataType::List(item) => {
            let stored = stored_type(item.data_type());
            DataType::List(Arc::new(item.as_ref().clone().with_data_type(stored)))
        }
        _ => kind.clone(),
    }
}

fn failed(url: &str, error: ParquetError) -> Error {
    Error::of_file(url, error.into())
}
