//! Arithmetic of decimals, quickly where they are as short as they mostly are.
//!
//! A decimal has 128 bits here, and the engine looks after each product of two whether it fits. Where all
//! values of a batch have 64, as those of a `numeric(15, 2)` always, none can fail to: then they are multiplied
//! as such.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Datum, Decimal128Array, new_empty_array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Decimal128Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::ColumnarValue;

use super::arithmetic::Kernel;

/// The type of `left operator right` between decimals; `None` if it has none.
pub(super) fn result_type(kernel: Kernel, left: &DataType, right: &DataType) -> Option<DataType> {
    let (left, right) = (new_empty_array(left), new_empty_array(right));
    let result = kernel(&left as &dyn Datum, &right as &dyn Datum).ok()?;
    Some(result.data_type().clone())
}

/// `left operator right`; `None` if they are no decimals, or have to be looked after.
pub(super) fn short(
    symbol: char,
    kernel: Kernel,
    left: &ColumnarValue,
    right: &ColumnarValue,
) -> Result<Option<ArrayRef>> {
    let types = (left.data_type(), right.data_type());
    let (DataType::Decimal128(_, left_scale), DataType::Decimal128(_, right_scale)) = types else {
        return Ok(None);
    };
    let Some(kind) = result_type(kernel, &types.0, &types.1) else { return Ok(None) };
    let DataType::Decimal128(precision, scale) = kind else { return Ok(None) };
    // With what values are brought to the result's scale.
    let factor = |from: i8| u32::try_from(scale - from).ok().and_then(|by| 10_i64.checked_pow(by));
    let values = match symbol {
        '*' => each(left, right, |left, right| left * right),
        '+' | '-' => {
            let (Some(up_left), Some(up_right)) = (factor(left_scale), factor(right_scale)) else {
                return Ok(None);
            };
            let (up_left, up_right) = (i128::from(up_left), i128::from(up_right));
            match symbol {
                '+' => each(left, right, |left, right| left * up_left + right * up_right),
                _ => each(left, right, |left, right| left * up_left - right * up_right),
            }
        }
        _ => None,
    };
    let Some((values, nulls)) = values else { return Ok(None) };
    let result = Decimal128Array::new(values.into(), nulls);
    Ok(Some(Arc::new(result.with_precision_and_scale(precision, scale)?)))
}

/// An operation on each pair of values, and which results are NULL; `None` if values have more than 64 bits,
/// or are not an array and another or a constant.
fn each(
    left: &ColumnarValue,
    right: &ColumnarValue,
    operation: impl Fn(i128, i128) -> i128,
) -> Option<(Vec<i128>, Option<NullBuffer>)> {
    let mut rest = 0;
    // Both have 64 bits where they are what is left of them, so products of them are those of 64 bits.
    let mut checked = |left: i128, right: i128| {
        let (short_left, short_right) = (i128::from(left as i64), i128::from(right as i64));
        rest |= (left ^ short_left) | (right ^ short_right);
        operation(short_left, short_right)
    };
    let (values, nulls): (Vec<i128>, _) = match (left, right) {
        (ColumnarValue::Array(left), ColumnarValue::Array(right)) => {
            if left.len() != right.len() {
                return None;
            }
            let (left, right) = (decimals(left), decimals(right));
            let pairs = left.values().iter().zip(right.values());
            let nulls = NullBuffer::union(left.nulls(), right.nulls());
            (pairs.map(|(left, right)| checked(*left, *right)).collect(), nulls)
        }
        (ColumnarValue::Array(left), ColumnarValue::Scalar(right)) => {
            let (left, right) = (decimals(left), constant(right)?);
            let values = left.values().iter().map(|left| checked(*left, right));
            (values.collect(), left.nulls().cloned())
        }
        (ColumnarValue::Scalar(left), ColumnarValue::Array(right)) => {
            let (left, right) = (constant(left)?, decimals(right));
            let values = right.values().iter().map(|right| checked(left, *right));
            (values.collect(), right.nulls().cloned())
        }
        (ColumnarValue::Scalar(_), ColumnarValue::Scalar(_)) => return None,
    };
    (rest == 0).then_some((values, nulls))
}

fn decimals(array: &ArrayRef) -> &Decimal128Array {
    array.as_primitive::<Decimal128Type>()
}

fn constant(value: &ScalarValue) -> Option<i128> {
    match value {
        ScalarValue::Decimal128(value, _, _) => *value,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use arrow::compute::kernels::numeric::{add, mul, sub};
    use datafusion::physical_expr_common::datum::apply;

    use super::*;

    const OPERATORS: [(char, Kernel); 3] = [('+', add), ('-', sub), ('*', mul)];

    fn array(values: &[Option<i128>], precision: u8, scale: i8) -> ColumnarValue {
        let values = Decimal128Array::from(values.to_vec());
        let values = values.with_precision_and_scale(precision, scale).expect("decimals");
        ColumnarValue::Array(Arc::new(values))
    }

    fn constant(value: Option<i128>, precision: u8, scale: i8) -> ColumnarValue {
        ColumnarValue::Scalar(ScalarValue::Decimal128(value, precision, scale))
    }

    #[test]
    fn it_is_what_the_engine_computes() {
        let ends = [Some(i64::MAX.into()), Some(i64::MIN.into()), None, Some(0), Some(-7)];
        let other = [Some(i64::MIN.into()), Some(i64::MIN.into()), Some(3), None, Some(13)];
        for (symbol, kernel) in OPERATORS {
            for (scale, other_scale) in [(2, 2), (0, 4), (5, 1)] {
                let left = array(&ends, 19, scale);
                for right in [array(&other, 19, other_scale), constant(Some(-9), 4, other_scale)] {
                    for (left, right) in [(&left, &right), (&right, &left)] {
                        let found = short(symbol, kernel, left, right).expect("computed");
                        let wanted = apply(left, right, kernel).expect("computed");
                        let wanted = wanted.into_array(ends.len()).expect("an array");
                        assert_eq!(&found.expect("short"), &wanted, "{symbol}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_longer_is_left_to_the_engine() {
        let long = array(&[Some(1), Some(i128::from(i64::MAX) + 1)], 38, 2);
        let negative = constant(Some(i128::from(i64::MIN) - 1), 38, 2);
        let short_ones = array(&[Some(1), Some(2)], 15, 2);
        for (symbol, kernel) in OPERATORS {
            for (left, right) in [
                (&long, &short_ones),
                (&short_ones, &long),
                (&short_ones, &negative),
                (&short_ones, &constant(None, 15, 2)),
            ] {
                assert!(short(symbol, kernel, left, right).expect("looked at").is_none());
            }
        }
        let floats = ColumnarValue::Scalar(ScalarValue::Float64(Some(1.0)));
        assert!(short('*', mul, &floats, &short_ones).expect("looked at").is_none());
    }

    #[test]
    fn scales_have_an_end() {
        let long = DataType::Decimal128(38, 30);
        assert_eq!(result_type(mul, &long, &long), None);
        assert_eq!(result_type(add, &long, &long), Some(long));
    }
}
