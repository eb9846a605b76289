//! Letters that nobody should send.

use futures::future::join_all;

use crate::support::{Client, Cluster, Store, bounded, until};
use crate::wait;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_letter_that_makes_no_sense_is_refused_when_it_is_read() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper();
        let warehouse = cluster.path("warehouse").display().to_string();
        let cluster = cluster.with("WAREHOUSE", &warehouse);
        let daemon = cluster.start("a");
        let client = Client::connect(&daemon).await;
        client.rows("CREATE ROLE ann LOGIN").await;
        let store = Store::of(&cluster).await;
        let record = async |id: &str, letter: &str| {
            store.create(&format!("/inbox/{id}"), letter.as_bytes()).await;
            let path = format!("/queries/{id}");
            until("it is read", async || store.get(&path).await.is_some()).await;
            assert!(matches!(wait(&client, id).await.as_str(), "failed" | "succeeded"));
            store.get(&path).await.expect("a record")
        };
        let deep = format!("SELECT {}1{}", "(".repeat(300), ")".repeat(300));
        let with = |settings: &str| format!(r#"{{"sql": "SELECT 1", "settings": {settings}}}"#);
        let limit = r#"{"sql": "SELECT 1", "user": "ann", "settings": {"oribi.statement_limit": 9}}"#;
        for (at, (letter, code, part)) in [
            (with(r#"{"statement_timeout": "soon"}"#).as_str(), "22023", "statement_timeout"),
            (&with(r#"{"oribi.distributon": "off"}"#), "42602", "oribi.distributon"),
            (&with(r#"{"nothing": "1"}"#), "42704", "nothing"),
            (&with(r#"{"a.b": []}"#), "22023", "\"a.b\""),
            (limit, "42501", "oribi.statement_limit"),
            (r#"{"sql": "SELECT 1", "colour": 1}"#, "22023", "\"colour\""),
            (r#"{"user": "ann"}"#, "22023", "\"sql\""),
            (&deep, "54001", "nested"),
            ("SELEC 1", "42601", "SELEC"),
            ("BEGIN", "0A000", "only statements"),
        ]
        .into_iter()
        .enumerate()
        {
            let record = record(&format!("bad-{at}"), letter).await;
            let error = &record["error"];
            assert_eq!(error["sqlstate"], code, "{letter}: {record}");
            assert!(error["message"].as_str().is_some_and(|text| text.contains(part)), "{record}");
            assert_eq!((&record["state"], &record["attempt"]), (&"failed".into(), &0.into()));
        }
        let sql = r#""sql": "SELECT current_setting('statement_timeout'), current_setting('is_superuser')""#;
        let settings = r#""settings": {"statement_timeout": 5000}"#;
        let good = record("good", &format!(r#"{{{sql}, "user": "ann", {settings}}}"#)).await;
        assert_eq!(good["outcome"]["rows"], serde_json::json!([["5s", "off"]]), "{good}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lies_below_a_letter_holds_up_no_other() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper();
        let warehouse = cluster.path("warehouse").display().to_string();
        let cluster = cluster.with("WAREHOUSE", &warehouse);
        let daemon = cluster.start("a");
        let client = Client::connect(&daemon).await;
        let store = Store::of(&cluster).await;
        daemon.pause();
        store.create("/inbox/a", b"SELECT 1").await;
        let children = (0..3000).map(|at| format!("/inbox/a/{at}"));
        let create = async |path: String| store.create(&path, b"").await;
        join_all(children.map(create)).await;
        // Some have more below them.
        join_all((0..50).map(|at| create(format!("/inbox/a/{at}/x")))).await;
        store.create("/inbox/b", b"SELECT 2").await;
        daemon.resume();
        until("the second letter is read", async || store.get("/queries/b").await.is_some()).await;
        assert!(!store.children("/inbox/a").await.is_empty(), "the first has its turn later");
        for id in ["b", "a"] {
            let there = async || store.get(&format!("/queries/{id}")).await.is_some();
            until(&format!("{id} is a query"), there).await;
            assert_eq!(wait(&client, id).await, "succeeded");
        }
        assert!(store.children("/inbox").await.is_empty());
    })
    .await;
}
