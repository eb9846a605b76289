//! Time zones: what a moment is on the clocks of a zone, and the other way round.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{DataType, FieldRef, Int64Type, TimeUnit};
use datafusion::common::{DataFusionError, Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, cast,
};

use crate::engine::settings;
use crate::values::encode::TimeZone;

/// Functions whose result depends on the zone that a `timestamptz` is looked at in.
const ON_CLOCKS: &[&str] = &["date_part", "date_trunc", "date_bin"];

/// `timezone(zone, moment)`, which PostgreSQL has for `moment AT TIME ZONE zone`: a `timestamptz`
/// becomes what the zone's clocks show, a `timestamp` the moment at which they show it.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct AtTimeZone {
    signature: Signature,
}

impl Default for AtTimeZone {
    fn default() -> Self {
        Self { signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for AtTimeZone {
    fn name(&self) -> &str {
        "timezone"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [_, DataType::Timestamp(unit, Some(_))] => Ok(DataType::Timestamp(*unit, None)),
            [_, DataType::Timestamp(unit, None)] => {
                Ok(DataType::Timestamp(*unit, Some("+00:00".into())))
            }
            _ => plan_err!(
                "function timezone does not exist for these types. No function matches the given \
                 name and argument types: it takes a zone's name and a timestamp"
            ),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [ColumnarValue::Scalar(zone), moments] = args.args.as_slice() else {
            return exec_err!("AT TIME ZONE takes one zone for all rows");
        };
        let Some(Some(name)) = zone.try_as_str() else {
            return ScalarValue::try_from(args.return_type()).map(ColumnarValue::Scalar);
        };
        let Some(zone) = TimeZone::parse(name) else {
            let error = settings::Error::Invalid {
                name: "TimeZone".into(),
                value: name.to_owned(),
                hint: String::new(),
            };
            return Err(DataFusionError::External(Box::new(error)));
        };
        match moments {
            ColumnarValue::Array(array) => {
                shift(array, &zone, args.return_type()).map(ColumnarValue::Array)
            }
            ColumnarValue::Scalar(value) => {
                let array = shift(&value.to_array()?, &zone, args.return_type())?;
                ScalarValue::try_from_array(&array, 0).map(ColumnarValue::Scalar)
            }
        }
    }
}

fn shift(array: &ArrayRef, zone: &TimeZone, to: &DataType) -> Result<ArrayRef> {
    let DataType::Timestamp(unit, from) = array.data_type() else {
        return exec_err!("AT TIME ZONE takes timestamps");
    };
    let per_second = match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    };
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

/// What a `timestamptz` is on the session's clocks, for a cast to a type without a zone. The
/// engine takes the zone of the column's type; `None` where that is the same.
pub(super) fn on_clocks(
    at_time_zone: &Arc<ScalarUDF>,
    expr: &Expr,
    from: &DataType,
    to: &DataType,
    session: &TimeZone,
) -> Option<Expr> {
    let DataType::Timestamp(_, Some(zone)) = from else { return None };
    let without_zone = matches!(
        to,
        DataType::Timestamp(_, None)
            | DataType::Date32
            | DataType::Date64
            | DataType::Time32(_)
            | DataType::Time64(_)
    );
    let utc = |name: &str| matches!(name, "UTC" | "+00:00" | "Z" | "utc");
    if !without_zone || utc(zone) && utc(session.name()) {
        return None;
    }
    let name = Expr::Literal(ScalarValue::from(session.name()), None);
    Some(at_time_zone.call(vec![name, expr.clone()]))
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
