//! What waits on this daemon for its turn at a table.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};
use uuid::Uuid;

use super::commit::Change;
use super::publish::Commit;
use super::state::managed;
use crate::catalog::{Table, TableName};
use crate::storage::{Error, Result};

/// How often one commit starts again because others were quicker.
pub(super) const MAX_ATTEMPTS: u32 = 100;

/// Statements that one snapshot carries out at most.
const MAX_GROUP: usize = 256;

/// The commits of one table that have not begun, and whose turn it is.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Vec<Waiting>>,
    arrived: Notify,
    pub turn: tokio::sync::Mutex<()>,
}

/// A commit, and who waits for it.
#[derive(Debug)]
pub(super) struct Waiting {
    pub commit: Commit,
    reply: oneshot::Sender<Result<Arc<Table>>>,
    /// Set once nobody wants it any more.
    given_up: Arc<AtomicBool>,
    /// How often others were quicker.
    losses: u32,
}

/// The end of whoever waits.
#[derive(Debug)]
pub(super) struct Place {
    pub answer: oneshot::Receiver<Result<Arc<Table>>>,
    given_up: Arc<AtomicBool>,
}

impl Waiting {
    pub fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }

    /// Tells what came of it. Whoever no longer listens finds its rows in the table all the same.
    pub fn reply(self, done: Result<Arc<Table>>) {
        let _ = self.reply.send(done);
    }
}

impl Queue {
    pub fn push(&self, commit: Commit) -> Place {
        let (reply, answer) = oneshot::channel();
        let given_up = Arc::<AtomicBool>::default();
        let waiting = Waiting { commit, reply, given_up: given_up.clone(), losses: 0 };
        self.waiting().push(waiting);
        self.arrived.notify_one();
        Place { answer, given_up }
    }

    /// Takes a commit out that has not begun. False if it has: then it is not begun again, and the
    /// answer says what came of it.
    pub fn give_up(&self, place: &Place) -> bool {
        place.given_up.store(true, Ordering::Release);
        let mut waiting = self.waiting();
        let at = waiting.iter().position(|one| Arc::ptr_eq(&one.given_up, &place.given_up));
        at.map(|at| waiting.remove(at)).is_some()
    }

    /// All that wait, in groups each of which one snapshot carries out.
    pub fn take(&self) -> Vec<Vec<Waiting>> {
        groups(std::mem::take(&mut *self.waiting()))
    }

    /// Has commits wait again, before all others, that have certainly not been made since others
    /// were quicker; whether there are any.
    pub fn put_back(&self, lost: Vec<Waiting>) -> bool {
        let mut waiting = self.waiting();
        let mut again = Vec::new();
        for mut one in lost {
            one.losses += 1;
            // Looked at under the lock: who gives up later finds it here.
            if one.is_given_up() {
                one.reply(Err(Error::GivenUp));
            } else if one.losses >= MAX_ATTEMPTS {
                let table = one.commit.table.name.to_string();
                one.reply(Err(Error::Busy { table }));
            } else {
                again.push(one);
            }
        }
        let any = !again.is_empty();
        waiting.splice(0..0, again);
        any
    }

    /// The table of the first that waits.
    pub fn first(&self) -> Option<TableName> {
        self.waiting().first().map(|one| one.commit.table.name.clone())
    }

    /// Waits until something waits. Cancel safe.
    pub async fn arrival(&self) {
        while self.first().is_none() {
            self.arrived.notified().await;
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which table of its name a commit is for.
fn uuid(commit: &Commit) -> Option<Uuid> {
    managed(&commit.table).ok().map(|managed| managed.uuid)
}

/// Appends for the same schema go together; all else goes by itself, in its turn.
fn groups(waiting: Vec<Waiting>) -> Vec<Vec<Waiting>> {
    let mut groups: Vec<Vec<Waiting>> = Vec::new();
    for one in waiting {
        let joins = |group: &Vec<Waiting>| {
            let together = |a: &Commit, b: &Commit| {
                let appends = |commit: &Commit| commit.changes.iter().all(Change::is_append);
                appends(a)
                    && appends(b)
                    && a.fences.is_empty()
                    && b.fences.is_empty()
                    && a.schema_id == b.schema_id
                    && a.table.name == b.table.name
                    && uuid(a) == uuid(b)
            };
            group.len() < MAX_GROUP
                && group.first().is_some_and(|first| together(&first.commit, &one.commit))
        };
        match groups.last_mut() {
            Some(group) if joins(group) => group.push(one),
            _ => groups.push(vec![one]),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;
    use crate::catalog::{
        DEFAULT_DATABASE, Definition, FIRST_ROLE, Managed, PUBLIC, Stat, TableRecord,
    };

    fn commit(change: Change) -> Commit {
        let managed = Managed::new(Uuid::nil(), "file:///t/1.metadata.json".to_owned(), None);
        let definition = Definition::Managed(managed);
        let record = TableRecord::new(16384, FIRST_ROLE, Vec::new(), definition);
        let name = TableName::new(DEFAULT_DATABASE, PUBLIC, "t");
        let table = Arc::new(Table { name, record, stat: Stat::default() });
        Commit { table, changes: vec![change], schema_id: 0, fences: Vec::new() }
    }

    fn append() -> Commit {
        commit(Change::Rows(Vec::new()))
    }

    /// What a place was told; `None` if nothing yet.
    fn told(place: &mut Place) -> Option<Error> {
        match place.answer.try_recv() {
            Ok(done) => Some(done.expect_err("nothing was carried out")),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Closed) => panic!("nobody answers any more"),
        }
    }

    #[test]
    fn appends_go_together_and_all_else_by_itself() {
        let queue = Queue::default();
        let other = || commit(Change::Expire(Vec::new()));
        let _places: Vec<Place> =
            [append(), append(), other(), other(), append()].map(|one| queue.push(one)).into();
        assert_eq!(queue.first().map(|name| name.table).as_deref(), Some("t"));
        assert_eq!(queue.take().iter().map(Vec::len).collect::<Vec<_>>(), [2, 1, 1, 1]);
        assert!(queue.first().is_none());
    }

    #[test]
    fn what_has_not_begun_is_taken_out() {
        let queue = Queue::default();
        let (mut stays, leaves) = (queue.push(append()), queue.push(append()));
        assert!(queue.give_up(&leaves));
        let begun: Vec<Waiting> = queue.take().into_iter().flatten().collect();
        assert_eq!(begun.len(), 1);
        assert!(told(&mut stays).is_none());
    }

    #[test]
    fn what_has_begun_is_not_begun_again() {
        let queue = Queue::default();
        let (mut stays, mut leaves) = (queue.push(append()), queue.push(append()));
        let begun: Vec<Waiting> = queue.take().into_iter().flatten().collect();
        let late = queue.push(commit(Change::Expire(Vec::new())));
        assert!(!queue.give_up(&leaves));
        assert!(begun.iter().any(Waiting::is_given_up));
        assert!(told(&mut leaves).is_none(), "it may still be made");
        assert!(queue.put_back(begun));
        assert!(matches!(told(&mut leaves), Some(Error::GivenUp)));
        // The other goes before what has come since.
        let groups = queue.take();
        assert_eq!(groups.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1]);
        assert!(groups[0][0].commit.changes[0].is_append());
        assert!(told(&mut stays).is_none());
        drop(late);
    }

    #[test]
    fn nobody_tries_for_ever() {
        let queue = Queue::default();
        let mut place = queue.push(append());
        for _ in 1..MAX_ATTEMPTS {
            assert!(queue.put_back(queue.take().into_iter().flatten().collect()));
            assert!(told(&mut place).is_none());
        }
        assert!(!queue.put_back(queue.take().into_iter().flatten().collect()));
        assert!(matches!(told(&mut place), Some(Error::Busy { .. })));
    }
}
