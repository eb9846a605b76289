//! Tables in a bucket: their whole life, several daemons, daemons that die, large objects, other
//! readers, what is said when the bucket cannot be used, and that nobody sees the credentials.

mod common;

#[path = "faults/checker.rs"]
#[allow(dead_code)]
mod checker;
#[path = "s3/failing.rs"]
mod failing;
#[path = "faults/history.rs"]
#[allow(dead_code)]
mod history;
#[path = "fuzz/mutate.rs"]
#[allow(dead_code)]
mod mutate;
#[path = "clients/python.rs"]
mod python;
#[path = "cluster/support.rs"]
mod support;
#[path = "faults/trouble.rs"]
mod trouble;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use common::daemon::{Daemon, Options, PATIENCE};
use common::s3::S3;
use futures::SinkExt;
use serde_json::json;
use support::{Client, Cluster, Store, all_ready, bounded, metrics, until};

fn interpreter() -> PathBuf {
    python::python(
        &["moto.server", "boto3", "pyiceberg", "pyarrow", "psycopg"],
        "'moto[server]' pyiceberg pyarrow 'psycopg[binary]'",
    )
}

fn server() -> S3 {
    S3::start(&interpreter())
}

/// A daemon alone whose warehouse is in the bucket, and that looks after tables only when asked.
fn options(s3: &S3) -> Options {
    let quiet = Options::new()
        .env("ORIBI_WAREHOUSE", "s3://lake/warehouse")
        .env("ORIBI_MAINTENANCE_INTERVAL", "none")
        .env("ORIBI_MAINTENANCE_ORPHAN_GRACE", "0s");
    s3.variables().into_iter().fold(quiet, |options, (name, value)| options.env(name, value))
}

/// A statement that writes some parts of an object.
const LARGE: &str = "INSERT INTO large SELECT i, repeat(md5(i::text), 16) \
                     FROM generate_series(1, 100000) g(i)";

/// One that is not at its end when the first parts are on their way.
const LONG: &str = "INSERT INTO large SELECT i, repeat(md5(i::text), 16) \
                    FROM generate_series(1, 100000000) g(i)";

const MAKE_LARGE: &str = "CREATE TABLE large (i bigint, s text) WITH (\
                          \"write.parquet.compression-codec\" = 'uncompressed', \
                          \"write.parquet.row-group-size-bytes\" = '2097152')";

#[tokio::test(flavor = "multi_thread")]
async fn a_table_lives_in_a_bucket() {
    bounded(async {
        let s3 = server();
        let daemon = Daemon::start(&options(&s3));
        let client = Client::connect(&daemon).await;
        client.rows("CREATE TABLE t (a int, b text, d date) PARTITIONED BY (b)").await;
        client.rows("INSERT INTO t VALUES (1, 'x/ö %', '2020-01-01'), (2, 'y', NULL)").await;
        client.rows("UPDATE t SET a = a + 10 WHERE b = 'y'").await;
        client.rows("INSERT INTO t SELECT i, 'many' FROM generate_series(100, 199) g(i)").await;
        client.rows("DELETE FROM t WHERE a BETWEEN 150 AND 159").await;
        let sum = "SELECT count(*) || ' ' || sum(a) FROM t";
        let expected = (100..=199).filter(|a| !(150..=159).contains(a)).sum::<i32>() + 13;
        assert_eq!(client.value(sum).await, format!("92 {expected}"));
        client.rows("CREATE TABLE copied AS SELECT * FROM t").await;
        client.rows("INSERT OVERWRITE TABLE copied SELECT 7, 'z', NULL").await;
        assert_eq!(client.rows("SELECT a, b FROM copied").await, [["7", "z"]]);
        let plain = daemon.connect().await;
        let copy = plain.copy_in("COPY copied FROM STDIN WITH (FORMAT csv)").await.expect("COPY");
        let mut copy = Box::pin(copy);
        copy.send(bytes::Bytes::from("8,c,2021-01-01\n9,d,\n")).await.expect("rows");
        assert_eq!(copy.as_mut().finish().await.expect("rows"), 2);
        client.rows("BEGIN; DELETE FROM copied WHERE a = 8; INSERT INTO t (a) VALUES (0); COMMIT").await;
        assert_eq!(client.value("SELECT sum(a) FROM copied").await, "16");
        client.rows("ALTER TABLE copied RENAME COLUMN b TO renamed, ADD COLUMN later int").await;
        assert_eq!(client.value("SELECT renamed FROM copied WHERE a = 9").await, "d");
        for n in 0..5 {
            client.rows(&format!("INSERT INTO copied (a) VALUES ({n})")).await;
        }
        client.rows("OPTIMIZE copied; VACUUM copied RETAIN '0s'").await;
        assert_eq!(s3.objects_like("warehouse/oribi/public/copied-", ".parquet").len(), 1);
        assert_eq!(client.value("SELECT sum(a) FROM copied").await, "26");
        client.rows("TRUNCATE copied").await;
        // A bucket of one's own, and files of others.
        client.rows("CREATE TABLE elsewhere (a int) LOCATION 's3://lake/elsewhere'").await;
        client.rows("INSERT INTO elsewhere VALUES (5)").await;
        let key = &s3.objects_like("elsewhere/", ".parquet")[0];
        let external = format!("CREATE EXTERNAL TABLE e STORED AS PARQUET LOCATION 's3://lake/{key}'");
        client.rows(&external).await;
        s3.call("put_object", &json!({"Bucket": "lake", "Key": "csv/k=1/a.csv", "Body": "x\n41\n"}));
        client
            .rows(
                "CREATE EXTERNAL TABLE c STORED AS CSV PARTITIONED BY (k) LOCATION 's3://lake/csv/' \
                 OPTIONS ('has_header' 'true')",
            )
            .await;
        assert_eq!(client.value("SELECT e.a + c.x + c.k::int FROM e, c").await, "47");
        // What another table names stays.
        client.rows("DROP TABLE e").await;
        for table in ["t", "copied", "elsewhere"] {
            client.rows(&format!("DROP TABLE {table} PURGE")).await;
        }
        assert_eq!(s3.objects("warehouse/"), [""; 0]);
        assert_eq!(s3.objects("elsewhere/"), [""; 0]);
    })
    .await;
}

/// As `cat a.json.zst b.json.zst` makes a file.
#[tokio::test(flavor = "multi_thread")]
async fn all_parts_of_packed_files_of_text_are_read() {
    bounded(async {
        let s3 = server();
        let daemon = Daemon::start(&options(&s3));
        let client = Client::connect(&daemon).await;
        for (format, parts, header) in [
            ("csv", ["a,b\n1,2\n", "3,4\n"], ", 'has_header' 'true'"),
            ("json", ["{\"a\":1}\n", "{\"a\":3,\"b\":6}\n"], ""),
        ] {
            let pack = |part: &str| zstd::encode_all(part.as_bytes(), 1).expect("packed");
            let file = format!("parts.{format}.zst");
            let packed = BASE64.encode(parts.map(pack).concat());
            let body = json!({"Bucket": "lake", "Key": file, "Body": {"base64": packed}});
            s3.call("put_object", &body);
            let create = format!(
                "CREATE EXTERNAL TABLE {format} STORED AS {format} LOCATION 's3://lake/{file}' \
                 OPTIONS ('compression' 'zstd'{header})"
            );
            client.rows(&create).await;
            let sums = format!("SELECT sum(a), sum(b) FROM {format}");
            assert_eq!(client.rows(&sums).await, [["4", "6"]], "{format}");
        }
    })
    .await;
}

#[test]
fn pyiceberg_reads_the_same_rows_from_a_bucket() {
    let s3 = server();
    let daemon = Daemon::start(&options(&s3));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tables/read.py");
    let properties = json!({
        "s3.endpoint": s3.endpoint,
        "s3.access-key-id": s3.key,
        "s3.secret-access-key": s3.secret,
        "s3.region": "us-east-1",
    });
    let report = python::run(Command::new(interpreter()).arg(script).args([
        daemon.postgres().ip().to_string(),
        daemon.postgres().port().to_string(),
        properties.to_string(),
    ]));
    assert!(report.ends_with("14 states agree\n"), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_share_a_bucket_and_nobody_sees_the_credentials() {
    bounded(async {
        let s3 = server();
        let cluster = Cluster::on_shared_zookeeper().with("WAREHOUSE", "s3://lake/shared");
        let variables = s3.variables().into_iter();
        let cluster =
            variables.fold(cluster, |cluster, (name, value)| cluster.with_variable(name, &value));
        let daemons = cluster.start_all(["a", "b"]);
        let (one, other) = (Client::connect(&daemons[0]).await, Client::connect(&daemons[1]).await);
        one.rows("CREATE TABLE t (a int)").await;
        for n in 0..5 {
            one.rows(&format!("INSERT INTO t VALUES ({n})")).await;
            other.rows(&format!("INSERT INTO t VALUES ({})", 10 + n)).await;
        }
        other.rows("SET oribi.consistency = 'strong'").await;
        other.rows("UPDATE t SET a = a + 1").await;
        one.rows("SET oribi.consistency = 'strong'").await;
        assert_eq!(one.value("SELECT count(*) || ' ' || sum(a) FROM t").await, "10 80");
        let mut seen = Vec::new();
        let keys = format!("'s3://{}:{}@lake/x/'", s3.key, s3.secret.replace('/', "%2F"));
        for refused in [
            format!("CREATE EXTERNAL TABLE e (a int) STORED AS PARQUET LOCATION {keys}"),
            format!("CREATE TABLE e (a int) LOCATION {keys}"),
            "CREATE EXTERNAL TABLE e STORED AS PARQUET LOCATION 's3://lake/none/'".to_owned(),
            "CREATE EXTERNAL TABLE e STORED AS PARQUET LOCATION 's3://no-bucket/none/'".to_owned(),
            "CREATE TABLE e (a int) LOCATION 's3://no-bucket/none/'".to_owned(),
        ] {
            let error = one.refused(&refused).await;
            assert_ne!(error.code().code(), "XX000", "{refused}: {error:?}");
            seen.push((refused, format!("{error:?}")));
        }
        let relations = "SELECT table_schema || '.' || quote_ident(table_name) \
                         FROM information_schema.tables";
        let relations = one.rows(relations).await;
        assert!(relations.iter().any(|name| name[0] == "system.settings"), "{relations:?}");
        for relation in relations {
            let rows = one.rows(&format!("SELECT * FROM {}", relation[0])).await;
            seen.push((relation[0].clone(), format!("{rows:?}")));
        }
        seen.extend(Store::of(&cluster).await.all().await);
        seen.extend(daemons.iter().map(|daemon| ("the log".to_owned(), daemon.log())));
        for key in s3.objects("shared/") {
            let object = s3.call("get_object", &json!({"Bucket": "lake", "Key": key}));
            seen.push((key, object["Body"].as_str().expect("a body").to_owned()));
        }
        assert!(seen.iter().any(|(_, text)| text.contains("s3://lake/shared")));
        for secret in [&s3.secret, &s3.secret.replace('/', "%2F"), &s3.key] {
            let shown = seen.iter().find(|(_, text)| text.contains(secret.as_str()));
            assert!(shown.is_none(), "{shown:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_read_a_bucket_together() {
    bounded(async {
        let s3 = server();
        let cluster = Cluster::on_shared_zookeeper().with("WAREHOUSE", "s3://lake/spread");
        let variables = s3.variables().into_iter();
        let cluster =
            variables.fold(cluster, |cluster, (name, value)| cluster.with_variable(name, &value));
        let daemons = cluster.start_all(["a", "b", "c"]);
        let client = Client::connect(&daemons[0]).await;
        all_ready(&client, &["a", "b", "c"]).await;
        client.rows("CREATE TABLE managed (a int, b text, k text) PARTITIONED BY (k)").await;
        for n in 0..6 {
            let rows = format!("SELECT i, md5(i::text), 'k' || i % 4 FROM generate_series({n}000, {n}999) g(i)");
            client.rows(&format!("INSERT INTO managed {rows}")).await;
        }
        client.rows("DELETE FROM managed WHERE a % 10 = 3").await;
        let key = s3.objects_like("spread/", ".parquet").pop().expect("a file");
        for day in ["2024-01-01", "2024-01-02"] {
            let copy = json!({"Bucket": "lake", "Key": format!("hive/day={day}/x.parquet"),
                              "CopySource": {"Bucket": "lake", "Key": key}});
            s3.call("copy_object", &copy);
        }
        client
            .rows(
                "CREATE EXTERNAL TABLE hive STORED AS PARQUET PARTITIONED BY (day) \
                 LOCATION 's3://lake/hive/'",
            )
            .await;
        for sql in [
            "SELECT k, count(*), sum(a), min(b) FROM managed GROUP BY k ORDER BY k",
            "SELECT m.k, h.day, count(*) FROM managed m JOIN hive h ON m.a = h.a GROUP BY 1, 2 ORDER BY 1, 2",
            "SELECT day, count(*), max(b) FROM hive GROUP BY day ORDER BY day",
            "SELECT a, b FROM managed ORDER BY b",
        ] {
            client.rows("SET oribi.distribution = 'off'").await;
            let expected = client.rows(sql).await;
            assert!(!expected.is_empty(), "{sql}");
            client.rows("SET oribi.distribution = 'always'").await;
            let plan = client.value(&format!("EXPLAIN {sql}")).await;
            assert!(plan.starts_with("Workers: a, b, c "), "{sql}: {plan}");
            assert_eq!(client.rows(sql).await, expected, "{sql}");
        }
        // The workers have read it themselves.
        for daemon in &daemons[1..] {
            let told = metrics(daemon).await;
            assert!(!told.contains("oribi_cache_entries{cache=\"parquet_footers\"} 0\n"), "{told}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_dies_while_it_sends_leaves_the_table_as_it_was() {
    bounded(async {
        let s3 = server();
        let options = options(&s3);
        let daemon = Daemon::start(&options);
        let client = Client::connect(&daemon).await;
        client.rows(MAKE_LARGE).await;
        client.rows("INSERT INTO large VALUES (1, 'a'), (2, 'b')").await;
        let writer = tokio::spawn(async move { client.try_rows(LONG).await });
        until("a part is on its way", async || s3.uploads() > 0).await;
        daemon.kill();
        assert!(writer.await.expect("the task ends").is_err());
        for point in ["metadata is written", "a commit is to be made"] {
            let dying = Daemon::start(&options.clone().env("ORIBI_FAULT", point));
            let client = Client::connect(&dying).await;
            assert!(client.try_rows("UPDATE large SET i = 100").await.is_err());
            dying.wait(PATIENCE);
        }
        let daemon = Daemon::start(&options);
        let client = Client::connect(&daemon).await;
        let sum = "SELECT count(*) || ' ' || sum(i) FROM large";
        assert_eq!(client.value(sum).await, "2 3");
        client.rows("INSERT INTO large VALUES (3, 'c')").await;
        let before = s3.objects_like("warehouse/", ".parquet").len();
        client.rows("VACUUM large RETAIN '0s'").await;
        assert_eq!(client.value(sum).await, "3 6");
        let after = s3.objects_like("warehouse/", ".parquet").len();
        // One file for each INSERT and each UPDATE that came to nothing.
        assert_eq!((before, after), (4, 2));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_objects_go_in_parts_and_those_given_up_are_taken_back() {
    bounded(async {
        let s3 = server();
        let daemon = Daemon::start(&options(&s3));
        let client = Client::connect(&daemon).await;
        client.rows(MAKE_LARGE).await;
        client.rows(LARGE).await;
        assert_eq!(s3.uploads(), 0);
        let count = "SELECT count(DISTINCT i) || ' ' || sum(length(s)) FROM large";
        assert_eq!(client.value(count).await, format!("100000 {}", 100_000 * 512));
        let written = s3.objects_like("warehouse/", ".parquet");
        let in_parts = |key: &String| {
            let head = s3.call("head_object", &json!({"Bucket": "lake", "Key": key}));
            // That is how objects that came in parts are marked.
            head["ETag"].as_str().expect("a mark").contains('-')
        };
        assert!(written.iter().all(in_parts), "{written:?}");
        // Cancelled, and failed at its end.
        let canceller = client.cancel_token();
        let running = tokio::spawn(async move {
            let refused = client.refused(LONG).await;
            (client, refused)
        });
        until("a part is on its way", async || s3.uploads() > 0).await;
        canceller.cancel_query(tokio_postgres::NoTls).await.expect("a request to cancel");
        let (client, refused) = running.await.expect("the task ends");
        assert_eq!(refused.code().code(), "57014");
        let failing = LONG.replace("SELECT i", "SELECT 1 / (150000 - i)");
        assert_eq!(client.outcome(&failing).await, "22012");
        until("nothing is left", async || {
            s3.uploads() == 0 && s3.objects_like("warehouse/", ".parquet") == written
        })
        .await;
        assert_eq!(client.value(count).await, format!("100000 {}", 100_000 * 512));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_cannot_be_used_is_told_with_its_reason() {
    bounded(async {
        let s3 = server();
        let there = options(&s3);
        let daemon = Daemon::start(&there);
        Client::connect(&daemon).await.rows("CREATE TABLE t (a int)").await;
        drop(daemon);
        let closed = TcpListener::bind("127.0.0.1:0").expect("a port");
        let nobody = format!("http://{}", closed.local_addr().expect("an address"));
        drop(closed);
        // Connections are taken, and nothing is ever said.
        let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
        let silence = format!("http://{}", silent.local_addr().expect("an address"));
        for (name, value, code, words) in [
            ("AWS_SECRET_ACCESS_KEY", "other", "42501", "no permission"),
            ("AWS_ACCESS_KEY_ID", "AKIANOBODY", "42501", "no permission"),
            ("AWS_ENDPOINT_URL", nobody.as_str(), "58030", "error sending request"),
            ("AWS_ENDPOINT_URL", silence.as_str(), "58030", "error sending request"),
            ("AWS_ALLOW_HTTP", "false", "22023", "AWS_ALLOW_HTTP=true"),
        ] {
            let daemon = Daemon::start(&there.clone().env(name, value).env("AWS_TIMEOUT", "2s"));
            let client = Client::connect(&daemon).await;
            for statement in [
                "SELECT * FROM t",
                "INSERT INTO t VALUES (1)",
                "CREATE TABLE u (a int)",
                "CREATE TABLE u AS SELECT 1 AS a",
                "CREATE EXTERNAL TABLE e STORED AS PARQUET LOCATION 's3://lake/e/'",
            ] {
                let start = Instant::now();
                let error = client.refused(statement).await;
                let took = start.elapsed();
                let message = format!("{} {}", error.code().code(), error.message());
                assert_eq!(error.code().code(), code, "{name}: {statement}: {message}");
                assert!(message.contains(words), "{name}: {statement}: {message}");
                assert!(!message.contains("<"), "{name}: {statement}: {message}");
                assert!(took < Duration::from_secs(60), "{name}: {statement}: {took:?}");
            }
            assert!(!daemon.log().contains(&s3.secret));
            // The daemon itself goes on.
            assert_eq!(client.value("SELECT 1").await, "1");
        }
        let daemon = Daemon::start(&there);
        let client = Client::connect(&daemon).await;
        client.rows("INSERT INTO t VALUES (1)").await;
        assert_eq!(client.value("SELECT count(*) FROM t").await, "1");
        // A table whose query fails leaves nothing behind.
        let before = s3.objects("warehouse/");
        assert_eq!(
            client.outcome("CREATE TABLE u AS SELECT 1 / (x - x) FROM (SELECT 1 AS x)").await,
            "22012"
        );
        assert_eq!(s3.objects("warehouse/"), before);
        // One that is dropped is dropped, also when its files cannot be removed.
        drop((client, daemon));
        let daemon = Daemon::start(&there.clone().env("AWS_SECRET_ACCESS_KEY", "other"));
        let client = Client::connect(&daemon).await;
        client.rows("DROP TABLE t PURGE").await;
        assert_eq!(client.outcome("SELECT * FROM t").await, "42P01");
        assert_eq!(s3.objects("warehouse/"), before);
    })
    .await;
}

/// A warehouse that names a user would be shown to all.
#[test]
fn a_warehouse_with_credentials_is_refused_at_the_start() {
    let options = Options::new().env("ORIBI_WAREHOUSE", "s3://key:s3cret@lake/warehouse");
    let ended = Daemon::spawn(&options);
    assert_ne!(ended.code, Some(0));
    assert!(
        ended.stderr.contains("warehouse") && ended.stderr.contains("AWS_"),
        "{}",
        ended.stderr
    );
    assert!(!ended.stderr.contains("s3cret"), "{}", ended.stderr);
}
