//! Conditions of joins that have subqueries, or refer to the query around: the engine knows both in WHERE
//! alone. For what an inner join keeps it is the same.
//!
//! In WHERE all of FROM is seen, in a condition only the relations up to its join. So a column without its
//! relation's name is ambiguous there (42702) if a relation behind the join has one of that name; and if no
//! relation before has, but the query around does, it is taken for the later relation's. Which columns
//! relations have is not known here; whoever writes the relation's name gets what PostgreSQL gives.

use std::collections::HashSet;
use std::ops::ControlFlow;

use sqlparser::ast::{
    BinaryOperator, Expr, Join, JoinConstraint, JoinOperator, Select, TableFactor, TableWithJoins,
    Visitor,
};

use super::build::{boolean, normal};
use crate::engine::visit::{has_subquery, visit, visit_expressions};

/// Moves such conditions to WHERE.
pub fn to_where(select: &mut Select) {
    let mut moved = Vec::new();
    let may_move = |join: &Join| on(&join.join_operator).is_some();
    if !select.from.iter().flat_map(|table| &table.joins).any(may_move) {
        return;
    }
    let own = relations(&select.from);
    for TableWithJoins { joins, .. } in &mut select.from {
        // Behind it stand only joins that keep the left side's rows, or take some of them away.
        for join in joins.iter_mut().rev() {
            match &mut join.join_operator {
                JoinOperator::Join(JoinConstraint::On(condition))
                | JoinOperator::Inner(JoinConstraint::On(condition)) => {
                    take_out(condition, &own, &mut moved);
                }
                JoinOperator::Join(_)
                | JoinOperator::Inner(_)
                | JoinOperator::Left(_)
                | JoinOperator::LeftOuter(_)
                | JoinOperator::CrossJoin(_) => {}
                _ => break,
            }
        }
    }
    for condition in moved {
        select.selection = Some(match select.selection.take() {
            Some(own) => both(condition, own),
            None => condition,
        });
    }
}

fn on(operator: &JoinOperator) -> Option<&Expr> {
    match operator {
        JoinOperator::Join(JoinConstraint::On(condition))
        | JoinOperator::Inner(JoinConstraint::On(condition)) => Some(condition),
        _ => None,
    }
}

/// Takes those parts out of a condition that the engine does not know there.
fn take_out(condition: &mut Expr, own: &HashSet<String>, moved: &mut Vec<Expr>) {
    match condition {
        Expr::Nested(inner) => take_out(inner, own, moved),
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            take_out(left, own, moved);
            take_out(right, own, moved);
        }
        other if has_subquery(other) || refers_out(other, own) => {
            moved.push(std::mem::replace(other, boolean(true)));
        }
        _ => {}
    }
}

fn refers_out(expr: &Expr, own: &HashSet<String>) -> bool {
    let mut found = false;
    visit_expressions(expr, |expr| {
        if let Expr::CompoundIdentifier(parts) = expr
            && let [.., relation, _] = parts.as_slice()
        {
            found |= !own.contains(&normal(relation));
        }
    });
    found
}

fn both(left: Expr, right: Expr) -> Expr {
    let nested = |expr: Expr| Box::new(Expr::Nested(Box::new(expr)));
    Expr::BinaryOp { left: nested(left), op: BinaryOperator::And, right: nested(right) }
}

/// The names of all relations in FROM, those within subqueries there as well.
fn relations(from: &[TableWithJoins]) -> HashSet<String> {
    struct Find(HashSet<String>);
    impl Visitor for Find {
        type Break = ();

        fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
            let (alias, name) = match factor {
                TableFactor::Table { alias, name, .. }
                | TableFactor::Function { alias, name, .. } => (alias, name.0.last()),
                TableFactor::Derived { alias, .. }
                | TableFactor::UNNEST { alias, .. }
                | TableFactor::TableFunction { alias, .. }
                | TableFactor::NestedJoin { alias, .. } => (alias, None),
                _ => return ControlFlow::Continue(()),
            };
            let own = name.and_then(|part| part.as_ident());
            self.0.extend(alias.as_ref().map(|alias| &alias.name).or(own).map(normal));
            ControlFlow::Continue(())
        }
    }
    let mut find = Find(HashSet::new());
    for table in from {
        let _ = visit(table, &mut find);
    }
    find.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_joins_do_not_know_goes_to_where() {
        for (text, seen) in [
            (
                "SELECT 1 FROM a JOIN b ON a.x = b.x AND EXISTS (SELECT 1) WHERE a.y",
                "SELECT 1 FROM a JOIN b ON a.x = b.x AND true WHERE (EXISTS (SELECT 1)) AND (a.y)",
            ),
            (
                "SELECT 1 FROM a JOIN s.b ON (a.x = c.x) LEFT JOIN d ON a.x = c.x",
                "SELECT 1 FROM a JOIN s.b ON (true) LEFT JOIN d ON a.x = c.x WHERE a.x = c.x",
            ),
            (
                "SELECT 1 FROM a JOIN b ON a.x = c.x FULL JOIN d ON a.x = d.x",
                "SELECT 1 FROM a JOIN b ON a.x = c.x FULL JOIN d ON a.x = d.x",
            ),
            (
                "SELECT 1 FROM a AS x JOIN b ON x.y = b.y",
                "SELECT 1 FROM a AS x JOIN b ON x.y = b.y",
            ),
        ] {
            let parsed = crate::engine::parse_one(text).expect(text);
            let Some(sqlparser::ast::Statement::Query(query)) = parsed.sql() else {
                panic!("{text}")
            };
            let mut query = query.clone();
            if let sqlparser::ast::SetExpr::Select(select) = query.body.as_mut() {
                to_where(select);
            }
            assert_eq!(query.to_string(), seen);
        }
    }
}
