//! Exactly one daemon leads, and one that only believes so can do nothing.

use crate::support::*;

/// The leading daemon and its node, as the store has it.
pub async fn leader(store: &Store) -> Option<(String, String)> {
    let node = store.children("/leader").await.into_iter().next()?;
    let candidate = store.get(&format!("/leader/{node}")).await?;
    Some((candidate["daemon"].as_str()?.to_owned(), node))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_leader_dies_exactly_one_other_takes_over() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper();
        let ids = ["a", "b", "c"];
        let daemons = cluster.start_all(ids);
        let store = Store::of(&cluster).await;
        until("three candidates", async || store.children("/leader").await.len() == 3).await;
        let (first, node) = leader(&store).await.expect("a leader");
        let at = ids.iter().position(|id| *id == first).expect("one of them");
        daemons[at].kill();
        until("two candidates", async || store.children("/leader").await.len() == 2).await;
        let (second, next) = leader(&store).await.expect("a leader");
        assert!(second != first && next > node);
        // Back again, it stands at the end of the line.
        let again = cluster.start(&first);
        until("three candidates", async || store.children("/leader").await.len() == 3).await;
        assert_eq!(leader(&store).await.expect("a leader").0, second);
        drop(again);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_stopped_is_one_no_more() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper();
        let ids = ["a", "b", "c"];
        let daemons = cluster.start_all(ids);
        let store = Store::of(&cluster).await;
        until("three candidates", async || store.children("/leader").await.len() == 3).await;
        let (first, node) = leader(&store).await.expect("a leader");
        let at = ids.iter().position(|id| *id == first).expect("one of them");
        daemons[at].pause();
        until("another leads", async || {
            leader(&store).await.is_some_and(|(daemon, _)| daemon != first)
        })
        .await;
        daemons[at].resume();
        until("three candidates", async || store.children("/leader").await.len() == 3).await;
        let nodes = store.children("/leader").await;
        assert!(!nodes.contains(&node), "what its writes were fenced by is gone");
        assert_ne!(leader(&store).await.expect("a leader").0, first);
    })
    .await;
}
