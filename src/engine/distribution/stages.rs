//! How a plan is cut into stages: how many tasks a step is worth, who runs them, and whether what
//! datafusion-distributed made of it gives the rows of the plan.
//!
//! A stage of several tasks runs its steps once in each, on a part of the rows. That gives the same
//! rows only as long as no step relies on seeing all of them. One that does asks for a single
//! partition, which is also what it gets from a scan of one partition; so such a scan is never cut. What
//! else may have one partition in each task, such as a union, is found when the stages are made.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::{AcrossPartitions, Distribution};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::joins::NestedLoopJoinExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
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

/// The union of datafusion-distributed, each of whose branches runs in some of a stage's tasks. The
/// crate keeps its type to itself.
const UNION: &str = "ChildrenIsolatorUnionExec";

/// More tasks than one, should their number not be known.
const SEVERAL: usize = 2;

/// Rows of each partition that are merged in order at most. See [`without_merges`].
const MERGED: usize = 10_000;

/// The plan with its partitions sorted where they come together, not merged: all partitions of a worker
/// come over one stream, and a merge that waits for one of them while those it does not want yet have
/// filled the stream's buffer would wait for ever. The first few rows always fit.
pub(super) fn without_merges(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let sorted = plan.transform_up(|node| {
        let Some(merge) = node.downcast_ref::<SortPreservingMergeExec>() else {
            return Ok(Transformed::no(node));
        };
        if merge.fetch().is_some_and(|rows| rows <= MERGED) {
            return Ok(Transformed::no(node));
        }
        let rows = match merge.input().downcast_ref::<SortExec>() {
            // What it leaves out need not come.
            Some(sort) if sort.fetch().is_none() => sort.input(),
            _ => merge.input(),
        };
        let together = Arc::new(CoalescePartitionsExec::new(rows.clone()));
        let sort = SortExec::new(merge.expr().clone(), together).with_fetch(merge.fetch());
        Ok(Transformed::yes(Arc::new(sort) as _))
    })?;
    Ok(sorted.data)
}

/// How many tasks a scan is worth.
pub(super) fn desired_tasks(
    event: DesiredTaskCountEvent<'_>,
) -> Option<Result<DesiredTaskCountEventResponse>> {
    let scan = scan_of(event.plan.as_ref())?;
    let pinned = event.session_config.get_extension::<Pinned>()?;
    // What is above one partition may rely on that, or on an order; and each task would return all of a
    // limit's rows.
    let ordered = !scan.output_ordering.is_empty();
    if is_single(event.plan) || ordered || scan.limit.is_some() {
        return Some(Ok(DesiredTaskCountEventResponse::maximum(1)));
    }
    let tasks = bytes_of_scan(scan).div_ceil(pinned.task_bytes).max(1);
    let tasks = usize::try_from(tasks).unwrap_or(usize::MAX).min(pinned.urls.len());
    Some(Ok(DesiredTaskCountEventResponse::desired(tasks)))
}

/// Task `n` of a stage runs on the worker `n`; what needs one task only stays here, if this daemon is
/// a worker.
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

/// How many of a stage's tasks run one branch of a union, which only its scans tell; several, if they
/// do not.
fn tasks_of_branch(branch: &Arc<dyn ExecutionPlan>) -> Result<usize> {
    let mut tasks = SEVERAL;
    branch.apply(|node| {
        let known = match node.downcast_ref::<DistributedLeafExec>() {
            Some(leaf) => Some(leaf.variants().len()),
            None if node.name() == UNION => Some(SEVERAL),
            // What is not cut keeps all that is with it in one task.
            None if node.is::<NetworkCoalesceExec>() => Some(1),
            None if node.is_network_boundary() => return Ok(TreeNodeRecursion::Jump),
            None => node.children().is_empty().then_some(1),
        };
        tasks = known.unwrap_or(tasks);
        Ok(match known {
            Some(_) => TreeNodeRecursion::Stop,
            None => TreeNodeRecursion::Continue,
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
    let several = tasks > 1;
    if several && node.children().is_empty() {
        return Some(format!("{name} would give its rows in each of {tasks} tasks"));
    }
    if node.is::<CoalescePartitionsExec>() || node.is::<SortPreservingMergeExec>() {
        let part = several && !gathers_all(node);
        return part.then(|| format!("{name} merges the rows of one task of {tasks}"));
    }
    if several && node.fetch().is_some() && is_single(node) {
        return Some(format!("{name} is limited in each of {tasks} tasks"));
    }
    if several && node.is::<RepartitionExec>() && node.children().into_iter().any(claims_order) {
        // Of one partition it keeps the order, and the shuffle of several tasks loses it.
        return Some(format!("{name} claims an order in each of {tasks} tasks"));
    }
    let asked = node.input_distribution_requirements();
    node.children().into_iter().enumerate().find_map(|(at, child)| {
        let whole = match asked.child_distribution(at) {
            None | Some(Distribution::UnspecifiedDistribution) => true,
            // Broadcast: each task has all rows.
            Some(Distribution::SinglePartition) => {
                is_single(child) && (!several || gathers_all(child))
            }
            Some(_) => !several || !is_single(child),
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

/// Whether one partition says that its rows have an order, be it that a column is constant in it.
fn claims_order(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let known = plan.equivalence_properties();
    let constants = known.constants();
    let mut differing =
        constants.iter().filter(|it| it.across_partitions == AcrossPartitions::Heterogeneous);
    is_single(plan) && (plan.output_ordering().is_some() || differing.next().is_some())
}

/// Makes the part of a spread plan that runs here like any other plan: scans name their files, and
/// joins end once `stop` is cancelled.
pub(in crate::engine) fn own_part(
    plan: Arc<dyn ExecutionPlan>,
    context: &TaskContext,
    stop: &CancellationToken,
) -> Result<Arc<dyn ExecutionPlan>> {
    let own = plan.transform_down(|node| {
        if node.is_network_boundary() {
            return Ok(Transformed::new(node, false, TreeNodeRecursion::Jump));
        }
        if node.children().is_empty() {
            // One task runs here, which reads all.
            let leaf =
                node.downcast_ref::<DistributedLeafExec>().map(|leaf| leaf.original().clone());
            return Ok(Transformed::yes(storage::ready_scans(leaf.unwrap_or(node), context)?));
        }
        let join = node.downcast_ref::<NestedLoopJoinExec>();
        Ok(match join.map(|join| watched(join, stop)).transpose()?.flatten() {
            Some(watched) => Transformed::yes(watched),
            None => Transformed::no(node),
        })
    })?;
    Ok(own.data)
}
