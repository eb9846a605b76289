//! `sum` of integers that fails where the result does not fit (22003), where the engine's wraps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array};
use arrow::datatypes::{DataType, FieldRef, Int64Type};
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

/// The engine's `sum`, but for `bigint`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct CheckedSum {
    engine: Arc<AggregateUDF>,
}

impl Default for CheckedSum {
    fn default() -> Self {
        Self { engine: sum_udaf() }
    }
}

/// Whether the checks are ours.
fn is_ours(args: &AccumulatorArgs<'_>) -> bool {
    !args.is_distinct && *args.return_field.data_type() == DataType::Int64
}

fn out_of_range() -> ArrowError {
    ArrowError::ArithmeticOverflow("bigint out of range: a sum is too large".to_owned())
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
        match is_ours(&args) {
            true => Ok(Box::new(Sum::default())),
            false => self.engine.accumulator(args),
        }
    }

    fn create_sliding_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn Accumulator>> {
        match is_ours(&args) {
            true => Ok(Box::new(Sum::default())),
            false => self.engine.create_sliding_accumulator(args),
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
        if !is_ours(&args) {
            return self.engine.create_groups_accumulator(args);
        }
        let overflow = Arc::new(AtomicBool::new(false));
        let seen = overflow.clone();
        let add = move |sum: &mut i64, value: i64| match sum.checked_add(value) {
            Some(total) => *sum = total,
            None => seen.store(true, Ordering::Relaxed),
        };
        let sums = PrimitiveGroupsAccumulator::<Int64Type, _>::new(&DataType::Int64, add);
        Ok(Box::new(GroupSums { sums: Box::new(sums), overflow }))
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

/// One sum, of all rows or of those in a window.
#[derive(Debug, Default)]
struct Sum {
    total: i128,
    /// Values in the total: without any it is NULL.
    count: u64,
}

impl Sum {
    fn value(&self) -> Result<ScalarValue> {
        if self.count == 0 {
            return Ok(ScalarValue::Int64(None));
        }
        let total = i64::try_from(self.total).map_err(|_| out_of_range())?;
        Ok(ScalarValue::Int64(Some(total)))
    }
}

/// The sum of an array, and of how many values.
fn sum(values: &ArrayRef) -> (i128, u64) {
    let values: &Int64Array = values.as_primitive();
    let total = match arrow::compute::sum_checked(values) {
        Ok(total) => total.unwrap_or_default().into(),
        Err(_) => values.iter().flatten().map(i128::from).sum(),
    };
    (total, (values.len() - values.null_count()) as u64)
}

impl Accumulator for Sum {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let (total, count) = sum(&values[0]);
        self.total += total;
        self.count += count;
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let (total, count) = sum(&values[0]);
        self.total -= total;
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

/// A sum for each group. One that did not fit fails them all when they are asked for.
struct GroupSums {
    sums: Box<dyn GroupsAccumulator>,
    overflow: Arc<AtomicBool>,
}

impl GroupSums {
    fn check(&self) -> Result<()> {
        match self.overflow.load(Ordering::Relaxed) {
            true => Err(out_of_range().into()),
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
