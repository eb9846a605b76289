//! Results of queries in files of their own, to be read later.
//!
//! Parquet has no place for an interval of months, days and nanoseconds: there it is text, in arrays as
//! well, and an interval again for who reads it.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Column as Name;
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, cast as cast_expr};
use object_store::buffered::BufWriter;
use parquet::arrow::AsyncArrowWriter;
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
        let rows = rows.map_err(|error| failed(url, error))?;
        Ok(Self { url: url.to_owned(), schema, rows })
    }

    /// Writes rows whose columns are of the result's types.
    pub async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let columns = (batch.columns().iter().zip(self.schema.fields()))
            .map(|(array, field)| match array.data_type() == field.data_type() {
                true => Ok(array.clone()),
                false => cast(array, field.data_type()),
            })
            .collect::<Result<_, _>>();
        let batch = columns.and_then(|columns| RecordBatch::try_new(self.schema.clone(), columns));
        let batch = batch.map_err(|error| Error::of_file(&self.url, error.into()))?;
        self.rows.write(&batch).await.map_err(|error| failed(&self.url, error))
    }

    /// Returns the file's bytes.
    pub async fn finish(mut self) -> Result<u64> {
        self.rows.finish().await.map_err(|error| failed(&self.url, error))?;
        Ok(self.rows.bytes_written() as u64)
    }
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
