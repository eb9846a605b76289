//! CASE that gives truths looks at its branches in their order, as any other.
//!
//! The engine makes conditions of one with few branches (`CASE WHEN a THEN b END` is about `a AND b`), whose
//! parts it may look at for all rows. Where one may fail that would be an error which CASE is there to avoid.
//! One that gives numbers it leaves alone.

use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::expr::Case;
use datafusion::logical_expr::{Expr, ExprSchemable, Operator, cast};

/// A CASE whose branches are looked at only where those before it do not apply.
pub(super) fn in_order(case: Case, schema: &DFSchema) -> Transformed<Expr> {
    let gives_truths =
        |case: &Case| matches!(case.when_then_expr[0].1.get_type(schema), Ok(DataType::Boolean));
    if case.expr.is_some() || !later_may_fail(&case) || !gives_truths(&case) {
        return Transformed::no(Expr::Case(case));
    }
    let number = |truth: Box<Expr>| Box::new(cast(*truth, DataType::Int8));
    let branches = case.when_then_expr.into_iter();
    let numbers = Case {
        expr: None,
        when_then_expr: branches.map(|(when, then)| (when, number(then))).collect(),
        else_expr: case.else_expr.map(number),
    };
    Transformed::yes(cast(Expr::Case(numbers), DataType::Boolean))
}

/// Whether anything but the first condition may fail.
fn later_may_fail(case: &Case) -> bool {
    let all = case.when_then_expr.iter().flat_map(|(when, then)| [when, then]);
    all.skip(1).chain(&case.else_expr).any(|part| may_fail(part))
}

/// Whether there is something about an expression that may be an error for some rows.
fn may_fail(expr: &Expr) -> bool {
    let fails = |part: &Expr| match part {
        Expr::BinaryExpr(binary) => !never_fails(binary.op),
        Expr::Column(_)
        | Expr::Literal(..)
        | Expr::Alias(_)
        | Expr::Not(_)
        | Expr::IsNull(_)
        | Expr::IsNotNull(_)
        | Expr::IsTrue(_)
        | Expr::IsFalse(_)
        | Expr::IsUnknown(_)
        | Expr::IsNotTrue(_)
        | Expr::IsNotFalse(_)
        | Expr::IsNotUnknown(_)
        | Expr::Between(_)
        | Expr::InList(_)
        | Expr::Case(_) => false,
        _ => true,
    };
    expr.exists(|part| Ok(fails(part))).unwrap_or(true)
}

fn never_fails(op: Operator) -> bool {
    use Operator::{And, Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq, Or};
    matches!(op, And | Or | Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}
