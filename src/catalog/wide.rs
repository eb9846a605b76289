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
//! part of such a commit.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::joint::{Asked, Renamed, serial};
use super::record::{Definition, Managed, TableRecord};
use super::snapshot::{Snapshot, Table};

/// How many commits a record names, the latest. Whoever knows none of as many has missed some, and reads
/// everything.
const NAMED: usize = 4;

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
        forgot || missing.any(|wide| later.contains(wide))
    })
}
