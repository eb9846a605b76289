//! Calls that PostgreSQL refuses, where the engine counts rows by several values, or takes numbers for
//! texts.

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result, plan_err};
use datafusion::logical_expr::{Expr, ExprSchemable};

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
        Expr::ScalarFunction(function) => OF_TEXTS.contains(&function.func.name()),
        Expr::AggregateFunction(function) => {
            function.params.args.len() > 1 && function.func.name() == "count"
        }
        _ => false,
    }
}

/// # Errors
/// There is no such function for arguments of these types.
pub(super) fn check(expr: &Expr, schema: &DFSchema) -> Result<()> {
    let (name, args) = match expr {
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
