//! What rows are grouped by, and the conditions that they have to meet.

use sqlparser::ast::{
    DataType, Expr, GroupByExpr, JoinConstraint, JoinOperator, Select, SelectItem, Value,
};

use super::build::{as_text, cast, take};

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
