//! Claims submitted queries and carries them out.
//!
//! All daemons watch the queue and the claims. For each query that has no claim, or that of a daemon
//! which has ended or does not answer, the ready daemons have an order of their own: the first takes
//! it at once, the others after a pause, should the first have no place.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::{Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema};
use bytes::Bytes;
use chrono::Utc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::record::{Letter, Outcome};
use super::{
    Claim, Ending, Error, Failure, Found, Record, Result, State, Submissions, encoded, ending,
    outrun,
};
use crate::catalog::{Column, FIRST_ROLE, Privilege};
use crate::cluster::{Election, Worker, Workers};
use crate::coordination::paths::{self, Path};
use crate::coordination::{self, Coordination, Mode, Op, Outcome as Written, Scope, SessionState};
use crate::engine::settings::{Settings, Source};
use crate::query::life::{self, Session};
use crate::query::{self, Queries, Running, Stop};
use crate::storage::results::ResultWriter;
use crate::values::encode::{TextStyle, text};
use crate::{catalog, engine, id, storage};

/// How long the next daemon in a query's order waits for the one before it.
const TURN: Duration = Duration::from_millis(150);

/// How often all is looked at although nothing seems to have changed, and the pause after the store
/// has refused something.
const LOOK: Duration = Duration::from_secs(1);

/// How often old queries are looked for.
const REAP: Duration = Duration::from_secs(60);

/// Below the warehouse: where results are.
const RESULTS: &str = ".results";

/// Rows, and bytes of JSON, that are kept in a query's record.
const SHOWN_ROWS: usize = 100;
const SHOWN_BYTES: usize = 8 << 10;

/// How an error is told to who asks for the query.
pub type Describe = fn(query::Error) -> Failure;

/// This daemon's part in carrying out submitted queries.
#[derive(Debug)]
pub struct Runner {
    submissions: Arc<Submissions>,
    queries: Arc<Queries>,
    workers: Arc<Workers>,
    election: Arc<Election>,
    describe: Describe,
    /// What runs here, by id; ended by whoever ends the query.
    running: Mutex<HashMap<String, CancellationToken>>,
    tasks: TaskTracker,
}

/// What this daemon has seen of the queue.
#[derive(Debug, Default)]
struct Seen {
    /// Since when a query has waited for somebody.
    waiting: HashMap<String, Instant>,
    /// Claims of daemons that are well are read once.
    claims: HashMap<String, Claim>,
}

/// A query that this daemon works on.
#[derive(Debug)]
struct Attempt {
    id: String,
    record: Record,
    /// Of its record, as long as the claim holds.
    version: i32,
    claim: Claim,
    stop: CancellationToken,
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
        let mut claims = store.watch(&Path::Claims.to_string(), Scope::Children);
        let mut inbox = store.watch(&Path::Inbox.to_string(), Scope::Children);
        let mut members = self.workers.watch();
        let mut suspected = self.workers.watch_suspects();
        let mut seen = Seen::default();
        loop {
            let next = match self.look(&mut seen).await {
                Ok(next) => next,
                Err(error) => {
                    debug!(%error, "submitted queries could not be looked at");
                    Instant::now() + LOOK
                }
            };
            tokio::select! {
                () = stop.cancelled() => break,
                event = queue.next() => if event.is_none() { break },
                event = claims.next() => if event.is_none() { break },
                event = inbox.next() => if event.is_none() { break },
                changed = members.changed() => if changed.is_err() { break },
                changed = suspected.changed() => if changed.is_err() { break },
                () = sleep_until(next) => {}
            }
        }
        for stop in self.lock().values() {
            stop.cancel();
        }
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// As long as this daemon leads, removes queries whose time is over, until `stop`. Needed exactly
    /// once.
    pub async fn reap(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(REAP) => {}
            }
            let Some(fence) = self.election.fence() else { continue };
            if let Err(error) = self.remove_old(&fence).await {
                debug!(%error, "old queries could not be removed yet");
            }
        }
    }

    /// Removes the records, and then the rows, of queries that were done too long ago or are too many.
    async fn remove_old(&self, fence: &Op) -> Result<()> {
        let store = self.submissions.coordination.as_ref();
        let mut done = Vec::new();
        for id in names(store, &Path::Queries).await? {
            // Running statements of clients are there as well.
            let Ok(Some(Found { record, version })) = self.submissions.find(&id).await else {
                continue;
            };
            if let Some(finished) = record.finished {
                done.push((finished, id, version));
            }
        }
        done.sort_by(|a, b| b.cmp(a));
        let limits = &self.submissions.limits;
        let oldest = chrono::Duration::from_std(limits.keep)
            .ok()
            .and_then(|keep| Utc::now().checked_sub_signed(keep));
        let old = |at: usize, finished| at >= limits.history || Some(finished) < oldest;
        for (at, (finished, id, version)) in done.into_iter().enumerate() {
            if !old(at, finished) {
                continue;
            }
            let path = Path::Query(&id).to_string();
            let ops = vec![fence.clone(), Op::Delete { path, version: Some(version) }];
            quietly(store.transact(ops).await)?;
            if let Some(url) = self.results_of(&id)
                && let Err(error) = self.queries.engine.files().remove_directory(&url).await
            {
                debug!(id, %error, "the rows of an old query stay for a while");
            }
        }
        Ok(())
    }

    /// The directory of a query's rows.
    fn results_of(&self, id: &str) -> Option<String> {
        let warehouse = self.queries.warehouse.as_ref()?;
        Some(format!("{}/{RESULTS}/{}", warehouse.trim_end_matches('/'), paths::encode(id)))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, CancellationToken>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what is this daemon's to take; when to look again.
    async fn look(self: &Arc<Self>, seen: &mut Seen) -> Result<Instant> {
        let store = self.submissions.coordination.as_ref();
        let next = Instant::now() + LOOK;
        if store.session().borrow().state != SessionState::Connected {
            return Ok(next);
        }
        self.empty_inbox().await?;
        let queue = names(store, &Path::Queue).await?;
        let claimed = names(store, &Path::Claims).await?;
        for (id, stop) in self.lock().iter() {
            if !queue.contains(id) {
                stop.cancel();
            }
        }
        seen.claims.retain(|id, _| claimed.contains(id));
        seen.waiting.retain(|id, _| queue.contains(id));
        let ready = self.workers.ready();
        let own = self.workers.own_id();
        if queue.is_empty() || !ready.iter().any(|worker| worker.id == own) {
            return Ok(next);
        }
        let mut soonest = next;
        for id in queue {
            if self.lock().contains_key(&id) {
                continue;
            }
            let holder = match claimed.contains(&id) {
                false => None,
                true => match self.holder(&id, seen).await? {
                    Some(claim) if !self.workers.has_ended(claim.incarnation) => {
                        seen.waiting.remove(&id);
                        continue;
                    }
                    holder => holder,
                },
            };
            let since = *seen.waiting.entry(id.clone()).or_insert_with(Instant::now);
            let turn = since + TURN * place(&ready, own, &id);
            if turn > Instant::now() {
                soonest = soonest.min(turn);
            } else if self.lock().len() < self.submissions.limits.running {
                seen.claims.remove(&id);
                self.take(&id, holder).await?;
            }
        }
        Ok(soonest)
    }

    async fn holder(&self, id: &str, seen: &mut Seen) -> Result<Option<Claim>> {
        // Of one that has ended another may have taken it over.
        if let Some(claim) = seen.claims.get(id)
            && !self.workers.has_ended(claim.incarnation)
        {
            return Ok(Some(claim.clone()));
        }
        let node = self.submissions.coordination.get(&Path::Claim(id).to_string()).await?;
        let claim: Option<Claim> = node.and_then(|node| serde_json::from_slice(&node.data).ok());
        seen.claims.extend(claim.clone().map(|claim| (id.to_owned(), claim)));
        Ok(claim)
    }

    /// Makes queries of what lies in the inbox.
    async fn empty_inbox(&self) -> Result<()> {
        let store = self.submissions.coordination.as_ref();
        for name in store.children(&Path::Inbox.to_string()).await? {
            let path = format!("{}/{name}", Path::Inbox);
            let Some(node) = store.get(&path).await? else { continue };
            let id = paths::decode(&name).unwrap_or(name);
            let record = self.read_letter(&node.data);
            let mode = Mode::Persistent;
            let mut ops = vec![
                Op::Delete { path: path.clone(), version: Some(node.stat.version) },
                Op::Create {
                    path: Path::Query(&id).to_string(),
                    data: encoded(&id, &record)?,
                    mode,
                },
            ];
            if !record.state.is_final() {
                self.submissions.has_room().await?;
                let path = Path::Queued(&id).to_string();
                ops.push(Op::Create { path, data: Bytes::new(), mode });
            }
            match store.transact(ops).await {
                Ok(_) => info!(id, "a query from the inbox"),
                // Another daemon was quicker, or there is a query of that name.
                Err(error) if outrun(&error) => {}
                Err(error) if super::exists(&error) => {
                    warn!(id, "a query in the inbox has the name of another, and is removed");
                    let _ = store.delete(&path, None).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn read_letter(&self, data: &[u8]) -> Record {
        let text = String::from_utf8_lossy(data);
        let letter = match serde_json::from_str::<Letter>(text.trim()) {
            Ok(letter) => letter,
            Err(_) => Letter {
                sql: text.trim().to_owned(),
                user: None,
                database: None,
                settings: Default::default(),
            },
        };
        let user = letter.user.unwrap_or_else(|| FIRST_ROLE.to_owned());
        let database = letter.database.unwrap_or_else(|| catalog::DEFAULT_DATABASE.to_owned());
        let record = Record::new(&user, &database, &letter.sql, letter.settings);
        match super::check(&letter.sql) {
            Ok(()) => record,
            Err(error) => record.failed(Failure {
                sqlstate: "42601".to_owned(),
                message: error.to_string(),
                hint: None,
            }),
        }
    }

    /// Claims a query, and begins to work on it.
    async fn take(self: &Arc<Self>, id: &str, holder: Option<Claim>) -> Result<()> {
        let store = self.submissions.coordination.as_ref();
        let Some(Found { record, version }) = self.submissions.find(id).await? else {
            let _ = store.delete(&Path::Queued(id).to_string(), None).await;
            return Ok(());
        };
        let taken_over = holder
            .is_some()
            .then(|| Op::Delete { path: Path::Claim(id).to_string(), version: None });
        if record.state.is_final() || record.attempt >= self.submissions.limits.attempts {
            let ended = match record.state.is_final() {
                true => record,
                false => record.failed(given_up(record.attempt)),
            };
            let mut ops: Vec<Op> = taken_over.into_iter().collect();
            ops.extend(ending(id, &ended, version)?);
            return quietly(store.transact(ops).await);
        }
        let own = self.queries.membership.record().await.incarnation;
        let attempt = record.attempt + 1;
        let daemon = self.workers.own_id().to_owned();
        let claim = Claim { daemon: daemon.clone(), incarnation: own, attempt };
        let record = Record {
            state: State::Running,
            daemon: Some(daemon),
            attempt,
            started: Some(Utc::now()),
            ..record
        };
        let data = serde_json::to_vec(&claim)
            .map_err(|source| Error::Record { id: id.to_owned(), source })?;
        let mut ops = vec![Op::Check { path: Path::Incarnation(own).to_string(), version: None }];
        ops.extend(taken_over);
        ops.push(Op::Create {
            path: Path::Claim(id).to_string(),
            data: data.into(),
            mode: Mode::Ephemeral,
        });
        ops.push(Op::Set {
            path: Path::Query(id).to_string(),
            data: encoded(id, &record)?,
            version: Some(version),
        });
        let version = match store.transact(ops).await {
            Ok(written) => match written.last() {
                Some(Written::Set(stat)) => stat.version,
                _ => version + 1,
            },
            Err(error) if outrun(&error) || super::exists(&error) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        info!(id, attempt, "works on a submitted query");
        let stop = CancellationToken::new();
        self.lock().insert(id.to_owned(), stop.clone());
        let attempt = Attempt { id: id.to_owned(), record, version, claim, stop };
        let this = self.clone();
        self.tasks.spawn(async move {
            this.work(&attempt).await;
            this.lock().remove(&attempt.id);
        });
        Ok(())
    }

    /// Works on a query to its end.
    async fn work(&self, attempt: &Attempt) {
        let done = self.carry_out(attempt).await;
        let ended = match done {
            Ok(None) => return,
            Ok(Some(outcome)) => {
                Record { outcome: Some(outcome), ..attempt.record.ended(State::Succeeded) }
            }
            Err(query::Error::Stopped(Stop::ShuttingDown)) => {
                // A peer takes it at once; this does not count as an attempt.
                let attempts = attempt.record.attempt - 1;
                let state = State::Queued;
                Record { state, daemon: None, attempt: attempts, ..attempt.record.clone() }
            }
            Err(error) => attempt.record.failed((self.describe)(error)),
        };
        self.write_end(attempt, &ended).await;
    }

    /// Writes what came of an attempt, unless it is no longer this daemon's to say.
    async fn write_end(&self, attempt: &Attempt, record: &Record) {
        let store = self.submissions.coordination.as_ref();
        let Attempt { id, version, claim, .. } = attempt;
        let ops = match ops_of_end(id, *version, claim, record) {
            Ok(ops) => ops,
            Err(error) => {
                return warn!(id = attempt.id, %error, "the end of a query is not written");
            }
        };
        loop {
            match store.transact(ops.clone()).await {
                Ok(_) => return,
                Err(error) if outrun(&error) => {
                    return debug!(id = attempt.id, "a query is another's by now, or has its end");
                }
                Err(error) if self.queries.membership.may_act() || error.is_unavailable() => {
                    debug!(id = attempt.id, %error, "the end of a query cannot be written yet");
                    if attempt.claim.incarnation
                        != self.queries.membership.record().await.incarnation
                    {
                        return;
                    }
                    sleep(LOOK).await;
                }
                Err(error) => {
                    return warn!(id = attempt.id, %error, "the end of a query is not written");
                }
            }
        }
    }

    /// Runs the statement. `None`: its end is written already, with what it has changed.
    async fn carry_out(&self, attempt: &Attempt) -> query::Result<Option<Outcome>> {
        let Record { user, database, sql, .. } = &attempt.record;
        self.may_enter(user, database).await?;
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let guard = self.queries.sessions.open(user, database, nowhere, None);
        let settings = self.settings(attempt)?;
        let mut session = Session::new(self.queries.clone(), guard, settings);
        let source = Session::parse(sql)?.pop();
        let source = source.ok_or_else(|| query::Error::Invalid("no statement".to_owned()))?;
        let registered = session.start(source.text())?;
        let entry = session.entry().clone();
        let working = async {
            let mut prepared = session.prepare(&registered, &source, Vec::new()).await?;
            let ending = self.ending(attempt);
            session.end_with(ending.clone());
            let columns: Vec<Column> =
                prepared.schema().fields().iter().map(|field| nullable(field)).collect();
            let executed = session.execute(registered, &mut prepared, Vec::new(), Ok).await?;
            match executed {
                life::Outcome::Done(_) if ending.is_used() => Ok(None),
                life::Outcome::Done(done) => {
                    Ok(Some(Outcome { tag: done.tag.into_owned(), ..Outcome::default() }))
                }
                life::Outcome::Rows(rows) => self.store(attempt, columns, rows).await.map(Some),
            }
        };
        tokio::pin!(working);
        tokio::select! {
            done = &mut working => return done,
            () = attempt.stop.cancelled() => {}
        }
        let draining = self.queries.shutdown.draining.is_cancelled();
        entry.stop(if draining { Stop::ShuttingDown } else { Stop::Cancelled });
        working.await
    }

    /// Its role has to be there, with the right to be in the database.
    async fn may_enter(&self, user: &str, database: &str) -> query::Result<()> {
        let catalog = &self.queries.catalog;
        catalog.database(database).await?;
        let snapshot = catalog.snapshot();
        if !snapshot.roles.contains_key(user) {
            return Err(query::Error::NoRoleToTake(user.to_owned()));
        }
        let found = snapshot.databases.get(database);
        match found.is_some_and(|d| snapshot.access(user).database(d, Privilege::Connect)) {
            true => Ok(()),
            false => {
                let (kind, name) = (catalog::ObjectKind::Database, database.to_owned());
                Err(catalog::Error::Denied { kind, name }.into())
            }
        }
    }

    /// The role's settings, and what was asked for.
    fn settings(&self, attempt: &Attempt) -> query::Result<Settings> {
        let mut settings = Settings::default();
        let snapshot = self.queries.catalog.snapshot();
        let role = snapshot.roles.get(attempt.record.user.as_str());
        for (name, value) in role.iter().flat_map(|role| &role.record.settings) {
            if let Err(error) = settings.set_default(name, value, Source::Role) {
                warn!(%error, "a setting of a role is left out");
            }
        }
        let mut asked = attempt.record.settings.clone();
        asked.insert("application_name".to_owned(), format!("submitted {}", attempt.id));
        for (name, value) in &asked {
            settings.set_default(name, value, Source::Client).map_err(engine::Error::from)?;
        }
        Ok(settings)
    }

    /// What goes with the commit of a statement that writes.
    fn ending(&self, attempt: &Attempt) -> Arc<Ending> {
        let (id, version) = (attempt.id.clone(), attempt.version);
        let (record, claim) = (attempt.record.clone(), attempt.claim.clone());
        Arc::new(Ending::new(move |tag: &str| {
            let outcome = Outcome { tag: tag.to_owned(), ..Outcome::default() };
            let record = Record { outcome: Some(outcome), ..record.ended(State::Succeeded) };
            ops_of_end(&id, version, &claim, &record).unwrap_or_default()
        }))
    }

    /// Writes rows to where all daemons can read them; few are kept in the record as well.
    async fn store(
        &self,
        attempt: &Attempt,
        columns: Vec<Column>,
        mut rows: Running<RecordBatch>,
    ) -> query::Result<Outcome> {
        let directory = self.results_of(&attempt.id).ok_or(storage::Error::NoWarehouse)?;
        let url = format!("{directory}/{}-{}.parquet", attempt.record.attempt, id::nonce());
        let schema = Arc::new(Schema::new(columns.iter().map(Column::field).collect::<Vec<_>>()));
        let mut writer = ResultWriter::new(self.queries.engine.files(), &url, schema.clone())?;
        let (mut shown, mut count) = (Some(Vec::new()), 0);
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            count += batch.num_rows();
            shown = shown.filter(|_| count <= SHOWN_ROWS);
            if let Some(shown) = &mut shown {
                shown.push(batch.clone());
            }
            writer.write(&batch).await?;
        }
        writer.finish().await?;
        self.queries.engine.files().flush(vec![url.clone()]).await?;
        let tag = format!("SELECT {count}");
        let rows = shown.and_then(|batches| as_json(&schema, &batches));
        Ok(Outcome { tag, location: Some(url), columns, rows })
    }
}

/// What ends an attempt: it fails as soon as the claim is not this daemon's any more.
fn ops_of_end(id: &str, version: i32, claim: &Claim, record: &Record) -> Result<Vec<Op>> {
    let own = Path::Incarnation(claim.incarnation).to_string();
    let mut ops = vec![Op::Check { path: own, version: None }];
    match record.state.is_final() {
        true => ops.extend(ending(id, record, version)?),
        false => ops.push(Op::Set {
            path: Path::Query(id).to_string(),
            data: encoded(id, record)?,
            version: Some(version),
        }),
    }
    ops.push(Op::Delete { path: Path::Claim(id).to_string(), version: None });
    Ok(ops)
}

/// A result's column as it is kept.
fn nullable(field: &Field) -> Column {
    Column { nullable: true, ..Column::from(field) }
}

/// What becomes of a transaction that another may have been quicker with.
fn quietly(done: coordination::Result<Vec<Written>>) -> Result<()> {
    match done {
        Err(error) if !outrun(&error) => Err(error.into()),
        _ => Ok(()),
    }
}

fn given_up(attempts: u32) -> Failure {
    Failure {
        sqlstate: "58000".to_owned(),
        message: format!("gave up after {attempts} attempts, under each of which a daemon ended"),
        hint: Some("The logs of the daemons that ended may tell why.".to_owned()),
    }
}

async fn names(store: &dyn Coordination, parent: &Path<'_>) -> Result<HashSet<String>> {
    let nodes = store.children(&parent.to_string()).await?;
    Ok(nodes.into_iter().filter_map(|node| paths::decode(&node)).collect())
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

/// Rows as JSON: an array of values for each, numbers and booleans as such, all else as text.
fn as_json(schema: &Schema, batches: &[RecordBatch]) -> Option<serde_json::Value> {
    let style = TextStyle::default();
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Vec<StringViewArray> = (schema.fields().iter().zip(batch.columns()))
            .map(|(field, array)| text(field, array, &style).ok())
            .collect::<Option<_>>()?;
        for row in 0..batch.num_rows() {
            let values = schema.fields().iter().zip(&columns).map(|(field, column)| {
                if column.is_null(row) {
                    return serde_json::Value::Null;
                }
                let text = column.value(row);
                let kind = field.data_type();
                match kind.is_integer() || kind.is_floating() {
                    true => serde_json::from_str(text).unwrap_or_else(|_| text.into()),
                    false if *kind == DataType::Boolean => (text == "t").into(),
                    false => text.into(),
                }
            });
            rows.push(serde_json::Value::Array(values.collect()));
        }
    }
    let rows = serde_json::Value::Array(rows);
    (rows.to_string().len() <= SHOWN_BYTES).then_some(rows)
}
