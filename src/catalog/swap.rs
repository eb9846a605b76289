//! The one write that makes a new state of managed tables their state.

use std::sync::Arc;

use tokio::time::Instant;

use super::cache::Catalog;
use super::ddl::{node_name, path_of};
use super::record::TableRecord;
use super::snapshot::Table;
use super::{Error, Result};
use super::{joint, lives};
use crate::coordination::{self, Op, Outcome, Stat};

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
        let mut ops = fences;
        for (table, record) in &records {
            ops.extend(table.being().changed(record)?);
        }
        // By identifier: another table may have the name by now.
        let is_written = |oid| records.iter().any(|(table, _)| table.record.oid == oid);
        let others = unchanged.iter().filter(|table| !is_written(table.record.oid));
        let kept: Vec<(&str, Vec<Op>)> =
            others.map(|table| (table.name.table.as_str(), table.being().kept())).collect();
        ops.extend(kept.iter().flat_map(|(_, checks)| checks.iter().cloned()));
        let of = |path: &String| {
            ops.iter().position(|op| matches!(op, Op::Set { path: set, .. } if set == path))
        };
        let places: Vec<Option<usize>> = paths.iter().map(of).collect();
        let sent = Instant::now();
        let error = match self.transact(ops).await? {
            Ok(outcomes) => {
                let stats = places.into_iter().map(|place| match outcomes.get(place?) {
                    Some(Outcome::Set(stat)) => Some(*stat),
                    _ => None,
                });
                return Ok(Swap::Done(self.written(records, stats).await));
            }
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
            _ => Err(error.into()),
        }
    }

    /// The tables as this daemon has just written them: in its own view before anybody hears of it, so
    /// that whoever has changed them finds the change, whatever is wrong with the store by now.
    async fn written(
        &self,
        records: Vec<(Arc<Table>, TableRecord)>,
        stats: impl Iterator<Item = Option<Stat>>,
    ) -> Vec<Arc<Table>> {
        let stats: Vec<Option<Stat>> = stats.collect();
        for (table, _) in &records {
            if let Err(error) = self.refresh(&node_name(&table.name)).await {
                tracing::debug!(%error, "a table that was written is not read back");
                self.take_written(records.iter().zip(&stats)).await;
                break;
            }
        }
        let now = |((before, record), stat): ((Arc<Table>, TableRecord), Option<Stat>)| {
            let seen = self.snapshot().table(&before.name).cloned();
            seen.unwrap_or_else(|| {
                let stat = stat.unwrap_or(before.stat);
                Arc::new(Table { name: before.name.clone(), record, stat })
            })
        };
        records.into_iter().zip(stats).map(now).collect()
    }
}
