//! COPY ... TO STDOUT, message by message.

use std::time::Instant;

use super::DAEMON;
use super::stopping::wait_until_gone;
use super::wire::{
    Message, Wire, bind, bind_as, cancel, code, column, describe_portal, describe_statement,
    execute, first, kinds, message, parse, query, status, sync,
};
use crate::common::daemon::{Daemon, PATIENCE};

/// Statements and what PostgreSQL answers.
const ANSWERS: &str = include_str!("copy.txt");

/// More rows than any buffer on the way takes.
const ENDLESS: &str = "COPY (SELECT * FROM generate_series(1, 1000000000000)) TO STDOUT";

/// A session in whose search path are the table and the view of `copy.txt`.
fn log_in(daemon: &Daemon) -> Wire {
    let file = daemon.options().shared_file("copy.csv", "1,x\n,\n");
    let setup = format!(
        "CREATE SCHEMA IF NOT EXISTS copying; CREATE EXTERNAL TABLE IF NOT EXISTS copying.t \
         (a int, b text) STORED AS CSV LOCATION '{}' OPTIONS ('has_header' 'false'); \
         CREATE OR REPLACE VIEW copying.v AS SELECT * FROM copying.t",
        file.display()
    );
    let mut wire = Wire::log_in(daemon);
    let give_up = Instant::now() + PATIENCE;
    // Tests that run at the same time make the same.
    loop {
        let messages = wire.query(&setup);
        match messages.iter().any(|message| message.kind == 'E') {
            false => break,
            true => assert_eq!(code(&messages), "40001", "{messages:?}"),
        }
        assert!(Instant::now() < give_up, "the table is not made: {messages:?}");
    }
    let messages = wire.query("SET search_path = copying; SET TimeZone = 'Europe/Vienna'");
    assert_eq!(kinds(&messages).replace('S', ""), "CCZ");
    wire
}

/// A message as `copy.txt` has it.
fn line(message: &Message) -> Option<String> {
    let kind = message.kind;
    Some(match kind {
        'Z' => return None,
        'T' | 'D' | 'c' => kind.to_string(),
        'C' => format!("C {}", message.text()),
        'E' => {
            let field = |kind| message.field(kind).unwrap_or_default();
            let hint = message.field(b'H').map(|hint| format!(" ({hint})")).unwrap_or_default();
            format!("E {} {}{hint}", field(b'C'), field(b'M'))
        }
        _ => format!("{kind} {}", message.body.escape_ascii()),
    })
}

/// An error without a message stands for any of its SQLSTATE.
fn is_same(found: &str, expected: &str) -> bool {
    found == expected
        || (expected.starts_with("E ") && expected.len() == 7 && found.starts_with(expected))
}

#[test]
fn every_byte_is_what_postgresql_sends() {
    let daemon = DAEMON.get();
    let mut wire = log_in(&daemon);
    let mut cases = 0;
    let mut wrong = Vec::new();
    for case in ANSWERS.split("\n\n").skip(1) {
        let mut lines = case.lines();
        let statement = lines.next().expect("a statement");
        let expected: Vec<&str> = lines.map(str::trim_start).collect();
        let found: Vec<String> = wire.query(statement).iter().filter_map(line).collect();
        let same = found.len() == expected.len()
            && found.iter().zip(&expected).all(|(found, expected)| is_same(found, expected));
        if !same {
            wrong.push(format!("{statement}\n  expected {expected:#?}\n  found {found:#?}"));
        }
        cases += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases > 150, "copy.txt has {cases} cases");
}

#[test]
fn a_row_is_one_message_and_all_are_counted() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    for (options, head) in [("", 0), ("(FORMAT csv, HEADER)", 1), ("(FORMAT csv)", 0)] {
        let sql = format!("COPY (SELECT * FROM generate_series(1, 100000)) TO STDOUT {options}");
        let messages = wire.query(&sql);
        assert_eq!(first(&messages, 'C').text(), "COPY 100000");
        let rows: Vec<_> = messages.iter().filter(|message| message.kind == 'd').collect();
        assert_eq!(rows.len(), 100_000 + head);
        for (at, row) in rows[head..].iter().enumerate() {
            assert_eq!(row.body, format!("{}\n", at + 1));
        }
    }
}

#[test]
fn the_extended_protocol_copies_all_and_describes_nothing() {
    let daemon = DAEMON.get();
    let mut wire = log_in(&daemon);
    let copy = "COPY (SELECT * FROM generate_series(1, 3)) TO STDOUT";
    for _ in 0..2 {
        // Neither the limit nor the formats are for COPY.
        let messages = wire.exchange([
            parse("", copy, &[]),
            describe_statement(""),
            bind_as("", "", &[], &[], &[1, 1, 1]),
            describe_portal(""),
            execute("", 1),
        ]);
        assert_eq!(kinds(&messages), "1tn2nHdddcCZ");
        assert_eq!(first(&messages, 'C').text(), "COPY 3");
    }
    wire.exchange([parse("kept", "COPY t (b) TO STDOUT CSV", &[])]);
    for _ in 0..2 {
        let messages = wire.exchange([bind("", "kept", &[]), execute("", 0)]);
        let rows = messages.iter().filter(|message| message.kind == 'd');
        assert_eq!(rows.map(|row| &row.body[..]).collect::<Vec<_>>(), [b"x\n", &b"\n"[..]]);
    }
    // In a pipeline it is a statement like others.
    let messages = wire.exchange([
        parse("", "SELECT 1", &[]),
        bind("", "", &[]),
        execute("", 0),
        bind("", "kept", &[]),
        execute("", 0),
        parse("", "SELECT 2", &[]),
        bind("", "", &[]),
        execute("", 0),
    ]);
    assert_eq!(kinds(&messages), "12DC2HddcC12DCZ");
    let messages = wire.exchange([parse("", "COPY (SELECT $1) TO STDOUT", &[])]);
    assert_eq!((kinds(&messages).as_str(), code(&messages).as_str()), ("EZ", "42P02"));
}

#[test]
fn a_failure_in_the_middle_ends_the_copy() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    let copy = "COPY (SELECT 1 / (i - 500000) FROM generate_series(1, 1000000) t (i)) TO STDOUT";
    for options in ["", " (FORMAT csv)", " (FORMAT binary)"] {
        let sql = format!("{copy}{options}");
        let messages = wire.query(&sql);
        assert_eq!(code(&messages), "22012");
        let kinds_of = |messages: &[Message]| {
            let mut kinds: Vec<char> = messages.iter().map(|message| message.kind).collect();
            kinds.dedup();
            String::from_iter(kinds)
        };
        assert_eq!(kinds_of(&messages), "HdEZ", "neither CopyDone nor CommandComplete");
        let messages = wire.exchange([
            parse("", &sql, &[]),
            bind("", "", &[]),
            execute("", 0),
            parse("", "SELECT 'skipped'", &[]),
            bind("", "", &[]),
            execute("", 0),
        ]);
        assert_eq!(kinds_of(&messages), "12HdEZ");
        assert_eq!(column(&wire.query("SELECT 'alive'")), ["alive"]);
    }
}

#[test]
fn a_copy_is_part_of_its_transaction() {
    let daemon = DAEMON.get();
    let mut wire = log_in(&daemon);
    wire.query("BEGIN");
    let messages = wire.query("COPY t TO STDOUT");
    assert_eq!((kinds(&messages).as_str(), status(&messages)), ("HddcCZ", 'T'));
    let messages = wire.query("COPY t TO STDOUT (nonsense)");
    assert_eq!((code(&messages).as_str(), status(&messages)), ("42601", 'E'));
    // Not even the options are looked at any more.
    for sql in ["COPY t TO STDOUT", "COPY nothing TO STDOUT", "COPY t TO STDOUT (nonsense)"] {
        let messages = wire.query(sql);
        assert_eq!((kinds(&messages).as_str(), code(&messages).as_str()), ("EZ", "25P02"), "{sql}");
    }
    assert_eq!(status(&wire.query("ROLLBACK")), 'I');
}

#[test]
fn what_is_not_copied_to_the_client_is_refused_and_nothing_is_waited_for() {
    let daemon = DAEMON.get();
    let mut wire = log_in(&daemon);
    for sql in [
        "COPY t FROM STDIN",
        "COPY t (a) FROM STDIN (FORMAT csv)",
        "COPY t FROM STDIN WHERE a = 1",
        "COPY t FROM '/etc/passwd'",
        "COPY t FROM PROGRAM 'true'",
        "COPY t TO '/tmp/file'",
        "COPY (SELECT 1) TO PROGRAM 'cat'",
    ] {
        let messages = wire.query(sql);
        assert_eq!((kinds(&messages).as_str(), code(&messages).as_str()), ("EZ", "0A000"), "{sql}");
    }
    // A client that did not wait for an answer has sent its data already.
    let data = || [message(b'd', b"1\tx\n"), message(b'd', b"2\ty\n"), message(b'c', b"")];
    wire.send([query("COPY t FROM STDIN")].into_iter().chain(data()));
    assert_eq!(kinds(&wire.until('Z')), "EZ");
    assert_eq!(column(&wire.query("SELECT 'alive'")), ["alive"]);
    let started = [parse("", "COPY t FROM STDIN", &[]), bind("", "", &[]), execute("", 0), sync()];
    wire.send(started.into_iter().chain(data()).chain([sync()]));
    assert_eq!(kinds(&wire.until('Z')), "12EZ");
    assert_eq!(kinds(&wire.until('Z')), "Z");
    // Outside of any COPY these mean nothing.
    wire.send(data().into_iter().chain([message(b'f', b"gave up\0"), query("SELECT 'alive'")]));
    assert_eq!(column(&wire.until('Z')), ["alive"]);
}

#[test]
fn a_copy_can_be_stopped_and_left() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    wire.send([query(ENDLESS)]);
    wire.until('d');
    cancel(&daemon, &wire.key);
    assert_eq!(code(&wire.until('Z')), "57014");
    wire.query("BEGIN");
    wire.send([parse("", ENDLESS, &[]), bind("", "", &[]), execute("", 0), sync()]);
    wire.until('d');
    cancel(&daemon, &wire.key);
    let messages = wire.until('Z');
    assert_eq!((code(&messages).as_str(), status(&messages)), ("57014", 'E'));
    assert_eq!(status(&wire.query("ROLLBACK")), 'I');
    wire.query("SET statement_timeout = '100ms'");
    assert_eq!(code(&wire.query(ENDLESS)), "57014");
    // One that goes away takes its statement with it.
    let key = wire.key.clone();
    wire.query("RESET statement_timeout");
    wire.send([query(ENDLESS)]);
    wire.until('d');
    drop(wire);
    wait_until_gone(&daemon, &key);
}
