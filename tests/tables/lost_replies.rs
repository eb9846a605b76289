//! A commit whose reply is lost: the client is told what became of it.

use tokio_postgres::error::SqlState;

use crate::common::zookeeper::Server;
use crate::proxy::{Break, Proxy};
use crate::support::{Client, Cluster, bounded, db_error, until};

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
        let (mut expected, mut written) = (0, 0);
        for (n, how) in [Break::Close, Break::Reset].into_iter().cycle().take(8).enumerate() {
            proxy.lose_next_reply(how);
            let writer = Client::connect(&daemon).await;
            let insert = format!("INSERT INTO t VALUES ({n})");
            let insert = tokio::spawn(async move { writer.try_rows(&insert).await });
            proxy.shut().await;
            proxy.restore();
            match insert.await.expect("the task ends") {
                Ok(_) => (expected, written) = (expected + 1, written + 1),
                Err(error) => {
                    let code = db_error(&error).code().clone();
                    assert_ne!(code, SqlState::TRANSACTION_RESOLUTION_UNKNOWN, "{n}");
                }
            }
            // In touch again, and nothing is there but what was acknowledged.
            client.rows("SET oribi.consistency = 'strong'").await;
            let count = async || {
                let rows = client.try_rows("SELECT count(*) FROM t").await;
                rows.is_ok_and(|rows| rows[0][0] == expected.to_string())
            };
            until(&format!("{expected} rows after {n}"), count).await;
        }
        assert!(written > 0, "no commit went through");
    })
    .await;
}
