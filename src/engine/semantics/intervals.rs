//! Intervals as PostgreSQL compares and multiplies them. The engine compares months, days and
//! nanoseconds one after the other, and does not multiply.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Decimal128Array, Float64Array, IntervalMonthDayNanoArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Float64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit,
};
use arrow::error::ArrowError;
use datafusion::common::{DFSchema, Result};
use datafusion::functions::utils::make_scalar_function;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

pub(in crate::engine) const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

const DAYS_PER_MONTH: i64 = 30;
const NANOS_PER_DAY: i128 = 86_400_000_000_000;
const SECONDS_PER_DAY: f64 = 86_400.0;

/// `interval_order(interval)`: how long an interval is, with months of 30 days and days of 24 hours
/// (`interval_cmp_value` of PostgreSQL's `timestamp.c`): what intervals are compared and sorted by.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Order {
    signature: Signature,
}

impl Default for Order {
    fn default() -> Self {
        Self { signature: Signature::exact(vec![INTERVAL], Volatility::Immutable) }
    }
}

const LENGTH: DataType = DataType::Decimal128(38, 0);

impl ScalarUDFImpl for Order {
    fn name(&self) -> &str {
        "interval_order"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(LENGTH)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        make_scalar_function(lengths, Vec::new())(&args.args)
    }
}

/// In nanoseconds.
pub(super) fn length(interval: IntervalMonthDayNano) -> i128 {
    let days = i64::from(interval.months) * DAYS_PER_MONTH + i64::from(interval.days);
    i128::from(days) * NANOS_PER_DAY + i128::from(interval.nanoseconds)
}

fn lengths(args: &[ArrayRef]) -> Result<ArrayRef> {
    let intervals = args[0].as_primitive::<IntervalMonthDayNanoType>();
    let lengths: Decimal128Array = intervals.unary(length);
    Ok(Arc::new(lengths.with_data_type(LENGTH)))
}

/// `interval_epoch(interval)`: its seconds, with years of 365.25 days, and months besides of 30 (`interval_part_common`
/// of PostgreSQL's `timestamp.c`).
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Epoch {
    signature: Signature,
}

impl Default for Epoch {
    fn default() -> Self {
        Self { signature: Signature::exact(vec![INTERVAL], Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Epoch {
    fn name(&self) -> &str {
        "interval_epoch"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let seconds = |args: &[ArrayRef]| -> Result<ArrayRef> {
            let intervals = args[0].as_primitive::<IntervalMonthDayNanoType>();
            let seconds: Float64Array = intervals.unary(seconds);
            Ok(Arc::new(seconds))
        };
        make_scalar_function(seconds, Vec::new())(&args.args)
    }
}

fn seconds(interval: IntervalMonthDayNano) -> f64 {
    let (years, months) = (interval.months / 12, interval.months % 12);
    let days = f64::from(years) * 365.25
        + f64::from(months) * DAYS_PER_MONTH as f64
        + f64::from(interval.days);
    days * SECONDS_PER_DAY + interval.nanoseconds as f64 / 1e9
}

/// `extract(epoch FROM interval)`, of which the engine's years have twelve months of 30 days.
pub(super) fn epoch(function: &ScalarFunction, schema: &DFSchema) -> Option<Expr> {
    let [Expr::Literal(part, _), interval] = function.args.as_slice() else { return None };
    let asked = function.func.name() == "date_part"
        && part.try_as_str().flatten().is_some_and(|part| part.eq_ignore_ascii_case("epoch"));
    let is_interval = || interval.get_type(schema).is_ok_and(|kind| kind == INTERVAL);
    (asked && is_interval())
        .then(|| ScalarUDF::new_from_impl(Epoch::default()).call(vec![interval.clone()]))
}

/// `interval_times(interval, factor)`, or `interval_divided(interval, divisor)`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Scaled {
    divided: bool,
    signature: Signature,
}

impl Scaled {
    pub(super) fn new(divided: bool) -> Self {
        let signature = Signature::exact(vec![INTERVAL, DataType::Float64], Volatility::Immutable);
        Self { divided, signature }
    }
}

impl ScalarUDFImpl for Scaled {
    fn name(&self) -> &str {
        if self.divided { "interval_divided" } else { "interval_times" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(INTERVAL)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let divided = self.divided;
        make_scalar_function(move |args| scaled(args, divided), Vec::new())(&args.args)
    }
}

fn scaled(args: &[ArrayRef], divided: bool) -> Result<ArrayRef> {
    let (intervals, factors) = (cast(&args[0], &INTERVAL)?, cast(&args[1], &DataType::Float64)?);
    let intervals = intervals.as_primitive::<IntervalMonthDayNanoType>();
    let factors = factors.as_primitive::<Float64Type>();
    let rows = intervals.iter().zip(factors).map(|row| match row {
        (Some(_), Some(0.0)) if divided => Err(ArrowError::DivideByZero.into()),
        (Some(interval), Some(factor)) => {
            let by = |value: f64| if divided { value / factor } else { value * factor };
            times(interval, by).map(Some)
        }
        _ => Ok(None),
    });
    Ok(Arc::new(rows.collect::<Result<IntervalMonthDayNanoArray>>()?))
}

/// `interval_mul` and `interval_div` of PostgreSQL's `timestamp.c`: what does not make a whole
/// month becomes days, what does not make a whole day becomes time.
fn times(interval: IntervalMonthDayNano, by: impl Fn(f64) -> f64) -> Result<IntervalMonthDayNano> {
    let too_large =
        || ArrowError::ArithmeticOverflow("interval out of range: the product is too large".into());
    let whole = |value: f64| match value.trunc() {
        whole if whole.is_finite() && whole.abs() <= f64::from(i32::MAX) => Ok(whole),
        _ => Err(too_large()),
    };
    let to_micros = |value: f64| (value * 1e6).round_ties_even() / 1e6;
    let (months, days) = (by(f64::from(interval.months)), by(f64::from(interval.days)));
    let (whole_months, whole_days) = (whole(months)?, whole(days)?);
    let more_days = to_micros((months - whole_months) * DAYS_PER_MONTH as f64);
    let mut seconds =
        to_micros((days - whole_days + more_days - more_days.trunc()) * SECONDS_PER_DAY);
    let mut all_days = whole_days + more_days.trunc();
    if seconds.abs() >= SECONDS_PER_DAY {
        all_days += (seconds / SECONDS_PER_DAY).trunc();
        seconds %= SECONDS_PER_DAY;
    }
    let time = by(interval.nanoseconds as f64 / 1e3) + seconds * 1e6;
    let nanos = time.round_ties_even() * 1e3;
    if nanos.is_nan() || nanos.abs() >= i64::MAX as f64 {
        return Err(too_large().into());
    }
    let (months, days) = (whole_months as i32, whole(all_days)? as i32);
    Ok(IntervalMonthDayNano::new(months, days, nanos as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against PostgreSQL 15: `interval '1 mon 1 day 01:00' * 1.5` and the like.
    #[test]
    fn fractions_go_down_to_days_and_time() {
        let hour = 3_600_000_000_000;
        let interval = IntervalMonthDayNano::new;
        for (given, factor, expected) in [
            (interval(1, 1, hour), 1.5, interval(1, 16, 13 * hour + hour / 2)),
            (interval(0, 1, 0), 0.5, interval(0, 0, 12 * hour)),
            (interval(1, 0, 0), 0.1, interval(0, 3, 0)),
            (interval(0, 2, 0), -2.0, interval(0, -4, 0)),
        ] {
            assert_eq!(times(given, |value| value * factor).expect("in range"), expected);
        }
        assert!(times(interval(1, 0, 0), |value| value * 1e10).is_err());
    }
}
