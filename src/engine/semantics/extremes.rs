//! `min` and `max` of floats for groups: to PostgreSQL no number is NaN's equal or larger, while the engine
//! forgets a NaN as soon as a number follows it.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, Float32Type, Float64Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, ReversedUDAF, SetMonotonicity,
    Signature, StatisticsArgs,
};
use datafusion_functions_aggregate_common::aggregate::groups_accumulator::prim_op::PrimitiveGroupsAccumulator;

/// The forms of those functions that `known` has.
pub(super) fn functions(
    known: impl Fn(&str) -> Option<Arc<AggregateUDF>>,
) -> Vec<Arc<AggregateUDF>> {
    let extreme = |(name, greatest): (&str, bool)| {
        let function = Extreme { engine: known(name)?, greatest };
        Some(Arc::new(AggregateUDF::new_from_impl(function)))
    };
    [("min", false), ("max", true)].into_iter().filter_map(extreme).collect()
}

/// The engine's function, but for groups of floats.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Extreme {
    engine: Arc<AggregateUDF>,
    greatest: bool,
}

/// The accumulator of a type of floats, by the order of all floats, in which NaN is the largest.
macro_rules! of_floats {
    ($kind:ty, $float:ty, $type:expr, $greatest:expr) => {{
        let greatest = $greatest;
        let take = move |kept: &mut $float, value: $float| {
            let order = value.total_cmp(kept);
            let better = if greatest { order.is_gt() } else { order.is_lt() };
            if better {
                *kept = value;
            }
        };
        let start = if greatest { <$float>::NEG_INFINITY } else { <$float>::NAN };
        let groups = PrimitiveGroupsAccumulator::<$kind, _>::new($type, take);
        Box::new(groups.with_starting_value(start))
    }};
}

impl AggregateUDFImpl for Extreme {
    fn name(&self) -> &str {
        self.engine.name()
    }

    fn aliases(&self) -> &[String] {
        self.engine.aliases()
    }

    fn signature(&self) -> &Signature {
        self.engine.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.engine.coerce_types(types)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.engine.return_type(types)
    }

    fn return_field(&self, fields: &[FieldRef]) -> Result<FieldRef> {
        self.engine.inner().return_field(fields)
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        self.engine.state_fields(args)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        self.engine.accumulator(args)
    }

    fn create_sliding_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn Accumulator>> {
        self.engine.create_sliding_accumulator(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        self.engine.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(match args.return_field.data_type() {
            kind @ DataType::Float64 => of_floats!(Float64Type, f64, kind, self.greatest),
            kind @ DataType::Float32 => of_floats!(Float32Type, f32, kind, self.greatest),
            _ => return self.engine.create_groups_accumulator(args),
        })
    }

    fn is_descending(&self) -> Option<bool> {
        self.engine.inner().is_descending()
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.engine.order_sensitivity()
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        self.engine.reverse_udf()
    }

    fn value_from_stats(&self, args: &StatisticsArgs<'_>) -> Option<ScalarValue> {
        self.engine.inner().value_from_stats(args)
    }

    fn set_monotonicity(&self, kind: &DataType) -> SetMonotonicity {
        self.engine.inner().set_monotonicity(kind)
    }
}
