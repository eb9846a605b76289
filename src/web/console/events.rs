//! What changes, told to the pages that are open: server-sent events, each with a table's rows.
//!
//! The daemon asks itself, with the rights of who looks, and only as long as somebody does. These
//! statements are in no list and no history.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, Stream};
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until};

use super::logins::Login;
use super::statements::rows;
use super::wire::Wire;

/// A table that pages are told of.
#[derive(Clone, Copy, Debug)]
struct Topic {
    /// The event's name.
    name: &'static str,
    every: Duration,
    sql: &'static str,
}

/// After so long without a change a line says that the daemon is still there.
const ALIVE: Duration = Duration::from_secs(15);

/// How long what was refused is left alone.
const REFUSED: Duration = Duration::from_secs(30);

const fn topic(name: &'static str, seconds: u64, sql: &'static str) -> Topic {
    Topic { name, every: Duration::from_secs(seconds), sql }
}

/// What is in memory here, and what others tell at once or not at all.
const NEAR: &[Topic] = &[
    topic(
        "daemons",
        1,
        "SELECT id, state, postgres, web, version, cores, memory, since, local, leader, error \
         FROM system.daemons ORDER BY id",
    ),
    topic(
        "running",
        1,
        "SELECT id, kind, state, daemon, pid, \"user\", database, pool, left(sql, 500) AS sql, \
         progress, coalesce(started, submitted) AS started, phase, rows, bytes_scanned, \
         array_to_string(workers, ', ') AS workers, \
         extract(epoch FROM now() - coalesce(started, submitted)) AS elapsed \
         FROM system.queries WHERE state IN ('running', 'queued') ORDER BY id LIMIT 500",
    ),
];

/// What others have to be asked for.
const FAR: &[Topic] = &[
    topic(
        "metrics",
        3,
        "SELECT daemon, name, value FROM system.metrics WHERE name IN ('uptime_seconds', \
         'memory_reserved_bytes', 'memory_limit_bytes', 'spilled_bytes', 'sessions', \
         'sessions_active', 'pools_running', 'pools_queued')",
    ),
    topic(
        "coordination",
        3,
        "SELECT daemon, backend, server, state, session_timeout, \
         round(reads_per_second::numeric, 1) AS reads_per_second, \
         round(writes_per_second::numeric, 1) AS writes_per_second, \
         round(p99_latency::numeric, 1) AS p99_latency, failed \
         FROM system.coordination WHERE purpose = 'daemon' ORDER BY daemon",
    ),
    topic(
        "ensemble",
        10,
        "SELECT address, role, version, avg_latency, outstanding, connections, watches, znodes, \
         data_size, error FROM zk.servers ORDER BY address",
    ),
];

/// Tells until the page goes away or its user is logged in no more.
pub fn tell(near: Wire, far: Wire, login: Arc<Login>, listener: OwnedSemaphorePermit) -> Response {
    let events = stream::select(
        Teller::new(near, NEAR, &login).events(),
        Teller::new(far, FAR, &login).events(),
    );
    // For as long as the page listens.
    let events = events.inspect(move |_| {
        let _ = &listener;
    });
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(events)).into_response()
}

/// Looks at some topics in turn.
struct Teller {
    wire: Wire,
    login: Arc<Login>,
    topics: &'static [Topic],
    /// When each is looked at next, and what it was when it was looked at last.
    known: Vec<(Instant, Value)>,
    told: Instant,
}

impl Teller {
    fn new(wire: Wire, topics: &'static [Topic], login: &Arc<Login>) -> Self {
        let now = Instant::now();
        let known = topics.iter().map(|_| (now, Value::Null)).collect();
        Self { wire, login: login.clone(), topics, known, told: now }
    }

    fn events(self) -> impl Stream<Item = Result<Bytes, Infallible>> {
        stream::unfold(self, |mut teller| async move {
            let ended = teller.login.ended.clone();
            let event = tokio::select! {
                event = teller.next() => event.ok()?,
                () = ended.cancelled() => return None,
            };
            Some((Ok(event), teller))
        })
    }

    /// Waits for the next change.
    async fn next(&mut self) -> io::Result<Bytes> {
        loop {
            let due = self.known.iter().enumerate().min_by_key(|(_, (due, _))| *due);
            let Some((at, due)) = due.map(|(at, (due, _))| (at, *due)) else {
                return Err(io::ErrorKind::NotFound.into());
            };
            sleep_until(due).await;
            let topic = self.topics[at];
            let (pause, now) = match rows(&mut self.wire, topic.sql).await? {
                Ok(rows) => (topic.every, rows),
                Err(fault) => (REFUSED, json!({ "error": fault })),
            };
            let changed = self.known[at].1 != now;
            self.known[at] = (Instant::now() + pause, now);
            if changed {
                self.told = Instant::now();
                let data = &self.known[at].1;
                return Ok(format!("event: {}\ndata: {data}\n\n", topic.name).into());
            }
            if self.told.elapsed() >= ALIVE {
                self.told = Instant::now();
                return Ok(Bytes::from_static(b": still here\n\n"));
            }
        }
    }
}
