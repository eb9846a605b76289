//! Subqueries for one value that compare with the outer query by IS NOT DISTINCT FROM. The engine makes a
//! join of those alone that compare a column by `=`: `x IS NOT DISTINCT FROM y` says as much as that both
//! are NULL or neither, and that their values, with any one in the place of NULL, are equal.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, Result, ScalarValue};
use datafusion::logical_expr::expr::{BinaryExpr, Case};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    Expr, ExprSchemable, Filter, LogicalPlan, LogicalPlanBuilder, Operator, lit,
};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

/// The rule. It belongs before the engine's own for such subqueries.
#[derive(Debug)]
pub(super) struct Correlated;

/// The engine's rule.
pub(super) const BEFORE: &str = "scalar_subquery_to_join";

impl OptimizerRule for Correlated {
    fn name(&self) -> &str {
        "correlated_by_distinction"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        let is_one = |expr: &Expr| expr.exists(|expr| Ok(is_correlated(expr)));
        let found = match &plan {
            LogicalPlan::Filter(filter) => is_one(&filter.predicate)?,
            LogicalPlan::Projection(projection) => {
                projection.expr.iter().map(is_one).collect::<Result<Vec<_>>>()?.contains(&true)
            }
            _ => false,
        };
        if !found {
            return Ok(Transformed::no(plan));
        }
        plan.map_expressions(|expr| {
            expr.transform_down(|expr| match expr {
                Expr::ScalarSubquery(subquery) if !subquery.outer_ref_columns.is_empty() => {
                    let plan = subquery.subquery.as_ref().clone().transform_down(matched)?;
                    let changed = plan.transformed;
                    let subquery = Expr::ScalarSubquery(subquery.with_plan(plan.data.into()));
                    Ok(match changed {
                        true => Transformed::yes(subquery),
                        false => Transformed::no(subquery),
                    })
                }
                expr => Ok(Transformed::no(expr)),
            })
        })
    }
}

fn is_correlated(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarSubquery(subquery) if !subquery.outer_ref_columns.is_empty())
}

/// A filter whose conditions of that kind are comparisons by `=`, of columns that a step below adds.
fn matched(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Filter(Filter { predicate, input, .. }) = &plan else {
        return Ok(Transformed::no(plan));
    };
    let (mut keys, mut conditions) = (Vec::new(), Vec::new());
    for condition in split_conjunction_owned(predicate.clone()) {
        let Some((inner, outer)) = sides(&condition) else {
            conditions.push(condition);
            continue;
        };
        let Ok(value) = ScalarValue::new_default(&inner.get_type(input.schema())?) else {
            return Ok(Transformed::no(plan));
        };
        for (what, key, sought) in [
            ("null", inner.clone().is_null(), outer.clone().is_null()),
            ("value", or(inner, &value), or(outer, &value)),
        ] {
            // No column of a statement's is called so.
            let name = format!("\u{2}{what}{}", keys.len());
            keys.push(key.alias(&name));
            conditions.push(Expr::Column(Column::from_name(name)).eq(sought));
        }
    }
    let columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
    let Some(predicate) = conjunction(conditions).filter(|_| !keys.is_empty()) else {
        return Ok(Transformed::no(plan));
    };
    let changed = LogicalPlanBuilder::from(input.as_ref().clone())
        .project(columns.iter().cloned().chain(keys))?
        .filter(predicate)?
        .project(columns)?
        .build()?;
    Ok(Transformed::yes(changed))
}

/// What an IS NOT DISTINCT FROM compares: something of the subquery's own, and of the outer query alone.
fn sides(condition: &Expr) -> Option<(Expr, Expr)> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::IsNotDistinctFrom, right }) = condition
    else {
        return None;
    };
    let is_outer = |side: &Expr| side.contains_outer() && !side.any_column_refs();
    match (is_outer(left), is_outer(right)) {
        (false, true) if !left.contains_outer() => Some((*left.clone(), *right.clone())),
        (true, false) if !right.contains_outer() => Some((*right.clone(), *left.clone())),
        _ => None,
    }
}

/// A value in the place of NULL.
fn or(expr: Expr, value: &ScalarValue) -> Expr {
    Expr::Case(Case {
        expr: None,
        when_then_expr: vec![(Box::new(expr.clone().is_null()), Box::new(lit(value.clone())))],
        else_expr: Some(Box::new(expr)),
    })
}
