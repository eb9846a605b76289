//! Reads a file with what is kept of it.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::error::Result as EngineResult;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};
use tracing::debug;

use super::file::{File, Place, Shown, is_kept};
use super::uncompress::uncompress;
use super::{PageCache, Room};
use crate::storage::guard::{Allowance, check_chunk};

/// Makes readers of a store's files that know the kept chunks. `files` makes those of the files themselves,
/// which check what they read.
#[derive(Debug)]
pub struct PagedFactory {
    pub cache: Arc<PageCache>,
    pub files: Arc<dyn ParquetFileReaderFactory>,
    pub store: Arc<dyn ObjectStore>,
    /// The store's URL.
    pub url: Arc<str>,
}

impl ParquetFileReaderFactory for PagedFactory {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> EngineResult<Box<dyn AsyncFileReader + Send>> {
        let (object, whole) = (file.object_meta.clone(), file.range.is_none());
        let opened = file.extension::<Opened>().cloned().unwrap_or_default();
        let inner = self.files.create_reader(partition, file, metadata_size_hint, metrics)?;
        Ok(Box::new(Reader {
            inner,
            cache: self.cache.clone(),
            store: self.store.clone(),
            url: self.url.clone(),
            object,
            whole,
            opened,
        }))
    }
}

struct Reader {
    inner: Box<dyn AsyncFileReader + Send>,
    cache: Arc<PageCache>,
    store: Arc<dyn ObjectStore>,
    url: Arc<str>,
    object: ObjectMeta,
    whole: bool,
    opened: Opened,
}

/// What is known once the metadata of a file has been asked for: all readers of one scan of the file share
/// it, since one of them may be asked for what another has shown.
#[derive(Clone, Debug, Default)]
pub struct Opened(Arc<OnceLock<Known>>);

#[derive(Debug)]
struct Known {
    file: Arc<File>,
    /// As the file is.
    metadata: Arc<ParquetMetaData>,
    shown: Option<Arc<Shown>>,
}

impl AsyncFileReader for Reader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        async move {
            let mut bytes = self.get_byte_ranges(vec![range]).await?;
            bytes.pop().ok_or_else(|| ParquetError::General("nothing was read".to_owned()))
        }
        .boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>>> {
        async move {
            if !ranges.iter().any(is_kept) {
                let bytes = self.inner.get_byte_ranges(ranges.clone()).await?;
                self.read(&ranges, &bytes);
                return Ok(bytes);
            }
            let (mut all, mut others) = (Vec::with_capacity(ranges.len()), Vec::new());
            for range in &ranges {
                if is_kept(range) {
                    all.push(self.kept(range)?);
                } else {
                    all.push(Bytes::new());
                    others.push(range.clone());
                }
            }
            if !others.is_empty() {
                let bytes = self.inner.get_byte_ranges(others.clone()).await?;
                self.read(&others, &bytes);
                let places = all.iter_mut().zip(&ranges).filter(|(_, range)| !is_kept(range));
                places.zip(bytes).for_each(|((place, _), bytes)| *place = bytes);
            }
            Ok(all)
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>>> {
        async move {
            if let Some(known) = self.opened.0.get() {
                return Ok(known.shown_metadata());
            }
            let metadata = self.inner.get_metadata(options).await?;
            let Some(file) = self.cache.file(&self.url, &self.object, &metadata) else {
                return Ok(metadata);
            };
            let known = self.open(file, metadata, options).await?;
            Ok(self.opened.0.get_or_init(|| known).shown_metadata())
        }
        .boxed()
    }
}

impl Known {
    fn shown_metadata(&self) -> Arc<ParquetMetaData> {
        match &self.shown {
            Some(shown) => shown.metadata.clone(),
            None => self.metadata.clone(),
        }
    }
}

impl Reader {
    async fn open(
        &mut self,
        file: Arc<File>,
        mut metadata: Arc<ParquetMetaData>,
        options: Option<&ArrowReaderOptions>,
    ) -> Result<Known> {
        if file.is_closed() || !file.has_any() {
            return Ok(Known { file, metadata, shown: None });
        }
        // The page index of the file would not be that of what is shown.
        if lacks_page_index(&metadata) {
            let options = options.cloned().unwrap_or_default();
            let options = options.with_page_index_policy(PageIndexPolicy::Optional);
            metadata = self.inner.get_metadata(Some(&options)).await?;
        }
        let shown = match lacks_page_index(&metadata) {
            true => {
                file.close();
                None
            }
            false => Some(file.shown(&metadata, self.whole)?),
        };
        Ok(Known { file, metadata, shown })
    }

    /// Bytes of a kept chunk.
    fn kept(&self, range: &Range<u64>) -> Result<Bytes> {
        let known = self.opened.0.get();
        let found = known.and_then(|known| Some((known, known.shown.as_ref()?.at(range)?)));
        let Some((known, (place, chunk, part))) = found else {
            return Err(ParquetError::General(format!("no kept chunk is at {range:?}")));
        };
        if part.end > chunk.bytes.len() {
            return Err(ParquetError::EOF(format!("a kept chunk ends before {range:?}")));
        }
        self.cache.used(&known.file, place);
        Ok(chunk.bytes.slice(part))
    }

    /// Bytes of the file were read: chunks that are read often are kept.
    fn read(&self, ranges: &[Range<u64>], bytes: &[Bytes]) {
        let Some(known) = self.opened.0.get() else { return };
        for (range, bytes) in ranges.iter().zip(bytes) {
            if let Some(place) = known.file.read(range) {
                self.keep(known, place, range, bytes);
            }
        }
    }

    /// Makes a chunk ready to be kept, of which these bytes have just been read, while others run.
    fn keep(&self, known: &Known, place: Place, range: &Range<u64>, bytes: &Bytes) {
        let (group, column) = known.file.at(place);
        let chunk = known.metadata.row_group(group).column(column);
        let size = usize::try_from(chunk.uncompressed_size()).unwrap_or(usize::MAX);
        if !self.cache.fits(size) {
            return;
        }
        let room = self.cache.is_left(size).then(|| self.cache.room(size)).flatten();
        let Some(room) = room else {
            known.file.postpone(place);
            return;
        };
        let (start, length) = chunk.byte_range();
        let whole = (*range == (start..start + length)).then(|| bytes.clone());
        let job = Job {
            room,
            file: known.file.clone(),
            metadata: known.metadata.clone(),
            place,
            store: self.store.clone(),
            path: self.object.location.clone(),
        };
        self.cache.work(async move {
            if let Err(error) = job.run(whole).await {
                debug!(%error, "a column chunk is not kept");
            }
        });
    }
}

/// A chunk that is made ready to be kept.
struct Job {
    room: Room,
    file: Arc<File>,
    metadata: Arc<ParquetMetaData>,
    place: Place,
    store: Arc<dyn ObjectStore>,
    path: object_store::path::Path,
}

impl Job {
    async fn run(self, whole: Option<Bytes>) -> Result<()> {
        let (group, column) = self.file.at(self.place);
        let group = self.metadata.row_group(group);
        let chunk = group.column(column);
        let bytes = match whole {
            Some(bytes) => bytes,
            None => {
                let (start, length) = chunk.byte_range();
                let read = self.store.get_range(&self.path, start..start + length).await;
                let bytes = read.map_err(|error| ParquetError::External(Box::new(error)))?;
                if bytes.len() as u64 != length {
                    return Err(ParquetError::EOF("it is shorter than it was".to_owned()));
                }
                bytes
            }
        };
        // It goes by the chunk alone, not by the file's page index.
        let allowance = Allowance(self.room.cache.largest());
        check_chunk(chunk, &[], chunk.byte_range().0, &bytes, allowance)?;
        let rows = usize::try_from(group.num_rows()).unwrap_or(0);
        let ready = uncompress(&self.file, chunk, bytes, rows).await?;
        self.room.cache.keep(&self.file, self.place, ready);
        Ok(())
    }
}

/// Whether the file has a page index that was not read.
fn lacks_page_index(metadata: &ParquetMetaData) -> bool {
    metadata.offset_index().is_none()
        && metadata
            .row_groups()
            .iter()
            .any(|group| group.columns().iter().any(|chunk| chunk.offset_index_offset().is_some()))
}
