//! Statements that write: their rows planned like any others, and gone to data files on the engine's
//! threads. What the files become part of is decided later, by a commit.
//!
//! INSERT is a query whose columns are brought to the table's; what changes rows is a query as well
//! ([`super::change`]). What RETURNING asks for are further columns of the same query, so that an
//! error in them leaves nothing behind, and is kept until the commit is certain.

use std::fmt::{self, Debug, Formatter};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Field, FieldRef, Int64Type, Schema, SchemaRef};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::provider_as_source;
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::LogicalPlanBuilder;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::placeholder_row::PlaceholderRowExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, execute_stream};
use futures::StreamExt;
use futures::stream::BoxStream;
use iceberg::spec::{DataFile, Operation, TableMetadata};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::insert::insert_plan;
use super::ordering::in_order;
use super::ready::Ready;
use super::session::Session;
use super::{Error, Result};
use crate::catalog::Table;
use crate::storage;
use crate::storage::managed::{
    Change, Commit, DataWriter, FILE_COLUMN, NewFiles, Overwritten, ROW_COLUMN, RowIds,
    WriteContext, rows,
};

/// Rows that may wait in memory for those of other statements.
const MAX_WAITING_ROWS: usize = 10_000;

/// A managed table as a statement writes it: at one snapshot.
#[derive(Clone, Debug)]
pub struct Target {
    pub table: Arc<Table>,
    pub metadata: Arc<TableMetadata>,
    /// Columns as queries see them.
    pub schema: SchemaRef,
}

/// What a statement has written, and what it means for the table.
#[derive(Debug, Default)]
pub struct Written {
    pub rows: u64,
    /// `None` if there is nothing to commit.
    pub change: Option<Change>,
    pub returned: Returned,
}

/// Rows for the client, as they wait for the commit: with the memory that they take.
#[derive(Debug, Default)]
pub struct Returned(Vec<(RecordBatch, MemoryReservation)>);

impl Returned {
    pub(super) fn keep(&mut self, rows: RecordBatch, memory: &MemoryReservation) -> Result<()> {
        if rows.num_rows() > 0 {
            let bytes = rows.get_array_memory_size();
            memory.try_grow(bytes).map_err(Error::Execution)?;
            self.0.push((rows, memory.split(bytes)));
        }
        Ok(())
    }
}

impl Target {
    /// The change as it is committed.
    pub fn commit(&self, change: Change) -> Commit {
        let schema_id = self.metadata.current_schema_id();
        Commit { table: self.table.clone(), changes: vec![change], schema_id, fences: Vec::new() }
    }

    /// The place of a column.
    pub fn column(&self, name: &str) -> Result<usize> {
        let table = || Some(self.table.name.table.clone());
        let missing = |_| storage::Error::NoColumn { name: name.to_owned(), table: table() };
        Ok(self.schema.index_of(name).map_err(missing)?)
    }
}

impl Session {
    /// A table as the target of a statement.
    pub async fn target(&self, table: Arc<Table>) -> Result<Target> {
        let (table, metadata) = self.metadata_of(&table).await?;
        let fields: Vec<_> = table.record.columns.iter().map(|column| column.field()).collect();
        Ok(Target { table, metadata, schema: Arc::new(Schema::new(fields)) })
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
        let plan = self.analyse(insert_plan(rows, target, None, columns, &defaults)?)?;
        let plan = self.state().create_physical_plan(&plan).await.map_err(Error::planning)?;
        let output = self.write_plan(target, plan, None, None).await?;
        let change = (output.rows > 0).then(|| Change::Append(output.added));
        Ok(Written { rows: output.rows, change, ..Written::default() })
    }

    /// Writes the rows of a plan into new files of the target, each of the plan's partitions on its
    /// own.
    pub async fn insert(&self, target: &Target, ready: Ready) -> Result<Written> {
        let _watch = ready.watch();
        let Ready { plan, stop, returned, .. } = ready;
        let _stop = stop.drop_guard();
        if rows::may_wait(&target.metadata)
            && is_small(&plan)
            && let Some(batches) = self.collect(plan.clone()).await?
        {
            let (mut rows, mut answer, memory) = (Vec::new(), Returned::default(), self.memory());
            for batch in batches {
                let (batch, answered) = split(&batch, returned)?;
                if let Some(answered) = answered {
                    answer.keep(answered, &memory)?;
                }
                rows.push(batch);
            }
            rows::check(&target.metadata, &rows)?;
            let count = rows.iter().map(|batch| batch.num_rows() as u64).sum();
            let change = (count > 0).then(|| Change::Rows(rows));
            return Ok(Written { rows: count, change, returned: answer });
        }
        let Output { rows, added, returned } =
            self.write_plan(target, plan, None, returned).await?;
        let change = (rows > 0).then(|| Change::Append(added));
        Ok(Written { rows, change, returned })
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

    /// Writes the rows of a plan in place of others.
    pub async fn overwrite(
        &self,
        target: &Target,
        ready: Ready,
        overwritten: &Overwritten,
    ) -> Result<Written> {
        let _watch = ready.watch();
        let Ready { plan, stop, returned, .. } = ready;
        let _stop = stop.drop_guard();
        let Output { rows, added, returned } =
            self.write_plan(target, plan, None, returned).await?;
        let files = self.engine().files();
        match overwritten.files(files, &target.metadata, &added).await {
            Ok(removed) => {
                let operation = Operation::Overwrite;
                let change = Some(Change::Replace { removed, added, operation });
                Ok(Written { rows, change, returned })
            }
            Err(error) => {
                files.remove(added.urls()).await;
                Err(error.into())
            }
        }
    }

    /// What RETURNING gave, as a plan that runs once.
    pub fn answer(&self, returned: Returned, schema: &Schema) -> Result<Ready> {
        let first = returned.0.first().map(|(rows, _)| rows.schema());
        let schema = first.unwrap_or_else(|| Arc::new(schema.clone()));
        // What has been read gives its memory back.
        let rows = returned.0.into_iter().map(|(rows, _)| Ok(rows));
        let rows = Mutex::new(Some(futures::stream::iter(rows).boxed()));
        let part = Arc::new(Arriving { schema: schema.clone(), batches: rows });
        let plan = StreamingTableExec::try_new(schema, vec![part], None, None, false, None);
        let plan = Arc::new(plan.map_err(Error::planning)?);
        let (context, stop) = (self.context(), CancellationToken::new());
        let (returned, again, observation, keep, given) = Default::default();
        Ok(Ready { plan, context, stop, returned, again, observation, keep, given })
    }

    /// Runs a plan's partitions, each into files of its own. With `without`, the plan is a scan with
    /// row ids, and these rows are left out. The columns from `returned` on are the client's.
    pub(super) async fn write_plan(
        &self,
        target: &Target,
        plan: Arc<dyn ExecutionPlan>,
        without: Option<Arc<RowIds>>,
        returned: Option<usize>,
    ) -> Result<Output> {
        let mut tasks = JoinSet::new();
        let (plan, order) = in_order(target, plan, 0);
        let partitions = plan.output_partitioning().partition_count();
        for partition in 0..partitions {
            let part = Part {
                plan: plan.clone(),
                partition,
                context: self.context(),
                without: without.clone(),
                returned,
                kept: self.memory(),
            };
            let (write, memory) = self.write_context(target, order)?;
            let done = async move { (partition, part.write(write, memory).await) };
            tasks.spawn_on(async move { Ok(done.await) }, self.engine().handle());
        }
        let mut all = Output::default();
        all.added.spec_id = target.metadata.default_partition_spec_id();
        let mut answers: Vec<Returned> = (0..partitions).map(|_| Returned::default()).collect();
        let mut failed = None;
        while let Some(done) = tasks.join_next().await {
            let (partition, done) = match joined(Some(done)) {
                Ok((partition, done)) => (partition, done),
                Err(error) => (0, Err(error)),
            };
            match done {
                Ok((rows, files, answer)) => {
                    all.rows += rows;
                    all.added.files.extend(files);
                    answers[partition] = answer;
                }
                Err(error) => {
                    tasks.abort_all();
                    failed.get_or_insert(error);
                }
            }
        }
        // In the order in which the plan has them.
        all.returned = Returned(answers.into_iter().flat_map(|answer| answer.0).collect());
        match failed {
            None => Ok(all),
            Some(error) => {
                self.engine().files().remove(all.added.urls()).await;
                Err(error)
            }
        }
    }

    pub(super) fn write_context(
        &self,
        target: &Target,
        sort_order_id: Option<i32>,
    ) -> Result<(WriteContext, MemoryReservation)> {
        let memory = MemoryConsumer::new("write").register(self.memory_pool());
        let context = WriteContext::of(self.engine().files(), &target.metadata)?;
        Ok((WriteContext { sort_order_id, ..context }, memory))
    }

    /// For what RETURNING keeps.
    pub(super) fn memory(&self) -> MemoryReservation {
        MemoryConsumer::new("returning").register(self.memory_pool())
    }
}

/// What the partitions of a plan have written.
#[derive(Debug, Default)]
pub(super) struct Output {
    pub rows: u64,
    pub added: NewFiles,
    returned: Returned,
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
    returned: Option<usize>,
    /// For what is kept for the client.
    kept: MemoryReservation,
}

impl Part {
    async fn write(
        self,
        write: WriteContext,
        memory: MemoryReservation,
    ) -> Result<(u64, Vec<DataFile>, Returned)> {
        let mut writer = DataWriter::new(write, memory)?;
        let (mut rows, mut returned) = (0, Returned::default());
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
            let (batch, answer) = split(&batch, self.returned)?;
            writer.write(&batch).await?;
            if let Some(answer) = answer {
                returned.keep(answer, &self.kept)?;
            }
        }
        Ok((rows, writer.close().await?, returned))
    }
}

/// A batch's columns that are to be written, and those that are the client's.
fn split(
    batch: &RecordBatch,
    returned: Option<usize>,
) -> Result<(RecordBatch, Option<RecordBatch>)> {
    let Some(at) = returned else { return Ok((batch.clone(), None)) };
    let (written, answer): (Vec<usize>, Vec<usize>) =
        (0..batch.num_columns()).partition(|column| *column < at);
    let part = |columns: &[usize]| batch.project(columns).map_err(arrow);
    Ok((part(&written)?, Some(part(&answer)?)))
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

pub(super) fn no_ids() -> Error {
    Error::Execution(DataFusionError::Internal("a scan has no row ids".to_owned()))
}

pub(super) fn joined<T>(
    done: Option<std::result::Result<Result<T>, tokio::task::JoinError>>,
) -> Result<T> {
    match done {
        Some(Ok(result)) => result,
        Some(Err(error)) => Err(error.into()),
        None => Err(Error::Stopping),
    }
}

pub(super) fn arrow(error: arrow::error::ArrowError) -> Error {
    Error::Execution(DataFusionError::ArrowError(Box::new(error), None))
}
