//! What is said of a query whose daemon has died, as long as nobody has a place for it.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_waits_for_a_place_again_is_not_told_to_run() {
    bounded(async {
        let (cluster, daemons) = three_with(&[("SUBMITTED_RUNNING", "1")]).await;
        let names = ["a", "b", "c"];
        let mut daemons: Vec<Daemon> = daemons.into_iter().collect();
        let client = Client::connect(&daemons[0]).await;
        let mut ids = Vec::new();
        for _ in 0..3 {
            ids.push(submit(&client, ENDLESS).await);
        }
        let mut at = usize::MAX;
        for id in &ids {
            let found = worker(&client, id).await;
            at = names.iter().position(|name| *name == found).expect("one of them");
        }
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
        assert_ne!(worker(&other, &id).await, names[at]);
        let attempt = format!("SELECT attempt FROM system.queries WHERE id = '{id}'");
        assert_eq!(other.value(&attempt).await, "2");
        for id in ids.iter().chain([&id]) {
            other.value(&format!("SELECT oribi.cancel('{id}')")).await;
        }
    })
    .await;
}
