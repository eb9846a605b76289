//! Reads of Parquet files, checked.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::error::Result as EngineResult;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::ObjectMeta;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ParquetMetaData;

use super::footers::{Footers, Room, cut_short};
use super::metadata::{check_bloom_filter, check_indexes, extent};
use super::pages::{Allowance, Needs, check_chunk};

/// Makes readers of a store's files that check what they read.
#[derive(Debug)]
pub struct CheckedFactory {
    files: CachedParquetFileReaderFactory,
    footers: Footers,
}

impl CheckedFactory {
    pub fn new(footers: Footers) -> Self {
        let (store, cache) = (footers.store.clone(), footers.cache.clone());
        Self { files: CachedParquetFileReaderFactory::new(store, cache), footers }
    }
}

impl ParquetFileReaderFactory for CheckedFactory {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> EngineResult<Box<dyn AsyncFileReader + Send>> {
        let object = file.object_meta.clone();
        let seen = file.extension::<Seen>().cloned().unwrap_or_default();
        let inner = self.files.create_reader(partition, file, metadata_size_hint, metrics)?;
        let footers = self.footers.clone().with_hint(metadata_size_hint);
        let allowance = Allowance::of(footers.memory.as_ref());
        let room = Room::new(&footers.memory, allowance.0 as u64);
        Ok(Box::new(Checked { inner, footers, object, seen, allowance, room, last: (0, 0) }))
    }
}

/// The metadata of a file, once it has been asked for: readers of one scan of the file share it, and not
/// all of them are asked.
#[derive(Clone, Debug, Default)]
pub struct Seen(Arc<OnceLock<Arc<ParquetMetaData>>>);

struct Checked {
    inner: Box<dyn AsyncFileReader + Send>,
    footers: Footers,
    object: ObjectMeta,
    seen: Seen,
    allowance: Allowance,
    /// For the pages that are taken apart.
    room: Room,
    /// Row group and column of the chunk that was read last.
    last: (usize, usize),
}

impl AsyncFileReader for Checked {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        async move {
            let mut bytes = self.get_byte_ranges(vec![range]).await?;
            bytes.pop().ok_or_else(|| ParquetError::General("nothing was read".to_owned()))
        }
        .boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>>> {
        async move {
            let size = self.object.size;
            if let Some(range) =
                ranges.iter().find(|range| range.start > range.end || range.end > size)
            {
                let reason = format!("bytes {range:?} lie outside of the file's {size}");
                return Err(ParquetError::EOF(reason));
            }
            let bytes = match self.inner.get_byte_ranges(ranges.clone()).await {
                Ok(bytes) => bytes,
                Err(error) => return Err(self.footers.of_size(&self.object, error).await),
            };
            let all = bytes.len() == ranges.len()
                && bytes
                    .iter()
                    .zip(&ranges)
                    .all(|(bytes, range)| bytes.len() as u64 == range.end - range.start);
            if !all {
                return Err(self.footers.of_size(&self.object, cut_short()).await);
            }
            let metadata = self.metadata().await?;
            let need = self.check(&metadata, &ranges, &bytes)?;
            // Instead of that for what was read before.
            self.room.set(need)?;
            Ok(bytes)
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>>> {
        self.metadata().boxed()
    }
}

impl Checked {
    async fn metadata(&mut self) -> Result<Arc<ParquetMetaData>> {
        if let Some(seen) = self.seen.0.get() {
            return Ok(seen.clone());
        }
        let metadata = self.footers.read(&self.object).await?;
        Ok(self.seen.0.get_or_init(|| metadata).clone())
    }

    /// Checks what was read. Returns how many bytes the pages among it may take at a time, about: the
    /// largest of each chunk.
    fn check(
        &mut self,
        metadata: &ParquetMetaData,
        ranges: &[Range<u64>],
        bytes: &[Bytes],
    ) -> Result<u64> {
        let mut whole = 0u64;
        let mut of_chunk: Option<((usize, usize), Needs)> = None;
        for (range, bytes) in ranges.iter().zip(bytes) {
            let Some(place) = self.chunk(metadata, range) else {
                check_others(metadata, range, bytes)?;
                continue;
            };
            let (group, column) = place;
            let chunk = metadata.row_group(group).column(column);
            let pages = (metadata.offset_index())
                .and_then(|index| index.get(group)?.get(column))
                .map_or(&[][..], |pages| pages.page_locations());
            let mut needs = check_chunk(chunk, pages, range.start, bytes, self.allowance)?;
            match of_chunk.take() {
                Some((before, other)) if before == place => needs = needs.with(other),
                Some((_, other)) => whole = whole.saturating_add(other.sum()),
                None => {}
            }
            of_chunk = Some((place, needs));
        }
        Ok(whole.saturating_add(of_chunk.map_or(0, |(_, needs)| needs.sum())))
    }

    /// The chunk that bytes are of. Chunks are read in their order.
    fn chunk(&mut self, metadata: &ParquetMetaData, range: &Range<u64>) -> Option<(usize, usize)> {
        let holds = |(group, column): (usize, usize)| {
            let chunk = metadata.row_groups().get(group)?.columns().get(column)?;
            let extent = extent(chunk)?;
            (extent.start <= range.start && range.end <= extent.end && !extent.is_empty())
                .then_some((group, column))
        };
        let (groups, last) = (metadata.num_row_groups(), self.last);
        let columns = metadata.file_metadata().schema_descr().num_columns();
        let found = holds(last).or_else(|| {
            (0..groups)
                .map(|group| (last.0 + group) % groups)
                .find_map(|group| (0..columns).find_map(|column| holds((group, column))))
        })?;
        self.last = found;
        Some(found)
    }
}

/// Checks what is not of a chunk: bloom filters and page indexes.
fn check_others(metadata: &ParquetMetaData, range: &Range<u64>, bytes: &[u8]) -> Result<()> {
    let start = i64::try_from(range.start).unwrap_or(i64::MAX);
    let mut chunks = metadata.row_groups().iter().flat_map(|group| group.columns());
    if chunks.any(|chunk| chunk.bloom_filter_offset() == Some(start)) {
        return check_bloom_filter(bytes);
    }
    check_indexes(metadata, range.start, bytes).map(drop)
}
