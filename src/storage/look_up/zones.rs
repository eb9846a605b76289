//! Where keys lie in a file.

use arrow::array::{
    Array, ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray, PrimitiveArray, Scalar,
    downcast_primitive_array,
};
use arrow::compute::and;
use arrow::compute::kernels::cmp::{gt_eq, lt_eq};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion_functions_aggregate_common::min_max::{max_batch, min_batch};
use futures::TryStreamExt;
use parquet::file::metadata::RowGroupMetaData;

use super::file::Source;
use super::{MAX_FILE_ROWS, PIECE};

/// The least and the greatest key of each piece of a file.
#[derive(Debug)]
pub struct Zones {
    /// Tells them from those of other files and columns.
    pub number: u64,
    pub rows: usize,
    /// Null where all keys are.
    least: ArrayRef,
    greatest: ArrayRef,
}

impl Zones {
    /// `None` if the file is too large.
    pub async fn read(source: &Source, number: u64) -> Result<Option<Self>> {
        let metadata = source.metadata().await?;
        let rows: i64 = metadata.row_groups().iter().map(RowGroupMetaData::num_rows).sum();
        if !u64::try_from(rows).is_ok_and(|rows| rows <= MAX_FILE_ROWS) {
            return Ok(None);
        }
        let Some(mut batches) = source.scan(&[source.keyed.key], None).await? else {
            return Err(changed());
        };
        let mut bounds = Bounds::default();
        while let Some(batch) = batches.try_next().await? {
            bounds.add(batch.column(0))?;
        }
        if bounds.rows as i64 != rows || !source.is_same().await? {
            return Err(changed());
        }
        bounds.finish(number, source)
    }

    /// The pieces that can hold a key.
    pub fn pieces(&self, value: &Scalar<ArrayRef>) -> Result<Vec<u32>> {
        let key = value.clone().into_inner();
        let (least, key) = (self.least.as_ref(), key.as_ref());
        let pieces: Vec<u32> = downcast_primitive_array!(
            (least, key) => {
                let (key, nulls) = (key.value(0), least.nulls());
                let greatest = alike(least, &self.greatest);
                let bounds = least.values().iter().zip(greatest.values()).enumerate();
                bounds
                    .filter(|(_, (least, greatest))| least.is_le(key) && greatest.is_ge(key))
                    .filter(|(at, _)| nulls.is_none_or(|nulls| nulls.is_valid(*at)))
                    .map(|(at, _)| at as u32)
                    .collect()
            }
            _ => {
                let can = and(&lt_eq(&self.least, value)?, &gt_eq(&self.greatest, value)?)?;
                let places = can.values().set_indices();
                places.filter(|at| can.is_valid(*at)).map(|at| at as u32).collect()
            }
        );
        Ok(pieces)
    }

    /// The rows of a piece.
    pub fn range(&self, piece: u32) -> std::ops::Range<usize> {
        let start = piece as usize * PIECE;
        start..(start + PIECE).min(self.rows)
    }

    pub fn memory_size(&self) -> usize {
        size_of::<Self>()
            + self.least.get_array_memory_size()
            + self.greatest.get_array_memory_size()
    }
}

/// Zones that are being made.
#[derive(Default)]
struct Bounds {
    rows: usize,
    /// Of each piece so far.
    all: Vec<[ScalarValue; 2]>,
}

impl Bounds {
    fn add(&mut self, keys: &ArrayRef) -> Result<()> {
        let mut at = 0;
        while at < keys.len() {
            let left = PIECE - self.rows % PIECE;
            let part = keys.slice(at, left.min(keys.len() - at));
            let (least, greatest) = (min_batch(&part)?, max_batch(&part)?);
            if self.rows.is_multiple_of(PIECE) {
                self.all.push([least, greatest]);
            } else if let Some([low, high]) = self.all.last_mut() {
                widen(low, least, std::cmp::Ordering::Less);
                widen(high, greatest, std::cmp::Ordering::Greater);
            }
            at += part.len();
            self.rows += part.len();
        }
        Ok(())
    }

    fn finish(self, number: u64, source: &Source) -> Result<Option<Zones>> {
        if self.all.is_empty() {
            return Ok(None);
        }
        let kind = source.keyed.table.schema().field(source.keyed.key).data_type().clone();
        let bound = |which: usize| {
            let values = self.all.iter().map(|bounds| bounds[which].clone());
            // Of one type, for an array of nulls as well.
            let typed = values.map(|value| value.cast_to(&kind)).collect::<Result<Vec<_>>>()?;
            ScalarValue::iter_to_array(typed)
        };
        Ok(Some(Zones { number, rows: self.rows, least: bound(0)?, greatest: bound(1)? }))
    }
}

/// An array of the type that another one has.
fn alike<'a, T: ArrowPrimitiveType>(
    _: &PrimitiveArray<T>,
    other: &'a ArrayRef,
) -> &'a PrimitiveArray<T> {
    other.as_primitive()
}

fn changed() -> DataFusionError {
    DataFusionError::Execution("the file has changed".to_owned())
}

/// Takes another value for a bound, if it lies further out; a bound may be null.
fn widen(bound: &mut ScalarValue, other: ScalarValue, out: std::cmp::Ordering) {
    if bound.is_null() || other.partial_cmp(bound) == Some(out) && !other.is_null() {
        *bound = other;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringViewArray};

    use super::*;

    fn pieces(least: ArrayRef, greatest: ArrayRef, value: ArrayRef) -> Vec<u32> {
        let zones = Zones { number: 0, rows: 4 * PIECE, least, greatest };
        zones.pieces(&Scalar::new(value)).expect("pieces")
    }

    #[test]
    fn a_key_is_in_the_pieces_whose_bounds_it_is_between() {
        let numbers = |all: [Option<i64>; 4]| Arc::new(Int64Array::from(all.to_vec())) as ArrayRef;
        // All keys of the third piece are null.
        let least = [Some(-3), Some(0), None, Some(5)];
        let greatest = [Some(0), Some(4), None, Some(9)];
        let texts = |all: [Option<i64>; 4]| {
            let text =
                |number: i64| char::from(b'm'.saturating_add_signed(number as i8)).to_string();
            Arc::new(all.map(|number| number.map(text)).iter().collect::<StringViewArray>())
                as ArrayRef
        };
        for (key, expected) in
            [(-4, vec![]), (0, vec![0, 1]), (4, vec![1]), (9, vec![3]), (10, vec![])]
        {
            let key = [Some(key), None, None, None];
            for all in [&numbers as &dyn Fn([Option<i64>; 4]) -> ArrayRef, &texts] {
                let found = pieces(all(least), all(greatest), all(key).slice(0, 1));
                assert_eq!(found, expected, "{key:?}");
            }
        }
    }
}
