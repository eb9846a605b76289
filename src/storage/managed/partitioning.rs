//! Rows divided by the partition that they belong to.

use std::collections::HashMap;
use std::fmt::Write;

use arrow::array::{
    Array, ArrayRef, AsArray, RecordBatch, UInt32Array, make_array, new_empty_array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, Fields, SchemaRef};
use arrow::error::ArrowError;
use arrow::row::{Row, RowConverter, Rows, SortField};
use iceberg::spec::{
    NestedFieldRef, PartitionSpec, PrimitiveType, Schema, Struct, Transform, Type,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::transforms::{apply, human, literal};
use crate::storage::{Error, Result};

/// What directories' names spell otherwise: all that URLs or shells might.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// Bytes of a directory's name at most; file systems allow 255. Readers never look at it, since
/// partitions' values are in the manifests.
const MAX_DIRECTORY: usize = 200;

/// Divides batches as a partition spec says.
#[derive(Debug)]
pub(super) struct Partitioner {
    fields: Vec<PartitionField>,
    rows: RowConverter,
}

#[derive(Debug)]
struct PartitionField {
    name: String,
    /// Where the source column is.
    path: Vec<usize>,
    /// What it is there, after a dictionary or view is resolved.
    source: DataType,
    transform: Transform,
    result: PrimitiveType,
}

/// The rows of one partition.
#[derive(Debug)]
pub(super) struct Part {
    pub values: Struct,
    pub rows: RecordBatch,
}

impl Partitioner {
    /// None for a table without partitions.
    pub fn new(spec: &PartitionSpec, schema: &Schema, arrow: &SchemaRef) -> Result<Option<Self>> {
        if spec.fields().is_empty() {
            return Ok(None);
        }
        let paths = paths(schema);
        let mut fields = Vec::new();
        let mut columns = Vec::new();
        for field in spec.fields() {
            let missing =
                || Error::BadSchema(format!("the partition field {} has no column", field.name));
            let path = paths.get(&field.source_id).cloned().ok_or_else(missing)?;
            let source = data_type_at(arrow.fields(), &path).ok_or_else(missing)?.clone();
            let kind = schema.field_by_id(field.source_id).ok_or_else(missing)?;
            let result = field.transform.result_type(&kind.field_type);
            let result = result.map_err(|error| Error::BadSchema(error.message().to_owned()))?;
            let Type::Primitive(result) = result else { return Err(missing()) };
            let transformed = apply(field.transform, &new_empty_array(&source))?;
            columns.push(SortField::new(transformed.data_type().clone()));
            let (name, transform) = (field.name.clone(), field.transform);
            fields.push(PartitionField { name, path, source, transform, result });
        }
        let rows = RowConverter::new(columns).map_err(unexpected)?;
        Ok(Some(Self { fields, rows }))
    }

    /// The parts of a batch, each partition once. A batch of one partition is not copied, nor are
    /// those whose rows come in order.
    pub fn split(&self, batch: &RecordBatch) -> Result<Vec<Part>> {
        let mut columns = Vec::new();
        for field in &self.fields {
            let column = column_at(batch, &field.path)?;
            let column = match column.data_type() == &field.source {
                true => column,
                false => cast(&column, &field.source).map_err(unexpected)?,
            };
            columns.push(apply(field.transform, &column)?);
        }
        let keys = self.rows.convert_columns(&columns).map_err(unexpected)?;
        let groups = Groups::of(&keys);
        let values = |row: u32| {
            let value = |(field, column): (&PartitionField, &ArrayRef)| {
                literal(column, row as usize, &field.result)
            };
            self.fields.iter().zip(&columns).map(value).collect::<Result<Struct>>()
        };
        let mut parts = Vec::new();
        if groups.is_ordered() {
            for (first, length) in groups.runs {
                let rows = batch.slice(first as usize, length as usize);
                parts.push(Part { values: values(first)?, rows });
            }
            return Ok(parts);
        }
        let (order, starts) = groups.order();
        let gathered = take_record_batch(batch, &order).map_err(unexpected)?;
        for bounds in starts.windows(2) {
            let (start, end) = (bounds[0], bounds[1]);
            let rows = gathered.slice(start, end - start);
            parts.push(Part { values: values(order.value(start))?, rows });
        }
        Ok(parts)
    }

    /// The directories of a partition, below that of the data.
    pub fn directory(&self, values: &Struct) -> String {
        let mut path = String::new();
        for (field, value) in self.fields.iter().zip(values.iter()) {
            let value = human(field.transform, &field.result, value);
            let mut name = utf8_percent_encode(&field.name, ESCAPED).to_string();
            // Writing to a string does not fail.
            let _ = write!(name, "={}", utf8_percent_encode(&value, ESCAPED));
            if name.len() > MAX_DIRECTORY {
                name.truncate(MAX_DIRECTORY);
                let broken = name[MAX_DIRECTORY - 2..].find('%').map(|at| MAX_DIRECTORY - 2 + at);
                name.truncate(broken.unwrap_or(MAX_DIRECTORY));
            }
            path.push_str(&name);
            path.push('/');
        }
        path.pop();
        path
    }
}

/// Which rows of a batch belong together.
struct Groups {
    /// First row and length of each run of equal rows.
    runs: Vec<(u32, u32)>,
    /// The group of each run.
    ids: Vec<u32>,
    count: u32,
}

impl Groups {
    fn of(keys: &Rows) -> Self {
        let mut groups = Self { runs: Vec::new(), ids: Vec::new(), count: 0 };
        let mut known: HashMap<Row<'_>, u32> = HashMap::new();
        let mut previous: Option<Row<'_>> = None;
        for (row, key) in (0_u32..).zip(keys.iter()) {
            match groups.runs.last_mut() {
                Some((_, length)) if previous == Some(key) => *length += 1,
                _ => {
                    let id = *known.entry(key).or_insert_with(|| {
                        groups.count += 1;
                        groups.count - 1
                    });
                    groups.runs.push((row, 1));
                    groups.ids.push(id);
                }
            }
            previous = Some(key);
        }
        groups
    }

    /// Whether each group is one run.
    fn is_ordered(&self) -> bool {
        self.runs.len() == self.count as usize
    }

    /// The rows in the order of their groups, and where each group begins and the last one ends.
    fn order(&self) -> (UInt32Array, Vec<usize>) {
        let mut lengths = vec![0_usize; self.count as usize];
        for ((_, length), id) in self.runs.iter().zip(&self.ids) {
            lengths[*id as usize] += *length as usize;
        }
        let mut starts = vec![0];
        let mut total = 0;
        for length in lengths {
            total += length;
            starts.push(total);
        }
        let mut order = vec![0_u32; total];
        let mut next = starts.clone();
        for ((first, length), id) in self.runs.iter().zip(&self.ids) {
            let place = &mut next[*id as usize];
            let slots = &mut order[*place..*place + *length as usize];
            for (slot, row) in slots.iter_mut().zip(*first..) {
                *slot = row;
            }
            *place += *length as usize;
        }
        (order.into(), starts)
    }
}

/// Where the columns of a schema are, by field id: the positions in the structs on the way. What is
/// inside lists and maps has no place of its own.
pub(super) fn paths(schema: &Schema) -> HashMap<i32, Vec<usize>> {
    fn walk(fields: &[NestedFieldRef], above: &[usize], paths: &mut HashMap<i32, Vec<usize>>) {
        for (position, field) in fields.iter().enumerate() {
            let path = [above, &[position]].concat();
            if let Type::Struct(inside) = field.field_type.as_ref() {
                walk(inside.fields(), &path, paths);
            }
            paths.insert(field.id, path);
        }
    }
    let mut paths = HashMap::new();
    walk(schema.as_struct().fields(), &[], &mut paths);
    paths
}

fn data_type_at<'a>(fields: &'a Fields, path: &[usize]) -> Option<&'a DataType> {
    let (position, rest) = path.split_first()?;
    match (fields.get(*position)?.data_type(), rest) {
        (data_type, []) => Some(data_type),
        (DataType::Struct(fields), rest) => data_type_at(fields, rest),
        _ => None,
    }
}

/// A column of a batch, inside of structs; NULL where one of those is.
pub(super) fn column_at(batch: &RecordBatch, path: &[usize]) -> Result<ArrayRef> {
    let missing = || Error::BadSchema("the rows do not have the columns of the table".to_owned());
    let (position, rest) = path.split_first().ok_or_else(missing)?;
    let mut column = batch.columns().get(*position).ok_or_else(missing)?.clone();
    for position in rest {
        let outer = column.as_struct_opt().ok_or_else(missing)?;
        let inner = outer.columns().get(*position).ok_or_else(missing)?;
        let nulls = NullBuffer::union(outer.nulls(), inner.nulls());
        let data = inner.to_data().into_builder().nulls(nulls).build().map_err(unexpected)?;
        column = make_array(data);
    }
    Ok(column)
}

/// Rows that do not have the types they should.
fn unexpected(error: ArrowError) -> Error {
    Error::BadSchema(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int32Array, StringArray, StructArray};
    use arrow::datatypes::{Field, Int32Type, Schema as ArrowSchema};
    use iceberg::spec::Literal;

    use super::super::types::{arrow_schema, iceberg_schema};
    use super::*;

    fn partitioner(batch: &RecordBatch, fields: &[(&str, Transform)]) -> Partitioner {
        let schema = iceberg_schema(batch.schema().fields()).unwrap();
        let mut builder = PartitionSpec::builder(schema.clone());
        for (column, transform) in fields {
            let name = match transform {
                Transform::Identity => (*column).to_owned(),
                other => format!("{column}_{}", other.dedup_name()),
            };
            builder = builder.add_partition_field(*column, name, *transform).unwrap();
        }
        let arrow = arrow_schema(&schema).unwrap();
        Partitioner::new(&builder.build().unwrap(), &schema, &arrow).unwrap().unwrap()
    }

    fn batch(keys: Vec<Option<&str>>) -> RecordBatch {
        let numbers = Int32Array::from_iter_values(0..keys.len() as i32);
        RecordBatch::try_from_iter_with_nullable([
            ("k", Arc::new(StringArray::from(keys)) as ArrayRef, true),
            ("n", Arc::new(numbers) as ArrayRef, true),
        ])
        .unwrap()
    }

    fn numbers(part: &Part) -> Vec<i32> {
        part.rows.column(1).as_primitive::<Int32Type>().values().to_vec()
    }

    #[test]
    fn rows_of_one_partition_are_not_copied() {
        let batch = batch(vec![Some("a"); 4]);
        let parts = partitioner(&batch, &[("k", Transform::Identity)]).split(&batch).unwrap();
        assert_eq!(parts.len(), 1);
        let (before, after) = (batch.column(1).to_data(), parts[0].rows.column(1).to_data());
        assert!(before.ptr_eq(&after));
    }

    #[test]
    fn rows_keep_their_order_within_their_partition() {
        let mixed = batch(vec![Some("b"), Some("a"), None, Some("b"), Some("a"), None, None]);
        let split = partitioner(&mixed, &[("k", Transform::Identity)]);
        let parts = split.split(&mixed).unwrap();
        let rows: Vec<_> = parts.iter().map(numbers).collect();
        assert_eq!(rows, [vec![0, 3], vec![1, 4], vec![2, 5, 6]]);
        let values: Vec<_> = parts.iter().map(|part| part.values[0].clone()).collect();
        assert_eq!(values, [Some(Literal::string("b")), Some(Literal::string("a")), None]);
        let runs = batch(vec![Some("b"), Some("b"), Some("a")]);
        let rows: Vec<_> = split.split(&runs).unwrap().iter().map(numbers).collect();
        assert_eq!(rows, [vec![0, 1], vec![2]]);
        assert!(split.split(&runs.slice(0, 0)).unwrap().is_empty());
    }

    #[test]
    fn a_column_inside_of_a_struct_is_null_where_that_is() {
        let inner: ArrayRef = Arc::new(Int32Array::from(vec![7, 8, 8]));
        let fields = Fields::from(vec![Field::new("x", DataType::Int32, false)]);
        let nulls = Some(vec![true, false, true].into());
        let outer = StructArray::new(fields.clone(), vec![inner], nulls);
        let schema = ArrowSchema::new(vec![Field::new("s", DataType::Struct(fields), true)]);
        let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(outer)]).unwrap();
        let parts = partitioner(&batch, &[("s.x", Transform::Identity)]).split(&batch).unwrap();
        let values: Vec<_> = parts.iter().map(|part| part.values[0].clone()).collect();
        assert_eq!(values, [Some(Literal::int(7)), None, Some(Literal::int(8))]);
    }

    #[test]
    fn directories_are_escaped_and_short() {
        let batch = batch(vec![Some("a")]);
        let fields = [("k", Transform::Identity), ("n", Transform::Bucket(4))];
        let split = partitioner(&batch, &fields);
        let directory = |text: &str| {
            let values = [Some(Literal::string(text)), Some(Literal::int(3))];
            split.directory(&values.into_iter().collect())
        };
        assert_eq!(directory("São/Paulo 1"), "k=S%C3%A3o%2FPaulo%201/n_bucket%5B4%5D=3");
        assert_eq!(directory(".."), "k=../n_bucket%5B4%5D=3");
        let long = directory(&"ä".repeat(300));
        let first = long.split('/').next().unwrap();
        assert!(first.len() <= MAX_DIRECTORY && first.len() > MAX_DIRECTORY - 3, "{first}");
        assert_eq!(first.len() % 3, 2, "whole escapes behind \"k=\"");
        let nothing = split.directory(&[None, None].into_iter().collect());
        assert_eq!(nothing, "k=null/n_bucket%5B4%5D=null");
    }
}
