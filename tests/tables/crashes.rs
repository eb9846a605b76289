//! A daemon that dies between any two steps of a write leaves the table as it was, or as it was to
//! be, and nothing keeps others from writing on.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::common::daemon::{Daemon, Options, PATIENCE};
use crate::support::Client;

/// All points at which a write may be made to end, and whether its rows are in the table then.
const POINTS: &[(&str, bool)] = &[
    ("rows are in files", false),
    ("a manifest is to be written", false),
    ("a manifest list is to be written", false),
    ("metadata is to be written", false),
    ("metadata is written", false),
    ("a commit is to be made", false),
    ("a commit is made", true),
];

/// Points of housekeeping, which `tests/maintenance.rs` tries.
const KEEPING_HOUSE: &[&str] = &[
    "an orphan is to be removed",
    "snapshots are expired",
    "a file of a dropped table is to be removed",
];

/// A statement, and the sum of `x` and the number of rows that it leads to from `1, 2, 3`.
const WRITES: &[(&str, &str)] = &[
    ("INSERT INTO t VALUES (10, 'x'), (20, 'y')", "36 5"),
    ("INSERT INTO t SELECT x + 100, 'z' FROM t", "312 6"),
    ("UPDATE t SET x = x + 1 WHERE x > 1", "8 3"),
    ("DELETE FROM t WHERE x = 2", "4 2"),
    ("TRUNCATE t", " 0"),
    ("BEGIN; DELETE FROM t WHERE x = 1; INSERT INTO t VALUES (7, 'a'); COMMIT", "12 3"),
];

const BEFORE: &str = "6 3";

async fn state(daemon: &Daemon) -> String {
    let client = Client::connect(daemon).await;
    client.rows("SELECT sum(x), count(*) FROM t").await[0].join(" ")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_table_or_the_new_one() {
    for (point, done) in POINTS {
        for (write, after) in WRITES {
            let options = Options::new();
            let daemon = Daemon::start(&options);
            let client = Client::connect(&daemon).await;
            client.rows("CREATE TABLE t (x bigint, s text)").await;
            client.rows("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')").await;
            drop(client);
            daemon.kill();
            let dying = Daemon::start(&options.clone().env("ORIBI_FAULT", *point));
            let client = Client::connect(&dying).await;
            let written = client.try_rows(write).await;
            if written.is_ok() {
                // Not every statement comes to every point.
                assert_eq!(state(&dying).await, *after, "{write} past \"{point}\"");
                continue;
            }
            dying.wait(PATIENCE);
            let daemon = Daemon::start(&options);
            let found = state(&daemon).await;
            let expected = if *done { *after } else { BEFORE };
            assert_eq!(found, expected, "{write} that died at \"{point}\"");
            let client = Client::connect(&daemon).await;
            client.rows("INSERT INTO t VALUES (1000, 'on')").await;
            assert_eq!(client.value("SELECT count(*) FROM t WHERE x = 1000").await, "1", "{write}");
        }
    }
}

/// So that a new step of a write is not left out above.
#[test]
fn every_point_is_tried() {
    let mut found = BTreeSet::new();
    for file in files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let text = std::fs::read_to_string(&file).expect("a source file");
        for part in text.split("faults::point(\"").skip(1) {
            found.insert(part.split('"').next().unwrap_or_default().to_owned());
        }
    }
    let tried = POINTS.iter().map(|(point, _)| *point).chain(KEEPING_HOUSE.iter().copied());
    let tried: BTreeSet<String> = tried.map(str::to_owned).collect();
    assert_eq!(found, tried);
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("a directory of sources");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
