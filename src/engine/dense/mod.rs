//! Aggregates by one whole number whose values lie close together, as keys mostly do: the group of a row is
//! found at the key's place in an array ([`table`]), where the engine looks into a hash table and then at
//! the key it found there. With very many groups each of these looks waits for memory.
//!
//! [`dense`] puts a step around aggregates of that form just before they run. Whether keys are close
//! together shows while it runs: where they are not, where the memory limit is met, or where groups are about as
//! many as rows, the engine's own aggregate goes on with the rest of the rows ([`run`]).

mod run;
mod table;
#[cfg(test)]
mod tests;

use std::fmt::{self, Formatter};
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, InputOrderMode, PhysicalExpr, PlanProperties,
};

/// Lets aggregates by one whole number find their groups in an array.
pub(super) fn dense(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let changed = plan.transform_up(|node| {
        let suits = node.downcast_ref::<AggregateExec>().is_some_and(suits);
        Ok(match suits {
            true => Transformed::yes(Arc::new(DenseExec::new(node)) as _),
            false => Transformed::no(node),
        })
    })?;
    Ok(changed.data)
}

fn suits(aggregate: &AggregateExec) -> bool {
    use AggregateMode::{Final, FinalPartitioned, Partial, Single, SinglePartitioned};
    let keys = aggregate.group_expr();
    let one_number = keys.is_single()
        && !keys.has_grouping_set()
        && keys.expr().len() == 1
        && table::is_number(aggregate.schema().field(0).data_type());
    one_number
        && matches!(
            aggregate.mode(),
            Partial | Final | FinalPartitioned | Single | SinglePartitioned
        )
        && *aggregate.input_order_mode() == InputOrderMode::Linear
        && aggregate.limit_options().is_none()
        && aggregate.aggr_expr().iter().all(|function| {
            function.groups_accumulator_supported() && function.order_bys().is_empty()
        })
}

/// An aggregate by one whole number.
#[derive(Debug)]
struct DenseExec {
    /// The engine's, an [`AggregateExec`].
    aggregate: Arc<dyn ExecutionPlan>,
    metrics: ExecutionPlanMetricsSet,
    /// Those of the engine that went on, for their metrics.
    went_on: Arc<Mutex<Vec<Arc<dyn ExecutionPlan>>>>,
}

impl DenseExec {
    fn new(aggregate: Arc<dyn ExecutionPlan>) -> Self {
        Self { aggregate, metrics: ExecutionPlanMetricsSet::new(), went_on: Arc::default() }
    }
}

impl DisplayAs for DenseExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut Formatter<'_>) -> fmt::Result {
        self.aggregate.fmt_as(format, f)
    }
}

impl ExecutionPlan for DenseExec {
    fn name(&self) -> &'static str {
        "DenseAggregateExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.aggregate.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.aggregate.children()
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.aggregate.apply_expressions(f)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self::new(replace_children_if_necessary(self.aggregate.clone(), children)?)))
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let Some(aggregate) = self.aggregate.downcast_ref::<AggregateExec>() else {
            return Err(DataFusionError::Internal("an aggregate is another one".to_owned()));
        };
        let went_on = self.went_on.clone();
        let note = move |plan: &Arc<dyn ExecutionPlan>| {
            went_on.lock().unwrap_or_else(PoisonError::into_inner).push(plan.clone());
        };
        let rows = run::rows(aggregate, partition, context, &self.metrics, Box::new(note))?;
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        let mut metrics = self.metrics.clone_inner();
        for plan in self.went_on.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            for metric in plan.metrics().iter().flat_map(MetricsSet::iter) {
                // Its rows pass through here, and are counted here.
                if metric.value().name() != "output_rows" {
                    metrics.push(metric.clone());
                }
            }
        }
        Some(metrics)
    }
}
