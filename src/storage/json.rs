//! How JSON is read: objects, each in a line or all in one array, by the engine's decoder.

use std::io::{self, BufReader, Read};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;
use arrow::json::reader::infer_json_schema_from_iterator;
use bytes::{Buf, Bytes, BytesMut};
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::config::JsonOptions;
use datafusion::datasource::file_format::DEFAULT_SCHEMA_INFER_MAX_RECORD;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileScanConfig, FileSource};
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion_datasource::TableSchema;
use datafusion_datasource::file_stream::{FileOpenFuture, FileOpener};
use datafusion_datasource::projection::{ProjectionOpener, SplitProjection};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use memchr::{memchr2, memchr3};
use object_store::{ObjectMeta, ObjectStore};
use serde_json::Value;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::batches::{Objects, rows};
use super::spelled::{Source, asked, settled};
use super::text::{Chunks, Part, of_bounded_lines, part, whole};

/// What some programs begin a file with, to say that it is UTF-8.
pub(super) const MARK: [u8; 3] = *b"\xef\xbb\xbf";

/// The engine's source of JSON with another reader.
#[derive(Clone)]
pub(super) struct Json {
    source: Arc<dyn FileSource>,
    batch_size: usize,
    /// Whether each object has a line, and the file is no array of them.
    of_lines: bool,
}

impl Json {
    pub fn new(source: Arc<dyn FileSource>, options: &JsonOptions) -> Self {
        Self { source, batch_size: 8192, of_lines: options.newline_delimited }
    }
}

impl FileSource for Json {
    fn create_file_opener(
        &self,
        store: Arc<dyn ObjectStore>,
        config: &FileScanConfig,
        _: usize,
    ) -> Result<Arc<dyn FileOpener>> {
        let table = self.source.table_schema();
        let columns = table.file_schema().clone();
        let projection = match self.source.projection() {
            Some(projection) => SplitProjection::new(&columns, projection),
            None => SplitProjection::unprojected(table),
        };
        let opener = Opener {
            wanted: Arc::new(columns.project(&projection.file_indices)?),
            batch_size: self.batch_size,
            of_lines: self.of_lines,
            compression: config.file_compression_type,
            store,
        };
        ProjectionOpener::try_new(projection, Arc::new(opener), &columns)
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
        Arc::new(Self { batch_size, ..self.clone() })
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

#[derive(Clone)]
struct Opener {
    wanted: SchemaRef,
    batch_size: usize,
    of_lines: bool,
    compression: FileCompressionType,
    store: Arc<dyn ObjectStore>,
}

impl FileOpener for Opener {
    fn open(&self, file: PartitionedFile) -> Result<FileOpenFuture> {
        let opener = self.clone();
        Ok(async move { opener.rows(file).await }.boxed())
    }
}

impl Opener {
    async fn rows(self, file: PartitionedFile) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let (store, meta) = (&self.store, &file.object_meta);
        let range = Part::of(&file);
        let chunks = match range {
            Some(lines) => part(store, meta, lines, b'\n'),
            None => whole(store.as_ref(), meta, self.compression).await?,
        };
        let begins = range.is_none_or(|part| part.start == 0);
        let chunks = objects(chunks, self.of_lines, begins).await?;
        let wanted = self.wanted;
        let decoder = ReaderBuilder::new(asked(&wanted, Source::Json))
            .with_coerce_primitive(true)
            .with_batch_size(self.batch_size);
        let rows = rows(chunks, Objects::new(decoder.build_decoder()?));
        Ok(rows.map(move |batch| Ok(settled(batch?, &wanted)?)).boxed())
    }
}

/// The columns of files, of as many bytes as it takes.
pub(super) async fn columns(
    store: &dyn ObjectStore,
    files: &[ObjectMeta],
    options: &JsonOptions,
) -> Result<SchemaRef> {
    let compression = FileCompressionType::from(options.compression);
    let mut left = options.schema_infer_max_rec.unwrap_or(DEFAULT_SCHEMA_INFER_MAX_RECORD);
    let given_up = CancellationToken::new();
    let _guard = given_up.clone().drop_guard();
    let mut schemas = Vec::new();
    for file in files {
        if left == 0 {
            break;
        }
        let chunks = whole(store, file, compression).await?;
        let chunks = objects(chunks, options.newline_delimited, true).await?;
        let mut bytes = Awaited::new(chunks, given_up.clone());
        let look = move || {
            let mut records = 0;
            let values = serde_json::Deserializer::from_reader(BufReader::new(&mut bytes));
            let values = values.into_iter::<Value>().take(left).inspect(|_| records += 1);
            let values =
                values.map(|value| value.map_err(|e| ArrowError::JsonError(e.to_string())));
            let found = infer_json_schema_from_iterator(values);
            // The reader tells of it in its own words, and not of what kind it is.
            match bytes.failure {
                Some(failure) => Err(failure),
                None => Ok((found?, records)),
            }
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
    failure: Option<DataFusionError>,
    runtime: Handle,
    given_up: CancellationToken,
}

impl Awaited {
    fn new(chunks: Chunks, given_up: CancellationToken) -> Self {
        let runtime = Handle::current();
        Self { chunks, chunk: Bytes::new(), failure: None, runtime, given_up }
    }

    fn next(&mut self) -> Result<Option<Bytes>> {
        let next = self.given_up.run_until_cancelled(self.chunks.try_next());
        let next = self.runtime.block_on(next);
        next.ok_or_else(|| broken("nobody waits for it"))?
    }
}

impl Read for Awaited {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.next() {
                Ok(Some(chunk)) => self.chunk = chunk,
                Ok(None) => return Ok(0),
                Err(error) => {
                    self.failure = Some(error);
                    return Err(io::ErrorKind::Other.into());
                }
            }
        }
        let bytes = room.len().min(self.chunk.len());
        self.chunk.copy_to_slice(&mut room[..bytes]);
        Ok(bytes)
    }
}

/// The objects of a file, one behind the other. `begins`: the chunks are from its beginning on.
async fn objects(mut chunks: Chunks, of_lines: bool, begins: bool) -> Result<Chunks> {
    if begins {
        chunks = without_mark(chunks).await?;
    }
    if of_lines {
        return Ok(of_bounded_lines(chunks, Some(b'\n')));
    }
    let next = |(mut chunks, mut array): (Chunks, Array)| async move {
        let Some(chunk) = chunks.try_next().await? else {
            array.end()?;
            return Ok(None);
        };
        let mut chunk = chunk.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        array.strip(&mut chunk)?;
        Ok(Some((chunk.freeze(), (chunks, array))))
    };
    let objects = stream::try_unfold((chunks, Array::default()), next).boxed();
    Ok(of_bounded_lines(objects, Some(b'\n')))
}

async fn without_mark(mut chunks: Chunks) -> Result<Chunks> {
    let mut head = Bytes::new();
    while head.len() < MARK.len()
        && let Some(chunk) = chunks.try_next().await?
    {
        head = match head.is_empty() {
            true => chunk,
            false => [head, chunk].concat().into(),
        };
    }
    if head.starts_with(&MARK) {
        head.advance(MARK.len());
    }
    Ok(stream::once(async { Ok(head) }).chain(chunks).boxed())
}

/// Where in an array of objects a reader is.
#[derive(Clone, Copy, Debug, Default)]
enum Array {
    /// Before it.
    #[default]
    Before,
    /// Before an object, and whether there may be none.
    Object { or_none: bool },
    /// So deep in an object.
    Within { depth: usize },
    /// In a text of one.
    Text { depth: usize },
    /// Behind a backslash there.
    Escaped { depth: usize },
    /// Behind an object.
    Behind,
    /// Behind the array.
    Over,
}

impl Array {
    /// Puts white space in place of what is around the objects.
    fn strip(&mut self, bytes: &mut [u8]) -> Result<()> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &mut bytes[at..];
            let (next, taken) = match *self {
                Self::Text { depth } => match memchr2(b'"', b'\\', rest) {
                    None => break,
                    Some(end) if rest[end] == b'"' => (Self::Within { depth }, end + 1),
                    Some(end) => (Self::Escaped { depth }, end + 1),
                },
                Self::Escaped { depth } => (Self::Text { depth }, 1),
                Self::Within { depth } => match memchr3(b'"', b'{', b'}', rest) {
                    None => break,
                    Some(end) => {
                        let next = match (rest[end], depth) {
                            (b'"', _) => Self::Text { depth },
                            (b'{', _) => Self::Within { depth: depth + 1 },
                            (_, 1) => Self::Behind,
                            (..) => Self::Within { depth: depth - 1 },
                        };
                        (next, end + 1)
                    }
                },
                around => (around.outside(&mut rest[0])?, 1),
            };
            *self = next;
            at += taken;
        }
        Ok(())
    }

    /// A byte outside of objects.
    fn outside(self, byte: &mut u8) -> Result<Self> {
        if byte.is_ascii_whitespace() {
            return Ok(self);
        }
        let (next, put) = match (self, *byte) {
            (Self::Before, b'[') => (Self::Object { or_none: true }, b' '),
            (Self::Object { .. }, b'{') => (Self::Within { depth: 1 }, b'{'),
            (Self::Object { or_none: true } | Self::Behind, b']') => (Self::Over, b' '),
            (Self::Behind, b',') => (Self::Object { or_none: false }, b'\n'),
            (Self::Before, _) => return Err(broken("it is no array of objects")),
            (Self::Over, _) => return Err(broken("something stands behind its array")),
            (Self::Object { .. }, _) => {
                return Err(broken("its array has what is no object"));
            }
            (..) => return Err(broken("a comma is missing between two objects of its array")),
        };
        *byte = put;
        Ok(next)
    }

    /// The file is over.
    fn end(self) -> Result<()> {
        match self {
            Self::Over => Ok(()),
            Self::Before => Err(broken("it has no array of objects")),
            _ => Err(broken("its array does not end")),
        }
    }
}

fn broken(reason: &str) -> DataFusionError {
    ArrowError::JsonError(reason.to_owned()).into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use datafusion::common::parsers::CompressionTypeVariant::{self, UNCOMPRESSED, ZSTD};
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;
    use object_store::path::Path;

    use super::super::text::LONGEST;
    use super::*;

    async fn stripped(text: &str, size: usize) -> std::result::Result<String, String> {
        let chunks: Vec<_> =
            text.as_bytes().chunks(size).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
        let objects = objects(stream::iter(chunks).boxed(), false, true).await.expect("chunks");
        let objects: Result<Vec<Bytes>> = objects.try_collect().await;
        let objects = objects.map_err(|error| error.to_string())?;
        Ok(String::from_utf8(objects.concat()).expect("text").trim().to_owned())
    }

    #[tokio::test]
    async fn an_array_is_its_objects() {
        for (text, objects) in [
            ("[]", ""),
            (" [ ] \n", ""),
            ("[{\"a\":1}]", "{\"a\":1}"),
            ("\u{feff}[{\"a\":1},{\"a\":[{}]}]", "{\"a\":1}\n{\"a\":[{}]}"),
            ("[{\"a\":\"}],\\\"{\"}\r\n,\t{}]", "{\"a\":\"}],\\\"{\"}\r\n\n\t{}"),
            (
                "[{\"\\\\\":\"[\"},{\"b\":{\"c\":\"\u{1f600}\"}}]",
                "{\"\\\\\":\"[\"}\n{\"b\":{\"c\":\"\u{1f600}\"}}",
            ),
        ] {
            for size in 1..=text.len() {
                assert_eq!(stripped(text, size).await.as_deref(), Ok(objects), "{text} by {size}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_array_is_told() {
        for (text, said) in [
            ("", "it has no array"),
            (" \n", "it has no array"),
            ("{}", "it is no array"),
            ("{}\n[{}]", "it is no array"),
            ("[", "does not end"),
            ("[{}", "does not end"),
            ("[{},", "does not end"),
            ("[{\"a\":\"]", "does not end"),
            ("[{\"a\":\"\\", "does not end"),
            ("[1]", "no object"),
            ("[,{}]", "no object"),
            ("[{},]", "no object"),
            ("[[{}]]", "no object"),
            ("[null]", "no object"),
            ("[{} {}]", "a comma is missing"),
            ("[{}] []", "behind its array"),
            ("[{}],", "behind its array"),
        ] {
            for size in 1..=text.len().max(1) {
                let told = stripped(text, size).await.expect_err(text);
                assert!(told.contains(said), "{text} by {size}: {told}");
            }
        }
    }

    async fn found(
        text: Vec<u8>,
        compression: CompressionTypeVariant,
        of_lines: bool,
    ) -> Result<Vec<String>> {
        let (store, file) = (InMemory::new(), Path::from("file"));
        store.put(&file, text.into()).await.expect("kept");
        let files = [store.head(&file).await.expect("there")];
        let options =
            JsonOptions { compression, newline_delimited: of_lines, ..JsonOptions::default() };
        let columns = columns(&store, &files, &options).await?;
        Ok(columns.fields().iter().map(|field| field.name().clone()).collect())
    }

    #[tokio::test]
    async fn columns_are_looked_for_in_all_that_was_packed() {
        let mut packed = zstd::encode_all(&b"{\"a\":1}\n"[..], 1).expect("packed");
        packed.extend(zstd::encode_all(&b"{\"b\":2}\n"[..], 1).expect("packed"));
        for (text, compression, of_lines) in [
            (packed, ZSTD, true),
            (b"\xef\xbb\xbf{\"a\":1}\n{\"b\":2}".to_vec(), UNCOMPRESSED, true),
            (b"[{\"a\":1}, {\"b\":2}]".to_vec(), UNCOMPRESSED, false),
            (b"[\n  {\n    \"a\": 1\n  },\n  {\"b\":\n2}\n]\n".to_vec(), UNCOMPRESSED, false),
        ] {
            let columns = found(text, compression, of_lines).await.expect("read");
            assert_eq!(columns, ["a", "b"]);
        }
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(LONGEST));
        let told = found(long.into_bytes(), UNCOMPRESSED, true).await.expect_err("too long");
        assert!(told.to_string().contains("longer than 64 MiB"), "{told}");
    }

    /// Whoever looks reads no more once nobody waits for it.
    #[tokio::test]
    async fn nobody_looks_for_columns_that_are_not_waited_for() {
        let (dropped, gone) = tokio::sync::oneshot::channel::<()>();
        let never = stream::once(async move {
            let _dropped = dropped;
            std::future::pending().await
        });
        let given_up = CancellationToken::new();
        let mut bytes = Awaited::new(never.boxed(), given_up.clone());
        let reading = tokio::task::spawn_blocking(move || bytes.read(&mut [0]).is_err());
        given_up.cancel();
        assert!(reading.await.expect("no panic"));
        tokio::time::timeout(Duration::from_secs(60), gone)
            .await
            .expect("it ends")
            .expect_err("gone");
    }
}
