//! What is known of a condition before it is looked at: what it costs for each row, and whether it can fail.
//!
//! - Filters look at cheap ones first (`engine::conditions`).
//! - Scans put those that cost least before what joins have learned ([`super::prefilter`]), and filter while
//!   they decode only by those that cannot fail ([`super::pushdown`]).

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{
    BinaryExpr, Column, DynamicFilterPhysicalExpr, InListExpr, IsNotNullExpr, IsNullExpr, LikeExpr,
    Literal, NotExpr,
};
use datafusion::physical_plan::PhysicalExpr;
use datafusion::scalar::ScalarValue;

/// Bytes of a pattern that is simple enough.
const SHORT_PATTERN: usize = 256;

/// What a condition costs for each row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cost {
    /// A few bytes beside a constant.
    Constant,
    /// A few bytes of two columns.
    Columns,
    /// Text beside a constant.
    Text,
    /// Anything else, which may fail as well.
    Other,
}

/// By how a condition is written, and the types of a schema's columns.
pub fn cost(condition: &Arc<dyn PhysicalExpr>, schema: &Schema) -> Cost {
    use Operator::{And, Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq, Or};
    if let Some(binary) = condition.downcast_ref::<BinaryExpr>() {
        return match binary.op() {
            And | Or => {
                let sides = [binary.left(), binary.right()];
                let dearer = sides.map(|side| cost(side, schema)).into_iter().max();
                dearer.unwrap_or(Cost::Other)
            }
            Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom => {
                of_two(kind(binary.left(), schema), kind(binary.right(), schema))
            }
            _ => Cost::Other,
        };
    }
    if let Some(list) = condition.downcast_ref::<InListExpr>() {
        let constants = list.list().iter().all(|item| item.is::<Literal>());
        return match kind(list.expr(), schema) {
            Kind::Few | Kind::Text if constants => Cost::Text,
            _ => Cost::Other,
        };
    }
    let of = condition.downcast_ref::<IsNullExpr>().map(IsNullExpr::arg);
    match of.or_else(|| condition.downcast_ref::<IsNotNullExpr>().map(IsNotNullExpr::arg)) {
        Some(of) if of.is::<Column>() => Cost::Constant,
        _ => Cost::Other,
    }
}

/// What is compared.
enum Kind {
    Constant,
    /// A column of values of a few bytes.
    Few,
    Text,
    Other,
}

fn kind(of: &Arc<dyn PhysicalExpr>, schema: &Schema) -> Kind {
    if of.is::<Literal>() {
        return Kind::Constant;
    }
    let Some(column) = of.downcast_ref::<Column>() else { return Kind::Other };
    match schema.fields().get(column.index()).map(|field| field.data_type()) {
        Some(DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) => Kind::Text,
        Some(kind) if kind.primitive_width().is_some() => Kind::Few,
        _ => Kind::Other,
    }
}

fn of_two(one: Kind, other: Kind) -> Cost {
    match (one, other) {
        (Kind::Constant, Kind::Few) | (Kind::Few, Kind::Constant) => Cost::Constant,
        (Kind::Few, Kind::Few) => Cost::Columns,
        (Kind::Constant, Kind::Text) | (Kind::Text, Kind::Constant) => Cost::Text,
        _ => Cost::Other,
    }
}

/// Whether a condition compares a column with a constant.
pub(super) fn compares(condition: &Arc<dyn PhysicalExpr>) -> bool {
    condition
        .downcast_ref::<BinaryExpr>()
        .is_some_and(|binary| is_comparison(binary.op()) && of_column(binary))
}

fn is_comparison(op: &Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq)
}

/// Whether the operands are a column and a constant.
fn of_column(binary: &BinaryExpr) -> bool {
    let (left, right) = (binary.left(), binary.right());
    left.is::<Column>() && right.is::<Literal>() || left.is::<Literal>() && right.is::<Column>()
}

/// Whether a condition gives an answer for each row, whatever its values.
pub(super) fn cannot_fail(condition: &Arc<dyn PhysicalExpr>) -> bool {
    if let Some(binary) = condition.downcast_ref::<BinaryExpr>() {
        return match binary.op() {
            Operator::And | Operator::Or => {
                cannot_fail(binary.left()) && cannot_fail(binary.right())
            }
            op => is_comparison(op) && of_column(binary),
        };
    }
    if let Some(like) = condition.downcast_ref::<LikeExpr>() {
        return like.expr().is::<Column>() && is_simple(like.pattern());
    }
    if let Some(list) = condition.downcast_ref::<InListExpr>() {
        return list.expr().is::<Column>() && list.list().iter().all(|item| item.is::<Literal>());
    }
    if let Some(not) = condition.downcast_ref::<NotExpr>() {
        return cannot_fail(not.arg());
    }
    if let Some(is_null) = condition.downcast_ref::<IsNullExpr>() {
        return is_null.arg().is::<Column>();
    }
    if let Some(is_not_null) = condition.downcast_ref::<IsNotNullExpr>() {
        return is_not_null.arg().is::<Column>();
    }
    // Bounds and keys that joins and sorts with a limit have found, of what they join and sort by.
    condition.is::<DynamicFilterPhysicalExpr>()
        && condition.children().into_iter().all(|of| of.is::<Column>())
}

/// Whether a pattern of LIKE is a constant that nothing is wrong with.
fn is_simple(pattern: &Arc<dyn PhysicalExpr>) -> bool {
    let Some(literal) = pattern.downcast_ref::<Literal>() else { return false };
    match literal.value() {
        ScalarValue::Utf8(Some(text))
        | ScalarValue::LargeUtf8(Some(text))
        | ScalarValue::Utf8View(Some(text)) => text.len() <= SHORT_PATTERN && !text.contains('\\'),
        _ => false,
    }
}
