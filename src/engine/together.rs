//! What a statement reads, as one state: of a commit over several tables it sees all or nothing.
//!
//! Tables are looked up one by one while the daemon's copy of the catalog goes on changing. Afterwards it
//! is looked at whether they belong together ([`catalog::older`]); if not, the statement is planned anew.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::Result;
use super::session::Session;
use crate::catalog::{self, Table};
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
    /// One that was found twice, in two states.
    twice: Option<Arc<Table>>,
}

impl Found {
    /// Those beside a table that is changed.
    pub fn beside(target: Arc<Table>) -> Self {
        Self { target: Some(target), looked_up: Mutex::default() }
    }

    /// Notes a table that was looked up. A state that no store knows is a transaction block's own: there
    /// is no other to be had.
    pub fn note(&self, table: &Arc<Table>) {
        if table.stat.mzxid < 0 {
            return;
        }
        let mut known = self.looked_up.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.tables.insert(table.record.oid, table.clone());
        if before.is_some_and(|before| before.stat.mzxid != table.stat.mzxid) {
            known.twice = Some(table.clone());
        }
    }

    fn take(&self) -> LookedUp {
        std::mem::take(&mut self.looked_up.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Session {
    /// Plans a statement, again until all tables that it has found belong together.
    pub(super) async fn together<T, F: Future<Output = Result<T>>>(
        &self,
        found: &Found,
        plan: impl Fn() -> F,
    ) -> Result<T> {
        let staged = &self.info().staged;
        let held = staged.held_tables();
        let mut last = Vec::new();
        for look in 1.. {
            drop(found.take());
            let planned = plan().await?;
            let LookedUp { mut tables, twice } = found.take();
            let looked_up: Vec<_> =
                tables.iter().map(|(oid, table)| (*oid, table.stat.mzxid)).collect();
            for settled in held.iter().chain(&found.target) {
                tables.entry(settled.record.oid).or_insert_with(|| settled.clone());
            }
            let Some(older) = twice.as_ref().or_else(|| catalog::older(&tables)) else {
                return Ok(planned);
            };
            let settled = tables.len() > looked_up.len() || !held.is_empty();
            match looked_up == last {
                // Nothing newer is to be had: an older daemon has not counted its commits.
                true if !settled => return Ok(planned),
                false if look < MAX_LOOKS => {}
                _ => {
                    let table = older.name.table.clone();
                    return Err(storage::Error::Conflict { table }.into());
                }
            }
            last = looked_up;
            staged.hold_only(&held);
        }
        unreachable!("the last look has returned")
    }
}
