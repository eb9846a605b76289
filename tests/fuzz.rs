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
use std::thread;
use std::time::{Duration, Instant};

use common::daemon::{Daemon, Options};
use mutate::Random;

/// Messages of a short run: some seconds.
const MESSAGES: u64 = 20_000;

/// Clients at a time.
const CLIENTS: u64 = 4;

/// Messages of one connection.
const BATCH: u64 = 40;

/// The longest a connection may take from the last byte sent to its end, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

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
    let (sent, connections) = (AtomicU64::new(0), AtomicU64::new(0));
    let started = Instant::now();
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (address, sent, connections) = (daemon.postgres(), &sent, &connections);
            scope.spawn(move || {
                let mut random = Random::new(seed.wrapping_add(client));
                while sent.fetch_add(BATCH, Ordering::Relaxed) < messages {
                    connections.fetch_add(1, Ordering::Relaxed);
                    attack(address, &mut random);
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
        "{} messages on {} connections in {took:.1?}; memory grew by {} MiB",
        sent.load(Ordering::Relaxed),
        connections.load(Ordering::Relaxed),
        grown >> 20
    );
    let log = daemon.log();
    let panics: Vec<&str> = log.lines().filter(|line| line.contains("panic")).take(5).collect();
    assert!(panics.is_empty(), "seed {seed}: {panics:#?}");
    assert!(grown < GROWTH, "seed {seed}: memory grew by {grown} bytes");
}

/// One connection's worth of mutated messages, then the end of what is sent: the daemon must come
/// to an end as well.
fn attack(address: SocketAddr, random: &mut Random) {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).expect("others may connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout can be set");
    let mut reader = stream.try_clone().expect("a second handle");
    let mut bytes = seeds::start_up(0);
    if random.chance(10) {
        let start_up = seeds::start_up(random.next());
        bytes = random.mutate(start_up);
    }
    for _ in 0..BATCH {
        let message = seeds::message(random);
        // A connection ends at the first message that is none: most are to get beyond it.
        bytes.extend(match random.below(10) {
            0 => random.mutate(message),
            1..4 => seeds::reframed(random.mutate(message)),
            _ => message,
        });
    }
    let reading = thread::spawn(move || drain(&mut reader));
    // The daemon may hang up in the middle: that is one of the right answers.
    let _ = stream.write_all(&bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let ended = reading.join().expect("the reader does not panic");
    assert!(ended, "the daemon neither answers nor hangs up; sent: {bytes:?}");
}

/// Reads up to the connection's end; false if nothing comes for too long.
fn drain(stream: &mut TcpStream) -> bool {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => {
                return !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
            }
        }
    }
}
