//! Queries that are submitted now and fetched later, from any daemon.
//!
//! A submitted query is a node that outlives its daemons: `/queries/<id>`, its [`Record`]. As long as
//! it is not done there is an empty node below `/queue`, which all daemons watch. The daemon that works
//! on it has a [`Claim`] below `/claims`, ephemeral, with the attempt's number in its name.
//!
//! # Why each is carried out once
//! A claim and the attempt that it stands for are one transaction, which raises the version of the
//! record. Whatever ends the query, its own commit of a table included, is one transaction again that
//! removes the claim of this very attempt and the node in the queue. A daemon that was stopped, or was
//! thought dead, finds its claim gone, and nothing of its work counts. So suspicion is enough to take a
//! query over.
//!
//! - [`record`]: what stands in the store.
//! - [`inbox`]: what was left there becomes a query.
//! - [`runner`]: takes queries.
//! - [`attempt`]: carries one out.
//! - [`reaper`]: removes those that are long done.

mod attempt;
mod inbox;
mod reaper;
mod record;
mod runner;

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use md5::{Digest, Md5};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

pub use attempt::columns_of;
pub use record::{Claim, Failure, KIND, Options, Outcome, Record, State};
pub use runner::{Describe, Runner};

use super::life::Session;
use super::options;
use super::prepared::Work;
use crate::catalog::{self, Role};
use crate::config;
use crate::coordination::paths::Path;
use crate::coordination::{self, Coordination, MAX_DATA, Mode, Op, Scope, Stat};
use crate::engine::settings::{self, Settings, Source};
use crate::{id, query};

/// Bytes of a query's text at most: its record has to fit into a node together with what is said of
/// its end.
const MAX_SQL: usize = 32 << 10;

/// Bytes of a record as it is submitted: what is said of its end has to fit into its node as well.
const MAX_RECORD: usize = 48 << 10;

/// How often a write is tried whose reply was lost.
const TRIES: u32 = 5;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] coordination::Error),
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    #[error("the queue of submitted queries is full: {0} wait")]
    Full(usize),
    #[error("the text of a submitted query may have {MAX_SQL} bytes, this one has {0}")]
    TooLong(usize),
    #[error("a query may have {MAX_RECORD} bytes with its settings, this one has {0}")]
    TooLarge(usize),
    #[error("it is not known whether the query \"{0}\" was submitted: ask for it by this id")]
    InDoubt(String),
    #[error("query \"{0}\" is being changed by others all the time: try again")]
    Busy(String),
    #[error(
        "a result of {0} columns is too wide to be kept: their names and types have to fit into a znode"
    )]
    TooManyColumns(usize),
    #[error("there is no query \"{0}\", or its history has been removed")]
    Unknown(String),
    #[error(
        "oribi.result takes the id of one query as a literal, such as oribi.result('s-...'): its columns \
         depend on it, so that it is no parameter, column or subquery"
    )]
    NotConstant,
    #[error("there is a query \"{0}\" already: give the letter another name, or create it with -s")]
    Twin(String),
    #[error("permission denied for query \"{0}\"")]
    Denied(String),
    #[error("cannot execute {0} in a read-only transaction")]
    ReadOnly(&'static str),
    #[error("options: {0}")]
    Options(String),
    #[error("query \"{id}\" {what}")]
    NoResult { id: String, what: String },
    /// Its text makes no sense.
    #[error("{0}")]
    Text(#[source] Box<query::Error>),
    #[error("a submitted query is one statement")]
    NotOne,
    #[error(
        "only statements that read or change rows, and CREATE TABLE AS, can be submitted, without \
         RETURNING"
    )]
    NoWork,
    /// What the settings of its session would be.
    #[error(transparent)]
    Setting(#[from] settings::Error),
    #[error("the record of query \"{id}\" cannot be read: {source}")]
    Record { id: String, source: serde_json::Error },
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// What to do instead.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoWork => Some(
                "Run other statements at once, in a session. Rows that a statement has changed are \
                 read by a query of their own.",
            ),
            Self::NotConstant => Some(
                "Have the driver put the id into the text as a literal, quoted. oribi.record(id) takes a \
                 parameter, and has up to 100 rows.",
            ),
            _ => None,
        }
    }
}

impl FromStr for Options {
    type Err = Error;

    fn from_str(json: &str) -> Result<Self> {
        options::read(json).map_err(Error::Options)
    }
}

/// The submitted queries of the cluster.
#[derive(Debug)]
pub struct Submissions {
    coordination: Arc<dyn Coordination>,
    limits: watch::Sender<config::Submitted>,
}

/// A record as it was read.
#[derive(Clone, Debug)]
pub struct Found {
    pub record: Record,
    /// Of its node.
    pub version: i32,
    /// When it was written, by the store's clock, in milliseconds since the epoch.
    pub written: i64,
}

impl Submissions {
    pub async fn open(
        coordination: Arc<dyn Coordination>,
        limits: config::Submitted,
    ) -> coordination::Result<Arc<Self>> {
        for path in [Path::Queries, Path::Inbox, Path::Queue, Path::Claims, Path::Schedules] {
            coordination::ensure(coordination.as_ref(), &path.to_string()).await?;
        }
        Ok(Arc::new(Self { coordination, limits: watch::Sender::new(limits) }))
    }

    /// Has other limits from now on.
    pub fn change(&self, limits: config::Submitted) {
        self.limits.send_if_modified(|known| {
            let news = *known != limits;
            *known = limits;
            news
        });
    }

    fn limits(&self) -> config::Submitted {
        self.limits.borrow().clone()
    }

    pub(in crate::query) fn store(&self) -> &dyn Coordination {
        self.coordination.as_ref()
    }

    /// Submits a query for a role, `read_only` if whoever does so may only read. When this returns it
    /// is durable. Returns its id.
    pub async fn submit(
        &self,
        (user, owner): (&str, Option<u32>),
        database: &str,
        sql: &str,
        options: Options,
        read_only: bool,
    ) -> Result<String> {
        let work = check(sql)?;
        let Options { key, database: other, mut settings } = options;
        if key.as_deref() == Some("") {
            return Err(Error::Options(
                "the key is empty: leave it out, or give it a name".to_owned(),
            ));
        }
        if read_only {
            if work == Work::Writes {
                return Err(Error::ReadOnly("oribi.submit of a statement that writes"));
            }
            // Nor does what it calls write, whatever the options say.
            let names = ["transaction_read_only", "default_transaction_read_only"];
            settings.retain(|name, _| !names.iter().any(|other| name.eq_ignore_ascii_case(other)));
            settings.insert("default_transaction_read_only".to_owned(), "on".to_owned());
        }
        let id = match &key {
            Some(key) => id_of_key((user, owner), key),
            // Not to be taken for a client's statement, whose id is a UUID alone.
            None => format!("s-{}", id::statement()),
        };
        if key.is_some()
            && let Some(found) = self.find(&id).await?
        {
            return same(&found.record, owner, sql, id);
        }
        if self.room().await? == 0 {
            return Err(Error::Full(self.limits().queue));
        }
        let database = other.as_deref().unwrap_or(database);
        let record = Record::new((user, owner), database, sql, settings);
        fits(&id, &record)?;
        let mut in_doubt = false;
        for _ in 0..TRIES {
            match self.coordination.transact(self.entering(&id, &record)?).await {
                Ok(_) => return Ok(id),
                // Somebody with the same key, or this very write, whose reply was lost.
                Err(error) if exists(&error) || error.may_have_landed() => {
                    in_doubt |= error.may_have_landed();
                    match self.find(&id).await {
                        Ok(Some(found)) => return same(&found.record, owner, sql, id),
                        Ok(None) => {}
                        Err(_) if in_doubt => break,
                        Err(error) => return Err(error),
                    }
                }
                // Nobody has looked since: an earlier attempt may have landed.
                Err(_) if in_doubt => break,
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::InDoubt(id))
    }

    /// What puts a query into the queue.
    pub(in crate::query) fn entering(&self, id: &str, record: &Record) -> Result<Vec<Op>> {
        let mode = Mode::Persistent;
        let path = Path::Query(id).to_string();
        let queued = Path::Queued(record.since(), id).to_string();
        Ok(vec![
            Op::Create { path, data: encoded(id, record)?, mode },
            Op::Create { path: queued, data: Bytes::new(), mode },
        ])
    }

    /// How many more queries the queue takes.
    pub(in crate::query) async fn room(&self) -> Result<usize> {
        let queue = self.coordination.get(&Path::Queue.to_string()).await?;
        let waiting = queue.map_or(0, |node| usize::try_from(node.stat.num_children).unwrap_or(0));
        Ok(self.limits().queue.saturating_sub(waiting))
    }

    /// A query by its id.
    pub async fn find(&self, id: &str) -> Result<Option<Found>> {
        if id.is_empty() {
            return Ok(None);
        }
        let Some(node) = self.coordination.get(&Path::Query(id).to_string()).await? else {
            return Ok(None);
        };
        let record = serde_json::from_slice(&node.data)
            .map_err(|source| Error::Record { id: id.to_owned(), source })?;
        let Stat { version, mtime: written, .. } = node.stat;
        Ok(Some(Found { record, version, written }))
    }

    async fn existing(&self, id: &str) -> Result<Found> {
        let found = self.find(id).await?;
        found.ok_or_else(|| Error::Unknown(id.to_owned()))
    }

    /// A query that a role may know of, as `may` says.
    pub async fn visible(&self, id: &str, may: impl Fn(&Record) -> bool) -> Result<Record> {
        let found = self.existing(id).await?;
        match may(&found.record) {
            true => Ok(found.record),
            false => Err(Error::Denied(id.to_owned())),
        }
    }

    /// The query at its end, or as it is when the time is up.
    pub async fn wait(&self, id: &str, limit: Duration) -> Result<Record> {
        let deadline = Instant::now() + limit;
        let mut watch = self.coordination.watch(&Path::Query(id).to_string(), Scope::Node);
        loop {
            let event = timeout_at(deadline, watch.next()).await;
            let record = self.existing(id).await?.record;
            if record.state.is_final() || !matches!(event, Ok(Some(_))) {
                return Ok(record);
            }
        }
    }

    /// Ends a query that is not done. Nothing of its work counts afterwards. Returns whether this
    /// has ended it.
    pub async fn cancel(&self, id: &str) -> Result<bool> {
        for _ in 0..TRIES {
            let Found { record, version, .. } = self.existing(id).await?;
            if record.state.is_final() {
                return Ok(false);
            }
            let cancelled = record.ended(State::Cancelled);
            let mut ops = ending(id, &cancelled, Some(version))?;
            let queued = Path::Queued(record.since(), id).to_string();
            if self.coordination.stat(&queued).await?.is_none() {
                // Somebody has taken it out of the queue by hand.
                ops.retain(|op| op.path() != queued);
            }
            match self.coordination.transact(ops).await {
                Ok(_) => return Ok(true),
                // It has been begun, or has ended, meanwhile.
                Err(error) if outrun(&error) || error.may_have_landed() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Busy(id.to_owned()))
    }
}

/// What writes the record of a query at its end, if it has none yet, and its record is at this version.
fn ending(id: &str, record: &Record, version: Option<i32>) -> Result<Vec<Op>> {
    let (path, data) = (Path::Query(id).to_string(), encoded(id, record)?);
    Ok(vec![
        Op::Delete { path: Path::Queued(record.since(), id).to_string(), version: None },
        Op::Set { path, data, version },
    ])
}

/// What goes into the store together with a statement's own commit, made from its command tag.
pub(in crate::query) struct Ending {
    ops: Box<MakeOps>,
    landed: AtomicBool,
}

type MakeOps = dyn Fn(&str) -> Result<Vec<Op>> + Send + Sync;

impl Ending {
    fn new(ops: impl Fn(&str) -> Result<Vec<Op>> + Send + Sync + 'static) -> Self {
        Self { ops: Box::new(ops), landed: AtomicBool::new(false) }
    }

    /// For a commit that is about to be made.
    pub fn ops(&self, tag: &str) -> Result<Vec<Op>> {
        (self.ops)(tag)
    }

    /// The commit has been made.
    pub fn note_landed(&self) {
        self.landed.store(true, Ordering::Relaxed);
    }

    fn has_landed(&self) -> bool {
        self.landed.load(Ordering::Relaxed)
    }
}

impl std::fmt::Debug for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ending").field("landed", &self.landed).finish_non_exhaustive()
    }
}

/// The record of a key's query, if that is the one that is submitted.
fn same(record: &Record, owner: Option<u32>, sql: &str, id: String) -> Result<String> {
    match record.owner == owner && record.sql == sql {
        true => Ok(id),
        false => Err(Error::Options("the key belongs to another query".to_owned())),
    }
}

/// Another has changed or removed something since it was read.
pub(in crate::query) fn outrun(error: &coordination::Error) -> bool {
    use coordination::Error::{BadVersion, NoNode};
    matches!(error.root(), BadVersion { .. } | NoNode { .. })
}

pub(in crate::query) fn exists(error: &coordination::Error) -> bool {
    matches!(error.root(), coordination::Error::NodeExists { .. })
}

/// The same on all daemons, whatever they were built with, and whatever the role is called.
fn id_of_key((user, owner): (&str, Option<u32>), key: &str) -> String {
    let role = owner.map_or_else(|| user.to_owned(), |owner| owner.to_string());
    let digest = Md5::new().chain_update(role).chain_update([0]).chain_update(key).finalize();
    let readable: String =
        key.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(40).collect();
    format!("key-{readable}-{:032x}", u128::from_be_bytes(digest.into()))
}

fn encoded(id: &str, record: &Record) -> Result<Bytes> {
    let encode = |record: &Record| {
        serde_json::to_vec(record).map_err(|source| Error::Record { id: id.to_owned(), source })
    };
    let data = encode(record)?;
    if data.len() <= MAX_DATA {
        return Ok(data.into());
    }
    // The rows are in storage as well; of a text that is too long nothing was run.
    let mut short = record.clone();
    short.outcome.iter_mut().for_each(|outcome| outcome.rows = None);
    if record.sql.len() > MAX_SQL {
        short.sql.truncate(record.sql.floor_char_boundary(1000));
    }
    short
        .error
        .iter_mut()
        .for_each(|error| error.message.truncate(error.message.floor_char_boundary(1000)));
    Ok(encode(&short)?.into())
}

/// Whether what is submitted leaves room for its end.
pub(in crate::query) fn fits(id: &str, record: &Record) -> Result<()> {
    match encoded(id, record)?.len() {
        length if length > MAX_RECORD => Err(Error::TooLarge(length)),
        _ => Ok(()),
    }
}

/// What a role's session begins with, before all that is set for it.
fn plain_settings(role: &Role) -> Settings {
    let mut settings = Settings::default();
    settings.set_fact("session_authorization", &role.name, Source::Override);
    let superuser = if role.record.superuser { "on" } else { "off" };
    settings.set_fact("is_superuser", superuser, Source::Override);
    settings
}

/// Refuses settings that the session in which they are asked for could not have itself.
pub fn check_settings(asked: &BTreeMap<String, String>, session: &Settings) -> Result<()> {
    let mut tried = session.clone();
    for (name, value) in asked {
        tried.set_default(name, value, Source::Client)?;
    }
    Ok(())
}

/// What a text does, if it is one statement that can be submitted.
pub(in crate::query) fn check(sql: &str) -> Result<Work> {
    if sql.len() > MAX_SQL {
        return Err(Error::TooLong(sql.len()));
    }
    let statements = Session::parse(sql).map_err(|error| Error::Text(Box::new(error)))?;
    match statements.as_slice() {
        [statement] => statement.work().ok_or(Error::NoWork),
        _ => Err(Error::NotOne),
    }
}
