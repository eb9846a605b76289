//! Which SQLSTATE a client gets for what, in both protocols.

use super::DAEMON;
use super::wire::{Wire, bind, code, execute, kinds, parse};

const STATES: &[(&str, &str)] = &[
    // Text that is no SQL.
    ("42601", "SELEC 1"),
    ("42601", "SELECT * FROM"),
    ("42601", "SELECT 1 1 1"),
    ("42601", "SELECT 'open"),
    ("42601", "ALTER DATABASE RENAME"),
    // Names.
    ("42P01", "SELECT * FROM nothing"),
    ("42P01", "SELECT * FROM nothing.nothing"),
    ("42P01", "SELECT * FROM nothing.nothing.nothing"),
    ("42P01", "DROP TABLE nothing"),
    ("42P01", "ALTER TABLE nothing RENAME TO something"),
    ("42P01", "COMMENT ON TABLE nothing IS 'x'"),
    ("42703", "SELECT nothing"),
    ("42703", "SELECT a.nothing FROM (SELECT 1 AS x) a"),
    ("42703", "SELECT 1 FROM (SELECT 1 AS x) a ORDER BY nothing"),
    ("42703", "SELECT count(*) FROM (SELECT 1 AS x) a GROUP BY nothing"),
    ("42702", "SELECT x FROM (SELECT 1 AS x) a, (SELECT 1 AS x) b"),
    ("42883", "SELECT nothing(1)"),
    ("42883", "SELECT length(1, 2, 3)"),
    ("42704", "SET nothing = 1"),
    ("42602", "SET oribi.distributon = 'off'"),
    ("42602", "RESET Oribi.distributon"),
    ("42704", "SHOW nothing"),
    ("42704", "RESET nothing"),
    ("42704", "SELECT 1::nothing"),
    ("3D000", "DROP DATABASE nothing"),
    ("3D000", "ALTER DATABASE nothing RENAME TO something"),
    ("3F000", "DROP SCHEMA nothing"),
    ("3F000", "CREATE VIEW nothing.v AS SELECT 1"),
    ("42P04", "CREATE DATABASE oribi"),
    ("42P06", "CREATE SCHEMA public"),
    ("42P07", "CREATE VIEW states.v AS SELECT 1"),
    ("42809", "DROP TABLE states.v"),
    ("2BP01", "DROP SCHEMA states"),
    ("55006", "DROP DATABASE oribi"),
    // Types.
    ("42804", "SELECT 1 WHERE 5"),
    ("42804", "SELECT 1 UNION SELECT ARRAY[1]"),
    ("42804", "SELECT CASE WHEN true THEN 1 ELSE ARRAY[1] END"),
    ("42883", "SELECT true + 1"),
    ("42883", "SELECT 'a'::text + 1"),
    ("42883", "SELECT upper(ARRAY[1])"),
    // Values.
    ("22012", "SELECT 1 / 0"),
    ("22012", "SELECT 1 % 0"),
    ("22012", "SELECT 1 / (i - 5) FROM generate_series(1, 10) t (i)"),
    ("22P02", "SELECT 'x'::int"),
    ("22P02", "SELECT 'x'::boolean"),
    ("22P02", "SELECT s::int FROM (VALUES ('1'), ('x')) v (s)"),
    ("22003", "SELECT 40000::smallint"),
    ("22003", "SELECT '99999999999'::int"),
    ("22003", "SELECT 9223372036854775807 + 1"),
    ("22003", "SELECT 2147483647::int * 2::int"),
    ("22003", "SELECT 1234.5::numeric(5,2)"),
    ("22023", "SET statement_timeout = 'x'"),
    ("22023", "SET TimeZone = 'x'"),
    ("55P02", "SET server_version = 'x'"),
    ("2201W", "SELECT 1 LIMIT -1"),
    ("2201X", "SELECT 1 OFFSET -1"),
    ("2201F", "SELECT sqrt(-1)"),
    ("2201G", "SELECT width_bucket(1, 0, 10, 0)"),
    ("2201B", "SELECT regexp_replace('a', '(', 'b')"),
    ("22014", "SELECT ntile(0) OVER () FROM (SELECT 1) t"),
    ("22023", "SELECT split_part('a', ',', 0)"),
    ("54000", "SELECT repeat('x', 2000000000)"),
    // Shapes.
    ("21000", "SELECT (SELECT i FROM generate_series(1, 2) t (i))"),
    ("42601", "SELECT 1 UNION SELECT 1, 2"),
    ("42601", "SELECT (SELECT 1, 2)"),
    ("42601", "VALUES (1), (1, 2)"),
    ("42704", "SELECT sum(x) OVER w FROM (SELECT 1 AS x) a"),
    ("42712", "SELECT 1 FROM (SELECT 1 AS x) a, (SELECT 1 AS x) a"),
    ("42712", "WITH t AS (SELECT 1), t AS (SELECT 2) SELECT * FROM t"),
    ("42803", "SELECT x, count(*) FROM (SELECT 1 AS x) a"),
    ("42803", "SELECT count(*) FROM (SELECT 1 AS x) a ORDER BY x"),
    ("42803", "SELECT 1 FROM (SELECT 1 AS x) a WHERE count(*) > 1"),
    ("42803", "SELECT sum(count(*)) FROM (SELECT 1 AS x) a"),
    ("42804", "VALUES (1), (date '2024-01-01')"),
    ("42P01", "SELECT b.x FROM (SELECT 1 AS x) a"),
    ("42P01", "SELECT b.* FROM (SELECT 1 AS x) a"),
    ("42P10", "SELECT 1 ORDER BY 5"),
    ("42P10", "SELECT 1 GROUP BY 5"),
    ("42P10", "SELECT * FROM (VALUES (1)) t (a, b)"),
    ("42P20", "SELECT row_number() OVER (ORDER BY row_number() OVER ())"),
    // Files.
    ("58P01", "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '/nothing/at/all.parquet'"),
    ("58P01", "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/nothing/at/all/'"),
    ("22023", "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 'ftp://host/file'"),
    // Transactions.
    ("25P01", "SAVEPOINT a"),
    ("25P01", "ROLLBACK TO SAVEPOINT a"),
    // What is not there.
    ("0A000", "CREATE TABLE t (a int PRIMARY KEY)"),
    ("42P01", "INSERT INTO not_there VALUES (1)"),
    ("42P01", "UPDATE not_there SET a = 1"),
    ("42P01", "DELETE FROM not_there"),
    ("42P01", "TRUNCATE not_there"),
    ("0A000", "CREATE INDEX i ON t (a)"),
    ("42704", "GRANT SELECT ON t TO nobody_at_all"),
    ("42704", "ALTER ROLE nobody_at_all NOLOGIN"),
    ("42704", "DROP ROLE nobody_at_all"),
    ("42710", "CREATE ROLE oribi"),
    ("42939", "CREATE ROLE pg_mine"),
    ("0A000", "ALTER ROLE oribi RENAME TO other"),
    ("55006", "DROP ROLE oribi"),
    ("42P01", "COPY not_there FROM STDIN"),
    ("22023", "SET ROLE nobody_at_all"),
    ("0A000", "ALTER TABLE states.v ADD COLUMN b int"),
    ("42P02", "SELECT $1"),
];

#[test]
fn every_failure_has_its_sqlstate() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    wire.query("CREATE SCHEMA IF NOT EXISTS states");
    wire.query("CREATE OR REPLACE VIEW states.v AS SELECT 1 AS a");
    let mut wrong = Vec::new();
    for (expected, sql) in STATES {
        let simple = wire.query(sql);
        // A parameter without a value is one of the simple protocol's failures only.
        let extended = match *expected {
            "42P02" => simple.clone(),
            _ => wire.exchange([parse("", sql, &[]), bind("", "", &[]), execute("", 0)]),
        };
        for (protocol, messages) in [("simple", simple), ("extended", extended)] {
            let code = match kinds(&messages).contains('E') {
                true => code(&messages),
                false => "success".to_owned(),
            };
            if code != *expected {
                wrong.push(format!("{code} instead of {expected} ({protocol}): {sql}"));
            }
        }
    }
    wire.query("DROP SCHEMA states CASCADE");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
