//! Timestamps as PostgreSQL cuts them off and subtracts them: in all of its range, where the engine counts
//! nanoseconds, which end in 1677 and 2262.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, IntervalMonthDayNanoArray, PrimitiveArray,
};
use arrow::buffer::BooleanBuffer;
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Field, FieldRef, Int64Type, IntervalMonthDayNano, TimeUnit, TimestampMicrosecondType,
};
use arrow::error::ArrowError;
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::functions::utils::make_scalar_function;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

use super::intervals::INTERVAL;
use super::zones::unknown_zone;
use crate::values::encode::TimeZone;
use crate::values::types::{is_text, pg_type, sql_name};
use crate::values::{Day, day, days};

const MICROS: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);
const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

/// `timestamp_difference(a, b)` is `a - b`: days and the time beside them (`timestamp_mi` of PostgreSQL's
/// `timestamp.c`), where the engine has a time alone.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Difference {
    signature: Signature,
}

impl Default for Difference {
    fn default() -> Self {
        Self { signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Difference {
    fn name(&self) -> &str {
        "timestamp_difference"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(INTERVAL)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        make_scalar_function(differences, Vec::new())(&args.args)
    }
}

fn differences(args: &[ArrayRef]) -> Result<ArrayRef> {
    let micros = |array: &ArrayRef| -> Result<ArrayRef> {
        let zone = match array.data_type() {
            DataType::Timestamp(_, zone) => zone.clone(),
            _ => None,
        };
        let moments = cast(array, &DataType::Timestamp(TimeUnit::Microsecond, zone))?;
        Ok(cast(&moments, &DataType::Int64)?)
    };
    let (left, right) = (micros(&args[0])?, micros(&args[1])?);
    let pairs = left.as_primitive::<Int64Type>().iter().zip(right.as_primitive::<Int64Type>());
    let rows = pairs.map(|pair| match pair {
        (Some(left), Some(right)) => {
            let out_of_range = || ArrowError::ArithmeticOverflow("interval out of range".into());
            let between = left.checked_sub(right).ok_or_else(out_of_range)?;
            let days = i32::try_from(between / DAY).map_err(|_| out_of_range())?;
            Ok(Some(IntervalMonthDayNano::new(0, days, between % DAY * 1000)))
        }
        _ => Ok(None),
    });
    Ok(Arc::new(rows.collect::<Result<IntervalMonthDayNanoArray>>()?))
}

/// `age_between(a, b)`, which PostgreSQL calls `age`: years, months and days of the calendar and the time
/// beside them (`timestamp_age` of PostgreSQL's `timestamp.c`).
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Age {
    signature: Signature,
}

impl Default for Age {
    fn default() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Age {
    fn name(&self) -> &str {
        "age_between"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        // Beside a moment with a zone any other is one of that zone.
        let zone = types.iter().find_map(|kind| match kind {
            DataType::Timestamp(_, zone) => zone.clone(),
            _ => None,
        });
        let moments = DataType::Timestamp(TimeUnit::Microsecond, zone);
        let moment = |kind: &DataType| match kind {
            DataType::Timestamp(_, Some(zone)) => {
                Ok(DataType::Timestamp(TimeUnit::Microsecond, Some(zone.clone())))
            }
            DataType::Timestamp(_, None) | DataType::Date32 | DataType::Null => Ok(moments.clone()),
            text if is_text(text) => Ok(moments.clone()),
            other => plan_err!(
                "function age({other}, ...) does not exist. No function matches the given name and \
                 argument types"
            ),
        };
        match types {
            [left, right] => Ok(vec![moment(left)?, moment(right)?]),
            _ => plan_err!(
                "function age does not exist for {} arguments. No function matches the given name \
                 and argument types: it takes two moments",
                types.len()
            ),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(INTERVAL)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        make_scalar_function(ages, Vec::new())(&args.args)
    }
}

/// `age(moment)`, which is how long that is before the day that has begun. The daemon's own function of that
/// name counts transactions.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct AgeSince {
    inner: Arc<ScalarUDF>,
    signature: Signature,
}

impl AgeSince {
    pub(super) const NAME: &str = "age";

    pub(super) fn new(inner: Arc<ScalarUDF>) -> Self {
        Self { inner, signature: Signature::user_defined(Volatility::Stable) }
    }

    /// Whether it is this function of such a type, for which [`Age`] stands.
    pub(super) fn is_of(types: &[DataType]) -> bool {
        matches!(types, [DataType::Timestamp(..) | DataType::Date32])
    }
}

impl ScalarUDFImpl for AgeSince {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            moment if Self::is_of(moment) => Ok(moment.to_vec()),
            [number] if number.is_integer() || number.is_null() => Ok(vec![DataType::Int64]),
            _ => plan_err!(
                "function age does not exist for these types. No function matches the given name \
                 and argument types: it takes moments"
            ),
        }
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match Self::is_of(types) {
            true => Ok(INTERVAL),
            false => self.inner.return_type(types),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.inner.invoke_with_args(args)
    }
}

fn ages(args: &[ArrayRef]) -> Result<ArrayRef> {
    let on_clocks = |array: &ArrayRef| -> PrimitiveArray<TimestampMicrosecondType> {
        let moments = array.as_primitive::<TimestampMicrosecondType>();
        let zone = moments.timezone().and_then(TimeZone::parse).unwrap_or_default();
        moments.unary(|micros| {
            let offset = i64::from(zone.offset_at(micros.div_euclid(SECOND))) * SECOND;
            micros.saturating_add(offset)
        })
    };
    let (left, right) = (on_clocks(&args[0]), on_clocks(&args[1]));
    let rows = left.iter().zip(&right).map(|pair| Some(age(pair.0?, pair.1?)));
    Ok(Arc::new(rows.collect::<IntervalMonthDayNanoArray>()))
}

fn age(left: i64, right: i64) -> IntervalMonthDayNano {
    let (earlier, later) = (left.min(right), left.max(right));
    let (from, to) = (day(earlier.div_euclid(DAY)), day(later.div_euclid(DAY)));
    let mut time = later.rem_euclid(DAY) - earlier.rem_euclid(DAY);
    let mut days = i64::from(to.day) - i64::from(from.day);
    let mut months = (to.year - from.year) * 12 + to.month as i32 - from.month as i32;
    if time < 0 {
        time += DAY;
        days -= 1;
    }
    if days < 0 {
        // The month of the one that is asked for second has that many days, or of the first if it is less.
        days += month_days(if left < right { day(left.div_euclid(DAY)) } else { from });
        months -= 1;
    }
    let sign = if left < right { -1 } else { 1 };
    IntervalMonthDayNano::new(sign * months, sign * days as i32, i64::from(sign) * time * 1000)
}

/// How many days a day's month has.
fn month_days(of: Day) -> i64 {
    let first = |year, month| days(Day { year, month, day: 1 }).unwrap_or_default();
    match of.month {
        12 => 31,
        month => first(of.year, month + 1) - first(of.year, month),
    }
}

/// `date_trunc(unit, moment)`, of timestamps in microseconds, and `date_trunc(unit, moment, zone)` on the
/// clocks of a zone that is said.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct DateTrunc {
    inner: Arc<ScalarUDF>,
    signature: Signature,
}

impl DateTrunc {
    pub(super) fn new(inner: Arc<ScalarUDF>) -> Self {
        Self { inner, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

/// What is left of a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Micros(i64),
    Week,
    Months(i32),
    /// Years in a row, and the number of the first of them.
    Years(i32, i32),
}

impl Unit {
    fn named(name: &str) -> Option<Self> {
        Some(match name.to_lowercase().as_str() {
            "microsecond" | "microseconds" => Self::Micros(1),
            "millisecond" | "milliseconds" => Self::Micros(1000),
            "second" | "seconds" => Self::Micros(SECOND),
            "minute" | "minutes" => Self::Micros(60 * SECOND),
            "hour" | "hours" => Self::Micros(3600 * SECOND),
            "day" | "days" => Self::Micros(DAY),
            "week" | "weeks" => Self::Week,
            "month" | "months" => Self::Months(1),
            "quarter" | "quarters" => Self::Months(3),
            "year" | "years" => Self::Years(1, 0),
            "decade" | "decades" => Self::Years(10, 0),
            "century" | "centuries" => Self::Years(100, 1),
            "millennium" | "millennia" => Self::Years(1000, 1),
            _ => return None,
        })
    }

    /// A moment on the clocks of a zone, cut off.
    fn truncated(self, micros: i64) -> i64 {
        let number = micros.div_euclid(DAY);
        let first = |year: i32, month: i32| {
            let first = Day { year, month: month.unsigned_abs(), day: 1 };
            days(first).unwrap_or(number) * DAY
        };
        let Day { year, month, .. } = day(number);
        let month = month as i32;
        match self {
            Self::Micros(unit) => micros - micros.rem_euclid(unit),
            // 1970-01-01 was a Thursday.
            Self::Week => (number - (number + 3).rem_euclid(7)) * DAY,
            Self::Months(months) => first(year, month - (month - 1) % months),
            Self::Years(years, from) => first(year - (year - from).rem_euclid(years), 1),
        }
    }
}

impl ScalarUDFImpl for DateTrunc {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let (unit, moment) = match types {
            [unit, moment] => (unit, moment),
            [_, moment, zone] => {
                let zoned = match moment {
                    DataType::Timestamp(_, Some(zone)) => Some(zone.clone()),
                    DataType::Timestamp(_, None) | DataType::Date32 | DataType::Null => {
                        Some("+00:00".into())
                    }
                    text if is_text(text) => Some("+00:00".into()),
                    _ => None,
                };
                if zoned.is_none() || !(is_text(zone) || zone.is_null()) {
                    return no_function("date_trunc", types);
                }
                let moment = DataType::Timestamp(TimeUnit::Microsecond, zoned);
                return Ok(vec![DataType::Utf8, moment, DataType::Utf8]);
            }
            _ => return no_function("date_trunc", types),
        };
        let moment = match moment {
            DataType::Timestamp(..) | DataType::Time64(_) | DataType::Time32(_) => moment.clone(),
            DataType::Date32 | DataType::Date64 | DataType::Null => MICROS,
            text if is_text(text) => MICROS,
            _ => return no_function("date_trunc", &[unit.clone(), moment.clone()]),
        };
        Ok(vec![DataType::Utf8, moment])
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types.get(1).cloned().unwrap_or(MICROS))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        if let [_, moment, _] = args.arg_fields {
            return Ok(Arc::new(Field::new(self.name(), moment.data_type().clone(), true)));
        }
        self.inner.return_field_from_args(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if args.args.len() == 3 {
            return make_scalar_function(in_zones, Vec::new())(&args.args);
        }
        let [ColumnarValue::Scalar(unit), moments] = args.args.as_slice() else {
            return self.inner.invoke_with_args(args);
        };
        let DataType::Timestamp(TimeUnit::Microsecond, zone) = moments.data_type() else {
            return self.inner.invoke_with_args(args);
        };
        let unit = unit.try_as_str().flatten().and_then(Unit::named);
        let known = zone.as_deref().map_or(Some(TimeZone::utc()), TimeZone::parse);
        let (Some(unit), Some(known)) = (unit, known) else {
            return self.inner.invoke_with_args(args);
        };
        let each = |array: &ArrayRef| -> ArrayRef {
            let moments = array.as_primitive::<TimestampMicrosecondType>();
            let truncated: PrimitiveArray<TimestampMicrosecondType> =
                moments.unary(|micros| in_zone(unit, micros, &known));
            Arc::new(truncated.with_timezone_opt(zone.clone()))
        };
        Ok(match moments {
            ColumnarValue::Array(array) => ColumnarValue::Array(each(array)),
            ColumnarValue::Scalar(value) => {
                let array = each(&value.to_array()?);
                ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?)
            }
        })
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        match inputs.len() {
            // What one clock shows need not follow what another does.
            3 => Ok(SortProperties::Unordered),
            _ => self.inner.output_ordering(inputs),
        }
    }
}

/// # Errors
/// There is no function of these types, always.
pub(super) fn no_function<T>(name: &str, types: &[DataType]) -> Result<T> {
    let named = |kind: &DataType| match kind {
        DataType::Null => "unknown".to_owned(),
        kind => sql_name(pg_type(&Field::new("", kind.clone(), true)).name()),
    };
    plan_err!(
        "function {name}({}) does not exist. No function matches the given name and argument types",
        types.iter().map(named).collect::<Vec<_>>().join(", ")
    )
}

/// Moments, each cut off to its unit on the clocks of its zone: mostly both are the same for all rows.
fn in_zones(args: &[ArrayRef]) -> Result<ArrayRef> {
    let [units, moments, zones] = args else {
        return exec_err!("date_trunc takes three arguments");
    };
    let (units, zones) = (units.as_string::<i32>(), zones.as_string::<i32>());
    let moments = moments.as_primitive::<TimestampMicrosecondType>();
    let mut unit: Option<(&str, Unit)> = None;
    let mut zone: Option<(&str, TimeZone)> = None;
    let mut rows = Vec::with_capacity(moments.len());
    for row in 0..moments.len() {
        if args.iter().any(|array| array.is_null(row)) {
            rows.push(None);
            continue;
        }
        let name = units.value(row);
        if unit.is_none_or(|(last, _)| last != name) {
            let Some(named) = Unit::named(name) else {
                return exec_err!("Unsupported date_trunc granularity: '{name}'");
            };
            unit = Some((name, named));
        }
        let name = zones.value(row);
        if zone.as_ref().is_none_or(|(last, _)| *last != name) {
            let named = TimeZone::parse_posix(name).ok_or_else(|| unknown_zone(name))?;
            zone = Some((name, named));
        }
        let both = unit.zip(zone.as_ref());
        rows.push(both.map(|((_, unit), (_, zone))| in_zone(unit, moments.value(row), zone)));
    }
    let rows = PrimitiveArray::<TimestampMicrosecondType>::from(rows);
    Ok(Arc::new(rows.with_timezone_opt(moments.timezone())))
}

/// `isfinite(moment)`: no moment is beyond all others here.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct IsFinite {
    signature: Signature,
}

impl Default for IsFinite {
    fn default() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for IsFinite {
    fn name(&self) -> &str {
        "isfinite"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [
                DataType::Date32
                | DataType::Timestamp(..)
                | DataType::Time64(_)
                | DataType::Interval(_)
                | DataType::Null,
            ] => Ok(types.to_vec()),
            _ => no_function(self.name(), types),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let finite = |args: &[ArrayRef]| -> Result<ArrayRef> {
            let all = BooleanBuffer::new_set(args[0].len());
            Ok(Arc::new(BooleanArray::new(all, args[0].logical_nulls())))
        };
        make_scalar_function(finite, Vec::new())(&args.args)
    }
}

fn in_zone(unit: Unit, micros: i64, zone: &TimeZone) -> i64 {
    let offset = |seconds: i32| i64::from(seconds) * SECOND;
    let local = micros.saturating_add(offset(zone.offset_at(micros.div_euclid(SECOND))));
    let truncated = unit.truncated(local);
    match unit {
        // An hour that comes twice keeps its own place.
        Unit::Micros(unit) if unit < DAY => micros - (local - truncated),
        _ => truncated - offset(zone.offset_at_local(truncated.div_euclid(SECOND))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against PostgreSQL 15.
    #[test]
    fn ages_are_those_of_the_calendar() {
        let at = |year, month, day, hours: i64| {
            days(Day { year, month, day }).expect("a day") * DAY + hours * 3600 * SECOND
        };
        let hour = 3_600_000_000_000;
        for (left, right, months, days, hours) in [
            (at(2024, 3, 1, 0), at(2024, 1, 31, 0), 1, 1, 0),
            (at(2024, 1, 31, 0), at(2024, 3, 1, 12), -1, -1, -12),
            (at(2024, 1, 31, 12), at(2024, 2, 29, 11), 0, -28, -23),
            (at(2024, 2, 28, 0), at(2020, 2, 29, 0), 47, 28, 0),
            (at(1, 1, 1, 0), at(9999, 12, 31, 0), -(9998 * 12 + 11), -30, 0),
        ] {
            let expected = IntervalMonthDayNano::new(months, days, hours * hour);
            assert_eq!(age(left, right), expected);
        }
    }

    /// Against PostgreSQL 15.
    #[test]
    fn moments_are_cut_off_in_any_year() {
        let at = |year, month, day| days(Day { year, month, day }).expect("a day") * DAY;
        let noon = |year, month, day| at(year, month, day) + DAY / 2;
        for (unit, moment, expected) in [
            ("month", noon(1, 1, 31), at(1, 1, 1)),
            ("quarter", noon(9999, 12, 31), at(9999, 10, 1)),
            ("week", noon(1, 1, 1), at(1, 1, 1)),
            ("week", noon(2024, 2, 29), at(2024, 2, 26)),
            ("year", noon(1677, 5, 5), at(1677, 1, 1)),
            ("decade", noon(1999, 5, 5), at(1990, 1, 1)),
            ("century", noon(2000, 5, 5), at(1901, 1, 1)),
            ("millennium", noon(2001, 5, 5), at(2001, 1, 1)),
            ("hour", at(1, 1, 1) - 1, at(1, 1, 1) - 3600 * SECOND),
        ] {
            let truncated = Unit::named(unit).expect("a unit").truncated(moment);
            assert_eq!(truncated, expected, "{unit}");
        }
    }
}
