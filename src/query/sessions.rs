//! All client sessions of this daemon, by the process id their clients were told.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tracing::Span;
use uuid::Uuid;

use super::history::{Facts, History};
use super::{Notice, Stop, TransactionState};
use crate::catalog::Role;
use crate::tls::Tls;

/// Bits of a process id that count a daemon's sessions; the 15 above them tell daemons apart.
const COUNTER_BITS: u32 = 16;

/// Bytes of a statement's text that `pg_stat_activity` shows: PostgreSQL's
/// `track_activity_query_size`, which counts a zero byte at the end.
pub const SHOWN_TEXT: usize = 1023;

/// Bytes of a session's `application_name` that are shown, as in PostgreSQL.
const SHOWN_NAME: usize = 63;

/// The table of sessions.
#[derive(Debug)]
pub struct Sessions {
    by_pid: Mutex<HashMap<i32, Arc<SessionEntry>>>,
    next: AtomicI32,
    prefix: u16,
    history: Arc<History>,
    /// All are ended, and those that are opened from now on with them.
    ending: AtomicBool,
}

/// What others may know of a session, and do to it.
#[derive(Debug)]
pub struct SessionEntry {
    pub pid: i32,
    pub user: String,
    /// The OID of that role.
    pub owner: u32,
    pub database: String,
    /// Where the client is.
    pub client: SocketAddr,
    /// How the connection is encrypted, if it is.
    pub tls: Option<Arc<Tls>>,
    /// The address it has connected to.
    pub server: OnceLock<SocketAddr>,
    /// The submitted query that it carries out, and which attempt at it that is.
    pub attempt: OnceLock<(String, u32)>,
    /// Set if what it runs is in no list and no history.
    pub unlisted: OnceLock<()>,
    pub started: DateTime<Utc>,
    /// Ends when the session is to end.
    pub terminated: CancellationToken,
    /// Ends when the session has ended.
    pub gone: CancellationToken,
    history: Arc<History>,
    live: Mutex<Live>,
}

/// What changes with each statement. Its lock is the session's own: others take it only to look.
#[derive(Debug)]
struct Live {
    application_name: String,
    transaction: TransactionState,
    /// When the transaction block began.
    block_since: Option<DateTime<Utc>>,
    current: Option<Current>,
    /// Portals that the client has left open.
    suspended: Vec<Current>,
    /// The statement that ended last, and when it had begun.
    last: Option<(Arc<str>, DateTime<Utc>)>,
    changed: DateTime<Utc>,
    /// The statement that ended last, as long as its client may yet be told what came of it.
    ended: Option<Arc<Facts>>,
    /// What statements want their client to be told.
    warnings: Vec<Notice>,
}

/// The statement a session runs.
#[derive(Clone, Debug)]
struct Current {
    id: Uuid,
    facts: Arc<Facts>,
    /// Cut to what is shown of it.
    text: Arc<str>,
    since: DateTime<Utc>,
    stop: Stopper,
    pool: Option<Arc<str>>,
    /// Whether it waits there.
    waits: bool,
}

/// What one session may do to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Signal {
    /// Stops what it runs.
    Cancel,
    /// Ends it.
    Terminate,
}

/// How a running statement is told to stop. The first reason counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Stopper {
    token: CancellationToken,
    reason: Arc<Mutex<Option<Stop>>>,
}

impl Stopper {
    pub fn stop(&self, reason: Stop) {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
        self.token.cancel();
    }

    /// Waits for the reason. Cancel safe.
    pub async fn stopped(&self) -> Stop {
        self.token.cancelled().await;
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or(Stop::Cancelled)
    }
}

/// A session as `pg_stat_activity` shows it.
#[derive(Clone, Debug)]
pub struct Activity {
    pub session: Arc<SessionEntry>,
    pub application_name: String,
    /// Whether it runs a statement.
    pub active: bool,
    /// Whether that waits in its pool's queue.
    pub waits: bool,
    pub transaction: TransactionState,
    /// When its transaction began, if there is one.
    pub transaction_since: Option<DateTime<Utc>>,
    /// The statement that runs, or else the last, and when it began.
    pub statement: Option<(Arc<str>, DateTime<Utc>)>,
    /// When a statement has begun or ended last.
    pub changed: DateTime<Utc>,
}

/// The prefix of a daemon's process ids; `None` for what no daemon has told a client.
pub fn prefix_of(pid: i32) -> Option<u16> {
    u16::try_from(pid >> COUNTER_BITS).ok()
}

impl Sessions {
    /// `prefix`, of 15 bits, makes process ids of different daemons different.
    pub fn new(prefix: u16, history: Arc<History>) -> Self {
        let (by_pid, next, ending) = (Mutex::default(), AtomicI32::new(1), AtomicBool::new(false));
        Self { by_pid, next, prefix, history, ending }
    }

    /// Opens a session. It is in the table until the guard is dropped.
    pub fn open(
        self: &Arc<Self>,
        role: &Role,
        database: &str,
        client: SocketAddr,
        tls: Option<Arc<Tls>>,
    ) -> SessionGuard {
        let mut by_pid = self.by_pid.lock().unwrap_or_else(PoisonError::into_inner);
        let pid = loop {
            let count = self.next.fetch_add(1, Ordering::Relaxed) & ((1 << COUNTER_BITS) - 1);
            let pid = i32::from(self.prefix & 0x7fff) << COUNTER_BITS | count;
            if pid != 0 && !by_pid.contains_key(&pid) {
                break pid;
            }
        };
        let started = Utc::now();
        let entry = Arc::new(SessionEntry {
            pid,
            user: role.name.clone(),
            owner: role.record.oid,
            database: database.to_owned(),
            client,
            tls,
            server: OnceLock::new(),
            attempt: OnceLock::new(),
            unlisted: OnceLock::new(),
            started,
            terminated: CancellationToken::new(),
            gone: CancellationToken::new(),
            history: self.history.clone(),
            live: Mutex::new(Live::new(started)),
        });
        by_pid.insert(pid, entry.clone());
        if self.ending.load(Ordering::Relaxed) {
            entry.terminated.cancel();
        }
        SessionGuard { sessions: self.clone(), entry }
    }

    pub fn count(&self) -> usize {
        self.by_pid.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether a process id is one that this daemon gives to its clients.
    pub fn gives(&self, pid: i32) -> bool {
        prefix_of(pid) == Some(self.prefix)
    }

    pub fn find(&self, pid: i32) -> Option<Arc<SessionEntry>> {
        self.by_pid.lock().unwrap_or_else(PoisonError::into_inner).get(&pid).cloned()
    }

    /// Ends all sessions, for good: who was let in before and has none yet gets one that has ended.
    pub fn terminate_all(&self) {
        self.ending.store(true, Ordering::Relaxed);
        // Of the lock that comes next: a session that is not among these has seen it.
        for entry in self.all() {
            entry.stop(Stop::ShuttingDown);
            entry.terminated.cancel();
        }
    }

    /// All sessions by process id.
    pub fn activity(&self) -> Vec<Activity> {
        let mut entries = self.all();
        entries.sort_by_key(|entry| entry.pid);
        entries.into_iter().map(SessionEntry::activity).collect()
    }

    fn all(&self) -> Vec<Arc<SessionEntry>> {
        self.by_pid.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

impl SessionEntry {
    pub(super) fn begin(self: &Arc<Self>, facts: &Arc<Facts>) -> Stopper {
        let stop = Stopper::default();
        // Between two statements of one message nobody else looks.
        if self.terminated.is_cancelled() {
            stop.stop(Stop::Terminated);
        }
        let (text, stop_it) = (cut(&facts.text, SHOWN_TEXT), stop.clone());
        let (id, since, facts) = (facts.id, facts.started, facts.clone());
        let (pool, waits) = (None, false);
        let current = Current { id, facts, text, since, stop: stop_it, pool, waits };
        let mut live = self.live();
        live.changed = since;
        live.current = Some(current);
        let ended = live.ended.take();
        drop(live);
        self.tell(ended);
        stop
    }

    pub(super) fn end(self: &Arc<Self>, id: Uuid) {
        let mut live = self.live();
        let suspended = live.suspended.iter().position(|other| other.id == id);
        let suspended = suspended.map(|at| live.suspended.swap_remove(at));
        let Some(Current { facts, pool, .. }) = live.take_off(id).or(suspended) else { return };
        facts.end(pool, &live.application_name);
        let mut ended = live.ended.replace(facts);
        if self.gone.is_cancelled() {
            ended = live.ended.take();
        }
        drop(live);
        self.tell(ended);
    }

    /// The client was told that its statement is complete.
    pub fn completed(&self, tag: &str) {
        self.told(|facts| facts.complete(tag));
    }

    /// The client was told that its statement has failed.
    pub fn failed(&self, sqlstate: &str, message: &str) {
        self.told(|facts| facts.fail(sqlstate, message));
    }

    /// The client has gone away, perhaps in the midst of its statement.
    pub fn abandoned(&self) {
        self.told(Facts::abandon);
    }

    /// What is logged within it names the statement that the session runs, or else the last.
    pub fn span(&self) -> Span {
        let live = self.live();
        let current = live.current.as_ref().map(|current| &current.facts);
        let facts = current.or(live.ended.as_ref());
        facts.map_or_else(Span::none, |facts| facts.observation.span())
    }

    fn told(&self, note: impl FnOnce(&Facts)) {
        let live = self.live();
        let current = live.current.as_ref().map(|current| &current.facts);
        if let Some(facts) = current.or(live.ended.as_ref()) {
            note(facts);
        }
    }

    /// Another message begins: what fails in it is not a statement that was carried out before. One
    /// that was only understood fails with its values.
    pub fn next_message(self: &Arc<Self>) {
        let ended = self.live().ended.take_if(|facts| facts.counts());
        self.tell(ended);
    }

    /// The client was told all there is to say of what has ended.
    pub(super) fn settle(self: &Arc<Self>) {
        let ended = self.live().ended.take();
        self.tell(ended);
    }

    /// Puts a statement that has ended into the history.
    fn tell(self: &Arc<Self>, ended: Option<Arc<Facts>>) {
        if let Some(facts) = ended.filter(|_| self.unlisted.get().is_none()) {
            self.history.note_ended(facts, self.clone());
        }
    }

    /// A portal is left open: what the session runs may be another statement now.
    pub(super) fn suspend(&self, id: Uuid) {
        let mut live = self.live();
        if let Some(current) = live.take_off(id) {
            live.suspended.push(current);
        }
    }

    /// A portal is read on; false if it was not suspended.
    pub(super) fn resume(&self, id: Uuid) -> bool {
        let mut live = self.live();
        let Some(at) = live.suspended.iter().position(|other| other.id == id) else { return false };
        let since = Utc::now();
        let current = Current { since, ..live.suspended.swap_remove(at) };
        live.changed = since;
        live.current = Some(current);
        true
    }

    /// Tells of the pool that a statement is in, and whether it waits there.
    pub(super) fn set_pool(&self, id: Uuid, pool: Option<&Arc<str>>, waits: bool) {
        let mut live = self.live();
        if let Some(current) = live.current.as_mut().filter(|current| current.id == id) {
            (current.pool, current.waits) = (pool.cloned(), waits);
        }
    }

    /// The pool that a statement is in, and whether it waits there.
    pub(super) fn pool_of(&self, id: Uuid) -> (Option<Arc<str>>, bool) {
        let live = self.live();
        let statement = live.current.iter().chain(&live.suspended).find(|one| one.id == id);
        statement.map(|one| (one.pool.clone(), one.waits)).unwrap_or_default()
    }

    pub(super) fn application_name(&self) -> String {
        self.live().application_name.clone()
    }

    pub(super) fn set_application_name(&self, name: &str) {
        let shown = &name[..name.floor_char_boundary(SHOWN_NAME)];
        self.live().application_name = shown.to_owned();
    }

    /// Tells of a transaction block that has begun, failed or ended.
    pub(super) fn set_transaction(&self, state: TransactionState) {
        let mut live = self.live();
        let began = live.current.as_ref().map(|current| current.since);
        live.transaction = state;
        live.block_since = match state {
            TransactionState::Idle => None,
            _ => live.block_since.or(began).or_else(|| Some(Utc::now())),
        };
    }

    pub fn signal(&self, signal: Signal) {
        match signal {
            Signal::Cancel => self.stop(Stop::Cancelled),
            Signal::Terminate => {
                self.stop(Stop::Terminated);
                self.terminated.cancel();
            }
        }
    }

    /// Stops the running statement, if there is one.
    pub fn stop(&self, reason: Stop) {
        if let Some(stop) = self.stopper() {
            stop.stop(reason);
        }
    }

    /// Waits until what the session runs now is told to stop.
    pub async fn stopped(&self) {
        match self.stopper() {
            Some(stop) => drop(stop.stopped().await),
            None => std::future::pending().await,
        }
    }

    /// Has the client told of something when the present statement is complete.
    pub fn warn(&self, notice: Notice) {
        self.live().warnings.push(notice);
    }

    pub fn take_warnings(&self) -> Vec<Notice> {
        std::mem::take(&mut self.live().warnings)
    }

    fn stopper(&self) -> Option<Stopper> {
        self.live().current.as_ref().map(|current| current.stop.clone())
    }

    fn activity(self: Arc<Self>) -> Activity {
        let live = self.live();
        let current = live.current.as_ref().map(|current| (current.text.clone(), current.since));
        let open = || live.suspended.iter().map(|portal| portal.since).min();
        let activity = Activity {
            session: self.clone(),
            application_name: live.application_name.clone(),
            active: current.is_some(),
            waits: live.current.as_ref().is_some_and(|current| current.waits),
            transaction: live.transaction,
            transaction_since: (live.block_since)
                .or_else(|| current.as_ref().map(|(_, since)| *since))
                .or_else(open),
            statement: current.or_else(|| live.last.clone()),
            changed: live.changed,
        };
        drop(live);
        activity
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    fn new(since: DateTime<Utc>) -> Self {
        Self {
            application_name: String::new(),
            transaction: TransactionState::Idle,
            block_since: None,
            current: None,
            suspended: Vec::new(),
            last: None,
            changed: since,
            ended: None,
            warnings: Vec::new(),
        }
    }

    fn take_off(&mut self, id: Uuid) -> Option<Current> {
        let current = self.current.take_if(|current| current.id == id)?;
        self.last = Some((current.text.clone(), current.since));
        self.changed = Utc::now();
        Some(current)
    }
}

/// The beginning of a text; the text itself if it is short enough.
pub(super) fn cut(text: &Arc<str>, limit: usize) -> Arc<str> {
    match text.len() > limit {
        true => text[..text.floor_char_boundary(limit)].into(),
        false => text.clone(),
    }
}

/// Keeps a session in the table.
#[derive(Debug)]
pub struct SessionGuard {
    sessions: Arc<Sessions>,
    entry: Arc<SessionEntry>,
}

impl SessionGuard {
    pub fn entry(&self) -> &Arc<SessionEntry> {
        &self.entry
    }
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        self.entry.stop(Stop::Terminated);
        let mut by_pid = self.sessions.by_pid.lock().unwrap_or_else(PoisonError::into_inner);
        by_pid.remove(&self.entry.pid);
        drop(by_pid);
        self.entry.gone.cancel();
        self.entry.settle();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that keeps nothing.
    fn history() -> Arc<History> {
        let (size, keep) = (crate::config::Size(0), std::time::Duration::ZERO);
        let none = crate::config::Limit(None);
        let settings = crate::config::History { size, keep, profile: none, slow: none };
        History::new("a", std::path::PathBuf::new(), settings, size, None)
    }

    fn ann() -> Role {
        Role { name: "ann".to_owned(), record: Default::default(), stat: Default::default() }
    }

    fn shown(sessions: &Sessions) -> (bool, TransactionState, String) {
        let activity = sessions.activity().remove(0);
        let text = activity.statement.map(|(text, _)| text.to_string()).unwrap_or_default();
        (activity.active, activity.transaction, text)
    }

    #[test]
    fn a_session_shows_its_present_or_last_statement() {
        let sessions = Arc::new(Sessions::new(0x7fff, history()));
        let guard = sessions.open(&ann(), "oribi", ([127, 0, 0, 1], 4000).into(), None);
        let entry = guard.entry();
        assert!(sessions.gives(entry.pid) && entry.pid > 0);
        assert_eq!(shown(&sessions), (false, TransactionState::Idle, String::new()));
        let long: Arc<str> = format!("BEGIN{}", "ö".repeat(1000)).into();
        let facts = Facts::new(&long, &Arc::default(), Utc::now(), None);
        let first = facts.id;
        entry.begin(&facts);
        entry.set_transaction(TransactionState::InBlock);
        let (active, _, text) = shown(&sessions);
        assert!(active);
        assert_eq!(text.len(), SHOWN_TEXT, "cut between characters");
        entry.end(first);
        assert!(sessions.activity()[0].transaction_since.is_some());
        let facts = Facts::new(&"SELECT 2".into(), &Arc::default(), Utc::now(), None);
        let portal = facts.id;
        entry.begin(&facts);
        entry.suspend(portal);
        assert_eq!(shown(&sessions), (false, TransactionState::InBlock, "SELECT 2".to_owned()));
        assert!(entry.resume(portal));
        entry.set_transaction(TransactionState::Idle);
        entry.end(portal);
        let idle = sessions.activity().remove(0);
        assert_eq!((idle.active, idle.transaction_since), (false, None));
        let gone = entry.gone.clone();
        drop(guard);
        assert!(gone.is_cancelled() && sessions.activity().is_empty());
    }

    #[test]
    fn process_ids_tell_their_daemon() {
        for prefix in [0, 1, 0x7fff] {
            let sessions = Arc::new(Sessions::new(prefix, history()));
            let guard = sessions.open(&ann(), "oribi", ([127, 0, 0, 1], 1).into(), None);
            assert_eq!(prefix_of(guard.entry().pid), Some(prefix));
        }
        assert_eq!(prefix_of(-1), None);
    }
}
