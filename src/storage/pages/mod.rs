//! Column chunks of Parquet files, kept in memory without compression: what is read often is neither read
//! from its store again nor decompressed again.
//!
//! A reader of a file shows it as if those of its chunks that are kept had been written without
//! compression, far behind the file's end; what is asked for there comes from memory, and the rest from the
//! file ([`reader`]). Chunks are kept once more bytes of them were read than they have, while there is room;
//! then by how often they are used. Nothing is kept of a file that changed within the last seconds. Their
//! memory is what statements leave of their own: when these take it, chunks go.
//!
//! - [`file`]: what is known of a file, and how it is shown.
//! - [`reader`]: reads a file with what is kept of it.
//! - [`uncompress`]: a chunk without its compression.

mod file;
mod reader;
mod uncompress;

#[cfg(test)]
mod tests;

use std::fmt::{self, Debug, Formatter};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::Utc;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::ParquetAccessPlan;
use moka::notification::RemovalCause;
use moka::sync::Cache;
use object_store::ObjectMeta;
use parquet::file::metadata::ParquetMetaData;
use tokio::task::JoinSet;

use super::contents::is_settled;
use file::{File, MAX_CHUNK, Place};
use reader::Opened;
pub(super) use reader::PagedFactory;
use uncompress::Chunk;

/// The part of the memory that what is known of files may take, besides their chunks.
const FILES_SHARE: u64 = 4;

/// The part of the memory that one chunk may take.
const CHUNK_SHARE: u64 = 4;

/// The part of the memory shared with statements that is freed at a time when they need some, so that
/// not each of their steps has to.
const FREED_SHARE: u64 = 64;

/// Bytes, without compression, of the chunks that are made ready at one time; one alone may have more.
const MAX_PENDING: usize = 64 << 20;

/// The kept chunks of all files.
pub struct PageCache {
    chunks: Cache<ChunkKey, Arc<Chunk>>,
    files: Cache<FileKey, Arc<File>>,
    max_bytes: u64,
    memory: Arc<Memory>,
    next_file: AtomicU64,
    /// Makes chunks ready, on the threads of the statement that read them; it may end before.
    tasks: Mutex<JoinSet<()>>,
    /// Bytes of the chunks that are made ready just now.
    pending: AtomicUsize,
    hits: AtomicU64,
}

/// Bytes that kept chunks and statements have together.
#[derive(Debug)]
struct Memory {
    limit: u64,
    /// What statements have; they may take all of it.
    taken: AtomicU64,
    /// What chunks have.
    kept: AtomicU64,
    /// Held by who frees some.
    freeing: Mutex<()>,
}

impl Memory {
    /// Bytes beyond the limit, if chunks had so many more.
    fn beyond(&self, more: u64) -> u64 {
        let all = self.taken.load(Ordering::Relaxed) + self.kept.load(Ordering::Relaxed) + more;
        all.saturating_sub(self.limit)
    }
}

/// A chunk by its file's number and its place there.
type ChunkKey = (u64, Place);

/// A file with one content.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct FileKey {
    /// URL of its store.
    store: Arc<str>,
    path: object_store::path::Path,
    size: u64,
    /// Nanoseconds since 1970.
    modified: Option<i64>,
    tag: Option<String>,
}

impl FileKey {
    pub fn new(store: &Arc<str>, file: &ObjectMeta) -> Self {
        Self {
            store: store.clone(),
            path: file.location.clone(),
            size: file.size,
            modified: file.last_modified.timestamp_nanos_opt(),
            tag: file.e_tag.clone(),
        }
    }
}

impl Debug for PageCache {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageCache").field("max_bytes", &self.max_bytes).finish_non_exhaustive()
    }
}

impl PageCache {
    /// At most so many bytes of chunks, and as many as are left of a `limit` by statements, whose memory
    /// goes through [`take`](Self::take) and [`give_back`](Self::give_back).
    pub fn new(max_bytes: u64, limit: u64) -> Arc<Self> {
        let memory = Memory {
            limit,
            taken: AtomicU64::new(0),
            kept: AtomicU64::new(0),
            freeing: Mutex::default(),
        };
        let memory = Arc::new(memory);
        let weigh = |_: &ChunkKey, chunk: &Arc<Chunk>| chunk.weight();
        let of_all = memory.clone();
        let forget = move |key: Arc<ChunkKey>, chunk: Arc<Chunk>, cause: RemovalCause| {
            of_all.kept.fetch_sub(chunk.weight().into(), Ordering::Relaxed);
            if cause != RemovalCause::Replaced {
                chunk.forgotten(key.1);
            }
        };
        let chunks = Cache::builder()
            .max_capacity(max_bytes)
            .weigher(weigh)
            .eviction_listener(forget)
            .build();
        let of_file: Cache<ChunkKey, Arc<Chunk>> = chunks.clone();
        let close = move |_: Arc<FileKey>, file: Arc<File>, _: RemovalCause| {
            file.close().into_iter().for_each(|place| of_file.invalidate(&(file.number(), place)));
        };
        let files = Cache::builder()
            .max_capacity(max_bytes / FILES_SHARE)
            .weigher(|_: &FileKey, file: &Arc<File>| file.weight())
            .eviction_listener(close)
            .build();
        Arc::new(Self {
            chunks,
            files,
            max_bytes,
            memory,
            next_file: AtomicU64::new(0),
            tasks: Mutex::default(),
            pending: AtomicUsize::new(0),
            hits: AtomicU64::new(0),
        })
    }

    /// Chunks, their bytes, the most of these, and how often one was read.
    pub fn figures(&self) -> ([u64; 3], u64) {
        // It counts when it has time.
        self.chunks.run_pending_tasks();
        let held = [self.chunks.entry_count(), self.chunks.weighted_size(), self.max_bytes];
        (held, self.hits.load(Ordering::Relaxed))
    }

    /// Statements have so many bytes more of the memory that they share with chunks, which are dropped as
    /// far as they stand in the way.
    pub fn take(&self, bytes: usize) {
        self.memory.taken.fetch_add(bytes as u64, Ordering::Relaxed);
        let beyond = self.memory.beyond(0);
        if beyond > 0 {
            self.free(beyond);
        }
    }

    /// Statements have so many bytes less.
    pub fn give_back(&self, bytes: usize) {
        self.memory.taken.fetch_sub(bytes as u64, Ordering::Relaxed);
    }

    /// Drops chunks that have so many bytes, and some more, whichever these are: as soon as statements leave
    /// enough, those that are used most are there again. Whoever comes while another does so leaves it to
    /// that one.
    fn free(&self, bytes: u64) {
        let Ok(_freeing) = self.memory.freeing.try_lock() else { return };
        let mut left = bytes + self.memory.limit / FREED_SHARE;
        let chunks = self.chunks.iter().take_while(|(_, chunk)| {
            let more = left > 0;
            left = left.saturating_sub(chunk.weight().into());
            more
        });
        let keys: Vec<_> = chunks.map(|(key, _)| *key).collect();
        keys.iter().for_each(|key| self.chunks.invalidate(key));
    }

    /// A file, or a part of it, that is about to be scanned. A part is one by row groups from now on, where
    /// it was one by bytes: their places are others in a file that is shown with kept chunks.
    pub(super) fn opening(&self, store: &Arc<str>, part: PartitionedFile) -> PartitionedFile {
        let part = part.with_extension(Opened::default());
        let Some(range) = &part.range else { return part };
        let Some(file) = self.files.get(&FileKey::new(store, &part.object_meta)) else {
            return part;
        };
        if part.extensions.get::<ParquetAccessPlan>().is_some() {
            return part;
        }
        let plan = file.access_plan(range.start, range.end);
        let mut part = part.with_extension(plan);
        part.range = None;
        part
    }

    /// What is known of a file; `None` if nothing can be kept of it.
    fn file(
        &self,
        store: &Arc<str>,
        file: &ObjectMeta,
        metadata: &Arc<ParquetMetaData>,
    ) -> Option<Arc<File>> {
        let key = FileKey::new(store, file);
        if let Some(known) = self.files.get(&key) {
            return known.is_of(metadata).then_some(known);
        }
        if !is_settled(file, Utc::now()) {
            return None;
        }
        let number = self.next_file.fetch_add(1, Ordering::Relaxed);
        let made = Arc::new(File::new(number, metadata)?);
        let known = self.files.get_with(key, || made);
        known.is_of(metadata).then_some(known)
    }

    /// Whether a chunk of so many bytes can be kept.
    fn fits(&self, bytes: usize) -> bool {
        bytes < self.largest()
    }

    /// Whether statements leave so much at the moment.
    fn is_left(&self, bytes: usize) -> bool {
        self.memory.taken.load(Ordering::Relaxed) + bytes as u64 <= self.memory.limit
    }

    /// Bytes of a chunk that cannot be kept any more.
    fn largest(&self) -> usize {
        let most = usize::try_from(self.max_bytes / CHUNK_SHARE).unwrap_or(usize::MAX);
        most.saturating_add(1).min(MAX_CHUNK)
    }

    /// Keeps a chunk, if it is used more than those that would have to go.
    fn keep(&self, file: &Arc<File>, place: Place, chunk: Chunk) {
        // Statements may have taken memory meanwhile.
        if file.is_closed() || !self.is_left(chunk.bytes.len()) {
            return;
        }
        let beyond = self.memory.beyond(chunk.weight().into());
        if beyond > 0 {
            self.free(beyond);
        }
        self.memory.kept.fetch_add(chunk.weight().into(), Ordering::Relaxed);
        let chunk = Arc::new(chunk);
        // First there, since it may have to go at once.
        file.keep(place, chunk.clone());
        self.chunks.insert((file.number(), place), chunk);
    }

    /// Counts the use of a kept chunk.
    fn used(&self, file: &File, place: Place) {
        self.hits.fetch_add(1, Ordering::Relaxed);
        self.chunks.get(&(file.number(), place));
    }

    /// Begins to make a chunk ready.
    fn work(&self, job: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(job);
    }

    /// Room for a chunk that is made ready; given back when the guard is dropped.
    fn room(self: &Arc<Self>, bytes: usize) -> Option<Room> {
        let pending = self.pending.fetch_add(bytes, Ordering::Relaxed);
        let room = Room { cache: self.clone(), bytes };
        (pending == 0 || pending + bytes <= MAX_PENDING).then_some(room)
    }
}

struct Room {
    cache: Arc<PageCache>,
    bytes: usize,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.cache.pending.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
