//! Many clients at once: most of them idle, more statements than there is room for, some who do not read
//! what they have asked for, and clients, tables and queries that come and go.
//!
//! `ORIBI_LOAD_SECONDS`, `ORIBI_LOAD_IDLE` and `ORIBI_LOAD_ACTIVE` make it longer and larger. One of ten
//! minutes and more fails if the daemon holds more in the end than in the middle.

mod common;

#[path = "cluster/support.rs"]
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::*;
use tokio::task::JoinSet;

/// What the slow readers ask for: more than all buffers on the way hold.
const LARGE: (&str, u64) =
    ("COPY (SELECT repeat('x', 1000) FROM generate_series(1, 200000) s(x)) TO STDOUT", 200_200_000);

/// What every client of a pool asks for, and its answer.
const SUM: (&str, &str) = ("SELECT sum(x) FROM numbers", "5000050000");

/// What is refused when a pool and its queue are full.
const FULL: &str = "53400";

/// Memory beyond what the engine has, for all else that a daemon keeps.
const MORE_MEMORY: u64 = 512 << 20;
const ENGINE_MEMORY: u64 = 256 << 20;

/// What may be left of tasks and descriptors when all clients have gone.
const LEFT: u64 = 16;

/// Parts of a run that are told of by themselves: what grows with time shows in them.
const PARTS: usize = 10;

/// From how many seconds on a run is long enough for its second half to tell of leaks.
const LONG: u64 = 600;

/// By how much memory, and what is on disk, may grow in the second half of a long run.
const GROWN: u64 = 64 << 20;

/// Statements of one round of clients that come and go.
const CHURN: u64 = 8;

/// How many bytes a daemon may log at all, and for each statement.
const LOGGED: u64 = 64 << 10;
const LOGGED_FOR_EACH: u64 = 10;

/// What a run has open itself, besides a connection for each client.
const OWN_DESCRIPTORS: u64 = 500;

fn setting(name: &str, default: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.map_or(default, |given| given.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// What a daemon holds at one moment.
#[derive(Clone, Copy, Debug)]
struct Figures {
    resident: u64,
    descriptors: u64,
    tasks: u64,
    /// Bytes in its data directory, in the warehouse, and of its log.
    disk: u64,
    warehouse: u64,
    log: u64,
    /// Statements that clients have had an answer to so far.
    statements: u64,
}

async fn metric(daemon: &Daemon, name: &str) -> f64 {
    let all = metrics(daemon).await;
    let values = all.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let named = series.split('{').next() == Some(name);
        named.then(|| value.parse::<f64>().ok())?
    });
    values.sum()
}

async fn figures(load: &Load) -> Figures {
    let daemon = &load.daemon;
    let places = [daemon.data_dir().to_owned(), load.warehouse.clone()];
    // There may be many files.
    let walk = || places.map(|place| bytes_below(&place));
    let [disk, warehouse] = tokio::task::spawn_blocking(walk).await.expect("no panic");
    let descriptors = fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("Linux").count();
    let Seen { done, refused, churned } = &load.seen;
    let [done, refused, churned] =
        [done, refused, churned].map(|count| count.load(Ordering::Relaxed) as u64);
    Figures {
        resident: daemon.resident_bytes(),
        descriptors: descriptors as u64,
        tasks: metric(daemon, "oribi_runtime_tasks").await as u64,
        disk,
        warehouse,
        log: daemon.log_bytes(),
        statements: done + refused + CHURN * churned,
    }
}

/// Files may go while they are looked at.
fn bytes_below(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    bytes.sum()
}

/// Has this process, and the daemons that it starts, open as many files as so many clients need.
fn allow_descriptors(wanted: u64) {
    let limit = getrlimit(Resource::Nofile);
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= wanted);
    if enough(limit.current) {
        return;
    }
    assert!(enough(limit.maximum), "{wanted} open files are needed, see ulimit -Hn: {limit:?}");
    let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).expect("the limit can be raised");
}

/// What the clients have seen.
#[derive(Debug, Default)]
struct Seen {
    done: AtomicUsize,
    refused: AtomicUsize,
    churned: AtomicUsize,
}

struct Load {
    daemon: Daemon,
    warehouse: PathBuf,
    over: AtomicBool,
    seen: Seen,
}

impl Load {
    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    /// More of these than the pool has places: each statement has its answer, or is refused as it
    /// should be.
    async fn crowd(self: Arc<Self>) {
        let client = Client::connect_as(&self.daemon, "ann").await;
        while self.goes_on() {
            match client.try_rows(SUM.0).await {
                Ok(rows) => {
                    assert_eq!(rows, [[SUM.1]]);
                    self.seen.done.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => {
                    assert_eq!(db_error(&error).code().code(), FULL, "{error:?}");
                    self.seen.refused.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Asks for much, and reads it only when all else is over.
    async fn slow(self: Arc<Self>) {
        let client = self.daemon.connect().await;
        let mut rows = pin!(client.copy_out(LARGE.0).await.expect("it begins"));
        let first = rows.next().await.expect("a row").expect("a row");
        let mut bytes = first.len() as u64;
        while self.goes_on() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        while let Some(row) = rows.next().await {
            bytes += row.expect("the rest").len() as u64;
        }
        assert_eq!(bytes, LARGE.1);
    }

    /// Comes, makes a table, fills and reads it, submits a query, removes both and goes.
    async fn churn(self: Arc<Self>, number: usize) {
        let mut round = 0;
        while self.goes_on() {
            let client = Client::connect(&self.daemon).await;
            let table = format!("churn_{number}_{round}");
            client.rows(&format!("CREATE TABLE {table} (n int, s text)")).await;
            client
                .rows(&format!(
                    "INSERT INTO {table} SELECT x, 'x' FROM generate_series(1, 100) s(x)"
                ))
                .await;
            let sum = client.value(&format!("SELECT sum(n) FROM {table} WHERE s = 'x'")).await;
            assert_eq!(sum, "5050");
            let id =
                client.value(&format!("SELECT oribi.submit('SELECT max(n) FROM {table}')")).await;
            let state =
                client.value(&format!("SELECT oribi.wait('{id}', interval '4 minutes')")).await;
            assert_eq!(state, "succeeded");
            assert_eq!(client.value(&format!("SELECT * FROM oribi.result('{id}')")).await, "100");
            client.rows(&format!("DROP TABLE {table} PURGE")).await;
            self.seen.churned.fetch_add(1, Ordering::Relaxed);
            round += 1;
        }
    }

    /// When a small statement of somebody else was asked meanwhile, and how long it took.
    async fn probe(self: Arc<Self>) -> Vec<(Instant, Duration)> {
        let client = self.daemon.connect().await;
        let look = client.prepare("SELECT x FROM numbers WHERE x = $1").await.expect("a statement");
        let mut took = Vec::new();
        for number in (1i64..=100_000).cycle() {
            if !self.goes_on() {
                break;
            }
            let began = Instant::now();
            let row = client.query_one(&look, &[&number]).await.expect("a row");
            took.push((began, began.elapsed()));
            assert_eq!(row.get::<_, i64>(0), number);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        took
    }
}

/// The daemon has nothing to do any more, and holds no more than before.
async fn at_rest(load: &Load, before: Figures) {
    let rest = async || {
        let mut busy = BTreeMap::new();
        for name in ["oribi_connections", "oribi_memory_reserved_bytes", "oribi_queries"] {
            busy.insert(name, metric(&load.daemon, name).await);
        }
        let now = figures(load).await;
        busy.values().all(|value| *value == 0.0)
            && now.tasks <= before.tasks + LEFT
            && now.descriptors <= before.descriptors + LEFT
    };
    until(&format!("it is at rest as before, {before:?}"), rest).await;
}

/// A daemon for so many clients and some more, and what they ask for; with what it lies in.
async fn ready(clients: u64) -> (Cluster, Daemon) {
    let cluster = Cluster::with_warehouse()
        .with("ENGINE_MEMORY_LIMIT", &ENGINE_MEMORY.to_string())
        .with("CONNECTIONS_MAX", &(clients + 50).to_string());
    let daemon = cluster.start("a");
    let owner = Client::connect(&daemon).await;
    owner.rows("CREATE TABLE numbers AS SELECT x FROM generate_series(1, 100000) s(x)").await;
    owner.rows("CREATE ROLE ann LOGIN").await;
    owner.rows("GRANT SELECT ON numbers TO ann").await;
    owner.rows("CREATE POOL p WITH (concurrency = 4, queue = 16) TO ann").await;
    owner.rows("ALTER ROLE ann SET oribi.result_cache = off").await;
    drop(owner);
    until("the owner has gone", async || metric(&daemon, "oribi_connections").await == 0.0).await;
    (cluster, daemon)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_get_answers_and_leave_nothing() {
    let seconds = setting("ORIBI_LOAD_SECONDS", 10);
    let (idle, active) = (setting("ORIBI_LOAD_IDLE", 200), setting("ORIBI_LOAD_ACTIVE", 40));
    allow_descriptors(idle + active + OWN_DESCRIPTORS);
    let (cluster, daemon) = ready(idle + active).await;
    let (warehouse, over, seen) =
        (cluster.path("warehouse"), AtomicBool::new(false), Seen::default());
    let load = Arc::new(Load { daemon, warehouse, over, seen });
    let before = figures(&load).await;
    assert!(before.warehouse > 0, "a table lies in the warehouse: {before:?}");

    let mut waiting = Vec::new();
    for _ in 0..idle {
        let client = Client::connect(&load.daemon).await;
        client.rows("SELECT 1").await;
        waiting.push(client);
    }
    let mut clients = JoinSet::new();
    for _ in 0..active {
        clients.spawn(load.clone().crowd());
    }
    for number in 0..4 {
        clients.spawn(load.clone().slow());
        clients.spawn(load.clone().churn(number));
    }
    let probe = tokio::spawn(load.clone().probe());

    let began = Instant::now();
    let mut seen = vec![(Duration::ZERO, before)];
    let mut told = 0;
    while began.elapsed() < Duration::from_secs(seconds) {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = figures(&load).await;
        assert!(now.resident < ENGINE_MEMORY + MORE_MEMORY, "{now:?}");
        seen.push((began.elapsed(), now));
        if let Some(client) = clients.try_join_next() {
            client.expect("a client that is content");
            panic!("a client has ended before its time");
        }
        // Whoever waits for an hour sees how it goes.
        let part = began.elapsed().as_secs() * PARTS as u64 / seconds.max(1);
        if part > told && seconds >= LONG {
            told = part;
            println!("{:?}", seen[seen.len() - 1]);
        }
    }
    load.over.store(true, Ordering::Relaxed);
    while let Some(client) = clients.join_next().await {
        client.expect("a client that is content");
    }
    let took = probe.await.expect("a client that is content");
    // Idle ones are still served.
    for client in waiting {
        assert_eq!(client.value("SELECT 1").await, "1");
    }
    at_rest(&load, before).await;

    let Seen { done, refused, churned } = &load.seen;
    let [done, refused, churned] =
        [done, refused, churned].map(|count| count.load(Ordering::Relaxed));
    assert!(done > 0 && churned > 0 && !took.is_empty());
    // With so many there is no room for all.
    assert!(active <= 20 || refused > 0);
    println!(
        "{idle} idle, {active} active: {done} statements, {refused} refused, {churned} times churned"
    );
    tell(&took, &seen, began, Duration::from_secs(seconds));
    let rest = figures(&load).await;
    println!("at rest: {rest:?}");
    logs_little(&before, &rest);
    if seconds >= LONG {
        grows_no_more(&seen);
    }
}

/// How it went, part by part of a run.
fn tell(
    took: &[(Instant, Duration)],
    seen: &[(Duration, Figures)],
    began: Instant,
    length: Duration,
) {
    let all: Vec<Duration> = took.iter().map(|(_, took)| *took).collect();
    println!("small statement: {}", places(all));
    for part in 0..PARTS as u32 {
        let part_length = length / PARTS as u32;
        let (from, to) = (part_length * part, part_length * (part + 1));
        let of = |at: Duration| from <= at && at < to;
        let small = took.iter().filter(|(at, _)| of(at.saturating_duration_since(began)));
        let small = small.map(|(_, took)| *took).collect();
        let Some((_, last)) = seen.iter().rfind(|(at, _)| of(*at)) else { continue };
        println!("{from:?} to {to:?}: {}; {last:?}", places(small));
    }
}

fn places(mut took: Vec<Duration>) -> String {
    took.sort();
    let Some(last) = took.len().checked_sub(1) else { return "none".to_owned() };
    let place = |share: usize| took[last * share / 100];
    format!(
        "{} of them, p50 {:?}, p99 {:?}, max {:?}",
        took.len(),
        place(50),
        place(99),
        place(100)
    )
}

/// One of the figures.
type Figure = fn(&Figures) -> u64;

/// In the last tenth there is not much more than in the one before the middle.
fn grows_no_more(seen: &[(Duration, Figures)]) {
    let tenth = seen.len() / PARTS;
    let mean = |from: usize, of: Figure| {
        let part = &seen[from..from + tenth];
        part.iter().map(|(_, figures)| of(figures)).sum::<u64>() / tenth.max(1) as u64
    };
    let (middle, end) = (4 * tenth, seen.len() - tenth);
    let of: [(&str, Figure, u64); 5] = [
        ("memory", |figures| figures.resident, GROWN),
        ("descriptors", |figures| figures.descriptors, LEFT),
        ("tasks", |figures| figures.tasks, LEFT),
        ("disk", |figures| figures.disk, GROWN),
        ("warehouse", |figures| figures.warehouse, GROWN),
    ];
    for (name, of, more) in of {
        let (middle, end) = (mean(middle, of), mean(end, of));
        assert!(end <= middle + more, "{name} has grown from {middle} to {end}");
    }
    logs_little(&seen[5 * tenth].1, &seen[seen.len() - 1].1);
}

/// The log has grown with the statements only, and by little for each.
fn logs_little(before: &Figures, after: &Figures) {
    let (bytes, statements) = (after.log - before.log, after.statements - before.statements);
    let most = LOGGED + LOGGED_FOR_EACH * statements;
    assert!(bytes <= most, "{bytes} bytes of log for {statements} statements");
}
