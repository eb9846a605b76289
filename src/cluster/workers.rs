//! Who can take a part of a statement: the daemons that serve, of exactly the same build, apart from those
//! that have failed lately.
//!
//! The store notices a death when the session ends, seconds later. Whoever meets it first, because
//! a call fails, keeps the daemon out of the next statements until it has answered a question again.
//! It is asked after a pause that grows with each failure. Suspicion costs a worker for some time and
//! never more, so it needs no agreement.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use uuid::Uuid;

use super::membership::Membership;
use super::record::Member;

/// The pause after the first failure, and the longest one.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// A daemon that takes parts of statements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    pub id: String,
    /// Of the session it has with the store: a daemon that came back is another.
    pub incarnation: Uuid,
    /// Where it listens to its peers, as `host:port`.
    pub peer: String,
}

/// The workers that this daemon knows of.
#[derive(Debug)]
pub struct Workers {
    membership: Arc<Membership>,
    suspects: Mutex<HashMap<Uuid, Suspect>>,
    /// Those that this daemon has reached, by their incarnations.
    reached: Mutex<HashSet<Uuid>>,
    /// Grows with each daemon that is suspected.
    suspicions: watch::Sender<u64>,
}

#[derive(Debug)]
struct Suspect {
    worker: Worker,
    /// When it is asked again.
    due: Instant,
    failures: u32,
}

impl Workers {
    pub fn new(membership: Arc<Membership>) -> Arc<Self> {
        Arc::new(Self {
            membership,
            suspects: Mutex::default(),
            reached: Mutex::default(),
            suspicions: watch::Sender::new(0),
        })
    }

    /// This daemon's own name.
    pub fn own_id(&self) -> &str {
        self.membership.id()
    }

    /// Whether this daemon takes up no work.
    pub fn is_own_stuck(&self) -> bool {
        self.membership.is_stuck()
    }

    /// The build that all of them have.
    pub fn build(&self) -> &'static str {
        self.membership.build()
    }

    /// Who can be asked now, by id, this daemon included if it serves itself.
    pub fn ready(&self) -> Vec<Worker> {
        let mut workers = self.candidates();
        let mut suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        if !suspects.is_empty() {
            suspects.retain(|incarnation, _| workers.iter().any(|w| w.incarnation == *incarnation));
            workers.retain(|worker| !suspects.contains_key(&worker.incarnation));
        }
        workers
    }

    /// The daemons of this build that serve, whether they are well or not.
    fn candidates(&self) -> Vec<Worker> {
        let members = self.membership.members();
        let fits =
            |member: &&Member| member.record.state.serves() && member.record.build == self.build();
        members.iter().filter(fits).map(worker).collect()
    }

    /// All other members, whatever their state and build.
    pub fn others(&self) -> Vec<Worker> {
        let members = self.membership.members();
        members.iter().filter(|member| member.id != self.own_id()).map(worker).collect()
    }

    /// The next few that serve after this daemon in the order of names, whether they are well or
    /// not.
    pub fn successors(&self, count: usize) -> Vec<Worker> {
        let own = self.own_id();
        let all = self.candidates();
        let (before, after): (Vec<_>, Vec<_>) =
            all.into_iter().filter(|worker| worker.id != own).partition(|w| w.id.as_str() < own);
        after.into_iter().chain(before).take(count).collect()
    }

    /// Whether a worker has not failed lately.
    pub fn is_well(&self, worker: &Worker) -> bool {
        let suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        !suspects.contains_key(&worker.incarnation)
    }

    /// A connection to it was made.
    pub fn note_reached(&self, worker: &Worker) {
        let members = self.membership.members();
        let mut reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        reached.retain(|known| members.iter().any(|m| m.record.incarnation == *known));
        reached.insert(worker.incarnation);
    }

    /// Whether a daemon that this one has reached does not answer any more. Of one that it never could
    /// reach it knows nothing: they may not be meant to.
    pub fn is_silent(&self, incarnation: Uuid) -> bool {
        let suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        let reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        suspects.contains_key(&incarnation) && reached.contains(&incarnation)
    }

    /// Whether a daemon's life has ended as far as can be told: it is registered no more, or does not
    /// answer.
    pub fn has_ended(&self, incarnation: Uuid) -> bool {
        let suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        let members = self.membership.members();
        suspects.contains_key(&incarnation)
            || !members.iter().any(|member| member.record.incarnation == incarnation)
    }

    /// How many daemons are left alone now, and how often one came to be.
    pub fn suspected(&self) -> (usize, u64) {
        let suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        (suspects.len(), *self.suspicions.borrow())
    }

    /// Tells whenever a daemon is suspected.
    pub fn watch_suspects(&self) -> watch::Receiver<u64> {
        self.suspicions.subscribe()
    }

    /// The cluster's members, as they change.
    pub fn watch(&self) -> watch::Receiver<Arc<Vec<Member>>> {
        self.membership.watch_members()
    }

    /// A call has failed: nothing is asked of it until it has answered again.
    pub fn suspect(&self, worker: &Worker) {
        let mut suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        let failures = suspects.get(&worker.incarnation).map_or(0, |suspect| suspect.failures);
        let (first, longest) = PAUSES;
        let due = Instant::now() + (first * 2u32.saturating_pow(failures)).min(longest);
        let suspect = Suspect { worker: worker.clone(), due, failures: (failures + 1).min(16) };
        suspects.insert(worker.incarnation, suspect);
        drop(suspects);
        self.suspicions.send_modify(|count| *count += 1);
    }

    /// Those that may be asked again by now.
    pub fn due(&self) -> Vec<Worker> {
        let suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let due = suspects.values().filter(|suspect| suspect.due <= now);
        due.map(|suspect| suspect.worker.clone()).collect()
    }

    /// It has answered.
    pub fn trust(&self, worker: &Worker) {
        let mut suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        suspects.remove(&worker.incarnation);
    }
}

fn worker(member: &Member) -> Worker {
    Worker {
        id: member.id.clone(),
        incarnation: member.record.incarnation,
        peer: member.record.peer.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::cluster::{Options, State};
    use crate::coordination::embedded::{self, EmbeddedStore};

    /// A daemon of a cluster whose members have one build but for that one.
    async fn member(store: &Arc<EmbeddedStore>, dir: &Path, id: &str) -> Arc<Membership> {
        let limit = Duration::from_secs(60);
        let session = embedded::Options { session_timeout: limit, request_timeout: limit };
        let data_dir = dir.join(id);
        std::fs::create_dir_all(&data_dir).expect("a directory");
        let options = Options {
            id: id.to_owned(),
            data_dir,
            protected: true,
            store: "test".to_owned(),
            postgres: String::new(),
            peer: format!("{id}:7439"),
            web: String::new(),
            version: "1",
            build: if id == "other" { "other" } else { "same" },
            cores: 1,
            memory: 1,
            warehouse: None,
        };
        Membership::join(store.connect(session), options).await.expect("it joins")
    }

    fn ids(workers: &[Worker]) -> Vec<&str> {
        workers.iter().map(|worker| worker.id.as_str()).collect()
    }

    #[tokio::test]
    async fn those_that_have_failed_are_left_alone_until_they_answer() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = EmbeddedStore::in_memory().expect("a store");
        let mut all = Vec::new();
        for id in ["a", "b", "c", "joining", "other"] {
            let joined = member(&store, dir.path(), id).await;
            if id != "joining" {
                joined.set_state(State::Ready).await;
            }
            all.push(joined);
        }
        let own = all[1].clone();
        let end = tokio_util::sync::CancellationToken::new();
        let follow = tokio::runtime::Handle::current().spawn(own.clone().follow(end.clone()));
        let workers = Workers::new(own.clone());
        let mut members = workers.watch();
        while ids(&workers.ready()) != ["a", "b", "c"] {
            members.changed().await.expect("members");
        }
        // The next by name, and round.
        assert_eq!(ids(&workers.successors(8)), ["c", "a"]);
        assert_eq!(ids(&workers.successors(1)), ["c"]);

        let c = workers.ready().remove(2);
        assert!(workers.is_well(&c) && workers.due().is_empty());
        workers.suspect(&c);
        assert!(!workers.is_well(&c) && !workers.is_silent(c.incarnation));
        // One that could be reached before is silent now.
        workers.note_reached(&c);
        assert!(workers.is_silent(c.incarnation));
        assert_eq!(ids(&workers.ready()), ["a", "b"]);
        // It is listened to all the same, and asked after a pause that grows.
        assert_eq!(ids(&workers.successors(8)), ["c", "a"]);
        assert!(workers.due().is_empty());
        let pause = |workers: &Workers| {
            let suspects = workers.suspects.lock().expect("nobody panicked");
            suspects[&c.incarnation].due.saturating_duration_since(Instant::now())
        };
        let mut before = pause(&workers);
        assert!(before <= PAUSES.0);
        for _ in 0..20 {
            workers.suspect(&c);
            let now = pause(&workers);
            assert!(now > before || now > PAUSES.1 / 2, "{now:?} after {before:?}");
            assert!(now <= PAUSES.1);
            before = now;
        }
        workers.suspects.lock().expect("nobody panicked").values_mut().for_each(|suspect| {
            suspect.due = Instant::now();
        });
        assert_eq!(ids(&workers.due()), ["c"]);
        workers.trust(&c);
        assert_eq!(ids(&workers.ready()), ["a", "b", "c"]);

        // One that has come back is another, and nobody remembers the first.
        workers.suspect(&c);
        all[2].set_state(State::Draining).await;
        while !ids(&workers.candidates()).eq(&["a", "b"]) {
            members.changed().await.expect("members");
        }
        assert_eq!(ids(&workers.ready()), ["a", "b"]);
        assert!(workers.due().is_empty() && workers.is_well(&c));
        end.cancel();
        follow.await.expect("it ends");
    }
}
