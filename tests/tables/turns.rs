//! Daemons that change one table at the same time take turns at it, and who waits for a turn can be
//! told to stop.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Barrier;
use tokio::task::JoinHandle;
use tokio_postgres::NoTls;

use crate::crashes::assert_tidy;
use crate::support::{Client, Cluster, Store, bounded, metrics, until};

/// How many commits the first of several daemons has when the others are looked at.
const COMMITS: u64 = 60;

const TABLE: &str = "/catalog/oribi/t";

/// Nothing keeps house beside what is looked at.
fn quiet() -> Cluster {
    Cluster::with_warehouse().with("MAINTENANCE_INTERVAL", "none")
}

/// Somebody's place that is before all others.
const PLACE: &str = "/catalog/oribi/t/a-0000000000";

/// Another that is right behind.
const NEXT: &str = "/catalog/oribi/t/b-0000000000";

/// Others that have their turns at `t`, one after the other, until it is over: nobody is kept from
/// moving on by them for so long that it may pass them.
struct Others {
    over: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Others {
    /// A daemon's next commit finds them: the one before it has read that somebody waits.
    async fn come(client: &Client, cluster: &Cluster) -> Self {
        let store = Store::of(cluster).await;
        client.rows("INSERT INTO t VALUES (0)").await;
        store.create(PLACE, b"{}").await;
        client.rows("INSERT INTO t VALUES (0)").await;
        let over = Arc::<AtomicBool>::default();
        let stop = over.clone();
        let task = tokio::spawn(async move {
            let mut now = PLACE;
            while !stop.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(200)).await;
                let next = if now == PLACE { NEXT } else { PLACE };
                store.create(next, b"{}").await;
                store.delete(now).await;
                now = next;
            }
            store.delete(now).await;
        });
        Self { over, task }
    }

    async fn go(self) {
        self.over.store(true, Ordering::Relaxed);
        self.task.await.expect("nobody has taken their turns away");
    }
}

/// Waits until a daemon has a place behind the others.
async fn until_queued(store: &Store) {
    let own = |name: &String| !name.starts_with("a-") && !name.starts_with("b-");
    until("a place in the queue", async || store.children(TABLE).await.iter().any(own)).await;
}

/// Waits until there is no place left.
async fn until_nobody_waits(store: &Store) {
    until("an empty queue", async || store.children(TABLE).await.is_empty()).await;
}

/// Has a client of each daemon insert until one of them has enough; how many each had then.
async fn race<const N: usize>(ids: [&'static str; N]) {
    let cluster = quiet();
    let daemons = cluster.start_together(ids).await;
    let store = Store::of(&cluster).await;
    let client = Client::connect(&daemons[0]).await;
    client.rows("CREATE TABLE t (daemon int, n int)").await;
    let counts: Arc<[AtomicU64; N]> = Arc::new(std::array::from_fn(|_| AtomicU64::new(0)));
    let (mut writers, start) = (Vec::new(), Arc::new(Barrier::new(N)));
    for (number, daemon) in daemons.iter().enumerate() {
        let client = Client::connect(daemon).await;
        client.rows("SELECT * FROM t").await;
        let (counts, start) = (counts.clone(), start.clone());
        writers.push(tokio::spawn(async move {
            start.wait().await;
            while counts.iter().all(|count| count.load(Ordering::Relaxed) < COMMITS) {
                let n = counts[number].load(Ordering::Relaxed);
                client.rows(&format!("INSERT INTO t VALUES ({number}, {n})")).await;
                counts[number].fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    for writer in writers {
        writer.await.expect("all rows are taken");
    }
    let counts: Vec<u64> = counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    assert!(counts.iter().all(|count| *count >= COMMITS / 5), "{counts:?}");
    client.rows("SET oribi.consistency = 'strong'").await;
    let sql = "SELECT daemon, count(*), count(DISTINCT n) FROM t GROUP BY daemon ORDER BY daemon";
    let numbers = counts.iter().map(u64::to_string).enumerate();
    let expected: Vec<_> =
        numbers.map(|(daemon, count)| vec![daemon.to_string(), count.clone(), count]).collect();
    assert_eq!(client.rows(sql).await, expected);
    until_nobody_waits(&store).await;
    assert_tidy(&client, "t", "turns").await;
    let mut turns = 0.0;
    for daemon in &daemons {
        turns += sample(&metrics(daemon).await, "oribi_commit_turn_seconds_count");
    }
    assert!(turns > 0.0, "nobody has waited for a turn");
}

/// A number of a scrape.
fn sample(scrape: &str, name: &str) -> f64 {
    let value = scrape.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name}: {scrape}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_two_daemons_gets_its_part() {
    bounded(race(["a", "b"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_three_daemons_gets_its_part() {
    bounded(race(["a", "b", "c"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_turn_can_be_stopped() {
    bounded(async {
        let cluster = quiet();
        let daemon = cluster.start("a");
        let store = Store::of(&cluster).await;
        let client = Client::connect(&daemon).await;
        client.rows("CREATE TABLE t (n int)").await;
        client.rows("CREATE TABLE u (n int)").await;
        let others = Others::come(&client, &cluster).await;

        // Its time is up.
        let hasty = Client::connect(&daemon).await;
        hasty.rows("SET statement_timeout = '200ms'").await;
        assert_eq!(hasty.outcome("INSERT INTO t VALUES (1)").await, "57014");

        // A cancel request; what waits in the same place goes on waiting.
        let (other, stubborn) = (Client::connect(&daemon).await, Client::connect(&daemon).await);
        let token = other.cancel_token();
        let cancelled =
            tokio::spawn(async move { other.outcome("INSERT INTO t VALUES (2)").await });
        let done = tokio::spawn(async move { stubborn.outcome("INSERT INTO t VALUES (3)").await });
        let running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' \
                       AND query LIKE 'INSERT INTO t VALUES%'";
        until("both statements", async || client.value(running).await == "2").await;
        until_queued(&store).await;
        token.cancel_query(NoTls).await.expect("a cancel request");
        assert_eq!(cancelled.await.expect("it ends"), "57014");

        // A block of two tables, from another session.
        let block = Client::connect(&daemon).await;
        for sql in ["BEGIN", "INSERT INTO u VALUES (4)", "INSERT INTO t VALUES (4)"] {
            block.rows(sql).await;
        }
        let pid = block.value("SELECT pg_backend_pid()").await;
        let committed = tokio::spawn(async move {
            let outcome = block.outcome("COMMIT").await;
            (outcome, block.value("SELECT count(*) FROM u").await)
        });
        let commits = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' \
                       AND query = 'COMMIT'";
        until("the commit", async || client.value(commits).await == "1").await;
        assert_eq!(client.value(&format!("SELECT pg_cancel_backend({pid})")).await, "t");
        assert_eq!(committed.await.expect("it ends"), ("57014".to_owned(), "0".to_owned()));

        // A client that goes is not waited for, and what it has asked for is done.
        let gone = Client::connect(&daemon).await;
        let pid = gone.value("SELECT pg_backend_pid()").await;
        let connection = gone.connection.abort_handle();
        let lost = tokio::spawn(async move { gone.try_rows("INSERT INTO t VALUES (5)").await });
        until("its statement", async || client.value(running).await == "2").await;
        connection.abort();
        assert!(lost.await.expect("it ends").is_err());

        others.go().await;
        let there = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
        until("its session's end", async || client.value(&there).await == "0").await;
        assert_eq!(done.await.expect("it ends"), "");
        until_nobody_waits(&store).await;
        let rows = client.rows("SELECT n FROM t ORDER BY n").await.concat();
        assert_eq!(rows, ["0", "0", "3", "5"]);
        for table in ["t", "u"] {
            assert_tidy(&client, table, "cancelled commits").await;
        }
        assert!(sample(&metrics(&daemon).await, "oribi_commit_turn_seconds_count") > 0.0);
    })
    .await;
}

/// A block's own wait for a turn, not for other commits of its daemon.
#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_waits_for_a_turn_can_be_stopped() {
    bounded(async {
        let cluster = quiet();
        let daemon = cluster.start("a");
        let store = Store::of(&cluster).await;
        let client = Client::connect(&daemon).await;
        client.rows("CREATE TABLE t (n int)").await;
        client.rows("CREATE TABLE u (n int)").await;
        let others = Others::come(&client, &cluster).await;
        let block = Client::connect(&daemon).await;
        for sql in ["BEGIN", "INSERT INTO u VALUES (4)", "INSERT INTO t VALUES (4)"] {
            block.rows(sql).await;
        }
        let token = block.cancel_token();
        let committed = tokio::spawn(async move { block.outcome("COMMIT").await });
        until_queued(&store).await;
        token.cancel_query(NoTls).await.expect("a cancel request");
        assert_eq!(committed.await.expect("it ends"), "57014");
        others.go().await;
        until_nobody_waits(&store).await;
        assert_eq!(client.rows("SELECT n FROM t").await.concat(), ["0", "0"]);
        for table in ["t", "u"] {
            assert_tidy(&client, table, "a cancelled block").await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_move_on_is_passed() {
    bounded(async {
        let cluster = quiet();
        let daemon = cluster.start("a");
        let store = Store::of(&cluster).await;
        let client = Client::connect(&daemon).await;
        client.rows("CREATE TABLE t (n int)").await;
        store.create(PLACE, b"{}").await;
        for n in 0..2 {
            client.rows(&format!("INSERT INTO t VALUES ({n})")).await;
        }
        until_nobody_waits(&store).await;
        // Nor are places in the way of whoever renames or drops the table.
        store.create(PLACE, b"{}").await;
        client.rows("ALTER TABLE t RENAME TO s").await;
        assert_eq!(client.value("SELECT count(*) FROM s").await, "2");
        store.create("/catalog/oribi/s/a-0000000000", b"{}").await;
        client.rows("DROP TABLE s").await;
        assert!(store.children("/catalog/oribi").await.is_empty());
        client.rows("CREATE SCHEMA x").await;
        client.rows("CREATE TABLE x.t (n int)").await;
        store.create("/catalog/oribi/x.t/a-0000000000", b"{}").await;
        client.rows("DROP SCHEMA x CASCADE").await;
        assert!(store.children("/catalog/oribi").await.is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_of_a_stopped_commit_is_true() {
    bounded(async {
        let cluster = quiet();
        let daemons = cluster.start_together(["a", "b"]).await;
        let client = Client::connect(&daemons[0]).await;
        client.rows("CREATE TABLE t (n int)").await;
        let mut writers = Vec::new();
        for (number, daemon) in [0, 1, 0, 1, 0, 1].iter().map(|at| &daemons[*at]).enumerate() {
            let client = Client::connect(daemon).await;
            client.rows("SELECT * FROM t").await;
            writers.push(tokio::spawn(async move {
                let (mut done, mut stopped) = (Vec::new(), 0);
                for n in 0..30 {
                    let n = number * 1000 + n;
                    // From too short for anything to long enough for most.
                    let set = format!("SET statement_timeout = {}", 1 + n * 37 % 150);
                    // The time of this one may be up as well.
                    while !client.outcome(&set).await.is_empty() {}
                    match client.outcome(&format!("INSERT INTO t VALUES ({n})")).await.as_str() {
                        "" => done.push(n),
                        code => {
                            assert_eq!(code, "57014");
                            stopped += 1;
                        }
                    }
                }
                (done, stopped)
            }));
        }
        let (mut done, mut stopped) = (BTreeSet::new(), 0);
        for writer in writers {
            let (rows, times) = writer.await.expect("only its time may be up");
            done.extend(rows.iter().map(usize::to_string));
            stopped += times;
        }
        client.rows("SET oribi.consistency = 'strong'").await;
        let found = client.rows("SELECT n FROM t").await.concat();
        let rows: BTreeSet<String> = found.iter().cloned().collect();
        assert_eq!((rows.len(), rows), (found.len(), done));
        assert!(stopped > 0, "nothing was stopped");
        assert_tidy(&client, "t", "stopped commits").await;
    })
    .await;
}
