//! `generate_series` of moments with a zone, whose days and months are counted on the session's clocks
//! (`generate_series_timestamptz` of PostgreSQL's `timestamp.c`): each moment is the one before it and a step.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, ListArray, PrimitiveArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Field, IntervalMonthDayNano, IntervalMonthDayNanoType, TimeUnit,
    TimestampMicrosecondType,
};
use datafusion::common::{
    DFSchema, DataFusionError, Result, ScalarValue, exec_err, plan_datafusion_err, plan_err,
};
use datafusion::functions::utils::make_scalar_function;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

use super::bounded::{LARGEST_STEP, LARGEST_VALUE, TooLarge};
use super::intervals::{INTERVAL, length};
use super::moved::{Clocks, is_of_hours};
use super::zones::counts_as_session;
use crate::values::encode::TimeZone;

/// The function that it takes the place of.
const SERIES: &str = "generate_series";

/// `moment_series(zone, first, last, step)`
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct MomentSeries {
    signature: Signature,
}

impl Default for MomentSeries {
    fn default() -> Self {
        Self { signature: Signature::any(4, Volatility::Immutable) }
    }
}

/// A call of the engine's function that counts on clocks, as one that counts on the session's; `None` for
/// any other call.
pub(super) fn on_session_clocks(
    function: &ScalarFunction,
    schema: &DFSchema,
    session: &TimeZone,
) -> Option<Expr> {
    let [first, last, step] = function.args.as_slice() else { return None };
    if function.func.name() != SERIES || is_of_hours(step) {
        return None;
    }
    let kind = first.get_type(schema).ok()?;
    let DataType::Timestamp(_, Some(zone)) = kind else { return None };
    if counts_as_session(&zone, session) {
        return None;
    }
    let name = Expr::Literal(ScalarValue::from(session.name()), None);
    let args = vec![name, first.clone(), last.clone(), step.clone()];
    Some(ScalarUDF::new_from_impl(MomentSeries::default()).call(args))
}

/// The moments of a series of constants, in microseconds; `None` if the engine makes the same series.
///
/// # Errors
/// The step is zero, or there are too many.
pub(in crate::engine) fn constant_series(
    [first, last]: [i64; 2],
    step: IntervalMonthDayNano,
    session: Option<&str>,
) -> Result<Option<Vec<i64>>> {
    let zone = session.and_then(TimeZone::parse).unwrap_or_default();
    if zone == TimeZone::utc() || step.months == 0 && step.days == 0 {
        return Ok(None);
    }
    let mut moments = Vec::new();
    series(&zone, [first, last], step, &mut moments, LARGEST_VALUE)?;
    Ok(Some(moments))
}

/// Adds a series to others, which must not take more than so many bytes together.
fn series(
    zone: &TimeZone,
    [first, last]: [i64; 2],
    step: IntervalMonthDayNano,
    moments: &mut Vec<i64>,
    limit: u64,
) -> Result<()> {
    let up = match length(step) {
        0 => return Err(plan_datafusion_err!("Step interval cannot be zero")),
        length => length > 0,
    };
    let clocks = Clocks::of_micros(zone);
    let (start, mut next) = (moments.len(), Some(first));
    while let Some(moment) =
        next.filter(|moment| if up { *moment <= last } else { *moment >= last })
    {
        moments.push(moment);
        let bytes = moments.len() as u64 * 8;
        if bytes > limit || (moments.len() - start) as u64 * 8 > LARGEST_VALUE {
            let error =
                TooLarge { function: SERIES.into(), bytes, limit: limit.min(LARGEST_VALUE) };
            return Err(DataFusionError::External(Box::new(error)));
        }
        // Beyond the range there is no moment, so that none is before the last one.
        next = clocks.moved(moment, step);
    }
    Ok(())
}

impl ScalarUDFImpl for MomentSeries {
    fn name(&self) -> &str {
        "moment_series"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    /// That of the engine's function.
    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [_, DataType::Timestamp(_, zone), _, _] => {
                let kind = DataType::Timestamp(TimeUnit::Nanosecond, zone.clone());
                Ok(DataType::List(Arc::new(Field::new_list_field(kind, true))))
            }
            _ => plan_err!("{} takes a zone, two moments and a step", self.name()),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [ColumnarValue::Scalar(zone), series @ ..] = args.args.as_slice() else {
            return exec_err!("{} takes one zone for all rows", self.name());
        };
        let Some(zone) = zone.try_as_str().flatten().and_then(TimeZone::parse) else {
            return exec_err!("{} takes the name of a zone", self.name());
        };
        let DataType::List(element) = args.return_type() else {
            return exec_err!("{} gives lists", self.name());
        };
        make_scalar_function(|args| lists(args, &zone, element.data_type()), Vec::new())(series)
    }
}

fn lists(args: &[ArrayRef], zone: &TimeZone, element: &DataType) -> Result<ArrayRef> {
    let [first, last, step] = args else { return exec_err!("a series has two ends and a step") };
    let of = |moments: &ArrayRef| -> Result<PrimitiveArray<TimestampMicrosecondType>> {
        let zone = match element {
            DataType::Timestamp(_, zone) => zone.clone(),
            _ => None,
        };
        let moments = cast(moments, &DataType::Timestamp(TimeUnit::Microsecond, zone))?;
        Ok(moments.as_primitive::<TimestampMicrosecondType>().clone())
    };
    let (first, last, step) = (of(first)?, of(last)?, cast(step, &INTERVAL)?);
    let steps = step.as_primitive::<IntervalMonthDayNanoType>();
    let (mut moments, mut lengths, mut valid) = (Vec::new(), Vec::new(), Vec::new());
    for ((first, last), step) in first.iter().zip(&last).zip(steps) {
        let start = moments.len();
        if let (Some(first), Some(last), Some(step)) = (first, last, step) {
            series(zone, [first, last], step, &mut moments, LARGEST_STEP)?;
            valid.push(true);
        } else {
            valid.push(false);
        }
        lengths.push(moments.len() - start);
    }
    let moments = PrimitiveArray::<TimestampMicrosecondType>::from(moments);
    let moments = match element {
        DataType::Timestamp(_, zone) => moments.with_timezone_opt(zone.clone()),
        _ => moments,
    };
    let values = cast(&moments, element)?;
    let field = Arc::new(Field::new_list_field(element.clone(), true));
    let (offsets, nulls) = (OffsetBuffer::from_lengths(lengths), NullBuffer::from(valid));
    Ok(Arc::new(ListArray::try_new(field, offsets, values, Some(nulls))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against PostgreSQL 15.
    #[test]
    fn steps_are_those_of_the_clocks() {
        let hour = 3600 * 1_000_000_i64;
        // 2026-03-28 02:30 in Berlin; the next night has no such time, and the clocks show 03:30 from then on.
        let first = 1_774_661_400 * 1_000_000;
        let day = IntervalMonthDayNano::new(0, 1, 0);
        let zone = Some("Europe/Berlin");
        let made = constant_series([first, first + 72 * hour], day, zone).expect("a series");
        assert_eq!(
            made,
            Some(vec![first, first + 24 * hour, first + 48 * hour, first + 72 * hour])
        );
        let back = IntervalMonthDayNano::new(0, -1, 0);
        let made = constant_series([first, first - 30 * hour], back, zone).expect("a series");
        assert_eq!(made, Some(vec![first, first - 24 * hour]));
        assert_eq!(constant_series([first, first], day, Some("UTC")).expect("none"), None);
        assert!(
            constant_series([first, first], IntervalMonthDayNano::new(1, -30, 0), zone).is_err()
        );
    }
}
