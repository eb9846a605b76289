//! A table's life: a node of its identifier, there from CREATE to DROP.
//!
//! A table of the same name made anew begins with version 0 again, so that the version of a record alone
//! does not tell whether it is still the table that a change was made for. Each step that writes or
//! removes a table's record checks its life as well.
//!
//! Tables that an older daemon has made have none: it is made up for when a step first misses it.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::cache::Catalog;
use super::ddl::path_of;
use super::record::TableRecord;
use super::snapshot::{Table, TableName};
use super::transact::{create, delete, set};
use super::{Error, Result};
use crate::coordination::paths::Path;
use crate::coordination::{self, Mode, Op};

/// The steps that make a table or view.
pub(super) fn made(name: &TableName, record: &TableRecord) -> Result<[Op; 2]> {
    let path = Path::Life(record.oid).to_string();
    let life = Op::Create { path, data: Bytes::new(), mode: Mode::Persistent };
    Ok([create(&path_of(name), record)?, life])
}

impl Table {
    /// The steps that give it another record.
    pub(super) fn changed(&self, record: &TableRecord) -> Result<[Op; 2]> {
        Ok([set(&path_of(&self.name), record, self.stat.version)?, self.lives()])
    }

    /// The steps that drop it.
    pub(super) fn dropped(&self) -> [Op; 2] {
        let [record, _] = self.moved();
        [record, delete(Path::Life(self.record.oid).to_string(), None)]
    }

    /// The steps that leave its name: it goes on under another.
    pub(super) fn moved(&self) -> [Op; 2] {
        [delete(path_of(&self.name), Some(self.stat.version)), self.lives()]
    }

    fn lives(&self) -> Op {
        Op::Check { path: Path::Life(self.record.oid).to_string(), version: None }
    }
}

pub(super) fn is_life(path: &str) -> bool {
    life_of(path).is_some()
}

fn life_of(path: &str) -> Option<u32> {
    path.strip_prefix(&format!("{}/", Path::Lives))?.parse().ok()
}

impl Catalog {
    /// Carries out steps as [`Coordination::transact`](coordination::Coordination::transact) does, and
    /// makes up for lives that tables of older daemons do not have.
    pub(super) async fn transact(&self, ops: Vec<Op>) -> Result<coordination::Result<()>> {
        let error = match self.coordination.transact(ops.clone()).await {
            Ok(_) => return Ok(Ok(())),
            Err(error) => error,
        };
        let missed = matches!(error.root(), coordination::Error::NoNode { path } if is_life(path));
        if !missed || !self.make_up_for_lives(&ops).await? {
            return Ok(Err(error));
        }
        Ok(self.coordination.transact(ops).await.map(drop))
    }

    /// Gives each table that steps are for, and that is still there, its life. Whether one had none.
    async fn make_up_for_lives(&self, ops: &[Op]) -> Result<bool> {
        let wanted: BTreeSet<u32> = ops.iter().filter_map(|op| life_of(op.path())).collect();
        let root = Path::Lives.to_string();
        coordination::ensure(self.coordination.as_ref(), &root).await?;
        let snapshot = self.latest().await?;
        let known = self.coordination.children(&root).await?;
        let known: BTreeSet<u32> = known.iter().filter_map(|life| life.parse().ok()).collect();
        let mut made = false;
        for table in snapshot.tables() {
            let oid = table.record.oid;
            if !wanted.contains(&oid) || known.contains(&oid) {
                continue;
            }
            let check = Op::Check { path: path_of(&table.name), version: Some(table.stat.version) };
            let path = Path::Life(oid).to_string();
            let life = Op::Create { path, data: Bytes::new(), mode: Mode::Persistent };
            match self.coordination.transact(vec![check, life]).await {
                Ok(_) => made = true,
                Err(error) if error.is_unavailable() => return Err(Error::Unavailable(error)),
                // Another has made it, or has changed the table: the steps themselves tell.
                Err(_) => made = true,
            }
        }
        Ok(made)
    }
}
