//! Daemons whose clients change the catalog, all in the same few names.
//!
//! With each write that the store carries out it is known which statement it belongs to. What must
//! hold, of statements and of the order in which the store has carried out their writes:
//!
//! - A statement that succeeded was carried out once, between its beginning and its end; one that
//!   failed was not carried out and never will be; one whose outcome is told to be unknown, once or
//!   never. A DROP whose reply was lost succeeds as well if the object is gone by then.
//! - What a refusal says (it exists already, there is none) was true at some moment of the statement.
//! - A change starts from what the last one made, so that none is lost. What DROP returns is what it
//!   has removed.
//! - Every table's schema is there, and no identifier is given twice.
//! - What has an identifier of its own has a life as long as it is there.
//! - Once faults have ended, every daemon's copy is what the store has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use oribi::catalog::{
    Catalog, CreateMode, DEFAULT_DATABASE, Definition, DropMode, Error, FIRST_ROLE, ObjectKind,
    PUBLIC, TableName,
};
use oribi::coordination::paths::{CatalogName, Path, parse_catalog};
use oribi::coordination::{Node, Op};
use serde_json::Value;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::link::Link;
use crate::processes::{Processes, RECOVERY};
use crate::sim::{Event, OPERATION, Sim, Write, lock};
use crate::world;

const PROCESSES: usize = 3;
const SCHEMAS: [&str; 3] = [PUBLIC, "s", "t"];
const TABLES: [&str; 3] = ["x", "y", "z"];

/// What is known of all statements.
#[derive(Default)]
struct Log {
    statements: BTreeMap<u64, Statement>,
    /// When each path came to be (true) and went, in milliseconds.
    changes: BTreeMap<String, Vec<(u64, bool)>>,
    identifiers: BTreeSet<u64>,
}

#[derive(Default)]
struct Statement {
    carried_out: u32,
    /// The reply to a write was lost.
    in_doubt: bool,
    /// It has ended, with an outcome that is known.
    settled: bool,
    /// Identifiers of what it has removed.
    removed: Vec<u64>,
}

impl Log {
    /// Whether a path was there, or was not, at some moment between these.
    fn was(&self, path: &str, there: bool, (from, to): (u64, u64)) -> bool {
        let changes = self.changes.get(path).map_or(&[][..], Vec::as_slice);
        let before = changes.iter().rev().find(|(at, _)| *at < from).is_some_and(|(_, now)| *now);
        let during = changes.iter().filter(|(at, _)| (from..=to).contains(at));
        before == there || during.into_iter().any(|(_, now)| *now == there)
    }
}

/// A catalog, and the name of the daemon whose it is.
type Named = (String, Arc<Catalog>);

#[derive(Default)]
struct Shared {
    log: Mutex<Log>,
    catalogs: [Mutex<Option<Named>>; PROCESSES],
}

pub async fn run(sim: Arc<Sim>) {
    let shared = Arc::new(Shared::default());
    let judged = shared.clone();
    sim.add_judge(move |sim, event| match event {
        Event::Write(write) if write.done.is_ok() => judge(sim, &mut lock(&judged.log), write),
        Event::Doubt(id) => {
            lock(&judged.log).statements.entry(*id).or_default().in_doubt = true;
        }
        Event::Write(_) | Event::Expired(_) => {}
    });
    let (own, known) = (sim.clone(), shared.clone());
    let program =
        move |number, link, leave| daemon(own.clone(), known.clone(), number, link, leave).boxed();
    let processes = Processes::start(&sim, PROCESSES, Arc::new(program));
    let time = sim.between(3_000, 12_000);
    processes.suffer(time).await;
    sim.wait_until(RECOVERY, || unsettled(&sim, &shared)).await;
}

async fn daemon(
    sim: Arc<Sim>,
    shared: Arc<Shared>,
    number: usize,
    link: Arc<Link>,
    leave: CancellationToken,
) {
    let catalog = match Catalog::open(link.clone()).await {
        Ok(catalog) => catalog,
        Err(error) => return sim.tell(|| format!("{} has no catalog: {error}", link.name)),
    };
    *lock(&shared.catalogs[number]) = Some((link.name.clone(), catalog.clone()));
    let client = || client(&sim, &shared, &catalog, &link.name);
    let clients = async { futures::join!(client(), client()) };
    let end = CancellationToken::new();
    tokio::select! {
        biased;
        () = leave.cancelled() => {}
        () = catalog.clone().follow(end.clone()) => {}
        _ = clients => {}
    }
}

async fn client(sim: &Sim, shared: &Shared, catalog: &Catalog, daemon: &str) {
    loop {
        sleep(sim.between(5, 400)).await;
        if !sim.is_calm() {
            state(sim, shared, catalog, daemon).await;
        }
    }
}

/// A statement's outcome, as far as it is looked at.
enum Outcome {
    /// It has changed something.
    Done,
    /// There was nothing to be done, since this was there or was not.
    Nothing(String, bool),
    /// The table with this identifier was dropped.
    Dropped(u64),
}

/// A client's next statement.
async fn state(sim: &Sim, shared: &Shared, catalog: &Catalog, daemon: &str) {
    let id = sim.number();
    let begun = world::now();
    lock(&shared.log).statements.insert(id, Statement::default());
    let (text, outcome) = OPERATION.scope(id, statement(sim, catalog, id)).await;
    let time = (begun, world::now());
    sim.tell(|| match &outcome {
        Ok(_) => format!("{daemon} {id}: {text}: done"),
        Err(error) => format!("{daemon} {id}: {text}: {error}"),
    });
    let mut log = lock(&shared.log);
    let statement = log.statements.entry(id).or_default();
    statement.settled = !matches!(outcome, Err(Error::Unknown(_)));
    let (carried_out, in_doubt) = (statement.carried_out, statement.in_doubt);
    let removed = statement.removed.clone();
    let wrong = match outcome {
        Ok(Outcome::Dropped(table)) if carried_out == 1 => {
            (!removed.contains(&table)).then(|| format!("removed {removed:?} and returned {table}"))
        }
        Ok(Outcome::Dropped(_)) if in_doubt => None,
        Ok(Outcome::Done | Outcome::Dropped(_)) => {
            let gone_in_doubt = in_doubt && text.starts_with("DROP");
            (carried_out != 1 && !gone_in_doubt).then(|| "succeeded without a write".to_owned())
        }
        Ok(Outcome::Nothing(path, there)) => {
            let untrue = !log.was(&path, there, time);
            (carried_out != 0 || untrue).then(|| format!("{path} there: {there}: never"))
        }
        Err(Error::Unknown(_)) => None,
        Err(error) if carried_out != 0 => Some(format!("carried out, but failed: {error}")),
        Err(error) => untrue(&log, &error, time),
    };
    drop(log);
    if let Some(wrong) = wrong {
        sim.violated(format!("{daemon} {id}: {text}: {wrong}"));
    }
}

/// What is not true of a refusal.
fn untrue(log: &Log, error: &Error, time: (u64, u64)) -> Option<String> {
    let path = |kind: &ObjectKind, name: &str| match kind {
        ObjectKind::Schema => Some(Path::Schema(DEFAULT_DATABASE, name).to_string()),
        ObjectKind::Table => {
            let (schema, table) = name.split_once('.').unwrap_or((PUBLIC, name));
            Some(Path::Table { database: DEFAULT_DATABASE, schema, table }.to_string())
        }
        _ => None,
    };
    let (path, there) = match error {
        Error::AlreadyExists { kind, name } => (path(kind, name)?, true),
        Error::NotFound { kind, name } => (path(kind, name)?, false),
        _ => return None,
    };
    (!log.was(&path, there, time)).then(|| format!("never true: {error}"))
}

async fn statement(sim: &Sim, catalog: &Catalog, id: u64) -> (String, Result<Outcome, Error>) {
    let name = || TableName::new(DEFAULT_DATABASE, *sim.pick(&SCHEMAS), *sim.pick(&TABLES));
    let path = |name: &TableName| {
        let TableName { database, schema, table } = name;
        Path::Table { database, schema, table }.to_string()
    };
    let done = |done: Result<(), Error>| done.map(|()| Outcome::Done);
    match sim.below(100) {
        0..35 => {
            let name = name();
            let mode = *sim.pick(&[CreateMode::Fail, CreateMode::IfNotExists]);
            let definition = Definition::View {
                sql: "SELECT 1".to_owned(),
                search_path: Vec::new(),
                security_barrier: false,
            };
            let made =
                catalog.create_table(&name, FIRST_ROLE, Vec::new(), definition, mode, Vec::new());
            let made = made.await.map(|made| match made {
                true => Outcome::Done,
                false => Outcome::Nothing(path(&name), true),
            });
            (format!("CREATE {name} {mode:?}"), made)
        }
        35..55 => {
            let name = name();
            let mode = *sim.pick(&[DropMode::Fail, DropMode::IfExists]);
            let dropped = catalog.drop_table(&name, true, mode).await;
            let dropped = dropped.map(|dropped| match dropped {
                Some(table) => Outcome::Dropped(u64::from(table.record.oid)),
                None => Outcome::Nothing(path(&name), false),
            });
            (format!("DROP {name} {mode:?}"), dropped)
        }
        55..68 => {
            let (name, new) = (name(), name());
            if name == new {
                return ("nothing".to_owned(), Err(Error::Reserved("nothing".to_owned())));
            }
            let renamed = catalog.rename_table(&name, &new, true).await;
            (format!("RENAME {name} {new}"), done(renamed))
        }
        68..84 => {
            let name = name();
            let change = |record: &mut oribi::catalog::TableRecord| {
                let before = record.comment.take().unwrap_or_default();
                record.comment = Some(format!("{before} {id}"));
                Ok(())
            };
            (format!("ALTER {name}"), done(catalog.alter_table(&name, &[], change).await))
        }
        84..93 => {
            let schema = *sim.pick(&SCHEMAS[1..]);
            let mode = *sim.pick(&[CreateMode::Fail, CreateMode::IfNotExists]);
            let made = catalog.create_schema(DEFAULT_DATABASE, schema, FIRST_ROLE, mode).await;
            let made = made.map(|made| match made {
                true => Outcome::Done,
                false => Outcome::Nothing(Path::Schema(DEFAULT_DATABASE, schema).to_string(), true),
            });
            (format!("CREATE SCHEMA {schema} {mode:?}"), made)
        }
        _ => {
            let schema = *sim.pick(&SCHEMAS[1..]);
            let mode = *sim.pick(&[DropMode::Fail, DropMode::IfExists]);
            let cascade = sim.happens(50);
            let dropped = catalog.drop_schema(DEFAULT_DATABASE, schema, mode, cascade).await;
            let dropped = dropped.map(|dropped| match dropped {
                true => Outcome::Done,
                false => {
                    Outcome::Nothing(Path::Schema(DEFAULT_DATABASE, schema).to_string(), false)
                }
            });
            (format!("DROP SCHEMA {schema} {mode:?} cascade {cascade}"), dropped)
        }
    }
}

fn judge(sim: &Sim, log: &mut Log, write: &Write<'_>) {
    let steps = || write.ops.iter().zip(&write.before);
    let steps_below = || steps().filter(|(op, _)| op.path().starts_with("/catalog/"));
    for (op, _) in steps_below() {
        let change = match op {
            Op::Create { .. } => true,
            Op::Delete { .. } => false,
            _ => continue,
        };
        log.changes.entry(op.path().to_owned()).or_default().push((world::now(), change));
    }
    let Some(id) = write.operation.filter(|_| steps_below().next().is_some()) else { return };
    let statement = log.statements.entry(id).or_default();
    statement.carried_out += 1;
    if statement.carried_out > 1 || statement.settled {
        sim.violated(format!("{} {id}: carried out after it was", write.link.name));
    }
    let removed = steps_below().filter_map(|(op, before)| match op {
        Op::Delete { path, .. } if is_table(path) => before.as_ref().map(oid),
        _ => None,
    });
    statement.removed.extend(removed);
    for (op, before) in steps_below().filter(|(op, _)| is_table(op.path())) {
        let (Op::Create { path, data, .. } | Op::Set { path, data, .. }) = op else { continue };
        let record: Value = serde_json::from_slice(data).expect("a record");
        // The table that it was: at its path, or where it was before it was renamed.
        let moved = steps_below().find_map(|(op, before)| match op {
            Op::Delete { path, .. } if is_table(path) => before.clone(),
            _ => None,
        });
        match before.clone().or(moved) {
            None => {
                let new = record["oid"].as_u64().expect("an identifier");
                if !log.identifiers.insert(new) {
                    sim.violated(format!("{id}: {path} has identifier {new}, as another has"));
                }
            }
            Some(was) => {
                let was: Value = serde_json::from_slice(&was.data).expect("a record");
                let text = |record: &Value| record["comment"].as_str().unwrap_or("").to_owned();
                let kept =
                    text(&record) == text(&was) || text(&record) == format!("{} {id}", text(&was));
                let wrong = format!("{id}: {path} is {record} now, and was {was}");
                if !kept || was["oid"] != record["oid"] {
                    sim.violated(wrong);
                }
            }
        }
    }
    let orphan = sim.children("/catalog/oribi").into_iter().find(|node| {
        node.split_once('.').is_some_and(|(schema, table)| {
            !table.is_empty() && sim.node(&format!("/catalog/oribi/{schema}.")).is_none()
        })
    });
    if let Some(orphan) = orphan {
        sim.violated(format!("{id}: {orphan} has no schema"));
    }
    let undead = undead(sim);
    if !undead.is_empty() {
        sim.violated(format!("{id}: {undead:?} has no life, or nothing else"));
    }
}

/// Lives that are missing for what is in the catalog, or that nothing has any more. Roles get theirs when
/// something is made for them.
fn undead(sim: &Sim) -> BTreeSet<String> {
    let roles = sim.children("/roles").into_iter();
    let roles = roles.filter_map(|node| Some(life(&sim.node(&format!("/roles/{node}"))?)));
    let roles: BTreeSet<String> = roles.collect();
    let lives = sim.children("/lives").into_iter().filter(|life| !roles.contains(life)).collect();
    let tables = sim.children("/catalog/oribi").into_iter().filter_map(|node| {
        let path = format!("/catalog/oribi/{node}");
        parse_catalog(&path).map(|_| life(&sim.node(&path).expect("it is listed")))
    });
    tables.collect::<BTreeSet<_>>().symmetric_difference(&lives).cloned().collect()
}

fn is_table(path: &str) -> bool {
    matches!(parse_catalog(path), Some(CatalogName::Table { .. }))
}

/// The name of the life that a record's is.
fn life(node: &Node) -> String {
    let record: Value = serde_json::from_slice(&node.data).expect("a record");
    match record.get("life").map(|life| life.as_u64().expect("a number")) {
        None => record["oid"].to_string(),
        Some(life) => format!("{}.{life:08x}", record["oid"]),
    }
}

fn oid(node: &Node) -> u64 {
    let record: Value = serde_json::from_slice(&node.data).expect("a record");
    record["oid"].as_u64().expect("an identifier")
}

/// What a daemon does not know yet.
fn unsettled(sim: &Sim, shared: &Shared) -> Option<String> {
    let stored: BTreeMap<String, u64> = sim
        .children("/catalog/oribi")
        .iter()
        .map(|node| format!("/catalog/oribi/{node}"))
        .filter(|path| is_table(path))
        .filter_map(|path| Some((path.clone(), oid(&sim.node(&path)?))))
        .collect();
    shared.catalogs.iter().find_map(|catalog| {
        let catalog = lock(catalog);
        let (daemon, catalog) = catalog.as_ref()?;
        let snapshot = catalog.snapshot();
        let known: BTreeMap<String, u64> = snapshot
            .tables()
            .map(|table| {
                let TableName { database, schema, table: name } = &table.name;
                let path = Path::Table { database, schema, table: name }.to_string();
                (path, u64::from(table.record.oid))
            })
            .collect();
        (known != stored).then(|| format!("{daemon} knows {known:?} instead of {stored:?}"))
    })
}
