//! One attempt at a submitted query.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use arrow::array::{Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use super::record::Outcome;
use super::runner::{LOOK, Runner};
use super::{Claim, Ending, Record, Result, State, encoded, ending, outrun};
use crate::catalog::{self, Column, Privilege};
use crate::coordination::Op;
use crate::coordination::paths::{self, Path};
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

/// Rows, and bytes of JSON, that are kept in a query's record.
const SHOWN_ROWS: usize = 100;
const SHOWN_BYTES: usize = 8 << 10;

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

impl Runner {
    /// Works on a query to its end.
    pub(super) async fn work(&self, attempt: Arc<Attempt>, place: Option<Place>) {
        let record = match self.carry_out(&attempt, place).await {
            Ok(None) => return,
            Ok(Some(outcome)) => {
                Record { outcome: Some(outcome), ..attempt.record.ended(State::Succeeded) }
            }
            Err(query::Error::Stopped(Stop::ShuttingDown)) => {
                // A peer takes it at once.
                let record = attempt.record.clone();
                let (state, given_back) = (State::Queued, record.given_back + 1);
                Record { state, daemon: None, given_back, ..record }
            }
            Err(error) => {
                let failure = (self.describe)(error);
                match failure.may_pass() && attempt.record.used_attempts() < self.attempts() {
                    true => Record { state: State::Queued, daemon: None, ..attempt.record.clone() },
                    false => attempt.record.failed(failure),
                }
            }
        };
        self.write_end(&attempt, &record).await;
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
    ) -> query::Result<Option<Outcome>> {
        let Record { user, database, sql, .. } = &attempt.record;
        self.may_enter(user, database).await?;
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let guard = self.queries.sessions.open(user, database, nowhere, None);
        let settings = self.settings(attempt)?;
        let mut session = Session::new(self.queries.clone(), guard, settings);
        let _seated = place.map(|place| session.sit(place));
        let source = Session::parse(sql)?.pop();
        let source = source.ok_or_else(|| query::Error::Invalid("no statement".to_owned()))?;
        let registered = session.start(source.text())?;
        let entry = session.entry().clone();
        let working = async {
            let mut prepared = session.prepare(&registered, &source, Vec::new()).await?;
            let ending = attempt.ending();
            session.end_with(ending.clone());
            let columns = columns_of(&prepared.schema());
            let executed = session.execute(registered, &mut prepared, Vec::new(), Ok).await?;
            let outcome = match executed {
                life::Outcome::Done(_) if ending.is_used() => None,
                life::Outcome::Done(done) => {
                    Some(Outcome { tag: done.tag.into_owned(), ..Outcome::default() })
                }
                life::Outcome::Rows(rows) => Some(self.store(attempt, columns, rows).await?),
            };
            // What it notifies; nobody waits to be told of delays.
            session.settle().await?;
            Ok(outcome)
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

    /// Writes rows to where all daemons can read them; few are kept in the record as well.
    async fn store(
        &self,
        attempt: &Attempt,
        columns: Vec<Column>,
        mut rows: Running<RecordBatch>,
    ) -> query::Result<Outcome> {
        let results = Results::of_daemon(&self.queries).ok_or(storage::Error::NoWarehouse)?;
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
        // Only the daemon's end ends the engine's threads.
        let stored = AbortOnDropHandle::new(stored).await;
        stored.unwrap_or(Err(query::Error::Stopped(Stop::ShuttingDown)))
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
fn columns_of(schema: &Schema) -> Vec<Column> {
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
