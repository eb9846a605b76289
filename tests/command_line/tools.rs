//! `oribi doctor`, `cluster`, `backup`, `restore`, `help`, `completions` and `man`.

use serde_json::Value;

use super::*;
use crate::common::daemon::Options;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The check of a name, or of several of them the worst.
fn status(found: &Value, name: &str) -> (&'static str, String) {
    let checks = found["checks"].as_array().expect("checks");
    let of_name: Vec<_> = checks.iter().filter(|check| check["name"] == name).collect();
    let worst = ["fail", "warn", "ok"]
        .into_iter()
        .find(|status| of_name.iter().any(|check| check["status"] == *status));
    (worst.unwrap_or("missing"), format!("{of_name:?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_says_what_is_wrong_and_how_to_mend_it() {
    bounded(async {
        let cluster = Cluster::with_warehouse();
        let daemon = cluster.start("a");
        let warehouse = cluster.path("warehouse").display().to_string();
        let busy = daemon.postgres().to_string();
        let doctor = |arguments: &[&str], variables: &[(&str, &str)]| {
            let mut command = oribi("doctor", &[&["--json"][..], arguments].concat());
            for key in ["POSTGRES", "PEER", "WEB"] {
                command.env(format!("ORIBI_{key}"), "127.0.0.1:0");
            }
            command.env("ORIBI_WAREHOUSE", &warehouse).envs(variables.iter().copied());
            finish(command)
        };
        let own = cluster.path("own").display().to_string();
        let place = ["--zookeeper", cluster.zookeeper(), "--data-dir", &own];
        let (code, out, err) = doctor(&place, &[]);
        let found = json(&out);
        assert_eq!(code, Some(0), "{found:#} {err}");
        for name in
            ["configuration", "data_dir", "warehouse", "chroot", "clocks", "daemons", "memory"]
        {
            let (status, all) = status(&found, name);
            assert_eq!(status, "ok", "{all}");
        }
        // One member is a warning, and so it is told; all that is made is removed.
        assert_eq!(status(&found, "ensemble").0, "warn", "{found:#}");
        assert!(!Path::new(&own).exists());
        // The running daemon's own port and directory.
        let used = daemon.data_dir().display().to_string();
        let same = ["--zookeeper", cluster.zookeeper(), "--data-dir", &used];
        let (code, out, _) = doctor(&same, &[("ORIBI_POSTGRES", busy.as_str())]);
        let found = json(&out);
        assert_eq!(code, Some(0), "{found:#}");
        assert!(status(&found, "port postgres").1.contains("running daemon's"), "{found:#}");
        // What a daemon is started with is looked at, flags as well.
        let (code, out, _) = doctor(&[&place[..], &["--postgres", &busy]].concat(), &[]);
        let (port, all) = status(&json(&out), "port postgres");
        assert!(code == Some(1) && port == "fail" && all.contains("is used by"), "{all}");
        let (_, out, _) = doctor(&[&place[..], &["--warehouse", "/proc/nowhere"]].concat(), &[]);
        assert_eq!(status(&json(&out), "warehouse").0, "fail", "{out}");
        // What keeps a daemon from running.
        let certificate = cluster.path("bad.pem").display().to_string();
        std::fs::write(&certificate, "no certificate").expect("a file");
        let unknown = cluster.path("unknown.toml").display().to_string();
        std::fs::write(&unknown, "nothing = 1\n").expect("a file");
        for (variables, name, part) in [
            (&[("ORIBI_POSTGRES", busy.as_str())][..], "port postgres", "is used by"),
            (&[("ORIBI_ZOOKEEPER", "127.0.0.1:1")], "member 127.0.0.1:1", "refused"),
            (&[("ORIBI_WAREHOUSE", "/proc/nowhere")], "warehouse", "cannot be written"),
            (&[("ORIBI_CONFIG", unknown.as_str())], "configuration", "nothing"),
            (&[("ORIBI_NOTHING", "1")], "configuration", "ORIBI_NOTHING"),
            (
                &[("ORIBI_PEERS_CERTIFICATE", certificate.as_str())],
                "certificate peers.certificate",
                "bad.pem",
            ),
            (&[("ORIBI_WEB", "192.0.2.1:1")], "port web", "no address of this machine"),
        ] {
            let (code, out, err) = doctor(&["--data-dir", &own], variables);
            assert_eq!(code, Some(1), "{variables:?}: {out} {err}");
            let found = json(&out);
            assert_eq!(found["worst"], "fail");
            let (status, all) = status(&found, name);
            assert_eq!(status, "fail", "{variables:?}: {found:#}");
            assert!(all.contains(part) && all.contains("mend"), "{variables:?}: {all}");
        }
        let mut command = oribi("doctor", &["--data-dir", &own]);
        command.env("ORIBI_POSTGRES", busy.as_str());
        let (code, out, _) = finish(command);
        assert_eq!(code, Some(1));
        assert!(out.contains("FAIL  port postgres") && out.contains("→ end that process"), "{out}");
    })
    .await;
}

/// RFC 3339, in UTC.
fn is_moment(text: &str) -> bool {
    chrono::DateTime::parse_from_rfc3339(text).is_ok() && text.ends_with('Z')
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_looked_at_and_drained() {
    bounded(async {
        let cluster = Cluster::with_warehouse();
        let [a, b] = cluster.start_together(["a", "b"]).await;
        let run = |arguments: &[&str]| {
            let mut command = oribi("cluster", arguments);
            command.env("ORIBI_ZOOKEEPER", cluster.zookeeper());
            finish(command)
        };
        let (code, out, err) = run(&["status", "--json"]);
        assert_eq!(code, Some(0), "{err}");
        let found = json(&out);
        let daemons = found["daemons"].as_array().expect("daemons");
        let ids: Vec<_> = daemons.iter().map(|daemon| daemon["id"].as_str()).collect();
        assert_eq!(ids, [Some("a"), Some("b")]);
        assert!(daemons.iter().all(|daemon| daemon["state"] == "ready"), "{found}");
        // A moment is written in one way, whichever command says it.
        let moments = daemons.iter().map(|daemon| daemon["since"].as_str().unwrap_or_default());
        assert!(moments.clone().all(is_moment), "{found}");
        let (code, out, err) = run(&["status"]);
        assert_eq!(code, Some(0), "{err}");
        assert!(out.contains("leads") && out.contains(" statement"), "{out}");
        let (code, out, err) = run(&["top", "--count", "2", "--interval", "10ms", "--json"]);
        assert_eq!((code, out.lines().count()), (Some(0), 2), "{out}{err}");
        // Only superusers, only by its name, only itself.
        let client = Client::connect(&a).await;
        client.rows("CREATE ROLE ann LOGIN").await;
        for (arguments, part) in
            [(&["drain", "nobody"][..], "there are a, b"), (&["drain", "b", "-U", "ann"], "42501")]
        {
            let (code, out, err) = run(arguments);
            assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
            assert!(err.contains(part), "{err}");
        }
        let wrong = client.refused("SELECT oribi.drain('b')").await;
        assert!(wrong.message().contains("drains only itself"), "{wrong:?}");
        let (code, out, err) = run(&["drain", "b", "--json"]);
        assert_eq!(code, Some(0), "{err}");
        assert_eq!(json(&out)["ended"], true);
        assert_eq!(b.wait(PATIENCE).code(), Some(0));
        until("a is alone", async || {
            let (_, out, _) = run(&["status", "--json"]);
            json(&out)["daemons"].as_array().is_some_and(|daemons| daemons.len() == 1)
        })
        .await;
        // Who asks learns from the exit code that one of them is dead.
        let c = cluster.start("c");
        until("c is seen", async || run(&["status"]).1.contains("c  ")).await;
        c.kill();
        until("its death is told", async || {
            let (code, out, err) = run(&["status"]);
            match out.contains("unreachable") {
                true => assert_eq!(code, Some(6), "{out}{err}"),
                false => assert_eq!(code, Some(0), "{out}{err}"),
            }
            code == Some(6)
        })
        .await;
    })
    .await;
}

/// A daemon alone, with something of everything that is kept.
async fn filled(options: &Options) {
    let daemon = Daemon::start(options);
    let client = Client::connect(&daemon).await;
    for sql in [
        "CREATE ROLE ann LOGIN PASSWORD 'secret'",
        "CREATE TABLE t AS SELECT 42 AS x",
        "GRANT SELECT ON t TO ann",
        "CREATE VIEW v AS SELECT x + 1 AS y FROM t",
        "CREATE POOL p WITH (concurrency = 3) TO ann",
        "ALTER SYSTEM SET TimeZone = 'Europe/Vienna'",
        "SELECT oribi.schedule('nightly', '0 3 * * *', 'SELECT 1')",
    ] {
        client.rows(sql).await;
    }
    let id = client.value("SELECT oribi.submit('SELECT 7 AS n')").await;
    assert_eq!(client.value(&format!("SELECT oribi.wait('{id}')")).await, "succeeded");
    drop(client);
    stop(daemon);
}

fn stop(daemon: Daemon) {
    daemon.terminate();
    assert_eq!(daemon.wait(PATIENCE).code(), Some(0));
}

async fn check_filled(daemon: &Daemon) {
    let client = Client::connect(daemon).await;
    for (sql, value) in [
        ("SELECT y FROM v", "43"),
        ("SELECT has_table_privilege('ann', 't', 'SELECT')", "t"),
        ("SELECT rolcanlogin FROM pg_roles WHERE rolname = 'ann'", "t"),
        ("SELECT max(concurrency) FROM system.pools WHERE name = 'p'", "3"),
        ("SHOW TimeZone", "Europe/Vienna"),
        ("SELECT count(*) FROM system.schedules WHERE name = 'nightly'", "1"),
        ("SELECT state FROM system.queries WHERE kind = 'submitted'", "succeeded"),
    ] {
        assert_eq!(client.value(sql).await, value, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_back_up_moves_a_cluster_into_zookeeper_and_back() {
    bounded(async {
        let options = Options::new();
        filled(&options).await;
        let cluster = Cluster::with_warehouse();
        let file = cluster.path("oribi.json").display().to_string();
        let embedded = options.directory().join("data").display().to_string();
        let ok = |name: &str, arguments: &[&str]| {
            let (code, out, err) = finish(oribi(name, arguments));
            assert_eq!(code, Some(0), "{name} {arguments:?}: {out}{err}");
            out
        };
        // The store that is named, whatever the environment names.
        for (name, arguments) in
            [("backup", &["x.json"][..]), ("restore", &["x.json"][..]), ("config", &["get"][..])]
        {
            let arguments = [arguments, &["--data-dir", &embedded]].concat();
            let mut command = oribi(name, &arguments);
            command.env("ORIBI_ZOOKEEPER", cluster.zookeeper());
            let (code, _, err) = finish(command);
            assert_eq!(code, Some(2), "{name}: {err}");
            for part in [embedded.as_str(), "ORIBI_ZOOKEEPER", "--zookeeper ''"] {
                assert!(err.contains(part), "{name}: {err}");
            }
        }
        let mut command =
            oribi("backup", &[&file, "--data-dir", &embedded, "--zookeeper", "", "--json"]);
        command.env("ORIBI_ZOOKEEPER", cluster.zookeeper());
        let (code, out, err) = finish(command);
        assert_eq!(code, Some(0), "{err}");
        assert!(json(&out)["by_kind"]["roles"].as_u64() > Some(1), "{out}");
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(&file).expect("a file").permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
        // People can read it, and nothing of one run is in it.
        let text = std::fs::read_to_string(&file).expect("text");
        let saved = json(&text);
        assert_eq!((&saved["format"], &saved["znodes"]), (&1.into(), &1.into()));
        for kind in ["/daemons", "/leader", "/incarnations", "/claims", "/peer-key", "/signals"] {
            assert!(!text.contains(&format!("\"path\":\"{kind}")), "{kind}");
        }
        assert!(text.lines().any(|line| line.contains("\"path\":\"/roles/ann\"")), "{text}");
        let there = ["--zookeeper", cluster.zookeeper()];
        // One that was edited, by mistake and on purpose; one without its checksum; one that is cut off.
        let changed = cluster.path("changed.json").display().to_string();
        let edited = text.replacen("Europe/Vienna", "Europe/Paris", 1);
        let (earlier, sum) = text.rsplit_once(",\n\"sha256\": ").expect("a checksum");
        assert_eq!(sum.trim_end().len(), 64 + 3, "{sum}");
        for (content, flags, expected) in [
            (edited.as_str(), &[][..], "does not match its checksum"),
            (edited.as_str(), &["--edited"][..], ""),
            (&format!("{earlier}}}\n"), &[][..], "has no checksum"),
            (&format!("{earlier}}}\n"), &["--edited"][..], ""),
            (earlier, &["--edited"][..], "is no file of oribi backup"),
        ] {
            std::fs::write(&changed, content).expect("a file");
            let arguments = [&[changed.as_str(), "--dry-run"][..], &there[..], flags].concat();
            let (code, _, err) = finish(oribi("restore", &arguments));
            assert_eq!(code, Some(if expected.is_empty() { 0 } else { 2 }), "{flags:?}: {err}");
            assert!(err.contains(expected), "{err}");
        }
        let out = ok("restore", &[&[file.as_str(), "--dry-run"][..], &there[..]].concat());
        assert!(out.contains("would be restored"), "{out}");
        ok("restore", &[&[file.as_str()][..], &there[..]].concat());
        let daemon = cluster.start("a");
        check_filled(&daemon).await;
        // Not while a daemon runs, and not over what is there.
        let (code, _, err) = finish(oribi("restore", &[&[file.as_str()][..], &there[..]].concat()));
        assert_eq!(code, Some(2));
        assert!(err.contains("daemons run") && err.contains("drain"), "{err}");
        Client::connect(&daemon).await.rows("CREATE TABLE later AS SELECT 1 AS x").await;
        // While it runs, it can be saved.
        let second = cluster.path("second.json").display().to_string();
        ok("backup", &[&[second.as_str()][..], &there[..]].concat());
        stop(daemon);
        let (code, _, err) = finish(oribi("restore", &[&[file.as_str()][..], &there[..]].concat()));
        assert_eq!(code, Some(2));
        assert!(err.contains("not empty") && err.contains("--force"), "{err}");
        let out = ok("restore", &[&[file.as_str(), "--force"][..], &there[..]].concat());
        assert!(out.contains("are gone"), "{out}");
        let daemon = cluster.start("a");
        check_filled(&daemon).await;
        let client = Client::connect(&daemon).await;
        assert_eq!(client.refused("SELECT x FROM later").await.code().code(), "42P01");
        drop(client);
        stop(daemon);
        // And back, to where another daemon is alone.
        let alone = Options::new();
        let data = alone.directory().join("data").display().to_string();
        ok("restore", &[&second, "--data-dir", &data]);
        let daemon = Daemon::start(&alone);
        check_filled(&daemon).await;
        assert_eq!(Client::connect(&daemon).await.value("SELECT x FROM later").await, "1");
        // The embedded store is its daemon's.
        let (code, _, err) = finish(oribi("backup", &[&file, "--force", "--data-dir", &data]));
        assert_eq!(code, Some(2));
        assert!(err.contains("stop the daemon first"), "{err}");
        // One back-up does not take another's place by mistake.
        let before = std::fs::read_to_string(&second).expect("text");
        let again = [&[second.as_str()][..], &there[..]].concat();
        let (code, _, err) = finish(oribi("backup", &again));
        assert!(code == Some(2) && err.contains("--force"), "{err}");
        assert_eq!(std::fs::read_to_string(&second).expect("text"), before);
        ok("backup", &[&again[..], &["--force"]].concat());
        assert_ne!(std::fs::read_to_string(&second).expect("text"), before);
        // A file of a newer version.
        let newer = text.replacen("\"znodes\": 1", "\"znodes\": 2", 1);
        std::fs::write(&file, newer).expect("a file");
        let (code, _, err) = finish(oribi("restore", &[&[file.as_str()][..], &there[..]].concat()));
        assert_eq!(code, Some(2));
        assert!(err.contains("newer"), "{err}");
    })
    .await;
}

#[test]
fn a_first_password_for_everybody_to_read_is_told_of() {
    let options = Options::new();
    let file = options.directory().join("password");
    std::fs::write(&file, "secret").expect("a file");
    let data = options.directory().join("data").display().to_string();
    for (mode, expected) in [(0o644, "warn"), (0o440, "ok"), (0o400, "ok")] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(&file, mode).expect("changed");
        let mut command = oribi("doctor", &["--json", "--data-dir", &data]);
        for key in ["POSTGRES", "PEER", "WEB"] {
            command.env(format!("ORIBI_{key}"), "127.0.0.1:0");
        }
        command.env("ORIBI_CONNECTIONS_SUPERUSER_PASSWORD_FILE", &file);
        let (_, out, _) = finish(command);
        let (status, checks) = status(&json(&out), "password file");
        assert_eq!(status, expected, "{checks}");
        // And a daemon says so, and starts: containers have their secrets like this.
        let variable = "ORIBI_CONNECTIONS_SUPERUSER_PASSWORD_FILE";
        let daemon = Daemon::start(&Options::new().env(variable, &file));
        let told = daemon.log().contains("is open to all users of this machine");
        assert_eq!(told, expected == "warn", "{}", daemon.log());
    }
}

#[test]
fn the_reference_is_in_the_program() {
    let help = |arguments: &[&str]| finish(oribi("help", arguments));
    let (code, out, _) = help(&[]);
    assert_eq!(code, Some(0));
    let topics = json(&help(&["--json"]).1);
    let topics = topics.as_array().expect("topics");
    assert!(topics.len() >= 8, "{topics:?}");
    for topic in topics {
        let topic = topic["topic"].as_str().expect("a name");
        assert!(out.contains(topic), "{topic}");
        let (code, text, err) = help(&[topic]);
        assert_eq!(code, Some(0), "{err}");
        assert!(text.starts_with("# "), "{topic}: {text}");
    }
    let (code, out, _) = help(&["doctor"]);
    assert_eq!(code, Some(0));
    assert!(out.contains("--data-dir"), "{out}");
    let (code, _, err) = help(&["nothing"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("system-tables"), "{err}");
}

#[test]
fn shells_and_man_are_told() {
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, err) = finish(oribi("completions", &[shell]));
        assert_eq!(code, Some(0), "{err}");
        assert!(out.contains("doctor") && out.contains("zookeeper"), "{shell}");
    }
    let script = "source <(\"$0\" completions bash) && COMP_WORDS=(oribi doc) COMP_CWORD=1 && \
                  _oribi oribi doc oribi && echo \"${COMPREPLY[@]}\"";
    let bash = Command::new("bash").args(["-c", script]).arg(common::daemon::binary()).output();
    let (code, out, err) = ended(&bash.expect("bash runs"));
    assert_eq!((code, out.trim()), (Some(0), "doctor"), "{err}");
    let directory = tempfile::tempdir().expect("a folder");
    let place = directory.path().join("man1").display().to_string();
    assert_eq!(finish(oribi("man", &[&place])).0, Some(0));
    for page in ["oribi.1", "oribi-sql.1", "oribi-query-submit.1", "oribi-backup.1"] {
        let text = std::fs::read_to_string(Path::new(&place).join(page)).expect(page);
        assert!(text.contains(".SH NAME"), "{page}");
    }
    let (code, out, _) = finish(oribi("man", &[]));
    assert_eq!(code, Some(0));
    assert!(out.contains(".TH oribi 1"), "{out}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_imported_once_however_often_it_is_interrupted() {
    bounded(async {
        let cluster = Cluster::with_warehouse();
        let daemon = cluster.start("a");
        let client = Client::connect(&daemon).await;
        let run = |arguments: &[&str]| {
            let mut command = oribi("import", arguments);
            command.env("ORIBI_ZOOKEEPER", cluster.zookeeper());
            finish(command)
        };
        let path = |name: &str| cluster.path(name).display().to_string();
        // A CSV file, whose types are found out.
        let csv = path("people.csv");
        let lines =
            (1..=20_000).map(|x| format!("{x},\"a, \"\"{x}\"\"\",{}.5,2026-11-29\n", x % 10));
        std::fs::write(&csv, format!("id,name,score,day\n{}", lines.collect::<String>()))
            .expect("a file");
        let (code, out, err) = run(&[&csv, "people", "--create", "--part", "100KiB", "--json"]);
        assert_eq!(code, Some(0), "{err}");
        assert_eq!(json(&out)["rows"], 20_000);
        assert!(json(&out)["parts"].as_u64() > Some(3), "{out}");
        let facts =
            "SELECT count(*) || ' ' || sum(id) || ' ' || max(name) || ' ' || min(day) FROM people";
        assert_eq!(client.value(facts).await, "20000 200010000 a, \"9999\" 2026-11-29");
        // As other systems write them: with a mark, lines that end otherwise, and an open end.
        let foreign = path("foreign.csv");
        std::fs::write(&foreign, "\u{feff}id,name\r\n1,\"a\r\nb\"\r\n2,c").expect("a file");
        let (code, _, err) = run(&[&foreign, "foreigners", "--create"]);
        assert_eq!(code, Some(0), "{err}");
        let facts = "SELECT count(*) || ' ' || sum(id) || ' ' || max(length(name)) FROM foreigners";
        assert_eq!(client.value(facts).await, "2 3 4");
        // What is made for records that are then refused is taken away again, and may be guessed anew.
        let late = path("late.csv");
        let lines = |last: &str| (1..=1500).map(|x| format!("{x}\n")).collect::<String>() + last;
        std::fs::write(&late, format!("x\n{}", lines("x\n"))).expect("a file");
        let (code, _, err) = run(&[&late, "late", "--create"]);
        assert!(code == Some(1) && err.contains("line 1502, column x: \"x\""), "{err}");
        assert_eq!(client.refused("SELECT x FROM late").await.code().code(), "42P01");
        std::fs::write(&late, format!("x\n{}", lines("7\n"))).expect("a file");
        let (code, _, err) = run(&[&late, "late", "--create"]);
        assert_eq!(code, Some(0), "{err}");
        assert_eq!(client.value("SELECT count(*) FROM late").await, "1501");
        // Another one's table stays, empty as it is.
        client.rows("CREATE TABLE empty (x int)").await;
        std::fs::write(&late, "x\nx\n").expect("a file");
        assert_eq!(run(&[&late, "empty", "--create"]).0, Some(1));
        assert_eq!(client.value("SELECT count(*) FROM empty").await, "0");
        // JSON lines, into some of the columns.
        let lines = path("more.jsonl");
        std::fs::write(&lines, "{\"id\": 1, \"name\": null}\n{\"name\": \"x\\ny\", \"id\": 2}\n")
            .expect("a file");
        let (code, _, err) = run(&[&lines, "people"]);
        assert_eq!(code, Some(0), "{err}");
        assert_eq!(client.value("SELECT count(*) FROM people WHERE name = E'x\\ny'").await, "1");
        // Parquet, as oribi query writes it.
        let parquet = path("p.parquet");
        let mut query = command(&["run", "SELECT * FROM people", "-f", "parquet", "-o", &parquet]);
        query.env("ORIBI_ZOOKEEPER", cluster.zookeeper());
        assert_eq!(finish(query).0, Some(0));
        let (code, out, err) = run(&[&parquet, "public.again", "--create", "--json"]);
        assert_eq!(code, Some(0), "{err}");
        assert_eq!(json(&out)["rows"], 20_002);
        let same = "SELECT count(*) FROM (SELECT * FROM people EXCEPT SELECT * FROM again)";
        assert_eq!(client.value(same).await, "0");
        // Parts are of 64 MiB unless something else is said, and larger than any one message may be.
        let large = path("large.csv");
        let text = "x".repeat(1 << 20);
        let lines = (1..=70).map(|id| format!("{id},{text}\n"));
        std::fs::write(&large, format!("id,t\n{}", lines.collect::<String>())).expect("a file");
        let (code, out, err) = run(&[&large, "large", "--create", "--json"]);
        assert_eq!(code, Some(0), "{err}");
        assert_eq!(json(&out)["rows"], 70);
        let facts = "SELECT count(DISTINCT id) || ' ' || sum(length(t)) FROM large";
        assert_eq!(client.value(facts).await, "70 73400320");
        // Wrong in the third part: what is before it is there, and is not added again.
        let bad = path("bad.csv");
        let lines = (1..=9000).map(|x| if x == 8000 { "x\n".to_owned() } else { format!("{x}\n") });
        std::fs::write(&bad, format!("x\n{}", lines.collect::<String>())).expect("a file");
        client.rows("CREATE TABLE numbers (x int)").await;
        let arguments = [bad.as_str(), "numbers", "--part", "10KiB"];
        for _ in 0..2 {
            let (code, _, err) = run(&arguments);
            assert_eq!(code, Some(1));
            // It is said where that is, and what to do.
            let place = format!("{bad}, line 8001, column x: \"x\": ");
            assert!(err.contains(&place) && err.contains("22P02"), "{err}");
            assert!(err.contains("are in \"numbers\"") && err.contains("--restart"), "{err}");
            let there: u32 =
                client.value("SELECT count(*) FROM numbers").await.parse().expect("a number");
            assert!((1..8000).contains(&there), "{there}");
        }
        client.rows("ALTER TABLE numbers ALTER COLUMN x TYPE bigint").await;
        assert_eq!(client.value("SELECT count(*) - count(DISTINCT x) FROM numbers").await, "0");
        // Which parts are there cannot be told any more: nothing is guessed.
        let there = client.value("SELECT count(*) FROM numbers").await;
        let (code, _, err) = run(&[&bad, "numbers", "--part", "20KiB"]);
        assert!(
            code == Some(1) && err.contains("did not end") && err.contains("--restart"),
            "{err}"
        );
        assert_eq!(client.value("SELECT count(*) FROM numbers").await, there);
        client.rows("TRUNCATE numbers").await;
        let (code, _, err) = run(&arguments);
        assert!(code == Some(1) && err.contains("has 0 rows"), "{err}");
        // The mended file, from its beginning; a table of the same name that is made anew has nothing.
        let right = (1..=9000).map(|x| format!("{x}\n")).collect::<String>();
        std::fs::write(&bad, format!("x\n{right}")).expect("a file");
        let (code, _, err) = run(&arguments);
        assert!(code == Some(1) && err.contains("has changed"), "{err}");
        let (code, _, err) = run(&[&bad, "numbers", "--part", "10KiB", "--restart"]);
        assert_eq!(code, Some(0), "{err}");
        assert_eq!(
            client.value("SELECT count(*) || ' ' || sum(x) FROM numbers").await,
            "9000 40504500"
        );
        let (code, _, err) = run(&[&bad, "numbers", "--part", "0"]);
        assert!(code == Some(2) && err.contains("4 KiB"), "{err}");
        // Another role, which may neither make the notes' table nor change it.
        client.rows("CREATE ROLE ann LOGIN").await;
        client.rows("GRANT SELECT, INSERT ON numbers TO ann").await;
        let as_ann = [bad.as_str(), "numbers", "--part", "10KiB", "-U", "ann"];
        let (code, _, err) = run(&as_ann);
        assert!(code == Some(1) && err.contains("42501"), "{err}");
        client.rows("GRANT SELECT, INSERT, DELETE ON oribi_imports TO ann").await;
        let (code, out, err) = run(&as_ann);
        assert_eq!(code, Some(0), "{out}{err}");
        assert_eq!(client.value("SELECT count(*) FROM numbers").await, "18000");
        let (semicolons, list) = (path("semicolons.csv"), path("list.json"));
        std::fs::write(&semicolons, "a;b\n1;2\n").expect("a file");
        std::fs::write(&list, "[{\"x\": 1},\n {\"x\": 2}]\n").expect("a file");
        for (arguments, code, part) in [
            (&["/nowhere.csv", "people"][..], 1, "/nowhere.csv"),
            (&["/nowhere.csv.gz", "people"], 2, "gunzip -k /nowhere.csv.gz"),
            (&[semicolons.as_str(), "made", "--create"], 2, "--delimiter ';'"),
            (&[semicolons.as_str(), "numbers"], 2, "--delimiter ';'"),
            (&[list.as_str(), "numbers"], 1, "line 1: no JSON object, but a list"),
            (&["-", "people"], 2, "\\copy people from pstdin"),
            (&[csv.as_str(), "nowhere"], 1, "--create"),
            (&[csv.as_str(), "numbers"], 2, "no column \"id\""),
        ] {
            let (ended, _, err) = run(arguments);
            assert_eq!(ended, Some(code), "{arguments:?}: {err}");
            assert!(err.contains(part), "{arguments:?}: {err}");
        }
    })
    .await;
}

/// Who is interrupted before it is told that all is there runs it again; and two may do so at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_imported_once_by_who_has_not_been_told_of_it() {
    bounded(async {
        let cluster = Cluster::with_warehouse();
        let daemon = cluster.start("a");
        let client = Client::connect(&daemon).await;
        client.rows("CREATE TABLE once (x int)").await;
        client.rows("CREATE TABLE twice (x int)").await;
        let file = cluster.path("numbers.csv").display().to_string();
        let lines = (1..=5000).map(|x| format!("{x}\n"));
        std::fs::write(&file, format!("x\n{}", lines.collect::<String>())).expect("a file");
        let import = |table: &str| {
            let mut command = oribi("import", &[&file, table, "--part", "4KiB"]);
            command.env("ORIBI_ZOOKEEPER", cluster.zookeeper());
            command
        };
        // What it would say goes nowhere.
        let untold = |table: &str| {
            let full = std::fs::File::options().write(true).open("/dev/full").expect("it is there");
            let mut command = import(table);
            command.stdout(full);
            command
        };
        let rows = async |table: &str| {
            let sql = format!("SELECT count(*) || ' ' || count(DISTINCT x) FROM {table}");
            client.value(&sql).await
        };
        assert_eq!(untold("once").status().expect("it runs").code(), Some(1));
        assert_eq!(rows("once").await, "5000 5000");
        let (code, out, err) = finish(import("once"));
        assert_eq!(code, Some(0), "{err}");
        assert!(out.starts_with("0 rows") && out.contains("from before"), "{out}");
        assert_eq!(rows("once").await, "5000 5000");
        // Told of it, it may mean to add the same again.
        assert_eq!(finish(import("once")).0, Some(0));
        assert_eq!(rows("once").await, "10000 5000");
        let mut two = [untold("twice"), untold("twice")].map(|mut command| command.spawn());
        for one in &mut two {
            one.as_mut().expect("it runs").wait().expect("it ends");
        }
        // One may have given up for the other's sake, but no part is there twice.
        assert_eq!(finish(import("twice")).0, Some(0));
        assert_eq!(rows("twice").await, "5000 5000");
    })
    .await;
}

#[test]
fn a_machine_is_measured() {
    let directory = tempfile::tempdir().expect("a folder");
    let place = directory.path().display().to_string();
    let arguments =
        ["--scale", "0.001", "--runs", "1", "--queries", "1,6", "--json", "--data-dir", &place];
    let (code, out, err) = finish(oribi("bench", &arguments));
    assert_eq!(code, Some(0), "{err}");
    let found = json(&out);
    assert_eq!(found["queries"].as_array().map(Vec::len), Some(2));
    assert_eq!(
        (&found["queries"][0]["query"], &found["queries"][0]["rows"]),
        (&1.into(), &4.into())
    );
    assert!(found["total_ms"].as_f64() > Some(0.0), "{found}");
    let kept: Vec<_> = std::fs::read_dir(directory.path()).expect("a folder").collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
}
