//! What waits for a session, until its client can be told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::Notify;

use super::Notification;
use crate::catalog::{Role, Snapshot};
use crate::engine::notes::Notes;
use crate::engine::objects::SessionObjects;
use crate::query::sessions::SessionEntry;

/// Bytes that may wait for one session: a client in a long transaction, or one that does not read.
const MAX_WAITING: usize = 64 << 20;

/// Bytes that a notification takes apart from its texts.
const OVERHEAD: usize = 64;

/// Why a session that listens is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Too much waits for it.
    Full,
    /// Its daemon has lost its place in the cluster for a while: others did not send to it.
    OutOfTouch,
}

/// One session's.
#[derive(Debug)]
pub struct Inbox {
    session: Arc<SessionEntry>,
    objects: Arc<SessionObjects>,
    waiting: Mutex<Waiting>,
    arrived: Notify,
    lost: OnceLock<Lost>,
}

#[derive(Debug, Default)]
struct Waiting {
    queue: VecDeque<Arc<Notification>>,
    bytes: usize,
}

impl Inbox {
    pub fn new(session: Arc<SessionEntry>, objects: Arc<SessionObjects>) -> Self {
        let (waiting, arrived) = (Mutex::default(), Notify::new());
        Self { session, objects, waiting, arrived, lost: OnceLock::new() }
    }

    pub(super) fn pid(&self) -> i32 {
        self.session.pid
    }

    /// The role that has logged in, whatever it is called by now; `None` if it is gone.
    pub(super) fn role<'a>(&self, snapshot: &'a Snapshot) -> Option<&'a Role> {
        let role = snapshot.role_of(&self.session.user, Some(self.session.owner));
        role.map(Arc::as_ref)
    }

    pub(super) fn notes(&self) -> &Notes {
        &self.objects.notes
    }

    pub(super) fn put(&self, notification: &Arc<Notification>) {
        let mut waiting = self.waiting();
        if waiting.bytes > MAX_WAITING {
            drop(waiting);
            return self.lose(Lost::Full);
        }
        waiting.bytes += size(notification);
        waiting.queue.push_back(notification.clone());
        drop(waiting);
        self.arrived.notify_one();
    }

    /// Ends the session: something is missing.
    pub(super) fn lose(&self, lost: Lost) {
        self.lost.get_or_init(|| lost);
        self.session.signal(crate::query::sessions::Signal::Terminate);
    }

    /// Why the session was ended, if it was for what it could not be told.
    pub fn lost(&self) -> Option<Lost> {
        self.lost.get().copied()
    }

    /// Takes all that waits.
    pub fn take(&self) -> VecDeque<Arc<Notification>> {
        std::mem::take(&mut *self.waiting()).queue
    }

    /// Ends when something waits. Cancel safe.
    pub async fn arrival(&self) {
        while self.waiting().queue.is_empty() {
            self.arrived.notified().await;
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn size(notification: &Notification) -> usize {
    OVERHEAD + notification.channel.len() + notification.payload.len()
}
