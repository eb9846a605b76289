//! What the parts of one schedule share: the store, the chance that decides, the trace, and what was
//! found wrong.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hasher};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use oribi::coordination::embedded::{EmbeddedSession, EmbeddedStore, Options};
use oribi::coordination::{Coordination, Mode, Node, Op, Outcome, Result};
use tokio::task::AbortHandle;

use crate::link::{Link, REQUEST_TIMEOUT, SESSION_TIMEOUT};
use crate::mutations::Mutation;
use crate::world::{self, Chance};

/// One schedule.
pub struct Sim {
    pub store: Arc<EmbeddedStore>,
    pub mutation: Option<Mutation>,
    /// Where the daemons' data directories are.
    pub directory: PathBuf,
    /// A session of nobody's, that meets no faults.
    observer: Arc<EmbeddedSession>,
    /// Sessions of daemons that have ended, until the schedule does.
    kept: Mutex<Vec<Arc<EmbeddedSession>>>,
    chance: Mutex<Chance>,
    trace: Mutex<Trace>,
    judges: Mutex<Vec<Arc<Judge>>>,
    violation: Mutex<Option<String>>,
    calm: AtomicBool,
    calls: AtomicU64,
    /// Lines of the trace that are kept; none is written if this is 0.
    kept_lines: usize,
}

/// Looks at what the store has just done.
type Judge = dyn Fn(&Sim, &Event<'_>) + Send + Sync;

/// What the store has just done.
pub enum Event<'a> {
    Write(&'a Write<'a>),
    /// It has ended a session, and what was ephemeral in it is gone.
    Expired(&'a Link),
    /// The reply to a write of this operation was lost.
    Doubt(u64),
}

/// A write that was carried out or refused.
pub struct Write<'a> {
    pub link: &'a Link,
    /// As the daemon has asked for them.
    pub ops: &'a [Op],
    /// What was at their paths.
    pub before: Vec<Option<Node>>,
    pub done: &'a Result<Vec<Outcome>>,
    /// The operation of the schedule that it is a part of.
    pub operation: Option<u64>,
}

tokio::task_local! {
    /// The operation of the schedule that is under way in this task.
    pub static OPERATION: u64;
}

#[derive(Default)]
struct Trace {
    hasher: DefaultHasher,
    lines: VecDeque<String>,
}

/// What became of a schedule.
pub struct Verdict {
    pub violation: Option<String>,
    /// Of all lines of the trace, where one was written.
    pub hash: u64,
    /// The last of them.
    pub lines: Vec<String>,
    /// Calls of the store.
    pub calls: u64,
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sim {
    pub fn new(
        seed: u64,
        mutation: Option<Mutation>,
        directory: &Path,
        kept_lines: usize,
    ) -> Arc<Self> {
        let store = EmbeddedStore::in_memory().expect("a store");
        let observer = store.connect(options());
        Arc::new(Self {
            store,
            mutation,
            directory: directory.to_owned(),
            observer,
            kept: Mutex::default(),
            chance: Mutex::new(Chance::new(seed)),
            trace: Mutex::default(),
            judges: Mutex::default(),
            violation: Mutex::default(),
            calm: AtomicBool::new(false),
            calls: AtomicU64::new(0),
            kept_lines,
        })
    }

    /// A number less than `bound`.
    pub fn below(&self, bound: u64) -> u64 {
        lock(&self.chance).next() % bound.max(1)
    }

    /// True in so many of a hundred cases.
    pub fn happens(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Milliseconds between these two.
    pub fn between(&self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.below(most - least + 1))
    }

    /// One of them.
    pub fn pick<'a, T>(&self, all: &'a [T]) -> &'a T {
        &all[usize::try_from(self.below(all.len() as u64)).expect("an index")]
    }

    /// Writes a line of the trace.
    pub fn tell(&self, line: impl FnOnce() -> String) {
        if self.kept_lines == 0 {
            return;
        }
        let line = format!("{:>6} {}", world::now(), line());
        let mut trace = lock(&self.trace);
        trace.hasher.write(line.as_bytes());
        if trace.lines.len() == self.kept_lines {
            trace.lines.pop_front();
        }
        trace.lines.push_back(line);
    }

    /// Something is wrong: the first thing that is counts.
    pub fn violated(&self, what: String) {
        self.tell(|| format!("WRONG: {what}"));
        if !self.is_over() {
            *lock(&self.violation) = Some(what);
        }
    }

    pub fn is_over(&self) -> bool {
        lock(&self.violation).is_some()
    }

    /// No faults from now on.
    pub fn calm(&self) {
        self.tell(|| "no faults from now on".to_owned());
        self.calm.store(true, Ordering::Relaxed);
    }

    pub fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    pub fn number(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed)
    }

    /// Has all events looked at.
    pub fn add_judge(&self, judge: impl Fn(&Sim, &Event<'_>) + Send + Sync + 'static) {
        lock(&self.judges).push(Arc::new(judge));
    }

    pub fn judge(&self, event: &Event<'_>) {
        let judges = lock(&self.judges).clone();
        for judge in judges {
            judge(self, event);
        }
    }

    /// A new session with the store.
    pub fn connect(&self) -> Arc<EmbeddedSession> {
        let session = self.store.connect(options());
        lock(&self.kept).push(session.clone());
        session
    }

    /// A node as it is.
    pub fn node(&self, path: &str) -> Option<Node> {
        let read = self.observer.get(path).now_or_never();
        // A path that ends in a slash is of a node whose name the store makes up.
        read.expect("it is in memory").ok().flatten()
    }

    /// A node's children; none if it is not there.
    pub fn children(&self, path: &str) -> Vec<String> {
        let read = self.observer.children(path).now_or_never();
        read.expect("it is in memory").unwrap_or_default()
    }

    /// Makes a node before the daemons start.
    pub fn make(&self, path: &str) {
        let made = self.observer.create(path, bytes::Bytes::new(), Mode::Persistent);
        at_once(made).expect("a new node");
    }

    /// Runs a task until the schedule's end. Its panic is a violation.
    pub fn spawn(
        self: &Arc<Self>,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> AbortHandle {
        let sim = self.clone();
        let task = async move {
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                sim.violated(format!("panicked: {name}"));
            }
        };
        tokio::spawn(task).abort_handle()
    }

    /// Waits, unless something was found wrong.
    pub async fn wait(&self, time: Duration) {
        let end = tokio::time::Instant::now() + time;
        while !self.is_over() && tokio::time::Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until a condition holds; without success within the time that is a violation.
    pub async fn wait_until(&self, bound: Duration, wrong: impl Fn() -> Option<String>) {
        let end = tokio::time::Instant::now() + bound;
        while let Some(what) = wrong() {
            if self.is_over() {
                return;
            }
            if tokio::time::Instant::now() > end {
                return self.violated(format!("{what}, {bound:?} after the last fault"));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub fn verdict(&self) -> Verdict {
        lock(&self.judges).clear();
        let trace = std::mem::take(&mut *lock(&self.trace));
        Verdict {
            violation: lock(&self.violation).clone(),
            hash: trace.hasher.finish(),
            lines: trace.lines.into(),
            calls: self.calls.load(Ordering::Relaxed),
        }
    }
}

/// Carries out a call of the embedded store, or of files in memory, while the world stands still.
pub fn at_once<T>(call: impl Future<Output = T>) -> T {
    futures::executor::block_on(tokio::task::unconstrained(call))
}

fn options() -> Options {
    Options { session_timeout: SESSION_TIMEOUT, request_timeout: REQUEST_TIMEOUT }
}
