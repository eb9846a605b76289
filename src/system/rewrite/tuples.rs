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
            case(unknown(values, query)?, null()),
        ],
        else_result: Some(Box::new(boolean(false))),
    })
}

/// The most values of a row of which [`unknown`] tells all cases apart: there are three times as many for
/// each. Of more it asks at once, which the engine answers where the values are not those of rows around.
const MAX_CASES: usize = 2;

/// Whether a subquery has a row of which it is not known that it is another: each of its values is equal, or
/// NULL, or is compared with NULL. The engine compares with the query around by `=` alone where the answer
/// is a value, so that each case is asked for by itself.
fn unknown(values: &[Expr], query: &Query) -> Option<Expr> {
    if values.len() > MAX_CASES {
        return possible(values, query);
    }
    // In base three: 0 for equal values, 1 for NULL in the subquery, 2 for NULL compared with.
    let cases = 3_usize.pow(values.len() as u32);
    let mut any = None;
    // All of them equal is what `found` has told.
    for number in 1..cases {
        let digit = |at: usize| number / 3_usize.pow(at as u32) % 3;
        let test = |at: usize, column: Expr, value: Expr| match digit(at) {
            0 => Some(both(column, BinaryOperator::Eq, value)),
            1 => Some(Expr::IsNull(Box::new(column))),
            _ => None,
        };
        let nulls = values.iter().enumerate().filter(|(at, _)| digit(*at) == 2);
        let nulls = nulls.map(|(_, value)| Expr::IsNull(Box::new(nested(value.clone()))));
        let case = nulls.fold(exists_where(values, query, test)?, |all, one| {
            both(all, BinaryOperator::And, one)
        });
        any = Some(match any {
            Some(any) => both(any, BinaryOperator::Or, nested(case)),
            None => nested(case),
        });
    }
    any.map(nested)
}

/// `EXISTS (SELECT 1 FROM (query) AS "rows" ("c0", "c1") WHERE "c0" = a AND "c1" = b)`: no statement has
/// columns of these names, so that the values are those of the query around.
fn exists(values: &[Expr], query: &Query, condition: fn(Expr) -> Expr) -> Option<Expr> {
    exists_where(values, query, |_, column, value| {
        Some(condition(both(column, BinaryOperator::Eq, value)))
    })
}

/// The same with a condition on each column and value.
fn exists_where(
    values: &[Expr],
    query: &Query,
    condition: impl Fn(usize, Expr, Expr) -> Option<Expr>,
) -> Option<Expr> {
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
    let pairs = names.iter().zip(values).enumerate().filter_map(|(at, (name, value))| {
        let column = Expr::Identifier(Ident::with_quote('"', name));
        condition(at, column, nested(value.clone()))
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
