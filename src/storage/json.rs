//! How JSON is read: by the engine's reader, which is given what is packed unpacked, and local files in pieces
//! like all others. Only so it makes sure that an array ends, and that nothing stands beside it.

use std::fmt::{self, Display, Formatter};
use std::io::{self, BufReader, Read};
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::json::reader::infer_json_schema;
use async_trait::async_trait;
use bytes::{Buf, Bytes};
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::config::JsonOptions;
use datafusion::datasource::file_format::DEFAULT_SCHEMA_INFER_MAX_RECORD;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::physical_plan::{FileScanConfig, FileScanConfigBuilder, FileSource};
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion_datasource::TableSchema;
use datafusion_datasource::file_stream::FileOpener;
use datafusion_datasource_json::utils::JsonArrayToNdjsonReader;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use tokio::runtime::Handle;

use super::text::{Chunks, unpacked, whole};

/// The store that failures have as theirs which are of what was packed.
pub(super) const UNPACKING: &str = "unpacking";

/// The engine's source of JSON.
#[derive(Clone)]
pub(super) struct Json {
    source: Arc<dyn FileSource>,
    /// Whether a file has an object a line, and not an array of them.
    of_lines: bool,
}

impl Json {
    pub fn new(source: Arc<dyn FileSource>, options: &JsonOptions) -> Self {
        Self { source, of_lines: options.newline_delimited }
    }
}

impl FileSource for Json {
    fn create_file_opener(
        &self,
        store: Arc<dyn ObjectStore>,
        config: &FileScanConfig,
        partition: usize,
    ) -> Result<Arc<dyn FileOpener>> {
        let store = Arc::new(Unpacking { store, compression: config.file_compression_type });
        let config = FileScanConfigBuilder::from(config.clone())
            .with_file_compression_type(FileCompressionType::UNCOMPRESSED);
        self.source.create_file_opener(store, &config.build(), partition)
    }

    /// The engine's own believes that an array could be cut.
    fn supports_repartitioning(&self) -> bool {
        self.of_lines
    }

    fn try_pushdown_projection(
        &self,
        projection: &ProjectionExprs,
    ) -> Result<Option<Arc<dyn FileSource>>> {
        let source = self.source.try_pushdown_projection(projection)?;
        Ok(source.map(|source| Arc::new(Self { source, ..self.clone() }) as _))
    }

    fn table_schema(&self) -> &TableSchema {
        self.source.table_schema()
    }

    fn with_batch_size(&self, batch_size: usize) -> Arc<dyn FileSource> {
        Arc::new(Self { source: self.source.with_batch_size(batch_size), ..self.clone() })
    }

    fn projection(&self) -> Option<&ProjectionExprs> {
        self.source.projection()
    }

    fn metrics(&self) -> &ExecutionPlanMetricsSet {
        self.source.metrics()
    }

    fn file_type(&self) -> &str {
        self.source.file_type()
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.source.apply_expressions(f)
    }
}

/// The columns of files of JSON, of as many bytes as it takes.
pub(super) async fn columns(
    store: &dyn ObjectStore,
    files: &[ObjectMeta],
    options: &JsonOptions,
) -> Result<SchemaRef> {
    let compression = FileCompressionType::from(options.compression);
    let of_lines = options.newline_delimited;
    let mut left = options.schema_infer_max_rec.unwrap_or(DEFAULT_SCHEMA_INFER_MAX_RECORD);
    let mut schemas = Vec::new();
    for file in files {
        if left == 0 {
            break;
        }
        let chunks = whole(store, &file.location, compression).await?;
        let bytes = Awaited { chunks, chunk: Bytes::new(), runtime: Handle::current() };
        let look = move || match of_lines {
            true => infer_json_schema(BufReader::new(bytes), Some(left)),
            false => infer_json_schema(JsonArrayToNdjsonReader::new(bytes), Some(left)),
        };
        let looked = SpawnedTask::spawn_blocking(look).join_unwind().await;
        let (schema, records) =
            looked.map_err(|e| DataFusionError::ExecutionJoin(Box::new(e)))??;
        schemas.push(schema);
        left = left.saturating_sub(records);
    }
    Ok(Arc::new(Schema::try_merge(schemas)?))
}

/// What is read on a thread that waits for it.
struct Awaited {
    chunks: Chunks,
    /// What is left of the last one.
    chunk: Bytes,
    runtime: Handle,
}

impl Read for Awaited {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            let Some(next) = self.runtime.block_on(self.chunks.try_next())? else { return Ok(0) };
            self.chunk = next;
        }
        let bytes = room.len().min(self.chunk.len());
        self.chunk.copy_to_slice(&mut room[..bytes]);
        Ok(bytes)
    }
}

/// A store whose files are unpacked where they are read whole.
#[derive(Debug)]
struct Unpacking {
    store: Arc<dyn ObjectStore>,
    compression: FileCompressionType,
}

impl Display for Unpacking {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

/// The store's own failure, or that of unpacking what it has given.
fn failure(error: DataFusionError) -> Error {
    match error {
        DataFusionError::ObjectStore(error) => *error,
        DataFusionError::IoError(error) => match error.downcast::<DataFusionError>() {
            Ok(inner) => failure(inner),
            Err(error) => Error::Generic { store: UNPACKING, source: Box::new(error) },
        },
        error => Error::Generic { store: UNPACKING, source: Box::new(error) },
    }
}

#[async_trait]
impl ObjectStore for Unpacking {
    async fn get_opts(
        &self,
        location: &Path,
        options: GetOptions,
    ) -> object_store::Result<GetResult> {
        let whole = options.range.is_none() && !options.head;
        let mut read = self.store.get_opts(location, options).await?;
        if whole {
            let chunks = unpacked(read.payload, self.compression).map_err(failure)?;
            read.payload = GetResultPayload::Stream(chunks.map_err(failure).boxed());
        }
        Ok(read)
    }

    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.store.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.store.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.store.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &Path,
        to: &Path,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        self.store.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use datafusion::common::parsers::CompressionTypeVariant::{self, UNCOMPRESSED, ZSTD};
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    use super::*;

    async fn found(text: &[u8], compression: CompressionTypeVariant, of_lines: bool) -> SchemaRef {
        let (store, file) = (InMemory::new(), Path::from("file"));
        store.put(&file, text.to_vec().into()).await.expect("kept");
        let files = [store.head(&file).await.expect("there")];
        let options =
            JsonOptions { compression, newline_delimited: of_lines, ..JsonOptions::default() };
        columns(&store, &files, &options).await.expect("read")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn columns_are_looked_for_in_all_that_was_packed() {
        let mut packed = zstd::encode_all(&b"{\"a\":1}\n"[..], 1).expect("packed");
        packed.extend(zstd::encode_all(&b"{\"b\":2}\n"[..], 1).expect("packed"));
        for (text, compression, of_lines) in [
            (packed.as_slice(), ZSTD, true),
            (b"{\"a\":1}\n{\"b\":2}", UNCOMPRESSED, true),
            (b"[{\"a\":1}, {\"b\":2}]", UNCOMPRESSED, false),
        ] {
            let columns = found(text, compression, of_lines).await;
            let names: Vec<_> = columns.fields().iter().map(|field| field.name()).collect();
            assert_eq!(names, ["a", "b"]);
        }
    }
}
