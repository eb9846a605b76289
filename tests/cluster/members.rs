//! Who is there: own records, live peers, and daemons that come and go.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::daemon::{Daemon, binary};
use crate::election::leader;
use crate::support::*;

/// ZooKeeper's own command line, as the package of the operating system has it.
const ZKCLI: &str = "/usr/share/zookeeper/bin/zkCli.sh";

/// What an operator reads on his screen.
async fn zkcli(cluster: &Cluster, command: &str) -> String {
    assert!(Path::new(ZKCLI).exists(), "{ZKCLI} is missing: `apt-get install zookeeper`");
    let mut cli = Command::new(ZKCLI);
    cli.args(["-server", cluster.zookeeper()]).args(command.split(' '));
    let output = tokio::task::spawn_blocking(move || cli.output().expect("zkCli.sh starts"));
    let output = output.await.expect("zkCli.sh ends");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The line of zkCli's output that is a JSON object.
fn json_line(output: &str) -> Value {
    let object = |line: &str| serde_json::from_str::<Value>(line).ok().filter(Value::is_object);
    output.lines().find_map(object).unwrap_or_else(|| panic!("no JSON object in:\n{output}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_daemons_see_each_other() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper();
        // All at once, so that they race to make the cluster.
        let daemons = cluster.start_all(["a", "b", "c"]);
        for (id, daemon) in ["a", "b", "c"].iter().zip(&daemons) {
            let client = Client::connect(daemon).await;
            all_ready(&client, &["a", "b", "c"]).await;
            let local = client.rows("SELECT id FROM system.daemons WHERE local").await;
            assert_eq!(local, [[*id]]);
            let seen = client
                .rows(
                    "SELECT postgres, web, version, cores > 0, memory > 0, peer LIKE '127.0.0.1:%', \
                     since <= now() FROM system.daemons ORDER BY id",
                )
                .await;
            let version = env!("CARGO_PKG_VERSION");
            for (row, other) in seen.iter().zip(&daemons) {
                let (postgres, web) = (other.postgres().to_string(), other.web().to_string());
                assert_eq!(*row, [&postgres, &web, version, "t", "t", "t", "t"]);
            }
            let distinct = client
                .value("SELECT count(DISTINCT incarnation) || '/' || count(DISTINCT peer) FROM system.daemons")
                .await;
            assert_eq!(distinct, "3/3");
        }
        let store = Store::of(&cluster).await;
        for daemon in ["a", "b", "c"] {
            let record = store.get(&format!("/daemons/{daemon}")).await.expect("a record");
            let incarnation = record["incarnation"].as_str().expect("an incarnation");
            let claim = store.get(&format!("/incarnations/{incarnation}")).await;
            assert_eq!(claim.expect("an incarnation")["daemon"], daemon);
        }
        assert_eq!(store.children("/incarnations").await.len(), 3);
        assert!(store.get("/cluster").await.expect("a cluster")["uuid"].is_string());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn zkcli_shows_plain_json() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper();
        let daemon = cluster.start("a");
        let client = Client::connect(&daemon).await;
        client.rows(&cluster.table("numbers", 1)).await;

        let record = json_line(&zkcli(&cluster, "get /daemons/a").await);
        assert_eq!(record["postgres"], daemon.postgres().to_string());
        assert_eq!(record["web"], daemon.web().to_string());
        assert_eq!(record["state"], "ready");
        assert_eq!(record["version"], env!("CARGO_PKG_VERSION"));
        assert!(record["cores"].as_u64() > Some(0) && record["memory"].as_u64() > Some(0));
        assert!(record["peer"].is_string() && record["since"].is_string(), "{record}");

        let table = json_line(&zkcli(&cluster, "get /catalog/oribi/numbers").await);
        assert_eq!(table["kind"], "external");
        assert_eq!(table["format"], "csv");
        assert_eq!(table["columns"][0]["name"], "x");
        assert_eq!(table["columns"][0]["type"], "Int64");
        assert!(table["oid"].as_u64() >= Some(16384), "{table}");

        let running = tokio::spawn(async move { client.outcome(ENDLESS).await });
        let store = Store::of(&cluster).await;
        until("the statement is registered", async || !store.children("/queries").await.is_empty())
            .await;
        let id = store.children("/queries").await.remove(0);
        let query = json_line(&zkcli(&cluster, &format!("get /queries/{id}")).await);
        assert_eq!((&query["sql"], &query["daemon"]), (&ENDLESS.into(), &"a".into()));
        running.abort();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_died_is_gone_after_its_session() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper();
        let (survivor, victim) = (cluster.start("a"), cluster.start("b"));
        let client = Client::connect(&survivor).await;
        all_ready(&client, &["a", "b"]).await;
        let store = Store::of(&cluster).await;
        victim.kill();
        let died = Instant::now();
        until("the record is gone", async || store.children("/daemons").await == ["a"]).await;
        // The last sign of life was at most a third of the time-out before.
        let gone = died.elapsed();
        assert!(gone > SESSION_TIMEOUT / 2, "gone after {gone:?}: it was not the session's end");
        assert!(gone < SESSION_TIMEOUT * 3, "gone after {gone:?}");
        all_ready(&client, &["a"]).await;
        assert_eq!(store.children("/incarnations").await.len(), 1);
        client.rows("CREATE VIEW after_death AS SELECT 1 AS x").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_started_again_takes_its_id_back_at_once() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper().with("COORDINATION_SESSION_TIMEOUT", "40s");
        let (witness, mut daemon) = (cluster.start("a"), cluster.start("b"));
        let client = Client::connect(&witness).await;
        all_ready(&client, &["a", "b"]).await;
        let incarnation = "SELECT incarnation FROM system.daemons WHERE id = 'b'";
        for round in 0..3 {
            let before = client.value(incarnation).await;
            daemon.kill();
            let state = "SELECT state FROM system.daemons WHERE id = 'b'";
            until("its death is seen", async || client.value(state).await == "unreachable").await;
            let begun = Instant::now();
            daemon = cluster.start("b");
            let took = begun.elapsed();
            assert!(took < Duration::from_secs(20), "round {round}: waited {took:?} for its id");
            until("the new incarnation is seen", async || {
                let now = client.value(incarnation).await;
                !now.is_empty() && now != before
            })
            .await;
            all_ready(&client, &["a", "b"]).await;
        }
        let store = Store::of(&cluster).await;
        assert_eq!(store.children("/incarnations").await.len(), 2, "its predecessors' are gone");
    })
    .await;
}

/// Its process lives, and so does its session: only that no statement has its turn there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_whose_engine_hangs_is_left_alone() {
    bounded(async {
        let cluster = Cluster::with_warehouse();
        let (file, never) = (cluster.path("hang"), cluster.path("never"));
        let cluster = cluster
            .with("ENGINE_THREADS", "1")
            .with("SHUTDOWN_DRAIN_TIMEOUT", "1s")
            .with_variable("ORIBI_FAULT", "a plan begins")
            .with_variable("ORIBI_FAULT_BY", "stall")
            .with_variable("ORIBI_FAULT_WHEN", &file.display().to_string());
        let b = cluster.start("b");
        let cluster = cluster.with_variable("ORIBI_FAULT_WHEN", &never.display().to_string());
        let a = cluster.start("a");
        let (client, own) = (Client::connect(&a).await, Client::connect(&b).await);
        all_ready(&client, &["a", "b"]).await;
        let store = Store::of(&cluster).await;
        let leads = async || leader(&store).await.map(|(daemon, _)| daemon);
        until("it leads", async || leads().await.as_deref() == Some("b")).await;
        client.rows("SET oribi.result_cache = off").await;
        client.rows("SET oribi.distribution = 'always'").await;
        client.rows("CREATE TABLE numbers AS SELECT n FROM generate_series(1, 100000) s(n)").await;
        let sql = "SELECT sum(n), count(DISTINCT n) FROM numbers";
        let sum = [["5000050000", "100000"]];
        assert_eq!(client.rows(sql).await, sum);
        std::fs::write(&file, "").expect("written");
        let hangs = tokio::spawn(async move { own.try_rows(sql).await });
        let there = "SELECT count(*) FROM system.queries WHERE daemon = 'b'";
        until("it hangs", async || client.value(there).await == "1").await;
        let another = Client::connect(&a).await;
        another.rows("SET oribi.distribution = 'always'").await;
        let many = "SELECT n, repeat('x', 1000) FROM numbers";
        let many = tokio::spawn(async move { another.try_rows(many).await });
        // What had begun before anybody knew runs again without it, unless rows have left.
        assert_eq!(client.rows(sql).await, sum);
        let told = many.await.expect("no panic").expect_err("rows of the other are missing");
        assert_eq!(told.code().map(|code| code.code()), Some("58000"), "{told:?}");
        let retries = format!("SELECT max(retries) FROM system.query_history WHERE sql = '{sql}'");
        assert_eq!(client.value(&retries).await, "1");
        until("it is not ready", async || readyz(&b).await.is_some_and(|(code, _)| code == 503))
            .await;
        let (_, body) = readyz(&b).await.expect("an answer");
        assert_eq!(body["state"], "degraded");
        let reason = body["reason"].as_str().expect("a reason");
        assert!(reason.contains("have taken up no work for 20 s"), "{reason}");
        let state = "SELECT state FROM system.daemons WHERE id = 'b'";
        until("its peer knows", async || client.value(state).await == "unreachable").await;
        assert_eq!(client.rows(sql).await, sum);
        until("another leads", async || leads().await.as_deref() == Some("a")).await;
        assert!(!hangs.is_finished());
        let asked = b.postgres().to_string();
        let told = tokio::task::spawn_blocking(move || {
            Command::new(binary()).args(["cluster", "status", "--host", &asked]).output()
        });
        let told = told.await.expect("no panic").expect("it runs");
        let text = String::from_utf8_lossy(&told.stderr);
        assert!(text.contains("no answer within 10 s"), "{text}");
        assert_eq!(told.status.code(), Some(5), "nobody answers");
        b.terminate();
        let ended = tokio::task::spawn_blocking(move || b.wait(Duration::from_secs(60)));
        assert!(ended.await.expect("it ends").success());
        assert!(hangs.await.expect("no panic").is_err());
    })
    .await;
}

/// What a daemon says of its own warehouse on `/readyz`.
async fn reason(daemon: &Daemon) -> Value {
    readyz(daemon).await.expect("an answer").1["reason"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_makes_tables_elsewhere_is_told_of() {
    bounded(async {
        let cluster = Cluster::with_warehouse();
        let [a, b] = cluster.start_together(["a", "b"]).await;
        let shared = cluster.path("warehouse").display().to_string();
        let own = cluster.path("own").display().to_string();
        let cluster = cluster.with("WAREHOUSE", &own);
        let c = cluster.start("c");
        let outline = "its warehouse is not the one of most daemons";
        until("it tells its peers", async || reason(&c).await == outline).await;
        for daemon in [&a, &c] {
            until("all know", async || {
                let client = Client::connect(daemon).await;
                states(&client).await.get(2).is_some_and(|(_, state)| state == "degraded")
            })
            .await;
            let log = daemon.log();
            let told = log.lines().filter(|line| line.contains("daemon c: ")).collect::<Vec<_>>();
            assert_eq!(told.len(), 1, "{log}");
            let both = told[0].contains(&own) && told[0].contains(&shared);
            assert!(told[0].contains("WARN") && both, "{}", told[0]);
        }
        assert!(reason(&a).await.is_null() && reason(&b).await.is_null());
        // It serves, and what it makes can be read where its files can be.
        let client = Client::connect(&c).await;
        let error = client.value("SELECT error FROM system.daemons WHERE local").await;
        assert!(error.contains(&own) && error.contains(&shared), "{error}");
        client.rows("CREATE TABLE t AS SELECT 7 AS x").await;
        let peer = Client::connect(&a).await;
        assert_eq!(peer.value("SELECT x FROM t").await, "7");
        let told = peer.value("SELECT error FROM system.daemons WHERE id = 'c'").await;
        assert_eq!(told, outline);
        let asked = a.postgres().to_string();
        let shown = run(&["cluster", "status", "--host", &asked]);
        assert!(shown.contains(&format!("c is degraded: {outline}")), "{shown}");
        let found = run(&["doctor", "--json", "--zookeeper", cluster.zookeeper()]);
        let found: Value = serde_json::from_str(&found).expect("JSON");
        let mut checks = found["checks"].as_array().expect("checks").iter();
        let check = checks.find(|check| check["name"] == "warehouses").expect("it is looked at");
        let seen = check["seen"].as_str().expect("text");
        assert!(seen.starts_with("c: ") && seen.contains(&own) && seen.contains(&shared), "{seen}");
        // A roll of the setting: one after another starts anew, and is right as soon as most are there.
        b.terminate();
        assert!(b.wait(PATIENCE).success());
        let b = cluster.start("b");
        until("the other is astray", async || reason(&a).await == outline).await;
        until("most are there", async || reason(&c).await.is_null()).await;
        a.terminate();
        assert!(a.wait(PATIENCE).success());
        let a = cluster.start("a");
        all_ready(&Client::connect(&a).await, &["a", "b", "c"]).await;
        assert!(reason(&b).await.is_null());
    })
    .await;
}

/// What this program prints.
fn run(arguments: &[&str]) -> String {
    let done = Command::new(binary()).args(arguments).output().expect("the program runs");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_has_one_holder() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper();
        let holder = cluster.start("a");
        let second = cluster.launch("a", "elsewhere");
        assert_eq!(second.wait(PATIENCE).code(), Some(1));
        let log = second.log();
        for part in ["\"a\"", "is held by", &holder.postgres().to_string()] {
            assert!(log.contains(part), "no {part} in:\n{log}");
        }
        // The same data directory is refused before the ensemble is asked.
        let third = cluster.launch("c", "a");
        assert_eq!(third.wait(PATIENCE).code(), Some(1));
        let (log, pid) = (third.log(), format!("pid {}", holder.pid()));
        assert!(log.contains("data_dir") && log.contains(&pid), "{log}");
        // The holder has not noticed.
        let client = Client::connect(&holder).await;
        assert_eq!(states(&client).await, [("a".to_owned(), "ready".to_owned())]);
        client.rows("CREATE VIEW still_here AS SELECT 1 AS x").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_whose_record_is_removed_drains() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper();
        let (witness, evicted) = (cluster.start("a"), cluster.start("b"));
        let client = Client::connect(&witness).await;
        all_ready(&client, &["a", "b"]).await;
        let (idle, busy) = (Client::connect(&evicted).await, Client::connect(&evicted).await);
        let running = tokio::spawn(async move { busy.value(SLOW.0).await });
        until("the statement is seen", async || {
            client.value("SELECT count(*) FROM system.queries WHERE daemon = 'b'").await == "1"
        })
        .await;
        zkcli(&cluster, "delete /daemons/b").await;
        assert_eq!(idle.good_bye().await.code().code(), "57P01");
        assert_eq!(running.await.expect("the statement ends"), SLOW.1);
        evicted.wait(PATIENCE);
        assert!(evicted.log().contains("removed or replaced"), "{}", evicted.log());
        all_ready(&client, &["a"]).await;
        let store = Store::of(&cluster).await;
        assert_eq!(store.children("/incarnations").await.len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_daemon_registers_anew() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper();
        let (witness, frozen) = (cluster.start("a"), cluster.start("b"));
        let client = Client::connect(&witness).await;
        let own = Client::connect(&frozen).await;
        all_ready(&client, &["a", "b"]).await;
        let incarnation = "SELECT incarnation FROM system.daemons WHERE id = 'b'";
        let before = client.value(incarnation).await;
        frozen.pause();
        all_ready(&client, &["a"]).await;
        frozen.resume();
        all_ready(&client, &["a", "b"]).await;
        all_ready(&own, &["a", "b"]).await;
        let after = client.value(incarnation).await;
        assert_ne!(after, before);
        assert_eq!(own.value(incarnation).await, after);
        own.rows("CREATE VIEW thawed AS SELECT 7 AS x").await;
        assert_eq!(client.value("SELECT x FROM thawed").await, "7");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ensemble_out_of_reach_is_named() {
    bounded(async {
        let hosts = "127.0.0.1:1,127.0.0.1:2";
        let cluster = Cluster::on(hosts).with("COORDINATION_START_TIMEOUT", "3s");
        let begun = Instant::now();
        let daemon = cluster.launch("a", "a");
        assert_eq!(daemon.wait(PATIENCE).code(), Some(1));
        let took = begun.elapsed();
        assert!(took > Duration::from_secs(2) && took < Duration::from_secs(30), "{took:?}");
        let log = daemon.log();
        let last = log.lines().last().unwrap_or_default();
        assert!(last.starts_with("oribi:") && last.contains(hosts), "{log}");
        // It did not wait in silence.
        assert!(log.lines().next().is_some_and(|first| first.contains(hosts)), "{log}");
        println!("given up after {took:?}");
    })
    .await;
}
