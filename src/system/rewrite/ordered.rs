//! Aggregates of sorted values by lists that are sorted afterwards.

use sqlparser::ast::{
    BinaryOperator, DuplicateTreatment, Expr, Function, FunctionArgumentClause, FunctionArguments,
    Ident, ObjectName, OrderByExpr, Value,
};

use super::build::{arguments, boolean, call, has_aggregate, number, take, text};
use super::dialect::{array_agg, label_casts};

/// ORDER BY among an aggregate's arguments, where a number is none of a column: it changes nothing.
pub fn without_numbers(function: &mut Function) {
    let FunctionArguments::List(list) = &mut function.args else { return };
    let is_number = |key: &OrderByExpr| matches!(&key.expr, Expr::Value(value) if matches!(value.value, Value::Number(..)));
    list.clauses.retain_mut(|clause| match clause {
        FunctionArgumentClause::OrderBy(keys) => {
            keys.retain(|key| !is_number(key));
            !keys.is_empty()
        }
        _ => true,
    });
}

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
    Some(call("array_at_fraction", vec![sorted(function.filter.take(), order), fraction]))
}

/// `mode() WITHIN GROUP (ORDER BY x)`: the value that is there most often, the first of several in that order.
pub fn mode(function: &mut Function) -> Option<Expr> {
    let [order] = function.within_group.as_slice() else { return None };
    let order = order.clone();
    if function.over.is_some() || is_distinct(function) || !arguments(function)?.is_empty() {
        return None;
    }
    Some(call("array_most_frequent", vec![sorted(function.filter.take(), order)]))
}

/// `percentile_cont(ARRAY[0.25, 0.5]) WITHIN GROUP (ORDER BY x)` as one call for each; `None` if it is one.
pub fn one_by_one(function: &mut Function) -> Option<Vec<Expr>> {
    let fractions = match arguments(function)?.as_mut_slice() {
        [Expr::Array(fractions)] => std::mem::take(&mut fractions.elem),
        _ => return None,
    };
    let each = fractions.into_iter().map(|fraction| {
        let mut one = function.clone();
        if let Some([only]) = arguments(&mut one).as_deref_mut() {
            **only = fraction;
        }
        Expr::Function(one)
    });
    Some(each.collect())
}

/// Whether an aggregate of sorted values has any.
pub fn has_values(function: &Function) -> Option<Expr> {
    let [order] = function.within_group.as_slice() else { return None };
    let mut count = super::build::function("count", vec![order.expr.clone()]);
    count.filter.clone_from(&function.filter);
    let (left, op) = (Box::new(Expr::Function(count)), BinaryOperator::Gt);
    Some(Expr::BinaryOp { left, op, right: Box::new(number(0)) })
}

/// An aggregate's values in their order, those alone that are known.
fn sorted(filter: Option<Box<Expr>>, order: OrderByExpr) -> Expr {
    let filter = of_known(filter, &order.expr);
    let mut values = array_agg(order.expr, Vec::new());
    if let Expr::Function(values) = &mut values {
        values.filter = Some(filter);
        label_casts(values);
    }
    let down = boolean(order.options.asc == Some(false));
    call("array_in_order", vec![values, down])
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
