//! What is broken on one daemon costs no rows.

use super::*;

/// Steps of several kinds at the top of a part: an aggregate that is shuffled, a side that is broadcast,
/// rows that are gathered.
const STATEMENTS: [&str; 3] = [
    "SELECT l_suppkey, count(*), sum(l_quantity) FROM lineitem GROUP BY 1 ORDER BY 1",
    JOINED,
    "SELECT l_orderkey, l_linenumber FROM lineitem WHERE l_quantity < 3 ORDER BY 1, 2",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_on_a_daemon_loses_no_rows() {
    bounded(async {
        for after in 0..4 {
            let cluster = Cluster::on_shared_zookeeper();
            answers::generate(SCALE, &cluster.path(""));
            let a = cluster.start("a");
            let cluster = cluster
                .with("FAULT", "a part gives rows")
                .with("FAULT_BY", "panic")
                .with("FAULT_AFTER", &after.to_string());
            let b = cluster.start("b");
            let client = Client::connect(&a).await;
            all_ready(&client, &["a", "b"]).await;
            let files = cluster.path(&format!("tpch/sf{SCALE}"));
            client.rows(&answers::tables("public", &files)).await;
            // As a worker, and as the one that is asked.
            let asked = if after % 2 == 0 { client } else { Client::connect(&b).await };
            let panics = || b.log().matches("and a test wants a panic").count();
            for sql in STATEMENTS {
                asked.rows("SET oribi.distribution = 'off'").await;
                let expected = asked.rows(sql).await;
                asked.rows("SET oribi.distribution = 'always'").await;
                assert!(runs_on(&asked, sql, "a, b").await);
                for _ in 0..2 {
                    assert_eq!(asked.rows(sql).await, expected, "after {after}: {sql}");
                }
            }
            assert!(panics() > 0, "nothing was shown: {}", b.log());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_a_worker_may_not_read_are_read_where_they_may() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper();
        answers::generate(SCALE, &cluster.path(""));
        let a = cluster.start("a");
        let cluster = cluster.with("STORAGE_ROOTS", "s3://elsewhere/");
        let _b = cluster.start("b");
        let client = Client::connect(&a).await;
        all_ready(&client, &["a", "b"]).await;
        let files = cluster.path(&format!("tpch/sf{SCALE}"));
        client.rows(&answers::tables("public", &files)).await;
        let expected = client.rows(JOINED).await;
        client.rows("SET oribi.distribution = 'always'").await;
        assert!(runs_on(&client, JOINED, "a, b").await);
        assert_eq!(client.rows(JOINED).await, expected);
    })
    .await;
}
