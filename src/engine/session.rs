//! One client's place in the engine: its settings, and the plans made with them.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use arrow::array::RecordBatch;
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::source_as_provider;
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::SessionState;
use datafusion::execution::{FunctionRegistry, SessionStateBuilder, TaskContext};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableSource, Volatility};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::sql::parser::Statement;
use sqlparser::ast::{ColumnDef, DataType as SqlType, Select};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::explain::explain_schema;
use super::generic::{self, Generic};
use super::history::Moments;
use super::memory::{self, Bound};
use super::observe::Observation;
use super::parameters::{self, Parameters};
use super::planner::{Scope, column_schema};
use super::ready::{Course, Given, Ready};
use super::rows::are_small;
use super::settings::{Distribute, Settings};
use super::system::SessionInfo;
use super::{Calls, Engine, Error, Result, Rows, misplaced};
use crate::storage;

/// A planned statement: run it any number of times.
#[derive(Clone, Debug)]
pub struct Plan {
    logical: LogicalPlan,
    /// `$1`, `$2`, ...
    pub parameters: Vec<FieldRef>,
    /// Columns of the result.
    pub schema: SchemaRef,
    /// It reads no more than system tables: an operator's question.
    pub small: bool,
    /// One row of constants: PostgreSQL computes them before it describes the result.
    pub constant: bool,
    /// The columns of its target that a statement that writes looks at.
    pub reads: BTreeSet<String>,
    /// Of a statement that writes, with RETURNING: the first of the columns that are the client's.
    pub(super) returned: Option<usize>,
    /// Of EXPLAIN of a statement that does something with the plan's rows: what that is.
    pub heading: Option<String>,
    /// Whether it reads tables as they were at a moment that is another each time it runs: it is
    /// planned anew each time.
    pub moves: bool,
    /// Whether that moment depends on parameters, so that it cannot be run without their values.
    open: bool,
    /// Of constants without parameters, once they were computed.
    computed: Computed,
    generic: Generic,
}

/// What gives rows that were computed, and these.
type Computed = Arc<OnceLock<(Arc<dyn ExecutionPlan>, Given)>>;

/// A statement as it is planned before all types are settled.
pub(super) struct Draft {
    pub logical: LogicalPlan,
    /// See [`Plan::reads`].
    pub reads: BTreeSet<String>,
}

impl From<LogicalPlan> for Draft {
    fn from(logical: LogicalPlan) -> Self {
        Self { logical, reads: BTreeSet::new() }
    }
}

/// A session's view of the engine.
#[derive(Debug)]
pub struct Session {
    engine: Arc<Engine>,
    info: SessionInfo,
    /// Shared with the statements under way: a copy holds hundreds of functions by name.
    state: Arc<SessionState>,
    /// What the present statement runs with, if it is held to less memory than there is.
    bounded: Option<Arc<RuntimeEnv>>,
    /// Of the present statement.
    observation: Option<Arc<Observation>>,
    /// Of the present statement: its rows are taken in portions.
    portions: bool,
}

impl Session {
    pub fn new(engine: Arc<Engine>, info: SessionInfo) -> Self {
        let state = Arc::new(engine.template.clone());
        let (bounded, observation, portions) = (None, None, false);
        let mut session = Self { engine, info, state, bounded, observation, portions };
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

    /// Holds the statements to come to this memory, each of them.
    pub fn set_memory(&mut self, bound: Option<Bound>) {
        self.bounded = bound.map(|bound| bound.of(self.state.runtime_env()));
    }

    /// What is prepared from now on belongs to this statement.
    pub fn observe(&mut self, observation: Arc<Observation>) {
        self.observation = Some(observation);
    }

    /// Whether the rows of the statement that comes are taken in portions.
    pub fn set_portions(&mut self, portions: bool) {
        self.portions = portions;
    }

    /// What the present statement takes its memory from.
    pub fn memory_pool(&self) -> &Arc<dyn MemoryPool> {
        &self.environment().memory_pool
    }

    fn environment(&self) -> &Arc<RuntimeEnv> {
        self.bounded.as_ref().unwrap_or(self.state.runtime_env())
    }

    /// Takes other settings from now on.
    pub fn set_settings(&mut self, settings: Arc<Settings>) {
        self.info.take_settings(settings);
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
        // Some functions depend on the configuration: now() is in the session's time zone.
        let options = config.options().as_ref();
        let changed: Vec<_> = (self.state.scalar_functions().values())
            .filter_map(|function| function.inner().with_updated_config(options))
            .collect();
        let state = Arc::make_mut(&mut self.state);
        *state.config_mut() = config;
        for function in changed {
            // The registry of a state takes any function, and replaces one of the same name.
            let _ = state.register_udf(Arc::new(function));
        }
    }

    /// A statement's start: what now() returns from here on.
    pub fn mark_start(&mut self) {
        Arc::make_mut(&mut self.state).mark_start_execution();
    }

    /// Plans a statement that reads. `declared` are parameter types that the client insists on.
    pub async fn plan(&self, statement: &Statement, declared: &[Option<FieldRef>]) -> Result<Plan> {
        self.plan_read(&self.scope(), statement, declared).await
    }

    /// The same for one execution, whose parameters have these values: the moments for which tables
    /// are read may depend on them.
    pub async fn plan_for(
        &self,
        statement: &Statement,
        declared: &[Option<FieldRef>],
        values: &[ScalarValue],
    ) -> Result<Plan> {
        let moments = Moments { values: values.to_vec(), ..Moments::default() };
        let scope = Scope { moments: Arc::new(moments), ..self.scope() };
        self.plan_read(&scope, statement, declared).await
    }

    async fn plan_read(
        &self,
        scope: &Scope,
        statement: &Statement,
        declared: &[Option<FieldRef>],
    ) -> Result<Plan> {
        let plain = self.without_details(statement);
        let statement = plain.as_ref().unwrap_or(statement);
        let plan = |known| async move {
            Ok(self.plan_in(scope, statement.clone(), known, 0).await?.into())
        };
        self.plan_with(scope, &[statement], declared, None, plan).await
    }

    /// Plans statements that make one plan. From the column `returned` on, its columns are for the
    /// client, those before are to be written.
    pub(super) async fn plan_with<F: Future<Output = Result<Draft>>>(
        &self,
        scope: &Scope,
        statements: &[&Statement],
        declared: &[Option<FieldRef>],
        returned: Option<usize>,
        plan: impl Fn(Vec<Option<FieldRef>>) -> F,
    ) -> Result<Plan> {
        let plan = async |known: &[Option<FieldRef>]| {
            self.together(&scope.found, || plan(known.to_vec())).await
        };
        let known = statements
            .iter()
            .fold(declared.to_vec(), |known, statement| parameters::known(self, statement, &known));
        let Draft { logical, mut reads } = plan(&known).await?;
        let (logical, parameters) = match parameters::of_plan(&logical, &known)? {
            Parameters::Settled(parameters) => (logical, parameters),
            // Types only the plan could tell; those that nothing tells are text, as in PostgreSQL.
            Parameters::Found(found) => {
                let fields: Vec<_> = found.iter().cloned().map(Some).collect();
                let draft = plan(&fields).await?;
                reads = draft.reads;
                (draft.logical, found)
            }
        };
        let moves = scope.moments.moves.load(Ordering::Relaxed);
        let open = scope.moments.open.load(Ordering::Relaxed);
        let explains = matches!(logical, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_));
        let constant = !explains && is_constant(&logical);
        let (logical, schema) = if explains {
            (logical, explain_schema())
        } else {
            // Only now all types are settled: branches of a CASE or a UNION take their common one.
            let logical = self.analyse(logical)?;
            let schema = Arc::new(logical.schema().as_arrow().clone());
            (logical, schema)
        };
        let (heading, small) = (None, is_small(&logical));
        Ok(Plan {
            logical,
            parameters,
            schema,
            small,
            constant,
            reads,
            returned,
            heading,
            moves,
            open,
            computed: Arc::default(),
            generic: Arc::default(),
        })
    }

    /// What the first name in a query stands for, as [`Self::plan`] would find it.
    pub async fn relation(&self, statement: &Statement) -> Result<Arc<dyn TableSource>> {
        let references = self.state.resolve_table_references(statement).map_err(Error::planning)?;
        match references.first() {
            Some(reference) => self.resolve(&self.scope(), reference, 0).await,
            None => Err(Error::Syntax("syntax error: there is no table".to_owned())),
        }
    }

    /// Whether a name is that of a system table, whose schema may be left out if it is
    /// `pg_catalog`.
    pub fn is_system_table(&self, schema: Option<&str>, table: &str) -> bool {
        let (system, schema) = (self.engine.system(), schema.unwrap_or("pg_catalog"));
        system.has_schema(schema)
            && system.table(&self.info, schema, table).is_ok_and(|table| table.is_some())
    }

    /// The kinds of calls in what a SELECT gives.
    pub fn calls(&self, select: &Select) -> Calls {
        misplaced::calls(&select.projection, self.state())
    }

    pub(super) fn scope(&self) -> Scope {
        Scope {
            database: self.info.database.to_string(),
            search_path: self.info.search_path(),
            role: self.info.user.to_string(),
            open: None,
            target: None,
            moments: Arc::default(),
            found: Arc::default(),
        }
    }

    pub(super) fn analyse(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        let options = self.state.config_options();
        self.state.analyzer().execute_and_check(plan, options, |_, _| {}).map_err(Error::planning)
    }

    /// The plan for one execution on this daemon, on the engine's threads since optimising is work.
    pub async fn prepare(&self, plan: &Plan, values: Vec<ScalarValue>) -> Result<Ready> {
        let values = ParamValues::List(values.into_iter().map(Into::into).collect());
        self.prepare_with(plan, None, values, |course, logical, returned, stop| async move {
            course.here(&logical, returned, stop).await
        })
        .await
    }

    /// The same for one that only reads: it may run on several daemons.
    pub async fn prepare_reading(&self, plan: &Plan, values: Vec<ScalarValue>) -> Result<Ready> {
        if plan.constant && values.is_empty() {
            return self.constants(plan).await;
        }
        let values = ParamValues::List(values.into_iter().map(Into::into).collect());
        let known = plan.generic.get().and_then(Option::as_ref);
        if let Some(look_up) = known.and_then(|made| made.look_up.as_ref()) {
            // What is kept for look-ups is found at once: another thread would take longer to begin.
            let course = self.course();
            if let Some(rows) = look_up.rows(&values, &course).await.map_err(Error::running)? {
                let stop = CancellationToken::new();
                return course.given(rows, look_up, plan.returned, stop);
            }
        }
        let generic = Some(plan.generic.clone());
        self.prepare_with(plan, generic, values, |course, logical, returned, stop| async move {
            course.anywhere(logical, returned, None, stop).await
        })
        .await
    }

    /// Whether a plan looks for a key, whatever values its parameters have.
    pub async fn finds_keys(&self, plan: &Plan) -> Result<bool> {
        let (generic, logical) = (plan.generic.clone(), plan.logical.clone());
        let state = self.present_state();
        let task = self.engine.handle().spawn(async move {
            let made = generic::made(&generic, &logical, &state).map_err(Error::planning)?;
            Ok(made.is_some_and(|made| made.look_up.is_some()))
        });
        AbortOnDropHandle::new(task).await?
    }

    /// Constants, computed when they are asked for first.
    async fn constants(&self, plan: &Plan) -> Result<Ready> {
        let (context, observation) = (self.context(), self.observation.clone());
        let (physical, rows) = match plan.computed.get() {
            Some(computed) => computed.clone(),
            None => {
                let ready = self.prepare(plan, Vec::new()).await?;
                let schema = ready.plan.schema();
                // What is seen of the statement are the rows that are given.
                let ready = Ready { observation: None, ..ready };
                let mut rows = Rows::start(self.engine.handle(), ready, Ok);
                let mut parts = [Vec::new()];
                while let Some(batch) = rows.next().await {
                    parts[0].push(batch?);
                }
                let physical = MemorySourceConfig::try_new_exec(&parts, schema, None);
                let physical: Arc<dyn ExecutionPlan> = physical.map_err(Error::planning)?;
                let [batches] = parts;
                let computed: (_, Given) = (physical, batches.into());
                if are_small(&computed.1) {
                    let _ = plan.computed.set(computed.clone());
                }
                computed
            }
        };
        let (stop, given) = (CancellationToken::new(), Some(rows));
        let (returned, again, keep) = (plan.returned, None, None);
        Ok(Ready { plan: physical, context, stop, returned, again, observation, keep, given })
    }

    fn course(&self) -> Course {
        Course {
            optimised: false,
            state: self.present_state(),
            context: self.context(),
            settings: self.info.settings.clone(),
            details: self.sees_details(),
            portions: self.portions,
            distribution: self.engine.distribution().cloned(),
            observation: self.observation.clone(),
            results: self.engine.results.clone(),
        }
    }

    async fn prepare_with<F>(
        &self,
        plan: &Plan,
        generic: Option<Generic>,
        values: ParamValues,
        ready: impl FnOnce(Course, LogicalPlan, Option<usize>, CancellationToken) -> F + Send + 'static,
    ) -> Result<Ready>
    where
        F: Future<Output = Result<Ready>> + Send + 'static,
    {
        if plan.open {
            return Err(Error::not_supported("a parameter behind AS OF in this statement"));
        }
        let mut course = self.course();
        let (logical, returned) = (plan.logical.clone(), plan.returned);
        let stop = CancellationToken::new();
        let task = self.engine.handle().spawn(async move {
            let none = matches!(&values, ParamValues::List(values) if values.is_empty());
            let first = generic.as_ref().is_some_and(|generic| generic.get().is_none());
            let made = (generic.as_ref())
                .map(|generic| generic::made(generic, &logical, &course.state))
                .transpose()
                .map_err(Error::planning)?;
            let logical = match made.flatten() {
                Some(made) => {
                    if first && let Some(look_up) = &made.look_up {
                        let rows = look_up.rows(&values, &course).await.map_err(Error::running)?;
                        if let Some(rows) = rows {
                            return course.given(rows, look_up, returned, stop);
                        }
                    }
                    course.optimised = true;
                    made.plan(&values, &course.state).map_err(Error::planning)?
                }
                None if none => logical,
                None => logical.replace_params_with_values(&values).map_err(Error::planning)?,
            };
            ready(course, logical, returned, stop).await
        });
        match AbortOnDropHandle::new(task).await {
            Ok(result) => result,
            Err(error) => Err(error.into()),
        }
    }

    /// Runs a plan; `transform` is applied to each batch on the engine's threads.
    pub fn run<T: Send + 'static>(
        &self,
        ready: Ready,
        transform: impl FnMut(RecordBatch) -> Result<T> + Send + 'static,
    ) -> Rows<T> {
        Rows::start(self.engine.handle(), ready, transform)
    }

    /// What plans are made with that may run on several daemons. A copy is made only if the statement
    /// is held to less memory than there is.
    fn present_state(&self) -> Arc<SessionState> {
        match &self.bounded {
            Some(environment) if self.info.settings.distribute() != Distribute::Off => {
                let state = SessionStateBuilder::new_from_existing(self.state.as_ref().clone());
                Arc::new(state.with_runtime_env(environment.clone()).build())
            }
            _ => self.state.clone(),
        }
    }

    /// What a running plan needs. Functions are part of the plan: that they are found by name is
    /// for plans that come from elsewhere.
    pub(super) fn context(&self) -> Arc<TaskContext> {
        let mut config = self.state.config().clone();
        if let Some(bound) = self.bounded.as_deref().and_then(memory::bound_of) {
            let density = &mut config.options_mut().execution.perfect_hash_join_min_key_density;
            *density = density.max(memory::density(bound.bytes));
        }
        Arc::new(TaskContext::new(
            None,
            self.state.session_id().to_owned(),
            config,
            HashMap::new(),
            HashMap::new(),
            HashMap::new(),
            HashMap::new(),
            match &self.observation {
                Some(observation) => observation.of(self.environment()),
                None => self.environment().clone(),
            },
        ))
    }

    /// A parameter of a type as PREPARE declares it.
    pub fn parameter(&self, written: &SqlType) -> Result<FieldRef> {
        match parameters::cast_to(self, written) {
            Some(field) => Ok(Arc::new(field)),
            None => Err(Error::NoType(written.to_string())),
        }
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
        let task = self
            .engine
            .handle()
            .spawn(async move { storage::describe(state.as_ref(), definition).await });
        match AbortOnDropHandle::new(task).await {
            Ok(result) => Ok(result?),
            Err(error) => Err(error.into()),
        }
    }
}

impl Plan {
    /// The plan of what explains this one, and what becomes of its rows.
    pub fn explained(&self, heading: String) -> Result<Self> {
        let plan = LogicalPlanBuilder::from(self.logical.clone()).explain(false, false);
        let logical = plan.and_then(|plan| plan.build()).map_err(Error::planning)?;
        let parameters = self.parameters.clone();
        let (schema, constant, returned) = (explain_schema(), false, None);
        let (reads, heading) = (self.reads.clone(), Some(heading));
        let (moves, open, small) = (self.moves, self.open, true);
        Ok(Self {
            logical,
            parameters,
            schema,
            small,
            constant,
            reads,
            returned,
            heading,
            moves,
            open,
            computed: Arc::default(),
            generic: Arc::default(),
        })
    }

    /// The columns that RETURNING gives.
    pub fn returned(&self) -> Option<Schema> {
        Some(Schema::new(self.schema.fields().get(self.returned?..)?.to_vec()))
    }

    /// Whether this is EXPLAIN, whose rows are lines of text.
    pub fn is_explain(&self) -> bool {
        matches!(self.logical, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_))
    }

    /// Whether the plan only reads: nothing else reaches the engine.
    pub fn only_reads(&self) -> bool {
        // EXPLAIN runs nothing, EXPLAIN ANALYZE does.
        let run = match &self.logical {
            LogicalPlan::Analyze(analyze) => analyze.input.as_ref(),
            plan => plan,
        };
        !matches!(
            run,
            LogicalPlan::Ddl(_)
                | LogicalPlan::Dml(_)
                | LogicalPlan::Copy(_)
                | LogicalPlan::Statement(_)
        )
    }
}

/// Whether an expression by itself is another from one moment to the next.
pub(super) fn changes(expr: &Expr) -> bool {
    match expr {
        Expr::ScalarFunction(call) => call.func.signature().volatility != Volatility::Immutable,
        Expr::ScalarSubquery(_)
        | Expr::Exists(_)
        | Expr::InSubquery(_)
        | Expr::SetComparison(_) => true,
        _ => false,
    }
}

/// Whether a plan reads nothing but system tables and constants, or only shows what it would do.
fn is_small(plan: &LogicalPlan) -> bool {
    if matches!(plan, LogicalPlan::Explain(_)) {
        return true;
    }
    let large = |node: &LogicalPlan| match node {
        LogicalPlan::TableScan(scan) => {
            !source_as_provider(&scan.source).is_ok_and(|provider| provider.is::<StreamingTable>())
        }
        LogicalPlan::RecursiveQuery(_) => true,
        _ => false,
    };
    let mut found = false;
    // The closure never fails.
    let _ = plan.apply_with_subqueries(|node| {
        found = large(node);
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    !found
}

/// Whether a plan makes one row, of nothing that could change from one moment to the next.
fn is_constant(plan: &LogicalPlan) -> bool {
    let LogicalPlan::Projection(projection) = plan else { return false };
    let LogicalPlan::EmptyRelation(empty) = projection.input.as_ref() else { return false };
    let fixed = |expr: &Expr| !expr.exists(|expr| Ok(changes(expr))).unwrap_or(true);
    empty.produce_one_row && projection.expr.iter().all(fixed)
}
