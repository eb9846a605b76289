//! ORDER BY among the arguments of aggregates to which the order of their values means nothing, such as `max`: the
//! engine sorts by it all the same, and has some take what it is sorted by for a second argument.

use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::AggregateUDF;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawAggregateExpr};

/// The aggregates whose results depend on the order of their values.
const ORDERED: &[&str] = &["array_agg", "first_value", "last_value", "nth_value", "string_agg"];

/// The rule of aggregates.
#[derive(Debug)]
pub(in crate::engine) struct Unordered;

impl ExprPlanner for Unordered {
    fn plan_aggregate(
        &self,
        mut call: RawAggregateExpr,
    ) -> Result<PlannerResult<RawAggregateExpr>> {
        if !takes_order(&call.func) {
            let given = |by: &_| call.args.contains(by);
            if call.distinct && !call.order_by.iter().all(|key| given(&key.expr)) {
                return plan_err!(
                    "In an aggregate with DISTINCT, ORDER BY expressions must appear in argument list"
                );
            }
            call.order_by.clear();
        }
        Ok(PlannerResult::Original(call))
    }
}

fn takes_order(function: &AggregateUDF) -> bool {
    ORDERED.contains(&function.name()) || function.supports_within_group_clause()
}
