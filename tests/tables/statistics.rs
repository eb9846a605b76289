//! Files that cannot have a row that is asked for are not opened.

use crate::common::daemon::{Daemon, Options};
use crate::support::{Client, bounded};

/// How many files a query opened, as EXPLAIN ANALYZE says.
async fn opened(client: &Client, query: &str) -> usize {
    let plan = client.rows(&format!("EXPLAIN ANALYZE {query}")).await;
    let plan = plan.into_iter().flatten().collect::<Vec<_>>().join("\n");
    let opened = plan.split("files_opened=").skip(1).map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse::<usize>().expect("a number")
    });
    opened.sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_skipped_by_their_statistics_and_partitions() {
    bounded(async {
        let daemon = Daemon::start(&Options::new().env("ORIBI_MAINTENANCE_INTERVAL", "none"));
        let client = Client::connect(&daemon).await;
        client.rows("CREATE TABLE t (n int, s text, at timestamp, d date)").await;
        client
            .rows("CREATE TABLE p (n int, at timestamp) PARTITIONED BY (day(at), truncate(10, n))")
            .await;
        for file in 0..5 {
            let rows = format!(
                "SELECT {file} * 10 + i AS n, 's' || {file}, timestamp '2024-01-01' + \
                 ({file} * 10 + i) * interval '1 hour', CASE WHEN {file} < 3 THEN NULL ELSE \
                 date '2024-01-01' + {file} END FROM generate_series(0, 9) g (i)"
            );
            client.rows(&format!("INSERT INTO t {rows}")).await;
        }
        client.rows("INSERT INTO p SELECT n, at FROM t").await;
        for (query, files, rows) in [
            ("SELECT * FROM t", 5, 50),
            ("SELECT * FROM t WHERE n = 15", 1, 1),
            ("SELECT * FROM t WHERE n BETWEEN 9 AND 20", 3, 12),
            ("SELECT * FROM t WHERE n IN (5, 45)", 2, 2),
            ("SELECT * FROM t WHERE n > 100", 0, 0),
            ("SELECT * FROM t WHERE s = 's3'", 1, 10),
            ("SELECT * FROM t WHERE s LIKE 's4%'", 1, 10),
            ("SELECT * FROM t WHERE at < '2024-01-01 10:00'", 1, 10),
            ("SELECT * FROM t WHERE d IS NULL", 3, 30),
            ("SELECT * FROM t WHERE d IS NOT NULL", 2, 20),
            ("SELECT * FROM t WHERE n < 10 AND s = 's1'", 0, 0),
            ("SELECT * FROM t WHERE n < 10 OR s = 's1'", 2, 20),
            // Days have 24 rows, cut at each tenth: 0-9, 10-19, 20-23; 24-29, 30-39, 40-47; 48, 49.
            ("SELECT * FROM p", 7, 50),
            ("SELECT * FROM p WHERE at < '2024-01-02'", 3, 24),
            ("SELECT * FROM p WHERE n = 25", 1, 1),
            ("SELECT * FROM p WHERE at >= '2024-01-02' AND n < 30", 1, 6),
        ] {
            let count = client.value(&query.replace('*', "count(*)")).await;
            assert_eq!(count, rows.to_string(), "{query}");
            assert_eq!(opened(&client, query).await, files, "{query}");
        }
    })
    .await;
}
