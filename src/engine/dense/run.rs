//! What an aggregate does with its rows, in one partition.

use std::fmt::{self, Debug, Formatter};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::aggregates::{
    AggregateExec, AggregateInputMode, AggregateMode, AggregateOutputMode, aggregate_expressions,
    evaluate_many,
};
use datafusion::physical_plan::execution_plan::{
    Boundedness, EmissionType, replace_children_if_necessary,
};
use datafusion::physical_plan::metrics::{
    BaselineMetrics, ExecutionPlanMetricsSet, MetricBuilder, RecordOutput,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PhysicalExpr, PlanProperties,
};
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};

use super::table::{Table, TooSparse, numbers};

/// Where a step of the engine's is told that goes on.
pub(super) type Note = Box<dyn Fn(&Arc<dyn ExecutionPlan>) + Send>;

type Rows = BoxStream<'static, Result<RecordBatch>>;

/// The aggregate's rows in one partition.
pub(super) fn rows(
    aggregate: &AggregateExec,
    partition: usize,
    context: Arc<TaskContext>,
    metrics: &ExecutionPlanMetricsSet,
    note: Note,
) -> Result<Rows> {
    let input = aggregate.input().execute(partition, context.clone())?;
    let groups = Groups::new(aggregate, partition, &context)?;
    let baseline = BaselineMetrics::new(metrics, partition);
    let dense_rows = MetricBuilder::new(metrics).counter("dense_rows", partition);
    let batch_size = context.session_config().batch_size();
    let rest = Rest { aggregate: aggregate.clone(), context, note };
    let elapsed = baseline.elapsed_compute().clone();
    let rows = async move {
        let mut groups = groups;
        let mut input = input;
        let skipping = rest.skipping();
        while let Some(batch) = input.next().await {
            let batch = batch?;
            let _timer = elapsed.timer();
            let rows = batch.num_rows();
            let stop = match groups.add(&batch)? {
                Ok(()) => {
                    dense_rows.add(rows);
                    (groups.reserve().is_err() || skipping.is_due(&groups)).then_some(None)
                }
                Err(TooSparse) => Some(Some(batch)),
            };
            if let Some(batch) = stop {
                let before = stream::iter(batch.map(Ok)).chain(input);
                return rest.go_on(groups, before.boxed());
            }
        }
        let _timer = elapsed.timer();
        let output = groups.output()?;
        Ok(sliced(output, batch_size))
    };
    let rows = rows.into_stream().try_flatten();
    Ok(rows.map_ok(move |batch| batch.record_output(&baseline)).boxed())
}

/// Rows in batches of the usual size.
fn sliced(rows: Option<RecordBatch>, size: usize) -> Rows {
    let Some(rows) = rows else { return stream::empty().boxed() };
    let starts = (0..rows.num_rows()).step_by(size.max(1));
    let slices = starts.map(move |start| Ok(rows.slice(start, size.min(rows.num_rows() - start))));
    stream::iter(slices).boxed()
}

/// The groups of a partition.
struct Groups {
    mode: AggregateMode,
    key: Arc<dyn PhysicalExpr>,
    arguments: Vec<Vec<Arc<dyn PhysicalExpr>>>,
    filters: Vec<Option<Arc<dyn PhysicalExpr>>>,
    table: Table,
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
    /// Of the rows of a batch.
    found: Vec<usize>,
    rows: usize,
    schema: SchemaRef,
    memory: MemoryReservation,
}

impl Groups {
    fn new(aggregate: &AggregateExec, partition: usize, context: &TaskContext) -> Result<Self> {
        let Some((key, _)) = aggregate.group_expr().expr().first() else {
            return Err(DataFusionError::Internal("an aggregate has no key".to_owned()));
        };
        let functions = aggregate.aggr_expr();
        let accumulators = functions.iter().map(|function| function.create_groups_accumulator());
        let mode = *aggregate.mode();
        // Conditions of functions are looked at where rows come in.
        let filters = match mode.input_mode() {
            AggregateInputMode::Raw => aggregate.filter_expr().to_vec(),
            AggregateInputMode::Partial => vec![None; functions.len()],
        };
        // Past its share the engine's goes on, which spills.
        let consumer = MemoryConsumer::new(format!("DenseAggregate[{partition}]"));
        let consumer = consumer.with_can_spill(true);
        Ok(Self {
            mode,
            key: key.clone(),
            arguments: aggregate_expressions(functions, &mode, 1)?,
            filters,
            table: Table::default(),
            accumulators: accumulators.collect::<Result<_>>()?,
            found: Vec::new(),
            rows: 0,
            schema: aggregate.schema(),
            memory: consumer.register(context.memory_pool()),
        })
    }

    /// Takes a batch in, all of it or, if its keys do not fit, nothing.
    fn add(&mut self, batch: &RecordBatch) -> Result<Result<(), TooSparse>> {
        if batch.num_rows() == 0 {
            return Ok(Ok(()));
        }
        let keys = self.key.evaluate(batch)?.into_array(batch.num_rows())?;
        let arguments = evaluate_many(&self.arguments, batch)?;
        let filters = self.filters.iter().map(|filter| match filter {
            Some(filter) => filter.evaluate(batch)?.into_array(batch.num_rows()).map(Some),
            None => Ok(None),
        });
        let filters = filters.collect::<Result<Vec<Option<ArrayRef>>>>()?;
        let others: usize = self.accumulators.iter().map(|accumulator| accumulator.size()).sum();
        let memory = &mut self.memory;
        let grant = |bytes: usize| memory.try_resize(others + bytes).is_ok();
        if let Err(sparse) = self.table.find(&numbers(&keys)?, &mut self.found, grant) {
            return Ok(Err(sparse));
        }
        self.rows += batch.num_rows();
        let groups = self.table.groups();
        let each = self.accumulators.iter_mut().zip(&arguments).zip(&filters);
        for ((accumulator, arguments), filter) in each {
            let filter: Option<&BooleanArray> = filter.as_ref().map(|filter| filter.as_boolean());
            match self.mode.input_mode() {
                AggregateInputMode::Raw => {
                    accumulator.update_batch(arguments, &self.found, filter, groups)?;
                }
                AggregateInputMode::Partial => {
                    accumulator.merge_batch(arguments, &self.found, groups)?;
                }
            }
        }
        Ok(Ok(()))
    }

    fn reserve(&mut self) -> Result<()> {
        let accumulators = self.accumulators.iter().map(|accumulator| accumulator.size());
        let found = self.found.capacity() * size_of::<usize>();
        self.memory.try_resize(self.table.memory_size() + found + accumulators.sum::<usize>())
    }

    /// The groups as the aggregate gives them; `None` if there are none.
    fn output(&mut self) -> Result<Option<RecordBatch>> {
        match self.mode.output_mode() {
            AggregateOutputMode::Partial => self.states(&self.schema.clone()),
            AggregateOutputMode::Final => {
                let schema = self.schema.clone();
                self.columns(&schema, |accumulator| Ok(vec![accumulator.evaluate(EmitTo::All)?]))
            }
        }
    }

    /// The groups as an aggregate that is not final gives them.
    fn states(&mut self, schema: &SchemaRef) -> Result<Option<RecordBatch>> {
        self.columns(schema, |accumulator| accumulator.state(EmitTo::All))
    }

    fn columns(
        &mut self,
        schema: &SchemaRef,
        of: impl Fn(&mut Box<dyn GroupsAccumulator>) -> Result<Vec<ArrayRef>>,
    ) -> Result<Option<RecordBatch>> {
        if self.table.groups() == 0 {
            return Ok(None);
        }
        let mut columns = vec![self.table.keys(schema.field(0).data_type())?];
        for accumulator in &mut self.accumulators {
            columns.extend(of(accumulator)?);
        }
        Ok(Some(RecordBatch::try_new(schema.clone(), columns)?))
    }
}

/// When a partial aggregate gives up, since it hardly makes rows fewer: the engine's knows how to pass them on.
struct Skipping {
    rows: usize,
    part: f64,
}

impl Skipping {
    fn is_due(&self, groups: &Groups) -> bool {
        groups.mode == AggregateMode::Partial
            && groups.rows >= self.rows
            && groups.table.groups() as f64 > self.part * groups.rows as f64
    }
}

/// The engine's aggregate, for the rest of the rows.
struct Rest {
    aggregate: AggregateExec,
    context: Arc<TaskContext>,
    note: Note,
}

impl Rest {
    fn skipping(&self) -> Skipping {
        let options = &self.context.session_config().options().execution;
        Skipping {
            rows: options.skip_partial_aggregation_probe_rows_threshold,
            part: options.skip_partial_aggregation_probe_ratio_threshold,
        }
    }

    /// What the engine's aggregate makes of groups and of more rows.
    fn go_on(self, mut groups: Groups, rows: Rows) -> Result<Rows> {
        let size = self.context.session_config().batch_size();
        let memory = groups.memory.take();
        // Rows of groups, with the memory that they are in.
        let held = |rows: Option<RecordBatch>| {
            memory.resize(rows.as_ref().map_or(0, RecordBatch::get_array_memory_size));
            let done = stream::once(async move {
                drop(memory);
                None
            });
            sliced(rows, size).map(Some).chain(done).filter_map(|row| async { row }).boxed()
        };
        match self.aggregate.mode() {
            AggregateMode::Partial => {
                let states = groups.output()?;
                let rest = self.engine(rows)?;
                Ok(held(states).chain(rest).boxed())
            }
            AggregateMode::Final | AggregateMode::FinalPartitioned => {
                let schema = self.aggregate.input().schema();
                let states = groups.states(&schema)?;
                self.engine(held(states).chain(rows).boxed())
            }
            _ => {
                let partial = AggregateExec::try_new(
                    AggregateMode::Partial,
                    self.aggregate.group_expr().clone(),
                    self.aggregate.aggr_expr().to_vec(),
                    self.aggregate.filter_expr().to_vec(),
                    Once::new(self.aggregate.input().schema(), rows),
                    self.aggregate.input_schema(),
                )?;
                let schema = partial.schema();
                let states = groups.states(&schema)?;
                let partial: Arc<dyn ExecutionPlan> = Arc::new(partial);
                (self.note)(&partial);
                let rest = partial.execute(0, self.context.clone())?;
                let functions = self.aggregate.aggr_expr().to_vec();
                let merged = AggregateExec::try_new(
                    AggregateMode::Final,
                    self.aggregate.group_expr().as_final(),
                    functions.clone(),
                    vec![None; functions.len()],
                    Once::new(schema, held(states).chain(rest).boxed()),
                    self.aggregate.input_schema(),
                )?;
                let merged: Arc<dyn ExecutionPlan> = Arc::new(merged);
                (self.note)(&merged);
                Ok(merged.execute(0, self.context.clone())?.boxed())
            }
        }
    }

    /// The aggregate as the engine runs it, over these rows.
    fn engine(self, rows: Rows) -> Result<Rows> {
        let input: Arc<dyn ExecutionPlan> = Once::new(self.aggregate.input().schema(), rows);
        let aggregate: Arc<dyn ExecutionPlan> = Arc::new(self.aggregate);
        let aggregate = replace_children_if_necessary(aggregate, vec![input])?;
        (self.note)(&aggregate);
        Ok(aggregate.execute(0, self.context)?.boxed())
    }
}

/// Rows that are there once.
struct Once {
    rows: Mutex<Option<Rows>>,
    properties: Arc<PlanProperties>,
}

impl Once {
    fn new(schema: SchemaRef, rows: Rows) -> Arc<Self> {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Arc::new(Self { rows: Mutex::new(Some(rows)), properties: Arc::new(properties) })
    }
}

impl Debug for Once {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Once").finish_non_exhaustive()
    }
}

impl DisplayAs for Once {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("Once")
    }
}

impl ExecutionPlan for Once {
    fn name(&self) -> &'static str {
        "Once"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(rows) = rows else {
            return Err(DataFusionError::Internal("rows were read twice".to_owned()));
        };
        let schema = self.properties.equivalence_properties().schema().clone();
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}
