//! The phases of a statement, as types: each consumes the one before, and dropping one cancels the
//! statement and takes it off all lists.
//!
//! 1. *parse* ([`crate::engine::parse`]): text to statements; an error refuses the whole message.
//! 2. *authorise*: what this session may ask for, in the state its transaction is in.
//! 3. *admit*: the daemon takes work at all ([`Admitted`]).
//! 4. *register*: it has an id, can be listed and stopped ([`Registered`]).
//! 5. *plan*: names become tables, parameters values ([`Planned`]); what is work waits before that
//!    for its place in its role's pool ([`Session::wait_for_turn`]).
//! 6. *distribute*: where it runs; so far always on the daemon that was asked.
//! 7. *stream*: rows leave the engine as fast as the client takes them ([`Running`]).
//! 8. *complete*: the last row, an error, or whoever stopped it.

mod text;
mod understanding;

use std::borrow::Cow;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::datatypes::FieldRef;
use datafusion::common::ScalarValue;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use tokio::runtime::Handle;

use super::admission::{Entrance, Place, Seated};
use super::alike::Kinds;
use super::command::Command;
use super::control::Done;
use super::maintenance::Task;
use super::notify::{Ear, Inbox};
use super::objects::{Declare, ObjectCommand};
use super::prepared::{Body, Origin, Prepared, Read, Source};
use super::recent::Recent;
use super::running::{Admitted, Planned, Registered, Running};
use super::sessions::{SessionEntry, SessionGuard};
use super::submitted::Ending;
use super::transaction::Transaction;
use super::write::{Action, Wrote};
use super::{Error, Queries, Result, Stop, TransactionState, locks, places};
use crate::catalog::Catalog;
use crate::cluster::live::Values;
use crate::engine::objects::SessionObjects;
use crate::engine::settings::Settings;
use crate::engine::system::SessionInfo;
use crate::engine::{self, Plan, parse};
use crate::shutdown::GateGuard;

/// Texts of more bytes than this may take long to parse and to plan.
const LONG_TEXT: usize = 4096;

/// How often an INSERT outside of a block is carried out at most: again where the table's columns have
/// changed meanwhile.
const MAX_INSERTS: u32 = 5;

/// One client's session.
#[derive(Debug)]
pub struct Session {
    queries: Arc<Queries>,
    engine: engine::Session,
    guard: SessionGuard,
    settings: Arc<Settings>,
    /// What is set for all sessions, as this one has taken it up.
    pub(super) system: Arc<Values>,
    /// Of the settings, for each statement asks for it.
    statement_limit: Option<usize>,
    entrance: Entrance,
    pub(super) ear: Ear,
    pub(super) transaction: Transaction,
    pub(super) recent: Recent,
    pub(super) kinds: Kinds,
    /// What goes into the store with what a submitted statement changes.
    pub(super) ending: Option<Arc<Ending>>,
    /// The message has several statements, which PostgreSQL takes for a block of its own.
    several: bool,
    /// Held while the client waits for the answers to its messages: what has begun is finished
    /// although the daemon stops.
    turn: Option<GateGuard>,
}

/// What came of a statement.
#[derive(Debug)]
pub enum Outcome<T> {
    Rows(Running<T>),
    Done(Done),
}

impl Session {
    pub fn new(queries: Arc<Queries>, guard: SessionGuard, settings: Settings) -> Self {
        let entry = guard.entry();
        let settings = Arc::new(settings);
        entry.set_application_name(settings.get("application_name").unwrap_or_default());
        let mut info = SessionInfo {
            database: entry.database.as_str().into(),
            user: entry.user.as_str().into(),
            login: entry.user.as_str().into(),
            pid: entry.pid,
            settings: settings.clone(),
            catalog: queries.catalog.clone(),
            objects: Arc::default(),
            staged: Arc::default(),
            files: queries.engine.files().clone(),
            warehouse: queries.warehouse.as_deref().map(Arc::from),
        };
        info.take_settings(settings.clone());
        let inbox = Inbox::new(entry.clone(), info.objects.clone());
        let engine = engine::Session::new(queries.engine.clone(), info);
        Self {
            ear: Ear::new(queries.notifications.clone(), inbox),
            entrance: Entrance::new(queries.admission.clone()),
            queries,
            engine,
            guard,
            system: Arc::default(),
            statement_limit: settings.statement_limit(),
            settings,
            transaction: Transaction::default(),
            recent: Recent::default(),
            kinds: Kinds::default(),
            ending: None,
            several: false,
            turn: None,
        }
    }

    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    pub fn transaction_state(&self) -> TransactionState {
        self.transaction.state()
    }

    /// The client's turn begins: all of its statements up to the turn's end are taken, or none.
    pub fn begin_turn(&mut self) {
        self.take_live();
        if self.turn.is_none() {
            self.turn = self.queries.gate.enter("client");
        }
    }

    /// All answers are on their way.
    pub fn end_turn(&mut self) {
        self.turn = None;
        self.entry().settle();
    }

    /// Whether the statements to come are part of one message.
    pub fn set_several(&mut self, several: bool) {
        self.several = several;
    }

    /// Lets others see the state of its transaction.
    pub(super) fn tell_transaction(&self) {
        self.entry().set_transaction(self.transaction.state());
    }

    /// Savepoints that are set.
    pub fn savepoints(&self) -> usize {
        self.transaction.depth()
    }

    /// What the session's own statements see of it.
    pub fn objects(&self) -> &Arc<SessionObjects> {
        &self.engine.info().objects
    }

    /// Its statements run in this place as long as it is kept.
    pub(super) fn sit(&self, place: Place) -> Seated {
        self.entrance.take(place)
    }

    /// Whatever its next statement changes goes into the store together with this.
    pub(super) fn end_with(&mut self, ending: Arc<Ending>) {
        self.ending = Some(ending);
    }

    /// Parses a message's text; as in PostgreSQL an error anywhere refuses all of it.
    pub fn parse(text: &str) -> Result<Vec<Source>> {
        let parse = || text::parse(text);
        match text.len() > LONG_TEXT {
            true => tokio::task::block_in_place(parse),
            false => parse(),
        }
    }

    /// A statement begins: from here on it is listed, and can be stopped.
    pub fn start(&self, text: &Arc<str>) -> Result<Registered> {
        let level = self.settings.get("transaction_isolation");
        let lasting = matches!(level, Some("repeatable read" | "serializable"));
        let in_block = self.transaction.state() != TransactionState::Idle;
        self.engine.info().staged.hold(lasting && in_block);
        Ok(self.admit()?.register(self, text))
    }

    /// Plan, for later or repeated execution.
    pub async fn prepare(
        &mut self,
        registered: &Registered,
        source: &Source,
        declared: Vec<Option<FieldRef>>,
    ) -> Result<Prepared> {
        let (long, since) = (source.text().len() > LONG_TEXT, Instant::now());
        let prepared = registered.until_stopped(self.understand(source, declared));
        let prepared = match long {
            // Other clients' messages go to another thread meanwhile.
            true => tokio::task::block_in_place(|| Handle::current().block_on(prepared))?,
            false => prepared.await?,
        };
        registered.facts().note_planning(since);
        prepared.map_err(|error| places::placed(error, source))
    }

    /// Waits for a statement's turn in the pool of the session's role, if it is work, and holds it to
    /// the memory that the pool gives. Cancel safe.
    pub async fn wait_for_turn(
        &mut self,
        registered: &mut Registered,
        prepared: &Prepared,
    ) -> Result<()> {
        self.authorise(prepared)?;
        let role = self.engine.info().user.clone();
        if prepared.is_work() {
            let (stop, since) = (registered.watch(), Instant::now());
            tokio::select! {
                biased;
                admitted = self.entrance.admit(&role, registered) => admitted?,
                stop = stop => return Err(Error::Stopped(stop)),
            }
            registered.facts().note_queued(since);
        }
        let pool = self.entrance.pool(&role);
        self.engine.set_memory(pool.and_then(|pool| pool.bound()));
        Ok(())
    }

    /// The same for a statement whose session has been given its place before: nobody waits.
    pub(super) fn take_turn(&mut self, registered: &Registered) {
        let pool = self.entrance.taken();
        registered.set_pool(pool.as_ref().map(|pool| &pool.name), false);
        self.engine.set_memory(pool.and_then(|pool| pool.bound()));
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
        self.observe(&registered);
        self.authorise(prepared)?;
        if let Body::Command(command) = &prepared.body {
            let done = self.command(&registered, command.clone()).await;
            self.tell_transaction();
            return done.map(Outcome::Done);
        }
        if matches!(prepared.body, Body::Write(_)) {
            let (tag, returned) = self.carry_out(&registered, prepared, values).await?;
            return Ok(match returned {
                None => Outcome::Done(Done { tag, ..Done::default() }),
                Some(plan) => {
                    let planned = Planned {
                        registered,
                        plan,
                        tag,
                        explain: false,
                        heading: None,
                        constant: false,
                        written: true,
                    };
                    Outcome::Rows(planned.stream(self, transform))
                }
            });
        }
        let planned = self.plan(registered, prepared, values).await?;
        Ok(Outcome::Rows(planned.stream(self, transform)))
    }

    /// What the session does from here on belongs to this statement.
    pub(super) fn observe(&mut self, registered: &Registered) {
        registered.facts().note_execution();
        self.engine.observe(registered.facts().observation.clone());
        self.engine.set_portions(registered.has_portions());
    }

    /// A statement that writes, from its plan to its commit: its tag, and what RETURNING asked for.
    async fn carry_out(
        &mut self,
        registered: &Registered,
        prepared: &mut Prepared,
        values: Vec<ScalarValue>,
    ) -> Result<(Cow<'static, str>, Option<engine::Ready>)> {
        let expected = prepared.parameters().len();
        if values.len() != expected {
            return Err(Error::ParameterCount { expected, given: values.len() });
        }
        self.engine.mark_start();
        self.take_locks(registered, &prepared.locks).await?;
        let mut attempt = 1;
        loop {
            self.bring_up_to_date(registered, prepared, &values).await?;
            let Body::Write(write) = &prepared.body else {
                return Err(Error::Invalid("not a statement that writes".to_owned()));
            };
            self.transaction.note_query();
            let write = write.clone();
            // A table whose columns have changed meanwhile can take new rows all the same.
            let again = attempt < MAX_INSERTS
                && write.action == Action::Insert
                && self.transaction.state() == TransactionState::Idle;
            match self.write(registered, &write, values.clone()).await {
                Err(error) if again && error.is_conflict() => attempt += 1,
                done => return done.map(|Wrote { tag, returned }| (tag, returned)),
            }
        }
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
        self.take_locks(&registered, &prepared.locks).await?;
        let since = Instant::now();
        self.bring_up_to_date(&registered, prepared, &values).await?;
        let Body::Read(Read { plan, tag, .. }) = &prepared.body else {
            return Err(Error::Invalid("a command has no plan".to_owned()));
        };
        if *tag != "SHOW" {
            self.transaction.note_query();
        }
        let (tag, explain, heading) = (*tag, plan.is_explain(), plan.heading.clone());
        let constant = plan.constant || tag == "SHOW";
        // It is large, and is not moved to where it runs.
        let reading = pin!(self.engine.prepare_reading(plan, values));
        let plan = registered.until_stopped(reading).await??;
        registered.facts().note_planning(since);
        let written = false;
        Ok(Planned { registered, plan, tag: tag.into(), explain, heading, constant, written })
    }

    /// Whether this session may ask for it, in the state its transaction is in.
    pub fn authorise(&self, prepared: &Prepared) -> Result<()> {
        let command = match &prepared.body {
            Body::Read(read) if !read.plan.only_reads() => {
                return Err(Error::NotSupported("this statement".to_owned()));
            }
            Body::Object(command, _) => return self.authorise_object(command),
            Body::Write(write) if self.transaction.state() != TransactionState::Failed => {
                return match self.settings.read_only() {
                    true => Err(Error::ReadOnly(write.action.name())),
                    false => Ok(()),
                };
            }
            Body::CopyIn(_) => return self.authorise_copy_in(),
            Body::Read(_)
                if !prepared.locks.is_empty()
                    && self.settings.read_only()
                    && self.transaction.state() != TransactionState::Failed =>
            {
                return Err(Error::ReadOnly(locks::CLAUSE));
            }
            Body::Read(_) | Body::Write(_) => None,
            Body::Command(command) => Some(command.as_ref()),
        };
        match (self.transaction.state(), command) {
            (TransactionState::Failed, Some(command)) if command.ends_block() => Ok(()),
            (TransactionState::Failed, _) => Err(Error::InFailedTransaction),
            (TransactionState::InBlock, Some(Command::Ddl(ddl))) => {
                Err(Error::NotInTransaction(ddl.tag()))
            }
            (TransactionState::Idle, Some(Command::Lock { .. })) => {
                Err(Error::OutsideTransaction("LOCK TABLE"))
            }
            (TransactionState::InBlock, Some(Command::Maintain(upkeep)))
                if upkeep.task != Task::Analyze =>
            {
                Err(Error::InsideTransaction(upkeep.tag()))
            }
            (_, Some(command)) if self.settings.only_reads() && command.acts().is_some() => {
                Err(Error::ReadOnly(command.acts().unwrap_or_default()))
            }
            (_, Some(Command::Ddl(ddl))) if self.settings.read_only() => {
                Err(Error::ReadOnly(ddl.tag()))
            }
            _ => Ok(()),
        }
    }

    fn authorise_object(&self, command: &ObjectCommand) -> Result<()> {
        match (self.transaction.state(), command) {
            (TransactionState::Failed, _) => Err(Error::InFailedTransaction),
            (TransactionState::Idle, ObjectCommand::Declare(Declare { hold: false, .. }))
                if !self.several =>
            {
                Err(Error::OutsideTransaction("DECLARE CURSOR"))
            }
            (TransactionState::InBlock, ObjectCommand::DiscardAll) => {
                Err(Error::InsideTransaction("DISCARD ALL"))
            }
            _ => Ok(()),
        }
    }

    fn authorise_copy_in(&self) -> Result<()> {
        match self.transaction.state() {
            TransactionState::Failed => Err(Error::InFailedTransaction),
            _ if self.settings.read_only() => Err(Error::ReadOnly("COPY FROM")),
            TransactionState::InBlock | TransactionState::Idle => Ok(()),
        }
    }

    /// A daemon that stops takes nothing new, except the end of what has begun.
    fn admit(&self) -> Result<Admitted> {
        let gate = match &self.turn {
            Some(_) => Some(self.queries.gate.enter_again("statement")),
            None => self.queries.gate.enter("statement"),
        };
        let gate = gate.ok_or(Error::Stopped(Stop::ShuttingDown))?;
        let role = &self.entry().user;
        let share = match self.statement_limit {
            // Most roles have no limit, and need not be counted.
            None => None,
            Some(limit) => match self.queries.shares.take(role, limit) {
                Some(share) => Some(share),
                None => return Err(Error::TooManyStatements(role.clone())),
            },
        };
        Ok(Admitted { gate, share })
    }

    pub(super) fn origin(&self) -> Origin {
        Origin {
            catalog: self.catalog().snapshot(),
            settings: self.settings.clone(),
            staged: self.engine.info().staged.generation(),
        }
    }

    pub(super) async fn plan_text(&mut self, sql: &str) -> Result<Plan> {
        let parsed = parse(sql)?.pop().ok_or_else(|| Error::Invalid("empty".to_owned()))?;
        Ok(self.engine.plan(&parsed.statement, &[]).await?)
    }

    /// The plan of the query that a new table is made of.
    pub(super) async fn plan_first_rows(&mut self, sql: &str) -> Result<Plan> {
        let parsed = parse(sql)?.pop().ok_or_else(|| Error::Invalid("empty".to_owned()))?;
        Ok(self.engine.plan_first_rows(&parsed.statement).await?)
    }

    pub(super) fn catalog(&self) -> &Arc<Catalog> {
        &self.queries.catalog
    }

    pub(super) fn roots(&self) -> &crate::storage::Roots {
        self.queries.engine.roots()
    }

    pub(super) fn queries(&self) -> &Queries {
        &self.queries
    }

    pub(super) fn engine_session(&self) -> &engine::Session {
        &self.engine
    }

    /// Memory that is paid for from what all statements share.
    pub fn memory(&self, consumer: &str) -> MemoryReservation {
        MemoryConsumer::new(consumer).register(self.engine.memory_pool())
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

    pub(super) fn use_settings(&mut self, settings: Arc<Settings>) {
        if settings != self.settings {
            let name = settings.get("application_name").unwrap_or_default();
            self.entry().set_application_name(name);
            self.statement_limit = settings.statement_limit();
            self.settings = settings.clone();
            self.engine.set_settings(settings);
        }
    }
}
