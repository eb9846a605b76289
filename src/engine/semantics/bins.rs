//! `date_bin` in all of PostgreSQL's range, where the engine counts nanoseconds, which end in 1677 and 2262.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, TimeUnit,
};
use arrow::error::ArrowError;
use datafusion::common::{Result, not_impl_err, plan_err};
use datafusion::functions::utils::make_scalar_function;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::intervals::INTERVAL;
use crate::values::types::is_text;

const NAME: &str = "date_bin";
const DAY: i64 = 86_400_000_000;

/// The form of `date_bin`, if `known` has it.
pub(super) fn function(known: impl Fn(&str) -> Option<Arc<ScalarUDF>>) -> Option<Arc<ScalarUDF>> {
    known(NAME)?;
    let signature = Signature::user_defined(Volatility::Immutable);
    Some(Arc::new(ScalarUDF::new_from_impl(Bins { signature })))
}

/// `date_bin(stride, moment, origin)`: the beginning of the stride that a moment is in (`timestamp_bin` of
/// PostgreSQL's `timestamp.c`). Without an origin strides are counted from 1970 on.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Bins {
    signature: Signature,
}

impl ScalarUDFImpl for Bins {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let is_moment = |kind: &DataType| {
            is_text(kind)
                || matches!(kind, DataType::Timestamp(..) | DataType::Date32 | DataType::Null)
        };
        let (stride, moments) = match types {
            [stride, moments @ ..] if matches!(moments.len(), 1 | 2) => (stride, moments),
            _ => return plan_err!("{NAME} takes an interval, a timestamp and an origin"),
        };
        let is_stride = matches!(stride, DataType::Interval(_) | DataType::Null) || is_text(stride);
        if !is_stride || !moments.iter().all(is_moment) {
            return plan_err!(
                "function {NAME} does not exist for these types. No function matches the given name and argument \
                 types: it takes an interval, a timestamp and an origin"
            );
        }
        let zone = moments.iter().find_map(|kind| match kind {
            DataType::Timestamp(_, Some(zone)) => Some(zone.clone()),
            _ => None,
        });
        let moment = DataType::Timestamp(TimeUnit::Microsecond, zone);
        Ok(std::iter::once(INTERVAL).chain(moments.iter().map(|_| moment.clone())).collect())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types.get(1).cloned().unwrap_or(DataType::Null))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        make_scalar_function(binned, Vec::new())(&args.args)
    }
}

fn binned(args: &[ArrayRef]) -> Result<ArrayRef> {
    let strides = args[0].as_primitive::<IntervalMonthDayNanoType>();
    let moments = cast(&args[1], &DataType::Int64)?;
    let moments = moments.as_primitive::<Int64Type>();
    let origins = args.get(2).map(|origins| cast(origins, &DataType::Int64)).transpose()?;
    let origins = origins.as_ref().map(|origins| origins.as_primitive::<Int64Type>());
    let row = |at: usize| -> Result<Option<i64>> {
        let known = |array: &dyn Array| array.is_valid(at);
        if !known(strides) || !known(moments) || !origins.is_none_or(|origins| known(origins)) {
            return Ok(None);
        }
        let origin = origins.map_or(0, |origins| origins.value(at));
        begin(strides.value(at), moments.value(at), origin).map(Some)
    };
    let begins = (0..moments.len()).map(row).collect::<Result<Int64Array>>()?;
    Ok(cast(&begins, args[1].data_type())?)
}

fn begin(stride: IntervalMonthDayNano, moment: i64, origin: i64) -> Result<i64> {
    if stride.months != 0 {
        return not_impl_err!(
            "timestamps cannot be binned into intervals containing months or years"
        );
    }
    let out_of_range =
        |what: &str| ArrowError::ArithmeticOverflow(format!("interval out of range: {what}"));
    let stride = (i64::from(stride.days).checked_mul(DAY))
        .and_then(|days| days.checked_add(stride.nanoseconds / 1000))
        .ok_or_else(|| out_of_range("the stride is too large"))?;
    if stride <= 0 {
        return Err(out_of_range("stride must be greater than zero").into());
    }
    let bin = i128::from(moment) - i128::from(origin);
    let begin = i128::from(origin) + bin - bin.rem_euclid(i128::from(stride));
    i64::try_from(begin).map_err(|_| out_of_range("the timestamp is too small").into())
}
