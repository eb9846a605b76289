//! The one write that makes a new state of managed tables their state.

use std::sync::Arc;

use tokio::time::Instant;

use super::cache::Catalog;
use super::ddl::path_of;
use super::record::TableRecord;
use super::snapshot::Table;
use super::{Error, Result};
use super::{joint, lives};
use crate::coordination::{self, Op, Outcome};

/// What became of a swap.
#[derive(Debug)]
pub enum Swap {
    /// The tables as they are now.
    Done(Vec<Arc<Table>>),
    /// Some table is no longer what the change was made from. Nothing has changed.
    Outrun,
    /// A table, by its name, that was to be unchanged has been changed. Nothing has changed.
    Changed(String),
    /// One of the checks that were to go with it does not hold. Nothing has changed.
    Fenced,
    /// The reply was lost. The store has been asked since, so what it says of the tables now is
    /// the truth.
    Ambiguous,
}

impl Catalog {
    /// Replaces the records of tables in one step, if none has changed since it was read, nor one that is
    /// to be `unchanged`, and all `fences` hold.
    pub async fn swap_tables(
        &self,
        mut records: Vec<(Arc<Table>, TableRecord)>,
        unchanged: &[Arc<Table>],
        fences: Vec<Op>,
    ) -> Result<Swap> {
        joint::join(&mut records, &self.snapshot());
        let paths: Vec<String> = records.iter().map(|(table, _)| path_of(&table.name)).collect();
        let (first, mut ops) = (fences.len(), fences);
        for (table, record) in &records {
            ops.extend(table.being().changed(record)?);
        }
        // By identifier: another table may have the name by now.
        let is_written = |oid| records.iter().any(|(table, _)| table.record.oid == oid);
        let others = unchanged.iter().filter(|table| !is_written(table.record.oid));
        let kept: Vec<(&str, Vec<Op>)> =
            others.map(|table| (table.name.table.as_str(), table.being().kept())).collect();
        ops.extend(kept.iter().flat_map(|(_, checks)| checks.iter().cloned()));
        let sent = Instant::now();
        let error = match self.transact(ops).await? {
            Ok(done) => return Ok(Swap::Done(self.as_written(records, &done[first..]))),
            Err(error) if error.may_have_landed() => {
                return match self.in_touch_again(self.settled_by(sent)).await {
                    true => Ok(Swap::Ambiguous),
                    false => Err(Error::Unknown(error)),
                };
            }
            Err(error) => error,
        };
        match error.root() {
            coordination::Error::BadVersion { path } | coordination::Error::NoNode { path } => {
                let of = |checks: &[Op]| checks.iter().any(|check| check.path() == path);
                if let Some((table, _)) = kept.iter().find(|(_, checks)| of(checks)) {
                    return Ok(Swap::Changed((*table).to_owned()));
                }
                let own = paths.contains(path) || lives::is_life(path);
                Ok(if own { Swap::Outrun } else { Swap::Fenced })
            }
            // All together are too large: each alone would be told by its own size.
            coordination::Error::TooLarge { bytes, limit, .. } if records.len() > 1 => {
                let (tables, bytes, limit) = (records.len(), *bytes, *limit);
                Err(Error::TooManyTables { tables, bytes, limit })
            }
            _ => Err(error.into()),
        }
    }

    /// Tables as this daemon has just written them, in its own view at once and together: the store is not
    /// asked, for it may be out of reach again.
    fn as_written(
        &self,
        records: Vec<(Arc<Table>, TableRecord)>,
        done: &[Outcome],
    ) -> Vec<Arc<Table>> {
        let stats = done.iter().filter_map(|outcome| match outcome {
            Outcome::Set(stat) => Some(*stat),
            _ => None,
        });
        let written = records.into_iter().zip(stats).map(|((table, record), stat)| {
            Arc::new(Table { name: table.name.clone(), record, stat })
        });
        let written: Vec<Arc<Table>> = written.collect();
        self.take_written(&written);
        written
    }
}

#[cfg(test)]
mod tests {
    use crate::catalog::wide::tests::{commit, hear_of, serials, two};

    #[tokio::test]
    async fn a_commit_is_in_its_daemons_view_whoever_reads_meanwhile() {
        let (catalog, other) = two().await;
        // As one who has read, and has not come to put it into the view.
        let reading = catalog.refreshing().await;
        let read = catalog.snapshot().as_ref().clone();
        commit(&catalog, [0]).await;
        commit(&catalog, 0..3).await;
        let seen = [Some(2), Some(1), Some(1), Some(0)];
        assert_eq!(serials(&catalog)[..4], seen);
        catalog.publish(read, Vec::new()).await.expect("published");
        assert_eq!(serials(&catalog)[..4], seen);
        drop(reading);
        // Nor does it stand before what others write later.
        hear_of(&other, 0).await;
        commit(&other, [0]).await;
        hear_of(&catalog, 0).await;
        assert_eq!(serials(&catalog)[..4], [Some(3), Some(1), Some(1), Some(0)]);
    }
}
