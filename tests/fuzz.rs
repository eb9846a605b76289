//! Hostile input: messages that were valid once, mutated, sent to a real daemon by several clients
//! at a time. Whatever comes, the daemon answers or hangs up within a bound, without a panic, with
//! bounded memory, and serves others meanwhile.
//!
//! A run is short by default. `ORIBI_FUZZ_MESSAGES` makes it longer, `ORIBI_FUZZ_SEED` repeats one:
//! each run prints its own.

mod common;
#[path = "fuzz/mutate.rs"]
mod mutate;
#[path = "fuzz/seeds.rs"]
mod seeds;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use common::daemon::{Daemon, Options};
use mutate::Random;

/// Messages of a short run: some seconds.
const MESSAGES: u64 = 20_000;

/// Clients at a time.
const CLIENTS: u64 = 4;

/// Queries and the like on one connection.
const EXCHANGES: usize = 15;

/// The longest a connection may take from the last byte sent to its end, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a connection may take before nothing more is to come from the client's side.
const LULL: Duration = Duration::from_millis(100);

/// Memory that the daemon may have taken afterwards beyond what it had before.
const GROWTH: u64 = 1 << 30;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn mutated_messages_do_no_harm() {
    let messages = setting("ORIBI_FUZZ_MESSAGES").unwrap_or(MESSAGES);
    let seed = setting("ORIBI_FUZZ_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("ORIBI_FUZZ_SEED={seed} ORIBI_FUZZ_MESSAGES={messages}");
    let options = Options::new().env("ORIBI_QUERY_STATEMENT_TIMEOUT", "2s");
    let daemon = Daemon::start(&options);
    let others = daemon.connect().await;
    let before = daemon.resident_bytes();
    let [sent, connections, completed, failed] = [const { AtomicU64::new(0) }; 4];
    let started = Instant::now();
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let address = daemon.postgres();
            let counts = [&sent, &connections, &completed, &failed];
            scope.spawn(move || {
                let mut random = Random::new(seed.wrapping_add(client));
                let count = |which: usize, more| counts[which].fetch_add(more, Ordering::Relaxed);
                while count(0, 0) < messages {
                    count(1, 1);
                    let answers = attack(address, &mut random, count);
                    count(2, answers.0);
                    count(3, answers.1);
                }
            });
        }
    });
    let took = started.elapsed();
    // The one who was there all the time was not disturbed, and nothing of the others is left.
    let sessions = common::daemon::eventually("the clients' sessions are gone", async || {
        let sql = "SELECT count(*) FROM pg_stat_activity";
        let row = others.query_one(sql, &[]).await.expect("others are served");
        (row.get::<_, i64>(0) == 1).then_some(1)
    });
    assert_eq!(sessions.await, 1);
    let grown = daemon.resident_bytes().saturating_sub(before);
    println!(
        "{sent:?} messages on {connections:?} connections in {took:.1?}: {completed:?} commands \
         completed, {failed:?} refused; memory grew by {} MiB",
        grown >> 20
    );
    assert!(completed.into_inner() > messages / 100, "seed {seed}: hardly anything got through");
    let log = daemon.log();
    let panics: Vec<&str> = log.lines().filter(|line| line.contains("panic")).take(5).collect();
    assert!(panics.is_empty(), "seed {seed}: {panics:#?}");
    assert!(grown < GROWTH, "seed {seed}: memory grew by {grown} bytes");
}

/// One connection's worth of mutated messages, then the end of what is sent: the daemon must come
/// to an end as well.
fn attack(
    address: SocketAddr,
    random: &mut Random,
    count: impl Fn(usize, u64) -> u64,
) -> (u64, u64) {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).expect("others may connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout can be set");
    let mut reader = stream.try_clone().expect("a second handle");
    let mut bytes = seeds::start_up(0);
    if random.chance(10) {
        let start_up = seeds::start_up(random.next());
        bytes = random.mutate(start_up);
    }
    for message in (0..EXCHANGES).flat_map(|_| seeds::exchange(random)).collect::<Vec<_>>() {
        count(0, 1);
        // A connection ends at the first message that is none: most are to get beyond it.
        bytes.extend(match random.below(100) {
            0 => random.mutate(message),
            1..15 => seeds::with_other_body(message, |body| random.mutate(body)),
            _ => message,
        });
    }
    bytes.extend(seeds::good_bye());
    let (done, reading) = mpsc::channel();
    thread::spawn(move || {
        let _ = done.send(drain(&mut reader));
    });
    // The daemon may hang up in the middle: that is one of the right answers.
    let _ = stream.write_all(&bytes);
    // A message that claims to be longer than it is leaves the daemon waiting for the rest: it is
    // told that there is none. Told too early, it drops what it was about to do.
    let answers = reading.recv_timeout(LULL).or_else(|_| {
        let _ = stream.shutdown(Shutdown::Write);
        reading.recv()
    });
    let answers = answers.expect("the reader does not panic");
    answers.unwrap_or_else(|| panic!("neither an answer nor the end; sent: {bytes:?}"))
}

/// Reads up to the connection's end, and counts the commands that were completed and the errors;
/// `None` if nothing comes for too long.
fn drain(stream: &mut TcpStream) -> Option<(u64, u64)> {
    let mut bytes = Vec::new();
    let ended = stream.read_to_end(&mut bytes);
    if ended.is_err_and(|e| matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)) {
        return None;
    }
    let (mut completed, mut failed) = (0, 0);
    let mut rest = bytes.as_slice();
    while let Some((kind, [a, b, c, d, ..])) = rest.split_first() {
        completed += u64::from(*kind == b'C');
        failed += u64::from(*kind == b'E');
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        rest = rest.get(1 + length..).unwrap_or_default();
    }
    Some((completed, failed))
}
