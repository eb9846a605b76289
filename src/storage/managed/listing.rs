//! A manifest's live files, column by column: what a scan needs to leave files out and to know how
//! many rows it will meet. A table of a hundred thousand files is pruned without looking at any of
//! them one by one.

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, UInt64Array};
use datafusion::common::ScalarValue;
use iceberg::spec::{
    DataContentType, DataFile, DataFileFormat, Datum, Manifest, PrimitiveLiteral, PrimitiveType,
};
use object_store::path::Path;

use super::files::{damaged, path};
use crate::storage::{Error, Result};

/// The live data files of one manifest.
#[derive(Debug)]
pub struct FileList {
    /// Full URLs.
    pub urls: Vec<String>,
    /// The same as paths in their store: to take URLs apart is what would cost most in a plan.
    pub paths: Vec<Path>,
    /// Bytes, by file.
    pub sizes: Vec<u64>,
    pub rows: UInt64Array,
    /// By field id.
    pub columns: HashMap<i32, ColumnBounds>,
}

/// What is known of one column, by file.
#[derive(Debug)]
pub struct ColumnBounds {
    /// Not above any value of the file; null if unknown.
    pub lower: Option<ArrayRef>,
    /// Not below any value of the file; null if unknown.
    pub upper: Option<ArrayRef>,
    pub nulls: UInt64Array,
    /// Bytes that the column takes in the file.
    pub sizes: UInt64Array,
}

impl FileList {
    pub(super) fn new(url: &str, manifest: &Manifest) -> Result<Self> {
        let files: Vec<&DataFile> = (manifest.entries().iter())
            .filter(|entry| entry.is_alive())
            .map(|entry| entry.data_file())
            .collect();
        for file in &files {
            check_readable(file)?;
        }
        let ids: std::collections::BTreeSet<i32> =
            files.iter().flat_map(|file| file.value_counts().keys().copied()).collect();
        let mut columns = HashMap::new();
        for id in ids {
            let bounds = ColumnBounds::new(&files, id);
            columns.insert(id, bounds.map_err(|error| damaged(url, error))?);
        }
        let paths = files.iter().map(|file| path(file.file_path()));
        Ok(Self {
            paths: paths.collect::<Result<_>>()?,
            urls: files.iter().map(|file| file.file_path().to_owned()).collect(),
            sizes: files.iter().map(|file| file.file_size_in_bytes()).collect(),
            rows: files.iter().map(|file| file.record_count()).collect::<Vec<_>>().into(),
            columns,
        })
    }

    pub fn len(&self) -> usize {
        self.urls.len()
    }

    /// Bytes of memory, by estimate.
    pub fn memory_size(&self) -> u64 {
        let names: usize = self.urls.iter().map(|url| 2 * (url.len() + 48)).sum();
        let columns: usize = (self.columns.values())
            .map(|column| {
                let bound = |array: &Option<ArrayRef>| {
                    array.as_ref().map_or(0, |array| array.get_array_memory_size())
                };
                bound(&column.lower) + bound(&column.upper) + 32 * self.len()
            })
            .sum();
        (names + columns) as u64
    }
}

impl ColumnBounds {
    fn new(
        files: &[&DataFile],
        id: i32,
    ) -> std::result::Result<Self, datafusion::error::DataFusionError> {
        let counts = |count: fn(&DataFile) -> &HashMap<i32, u64>| -> UInt64Array {
            files.iter().map(|file| count(file).get(&id).copied()).collect()
        };
        Ok(Self {
            lower: bounds(files.iter().map(|file| file.lower_bounds().get(&id)))?,
            upper: bounds(files.iter().map(|file| {
                // NaN is above all numbers, and no bound tells of it.
                file.upper_bounds().get(&id).filter(|bound| {
                    let float =
                        matches!(bound.data_type(), PrimitiveType::Float | PrimitiveType::Double);
                    !float || file.nan_value_counts().get(&id) == Some(&0)
                })
            }))?,
            nulls: counts(DataFile::null_value_counts),
            sizes: counts(DataFile::column_sizes),
        })
    }
}

/// Bounds as an array; `None` if no file has one. A column has one type within a manifest.
fn bounds<'a>(
    data: impl Iterator<Item = Option<&'a Datum>> + Clone,
) -> datafusion::error::Result<Option<ArrayRef>> {
    let Some(null) = data.clone().flatten().find_map(scalar).map(|known| null_of(&known)) else {
        return Ok(None);
    };
    let null = null?;
    let values = data.map(|datum| datum.and_then(scalar).unwrap_or_else(|| null.clone()));
    ScalarValue::iter_to_array(values).map(Some)
}

fn null_of(value: &ScalarValue) -> datafusion::error::Result<ScalarValue> {
    ScalarValue::try_new_null(&value.data_type())
}

/// A value of the specification as the engine's; `None` for what cannot be compared here.
fn scalar(datum: &Datum) -> Option<ScalarValue> {
    scalar_of(datum.data_type(), datum.literal())
}

/// The same of a value that stands apart from its type.
pub(super) fn scalar_of(kind: &PrimitiveType, literal: &PrimitiveLiteral) -> Option<ScalarValue> {
    let value = match (kind, literal) {
        (PrimitiveType::Boolean, PrimitiveLiteral::Boolean(value)) => (*value).into(),
        (PrimitiveType::Int, PrimitiveLiteral::Int(value)) => (*value).into(),
        (PrimitiveType::Long, PrimitiveLiteral::Long(value)) => (*value).into(),
        (PrimitiveType::Float, PrimitiveLiteral::Float(value)) => value.0.into(),
        (PrimitiveType::Double, PrimitiveLiteral::Double(value)) => value.0.into(),
        (PrimitiveType::Date, PrimitiveLiteral::Int(value)) => ScalarValue::Date32(Some(*value)),
        (PrimitiveType::Time, PrimitiveLiteral::Long(value)) => {
            ScalarValue::Time64Microsecond(Some(*value))
        }
        (PrimitiveType::Timestamp, PrimitiveLiteral::Long(value)) => {
            ScalarValue::TimestampMicrosecond(Some(*value), None)
        }
        (PrimitiveType::Timestamptz, PrimitiveLiteral::Long(value)) => {
            ScalarValue::TimestampMicrosecond(Some(*value), Some("UTC".into()))
        }
        (PrimitiveType::Decimal { precision, scale }, PrimitiveLiteral::Int128(value)) => {
            let (precision, scale) = (u8::try_from(*precision).ok()?, i8::try_from(*scale).ok()?);
            ScalarValue::Decimal128(Some(*value), precision, scale)
        }
        (PrimitiveType::String, PrimitiveLiteral::String(value)) => {
            ScalarValue::Utf8View(Some(value.clone()))
        }
        (PrimitiveType::Binary, PrimitiveLiteral::Binary(value)) => {
            ScalarValue::BinaryView(Some(value.clone()))
        }
        _ => return None,
    };
    Some(value)
}

/// Refuses files of which not every row would be read right.
fn check_readable(file: &DataFile) -> Result<()> {
    let reason = match (file.content_type(), file.file_format()) {
        (DataContentType::Data, DataFileFormat::Parquet) => return Ok(()),
        (DataContentType::Data, format) => format!("files of the format {format}"),
        _ => "row-level deletes".to_owned(),
    };
    Err(Error::Unsupported { what: format!("{} has {reason}, which", file.file_path()) })
}

/// Rows, bytes and files of several lists together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub files: u64,
    pub rows: u64,
    pub bytes: u64,
}

impl Totals {
    pub fn of(file: &DataFile) -> Self {
        Self { files: 1, rows: file.record_count(), bytes: file.file_size_in_bytes() }
    }
}

impl std::iter::Sum for Totals {
    fn sum<I: Iterator<Item = Self>>(totals: I) -> Self {
        totals.fold(Self::default(), |a, b| Self {
            files: a.files + b.files,
            rows: a.rows + b.rows,
            bytes: a.bytes + b.bytes,
        })
    }
}
