//! The running statements, in memory and in the coordination store.
//!
//! A ticker writes all changes of a tick in one transaction: however many statements run, it is a
//! fixed number of writes a second, and a statement that is quicker than a tick is never written.
//! Nothing on the way of a statement waits for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tracing::debug;
use uuid::Uuid;

use super::history::{Facts, History, is_final};
use super::sessions::{SessionEntry, cut};
use super::submitted::{Failure, KIND};
use crate::config;
use crate::coordination::paths::{Path, decode};
use crate::coordination::{self, Coordination, Mode, Op, SessionState};

/// Bytes of values in one transaction: ZooKeeper takes 1 MiB.
const MAX_BYTES: usize = 256 * 1024;

/// Bytes of a statement's text, of which its node holds several times as much at most, as JSON.
const MAX_TEXT: usize = 16 * 1024;

/// Steps in one transaction.
const MAX_STEPS: usize = 500;

/// Reads under way at once while other daemons' statements are gathered.
const CONCURRENT_READS: usize = 64;

/// How long a statement stays in the store when it has ended, with what has become of it: whoever
/// watches is to see that.
const LINGER: Duration = Duration::from_secs(1);

/// The state of a statement that waits in its pool's queue.
pub const QUEUED: &str = "queued";

/// What [`Entry::kind`] says of a client's statement.
const INTERACTIVE: &str = "interactive";

/// And of the one that carries out a submitted query.
pub const ATTEMPT: &str = "attempt";

/// A statement that runs or waits: the value of `/queries/<id>`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub kind: String,
    /// Of an attempt: the id of the submitted query, which has an entry of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    pub state: String,
    /// Of a submitted query as long as no daemon has taken it: empty.
    #[serde(default)]
    pub daemon: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    pub attempt: u32,
    pub user: String,
    /// The role's OID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<u32>,
    pub database: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub application_name: String,
    /// The pool that it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Cut to the configured length.
    pub sql: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submitted: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<DateTime<Utc>>,
    /// Of a submitted query that runs, from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

impl Entry {
    fn is_done(&self) -> bool {
        is_final(&self.state)
    }
}

/// How a statement of this daemon goes.
#[derive(Clone, Debug)]
pub struct Look {
    /// What it is listed as: an attempt as the submitted query that it is at.
    pub id: String,
    /// Of a client's statement 1.
    pub attempt: u32,
    /// `planning` or `executing`.
    pub phase: &'static str,
    /// From 0 to 1, if that can be told.
    pub progress: Option<f64>,
    /// Rows that its plan has given so far.
    pub rows: u64,
    /// Bytes read so far, those on other daemons a second or two ago.
    pub scanned: u64,
    /// The daemons that take part.
    pub workers: Vec<String>,
}

/// What this daemon runs.
#[derive(Debug)]
pub struct Registry {
    coordination: Arc<dyn Coordination>,
    /// This daemon's id.
    daemon: String,
    interval: Duration,
    /// Bytes of a statement's text that are shown.
    text_limit: usize,
    history: Arc<History>,
    running: Mutex<HashMap<Uuid, Listed>>,
    /// Submitted queries that are done, as they were read: they do not change any more.
    done: Mutex<HashMap<String, Entry>>,
}

/// A statement of this daemon. An [`Entry`] is made of it when somebody looks.
#[derive(Clone, Debug)]
struct Listed {
    since: Instant,
    session: Arc<SessionEntry>,
    text: Arc<str>,
    facts: Arc<Facts>,
}

impl Registry {
    pub fn new(
        coordination: Arc<dyn Coordination>,
        daemon: &str,
        config: &config::Query,
        history: Arc<History>,
    ) -> Arc<Self> {
        let text_limit = usize::try_from(config.register_text_limit.0).unwrap_or(usize::MAX);
        let text_limit = text_limit.min(MAX_TEXT);
        Arc::new(Self {
            coordination,
            daemon: daemon.to_owned(),
            interval: config.register_interval,
            text_limit,
            history,
            running: Mutex::default(),
            done: Mutex::default(),
        })
    }

    /// Puts a statement on the list until the guard is dropped.
    pub(super) fn add(
        self: &Arc<Self>,
        session: &Arc<SessionEntry>,
        facts: &Arc<Facts>,
    ) -> RegistryGuard {
        let (session, text) = (session.clone(), cut(&facts.text, self.text_limit));
        let (id, facts) = (facts.id, facts.clone());
        let listed = Listed { since: Instant::now(), session, text, facts };
        if listed.session.unlisted.get().is_none() {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.insert(id, listed);
        }
        RegistryGuard { registry: self.clone(), id }
    }

    /// The statements that run here, oldest first.
    pub fn local(&self) -> Vec<(Uuid, Entry)> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let mut list: Vec<_> =
            running.iter().map(|(id, listed)| (*id, self.entry(*id, listed))).collect();
        list.sort_by_key(|(id, _)| *id);
        list
    }

    /// How the statements of this daemon go.
    pub fn looks(&self) -> Vec<Look> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let listed: Vec<Listed> = running.values().cloned().collect();
        // Plans are looked at without holding anybody up.
        drop(running);
        listed.iter().map(|listed| self.look(listed)).collect()
    }

    fn look(&self, listed: &Listed) -> Look {
        let Listed { session, facts, .. } = listed;
        let (id, attempt) = match session.attempt.get() {
            Some((query, number)) => (query.clone(), *number),
            None => (facts.id.to_string(), 1),
        };
        let workers = facts.observation.workers();
        Look {
            id,
            attempt,
            phase: if facts.is_executed() { "executing" } else { "planning" },
            progress: facts.observation.progress(),
            rows: facts.observation.rows(),
            scanned: facts.observation.scanned(),
            workers: if workers.is_empty() { vec![self.daemon.clone()] } else { workers },
        }
    }

    /// How far a statement of this daemon is, from 0 to 1, if that can be told.
    pub fn progress(&self, id: &Uuid) -> Option<f64> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let facts = running.get(id)?.facts.clone();
        drop(running);
        facts.observation.progress()
    }

    /// Has it written down that statements run that have become old enough.
    fn note_begun(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        for listed in running.values().filter(|listed| listed.since.elapsed() >= self.interval) {
            self.history.note_begun(&listed.facts, &listed.session);
        }
    }

    fn entry(&self, id: Uuid, listed: &Listed) -> Entry {
        let session = &listed.session;
        let (pool, waits) = session.pool_of(id);
        let attempt = session.attempt.get();
        Entry {
            kind: if attempt.is_some() { ATTEMPT } else { INTERACTIVE }.to_owned(),
            query: attempt.map(|(query, _)| query.clone()),
            state: if waits { QUEUED } else { "running" }.to_owned(),
            daemon: self.daemon.clone(),
            pid: Some(session.pid),
            attempt: attempt.map_or(1, |(_, number)| *number),
            user: session.user.clone(),
            owner: Some(session.owner),
            database: session.database.clone(),
            application_name: session.application_name(),
            pool: pool.map(|pool| pool.to_string()),
            sql: listed.text.to_string(),
            submitted: None,
            started: Some(listed.facts.started),
            progress: None,
            error: None,
        }
    }

    /// The statements that run anywhere: those of this daemon from memory, the others' from the
    /// store, with the `submitted` ones or without; and whether that are all. Out of reach of the store
    /// it is only the former.
    pub async fn everywhere(&self, submitted: bool) -> (Vec<(String, Entry)>, bool) {
        let local = self.local().into_iter().map(|(id, entry)| (id.to_string(), entry));
        let mut list: Vec<_> = local.collect();
        if self.coordination.session().borrow().state != SessionState::Connected {
            return (list, false);
        }
        let Ok(mut nodes) = self.coordination.children(&Path::Queries.to_string()).await else {
            return (list, false);
        };
        if !submitted {
            // Only a client's statement has a UUID for its name.
            nodes.retain(|node| node.parse::<Uuid>().is_ok());
        }
        let read: Vec<_> = stream::iter(nodes)
            .map(|node| self.read_entry(node))
            .buffer_unordered(CONCURRENT_READS)
            .collect()
            .await;
        let complete = read.iter().all(Result::is_ok);
        list.extend(read.into_iter().flatten().flatten());
        list.sort_by(|(a, _), (b, _)| a.cmp(b));
        if submitted {
            self.done().retain(|id, _| list.iter().any(|(listed, _)| listed == id));
        }
        (list, complete)
    }

    /// What a node tells, unless it is a statement of this daemon's, or no more.
    async fn read_entry(&self, node: String) -> coordination::Result<Option<(String, Entry)>> {
        let Some(id) = decode(&node) else { return Ok(None) };
        if let Some(entry) = self.done().get(&id) {
            return Ok(Some((id, entry.clone())));
        }
        let read = self.coordination.get(&Path::Query(&id).to_string()).await?;
        let entry = read.and_then(|read| serde_json::from_slice::<Entry>(&read.data).ok());
        let Some(entry) = entry else { return Ok(None) };
        if entry.kind == KIND && entry.is_done() {
            self.done().insert(id.clone(), entry.clone());
        }
        let runs_elsewhere = entry.daemon != self.daemon && !entry.is_done();
        Ok((entry.kind == KIND || runs_elsewhere).then_some((id, entry)))
    }

    fn done(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes changes to the store until `stop`. Needed exactly once.
    pub async fn tick(self: Arc<Self>, stop: CancellationToken) {
        let mut written = Written::default();
        let mut ticker = tokio::time::interval(self.interval);
        ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticker.tick() => {}
            }
            self.note_begun();
            let session = *self.coordination.session().borrow();
            if session.state == SessionState::Connected {
                written.enter(session.epoch);
                self.write(&mut written).await;
            }
        }
    }

    /// Brings the store in line with the present list, in one transaction.
    async fn write(&self, written: &mut Written) {
        let (mut ops, mut after) = (Vec::new(), written.ids.clone());
        let mut bytes = 0;
        let now = Instant::now();
        {
            let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            for (id, known) in written.ids.iter().filter(|(id, _)| !running.contains_key(id)) {
                if ops.len() >= MAX_STEPS || bytes >= MAX_BYTES {
                    break;
                }
                let path = Path::Query(&id.to_string()).to_string();
                let Known { listed, shown, ended } = known.clone();
                let (shown, ended) = match ended {
                    // Its client is told at this moment.
                    None => (shown, now),
                    Some(ended) if now.duration_since(ended) >= LINGER => {
                        ops.push(Op::Delete { path, version: None });
                        after.remove(id);
                        continue;
                    }
                    Some(_) if shown == Shown::Ended => continue,
                    Some(ended) => {
                        let state = listed.facts.state().as_str().to_owned();
                        let entry = Entry { state, ..self.entry(*id, &listed) };
                        let Ok(data) = serde_json::to_vec(&entry) else { continue };
                        bytes += data.len();
                        ops.push(Op::Set { path, data: data.into(), version: None });
                        (Shown::Ended, ended)
                    }
                };
                after.insert(*id, Known { listed, shown, ended: Some(ended) });
            }
            for (id, listed) in running.iter() {
                let old = now.duration_since(listed.since) >= self.interval;
                if !old || ops.len() >= MAX_STEPS || bytes >= MAX_BYTES {
                    continue;
                }
                let known = written.ids.get(id).map(|known| known.shown.clone());
                let shown = Shown::of(*id, listed);
                if known.as_ref() == Some(&shown) {
                    continue;
                }
                let Ok(data) = serde_json::to_vec(&self.entry(*id, listed)) else { continue };
                bytes += data.len();
                let (path, data) = (Path::Query(&id.to_string()).to_string(), data.into());
                ops.push(match known {
                    None => Op::Create { path, data, mode: Mode::Ephemeral },
                    Some(_) => Op::Set { path, data, version: None },
                });
                after.insert(*id, Known { shown, listed: listed.clone(), ended: None });
            }
        }
        if ops.is_empty() {
            written.ids = after;
            return;
        }
        if let Err(error) = self.coordination.transact(ops.clone()).await {
            debug!(%error, "the running statements could not be written together");
            // Perhaps an earlier write landed although its reply was lost: one by one, each step
            // may find its work done.
            for op in ops {
                match self.single(op).await {
                    Ok(()) => {}
                    Err(error) if error.is_unavailable() => {
                        debug!(%error, "the running statements could not be written");
                        // Whatever of it landed: all of it is taken off the store in the end.
                        written.ids.extend(after);
                        return;
                    }
                    Err(error) => debug!(%error, "a running statement could not be written"),
                }
            }
        }
        written.ids = after;
    }

    async fn single(&self, op: Op) -> coordination::Result<()> {
        let done = match op {
            Op::Create { path, data, mode } => {
                self.coordination.create(&path, data, mode).await.map(drop)
            }
            Op::Delete { path, version } => self.coordination.delete(&path, version).await,
            Op::Set { path, data, version } => {
                self.coordination.set(&path, data, version).await.map(drop)
            }
            Op::Check { .. } => Ok(()),
        };
        match done {
            Err(coordination::Error::NodeExists { .. } | coordination::Error::NoNode { .. }) => {
                Ok(())
            }
            done => done,
        }
    }
}

/// Which statements stand in the store, and how.
#[derive(Default)]
struct Written {
    epoch: u64,
    ids: HashMap<Uuid, Known>,
}

#[derive(Clone)]
struct Known {
    shown: Shown,
    listed: Listed,
    /// Since when it is not on the list any more.
    ended: Option<Instant>,
}

/// What the store says of a statement, as far as that changes: it may be there before the statement has
/// come to its pool, such as one that takes long to plan.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Shown {
    UnderWay { pool: Option<Arc<str>>, waits: bool },
    Ended,
}

impl Shown {
    fn of(id: Uuid, listed: &Listed) -> Self {
        let (pool, waits) = listed.session.pool_of(id);
        Self::UnderWay { pool, waits }
    }
}

impl Written {
    /// A new session: what the last one wrote went with it.
    fn enter(&mut self, epoch: u64) {
        if self.epoch != epoch {
            *self = Self { epoch, ids: HashMap::new() };
        }
    }
}

/// Lists submitted queries once: what the statements tell that carry them out is told of them.
pub fn without_attempts(list: Vec<(String, Entry)>) -> Vec<(String, Entry)> {
    let (mut queries, mut attempts) = (Vec::new(), HashMap::new());
    for (id, entry) in list {
        match entry.query.clone() {
            Some(query) => drop(attempts.insert((query, entry.attempt), entry)),
            None => queries.push((id, entry)),
        }
    }
    for (id, query) in queries.iter_mut().filter(|(_, query)| query.kind == KIND) {
        if let Some(attempt) = attempts.remove(&(id.clone(), query.attempt))
            && !query.is_done()
        {
            (query.pid, query.pool) = (attempt.pid, attempt.pool);
        }
        // Those before it are being stopped.
        attempts.retain(|(known, _), _| known != id);
    }
    // Out of reach of the store only they tell of their queries.
    let alone = attempts
        .into_iter()
        .map(|((id, _), attempt)| (id, Entry { kind: KIND.to_owned(), query: None, ..attempt }));
    queries.extend(alone);
    queries.sort_by(|(a, _), (b, _)| a.cmp(b));
    queries
}

/// Keeps a statement on the list.
#[derive(Debug)]
pub(super) struct RegistryGuard {
    registry: Arc<Registry>,
    id: Uuid,
}

impl RegistryGuard {
    pub fn id(&self) -> Uuid {
        self.id
    }
}

impl Drop for RegistryGuard {
    fn drop(&mut self) {
        let mut running = self.registry.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.remove(&self.id);
    }
}
