//! The extended protocol: statements, portals, formats, and errors on the way to Sync.

use super::DAEMON;
use super::wire::{
    Wire, bind, bind_as, close_statement, code, column, describe_portal, describe_statement,
    execute, first, flush, kinds, parse, query, status,
};
use bytes::Buf;

const INT4: u32 = 23;
const INT8: u32 = 20;
const TEXT: u32 = 25;

/// Names, type OIDs and formats of a RowDescription.
fn columns(messages: &[super::wire::Message]) -> Vec<(String, u32, i16)> {
    let mut body = first(messages, 'T').body.clone();
    let count = body.get_u16();
    let mut column = || {
        let end = body.iter().position(|byte| *byte == 0).expect("a name ends");
        let name = String::from_utf8_lossy(&body.split_to(end)).into_owned();
        body.advance(1 + 4 + 2);
        let oid = body.get_u32();
        body.advance(2 + 4);
        (name, oid, body.get_i16())
    };
    (0..count).map(|_| column()).collect()
}

/// The type OIDs of a ParameterDescription.
fn parameters(messages: &[super::wire::Message]) -> Vec<u32> {
    let mut body = first(messages, 't').body.clone();
    (0..body.get_u16()).map(|_| body.get_u32()).collect()
}

#[test]
fn a_pipeline_is_answered_in_order() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    let many = (1..=100).flat_map(|number| {
        [parse("", &format!("SELECT {number}"), &[]), bind("", "", &[]), execute("", 0)]
    });
    let messages = wire.exchange(many);
    assert_eq!(kinds(&messages), "12DC".repeat(100) + "Z");
    let expected: Vec<String> = (1..=100).map(|number| number.to_string()).collect();
    assert_eq!(column(&messages), expected);
}

#[test]
fn after_an_error_all_is_skipped_to_sync() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    let messages = wire.exchange([
        parse("", "SELECT 'before'", &[]),
        bind("", "", &[]),
        execute("", 0),
        parse("", "SELECT nothing", &[]),
        bind("", "", &[]),
        execute("", 0),
        query("SELECT 'not even this'"),
    ]);
    assert_eq!(kinds(&messages), "12DCEZ");
    assert_eq!((code(&messages).as_str(), status(&messages)), ("42703", 'I'));
    let messages =
        wire.exchange([parse("", "SELECT 'after'", &[]), bind("", "", &[]), execute("", 0)]);
    assert_eq!(column(&messages), ["after"]);
}

#[test]
fn an_error_is_not_kept_back_until_sync() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    wire.send([parse("", "SELECT nothing", &[]), flush()]);
    assert_eq!(code(&wire.until('E')), "42703");
    assert_eq!(kinds(&wire.exchange([])), "Z");
    wire.send([parse("", "SELECT 1 AS a", &[]), describe_statement(""), flush()]);
    assert_eq!(kinds(&wire.until('T')), "1tT");
    assert_eq!(kinds(&wire.exchange([])), "Z");
}

#[test]
fn a_portal_gives_so_many_rows_at_a_time() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    let series = "SELECT i FROM generate_series(1, 25) t (i)";
    let start = [parse("", series, &[]), bind("", "", &[])];
    let messages = wire.exchange(start.into_iter().chain((0..4).map(|_| execute("", 10))));
    assert_eq!(kinds(&messages), "12DsDsDCCZ");
    let expected: Vec<String> = (1..=25).map(|number| number.to_string()).collect();
    assert_eq!(column(&messages), expected);
    // As in PostgreSQL, a tag counts the rows of its own Execute.
    let tags: Vec<_> =
        messages.iter().filter(|message| message.kind == 'C').map(|tag| tag.text()).collect();
    assert_eq!(tags, ["SELECT 5", "SELECT 0"]);

    // A negative limit is none.
    let messages = wire.exchange([parse("", series, &[]), bind("", "", &[]), execute("", -1)]);
    assert_eq!(column(&messages), expected);
}

#[test]
fn a_large_portal_is_read_as_slowly_as_the_client_likes() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    wire.query("BEGIN");
    let series = "SELECT i FROM generate_series(1, 1000000000) t (i)";
    wire.exchange([parse("", series, &[]), bind("slow", "", &[])]);
    for turn in 0..50 {
        let messages = wire.exchange([execute("slow", 100)]);
        assert_eq!(kinds(&messages), "DsZ");
        let expected: Vec<String> =
            (turn * 100 + 1..=turn * 100 + 100).map(|number: i32| number.to_string()).collect();
        assert_eq!(column(&messages), expected);
        // Others take their turn in between.
        if turn % 10 == 0 {
            assert_eq!(column(&wire.query("SELECT 'between'")), ["between"]);
        }
    }
    wire.query("COMMIT");
    assert_eq!(code(&wire.exchange([execute("slow", 100)])), "34000");
}

#[test]
fn portals_end_with_their_turn_outside_of_a_block() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    wire.exchange([parse("", "SELECT 1", &[]), bind("p", "", &[])]);
    assert_eq!(code(&wire.exchange([execute("p", 0)])), "34000");
    let twice = [parse("", "SELECT 1", &[]), bind("p", "", &[]), bind("p", "", &[])];
    assert_eq!(code(&wire.exchange(twice)), "42P03");
}

#[test]
fn statements_are_kept_by_name() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    assert_eq!(kinds(&wire.exchange([parse("a", "SELECT 'a'", &[])])), "1Z");
    assert_eq!(code(&wire.exchange([parse("a", "SELECT 'b'", &[])])), "42P05");
    // The unnamed one is replaced.
    wire.exchange([parse("", "SELECT 'x'", &[])]);
    wire.exchange([parse("", "SELECT 'y'", &[])]);
    let run = |name: &'static str| [bind("", name, &[]), execute("", 0)];
    assert_eq!(column(&wire.exchange(run(""))), ["y"]);
    assert_eq!(column(&wire.exchange(run("a"))), ["a"]);
    // A simple query takes the unnamed one away, and no other.
    wire.query("SELECT 1");
    assert_eq!(code(&wire.exchange(run(""))), "26000");
    assert_eq!(column(&wire.exchange(run("a"))), ["a"]);
    let known = "SELECT name FROM pg_prepared_statements";
    assert_eq!(kinds(&wire.exchange([close_statement("a"), close_statement("a")])), "33Z");
    assert_eq!(code(&wire.exchange(run("a"))), "26000");
    assert!(column(&wire.query(known)).is_empty());
    for sql in ["DEALLOCATE b", "DEALLOCATE ALL", "DISCARD ALL"] {
        wire.exchange([parse("b", "SELECT 'b'", &[])]);
        wire.query(sql);
        assert_eq!(code(&wire.exchange(run("b"))), "26000", "{sql}");
    }
    assert_eq!(code(&wire.query("DEALLOCATE nothing")), "26000");
    let two = [parse("", "SELECT 1; SELECT 2", &[])];
    assert_eq!(code(&wire.exchange(two)), "42601");
}

#[test]
fn a_description_says_what_will_come() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    let sql = "SELECT $1::int AS number, 'x'::text AS word, $2::bigint + 1 AS next";
    let messages = wire.exchange([
        parse("", sql, &[]),
        describe_statement(""),
        bind_as("", "", &[], &[Some(b"1"), None], &[1, 0, 1]),
        describe_portal(""),
        execute("", 0),
    ]);
    assert_eq!(kinds(&messages), "1tT2TDCZ");
    assert_eq!(parameters(&messages), [INT4, INT8]);
    let names = [("number", INT4), ("word", TEXT), ("next", INT8)];
    let expected = |formats: [i16; 3]| -> Vec<_> {
        names
            .iter()
            .zip(formats)
            .map(|((name, oid), format)| ((*name).into(), *oid, format))
            .collect()
    };
    assert_eq!(columns(&messages), expected([0, 0, 0]));
    let bound = messages.iter().position(|message| message.kind == '2').expect("BindComplete");
    assert_eq!(columns(&messages[bound..]), expected([1, 0, 1]));
    let row = first(&messages, 'D').values();
    assert_eq!(row[0].as_deref(), Some(&[0, 0, 0, 1][..]));
    assert_eq!(row[1].as_deref(), Some(&b"x"[..]));
    assert_eq!(row[2], None);

    // What returns no rows says so; so does nothing at all.
    for sql in ["BEGIN", "SET application_name = 'x'", ""] {
        let messages = wire.exchange([parse("", sql, &[]), describe_statement("")]);
        assert_eq!(kinds(&messages), "1tnZ", "{sql:?}");
    }
    wire.query("ROLLBACK");
    let messages = wire.exchange([parse("", "", &[]), bind("", "", &[]), execute("", 0)]);
    assert_eq!(kinds(&messages), "12IZ");
    assert_eq!(code(&wire.exchange([describe_statement("nothing")])), "26000");
    assert_eq!(code(&wire.exchange([describe_portal("nothing")])), "34000");
}

#[test]
fn parameters_get_the_type_of_their_cast_or_use() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    let kinds = [
        ("int", 23),
        ("smallint", 21),
        ("bigint", 20),
        ("text", 25),
        ("boolean", 16),
        ("real", 700),
        ("float8", 701),
        ("numeric", 1700),
        ("date", 1082),
        ("time", 1083),
        ("timestamp", 1114),
        ("timestamptz", 1184),
        ("interval", 1186),
        ("bytea", 17),
        ("uuid", 2950),
        ("json", 114),
        ("jsonb", 3802),
        ("jsonb[]", 3807),
        ("int[]", 1007),
        ("bigint[]", 1016),
        ("text[]", 1009),
    ];
    let mut wrong = Vec::new();
    for (kind, oid) in kinds {
        let sql = format!("SELECT $1::{kind}");
        let messages = wire.exchange([parse("", &sql, &[]), describe_statement("")]);
        if super::wire::kinds(&messages) != "1tTZ" {
            wrong.push(format!("{sql}: {messages:?}"));
        } else if parameters(&messages) != [oid] || columns(&messages)[0].1 != oid {
            let column = columns(&messages)[0].1;
            wrong.push(format!("{sql}: parameter {:?}, column {column}", parameters(&messages)));
        }
    }
    let uses = [
        ("SELECT i FROM generate_series(1, 3) t (i) WHERE i = $1", INT8),
        ("SELECT s FROM (VALUES ('a')) v (s) WHERE s LIKE $1", TEXT),
        ("SELECT i FROM (VALUES (1::int)) v (i) WHERE i = ANY ($1)", 1007),
        ("SELECT 1 WHERE date '2024-01-01' < $1", 1082),
        ("SELECT * FROM generate_series(1, 3) LIMIT $1", INT8),
    ];
    for (sql, oid) in uses {
        let messages = wire.exchange([parse("", sql, &[]), describe_statement("")]);
        if super::wire::kinds(&messages) != "1tTZ" || parameters(&messages) != [oid] {
            wrong.push(format!("{sql}: {messages:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn parameters_may_be_null_or_arrays_in_either_format() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    let mut answer = |sql: &str, types: &[u32], formats: &[i16], values: &[Option<&[u8]>]| {
        let messages = wire.exchange([
            parse("", sql, types),
            bind_as("", "", formats, values, &[]),
            execute("", 0),
        ]);
        match kinds(&messages).as_str() {
            "12DCZ" => first(&messages, 'D').texts(),
            _ => panic!("{sql}: {messages:?}"),
        }
    };
    let some = |text: &str| Some(text.to_owned());
    let sum = "SELECT $1 + $2";
    assert_eq!(answer(sum, &[INT4, INT4], &[], &[Some(b"1"), None]), [None]);
    assert_eq!(
        answer(sum, &[INT4, INT4], &[1, 0], &[Some(&[0, 0, 0, 40]), Some(b"2")]),
        [some("42")]
    );
    // One dimension of three elements from index 1: 7, NULL, 9.
    let binary = [
        0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 23, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 7, 255,
        255, 255, 255, 0, 0, 0, 4, 0, 0, 0, 9,
    ];
    assert_eq!(answer("SELECT $1", &[1007], &[1], &[Some(&binary)]), [some("{7,NULL,9}")]);
    assert_eq!(
        answer("SELECT $1", &[1009], &[0], &[Some(b"{a,\"b c\",NULL}")]),
        [some("{a,\"b c\",NULL}")]
    );
    assert_eq!(answer("SELECT $1::int[]", &[0], &[0], &[Some(b"{1,2}")]), [some("{1,2}")]);
    assert_eq!(answer("SELECT $1::text[]", &[0], &[0], &[Some(b"{}")]), [some("{}")]);
    assert_eq!(answer("SELECT 5 = ANY ($1)", &[1007], &[1], &[Some(&binary)]), [None]);
    assert_eq!(answer("SELECT $1::date", &[0], &[0], &[Some(b"2024-02-29")]), [some("2024-02-29")]);
    // The JDBC driver sends dates with the offset of their zone.
    assert_eq!(
        answer("SELECT $1::date", &[0], &[0], &[Some(b"2024-02-29 +00")]),
        [some("2024-02-29")]
    );
}

#[test]
fn what_does_not_fit_is_refused_and_the_session_goes_on() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    let number = || parse("", "SELECT $1::int", &[]);
    let binary: &[i16] = &[1];
    for (message, expected) in [
        (bind("", "", &[]), "08P01"),
        (bind("", "", &[Some("1"), Some("2")]), "08P01"),
        (bind("", "", &[Some("x")]), "22P02"),
        (bind("", "", &[Some("99999999999")]), "22003"),
        (bind_as("", "", &[1, 1], &[Some(b"1")], &[]), "08P01"),
        (bind_as("", "", &[2], &[Some(b"1")], &[]), "22023"),
        (bind_as("", "", &[0], &[Some(b"1")], &[1, 1]), "08P01"),
        (bind("", "nothing", &[]), "26000"),
    ] {
        let messages = wire.exchange([number(), message]);
        assert_eq!(code(&messages), expected, "{messages:?}");
    }
    let messages = wire.exchange([number(), bind_as("", "", binary, &[Some(b"1")], &[])]);
    assert!(["22P03", "08P01"].contains(&code(&messages).as_str()), "{messages:?}");
    let word = parse("", "SELECT $1::text", &[]);
    let messages = wire.exchange([word, bind_as("", "", &[0], &[Some(b"\xff")], &[])]);
    assert_eq!(code(&messages), "22021", "not UTF-8");
    let messages = wire.exchange([number(), bind("", "", &[Some("1")]), execute("", 0)]);
    assert_eq!(column(&messages), ["1"]);
}

#[test]
fn blocks_work_through_the_extended_protocol() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    let mut run =
        |sql: &str| wire.exchange([parse("", sql, &[]), bind("", "", &[]), execute("", 0)]);
    assert_eq!(status(&run("BEGIN")), 'T');
    assert_eq!(status(&run("SELECT 1")), 'T');
    assert_eq!(status(&run("SELECT 1 / 0")), 'E');
    let messages = run("SELECT 1");
    assert_eq!((code(&messages).as_str(), status(&messages)), ("25P02", 'E'));
    assert_eq!(status(&run("ROLLBACK")), 'I');
    assert_eq!(status(&run("BEGIN")), 'T');
    let messages = run("CREATE SCHEMA inside");
    assert_eq!((code(&messages).as_str(), status(&messages)), ("0A000", 'E'));
    assert_eq!(status(&run("COMMIT")), 'I');
}

#[test]
fn a_prepared_statement_follows_its_table() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    wire.query("CREATE VIEW followed AS SELECT 1 AS a");
    let run = || [bind("", "s", &[]), execute("", 0)];
    wire.exchange([parse("s", "SELECT * FROM followed", &[])]);
    assert_eq!(column(&wire.exchange(run())), ["1"]);
    Wire::log_in(&daemon).query("CREATE OR REPLACE VIEW followed AS SELECT 2 AS a");
    assert_eq!(column(&wire.exchange(run())), ["2"]);
    Wire::log_in(&daemon).query("CREATE OR REPLACE VIEW followed AS SELECT 'x' AS b, 3 AS c");
    assert_eq!(code(&wire.exchange(run())), "0A000", "the result may not change its type");
    wire.query("DROP VIEW followed");
    assert_eq!(code(&wire.exchange(run())), "42P01");
}
