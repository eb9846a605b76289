//! Statements that several daemons run together: right answers, workers that die under them, and a
//! port on which strangers get nothing.

mod common;

#[path = "tpch/answers.rs"]
#[allow(dead_code)]
mod answers;
#[path = "distribution/broken.rs"]
mod broken;
#[path = "distribution/dearth.rs"]
mod dearth;
#[path = "distribution/figures.rs"]
mod figures;
#[path = "distribution/locality.rs"]
mod locality;
#[path = "cluster/support.rs"]
mod support;

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use answers::{Answer, QUERIES, Row};
use common::link::{Link, State};
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SCALE: &str = "0.01";

/// A query whose stages all three daemons have a part in, and its answer at [`SCALE`].
const JOINED: &str = "SELECT count(*), sum(l_quantity) FROM lineitem, orders \
                      WHERE l_orderkey = o_orderkey AND o_orderdate < DATE '1996-01-01'";

/// Three daemons with the tables of TPC-H.
struct Three {
    cluster: Cluster,
    daemons: [Daemon; 3],
}

impl Three {
    async fn start() -> Self {
        Self::with(|cluster| cluster).await
    }

    async fn with(configure: impl FnOnce(Cluster) -> Cluster) -> Self {
        let cluster = configure(Cluster::on_shared_zookeeper());
        answers::generate(SCALE, &cluster.path(""));
        let daemons = cluster.start_all(["a", "b", "c"]);
        let three = Self { cluster, daemons };
        let client = Client::connect(&three.daemons[0]).await;
        all_ready(&client, &["a", "b", "c"]).await;
        client.rows(&three.tables()).await;
        three
    }

    fn tables(&self) -> String {
        answers::tables("public", &self.cluster.path(&format!("tpch/sf{SCALE}")))
    }

    /// A client whose statements run on all daemons, each time.
    async fn client(&self, at: usize) -> Client {
        let client = Client::connect(&self.daemons[at]).await;
        client.rows("SET oribi.result_cache = off").await;
        client.rows("SET oribi.distribution = 'always'").await;
        client
    }
}

/// Rows as answers have them; no text is empty there.
fn texts(rows: Vec<Vec<String>>) -> Vec<Row> {
    let known = |value: String| (!value.is_empty()).then_some(value);
    rows.into_iter().map(|row| row.into_iter().map(known).collect()).collect()
}

/// What EXPLAIN says of a statement.
async fn explained(client: &Client, sql: &str) -> String {
    let lines = client.rows(&format!("EXPLAIN {sql}")).await;
    lines.into_iter().flatten().collect::<Vec<_>>().join("\n")
}

/// Whether the statement would run on exactly these daemons.
async fn runs_on(client: &Client, sql: &str, daemons: &str) -> bool {
    explained(client, sql).await.starts_with(&format!("Workers: {daemons} "))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_daemons_answer_the_22_queries_as_one_does() {
    bounded(async {
        let three = Three::start().await;
        let mut alone = Vec::new();
        for at in 0..3 {
            let client = three.client(at).await;
            for number in 1..=QUERIES {
                let sql = answers::query(number);
                if !runs_on(&client, &sql, "a, b, c").await {
                    alone.push((at, number));
                }
                let compared = Answer::to(number, SCALE).compare(texts(client.rows(&sql).await));
                compared.unwrap_or_else(|difference| panic!("Q{number} on {at}: {difference}"));
            }
        }
        assert_eq!(alone, [], "queries that ran on one daemon");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_statements_stay_where_they_are() {
    bounded(async {
        let three = Three::start().await;
        let client = Client::connect(&three.daemons[0]).await;
        assert!(!explained(&client, JOINED).await.contains("Workers:"));
        client.rows("SET oribi.distribution = 'always'").await;
        assert!(runs_on(&client, JOINED, "a, b, c").await, "{}", explained(&client, JOINED).await);
        for alone in [
            "SELECT 1",
            "SELECT count(*) FROM system.daemons",
            "SELECT count(*) FROM generate_series(1, 1000)",
            // Each worker would return as many rows.
            "SELECT l_orderkey FROM lineitem LIMIT 5",
            "SELECT * FROM orders, (SELECT l_orderkey FROM lineitem LIMIT 5) l \
             WHERE l_orderkey = o_orderkey",
            // Looks at rows of all workers at once.
            "SELECT count(*) FROM orders WHERE o_orderkey NOT IN \
             (SELECT key FROM (SELECT nullif(l_orderkey, 1) AS key FROM lineitem) l)",
            // Depends on the session.
            "SELECT count(current_setting(o_clerk, true)) FROM orders",
        ] {
            let plan = explained(&client, alone).await;
            assert!(!plan.contains("Workers:"), "{alone}:\n{plan}");
            client.rows(alone).await;
        }
        client.rows("SET oribi.distribution = 'off'").await;
        assert!(!explained(&client, JOINED).await.contains("Workers:"));
        client.rows("SET oribi.distribution = 'always'").await;
        for limited in [
            "SELECT l_orderkey FROM lineitem LIMIT 5",
            "SELECT l_orderkey FROM lineitem WHERE l_quantity > 10 LIMIT 5",
            "SELECT l_orderkey FROM lineitem ORDER BY l_quantity LIMIT 5",
            "SELECT DISTINCT l_orderkey FROM lineitem LIMIT 5",
            "SELECT l_orderkey FROM lineitem UNION ALL SELECT o_orderkey FROM orders LIMIT 5",
            "SELECT l_orderkey, count(*) FROM lineitem GROUP BY 1 LIMIT 5",
        ] {
            let counted = format!("SELECT count(*), count(DISTINCT 1) FROM ({limited}) l");
            assert_eq!(client.value(&counted).await, "5", "{limited}");
            assert_eq!(client.rows(limited).await.len(), 5, "{limited}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_all_kinds_are_the_same_on_workers() {
    bounded(async {
        let three = Three::with(|cluster| {
            let warehouse = cluster.path("warehouse").display().to_string();
            cluster.with("WAREHOUSE", &warehouse)
        })
        .await;
        let client = three.client(0).await;
        for statement in [
            "CREATE TABLE changed (id INT, name TEXT, dropped INT, at TIMESTAMPTZ)",
            "INSERT INTO changed SELECT x, 'n' || x, x, '2024-03-31 00:30:00+00'::timestamptz + x * interval '1 hour' FROM generate_series(1, 500) a(x)",
            "ALTER TABLE changed RENAME COLUMN name TO title",
            "ALTER TABLE changed DROP COLUMN dropped",
            "ALTER TABLE changed ADD COLUMN name TEXT",
            "ALTER TABLE changed ALTER COLUMN id TYPE BIGINT",
            "INSERT INTO changed SELECT x, 'm' || x, now(), 'other' FROM generate_series(501, 1000) a(x)",
            "DELETE FROM changed WHERE id % 10 = 0",
            "INSERT INTO changed SELECT x, 'o' || x, now(), NULL FROM generate_series(1001, 1100) a(x)",
            "INSERT INTO changed SELECT x, 'p' || x, NULL, 'last' FROM generate_series(1101, 1200) a(x)",
            "CREATE TABLE parted (id INT, kind TEXT) PARTITIONED BY (kind)",
            "INSERT INTO parted SELECT x, 'k' || x % 5 FROM generate_series(1, 1000) a(x)",
            "CREATE VIEW kinds AS SELECT kind, count(*) AS n FROM parted GROUP BY kind",
            "CREATE ROLE reader LOGIN",
            "GRANT SELECT ON parted, changed, kinds TO reader",
            "ALTER TABLE parted ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY some ON parted USING (kind <> 'k1')",
        ] {
            client.rows(statement).await;
        }
        let hive = three.cluster.path("hive");
        for (day, query) in [("2024-01-01", 1), ("2024-01-02", 6)] {
            let directory = hive.join(format!("day={day}"));
            std::fs::create_dir_all(&directory).expect("a directory");
            let source = three.cluster.path(&format!("tpch/sf{SCALE}/nation.parquet"));
            std::fs::copy(&source, directory.join(format!("{query}.parquet"))).expect("a copy");
        }
        client
            .rows(&format!(
                "CREATE EXTERNAL TABLE hive STORED AS PARQUET PARTITIONED BY (day) LOCATION '{}'",
                hive.display()
            ))
            .await;
        let reader = Client::connect_as(&three.daemons[1], "reader").await;
        for (client, sql) in [
            (&client, "SELECT count(*), sum(id), min(title), max(title), count(DISTINCT name) FROM changed"),
            (&client, "SELECT name, count(*) FROM changed GROUP BY name ORDER BY name"),
            (&client, "SELECT title, at FROM changed WHERE id BETWEEN 1 AND 60 ORDER BY id"),
            (&client, "SELECT date_trunc('day', at), count(*) FROM changed WHERE id <= 500 GROUP BY 1 ORDER BY 1"),
            (&client, "SELECT kind, n FROM kinds ORDER BY kind"),
            (&client, "SELECT day, count(*), sum(n_nationkey) FROM hive GROUP BY day ORDER BY day"),
            (&client, "SELECT c.title, p.kind FROM changed c JOIN parted p ON c.id = p.id ORDER BY c.id LIMIT 20"),
            (&client, "SELECT count(*) FROM parted a FULL JOIN changed b ON a.id = b.id + 500"),
            (&reader, "SELECT kind, count(*) FROM parted GROUP BY kind ORDER BY kind"),
            (&reader, "SELECT count(*) FROM parted p JOIN changed c ON p.id = c.id"),
        ] {
            for zone in ["UTC", "America/New_York", "Europe/Berlin"] {
                client.rows(&format!("SET TimeZone = '{zone}'")).await;
                client.rows("SET oribi.distribution = 'off'").await;
                let expected = client.rows(sql).await;
                client.rows("SET oribi.distribution = 'always'").await;
                let plan = explained(client, sql).await;
                assert!(plan.starts_with("Workers: a, b, c "), "{sql}:\n{plan}");
                assert_eq!(client.rows(sql).await, expected, "{sql}");
            }
        }
    })
    .await;
}

/// Expressions of lineitem with the functions, operators and types that are not the engine's own, or not
/// as it has them.
const OWN: &[&str] = &[
    "l_orderkey * 3 - l_partkey / 7 + l_suppkey % 5",
    "l_extendedprice * (1 - l_discount) / 3",
    "round(l_quantity / 7, 1)",
    "round(l_linenumber::float8 / 2)",
    "l_comment || ' ' || l_linenumber",
    "encode(decode(md5(l_comment), 'hex'), 'base64')",
    "decode(md5(l_comment), 'hex')",
    "l_shipdate::timestamp AT TIME ZONE 'Europe/Berlin'",
    "date_trunc('month', l_shipdate::timestamptz)",
    "extract(epoch FROM l_receiptdate::timestamptz)",
    "l_shipdate + l_linenumber * interval '1 month 2 days'",
    "interval '1 day' * l_linenumber < interval '50 hours'",
    "l_receiptdate - l_shipdate",
    "lpad(l_comment, 50, 'xy') || repeat(l_returnflag, l_linenumber)",
    "array_length(string_to_array(l_comment, ' '), 1)",
    "ARRAY[l_linenumber, l_suppkey]",
    "l_comment ~ '^[a-m].*s' AND l_comment NOT ILIKE '%The%'",
    "to_char(l_shipdate, 'YYYY-MM-DD')",
    "substring(l_comment FROM 3 FOR 5) || position('e' IN l_comment)",
    "greatest(l_shipdate, l_commitdate, NULL)",
    "nullif(l_returnflag, 'N') IS DISTINCT FROM l_linestatus",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn functions_and_settings_are_the_same_on_workers() {
    bounded(async {
        let three = Three::start().await;
        let client = three.client(1).await;
        let mut statements: Vec<String> = (OWN.iter())
            .map(|own| {
                format!("SELECT {own}, count(*) FROM lineitem WHERE l_orderkey < 9000 GROUP BY 1 ORDER BY 1, 2")
            })
            .collect();
        let aggregates = [
            "sum(l_orderkey), avg(l_quantity), stddev(l_tax), count(DISTINCT l_comment)",
            "string_agg(l_comment, '|' ORDER BY l_orderkey, l_linenumber)",
            "max(l_receiptdate - l_shipdate), bool_and(l_quantity > 1), corr(l_tax, l_discount)::numeric(9, 6)",
        ];
        for aggregate in aggregates {
            let group = "FROM lineitem WHERE l_orderkey < 9000 GROUP BY l_suppkey ORDER BY l_suppkey";
            statements.push(format!("SELECT l_suppkey, {aggregate} {group}"));
        }
        for settings in [
            "SET TimeZone = 'UTC'",
            "SET TimeZone = 'America/New_York'",
            "SET datafusion.execution.batch_size = 7",
            "SET datafusion.execution.parquet.pushdown_filters = true",
        ] {
            client.rows(settings).await;
            for sql in &statements {
                client.rows("SET oribi.distribution = 'off'").await;
                let expected = client.rows(sql).await;
                assert!(!expected.is_empty(), "{sql}");
                client.rows("SET oribi.distribution = 'always'").await;
                let plan = explained(&client, sql).await;
                assert!(plan.starts_with("Workers: a, b, c "), "{sql}:\n{plan}");
                assert!(client.rows(sql).await == expected, "{settings}: {sql}");
            }
        }
        for (sql, code) in [
            ("SELECT sum(l_orderkey * 9223372036854775807) FROM lineitem", "22003"),
            ("SELECT count(l_comment::int + 1) FROM lineitem", "22P02"),
            ("SELECT max(repeat(l_comment, 1000000000)) FROM lineitem", "54000"),
        ] {
            client.rows("SET oribi.distribution = 'off'").await;
            let expected = client.refused(sql).await;
            assert_eq!(expected.code().code(), code, "{sql}: {expected}");
            client.rows("SET oribi.distribution = 'always'").await;
            assert!(runs_on(&client, sql, "a, b, c").await, "{sql}");
            let error = client.refused(sql).await;
            assert_eq!(error.code().code(), code, "{sql}: {error}");
        }
        let client = three.client(2).await;
        client.rows("SET statement_timeout = '200ms'").await;
        let endless = "SELECT count(*) FROM lineitem a, lineitem b, orders c \
                       WHERE a.l_comment || b.l_comment || c.o_comment = 'none'";
        assert!(runs_on(&client, endless, "a, b, c").await);
        assert_eq!(client.outcome(endless).await, "57014");
        for daemon in &three.daemons {
            until("nothing is left", async || !metrics(daemon).await.contains("oribi_running{")).await;
        }
    })
    .await;
}

/// Asks the same all the time, until told to stop: how often every answer was right.
fn keep_asking(
    client: Client,
    expected: Vec<Vec<String>>,
) -> (Arc<AtomicBool>, tokio::task::JoinHandle<usize>) {
    let stop = Arc::new(AtomicBool::new(false));
    let seen = stop.clone();
    let asking = tokio::spawn(async move {
        let mut asked = 0;
        while !seen.load(Ordering::Relaxed) {
            assert_eq!(client.rows(JOINED).await, expected);
            asked += 1;
        }
        asked
    });
    (stop, asking)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_killed_or_stopped_is_not_noticed() {
    bounded(async {
        let three = Three::start().await;
        let client = three.client(0).await;
        let expected = client.rows(JOINED).await;
        for paused in [false, true] {
            let (stop, asking) = keep_asking(three.client(0).await, expected.clone());
            tokio::time::sleep(Duration::from_millis(300)).await;
            match paused {
                true => three.daemons[2].pause(),
                false => three.daemons[1].kill(),
            }
            let left = if paused { "a" } else { "a, c" };
            until("the daemon is left alone", async || match paused {
                true => !explained(&client, JOINED).await.contains("Workers:"),
                false => runs_on(&client, JOINED, left).await,
            })
            .await;
            stop.store(true, Ordering::Relaxed);
            let asked = asking.await.expect("every answer was right");
            assert!(asked > 0);
            assert_eq!(client.rows(JOINED).await, expected);
        }
        // Awake again it takes part again, as soon as it answers.
        three.daemons[2].resume();
        until("it takes part again", async || runs_on(&client, JOINED, "a, c").await).await;
        assert_eq!(client.rows(JOINED).await, expected);
    })
    .await;
}

/// Statements whose steps look at all rows at once, in places where a stage could have several tasks.
const AT_ONCE: &[&str] = &[
    "SELECT o_orderkey, s FROM orders, (SELECT sum(n_regionkey) s FROM nation) n",
    "SELECT o_orderkey, s FROM orders, (SELECT count(DISTINCT n_regionkey) s FROM nation) n",
    "SELECT count(*), sum(s) FROM lineitem, (SELECT avg(o_totalprice) s FROM orders) n",
    "SELECT c_custkey, n FROM customer, (SELECT n_nationkey, row_number() OVER (ORDER BY n_name) n \
     FROM nation) r WHERE c_nationkey = n_nationkey",
    "SELECT c_custkey, n FROM customer LEFT JOIN (SELECT n_nationkey, rank() OVER (PARTITION BY \
     n_regionkey ORDER BY n_name) n FROM nation) r ON c_nationkey = n_nationkey",
    "SELECT n_name, o_orderkey FROM nation LEFT JOIN orders ON o_orderkey < n_nationkey",
    "SELECT n_name, o_orderkey FROM orders RIGHT JOIN nation ON o_orderkey < n_nationkey",
    "SELECT n_name, count(o_orderkey) FROM nation FULL JOIN orders ON o_orderkey = n_nationkey \
     GROUP BY n_name",
    "SELECT r_name, n_name FROM region LEFT JOIN nation ON r_regionkey = n_regionkey + 3",
    "SELECT n_name FROM nation WHERE EXISTS (SELECT 1 FROM customer WHERE c_nationkey > n_nationkey \
     AND c_acctbal < 0)",
    "SELECT n_name FROM nation WHERE n_nationkey NOT IN (SELECT c_nationkey FROM customer \
     WHERE c_acctbal > 9900)",
    "SELECT n_name, (SELECT count(*) FROM customer WHERE c_nationkey = n_nationkey) FROM nation",
    "SELECT n_name FROM nation WHERE n_nationkey > (SELECT avg(c_nationkey) FROM customer)",
    "SELECT o_orderkey FROM orders WHERE o_totalprice = (SELECT max(o_totalprice) FROM orders)",
    "SELECT * FROM (SELECT o_orderkey FROM orders ORDER BY o_totalprice DESC, o_orderkey LIMIT 7) o \
     JOIN lineitem ON l_orderkey = o_orderkey",
    "SELECT o_orderkey, row_number() OVER (ORDER BY o_orderkey) FROM orders",
    "SELECT o_custkey, o_orderkey, sum(o_totalprice) OVER (PARTITION BY o_custkey ORDER BY o_orderkey) \
     FROM orders",
    "SELECT o_orderkey, lag(o_orderkey) OVER (ORDER BY o_orderkey) FROM orders \
     ORDER BY o_orderkey OFFSET 100 LIMIT 20",
    "SELECT count(*), (SELECT count(*) FROM region) FROM nation",
    "SELECT r_name FROM region UNION ALL SELECT n_name FROM nation UNION ALL SELECT max(c_name) FROM customer",
    "SELECT c_nationkey FROM customer UNION SELECT n_nationkey FROM nation",
    "SELECT c_custkey FROM customer EXCEPT SELECT o_custkey FROM orders",
    "SELECT c_custkey FROM customer INTERSECT SELECT o_custkey FROM orders",
    "SELECT l_returnflag, l_linestatus, count(*) FROM lineitem GROUP BY GROUPING SETS \
     ((l_returnflag, l_linestatus), (l_returnflag), ())",
    "SELECT n_regionkey, array_agg(n_name ORDER BY n_name) FROM nation GROUP BY n_regionkey",
    "SELECT string_agg(n_name, ',' ORDER BY n_name DESC) FROM nation",
    "SELECT a.n_name, b.n_name FROM nation a CROSS JOIN nation b",
    "SELECT n_name, x FROM nation CROSS JOIN LATERAL generate_series(1, 3) g(x)",
    "SELECT n_name, x FROM nation, unnest(ARRAY[1, 2]) u(x)",
    "SELECT o_orderkey, count(*) FILTER (WHERE o_totalprice > 100000) OVER (PARTITION BY o_custkey) \
     FROM orders",
    "SELECT o_orderkey, first_value(nullif(o_orderstatus, 'O')) IGNORE NULLS OVER (PARTITION BY \
     o_custkey ORDER BY o_orderkey) FROM orders",
    "SELECT l_orderkey, l_linenumber, sum(l_quantity) OVER (PARTITION BY l_orderkey ORDER BY \
     l_linenumber DESC), lag(l_linenumber) OVER (PARTITION BY l_orderkey ORDER BY l_linenumber) \
     FROM lineitem",
    "SELECT k, count(*), sum(n) FROM (SELECT c_custkey k, row_number() OVER (ORDER BY c_custkey) n \
     FROM customer UNION ALL SELECT o_custkey, row_number() OVER (ORDER BY o_custkey) FROM orders) u \
     GROUP BY k",
    "SELECT k, n, count(*) OVER (PARTITION BY k) FROM (SELECT c_custkey k, row_number() OVER (ORDER BY \
     c_custkey) n FROM customer UNION ALL SELECT o_custkey, row_number() OVER (ORDER BY o_custkey) \
     FROM orders) u",
    "SELECT s, count(*), sum(m) FROM (SELECT 'a' s, max(o_orderkey) m FROM orders UNION ALL \
     SELECT 'b', max(l_orderkey) FROM lineitem UNION ALL SELECT 'a', max(c_custkey) FROM customer \
     UNION ALL SELECT 'b', 1 UNION ALL SELECT 'a', min(o_orderkey) FROM orders) u GROUP BY s",
    "SELECT o_orderkey FROM orders UNION ALL SELECT 0",
    "WITH n AS (SELECT n_regionkey k, count(*) c FROM nation GROUP BY 1) \
     SELECT a.k, b.c FROM n a JOIN n b ON a.k = b.k + 1",
    "WITH RECURSIVE up(k) AS (SELECT min(n_nationkey) FROM nation UNION ALL SELECT k + 1 FROM up \
     JOIN nation ON n_nationkey = k WHERE k < 10) SELECT k FROM up",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_that_look_at_all_rows_see_them_all() {
    bounded(async {
        let three = Three::start().await;
        let mut spread = 0;
        // What a coordinator does itself it does not send: each sends other parts.
        for (at, partitions) in [(0, 1), (0, 2), (1, 8), (2, 3)] {
            let client = three.client(at).await;
            client
                .rows(&format!("SET datafusion.execution.target_partitions = {partitions}"))
                .await;
            for sql in AT_ONCE {
                client.rows("SET oribi.distribution = 'off'").await;
                let mut expected = client.rows(sql).await;
                expected.sort();
                assert!(!expected.is_empty(), "{sql}");
                client.rows("SET oribi.distribution = 'always'").await;
                let plan = explained(&client, sql).await;
                spread += usize::from(plan.starts_with("Workers: a, b, c "));
                let mut rows = client.rows(sql).await;
                rows.sort();
                assert!(
                    rows == expected,
                    "{sql}, {partitions} partitions: {} rows in place of {}\n{plan}",
                    rows.len(),
                    expected.len()
                );
            }
        }
        assert!(spread > AT_ONCE.len(), "{spread} ran on several daemons");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_cut_off_is_not_noticed() {
    bounded(async {
        // Others reach a daemon at an address where it does not listen itself.
        let three = Three::with(|cluster| cluster.with("ADVERTISE", "127.0.0.2")).await;
        let mut links = Vec::new();
        for daemon in &three.daemons {
            let peer = daemon.addresses().peer;
            let reached = SocketAddr::from(([127, 0, 0, 2], peer.port()));
            links.push(Link::start(reached, peer).await);
        }
        let client = three.client(0).await;
        let all = async || runs_on(&client, JOINED, "a, b, c").await;
        until("all take part", all).await;
        let expected = client.rows(JOINED).await;
        for state in [State::Silent, State::Refusing] {
            let (stop, asking) = keep_asking(three.client(0).await, expected.clone());
            tokio::time::sleep(Duration::from_millis(300)).await;
            links[2].set(state);
            let left = async || runs_on(&client, JOINED, "a, b").await;
            until("the daemon is left alone", left).await;
            assert_eq!(client.rows(JOINED).await, expected);
            stop.store(true, Ordering::Relaxed);
            assert!(asking.await.expect("every answer was right") > 0);
            links[2].set(State::Whole);
            until("it takes part again", all).await;
            assert_eq!(client.rows(JOINED).await, expected);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_in_order_do_not_wait_for_each_other() {
    bounded(async {
        // Small buffers, which the partitions of a worker fill that are not wanted yet: each file's rows
        // come after all of the one before.
        let three = Three::with(|cluster| {
            let warehouse = cluster.path("warehouse").display().to_string();
            cluster.with("ENGINE_MEMORY_LIMIT", "192MiB").with("WAREHOUSE", &warehouse)
        })
        .await;
        let client = three.client(0).await;
        client.rows("CREATE TABLE items (id BIGINT, noise TEXT)").await;
        let (files, each) = (24, 20_000);
        for first in (0..files).map(|file| file * each) {
            let last = first + each - 1;
            let noise =
                "md5(x::text) || md5((x + 1)::text) || md5((x + 2)::text) || md5((x + 3)::text)";
            let rows = format!("SELECT x, {noise} FROM generate_series({first}, {last}) g(x)");
            client.rows(&format!("INSERT INTO items {rows}")).await;
        }
        client.rows("SET datafusion.execution.target_partitions = 2").await;
        client.rows("SET statement_timeout = '120s'").await;
        let sorted = "SELECT id, noise FROM items ORDER BY id";
        assert!(runs_on(&client, sorted, "a, b, c").await, "{}", explained(&client, sorted).await);
        let found = client.rows(sorted).await;
        let keys = found.iter().map(|row| row[0].parse::<i32>().expect("a number"));
        assert!(keys.eq(0..files * each));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_on_a_worker_fails_as_here() {
    bounded(async {
        let three = Three::start().await;
        let client = three.client(0).await;
        let sql = "SELECT sum(1 / (l_linenumber - 1)) FROM lineitem";
        assert!(runs_on(&client, sql, "a, b, c").await);
        let error = client.refused(sql).await;
        assert_eq!(error.code().code(), "22012", "{error}");
        // Nobody is left alone for that.
        assert!(runs_on(&client, JOINED, "a, b, c").await);
        let lines = client.rows(&format!("EXPLAIN ANALYZE {JOINED}")).await;
        let analysed = lines.into_iter().flatten().collect::<Vec<_>>().join("\n");
        assert!(analysed.contains("Stage 1") && analysed.contains("output_rows="), "{analysed}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_get_nothing() {
    bounded(async {
        let three = Three::start().await;
        let client = three.client(0).await;
        let peer = client.value("SELECT peer FROM system.daemons WHERE id = 'b'").await;
        // Plaintext HTTP/2.
        let mut stream = TcpStream::connect(&peer).await.expect("it listens");
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("sent");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.len() < 32, "no more than TLS's refusal: {answer:?}");
        // TLS without a certificate, and with one of somebody else.
        let own = three.cluster.path("own");
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-subj",
                "/CN=oribi",
                "-days",
                "1",
            ])
            .args(["-addext", "subjectAltName=DNS:oribi", "-keyout"])
            .arg(&own)
            .arg("-out")
            .arg(own.with_extension("crt"))
            .output()
            .expect("openssl");
        assert!(made.status.success(), "{made:?}");
        for with in [false, true] {
            let mut command = Command::new("openssl");
            command.args(["s_client", "-connect", &peer, "-alpn", "h2", "-servername", "oribi"]);
            command.args(["-tls1_3", "-ign_eof"]);
            if with {
                command.arg("-cert").arg(own.with_extension("crt")).arg("-key").arg(&own);
            }
            command.stdin(std::process::Stdio::null());
            let shown = tokio::task::spawn_blocking(move || command.output().expect("openssl"));
            let shown = shown.await.expect("it ends");
            let text = String::from_utf8_lossy(&shown.stderr).into_owned()
                + &String::from_utf8_lossy(&shown.stdout);
            assert!(text.contains("alert"), "it is sent away: {text}");
        }
        assert!(runs_on(&client, JOINED, "a, b, c").await);
        // The key is in the store, and not for everybody's eyes.
        let store = Store::of(&three.cluster).await;
        let key = store.get("/peer-key").await.expect("a key");
        assert!(key["key"].as_str().is_some_and(|key| key.contains("PRIVATE KEY")));
    })
    .await;
}

/// A worker refuses what is too much for it, at once, and the statement's client does not notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_workers_refuse_runs_where_it_was_asked() {
    bounded(async {
        let three = Three::with(|cluster| {
            let filter = "info,oribi::engine::distribution::guests=debug";
            cluster.with("DISTRIBUTION_MAX_PARTS", "1").with("LOG_FILTER", filter)
        })
        .await;
        let refusals = || {
            let refused = |daemon: &Daemon| daemon.log().matches("there are too many").count();
            three.daemons.iter().map(refused).sum::<usize>()
        };
        let client = three.client(0).await;
        client.rows("SET oribi.distribution = 'off'").await;
        let expected = client.rows(JOINED).await;
        client.rows("SET oribi.distribution = 'always'").await;
        let mut before = refusals();
        for _ in 0..5 {
            assert!(runs_on(&client, JOINED, "a, b, c").await);
            assert_eq!(client.rows(JOINED).await, expected);
            until("a refusal", async || refusals() > before).await;
            before = refusals();
        }
    })
    .await;
}

/// Another daemon's statement gets no more memory than it may; its own client is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_cannot_take_a_workers_memory() {
    bounded(async {
        let three =
            Three::with(|cluster| cluster.with("DISTRIBUTION_STATEMENT_MEMORY", "48KiB")).await;
        let client = three.client(0).await;
        let refused = client.refused(JOINED).await;
        assert_eq!(refused.code().code(), "53200", "{refused}");
        let message = "a statement of another daemon may use 48.0 KiB";
        assert!(refused.message().contains(message), "{refused}");
        client.rows("SET oribi.distribution = 'off'").await;
        client.rows(JOINED).await;
    })
    .await;
}
