//! Admission: which statements of a pool run at once, and which wait.
//!
//! A pool's numbers are the whole cluster's. Each daemon enforces its share of them, which follows
//! from the pool and the ready daemons alone: all come to the same without asking anybody. So no
//! statement costs a write, and what a daemon that dies has admitted is gone with it: the others'
//! shares grow when they hear of its end. A share is one at least, so that nobody waits at a daemon
//! that lets nobody through; a pool of fewer statements than daemons runs that many.
//!
//! Who waits is served in the order of arrival. A session has one place at most: what it runs while
//! a cursor of its own is open runs in the cursor's, or it could wait for itself.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::running::Registered;
use super::{Error, Result};
use crate::catalog::{self, Catalog, PoolRecord, Snapshot};
use crate::cluster::{Member, Membership};
use crate::engine::memory::Bound;

/// All pools, as this daemon enforces them.
#[derive(Debug)]
pub struct Admission {
    catalog: Arc<Catalog>,
    membership: Arc<Membership>,
    applied: Mutex<Applied>,
    /// Tells those who wait that they may be in another pool now, or for another time.
    changes: watch::Sender<()>,
}

/// What the pools were made from, and the pools.
#[derive(Debug, Default)]
struct Applied {
    records: Arc<BTreeMap<String, Arc<catalog::Pool>>>,
    members: Arc<Vec<Member>>,
    pools: BTreeMap<String, Arc<Pool>>,
}

/// This daemon's part of a pool.
#[derive(Debug)]
pub struct Pool {
    pub name: Arc<str>,
    /// The transaction that made it: one that is made anew under the same name is another.
    made: i64,
    state: Mutex<PoolState>,
}

#[derive(Debug)]
struct PoolState {
    limits: Limits,
    running: usize,
    waiting: VecDeque<Waiter>,
    /// The next ticket's number.
    next: u64,
    counts: Counts,
}

/// What a pool allows on this daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Statements at once; `None`: any number.
    pub running: Option<usize>,
    pub waiting: usize,
    pub timeout: Option<Duration>,
    /// Bytes for each statement.
    pub memory: Option<u64>,
}

/// What became of statements since the daemon has known the pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub admitted: u64,
    /// Of those admitted: after a wait.
    pub waited: u64,
    /// Not even let wait.
    pub refused: u64,
    pub timed_out: u64,
    /// Went away while they waited: cancelled, timed out by themselves, disconnected.
    pub left: u64,
}

/// A pool at one moment, for people.
#[derive(Clone, Debug)]
pub struct Shown {
    pub name: String,
    pub record: PoolRecord,
    pub limits: Limits,
    pub running: usize,
    pub waiting: usize,
    pub counts: Counts,
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    grant: oneshot::Sender<Slot>,
}

/// One statement's right to run. Dropping it lets the next one run.
#[derive(Debug)]
struct Slot(Arc<Pool>);

/// What [`Admission::try_enter`] finds.
#[derive(Debug)]
pub enum Entry {
    /// The role is in no pool.
    Free,
    Place(Place),
    Full,
}

/// A place for the statement of a session that is to come.
#[derive(Debug)]
pub struct Place(Slot);

/// What an arrival gets.
enum Arrival {
    Slot(Slot),
    Ticket(Ticket),
}

/// A place in the queue. Dropping it leaves the queue.
struct Ticket {
    pool: Arc<Pool>,
    number: u64,
    granted: oneshot::Receiver<Slot>,
    /// Whether leaving is counted as the client's own doing.
    own: bool,
}

impl Admission {
    pub fn new(catalog: Arc<Catalog>, membership: Arc<Membership>) -> Arc<Self> {
        let (applied, changes) = (Mutex::default(), watch::Sender::new(()));
        Arc::new(Self { catalog, membership, applied, changes })
    }

    /// Follows the pools and the members until `stop`, for those who wait. Needed exactly once.
    pub async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let (mut catalog, mut members) = (self.catalog.watch(), self.membership.watch_members());
        loop {
            let changed = tokio::select! {
                () = stop.cancelled() => return,
                changed = catalog.changed() => changed,
                changed = members.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
            drop(self.apply());
        }
    }

    /// The pools by name, with what runs and waits here.
    pub fn shown(&self) -> Vec<Shown> {
        let applied = self.apply();
        let record = |pool: &Pool| Some(applied.records.get(pool.name.as_ref())?.record.clone());
        (applied.pools.values())
            .filter_map(|pool| {
                let (name, record, state) = (pool.name.to_string(), record(pool)?, pool.state());
                let PoolState { limits, running, counts, .. } = *state;
                let waiting = state.waiting.len();
                Some(Shown { name, record, limits, running, waiting, counts })
            })
            .collect()
    }

    /// Takes a place for a statement of the role before there is one, if it would run here at once.
    pub fn try_enter(&self, role: &str) -> Entry {
        let Some(pool) = self.pool_of(&self.catalog.snapshot(), role) else { return Entry::Free };
        let mut state = pool.state();
        if !state.waiting.is_empty() || !state.has_room() {
            return Entry::Full;
        }
        state.running += 1;
        state.counts.admitted += 1;
        drop(state);
        Entry::Place(Place(Slot(pool)))
    }

    /// The pool of a role's statements, as of a snapshot.
    fn pool_of(&self, snapshot: &Snapshot, role: &str) -> Option<Arc<Pool>> {
        let found = snapshot.pool_of(role)?;
        // Newer than the snapshot, perhaps: then the next statement finds it out.
        self.apply().pools.get(&found.name).cloned()
    }

    /// Brings the pools up to date with the catalog and the members.
    fn apply(&self) -> MutexGuard<'_, Applied> {
        let mut applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        // Looked at under the lock, so that nobody puts older ones in the place of newer ones.
        let (snapshot, members) = (self.catalog.snapshot(), self.membership.members());
        let same_pools = Arc::ptr_eq(&applied.records, &snapshot.pools);
        if same_pools && Arc::ptr_eq(&applied.members, &members) {
            return applied;
        }
        let share = Share::of(&members, self.membership.id());
        let known = std::mem::take(&mut applied.pools);
        for (name, pool) in snapshot.pools.iter() {
            let limits = share.limits(&pool.record);
            let same = known.get(name).filter(|known| known.made == pool.stat.czxid);
            let known = same.cloned().unwrap_or_else(|| Pool::new(name, pool.stat.czxid, limits));
            known.set(limits);
            applied.pools.insert(name.clone(), known);
        }
        (applied.records, applied.members) = (snapshot.pools.clone(), members);
        self.changes.send_replace(());
        applied
    }
}

/// Which part of the cluster's numbers is one daemon's.
#[derive(Clone, Copy, Debug)]
struct Share {
    /// This daemon's place among those that count, and their number.
    at: usize,
    of: usize,
}

impl Share {
    /// Those that count are the ones that serve, and the one that asks, which may not be ready any more.
    fn of(members: &[Member], own: &str) -> Self {
        let ready = |member: &&Member| member.record.state.serves() && member.id != own;
        let others = members.iter().filter(ready).map(|member| member.id.as_str());
        let at = others.clone().filter(|id| *id < own).count();
        Self { at, of: others.count() + 1 }
    }

    /// What does not divide goes to the first ones by name; one at least.
    fn part(self, whole: u32) -> usize {
        let whole = usize::try_from(whole).unwrap_or(usize::MAX);
        (whole / self.of + usize::from(self.at < whole % self.of)).max(1)
    }

    fn limits(self, record: &PoolRecord) -> Limits {
        Limits {
            running: record.concurrency.map(|whole| self.part(whole)),
            waiting: if record.queue == 0 { 0 } else { self.part(record.queue) },
            timeout: record.queue_timeout,
            memory: record.memory,
        }
    }
}

impl Pool {
    fn new(name: &str, made: i64, limits: Limits) -> Arc<Self> {
        let (running, waiting, next, counts) = Default::default();
        let state = Mutex::new(PoolState { limits, running, waiting, next, counts });
        Arc::new(Self { name: name.into(), made, state })
    }

    pub fn limits(&self) -> Limits {
        self.state().limits
    }

    /// What it holds each of its statements to.
    pub fn bound(&self) -> Option<Bound> {
        self.limits().memory.map(|bytes| Bound::of_pool(bytes, &self.name))
    }

    fn state(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(self: &Arc<Self>, limits: Limits) {
        let mut state = self.state();
        state.limits = limits;
        self.let_in(state);
    }

    /// A statement wants to run.
    fn arrive(self: &Arc<Self>) -> Result<Arrival> {
        let mut state = self.state();
        if state.waiting.is_empty() && state.has_room() {
            state.running += 1;
            state.counts.admitted += 1;
            return Ok(Arrival::Slot(Slot(self.clone())));
        }
        if state.waiting.len() >= state.limits.waiting {
            state.counts.refused += 1;
            let (pool, waiting) = (self.name.to_string(), state.waiting.len());
            return Err(Error::QueueFull { pool, waiting });
        }
        let number = state.next;
        state.next += 1;
        let (grant, granted) = oneshot::channel();
        state.waiting.push_back(Waiter { ticket: number, grant });
        Ok(Arrival::Ticket(Ticket { pool: self.clone(), number, granted, own: true }))
    }

    /// Lets in who waits, as far as there is room.
    fn let_in(self: &Arc<Self>, mut state: MutexGuard<'_, PoolState>) {
        let mut next = Vec::new();
        while state.has_room()
            && let Some(waiter) = state.waiting.pop_front()
        {
            state.running += 1;
            state.counts.admitted += 1;
            state.counts.waited += 1;
            next.push(waiter);
        }
        drop(state);
        for waiter in next {
            // Who has gone in this moment gives it back by dropping it.
            drop(waiter.grant.send(Slot(self.clone())));
        }
    }
}

impl PoolState {
    fn has_room(&self) -> bool {
        self.limits.running.is_none_or(|limit| self.running < limit)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.running -= 1;
        self.0.let_in(state);
    }
}

impl Ticket {
    /// Leaves the queue without being counted as having gone away.
    fn give_up(mut self, count: impl FnOnce(&mut Counts)) {
        self.own = false;
        count(&mut self.pool.state().counts);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.pool.state();
        let before = state.waiting.len();
        state.waiting.retain(|waiter| waiter.ticket != self.number);
        if self.own && state.waiting.len() < before {
            state.counts.left += 1;
        }
    }
}

/// A session's place among the statements that run.
#[derive(Debug, Default)]
pub(super) struct Seat(Mutex<Option<(Slot, usize)>>);

/// Keeps the session's place while a statement runs.
#[derive(Debug)]
pub(super) struct Seated(Arc<Seat>);

impl Seat {
    fn lock(&self) -> MutexGuard<'_, Option<(Slot, usize)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more statement in the place that the session has.
    fn share(self: &Arc<Self>) -> Option<Seated> {
        let mut held = self.lock();
        held.as_mut()?.1 += 1;
        Some(Seated(self.clone()))
    }

    /// The pool in which the session has its place.
    fn pool(&self) -> Option<Arc<Pool>> {
        self.lock().as_ref().map(|(Slot(pool), _)| pool.clone())
    }

    /// Takes a place that the session has not.
    fn take(self: &Arc<Self>, slot: Slot) -> Seated {
        *self.lock() = Some((slot, 1));
        Seated(self.clone())
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        let mut held = self.0.lock();
        let Some((_, statements)) = held.as_mut() else { return };
        *statements -= 1;
        if *statements == 0 {
            let slot = held.take();
            drop(held);
            drop(slot);
        }
    }
}

/// How a session is admitted.
#[derive(Debug)]
pub(super) struct Entrance {
    admission: Arc<Admission>,
    seat: Arc<Seat>,
    found: Option<Found>,
}

/// The pool that was found last.
#[derive(Debug)]
struct Found {
    from: Weak<Snapshot>,
    role: Arc<str>,
    pool: Option<Arc<Pool>>,
}

impl Entrance {
    pub fn new(admission: Arc<Admission>) -> Self {
        Self { admission, seat: Arc::default(), found: None }
    }

    /// Uses a place that was taken before for the session's statements.
    pub fn take(&self, place: Place) -> Seated {
        self.seat.take(place.0)
    }

    /// The pool of the place that the session's statements have at the moment.
    pub fn taken(&self) -> Option<Arc<Pool>> {
        self.seat.pool()
    }

    /// The pool that a role's statements are in now.
    pub fn pool(&mut self, role: &Arc<str>) -> Option<Arc<Pool>> {
        let snapshot = self.admission.catalog.snapshot();
        if snapshot.pools.is_empty() {
            return None;
        }
        if let Some(found) = &self.found
            && found.from.as_ptr() == Arc::as_ptr(&snapshot)
            && found.role == *role
        {
            return found.pool.clone();
        }
        let pool = self.admission.pool_of(&snapshot, role);
        let (from, role) = (Arc::downgrade(&snapshot), role.clone());
        self.found = Some(Found { from, role, pool: pool.clone() });
        pool
    }

    /// Waits until a statement of the role may run. Cancel safe: who does not wait any more leaves
    /// the queue at once.
    pub async fn admit(&mut self, role: &Arc<str>, registered: &mut Registered) -> Result<()> {
        let Some(mut pool) = self.pool(role) else { return Ok(()) };
        registered.set_pool(Some(&pool.name), false);
        if let Some(seated) = self.seat.share() {
            registered.sit(seated);
            return Ok(());
        }
        let since = Instant::now();
        loop {
            let ticket = match pool.arrive()? {
                Arrival::Slot(slot) => {
                    registered.sit(self.seat.take(slot));
                    return Ok(());
                }
                Arrival::Ticket(ticket) => ticket,
            };
            registered.set_pool(Some(&pool.name), true);
            match self.wait(role, ticket, since).await? {
                Waited::Admitted(slot) => {
                    registered.sit(self.seat.take(slot));
                    registered.set_pool(Some(&pool.name), false);
                    return Ok(());
                }
                Waited::Moved(Some(other)) => pool = other,
                Waited::Moved(None) => {
                    registered.set_pool(None, false);
                    return Ok(());
                }
            }
        }
    }

    async fn wait(
        &mut self,
        role: &Arc<str>,
        mut ticket: Ticket,
        since: Instant,
    ) -> Result<Waited> {
        let mut changes = self.admission.changes.subscribe();
        loop {
            // After the subscription: what changes from here on is noticed.
            let pool = self.pool(role);
            if !pool.as_ref().is_some_and(|pool| Arc::ptr_eq(pool, &ticket.pool)) {
                ticket.give_up(|_| {});
                return Ok(Waited::Moved(pool));
            }
            let timeout = ticket.pool.limits().timeout;
            let timed_out = async {
                match timeout.and_then(|timeout| since.checked_add(timeout)) {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                slot = &mut ticket.granted => return Ok(match slot {
                    Ok(slot) => Waited::Admitted(slot),
                    Err(_) => Waited::Moved(self.pool(role)),
                }),
                // The daemon's tasks end: so does the session, soon.
                changed = changes.changed() => if changed.is_err() {
                    std::future::pending::<()>().await;
                },
                () = timed_out => {
                    let pool = ticket.pool.name.to_string();
                    ticket.give_up(|counts| counts.timed_out += 1);
                    let limit = timeout.unwrap_or_default();
                    return Err(Error::QueueTimedOut { pool, limit });
                }
            }
        }
    }
}

/// How a wait ended.
enum Waited {
    Admitted(Slot),
    /// The role's statements are in another pool now, or in none.
    Moved(Option<Arc<Pool>>),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(running: usize, waiting: usize) -> Arc<Pool> {
        let (timeout, memory) = (None, None);
        Pool::new("p", 1, Limits { running: Some(running), waiting, timeout, memory })
    }

    fn waits(pool: &Arc<Pool>) -> Ticket {
        match pool.arrive() {
            Ok(Arrival::Ticket(ticket)) => ticket,
            Ok(Arrival::Slot(_)) => panic!("there was room"),
            Err(error) => panic!("{error}"),
        }
    }

    fn runs(pool: &Arc<Pool>) -> Slot {
        match pool.arrive() {
            Ok(Arrival::Slot(slot)) => slot,
            _ => panic!("there was no room"),
        }
    }

    #[test]
    fn shares_are_the_whole_or_one_each() {
        for of in 1..=5 {
            for whole in 0..=20 {
                let parts: Vec<usize> = (0..of).map(|at| Share { at, of }.part(whole)).collect();
                assert_eq!(parts.iter().sum::<usize>(), of.max(whole as usize), "{parts:?}");
                assert!(parts.is_sorted_by(|a, b| a >= b) && parts[0] - parts[of - 1] <= 1);
            }
        }
    }

    #[test]
    fn a_place_that_nobody_takes_goes_to_the_next() {
        let pool = pool(1, 3);
        let first = runs(&pool);
        let (gone, left, mut next) = (waits(&pool), waits(&pool), waits(&pool));
        assert!(matches!(pool.arrive(), Err(Error::QueueFull { waiting: 3, .. })));
        drop(left);
        drop(first);
        // It has its place, and does not come to know it.
        assert!(next.granted.try_recv().is_err());
        drop(gone);
        let slot = next.granted.try_recv().expect("a place");
        assert_eq!(pool.state().running, 1);
        drop((next, slot));
        assert_eq!(pool.state().running, 0);
        assert!(pool.state().waiting.is_empty());
        let Counts { admitted, waited, refused, left, .. } = pool.state().counts;
        assert_eq!((admitted, waited, refused, left), (3, 2, 1, 1));
    }

    #[test]
    fn a_smaller_share_lets_nobody_in_before_enough_have_left() {
        let pool = pool(3, 9);
        let mut running = vec![runs(&pool), runs(&pool), runs(&pool)];
        pool.set(Limits { running: Some(1), ..pool.limits() });
        let mut waiting = waits(&pool);
        running.truncate(1);
        assert!(waiting.granted.try_recv().is_err());
        running.clear();
        assert!(waiting.granted.try_recv().is_ok());
        let _first = runs(&pool);
        let mut second = waits(&pool);
        pool.set(Limits { running: None, ..pool.limits() });
        assert!(second.granted.try_recv().is_ok());
    }

    #[test]
    fn the_statements_of_a_session_share_its_place() {
        let (pool, seat) = (pool(1, 0), Arc::<Seat>::default());
        assert!(seat.share().is_none());
        let cursor = seat.take(runs(&pool));
        let beside = seat.share().expect("the cursor's");
        drop(cursor);
        assert_eq!(pool.state().running, 1);
        drop(beside);
        assert_eq!(pool.state().running, 0);
        assert!(seat.share().is_none());
    }
}
