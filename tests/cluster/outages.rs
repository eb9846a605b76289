//! The ensemble fails, for a moment or for longer, and comes back.

use std::time::{Duration, Instant};

use crate::common::zookeeper::{Ensemble, Server};
use crate::support::*;

const DDL: &str = "CREATE OR REPLACE VIEW scratch AS SELECT 1 AS x";

/// Waits until a daemon takes itself for out of touch, on the way of a client and of a probe.
async fn degraded(id: &str, daemon: &Daemon, client: &Client) {
    let sql = "SELECT state FROM system.daemons WHERE local";
    until("degraded", async || client.value(sql).await == "degraded").await;
    let (status, body) = readyz(daemon).await.expect("an answer");
    assert_eq!((status, &body["state"], &body["id"]), (200, &"degraded".into(), &id.into()));
    let told = client.value("SELECT error FROM system.daemons WHERE local").await;
    for reason in [body["reason"].as_str().unwrap_or_default(), &told] {
        assert!(reason.starts_with("out of touch with ZooKeeper"), "{body}, {told}");
    }
}

/// The incarnations as one daemon sees them.
async fn incarnations(client: &Client) -> Vec<Vec<String>> {
    client.rows("SELECT incarnation FROM system.daemons ORDER BY id").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_go_on_while_zookeeper_is_down() {
    bounded(async {
        let mut server = Server::start();
        let cluster = Cluster::on(&server.connect_string());
        let daemons = [cluster.start("a"), cluster.start("b")];
        let (a, b) = (Client::connect(&daemons[0]).await, Client::connect(&daemons[1]).await);
        a.rows(&cluster.table("t", 42)).await;
        a.rows("CREATE VIEW v AS SELECT x + 1 AS y FROM t").await;
        for client in [&a, &b] {
            all_ready(client, &["a", "b"]).await;
            assert_eq!(client.value("SELECT y FROM v").await, "43");
        }
        // Once for a moment, and once for longer than a session lasts.
        for outage in [Duration::ZERO, SESSION_TIMEOUT * 2] {
            let down = Instant::now();
            server.stop();
            for (id, daemon, client) in [("a", &daemons[0], &a), ("b", &daemons[1], &b)] {
                degraded(id, daemon, client).await;
                let sent = Instant::now();
                assert_eq!(client.value("SELECT y FROM v").await, "43");
                // New clients are served too.
                let other = Client::connect(daemon).await;
                assert_eq!(other.value("SELECT x FROM t").await, "42");
                assert_eq!(other.value("SELECT count(*) FROM system.queries").await, "1");
                // What is not known cannot be looked up; that is no reason to wait.
                assert_eq!(client.refused("SELECT * FROM nowhere").await.code().code(), "42P01");
                for ddl in [
                    DDL,
                    "DROP VIEW v",
                    "CREATE DATABASE d",
                    "COMMENT ON VIEW v IS 'x'",
                    "ALTER SYSTEM SET submitted.running = 3",
                    "ALTER SYSTEM RESET submitted.running",
                    "SELECT oribi.submit('SELECT 1')",
                    "SELECT oribi.schedule('s', '@daily', 'SELECT 1')",
                ] {
                    let refused = client.refused(ddl).await;
                    assert_eq!(refused.code().code(), "25006", "{ddl}: {refused}");
                    assert!(refused.hint().is_some_and(|hint| hint.contains("ZooKeeper")), "{ddl}");
                }
                // What is read must not be older than allowed, or is in ZooKeeper alone.
                for (setting, read) in
                    [("strong", "SELECT x FROM t"), ("cached", "SELECT path FROM zk.nodes")]
                {
                    client.rows(&format!("SET oribi.consistency = '{setting}'")).await;
                    let refused = client.refused(read).await;
                    assert_eq!(refused.code().code(), "58000", "{read}: {refused}");
                    assert!(
                        refused.hint().is_some_and(|hint| hint.contains("ZooKeeper")),
                        "{read}"
                    );
                    assert!(!refused.message().contains("change"), "{read}: {refused}");
                }
                let took = sent.elapsed();
                assert!(took < Duration::from_secs(15), "it took {took:?}: something waits");
            }
            while down.elapsed() < outage {
                assert_eq!(a.value("SELECT y FROM v").await, "43");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            server.restart();
            let back = Instant::now();
            for client in [&a, &b] {
                all_ready(client, &["a", "b"]).await;
            }
            assert!(back.elapsed() < Duration::from_secs(30), "ready after {:?}", back.elapsed());
            let name = format!("after{}", outage.as_secs());
            a.rows(&format!("CREATE VIEW {name} AS SELECT 1 AS x")).await;
            assert_eq!(b.value(&format!("SELECT x FROM {name}")).await, "1");
            b.rows(&format!("DROP VIEW {name}")).await;
            let gone = format!("SELECT x FROM {name}");
            until("the drop is seen", async || a.outcome(&gone).await == "42P01").await;
            for daemon in &daemons {
                let (status, body) = readyz(daemon).await.expect("an answer");
                assert_eq!((status, &body["state"]), (200, &"ready".into()));
                assert_eq!(body.get("reason"), None, "{body}");
            }
            let store = Store::of(&cluster).await;
            assert_eq!(store.children("/daemons").await, ["a", "b"]);
            assert_eq!(store.children("/incarnations").await.len(), 2);
            assert_eq!(store.get("/daemons/a").await.expect("a record")["state"], "ready");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_zookeeper_costs_the_session_at_most() {
    bounded(async {
        let server = Server::start();
        let cluster = Cluster::on(&server.connect_string());
        let daemons = [cluster.start("a"), cluster.start("b")];
        let (a, b) = (Client::connect(&daemons[0]).await, Client::connect(&daemons[1]).await);
        a.rows("CREATE VIEW v AS SELECT 42 AS x").await;
        for client in [&a, &b] {
            all_ready(client, &["a", "b"]).await;
            assert_eq!(client.value("SELECT x FROM v").await, "42");
        }
        server.pause();
        let frozen = Instant::now();
        for (id, daemon, client) in [("a", &daemons[0], &a), ("b", &daemons[1], &b)] {
            degraded(id, daemon, client).await;
        }
        assert!(frozen.elapsed() < SESSION_TIMEOUT * 2, "noticed after {:?}", frozen.elapsed());
        while frozen.elapsed() < SESSION_TIMEOUT * 3 {
            for client in [&a, &b] {
                assert_eq!(client.value("SELECT x FROM v").await, "42");
                // Nothing answers: this is refused in time, and not done later.
                let code = client.outcome("CREATE VIEW ghost AS SELECT 1 AS x").await;
                assert!(code == "25006" || code == "08007", "{code}");
            }
        }
        server.resume();
        for client in [&a, &b] {
            // A server that was frozen itself ends a session whose time was over, or takes it back,
            // whichever it comes to first.
            all_ready(client, &["a", "b"]).await;
            until("two incarnations", async || incarnations(client).await.len() == 2).await;
        }
        a.rows(DDL).await;
        assert_eq!(b.value("SELECT x FROM scratch").await, "1");
        let store = Store::of(&cluster).await;
        until("old incarnations are gone", async || {
            store.children("/incarnations").await.len() == 2
        })
        .await;
        all_ready(&b, &["a", "b"]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_lost_is_hardly_noticed() {
    bounded(async {
        let mut ensemble = Ensemble::start(3);
        let cluster =
            Cluster::on(&ensemble.connect_string()).with("COORDINATION_SESSION_TIMEOUT", "10s");
        let daemons = [cluster.start("a"), cluster.start("b")];
        let (a, b) = (Client::connect(&daemons[0]).await, Client::connect(&daemons[1]).await);
        a.rows("CREATE VIEW v AS SELECT 42 AS x").await;
        for client in [&a, &b] {
            all_ready(client, &["a", "b"]).await;
            assert_eq!(client.value("SELECT x FROM v").await, "42");
        }
        for round in 0..2 {
            let leader = ensemble.leader().expect("a leader");
            ensemble.servers[leader].stop();
            let lost = Instant::now();
            let name = format!("during{round}");
            // Refused for a moment, and never wrongly acknowledged or forgotten.
            until("DDL is possible again", async || {
                for client in [&a, &b] {
                    assert_eq!(client.value("SELECT x FROM v").await, "42");
                }
                let code = a.outcome(&format!("CREATE VIEW {name} AS SELECT 1 AS x")).await;
                assert!(["", "25006", "08007"].contains(&code.as_str()), "{code}");
                code.is_empty()
            })
            .await;
            println!("DDL again after {:?}", lost.elapsed());
            until("the view is there", async || {
                b.outcome(&format!("SELECT x FROM {name}")).await.is_empty()
            })
            .await;
            for client in [&a, &b] {
                all_ready(client, &["a", "b"]).await;
            }
            ensemble.servers[leader].restart();
            until("a leader", async || ensemble.leader().is_some()).await;
        }
    })
    .await;
}
