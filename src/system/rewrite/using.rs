//! `JOIN ... USING (k)`: what the column `k` is. The engine takes it for the left side's, and finds
//! it ambiguous in WHERE.

use std::collections::HashMap;
use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, GroupByExpr, Ident, Join, JoinConstraint, JoinOperator, Query, Select, SelectItem,
    TableFactor, TableWithJoins, VisitorMut,
};

use super::build::{call, normal};
use crate::engine::visit::visit_mut;

/// Names the side, or both, that the merged columns of a SELECT's joins come from.
pub fn rewrite(select: &mut Select) {
    let mut columns = HashMap::new();
    let mut other_sides = false;
    for table in &select.from {
        other_sides |= merge(table, &mut columns);
    }
    if columns.is_empty() {
        return;
    }
    let mut merged = Merged { columns, depth: 0 };
    if let Some(condition) = &mut select.selection {
        let _ = visit_mut(condition, &mut merged);
    }
    if !other_sides {
        return;
    }
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(Expr::Identifier(name)) = item {
            let (name, expr) = (name.clone(), Expr::Identifier(name.clone()));
            *item = SelectItem::ExprWithAlias { expr, alias: name };
        }
        if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
            let _ = visit_mut(expr, &mut merged);
        }
    }
    if let GroupByExpr::Expressions(keys, _) = &mut select.group_by {
        for key in keys {
            let _ = visit_mut(key, &mut merged);
        }
    }
    if let Some(condition) = &mut select.having {
        let _ = visit_mut(condition, &mut merged);
    }
}

/// Adds the columns that the joins of a table merge. Returns whether any is not the left side's.
fn merge(table: &TableWithJoins, columns: &mut HashMap<String, Expr>) -> bool {
    let mut other_sides = false;
    // The side of a column is known as long as there is one table, or once it is merged.
    let mut single = name(&table.relation);
    for Join { relation, join_operator, .. } in &table.joins {
        let right = name(relation);
        if let Some((names, kind)) = used(join_operator) {
            for column in names.iter().filter_map(|name| name.0.last()?.as_ident()) {
                let of =
                    |table: &Ident| Expr::CompoundIdentifier(vec![table.clone(), column.clone()]);
                let known = columns.get(&normal(column)).cloned();
                let left = known.or_else(|| single.as_ref().map(of));
                let (left, right) = (left, right.as_ref().map(of));
                let value = match kind {
                    // Both are the same.
                    Kind::Inner | Kind::Right => right,
                    Kind::Left => left,
                    Kind::Full => {
                        left.zip(right).map(|(left, right)| call("coalesce", vec![left, right]))
                    }
                };
                other_sides |= matches!(kind, Kind::Right | Kind::Full);
                if let Some(value) = value {
                    columns.insert(normal(column), value);
                }
            }
        }
        single = None;
    }
    other_sides
}

#[derive(Clone, Copy)]
enum Kind {
    Inner,
    Left,
    Right,
    Full,
}

fn used(operator: &JoinOperator) -> Option<(&[sqlparser::ast::ObjectName], Kind)> {
    let (constraint, kind) = match operator {
        JoinOperator::Join(constraint) | JoinOperator::Inner(constraint) => {
            (constraint, Kind::Inner)
        }
        JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => {
            (constraint, Kind::Left)
        }
        JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint) => {
            (constraint, Kind::Right)
        }
        JoinOperator::FullOuter(constraint) => (constraint, Kind::Full),
        _ => return None,
    };
    match constraint {
        JoinConstraint::Using(names) => Some((names, kind)),
        _ => None,
    }
}

/// What a table is called in the statement.
fn name(factor: &TableFactor) -> Option<Ident> {
    match factor {
        TableFactor::Table { alias: Some(alias), .. }
        | TableFactor::Derived { alias: Some(alias), .. } => Some(alias.name.clone()),
        TableFactor::Table { name, alias: None, args: None, .. } => {
            name.0.last()?.as_ident().cloned()
        }
        _ => None,
    }
}

/// Puts the values of merged columns in the place of their names; not within subqueries, which may
/// have columns of these names.
struct Merged {
    columns: HashMap<String, Expr>,
    depth: usize,
}

impl VisitorMut for Merged {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.depth == 0
            && let Expr::Identifier(name) = expr
            && let Some(value) = self.columns.get(&normal(name))
        {
            *expr = value.clone();
        }
        ControlFlow::Continue(())
    }
}
