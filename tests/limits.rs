//! What happens at the limits: memory, broken files, wrong settings, crashes. Whatever fails does
//! so by itself, with a message that names what to mend, and leaves nothing behind.

mod common;
#[path = "limits/roots.rs"]
mod roots;

use std::fs;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::daemon::{Daemon, Options, PATIENCE, Shared, binary, eventually, explain};
use tokio_postgres::{Client, SimpleQueryMessage};

/// A daemon with little memory.
static SMALL: Shared = Shared::new(|| {
    Options::new()
        .env("ORIBI_ENGINE_MEMORY_LIMIT", "64MiB")
        .env("ORIBI_ENGINE_TARGET_PARTITIONS", "2")
});

/// One test at a time has that memory for itself.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

static DAEMON: Shared = Shared::new(Options::new);

/// The build side of a hash join has to be in memory, and this one takes 300 MB.
const CANNOT_SPILL: &str = "SELECT count(*) FROM generate_series(1, 20000000) a (i) \
                            JOIN generate_series(1, 20000000) b (i) ON a.i = b.i";

/// Statements that need more than the limit and can put it on disk, with their answers.
const CAN_SPILL: &[(&str, &str)] = &[
    (
        "SELECT count(*) FROM (SELECT i, repeat('x', 50) AS s, row_number() OVER (ORDER BY -i) \
         AS n FROM generate_series(1, 3000000) t (i)) t WHERE i + n = 3000001",
        "3000000",
    ),
    (
        "SELECT count(*) FROM (SELECT i % 2000000, count(*), max(i) \
         FROM generate_series(1, 4000000) t (i) GROUP BY 1) t",
        "2000000",
    ),
];

/// What its own memory may have grown by when all statements are over: buffers that are kept, and
/// what the allocator has not given back yet.
const KEPT: u64 = 192 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_over_its_memory_fails_alone() {
    let _alone = ALONE.lock().await;
    let daemon = SMALL.get();
    let (client, other) = (daemon.connect().await, daemon.connect().await);
    let over = AtomicBool::new(false);
    let (failed, answers) = tokio::join!(
        async {
            let failed = client.simple_query(CANNOT_SPILL).await;
            over.store(true, Ordering::Relaxed);
            failed
        },
        async {
            let mut answers = 0;
            while !over.load(Ordering::Relaxed) {
                assert_eq!(
                    value(&other, "SELECT sum(i) FROM generate_series(1, 1000) t (i)").await,
                    "500500"
                );
                answers += 1;
            }
            answers
        }
    );
    let error = failed.expect_err("there is not enough memory");
    assert_eq!(error.code().map(|code| code.code()), Some("53200"), "{}", explain(&error));
    let said = error.as_db_error().expect("it is the server's");
    assert!(
        said.message().starts_with("out of memory: ") && said.message().ends_with(" are left"),
        "{said:?}"
    );
    assert!(said.hint().is_some_and(|hint| hint.contains("engine.memory_limit")), "{said:?}");
    assert!(answers > 0, "the other client went on");
    assert_eq!(value(&client, "SELECT 'alive'").await, "alive");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_spill_succeeds_and_leaves_nothing() {
    let _alone = ALONE.lock().await;
    let daemon = SMALL.get();
    let client = daemon.connect().await;
    let before = daemon.resident_bytes();
    for (sql, expected) in CAN_SPILL {
        let over = AtomicBool::new(false);
        let ((), most) = tokio::join!(
            async {
                assert_eq!(value(&client, sql).await, *expected, "{sql}");
                over.store(true, Ordering::Relaxed);
            },
            async {
                let mut most = 0;
                while !over.load(Ordering::Relaxed) {
                    most = most.max(files(&daemon.data_dir().join("spill")).len());
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                most
            }
        );
        assert!(most > 0, "it was meant to spill: {sql}");
    }
    nothing_is_left(&daemon, before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_spills_more_than_it_may_is_told_which_limit_it_is() {
    let options = Options::new()
        .env("ORIBI_ENGINE_MEMORY_LIMIT", "64MiB")
        .env("ORIBI_ENGINE_SPILL_LIMIT", "20MiB")
        .env("ORIBI_ENGINE_TARGET_PARTITIONS", "2");
    let daemon = Daemon::start(&options);
    let client = daemon.connect().await;
    for (sql, _) in CAN_SPILL {
        let refused = client.simple_query(sql).await.expect_err(sql);
        let said = refused.as_db_error().unwrap_or_else(|| panic!("{sql}: {refused:?}"));
        assert_eq!(said.code().code(), "53400", "{sql}: {said:?}");
        assert!(said.hint().is_some_and(|hint| hint.contains("engine.spill_limit")), "{said:?}");
    }
    client.simple_query("SELECT 1").await.expect("others go on");
    let spill = daemon.data_dir().join("spill");
    eventually("spill files are gone", async || files(&spill).is_empty().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_statement_leaves_no_spill_files() {
    let _alone = ALONE.lock().await;
    let daemon = SMALL.get();
    let client = daemon.connect().await;
    let before = daemon.resident_bytes();
    let spill = daemon.data_dir().join("spill");
    let cancel = client.cancel_token();
    let endless = "SELECT max(n) FROM (SELECT row_number() OVER (ORDER BY -i, repeat('x', 50)) AS n \
                   FROM generate_series(1, 10000000000) t (i)) t";
    let mut running = pin!(client.simple_query(endless));
    tokio::select! {
        ended = &mut running => panic!("it ended by itself: {:?}", ended.map(drop)),
        () = eventually("it spills", async || (!files(&spill).is_empty()).then_some(())) => {}
    }
    cancel.cancel_query(tokio_postgres::NoTls).await.expect("it can be cancelled");
    let failed = running.await;
    let error = failed.expect_err("it was cancelled");
    assert_eq!(error.code().map(|code| code.code()), Some("57014"), "{}", explain(&error));
    nothing_is_left(&daemon, before).await;
}

/// Rows that RETURNING keeps for its client wait in memory, and that is paid for.
#[tokio::test(flavor = "multi_thread")]
async fn too_many_returned_rows_are_refused_and_nothing_is_written() {
    let _alone = ALONE.lock().await;
    let daemon = SMALL.get();
    let client = daemon.connect().await;
    client.batch_execute("CREATE TABLE returned (n bigint, text text)").await.expect("a table");
    let insert = "INSERT INTO returned SELECT i, repeat('x', 100) || i \
                  FROM generate_series(1, 2000000) t (i)";
    let returning = format!("{insert} RETURNING *");
    let error = client.simple_query(&returning).await.expect_err("there is not enough memory");
    assert_eq!(error.code().map(|code| code.code()), Some("53200"), "{}", explain(&error));
    assert_eq!(value(&client, "SELECT count(*) FROM returned").await, "0");
    // Without them, or with fewer of them, there is.
    client.batch_execute(insert).await.expect("rows are written as they come");
    let some = "UPDATE returned SET n = -n WHERE n % 1000 = 0 RETURNING n";
    let messages = client.simple_query(some).await.expect("few rows are returned");
    let rows = messages.iter().filter(|message| matches!(message, SimpleQueryMessage::Row(_)));
    assert_eq!(rows.count(), 2000);
    client.batch_execute("DROP TABLE returned PURGE").await.expect("it is dropped");
}

/// A window without an end holds all rows, and does not ask for the memory.
#[tokio::test(flavor = "multi_thread")]
async fn rows_kept_beside_lists_are_not_all_held() {
    let daemon = DAEMON.get();
    let client = daemon.connect().await;
    let plan = async |subquery: &str| {
        let sql = format!(
            "EXPLAIN VERBOSE SELECT count(x) FROM (SELECT i, ARRAY[i, -i] AS list \
             FROM generate_series(1, 1000000) s (i)) t LEFT JOIN LATERAL ({subquery}) l (x) ON true"
        );
        let messages = client.simple_query(&sql).await;
        let messages = messages.unwrap_or_else(|error| panic!("{sql}: {}", explain(&error)));
        let lines = messages.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some(row.columns().iter().enumerate().fold(String::new(), |line, (at, _)| {
                    line + " " + row.get(at).unwrap_or_default()
                }))
            }
            _ => None,
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    let lists = plan("SELECT u.x FROM unnest(t.list) AS u (x) WHERE u.x > 5").await;
    assert!(lists.contains("BoundedWindowAggExec"), "{lists}");
    assert!(!lists.replace("BoundedWindowAggExec", "").contains("WindowAggExec"), "{lists}");
    // There is one row for each: none of them needs a number.
    let rows = plan("SELECT t.i + 1 WHERE t.i > 5").await;
    assert!(rows.contains("ProjectionExec") && !rows.contains("WindowAggExec"), "{rows}");
}

async fn nothing_is_left(daemon: &Daemon, before: u64) {
    let spill = daemon.data_dir().join("spill");
    eventually("spill files are gone", async || files(&spill).is_empty().then_some(())).await;
    eventually(format!("memory is given back ({} MiB before)", before >> 20), async || {
        (daemon.resident_bytes() < before + KEPT).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_broken_file_is_named_and_the_daemon_lives() {
    let daemon = DAEMON.get();
    let client = daemon.connect().await;
    let directory = daemon.options().directory().join("broken");
    fs::create_dir(&directory).expect("a directory");
    let whole = fs::read(sample(daemon.options())).expect("a Parquet file");
    let half = whole.len() / 2;
    let mut no_footer = whole.clone();
    let end = no_footer.len();
    no_footer[end - 200..end - 8].fill(0xa5);
    let mut data = whole.clone();
    data[8..half].fill(0x5a);
    let mut length = whole.clone();
    length[end - 8..end - 4].copy_from_slice(&0x7fff_ffff_u32.to_le_bytes());
    let cases: [(&str, &[u8]); 8] = [
        ("truncated", &whole[..half]),
        ("cut_by_one", &whole[..end - 1]),
        ("magic_only", b"PAR1PAR1"),
        ("text", b"this is no Parquet file at all\n"),
        ("empty", b""),
        ("footer", &no_footer),
        ("data", &data),
        ("length", &length),
    ];
    let mut wrong = Vec::new();
    for (name, bytes) in cases {
        let file = directory.join(format!("{name}.parquet"));
        fs::write(&file, bytes).expect("a file is written");
        let error = match read_all(&client, name, &file).await {
            Ok(()) => "success".to_owned(),
            Err(error) => error,
        };
        if !error.contains(&format!("{name}.parquet")) || error.contains("XX000") {
            wrong.push(format!("{name}: {error}"));
        }
        assert_eq!(value(&client, "SELECT 'alive'").await, "alive", "after {name}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Of lines that people write it is said what to do with them, and nothing of tables of the daemon's own.
    let file = directory.join("lines.csv");
    fs::write(&file, "a,b\n1,2\n3\n").expect("a file is written");
    let sql = format!(
        "CREATE EXTERNAL TABLE lines (a int, b int) STORED AS CSV LOCATION '{}' OPTIONS ('has_header' 'true')",
        file.display()
    );
    client.batch_execute(&sql).await.expect("made");
    let error = client.batch_execute("SELECT * FROM lines").await.expect_err("a field is missing");
    let hint = error.as_db_error().and_then(|error| error.hint()).unwrap_or_default();
    assert!(hint.contains("Put the line right") && !hint.contains("a table's files"), "{hint}");
}

#[tokio::test]
async fn a_file_that_changes_under_its_table_is_noticed() {
    let daemon = DAEMON.get();
    let client = daemon.connect().await;
    let file = daemon.options().directory().join("changing.parquet");
    let sample = sample(daemon.options());
    fs::copy(&sample, &file).expect("a copy");
    read_all(&client, "changing", &file).await.unwrap_or_else(|error| panic!("{error}"));
    let bytes = fs::read(&file).expect("the file");
    fs::write(&file, &bytes[..bytes.len() / 2]).expect("it is cut");
    let count = "SELECT count(*), max(n_name) FROM changing";
    let error = client.simple_query(count).await.expect_err("it is broken");
    assert!(explain(&error).contains("changing.parquet"), "{}", explain(&error));
    fs::remove_file(&file).expect("it is removed");
    let error = client.simple_query(count).await.expect_err("it is gone");
    assert!(explain(&error).contains("changing.parquet"), "{}", explain(&error));
    assert_eq!(error.code().map(|code| code.code()), Some("58P01"), "{}", explain(&error));
    fs::copy(&sample, &file).expect("a copy");
    assert_eq!(value(&client, "SELECT count(*) FROM changing").await, "25");
}

/// Makes a table of a file and reads every column.
async fn read_all(client: &Client, table: &str, file: &Path) -> Result<(), String> {
    let create =
        format!("CREATE EXTERNAL TABLE {table} STORED AS PARQUET LOCATION '{}'", file.display());
    client.batch_execute(&create).await.map_err(|error| explain(&error))?;
    let read = client.simple_query(&format!("SELECT * FROM {table}")).await;
    read.map(drop).map_err(|error| explain(&error))
}

/// A Parquet file of 25 rows.
fn sample(options: &Options) -> PathBuf {
    let mut command = Command::new(binary());
    command.args(["demo", "--generate-only", "--scale", "0.001", "--data-dir"]);
    let output = command.arg(options.directory()).output().expect("oribi demo starts");
    // Two tests at once: one of them makes the data, the other has to wait for it.
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    if errors.contains("another process is generating") {
        std::thread::sleep(Duration::from_millis(50));
        return sample(options);
    }
    assert!(output.status.success(), "oribi demo --generate-only: {errors}");
    options.directory().join("tpch/sf0.001/nation.parquet")
}

/// Arguments, an environment variable, and what the message has to name.
type Case<'a> = (&'a [&'a str], (&'a str, &'a str), &'a [&'a str]);

#[test]
fn a_wrong_setting_is_refused_by_name() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).expect("a file is written");
        path.display().to_string()
    };
    let data = directory.path().join("data");
    let data_dir = format!("--data-dir={}", data.display());
    let config = |name: &str, text: &str| format!("--config={}", file(name, text));
    let missing = format!("--config={}", directory.path().join("missing.toml").display());
    let data_dir_is_a_file = format!("--data-dir={}", file("file", ""));
    let cases: [Case; 31] = [
        (&[], ("", ""), &["data_dir"]),
        (&[&data_dir, "--postgres=here"], ("", ""), &["--postgres"]),
        (&[&data_dir, "--id=a/b"], ("", ""), &["id"]),
        (&[&data_dir, "--nothing=1"], ("", ""), &["--nothing"]),
        (&[&data_dir], ("ORIBI_ENGINE_THREADS", "many"), &["engine.threads", "many"]),
        (&[&data_dir], ("ORIBI_ENGINE_MEMORY_LIMIT", "101%"), &["engine.memory_limit", "101%"]),
        (
            &[&data_dir],
            ("ORIBI_CONNECTIONS_RULES", "host all all all md5"),
            &["connections.rules", "md5"],
        ),
        (
            &[&data_dir],
            ("ORIBI_CONNECTIONS_RULES", "host all all all trust"),
            &["connections.rules", "scram-sha-256"],
        ),
        (
            &[&data_dir],
            ("ORIBI_CONNECTIONS_RULES", "hostssl all all all cert"),
            &["connections.rules", "tls.certificate"],
        ),
        (&[&data_dir], ("ORIBI_POSTGRES", "0.0.0.0:0"), &["connections.rules", "0.0.0.0"]),
        (&[&data_dir], ("ORIBI_SHUTDOWN_DRAIN_TIMEOUT", "soon"), &["shutdown.drain_timeout"]),
        (&[&data_dir], ("ORIBI_LOG_FILTER", "a=b=c"), &["log.filter"]),
        (
            &[&data_dir, &config("value.toml", "[query]\nregister_interval = \"never\"\n")],
            ("", ""),
            &["query.register_interval", "value.toml"],
        ),
        (
            &[&data_dir, &config("key.toml", "[query]\nregister_intervall = \"1s\"\n")],
            ("", ""),
            &["query.register_intervall", "key.toml"],
        ),
        (&[&data_dir, &config("broken.toml", "[query\n")], ("", ""), &["broken.toml"]),
        (&[&data_dir, &missing], ("", ""), &["missing.toml"]),
        (&[&data_dir], ("ORIBI_DATADIR", "/d"), &["ORIBI_DATADIR", "ORIBI_DATA_DIR?"]),
        (&[&data_dir], ("ORIBI_MEMORY_LIMIT", "1GiB"), &["ORIBI_ENGINE_MEMORY_LIMIT?"]),
        (
            &[&data_dir],
            ("ORIBI_ENGINE_MEMORY_LIMIT", "1KiB"),
            &["ORIBI_ENGINE_MEMORY_LIMIT", "engine.memory_limit", "at least 64"],
        ),
        (
            &[&data_dir],
            ("ORIBI_COORDINATION_SESSION_TIMEOUT", "1ms"),
            &["coordination.session_timeout", "at least 1s"],
        ),
        (
            &[&data_dir],
            ("ORIBI_CONNECTIONS_MESSAGE_LIMIT", "1B"),
            &["connections.message_limit", "at least 64"],
        ),
        (&[&data_dir, "--warehouse=ftp://x"], ("", ""), &["--warehouse", "file, s3"]),
        (&[&data_dir], ("ORIBI_CONNECTIONS_MAX", "2"), &["ORIBI_CONNECTIONS_MAX", "reserved"]),
        (&[&data_dir, "--zookeeper=foo:bar"], ("", ""), &["--zookeeper", "\"bar\" is no port"]),
        (&[&data_dir, "--zookeeper=a:1,"], ("", ""), &["--zookeeper", "host:port"]),
        (
            &[&data_dir, "--zookeeper=foo bar"],
            ("", ""),
            &["--zookeeper", "host:port,host:port/chroot"],
        ),
        (
            &[&data_dir],
            ("ORIBI_ZOOKEEPER", "a:1 b:2"),
            &["ORIBI_ZOOKEEPER", "\"a:1 b:2\" is no host"],
        ),
        (
            &[&data_dir, &config("zookeeper.toml", "\nzookeeper = \"a:99999\"\n")],
            ("", ""),
            &["zookeeper.toml, line 2", "\"99999\" is no port"],
        ),
        (
            &[&data_dir, &config("threads.toml", "[engine]\nthreads = 0\n")],
            ("", ""),
            &["threads.toml, line 2", "engine.threads", "\"auto\" nor a number from 1 to 1024"],
        ),
        (
            &[&data_dir, "--postgres=127.0.0.1:5555", "--peer=127.0.0.1:5555"],
            ("", ""),
            &["--peer", "\"postgres\" (127.0.0.1:5555) and \"peer\" (127.0.0.1:5555)"],
        ),
        (&[&data_dir_is_a_file], ("", ""), &["data_dir", "is no directory"]),
    ];
    for (arguments, (name, value), words) in cases {
        let output = serve(arguments, name, value);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?} {name}={value}: {message}");
        for word in words {
            assert!(message.contains(word), "{word} in: {message}");
        }
        assert!(message.lines().count() < 12, "a message, not a novel: {message}");
        assert!(!data.exists(), "nothing is started: {arguments:?} {name}={value}");
    }
}

/// Runs `oribi serve`, which is expected to end at once.
fn serve(arguments: &[&str], variable: &str, value: &str) -> Output {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ORIBI_") {
            command.env_remove(name);
        }
    }
    if !variable.is_empty() {
        command.env(variable, value);
    }
    command.arg("serve").args(arguments).stdin(Stdio::null());
    command.output().expect("oribi starts")
}

#[tokio::test]
async fn a_data_directory_has_one_daemon() {
    let first = Daemon::start(&Options::new());
    let second = Daemon::spawn(first.options());
    assert!(second.code.is_some_and(|code| code != 0), "{second:?}");
    let holder = format!("pid {}", first.pid());
    for word in [&first.data_dir().display().to_string(), &holder] {
        assert!(second.stderr.contains(word), "{word} in: {}", second.stderr);
    }
    assert_eq!(value(&first.connect().await, "SELECT 'alive'").await, "alive");
    // Taken addresses are named as well.
    let taken = first.postgres().to_string();
    let third = Daemon::spawn(&Options::new().env("ORIBI_POSTGRES", &taken));
    assert!(third.code.is_some_and(|code| code != 0), "{third:?}");
    for word in
        [taken.as_str(), "postgres", "PostgreSQL clients", "--postgres", "ORIBI_POSTGRES", "ss -"]
    {
        assert!(third.stderr.contains(word), "{word} in: {}", third.stderr);
    }
}

#[tokio::test]
async fn a_crash_loses_nothing_that_was_acknowledged() {
    let options = Options::new();
    let mut daemon = Daemon::start(&options);
    let mut expected = Vec::new();
    let mut oids = String::new();
    for round in 0..3 {
        let client = daemon.connect().await;
        for number in 0..10 {
            let view = format!("v{round}_{number}");
            let made =
                client.batch_execute(&format!("CREATE VIEW {view} AS SELECT {number}")).await;
            made.unwrap_or_else(|error| panic!("{view}: {}", explain(&error)));
            expected.push(view);
        }
        // One that may or may not have come through.
        let last = client.batch_execute("CREATE OR REPLACE VIEW perhaps AS SELECT 1");
        let _ = tokio::time::timeout(Duration::from_millis(round), last).await;
        let before = value(&client, OIDS).await;
        assert!(before.starts_with(&oids), "{before} goes on from {oids}");
        oids = before;
        daemon.kill();
        daemon = Daemon::start(&options);
        let client = daemon.connect().await;
        let views = "SELECT string_agg(viewname, ' ' ORDER BY viewname) FROM pg_views \
                     WHERE schemaname = 'public' AND viewname <> 'perhaps'";
        assert_eq!(value(&client, views).await, expected.join(" "));
        assert_eq!(value(&client, OIDS).await, oids);
    }
}

/// The OIDs of all views but one, by name.
const OIDS: &str = "SELECT string_agg(oid::bigint::text, ' ' ORDER BY relname) FROM pg_class \
                    WHERE relname LIKE 'v_\\_%'";

/// Each thread has a stack that takes address space.
#[test]
fn without_room_for_its_threads_it_does_not_start() {
    for mebibytes in [550, 1000] {
        let directory = tempfile::tempdir().expect("a directory");
        let mut limited = Command::new("prlimit");
        limited.arg(format!("--as={}", mebibytes << 20)).arg(binary()).arg("serve");
        limited.arg(format!("--data-dir={}", directory.path().display()));
        limited.args(["postgres", "peer", "web"].map(|port| format!("--{port}=127.0.0.1:0")));
        let output = limited.output().expect("prlimit starts it");
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{mebibytes} MiB: {told}");
        assert!(told.contains("cannot start the threads") && told.contains("ulimit -v"), "{told}");
        assert!(!told.contains("panicked"), "{told}");
    }
}

#[tokio::test]
async fn it_is_ready_soon() {
    let since = Instant::now();
    let daemon = Daemon::start(&Options::new());
    let client = daemon.connect().await;
    assert_eq!(value(&client, "SELECT 1").await, "1");
    assert!(since.elapsed() < PATIENCE / 4, "the first answer came after {:?}", since.elapsed());
}

/// The one value of a query.
async fn value(client: &Client, sql: &str) -> String {
    let messages = client.simple_query(sql).await;
    let messages = messages.unwrap_or_else(|error| panic!("{sql}: {}", explain(&error)));
    let row = messages.into_iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_owned()),
        _ => None,
    });
    row.unwrap_or_else(|| panic!("{sql}: no row"))
}

/// All files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
