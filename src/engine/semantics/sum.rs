//! `sum` of integers and of exact numbers that fails where the result does not fit (22003), where the engine's
//! wraps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{Array, ArrayRef, ArrowNativeTypeOp, AsArray, BooleanArray};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Decimal128Type, FieldRef, Int64Type, i256};
use arrow::error::ArrowError;
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, Expr, GroupsAccumulator, Operator,
    ReversedUDAF, SetMonotonicity, Signature, StatisticsArgs,
};
use datafusion_functions_aggregate_common::aggregate::groups_accumulator::prim_op::PrimitiveGroupsAccumulator;

/// The engine's `sum`, but for `bigint`, and for exact numbers of which some thousand million may not fit.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct CheckedSum {
    engine: Arc<AggregateUDF>,
}

impl Default for CheckedSum {
    fn default() -> Self {
        Self { engine: sum_udaf() }
    }
}

/// Digits that a sum has room for beside its argument's (the engine's `Sum`).
const MORE_DIGITS: u8 = 10;

/// What sums are checked of.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Integers,
    /// With the type of the sum.
    Exact(u8, i8),
}

/// Of what the checks are ours.
fn ours(args: &AccumulatorArgs<'_>) -> Option<Kind> {
    let argument = args.expr_fields.first().map(|field| field.data_type());
    match (args.return_field.data_type(), argument) {
        (DataType::Int64, _) => Some(Kind::Integers),
        (DataType::Decimal128(precision, scale), Some(DataType::Decimal128(digits, _)))
            if digits + MORE_DIGITS > *precision =>
        {
            Some(Kind::Exact(*precision, *scale))
        }
        _ => None,
    }
}

impl Kind {
    fn out_of_range(self) -> ArrowError {
        let kind = match self {
            Self::Integers => "bigint",
            Self::Exact(..) => "numeric",
        };
        ArrowError::ArithmeticOverflow(format!("{kind} out of range: a sum is too large"))
    }
}

impl AggregateUDFImpl for CheckedSum {
    fn name(&self) -> &str {
        self.engine.name()
    }

    fn signature(&self) -> &Signature {
        self.engine.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.engine.return_type(types)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        match ours(&args) {
            Some(kind) if args.is_distinct => {
                Ok(Box::new(DistinctSum { values: self.engine.accumulator(args)?, kind }))
            }
            Some(kind) => Ok(Box::new(Sum::new(kind))),
            None => self.engine.accumulator(args),
        }
    }

    fn create_sliding_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn Accumulator>> {
        match ours(&args) {
            Some(kind) if !args.is_distinct => Ok(Box::new(Sum::new(kind))),
            _ => self.engine.create_sliding_accumulator(args),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        self.engine.state_fields(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        self.engine.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        let Some(kind) = ours(&args).filter(|_| !args.is_distinct) else {
            return self.engine.create_groups_accumulator(args);
        };
        let overflow = Arc::new(AtomicBool::new(false));
        let sums = match kind {
            Kind::Integers => checked::<Int64Type>(&DataType::Int64, overflow.clone()),
            Kind::Exact(precision, scale) => {
                let kind = DataType::Decimal128(precision, scale);
                checked::<Decimal128Type>(&kind, overflow.clone())
            }
        };
        Ok(Box::new(GroupSums { sums, overflow, kind }))
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn set_monotonicity(&self, kind: &DataType) -> SetMonotonicity {
        self.engine.inner().set_monotonicity(kind)
    }

    /// The engine would make `sum(x) + k * count(x)` of `sum(x + k)`, where there are several `k`. But its
    /// count takes the type of the constant, which is too short for it if that is a decimal; and what it
    /// makes may have the name of another aggregate, since names do not tell casts.
    fn simplify_expr_op_literal(
        &self,
        _: &AggregateFunction,
        _: &Expr,
        _: Operator,
        _: &Expr,
        _: bool,
    ) -> Result<Option<Expr>> {
        Ok(None)
    }

    fn value_from_stats(&self, args: &StatisticsArgs<'_>) -> Option<ScalarValue> {
        self.engine.inner().value_from_stats(args)
    }
}

/// Sums of groups that tell when one of them had no room.
fn checked<T: ArrowPrimitiveType + Send>(
    kind: &DataType,
    overflow: Arc<AtomicBool>,
) -> Box<dyn GroupsAccumulator>
where
    T::Native: ArrowNativeTypeOp,
{
    let add = move |sum: &mut T::Native, value: T::Native| match sum.add_checked(value) {
        Ok(total) => *sum = total,
        Err(_) => overflow.store(true, Ordering::Relaxed),
    };
    Box::new(PrimitiveGroupsAccumulator::<T, _>::new(kind, add))
}

/// One sum, of all rows or of those in a window.
#[derive(Debug)]
struct Sum {
    kind: Kind,
    total: i256,
    /// Values in the total: without any it is NULL.
    count: u64,
}

impl Sum {
    fn new(kind: Kind) -> Self {
        Self { kind, total: i256::ZERO, count: 0 }
    }

    fn value(&self) -> Result<ScalarValue> {
        let total = (self.count > 0).then_some(self.total);
        let out_of_range = || self.kind.out_of_range();
        Ok(match self.kind {
            Kind::Integers => {
                let narrow = |total: i256| i64::try_from(total.to_i128()?).ok();
                let total = total.map(|total| narrow(total).ok_or_else(out_of_range));
                ScalarValue::Int64(total.transpose()?)
            }
            Kind::Exact(precision, scale) => {
                let total = total.map(|total| total.to_i128().ok_or_else(out_of_range));
                ScalarValue::Decimal128(total.transpose()?, precision, scale)
            }
        })
    }

    /// The sum of an array, and of how many values.
    fn sum(&self, values: &ArrayRef) -> (i256, u64) {
        let total = match self.kind {
            Kind::Integers => total::<Int64Type>(values),
            Kind::Exact(..) => total::<Decimal128Type>(values),
        };
        (total, (values.len() - values.null_count()) as u64)
    }
}

fn total<T: ArrowPrimitiveType>(values: &ArrayRef) -> i256
where
    T::Native: ArrowNativeTypeOp + Into<i128>,
{
    let values = values.as_primitive::<T>();
    match arrow::compute::sum_checked(values) {
        Ok(total) => i256::from_i128(total.unwrap_or_default().into()),
        Err(_) => {
            let values = values.iter().flatten().map(|value| i256::from_i128(value.into()));
            values.fold(i256::ZERO, i256::wrapping_add)
        }
    }
}

impl Accumulator for Sum {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let (total, count) = self.sum(&values[0]);
        self.total = self.total.wrapping_add(total);
        self.count += count;
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let (total, count) = self.sum(&values[0]);
        self.total = self.total.wrapping_sub(total);
        self.count -= count;
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.value()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.value()?])
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

/// One sum of the values that differ.
#[derive(Debug)]
struct DistinctSum {
    /// The engine's, whose state has the values.
    values: Box<dyn Accumulator>,
    kind: Kind,
}

impl Accumulator for DistinctSum {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.values.update_batch(values)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.values.merge_batch(states)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mut sum = Sum::new(self.kind);
        for values in self.state()? {
            let ScalarValue::List(values) = values else { return self.values.evaluate() };
            sum.update_batch(&[values.value(0)])?;
        }
        sum.value()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.values.state()
    }

    fn size(&self) -> usize {
        self.values.size() + size_of_val(self)
    }
}

/// A sum for each group. One that did not fit fails them all when they are asked for.
struct GroupSums {
    sums: Box<dyn GroupsAccumulator>,
    overflow: Arc<AtomicBool>,
    kind: Kind,
}

impl GroupSums {
    fn check(&self) -> Result<()> {
        match self.overflow.load(Ordering::Relaxed) {
            true => Err(self.kind.out_of_range().into()),
            false => Ok(()),
        }
    }
}

impl GroupsAccumulator for GroupSums {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        count: usize,
    ) -> Result<()> {
        self.sums.update_batch(values, groups, filter, count)
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], count: usize) -> Result<()> {
        self.sums.merge_batch(values, groups, count)
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        self.check()?;
        self.sums.evaluate(emit)
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        self.check()?;
        self.sums.state(emit)
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        self.sums.convert_to_state(values, filter)
    }

    fn size(&self) -> usize {
        self.sums.size() + size_of_val(self)
    }
}
