//! Names to tables, statements to logical plans.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use datafusion::catalog::TableFunctionArgs;
use datafusion::catalog::cte_worktable::CteWorkTable;
use datafusion::common::{DFSchema, TableReference, plan_datafusion_err};
use datafusion::config::ConfigOptions;
use datafusion::datasource::{ViewTable, provider_as_source, source_as_provider};
use datafusion::error::Result as EngineResult;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::planner::{
    ContextProvider, ExprPlanner, RelationPlanner, TypePlanner,
};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    AggregateUDF, Expr, HigherOrderUDF, LogicalPlan, ScalarUDF, TableSource, Volatility, WindowUDF,
};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::sql::parser::Statement;
use datafusion::sql::planner::{ParserOptions, PlannerContext, SqlToRel};
use futures::future::BoxFuture;
use sqlparser::ast::{ColumnDef, Statement as SqlStatement};

use super::change::TARGET;
use super::described::{described, without_request};
use super::history::Moments;
use super::rights::{Guarded, Policed};
use super::session::Session;
use super::together::Found;
use super::type_names::{digits_of, session_types};
use super::{
    Error, Result, as_of, casts, complexity, joins, list, misplaced, once, parse, series, stars,
    subject,
};
use crate::catalog::{self, Columns, Definition, PUBLIC, Privilege, Snapshot, Table, TableName};
use crate::coordination::paths::CatalogName;
use crate::storage;
use crate::storage::managed::{ManagedTable, Moment};
use crate::values::types::{MAX_PRECISION, PRECISION};

/// Views within views.
const MAX_VIEW_DEPTH: usize = 32;

/// Where names are looked up, and with whose rights: a session's, or those of a view's owner.
#[derive(Clone)]
pub(super) struct Scope {
    pub database: String,
    /// Schemas in order, system schemas that come first included.
    pub search_path: Vec<String>,
    pub role: String,
    /// A table that is read without a look at rights and policies, to make a policy's plan.
    pub open: Option<TableName>,
    /// What [`TARGET`] stands for. Whether it may be changed has been looked at.
    pub target: Option<Arc<dyn TableSource>>,
    pub moments: Arc<Moments>,
    pub found: Arc<Found>,
}

impl Session {
    /// Plans a statement that reads. `parameters` are the types of `$1`, `$2`, ... where known.
    pub(super) async fn plan_in(
        &self,
        scope: &Scope,
        mut statement: Statement,
        parameters: Vec<Option<FieldRef>>,
        depth: usize,
    ) -> Result<LogicalPlan> {
        misplaced::refuse(&mut statement, self.state())?;
        let moments = self.moments(scope, &mut statement, &parameters, depth).await?;
        let mut statement = self.rewritten(statement);
        let names = self.names(scope, &statement, &moments, depth).await?;
        let planner = SqlToRel::new_with_options(&names, parser_options(self.state()));
        let columns = |query| {
            let query = Statement::Statement(Box::new(SqlStatement::Query(Box::new(query))));
            let plan = planner.statement_to_plan(query).ok()?;
            Some(plan.schema().fields().iter().map(|field| field.name().clone()).collect())
        };
        let may_clash = joins::spell_out(&mut statement, &columns);
        let cast = casts::are_in(&mut statement).then(|| statement.clone());
        let spare = may_clash.then(|| statement.clone());
        let volatile = |name: &str| {
            let known = self.state().scalar_functions().get(name);
            known.is_some_and(|it| it.signature().volatility == Volatility::Volatile)
        };
        let plan = |mut statement| {
            once::named(&mut statement, &volatile);
            match statement {
                Statement::Statement(statement) if !parameters.is_empty() => {
                    let parameters = parameters.clone();
                    let mut context =
                        PlannerContext::new().with_prepare_param_data_types(parameters);
                    planner.sql_statement_to_plan_with_context(*statement, &mut context)
                }
                statement => planner.statement_to_plan(statement),
            }
        };
        let mut planned = plan(statement);
        if let Some(mut spare) = spare
            && planned.as_ref().map_or_else(stars::clashed, stars::renamed)
        {
            joins::tell_apart(&mut spare, &columns);
            planned = plan(spare);
        }
        if let Some(mut cast) = cast
            && planned.as_ref().map_or_else(stars::clashed, casts::clash)
        {
            if may_clash {
                joins::tell_apart(&mut cast, &columns);
            }
            casts::label(&mut cast);
            planned = plan(cast).or(planned);
        }
        drop(planner);
        let planned = once::kept(names.settle(planned)?).map_err(Error::planning)?;
        complexity::refuse_large_plans(&planned)?;
        Ok(planned)
    }

    /// Plans what stands behind a SELECT without FROM, whose names are those of columns. `*` leaves
    /// out those that only the engine knows.
    pub(super) async fn plan_list(
        &self,
        scope: &Scope,
        list: &Statement,
        columns: &DFSchema,
        parameters: &[Option<FieldRef>],
    ) -> Result<Vec<Expr>> {
        let mut statement = list.clone();
        let moments = self.moments(scope, &mut statement, parameters, 0).await?;
        let statement = self.rewritten(statement);
        let names = self.names(scope, &statement, &moments, 0).await?;
        let mut context = PlannerContext::new().with_prepare_param_data_types(parameters.to_vec());
        let planner = SqlToRel::new_with_options(&names, parser_options(self.state()));
        let planned = list::expressions(&planner, &statement, columns, &mut context);
        drop(planner);
        names.settle(planned)
    }

    fn rewritten(&self, statement: Statement) -> Statement {
        match statement {
            Statement::Statement(statement) => {
                let statement = self.engine().system().rewrite(*statement);
                Statement::Statement(Box::new(statement))
            }
            Statement::Explain(mut explain) => {
                explain.statement = Box::new(self.rewritten(*explain.statement));
                Statement::Explain(explain)
            }
            other => other,
        }
    }

    /// The moments for which a statement asks for tables, in place of whose clauses it has numbers
    /// from now on.
    async fn moments(
        &self,
        scope: &Scope,
        statement: &mut Statement,
        parameters: &[Option<FieldRef>],
        depth: usize,
    ) -> Result<Vec<Option<Moment>>> {
        let mut moments = Vec::new();
        for as_of in as_of::take(statement)? {
            moments.push(self.moment(scope, &as_of, parameters, depth).await?);
        }
        Ok(moments)
    }

    /// The tables that a statement names, and whatever else its planner asks for.
    async fn names(
        &self,
        scope: &Scope,
        statement: &Statement,
        moments: &[Option<Moment>],
        depth: usize,
    ) -> Result<Names<'_>> {
        complexity::refuse_many_relations(statement)?;
        let references = self.state().resolve_table_references(statement);
        let mut tables = HashMap::new();
        for reference in references.map_err(Error::planning)? {
            if let Some(target) = scope.target.as_ref().filter(|_| reference.table() == TARGET) {
                tables.insert(reference, target.clone());
                continue;
            }
            let found = match as_of::numbered(reference.table()) {
                None => self.resolve(scope, &reference, depth).await,
                Some((table, number)) => {
                    let named = renamed(&reference, table);
                    self.resolve_in(scope, &named, moments.get(number), depth).await
                }
            };
            match found {
                Ok(source) => drop(tables.insert(reference, source)),
                // Functions in FROM are listed with the tables.
                Err(Error::Catalog(catalog::Error::NotFound { .. }))
                    if self.is_table_function(&reference) => {}
                Err(Error::Catalog(catalog::Error::NotFound { .. }))
                    if subject::is_called(statement, &reference) =>
                {
                    return Err(Error::NoFunction(format!("{reference}(...)")));
                }
                Err(error) => return Err(error),
            }
        }
        let types = session_types(self);
        Ok(Names { state: self.state(), tables, types, missing_functions: Mutex::default() })
    }

    /// The table a name stands for.
    pub(super) fn resolve<'a>(
        &'a self,
        scope: &'a Scope,
        reference: &'a TableReference,
        depth: usize,
    ) -> BoxFuture<'a, Result<Arc<dyn TableSource>>> {
        self.resolve_in(scope, reference, None, depth)
    }

    /// The table a name stands for; with a clause that asks for it as it was, at that moment.
    fn resolve_in<'a>(
        &'a self,
        scope: &'a Scope,
        reference: &'a TableReference,
        as_of: Option<&'a Option<Moment>>,
        depth: usize,
    ) -> BoxFuture<'a, Result<Arc<dyn TableSource>>> {
        Box::pin(async move {
            let names = self.candidates(scope, reference);
            let cached = self.info().settings.consistency() == catalog::Consistency::Cached;
            // What this daemon knows of goes first: only a name that is nowhere is worth asking the
            // store for.
            let (known, unknown): (Vec<_>, Vec<_>) =
                names.iter().partition(|name| !cached || self.knows(name));
            let unknown = if self.is_table_function(reference) { Vec::new() } else { unknown };
            for name in known.into_iter().chain(unknown) {
                match self.look_up(scope, name, as_of, depth).await {
                    Ok(Some(found)) => return Ok(found),
                    Ok(None) => {}
                    // A schema that the role may not use is none that is searched.
                    Err(Error::Catalog(catalog::Error::Denied {
                        kind: catalog::ObjectKind::Schema,
                        ..
                    })) if reference.schema().is_none() => {}
                    Err(error) => return Err(error),
                }
            }
            let (kind, name) = (catalog::ObjectKind::Table, without_request(reference));
            Err(catalog::Error::NotFound { kind, name }.into())
        })
    }

    /// What a name may stand for, in order.
    pub(super) fn candidates(&self, scope: &Scope, reference: &TableReference) -> Vec<TableName> {
        let (database, table) = (&scope.database, reference.table());
        match (reference.catalog(), reference.schema()) {
            (Some(database), Some(schema)) => vec![TableName::new(database, schema, table)],
            (_, None) => {
                let schemas = scope.search_path.iter();
                schemas.map(|schema| TableName::new(database, schema, table)).collect()
            }
            (None, Some(qualifier)) => {
                let snapshot = self.info().catalog.snapshot();
                let own = snapshot.databases.get(database);
                let is_schema = self.engine().system().has_schema(qualifier)
                    || own.is_some_and(|own| own.schemas.contains_key(qualifier));
                let mut names = vec![TableName::new(database, qualifier, table)];
                // Where there is no such schema, it may be a database.
                if !is_schema {
                    names.push(TableName::new(qualifier, PUBLIC, table));
                }
                names
            }
        }
    }

    /// Whether a name is a system table's, or in the catalog as far as this daemon knows.
    fn knows(&self, name: &TableName) -> bool {
        let snapshot = self.info().catalog.snapshot();
        self.engine().system().has_schema(&name.schema)
            || snapshot.table(name).is_some()
            || described(name).is_some_and(|name| snapshot.table(&name).is_some())
    }

    /// A table of the catalog.
    pub(super) async fn found(&self, name: &TableName) -> Result<Option<Arc<Table>>> {
        let consistency = self.info().settings.consistency();
        match self.info().catalog.table(name, consistency).await {
            Ok(table) => Ok(Some(table)),
            Err(catalog::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.of_reading().into()),
        }
    }

    fn is_table_function(&self, reference: &TableReference) -> bool {
        let name = reference.table();
        name == "unnest" || self.state().table_functions().contains_key(name)
    }

    /// `None` if there is no such name; what is wrong behind the name is an error.
    async fn look_up(
        &self,
        scope: &Scope,
        name: &TableName,
        as_of: Option<&Option<Moment>>,
        depth: usize,
    ) -> Result<Option<Arc<dyn TableSource>>> {
        if self.engine().system().has_schema(&name.schema) {
            let table = self.engine().system().table(self.info(), &name.schema, &name.table);
            let table = table.map_err(Error::planning)?.map(provider_as_source);
            return match (table, as_of) {
                (Some(_), Some(_)) => {
                    Err(storage::Error::NoHistory { table: name.table.clone() }.into())
                }
                (table, _) => Ok(table),
            };
        }
        if self.info().catalog.snapshot().table(name).is_none()
            && let Some(description) = self.description(scope, name).await?
        {
            return match as_of {
                None => Ok(Some(description)),
                Some(_) => Err(storage::Error::NoHistory { table: name.table.clone() }.into()),
            };
        }
        let Some(table) = self.found(name).await? else { return Ok(None) };
        if let Some(moment) = as_of {
            return self.past(scope, table, moment.as_ref(), depth).await.map(Some);
        }
        if scope.open.as_ref() == Some(name) {
            return self.source(scope, table, depth).await.map(Some);
        }
        let (table, columns) = self.readable(scope, table).await?;
        let source = match self.reading_policy(scope, &table)? {
            None => self.source(scope, table.clone(), depth).await?,
            Some(policy) => self.policed(scope, &table, policy, "", depth).await?,
        };
        Ok(Some(match columns {
            Columns::All => source,
            Columns::Some(readable) => {
                let inner = source_as_provider(&source).map_err(Error::planning)?;
                let name = table.name.table.clone();
                provider_as_source(Arc::new(Guarded { inner, name, readable }))
            }
        }))
    }

    /// A table as this session sees it, or the plan of a view, read with its owner's rights.
    async fn source(
        &self,
        scope: &Scope,
        table: Arc<Table>,
        depth: usize,
    ) -> Result<Arc<dyn TableSource>> {
        let table = self.as_seen(table).await?;
        scope.found.note(&table);
        if let Some(source) = self.engine().cached_source(self.info(), &table) {
            return Ok(source);
        }
        let keep = |table, provider| self.engine().keep_source(self.info(), table, provider);
        Ok(match &table.record.definition {
            Definition::External(external) => {
                keep(&table, storage::open(self.state(), &table.record.columns, external)?)
            }
            Definition::Managed(_) => {
                let (now, metadata) = self.metadata_of(&table).await?;
                scope.found.note(&now);
                let files = self.engine().files().clone();
                let managed = ManagedTable::new(files, metadata)?;
                keep(&now, Arc::new(managed.declared_as(&now.record.columns)))
            }
            Definition::View { sql, search_path, security_barrier } => {
                let scope = Scope {
                    database: table.name.database.clone(),
                    search_path: search_path.clone(),
                    role: table.record.owner.clone(),
                    open: None,
                    target: None,
                    moments: scope.moments.clone(),
                    found: scope.found.clone(),
                };
                let plan = self.plan_view(&scope, sql, &table.name.table, depth).await?;
                match security_barrier {
                    true => provider_as_source(Arc::new(Policed { plan })),
                    false => provider_as_source(Arc::new(ViewTable::new(plan, Some(sql.clone())))),
                }
            }
        })
    }

    /// What of a table the scope's role may read. Before it is refused the store is asked: what was
    /// granted on one daemon counts on the next.
    pub(super) async fn readable(
        &self,
        scope: &Scope,
        table: Arc<Table>,
    ) -> Result<(Arc<Table>, Columns)> {
        let catalog = &self.info().catalog;
        let session = self.info().database.as_ref();
        if let Ok(columns) = may_read(&catalog.snapshot(), scope, session, &table) {
            return Ok((table, columns));
        }
        let TableName { database, schema, table: name } = table.name.clone();
        let nodes = vec![
            CatalogName::Database(database.clone()),
            CatalogName::Schema(database.clone(), schema.clone()),
            CatalogName::Table { database, schema, table: name },
        ];
        catalog.look_again_at_grants(nodes).await?;
        let snapshot = catalog.snapshot();
        let table = snapshot.table(&table.name).cloned().unwrap_or(table);
        let columns = may_read(&snapshot, scope, session, &table)?;
        Ok((table, columns))
    }

    /// Plans a view's definition where its names meant what they mean.
    pub(super) async fn plan_view(
        &self,
        scope: &Scope,
        sql: &str,
        view: &str,
        depth: usize,
    ) -> Result<LogicalPlan> {
        if depth >= MAX_VIEW_DEPTH {
            return Err(Error::ViewTooDeep { view: view.to_owned() });
        }
        let mut statements = parse::parse(sql)?;
        let Some(parsed) = statements.pop() else {
            return Err(Error::Syntax(format!("the definition of view \"{view}\" is empty")));
        };
        let plan = self.plan_in(scope, parsed.statement, Vec::new(), depth + 1).await;
        plan.map_err(Error::of_view)
    }
}

/// The name of another table in the same place.
fn renamed(reference: &TableReference, table: &str) -> TableReference {
    match (reference.catalog(), reference.schema()) {
        (Some(catalog), Some(schema)) => TableReference::full(catalog, schema, table),
        (_, Some(schema)) => TableReference::partial(schema, table),
        _ => TableReference::bare(table),
    }
}

/// What of a table the scope's role may read, or why it may read nothing.
fn may_read(
    snapshot: &Snapshot,
    scope: &Scope,
    session_database: &str,
    table: &Table,
) -> catalog::Result<Columns> {
    let denied = |kind, name: &str| catalog::Error::Denied { kind, name: name.to_owned() };
    let access = snapshot.access(&scope.role);
    if access.is_superuser() {
        return Ok(Columns::All);
    }
    let TableName { database: database_name, schema: schema_name, table: name } = &table.name;
    let kind = catalog::ObjectKind::Database;
    let database = snapshot.databases.get(database_name);
    let database = database.ok_or_else(|| denied(kind, database_name))?;
    // Whoever is in a database was let in; from another one, the right to be there is asked for.
    if database_name != session_database && !access.database(database, Privilege::Connect) {
        return Err(denied(kind, database_name));
    }
    let schema = database.schemas.get(schema_name);
    if !schema.is_some_and(|schema| access.schema(database, schema, Privilege::Usage)) {
        return Err(denied(catalog::ObjectKind::Schema, schema_name));
    }
    let kind =
        if table.record.is_view() { catalog::ObjectKind::View } else { catalog::ObjectKind::Table };
    access.readable(table).ok_or_else(|| denied(kind, name))
}

fn parser_options(state: &SessionState) -> ParserOptions {
    let options = &state.config_options().sql_parser;
    ParserOptions {
        parse_float_as_decimal: options.parse_float_as_decimal,
        enable_ident_normalization: options.enable_ident_normalization,
        support_varchar_with_length: options.support_varchar_with_length,
        map_string_types_to_utf8view: options.map_string_types_to_utf8view,
        enable_options_value_normalization: options.enable_options_value_normalization,
        collect_spans: options.collect_spans,
        default_null_ordering: options.default_null_ordering.as_str().into(),
    }
}

/// Table definitions need the planner for their column types only. How many digits of a second a
/// column keeps is said by its metadata.
pub(super) fn column_schema(session: &Session, columns: Vec<ColumnDef>) -> Result<Schema> {
    let state = session.state();
    let types = session_types(session);
    let tables = HashMap::new();
    let names = Names { state, tables, types, missing_functions: Mutex::default() };
    let digits: Vec<_> = columns.iter().map(|column| digits_of(&column.data_type)).collect();
    let schema = SqlToRel::new_with_options(&names, parser_options(state))
        .build_schema(columns)
        .map_err(Error::planning)?;
    let fields = schema.fields().iter().zip(digits).map(|(field, digits)| {
        let mut field = field.as_ref().clone();
        let digits = digits.filter(|digits| *digits < u64::from(MAX_PRECISION));
        field.metadata_mut().extend(digits.map(|digits| (PRECISION.into(), digits.to_string())));
        field
    });
    Ok(Schema::new(fields.collect::<Vec<_>>()))
}

/// What the planner asks for while it turns a statement into a plan.
struct Names<'a> {
    state: &'a SessionState,
    tables: HashMap<TableReference, Arc<dyn TableSource>>,
    types: Option<Arc<dyn TypePlanner>>,
    /// Functions that nobody knew, in case planning fails for one of them: it goes on behind the first.
    missing_functions: Mutex<Vec<String>>,
}

impl Names<'_> {
    /// What came of planning; a function that nobody knows is said to be missing, and one that stands where
    /// a value should be, though it gives rows, to give those.
    fn settle<T>(self, planned: EngineResult<T>) -> Result<T> {
        planned.map_err(stars::as_ambiguous).map_err(|error| {
            let missing = self.missing_functions.lock().unwrap_or_else(PoisonError::into_inner);
            // Some that nobody knows are parts of the language, and no reason to fail.
            let told = error.find_root().message().into_owned();
            let is_told = |name: &&String| {
                told.contains(&format!("'{name}'")) || told.contains(&format!(" {name} "))
            };
            match missing.iter().find(is_told).cloned() {
                Some(name) if self.gives_rows(&name) => Error::GivesRows(name),
                Some(name) => Error::NoFunction(format!("{name}(...)")),
                None => Error::planning(error),
            }
        })
    }

    fn gives_rows(&self, name: &str) -> bool {
        let known = self.state.table_functions();
        known.contains_key(name) || known.contains_key(&name.replace('.', "_"))
    }

    /// The planner asks for scalar, higher-order, aggregate and window functions in turn.
    fn note_missing(&self, name: &str) {
        let known = self.state.scalar_functions().contains_key(name)
            || self.state.higher_order_functions().contains_key(name)
            || self.state.aggregate_functions().contains_key(name)
            || self.state.window_functions().contains_key(name);
        if !known {
            self.note(name);
        }
    }

    fn note(&self, name: &str) {
        let missing = self.missing_functions.lock();
        missing.unwrap_or_else(PoisonError::into_inner).push(name.to_owned());
    }
}

impl ContextProvider for Names<'_> {
    fn get_table_source(&self, name: TableReference) -> EngineResult<Arc<dyn TableSource>> {
        self.tables
            .get(&name)
            .cloned()
            .ok_or_else(|| plan_datafusion_err!("relation \"{name}\" does not exist"))
    }

    fn get_table_function_source(
        &self,
        name: &str,
        args: Vec<Expr>,
    ) -> EngineResult<Arc<dyn TableSource>> {
        let Some(function) = self.state.table_functions().get(name) else {
            self.note(name);
            return Err(plan_datafusion_err!("table function {name} does not exist"));
        };
        let context = SimplifyContext::builder()
            .with_config_options(self.state.config_options().clone())
            .with_query_execution_start_time(
                self.state.execution_props().query_execution_start_time,
            )
            .build();
        let simplifier = ExprSimplifier::new(context);
        let schema = DFSchema::empty();
        let zone = self.options().execution.time_zone.as_deref();
        let args = (series::read(name, args, zone)?.into_iter())
            .map(|arg| simplifier.simplify(simplifier.coerce(arg, &schema)?))
            .collect::<EngineResult<Vec<_>>>()?;
        let moments = series::of_moments(name, &args, zone)?;
        if let Some((args, kind)) = &moments
            && let Some(rows) = series::on_session_clocks(args, kind, zone)?
        {
            return Ok(rows);
        }
        let given = moments.as_ref().map_or(&args, |(args, _)| args);
        let given = TableFunctionArgs::new(given, self.state);
        let rows = provider_as_source(function.create_table_provider_with_args(given)?);
        match moments {
            Some((_, kind)) => series::taken_as(name, rows, kind),
            None => Ok(rows),
        }
    }

    fn create_cte_work_table(
        &self,
        name: &str,
        schema: SchemaRef,
    ) -> EngineResult<Arc<dyn TableSource>> {
        Ok(provider_as_source(Arc::new(CteWorkTable::new(name, schema))))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        self.state.expr_planners()
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        self.state.relation_planners()
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        self.types.clone()
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.note_missing(name);
        self.state.scalar_functions().get(name).cloned()
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.state.higher_order_functions().get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.state.aggregate_functions().get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.state.window_functions().get(name).cloned()
    }

    fn get_variable_type(&self, _names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        self.state.config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        self.state.scalar_functions().keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        self.state.higher_order_functions().keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.state.aggregate_functions().keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.state.window_functions().keys().cloned().collect()
    }
}
