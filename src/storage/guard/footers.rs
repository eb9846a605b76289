//! Metadata of Parquet files: checked, read once, and kept.

use std::fmt::{self, Debug, Formatter};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use datafusion::datasource::physical_plan::parquet::CachedParquetMetaData;
use datafusion::execution::cache::cache_manager::{CachedFileMetadataEntry, FileMetadataCache};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::execution::runtime_env::RuntimeEnv;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use parquet::DecodeResult;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{
    FooterTail, PageIndexPolicy, ParquetMetaData, ParquetMetaDataPushDecoder, ParquetMetaDataReader,
};
use parquet::file::reader::ChunkReader;

use super::metadata::{
    check_chunks, check_footer, check_indexes, check_locations, check_types, index_extent,
};
use super::thrift::damaged;
use crate::storage::error::is_of_range;
use crate::storage::managed::is_of_managed;

/// Bytes at the end of a file that tell where its metadata is.
const TAIL: u64 = 8;

/// Metadata that takes more memory than this while it is read takes it from that of statements.
const SMALL: u64 = 16 << 20;

/// Reads the metadata of a store's files, and keeps it.
#[derive(Clone)]
pub struct Footers {
    pub store: Arc<dyn ObjectStore>,
    pub cache: Arc<FileMetadataCache>,
    pub memory: Arc<dyn MemoryPool>,
    /// Bytes that are read from a file's end at first: reads of remote files take long.
    pub hint: u64,
}

impl Debug for Footers {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Footers").field("store", &self.store).finish_non_exhaustive()
    }
}

/// The end of a file, and where it begins.
type Tail = (u64, Bytes);

impl Footers {
    pub fn new(store: Arc<dyn ObjectStore>, environment: &RuntimeEnv) -> Self {
        Self {
            store,
            cache: environment.cache_manager.get_file_metadata_cache(),
            memory: environment.memory_pool.clone(),
            hint: TAIL,
        }
    }

    pub fn with_hint(self, hint: Option<usize>) -> Self {
        Self { hint: hint.map_or(TAIL, |hint| TAIL.max(hint as u64)), ..self }
    }

    /// A file's metadata, with its page index if it has one.
    ///
    /// # Errors
    /// What keeps the file from being read, and what is wrong with it; neither names it. That memory is
    /// lacking comes as an external error.
    pub async fn read(&self, file: &ObjectMeta) -> Result<Arc<ParquetMetaData>> {
        let known = self.cache.get(&file.location).filter(|known| known.is_valid_for(file));
        let known = known.and_then(|known| {
            let known = known.file_metadata.as_any().downcast_ref::<CachedParquetMetaData>()?;
            Some(known.parquet_metadata().clone())
        });
        if let Some(known) = known {
            return Ok(known);
        }
        let (metadata, tail) = self.read_footer(file).await?;
        let metadata = Arc::new(self.with_index(file, metadata, tail).await?);
        let kept = Arc::new(CachedParquetMetaData::new(metadata.clone()));
        self.cache.put(&file.location, CachedFileMetadataEntry::new(file.clone(), kept));
        Ok(metadata)
    }

    async fn read_footer(&self, file: &ObjectMeta) -> Result<(ParquetMetaData, Tail)> {
        let end = end_of_footer(file.size)?;
        let start = file.size.saturating_sub(self.hint);
        let bytes = self.bytes(file, start..file.size).await?;
        let footer = footer(file.size, &bytes[bytes.len() - TAIL as usize..])?;
        let mut room = self.room(footer.end - footer.start)?;
        let bytes_of_footer = match footer.start.checked_sub(start) {
            Some(begin) => bytes.slice(begin as usize..(end - start) as usize),
            None => self.bytes(file, footer).await?,
        };
        room.more(check_footer(&bytes_of_footer)?)?;
        let metadata = read(|| ParquetMetaDataReader::decode_metadata(&bytes_of_footer))?;
        check_chunks(&metadata, file.size)?;
        read(|| check_types(&metadata))?;
        Ok((metadata, (start, bytes)))
    }

    async fn with_index(
        &self,
        file: &ObjectMeta,
        metadata: ParquetMetaData,
        (start, tail): Tail,
    ) -> Result<ParquetMetaData> {
        let Some(extent) = index_extent(&metadata, file.size)? else { return Ok(metadata) };
        let mut room = self.room(extent.end - extent.start)?;
        let bytes = match extent.start.checked_sub(start) {
            Some(begin) => tail.slice(begin as usize..(extent.end - start) as usize),
            None => self.bytes(file, extent.clone()).await?,
        };
        room.more(check_indexes(&metadata, extent.start, &bytes)?)?;
        let mut decoder = ParquetMetaDataPushDecoder::try_new_with_metadata(file.size, metadata)?
            .with_page_index_policy(PageIndexPolicy::Optional);
        decoder.push_range(extent, bytes)?;
        let DecodeResult::Data(metadata) = read(|| decoder.try_decode())? else {
            return Err(damaged("its page indexes lie where they cannot be"));
        };
        check_locations(&metadata)?;
        Ok(metadata)
    }

    /// Bytes of a file, all that were asked for.
    async fn bytes(&self, file: &ObjectMeta, range: Range<u64>) -> Result<Bytes> {
        let length = range.end - range.start;
        let read = match self.store.get_range(&file.location, range).await {
            Ok(bytes) if bytes.len() as u64 == length => return Ok(bytes),
            Ok(_) => cut_short(),
            Err(error) => ParquetError::External(Box::new(error)),
        };
        Err(self.of_size(file, read).await)
    }

    /// What has failed of a file, or that it has another size than whoever wrote or listed it says: a store
    /// that does not answer is not asked once more.
    pub async fn of_size(&self, file: &ObjectMeta, error: ParquetError) -> ParquetError {
        if !matches!(error, ParquetError::EOF(_)) && !is_of_range(&error) {
            return error;
        }
        let when = match is_of_managed(file.location.as_ref()) {
            true => "written",
            false => "listed",
        };
        match self.store.head(&file.location).await {
            Ok(now) if now.size != file.size => {
                let (now, size) = (now.size, file.size);
                damaged(format!("it has {now} bytes, and had {size} when it was {when}"))
            }
            _ => error,
        }
    }

    fn room(&self, bytes: u64) -> Result<Room> {
        let mut room = Room::new(&self.memory, SMALL);
        room.more(bytes)?;
        Ok(room)
    }
}

/// Memory that is taken from that of statements, as far as it is not little.
#[derive(Debug)]
pub struct Room {
    reservation: MemoryReservation,
    little: u64,
    bytes: u64,
}

impl Room {
    pub fn new(memory: &Arc<dyn MemoryPool>, little: u64) -> Self {
        let consumer = MemoryConsumer::new("large parts of Parquet files");
        Self { reservation: consumer.register(memory), little, bytes: 0 }
    }

    /// Takes so many bytes besides.
    fn more(&mut self, bytes: u64) -> Result<()> {
        self.set(self.bytes.saturating_add(bytes))
    }

    /// Takes so many bytes.
    pub fn set(&mut self, bytes: u64) -> Result<()> {
        self.bytes = bytes;
        let counted = if bytes > self.little { bytes } else { 0 };
        let counted = usize::try_from(counted).unwrap_or(usize::MAX);
        let taken = self.reservation.try_resize(counted);
        taken.map_err(|error| ParquetError::External(Box::new(error)))
    }
}

/// What the reader underneath makes of bytes. It may panic over what makes no sense.
fn read<T>(read: impl FnOnce() -> Result<T>) -> Result<T> {
    let made = catch_unwind(AssertUnwindSafe(read));
    made.unwrap_or_else(|_| Err(damaged("its metadata makes no sense")))
}

/// Of a file that ends before the bytes that it is to have.
pub fn cut_short() -> ParquetError {
    ParquetError::EOF("it is shorter than it was".to_owned())
}

/// Where the metadata of a file of so many bytes ends.
fn end_of_footer(size: u64) -> Result<u64> {
    let end = size.checked_sub(TAIL);
    end.ok_or_else(|| damaged(format!("it has {size} bytes, fewer than any Parquet file")))
}

/// Where a file's metadata is, by its last bytes.
fn footer(size: u64, tail: &[u8]) -> Result<Range<u64>> {
    let tail = FooterTail::try_from(tail)?;
    if tail.is_encrypted_footer() {
        return Err(damaged("its metadata is encrypted, which is not supported"));
    }
    let (end, length) = (end_of_footer(size)?, tail.metadata_length() as u64);
    let start = end.checked_sub(length);
    let start =
        start.ok_or_else(|| damaged(format!("its metadata of {length} bytes is cut off")))?;
    Ok(start..end)
}

/// Checks the metadata of a file that is read without a store: its footer and where its columns lie.
pub fn check_file(file: &impl ChunkReader) -> Result<()> {
    let size = file.len();
    let end = end_of_footer(size)?;
    let footer = footer(size, &file.get_bytes(end, TAIL as usize)?)?;
    let bytes = file.get_bytes(footer.start, (footer.end - footer.start) as usize)?;
    check_footer(&bytes)?;
    let metadata = read(|| ParquetMetaDataReader::decode_metadata(&bytes))?;
    check_chunks(&metadata, size)?;
    read(|| check_types(&metadata))
}

#[cfg(test)]
mod tests {
    use object_store::local::LocalFileSystem;
    use object_store::path::Path;

    use super::*;

    #[tokio::test]
    async fn a_file_that_is_shorter_than_it_was_says_so() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = LocalFileSystem::new_with_prefix(directory.path()).expect("a store");
        let footers = Footers::new(Arc::new(store), &RuntimeEnv::default());
        let table = "t-01890a5dac96774bbcceb302099a8057/data/a.parquet";
        for (name, when) in [("a.parquet", "listed"), (table, "written")] {
            let location = Path::from(name);
            footers.store.put(&location, "PAR1 PAR1".into()).await.expect("it is written");
            let file =
                ObjectMeta { size: 100, ..footers.store.head(&location).await.expect("a file") };
            let error = footers.read(&file).await.expect_err("it is too short").to_string();
            let told = format!("it has 9 bytes, and had 100 when it was {when}");
            assert!(error.contains(&told), "{error}");
        }
        let missing = Path::from("b.parquet");
        let file = ObjectMeta {
            location: missing,
            ..footers.store.head(&Path::from("a.parquet")).await.expect("a file")
        };
        let error = footers.read(&file).await.expect_err("it is not there").to_string();
        assert!(!error.contains("when it was"), "{error}");
    }
}
