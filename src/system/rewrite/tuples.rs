//! Rows of values: whether they are NULL, and whether a subquery has them.

use sqlparser::ast::helpers::attached_token::AttachedToken;
use sqlparser::ast::{
    BinaryOperator, CaseWhen, Expr, Ident, Query, SetExpr, Statement, TableFactor,
};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

use super::build::{arguments, boolean, function_name, null, take};

/// The values of a row, written with ROW or without.
pub fn row(expr: &Expr) -> Option<Vec<Expr>> {
    match expr {
        Expr::Nested(inner) => row(inner),
        Expr::Tuple(values) => Some(values.clone()),
        Expr::Function(function) if function_name(function).is_some_and(|name| name == "row") => {
            let mut function = function.clone();
            let values = arguments(&mut function)?;
            Some(values.into_iter().map(take).collect())
        }
        _ => None,
    }
}

/// `(a, b) IS NULL` where all are, and `(a, b) IS NOT NULL` where none is.
pub fn null_test(expr: &mut Expr) {
    let (values, test): (_, fn(Box<Expr>) -> Expr) = match &*expr {
        Expr::IsNull(inner) => (row(inner), Expr::IsNull),
        Expr::IsNotNull(inner) => (row(inner), Expr::IsNotNull),
        _ => return,
    };
    let tests = values.into_iter().flatten().map(|value| test(Box::new(nested(value))));
    if let Some(tests) = tests.reduce(|all, one| both(all, BinaryOperator::And, one)) {
        *expr = nested(tests);
    }
}

/// Whether a subquery has rows of which the condition that they are these values is true.
pub fn found(values: &[Expr], query: &Query) -> Option<Expr> {
    exists(values, query, |equal| equal)
}

/// The same, of which it may be: it is true, or not known.
pub fn possible(values: &[Expr], query: &Query) -> Option<Expr> {
    exists(values, query, |equal| Expr::IsNotFalse(Box::new(nested(equal))))
}

/// `(a, b) IN (SELECT ...)` with NULL for what is not known.
pub fn counted(values: &[Expr], query: &Query) -> Option<Expr> {
    let case = |condition, result| CaseWhen { condition, result };
    Some(Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions: vec![
            case(found(values, query)?, boolean(true)),
            case(possible(values, query)?, null()),
        ],
        else_result: Some(Box::new(boolean(false))),
    })
}

/// `EXISTS (SELECT 1 FROM (query) AS "rows" ("c0", "c1") WHERE "c0" = a AND "c1" = b)`: no statement has
/// columns of these names, so that the values are those of the query around.
fn exists(values: &[Expr], query: &Query, condition: fn(Expr) -> Expr) -> Option<Expr> {
    let names: Vec<String> = (0..values.len()).map(|at| format!("\u{2}c{at}")).collect();
    let columns = names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
    let sql = format!("SELECT 1 FROM (SELECT 1) AS \"\u{2}rows\" ({columns})");
    let parsed = Parser::parse_sql(&PostgreSqlDialect {}, &sql).ok()?.pop()?;
    let Statement::Query(mut outer) = parsed else { return None };
    let SetExpr::Select(select) = outer.body.as_mut() else { return None };
    let TableFactor::Derived { subquery, .. } = &mut select.from.first_mut()?.relation else {
        return None;
    };
    **subquery = query.clone();
    let pairs = names.iter().zip(values).map(|(name, value)| {
        let column = Expr::Identifier(Ident::with_quote('"', name));
        condition(both(column, BinaryOperator::Eq, nested(value.clone())))
    });
    select.selection = pairs.reduce(|all, one| both(all, BinaryOperator::And, one));
    Some(Expr::Exists { subquery: outer, negated: false })
}

fn nested(expr: Expr) -> Expr {
    Expr::Nested(Box::new(expr))
}

fn both(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}
