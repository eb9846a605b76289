//! Pools and submitted queries.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pools_hold_for_submitted_queries() {
    bounded(async {
        let (_cluster, daemons) = three().await;
        let client = Client::connect(&daemons[0]).await;
        client.rows("CREATE ROLE ann LOGIN; CREATE TABLE t AS SELECT 1 AS x").await;
        client.rows("GRANT SELECT ON t TO ann").await;
        // One that reads a table: others are in no pool.
        let endless = format!("{ENDLESS} AND x > (SELECT max(x) FROM t)");
        client.rows("CREATE POOL small WITH (concurrency = 3, queue = 0) TO ann").await;
        let ann = Client::connect_as(&daemons[1], "ann").await;
        let mut ids = Vec::new();
        for _ in 0..5 {
            ids.push(submit(&ann, &endless).await);
        }
        let running = "SELECT count(*) FROM system.queries \
                       WHERE kind = 'submitted' AND state = 'running'";
        until("as many run as the pool lets", async || client.value(running).await == "3").await;
        // Who looks from elsewhere sees their pool as well as who looks from where they run.
        let pools = "SELECT state, pool, count(*) FROM system.queries \
                     WHERE kind = 'submitted' GROUP BY state, pool ORDER BY state, pool";
        for daemon in &daemons {
            let client = Client::connect(daemon).await;
            let expected = [["queued", "", "2"], ["running", "small", "3"]];
            until("the pool is seen", async || client.rows(pools).await == expected).await;
        }
        // Somebody else's goes past those that wait, and nothing of the pool's fails.
        let other = submit(&client, "SELECT 1").await;
        assert_eq!(wait(&client, &other).await, "succeeded");
        let states = "SELECT state, count(*) FROM system.queries \
                      WHERE kind = 'submitted' AND \"user\" = 'ann' GROUP BY state ORDER BY state";
        assert_eq!(client.rows(states).await, [["queued", "2"], ["running", "3"]]);
        client.value(&format!("SELECT oribi.cancel('{}')", ids[0])).await;
        let queued = "SELECT count(*) FROM system.queries \
                      WHERE kind = 'submitted' AND state = 'queued'";
        until("the next one has its turn", async || client.value(queued).await == "1").await;
        for id in &ids {
            client.value(&format!("SELECT oribi.cancel('{id}')")).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_bounds_the_memory_of_a_submitted_query() {
    bounded(async {
        let (_cluster, daemons) = three().await;
        let client = Client::connect(&daemons[0]).await;
        client.rows("CREATE ROLE ann LOGIN").await;
        client.rows("CREATE POOL small WITH (memory = '16MiB') TO ann").await;
        let ann = Client::connect_as(&daemons[1], "ann").await;
        let join = "SELECT count(*) FROM generate_series(1, 1000000) a (i) \
                    JOIN generate_series(1, 1000000) b (i) ON a.i = b.i";
        let (hers, free) = (submit(&ann, join).await, submit(&client, join).await);
        assert_eq!(wait(&client, &free).await, "succeeded");
        assert_eq!(wait(&client, &hers).await, "failed");
        let error = format!("SELECT error FROM system.queries WHERE id = '{hers}'");
        let error = client.value(&error).await;
        assert!(error.contains("a statement of pool \"small\" may use 16.0 MiB"), "{error}");
    })
    .await;
}
