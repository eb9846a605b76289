//! Tables as a transaction block has made them: its own statements see them, nobody else does until
//! it commits.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::catalog::{Table, TableName};
use crate::storage::managed::{Change, Commit};

/// One session's own tables.
#[derive(Debug, Default)]
pub struct StagedTables {
    tables: Mutex<Tables>,
    /// Grows with each change: what was planned before is planned anew.
    generation: AtomicU64,
}

/// What a block has written so far, by table.
#[derive(Clone, Debug, Default)]
pub struct Tables(BTreeMap<TableName, StagedTable>);

/// A table with changes that are not committed.
#[derive(Clone, Debug)]
pub struct StagedTable {
    /// What was changed, and how.
    pub commit: Commit,
    /// What became of it.
    pub now: Arc<Table>,
    /// Files that describe that state, which only this block names.
    pub written: Vec<String>,
}

impl StagedTables {
    /// The table as the block has made it, if it has.
    pub fn get(&self, name: &TableName) -> Option<Arc<Table>> {
        self.lock().0.get(name).map(|staged| staged.now.clone())
    }

    pub fn is_empty(&self) -> bool {
        self.lock().0.is_empty()
    }

    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Keeps a change of a table that is `now` this.
    pub fn add(&self, commit: Commit, now: Arc<Table>, written: Vec<String>) {
        let mut tables = self.lock();
        match tables.0.get_mut(&now.name) {
            Some(staged) => {
                staged.commit.changes.extend(commit.changes);
                staged.written.extend(written);
                staged.now = now;
            }
            None => {
                tables.0.insert(now.name.clone(), StagedTable { commit, now, written });
            }
        }
        self.generation.fetch_add(1, Ordering::Relaxed);
    }

    /// All that was changed so far: what a savepoint returns to.
    pub fn tables(&self) -> Tables {
        self.lock().clone()
    }

    /// Goes back to an earlier state, or to none; what was changed until now.
    pub fn replace(&self, tables: Tables) -> Tables {
        self.generation.fetch_add(1, Ordering::Relaxed);
        std::mem::replace(&mut *self.lock(), tables)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn commits(&self) -> Vec<Commit> {
        self.0.values().map(|staged| staged.commit.clone()).collect()
    }

    /// Files that only the block names: those that describe its states, and with `data` those that
    /// hold its rows.
    pub fn files(&self, data: bool) -> Vec<String> {
        let rows = |staged: &StagedTable| -> Vec<String> {
            let added = staged.commit.changes.iter().flat_map(Change::added);
            added.map(|file| file.file_path().to_owned()).collect()
        };
        (self.0.values())
            .flat_map(|staged| {
                let rows = if data { rows(staged) } else { Vec::new() };
                staged.written.iter().cloned().chain(rows)
            })
            .collect()
    }
}

/// The identity of a state that no store knows: different from all that one does.
pub fn unique_version() -> i64 {
    static NEXT: AtomicI64 = AtomicI64::new(-2);
    NEXT.fetch_sub(1, Ordering::Relaxed)
}
