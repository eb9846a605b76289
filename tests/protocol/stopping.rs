//! Statements that are stopped: by time, by a key, from another session, by the loss of their
//! client; and clients that stop reading.

use std::time::{Duration, Instant};

use bytes::Buf;

use super::DAEMON;
use super::wire::{
    PROTOCOL_3_0, SSL, Wire, bind, cancel, code, column, execute, first, kinds, parse, query,
    status, sync,
};
use crate::common::daemon::{Daemon, Options, PATIENCE};

/// A statement should stop within 100 ms; a machine busy with other tests may take longer.
const STOPPED_WITHIN: Duration = Duration::from_secs(5);

/// Statements that would run for hours, each busy in another part of the engine.
const ENDLESS: &[(&str, &str)] = &[
    ("a count", "SELECT count(*) FROM generate_series(1, 1000000000000)"),
    (
        "a join",
        "SELECT sum(a.i * b.i) FROM generate_series(1, 1000000) a (i), \
         generate_series(1, 1000000) b (i)",
    ),
    (
        "a join without a match",
        "SELECT count(*) FROM generate_series(1, 1000000) a (i), \
         generate_series(1, 1000000) b (j) WHERE a.i + b.j < 0",
    ),
    (
        "a grouping",
        "SELECT i % 100000, count(*) FROM generate_series(1, 1000000000000) t (i) GROUP BY 1",
    ),
    ("a sort", "SELECT i FROM generate_series(1, 100000000000) t (i) ORDER BY i % 1000 LIMIT 10"),
    (
        "a window",
        "SELECT max(s) FROM (SELECT sum(i) OVER (ORDER BY i) AS s \
         FROM generate_series(1, 1000000000000) t (i)) w",
    ),
    (
        "a regular expression",
        "SELECT count(*) FROM generate_series(1, 1000000000000) t (i) \
         WHERE repeat(i::text, 50) ~ '(a|b|ab)*c'",
    ),
    (
        "a recursion",
        "WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 1000000000) \
         SELECT count(*) FROM r",
    ),
];

/// Waits until the session with this key runs something.
pub fn wait_until_running(daemon: &Daemon, key: &[u8]) {
    let pid = (&key[..4]).get_i32();
    let sql =
        format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND state = 'active'");
    wait_for(daemon, &sql, "1");
}

/// Waits until the session with this key has ended.
pub fn wait_until_gone(daemon: &Daemon, key: &[u8]) {
    let pid = (&key[..4]).get_i32();
    wait_for(daemon, &format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}"), "0");
}

/// Waits until a query's one value is this.
fn wait_for(daemon: &Daemon, sql: &str, expected: &str) {
    let mut watcher = Wire::log_in(daemon);
    let give_up = Instant::now() + PATIENCE;
    loop {
        let messages = watcher.query(sql);
        assert!(!kinds(&messages).contains('E'), "{sql}: {messages:?}");
        let found = column(&messages);
        if found == [expected] {
            return;
        }
        assert!(Instant::now() < give_up, "{sql}: {found:?} instead of {expected}");
    }
}

#[test]
fn a_cancel_request_stops_whatever_runs() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    for (what, sql) in ENDLESS {
        wire.send([query(sql)]);
        wait_until_running(&daemon, &wire.key);
        let since = Instant::now();
        cancel(&daemon, &wire.key);
        let messages = wire.until('Z');
        assert_eq!(code(&messages), "57014", "{what}");
        assert!(since.elapsed() < STOPPED_WITHIN, "{what} took {:?}", since.elapsed());
        assert_eq!(column(&wire.query("SELECT 'alive'")), ["alive"], "after {what}");
    }
    // Nothing runs: nothing happens, now or to the next statement.
    cancel(&daemon, &wire.key);
    assert_eq!(column(&wire.query("SELECT 'alive'")), ["alive"]);
}

#[test]
fn a_cancel_request_stops_rows_on_their_way() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    wire.send([query("SELECT * FROM generate_series(1, 1000000000000)")]);
    wire.until('D');
    cancel(&daemon, &wire.key);
    assert_eq!(code(&wire.until('Z')), "57014");
    // In the extended protocol, and in a block, which fails.
    wire.query("BEGIN");
    let series = "SELECT * FROM generate_series(1, 1000000000000)";
    wire.send([parse("", series, &[]), bind("", "", &[]), execute("", 0), sync()]);
    wire.until('D');
    cancel(&daemon, &wire.key);
    let messages = wire.until('Z');
    assert_eq!((code(&messages).as_str(), status(&messages)), ("57014", 'E'));
    assert_eq!(status(&wire.query("ROLLBACK")), 'I');
}

#[test]
fn a_wrong_key_stops_nothing() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    wire.send([query(ENDLESS[0].1)]);
    wait_until_running(&daemon, &wire.key);
    let mut wrong = wire.key.to_vec();
    wrong[7] ^= 1;
    cancel(&daemon, &wrong);
    cancel(&daemon, &wire.key[..4]);
    cancel(&daemon, &[&wire.key[..], b"\0\0\0\0"].concat());
    cancel(&daemon, &[0; 8]);
    // Each of these connections was closed when its request had been dealt with.
    wait_until_running(&daemon, &wire.key);
    cancel(&daemon, &wire.key);
    assert_eq!(code(&wire.until('Z')), "57014");
}

#[test]
fn a_statement_has_only_so_much_time() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    wire.query("SET statement_timeout = '50ms'");
    for (what, sql) in ENDLESS {
        let since = Instant::now();
        let messages = wire.query(sql);
        assert_eq!(code(&messages), "57014", "{what}");
        assert!(since.elapsed() < STOPPED_WITHIN, "{what} took {:?}", since.elapsed());
    }
    let messages = wire.exchange([parse("", ENDLESS[0].1, &[]), bind("", "", &[]), execute("", 0)]);
    assert_eq!(code(&messages), "57014");
    let error = first(&messages, 'E').field(b'M').unwrap_or_default();
    assert!(error.contains("statement timeout"), "{error}");
    // Rows on their way, too.
    let messages = wire.query("SELECT * FROM generate_series(1, 1000000000000)");
    assert_eq!(code(&messages), "57014");
    wire.query("SET statement_timeout = 0");
    assert_eq!(column(&wire.query("SELECT 'alive'")), ["alive"]);
}

#[test]
fn sessions_are_stopped_from_others() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    let mut other = Wire::log_in(&daemon);
    let pid = (&wire.key[..4]).get_i32();
    wire.send([query(ENDLESS[1].1)]);
    wait_until_running(&daemon, &wire.key);
    assert_eq!(column(&other.query(&format!("SELECT pg_cancel_backend({pid})"))), ["t"]);
    assert_eq!(code(&wire.until('Z')), "57014");
    assert_eq!(column(&other.query("SELECT pg_cancel_backend(1)")), ["f"]);

    wire.send([query(ENDLESS[1].1)]);
    wait_until_running(&daemon, &wire.key);
    assert_eq!(column(&other.query(&format!("SELECT pg_terminate_backend({pid})"))), ["t"]);
    let messages = wire.until_closed();
    assert_eq!(code(&messages), "57P01");
    assert_eq!(first(&messages, 'E').field(b'S').as_deref(), Some("FATAL"));
    // An idle one as well.
    let mut idle = Wire::log_in(&daemon);
    let pid = (&idle.key[..4]).get_i32();
    other.query(&format!("SELECT pg_terminate_backend({pid})"));
    assert_eq!(code(&idle.until_closed()), "57P01");
}

#[test]
fn a_client_that_vanishes_takes_its_statement_with_it() {
    let daemon = DAEMON.get();
    for sql in [
        "SELECT count(*) AS vanishing FROM generate_series(1, 1000000000000)",
        "SELECT i AS vanishing FROM generate_series(1, 1000000000000) t (i)",
        "SELECT sum(a.i * b.i) AS vanishing FROM generate_series(1, 1000000) a (i), \
         generate_series(1, 1000000) b (i)",
    ] {
        let listed = "SELECT count(*) FROM system.queries WHERE sql LIKE '%vanishing%' \
                      AND sql NOT LIKE '%system.queries%'";
        let mut wire = Wire::log_in(&daemon);
        wire.send([query(sql)]);
        wait_for(&daemon, listed, "1");
        drop(wire);
        wait_for(&daemon, listed, "0");
    }
}

#[test]
fn a_client_that_does_not_read_costs_no_memory() {
    const ROWS: usize = 5_000_000;
    const ALLOWED: u64 = 128 << 20;
    let text = "x".repeat(150);
    // One of its own: what other tests ask for is not to be measured.
    let daemon = Daemon::start(&Options::new());
    let mut other = Wire::log_in(&daemon);
    let mut wire = Wire::log_in(&daemon);
    let before = daemon.resident_bytes();
    let grown = || daemon.resident_bytes().saturating_sub(before);
    wire.send([query(&format!("SELECT i, '{text}' FROM generate_series(1, {ROWS}) t (i)"))]);
    wire.until('D');
    // It could make all rows in this time, which would take 800 MB.
    let pause_ends = Instant::now() + Duration::from_secs(2);
    while Instant::now() < pause_ends {
        assert_eq!(column(&other.query("SELECT 1")), ["1"]);
        assert!(grown() < ALLOWED, "{} MiB more while nobody reads", grown() >> 20);
    }
    // Then it reads all of it.
    let mut buffer = vec![0; 1 << 20];
    let mut read = 0;
    let end = b"Z\0\0\0\x05I";
    // The end may come in two parts.
    let mut tail = Vec::new();
    loop {
        let count = wire.read_some(&mut buffer);
        assert!(count > 0, "the connection ended after {read} bytes");
        read += count;
        tail.extend_from_slice(&buffer[count.saturating_sub(end.len())..count]);
        tail.drain(..tail.len().saturating_sub(end.len()));
        if tail == end {
            break;
        }
        assert!(grown() < ALLOWED, "{} MiB more after {read} bytes", grown() >> 20);
    }
    assert!(read > ROWS * 150, "{read} bytes came");
}

#[test]
fn a_portal_that_is_read_on_can_be_cancelled() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    wire.query("BEGIN");
    let endless = "SELECT i FROM generate_series(1, 1000000000000) t (i)";
    let messages = wire.exchange([parse("", endless, &[]), bind("p", "", &[]), execute("p", 1)]);
    assert_eq!(kinds(&messages), "12DsZ");
    // What the session ran last is another statement, which has ended.
    wire.query("SELECT 'between'");
    wire.send([execute("p", 0), sync()]);
    wait_until_running(&daemon, &wire.key);
    cancel(&daemon, &wire.key);
    assert_eq!(code(&wire.until('Z')), "57014");
    assert_eq!(status(&wire.query("ROLLBACK")), 'I');
}

#[test]
fn a_client_that_reads_nothing_can_be_ended() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    wire.send([query("SELECT repeat('x', 1000) FROM generate_series(1, 1000000000000)")]);
    wait_until_running(&daemon, &wire.key);
    let pid = (&wire.key[..4]).get_i32();
    let mut other = Wire::log_in(&daemon);
    assert_eq!(column(&other.query(&format!("SELECT pg_terminate_backend({pid})"))), ["t"]);
    wait_until_gone(&daemon, &wire.key);
}

#[test]
fn a_block_left_open_ends_when_its_time_is_up() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    wire.query("SET idle_in_transaction_session_timeout = '50ms'");
    wire.query("BEGIN");
    assert_eq!(code(&wire.until_closed()), "25P03");
}

/// Who has a connection and is not logged in is told, too, that the daemon ends, and does not keep it.
#[test]
fn a_client_that_has_not_logged_in_is_told_of_the_end() {
    let rules = "host all asked samehost scram-sha-256; host all all samehost trust";
    let options = Options::new().env("ORIBI_CONNECTIONS_RULES", rules);
    let daemon = Daemon::start(&options.env("ORIBI_CONNECTIONS_LOGIN_FAILURES", "1"));
    let made = Wire::log_in(&daemon).query("CREATE ROLE asked LOGIN PASSWORD 'secret'");
    assert_eq!(kinds(&made), "CZ", "{made:?}");
    let silent = Wire::open(&daemon);
    let mut in_plaintext = Wire::open(&daemon);
    in_plaintext.packet(&SSL.to_be_bytes());
    assert_eq!(in_plaintext.byte(), 'N');
    let mut asked = Wire::open(&daemon);
    asked.start(PROTOCOL_3_0, &[("user", "asked"), ("database", "oribi")]);
    assert_eq!(asked.next().expect("the request for a password").kind, 'R');
    // The answer to the last of these is held back for eight seconds.
    let held = [(); 6].map(|()| {
        let mut wire = Wire::open(&daemon);
        wire.start(PROTOCOL_3_0, &[("user", "nobody"), ("database", "oribi")]);
        wire
    });
    let begun = Instant::now();
    daemon.terminate();
    for (who, mut client) in [("silent", silent), ("in plaintext", in_plaintext), ("asked", asked)]
    {
        assert_eq!(code(&client.until_closed()), "57P01", "{who}");
    }
    for mut client in held {
        let told = code(&client.until_closed());
        assert!(["57P01", "57P03", "28000"].contains(&told.as_str()), "{told}");
    }
    assert_eq!(daemon.wait(PATIENCE).code(), Some(0), "{}", daemon.log());
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(4), "it took {took:?}");
    assert!(!daemon.log().contains("some tasks did not end in time"), "{}", daemon.log());
}
