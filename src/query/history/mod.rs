//! What has become of the statements that clients have run: kept on this daemon's disk, bounded in
//! bytes and age.
//!
//! - [`facts`]: what is known of one statement, from its start on.
//! - [`desk`]: the lines of short statements.
//! - [`queue`]: what has ended and is not written yet.
//! - [`store`]: the files.
//! - [`lost`]: the statements of daemons that have died.
//! - [`tally`]: what all of them together have come to.
//! - [`trace`]: what a collector of traces is told.
//!
//! No statement waits for its history: at its end it is put on a queue, which one task empties every
//! now and then. If that does not get to it, the oldest on the queue are forgotten and counted. Of most
//! statements all is known when they end. Then the thread that has served the client, which has it all at
//! hand, makes the line that is written: a microsecond each time, where another thread would take the
//! processor for milliseconds.
//! Whoever reads the history has that task empty the queue first, so that it has all that has ended
//! before. No reader does so itself: it may go away in the middle. That task is also who asks the other
//! daemons what they have done for a statement of this one's, once that is over.
//!
//! Ids are UUIDs of version 7, unique in the cluster and in the order of time. A statement may be in
//! the history of several daemons: those that have seen its daemon die tell of it as lost.
//! [`merged`] leaves one of them, and what its own daemon says counts more.

mod batch;
mod desk;
mod facts;
mod lost;
mod queue;
mod store;
pub mod tally;
mod trace;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

pub use batch::Kept;
pub use facts::Facts;
use facts::Told;
pub use lost::watch as watch_for_lost;

use super::secrets::without_literals;
use super::sessions::{SessionEntry, cut};
use crate::config;
use crate::engine::observe::complete;
use crate::engine::settings::Settings;
use crate::telemetry;
use crate::traces::Traces;
use batch::{Batch, Ended};
use queue::{Note, Queue};
use store::Store;
use tally::Tally;

/// How long what has ended waits for others to be written with it.
const GATHER: Duration = Duration::from_millis(100);

/// How long after a statement's end what its plan has measured is waited for: one that was stopped
/// may take a moment to leave the engine's threads.
const LINGER: Duration = Duration::from_secs(1);

/// How often segments are looked at that have become too old.
const PRUNE: Duration = Duration::from_secs(600);

/// How often what the disk has not taken is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Bytes of a statement's text in the log, and in its trace.
const LOGGED_TEXT: usize = 1000;

/// What has become of a statement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    #[default]
    Running,
    Finished,
    Failed,
    /// Somebody has stopped it, or its time was up.
    Cancelled,
    /// Its daemon has died.
    Lost,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
        }
    }
}

/// Whether a state, of a submitted query as well, is that of a statement that has ended.
pub fn is_final(state: &str) -> bool {
    matches!(state, "succeeded" | "finished" | "failed" | "cancelled" | "lost")
}

/// A statement in the history. Durations in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    pub id: Uuid,
    pub state: State,
    /// Whose client has asked for it.
    pub daemon: String,
    pub user: String,
    /// The role's OID: another of its name is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<u32>,
    pub database: String,
    pub sql: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub application_name: String,
    /// The command tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<u64>,
    /// Until it had its turn in its pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queued: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub planning: Option<u64>,
    /// All the rest, to the last row that its client has taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution: Option<u64>,
    #[serde(skip_serializing_if = "is_nothing")]
    pub rows: u64,
    #[serde(skip_serializing_if = "is_nothing")]
    pub scanned: u64,
    #[serde(skip_serializing_if = "is_nothing")]
    pub rows_scanned: u64,
    #[serde(skip_serializing_if = "is_nothing")]
    pub spilled: u64,
    #[serde(skip_serializing_if = "is_nothing")]
    pub peak: u64,
    #[serde(skip_serializing_if = "is_none_yet")]
    pub retries: u32,
    /// Who took part, if that was not its daemon alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub workers: Vec<String>,
    /// Of these, who did not tell what they have done: that is missing in the figures.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub silent: Vec<String>,
    /// Whether its profile is kept.
    pub profile: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sqlstate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Those that were not as they are by default when it began.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
}

fn is_nothing(number: &u64) -> bool {
    *number == 0
}

fn is_none_yet(number: &u32) -> bool {
    *number == 0
}

impl Record {
    /// The same statement after its daemon has died.
    fn lost(self) -> Self {
        let error = format!("daemon \"{}\" ended while it ran the statement", self.daemon);
        Self { state: State::Lost, error: Some(error), ..self }
    }
}

/// One record of each statement: if there are several, one that does not only know that it was lost.
pub fn merged(records: impl IntoIterator<Item = Record>) -> Vec<Record> {
    let mut by_id: HashMap<Uuid, Record> = HashMap::new();
    for record in records {
        match by_id.get_mut(&record.id) {
            Some(known) if known.state == State::Lost => *known = record,
            Some(_) => {}
            None => drop(by_id.insert(record.id, record)),
        }
    }
    let mut records: Vec<Record> = by_id.into_values().collect();
    records.sort_by_key(|record| record.id);
    records
}

/// The history of this daemon's statements.
#[derive(Debug)]
pub struct History {
    /// This daemon's id.
    daemon: String,
    directory: PathBuf,
    settings: RwLock<config::History>,
    /// Of these, what each statement looks at: the bytes of lines that are kept together, 0 if none are, and
    /// microseconds from which on a profile is kept and the log has a line.
    room: AtomicUsize,
    profile: AtomicU64,
    slow: AtomicU64,
    /// Bytes of a statement's text.
    text_limit: usize,
    queue: Mutex<Queue>,
    /// Something is on the queue.
    filled: Notify,
    /// Readers that wait until what has ended is written down.
    readers: mpsc::UnboundedSender<Reader>,
    /// Of [`History::run`], which takes it.
    asked: Mutex<Option<mpsc::UnboundedReceiver<Reader>>>,
    /// Opened by whoever needs it first.
    store: tokio::sync::Mutex<Option<Store>>,
    tally: Tally,
    traces: Option<Arc<Traces>>,
}

/// Is answered when it is dropped.
type Reader = oneshot::Sender<()>;

impl History {
    /// Keeps files below `directory`.
    pub fn new(
        daemon: &str,
        directory: PathBuf,
        settings: config::History,
        text_limit: config::Size,
        traces: Option<Arc<Traces>>,
    ) -> Arc<Self> {
        let (readers, asked) = mpsc::unbounded_channel();
        Arc::new(Self {
            daemon: daemon.to_owned(),
            directory,
            room: AtomicUsize::new(Ended::room_in(settings.size.0)),
            profile: AtomicU64::new(in_micros(settings.profile)),
            slow: AtomicU64::new(in_micros(settings.slow)),
            settings: RwLock::new(settings),
            text_limit: usize::try_from(text_limit.0).unwrap_or(usize::MAX),
            queue: Mutex::default(),
            filled: Notify::new(),
            readers,
            asked: Mutex::new(Some(asked)),
            store: tokio::sync::Mutex::default(),
            tally: Tally::default(),
            traces,
        })
    }

    /// Has other settings from now on.
    pub fn change(&self, settings: config::History) {
        let room = Ended::room_in(settings.size.0);
        let (profile, slow) = (in_micros(settings.profile), in_micros(settings.slow));
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
        self.room.store(room, Ordering::Relaxed);
        self.profile.store(profile, Ordering::Relaxed);
        self.slow.store(slow, Ordering::Relaxed);
        // What is too much now goes.
        self.filled.notify_one();
    }

    /// What all statements that have ended came to.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    fn settings(&self) -> config::History {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A statement begins.
    pub(super) fn begin(&self, text: &Arc<str>, settings: &Arc<Settings>) -> Arc<Facts> {
        let profile = Some(self.profile.load(Ordering::Relaxed)).filter(|micros| *micros != NEVER);
        Facts::new(text, settings, Utc::now(), profile.map(Duration::from_micros))
    }

    /// A statement has run for a while and goes on.
    pub(super) fn note_begun(&self, facts: &Facts, session: &SessionEntry) {
        if facts.is_journaled() || !self.is_on() {
            return;
        }
        // Under the lock, so that its end cannot come on the queue before its beginning.
        let mut queue = self.queue();
        let mut record = Record::default();
        facts.tell(&self.daemon, session, self.text_limit, &mut Told::default(), &mut record);
        // Only its end would tell this.
        record.application_name = session.application_name();
        // It may have ended at this moment.
        if record.state == State::Running && !facts.journaled.swap(true, Ordering::Relaxed) {
            self.push(&mut queue, Note::Begun(Box::new(record)));
        }
    }

    /// A statement has ended.
    pub(super) fn note_ended(&self, facts: Arc<Facts>, session: Arc<SessionEntry>) {
        let counts = facts.counts();
        if counts {
            facts.count(&self.tally);
            if facts.observation.is_plain() && self.note_plain(&facts, &session) {
                return;
            }
        }
        let mut queue = self.queue();
        // What it has measured counts whether it is written down or not.
        if counts || facts.is_journaled() {
            self.push(&mut queue, Note::Ended { facts, session, at: Instant::now() });
        }
    }

    /// A statement has ended of which all is known. False if there is more to be done with it than to write it
    /// down.
    fn note_plain(&self, facts: &Facts, session: &SessionEntry) -> bool {
        if self.traces.as_ref().is_some_and(|traces| traces.wants(facts.id)) {
            return false;
        }
        let (room, slow) = (self.room.load(Ordering::Relaxed), self.slow.load(Ordering::Relaxed));
        let tell = |told: &mut Told, record: &mut Record| {
            facts.tell(&self.daemon, session, self.text_limit, told, record);
            record.duration.is_some_and(|took| took < slow)
        };
        let put = |line: &[u8]| {
            let mut queue = self.queue();
            // Its beginning may have been written at this moment.
            if facts.is_journaled() {
                return false;
            }
            // The log was to be looked at all the same.
            if room > 0 {
                self.wake(&queue);
                queue.push_line(line, room);
            }
            true
        };
        let noted = (room == 0 && slow == NEVER) || desk::line(tell, put);
        if noted {
            self.tally.measured(facts.observation.figures());
        }
        noted
    }

    fn note_lost(&self, record: Record) {
        self.push(&mut self.queue(), Note::Lost(Box::new(record.lost())));
    }

    fn is_on(&self) -> bool {
        self.room.load(Ordering::Relaxed) > 0
    }

    fn push(&self, queue: &mut Queue, note: Note) {
        self.wake(queue);
        if let Some(forgotten) = queue.push(note) {
            self.tally.measured(forgotten.observation.figures());
        }
    }

    /// Whoever empties the queue needs to be woken once.
    fn wake(&self, queue: &Queue) {
        if queue.is_empty() {
            self.filled.notify_one();
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down what ends, until `end`. Needed exactly once.
    pub async fn run(self: Arc<Self>, end: CancellationToken) {
        let taken = self.asked.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut asked) = taken else { return };
        let mut readers = Vec::new();
        let mut pruned = Instant::now();
        loop {
            // At first, what was lost with an earlier process.
            let next = if self.write().await { PRUNE } else { RETRY };
            readers.clear();
            if pruned.elapsed() >= PRUNE {
                pruned = Instant::now();
                self.prune().await;
            }
            let gathered = async {
                self.filled.notified().await;
                sleep(GATHER).await;
            };
            tokio::select! {
                () = end.cancelled() => return,
                reader = asked.recv() => readers.extend(reader),
                () = gathered => {}
                () = sleep(next) => {}
            }
            while let Ok(reader) = asked.try_recv() {
                readers.push(reader);
            }
        }
    }

    /// Has all written down that has ended. Cancel safe.
    async fn written(&self) {
        let (reader, answer) = oneshot::channel();
        // Nobody is there to answer any more when the daemon ends.
        if self.readers.send(reader).is_ok() {
            let _ = answer.await;
        }
    }

    /// Writes down all that has ended. Not cancel safe: for [`History::run`], and for the end of the
    /// daemon after it. Whether the disk has taken all.
    pub async fn write(&self) -> bool {
        let Queue { notes, lines, forgotten, closed } = std::mem::take(&mut *self.queue());
        if forgotten > 0 {
            self.tally.forgotten.add(forgotten);
            warn!(forgotten, "statements are missing in the history: too many ended at once");
        }
        join_all(notes.iter().filter_map(|note| match note {
            // Few of them are: the others are not even asked to wait.
            Note::Ended { facts, at, .. } if facts.observation.is_running() => {
                Some(settle(facts, *at + LINGER))
            }
            _ => None,
        }))
        .await;
        complete(notes.iter().filter_map(|note| match note {
            Note::Ended { facts, .. } => Some(&facts.observation),
            _ => None,
        }))
        .await;
        let mut batch = Batch::new(lines, closed);
        let wanted = self.is_on() || self.settings().slow.0.is_some() || self.traces.is_some();
        // One after another is written into the same record, as its line is.
        let (mut told, mut record) = (Told::default(), Record::default());
        for note in notes {
            match note {
                Note::Begun(record) => batch.begun.push(*record),
                Note::Lost(mut record) => batch.end(&mut record, None),
                Note::Ended { facts, session, at: _ } => {
                    self.tally.measured(facts.observation.figures());
                    if !wanted {
                        continue;
                    }
                    facts.tell(&self.daemon, &session, self.text_limit, &mut told, &mut record);
                    self.log_slow(&record, &facts.text);
                    self.trace(&record, &facts.text);
                    batch.end(&mut record, facts.observation.take_profile(&self.daemon));
                }
            }
        }
        let mut store = self.store.lock().await;
        let settings = self.settings();
        let directory = self.directory.clone();
        if settings.size.0 == 0 {
            *store = None;
            // What was kept before goes as well.
            let cleared = tokio::task::spawn_blocking(move || store::clear(&directory)).await;
            return matches!(cleared, Ok(Ok(())));
        }
        let mut opened = store.take();
        let written = tokio::task::spawn_blocking(move || {
            let store = match &mut opened {
                Some(store) => {
                    store.bound(settings.size.0, settings.keep);
                    store
                }
                None => {
                    let (new, lost) = Store::open(directory, settings.size.0, settings.keep);
                    for record in lost {
                        batch.end(&mut record.lost(), None);
                    }
                    opened.insert(new)
                }
            };
            (store.write(batch), opened)
        });
        let (forgotten, written) = written.await.unwrap_or_default();
        *store = written;
        self.tally.forgotten.add(forgotten);
        store.as_ref().is_none_or(|store| !store.is_behind())
    }

    async fn prune(&self) {
        let mut store = self.store.lock().await;
        let Some(open) = store.take() else { return };
        let pruned = tokio::task::spawn_blocking(move || {
            open.prune();
            open
        });
        *store = pruned.await.ok();
    }

    /// Tells a collector of a statement, if there is one and it is sampled.
    fn trace(&self, record: &Record, text: &Arc<str>) {
        if let Some(traces) = self.traces.as_ref().filter(|traces| traces.wants(record.id))
            && let Some(span) = trace::span(record, &self.text_to_tell(text))
        {
            traces.add(span);
        }
    }

    /// The beginning of a text as it may leave the daemon.
    fn text_to_tell(&self, text: &Arc<str>) -> Arc<str> {
        let text = match telemetry::shows_literals() {
            true => text.clone(),
            false => without_literals(text),
        };
        cut(&text, LOGGED_TEXT.min(self.text_limit))
    }

    /// The line in the log of a statement that took long.
    fn log_slow(&self, record: &Record, text: &Arc<str>) {
        let took = Duration::from_micros(record.duration.unwrap_or_default());
        if self.settings().slow.0.is_none_or(|slow| took < slow) {
            return;
        }
        let sql: &str = &self.text_to_tell(text);
        let Record { id, user, database, rows, scanned, rows_scanned, spilled, peak, .. } = record;
        let state = record.state.as_str();
        let (ms, sqlstate) = (took.as_secs_f64() * 1000.0, record.sqlstate.as_deref());
        let names = |names: &[String]| (!names.is_empty()).then(|| names.join(","));
        let (workers, silent) = (names(&record.workers), names(&record.silent));
        info!(
            target: "oribi::slow",
            %id, user, database, state, sqlstate, ms, rows,
            bytes_scanned = scanned, rows_scanned, bytes_spilled = spilled, peak_memory = peak,
            workers, silent_workers = silent, sql, "a slow statement"
        );
    }

    /// The statements that this daemon knows of, by id, with those that were lost on others.
    pub async fn records(&self) -> Vec<Record> {
        self.written().await;
        let unwritten = self.unwritten(|ended| ended.records().collect::<Vec<_>>()).await;
        let directory = self.directory.clone();
        let all = move || merged(store::read(&directory).into_iter().chain(unwritten));
        tokio::task::spawn_blocking(all).await.unwrap_or_default()
    }

    /// The profile of a statement, if it is kept here.
    pub async fn profile(&self, id: Uuid) -> Option<Kept> {
        self.written().await;
        if let Some(kept) = self.unwritten(|ended| ended.profile_of(id)).await.pop() {
            return Some(kept);
        }
        let directory = self.directory.clone();
        let found = tokio::task::spawn_blocking(move || store::find_profile(&directory, id));
        found.await.ok().flatten()
    }

    /// Of what the disk has not taken yet.
    async fn unwritten<T, I: IntoIterator<Item = T>>(&self, of: impl Fn(&Ended) -> I) -> Vec<T> {
        let store = self.store.lock().await;
        store.iter().flat_map(|store| store.unwritten()).flat_map(of).collect()
    }
}

/// No statement runs so long.
const NEVER: u64 = u64::MAX;

fn in_micros(limit: config::Limit) -> u64 {
    limit.0.map_or(NEVER, |limit| u64::try_from(limit.as_micros()).unwrap_or(NEVER))
}

/// Where the files are, below a data directory.
pub fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join("history")
}

/// Waits for what a statement's plan has measured, as long as that may still come.
async fn settle(facts: &Facts, deadline: Instant) {
    while facts.observation.is_running() && Instant::now() < deadline {
        sleep(Duration::from_millis(5)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    fn history(directory: &Path) -> Arc<History> {
        let (size, keep) = (config::Size(1 << 20), Duration::from_secs(3600));
        let none = config::Limit(None);
        let settings = config::History { size, keep, profile: none, slow: none };
        History::new("a", directory.to_owned(), settings, config::Size(1000), None)
    }

    fn note(history: &History, number: u128) {
        let record = Record { id: Uuid::from_u128(number), ..Record::default() };
        history.note_lost(record);
    }

    #[tokio::test]
    async fn a_reader_that_goes_away_takes_nothing_with_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let history = history(directory.path());
        let end = CancellationToken::new();
        let work = async {
            for number in 1..=20 {
                note(&history, number);
                let mut reader = Box::pin(history.records());
                // It leaves ever later.
                for _ in 0..number {
                    let polled = reader.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                    if polled.is_ready() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
            }
            let ids: Vec<u128> = history.records().await.iter().map(|r| r.id.as_u128()).collect();
            assert_eq!(ids, (1..=20).collect::<Vec<_>>());
            end.cancel();
        };
        tokio::join!(history.clone().run(end.clone()), work);
        // Nobody answers any more, and nobody waits for it.
        note(&history, 21);
        assert_eq!(history.records().await.len(), 20);
        history.write().await;
        assert_eq!(history.records().await.len(), 21);
    }
}
