//! IS NOT DISTINCT FROM between columns, said with `=` only.
//!
//! The engine joins by such a condition as by an equality, and has one rule for the NULLs of all keys of a
//! join: where another condition by `=` comes to the same join later, from WHERE or from a join around it,
//! one of the two gets the other's rule (DataFusion 55). Two equalities that no NULL takes part in mean the
//! same and can stand beside others: of the values, with some value in place of NULL, and of whether they
//! are NULL.

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, lit};
use datafusion::optimizer::AnalyzerRule;

/// The rule. It belongs behind those that settle types.
#[derive(Debug)]
pub(in crate::engine) struct Distinctions;

impl AnalyzerRule for Distinctions {
    fn name(&self) -> &str {
        "postgres_distinctions"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(settled).map(|done| done.data)
    }
}

fn settled(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    Ok(match plan {
        LogicalPlan::Filter(mut filter) if has_any(&filter.predicate) => {
            filter.predicate = keyed(filter.predicate, filter.input.schema())?;
            Transformed::yes(LogicalPlan::Filter(filter))
        }
        LogicalPlan::Join(mut join) if join.filter.as_ref().is_some_and(has_any) => {
            let schema = join.left.schema().join(join.right.schema())?;
            join.filter = join.filter.map(|filter| keyed(filter, &schema)).transpose()?;
            Transformed::yes(LogicalPlan::Join(join))
        }
        other => Transformed::no(other),
    })
}

fn has_any(condition: &Expr) -> bool {
    condition.exists(|part| Ok(is_of_columns(part))).unwrap_or(true)
}

/// Whether both sides have columns. Those of a query around this one are another matter: what becomes of
/// them depends on the operator.
fn is_of_columns(condition: &Expr) -> bool {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = condition else { return false };
    let has_columns = |side: &Expr| !side.column_refs().is_empty();
    matches!(op, Operator::IsNotDistinctFrom | Operator::IsDistinctFrom)
        && has_columns(left)
        && has_columns(right)
        && !condition.contains_outer()
}

/// A condition without any of these, nor of their contraries, of which the engine makes them behind NOT.
fn keyed(condition: Expr, schema: &DFSchema) -> Result<Expr> {
    let keyed = condition.transform_up(|part| {
        if !is_of_columns(&part) {
            return Ok(Transformed::no(part));
        }
        let Expr::BinaryExpr(BinaryExpr { left, op, right }) = part else {
            return Ok(Transformed::no(part));
        };
        // Whatever value it is.
        let some = left.get_type(schema).and_then(|kind| ScalarValue::new_default(&kind));
        let Ok(some) = some else {
            return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })));
        };
        let value = |side: &Expr| coalesce(vec![side.clone(), lit(some.clone())]);
        let values = value(&left).eq(value(&right));
        let same = values.and(left.is_null().eq(right.is_null()));
        Ok(Transformed::yes(match op {
            Operator::IsDistinctFrom => Expr::Not(Box::new(same)),
            _ => same,
        }))
    });
    keyed.data()
}
