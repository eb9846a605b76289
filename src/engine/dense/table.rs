//! Numbers of groups by their keys, in an array as long as the keys are apart.

use std::mem::size_of;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, make_array};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::compute::kernels::aggregate::{max, min};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::error::Result;

/// Places that any keys may have. They are memory once they are used.
const FREE: u128 = 1 << 23;

/// Places for each group so far, and each row of a batch, that keys may have beyond that.
const PLACES_OF_GROUP: u128 = 16;

/// The group of each key.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// The key of the first place.
    first: i64,
    /// The group's number and one, by the key's distance from the first; 0: none.
    places: Vec<u32>,
    /// Of each group; any for that of NULL.
    keys: Vec<i64>,
    null: Option<usize>,
}

/// The keys are too far apart, or too many.
#[derive(Debug, PartialEq)]
pub(super) struct TooSparse;

/// Whether keys of a type are whole numbers in a table.
pub(super) fn is_number(kind: &DataType) -> bool {
    use DataType::{Date32, Int8, Int16, Int32, Int64, Timestamp, UInt8, UInt16, UInt32};
    matches!(kind, Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 | Date32 | Timestamp(..))
}

/// Keys as whole numbers.
pub(super) fn numbers(keys: &ArrayRef) -> Result<Int64Array> {
    let same = match keys.data_type() {
        DataType::Date32 => retyped(keys, DataType::Int32)?,
        DataType::Timestamp(..) => retyped(keys, DataType::Int64)?,
        _ => keys.clone(),
    };
    Ok(cast(&same, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}

/// The same bits as values of another type.
fn retyped(array: &ArrayRef, kind: DataType) -> Result<ArrayRef> {
    Ok(make_array(array.to_data().into_builder().data_type(kind).build()?))
}

impl Table {
    pub fn groups(&self) -> usize {
        self.keys.len()
    }

    /// Bytes.
    pub fn memory_size(&self) -> usize {
        self.places.capacity() * size_of::<u32>() + self.keys.capacity() * size_of::<i64>()
    }

    /// Finds the group of each key, and makes those that are new; nothing is changed if the keys do not fit.
    /// `grant` is asked for the bytes of a larger table before there is one.
    pub fn find(
        &mut self,
        keys: &Int64Array,
        found: &mut Vec<usize>,
        grant: impl FnOnce(usize) -> bool,
    ) -> Result<(), TooSparse> {
        found.clear();
        if self.keys.len() + keys.len() >= u32::MAX as usize {
            return Err(TooSparse);
        }
        if let (Some(least), Some(greatest)) = (min(keys), max(keys)) {
            self.make_room(least, greatest, keys.len(), grant)?;
        }
        match keys.nulls().filter(|nulls| nulls.null_count() > 0) {
            None => found.extend(keys.values().iter().map(|key| {
                let place = key.wrapping_sub(self.first) as usize;
                group(&mut self.places[place], &mut self.keys, *key)
            })),
            Some(_) => found.extend(keys.iter().map(|key| match key {
                Some(key) => {
                    let place = key.wrapping_sub(self.first) as usize;
                    group(&mut self.places[place], &mut self.keys, key)
                }
                None => *self.null.get_or_insert_with(|| {
                    self.keys.push(0);
                    self.keys.len() - 1
                }),
            })),
        }
        Ok(())
    }

    fn make_room(
        &mut self,
        least: i64,
        greatest: i64,
        rows: usize,
        grant: impl FnOnce(usize) -> bool,
    ) -> Result<(), TooSparse> {
        let held = self.places.len() as i64;
        // Without places any first key will do.
        let (first, end) = match self.places.is_empty() {
            true => (i128::from(least), i128::from(greatest) + 1),
            false => {
                let end = i128::from(self.first) + i128::from(held);
                let first = i128::from(self.first.min(least));
                (first, end.max(i128::from(greatest) + 1))
            }
        };
        let wanted = (end - first) as u128;
        if wanted == held as u128 {
            return Ok(());
        }
        let most = FREE.max((self.keys.len() + rows) as u128 * PLACES_OF_GROUP);
        if wanted > most {
            return Err(TooSparse);
        }
        // Twice as many as before, on the side where they are wanted, so that they do not grow with each batch.
        let room = (wanted.max(held as u128 * 2) - wanted) as i128;
        let grows_down = !self.places.is_empty() && first < i128::from(self.first);
        let first = match grows_down {
            true => (first - room).max(i64::MIN.into()),
            false => first,
        };
        let end = if grows_down { end } else { end + room };
        let length = (end - first) as usize;
        if !grant(self.memory_size() + length * size_of::<u32>()) {
            return Err(TooSparse);
        }
        let mut places = vec![0; length];
        if !self.places.is_empty() {
            let at = (i128::from(self.first) - first) as usize;
            places[at..at + self.places.len()].copy_from_slice(&self.places);
        }
        self.places = places;
        self.first = first as i64;
        Ok(())
    }

    /// The key of each group, as values of a type.
    pub fn keys(&mut self, kind: &DataType) -> Result<ArrayRef> {
        let keys = std::mem::take(&mut self.keys);
        let nulls = self.null.map(|null| {
            let valid = (0..keys.len()).map(|at| at != null);
            NullBuffer::from_iter(valid)
        });
        let keys: ArrayRef = Arc::new(Int64Array::new(keys.into(), nulls));
        self.places = Vec::new();
        match kind {
            DataType::Date32 => retyped(&cast(&keys, &DataType::Int32)?, DataType::Date32),
            DataType::Timestamp(..) => retyped(&keys, kind.clone()),
            kind => Ok(cast(&keys, kind)?),
        }
    }
}

/// The group at a place, which may be a new one.
#[inline]
fn group(place: &mut u32, keys: &mut Vec<i64>, key: i64) -> usize {
    if *place == 0 {
        keys.push(key);
        *place = keys.len() as u32;
    }
    *place as usize - 1
}

#[cfg(test)]
mod tests {
    use arrow::array::{Date32Array, TimestampMicrosecondArray, UInt32Array};

    use super::*;

    fn find(table: &mut Table, keys: Vec<Option<i64>>) -> Result<Vec<usize>, TooSparse> {
        let mut found = vec![99];
        table.find(&Int64Array::from(keys), &mut found, |_| true).map(|()| found)
    }

    #[test]
    fn keys_have_their_groups() {
        let mut table = Table::default();
        assert_eq!(find(&mut table, vec![Some(7), Some(5), Some(7)]), Ok(vec![0, 1, 0]));
        assert_eq!(find(&mut table, vec![None, Some(-100), None]), Ok(vec![2, 3, 2]));
        assert_eq!(find(&mut table, vec![None, None]), Ok(vec![2, 2]));
        assert_eq!(find(&mut table, vec![Some(5000), Some(5), Some(0)]), Ok(vec![4, 1, 5]));
        assert_eq!(find(&mut table, vec![]), Ok(vec![]));
        assert_eq!(table.groups(), 6);
        let keys = table.keys(&DataType::Int64).expect("keys");
        let wanted = [Some(7), Some(5), None, Some(-100), Some(5000), Some(0)];
        assert_eq!(keys.as_primitive::<Int64Type>(), &Int64Array::from(wanted.to_vec()));
    }

    #[test]
    fn keys_at_the_ends_of_their_type_are_keys_too() {
        for ends in [[i64::MIN, i64::MIN + 3], [i64::MAX - 3, i64::MAX]] {
            let mut table = Table::default();
            assert_eq!(find(&mut table, vec![Some(ends[1])]), Ok(vec![0]));
            assert_eq!(find(&mut table, vec![Some(ends[0]), Some(ends[1])]), Ok(vec![1, 0]));
            assert_eq!(find(&mut table, vec![Some(ends[0] + 1)]), Ok(vec![2]));
        }
    }

    #[test]
    fn keys_that_are_far_apart_are_refused_and_change_nothing() {
        let mut table = Table::default();
        assert_eq!(find(&mut table, vec![Some(1)]), Ok(vec![0]));
        for far in [i64::MAX, i64::MIN, FREE as i64 + 100, -(FREE as i64)] {
            assert_eq!(find(&mut table, vec![Some(2), Some(far)]), Err(TooSparse));
        }
        assert_eq!(table.groups(), 1);
        let groups = 1..=(FREE / PLACES_OF_GROUP) as i64 + 1;
        find(&mut table, groups.map(Some).collect()).expect("groups");
        assert!(find(&mut table, vec![Some(FREE as i64 + 10)]).is_ok());
    }

    #[test]
    fn the_table_grows_seldom_and_not_where_there_is_no_memory() {
        let mut table = Table::default();
        let mut grown = 0;
        for at in 0..2000_i64 {
            let keys = Int64Array::from_iter_values((at * 500..(at + 1) * 500).map(|n| n * 16));
            let grows = |_| {
                grown += 1;
                true
            };
            table.find(&keys, &mut Vec::new(), grows).expect("groups");
        }
        assert!(grown < 30, "{grown} times");
        let far = Int64Array::from(vec![table.first + table.places.len() as i64]);
        assert_eq!(table.find(&far, &mut Vec::new(), |_| false), Err(TooSparse));
        assert_eq!(table.groups(), 1_000_000);
    }

    #[test]
    fn keys_keep_their_type() {
        let arrays: [ArrayRef; 3] = [
            Arc::new(Date32Array::from(vec![Some(3), None, Some(-1)])),
            Arc::new(UInt32Array::from(vec![Some(3), None, Some(u32::MAX / 1024)])),
            Arc::new(
                TimestampMicrosecondArray::from(vec![Some(3), None, Some(-1)]).with_timezone("UTC"),
            ),
        ];
        for array in arrays {
            let mut table = Table::default();
            let mut found = Vec::new();
            let keys = numbers(&array).expect("numbers");
            table.find(&keys, &mut found, |_| true).expect("groups");
            assert_eq!(&table.keys(array.data_type()).expect("keys"), &array);
        }
    }
}
