//! The phases of a statement, as types: each consumes the one before, and dropping one cancels the
//! statement and takes it off all lists.
//!
//! 1. *parse* ([`crate::engine::parse`]): text to statements; an error refuses the whole message.
//! 2. *authorise*: what this session may ask for, in the state its transaction is in.
//! 3. *admit*: the daemon takes work at all ([`Admitted`]).
//! 4. *register*: it has an id, can be listed and stopped ([`Registered`]).
//! 5. *plan*: names become tables, parameters values ([`Planned`]).
//! 6. *distribute*: where it runs; so far always on the daemon that was asked.
//! 7. *stream*: rows leave the engine as fast as the client takes them ([`Running`]).
//! 8. *complete*: the last row, an error, or whoever stopped it.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{FieldRef, SchemaRef};
use datafusion::common::ScalarValue;
use tokio::runtime::Handle;

use super::command::{Command, Request, recognise};
use super::ddl::{self, Ddl};
use super::running::{Admitted, Planned, Registered, Running};
use super::sessions::{SessionEntry, SessionGuard};
use super::transaction::Transaction;
use super::{Error, Queries, Result, Stop, TransactionState};
use crate::catalog::{Catalog, Snapshot};
use crate::engine::parse::{parse_one, split};
use crate::engine::settings::Settings;
use crate::engine::system::SessionInfo;
use crate::engine::{self, Parsed, Plan, parse};
use crate::shutdown::GateGuard;

/// Texts of more bytes than this may take long to parse and to plan.
const LONG_TEXT: usize = 4096;

/// One client's session.
#[derive(Debug)]
pub struct Session {
    queries: Arc<Queries>,
    engine: engine::Session,
    guard: SessionGuard,
    settings: Arc<Settings>,
    transaction: Transaction,
    /// Held while the client waits for the answers to its messages: what has begun is finished
    /// although the daemon stops.
    turn: Option<GateGuard>,
}

/// A statement that was understood and, if it reads, planned: run it any number of times.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub text: Arc<str>,
    declared: Vec<Option<FieldRef>>,
    body: Body,
    /// What it was planned from: when either has changed it is planned anew.
    planned_from: (Arc<Snapshot>, Arc<Settings>),
}

#[derive(Clone, Debug)]
enum Body {
    Read { statement: Arc<datafusion::sql::parser::Statement>, plan: Arc<Plan>, tag: &'static str },
    Command(Arc<Command>),
}

/// What came of a statement.
#[derive(Debug)]
pub enum Outcome<T> {
    Rows(Running<T>),
    Done(Done),
}

/// A command that is done.
#[derive(Clone, Debug, Default)]
pub struct Done {
    pub tag: &'static str,
    pub notices: Vec<Notice>,
    /// Prepared statements to forget: one by name, or all (`Some(None)`).
    pub deallocate: Option<Option<String>>,
}

/// Something the client is told beside the result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// SQLSTATE.
    pub code: &'static str,
    pub message: String,
}

impl Session {
    pub fn new(queries: Arc<Queries>, guard: SessionGuard, settings: Settings) -> Self {
        let entry = guard.entry();
        let settings = Arc::new(settings);
        let mut info = SessionInfo {
            database: entry.database.as_str().into(),
            user: entry.user.as_str().into(),
            login: entry.user.as_str().into(),
            pid: entry.pid,
            settings: settings.clone(),
            catalog: queries.catalog.clone(),
        };
        info.take_settings(settings.clone());
        let engine = engine::Session::new(queries.engine.clone(), info);
        Self { queries, engine, guard, settings, transaction: Transaction::default(), turn: None }
    }

    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    pub fn transaction_state(&self) -> TransactionState {
        self.transaction.state()
    }

    /// The client's turn begins: all of its statements up to the turn's end are taken, or none.
    pub fn begin_turn(&mut self) {
        if self.turn.is_none() {
            self.turn = self.queries.gate.enter("client");
        }
    }

    /// All answers are on their way.
    pub fn end_turn(&mut self) {
        self.turn = None;
    }

    /// An error reached the client: an open transaction block is aborted.
    pub fn note_error(&mut self) {
        self.transaction.fail();
    }

    /// Parses a message's text. What only we understand is left for [`Self::prepare`].
    pub fn parse(text: &str) -> Result<Vec<Source>> {
        match text.len() > LONG_TEXT {
            true => tokio::task::block_in_place(|| Self::parse_all(text)),
            false => Self::parse_all(text),
        }
    }

    fn parse_all(text: &str) -> Result<Vec<Source>> {
        let one = |text: &str| match ddl::beyond_the_parser(text)? {
            Some(ddl) => Ok(Source::Own(text.into(), Box::new(OwnDdl(ddl)))),
            None => Ok(Source::Parsed(parse_one(text)?)),
        };
        split(text)?.into_iter().map(one).collect()
    }

    /// A statement begins: from here on it is listed, and can be stopped.
    pub fn start(&self, text: &str) -> Result<Registered> {
        Ok(self.admit()?.register(self, text))
    }

    /// Plan, for later or repeated execution.
    pub async fn prepare(
        &mut self,
        registered: &Registered,
        source: &Source,
        declared: Vec<Option<FieldRef>>,
    ) -> Result<Prepared> {
        let long = source.text().len() > LONG_TEXT;
        let prepared = registered.until_stopped(self.understand(source, declared));
        match long {
            // Other clients' messages go to another thread meanwhile.
            true => tokio::task::block_in_place(|| Handle::current().block_on(prepared))?,
            false => prepared.await?,
        }
    }

    /// A statement's life, from its start to its first rows.
    ///
    /// `transform` runs on the engine's threads for each batch of the result, whose columns are
    /// those of [`Prepared::schema`].
    pub async fn execute<T, F>(
        &mut self,
        registered: Registered,
        prepared: &mut Prepared,
        values: Vec<ScalarValue>,
        transform: F,
    ) -> Result<Outcome<T>>
    where
        T: Send + 'static,
        F: FnMut(RecordBatch) -> Result<T, Box<dyn std::error::Error + Send + Sync>>,
        F: Send + 'static,
    {
        self.authorise(prepared)?;
        if let Body::Command(command) = &prepared.body {
            return self.command(registered, command.clone()).await.map(Outcome::Done);
        }
        let planned = self.plan(registered, prepared, values).await?;
        Ok(Outcome::Rows(planned.stream(self, transform)))
    }

    async fn plan(
        &mut self,
        registered: Registered,
        prepared: &mut Prepared,
        values: Vec<ScalarValue>,
    ) -> Result<Planned> {
        let expected = prepared.parameters().len();
        if values.len() != expected {
            return Err(Error::ParameterCount { expected, given: values.len() });
        }
        self.engine.mark_start();
        registered.until_stopped(self.renew(prepared)).await??;
        let Body::Read { plan, tag, .. } = &prepared.body else {
            return Err(Error::Invalid("a command has no plan".to_owned()));
        };
        let (tag, explain) = (*tag, plan.is_explain());
        let plan = registered.until_stopped(self.engine.prepare(plan, values)).await??;
        Ok(Planned { registered, plan, tag, explain })
    }

    /// Whether this session may ask for it, in the state its transaction is in.
    fn authorise(&self, prepared: &Prepared) -> Result<()> {
        let command = match &prepared.body {
            Body::Read { plan, .. } if !plan.only_reads() => {
                return Err(Error::NotSupported("this statement".to_owned()));
            }
            Body::Read { .. } => None,
            Body::Command(command) => Some(command.as_ref()),
        };
        match (self.transaction.state(), command) {
            (TransactionState::Failed, Some(command)) if command.ends_block() => Ok(()),
            (TransactionState::Failed, _) => Err(Error::InFailedTransaction),
            (TransactionState::InBlock, Some(Command::Ddl(ddl))) => {
                Err(Error::NotInTransaction(ddl.tag()))
            }
            (TransactionState::InBlock, Some(Command::DiscardAll)) => {
                Err(Error::NotInTransaction("DISCARD ALL"))
            }
            (_, Some(Command::Ddl(ddl))) if self.is_read_only() => Err(Error::ReadOnly(ddl.tag())),
            _ => Ok(()),
        }
    }

    fn is_read_only(&self) -> bool {
        self.settings.get("default_transaction_read_only") == Some("on")
    }

    /// A daemon that stops takes nothing new, except the end of what has begun.
    fn admit(&self) -> Result<Admitted> {
        let gate = match &self.turn {
            Some(_) => Some(self.queries.gate.enter_again("statement")),
            None => self.queries.gate.enter("statement"),
        };
        gate.map(|gate| Admitted { gate }).ok_or(Error::Stopped(Stop::ShuttingDown))
    }

    async fn understand(
        &mut self,
        source: &Source,
        declared: Vec<Option<FieldRef>>,
    ) -> Result<Prepared> {
        self.engine.mark_start();
        let text: Arc<str> = source.text().into();
        let planned_from = (self.catalog().snapshot(), self.settings.clone());
        let request = match source {
            Source::Parsed(parsed) => recognise(parsed)?,
            Source::Own(_, own) => Request::Command(Command::Ddl(Box::new(own.0.clone()))),
        };
        let body = match request {
            Request::Command(command) => Body::Command(Arc::new(command)),
            // In an aborted block nothing is looked up, as in PostgreSQL.
            Request::Read(..) if self.transaction.state() == TransactionState::Failed => {
                return Err(Error::InFailedTransaction);
            }
            Request::Read(statement, tag) => {
                let plan = Arc::new(self.engine.plan(&statement, &declared).await?);
                Body::Read { statement: Arc::from(statement), plan, tag }
            }
        };
        Ok(Prepared { text, declared, body, planned_from })
    }

    /// Plans anew what was planned from something that has changed since.
    async fn renew(&mut self, prepared: &mut Prepared) -> Result<()> {
        let now = (self.catalog().snapshot(), self.settings.clone());
        let fresh = Arc::ptr_eq(&now.0, &prepared.planned_from.0)
            && Arc::ptr_eq(&now.1, &prepared.planned_from.1);
        let Body::Read { statement, plan, .. } = &mut prepared.body else { return Ok(()) };
        if fresh && self.settings.consistency() == crate::catalog::Consistency::Cached {
            return Ok(());
        }
        let renewed = self.engine.plan(statement, &prepared.declared).await?;
        if renewed.schema != plan.schema {
            return Err(Error::ResultChanged);
        }
        *plan = Arc::new(renewed);
        prepared.planned_from = now;
        Ok(())
    }

    pub(super) async fn plan_text(&mut self, sql: &str) -> Result<Plan> {
        let parsed = parse(sql)?.pop().ok_or_else(|| Error::Invalid("empty".to_owned()))?;
        Ok(self.engine.plan(&parsed.statement, &[]).await?)
    }

    pub(super) fn queries(&self) -> &Queries {
        &self.queries
    }

    pub(super) fn catalog(&self) -> &Arc<Catalog> {
        &self.queries.catalog
    }

    pub(super) fn roots(&self) -> &crate::storage::Roots {
        self.queries.engine.roots()
    }

    pub(super) fn engine_session(&self) -> &engine::Session {
        &self.engine
    }

    /// Whose rights count: the role that logged in, or the one it has taken with SET ROLE.
    pub fn user(&self) -> &str {
        &self.engine.info().user
    }

    pub fn database(&self) -> &str {
        &self.guard.entry().database
    }

    pub fn entry(&self) -> &Arc<SessionEntry> {
        self.guard.entry()
    }

    pub(super) fn search_path(&self) -> Vec<String> {
        self.engine.info().search_path()
    }

    fn use_settings(&mut self, settings: Arc<Settings>) {
        if settings != self.settings {
            self.settings = settings.clone();
            self.engine.set_settings(settings);
        }
    }

    async fn command(&mut self, registered: Registered, command: Arc<Command>) -> Result<Done> {
        let done = |tag| Ok(Done { tag, ..Done::default() });
        match command.as_ref() {
            Command::Begin { read_only } => {
                let fresh = self.transaction.begin(&self.settings);
                self.set_access(*read_only)?;
                let notices = match fresh {
                    true => Vec::new(),
                    false => vec![warning("25001", "there is already a transaction in progress")],
                };
                Ok(Done { tag: "BEGIN", notices, ..Done::default() })
            }
            Command::Commit => Ok(self.end_block(true)),
            Command::Rollback => Ok(self.end_block(false)),
            Command::Savepoint(name) => {
                self.transaction.savepoint(name, &self.settings)?;
                done("SAVEPOINT")
            }
            Command::Release(name) => {
                self.transaction.release(name)?;
                done("RELEASE")
            }
            Command::RollbackTo(name) => {
                let settings = self.transaction.rollback_to(name)?;
                self.use_settings(settings);
                done("ROLLBACK")
            }
            Command::Set { name, value, local } => {
                if name == "role" {
                    self.may_take_role(value.as_deref()).await?;
                }
                self.set(name, value.as_deref(), *local)
            }
            Command::SetTransaction { read_only } => {
                self.set_access(*read_only)?;
                done("SET")
            }
            Command::Reset(name) => {
                self.reset(name.as_deref())?;
                done("RESET")
            }
            Command::DiscardAll => {
                self.reset(None)?;
                Ok(Done { tag: "DISCARD ALL", deallocate: Some(None), ..Done::default() })
            }
            Command::Deallocate(name) => {
                let tag = if name.is_some() { "DEALLOCATE" } else { "DEALLOCATE ALL" };
                Ok(Done { tag, deallocate: Some(name.clone()), ..Done::default() })
            }
            Command::Nothing(tag) => done(tag),
            Command::Ddl(ddl) => {
                let notices = registered.until_stopped(self.change(ddl)).await??;
                Ok(Done { tag: ddl.tag(), notices, ..Done::default() })
            }
        }
    }

    fn end_block(&mut self, commit: bool) -> Done {
        let Some((settings, committed)) = self.transaction.end(commit) else {
            let notices = vec![warning("25P01", "there is no transaction in progress")];
            let tag = if commit { "COMMIT" } else { "ROLLBACK" };
            return Done { tag, notices, ..Done::default() };
        };
        self.use_settings(settings);
        // COMMIT of an aborted block says ROLLBACK, as in PostgreSQL.
        Done { tag: if committed { "COMMIT" } else { "ROLLBACK" }, ..Done::default() }
    }

    fn set(&mut self, name: &str, value: Option<&str>, local: bool) -> Result<Done> {
        let change = |settings: &mut Settings| match value {
            Some(value) => settings.set(name, value).map(drop),
            None => settings.reset(name),
        };
        let mut settings = Settings::clone(&self.settings);
        change(&mut settings).map_err(engine::Error::from)?;
        let mut done = Done { tag: "SET", ..Done::default() };
        match (local, self.transaction.state()) {
            (true, TransactionState::Idle) => {
                let text = "SET LOCAL can only be used in transaction blocks";
                done.notices.push(warning("25P01", text));
                return Ok(done);
            }
            (true, _) => {}
            // Checked above on the same names and values.
            (false, _) => self.transaction.set_lasting(|lasting| drop(change(lasting))),
        }
        self.use_settings(Arc::new(settings));
        Ok(done)
    }

    fn set_access(&mut self, read_only: Option<bool>) -> Result<()> {
        if let Some(read_only) = read_only {
            self.set("transaction_read_only", Some(if read_only { "on" } else { "off" }), true)?;
        }
        Ok(())
    }

    fn reset(&mut self, name: Option<&str>) -> Result<()> {
        let change = |settings: &mut Settings| match name {
            Some(name) => settings.reset(name),
            None => {
                settings.reset_all();
                Ok(())
            }
        };
        let mut settings = Settings::clone(&self.settings);
        change(&mut settings).map_err(engine::Error::from)?;
        self.transaction.set_lasting(|lasting| drop(change(lasting)));
        self.use_settings(Arc::new(settings));
        Ok(())
    }
}

/// One statement of a message, parsed.
#[derive(Clone, Debug)]
pub enum Source {
    Parsed(Parsed),
    /// DDL beyond the SQL parser's grammar.
    Own(Arc<str>, Box<OwnDdl>),
}

/// Keeps [`Ddl`] to this room.
#[derive(Clone, Debug)]
pub struct OwnDdl(Ddl);

impl Source {
    pub fn text(&self) -> &str {
        match self {
            Self::Parsed(parsed) => &parsed.text,
            Self::Own(text, _) => text,
        }
    }
}

impl Prepared {
    /// Types of `$1`, `$2`, ...
    pub fn parameters(&self) -> &[FieldRef] {
        match &self.body {
            Body::Read { plan, .. } => &plan.parameters,
            Body::Command(_) => &[],
        }
    }

    /// Columns of the result; none for what returns no rows.
    pub fn schema(&self) -> SchemaRef {
        match &self.body {
            Body::Read { plan, .. } => plan.schema.clone(),
            Body::Command(_) => Arc::new(arrow::datatypes::Schema::empty()),
        }
    }

    /// Whether nothing was planned anew since.
    pub fn is_same_plan(&self, other: &Self) -> bool {
        match (&self.body, &other.body) {
            (Body::Read { plan, .. }, Body::Read { plan: other, .. }) => Arc::ptr_eq(plan, other),
            _ => true,
        }
    }

    pub fn returns_rows(&self) -> bool {
        matches!(self.body, Body::Read { .. })
    }
}

fn warning(code: &'static str, message: &str) -> Notice {
    Notice { code, message: message.to_owned() }
}
