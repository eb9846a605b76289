//! Which side of a join is kept in a hash table: the one with fewer bytes, as far as the numbers of rows tell.
//!
//! DataFusion's own choice compares what its statistics say of bytes, and these are missing for most joins
//! and another side's for semi joins. Here rows are counted alike on both sides, by the width of their types.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};

/// How many times as large a side has to be before it is not the one that is kept, against DataFusion's
/// choice: numbers of rows are guesses.
const CLEARLY: usize = 4;

/// Bytes of a text or of what has parts, on average.
const LONG: usize = 32;

#[derive(Debug, Default)]
pub(super) struct Sides;

impl Sides {
    /// DataFusion's rules, with this one behind its own choice of sides, and before anything depends on that.
    pub fn among(
        mut rules: Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>>,
    ) -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
        if let Some(at) = rules.iter().position(|rule| rule.name() == "join_selection") {
            rules.insert(at + 1, Arc::new(Self));
        }
        rules
    }
}

impl PhysicalOptimizerRule for Sides {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if !config.optimizer.join_reordering {
            return Ok(plan);
        }
        plan.transform_up(|plan| {
            let Some(join) = plan.downcast_ref::<HashJoinExec>() else {
                return Ok(Transformed::no(plan));
            };
            let (Some(left), Some(right)) = (bytes(join.left()), bytes(join.right())) else {
                return Ok(Transformed::no(plan));
            };
            let swaps = !join.null_aware
                && join.join_type().supports_swap()
                && left > right.saturating_mul(CLEARLY);
            let kept = if swaps { right } else { left };
            let mode = match kept <= config.optimizer.hash_join_single_partition_threshold {
                true => PartitionMode::CollectLeft,
                false => PartitionMode::Partitioned,
            };
            if swaps {
                return Ok(Transformed::yes(join.swap_inputs(mode)?));
            }
            // What is too large to be kept as one, DataFusion has seen by itself.
            if mode == PartitionMode::CollectLeft && *join.partition_mode() != mode {
                let join = join.builder().with_partition_mode(mode).build()?;
                return Ok(Transformed::yes(Arc::new(join)));
            }
            Ok(Transformed::no(plan))
        })
        .data()
    }

    fn name(&self) -> &str {
        "join_sides"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The bytes of all rows, if it is known how many there are.
fn bytes(plan: &Arc<dyn ExecutionPlan>) -> Option<usize> {
    let statistics =
        StatisticsContext::new().compute(plan.as_ref(), &StatisticsArgs::new()).ok()?;
    Some(statistics.num_rows.get_value()?.saturating_mul(width(&plan.schema())))
}

/// Bytes of a row.
fn width(schema: &Schema) -> usize {
    let of = |kind: &DataType| kind.primitive_width().unwrap_or(LONG);
    schema.fields().iter().map(|field| of(field.data_type())).sum::<usize>().max(1)
}
