//! Takes submitted queries.
//!
//! All daemons watch the queue and the claims. For each query that has no claim, or that of a daemon
//! which has ended or does not answer, the ready daemons have an order of their own: the first takes
//! it at once, the others after a pause, should the first have no place. Older ones are taken first.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::Utc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::attempt::Attempt;
use super::{Claim, Error, Failure, Found, Record, Result, State, Submissions};
use super::{encoded, ending, exists, outrun};
use crate::cluster::{Election, Worker, Workers};
use crate::coordination::paths::{self, Path};
use crate::coordination::{self, Coordination, Event, Mode, Op, Scope, SessionState};
use crate::query::admission::{Entry, Place};
use crate::query::{self, Queries};

/// How long the next daemon in a query's order waits for the one before it.
const TURN: Duration = Duration::from_millis(150);

/// How often all is looked at although nothing seems to have changed, and the pause after the store
/// has refused something.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// The least pause between two looks, however much changes.
const PAUSE: Duration = Duration::from_millis(5);

/// How an error is told to who asks for the query.
pub type Describe = fn(query::Error) -> Failure;

/// This daemon's part in carrying out submitted queries.
#[derive(Debug)]
pub struct Runner {
    pub(super) submissions: Arc<Submissions>,
    pub(super) queries: Arc<Queries>,
    pub(super) election: Arc<Election>,
    pub(super) describe: Describe,
    workers: Arc<Workers>,
    /// What runs here, by id; ended by whoever ends the query.
    running: Mutex<HashMap<String, CancellationToken>>,
    tasks: TaskTracker,
}

/// What this daemon has seen of the queue.
#[derive(Debug, Default)]
struct Seen {
    /// Since when a query, or a letter in the inbox, has waited for somebody.
    waiting: HashMap<String, Instant>,
    /// Claims by their nodes' names, which are of one attempt.
    claims: HashMap<String, Option<Claim>>,
    /// Who has submitted what waits.
    users: HashMap<String, String>,
    /// What waits, and whose record is known to say so.
    told: HashSet<String>,
}

impl Seen {
    /// Claims have come or gone, perhaps between two looks: whoever claims a query has its record say that it
    /// runs.
    fn forget_told(&mut self, event: &Event) {
        match event {
            Event::Changed(path) => {
                let node = path.rsplit_once('/').map_or(path.as_str(), |(_, node)| node);
                let id = node.rsplit_once(':').and_then(|(id, _)| paths::decode(id));
                id.map(|id| self.told.remove(&id));
            }
            Event::Resync => self.told.clear(),
        }
    }
}

impl Runner {
    pub fn new(
        submissions: Arc<Submissions>,
        queries: Arc<Queries>,
        workers: Arc<Workers>,
        election: Arc<Election>,
        describe: Describe,
    ) -> Arc<Self> {
        let (running, tasks) = (Mutex::default(), TaskTracker::new());
        Arc::new(Self { submissions, queries, workers, election, describe, running, tasks })
    }

    /// Works until `stop`; what runs then goes back to the queue. Needed exactly once.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let store = &self.submissions.coordination;
        let mut queue = store.watch(&Path::Queue.to_string(), Scope::Children);
        let mut claims = store.watch(&Path::Claims.to_string(), Scope::Subtree);
        let mut inbox = store.watch(&Path::Inbox.to_string(), Scope::Children);
        let mut members = self.workers.watch();
        let mut suspected = self.workers.watch_suspects();
        let mut limits = self.submissions.limits.subscribe();
        let mut seen = Seen::default();
        loop {
            sleep(PAUSE).await;
            let next = match self.look(&mut seen).await {
                Ok(next) => next,
                Err(error) => {
                    debug!(%error, "submitted queries could not be looked at");
                    Instant::now() + LOOK
                }
            };
            // All lead to the same look. In one order, so that a simulation repeats exactly.
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                event = queue.next() => if event.is_none() { break },
                event = claims.next() => match event {
                    Some(event) => seen.forget_told(&event),
                    None => break,
                },
                event = inbox.next() => if event.is_none() { break },
                changed = members.changed() => if changed.is_err() { break },
                changed = suspected.changed() => if changed.is_err() { break },
                changed = limits.changed() => if changed.is_err() { break },
                () = sleep_until(next) => {}
            }
        }
        for stop in self.lock().values() {
            stop.cancel();
        }
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, CancellationToken>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn attempts(&self) -> u32 {
        self.submissions.limits().attempts
    }

    /// Takes what is this daemon's to take; when to look again.
    async fn look(self: &Arc<Self>, seen: &mut Seen) -> Result<Instant> {
        let store = self.submissions.coordination.as_ref();
        let next = Instant::now() + LOOK;
        if store.session().borrow().state != SessionState::Connected {
            seen.told.clear();
            return Ok(next);
        }
        let queue = queued(store).await?;
        let claimed = claimed(store).await?;
        let ids: HashSet<&str> = queue.iter().map(|(_, id)| id.as_str()).collect();
        for (id, stop) in self.lock().iter() {
            if !ids.contains(id.as_str()) {
                stop.cancel();
            }
        }
        seen.claims.retain(|name, _| claimed.values().flatten().any(|claim| claim.node == *name));
        seen.waiting.retain(|id, since| ids.contains(id.as_str()) || since.elapsed() < LOOK * 10);
        seen.users.retain(|id, _| ids.contains(id.as_str()));
        seen.told.retain(|id| ids.contains(id.as_str()));
        let ready = self.workers.ready();
        let own = self.workers.own_id();
        if !ready.iter().any(|worker| worker.id == own) {
            return Ok(next);
        }
        let catalog = &self.queries.catalog;
        let mut soonest = next;
        let mut is_turn = |seen: &mut Seen, id: &str| {
            let since = *seen.waiting.entry(id.to_owned()).or_insert_with(Instant::now);
            let turn = since + TURN * place(&ready, own, id);
            soonest = if turn > Instant::now() { soonest.min(turn) } else { soonest };
            turn <= Instant::now()
        };
        let own_turn = |letter: &str| is_turn(seen, letter);
        let emptied = self.submissions.empty_inbox(catalog, self.describe, own_turn).await;
        for (since, id) in &queue {
            if self.lock().contains_key(id) {
                continue;
            }
            let claims = claimed.get(id.as_str()).map_or(&[][..], Vec::as_slice);
            // Whoever has claimed it has written that it runs, also one that has ended since.
            if !claims.is_empty() {
                seen.told.remove(id);
            }
            let full = self.lock().len() >= self.submissions.limits().running;
            if full && claims.is_empty() && seen.told.contains(id) {
                continue;
            }
            if self.is_held(claims, seen).await? {
                seen.waiting.remove(id);
                continue;
            }
            if !is_turn(seen, id) {
                continue;
            }
            let entry = if full { Entry::Full } else { self.enter(id, seen).await };
            let place = match entry {
                Entry::Full => {
                    self.tell_that_it_waits(id, claims, seen).await;
                    continue;
                }
                Entry::Free => None,
                Entry::Place(place) => Some(place),
            };
            match self.take(id, *since, claims, place, seen).await {
                Ok(()) => {}
                Err(Error::Record { id, source }) => {
                    self.drop_unreadable(*since, &id, source).await;
                }
                Err(Error::Store(error)) if error.is_unavailable() => return Err(error.into()),
                // Those behind it are not to wait for it.
                Err(error) => warn!(id, %error, "a submitted query cannot be taken"),
            }
        }
        self.drop_forgotten(&claimed, &ids, seen).await;
        emptied?;
        Ok(soonest)
    }

    /// Whether a daemon that is well works on a query with these claims.
    async fn is_held(&self, claims: &[Claimed], seen: &mut Seen) -> Result<bool> {
        for claimed in claims {
            let claim = self.claim(&claimed.node, seen).await?;
            // One of this daemon's own on whose query it does not work is of a write whose reply was
            // lost, or of a task that met a defect.
            let own = self.queries.membership.record().await.incarnation;
            let held = claim.is_some_and(|claim| {
                claim.incarnation != own && !self.workers.has_ended(claim.incarnation)
            });
            if held {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A claim by its node's name.
    async fn claim(&self, node: &str, seen: &mut Seen) -> Result<Option<Claim>> {
        if let Some(known) = seen.claims.get(node) {
            return Ok(known.clone());
        }
        let found = self.submissions.coordination.get(&format!("{}/{node}", Path::Claims)).await?;
        let claim: Option<Claim> = found.and_then(|found| serde_json::from_slice(&found.data).ok());
        seen.claims.insert(node.to_owned(), claim.clone());
        Ok(claim)
    }

    /// Removes claims of this daemon's on queries that are done.
    async fn drop_forgotten(
        &self,
        claimed: &HashMap<String, Vec<Claimed>>,
        queue: &HashSet<&str>,
        seen: &mut Seen,
    ) {
        let own = self.queries.membership.record().await.incarnation;
        for (id, claims) in claimed.iter().filter(|(id, _)| !queue.contains(id.as_str())) {
            if self.lock().contains_key(id) {
                continue;
            }
            for Claimed { node, .. } in claims {
                let claim = self.claim(node, seen).await.ok().flatten();
                if claim.is_some_and(|claim| claim.incarnation == own) {
                    let path = format!("{}/{node}", Path::Claims);
                    let _ = self.submissions.coordination.delete(&path, None).await;
                }
            }
        }
    }

    /// A place in the pool that a query is in, if this daemon's part of it has one.
    async fn enter(&self, id: &str, seen: &mut Seen) -> Entry {
        if self.queries.catalog.snapshot().pools.is_empty() {
            return Entry::Free;
        }
        if !seen.users.contains_key(id)
            && let Ok(Some(found)) = self.submissions.find(id).await
        {
            let Record { user, owner, .. } = found.record;
            let snapshot = self.queries.catalog.snapshot();
            let role = snapshot.role_of(&user, owner).map(|role| role.name.clone());
            seen.users.insert(id.to_owned(), role.unwrap_or(user));
        }
        let user = seen.users.get(id);
        user.map_or(Entry::Free, |user| self.queries.admission.try_enter(user))
    }

    /// A record that somebody has spoilt stays for people to look at.
    async fn drop_unreadable(&self, since: i64, id: &str, error: serde_json::Error) {
        warn!(id, %error, "the record of a submitted query cannot be read: it will not run");
        let path = Path::Queued(since, id).to_string();
        if let Err(error) = self.submissions.coordination.delete(&path, None).await {
            debug!(id, %error, "it stays in the queue for now");
        }
    }

    /// Has a query's record say that it waits, once: one whose daemon has ended, and for which nobody has a
    /// place yet, would be told to run there. As long as one that has claimed it may only be out of this
    /// daemon's reach, it runs for all that is known, and who has no place takes it from nobody.
    async fn tell_that_it_waits(&self, id: &str, claims: &[Claimed], seen: &mut Seen) {
        if seen.told.contains(id) {
            return;
        }
        match self.put_back(id, claims, seen).await {
            Ok(true) => drop(seen.told.insert(id.to_owned())),
            Ok(false) => {}
            Err(error) => debug!(id, %error, "that a query waits is not written yet"),
        }
    }

    /// Whether its record says that it waits, or is done. One that has no attempts left ends with who has a
    /// place for it: see [`Self::take`].
    async fn put_back(&self, id: &str, claims: &[Claimed], seen: &mut Seen) -> Result<bool> {
        if self.is_of_registered(claims, seen).await? {
            return Ok(false);
        }
        let Some(Found { record, version, .. }) = self.submissions.find(id).await? else {
            return Ok(true);
        };
        if record.state != State::Running || self.is_claimed_anew(id, &record, claims).await? {
            return Ok(true);
        }
        let mut ops = removing(id, claims);
        let waits = Record { state: State::Queued, daemon: None, progress: None, ..record };
        let (path, data) = (Path::Query(id).to_string(), encoded(id, &waits)?);
        ops.push(Op::Set { path, data, version: Some(version) });
        quietly(self.submissions.coordination.transact(ops).await)?;
        Ok(true)
    }

    /// Whether another daemon that has one of these claims is registered: it may work on, although this one
    /// cannot reach it. The store itself is asked, for the members known here may be those of a moment ago.
    async fn is_of_registered(&self, claims: &[Claimed], seen: &mut Seen) -> Result<bool> {
        let own = self.queries.membership.record().await.incarnation;
        for claimed in claims {
            let claim = self.claim(&claimed.node, seen).await?;
            let Some(claim) = claim.filter(|claim| claim.incarnation != own) else { continue };
            let path = Path::Incarnation(claim.incarnation).to_string();
            if self.submissions.coordination.stat(&path).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether somebody has claimed a query since its claims were listed: by whom, the next look tells.
    async fn is_claimed_anew(&self, id: &str, record: &Record, claims: &[Claimed]) -> Result<bool> {
        let attempt = record.attempt;
        if record.state != State::Running || claims.iter().any(|claim| claim.attempt == attempt) {
            return Ok(false);
        }
        let path = Path::Claim(id, attempt).to_string();
        Ok(self.submissions.coordination.stat(&path).await?.is_some())
    }

    /// Claims a query, and begins to work on it. Its claims, if any, are of daemons that have ended, or that
    /// this one cannot reach: of the last attempt that may be made, only the end is one.
    async fn take(
        self: &Arc<Self>,
        id: &str,
        since: i64,
        claims: &[Claimed],
        place: Option<Place>,
        seen: &mut Seen,
    ) -> Result<()> {
        let store = self.submissions.coordination.as_ref();
        let queued = Path::Queued(since, id).to_string();
        let found = self.submissions.find(id).await?;
        let Some(Found { record, version, .. }) =
            found.filter(|found| !found.record.state.is_final())
        else {
            return quietly(store.delete(&queued, None).await);
        };
        if self.is_claimed_anew(id, &record, claims).await? {
            return Ok(());
        }
        let mut ops = removing(id, claims);
        if record.used_attempts() >= self.attempts() {
            if self.is_of_registered(claims, seen).await? {
                return Ok(());
            }
            let failed = record.failed(given_up(record.used_attempts()));
            ops.extend(ending(id, &failed, Some(version))?);
            return quietly(store.transact(ops).await);
        }
        let incarnation = self.queries.membership.record().await.incarnation;
        let daemon = self.workers.own_id().to_owned();
        let (state, attempt, started) = (State::Running, record.attempt + 1, Some(Utc::now()));
        let claim = Claim { daemon: daemon.clone(), incarnation };
        let record = Record { state, daemon: Some(daemon), attempt, started, ..record };
        let data = serde_json::to_vec(&claim)
            .map_err(|source| Error::Record { id: id.to_owned(), source })?;
        let claim_path = Path::Claim(id, attempt).to_string();
        ops.push(Op::Check { path: Path::Incarnation(incarnation).to_string(), version: None });
        ops.push(Op::Check { path: queued, version: None });
        ops.push(Op::Create { path: claim_path, data: data.into(), mode: Mode::Ephemeral });
        ops.push(Op::Set {
            path: Path::Query(id).to_string(),
            data: encoded(id, &record)?,
            version: Some(version),
        });
        match store.transact(ops).await {
            Ok(_) => {}
            Err(error) if outrun(&error) || exists(&error) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        info!(id, attempt, "works on a submitted query");
        let stop = CancellationToken::new();
        self.lock().insert(id.to_owned(), stop.clone());
        let attempt = Arc::new(Attempt { id: id.to_owned(), record, claim, stop });
        let this = self.clone();
        self.tasks.spawn(async move {
            let running = Working { runner: &this, id: attempt.id.clone() };
            this.work(attempt, place).await;
            drop(running);
        });
        Ok(())
    }
}

/// Keeps a query among those that run here.
struct Working<'a> {
    runner: &'a Runner,
    id: String,
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.runner.lock().remove(&self.id);
    }
}

/// What removes a query's claims.
fn removing(id: &str, claims: &[Claimed]) -> Vec<Op> {
    let paths = claims.iter().map(|claim| Path::Claim(id, claim.attempt).to_string());
    paths.map(|path| Op::Delete { path, version: None }).collect()
}

/// What becomes of a write that another may have been quicker with.
fn quietly<T>(done: coordination::Result<T>) -> Result<()> {
    match done {
        Err(error) if !outrun(&error) => Err(error.into()),
        _ => Ok(()),
    }
}

fn given_up(attempts: u32) -> Failure {
    Failure {
        sqlstate: "58000".to_owned(),
        message: format!("gave up after {attempts} attempts, under each of which its daemon ended"),
        hint: Some("The logs of the daemons that ended may tell why.".to_owned()),
    }
}

/// The ids below a node.
pub(super) async fn names(store: &dyn Coordination, parent: &Path<'_>) -> Result<HashSet<String>> {
    let nodes = store.children(&parent.to_string()).await?;
    Ok(nodes.into_iter().filter_map(|node| paths::decode(&node)).collect())
}

/// The queries that are not done, oldest first, each with the time in its node's name.
async fn queued(store: &dyn Coordination) -> Result<Vec<(i64, String)>> {
    let mut nodes = store.children(&Path::Queue.to_string()).await?;
    nodes.sort();
    let parse = |node: String| {
        let (since, id) = node.split_once('-')?;
        Some((since.parse().ok()?, paths::decode(id)?))
    };
    Ok(nodes.into_iter().filter_map(parse).collect())
}

/// A claim, as its node's name tells it.
struct Claimed {
    node: String,
    attempt: u32,
}

/// The claims, by the queries' ids.
async fn claimed(store: &dyn Coordination) -> Result<HashMap<String, Vec<Claimed>>> {
    let mut claimed: HashMap<_, Vec<_>> = HashMap::new();
    for node in store.children(&Path::Claims.to_string()).await? {
        let Some((id, attempt)) = node.rsplit_once(':') else { continue };
        let (Some(id), Ok(attempt)) = (paths::decode(id), attempt.parse()) else { continue };
        claimed.entry(id).or_default().push(Claimed { node, attempt });
    }
    Ok(claimed)
}

/// This daemon's place in the order in which the ready ones take a query.
fn place(ready: &[Worker], own: &str, id: &str) -> u32 {
    let rank = |worker: &str| {
        let mut hasher = DefaultHasher::new();
        (worker, id).hash(&mut hasher);
        hasher.finish()
    };
    let before = ready.iter().filter(|worker| rank(&worker.id) < rank(own)).count();
    u32::try_from(before).unwrap_or(u32::MAX)
}
