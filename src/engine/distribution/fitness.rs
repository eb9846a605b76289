//! Which plans can run on several daemons and give the same rows, and which are worth it.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::physical_plan::{FileScanConfig, ParquetSource};
use datafusion::execution::{FunctionRegistry, TaskContext};
use datafusion::logical_expr::AggregateUDF;
use datafusion::physical_expr::ScalarFunctionExpr;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, PhysicalExpr};

use super::codec::{arrived, scan_of};
use crate::engine::semantics::is_lasting;

/// Bytes that a value of a type without a fixed width takes, for estimates.
const VARIABLE_WIDTH: usize = 24;

/// Bytes of files that a plan reads, after files and columns were left out that it does not need.
pub(super) fn bytes_to_read(plan: &Arc<dyn ExecutionPlan>) -> u64 {
    let mut bytes = 0;
    // The closure never fails.
    let _ = plan.apply(|node| {
        bytes += scan_of(node.as_ref()).map_or(0, bytes_of_scan);
        Ok(TreeNodeRecursion::Continue)
    });
    bytes
}

/// The same of one scan. Columns count by the width of their types.
pub(in crate::engine) fn bytes_of_scan(scan: &FileScanConfig) -> u64 {
    let files = scan.file_groups.iter().flat_map(|group| group.files());
    let bytes: u64 = files.map(|file| file.effective_size()).sum();
    let schema = scan.file_schema();
    let width = |kind: &DataType| kind.primitive_width().unwrap_or(VARIABLE_WIDTH);
    let all: usize = schema.fields().iter().map(|field| width(field.data_type())).sum();
    let Some(projection) = scan.file_source().projection() else { return bytes };
    let read: usize = (projection.column_indices().into_iter())
        .filter_map(|at| schema.fields().get(at))
        .map(|field| width(field.data_type()))
        .sum();
    (bytes as u128 * read as u128 / all.max(1) as u128) as u64
}

/// Why a plan stays on this daemon; `None` if it need not.
///
/// Refused is what would lose a part of its meaning on the way, what datafusion-distributed 4.0 is
/// known to answer wrongly, and what depends on this session.
pub(super) fn obstacle(
    plan: &Arc<dyn ExecutionPlan>,
    elsewhere: &TaskContext,
) -> Result<Option<&'static str>> {
    let mut found = None;
    plan.apply(|node| {
        found = obstacle_of(node, elsewhere)?;
        Ok(match found {
            Some(_) => TreeNodeRecursion::Stop,
            None => TreeNodeRecursion::Continue,
        })
    })?;
    Ok(found)
}

/// Whether a window's rows are of one partition by a column that has one value.
fn is_over_constant(node: &Arc<dyn ExecutionPlan>) -> bool {
    let bounded = node.downcast_ref::<BoundedWindowAggExec>().map(|window| window.window_expr());
    let other = node.downcast_ref::<WindowAggExec>().map(|window| window.window_expr());
    let mut keys = bounded.or(other).into_iter().flatten().flat_map(|window| window.partition_by());
    keys.any(|key| {
        let inputs = node.children();
        inputs.iter().any(|input| input.equivalence_properties().is_expr_constant(key).is_some())
    })
}

fn obstacle_of(
    node: &Arc<dyn ExecutionPlan>,
    elsewhere: &TaskContext,
) -> Result<Option<&'static str>> {
    if let Some(reason) = scan_of(node.as_ref()).and_then(obstacle_of_scan) {
        return Ok(Some(reason));
    }
    if let Some(cut) = node.downcast_ref::<RepartitionExec>()
        && cut.preserve_order()
    {
        return Ok(Some("rows are shuffled in order"));
    }
    if let Some(join) = node.downcast_ref::<HashJoinExec>()
        && join.null_aware
    {
        return Ok(Some("NOT IN looks at all rows at once"));
    }
    if is_over_constant(node) {
        // What is known of it here, as that `k >= 5` leaves one `k`, does not travel with the plan.
        return Ok(Some("a window over a constant column"));
    }
    let joins = node.children().len() > 1;
    if joins && node.children().into_iter().any(has_limit) {
        // A limit on a side that is broadcast would count for each of its readers.
        return Ok(Some("a limit below a join"));
    }
    if let Some(aggregate) = node.downcast_ref::<AggregateExec>() {
        let other = |function: &AggregateUDF| {
            elsewhere.udaf(function.name()).map_or(true, |known| *known != *function)
        };
        if aggregate.aggr_expr().iter().any(|call| other(call.fun())) {
            return Ok(Some("an aggregate function is another there"));
        }
    }
    let mut found = None;
    node.apply_expressions(&mut |expr: &Arc<dyn PhysicalExpr>| {
        expr.apply(|expr| {
            let Some(call) = expr.downcast_ref::<ScalarFunctionExpr>() else {
                return Ok(TreeNodeRecursion::Continue);
            };
            let function = call.fun();
            if !is_lasting(function) {
                found = Some("a function depends on the session");
            } else if elsewhere.udf(function.name()).map_or(true, |known| *known != *function) {
                found = Some("a function is another there");
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(found)
}

fn obstacle_of_scan(scan: &FileScanConfig) -> Option<&'static str> {
    if !scan.file_source().is::<ParquetSource>() {
        return Some("files that are not Parquet");
    }
    if !scan.file_source().table_schema().virtual_columns().is_empty() {
        return Some("columns that are not in files");
    }
    if scan.preserve_order {
        return Some("files are read in order");
    }
    if scan.output_partitioning.is_some() {
        return Some("files lie in partitions that the plan relies on");
    }
    // The way to another daemon has 32 bits for it.
    if scan.limit.is_some_and(|limit| u32::try_from(limit).is_err()) {
        return Some("a limit of more than 32 bits");
    }
    None
}

fn has_limit(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let limits = |node: &Arc<dyn ExecutionPlan>| {
        Ok(node.fetch().is_some() || node.is::<GlobalLimitExec>() || node.is::<LocalLimitExec>())
    };
    plan.exists(limits).unwrap_or(true)
}

/// Whether the plan is the same on another daemon: it is written down, read again and compared. An
/// error if it cannot be written or read.
pub(super) fn arrives(plan: &Arc<dyn ExecutionPlan>, context: &TaskContext) -> Result<bool> {
    Ok(is_same(plan, &arrived(plan, context)?))
}

/// Whether two plans do the same. What does not get through in datafusion-proto 55 are parts of window
/// expressions: FILTER, IGNORE NULLS, and that one counts from the end.
fn is_same(sent: &Arc<dyn ExecutionPlan>, arrived: &Arc<dyn ExecutionPlan>) -> bool {
    let (below, below_arrived) = (sent.children(), arrived.children());
    sent.name() == arrived.name()
        && sent.schema() == arrived.schema()
        && windows(sent) == windows(arrived)
        && below.len() == below_arrived.len()
        && below.into_iter().zip(below_arrived).all(|(sent, arrived)| is_same(sent, arrived))
}

/// All that there is to say of a step's window expressions.
fn windows(plan: &Arc<dyn ExecutionPlan>) -> String {
    if let Some(windows) = plan.downcast_ref::<WindowAggExec>() {
        return format!("{:?}", windows.window_expr());
    }
    match plan.downcast_ref::<BoundedWindowAggExec>() {
        Some(windows) => format!("{:?}", windows.window_expr()),
        None => String::new(),
    }
}
