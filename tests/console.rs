//! The web console: its requests as they are, and its pages in a real Chromium.

mod common;
#[path = "console/http.rs"]
mod http;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use common::certificates::Authority;
use common::daemon::{Daemon, Options, eventually};
use http::Browser;

const PASSWORD: &str = "first 'secret'";

fn trusting() -> Daemon {
    Daemon::start(&Options::new())
}

/// A daemon whose clients have to know their password.
fn asking() -> Daemon {
    let options = Options::new();
    let file = options.directory().join("password");
    fs::write(&file, PASSWORD).expect("written");
    let options = options
        .env("ORIBI_CONNECTIONS_RULES", "host all all 127.0.0.0/8 scram-sha-256")
        .env("ORIBI_CONNECTIONS_SUPERUSER_PASSWORD_FILE", file);
    Daemon::start(&options)
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    eventually(what, async || done().await.then_some(())).await;
}

fn first(rows: &[Value]) -> &str {
    rows[0][0].as_str().expect("a value")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_knows_the_password_is_logged_in() {
    let daemon = asking();
    let mut browser = Browser::new(&daemon);
    assert_eq!(browser.get("/api/session").await.json()["user"], Value::Null);
    assert_eq!(browser.sql("SELECT 1").await.refused(), (401, "28000".into()));
    for wrong in ["", "first secret", PASSWORD.to_uppercase().as_str()] {
        assert_eq!(
            browser.log_in("oribi", wrong).await.refused(),
            (401, "28P01".into()),
            "{wrong}"
        );
    }
    assert_eq!(browser.log_in("nobody", PASSWORD).await.refused(), (401, "28P01".into()));
    let answer = browser.log_in("oribi", PASSWORD).await;
    let cookie = answer.header("set-cookie").expect("a cookie").to_owned();
    assert!(cookie.contains("; HttpOnly; SameSite=Strict"), "{cookie}");
    assert!(!cookie.contains("Secure"), "in plaintext: {cookie}");
    let session = browser.get("/api/session").await.json();
    assert_eq!((&session["user"], &session["mode"]), (&json!("oribi"), &json!("on")));
    let who = browser.sql("SELECT current_user, 1 + 1, NULL").await;
    assert_eq!(who.rows(), [json!(["oribi", "2", null])]);
    let columns = &who.lines()[0]["columns"];
    assert_eq!(columns[1]["type"], "int8", "{columns}");
    assert_eq!(browser.post("/api/logout", &json!({})).await.status, 204);
    assert_eq!(browser.sql("SELECT 1").await.refused(), (401, "28000".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_s_address_proves_nothing() {
    let daemon = trusting();
    let browser = Browser::new(&daemon);
    let body = json!({ "user": "oribi" }).to_string();
    let json = ("content-type", "application/json");
    let through = [json, ("x-forwarded-for", "192.0.2.1")];
    let answer = browser.send("POST", "/api/login", &through, &body).await;
    assert_eq!(answer.refused(), (401, "28P01".into()));
    assert_eq!(browser.send("POST", "/api/login", &[json], &body).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_other_sites_are_refused() {
    let daemon = trusting();
    let browser = Browser::logged_in(&daemon, "oribi", "").await;
    let body = json!({ "sql": "CREATE TABLE forged (a int)" }).to_string();
    let json = ("content-type", "application/json");
    let port = daemon.web().port();
    let (evil, rebound) = (format!("http://evil.example:{port}"), format!("evil.example:{port}"));
    for (status, headers) in [
        (403, vec![json, ("origin", evil.as_str())]),
        (403, vec![json, ("origin", "null")]),
        (403, vec![json, ("sec-fetch-site", "cross-site")]),
        (403, vec![json, ("host", &rebound), ("origin", &evil)]),
        (403, vec![json, ("x-oribi-csrf", "")]),
        (403, vec![json, ("x-oribi-csrf", "0000")]),
        (415, vec![("content-type", "text/plain")]),
        (415, vec![("content-type", "application/x-www-form-urlencoded")]),
        (401, vec![json, ("cookie", "")]),
    ] {
        let answer = browser.send("POST", "/api/sql", &headers, &body).await;
        assert_eq!(answer.status, status, "{headers:?}: {}", answer.text());
        let answer = browser.send("POST", "/api/logout", &headers, "{}").await;
        assert_eq!(answer.status, status, "{headers:?}");
    }
    // Nobody is logged in by another site's page either.
    let body = json!({ "user": "oribi" }).to_string();
    let foreign = [json, ("origin", evil.as_str())];
    assert_eq!(browser.send("POST", "/api/login", &foreign, &body).await.status, 403);
    let there =
        browser.sql("SELECT count(*) FROM information_schema.tables WHERE table_name = 'forged'");
    assert_eq!(first(&there.await.rows()), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_are_those_of_sql() {
    let daemon = trusting();
    let owner = Browser::logged_in(&daemon, "oribi", "").await;
    let made =
        owner.sql("CREATE ROLE ann LOGIN; CREATE TABLE secret (a int); CREATE ROLE shy").await;
    assert_eq!(made.failure(), None, "{}", made.text());
    let mut shy = Browser::new(&daemon);
    assert_eq!(shy.log_in("shy", "").await.refused(), (401, "28000".into()), "no LOGIN");
    let ann = Browser::logged_in(&daemon, "ann", "").await;
    for denied in [
        "SELECT * FROM secret",
        "DROP TABLE secret",
        "CREATE ROLE eve",
        "SELECT * FROM zk.nodes",
        "SELECT * FROM system.settings",
    ] {
        assert_eq!(ann.sql(denied).await.failure().as_deref(), Some("42501"), "{denied}");
    }
    let body = json!({ "sql": "SELECT * FROM secret", "format": "csv" });
    let url =
        ann.post("/api/export", &body).await.json()["url"].as_str().expect("a URL").to_owned();
    assert_eq!(ann.get(&url).await.refused(), (400, "42501".into()));
    // A limit of the role's counts once, whatever its pages ask at the same time.
    assert_eq!(owner.sql("ALTER ROLE ann CONNECTION LIMIT 1").await.failure(), None);
    assert_eq!(ann.sql("SELECT 1").await.rows(), [json!(["1"])]);
    assert_eq!(Browser::new(&daemon).log_in("ann", "").await.refused(), (503, "53300".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_changed_in_a_console_that_only_reads() {
    let daemon = Daemon::start(&Options::new().env("ORIBI_CONSOLE_MODE", "read_only"));
    let client = daemon.connect().await;
    client.batch_execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1)").await.expect("made");
    let browser = Browser::logged_in(&daemon, "oribi", "").await;
    assert_eq!(browser.get("/api/session").await.json()["mode"], "read_only");
    assert_eq!(browser.sql("SELECT a FROM t").await.rows(), [json!(["1"])]);
    for refused in [
        "INSERT INTO t VALUES (2)",
        "DROP TABLE t",
        "CREATE ROLE eve",
        "ALTER SYSTEM SET statement_timeout = '1s'",
        "SET default_transaction_read_only = off; INSERT INTO t VALUES (2)",
        "BEGIN READ WRITE; INSERT INTO t VALUES (2); COMMIT",
        "SET transaction_read_only = off; DELETE FROM t",
        "RESET ALL; DELETE FROM t",
        "OPTIMIZE t",
        "NOTIFY news",
        "SELECT oribi.submit('SELECT 1')",
        "SELECT oribi.schedule('s', '@daily', 'SELECT 1')",
        "SELECT oribi.cancel('q')",
        "SELECT pg_cancel_backend(1)",
        "SELECT pg_terminate_backend(1)",
    ] {
        assert_eq!(browser.sql(refused).await.failure().as_deref(), Some("25006"), "{refused}");
    }
    assert_eq!(browser.sql("SELECT count(*) FROM t").await.rows(), [json!(["1"])]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_safe_and_kept_by_browsers() {
    let daemon = trusting();
    let browser = Browser::new(&daemon);
    let page = browser.get("/").await;
    assert_eq!(page.status, 200);
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    let text = page.text();
    assert!(!text.contains("http://") && !text.contains("https://"), "only its own resources");
    let tag = page.header("etag").expect("a tag").to_owned();
    let again = browser.send("GET", "/assets/app.js", &[("if-none-match", &tag)], "").await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    assert_eq!(browser.get("/assets/../Cargo.toml").await.status, 404);
    let health = browser.send("GET", "/livez", &[("host", "evil.example")], "").await;
    assert_eq!(health.status, 200, "health is for everybody");
    let off = Daemon::start(&Options::new().env("ORIBI_CONSOLE_MODE", "off"));
    let browser = Browser::new(&off);
    for path in ["/", "/assets/app.js", "/api/session"] {
        assert_eq!(browser.get(path).await.status, 404, "{path}");
    }
    // What is nowhere is said to be so, in words, whether there is a console or not.
    for browser in [&browser, &Browser::new(&daemon)] {
        let page = browser.get("/nosuch").await;
        assert_eq!(page.status, 404);
        assert!(page.text().contains("/readyz"), "{}", page.text());
        assert_eq!(page.header("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    }
    assert_eq!(browser.get("/readyz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_are_listed_and_stopped_like_any_other() {
    let daemon = trusting();
    let client = daemon.connect().await;
    let browser = Browser::logged_in(&daemon, "oribi", "").await;
    let running = "SELECT pid FROM system.queries WHERE sql LIKE '%pg_sleep(600)%' \
                   AND sql NOT LIKE '%system.queries%'";
    let body = json!({ "sql": "SELECT pg_sleep(600) AS gone", "typed": true }).to_string();
    let json = [("content-type", "application/json")];
    let stream = browser.begin("POST", "/api/sql", &json, &body).await;
    until("it runs", async || client.query(running, &[]).await.expect("rows").len() == 1).await;
    drop(stream);
    until("it ends with its page", async || {
        client.query(running, &[]).await.expect("rows").is_empty()
    })
    .await;
    // By a button of another page.
    let second = Browser::logged_in(&daemon, "oribi", "").await;
    let answer = async { browser.sql("SELECT pg_sleep(600) AS stopped").await };
    let stop = async {
        until("it runs", async || {
            let stopped = format!("SELECT pg_cancel_backend(pid) FROM ({running})");
            second.sql(&stopped).await.rows().len() == 1
        })
        .await;
    };
    let (answer, ()) = tokio::join!(answer, stop);
    assert_eq!(answer.failure().as_deref(), Some("57014"));
    let history = "SELECT state, application_name FROM system.query_history \
                   WHERE sql LIKE 'SELECT pg_sleep(600)%' ORDER BY id";
    let expected = json!(["cancelled", "oribi console, SQL"]);
    until("both are in the history", async || {
        second.sql(history).await.rows() == [expected.clone(), expected.clone()]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_statements_long_results_and_failures() {
    let daemon = trusting();
    let browser = Browser::logged_in(&daemon, "oribi", "").await;
    let several = browser.sql("CREATE TABLE n (a int); INSERT INTO n VALUES (1), (2); SELECT a FROM n ORDER BY 1; SELECT nothing").await;
    let lines = several.lines();
    let tags: Vec<_> = lines.iter().filter_map(|line| line["tag"].as_str()).collect();
    assert_eq!(tags, ["CREATE TABLE", "INSERT 0 2", "SELECT 2"]);
    assert_eq!(several.rows(), [json!(["1"]), json!(["2"])]);
    assert_eq!(several.failure().as_deref(), Some("42703"));
    let body = json!({ "sql": "SELECT * FROM generate_series(1, 100000)", "limit": 50 });
    let cut = browser.post("/api/sql", &body).await;
    assert_eq!(cut.rows().len(), 50);
    assert_eq!(
        cut.lines().last(),
        Some(&json!({ "tag": "SELECT", "rows": 50, "truncated": true }))
    );
    let exact = json!({ "sql": "SELECT * FROM generate_series(1, 50)", "limit": 50 });
    let exact = browser.post("/api/sql", &exact).await;
    assert_eq!(
        exact.lines().last(),
        Some(&json!({ "tag": "SELECT 50", "rows": 50, "truncated": false }))
    );
    assert_eq!(browser.sql("SELECT 1 FROM").await.failure().as_deref(), Some("42601"));
    assert_eq!(browser.sql("").await.lines(), Vec::<Value>::new());
    assert_eq!(browser.sql("COPY n FROM STDIN").await.failure().as_deref(), Some("57014"));
    let copied = browser.sql("COPY (SELECT 1, 'a b') TO STDOUT WITH (FORMAT csv)").await.lines();
    assert_eq!(copied[0], json!({ "copy": "1,a b\n" }));
    let bad = browser.send("POST", "/api/sql", &[("content-type", "application/json")], "{").await;
    assert_eq!(bad.refused(), (400, "08P01".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn results_are_downloaded_as_files() {
    let daemon = trusting();
    let browser = Browser::logged_in(&daemon, "oribi", "").await;
    let sql = "SELECT i, 'row ' || i AS name, i / 4.0 AS quarter, DATE '2026-01-01' AS day, \
               INTERVAL '1 day' AS span FROM generate_series(1, 100000) AS t(i) ORDER BY i -- the end";
    let fetch = async |format: &str| {
        let body = json!({ "sql": sql, "format": format });
        let answer = browser.post("/api/export", &body).await.json();
        let url = answer["url"].as_str().expect("a URL").to_owned();
        let file = browser.get(&url).await;
        assert_eq!(file.status, 200, "{}", file.text());
        let name = format!("attachment; filename=\"oribi-result.{format}\"");
        assert_eq!(file.header("content-disposition"), Some(name.as_str()));
        assert_eq!(browser.get(&url).await.status, 404, "once");
        file.body
    };
    let csv = String::from_utf8(fetch("csv").await).expect("text");
    assert_eq!(csv.lines().count(), 100_001);
    assert!(csv.starts_with("i,name,quarter,day,span\n1,row 1,0.25"), "{}", &csv[..80]);
    let parquet = fetch("parquet").await;
    let path = daemon.options().directory().join("result.parquet");
    fs::write(&path, parquet).expect("written");
    let external = format!(
        "CREATE EXTERNAL TABLE back STORED AS PARQUET LOCATION '{}'; \
         SELECT count(*), sum(i), max(name), max(day), min(span) FROM back",
        path.display()
    );
    let back = browser.sql(&external).await;
    let expected = json!(["100000", "5000050000", "row 99999", "2026-01-01"]);
    let row = back.rows().remove(0);
    assert_eq!(row.as_array().expect("a row")[..4], expected.as_array().expect("a row")[..]);
    let wrong = browser.post("/api/export", &json!({ "sql": sql, "format": "exe" })).await;
    assert_eq!(wrong.refused(), (400, "22023".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_tell_of_changes_and_leave_no_trace() {
    let daemon = trusting();
    let browser = Browser::logged_in(&daemon, "oribi", "").await;
    let stream = browser.begin("GET", "/api/events", &[], "").await;
    let mut lines = BufReader::new(stream).lines();
    let mut seen = Vec::new();
    while seen.len() < 5 {
        let line = lines.next_line().await.expect("events").expect("more of them");
        if let Some(name) = line.strip_prefix("event: ")
            && !seen.iter().any(|known| known == name)
        {
            seen.push(name.to_owned());
            let data = lines.next_line().await.expect("data").expect("data");
            let data: Value =
                serde_json::from_str(data.strip_prefix("data: ").expect("data")).expect("JSON");
            assert!(data["rows"].is_array(), "{name}: {data}");
        }
    }
    seen.sort();
    assert_eq!(seen, ["coordination", "daemons", "ensemble", "metrics", "running"]);
    let asked = browser
        .sql("SELECT count(*) FROM system.query_history WHERE sql LIKE '%FROM system.daemons%'");
    assert_eq!(first(&asked.await.rows()), "0");
    // Who logs out hears no more.
    assert_eq!(browser.post("/api/logout", &json!({})).await.status, 204);
    while lines.next_line().await.is_ok_and(|line| line.is_some()) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_ends_with_its_session_or_its_password() {
    let daemon = asking();
    let ending = Browser::logged_in(&daemon, "oribi", PASSWORD).await;
    let other = Browser::logged_in(&daemon, "oribi", PASSWORD).await;
    let end = "SELECT pg_terminate_backend(min(pid)) FROM pg_stat_activity \
               WHERE application_name = 'oribi console'";
    assert_eq!(other.sql(end).await.rows(), [json!(["t"])]);
    until("it is over", async || ending.get("/api/session").await.json()["user"].is_null()).await;
    assert_eq!(other.get("/api/session").await.json()["user"], "oribi");
    assert_eq!(other.sql("ALTER ROLE oribi PASSWORD 'another'").await.failure(), None);
    assert_eq!(other.sql("SELECT 1").await.refused(), (401, "28000".into()));
    let mut again = Browser::new(&daemon);
    assert_eq!(again.log_in("oribi", PASSWORD).await.refused(), (401, "28P01".into()));
    assert_eq!(again.log_in("oribi", "another").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_web_port_speaks_https_too() {
    let options = Options::new();
    let authority = Authority::new(options.directory(), "herd");
    let server = authority.server("server");
    let options = options
        .env("ORIBI_TLS_CERTIFICATE", &server.certificate)
        .env("ORIBI_TLS_KEY", &server.key)
        .env("ORIBI_TLS_MODE", "require");
    let daemon = Daemon::start(&options);
    let curl = |scheme: &str| {
        let url = format!("{scheme}://localhost:{}/api/login", daemon.web().port());
        let answer = Command::new("curl")
            .args(["--silent", "--show-error", "--include", "--ipv4", "--cacert"])
            .arg(&authority.certificate)
            .args(["--json", r#"{"user": "oribi"}"#, &url])
            .output()
            .expect("curl");
        String::from_utf8_lossy(&[answer.stdout, answer.stderr].concat()).into_owned()
    };
    let encrypted = curl("https");
    assert!(encrypted.starts_with("HTTP/1.1 200") && encrypted.contains("; Secure"), "{encrypted}");
    let plain = curl("http");
    assert!(plain.starts_with("HTTP/1.1 401") && plain.contains("encrypted with TLS"), "{plain}");
    assert_eq!(Browser::new(&daemon).get("/readyz").await.status, 200, "plaintext, for probes");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_begun_is_finished_when_the_daemon_stops() {
    let daemon = trusting();
    let client = daemon.connect().await;
    let browser = Browser::logged_in(&daemon, "oribi", "").await;
    let answer = async { browser.sql("SELECT pg_sleep(8), 'slept' AS word").await };
    let stop = async {
        let runs = "SELECT 1 FROM system.queries WHERE sql LIKE '%slept%' AND sql NOT LIKE '%system.queries%'";
        until("it runs", async || client.query(runs, &[]).await.expect("rows").len() == 1).await;
        daemon.terminate();
    };
    let (answer, ()) = tokio::join!(answer, stop);
    assert_eq!(answer.rows(), [json!(["", "slept"])], "{}", answer.text());
    assert!(daemon.wait(common::daemon::PATIENCE).success());
}

/// `ORIBI_TEST_NODE_MODULES` names the directory of the package playwright-core.
#[tokio::test(flavor = "multi_thread")]
async fn in_a_browser() {
    let modules = std::env::var_os("ORIBI_TEST_NODE_MODULES");
    let modules = modules.expect("ORIBI_TEST_NODE_MODULES: `npm install playwright-core`");
    let daemon = trusting();
    // Pages are quick whatever has been run.
    let client = daemon.connect().await;
    for message in 0..20 {
        let many: Vec<_> = (0..500).map(|at| format!("SELECT {message} AS m, {at} AS n")).collect();
        client.batch_execute(&many.join("; ")).await.expect("they run");
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/console/browser.js");
    let node = tokio::task::spawn_blocking(move || {
        let mut node = Command::new("node");
        node.env("NODE_PATH", modules).arg(script).arg(format!("http://{}", daemon.web()));
        (node.output().expect("node"), daemon)
    });
    let (output, _daemon) = node.await.expect("it runs");
    let told = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&told));
}
