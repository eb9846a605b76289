//! Where a truth value has to stand, another is refused, as PostgreSQL does; the engine takes numbers for
//! truths in some places, and texts in none. And `concat` writes truth values as a result has them, not as a cast
//! makes a text of them.

use arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result, plan_err};
use datafusion::logical_expr::expr::{AggregateFunction, Case, ScalarFunction};
use datafusion::logical_expr::{Expr, ExprSchemable, cast, lit};

use crate::values::types::{is_text, pg_type, sql_name};

/// Whether an expression is one that [`settled`] looks at beside those of which types may be mixed.
pub(super) fn may_have(expr: &Expr) -> bool {
    match expr {
        Expr::Case(case) => case.expr.is_none(),
        Expr::AggregateFunction(function) => function.params.filter.is_some(),
        Expr::ScalarFunction(function) => writes(function),
        _ => false,
    }
}

/// The conditions of CASE and FILTER, and what is written.
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
        Expr::ScalarFunction(function) if writes(&function) => written(function, schema),
        other => Transformed::no(other),
    })
}

fn writes(function: &ScalarFunction) -> bool {
    matches!(function.func.name(), "concat" | "concat_ws")
}

/// Truth values are `t` and `f` there.
fn written(mut function: ScalarFunction, schema: &DFSchema) -> Transformed<Expr> {
    let mut changed = false;
    for arg in &mut function.args {
        if arg.get_type(schema).is_ok_and(|kind| kind == DataType::Boolean) {
            let truth = std::mem::take(arg);
            let letter = |when: Expr, letter: &str| (Box::new(when), Box::new(lit(letter)));
            let cases = vec![letter(truth.clone(), "t"), letter(!truth, "f")];
            *arg = Expr::Case(Case { expr: None, when_then_expr: cases, else_expr: None });
            changed = true;
        }
    }
    Transformed::new_transformed(Expr::ScalarFunction(function), changed)
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
