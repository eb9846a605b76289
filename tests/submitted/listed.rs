//! What `system.queries` says of a query while it runs.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_runs_is_listed_once() {
    bounded(async {
        let (_cluster, daemons) = three().await;
        let client = Client::connect(&daemons[0]).await;
        client.rows("CREATE ROLE ann LOGIN; CREATE TABLE t AS SELECT 1 AS x").await;
        client.rows("GRANT SELECT ON t TO ann; CREATE POOL small TO ann").await;
        let endless = format!("{ENDLESS} AND x > (SELECT max(x) FROM t)");
        let ann = Client::connect_as(&daemons[1], "ann").await;
        let id = submit(&ann, &endless).await;
        let daemon = worker(&client, &id).await;
        // Its statement is known to all daemons, and to tools that go by process ids.
        let backends = format!("SELECT pid FROM pg_stat_activity WHERE query = $${endless}$$");
        let listed = format!(
            "SELECT id, kind, state, daemon, attempt, pid FROM system.queries \
             WHERE sql = $${endless}$$"
        );
        for at in &daemons {
            let client = Client::connect(at).await;
            let mut pid = String::new();
            until("its statement is seen", async || {
                pid = client.value(&backends).await;
                !pid.is_empty()
            })
            .await;
            let expected = [&id, "submitted", "running", &daemon, "1", &pid];
            assert_eq!(client.rows(&listed).await, [expected]);
        }
        // The pool is known there once it is planned.
        let there = daemons.iter().zip(["a", "b", "c"]).find(|(_, name)| *name == daemon);
        let there = Client::connect(there.expect("one of them").0).await;
        let pool = format!("SELECT pool FROM system.queries WHERE id = '{id}'");
        until("its pool is told", async || there.value(&pool).await == "small").await;
        client.value(&format!("SELECT oribi.cancel('{id}')")).await;
        let over = format!("SELECT state, count(*) OVER () FROM ({listed}) q");
        assert_eq!(client.rows(&over).await, [["cancelled", "1"]]);
    })
    .await;
}
