//! What a manifest says of a data file's columns: sizes, counts and bounds, from the file's footer.
//!
//! Columns inside of lists and maps have a size only: Parquet counts empty lists among their NULLs,
//! and readers look for no bounds there.

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray, RecordBatch};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Float32Type, Float64Type};
use iceberg::spec::{DataFileBuilder, Datum, PrimitiveLiteral, PrimitiveType, Schema, Type};
use parquet::basic::Type as PhysicalType;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::statistics::Statistics;
use parquet::schema::types::{ColumnDescriptor, SchemaDescriptor};

use super::partitioning::{column_at, paths};
use super::properties::Metrics;
use super::transforms::first_characters;
use crate::storage::Result;

/// The field id that a column of a Parquet schema carries.
pub(super) fn field_id(column: &ColumnDescriptor) -> Option<i32> {
    let info = column.self_type().get_basic_info();
    info.has_id().then(|| info.id())
}

/// A column without nested ones.
#[derive(Clone, Debug)]
struct Leaf {
    /// Its position in the Parquet schema.
    position: usize,
    id: i32,
    kind: PrimitiveType,
    metrics: Metrics,
    /// Whether a row has any number of its values.
    repeated: bool,
}

/// What is to be known of the columns of a schema.
#[derive(Clone, Debug)]
pub(super) struct Leaves {
    leaves: Vec<Leaf>,
    floats: Vec<(i32, Vec<usize>)>,
}

/// NaN values seen so far, in the order of [`Leaves::floats`].
#[derive(Clone, Debug)]
pub(super) struct Nans(Vec<u64>);

impl Leaves {
    pub fn new(
        schema: &Schema,
        parquet: &SchemaDescriptor,
        metrics: &HashMap<i32, Metrics>,
    ) -> Self {
        let leaf = |(position, column): (usize, &std::sync::Arc<ColumnDescriptor>)| {
            let id = field_id(column)?;
            let Type::Primitive(kind) = schema.field_by_id(id)?.field_type.as_ref() else {
                return None;
            };
            let metrics = metrics.get(&id).copied().unwrap_or(Metrics::None);
            let repeated = column.max_rep_level() > 0;
            Some(Leaf { position, id, kind: kind.clone(), metrics, repeated })
        };
        let leaves: Vec<Leaf> = parquet.columns().iter().enumerate().filter_map(leaf).collect();
        let paths = paths(schema);
        let counted = |leaf: &&Leaf| {
            let float = matches!(leaf.kind, PrimitiveType::Float | PrimitiveType::Double);
            float && !leaf.repeated && leaf.metrics != Metrics::None
        };
        let floats = (leaves.iter().filter(counted))
            .filter_map(|leaf| Some((leaf.id, paths.get(&leaf.id)?.clone())))
            .collect();
        Self { leaves, floats }
    }

    pub fn no_nans(&self) -> Nans {
        Nans(vec![0; self.floats.len()])
    }

    /// Footers do not tell how many NaN values there are.
    pub fn count_nans(&self, batch: &RecordBatch, nans: &mut Nans) -> Result<()> {
        for ((_, path), count) in self.floats.iter().zip(&mut nans.0) {
            *count += nans_of(&column_at(batch, path)?);
        }
        Ok(())
    }

    /// Adds what the footer says to the description of the file.
    pub fn describe(&self, footer: &ParquetMetaData, nans: &Nans, file: &mut DataFileBuilder) {
        let mut sizes = HashMap::new();
        let mut values = HashMap::new();
        let mut nulls = HashMap::new();
        let mut lower = HashMap::new();
        let mut upper = HashMap::new();
        for leaf in &self.leaves {
            let chunks = || footer.row_groups().iter().map(|group| group.column(leaf.position));
            if leaf.metrics == Metrics::None {
                continue;
            }
            sizes.insert(leaf.id, chunks().map(|chunk| count(chunk.compressed_size())).sum());
            if leaf.repeated {
                continue;
            }
            values.insert(leaf.id, chunks().map(|chunk| count(chunk.num_values())).sum());
            let null_count = |statistics: Option<&Statistics>| statistics?.null_count_opt();
            let known: Option<u64> = chunks().map(|chunk| null_count(chunk.statistics())).sum();
            if let Some(known) = known {
                nulls.insert(leaf.id, known);
            }
            let ranges = chunks().map(|chunk| (count(chunk.num_values()), chunk.statistics()));
            if let Some((least, greatest)) = leaf.range(ranges) {
                let (least, greatest) = leaf.bounds(least, greatest);
                lower.extend(least.map(|bound| (leaf.id, bound)));
                upper.extend(greatest.map(|bound| (leaf.id, bound)));
            }
        }
        let nans = self.floats.iter().zip(&nans.0).map(|((id, _), count)| (*id, *count)).collect();
        file.column_sizes(sizes).value_counts(values).null_value_counts(nulls);
        file.nan_value_counts(nans).lower_bounds(lower).upper_bounds(upper);
    }
}

/// Parquet's counts are signed, but not negative.
fn count(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

fn nans_of(column: &ArrayRef) -> u64 {
    match column.data_type() {
        DataType::Float32 => nans(column.as_primitive::<Float32Type>(), |value| value.is_nan()),
        DataType::Float64 => nans(column.as_primitive::<Float64Type>(), |value| value.is_nan()),
        _ => 0,
    }
}

fn nans<T: ArrowPrimitiveType>(
    column: &PrimitiveArray<T>,
    is_nan: impl Fn(&T::Native) -> bool,
) -> u64 {
    let count = match column.null_count() {
        0 => column.values().iter().filter(|value| is_nan(value)).count(),
        _ => column.iter().flatten().filter(|value| is_nan(value)).count(),
    };
    count as u64
}

impl Leaf {
    /// The least and the greatest value, of row groups' statistics with the number of values.
    fn range<'a>(
        &self,
        groups: impl Iterator<Item = (u64, Option<&'a Statistics>)>,
    ) -> Option<(Datum, Datum)> {
        if !matches!(self.metrics, Metrics::Truncate(_) | Metrics::Full) {
            return None;
        }
        let float = matches!(self.kind, PrimitiveType::Float | PrimitiveType::Double);
        let mut range: Option<(Datum, Datum)> = None;
        for (values, statistics) in groups {
            let statistics = statistics?;
            let (least, greatest) = match (statistics.min_bytes_opt(), statistics.max_bytes_opt()) {
                (Some(least), Some(greatest)) => (self.datum(least)?, self.datum(greatest)?),
                // Nothing but NULL, or NaN, which no bound speaks of.
                _ if float || statistics.null_count_opt() == Some(values) => continue,
                _ => return None,
            };
            range = Some(match range {
                None => (least, greatest),
                Some((low, high)) => (
                    if least.partial_cmp(&low)?.is_lt() { least } else { low },
                    if greatest.partial_cmp(&high)?.is_gt() { greatest } else { high },
                ),
            });
        }
        range
    }

    /// A value of Parquet's statistics.
    fn datum(&self, bytes: &[u8]) -> Option<Datum> {
        let decimal = matches!(self.kind, PrimitiveType::Decimal { .. });
        let datum = match (decimal, physical_type(&self.kind)) {
            // Iceberg wants them as other decimals are: the high byte first.
            (true, PhysicalType::INT32 | PhysicalType::INT64) => {
                let reversed: Vec<u8> = bytes.iter().rev().copied().collect();
                Datum::try_from_bytes(&reversed, self.kind.clone())
            }
            _ => Datum::try_from_bytes(bytes, self.kind.clone()),
        };
        datum.ok()
    }

    /// Bounds no longer than wanted; the upper one is then greater than the greatest value, and
    /// missing if there is none of that length.
    fn bounds(&self, least: Datum, greatest: Datum) -> (Option<Datum>, Option<Datum>) {
        let Metrics::Truncate(length) = self.metrics else { return (Some(least), Some(greatest)) };
        match (&self.kind, least.literal(), greatest.literal()) {
            (
                PrimitiveType::String,
                PrimitiveLiteral::String(least),
                PrimitiveLiteral::String(greatest),
            ) => (
                Some(Datum::string(first_characters(least, length))),
                text_above(greatest, length).map(Datum::string),
            ),
            (
                PrimitiveType::Binary,
                PrimitiveLiteral::Binary(least),
                PrimitiveLiteral::Binary(greatest),
            ) => (
                Some(Datum::binary(least.iter().copied().take(length))),
                bytes_above(greatest, length).map(Datum::binary),
            ),
            _ => (Some(least), Some(greatest)),
        }
    }
}

/// How Parquet holds decimals of the type: numbers of up to 18 digits, bytes beyond.
fn physical_type(kind: &PrimitiveType) -> PhysicalType {
    match kind {
        PrimitiveType::Decimal { precision: ..=9, .. } => PhysicalType::INT32,
        PrimitiveType::Decimal { precision: ..=18, .. } => PhysicalType::INT64,
        _ => PhysicalType::FIXED_LEN_BYTE_ARRAY,
    }
}

/// The text itself, or one of at most so many characters that is greater.
fn text_above(text: &str, length: usize) -> Option<String> {
    let start = first_characters(text, length);
    if start.len() == text.len() {
        return Some(text.to_owned());
    }
    let mut characters: Vec<char> = start.chars().collect();
    while let Some(last) = characters.pop() {
        if let Some(next) = (last..=char::MAX).nth(1) {
            characters.push(next);
            return Some(characters.into_iter().collect());
        }
    }
    None
}

/// The bytes themselves, or at most so many that are greater.
fn bytes_above(bytes: &[u8], length: usize) -> Option<Vec<u8>> {
    if bytes.len() <= length {
        return Some(bytes.to_vec());
    }
    let mut start = bytes[..length].to_vec();
    while let Some(last) = start.pop() {
        if let Some(next) = last.checked_add(1) {
            start.push(next);
            return Some(start);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upper_bounds_of_texts_are_rounded_up() {
        assert_eq!(text_above("iceberg", 7), Some("iceberg".into()));
        assert_eq!(text_above("iceberg", 3), Some("icf".into()));
        assert_eq!(text_above("äöü", 2), Some("ä÷".into()));
        // The character after this one is behind the surrogates.
        assert_eq!(text_above("a\u{d7ff}b", 2), Some("a\u{e000}".into()));
        assert_eq!(text_above("a\u{10ffff}b", 2), Some("b".into()));
        assert_eq!(text_above("\u{10ffff}b", 1), None);
    }

    #[test]
    fn upper_bounds_of_bytes_are_rounded_up() {
        assert_eq!(bytes_above(&[1, 2], 2), Some(vec![1, 2]));
        assert_eq!(bytes_above(&[1, 2, 3], 2), Some(vec![1, 3]));
        assert_eq!(bytes_above(&[1, 0xff, 3], 2), Some(vec![2]));
        assert_eq!(bytes_above(&[0xff, 0xff, 3], 2), None);
    }
}
