//! Writers that meet at one table, on several daemons: what only adds goes through, what changes the
//! same rows is carried out one after the other or refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use uuid::Uuid;

use crate::common::daemon::Daemon;
use crate::crashes::assert_tidy;
use crate::support::{Client, Cluster, bounded, until};

fn cluster() -> Cluster {
    let cluster = Cluster::on_shared_zookeeper();
    let warehouse = cluster.path("warehouse").display().to_string();
    cluster.with("WAREHOUSE", &warehouse)
}

/// Clients that write at the same time, `each` on every daemon; they are numbered.
async fn writers<T, F>(
    daemons: &[Daemon],
    each: usize,
    work: impl Fn(Client, usize) -> F,
) -> JoinSet<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let mut writers = JoinSet::new();
    for daemon in daemons {
        for _ in 0..each {
            let client = Client::connect(daemon).await;
            client.rows("SET oribi.consistency = 'strong'").await;
            writers.spawn(work(client, writers.len()));
        }
    }
    writers
}

/// Has many clients carry out a statement that changes one row; how often they were not refused.
async fn times_done(daemons: &[Daemon], statement: &'static str) -> u64 {
    let count = move |client: Client, _| async move {
        let mut done = 0u64;
        for _ in 0..10 {
            match client.outcome(statement).await.as_str() {
                "" => done += 1,
                code => assert_eq!(code, "40001"),
            }
        }
        done
    };
    writers(daemons, 3, count).await.join_all().await.into_iter().sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_from_any_number_of_daemons_all_succeed() {
    bounded(async {
        let cluster = cluster();
        let daemons = cluster.start_all(["a", "b", "c"]);
        let client = Client::connect(&daemons[0]).await;
        client.rows("CREATE TABLE t (daemon text, n int)").await;
        let write = |client: Client, writer| async move {
            for n in 0..10 {
                client.rows(&format!("INSERT INTO t VALUES ('{writer}-', {n})")).await;
            }
        };
        writers(&daemons, 4, write).await.join_all().await;
        for daemon in &daemons {
            let client = Client::connect(daemon).await;
            client.rows("SET oribi.consistency = 'strong'").await;
            let found = client.rows("SELECT count(*), count(DISTINCT (daemon || n)) FROM t").await;
            assert_eq!(found[0], ["120", "120"]);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_update_is_lost() {
    bounded(async {
        let cluster = cluster();
        let daemons = cluster.start_all(["a", "b"]);
        let client = Client::connect(&daemons[0]).await;
        client.rows("CREATE TABLE counter (n int)").await;
        client.rows("INSERT INTO counter VALUES (0)").await;
        let done = times_done(&daemons, "UPDATE counter SET n = n + 1").await;
        client.rows("SET oribi.consistency = 'strong'").await;
        assert!(done > 0, "none of the updates went through");
        assert_eq!(client.value("SELECT n FROM counter").await, done.to_string());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_of_several_tables_are_one_step() {
    bounded(async {
        let cluster = cluster();
        let daemons = cluster.start_all(["a", "b"]);
        let client = Client::connect(&daemons[0]).await;
        client.rows("CREATE TABLE x (n int)").await;
        client.rows("CREATE TABLE y (n int)").await;
        let over = Arc::new(AtomicBool::new(false));
        let reader = {
            let (client, over) = (Client::connect(&daemons[1]).await, over.clone());
            client.rows("SET oribi.consistency = 'strong'").await;
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let (x, y) = ("SELECT count(*) FROM x", "SELECT count(*) FROM y");
                    // Rows are only added: what is read first can only be fewer.
                    let first: u64 = client.value(y).await.parse().expect("a number");
                    let second: u64 = client.value(x).await.parse().expect("a number");
                    assert!(first <= second, "{first} rows of y, {second} of x");
                }
            })
        };
        let writer = Client::connect(&daemons[0]).await;
        for n in 0..20 {
            writer.rows("BEGIN").await;
            writer.rows(&format!("INSERT INTO x VALUES ({n})")).await;
            writer.rows(&format!("INSERT INTO y VALUES ({n})")).await;
            writer.rows("COMMIT").await;
        }
        over.store(true, Ordering::Relaxed);
        reader.await.expect("the reader saw nothing wrong");
        // Another changes what the block has read: nothing of the block happens.
        writer.rows("BEGIN").await;
        writer.rows("DELETE FROM x WHERE n = 3").await;
        writer.rows("INSERT INTO y VALUES (1000)").await;
        client.rows("UPDATE x SET n = -3 WHERE n = 3").await;
        assert_eq!(writer.outcome("COMMIT").await, "40001");
        assert_eq!(client.value("SELECT count(*) FROM x").await, "20");
        assert_eq!(client.value("SELECT count(*) FROM y").await, "20");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_on_one_daemon_is_read_on_another() {
    bounded(async {
        let cluster = cluster();
        let daemons = cluster.start_all(["a", "b"]);
        let (one, other) = (Client::connect(&daemons[0]).await, Client::connect(&daemons[1]).await);
        one.rows("CREATE DATABASE test").await;
        other.rows("CREATE TABLE test.t1 (id INT, name STRING)").await;
        one.rows("INSERT INTO test.t1 VALUES (1, 'one'), (2, 'two')").await;
        let rows = async || other.rows("SELECT * FROM test.t1 ORDER BY id").await;
        until("the rows are there", async || rows().await == [["1", "one"], ["2", "two"]]).await;
        one.rows("CREATE TABLE t (x int)").await;
        other.rows("INSERT INTO t VALUES (1)").await;
        until("the row is there", async || one.value("SELECT x FROM t").await == "1").await;
        one.rows("ALTER TABLE t ADD COLUMN y int").await;
        other.rows("SET oribi.consistency = 'strong'").await;
        other.rows("INSERT INTO t (x, y) VALUES (2, 3)").await;
        let all = async || one.value("SELECT sum(x) + sum(y) FROM t").await == "6";
        until("all rows are there", all).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inserts_go_through_while_columns_change() {
    bounded(async {
        let cluster = cluster();
        let daemons = cluster.start_all(["a", "b"]);
        let client = Client::connect(&daemons[0]).await;
        client.rows("CREATE TABLE t (n int)").await;
        let write = |client: Client, writer| async move {
            for n in 0..20 {
                client.rows(&format!("INSERT INTO t (n) VALUES ({writer}{n:02})")).await;
            }
        };
        let writers = writers(&daemons, 3, write).await;
        for change in 0..5 {
            client.rows(&format!("ALTER TABLE t ADD COLUMN c{change} int")).await;
            client.rows(&format!("ALTER TABLE t ALTER c{change} SET DEFAULT {change}")).await;
            let enough = async || {
                let count = client.value("SELECT count(*) FROM t").await;
                count.parse::<u32>().is_ok_and(|count| count >= (change + 1) * 15)
            };
            until("some more rows", enough).await;
        }
        writers.join_all().await;
        // What was written last on the other daemon is heard of in a moment.
        let all = async || client.value("SELECT count(*) FROM t").await == "120";
        until("all rows are there", all).await;
        // What was written later has the defaults.
        client.rows("INSERT INTO t (n) VALUES (-1)").await;
        let row = client.rows("SELECT c0, c1, c2, c3, c4 FROM t WHERE n = -1").await;
        assert_eq!(row[0], ["0", "1", "2", "3", "4"]);
    })
    .await;
}

/// Kills daemons at random while many write; `ORIBI_KILL_SECONDS` says how long.
#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_rows_outlive_their_daemons() {
    let seconds = std::env::var("ORIBI_KILL_SECONDS").ok().and_then(|s| s.parse().ok());
    let seconds: u64 = seconds.unwrap_or(10);
    let seed = Uuid::new_v4();
    println!("seed {seed}");
    let cluster = Arc::new(cluster());
    let ids = ["a", "b", "c"];
    let daemons: Vec<_> = cluster.start_all(ids).into_iter().map(Arc::new).collect();
    let client = Client::connect(&daemons[0]).await;
    client.rows("CREATE TABLE t (id text)").await;
    let daemons = Arc::new(std::sync::Mutex::new(daemons));
    let over = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for writer in 0..50usize {
        let (daemons, over) = (daemons.clone(), over.clone());
        writers.spawn(async move { write(writer, &daemons, &over).await });
    }
    let start = std::time::Instant::now();
    let mut kills = 0;
    for byte in seed.as_bytes().iter().cycle() {
        if start.elapsed() > Duration::from_secs(seconds) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500 + u64::from(*byte) * 6)).await;
        let at = usize::from(*byte) % ids.len();
        let victim = daemons.lock().expect("a list")[at].clone();
        victim.kill();
        kills += 1;
        let cluster = cluster.clone();
        let started = tokio::task::spawn_blocking(move || cluster.start(ids[at])).await;
        daemons.lock().expect("a list")[at] = Arc::new(started.expect("a daemon starts"));
    }
    over.store(true, Ordering::Relaxed);
    let (mut acknowledged, mut refused) = (Vec::new(), Vec::new());
    for (yes, no) in writers.join_all().await {
        acknowledged.extend(yes);
        refused.extend(no);
    }
    let daemon = daemons.lock().expect("a list")[0].clone();
    let client = Client::connect(&daemon).await;
    client.rows("SET oribi.consistency = 'strong'").await;
    let mut found: Vec<String> =
        client.rows("SELECT id FROM t").await.into_iter().flatten().collect();
    found.sort();
    let total = found.len();
    let (mut twice, mut lost, mut unwanted) = (0, 0, 0);
    twice += found.windows(2).filter(|pair| pair[0] == pair[1]).count();
    lost += acknowledged.iter().filter(|id| found.binary_search(id).is_err()).count();
    unwanted += refused.iter().filter(|id| found.binary_search(id).is_ok()).count();
    println!(
        "{kills} kills, {} acknowledged, {} refused, {total} rows; lost {lost}, twice {twice}, \
         refused but there {unwanted}",
        acknowledged.len(),
        refused.len()
    );
    assert!(kills > 0 && !acknowledged.is_empty());
    assert_eq!((lost, twice, unwanted), (0, 0, 0));
    // What the dead have left behind goes, and nothing else does.
    drop((client, daemon));
    for daemon in daemons.lock().expect("a list").drain(..) {
        daemon.kill();
    }
    let cluster = Arc::into_inner(cluster).expect("nobody else starts daemons");
    let cluster = cluster.with("MAINTENANCE_INTERVAL", "none");
    let cluster = cluster.with("MAINTENANCE_ORPHAN_GRACE", "0s");
    let daemon = cluster.start("a");
    let client = Client::connect(&daemon).await;
    client.rows("VACUUM t").await;
    assert_tidy(&client, "t", "the kills").await;
    client.rows("SET oribi.consistency = 'strong'").await;
    assert_eq!(client.value("SELECT count(*) FROM t").await, total.to_string());
}

/// Inserts rows until the end; which were acknowledged, and which were refused. Of those whose
/// daemon died nobody knows.
async fn write(
    writer: usize,
    daemons: &std::sync::Mutex<Vec<Arc<Daemon>>>,
    over: &AtomicBool,
) -> (Vec<String>, Vec<String>) {
    let (mut acknowledged, mut refused) = (Vec::new(), Vec::new());
    let mut n = 0;
    while !over.load(Ordering::Relaxed) {
        let daemon = {
            let daemons = daemons.lock().expect("a list");
            daemons[(writer + n) % daemons.len()].clone()
        };
        let Ok(client) = Client::try_connect(&daemon).await else {
            n += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        while !over.load(Ordering::Relaxed) {
            n += 1;
            let id = format!("{writer}-{n}");
            match client.try_rows(&format!("INSERT INTO t VALUES ('{id}')")).await {
                Ok(_) => acknowledged.push(id),
                // An error of the server's is its word that nothing was written, but for the one
                // that says that it does not know.
                Err(error) => match error.as_db_error().map(|error| error.code().code()) {
                    Some("08007" | "57P01") | None => break,
                    Some(_) => refused.push(id),
                },
            }
        }
    }
    (acknowledged, refused)
}

/// What RETURNING gives is what was committed: no two updates give the same number.
#[tokio::test(flavor = "multi_thread")]
async fn rows_are_returned_of_commits_only() {
    bounded(async {
        let cluster = cluster();
        let daemons = cluster.start_all(["a", "b"]);
        let client = Client::connect(&daemons[0]).await;
        client.rows("CREATE TABLE counter (n int)").await;
        client.rows("INSERT INTO counter VALUES (0)").await;
        let count = |client: Client, _| async move {
            let mut given = Vec::new();
            for _ in 0..10 {
                match client.try_rows("UPDATE counter SET n = n + 1 RETURNING n").await {
                    Ok(rows) => given.extend(rows.into_iter().flatten()),
                    Err(error) => {
                        let code = error.code().map(|code| code.code());
                        assert_eq!(code, Some("40001"), "{error:?}");
                    }
                }
            }
            given
        };
        let given = writers(&daemons, 3, count).await.join_all().await.into_iter().flatten();
        let mut given: Vec<u64> = given.map(|n| n.parse().expect("a number")).collect();
        given.sort_unstable();
        client.rows("SET oribi.consistency = 'strong'").await;
        let last: u64 = client.value("SELECT n FROM counter").await.parse().expect("a number");
        assert_eq!(given, (1..=last).collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overwritten_partition_keeps_what_others_add_meanwhile() {
    bounded(async {
        let cluster = cluster();
        let daemons = cluster.start_all(["a", "b"]);
        let (one, other) = (Client::connect(&daemons[0]).await, Client::connect(&daemons[1]).await);
        one.rows("CREATE TABLE t (id int, kind text) PARTITIONED BY (kind)").await;
        one.rows("INSERT INTO t VALUES (1, 'a'), (2, 'b')").await;
        other.rows("SET oribi.consistency = 'strong'").await;
        one.rows("BEGIN").await;
        one.rows("INSERT OVERWRITE t PARTITION (kind = 'a') VALUES (10)").await;
        other.rows("INSERT INTO t VALUES (3, 'a')").await;
        other.rows("UPDATE t SET id = -2 WHERE kind = 'b'").await;
        one.rows("COMMIT").await;
        let ids = "SELECT string_agg(id::text, ',' ORDER BY id) FROM t";
        assert_eq!(other.value(ids).await, "-2,3,10");
        // What another has changed in the partition itself is a conflict.
        one.rows("BEGIN").await;
        one.rows("INSERT OVERWRITE t PARTITION (kind = 'a') VALUES (20)").await;
        other.rows("DELETE FROM t WHERE id = 3").await;
        assert_eq!(one.outcome("COMMIT").await, "40001");
        assert_eq!(other.value(ids).await, "-2,10");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_merges_that_miss_the_same_row_one_inserts_it() {
    bounded(async {
        let cluster = cluster();
        let daemons = cluster.start_all(["a", "b"]);
        let client = Client::connect(&daemons[0]).await;
        client.rows("CREATE TABLE counter (id int, n int)").await;
        let merge = "MERGE INTO counter t USING (SELECT 1 AS id) s ON t.id = s.id \
                     WHEN MATCHED THEN UPDATE SET n = t.n + 1 \
                     WHEN NOT MATCHED THEN INSERT VALUES (s.id, 1)";
        let done = times_done(&daemons, merge).await;
        client.rows("SET oribi.consistency = 'strong'").await;
        assert!(done > 0, "none of the merges went through");
        assert_eq!(client.rows("SELECT id, n FROM counter").await, [["1", &done.to_string()]]);
    })
    .await;
}

/// Two statements, and the numbers in the table if only the first, only the second, or both go
/// through, in one order or the other.
type Meeting = (&'static str, &'static str, &'static str, &'static str, [&'static str; 2]);

/// From the numbers 1, 2 and 3.
const MEETINGS: &[Meeting] = &[
    ("TRUNCATE t", "INSERT OVERWRITE TABLE t SELECT 100", "", "100", ["", "100"]),
    ("TRUNCATE t", "UPDATE t SET n = n + 10", "", "11,12,13", ["", ""]),
    ("TRUNCATE t", "INSERT INTO t VALUES (7)", "", "1,2,3,7", ["", "7"]),
    ("TRUNCATE t", "DELETE FROM t WHERE n = 2", "", "1,3", ["", ""]),
    ("TRUNCATE t", "TRUNCATE t", "", "", ["", ""]),
    (
        "INSERT OVERWRITE TABLE t SELECT 100",
        "UPDATE t SET n = n + 10",
        "100",
        "11,12,13",
        ["100", "110"],
    ),
    (
        "INSERT OVERWRITE TABLE t SELECT 100",
        "INSERT INTO t VALUES (7)",
        "100",
        "1,2,3,7",
        ["100", "7,100"],
    ),
    (
        "INSERT OVERWRITE TABLE t SELECT n + 10 FROM t",
        "INSERT OVERWRITE TABLE t SELECT n * 10 FROM t",
        "11,12,13",
        "10,20,30",
        ["20,30,40", "110,120,130"],
    ),
    (
        "ALTER TABLE t ADD COLUMN a int",
        "UPDATE t SET n = n + 10",
        "1,2,3",
        "11,12,13",
        ["11,12,13", "11,12,13"],
    ),
    (
        "ALTER TABLE t ALTER n TYPE bigint",
        "DELETE FROM t WHERE n = 2",
        "1,2,3",
        "1,3",
        ["1,3", "1,3"],
    ),
    ("ALTER TABLE t ADD COLUMN a int", "TRUNCATE t", "1,2,3", "", ["", ""]),
];

#[tokio::test(flavor = "multi_thread")]
async fn statements_that_meet_happen_in_order_or_are_refused() {
    bounded(async {
        let cluster = cluster();
        let daemons = cluster.start_all(["a", "b"]);
        let (one, other) = (Client::connect(&daemons[0]).await, Client::connect(&daemons[1]).await);
        other.rows("SET oribi.consistency = 'strong'").await;
        one.rows("SET oribi.consistency = 'strong'").await;
        let mut refused = 0;
        for (first, second, only_first, only_second, both) in MEETINGS {
            for _ in 0..4 {
                one.rows("CREATE TABLE t (n int)").await;
                one.rows("INSERT INTO t VALUES (1), (2), (3)").await;
                let outcomes = tokio::join!(one.outcome(first), other.outcome(second));
                let numbers = "SELECT string_agg(n::text, ',' ORDER BY n) FROM t";
                let found = other.value(numbers).await;
                let what = format!("{first}; {second}: {outcomes:?}, {found}");
                match (outcomes.0.as_str(), outcomes.1.as_str()) {
                    ("", "") => assert!(both.contains(&&*found), "{what}"),
                    ("", "40001") => assert_eq!(found, *only_first, "{what}"),
                    ("40001", "") => assert_eq!(found, *only_second, "{what}"),
                    _ => panic!("{what}"),
                }
                refused += usize::from(outcomes != <(String, String)>::default());
                one.rows("DROP TABLE t PURGE").await;
            }
        }
        println!("{refused} of {} refused", 4 * MEETINGS.len());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_change_at_the_same_time_are_all_there_or_refused() {
    bounded(async {
        let cluster = cluster();
        let daemons = cluster.start_all(["a", "b"]);
        let (one, other) = (Client::connect(&daemons[0]).await, Client::connect(&daemons[1]).await);
        one.rows("CREATE TABLE t (n int)").await;
        one.rows("INSERT INTO t VALUES (1)").await;
        let mut expected = vec!["n".to_owned()];
        for round in 0..10 {
            let name = |side: &str| format!("{side}{round:02}");
            let add = |name: &str| format!("ALTER TABLE t ADD COLUMN {name} int");
            let (of_one, of_other) = (add(&name("a")), add(&name("b")));
            let outcomes = tokio::join!(one.outcome(&of_one), other.outcome(&of_other));
            let outcomes = [(name("a"), outcomes.0), (name("b"), outcomes.1)];
            assert!(outcomes.iter().any(|(_, code)| code.is_empty()), "{outcomes:?}");
            for (name, code) in outcomes {
                match code.as_str() {
                    "" => expected.push(name),
                    code => assert_eq!(code, "40001", "{name}"),
                }
            }
            // Of two with the same name one is made.
            let same = add(&name("c"));
            let outcomes = tokio::join!(one.outcome(&same), other.outcome(&same));
            let mut outcomes = [outcomes.0, outcomes.1];
            outcomes.sort();
            assert!(outcomes[0].is_empty(), "{outcomes:?}");
            assert!(["40001", "42701"].contains(&outcomes[1].as_str()), "{outcomes:?}");
            expected.push(name("c"));
        }
        expected.sort();
        for client in [&one, &other] {
            client.rows("SET oribi.consistency = 'strong'").await;
            let names = "SELECT column_name FROM information_schema.columns \
                         WHERE table_name = 't' ORDER BY 1";
            let mut found: Vec<_> = client.rows(names).await.into_iter().flatten().collect();
            found.sort();
            assert_eq!(found, expected);
            assert_eq!(client.value("SELECT sum(n) FROM t").await, "1");
        }
    })
    .await;
}

/// Group commit: who waits for another's commit goes with the next one, all in one.
#[tokio::test(flavor = "multi_thread")]
async fn many_small_inserts_share_snapshots_and_files() {
    const CLIENTS: u64 = 24;
    const ROUNDS: u64 = 10;
    bounded(async {
        let cluster = cluster();
        let daemon = cluster.start("a");
        let client = Client::connect(&daemon).await;
        client.rows("CREATE TABLE t (client bigint, n bigint)").await;
        let mut writers = JoinSet::new();
        for writer in 0..CLIENTS {
            let client = Client::connect(&daemon).await;
            writers.spawn(async move {
                for n in 0..ROUNDS {
                    client.rows(&format!("INSERT INTO t VALUES ({writer}, {n})")).await;
                }
            });
        }
        writers.join_all().await;
        let all = CLIENTS * ROUNDS;
        let rows = "SELECT count(*), count(DISTINCT client * 1000 + n) FROM t";
        assert_eq!(client.rows(rows).await, [[all.to_string(), all.to_string()]]);
        let count = async |sql: &str| -> u64 { client.value(sql).await.parse().expect("a number") };
        let snapshots = count("SELECT count(*) FROM \"t$snapshots\"").await;
        let files = count("SELECT count(*) FROM \"t$files\"").await;
        println!("{all} INSERTs, {snapshots} snapshots, {files} files");
        assert!(snapshots < all / 2 && files < all / 2, "{snapshots} snapshots, {files} files");
    })
    .await;
}
