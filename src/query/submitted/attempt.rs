//! One attempt at a submitted query.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::error::DataFusionError;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};
use uuid::Uuid;

use super::record::Outcome;
use super::runner::{LOOK, Runner};
use super::{
    Claim, Ending, Error, Failure, Record, Result, State, encoded, ending, outrun, plain_settings,
};
use crate::catalog::{self, Column, Privilege, Role};
use crate::coordination::paths::{self, Path};
use crate::coordination::{MAX_DATA, Op};
use crate::engine::settings::{Settings, Source};
use crate::query::admission::Place;
use crate::query::life::{self, Session};
use crate::query::{self, Queries, Running, Stop};
use crate::storage::managed::TableFiles;
use crate::storage::results::ResultWriter;
use crate::values::encode::{TextStyle, text};
use crate::{engine, id, storage};

/// Below the warehouse, and the cluster's UUID below that: where results are.
const RESULTS: &str = ".results";

/// How often it is looked how far a query is, and by how much more of it this is written.
const TELL: Duration = Duration::from_secs(1);
const STEP: f64 = 0.01;

/// Rows, and bytes of JSON, that are kept in a query's record.
const SHOWN_ROWS: usize = 100;
const SHOWN_BYTES: usize = 8 << 10;

/// Bytes of a record's end beside its columns: the time, the rows' place.
const REST: usize = 2 << 10;

/// Bytes of a batch in memory beyond which it is not even tried.
const SHOWN_MEMORY: usize = 4 << 20;

/// A query that this daemon works on.
#[derive(Debug)]
pub(super) struct Attempt {
    pub id: String,
    pub record: Record,
    pub claim: Claim,
    pub stop: CancellationToken,
}

impl Attempt {
    fn claim_path(&self) -> String {
        Path::Claim(&self.id, self.record.attempt).to_string()
    }

    /// What ends the attempt, with the query or without: it fails as soon as the claim is not this
    /// daemon's any more, or the query has its end.
    fn ops_of_end(&self, record: &Record) -> Result<Vec<Op>> {
        let own = Path::Incarnation(self.claim.incarnation).to_string();
        let mut ops = vec![
            Op::Check { path: own, version: None },
            Op::Delete { path: self.claim_path(), version: None },
        ];
        if record.state.is_final() {
            ops.extend(ending(&self.id, record, None)?);
        } else {
            let queued = Path::Queued(record.since(), &self.id).to_string();
            let (path, data) = (Path::Query(&self.id).to_string(), encoded(&self.id, record)?);
            ops.push(Op::Check { path: queued, version: None });
            ops.push(Op::Set { path, data, version: None });
        }
        Ok(ops)
    }

    /// Whether the record can name these columns.
    fn has_room_for(&self, columns: &[Column]) -> query::Result<()> {
        let outcome = Outcome { columns: columns.to_vec(), ..Outcome::default() };
        let named = Record { outcome: Some(outcome), ..self.record.clone() };
        match encoded(&self.id, &named)?.len() + REST <= MAX_DATA {
            true => Ok(()),
            false => Err(Error::TooManyColumns(columns.len()).into()),
        }
    }

    /// What goes with the commit of a statement that writes.
    fn ending(self: &Arc<Self>) -> Arc<Ending> {
        let this = self.clone();
        Arc::new(Ending::new(move |tag: &str| {
            let outcome = Outcome { tag: tag.to_owned(), ..Outcome::default() };
            let record = Record { outcome: Some(outcome), ..this.record.ended(State::Succeeded) };
            this.ops_of_end(&record)
        }))
    }
}

/// Why an attempt has failed.
struct Failed {
    failure: Failure,
    /// Whether the next one may fare better.
    may_pass: bool,
}

/// Whether a statement was refused since it writes, and its session only reads: the SQLSTATE is also
/// that of a store out of reach.
fn is_read_only(error: &query::Error) -> bool {
    let inner = match error {
        query::Error::ReadOnly(_) => return true,
        query::Error::Engine(engine::Error::Plan(error) | engine::Error::Execution(error)) => error,
        _ => return false,
    };
    let DataFusionError::External(inner) = inner.find_root() else { return false };
    matches!(inner.downcast_ref::<Error>(), Some(Error::ReadOnly(_)))
}

impl Runner {
    /// Works on a query to its end.
    pub(super) async fn work(&self, attempt: Arc<Attempt>, place: Option<Place>) {
        let record = match self.carry_out(&attempt, place).await {
            Ok(None) => return,
            Ok(Some(outcome)) => {
                Record { outcome: Some(outcome), ..attempt.record.ended(State::Succeeded) }
            }
            Err(_) if self.queries.shutdown.draining.is_cancelled() => {
                // A peer takes it at once.
                let record = attempt.record.clone();
                let (state, given_back) = (State::Queued, record.given_back + 1);
                Record { state, daemon: None, given_back, ..record }
            }
            Err(Failed { failure, may_pass }) => match may_pass && self.has_more(&attempt) {
                true => Record { state: State::Queued, daemon: None, ..attempt.record.clone() },
                false => attempt.record.failed(failure),
            },
        };
        self.write_end(&attempt, &record).await;
    }

    fn has_more(&self, attempt: &Attempt) -> bool {
        attempt.record.used_attempts() < self.attempts()
    }

    fn failed(&self, error: query::Error) -> Failed {
        let refused = is_read_only(&error);
        let failure = (self.describe)(error);
        Failed { may_pass: !refused && failure.may_pass(), failure }
    }

    /// Writes what came of an attempt, unless it is no longer this daemon's to say.
    async fn write_end(&self, attempt: &Attempt, record: &Record) {
        let store = self.submissions.coordination.as_ref();
        let id = &attempt.id;
        let ops = match attempt.ops_of_end(record) {
            Ok(ops) => ops,
            Err(error) => return warn!(id, %error, "the end of a query is not written"),
        };
        loop {
            match store.transact(ops.clone()).await {
                Ok(_) => return,
                Err(error) if outrun(&error) => {
                    debug!(id, "a query is another's by now, or has its end");
                    // Whoever has cancelled it leaves the claim.
                    let _ = store.delete(&attempt.claim_path(), None).await;
                    return;
                }
                Err(error) if error.is_unavailable() => {
                    debug!(id, %error, "the end of a query cannot be written yet");
                    let now = self.queries.membership.record().await.incarnation;
                    if attempt.claim.incarnation != now {
                        return;
                    }
                    sleep(LOOK).await;
                }
                Err(error) => return warn!(id, %error, "the end of a query is not written"),
            }
        }
    }

    /// Runs the statement. `None`: its end is written already, with what it has changed.
    async fn carry_out(
        &self,
        attempt: &Arc<Attempt>,
        place: Option<Place>,
    ) -> Result<Option<Outcome>, Failed> {
        let mut session = self.session_of(attempt).await.map_err(|error| self.failed(error))?;
        let _seated = place.map(|place| session.sit(place));
        let done = self.run_in(&mut session, attempt).await.map_err(|error| self.failed(error));
        // As long as the session is there: with it, its statement goes into the history.
        if let Err(Failed { failure, .. }) = &done {
            session.entry().failed(&failure.sqlstate, &failure.message);
        }
        done
    }

    async fn session_of(&self, attempt: &Attempt) -> query::Result<Session> {
        let database = &attempt.record.database;
        let role = self.role_of(&attempt.record).await?;
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let guard = self.queries.sessions.open(&role, database, nowhere, None);
        let _ = guard.entry().attempt.set((attempt.id.clone(), attempt.record.attempt));
        let settings = self.settings_of(attempt, &role).await?;
        Ok(Session::new(self.queries.clone(), guard, settings))
    }

    /// What a session of the role begins with there, and what was asked for.
    async fn settings_of(&self, attempt: &Attempt, role: &Role) -> query::Result<Settings> {
        let database = self.queries.catalog.database(&attempt.record.database).await?;
        let mut settings = plain_settings(role);
        settings.take_system(&self.queries.live.current().settings);
        let of_database = database.record.settings.iter().map(|set| (Source::Database, set));
        let of_role = role.record.settings.iter().map(|set| (Source::Role, set));
        for (source, (name, value)) in of_database.chain(of_role) {
            if let Err(error) = settings.set_default(name, value, source) {
                let source = source.name();
                warn!(id = attempt.id, source, %error, "a setting of a role or database is left out");
            }
        }
        let mut asked = attempt.record.settings.clone();
        asked.insert("application_name".to_owned(), format!("submitted {}", attempt.id));
        for (name, value) in &asked {
            settings.set_default(name, value, Source::Client).map_err(engine::Error::from)?;
        }
        Ok(settings)
    }

    async fn run_in(
        &self,
        session: &mut Session,
        attempt: &Arc<Attempt>,
    ) -> query::Result<Option<Outcome>> {
        let source = Session::parse(&attempt.record.sql)?.pop();
        let source = source.ok_or_else(|| query::Error::Invalid("no statement".to_owned()))?;
        let registered = session.start(source.text())?;
        session.take_turn(&registered);
        let (id, entry) = (registered.id(), session.entry().clone());
        let working = async {
            let mut prepared = session.prepare(&registered, &source, Vec::new()).await?;
            let ending = attempt.ending();
            session.end_with(ending.clone());
            let columns = columns_of(&prepared.schema());
            attempt.has_room_for(&columns)?;
            let executed = session.execute(registered, &mut prepared, Vec::new(), Ok).await?;
            let outcome = match executed {
                life::Outcome::Done(done) => {
                    Outcome { tag: done.tag.into_owned(), ..Outcome::default() }
                }
                life::Outcome::Rows(rows) => self.store(attempt, columns, rows).await?,
            };
            session.entry().completed(&outcome.tag);
            // What it notifies; nobody waits to be told of delays.
            session.settle().await?;
            Ok((!ending.has_landed()).then_some(outcome))
        };
        tokio::pin!(working);
        tokio::select! {
            done = &mut working => return done,
            () = self.tell_progress(attempt, id) => {}
            () = attempt.stop.cancelled() => {}
        }
        let draining = self.queries.shutdown.draining.is_cancelled();
        entry.stop(if draining { Stop::ShuttingDown } else { Stop::Cancelled });
        working.await
    }

    /// Writes how far the statement is, as long as the attempt is this daemon's.
    async fn tell_progress(&self, attempt: &Attempt, statement: Uuid) {
        let queued = Path::Queued(attempt.record.since(), &attempt.id).to_string();
        let mut told = 0.0;
        loop {
            sleep(TELL).await;
            let progress = self.queries.registry.progress(&statement);
            let Some(progress) = progress.filter(|progress| progress - told >= STEP) else {
                continue;
            };
            told = progress;
            // Never more than who looks at the statement itself is told.
            let progress = Some((progress * 100.0).floor() / 100.0);
            let record = Record { progress, ..attempt.record.clone() };
            let Ok(data) = encoded(&attempt.id, &record) else { continue };
            let ops = vec![
                Op::Check { path: attempt.claim_path(), version: None },
                Op::Check { path: queued.clone(), version: None },
                Op::Set { path: Path::Query(&attempt.id).to_string(), data, version: None },
            ];
            if let Err(error) = self.submissions.coordination.transact(ops).await {
                debug!(id = attempt.id, %error, "how far a query is could not be written");
            }
        }
    }

    /// Whose query it is, by whatever name it has now. It has to have the right to be in the database.
    async fn role_of(&self, record: &Record) -> query::Result<Arc<Role>> {
        let Record { user, owner, database, .. } = record;
        let catalog = &self.queries.catalog;
        catalog.database(database).await?;
        let role = catalog.role_of(user, *owner).await?;
        let role = role.ok_or_else(|| query::Error::NoRoleToTake(user.clone()))?;
        let snapshot = catalog.snapshot();
        let found = snapshot.databases.get(database);
        match found.is_some_and(|d| snapshot.access(&role.name).database(d, Privilege::Connect)) {
            true => Ok(role),
            false => {
                let (kind, name) = (catalog::ObjectKind::Database, database.to_owned());
                Err(catalog::Error::Denied { kind, name }.into())
            }
        }
    }

    /// Writes rows to where all daemons can read them; few are kept in the record as well.
    async fn store(
        &self,
        attempt: &Attempt,
        columns: Vec<Column>,
        mut rows: Running<RecordBatch>,
    ) -> query::Result<Outcome> {
        let results = Results::of_daemon(&self.queries).ok_or(storage::Error::NoPlaceForResults)?;
        let directory = results.of(&attempt.id);
        let url = format!("{directory}/{}-{}.parquet", attempt.record.attempt, id::nonce());
        let engine = self.queries.engine.clone();
        // On the engine's threads: encoding keeps one busy.
        let stored = self.queries.engine.handle().spawn(async move {
            let mut writer = ResultWriter::new(engine.files(), &url, &columns)?;
            let (mut shown, mut count) = (Some(Vec::new()), 0);
            while let Some(batch) = rows.next().await {
                let batch = batch?;
                count += batch.num_rows();
                let few = count <= SHOWN_ROWS && batch.get_array_memory_size() <= SHOWN_MEMORY;
                shown = shown.filter(|_| few);
                if let Some(shown) = &mut shown {
                    shown.push(batch.clone());
                }
                writer.write(&batch).await?;
            }
            let bytes = writer.finish().await?;
            engine.files().flush(vec![url.clone()]).await?;
            let rows = shown.and_then(|batches| as_json(&columns, &batches));
            let tag = format!("SELECT {count}");
            Ok(Outcome { tag, location: Some(url), bytes, columns, rows })
        });
        AbortOnDropHandle::new(stored).await.map_err(engine::Error::from)?
    }
}

/// Where the rows of queries are.
pub(super) struct Results(String);

impl Results {
    /// `None` where there is no warehouse.
    pub fn of_daemon(queries: &Queries) -> Option<Self> {
        let warehouse = queries.warehouse.as_ref()?.trim_end_matches('/');
        // Several clusters may share a warehouse.
        Some(Self(format!("{warehouse}/{RESULTS}/{}", queries.membership.cluster())))
    }

    /// The directory of a query's rows.
    pub fn of(&self, id: &str) -> String {
        format!("{}/{}", self.0, paths::encode(id))
    }

    /// The queries that have some.
    pub async fn ids(&self, files: &TableFiles) -> storage::Result<HashSet<String>> {
        let names = files.directories(&self.0).await?;
        Ok(names.iter().filter_map(|name| paths::decode(name)).collect())
    }
}

/// A result's columns as they are kept: those of one name get a number each.
pub fn columns_of(schema: &Schema) -> Vec<Column> {
    let mut columns: Vec<Column> = Vec::new();
    for field in schema.fields() {
        let taken = |name: &str| columns.iter().any(|column| column.name == name);
        let names = (2..).map(|number| format!("{}_{number}", field.name()));
        let mut names = std::iter::once(field.name().clone()).chain(names);
        let name = names.find(|name| !taken(name)).unwrap_or_default();
        columns.push(Column { name, nullable: true, ..Column::from(field.as_ref()) });
    }
    columns
}

/// Rows as JSON: an array of values for each, numbers and booleans as such, all else as text.
fn as_json(columns: &[Column], batches: &[RecordBatch]) -> Option<serde_json::Value> {
    let style = TextStyle::default();
    let fields: Vec<Field> = columns.iter().map(Column::field).collect();
    let mut rows = Vec::new();
    for batch in batches {
        let texts: Vec<StringViewArray> = (fields.iter().zip(batch.columns()))
            .map(|(field, array)| text(field, array, &style).ok())
            .collect::<Option<_>>()?;
        for row in 0..batch.num_rows() {
            let values = columns.iter().zip(&texts).map(|(column, texts)| {
                if texts.is_null(row) {
                    return serde_json::Value::Null;
                }
                let (text, kind) = (texts.value(row), &column.data_type);
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
