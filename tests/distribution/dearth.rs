//! A worker for which the system has no more memory.

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::*;

/// A statement for which each daemon needs far more memory than to start, and its answer.
const HUNGRY: (&str, &str) = (
    "SELECT count(*) FROM (SELECT DISTINCT a.l_comment, a.l_orderkey, b.l_partkey, b.l_shipinstruct \
     FROM lineitem a JOIN lineitem b ON a.l_orderkey = b.l_orderkey) d",
    "301301",
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_out_of_memory_is_not_noticed() {
    bounded(async {
        // So that what the daemon needs comes from the system, and not from what it had once.
        let three = Three::with(|cluster| {
            cluster
                .with_variable("MALLOC_ARENA_MAX", "1")
                .with_variable("MALLOC_MMAP_THRESHOLD_", "65536")
        })
        .await;
        let client = three.client(0).await;
        let (hungry, answer) = HUNGRY;
        // Until there are the threads that it needs.
        for _ in 0..20 {
            client.rows(JOINED).await;
        }
        assert!(runs_on(&client, hungry, "a, b, c").await);
        let victim = &three.daemons[1];
        let pid = Pid::from_raw(i32::try_from(victim.pid()).expect("a number")).expect("a process");
        let none = Rlimit { current: Some(0), maximum: Some(0) };
        prlimit(Some(pid), Resource::As, none).expect("the limit is set");
        until("it has ended under the statement", async || {
            assert_eq!(client.value(hungry).await, answer);
            victim.ended().is_some()
        })
        .await;
        assert!(victim.log().contains("memory allocation of"), "{}", victim.log());
        until("the daemon is left alone", async || runs_on(&client, hungry, "a, c").await).await;
        assert_eq!(client.value(hungry).await, answer);
    })
    .await;
}
