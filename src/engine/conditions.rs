//! In which order a filter looks at its conditions: cheap ones first, so that dear ones see few rows.
//!
//! As in PostgreSQL, what has to be looked at first is nobody's promise; but a condition that may fail comes
//! where it was written, behind all those that cannot.

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::BinaryExpr;
use datafusion::physical_expr::{PhysicalExpr, conjunction, split_conjunction};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};

use crate::storage::cost;

/// Puts the conditions of filters in order.
#[derive(Debug)]
pub(super) struct Conditions;

impl PhysicalOptimizerRule for Conditions {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| {
            let Some(filter) = plan.downcast_ref::<FilterExec>() else {
                return Ok(Transformed::no(plan));
            };
            let Some(ordered) = ordered(filter.predicate(), &filter.input().schema()) else {
                return Ok(Transformed::no(plan));
            };
            let filter = FilterExecBuilder::from(filter).with_predicate(ordered).build()?;
            Ok(Transformed::yes(Arc::new(filter)))
        })
        .data()
    }

    fn name(&self) -> &str {
        "conditions_by_cost"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Conditions by cost; `None` if there is only one kind of them. Those of one cost are one condition, and
/// what costs more stands in that behind it: of the rows that the first leaves, the others are looked at
/// together, where `a AND b AND c` would pick them once for `b` and once more for `c`.
fn ordered(predicate: &Arc<dyn PhysicalExpr>, schema: &Schema) -> Option<Arc<dyn PhysicalExpr>> {
    let mut conditions: Vec<_> = split_conjunction(predicate)
        .into_iter()
        .map(|condition| (cost(condition, schema), condition.clone()))
        .collect();
    conditions.sort_by_key(|(cost, _)| *cost);
    let mut kinds = conditions
        .chunk_by(|(one, _), (next, _)| one == next)
        .map(|kind| conjunction(kind.iter().map(|(_, condition)| condition.clone())))
        .rev();
    let last = kinds.next()?;
    let (rest, several) = kinds.fold((last, false), |(rest, _), kind| {
        (Arc::new(BinaryExpr::new(kind, Operator::And, rest)) as Arc<dyn PhysicalExpr>, true)
    });
    several.then_some(rest)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field};
    use datafusion::physical_expr::expressions::{binary, col, in_list, lit};

    use super::*;

    fn schema() -> Schema {
        let field = |name: &str, kind| Field::new(name, kind, true);
        Schema::new(vec![
            field("a", DataType::Int32),
            field("b", DataType::Int32),
            field("t", DataType::Utf8View),
        ])
    }

    fn is(left: &str, op: Operator, right: Arc<dyn PhysicalExpr>) -> Arc<dyn PhysicalExpr> {
        let schema = schema();
        binary(col(left, &schema).expect("a column"), op, right, &schema).expect("a condition")
    }

    fn in_order(conditions: impl IntoIterator<Item = Arc<dyn PhysicalExpr>>) -> Option<String> {
        ordered(&conjunction(conditions), &schema()).map(|ordered| ordered.to_string())
    }

    #[test]
    fn cheap_conditions_come_first() {
        let column = |name| col(name, &schema()).expect("a column");
        let text = is("t", Operator::Eq, lit("x"));
        let columns = is("a", Operator::Lt, column("b"));
        let list = in_list(column("t"), vec![lit("x"), lit("y")], &false, &schema());
        let list = list.expect("a list");
        let (low, high) = (is("a", Operator::GtEq, lit(1)), is("a", Operator::Lt, lit(9)));
        assert_eq!(
            in_order([text.clone(), columns, low.clone(), list, high.clone()]).as_deref(),
            Some("a@0 >= 1 AND a@0 < 9 AND a@0 < b@1 AND t@2 = x AND t@2 IN (SET) ([x, y])")
        );
        assert_eq!(in_order([low, high]), None, "nothing to order");
        assert_eq!(in_order([text]), None);
    }

    #[test]
    fn what_may_fail_stays_behind_and_in_its_order() {
        let column = |name| col(name, &schema()).expect("a column");
        let divided = binary(lit(1), Operator::Divide, column("b"), &schema()).expect("a quotient");
        let fails = is("a", Operator::Eq, divided);
        let guard = is("b", Operator::NotEq, lit(0));
        let either = Arc::new(BinaryExpr::new(guard.clone(), Operator::Or, fails.clone())) as _;
        assert_eq!(
            in_order([fails, either, guard]).as_deref(),
            Some("b@1 != 0 AND a@0 = 1 / b@1 AND (b@1 != 0 OR a@0 = 1 / b@1)")
        );
    }
}
