//! ZooKeeper as SQL: what is read of it and by whom, what is watched, and how its servers are.

mod common;

#[path = "cluster/support.rs"]
mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use zookeeper_client::{Acls, Client as Keeper, CreateMode, CreateOptions};

use common::zookeeper::{Ensemble, Server};
use support::*;

fn open() -> CreateOptions<'static> {
    CreateMode::Persistent.with_acls(Acls::anyone_all())
}

async fn keeper(hosts: &str) -> Keeper {
    let connector = Keeper::connector().with_session_timeout(PATIENCE);
    connector.connect(hosts).await.expect("a connection")
}

async fn make(keeper: &Keeper, path: &str, data: &str) {
    keeper.create(path, data.as_bytes(), &open()).await.unwrap_or_else(|e| panic!("{path}: {e}"));
}

/// Something of others, beside the cluster's chroot.
async fn fill(keeper: &Keeper) {
    for (path, data) in [
        ("/kafka", ""),
        ("/kafka/brokers", "x"),
        ("/kafka/brokers/ids", ""),
        ("/kafka/brokers/ids/1", r#"{"host":"one","port":9092}"#),
        ("/kafka/brokers/ids/2", r#"{"host":"two","port":9092}"#),
        ("/kafka/brokers/ids/3", "not json"),
        ("/kafka/topics", ""),
        ("/kafkaesque", "y"),
    ] {
        make(keeper, path, data).await;
    }
}

/// What the session for SQL has read from ZooKeeper so far.
async fn reads(client: &Client) -> u64 {
    let reads = "SELECT reads FROM system.coordination WHERE purpose = 'sql'";
    client.value(reads).await.parse().expect("a number")
}

#[tokio::test]
async fn no_more_znodes_are_read_than_are_asked_for() {
    let server = Server::start();
    let keeper = keeper(&server.connect_string()).await;
    fill(&keeper).await;
    let cluster = Cluster::on(&server.connect_string());
    let daemon = cluster.start("a");
    let client = Client::connect(&daemon).await;
    let brokers = "SELECT path FROM zk.nodes WHERE path = '/kafka/brokers'";
    assert_eq!(client.value(brokers).await, "/kafka/brokers");
    // The statement, how many calls it takes, and its rows' first column.
    for (sql, calls, expected) in [
        ("SELECT path, data FROM zk.nodes WHERE path = '/kafka/brokers'", 1, "/kafka/brokers"),
        ("SELECT * FROM zk.nodes WHERE path = '/kafka/brokers'", 1, "/kafka/brokers"),
        ("SELECT path FROM zk.nodes WHERE path = '/kafka/nothing'", 1, ""),
        ("SELECT path FROM zk.nodes WHERE path = 'kafka/'", 1, ""),
        (
            "SELECT path, version FROM zk.nodes WHERE path IN ('/kafka', '/kafkaesque') ORDER BY 1",
            2,
            "/kafka /kafkaesque",
        ),
        // The names are in their parent's list.
        ("SELECT name FROM zk.nodes WHERE parent = '/kafka/brokers/ids' ORDER BY 1", 1, "1 2 3"),
        (
            "SELECT name, data FROM zk.nodes WHERE parent = '/kafka/brokers/ids' ORDER BY 1",
            4,
            "1 2 3",
        ),
        ("SELECT name, data FROM zk.nodes WHERE parent = '/kafka/brokers/ids' LIMIT 1", 2, "1"),
        // The root, and the two that begin so; the names below one of these.
        (
            "SELECT name FROM zk.nodes WHERE path LIKE '/kafka%' AND depth = 1 ORDER BY 1",
            1,
            "kafka kafkaesque",
        ),
        (
            "SELECT path FROM zk.nodes WHERE path LIKE '/kafka/%' AND depth <= 2 ORDER BY 1",
            1,
            "/kafka/brokers /kafka/topics",
        ),
        (
            "SELECT count(*) FROM zk.nodes WHERE path LIKE '/kafka/brokers/ids/%' AND depth = 4",
            1,
            "3",
        ),
        ("SELECT depth FROM zk.nodes WHERE depth = 0", 1, "0"),
    ] {
        let before = reads(&client).await;
        let rows = client.rows(sql).await;
        let found: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
        assert_eq!(found.join(" "), expected, "{sql}");
        assert_eq!(reads(&client).await - before, calls, "{sql}");
    }
}

#[tokio::test]
async fn rows_say_what_zookeeper_says() {
    let server = Server::start();
    let keeper = keeper(&server.connect_string()).await;
    fill(&keeper).await;
    keeper.set_data("/kafka/brokers", b"z", None).await.expect("changed");
    let cluster = Cluster::on(&server.connect_string());
    let daemon = cluster.start("a");
    let client = Client::connect(&daemon).await;
    let (_, stat) = keeper.get_data("/kafka/brokers").await.expect("a node");
    let row = client
        .rows(
            "SELECT name, parent, depth, data, value, czxid, mzxid, pzxid, version, cversion, \
                    aversion, ephemeral_owner, data_length, num_children, note, \
                    round(date_part('epoch', mtime) * 1000) \
             FROM zk.nodes WHERE path = '/kafka/brokers'",
        )
        .await
        .remove(0);
    let numbers = [stat.czxid, stat.mzxid, stat.pzxid].map(|zxid| zxid.to_string());
    assert_eq!(row[..5], ["brokers", "/kafka", "2", "\\x7a", ""]);
    assert_eq!(row[5..8], numbers);
    assert_eq!(row[8..15], ["1", &stat.cversion.to_string(), "0", "0", "1", "1", ""]);
    assert_eq!(row[15].parse::<f64>().expect("a time") as i64, stat.mtime);
    let json = "SELECT value FROM zk.nodes WHERE parent = '/kafka/brokers/ids' ORDER BY path";
    let one = r#"{"host":"one","port":9092}"#;
    let two = r#"{"host":"two","port":9092}"#;
    assert_eq!(client.rows(json).await, [[one], [two], [""]]);
    // Own nodes are there, too, and a walk through everything finds each node once.
    let once = "SELECT count(*) > 10 AND count(*) = count(DISTINCT path) FROM zk.nodes";
    assert_eq!(client.value(once).await, "t");
    let own = "SELECT count(*) FROM zk.nodes WHERE path LIKE '/test-%/daemons/a'";
    assert_eq!(client.value(own).await, "1");
    // Joined with files.
    client.rows(&cluster.table("ports", 9092)).await;
    let joined = "SELECT count(*) FROM ports JOIN zk.nodes n ON n.num_children < x \
                  WHERE n.parent = '/kafka/brokers/ids'";
    assert_eq!(client.value(joined).await, "3");
}

#[tokio::test]
async fn budgets_end_what_reads_too_much() {
    let server = Server::start();
    let keeper = keeper(&server.connect_string()).await;
    fill(&keeper).await;
    let cluster = Cluster::on(&server.connect_string());
    let daemon = cluster.start("a");
    let client = Client::connect(&daemon).await;
    client.rows("SET oribi.zk_max_nodes = 3").await;
    let refused = client.refused("SELECT count(*) FROM zk.nodes WHERE path LIKE '/kafka%'").await;
    assert_eq!(refused.code().code(), "53400");
    assert_eq!(refused.message(), "the statement reads more than 3 znodes");
    assert!(refused.hint().is_some_and(|hint| hint.contains("oribi.zk_max_nodes")), "{refused:?}");
    assert_eq!(client.rows("SELECT path FROM zk.nodes LIMIT 2").await.len(), 2);
    assert_eq!(client.value("SELECT name FROM zk.nodes WHERE path = '/kafka'").await, "kafka");
    client.rows("RESET oribi.zk_max_nodes; SET oribi.zk_max_bytes = 10").await;
    let data = "SELECT data FROM zk.nodes WHERE parent = '/kafka/brokers/ids'";
    assert_eq!(client.refused(data).await.code().code(), "53400");
    let lengths = "SELECT sum(data_length) FROM zk.nodes WHERE parent = '/kafka/brokers/ids'";
    assert_eq!(client.value(lengths).await, "60");
}

#[tokio::test]
async fn what_may_not_be_read_is_not_shown() {
    let server = Server::start();
    let keeper = keeper(&server.connect_string()).await;
    fill(&keeper).await;
    keeper.auth("digest", b"other:secret").await.expect("taken");
    let closed = CreateMode::Persistent.with_acls(Acls::creator_all());
    keeper.create("/kafka/closed", b"z", &closed).await.expect("made");
    keeper.create("/kafka/closed/inner", b"z", &closed).await.expect("made");
    let cluster = Cluster::on(&server.connect_string());
    let daemon = cluster.start("a");
    let client = Client::connect(&daemon).await;
    let closed = "SELECT path, data, data_length, note IS NOT NULL FROM zk.nodes \
                  WHERE path LIKE '/kafka/closed%'";
    assert_eq!(client.rows(closed).await, [["/kafka/closed", "", "1", "t"]]);

    client
        .rows(
            "CREATE ROLE plain LOGIN; CREATE ROLE reader LOGIN; CREATE ROLE keyed PASSWORD 'k'; \
             GRANT oribi_read_coordination TO reader",
        )
        .await;
    let plain = Client::connect_as(&daemon, "plain").await;
    for sql in [
        "SELECT * FROM zk.nodes WHERE path = '/kafka'",
        "SELECT * FROM zk.watch('/kafka', 1)",
        "SELECT * FROM zk.servers",
        "SELECT * FROM system.coordination",
        "SELECT * FROM system.coordination_nodes",
        "SELECT * FROM system.metrics",
    ] {
        let refused = plain.refused(sql).await;
        assert_eq!(refused.code().code(), "42501", "{sql}");
        let hint = refused.hint().unwrap_or_default();
        let store = sql.contains("zk.") || sql.contains("coordination");
        let role = if store { "oribi_read_coordination" } else { "pg_" };
        assert!(hint.contains(&format!("GRANT {role}")), "{sql}: {hint}");
    }
    let reader = Client::connect_as(&daemon, "reader").await;
    assert_eq!(reader.value("SELECT name FROM zk.nodes WHERE path = '/kafka'").await, "kafka");
    let secrets = "SELECT count(*) FROM zk.nodes WHERE path LIKE '/test-%' \
                   AND (path LIKE '%/peer-key' OR path LIKE '%/roles/keyed') AND data IS NOT NULL";
    assert_eq!(client.value(secrets).await, "2");
    assert_eq!(reader.value(secrets).await, "0");
    let found = reader
        .rows(
            "SELECT path FROM zk.nodes WHERE value::text LIKE '%SCRAM%' \
             OR value::text LIKE '%PRIVATE KEY%'",
        )
        .await;
    assert!(found.is_empty(), "{found:?}");
    let hidden = "SELECT DISTINCT note FROM zk.nodes WHERE path LIKE '/test-%' AND note IS NOT NULL \
                  AND path LIKE '%/roles/keyed' AND data IS NULL";
    assert_eq!(reader.value(hidden).await, "hidden: only superusers see it");
}

#[tokio::test]
async fn changes_come_as_rows_when_they_happen() {
    let server = Server::start();
    let keeper = keeper(&server.connect_string()).await;
    fill(&keeper).await;
    let cluster = Cluster::on(&server.connect_string());
    let daemon = cluster.start("a");
    let client = Client::connect(&daemon).await;
    assert_eq!(
        client.rows("SELECT * FROM zk.watch('/kafka', 0.1)").await,
        Vec::<Vec<String>>::new()
    );
    for bad in ["zk.watch('kafka', 1)", "zk.watch('/kafka', -1)", "zk.watch('/kafka')"] {
        let refused = client.refused(&format!("SELECT * FROM {bad}")).await;
        assert!(refused.message().contains("zk.watch") || refused.message().contains("no path"));
    }
    // The watch has begun once its session is there and it has read the four nodes.
    let watching = Client::connect(&daemon).await;
    let before = reads(&client).await;
    let sql =
        "SELECT path, event, version, value FROM zk.watch('/kafka/brokers/ids', 3600) LIMIT 5";
    let watching = tokio::spawn(async move { watching.rows(sql).await });
    until("the watch has begun", async || reads(&client).await >= before + 5).await;
    make(&keeper, "/kafka/brokers/ids/4", "{}").await;
    keeper.set_data("/kafka/brokers/ids/4", b"[]", None).await.expect("changed");
    keeper.set_data("/kafka/brokers/ids/1", b"[1]", None).await.expect("changed");
    keeper.set_data("/kafkaesque", b"elsewhere", None).await.expect("changed");
    keeper.delete("/kafka/brokers/ids/2", None).await.expect("gone");
    keeper.delete("/kafka/brokers/ids/4", None).await.expect("gone");
    let rows = bounded(watching).await.expect("rows");
    let events: Vec<_> = rows.iter().map(|row| (row[0].as_str(), row[1].as_str())).collect();
    let four = "/kafka/brokers/ids/4";
    let expected = [
        (four, "created"),
        (four, "changed"),
        ("/kafka/brokers/ids/1", "changed"),
        ("/kafka/brokers/ids/2", "deleted"),
        (four, "deleted"),
    ];
    assert_eq!(events, expected);
    assert_eq!(rows[2][2..], ["1", "[1]"]);
}

#[tokio::test]
async fn a_watch_survives_its_connection_and_is_cancelled() {
    let mut server = Server::start();
    let keeper = keeper(&server.connect_string()).await;
    fill(&keeper).await;
    let cluster = Cluster::on(&server.connect_string());
    let daemon = cluster.start("a");
    let client = Client::connect(&daemon).await;
    client.value("SELECT path FROM zk.nodes WHERE path = '/kafka'").await;
    let before = reads(&client).await;
    let watching = Client::connect(&daemon).await;
    let sql = "SELECT path, event FROM zk.watch('/kafka/topics', 3600) LIMIT 2";
    let watching = tokio::spawn(async move { watching.rows(sql).await });
    until("the watch has begun", async || reads(&client).await > before).await;
    server.restart();
    // Made while the watch may be out of touch, or after.
    let again = self::keeper(&server.connect_string()).await;
    make(&again, "/kafka/topics/new", "").await;
    again.set_data("/kafka/topics", b"n", None).await.expect("changed");
    let mut rows = bounded(watching).await.expect("rows");
    rows.sort();
    assert_eq!(rows, [["/kafka/topics", "changed"], ["/kafka/topics/new", "created"]]);

    let watching = Client::connect(&daemon).await;
    let token = watching.cancel_token();
    let statement =
        tokio::spawn(
            async move { watching.refused("SELECT * FROM zk.watch('/kafka', 3600)").await },
        );
    let running = "SELECT count(*) FROM system.queries WHERE sql LIKE '%zk.watch%' \
                   AND sql NOT LIKE '%system.queries%'";
    until("the watch runs", async || client.value(running).await == "1").await;
    token.cancel_query(tokio_postgres::NoTls).await.expect("cancelled");
    let ended = bounded(statement).await.expect("an error");
    assert_eq!(ended.code().code(), "57014");
}

#[tokio::test]
async fn each_server_tells_how_it_is_and_a_dead_one_does_not_hold_up() {
    let mut ensemble = Ensemble::start(3);
    let cluster = Cluster::on(&ensemble.connect_string());
    let daemon = cluster.start("a");
    let client = Client::connect(&daemon).await;
    let roles = "SELECT role FROM zk.servers ORDER BY role";
    assert_eq!(client.rows(roles).await, [["follower"], ["follower"], ["leader"]]);
    let figures = "SELECT count(*) FROM zk.servers WHERE znodes > 5 AND connections >= 0 \
                   AND avg_latency >= 0 AND data_size > 0 AND version LIKE '3.%' AND error IS NULL";
    assert_eq!(client.value(figures).await, "3");
    let follower = (0..3).find(|at| Some(*at) != ensemble.leader()).expect("a follower");
    let paused = ensemble.servers[follower].connect_string();
    ensemble.servers[follower].pause();
    let began = Instant::now();
    let silent = "SELECT address, error IS NOT NULL FROM zk.servers WHERE role IS NULL";
    assert_eq!(client.rows(silent).await, [[paused.as_str(), "t"]]);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    ensemble.servers[follower].resume();
    ensemble.servers[follower].stop();
    assert_eq!(client.rows(silent).await, [[paused.as_str(), "t"]]);
}

#[tokio::test]
async fn all_of_it_is_there_without_zookeeper() {
    let cluster = Cluster::embedded();
    let daemon = cluster.start("a");
    let client = Client::connect(&daemon).await;
    let row = ["a", "embedded", ""];
    assert_eq!(client.rows("SELECT address, role, error FROM zk.servers").await, [row]);
    let own = "SELECT name, depth FROM zk.nodes WHERE path = '/daemons/a'";
    assert_eq!(client.rows(own).await, [["a", "2"]]);
    let kinds = "SELECT znodes, bytes > 0 FROM system.coordination_nodes WHERE kind = 'daemons'";
    assert_eq!(client.rows(kinds).await, [["2", "t"]]);
    let purposes = "SELECT purpose, backend, state FROM system.coordination ORDER BY 1";
    let own = ["daemon", "embedded", "connected"];
    let sql = ["sql", "embedded", "connected"];
    assert_eq!(client.rows(purposes).await, [own, sql]);
    let watching = Client::connect(&daemon).await;
    let before = reads(&client).await;
    let sql = "SELECT event FROM zk.watch('/roles', 3600) LIMIT 1";
    let watching = tokio::spawn(async move { watching.rows(sql).await });
    until("the watch has begun", async || reads(&client).await > before + 1).await;
    client.rows("CREATE ROLE somebody").await;
    assert_eq!(bounded(watching).await.expect("rows"), [["created"]]);
}

/// What psql prints, and what it is warned of.
fn psql(daemon: &Daemon, sql: &str) -> (String, String) {
    let address = daemon.postgres();
    let output = Command::new("psql")
        .args(["-X", "-A", "-t", "-q", "-d", "oribi", "-U", "oribi", "-c", sql])
        .args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()])
        .output()
        .expect("psql starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn every_daemon_answers_for_all_and_a_silent_one_is_named() {
    let cluster = Cluster::on_shared_zookeeper().with("COORDINATION_SESSION_TIMEOUT", "60s");
    let [a, b] = cluster.start_all(["a", "b"]);
    let client = Client::connect(&a).await;
    all_ready(&client, &["a", "b"]).await;
    for (sql, expected) in [
        ("SELECT DISTINCT daemon FROM system.metrics ORDER BY 1", "a\nb\n"),
        ("SELECT DISTINCT daemon FROM system.caches ORDER BY 1", "a\nb\n"),
        ("SELECT daemon FROM system.coordination WHERE purpose = 'daemon' ORDER BY 1", "a\nb\n"),
        ("SELECT daemon FROM system.settings WHERE key = 'connections.max' ORDER BY 1", "a\nb\n"),
        (
            "SELECT count(*) > 1 FROM system.metrics WHERE name = 'uptime_seconds' AND value > 0",
            "t\n",
        ),
    ] {
        for daemon in [&a, &b] {
            assert_eq!(psql(daemon, sql), (expected.to_owned(), String::new()), "{sql}");
        }
    }
    b.pause();
    let began = Instant::now();
    let (printed, warned) = psql(&a, "SELECT DISTINCT daemon FROM system.metrics");
    let took = began.elapsed();
    b.resume();
    assert_eq!(printed, "a\n");
    assert!(warned.starts_with("WARNING:  daemon \"b\" did not answer"), "{warned}");
    assert!(took < Duration::from_secs(15), "{took:?}");
    let whole = "SELECT count(DISTINCT daemon) FROM system.metrics";
    until("it answers again", async || client.value(whole).await == "2").await;
    b.kill();
    let (printed, warned) = psql(&a, "SELECT DISTINCT daemon FROM system.metrics");
    assert_eq!(printed, "a\n");
    assert!(warned.contains("\"b\" did not answer"), "{warned}");
}

#[tokio::test]
async fn rows_of_a_watch_leave_before_it_ends() {
    use futures::StreamExt;
    let cluster = Cluster::embedded();
    let daemon = cluster.start("a");
    let (client, connection) = daemon.client_config().connect(tokio_postgres::NoTls).await.unwrap();
    let _connection = tokio::spawn(connection);
    let other = Client::connect(&daemon).await;
    // Whenever the watch has begun, some role is made after that.
    let making = tokio::spawn(async move {
        for number in 0.. {
            other.rows(&format!("CREATE ROLE role_{number}")).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    let sql = "COPY (SELECT path, event FROM zk.watch('/roles', 3600)) TO STDOUT";
    let first = bounded(async {
        let mut copied = std::pin::pin!(client.copy_out(sql).await.expect("it begins"));
        copied.next().await.expect("a row").expect("a row")
    });
    let first = String::from_utf8_lossy(&first.await).into_owned();
    making.abort();
    assert!(first.starts_with("/roles/role_") && first.ends_with("\tcreated\n"), "{first}");
}

/// No rows would say that nothing has changed.
#[tokio::test]
async fn a_watch_that_cannot_reach_the_store_says_so() {
    let mut server = Server::start();
    let keeper = keeper(&server.connect_string()).await;
    fill(&keeper).await;
    let cluster = Cluster::on(&server.connect_string());
    let daemon = cluster.start("a");
    let client = Client::connect(&daemon).await;
    let watch = "SELECT * FROM zk.watch('/kafka', 0.1)";
    assert!(client.rows(watch).await.is_empty());
    // One that has begun before.
    let running = Client::connect(&daemon).await;
    let (lost, ()) = tokio::join!(running.try_rows("SELECT * FROM zk.watch('/kafka', 5)"), async {
        let watches = "SELECT count(*) FROM system.queries WHERE sql LIKE '%zk.watch%5)%' \
                       AND sql NOT LIKE '%system.queries%'";
        until("it runs", async || client.value(watches).await == "1").await;
        server.stop();
    });
    let nodes = client.refused("SELECT path FROM zk.nodes WHERE path = '/kafka'").await;
    let told =
        [lost.expect_err("it is out of touch"), client.try_rows(watch).await.expect_err(watch)];
    for error in told.iter().map(db_error) {
        assert_eq!(error.code(), nodes.code(), "{error}");
        assert!(!error.message().is_empty());
    }
}
