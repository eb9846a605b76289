//! Queries that are submitted on one daemon and fetched from another: the way in and out, what
//! happens when the daemon that works on one dies, and that each is carried out once.

mod common;

#[path = "cluster/support.rs"]
mod support;

use std::time::{Duration, Instant};

use support::*;

/// Three daemons that share a warehouse.
async fn three() -> (Cluster, [Daemon; 3]) {
    let cluster = Cluster::on_shared_zookeeper();
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
            ("BEGIN", "42601"),
            ("CREATE TABLE t (x INT)", "42601"),
        ] {
            let error = a.refused(&format!("SELECT oribi.submit($${sql}$$)")).await;
            assert_eq!(error.code().code(), code, "{sql}: {error}");
        }
        let error = a.refused("SELECT oribi.wait('nothing')").await;
        assert_eq!(error.code().code(), "42704");
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
        ] {
            assert_eq!(ann.refused(&sql).await.code().code(), "42501", "{sql}");
        }
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_goes_on_when_the_daemon_of_a_query_dies() {
    bounded(async {
        let (_cluster, daemons) = three().await;
        let names = ["a", "b", "c"];
        let client = Client::connect(&daemons[0]).await;
        let id = submit(&client, SLOW.0).await;
        let first = worker(&client, &id).await;
        let at = names.iter().position(|name| *name == first).expect("one of them");
        let other = Client::connect(&daemons[(at + 1) % 3]).await;
        daemons[at].kill();
        let killed = Instant::now();
        let next = format!("SELECT daemon FROM system.queries WHERE id = '{id}' AND attempt = 2");
        until("a peer holds the next attempt", async || !other.value(&next).await.is_empty()).await;
        // Long before the session of the dead one ends.
        assert!(killed.elapsed() < SESSION_TIMEOUT / 2, "{:?}", killed.elapsed());
        assert_eq!(wait(&other, &id).await, "succeeded");
        let result = format!("SELECT * FROM oribi.result('{id}')");
        assert_eq!(other.value(&result).await, SLOW.1);
    })
    .await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_made_exactly_once_whoever_dies() {
    bounded(async {
        let (cluster, daemons) = three().await;
        let names = ["a", "b", "c"];
        let mut daemons: Vec<Daemon> = daemons.into_iter().collect();
        let client = Client::connect(&daemons[0]).await;
        client.rows("CREATE TABLE t (n BIGINT)").await;
        let seconds = std::env::var("ORIBI_KILL_SECONDS").ok().and_then(|s| s.parse().ok());
        let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(8));
        let (mut ids, mut turn) = (Vec::new(), 0);
        while Instant::now() < end {
            let alive = (turn + 1) % 3;
            let client = Client::connect(&daemons[alive]).await;
            for _ in 0..5 {
                let number = ids.len();
                ids.push(submit(&client, &format!("INSERT INTO t VALUES ({number})")).await);
            }
            daemons[turn % 3].kill();
            daemons[turn % 3] = cluster.start(names[turn % 3]);
            turn += 1;
        }
        let client = Client::connect(&daemons[0]).await;
        for id in &ids {
            assert_eq!(wait(&client, id).await, "succeeded", "{id}");
        }
        let counted = client.rows("SELECT count(*), count(DISTINCT n) FROM t").await;
        let expected = ids.len().to_string();
        assert_eq!(counted, [[expected.as_str(), expected.as_str()]]);
        println!("{turn} kills, {expected} queries, each once");
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
