//! Whether what statements call is the same on another daemon, function by function: for tests.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::ScalarUDF;
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion_distributed::DistributedExt;

use super::codec::{Codec, arrived};
use super::with_unnamed;
use crate::engine::semantics::is_lasting;

/// The functions that may run on another daemon and are not found there, or are others.
pub(in crate::engine) fn lost(template: &SessionState) -> Vec<String> {
    let mut elsewhere = with_unnamed(template);
    elsewhere.config_mut().set_distributed_user_codec(Codec);
    let context = elsewhere.task_ctx();
    let call = |function: &Arc<ScalarUDF>| {
        let field = Arc::new(Field::new("x", DataType::Int32, true));
        let rows = EmptyExec::new(Arc::new(Schema::new(vec![field.clone()])));
        let options = template.config().options().clone();
        let (name, function) = (function.name().to_owned(), function.clone());
        let call = ScalarFunctionExpr::new(&name, function, Vec::new(), field, options);
        let plan = ProjectionExec::try_new(
            [(Arc::new(call) as Arc<dyn PhysicalExpr>, name)],
            Arc::new(rows),
        );
        Arc::new(plan.expect("a plan")) as Arc<dyn ExecutionPlan>
    };
    let scalars = elsewhere.scalar_functions().values().chain(template.scalar_functions().values());
    let scalars = scalars.filter(|function| is_lasting(function)).filter(|function| {
        let arrived = arrived(&call(function), &context).ok();
        arrived.and_then(called).is_none_or(|there| *there != ***function)
    });
    let aggregates = (template.aggregate_functions().values())
        .filter(|function| context.udaf(function.name()).map_or(true, |there| there != **function));
    let windows = (template.window_functions().values())
        .filter(|function| context.udwf(function.name()).map_or(true, |there| there != **function));
    let mut lost: Vec<_> = (scalars.map(|function| function.name().to_owned()))
        .chain(aggregates.map(|function| function.name().to_owned()))
        .chain(windows.map(|function| function.name().to_owned()))
        .collect();
    lost.sort();
    lost.dedup();
    lost
}

/// The function that a plan calls.
fn called(plan: Arc<dyn ExecutionPlan>) -> Option<Arc<ScalarUDF>> {
    let mut found = None;
    let looked = plan.apply_expressions(&mut |expr: &Arc<dyn PhysicalExpr>| {
        expr.apply(|expr| {
            let call = expr.downcast_ref::<ScalarFunctionExpr>();
            found = call.map(|call| Arc::new(call.fun().clone())).or(found.take());
            Ok(TreeNodeRecursion::Continue)
        })
    });
    looked.ok().and(found)
}
