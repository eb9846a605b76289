//! What operators see: metrics that move as they should and whose names dashboard, alert rules and
//! documents know; logs that name statements on all daemons, and keep quiet of what they hold.

mod common;

#[path = "tpch/answers.rs"]
#[allow(dead_code)]
mod answers;
#[path = "cluster/support.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use common::daemon::{Daemon, Options, eventually};
use common::zookeeper::Server;
use oribi::web::metrics::{FAMILIES, Kind, table};
use serde_json::Value;
use support::*;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// A sort that needs more than [`SMALL`] and can put it on disk.
const SPILLS: &str = "SELECT count(*) FROM (SELECT i, repeat('x', 50) AS s, row_number() OVER \
                      (ORDER BY -i) AS n FROM generate_series(1, 3000000) t (i)) t \
                      WHERE i + n = 3000001";
const SMALL: (&str, &str) = ("ORIBI_ENGINE_MEMORY_LIMIT", "64MiB");

/// The samples of one scrape, by name with labels as they are written.
struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    async fn of(daemon: &Daemon) -> Self {
        let answer = metrics(daemon).await;
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
        Self(samples(body))
    }

    /// 0 for what is not there: nobody has met it yet.
    fn get(&self, sample: &str) -> f64 {
        self.0.get(sample).copied().unwrap_or_default()
    }

    /// The names of its samples, labels left out.
    fn names(&self) -> BTreeSet<&str> {
        self.0.keys().map(|sample| sample.split('{').next().expect("a name")).collect()
    }
}

/// Reads the text format, and refuses what Prometheus would, or would take for something else.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut found = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let (mut helped, mut family, mut kind) = (String::new(), String::new(), String::new());
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').expect("a help text");
            assert!(!help.is_empty() && seen.insert(name.to_owned()), "{name} is there twice");
            helped = name.to_owned();
            continue;
        }
        if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, of) = typed.split_once(' ').expect("a type");
            assert_eq!(name, helped);
            (family, kind) = (name.to_owned(), of.to_owned());
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').expect("a value");
        let name = sample.split('{').next().expect("a name");
        let end = name.strip_prefix(&family).unwrap_or_else(|| panic!("{name} in {family}"));
        match kind.as_str() {
            "histogram" => assert!(["_bucket", "_sum", "_count"].contains(&end), "{line}"),
            "counter" => assert!(end.is_empty() && name.ends_with("_total"), "{line}"),
            other => assert!(other == "gauge" && end.is_empty(), "{line}"),
        }
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
        assert!(found.insert(sample.to_owned(), value).is_none(), "{sample} is there twice");
    }
    for (sample, count) in found.iter().filter(|(sample, _)| sample.contains("le=\"+Inf\"")) {
        let whole = sample.replacen("_bucket{", "_count{", 1);
        let whole = whole.replace(",le=\"+Inf\"", "").replace("le=\"+Inf\"", "");
        let whole = whole.trim_end_matches("{}");
        assert_eq!(found.get(whole), Some(count), "{sample} against {whole}");
    }
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What in an expression is a metric of a daemon.
fn metrics_in(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("oribi_") || word.starts_with("process_"))
}

/// All expressions of a dashboard.
fn expressions(json: &Value, found: &mut Vec<String>) {
    match json {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| match value {
            Value::String(text) if ["expr", "query"].contains(&name.as_str()) => {
                found.push(text.clone());
            }
            value => expressions(value, found),
        }),
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

/// Waits until what a daemon has counted is so.
async fn counted(daemon: &Daemon, what: &str, holds: impl Fn(&Scrape) -> bool) -> Scrape {
    eventually(what, async || Some(Scrape::of(daemon).await).filter(|scrape| holds(scrape))).await
}

const FINISHED: &str = "oribi_query_duration_seconds_count{state=\"finished\"}";
const FAILED: &str = "oribi_query_duration_seconds_count{state=\"failed\"}";
const CANCELLED: &str = "oribi_query_duration_seconds_count{state=\"cancelled\"}";
const RESULT_HITS: &str = "oribi_cache_hits_total{cache=\"results\"}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_move_as_statements_run() {
    bounded(async {
        let daemon = Daemon::start(&Options::new().env(SMALL.0, SMALL.1));
        let client = Client::connect(&daemon).await;
        client.rows("CREATE TABLE t (n bigint)").await;
        client.rows("INSERT INTO t SELECT * FROM generate_series(1, 1000)").await;
        let before = counted(&daemon, "two statements", |now| now.get(FINISHED) >= 2.0).await;
        assert_eq!(before.get("oribi_query_rows_total"), 1000.0);
        assert_eq!(before.get("oribi_connections{state=\"idle\"}"), 1.0);
        assert_eq!(before.get("oribi_connections_opened_total"), 1.0);
        // It has to be there before it grows.
        assert_eq!(before.0.get("oribi_client_errors_total{sqlstate=\"XX000\"}"), Some(&0.0));

        // Rows, and what was read for them; the second time nothing is.
        for _ in 0..2 {
            assert_eq!(client.rows("SELECT n FROM t WHERE n > 500").await.len(), 500);
        }
        let after = counted(&daemon, "the figures", |now| {
            now.get("oribi_query_scanned_rows_total") >= 1000.0 && now.get(FINISHED) >= 4.0
        })
        .await;
        assert_eq!(after.get(FINISHED), 4.0);
        assert_eq!(after.get("oribi_query_rows_total"), 2000.0);
        assert_eq!(after.get("oribi_query_scanned_rows_total"), 1000.0);
        assert!(after.get("oribi_query_scanned_bytes_total") > 1000.0);
        assert_eq!(after.get(RESULT_HITS) - before.get(RESULT_HITS), 1.0);
        let executed = "oribi_query_phase_seconds_sum{state=\"finished\",phase=\"execute\"}";
        assert!(after.get(executed) > before.get(executed), "{}", after.get(executed));
        for sent in ["oribi_client_sent_bytes_total", "oribi_client_received_bytes_total"] {
            assert!(after.get(sent) > before.get(sent), "{sent}");
        }

        // What does not end well, by how it ends.
        assert_eq!(client.outcome("SELECT 1 / (n - 1) FROM t").await, "22012");
        assert_eq!(client.outcome("SELEC 1").await, "42601");
        client.rows("SET statement_timeout = '100ms'").await;
        assert_eq!(client.outcome(ENDLESS).await, "57014");
        client.rows("RESET statement_timeout").await;
        let ended = counted(&daemon, "the failures", |now| now.get(CANCELLED) >= 1.0).await;
        assert_eq!((ended.get(FAILED), ended.get(CANCELLED)), (1.0, 1.0));
        for sqlstate in ["22012", "57014"] {
            let errors = format!("oribi_query_errors_total{{sqlstate=\"{sqlstate}\"}}");
            assert_eq!(ended.get(&errors), 1.0, "{errors}");
        }
        assert_eq!(ended.get("oribi_client_errors_total{sqlstate=\"42601\"}"), 1.0);

        // What does not fit into memory.
        assert_eq!(ended.get("oribi_query_spilled_bytes_total"), 0.0);
        assert_eq!(client.value(SPILLS).await, "3000000");
        let spilled = "oribi_query_spilled_bytes_total";
        let over = counted(&daemon, "spilled bytes", |now| now.get(spilled) > 0.0).await;
        assert_eq!(over.get("oribi_memory_limit_bytes"), 64.0 * 1024.0 * 1024.0);
        counted(&daemon, "nothing is left", |now| now.get("oribi_spill_bytes") == 0.0).await;

        // Clients that come, go, and are not let in.
        let other = Client::connect(&daemon).await;
        other.rows("BEGIN").await;
        let in_block = "oribi_connections{state=\"idle in transaction\"}";
        counted(&daemon, "a second client", |now| {
            now.get(in_block) == 1.0 && now.get("oribi_connections_opened_total") == 2.0
        })
        .await;
        drop(other);
        counted(&daemon, "it has gone", |now| now.get(in_block) == 0.0).await;
        let nobody = daemon.client_config().user("nobody").connect(tokio_postgres::NoTls).await;
        let code = db_error(&nobody.err().expect("there is no such role")).code().code().to_owned();
        let refused = format!("oribi_connections_refused_total{{sqlstate=\"{code}\"}}");
        assert_eq!(Scrape::of(&daemon).await.get(&refused), 1.0, "{refused}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_are_counted_without_a_history() {
    bounded(async {
        let daemon = Daemon::start(&Options::new().env("ORIBI_HISTORY_SIZE", "0B"));
        let client = Client::connect(&daemon).await;
        client.rows("CREATE TABLE t (n bigint)").await;
        client.rows("INSERT INTO t SELECT * FROM generate_series(1, 100)").await;
        client.rows("SELECT * FROM t").await;
        let scanned = "oribi_query_scanned_rows_total";
        let after = counted(&daemon, "the figures", |now| now.get(scanned) > 0.0).await;
        assert_eq!((after.get(scanned), after.get(FINISHED)), (100.0, 3.0));
        assert_eq!(after.get("oribi_history_forgotten_total"), 0.0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dashboard_rules_and_documents_name_what_there_is() {
    bounded(async {
        let daemon = Daemon::start(&Options::new());
        let client = Client::connect(&daemon).await;
        // What is there only where somebody has met it.
        client.rows("CREATE ROLE ann LOGIN").await;
        client.rows("CREATE POOL p WITH (concurrency = 1) TO ann").await;
        let busy = Client::connect_as(&daemon, "ann").await;
        assert_eq!(client.outcome("SELECT 1 / 0 FROM generate_series(1, 2)").await, "22012");
        daemon.client_config().user("nobody").connect(tokio_postgres::NoTls).await.err();
        let cancel = busy.cancel_token();
        let running = tokio::spawn(async move { busy.outcome(ENDLESS).await });
        let runs = "oribi_pool_running{pool=\"p\"}";
        let scrape = counted(&daemon, "a statement runs", |now| now.get(runs) == 1.0).await;
        assert_eq!(scrape.get("oribi_queries{state=\"running\"}"), 1.0);
        cancel.cancel_query(tokio_postgres::NoTls).await.expect("a cancel request");
        assert_eq!(running.await.expect("it ends"), "57014");

        let names = scrape.names();
        let mut wrong = Vec::new();
        for family in FAMILIES {
            let sample = match family.kind {
                Kind::Histogram => format!("{}_bucket", family.name),
                Kind::Gauge | Kind::Counter => family.name.to_owned(),
            };
            if !names.contains(sample.as_str()) {
                wrong.push(format!("{} is in no scrape", family.name));
            }
        }
        let dashboard: Value =
            serde_json::from_str(&read("config/grafana/oribi.json")).expect("JSON");
        let mut used = Vec::new();
        expressions(&dashboard, &mut used);
        assert!(used.len() > 50, "the dashboard cannot be read: {used:?}");
        let rules = read("config/prometheus/alerts.yml");
        let rules = rules.lines().filter_map(|line| line.trim().strip_prefix("expr: "));
        used.extend(rules.map(str::to_owned));
        for expression in &used {
            for name in metrics_in(expression).filter(|name| !names.contains(name)) {
                wrong.push(format!("there is no {name}: {expression}"));
            }
        }
        // And what the runbook asks can be asked.
        let book = read("src/help/runbook.md").replace("\n   ", " ").replace('\n', " ");
        let questions = book.split('`').filter(|text| text.starts_with("SELECT "));
        let questions: Vec<String> = questions
            .map(|sql| sql.replace("'...'", "'019ac3f0-0000-7000-8000-000000000000'"))
            .map(|sql| sql.replace("'/oribi', 10", "'/', 1"))
            .collect();
        assert!(questions.len() > 10, "{questions:?}");
        for sql in questions {
            if let Err(error) = client.try_rows(&sql).await {
                wrong.push(format!("{sql}: {error:?}"));
            }
        }
        assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    })
    .await;
}

#[test]
fn every_alert_has_its_section() {
    let (rules, book) = (read("config/prometheus/alerts.yml"), read("src/help/runbook.md"));
    let named = |start: &str| -> Vec<String> {
        let lines = rules.lines().filter_map(|line| line.trim().strip_prefix(start));
        lines.map(str::to_owned).collect()
    };
    let alerts = named("- alert: ");
    let sections: Vec<&str> = book.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert!(alerts.len() > 10);
    assert_eq!(alerts, sections);
    let anchors = alerts.iter().map(|alert| format!("runbook.md#{}", alert.to_lowercase()));
    assert_eq!(named("runbook_url: "), anchors.collect::<Vec<_>>());
    // Those that sections refer to.
    for link in book.split("](#").skip(1) {
        let link = link.split(')').next().expect("an end");
        assert!(alerts.iter().any(|alert| alert.to_lowercase() == link), "{link}");
    }
}

#[test]
fn the_table_of_metrics_is_that_of_the_code() {
    let written = read("src/help/metrics.md");
    assert!(written.ends_with(&table()), "src/help/metrics.md should end with\n{}", table());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_has_one_name_on_all_daemons() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper()
            .with("LOG_FILTER", "info,oribi::engine=debug")
            .with("LOG_FORMAT", "json");
        answers::generate("0.01", &cluster.path(""));
        let daemons = cluster.start_together(["a", "b"]).await;
        let client = Client::connect(&daemons[0]).await;
        client.rows(&answers::tables("public", &cluster.path("tpch/sf0.01"))).await;
        client.rows("SET oribi.distribution = 'always'").await;
        client.rows("SELECT l_returnflag, sum(l_quantity) FROM lineitem GROUP BY 1").await;
        let id = "SELECT id FROM system.query_history WHERE sql LIKE 'SELECT l_returnflag%'";
        let id = client.value(id).await;
        let line = eventually("the worker's log names it", async || {
            let log = daemons[1].log();
            log.lines().find(|line| line.contains(&id)).map(str::to_owned)
        })
        .await;
        let line: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(line["fields"]["statement"], id.as_str(), "{line}");
        let here = counted(&daemons[0], "it was spread", |now| {
            now.get("oribi_distribution_queries_total") == 1.0
        });
        let there = counted(&daemons[1], "it had a part", |now| {
            now.get("oribi_distribution_parts_admitted_total") > 0.0
        });
        let (here, there) = tokio::join!(here, there);
        assert_eq!(here.get("oribi_cluster_daemons{state=\"ready\"}"), 2.0);
        assert_eq!(there.get("oribi_distribution_queries_total"), 0.0);
        // What was done there counts here, and there it does not.
        let scanned = "oribi_query_scanned_rows_total";
        counted(&daemons[0], "what was read", |now| now.get(scanned) >= 60_000.0).await;
        assert_eq!(there.get(scanned), 0.0);
        let leaders = here.get("oribi_leader") + there.get("oribi_leader");
        assert_eq!(leaders, 1.0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_keep_quiet_of_constants_and_change_their_level() {
    bounded(async {
        let options = Options::new().env("ORIBI_HISTORY_SLOW", "1us").env("ORIBI_LOG_FORMAT", "json");
        let daemon = Daemon::start(&options);
        let client = Client::connect(&daemon).await;
        client.rows("SELECT 'shown', 4711").await;
        let slow = async |part: &str| -> Value {
            let line = eventually(part, async || {
                let log = daemon.log();
                let mut lines = log.lines().filter(|line| line.contains("oribi::slow"));
                lines.find(|line| line.contains(part)).map(str::to_owned)
            });
            serde_json::from_str(&line.await).expect("JSON")
        };
        assert_eq!(slow("4711").await["fields"]["sql"], "SELECT 'shown', 4711");

        client.rows("ALTER SYSTEM SET log.literals = off").await;
        client.rows("SELECT 'hidden' AS it, 4712 /* hidden */").await;
        let line = slow("AS it").await;
        assert_eq!(line["fields"]["sql"], "SELECT $1 AS it, $2  ");
        let id = "SELECT id FROM system.query_history WHERE sql LIKE '%AS it, 4712%' AND tag = 'SELECT 1'";
        assert_eq!(client.value(id).await, line["fields"]["id"].as_str().expect("an id"));
        let log = daemon.log();
        assert!(!log.contains("hidden") && !log.contains("4712"), "{log}");

        // More is logged at once, and less again.
        let debug = || daemon.log().matches("\"level\":\"DEBUG\"").count();
        assert_eq!(debug(), 0);
        client.rows("ALTER SYSTEM SET log.filter = 'debug'").await;
        until("lines of the level DEBUG", async || {
            // Somebody who does not speak the protocol.
            let mut stranger = TcpStream::connect(daemon.postgres()).await.expect("a connection");
            stranger.write_all(&[0; 8]).await.expect("sent");
            debug() > 0
        })
        .await;
        client.rows("ALTER SYSTEM RESET log.filter").await;
        let log = daemon.log();
        assert!(!log.contains("hidden") && !log.contains("4712"), "{log}");
    })
    .await;
}

/// A collector of traces: the spans that it was sent.
async fn collector() -> (String, tokio::sync::mpsc::UnboundedReceiver<Value>) {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("an address");
    let (sender, spans) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = socket.accept().await {
            let sender = sender.clone();
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                loop {
                    let (mut head, mut length) = (String::new(), 0);
                    while stream.read_line(&mut head).await.expect("a line") > 2 {
                        let last = head.lines().last().unwrap_or_default().to_lowercase();
                        if let Some(value) = last.strip_prefix("content-length: ") {
                            length = value.trim().parse().expect("a number");
                        }
                    }
                    if head.is_empty() {
                        return;
                    }
                    assert!(head.starts_with("POST /v1/traces HTTP/1.1"), "{head}");
                    assert!(head.to_lowercase().contains("x-key: a b"), "{head}");
                    let mut body = vec![0; length];
                    stream.read_exact(&mut body).await.expect("a body");
                    let body: Value = serde_json::from_slice(&body).expect("JSON");
                    let from = &body["resourceSpans"][0];
                    assert!(from["resource"].to_string().contains("\"service.name\""), "{from}");
                    let spans = from["scopeSpans"][0]["spans"].as_array().expect("spans");
                    spans.iter().for_each(|span| drop(sender.send(span.clone())));
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
                    stream.write_all(answer).await.expect("sent");
                }
            });
        }
    });
    (format!("http://{address}"), spans)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_has_the_spans_of_all_daemons() {
    bounded(async {
        let (endpoint, mut spans) = collector().await;
        let cluster = Cluster::on_shared_zookeeper()
            .with_variable("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)
            .with_variable("OTEL_EXPORTER_OTLP_HEADERS", "x-key=a%20b")
            .with_variable("OTEL_BSP_SCHEDULE_DELAY", "100");
        answers::generate("0.01", &cluster.path(""));
        let daemons = cluster.start_together(["a", "b"]).await;
        let client = Client::connect(&daemons[0]).await;
        client.rows(&answers::tables("public", &cluster.path("tpch/sf0.01"))).await;
        client.rows("SET oribi.distribution = 'always'").await;
        client.rows("SELECT l_returnflag, sum(l_quantity) FROM lineitem GROUP BY 1").await;
        assert_eq!(client.outcome("SELECT * FROM nowhere").await, "42P01");
        let id = "SELECT id FROM system.query_history WHERE sql LIKE 'SELECT l_returnflag%'";
        let id = client.value(id).await.replace('-', "");
        let (mut own, mut others, mut failed) = (None, Vec::new(), None);
        while own.is_none() || others.is_empty() || failed.is_none() {
            let span = spans.recv().await.expect("a span");
            match (&span["traceId"], &span["parentSpanId"]) {
                (trace, parent) if *trace == id && *parent == "" => own = Some(span),
                (trace, _) if *trace == id => others.push(span),
                _ if span["status"]["code"] == 2 => failed = Some(span),
                _ => {}
            }
        }
        let (own, failed) = (own.expect("found"), failed.expect("found"));
        assert_eq!(own["name"], "SELECT");
        let attribute = |span: &Value, key: &str| {
            let all = span["attributes"].as_array().expect("attributes");
            let found = all.iter().find(|attribute| attribute["key"] == key);
            found.unwrap_or_else(|| panic!("no {key}: {span}"))["value"].clone()
        };
        assert_eq!(attribute(&own, "oribi.daemon")["stringValue"], "a");
        assert_eq!(attribute(&own, "oribi.scanned_rows")["intValue"], "60175");
        assert_eq!(attribute(&failed, "db.response.status_code")["stringValue"], "42P01");
        for other in &others {
            assert_eq!(other["parentSpanId"], own["spanId"]);
            assert_eq!(attribute(other, "oribi.daemon")["stringValue"], "b");
        }
        counted(&daemons[0], "spans", |now| now.get("oribi_traces_sent_total") > 0.0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_degraded_daemon_is_ready_or_not_as_configured() {
    bounded(async {
        let mut server = Server::start();
        let cluster = Cluster::on(&server.connect_string());
        let daemon = cluster.with("HEALTH_READY_WHEN_DEGRADED", "off").start("a");
        assert_eq!(readyz(&daemon).await.expect("an answer").0, 200);
        let well = Scrape::of(&daemon).await;
        assert_eq!(well.get("oribi_ready"), 1.0);
        assert_eq!(well.get("oribi_coordination_connected"), 1.0);
        assert_eq!(well.get("oribi_coordination_sessions_total"), 1.0);
        let writes = "oribi_coordination_request_duration_seconds_count{operation=\"write\"}";
        assert!(well.get(writes) > 0.0);
        server.stop();
        until("not ready", async || readyz(&daemon).await.is_some_and(|(code, _)| code == 503))
            .await;
        let (_, body) = readyz(&daemon).await.expect("an answer");
        assert_eq!(body["state"], "degraded");
        let alone =
            counted(&daemon, "out of touch", |now| now.get("oribi_coordination_connected") == 0.0)
                .await;
        assert_eq!(alone.get("oribi_ready"), 0.0);
        assert_eq!(alone.get("oribi_daemon_state{state=\"degraded\"}"), 1.0);
        server.restart();
        until("ready", async || readyz(&daemon).await.is_some_and(|(code, _)| code == 200)).await;
    })
    .await;
}
