//! Of groups by floats, or of the least or the largest of theirs, the engine keeps only as many as a LIMIT wants; but it
//! takes zeros of two signs for two, finds no NaN again, and has it come before all numbers as well as behind them. Here
//! it keeps all such groups.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;

/// The rule. It belongs behind the engine's own that sets such limits.
#[derive(Debug)]
pub(super) struct Topmost;

impl PhysicalOptimizerRule for Topmost {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| {
            let Some(aggregate) = plan.downcast_ref::<AggregateExec>() else {
                return Ok(Transformed::no(plan));
            };
            let by_order = aggregate.limit_options().is_some_and(|it| it.descending().is_some());
            if !by_order || !has_floats(aggregate) {
                return Ok(Transformed::no(plan));
            }
            Ok(Transformed::yes(Arc::new(aggregate.with_new_limit_options(None)) as _))
        })
        .data()
    }

    fn name(&self) -> &str {
        "topmost_groups"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn has_floats(aggregate: &AggregateExec) -> bool {
    aggregate.schema().fields().iter().any(|field| field.data_type().is_floating())
}
