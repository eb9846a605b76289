//! Letters that nobody should send.

use futures::future::join_all;

use crate::support::{Client, Cluster, Store, bounded, until};
use crate::wait;

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
