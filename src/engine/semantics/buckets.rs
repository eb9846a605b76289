//! `width_bucket(operand, low, high, count)`: in which of so many equal parts of a range a number is
//! (`width_bucket_float8` and `width_bucket_numeric` of PostgreSQL's `float.c` and `numeric.c`).

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type, i256};
use arrow::error::ArrowError;
use datafusion::common::{DataFusionError, Result, exec_err, plan_err};
use datafusion::functions::utils::make_scalar_function;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

/// Digits in all of an exact number.
const PRECISION: u8 = 38;

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct WidthBucket {
    signature: Signature,
}

impl Default for WidthBucket {
    fn default() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for WidthBucket {
    fn name(&self) -> &str {
        "width_bucket"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Exact numbers stay exact, unless all are integers: PostgreSQL prefers floats then.
    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let is_number = |kind: &DataType| kind.is_numeric() || kind.is_null();
        match types {
            [numbers @ .., count]
                if numbers.len() == 3
                    && numbers.iter().all(is_number)
                    && (count.is_integer() || count.is_null()) =>
            {
                let exact = numbers.iter().any(DataType::is_decimal)
                    && !numbers.iter().any(DataType::is_floating);
                let kind = match exact {
                    true => DataType::Decimal128(PRECISION, scale(numbers)),
                    false => DataType::Float64,
                };
                Ok(vec![kind.clone(), kind.clone(), kind, DataType::Int64])
            }
            _ => plan_err!(
                "function width_bucket does not exist for these types. No function matches the \
                 given name and argument types: it takes three numbers and an integer"
            ),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int32)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        make_scalar_function(buckets, Vec::new())(&args.args)
    }
}

/// The most digits behind the point that one of the numbers has.
fn scale(numbers: &[DataType]) -> i8 {
    let digits = numbers.iter().filter_map(|kind| match kind {
        DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => Some(*scale),
        _ => None,
    });
    digits.max().unwrap_or(0)
}

fn buckets(args: &[ArrayRef]) -> Result<ArrayRef> {
    let [operands, low, high, counts] = args else {
        return exec_err!("width_bucket takes four arguments");
    };
    let counts = counts.as_primitive::<Int64Type>();
    let rows = (0..counts.len()).map(|row| {
        if args.iter().any(|array| array.is_null(row)) {
            return Ok(None);
        }
        let count = counts.value(row);
        if count <= 0 {
            return exec_err!("count must be greater than zero");
        }
        let bucket = if operands.data_type() == &DataType::Float64 {
            let at = |array: &ArrayRef| array.as_primitive::<Float64Type>().value(row);
            of_float(at(operands), [at(low), at(high)], count)?
        } else {
            let at = |array: &ArrayRef| array.as_primitive::<Decimal128Type>().value(row);
            of_exact(at(operands), [at(low), at(high)], count)?
        };
        let bucket = i32::try_from(bucket);
        bucket.map(Some).map_err(|_| out_of_range())
    });
    Ok(Arc::new(rows.collect::<Result<Int32Array>>()?))
}

fn of_float(operand: f64, [low, high]: [f64; 2], count: i64) -> Result<i64> {
    if operand.is_nan() || low.is_nan() || high.is_nan() {
        return exec_err!("operand, lower bound, and upper bound cannot be NaN");
    }
    if low.is_infinite() || high.is_infinite() {
        return exec_err!("lower and upper bounds must be finite");
    }
    if low == high {
        return exec_err!("lower bound cannot equal upper bound");
    }
    // Downwards it is the same with all signs turned.
    let (operand, low, high) = match low < high {
        true => (operand, low, high),
        false => (-operand, -low, -high),
    };
    if operand < low {
        return Ok(0);
    }
    if operand >= high {
        return Ok(count + 1);
    }
    let count_of = count as f64;
    let bucket = match (count_of * (high - low)).is_finite() {
        true => count_of * (operand - low) / (high - low),
        false => count_of * ((operand / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0)),
    };
    // The quotient may be rounded to the whole, which it is not.
    Ok((bucket as i64).min(count - 1) + 1)
}

fn of_exact(operand: i128, [low, high]: [i128; 2], count: i64) -> Result<i64> {
    if low == high {
        return exec_err!("lower bound cannot equal upper bound");
    }
    let (operand, low, high) = match low < high {
        true => (operand, low, high),
        false => (-operand, -low, -high),
    };
    if operand < low {
        return Ok(0);
    }
    if operand >= high {
        return Ok(count + 1);
    }
    let [operand, low, high, count] = [operand, low, high, i128::from(count)].map(i256::from_i128);
    let bucket = (operand - low).wrapping_mul(count).wrapping_div(high - low);
    let bucket = bucket.to_i128().and_then(|bucket| i64::try_from(bucket).ok());
    bucket.map(|bucket| bucket + 1).ok_or_else(out_of_range)
}

fn out_of_range() -> DataFusionError {
    ArrowError::ArithmeticOverflow("integer out of range".to_owned()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against PostgreSQL 15.
    #[test]
    fn parts_of_a_range() {
        for (operand, low, high, count, expected) in [
            (5.35, 0.024, 10.06, 5, 3),
            (0.0, 0.0, 10.0, 5, 1),
            (10.0, 0.0, 10.0, 5, 6),
            (-0.1, 0.0, 10.0, 5, 0),
            (9.0, 10.0, 0.0, 5, 1),
            (0.0, 10.0, 0.0, 5, 6),
            (11.0, 10.0, 0.0, 5, 0),
            (0.29, 0.0, 1.0, 100, 29),
        ] {
            let found = of_float(operand, [low, high], count).expect("a part");
            assert_eq!(found, expected, "{operand} {low} {high}");
        }
        // As an exact number it is no less than it says.
        assert_eq!(of_exact(29, [0, 100], 100).expect("a part"), 30);
        assert_eq!(of_exact(71, [100, 0], 100).expect("a part"), 30);
        // Where PostgreSQL 15 overflows.
        assert_eq!(of_float(0.0, [-1.7e308, 1.7e308], 2).expect("a part"), 2);
        assert!(of_exact(1, [5, 5], 3).is_err());
        assert!(of_float(f64::NAN, [0.0, 1.0], 3).is_err());
    }
}
