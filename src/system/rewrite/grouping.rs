//! What rows are grouped by, and the conditions that they have to meet.

use sqlparser::ast::{
    DataType, Expr, GroupByExpr, JoinConstraint, JoinOperator, Select, SelectItem, Value,
};

use super::build::{arguments, as_text, cast, function_name, take};

/// In grouping sets, as elsewhere, a number is a column of the SELECT's list.
pub fn by_number(select: &mut Select) {
    let GroupByExpr::Expressions(keys, _) = &mut select.group_by else { return };
    for key in keys {
        let (Expr::GroupingSets(sets) | Expr::Cube(sets) | Expr::Rollup(sets)) = key else {
            continue;
        };
        for expr in sets.iter_mut().flatten() {
            if let Some(item) = numbered(expr, &select.projection) {
                *expr = item;
            }
        }
    }
}

/// ROLLUP and CUBE among grouping sets, and those that have an expression twice, as the sets that they stand for.
pub fn flat_sets(select: &mut Select) {
    let GroupByExpr::Expressions(keys, _) = &mut select.group_by else { return };
    for key in keys {
        let sets = match key {
            Expr::GroupingSets(sets) => {
                std::mem::take(sets).into_iter().flat_map(sets_of).collect()
            }
            Expr::Rollup(parts) if parts.len() <= MOST_ROLLED_UP && has_twice(parts) => {
                rolled_up(parts)
            }
            Expr::Cube(parts) if parts.len() <= MOST_CUBED && has_twice(parts) => cubed(parts),
            _ => continue,
        };
        *key = Expr::GroupingSets(sets.into_iter().map(once).collect());
    }
}

/// More than these are too many to be written down.
const MOST_CUBED: usize = 10;
const MOST_ROLLED_UP: usize = 64;

fn sets_of(set: Vec<Expr>) -> Vec<Vec<Expr>> {
    let [Expr::Function(function)] = set.as_slice() else { return vec![set] };
    let (Some(name), Some(parts)) =
        (function_name(function), arguments(&mut function.clone()).map(own))
    else {
        return vec![set];
    };
    match name.as_str() {
        "rollup" if parts.len() <= MOST_ROLLED_UP => rolled_up(&parts),
        "cube" if parts.len() <= MOST_CUBED => cubed(&parts),
        _ => vec![set],
    }
}

fn has_twice(parts: &[Vec<Expr>]) -> bool {
    let exprs: Vec<&Expr> = parts.iter().flatten().collect();
    exprs.iter().enumerate().any(|(at, expr)| exprs[..at].contains(expr))
}

fn rolled_up(parts: &[Vec<Expr>]) -> Vec<Vec<Expr>> {
    (0..=parts.len()).rev().map(|count| parts[..count].concat()).collect()
}

fn cubed(parts: &[Vec<Expr>]) -> Vec<Vec<Expr>> {
    let chosen = |bits: u32| -> Vec<Expr> {
        let has = |at: &usize| bits & (1 << (parts.len() - 1 - at)) != 0;
        (0..parts.len()).filter(has).flat_map(|at| parts[at].clone()).collect()
    };
    (0..1 << parts.len()).rev().map(chosen).collect()
}

/// A set in which each expression stands once, unless it is a long one.
fn once(set: Vec<Expr>) -> Vec<Expr> {
    if set.len() > MOST_ROLLED_UP {
        return set;
    }
    let mut found = Vec::with_capacity(set.len());
    for expr in set {
        if !found.contains(&expr) {
            found.push(expr);
        }
    }
    found
}

/// What each argument groups by: several together in brackets.
fn own(args: Vec<&mut Expr>) -> Vec<Vec<Expr>> {
    let parts = |arg: &mut Expr| match take(arg) {
        Expr::Tuple(parts) => parts,
        Expr::Nested(part) => vec![*part],
        part => vec![part],
    };
    args.into_iter().map(parts).collect()
}

fn numbered(expr: &Expr, items: &[SelectItem]) -> Option<Expr> {
    let Expr::Value(value) = expr else { return None };
    let Value::Number(number, _) = &value.value else { return None };
    let at = number.parse::<usize>().ok()?.checked_sub(1)?;
    // A star stands for columns that are not known yet.
    let items = items.get(..=at)?;
    let own = |item: &SelectItem| match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => {
            Some(expr.clone())
        }
        _ => None,
    };
    items.iter().map(own).collect::<Option<Vec<_>>>()?.pop()
}

/// A text in quotes that is a condition is read as a truth value.
pub fn conditions(select: &mut Select) {
    let having = select.having.iter_mut();
    select.selection.iter_mut().chain(having).for_each(truth);
    let joins = select.from.iter_mut().flat_map(|table| &mut table.joins);
    for join in joins {
        let (JoinOperator::Join(how)
        | JoinOperator::Inner(how)
        | JoinOperator::Left(how)
        | JoinOperator::LeftOuter(how)
        | JoinOperator::Right(how)
        | JoinOperator::RightOuter(how)
        | JoinOperator::FullOuter(how)) = &mut join.join_operator
        else {
            continue;
        };
        if let JoinConstraint::On(condition) = how {
            truth(condition);
        }
    }
}

fn truth(condition: &mut Expr) {
    if as_text(condition).is_some() {
        *condition = cast(take(condition), DataType::Boolean);
    }
}
