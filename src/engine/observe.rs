//! What is seen of a statement while it runs and after it: how far it is, what it has read and used,
//! and its plan with what each step has measured.
//!
//! The plan itself is not kept, for it may hold much memory, such as the table of a hash join: it is
//! looked at when its run ends, on the engine's threads. Of a statement on several daemons each sees
//! its share: see [`figures`](super::distribution) there for how the shares come together.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter, Write};
use std::ops::AddAssign;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::display::DisplayableExecutionPlan;
use datafusion::physical_plan::metrics::MetricValue;
use serde::{Deserialize, Serialize};
use tracing::Span;
use uuid::Uuid;

pub use super::distribution::complete;
use super::distribution::{Attempt, is_spread, scan_of, show_spread};
use super::progress::{Progress, scans};
use super::usage::Usage;
use crate::telemetry;

/// Steps below each other that a profile shows.
const MAX_DEPTH: usize = 200;

/// What one statement has used, on one daemon or on all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Bytes of files that it has read.
    pub scanned: u64,
    /// Rows in there, those included that a filter of the scan took out.
    pub rows_scanned: u64,
    /// Bytes that did not fit into memory.
    pub spilled: u64,
    /// Bytes of memory that it has held at once; of several daemons the sum.
    pub peak: u64,
}

impl AddAssign for Figures {
    fn add_assign(&mut self, other: Self) {
        self.scanned += other.scanned;
        self.rows_scanned += other.rows_scanned;
        self.spilled += other.spilled;
        self.peak += other.peak;
    }
}

impl Display for Figures {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { scanned, rows_scanned, spilled, peak } = self;
        write!(
            f,
            "bytes_scanned={scanned}, rows_scanned={rows_scanned}, bytes_spilled={spilled}, \
             peak_memory={peak}"
        )
    }
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
    /// The statement's, on all daemons.
    id: Uuid,
    /// Runs that take so long get a profile, and those that fail; `None`: only the latter.
    threshold: Option<Duration>,
    rows: AtomicU64,
    retries: AtomicU32,
    usage: Arc<Usage>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// The plan that runs.
    running: Option<Weak<dyn ExecutionPlan>>,
    /// How often a plan has begun.
    runs: u64,
    /// Scans in parts of it that run here.
    parts: Vec<Arc<Scans>>,
    /// How far those parts of the present run are that have ended.
    passed: Progress,
    /// How far the present run is on other daemons, and the bytes that were read there, as these have
    /// told.
    elsewhere: BTreeMap<String, (Progress, u64)>,
    /// The most that was told of how far it is: a plan that runs again does not take that back.
    furthest: Option<f64>,
    /// Of what has ended: bytes, and rows.
    scanned: (u64, u64),
    workers: Vec<String>,
    /// Its runs on several daemons of which these have not been asked what they have done.
    attempts: Vec<Attempt>,
    /// What other daemons have done for it; `None` of those that did not tell.
    others: BTreeMap<String, Option<Figures>>,
    profile: Option<Profile>,
}

/// What a part of a plan reads.
#[derive(Debug)]
struct Scans {
    /// In which run of the plan.
    run: u64,
    nodes: Vec<Arc<dyn ExecutionPlan>>,
}

/// Held as long as anybody has a part of a plan.
#[derive(Debug)]
pub(super) struct PartWatch {
    observation: Arc<Observation>,
    scans: Arc<Scans>,
}

impl Observation {
    pub fn new(id: Uuid, threshold: Option<Duration>) -> Arc<Self> {
        Arc::new(Self {
            id,
            threshold,
            rows: AtomicU64::new(0),
            retries: AtomicU32::new(0),
            usage: Arc::default(),
            seen: Mutex::default(),
        })
    }

    pub(super) fn id(&self) -> Uuid {
        self.id
    }

    /// What is logged within it says which statement it is about.
    pub fn span(&self) -> Span {
        telemetry::statement(self.id)
    }

    /// A plan is about to run. What it has measured is taken when the guard is dropped, which must
    /// be after the plan's streams.
    pub(super) fn watch(self: &Arc<Self>, plan: &Arc<dyn ExecutionPlan>) -> Watch {
        let mut seen = self.seen();
        seen.running = Some(Arc::downgrade(plan));
        seen.runs += 1;
        seen.passed = Progress::default();
        seen.elsewhere.clear();
        drop(seen);
        Watch {
            observation: self.clone(),
            plan: plan.clone(),
            begun: Instant::now(),
            failed: false,
        }
    }

    /// A part of a spread plan is about to run here. What it has read counts at once, and for good when
    /// the guard is dropped.
    pub(super) fn watch_part(self: &Arc<Self>, part: &Arc<dyn ExecutionPlan>) -> PartWatch {
        let nodes = scans(part);
        let mut seen = self.seen();
        let scans = Arc::new(Scans { run: seen.runs, nodes });
        seen.parts.push(scans.clone());
        drop(seen);
        PartWatch { observation: self.clone(), scans }
    }

    pub(super) fn count(&self, rows: usize) {
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
    }

    /// It runs again, for a worker was lost under it.
    pub(super) fn note_retry(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Who takes part, if that is not this daemon alone.
    pub(super) fn note_spread(&self, workers: Vec<String>, attempt: Attempt) {
        let mut seen = self.seen();
        seen.workers = workers;
        seen.attempts.push(attempt);
    }

    /// Its runs on several daemons, as far as they have not been taken before.
    pub(super) fn take_attempts(&self) -> Vec<Attempt> {
        std::mem::take(&mut self.seen().attempts)
    }

    /// The one that was begun last, and is not taken.
    pub(super) fn last_attempt(&self) -> Option<Attempt> {
        self.seen().attempts.last().cloned()
    }

    /// What another daemon has done for it in one of its runs; `None` if it did not tell.
    pub(super) fn note_share(&self, daemon: &str, share: Option<Figures>) {
        let mut seen = self.seen();
        let known = seen.others.entry(daemon.to_owned()).or_insert(Some(Figures::default()));
        *known = match (known.take(), share) {
            (Some(mut sum), Some(share)) => {
                sum += share;
                Some(sum)
            }
            _ => None,
        };
    }

    /// How far its present run is on another daemon, and the bytes that it has read there.
    pub(super) fn note_elsewhere(&self, daemon: &str, progress: Progress, scanned: u64) {
        self.seen().elsewhere.insert(daemon.to_owned(), (progress, scanned));
    }

    /// What a statement runs with whose memory and disk are counted.
    pub(super) fn of(&self, environment: &RuntimeEnv) -> Arc<RuntimeEnv> {
        self.usage.of(environment)
    }

    /// How much of what it reads of files is read, from 0 to 1; never less than before. `None` as long
    /// as nothing has run that reads files, or it is not known of all daemons.
    pub fn progress(&self) -> Option<f64> {
        let plan = self.seen().running.as_ref().and_then(Weak::upgrade);
        let now = plan.and_then(|plan| match is_spread(&plan) {
            true => self.everywhere().part(),
            false => Progress::of(&scans(&plan)).part(),
        });
        let mut seen = self.seen();
        seen.furthest = now.into_iter().chain(seen.furthest).reduce(f64::max);
        seen.furthest
    }

    /// How far its present run is on all daemons together; nothing as long as not all have told.
    fn everywhere(&self) -> Progress {
        let mut progress = self.here();
        let seen = self.seen();
        let others = seen.attempts.last().map_or(0, |attempt| attempt.others.len());
        if seen.elsewhere.len() < others {
            return Progress::default();
        }
        seen.elsewhere.values().for_each(|(told, _)| progress += *told);
        progress
    }

    /// How far those parts of its present run are that run here.
    pub(super) fn here(&self) -> Progress {
        let (parts, run, mut progress) = {
            let seen = self.seen();
            (seen.parts.clone(), seen.runs, seen.passed)
        };
        let present = parts.iter().filter(|scans| scans.run == run);
        progress += Progress::of(present.flat_map(|scans| &scans.nodes));
        progress
    }

    /// Whether a plan still runs, or ends at this moment.
    pub fn is_running(&self) -> bool {
        self.seen().running.is_some()
    }

    /// Whether all is known of it, and it has no profile: nothing runs any more, and nobody took part but this
    /// daemon.
    pub fn is_plain(&self) -> bool {
        let Seen { running, workers, attempts, others, profile, .. } = &*self.seen();
        let alone = workers.is_empty() && attempts.is_empty() && others.is_empty();
        alone && running.is_none() && profile.is_none()
    }

    /// What it has used on this daemon.
    pub(super) fn share(&self) -> Figures {
        let seen = self.seen();
        let (mut scanned, mut rows_scanned) = seen.scanned;
        for (bytes, rows) in seen.parts.iter().flat_map(|scans| &scans.nodes).map(read_by) {
            (scanned, rows_scanned) = (scanned + bytes, rows_scanned + rows);
        }
        let (spilled, peak) = (self.usage.spilled(), self.usage.peak());
        Figures { scanned, rows_scanned, spilled, peak }
    }

    /// What it has used on all daemons, as far as they have told: see [`complete`].
    pub fn figures(&self) -> Figures {
        let mut figures = self.share();
        self.seen().others.values().flatten().for_each(|share| figures += *share);
        figures
    }

    /// Bytes that it has read so far, what runs still included; on other daemons, when these were asked
    /// last.
    pub fn scanned(&self) -> u64 {
        let plan = self.seen().running.as_ref().and_then(Weak::upgrade);
        // Of a plan on several daemons the parts count that run here.
        let running = plan.filter(|plan| !is_spread(plan)).map(|plan| scans(&plan));
        let running = running.iter().flatten().map(|scan| read_by(scan).0);
        let elsewhere: u64 = self.seen().elsewhere.values().map(|(_, scanned)| scanned).sum();
        self.share().scanned + running.sum::<u64>() + elsewhere
    }

    /// Rows that its plan gave.
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// How often it ran again because a worker was lost.
    pub fn retries(&self) -> u32 {
        self.retries.load(Ordering::Relaxed)
    }

    pub fn workers(&self) -> Vec<String> {
        self.seen().workers.clone()
    }

    /// Those who have worked on it and did not tell what they have done.
    pub fn silent(&self) -> Vec<String> {
        let seen = self.seen();
        let silent = seen.others.iter().filter(|(_, share)| share.is_none());
        silent.map(|(daemon, _)| daemon.clone()).collect()
    }

    /// The profile, if there is one, with the shares of all daemons above it if there were several.
    /// `own` is the name of this one.
    pub fn take_profile(&self, own: &str) -> Option<Profile> {
        let mut profile = self.seen().profile.take()?;
        let mut shares: BTreeMap<String, Option<Figures>> = self.seen().others.clone();
        if shares.is_empty() {
            return Some(profile);
        }
        shares.insert(own.to_owned(), Some(self.share()));
        let lines = shares.iter().map(|(daemon, share)| match share {
            Some(share) => format!("Daemon {daemon}: {share}\n"),
            None => format!("Daemon {daemon}: did not tell\n"),
        });
        let lines: String = lines.collect();
        for text in [&mut profile.full, &mut profile.plain] {
            text.insert_str(0, &lines);
        }
        Some(profile)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// Counts what was read.
    fn add(&mut self, scans: &[Arc<dyn ExecutionPlan>]) {
        for (bytes, rows) in scans.iter().map(read_by) {
            self.scanned.0 += bytes;
            self.scanned.1 += rows;
        }
    }
}

impl Drop for PartWatch {
    fn drop(&mut self) {
        let progress = Progress::of(&self.scans.nodes);
        let mut seen = self.observation.seen();
        seen.add(&self.scans.nodes);
        seen.parts.retain(|scans| !Arc::ptr_eq(scans, &self.scans));
        if self.scans.run == seen.runs {
            seen.passed += progress;
        }
    }
}

/// Bytes and rows that a scan has read of its files.
fn read_by(scan: &Arc<dyn ExecutionPlan>) -> (u64, u64) {
    let (mut bytes, mut rows) = (0, 0);
    for metric in scan.metrics().unwrap_or_default().iter() {
        match metric.value() {
            MetricValue::OutputRows(count) => rows += count.value() as u64,
            MetricValue::Count { name, count } => match name.as_ref() {
                "pushdown_rows_pruned" => rows += count.value() as u64,
                "bytes_scanned" => bytes += count.value() as u64,
                _ => {}
            },
            _ => {}
        }
    }
    (bytes, rows)
}

/// The steps of a plan that read files, those included that read again what others have read.
fn all_scans(plan: &Arc<dyn ExecutionPlan>) -> Vec<Arc<dyn ExecutionPlan>> {
    let mut scans = Vec::new();
    // The closure never fails.
    let _ = plan.apply(|node| {
        scans.extend(scan_of(node.as_ref()).map(|_| node.clone()));
        Ok(TreeNodeRecursion::Continue)
    });
    scans
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
        seen.add(&all_scans(&self.plan));
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
