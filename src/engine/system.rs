//! What the floor above contributes to SQL: system tables, functions, and the rewriting of
//! PostgreSQL's dialect. The engine knows only this interface; `system` implements it.

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::catalog::{TableFunctionImpl, TableProvider};
use datafusion::config::{ConfigEntry, ConfigExtension, ConfigOptions, ExtensionOptions};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::ScalarUDF;
use datafusion::logical_expr::planner::TypePlanner;
use sqlparser::ast::{ArrayElemTypeDef, DataType as SqlType, Statement};

use super::settings::Settings;
use crate::catalog::Catalog;

/// Who asks, and in which database: what session-dependent functions and system tables need.
///
/// It travels as an extension of the engine's configuration, so that a function finds it in
/// `ScalarFunctionArgs::config_options` with [`SessionInfo::of`].
#[derive(Clone, Debug)]
pub struct SessionInfo {
    pub database: Arc<str>,
    pub user: Arc<str>,
    /// The process id told to the client, unique in the cluster.
    pub pid: i32,
    pub settings: Arc<Settings>,
    pub catalog: Arc<Catalog>,
}

impl SessionInfo {
    /// The session a function is called in.
    pub fn of(options: &ConfigOptions) -> Result<&Self> {
        options.extensions.get::<Self>().ok_or_else(|| {
            DataFusionError::Internal("the function was called outside of a session".to_owned())
        })
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

/// System tables and functions, and the dialect of clients that ask for them.
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
}

/// Metadata key of a column that is more to PostgreSQL than its Arrow type says: `oid`, `name`,
/// `char`, `regproc`, `int2vector`, `_aclitem` and the like.
pub const PG_TYPE: &str = "oribi.pg_type";

/// PostgreSQL's name for the type of such a column; `None` for all others. Metadata outlives an
/// implicit cast, so it counts only while the Arrow type still fits.
pub fn pg_type_name(field: &Field) -> Option<&str> {
    let name = field.metadata().get(PG_TYPE)?.as_str();
    let fits = match (name, field.data_type()) {
        ("int2vector" | "oidvector", kind) => matches!(kind, DataType::List(_)),
        (name, kind) if name.starts_with('_') => matches!(kind, DataType::List(_)),
        ("oid" | "xid" | "cid", kind) => *kind == DataType::Int32,
        (name, kind) if name.starts_with("reg") => *kind == DataType::Int32,
        (_, kind) => matches!(kind, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8),
    };
    fits.then_some(name)
}

/// The type of a parameter that a statement casts, as in `$1::oid[]`. `plain` knows the engine's own
/// types, `types` those of the system; what is written as a name comes as one.
pub fn parameter_type(
    written: &SqlType,
    plain: fn(&SqlType) -> Option<DataType>,
    types: Option<&dyn TypePlanner>,
) -> Option<DataType> {
    parameter_field(written, plain, types).map(|field| field.data_type().clone())
}

fn parameter_field(
    written: &SqlType,
    plain: fn(&SqlType) -> Option<DataType>,
    types: Option<&dyn TypePlanner>,
) -> Option<Field> {
    if let SqlType::Array(ArrayElemTypeDef::SquareBracket(element, _)) = written {
        // The element keeps its PostgreSQL type: clients look up a parameter of a type that they
        // do not expect.
        let element =
            parameter_field(element, plain, types)?.with_name(Field::LIST_FIELD_DEFAULT_NAME);
        return Some(Field::new("", DataType::List(Arc::new(element)), true));
    }
    if let Some(kind) = plain(written) {
        return Some(Field::new("", kind, true));
    }
    let field = types?.plan_type_field(written).ok()??;
    match pg_type_name(&field) {
        Some(name) if name.starts_with("reg") => Some(Field::new("", DataType::Utf8, true)),
        _ => Some(field.as_ref().clone()),
    }
}

/// What stands between the name of a result's column and a number that keeps it apart from another
/// column of the same name: the engine needs names to differ, PostgreSQL does not.
pub const NAME_MARK: char = '\u{1}';

/// A result column's name as the client should see it.
pub fn shown_name(name: &str) -> &str {
    name.split(NAME_MARK).next().unwrap_or(name)
}
