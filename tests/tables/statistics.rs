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

/// Files' statistics say nothing of NaN, which is above all numbers.
#[tokio::test(flavor = "multi_thread")]
async fn nan_is_found_whatever_the_statistics_say() {
    const NAN: f64 = f64::NAN;
    bounded(async {
        let daemon = Daemon::start(&Options::new());
        let client = Client::connect(&daemon).await;
        // By file, by row group.
        let files: [&[&[f64]]; 4] = [
            &[&[1.0, 5.0, NAN]],
            &[&[2.0, 3.0], &[NAN, NAN]],
            &[&[NAN]],
            &[&[5.0], &[5.0, NAN], &[6.0, 7.0]],
        ];
        let folder = daemon.data_dir().join("floats");
        std::fs::create_dir_all(&folder).expect("a folder");
        for (at, groups) in files.iter().enumerate() {
            write_groups(&folder.join(format!("{at}.parquet")), groups);
        }
        let location = folder.display();
        let external = format!("CREATE EXTERNAL TABLE e STORED AS PARQUET LOCATION '{location}'");
        client.rows(&external).await;
        client.rows("CREATE TABLE m AS SELECT * FROM e").await;
        for (condition, count) in [
            ("f = 'NaN'", 5),
            ("f <> 5", 10),
            ("f > 5", 7),
            ("f > 7", 5),
            ("f >= 100", 5),
            ("f = 5", 3),
            ("f < 5", 3),
            ("f <= 'NaN'", 13),
            ("f IN (1, 'NaN')", 6),
            ("NOT f <= 7", 5),
            ("f BETWEEN 6 AND 'NaN'", 7),
            ("f IS NOT NULL", 13),
        ] {
            for table in ["e", "m"] {
                let query = format!("SELECT count(f) FROM {table} WHERE {condition}");
                assert_eq!(client.value(&query).await, count.to_string(), "{query}");
                for limit in [1, 20] {
                    let some = format!("SELECT f FROM {table} WHERE {condition} LIMIT {limit}");
                    assert_eq!(client.rows(&some).await.len(), count.min(limit), "{some}");
                }
            }
        }
        for table in ["e", "m"] {
            let ends = format!("SELECT min(f) || ' ' || max(f) FROM {table}");
            assert_eq!(client.value(&ends).await, "1 NaN", "{ends}");
            let greatest = format!("SELECT f FROM {table} ORDER BY f DESC LIMIT 6");
            let greatest = client.rows(&greatest).await.into_iter().flatten().collect::<Vec<_>>();
            assert_eq!(greatest, ["NaN", "NaN", "NaN", "NaN", "NaN", "7"], "{table}");
            let joined = format!("SELECT count(*) FROM {table} a JOIN e b ON a.f = b.f");
            // NaN equals itself: 5 times 5, and 3 times 3 of 5.
            assert_eq!(client.value(&joined).await, (25 + 9 + 5).to_string(), "{joined}");
        }
    })
    .await;
}

fn write_groups(path: &std::path::Path, groups: &[&[f64]]) {
    use arrow::array::{ArrayRef, Float64Array, RecordBatch};
    let rows = |values: &[f64]| {
        let values: ArrayRef = std::sync::Arc::new(Float64Array::from(values.to_vec()));
        RecordBatch::try_from_iter([("f", values)]).expect("rows")
    };
    let file = std::fs::File::create(path).expect("a file");
    let schema = rows(&[]).schema();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, schema, None).expect("a writer");
    for group in groups {
        writer.write(&rows(group)).expect("rows written");
        writer.flush().expect("a row group");
    }
    writer.close().expect("a file");
}
