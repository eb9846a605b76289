//! Operators that PostgreSQL has for types for which the engine has none, or another: known by the
//! types of what stands on both sides, and so settled while a statement is planned.

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{DFSchema, Result, ScalarValue, plan_err};
use datafusion::functions_nested::array_has::array_has_all_udf;
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable, Operator, ScalarUDF, binary_expr, cast};
use postgres_types::Type;
use sqlparser::ast::BinaryOperator;

use super::intervals::{INTERVAL, Scaled};
use super::json_types::{self, json_of, parameter_as};
use super::moments::Difference;
use super::truths::truth;
use super::{changed, literals, members, mixed, reached, text};
use crate::values::encode::TimeZone;
use crate::values::types::{dimensions, is_text};

/// Digits behind the point that a quotient has at least, if there is room for them: as many as
/// PostgreSQL shows of `10.0 / 4`.
const QUOTIENT_SCALE: i8 = 16;
/// Digits that the engine adds to a dividend's scale.
const ENGINE_ADDS: i8 = 4;
/// Digits in all, of an exact number that is kept and of one that is computed with.
const MAX_PRECISION: u8 = 38;
const WIDE_PRECISION: u8 = 76;

/// The rules.
#[derive(Debug)]
pub(in crate::engine) struct Operators {
    times: Arc<ScalarUDF>,
    divided: Arc<ScalarUDF>,
    difference: Arc<ScalarUDF>,
    jsonb_comparable: Arc<ScalarUDF>,
    jsonb_order: Arc<ScalarUDF>,
}

impl Default for Operators {
    fn default() -> Self {
        let scaled = |divided| Arc::new(ScalarUDF::new_from_impl(Scaled::new(divided)));
        let difference = Arc::new(ScalarUDF::new_from_impl(Difference::default()));
        let (jsonb_comparable, jsonb_order) = (super::json::comparable(), super::json::order());
        let (times, divided) = (scaled(false), scaled(true));
        Self { times, divided, difference, jsonb_comparable, jsonb_order }
    }
}

impl ExprPlanner for Operators {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let RawBinaryExpr { op, left, right } = expr;
        if matches!(op, BinaryOperator::And | BinaryOperator::Or) {
            let place = if op == BinaryOperator::And { "AND" } else { "OR" };
            let left = truth(left, place, schema)?.data;
            let right = truth(right, place, schema)?.data;
            return Ok(PlannerResult::Original(RawBinaryExpr { op, left, right }));
        }
        if let Some(call) = reached::operator(&op, &left, &right, schema)? {
            return Ok(PlannerResult::Planned(call));
        }
        if let Some(call) = changed::operator(&op, &left, &right, schema)? {
            return Ok(PlannerResult::Planned(call));
        }
        // What has no type yet, such as a parameter, gets the engine's.
        let (Ok(left_type), Ok(right_type)) = (left.get_type(schema), right.get_type(schema))
        else {
            return Ok(PlannerResult::Original(RawBinaryExpr { op, left, right }));
        };
        let arrays = [&left_type, &right_type].iter().any(|kind| dimensions(kind) > 0);
        if arrays {
            return Ok(of_arrays(op, (left, left_type), (right, right_type)));
        }
        let texts = is_text(&left_type) && is_text(&right_type);
        let untyped = left_type.is_null() && json_of(&right, schema).is_some()
            || right_type.is_null() && json_of(&left, schema).is_some();
        if compares(&op) && (texts || untyped) {
            return self.of_texts(op, left, right, schema).map(PlannerResult::Original);
        }
        refuse_text_beside_number(&op, (&left, &left_type), (&right, &right_type))?;
        let ((left, left_type), (right, right_type)) =
            literals::of_one_type(&op, (left, left_type), (right, right_type));
        let common = mixed::common_type([&left_type, &right_type].into_iter());
        let (left, right) = match op {
            BinaryOperator::Eq | BinaryOperator::NotEq => mixed::joinable(left, right, schema),
            _ => (left, right),
        };
        if let Some(common) = common.filter(|_| computes(&op) || compares(&op)) {
            let [left, right] = [left, right].map(|side| mixed::taken_as(side, &common, schema));
            let moments = kind(&common) == Kind::Moment && op == BinaryOperator::Minus;
            return Ok(match moments {
                true => PlannerResult::Planned(self.difference.call(vec![left, right])),
                false => PlannerResult::Original(RawBinaryExpr { op, left, right }),
            });
        }
        let (left, right) = match (&op, kind(&left_type), kind(&right_type)) {
            (BinaryOperator::Plus, Kind::Date, Kind::Number) if right_type.is_integer() => {
                return Ok(PlannerResult::Planned(moved(left, Operator::Plus, right)));
            }
            (BinaryOperator::Plus, Kind::Number, Kind::Date) if left_type.is_integer() => {
                return Ok(PlannerResult::Planned(moved(right, Operator::Plus, left)));
            }
            (BinaryOperator::Minus, Kind::Date, Kind::Number) if right_type.is_integer() => {
                return Ok(PlannerResult::Planned(moved(left, Operator::Minus, right)));
            }
            (BinaryOperator::Minus, Kind::Moment, Kind::Moment) => {
                // One without a zone is on the session's clocks beside one with a zone.
                let common = if has_zone(&left_type) { &left_type } else { &right_type };
                let sides = match has_zone(&left_type) == has_zone(&right_type) {
                    true => [left, right],
                    false => [left, right].map(|side| mixed::taken_as(side, common, schema)),
                };
                return Ok(PlannerResult::Planned(self.difference.call(sides.into())));
            }
            // Days between two dates.
            (BinaryOperator::Minus, Kind::Date, Kind::Date) => {
                let days = binary_expr(left, Operator::Minus, right);
                return Ok(PlannerResult::Planned(cast(days, DataType::Int32)));
            }
            (BinaryOperator::Plus | BinaryOperator::Minus, Kind::Date, Kind::Interval)
                if !is_whole_days(&right) =>
            {
                (at_midnight(left), right)
            }
            (BinaryOperator::Plus, Kind::Interval, Kind::Date) if !is_whole_days(&left) => {
                (left, at_midnight(right))
            }
            (BinaryOperator::Multiply, Kind::Interval, Kind::Number) => {
                return Ok(PlannerResult::Planned(scale(&self.times, left, right)));
            }
            (BinaryOperator::Multiply, Kind::Number, Kind::Interval) => {
                return Ok(PlannerResult::Planned(scale(&self.times, right, left)));
            }
            (BinaryOperator::Divide, Kind::Interval, Kind::Number) => {
                return Ok(PlannerResult::Planned(scale(&self.divided, left, right)));
            }
            (BinaryOperator::Divide, Kind::Number, Kind::Number) => {
                if let Some(scale) = wide_quotient(&left_type, &right_type) {
                    let quotient = wide((left, &left_type), Operator::Divide, (right, &right_type));
                    return Ok(PlannerResult::Planned(cast(quotient, kept(scale))));
                }
                match dividend(&left_type, &right_type) {
                    Some(wider) => (cast(left, wider), right),
                    None => (left, right),
                }
            }
            (BinaryOperator::Multiply, Kind::Number, Kind::Number) => {
                if let Some(scale) = wide_product(&left_type, &right_type) {
                    let product =
                        wide((left, &left_type), Operator::Multiply, (right, &right_type));
                    return Ok(PlannerResult::Planned(cast(product, kept(scale))));
                }
                (left, right)
            }
            _ => (left, right),
        };
        Ok(PlannerResult::Original(RawBinaryExpr { op, left, right }))
    }
}

impl Operators {
    /// A comparison of texts, which may be JSON.
    fn of_texts(
        &self,
        op: BinaryOperator,
        left: Expr,
        right: Expr,
        schema: &DFSchema,
    ) -> Result<RawBinaryExpr> {
        match [&left, &right].map(|side| json_of(side, schema)) {
            [None, None] => return Ok(RawBinaryExpr { op, left, right }),
            [Some(Type::JSON), _] | [_, Some(Type::JSON)] => {
                return json_types::no_operator(&left, &op.to_string(), &right, schema);
            }
            _ => {}
        }
        let key = match op {
            BinaryOperator::Eq | BinaryOperator::NotEq => &self.jsonb_comparable,
            _ => &self.jsonb_order,
        };
        let [left, right] =
            [left, right].map(|side| key.call(vec![parameter_as(side, &Type::JSONB)]));
        Ok(RawBinaryExpr { op, left, right })
    }
}

/// An operator of arrays. A text in quotes beside one is an array of the same type.
fn of_arrays(
    op: BinaryOperator,
    (left, left_type): (Expr, DataType),
    (right, right_type): (Expr, DataType),
) -> PlannerResult<RawBinaryExpr> {
    let (left, right) = match (dimensions(&left_type), dimensions(&right_type)) {
        (0, _) if is_constant_text(&left) => (cast(left, right_type), right),
        (_, 0) if is_constant_text(&right) => (left, cast(right, left_type)),
        (0, _) | (_, 0) => return PlannerResult::Original(RawBinaryExpr { op, left, right }),
        _ => (left, right),
    };
    match op {
        BinaryOperator::AtArrow => {
            PlannerResult::Planned(array_has_all_udf().call(vec![left, right]))
        }
        BinaryOperator::ArrowAt => {
            PlannerResult::Planned(array_has_all_udf().call(vec![right, left]))
        }
        BinaryOperator::PGOverlap => {
            PlannerResult::Planned(members::has_any().call(vec![left, right]))
        }
        op => PlannerResult::Original(RawBinaryExpr { op, left, right }),
    }
}

/// Whether it is a text in quotes, which has no type by itself.
pub(super) fn is_constant_text(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(value, _) if value.try_as_str().flatten().is_some())
}

/// What PostgreSQL has no operator for: the engine would read every text as a number, and fail at the first
/// that is none.
fn refuse_text_beside_number(
    op: &BinaryOperator,
    (left, left_type): (&Expr, &DataType),
    (right, right_type): (&Expr, &DataType),
) -> Result<()> {
    let is_written = |expr: &Expr| !is_constant_text(expr) && !matches!(expr, Expr::Placeholder(_));
    let differ = |text: &DataType, expr: &Expr, other: &DataType| {
        is_text(text) && is_written(expr) && other.is_numeric()
    };
    match compares(op)
        && (differ(left_type, left, right_type) || differ(right_type, right, left_type))
    {
        true => no_operator(left_type, &op.to_string(), right_type),
        false => Ok(()),
    }
}

/// # Errors
/// There is no operator of these types, always.
pub(super) fn no_operator(left: &DataType, op: &str, right: &DataType) -> Result<()> {
    plan_err!("Cannot infer common argument type for comparison operation {left} {op} {right}")
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Date,
    Moment,
    Interval,
    Number,
    Other,
}

fn kind(data_type: &DataType) -> Kind {
    match data_type {
        DataType::Date32 | DataType::Date64 => Kind::Date,
        DataType::Timestamp(..) => Kind::Moment,
        DataType::Interval(_) | DataType::Duration(_) => Kind::Interval,
        number if number.is_numeric() => Kind::Number,
        _ => Kind::Other,
    }
}

/// A date moved by days: the engine makes intervals of the days, and cannot tell what bounds they have.
fn moved(date: Expr, op: Operator, days: Expr) -> Expr {
    let date = cast(cast(date, DataType::Date32), DataType::Int32);
    cast(binary_expr(date, op, cast(days, DataType::Int32)), DataType::Date32)
}

fn has_zone(kind: &DataType) -> bool {
    matches!(kind, DataType::Timestamp(_, Some(_)))
}

fn compares(op: &BinaryOperator) -> bool {
    use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq)
}

fn computes(op: &BinaryOperator) -> bool {
    use BinaryOperator::{Divide, Minus, Multiply, Plus};
    matches!(op, Plus | Minus | Multiply | Divide)
}

/// A date as the timestamp with which it begins: with an interval it makes a timestamp, while the
/// engine's result is a date, without the hours.
fn at_midnight(date: Expr) -> Expr {
    cast(date, DataType::Timestamp(TimeUnit::Microsecond, None))
}

/// Whether an interval is a constant without hours. A date that is moved by one is left a date, by
/// which files and row groups can be skipped: it is the same moment.
fn is_whole_days(interval: &Expr) -> bool {
    let value = match interval {
        Expr::Literal(value, _) => value.clone(),
        Expr::Cast(Cast { expr, field }) if *field.data_type() == INTERVAL => {
            match text::constant(expr, field, &TimeZone::default()) {
                Ok(Some(Expr::Literal(value, _))) => value,
                _ => return false,
            }
        }
        _ => return false,
    };
    match value {
        ScalarValue::IntervalYearMonth(_) => true,
        ScalarValue::IntervalDayTime(Some(value)) => value.milliseconds == 0,
        ScalarValue::IntervalMonthDayNano(Some(value)) => value.nanoseconds == 0,
        _ => false,
    }
}

fn scale(function: &Arc<ScalarUDF>, interval: Expr, factor: Expr) -> Expr {
    let interval = cast(interval, INTERVAL);
    function.call(vec![interval, cast(factor, DataType::Float64)])
}

/// The type of an exact number with as many digits behind the point.
fn kept(scale: i8) -> DataType {
    DataType::Decimal128(MAX_PRECISION, scale)
}

/// Computes with twice the bits, which lose no digit on the way.
fn wide(left: (Expr, &DataType), operator: Operator, right: (Expr, &DataType)) -> Expr {
    let widened = |(expr, kind): (Expr, &DataType)| {
        let (precision, scale) = digits(kind).unwrap_or((MAX_PRECISION, 0));
        cast(expr, DataType::Decimal256(precision, scale))
    };
    binary_expr(widened(left), operator, widened(right))
}

/// Digits behind the point of a quotient that the engine cannot compute in 38 digits, since it
/// makes the dividend longer by all those of the divisor: such as a quotient of quotients.
fn wide_quotient(left: &DataType, right: &DataType) -> Option<i8> {
    let ((precision, scale), (_, divisor_scale)) = exact(left, right)?;
    let used = i32::from(precision) + i32::from(divisor_scale) + i32::from(ENGINE_ADDS);
    let wide = i32::from(MAX_PRECISION) < used && used <= i32::from(WIDE_PRECISION);
    wide.then(|| (scale + ENGINE_ADDS).min(QUOTIENT_SCALE).max(scale))
}

/// Digits behind the point of a product that may need more than 38 digits in all, mostly for those
/// behind the point: such as that of two quotients, whose digits are rounded anyway.
fn wide_product(left: &DataType, right: &DataType) -> Option<i8> {
    let ((precision, scale), (other_precision, other_scale)) = exact(left, right)?;
    let wide = precision + other_precision >= MAX_PRECISION;
    let kept = scale.max(other_scale).max(QUOTIENT_SCALE);
    (wide && scale + other_scale > kept).then_some(kept)
}

/// The type of a dividend with which the quotient has as many digits as in PostgreSQL, or as many
/// as there is room for; `None` if it has so anyway.
fn dividend(left: &DataType, right: &DataType) -> Option<DataType> {
    let ((precision, scale), (_, divisor_scale)) = exact(left, right)?;
    let used = i32::from(precision) + i32::from(divisor_scale) + i32::from(ENGINE_ADDS);
    let room = i32::from(MAX_PRECISION) - used;
    let more = i32::from(QUOTIENT_SCALE - ENGINE_ADDS - scale).min(room);
    let more = u8::try_from(more).ok().filter(|more| *more > 0)?;
    Some(DataType::Decimal128(precision + more, scale + more as i8))
}

/// Precision and scale of two numbers that make an exact one.
fn exact(left: &DataType, right: &DataType) -> Option<((u8, i8), (u8, i8))> {
    let decimal = |kind: &DataType| matches!(kind, DataType::Decimal128(..));
    if !decimal(left) && !decimal(right) {
        return None;
    }
    Some((digits(left)?, digits(right)?))
}

/// Precision and scale of an exact number.
fn digits(kind: &DataType) -> Option<(u8, i8)> {
    Some(match kind {
        DataType::Decimal128(precision, scale) => (*precision, *scale),
        DataType::Int8 => (3, 0),
        DataType::Int16 => (5, 0),
        DataType::Int32 => (10, 0),
        DataType::Int64 => (20, 0),
        _ => return None,
    })
}
