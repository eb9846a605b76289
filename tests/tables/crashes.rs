//! A daemon that dies between any two steps of a statement leaves each table as it was, or as it was
//! to be; others write on, and housekeeping removes what was left behind and nothing else.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::execution::memory_pool::UnboundedMemoryPool;
use oribi::storage::managed::{TableFiles, retained_files};
use oribi::storage::{Roots, Stores};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::common::daemon::{Daemon, Options, PATIENCE};
use crate::support::{Client, db_error, until};

/// All points at which a statement may be made to end, and whether it is done then, if that is the same
/// for all.
const POINTS: &[(&str, Option<bool>)] = &[
    ("data files are complete", Some(false)),
    ("rows are in files", Some(false)),
    ("a manifest is to be written", Some(false)),
    ("a manifest list is to be written", Some(false)),
    ("metadata is to be written", Some(false)),
    ("metadata is written", Some(false)),
    ("a commit is to be made", Some(false)),
    ("a commit is made", Some(true)),
    ("a new table is to be named", Some(false)),
    ("a new table is named", Some(true)),
    ("snapshots are expired", Some(true)),
    ("a file is to be removed", None),
    ("an orphan is to be removed", Some(true)),
];

/// A point that no statement comes to, only the daemon that leads.
const SWEEP: &str = "a file of a dropped table is to be removed";

/// Of statements on several daemons, which the tests of those try.
const READING: &str = "a part gives rows";

/// A statement, and what a query answers before and after it: a row, or a SQLSTATE.
struct Case {
    statement: &'static str,
    query: &'static str,
    old: &'static str,
    new: &'static str,
}

const fn case(
    statement: &'static str,
    query: &'static str,
    old: &'static str,
    new: &'static str,
) -> Case {
    Case { statement, query, old, new }
}

/// The lines of a COPY ... FROM STDIN.
const LINES: &[u8] = b"7\tseven\n8\teight\n";

const P: &str = "SELECT string_agg(kind || x, ' ' ORDER BY x) FROM p";
const T: &str = "SELECT sum(x), count(*), count(DISTINCT s) FROM t";
const BOTH: &str = "SELECT (SELECT sum(x) FROM t), (SELECT sum(n) FROM u)";
const NEW: &str = "SELECT count(*), min(x) FROM new";

/// From the rows 1 to 6 in `t`, each in a file of its own, 1 in `u`, and `a1 a2 b3 c4` in `p`.
const CASES: &[Case] = &[
    case("INSERT INTO t VALUES (10, 'x'), (20, 'y')", T, "21 6 6", "51 8 8"),
    case("INSERT INTO t SELECT x + 100, 'z' FROM t", T, "21 6 6", "642 12 7"),
    case("UPDATE t SET x = x + 1 WHERE x > 1", T, "21 6 6", "26 6 6"),
    case("DELETE FROM t WHERE x = 2", T, "21 6 6", "19 5 5"),
    case("TRUNCATE t", T, "21 6 6", " 0 0"),
    case("INSERT OVERWRITE TABLE t SELECT 7, 'only'", T, "21 6 6", "7 1 1"),
    case(
        "BEGIN; DELETE FROM t WHERE x = 1; INSERT INTO t VALUES (7, 'a'); COMMIT",
        T,
        "21 6 6",
        "27 6 6",
    ),
    case("BEGIN; UPDATE t SET x = 0; INSERT INTO u VALUES (5); COMMIT", BOTH, "21 1", "0 6"),
    case("CREATE TABLE new (x bigint)", NEW, "42P01", "0 "),
    case("CREATE TABLE new AS SELECT x FROM t WHERE x > 2", NEW, "42P01", "4 3"),
    case(
        "ALTER TABLE t RENAME COLUMN s TO renamed, ADD COLUMN y int",
        "SELECT count(renamed) FROM t",
        "42703",
        "6",
    ),
    case(
        "MERGE INTO t USING (VALUES (1), (7)) news (x) ON t.x = news.x \
         WHEN MATCHED THEN UPDATE SET s = 'merged' \
         WHEN NOT MATCHED THEN INSERT VALUES (news.x, 'merged')",
        T,
        "21 6 6",
        "28 7 6",
    ),
    case("COPY t FROM STDIN", T, "21 6 6", "36 8 8"),
    case("INSERT OVERWRITE p PARTITION (kind = 'a') VALUES (10)", P, "a1 a2 b3 c4", "b3 c4 a10"),
    case("DELETE FROM p WHERE kind < 'c'", P, "a1 a2 b3 c4", "c4"),
    case("DROP TABLE u PURGE", "SELECT sum(n) FROM u", "1", "42P01"),
    case("OPTIMIZE t", T, "21 6 6", "21 6 6"),
    case("VACUUM t RETAIN '0s'", T, "21 6 6", "21 6 6"),
];

/// Those that pass some points twice: two tables, or several partitions.
const TWICE: &[Case] = &[
    case("BEGIN; UPDATE t SET x = 0; INSERT INTO u VALUES (5); COMMIT", BOTH, "21 1", "0 6"),
    case("UPDATE p SET x = x + 10 WHERE kind < 'c'", P, "a1 a2 b3 c4", "c4 a11 a12 b13"),
];

/// Cases at the same time.
const AT_ONCE: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_old_tables_or_the_new_ones() {
    let all: BTreeSet<&str> = POINTS.iter().map(|(point, _)| *point).collect();
    assert_eq!(die(CASES, POINTS, 0).await, all, "no statement comes to some of the points");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nor_is_it_another_when_a_point_is_passed_once_before() {
    let steps = &POINTS[..6];
    let all: BTreeSet<&str> = steps.iter().map(|(point, _)| *point).collect();
    let mut reached = die(TWICE, steps, 1).await;
    // All rows are in files once.
    reached.insert("rows are in files");
    assert_eq!(reached, all, "no statement comes to some of the points twice");
}

type Points = &'static [(&'static str, Option<bool>)];

/// Which points the statements came to after they had passed them so often.
async fn die(cases: &'static [Case], points: Points, passed: u32) -> BTreeSet<&'static str> {
    let (mut dying, places) = (JoinSet::new(), Arc::new(Semaphore::new(AT_ONCE)));
    for case in cases {
        let places = places.clone();
        dying.spawn(async move {
            let _place = places.acquire().await;
            die_at_every_point(case, points, passed).await
        });
    }
    let mut reached = BTreeSet::new();
    while let Some(case) = dying.join_next().await {
        reached
            .extend(case.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic())));
    }
    reached
}

/// Which points the statement came to.
async fn die_at_every_point(case: &Case, points: Points, passed: u32) -> BTreeSet<&'static str> {
    let options = Options::new()
        .env("ORIBI_MAINTENANCE_INTERVAL", "none")
        .env("ORIBI_MAINTENANCE_ORPHAN_GRACE", "0s");
    let mut reached = BTreeSet::new();
    let mut daemon = Daemon::start(&options);
    for (point, done) in points {
        set_up(&daemon).await;
        drop(daemon);
        let fault = options.clone().env("ORIBI_FAULT", *point);
        let dying = Daemon::start(&fault.env("ORIBI_FAULT_AFTER", passed.to_string()));
        let client = Client::connect(&dying).await;
        let outcome = match case.statement.starts_with("COPY") {
            true => client.try_copy(case.statement, LINES).await,
            false => client.try_rows(case.statement).await.map(drop),
        };
        drop(client);
        let what = format!("{} that died at \"{point}\"", case.statement);
        // Not every statement comes to every point.
        let Err(error) = outcome else {
            assert_eq!(answer(&dying, case.query).await, case.new, "{}", case.statement);
            drop(dying);
            daemon = Daemon::start(&options);
            continue;
        };
        assert!(error.is_closed() || error.as_db_error().is_none(), "{what}: {error:?}");
        dying.wait(PATIENCE);
        reached.insert(*point);
        let expected: &[&str] = match done {
            Some(true) => &[case.new],
            Some(false) => &[case.old],
            None => &[case.old, case.new],
        };
        drop(dying);
        daemon = Daemon::start(&options);
        let found = answer(&daemon, case.query).await;
        assert!(expected.contains(&&*found), "{what}: {found} instead of {expected:?}");
        let client = Client::connect(&daemon).await;
        client.rows("INSERT INTO t (x) VALUES (1000)").await;
        assert_eq!(client.value("SELECT count(*) FROM t WHERE x = 1000").await, "1", "{what}");
        client.rows("DELETE FROM t WHERE x = 1000").await;
        for table in ["t", "u", "p", "new"] {
            if answer(&daemon, &format!("SELECT 1 FROM {table} LIMIT 1")).await != "42P01" {
                client.rows(&format!("VACUUM {table}")).await;
                assert_tidy(&client, table, &what).await;
            }
        }
        assert_eq!(answer(&daemon, case.query).await, found, "{what}, swept");
    }
    reached
}

async fn set_up(daemon: &Daemon) {
    let client = Client::connect(daemon).await;
    for table in ["t", "u", "p", "new"] {
        client.rows(&format!("DROP TABLE IF EXISTS {table} PURGE")).await;
    }
    client.rows("CREATE TABLE t (x bigint, s text)").await;
    for n in 1..=6 {
        client.rows(&format!("INSERT INTO t VALUES ({n}, 'row {n}')")).await;
    }
    client.rows("CREATE TABLE p (x bigint, kind text) PARTITIONED BY (kind)").await;
    client.rows("INSERT INTO p VALUES (1, 'a'), (2, 'a'), (3, 'b'), (4, 'c')").await;
    client.rows("CREATE TABLE u (n int)").await;
    client.rows("INSERT INTO u VALUES (1)").await;
    // Something that housekeeping finds.
    let file = &files(&place(&client, "t").await.join("data"))[0];
    std::fs::copy(file, file.with_file_name("orphan.parquet")).expect("a copy");
}

async fn answer(daemon: &Daemon, query: &str) -> String {
    match Client::connect(daemon).await.try_rows(query).await {
        Ok(rows) => rows.first().map(|row| row.join(" ")).unwrap_or_default(),
        Err(error) => db_error(&error).code().code().to_owned(),
    }
}

async fn metadata(client: &Client, table: &str) -> String {
    let options =
        format!("SELECT array_to_string(reloptions, ' ') FROM pg_class WHERE relname = '{table}'");
    let options = client.value(&options).await;
    let metadata = options.split(' ').find_map(|option| option.strip_prefix("metadata="));
    metadata.unwrap_or_else(|| panic!("{table}: {options}")).to_owned()
}

/// Where a table's files lie.
async fn place(client: &Client, table: &str) -> PathBuf {
    let url = metadata(client, table).await;
    let path = url.strip_prefix("file://").expect("a local table");
    Path::new(path).ancestors().nth(2).expect("a directory").to_owned()
}

/// A table's directory holds what the table consists of, all of it and nothing else.
pub async fn assert_tidy(client: &Client, table: &str, what: &str) {
    let url = metadata(client, table).await;
    let memory = Arc::new(UnboundedMemoryPool::default());
    let reader = TableFiles::new(Arc::new(Stores::new(&Roots::default())), memory, 1 << 20);
    let state = reader.metadata(&url).await.expect("metadata");
    let named = retained_files(&reader, &url, &state).await.expect("a whole table");
    let named: BTreeSet<String> = named.into_iter().collect();
    let found = files(&place(client, table).await).into_iter();
    let found: BTreeSet<String> = found.map(|file| format!("file://{}", file.display())).collect();
    assert_eq!(found, named, "{table} after {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_goes_on_with_what_a_dropped_table_has_left() {
    let options = Options::new().env("ORIBI_MAINTENANCE_ORPHAN_GRACE", "0s");
    let quiet = options.clone().env("ORIBI_MAINTENANCE_INTERVAL", "none");
    let eager = options.env("ORIBI_MAINTENANCE_INTERVAL", "50ms");
    let daemon = Daemon::start(&quiet);
    set_up(&daemon).await;
    let client = Client::connect(&daemon).await;
    let dropped = place(&client, "u").await;
    client.rows("DROP TABLE u").await;
    drop((client, daemon));
    Daemon::spawn(&eager.clone().env("ORIBI_FAULT", SWEEP));
    assert!(!files(&dropped).is_empty());
    let daemon = Daemon::start(&eager);
    let gone = async || !dropped.exists() || files(&dropped).is_empty();
    until("the dropped table's files are gone", gone).await;
    assert_eq!(answer(&daemon, T).await, "21 6 6");
}

/// Where the daemon is held up by `tests/service/`, and nothing is written.
const STALLS: [&str; 3] = ["the thread for ZooKeeper goes on", "a plan begins", "a client comes"];

/// So that a new step of a statement is not left out above.
#[test]
fn every_point_is_tried() {
    let mut found = BTreeSet::new();
    for file in files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let text = std::fs::read_to_string(&file).expect("a source file");
        for part in text.split("faults::point(\"").skip(1) {
            found.insert(part.split('"').next().unwrap_or_default().to_owned());
        }
    }
    let tried = POINTS.iter().map(|(point, _)| *point).chain([SWEEP, READING]).chain(STALLS);
    let tried: BTreeSet<String> = tried.map(str::to_owned).collect();
    assert_eq!(found, tried);
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
