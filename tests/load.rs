//! Many clients at once: most of them idle, more statements than there is room for, some who do not read
//! what they have asked for, and clients, tables and queries that come and go.
//!
//! `ORIBI_LOAD_SECONDS`, `ORIBI_LOAD_IDLE` and `ORIBI_LOAD_ACTIVE` make it longer and larger.

mod common;

#[path = "cluster/support.rs"]
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
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

async fn figures(daemon: &Daemon) -> Figures {
    let descriptors = fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("Linux").count();
    Figures {
        resident: daemon.resident_bytes(),
        descriptors: descriptors as u64,
        tasks: metric(daemon, "oribi_runtime_tasks").await as u64,
    }
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

    /// How long a small statement of somebody else takes meanwhile.
    async fn probe(self: Arc<Self>) -> Vec<Duration> {
        let client = self.daemon.connect().await;
        let look = client.prepare("SELECT x FROM numbers WHERE x = $1").await.expect("a statement");
        let mut took = Vec::new();
        for number in (1i64..=100_000).cycle() {
            if !self.goes_on() {
                break;
            }
            let began = Instant::now();
            let row = client.query_one(&look, &[&number]).await.expect("a row");
            took.push(began.elapsed());
            assert_eq!(row.get::<_, i64>(0), number);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        took.sort();
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
        let now = figures(&load.daemon).await;
        busy.values().all(|value| *value == 0.0)
            && now.tasks <= before.tasks + LEFT
            && now.descriptors <= before.descriptors + LEFT
    };
    until(&format!("it is at rest as before, {before:?}"), rest).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_get_answers_and_leave_nothing() {
    let seconds = setting("ORIBI_LOAD_SECONDS", 10);
    let (idle, active) = (setting("ORIBI_LOAD_IDLE", 200), setting("ORIBI_LOAD_ACTIVE", 40));
    let cluster = Cluster::with_warehouse()
        .with("ENGINE_MEMORY_LIMIT", &ENGINE_MEMORY.to_string())
        .with("CONNECTIONS_MAX", &(idle + active + 50).to_string());
    let daemon = cluster.start("a");
    let owner = Client::connect(&daemon).await;
    owner.rows("CREATE TABLE numbers AS SELECT x FROM generate_series(1, 100000) s(x)").await;
    owner.rows("CREATE ROLE ann LOGIN").await;
    owner.rows("GRANT SELECT ON numbers TO ann").await;
    owner.rows("CREATE POOL p WITH (concurrency = 4, queue = 16) TO ann").await;
    owner.rows("ALTER ROLE ann SET oribi.result_cache = off").await;
    drop(owner);
    until("the owner has gone", async || metric(&daemon, "oribi_connections").await == 0.0).await;
    let before = figures(&daemon).await;
    let load = Arc::new(Load { daemon, over: AtomicBool::new(false), seen: Seen::default() });

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
    while began.elapsed() < Duration::from_secs(seconds) {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = figures(&load.daemon).await;
        assert!(now.resident < ENGINE_MEMORY + MORE_MEMORY, "{now:?}");
        seen.push((began.elapsed(), now));
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
    let place = |share: usize| took[(took.len() - 1) * share / 100];
    println!("small statement: p50 {:?}, p99 {:?}, max {:?}", place(50), place(99), place(100));
    for at in [0, 1, seen.len() / 2, seen.len() - 1] {
        println!("{:?}", seen[at]);
    }
    println!("at rest: {:?}", figures(&load.daemon).await);
}
