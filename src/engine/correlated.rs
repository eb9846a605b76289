//! Subqueries for one value that compare with the outer query by IS NOT DISTINCT FROM, or something that is
//! computed of their rows. The engine makes a join of those alone that compare a column by `=`:
//! `x IS NOT DISTINCT FROM y` says as much as that both are NULL or neither, and that their values, with any
//! one in the place of NULL, are equal; and what is computed becomes a column.

use std::sync::Arc;

use datafusion::common::alias::AliasGenerator;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, Result, ScalarValue};
use datafusion::logical_expr::expr::{BinaryExpr, Case};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    Expr, ExprSchemable, Filter, LogicalPlan, LogicalPlanBuilder, Operator, Subquery, lit,
};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

/// The rule. It belongs before the engine's own for such subqueries.
#[derive(Debug)]
pub(super) struct Correlated;

/// The engine's rule.
pub(super) const BEFORE: &str = "scalar_subquery_to_join";

impl OptimizerRule for Correlated {
    fn name(&self) -> &str {
        "correlated_by_computed"
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
        config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        let names = config.alias_generator();
        // A subquery behind LATERAL.
        if let LogicalPlan::Subquery(subquery) = &plan {
            let done = matched_within(subquery, names)?;
            return Ok(done.update_data(LogicalPlan::Subquery));
        }
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
                    Ok(matched_within(&subquery, names)?.update_data(Expr::ScalarSubquery))
                }
                expr => Ok(Transformed::no(expr)),
            })
        })
    }
}

fn is_correlated(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarSubquery(subquery) if !subquery.outer_ref_columns.is_empty())
}

fn matched_within(
    subquery: &Subquery,
    names: &Arc<AliasGenerator>,
) -> Result<Transformed<Subquery>> {
    let plan = subquery.subquery.as_ref();
    // Of rows that are not aggregated the engine's join compares what it may.
    let groups = plan.exists(|plan| Ok(matches!(plan, LogicalPlan::Aggregate(_))))?;
    let done = plan.clone().transform_down(|plan| matched(plan, groups, names))?;
    Ok(done.update_data(|plan| subquery.with_plan(plan.into())))
}

/// A filter whose conditions of that kind are comparisons by `=`, of columns that a step below adds.
fn matched(
    plan: LogicalPlan,
    groups: bool,
    names: &Arc<AliasGenerator>,
) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Filter(Filter { predicate, input, .. }) = &plan else {
        return Ok(Transformed::no(plan));
    };
    let (mut keys, mut conditions) = (Vec::new(), Vec::new());
    let mut compare = |key: Expr, sought: Expr| {
        // No column of a statement's is called so. Steps above it see those of several filters.
        let name = names.next("\u{2}key");
        keys.push(key.alias(&name));
        Expr::Column(Column::from_name(name)).eq(sought)
    };
    for condition in split_conjunction_owned(predicate.clone()) {
        if let Some((inner, outer)) = sides(&condition, Operator::IsNotDistinctFrom) {
            let Ok(value) = ScalarValue::new_default(&inner.get_type(input.schema())?) else {
                return Ok(Transformed::no(plan));
            };
            conditions.push(compare(inner.clone().is_null(), outer.clone().is_null()));
            conditions.push(compare(or(inner, &value), or(outer, &value)));
        } else if groups
            && let Some((inner, outer)) = sides(&condition, Operator::Eq)
            && is_computed(&inner)
        {
            conditions.push(compare(inner, outer));
        } else {
            conditions.push(condition);
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

/// What an operator compares: something of the subquery's own, and of the outer query alone.
fn sides(condition: &Expr, by: Operator) -> Option<(Expr, Expr)> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = condition else { return None };
    let is_outer = |side: &Expr| side.contains_outer() && !side.any_column_refs();
    match (is_outer(left), is_outer(right)) {
        _ if *op != by => None,
        (false, true) if !left.contains_outer() => Some((*left.clone(), *right.clone())),
        (true, false) if !right.contains_outer() => Some((*right.clone(), *left.clone())),
        _ => None,
    }
}

/// Whether something of the subquery's own is no column, nor the cast of one, which the engine takes.
fn is_computed(expr: &Expr) -> bool {
    let taken = match expr {
        Expr::Cast(cast) => matches!(*cast.expr, Expr::Column(_)),
        expr => matches!(expr, Expr::Column(_)),
    };
    let has_subquery = |expr: &Expr| {
        matches!(expr, Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_))
    };
    !taken
        && expr.any_column_refs()
        && !expr.is_volatile()
        && !expr.exists(|expr| Ok(has_subquery(expr))).unwrap_or(true)
}

/// A value in the place of NULL.
fn or(expr: Expr, value: &ScalarValue) -> Expr {
    Expr::Case(Case {
        expr: None,
        when_then_expr: vec![(Box::new(expr.clone().is_null()), Box::new(lit(value.clone())))],
        else_expr: Some(Box::new(expr)),
    })
}
