//! How a daemon stops: announced, with running statements finished, and nothing left behind.

mod common;

#[path = "clients/python.rs"]
#[allow(dead_code)]
mod python;
#[path = "cluster/support.rs"]
mod support;

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use support::*;

/// A stop with both stores, since each is closed in its own way.
macro_rules! with_both_stores {
    ($($case:ident,)*) => {
        mod embedded {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let cluster = crate::support::Cluster::embedded();
                    crate::support::bounded(crate::$case(cluster)).await;
                }
            )*
        }

        mod zookeeper {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    // Long enough to tell what was removed from what has expired.
                    let cluster = crate::support::Cluster::on_shared_zookeeper()
                        .with("COORDINATION_SESSION_TIMEOUT", "40s");
                    crate::support::bounded(crate::$case(cluster)).await;
                }
            )*
        }
    };
}

with_both_stores! {
    sigterm_lets_running_statements_finish,
    sigint_does_the_same,
    the_deadline_cancels_what_still_runs,
    a_second_signal_ends_at_once,
    an_idle_daemon_stops_at_once,
    what_has_begun_is_finished,
}

async fn sigterm_lets_running_statements_finish(cluster: Cluster) {
    drain(&cluster, Signal::TERM).await;
}

async fn sigint_does_the_same(cluster: Cluster) {
    drain(&cluster, Signal::INT).await;
}

async fn drain(cluster: &Cluster, signal: Signal) {
    let daemon = cluster.start("a");
    let idle = Client::connect(&daemon).await;
    let in_block = Client::connect(&daemon).await;
    in_block.rows("BEGIN").await;
    let busy = Client::connect(&daemon).await;
    let running = tokio::spawn(async move { (busy.value(SLOW.0).await, busy) });
    running_here(&idle).await;

    daemon.signal(signal);
    for client in [idle, in_block] {
        let good_bye = client.good_bye().await;
        assert_eq!((good_bye.severity(), good_bye.code().code()), ("FATAL", "57P01"));
    }
    assert!(!running.is_finished(), "SLOW is not slow enough for this machine");
    match Client::try_connect(&daemon).await {
        Ok(_) => panic!("a new client was let in"),
        Err(error) => {
            let refused = db_error(&error);
            assert_eq!((refused.severity(), refused.code().code()), ("FATAL", "57P03"));
        }
    }
    let (status, body) = readyz(&daemon).await.expect("health is told to the end");
    assert_eq!((status, &body["state"]), (503, &"draining".into()));
    assert!(!running.is_finished(), "SLOW is not slow enough for this machine");

    let (answer, busy) = running.await.expect("the statement ends");
    assert_eq!(answer, SLOW.1);
    assert_eq!(busy.good_bye().await.code().code(), "57P01");
    assert_eq!(daemon.wait(PATIENCE).code(), Some(0), "{}", daemon.log());
    nothing_is_left(cluster).await;
    // It can go on where it was.
    let again = cluster.start("a");
    assert_eq!(Client::connect(&again).await.value("SELECT 1").await, "1");
}

async fn the_deadline_cancels_what_still_runs(cluster: Cluster) {
    let cluster = cluster.with("SHUTDOWN_DRAIN_TIMEOUT", "1s");
    let daemon = cluster.start("a");
    let (witness, busy) = (Client::connect(&daemon).await, Client::connect(&daemon).await);
    let running = tokio::spawn(async move { busy.refused(ENDLESS).await });
    running_here(&witness).await;
    let begun = Instant::now();
    daemon.terminate();
    let refused = running.await.expect("the statement ends");
    let took = begun.elapsed();
    assert_eq!((refused.severity(), refused.code().code()), ("FATAL", "57P01"));
    assert!(took >= Duration::from_secs(1), "cancelled after {took:?}, before the deadline");
    assert_eq!(daemon.wait(PATIENCE).code(), Some(0), "{}", daemon.log());
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(8), "it took {took:?}");
    nothing_is_left(&cluster).await;
}

async fn a_second_signal_ends_at_once(cluster: Cluster) {
    let cluster = cluster.with("SHUTDOWN_DRAIN_TIMEOUT", "10m");
    let daemon = cluster.start("a");
    let (witness, busy) = (Client::connect(&daemon).await, Client::connect(&daemon).await);
    let running = tokio::spawn(async move { busy.refused(ENDLESS).await });
    running_here(&witness).await;
    daemon.terminate();
    assert_eq!(witness.good_bye().await.code().code(), "57P01");
    assert!(!running.is_finished(), "a statement that had begun was not let finish");
    let begun = Instant::now();
    daemon.signal(Signal::INT);
    let ended = tokio::time::timeout(PATIENCE, running).await.expect("the second signal is heard");
    assert_eq!(ended.expect("the statement ends").code().code(), "57P01");
    assert_eq!(daemon.wait(PATIENCE).code(), Some(0), "{}", daemon.log());
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "it took {took:?}");
    nothing_is_left(&cluster).await;
}

async fn an_idle_daemon_stops_at_once(cluster: Cluster) {
    let daemon = cluster.start("a");
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(Client::connect(&daemon).await);
    }
    let begun = Instant::now();
    daemon.terminate();
    for client in clients {
        assert_eq!(client.good_bye().await.code().code(), "57P01");
    }
    assert_eq!(daemon.wait(PATIENCE).code(), Some(0), "{}", daemon.log());
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(3), "it took {took:?}");
    nothing_is_left(&cluster).await;
}

/// A statement goes through several phases, and a message may have several statements: a stop does
/// not come between them.
async fn what_has_begun_is_finished(cluster: Cluster) {
    let daemon = cluster.start("a");
    let witness = Client::connect(&daemon).await;
    let busy = Client::connect(&daemon).await;
    let message = format!("{}; SELECT 1; SELECT 2", SLOW.0);
    let running = tokio::spawn(async move { busy.try_rows(&message).await });
    running_here(&witness).await;
    daemon.terminate();
    assert_eq!(witness.good_bye().await.code().code(), "57P01");
    assert!(!running.is_finished(), "SLOW is not slow enough for this machine");
    let rows = running.await.expect("the task ends").expect("the message is answered");
    assert_eq!(rows, [[SLOW.1], ["1"], ["2"]]);
    assert_eq!(daemon.wait(PATIENCE).code(), Some(0), "{}", daemon.log());
}

/// Waits until another client's statement runs on the daemon.
async fn running_here(witness: &Client) {
    let count = "SELECT count(*) FROM system.queries WHERE sql LIKE '%generate_series(1, %' \
                 AND sql NOT LIKE '%system.queries%'";
    until("the statement runs", async || witness.value(count).await == "1").await;
}

/// The session did not have to expire: what belonged to it was gone before the process was.
async fn nothing_is_left(cluster: &Cluster) {
    if cluster.is_embedded() {
        return;
    }
    let store = Store::of(cluster).await;
    for path in ["/daemons", "/incarnations", "/queries"] {
        assert_eq!(store.children(path).await, [""; 0], "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_see_a_daemon_drain_and_go() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper().with("COORDINATION_SESSION_TIMEOUT", "40s");
        let [peer, daemon] = cluster.start_all(["a", "b"]);
        let witness = Client::connect(&peer).await;
        all_ready(&witness, &["a", "b"]).await;
        let busy = Client::connect(&daemon).await;
        let running = tokio::spawn(async move { busy.value(SLOW.0).await });
        let count = "SELECT count(*) FROM system.queries WHERE daemon = 'b'";
        until("the statement is seen", async || witness.value(count).await == "1").await;
        daemon.terminate();
        let state = |states: &[(String, String)]| {
            states.iter().find(|(id, _)| id == "b").map(|(_, state)| state.clone())
        };
        until("draining is seen", async || {
            state(&states(&witness).await).as_deref() == Some("draining")
        })
        .await;
        assert!(!running.is_finished(), "SLOW is not slow enough for this machine");
        let store = Store::of(&cluster).await;
        assert_eq!(store.get("/daemons/b").await.expect("a record")["state"], "draining");
        assert_eq!(running.await.expect("the statement ends"), SLOW.1);
        assert!(daemon.wait(PATIENCE).success());
        assert_eq!(store.children("/daemons").await, ["a"]);
        all_ready(&witness, &["a"]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_out_of_touch_stops_too() {
    bounded(async {
        let mut server = common::zookeeper::Server::start();
        let cluster = Cluster::on(&server.connect_string());
        let daemon = cluster.start("a");
        let client = Client::connect(&daemon).await;
        server.stop();
        let state = "SELECT state FROM system.daemons WHERE local";
        until("degraded", async || client.value(state).await == "degraded").await;
        let begun = Instant::now();
        daemon.terminate();
        assert_eq!(client.good_bye().await.code().code(), "57P01");
        assert_eq!(daemon.wait(PATIENCE).code(), Some(0), "{}", daemon.log());
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(20), "it took {took:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_is_still_starting_stops_at_once() {
    bounded(async {
        let cluster = Cluster::on("127.0.0.1:1");
        let daemon = cluster.launch("a", "a");
        until("it looks for the ensemble", async || daemon.log().contains("127.0.0.1:1")).await;
        let begun = Instant::now();
        daemon.terminate();
        assert_eq!(daemon.wait(PATIENCE).code(), Some(0), "{}", daemon.log());
        assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn systemd_is_told() {
    bounded(async {
        let cluster = Cluster::embedded();
        let path = cluster.path("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let cluster = cluster
            .with_variable("NOTIFY_SOCKET", &path.display().to_string())
            .with_variable("WATCHDOG_USEC", "900000");
        let told = |what: &str| {
            let mut before = Vec::new();
            loop {
                let mut message = [0; 4096];
                let length = socket.recv(&mut message).unwrap_or_else(|error| {
                    panic!("{what} was not told ({error}), only {before:?}")
                });
                let text = String::from_utf8_lossy(&message[..length]).into_owned();
                if text.lines().any(|line| line == what) {
                    return (text, before);
                }
                before.push(text);
            }
        };
        let daemon = cluster.launch("a", "a");
        let (ready, before) = told("READY=1");
        assert!(before.iter().all(|text| !text.contains("STOPPING")), "{before:?}");
        // By then clients are served; the status names where.
        let log = daemon.log();
        assert!(log.contains("\"ready\""), "{log}");
        assert!(ready.contains("STATUS=") && ready.contains("127.0.0.1:"), "{ready}");
        for _ in 0..3 {
            told("WATCHDOG=1");
        }
        daemon.terminate();
        told("STOPPING=1");
        assert_eq!(daemon.wait(PATIENCE).code(), Some(0), "{}", daemon.log());
    })
    .await;
}

/// Clients that know all daemons ask all the time, and daemons drain one after another under them:
/// what was not run is said to be so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_know_all_daemons_lose_no_query_without_a_word() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper();
        let daemons = cluster.start_all(["a", "b", "c"]);
        let ports: Vec<_> = daemons.iter().map(|it| it.postgres().port().to_string()).collect();
        let conninfo = format!(
            "host=127.0.0.1,127.0.0.1,127.0.0.1 port={} user=oribi dbname=oribi",
            ports.join(",")
        );
        let (running, end) = (cluster.path("running"), cluster.path("end"));
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/drained.py");
        let mut command = std::process::Command::new(python::python(&["psycopg"], "psycopg"));
        command.arg(script).arg(conninfo).arg(&running).arg(&end);
        let asking = tokio::task::spawn_blocking(move || python::run(&mut command));
        until("the clients run", async || running.exists() || asking.is_finished()).await;
        for daemon in &daemons[..2] {
            daemon.terminate();
            until("it has ended", async || daemon.ended().is_some()).await;
            assert_eq!(daemon.wait(PATIENCE).code(), Some(0), "{}", daemon.log());
            // Those that are left go on for a while.
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        std::fs::write(&end, "").expect("written");
        let seen = asking.await.expect("no query was lost");
        let sent_away = seen.contains("57P01") || seen.contains("replaced");
        assert!(sent_away, "nobody was sent away: {seen}");
    })
    .await;
}
