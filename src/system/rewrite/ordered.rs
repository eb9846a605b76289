//! Aggregates of sorted values by lists that are sorted afterwards.

use sqlparser::ast::{
    BinaryOperator, DuplicateTreatment, Expr, Function, FunctionArguments, Ident, ObjectName,
};

use super::build::{arguments, boolean, call, has_aggregate, take, text};
use super::dialect::{array_agg, label_casts};

/// `percentile_disc(0.5) WITHIN GROUP (ORDER BY x)`: of all values in that order the first by which so many
/// have come. `None` for other forms of it, which are refused.
pub fn percentile(function: &mut Function) -> Option<Expr> {
    let [order] = function.within_group.as_slice() else { return None };
    if function.over.is_some() || is_distinct(function) {
        return None;
    }
    let order = order.clone();
    let [fraction]: [&mut Expr; 1] = arguments(function)?.try_into().ok()?;
    if has_aggregate(fraction) {
        return None;
    }
    let fraction = take(fraction);
    let filter = of_known(function.filter.take(), &order.expr);
    let mut values = array_agg(order.expr, Vec::new());
    if let Expr::Function(values) = &mut values {
        values.filter = Some(filter);
        label_casts(values);
    }
    let down = boolean(order.options.asc == Some(false));
    let sorted = call("array_in_order", vec![values, down]);
    Some(call("array_at_fraction", vec![sorted, fraction]))
}

/// A filter that lets pass the rows that have a value alone.
fn of_known(filter: Option<Box<Expr>>, value: &Expr) -> Box<Expr> {
    let nested = |expr: Expr| Box::new(Expr::Nested(Box::new(expr)));
    let known = Expr::IsNotNull(nested(value.clone()));
    Box::new(match filter {
        Some(filter) => {
            let op = BinaryOperator::And;
            Expr::BinaryOp { left: nested(*filter), op, right: Box::new(known) }
        }
        None => known,
    })
}

fn is_distinct(function: &Function) -> bool {
    matches!(&function.args, FunctionArguments::List(list)
        if list.duplicate_treatment == Some(DuplicateTreatment::Distinct))
}

/// Values that differ are sorted by PostgreSQL to find them, and come so if no other order is asked for.
pub fn distinct(function: &mut Function, name: &str) -> Option<Expr> {
    let FunctionArguments::List(list) = &function.args else { return None };
    let plain = list.clauses.is_empty() && function.over.is_none();
    if !plain || !is_distinct(function) {
        return None;
    }
    let in_order =
        |values: Function| call("array_in_order", vec![Expr::Function(values), boolean(false)]);
    let args: Vec<Expr> = arguments(function)?.into_iter().map(|arg| arg.clone()).collect();
    match (name, args.as_slice()) {
        ("array_agg", [_]) => Some(in_order(function.clone())),
        ("string_agg", [value, separator]) => {
            let mut values = function.clone();
            if let FunctionArguments::List(list) = &mut values.args {
                list.args.truncate(1);
            }
            values.name = ObjectName::from(vec![Ident::new("array_agg")]);
            values.filter = Some(of_known(values.filter.take(), value));
            let separator = call("coalesce", vec![separator.clone(), text("")]);
            Some(call("array_to_string", vec![in_order(values), separator]))
        }
        _ => None,
    }
}
