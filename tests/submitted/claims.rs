//! A claim whose reply is lost: whether it was made or not, its query is carried out once.

use crate::common::zookeeper::Server;
use crate::proxy::{Break, Proxy};
use crate::support::{Client, Cluster, bounded, until};
use crate::{submit, wait};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_whose_reply_is_lost_is_of_one_query_all_the_same() {
    bounded(async {
        let server = Server::start();
        let proxy = Proxy::start(server.address()).await;
        let cluster = Cluster::on(&proxy.address().to_string());
        let warehouse = cluster.path("warehouse").display().to_string();
        let cluster = cluster.with("WAREHOUSE", &warehouse);
        let daemon = cluster.start("a");
        let client = Client::connect(&daemon).await;
        client.rows("CREATE TABLE t (n int)").await;
        client.rows("SET oribi.consistency = 'strong'").await;
        for (n, how) in [Break::Close, Break::Reset].into_iter().cycle().take(4).enumerate() {
            proxy.lose_next_transaction(b"/claims/", how);
            let id = submit(&client, &format!("INSERT INTO t VALUES ({n})")).await;
            // By now it is claimed, and nobody but the store knows.
            proxy.shut().await;
            proxy.restore();
            let done = format!("SELECT oribi.wait('{id}', '60s')");
            let done = async || {
                let rows = client.try_rows(&done).await;
                rows.is_ok_and(|rows| rows[0][0] == "succeeded")
            };
            until(&format!("{id} has succeeded"), done).await;
            let attempts = format!("SELECT attempt FROM system.queries WHERE id = '{id}'");
            assert_eq!(client.value(&attempts).await, "2", "the lost claim was an attempt");
            let rows = client.value(&format!("SELECT count(*) FROM t WHERE n = {n}")).await;
            assert_eq!(rows, "1", "{n} was written once");
        }
        // No claim is left behind.
        let left = "SELECT count(*) FROM zk.nodes WHERE path LIKE '%/claims/%'";
        until("all claims are gone", async || client.value(left).await == "0").await;
        // The same with none lost.
        let id = submit(&client, "INSERT INTO t VALUES (100)").await;
        assert_eq!(wait(&client, &id).await, "succeeded");
        assert_eq!(client.value("SELECT count(*) FROM t").await, "5");
    })
    .await;
}
