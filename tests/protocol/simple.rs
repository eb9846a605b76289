//! The simple protocol, and what every message tells about the transaction.

use super::DAEMON;
use super::wire::{Wire, code, column, first, kinds, status};

#[test]
fn statements_before_the_failing_one_deliver_their_results() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    for (failing, expected) in
        [("SELECT 1 / 0", "22012"), ("SELECT nothing", "42703"), ("SELECT * FROM nothing", "42P01")]
    {
        let messages = wire.query(&format!("SELECT 'first'; {failing}; SELECT 'never'"));
        assert_eq!(column(&messages), ["first"], "{failing}");
        assert_eq!(code(&messages), expected, "{failing}");
        assert_eq!(status(&messages), 'I');
    }
    // Text that is no SQL is found out before anything runs.
    let messages = wire.query("SELECT 'never'; SELEC 2");
    assert_eq!((kinds(&messages).as_str(), code(&messages).as_str()), ("EZ", "42601"));
    let messages = wire.query("SELECT 1 AS a; SELECT 2 AS b, 3 AS c");
    assert_eq!(kinds(&messages), "TDCTDCZ");
}

#[test]
fn a_failure_has_its_place_in_the_message() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    for (sql, place) in [
        ("SELECT 1 FRM t x", Some("14")),
        ("SELECT 'ü';\n SELECT 'ö' x yy", Some("27")),
        ("SELECT 1; BEGIN foo", Some("17")),
        ("SELECT (1", Some("10")),
        ("SELECT 1; DECLARE c CURSOR FOR SELECT 1 x y", Some("43")),
        // Of a name, where the text has it once.
        ("SELECT nothing", Some("8")),
        ("SELECT 'ü';\n SELECT nothing", Some("21")),
        ("SELECT nothing, nothing", None),
        ("PREPARE p AS SELECT nothing", None),
        // Of what is not grouped by, a value, a type, an operator, and a variable that nobody has put in.
        ("SELECT a, count(*) FROM (SELECT 1 AS a) t", Some("8")),
        ("SELECT '2020-13-45'::date", Some("8")),
        ("SELECT 1::nosuch", Some("11")),
        ("SELECT 'a'::text + 1", Some("18")),
        ("SELECT :v", Some("8")),
    ] {
        let place = place.map(str::to_owned);
        let messages = wire.query(sql);
        let error = messages.iter().find(|message| message.kind == 'E').expect("an error");
        assert_eq!(error.field(b'P'), place, "{sql}: {:?}", error.field(b'M'));
    }
}

#[test]
fn a_failure_in_the_middle_of_the_rows_ends_them() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    let messages = wire.query("SELECT 1 / (i - 500000) FROM generate_series(1, 1000000) t (i)");
    assert_eq!(code(&messages), "22012");
    assert!(!kinds(&messages).contains('C'), "it is not complete");
    assert_eq!(column(&wire.query("SELECT 1")), ["1"]);
}

#[test]
fn empty_queries_have_their_own_answer() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    for sql in ["", "  \n ", "-- nothing", ";", "/* nothing */ ;"] {
        assert_eq!(kinds(&wire.query(sql)), "IZ", "{sql:?}");
    }
    assert_eq!(kinds(&wire.query(";SELECT 1;")), "TDCZ");
}

#[test]
fn tags_are_those_that_drivers_read() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    for (sql, tag) in [
        ("SELECT * FROM generate_series(1, 3)", "SELECT 3"),
        ("SELECT 1 WHERE false", "SELECT 0"),
        ("SHOW TimeZone", "SHOW"),
        ("EXPLAIN SELECT 1", "EXPLAIN"),
        ("SET application_name = 'x'", "SET"),
        ("RESET application_name", "RESET"),
        ("BEGIN", "BEGIN"),
        ("SAVEPOINT a", "SAVEPOINT"),
        ("RELEASE SAVEPOINT a", "RELEASE"),
        ("COMMIT", "COMMIT"),
        ("START TRANSACTION", "BEGIN"),
        ("END", "COMMIT"),
        ("BEGIN", "BEGIN"),
        ("ROLLBACK", "ROLLBACK"),
        ("CREATE SCHEMA tags", "CREATE SCHEMA"),
        ("CREATE VIEW tags.v AS SELECT 1", "CREATE VIEW"),
        ("COMMENT ON VIEW tags.v IS 'x'", "COMMENT"),
        ("ALTER VIEW tags.v RENAME TO w", "ALTER VIEW"),
        ("DROP VIEW tags.w", "DROP VIEW"),
        ("DROP SCHEMA tags", "DROP SCHEMA"),
        ("DEALLOCATE ALL", "DEALLOCATE ALL"),
        ("DISCARD ALL", "DISCARD ALL"),
    ] {
        let messages = wire.query(sql);
        let expected = if tag == "BEGIN" && sql != "BEGIN" { "START TRANSACTION" } else { tag };
        let given = first(&messages, 'C').text();
        assert!(given == expected || given == tag, "{sql}: {given}");
    }
}

#[test]
fn every_answer_tells_the_state_of_the_transaction() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    for (sql, expected, state) in [
        ("SELECT 1", None, 'I'),
        ("BEGIN", None, 'T'),
        ("SELECT 1", None, 'T'),
        ("CREATE SCHEMA inside", Some("0A000"), 'E'),
        ("SELECT 1", Some("25P02"), 'E'),
        ("SET application_name = 'x'", Some("25P02"), 'E'),
        ("SELECT nothing", Some("25P02"), 'E'),
        ("ROLLBACK", None, 'I'),
        ("BEGIN; SELECT 1 / 0; SELECT 1", Some("22012"), 'E'),
        ("COMMIT", None, 'I'),
        ("BEGIN; SELECT 1; COMMIT", None, 'I'),
    ] {
        let messages = wire.query(sql);
        assert_eq!(status(&messages), state, "{sql}");
        match expected {
            Some(expected) => assert_eq!(code(&messages), expected, "{sql}"),
            None => assert!(!kinds(&messages).contains('E'), "{sql}: {messages:?}"),
        }
    }
    // What COMMIT of a failed block really did stands in its tag.
    wire.query("BEGIN; SELECT 1 / 0");
    assert_eq!(first(&wire.query("COMMIT"), 'C').text(), "ROLLBACK");
}

#[test]
fn settings_are_reported_and_rolled_back() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    let reported = |messages: &[super::wire::Message]| -> Vec<String> {
        let statuses = messages.iter().filter(|message| message.kind == 'S');
        statuses.map(|status| String::from_utf8_lossy(&status.body).replace('\0', " ")).collect()
    };
    let messages = wire.query("SET application_name = 'one'");
    assert_eq!(reported(&messages), ["application_name one "]);
    assert!(reported(&wire.query("SET application_name = 'one'")).is_empty(), "no change");
    assert!(
        reported(&wire.query("SET statement_timeout = '1min'")).is_empty(),
        "not a reported one"
    );
    wire.query("BEGIN");
    let messages = wire.query("SET application_name = 'two'; SET TimeZone = 'Asia/Tokyo'");
    assert_eq!(reported(&messages), ["application_name two ", "TimeZone Asia/Tokyo "]);
    let mut messages = reported(&wire.query("ROLLBACK"));
    messages.sort();
    assert_eq!(messages, ["TimeZone UTC ", "application_name one "]);
    assert_eq!(column(&wire.query("SHOW application_name")), ["one"]);
    wire.query("BEGIN; SET LOCAL application_name = 'three'");
    assert_eq!(reported(&wire.query("COMMIT")), ["application_name one "]);
}

#[test]
fn warnings_come_as_notices() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    for (sql, expected, severity) in [
        ("COMMIT", "25P01", "WARNING"),
        ("ROLLBACK", "25P01", "WARNING"),
        ("BEGIN; BEGIN", "25001", "WARNING"),
        ("ROLLBACK; SET LOCAL application_name = 'x'", "25P01", "WARNING"),
        ("DROP VIEW IF EXISTS nothing", "00000", "NOTICE"),
        ("CREATE SCHEMA IF NOT EXISTS public", "42P06", "NOTICE"),
    ] {
        let messages = wire.query(sql);
        let notice = first(&messages, 'N');
        assert_eq!(notice.field(b'C').as_deref(), Some(expected), "{sql}");
        assert_eq!(notice.field(b'S').as_deref(), Some(severity), "{sql}");
        assert!(!kinds(&messages).contains('E'), "{sql}");
    }
}

#[test]
fn errors_have_the_fields_that_clients_read() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    let messages = wire.query("SELECT * FROM nothing");
    let error = first(&messages, 'E');
    assert_eq!(error.field(b'S').as_deref(), Some("ERROR"));
    assert_eq!(error.field(b'V').as_deref(), Some("ERROR"), "the severity that is not translated");
    assert_eq!(error.field(b'M').as_deref(), Some("relation \"nothing\" does not exist"));
}

#[test]
fn function_calls_are_refused() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    wire.send([super::wire::message(b'F', &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0])]);
    let messages = wire.until('Z');
    assert_eq!(code(&messages), "0A000");
    assert_eq!(column(&wire.query("SELECT 1")), ["1"]);
}
