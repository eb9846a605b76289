//! Several daemons change the same thing at the same moment: one wins, the others are told.

use std::time::{Duration, Instant};

use crate::support::*;

const ROUNDS: i64 = 50;

async fn two(cluster: &Cluster) -> (impl Sized, Client, Client) {
    let daemons = [cluster.start("a"), cluster.start("b")];
    let (a, b) = (Client::connect(&daemons[0]).await, Client::connect(&daemons[1]).await);
    (daemons, a, b)
}

/// Begins a moment later, so that two daemons meet at different points of their work. The timer of
/// the runtime is too coarse for that.
async fn after<T>(delay: Duration, work: impl Future<Output = T>) -> T {
    let begun = Instant::now();
    while begun.elapsed() < delay {
        tokio::task::yield_now().await;
    }
    work.await
}

/// Exactly one of two may have succeeded; the SQLSTATE of the other.
fn loser(outcomes: (String, String)) -> String {
    match outcomes {
        (a, b) if a.is_empty() != b.is_empty() => a + &b,
        both => panic!("not one winner: {both:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_creates_the_table() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper();
        let (_daemons, a, b) = two(&cluster).await;
        for round in 0..ROUNDS {
            let name = format!("t{round}");
            let (sql_a, sql_b) = (cluster.table(&name, 1), cluster.table(&name, 2));
            let outcomes = tokio::join!(a.outcome(&sql_a), b.outcome(&sql_b));
            let winner = if outcomes.0.is_empty() { "1" } else { "2" };
            assert_eq!(loser(outcomes), "42P07", "round {round}");
            for client in [&a, &b] {
                assert_eq!(client.value(&format!("SELECT x FROM {name}")).await, winner);
            }
        }
        // A name that others may have taken between the look and the write is no error here.
        for round in 0..ROUNDS {
            let sql = cluster.table(&format!("IF NOT EXISTS i{round}"), 1);
            tokio::join!(a.rows(&sql), b.rows(&sql));
        }
        let oids = "SELECT oid, relname FROM pg_class WHERE oid >= 16384 ORDER BY oid";
        until("the same list", async || {
            let lists = tokio::join!(a.rows(oids), b.rows(oids));
            lists.0 == lists.1 && lists.0.len() == 2 * ROUNDS as usize
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_creates_the_database() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper();
        let (_daemons, a, b) = two(&cluster).await;
        for round in 0..ROUNDS {
            let sql = format!("CREATE DATABASE d{round}");
            let outcomes = tokio::join!(a.outcome(&sql), b.outcome(&sql));
            assert_eq!(loser(outcomes), "42P04", "round {round}");
            let sql = format!("CREATE SCHEMA s{round}");
            let outcomes = tokio::join!(a.outcome(&sql), b.outcome(&sql));
            assert_eq!(loser(outcomes), "42P06", "round {round}");
        }
        let databases = "SELECT oid, datname FROM pg_database ORDER BY oid";
        until("the same list", async || {
            let lists = tokio::join!(a.rows(databases), b.rows(databases));
            lists.0 == lists.1 && lists.0.len() == 1 + ROUNDS as usize
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_one_table_never_mix() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper();
        let (_daemons, a, b) = two(&cluster).await;
        let store = Store::of(&cluster).await;
        a.rows("CREATE VIEW v AS SELECT 1 AS x").await;
        for round in 0..ROUNDS {
            let comment = |by: &str| format!("COMMENT ON VIEW v IS '{by}{round}'");
            let (sql_a, sql_b) = (comment("a"), comment("b"));
            let outcomes = tokio::join!(a.outcome(&sql_a), b.outcome(&sql_b));
            let record = store.get("/catalog/oribi/v").await.expect("the view's record");
            let found = record["comment"].as_str().expect("a comment").to_owned();
            let (by_a, by_b) = (format!("a{round}"), format!("b{round}"));
            match (outcomes.0.as_str(), outcomes.1.as_str()) {
                ("", "") => assert!(found == by_a || found == by_b, "{found}"),
                ("", "40001") => assert_eq!(found, by_a),
                ("40001", "") => assert_eq!(found, by_b),
                both => panic!("round {round}: {both:?}"),
            }
            assert!(record["sql"].as_str().expect("a text").contains("1 AS x"), "{record}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_renamed_twice_has_one_name() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper();
        let (_daemons, a, b) = two(&cluster).await;
        let store = Store::of(&cluster).await;
        for round in 0..ROUNDS {
            a.rows(&format!("CREATE VIEW v{round} AS SELECT {round} AS x")).await;
            let rename = |new: &str| format!("ALTER VIEW v{round} RENAME TO {new}{round}");
            let (sql_a, sql_b) = (rename("a"), rename("b"));
            let outcomes = tokio::join!(a.outcome(&sql_a), b.outcome(&sql_b));
            let name = if outcomes.0.is_empty() { "a" } else { "b" };
            // Whoever comes a moment later does not find the old name.
            let code = loser(outcomes);
            assert!(code == "40001" || code == "42P01", "round {round}: {code}");
            assert_eq!(store.children("/catalog/oribi").await, [format!("{name}{round}")]);
            let (new, drop) = (format!("{name}{round}"), format!("DROP VIEW {name}{round}"));
            assert_eq!(b.value(&format!("SELECT x FROM {new}")).await, round.to_string());
            // Two who drop it: the second is told that it is gone, or has changed.
            let code = loser(tokio::join!(a.outcome(&drop), b.outcome(&drop)));
            assert!(code == "40001" || code == "42P01", "round {round}: {code}");
        }
        for round in 0..ROUNDS {
            a.rows(&format!("CREATE VIEW p{round} AS SELECT 'p' AS x")).await;
            b.rows(&format!("CREATE VIEW q{round} AS SELECT 'q' AS x")).await;
            let rename = |old: &str| format!("ALTER VIEW {old}{round} RENAME TO one{round}");
            let (sql_a, sql_b) = (rename("p"), rename("q"));
            let outcomes = tokio::join!(a.outcome(&sql_a), b.outcome(&sql_b));
            let (won, lost) = if outcomes.0.is_empty() { ("p", "q") } else { ("q", "p") };
            assert_eq!(loser(outcomes), "42P07", "round {round}");
            assert_eq!(b.value(&format!("SELECT x FROM one{round}")).await, won);
            assert_eq!(a.value(&format!("SELECT x FROM {lost}{round}")).await, lost);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_created_in_what_is_dropped() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper();
        let (_daemons, a, b) = two(&cluster).await;
        let store = Store::of(&cluster).await;
        // Two writes that pass each other by a hair: more rounds than elsewhere.
        for round in 0..4 * ROUNDS {
            a.rows(&format!("CREATE SCHEMA s{round}")).await;
            a.rows(&format!("CREATE DATABASE d{round}")).await;
            let create_a = format!("CREATE VIEW s{round}.v AS SELECT 1 AS x");
            let drop_b = format!("DROP SCHEMA s{round}");
            // The other daemon knows the schema before the race begins.
            until("the schema", async || {
                b.value(&format!("SELECT count(*) FROM pg_namespace WHERE nspname = 's{round}'"))
                    .await
                    == "1"
            })
            .await;
            let late = Duration::from_micros(round as u64 % 20 * 200);
            let outcomes = tokio::join!(a.outcome(&create_a), after(late, b.outcome(&drop_b)));
            let nodes = store.children("/catalog/oribi").await;
            let has = |name: String| nodes.contains(&name);
            let (schema, view) = (has(format!("s{round}.")), has(format!("s{round}.v")));
            match (outcomes.0.as_str(), outcomes.1.as_str()) {
                ("", "40001" | "2BP01") => assert!(schema && view),
                ("3F000" | "40001", "") => assert!(!schema && !view),
                both => panic!("round {round}: {both:?}, schema {schema}, view {view}"),
            }

            let create_b = format!("CREATE VIEW d{round}.public.v AS SELECT 1 AS x");
            let drop_a = format!("DROP DATABASE d{round}");
            let outcomes = tokio::join!(a.outcome(&drop_a), b.outcome(&create_b));
            let path = format!("/catalog/d{round}");
            let there = store.get(&path).await.is_some();
            match (outcomes.0.as_str(), outcomes.1.as_str()) {
                // First created, then dropped with all it held.
                ("", "") => assert!(!there),
                ("", "3D000" | "40001") => assert!(!there),
                ("40001", "") => assert_eq!(store.children(&path).await, ["v"]),
                both => panic!("round {round}: {both:?}, database there: {there}"),
            }
        }
    })
    .await;
}
