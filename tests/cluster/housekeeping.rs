//! One daemon keeps house; when it dies, another goes on.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::common::link::{Link, State};
use crate::support::*;

const COMPACTED: &str = "SELECT daemon FROM system.maintenance WHERE kind = 'compact' AND error IS NULL ORDER BY started";

const FILES: &str = "SELECT count(*) FROM \"t$files\"";

/// Adds small files, until those that there are became few.
async fn litter(client: &Client, from: u32) {
    for n in from..from + 10 {
        client.rows(&format!("INSERT INTO t VALUES ({n})")).await;
    }
    let few = async || client.value(FILES).await.parse::<u32>().is_ok_and(|files| files < 5);
    until("small files became one", few).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_leader_dies_another_keeps_house() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper();
        let warehouse = cluster.path("warehouse").display().to_string();
        let cluster = cluster.with("WAREHOUSE", &warehouse).with("MAINTENANCE_INTERVAL", "100ms");
        let ids = ["a", "b", "c"];
        let daemons = cluster.start_all(ids);
        let client = Client::connect(&daemons[0]).await;
        all_ready(&client, &ids).await;
        let leader = "SELECT id FROM system.daemons WHERE leader";
        let leads = async |client: &Client| client.value(leader).await;
        until("a leader", async || !leads(&client).await.is_empty()).await;
        let first = leads(&client).await;
        let at = ids.iter().position(|id| *id == first).expect("one of them");

        // Written through another one: whoever writes does not keep house for that.
        let other = Client::connect(&daemons[(at + 1) % 3]).await;
        other.rows("SET oribi.consistency = 'strong'").await;
        other.rows("CREATE TABLE t (n int)").await;
        litter(&other, 0).await;
        // What was done is written down after the round.
        let logged = async || !other.rows(COMPACTED).await.is_empty();
        until("it is written down", logged).await;
        let by = |rows: Vec<Vec<String>>| rows.into_iter().flatten().collect::<Vec<String>>();
        let before = by(other.rows(COMPACTED).await);
        assert!(before.iter().all(|daemon| *daemon == first), "{before:?}, and {first} leads");

        daemons[at].kill();
        let another = async || !["", &first].contains(&&*leads(&other).await);
        until("another leads", another).await;
        let second = leads(&other).await;
        litter(&other, 10).await;
        let logged =
            async || other.rows(COMPACTED).await.last().is_some_and(|row| row[0] == second);
        until("it is written down", logged).await;
        let all = by(other.rows(COMPACTED).await);
        let daemons: BTreeSet<_> = all.iter().collect();
        assert_eq!(daemons, BTreeSet::from([&first, &second]), "{all:?}");
        // The one and then the other, never both.
        let since = all.iter().position(|daemon| *daemon == second).expect("the second's");
        assert!(all[since..].iter().all(|daemon| *daemon == second), "{all:?}");
        assert_eq!(other.rows("SELECT count(*), sum(n) FROM t").await, [["20", "190"]]);
    })
    .await;
}

/// A cluster whose first daemon, `a`, leads, keeps house and stops itself when it is about to commit
/// what it compacted; what the second does is left to `keeps`. The table `t` has ten small files.
async fn stopped_at_its_work(keeps: &str) -> (Cluster, Daemon, Daemon, Client) {
    let cluster = Cluster::on_shared_zookeeper();
    let warehouse = cluster.path("warehouse").display().to_string();
    let cluster = cluster
        .with("WAREHOUSE", &warehouse)
        .with("MAINTENANCE_INTERVAL", "100ms")
        .with("FAULT", "a commit is to be made")
        .with("FAULT_BY", "stop");
    let a = cluster.start("a");
    let cluster = cluster.with("FAULT", "").with("MAINTENANCE_INTERVAL", keeps);
    let b = cluster.start("b");
    let client = Client::connect(&b).await;
    all_ready(&client, &["a", "b"]).await;
    client.rows("SET oribi.consistency = 'strong'").await;
    client.rows("CREATE TABLE t (n int)").await;
    for n in 0..10 {
        client.rows(&format!("INSERT INTO t VALUES ({n})")).await;
    }
    until("it stops in the middle of its work", async || is_stopped(&a)).await;
    let leader = "SELECT id FROM system.daemons WHERE leader";
    until("the other leads", async || client.value(leader).await == "b").await;
    (cluster, a, b, client)
}

/// Whether a daemon knows that it leads no more, and what it had begun has come to nothing: it was refused,
/// or dropped with the lead.
fn gave_up(daemon: &Daemon) -> bool {
    let log = daemon.log();
    log.contains("maintenance failed") || log.contains("registered anew after a lost session")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_leader_began_before_it_slept_it_cannot_end() {
    bounded(async {
        // Nobody else touches the table: nothing but the fence refuses the commit.
        let (_cluster, a, b, client) = stopped_at_its_work("none").await;
        let state = "SELECT reloptions::text FROM pg_class WHERE relname = 't'";
        let (before, files) = (client.value(state).await, client.value(FILES).await);
        assert!(before.contains("metadata=") && files != "1", "{before}, {files} files");
        a.resume();
        until("it is refused", async || gave_up(&a)).await;
        all_ready(&client, &["a", "b"]).await;
        assert_eq!(client.value(state).await, before);
        assert_eq!(client.value(FILES).await, files);
        assert_eq!(client.rows(COMPACTED).await, Vec::<Vec<String>>::new());
        assert_eq!(client.rows("SELECT count(*), sum(n) FROM t").await, [["10", "45"]]);
        // It leads again only when its turn comes, and then it may.
        b.kill();
        let client = Client::connect(&a).await;
        client.rows("SET oribi.consistency = 'strong'").await;
        until("it keeps house", async || client.value(FILES).await == "1").await;
        assert_eq!(client.rows("SELECT count(*), sum(n) FROM t").await, [["10", "45"]]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_never_keep_house() {
    bounded(async {
        let (_cluster, a, _b, client) = stopped_at_its_work("100ms").await;
        let logged = async || !client.rows(COMPACTED).await.is_empty();
        until("the other keeps house", logged).await;
        a.resume();
        until("it is refused", async || gave_up(&a)).await;
        all_ready(&client, &["a", "b"]).await;
        litter(&client, 10).await;
        let by: BTreeSet<_> = client.rows(COMPACTED).await.into_iter().flatten().collect();
        assert_eq!(by, BTreeSet::from(["b".to_owned()]));
        assert_eq!(client.rows("SELECT count(*), sum(n) FROM t").await, [["20", "190"]]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_cut_off_keeps_no_house() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper();
        let warehouse = cluster.path("warehouse").display().to_string();
        let cluster = cluster.with("WAREHOUSE", &warehouse).with("MAINTENANCE_INTERVAL", "100ms");
        let (hosts, _) = cluster.zookeeper().split_once('/').expect("a chroot");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let link = Link::start(any, hosts.parse().expect("an address")).await;
        let a = cluster.start_through("a", &link.address().to_string());
        let b = cluster.start("b");
        let (cut, other) = (Client::connect(&a).await, Client::connect(&b).await);
        all_ready(&other, &["a", "b"]).await;
        other.rows("SET oribi.consistency = 'strong'").await;
        other.rows("CREATE TABLE t (n int)").await;
        litter(&other, 0).await;
        let logged = async || !other.rows(COMPACTED).await.is_empty();
        until("it is written down", logged).await;
        let leader = "SELECT id FROM system.daemons WHERE leader";
        assert_eq!(other.value(leader).await, "a");

        link.set(State::Silent);
        until("the other leads", async || other.value(leader).await == "b").await;
        let state = "SELECT state FROM system.daemons WHERE local";
        assert_eq!(cut.value(state).await, "degraded", "it knows before the others may act");
        litter(&other, 10).await;
        link.set(State::Whole);
        all_ready(&other, &["a", "b"]).await;
        until("it knows who leads", async || cut.value(leader).await == "b").await;
        litter(&other, 20).await;
        let by: Vec<_> = other.rows(COMPACTED).await.into_iter().flatten().collect();
        let since = by.iter().position(|daemon| daemon == "b").expect("the other's");
        assert!(by[since..].iter().all(|daemon| daemon == "b"), "{by:?}");
        assert_eq!(other.rows("SELECT count(*), sum(n) FROM t").await, [["30", "435"]]);
    })
    .await;
}
