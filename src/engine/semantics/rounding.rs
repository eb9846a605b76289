//! Casts to integers round; the engine's cut off. Those to decimals of fewer digits behind the point are taken for
//! what loses nothing there, once they are compared with a constant.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
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

/// A number on its way to an integer: floats to the nearest, exact numbers half away from zero; or to fewer
/// digits. `None` where there is nothing to round.
pub(super) fn rounded(
    round: &Arc<ScalarUDF>,
    shorten: &Arc<ScalarUDF>,
    expr: &Expr,
    from: &DataType,
    to: &DataType,
) -> Option<Expr> {
    use DataType::*;
    let shortened = |kind: DataType| {
        let kind = Expr::Literal(ScalarValue::try_from(&kind).ok()?, None);
        Some(shorten.call(vec![expr.clone(), kind]))
    };
    let is_integer = to.is_integer();
    match (from, to) {
        (Float32 | Float64, _) if is_integer => Some(round.call(vec![expr.clone()])),
        (Decimal128(precision, 1..), _) if is_integer => shortened(Decimal128(*precision, 0)),
        (Decimal256(precision, 1..), _) if is_integer => shortened(Decimal256(*precision, 0)),
        (
            Decimal128(_, from) | Decimal256(_, from),
            Decimal128(_, scale) | Decimal256(_, scale),
        ) if from > scale => shortened(to.clone()),
        _ => None,
    }
}

/// A decimal with fewer digits behind the point: of the type of a NULL beside it.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Shortened {
    signature: Signature,
}

impl Default for Shortened {
    fn default() -> Self {
        Self { signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Shortened {
    fn name(&self) -> &str {
        "shortened"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[1].clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let kind = args.return_field.data_type();
        match args.args.first() {
            Some(value) => value.cast_to(kind, None),
            None => exec_err!("shortened takes a decimal"),
        }
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
