//! Where a truth value has to stand, another is refused, as PostgreSQL does; the engine takes numbers for
//! truths in some places, and texts in none.

use arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result, plan_err};
use datafusion::logical_expr::expr::{AggregateFunction, Case};
use datafusion::logical_expr::{Expr, ExprSchemable, cast};

use crate::values::types::{is_text, pg_type, sql_name};

/// Whether an expression is one that [`settled`] looks at beside those of which types may be mixed.
pub(super) fn may_have(expr: &Expr) -> bool {
    match expr {
        Expr::Case(case) => case.expr.is_none(),
        Expr::AggregateFunction(function) => function.params.filter.is_some(),
        _ => false,
    }
}

/// The conditions of CASE and FILTER.
pub(super) fn settled(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    Ok(match expr {
        Expr::Case(Case { expr: None, when_then_expr, else_expr }) => {
            let mut changed = false;
            let cases = when_then_expr.into_iter().map(|(when, then)| {
                let when = truth(*when, "CASE/WHEN", schema)?;
                changed |= when.transformed;
                Ok((Box::new(when.data), then))
            });
            let when_then_expr = cases.collect::<Result<_>>()?;
            let case = Expr::Case(Case { expr: None, when_then_expr, else_expr });
            Transformed::new_transformed(case, changed)
        }
        Expr::AggregateFunction(AggregateFunction { func, mut params }) => {
            let mut changed = false;
            if let Some(condition) = params.filter.take() {
                let condition = truth(*condition, "FILTER", schema)?;
                changed = condition.transformed;
                params.filter = Some(Box::new(condition.data));
            }
            let call = Expr::AggregateFunction(AggregateFunction { func, params });
            Transformed::new_transformed(call, changed)
        }
        other => Transformed::no(other),
    })
}

/// What stands in the place of a truth value, read as one if it is a text in quotes, or a parameter.
///
/// # Errors
/// It is of another type.
pub(super) fn truth(expr: Expr, place: &str, schema: &DFSchema) -> Result<Transformed<Expr>> {
    // What has no type yet, such as a parameter, gets the engine's.
    let Ok(kind) = expr.get_type(schema) else { return Ok(Transformed::no(expr)) };
    match kind {
        DataType::Boolean | DataType::Null => Ok(Transformed::no(expr)),
        kind if is_text(&kind) && matches!(expr, Expr::Literal(..) | Expr::Placeholder(_)) => {
            Ok(Transformed::yes(cast(expr, DataType::Boolean)))
        }
        kind => {
            let own = pg_type(&Field::new("", kind, true));
            plan_err!("argument of {place} must be type boolean, not type {}", sql_name(own.name()))
        }
    }
}
