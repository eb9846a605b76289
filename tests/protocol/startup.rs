//! From the first byte to the first query: encryption, versions, refusals, limits.

use bytes::{Buf, BufMut, BytesMut};

use super::DAEMON;
use super::wire::{CANCEL, GSSAPI, PROTOCOL_3_0, SSL, Wire, cancel, code, column, first, kinds};
use crate::common::daemon::{Daemon, Options, eventually};

const OPTIONS: [(&str, &str); 2] = [("user", "oribi"), ("database", "oribi")];

#[test]
fn encryption_is_declined_and_the_connection_goes_on() {
    let daemon = DAEMON.get();
    let mut wire = Wire::open(&daemon);
    for request in [SSL, GSSAPI] {
        wire.packet(&request.to_be_bytes());
        assert_eq!(wire.byte(), 'N');
    }
    wire.start(PROTOCOL_3_0, &OPTIONS);
    assert_eq!(kinds(&wire.until('Z')).replace('S', ""), "RKZ");
}

#[test]
fn the_greeting_tells_what_drivers_ask_for() {
    let daemon = DAEMON.get();
    let wire = Wire::log_in(&daemon);
    let told: Vec<_> = (wire.greeting.iter())
        .filter(|message| message.kind == 'S')
        .map(|status| {
            let mut words = status.body.split(|byte| *byte == 0);
            let mut word =
                || String::from_utf8_lossy(words.next().unwrap_or_default()).into_owned();
            (word(), word())
        })
        .collect();
    for (name, value) in [
        ("client_encoding", "UTF8"),
        ("server_encoding", "UTF8"),
        ("DateStyle", "ISO, MDY"),
        ("IntervalStyle", "postgres"),
        ("TimeZone", "UTC"),
        ("integer_datetimes", "on"),
        ("standard_conforming_strings", "on"),
        ("session_authorization", "oribi"),
    ] {
        assert!(told.contains(&(name.into(), value.into())), "{name} = {value} in {told:?}");
    }
    assert!(told.iter().any(|(name, value)| name == "server_version" && value.starts_with("15")));
    assert_eq!(wire.key.len(), 8, "a process id and a key of four bytes");
}

#[test]
fn the_version_is_negotiated() {
    let daemon = DAEMON.get();
    // 3.2 as it is: a longer key, and nothing to negotiate.
    let mut wire = Wire::open(&daemon);
    wire.start(PROTOCOL_3_0 + 2, &OPTIONS);
    let greeting = wire.until('Z');
    assert!(!kinds(&greeting).contains('v'), "{greeting:?}");
    let key = first(&greeting, 'K').body.clone();
    assert_eq!(key.len(), 4 + 32);
    let entry = wire.query("SELECT 1");
    assert_eq!(column(&entry), ["1"]);
    // A long key cancels, too.
    wire.send([super::wire::query("SELECT count(*) FROM generate_series(1, 1000000000000)")]);
    super::stopping::wait_until_running(&daemon, &key);
    cancel(&daemon, &key);
    assert_eq!(code(&wire.until('Z')), "57014");

    // Newer, and with options that nobody knows: what there is instead.
    let mut wire = Wire::open(&daemon);
    wire.start(PROTOCOL_3_0 + 9, &[OPTIONS[0], OPTIONS[1], ("_pq_.nothing", "1")]);
    let greeting = wire.until('Z');
    let mut offered = first(&greeting, 'v').body.clone();
    assert_eq!(offered.get_u32() & 0xffff, 2);
    assert_eq!(offered.get_u32(), 1);
    assert_eq!(&offered[..], b"_pq_.nothing\0");

    let mut wire = Wire::open(&daemon);
    wire.start(2 << 16, &OPTIONS);
    assert_eq!(code(&wire.until_closed()), "0A000");
}

#[test]
fn a_log_in_that_cannot_be_is_refused() {
    let daemon = DAEMON.get();
    let mut wire = Wire::open(&daemon);
    wire.start(PROTOCOL_3_0, &OPTIONS);
    wire.until('Z');
    wire.query("CREATE ROLE no_member LOGIN; CREATE ROLE one");
    // A role that it may take.
    let mut wire = Wire::open(&daemon);
    wire.start(PROTOCOL_3_0, &[OPTIONS[0], OPTIONS[1], ("options", "-c role=one")]);
    wire.until('Z');
    assert_eq!(column(&wire.query("SELECT current_user")), ["one"]);
    for (options, expected) in [
        (&[("user", "oribi"), ("database", "nothing")][..], "3D000"),
        (&[("database", "oribi")], "28000"),
        (&[("user", ""), ("database", "oribi")], "28000"),
        (&[OPTIONS[0], OPTIONS[1], ("nothing", "1")], "42704"),
        (&[OPTIONS[0], OPTIONS[1], ("TimeZone", "Mars")], "22023"),
        (&[OPTIONS[0], OPTIONS[1], ("options", "-c statement_timeout=soon")], "22023"),
        (&[OPTIONS[0], OPTIONS[1], ("options", "-c role=nobody")], "22023"),
        (&[("user", "no_member"), OPTIONS[1], ("options", "-c role=oribi")], "42501"),
    ] {
        let mut wire = Wire::open(&daemon);
        wire.start(PROTOCOL_3_0, options);
        let messages = wire.until_closed();
        assert_eq!(code(&messages), expected, "{options:?}");
        assert_eq!(first(&messages, 'E').field(b'S').as_deref(), Some("FATAL"), "{options:?}");
    }
    // The database is called like the user unless it is given.
    let mut wire = Wire::open(&daemon);
    wire.start(PROTOCOL_3_0, &[("user", "oribi")]);
    wire.until('Z');
    assert_eq!(column(&wire.query("SELECT current_database()")), ["oribi"]);
}

#[test]
fn start_up_settings_are_what_reset_returns_to() {
    let daemon = DAEMON.get();
    let mut wire = Wire::open(&daemon);
    let settings = [("TimeZone", "Asia/Tokyo"), ("options", "-c statement_timeout=90s")];
    wire.start(PROTOCOL_3_0, &[OPTIONS[0], OPTIONS[1], settings[0], settings[1]]);
    wire.until('Z');
    wire.query("SET TimeZone = 'UTC'; SET statement_timeout = 0");
    wire.query("RESET ALL");
    assert_eq!(column(&wire.query("SHOW TimeZone")), ["Asia/Tokyo"]);
    assert_eq!(column(&wire.query("SHOW statement_timeout")), ["90s"]);
}

#[test]
fn garbage_instead_of_a_start_up_closes_the_connection() {
    let daemon = DAEMON.get();
    let mut lying = BytesMut::new();
    lying.put_u32(64);
    lying.put_u32(PROTOCOL_3_0);
    lying.put_slice(&[b'x'; 56]);
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: example\r\n\r\n"[..],
        &[0; 8],
        &[0, 0, 0, 7, 0, 3, 0],
        &[0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 0],
        &[0xff; 64],
        &lying,
    ] {
        let mut wire = Wire::open(&daemon);
        wire.raw(bytes);
        let messages = wire.until_closed();
        assert!(messages.iter().all(|message| message.kind == 'E'), "{messages:?}");
    }
    // A cancel request that is cut short is nobody's.
    let mut wire = Wire::open(&daemon);
    wire.packet(&CANCEL.to_be_bytes());
    assert_eq!(wire.until_closed(), []);
    assert_eq!(column(&Wire::log_in(&daemon).query("SELECT 1")), ["1"]);
}

#[tokio::test]
async fn one_client_too_many_is_refused_and_cancel_requests_are_not() {
    let options = Options::new().env("ORIBI_CONNECTIONS_MAX", "3");
    let daemon = Daemon::start(&options.env("ORIBI_CONNECTIONS_SUPERUSER_RESERVED", "0"));
    let mut busy = Wire::log_in(&daemon);
    let others = [Wire::log_in(&daemon), Wire::log_in(&daemon)];
    busy.send([super::wire::query("SELECT count(*) FROM generate_series(1, 1000000000000)")]);

    let mut refused = Wire::open(&daemon);
    refused.start(PROTOCOL_3_0, &OPTIONS);
    let messages = refused.until_closed();
    assert_eq!(code(&messages), "53300");
    assert_eq!(first(&messages, 'E').field(b'S').as_deref(), Some("FATAL"));

    // A key works before the statement has begun as little as in PostgreSQL: ask until it does.
    busy_is_cancelled(&daemon, &mut busy).await;
    assert_eq!(column(&busy.query("SELECT 1")), ["1"]);

    drop(others);
    eventually("a place is free again", async || {
        let mut wire = Wire::open(&daemon);
        wire.start(PROTOCOL_3_0, &OPTIONS);
        let answer = wire.next().expect("an answer");
        (answer.kind == 'R').then_some(())
    })
    .await;
}

async fn busy_is_cancelled(daemon: &Daemon, busy: &mut Wire) {
    let key = busy.key.clone();
    let (stop, mut stopped) = tokio::sync::oneshot::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let messages = busy.until('Z');
            let _ = stop.send(code(&messages));
        });
        let give_up = std::time::Instant::now() + crate::common::daemon::PATIENCE;
        loop {
            cancel(daemon, &key);
            if let Ok(code) = stopped.try_recv() {
                assert_eq!(code, "57014");
                return;
            }
            assert!(std::time::Instant::now() < give_up, "the statement is not cancelled");
        }
    });
}

#[test]
fn whoever_does_not_log_in_in_time_is_sent_away() {
    let options = Options::new().env("ORIBI_CONNECTIONS_LOGIN_TIMEOUT", "200ms");
    let daemon = Daemon::start(&options);
    let mut client = Wire::log_in(&daemon);
    let mut silent = Wire::open(&daemon);
    let mut slow = Wire::open(&daemon);
    slow.raw(&[0, 0, 0, 80, 0, 3]);
    for wire in [&mut silent, &mut slow] {
        let messages = wire.until_closed();
        assert!(messages.iter().all(|message| message.kind == 'E'), "{messages:?}");
    }
    assert_eq!(column(&client.query("SELECT 1")), ["1"]);
}
