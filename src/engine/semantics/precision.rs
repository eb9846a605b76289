//! Times, timestamps and intervals with fewer digits behind the second's point than there can be, and
//! intervals without what is below the least of their fields.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, PrimitiveArray};
use arrow::compute::cast;
use arrow::datatypes::{
    self, DataType, FieldRef, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType,
};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility, lit,
};

use super::intervals::INTERVAL;
use super::zones::per_second;
use crate::values::types::{MAX_PRECISION, PRECISION};

/// Seconds from 1970 to 2000, from which PostgreSQL counts: the sign of what is rounded is that of the
/// distance to this moment.
const EPOCH_2000: i64 = 946_684_800;

/// Nanoseconds of a minute.
const MINUTE: i64 = 60 * 1_000_000_000;

/// `with_precision(value, digits [, least])` is a value that a cast to `timestamp(digits)` and the like
/// gives (`AdjustTimestampForTypmod`, `AdjustTimeForTypmod` and `AdjustIntervalForTypmod` of PostgreSQL
/// 15): rounded to so many digits of a second, of two nearest ones to that farther from zero. Of an
/// interval whatever is below the field `least` is cut off.
///
/// A value by this name is known to have so many digits; by the other one it is not, as in VALUES, whose rows
/// have to be of one kind.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct WithPrecision {
    known: bool,
    signature: Signature,
}

impl Default for WithPrecision {
    fn default() -> Self {
        let signature = Signature::variadic_any(Volatility::Immutable);
        Self { known: true, signature }
    }
}

impl WithPrecision {
    pub(super) fn unknown() -> Self {
        Self { known: false, ..Self::default() }
    }
}

const NAME: &str = "with_precision";

/// A value as a column keeps it that has so many digits behind the second's point.
pub(crate) fn kept(value: Expr, digits: u8) -> Expr {
    ScalarUDF::new_from_impl(WithPrecision::default()).call(vec![value, lit(i64::from(digits))])
}

impl ScalarUDFImpl for WithPrecision {
    fn name(&self) -> &str {
        if self.known { NAME } else { "rounded_to_precision" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [kind, _] | [kind, _, _] => Ok(kind.clone()),
            _ => plan_err!("{NAME} takes a value, a number of digits, and a field"),
        }
    }

    /// As a column that keeps so many digits is.
    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<_> = args.arg_fields.iter().map(|arg| arg.data_type().clone()).collect();
        let mut field = datatypes::Field::new(self.name(), self.return_type(&types)?, true);
        if let Some(Some(ScalarValue::Int64(Some(digits)))) = args.scalar_arguments.get(1)
            && self.known
        {
            field.metadata_mut().insert(PRECISION.to_owned(), digits.to_string());
        }
        Ok(Arc::new(field))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let (value, digits, least) = match args.args.as_slice() {
            [value, ColumnarValue::Scalar(digits)] => (value, digits, None),
            [value, ColumnarValue::Scalar(digits), ColumnarValue::Scalar(least)] => {
                (value, digits, least.try_as_str().flatten())
            }
            _ => return exec_err!("{NAME} takes constant digits and fields"),
        };
        let ScalarValue::Int64(Some(digits)) = digits.cast_to(&DataType::Int64)? else {
            return exec_err!("{NAME} takes a number of digits");
        };
        let digits = digits.clamp(0, MAX_PRECISION.into()).unsigned_abs() as u32;
        let to = Precision { digits, least: least.and_then(Field::named) };
        Ok(match value {
            ColumnarValue::Array(array) => ColumnarValue::Array(to.apply(array)?),
            ColumnarValue::Scalar(value) => {
                let array = to.apply(&value.to_array()?)?;
                ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?)
            }
        })
    }

    /// Rounding never turns the order of two values.
    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        Ok(inputs.first().map_or(SortProperties::Unordered, |value| value.sort_properties))
    }
}

/// Fields of an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
enum Field {
    Year,
    Month,
    Day,
    Hour,
    Minute,
}

impl Field {
    /// `None` for seconds: nothing is below them.
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "year" => Self::Year,
            "month" => Self::Month,
            "day" => Self::Day,
            "hour" => Self::Hour,
            "minute" => Self::Minute,
            _ => return None,
        })
    }
}

struct Precision {
    digits: u32,
    least: Option<Field>,
}

impl Precision {
    fn apply(&self, array: &ArrayRef) -> Result<ArrayRef> {
        Ok(match array.data_type() {
            DataType::Timestamp(unit, _) => {
                let per_second = per_second(*unit);
                self.rounded(array, per_second, EPOCH_2000 * per_second)?
            }
            DataType::Time32(unit) | DataType::Time64(unit) => {
                self.rounded(array, per_second(*unit), 0)?
            }
            kind if *kind == INTERVAL => {
                let intervals = array.as_primitive::<IntervalMonthDayNanoType>();
                let done: PrimitiveArray<IntervalMonthDayNanoType> =
                    intervals.unary(|interval| self.interval(interval));
                Arc::new(done)
            }
            DataType::List(element) => {
                let list = array.as_list::<i32>();
                let (offsets, nulls) = (list.offsets().clone(), list.nulls().cloned());
                let values = self.apply(list.values())?;
                Arc::new(ListArray::try_new(element.clone(), offsets, values, nulls)?)
            }
            DataType::Null => array.clone(),
            other => return exec_err!("{NAME} takes times and intervals, not {other}"),
        })
    }

    /// Numbers of which so many are a second, counted from `zero`.
    fn rounded(&self, array: &ArrayRef, per_second: i64, zero: i64) -> Result<ArrayRef> {
        let unit = per_second / 10_i64.pow(self.digits);
        if unit <= 1 {
            return Ok(array.clone());
        }
        // 32 bits hold a time in seconds or milliseconds, and no half of one is rounded out of them.
        let numbers = cast(&cast(array, &numbers_of(array.data_type()))?, &DataType::Int64)?;
        let numbers = numbers.as_primitive::<Int64Type>();
        let done: PrimitiveArray<Int64Type> =
            numbers.unary(|number| match number.checked_sub(zero) {
                Some(distance) => nearest(distance, unit).saturating_add(zero),
                None => number,
            });
        let done = cast(&done, &numbers_of(array.data_type()))?;
        Ok(cast(&done, array.data_type())?)
    }

    fn interval(&self, interval: IntervalMonthDayNano) -> IntervalMonthDayNano {
        let IntervalMonthDayNano { mut months, mut days, mut nanoseconds } = interval;
        match self.least {
            Some(Field::Year) => (months, days, nanoseconds) = (months / 12 * 12, 0, 0),
            Some(Field::Month) => (days, nanoseconds) = (0, 0),
            Some(Field::Day) => nanoseconds = 0,
            Some(Field::Hour) => nanoseconds -= nanoseconds % (60 * MINUTE),
            Some(Field::Minute) => nanoseconds -= nanoseconds % MINUTE,
            None => {}
        }
        let nanoseconds = nearest(nanoseconds, 1_000_000_000 / 10_i64.pow(self.digits));
        IntervalMonthDayNano { months, days, nanoseconds }
    }
}

/// The multiple of a unit that is nearest to a number; of two, the one farther from zero.
fn nearest(number: i64, unit: i64) -> i64 {
    let cut = number - number % unit;
    match (number - cut).abs() * 2 >= unit {
        true => cut.saturating_add(unit * number.signum()),
        false => cut,
    }
}

fn numbers_of(kind: &DataType) -> DataType {
    match kind {
        DataType::Time32(_) => DataType::Int32,
        _ => DataType::Int64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against PostgreSQL 15.
    #[test]
    fn halves_go_away_from_zero() {
        for (number, expected) in [
            (1_500_000, 2),
            (1_499_999, 1),
            (-1_500_000, -2),
            (-1_499_999, -1),
            (500_000, 1),
            (0, 0),
        ] {
            assert_eq!(nearest(number, 1_000_000), expected * 1_000_000, "{number}");
        }
    }

    /// Against PostgreSQL 15.
    #[test]
    fn intervals_lose_what_is_below_their_least_field() {
        let interval = IntervalMonthDayNano::new(14, 3, 3_723_000_000_000);
        for (least, expected) in [
            ("year", (12, 0, 0)),
            ("month", (14, 0, 0)),
            ("day", (14, 3, 0)),
            ("hour", (14, 3, 3600)),
            ("minute", (14, 3, 3720)),
            ("second", (14, 3, 3723)),
        ] {
            let (months, days, seconds) = expected;
            let expected = IntervalMonthDayNano::new(months, days, seconds * 1_000_000_000);
            let to = Precision { digits: 0, least: Field::named(least) };
            assert_eq!(to.interval(interval), expected, "{least}");
        }
    }
}
