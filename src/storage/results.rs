//! Results of queries in files of their own, to be read later.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use object_store::buffered::BufWriter;
use parquet::arrow::AsyncArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::managed::TableFiles;
use super::{Error, Result};

/// Writes one result to a Parquet file.
pub struct ResultWriter {
    url: String,
    schema: SchemaRef,
    rows: AsyncArrowWriter<BufWriter>,
}

impl ResultWriter {
    /// A file that is there once [`finish`](Self::finish) has returned.
    pub fn new(files: &TableFiles, url: &str, schema: SchemaRef) -> Result<Self> {
        let sink = files.sink(url)?;
        let compression = Compression::ZSTD(ZstdLevel::default());
        let properties = WriterProperties::builder().set_compression(compression).build();
        let rows = AsyncArrowWriter::try_new(sink, schema.clone(), Some(properties));
        let rows = rows.map_err(|error| failed(url, error))?;
        Ok(Self { url: url.to_owned(), schema, rows })
    }

    /// Writes rows whose columns are of the schema's types.
    pub async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let batch = RecordBatch::try_new(self.schema.clone(), batch.columns().to_vec());
        let batch = batch.map_err(|error| Error::of_file(&self.url, error.into()))?;
        self.rows.write(&batch).await.map_err(|error| failed(&self.url, error))
    }

    /// Returns the file's bytes.
    pub async fn finish(mut self) -> Result<u64> {
        self.rows.finish().await.map_err(|error| failed(&self.url, error))?;
        Ok(self.rows.bytes_written() as u64)
    }
}

fn failed(url: &str, error: ParquetError) -> Error {
    Error::of_file(url, error.into())
}
