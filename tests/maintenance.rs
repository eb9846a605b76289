//! Managed tables in good order: small files made into one, snapshots expired, orphans removed, by
//! their owners and by the daemon that leads.

mod common;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use common::daemon::{Daemon, Options, eventually};
use tokio_postgres::{Client, SimpleQueryMessage};

async fn value(client: &Client, sql: &str) -> String {
    let messages =
        client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
        _ => None,
    });
    row.unwrap_or_default()
}

async fn fill(client: &Client, statements: u32) {
    client.batch_execute("CREATE TABLE t (a int, b text)").await.expect("a table");
    for n in 0..statements {
        let insert = format!("INSERT INTO t VALUES ({n}, 'row {n}')");
        client.batch_execute(&insert).await.expect("a row");
    }
}

/// All files of a kind below a directory.
fn files(directory: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        if path.is_dir() {
            found.extend(files(&path, end));
        } else if path.to_string_lossy().ends_with(end) {
            found.push(path);
        }
    }
    found
}

/// A copy of a file that was there long ago already.
fn plant(beside: &Path, name: &str, age: Duration) -> PathBuf {
    let path = beside.with_file_name(name);
    fs::copy(beside, &path).expect("a copy");
    let file = File::options().write(true).open(&path).expect("the copy");
    file.set_modified(SystemTime::now() - age).expect("a time of change");
    path
}

const SUM: &str = "SELECT count(*) || ' ' || sum(a) || ' ' || count(DISTINCT b) FROM t";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn quiet() -> Options {
    Options::new().env("ORIBI_MAINTENANCE_INTERVAL", "none")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_files_become_one_and_expired_ones_go() {
    let daemon = Daemon::start(&quiet());
    let client = daemon.connect().await;
    fill(&client, 12).await;
    let before = value(&client, SUM).await;
    let warehouse = daemon.data_dir().join("warehouse");
    assert_eq!(files(&warehouse, ".parquet").len(), 12);
    client.batch_execute("OPTIMIZE t").await.expect("OPTIMIZE");
    assert_eq!(value(&client, SUM).await, before);
    assert_eq!(files(&warehouse, ".parquet").len(), 13, "the old ones are part of the history");
    client.batch_execute("VACUUM t RETAIN '0s'").await.expect("VACUUM");
    assert_eq!(files(&warehouse, ".parquet").len(), 1);
    assert_eq!(value(&client, SUM).await, before);
    // What nothing can be done about costs nothing.
    client
        .batch_execute("OPTIMIZE t; VACUUM (ANALYZE) t; VACUUM; VACUUM FULL t")
        .await
        .expect("again");
    client.batch_execute("INSERT INTO t VALUES (100, 'more')").await.expect("a row");
    assert_eq!(value(&client, "SELECT count(*) FROM t").await, "13");
    let refused = client.batch_execute("BEGIN; VACUUM t").await.expect_err("no transaction");
    assert_eq!(refused.code().map(|code| code.code()), Some("25001"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_orphans_go_and_nothing_else_does() {
    let daemon = Daemon::start(&quiet());
    let client = daemon.connect().await;
    fill(&client, 3).await;
    let warehouse = daemon.data_dir().join("warehouse");
    let live = files(&warehouse, ".parquet");
    for file in &live {
        let file = File::options().write(true).open(file).expect("a data file");
        file.set_modified(SystemTime::now() - 10 * DAY).expect("a time of change");
    }
    let old = plant(&live[0], "old.parquet", 4 * DAY);
    let young = plant(&live[0], "young.parquet", DAY);
    let other = plant(&live[0], "notes.txt", 10 * DAY);
    let before = value(&client, SUM).await;
    client.batch_execute("VACUUM t").await.expect("VACUUM");
    assert!(!old.exists(), "older than the grace period, and nothing names it");
    assert!(young.exists() && other.exists());
    assert!(live.iter().all(|file| file.exists()));
    assert_eq!(value(&client, SUM).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_does_it_by_itself() {
    let daemon = Daemon::start(&Options::new().env("ORIBI_MAINTENANCE_INTERVAL", "50ms"));
    let client = daemon.connect().await;
    client
        .batch_execute(
            "CREATE TABLE t (a int, b text) WITH ('history.expire.max-snapshot-age-ms' = '1')",
        )
        .await
        .expect("a table");
    for n in 0..12 {
        let insert = format!("INSERT INTO t VALUES ({n}, 'row {n}')");
        client.batch_execute(&insert).await.expect("a row, whatever the leader does");
    }
    let warehouse = daemon.data_dir().join("warehouse");
    eventually("few files", async || (files(&warehouse, ".parquet").len() < 5).then_some(())).await;
    assert_eq!(value(&client, SUM).await, "12 66 12");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_takes_its_time() {
    const RATE: u64 = 256;
    let quiet = quiet();
    let daemon = Daemon::start(&quiet);
    let client = daemon.connect().await;
    fill(&client, 8).await;
    drop((client, daemon));
    let paced = quiet
        .env("ORIBI_MAINTENANCE_RATE", RATE.to_string())
        .env("ORIBI_MAINTENANCE_INTERVAL", "50ms");
    let daemon = Daemon::start(&paced);
    let client = daemon.connect().await;
    let log =
        "SELECT seconds::text FROM system.maintenance WHERE kind = 'compact' AND files_read = 8";
    let seconds =
        eventually("an entry in the log", async || value(&client, log).await.parse::<f64>().ok())
            .await;
    assert_eq!(value(&client, "SELECT count(*) FROM \"t$files\"").await, "1");
    let bytes = value(&client, "SELECT sum(file_size_in_bytes) FROM \"t$files\"").await;
    let bytes: f64 = bytes.parse().expect("a number");
    assert!(bytes > 500.0 && seconds >= bytes / RATE as f64, "{bytes} bytes in {seconds} s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_does_not_grow_beyond_its_bound() {
    let daemon = Daemon::start(&quiet());
    let client = daemon.connect().await;
    client
        .batch_execute(
            "CREATE TABLE t (a int, b text) \
             WITH ('history.expire.max-snapshots-to-keep' = '10')",
        )
        .await
        .expect("a table");
    for n in 0..30 {
        let insert = format!("INSERT INTO t VALUES ({n}, 'row {n}')");
        client.batch_execute(&insert).await.expect("a row");
    }
    let metadata = files(&daemon.data_dir().join("warehouse"), ".metadata.json");
    let newest = metadata.iter().max().expect("a table's metadata");
    let text = fs::read_to_string(newest).expect("metadata");
    let metadata: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let snapshots = metadata["snapshots"].as_array().map(Vec::len).unwrap_or_default();
    assert!((10..=12).contains(&snapshots), "{snapshots} snapshots");
    assert_eq!(value(&client, SUM).await, "30 435 30");
    // What was written on the way is still read right, and swept as anything that nothing names.
    client.batch_execute("VACUUM t RETAIN '0s'").await.expect("VACUUM");
    assert_eq!(value(&client, SUM).await, "30 435 30");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_tables_that_are_in_no_catalog_go_but_nobody_elses() {
    let shared = tempfile::tempdir().expect("a directory");
    let warehouse = shared.path().to_owned();
    let place = warehouse.to_string_lossy().into_owned();
    let own = Options::new().env("ORIBI_WAREHOUSE", &place);
    let other = Options::new().env("ORIBI_WAREHOUSE", &place);
    let quiet = |options: &Options| options.clone().env("ORIBI_MAINTENANCE_INTERVAL", "none");

    // Another cluster's table, dropped as well.
    let daemon = Daemon::start(&quiet(&other));
    let client = daemon.connect().await;
    client
        .batch_execute("CREATE TABLE others AS SELECT 1 AS a; DROP TABLE others")
        .await
        .expect("");
    daemon.kill();

    let daemon = Daemon::start(&quiet(&own));
    let client = daemon.connect().await;
    client
        .batch_execute(
            "CREATE TABLE kept AS SELECT * FROM generate_series(1, 10) AS s (a); \
             CREATE TABLE dropped AS SELECT 1 AS a; DROP TABLE dropped",
        )
        .await
        .expect("tables");
    client.batch_execute("CREATE TABLE kept AS SELECT 1 AS a").await.expect_err("it exists");
    client
        .batch_execute("CREATE TABLE failed AS SELECT 1 / (a - 5) FROM kept")
        .await
        .expect_err("");
    daemon.kill();
    // One that dies before the table is in the catalog.
    let dying = Daemon::start(&quiet(&own).env("ORIBI_FAULT", "metadata is written"));
    let client = dying.connect().await;
    client.batch_execute("CREATE TABLE died AS SELECT 2 AS a").await.expect_err("it died");
    dying.wait(common::daemon::PATIENCE);

    let there = |name: &str| {
        let found = files(&warehouse, ".parquet");
        let within = |file: &PathBuf| file.to_string_lossy().contains(&format!("/{name}-"));
        found.iter().filter(|file| within(file)).count()
    };
    assert!(there("kept") > 0 && there("dropped") > 0 && there("died") > 0 && there("others") > 0);
    assert_eq!(there("failed"), 0, "what failed is removed at once");

    // Of one that died early only directories are left.
    let left = warehouse.join("oribi/public/left-01890a5dac96774bbcceb302099a8057");
    let foreign = warehouse.join("oribi/public/somebody_else");
    fs::create_dir_all(left.join("data/a=1")).expect("directories");
    fs::create_dir_all(&foreign).expect("a directory");
    // And of another a file that is still being written, whose time is yet to come.
    let begun = warehouse.join("oribi/public/begun-01890a5dac96774bbcceb302099a8057/data");
    fs::create_dir_all(&begun).expect("directories");
    let begun = begun.join("a.parquet#1");
    fs::write(&begun, "begun").expect("a file");
    let written = File::options().write(true).open(&begun).expect("the file");
    written.set_modified(SystemTime::now() + DAY).expect("a time of change");

    let keeping = own
        .clone()
        .env("ORIBI_MAINTENANCE_INTERVAL", "50ms")
        .env("ORIBI_MAINTENANCE_ORPHAN_GRACE", "0s");
    let point = "a file of a dropped table is to be removed";
    Daemon::spawn(&keeping.clone().env("ORIBI_FAULT", point));
    let daemon = Daemon::start(&keeping);
    let client = daemon.connect().await;
    eventually("the dropped table's files go", async || {
        (there("dropped") + there("died") == 0).then_some(())
    })
    .await;
    let directories = || fs::read_dir(warehouse.join("oribi/public")).expect("a directory");
    let names = || directories().map(|entry| entry.expect("an entry").file_name());
    let begin = |name: &str| names().any(|it| it.to_string_lossy().starts_with(name));
    eventually("their directories go", async || {
        let any = ["dropped-", "died-", "failed-", "left-"].into_iter().any(begin);
        (!any).then_some(())
    })
    .await;
    assert!(begin("kept-") && foreign.exists(), "what is in use and what is nobody's stays");
    assert!(begun.exists(), "what is being written stays");
    let log = "SELECT count(*) FROM system.maintenance \
               WHERE kind = 'dropped' AND files_removed > 3 AND bytes_removed > 100 AND error IS NULL";
    eventually("an entry in the log", async || (value(&client, log).await == "1").then_some(()))
        .await;
    assert_eq!(value(&client, "SELECT sum(a) FROM kept").await, "55");
    assert!(there("others") > 0, "another cluster's files are not ours to remove");
    assert_eq!(value(&client, "SELECT count(*) FROM system.daemons WHERE leader").await, "1");
}

/// All that says when, in a metadata file, a day later.
fn a_day_later(metadata: &Path) -> i64 {
    let day = DAY.as_millis() as i64;
    let text = fs::read_to_string(metadata).expect("a metadata file");
    let mut json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let later = |time: &mut serde_json::Value| {
        let time_then = time.as_i64().expect("a time") + day;
        *time = time_then.into();
    };
    later(&mut json["last-updated-ms"]);
    for list in ["snapshots", "snapshot-log", "metadata-log"] {
        for entry in json[list].as_array_mut().expect("a list") {
            later(&mut entry["timestamp-ms"]);
        }
    }
    fs::write(metadata, json.to_string()).expect("it is written");
    json["last-updated-ms"].as_i64().expect("a time")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_daemon_wrote_whose_clock_was_ahead_is_changed_all_the_same() {
    let options = quiet();
    let daemon = Daemon::start(&options);
    let client = daemon.connect().await;
    fill(&client, 3).await;
    let before = value(&client, SUM).await;
    let warehouse = daemon.data_dir().join("warehouse");
    drop(client);
    daemon.terminate();
    daemon.wait(Duration::from_secs(60));
    let newest = || files(&warehouse, ".metadata.json").into_iter().max().expect("metadata");
    let mut last = a_day_later(&newest());
    let daemon = Daemon::start(&options);
    let client = daemon.connect().await;
    for sql in [
        "ALTER TABLE t ADD COLUMN c int",
        "VACUUM t RETAIN '0s'",
        "ALTER TABLE t DROP COLUMN c",
        "INSERT INTO t VALUES (100, 'more')",
        "DELETE FROM t WHERE a = 100",
        "VACUUM t RETAIN '0s'",
        "ALTER TABLE t RENAME COLUMN b TO d; ALTER TABLE t RENAME COLUMN d TO b",
    ] {
        client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let text = fs::read_to_string(newest()).expect("a metadata file");
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let now = json["last-updated-ms"].as_i64().expect("a time");
        assert!(now >= last, "{sql}: {now} comes after {last}");
        last = now;
    }
    assert_eq!(value(&client, SUM).await, before);
}
