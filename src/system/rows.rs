//! Rows of system tables: gathered value by value, turned into one record batch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Float32Builder, Float64Builder, Int16Builder,
    Int32Builder, Int64Builder, ListArray, RecordBatch, RecordBatchOptions, StringBuilder,
    TimestampMicrosecondBuilder, new_null_array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::error::Result;
use serde::{Deserialize, Serialize};

use super::relations::{Column, Relation};

/// A value on its way into a system table or a function's result.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Value {
    #[default]
    Null,
    Bool(bool),
    /// Integers of every width, and object identifiers.
    Int(i64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    /// Microseconds since 1970, UTC.
    Time(i64),
    List(Vec<Value>),
}

impl Value {
    pub fn time(at: SystemTime) -> Self {
        let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self::Time(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            _ => None,
        }
    }

    /// An object identifier; `None` for what cannot be one.
    pub fn as_oid(&self) -> Option<u32> {
        self.as_int().and_then(|number| u32::try_from(number).ok())
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Int(value.into())
    }
}

impl From<i16> for Value {
    fn from(value: i16) -> Self {
        Self::Int(value.into())
    }
}

impl From<i32> for Value {
    fn from(value: i32) -> Self {
        Self::Int(value.into())
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<&String> for Value {
    fn from(value: &String) -> Self {
        Self::Text(value.clone())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<SystemTime> for Value {
    fn from(value: SystemTime) -> Self {
        Self::time(value)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// The rows of one system table. Columns that are not given hold NULL, or in columns that always
/// have a value the one that says nothing: 0, false, the empty string.
#[derive(Debug)]
pub struct Rows {
    relation: &'static Relation,
    /// Where each given value goes.
    positions: Vec<Option<usize>>,
    columns: Vec<Vec<Value>>,
    count: usize,
}

impl Rows {
    /// For rows that give these columns, in this order.
    pub fn new(relation: &'static Relation, names: &[&str]) -> Self {
        let positions = names.iter().map(|name| relation.position(name)).collect();
        debug_assert!(
            names.iter().all(|name| relation.position(name).is_some()),
            "{} lacks one of {names:?}",
            relation.name
        );
        Self { relation, positions, columns: vec![Vec::new(); relation.columns.len()], count: 0 }
    }

    pub fn push<const N: usize>(&mut self, values: [Value; N]) {
        self.push_vec(values.into());
    }

    pub fn push_vec(&mut self, values: Vec<Value>) {
        debug_assert_eq!(values.len(), self.positions.len(), "{}", self.relation.name);
        for (position, value) in self.positions.iter().zip(values) {
            if let Some(position) = position {
                self.columns[*position].push(value);
            }
        }
        self.count += 1;
    }

    /// Leaves the rows for which there is `true`.
    pub fn retain(&mut self, kept: &[bool]) {
        for column in &mut self.columns {
            let mut kept = kept.iter();
            column.retain(|_| kept.next().copied().unwrap_or(true));
        }
        self.count = kept.iter().filter(|kept| **kept).count();
    }

    /// The values of a column, a row each; none if it has none.
    pub fn column(&self, name: &str) -> &[Value] {
        self.relation.position(name).map_or(&[], |position| &self.columns[position])
    }

    /// For another daemon, which [`take`](Self::take)s them.
    pub fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        let columns = self.relation.columns.iter().zip(&self.columns);
        let columns = columns
            .filter(|(_, values)| !values.is_empty())
            .map(|(column, values)| (column.name.to_owned(), values.clone()))
            .collect();
        serde_json::to_vec(&Sent { rows: self.count, columns })
    }

    /// Adds the rows of another daemon, as far as it knows their columns.
    pub fn take(&mut self, json: &[u8]) -> serde_json::Result<()> {
        let Sent { rows, mut columns } = serde_json::from_slice(json)?;
        for position in self.positions.iter().flatten() {
            let (column, values) =
                (&self.relation.columns[*position], &mut self.columns[*position]);
            let mut sent = columns.remove(column.name).unwrap_or_default();
            let data_type = self.relation.arrow.field(*position).data_type();
            let missing = if column.not_null { nothing(data_type) } else { Value::Null };
            sent.resize(rows, missing);
            values.append(&mut sent);
        }
        self.count += rows;
        Ok(())
    }

    pub fn finish(self) -> Result<RecordBatch> {
        let schema = &self.relation.arrow;
        let arrays = (self.columns.into_iter().zip(&self.relation.columns))
            .zip(schema.fields())
            .map(|((values, column), field)| match values.is_empty() {
                true => empty(column, field.data_type(), self.count),
                false => array(field.data_type(), values),
            })
            .collect();
        batch(schema, arrays, self.count)
    }
}

/// Rows on their way between daemons.
#[derive(Serialize, Deserialize)]
struct Sent {
    rows: usize,
    columns: BTreeMap<String, Vec<Value>>,
}

pub fn batch(schema: &SchemaRef, arrays: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(schema.clone(), arrays, &options)?)
}

/// A column about which there is nothing to say.
pub fn empty(column: &Column, data_type: &DataType, rows: usize) -> ArrayRef {
    let value = if column.not_null { nothing(data_type) } else { Value::Null };
    array(data_type, vec![value; rows])
}

/// The value of a column that must have one when there is nothing to say.
fn nothing(data_type: &DataType) -> Value {
    match data_type {
        DataType::Boolean => Value::Bool(false),
        DataType::Utf8 => Value::Text(String::new()),
        DataType::Float32 | DataType::Float64 => Value::Float(0.0),
        DataType::List(_) => Value::List(Vec::new()),
        DataType::Timestamp(..) => Value::Time(0),
        _ => Value::Int(0),
    }
}

/// Values as an Arrow array of one of the types that system tables use; a value that does not fit
/// the type becomes NULL.
pub fn array(data_type: &DataType, values: Vec<Value>) -> ArrayRef {
    macro_rules! primitive {
        ($builder:expr, $pattern:pat => $value:expr) => {{
            let mut builder = $builder;
            for value in values {
                builder.append_option(match value {
                    $pattern => $value,
                    _ => None,
                });
            }
            Arc::new(builder.finish())
        }};
    }
    let rows = values.len();
    match data_type {
        DataType::Boolean => {
            primitive!(BooleanBuilder::with_capacity(rows), Value::Bool(v) => Some(v))
        }
        DataType::Int16 => {
            primitive!(Int16Builder::with_capacity(rows), Value::Int(v) => i16::try_from(v).ok())
        }
        DataType::Int32 => {
            primitive!(Int32Builder::with_capacity(rows), Value::Int(v) => i32::try_from(v).ok())
        }
        DataType::Int64 => {
            primitive!(Int64Builder::with_capacity(rows), Value::Int(v) => Some(v))
        }
        DataType::Float32 => {
            primitive!(Float32Builder::with_capacity(rows), Value::Float(v) => Some(v as f32))
        }
        DataType::Float64 => {
            primitive!(Float64Builder::with_capacity(rows), Value::Float(v) => Some(v))
        }
        DataType::Utf8 => primitive!(StringBuilder::new(), Value::Text(v) => Some(v)),
        DataType::Binary => {
            let mut builder = BinaryBuilder::new();
            for value in values {
                builder.append_option(match value {
                    Value::Bytes(bytes) => Some(bytes),
                    Value::Text(text) => Some(text.into_bytes()),
                    _ => None,
                });
            }
            Arc::new(builder.finish())
        }
        DataType::Timestamp(_, zone) => {
            let builder =
                TimestampMicrosecondBuilder::with_capacity(rows).with_timezone_opt(zone.clone());
            primitive!(builder, Value::Time(v) => Some(v))
        }
        DataType::List(field) => {
            let lengths = values.iter().map(|value| match value {
                Value::List(items) => items.len(),
                _ => 0,
            });
            let offsets = OffsetBuffer::from_lengths(lengths);
            let nulls: NullBuffer =
                values.iter().map(|value| matches!(value, Value::List(_))).collect();
            let items = (values.into_iter())
                .flat_map(|value| match value {
                    Value::List(items) => items,
                    _ => Vec::new(),
                })
                .collect();
            let items = array(field.data_type(), items);
            Arc::new(ListArray::new(field.clone(), offsets, items, Some(nulls)))
        }
        other => new_null_array(other, rows),
    }
}
