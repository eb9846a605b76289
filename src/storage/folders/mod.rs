//! What is known of external tables' files, table by table: where a listing says that they are what they
//! were, a plan takes them as they stand here, and nothing is done file by file.
//!
//! Each statement still lists the files anew. Of one that has another size, time of change or tag than it had,
//! nothing is known.
//!
//! - [`walk`]: directories of local files, listed.

mod walk;

use std::fmt::{self, Debug, Formatter};
use std::mem::size_of;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::datatypes::{Fields, SchemaRef};
use datafusion::common::Statistics;
use datafusion::common::heap_size::{DFHeapSize, DFHeapSizeCtx};
use datafusion::datasource::listing::{ListingTableUrl, PartitionedFile};
use datafusion::datasource::physical_plan::FileGroup;
use datafusion::error::Result;
use datafusion_datasource::compute_all_files_statistics;
use moka::sync::Cache;
use object_store::ObjectMeta;
use object_store::path::Path;

use super::Roots;
use crate::catalog::External;
use crate::faults::{self, Storage};

/// The files of a place on this machine that are looked at where they are asked for: to hand that to another
/// thread takes ten times as long.
const FEW: usize = 16;

/// How long a place is taken for one on this machine; then another file system may be mounted there.
const NEARBY: Duration = Duration::from_mins(1);

/// The most places that are known to be on this machine.
const MAX_NEARBY: u64 = 10_000;

/// The files of all external tables, as far as there is room.
pub struct Folders {
    roots: Roots,
    known: Cache<Key, Arc<Folder>>,
    max_bytes: u64,
    hits: AtomicU64,
    /// Places whose listing is not worth a thread of its own.
    nearby: Cache<Path, ()>,
}

/// A table, with the columns of its files.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub definition: Arc<External>,
    pub columns: Fields,
}

impl Debug for Folders {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Folders").field("max_bytes", &self.max_bytes).finish_non_exhaustive()
    }
}

impl Folders {
    /// Of local files only those below the roots are listed here.
    pub fn new(max_bytes: u64, roots: Roots) -> Arc<Self> {
        let known = Cache::builder()
            .max_capacity(max_bytes)
            .weigher(|_: &Key, folder: &Arc<Folder>| {
                u32::try_from(folder.memory_size()).unwrap_or(u32::MAX)
            })
            .build();
        let nearby = Cache::builder().max_capacity(MAX_NEARBY).time_to_live(NEARBY).build();
        Arc::new(Self { roots, known, max_bytes, hits: AtomicU64::new(0), nearby })
    }

    /// Tables, the bytes of what is known of their files, the most of these, and how often a table's files
    /// were what they had been.
    pub fn figures(&self) -> ([u64; 3], u64) {
        // It counts when it has time.
        self.known.run_pending_tasks();
        let held = [self.known.entry_count(), self.known.weighted_size(), self.max_bytes];
        (held, self.hits.load(Ordering::Relaxed))
    }

    /// A local file or those of a directory, in any order; `None` if their store has to list them.
    pub(super) async fn list(&self, url: &ListingTableUrl) -> Option<Vec<ObjectMeta>> {
        if url.scheme() != "file" || url.get_glob().is_some() {
            return None;
        }
        // The store knows what becomes of it.
        if faults::storage().is_some_and(Storage::is_in_trouble) {
            return None;
        }
        let (roots, place, is_folder) = (self.roots.clone(), url.prefix().clone(), url.is_folder());
        if self.nearby.contains_key(&place) {
            if let Some(files) = few_listed(&roots, &place, is_folder) {
                return Some(files);
            }
            self.nearby.invalidate(&place);
        }
        let nearby = self.nearby.clone();
        let listed = tokio::task::spawn_blocking(move || {
            if let Some(files) = few_listed(&roots, &place, is_folder) {
                if walk::is_nearby(&place) {
                    nearby.insert(place, ());
                }
                return Some(files);
            }
            let allowed = is_folder && roots.hold(&place);
            allowed.then(|| walk::files_below(&place).ok()).flatten()
        });
        listed.await.ok().flatten()
    }

    pub(super) fn get(&self, table: &Key) -> Option<Arc<Folder>> {
        self.known.get(table)
    }

    pub(super) fn hit(&self) {
        self.hits.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn put(&self, table: Key, folder: Arc<Folder>) {
        self.known.insert(table, folder);
    }
}

/// A file, or those of a directory that has few of them and no directories.
fn few_listed(roots: &Roots, place: &Path, is_folder: bool) -> Option<Vec<ObjectMeta>> {
    if !roots.hold(place) {
        return None;
    }
    match is_folder {
        true => walk::few_files_in(place, FEW).ok(),
        false => walk::file(place).ok().map(|file| vec![file]),
    }
}

/// A table's files, by path. Those that a statement had to look at have statistics.
#[derive(Debug)]
pub(super) struct Folder {
    pub files: Vec<PartitionedFile>,
    sums: Mutex<Option<Sums>>,
}

/// What is known of all files together, in as many groups as a plan has partitions.
#[derive(Clone, Debug)]
struct Sums {
    partitions: usize,
    groups: Vec<Arc<Statistics>>,
    all: Statistics,
}

impl Folder {
    pub fn new(files: Vec<PartitionedFile>) -> Self {
        Self { files, sums: Mutex::default() }
    }

    /// Whether these are its files.
    pub fn is_of<'a>(&self, mut listed: impl Iterator<Item = &'a ObjectMeta>) -> bool {
        self.files.iter().all(|file| listed.next() == Some(&file.object_meta))
            && listed.next().is_none()
    }

    /// Files by their places here, in so many groups, with what is known of each and of all together.
    pub fn groups(
        &self,
        places: &[usize],
        partitions: usize,
        schema: &SchemaRef,
        inexact: bool,
    ) -> Result<(Vec<FileGroup>, Statistics)> {
        let files = places.iter().map(|at| self.files[*at].clone()).collect();
        let groups = FileGroup::new(files).split_files(partitions);
        if places.len() < self.files.len() {
            return compute_all_files_statistics(groups, schema.clone(), true, inexact);
        }
        let mut sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sums) = sums.as_ref().filter(|sums| sums.partitions == partitions) {
            let known = sums.groups.iter().cloned();
            let groups = groups.into_iter().zip(known);
            let groups = groups.map(|(group, known)| group.with_statistics(known)).collect();
            return Ok((groups, sums.all.clone()));
        }
        let (groups, all) = compute_all_files_statistics(groups, schema.clone(), true, false)?;
        let known = groups.iter().filter_map(|group| group.file_statistics(None).cloned());
        let known = known.map(Arc::new).collect();
        *sums = Some(Sums { partitions, groups: known, all: all.clone() });
        Ok((groups, all))
    }

    /// Bytes, about.
    fn memory_size(&self) -> usize {
        let mut context = DFHeapSizeCtx::default();
        let mut bytes = |file: &PartitionedFile| {
            let meta = &file.object_meta;
            let tag = meta.e_tag.as_ref().map_or(0, String::len);
            let values: usize =
                file.partition_values.iter().map(|value| value.size()).sum::<usize>();
            let statistics = file.statistics.as_ref();
            let statistics = statistics.map_or(0, |known| known.heap_size(&mut context));
            size_of::<PartitionedFile>() + meta.location.as_ref().len() + tag + values + statistics
        };
        self.files.iter().map(&mut bytes).sum()
    }
}
