//! Several tables changed together, and tables that take each other's names.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinSet;

use crate::common::daemon::eventually;
use crate::support::*;

const ROUNDS: i64 = 60;

/// Looks at three tables at once until the end: how often, and between which numbers of rows it saw a
/// commit begin and not end.
async fn watch(client: Client, over: Arc<AtomicBool>) -> (usize, Vec<Vec<String>>) {
    let (mut looks, mut torn) = (0, Vec::new());
    let counts = "SELECT (SELECT count(*) FROM x), (SELECT count(*) FROM y), count(*) FROM z";
    while !over.load(Ordering::Relaxed) {
        let mut rows = client.rows(counts).await;
        looks += 1;
        let counts = rows.swap_remove(0);
        if counts.iter().any(|count| *count != counts[0]) {
            torn.push(counts);
        }
    }
    (looks, torn)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_over_several_tables_is_seen_whole() {
    bounded(async {
        let cluster = Cluster::with_warehouse();
        let daemons = cluster.start_all(["a", "b"]);
        let writer = Client::connect(&daemons[0]).await;
        for table in ["x", "y", "z"] {
            writer.rows(&format!("CREATE TABLE {table} (n int)")).await;
        }
        let over = Arc::new(AtomicBool::new(false));
        let mut readers = JoinSet::new();
        for daemon in [&daemons[0], &daemons[1], &daemons[1]] {
            let client = Client::connect(daemon).await;
            client.rows("SET oribi.result_cache = off").await;
            readers.spawn(watch(client, over.clone()));
        }
        for round in 0..ROUNDS {
            writer.rows("BEGIN").await;
            for table in ["z", "x", "y"] {
                writer.rows(&format!("INSERT INTO {table} VALUES ({round})")).await;
            }
            writer.rows("COMMIT").await;
        }
        over.store(true, Ordering::Relaxed);
        for (looks, torn) in readers.join_all().await {
            assert!(looks > 0);
            assert_eq!(torn, Vec::<Vec<String>>::new(), "of {looks} looks");
        }
        let all = format!("{ROUNDS}");
        let reader = Client::connect(&daemons[1]).await;
        reader.rows("SET oribi.consistency = 'strong'").await;
        let counts = "SELECT (SELECT count(*) FROM x), (SELECT count(*) FROM y), count(*) FROM z";
        assert_eq!(reader.rows(counts).await, [[all.as_str(); 3]]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_holds_what_it_has_read_never_sees_half_a_commit() {
    bounded(async {
        let cluster = Cluster::with_warehouse();
        let daemon = cluster.start("a");
        let (writer, reader) = (Client::connect(&daemon).await, Client::connect(&daemon).await);
        for table in ["x", "y"] {
            writer.rows(&format!("CREATE TABLE {table} (n int)")).await;
        }
        let both = "BEGIN; INSERT INTO x VALUES (1); INSERT INTO y VALUES (1); COMMIT";
        reader.rows("BEGIN ISOLATION LEVEL REPEATABLE READ").await;
        assert_eq!(reader.value("SELECT count(*) FROM x").await, "0");
        writer.rows(both).await;
        assert_eq!(reader.outcome("SELECT count(*) FROM y").await, "40001");
        reader.rows("ROLLBACK").await;
        // One that reads both before is not disturbed.
        reader.rows("BEGIN ISOLATION LEVEL REPEATABLE READ").await;
        let counts = "SELECT (SELECT count(*) FROM x), count(*) FROM y";
        assert_eq!(reader.rows(counts).await, [["1", "1"]]);
        writer.rows(both).await;
        assert_eq!(reader.rows(counts).await, [["1", "1"]]);
        reader.rows("COMMIT").await;
        assert_eq!(reader.rows(counts).await, [["2", "2"]]);
        // One that has written to a table and not read it: what it sees of it is as it was then.
        reader.rows("BEGIN ISOLATION LEVEL REPEATABLE READ").await;
        reader.rows("INSERT INTO x VALUES (2)").await;
        writer.rows(both).await;
        assert_eq!(reader.outcome(counts).await, "40001");
        reader.rows("ROLLBACK").await;
        reader.rows("BEGIN ISOLATION LEVEL REPEATABLE READ").await;
        reader.rows("INSERT INTO x VALUES (2)").await;
        assert_eq!(reader.rows(counts).await, [["4", "3"]]);
        writer.rows(both).await;
        assert_eq!(reader.rows(counts).await, [["4", "3"]]);
        reader.rows("COMMIT").await;
        assert_eq!(reader.rows(counts).await, [["5", "4"]]);
    })
    .await;
}

/// More tables than a record remembers of former commits.
const MANY: usize = 70;

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_over_many_tables_is_seen_whole() {
    bounded(async {
        let cluster = Cluster::with_warehouse().with("MAINTENANCE_INTERVAL", "none");
        let daemons = cluster.start_all(["a", "b"]);
        let writer = Client::connect(&daemons[0]).await;
        for table in 0..MANY {
            writer.rows(&format!("CREATE TABLE t{table} (n int)")).await;
        }
        let over = Arc::new(AtomicBool::new(false));
        let mut readers = JoinSet::new();
        for (first, last) in [(1, MANY - 1), (MANY / 2, 2), (3, MANY / 2)] {
            let client = Client::connect(&daemons[1]).await;
            client.rows("SET oribi.result_cache = off").await;
            let sql = format!("SELECT (SELECT count(*) FROM t{first}), count(*) FROM t{last}");
            let over = over.clone();
            readers.spawn(async move {
                let mut looks = 0;
                while !over.load(Ordering::Relaxed) {
                    let counts = client.rows(&sql).await.swap_remove(0);
                    assert_eq!(counts[0], counts[1], "{sql}, after {looks} looks");
                    looks += 1;
                }
                looks
            });
        }
        for round in 0..5 {
            writer.rows("BEGIN").await;
            for table in 0..MANY {
                writer.rows(&format!("INSERT INTO t{table} VALUES ({round})")).await;
            }
            writer.rows("COMMIT").await;
        }
        over.store(true, Ordering::Relaxed);
        assert!(readers.join_all().await.iter().all(|looks| *looks > 0));
        // Who holds what was before is told also after one of them was changed alone.
        let reader = Client::connect(&daemons[0]).await;
        let last = MANY - 1;
        reader.rows("BEGIN ISOLATION LEVEL REPEATABLE READ").await;
        assert_eq!(reader.value("SELECT count(*) FROM t0").await, "5");
        writer.rows("BEGIN").await;
        for table in 0..MANY {
            writer.rows(&format!("INSERT INTO t{table} VALUES (5)")).await;
        }
        writer.rows("COMMIT").await;
        writer.rows(&format!("INSERT INTO t{last} VALUES (6)")).await;
        let both = format!("SELECT (SELECT count(*) FROM t0), count(*) FROM t{last}");
        assert_eq!(reader.outcome(&both).await, "40001");
        reader.rows("ROLLBACK").await;
        assert_eq!(reader.rows(&both).await, [["6", "7"]]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_made_for_a_dropped_table_is_not_put_into_its_successor() {
    bounded(async {
        let cluster = Cluster::with_warehouse().with("MAINTENANCE_INTERVAL", "none");
        let b = cluster.start("b");
        let cluster = cluster.with("FAULT", "a commit is to be made").with("FAULT_BY", "stop");
        let a = cluster.start("a");
        let (slow, quick) = (Client::connect(&a).await, Client::connect(&b).await);
        quick.rows("CREATE TABLE t (n int)").await;
        quick.rows("INSERT INTO t VALUES (1)").await;
        let late = tokio::spawn(async move { slow.outcome("INSERT INTO t VALUES (2)").await });
        until("it stops before its commit", async || is_stopped(&a)).await;
        // The new table's record has the version that the old one's had.
        for sql in ["DROP TABLE t", "CREATE TABLE t (n int)", "INSERT INTO t VALUES (3)"] {
            quick.rows(sql).await;
        }
        a.resume();
        // It begins again, and finds the new one.
        assert_eq!(late.await.expect("a client"), "");
        quick.rows("SET oribi.consistency = 'strong'").await;
        assert_eq!(quick.rows("SELECT n FROM t ORDER BY n").await, [["2"], ["3"]]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_older_daemons_are_changed_and_dropped() {
    bounded(async {
        let cluster = Cluster::with_warehouse();
        let daemon = cluster.start("a");
        let client = Client::connect(&daemon).await;
        let store = Store::of(&cluster).await;
        let forget = async || {
            for life in store.children("/lives").await {
                store.delete(&format!("/lives/{life}")).await;
            }
        };
        client.rows("CREATE SCHEMA s").await;
        for sql in ["CREATE TABLE t (n int)", "CREATE TABLE u (n int)", "CREATE TABLE s.w (n int)"]
        {
            client.rows(sql).await;
        }
        client.rows("CREATE VIEW v AS SELECT 1 AS x").await;
        // And their owner's.
        assert_eq!(store.children("/lives").await.len(), 6);
        for sql in [
            "INSERT INTO t VALUES (1)",
            "BEGIN; INSERT INTO t VALUES (2); INSERT INTO u VALUES (2); COMMIT",
            "ALTER TABLE t ADD COLUMN m int",
            "COMMENT ON VIEW v IS 'x'",
            "CREATE OR REPLACE VIEW v AS SELECT 2 AS x",
            "ALTER TABLE t RENAME TO t2",
            "DROP TABLE u",
            "DROP SCHEMA s CASCADE",
        ] {
            forget().await;
            client.rows(sql).await;
        }
        assert_eq!(client.rows("SELECT n, m, x FROM t2, v ORDER BY n").await.len(), 2);
        client.rows("DROP VIEW v").await;
        client.rows("DROP TABLE t2").await;
        assert_eq!(store.children("/lives").await, Vec::<String>::new());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_block_has_locked_is_unchanged_when_it_commits() {
    bounded(async {
        // Files that are merged change a table as well.
        let cluster = Cluster::with_warehouse().with("MAINTENANCE_INTERVAL", "none");
        let daemons = cluster.start_all(["a", "b"]);
        let (here, there) = (Client::connect(&daemons[0]).await, Client::connect(&daemons[1]).await);
        for table in ["x", "y"] {
            here.rows(&format!("CREATE TABLE {table} (n int)")).await;
            here.rows(&format!("INSERT INTO {table} VALUES (1)")).await;
        }
        here.rows("CREATE VIEW v AS SELECT n FROM x").await;
        let locks = [
            "SELECT n FROM x FOR UPDATE",
            "SELECT x.n FROM x, y WHERE x.n = y.n FOR NO KEY UPDATE OF x NOWAIT",
            "SELECT n FROM v FOR SHARE SKIP LOCKED",
            "WITH one AS (SELECT 1 AS n) SELECT n FROM one JOIN x USING (n) FOR KEY SHARE",
            "LOCK TABLE x",
            "LOCK x, v IN SHARE ROW EXCLUSIVE MODE NOWAIT",
            "PREPARE locks AS SELECT n FROM x WHERE n = $1 FOR UPDATE; EXECUTE locks(1); DEALLOCATE locks",
            "DECLARE c CURSOR FOR SELECT n FROM x FOR UPDATE",
            "INSERT INTO y SELECT n FROM x WHERE n < 0 FOR UPDATE",
        ];
        let change = "INSERT INTO x VALUES (2)";
        for lock in locks {
            for level in ["READ COMMITTED", "REPEATABLE READ"] {
                let begin = format!("BEGIN ISOLATION LEVEL {level}");
                // Nobody has changed it: neither a block that writes elsewhere nor one that only reads minds.
                for write in ["SELECT 1", "INSERT INTO y VALUES (3)", "UPDATE x SET n = n"] {
                    for statement in [begin.as_str(), lock, write, "COMMIT"] {
                        assert_eq!(here.outcome(statement).await, "", "{lock}, {write}, {level}");
                    }
                    // Somebody has, on another daemon.
                    for statement in [begin.as_str(), lock, write] {
                        assert_eq!(here.outcome(statement).await, "", "{lock}, {write}, {level}");
                    }
                    let before = there.value("SELECT count(*) FROM y").await;
                    there.rows(change).await;
                    assert_eq!(here.outcome("COMMIT").await, "40001", "{lock}, {write}, {level}");
                    assert_eq!(there.value("SELECT count(*) FROM y").await, before, "{lock}");
                }
            }
        }
        // What others have done before the lock is seen, and what they have done since the first is told.
        there.rows("INSERT INTO x VALUES (77)").await;
        here.rows("BEGIN").await;
        let seen = "SELECT n FROM x WHERE n = 77 FOR UPDATE";
        assert_eq!(here.value(seen).await, "77");
        there.rows(change).await;
        assert_eq!(here.outcome(seen).await, "40001");
        here.rows("ROLLBACK").await;
        // What was locked since a savepoint is let go with it, what was locked before is not.
        for (first, end) in [("SELECT 1", ""), ("LOCK x", "40001")] {
            let steps = ["BEGIN", first, "SAVEPOINT s", "LOCK x", "ROLLBACK TO SAVEPOINT s"];
            for statement in steps {
                assert_eq!(here.outcome(statement).await, "", "{first}, {statement}");
            }
            there.rows(change).await;
            assert_eq!(here.outcome("COMMIT").await, end, "{first}");
        }
        // A table of the same name is not the same.
        here.rows("BEGIN; LOCK y").await;
        let anew = "DROP TABLE y; CREATE TABLE y (n int); INSERT INTO y VALUES (1)";
        there.rows(anew).await;
        assert_eq!(here.outcome("COMMIT").await, "40001");
        // Nor where the block then writes to that.
        here.rows("BEGIN; LOCK y").await;
        there.rows(anew).await;
        let (oid, beside) = ("SELECT 'y'::regclass::oid::text", Client::connect(&daemons[0]).await);
        let now = there.value(oid).await;
        let known = async || (beside.value(oid).await == now).then_some(());
        eventually("the other table is known", known).await;
        let ends = [here.outcome("INSERT INTO y VALUES (2)").await, here.outcome("COMMIT").await];
        assert!(ends.iter().any(|end| end == "40001"), "{ends:?}");
        assert_eq!(there.value("SELECT count(*) FROM y").await, "1");
        // These modes let others change rows, and a block's locks end with it.
        for mode in ["ACCESS SHARE", "ROW SHARE", "ROW EXCLUSIVE", "SHARE UPDATE EXCLUSIVE"] {
            here.rows("BEGIN; LOCK x; ROLLBACK").await;
            here.rows(&format!("BEGIN; LOCK TABLE x IN {mode} MODE")).await;
            there.rows(change).await;
            assert_eq!(here.outcome("COMMIT").await, "", "{mode}");
        }
    })
    .await;
}
