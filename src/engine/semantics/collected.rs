//! `string_agg` and `array_agg` with the size of each result bounded, as that of functions is
//! ([`super::bounded`]): a value is put together outside of what the memory limit counts.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, EmitTo, GroupsAccumulator,
    ReversedUDAF, Signature,
};

use super::bounded::{ELEMENT, LARGEST_STEP, LARGEST_VALUE, Numbers, SMALL_VALUE, TooLarge};

const NAMES: &[&str] = &["string_agg", "array_agg"];

/// The bounded forms of those functions that `known` has.
pub(super) fn functions(
    known: impl Fn(&str) -> Option<Arc<AggregateUDF>>,
) -> Vec<Arc<AggregateUDF>> {
    NAMES.iter().filter_map(|name| known(name)).map(Collected::around).collect()
}

/// One of the engine's functions, with its result bounded.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Collected {
    engine: Arc<AggregateUDF>,
}

impl Collected {
    fn around(engine: Arc<AggregateUDF>) -> Arc<AggregateUDF> {
        Arc::new(AggregateUDF::new_from_impl(Self { engine }))
    }

    /// Whether its values are sorted whatever order they come in, which the engine does not say: it would refuse
    /// two of them with different orders.
    fn sorts_itself(&self) -> bool {
        self.engine.name() == "string_agg"
    }

    fn bounded(&self, inner: Box<dyn Accumulator>, distinct: bool) -> Box<dyn Accumulator> {
        let name = self.engine.name().to_owned();
        Box::new(One { inner, name, distinct, bytes: 0, given: 0 })
    }
}

impl AggregateUDFImpl for Collected {
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
        self.engine.return_type(types)
    }

    fn return_field(&self, fields: &[FieldRef]) -> Result<FieldRef> {
        self.engine.inner().return_field(fields)
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        self.engine.state_fields(args)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let distinct = args.is_distinct;
        Ok(self.bounded(self.engine.accumulator(args)?, distinct))
    }

    fn create_sliding_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn Accumulator>> {
        let distinct = args.is_distinct;
        Ok(self.bounded(self.engine.create_sliding_accumulator(args)?, distinct))
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        self.engine.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        let inner = self.engine.create_groups_accumulator(args)?;
        Ok(Box::new(Groups { inner, name: self.engine.name().to_owned(), bytes: Vec::new() }))
    }

    fn with_beneficial_ordering(
        self: Arc<Self>,
        beneficial: bool,
    ) -> Result<Option<Arc<dyn AggregateUDFImpl>>> {
        if self.sorts_itself() {
            return Ok(Some(self));
        }
        let ordered = self.engine.as_ref().clone().with_beneficial_ordering(beneficial)?;
        Ok(ordered.map(|engine| {
            let ordered: Arc<dyn AggregateUDFImpl> = Arc::new(Self { engine: Arc::new(engine) });
            ordered
        }))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        match self.sorts_itself() {
            true => AggregateOrderSensitivity::SoftRequirement,
            false => self.engine.order_sensitivity(),
        }
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        match self.engine.reverse_udf() {
            ReversedUDAF::Reversed(engine) => ReversedUDAF::Reversed(Self::around(engine)),
            other => other,
        }
    }

    fn supports_null_handling_clause(&self) -> bool {
        self.engine.supports_null_handling_clause()
    }
}

fn too_large(function: &str, bytes: u64, limit: u64) -> DataFusionError {
    let function = function.to_owned();
    DataFusionError::External(Box::new(TooLarge { function, bytes, limit }))
}

/// About how many bytes each row adds to a result: its text and the separator, or an element.
struct Sizes {
    lengths: Numbers,
    separators: Numbers,
    each: u64,
}

impl Sizes {
    /// Of the arguments, or of a state in the place of the first.
    fn new(args: &[ArrayRef]) -> Result<Self> {
        let lengths = |at: usize| match args.get(at) {
            Some(array) => Numbers::lengths(&ColumnarValue::Array(array.clone())),
            None => Ok(Numbers::none()),
        };
        let each = match args.first().map(|array| array.data_type()) {
            Some(DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) => 0,
            Some(kind) => kind.primitive_width().map_or(ELEMENT, |width| width as u64),
            None => 0,
        };
        let separators = if each == 0 { lengths(1)? } else { Numbers::none() };
        Ok(Self { lengths: lengths(0)?, separators, each })
    }

    fn at(&self, row: usize) -> u64 {
        self.lengths.at(row) + self.separators.at(row) + self.each
    }
}

/// The bytes in an aggregate's state: texts, or arrays with all that is in them.
fn state_sizes(state: &ArrayRef) -> Result<Box<dyn Fn(usize) -> u64>> {
    let Some(lists) = state.as_list_opt::<i32>() else {
        let sizes = Sizes::new(std::slice::from_ref(state))?;
        return Ok(Box::new(move |row| sizes.at(row)));
    };
    let sizes = Sizes::new(std::slice::from_ref(lists.values()))?;
    let each = if sizes.each == 0 { ELEMENT } else { sizes.each };
    let offsets = lists.offsets().clone();
    Ok(Box::new(move |row| {
        let elements = offsets[row] as usize..offsets[row + 1] as usize;
        elements.map(|at| sizes.lengths.at(at) + each).sum()
    }))
}

/// One result, of all rows or of those in a window.
#[derive(Debug)]
struct One {
    inner: Box<dyn Accumulator>,
    name: String,
    distinct: bool,
    /// In the result.
    bytes: u64,
    /// In results that were given and are large.
    given: u64,
}

impl One {
    fn check(&mut self) -> Result<()> {
        if self.distinct {
            self.bytes = self.inner.size() as u64;
        }
        match self.bytes > LARGEST_VALUE {
            true => Err(too_large(&self.name, self.bytes, LARGEST_VALUE)),
            false => Ok(()),
        }
    }
}

impl Accumulator for One {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        if !self.distinct
            && let Some(first) = values.first()
        {
            let sizes = Sizes::new(values)?;
            self.bytes += (0..first.len()).map(|row| sizes.at(row)).sum::<u64>();
            self.check()?;
        }
        self.inner.update_batch(values)?;
        self.check()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        if !self.distinct
            && let Some(first) = states.first()
        {
            let sizes = state_sizes(first)?;
            self.bytes += (0..first.len()).map(sizes).sum::<u64>();
            self.check()?;
        }
        self.inner.merge_batch(states)?;
        self.check()
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        if let Some(first) = values.first() {
            let sizes = Sizes::new(values)?;
            let gone = (0..first.len()).map(|row| sizes.at(row)).sum::<u64>();
            self.bytes = self.bytes.saturating_sub(gone);
        }
        self.inner.retract_batch(values)
    }

    fn supports_retract_batch(&self) -> bool {
        self.inner.supports_retract_batch()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        // In a window each row may have a value of its own: those that are large count together.
        if self.bytes > SMALL_VALUE {
            self.given += self.bytes;
        }
        match self.given > LARGEST_STEP {
            true => Err(too_large(&self.name, self.given, LARGEST_STEP)),
            false => self.inner.evaluate(),
        }
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn size(&self) -> usize {
        self.inner.size() + size_of_val(self)
    }
}

/// A result for each group.
struct Groups {
    inner: Box<dyn GroupsAccumulator>,
    name: String,
    /// In each group's result.
    bytes: Vec<u64>,
}

impl Groups {
    fn add(
        &mut self,
        sizes: impl Fn(usize) -> u64,
        groups: &[usize],
        filter: Option<&BooleanArray>,
        count: usize,
    ) -> Result<()> {
        self.bytes.resize(count.max(self.bytes.len()), 0);
        for (row, group) in groups.iter().enumerate() {
            if filter.is_some_and(|filter| !filter.is_valid(row) || !filter.value(row)) {
                continue;
            }
            let bytes = &mut self.bytes[*group];
            *bytes += sizes(row);
            if *bytes > LARGEST_VALUE {
                return Err(too_large(&self.name, *bytes, LARGEST_VALUE));
            }
        }
        Ok(())
    }

    fn emitted(&mut self, emit: EmitTo) {
        match emit {
            EmitTo::All => self.bytes.clear(),
            EmitTo::First(count) => drop(self.bytes.drain(..count.min(self.bytes.len()))),
        }
    }
}

impl GroupsAccumulator for Groups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        count: usize,
    ) -> Result<()> {
        let sizes = Sizes::new(values)?;
        self.add(|row| sizes.at(row), groups, filter, count)?;
        self.inner.update_batch(values, groups, filter, count)
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], count: usize) -> Result<()> {
        if let Some(state) = values.first() {
            self.add(state_sizes(state)?, groups, None, count)?;
        }
        self.inner.merge_batch(values, groups, count)
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        self.emitted(emit);
        self.inner.evaluate(emit)
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        self.emitted(emit);
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
        self.inner.size() + self.bytes.capacity() * size_of::<u64>()
    }
}
