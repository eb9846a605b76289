//! PREPARE and EXECUTE message by message, and settings that change without SET.

use super::DAEMON;
use super::wire::{
    Message, Wire, bind, bind_as, code, column, describe_statement, execute, first, kinds, parse,
};

/// Names and values of the settings the client was told of.
fn told(messages: &[Message]) -> Vec<(String, String)> {
    let statuses = messages.iter().filter(|message| message.kind == 'S');
    statuses
        .map(|status| {
            let text = String::from_utf8_lossy(&status.body).into_owned();
            let mut parts = text.split('\0').map(str::to_owned);
            (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
        })
        .collect()
}

#[test]
fn statements_of_both_kinds_share_their_names() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    wire.query("PREPARE a (int) AS SELECT $1 + 1");
    wire.exchange([parse("b", "SELECT $1::int + 2", &[])]);
    // Each is run in the other way.
    let messages = wire.exchange([bind("", "a", &[Some("1")]), execute("", 0)]);
    assert_eq!(column(&messages), ["2"]);
    assert_eq!(column(&wire.query("EXECUTE b(1)")), ["3"]);
    assert_eq!(code(&wire.exchange([parse("a", "SELECT 1", &[])])), "42P05");
    assert_eq!(code(&wire.query("PREPARE b AS SELECT 1")), "42P05");
    let listed = wire.query("SELECT name || from_sql FROM pg_prepared_statements ORDER BY 1");
    assert_eq!(column(&listed), ["atrue", "bfalse"]);
    wire.query("DEALLOCATE b");
    assert_eq!(code(&wire.exchange([bind("", "b", &[Some("1")])])), "26000");
}

#[test]
fn execute_has_the_columns_and_formats_that_are_asked_for() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    wire.query("PREPARE p (int4) AS SELECT $1 AS a, 'x' AS b");
    let messages = wire.exchange([
        parse("e", "EXECUTE p(258)", &[]),
        describe_statement("e"),
        bind_as("", "e", &[], &[], &[1, 0]),
        execute("", 0),
    ]);
    assert_eq!(kinds(&messages), "1tT2DCZ");
    let values = first(&messages, 'D').values();
    assert_eq!(values, [Some(vec![0, 0, 1, 2].into()), Some("x".into())]);
    assert_eq!(first(&messages, 'C').text(), "SELECT 1");
    // A portal of its own, in portions.
    wire.query("BEGIN; PREPARE s AS SELECT i FROM generate_series(1, 3) t (i)");
    let messages = wire.exchange([
        parse("", "EXECUTE s", &[]),
        bind("", "", &[]),
        execute("", 2),
        execute("", 2),
    ]);
    assert_eq!(kinds(&messages), "12DsDCZ");
    assert_eq!(column(&messages), ["1", "2", "3"]);
    wire.query("COMMIT; DEALLOCATE p");
    // What it names is gone: it has no columns, and does not run.
    let messages = wire.exchange([describe_statement("e")]);
    assert_eq!(kinds(&messages), "tnZ");
    assert_eq!(code(&wire.exchange([bind("", "e", &[]), execute("", 0)])), "26000");
}

#[test]
fn clients_are_told_of_settings_however_they_change() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    let name = |value: &str| vec![("application_name".to_owned(), value.to_owned())];
    let set = "SELECT set_config('application_name', 'by function', false)";
    assert_eq!(told(&wire.query(set)), name("by function"));
    wire.query("BEGIN");
    let messages = wire.exchange([
        parse("", "SELECT set_config('application_name', $1, true)", &[]),
        bind("", "", &[Some("inside")]),
        execute("", 0),
    ]);
    assert_eq!(told(&messages), name("inside"));
    assert_eq!(told(&wire.query("SAVEPOINT a; SET application_name = 'later'")), name("later"));
    assert_eq!(told(&wire.query("ROLLBACK TO a")), name("inside"));
    assert_eq!(told(&wire.query("ROLLBACK")), name("by function"));
    assert_eq!(told(&wire.query("DISCARD ALL")), name(""));
    // There and back in one turn is no change.
    assert_eq!(told(&wire.query("SET application_name = 'x'; RESET ALL")), []);
}

#[test]
fn an_aborted_block_takes_its_end_only() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    wire.query("PREPARE p AS SELECT 1");
    wire.query("BEGIN");
    wire.query("SELECT 1 / 0");
    for sql in ["EXECUTE p", "DEALLOCATE p", "PREPARE q AS SELECT 1", "FETCH c", "CLOSE ALL"] {
        assert_eq!(code(&wire.query(sql)), "25P02", "{sql}");
        assert_eq!(code(&wire.exchange([parse("", sql, &[])])), "25P02", "{sql}");
    }
    wire.query("ROLLBACK");
    assert_eq!(column(&wire.query("EXECUTE p")), ["1"]);
}
