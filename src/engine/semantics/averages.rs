//! `avg` of exact numbers, rounded to as many digits behind the point as PostgreSQL shows: the engine has four
//! more than its argument, and cuts off the rest. Its sums and counts stay as they are, only what is made of
//! them in the end is another.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Decimal256Array, UInt64Array,
};
use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Decimal128Type, Decimal256Type,
    DecimalType, Field, FieldRef, UInt64Type, i256,
};
use arrow::error::ArrowError;
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, Signature,
};

const NAME: &str = "avg";

/// Digits behind the point, as many as PostgreSQL shows of a number between 1 and 10000
/// (`NUMERIC_MIN_SIG_DIGITS`).
const SCALE: i16 = 16;

/// Digits that the engine adds to its argument's, which there are at least.
const ENGINE_ADDS: i16 = 4;

/// The form of that function, if `known` has it.
pub(super) fn functions(
    known: impl Fn(&str) -> Option<Arc<AggregateUDF>>,
) -> Option<Arc<AggregateUDF>> {
    let engine = known(NAME)?;
    Some(Arc::new(AggregateUDF::new_from_impl(Average { engine })))
}

/// The engine's function, with other averages of exact numbers.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Average {
    engine: Arc<AggregateUDF>,
}

/// The type of the average of a type of exact numbers, with room for all digits before the point that its values
/// have; `None` for other types.
fn averaged(kind: &DataType) -> Option<DataType> {
    let (precision, scale, most) = match kind {
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale) => (precision, scale, DECIMAL128_MAX_PRECISION),
        DataType::Decimal256(precision, scale) => (precision, scale, DECIMAL256_MAX_PRECISION),
        _ => return None,
    };
    let (scale, whole) = (i16::from(*scale), i16::from(*precision) - i16::from(*scale));
    let limit = i16::from(most);
    let scale = SCALE.min(limit - whole).max((scale + ENGINE_ADDS).min(limit)).max(scale);
    let (scale, precision) = (i8::try_from(scale).ok()?, (whole + scale).min(limit));
    let precision = u8::try_from(precision).ok()?;
    Some(match most {
        DECIMAL128_MAX_PRECISION => DataType::Decimal128(precision, scale),
        _ => DataType::Decimal256(precision, scale),
    })
}

impl Average {
    /// What is to become of sums, and the arguments as the engine's function wants them.
    fn rounding<'a>(
        &self,
        args: AccumulatorArgs<'a>,
    ) -> Result<(Option<Rounding>, AccumulatorArgs<'a>)> {
        let Some(field) = args.expr_fields.first() else { return Ok((None, args)) };
        let Some(to) = averaged(field.data_type()) else { return Ok((None, args)) };
        let own = self.engine.return_type(std::slice::from_ref(field.data_type()))?;
        let return_field = Arc::new(Field::new(args.return_field.name(), own, true));
        Ok((Some(Rounding { to }), AccumulatorArgs { return_field, ..args }))
    }

    fn rounded(
        &self,
        args: AccumulatorArgs<'_>,
        make: fn(&AggregateUDF, AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>>,
    ) -> Result<Box<dyn Accumulator>> {
        let distinct = args.is_distinct;
        let (rounding, args) = self.rounding(args)?;
        let inner = make(&self.engine, args)?;
        Ok(match rounding {
            Some(rounding) => Box::new(One { inner, rounding, distinct }),
            None => inner,
        })
    }
}

impl AggregateUDFImpl for Average {
    fn name(&self) -> &str {
        self.engine.name()
    }

    fn aliases(&self) -> &[String] {
        self.engine.aliases()
    }

    fn signature(&self) -> &Signature {
        self.engine.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types.first().and_then(averaged) {
            Some(kind) => Ok(kind),
            None => self.engine.return_type(types),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        self.engine.state_fields(args)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        self.rounded(args, |engine, args| engine.accumulator(args))
    }

    fn create_sliding_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn Accumulator>> {
        self.rounded(args, |engine, args| engine.create_sliding_accumulator(args))
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        match self.rounding(args) {
            Ok((_, args)) => self.engine.groups_accumulator_supported(args),
            Err(_) => false,
        }
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        let (rounding, args) = self.rounding(args)?;
        let inner = self.engine.create_groups_accumulator(args)?;
        Ok(match rounding {
            Some(rounding) => Box::new(Groups { inner, rounding }),
            None => inner,
        })
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// Makes averages of counts and sums.
#[derive(Debug)]
struct Rounding {
    to: DataType,
}

impl Rounding {
    /// Digits of an average, and how many of them are behind the point.
    fn digits(&self) -> Result<(u8, i8)> {
        match self.to {
            DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
                Ok((precision, scale))
            }
            _ => exec_err!("{NAME} gives no {}", self.to),
        }
    }

    fn averages(&self, counts: &UInt64Array, sums: &ArrayRef) -> Result<ArrayRef> {
        let (precision, scale) = self.digits()?;
        let (sums, own) = wide(sums)?;
        let factor = factor(scale, own);
        let average = |(sum, count): (Option<i256>, Option<u64>)| {
            let (Some(sum), Some(count)) = (sum, count.filter(|count| *count > 0)) else {
                return Ok(None);
            };
            let average = factor.and_then(|factor| average(sum, count, factor));
            average.map(Some).ok_or_else(overflow)
        };
        let averages = sums.into_iter().zip(counts).map(average);
        Ok(match self.to {
            DataType::Decimal128(..) => {
                let narrow = |value: Option<i256>| {
                    value.map(|value| value.to_i128().ok_or_else(overflow)).transpose()
                };
                let averages = averages.map(|value| value.and_then(narrow));
                let array = averages.collect::<Result<Decimal128Array, ArrowError>>()?;
                array.validate_decimal_precision(precision)?;
                Arc::new(array.with_precision_and_scale(precision, scale)?)
            }
            _ => {
                let array = averages.collect::<Result<Decimal256Array, ArrowError>>()?;
                array.validate_decimal_precision(precision)?;
                Arc::new(array.with_precision_and_scale(precision, scale)?)
            }
        })
    }

    /// Of one count and one sum with so many digits behind the point.
    fn one(&self, count: u64, sum: Option<i256>, own: i8) -> Result<ScalarValue> {
        let (precision, scale) = self.digits()?;
        let Some(sum) = sum.filter(|_| count > 0) else {
            return ScalarValue::try_new_null(&self.to);
        };
        let average = factor(scale, own).and_then(|factor| average(sum, count, factor));
        let average = average.ok_or_else(overflow)?;
        Ok(match self.to {
            DataType::Decimal128(..) => {
                let average = average.to_i128().ok_or_else(overflow)?;
                Decimal128Type::validate_decimal_precision(average, precision, scale)?;
                ScalarValue::Decimal128(Some(average), precision, scale)
            }
            _ => {
                Decimal256Type::validate_decimal_precision(average, precision, scale)?;
                ScalarValue::Decimal256(Some(average), precision, scale)
            }
        })
    }

    /// Of a state with counts and sums.
    fn of_state(&self, state: &[ArrayRef]) -> Result<ArrayRef> {
        match state {
            [counts, sums] => self.averages(counts.as_primitive::<UInt64Type>(), sums),
            _ => exec_err!("{NAME} keeps counts and sums"),
        }
    }

    /// Of a state with the numbers themselves.
    fn of_numbers(&self, state: &[ArrayRef]) -> Result<ArrayRef> {
        let [lists] = state else { return exec_err!("{NAME} keeps the numbers that differ") };
        let (numbers, scale) = wide(&lists.as_list::<i32>().value(0))?;
        let numbers: Vec<i256> = numbers.into_iter().flatten().collect();
        let counts = UInt64Array::from(vec![numbers.len() as u64]);
        let sum = numbers.into_iter().fold(i256::ZERO, i256::wrapping_add);
        let sums = Decimal256Array::from(vec![sum]);
        let sums = sums.with_precision_and_scale(DECIMAL256_MAX_PRECISION, scale)?;
        let sums: ArrayRef = Arc::new(sums);
        self.averages(&counts, &sums)
    }
}

/// What a number with so many digits behind the point is multiplied with to have as many as another.
fn factor(scale: i8, own: i8) -> Option<i128> {
    10_i128.checked_pow(u32::try_from(i16::from(scale) - i16::from(own)).unwrap_or_default())
}

fn overflow() -> ArrowError {
    ArrowError::ArithmeticOverflow(format!("Overflow happened on: {NAME}"))
}

/// Exact numbers of any width, and how many digits they have behind the point.
fn wide(numbers: &ArrayRef) -> Result<(Vec<Option<i256>>, i8)> {
    let scale = match numbers.data_type() {
        DataType::Decimal256(_, scale) => {
            return Ok((numbers.as_primitive::<Decimal256Type>().iter().collect(), *scale));
        }
        DataType::Decimal32(_, scale)
        | DataType::Decimal64(_, scale)
        | DataType::Decimal128(_, scale) => *scale,
        other => return exec_err!("{NAME} does not add up {other}"),
    };
    let narrow = DataType::Decimal128(DECIMAL128_MAX_PRECISION, scale);
    let numbers = match numbers.data_type() {
        DataType::Decimal128(..) => numbers.clone(),
        _ => arrow::compute::cast(numbers, &narrow)?,
    };
    let numbers = numbers.as_primitive::<Decimal128Type>().iter();
    Ok((numbers.map(|number| number.map(i256::from_i128)).collect(), scale))
}

/// A sum times a factor and divided by a count, rounded; what is half goes away from zero.
fn average(sum: i256, count: u64, factor: i128) -> Option<i256> {
    // Hardly any number needs more bits.
    if let Some(sum) = sum.to_i128().and_then(|sum| sum.checked_mul(factor)) {
        let count = i128::from(count);
        let (whole, rest) = (sum / count, sum % count);
        let more = if rest.abs() * 2 >= count { rest.signum() } else { 0 };
        return Some(i256::from_i128(whole + more));
    }
    let (sum, count) = (sum.checked_mul(i256::from_i128(factor))?, i256::from_i128(count.into()));
    let (whole, rest) = (sum.checked_div(count)?, sum.checked_rem(count)?);
    let half = rest.wrapping_abs().checked_mul(i256::from_i128(2))? >= count;
    whole.checked_add(if half { rest.signum() } else { i256::ZERO })
}

/// One average, of all rows or of those in a window.
#[derive(Debug)]
struct One {
    inner: Box<dyn Accumulator>,
    rounding: Rounding,
    distinct: bool,
}

impl Accumulator for One {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.update_batch(values)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.retract_batch(values)
    }

    fn supports_retract_batch(&self) -> bool {
        self.inner.supports_retract_batch()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let state = self.inner.state()?;
        // Made for each row of a window.
        match state.as_slice() {
            [ScalarValue::UInt64(count), ScalarValue::Decimal128(sum, _, scale)] => {
                let sum = sum.map(i256::from_i128);
                return self.rounding.one(count.unwrap_or_default(), sum, *scale);
            }
            [ScalarValue::UInt64(count), ScalarValue::Decimal256(sum, _, scale)] => {
                return self.rounding.one(count.unwrap_or_default(), *sum, *scale);
            }
            _ => {}
        }
        let state = state.iter().map(ScalarValue::to_array).collect::<Result<Vec<_>>>()?;
        let average = match self.distinct {
            true => self.rounding.of_numbers(&state)?,
            false => self.rounding.of_state(&state)?,
        };
        ScalarValue::try_from_array(&average, 0)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn size(&self) -> usize {
        self.inner.size() + size_of_val(self)
    }
}

/// An average for each group.
struct Groups {
    inner: Box<dyn GroupsAccumulator>,
    rounding: Rounding,
}

impl GroupsAccumulator for Groups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        count: usize,
    ) -> Result<()> {
        self.inner.update_batch(values, groups, filter, count)
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], count: usize) -> Result<()> {
        self.inner.merge_batch(values, groups, count)
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let state = self.inner.state(emit)?;
        self.rounding.of_state(&state)
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        self.inner.state(emit)
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        self.inner.convert_to_state(values, filter)
    }

    fn size(&self) -> usize {
        self.inner.size() + size_of_val(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_have_room_for_all_digits_before_the_point() {
        use DataType::{Decimal64, Decimal128, Decimal256};
        for (kind, expected) in [
            (Decimal128(12, 2), Decimal128(26, 16)),
            (Decimal64(15, 2), Decimal128(29, 16)),
            (Decimal128(38, 10), Decimal128(38, 14)),
            (Decimal128(38, 0), Decimal128(38, 4)),
            (Decimal128(25, 2), Decimal128(38, 15)),
            (Decimal128(30, 14), Decimal128(34, 18)),
            (Decimal128(38, 38), Decimal128(38, 38)),
            (Decimal256(40, 2), Decimal256(54, 16)),
        ] {
            assert_eq!(averaged(&kind), Some(expected), "{kind}");
        }
        assert_eq!(averaged(&DataType::Float64), None);
    }

    /// Against PostgreSQL 15.
    #[test]
    fn halves_go_away_from_zero() {
        let wide = i256::from_i128;
        let factor = 10_i128.pow(16);
        for (sum, count, expected) in [
            (5, 3, 16_666_666_666_666_667),
            (-5, 3, -16_666_666_666_666_667),
            (1, 3, 3_333_333_333_333_333),
            (0, 7, 0),
        ] {
            assert_eq!(average(wide(sum), count, factor), Some(wide(expected)), "{sum} / {count}");
        }
        assert_eq!(average(wide(1), 2, 1), Some(wide(1)));
        assert_eq!(average(wide(-1), 2, 1), Some(wide(-1)));
        // More than 128 bits on the way.
        let most = i128::MAX / 1000;
        assert_eq!(average(wide(most), 1_000_000, 1_000_000), Some(wide(most)));
        assert_eq!(average(i256::MAX, 1, 10), None);
    }

    #[test]
    fn an_average_that_has_no_room_is_an_error() {
        let rounding = Rounding { to: DataType::Decimal128(38, 14) };
        let counts = UInt64Array::from(vec![1, 0]);
        let of = |sum| {
            let sums = Decimal128Array::from(vec![Some(sum), None]);
            let sums = sums.with_precision_and_scale(38, 10).expect("a type");
            rounding.averages(&counts, &(Arc::new(sums) as ArrayRef))
        };
        let averages = of(10_i128.pow(33)).expect("averages");
        let averages = averages.as_primitive::<Decimal128Type>();
        assert_eq!((averages.value(0), averages.is_null(1)), (10_i128.pow(37), true));
        for sum in [10_i128.pow(34), 10_i128.pow(37)] {
            assert!(of(sum).is_err(), "{sum}");
        }
    }

    #[test]
    fn one_average_is_that_of_a_group() {
        let rounding = Rounding { to: DataType::Decimal128(38, 14) };
        for (count, sum) in [(3, Some(5)), (7, Some(-33)), (0, Some(0)), (2, None)] {
            let counts = UInt64Array::from(vec![count]);
            let sums = Decimal128Array::from(vec![sum]).with_precision_and_scale(38, 10);
            let sums: ArrayRef = Arc::new(sums.expect("a type"));
            let group = rounding.averages(&counts, &sums).expect("an average");
            let group = ScalarValue::try_from_array(&group, 0).expect("a value");
            let one = rounding.one(count, sum.map(i256::from_i128), 10).expect("an average");
            assert_eq!(one, group, "{sum:?} / {count}");
        }
        assert!(rounding.one(1, Some(i256::from_i128(10_i128.pow(34))), 10).is_err());
    }
}
