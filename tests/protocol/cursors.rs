//! Cursors message by message: one namespace with portals, descriptions, formats, lifetimes.

use super::DAEMON;
use super::wire::{
    Message, Wire, bind, bind_as, code, column, describe_portal, describe_statement, execute,
    first, kinds, parse, status,
};

fn numbers(range: std::ops::RangeInclusive<i32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

fn tags(messages: &[Message]) -> Vec<String> {
    messages.iter().filter(|message| message.kind == 'C').map(Message::text).collect()
}

/// The type OIDs and formats of a RowDescription.
fn described(messages: &[Message]) -> Vec<(u32, i16)> {
    let body = &first(messages, 'T').body;
    let mut at = 2;
    let mut columns = Vec::new();
    while at < body.len() {
        at += body[at..].iter().position(|byte| *byte == 0).expect("a name ends") + 1 + 6;
        let oid = u32::from_be_bytes(body[at..at + 4].try_into().expect("an OID"));
        let format = i16::from_be_bytes(body[at + 10..at + 12].try_into().expect("a format"));
        columns.push((oid, format));
        at += 12;
    }
    columns
}

#[test]
fn the_simple_protocol_fetches_with_a_description() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    let messages = wire.query(
        "BEGIN; DECLARE c CURSOR FOR SELECT i FROM generate_series(1, 10) t (i); \
         FETCH 3 FROM c; MOVE 2 IN c; FETCH c; CLOSE c; COMMIT",
    );
    assert_eq!(kinds(&messages), "CCTDCCTDCCCZ");
    assert_eq!(column(&messages), ["1", "2", "3", "6"]);
    assert_eq!(
        tags(&messages),
        ["BEGIN", "DECLARE CURSOR", "FETCH 3", "MOVE 2", "FETCH 1", "CLOSE CURSOR", "COMMIT"]
    );
    // The statements of a message are a block as far as cursors go, and no longer.
    let messages = wire.query("DECLARE c CURSOR FOR SELECT 1; FETCH c");
    assert_eq!(kinds(&messages), "CTDCZ");
    assert_eq!(code(&wire.query("FETCH c")), "34000");
}

#[test]
fn a_binary_cursor_answers_in_binary() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    let messages =
        wire.query("BEGIN; DECLARE c BINARY CURSOR FOR SELECT CAST(258 AS int4); FETCH c");
    assert_eq!(described(&messages), [(23, 1)]);
    assert_eq!(first(&messages, 'D').values(), [Some(vec![0, 0, 1, 2].into())]);
    // In the extended protocol it is for whoever binds FETCH to say.
    let fetch = [parse("", "FETCH BACKWARD 0 FROM c", &[]), describe_statement("")];
    let messages = wire.exchange(fetch.into_iter().chain([bind("", "", &[]), execute("", 0)]));
    assert_eq!(kinds(&messages), "1tT2DCZ");
    assert_eq!(column(&messages), ["258"]);
    let messages =
        wire.exchange([bind_as("", "", &[], &[], &[1]), describe_portal(""), execute("", 0)]);
    assert_eq!(described(&messages), [(23, 1)]);
    assert_eq!(first(&messages, 'D').values(), [Some(vec![0, 0, 1, 2].into())]);
}

#[test]
fn cursors_and_portals_are_the_same() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    wire.query("BEGIN");
    let series = "SELECT i FROM generate_series(1, 10) t (i)";
    // A bound portal can be fetched from, before its first Execute and after it.
    wire.exchange([parse("s", series, &[]), bind("bound", "s", &[]), bind("other", "s", &[])]);
    assert_eq!(column(&wire.query("FETCH 2 FROM bound")), numbers(1..=2));
    assert_eq!(kinds(&wire.exchange([execute("bound", 2)])), "DsZ");
    assert_eq!(column(&wire.query("FETCH 2 FROM bound")), numbers(5..=6));
    assert_eq!(column(&wire.query("SELECT name FROM pg_cursors ORDER BY 1")), ["bound", "other"]);

    // A declared cursor can be described and executed.
    wire.query(&format!("DECLARE declared CURSOR FOR {series}"));
    let messages = wire.exchange([describe_portal("declared"), execute("declared", 3)]);
    assert_eq!(kinds(&messages), "TDsZ");
    assert_eq!(column(&messages), numbers(1..=3));
    assert_eq!(column(&wire.query("FETCH ALL FROM declared")), numbers(4..=10));

    // One namespace.
    assert_eq!(code(&wire.exchange([bind("declared", "s", &[])])), "42P03");
    wire.query("ROLLBACK");
    assert_eq!(code(&wire.exchange([execute("declared", 0)])), "34000");
    assert_eq!(column(&wire.query("SELECT count(*) FROM pg_cursors")), ["0"]);
}

#[test]
fn declare_takes_parameters() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    wire.query("BEGIN");
    let declare = "DECLARE c CURSOR FOR SELECT i FROM generate_series(1, 10) t (i) WHERE i > $1";
    let messages = wire.exchange([
        parse("", declare, &[]),
        describe_statement(""),
        bind("", "", &[Some("8")]),
        execute("", 0),
    ]);
    assert_eq!(kinds(&messages), "1tn2CZ");
    assert_eq!(column(&wire.query("FETCH ALL c")), numbers(9..=10));
    assert_eq!(code(&wire.query("DECLARE d CURSOR FOR SELECT $1")), "42P02");
}

#[test]
fn fetch_comes_in_portions_too() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    wire.query("BEGIN; DECLARE c CURSOR FOR SELECT i FROM generate_series(1, 10) t (i)");
    let start = [parse("", "FETCH 5 FROM c", &[]), bind("", "", &[])];
    let messages = wire.exchange(start.into_iter().chain((0..3).map(|_| execute("", 2))));
    assert_eq!(kinds(&messages), "12DsDsDCZ");
    assert_eq!(column(&messages), numbers(1..=5));
    assert_eq!(tags(&messages), ["FETCH 5"]);
    assert_eq!(column(&wire.query("FETCH c")), ["6"]);
}

#[test]
fn a_held_cursor_is_the_sessions() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    let declare =
        "DECLARE h CURSOR WITH HOLD FOR SELECT i FROM generate_series(1, 1000000000) t (i)";
    wire.exchange([parse("", declare, &[]), bind("", "", &[]), execute("", 0)]);
    for turn in 0..3 {
        let messages = wire.query("FETCH 100 FROM h");
        assert_eq!(column(&messages), numbers(turn * 100 + 1..=turn * 100 + 100));
        assert_eq!(status(&messages), 'I');
        // Failures of others leave it alone.
        assert_eq!(code(&wire.query("BEGIN; SELECT 1 / 0")), "22012");
        assert_eq!(code(&wire.query("FETCH h")), "25P02");
        wire.query("ROLLBACK");
    }
    wire.query("CLOSE h");
    assert_eq!(code(&wire.query("FETCH h")), "34000");
}

#[test]
fn a_cursor_that_is_read_slowly_is_not_out_of_time() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    wire.query("BEGIN; DECLARE c CURSOR FOR SELECT i FROM generate_series(1, 10000000000) t (i)");
    assert_eq!(column(&wire.query("FETCH 1 c")), ["1"]);
    // What others do meanwhile takes longer than the cursor may.
    wire.query("SELECT count(*) FROM generate_series(1, 100000000)");
    wire.query("SET statement_timeout = '500ms'");
    assert_eq!(column(&wire.query("FETCH 1 c")), ["2"]);
    let messages = wire.query("MOVE ALL IN c");
    assert_eq!(code(&messages), "57014");
    assert_eq!(code(&wire.query("FETCH c")), "25P02");
}
