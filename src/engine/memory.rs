//! The limits that all statements share: memory, and disk for what does not fit into it.

use std::fmt::{self, Display, Formatter};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use datafusion::error::{DataFusionError, Result as EngineResult};
use datafusion::execution::cache::cache_manager::CacheManagerConfig;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{
    FairSpillPool, MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation, TrackConsumersPool,
};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};

use serde::{Deserialize, Serialize};

use super::{Error, Result};
use crate::config::{self, Share, Size};
use crate::storage::{PageCache, Roots, Stores};

/// How many of the greatest users of memory an error names.
const NAMED_CONSUMERS: NonZeroUsize = NonZeroUsize::new(3).expect("three is not zero");

/// The places on disks and object stores that statements may use.
#[derive(Clone, Debug)]
pub struct Places {
    /// For what does not fit into memory.
    pub spill: PathBuf,
    /// For the files of tables.
    pub roots: Roots,
}

/// Bytes that all statements together may use.
pub fn limit(share: Share) -> u64 {
    match share {
        Share::Bytes(bytes) => bytes,
        Share::Percent(percent) => {
            (available() / 100 * u64::from(percent)).max(config::LEAST_MEMORY)
        }
    }
}

/// Bytes for what is known of files, apart from those of [`limit`]: half of them are for footers, a quarter for
/// the metadata of managed tables, an eighth each for statistics and for the files of external tables. The
/// tables that are kept ready to scan hold metadata of their own, at most as much again.
pub fn metadata_limit(config: &config::Engine) -> u64 {
    let bytes = part_of(config.metadata_cache, statements_limit(config));
    match config.metadata_cache {
        Share::Bytes(_) => bytes,
        Share::Percent(_) => bytes.max(LEAST_METADATA),
    }
}

/// Bytes that a share of the memory has room for at least: what is larger than its cache is never kept.
const LEAST_METADATA: u64 = 32 << 20;

fn statements_limit(config: &config::Engine) -> usize {
    usize::try_from(limit(config.memory_limit)).unwrap_or(usize::MAX)
}

/// Bytes that the kept pages of files may use, of those that statements leave.
pub(super) fn pages_limit(config: &config::Engine) -> u64 {
    part_of(config.page_cache, statements_limit(config))
}

/// Bytes that may be taken by what is known of external tables' files as a whole: as many as by the
/// statistics of single ones.
pub(super) fn folders_limit(config: &config::Engine) -> u64 {
    metadata_limit(config) / 8
}

/// Bytes for the metadata of managed tables.
pub(super) fn managed_limit(config: &config::Engine) -> u64 {
    metadata_limit(config) / 4
}

/// The machine's memory, or what the control group leaves of it.
fn available() -> u64 {
    let machine = rustix::system::sysinfo();
    let machine = machine.totalram as u64 * u64::from(machine.mem_unit);
    [group_limit_v2(), group_limit_v1()].into_iter().flatten().fold(machine, u64::min)
}

/// The least limit on the way from this process's group to the root (cgroup v2).
fn group_limit_v2() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let mut directory = PathBuf::from(format!("/sys/fs/cgroup{group}"));
    let mut least = None;
    while directory.starts_with("/sys/fs/cgroup") {
        let text = std::fs::read_to_string(directory.join("memory.max")).unwrap_or_default();
        let limit: Option<u64> = text.trim().parse().ok();
        least = [least, limit].into_iter().flatten().min();
        directory.pop();
    }
    least
}

fn group_limit_v1() -> Option<u64> {
    let text = std::fs::read_to_string("/sys/fs/cgroup/memory/memory.limit_in_bytes").ok()?;
    text.trim().parse().ok()
}

/// The memory that one statement may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    pub bytes: u64,
    /// What statement this is, for people.
    statement: String,
}

impl Bound {
    /// For a statement that is in a pool.
    pub fn of_pool(bytes: u64, pool: &str) -> Self {
        Self { bytes, statement: format!("a statement of pool \"{pool}\"") }
    }

    /// For what another daemon has run here.
    pub(super) fn of_guest(bytes: u64) -> Self {
        Self { bytes, statement: "a statement of another daemon".to_owned() }
    }

    /// What a statement runs with that takes its memory from what all share, but no more than this.
    pub(super) fn of(self, shared: &RuntimeEnv) -> Arc<RuntimeEnv> {
        let pool = Bounded {
            own: FairSpillPool::new(usize::try_from(self.bytes).unwrap_or(usize::MAX)),
            shared: shared.memory_pool.clone(),
            bound: self,
        };
        Arc::new(RuntimeEnv { memory_pool: Arc::new(pool), ..shared.clone() })
    }
}

/// What a statement is held to that runs with this.
pub(super) fn bound_of(environment: &RuntimeEnv) -> Option<&Bound> {
    environment.memory_pool.downcast_ref::<Bounded>().map(|pool| &pool.bound)
}

/// A join finds the rows of its kept side at their keys' places in an array, which is quicker than a hash
/// table, if of the whole numbers between the least and the greatest key so large a part is there: the array
/// has four bytes for each of these, 200 for each row. TPC-H's orders of one year are 0.036.
const DENSE: f64 = 0.02;

/// DataFusion's own, for where memory is short: there is no way back to a hash table.
const CAREFULLY_DENSE: f64 = 0.15;

/// From here on bytes are many enough for [`DENSE`].
const MUCH_MEMORY: f64 = (8_u64 << 30) as f64;

/// How dense keys have to be for an array in a statement that may use so many bytes.
pub(super) fn density(bytes: u64) -> f64 {
    (DENSE * MUCH_MEMORY / bytes as f64).clamp(DENSE, CAREFULLY_DENSE)
}

/// Bytes that are a share of others.
pub(super) fn part_of(share: Share, whole: usize) -> u64 {
    let whole = u64::try_from(whole).unwrap_or(u64::MAX);
    match share {
        Share::Bytes(bytes) => bytes.min(whole),
        Share::Percent(percent) => whole / 100 * u64::from(percent),
    }
}

/// A statement's part of the memory that all share.
#[derive(Debug)]
struct Bounded {
    bound: Bound,
    own: FairSpillPool,
    shared: Arc<dyn MemoryPool>,
}

impl Display for Bounded {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", Size(self.bound.bytes), self.shared)
    }
}

impl MemoryPool for Bounded {
    fn name(&self) -> &str {
        "bounded"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.own.register(consumer);
        self.shared.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.own.unregister(consumer);
        self.shared.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.own.grow(reservation, additional);
        self.shared.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.own.shrink(reservation, shrink);
        self.shared.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> EngineResult<()> {
        self.own.try_grow(reservation, additional).map_err(|error| {
            let Bound { bytes, statement } = &self.bound;
            let (bytes, reason) = (Size(*bytes), error.message());
            // Operators that can spill do so after this kind of error.
            DataFusionError::ResourcesExhausted(format!("{statement} may use {bytes}: {reason}"))
        })?;
        self.shared
            .try_grow(reservation, additional)
            .inspect_err(|_| self.own.shrink(reservation, additional))
    }

    fn reserved(&self) -> usize {
        self.own.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.own.memory_limit()
    }
}

/// The memory of all statements, of which kept pages of files have what these leave.
#[derive(Debug)]
struct Yielding {
    statements: FairSpillPool,
    pages: Arc<PageCache>,
}

impl Display for Yielding {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.statements.fmt(f)
    }
}

impl MemoryPool for Yielding {
    fn name(&self) -> &str {
        self.statements.name()
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.statements.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.statements.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.statements.grow(reservation, additional);
        self.pages.take(additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.statements.shrink(reservation, shrink);
        self.pages.give_back(shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> EngineResult<()> {
        self.statements.try_grow(reservation, additional)?;
        self.pages.take(additional);
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.statements.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.statements.memory_limit()
    }
}

/// Bytes for files' footers, and for their statistics.
fn caches(config: &config::Engine) -> (usize, usize) {
    let all = usize::try_from(metadata_limit(config)).unwrap_or(usize::MAX);
    (all / 2, all / 8)
}

/// Has room for so much of files' metadata from now on.
pub(super) fn change_caches(environment: &RuntimeEnv, config: &config::Engine) {
    let (footers, statistics) = caches(config);
    let manager = &environment.cache_manager;
    manager.get_file_metadata_cache().update_cache_limit(footers);
    if let Some(cache) = manager.get_file_statistic_cache() {
        cache.update_cache_limit(statistics);
    }
}

/// Memory pool, disk manager and caches, shared by all sessions. Spill files of an earlier process
/// are removed: the directory is below the locked data directory, so nobody else uses them.
pub(super) fn environment(
    config: &config::Engine,
    places: &Places,
    pages: Arc<PageCache>,
) -> Result<Arc<RuntimeEnv>> {
    let failed = |error: std::io::Error| {
        let directory = places.spill.display();
        Error::Start(format!("cannot prepare the spill directory {directory}: {error}"))
    };
    if places.spill.exists() {
        std::fs::remove_dir_all(&places.spill).map_err(failed)?;
    }
    std::fs::create_dir_all(&places.spill).map_err(failed)?;
    let pool = Yielding { statements: FairSpillPool::new(statements_limit(config)), pages };
    let pool = TrackConsumersPool::new(pool, NAMED_CONSUMERS);
    let disk = DiskManagerBuilder::default()
        .with_mode(DiskManagerMode::Directories(vec![places.spill.clone()]))
        .with_max_temp_directory_size(config.spill_limit.0);
    // Listing is how changed files are noticed, so it is not cached; what is cached is checked
    // against the listing.
    let (footers, statistics) = caches(config);
    let manager = CacheManagerConfig::default()
        .with_list_files_cache_limit(0)
        .with_file_statistics_cache_limit(statistics)
        .with_metadata_cache_limit(footers);
    RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(pool))
        .with_disk_manager_builder(disk)
        .with_cache_manager(manager)
        .with_object_store_registry(Arc::new(Stores::new(&places.roots)))
        .build_arc()
        .map_err(Error::Execution)
}
