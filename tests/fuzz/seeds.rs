//! Valid messages, to be mutated.

use bytes::{BufMut, BytesMut};

use super::mutate::Random;

/// Statements of every kind, the traps that have caught other servers among them.
const STATEMENTS: &[&str] = &[
    "",
    ";;",
    "SELECT 1",
    "SELECT $1::int4, $2::text",
    "SELECT $1",
    "SELECT $1::int4[]",
    "SELECT i, i::text, i / 2.0 FROM generate_series(1, 1000) t (i)",
    "SELECT relname, relacl FROM pg_class WHERE relkind IN ('r', 'v') ORDER BY 1",
    "SELECT count(*) FROM pg_attribute a JOIN pg_class c ON a.attrelid = c.oid",
    "SELECT interval '1 day 2:03', date '2024-02-29', timestamptz '2024-01-01 00:00+02'",
    "SELECT '{1,2,NULL}'::int[], 'NaN'::float8, '\\xdeadbeef'::bytea, '{\"a\": 1}'::json",
    "SELECT CASE WHEN $1 THEN 1 ELSE 2 END",
    "SELECT sum(x) OVER (PARTITION BY y ORDER BY z) FROM (VALUES (1, 2, 3)) t (x, y, z)",
    "WITH RECURSIVE t (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 10) SELECT n FROM t",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT a",
    "ROLLBACK TO SAVEPOINT a",
    "SET statement_timeout = '1s'",
    "SET TIME ZONE 'Europe/Vienna'",
    "SHOW ALL",
    "RESET ALL",
    "DISCARD ALL",
    "DECLARE c CURSOR FOR SELECT * FROM generate_series(1, 100)",
    "DECLARE h CURSOR WITH HOLD FOR SELECT 1",
    "FETCH 10 FROM c",
    "MOVE FORWARD ALL IN c",
    "CLOSE c",
    "PREPARE p (int) AS SELECT $1 + 1",
    "EXECUTE p (2)",
    "DEALLOCATE p",
    "COPY (SELECT 1, 'a') TO STDOUT WITH (FORMAT csv, HEADER)",
    "COPY (SELECT i FROM generate_series(1, 100) t (i)) TO STDOUT WITH (FORMAT binary)",
    "COPY t FROM STDIN",
    "EXPLAIN ANALYZE SELECT 1",
    "CREATE VIEW v AS SELECT 1 AS a",
    "DROP VIEW IF EXISTS v",
    "CREATE ROLE r PASSWORD 'x'",
    "DROP ROLE IF EXISTS r",
    "GRANT SELECT ON v TO r",
    "SET ROLE r",
    "RESET ROLE",
    "LISTEN c",
    "SELECT set_config('application_name', 'x', false), current_setting('nothing', true)",
    "SELECT has_table_privilege('v', 'SELECT'), pg_get_viewdef('v'::regclass)",
    "SELECT format('%s %I %L', 1, 'a', NULL), quote_ident('A'), to_char(now(), 'YYYY')",
    "SELECT repeat('x', 1000), substring('abc' from 2 for 1), position('b' in 'abc')",
    "SELECT 2147483647 + 1, -9223372036854775808::int8, 1e400, 1 / 0",
    "SELECT 'a' ~ '(((', 'a' SIMILAR TO 'b%', 'a' LIKE 'b\\'",
];

const NAMES: &[&str] = &["", "", "a", "c", "p"];

/// Object identifiers of types, and of none.
const TYPES: &[u32] =
    &[0, 16, 17, 20, 21, 23, 25, 700, 701, 1007, 1082, 1184, 1186, 1700, 705, 999];

fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = BytesMut::new();
    message.put_u8(kind);
    message.put_u32(body.len() as u32 + 4);
    message.put_slice(body);
    message.to_vec()
}

/// The end of a session.
pub fn good_bye() -> Vec<u8> {
    [framed(b'S', &[]), framed(b'X', &[])].concat()
}

/// A message of the same type with another body, and its length.
pub fn with_other_body(message: Vec<u8>, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Vec<u8> {
    match message.split_at_checked(5) {
        Some((head, body)) => framed(head[0], &change(body.to_vec())),
        None => message,
    }
}

fn text(body: &mut BytesMut, text: &str) {
    body.put_slice(text.as_bytes());
    body.put_u8(0);
}

/// The first packet: 0 is an ordinary log-in.
pub fn start_up(which: u64) -> Vec<u8> {
    let mut body = BytesMut::new();
    match which % 6 {
        1 => body.put_u32((1234 << 16) | 5679),
        2 => body.put_u32((1234 << 16) | 5680),
        3 => {
            body.put_u32((1234 << 16) | 5678);
            body.put_u32(7);
            body.put_u32(7);
        }
        other => {
            body.put_u32(if other == 4 { (3 << 16) | 2 } else { 3 << 16 });
            for (name, value) in [
                ("user", "oribi"),
                ("database", "oribi"),
                ("options", "-c statement_timeout=2s"),
                ("client_encoding", "UTF8"),
            ] {
                text(&mut body, name);
                text(&mut body, value);
            }
            if other == 5 {
                text(&mut body, "_pq_.nothing");
                text(&mut body, "");
            }
            body.put_u8(0);
        }
    }
    let mut packet = BytesMut::new();
    packet.put_u32(body.len() as u32 + 4);
    packet.put_slice(&body);
    packet.to_vec()
}

/// Messages that belong together: a query, or a statement's way from Parse to Sync, or a stray one.
pub fn exchange(random: &mut Random) -> Vec<Vec<u8>> {
    match random.below(10) {
        0..4 => {
            let mut body = BytesMut::new();
            text(&mut body, &statement(random));
            vec![framed(b'Q', &body)]
        }
        4..9 => {
            let (prepared, portal) = (random.pick(NAMES), random.pick(NAMES));
            let mut messages = vec![parse(prepared, random)];
            if random.chance(30) {
                messages.push(about(random.pick(b"DC"), b'S', prepared));
            }
            let mut body = BytesMut::new();
            text(&mut body, portal);
            text(&mut body, prepared);
            bind(&mut body, random);
            messages.push(framed(b'B', &body));
            if random.chance(50) {
                messages.push(about(b'D', b'P', portal));
            }
            for _ in 0..=random.below(2) {
                let mut body = BytesMut::new();
                text(&mut body, portal);
                body.put_i32(random.pick(&[0, 0, 1, 10, -1, i32::MAX]));
                messages.push(framed(b'E', &body));
            }
            if random.chance(30) {
                messages.push(about(b'C', random.pick(b"SP"), prepared));
            }
            messages.push(framed(random.pick(b"SSSH"), &[]));
            messages
        }
        _ => {
            let body = b"SCRAM-SHA-256\0\0\0\0\x05n,,n=";
            vec![framed(random.pick(b"pdcfF"), body), framed(b'S', &[])]
        }
    }
}

fn parse(name: &str, random: &mut Random) -> Vec<u8> {
    let mut body = BytesMut::new();
    text(&mut body, name);
    text(&mut body, &statement(random));
    let count = random.below(3);
    body.put_u16(count as u16);
    (0..count).for_each(|_| body.put_u32(random.pick(TYPES)));
    framed(b'P', &body)
}

/// Describe or Close.
fn about(kind: u8, what: u8, name: &str) -> Vec<u8> {
    let mut body = BytesMut::new();
    body.put_u8(what);
    text(&mut body, name);
    framed(kind, &body)
}

/// Parameters and formats, which may or may not fit the statement.
fn bind(body: &mut BytesMut, random: &mut Random) {
    let formats = random.below(3);
    body.put_u16(formats as u16);
    (0..formats).for_each(|_| body.put_i16(random.pick(&[0, 1, 1, 2])));
    let values = random.pick(&[0, 0, 0, 0, 1, 1, 2]);
    body.put_u16(values as u16);
    for _ in 0..values {
        let value: &[u8] = random.pick(&[
            b"1".as_slice(),
            b"\0\0\0\x01",
            b"",
            b"{1,2,3}",
            b"\0\0\0\x01\0\0\0\0\0\0\0\x17\0\0\0\x01\0\0\0\x01\0\0\0\x04\0\0\0\x07",
            b"\0\x01\0\0\0\0\0\0\0\x01",
            b"2024-01-01",
            b"\xff\xff\xff\xff",
        ]);
        match random.chance(15) {
            true => body.put_i32(-1),
            false => {
                body.put_i32(value.len() as i32);
                body.put_slice(value);
            }
        }
    }
    let formats = random.below(3);
    body.put_u16(formats as u16);
    (0..formats).for_each(|_| body.put_i16(random.pick(&[0, 1])));
}

/// A statement, often with words of another in it.
fn statement(random: &mut Random) -> String {
    let one = random.pick(STATEMENTS);
    if random.chance(60) {
        return one.to_owned();
    }
    let mut words: Vec<&str> = one.split(' ').collect();
    let others: Vec<&str> = random.pick(STATEMENTS).split(' ').collect();
    for _ in 0..=random.below(3) {
        let at = random.below(words.len());
        match random.below(3) {
            0 => words[at] = random.pick(&others),
            1 => words.insert(at, random.pick(&others)),
            _ => drop(words.remove(at)),
        }
        if words.is_empty() {
            break;
        }
    }
    words.join(" ")
}
