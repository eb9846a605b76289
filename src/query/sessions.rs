//! All client sessions of this daemon, by the process id their clients were told.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Stop;
use crate::tls::Tls;

/// Bits of a process id that count a daemon's sessions; the ones above tell daemons apart.
const COUNTER_BITS: u32 = 16;

/// The table of sessions.
#[derive(Debug)]
pub struct Sessions {
    by_pid: Mutex<HashMap<i32, Arc<SessionEntry>>>,
    next: AtomicI32,
    prefix: i32,
}

/// What others may know of a session, and do to it.
#[derive(Debug)]
pub struct SessionEntry {
    pub pid: i32,
    pub user: String,
    pub database: String,
    /// The client's address, as text.
    pub client: String,
    /// How the connection is encrypted, if it is.
    pub tls: Option<Arc<Tls>>,
    pub started: DateTime<Utc>,
    /// Ends when the session is to end.
    pub terminated: CancellationToken,
    current: Mutex<Option<Current>>,
    /// Portals that the client has left open.
    suspended: Mutex<Vec<Current>>,
}

/// The statement a session runs.
#[derive(Clone, Debug)]
struct Current {
    id: Uuid,
    text: Arc<str>,
    since: DateTime<Utc>,
    stop: Stopper,
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
    pub pid: i32,
    pub user: String,
    pub database: String,
    pub client: String,
    pub tls: Option<Arc<Tls>>,
    pub started: DateTime<Utc>,
    /// The statement that runs, and since when.
    pub statement: Option<(String, DateTime<Utc>)>,
}

impl Sessions {
    /// `daemon` makes process ids of different daemons different, as far as 15 bits can.
    pub fn new(daemon: Uuid) -> Self {
        let prefix = (daemon.as_u128() as i32 & 0x7fff) << COUNTER_BITS;
        Self { by_pid: Mutex::default(), next: AtomicI32::new(1), prefix }
    }

    /// Opens a session. It is in the table until the guard is dropped.
    pub fn open(
        self: &Arc<Self>,
        user: &str,
        database: &str,
        client: &str,
        tls: Option<Arc<Tls>>,
    ) -> SessionGuard {
        let mut by_pid = self.by_pid.lock().unwrap_or_else(PoisonError::into_inner);
        let pid = loop {
            let count = self.next.fetch_add(1, Ordering::Relaxed) & ((1 << COUNTER_BITS) - 1);
            let pid = self.prefix | count;
            if pid != 0 && !by_pid.contains_key(&pid) {
                break pid;
            }
        };
        let entry = Arc::new(SessionEntry {
            pid,
            user: user.to_owned(),
            database: database.to_owned(),
            client: client.to_owned(),
            tls,
            started: Utc::now(),
            terminated: CancellationToken::new(),
            current: Mutex::default(),
            suspended: Mutex::default(),
        });
        by_pid.insert(pid, entry.clone());
        SessionGuard { sessions: self.clone(), entry }
    }

    pub fn count(&self) -> usize {
        self.by_pid.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Stops what a session runs; false if there is no such session.
    pub fn cancel(&self, pid: i32) -> bool {
        self.with(pid, |entry| entry.stop(Stop::Cancelled))
    }

    /// Ends a session; false if there is no such session.
    pub fn terminate(&self, pid: i32) -> bool {
        self.with(pid, |entry| {
            entry.stop(Stop::Terminated);
            entry.terminated.cancel();
        })
    }

    /// Ends all sessions.
    pub fn terminate_all(&self) {
        let entries: Vec<_> = {
            let by_pid = self.by_pid.lock().unwrap_or_else(PoisonError::into_inner);
            by_pid.values().cloned().collect()
        };
        for entry in entries {
            entry.stop(Stop::ShuttingDown);
            entry.terminated.cancel();
        }
    }

    pub fn activity(&self) -> Vec<Activity> {
        let by_pid = self.by_pid.lock().unwrap_or_else(PoisonError::into_inner);
        let mut activity: Vec<_> = by_pid.values().map(|entry| entry.activity()).collect();
        activity.sort_by_key(|activity| activity.pid);
        activity
    }

    fn with(&self, pid: i32, act: impl FnOnce(&SessionEntry)) -> bool {
        let entry = {
            let by_pid = self.by_pid.lock().unwrap_or_else(PoisonError::into_inner);
            by_pid.get(&pid).cloned()
        };
        entry.inspect(|entry| act(entry)).is_some()
    }
}

impl SessionEntry {
    pub(super) fn begin(&self, id: Uuid, text: Arc<str>) -> Stopper {
        let stop = Stopper::default();
        // Between two statements of one message nobody else looks.
        if self.terminated.is_cancelled() {
            stop.stop(Stop::Terminated);
        }
        let current = Current { id, text, since: Utc::now(), stop: stop.clone() };
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(current);
        stop
    }

    pub(super) fn end(&self, id: Uuid) {
        self.take_off(id);
        self.suspended
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|other| other.id != id);
    }

    /// A portal is left open: what the session runs may be another statement now.
    pub(super) fn suspend(&self, id: Uuid) {
        if let Some(current) = self.take_off(id) {
            self.suspended.lock().unwrap_or_else(PoisonError::into_inner).push(current);
        }
    }

    /// A portal is read on; false if it was not suspended.
    pub(super) fn resume(&self, id: Uuid) -> bool {
        let mut suspended = self.suspended.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = suspended.iter().position(|other| other.id == id) else { return false };
        let current = Current { since: Utc::now(), ..suspended.swap_remove(at) };
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(current);
        true
    }

    fn take_off(&self, id: Uuid) -> Option<Current> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.take_if(|current| current.id == id)
    }

    /// Stops the running statement, if there is one.
    pub fn stop(&self, reason: Stop) {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(current) = current {
            current.stop.stop(reason);
        }
    }

    fn activity(&self) -> Activity {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Activity {
            pid: self.pid,
            user: self.user.clone(),
            database: self.database.clone(),
            client: self.client.clone(),
            tls: self.tls.clone(),
            started: self.started,
            statement: current.map(|current| (current.text.to_string(), current.since)),
        }
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
    }
}
