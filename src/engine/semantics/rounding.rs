//! Casts to integers round; the engine's cut off.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, cast,
};

/// C's `rint`, which PostgreSQL uses: to the nearest integer, of two to the even one.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct RoundToEven {
    signature: Signature,
}

impl Default for RoundToEven {
    fn default() -> Self {
        Self { signature: Signature::any(1, Volatility::Immutable) }
    }
}

/// A number on its way to an integer: floats to the nearest, exact numbers half away from zero.
/// `None` where there is nothing to round.
pub(super) fn rounded(
    round: &Arc<ScalarUDF>,
    expr: &Expr,
    from: &DataType,
    to: &DataType,
) -> Option<Expr> {
    if !to.is_integer() {
        return None;
    }
    match from {
        DataType::Float32 | DataType::Float64 => Some(round.call(vec![expr.clone()])),
        DataType::Decimal128(precision, 1..) => {
            Some(cast(expr.clone(), DataType::Decimal128(*precision, 0)))
        }
        DataType::Decimal256(precision, 1..) => {
            Some(cast(expr.clone(), DataType::Decimal256(*precision, 0)))
        }
        _ => None,
    }
}

impl ScalarUDFImpl for RoundToEven {
    fn name(&self) -> &str {
        "round_to_even"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[0].clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.as_slice() {
            [ColumnarValue::Array(array)] => round(array).map(ColumnarValue::Array),
            [ColumnarValue::Scalar(value)] => {
                let array = round(&value.to_array()?)?;
                ScalarValue::try_from_array(&array, 0).map(ColumnarValue::Scalar)
            }
            _ => exec_err!("round_to_even takes one number"),
        }
    }
}

fn round(array: &ArrayRef) -> Result<ArrayRef> {
    Ok(match array.data_type() {
        DataType::Float32 => {
            let numbers = array.as_primitive::<Float32Type>();
            Arc::new(numbers.unary::<_, Float32Type>(f32::round_ties_even))
        }
        DataType::Float64 => {
            let numbers = array.as_primitive::<Float64Type>();
            Arc::new(numbers.unary::<_, Float64Type>(f64::round_ties_even))
        }
        other => return exec_err!("round_to_even takes floats, not {other}"),
    })
}
