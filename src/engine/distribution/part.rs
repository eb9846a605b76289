//! A part of a statement, as it runs on a worker.
//!
//! Once nobody has the part's plan any more its nested loop joins end, which no dropped stream would
//! do in the middle of a poll. And a panic is an error of the part: the tasks that datafusion-distributed
//! runs it in would end as if all rows had been given.

use std::any::Any;
use std::fmt::{self, Formatter};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::joins::NestedLoopJoinExec;
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties,
};
use datafusion_distributed::{BroadcastExec, NetworkBoundaryExt};
use futures::{StreamExt, stream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::Span;
use uuid::Uuid;

use crate::engine::cooperation::watched;
use crate::engine::observe::{Observation, PartWatch};
use crate::faults;
use crate::telemetry;

/// Makes a plan that has arrived one that can be run as a part of the statement, which `observation`
/// sees.
pub(super) fn as_part(
    plan: Arc<dyn ExecutionPlan>,
    observation: Option<&Arc<Observation>>,
    statement: Uuid,
) -> Result<Arc<dyn ExecutionPlan>> {
    let stop = CancellationToken::new();
    let plan = plan.transform_up(|node| {
        let join = node.downcast_ref::<NestedLoopJoinExec>();
        Ok(match join.map(|join| watched(join, &stop)).transpose()?.flatten() {
            Some(watched) => Transformed::yes(watched),
            None => Transformed::no(node),
        })
    })?;
    let watch = observation.map(|observation| observation.watch_part(&plan.data));
    let span = telemetry::statement(statement);
    let held = Arc::new(Held { _stop: stop.drop_guard(), _watch: watch, span });
    // Such a step is put in the place of another of its kind when the part is run.
    let is_head = plan.data.is::<RepartitionExec>() || plan.data.is::<BroadcastExec>();
    let over = |step: &Arc<dyn ExecutionPlan>| Part::over(step.clone(), held.clone());
    match is_head {
        true => {
            let parts = plan.data.children().into_iter().map(over).collect();
            replace_children_if_necessary(plan.data, parts)
        }
        false => Ok(over(&plan.data)),
    }
}

/// Dropped with the last step of a part.
#[derive(Debug)]
struct Held {
    _stop: DropGuard,
    _watch: Option<PartWatch>,
    /// Of what the part logs, here and in the tasks that it starts.
    span: Span,
}

/// Stands in the place of the step that it runs, so that steps are counted as on the coordinator.
#[derive(Debug)]
struct Part {
    step: Arc<dyn ExecutionPlan>,
    /// Not in the streams: they may be in the middle of a poll.
    held: Arc<Held>,
}

impl Part {
    fn over(step: Arc<dyn ExecutionPlan>, held: Arc<Held>) -> Arc<dyn ExecutionPlan> {
        match step.is_network_boundary() {
            // Known by its type, and runs nothing here.
            true => step,
            false => Arc::new(Self { step, held }),
        }
    }
}

impl DisplayAs for Part {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut Formatter<'_>) -> fmt::Result {
        self.step.fmt_as(format, f)
    }
}

impl ExecutionPlan for Part {
    fn name(&self) -> &str {
        self.step.name()
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.step.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        self.step.maintains_input_order()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.step.children()
    }

    fn apply_expressions(
        &self,
        visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.step.apply_expressions(visit)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let step = replace_children_if_necessary(self.step.clone(), children)?;
        Ok(Arc::new(Self { step, held: self.held.clone() }))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        self.step.metrics()
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let span = self.held.span.clone();
        let mut rows = span.in_scope(|| self.step.execute(partition, context))?;
        let rows = stream::poll_fn(move |context| span.in_scope(|| rows.poll_next_unpin(context)));
        // What has panicked is not asked again: the stream ends with the error.
        let rows = AssertUnwindSafe(rows.inspect(|_| faults::point("a part gives rows")))
            .catch_unwind()
            .map(|rows| rows.unwrap_or_else(|panic| Err(panicked(panic.as_ref()))));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}

fn panicked(panic: &(dyn Any + Send)) -> DataFusionError {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("without a message");
    DataFusionError::Internal(format!("a part of a statement panicked: {text}"))
}
