//! Running statements: seen from every daemon, and cheap for ZooKeeper.

use std::time::{Duration, Instant};

use futures::future::join_all;

use crate::common::zookeeper::Server;
use crate::support::*;

/// ZooKeeper's last transaction: it grows by one with each write, and with nothing else.
fn zxid(server: &Server) -> u64 {
    let answer = server.four_letters("srvr").expect("an answer");
    let line = answer.lines().find_map(|line| line.strip_prefix("Zxid: 0x"));
    u64::from_str_radix(line.expect("a transaction id"), 16).expect("a number")
}

/// Waits until nothing has been written for a while; returns the last transaction.
async fn quiet(server: &Server) -> u64 {
    let (mut last, mut since) = (zxid(server), Instant::now());
    until("ZooKeeper is quiet", async || {
        let now = zxid(server);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        since.elapsed() > Duration::from_millis(500)
    })
    .await;
    last
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_statement_is_seen_everywhere_while_it_runs() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper();
        let daemons = [cluster.start("a"), cluster.start("b")];
        let (a, b) = (Client::connect(&daemons[0]).await, Client::connect(&daemons[1]).await);
        let busy = Client::connect(&daemons[0]).await;
        let cancel = busy.cancel_token();
        let running = tokio::spawn(async move { busy.outcome(ENDLESS).await });
        let seen = "SELECT daemon, \"user\", database, sql, kind, id FROM system.queries \
                    WHERE sql LIKE '%generate_series%' AND sql NOT LIKE '%system.queries%'";
        until("the statement is seen", async || !b.rows(seen).await.is_empty()).await;
        let row = b.rows(seen).await.remove(0);
        assert_eq!(row[..4], ["a", "oribi", "oribi", ENDLESS]);
        assert_eq!(a.rows(seen).await, std::slice::from_ref(&row), "seen from where it runs");

        let store = Store::of(&cluster).await;
        let entry = store.get(&format!("/queries/{}", row[5])).await.expect("an entry");
        assert_eq!((&entry["sql"], &entry["daemon"]), (&ENDLESS.into(), &"a".into()));

        cancel.cancel_query(tokio_postgres::NoTls).await.expect("a cancel request");
        assert_eq!(running.await.expect("it ends"), "57014");
        until("the statement is gone", async || b.rows(seen).await.is_empty()).await;
        assert!(a.rows(seen).await.is_empty());
        until("its node is gone", async || store.children("/queries").await.is_empty()).await;

        // What ran on a daemon that died is gone with its session.
        let doomed = Client::connect(&daemons[0]).await;
        let running = tokio::spawn(async move { doomed.try_rows(ENDLESS).await });
        until("the statement is seen", async || !b.rows(seen).await.is_empty()).await;
        daemons[0].kill();
        assert!(running.await.expect("it ends").is_err());
        until("the statement is gone", async || b.rows(seen).await.is_empty()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quick_statement_is_never_written() {
    const TICK: Duration = Duration::from_millis(500);
    bounded(async {
        let server = Server::start();
        // A tick that no SELECT 1 outlasts by accident, and many beats of the lease.
        let cluster = Cluster::on(&server.connect_string())
            .with("QUERY_REGISTER_INTERVAL", &format!("{}ms", TICK.as_millis()));
        let daemons = [cluster.start("a"), cluster.start("b")];
        let (a, b) = (Client::connect(&daemons[0]).await, Client::connect(&daemons[1]).await);
        all_ready(&a, &["a", "b"]).await;
        let before = quiet(&server).await;
        let begun = Instant::now();
        let mut slow = 0;
        let mut count = 0;
        // A few beats of the lease are to be among it.
        while count < 500 || begun.elapsed() < SESSION_TIMEOUT {
            let sent = Instant::now();
            tokio::join!(a.value("SELECT 1"), b.value("SELECT 1"));
            slow += u64::from(sent.elapsed() >= TICK);
            count += 1;
        }
        // A busy machine may have held one back for longer than a tick: it is written and removed.
        let written = quiet(&server).await - before;
        assert!(written <= 4 * slow, "{written} writes for {count} pairs, {slow} of them slow");
        println!("{written} writes for {} statements ({slow} slow)", 2 * count);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_statements_cost_one_transaction_a_tick() {
    const CLIENTS: usize = 32;
    const TICK: Duration = Duration::from_millis(50);
    bounded(async {
        let server = Server::start();
        let cluster = Cluster::on(&server.connect_string());
        let daemons = [cluster.start("a"), cluster.start("b")];
        let clients = join_all((0..CLIENTS).map(|n| Client::connect(&daemons[n % 2]))).await;
        let before = quiet(&server).await;
        let begun = Instant::now();
        let runs = clients.iter().map(async |client| {
            let mut done = 0;
            while begun.elapsed() < Duration::from_secs(8) {
                client.value("SELECT count(*) FROM generate_series(1, 1000000) a(x)").await;
                done += 1;
            }
            done
        });
        let done: u64 = join_all(runs).await.into_iter().sum();
        // What has become of a statement stays for a second.
        let ticks = (begun.elapsed() + Duration::from_secs(1)).as_millis() / TICK.as_millis();
        let written = u128::from(quiet(&server).await - before);
        // Two daemons, and a few for the last statements.
        assert!(written <= 2 * ticks + 10, "{written} writes in {ticks} ticks");
        println!("{done} statements, {ticks} ticks, {written} writes");
        let store = Store::of(&cluster).await;
        until("no node is left", async || store.children("/queries").await.is_empty()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_heavy_statement_starves_nobody() {
    starves_nobody(HEAVY).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fruitless_statement_starves_nobody() {
    starves_nobody(FRUITLESS).await;
}

async fn starves_nobody(sql: &'static str) {
    bounded(async {
        // A part of the statement for each thread.
        let cluster = Cluster::on_shared_zookeeper()
            .with("ENGINE_THREADS", "2")
            .with("ENGINE_TARGET_PARTITIONS", "2");
        let daemons = [cluster.start("a"), cluster.start("b")];
        let (a, b) = (Client::connect(&daemons[0]).await, Client::connect(&daemons[1]).await);
        all_ready(&b, &["a", "b"]).await;
        let heavy = Client::connect(&daemons[0]).await;
        let cancel = heavy.cancel_token();
        let running = tokio::spawn(async move { heavy.outcome(sql).await });
        let seen = "SELECT count(*) FROM system.queries WHERE daemon = 'a' AND sql LIKE '%JOIN%'";
        until("the statement is seen", async || b.value(seen).await == "1").await;
        let begun = Instant::now();
        while begun.elapsed() < SESSION_TIMEOUT * 2 {
            let sent = Instant::now();
            a.value("SELECT count(*) FROM generate_series(1, 1000)").await;
            let took = sent.elapsed();
            assert!(took < Duration::from_secs(3), "a small statement took {took:?}");
            // Nor does the daemon lose touch.
            all_ready(&b, &["a", "b"]).await;
        }
        cancel.cancel_query(tokio_postgres::NoTls).await.expect("a cancel request");
        assert_eq!(running.await.expect("it ends"), "57014");
        // The work ends with the statement: the process has nothing to do.
        let (ended, mut last) = (Instant::now(), (Instant::now(), cpu_time(&daemons[0])));
        until("the process is idle", async || {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let now = (Instant::now(), cpu_time(&daemons[0]));
            let share = (now.1 - last.1).as_secs_f64() / (now.0 - last.0).as_secs_f64();
            last = now;
            share < 0.1
        })
        .await;
        assert!(ended.elapsed() < Duration::from_secs(2), "busy for {:?}", ended.elapsed());
    })
    .await;
}

/// More clients than threads, each of which keeps them busy for longer than all that follows takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_long_statements_leave_room_for_small_ones() {
    const CLIENTS: usize = 4;
    bounded(async {
        let cluster = Cluster::embedded()
            .with("ENGINE_THREADS", "2")
            .with("ENGINE_TARGET_PARTITIONS", "2")
            .with("ENGINE_RESULT_CACHE", "0");
        let daemon = cluster.start("a");
        let client = Client::connect(&daemon).await;
        client.rows("CREATE TABLE t (id int, s text)").await;
        let rows = "SELECT i, 'row ' || i FROM generate_series(1, 200000) g (i)";
        client.rows(&format!("INSERT INTO t {rows}")).await;
        let long = "SELECT count(*) FROM t CROSS JOIN generate_series(1, 100000000) g (i) \
                    WHERE md5(s || i) = 'none'";
        let mut running = Vec::new();
        for _ in 0..CLIENTS {
            let client = Client::connect(&daemon).await;
            let cancel = client.cancel_token();
            running.push((cancel, tokio::spawn(async move { client.outcome(long).await })));
        }
        let seen = "SELECT count(*) FROM system.queries \
                    WHERE state = 'running' AND sql LIKE 'SELECT count(*) FROM t CROSS JOIN%'";
        let all = CLIENTS.to_string();
        until("all long ones run", async || client.value(seen).await == all).await;
        let works = async || {
            let before = cpu_time(&daemon);
            let busy = || cpu_time(&daemon) > before + Duration::from_secs(1);
            until("they work", async || busy()).await;
        };
        works().await;
        for n in 1..=20 {
            for (sql, expected) in [
                ("SELECT 1".to_owned(), "1".to_owned()),
                (format!("SELECT s FROM t WHERE id = {n}"), format!("row {n}")),
            ] {
                let sent = Instant::now();
                assert_eq!(client.value(&sql).await, expected);
                let took = sent.elapsed();
                assert!(took < Duration::from_secs(5), "{sql} took {took:?}");
            }
        }
        // None of them has ended meanwhile, or stands still.
        assert_eq!(client.value(seen).await, all);
        works().await;
        for (cancel, running) in running {
            cancel.cancel_query(tokio_postgres::NoTls).await.expect("a cancel request");
            assert_eq!(running.await.expect("it ends"), "57014");
        }
    })
    .await;
}

/// The processor time a daemon has used, from `/proc/PID/stat`.
fn cpu_time(daemon: &Daemon) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).expect("Linux");
    let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
    // utime and stime, the fields 14 and 15; their unit is 1/100 s on every Linux (USER_HZ).
    let ticks =
        fields.split_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().expect("a number"));
    Duration::from_millis(10 * ticks.sum::<u64>())
}

/// A statement may take so long to plan that it is known everywhere before it has come to its pool.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_is_seen_to_wait_and_to_run_in_its_pool() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper().with("QUERY_REGISTER_INTERVAL", "1ms");
        let daemons = [cluster.start("a"), cluster.start("b")];
        let (a, b) = (Client::connect(&daemons[0]).await, Client::connect(&daemons[1]).await);
        all_ready(&a, &["a", "b"]).await;
        a.rows(&cluster.table("t", 1)).await;
        a.rows("CREATE ROLE ann LOGIN; GRANT SELECT ON t TO ann").await;
        a.rows("CREATE POOL narrow WITH (concurrency = 2) TO ann").await;
        let columns: Vec<String> = (0..500).map(|at| format!("x + {at}")).collect();
        let long = format!("SELECT n, {} FROM t, ({ENDLESS}) e (n)", columns.join(", "));
        let mut running = Vec::new();
        for _ in 0..2 {
            let ann = Client::connect_as(&daemons[0], "ann").await;
            let (cancel, sql) = (ann.cancel_token(), long.clone());
            let outcome = tokio::spawn(async move { ann.outcome(&sql).await });
            running.push((cancel, outcome));
        }
        let seen = "SELECT state, pool FROM system.queries \
                    WHERE daemon = 'a' AND \"user\" = 'ann' ORDER BY state";
        let expected = [["queued", "narrow"], ["running", "narrow"]];
        for client in [&a, &b] {
            until("both are seen as they are", async || client.rows(seen).await == expected).await;
        }
        for (cancel, outcome) in running {
            cancel.cancel_query(tokio_postgres::NoTls).await.expect("a cancel request");
            assert_eq!(outcome.await.expect("it ends"), "57014");
        }
    })
    .await;
}
