//! What becomes of a query whose daemon has died, or seems to have, as long as nobody has a place for it.

use super::*;

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Three daemons that are called so, each with an endless query and no place for another.
struct Busy {
    cluster: Cluster,
    daemons: [Daemon; 3],
    /// The queries'.
    ids: Vec<String>,
    /// Which daemon has the last of them.
    at: usize,
}

async fn busy(settings: &[(&str, &str)]) -> Busy {
    let settings = [&[("SUBMITTED_RUNNING", "1")][..], settings].concat();
    let (cluster, daemons) = three_with(&settings).await;
    let client = Client::connect(&daemons[0]).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(submit(&client, ENDLESS).await);
    }
    let mut at = usize::MAX;
    for id in &ids {
        let found = worker(&client, id).await;
        at = NAMES.iter().position(|name| *name == found).expect("one of them");
    }
    Busy { cluster, daemons, ids, at }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_waits_for_a_place_again_is_not_told_to_run() {
    bounded(async {
        let Busy { cluster, daemons, mut ids, at } = busy(&[]).await;
        // That of the third: all others are at one of their own.
        let id = ids.pop().expect("three");
        let other = Client::connect(&daemons[(at + 1) % 3]).await;
        daemons[at].kill();
        let told = format!(
            "SELECT state, daemon, attempt, pid, workers FROM system.queries WHERE id = '{id}'"
        );
        let waits = ["queued", "", "1", "", "{}"];
        until("it is told to wait", async || other.rows(&told).await == [waits]).await;
        // And to whoever reads the store itself.
        let store = Store::of(&cluster).await;
        let record = store.get(&format!("/queries/{id}")).await.expect("its record");
        assert!(record["state"] == "queued" && record.get("daemon").is_none(), "{record}");
        // As soon as there is a place, it runs there.
        other.value(&format!("SELECT oribi.cancel('{}')", ids[0])).await;
        assert_ne!(worker(&other, &id).await, NAMES[at]);
        let attempt = format!("SELECT attempt FROM system.queries WHERE id = '{id}'");
        assert_eq!(other.value(&attempt).await, "2");
        for id in ids.iter().chain([&id]) {
            other.value(&format!("SELECT oribi.cancel('{id}')")).await;
        }
    })
    .await;
}

/// One that takes a query and dies at once may be seen by the others only when it does not answer any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_is_told_to_wait_again_after_one_that_took_it_and_died_at_once() {
    bounded(async {
        let Busy { cluster, daemons, mut ids, at } = busy(&[("SUBMITTED_ATTEMPTS", "9")]).await;
        let id = ids.pop().expect("three");
        let other = Client::connect(&daemons[(at + 1) % 3]).await;
        daemons[at].kill();
        let state = format!("SELECT state FROM system.queries WHERE id = '{id}'");
        until("it is told to wait", async || other.value(&state).await == "queued").await;
        // Registered, and nobody that answers: for several looks at the queue, and for none.
        let (store, path) = (Store::of(&cluster).await, format!("/queries/{id}"));
        for (attempt, time) in [(2, Duration::from_secs(2)), (3, Duration::ZERO)] {
            let incarnation = uuid::Uuid::new_v4();
            let registered = format!("/incarnations/{incarnation}");
            store.create(&registered, b"").await;
            let claim = format!("/claims/{id}:{attempt}");
            let mut record = store.get(&path).await.expect("its record");
            record["state"] = "running".into();
            record["daemon"] = "d".into();
            record["attempt"] = attempt.into();
            store.set(&path, record.to_string().as_bytes()).await;
            let claimed = serde_json::json!({"daemon": "d", "incarnation": incarnation});
            store.create(&claim, claimed.to_string().as_bytes()).await;
            let seen = Instant::now();
            while seen.elapsed() < time {
                assert_eq!(store.get(&path).await.expect("its record")["state"], "running");
            }
            store.delete(&claim).await;
            store.delete(&registered).await;
            until("it is told to wait again", async || {
                store.get(&path).await.expect("its record")["state"] == "queued"
            })
            .await;
        }
        for id in ids.iter().chain([&id]) {
            other.value(&format!("SELECT oribi.cancel('{id}')")).await;
        }
    })
    .await;
}

/// Who cannot reach a daemon knows nothing of its end, and is not to take away what it has no place for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_stays_with_a_daemon_that_others_only_cannot_reach() {
    bounded(async {
        let settings = [
            ("SUBMITTED_ATTEMPTS", "1"),
            // None ends while one is paused.
            ("COORDINATION_SESSION_TIMEOUT", "40s"),
        ];
        let Busy { cluster, daemons, ids, at } = busy(&settings).await;
        let id = ids.last().expect("three");
        let store = Store::of(&cluster).await;
        let others = [
            Client::connect(&daemons[(at + 1) % 3]).await,
            Client::connect(&daemons[(at + 2) % 3]).await,
        ];
        daemons[at].pause();
        let state = format!("SELECT state FROM system.daemons WHERE id = '{}'", NAMES[at]);
        for other in &others {
            until("it is silent", async || other.value(&state).await == "unreachable").await;
        }
        // Several looks at the queue; its session is longer.
        let seen = Instant::now();
        while seen.elapsed() < Duration::from_secs(2) {
            let record = store.get(&format!("/queries/{id}")).await.expect("its record");
            assert!(record["state"] == "running" && record["attempt"] == 1, "{record}");
            assert_eq!(record["daemon"], NAMES[at], "{record}");
        }
        daemons[at].resume();
        for other in &others {
            until("it is back", async || other.value(&state).await == "ready").await;
        }
        let record = store.get(&format!("/queries/{id}")).await.expect("its record");
        assert!(record["state"] == "running" && record["attempt"] == 1, "{record}");
        for id in &ids {
            others[0].value(&format!("SELECT oribi.cancel('{id}')")).await;
        }
    })
    .await;
}
