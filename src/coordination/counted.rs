//! Counts and times what goes through a client of the store, whichever backend it is.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch as latest;

use super::{Coordination, Mode, Node, Op, Outcome, Result, Scope, Session, Stat, Watch};
use crate::metrics::{Counter, Times, Timing};

/// Seconds over which rates are taken: long enough for a few calls of an idle daemon.
const WINDOW: u64 = 10;

/// Parts of an octave that latencies are told apart by.
const PARTS: u64 = 4;

/// A client with its figures.
#[derive(Debug)]
pub struct Counted {
    inner: Arc<dyn Coordination>,
    since: Instant,
    counts: Mutex<Counts>,
    /// Calls that were answered, by [`Kind`].
    times: [Timing; 2],
    /// Bytes of data.
    sent: Counter,
    received: Counter,
}

#[derive(Debug, Default)]
struct Counts {
    figures: Figures,
    /// Seconds since the start, with reads and writes.
    recent: VecDeque<(u64, [u64; 2])>,
    /// Calls by their latency: see [`place`].
    latencies: Vec<u64>,
}

/// What was counted since the client was made.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    pub reads: u64,
    pub writes: u64,
    /// Of all calls: those that the store did not answer, or could not be asked.
    pub failed: u64,
    /// Over the last ten seconds.
    pub reads_per_second: f64,
    pub writes_per_second: f64,
    pub last_latency: Option<Duration>,
    /// To a quarter of an octave, upward.
    pub p50: Option<Duration>,
    pub p99: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
}

impl Counted {
    pub fn new(inner: Arc<dyn Coordination>) -> Arc<Self> {
        let (counts, times, sent, received) = Default::default();
        Arc::new(Self { inner, since: Instant::now(), counts, times, sent, received })
    }

    /// How long reads and writes took that were answered.
    pub fn times(&self) -> [Times; 2] {
        self.times.each_ref().map(Timing::get)
    }

    /// Bytes of data that were written and read.
    pub fn bytes(&self) -> (u64, u64) {
        (self.sent.get(), self.received.get())
    }

    pub fn figures(&self) -> Figures {
        let now = self.since.elapsed().as_secs();
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).figures(now)
    }

    async fn call<T>(&self, kind: Kind, call: impl Future<Output = Result<T>>) -> Result<T> {
        let begun = Instant::now();
        let answer = call.await;
        let failed = answer.as_ref().is_err_and(super::Error::is_unavailable);
        let (now, took) = (self.since.elapsed().as_secs(), begun.elapsed());
        if !failed {
            self.times[usize::from(kind == Kind::Write)].add(took);
        }
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.add(kind, now, (!failed).then_some(took));
        answer
    }
}

impl Counts {
    /// A call of this second; without a latency it has failed.
    fn add(&mut self, kind: Kind, now: u64, latency: Option<Duration>) {
        let figures = &mut self.figures;
        match kind {
            Kind::Read => figures.reads += 1,
            Kind::Write => figures.writes += 1,
        }
        if self.recent.back().is_none_or(|(second, _)| *second != now) {
            self.recent.push_back((now, [0; 2]));
        }
        if let Some((_, counts)) = self.recent.back_mut() {
            counts[usize::from(kind == Kind::Write)] += 1;
        }
        self.forget(now);
        let Some(latency) = latency else {
            self.figures.failed += 1;
            return;
        };
        self.figures.last_latency = Some(latency);
        let place = place(latency);
        if self.latencies.len() <= place {
            self.latencies.resize(place + 1, 0);
        }
        self.latencies[place] += 1;
    }

    fn forget(&mut self, now: u64) {
        while self.recent.front().is_some_and(|(second, _)| second + WINDOW < now) {
            self.recent.pop_front();
        }
    }

    fn figures(&mut self, now: u64) -> Figures {
        self.forget(now);
        let [reads, writes] =
            self.recent.iter().fold([0; 2], |[reads, writes], (_, [r, w])| [reads + r, writes + w]);
        // The present second is not over yet.
        let seconds = now.clamp(1, WINDOW) as f64;
        Figures {
            reads_per_second: reads as f64 / seconds,
            writes_per_second: writes as f64 / seconds,
            p50: self.quantile(50),
            p99: self.quantile(99),
            ..self.figures
        }
    }

    fn quantile(&self, percent: u64) -> Option<Duration> {
        let all: u64 = self.latencies.iter().sum();
        let wanted = (all * percent).div_ceil(100).max(1);
        let mut seen = 0;
        let found = self.latencies.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        found.map(bound)
    }
}

/// Where a latency is counted: by its octave in microseconds, and the quarter of that.
fn place(latency: Duration) -> usize {
    let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(PARTS);
    let octave = u64::from(micros.ilog2());
    let part = (micros >> (octave - 2)) % PARTS;
    (octave * PARTS + part) as usize
}

/// The latency that is longer than all of a place.
fn bound(place: usize) -> Duration {
    let (octave, part) = (place as u64 / PARTS, place as u64 % PARTS);
    Duration::from_micros((PARTS + part + 1) << octave.saturating_sub(2))
}

#[async_trait]
impl Coordination for Counted {
    async fn create(&self, path: &str, data: Bytes, mode: Mode) -> Result<String> {
        self.sent.add(data.len() as u64);
        self.call(Kind::Write, self.inner.create(path, data, mode)).await
    }

    async fn get(&self, path: &str) -> Result<Option<Node>> {
        let answer = self.call(Kind::Read, self.inner.get(path)).await;
        if let Ok(Some(node)) = &answer {
            self.received.add(node.data.len() as u64);
        }
        answer
    }

    async fn stat(&self, path: &str) -> Result<Option<Stat>> {
        self.call(Kind::Read, self.inner.stat(path)).await
    }

    async fn set(&self, path: &str, data: Bytes, expected: Option<i32>) -> Result<Stat> {
        self.sent.add(data.len() as u64);
        self.call(Kind::Write, self.inner.set(path, data, expected)).await
    }

    async fn delete(&self, path: &str, expected: Option<i32>) -> Result<()> {
        self.call(Kind::Write, self.inner.delete(path, expected)).await
    }

    async fn children(&self, path: &str) -> Result<Vec<String>> {
        self.call(Kind::Read, self.inner.children(path)).await
    }

    async fn transact(&self, ops: Vec<Op>) -> Result<Vec<Outcome>> {
        let data = ops.iter().map(|op| match op {
            Op::Create { data, .. } | Op::Set { data, .. } => data.len() as u64,
            Op::Check { .. } | Op::Delete { .. } => 0,
        });
        self.sent.add(data.sum());
        self.call(Kind::Write, self.inner.transact(ops)).await
    }

    async fn sync(&self) -> Result<()> {
        self.call(Kind::Read, self.inner.sync()).await
    }

    fn watch(&self, path: &str, scope: Scope) -> Watch {
        self.inner.watch(path, scope)
    }

    fn server(&self) -> Option<String> {
        self.inner.server()
    }

    async fn pulse(&self) -> Result<()> {
        self.inner.pulse().await
    }

    fn session(&self) -> latest::Receiver<Session> {
        self.inner.session()
    }

    fn trouble(&self) -> Option<super::Error> {
        self.inner.trouble()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_calls() {
        let mut counts = Counts::default();
        assert_eq!(counts.figures(0), Figures::default());
        let ms = Duration::from_millis;
        for n in 0..100 {
            let latency = if n < 98 { ms(1) } else { ms(100) };
            counts.add(Kind::Read, 3, Some(latency));
        }
        counts.add(Kind::Write, 4, None);
        let figures = counts.figures(4);
        assert_eq!((figures.reads, figures.writes, figures.failed), (100, 1, 1));
        assert_eq!((figures.reads_per_second, figures.writes_per_second), (25.0, 0.25));
        assert_eq!(figures.last_latency, Some(ms(100)));
        let close = |found: Option<Duration>, latency: Duration| {
            found.is_some_and(|found| found >= latency && found <= latency * 5 / 4)
        };
        assert!(close(figures.p50, ms(1)) && close(figures.p99, ms(100)), "{figures:?}");
        // Long ago.
        let figures = counts.figures(100);
        assert_eq!((figures.reads, figures.reads_per_second), (100, 0.0));
    }

    #[test]
    fn latencies_are_told_apart() {
        let mut last = 0;
        for micros in [0, 1, 4, 5, 6, 7, 8, 10, 12, 14, 16, 1000, 1_000_000, u64::MAX] {
            let latency = Duration::from_micros(micros);
            let place = place(latency);
            assert!(place >= last, "{micros}");
            assert!(micros > 1 << 62 || bound(place) > latency, "{micros}: {:?}", bound(place));
            last = place;
        }
    }
}
