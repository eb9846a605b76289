//! Texts in quotes beside an operator that computes, or compares with an interval: they have no type by themselves, and take one by what
//! stands on the other side (`oper_select_candidate` of PostgreSQL's `parse_oper.c`, for the operators
//! that there are).

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType};
use datafusion::logical_expr::{Expr, cast};
use sqlparser::ast::BinaryOperator;

use super::intervals::INTERVAL;
use super::operators::is_constant_text;

type Side = (Expr, DataType);

/// Both sides, of which a text in quotes has become a value of the type that the operator takes.
pub(super) fn of_one_type(op: &BinaryOperator, left: Side, right: Side) -> (Side, Side) {
    match (is_constant_text(&left.0), is_constant_text(&right.0)) {
        (false, true) => match taken_as(op, &right.0, &left.1, true) {
            Some(kind) => (left, (cast(right.0, kind.clone()), kind)),
            None => (left, right),
        },
        (true, false) => match taken_as(op, &left.0, &right.1, false) {
            Some(kind) => ((cast(left.0, kind.clone()), kind), right),
            None => (left, right),
        },
        _ => (left, right),
    }
}

/// What a text is beside a value of a type, `behind` or before it.
fn taken_as(op: &BinaryOperator, text: &Expr, other: &DataType, behind: bool) -> Option<DataType> {
    use BinaryOperator::{Divide, Eq, Gt, GtEq, Lt, LtEq, Minus, Modulo, Multiply, NotEq, Plus};
    match (op, other) {
        (Plus | Minus | Multiply | Divide | Modulo, other) if other.is_decimal() => exact(text),
        (Plus | Minus | Multiply | Divide | Modulo, other) if other.is_numeric() => {
            Some(other.clone())
        }
        // There is no sum of two moments.
        (Plus, DataType::Timestamp(..)) => Some(INTERVAL),
        (Minus, DataType::Timestamp(..) | DataType::Date32) => Some(other.clone()),
        (Plus | Minus | Eq | NotEq | Lt | LtEq | Gt | GtEq, other) if *other == INTERVAL => {
            Some(INTERVAL)
        }
        (Multiply, other) if *other == INTERVAL => Some(DataType::Float64),
        (Divide, other) if *other == INTERVAL && behind => Some(DataType::Float64),
        _ => None,
    }
}

/// The type of an exact number with as many digits as a text has; `None` if it is none, or has too many.
fn exact(text: &Expr) -> Option<DataType> {
    let Expr::Literal(value, _) = text else { return None };
    let text = value.try_as_str()??.trim();
    let (whole, fraction) = text
        .trim_start_matches(['+', '-'])
        .split_once('.')
        .unwrap_or((text.trim_start_matches(['+', '-']), ""));
    let digits = whole.len() + fraction.len();
    let is_number = [whole, fraction].concat().bytes().all(|byte| byte.is_ascii_digit());
    let precision = u8::try_from(digits).ok()?;
    let fits = (1..=DECIMAL128_MAX_PRECISION).contains(&precision) && is_number;
    fits.then_some(DataType::Decimal128(precision, i8::try_from(fraction.len()).ok()?))
}
