//! Notifications from daemon to daemon.
//!
//! For each other live daemon there is a queue. What is in it is numbered, sent in order, and stays
//! until the other daemon has confirmed it, or is no member of the cluster any more: then it has no
//! clients, or has lost its session with the store, and ends those that listen when it finds out.
//! What is sent again, since the answer was lost, the receiver knows by its number.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};
use uuid::Uuid;

use super::{Notification, Notifications};
use crate::cluster::{Member, Membership};
use crate::coordination::Coordination;
use crate::engine::{Engine, NoAnswer, notes};
use crate::query::Notice;

/// The kind of the message.
pub const KIND: &str = "Notify";

/// How long NOTIFY waits for the other daemons to confirm.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long one attempt to deliver may take.
const ATTEMPT: Duration = Duration::from_secs(5);

/// The first pause before an attempt is repeated, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Bytes that may wait for one daemon; PostgreSQL's queue takes 8 GB, on disk.
const MAX_WAITING: usize = 256 << 20;

/// Notifications and bytes in one message. The port takes 4 MiB (tonic's default), and a control
/// character takes six bytes in JSON.
const MAX_BATCH: (usize, usize) = (1000, 512 << 10);

/// Senders that are remembered although they have been silent for long.
const MAX_STREAMS: usize = 1024;

/// What goes to another daemon.
#[derive(Debug, Serialize, Deserialize)]
struct Batch {
    /// The sending process, and the incarnation that it sends to: they begin to count anew together.
    from: Uuid,
    to: Uuid,
    /// The number of the first.
    first: u64,
    notifications: Vec<Arc<Notification>>,
}

/// By incarnation, each with the task that empties it.
type Queues = HashMap<Uuid, (Arc<Queue>, AbortOnDropHandle<()>)>;

/// Queues to the other daemons.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// Of this process.
    id: Uuid,
    queues: Mutex<Queues>,
}

impl Default for Outgoing {
    fn default() -> Self {
        Self { id: crate::id::nonce(), queues: Mutex::default() }
    }
}

#[derive(Debug)]
struct Queue {
    member: String,
    address: String,
    incarnation: Uuid,
    waiting: Mutex<Waiting>,
    filled: Notify,
    /// The number of the last that was confirmed.
    confirmed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// The number of the last that was put in.
    last: u64,
    queue: VecDeque<Arc<Notification>>,
    bytes: usize,
}

/// Until a daemon has confirmed a number.
pub(super) struct Wait {
    member: String,
    number: u64,
    confirmed: watch::Receiver<u64>,
}

/// Waits for all, and says who has not confirmed in time.
pub(super) async fn confirmed(waits: Vec<Wait>) -> Vec<Notice> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut notices = Vec::new();
    for Wait { member, number, mut confirmed } in waits {
        let wait = confirmed.wait_for(|confirmed| *confirmed >= number);
        // A queue that has ended is that of a daemon which has no part in the cluster any more.
        if tokio::time::timeout_at(deadline, wait).await.is_err() {
            let message = format!(
                "daemon \"{member}\" has not confirmed the notification yet: its listeners get it \
                 as soon as it answers"
            );
            notices.push(Notice { code: "01000", message });
        }
    }
    notices
}

impl Outgoing {
    /// Refuses to send more while a daemon does not take what there is.
    pub fn check(&self) -> Result<(), notes::Error> {
        let queues = self.queues();
        let full = queues.values().find(|(queue, _)| queue.waiting().bytes > MAX_WAITING);
        full.map_or(Ok(()), |(queue, _)| Err(notes::Error::Full(queue.member.clone())))
    }

    /// Puts notifications into all queues.
    pub fn put(&self, notifications: &[Arc<Notification>]) -> Vec<Wait> {
        let queues = self.queues();
        queues.values().map(|(queue, _)| queue.put(notifications)).collect()
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a queue for each of these members, and no others.
    fn follow(&self, members: &[Member], own: &str, engine: &Arc<Engine>) {
        let mut queues = self.queues();
        queues.retain(|incarnation, _| {
            members.iter().any(|member| member.record.incarnation == *incarnation)
        });
        for member in members.iter().filter(|member| member.id != own) {
            queues.entry(member.record.incarnation).or_insert_with(|| {
                let queue = Arc::new(Queue::to(member));
                let delivering = queue.clone().deliver(self.id, engine.clone());
                let task = tokio::runtime::Handle::current().spawn(delivering);
                (queue, AbortOnDropHandle::new(task))
            });
        }
    }
}

impl Queue {
    fn to(member: &Member) -> Self {
        Self {
            member: member.id.clone(),
            address: member.record.peer.clone(),
            incarnation: member.record.incarnation,
            waiting: Mutex::default(),
            filled: Notify::new(),
            confirmed: watch::Sender::new(0),
        }
    }

    fn put(&self, notifications: &[Arc<Notification>]) -> Wait {
        let mut waiting = self.waiting();
        for notification in notifications {
            waiting.last += 1;
            waiting.bytes += size(notification);
            waiting.queue.push_back(notification.clone());
        }
        let number = waiting.last;
        drop(waiting);
        self.filled.notify_one();
        Wait { member: self.member.clone(), number, confirmed: self.confirmed.subscribe() }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Delivers what is put in, for as long as it is polled.
    async fn deliver(self: Arc<Self>, from: Uuid, engine: Arc<Engine>) {
        let mut pause = PAUSES.0;
        loop {
            let Some(batch) = self.next(from) else {
                self.filled.notified().await;
                continue;
            };
            let count = batch.notifications.len();
            match self.attempt(&engine, &batch).await {
                Ok(()) => {
                    pause = PAUSES.0;
                    self.confirm(count);
                }
                Err(error) => {
                    debug!(daemon = self.member, %error, "notifications could not be delivered yet");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSES.1);
                }
            }
        }
    }

    async fn attempt(&self, engine: &Engine, batch: &Batch) -> Result<(), String> {
        let body = serde_json::to_vec(batch).map_err(|error| error.to_string())?;
        match timeout(ATTEMPT, engine.tell(&self.address, KIND, body.into())).await {
            // A daemon of a build without notifications has nobody who listens.
            Ok(Ok(_) | Err(NoAnswer::Unknown)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer".to_owned()),
        }
    }

    /// The first that wait; they stay.
    fn next(&self, from: Uuid) -> Option<Batch> {
        let waiting = self.waiting();
        let first = waiting.last + 1 - waiting.queue.len() as u64;
        let (count, mut room) = MAX_BATCH;
        let fits = |notification: &&Arc<Notification>| {
            let fits = room > 0;
            room = room.saturating_sub(size(notification));
            fits
        };
        let batch: Vec<_> = waiting.queue.iter().take(count).take_while(fits).cloned().collect();
        let to = self.incarnation;
        (!batch.is_empty()).then_some(Batch { from, to, first, notifications: batch })
    }

    fn confirm(&self, count: usize) {
        let mut waiting = self.waiting();
        let gone: usize = waiting.queue.drain(..count).map(|gone| size(&gone)).sum();
        waiting.bytes -= gone;
        let confirmed = waiting.last - waiting.queue.len() as u64;
        drop(waiting);
        self.confirmed.send_replace(confirmed);
    }
}

fn size(notification: &Notification) -> usize {
    64 + notification.channel.len() + notification.payload.len()
}

/// The numbers of the last notifications that came from others, by who sent them to whom.
#[derive(Debug, Default)]
pub(super) struct Incoming(Mutex<HashMap<(Uuid, Uuid), (u64, Instant)>>);

impl Incoming {
    /// Which of a batch are new, from the lock's holder's point of view.
    fn take(&self, batch: &Batch, deliver: impl Fn(&Arc<Notification>)) {
        let mut streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if streams.len() >= MAX_STREAMS
            && !streams.contains_key(&(batch.from, batch.to))
            && let Some(oldest) = streams.iter().min_by_key(|(_, (_, at))| *at).map(|(key, _)| *key)
        {
            streams.remove(&oldest);
        }
        let (last, at) = streams.entry((batch.from, batch.to)).or_insert((0, now));
        *at = now;
        for (number, notification) in (batch.first..).zip(&batch.notifications) {
            if number > *last {
                *last = number;
                deliver(notification);
            }
        }
    }
}

impl Notifications {
    /// Takes another daemon's notifications; `None` for what is none.
    pub fn receive(&self, body: &Bytes) -> Option<Bytes> {
        let batch: Batch = match serde_json::from_slice(body) {
            Ok(batch) => batch,
            Err(error) => {
                warn!(%error, "another daemon's notifications are not valid");
                return None;
            }
        };
        self.incoming.take(&batch, |notification| self.listeners().deliver(notification));
        Some(Bytes::new())
    }

    /// Follows who is there, until `end`. Needed exactly once.
    pub async fn follow(
        self: Arc<Self>,
        (membership, coordination): (Arc<Membership>, Arc<dyn Coordination>),
        engine: Arc<Engine>,
        end: CancellationToken,
    ) {
        let mut members = membership.watch_members();
        let mut session = coordination.session();
        let epoch = session.borrow_and_update().epoch;
        let mut known = epoch;
        loop {
            let present = members.borrow_and_update().clone();
            self.outgoing.follow(&present, membership.id(), &engine);
            tokio::select! {
                () = end.cancelled() => break,
                changed = members.changed() => if changed.is_err() { break },
                changed = session.changed() => if changed.is_err() { break },
            }
            let epoch = session.borrow_and_update().epoch;
            if std::mem::replace(&mut known, epoch) != epoch {
                warn!("the session with the store was lost: sessions that listen are ended");
                self.lose();
            }
        }
        self.outgoing.queues().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(first: u64, payloads: &[&str]) -> Batch {
        let notification = |payload: &&str| {
            let (channel, payload) = ("c".to_owned(), (*payload).to_owned());
            Arc::new(Notification { pid: 1, channel, payload })
        };
        let notifications = payloads.iter().map(notification).collect();
        Batch { from: Uuid::from_u128(1), to: Uuid::from_u128(2), first, notifications }
    }

    #[test]
    fn what_comes_twice_is_delivered_once() {
        let (incoming, heard) = (Incoming::default(), Mutex::new(String::new()));
        let take = |batch: Batch| {
            incoming.take(&batch, |one| heard.lock().expect("unharmed").push_str(&one.payload));
        };
        take(batch(1, &["a", "b"]));
        // The answer was lost; meanwhile there is more.
        take(batch(1, &["a", "b", "c"]));
        // A first attempt that was late.
        take(batch(1, &["a"]));
        take(batch(4, &["d"]));
        assert_eq!(*heard.lock().expect("unharmed"), "abcd");
        // Another incarnation counts anew.
        take(Batch { to: Uuid::from_u128(3), ..batch(1, &["e"]) });
        assert_eq!(*heard.lock().expect("unharmed"), "abcde");
    }

    #[tokio::test]
    async fn what_is_confirmed_leaves_the_queue_in_order() {
        let queue = Queue {
            member: "b".to_owned(),
            address: String::new(),
            incarnation: Uuid::from_u128(2),
            waiting: Mutex::default(),
            filled: Notify::new(),
            confirmed: watch::Sender::new(0),
        };
        let first = queue.put(&batch(1, &["a", "b"]).notifications);
        let second = queue.put(&batch(1, &["c"]).notifications);
        assert_eq!((first.number, second.number), (2, 3));
        queue.confirm(2);
        assert!(confirmed(vec![first]).await.is_empty());
        let next = queue.next(Uuid::nil()).expect("one waits");
        assert_eq!((next.first, next.notifications[0].payload.as_str()), (3, "c"));
        queue.confirm(1);
        assert!(confirmed(vec![second]).await.is_empty());
        assert!(queue.next(Uuid::nil()).is_none() && queue.waiting().bytes == 0);
    }
}
