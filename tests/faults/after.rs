//! When nothing is wrong any more: what is there, and what must not be.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::checker::{Term, Work};
use crate::history::{Entry, History, Op, Outcome, Table};
use crate::load::{ACROSS, FACTS, Failure, ROLE, Session, TOTAL, facts};
use crate::world::{BOUND, IDS, World, lock};

/// What a daemon may have more of than before the load: what it keeps for the next time.
const MORE_DESCRIPTORS: f64 = 100.0;
const MORE_TASKS: f64 = 50.0;
const MORE_MEMORY: u64 = 1 << 30;

/// What is known in the end that no client was told.
#[derive(Default)]
pub struct Final {
    pub reads: Vec<Entry>,
    /// What has become of submitted queries, by their ids.
    pub states: HashMap<String, String>,
    pub setting: i64,
}

fn said(failure: Failure) -> String {
    format!("{failure:?}")
}

/// Asks every daemon for everything.
pub async fn look(world: &World, history: &[Entry]) -> Result<Final, String> {
    let mut last = Final::default();
    let ids = history.iter().filter_map(|entry| match &entry.outcome {
        Outcome::Id(id) => Some(id.clone()),
        _ => None,
    });
    let ids: BTreeSet<String> = ids.collect();
    let session = Session::connect(world, 0, true).await?;
    let began = Instant::now();
    for id in ids {
        loop {
            let status = match session.run(&format!("SELECT oribi.status('{id}')")).await {
                Ok(status) => status.rows.concat().concat(),
                // The others are to be looked at all the same.
                Err(Failure::Refused(code, why)) if code == "42704" => {
                    world.history.violation(format!("lost: {id}: {why}"));
                    break;
                }
                Err(failure) => return Err(said(failure)),
            };
            let ended = ["succeeded", "failed", "cancelled"].contains(&&*status);
            last.states.insert(id.clone(), status);
            if ended || began.elapsed() > BOUND {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
    let names = history.iter().filter_map(|entry| match &entry.op {
        Op::Create(name, _) if !name.starts_with(ROLE) => Some(name.clone()),
        _ => None,
    });
    let names: BTreeSet<String> = names.collect();
    last.reads = roles(world, history).await?;
    let mut settings = HashSet::new();
    for daemon in 0..world.slots.len() {
        let session = Session::connect(world, daemon, true).await?;
        for (table, sql) in [
            (Table::Events, "SELECT id FROM events"),
            (Table::Ledger, "SELECT id FROM ledger"),
            (Table::Done, "SELECT id FROM done"),
        ] {
            let start = world.history.now();
            let rows = session.run(sql).await.map_err(said)?.rows;
            let keys = rows.iter().flatten().map(|key| key.parse().expect("a number")).collect();
            let op = Op::Read(table, i64::MIN, i64::MAX);
            last.reads.push(entry(world, &session, op, start, Outcome::Keys(keys)));
        }
        for name in &names {
            let start = world.history.now();
            let held = match session.run(&format!("SELECT v FROM {name}")).await {
                Ok(reply) => Some(reply.rows.concat().concat().parse().unwrap_or(-1)),
                Err(Failure::Refused(code, _)) if code == "42P01" => None,
                Err(failure) => return Err(format!("{name}: {failure:?}")),
            };
            let op = Op::Look(name.clone());
            last.reads.push(entry(world, &session, op, start, Outcome::Held(held)));
        }
        let sums = session.run(ACROSS).await.map_err(said)?.rows;
        if sums != [[TOTAL.to_string(), (TOTAL / 2).to_string()]] {
            world.history.violation(format!("in the end the accounts hold {sums:?}"));
        }
        for (sql, right) in facts() {
            let rows = session.run(&sql).await.map_err(said)?.rows;
            if rows != right {
                world.history.violation(format!("{sql}: {rows:?} instead of {right:?} of {FACTS}"));
            }
        }
        settings.insert(
            session.run("SHOW statement_timeout").await.map_err(said)?.rows.concat().concat(),
        );
    }
    if settings.len() != 1 {
        world.history.violation(format!("daemons have different settings: {settings:?}"));
    }
    let setting = settings.into_iter().next().unwrap_or_default();
    last.setting = setting.trim_end_matches("ms").parse().unwrap_or_default();
    Ok(last)
}

fn entry(world: &World, session: &Session, op: Op, start: u64, outcome: Outcome) -> Entry {
    let (end, strong) = (world.history.now(), true);
    Entry { session: session.number, daemon: session.daemon, strong, op, start, end, outcome }
}

/// The roles that are there, as each daemon has them, once all have the same ones as the store.
async fn roles(world: &World, history: &[Entry]) -> Result<Vec<Entry>, String> {
    let start = world.history.now();
    let sql = format!("SELECT rolname, rolconnlimit FROM pg_roles WHERE rolname LIKE '{ROLE}%'");
    let mut all = Vec::new();
    for (daemon, id) in IDS.iter().enumerate().take(world.slots.len()) {
        let session = Session::connect(world, daemon, true).await?;
        let rows = eventually(async || {
            let rows = session.run(&sql).await.map_err(said)?.rows;
            let store = store(world).await.ok_or("no answer of the store")?;
            let mut stored = children(&store, "/roles").await?;
            stored.retain(|name| name.starts_with(ROLE));
            let known: BTreeSet<&String> = rows.iter().map(|row| &row[0]).collect();
            if known != stored.iter().collect::<BTreeSet<_>>() {
                let what = format!("{id}: roles {known:?}, and stored {stored:?}");
                return Err(what);
            }
            Ok(rows)
        });
        let held = rows.await?.into_iter().filter_map(|row| {
            let [name, limit]: [String; 2] = row.try_into().ok()?;
            Some((name, limit.parse().unwrap_or(-1)))
        });
        let held: HashMap<String, i64> = held.collect();
        all.push((session, held));
    }
    let names = history.iter().filter_map(|entry| match &entry.op {
        Op::Create(name, _) if name.starts_with(ROLE) => Some(name),
        _ => None,
    });
    let names: BTreeSet<&String> = names.collect();
    let mut looks = Vec::new();
    for (session, held) in &all {
        for name in &names {
            let held = Outcome::Held(held.get(*name).copied());
            looks.push(entry(world, session, Op::Look((*name).clone()), start, held));
        }
    }
    Ok(looks)
}

/// What daemons hold when nobody asks anything.
pub async fn figures(world: &World) -> Vec<[f64; 2]> {
    let mut all = Vec::new();
    for slot in &world.slots {
        let metric = async |name: &str| slot.metric(name).await.unwrap_or_default();
        all.push([metric("process_open_fds").await, metric("oribi_runtime_tasks").await]);
    }
    all
}

/// Waits until nothing is left of what is over; what is left after the bound.
pub async fn nothing_left(world: &World, before: &[[f64; 2]]) -> Result<(), String> {
    eventually(async || idle(world, before).await).await?;
    eventually(async || znodes(world).await).await?;
    eventually(async || owners(world).await).await?;
    let session = Session::connect(world, 0, true).await?;
    let run = async |sql: &str| session.run(sql).await.map_err(said);
    run("ALTER SYSTEM SET maintenance.orphan_grace = '0s'").await?;
    for table in ["events", "ledger", "done", "accounts", "vault", "purses", "probe"] {
        eventually(async || {
            run(&format!("VACUUM {table} RETAIN '0s'")).await?;
            files(&session, table).await
        })
        .await?;
    }
    Ok(())
}

async fn eventually<T>(mut holds: impl AsyncFnMut() -> Result<T, String>) -> Result<T, String> {
    let began = Instant::now();
    loop {
        match holds().await {
            Err(_) if began.elapsed() < BOUND => sleep(Duration::from_millis(100)).await,
            other => return other,
        }
    }
}

async fn idle(world: &World, before: &[[f64; 2]]) -> Result<(), String> {
    let now = figures(world).await;
    for (number, slot) in world.slots.iter().enumerate() {
        let metric = async |name: &str| slot.metric(name).await.unwrap_or(-1.0);
        for name in [
            "oribi_connections",
            "oribi_memory_reserved_bytes",
            "oribi_queries",
            "oribi_spill_bytes",
            "oribi_distribution_parts",
        ] {
            let value = metric(name).await;
            if value != 0.0 {
                return Err(format!("{}: {name} is {value}", IDS[number]));
            }
        }
        let [descriptors, tasks] = now[number];
        if descriptors > before[number][0] + MORE_DESCRIPTORS
            || tasks > before[number][1] + MORE_TASKS
        {
            return Err(format!(
                "{}: {:?} descriptors and tasks, before {:?}",
                IDS[number], now[number], before[number]
            ));
        }
        let memory = slot.with(|daemon| daemon.resident_bytes()).unwrap_or_default();
        if memory > MORE_MEMORY {
            return Err(format!("{}: {} MiB of memory", IDS[number], memory >> 20));
        }
    }
    Ok(())
}

/// Nothing belongs to a role that is gone.
async fn owners(world: &World) -> Result<(), String> {
    const SQL: &str = "SELECT relname FROM pg_class c LEFT JOIN pg_roles r ON r.oid = c.relowner \
                       WHERE r.oid IS NULL AND relname LIKE 'ddl%'";
    for (number, id) in IDS.iter().enumerate() {
        let session = Session::connect(world, number, true).await?;
        let orphans = session.run(SQL).await.map_err(said)?.rows;
        if !orphans.is_empty() {
            return Err(format!("{id}: nobody owns {orphans:?}"));
        }
    }
    Ok(())
}

async fn store(world: &World) -> Option<zookeeper_client::Client> {
    let hosts = lock(&world.ensemble).connect_string();
    connect(&hosts, "/faults").await
}

/// A client of the store of its own, not by way of a link.
pub async fn connect(hosts: &str, chroot: &str) -> Option<zookeeper_client::Client> {
    let connector =
        zookeeper_client::Client::connector().with_session_timeout(Duration::from_secs(20));
    let client = timeout(Duration::from_secs(10), connector.connect(hosts)).await.ok()?.ok()?;
    client.chroot(chroot.to_owned()).ok()
}

async fn children(store: &zookeeper_client::Client, path: &str) -> Result<Vec<String>, String> {
    let listed = timeout(Duration::from_secs(5), store.list_children(path)).await;
    match listed.map_err(|_| "no answer".to_owned())? {
        Ok(names) => Ok(names),
        Err(zookeeper_client::Error::NoNode) => Ok(Vec::new()),
        Err(error) => Err(format!("{path}: {error}")),
    }
}

/// Ephemeral znodes are those of the daemons, and nothing waits to be done.
async fn znodes(world: &World) -> Result<(), String> {
    let store = store(world).await.ok_or("no answer of the store")?;
    for (path, count) in [
        ("/daemons", 3),
        ("/incarnations", 3),
        ("/leader", 3),
        ("/claims", 0),
        ("/queue", 0),
        ("/inbox", 0),
    ] {
        let found = children(&store, path).await?;
        if found.len() != count {
            return Err(format!("{path} has {found:?} instead of {count}"));
        }
    }
    for daemon in children(&store, "/signals").await? {
        let left = children(&store, &format!("/signals/{daemon}")).await?;
        if !left.is_empty() {
            return Err(format!("signals of {daemon} are left: {left:?}"));
        }
    }
    for id in children(&store, "/queries").await? {
        let read = timeout(Duration::from_secs(5), store.get_data(&format!("/queries/{id}"))).await;
        let Ok(Ok((data, stat))) = read else { continue };
        if stat.ephemeral_owner != 0 {
            return Err(format!("query {id} is left: {}", String::from_utf8_lossy(&data)));
        }
    }
    Ok(())
}

/// All data files of a table are those of its snapshot.
async fn files(session: &Session, table: &str) -> Result<(), String> {
    let options =
        format!("SELECT array_to_string(reloptions, ' ') FROM pg_class WHERE relname = '{table}'");
    let options = session.run(&options).await.map_err(said)?.rows.concat().concat();
    let metadata = options.split(' ').find_map(|option| option.strip_prefix("metadata=file://"));
    let metadata = metadata.ok_or_else(|| format!("{table}: {options}"))?;
    let place = Path::new(metadata).ancestors().nth(2).ok_or("a table has no place")?;
    let count = |folder: &str| -> usize {
        let found = std::fs::read_dir(place.join(folder)).into_iter().flatten();
        found.count()
    };
    let named =
        session.run(&format!("SELECT count(*) FROM \"{table}$files\"")).await.map_err(said)?;
    let named = named.rows.concat().concat();
    let found = count("data").to_string();
    if found != named {
        return Err(format!("{table}: {found} data files, and {named} are named"));
    }
    Ok(())
}

/// Somebody who watches who leads and who keeps house.
#[derive(Default)]
pub struct Seen {
    pub terms: Vec<Term>,
    pub works: HashSet<Work>,
}

pub struct Witness {
    over: Arc<AtomicBool>,
    watching: JoinHandle<Seen>,
}

impl Witness {
    pub fn begin(world: Arc<World>) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let watching = tokio::spawn(watch(world, over.clone()));
        Self { over, watching }
    }

    pub async fn end(self) -> Seen {
        self.over.store(true, Ordering::Relaxed);
        self.watching.await.expect("the witness does not panic")
    }
}

async fn watch(world: Arc<World>, over: Arc<AtomicBool>) -> Seen {
    let (mut seen, mut client, mut round) = (Seen::default(), None, 0u64);
    while !over.load(Ordering::Relaxed) {
        round += 1;
        sleep(Duration::from_millis(50)).await;
        if client.is_none() {
            client = store(&world).await;
        }
        if let Some(store) = &client {
            match leader(store, &world.history).await {
                Ok(Some(term)) => {
                    if seen.terms.last().is_none_or(|last| last.node != term.node) {
                        seen.terms.push(term);
                    }
                }
                Ok(None) => {}
                Err(_) => client = None,
            }
        }
        if round.is_multiple_of(20) {
            works(&world, &mut seen.works).await;
        }
    }
    works(&world, &mut seen.works).await;
    seen
}

/// Who leads, as the store has it; what it said before is older.
async fn leader(
    store: &zookeeper_client::Client,
    history: &History,
) -> Result<Option<Term>, String> {
    let synced = timeout(Duration::from_secs(5), store.sync("/leader")).await;
    synced.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())?;
    let Some(node) = children(store, "/leader").await?.into_iter().min() else { return Ok(None) };
    let read = timeout(Duration::from_secs(5), store.get_data(&format!("/leader/{node}"))).await;
    let Ok((data, _)) = read.map_err(|_| "no answer".to_owned())? else { return Ok(None) };
    let value: serde_json::Value = serde_json::from_slice(&data).map_err(|e| e.to_string())?;
    let daemon = value["daemon"].as_str().unwrap_or_default().to_owned();
    Ok(Some(Term { daemon, node, from: history.now() }))
}

/// What was done to keep tables in good order, as any daemon tells.
async fn works(world: &World, works: &mut HashSet<Work>) {
    const SQL: &str = "SELECT daemon, object, (extract(epoch FROM started) * 1000000)::bigint, \
                       (seconds * 1000000)::bigint FROM system.maintenance WHERE error IS NULL";
    for daemon in 0..world.slots.len() {
        let Ok(session) = Session::connect(world, daemon, false).await else { continue };
        let Ok(reply) = session.run(SQL).await else { continue };
        for row in reply.rows {
            let [daemon, object, start, took] = &row[..] else { continue };
            let (Ok(start), Ok(took)) = (start.parse::<u64>(), took.parse::<u64>()) else {
                continue;
            };
            let (daemon, object) = (daemon.clone(), object.clone());
            works.insert(Work { daemon, object, start, end: start + took });
        }
        return;
    }
}
