//! Daemons that commit to several tables at once, and look at them.
//!
//! The tables have no files: a commit is the one write of their records. What must hold:
//!
//! - Of each commit a daemon's view of the catalog has all or nothing.
//! - So does what a statement has found, one table after the other, unless it is told that its tables do
//!   not belong together.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use oribi::catalog::{
    self, Catalog, Column, Consistency, CreateMode, DEFAULT_DATABASE, Definition, DropMode,
    FIRST_ROLE, Managed, PUBLIC, Snapshot, Table, TableName, TableRecord,
};
use oribi::coordination::Op;
use oribi::coordination::embedded::EmbeddedSession;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::link::Link;
use crate::processes::{Processes, RECOVERY};
use crate::sim::{Event, Sim, Write, at_once, lock};

const PROCESSES: usize = 3;

/// More than a record names one by one.
const TABLES: u64 = 36;

/// How many commits are looked at, the latest.
const COMMITS: usize = 24;

/// The tables of a commit by identifier, with how many commits each had had by then.
type Commits = VecDeque<Vec<(u32, u64)>>;

pub async fn run(sim: Arc<Sim>) {
    at_once(make_tables(sim.connect()));
    let commits: Arc<Mutex<Commits>> = Arc::default();
    let judged = commits.clone();
    sim.add_judge(move |_, event| {
        if let Event::Write(write) = event
            && write.done.is_ok()
        {
            note(&mut lock(&judged), write);
        }
    });
    let own = sim.clone();
    let program =
        move |_: usize, link, leave| daemon(own.clone(), commits.clone(), link, leave).boxed();
    let processes = Processes::start(&sim, PROCESSES, Arc::new(program));
    let time = sim.between(2_000, 6_000);
    processes.suffer(time).await;
    sim.wait(RECOVERY / 4).await;
}

fn name(number: u64) -> TableName {
    TableName::new(DEFAULT_DATABASE, PUBLIC, format!("t{number}"))
}

async fn make_tables(store: Arc<EmbeddedSession>) {
    let catalog = Catalog::open(store).await.expect("a catalog");
    for number in 0..TABLES {
        make(&catalog, number).await.expect("a table");
    }
}

async fn make(catalog: &Catalog, number: u64) -> catalog::Result<bool> {
    let managed = Managed::new(uuid::Uuid::nil(), "memory://t/metadata/0".to_owned(), None);
    let (columns, definition) = (Vec::<Column>::new(), Definition::Managed(managed));
    let mode = CreateMode::IfNotExists;
    catalog.create_table(&name(number), FIRST_ROLE, columns, definition, mode, Vec::new()).await
}

fn serial(record: &TableRecord) -> u64 {
    match &record.definition {
        Definition::Managed(managed) => managed.serial,
        _ => 0,
    }
}

/// Notes a commit.
fn note(commits: &mut Commits, write: &Write<'_>) {
    let mut commit = Vec::new();
    for (op, before) in write.ops.iter().zip(&write.before) {
        let (Op::Set { path, data, .. }, Some(before)) = (op, before) else { continue };
        if !path.starts_with("/catalog/oribi/") {
            continue;
        }
        let record = |data| serde_json::from_slice::<TableRecord>(data).expect("a record");
        let (was, is) = (record(&before.data), record(data));
        if serial(&was) < serial(&is) {
            commit.push((is.oid, serial(&is)));
        }
    }
    if commit.len() > 1 {
        commits.push_back(commit);
        if commits.len() > COMMITS {
            commits.pop_front();
        }
    }
}

async fn daemon(
    sim: Arc<Sim>,
    commits: Arc<Mutex<Commits>>,
    link: Arc<Link>,
    leave: CancellationToken,
) {
    let Ok(catalog) = Catalog::open(link.clone()).await else { return };
    let name = &link.name;
    let end = CancellationToken::new();
    tokio::select! {
        biased;
        () = leave.cancelled() => {}
        () = look(&sim, &commits, &catalog, name) => {}
        () = catalog.clone().follow(end.clone()) => {}
        () = write(&sim, &catalog, name) => {}
        () = read(&sim, &commits, &catalog, name) => {}
    }
}

/// What of which commit is torn, among tables by identifier with how many commits they have had.
fn torn(commits: &Mutex<Commits>, tables: &HashMap<u32, u64>) -> Option<String> {
    lock(commits).iter().find_map(|commit| {
        let known =
            commit.iter().filter_map(|(oid, serial)| Some((oid, *serial, *tables.get(oid)?)));
        let (with, without): (Vec<_>, Vec<_>) = known.partition(|(_, serial, now)| now >= serial);
        (!with.is_empty() && !without.is_empty())
            .then(|| format!("of one commit it has {with:?} and not {without:?}"))
    })
}

/// How many commits tables have had.
fn serials<'a>(tables: impl Iterator<Item = &'a Arc<Table>>) -> HashMap<u32, u64> {
    let mut serials = HashMap::new();
    for table in tables {
        let latest: &mut u64 = serials.entry(table.record.oid).or_default();
        *latest = serial(&table.record).max(*latest);
    }
    serials
}

/// Looks at each state of the daemon's view.
async fn look(sim: &Sim, commits: &Mutex<Commits>, catalog: &Catalog, daemon: &str) {
    let mut states = catalog.watch();
    loop {
        let state: Arc<Snapshot> = states.borrow_and_update().clone();
        if let Some(torn) = torn(commits, &serials(state.tables())) {
            sim.violated(format!("{daemon}'s view: {torn}"));
        }
        if states.changed().await.is_err() {
            return;
        }
    }
}

/// Commits, and drops and makes tables, now and then.
async fn write(sim: &Sim, catalog: &Catalog, daemon: &str) {
    loop {
        sleep(sim.between(20, 700)).await;
        if sim.is_calm() {
            continue;
        }
        let number = sim.below(TABLES);
        let count = match sim.below(100) {
            0..35 => TABLES - sim.below(3),
            35..85 => 1 + sim.below(3),
            85..92 => {
                let dropped = catalog.drop_table(&name(number), false, DropMode::IfExists).await;
                let _ = dropped.inspect(|_| sim.tell(|| format!("{daemon} has dropped t{number}")));
                continue;
            }
            _ => {
                let _ = make(catalog, number).await;
                continue;
            }
        };
        let snapshot = catalog.snapshot();
        let all: Vec<&Arc<Table>> = snapshot.tables().collect();
        let begin = usize::try_from(number).expect("small");
        let count = usize::try_from(count).expect("small");
        let records = all.iter().cycle().skip(begin).take(count.min(all.len())).map(|table| {
            let mut record = table.record.clone();
            if let Definition::Managed(managed) = &mut record.definition {
                managed.serial += 1;
            }
            (Arc::clone(table), record)
        });
        let swap = catalog.swap_tables(records.collect(), &[], Vec::new()).await;
        sim.tell(|| match swap {
            Ok(swap) => format!("{daemon}: a commit over {count}: {}", word(&swap)),
            Err(error) => format!("{daemon}: a commit over {count}: {error}"),
        });
    }
}

fn word(swap: &catalog::Swap) -> &'static str {
    match swap {
        catalog::Swap::Done(_) => "done",
        catalog::Swap::Ambiguous => "ambiguous",
        _ => "refused",
    }
}

/// Finds some tables as a statement does, one after the other.
async fn read(sim: &Sim, commits: &Mutex<Commits>, catalog: &Catalog, daemon: &str) {
    loop {
        sleep(sim.between(1, 300)).await;
        let mut found = BTreeMap::new();
        for _ in 0..sim.between(2, 5).as_millis() {
            let table = catalog.table(&name(sim.below(TABLES)), Consistency::Cached).await;
            if let Ok(table) = table {
                found.insert(table.record.oid, table);
            }
            sleep(sim.between(0, 40)).await;
        }
        let now = catalog.snapshot();
        let is_newest = |table: &Arc<Table>| {
            now.table(&table.name).is_some_and(|now| {
                now.record.oid == table.record.oid && now.stat.mzxid == table.stat.mzxid
            })
        };
        if catalog::older(&found, &now).any(|table| !is_newest(table)) {
            continue;
        }
        if let Some(torn) = torn(commits, &serials(found.values())) {
            sim.violated(format!("a statement of {daemon}: {torn}"));
        }
    }
}
