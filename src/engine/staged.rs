//! Tables as a transaction block sees them: those that it has made, which nobody else sees until it
//! commits, and, at REPEATABLE READ and SERIALIZABLE, all others as it has first read them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::common::TableReference;
use iceberg::spec::TableMetadata;
use sqlparser::ast::ObjectName;

use super::planner::Scope;
use super::{Error, Result, Session, as_of, parse_one};
use crate::catalog::{self, Consistency, Definition, Table, TableName};
use crate::storage;
use crate::storage::managed::{self, Change, Commit, field_id};

/// One session's own tables.
#[derive(Debug, Default)]
pub struct StagedTables {
    tables: Mutex<Tables>,
    /// Those that the block has read, if it is to see them like this until it ends.
    held: Mutex<Option<BTreeMap<TableName, Held>>>,
    /// Those that COMMIT is to find as they are here.
    locked: Mutex<Locked>,
    /// Grows with each change: what was planned before is planned anew.
    generation: AtomicU64,
}

/// Tables as they were when they were locked.
pub type Locked = BTreeMap<TableName, Arc<Table>>;

/// A managed table at one snapshot.
pub type Held = (Arc<Table>, Arc<TableMetadata>);

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

    /// Holds tables from now on as they are first read, or no longer.
    pub fn hold(&self, on: bool) {
        let mut held = self.lock_held();
        if held.is_some() != on {
            *held = on.then(BTreeMap::new);
            self.generation.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn is_holding(&self) -> bool {
        self.lock_held().is_some()
    }

    /// A table as the block has first read it.
    fn held(&self, table: &Table) -> Option<Held> {
        let held = self.lock_held().as_ref()?.get(&table.name).cloned();
        held.filter(|(held, _)| held.record.oid == table.record.oid)
    }

    fn keep(&self, table: &Held) {
        if let Some(held) = self.lock_held().as_mut() {
            held.insert(table.0.name.clone(), table.clone());
        }
    }

    /// All tables that the block has read, as it has first read them.
    pub fn held_tables(&self) -> Vec<Arc<Table>> {
        let held = self.lock_held();
        held.iter().flat_map(|held| held.values()).map(|(table, _)| table.clone()).collect()
    }

    /// Forgets that it has read others.
    pub fn hold_only(&self, tables: &[Arc<Table>]) {
        if let Some(held) = self.lock_held().as_mut() {
            held.retain(|name, _| tables.iter().any(|table| table.name == *name));
        }
    }

    /// All states of a table that the block depends on, apart from its own changes.
    fn relied_on(&self, name: &TableName) -> Vec<Arc<Table>> {
        let base = self.lock().0.get(name).map(|staged| staged.commit.table.clone());
        let held = self
            .lock_held()
            .as_ref()
            .and_then(|held| held.get(name))
            .map(|(table, _)| table.clone());
        let locked = self.lock_locked().get(name).cloned();
        [base, held, locked].into_iter().flatten().collect()
    }

    /// Has COMMIT find a table as it is here.
    fn lock_table(&self, table: Arc<Table>) {
        self.lock_locked().insert(table.name.clone(), table);
    }

    /// All that is locked: what a savepoint returns to.
    pub fn locked(&self) -> Locked {
        self.lock_locked().clone()
    }

    /// Lets go what was locked since then.
    pub fn lock_only(&self, locked: Locked) {
        *self.lock_locked() = locked;
    }

    /// Nothing is locked any more; what was.
    pub fn unlock(&self) -> Vec<Arc<Table>> {
        std::mem::take(&mut *self.lock_locked()).into_values().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_held(&self) -> std::sync::MutexGuard<'_, Option<BTreeMap<TableName, Held>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_locked(&self) -> std::sync::MutexGuard<'_, Locked> {
        self.locked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    /// Has the block's COMMIT fail if tables are changed by then: those of these names, and those that
    /// views of these names read.
    ///
    /// # Errors
    /// A conflict if one has been changed since the block has read it or written to it.
    pub async fn lock(&self, names: &[ObjectName]) -> Result<()> {
        let scope = self.scope();
        for name in names {
            let parsed = parse_one(&format!("SELECT 1 FROM {name}"))?;
            let references = self.state().resolve_table_references(&parsed.statement);
            for reference in references.map_err(Error::planning)? {
                self.refresh(&scope, &reference).await?;
                if as_of::numbered(reference.table()).is_some() {
                    return Err(Error::not_supported("a lock on a table as it was"));
                }
                self.resolve(&scope, &reference, 0).await?;
            }
        }
        for table in scope.found.tables() {
            match table.record.definition {
                Definition::Managed(_) => self.lock_table(&table).await?,
                // What it reads has been found as well.
                Definition::View { .. } => {}
                Definition::External(_) => {
                    let name = &table.name.table;
                    let what = format!("a lock on \"{name}\", whose files others may change,");
                    return Err(Error::not_supported(&what));
                }
            }
        }
        Ok(())
    }

    /// Learns what others have done by now with a table: a lock on what it was would be in vain.
    async fn refresh(&self, scope: &Scope, reference: &TableReference) -> Result<()> {
        for name in self.candidates(scope, reference) {
            match self.info().catalog.table(&name, Consistency::Strong).await {
                Ok(_) | Err(catalog::Error::NotFound { .. }) => {}
                Err(error) => return Err(error.of_reading().into()),
            }
        }
        Ok(())
    }

    async fn lock_table(&self, table: &Table) -> Result<()> {
        let staged = &self.info().staged;
        let now = self.info().catalog.table(&table.name, Consistency::Strong).await;
        let now = now.map_err(catalog::Error::of_reading)?;
        let is_now = |seen: &Arc<Table>| {
            seen.record.oid == now.record.oid && seen.stat.mzxid == now.stat.mzxid
        };
        if !staged.relied_on(&table.name).iter().all(is_now) {
            return Err(storage::Error::Conflict { table: table.name.table.clone() }.into());
        }
        staged.lock_table(now);
        Ok(())
    }

    /// A table as this session sees it: as its block has made it, or as it has first read it.
    pub(super) async fn as_seen(&self, table: Arc<Table>) -> Result<Arc<Table>> {
        let staged = &self.info().staged;
        let own = staged.get(&table.name).filter(|own| own.record.oid == table.record.oid);
        let is_managed = matches!(table.record.definition, Definition::Managed(_));
        let seen = match own {
            Some(own) => own,
            None if !staged.is_holding() || !is_managed => return Ok(table),
            None => self.held(&table).await?.0,
        };
        // Rights are those of now, and go by the names of columns.
        match has_same_columns(&table, &seen) {
            true => Ok(seen),
            false => Err(storage::Error::Conflict { table: table.name.table.clone() }.into()),
        }
    }

    /// The same table with its metadata.
    pub(super) async fn metadata_of(&self, table: &Arc<Table>) -> Result<Held> {
        let seen = self.as_seen(table.clone()).await?;
        match self.info().staged.held(&seen) {
            Some(held) if held.0.stat.mzxid == seen.stat.mzxid => Ok(held),
            _ => self.current(seen).await,
        }
    }

    async fn held(&self, table: &Arc<Table>) -> Result<Held> {
        let staged = &self.info().staged;
        if let Some(held) = staged.held(table) {
            return Ok(held);
        }
        let held = self.current(table.clone()).await?;
        staged.keep(&held);
        Ok(held)
    }

    async fn current(&self, table: Arc<Table>) -> Result<Held> {
        Ok(managed::current(self.engine().files(), &self.info().catalog, table).await?)
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

/// Whether the names of a table's columns mean the same in another of its states.
fn has_same_columns(table: &Table, other: &Table) -> bool {
    let columns = |table: &Table| -> Vec<(String, Option<i32>)> {
        let columns = table.record.columns.iter();
        columns.map(|column| (column.name.clone(), field_id(&column.field()))).collect()
    };
    columns(table) == columns(other)
}

/// The identity of a state that no store knows: different from all that one does.
pub fn unique_version() -> i64 {
    static NEXT: AtomicI64 = AtomicI64::new(-2);
    NEXT.fetch_sub(1, Ordering::Relaxed)
}
