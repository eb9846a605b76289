//! What is seen of a statement while it runs and after it: how far it is, what it has read and used,
//! and its plan with what each step has measured.
//!
//! The plan itself is not kept, for it may hold much memory, such as the table of a hash join: it is
//! looked at when its run ends, on the engine's threads. Of a statement on several daemons only this
//! daemon's share is seen: the others do not tell what they have measured, except for EXPLAIN ANALYZE.

use std::fmt::{self, Display, Formatter, Write};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result as EngineResult;
use datafusion::execution::memory_pool::{
    MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::display::DisplayableExecutionPlan;
use datafusion::physical_plan::metrics::MetricValue;

use super::distribution::{is_spread, scan_of, show_spread};
use super::progress::{progress, scans};

/// Steps below each other that a profile shows.
const MAX_DEPTH: usize = 200;

/// What one statement has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Rows that its plan gave.
    pub rows: u64,
    /// Bytes of files that it has read.
    pub scanned: u64,
    /// Bytes that did not fit into memory, on this daemon.
    pub spilled: u64,
    /// Bytes of memory that it has held on this daemon at once.
    pub peak: u64,
    /// How often it ran again because a worker was lost.
    pub retries: u32,
}

/// A plan with what each step has measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// As superusers may see it.
    pub full: String,
    /// As others may: without the values that a plan tells of, see [`explain`](super::explain).
    pub plain: String,
}

/// What is seen of one statement.
#[derive(Debug)]
pub struct Observation {
    /// Runs that take so long get a profile, and those that fail; `None`: only the latter.
    threshold: Option<Duration>,
    rows: AtomicU64,
    retries: AtomicU32,
    used: AtomicUsize,
    peak: AtomicUsize,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// The plan that runs.
    running: Option<Weak<dyn ExecutionPlan>>,
    /// The scans in this daemon's own parts of a spread plan that runs.
    parts: Vec<Arc<dyn ExecutionPlan>>,
    /// The most that was told of how far it is: a plan that runs again does not take that back.
    furthest: Option<f64>,
    scanned: u64,
    spilled: u64,
    workers: Vec<String>,
    profile: Option<Profile>,
}

impl Observation {
    pub fn new(threshold: Option<Duration>) -> Arc<Self> {
        Arc::new(Self {
            threshold,
            rows: AtomicU64::new(0),
            retries: AtomicU32::new(0),
            used: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            seen: Mutex::default(),
        })
    }

    /// A plan is about to run. What it has measured is taken when the guard is dropped, which must
    /// be after the plan's streams.
    pub(super) fn watch(self: &Arc<Self>, plan: &Arc<dyn ExecutionPlan>) -> Watch {
        let mut seen = self.seen();
        seen.running = Some(Arc::downgrade(plan));
        seen.parts.clear();
        drop(seen);
        Watch {
            observation: self.clone(),
            plan: plan.clone(),
            begun: Instant::now(),
            failed: false,
        }
    }

    /// A part of the spread plan that runs is about to run here as well.
    pub(super) fn watch_part(&self, part: &Arc<dyn ExecutionPlan>) {
        let scans = scans(part);
        let mut seen = self.seen();
        if seen.running.is_some() {
            seen.parts.extend(scans);
        }
    }

    pub(super) fn count(&self, rows: usize) {
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
    }

    /// It runs again, for a worker was lost under it.
    pub(super) fn note_retry(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Who takes part, if that is not this daemon alone.
    pub(super) fn set_workers(&self, workers: Vec<String>) {
        self.seen().workers = workers;
    }

    /// What a statement runs with whose memory is counted.
    pub(super) fn of(self: &Arc<Self>, environment: &RuntimeEnv) -> Arc<RuntimeEnv> {
        let inner = environment.memory_pool.clone();
        let pool = Arc::new(Counted { inner, observation: self.clone() });
        Arc::new(RuntimeEnv { memory_pool: pool, ..environment.clone() })
    }

    /// How much of what it reads of files here is read, from 0 to 1; never less than before. `None` as
    /// long as nothing has run that reads files here.
    pub fn progress(&self) -> Option<f64> {
        let (plan, parts) = {
            let seen = self.seen();
            (seen.running.as_ref().and_then(Weak::upgrade), seen.parts.clone())
        };
        let now = plan.and_then(|plan| match is_spread(&plan) {
            true => progress(&parts),
            false => progress(&scans(&plan)),
        });
        let mut seen = self.seen();
        seen.furthest = now.into_iter().chain(seen.furthest).reduce(f64::max);
        seen.furthest
    }

    /// Whether a plan still runs, or ends at this moment.
    pub fn is_running(&self) -> bool {
        self.seen().running.is_some()
    }

    pub fn figures(&self) -> Figures {
        let seen = self.seen();
        Figures {
            rows: self.rows.load(Ordering::Relaxed),
            scanned: seen.scanned,
            spilled: seen.spilled,
            peak: self.peak.load(Ordering::Relaxed) as u64,
            retries: self.retries.load(Ordering::Relaxed),
        }
    }

    pub fn workers(&self) -> Vec<String> {
        self.seen().workers.clone()
    }

    pub fn take_profile(&self) -> Option<Profile> {
        self.seen().profile.take()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// Adds what a plan has measured.
    fn add(&mut self, plan: &Arc<dyn ExecutionPlan>) {
        // The closure never fails.
        let _ = plan.apply(|node| {
            let metrics = node.metrics().unwrap_or_default();
            for metric in metrics.iter() {
                match metric.value() {
                    MetricValue::SpilledBytes(bytes) => self.spilled += bytes.value() as u64,
                    MetricValue::Count { name, count } if name == "bytes_scanned" => {
                        self.scanned += count.value() as u64;
                    }
                    _ => {}
                }
            }
            Ok(TreeNodeRecursion::Continue)
        });
    }
}

/// Held while a plan runs.
#[derive(Debug)]
pub(super) struct Watch {
    observation: Arc<Observation>,
    plan: Arc<dyn ExecutionPlan>,
    begun: Instant,
    failed: bool,
}

impl Watch {
    /// Its run has met an error.
    pub fn fail(mut self) {
        self.failed = true;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let threshold = self.observation.threshold;
        let slow = threshold.is_some_and(|threshold| self.begun.elapsed() >= threshold);
        let profile = (slow || self.failed).then(|| profile(&self.plan));
        let mut seen = self.observation.seen();
        seen.add(&self.plan);
        // A scan measures together with its parts here: these are counted with the plan.
        seen.parts.clear();
        seen.profile = profile.or(seen.profile.take());
        seen.running = None;
    }
}

fn profile(plan: &Arc<dyn ExecutionPlan>) -> Profile {
    let full = match is_spread(plan) {
        true => show_spread(plan.as_ref()),
        false => DisplayableExecutionPlan::with_metrics(plan.as_ref()).indent(false).to_string(),
    };
    // Columns that only the engine knows, such as `_file` and `_pos`.
    Profile { full: full.replace('\u{2}', "_"), plain: Plain(plan.as_ref()).to_string() }
}

/// A plan's steps by name, with what they have measured.
struct Plain<'a>(&'a dyn ExecutionPlan);

impl Display for Plain<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        plain(self.0, 0, f)
    }
}

fn plain(plan: &dyn ExecutionPlan, depth: usize, f: &mut Formatter<'_>) -> fmt::Result {
    if depth > MAX_DEPTH {
        return Ok(());
    }
    write!(f, "{:1$}{2}", "", depth * 2, plan.name())?;
    let mut sign = ": ";
    if let Some(scan) = scan_of(plan) {
        let files: usize = scan.file_groups.iter().map(|group| group.len()).sum();
        write!(f, ": files={files}")?;
        sign = ", ";
    }
    if let Some(metrics) = plan.metrics() {
        let metrics = metrics.aggregate_by_name().sorted_for_display().timestamps_removed();
        write!(f, "{sign}metrics=[{metrics}]")?;
    }
    f.write_char('\n')?;
    plan.children().into_iter().try_for_each(|child| plain(child.as_ref(), depth + 1, f))
}

/// Memory as a statement takes it, counted.
#[derive(Debug)]
struct Counted {
    inner: Arc<dyn MemoryPool>,
    observation: Arc<Observation>,
}

impl Counted {
    fn add(&self, bytes: usize) {
        let Observation { used, peak, .. } = self.observation.as_ref();
        let now = used.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        peak.fetch_max(now, Ordering::Relaxed);
    }
}

impl Display for Counted {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl MemoryPool for Counted {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.inner.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.inner.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.inner.grow(reservation, additional);
        self.add(additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.inner.shrink(reservation, shrink);
        self.observation.used.fetch_sub(shrink, Ordering::Relaxed);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> EngineResult<()> {
        self.inner.try_grow(reservation, additional)?;
        self.add(additional);
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.inner.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.inner.memory_limit()
    }
}
