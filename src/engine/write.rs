//! Statements that write: their rows planned like any others, and gone to data files on the engine's
//! threads. What the files become part of is decided later, by a commit.
//!
//! - INSERT is a query whose columns are brought to the table's.
//! - DELETE and UPDATE are a query as well: it finds the rows, by the file and the place they lie in,
//!   and for UPDATE what becomes of them. Then the files that hold such rows are written anew
//!   without them (copy on write), so that whoever reads the table meets nothing but plain Parquet.

use std::collections::HashSet;
use std::fmt::{self, Debug, Formatter};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Field, FieldRef, Int64Type, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::{Column, ScalarValue};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::provider_as_source;
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, lit};
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::placeholder_row::PlaceholderRowExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, execute_stream};
use datafusion::sql::parser::Statement;
use futures::StreamExt;
use futures::stream::BoxStream;
use iceberg::spec::{DataFile, Operation, TableMetadata};
use tokio::task::JoinSet;

use super::ordering::in_order;
use super::session::{Plan, Ready, Session};
use super::{Error, Result};
use crate::catalog::Table;
use crate::storage::managed::{
    Change, Commit, DataWriter, FILE_COLUMN, ManagedTable, NewFiles, ROW_COLUMN, Removed, RowIds,
    WriteContext, current, live_files, rows,
};
use crate::storage::{self};

/// Rows that may wait in memory for those of other statements.
const MAX_WAITING_ROWS: usize = 10_000;

/// The name under which a statement that finds rows of its target names it: nothing that a client
/// can give a table.
pub const TARGET: &str = "\u{2}target";

/// A managed table as a statement writes it: at one snapshot.
#[derive(Clone, Debug)]
pub struct Target {
    pub table: Arc<Table>,
    pub metadata: Arc<TableMetadata>,
    /// Columns as queries see them.
    pub schema: SchemaRef,
}

/// What a statement has written, and what it means for the table.
#[derive(Debug)]
pub struct Written {
    pub rows: u64,
    /// `None` if there is nothing to commit.
    pub change: Option<Change>,
}

impl Target {
    /// The change as it is committed.
    pub fn commit(&self, change: Change) -> Commit {
        let schema_id = self.metadata.current_schema_id();
        Commit { table: self.table.clone(), changes: vec![change], schema_id, fences: Vec::new() }
    }

    /// The place of a column.
    pub fn column(&self, name: &str) -> Result<usize> {
        let missing = || storage::Error::NoColumn { name: name.to_owned() };
        Ok(self.schema.index_of(name).map_err(|_| missing())?)
    }
}

impl Session {
    /// A table as the target of a statement.
    pub async fn target(&self, table: Arc<Table>) -> Result<Target> {
        let (table, metadata) = current(self.engine().files(), &self.info().catalog, table).await?;
        let fields: Vec<_> = table.record.columns.iter().map(|column| column.field()).collect();
        Ok(Target { table, metadata, schema: Arc::new(Schema::new(fields)) })
    }

    /// Plans the rows that INSERT adds: `source`, whose columns are the target's `columns` (all of
    /// them if there are none), and defaults for the others.
    pub async fn plan_insert(
        &self,
        target: &Target,
        columns: &[usize],
        source: &Statement,
        declared: &[Option<FieldRef>],
    ) -> Result<Plan> {
        let defaults = self.defaults(target, columns).await?;
        let finish = |plan| insert_plan(plan, target, columns, &defaults);
        self.plan_with(&self.scope(), source, declared, finish).await
    }

    /// The values of columns that are not given.
    async fn defaults(&self, target: &Target, columns: &[usize]) -> Result<Vec<Option<Expr>>> {
        let mut defaults = Vec::new();
        for (at, column) in target.table.record.columns.iter().enumerate() {
            defaults.push(match &column.default {
                Some(default) if !columns.contains(&at) => Some(self.constant(default).await?),
                _ => None,
            });
        }
        Ok(defaults)
    }

    /// Writes rows that arrive one batch after the other, whose columns are the target's `columns`.
    pub async fn insert_stream(
        &self,
        target: &Target,
        columns: &[usize],
        batches: BoxStream<'static, std::result::Result<RecordBatch, DataFusionError>>,
    ) -> Result<Written> {
        let fields: Vec<FieldRef> =
            columns.iter().map(|at| target.schema.fields()[*at].clone()).collect();
        // Whether a value may be NULL is looked at when it is written.
        let fields: Vec<Field> =
            fields.iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        let source =
            Arc::new(Arriving { schema: schema.clone(), batches: Mutex::new(Some(batches)) });
        let source = StreamingTable::try_new(schema, vec![source]).map_err(Error::planning)?;
        let rows = LogicalPlanBuilder::scan("rows", provider_as_source(Arc::new(source)), None);
        let rows = rows.and_then(|plan| plan.build()).map_err(Error::planning)?;
        let defaults = self.defaults(target, columns).await?;
        let plan = self.analyse(insert_plan(rows, target, columns, &defaults)?)?;
        let plan = self.state().create_physical_plan(&plan).await.map_err(Error::planning)?;
        let (rows, added) = self.write_plan(target, plan, None).await?;
        let change = (rows > 0).then(|| Change::Append(added));
        Ok(Written { rows, change })
    }

    /// Plans how the rows are found that DELETE or UPDATE changes. The statement selects
    /// [`FILE_COLUMN`] and [`ROW_COLUMN`] of [`TARGET`], and then all columns of rows that take
    /// their place.
    pub async fn plan_find(
        &self,
        target: &Target,
        find: &Statement,
        declared: &[Option<FieldRef>],
    ) -> Result<Plan> {
        let files = self.engine().files().clone();
        let table = ManagedTable::new(files, target.metadata.clone())?.with_row_ids();
        let mut scope = self.scope();
        scope.target = Some(provider_as_source(Arc::new(table)));
        let finish = |plan: LogicalPlan| {
            let columns = plan.schema().columns().into_iter().map(Expr::Column).collect::<Vec<_>>();
            let (ids, values) = columns.split_at(2);
            if values.is_empty() {
                return Ok(plan);
            }
            assigned(plan.clone(), values.to_vec(), &target.schema, ids)
        };
        self.plan_with(&scope, find, declared, finish).await
    }

    /// An expression without columns, planned.
    async fn constant(&self, sql: &str) -> Result<Expr> {
        let parsed = super::parse_one(&format!("SELECT {sql}"))?;
        let plan = self.plan_in(&self.scope(), parsed.statement, Vec::new(), 0).await?;
        match plan {
            LogicalPlan::Projection(projection) => {
                let expr = projection.expr.first().cloned();
                expr.map(Expr::unalias).ok_or_else(|| Error::Syntax(format!("no value: {sql}")))
            }
            _ => Err(Error::Syntax(format!("{sql} is not a constant"))),
        }
    }

    /// Writes the rows of a plan into new files of the target, each of the plan's partitions on its
    /// own.
    pub async fn insert(&self, target: &Target, ready: Ready) -> Result<Written> {
        let Ready { plan, stop } = ready;
        let _stop = stop.drop_guard();
        let plan = match rows::may_wait(&target.metadata) && is_small(&plan) {
            false => plan,
            true => match self.collect(plan.clone()).await? {
                None => plan,
                Some(batches) => {
                    rows::check(&target.metadata, &batches)?;
                    let rows = batches.iter().map(|batch| batch.num_rows() as u64).sum();
                    let change = (rows > 0).then(|| Change::Rows(batches));
                    return Ok(Written { rows, change });
                }
            },
        };
        let (rows, added) = self.write_plan(target, plan, None).await?;
        let change = (rows > 0).then(|| Change::Append(added));
        Ok(Written { rows, change })
    }

    /// The rows of a plan that says it has few, if they are small as well.
    async fn collect(&self, plan: Arc<dyn ExecutionPlan>) -> Result<Option<Vec<RecordBatch>>> {
        let context = self.context();
        let mut task = JoinSet::new();
        task.spawn_on(
            async move {
                let mut rows = execute_stream(plan, context).map_err(Error::running)?;
                let (mut batches, mut bytes) = (Vec::new(), 0);
                while let Some(batch) = rows.next().await {
                    let batch = batch.map_err(Error::running)?;
                    bytes += batch.get_array_memory_size();
                    if bytes > rows::MAX_BYTES {
                        return Ok(None);
                    }
                    batches.push(batch);
                }
                Ok(Some(batches))
            },
            self.engine().handle(),
        );
        joined(task.join_next().await)
    }

    /// Writes the rows of a plan in place of all that the target holds.
    pub async fn overwrite(&self, target: &Target, ready: Ready) -> Result<Written> {
        let Ready { plan, stop } = ready;
        let _stop = stop.drop_guard();
        let (rows, added) = self.write_plan(target, plan, None).await?;
        let removed = self.all_files(target).await?;
        let operation = Operation::Overwrite;
        Ok(Written { rows, change: Some(Change::Replace { removed, added, operation }) })
    }

    /// Takes the rows that a plan finds out of the target; with what it says of them, if it does,
    /// in their place.
    pub async fn replace(&self, target: &Target, ready: Ready) -> Result<Written> {
        let Ready { plan, stop } = ready;
        let _stop = stop.drop_guard();
        let (found, mut added) = self.find(target, plan).await?;
        if found.is_empty() {
            return Ok(Written { rows: 0, change: None });
        }
        let lists = live_files(self.engine().files(), &target.metadata).await?;
        let files: Vec<(&String, u64)> = (lists.iter())
            .flat_map(|list| list.urls.iter().zip(list.rows.values().iter().copied()))
            .collect();
        let mut removed = HashSet::new();
        let mut remaining = HashSet::new();
        for (file, rows) in found.files() {
            let Some((url, total)) = files.get(file) else { continue };
            removed.insert((*url).clone());
            if rows.len() < *total {
                remaining.insert(file);
            }
        }
        let found = Arc::new(found);
        if !remaining.is_empty() {
            let table = ManagedTable::new(self.engine().files().clone(), target.metadata.clone())?;
            let table = table.with_row_ids().only(remaining);
            let plan = table.scan(self.state(), None, &[], None).await.map_err(Error::running)?;
            let (_, rest) = self.write_plan(target, plan, Some(found.clone())).await?;
            added.files.extend(rest.files);
        }
        let operation =
            if added.files.is_empty() { Operation::Delete } else { Operation::Overwrite };
        let removed = Removed::Files(removed);
        let change = Change::Replace { removed, added, operation };
        Ok(Written { rows: found.len(), change: Some(change) })
    }

    /// All files of a target at its snapshot.
    async fn all_files(&self, target: &Target) -> Result<Removed> {
        let lists = live_files(self.engine().files(), &target.metadata).await?;
        Ok(Removed::Files(lists.iter().flat_map(|list| list.urls.iter().cloned()).collect()))
    }

    /// Runs a plan that finds rows; which, and files with what takes their place.
    async fn find(
        &self,
        target: &Target,
        plan: Arc<dyn ExecutionPlan>,
    ) -> Result<(RowIds, NewFiles)> {
        let context = self.context();
        let (plan, order) = in_order(target, plan);
        let (write, memory) = self.write_context(target, order)?;
        let mut task = JoinSet::new();
        task.spawn_on(
            async move {
                let mut found = RowIds::default();
                let mut writer = DataWriter::new(write, memory)?;
                let mut rows = execute_stream(plan, context).map_err(Error::running)?;
                while let Some(batch) = rows.next().await {
                    let batch = batch.map_err(Error::running)?;
                    let (files, places) = (id_column(&batch, 0)?, id_column(&batch, 1)?);
                    // A row that a join finds twice is changed once.
                    let new = found.add(files, places);
                    if batch.num_columns() > 2 {
                        let values: Vec<usize> = (2..batch.num_columns()).collect();
                        let values = batch.project(&values).map_err(arrow)?;
                        let values = filter_record_batch(&values, &new).map_err(arrow)?;
                        writer.write(&values).await?;
                    }
                }
                Ok((found, writer.close().await?))
            },
            self.engine().handle(),
        );
        let (found, files) = joined(task.join_next().await)?;
        Ok((found, NewFiles { spec_id: target.metadata.default_partition_spec_id(), files }))
    }

    /// Runs a plan's partitions, each into files of its own. With `without`, the plan is a scan with
    /// row ids, and these rows are left out.
    pub(super) async fn write_plan(
        &self,
        target: &Target,
        plan: Arc<dyn ExecutionPlan>,
        without: Option<Arc<RowIds>>,
    ) -> Result<(u64, NewFiles)> {
        let mut tasks = JoinSet::new();
        let (plan, order) = in_order(target, plan);
        for partition in 0..plan.output_partitioning().partition_count() {
            let (write, memory) = self.write_context(target, order)?;
            let part = Part {
                plan: plan.clone(),
                partition,
                context: self.context(),
                without: without.clone(),
            };
            tasks.spawn_on(part.write(write, memory), self.engine().handle());
        }
        let mut all =
            NewFiles { spec_id: target.metadata.default_partition_spec_id(), files: Vec::new() };
        let (mut total, mut failed) = (0, None);
        while let Some(done) = tasks.join_next().await {
            match joined(Some(done)) {
                Ok((rows, files)) => {
                    total += rows;
                    all.files.extend(files);
                }
                Err(error) => {
                    tasks.abort_all();
                    failed.get_or_insert(error);
                }
            }
        }
        match failed {
            None => Ok((total, all)),
            Some(error) => {
                let urls = all.files.iter().map(|file| file.file_path().to_owned()).collect();
                self.engine().files().remove(urls).await;
                Err(error)
            }
        }
    }

    fn write_context(
        &self,
        target: &Target,
        sort_order_id: Option<i32>,
    ) -> Result<(WriteContext, MemoryReservation)> {
        let memory = MemoryConsumer::new("write").register(self.engine().memory_pool());
        let context = WriteContext::of(self.engine().files(), &target.metadata)?;
        Ok((WriteContext { sort_order_id, ..context }, memory))
    }
}

/// Whether a plan is known to have few rows: constants, such as those of VALUES, and what is computed
/// from them. It can be run a second time.
fn is_small(plan: &Arc<dyn ExecutionPlan>) -> bool {
    if plan.is::<ProjectionExec>() || plan.is::<CooperativeExec>() {
        return plan.children().into_iter().all(is_small);
    }
    if plan.is::<PlaceholderRowExec>() {
        return true;
    }
    let source = plan.downcast_ref::<DataSourceExec>().map(DataSourceExec::data_source);
    let rows = source.and_then(|source| source.downcast_ref::<MemorySourceConfig>());
    let count = |rows: &MemorySourceConfig| {
        rows.partitions().iter().flatten().map(RecordBatch::num_rows).sum::<usize>()
    };
    rows.is_some_and(|rows| count(rows) <= MAX_WAITING_ROWS)
}

/// Batches that are read once.
struct Arriving {
    schema: SchemaRef,
    batches: Mutex<Option<BoxStream<'static, std::result::Result<RecordBatch, DataFusionError>>>>,
}

impl Debug for Arriving {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arriving").finish_non_exhaustive()
    }
}

impl PartitionStream for Arriving {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner).take();
        let batches = batches.unwrap_or_else(|| futures::stream::empty().boxed());
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), batches))
    }
}

/// One partition of a plan on its way to files.
struct Part {
    plan: Arc<dyn ExecutionPlan>,
    partition: usize,
    context: Arc<TaskContext>,
    without: Option<Arc<RowIds>>,
}

impl Part {
    async fn write(
        self,
        write: WriteContext,
        memory: MemoryReservation,
    ) -> Result<(u64, Vec<DataFile>)> {
        let mut writer = DataWriter::new(write, memory)?;
        let mut rows = 0;
        let mut stream =
            self.plan.execute(self.partition, self.context.clone()).map_err(Error::running)?;
        while let Some(batch) = stream.next().await {
            let mut batch = batch.map_err(Error::running)?;
            if let Some(without) = &self.without {
                batch = remaining(&batch, without)?;
            }
            if batch.num_rows() == 0 {
                continue;
            }
            rows += batch.num_rows() as u64;
            writer.write(&batch).await?;
        }
        Ok((rows, writer.close().await?))
    }
}

/// What stays of a batch with row ids, without these.
fn remaining(batch: &RecordBatch, without: &RowIds) -> Result<RecordBatch> {
    let column = |name: &str| {
        let column = batch.column_by_name(name);
        column.and_then(|column| column.as_primitive_opt::<Int64Type>()).ok_or_else(no_ids)
    };
    let (files, rows) = (column(FILE_COLUMN)?, column(ROW_COLUMN)?);
    let keep: BooleanArray = (files.values().iter().zip(rows.values()))
        .map(|(file, row)| Some(!without.contains(*file, *row)))
        .collect();
    let columns: Vec<usize> = (0..batch.num_columns() - 2).collect();
    let rest = batch.project(&columns).map_err(arrow)?;
    filter_record_batch(&rest, &keep).map_err(arrow)
}

fn id_column(batch: &RecordBatch, at: usize) -> Result<&arrow::array::Int64Array> {
    let column: Option<&ArrayRef> = batch.columns().get(at);
    column.and_then(|column| column.as_primitive_opt::<Int64Type>()).ok_or_else(no_ids)
}

fn no_ids() -> Error {
    Error::Execution(DataFusionError::Internal("a scan has no row ids".to_owned()))
}

/// The rows of a plan as those that INSERT adds to its target: see [`Session::plan_insert`].
fn insert_plan(
    plan: LogicalPlan,
    target: &Target,
    columns: &[usize],
    defaults: &[Option<Expr>],
) -> Result<LogicalPlan> {
    let all = target.schema.fields().len();
    let width = if columns.is_empty() { all } else { columns.len() };
    let given = plan.schema().fields().len();
    if given > width {
        let reason = "INSERT has more expressions than target columns".to_owned();
        return Err(Error::Syntax(reason));
    }
    if given < width && !columns.is_empty() {
        let reason = "INSERT has more target columns than expressions".to_owned();
        return Err(Error::Syntax(reason));
    }
    let place = |at: usize| match columns.is_empty() {
        true => (at < given).then_some(at),
        false => columns.iter().position(|column| *column == at),
    };
    let values = (0..all).map(|at| match place(at) {
        Some(source) => Expr::Column(Column::from(plan.schema().qualified_field(source))),
        None => defaults[at].clone().unwrap_or_else(|| lit(ScalarValue::Null)),
    });
    let values = values.collect();
    assigned(plan, values, &target.schema, &[])
}

/// Values brought to a table's columns, as an assignment does, behind those that stay as they are.
fn assigned(
    plan: LogicalPlan,
    values: Vec<Expr>,
    schema: &Schema,
    before: &[Expr],
) -> Result<LogicalPlan> {
    let input = plan.schema().clone();
    let assigned = values.into_iter().zip(schema.fields()).map(|(value, field)| {
        let value = value.cast_to(field.data_type(), &input)?;
        Ok(value.alias(field.name()))
    });
    let assigned: Vec<Expr> =
        assigned.collect::<datafusion::error::Result<_>>().map_err(Error::planning)?;
    let all: Vec<Expr> = before.iter().cloned().chain(assigned).collect();
    LogicalPlanBuilder::from(plan)
        .project(all)
        .and_then(|plan| plan.build())
        .map_err(Error::planning)
}

fn joined<T>(done: Option<std::result::Result<Result<T>, tokio::task::JoinError>>) -> Result<T> {
    match done {
        Some(Ok(result)) => result,
        Some(Err(error)) => Err(error.into()),
        None => Err(Error::Stopping),
    }
}

fn arrow(error: arrow::error::ArrowError) -> Error {
    Error::Execution(DataFusionError::ArrowError(Box::new(error), None))
}
