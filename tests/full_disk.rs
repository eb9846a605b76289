//! A daemon without ZooKeeper on a disk that is full: it says so, reads on, refuses what it cannot keep, and
//! goes on by itself as soon as there is room, with all that it has acknowledged and nothing else. The same of
//! a disk that may only be read, and what others hear of such daemons.

mod common;

#[path = "cluster/support.rs"]
mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::daemon::{Daemon, Options, binary};
use support::*;

/// What the disk has while it is not full.
const SIZE: &str = "size=64m";

/// A small file system of the test's own, in memory.
struct Disk(PathBuf);

impl Disk {
    fn new(options: &Options) -> Self {
        Self::named(options, "disk")
    }

    fn named(options: &Options, name: &str) -> Self {
        let place = options.directory().join(name);
        std::fs::create_dir(&place).expect("a directory");
        let disk = Self(place);
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", SIZE, "none"]).arg(&disk.0);
        let done = mount.output().expect("mount runs");
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "this test mounts a file system, as root: {said}");
        disk
    }

    fn remount(&self, size: &str) -> bool {
        let mut mount = Command::new("mount");
        let done = mount.args(["-o", &format!("remount,{size}")]).arg(&self.0).output();
        done.is_ok_and(|done| done.status.success())
    }

    /// Not a byte is left.
    fn fill(&self) {
        let full = || {
            let now = rustix::fs::statvfs(&self.0).expect("it is there");
            let used = (now.f_blocks - now.f_bfree) * now.f_frsize;
            // Not if the daemon has written meanwhile.
            self.remount(&format!("size={used}"))
        };
        assert!((0..1000).any(|_| full()), "it can be made smaller");
    }

    fn make_room(&self) {
        assert!(self.remount(SIZE), "it can grow again");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// A role a statement, until one is refused: that one, and what was said of it.
async fn until_refused(client: &Client, made: &mut BTreeSet<String>) -> (String, String, String) {
    for number in made.len()..10_000 {
        let name = format!("r{number:05}");
        match client.try_rows(&format!("CREATE ROLE {name}")).await {
            Ok(_) => drop(made.insert(name)),
            Err(error) => {
                let error = db_error(&error);
                let hint = error.hint().unwrap_or_default().to_owned();
                return (name, error.code().code().to_owned(), hint);
            }
        }
    }
    panic!("10,000 roles on a full disk");
}

async fn roles(client: &Client) -> BTreeSet<String> {
    let rows = client.rows("SELECT rolname FROM pg_roles WHERE rolname LIKE 'r0%'").await;
    rows.into_iter().flatten().collect()
}

async fn is_in_state(daemon: &Daemon, status: u16, state: &str) -> bool {
    readyz(daemon).await.is_some_and(|(seen, body)| seen == status && body["state"] == state)
}

fn status(daemon: &Daemon) -> String {
    let host = daemon.postgres().to_string();
    let done = Command::new(binary()).args(["cluster", "status", "--host", &host]).output();
    String::from_utf8_lossy(&done.expect("the program runs").stdout).into_owned()
}

/// What `oribi doctor` finds wrong with the data directory, and how it is to be mended.
fn doctor(disk: &Disk) -> (String, String) {
    let found = examined(&disk.0.join("data"), &[]);
    let text = |key: &str| told(&found, "data_dir", key);
    (text("seen"), text("mend"))
}

/// All checks of `oribi doctor`, of which at least one fails.
fn examined(data_dir: &Path, arguments: &[&str]) -> Vec<serde_json::Value> {
    let mut doctor = Command::new(binary());
    doctor.args(["doctor", "--json", "--data-dir"]).arg(data_dir).args(arguments);
    for key in ["postgres", "peer", "web"] {
        doctor.args([&format!("--{key}"), "127.0.0.1:0"]);
    }
    let done = doctor.output().expect("the program runs");
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    let found: serde_json::Value = serde_json::from_slice(&done.stdout).expect("JSON");
    found["checks"].as_array().expect("checks").clone()
}

fn told(checks: &[serde_json::Value], name: &str, key: &str) -> String {
    let check = checks.iter().find(|check| check["name"] == name);
    let check = check.unwrap_or_else(|| panic!("{name} is looked at: {checks:?}"));
    check[key].as_str().unwrap_or_default().to_owned()
}

/// A small disk, and what has a daemon keep everything on it. The disk is to be dropped last.
fn small() -> (Disk, Options) {
    let own = Options::new();
    let disk = Disk::new(&own);
    let data = disk.0.join("data");
    (disk, own.data_dir(data).env("ORIBI_HEALTH_READY_WHEN_DEGRADED", "off"))
}

/// A daemon on such a disk with a table `t`, and a client of it.
async fn with_a_table() -> (Disk, Options, Daemon, Client) {
    let (disk, options) = small();
    let daemon = Daemon::start(&options);
    let client = Client::connect(&daemon).await;
    client.rows("CREATE TABLE t AS SELECT 7 AS x").await;
    (disk, options, daemon, client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_of_and_passes_without_a_restart() {
    bounded(async {
        let (disk, options, daemon, client) = with_a_table().await;
        let sql = "SELECT oribi.schedule('each', '* * * * * *', 'SELECT 1')";
        client.rows(sql).await;
        let mut made = BTreeSet::new();
        for number in 0..20 {
            client.rows(&format!("CREATE ROLE r{number:05}")).await;
            made.insert(format!("r{number:05}"));
        }
        disk.fill();
        let (refused, code, hint) = until_refused(&client, &mut made).await;
        let place = disk.0.join("data/coordination").display().to_string();
        assert_eq!(code, "53100", "{hint}");
        assert!(hint.contains(&place) && hint.contains("room"), "{hint}");
        // It says so, wherever it is asked.
        until("it is degraded", async || is_in_state(&daemon, 503, "degraded").await).await;
        let (_, body) = readyz(&daemon).await.expect("an answer");
        assert!(body["reason"].as_str().is_some_and(|reason| reason.contains("full")), "{body}");
        let row = client.rows("SELECT state, error FROM system.coordination").await;
        assert_eq!(row[0][0], "disconnected");
        assert!(row[0][1].contains(&place), "{row:?}");
        let told = status(&daemon);
        assert!(told.contains("degraded") && told.contains(&place), "{told}");
        let scraped = metrics(&daemon).await;
        assert!(scraped.contains("\noribi_coordination_unwritable 1\n"), "{scraped}");
        // It reads on, for who comes now as well, and refuses the rest at once.
        assert_eq!(client.value("SELECT x FROM t").await, "7");
        let late = Client::connect(&daemon).await;
        assert_eq!(late.value("SELECT x + 1 FROM t").await, "8");
        for sql in ["DROP ROLE r00001", "DROP TABLE t", "SELECT oribi.submit('SELECT 1')"] {
            let error = late.refused(sql).await;
            let hint = error.hint().unwrap_or_default();
            assert!(error.code().code() == "53100" && hint.contains(&place), "{sql}: {error:?}");
        }
        let last =
            "SELECT coalesce(max(id), '') FROM system.queries WHERE id LIKE 'schedule-each-%'";
        disk.make_room();
        until("it is ready again", async || is_in_state(&daemon, 200, "ready").await).await;
        let before = client.value(last).await;
        assert_eq!(roles(&client).await, made);
        client.rows(&format!("CREATE ROLE {refused}")).await;
        client.rows("INSERT INTO t VALUES (8)").await;
        until("its schedule goes on", async || client.value(last).await > before).await;
        let scraped = metrics(&daemon).await;
        assert!(scraped.contains("\noribi_coordination_unwritable 0\n"), "{scraped}");
        made.insert(refused);
        drop((client, late));
        daemon.kill();
        let daemon = Daemon::start(&options);
        let client = Client::connect(&daemon).await;
        assert_eq!(roles(&client).await, made);
        assert_eq!(client.value("SELECT sum(x) FROM t").await, "15");
    })
    .await;
}

/// The history that the daemon tells, by text.
async fn remembered(client: &Client) -> Vec<String> {
    let sql = "SELECT sql FROM system.query_history WHERE sql LIKE 'SELECT ''mark %' ORDER BY id";
    client.rows(sql).await.into_iter().flatten().collect()
}

/// Before the embedded store has to grow nothing may be wrong with it, and yet no row can be written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_of_before_the_store_itself_has_to_grow() {
    bounded(async {
        let (disk, options, daemon, client) = with_a_table().await;
        client.rows("CREATE ROLE ann LOGIN").await;
        let ann = Client::connect_as(&daemon, "ann").await;
        client.rows("SELECT 'mark before'").await;
        assert_eq!(remembered(&client).await.len(), 1);
        disk.fill();
        until("it is degraded", async || is_in_state(&daemon, 503, "degraded").await).await;
        let error = client.refused("INSERT INTO t SELECT * FROM generate_series(1, 10000)").await;
        assert_eq!(error.code().code(), "53100", "{error:?}");
        let (_, body) = readyz(&daemon).await.expect("an answer");
        // Whether the store has all that it needs depends on how it lays its file out.
        let outlines = [
            "the disk of the data directory is full",
            "the disk of the coordination store is full",
        ];
        assert!(body["reason"].as_str().is_some_and(|it| outlines.contains(&it)), "{body}");
        // The name of the directory is for who watches over the daemon.
        let sql = "SELECT error FROM system.daemons WHERE local";
        let told = ann.value(sql).await;
        assert!(outlines.contains(&told.as_str()), "{told}");
        let told = client.rows("SELECT state, error FROM system.daemons WHERE local").await;
        let place = disk.0.display().to_string();
        assert!(told[0][0] == "degraded" && told[0][1].contains(&place), "{told:?}");
        let shown = status(&daemon);
        assert!(shown.contains("degraded") && shown.contains(&place), "{shown}");
        let scraped = metrics(&daemon).await;
        assert!(scraped.contains("\noribi_disk_full 1\n"), "{scraped}");
        // What has run meanwhile is known, and is written down as soon as there is room.
        client.rows("SELECT 'mark while it was full'").await;
        let both = ["SELECT 'mark before'", "SELECT 'mark while it was full'"];
        assert_eq!(remembered(&client).await, both);
        disk.make_room();
        until("it is ready again", async || is_in_state(&daemon, 200, "ready").await).await;
        client.rows("INSERT INTO t VALUES (8)").await;
        assert_eq!(remembered(&client).await, both);
        let scraped = metrics(&daemon).await;
        assert!(scraped.contains("\noribi_disk_full 0\n"), "{scraped}");
        drop((client, ann));
        daemon.kill();
        let daemon = Daemon::start(&options);
        assert_eq!(remembered(&Client::connect(&daemon).await).await, both);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_on_a_full_disk_loses_nothing_and_it_starts_when_there_is_room() {
    bounded(async {
        let (disk, options) = small();
        let mut daemon = Daemon::start(&options);
        let mut made = BTreeSet::new();
        for _ in 0..3 {
            let client = Client::connect(&daemon).await;
            disk.fill();
            let (_, code, _) = until_refused(&client, &mut made).await;
            assert_eq!(code, "53100");
            drop(client);
            daemon.kill();
            // Full as it is, it does not say that it is ready.
            let ended = Daemon::spawn(&options);
            assert_eq!(ended.code, Some(1), "{}", ended.stderr);
            assert!(ended.stderr.contains("No space left on device"), "{}", ended.stderr);
            assert!(!ended.stderr.contains("\"ready\""), "{}", ended.stderr);
            disk.fill();
            let (seen, mend) = doctor(&disk);
            assert!(seen.contains("No space left"), "{seen}");
            assert!(mend.contains("make room") && !mend.contains("chown"), "{mend}");
            disk.make_room();
            assert!(disk.remount("ro"), "it can be read only");
            let (seen, mend) = doctor(&disk);
            assert!(seen.contains("Read-only"), "{seen}");
            assert!(mend.contains("remount,rw") && !mend.contains("chown"), "{mend}");
            assert!(disk.remount("rw"), "it can be written again");
            daemon = Daemon::start(&options);
            let client = Client::connect(&daemon).await;
            assert_eq!(roles(&client).await, made, "what was acknowledged, and nothing else");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_warehouse_that_may_only_be_read_is_read_and_told_of() {
    bounded(async {
        let own = Options::new();
        let (disk, spill) = (Disk::new(&own), Disk::named(&own, "spill"));
        // A size of nothing would be any.
        std::fs::write(spill.0.join("ballast"), [7; 1 << 16]).expect("there is room");
        let warehouse = disk.0.display().to_string();
        let options = own
            .env("ORIBI_HEALTH_READY_WHEN_DEGRADED", "off")
            .env("ORIBI_WAREHOUSE", &warehouse)
            .env("ORIBI_ENGINE_SPILL_DIR", &spill.0)
            .env("ORIBI_MAINTENANCE_INTERVAL", "none");
        let daemon = Daemon::start(&options);
        let client = Client::connect(&daemon).await;
        client.rows("CREATE TABLE t AS SELECT 7 AS x").await;
        client.rows("CREATE ROLE ann LOGIN; GRANT SELECT, INSERT ON t TO ann").await;
        assert!(disk.remount("ro"), "it can be read only");
        drop(client);
        daemon.kill();
        // It starts all the same.
        let daemon = Daemon::start(&options);
        let client = Client::connect(&daemon).await;
        let ann = Client::connect_as(&daemon, "ann").await;
        until("it is degraded", async || is_in_state(&daemon, 503, "degraded").await).await;
        let outline = "the file system of the warehouse is read-only";
        let (_, body) = readyz(&daemon).await.expect("an answer");
        assert_eq!(body["reason"], outline);
        let log = daemon.log();
        assert!(log.contains("WARN") && log.contains(outline) && log.contains("findmnt"), "{log}");
        let error = "SELECT error FROM system.daemons WHERE local";
        assert_eq!(ann.value(error).await, outline);
        let full = client.value(error).await;
        assert!(full.contains(&warehouse) && full.contains("mount"), "{full}");
        let shown = status(&daemon);
        assert!(shown.contains("degraded") && shown.contains(&full), "{shown}");
        let scraped = metrics(&daemon).await;
        assert!(scraped.contains("\noribi_disk_unwritable 1\n"), "{scraped}");
        assert!(scraped.contains("\noribi_disk_full 0\n"), "{scraped}");
        assert_eq!(client.value("SELECT x FROM t").await, "7");
        for sql in [
            "INSERT INTO t VALUES (8)",
            "INSERT INTO t SELECT * FROM generate_series(1, 1000)",
            "UPDATE t SET x = 8",
            "CREATE TABLE u (x int)",
            "CREATE TABLE u AS SELECT 1 AS x",
        ] {
            let error = client.refused(sql).await;
            assert_eq!(error.code().code(), "42501", "{sql}: {error:?}");
            assert!(error.message().ends_with("its file system is read-only"), "{sql}: {error:?}");
            let hint = error.hint().unwrap_or_default();
            assert!(hint.contains("mount") && !hint.contains("room"), "{sql}: {error:?}");
        }
        let error = ann.refused("INSERT INTO t VALUES (8)").await;
        assert!(!error.message().contains(&warehouse), "{error:?}");
        // What needs a file for its rows, and what writes.
        let large = "SELECT x, repeat(''x'', 100) FROM generate_series(1, 100000) s (x)";
        for sql in [large, "INSERT INTO t VALUES (9)"] {
            let id = client.value(&format!("SELECT oribi.submit('{sql}')")).await;
            let wait = format!("SELECT oribi.wait('{id}', '60s')");
            assert_eq!(client.value(&wait).await, "failed", "{sql}");
            let record = client.value(&format!("SELECT oribi.record('{id}')")).await;
            assert!(record.contains("42501") && record.contains("read-only"), "{record}");
            assert!(record.contains("mount") && !record.contains(&warehouse), "{record}");
        }
        let found = examined(daemon.data_dir(), &["--warehouse", &warehouse]);
        let (seen, mend) = (told(&found, "warehouse", "seen"), told(&found, "warehouse", "mend"));
        assert!(seen.contains("Read-only"), "{seen}");
        assert!(mend.contains("remount,rw") && !mend.contains("make room"), "{mend}");
        assert!(!found.iter().any(|check| check["name"] == "room for warehouse"), "{found:?}");
        // Another trouble hides neither.
        spill.fill();
        let full = "the disk of the temporary files is full";
        let reason = async || readyz(&daemon).await.expect("an answer").1["reason"].clone();
        let both = format!("{outline}; {full}");
        until("both are told of", async || reason().await == both).await;
        let scraped = metrics(&daemon).await;
        assert!(scraped.contains("\noribi_disk_unwritable 1\n"), "{scraped}");
        assert!(scraped.contains("\noribi_disk_full 1\n"), "{scraped}");
        assert!(disk.remount("rw"), "it can be written again");
        until("one is left", async || reason().await == full).await;
        spill.make_room();
        until("it is ready again", async || is_in_state(&daemon, 200, "ready").await).await;
        client.rows("INSERT INTO t VALUES (8)").await;
        assert_eq!(client.value("SELECT sum(x) FROM t").await, "15");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_cannot_spill_is_nobodys_attempt() {
    bounded(async {
        let own = Options::new();
        let disk = Disk::new(&own);
        let (spill, trail) = (disk.0.display().to_string(), own.directory().join("audit.log"));
        let options = own
            .env("ORIBI_ENGINE_SPILL_DIR", &spill)
            .env("ORIBI_ENGINE_MEMORY_LIMIT", "64MiB")
            .env("ORIBI_ENGINE_TARGET_PARTITIONS", "2")
            .env("ORIBI_AUDIT_FILE", &trail);
        let daemon = Daemon::start(&options);
        let client = Client::connect(&daemon).await;
        client.rows("CREATE ROLE ann LOGIN").await;
        let ann = Client::connect_as(&daemon, "ann").await;
        assert!(disk.remount("ro"), "it can be read only");
        let sorted = "SELECT count(*) FROM (SELECT row_number() OVER (ORDER BY -i, repeat('x', 50)) AS n \
                      FROM generate_series(1, 3000000) s (i)) s WHERE n > 0";
        for (client, sees) in [(&ann, false), (&client, true)] {
            let error = client.refused(sorted).await;
            assert_eq!(error.code().code(), "42501", "{error:?}");
            assert!(error.message().ends_with("its file system is read-only"), "{error:?}");
            assert_eq!(error.message().contains(&spill), sees, "{error:?}");
            let hint = error.hint().unwrap_or_default();
            assert!(hint.contains("mount") && !hint.contains(&spill), "{error:?}");
        }
        // What comes later is written down later.
        ann.refused("CREATE ROLE other").await;
        let denied = || {
            let text = std::fs::read_to_string(&trail).expect("the trail");
            let lines = text.lines().filter(|line| line.contains("\"denied\""));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        until("an attempt is written down", async || !denied().is_empty()).await;
        let denied = denied();
        assert!(denied.len() == 1 && denied[0].contains("create role"), "{denied:?}");
        assert!(disk.remount("rw"), "it can be written again");
        assert_eq!(ann.value(sorted).await, "3000000");
    })
    .await;
}

/// What a daemon sees of another: its state, and why it is so.
async fn seen(client: &Client, id: &str) -> (String, String) {
    let sql = format!("SELECT state, error FROM system.daemons WHERE id = '{id}'");
    let mut row = client.rows(&sql).await.remove(0);
    (row.remove(0), row.remove(0))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_hear_of_a_daemon_that_cannot_write() {
    bounded(async {
        let own = Options::new();
        let disk = Disk::new(&own);
        let spill = disk.0.display().to_string();
        // A size of nothing would be any.
        std::fs::write(disk.0.join("ballast"), [7; 1 << 16]).expect("there is room");
        let cluster = Cluster::on_shared_zookeeper();
        let b = cluster.start("b");
        let cluster = cluster.with("ENGINE_SPILL_DIR", &spill);
        let _a = cluster.start("a");
        let client = Client::connect(&b).await;
        all_ready(&client, &["a", "b"]).await;
        let is = async |state: &str, why: &str| {
            until(&format!("{state}: {why}"), async || {
                seen(&client, "a").await == (state.to_owned(), why.to_owned())
            })
            .await;
        };
        disk.fill();
        is("degraded", "the disk of the temporary files is full").await;
        let shown = status(&b);
        assert!(
            shown.contains("a is degraded: the disk of the temporary files is full"),
            "{shown}"
        );
        assert_eq!(seen(&client, "b").await, ("ready".to_owned(), String::new()));
        disk.make_room();
        is("ready", "").await;
        assert!(disk.remount("ro"), "it can be read only");
        is("degraded", "the file system of the temporary files is read-only").await;
        assert!(disk.remount("rw"), "it can be written again");
        is("ready", "").await;
    })
    .await;
}
