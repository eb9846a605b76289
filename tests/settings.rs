//! Live settings on whole daemons: who may set what, for whom it holds and when, what becomes of bad
//! values, and the way back.

mod common;

#[path = "cluster/support.rs"]
mod support;

use std::process::{Command, Output};

use common::zookeeper;
use support::*;

const TIMEOUT: &str = "SHOW statement_timeout";

/// `oribi config`, which knows nothing but the ensemble's address.
fn config(cluster: &Cluster, arguments: &[&str]) -> Output {
    config_of(cluster.zookeeper(), arguments)
}

fn config_of(ensemble: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(common::daemon::binary());
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ORIBI_"))
    {
        command.env_remove(name);
    }
    command.args(["config", "--zookeeper", ensemble]).args(arguments);
    command.output().expect("it starts")
}

#[track_caller]
fn prints(cluster: &Cluster, arguments: &[&str]) -> String {
    let output = config(cluster, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

async fn two() -> (Cluster, [Daemon; 2], [Client; 2]) {
    let cluster = Cluster::on_shared_zookeeper();
    let [a, b] = cluster.start_all(["a", "b"]);
    let clients = [Client::connect(&a).await, Client::connect(&b).await];
    for client in &clients {
        all_ready(client, &["a", "b"]).await;
    }
    (cluster, [a, b], clients)
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_no_cluster_there_are_no_settings() {
    let (cluster, _daemons, _clients) = two().await;
    let (ensemble, _) = cluster.zookeeper().split_once('/').expect("a chroot");
    // One that nobody has.
    let mistyped = format!("{ensemble}/test-{}", uuid::Uuid::new_v4().simple());
    for arguments in [
        &["get"][..],
        &["get", "work_mem"],
        &["history"],
        &["applied"],
        &["set", "statement_timeout", "5s"],
        &["reset", "--all"],
        &["rollback", "0"],
    ] {
        let output = config_of(&mistyped, arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(5), "{arguments:?}: {errors}");
        assert!(errors.contains("there is no cluster"), "{arguments:?}: {errors}");
    }
    // Nothing was made either.
    let (_, chroot) = mistyped.split_once('/').expect("a chroot");
    let listed = zookeeper::shared().cli(&["ls /"]);
    assert!(!listed.contains(chroot), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_settings_may_be_there_before_the_first_daemon() {
    let cluster = Cluster::on_shared_zookeeper();
    assert_eq!(prints(&cluster, &["set", "--new", "TimeZone", "Europe/Vienna"]), "version 1");
    // From now on it is there.
    assert_eq!(prints(&cluster, &["set", "statement_timeout", "5s"]), "version 2");
    assert_eq!(prints(&cluster, &["get", "timezone"]), "Europe/Vienna");
    let daemon = cluster.start("a");
    let client = Client::connect(&daemon).await;
    assert_eq!(client.value("SHOW TimeZone").await, "Europe/Vienna");
    assert_eq!(client.value(TIMEOUT).await, "5s");
    let set = prints(&cluster, &["set", "--new", "statement_timeout", "6s", "--json"]);
    assert_eq!(set, "{\"version\":3}");
    // For scripts.
    let json = |arguments: &[&str]| -> serde_json::Value {
        serde_json::from_str(&prints(&cluster, arguments)).expect("JSON")
    };
    let set = |name: &str, value: &str| serde_json::json!({"name": name, "value": value, "refused": null});
    let timeout = set("statement_timeout", "6s");
    assert_eq!(json(&["get", "statement_timeout", "--json"]), timeout);
    let zone = set("timezone", "Europe/Vienna");
    assert_eq!(json(&["get", "--json"]), serde_json::json!([timeout, zone]));
    let last = &json(&["history", "--json"])[2];
    assert_eq!(
        (&last["version"], &last["before"], &last["value"]),
        (&3.into(), &"5s".into(), &"6s".into())
    );
    let applied = &json(&["applied", "--json"])[0];
    assert_eq!((&applied["daemon"], &applied["refused"]), (&"a".into(), &serde_json::json!({})));
}

/// Waits until all daemons run a version, as one of them sees it.
async fn applied(client: &Client, version: u64) {
    let sql = "SELECT daemon, version, current FROM system.settings_applied ORDER BY 1";
    let expected = ["a", "b"].map(|id| vec![id.to_owned(), version.to_string(), "t".to_owned()]);
    until(&format!("version {version} everywhere"), async || client.rows(sql).await == expected)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_holds_for_all_sessions_without_one_of_their_own() {
    let (_cluster, [_a, b], [on_a, on_b]) = two().await;
    let own = Client::connect(&b).await;
    own.rows("SET statement_timeout = '7s'").await;
    let in_block = Client::connect(&b).await;
    in_block.rows("BEGIN").await;
    on_b.rows("CREATE ROLE ann LOGIN").await;
    on_b.rows("ALTER ROLE ann SET statement_timeout = '5s'").await;
    on_b.rows("CREATE DATABASE other").await;
    on_b.rows("ALTER DATABASE other SET statement_timeout = '6s'").await;
    let of_role = Client::connect_as(&b, "ann").await;

    on_a.rows("ALTER SYSTEM SET statement_timeout TO '90000'").await;
    assert_eq!(on_a.value(TIMEOUT).await, "90s", "the session that sets it sees it at once");
    applied(&on_b, 1).await;
    for (client, expected) in [(&on_b, "90s"), (&in_block, "90s"), (&own, "7s"), (&of_role, "5s")] {
        assert_eq!(client.value(TIMEOUT).await, expected);
    }
    in_block.rows("ROLLBACK").await;
    assert_eq!(in_block.value(TIMEOUT).await, "90s");
    own.rows("RESET statement_timeout").await;
    assert_eq!(own.value(TIMEOUT).await, "90s");
    let fresh = Client::connect(&b).await;
    let source = "SELECT setting, source FROM pg_settings WHERE name = 'statement_timeout'";
    assert_eq!(fresh.rows(source).await, [["90000", "configuration file"]]);
    assert_eq!(of_role.rows(source).await, [["5000", "user"]]);
    let there = b.connect_to("other").await;
    let row = there.query_one(source, &[]).await.expect("a row");
    assert_eq!((row.get::<_, &str>(0), row.get::<_, &str>(1)), ("6000", "database"));
    let both = "SELECT count(*) FROM pg_db_role_setting";
    assert_eq!(on_a.value(both).await, "2");
    on_a.rows("ALTER DATABASE other RESET ALL").await;
    assert_eq!(on_a.value(both).await, "1");

    on_b.rows("ALTER SYSTEM RESET statement_timeout").await;
    applied(&on_a, 2).await;
    assert_eq!(on_a.value(TIMEOUT).await, "0");
    let shown = "SELECT key, value, origin, version FROM system.settings \
                 WHERE key = 'TimeZone' AND daemon = 'a'";
    on_b.rows("ALTER SYSTEM SET TimeZone = 'Europe/Vienna'").await;
    applied(&on_a, 3).await;
    let expected = [["TimeZone", "Europe/Vienna", "/settings/timezone", "3"]];
    assert_eq!(on_a.rows(shown).await, expected);
    on_b.rows("ALTER SYSTEM RESET ALL").await;
    applied(&on_a, 4).await;
    assert_eq!(on_a.value("SHOW TimeZone").await, "UTC");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_can_be_asked_in_place_of_the_store() {
    let cluster = Cluster::embedded();
    let daemon = cluster.start("a");
    let address = daemon.postgres().to_string();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(common::daemon::binary());
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("ORIBI_") || name.starts_with("PG") {
                command.env_remove(name);
            }
        }
        let output = command.arg("config").args(arguments).args(["--host", &address]).output();
        let output = output.expect("it starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let prints = |arguments: &[&str]| {
        let (code, out, err) = run(arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {err}");
        out
    };
    assert_eq!(prints(&["set", "TimeZone", "Europe/Vienna"]), "version 1");
    assert_eq!(prints(&["set", "log.filter", "warn", "--json"]), "{\"version\":2}");
    assert_eq!(prints(&["get", "timezone"]), "Europe/Vienna");
    let json = |arguments: &[&str]| -> serde_json::Value {
        serde_json::from_str(&prints(arguments)).expect("JSON")
    };
    let set = |name: &str, value: &str| serde_json::json!({"name": name, "value": value, "refused": null});
    let both = [set("log.filter", "warn"), set("timezone", "Europe/Vienna")];
    assert_eq!(json(&["get", "--json"]), serde_json::json!(both));
    let last = &json(&["history", "--json"])[1];
    assert_eq!((&last["version"], &last["value"]), (&2.into(), &"warn".into()));
    let at = last["at"].as_str().expect("a moment");
    assert!(chrono::DateTime::parse_from_rfc3339(at).is_ok() && at.ends_with('Z'), "{at}");
    assert_eq!(prints(&["reset", "log.filter"]), "version 3");
    assert_eq!(prints(&["rollback", "2"]), "version 4");
    assert_eq!(prints(&["get", "log.filter"]), "warn");
    let applied = &json(&["applied", "--json"])[0];
    assert_eq!((&applied["daemon"], &applied["refused"]), (&"a".into(), &serde_json::json!({})));
    assert_eq!(prints(&["reset", "--all"]), "version 5");
    for (arguments, code, part) in [
        (&["get", "timezone"][..], 1, "is not set"),
        (&["get", "nothing"], 2, "nothing"),
        (&["set", "statement_timeout", "soon"], 2, "22023"),
        (&["set", "nothing", "1"], 2, "42704"),
        (&["set", "engine.threads", "2"], 2, "55P02"),
        (&["reset", "nothing"], 2, "42704"),
        (&["rollback", "99"], 1, "99"),
        (&["set", "a'b", "1"], 2, "a'b"),
        (&["set", "--new", "TimeZone", "UTC"], 2, "--new"),
        (&["get", "--zookeeper", "z:1"], 2, "cannot be used with"),
        (&["get", "-U", "nobody"], 1, "nobody"),
    ] {
        let (found, out, err) = run(arguments);
        assert_eq!((found, out.as_str()), (Some(code), ""), "{arguments:?}: {err}");
        assert!(err.contains(part), "{arguments:?}: {err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_set_is_refused() {
    let cluster = Cluster::embedded();
    let daemon = cluster.start("a");
    let client = Client::connect(&daemon).await;
    client.rows("CREATE ROLE ann LOGIN").await;
    for (sql, code) in [
        ("ALTER SYSTEM SET statement_timeout = 'soon'", "22023"),
        ("ALTER SYSTEM SET nothing = 1", "42704"),
        ("ALTER SYSTEM SET oribi.distributon = 'off'", "42704"),
        ("ALTER SYSTEM SET max_connections = 5", "55P02"),
        ("ALTER SYSTEM SET engine.threads = 5", "55P02"),
        ("ALTER SYSTEM RESET engine.threads", "55P02"),
        ("ALTER SYSTEM SET server_version = '16'", "55P02"),
        ("ALTER SYSTEM SET role = 'ann'", "55P02"),
        ("ALTER SYSTEM SET log.filter = 'oribi=loud'", "22023"),
        ("ALTER SYSTEM ROLLBACK TO VERSION 7", "22023"),
        ("ALTER SYSTEM", "42601"),
        ("BEGIN; ALTER SYSTEM SET statement_timeout = '5s'", "0A000"),
        ("ROLLBACK", ""),
        ("ALTER DATABASE oribi SET statement_timeout = 'soon'", "22023"),
    ] {
        assert_eq!(client.outcome(sql).await, code, "{sql}");
    }
    let refused = client.refused("ALTER SYSTEM SET max_connections = 5").await;
    assert!(refused.hint().is_some_and(|hint| hint.contains("connections.max")), "{refused:?}");
    let refused = client.refused("ALTER SYSTEM SET query.statement_timeout = '5s'").await;
    assert!(refused.hint().is_some_and(|hint| hint.contains("\"statement_timeout\"")));
    let ann = Client::connect_as(&daemon, "ann").await;
    for sql in [
        "ALTER SYSTEM SET statement_timeout = '5s'",
        "ALTER DATABASE oribi SET statement_timeout = '5s'",
        "SELECT * FROM system.settings_history",
    ] {
        assert_eq!(ann.outcome(sql).await, "42501", "{sql}");
    }
    assert_eq!(client.value("SELECT count(*) FROM system.settings_history").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_the_configuration_change_live_and_last() {
    let cluster = Cluster::embedded();
    let daemon = cluster.start("a");
    let client = Client::connect(&daemon).await;
    let applied = async |version: u64| {
        let sql = "SELECT version FROM system.settings_applied";
        until("it is in force", async || client.value(sql).await == version.to_string()).await;
    };
    client.rows("ALTER SYSTEM SET log.filter = 'oribi=error'").await;
    applied(1).await;
    client.rows("ALTER SYSTEM SET statement_timeout = '1h'").await;
    applied(2).await;
    client.rows("ALTER SYSTEM SET log.filter = 'oribi=info,warn'").await;
    applied(3).await;
    client.rows("ALTER SYSTEM RESET statement_timeout").await;
    client.rows("ALTER SYSTEM SET distribution.min_bytes = '1 MiB'").await;
    applied(5).await;
    // Each version leaves a line at the level "info".
    let log = daemon.log();
    let logged = |version: u64| log.contains(&format!("\"live settings\",\"version\":{version}}}"));
    assert_eq!([1, 2, 3, 4, 5].map(logged), [true, false, false, true, true], "{log}");
    let origins = "SELECT key, value, origin, live FROM system.settings \
                   WHERE origin LIKE '/settings/%' ORDER BY key";
    let expected = [
        ["distribution.min_bytes", "1.0 MiB", "/settings/distribution.min_bytes", "t"],
        ["log.filter", "oribi=info,warn", "/settings/log.filter", "t"],
    ];
    assert_eq!(client.rows(origins).await, expected);
    daemon.terminate();
    daemon.wait(PATIENCE);
    let daemon = cluster.start("a");
    let client = Client::connect(&daemon).await;
    assert_eq!(client.rows(origins).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn submitted_queries_begin_as_sessions_do() {
    let cluster = Cluster::embedded();
    let daemon = cluster.start("a");
    let client = Client::connect(&daemon).await;
    let settings = ["statement_timeout", "TimeZone", "search_path", "lock_timeout", "is_superuser"];
    let shown = settings.map(|name| format!("current_setting('{name}')")).join(", ");
    client.rows("CREATE ROLE ann LOGIN").await;
    client.rows("ALTER SYSTEM SET statement_timeout = '1h'").await;
    for name in ["TimeZone = 'Europe/Vienna'", "search_path = 'a'", "lock_timeout = '1s'"] {
        client.rows(&format!("ALTER SYSTEM SET {name}")).await;
    }
    client.rows("ALTER DATABASE oribi SET search_path = 'b'").await;
    client.rows("ALTER DATABASE oribi SET lock_timeout = '2s'").await;
    client.rows("ALTER ROLE ann SET lock_timeout = '3s'").await;
    let ann = Client::connect_as(&daemon, "ann").await;
    let options = r#"{"settings": {"statement_timeout": "2h"}}"#;
    let submit = format!("SELECT oribi.submit($$SELECT {shown}$$, '{options}')");
    let id = ann.value(&submit).await;
    assert_eq!(ann.value(&format!("SELECT oribi.wait('{id}', '60s')")).await, "succeeded");
    let own = ann.rows(&format!("SELECT {shown}")).await;
    assert_eq!(own, [["1h", "Europe/Vienna", "b", "3s", "off"]]);
    let result = ann.rows(&format!("SELECT * FROM oribi.result('{id}')")).await;
    assert_eq!(result, [["2h", "Europe/Vienna", "b", "3s", "off"]]);
}

/// What is kept, and how much at once.
#[tokio::test(flavor = "multi_thread")]
async fn bounds_change_live() {
    let cluster = Cluster::embedded();
    let daemon = cluster.start("a");
    let client = Client::connect(&daemon).await;
    let set = async |name: &str, value: &str| {
        let version = "SELECT max(version) FROM system.settings_history";
        client.rows(&format!("ALTER SYSTEM SET {name} = '{value}'")).await;
        let version = client.value(version).await;
        let applied = "SELECT version FROM system.settings_applied";
        until("it is in force", async || client.value(applied).await == version).await;
    };
    // Slow statements, and their profiles.
    set("history.slow", "1us").await;
    client.rows("SELECT 4711").await;
    until("the log has it", async || {
        daemon.log().lines().any(|line| line.contains("oribi::slow") && line.contains("4711"))
    })
    .await;
    // Whether a statement is in the history, and whether with its profile.
    let kept = async |number: u32| {
        let sql = format!("SELECT count(*) FROM generate_series(1, {number})");
        client.rows(&sql).await;
        let kept = format!(
            "SELECT oribi.profile(id) IS NOT NULL FROM system.query_history WHERE sql = '{sql}'"
        );
        client.value(&kept).await
    };
    set("history.profile", "1us").await;
    assert_eq!(kept(4712).await, "t");
    set("history.profile", "none").await;
    assert_eq!(kept(4713).await, "f");
    set("history.size", "0B").await;
    assert_eq!(kept(4714).await, "");
    // What was there before goes as well.
    let all = "SELECT count(*) FROM system.query_history";
    until("nothing is kept", async || client.value(all).await == "0").await;
    let room = "SELECT bytes_limit FROM system.caches WHERE name = 'parquet_footers'";
    set("engine.metadata_cache", "1MiB").await;
    assert_eq!(client.value(room).await, "524288");
    // Submitted queries.
    let submit = format!("SELECT oribi.submit($${ENDLESS}$$)");
    let running = "SELECT count(*) FROM system.queries \
                   WHERE kind = 'submitted' AND state = 'running'";
    set("submitted.running", "1").await;
    set("submitted.queue", "2").await;
    let mut ids = vec![client.value(&submit).await, client.value(&submit).await];
    assert_eq!(client.outcome(&submit).await, "53400");
    until("one runs", async || client.value(running).await == "1").await;
    set("submitted.queue", "3").await;
    ids.push(client.value(&submit).await);
    set("submitted.running", "3").await;
    until("all run", async || client.value(running).await == "3").await;
    for id in &ids {
        client.rows(&format!("SELECT oribi.cancel('{id}')")).await;
    }
    set("submitted.history", "1").await;
    let there = "SELECT count(*) FROM system.queries WHERE kind = 'submitted'";
    until("the newest is left", async || client.value(there).await == "1").await;
    // Upkeep.
    client.rows("CREATE TABLE t (n INT)").await;
    for n in 0..6 {
        client.rows(&format!("INSERT INTO t VALUES ({n})")).await;
    }
    let files = "SELECT files FROM system.tables WHERE name = 't'";
    assert_eq!(client.value(files).await, "6");
    set("maintenance.interval", "10ms").await;
    until("it has one file", async || client.value(files).await == "1").await;
    for (name, value) in [("submitted.queue", "0"), ("submitted.keep", "soon")] {
        let sql = format!("ALTER SYSTEM SET {name} = '{value}'");
        assert_eq!(client.outcome(&sql).await, "22023", "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_value_in_its_node_is_refused_by_every_daemon() {
    let (cluster, [a, b], [on_a, on_b]) = two().await;
    let (_, chroot) = cluster.zookeeper().split_once('/').expect("a chroot");
    let cli = |command: &str, rest: &str| {
        zookeeper::shared().cli(&[&format!("{command} /{chroot}/settings/{rest}")]);
    };
    cli("create", "statement_timeout 30s");
    applied(&on_a, 1).await;
    for client in [&on_a, &on_b] {
        assert_eq!(client.value(TIMEOUT).await, "30s");
    }
    cli("set", "statement_timeout soon");
    cli("create", "engine.threads 3");
    for (client, daemon, name) in [(&on_a, &a, 'a'), (&on_b, &b, 'b')] {
        let error = format!(
            "SELECT key, value, error FROM system.settings \
             WHERE error IS NOT NULL AND daemon = '{name}' ORDER BY 1"
        );
        until("both are refused", async || client.rows(&error).await.len() == 2).await;
        let rows = client.rows(&error).await;
        assert_eq!(
            (rows[0][0].as_str(), rows[1][0].as_str()),
            ("engine.threads", "statement_timeout")
        );
        assert!(rows[0][2].contains("restart"), "{rows:?}");
        assert!(rows[1][1] == "30s" && rows[1][2].contains("'soon'"), "{rows:?}");
        assert_eq!(client.value(TIMEOUT).await, "30s");
        until("the log says so", async || daemon.log().contains("\"value\":\"soon\"")).await;
    }
    applied(&on_a, 1).await;
    let by_daemon = "SELECT count(*) FROM system.settings_applied WHERE error LIKE '%soon%'";
    until("both say so", async || on_a.value(by_daemon).await == "2").await;
    // A daemon that starts meanwhile runs what the others run.
    let c = cluster.start("c");
    assert_eq!(Client::connect(&c).await.value(TIMEOUT).await, "30s");
    drop(c);
    // What is refused can be taken back by name, and by then there is nothing more to take back.
    cli("create", "no.such.setting 3");
    cli("create", "Another 4");
    let refused = "SELECT count(DISTINCT key) FROM system.settings WHERE error IS NOT NULL";
    until("all are refused", async || on_a.value(refused).await == "4").await;
    assert_eq!(on_a.outcome("ALTER SYSTEM SET no.such.setting = 4").await, "42704");
    let shown = config(&cluster, &["get", "another"]);
    assert_eq!(shown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&shown.stderr).contains("'4' is not in force"), "{shown:?}");
    assert_eq!(prints(&cluster, &["reset", "another"]), "version 1");
    for (name, code) in [("no.such.setting", "42704"), ("engine.threads", "55P02")] {
        let reset = format!("ALTER SYSTEM RESET {name}");
        until("it is refused here as well", async || on_b.value(refused).await != "0").await;
        assert_eq!(on_a.outcome(&reset).await, "", "{name}");
        assert_eq!(on_a.outcome(&reset).await, code, "{name}");
    }
    let names = zookeeper::shared().cli(&[&format!("ls /{chroot}/settings")]);
    assert!(names.contains("[statement_timeout]"), "{names}");
    cli("set", "statement_timeout \"40 s\"");
    until("the good value", async || on_b.value(TIMEOUT).await == "40s").await;
    cli("delete", "statement_timeout");
    until("none", async || on_a.value(TIMEOUT).await == "0").await;
    let history = "SELECT version, by, name, before, value FROM system.settings_history ORDER BY 1";
    assert_eq!(
        on_a.rows(history).await,
        [
            ["1", "zookeeper", "statement_timeout", "", "30s"],
            ["2", "zookeeper", "statement_timeout", "30s", "40s"],
            ["3", "zookeeper", "statement_timeout", "40s", ""],
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_a_way_back() {
    let (cluster, _daemons, [on_a, on_b]) = two().await;
    assert_eq!(prints(&cluster, &["set", "statement_timeout", "10 s"]), "version 1");
    assert_eq!(prints(&cluster, &["set", "TimeZone", "Europe/Vienna"]), "version 2");
    assert_eq!(prints(&cluster, &["set", "TimeZone", "Europe/Vienna"]), "version 2");
    applied(&on_a, 2).await;
    assert_eq!(on_a.value("SHOW TimeZone").await, "Europe/Vienna");
    assert_eq!(prints(&cluster, &["get", "timezone"]), "Europe/Vienna");
    on_b.rows("ALTER SYSTEM SET statement_timeout = '20s'").await;
    on_b.rows("ALTER SYSTEM RESET ALL").await;
    assert_eq!(prints(&cluster, &["rollback", "2"]), "version 5");
    applied(&on_a, 5).await;
    assert_eq!(on_b.value(TIMEOUT).await, "10s");
    on_b.rows("ALTER SYSTEM ROLLBACK TO VERSION 3").await;
    assert_eq!(prints(&cluster, &["get", "statement_timeout"]), "20s");
    on_a.rows("ALTER SYSTEM ROLLBACK TO VERSION 0").await;
    applied(&on_b, 7).await;
    assert_eq!(on_b.value(TIMEOUT).await, "0");
    let history = prints(&cluster, &["history"]);
    assert!(history.contains("oribi config") && history.contains("(10 rows)"), "{history}");
    let running = prints(&cluster, &["applied"]);
    assert_eq!(running.matches("current").count(), 2, "{running}");
    let store = Store::of(&cluster).await;
    assert!(store.children("/settings").await.is_empty());
    // A number below zero is no flag.
    assert_eq!(prints(&cluster, &["set", "extra_float_digits", "-1"]), "version 8");
    for (arguments, code, part) in [
        (&["set", "statement_timeout", "soon"][..], 2, "invalid value"),
        (&["set", "extra_float_digits", "-99"][..], 2, "invalid value"),
        (&["set", "engine.threads", "2"][..], 2, "engine.threads"),
        (&["get", "nothing"][..], 2, "unrecognized"),
        (&["rollback", "99"][..], 1, "version 99"),
    ] {
        let output = config(&cluster, arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        assert!(errors.contains(part), "{arguments:?}: {errors}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_has_spoilt_is_written_anew() {
    let (cluster, [a, _b], [on_a, on_b]) = two().await;
    let (_, chroot) = cluster.zookeeper().split_once('/').expect("a chroot");
    on_a.rows("ALTER SYSTEM SET statement_timeout = '30s'").await;
    applied(&on_a, 1).await;
    zookeeper::shared().cli(&[&format!("set /{chroot}/settings garbage")]);
    // What was in force stays, and a daemon starts all the same.
    until("nobody changes settings now", async || {
        on_a.outcome("ALTER SYSTEM SET statement_timeout = '40s'").await == "XX001"
    })
    .await;
    assert_eq!(on_b.value(TIMEOUT).await, "30s");
    let c = cluster.start("c");
    let on_c = Client::connect(&c).await;
    assert_eq!(on_c.value(TIMEOUT).await, "0");
    on_c.rows("ALTER SYSTEM RESET ALL").await;
    until("all have it", async || on_b.value(TIMEOUT).await == "0").await;
    on_b.rows("ALTER SYSTEM SET statement_timeout = '50s'").await;
    until("settings change again", async || on_c.value(TIMEOUT).await == "50s").await;
    drop(a);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_set_at_once_do_not_lose_each_other() {
    const NAMES: [&str; 6] = [
        "lock_timeout",
        "extra_float_digits",
        "datafusion.execution.batch_size",
        "datafusion.execution.target_partitions",
        "datafusion.execution.planning_concurrency",
        "datafusion.optimizer.max_passes",
    ];
    let (_cluster, [a, b], [on_a, _]) = two().await;
    let setting = NAMES.into_iter().enumerate().map(|(n, name)| {
        let daemon = if n % 2 == 0 { &a } else { &b };
        async move {
            let client = Client::connect(daemon).await;
            client.outcome(&format!("ALTER SYSTEM SET {name} = 3")).await
        }
    });
    let outcomes = futures::future::join_all(setting).await;
    assert!(outcomes.iter().all(String::is_empty), "{outcomes:?}");
    let count = "SELECT count(*) FROM system.settings \
                 WHERE origin LIKE '/settings/%' AND daemon = 'a'";
    applied(&on_a, 6).await;
    assert_eq!(on_a.value(count).await, "6");
    // One setting: each is told what became of its own.
    let setting = (0..8).map(|n| {
        let daemon = if n % 2 == 0 { &a } else { &b };
        async move {
            let client = Client::connect(daemon).await;
            client.outcome(&format!("ALTER SYSTEM SET statement_timeout = '{n}min'")).await
        }
    });
    let outcomes = futures::future::join_all(setting).await;
    assert!(outcomes.iter().all(|code| matches!(code.as_str(), "" | "40001")), "{outcomes:?}");
    let done = outcomes.iter().filter(|code| code.is_empty()).count();
    let versions = "SELECT count(*) FROM system.settings_history";
    until("the history tells of each", async || {
        on_a.value(versions).await == (6 + done).to_string()
    })
    .await;
}
