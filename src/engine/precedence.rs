//! Operators that the SQL parser lets bind otherwise than PostgreSQL: what stands behind IS [NOT] DISTINCT
//! FROM ends at AND and OR, where the parser takes all of it, and a minus belongs to the number behind it
//! before that is raised to a power. What stands in brackets is left alone.
//!
//! Source: PostgreSQL's documentation, "Operator Precedence".

use std::ops::ControlFlow;

use datafusion::sql::parser::Statement as EngineStatement;
use sqlparser::ast::{BinaryOperator, Expr, UnaryOperator, VisitorMut};

use super::as_of;
use super::visit::visit_mut;

/// Puts a statement's expressions right, of which `text` is the text.
pub(super) fn settle(statement: &mut EngineStatement, text: &str) {
    let has = |word: &str| {
        text.as_bytes().windows(word.len()).any(|part| part.eq_ignore_ascii_case(word.as_bytes()))
    };
    // Few statements need a second look.
    if !has("distinct") && !has("^") {
        return;
    }
    if let Some(statement) = as_of::sql(statement) {
        let _ = visit_mut(statement, &mut Settle);
    }
}

struct Settle;

impl VisitorMut for Settle {
    type Break = ();

    // What is within is right by then.
    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let looser: fn(&BinaryOperator) -> bool = match expr {
            Expr::IsDistinctFrom(..) | Expr::IsNotDistinctFrom(..) => is_and_or,
            Expr::UnaryOp { op: UnaryOperator::Not, .. } => is_and_or,
            Expr::BinaryOp { op: BinaryOperator::And, .. } => |op| *op == BinaryOperator::Or,
            Expr::UnaryOp { op: UnaryOperator::Minus, .. } => |op| *op == BinaryOperator::PGExp,
            _ => return ControlFlow::Continue(()),
        };
        let Some(last) = last_operand(expr) else { return ControlFlow::Continue(()) };
        if !is_of(last, looser) {
            return ControlFlow::Continue(());
        }
        let operand = std::mem::replace(last, nothing());
        let mut around = std::mem::replace(expr, nothing());
        let first = |first| {
            if let Some(place) = last_operand(&mut around) {
                *place = first;
            }
            around
        };
        *expr = with_first(operand, looser, first);
        ControlFlow::Continue(())
    }
}

fn is_and_or(op: &BinaryOperator) -> bool {
    matches!(op, BinaryOperator::And | BinaryOperator::Or)
}

fn nothing() -> Expr {
    Expr::Wildcard(sqlparser::ast::helpers::attached_token::AttachedToken::empty())
}

fn last_operand(expr: &mut Expr) -> Option<&mut Expr> {
    match expr {
        Expr::IsDistinctFrom(_, last) | Expr::IsNotDistinctFrom(_, last) => Some(last),
        Expr::UnaryOp { expr: last, .. } | Expr::BinaryOp { right: last, .. } => Some(last),
        _ => None,
    }
}

fn is_of(expr: &Expr, looser: fn(&BinaryOperator) -> bool) -> bool {
    matches!(expr, Expr::BinaryOp { op, .. } if looser(op))
}

/// The expression, of which the first operand of all its looser operators has become another.
fn with_first(
    expr: Expr,
    looser: fn(&BinaryOperator) -> bool,
    change: impl FnOnce(Expr) -> Expr,
) -> Expr {
    let mut expr = expr;
    let mut place = &mut expr;
    while is_of(place, looser) {
        match place {
            Expr::BinaryOp { left, .. } => place = left,
            _ => break,
        }
    }
    let first = std::mem::replace(place, nothing());
    *place = change(first);
    expr
}

#[cfg(test)]
mod tests {
    use sqlparser::ast::Statement;

    use super::*;
    use crate::engine::parse_one;

    struct WithoutBrackets;

    impl VisitorMut for WithoutBrackets {
        type Break = ();

        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            if let Expr::Nested(inner) = expr {
                *expr = std::mem::replace(inner, nothing());
            }
            ControlFlow::Continue(())
        }
    }

    fn parsed(condition: &str) -> Statement {
        let parsed = parse_one(&format!("SELECT 1 WHERE {condition}")).expect(condition);
        let mut statement = parsed.sql().expect("SQL").clone();
        let _ = visit_mut(&mut statement, &mut WithoutBrackets);
        statement
    }

    #[test]
    fn operators_bind_as_in_postgresql() {
        for (text, bracketed) in [
            ("a IS DISTINCT FROM b AND c", "(a IS DISTINCT FROM b) AND c"),
            ("a IS NOT DISTINCT FROM b OR c AND d", "(a IS NOT DISTINCT FROM b) OR (c AND d)"),
            ("p AND a IS DISTINCT FROM b OR c", "(p AND (a IS DISTINCT FROM b)) OR c"),
            ("p OR a IS DISTINCT FROM b AND c", "p OR ((a IS DISTINCT FROM b) AND c)"),
            ("NOT a IS DISTINCT FROM b AND c", "(NOT (a IS DISTINCT FROM b)) AND c"),
            (
                "a IS DISTINCT FROM b AND c IS DISTINCT FROM d OR e AND f",
                "((a IS DISTINCT FROM b) AND (c IS DISTINCT FROM d)) OR (e AND f)",
            ),
            ("a IS DISTINCT FROM b = c AND d", "(a IS DISTINCT FROM (b = c)) AND d"),
            ("a IS DISTINCT FROM b + 1 AND d", "(a IS DISTINCT FROM (b + 1)) AND d"),
            ("-a ^ b ^ c > 1", "(((-a) ^ b) ^ c) > 1"),
            ("-a ^ 2 * b > 1", "(((-a) ^ 2) * b) > 1"),
        ] {
            assert_eq!(parsed(text), parsed(bracketed), "{text}");
        }
        let kept = parse_one("SELECT a IS DISTINCT FROM (b AND c), -(a ^ b)").expect("SQL");
        let written = kept.sql().expect("SQL").to_string();
        assert_eq!(written, "SELECT a IS DISTINCT FROM (b AND c), -(a ^ b)");
    }
}
