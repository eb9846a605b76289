//! What is kept in memory so that it need not be read or computed again, as it is shown.

use std::sync::Arc;

use datafusion::execution::cache::{Cache, CacheKey, CacheValue};
use datafusion::execution::runtime_env::RuntimeEnv;

use super::ResultCache;
use crate::storage::managed::TableFiles;
use crate::storage::{Folders, LookUps, PageCache};

/// The caches of a daemon, apart from those of its [`RuntimeEnv`].
#[derive(Clone, Debug)]
pub struct Kept {
    pub files: Arc<TableFiles>,
    pub pages: Arc<PageCache>,
    pub look_ups: Arc<LookUps>,
    pub folders: Arc<Folders>,
    pub results: Arc<ResultCache>,
}

/// What one of them holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheFigures {
    pub name: &'static str,
    pub entries: u64,
    pub bytes: u64,
    /// The most bytes.
    pub limit: u64,
    /// How often something was found, as far as that is counted.
    pub hits: Option<u64>,
    /// Whether hits of what is no longer there count, too.
    pub hits_last: bool,
    /// How often nothing was found, as far as that is counted.
    pub misses: Option<u64>,
}

impl Kept {
    pub fn figures(&self, environment: &RuntimeEnv) -> Vec<CacheFigures> {
        let manager = &environment.cache_manager;
        let footers = manager.get_file_metadata_cache();
        let mut found = vec![of_engine("parquet_footers", footers.as_ref())];
        if let Some(statistics) = manager.get_file_statistic_cache() {
            found.push(of_engine("file_statistics", statistics.as_ref()));
        }
        let own = [
            ("external_files", self.folders.figures(), None),
            ("parquet_pages", self.pages.figures(), None),
            ("look_ups", self.look_ups.figures(), None),
            ("results", self.results.figures(), Some(self.results.misses())),
        ];
        found.extend(own.map(|(name, ([entries, bytes, limit], hits), misses)| CacheFigures {
            hits: Some(hits),
            hits_last: true,
            misses,
            ..CacheFigures::new(name, [entries, bytes, limit])
        }));
        let described = self.files.caches().into_iter();
        found.extend(described.map(|(name, figures)| CacheFigures::new(name, figures)));
        found
    }
}

impl CacheFigures {
    fn new(name: &'static str, [entries, bytes, limit]: [u64; 3]) -> Self {
        Self { name, entries, bytes, limit, hits: None, hits_last: false, misses: None }
    }
}

fn of_engine<K, V>(name: &'static str, cache: &dyn Cache<K, V>) -> CacheFigures
where
    K: CacheKey,
    V: CacheValue,
{
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let entries = cache.list_entries();
    let bytes = entries.values().map(|entry| count(entry.size_bytes)).sum();
    let hits = entries.values().map(|entry| count(entry.hits)).sum();
    let figures = [count(entries.len()), bytes, count(cache.cache_limit())];
    CacheFigures { hits: Some(hits), ..CacheFigures::new(name, figures) }
}
