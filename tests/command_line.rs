//! The command line: the built program against daemons that it finds through ZooKeeper, or at addresses.
//! `oribi query` and `oribi config` here; the others in modules of their own.

mod common;

#[path = "cluster/support.rs"]
mod support;

#[path = "command_line/scripts.rs"]
mod scripts;
#[path = "command_line/shell.rs"]
mod shell;
#[path = "command_line/terminal.rs"]
mod terminal;
#[path = "command_line/tools.rs"]
mod tools;

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use support::*;

/// Three daemons that share a warehouse.
async fn three() -> (Cluster, [Daemon; 3]) {
    let cluster = Cluster::with_warehouse();
    let daemons = cluster.start_together(["a", "b", "c"]).await;
    (cluster, daemons)
}

/// `oribi query` with nothing of this process's surroundings that would matter to it.
fn command(arguments: &[&str]) -> Command {
    oribi("query", arguments)
}

/// The same with any command.
fn oribi(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(common::daemon::binary());
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("ORIBI_") || name.starts_with("PG") {
            command.env_remove(name.as_ref());
        }
    }
    command.arg(name).args(arguments).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What it came to: exit code, standard output, standard error.
type Ended = (Option<i32>, String, String);

fn ended(output: &Output) -> Ended {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn finish(mut command: Command) -> Ended {
    ended(&command.output().expect("the program runs"))
}

/// Knowing nothing but the ensemble.
fn query(cluster: &Cluster, arguments: &[&str]) -> Ended {
    let mut command = command(arguments);
    command.env("ORIBI_ZOOKEEPER", cluster.zookeeper());
    finish(command)
}

/// What it prints when all goes well.
fn printed(cluster: &Cluster, arguments: &[&str]) -> String {
    let (code, out, err) = query(cluster, arguments);
    assert_eq!(code, Some(0), "{arguments:?}: {out}{err}");
    out
}

fn begin(cluster: &Cluster, arguments: &[&str]) -> Child {
    let mut command = command(arguments);
    command.env("ORIBI_ZOOKEEPER", cluster.zookeeper()).spawn().expect("the program runs")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ensemble_is_all_that_has_to_be_known() {
    bounded(async {
        let (cluster, daemons) = three().await;
        let id = printed(&cluster, &["submit", "SELECT 40 + 2 AS answer, 'x' AS text"]);
        let id = id.trim();
        assert_eq!(printed(&cluster, &["wait", id]), "SELECT 1\n");
        let waited = format!("{{\"id\":\"{id}\",\"state\":\"succeeded\",\"tag\":\"SELECT 1\"}}\n");
        assert_eq!(printed(&cluster, &["wait", id, "--json"]), waited);
        let again = printed(&cluster, &["submit", "SELECT 1 AS one", "--wait", "--json"]);
        let again: serde_json::Value = serde_json::from_str(&again).expect("JSON");
        let again = again["id"].as_str().expect("an id");
        assert_eq!(printed(&cluster, &["result", again, "--json"]), "[{\"one\":1}]\n");
        let table = " answer | text\n--------+------\n     42 | x\n(1 row)\n";
        assert_eq!(printed(&cluster, &["result", id]), table);
        assert_eq!(printed(&cluster, &["result", id, "--format", "csv"]), "answer,text\n42,x\n");
        assert_eq!(
            printed(&cluster, &["result", id, "-f", "json"]),
            "[{\"answer\":42,\"text\":\"x\"}]\n"
        );
        let listed = printed(&cluster, &["list", "--state", "succeeded", "--format", "csv"]);
        assert!(
            listed.lines().any(|line| line.starts_with(&format!("{id},submitted"))),
            "{listed}"
        );
        assert_eq!(printed(&cluster, &["list", "--owner", "nobody", "-f", "json"]), "[]\n");
        let moment = "SELECT timestamptz '2026-11-29 13:00+01' AS at, ARRAY[timestamptz 'epoch'] AS all_of_them";
        assert_eq!(
            printed(&cluster, &["run", moment, "--json"]),
            "[{\"at\":\"2026-11-29T12:00:00Z\",\"all_of_them\":[\"1970-01-01T00:00:00Z\"]}]\n"
        );
        // A daemon by its address, and a flag in place of the variable.
        let address = daemons[1].postgres().to_string();
        let (code, out, err) = finish(command(&["result", id, "--host", &address]));
        assert_eq!((code, out.as_str()), (Some(0), table), "{err}");
        let (code, out, err) = finish(command(&["wait", id, "--zookeeper", cluster.zookeeper()]));
        assert_eq!((code, out.as_str()), (Some(0), "SELECT 1\n"), "{err}");
        // The query from standard input and from a file, with settings and a key.
        let file = cluster.path("query.sql");
        std::fs::write(&file, "SELECT current_setting('TimeZone') AS zone\n").expect("a file");
        let file = file.display().to_string();
        let mut arguments = vec!["run", "--file", &file, "--set", "TimeZone=Asia/Tokyo"];
        arguments.extend(["--key", "zone", "--format", "csv"]);
        assert_eq!(printed(&cluster, &arguments), "zone\nAsia/Tokyo\n");
        assert_eq!(printed(&cluster, &arguments), "zone\nAsia/Tokyo\n");
        let mut child = command(&["run", "-f", "csv", "--zookeeper", cluster.zookeeper()])
            .stdin(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(b"SELECT 1 AS one").expect("written");
        drop(stdin);
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(ended(&output).1, "one\n1\n");
        // What changes rows has none to show, and says so where no program reads.
        Client::connect(&daemons[0]).await.rows("CREATE TABLE t (x INT)").await;
        let insert = ["run", "INSERT INTO t VALUES (1), (2)", "--format"];
        let tag = "INSERT 0 2\n";
        assert_eq!(printed(&cluster, &[&insert[..], &["table"]].concat()), tag);
        for format in ["csv", "json"] {
            let (code, out, err) = query(&cluster, &[&insert[..], &[format]].concat());
            assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "", tag), "{format}");
        }
    })
    .await;
}

/// Rows of all kinds of types.
const TYPES: &str = "SELECT x, CAST(x AS numeric(12, 2)) / 4 AS n, x % 2 = 0 AS b, 'n' || x AS t, \
                     DATE '2026-11-28' + CAST(x AS int) AS d, CASE WHEN x > 1 THEN x * 0.5e0 END AS f \
                     FROM generate_series(1, 100000) s(x)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_the_same_in_every_format() {
    bounded(async {
        let (cluster, daemons) = three().await;
        let id = printed(&cluster, &["submit", "--wait", TYPES]);
        let id = id.trim();
        let path = |name: &str| cluster.path(name).display().to_string();
        for format in ["csv", "json", "parquet"] {
            let file = path(&format!("rows.{format}"));
            let out = printed(&cluster, &["result", id, "--format", format, "--output", &file]);
            assert_eq!(out, "");
            let parts = std::fs::read_dir(Path::new(&file).parent().expect("a folder"))
                .expect("a folder")
                .filter(|entry| {
                    let name = entry.as_ref().expect("an entry").file_name();
                    name.to_string_lossy().contains(".part-")
                });
            assert_eq!(parts.count(), 0, "nothing is left behind");
        }
        let client = Client::connect(&daemons[0]).await;
        let read = format!(
            "CREATE EXTERNAL TABLE p STORED AS PARQUET LOCATION '{}'; \
             CREATE EXTERNAL TABLE c STORED AS CSV LOCATION '{}' \
             OPTIONS ('format.has_header' 'true')",
            path("rows.parquet"),
            path("rows.csv")
        );
        client.rows(&read).await;
        let sums = |table: &str| {
            format!(
                "SELECT count(*), sum(x), sum(n), count(*) FILTER (WHERE b::boolean), min(t), max(d), \
                 sum(f), count(f) FROM {table}"
            )
        };
        let expected = client.rows(&sums(&format!("oribi.result('{id}') r"))).await;
        assert_eq!(client.rows(&sums("p")).await, expected);
        let of_csv = client.rows(&sums("c")).await;
        assert_eq!((&of_csv[0][..2], &of_csv[0][3..5]), (&expected[0][..2], &expected[0][3..5]));
        let types = "SELECT data_type, numeric_precision FROM information_schema.columns \
                     WHERE table_name = 'p' ORDER BY ordinal_position";
        let types = client.rows(types).await;
        let names: Vec<&str> = types.iter().map(|row| row[0].as_str()).collect();
        assert_eq!(names, ["bigint", "numeric", "boolean", "text", "date", "double precision"]);
        let json = std::fs::read(path("rows.json")).expect("written");
        let json: Vec<serde_json::Value> = serde_json::from_slice(&json).expect("JSON");
        assert_eq!(json.len(), 100_000);
        let x: i64 = json.iter().filter_map(|row| row["x"].as_i64()).sum();
        assert_eq!(x.to_string(), expected[0][1]);
        assert!(json.iter().any(|row| row["f"].is_null()));
        let (code, _, err) = query(&cluster, &["result", id, "--format", "parquet"]);
        assert_eq!(code, Some(2), "{err}");
        assert!(err.contains("--output"), "{err}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_has_its_place_in_every_format() {
    bounded(async {
        let (cluster, daemons) = three().await;
        let client = Client::connect(&daemons[0]).await;
        let file = cluster.path("rows.parquet").display().to_string();
        let read = format!("CREATE EXTERNAL TABLE p STORED AS PARQUET LOCATION '{file}'");
        // As `json` has it, and as `csv` and a column of the Parquet file have it as text.
        for (expr, json, text) in [
            ("ARRAY[ARRAY[1, 2], ARRAY[3, NULL]]", "[[1,2],[3,null]]", "{{1,2},{3,NULL}}"),
            ("ARRAY[ARRAY['a'], ARRAY[NULL]]", "[[\"a\"],[null]]", "{{a},{NULL}}"),
            ("ARRAY[1.5, NULL]", "[1.5,null]", "{1.5,NULL}"),
            ("ARRAY[]::int[]", "[]", "{}"),
            (
                "interval '1 month 2 days 03:04:05'",
                "\"1 mon 2 days 03:04:05\"",
                "1 mon 2 days 03:04:05",
            ),
            ("11::oid", "11", "11"),
            ("'t'::name", "\"t\"", "t"),
            ("'pg_class'::regclass", "\"pg_class\"", "pg_class"),
            ("'\\xdead'::bytea", "\"\\\\xdead\"", "\\xdead"),
            ("1.50::numeric(5, 2)", "1.50", "1.50"),
            ("'{\"a\": [1]}'::json", "{\"a\": [1]}", "{\"a\": [1]}"),
            ("time '10:11:12.5'", "\"10:11:12.5\"", "10:11:12.5"),
            ("NULL::interval", "null", ""),
        ] {
            let sql = format!("SELECT {expr} AS v, 1 AS one");
            let id = printed(&cluster, &["submit", "--wait", &sql]);
            let rows = |format: &str| printed(&cluster, &["result", id.trim(), "-f", format]);
            assert_eq!(rows("json"), format!("[{{\"v\":{json},\"one\":1}}]\n"), "{expr}");
            assert!(rows("table").contains(&format!(" {text}")), "{expr}: {}", rows("table"));
            let quoted = match text.contains([',', '"']) {
                true => format!("\"{}\"", text.replace('"', "\"\"")),
                false => text.to_owned(),
            };
            assert_eq!(rows("csv"), format!("v,one\n{quoted},1\n"), "{expr}");
            printed(&cluster, &["result", id.trim(), "-f", "parquet", "-o", &file]);
            client.rows(&read).await;
            assert_eq!(client.rows("SELECT v, one FROM p").await, [[text, "1"]], "{expr}");
            client.rows("DROP TABLE p").await;
        }
        // All types of the system's own tables.
        for table in ["pg_class", "pg_type", "pg_index", "pg_proc", "pg_attribute"] {
            let sql = format!("SELECT * FROM {table} LIMIT 3");
            let id = printed(&cluster, &["submit", "--wait", &sql]);
            for format in ["table", "csv", "json", "parquet"] {
                printed(&cluster, &["result", id.trim(), "-f", format, "-o", &file]);
            }
        }
    })
    .await;
}

/// What a program writes to a terminal, from its first moment on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_is_shown_how_far_a_query_is() {
    bounded(async {
        let (cluster, daemons) = three().await;
        let client = Client::connect(&daemons[0]).await;
        client.rows("CREATE TABLE many AS SELECT y FROM generate_series(1, 10000) s(y)").await;
        client.rows("CREATE TABLE t AS SELECT x FROM generate_series(1, 2000000) s(x)").await;
        let slow = "SELECT count(*) FROM t CROSS JOIN many WHERE (t.x * many.y) % 7 = 3";
        let id = printed(&cluster, &["submit", slow]);
        let id = id.trim();
        let program = common::daemon::binary();
        let wait = format!("{} query wait {id}", program.display());
        let log = cluster.path("terminal");
        // From util-linux: gives it a terminal.
        let mut terminal = Command::new("script");
        terminal.args(["--quiet", "--flush", "--return", "--command", &wait]).arg(&log);
        terminal.env("ORIBI_ZOOKEEPER", cluster.zookeeper()).env("TERM", "xterm");
        terminal.stdin(Stdio::null()).stdout(Stdio::null());
        let mut terminal = terminal.spawn().expect("script runs");
        let silent = begin(&cluster, &["wait", id]);
        until("a bar grows", async || {
            let shown = std::fs::read(&log).unwrap_or_default();
            let shown = String::from_utf8_lossy(&shown);
            let percents = shown.split('%').filter_map(|part| {
                part.rsplit_once(']').and_then(|(_, number)| number.trim().parse::<u32>().ok())
            });
            let percents: Vec<u32> = percents.filter(|percent| *percent > 0).collect();
            shown.contains("running on") && shown.contains("=>") && {
                assert!(percents.is_sorted(), "{percents:?}");
                percents.first() != percents.last()
            }
        })
        .await;
        assert_eq!(printed(&cluster, &["cancel", id]), "");
        assert_eq!(terminal.wait().expect("it ends").code(), Some(4));
        // Nothing of it is anywhere else.
        let (code, out, err) = ended(&silent.wait_with_output().expect("it ends"));
        assert_eq!((code, out.as_str()), (Some(4), ""));
        assert_eq!(err, format!("oribi: query {id} was cancelled\n"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exit_codes_of_config_are_those_of_query() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper();
        let _daemon = cluster.start("a");
        let there = cluster.zookeeper();
        for (place, arguments, code, part) in [
            (there, &["get"][..], 0, ""),
            (there, &["get", "statement_timeout"], 1, "is not set"),
            (there, &["rollback", "99"], 1, "version 99"),
            (there, &["set", "statement_timeout", "soon"], 2, "invalid value"),
            (there, &["set", "statement_timeout"], 2, "VALUE"),
            (there, &["fetch"], 2, "fetch"),
            ("127.0.0.1:1/oribi", &["get"], 5, "127.0.0.1:1"),
        ] {
            let arguments = [&["--zookeeper", place], arguments].concat();
            let (ended, _, err) = finish(oribi("config", &arguments));
            assert_eq!(ended, Some(code), "{arguments:?}: {err}");
            assert!(err.contains(part), "{arguments:?}: {err}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exit_codes_tell_scripts_what_has_happened() {
    bounded(async {
        let (cluster, daemons) = three().await;
        let failing = "SELECT 1 / (x - 1) FROM generate_series(1, 3) s(x)";
        for arguments in [&["run", failing][..], &["submit", "--wait", failing]] {
            let (code, _, err) = query(&cluster, arguments);
            assert_eq!(code, Some(1), "{err}");
            assert!(err.contains("division by zero (SQLSTATE 22012)"), "{err}");
        }
        let (code, out, err) = query(&cluster, &["run", "SELEC 1"]);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
        assert!(err.contains("42601"), "{err}");
        let (code, _, err) = query(&cluster, &["wait", "nothing"]);
        assert_eq!(code, Some(1));
        assert!(err.contains("42704"), "{err}");
        for arguments in [
            &["run", ""][..],
            &["run", "SELECT 1", "--set", "x"],
            &["run", "SELECT 1", "--key", ""],
            &["run", "--file", "/nothing/here.sql"],
            &["fetch"],
        ] {
            assert_eq!(query(&cluster, arguments).0, Some(2), "{arguments:?}");
        }
        for (flag, all) in [
            ("--state", "queued, running, succeeded, failed, cancelled"),
            ("--kind", "submitted, interactive, all"),
        ] {
            let (code, _, err) = query(&cluster, &["list", flag, "foo"]);
            assert_eq!(code, Some(2), "{err}");
            assert!(err.contains(all), "{err}");
        }
        let id = printed(&cluster, &["submit", ENDLESS]);
        let id = id.trim();
        let (code, _, err) = query(&cluster, &["wait", id, "--timeout", "100ms"]);
        assert_eq!(code, Some(3), "{err}");
        let (code, _, err) = query(&cluster, &["result", id]);
        assert_eq!(code, Some(1), "{err}");
        let waiting = begin(&cluster, &["wait", id]);
        assert_eq!(printed(&cluster, &["cancel", id]), "");
        assert_eq!(printed(&cluster, &["cancel", id]), "");
        let waited = waiting.wait_with_output().expect("it ends");
        assert_eq!(ended(&waited).0, Some(4));
        // Nobody there.
        let nowhere = format!("{}-nowhere", cluster.zookeeper());
        let (code, _, err) = finish(command(&["list", "--zookeeper", &nowhere]));
        assert_eq!(code, Some(5), "{err}");
        assert!(err.contains("nowhere"), "{err}");
        let (code, _, err) = finish(command(&["list", "--host", "127.0.0.1:1"]));
        assert_eq!(code, Some(5), "{err}");
        assert!(err.contains("127.0.0.1:1"), "{err}");
        drop(daemons);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupt_ends_what_was_run_and_leaves_what_is_waited_for() {
    bounded(async {
        let (cluster, daemons) = three().await;
        let client = Client::connect(&daemons[0]).await;
        let interrupt = |child: &Child| {
            let pid = i32::try_from(child.id()).expect("a process id");
            let pid = rustix::process::Pid::from_raw(pid).expect("a process id");
            rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("signalled");
        };
        let count = |sql: &str, state: &str| {
            format!(
                "SELECT count(*) FROM system.queries \
                 WHERE kind = 'submitted' AND state = '{state}' AND sql = '{sql}'"
            )
        };
        let running = begin(&cluster, &["run", ENDLESS]);
        let sql = count(ENDLESS, "running");
        until("it runs", async || client.value(&sql).await == "1").await;
        interrupt(&running);
        let (code, _, err) = ended(&running.wait_with_output().expect("it ends"));
        assert_eq!(code, Some(130), "{err}");
        assert_eq!(client.value(&count(ENDLESS, "cancelled")).await, "1");
        let other = format!("{ENDLESS} AND x > 1");
        let id = printed(&cluster, &["submit", &other]);
        let waiting = begin(&cluster, &["wait", id.trim()]);
        until("it asks a daemon", async || {
            let mut asking = 0;
            for daemon in &daemons {
                let sql = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' \
                           AND application_name = 'oribi query'";
                let client = Client::connect(daemon).await;
                asking += client.value(sql).await.parse::<u32>().expect("a number");
            }
            asking > 0
        })
        .await;
        interrupt(&waiting);
        assert_eq!(ended(&waiting.wait_with_output().expect("it ends")).0, Some(130));
        assert_eq!(client.value(&count(&other, "cancelled")).await, "0");
        assert_eq!(printed(&cluster, &["cancel", id.trim()]), "");
    })
    .await;
}

/// Which daemon a program waits on.
async fn asked(daemons: &[Daemon]) -> usize {
    let mut found = None;
    until("it asks a daemon", async || {
        for (at, daemon) in daemons.iter().enumerate() {
            let Ok(client) = Client::try_connect(daemon).await else { continue };
            let sql = "SELECT count(*) FROM pg_stat_activity \
                       WHERE application_name = 'oribi query'";
            if client.value(sql).await != "0" {
                found = Some(at);
            }
        }
        found.is_some()
    })
    .await;
    found.expect("found")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_outlives_the_daemon_that_is_asked() {
    bounded(async {
        let (cluster, daemons) = three().await;
        let id = printed(&cluster, &["submit", ENDLESS]);
        let id = id.trim();
        let waiting = begin(&cluster, &["wait", id]);
        let at = asked(&daemons).await;
        daemons[at].kill();
        let others: Vec<Daemon> = daemons
            .into_iter()
            .enumerate()
            .filter(|(other, _)| *other != at)
            .map(|(_, daemon)| daemon)
            .collect();
        asked(&others).await;
        assert_eq!(printed(&cluster, &["cancel", id]), "");
        let (code, _, err) = ended(&waiting.wait_with_output().expect("it ends"));
        assert_eq!(code, Some(4), "{err}");
        // One of its addresses is dead.
        let (dead, alive) = ("127.0.0.1:1", others[0].postgres().to_string());
        let hosts = format!("{dead},{alive}");
        let (code, out, err) =
            finish(command(&["run", "-f", "csv", "SELECT 1 AS x", "--host", &hosts]));
        assert_eq!((code, out.as_str()), (Some(0), "x\n1\n"), "{err}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_log_in_with_their_passwords() {
    bounded(async {
        let cluster = Cluster::with_warehouse().with(
            "CONNECTIONS_RULES",
            "host all oribi 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256",
        );
        let daemon = cluster.start("a");
        let client = Client::connect(&daemon).await;
        client.rows("CREATE ROLE ann LOGIN PASSWORD 'pa:ss'").await;
        let as_ann = |variables: &[(&str, &str)]| {
            let mut command =
                command(&["run", "-U", "ann", "-f", "csv", "SELECT current_user AS me"]);
            command.env("ORIBI_ZOOKEEPER", cluster.zookeeper());
            command.env("HOME", cluster.path("nobody")).envs(variables.iter().copied());
            finish(command)
        };
        let (code, out, err) = as_ann(&[("PGPASSWORD", "pa:ss")]);
        assert_eq!((code, out.as_str()), (Some(0), "me\nann\n"), "{err}");
        let (code, _, err) = as_ann(&[("PGPASSWORD", "other")]);
        assert_eq!(code, Some(1));
        assert!(err.contains("28P01"), "{err}");
        assert_eq!(as_ann(&[]).0, Some(1));
        let file = cluster.path("passwords");
        std::fs::write(&file, "*:*:*:ann:pa\\:ss\n").expect("a file");
        let passwords = file.display().to_string();
        let mode = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(&file, mode(0o600)).expect("changed");
        let (code, out, err) = as_ann(&[("PGPASSFILE", &passwords)]);
        assert_eq!((code, out.as_str()), (Some(0), "me\nann\n"), "{err}");
        std::fs::set_permissions(&file, mode(0o644)).expect("changed");
        let (code, _, err) = as_ann(&[("PGPASSFILE", &passwords)]);
        assert_eq!(code, Some(1));
        assert!(err.contains("chmod 600"), "{err}");
    })
    .await;
}
