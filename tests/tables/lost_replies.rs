//! A commit whose reply is lost: the client is told what became of it.

use crate::common::zookeeper::Server;
use crate::proxy::{Break, Proxy};
use crate::support::{Client, Cluster, PATIENCE, bounded, until};

#[tokio::test(flavor = "multi_thread")]
async fn the_client_is_told_the_truth() {
    bounded(async {
        let server = Server::start();
        let proxy = Proxy::start(server.address()).await;
        let cluster = Cluster::on(&proxy.address().to_string());
        let warehouse = cluster.path("warehouse").display().to_string();
        let cluster = cluster.with("WAREHOUSE", &warehouse);
        let daemon = cluster.start("a");
        let client = Client::connect(&daemon).await;
        client.rows("CREATE TABLE t (n int)").await;
        for (n, how) in [Break::Close, Break::Reset].into_iter().cycle().take(8).enumerate() {
            proxy.lose_next_commit(how);
            let writer = Client::connect(&daemon).await;
            let insert = format!("INSERT INTO t VALUES ({n})");
            let insert = tokio::spawn(async move { writer.outcome(&insert).await });
            // By now the commit is made, and nobody but the store knows.
            proxy.shut().await;
            proxy.restore();
            assert_eq!(insert.await.expect("the task ends"), "", "{n} was written");
            // In touch again, and what was acknowledged is there, once.
            client.rows("SET oribi.consistency = 'strong'").await;
            let expected = format!("{} {n}", n + 1);
            let found = async || {
                let rows = client.try_rows("SELECT count(*) || ' ' || max(n) FROM t").await;
                rows.is_ok_and(|rows| rows[0][0] == expected)
            };
            until(&format!("{expected} in the table"), found).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_whose_ensemble_goes_while_it_joins_waits_for_it() {
    bounded(async {
        let server = Server::start();
        let proxy = Proxy::start(server.address()).await;
        let cluster = Cluster::on(&proxy.address().to_string());
        // Whatever is made by the first daemon of all is there.
        drop(cluster.start("a"));
        proxy.lose_next_transaction(b"/daemons/b", Break::Reset);
        let patient = cluster.launch("b", "b");
        // It is registered by now, and the ensemble is gone.
        proxy.shut().await;
        until("it starts again", async || patient.log().contains("starting again")).await;
        assert!(patient.ended().is_none(), "{}", patient.log());
        proxy.restore();
        until("it is ready", async || patient.log().contains("ready")).await;
        drop(patient);

        let cluster = cluster.with("COORDINATION_START_TIMEOUT", "4s");
        proxy.lose_next_transaction(b"/daemons/c", Break::Reset);
        let impatient = cluster.launch("c", "c");
        proxy.shut().await;
        assert_eq!(impatient.wait(PATIENCE).code(), Some(1));
        let (log, hosts) = (impatient.log(), proxy.address().to_string());
        for part in ["cannot reach ZooKeeper at", &hosts, "tried for 4s"] {
            assert!(log.contains(part), "no {part} in:\n{log}");
        }
    })
    .await;
}
