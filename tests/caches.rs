//! Known results: given again as long as nothing has changed that they were made of, and never after. Parts
//! of files that are read often: in memory, and never anything but what the files hold.

mod common;

#[path = "caches/look_ups.rs"]
mod look_ups;
#[path = "cluster/support.rs"]
mod support;

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arrow::array::{ArrayRef, Int32Array, RecordBatch};
use common::daemon::{Daemon, Options};
use parquet::arrow::ArrowWriter;
use support::*;

/// How often a result was known.
async fn hits(client: &Client) -> u32 {
    hits_of(client, "results").await
}

async fn hits_of(client: &Client, cache: &str) -> u32 {
    let hits = format!("SELECT hits FROM system.caches WHERE name = '{cache}'");
    client.value(&hits).await.parse().expect("a number")
}

/// The only value, and whether it was known.
async fn ask(client: &Client, sql: &str) -> (String, bool) {
    let before = hits(client).await;
    let value = client.value(sql).await;
    (value, hits(client).await > before)
}

/// Asks until the result is known, which is at once.
async fn known(client: &Client, sql: &str) -> String {
    let (first, _) = ask(client, sql).await;
    assert_eq!(ask(client, sql).await, (first.clone(), true), "{sql}");
    first
}

const SUM: &str = "SELECT count(*) || ' ' || sum(n) FROM t";

async fn started() -> (Daemon, Client) {
    let daemon = Daemon::start(&Options::new().env("ORIBI_MAINTENANCE_INTERVAL", "none"));
    let client = Client::connect(&daemon).await;
    client.rows("CREATE TABLE t (n int, at timestamptz DEFAULT '2024-01-01Z')").await;
    client.rows("INSERT INTO t SELECT * FROM generate_series(1, 10)").await;
    (daemon, client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_is_seen_at_once() {
    bounded(async {
        let (daemon, client) = started().await;
        let other = Client::connect(&daemon).await;
        assert_eq!(known(&client, SUM).await, "10 55");
        assert_eq!(ask(&other, SUM).await, ("10 55".to_owned(), true), "for all sessions");
        for (change, expected) in [
            ("INSERT INTO t VALUES (100)", "11 155"),
            ("UPDATE t SET n = 0 WHERE n = 100", "11 55"),
            ("DELETE FROM t WHERE n = 0", "10 55"),
            ("TRUNCATE t", ""),
            ("INSERT INTO t VALUES (7)", "1 7"),
            ("ALTER TABLE t DROP COLUMN n; ALTER TABLE t ADD COLUMN n int", ""),
            ("UPDATE t SET n = 5", "1 5"),
            ("DROP TABLE t; CREATE TABLE t (n int); INSERT INTO t VALUES (1), (2)", "2 3"),
        ] {
            other.rows(change).await;
            assert_eq!(ask(&client, SUM).await, (expected.to_owned(), false), "{change}");
            assert_eq!(known(&client, SUM).await, expected, "{change}");
        }
        // A name within a view is one on the view's path.
        client.rows("CREATE SCHEMA a; CREATE SCHEMA b").await;
        for (schema, rows) in [("a", 2), ("b", 3)] {
            client
                .rows(&format!(
                    "CREATE TABLE {schema}.u AS SELECT value AS n FROM generate_series(1, {rows}) g(value)"
                ))
                .await;
        }
        let views = async |v: &str| {
            for (view, path) in [("v", v), ("w", "b")] {
                client.rows(&format!("SET search_path = {path}")).await;
                client
                    .rows(&format!("CREATE OR REPLACE VIEW public.{view} AS SELECT * FROM u"))
                    .await;
            }
            client.rows("SET search_path = a, public").await;
        };
        let crossed = "SELECT count(*) FROM u, v, w";
        views("a").await;
        assert_eq!(known(&client, crossed).await, "12");
        views("b").await;
        assert_eq!(ask(&client, crossed).await, ("18".to_owned(), false));
        client.rows("RESET search_path").await;
        // What a block has written it sees itself, and nobody else, also not when it is undone.
        client.rows("BEGIN").await;
        client.rows("INSERT INTO t VALUES (10)").await;
        assert_eq!(client.value(SUM).await, "3 13");
        assert_eq!(client.value(SUM).await, "3 13");
        assert_eq!(other.value(SUM).await, "2 3");
        client.rows("ROLLBACK").await;
        assert_eq!(client.value(SUM).await, "2 3");
    })
    .await;
}

/// A Parquet file with these rows, of long ago.
fn write(path: &Path, rows: &[i32]) {
    let column = Arc::new(Int32Array::from(rows.to_vec())) as ArrayRef;
    let rows = RecordBatch::try_from_iter([("n", column)]).expect("rows");
    let file = File::create(path).expect("a file");
    let mut writer = ArrowWriter::try_new(file, rows.schema(), None).expect("a writer");
    writer.write(&rows).expect("written");
    writer.close().expect("closed");
    let file = File::options().write(true).open(path).expect("a file");
    let before = SystemTime::now() - Duration::from_hours(1);
    file.set_modified(before).expect("older");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_others_count_as_well() {
    bounded(async {
        let (daemon, client) = started().await;
        let folder = daemon.data_dir().join("files");
        fs::create_dir(&folder).expect("a folder");
        let file = |name: &str| folder.join(name);
        write(&file("a.parquet"), &[1]);
        let create = "CREATE EXTERNAL TABLE e STORED AS PARQUET LOCATION";
        client.rows(&format!("{create} '{}/'", folder.display())).await;
        let sum = "SELECT count(*) || ' ' || sum(n) FROM e";
        assert_eq!(known(&client, sum).await, "1 1");
        write(&file("b.parquet"), &[20]);
        assert_eq!(ask(&client, sum).await, ("2 21".to_owned(), false));
        // Of the same size, and another.
        write(&file("c.parquet"), &[30]);
        fs::rename(file("c.parquet"), file("b.parquet")).expect("renamed");
        assert_eq!(ask(&client, sum).await, ("2 31".to_owned(), false));
        assert_eq!(known(&client, sum).await, "2 31");
        fs::remove_file(file("b.parquet")).expect("removed");
        assert_eq!(ask(&client, sum).await, ("1 1".to_owned(), false));
        // One that is written just now may be written again.
        let touched = File::options().write(true).open(file("a.parquet")).expect("a file");
        touched.set_modified(SystemTime::now()).expect("touched");
        assert_eq!(ask(&client, sum).await, ("1 1".to_owned(), false));
        until("it is old enough", async || ask(&client, sum).await.1).await;
        // The same files, read in another way.
        let folder = daemon.data_dir().join("text");
        fs::create_dir(&folder).expect("a folder");
        let text = folder.join("a.csv");
        fs::write(&text, "1\n2\n").expect("written");
        let touched = File::options().write(true).open(&text).expect("a file");
        touched.set_modified(SystemTime::UNIX_EPOCH).expect("older");
        let create = |header: bool| {
            format!(
                "CREATE EXTERNAL TABLE c (n int) STORED AS CSV LOCATION '{}/' OPTIONS ('format.has_header' '{header}')",
                folder.display()
            )
        };
        let count = "SELECT count(*) || ' ' || sum(n) FROM c";
        client.rows(&create(false)).await;
        assert_eq!(known(&client, count).await, "2 3");
        client.rows("DROP TABLE c").await;
        client.rows(&create(true)).await;
        assert_eq!(ask(&client, count).await, ("1 2".to_owned(), false));
    })
    .await;
}

/// How many files a plan reads.
async fn planned_files(client: &Client, sql: &str) -> usize {
    let plan = client.rows(&format!("EXPLAIN VERBOSE {sql}")).await.into_iter().flatten();
    let scans = plan.flat_map(|text| {
        let scans = text.lines().filter(|line| line.contains("file_groups="));
        scans.map(|line| line.matches(".parquet").count()).collect::<Vec<_>>()
    });
    scans.last().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_known_of_a_folder_is_of_the_files_in_it() {
    bounded(async {
        let (daemon, client) = started().await;
        client.rows("SET oribi.result_cache = off").await;
        let folder = daemon.data_dir().join("folder");
        let part = |k: &str| folder.join(format!("k={k}"));
        let null = "__HIVE_DEFAULT_PARTITION__";
        for k in ["1", "2", null] {
            fs::create_dir_all(part(k)).expect("a folder");
        }
        let file = |n: i32| part(["1", "2"][n as usize % 2]).join(format!("{n:03}.parquet"));
        // Ten rows each: 0 to 9, 10 to 19, and so on; those of odd tens in the part 2.
        let fill = |n: i32| write(&file(n), &(n * 10..n * 10 + 10).collect::<Vec<_>>());
        (0..40).for_each(fill);
        write(&part(null).join("0.parquet"), &[-1]);
        let create = |n: &str, k: &str| {
            format!(
                "CREATE EXTERNAL TABLE e (n {n}) STORED AS PARQUET PARTITIONED BY (k {k}) \
                 LOCATION '{}/'",
                folder.display()
            )
        };
        client.rows(&create("int", "int")).await;
        let figure = async |cache: &str, figure: &str| -> u64 {
            let sql = format!("SELECT {figure} FROM system.caches WHERE name = '{cache}'");
            client.value(&sql).await.parse().expect("a number")
        };

        // Of files that a statement has no need of nothing is read.
        let sum = "SELECT count(*) || ' ' || coalesce(sum(n), 0) FROM e";
        let first = format!("{sum} WHERE k = 1");
        assert_eq!(client.value(&first).await, "200 38900");
        assert_eq!(figure("file_statistics", "entries").await, 20);
        assert_eq!(figure("external_files", "entries").await, 1);
        assert_eq!(client.value(sum).await, "401 79799");
        assert_eq!(figure("file_statistics", "entries").await, 41);
        let hits = hits_of(&client, "external_files").await;
        for (condition, expected, files) in [
            ("true", "401 79799", 41),
            ("k = 1", "200 38900", 20),
            ("k IS NULL", "1 -1", 1),
            ("k > 1", "200 40900", 20),
            ("n = 105", "1 105", 1),
            ("n < 25 AND k IS NOT NULL", "25 300", 3),
            ("n < 25 AND k = 2", "10 145", 1),
            ("n IN (5, 395) OR n IS NULL", "2 400", 2),
            ("n + 1 = 106", "1 105", 41),
            ("n > 400", "0 0", 0),
        ] {
            let sql = format!("{sum} WHERE {condition}");
            assert_eq!(client.value(&sql).await, expected, "{condition}");
            // Not the sum itself, for which statistics may be enough.
            let rows = format!("SELECT * FROM e WHERE {condition}");
            assert_eq!(planned_files(&client, &rows).await, files, "{condition}");
        }
        let limited = "SELECT n FROM e WHERE k = 1 LIMIT 15";
        assert_eq!(client.rows(limited).await.len(), 15);
        assert_eq!(planned_files(&client, "SELECT n FROM e LIMIT 15").await, 2);
        assert!(hits_of(&client, "external_files").await >= hits + 20);
        let bytes = figure("external_files", "bytes").await;
        assert!((41 * 300..41 * 10_000).contains(&bytes), "{bytes}");
        assert!(bytes < figure("external_files", "bytes_limit").await);

        // One more, another of the same size, one less; one that is gone and one that has come.
        let seen = async |expected: &str| {
            for _ in 0..2 {
                assert_eq!(client.value(sum).await, expected);
            }
        };
        fill(40);
        seen("411 83844").await;
        write(&folder.join("other"), &(5000..5010).collect::<Vec<_>>());
        fs::rename(folder.join("other"), file(7)).expect("renamed");
        seen("411 133144").await;
        assert_eq!(client.value("SELECT k FROM e WHERE n = 5003").await, "2");
        assert!(client.rows("SELECT k FROM e WHERE n = 73").await.is_empty());
        fs::remove_file(file(7)).expect("removed");
        seen("401 83099").await;
        fs::rename(file(8), file(51)).expect("renamed");
        seen("401 83099").await;
        assert_eq!(client.value("SELECT k FROM e WHERE n = 83").await, "2");
        // Written over where it lies, and longer.
        write(&file(9), &[6000; 20]);
        seen("411 202154").await;
        // Links are followed, and what they lead to counts.
        let outside = daemon.data_dir().join("outside.parquet");
        write(&outside, &[7000]);
        std::os::unix::fs::symlink(&outside, file(60)).expect("a link");
        seen("412 209154").await;
        write(&outside, &[8000]);
        seen("412 210154").await;
        fs::remove_file(file(60)).expect("removed");
        seen("411 202154").await;
        // Another table of the same files.
        client.rows("DROP TABLE e").await;
        client.rows(&create("bigint", "text")).await;
        seen("411 202154").await;
        let kinds = "SELECT pg_typeof(n) || ' ' || pg_typeof(k) || ' ' || k FROM e WHERE n = 11";
        assert_eq!(client.value(kinds).await, "bigint text 2");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_be_another_is_not_kept() {
    bounded(async {
        let (_daemon, client) = started().await;
        for sql in [
            "SELECT count(*) FROM t WHERE at < now()",
            "SELECT max(random() + n) FROM t",
            "SELECT count(*) FROM t, system.daemons",
            "SELECT count(*) FROM t WHERE n > (SELECT extract(epoch FROM now()) - 1e10)",
        ] {
            for _ in 0..3 {
                assert!(!ask(&client, sql).await.1, "{sql}");
            }
        }
        // The values of parameters, and what settings mean.
        let by = "PREPARE by (int) AS SELECT sum(n) FROM t WHERE n > $1";
        client.rows(by).await;
        assert_eq!(known(&client, "EXECUTE by(8)").await, "19");
        assert_eq!(ask(&client, "EXECUTE by(9)").await, ("10".to_owned(), false));
        let zoned = "SELECT count(*) FROM t WHERE at < '2024-01-01 03:00'";
        assert_eq!(known(&client, zoned).await, "10");
        client.rows("SET TimeZone = 'Asia/Tokyo'").await;
        assert_eq!(ask(&client, zoned).await, ("0".to_owned(), false));
        client.rows("RESET TimeZone").await;
        assert_eq!(known(&client, zoned).await, "10");
        client.rows("SET oribi.result_cache = off").await;
        assert_eq!(ask(&client, zoned).await, ("10".to_owned(), false));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_sees_what_he_may_not() {
    bounded(async {
        let (daemon, client) = started().await;
        client.rows("CREATE ROLE some LOGIN; CREATE ROLE other LOGIN").await;
        client.rows("GRANT SELECT (at) ON t TO some").await;
        assert_eq!(known(&client, SUM).await, "10 55");
        let some = Client::connect_as(&daemon, "some").await;
        let other = Client::connect_as(&daemon, "other").await;
        for role in [&some, &other] {
            assert_eq!(role.outcome(SUM).await, "42501");
        }
        client.rows("GRANT SELECT ON t TO other").await;
        assert_eq!(other.value(SUM).await, "10 55");
        other.rows(&format!("PREPARE sum AS {SUM}")).await;
        assert_eq!(other.value("EXECUTE sum").await, "10 55");
        client.rows("REVOKE SELECT ON t FROM other").await;
        assert_eq!(other.outcome(SUM).await, "42501");
        assert_eq!(other.outcome("EXECUTE sum").await, "42501");
        client.rows("GRANT SELECT ON t TO some, other").await;
        client.rows("CREATE POLICY few ON t FOR SELECT TO some USING (n < 3)").await;
        client.rows("ALTER TABLE t ENABLE ROW LEVEL SECURITY").await;
        for _ in 0..2 {
            assert_eq!(some.value(SUM).await, "2 3");
            assert_eq!(client.value(SUM).await, "10 55");
            assert_eq!(other.value("SELECT count(*) FROM t").await, "0");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_is_bounded() {
    bounded(async {
        let daemon = Daemon::start(&Options::new().env("ORIBI_ENGINE_RESULT_CACHE", "1MiB"));
        let client = Client::connect(&daemon).await;
        client.rows("CREATE TABLE t (n bigint)").await;
        client.rows("INSERT INTO t SELECT * FROM generate_series(1, 100000)").await;
        for _ in 0..3 {
            let before = hits(&client).await;
            assert_eq!(client.rows("SELECT n FROM t").await.len(), 100_000);
            assert_eq!(hits(&client).await, before, "800 kB are more than an eighth");
        }
        for from in 0..200 {
            let sql = format!("SELECT n FROM t WHERE n > {from} ORDER BY n LIMIT 1000");
            assert_eq!(client.rows(&sql).await.len(), 1000);
        }
        let fits = "SELECT bytes <= bytes_limit AND entries < 200 FROM system.caches \
                    WHERE name = 'results'";
        until("the oldest are gone", async || client.value(fits).await == "t").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_often_is_read_from_memory() {
    bounded(async {
        let (daemon, client) = started().await;
        client.rows("SET oribi.result_cache = off").await;
        let folder = daemon.data_dir().join("files");
        fs::create_dir(&folder).expect("a folder");
        let file = |name: &str| folder.join(name);
        // A column with one value is told by its statistics.
        write(&file("a.parquet"), &[0, 1]);
        write(&file("b.parquet"), &[0, 20]);
        let create = "CREATE EXTERNAL TABLE e STORED AS PARQUET LOCATION";
        client.rows(&format!("{create} '{}/'", folder.display())).await;
        let sum = "SELECT count(*) || ' ' || sum(n) FROM e";
        let read = async |expected: &str| {
            let before = hits_of(&client, "parquet_pages").await;
            assert_eq!(client.value(sum).await, expected);
            hits_of(&client, "parquet_pages").await - before
        };
        until("both are in memory", async || read("4 21").await >= 2).await;
        // Another file of the same name.
        write(&file("c.parquet"), &[0, 30]);
        fs::rename(file("c.parquet"), file("b.parquet")).expect("renamed");
        assert_eq!(read("4 31").await, 1, "the other file's is still known");
        until("the other is as well", async || read("4 31").await >= 2).await;
        fs::remove_file(file("a.parquet")).expect("removed");
        assert_eq!(read("2 30").await, 1);
        // Managed tables, with and without deleted rows, by their keys and as a whole.
        client.rows("CREATE TABLE m AS SELECT value AS n, 'text ' || value % 10 AS t FROM generate_series(1, 200000) g(value)").await;
        client.rows("DELETE FROM m WHERE n % 1000 = 7").await;
        let all = "SELECT count(*) || ' ' || sum(n) || ' ' || min(t) || ' ' || count(DISTINCT t) FROM m";
        let one = "SELECT string_agg(n || t, ',' ORDER BY n) FROM m WHERE n BETWEEN 123007 AND 123008";
        let before = hits_of(&client, "parquet_pages").await;
        let known = async || {
            assert_eq!(client.value(all).await, "199800 19980198600 text 0 10");
            assert_eq!(client.value(one).await, "123008text 8");
            hits_of(&client, "parquet_pages").await > before + 20
        };
        until("it is in memory", known).await;
        let fits = "SELECT bytes > 0 AND bytes <= bytes_limit FROM system.caches WHERE name = 'parquet_pages'";
        assert_eq!(client.value(fits).await, "t");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moment_is_another_in_a_time_zone() {
    bounded(async {
        let (_daemon, client) = started().await;
        client.rows("SET timezone = 'Europe/Vienna'").await;
        let hours = async |moment: &str| {
            let sql = format!(
                "SELECT sum(extract(hour FROM {moment} '2026-03-01 00:07' + n * interval '1 hour')) FROM t"
            );
            client.value(&sql).await.parse::<f64>().expect("a number")
        };
        for _ in 0..3 {
            assert_eq!(hours("timestamp").await, 55.0);
            assert_eq!(hours("timestamptz").await, 55.0);
            let utc = "SELECT sum(extract(hour FROM timestamptz '2026-03-01 00:07Z' + n * interval '1 hour')) FROM t";
            assert_eq!(client.value(utc).await.parse::<f64>().expect("a number"), 65.0);
            let none = utc.replace("timestamptz", "timestamp");
            assert_eq!(client.value(&none).await.parse::<f64>().expect("a number"), 55.0);
        }
    })
    .await;
}
