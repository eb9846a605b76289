//! Queries that are submitted on one daemon and fetched from another: the way in and out, what
//! happens when the daemon that works on one dies, and that each is carried out once.

mod common;

#[path = "submitted/claims.rs"]
mod claims;
#[path = "submitted/inbox.rs"]
mod inbox;
#[path = "submitted/listed.rs"]
mod listed;
#[path = "submitted/pools.rs"]
mod pools;
#[path = "coordination/proxy.rs"]
mod proxy;
#[path = "submitted/refused.rs"]
mod refused;
#[path = "cluster/support.rs"]
mod support;
#[path = "submitted/waits.rs"]
mod waits;

use std::time::{Duration, Instant};

use common::daemon::eventually;
use common::zookeeper;
use support::*;

/// Three daemons that share a warehouse.
async fn three() -> (Cluster, [Daemon; 3]) {
    three_with(&[]).await
}

/// The same with these settings.
async fn three_with(settings: &[(&str, &str)]) -> (Cluster, [Daemon; 3]) {
    let mut cluster = Cluster::on_shared_zookeeper();
    for (name, value) in settings {
        cluster = cluster.with(name, value);
    }
    let warehouse = cluster.path("warehouse").display().to_string();
    let cluster = cluster.with("WAREHOUSE", &warehouse);
    let daemons = cluster.start_all(["a", "b", "c"]);
    let client = Client::connect(&daemons[0]).await;
    all_ready(&client, &["a", "b", "c"]).await;
    (cluster, daemons)
}

/// Submits a query; its id.
async fn submit(client: &Client, sql: &str) -> String {
    client.value(&format!("SELECT oribi.submit($${sql}$$)")).await
}

async fn wait(client: &Client, id: &str) -> String {
    client.value(&format!("SELECT oribi.wait('{id}', '60s')")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_is_submitted_here_and_fetched_there() {
    bounded(async {
        let (_cluster, daemons) = three().await;
        let [a, b, c] = [
            Client::connect(&daemons[0]).await,
            Client::connect(&daemons[1]).await,
            Client::connect(&daemons[2]).await,
        ];
        let id = submit(
            &a,
            "SELECT x, x * 1.5 AS y, 'n' || x AS name, NULL::date AS d \
                             FROM generate_series(1, 1000) s(x)",
        )
        .await;
        assert_eq!(wait(&b, &id).await, "succeeded");
        let waited = format!("SELECT oribi.wait('{id}', interval '1 minute')");
        assert_eq!(c.value(&waited).await, "succeeded");
        let rows = c.rows(&format!("SELECT * FROM oribi.result('{id}') ORDER BY x LIMIT 2")).await;
        assert_eq!(rows, [["1", "1.5", "n1", ""], ["2", "3.0", "n2", ""]]);
        let count = format!("SELECT count(*), sum(y) FROM oribi.result('{id}') r");
        assert_eq!(a.rows(&count).await, [["1000", "750750.0"]]);
        let listed = b
            .rows(&format!(
                "SELECT kind, state, attempt, \"user\" FROM system.queries WHERE id = '{id}'"
            ))
            .await;
        assert_eq!(listed, [["submitted", "succeeded", "1", "oribi"]]);
        // What fails says why, with the code that it would have had.
        let id = submit(&a, "SELECT 1 / (x - 1) FROM generate_series(1, 3) s(x)").await;
        assert_eq!(wait(&a, &id).await, "failed");
        let error = c.refused(&format!("SELECT * FROM oribi.result('{id}')")).await;
        assert_eq!(error.code().code(), "55000");
        assert!(error.message().contains("division by zero"), "{error}");
        // What is no query is refused at once.
        for (sql, code) in [
            ("SELEC 1", "42601"),
            ("SELECT 1; SELECT 2", "42601"),
            ("DELETE FROM pg_class RETURNING 1", "0A000"),
        ] {
            let error = a.refused(&format!("SELECT oribi.submit($${sql}$$)")).await;
            assert_eq!(error.code().code(), code, "{sql}: {error}");
        }
        // What would not fit into its record with its end is refused, or fails.
        let long = "x".repeat(50_000);
        let submit_long =
            format!("SELECT oribi.submit('SELECT 1', '{{\"settings\": {{\"a.b\": \"{long}\"}}}}')");
        assert_eq!(a.refused(&submit_long).await.code().code(), "54000");
        let wide: Vec<String> = (0..1700).map(|at| format!("1 AS column_{at}")).collect();
        let id = submit(&a, &format!("SELECT {}", wide.join(", "))).await;
        assert_eq!(wait(&b, &id).await, "failed");
        let error = a.refused(&format!("SELECT * FROM oribi.result('{id}')")).await;
        assert!(error.message().contains("1700 columns"), "{error}");
        let error = a.refused("SELECT oribi.wait('nothing')").await;
        assert_eq!(error.code().code(), "42704");
    })
    .await;
}

/// Rows come back as they would have come at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_of_all_types_come_back() {
    bounded(async {
        let (_cluster, daemons) = three().await;
        let client = Client::connect(&daemons[0]).await;
        for sql in [
            "SELECT NULL, true, 1::smallint, 2::int, 3::bigint, 1.5::real, 2.5::float8, 1.50::numeric",
            "SELECT 'x'::text, 'y'::name, 'z'::varchar(3), '\\xdead'::bytea, '{\"a\": [1]}'::json",
            "SELECT date '2026-11-28', time '10:11:12.5', timestamp '2026-11-28 10:11:12.123456', \
             timestamptz '2026-11-28 10:11:12+02', uuid '00000000-0000-0000-0000-00000000002a'",
            "SELECT interval '1 month 2 days 03:04:05.5', interval '-3 hours', NULL::interval",
            "SELECT ARRAY[1, 2, NULL], ARRAY['a', NULL], ARRAY[1.5, 2.25]",
            "SELECT ARRAY[interval '1 month 2 days', NULL, interval '-03:04:05.5']",
            "SELECT 1 AS a, 2 AS a, 3 AS b",
            "SELECT * FROM pg_type ORDER BY oid LIMIT 5",
            "VALUES (1, 'a'), (2, NULL)",
            "SELECT 1 WHERE false",
            "EXPLAIN SELECT 1",
        ] {
            let id = submit(&client, sql).await;
            assert_eq!(wait(&client, &id).await, "succeeded", "{sql}");
            let result = format!("SELECT * FROM oribi.result('{id}')");
            assert_eq!(client.rows(&result).await, client.rows(sql).await, "{sql}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_makes_one_query_of_two_submissions() {
    bounded(async {
        let (_cluster, daemons) = three().await;
        let (a, b) = (Client::connect(&daemons[0]).await, Client::connect(&daemons[1]).await);
        a.rows("CREATE TABLE t (x INT)").await;
        let sql = "SELECT oribi.submit('INSERT INTO t VALUES (1)', '{\"key\": \"once\"}')";
        let (first, second) = (a.value(sql).await, b.value(sql).await);
        assert_eq!(first, second);
        assert_eq!(wait(&b, &first).await, "succeeded");
        assert_eq!(a.value(sql).await, first);
        assert_eq!(b.value("SELECT count(*) FROM t").await, "1");
        let other = a.refused("SELECT oribi.submit('SELECT 1', '{\"key\": \"once\"}')").await;
        assert_eq!(other.code().code(), "22023");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_see_a_query_learns_nothing_of_it() {
    bounded(async {
        let (_cluster, daemons) = three().await;
        let client = Client::connect(&daemons[0]).await;
        client.rows("CREATE ROLE ann LOGIN; CREATE ROLE bob LOGIN; CREATE TABLE t (x INT)").await;
        let id = submit(&client, "SELECT 1 AS secret").await;
        assert_eq!(wait(&client, &id).await, "succeeded");
        let ann = Client::connect_as(&daemons[1], "ann").await;
        for sql in [
            format!("SELECT * FROM oribi.result('{id}')"),
            format!("SELECT oribi.wait('{id}')"),
            format!("SELECT oribi.cancel('{id}')"),
            format!("SELECT oribi.status('{id}')"),
            format!("SELECT oribi.record('{id}')"),
        ] {
            assert_eq!(ann.refused(&sql).await.code().code(), "42501", "{sql}");
        }
        // Who watches over the cluster knows of it, and not what it has read.
        client.rows("GRANT pg_read_all_stats TO ann").await;
        let asked = format!("SELECT oribi.record('{id}')");
        // The other daemon hears of the grant.
        let known = async || ann.outcome(&asked).await.is_empty().then_some(());
        eventually("the grant is known", known).await;
        let record = ann.value(&asked).await;
        assert!(record.contains("SELECT 1 AS secret") && !record.contains("\"rows\""), "{record}");
        let sql = format!("SELECT * FROM oribi.result('{id}')");
        assert_eq!(ann.refused(&sql).await.code().code(), "42501");
        client.rows("REVOKE pg_read_all_stats FROM ann").await;
        // It runs with the rights of who has submitted it.
        let id = submit(&ann, "SELECT * FROM t").await;
        assert_eq!(wait(&ann, &id).await, "failed");
        let error = ann.refused(&format!("SELECT * FROM oribi.result('{id}')")).await;
        assert!(error.message().contains("permission denied for table t"), "{error}");
        let bob = Client::connect_as(&daemons[2], "bob").await;
        let id = submit(&bob, "SELECT current_user").await;
        assert_eq!(wait(&bob, &id).await, "succeeded");
        assert_eq!(bob.value(&format!("SELECT * FROM oribi.result('{id}')")).await, "bob");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_is_cancelled_wherever_it_runs() {
    bounded(async {
        let (_cluster, daemons) = three().await;
        let client = Client::connect(&daemons[0]).await;
        let id = submit(&client, ENDLESS).await;
        let state = format!("SELECT oribi.status('{id}')");
        until("it runs", async || client.value(&state).await == "running").await;
        assert_eq!(client.value(&format!("SELECT oribi.cancel('{id}')")).await, "t");
        assert_eq!(wait(&client, &id).await, "cancelled");
        assert_eq!(client.value(&format!("SELECT oribi.cancel('{id}')")).await, "f");
        until("nothing of it runs any more", async || {
            let mut running = 0;
            for daemon in &daemons {
                let client = Client::connect(daemon).await;
                let sql = "SELECT count(*) FROM pg_stat_activity \
                           WHERE application_name LIKE 'submitted %'";
                running += client.value(sql).await.parse::<u32>().expect("a number");
            }
            running == 0
        })
        .await;
    })
    .await;
}

/// The id of the daemon that works on a query.
async fn worker(client: &Client, id: &str) -> String {
    let sql = format!(
        "SELECT daemon FROM system.queries WHERE id = '{id}' AND kind = 'submitted' \
         AND state = 'running'"
    );
    let mut found = String::new();
    until("somebody works on it", async || {
        found = client.value(&sql).await;
        !found.is_empty()
    })
    .await;
    found
}

/// A number from the environment.
fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |value| value.parse().expect("a number"))
}

/// As often as `ORIBI_KILL_TRIALS` says; prints how long it took.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_goes_on_when_the_daemon_of_a_query_dies() {
    let trials = number("ORIBI_KILL_TRIALS", 1);
    let (cluster, daemons) = three().await;
    let names = ["a", "b", "c"];
    let mut daemons: Vec<Daemon> = daemons.into_iter().collect();
    let mut took = Vec::new();
    for _ in 0..trials {
        bounded(async {
            let client = Client::connect(&daemons[0]).await;
            all_ready(&client, &names).await;
            let id = submit(&client, SLOW.0).await;
            let first = worker(&client, &id).await;
            let at = names.iter().position(|name| *name == first).expect("one of them");
            let other = Client::connect(&daemons[(at + 1) % 3]).await;
            daemons[at].kill();
            let killed = Instant::now();
            let next =
                format!("SELECT daemon FROM system.queries WHERE id = '{id}' AND attempt = 2");
            while other.value(&next).await.is_empty() {
                // Long before the session of the dead one ends.
                assert!(killed.elapsed() < SESSION_TIMEOUT / 2, "no peer has it");
            }
            took.push(killed.elapsed());
            assert_eq!(wait(&other, &id).await, "succeeded");
            let result = format!("SELECT * FROM oribi.result('{id}')");
            assert_eq!(other.value(&result).await, SLOW.1);
            daemons[at] = cluster.start(names[at]);
        })
        .await;
    }
    took.sort();
    println!(
        "{trials} kills: a peer had the next attempt after {:?}, at worst {:?}",
        took[took.len() / 2],
        took[took.len() - 1]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_was_stopped_and_wakes_up_completes_nothing() {
    bounded(async {
        let (_cluster, daemons) = three().await;
        let names = ["a", "b", "c"];
        let client = Client::connect(&daemons[0]).await;
        client.rows("CREATE TABLE t (n BIGINT)").await;
        let id = submit(&client, &format!("INSERT INTO t {}", SLOW.0)).await;
        let first = worker(&client, &id).await;
        let at = names.iter().position(|name| *name == first).expect("one of them");
        let other = Client::connect(&daemons[(at + 1) % 3]).await;
        daemons[at].pause();
        assert_eq!(wait(&other, &id).await, "succeeded");
        daemons[at].resume();
        let awake = Client::connect(&daemons[at]).await;
        until("it has nothing left to do", async || {
            let sql = "SELECT count(*) FROM pg_stat_activity \
                       WHERE application_name LIKE 'submitted %'";
            awake.value(sql).await == "0"
        })
        .await;
        assert_eq!(other.rows("SELECT count(*), sum(n) FROM t").await, [["1", SLOW.1]]);
        let listed = format!("SELECT state, attempt FROM system.queries WHERE id = '{id}'");
        assert_eq!(other.rows(&listed).await, [["succeeded", "2"]]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_kills_daemons_ends_as_failed() {
    bounded(async {
        let (cluster, daemons) = three().await;
        let names = ["a", "b", "c"];
        let mut daemons: Vec<Daemon> = daemons.into_iter().collect();
        let client = Client::connect(&daemons[0]).await;
        let id = submit(&client, ENDLESS).await;
        for attempt in 1..=3 {
            let mut at = None;
            until("somebody works on it", async || {
                for daemon in &daemons {
                    let Ok(client) = Client::try_connect(daemon).await else { continue };
                    let sql = format!(
                        "SELECT daemon FROM system.queries WHERE id = '{id}' \
                         AND attempt = {attempt} AND state = 'running'"
                    );
                    let found = client.value(&sql).await;
                    at = names.iter().position(|name| *name == found);
                    return at.is_some();
                }
                false
            })
            .await;
            let at = at.expect("found");
            daemons[at].kill();
            daemons[at] = cluster.start(names[at]);
        }
        let client = Client::connect(&daemons[0]).await;
        assert_eq!(wait(&client, &id).await, "failed");
        let error = client.refused(&format!("SELECT * FROM oribi.result('{id}')")).await;
        assert!(error.message().contains("3 attempts"), "{error}");
    })
    .await;
}

/// Waits for the end of a query, and says why if it is none to be glad of.
async fn succeeds(client: &Client, id: &str, sql: &str) {
    let state = wait(client, id).await;
    let error = format!("SELECT error FROM system.queries WHERE id = '{id}'");
    if state != "succeeded" {
        panic!("{id}, {sql}: {state}: {:?}", client.rows(&error).await);
    }
}

/// For as many seconds as `ORIBI_KILL_SECONDS` says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_made_exactly_once_whoever_dies() {
    // A query may be met again and again.
    let settings = [("SUBMITTED_HISTORY", "1000000"), ("SUBMITTED_ATTEMPTS", "20")];
    let (cluster, daemons) = three_with(&settings).await;
    let names = ["a", "b", "c"];
    let mut daemons: Vec<Daemon> = daemons.into_iter().collect();
    let client = Client::connect(&daemons[0]).await;
    client
        .rows(
            "CREATE TABLE t (n BIGINT); CREATE TABLE counted (n BIGINT); CREATE TABLE gone (n BIGINT); \
             INSERT INTO counted VALUES (0); INSERT INTO gone SELECT * FROM generate_series(0, 100000)",
        )
        .await;
    let end = Instant::now() + Duration::from_secs(number("ORIBI_KILL_SECONDS", 8));
    let (mut turn, mut pending) = (0, Vec::new());
    let (mut inserts, mut updates, mut deletes, mut tables) = (0, 0, 0, 0);
    while Instant::now() < end {
        bounded(async {
            let client = Client::connect(&daemons[(turn + 1) % 3]).await;
            for _ in 0..4 {
                let insert = format!("INSERT INTO t SELECT {inserts}");
                inserts += 1;
                pending.push((submit(&client, &insert).await, insert));
            }
            for sql in [
                "UPDATE counted SET n = n + 1".to_owned(),
                format!("DELETE FROM gone WHERE n = {deletes}"),
                format!("CREATE TABLE made{tables} AS SELECT {tables} AS n"),
            ] {
                pending.push((submit(&client, &sql).await, sql));
            }
            (updates, deletes, tables) = (updates + 1, deletes + 1, tables + 1);
            daemons[turn % 3].kill();
            daemons[turn % 3] = cluster.start(names[turn % 3]);
            turn += 1;
            // Not more than the cluster gets done.
            let client = Client::connect(&daemons[turn % 3]).await;
            let before = pending.len().saturating_sub(40);
            for (id, sql) in pending.drain(..before) {
                succeeds(&client, &id, &sql).await;
            }
        })
        .await;
    }
    bounded(async {
        let client = Client::connect(&daemons[0]).await;
        for (id, sql) in pending {
            succeeds(&client, &id, &sql).await;
        }
        let counted = client.rows("SELECT count(*), count(DISTINCT n) FROM t").await;
        let expected = inserts.to_string();
        assert_eq!(counted, [[expected.as_str(), expected.as_str()]]);
        assert_eq!(client.rows("SELECT n FROM counted").await, [[updates.to_string()]]);
        let left = client.value("SELECT count(*) FROM gone").await;
        assert_eq!(left, (100_001 - deletes).to_string());
        for table in 0..tables {
            let rows = client.rows(&format!("SELECT n FROM made{table}")).await;
            assert_eq!(rows, [[table.to_string()]]);
        }
    })
    .await;
    println!(
        "{turn} kills; {inserts} INSERT, {updates} UPDATE, {deletes} DELETE, {tables} CREATE TABLE AS, \
         each once"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_is_shut_down_gives_its_queries_back() {
    bounded(async {
        let (_cluster, daemons) = three_with(&[("SUBMITTED_ATTEMPTS", "1")]).await;
        let names = ["a", "b", "c"];
        let client = Client::connect(&daemons[0]).await;
        let id = submit(&client, SLOW.0).await;
        let first = worker(&client, &id).await;
        let at = names.iter().position(|name| *name == first).expect("one of them");
        let other = Client::connect(&daemons[(at + 1) % 3]).await;
        daemons[at].terminate();
        assert_eq!(wait(&other, &id).await, "succeeded");
        let result = format!("SELECT * FROM oribi.result('{id}')");
        assert_eq!(other.value(&result).await, SLOW.1);
        let listed = format!("SELECT attempt FROM system.queries WHERE id = '{id}'");
        assert_eq!(other.value(&listed).await, "2");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_queue_has_an_end() {
    bounded(async {
        let settings = [("SUBMITTED_QUEUE", "4"), ("SUBMITTED_RUNNING", "1")];
        let (cluster, daemons) = three_with(&settings).await;
        let client = Client::connect(&daemons[0]).await;
        let mut ids = Vec::new();
        for _ in 0..4 {
            ids.push(submit(&client, ENDLESS).await);
        }
        let refused = client.refused("SELECT oribi.submit('SELECT 1')").await;
        assert_eq!(refused.code().code(), "53400");
        // As many letters wait; the others are told.
        let store = Store::of(&cluster).await;
        for number in 0..6 {
            store.create(&format!("/inbox/q-{number}"), b"SELECT 1").await;
        }
        for number in [4, 5] {
            let path = format!("/queries/q-{number}");
            until("one letter too many is refused", async || {
                let record = store.get(&path).await;
                record.is_some_and(|record| record["error"]["sqlstate"] == "53400")
            })
            .await;
        }
        assert_eq!(store.children("/inbox").await.len(), 4);
        // One runs on each daemon.
        until("three run", async || {
            let sql = "SELECT count(*) FROM system.queries WHERE kind = 'submitted' AND state = 'running'";
            client.value(sql).await == "3"
        })
        .await;
        let waiting = "SELECT count(*) FROM system.queries \
                       WHERE kind = 'submitted' AND state = 'queued'";
        assert_eq!(client.value(waiting).await, "1");
        for id in &ids {
            client.value(&format!("SELECT oribi.cancel('{id}')")).await;
        }
        for number in 0..4 {
            until("the letters are read then", async || {
                let record = store.get(&format!("/queries/q-{number}")).await;
                record.is_some_and(|record| record["state"] == "succeeded")
            })
            .await;
        }
        // Nothing is left of what has ended.
        until("no claim is left", async || store.children("/claims").await.is_empty()).await;
        assert!(store.children("/queue").await.is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_queries_go_with_their_rows() {
    bounded(async {
        let (cluster, daemons) = three_with(&[("SUBMITTED_KEEP", "1s")]).await;
        let client = Client::connect(&daemons[0]).await;
        let id = submit(&client, "SELECT 1").await;
        assert_eq!(wait(&client, &id).await, "succeeded");
        let store = Store::of(&cluster).await;
        let path = format!("/queries/{id}");
        until("its record is gone", async || store.get(&path).await.is_none()).await;
        let results = cluster.path("warehouse").join(".results");
        until("its rows are gone", async || {
            let clusters = std::fs::read_dir(&results).expect("a directory of results");
            clusters.flatten().all(|cluster| {
                let queries = std::fs::read_dir(cluster.path()).expect("a cluster's directory");
                queries.flatten().all(|query| {
                    std::fs::read_dir(query.path()).is_ok_and(|mut files| files.next().is_none())
                })
            })
        })
        .await;
        let gone = client.refused(&format!("SELECT * FROM oribi.result('{id}')")).await;
        assert_eq!(gone.code().code(), "42704");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_is_in_nobodys_way() {
    bounded(async {
        let (_cluster, daemons) = three_with(&[("CONNECTIONS_MAX", "1000")]).await;
        let client = Client::connect(&daemons[0]).await;
        let id = submit(&client, ENDLESS).await;
        // More than the engine could have threads.
        let mut waiting = Vec::new();
        for _ in 0..600 {
            let client = Client::connect(&daemons[0]).await;
            let sql = format!("SELECT oribi.wait('{id}', '1h')");
            waiting.push(tokio::spawn(async move { client.value(&sql).await }));
        }
        let waiters = "SELECT count(*) FROM pg_stat_activity \
                       WHERE state = 'active' AND query LIKE 'SELECT oribi.wait%'";
        until("all of them wait", async || client.value(waiters).await == "600").await;
        assert_eq!(client.value("SELECT count(*) FROM generate_series(1, 10)").await, "10");
        // One that is cancelled ends at once.
        let stopped = Client::connect(&daemons[0]).await;
        let cancel = stopped.cancel_token();
        let sql = format!("SELECT oribi.wait('{id}', '1h')");
        let (answer, ()) = tokio::join!(stopped.try_rows(&sql), async {
            until("it waits, too", async || client.value(waiters).await == "601").await;
            cancel.cancel_query(tokio_postgres::NoTls).await.expect("it is told");
        });
        assert_eq!(db_error(&answer.expect_err("it is stopped")).code().code(), "57014");
        client.value(&format!("SELECT oribi.cancel('{id}')")).await;
        for waiting in waiting {
            assert_eq!(waiting.await.expect("no panic"), "cancelled");
        }
    })
    .await;
}

/// Makes `t`, four files of which a statement that joins them with `many` reads a little at a time.
async fn read_slowly(client: &Client) -> &'static str {
    client.rows("CREATE TABLE many AS SELECT y FROM generate_series(1, 10000) s(y)").await;
    let rows = "SELECT x FROM generate_series(1, 500000) s(x)";
    client.rows(&format!("CREATE TABLE t AS {rows}")).await;
    for _ in 0..3 {
        client.rows(&format!("INSERT INTO t {rows}")).await;
    }
    "SELECT count(*) FROM t CROSS JOIN many WHERE (t.x * many.y) % 7 = 3"
}

/// How far a query is, in its record and in `system.queries`, is told while it runs, and grows as often
/// as this.
async fn tells_how_far_it_is(client: &Client, store: &Store, id: &str, times: usize) {
    let path = format!("/queries/{id}");
    let listed = format!("SELECT progress FROM system.queries WHERE id = '{id}'");
    let mut seen: Vec<f64> = Vec::new();
    until("it is seen to get on", async || {
        let record = store.get(&path).await.expect("a record");
        assert!(matches!(record["state"].as_str(), Some("queued" | "running")), "{record}");
        let Some(progress) = record["progress"].as_f64() else { return false };
        if seen.last().is_none_or(|last| *last != progress) {
            seen.push(progress);
            let listed: f64 = client.value(&listed).await.parse().expect("a number");
            assert!(listed >= progress, "{listed} of {progress}");
        }
        seen.len() > times
    })
    .await;
    assert!(seen.is_sorted() && seen.iter().all(|part| (0.0..=1.0).contains(part)), "{seen:?}");
    client.value(&format!("SELECT oribi.cancel('{id}')")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_far_a_query_is_can_be_seen() {
    bounded(async {
        let (cluster, daemons) = three().await;
        let client = Client::connect(&daemons[0]).await;
        let store = Store::of(&cluster).await;
        let slow = read_slowly(&client).await;
        // On one daemon, and on three: there it is what its own daemon has read of its share, which may be
        // all there is long before the others have read theirs.
        for (distribution, times) in [("off", 2), ("always", 0)] {
            let options =
                format!("{{\"settings\": {{\"oribi.distribution\": \"{distribution}\"}}}}");
            let submit = format!("SELECT oribi.submit('{slow}', '{options}')");
            let id = client.value(&submit).await;
            tells_how_far_it_is(&client, &store, &id, times).await;
        }
        let id = submit(&client, "SELECT count(*) FROM t").await;
        assert_eq!(wait(&client, &id).await, "succeeded");
        let record = store.get(&format!("/queries/{id}")).await.expect("a record");
        assert_eq!(record["progress"], 1.0);
    })
    .await;
}

/// With nothing but what ZooKeeper comes with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn zk_cli_submits_a_query_and_reads_its_answer() {
    bounded(async {
        let (cluster, _daemons) = three().await;
        let (_, chroot) = cluster.zookeeper().split_once('/').expect("a chroot");
        let server = zookeeper::shared();
        let create = format!("create -s /{chroot}/inbox/q- \"SELECT 40 + 2 AS answer\"");
        let created = server.cli(&[&create]);
        let told = format!("Created /{chroot}/inbox/");
        let at = created.find(&told).unwrap_or_else(|| panic!("not created: {created}"));
        let id = created[at + told.len()..].split_whitespace().next().expect("a name");
        let get = format!("get /{chroot}/queries/{id}");
        let mut answer = String::new();
        until("the answer is there", async || {
            answer = server.cli(&[&get]);
            answer.contains("\"succeeded\"")
        })
        .await;
        assert!(answer.contains("\"rows\":[[42]]"), "{answer}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_letter_in_the_inbox_becomes_a_query() {
    bounded(async {
        let (cluster, daemons) = three().await;
        let client = Client::connect(&daemons[0]).await;
        let store = Store::of(&cluster).await;
        store.create("/inbox/q-1", b"SELECT 40 + 2 AS answer, 'x' AS text").await;
        until("it is done", async || {
            let record = store.get("/queries/q-1").await;
            record.is_some_and(|record| record["state"] == "succeeded")
        })
        .await;
        let record = store.get("/queries/q-1").await.expect("a record");
        assert_eq!(record["outcome"]["rows"], serde_json::json!([[42, "x"]]));
        assert_eq!(client.rows("SELECT * FROM oribi.result('q-1')").await, [["42", "x"]]);
        store.create("/inbox/bad", b"SELEC 1").await;
        until("it has failed", async || {
            let record = store.get("/queries/bad").await;
            record.is_some_and(|record| record["state"] == "failed")
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_letter_with_the_name_of_a_query_is_answered_beside_it() {
    bounded(async {
        let (cluster, daemons) = three().await;
        let store = Store::of(&cluster).await;
        let error = async |id: &str| {
            let record = store.get(&format!("/queries/{id}")).await;
            record.map(|record| (record["sql"].clone(), record["error"]["sqlstate"].clone()))
        };
        store.create("/inbox/report", b"SELECT 1").await;
        until("it is a query", async || error("report").await.is_some()).await;
        for sql in ["SELECT 2", "SELECT 3"] {
            store.create("/inbox/report", sql.as_bytes()).await;
            until("its sender is told", async || {
                error("refused-report").await == Some((sql.into(), "42710".into()))
            })
            .await;
            assert!(store.children("/inbox").await.is_empty());
        }
        let record = store.get("/queries/report").await.expect("the first");
        assert_eq!(record["sql"], "SELECT 1");
        // What lies below a letter keeps nobody from reading it.
        daemons.iter().for_each(Daemon::pause);
        for path in ["/inbox/deep", "/inbox/deep/child", "/inbox/deep/child/grandchild"] {
            store.create(path, b"SELECT 42").await;
        }
        daemons.iter().for_each(Daemon::resume);
        until("it is done", async || {
            let record = store.get("/queries/deep").await;
            record.is_some_and(|record| record["outcome"]["rows"] == serde_json::json!([[42]]))
        })
        .await;
        assert!(store.children("/inbox").await.is_empty());
    })
    .await;
}

/// And what is refused for that is not tried again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_only_reads_submits_nothing_that_writes() {
    bounded(async {
        let (_cluster, daemons) = three().await;
        let client = Client::connect(&daemons[0]).await;
        client.rows("CREATE TABLE t (x INT)").await;
        let insert = "SELECT oribi.submit('INSERT INTO t VALUES (1)')";
        for write in [
            insert,
            "SELECT oribi.submit('CREATE TABLE u AS SELECT 1 AS x')",
            "SELECT oribi.schedule('s', '@hourly', 'SELECT 1')",
            "SELECT oribi.unschedule('s')",
        ] {
            client.rows("BEGIN READ ONLY").await;
            assert_eq!(client.outcome(write).await, "25006", "{write}");
            client.rows("ROLLBACK").await;
        }
        // What is read may be submitted, and writes nothing by what it calls.
        client.rows("SET default_transaction_read_only = on").await;
        let id = submit(&client, "SELECT 42").await;
        assert_eq!(wait(&client, &id).await, "succeeded");
        let options = r#"{"settings": {"default_transaction_read_only": "off"}}"#;
        let nested = client.value(&format!("SELECT oribi.submit($${insert}$$, '{options}')")).await;
        client.rows("RESET default_transaction_read_only").await;
        let options = r#"{"settings": {"default_transaction_read_only": "on"}}"#;
        let asked = "SELECT oribi.submit('INSERT INTO t VALUES (1)', '";
        let direct = client.value(&format!("{asked}{options}')")).await;
        for id in [nested, direct] {
            assert_eq!(wait(&client, &id).await, "failed");
            let record = client.value(&format!("SELECT oribi.record('{id}')")).await;
            let record: serde_json::Value = serde_json::from_str(&record).expect("JSON");
            assert_eq!(
                (&record["error"]["sqlstate"], &record["attempt"]),
                (&"25006".into(), &1.into())
            );
        }
        assert_eq!(client.value("SELECT count(*) FROM t").await, "0");
        let id = client.value(insert).await;
        assert_eq!(wait(&client, &id).await, "succeeded");
    })
    .await;
}
