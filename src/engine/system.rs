//! What the floor above contributes to SQL: system tables, functions, and the rewriting of
//! PostgreSQL's dialect. The engine knows only this interface; `system` implements it.

use std::any::Any;
use std::borrow::Cow;
use std::fmt::Debug;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::catalog::{TableFunctionImpl, TableProvider};
use datafusion::config::{ConfigEntry, ConfigExtension, ConfigOptions, ExtensionOptions};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::ScalarUDF;
use datafusion::logical_expr::planner::TypePlanner;
use sqlparser::ast::Statement;

use super::caches::Kept;
use super::objects::SessionObjects;
use super::settings::Settings;
use super::staged::StagedTables;
use crate::catalog::Catalog;
use crate::storage::managed::TableFiles;

/// Who asks, and in which database: what session-dependent functions and system tables need.
///
/// It travels as an extension of the engine's configuration, so that a function finds it in
/// `ScalarFunctionArgs::config_options` with [`SessionInfo::of`].
#[derive(Clone, Debug)]
pub struct SessionInfo {
    pub database: Arc<str>,
    /// Whose rights count: the role that logged in, or the one it has taken with SET ROLE.
    pub user: Arc<str>,
    /// The role that logged in.
    pub login: Arc<str>,
    /// The process id told to the client, unique in the cluster.
    pub pid: i32,
    pub settings: Arc<Settings>,
    pub catalog: Arc<Catalog>,
    pub objects: Arc<SessionObjects>,
    /// Tables as its transaction block has made them.
    pub staged: Arc<StagedTables>,
    /// The files of managed tables.
    pub files: Arc<TableFiles>,
    /// Where managed tables are made unless they say otherwise.
    pub warehouse: Option<Arc<str>>,
}

impl SessionInfo {
    /// The session a function is called in.
    pub fn of(options: &ConfigOptions) -> Result<&Self> {
        options.extensions.get::<Self>().ok_or_else(|| {
            DataFusionError::Internal("the function was called outside of a session".to_owned())
        })
    }

    /// Takes other settings, and the role that they say: one of those that the role that logged in
    /// is a member of. Whoever sets another stays what it is, whichever way that was set.
    pub fn take_settings(&mut self, settings: Arc<Settings>) {
        let role = settings.role().filter(|role| self.may_take(role));
        self.user = role.map_or_else(|| self.login.clone(), Arc::from);
        self.settings = settings;
    }

    /// Whether the role that logged in may take another one, as far as this daemon knows.
    pub fn may_take(&self, role: &str) -> bool {
        let snapshot = self.catalog.snapshot();
        snapshot.roles.contains_key(role)
            && (snapshot.access(&self.login).is_superuser()
                || snapshot.is_member(&self.login, role))
    }

    /// The settings as the statement sees them that runs now.
    pub fn present_settings(&self) -> Cow<'_, Settings> {
        match self.objects.changes.over(&self.settings) {
            Some(changed) => Cow::Owned(changed),
            None => Cow::Borrowed(&self.settings),
        }
    }

    /// Schemas searched for names without one, system schemas that come first included.
    pub fn search_path(&self) -> Vec<String> {
        let path = self.settings.search_path(&self.user);
        let first = (!path.iter().any(|name| name == "pg_catalog")).then(|| "pg_catalog".into());
        first.into_iter().chain(path).collect()
    }
}

impl ConfigExtension for SessionInfo {
    const PREFIX: &'static str = "oribi_session";
}

impl ExtensionOptions for SessionInfo {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(self.clone())
    }

    fn set(&mut self, key: &str, _value: &str) -> Result<()> {
        Err(DataFusionError::Configuration(format!("{key} cannot be set")))
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        Vec::new()
    }
}

/// The other daemons, for what each of them alone knows.
#[async_trait]
pub trait Others: Send + Sync + Debug + 'static {
    /// Asks all of them at once, as far as they are members of the cluster. Each has an answer by
    /// [`SystemCatalog::answer`], or the reason why it has none; ends within seconds.
    async fn ask(&self, question: &str) -> Vec<(String, Result<Bytes, String>)>;

    /// Asks those of these daemons that have not failed lately, and gives the answers that come within
    /// half a second.
    async fn ask_soon(&self, question: &str, daemons: &[String]) -> Vec<(String, Bytes)>;
}

/// What the floor above learns of the engine once it has peers.
#[derive(Debug)]
pub struct Joined {
    pub others: Weak<dyn Others>,
    pub environment: Arc<RuntimeEnv>,
    pub kept: Kept,
}

/// System tables and functions, and the dialect of clients that ask for them.
#[async_trait]
pub trait SystemCatalog: Send + Sync + Debug + 'static {
    /// Whether a schema of this name belongs to the system, in every database.
    fn has_schema(&self, schema: &str) -> bool;

    /// A system table by schema and name, as this session sees it.
    fn table(
        &self,
        session: &SessionInfo,
        schema: &str,
        table: &str,
    ) -> Result<Option<Arc<dyn TableProvider>>>;

    /// Turns what PostgreSQL's clients send into what the planner understands.
    fn rewrite(&self, statement: Statement) -> Statement;

    /// Functions that exist beside the engine's own. They find their session with
    /// [`SessionInfo::of`].
    fn scalar_functions(&self) -> Vec<Arc<ScalarUDF>>;

    fn table_functions(&self) -> Vec<(String, Arc<dyn TableFunctionImpl>)>;

    /// Types by PostgreSQL's names that the engine does not know, such as `oid` and `name`.
    fn type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        None
    }

    /// Answers another daemon, from what this one has: must be done within a second or so.
    async fn answer(&self, question: &str) -> Result<Vec<u8>>;

    /// From now on there may be other daemons.
    fn join(&self, joined: Joined);
}

/// What stands between the name of a result's column and a number that keeps it apart from another
/// column of the same name: the engine needs names to differ, PostgreSQL does not.
pub const NAME_MARK: char = '\u{1}';

/// A result column's name as the client should see it.
pub fn shown_name(name: &str) -> &str {
    name.split(NAME_MARK).next().unwrap_or(name)
}
