//! Pools on whole daemons: who runs, who waits and who is refused, and that no place is lost,
//! whatever happens to whoever has it.

mod common;

#[path = "cluster/support.rs"]
mod support;

use std::time::Duration;

use support::*;
use tokio::task::JoinHandle;
use tokio_postgres::NoTls;

/// What takes a place and keeps it: an open cursor.
const HOLD: &str = "BEGIN; DECLARE held CURSOR FOR SELECT x FROM t";

/// What takes a place and gives it back.
const QUICK: &str = "SELECT x FROM t";

/// A daemon with a table, a role `ann`, and a pool `p` for her with these options.
async fn one_daemon(options: &str) -> (Cluster, Daemon, Client) {
    let cluster = Cluster::embedded();
    let daemon = cluster.start("a");
    let oribi = Client::connect(&daemon).await;
    prepare(&cluster, &oribi, options).await;
    (cluster, daemon, oribi)
}

async fn prepare(cluster: &Cluster, oribi: &Client, options: &str) {
    oribi.rows(&cluster.table("t", 1)).await;
    oribi.rows("CREATE ROLE ann LOGIN").await;
    oribi.rows("GRANT SELECT ON t TO ann").await;
    oribi.rows(&format!("CREATE POOL p WITH ({options}) TO ann")).await;
}

/// A client of ann's that has a place.
async fn holder(daemon: &Daemon) -> Client {
    let client = Client::connect_as(daemon, "ann").await;
    client.rows(HOLD).await;
    client
}

/// A client of ann's that waits for one, as the `nth`; then it has it, or not.
async fn waiter(daemon: &Daemon, oribi: &Client, nth: usize) -> JoinHandle<(Client, String)> {
    let client = Client::connect_as(daemon, "ann").await;
    waits(client, HOLD.to_owned(), oribi, nth).await
}

async fn waits(
    client: Client,
    sql: String,
    oribi: &Client,
    nth: usize,
) -> JoinHandle<(Client, String)> {
    let waiting = tokio::spawn(async move {
        let outcome = client.outcome(&sql).await;
        (client, outcome)
    });
    waiting_are(oribi, nth).await;
    waiting
}

async fn waiting_are(oribi: &Client, count: usize) {
    let queued = format!("{count} wait");
    until(&queued, async || pool(oribi, "queued").await == count.to_string()).await;
}

/// A column of pool p, as the client's daemon sees it.
async fn pool(client: &Client, column: &str) -> String {
    client.value(&format!("SELECT {column} FROM system.pools WHERE name = 'p'")).await
}

/// The outcome of whoever waited.
async fn ended(waiting: JoinHandle<(Client, String)>) -> (Client, String) {
    waiting.await.expect("no panic")
}

/// The same, which has to have its place now.
async fn admitted(waiting: JoinHandle<(Client, String)>) -> Client {
    let (client, outcome) = ended(waiting).await;
    assert_eq!(outcome, "");
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_daemon_has_its_share_of_what_the_cluster_may_do() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper();
        let [a, b, c] = cluster.start_all(["a", "b", "c"]);
        let clients = [Client::connect(&a).await, Client::connect(&b).await];
        let third = Client::connect(&c).await;
        for client in clients.iter().chain([&third]) {
            all_ready(client, &["a", "b", "c"]).await;
        }
        let shares = async |clients: &[&Client], expected: &[&str]| {
            for (client, share) in clients.iter().zip(expected) {
                let what = format!("a share of {share}");
                let shown = "share || ' ' || queue_share";
                until(&what, async || pool(client, shown).await == *share).await;
            }
        };
        let two = [&clients[0], &clients[1]];
        let three = [&clients[0], &clients[1], &third];
        clients[0].rows("CREATE POOL p WITH (concurrency = 8, queue = 10) TO PUBLIC").await;
        shares(&three, &["3 4", "3 3", "2 3"]).await;
        // One at least.
        clients[1].rows("ALTER POOL p WITH (concurrency = 2, queue = 1)").await;
        shares(&three, &["1 1", "1 1", "1 1"]).await;
        clients[1].rows("ALTER POOL p WITH (concurrency = 7, queue = 0)").await;
        shares(&three, &["3 0", "2 0", "2 0"]).await;
        c.kill();
        shares(&two, &["4 0", "3 0"]).await;
        let c = cluster.start("c");
        let third = Client::connect(&c).await;
        shares(&[two[0], two[1], &third], &["3 0", "2 0", "2 0"]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_is_served_in_the_order_of_arrival() {
    bounded(async {
        let options = "concurrency = 1, queue = 3, queue_timeout = none";
        let (_cluster, daemon, oribi) = one_daemon(options).await;
        let mut first = holder(&daemon).await;
        let mut waiting = Vec::new();
        for nth in 1..=3 {
            waiting.push(waiter(&daemon, &oribi, nth).await);
        }
        // Seen where others look.
        let queued = "SELECT count(*) FROM system.queries WHERE state = 'queued' AND pool = 'p'";
        assert_eq!(oribi.value(queued).await, "3");
        let events = "SELECT DISTINCT wait_event_type, wait_event, state FROM pg_stat_activity \
                      WHERE usename = 'ann' AND query LIKE 'DECLARE%' AND state = 'active'";
        assert_eq!(oribi.rows(events).await, [["Extension", "PoolQueue", "active"]]);
        // There is no more room.
        let late = Client::connect_as(&daemon, "ann").await;
        let refused = late.refused(QUICK).await;
        assert_eq!(refused.code().code(), "53400");
        assert_eq!(refused.message(), "the queue of pool \"p\" is full (3 waiting here)");
        assert!(refused.hint().is_some_and(|hint| hint.contains("system.pools")));
        for (left, waiting) in [2, 1, 0].into_iter().zip(waiting) {
            // The connection goes, and the place with it.
            drop(first);
            first = admitted(waiting).await;
            assert_eq!(pool(&oribi, "running || ' ' || queued").await, format!("1 {left}"));
        }
        first.rows("COMMIT").await;
        assert_eq!(late.value(QUICK).await, "1");
        assert_eq!(pool(&oribi, "running || ' ' || queued").await, "0 0");
        assert_eq!(pool(&oribi, "admitted || ' ' || waited || ' ' || refused").await, "5 3 1");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_can_be_stopped_and_leaves_at_once() {
    bounded(async {
        let options = "concurrency = 1, queue = 10, queue_timeout = '1h'";
        let (_cluster, daemon, oribi) = one_daemon(options).await;
        let holder = holder(&daemon).await;
        let outcome = async |waiting| {
            let outcome = ended(waiting).await.1;
            assert_eq!(pool(&oribi, "queued").await, "0", "it has left the queue");
            outcome
        };
        // A cancel request.
        let client = Client::connect_as(&daemon, "ann").await;
        let cancel = client.cancel_token();
        let waiting = waits(client, QUICK.to_owned(), &oribi, 1).await;
        cancel.cancel_query(NoTls).await.expect("a request");
        assert_eq!(outcome(waiting).await, "57014");
        // An operator's.
        for (function, code) in [("pg_cancel_backend", "57014"), ("pg_terminate_backend", "57P01")]
        {
            let waiting = waiter(&daemon, &oribi, 1).await;
            let stop = format!("SELECT {function}(pid) FROM system.queries WHERE state = 'queued'");
            assert_eq!(oribi.value(&stop).await, "t");
            assert_eq!(outcome(waiting).await, code);
        }
        // Its own time is over, of which waiting is a part.
        let client = Client::connect_as(&daemon, "ann").await;
        client.rows("SET statement_timeout = '50ms'").await;
        assert_eq!(client.refused(QUICK).await.code().code(), "57014");
        // The client is gone.
        let client = Client::connect_as(&daemon, "ann").await;
        let connection = client.connection.abort_handle();
        let waiting = waits(client, QUICK.to_owned(), &oribi, 1).await;
        connection.abort();
        waiting_are(&oribi, 0).await;
        waiting.abort();
        assert_eq!(pool(&oribi, "cancelled || ' ' || timed_out").await, "5 0");
        // The pool's time is over.
        oribi.rows("ALTER POOL p WITH (queue_timeout = '50ms')").await;
        let client = Client::connect_as(&daemon, "ann").await;
        let refused = client.refused(QUICK).await;
        assert_eq!(refused.code().code(), "53400");
        let message = "the statement waited longer than 50ms in the queue of pool \"p\"";
        assert_eq!(refused.message(), message);
        assert!(refused.hint().is_some_and(|hint| hint.contains("queue_timeout")));
        assert_eq!(pool(&oribi, "cancelled || ' ' || timed_out").await, "5 1");
        holder.rows("CLOSE held").await;
        assert_eq!(client.value(QUICK).await, "1");
        assert_eq!(pool(&oribi, "running || ' ' || queued").await, "0 0");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_a_pool_count_at_once_also_for_who_waits() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper();
        let [a, b] = cluster.start_all(["a", "b"]);
        let (oribi, other) = (Client::connect(&a).await, Client::connect(&b).await);
        for client in [&oribi, &other] {
            all_ready(client, &["a", "b"]).await;
        }
        let options = "concurrency = 2, queue = 10, queue_timeout = '1h'";
        prepare(&cluster, &oribi, options).await;
        until("a share of 1", async || pool(&oribi, "share").await == "1").await;
        let first = holder(&a).await;
        // More of them.
        let waiting = waiter(&a, &oribi, 1).await;
        other.rows("ALTER POOL p WITH (concurrency = 4)").await;
        let second = admitted(waiting).await;
        // Fewer: who runs goes on, who comes waits.
        other.rows("ALTER POOL p WITH (concurrency = 2)").await;
        until("a share of 1", async || pool(&oribi, "share").await == "1").await;
        let waiting = waiter(&a, &oribi, 1).await;
        first.rows("COMMIT").await;
        assert_eq!(pool(&oribi, "running || ' ' || queued").await, "1 1");
        second.rows("COMMIT").await;
        let first = admitted(waiting).await;
        // Another time-out.
        let waiting = waiter(&a, &oribi, 1).await;
        other.rows("ALTER POOL p WITH (queue_timeout = '1ms')").await;
        assert_eq!(ended(waiting).await.1, "53400");
        other.rows("ALTER POOL p WITH (queue_timeout = none)").await;
        until("no limit", async || pool(&oribi, "queue_timeout").await.is_empty()).await;
        // Other roles.
        let waiting = waiter(&a, &oribi, 1).await;
        other.rows("CREATE ROLE bob; ALTER POOL p TO bob").await;
        admitted(waiting).await;
        other.rows("ALTER POOL p TO ann").await;
        let roles = async || pool(&oribi, "roles").await == "{ann}";
        until("ann again", roles).await;
        // Another pool, in which there is no room either.
        let waiting = waiter(&a, &oribi, 1).await;
        other.rows("CREATE POOL big WITH (concurrency = 2) TO PUBLIC").await;
        other.rows("ALTER POOL p TO bob").await;
        admitted(waiting).await;
        other.rows("DROP POOL big").await;
        other.rows("ALTER POOL p TO ann").await;
        until("ann again", roles).await;
        // No pool at all.
        let waiting = waiter(&a, &oribi, 1).await;
        other.rows("DROP POOL p").await;
        admitted(waiting).await;
        drop(first);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_daemon_takes_its_places_with_it() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper();
        let [a, b, c] = cluster.start_all(["a", "b", "c"]);
        let oribi = Client::connect(&a).await;
        all_ready(&oribi, &["a", "b", "c"]).await;
        prepare(&cluster, &oribi, "concurrency = 3, queue_timeout = '1h'").await;
        let mut held = Vec::new();
        for daemon in [&a, &b, &c] {
            let other = Client::connect(daemon).await;
            until("a share of 1", async || pool(&other, "share").await == "1").await;
            held.push(holder(daemon).await);
        }
        let waiting = waiter(&a, &oribi, 1).await;
        b.kill();
        held.push(admitted(waiting).await);
        assert_eq!(pool(&oribi, "share || ' ' || running").await, "2 2");
        let waiting = waiter(&a, &oribi, 1).await;
        c.kill();
        held.push(admitted(waiting).await);
        assert_eq!(pool(&oribi, "share || ' ' || running").await, "3 3");
        // They come back, and no place is given twice for long: who runs here goes on.
        let b = cluster.start("b");
        until("a smaller share", async || pool(&oribi, "share").await == "2").await;
        let there = Client::connect_as(&b, "ann").await;
        assert_eq!(there.value(QUICK).await, "1");
        let waiting = waiter(&a, &oribi, 1).await;
        drop(held);
        admitted(waiting).await.rows("COMMIT").await;
        until("nobody", async || pool(&oribi, "running || ' ' || queued").await == "0 0").await;
    })
    .await;
}

/// Clients come, wait and go in all ways at once. In the end there is as much room as before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_place_is_lost_to_clients_that_go() {
    const CLIENTS: usize = 48;
    bounded(async {
        let options = "concurrency = 3, queue = 20, queue_timeout = '20ms'";
        let (_cluster, daemon, oribi) = one_daemon(options).await;
        let daemon = &daemon;
        let coming = (0..CLIENTS).map(async |nth| {
            let client = Client::connect_as(daemon, "ann").await;
            let cancel = client.cancel_token();
            match nth % 6 {
                0 => drop(client.outcome(HOLD).await),
                1 => drop(client.outcome(QUICK).await),
                2 => drop(client.outcome("SELECT x, 1 / (x - 1) FROM t").await),
                3 => {
                    client.outcome("SET statement_timeout = '3ms'").await;
                    drop(client.outcome(ENDLESS).await);
                }
                4 => {
                    let connection = client.connection.abort_handle();
                    let statement = tokio::spawn(async move { client.try_rows(ENDLESS).await });
                    tokio::task::yield_now().await;
                    connection.abort();
                    drop(statement.await);
                }
                _ => {
                    let statement = tokio::spawn(async move { client.outcome(ENDLESS).await });
                    // Before it begins there is nothing to cancel.
                    while !statement.is_finished() {
                        cancel.cancel_query(NoTls).await.expect("a request");
                    }
                    statement.await.expect("no panic");
                }
            }
        });
        futures::future::join_all(coming).await;
        let idle = async || pool(&oribi, "running || ' ' || queued").await == "0 0";
        until("all have left", idle).await;
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(holder(daemon).await);
        }
        assert_eq!(pool(&oribi, "running").await, "3");
        drop(held);
        until("all have left", idle).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_can_always_look() {
    bounded(async {
        let options = "concurrency = 1, queue = 0";
        let (_cluster, daemon, oribi) = one_daemon(options).await;
        oribi.rows("ALTER POOL p TO PUBLIC").await;
        let holder = holder(&daemon).await;
        let ann = Client::connect_as(&daemon, "ann").await;
        assert_eq!(ann.outcome(QUICK).await, "53400");
        for small in [
            "SELECT 1",
            "SHOW ALL",
            "SET statement_timeout = '1h'",
            "SELECT * FROM system.pools JOIN system.queries ON true",
            "SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace",
            "SELECT count(*) FROM information_schema.columns",
            "EXPLAIN SELECT x FROM t",
            "BEGIN; SELECT now(); COMMIT",
            "VALUES (1), (2)",
            "PREPARE q AS SELECT x FROM t",
        ] {
            assert_eq!(ann.outcome(small).await, "", "{small}");
        }
        for work in [
            "SELECT x FROM t",
            "SELECT (SELECT max(x) FROM t)",
            "SELECT 1 WHERE EXISTS (SELECT x FROM t)",
            "EXPLAIN ANALYZE SELECT x FROM t",
            "EXECUTE q",
            "COPY t TO STDOUT",
            "SELECT count(*) FROM generate_series(1, 10)",
            "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 3) \
             SELECT count(*) FROM r",
        ] {
            assert_eq!(ann.outcome(work).await, "53400", "{work}");
        }
        // What it has no right to it is told at once.
        assert_eq!(ann.outcome("SELECT * FROM nothing").await, "42P01");
        // PUBLIC is not the superusers'; a pool that names one is.
        assert_eq!(oribi.value(QUICK).await, "1");
        let writes = ["CREATE TABLE w AS SELECT x FROM t", "INSERT INTO w VALUES (2)"];
        for write in writes {
            oribi.rows(write).await;
        }
        oribi.rows("CREATE POOL q WITH (concurrency = 1, queue = 0) TO oribi").await;
        let second = Client::connect(&daemon).await;
        second.rows(HOLD).await;
        for work in [
            QUICK,
            "INSERT INTO w VALUES (3)",
            "CREATE TABLE v AS SELECT x FROM t",
            "DELETE FROM w",
            "TRUNCATE w",
            "VACUUM w",
            "OPTIMIZE w",
        ] {
            assert_eq!(oribi.outcome(work).await, "53400", "{work}");
        }
        let copied = Client::connect(&daemon).await;
        let copied = copied.try_copy("COPY w FROM STDIN", b"4\n").await;
        assert_eq!(db_error(&copied.expect_err("no room")).code().code(), "53400");
        oribi.rows("DROP POOL q").await;
        assert_eq!(oribi.value("SELECT count(*) FROM w").await, "2");
        drop(holder);
    })
    .await;
}

/// Prepared statements, portals that are read in portions, and blocks: one place for a session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_has_one_place() {
    bounded(async {
        let options = "concurrency = 1, queue = 0";
        let (_cluster, daemon, oribi) = one_daemon(options).await;
        let (mut ann, connection) =
            daemon.client_config().user("ann").connect(NoTls).await.expect("a connection");
        tokio::spawn(connection);
        let series = ann
            .prepare("SELECT n FROM generate_series(1, 10000) s (n) WHERE n <= $1::bigint")
            .await;
        let series = series.expect("prepared");
        for round in 1..=3_i64 {
            assert_eq!(ann.query(&series, &[&round]).await.expect("rows").len(), round as usize);
            assert_eq!(pool(&oribi, "running").await, "0");
        }
        let block = ann.transaction().await.expect("a block");
        let portal = block.bind(&series, &[&10_000_i64]).await.expect("a portal");
        assert_eq!(pool(&oribi, "running").await, "0");
        assert_eq!(block.query_portal(&portal, 10).await.expect("rows").len(), 10);
        assert_eq!(pool(&oribi, "running").await, "1");
        // Beside it, in the same place.
        assert_eq!(block.query(&series, &[&5_i64]).await.expect("rows").len(), 5);
        let other = Client::connect_as(&daemon, "ann").await;
        assert_eq!(other.outcome(QUICK).await, "53400");
        assert_eq!(block.query_portal(&portal, 0).await.expect("rows").len(), 9_990);
        assert_eq!(pool(&oribi, "running").await, "0", "it was read to its end");
        assert_eq!(other.outcome(QUICK).await, "");
        block.commit().await.expect("committed");
    })
    .await;
}

/// A statement over its pool's memory spills, or fails by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_bounds_the_memory_of_each_statement() {
    bounded(async {
        let cluster = Cluster::embedded().with("ENGINE_TARGET_PARTITIONS", "2");
        let daemon = cluster.start("a");
        let oribi = Client::connect(&daemon).await;
        prepare(&cluster, &oribi, "memory = '48MiB'").await;
        let ann = Client::connect_as(&daemon, "ann").await;
        let join = "SELECT count(*) FROM generate_series(1, 4000000) a (i) \
                    JOIN generate_series(1, 4000000) b (i) ON a.i = b.i";
        let (refused, free) = tokio::join!(ann.refused(join), oribi.value(join));
        assert_eq!((refused.code().code(), free.as_str()), ("53200", "4000000"));
        assert!(refused.message().contains("a statement of pool \"p\" may use 48.0 MiB"));
        assert!(refused.hint().is_some_and(|hint| hint.contains("pool")));
        let groups = "SELECT count(*) FROM (SELECT i % 2000000, count(*), max(i) \
                      FROM generate_series(1, 4000000) t (i) GROUP BY 1) t";
        assert_eq!(ann.value(groups).await, "2000000");
        oribi.rows("ALTER POOL p WITH (memory = none)").await;
        assert_eq!(ann.value(join).await, "4000000");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_stops_lets_in_who_waits() {
    bounded(async {
        let options = "concurrency = 1, queue_timeout = none";
        let (_cluster, daemon, oribi) = one_daemon(options).await;
        let holder = holder(&daemon).await;
        let waiting = waiter(&daemon, &oribi, 1).await;
        daemon.terminate();
        // It waits for the place of a cursor whose client is idle, and is sent away.
        let (_, outcome) = ended(waiting).await;
        assert!(outcome.is_empty() || outcome == "57P01", "{outcome}");
        assert!(daemon.wait(Duration::from_secs(60)).success());
        drop(holder);
    })
    .await;
}
