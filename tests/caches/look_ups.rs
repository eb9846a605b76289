//! Rows by key: found in pieces of files that are kept, and never others than a plan would find.

use super::*;

/// Rows of the tables: more than a piece has, in order of their key.
const ROWS: i64 = 20_000;

async fn hits(client: &Client) -> u32 {
    hits_of(client, "look_ups").await
}

/// The row with a key; `looked_up`: whether no plan was needed.
async fn find(client: &Client, sql: &str) -> (Vec<Vec<String>>, bool) {
    let before = hits(client).await;
    let rows = client.rows(sql).await;
    (rows, hits(client).await > before)
}

/// Asks until no plan is needed any more.
async fn found(client: &Client, sql: &str) -> Vec<Vec<String>> {
    let mut last = Vec::new();
    until("it is looked up", async || {
        let (rows, looked_up) = find(client, sql).await;
        last = rows;
        looked_up
    })
    .await;
    last
}

async fn started() -> (Daemon, Client) {
    let options = Options::new()
        .env("ORIBI_MAINTENANCE_INTERVAL", "none")
        .env("ORIBI_ENGINE_RESULT_CACHE", "0");
    let daemon = Daemon::start(&options);
    let client = Client::connect(&daemon).await;
    client
        .rows(&format!(
            "CREATE TABLE t AS SELECT value AS id, 'name ' || value AS name, \
             (value / 2)::numeric(12,2) AS half, DATE '2000-01-01' + (value / 10)::int AS day, \
             nullif(value % 3, 0) AS third \
             FROM generate_series(1, {ROWS}) g(value)"
        ))
        .await;
    (daemon, client)
}

fn row(id: i64) -> Vec<String> {
    let third = match id % 3 {
        0 => String::new(),
        third => third.to_string(),
    };
    vec![id.to_string(), format!("name {id}"), third]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_found_without_a_plan() {
    bounded(async {
        let (_daemon, client) = started().await;
        let by_id = |id: i64| format!("SELECT id, name, third FROM t WHERE id = {id}");
        assert_eq!(found(&client, &by_id(7)).await, [row(7)]);
        // At the ends of pieces and of the table, and in between; what is not there is not found.
        for id in [1, 8191, 8192, 8193, 16_384, 16_385, 19_999, ROWS] {
            assert_eq!(find(&client, &by_id(id)).await, (vec![row(id)], true), "{id}");
        }
        for id in [0, -1, ROWS + 1, i64::MAX] {
            assert_eq!(find(&client, &by_id(id)).await, (vec![], true), "{id}");
        }
        // Other columns, conditions, limits, names and expressions.
        for (sql, expected) in [
            ("SELECT count(*) FROM t WHERE id = 7", vec![vec!["1"]]),
            ("SELECT upper(name) || id FROM t WHERE 5 = id", vec![vec!["NAME 55"]]),
            (
                "SELECT x.day FROM t AS x WHERE x.id = 20 AND x.name LIKE 'n%'",
                vec![vec!["2000-01-03"]],
            ),
            ("SELECT id FROM t WHERE id = 20 AND third = 1", vec![]),
            ("SELECT id FROM t WHERE id = 21 AND third IS NULL", vec![vec!["21"]]),
            ("SELECT id FROM t WHERE id = 20 LIMIT 1", vec![vec!["20"]]),
            ("SELECT id FROM t WHERE id = 20 LIMIT 0", vec![]),
            ("SELECT id FROM t WHERE id = 20 OFFSET 1", vec![]),
            ("SELECT id FROM t WHERE id = NULL", vec![]),
            ("SELECT id FROM t WHERE id = 20 AND id = 21", vec![]),
            ("SELECT 1 / third FROM t WHERE id = 20 AND 1 / third > 0", vec![]),
            ("SELECT a.id FROM t a JOIN t b USING (id) WHERE a.id = 20", vec![vec!["20"]]),
        ] {
            assert_eq!(client.rows(sql).await, expected, "{sql}");
        }
        // What fails does so for the rows that are found, and for no others.
        assert_eq!(client.rows("SELECT 6 / (id - 7) FROM t WHERE id = 8").await, [["6"]]);
        assert_eq!(client.outcome("SELECT 6 / (id - 7) FROM t WHERE id = 7").await, "22012");
        // Other types, of which more than one row may be found.
        assert_eq!(found(&client, "SELECT id FROM t WHERE name = 'name 12345'").await, [["12345"]]);
        let days = "SELECT count(*), min(id), max(id) FROM t WHERE day = '2000-01-03'";
        assert_eq!(client.rows(days).await, [["10", "20", "29"]]);
        let day = found(&client, "SELECT id FROM t WHERE day = '2000-01-03'").await;
        assert_eq!(day, (20..30).map(|id| vec![id.to_string()]).collect::<Vec<_>>());
        let halves = found(&client, "SELECT id FROM t WHERE half = 7.00").await;
        assert_eq!(halves, [["14"], ["15"]]);
        // A value of a column without order lies in too many pieces, or in too many rows.
        let thirds = "SELECT count(*) FROM (SELECT * FROM t WHERE third = 2) AS t";
        for _ in 0..6 {
            assert_eq!(client.value(thirds).await, "6667");
        }
        // Parameters.
        client
            .rows("PREPARE by (bigint, text) AS SELECT name, $2 || id FROM t WHERE id = $1")
            .await;
        assert_eq!(find(&client, "EXECUTE by(77, 'x')").await.0, [["name 77", "x77"]]);
        assert_eq!(client.rows("EXECUTE by(NULL, 'x')").await, Vec::<Vec<String>>::new());
        let bounded =
            "SELECT bytes > 0 AND bytes <= bytes_limit FROM system.caches WHERE name = 'look_ups'";
        assert_eq!(client.value(bounded).await, "t");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_found_in_what_the_table_is_now() {
    bounded(async {
        let (_daemon, client) = started().await;
        let name = |id: i64| format!("SELECT name FROM t WHERE id = {id}");
        assert_eq!(found(&client, &name(500)).await, [["name 500"]]);
        for (change, id, expected) in [
            ("INSERT INTO t (id, name) VALUES (30000, 'new')", 30_000, vec![["new"]]),
            ("UPDATE t SET name = 'other' WHERE id = 500", 500, vec![["other"]]),
            ("DELETE FROM t WHERE id = 501", 501, vec![]),
            ("UPDATE t SET id = 501 WHERE id = 502", 501, vec![["name 502"]]),
            (
                "ALTER TABLE t RENAME COLUMN name TO was; ALTER TABLE t ADD COLUMN name text",
                501,
                vec![[""]],
            ),
            ("UPDATE t SET name = was || '!' WHERE id = 501", 501, vec![["name 502!"]]),
            // The key itself is another column now.
            (
                "ALTER TABLE t RENAME COLUMN id TO old; ALTER TABLE t ADD COLUMN id bigint; \
                 UPDATE t SET id = 1 WHERE old = 600",
                501,
                vec![],
            ),
        ] {
            client.rows(change).await;
            for _ in 0..3 {
                assert_eq!(client.rows(&name(id)).await, expected, "{change}");
            }
            // When it is known again.
            assert_eq!(found(&client, &name(id)).await, expected, "{change}");
        }
        assert_eq!(found(&client, "SELECT was FROM t WHERE id = 1").await, [["name 600"]]);
        assert_eq!(found(&client, "SELECT was FROM t WHERE old = 601").await, [["name 601"]]);
        // Within a block it is what the block has made of it, for others what it was.
        client.rows("BEGIN").await;
        client.rows("DELETE FROM t WHERE old = 601").await;
        assert!(client.rows("SELECT was FROM t WHERE old = 601").await.is_empty());
        client.rows("ROLLBACK").await;
        assert_eq!(client.rows("SELECT was FROM t WHERE old = 601").await, [["name 601"]]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_found_in_the_files_that_there_are() {
    bounded(async {
        let (daemon, client) = started().await;
        let folder = daemon.data_dir().join("files");
        fs::create_dir(&folder).expect("a folder");
        let file = |name: &str| folder.join(name);
        let some: Vec<i32> = (0..30_000).collect();
        write(&file("a.parquet"), &some);
        let create = "CREATE EXTERNAL TABLE e STORED AS PARQUET LOCATION";
        client.rows(&format!("{create} '{}/'", folder.display())).await;
        let by = |n: i32| format!("SELECT n FROM e WHERE n = {n}");
        assert_eq!(found(&client, &by(20_000)).await, [["20000"]]);
        // Another file, and another one of its name.
        write(&file("b.parquet"), &[20_000, 50_000]);
        assert_eq!(client.rows(&by(20_000)).await, [["20000"], ["20000"]]);
        assert_eq!(found(&client, &by(50_000)).await, [["50000"]]);
        write(&file("c.parquet"), &[60_000, 50_001]);
        fs::rename(file("c.parquet"), file("b.parquet")).expect("renamed");
        assert_eq!(client.rows(&by(50_000)).await, Vec::<Vec<String>>::new());
        assert_eq!(found(&client, &by(60_000)).await, [["60000"]]);
        assert_eq!(client.rows(&by(20_000)).await, [["20000"]]);
        fs::remove_file(file("a.parquet")).expect("removed");
        assert_eq!(client.rows(&by(20_000)).await, Vec::<Vec<String>>::new());
        // One that is written just now may be written again.
        let touched = File::options().write(true).open(file("b.parquet")).expect("a file");
        touched.set_modified(SystemTime::now()).expect("touched");
        assert_eq!(client.rows(&by(60_000)).await, [["60000"]]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_with_another_key_gets_what_it_would_get_alone() {
    bounded(async {
        let (_daemon, client) = started().await;
        client
            .rows(
                "CREATE TABLE kinds AS SELECT n AS id, n::smallint AS small, n::int AS int, \
                 n::float8 AS float, n::numeric(9,1) AS exact, 'x' || n AS name, \
                 ('x' || n)::varchar(5) AS short, ('x' || n)::char(6) AS padded, \
                 DATE '2000-01-01' + n::int AS day, n > 50 AS large, '{}'::jsonb AS json \
                 FROM generate_series(1, 100) g(n)",
            )
            .await;
        for (column, keys) in [
            ("id", ["5", "77", "0", "9223372036854775807"]),
            ("small", ["5", "77", "70000", "'12'"]),
            ("int", ["5", "77", "3000000000", "'12x'"]),
            ("float", ["5", "77", "5.0", "1e1"]),
            ("exact", ["5", "77", "5.0", "'7'"]),
            ("name", ["'x5'", "'x77'", "''", "'x5 '"]),
            ("short", ["'x5'", "'x77'", "'x5 '", "'longer than that'"]),
            ("padded", ["'x5'", "'x77'", "'x5 '", "' x5'"]),
            ("day", ["'2000-01-03'", "'2000-02-03'", "'never'", "5"]),
            ("large", ["'t'", "'f'", "'yes'", "5"]),
            ("json", ["'{}'", "'{ }'", "'{'", "'1'"]),
            ("absent", ["1", "2", "3", "4"]),
        ] {
            for (rest, key) in ["", " AND 10 / (id - 7) < 100", " LIMIT 200"]
                .into_iter()
                .flat_map(|rest| keys.iter().chain(&keys).map(move |key| (rest, key)))
            {
                let ask = async |key: String| {
                    let sql = format!("SELECT id, ({column} = {key}) FROM kinds WHERE {column} = {key}{rest}");
                    match client.try_rows(&sql).await {
                        Ok(mut rows) => {
                            rows.sort();
                            Ok(rows)
                        }
                        Err(error) => Err(error.code().map(|code| code.code().to_owned())),
                    }
                };
                let alone = ask(format!("({key})")).await;
                assert_eq!(ask((*key).to_owned()).await, alone, "{column} = {key}{rest}");
            }
        }
        // Rights are looked at each time.
        client.rows("CREATE ROLE reader LOGIN; GRANT SELECT ON kinds TO reader").await;
        client.rows("SET ROLE reader").await;
        for id in 1..4 {
            assert_eq!(client.value(&format!("SELECT name FROM kinds WHERE id = {id}")).await, format!("x{id}"));
        }
        client.rows("RESET ROLE; REVOKE SELECT ON kinds FROM reader; SET ROLE reader").await;
        assert_eq!(client.outcome("SELECT name FROM kinds WHERE id = 9").await, "42501");
        // As it was sent it is told of.
        client.rows("RESET ROLE").await;
        let told = "SELECT count(*) FROM system.query_history WHERE sql = 'SELECT name FROM kinds WHERE id = 3'";
        until("it is in the history", async || client.value(told).await == "1").await;
    })
    .await;
}
