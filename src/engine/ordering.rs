//! The order that a table declares for the rows of its files.

use std::sync::Arc;

use arrow::compute::SortOptions;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::ExecutionPlanProperties;
use datafusion::physical_plan::sorts::sort::SortExec;
use iceberg::spec::{NullOrder, SortDirection, Transform};

use super::write::Target;

/// A plan with its rows in the order that the target declares, each partition in itself, and that
/// order's id.
pub(super) fn in_order(
    target: &Target,
    plan: Arc<dyn ExecutionPlan>,
) -> (Arc<dyn ExecutionPlan>, Option<i32>) {
    let order = target.metadata.default_sort_order();
    let Some(ordering) = ordering(target, &plan) else { return (plan, None) };
    let whole = ordering.len() == order.fields.len();
    let id = if whole { i32::try_from(order.order_id).ok() } else { None };
    match plan.equivalence_properties().ordering_satisfy(ordering.iter().cloned()) {
        Ok(true) => (plan, id),
        _ => {
            let sort = SortExec::new(ordering, plan).with_preserve_partitioning(true);
            (Arc::new(sort), id)
        }
    }
}

/// The order that the table declares, as far as it is one of columns.
fn ordering(target: &Target, plan: &Arc<dyn ExecutionPlan>) -> Option<LexOrdering> {
    let schema = plan.schema();
    let mut sort = Vec::new();
    for field in &target.metadata.default_sort_order().fields {
        if field.transform != Transform::Identity {
            break;
        }
        let name = target.metadata.current_schema().name_by_field_id(field.source_id)?;
        let at = schema.index_of(name).ok()?;
        let options = SortOptions {
            descending: field.direction == SortDirection::Descending,
            nulls_first: field.null_order == NullOrder::First,
        };
        sort.push(PhysicalSortExpr::new(Arc::new(Column::new(name, at)), options));
    }
    LexOrdering::new(sort)
}
