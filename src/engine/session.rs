//! One client's place in the engine: its settings, and the plans made with them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::sql::parser::Statement;
use sqlparser::ast::{ColumnDef, Expr, LimitClause, Query, Value};
use tokio_util::task::AbortOnDropHandle;

use super::cooperation::make_fair;
use super::explain::explain_schema;
use super::planner::{Scope, column_schema};
use super::settings::Settings;
use super::system::{SessionInfo, parameter_type};
use super::visit::visit_expressions;
use super::{Engine, Error, Result, Rows};
use crate::storage;

/// A planned statement: run it any number of times.
#[derive(Clone, Debug)]
pub struct Plan {
    logical: LogicalPlan,
    /// Types of `$1`, `$2`, ...
    pub parameters: Vec<DataType>,
    /// Columns of the result.
    pub schema: SchemaRef,
}

/// A session's view of the engine.
#[derive(Debug)]
pub struct Session {
    engine: Arc<Engine>,
    info: SessionInfo,
    state: SessionState,
}

impl Session {
    pub fn new(engine: Arc<Engine>, info: SessionInfo) -> Self {
        let state = engine.template.clone();
        let mut session = Self { engine, info, state };
        session.configure();
        session
    }

    pub fn info(&self) -> &SessionInfo {
        &self.info
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(super) fn state(&self) -> &SessionState {
        &self.state
    }

    /// Takes other settings from now on.
    pub fn set_settings(&mut self, settings: Arc<Settings>) {
        self.info.settings = settings;
        self.configure();
    }

    /// Brings the engine's configuration in line with the session's settings.
    fn configure(&mut self) {
        let mut config = self.engine.template.config().clone();
        let options = config.options_mut();
        options.execution.time_zone = Some(self.info.settings.time_zone().to_owned());
        for (name, value) in self.info.settings.engine_options() {
            // Checked when it was set.
            let _ = options.set(name, value);
        }
        options.extensions.insert(self.info.clone());
        *self.state.config_mut() = config;
    }

    /// A statement's start: what now() returns from here on.
    pub fn mark_start(&mut self) {
        self.state.mark_start_execution();
    }

    /// Plans a statement that reads. `declared` are parameter types that the client insists on.
    pub async fn plan(&self, statement: &Statement, declared: &[Option<DataType>]) -> Result<Plan> {
        let scope = Scope {
            database: self.info.database.to_string(),
            search_path: self.info.search_path(),
        };
        let types = self.engine.system().type_planner();
        let known = known_parameters(statement, declared, types.as_deref());
        let logical = self.plan_in(&scope, statement.clone(), fields(&known), 0).await?;
        let (logical, parameters) = match parameter_types(&logical, &known)? {
            Parameters::Settled(parameters) => (logical, parameters),
            // Types only the plan could tell; those that nothing tells are text, as in PostgreSQL.
            Parameters::Found(types) => {
                let fields = fields(&types.iter().cloned().map(Some).collect::<Vec<_>>());
                (self.plan_in(&scope, statement.clone(), fields, 0).await?, types)
            }
        };
        let schema = match &logical {
            LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) => explain_schema(),
            plan => Arc::new(plan.schema().as_arrow().clone()),
        };
        Ok(Plan { logical, parameters, schema })
    }

    /// The plan for one execution, on the engine's threads since optimising is work.
    pub async fn prepare(
        &self,
        plan: &Plan,
        values: Vec<ScalarValue>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let state = self.state.clone();
        let logical = plan.logical.clone();
        let task = self.engine.handle().spawn(async move {
            let logical = match values.is_empty() {
                true => logical,
                false => logical
                    .replace_params_with_values(&ParamValues::List(
                        values.into_iter().map(Into::into).collect(),
                    ))
                    .map_err(Error::planning)?,
            };
            let physical = state.create_physical_plan(&logical).await.map_err(Error::planning)?;
            let physical = make_fair(physical).map_err(Error::planning)?;
            storage::name_files(physical).map_err(Error::planning)
        });
        match AbortOnDropHandle::new(task).await {
            Ok(result) => result,
            Err(error) => Err(Error::Panic(error.to_string())),
        }
    }

    /// Runs a plan; `transform` is applied to each batch on the engine's threads.
    pub fn run<T: Send + 'static>(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        transform: impl FnMut(RecordBatch) -> Result<T> + Send + 'static,
    ) -> Rows<T> {
        Rows::start(self.engine.handle(), plan, self.state.task_ctx(), transform)
    }

    /// Columns as CREATE TABLE declares them.
    pub fn columns(&self, columns: Vec<ColumnDef>) -> Result<Schema> {
        column_schema(self, columns)
    }

    /// Looks into files that are to become a table.
    pub async fn describe_files(
        &self,
        definition: storage::Definition,
    ) -> Result<(Vec<crate::catalog::Column>, crate::catalog::External)> {
        let state = self.state.clone();
        let task =
            self.engine.handle().spawn(async move { storage::describe(&state, definition).await });
        match AbortOnDropHandle::new(task).await {
            Ok(result) => Ok(result?),
            Err(error) => Err(Error::Panic(error.to_string())),
        }
    }
}

impl Plan {
    /// Whether this is EXPLAIN, whose rows are lines of text.
    pub fn is_explain(&self) -> bool {
        matches!(self.logical, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_))
    }

    /// Whether the plan only reads: nothing else reaches the engine.
    pub fn only_reads(&self) -> bool {
        !matches!(
            self.logical,
            LogicalPlan::Ddl(_)
                | LogicalPlan::Dml(_)
                | LogicalPlan::Copy(_)
                | LogicalPlan::Statement(_)
        )
    }
}

enum Parameters {
    Settled(Vec<DataType>),
    Found(Vec<DataType>),
}

/// The types of all parameters of a plan, `$1` first.
fn parameter_types(plan: &LogicalPlan, known: &[Option<DataType>]) -> Result<Parameters> {
    let found = plan.get_parameter_types().map_err(Error::planning)?;
    let number = |name: &str| name.strip_prefix('$')?.parse::<usize>().ok();
    let by_number: HashMap<usize, Option<DataType>> =
        (found.into_iter()).filter_map(|(name, kind)| Some((number(&name)?, kind))).collect();
    let count = by_number.keys().copied().max().unwrap_or(0).max(known.len());
    let settled = (1..=count).all(|n| known.get(n - 1).is_some_and(Option::is_some));
    let types = (1..=count)
        .map(|n| {
            let declared = known.get(n - 1).cloned().flatten();
            let inferred = || by_number.get(&n).cloned().flatten();
            match declared.or_else(inferred) {
                None | Some(DataType::Null) => DataType::Utf8,
                Some(kind) => kind,
            }
        })
        .collect();
    Ok(if settled { Parameters::Settled(types) } else { Parameters::Found(types) })
}

/// What the client and the statement's own casts and limits say of its parameters.
fn known_parameters(
    statement: &Statement,
    declared: &[Option<DataType>],
    types: Option<&dyn TypePlanner>,
) -> Vec<Option<DataType>> {
    let mut known = declared.to_vec();
    let Statement::Statement(statement) = statement else { return known };
    let mut note = |expression: &Expr, kind: DataType| {
        let Expr::Value(value) = expression else { return };
        let Value::Placeholder(name) = &value.value else { return };
        let Some(number) = name.strip_prefix('$').and_then(|n| n.parse::<usize>().ok()) else {
            return;
        };
        // PostgreSQL's own limit (a 16-bit count on the wire) bounds this.
        if number == 0 || number > usize::from(u16::MAX) {
            return;
        }
        if known.len() < number {
            known.resize(number, None);
        }
        known[number - 1].get_or_insert(kind);
    };
    if let sqlparser::ast::Statement::Query(query) = statement.as_ref() {
        for expression in limits(query) {
            note(expression, DataType::Int64);
        }
    }
    visit_expressions(statement.as_ref(), |expression| {
        if let Expr::Cast { expr, data_type, .. } = expression
            && let Some(kind) = parameter_type(data_type, cast_type, types)
        {
            note(expr, kind);
        }
    });
    known
}

fn limits(query: &Query) -> Vec<&Expr> {
    match &query.limit_clause {
        Some(LimitClause::LimitOffset { limit, offset, .. }) => {
            limit.iter().chain(offset.iter().map(|offset| &offset.value)).collect()
        }
        Some(LimitClause::OffsetCommaLimit { offset, limit }) => vec![offset, limit],
        None => Vec::new(),
    }
}

/// The type of `$1::TYPE`, for the types that parameters are commonly cast to.
fn cast_type(kind: &sqlparser::ast::DataType) -> Option<DataType> {
    use sqlparser::ast::DataType as Sql;
    Some(match kind {
        Sql::SmallInt(_) | Sql::Int2(_) => DataType::Int16,
        Sql::Int(_) | Sql::Int4(_) | Sql::Integer(_) => DataType::Int32,
        Sql::BigInt(_) | Sql::Int8(_) => DataType::Int64,
        Sql::Real | Sql::Float4 => DataType::Float32,
        Sql::Double(_) | Sql::DoublePrecision | Sql::Float8 => DataType::Float64,
        Sql::Text | Sql::Varchar(_) | Sql::CharacterVarying(_) | Sql::String(_) => DataType::Utf8,
        Sql::Boolean | Sql::Bool => DataType::Boolean,
        Sql::Date => DataType::Date32,
        Sql::Bytea => DataType::Binary,
        _ => return None,
    })
}

fn fields(types: &[Option<DataType>]) -> Vec<Option<FieldRef>> {
    let field = |kind: &DataType| Arc::new(Field::new("parameter", kind.clone(), true));
    types.iter().map(|kind| kind.as_ref().map(field)).collect()
}
