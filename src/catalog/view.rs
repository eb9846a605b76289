//! How what was read, or was written here, comes into the daemon's copy of the catalog: in one step with all
//! that belongs to it, and never an older state after a newer one.

use std::collections::BTreeSet;
use std::sync::{Arc, MutexGuard, PoisonError};

use futures::{StreamExt, TryStreamExt, stream};

use super::Result;
use super::cache::{CONCURRENT_READS, Catalog, Loaded, is_news};
use super::ddl::node_name;
use super::joint::{self, Renamed};
use super::record::TableRecord;
use super::snapshot::{Snapshot, Table, TableName};
use super::wide;
use crate::coordination::Stat;
use crate::coordination::paths::CatalogName;

impl Catalog {
    /// Takes a table that has changed, in most cases by itself.
    pub(super) async fn take_table(
        &self,
        name: TableName,
        node: Option<(TableRecord, Stat)>,
    ) -> Result<()> {
        let snapshot = self.snapshot();
        let asks_for_nothing = node.as_ref().is_none_or(|(record, _)| {
            let renamed = Renamed::default();
            let known = || known(record.oid, &name, &snapshot, &renamed);
            joint::asked(record, known, (&snapshot, &renamed), &BTreeSet::new()).is_nothing()
        });
        if asks_for_nothing {
            drop(snapshot);
            self.update(|snapshot| snapshot.set_table(&name, node));
            return Ok(());
        }
        let mut next = snapshot.as_ref().clone();
        next.set_table(&name, node);
        self.publish(next, vec![name]).await
    }

    /// Takes tables as this daemon has just written them, unless it knows later states of them. What they
    /// ask for is among them, or was taken with the states that they were made from.
    ///
    /// At once, whoever reads the store meanwhile: it may have gone out of reach, and the commit is made.
    pub(super) fn take_written(&self, tables: &[Arc<Table>]) {
        let mut written = self.written();
        self.snapshot.send_modify(|snapshot| put_written(tables, Arc::make_mut(snapshot)));
        if self.refreshing.try_lock().is_err() {
            written.extend_from_slice(tables);
        }
    }

    fn written(&self) -> MutexGuard<'_, Vec<Arc<Table>>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The right to read nodes and to put them into the snapshot.
    pub(super) async fn refreshing(&self) -> tokio::sync::MutexGuard<'_, ()> {
        let guard = self.refreshing.lock().await;
        // They are in the snapshot, and whatever is read from now on is from after they were written.
        self.written().clear();
        guard
    }

    /// Makes a snapshot in which these tables are news the present one, together with what they ask for
    /// (see [`super::joint`]).
    pub(super) async fn publish(
        &self,
        mut snapshot: Snapshot,
        mut news: Vec<TableName>,
    ) -> Result<()> {
        let before = self.snapshot();
        let (before_renamed, mut renamed) = (Renamed::default(), Renamed::default());
        let mut whole = BTreeSet::new();
        while let Some(name) = news.pop() {
            let Some(table) = snapshot.table(&name).cloned() else { continue };
            let record = &table.record;
            let known = || known(record.oid, &name, &before, &before_renamed);
            let asked = joint::asked(record, known, (&snapshot, &renamed), &whole);
            let later = self.read_again(asked.behind, &mut snapshot).await?;
            if asked.missed || (asked.unlisted && later.is_empty()) {
                whole.extend(wide::all(&snapshot));
                (snapshot, renamed) = (self.read_everything().await?, Renamed::default());
                news = snapshot.tables().map(|table| table.name.clone()).collect();
                continue;
            }
            whole.extend(asked.listed);
            if asked.unlisted {
                // What was read may have the list.
                news.push(name);
            }
            news.extend(later);
        }
        let written = self.written();
        put_written(&written, &mut snapshot);
        self.snapshot.send_replace(Arc::new(snapshot));
        Ok(())
    }

    /// Reads tables again; those that have changed.
    async fn read_again(
        &self,
        names: Vec<TableName>,
        snapshot: &mut Snapshot,
    ) -> Result<Vec<TableName>> {
        let names: BTreeSet<TableName> = names.into_iter().collect();
        let names: Vec<CatalogName> = names.iter().map(node_name).collect();
        let read: Vec<Loaded> =
            stream::iter(names.into_iter().map(|name| async { self.load(name).await }))
                .buffered(CONCURRENT_READS)
                .try_collect()
                .await?;
        let mut later = Vec::new();
        for table in read {
            let Loaded::Table(name, node) = table else { continue };
            let known = snapshot.table(&name).map(|known| known.stat);
            if is_news(known.as_ref(), &node) {
                snapshot.set_table(&name, *node);
                later.push(name);
            }
        }
        Ok(later)
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Snapshot)) {
        let written = self.written();
        self.snapshot.send_modify(|snapshot| {
            let snapshot = Arc::make_mut(snapshot);
            change(snapshot);
            put_written(&written, snapshot);
        });
    }
}

/// Puts tables as they were written into a snapshot, where it has earlier states of them.
fn put_written(tables: &[Arc<Table>], snapshot: &mut Snapshot) {
    for table in tables {
        let is_later = snapshot.table(&table.name).is_some_and(|known| {
            known.record.oid == table.record.oid && known.stat.mzxid < table.stat.mzxid
        });
        if is_later {
            snapshot.set_table(&table.name, Some((table.record.clone(), table.stat)));
        }
    }
}

/// A table's record in a snapshot, by this name or another.
fn known<'a>(
    oid: u32,
    name: &TableName,
    snapshot: &'a Snapshot,
    renamed: &Renamed,
) -> Option<&'a TableRecord> {
    let named = snapshot.table(name).filter(|table| table.record.oid == oid);
    named.or_else(|| renamed.find(oid, snapshot)).map(|table| &table.record)
}
