//! Calls that PostgreSQL refuses, where the engine counts rows by several values, or takes numbers for
//! texts.

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result, not_impl_err, plan_err};
use datafusion::logical_expr::{Expr, ExprSchemable};

use super::json_types::json_of;
use super::members;
use super::operators::{is_constant_text, no_operator};
use crate::values::types::is_text;

/// Functions whose first argument is a text, and may be bytes, as the engine calls them.
const OF_TEXTS: &[&str] = &[
    "bit_length",
    "character_length",
    "left",
    "lpad",
    "octet_length",
    "reverse",
    "right",
    "rpad",
    "translate",
];

/// Whether an expression is one that [`check`] looks at.
pub(super) fn may_have(expr: &Expr) -> bool {
    match expr {
        Expr::ScalarFunction(function) => {
            let name = function.func.name();
            OF_TEXTS.contains(&name) || name == members::NAME
        }
        Expr::AggregateFunction(function) => {
            function.params.args.len() > 1 && function.func.name() == "count"
        }
        Expr::InList(_) | Expr::Between(_) => true,
        _ => false,
    }
}

/// Refuses a text among numbers, and a number among texts: see [`super::operators`].
fn compared(one: &Expr, op: &str, others: &[&Expr], schema: &DFSchema) -> Result<()> {
    let kind = |expr: &Expr| match is_constant_text(expr) || matches!(expr, Expr::Placeholder(_)) {
        true => None,
        false => expr.get_type(schema).ok(),
    };
    let Some(one) = kind(one) else { return Ok(()) };
    let differ = |other: &DataType| {
        is_text(&one) && other.is_numeric() || one.is_numeric() && is_text(other)
    };
    match others.iter().filter_map(|other| kind(other)).find(differ) {
        Some(other) => no_operator(&one, op, &other),
        None => Ok(()),
    }
}

/// # Errors
/// There is no such function for arguments of these types.
pub(super) fn check(expr: &Expr, schema: &DFSchema) -> Result<()> {
    let (name, args) = match expr {
        Expr::ScalarFunction(function)
            if function.func.name() == members::NAME
                && function.args.iter().any(|arg| json_of(arg, schema).is_some()) =>
        {
            return not_impl_err!(
                "= ANY and <> ALL do not take arrays of json or jsonb: use IN, or = ANY (SELECT unnest(...))"
            );
        }
        Expr::InList(list) => {
            let items: Vec<&Expr> = list.list.iter().collect();
            return compared(&list.expr, "=", &items, schema);
        }
        Expr::Between(range) => {
            compared(&range.expr, ">=", &[&range.low], schema)?;
            return compared(&range.expr, "<=", &[&range.high], schema);
        }
        Expr::ScalarFunction(function) if may_have(expr) => {
            let first = function.args.first().and_then(|first| first.get_type(schema).ok());
            let wrong = first.is_some_and(|kind| {
                kind.is_numeric() || kind.is_temporal() || kind == DataType::Boolean
            });
            if !wrong {
                return Ok(());
            }
            (function.func.name(), &function.args)
        }
        Expr::AggregateFunction(function) if may_have(expr) => {
            (function.func.name(), &function.params.args)
        }
        _ => return Ok(()),
    };
    let types = args.iter().map(|arg| arg.get_type(schema).map(|kind| kind.to_string()));
    let types = types.collect::<Result<Vec<_>>>()?.join(", ");
    plan_err!(
        "No function matches the given name and argument types '{name}({types})'. You might need to add \
         explicit type casts."
    )
}
