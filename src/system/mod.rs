//! The cluster as SQL, and PostgreSQL's own system tables and functions, so that its clients feel
//! at home.
//!
//! - [`relations`]: which system relations there are, with their columns (data).
//! - [`pg_catalog`], [`information_schema`]: their rows, from the catalog and the session.
//! - [`daemons`], [`queries`], [`history`], [`pools`], [`tables`], [`maintenance`], [`settings`],
//!   [`schedules`], [`coordination`]: the schema `system`.
//! - [`everywhere`]: asks all daemons for their rows.
//! - [`zk`]: ZooKeeper itself.
//! - [`functions`]: scalar and table functions.
//! - [`rewrite`]: what PostgreSQL's clients say and the engine does not understand.
//! - [`types`]: PostgreSQL's types.
//!
//! Two rules: what a relation says is true of this database, or it is empty; and a row is made when
//! it is read, never earlier.

mod coordination;
mod daemons;
mod everywhere;
mod figures;
mod functions;
mod history;
mod information_schema;
mod maintenance;
mod pg_catalog;
mod pools;
mod queries;
mod relations;
mod rewrite;
mod roles;
mod rows;
mod schedules;
mod settings;
mod table;
mod tables;
#[cfg(test)]
mod tests;
mod types;
mod zk;

pub use pg_catalog::procedures::{Procedure, callable as functions};
pub use relations::{Relation, all as relations};

use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::catalog::{TableFunctionImpl, TableProvider};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::ScalarUDF;
use datafusion::logical_expr::planner::TypePlanner;
use serde::{Deserialize, Serialize};
use sqlparser::ast::Statement;

use crate::catalog::{Access, Database, Error, Snapshot};
pub use crate::cluster::Trouble;
use crate::coordination::counted::Counted;
use crate::coordination::whole::Whole;
use crate::engine::system::{Joined, SessionInfo, SystemCatalog};
use crate::query::schedules::Schedules;
use crate::query::submitted::Submissions;
use crate::tls::Tls;

/// The state of a daemon that is registered and does not answer the one that is asked, and of what it runs for
/// clients.
pub const UNREACHABLE: &str = "unreachable";

/// A daemon of the cluster, as `system.daemons` shows it.
#[derive(Clone, Debug)]
pub struct DaemonRow {
    pub id: String,
    pub state: String,
    /// Addresses, where the daemon listens.
    pub postgres: Option<String>,
    pub peer: Option<String>,
    pub web: Option<String>,
    pub incarnation: String,
    pub version: String,
    pub build: String,
    pub cores: u32,
    /// Bytes.
    pub memory: u64,
    pub since: SystemTime,
    /// Whether it is the one that answers.
    pub local: bool,
    /// Whether it keeps house for all.
    pub leader: bool,
    /// Why it is degraded, where more is known than that it is out of touch: of the one that answers only.
    pub error: Option<Trouble>,
}

/// A piece of work on a table, as `system.maintenance` shows it.
#[derive(Clone, Debug)]
pub struct MaintenanceRow {
    pub daemon: String,
    pub object: String,
    pub kind: String,
    pub started: SystemTime,
    pub seconds: f64,
    pub files_read: u64,
    pub files_written: u64,
    pub snapshots_expired: u64,
    pub files_removed: u64,
    pub bytes_removed: u64,
    pub error: Option<String>,
}

/// A pool, and what a daemon makes of it, as `system.pools` shows it.
#[derive(Clone, Debug)]
pub struct PoolRow {
    pub name: String,
    pub roles: Vec<String>,
    /// Statements at once in the cluster; `None`: any number.
    pub concurrency: Option<u64>,
    /// Statements that wait at once in the cluster.
    pub queue: u64,
    pub queue_timeout: Option<Duration>,
    /// Bytes for each statement.
    pub memory: Option<u64>,
    pub daemon: String,
    /// Statements at once on this daemon; `None`: any number.
    pub share: Option<u64>,
    pub queue_share: u64,
    pub running: u64,
    pub queued: u64,
    pub admitted: u64,
    pub waited: u64,
    pub refused: u64,
    pub timed_out: u64,
    pub cancelled: u64,
}

/// A statement, as `system.queries` shows it.
#[derive(Clone, Debug)]
pub struct QueryRow {
    pub id: String,
    pub kind: String,
    pub state: String,
    pub daemon: String,
    /// The client's process id.
    pub pid: Option<i32>,
    pub attempt: Option<i32>,
    pub user: String,
    /// The role's OID, if it is known.
    pub owner: Option<u32>,
    pub database: String,
    /// The pool that it is in.
    pub pool: Option<String>,
    pub sql: String,
    /// From 0 to 1.
    pub progress: Option<f64>,
    pub submitted: SystemTime,
    pub started: Option<SystemTime>,
    /// Why it failed, as are the code and the text.
    pub sqlstate: Option<String>,
    pub error: Option<String>,
    /// What follows only the daemon knows that runs it: see [`LookRow`].
    pub phase: Option<String>,
    pub rows: Option<i64>,
    /// Bytes.
    pub scanned: Option<i64>,
    pub workers: Vec<String>,
}

/// How a statement goes, as the daemon tells that runs it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LookRow {
    /// Of the statement, or of the submitted query.
    pub id: String,
    pub attempt: Option<i32>,
    pub phase: String,
    /// From 0 to 1.
    pub progress: Option<f64>,
    pub rows: i64,
    /// Bytes.
    pub scanned: i64,
    pub workers: Vec<String>,
}

/// A statement that has ended, as `system.query_history` shows it.
#[derive(Clone, Debug)]
pub struct HistoryRow {
    pub id: String,
    pub state: &'static str,
    pub daemon: String,
    pub pid: Option<i32>,
    pub user: String,
    /// The role's OID, if it is known.
    pub owner: Option<u32>,
    pub database: String,
    pub pool: Option<String>,
    pub client: Option<String>,
    pub application_name: String,
    pub sql: String,
    pub tag: Option<String>,
    pub started: Option<SystemTime>,
    pub ended: Option<SystemTime>,
    pub duration: Option<Duration>,
    pub queued: Option<Duration>,
    pub planning: Option<Duration>,
    pub execution: Option<Duration>,
    pub rows: u64,
    /// Bytes.
    pub scanned: u64,
    pub rows_scanned: u64,
    /// Bytes.
    pub spilled: u64,
    pub peak: u64,
    pub retries: u32,
    pub workers: Vec<String>,
    /// Those whose figures are missing.
    pub silent: Vec<String>,
    /// Whether its profile is kept.
    pub profile: bool,
    pub sqlstate: Option<String>,
    pub error: Option<String>,
    /// Names and values of those that were not as they are by default.
    pub settings: Vec<(String, String)>,
}

/// A statement's plan with what each step has measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProfileRow {
    /// Whose statement it was.
    pub user: String,
    /// The role's OID, if it is known.
    pub owner: Option<u32>,
    /// As superusers may see it.
    pub full: String,
    /// As others may.
    pub plain: String,
}

/// A key of the daemon's configuration, as `system.settings` shows it.
#[derive(Clone, Debug)]
pub struct SettingRow {
    pub key: String,
    pub value: String,
    pub default: String,
    /// Where the value was set: a file, a variable, a flag, `default`, or the node of a live setting.
    pub origin: String,
    /// Whether it can change while daemons run.
    pub live: bool,
    /// What somebody has set, and is not in force, and why.
    pub error: Option<String>,
}

/// Which version of the live settings a daemon runs, as `system.settings_applied` shows it.
#[derive(Clone, Debug)]
pub struct SettingAppliedRow {
    pub daemon: String,
    pub version: Option<u64>,
    /// Whether it is the newest that the daemon knows which answers.
    pub current: bool,
    pub applied: Option<SystemTime>,
    pub error: Option<String>,
}

/// A change of a live setting, as `system.settings_history` shows it.
#[derive(Clone, Debug)]
pub struct SettingChangeRow {
    pub version: u64,
    pub changed: SystemTime,
    pub by: String,
    pub name: String,
    pub before: Option<String>,
    pub value: Option<String>,
}

/// A client's connection, as `pg_stat_activity` shows it. Of one to another daemon only so much is
/// known as its running statement tells.
#[derive(Clone, Debug, Default)]
pub struct SessionRow {
    pub pid: i32,
    pub user: String,
    /// The role's OID, if it is known.
    pub owner: Option<u32>,
    pub database: String,
    pub application_name: Option<String>,
    pub client: Option<SocketAddr>,
    /// How the connection is encrypted, if it is.
    pub tls: Option<Arc<Tls>>,
    pub connected: Option<SystemTime>,
    /// The start of the present transaction, if there is one.
    pub transaction_started: Option<SystemTime>,
    /// The start of the present or last statement.
    pub query_started: Option<SystemTime>,
    pub state_changed: Option<SystemTime>,
    /// `active`, `idle`, `idle in transaction` or `idle in transaction (aborted)`.
    pub state: Option<&'static str>,
    /// Whether its statement waits in its pool's queue.
    pub queued: bool,
    /// The present or last statement's text.
    pub query: String,
}

/// What the rooms below and beside know of the cluster; made by the composition root.
#[async_trait]
pub trait Cluster: Send + Sync + Debug + 'static {
    /// The live daemons, this one included, from memory.
    fn daemons(&self) -> Vec<DaemonRow>;

    /// The statements under way on all daemons, with the `submitted` ones, done or not, or without. Must answer soon, with what it has by then.
    /// And whether that are all that there are.
    async fn queries(&self, submitted: bool) -> (Vec<QueryRow>, bool);

    /// How the statements go that this daemon runs, from memory.
    fn looks(&self) -> Vec<LookRow>;

    /// The statements that have ended, by id. Must answer soon.
    async fn history(&self) -> Vec<HistoryRow>;

    /// The profile of a statement, if it is kept.
    async fn profile(&self, id: &str) -> Option<ProfileRow>;

    /// The pools, and what this daemon makes of them, from memory.
    fn pools(&self) -> Vec<PoolRow>;

    /// What was done lately for managed tables, oldest first.
    async fn maintenance(&self) -> Result<Vec<MaintenanceRow>>;

    /// All that the coordination store holds.
    fn store(&self) -> &Whole;

    /// The session that this daemon lives by.
    fn own_session(&self) -> Option<&Arc<Counted>>;

    /// The version of the live settings that this daemon runs, and its configuration with them on
    /// top, from memory.
    fn settings(&self) -> (u64, Vec<SettingRow>);

    /// Which version each daemon runs.
    async fn settings_applied(&self) -> Result<Vec<SettingAppliedRow>>;

    /// The last changes of live settings, oldest first, from memory.
    fn settings_history(&self) -> Vec<SettingChangeRow>;
}

/// What one client may do to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Stops its present statement.
    Cancel,
    /// Ends its connection. With a time: waits so long until it has ended.
    Terminate(Option<Duration>),
}

/// The clients' connections; made by the composition root.
#[async_trait]
pub trait Backends: Send + Sync + Debug + 'static {
    /// The connections to this daemon.
    fn sessions(&self) -> Vec<SessionRow>;

    /// Where a client of this daemon is, and the address that it has connected to.
    fn addresses(&self, pid: i32) -> (Option<SocketAddr>, Option<SocketAddr>);

    /// Signals a client of any daemon on behalf of another of this one: whether it was done. If not,
    /// the one who asks is told why; an error if it may not do so. Must answer within seconds beyond
    /// the time it is to wait, and at once when the statement that asks is stopped.
    async fn signal(&self, asker: &SessionInfo, pid: i32, signal: Signal) -> Result<bool>;

    /// Has a client of this daemon told of something that its statement has met.
    fn warn(&self, pid: i32, message: String);
}

/// System tables and functions for all sessions of a daemon.
#[derive(Debug)]
pub struct System {
    shared: Arc<Shared>,
}

/// What tables and functions look at.
#[derive(Debug)]
struct Shared {
    cluster: Arc<dyn Cluster>,
    backends: Arc<dyn Backends>,
    submissions: Arc<Submissions>,
    started: SystemTime,
    /// Unset as long as the daemon has no peers.
    joined: OnceLock<Joined>,
}

impl Shared {
    /// This daemon's name.
    fn own_id(&self) -> String {
        let own = self.cluster.daemons().into_iter().find(|daemon| daemon.local);
        own.map(|daemon| daemon.id).unwrap_or_default()
    }

    /// Asks all other daemons.
    async fn ask(&self, question: &str) -> Vec<(String, Result<Bytes, String>)> {
        match self.joined.get().and_then(|joined| joined.others.upgrade()) {
            Some(others) => others.ask(question).await,
            None => Vec::new(),
        }
    }

    /// Asks those of these daemons that are well, for what is of use at once or not at all.
    async fn ask_soon(&self, question: &str, daemons: &[String]) -> Vec<(String, Bytes)> {
        match self.joined.get().and_then(|joined| joined.others.upgrade()) {
            Some(others) => others.ask_soon(question, daemons).await,
            None => Vec::new(),
        }
    }
}

/// What one read of a table, or one batch of function calls, sees.
#[derive(Debug)]
struct View<'a> {
    session: &'a SessionInfo,
    shared: &'a Shared,
    snapshot: Arc<Snapshot>,
}

impl System {
    pub fn new(
        cluster: Arc<dyn Cluster>,
        backends: Arc<dyn Backends>,
        submissions: Arc<Submissions>,
    ) -> Self {
        let (started, joined) = (SystemTime::now(), OnceLock::new());
        Self { shared: Arc::new(Shared { cluster, backends, submissions, started, joined }) }
    }
}

#[async_trait]
impl SystemCatalog for System {
    fn has_schema(&self, schema: &str) -> bool {
        relations::is_schema(schema)
    }

    fn table(
        &self,
        _session: &SessionInfo,
        schema: &str,
        table: &str,
    ) -> Result<Option<Arc<dyn TableProvider>>> {
        let Some(relation) = relations::find(schema, table) else { return Ok(None) };
        table::provider(relation, self.shared.clone()).map(Some)
    }

    fn rewrite(&self, statement: Statement) -> Statement {
        rewrite::rewrite(statement)
    }

    fn scalar_functions(&self) -> Vec<Arc<ScalarUDF>> {
        functions::scalar(&self.shared)
    }

    fn table_functions(&self) -> Vec<(String, Arc<dyn TableFunctionImpl>)> {
        functions::table(&self.shared)
    }

    fn type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(rewrite::TypeNames))
    }

    async fn answer(&self, question: &str) -> Result<Vec<u8>> {
        everywhere::answer(&self.shared, question).await
    }

    fn join(&self, joined: Joined) {
        // Joined once only: the engine sees to that.
        let _ = self.shared.joined.set(joined);
    }
}

impl<'a> View<'a> {
    fn new(session: &'a SessionInfo, shared: &'a Shared) -> Self {
        Self { session, shared, snapshot: session.catalog.snapshot() }
    }

    /// What the session's role may do.
    fn access(&self) -> Access<'_> {
        self.snapshot.access(&self.session.user)
    }

    fn schedules(&self) -> Schedules {
        Schedules::new(self.shared.submissions.clone(), self.session.catalog.clone())
    }

    /// The OID of the session's role.
    fn own_oid(&self) -> Option<u32> {
        self.snapshot.roles.get(self.session.user.as_ref()).map(|role| role.record.oid)
    }

    /// Whether the session's role has the privileges of the one that something belongs to, whatever
    /// that is called now. Of one that is gone superusers alone have them.
    fn has_role_of(&self, user: &str, owner: Option<u32>) -> bool {
        let access = self.access();
        let role = self.snapshot.role_of(user, owner);
        access.is_superuser() || role.is_some_and(|role| access.has_role(&role.name))
    }

    /// Whether the session's role may know what a role's sessions do.
    fn may_look_at(&self, user: &str, owner: Option<u32>) -> bool {
        let access = self.access();
        self.has_role_of(user, owner)
            || access.has_role("pg_read_all_stats")
            || access.has_role("pg_monitor")
    }

    /// Refuses a relation to whoever neither has this role nor watches over the cluster.
    fn require(&self, role: &str, relation: &Relation) -> Result<()> {
        if self.watches_as(role) { Ok(()) } else { Err(self.denied(relation, role)) }
    }

    /// Whether the session's role has this one, or watches over the cluster.
    fn watches_as(&self, role: &str) -> bool {
        let access = self.access();
        access.has_role(role) || access.has_role("pg_monitor")
    }

    fn denied(&self, relation: &Relation, role: &str) -> DataFusionError {
        let (relation, role) = (relation.name.to_owned(), role.to_owned());
        let denied = Error::NeedsRole { relation, role };
        DataFusionError::External(Box::new(denied))
    }

    /// The database the session is connected to; it may have been dropped meanwhile.
    fn database(&self) -> Option<&Arc<Database>> {
        self.snapshot.databases.get(self.session.database.as_ref())
    }
}
