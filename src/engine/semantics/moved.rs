//! Moments with a zone, moved by intervals: months and days are counted on the session's clocks, hours are not
//! (`timestamptz_pl_interval` of PostgreSQL's `timestamp.c`). The engine counts on the clocks of the
//! column's type, and fails where they do not show a time.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::compute::cast as cast_array;
use arrow::datatypes::{
    DataType, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, TimeUnit,
};
use datafusion::common::{DFSchema, DataFusionError, Result, ScalarValue, exec_err, plan_err};
use datafusion::functions::utils::make_scalar_function;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility, cast,
};

use super::intervals::INTERVAL;
use super::zones::{counts_as_session, per_second};
use crate::values::encode::TimeZone;
use crate::values::template::Error;
use crate::values::{Day, day, days};

const DAY_SECONDS: i64 = 86_400;
const NANOS: i64 = 1_000_000_000;

/// `moment_plus(zone, moment, interval)`, or `moment_minus`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Moved {
    minus: bool,
    signature: Signature,
}

/// The functions that stand for the engine's operators.
#[derive(Debug)]
pub(super) struct Sums {
    plus: Arc<ScalarUDF>,
    minus: Arc<ScalarUDF>,
}

impl Default for Sums {
    fn default() -> Self {
        let moved = |minus| {
            let signature = Signature::any(3, Volatility::Immutable);
            Arc::new(ScalarUDF::new_from_impl(Moved { minus, signature }))
        };
        Self { plus: moved(false), minus: moved(true) }
    }
}

pub(super) fn functions() -> [Arc<ScalarUDF>; 2] {
    let Sums { plus, minus } = Sums::default();
    [plus, minus]
}

impl Sums {
    /// The sum of a moment with a zone and an interval; `None` for anything else, and where the engine's
    /// operator does the same.
    pub(super) fn call(
        &self,
        (left, op, right): (&Expr, Operator, &Expr),
        schema: &DFSchema,
        session: &TimeZone,
    ) -> Option<Expr> {
        let function = match op {
            Operator::Plus => &self.plus,
            Operator::Minus => &self.minus,
            _ => return None,
        };
        let (of_left, of_right) = (left.get_type(schema).ok()?, right.get_type(schema).ok()?);
        let (moment, kind, interval, of_interval) = match (&of_left, &of_right) {
            (DataType::Timestamp(..), DataType::Interval(_)) => (left, of_left, right, of_right),
            (DataType::Interval(_), DataType::Timestamp(..)) if op == Operator::Plus => {
                (right, of_right, left, of_left)
            }
            _ => return None,
        };
        let DataType::Timestamp(_, Some(zone)) = kind else { return None };
        if counts_as_session(&zone, session) || is_of_hours(interval) {
            return None;
        }
        let interval = match of_interval == INTERVAL {
            true => interval.clone(),
            false => cast(interval.clone(), INTERVAL),
        };
        let name = Expr::Literal(ScalarValue::from(session.name()), None);
        Some(function.call(vec![name, moment.clone(), interval]))
    }
}

/// Whether an interval is a constant without days and months: no clock counts then.
pub(super) fn is_of_hours(interval: &Expr) -> bool {
    match interval {
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) => {
            interval.months == 0 && interval.days == 0
        }
        _ => false,
    }
}

impl ScalarUDFImpl for Moved {
    fn name(&self) -> &str {
        if self.minus { "moment_minus" } else { "moment_plus" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [_, moment @ DataType::Timestamp(..), _] => Ok(moment.clone()),
            _ => plan_err!("{} takes a zone, a moment and an interval", self.name()),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [ColumnarValue::Scalar(zone), moved @ ..] = args.args.as_slice() else {
            return exec_err!("{} takes one zone for all rows", self.name());
        };
        let Some(zone) = zone.try_as_str().flatten().and_then(TimeZone::parse) else {
            return exec_err!("{} takes the name of a zone", self.name());
        };
        make_scalar_function(|args| self.moved(args, &zone), Vec::new())(moved)
    }
}

impl Moved {
    fn moved(&self, args: &[ArrayRef], zone: &TimeZone) -> Result<ArrayRef> {
        let [moments, intervals] = args else {
            return exec_err!("{} takes a moment and an interval", self.name());
        };
        let DataType::Timestamp(unit, _) = moments.data_type() else {
            return exec_err!("{} takes moments", self.name());
        };
        let clocks = Clocks { zone, per_second: per_second(*unit) };
        let numbers = cast_array(moments, &DataType::Int64)?;
        let intervals = cast_array(intervals, &INTERVAL)?;
        let pairs = (numbers.as_primitive::<Int64Type>().iter())
            .zip(intervals.as_primitive::<IntervalMonthDayNanoType>().iter());
        let rows = pairs.map(|pair| match pair {
            (Some(moment), Some(interval)) => {
                let interval = match self.minus {
                    true => negative(interval).ok_or_else(out_of_range)?,
                    false => interval,
                };
                clocks.moved(moment, interval).ok_or_else(out_of_range).map(Some)
            }
            _ => Ok(None),
        });
        let rows = rows.collect::<Result<Int64Array>>()?;
        Ok(cast_array(&rows, moments.data_type())?)
    }
}

fn out_of_range() -> DataFusionError {
    DataFusionError::External(Box::new(Error::MomentOutOfRange))
}

fn negative(interval: IntervalMonthDayNano) -> Option<IntervalMonthDayNano> {
    Some(IntervalMonthDayNano::new(
        interval.months.checked_neg()?,
        interval.days.checked_neg()?,
        interval.nanoseconds.checked_neg()?,
    ))
}

/// The clocks of a zone, for moments of which so many are a second.
pub(super) struct Clocks<'a> {
    zone: &'a TimeZone,
    per_second: i64,
}

impl<'a> Clocks<'a> {
    pub(super) fn of_micros(zone: &'a TimeZone) -> Self {
        Self { zone, per_second: per_second(TimeUnit::Microsecond) }
    }

    /// Months first, then days, each at a time that the clocks show; the hours then pass as they do. `None`
    /// if that is out of range.
    pub(super) fn moved(&self, moment: i64, interval: IntervalMonthDayNano) -> Option<i64> {
        let IntervalMonthDayNano { months, days, nanoseconds } = interval;
        let moment = match months {
            0 => moment,
            months => self.on_day(moment, |number| by_months(number, months))?,
        };
        let moment = match days {
            0 => moment,
            days => self.on_day(moment, |number| number.checked_add(days.into()))?,
        };
        moment.checked_add(nanoseconds / (NANOS / self.per_second))
    }

    /// The moment at which the clocks show the same time on another day.
    fn on_day(&self, moment: i64, other: impl Fn(i64) -> Option<i64>) -> Option<i64> {
        let (second, day) = (self.per_second, DAY_SECONDS * self.per_second);
        let offset = i64::from(self.zone.offset_at(moment.div_euclid(second)));
        let local = moment.checked_add(offset * second)?;
        let time = local.rem_euclid(day);
        let local = other(local.div_euclid(day))?.checked_mul(day)?.checked_add(time)?;
        let offset = i64::from(self.zone.offset_at_local(local.div_euclid(second)));
        local.checked_sub(offset * second)
    }
}

/// The same day of another month, or its last one; days are counted from 1970.
fn by_months(number: i64, months: i32) -> Option<i64> {
    let Day { year, month, day } = day(number);
    let months = i64::from(year) * 12 + i64::from(month) - 1 + i64::from(months);
    let year = i32::try_from(months.div_euclid(12)).ok()?;
    let month = u32::try_from(months.rem_euclid(12)).ok()? + 1;
    (day.min(28)..=day).rev().find_map(|day| days(Day { year, month, day }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3600 * 1_000_000;

    /// Against PostgreSQL 15.
    #[test]
    fn days_are_those_of_the_clocks() {
        let zone = TimeZone::parse("Europe/Berlin").expect("a zone");
        let clocks = Clocks { zone: &zone, per_second: 1_000_000 };
        let at = |year, month, day, hours: i64| {
            days(Day { year, month, day }).expect("a day") * 24 * HOUR + hours * HOUR
        };
        let hour = 3_600_000_000_000;
        for (moment, (months, days, hours), expected) in [
            // 2026-03-28 02:00 and a day: that hour is skipped, and the clocks show 03:00.
            (at(2026, 3, 28, 1), (0, 1, 0), at(2026, 3, 29, 1)),
            (at(2026, 3, 28, 12), (0, 1, 0), at(2026, 3, 29, 11)),
            (at(2026, 3, 28, 12), (0, 0, 24), at(2026, 3, 29, 12)),
            (at(2026, 3, 28, 12), (0, -1, 0), at(2026, 3, 27, 12)),
            // 2026-10-24 02:00 and a day: the second of two such hours.
            (at(2026, 10, 24, 0), (0, 1, 0), at(2026, 10, 25, 1)),
            (at(2026, 1, 31, 0), (1, 0, 0), at(2026, 2, 28, 0)),
            (at(2026, 1, 31, 0), (2, 1, 5), at(2026, 4, 1, 4)),
            (at(2024, 2, 29, 12), (-12, 0, 0), at(2023, 2, 28, 12)),
        ] {
            let interval = IntervalMonthDayNano::new(months, days, hours * hour);
            assert_eq!(clocks.moved(moment, interval), Some(expected), "{moment} {interval:?}");
        }
    }

    #[test]
    fn what_is_out_of_range_is_none() {
        let zone = TimeZone::parse("Europe/Berlin").expect("a zone");
        let clocks = Clocks { zone: &zone, per_second: 1_000_000 };
        let years = IntervalMonthDayNano::new(i32::MAX, 0, 0);
        assert_eq!(clocks.moved(0, years), None);
        assert_eq!(negative(IntervalMonthDayNano::new(i32::MIN, 0, 0)), None);
    }
}
