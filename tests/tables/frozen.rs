//! A daemon that is stopped in the middle of its writes for longer than its session lasts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::*;

/// Inserts rows until the end: which were acknowledged, and which were refused.
async fn write(writer: usize, client: Client, over: Arc<AtomicBool>) -> (Vec<String>, Vec<String>) {
    let (mut acknowledged, mut refused) = (Vec::new(), Vec::new());
    for n in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let id = format!("{writer}-{n}");
        match client.outcome(&format!("INSERT INTO t VALUES ('{id}')")).await.as_str() {
            "" => acknowledged.push(id),
            // The one that says that it does not know.
            "08007" => {}
            _ => refused.push(id),
        }
    }
    (acknowledged, refused)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_slept_writes_nothing_as_who_he_was() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper();
        let warehouse = cluster.path("warehouse").display().to_string();
        let cluster = cluster.with("WAREHOUSE", &warehouse);
        let [a, b] = cluster.start_all(["a", "b"]);
        let other = Client::connect(&b).await;
        all_ready(&other, &["a", "b"]).await;
        other.rows("CREATE TABLE t (id text)").await;
        let incarnation = "SELECT incarnation FROM system.daemons WHERE id = 'a'";
        let before = other.value(incarnation).await;
        let over = Arc::new(AtomicBool::new(false));
        let mut writers = Vec::new();
        for writer in 0..4 {
            let client = Client::connect(&a).await;
            writers.push(tokio::spawn(write(writer, client, over.clone())));
        }
        let count = "SELECT count(*) FROM t";
        until("rows", async || other.value(count).await != "0").await;
        a.pause();
        until("a is gone", async || states(&other).await.len() == 1).await;
        other.rows("INSERT INTO t VALUES ('meanwhile')").await;
        a.resume();
        all_ready(&other, &["a", "b"]).await;
        let written = other.value(count).await;
        until("more rows", async || other.value(count).await != written).await;
        assert_ne!(other.value(incarnation).await, before);
        over.store(true, Ordering::Relaxed);
        let mut outcomes = Vec::new();
        for writer in writers {
            outcomes.push(writer.await.expect("a writer"));
        }
        // What was acknowledged last may not have come to the other daemon by itself.
        other.rows("SET oribi.consistency = 'strong'").await;
        let rows: Vec<String> =
            other.rows("SELECT id FROM t").await.into_iter().flatten().collect();
        for (acknowledged, refused) in outcomes {
            for id in &acknowledged {
                assert_eq!(rows.iter().filter(|row| *row == id).count(), 1, "{id}");
            }
            assert!(!refused.iter().any(|id| rows.contains(id)), "{refused:?} are there");
        }
        assert_eq!(rows.iter().filter(|row| *row == "meanwhile").count(), 1);
    })
    .await;
}
