//! Unions of many branches, a few of them at a time.
//!
//! The engine starts all partitions below a step that gathers them at once. A union has those of all its
//! branches: a statement of a thousand would have thousands of tasks waiting for the same few threads, each
//! with its files open, and the one task of a small statement would wait behind all of them.

use std::fmt::{self, Formatter};
use std::ops::Range;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::Partitioning;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PhysicalExpr,
    PlanProperties,
};
use futures::{StreamExt, TryStreamExt, stream};

/// Partitions for each thread from which on a union has many.
const MANY: usize = 8;

/// Lets unions of many branches have as many partitions as there are threads.
pub(super) fn in_turn(
    plan: Arc<dyn ExecutionPlan>,
    threads: usize,
) -> Result<Arc<dyn ExecutionPlan>> {
    let turned = plan.transform_up(|node| {
        let many = node.output_partitioning().partition_count() > MANY * threads;
        // Where rows are sorted, a step above may rely on it.
        if !many || !node.is::<UnionExec>() || node.output_ordering().is_some() {
            return Ok(Transformed::no(node));
        }
        Ok(Transformed::yes(Arc::new(InTurn::new(node, threads)) as _))
    })?;
    Ok(turned.data)
}

/// The branches of a union, one after another in each of its partitions.
#[derive(Debug)]
struct InTurn {
    union: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl InTurn {
    fn new(union: Arc<dyn ExecutionPlan>, partitions: usize) -> Self {
        let properties = union.properties().as_ref().clone();
        let properties =
            properties.with_partitioning(Partitioning::UnknownPartitioning(partitions.max(1)));
        Self { union, properties: Arc::new(properties) }
    }

    fn partitions(&self) -> usize {
        self.properties.partitioning.partition_count()
    }

    /// The union's partitions that each branch has.
    fn branches(&self) -> Vec<Range<usize>> {
        let mut end = 0;
        let branches = self.union.children().into_iter().map(|branch| {
            let start = end;
            end += branch.output_partitioning().partition_count();
            start..end
        });
        branches.collect()
    }
}

impl DisplayAs for InTurn {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "BranchesInTurn: at_once={}", self.partitions())
    }
}

impl ExecutionPlan for InTurn {
    fn name(&self) -> &'static str {
        "BranchesInTurn"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.union]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let union = children.into_iter().next().unwrap_or_else(|| self.union.clone());
        Ok(Arc::new(Self::new(union, self.partitions())))
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        if partition >= self.partitions() {
            let message = format!("branches in turn have no partition {partition}");
            return Err(DataFusionError::Internal(message));
        }
        let own = self.branches().into_iter().skip(partition).step_by(self.partitions());
        let union = self.union.clone();
        let rows = stream::iter(own).then(move |branch| {
            // All of them at once: partitions of a join wait for each other.
            let parts = branch.map(|part| union.execute(part, context.clone()));
            let parts = parts.collect::<Result<Vec<_>>>();
            async move { parts.map(stream::select_all) }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.union.schema(), rows.try_flatten())))
    }
}
