//! What is known of statements that have ended: their history, their profiles, the log of slow ones,
//! and those that were lost with their daemon.

mod common;

#[path = "tpch/answers.rs"]
#[allow(dead_code)]
mod answers;
#[path = "cluster/support.rs"]
mod support;
#[path = "protocol/wire.rs"]
#[allow(dead_code)]
mod wire;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::daemon::{Daemon, Options, binary, eventually};
use support::*;

fn run_psql(daemon: &Daemon, user: &str, sql: &str) -> Command {
    let address = daemon.postgres();
    let connection =
        format!("host={} port={} user={user} dbname=oribi", address.ip(), address.port());
    let mut psql = Command::new("psql");
    psql.args(["-XAtq", "-c", sql, &connection]);
    psql
}

/// What psql says to some commands.
fn psql(daemon: &Daemon, user: &str, sql: &str) -> String {
    let output = run_psql(daemon, user, sql).output().expect("psql runs");
    let (out, error) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(error))
}

/// Bytes of all files in a directory.
fn bytes_in(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).expect("the history").flatten();
    entries.map(|entry| entry.metadata().map_or(0, |file| file.len())).sum()
}

/// A query that takes some hundred milliseconds, and one that reads a file.
const SLOW: &str = "SELECT count(*) FROM generate_series(1, 3000000) AS t(n) WHERE n % 7 = 1";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_ended_is_in_the_history() {
    bounded(async {
        let daemon = Daemon::start(&Options::new());
        let client = Client::connect(&daemon).await;
        client.rows("SELECT 41 + 1 AS answer").await;
        client.rows("CREATE TABLE numbers (n bigint)").await;
        client.rows("INSERT INTO numbers SELECT * FROM generate_series(1, 1000)").await;
        client.rows("SELECT n FROM numbers WHERE n > 10").await;
        assert_eq!(client.outcome("SELECT 1 / (n - 1) FROM numbers").await, "22012");
        assert_eq!(client.outcome("SELECT * FROM nothing").await, "42P01");
        client.rows("SET statement_timeout = '100ms'").await;
        assert_eq!(client.outcome(ENDLESS).await, "57014");
        client.rows("SET statement_timeout = 0").await;
        client.rows("CREATE ROLE secretive PASSWORD 'hush'").await;

        let columns = "state, daemon, \"user\", tag, rows, sqlstate, bytes_scanned > 0, \
                       duration_ms > 0 AND duration_ms >= planning_ms AND execution_ms >= 0 AND \
                       concat_ws(' ', duration_ms, planning_ms, execution_ms) !~ '[.][0-9]{4}', \
                       started <= ended, pid = pg_backend_pid(), client LIKE '127.0.0.1:%'";
        let id = client.value("SELECT id FROM system.daemons").await;
        let row = async |sql: &str| {
            let sql = sql.replace('\'', "''");
            let found = format!("SELECT {columns} FROM system.query_history WHERE sql = '{sql}'");
            let mut rows = client.rows(&found).await;
            assert_eq!(rows.len(), 1, "{sql}: {rows:?}");
            let row = rows.remove(0);
            assert_eq!(row[1..3], [id.clone(), "oribi".to_owned()]);
            assert_eq!(row[7..], ["t", "t", "t", "t"], "{sql}");
            [&row[0], &row[3], &row[4], &row[5], &row[6]].map(String::clone)
        };
        for (sql, expected) in [
            ("SELECT 41 + 1 AS answer", ["finished", "SELECT 1", "1", "", "f"]),
            ("SELECT n FROM numbers WHERE n > 10", ["finished", "SELECT 990", "990", "", "t"]),
            (
                "INSERT INTO numbers SELECT * FROM generate_series(1, 1000)",
                ["finished", "INSERT 0 1000", "1000", "", "f"],
            ),
            ("SELECT 1 / (n - 1) FROM numbers", ["failed", "", "0", "22012", "t"]),
            ("SELECT * FROM nothing", ["failed", "", "0", "42P01", "f"]),
            (ENDLESS, ["cancelled", "", "0", "57014", "f"]),
            ("CREATE ROLE secretive PASSWORD '***'", ["finished", "CREATE ROLE", "0", "", "f"]),
        ] {
            assert_eq!(row(sql).await, expected, "{sql}");
        }
        // A client that goes away has not had its answer.
        let left = "SELECT count(*) FROM generate_series(1, 100000000000) AS t(left_alone)";
        let mut leaving = run_psql(&daemon, "oribi", left).spawn().expect("psql runs");
        let runs = format!("SELECT count(*) FROM system.queries WHERE sql = '{left}'");
        until("it runs", async || client.value(&runs).await == "1").await;
        leaving.kill().expect("it runs");
        leaving.wait().expect("it has ended");
        let gone = format!(
            "SELECT state, sqlstate, error, application_name FROM system.query_history \
             WHERE sql = '{left}'"
        );
        until("its statement ends", async || !client.rows(&gone).await.is_empty()).await;
        let told = ["cancelled", "08006", "connection to client lost", "psql"];
        assert_eq!(client.rows(&gone).await, [told]);
        let error = "SELECT error FROM system.query_history WHERE sqlstate = '22012'";
        assert!(client.value(error).await.starts_with("division by zero"));
        let history = daemon.data_dir().join("history");
        for entry in std::fs::read_dir(&history).expect("the history").flatten() {
            let text = std::fs::read_to_string(entry.path()).expect("text");
            assert!(!text.contains("hush"), "{:?}", entry.path());
        }

        // It is there after a restart, and after a crash.
        let count = "SELECT count(*) FROM system.query_history WHERE sqlstate IS NOT NULL";
        assert_eq!(client.value(count).await, "4");
        daemon.kill();
        let daemon = Daemon::start(daemon.options());
        assert_eq!(Client::connect(&daemon).await.value(count).await, "4");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn submitted_statements_end_there_as_they_ended() {
    bounded(async {
        let daemon = Daemon::start(&Options::new());
        let client = Client::connect(&daemon).await;
        client.rows("CREATE TABLE t (n int)").await;
        let submit = async |sql: &str| {
            client.value(&format!("SELECT oribi.submit('{}')", sql.replace('\'', "''"))).await
        };
        let ended = async |sql: &str| {
            let sql = sql.replace('\'', "''");
            let history = format!(
                "SELECT state, tag, rows, sqlstate, error IS NULL FROM system.query_history \
                 WHERE application_name LIKE 'submitted %' AND sql = '{sql}'"
            );
            let known = async || client.rows(&history).await.pop();
            eventually(format!("{sql} is in the history"), known).await
        };
        for (sql, expected) in [
            ("SELECT 40 + 2", ["finished", "SELECT 1", "1", "", "t"]),
            (
                "INSERT INTO t SELECT * FROM generate_series(1, 5)",
                ["finished", "INSERT 0 5", "5", "", "t"],
            ),
            ("DELETE FROM t WHERE n > 3", ["finished", "DELETE 2", "2", "", "t"]),
            ("SELECT 1 / (n - 1) FROM t", ["failed", "", "0", "22012", "f"]),
            ("INSERT INTO t SELECT 1 / (n - 1) FROM t", ["failed", "", "0", "22012", "f"]),
            ("INSERT INTO nothing VALUES (1)", ["failed", "", "0", "42P01", "f"]),
        ] {
            let id = submit(sql).await;
            client.value(&format!("SELECT oribi.wait('{id}')")).await;
            assert_eq!(ended(sql).await, expected, "{sql}");
        }
        let writes = &format!("INSERT INTO t {ENDLESS}");
        for sql in [ENDLESS, writes] {
            let id = submit(sql).await;
            let runs = format!("SELECT state = 'running' FROM system.queries WHERE id = '{id}'");
            until("it runs", async || client.value(&runs).await == "t").await;
            client.value(&format!("SELECT oribi.cancel('{id}')")).await;
            assert_eq!(ended(sql).await, ["cancelled", "", "0", "57014", "f"], "{sql}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prepared_statements_and_cursors_are_there_once() {
    bounded(async {
        let daemon = Daemon::start(&Options::new());
        let (client, connection) =
            daemon.client_config().connect(tokio_postgres::NoTls).await.expect("a client");
        let connection = tokio::spawn(connection);
        let statement = client.prepare("SELECT $1::bigint + 1").await.expect("prepared");
        for n in 0..3_i64 {
            client.query(&statement, &[&n]).await.expect("a row");
        }
        client
            .batch_execute(
                "BEGIN; DECLARE c CURSOR FOR SELECT * FROM generate_series(1, 100); FETCH 5 FROM c; \
                 CLOSE c; COMMIT",
            )
            .await
            .expect("a cursor");
        let seen = client
            .query(
                "SELECT sql, count(*), sum(rows) FROM system.query_history \
                 WHERE sql LIKE 'SELECT $1%' OR sql LIKE 'DECLARE%' GROUP BY sql ORDER BY sql",
                &[],
            )
            .await
            .expect("the history");
        let seen: Vec<(String, i64)> = seen.iter().map(|row| (row.get(0), row.get(1))).collect();
        let declare = "DECLARE c CURSOR FOR SELECT * FROM generate_series(1, 100)";
        assert_eq!(seen, [(declare.to_owned(), 1), ("SELECT $1::bigint + 1".to_owned(), 3)]);
        drop(client);
        connection.await.expect("it ends").expect("well");
    })
    .await;
}

#[test]
fn a_failed_bind_spoils_no_statement_before_it() {
    let daemon = Daemon::start(&Options::new());
    let mut wire = wire::Wire::log_in(&daemon);
    let messages = wire.exchange([
        wire::parse("a", "SELECT $1::bigint AS a", &[]),
        wire::bind("", "a", &[Some("1")]),
        wire::execute("", 0),
        wire::bind("", "a", &[Some("one")]),
        wire::execute("", 0),
    ]);
    assert_eq!(wire::kinds(&messages), "12DCEZ");
    assert_eq!(wire::code(&messages), "22P02");
    let seen = "SELECT state, tag, sqlstate FROM system.query_history WHERE sql LIKE 'SELECT $1%'";
    assert_eq!(psql(&daemon, "oribi", seen), "finished|SELECT 1|\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_sees_ones_own_statements() {
    bounded(async {
        let daemon = Daemon::start(&Options::new().env("ORIBI_HISTORY_PROFILE", "1ms"));
        let admin = Client::connect(&daemon).await;
        for role in ["ann", "bob", "watcher"] {
            admin.rows(&format!("CREATE ROLE {role} LOGIN")).await;
        }
        admin.rows("GRANT pg_read_all_stats TO watcher").await;
        assert_eq!(psql(&daemon, "ann", &format!("{SLOW} AND n <> 4711")), "428572\n");
        psql(&daemon, "bob", "SELECT 'by bob'");
        let users = "SELECT string_agg(role, ',') FROM (SELECT DISTINCT \"user\" AS role \
                     FROM system.query_history WHERE sql LIKE 'SELECT%' ORDER BY 1) AS roles";
        assert_eq!(psql(&daemon, "ann", users), "ann\n");
        assert_eq!(
            psql(
                &daemon,
                "bob",
                "SELECT count(*) FROM system.query_history WHERE \"user\" = 'ann'"
            ),
            "0\n"
        );
        assert_eq!(psql(&daemon, "watcher", users), "ann,bob\n");
        assert_eq!(psql(&daemon, "oribi", users), "ann,bob,watcher\n");

        // A profile goes with its statement; the values in a plan are for superusers.
        let id = "SELECT id FROM system.query_history WHERE sql LIKE '%4711' AND \"user\" = 'ann'";
        let id = psql(&daemon, "oribi", id).trim().to_owned();
        let profile = format!("SELECT oribi.profile('{id}')");
        let full = psql(&daemon, "oribi", &profile);
        assert!(full.contains("AggregateExec: mode=") && full.contains("4711"), "{full}");
        assert!(full.contains("output_rows="), "{full}");
        let plain = psql(&daemon, "ann", &profile);
        assert!(plain.contains("AggregateExec: metrics=[") && !plain.contains("4711"), "{plain}");
        assert_eq!(psql(&daemon, "bob", &profile), "\n");
        assert_eq!(psql(&daemon, "oribi", "SELECT oribi.profile('none')"), "\n");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_statements_are_in_the_log() {
    bounded(async {
        let options = Options::new().env("ORIBI_HISTORY_SLOW", "200ms");
        let daemon = Daemon::start(&options.env("ORIBI_HISTORY_PROFILE", "none"));
        let client = Client::connect(&daemon).await;
        client.rows("SELECT 'quick'").await;
        client.rows("SET statement_timeout = '300ms'").await;
        assert_eq!(client.outcome(ENDLESS).await, "57014");
        let line = eventually("a line in the log", async || {
            let log = daemon.log();
            log.lines().find(|line| line.contains("oribi::slow")).map(str::to_owned)
        })
        .await;
        assert!(
            line.contains(ENDLESS) && line.contains("57014") && line.contains("oribi"),
            "{line}"
        );
        assert_eq!(daemon.log().matches("oribi::slow").count(), 1);
        let profiles =
            "SELECT count(*) FROM system.query_history WHERE profile AND sqlstate IS NULL";
        assert_eq!(client.value(profiles).await, "0");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_history_is_bounded() {
    bounded(async {
        let daemon = Daemon::start(&Options::new().env("ORIBI_HISTORY_SIZE", "256KiB"));
        let client = Client::connect(&daemon).await;
        let text = format!("SELECT '{}'", "x".repeat(3000));
        for _ in 0..200 {
            client.rows(&text).await;
        }
        client.rows("SELECT 'the last'").await;
        let last = "SELECT count(*) FROM system.query_history WHERE sql = 'SELECT ''the last'''";
        assert_eq!(client.value(last).await, "1");
        let bytes = bytes_in(&daemon.data_dir().join("history"));
        assert!(bytes <= 300 * 1024 && bytes > 30 * 1024, "{bytes}");

        let daemon = Daemon::start(&Options::new().env("ORIBI_HISTORY_SIZE", "0B"));
        let client = Client::connect(&daemon).await;
        client.rows("SELECT 1").await;
        assert_eq!(client.value("SELECT count(*) FROM system.query_history").await, "0");
        assert!(!daemon.data_dir().join("history").exists());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ran_when_its_daemon_died_is_lost() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper();
        let daemons = cluster.start_all(["a", "b", "c"]);
        let b = Client::connect(&daemons[1]).await;
        all_ready(&b, &["a", "b", "c"]).await;
        let doomed = Client::connect(&daemons[0]).await;
        doomed.rows("SET application_name = 'doomed'").await;
        let running = tokio::spawn(async move { doomed.try_rows(ENDLESS).await });
        let seen = "SELECT id FROM system.queries WHERE daemon = 'a'";
        until("the statement is seen", async || !b.value(seen).await.is_empty()).await;
        let id = b.value(seen).await;
        daemons[0].kill();
        running.await.expect("it ends").expect_err("its connection is lost");
        let lost = "SELECT id, daemon, \"user\", application_name, sql, error \
                    FROM system.query_history WHERE state = 'lost'";
        let error = "daemon \"a\" ended while it ran the statement";
        let expected = [&id, "a", "oribi", "doomed", ENDLESS, error];
        for daemon in &daemons[1..] {
            let client = Client::connect(daemon).await;
            until("the statement is lost", async || !client.rows(lost).await.is_empty()).await;
            assert_eq!(client.rows(lost).await, [expected]);
        }
        // The daemon that comes back knows of it, too; it is still one.
        let again = cluster.start("a");
        let a = Client::connect(&again).await;
        until("the statement is lost", async || !a.rows(lost).await.is_empty()).await;
        assert_eq!(a.rows(lost).await, [expected]);
        all_ready(&b, &["a", "b", "c"]).await;
        assert_eq!(b.rows(lost).await, [expected]);
    })
    .await;
}

/// The store has them for as long as the session of the dead lasts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_daemon_ran_is_not_listed_as_running() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper().with("COORDINATION_SESSION_TIMEOUT", "30s");
        let daemons = cluster.start_all(["a", "b"]);
        let b = Client::connect(&daemons[1]).await;
        all_ready(&b, &["a", "b"]).await;
        let doomed = Client::connect(&daemons[0]).await;
        let running = tokio::spawn(async move { doomed.try_rows(ENDLESS).await });
        let state = "SELECT state FROM system.queries WHERE daemon = 'a'";
        until("the statement is seen", async || b.value(state).await == "running").await;
        let active = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%x % 7 = 3' AND state = 'active'";
        assert_eq!(b.value(active).await, "1");
        daemons[0].kill();
        running.await.expect("it ends").expect_err("its connection is lost");
        let top = || {
            let host = daemons[1].postgres().to_string();
            let mut top = Command::new(binary());
            top.args(["cluster", "top", "--count", "1", "--host", &host]);
            let done = top.output().expect("the program runs");
            String::from_utf8_lossy(&done.stdout).into_owned()
        };
        until("it does not answer", async || b.value(state).await == "unreachable").await;
        assert_eq!(b.value(active).await, "0");
        let told = top();
        assert!(told.contains("0 statements run") && !told.contains("generate_series"), "{told}");
        // Its successor answers, and has never heard of it.
        let again = cluster.start("a");
        all_ready(&b, &["a", "b"]).await;
        until("it is known to be lost", async || b.value(state).await == "lost").await;
        assert_eq!(b.value(active).await, "0");
        assert!(top().contains("0 statements run"));
        drop(again);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spread_statement_names_its_workers() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper().with("HISTORY_PROFILE", "1us");
        answers::generate("0.01", &cluster.path(""));
        let daemons = cluster.start_all(["a", "b", "c"]);
        let client = Client::connect(&daemons[0]).await;
        all_ready(&client, &["a", "b", "c"]).await;
        client.rows(&answers::tables("public", &cluster.path("tpch/sf0.01"))).await;
        let sql = "SELECT l_returnflag, sum(l_quantity) FROM lineitem GROUP BY 1";
        let seen = "SELECT array_to_string(workers, ','), rows, id FROM system.query_history \
                    WHERE sql LIKE 'SELECT l_returnflag%'";
        let alone = client.rows(sql).await.len().to_string();
        client.rows("SET oribi.distribution = 'always'").await;
        client.rows(sql).await;
        let rows = client.rows(&format!("{seen} ORDER BY id")).await;
        assert_eq!(rows.len(), 2, "{rows:?}");
        assert_eq!((&*rows[0][0], &rows[0][1]), ("", &alone));
        assert_eq!((&*rows[1][0], &rows[1][1]), ("a,b,c", &alone));
        // From any daemon.
        let other = Client::connect(&daemons[1]).await;
        assert_eq!(other.rows(&format!("{seen} AND daemon = 'a' ORDER BY id")).await, rows);
        let profile = other.value(&format!("SELECT oribi.profile('{}')", rows[1][2])).await;
        assert!(profile.contains("Stage 1"), "{profile}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_settings_are_there_with_which_a_statement_ran() {
    bounded(async {
        let daemon = Daemon::start(&Options::new());
        let client = Client::connect(&daemon).await;
        client.rows("SELECT 'as by default'").await;
        client.rows("SET TimeZone = 'Europe/Vienna'").await;
        client.rows("SET my.token = 'hush'").await;
        client.rows("BEGIN").await;
        client.rows("SET LOCAL oribi.result_cache = off").await;
        client.rows("SELECT 'within a block'").await;
        client.rows("COMMIT").await;
        client.rows("SELECT 'after it'").await;
        client.rows("ALTER ROLE oribi SET search_path = 'far, away'").await;
        let options = r#"{"settings": {"DateStyle": "DMY"}}"#;
        let submit = format!("SELECT oribi.submit('SELECT ''submitted''', '{options}')");
        let id = client.value(&submit).await;
        client.value(&format!("SELECT oribi.wait('{id}')")).await;
        for (text, expected) in [
            ("as by default", ""),
            ("within a block", "TimeZone=Europe/Vienna|oribi.result_cache=off"),
            ("after it", "TimeZone=Europe/Vienna"),
            ("submitted", "DateStyle=ISO, DMY|search_path=far, away"),
        ] {
            let settings = format!(
                "SELECT array_to_string(settings, '|') FROM system.query_history \
                 WHERE sql = 'SELECT ''{text}'''"
            );
            let known = async || client.rows(&settings).await.pop();
            assert_eq!(eventually(text, known).await, [expected], "{text}");
        }
        let settings = "SELECT settings::text FROM system.query_history";
        assert!(!client.rows(settings).await.concat().concat().contains("hush"));
    })
    .await;
}

/// What nobody writes to the store: the daemon that is asked asks the one that knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_on_another_daemon_tells_how_far_it_is() {
    bounded(async {
        let cluster = Cluster::with_warehouse();
        let daemons = cluster.start_all(["a", "b"]);
        let (busy, client) = (Client::connect(&daemons[0]).await, Client::connect(&daemons[1]).await);
        all_ready(&client, &["a", "b"]).await;
        busy.rows("CREATE TABLE t (n bigint)").await;
        busy.rows("INSERT INTO t SELECT * FROM generate_series(1, 3000)").await;
        let sql = "SELECT count(*) FROM t a, t b, t c WHERE (a.n * b.n * c.n) % 7 = 8";
        let running = tokio::spawn(async move { busy.outcome(sql).await });
        let look = "SELECT pid, phase, progress > 0, bytes_scanned > 0, rows, \
                    array_to_string(workers, ','), daemon FROM system.queries \
                    WHERE kind = 'interactive' AND sql LIKE '%FROM t a%' AND sql NOT LIKE '%system.queries%'";
        let seen = async || client.rows(look).await.pop().filter(|row| row[2] == "t");
        let row = eventually("how far it is", seen).await;
        assert_eq!(row[1..], ["executing", "t", "t", "0", "a", "a"]);
        // One that does not answer keeps nobody waiting.
        daemons[0].pause();
        let begun = Instant::now();
        let row = client.rows(look).await.pop().expect("it is listed");
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
        assert_eq!((row[1].as_str(), row[6].as_str()), ("", "a"));
        daemons[0].resume();
        let row = eventually("how far it is", seen).await;
        client.rows(&format!("SELECT pg_cancel_backend({})", row[0])).await;
        assert_eq!(running.await.expect("it ends"), "57014");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_statement_tells_how_far_it_is() {
    bounded(async {
        let daemon = Daemon::start(&Options::new());
        let (busy, client) = (Client::connect(&daemon).await, Client::connect(&daemon).await);
        busy.rows("CREATE TABLE t (n bigint)").await;
        busy.rows("INSERT INTO t SELECT * FROM generate_series(1, 3000)").await;
        let cancel = busy.cancel_token();
        // All of the file is read long before the rows have met each other.
        let sql = "SELECT count(*) FROM t a, t b, t c WHERE (a.n * b.n * c.n) % 7 = 8";
        let running = tokio::spawn(async move { busy.outcome(sql).await });
        let progress = "SELECT progress FROM system.queries WHERE sql LIKE '%FROM t a%' \
                        AND sql NOT LIKE '%system.queries%'";
        until("progress", async || {
            client.value(progress).await.parse::<f64>().is_ok_and(|part| part > 0.0 && part <= 1.0)
        })
        .await;
        cancel.cancel_query(tokio_postgres::NoTls).await.expect("a cancel request");
        assert_eq!(running.await.expect("it ends"), "57014");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_an_old_name_sees_nothing_of_its_history() {
    bounded(async {
        let daemon = Daemon::start(&Options::new().env("ORIBI_HISTORY_PROFILE", "1ms"));
        let client = Client::connect(&daemon).await;
        client.rows("CREATE ROLE ann LOGIN; CREATE ROLE bob LOGIN").await;
        let ann = Client::connect_as(&daemon, "ann").await;
        ann.rows(&format!("{SLOW} AND 'hers' <> ''")).await;
        let bob = Client::connect_as(&daemon, "bob").await;
        bob.rows(&format!("{SLOW} AND 'his' <> ''")).await;
        drop((ann, bob));
        client.rows("ALTER ROLE ann RENAME TO zoe; DROP ROLE bob").await;
        client.rows("CREATE ROLE ann LOGIN; CREATE ROLE bob LOGIN").await;
        let of = |whose: &str| {
            format!("SELECT id FROM system.query_history WHERE sql LIKE '%= 1 AND ''{whose}''%'")
        };
        let profile = |id: &str| format!("SELECT oribi.profile('{id}') IS NOT NULL");
        let (hers, his) = (client.value(&of("hers")).await, client.value(&of("his")).await);
        for id in [&hers, &his] {
            assert!(!id.is_empty());
            assert_eq!(client.value(&profile(id)).await, "t");
        }
        // It is still hers, under another name, and nobody's.
        let zoe = Client::connect_as(&daemon, "zoe").await;
        assert_eq!(zoe.value(&of("hers")).await, hers);
        assert_eq!(zoe.value(&profile(&hers)).await, "t");
        for (name, whose, id) in [("ann", "hers", &hers), ("bob", "his", &his)] {
            let other = Client::connect_as(&daemon, name).await;
            assert!(other.rows(&of(whose)).await.is_empty(), "{name}");
            assert_eq!(other.value(&profile(id)).await, "f", "{name}");
        }
    })
    .await;
}
