//! The columns of a piece that are kept, decoded.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowNativeTypeOp, RecordBatch, RecordBatchOptions, Scalar, UInt64Array,
    downcast_primitive_array, make_comparator,
};
use arrow::compute::kernels::cmp::eq;
use arrow::compute::{SortOptions, take};
use arrow::datatypes::{DataType, Field, FieldRef, SchemaRef};
use datafusion::error::Result;

use super::MAX_ROWS;
use super::file::compact;

#[derive(Debug)]
pub struct Kept {
    columns: Vec<Column>,
}

#[derive(Clone, Debug)]
struct Column {
    field: FieldRef,
    values: ArrayRef,
    /// From the least to the greatest, and none is null.
    sorted: bool,
}

impl Kept {
    /// What was kept before, and more columns.
    pub fn new(before: Option<&Self>, more: impl Iterator<Item = (FieldRef, ArrayRef)>) -> Self {
        let mut columns = before.map_or_else(Vec::new, |before| before.columns.clone());
        columns.extend(more.map(|(field, values)| Column {
            sorted: super::can_be_key(values.data_type()) && is_sorted(&values),
            field,
            values,
        }));
        Self { columns }
    }

    pub fn memory_size(&self) -> usize {
        let bytes = |column: &Column| size_of::<Column>() + column.values.get_array_memory_size();
        self.columns.iter().map(bytes).sum()
    }

    pub fn column(&self, field: &FieldRef) -> Option<&ArrayRef> {
        self.find(field).map(|column| &column.values)
    }

    fn find(&self, field: &FieldRef) -> Option<&Column> {
        let same = |column: &&Column| Arc::ptr_eq(&column.field, field);
        let alike = |column: &&Column| Field::eq(&column.field, field);
        self.columns.iter().find(same).or_else(|| self.columns.iter().find(alike))
    }

    /// The rows whose key has a value; `None` if these are too many, or a column is missing.
    pub fn rows_with(
        &self,
        key: &FieldRef,
        value: &Scalar<ArrayRef>,
        schema: &SchemaRef,
    ) -> Result<Option<RecordBatch>> {
        let Some(key) = self.find(key) else { return Ok(None) };
        let places = key.places_of(value)?;
        if places.len() > MAX_ROWS {
            return Ok(None);
        }
        let mut columns = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            let Some(values) = self.column(field) else { return Ok(None) };
            // Texts keep what they are part of.
            columns.push(compact(&places.of(values)?));
        }
        // Of a schema without columns.
        let options = RecordBatchOptions::new().with_row_count(Some(places.len()));
        Ok(Some(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?))
    }
}

/// Where a value stands in a column.
enum Places {
    Together(Range<usize>),
    Apart(UInt64Array),
}

impl Places {
    fn len(&self) -> usize {
        match self {
            Self::Together(places) => places.len(),
            Self::Apart(places) => places.len(),
        }
    }

    /// What stands there in another column: a part of it, where that is one and is told by its own size.
    fn of(&self, values: &ArrayRef) -> Result<ArrayRef> {
        let kind = values.data_type();
        Ok(match self {
            Self::Together(places) if kind.is_primitive() || has_views(kind) => {
                values.slice(places.start, places.len())
            }
            Self::Together(places) => {
                let places: UInt64Array = (places.start as u64..places.end as u64).collect();
                take(values, &places, None)?
            }
            Self::Apart(places) => take(values, places, None)?,
        })
    }
}

impl Column {
    /// Where a value stands.
    fn places_of(&self, value: &Scalar<ArrayRef>) -> Result<Places> {
        if !self.sorted {
            let found = eq(&self.values, value)?;
            // Null is equal to nothing.
            let found = found.values().set_indices().filter(|at| found.is_valid(*at));
            return Ok(Places::Apart(found.map(|at| at as u64).collect()));
        }
        let value = value.clone().into_inner();
        let (values, value) = (self.values.as_ref(), value.as_ref());
        let (start, end) = downcast_primitive_array!(
            (values, value) => {
                let (values, value) = (values.values(), value.value(0));
                let start = near(guess(values, value), values.len(), |at| !values[at].is_lt(value));
                (start, run(start, values.len(), |at| values[at].is_eq(value)))
            }
            _ => {
                let compare = make_comparator(values, value, SortOptions::default())?;
                let start = first(0, values.len(), |at| compare(at, 0) != Ordering::Less);
                (start, run(start, values.len(), |at| compare(at, 0) == Ordering::Equal))
            }
        );
        Ok(Places::Together(start..end))
    }
}

/// The first place from which on something holds, which holds for all that follow; the end if for none.
fn first(start: usize, end: usize, holds: impl Fn(usize) -> bool) -> usize {
    let (mut start, mut end) = (start, end);
    while start < end {
        let middle = start + (end - start) / 2;
        if holds(middle) {
            end = middle;
        } else {
            start = middle + 1;
        }
    }
    start
}

/// Where a value would stand among sorted ones if they were spread evenly, as ids and times often are.
fn guess<T: ArrowNativeTypeOp>(values: &[T], value: T) -> usize {
    let even = || {
        let (first, last) = (values.first()?.to_i64()?, values.last()?.to_i64()?);
        let value = value.to_i64()?.clamp(first, last);
        // From the least, which may be far below zero.
        let above = |other: i64| other.wrapping_sub(first).cast_unsigned() as f64;
        Some((above(value) / above(last).max(1.0) * (values.len() - 1) as f64) as usize)
    };
    even().unwrap_or(values.len() / 2)
}

/// [`first`] of all `end` places, which is looked for near one of them first.
fn near(place: usize, end: usize, holds: impl Fn(usize) -> bool) -> usize {
    if place >= end || !holds(place) {
        return run(place.min(end), end, |at| !holds(at));
    }
    let (mut inside, mut step) = (place, 1);
    while inside > 0 && holds(inside.saturating_sub(step)) {
        inside = inside.saturating_sub(step);
        step *= 2;
    }
    first(inside.saturating_sub(step), inside, holds)
}

/// Where a run ends that begins at `start`: looked for near its start first, since most are short and what lies
/// far away is in no cache of the processor.
fn run(start: usize, end: usize, holds: impl Fn(usize) -> bool) -> usize {
    let (mut inside, mut step) = (start, 1);
    while inside < end && holds((inside + step).min(end) - 1) {
        inside = (inside + step).min(end);
        step *= 2;
    }
    first(inside, (inside + step).min(end), |at| !holds(at))
}

fn has_views(kind: &DataType) -> bool {
    matches!(kind, DataType::Utf8View | DataType::BinaryView)
}

fn is_sorted(values: &ArrayRef) -> bool {
    values.null_count() == 0
        && make_comparator(values, values, SortOptions::default()).is_ok_and(|compare| {
            (1..values.len()).all(|at| compare(at - 1, at) != Ordering::Greater)
        })
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;
    use arrow::datatypes::Schema;

    use super::*;

    fn places(keys: Vec<Option<i64>>, value: i64) -> Vec<u64> {
        let field = Arc::new(Field::new("key", DataType::Int64, true));
        let values: ArrayRef = Arc::new(Int64Array::from(keys));
        let places: ArrayRef = Arc::new((0..values.len() as u64).collect::<UInt64Array>());
        let place = Arc::new(Field::new("place", DataType::UInt64, false));
        let kept = Kept::new(None, [(field.clone(), values)].into_iter());
        let kept = Kept::new(Some(&kept), [(place.clone(), places)].into_iter());
        let schema = Arc::new(Schema::new(vec![place]));
        let value = Scalar::new(Arc::new(Int64Array::from(vec![value])) as ArrayRef);
        let rows = kept.rows_with(&field, &value, &schema).expect("rows").expect("all columns");
        let places = rows.column(0).as_any().downcast_ref::<UInt64Array>().expect("places");
        places.values().to_vec()
    }

    #[test]
    fn rows_are_found_whether_keys_are_sorted_or_not() {
        let sorted = || vec![Some(1), Some(3), Some(3), Some(7)];
        for (value, expected) in
            [(0, vec![]), (1, vec![0]), (3, vec![1, 2]), (5, vec![]), (7, vec![3]), (8, vec![])]
        {
            assert_eq!(places(sorted(), value), expected, "{value}");
            let mut keys = sorted();
            keys.push(None);
            assert_eq!(places(keys, value), expected, "{value}, with a null at the end");
        }
        assert_eq!(places(vec![Some(7), None, Some(3), Some(7)], 7), [0, 3]);
        assert!(places(vec![], 7).is_empty());
        // Spread evenly, and not at all.
        let even = (0..1000).map(|n| n * 3 - 500).collect::<Vec<i64>>();
        let squares = (0..1000).map(|n| n * n).collect();
        let far = vec![i64::MIN, -1, 0, 1, 2, 3, i64::MAX];
        for keys in [even, squares, far, vec![5; 100]] {
            for value in keys.iter().flat_map(|key| [key.saturating_sub(1), *key]) {
                let expected = keys.iter().enumerate().filter(|(_, key)| **key == value);
                let expected: Vec<u64> = expected.map(|(at, _)| at as u64).collect();
                assert_eq!(places(keys.iter().copied().map(Some).collect(), value), expected);
            }
        }
        for length in 0..20 {
            for others in [0, 1, 50] {
                let run = std::iter::repeat_n(Some(3), length);
                let keys = [Some(1)].into_iter().chain(run).chain(vec![Some(5); others]);
                let expected: Vec<u64> = (1..=length as u64).collect();
                assert_eq!(places(keys.collect(), 3), expected, "before {others} others");
            }
        }
    }
}
