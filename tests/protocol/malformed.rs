//! Messages that are none: refused cleanly, and nobody else notices.

use super::DAEMON;
use super::wire::{Wire, code, column, message, parse};
use crate::common::daemon::{Daemon, Options};

#[test]
fn malformed_messages_are_refused() {
    let daemon = DAEMON.get();
    let mut other = Wire::log_in(&daemon);
    let cases: &[(&str, Vec<u8>)] = &[
        ("an unknown type", message(b'?', b"what").to_vec()),
        ("a message of the server", message(b'Z', b"I").to_vec()),
        ("a type of zero", vec![0; 16]),
        ("a length below its own", vec![b'Q', 0, 0, 0, 3]),
        ("a length of zero", vec![b'S', 0, 0, 0, 0]),
        ("a negative length", vec![b'Q', 0xff, 0xff, 0xff, 0xf0]),
        ("a huge length", vec![b'Q', 0x7f, 0xff, 0xff, 0xff]),
        ("a query without an end", message(b'Q', b"SELECT 1").to_vec()),
        ("a query that is not UTF-8", message(b'Q', b"SELECT '\xff'\0").to_vec()),
        ("a query with something behind it", message(b'Q', b"SELECT 1\0more").to_vec()),
        ("an empty Bind", message(b'B', b"").to_vec()),
        ("a short Bind", message(b'B', b"\0\0\0").to_vec()),
        ("a Bind with a lying count", message(b'B', b"\0\0\xff\xff\0\0").to_vec()),
        ("a Bind with 65535 parameters", message(b'B', b"\0\0\0\0\xff\xff\0\0").to_vec()),
        (
            "a Bind with a negative length",
            message(b'B', b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0").to_vec(),
        ),
        (
            "a Bind with a value beyond its end",
            message(b'B', b"\0\0\0\0\0\x01\0\0\0\xffx\0\0").to_vec(),
        ),
        ("a Parse without types", message(b'P', b"\0SELECT 1\0").to_vec()),
        ("a Parse with a lying count", message(b'P', b"\0SELECT 1\0\0\x09").to_vec()),
        ("an Execute without a limit", message(b'E', b"\0").to_vec()),
        ("a Describe of neither", message(b'D', b"X\0").to_vec()),
        ("an empty Describe", message(b'D', b"").to_vec()),
        ("a Close without a name", message(b'C', b"S").to_vec()),
        ("a Sync with a body", message(b'S', b"more").to_vec()),
    ];
    for (what, bytes) in cases {
        let mut wire = Wire::log_in(&daemon);
        wire.raw(bytes);
        // Whether the connection can go on is the daemon's choice; the error is not.
        let error = wire.until('E');
        let expected = match *what {
            "a query that is not UTF-8" => "22021",
            "a huge length" | "a negative length" => "54000",
            _ => "08P01",
        };
        assert_eq!(code(&error), expected, "{what}");
        assert_eq!(column(&other.query("SELECT 1")), ["1"], "another client, after {what}");
    }
}

#[test]
fn a_message_may_come_a_byte_at_a_time() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    for byte in super::wire::query("SELECT 'slow'").iter() {
        wire.raw(&[*byte]);
    }
    assert_eq!(column(&wire.until('Z')), ["slow"]);
}

#[test]
fn a_long_message_is_taken_up_to_the_limit() {
    let daemon = DAEMON.get();
    let mut wire = Wire::log_in(&daemon);
    let text = "x".repeat(5 << 20);
    assert_eq!(column(&wire.query(&format!("SELECT length('{text}')"))), [text.len().to_string()]);
}

#[test]
fn the_limit_of_a_message_is_kept_to_the_byte() {
    const LIMIT: usize = 1 << 20;
    let daemon = Daemon::start(&Options::new().env("ORIBI_CONNECTIONS_MESSAGE_LIMIT", "1MiB"));
    let mut wire = Wire::log_in(&daemon);
    // The length counts itself and the zero byte at the end.
    let long = |length: usize| {
        let (before, after) = ("SELECT length('", "')");
        let text = length - 5 - before.len() - after.len();
        (text.to_string(), super::wire::query(&format!("{before}{}{after}", "x".repeat(text))))
    };
    for length in [LIMIT - 1, LIMIT] {
        let (expected, message) = long(length);
        assert_eq!(message.len(), length + 1);
        wire.send([message]);
        assert_eq!(column(&wire.until('Z')), [expected]);
    }
    // One byte more ends the connection before the rest of it is taken, and no other.
    let mut other = Wire::log_in(&daemon);
    wire.raw(&long(LIMIT + 1).1[..100]);
    let messages = wire.until_closed();
    assert_eq!(code(&messages), "54000");
    let error = super::wire::first(&messages, 'E');
    assert_eq!(error.field(b'S').as_deref(), Some("FATAL"));
    assert_eq!(column(&other.query("SELECT 'alive'")), ["alive"]);
    // Data to copy: a message as any other, and a row of several messages, of which the rest is
    // passed over.
    other.query("CREATE TABLE copied (a text)");
    let copy = |wire: &mut Wire| {
        wire.send([super::wire::query("COPY copied FROM STDIN")]);
        wire.until('G');
    };
    let data = |length: usize| message(b'd', &vec![b'x'; length - 4]);
    copy(&mut other);
    other.send([data(LIMIT - 100), message(b'd', b"\n"), data(LIMIT - 100), message(b'c', b"")]);
    assert_eq!(super::wire::first(&other.until('Z'), 'C').text(), "COPY 2");
    copy(&mut other);
    other.send([data(LIMIT), data(LIMIT), data(LIMIT), message(b'c', b"")]);
    assert_eq!(code(&other.until('Z')), "54000");
    assert_eq!(column(&other.query("SELECT count(*) FROM copied")), ["2"]);
    copy(&mut other);
    other.raw(&data(LIMIT + 1)[..100]);
    let messages = other.until_closed();
    assert_eq!(code(&messages), "54000");
    assert_eq!(super::wire::first(&messages, 'E').field(b'S').as_deref(), Some("FATAL"));
    let mut again = Wire::log_in(&daemon);
    assert_eq!(column(&again.query("SELECT count(*) FROM copied")), ["2"]);
}

/// Whatever is too deep for the parser or the planner fails by itself; the daemon lives.
#[test]
fn deep_statements_do_no_harm() {
    // One of its own: should one of them end it, the other tests go on.
    let daemon = Daemon::start(&Options::new());
    let repeated = |before: &str, part: &str, times: usize, middle: &str, after: &str| {
        format!("{before}{}{middle}{}", part.repeat(times), after.repeat(times))
    };
    let alternatives: Vec<_> = (0..10_000).map(|number| format!("i = {number}")).collect();
    let doubled: Vec<_> = (0..=40)
        .map(|level| match level {
            0 => "c0 AS (SELECT 1 AS x)".to_owned(),
            _ => format!("c{level} AS (SELECT p.x FROM c{0} p, c{0} q)", level - 1),
        })
        .collect();
    for sql in [
        repeated("SELECT ", "(", 100_000, "1", ")"),
        repeated("SELECT ", "NOT ", 10_000, "true", ""),
        repeated("SELECT ", "[", 10_000, "1", "]"),
        repeated("SELECT ", "CASE WHEN true THEN ", 150, "1", " END"),
        repeated("", "SELECT * FROM (", 50, "SELECT 1 AS a", ") t"),
        repeated("SELECT 1", " + 1", 2_000, "", ""),
        repeated("SELECT 'a'", " || 'b'", 10_000, "", ""),
        repeated("SELECT 1", " UNION ALL SELECT 1", 1_000, "", ""),
        format!("SELECT i FROM generate_series(1, 3) t (i) WHERE {}", alternatives.join(" OR ")),
        "SELECT $99999999999".to_owned(),
        format!("WITH {} SELECT count(*) FROM c40", doubled.join(", ")),
        format!("SELECT 1 FROM {}", vec!["generate_series(1, 1)"; 5_000].join(", ")),
    ] {
        let mut wire = Wire::log_in(&daemon);
        let short: String = sql.chars().take(60).collect();
        wire.send([super::wire::query(&sql)]);
        let messages = wire.until_closed_or_ready();
        assert!(messages.last().is_some_and(|last| last.kind == 'Z'), "{short}: {messages:?}");
        if messages.iter().any(|message| message.kind == 'E') {
            let code = code(&messages);
            assert!(code == "42P02" || code.starts_with("54"), "{short}: {code}");
        }
    }
}

#[test]
fn a_connection_cut_anywhere_leaves_nothing_behind() {
    let daemon = DAEMON.get();
    let mut watcher = Wire::log_in(&daemon);
    let whole = [
        parse("s", "SELECT * FROM generate_series(1, $1::int)", &[]),
        super::wire::bind("p", "s", &[Some("1000000")]),
        super::wire::execute("p", 0),
        super::wire::sync(),
    ]
    .concat();
    for end in (0..whole.len()).step_by(7) {
        Wire::log_in(&daemon).raw(&whole[..end]);
    }
    let give_up = std::time::Instant::now() + crate::common::daemon::PATIENCE;
    loop {
        let left = column(&watcher.query(
            "SELECT count(*) FROM system.queries WHERE sql LIKE '%generate_series(1, $1::int)%' \
             AND sql NOT LIKE '%system.queries%'",
        ));
        if left == ["0"] {
            break;
        }
        assert!(std::time::Instant::now() < give_up, "statements are left: {left:?}");
    }
}
