//! Commits over many tables, seen whole or not at all as those over a few are ([`super::joint`]).
//!
//! If each record named all the others, together they would take the square of their number. So the record of
//! one table, the *lead*, has the list of all, and the others have the commit's name alone, which says where
//! the list is. Whoever meets a name that is news reads the lead and then what the list asks for.
//!
//! Lists are forgotten in time, and a lead may be dropped. Whoever finds no list reads the whole catalog
//! again: whatever it is answered after it has read one record of a commit has the others. Nothing that is
//! seen rests on a list, but how much is read for it.
//!
//! A daemon of an older version knows nothing of all this, and leaves it out of what it writes: it may see a
//! part of such a commit, and so may others of what it has written a part of since, until it is replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::joint::{Asked, Renamed, serial};
use super::record::{Definition, Managed, TableRecord};
use super::snapshot::{Snapshot, Table};

/// How many commits a record names, the latest, with some 12 bytes each. Whoever knows none of as many has
/// missed some, and reads everything.
const NAMED: usize = 16;

/// For how many commits of its lead a list is kept: as long as a daemon that follows may be behind.
const KEPT_FOR: u64 = 16;

/// How many tables all lists of one record have together: some 15 bytes each, of the 64 KiB that a record may
/// take.
const LISTED: usize = 2500;

/// The name of a commit over many tables: the identifier of its lead, and how many commits that had had by
/// then. As text `16384.7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Wide {
    lead: u32,
    serial: u64,
}

/// The tables of a commit beside its lead: their identifiers, each with its [`Managed::serial`] by then.
pub type List = Vec<(u32, u64)>;

impl Display for Wide {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.lead, self.serial)
    }
}

impl From<Wide> for String {
    fn from(wide: Wide) -> Self {
        wide.to_string()
    }
}

impl TryFrom<String> for Wide {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parsed = text.split_once('.').and_then(|(lead, serial)| {
            Some(Self { lead: lead.parse().ok()?, serial: serial.parse().ok()? })
        });
        parsed
            .ok_or_else(|| format!("{text:?} is not an identifier and a number with a dot between"))
    }
}

fn managed(record: &TableRecord) -> Option<&Managed> {
    match &record.definition {
        Definition::Managed(managed) => Some(managed),
        _ => None,
    }
}

fn named(record: &TableRecord) -> &[Wide] {
    managed(record).map_or(&[][..], |managed| managed.wide.as_slice())
}

/// Gives the records of one commit its name. The smallest has the list: there is a limit to a record.
pub(super) fn join(records: &mut [(Arc<Table>, TableRecord)]) {
    let tables: List =
        (records.iter()).filter_map(|(_, record)| Some((record.oid, serial(record)?))).collect();
    // What cannot be written is told by whoever writes it.
    let size =
        |record: &TableRecord| serde_json::to_vec(record).map_or(usize::MAX, |json| json.len());
    let managed = records.iter().filter(|(_, record)| serial(record).is_some());
    let Some((_, lead)) = managed.min_by_key(|(_, record)| (size(record), record.oid)) else {
        return;
    };
    let Some(wide) = serial(lead).map(|serial| Wide { lead: lead.oid, serial }) else { return };
    for (_, record) in records {
        let Definition::Managed(managed) = &mut record.definition else { continue };
        let surplus = (managed.wide.len() + 1).saturating_sub(NAMED);
        managed.wide.drain(..surplus);
        managed.wide.push(wide);
        if record.oid == wide.lead && tables.len() <= LISTED {
            let others = tables.iter().filter(|(oid, _)| *oid != wide.lead);
            managed.lists.insert(wide, others.copied().collect());
            forget(managed);
        }
    }
}

/// Forgets the lists that are old, or too much for one record.
pub(super) fn forget(managed: &mut Managed) {
    let now = managed.serial;
    managed.lists.retain(|wide, _| wide.serial.saturating_add(KEPT_FOR) > now);
    while managed.lists.values().map(Vec::len).sum::<usize>() > LISTED {
        managed.lists.pop_first();
    }
}

/// What a record asks for of commits over many tables that are news to whoever knew the table as `known`, and
/// of which a snapshot is not known to be `whole`.
pub(super) fn ask<'a>(
    record: &TableRecord,
    known: impl FnOnce() -> Option<&'a TableRecord>,
    (snapshot, renamed): (&Snapshot, &Renamed),
    whole: &BTreeSet<Wide>,
    asked: &mut Asked,
) {
    if named(record).iter().all(|wide| whole.contains(wide)) {
        return;
    }
    let before = known().map_or(&[][..], named);
    let is_news = |wide: &&Wide| !before.contains(wide) && !whole.contains(wide);
    let news: Vec<Wide> = named(record).iter().filter(is_news).copied().collect();
    asked.missed = news.len() >= NAMED;
    for wide in news {
        let lead = renamed.find(wide.lead, snapshot);
        let leading =
            if wide.lead == record.oid { Some(record) } else { lead.map(|lead| &lead.record) };
        let Some(list) = leading.and_then(managed).and_then(|lead| lead.lists.get(&wide)) else {
            asked.unlisted = true;
            asked.behind.extend(
                lead.filter(|lead| is_before(lead, wide.serial)).map(|lead| lead.name.clone()),
            );
            continue;
        };
        asked.listed.push(wide);
        for (oid, serial) in list {
            let found = renamed.find(*oid, snapshot).filter(|table| is_before(table, *serial));
            asked.behind.extend(found.map(|table| table.name.clone()));
        }
    }
}

fn is_before(table: &Table, asked: u64) -> bool {
    serial(&table.record).is_some_and(|serial| serial < asked)
}

/// All commits that the records of a snapshot name: whoever reads everything after it has all of them.
pub(super) fn all(snapshot: &Snapshot) -> impl Iterator<Item = Wide> {
    snapshot.tables().flat_map(|table| named(&table.record)).copied()
}

/// Tables that are from before a commit of which others have a part: what they are in `now`, a later state of
/// the catalog, tells which commits they belong to.
pub(super) fn older<'a>(
    tables: &'a BTreeMap<u32, Arc<Table>>,
    now: &Snapshot,
) -> impl Iterator<Item = &'a Arc<Table>> {
    let all: BTreeSet<Wide> =
        tables.values().flat_map(|table| named(&table.record)).copied().collect();
    tables.values().filter(move |table| {
        let own = named(&table.record);
        let mut missing = all.iter().filter(|wide| !own.contains(wide)).peekable();
        if missing.peek().is_none() {
            return false;
        }
        // Of one that has gone nobody tells any more: it is not there now.
        let later = now.table(&table.name).filter(|later| later.record.oid == table.record.oid);
        let Some(later) = later else { return true };
        let later = named(&later.record);
        // With as many since that none is the same, some may have been forgotten.
        let forgot = later.len() >= NAMED && !later.iter().any(|wide| own.contains(wide));
        // Others may have forgotten what this one has had a part in since.
        let forgotten = later.iter().any(|wide| !own.contains(wide))
            && (tables.values().map(|other| named(&other.record)))
                .any(|other| other.len() >= NAMED && !other.iter().any(|wide| own.contains(wide)));
        forgot || forgotten || missing.any(|wide| later.contains(wide))
    })
}

#[cfg(test)]
pub(super) mod tests {
    use arrow::datatypes::{DataType, Field};
    use uuid::Uuid;

    use super::*;
    use crate::catalog::ddl::node_name;
    use crate::catalog::{
        Catalog, Column, Consistency, CreateMode, DEFAULT_DATABASE, DropMode, Error, FIRST_ROLE,
        PUBLIC, Swap, TableName,
    };
    use crate::coordination::embedded::{EmbeddedStore, Options};

    const TABLES: usize = 40;

    pub(in crate::catalog) fn name(number: usize) -> TableName {
        TableName::new(DEFAULT_DATABASE, PUBLIC, format!("t{number}"))
    }

    /// Two daemons' catalogs: of one that commits, and of one that hears of nothing by itself.
    pub(in crate::catalog) async fn two() -> (Arc<Catalog>, Arc<Catalog>) {
        let store = EmbeddedStore::in_memory().expect("a store");
        let writer = Catalog::open(store.connect(Options::default())).await.expect("a catalog");
        make(&writer, 0..TABLES).await;
        let reader = Catalog::open(store.connect(Options::default())).await.expect("a catalog");
        (writer, reader)
    }

    /// Makes tables of three columns, with names as long as they are.
    async fn make(catalog: &Catalog, numbers: std::ops::Range<usize>) {
        let column = |number: usize| {
            let id = [("PARQUET:field_id".to_owned(), number.to_string())].into();
            let field = Field::new(format!("c{number}"), DataType::Int64, true);
            Column::from(&field.with_metadata(id))
        };
        for number in numbers {
            let metadata = format!(
                "file:///srv/warehouse/oribi/public/t{number}-01a22c072587876b-7b2e/metadata/\
                 00001-01a22c07-258b-74fb-ad9c-c76aee35083b.metadata.json"
            );
            let definition = Definition::Managed(Managed::new(Uuid::nil(), metadata, None));
            let (columns, mode) = ((0..3).map(column).collect(), CreateMode::Fail);
            let name = name(number);
            let made =
                catalog.create_table(&name, FIRST_ROLE, columns, definition, mode, Vec::new());
            assert!(made.await.expect("a table"));
        }
    }

    /// A commit over these tables.
    pub(in crate::catalog) async fn commit(
        catalog: &Catalog,
        numbers: impl IntoIterator<Item = usize>,
    ) {
        let swap = try_to_commit(catalog, numbers).await.expect("a commit");
        assert!(matches!(swap, Swap::Done(_)), "{swap:?}");
    }

    async fn try_to_commit(
        catalog: &Catalog,
        numbers: impl IntoIterator<Item = usize>,
    ) -> crate::catalog::Result<Swap> {
        let mut records = Vec::new();
        for number in numbers {
            let table = catalog.table(&name(number), Consistency::Cached).await.expect("a table");
            let mut record = table.record.clone();
            let Definition::Managed(managed) = &mut record.definition else { unreachable!() };
            managed.serial += 1;
            records.push((table, record));
        }
        catalog.swap_tables(records, &[], Vec::new()).await
    }

    /// How many commits each table has had as a catalog has it; none where it has no such table.
    pub(in crate::catalog) fn serials(catalog: &Catalog) -> Vec<Option<u64>> {
        let snapshot = catalog.snapshot();
        (0..TABLES).map(|number| serial(&snapshot.table(&name(number))?.record)).collect()
    }

    fn table(catalog: &Catalog, number: usize) -> Arc<Table> {
        catalog.snapshot().table(&name(number)).expect("a table").clone()
    }

    /// The number of the table that has the list of the last commit.
    fn lead(catalog: &Catalog) -> usize {
        let leads = |number: &usize| {
            let record = &table(catalog, *number).record;
            let managed = managed(record).expect("managed");
            managed.wide.last().is_some_and(|last| managed.lists.contains_key(last))
        };
        (0..TABLES).find(leads).expect("one has the list")
    }

    pub(in crate::catalog) async fn hear_of(catalog: &Catalog, number: usize) {
        catalog.refresh(&node_name(&name(number))).await.expect("it is read");
    }

    #[tokio::test]
    async fn who_hears_of_one_table_has_all_that_the_list_names() {
        let (writer, reader) = two().await;
        commit(&writer, 0..TABLES - 1).await;
        assert_eq!(serials(&reader), vec![Some(0); TABLES]);
        hear_of(&reader, 7).await;
        assert_eq!(serials(&reader), serials(&writer));
        // Also if it is known under another name by now, and the list has got older.
        commit(&writer, 0..TABLES - 1).await;
        commit(&writer, [lead(&writer)]).await;
        writer.rename_table(&name(3), &name(TABLES), false).await.expect("renamed");
        hear_of(&reader, TABLES).await;
        hear_of(&reader, 3).await;
        assert_eq!(serials(&reader), serials(&writer));
    }

    #[tokio::test]
    async fn who_finds_no_list_reads_everything() {
        let (writer, reader) = two().await;
        commit(&writer, 0..TABLES - 1).await;
        let first = lead(&writer);
        for _ in 0..KEPT_FOR {
            commit(&writer, [first]).await;
        }
        assert!(managed(&table(&writer, first).record).expect("managed").lists.is_empty());
        hear_of(&reader, first + 1).await;
        assert_eq!(serials(&reader), serials(&writer));

        commit(&writer, 0..TABLES - 1).await;
        let second = lead(&writer);
        writer.drop_table(&name(second), false, DropMode::Fail).await.expect("dropped");
        hear_of(&reader, (second + 1) % (TABLES - 1)).await;
        assert_eq!(serials(&reader), serials(&writer));
    }

    #[tokio::test]
    async fn who_has_missed_too_many_commits_reads_everything() {
        let (writer, reader) = two().await;
        commit(&writer, 0..TABLES).await;
        for _ in 0..NAMED {
            commit(&writer, 0..TABLES - 3).await;
        }
        hear_of(&reader, 0).await;
        assert_eq!(serials(&reader), serials(&writer));
        // Nor does a catalog that is read anew have less.
        reader.latest().await.expect("it is read");
        assert_eq!(serials(&reader), serials(&writer));
    }

    #[tokio::test]
    async fn a_statement_with_one_half_is_told_so() {
        let (writer, _) = two().await;
        let all = |catalog: &Catalog| -> Vec<_> {
            (0..TABLES).map(|number| table(catalog, number)).collect()
        };
        let before = all(&writer);
        commit(&writer, 0..TABLES - 1).await;
        let after = all(&writer);
        let torn = |tables: [&Arc<Table>; 2]| {
            let tables = tables.map(|table| (table.record.oid, table.clone())).into();
            older(&tables, &writer.snapshot()).count()
        };
        for (one, other) in [(0, 38), (38, 0), (3, 30), (lead(&writer), 9), (9, lead(&writer))] {
            assert_eq!(torn([&after[one], &before[other]]), 1, "{one} {other}");
            assert_eq!(torn([&before[one], &before[other]]), 0, "{one} {other}");
            assert_eq!(torn([&after[one], &after[other]]), 0, "{one} {other}");
        }
        // Nor is one that has been dropped since what others are now.
        let dropped = 20;
        writer.drop_table(&name(dropped), false, DropMode::Fail).await.expect("dropped");
        assert_eq!(torn([&after[0], &before[dropped]]), 1);
        assert_eq!(torn([&before[0], &before[dropped]]), 0);
        make(&writer, dropped..dropped + 1).await;
        // One that has no part in it may be of any time.
        commit(&writer, [TABLES - 1]).await;
        assert_eq!(torn([&after[0], &before[TABLES - 1]]), 0);
        // After more commits than are remembered.
        for _ in 0..NAMED {
            commit(&writer, 0..TABLES - 3).await;
        }
        let last = all(&writer);
        assert_eq!(torn([&last[0], &before[1]]), 1);
        // The first was the only one that this table had a part in.
        assert_eq!(torn([&last[0], &before[38]]), 1);
        assert_eq!(torn([&last[0], &after[38]]), 0);
        assert_eq!(torn([&last[0], &after[1]]), 1);
        assert_eq!(torn([&last[0], &last[1]]), 0);
    }

    #[tokio::test]
    async fn records_do_not_grow_with_the_commits_that_they_are_a_part_of() {
        let (writer, _) = two().await;
        let mut largest = 0;
        for round in 0..100 {
            commit(&writer, 0..TABLES).await;
            let size =
                |number| serde_json::to_vec(&table(&writer, number).record).expect("JSON").len();
            let size = (0..TABLES).map(size).max().expect("some");
            match round {
                0..50 => largest = largest.max(size),
                _ => assert!(size <= largest + 100, "{size}, and {largest} before"),
            }
        }
    }

    #[tokio::test]
    async fn a_thousand_tables_are_committed_at_once_and_too_many_are_refused() {
        let (writer, reader) = two().await;
        make(&writer, TABLES..1000).await;
        for _ in 0..NAMED {
            commit(&writer, 0..1000).await;
        }
        reader.latest().await.expect("it is read");
        commit(&writer, 0..1000).await;
        hear_of(&reader, 999).await;
        assert_eq!(serials(&reader), vec![Some(NAMED as u64 + 1); TABLES]);
        make(&writer, 1000..2000).await;
        let error = try_to_commit(&writer, 0..2000).await.expect_err("too many");
        let Error::TooManyTables { tables: 2000, bytes, limit } = error else {
            panic!("{error:?}")
        };
        assert!(limit < bytes && bytes < 2 * limit, "{bytes} {limit}");
        // Of those that have been in no such commit yet, and so name none, more than of others.
        commit(&writer, 2000 - 1800 * limit / bytes..2000).await;
    }

    #[test]
    fn a_name_reads_back_as_written() {
        let wide = Wide { lead: 16384, serial: 7 };
        assert_eq!(serde_json::to_string(&wide).expect("JSON"), r#""16384.7""#);
        let lists = BTreeMap::from([(wide, vec![(16385, 3)])]);
        let json = serde_json::to_string(&lists).expect("JSON");
        assert_eq!(json, r#"{"16384.7":[[16385,3]]}"#);
        assert_eq!(serde_json::from_str::<BTreeMap<Wide, List>>(&json).expect("lists"), lists);
        assert!(serde_json::from_str::<Wide>(r#""16384""#).is_err());
    }
}
