//! Windows whose frames reach so far from each row's value, as `RANGE 5 PRECEDING` does: the engine computes the ends
//! in the value's own type, where they may be too large or have too few digits, and takes such an end for none. Here
//! the values are of a type that has room for the ends.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue, exec_err, not_impl_err, plan_err};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawWindowExpr};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility, WindowFrame, WindowFrameBound, WindowFrameUnits, cast, lit,
};

use crate::values::types::{pg_type, sql_name};

/// Digits of a decimal of 128 bits.
const DIGITS: u8 = 38;

/// The rule of windows.
#[derive(Debug)]
pub(in crate::engine) struct Ranges;

impl ExprPlanner for Ranges {
    fn plan_window(&self, mut call: RawWindowExpr) -> Result<PlannerResult<RawWindowExpr>> {
        // The engine counts from the frame's end with a negative number.
        let names_row = |number: &Expr| match number {
            Expr::Literal(number, _) => number.is_null() || is_positive(number),
            Expr::Negative(_) => false,
            _ => true,
        };
        if call.func_def.name() == "nth_value" && !call.args.get(1).is_none_or(names_row) {
            return plan_err!("argument of nth_value must be greater than zero");
        }
        if let Some((whole, scale)) = reach(&call.window_frame)
            && let [key] = call.order_by.as_mut_slice()
        {
            let value = ScalarUDF::new_from_impl(Roomy::default());
            key.expr = value.call(vec![std::mem::take(&mut key.expr), lit(whole), lit(scale)]);
        }
        Ok(PlannerResult::Original(call))
    }
}

fn is_positive(number: &ScalarValue) -> bool {
    ScalarValue::Int64(Some(0)).partial_cmp(number) == Some(Ordering::Less)
}

/// The digits before and behind the point that the ends of a frame are away from a row, if they are numbers.
fn reach(frame: &WindowFrame) -> Option<(i64, i64)> {
    if frame.units != WindowFrameUnits::Range {
        return None;
    }
    let mut reach = None;
    for bound in [&frame.start_bound, &frame.end_bound] {
        let (WindowFrameBound::Preceding(far) | WindowFrameBound::Following(far)) = bound else {
            continue;
        };
        let Some(text) = far.try_as_str().flatten() else { continue };
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty()) || !is_number(whole) || !is_number(fraction) {
            return None;
        }
        let (most, scale) = reach.unwrap_or_default();
        let digits = |text: &str| i64::try_from(text.len()).unwrap_or(i64::MAX);
        reach = Some((digits(whole).max(most), digits(fraction).max(scale)));
    }
    reach
}

/// `range_key(value, digits, scale)`: the value in a type that has room for it and for so many digits more.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Roomy {
    signature: Signature,
}

impl Default for Roomy {
    fn default() -> Self {
        Self { signature: Signature::any(3, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Roomy {
    fn name(&self) -> &str {
        "range_key"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        exec_err!("range_key has the type that its arguments ask for")
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let number = |at: usize| match args.scalar_arguments.get(at) {
            Some(Some(ScalarValue::Int64(Some(number)))) => Ok(*number),
            _ => exec_err!("range_key takes two constants"),
        };
        let kind = with_room(args.arg_fields[0].data_type(), number(1)?, number(2)?)?;
        Ok(Arc::new(Field::new(self.name(), kind, true)))
    }

    fn simplify(
        &self,
        mut args: Vec<Expr>,
        context: &SimplifyContext,
    ) -> Result<ExprSimplifyResult> {
        let (Some(Expr::Literal(scale, _)), Some(Expr::Literal(whole, _)), Some(value)) =
            (args.pop(), args.pop(), args.pop())
        else {
            return exec_err!("range_key takes a value and two constants");
        };
        let (ScalarValue::Int64(Some(whole)), ScalarValue::Int64(Some(scale))) = (whole, scale)
        else {
            return exec_err!("range_key takes two constants");
        };
        let kind = with_room(&context.get_data_type(&value)?, whole, scale)?;
        Ok(ExprSimplifyResult::Simplified(cast(value, kind)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        args.args[0].cast_to(args.return_type(), None)
    }
}

/// A type for values of this one, and numbers with so many digits added to them.
fn with_room(kind: &DataType, whole: i64, scale: i64) -> Result<DataType> {
    let refused = |offset: &str| {
        // Other offsets there may be of moments and numbers alone.
        let offset = match kind.is_numeric() || kind.is_temporal() {
            true => format!(" and offset type {offset}"),
            false => String::new(),
        };
        let kind = sql_name(pg_type(&Field::new("", kind.clone(), true)).name());
        not_impl_err!(
            "RANGE with offset PRECEDING/FOLLOWING is not supported for column type {kind}{offset}"
        )
    };
    let integer = scale == 0 && whole <= 19;
    let offset = if integer { "integer" } else { "numeric" };
    match kind {
        DataType::Int8 | DataType::Int16 | DataType::Int32 if integer && whole <= 18 => {
            Ok(DataType::Int64)
        }
        kind if kind.is_integer() && integer => Ok(DataType::Decimal128(DIGITS, 0)),
        DataType::Decimal128(precision, own) => {
            let (own, needed) = (i64::from(*own), scale.max(i64::from(*own)));
            let digits = whole.max(i64::from(*precision) - own) + 1 + needed;
            match i8::try_from(needed) {
                Ok(needed) if digits <= i64::from(DIGITS) => {
                    Ok(DataType::Decimal128(DIGITS, needed))
                }
                _ if needed == own => Ok(kind.clone()),
                _ => refused(offset),
            }
        }
        DataType::Decimal256(..) | DataType::Null | DataType::Float64 => Ok(kind.clone()),
        DataType::Float16 | DataType::Float32 => Ok(DataType::Float64),
        _ => refused(offset),
    }
}
