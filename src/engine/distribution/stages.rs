//! How a plan is cut into stages: how many tasks a step is worth, who runs them, and whether what
//! datafusion-distributed made of it gives the rows of the plan.
//!
//! A stage of several tasks runs its steps once in each, on a part of the rows. That gives the same
//! rows only as long as no step relies on seeing all of them. One that does asks for a single
//! partition, which is also what it gets from a scan of one partition; so such a scan is never cut.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::physical_expr::Distribution;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::joins::NestedLoopJoinExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use datafusion_distributed::{
    DesiredTaskCountEvent, DesiredTaskCountEventResponse, DistributedLeafExec, NetworkBoundaryExt,
    NetworkBroadcastExec, NetworkCoalesceExec, RouteTasksEvent, RouteTasksEventResponse,
};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::codec::scan_of;
use super::fitness::bytes_of_scan;
use crate::engine::cooperation::watched;
use crate::storage;

/// The workers of one statement, from its planning to its end.
#[derive(Debug)]
pub(super) struct Pinned {
    pub urls: Vec<Url>,
    pub own: Url,
    /// Bytes to read that make one task.
    pub task_bytes: u64,
}

/// The union of datafusion-distributed, each of whose branches runs in some of a stage's tasks.
const UNION: &str = "ChildrenIsolatorUnionExec";

/// How many tasks a scan is worth.
pub(super) fn desired_tasks(
    event: DesiredTaskCountEvent<'_>,
) -> Option<Result<DesiredTaskCountEventResponse>> {
    let scan = scan_of(event.plan)?;
    let pinned = event.session_config.get_extension::<Pinned>()?;
    // What is above one partition may rely on that; and each task would return all of a limit's rows.
    if is_single(event.plan) || scan.limit.is_some() {
        return Some(Ok(DesiredTaskCountEventResponse::maximum(1)));
    }
    let tasks = bytes_of_scan(scan).div_ceil(pinned.task_bytes).max(1);
    let tasks = usize::try_from(tasks).unwrap_or(usize::MAX).min(pinned.urls.len());
    Some(Ok(DesiredTaskCountEventResponse::desired(tasks)))
}

/// Task `n` of a stage runs on the worker `n`; what needs one task only stays here.
pub(super) fn route(event: RouteTasksEvent<'_>) -> Option<Result<RouteTasksEventResponse>> {
    let pinned = event.task_ctx.session_config().get_extension::<Pinned>()?;
    let urls = match event.task_count {
        1 => vec![pinned.own.clone()],
        count => pinned.urls.iter().cycle().take(count).cloned().collect(),
    };
    Some(Ok(RouteTasksEventResponse::new(urls)))
}

/// Why a plan that was cut into stages would not give the rows of the plan it was made of; `None` if
/// nothing speaks against it.
pub(super) fn defect(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<String>> {
    defect_of_stage(plan, 1)
}

fn defect_of_stage(plan: &Arc<dyn ExecutionPlan>, tasks: usize) -> Result<Option<String>> {
    let mut found = None;
    plan.apply(|node| {
        if let Some(boundary) = node.as_network_boundary() {
            let stage = boundary.input_stage();
            if let Some(below) = stage.local_plan() {
                found = defect_of_stage(below, stage.task_count())?;
            }
            return Ok(match found {
                Some(_) => TreeNodeRecursion::Stop,
                None => TreeNodeRecursion::Jump,
            });
        }
        if node.name() == UNION {
            for child in node.children() {
                found = defect_of_stage(child, tasks_of_branch(child)?)?;
                if found.is_some() {
                    return Ok(TreeNodeRecursion::Stop);
                }
            }
            return Ok(TreeNodeRecursion::Jump);
        }
        found = defect_of(node, tasks);
        Ok(match found {
            Some(_) => TreeNodeRecursion::Stop,
            None => TreeNodeRecursion::Continue,
        })
    })?;
    Ok(found)
}

/// How many of a stage's tasks run one branch of a union; several, if that cannot be told.
fn tasks_of_branch(branch: &Arc<dyn ExecutionPlan>) -> Result<usize> {
    let mut tasks = 2;
    branch.apply(|node| {
        if node.is::<NetworkCoalesceExec>() {
            tasks = 1;
            return Ok(TreeNodeRecursion::Stop);
        }
        if let Some(leaf) = node.downcast_ref::<DistributedLeafExec>() {
            tasks = leaf.variants().len();
        }
        Ok(match node.is_network_boundary() {
            true => TreeNodeRecursion::Jump,
            false => TreeNodeRecursion::Continue,
        })
    })?;
    Ok(tasks)
}

fn defect_of(node: &Arc<dyn ExecutionPlan>, tasks: usize) -> Option<String> {
    let name = node.name();
    if let Some(leaf) = node.downcast_ref::<DistributedLeafExec>() {
        let parts = leaf.variants().len();
        return (parts != tasks)
            .then(|| format!("a scan in {parts} parts, in a stage of {tasks} tasks"));
    }
    if tasks == 1 {
        return None;
    }
    if node.children().is_empty() {
        return Some(format!("{name} would give its rows in each of {tasks} tasks"));
    }
    if node.is::<CoalescePartitionsExec>() || node.is::<SortPreservingMergeExec>() {
        let all = node.children().into_iter().all(|child| child.is::<NetworkBroadcastExec>());
        return (!all).then(|| format!("{name} merges the rows of one task of {tasks}"));
    }
    if node.fetch().is_some() && is_single(node) {
        return Some(format!("{name} is limited in each of {tasks} tasks"));
    }
    let asked = node.input_distribution_requirements();
    node.children().into_iter().enumerate().find_map(|(at, child)| {
        let whole = match asked.child_distribution(at) {
            None | Some(Distribution::UnspecifiedDistribution) => true,
            // Broadcast: each task has all rows.
            Some(Distribution::SinglePartition) => gathers_all(child),
            Some(_) => !is_single(child),
        };
        (!whole).then(|| format!("{name} sees the rows of one task of {tasks}"))
    })
}

/// Whether a step returns all rows that there are, whatever task it runs in.
fn gathers_all(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.is::<CoalescePartitionsExec>()
        && plan.children().into_iter().all(|child| child.is::<NetworkBroadcastExec>())
}

fn is_single(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.output_partitioning().partition_count() == 1
}

/// Makes the part of a spread plan that runs here like any other plan: scans name their files, and
/// joins end once `stop` is cancelled.
pub(in crate::engine) fn own_part(
    plan: Arc<dyn ExecutionPlan>,
    stop: &CancellationToken,
) -> Result<Arc<dyn ExecutionPlan>> {
    let own = plan.transform_down(|node| {
        if node.is_network_boundary() {
            return Ok(Transformed::new(node, false, TreeNodeRecursion::Jump));
        }
        if node.children().is_empty() {
            return Ok(Transformed::yes(storage::name_files(node)?));
        }
        let join = node.downcast_ref::<NestedLoopJoinExec>();
        Ok(match join.map(|join| watched(join, stop)).transpose()?.flatten() {
            Some(watched) => Transformed::yes(watched),
            None => Transformed::no(node),
        })
    })?;
    Ok(own.data)
}
