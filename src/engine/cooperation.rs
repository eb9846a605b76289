//! Keeps one statement from holding a thread for itself.
//!
//! Operators yield when they have taken their share of rows from a scan. One that makes many rows
//! of few, a join or an UNNEST, asks its scan so rarely that it would run for minutes without a
//! pause: other statements would starve and nobody could cancel it. Such operators are put on a
//! share of their own.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec,
};
use datafusion::physical_plan::unnest::UnnestExec;

/// Lets every operator that multiplies rows pause.
pub(super) fn make_fair(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let fair = plan.transform_up(|node| {
        let multiplies = node.is::<NestedLoopJoinExec>()
            || node.is::<CrossJoinExec>()
            || node.is::<HashJoinExec>()
            || node.is::<SortMergeJoinExec>()
            || node.is::<UnnestExec>();
        Ok(match multiplies {
            true => Transformed::yes(Arc::new(CooperativeExec::new(node)) as _),
            false => Transformed::no(node),
        })
    })?;
    Ok(fair.data)
}
