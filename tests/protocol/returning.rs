//! Rows of statements that write, message by message.

use super::DAEMON;
use super::wire::{
    Wire, bind, bind_as, code, column, describe_portal, describe_statement, execute, first, kinds,
    parse, query,
};
use crate::common::daemon::Daemon;

fn tags(messages: &[super::wire::Message]) -> Vec<String> {
    messages.iter().filter(|m| m.kind == 'C').map(|tag| tag.text()).collect()
}

/// A session with a table of its own.
fn session(daemon: &Daemon, table: &str) -> Wire {
    let mut wire = Wire::log_in(daemon);
    wire.query("CREATE SCHEMA IF NOT EXISTS returning_rows");
    wire.query("SET search_path = returning_rows");
    let made = wire.query(&format!("CREATE TABLE {table} (id int, name text)"));
    assert_eq!(kinds(&made), "CZ");
    wire
}

#[test]
fn a_statement_that_returns_rows_is_described() {
    let daemon = DAEMON.get();
    let mut wire = session(&daemon, "described");
    let insert = "INSERT INTO described VALUES ($1, $2) RETURNING id AS key, name || '!'";
    let messages = wire.exchange([
        parse("", insert, &[]),
        describe_statement(""),
        bind_as("", "", &[], &[Some(b"7"), Some(b"x")], &[1, 0]),
        describe_portal(""),
        execute("", 0),
    ]);
    assert_eq!(kinds(&messages), "1tT2TDCZ");
    assert_eq!(tags(&messages), ["INSERT 0 1"]);
    let row = first(&messages, 'D').values();
    assert_eq!(row[0].as_deref(), Some(&[0, 0, 0, 7][..]));
    assert_eq!(row[1].as_deref(), Some(&b"x!"[..]));
    // Without RETURNING there is nothing to describe.
    let plain = "UPDATE described SET name = 'y'";
    let messages = wire.exchange([parse("", plain, &[]), describe_statement("")]);
    assert_eq!(kinds(&messages), "1tnZ");
}

#[test]
fn tags_count_what_was_changed() {
    let daemon = DAEMON.get();
    let mut wire = session(&daemon, "counted");
    for (sql, tag, rows) in [
        ("INSERT INTO counted VALUES (1, 'a'), (2, 'b') RETURNING id", "INSERT 0 2", 2),
        ("UPDATE counted SET name = 'c' RETURNING id", "UPDATE 2", 2),
        ("UPDATE counted SET name = 'c' WHERE id > 9 RETURNING id", "UPDATE 0", 0),
        (
            "MERGE INTO counted t USING (VALUES (2), (3)) s (id) ON t.id = s.id WHEN MATCHED THEN \
             DELETE WHEN NOT MATCHED THEN INSERT VALUES (s.id, 'd') RETURNING t.id",
            "MERGE 2",
            2,
        ),
        ("DELETE FROM counted RETURNING id", "DELETE 2", 2),
    ] {
        let messages = wire.query(sql);
        assert_eq!(kinds(&messages), if rows > 0 { "TDCZ" } else { "TCZ" }, "{sql}");
        assert_eq!(column(&messages).len(), rows, "{sql}");
        assert_eq!(tags(&messages), [tag]);
    }
}

#[test]
fn rows_may_be_read_a_few_at_a_time_when_all_is_written() {
    let daemon = DAEMON.get();
    let mut wire = session(&daemon, "portions");
    wire.query("BEGIN");
    let insert =
        "INSERT INTO portions SELECT i, 'x' FROM generate_series(1, 25) s (i) RETURNING id";
    let messages = wire.exchange([parse("", insert, &[]), bind("p", "", &[]), execute("p", 10)]);
    assert_eq!((kinds(&messages).as_str(), column(&messages).len()), ("12DsZ", 10));
    // The first portion has written all.
    assert_eq!(column(&wire.query("SELECT count(*) FROM portions")), ["25"]);
    let messages = wire.exchange([execute("p", 10), execute("p", 10)]);
    assert_eq!((kinds(&messages).as_str(), column(&messages).len()), ("DsDCZ", 15));
    assert_eq!(tags(&messages), ["INSERT 0 25"]);
    wire.query("COMMIT");
    assert_eq!(column(&wire.query("SELECT count(*) FROM portions")), ["25"]);
}

#[test]
fn a_statement_that_fails_returns_no_rows() {
    let daemon = DAEMON.get();
    let mut wire = session(&daemon, "failed");
    let messages = wire.query("INSERT INTO failed VALUES (1, 'a'), (0, 'b') RETURNING 1 / id");
    assert_eq!((kinds(&messages).as_str(), code(&messages).as_str()), ("EZ", "22012"));
    assert_eq!(column(&wire.query("SELECT count(*) FROM failed")), ["0"]);
    // One message is several statements, each of which commits.
    let both = "INSERT INTO failed VALUES (1, 'a') RETURNING id; DELETE FROM failed RETURNING name";
    let messages = wire.exchange([query(both)]);
    assert_eq!(tags(&messages), ["INSERT 0 1", "DELETE 1"]);
    assert_eq!(column(&messages), ["1", "a"]);
}

#[test]
fn explain_says_what_becomes_of_the_rows() {
    let daemon = DAEMON.get();
    let mut wire = session(&daemon, "explained");
    wire.query("INSERT INTO explained VALUES (1, 'a')");
    for (sql, heading) in [
        ("INSERT INTO explained SELECT 2, 'b'", "Insert on explained"),
        ("INSERT OVERWRITE explained SELECT 2, 'b'", "Insert Overwrite on explained"),
        ("UPDATE explained SET id = 2 WHERE name = 'a' RETURNING id", "Update on explained"),
        ("DELETE FROM explained AS e WHERE e.id = 1", "Delete on explained"),
        (
            "MERGE INTO explained t USING (VALUES (1)) s (id) ON t.id = s.id WHEN MATCHED THEN \
             DELETE WHEN NOT MATCHED THEN DO NOTHING",
            "Merge on explained",
        ),
    ] {
        for explain in ["EXPLAIN", "EXPLAIN VERBOSE", "EXPLAIN (COSTS off)"] {
            let lines = column(&wire.query(&format!("{explain} {sql}")));
            assert_eq!(lines[0], heading);
            assert!(lines.len() > 1 && lines[1..].iter().all(|line| line.starts_with("  ")));
            assert!(!lines.iter().any(|line| line.contains('\u{2}')), "{lines:?}");
        }
        let messages = wire.query(&format!("EXPLAIN ANALYZE {sql}"));
        assert_eq!(code(&messages), "0A000", "{sql}");
    }
    assert_eq!(column(&wire.query("SELECT id FROM explained")), ["1"]);
}

#[test]
fn returned_columns_have_the_types_of_the_table() {
    let daemon = DAEMON.get();
    let mut wire = session(&daemon, "typed");
    for column in ["u uuid", "n numeric(10, 2)", "v varchar(5)", "d date", "a int[]", "y bytea"] {
        wire.query(&format!("ALTER TABLE typed ADD COLUMN {column}"));
    }
    wire.query("ALTER TABLE typed ADD COLUMN at timestamptz");
    let expected = first(&wire.query("SELECT * FROM typed"), 'T').body.clone();
    for sql in [
        "INSERT INTO typed (id) VALUES (1) RETURNING *",
        "INSERT INTO typed SELECT * FROM typed RETURNING typed.*",
        "INSERT INTO typed VALUES (2, 'x', '00000000-0000-0000-0000-00000000000a', 1.5, 'v', \
         '2024-01-02', '{1}', '\\x00', now()) RETURNING *",
        "UPDATE typed SET u = NULL, n = 1 RETURNING *",
        "MERGE INTO typed t USING (SELECT 1 AS one) s ON t.id = 9 WHEN MATCHED THEN DELETE \
         WHEN NOT MATCHED THEN INSERT (id) VALUES (s.one) RETURNING t.*",
        "DELETE FROM typed RETURNING *",
    ] {
        let messages = wire.query(sql);
        assert_eq!(first(&messages, 'T').body, expected, "{sql}: {messages:?}");
    }
}
