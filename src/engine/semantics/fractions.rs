//! Lists in order, and `percentile_disc`: the value of such a list by which a part of all has come.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, UInt32Array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{SortOptions, concat, partition, sort_to_indices, take};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use arrow::row::{RowConverter, SortField};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::functions::utils::make_scalar_function;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::moments::no_function;
use crate::values::types::is_text;

/// `array_at_fraction(values, fraction)` (`percentile_disc_final` of PostgreSQL's `orderedsetaggs.c`).
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct AtFraction {
    signature: Signature,
}

impl Default for AtFraction {
    fn default() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for AtFraction {
    fn name(&self) -> &str {
        "array_at_fraction"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [list @ DataType::List(_), fraction]
                if fraction.is_numeric() || fraction.is_null() || is_text(fraction) =>
            {
                Ok(vec![list.clone(), DataType::Float64])
            }
            _ => no_function("percentile_disc", types),
        }
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [DataType::List(element), _] => Ok(element.data_type().clone()),
            _ => no_function("percentile_disc", types),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        element_field(self.name(), &args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        make_scalar_function(chosen, Vec::new())(&args.args)
    }
}

fn chosen(args: &[ArrayRef]) -> Result<ArrayRef> {
    let (lists, fractions) = (args[0].as_list::<i32>(), args[1].as_primitive::<Float64Type>());
    let offsets = lists.value_offsets();
    let place = |row: usize| -> Result<Option<u32>> {
        if fractions.is_null(row) {
            return Ok(None);
        }
        let fraction = fractions.value(row);
        if !(0.0..=1.0).contains(&fraction) {
            return exec_err!("percentile value {fraction} is not between 0 and 1");
        }
        let count = offsets[row + 1] - offsets[row];
        if lists.is_null(row) || count == 0 {
            return Ok(None);
        }
        let number = (fraction * f64::from(count)).ceil() as i32;
        Ok(u32::try_from(offsets[row] + (number - 1).clamp(0, count - 1)).ok())
    };
    let places = (0..lists.len()).map(place).collect::<Result<UInt32Array>>()?;
    Ok(take(lists.values(), &places, None)?)
}

/// `array_most_frequent(values)`: of a list in order, the value that stands there most often, or the first of
/// several (`mode_final` of PostgreSQL's `orderedsetaggs.c`).
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct MostFrequent {
    signature: Signature,
}

impl Default for MostFrequent {
    fn default() -> Self {
        Self { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for MostFrequent {
    fn name(&self) -> &str {
        "array_most_frequent"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [DataType::List(element)] => Ok(element.data_type().clone()),
            _ => no_function("mode", types),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        element_field(self.name(), &args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        make_scalar_function(most_frequent, Vec::new())(&args.args)
    }
}

fn most_frequent(args: &[ArrayRef]) -> Result<ArrayRef> {
    let lists = args[0].as_list::<i32>();
    let offsets = lists.value_offsets();
    let place = |row: usize| -> Result<Option<u32>> {
        if lists.is_null(row) || offsets[row] == offsets[row + 1] {
            return Ok(None);
        }
        let runs = partition(&[lists.value(row)])?.ranges();
        // The last of the longest, from behind.
        let longest = runs.iter().rev().max_by_key(|run| run.len());
        let start = longest.and_then(|run| i32::try_from(run.start).ok());
        Ok(start.and_then(|start| u32::try_from(offsets[row] + start).ok()))
    };
    let places = (0..lists.len()).map(place).collect::<Result<UInt32Array>>()?;
    Ok(take(lists.values(), &places, None)?)
}

/// What comes of a list's elements.
fn element_field(name: &str, args: &ReturnFieldArgs) -> Result<FieldRef> {
    match args.arg_fields[0].data_type() {
        DataType::List(element) => {
            let field = Field::new(name, element.data_type().clone(), true);
            Ok(Arc::new(field.with_metadata(element.metadata().clone())))
        }
        other => no_function(name, std::slice::from_ref(other)),
    }
}

/// `array_in_order(values, down)`: the values of a list as ORDER BY has them, NULLs last unless it goes down.
/// The engine sorts what it aggregates in one thread, and by one order of all aggregates.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct InOrder {
    signature: Signature,
}

impl Default for InOrder {
    fn default() -> Self {
        Self { signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for InOrder {
    fn name(&self) -> &str {
        "array_in_order"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[0].clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let list = args.arg_fields[0].as_ref();
        Ok(Arc::new(list.clone().with_name(self.name()).with_nullable(true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let down = match args.args.get(1) {
            Some(ColumnarValue::Scalar(ScalarValue::Boolean(down))) => *down == Some(true),
            _ => return exec_err!("array_in_order takes a direction"),
        };
        let sorted = move |args: &[ArrayRef]| in_order(&args[0], down);
        make_scalar_function(sorted, Vec::new())(&args.args)
    }
}

fn in_order(array: &ArrayRef, down: bool) -> Result<ArrayRef> {
    let Some(lists) = array.as_list_opt::<i32>() else { return Ok(Arc::clone(array)) };
    let DataType::List(item) = lists.data_type() else { return Ok(Arc::clone(array)) };
    let options = SortOptions { descending: down, nulls_first: down };
    let (mut parts, mut lengths) = (Vec::new(), Vec::new());
    for row in 0..lists.len() {
        let values = if lists.is_null(row) { lists.values().slice(0, 0) } else { lists.value(row) };
        lengths.push(values.len());
        let places = match values.data_type().is_nested() {
            true => places_of_nested(&values, options)?,
            false => sort_to_indices(&values, Some(options), None)?,
        };
        parts.push(take(&values, &places, None)?);
    }
    let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
    let values = match parts.as_slice() {
        [] => lists.values().slice(0, 0),
        parts => concat(parts)?,
    };
    let offsets = OffsetBuffer::from_lengths(lengths);
    let sorted = ListArray::try_new(Arc::clone(item), offsets, values, lists.nulls().cloned())?;
    Ok(Arc::new(sorted))
}

fn places_of_nested(values: &ArrayRef, options: SortOptions) -> Result<UInt32Array> {
    let field = SortField::new_with_options(values.data_type().clone(), options);
    let rows = RowConverter::new(vec![field])?.convert_columns(&[Arc::clone(values)])?;
    let mut places: Vec<u32> = (0..u32::try_from(rows.num_rows()).unwrap_or(u32::MAX)).collect();
    places.sort_by(|one, other| rows.row(*one as usize).cmp(&rows.row(*other as usize)));
    Ok(places.into())
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Int32Type;

    use super::*;

    #[test]
    fn the_most_frequent_value_is_the_first_of_several() {
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([
            Some(vec![Some(1), Some(2), Some(2), Some(3)]),
            Some(vec![Some(1), Some(1), Some(2), Some(2)]),
            None,
            Some(vec![]),
        ]);
        let found = most_frequent(&[Arc::new(lists) as ArrayRef]).expect("values");
        let found = Vec::from_iter(found.as_primitive::<Int32Type>());
        assert_eq!(found, [Some(2), Some(1), None, None]);
    }

    #[test]
    fn lists_are_sorted_one_by_one() {
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([
            Some(vec![Some(3), None, Some(1)]),
            None,
            Some(vec![]),
            Some(vec![Some(2), Some(4)]),
        ]);
        let of = |down: bool| {
            let lists: ArrayRef = Arc::new(lists.slice(0, 4));
            let sorted = in_order(&lists, down).unwrap();
            let sorted = sorted.as_list::<i32>();
            let one = |row| Vec::from_iter(sorted.value(row).as_primitive::<Int32Type>());
            assert!(sorted.is_null(1) && sorted.value(2).is_empty());
            [one(0), one(3)]
        };
        assert_eq!(of(false), [vec![Some(1), Some(3), None], vec![Some(2), Some(4)]]);
        assert_eq!(of(true), [vec![None, Some(3), Some(1)], vec![Some(4), Some(2)]]);
    }
}
