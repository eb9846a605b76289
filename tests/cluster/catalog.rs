//! One catalog: what one daemon defines, all have.

use std::collections::BTreeSet;

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_table_is_there_on_the_next_daemon_at_once() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper();
        let daemons = [cluster.start("a"), cluster.start("b")];
        let (a, b) = (Client::connect(&daemons[0]).await, Client::connect(&daemons[1]).await);
        for round in 0..100 {
            a.rows(&cluster.table(&format!("t{round}"), round)).await;
            assert_eq!(b.value(&format!("SELECT x FROM t{round}")).await, round.to_string());
        }
        // Databases and schemas too, with what is in them.
        for round in 0..10 {
            b.rows(&format!("CREATE DATABASE d{round}")).await;
            b.rows(&cluster.table(&format!("d{round}.public.t"), round)).await;
            let sql = format!("SELECT x FROM d{round}.public.t");
            assert_eq!(a.value(&sql).await, round.to_string());
            b.rows(&format!("CREATE SCHEMA s{round}")).await;
            a.rows(&format!("CREATE VIEW s{round}.v AS SELECT {round} AS x")).await;
            let sql = format!("SELECT x FROM s{round}.v");
            assert_eq!(b.value(&sql).await, round.to_string());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_change_is_seen_by_others() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper();
        let daemons = [cluster.start("a"), cluster.start("b")];
        let (a, b) = (Client::connect(&daemons[0]).await, Client::connect(&daemons[1]).await);
        a.rows(&cluster.table("t", 1)).await;
        a.rows("CREATE VIEW v AS SELECT x + 1 AS y FROM t").await;
        assert_eq!(b.value("SELECT y FROM v").await, "2");

        a.rows("CREATE OR REPLACE VIEW v AS SELECT x + 10 AS y FROM t").await;
        until("the new view", async || b.value("SELECT y FROM v").await == "11").await;

        a.rows("COMMENT ON TABLE t IS 'one row'").await;
        let comment = "SELECT obj_description('t'::regclass)";
        until("the comment", async || b.value(comment).await == "one row").await;

        a.rows("ALTER TABLE t RENAME TO u").await;
        assert_eq!(b.value("SELECT x FROM u").await, "1", "the new name is there at once");
        until("the old name is gone", async || b.outcome("SELECT x FROM t").await == "42P01").await;
        // A view names its tables: it went with the old name.
        assert_eq!(b.refused("SELECT y FROM v").await.code().code(), "42P01");

        a.rows("DROP VIEW v").await;
        a.rows("DROP TABLE u").await;
        until("the table is gone", async || b.outcome("SELECT x FROM u").await == "42P01").await;
        // A name that was dropped here is free there.
        b.rows(&cluster.table("u", 5)).await;
        until("the new table", async || a.value("SELECT x FROM u").await == "5").await;

        a.rows("CREATE DATABASE other").await;
        a.rows("ALTER DATABASE other RENAME TO another").await;
        let databases = "SELECT datname FROM pg_database ORDER BY datname";
        until("the database", async || b.rows(databases).await == [["another"], ["oribi"]]).await;
        a.rows("DROP DATABASE another").await;
        until("no database", async || b.rows(databases).await == [["oribi"]]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strong_consistency_sees_changes_at_once() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper();
        let daemons = [cluster.start("a"), cluster.start("b")];
        let (a, b) = (Client::connect(&daemons[0]).await, Client::connect(&daemons[1]).await);
        b.rows("SET oribi.consistency = 'strong'").await;
        for round in 0..50 {
            a.rows(&format!("CREATE OR REPLACE VIEW v AS SELECT {round} AS x")).await;
            assert_eq!(b.value("SELECT x FROM v").await, round.to_string());
        }
        a.rows("DROP VIEW v").await;
        assert_eq!(b.refused("SELECT x FROM v").await.code().code(), "42P01");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn object_identifiers_are_the_same_everywhere_and_for_ever() {
    bounded(async {
        let cluster = Cluster::on_shared_zookeeper();
        let identifiers = "SELECT c.oid, relname FROM pg_class c JOIN pg_namespace n \
                           ON n.oid = c.relnamespace WHERE nspname = 'public' ORDER BY relname";
        let databases = "SELECT oid, datname FROM pg_database ORDER BY datname";
        let mut first = Vec::new();
        for round in 0..2 {
            let daemons = cluster.start_all(["a", "b", "c"]);
            let mut clients = Vec::new();
            for daemon in &daemons {
                clients.push(Client::connect(daemon).await);
            }
            if round == 0 {
                for number in 0..30 {
                    let client = &clients[number % clients.len()];
                    client.rows(&format!("CREATE VIEW v{number:02} AS SELECT {number} AS x")).await;
                }
                clients[0].rows("CREATE DATABASE other").await;
                // A rename and a replacement keep the identifier.
                clients[1].rows("CREATE OR REPLACE VIEW v00 AS SELECT 'new' AS x").await;
                clients[2].rows("ALTER VIEW v01 RENAME TO w01").await;
            }
            for client in &clients {
                until("all views", async || client.rows(identifiers).await.len() == 30).await;
                until("the new name", async || {
                    client.outcome("SELECT * FROM v01").await == "42P01"
                })
                .await;
                let found = [client.rows(identifiers).await, client.rows(databases).await].concat();
                if first.is_empty() {
                    first = found.clone();
                }
                assert_eq!(found, first, "round {round}");
            }
            let distinct: BTreeSet<_> = first.iter().map(|row| &row[0]).collect();
            assert_eq!(distinct.len(), first.len(), "{first:?}");
            drop(clients);
            daemons.iter().for_each(Daemon::terminate);
            for daemon in &daemons {
                assert!(daemon.wait(PATIENCE).success());
            }
        }
    })
    .await;
}
