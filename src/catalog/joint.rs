//! Commits over several tables, seen whole or not at all.
//!
//! The store changes the records of all tables of a commit in one transaction, but whoever reads them
//! reads one after the other. So each record says which others have changed together with it, and how
//! many commits those had had by then: who knows a record knows how new the others must be at least.
//!
//! - The daemon's copy of the catalog takes a record together with what it asks for, in one step
//!   ([`Catalog::follow`](super::Catalog::follow)): no copy holds one half of a commit.
//! - A statement looks its tables up one by one, and the copy may change meanwhile. [`older`] tells,
//!   and it is planned anew.
//!
//! Of a commit over many tables ([`wide`]) the records have its name instead.
//!
//! A daemon of an older version leaves all this out of what it writes. What then asks for more than there
//! is, is taken as it is.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use super::ddl::path_of;
use super::record::{Definition, TableRecord};
use super::snapshot::{Snapshot, Table, TableName};
use super::wide::{self, Wide};
use crate::coordination::paths::{CatalogName, parse_catalog};

/// How many other tables a record remembers, the latest: some 70 bytes each. A commit over more is a wide one.
const REMEMBERED: usize = 32;

/// Another table as it was made by a commit over both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joint {
    /// The node it had then: it may have been renamed since.
    pub path: String,
    pub oid: u32,
    /// See [`Managed::serial`](super::Managed::serial).
    pub serial: u64,
}

impl Table {
    /// How many commits a managed table has had; `None` for what nobody commits to.
    fn serial(&self) -> Option<u64> {
        serial(&self.record)
    }
}

/// Where tables are in a snapshot whose names have changed, found out when it is first asked for.
#[derive(Debug, Default)]
pub(super) struct Renamed(OnceLock<HashMap<u32, TableName>>);

impl Renamed {
    pub fn find<'a>(&self, oid: u32, snapshot: &'a Snapshot) -> Option<&'a Arc<Table>> {
        let all =
            || snapshot.tables().map(|table| (table.record.oid, table.name.clone())).collect();
        if snapshot.absent.has(oid) {
            return None;
        }
        let Some(name) = self.0.get_or_init(all).get(&oid) else {
            if snapshot.tables().all(|table| table.record.oid != oid) {
                snapshot.absent.add(oid);
            }
            return None;
        };
        snapshot.table(name).filter(|table| table.record.oid == oid)
    }
}

impl Joint {
    fn find<'a>(&self, snapshot: &'a Snapshot, renamed: &Renamed) -> Option<&'a Arc<Table>> {
        let named = match parse_catalog(&self.path)? {
            CatalogName::Table { database, schema, table } => {
                snapshot.table(&TableName { database, schema, table })
            }
            _ => None,
        };
        let named = named.filter(|table| table.record.oid == self.oid);
        named.or_else(|| renamed.find(self.oid, snapshot))
    }
}

/// What a record asks for that a snapshot does not have.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// Tables that are older than they must be. Some may be named twice.
    pub behind: Vec<TableName>,
    /// Commits over many tables whose other tables are among these, as far as the snapshot does not have
    /// them.
    pub listed: Vec<Wide>,
    /// Whether it is of a commit over other tables that are not known, unless one of these tells.
    pub unlisted: bool,
    /// Whether it may have been a part of more commits than it names.
    pub missed: bool,
}

impl Asked {
    pub fn is_nothing(&self) -> bool {
        self.behind.is_empty() && !self.unlisted && !self.missed
    }
}

/// What this record asks for, where the table was known as `known`, in a snapshot that is known to be whole as
/// to these commits.
pub(super) fn asked<'a>(
    record: &TableRecord,
    known: impl FnOnce() -> Option<&'a TableRecord>,
    (snapshot, renamed): (&Snapshot, &Renamed),
    whole: &BTreeSet<Wide>,
) -> Asked {
    let behind = behind(record, snapshot, renamed).map(|table| table.name.clone()).collect();
    let mut asked = Asked { behind, ..Asked::default() };
    wide::ask(record, known, (snapshot, renamed), whole, &mut asked);
    asked
}

/// Tables that are older in a snapshot than they must be beside what this record says.
fn behind<'a>(
    record: &'a TableRecord,
    snapshot: &'a Snapshot,
    renamed: &'a Renamed,
) -> impl Iterator<Item = &'a Arc<Table>> {
    joint(record).iter().filter_map(|joint| {
        let table = joint.find(snapshot, renamed)?;
        table.serial().is_some_and(|serial| serial < joint.serial).then_some(table)
    })
}

fn joint(record: &TableRecord) -> &[Joint] {
    match &record.definition {
        Definition::Managed(managed) => &managed.joint,
        _ => &[],
    }
}

pub(super) fn serial(record: &TableRecord) -> Option<u64> {
    match &record.definition {
        Definition::Managed(managed) => Some(managed.serial),
        _ => None,
    }
}

/// Lets the records of one commit tell of each other. What a snapshot does not have is the first to be
/// forgotten: it has been dropped, or made so lately that this daemon has not heard of it.
pub(super) fn join(records: &mut [(Arc<Table>, TableRecord)], snapshot: &Snapshot) {
    for (_, record) in &mut *records {
        if let Definition::Managed(managed) = &mut record.definition {
            wide::forget(managed);
        }
    }
    if records.len() > REMEMBERED + 1 {
        return wide::join(records);
    }
    let renamed = Renamed::default();
    let all: Vec<Joint> = (records.iter())
        .filter_map(|(table, record)| {
            let (path, oid) = (path_of(&table.name), record.oid);
            Some(Joint { path, oid, serial: serial(record)? })
        })
        .collect();
    for (_, record) in records {
        let Definition::Managed(managed) = &mut record.definition else { continue };
        managed.joint.retain(|old| all.iter().all(|new| new.oid != old.oid));
        managed.joint.sort_by_cached_key(|old| old.find(snapshot, &renamed).is_some());
        for old in &mut managed.joint {
            if let Some(now) = old.find(snapshot, &renamed) {
                old.path = path_of(&now.name);
            }
        }
        managed.joint.extend(all.iter().filter(|joint| joint.oid != record.oid).cloned());
        let surplus = managed.joint.len().saturating_sub(REMEMBERED);
        managed.joint.drain(..surplus);
    }
}

/// What a table that takes another's place goes on from.
pub(super) fn go_on(before: &TableRecord, record: &mut TableRecord) {
    if let (Definition::Managed(before), Definition::Managed(now)) =
        (&before.definition, &mut record.definition)
    {
        (now.serial, now.joint) = (before.serial + 1, before.joint.clone());
        (now.wide, now.lists) = (before.wide.clone(), before.lists.clone());
    }
}

/// Tables that are older than others of them ask for, by object identifier, as far as the catalog tells that is
/// `now` at hand.
pub fn older<'a>(
    tables: &'a BTreeMap<u32, Arc<Table>>,
    now: &Snapshot,
) -> impl Iterator<Item = &'a Arc<Table>> {
    let asked = tables.values().flat_map(|table| joint(&table.record));
    let older = asked.filter_map(|joint| {
        let table = tables.get(&joint.oid)?;
        table.serial().is_some_and(|serial| serial < joint.serial).then_some(table)
    });
    older.chain(wide::older(tables, now))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::catalog::{Managed, PUBLIC};

    fn table(oid: u32) -> (Arc<Table>, TableRecord) {
        let managed = Managed::new(Uuid::nil(), "m".to_owned(), None);
        let definition = Definition::Managed(managed);
        let record = TableRecord::new(oid, "oribi", Vec::new(), definition);
        let name = TableName::new("oribi", PUBLIC, format!("t{oid}"));
        (Arc::new(Table { name, record: record.clone(), stat: Default::default() }), record)
    }

    /// A catalog with all tables that tests ask for.
    fn everything() -> Snapshot {
        let mut snapshot = Snapshot::default();
        let database = crate::catalog::DatabaseRecord {
            oid: 1,
            life: 0,
            owner: "oribi".to_owned(),
            grants: None,
            comment: None,
            settings: BTreeMap::new(),
            nonce: Uuid::nil(),
        };
        snapshot.set_database("oribi", Some((database, Default::default())));
        for oid in 1..100 {
            let (table, record) = table(oid);
            snapshot.set_table(&table.name, Some((record, Default::default())));
        }
        snapshot
    }

    /// The tables after a commit over them.
    fn committed(tables: &[&(Arc<Table>, TableRecord)]) -> Vec<(Arc<Table>, TableRecord)> {
        let mut records: Vec<_> = tables.iter().map(|table| (*table).clone()).collect();
        for (_, record) in &mut records {
            let Definition::Managed(managed) = &mut record.definition else { unreachable!() };
            managed.serial += 1;
        }
        join(&mut records, &everything());
        let now = |(table, record): (Arc<Table>, TableRecord)| {
            let now = Table { record: record.clone(), ..table.as_ref().clone() };
            (Arc::new(now), record)
        };
        records.into_iter().map(now).collect()
    }

    fn torn(tables: &[&(Arc<Table>, TableRecord)]) -> bool {
        let tables = tables.iter().map(|(table, _)| (table.record.oid, table.clone())).collect();
        older(&tables, &everything()).next().is_some()
    }

    #[test]
    fn one_half_of_a_commit_asks_for_the_other() {
        let (a, b, c) = (table(1), table(2), table(3));
        let [a1, b1]: [_; 2] = committed(&[&a, &b]).try_into().expect("two");
        assert!(torn(&[&a1, &b]));
        assert!(torn(&[&a, &b1]));
        assert!(!torn(&[&a, &b]) && !torn(&[&a1, &b1]) && !torn(&[&a1, &c]));
        // Also after later commits, alone and with others.
        let [a2]: [_; 1] = committed(&[&a1]).try_into().expect("one");
        let [a3, c1]: [_; 2] = committed(&[&a2, &c]).try_into().expect("two");
        assert!(torn(&[&a3, &b, &c1]) && torn(&[&a3, &b1, &c]) && torn(&[&a2, &c1]));
        assert!(!torn(&[&a3, &b1, &c1]));
    }

    #[test]
    fn a_record_remembers_the_latest() {
        let mut a = table(1);
        for oid in 2..100 {
            a = committed(&[&a, &table(oid)]).swap_remove(0);
        }
        let remembered: Vec<u32> = joint(&a.0.record).iter().map(|joint| joint.oid).collect();
        assert_eq!(remembered, (100 - REMEMBERED as u32..100).collect::<Vec<_>>());
    }

    #[test]
    fn who_is_behind_is_found_by_any_name() {
        let (a, b) = (table(1), table(2));
        let [a1, _]: [_; 2] = committed(&[&a, &b]).try_into().expect("two");
        let names = |snapshot: &Snapshot| -> Vec<TableName> {
            let renamed = Renamed::default();
            behind(&a1.1, snapshot, &renamed).map(|table| table.name.clone()).collect()
        };
        let mut snapshot = everything();
        assert_eq!(names(&snapshot), vec![b.0.name.clone()]);
        snapshot.set_table(&b.0.name, None);
        assert_eq!(names(&snapshot), []);
        let renamed = TableName::new("oribi", PUBLIC, "other");
        snapshot.set_table(&renamed, Some((b.1, Default::default())));
        assert_eq!(names(&snapshot), vec![renamed.clone()]);
    }

    #[test]
    fn what_is_not_known_is_the_first_to_be_forgotten() {
        let (a, b) = (table(1), table(2));
        let [a1, _]: [_; 2] = committed(&[&a, &b]).try_into().expect("two");
        // It may have been dropped, or be so new that this daemon has not heard of it.
        let mut snapshot = everything();
        snapshot.set_table(&b.0.name, None);
        let mut records = vec![a1];
        join(&mut records, &snapshot);
        let oids = |record: &TableRecord| joint(record).iter().map(|joint| joint.oid).collect();
        let remembered: Vec<u32> = oids(&records[0].1);
        assert_eq!(remembered, [2]);
        for oid in 3..100 {
            records = vec![records.swap_remove(0), table(oid)];
            join(&mut records, &snapshot);
        }
        let remembered: Vec<u32> = oids(&records[0].1);
        assert_eq!(remembered, (100 - REMEMBERED as u32..100).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_gone_is_looked_for_once() {
        let (a, b) = (table(1), table(2));
        let [a1, _]: [_; 2] = committed(&[&a, &b]).try_into().expect("two");
        let mut snapshot = everything();
        snapshot.set_table(&b.0.name, None);
        let looks = |snapshot: &Snapshot| {
            let renamed = Renamed::default();
            let found = behind(&a1.1, snapshot, &renamed).count();
            (found, renamed.0.get().is_some())
        };
        assert_eq!(looks(&snapshot), (0, true));
        assert_eq!(looks(&snapshot), (0, false));
        // Nor by those that come after it, until there is such a table.
        let mut next = snapshot.clone();
        next.set_table(&a.0.name, Some((a1.1.clone(), Default::default())));
        assert_eq!(looks(&next), (0, false));
        let other = TableName::new("oribi", PUBLIC, "other");
        next.set_table(&other, Some((b.1.clone(), Default::default())));
        assert_eq!(looks(&next), (1, true));
        assert_eq!(looks(&snapshot), (0, false));
    }
}
