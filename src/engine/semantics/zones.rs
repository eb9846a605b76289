//! Time zones: what a moment is on the clocks of a zone, and the other way round.
//!
//! A cast between types with and without a zone is one on the clocks of the session's zone, whoever asked
//! for it: a statement, or the engine where values of both meet. The engine itself takes the zone of the
//! column's type, which is where its numbers count from and no more. Where both are UTC its cast is left
//! as it is: by that files and row groups can be skipped.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, Int64Array, ListArray};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, TimeUnit};
use datafusion::common::{
    DFSchema, DataFusionError, Result, ScalarValue, exec_err, not_impl_err, plan_err,
};
use datafusion::functions::utils::make_scalar_function;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility, binary_expr, cast, lit,
};

use crate::engine::settings;
use crate::values::encode::TimeZone;
use crate::values::template;
use crate::values::types::{pg_type, sql_name};

/// Functions whose result depends on the zone that a `timestamptz` is looked at in.
const ON_CLOCKS: &[&str] = &["age_between", "date_part", "date_trunc"];

/// `timezone(zone, moment)`, which PostgreSQL has for `moment AT TIME ZONE zone`: a `timestamptz`
/// becomes what the zone's clocks show, a `timestamp` the moment at which they show it.
///
/// `+05` is **west** of Greenwich as the name of a zone, which POSIX has it, and east in a moment, which ISO
/// 8601 has: `make_timestamptz` takes the second, by `timezone_of_moment(zone, timestamp)`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct AtTimeZone {
    of_moment: bool,
    signature: Signature,
}

impl AtTimeZone {
    pub(super) const NAME: &str = "timezone";

    pub(super) fn of_moment() -> Self {
        Self { of_moment: true, ..Self::default() }
    }
}

impl Default for AtTimeZone {
    fn default() -> Self {
        Self { of_moment: false, signature: Signature::any(2, Volatility::Immutable) }
    }
}

/// No zone has this name.
pub(super) fn unknown_zone(name: &str) -> DataFusionError {
    let (name, value) = ("TimeZone".into(), name.to_owned());
    DataFusionError::External(Box::new(settings::Error::Invalid {
        name,
        value,
        hint: String::new(),
    }))
}

impl ScalarUDFImpl for AtTimeZone {
    fn name(&self) -> &str {
        if self.of_moment { "timezone_of_moment" } else { Self::NAME }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let is_zone = |kind: &DataType| {
            matches!(kind, DataType::Interval(_)) || kind.is_string() || kind.is_null()
        };
        let returned = match types {
            [zone, _] if !is_zone(zone) => None,
            // A day begins on the session's clocks: see [`of_day`].
            [_, DataType::Date32] => Some(DataType::Timestamp(TimeUnit::Microsecond, None)),
            [_, moments] => shifted(moments),
            _ => None,
        };
        match returned {
            Some(returned) => Ok(returned),
            None => plan_err!(
                "function timezone does not exist for these types. No function matches the given \
                 name and argument types: it takes a zone's name, or an interval, and a timestamp"
            ),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let to = args.return_type();
        let [zone, moments] = args.args.as_slice() else {
            return exec_err!("timezone takes a zone and a moment");
        };
        let zones = match zone {
            ColumnarValue::Scalar(zone) => {
                let Some(zone) = self.zone(zone)? else {
                    return ScalarValue::try_from(to).map(ColumnarValue::Scalar);
                };
                return Ok(match moments {
                    ColumnarValue::Array(array) => ColumnarValue::Array(shift(array, &zone, to)?),
                    ColumnarValue::Scalar(value) => {
                        ColumnarValue::Scalar(shift_value(value, &zone, to)?)
                    }
                });
            }
            ColumnarValue::Array(zones) => zones,
        };
        // A zone for each row: those beside one another are mostly the same.
        let moments = moments.to_array(zones.len())?;
        let mut last: Option<(ScalarValue, Option<TimeZone>)> = None;
        let rows = (0..zones.len()).map(|row| {
            let given = ScalarValue::try_from_array(zones, row)?;
            if last.as_ref().is_none_or(|(known, _)| *known != given) {
                let zone = self.zone(&given)?;
                last = Some((given, zone));
            }
            match last.as_ref().and_then(|(_, zone)| zone.as_ref()) {
                Some(zone) => {
                    ScalarValue::try_from_array(&shift(&moments.slice(row, 1), zone, to)?, 0)
                }
                None => ScalarValue::try_from(to),
            }
        });
        let rows = rows.collect::<Result<Vec<_>>>()?;
        match rows.is_empty() {
            true => Ok(ColumnarValue::Array(arrow::array::new_empty_array(to))),
            false => ScalarValue::iter_to_array(rows).map(ColumnarValue::Array),
        }
    }
}

impl AtTimeZone {
    /// The zone that a name or an interval stands for; `None` for NULL.
    fn zone(&self, given: &ScalarValue) -> Result<Option<TimeZone>> {
        if given.is_null() {
            return Ok(None);
        }
        if let ScalarValue::IntervalMonthDayNano(Some(east)) = given {
            if east.months != 0 || east.days != 0 {
                return exec_err!("interval time zone must not include months or days");
            }
            let zone = TimeZone::east_by(east.nanoseconds / per_second(TimeUnit::Nanosecond));
            return match zone {
                Some(zone) => Ok(Some(zone)),
                None => exec_err!("interval time zone is out of range"),
            };
        }
        let name = given.try_as_str().flatten().unwrap_or_default();
        let zone = match self.of_moment {
            true => TimeZone::parse_of_moment(name),
            false => TimeZone::parse_posix(name),
        };
        zone.map(Some).ok_or_else(|| unknown_zone(name))
    }
}

/// What becomes of a type; `None` if it is not one of moments. Arrays are no argument that a statement can
/// give, but a cast can.
fn shifted(kind: &DataType) -> Option<DataType> {
    Some(match kind {
        DataType::Timestamp(unit, Some(_)) => DataType::Timestamp(*unit, None),
        DataType::Timestamp(unit, None) => DataType::Timestamp(*unit, Some("+00:00".into())),
        DataType::List(element) => {
            let kind = shifted(element.data_type())?;
            DataType::List(Arc::new(Field::new(element.name(), kind, element.is_nullable())))
        }
        _ => return None,
    })
}

fn shift_value(value: &ScalarValue, zone: &TimeZone, to: &DataType) -> Result<ScalarValue> {
    ScalarValue::try_from_array(&shift(&value.to_array()?, zone, to)?, 0)
}

fn shift(array: &ArrayRef, zone: &TimeZone, to: &DataType) -> Result<ArrayRef> {
    if let (DataType::List(_), DataType::List(element)) = (array.data_type(), to) {
        let list = array.as_list::<i32>();
        let (offsets, nulls) = (list.offsets().clone(), list.nulls().cloned());
        let values = shift(list.values(), zone, element.data_type())?;
        return Ok(Arc::new(ListArray::try_new(element.clone(), offsets, values, nulls)?));
    }
    let DataType::Timestamp(unit, from) = array.data_type() else {
        return exec_err!("AT TIME ZONE takes timestamps");
    };
    let per_second = per_second(*unit);
    let numbers = arrow::compute::cast(array, &DataType::Int64)?;
    let shifted: Int64Array = numbers.as_primitive::<Int64Type>().unary(|moment| {
        let seconds = moment.div_euclid(per_second);
        let offset = match from {
            Some(_) => i64::from(zone.offset_at(seconds)),
            None => -i64::from(zone.offset_at_local(seconds)),
        };
        moment.saturating_add(offset * per_second)
    });
    Ok(arrow::compute::cast(&shifted, to)?)
}

/// How many of a unit are a second.
pub(super) fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// The moment of a cast between a type with a zone and one without, as it is on the session's clocks: a cast
/// of it to the same type is left to do. `None` for any other cast, and where the engine's does the same.
pub(super) fn on_clocks(
    at_time_zone: &Arc<ScalarUDF>,
    expr: &Expr,
    from: &DataType,
    to: &DataType,
    session: &TimeZone,
) -> Option<Expr> {
    let zone = match (zone_of(from), zone_of(to)) {
        (Zone::Of(zone), Zone::None) | (Zone::None, Zone::Of(zone)) => zone,
        _ => return None,
    };
    if is_time(from) || counts_as_session(zone, session) {
        return None;
    }
    let moments = with_time_of_day(from);
    let expr = match moments == *from {
        true => expr.clone(),
        false => cast(expr.clone(), moments),
    };
    let name = Expr::Literal(ScalarValue::from(session.name()), None);
    Some(at_time_zone.call(vec![name, expr]))
}

/// The same of a constant that gets a zone, as a constant of the type that it is cast to: conditions on it
/// go down to files. `None` if it is no such cast.
///
/// # Errors
/// The constant is out of the range of the type.
pub(super) fn constant_on_clocks(
    expr: &Expr,
    to: &DataType,
    session: &TimeZone,
) -> Result<Option<Expr>> {
    let (Expr::Literal(value, None), DataType::Timestamp(_, Some(zone))) = (expr, to) else {
        return Ok(None);
    };
    let from = value.data_type();
    if zone_of(&from) != Zone::None || counts_as_session(zone, session) {
        return Ok(None);
    }
    let moments = value.cast_to(&with_time_of_day(&from)).map_err(|error| match from {
        // The engine's error is about numbers.
        DataType::Date32 => DataFusionError::External(Box::new(template::Error::DateOutOfRange)),
        _ => error,
    })?;
    let Some(kind) = shifted(&moments.data_type()) else { return Ok(None) };
    let moment = shift_value(&moments, session, &kind)?.cast_to(to)?;
    Ok(Some(Expr::Literal(moment, None)))
}

/// Whether the clocks of a type's zone are the session's, and the same all year.
pub(super) fn counts_as_session(zone: &str, session: &TimeZone) -> bool {
    is_utc(zone) && is_utc(session.name())
}

fn is_utc(zone: &str) -> bool {
    matches!(zone, "UTC" | "+00:00" | "Z" | "utc")
}

#[derive(PartialEq)]
enum Zone<'a> {
    Of(&'a str),
    /// A moment, a day or a time on clocks that are not said.
    None,
    /// Another type.
    Other,
}

fn zone_of(kind: &DataType) -> Zone<'_> {
    match kind {
        DataType::Timestamp(_, Some(zone)) => Zone::Of(zone),
        DataType::Timestamp(_, None)
        | DataType::Date32
        | DataType::Date64
        | DataType::Time32(_)
        | DataType::Time64(_) => Zone::None,
        DataType::List(element) => zone_of(element.data_type()),
        _ => Zone::Other,
    }
}

/// Whether it is a time, which has no day: no cast makes a moment of it.
fn is_time(kind: &DataType) -> bool {
    match kind {
        DataType::Time32(_) | DataType::Time64(_) => true,
        DataType::List(element) => is_time(element.data_type()),
        _ => false,
    }
}

/// The type of the moments with which days begin; any other type stays what it is.
fn with_time_of_day(kind: &DataType) -> DataType {
    match kind {
        DataType::Date32 | DataType::Date64 => DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::List(element) => {
            let kind = with_time_of_day(element.data_type());
            DataType::List(Arc::new(element.as_ref().clone().with_data_type(kind)))
        }
        other => other.clone(),
    }
}

/// `day AT TIME ZONE zone` as that of the moment with which the day begins.
pub(super) fn of_day(
    function: &ScalarFunction,
    schema: &DFSchema,
    session: &TimeZone,
) -> Option<Expr> {
    let [zone, day] = function.args.as_slice() else { return None };
    if function.func.name() != AtTimeZone::NAME || day.get_type(schema).ok()? != DataType::Date32 {
        return None;
    }
    let local = cast(day.clone(), DataType::Timestamp(TimeUnit::Microsecond, None));
    let name = Expr::Literal(ScalarValue::from(session.name()), None);
    let moment = function.func.call(vec![name, local]);
    Some(function.func.call(vec![zone.clone(), moment]))
}

/// An argument of a function that looks at clocks, brought to the session's zone.
pub(super) fn in_session(
    function: &str,
    arg: &Expr,
    field: &FieldRef,
    session: &TimeZone,
) -> Option<Expr> {
    match field.data_type() {
        DataType::Timestamp(unit, Some(zone))
            if ON_CLOCKS.contains(&function) && zone.as_ref() != session.name() =>
        {
            let kind = DataType::Timestamp(*unit, Some(session.name().into()));
            Some(cast(arg.clone(), kind))
        }
        _ => None,
    }
}

/// `clock_offset(zone, moment)`: how many seconds a zone's clocks are ahead of UTC.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ClockOffset {
    signature: Signature,
}

impl Default for ClockOffset {
    fn default() -> Self {
        Self { signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for ClockOffset {
    fn name(&self) -> &str {
        "clock_offset"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int32)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [ColumnarValue::Scalar(zone), moments] = args.args.as_slice() else {
            return exec_err!("{} takes one zone for all rows", self.name());
        };
        let Some(zone) = zone.try_as_str().flatten().and_then(TimeZone::parse) else {
            return exec_err!("{} takes the name of a zone", self.name());
        };
        let offsets = |args: &[ArrayRef]| -> Result<ArrayRef> {
            let DataType::Timestamp(unit, _) = args[0].data_type() else {
                return exec_err!("clocks show moments");
            };
            let per_second = per_second(*unit);
            let moments = arrow::compute::cast(&args[0], &DataType::Int64)?;
            let moments = moments.as_primitive::<Int64Type>();
            let offsets: Int32Array =
                moments.unary(|moment| zone.offset_at(moment.div_euclid(per_second)));
            Ok(Arc::new(offsets))
        };
        make_scalar_function(offsets, Vec::new())(std::slice::from_ref(moments))
    }
}

/// `extract(timezone FROM moment)` and the hours and minutes of it, which the engine has not.
///
/// # Errors
/// What it is asked of has no zone.
pub(super) fn part_of_zone(
    function: &ScalarFunction,
    schema: &DFSchema,
    session: &TimeZone,
) -> Result<Option<Expr>> {
    let [Expr::Literal(part, _), moment] = function.args.as_slice() else { return Ok(None) };
    let Some(part) = part.try_as_str().flatten().map(str::to_lowercase) else { return Ok(None) };
    let (unit, most) = match part.as_str() {
        "timezone" => (1, None),
        "timezone_hour" => (3600, None),
        "timezone_minute" => (60, Some(60)),
        _ => return Ok(None),
    };
    if function.func.name() != "date_part" {
        return Ok(None);
    }
    let kind = moment.get_type(schema)?;
    if !matches!(kind, DataType::Timestamp(_, Some(_))) {
        let kind = sql_name(pg_type(&Field::new("", kind, true)).name());
        return not_impl_err!("unit \"{part}\" not supported for type {kind}");
    }
    let name = Expr::Literal(ScalarValue::from(session.name()), None);
    let seconds = ScalarUDF::new_from_impl(ClockOffset::default());
    let seconds = seconds.call(vec![name, moment.clone()]);
    let units = binary_expr(seconds, Operator::Divide, lit(unit));
    Ok(Some(match most {
        Some(most) => binary_expr(units, Operator::Modulo, lit(most)),
        None => units,
    }))
}
