//! COPY ... FROM STDIN into managed tables: rows as text, CSV and binary, and what ends it early. A
//! real PostgreSQL gets the same and says the same in `tests/differential/copy.txt`; here is what
//! becomes of the table.

use bytes::{BufMut, Bytes, BytesMut};

use super::DAEMON;
use super::stopping::{wait_until_gone, wait_until_running};
use super::wire::{
    Message, Wire, bind, cancel, code, column, execute, first, kinds, message, parse, query,
    status, sync,
};
use crate::common::daemon::Daemon;

const COLUMNS: &str = "(a int NOT NULL, b text, c numeric(6, 2), d date)";

const ROWS: &str = "SELECT concat_ws('|', a::text, coalesce(b, '-'), coalesce(c::text, '-'), \
                    coalesce(d::text, '-')) FROM t ORDER BY a";

/// A session in whose schema `t` is empty.
fn log_in(daemon: &Daemon, schema: &str) -> Wire {
    let mut wire = Wire::log_in(daemon);
    let setup =
        format!("CREATE SCHEMA {schema}; SET search_path = {schema}; CREATE TABLE t {COLUMNS}");
    assert_eq!(kinds(&wire.query(&setup)).replace('S', ""), "CCCZ");
    wire
}

fn data(bytes: &[u8]) -> Bytes {
    message(b'd', bytes)
}

fn done() -> Bytes {
    message(b'c', b"")
}

/// Copies data, cut into parts of some bytes.
fn copy(wire: &mut Wire, sql: &str, bytes: &[u8], part: usize) -> Vec<Message> {
    wire.send([query(sql)]);
    assert_eq!(wire.until('G').len(), 1, "{sql}");
    wire.send(bytes.chunks(part).map(data).chain([done()]));
    wire.until('Z')
}

/// The binary format: a head, rows, an end.
fn binary(rows: &[&[Option<&[u8]>]]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    bytes.put_slice(b"PGCOPY\n\xff\r\n\0");
    bytes.put_u64(0);
    for row in rows {
        bytes.put_u16(row.len() as u16);
        for value in *row {
            bytes.put_i32(value.map_or(-1, |value| value.len() as i32));
            bytes.put_slice(value.unwrap_or_default());
        }
    }
    bytes.put_i16(-1);
    bytes.to_vec()
}

#[test]
fn rows_come_as_they_were_sent() {
    let daemon = DAEMON.get();
    let mut wire = log_in(&daemon, "copy_in_rows");
    let binary = binary(&[
        // 12.5 has two digits in base 10,000, the first of weight 0; days count from 2000.
        &[
            Some(&7_i32.to_be_bytes()),
            Some("ö\t".as_bytes()),
            Some(b"\0\x02\0\0\0\0\0\x02\0\x0c\x13\x88"),
            Some(&1_i32.to_be_bytes()),
        ],
        &[Some(&8_i32.to_be_bytes()), None, None, None],
    ]);
    let cases: &[(&str, &[u8], &[&str])] = &[
        (
            "COPY t FROM STDIN",
            b"1\tone\t1.5\t2024-02-29\n2\t\\N\t\\N\t\\N\n3\ttab\\there\\\\\t0\t2000-01-01\n\\.\n",
            &["1|one|1.50|2024-02-29", "2|-|-|-", "3|tab\there\\|0.00|2000-01-01"],
        ),
        ("COPY t (d, a) FROM STDIN", b"1999-12-31\t4", &["4|-|-|1999-12-31"]),
        (
            "COPY t FROM STDIN WITH (DELIMITER '|', NULL 'nil', HEADER match)",
            b"a|b|c|d\n5|nil|-1|nil\n",
            &["5|-|-1.00|-"],
        ),
        (
            "COPY t FROM STDIN (FORMAT csv)",
            b"1,\"two\nlines, \"\"quoted\"\"\",,\r\n2,\"\",3,\r\n",
            &["1|two\nlines, \"quoted\"|-|-", "2||3.00|-"],
        ),
        (
            "COPY t (a, b) FROM STDIN (FORMAT csv, HEADER, DELIMITER ';', QUOTE '''', ESCAPE '!', \
             NULL 'nil', FORCE_NULL (b))",
            b"whatever;else\n1;'it!'s; so'\n2;'nil'\n3;nil\n",
            &["1|it's; so|-|-", "2|-|-|-", "3|-|-|-"],
        ),
        ("COPY t FROM STDIN (FORMAT binary)", &binary, &["7|ö\t|12.50|2000-01-02", "8|-|-|-"]),
        ("COPY t FROM STDIN", b"", &[]),
    ];
    for (sql, bytes, expected) in cases {
        for part in [1, 3, 1 << 20] {
            let messages = copy(&mut wire, sql, bytes, part);
            assert_eq!(kinds(&messages), "CZ", "{sql}: {messages:?}");
            assert_eq!(first(&messages, 'C').text(), format!("COPY {}", expected.len()), "{sql}");
            assert_eq!(column(&wire.query(ROWS)), *expected, "{sql} in parts of {part}");
            wire.query("TRUNCATE t");
        }
    }
    // In the extended protocol the data stands before the Sync, and the next statement goes on.
    let sql = "COPY t (a) FROM STDIN";
    wire.send([parse("", sql, &[]), bind("", "", &[]), execute("", 0)]);
    wire.send([data(b"1\n2\n"), done(), parse("", "SELECT count(*) FROM t", &[])]);
    wire.send([bind("", "", &[]), execute("", 0), sync()]);
    let messages = wire.until('Z');
    assert_eq!(kinds(&messages), "12GC12DCZ");
    assert_eq!(column(&messages), ["2"]);
}

/// Of a second a column keeps as many digits as its type has.
#[test]
fn moments_are_rounded() {
    let daemon = DAEMON.get();
    let mut wire = log_in(&daemon, "copy_in_moments");
    wire.query("SET timezone = 'UTC'");
    let table = "CREATE TABLE m (a timestamp(0), b timestamptz(3), c time(1))";
    assert_eq!(kinds(&wire.query(table)), "CZ");
    let half = 7_500_000_i64.to_be_bytes();
    let binary = binary(&[&[Some(&half), Some(&half), Some(&half)]]);
    let cases: &[(&str, &[u8], &str)] = &[
        (
            "COPY m FROM STDIN",
            b"2024-01-01 12:00:00.5\t2024-01-01 12:00:00.1236+00\t12:00:00.25\n",
            "2024-01-01 12:00:01|2024-01-01 12:00:00.124+00|12:00:00.3",
        ),
        (
            "COPY m (a) FROM STDIN (FORMAT csv)",
            b"1999-12-31 23:59:59.7\n",
            "2000-01-01 00:00:00|-|-",
        ),
        (
            "COPY m FROM STDIN (FORMAT binary)",
            &binary,
            "2000-01-01 00:00:08|2000-01-01 00:00:07.5+00|00:00:07.5",
        ),
    ];
    for (sql, bytes, expected) in cases {
        let messages = copy(&mut wire, sql, bytes, 1 << 20);
        assert_eq!(kinds(&messages), "CZ", "{sql}: {messages:?}");
        let rows = "SELECT concat_ws('|', a::text, coalesce(b::text, '-'), coalesce(c::text, '-')) \
                    FROM m";
        assert_eq!(column(&wire.query(rows)), [*expected], "{sql}");
        wire.query("TRUNCATE m");
    }
}

/// What is no JSON does not get into a column of it, and `jsonb` is kept in its own form.
#[test]
fn json_is_looked_at() {
    let daemon = DAEMON.get();
    let mut wire = log_in(&daemon, "copy_in_json");
    assert_eq!(kinds(&wire.query("CREATE TABLE j (a json, b jsonb)")), "CZ");
    let good = binary(&[&[Some(br#"{"x" :1}"#), Some(b"\x01{\"bb\":1, \"a\":2}")], &[None, None]]);
    let unversioned = binary(&[&[None, Some(b"{}")]]);
    let bad = binary(&[&[None, Some(b"\x01{")]]);
    let kept = r#"{"x" :1}|{"a": 2, "bb": 1}"#;
    let text: &[u8] = b"{\"x\" :1}\t{\"bb\":1, \"a\":2}\n\\N\t\\N\n";
    let csv: &[u8] = b"\"{\"\"x\"\" :1}\",\"{\"\"bb\"\":1, \"\"a\"\":2}\"\n,\n";
    for (options, bytes) in [("", text), ("(FORMAT csv)", csv), ("(FORMAT binary)", &good)] {
        let messages = copy(&mut wire, &format!("COPY j FROM STDIN {options}"), bytes, 1 << 20);
        assert_eq!(kinds(&messages), "CZ", "{options}: {messages:?}");
        let rows = "SELECT concat_ws('|', coalesce(a::text, '-'), coalesce(b::text, '-')) FROM j ORDER BY 1";
        assert_eq!(column(&wire.query(rows)), ["-|-", kept], "{options}");
        wire.query("TRUNCATE j");
    }
    let cases: &[(&str, &[u8], &str, &str)] = &[
        ("", b"{}\t{}\n{\t{}\n", "22P02", "COPY j, line 2, column a: \"{\""),
        ("", b"{}\t[1,]\n", "22P02", "COPY j, line 1, column b: \"[1,]\""),
        ("(FORMAT csv)", b"x,{}\n", "22P02", "COPY j, line 1, column a: \"x\""),
        ("(FORMAT binary)", &unversioned, "22P03", "COPY j, line 1, column b"),
        ("(FORMAT binary)", &bad, "22P02", "COPY j, line 1, column b"),
    ];
    for (options, bytes, expected, context) in cases {
        let messages = copy(&mut wire, &format!("COPY j FROM STDIN {options}"), bytes, 1 << 20);
        assert_eq!(kinds(&messages), "EZ", "{options} {messages:?}");
        assert_eq!(code(&messages), *expected, "{options} {messages:?}");
        let found = first(&messages, 'E').field(b'W').unwrap_or_default();
        assert_eq!(&found, context, "{options} {messages:?}");
        assert_eq!(column(&wire.query("SELECT count(*) FROM j")), ["0"], "{options}");
    }
}

#[test]
fn a_bad_line_is_named_and_nothing_of_it_all_stays() {
    let daemon = DAEMON.get();
    let mut wire = log_in(&daemon, "copy_in_bad");
    let cut = &binary(&[&[Some(&7_i32.to_be_bytes()), None, None, None]])[..30];
    let few = binary(&[&[Some(&7_i32.to_be_bytes())]]);
    let cases: &[(&str, &[u8], &str, &str)] = &[
        ("", b"1\ta\t1\t\\N\n2\tx\n", "22P04", "COPY t, line 2: \"2\tx\""),
        ("", b"1\ta\t1\t\\N\textra\n", "22P04", "COPY t, line 1: \"1\ta\t1\t\\N\textra\""),
        ("", b"1\ta\t1\t\\N\nx\ta\t1\t\\N\n", "22P02", "COPY t, line 2, column a: \"x\""),
        ("", b"1\ta\tmuch\t\\N\n", "22P02", "COPY t, line 1, column c: \"much\""),
        ("", b"1\ta\t123456\t\\N\n", "22003", "COPY t, line 1, column c: \"123456\""),
        ("", b"1\ta\t1\t2023-02-29\n", "22008", "COPY t, line 1, column d: \"2023-02-29\""),
        ("", b"1\t\xff\t1\t\\N\n", "22021", "COPY t, line 1"),
        (" (FORMAT csv)", b"1,a,1,\n2,\"open,1,\n", "22P04", "COPY t, line 3: \"2,\"open,1,\n\""),
        (" (FORMAT csv)", b"1,a,1,\n2,b,1\n", "22P04", "COPY t, line 2: \"2,b,1\""),
        (" (HEADER match)", b"a\tb\td\tc\n", "22P04", "COPY t, line 1: \"a\tb\td\tc\""),
        (" (FORMAT binary)", b"PGCOPY", "22P04", ""),
        (" (FORMAT binary)", cut, "22P04", "COPY t, line 1, column b"),
        (" (FORMAT binary)", &few, "22P04", "COPY t, line 1"),
    ];
    copy(&mut wire, "COPY t FROM STDIN", b"100\tkept\t\\N\t\\N\n", 100);
    for (options, bytes, expected, context) in cases {
        let messages = copy(&mut wire, &format!("COPY t FROM STDIN{options}"), bytes, 7);
        assert_eq!(kinds(&messages), "EZ", "{options} {messages:?}");
        assert_eq!(code(&messages), *expected, "{options} {messages:?}");
        let found = first(&messages, 'E').field(b'W').unwrap_or_default();
        assert_eq!(&found, context, "{options} {messages:?}");
        assert_eq!(column(&wire.query("SELECT b FROM t")), ["kept"], "{options}");
    }
    let messages = copy(&mut wire, "COPY t (b) FROM STDIN", b"x\n", 7);
    assert_eq!(code(&messages), "23502", "{messages:?}");
    assert_eq!(column(&wire.query("SELECT b FROM t")), ["kept"]);
}

#[test]
fn a_copy_that_is_given_up_leaves_the_table_as_it_was() {
    let daemon = DAEMON.get();
    let mut wire = log_in(&daemon, "copy_in_given_up");
    let row = data(b"1\tx\t\\N\t\\N\n");
    wire.send([query("COPY t FROM STDIN")]);
    wire.until('G');
    wire.send([row.clone(), message(b'f', b"no more\0")]);
    let messages = wire.until('Z');
    assert_eq!((kinds(&messages).as_str(), code(&messages).as_str()), ("EZ", "57014"));
    let text = first(&messages, 'E').field(b'M').unwrap_or_default();
    assert_eq!(text, "COPY from stdin failed: no more");
    // Cancelled while it waits for more, and while more comes.
    for rows in [1, 10_000] {
        wire.send([query("COPY t FROM STDIN")]);
        wire.until('G');
        wire.send(vec![row.clone(); rows]);
        wait_until_running(&daemon, &wire.key);
        cancel(&daemon, &wire.key);
        assert_eq!(code(&wire.until('Z')), "57014");
        // What was on its way then means nothing any more.
        wire.send([row.clone(), done()]);
        assert_eq!(column(&wire.query("SELECT count(*) FROM t")), ["0"]);
    }
    wire.query("SET statement_timeout = '100ms'");
    wire.send([query("COPY t FROM STDIN")]);
    wire.until('G');
    wire.send([row.clone()]);
    assert_eq!(code(&wire.until('Z')), "57014");
    wire.query("SET statement_timeout = 0");
    // The client goes away without a word, or with one.
    for last in [None, Some(message(b'X', b""))] {
        let mut leaving = Wire::log_in(&daemon);
        leaving.send([query("COPY copy_in_given_up.t FROM STDIN")]);
        leaving.until('G');
        leaving.send([row.clone()].into_iter().chain(last));
        let key = leaving.key.clone();
        drop(leaving);
        wait_until_gone(&daemon, &key);
    }
    assert_eq!(column(&wire.query("SELECT count(*) FROM t")), ["0"]);
}

#[test]
fn a_copy_into_a_table_is_part_of_its_block() {
    let daemon = DAEMON.get();
    let mut wire = log_in(&daemon, "copy_in_block");
    let rows = b"1\tx\t\\N\t\\N\n2\ty\t\\N\t\\N\n";
    wire.query("BEGIN");
    assert_eq!(status(&copy(&mut wire, "COPY t FROM STDIN", rows, 100)), 'T');
    wire.query("SAVEPOINT s");
    copy(&mut wire, "COPY t FROM STDIN", rows, 100);
    assert_eq!(column(&wire.query("SELECT count(*) FROM t")), ["4"]);
    let mut other = Wire::log_in(&daemon);
    assert_eq!(column(&other.query("SELECT count(*) FROM copy_in_block.t")), ["0"]);
    wire.query("ROLLBACK TO s");
    assert_eq!(column(&wire.query("SELECT count(*) FROM t")), ["2"]);
    wire.query("ROLLBACK");
    assert_eq!(column(&wire.query("SELECT count(*) FROM t")), ["0"]);
    // One that fails fails the block.
    wire.query("BEGIN");
    wire.query("INSERT INTO t (a) VALUES (1)");
    let messages = copy(&mut wire, "COPY t FROM STDIN", b"x\n", 100);
    assert_eq!((code(&messages).as_str(), status(&messages)), ("22P02", 'E'));
    assert_eq!(code(&wire.query("COPY t FROM STDIN")), "25P02");
    wire.query("COMMIT");
    assert_eq!(column(&wire.query("SELECT count(*) FROM t")), ["0"]);
    wire.query("BEGIN");
    copy(&mut wire, "COPY t FROM STDIN", rows, 100);
    wire.query("COMMIT");
    assert_eq!(column(&other.query("SELECT count(*) FROM copy_in_block.t")), ["2"]);
}
