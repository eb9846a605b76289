//! What `system.queries` says of a query while it runs.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_runs_is_listed_once() {
    bounded(async {
        let (_cluster, daemons) = three().await;
        let client = Client::connect(&daemons[0]).await;
        client.rows("CREATE ROLE ann LOGIN").await;
        let ann = Client::connect_as(&daemons[1], "ann").await;
        let id = submit(&ann, ENDLESS).await;
        let daemon = worker(&client, &id).await;
        // Its statement is known to all daemons, and to tools that go by process ids.
        let backends = format!("SELECT pid FROM pg_stat_activity WHERE query = $${ENDLESS}$$");
        let listed = format!(
            "SELECT id, kind, state, daemon, attempt, pid FROM system.queries \
             WHERE sql = $${ENDLESS}$$"
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
        client.value(&format!("SELECT oribi.cancel('{id}')")).await;
        let over = format!("SELECT state, count(*) OVER () FROM ({listed}) q");
        assert_eq!(client.rows(&over).await, [["cancelled", "1"]]);
    })
    .await;
}
