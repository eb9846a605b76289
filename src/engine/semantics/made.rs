//! Intervals and timestamps made of numbers, and intervals with as many days and months as there are in
//! them: functions of PostgreSQL that the engine lacks.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, IntervalMonthDayNanoArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{
    DataType, Float64Type, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, TimeUnit,
};
use arrow::error::ArrowError;
use datafusion::common::{DataFusionError, Result, exec_err};
use datafusion::functions::utils::make_scalar_function;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::intervals::INTERVAL;
use crate::values::template::Error;
use crate::values::{Day, days};

const MONTH_DAYS: i64 = 30;
const DAY_NANOS: i64 = 86_400_000_000_000;
const MINUTE_MICROS: i64 = 60_000_000;
const DAY_MICROS: i64 = 86_400_000_000;

/// What a function makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Making {
    /// `justify_hours(interval)`
    Days,
    /// `justify_days(interval)`
    Months,
    /// `justify_interval(interval)`
    Both,
    /// `make_interval(years, months, weeks, days, hours, minutes, seconds)`
    Interval,
    /// `make_timestamp(year, month, day, hour, minute, second)`
    Timestamp,
}

const FUNCTIONS: &[(&str, Making)] = &[
    ("justify_hours", Making::Days),
    ("justify_days", Making::Months),
    ("justify_interval", Making::Both),
    ("make_interval", Making::Interval),
    ("make_timestamp", Making::Timestamp),
];

#[derive(Debug, PartialEq, Eq, Hash)]
struct Made {
    name: &'static str,
    making: Making,
    signature: Signature,
}

pub(super) fn functions() -> impl Iterator<Item = Arc<ScalarUDF>> {
    FUNCTIONS.iter().map(|(name, making)| {
        let numbers = |count| {
            let mut kinds = vec![DataType::Int64; count];
            kinds.push(DataType::Float64);
            kinds
        };
        let kinds = match making {
            Making::Interval => numbers(6),
            Making::Timestamp => numbers(5),
            _ => vec![INTERVAL],
        };
        let signature = Signature::exact(kinds, Volatility::Immutable);
        Arc::new(ScalarUDF::new_from_impl(Made { name, making: *making, signature }))
    })
}

impl ScalarUDFImpl for Made {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.making {
            Making::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            _ => INTERVAL,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let making = self.making;
        make_scalar_function(move |args| made(making, args), Vec::new())(&args.args)
    }
}

fn made(making: Making, args: &[ArrayRef]) -> Result<ArrayRef> {
    let Some((last, numbers)) = args.split_last() else { return exec_err!("there is no argument") };
    if !matches!(making, Making::Interval | Making::Timestamp) {
        let intervals = last.as_primitive::<IntervalMonthDayNanoType>();
        let rows = intervals.iter().map(|interval| match interval {
            Some(interval) => justified(making, interval).ok_or_else(out_of_range).map(Some),
            None => Ok(None),
        });
        let rows = rows.collect::<Result<IntervalMonthDayNanoArray, ArrowError>>()?;
        return Ok(Arc::new(rows));
    }
    let seconds = last.as_primitive::<Float64Type>();
    let columns: Vec<_> = numbers.iter().map(|array| array.as_primitive::<Int64Type>()).collect();
    let rows = (0..last.len()).map(|row| {
        let numbers = columns.iter().map(|column| column.is_valid(row).then(|| column.value(row)));
        let numbers = numbers.collect::<Option<Vec<i64>>>()?;
        seconds.is_valid(row).then(|| (numbers, seconds.value(row)))
    });
    if making == Making::Timestamp {
        let rows = rows.map(|row| row.map(|(numbers, seconds)| timestamp(&numbers, seconds)));
        let rows = rows.map(Option::transpose).collect::<Result<TimestampMicrosecondArray>>()?;
        return Ok(Arc::new(rows));
    }
    let rows = rows.map(|row| row.map(|(numbers, seconds)| interval(&numbers, seconds)));
    let rows = rows.map(|row| row.map(|made| made.ok_or_else(out_of_range)).transpose());
    Ok(Arc::new(rows.collect::<Result<IntervalMonthDayNanoArray, ArrowError>>()?))
}

fn out_of_range() -> ArrowError {
    ArrowError::ArithmeticOverflow("interval out of range".into())
}

/// `interval_justify_hours`, `interval_justify_days` and `interval_justify_interval` of PostgreSQL's
/// `timestamp.c`: all parts get one sign.
fn justified(making: Making, interval: IntervalMonthDayNano) -> Option<IntervalMonthDayNano> {
    let (mut months, mut days, mut time) =
        (i64::from(interval.months), i64::from(interval.days), interval.nanoseconds);
    if making != Making::Months {
        days += time / DAY_NANOS;
        time %= DAY_NANOS;
    }
    if making != Making::Days {
        months += days / MONTH_DAYS;
        days %= MONTH_DAYS;
        // The sign of what is smaller counts where both become days and months.
        let rest = |days: i64| match (making, days) {
            (Making::Both, 0) => time.signum(),
            (_, days) => days.signum(),
        };
        if months.signum() * rest(days) < 0 {
            let sign = months.signum();
            (months, days) = (months - sign, days + sign * MONTH_DAYS);
        }
    }
    if making != Making::Months && days.signum() * time.signum() < 0 {
        let sign = days.signum();
        (days, time) = (days - sign, time + sign * DAY_NANOS);
    }
    let (months, days) = (i32::try_from(months).ok()?, i32::try_from(days).ok()?);
    Some(IntervalMonthDayNano::new(months, days, time))
}

fn interval(numbers: &[i64], seconds: f64) -> Option<IntervalMonthDayNano> {
    let [years, months, weeks, days, hours, minutes] = numbers else { return None };
    let months = years.checked_mul(12)?.checked_add(*months)?;
    let days = weeks.checked_mul(7)?.checked_add(*days)?;
    let minutes = hours.checked_mul(60)?.checked_add(*minutes)?;
    let micros = (seconds * 1e6).round_ties_even();
    let micros = (micros.abs() < i64::MAX as f64).then_some(micros as i64)?;
    let micros = minutes.checked_mul(MINUTE_MICROS)?.checked_add(micros)?;
    let (months, days) = (i32::try_from(months).ok()?, i32::try_from(days).ok()?);
    Some(IntervalMonthDayNano::new(months, days, micros.checked_mul(1000)?))
}

/// Microseconds since 1970 (`make_timestamp_internal` of PostgreSQL's `timestamp.c`).
fn timestamp(numbers: &[i64], seconds: f64) -> Result<i64> {
    let [year, month, day, hour, minute] = numbers else { return exec_err!("too few numbers") };
    let outside = |written: String| DataFusionError::External(Box::new(Error::OutOfRange(written)));
    let date = || -> Option<i64> {
        let (month, day) = (u32::try_from(*month).ok()?, u32::try_from(*day).ok()?);
        // There is no year 0: before 1 comes -1.
        let year = match i32::try_from(*year).ok()? {
            0 => return None,
            year if year < 0 => year + 1,
            year => year,
        };
        days(Day { year, month, day })
    };
    let time = || -> Option<i64> {
        let micros = (seconds * 1e6).round_ties_even();
        let fits = (0..=24).contains(hour) && (0..60).contains(minute);
        if !fits || !(0.0..=60e6).contains(&micros) {
            return None;
        }
        let micros = (hour * 60 + minute) * MINUTE_MICROS + micros as i64;
        (micros <= DAY_MICROS).then_some(micros)
    };
    let date = date().ok_or_else(|| outside(format!("{year}-{month:02}-{day:02}")))?;
    let time = time().ok_or_else(|| outside(format!("{hour}:{minute:02}:{seconds:02}")))?;
    let micros = date.checked_mul(DAY_MICROS).and_then(|date| date.checked_add(time));
    micros.ok_or_else(|| outside(format!("{year}-{month:02}-{day:02}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against PostgreSQL 15.
    #[test]
    fn parts_get_one_sign() {
        let hour = DAY_NANOS / 24;
        let of = |(months, days, hours)| IntervalMonthDayNano::new(months, days, hours * hour);
        for (making, given, expected) in [
            (Making::Days, (0, 1, 50), (0, 3, 2)),
            (Making::Days, (0, 2, -1), (0, 1, 23)),
            (Making::Days, (0, -2, 1), (0, -1, -23)),
            (Making::Months, (1, 65, 50), (3, 5, 50)),
            (Making::Months, (1, -1, 0), (0, 29, 0)),
            (Making::Both, (1, 0, -1), (0, 29, 23)),
            (Making::Both, (-1, 0, 1), (0, -29, -23)),
            (Making::Both, (1, 29, 30), (2, 0, 6)),
        ] {
            assert_eq!(justified(making, of(given)), Some(of(expected)), "{making:?} {given:?}");
        }
        assert_eq!(justified(Making::Both, of((i32::MAX, i32::MAX, 0))), None);
    }

    #[test]
    fn what_no_clock_shows_is_refused() {
        assert_eq!(timestamp(&[1970, 1, 2, 0, 0], 0.5).expect("a moment"), DAY_MICROS + 500_000);
        assert_eq!(timestamp(&[1970, 1, 1, 24, 0], 0.0).expect("a moment"), DAY_MICROS);
        for (numbers, seconds) in [
            ([0, 1, 1, 0, 0], 0.0),
            ([1970, 2, 30, 0, 0], 0.0),
            ([1970, 1, 1, 24, 0], 1.0),
            ([1970, 1, 1, 0, 60], 0.0),
            ([1970, 1, 1, 0, 0], -0.5),
            ([1970, 1, 1, 0, 0], f64::NAN),
            ([i64::MAX, 1, 1, 0, 0], 0.0),
        ] {
            assert!(timestamp(&numbers, seconds).is_err(), "{numbers:?} {seconds}");
        }
    }
}
