//! One daemon keeps house; when it dies, another goes on.

use std::collections::BTreeSet;

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
