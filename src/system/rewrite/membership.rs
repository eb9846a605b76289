//! Values compared with those of a subquery or an array, where the engine's answer may be NULL as well.
//!
//! The engine finds the rows for which `x IN (SELECT ...)` is true, and for a condition that is all that
//! counts. Below NOT, IS NULL, CASE and the like, and in a SELECT's list, NULL and false are not the same:
//! there the subquery's rows are counted instead, those that are equal and those that are NULL. ANY and ALL
//! are answered by the least and the largest value.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::LazyLock;

use sqlparser::ast::helpers::attached_token::AttachedToken;
use sqlparser::ast::{
    BinaryOperator, CaseWhen, Expr, Ident, Query, Select, SelectItem, SetExpr, Statement,
    TableFactor, UnaryOperator, Visitor, VisitorMut,
};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

use super::build::{
    as_text, boolean, call, function_name, has_aggregate, is_aggregate, normal, null, number,
    single_item, take, text,
};
use super::dialect::{array_literal, is_plain};
use super::{factors, tuples};
use crate::engine::MEMBER;
use crate::engine::visit::{has_subquery, visit, visit_expressions, visit_mut};

/// The most that takes the place of an array's elements, counted in parts of expressions.
const MAX_PARTS: usize = 64;

/// In a SELECT's list all such subqueries are counted; in its conditions those whose answer may not be
/// NULL.
pub fn select(select: &mut Select) {
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
            count(expr);
        }
    }
    if let Some(condition) = &mut select.selection {
        settle(condition, true);
    }
    if let Some(condition) = &mut select.having {
        settle(condition, true);
    }
}

/// A condition, of which only those rows count for which it is true. `whole`: it has to hold, whatever
/// else does.
fn settle(condition: &mut Expr, whole: bool) {
    match condition {
        Expr::Nested(inner) => settle(inner, whole),
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            settle(left, whole);
            settle(right, whole);
        }
        Expr::BinaryOp { left, op: BinaryOperator::Or, right } => {
            settle(left, false);
            settle(right, false);
        }
        Expr::UnaryOp { op: UnaryOperator::Not, expr } => match within(expr) {
            Expr::InSubquery { negated, .. } => {
                *negated = !*negated;
                *condition = take(expr);
                settle(condition, whole);
            }
            Expr::Exists { .. } => {}
            _ => count(expr),
        },
        Expr::InSubquery { expr, subquery, negated } if tuples::row(expr).is_some() => {
            let values = tuples::row(expr).unwrap_or_default();
            let found = match negated {
                false => tuples::found(&values, subquery),
                true => tuples::possible(&values, subquery),
            };
            if let Some(found) = found {
                *condition = if *negated { not(found) } else { found };
            }
        }
        Expr::InSubquery { expr, negated: false, .. } => count(expr),
        Expr::InSubquery { expr, subquery, negated: true }
            if whole
                && is_column(expr)
                && single_item(subquery).is_none_or(is_column)
                && !refers_out(subquery) => {}
        Expr::Exists { .. } => {}
        other => count(other),
    }
}

/// `x IN (SELECT max(y) FROM ...)` is `x = (SELECT max(y) FROM ...)`: there is one row, whichever others are read.
pub fn of_one_row(expr: &mut Expr) {
    let Expr::InSubquery { expr: member, subquery, negated } = expr else { return };
    let SetExpr::Select(select) = subquery.body.as_ref() else { return };
    if tuples::row(member).is_some()
        || !is_plain(subquery, select)
        || !single_item(subquery).is_some_and(|item| has_aggregate(item) && !gives_rows(item))
    {
        return;
    }
    let op = if *negated { BinaryOperator::NotEq } else { BinaryOperator::Eq };
    let (left, right) = (take(member), Expr::Subquery(subquery.clone()));
    let (left, right) = (Box::new(Expr::Nested(Box::new(left))), Box::new(right));
    *expr = Expr::Nested(Box::new(Expr::BinaryOp { left, op, right }));
}

/// Whether an expression may be several rows of one.
fn gives_rows(expr: &Expr) -> bool {
    let mut found = false;
    visit_expressions(expr, |expr| {
        let Expr::Function(function) = expr else { return };
        let name = function_name(function).unwrap_or_default();
        found |= name == "generate_series" || name == "unnest" || factors::is_of_json(&name);
    });
    found
}

/// Whether an expression is a column. Of what may be a constant the engine makes a condition on the other
/// side, which hides the NULLs there.
fn is_column(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) => is_column(inner),
        other => matches!(other, Expr::Identifier(_) | Expr::CompoundIdentifier(_)),
    }
}

/// What stands in parentheses.
fn within(expr: &mut Expr) -> &mut Expr {
    match expr {
        Expr::Nested(inner) => within(inner),
        other => other,
    }
}

/// Counts what is compared with the rows of subqueries that stand in the expression itself.
fn count(expr: &mut Expr) {
    struct Members {
        depth: usize,
    }
    impl VisitorMut for Members {
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
                && let Expr::InSubquery { expr: member, subquery, negated } = &*expr
                && let Some(counted) = match tuples::row(member) {
                    Some(values) => tuples::counted(&values, subquery),
                    None => counted(member, subquery),
                }
            {
                *expr = if *negated { not(counted) } else { counted };
            }
            ControlFlow::Continue(())
        }
    }
    let _ = visit_mut(expr, &mut Members { depth: 0 });
}

/// `x IN (SELECT ...)` by how many rows are equal to `x`, or NULL.
fn counted(member: &Expr, query: &Query) -> Option<Expr> {
    let rows = Rows::of(query)?;
    if !is_movable(member) || !rows.takes(member) {
        return None;
    }
    let found = rows.some(|value| Some(binary(value, BinaryOperator::Eq, nested(member.clone()))));
    let unknown = Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions: vec![CaseWhen {
            condition: Expr::IsNull(Box::new(nested(member.clone()))),
            result: rows.some(|_| None),
        }],
        else_result: Some(Box::new(rows.some(|value| Some(Expr::IsNull(Box::new(value)))))),
    };
    Some(either(found, BinaryOperator::Or, either(unknown, BinaryOperator::And, null())))
}

/// `x < ANY (SELECT ...)`, and the like; what stands behind ANY and ALL may be an array as well.
pub fn quantified(expr: &mut Expr) {
    let (left, op, right, all) = match expr {
        Expr::AnyOp { left, compare_op, right, .. } => (left, compare_op, right, false),
        Expr::AllOp { left, compare_op, right } => (left, compare_op, right, true),
        _ => return,
    };
    // All that are not equal, or any that is equal.
    let plain = *op == if all { BinaryOperator::NotEq } else { BinaryOperator::Eq };
    if let Expr::Subquery(query) = right.as_mut() {
        if plain {
            let (member, subquery) = (Box::new(take(left)), query.clone());
            *expr = Expr::InSubquery { expr: member, subquery, negated: all };
        } else if let Some(told) = by_extremes(left, op, query, all) {
            *expr = told;
        }
        return;
    }
    if let Some(items) = as_text(right).and_then(array_literal) {
        **right = items;
    }
    let Expr::Array(items) = right.as_mut() else {
        if matches_patterns(op) {
            *expr = matched(left, op, right, all);
        } else if !all && !plain {
            let unknown = call("array_position", vec![right.as_ref().clone(), null()]);
            let unknown = Expr::IsNotNull(Box::new(unknown));
            let unknown = either(unknown, BinaryOperator::And, null());
            *expr = either(nested(take(expr)), BinaryOperator::Or, unknown);
        }
        return;
    };
    if items.elem.is_empty() || items.elem.iter().any(|item| matches!(item, Expr::Array(_))) {
        if matches_patterns(op) {
            *expr = matched(left, op, right, all);
        }
        return;
    }
    if plain {
        let list = std::mem::take(&mut items.elem);
        *expr = Expr::InList { expr: Box::new(take(left)), list, negated: all };
        return;
    }
    let mut parts = 0;
    visit_expressions(left.as_ref(), |_| parts += 1);
    if parts * items.elem.len() <= MAX_PARTS && is_movable(left) {
        let (op, join) = (op.clone(), if all { BinaryOperator::And } else { BinaryOperator::Or });
        let compared = std::mem::take(&mut items.elem).into_iter();
        let compared = compared.map(|item| binary(left.as_ref().clone(), op.clone(), nested(item)));
        if let Some(compared) = compared.reduce(|all, one| either(all, join.clone(), one)) {
            *expr = nested(compared);
        }
    } else if matches_patterns(op) {
        *expr = matched(left, op, right, all);
    }
}

/// Whether it is LIKE, or matches regular expressions, which the engine has no ANY and ALL for.
fn matches_patterns(op: &BinaryOperator) -> bool {
    use BinaryOperator as Op;
    matches!(
        op,
        Op::PGLikeMatch
            | Op::PGILikeMatch
            | Op::PGNotLikeMatch
            | Op::PGNotILikeMatch
            | Op::PGRegexMatch
            | Op::PGRegexIMatch
            | Op::PGRegexNotMatch
            | Op::PGRegexNotIMatch
    )
}

fn matched(left: &mut Expr, op: &BinaryOperator, right: &mut Expr, all: bool) -> Expr {
    let operator = text(&op.to_string());
    call("matched", vec![take(left), take(right), operator, boolean(all)])
}

/// By the least and the largest of the values: no value is less than any if it is not less than the
/// largest.
fn by_extremes(left: &Expr, op: &BinaryOperator, query: &Query, all: bool) -> Option<Expr> {
    use BinaryOperator::{And, Eq, Gt, GtEq, Lt, LtEq, NotEq, Or};
    let rows = Rows::of(query)?;
    let with = |name: &str| {
        let extreme = rows.asked(|value| call(name, vec![value]), |_| None);
        binary(left.clone(), op.clone(), extreme)
    };
    let compared = match (op, all) {
        (Lt | LtEq, false) | (Gt | GtEq, true) => with("max"),
        (Gt | GtEq, false) | (Lt | LtEq, true) => with("min"),
        (NotEq, false) => either(with("min"), Or, with("max")),
        (Eq, true) => either(with("min"), And, with("max")),
        _ => return None,
    };
    let nulls = rows.some(|value| Some(Expr::IsNull(Box::new(value))));
    let compared = match all {
        false => either(compared, Or, either(nulls, And, null())),
        true => either(compared, And, either(not(nulls), Or, null())),
    };
    Some(nested(Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions: vec![CaseWhen { condition: rows.some(|_| None), result: compared }],
        else_result: Some(Box::new(boolean(all))),
    }))
}

/// The rows of a subquery of one column, of which something is asked.
enum Rows<'a> {
    /// It stands by itself.
    Alone(&'a Query),
    /// It refers to the query around, which the engine understands in its conditions alone.
    Correlated { query: &'a Query, select: &'a Select, item: &'a Expr },
}

impl<'a> Rows<'a> {
    fn of(query: &'a Query) -> Option<Self> {
        if !refers_out(query) {
            return Some(Self::Alone(query));
        }
        let SetExpr::Select(select) = query.body.as_ref() else { return None };
        let item = single_item(query)?;
        let plain = is_plain(query, select) && is_movable(item);
        plain.then_some(Self::Correlated { query, select, item })
    }

    /// Whether an expression means the same where the rows are.
    fn takes(&self, expr: &Expr) -> bool {
        let Self::Correlated { query, .. } = self else { return true };
        let own = relations(query);
        let mut means_the_same = true;
        visit_expressions(expr, |expr| match expr {
            Expr::Identifier(_) => means_the_same = false,
            Expr::CompoundIdentifier(parts) => {
                means_the_same &= qualifier(parts).is_some_and(|name| !own.contains(&name));
            }
            _ => {}
        });
        means_the_same
    }

    /// Whether there are such rows.
    fn some(&self, condition: impl Fn(Expr) -> Option<Expr>) -> Expr {
        let count = self.asked(|_| call("count", vec![number(1)]), condition);
        let count = call("coalesce", vec![count, number(0)]);
        nested(binary(count, BinaryOperator::Gt, number(0)))
    }

    /// `SELECT what FROM ... WHERE condition`, as a value.
    fn asked(&self, what: impl Fn(Expr) -> Expr, condition: impl Fn(Expr) -> Option<Expr>) -> Expr {
        let query = match self {
            Self::Alone(query) => {
                let mut outer = OUTER.clone();
                if let SetExpr::Select(select) = outer.body.as_mut() {
                    let value = || Expr::Identifier(Ident::with_quote('"', MEMBER));
                    select.projection = vec![answer(what(value()))];
                    select.selection = condition(value());
                    for table in &mut select.from {
                        if let TableFactor::Derived { subquery, .. } = &mut table.relation {
                            **subquery = (*query).clone();
                        }
                    }
                }
                outer
            }
            Self::Correlated { query, select, item } => {
                let (mut whole, mut select) = ((*query).clone(), (*select).clone());
                select.projection = vec![answer(what((*item).clone()))];
                if let Some(condition) = condition(nested((*item).clone())) {
                    select.selection = Some(match select.selection.take() {
                        Some(own) => either(own, BinaryOperator::And, condition),
                        None => condition,
                    });
                }
                whole.order_by = None;
                whole.body = Box::new(SetExpr::Select(Box::new(select)));
                whole
            }
        };
        Expr::Subquery(Box::new(query))
    }
}

/// What is asked of rows, with a name that nothing else has in the statement.
fn answer(expr: Expr) -> SelectItem {
    SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', "\u{2}answer") }
}

/// `SELECT 1 FROM (...) AS "rows" ("value")`, with another query to be put into it.
static OUTER: LazyLock<Query> = LazyLock::new(|| {
    let sql = format!("SELECT 1 FROM (SELECT 1) AS \"\u{2}rows\" (\"{MEMBER}\")");
    let parsed = Parser::parse_sql(&PostgreSqlDialect {}, &sql);
    match parsed.map(|mut statements| statements.pop()) {
        Ok(Some(Statement::Query(query))) => *query,
        // The text above is a query.
        _ => unreachable!("{sql}"),
    }
});

/// The names of all relations in a query.
fn relations(query: &Query) -> HashSet<String> {
    struct Find(HashSet<String>);
    impl Visitor for Find {
        type Break = ();

        fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
            let (alias, name) = match factor {
                TableFactor::Table { alias, name, .. } => (alias, name.0.last()),
                TableFactor::Derived { alias, .. }
                | TableFactor::UNNEST { alias, .. }
                | TableFactor::TableFunction { alias, .. }
                | TableFactor::NestedJoin { alias, .. } => (alias, None),
                TableFactor::Function { alias, name, .. } => (alias, name.0.last()),
                _ => return ControlFlow::Continue(()),
            };
            let own = name.and_then(|part| part.as_ident());
            self.0.extend(alias.as_ref().map(|alias| &alias.name).or(own).map(normal));
            ControlFlow::Continue(())
        }
    }
    let mut find = Find(HashSet::new());
    let _ = visit(query, &mut find);
    find.0
}

/// Whether a query names a relation that is none of its own.
fn refers_out(query: &Query) -> bool {
    let own = relations(query);
    let mut found = false;
    visit_expressions(query, |expr| {
        if let Expr::CompoundIdentifier(parts) = expr {
            found |= qualifier(parts).is_some_and(|name| !own.contains(&name));
        }
    });
    found
}

/// The relation that a column is said to be of.
fn qualifier(parts: &[Ident]) -> Option<String> {
    parts.len().checked_sub(2).map(|at| normal(&parts[at]))
}

/// Whether an expression is computed for each row by itself, and can stand elsewhere, and several times.
fn is_movable(expr: &Expr) -> bool {
    let mut movable = !has_aggregate(expr) && !has_subquery(expr);
    visit_expressions(expr, |expr| match expr {
        Expr::Function(function) => {
            let name = function_name(function).unwrap_or_default();
            let other_each_time = ["random", "uuid", "gen_random_uuid", "clock_timestamp"];
            movable &= function.over.is_none()
                && !is_aggregate(&name)
                && !other_each_time.contains(&name.as_str());
        }
        // A row: the engine compares values.
        Expr::Tuple(_) => movable = false,
        _ => {}
    });
    movable
}

fn nested(expr: Expr) -> Expr {
    Expr::Nested(Box::new(expr))
}

fn not(expr: Expr) -> Expr {
    nested(Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(nested(expr)) })
}

fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}

fn either(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    nested(binary(left, op, right))
}
