//! What a statement reads, as one state: of a commit over several tables it sees all or nothing.
//!
//! Tables are looked up one by one while the daemon's copy of the catalog goes on changing. Afterwards it
//! is looked at whether they belong together ([`catalog::older`]); if not, the statement is planned anew. A
//! table that is changed, or that the block has read before, stays as it was found: then it is a conflict.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use super::Result;
use super::session::Session;
use crate::catalog::{self, Snapshot, Table};
use crate::storage;

/// How often a statement is planned before it is given up. Each time, commits over the same tables must
/// have come between its look-ups.
const MAX_LOOKS: usize = 100;

/// Tables by object identifier.
type Tables = BTreeMap<u32, Arc<Table>>;

/// The tables that a statement has found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The one that it changes, whose state is settled before it is planned.
    target: Option<Arc<Table>>,
    looked_up: Mutex<LookedUp>,
}

#[derive(Debug, Default)]
struct LookedUp {
    tables: Tables,
    /// Those that the block has changed.
    own: Vec<Arc<Table>>,
    /// One that was found twice, in two states.
    twice: Option<Arc<Table>>,
}

impl Found {
    /// Those beside a table that is changed; a block's own state of it is the only one there is.
    pub fn beside(target: Arc<Table>) -> Self {
        Self { target: Some(target).filter(is_known), looked_up: Mutex::default() }
    }

    /// Notes a table that was looked up.
    pub fn note(&self, table: &Arc<Table>) {
        let mut known = self.looked_up.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_known(table) {
            known.own.push(table.clone());
            return;
        }
        let before = known.tables.insert(table.record.oid, table.clone());
        if before.is_some_and(|before| before.stat.mzxid != table.stat.mzxid) {
            known.twice = Some(table.clone());
        }
    }

    /// All tables that were looked up.
    pub fn tables(&self) -> Vec<Arc<Table>> {
        let LookedUp { tables, own, .. } = self.take();
        tables.into_values().chain(own).collect()
    }

    fn take(&self) -> LookedUp {
        std::mem::take(&mut self.looked_up.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether the store knows a state of a table: others are a transaction block's own.
fn is_known(table: &Arc<Table>) -> bool {
    table.stat.mzxid >= 0
}

impl Session {
    /// Plans a statement, again until all tables that it has found belong together.
    ///
    /// # Errors
    /// A conflict if they cannot, whatever is looked up.
    pub(super) async fn together<T, F: Future<Output = Result<T>>>(
        &self,
        found: &Found,
        plan: impl Fn() -> F,
    ) -> Result<T> {
        let staged = &self.info().staged;
        let held = staged.held_tables();
        let settled: Tables = held
            .iter()
            .chain(&found.target)
            .map(|table| (table.record.oid, table.clone()))
            .collect();
        for look in 1.. {
            drop(found.take());
            let planned = plan().await?;
            let LookedUp { mut tables, mut twice, .. } = found.take();
            for (oid, table) in &settled {
                match tables.entry(*oid) {
                    Entry::Vacant(place) => drop(place.insert(table.clone())),
                    Entry::Occupied(other) if other.get().stat.mzxid != table.stat.mzxid => {
                        twice = Some(table.clone());
                    }
                    Entry::Occupied(_) => {}
                }
            }
            let now = self.info().catalog.snapshot();
            let older = || catalog::older(&tables, &now).find(|table| !is_newest(table, &now));
            let Some(older) = twice.as_ref().or_else(older) else { return Ok(planned) };
            if look == MAX_LOOKS || settled.contains_key(&older.record.oid) {
                let table = older.name.table.clone();
                return Err(storage::Error::Conflict { table }.into());
            }
            staged.hold_only(&held);
        }
        unreachable!("the last look has returned")
    }
}

/// Whether a state of a table is the latest to be had, although others ask for a later one: an older
/// daemon has not counted its commits. One that has gone is not to be had.
fn is_newest(table: &Table, now: &Snapshot) -> bool {
    now.table(&table.name)
        .is_some_and(|now| now.record.oid == table.record.oid && now.stat.mzxid == table.stat.mzxid)
}
