//! Aggregates that a statement has more than once, as it does where it uses a WITH query twice: computed
//! once.
//!
//! [`Planner`] looks for equal ones in the optimised plan and marks them; each becomes a [`SharedExec`] over
//! its own copy of the same steps. When the first is asked for rows, the steps of one copy run to their end,
//! and all are given the rows that came of it. These are few, or sharing would not be worth its memory:
//! past [`MOST_BYTES`], or where there is no memory for them, whoever began keeps its rows and the others
//! compute their own.
//!
//! A query that would give other rows each time ([`Once`]) runs once whatever that takes: its rows are kept as
//! long as there is memory, and where there is none for them, the statement fails.
//!
//! Nobody is given a row before all are there, so that no reader waits for another one to read on.

use std::collections::HashMap;
use std::fmt::{self, Debug, Formatter};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchemaRef, Statistics};
use datafusion::datasource::source_as_provider;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{
    Expr, Extension, LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore,
};
use datafusion::physical_expr::{Distribution, EquivalenceProperties};
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties,
    InputDistributionRequirements, PhysicalExpr, PlanProperties,
};
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};
use futures::future::{BoxFuture, Shared};
use futures::stream::{self, StreamExt};
use futures::{FutureExt, TryStreamExt};

use super::once::Once;

/// Bytes of rows that are kept at most of one partition of an aggregate.
const MOST_BYTES: usize = 64 << 20;

/// Plans as DataFusion does, and computes equal aggregates once.
#[derive(Debug)]
pub(super) struct Planner;

#[async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(
        &self,
        plan: &LogicalPlan,
        session: &dyn Session,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let kept = with_kept(plan)?;
        let plan = kept.as_ref().unwrap_or(plan);
        let marked = marked(plan)?;
        let planner = DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(Steps)]);
        planner.create_physical_plan(marked.as_ref().unwrap_or(plan), session).await
    }
}

/// Of equal steps.
#[derive(Debug, Default)]
struct Group {
    /// Whether they may not run several times.
    once: bool,
    members: AtomicUsize,
    /// The steps whose rows all are given. Unset until the plan is about to run.
    source: OnceLock<Arc<dyn ExecutionPlan>>,
    run: Mutex<Option<Arc<Run>>>,
}

/// A plan in which the queries are marked that are to run once; `None` if there are none.
fn with_kept(plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
    let mut groups: HashMap<String, Arc<Group>> = HashMap::new();
    let marked = plan.clone().transform_up_with_subqueries(|node| {
        let LogicalPlan::Extension(extension) = &node else { return Ok(Transformed::no(node)) };
        let Some(Once { name, rows }) = extension.node.as_any().downcast_ref::<Once>() else {
            return Ok(Transformed::no(node));
        };
        let group = groups.entry(name.clone());
        let group = group.or_insert_with(|| Arc::new(Group { once: true, ..Group::default() }));
        let mark = Mark { rows: rows.clone(), group: group.clone() };
        Ok(Transformed::yes(LogicalPlan::Extension(Extension { node: Arc::new(mark) })))
    })?;
    Ok(marked.transformed.then_some(marked.data))
}

/// A plan with its equal aggregates marked; `None` if there are none.
fn marked(plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
    let mut found: HashMap<u64, Vec<(LogicalPlan, usize)>> = HashMap::new();
    let mut count = 0;
    plan.apply_with_subqueries(|node| {
        count += usize::from(matches!(node, LogicalPlan::Aggregate(_)));
        Ok(TreeNodeRecursion::Continue)
    })?;
    if count < 2 {
        return Ok(None);
    }
    plan.apply_with_subqueries(|node| {
        match node {
            // What it reads is another each time.
            LogicalPlan::RecursiveQuery(_) => return Ok(TreeNodeRecursion::Jump),
            LogicalPlan::Aggregate(_) if can_be_shared(node)? => {
                let alike = found.entry(hash(node)).or_default();
                match alike.iter_mut().find(|(other, _)| are_equal(other, node)) {
                    Some((_, times)) => *times += 1,
                    None => alike.push((node.clone(), 1)),
                }
            }
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    let groups: Vec<(LogicalPlan, Arc<Group>)> = (found.into_values().flatten())
        .filter(|(_, times)| *times > 1)
        .map(|(plan, _)| (plan, Arc::default()))
        .collect();
    if groups.is_empty() {
        return Ok(None);
    }
    let marked = plan.clone().transform_down_with_subqueries(|node| {
        match &node {
            LogicalPlan::RecursiveQuery(_) => {
                return Ok(Transformed::new(node, false, TreeNodeRecursion::Jump));
            }
            LogicalPlan::Aggregate(_) => {}
            _ => return Ok(Transformed::no(node)),
        }
        let Some((_, group)) = groups.iter().find(|(plan, _)| are_equal(plan, &node)) else {
            return Ok(Transformed::no(node));
        };
        let mark = Mark { rows: node, group: group.clone() };
        let node = LogicalPlan::Extension(Extension { node: Arc::new(mark) });
        // Aggregates below run once by that.
        Ok(Transformed::new(node, true, TreeNodeRecursion::Jump))
    })?;
    Ok(Some(marked.data))
}

fn hash(plan: &LogicalPlan) -> u64 {
    let mut hasher = DefaultHasher::new();
    plan.hash(&mut hasher);
    hasher.finish()
}

/// Whether two plans give the same rows: plans are compared by the names of their tables only.
fn are_equal(a: &LogicalPlan, b: &LogicalPlan) -> bool {
    let same = |(a, b)| Arc::ptr_eq(a, b);
    a == b
        && match (tables(a), tables(b)) {
            (Ok(a), Ok(b)) => a.len() == b.len() && a.iter().zip(&b).all(same),
            _ => false,
        }
}

fn tables(plan: &LogicalPlan) -> Result<Vec<Arc<dyn TableProvider>>> {
    let mut tables = Vec::new();
    plan.apply(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            tables.push(source_as_provider(&scan.source)?);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(tables)
}

/// Whether an aggregate reads tables and nothing outside of itself, and gives the same rows each time.
fn can_be_shared(plan: &LogicalPlan) -> Result<bool> {
    let mut reads = false;
    let bound = plan.exists(|node| {
        reads |= matches!(node, LogicalPlan::TableScan(_));
        let bound = |expr: &Expr| {
            let bound = expr.exists(|expr| {
                Ok(expr.is_volatile_node()
                    || matches!(
                        expr,
                        Expr::ScalarSubquery(_)
                            | Expr::Exists(_)
                            | Expr::InSubquery(_)
                            | Expr::SetComparison(_)
                            | Expr::OuterReferenceColumn(..)
                    ))
            });
            bound.unwrap_or(true)
        };
        Ok(matches!(node, LogicalPlan::Extension(_) | LogicalPlan::RecursiveQuery(_))
            || node.expressions().iter().any(bound))
    })?;
    Ok(reads && !bound)
}

/// Steps that have their like elsewhere in the statement.
#[derive(Clone, Debug)]
struct Mark {
    rows: LogicalPlan,
    group: Arc<Group>,
}

impl PartialEq for Mark {
    fn eq(&self, other: &Self) -> bool {
        self.rows == other.rows
    }
}

impl Eq for Mark {}

impl Hash for Mark {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.rows.hash(state);
    }
}

impl PartialOrd for Mark {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        self.rows.partial_cmp(&other.rows)
    }
}

impl UserDefinedLogicalNodeCore for Mark {
    fn name(&self) -> &str {
        "Shared"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.rows]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.rows.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str("Shared")
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let rows = inputs.pop().unwrap_or_else(|| self.rows.clone());
        Ok(Self { rows, group: self.group.clone() })
    }
}

/// Plans [`Mark`]s.
struct Steps;

#[async_trait]
impl ExtensionPlanner for Steps {
    async fn plan_extension(
        &self,
        _: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _: &[&LogicalPlan],
        inputs: &[Arc<dyn ExecutionPlan>],
        _: &dyn Session,
        _: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let (Some(mark), [rows]) = (node.as_any().downcast_ref::<Mark>(), inputs) else {
            return Ok(None);
        };
        let place = mark.group.members.fetch_add(1, Ordering::Relaxed);
        Ok(Some(Arc::new(SharedExec::new(rows.clone(), place, mark.group.clone()))))
    }
}

/// Gives the rows of steps that others have as well.
#[derive(Debug)]
pub(super) struct SharedExec {
    rows: Arc<dyn ExecutionPlan>,
    /// Among its like.
    place: usize,
    group: Arc<Group>,
    properties: Arc<PlanProperties>,
}

/// The steps that run, by partition.
#[derive(Debug)]
struct Run(Vec<Shared<BoxFuture<'static, Outcome>>>);

#[derive(Clone)]
enum Outcome {
    All(Arc<Kept>),
    /// For the one whose steps they are.
    TooMany(Arc<Mutex<Option<Begun>>>),
    Failed(Arc<DataFusionError>),
}

/// The rows so far, and those to come.
type Begun = (Vec<RecordBatch>, SendableRecordBatchStream);

struct Kept {
    batches: Vec<RecordBatch>,
    _memory: MemoryReservation,
}

/// Lets the shared steps of a plan run once, from here on. Without it each runs its own.
pub(super) fn share(plan: &Arc<dyn ExecutionPlan>) {
    // The closure never fails.
    let _ = plan.apply(|node| {
        if let Some(shared) = node.downcast_ref::<SharedExec>()
            && (shared.place == 0 || shared.group.once)
        {
            let _ = shared.group.source.set(shared.rows.clone());
        }
        Ok(TreeNodeRecursion::Continue)
    });
}

/// A plan whose steps each run for themselves.
pub(super) fn unshared(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let plan = plan.transform_up(|node| {
        Ok(match node.downcast_ref::<SharedExec>() {
            Some(shared) => Transformed::yes(shared.rows.clone()),
            None => Transformed::no(node),
        })
    })?;
    Ok(plan.data)
}

impl SharedExec {
    fn new(rows: Arc<dyn ExecutionPlan>, place: usize, group: Arc<Group>) -> Self {
        // Whatever order the rows have by chance, their like may have another.
        let properties = PlanProperties::new(
            EquivalenceProperties::new(rows.schema()),
            rows.output_partitioning().clone(),
            rows.pipeline_behavior(),
            rows.boundedness(),
        );
        Self { rows, place, group, properties: Arc::new(properties) }
    }

    /// Whether its rows are those of other steps.
    pub fn repeats(&self) -> bool {
        self.place > 0
    }

    /// What has begun, if there is something to share.
    fn run(&self, context: &Arc<TaskContext>) -> Result<Option<Arc<Run>>> {
        let Some(source) = self.group.source.get() else { return Ok(None) };
        let partitions = source.output_partitioning().partition_count();
        if self.group.members.load(Ordering::Relaxed) < 2
            || self.rows.output_partitioning().partition_count() != partitions
        {
            return Ok(None);
        }
        let mut run = self.group.run.lock().unwrap_or_else(PoisonError::into_inner);
        if run.is_none() {
            let start = |partition| {
                let rows = source.execute(partition, context.clone())?;
                let memory = MemoryConsumer::new("shared rows").register(context.memory_pool());
                let most = if self.group.once { usize::MAX } else { MOST_BYTES };
                let task = SpawnedTask::spawn(gather(rows, memory, most));
                let ended = task.join().map(|ended| {
                    ended.unwrap_or_else(|error| {
                        Outcome::Failed(Arc::new(DataFusionError::ExecutionJoin(Box::new(error))))
                    })
                });
                Ok(ended.boxed().shared())
            };
            *run = Some(Arc::new(Run((0..partitions).map(start).collect::<Result<_>>()?)));
        }
        Ok(run.clone())
    }
}

/// All rows, if they take no more than `most` bytes.
async fn gather(
    mut rows: SendableRecordBatchStream,
    memory: MemoryReservation,
    most: usize,
) -> Outcome {
    let mut batches = Vec::new();
    while let Some(batch) = rows.next().await {
        let batch = match batch {
            Ok(batch) => batch,
            Err(error) => return Outcome::Failed(Arc::new(error)),
        };
        let bytes = batch.get_array_memory_size();
        batches.push(batch);
        match memory.try_grow(bytes) {
            Err(error) if most == usize::MAX => return Outcome::Failed(Arc::new(error)),
            Ok(()) if memory.size() <= most => continue,
            Ok(()) | Err(_) => {}
        }
        return Outcome::TooMany(Arc::new(Mutex::new(Some((batches, rows)))));
    }
    Outcome::All(Arc::new(Kept { batches, _memory: memory }))
}

impl Debug for Outcome {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All(_) => "All",
            Self::TooMany(_) => "TooMany",
            Self::Failed(_) => "Failed",
        })
    }
}

impl DisplayAs for SharedExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut Formatter<'_>) -> fmt::Result {
        let members = self.group.members.load(Ordering::Relaxed);
        write!(f, "SharedExec: {} of {members}", self.place + 1)
    }
}

impl ExecutionPlan for SharedExec {
    fn name(&self) -> &'static str {
        "SharedExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        InputDistributionRequirements::new(vec![match self.group.once {
            // So that no two copies have their rows in other partitions.
            true => Distribution::SinglePartition,
            false => Distribution::UnspecifiedDistribution,
        }])
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.rows]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let rows = children.pop().unwrap_or_else(|| self.rows.clone());
        Ok(Arc::new(Self::new(rows, self.place, self.group.clone())))
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    fn statistics_from_inputs(
        &self,
        inputs: &[Arc<Statistics>],
        _: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        Ok(inputs
            .first()
            .cloned()
            .unwrap_or_else(|| Statistics::new_unknown(&self.schema()).into()))
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let run = self.run(&context)?;
        let Some(outcome) = run.as_ref().and_then(|run| run.0.get(partition)).cloned() else {
            return self.rows.execute(partition, context);
        };
        let (own, repeats) = (self.rows.clone(), self.repeats());
        let rows = async move {
            // Without a reader it stops.
            let _run = run;
            Ok(match outcome.await {
                Outcome::All(kept) => {
                    let batches = 0..kept.batches.len();
                    stream::iter(batches.map(move |at| Ok(kept.batches[at].clone()))).boxed()
                }
                Outcome::TooMany(_) if repeats => own.execute(partition, context)?.boxed(),
                Outcome::TooMany(left) => {
                    let left = left.lock().unwrap_or_else(PoisonError::into_inner).take();
                    let (batches, rest) = left.ok_or_else(|| {
                        DataFusionError::Internal("rows were taken before".to_owned())
                    })?;
                    stream::iter(batches.into_iter().map(Ok)).chain(rest).boxed()
                }
                Outcome::Failed(error) => return Err(DataFusionError::Shared(error)),
            })
        };
        let rows = stream::once(rows).try_flatten();
        let rows = RecordBatchStreamAdapter::new(self.schema(), Box::pin(rows));
        Ok(Box::pin(cooperative(rows)))
    }
}

#[cfg(test)]
mod tests;
