//! Values on their way into a batch: a builder for each column.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, BooleanBufferBuilder, Date32Array, Decimal128Array,
    Float32Array, Float64Array, Int16Array, Int32Array, Int64Array, NullBufferBuilder,
    PrimitiveArray, RecordBatch, RecordBatchOptions, StringArray, Time64MicrosecondArray,
    TimestampMicrosecondArray, new_empty_array,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::{ArrowPrimitiveType, DataType, FieldRef, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use datafusion::common::ScalarValue;
use postgres_types::Type;

use super::error::{Error, Fault, shown};
use super::fast;
use crate::values::decode::{decode_in, text};
use crate::values::encode::calendar::{
    DATE_RANGE, DAY_MICROS, POSTGRES_EPOCH_DAYS, POSTGRES_EPOCH_MICROS, TIMESTAMP_MIN,
};
use crate::values::encode::{Format, TimeZone};
use crate::values::types::{is_text, pg_type};

#[derive(Debug)]
pub(super) struct Columns {
    /// The table's name, for errors.
    table: String,
    schema: SchemaRef,
    columns: Vec<Column>,
    format: Format,
    zone: TimeZone,
    rows: usize,
}

#[derive(Debug)]
struct Column {
    field: FieldRef,
    pg: Type,
    kind: Kind,
    values: Values,
    nulls: NullBufferBuilder,
}

/// How values are read.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Bool,
    Int16,
    Int32,
    Int64,
    Float32,
    Float64,
    Decimal(u8, i8),
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Text,
    Bytea,
    /// As parameters are.
    Other,
}

/// Where they are kept.
enum Values {
    Bool(BooleanBufferBuilder),
    I16(Vec<i16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    I128(Vec<i128>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bytes { ends: Vec<i32>, data: Vec<u8> },
    Scalars(Vec<ScalarValue>),
}

impl std::fmt::Debug for Values {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Values")
    }
}

/// Where a fault is, within its row.
pub(super) enum Place<'a> {
    /// Before all rows.
    Nowhere,
    Row,
    Line(&'a [u8]),
    /// A column by its number, and its value where that can be shown.
    Column(usize, Option<&'a [u8]>),
}

impl Columns {
    pub fn new(table: String, fields: &[FieldRef], format: Format, zone: TimeZone) -> Self {
        let column = |field: &FieldRef| {
            let pg = pg_type(field);
            let kind = Kind::of(&pg, field.data_type());
            let (values, nulls) = (Values::new(kind, 0, 0), NullBufferBuilder::new(0));
            Column { field: field.clone(), pg, kind, values, nulls }
        };
        let schema = Arc::new(Schema::new(fields.to_vec()));
        let columns = fields.iter().map(column).collect();
        Self { table, schema, columns, format, zone, rows: 0 }
    }

    pub fn count(&self) -> usize {
        self.columns.len()
    }

    pub fn name(&self, at: usize) -> &str {
        self.columns.get(at).map_or("", |column| column.field.name())
    }

    /// Rows that wait for the next batch.
    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn end_row(&mut self) {
        self.rows += 1;
    }

    /// Whether nulls are refused.
    pub fn refuses_null(&self, at: usize) -> bool {
        self.columns.get(at).is_some_and(|column| !column.field.is_nullable())
    }

    pub fn null_in(&self, at: usize) -> Fault {
        Fault::Null { column: self.name(at).to_owned(), relation: self.table.clone() }
    }

    /// A fault of the row or line of this number.
    pub fn error(&self, number: u64, place: Place<'_>, fault: Fault) -> Error {
        let row = format!("COPY {}, line {number}", self.table);
        let context = match place {
            Place::Nowhere => None,
            Place::Row => Some(row),
            Place::Line(line) => Some(format!("{row}: \"{}\"", shown(line))),
            Place::Column(at, None) => Some(format!("{row}, column {}", self.name(at))),
            Place::Column(at, Some(value)) => {
                Some(format!("{row}, column {}: \"{}\"", self.name(at), shown(value)))
            }
        };
        Error { fault, context }
    }

    #[inline]
    pub fn push(&mut self, at: usize, value: Option<&[u8]>) -> Result<(), Fault> {
        let Some(column) = self.columns.get_mut(at) else { return Ok(()) };
        let Some(value) = value else {
            column.values.push_null(column.field.data_type())?;
            column.nulls.append_null();
            return Ok(());
        };
        let read = match self.format {
            Format::Text => column.read(value),
            Format::Binary => column.receive(value)?,
        };
        if !read {
            let (pg, target) = (&column.pg, column.field.data_type());
            let value = decode_in(&self.zone, Some(value), self.format, pg, target)?;
            column.values.push_scalar(value)?;
        }
        column.nulls.append_non_null();
        Ok(())
    }

    /// The rows so far.
    pub fn finish(&mut self) -> Result<RecordBatch, Fault> {
        let rows = self.rows;
        let arrays = self.columns.iter_mut().map(|column| column.finish(rows));
        let arrays = arrays.collect::<Result<Vec<_>, ArrowError>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        self.rows = 0;
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)?)
    }
}

impl Kind {
    fn of(pg: &Type, data_type: &DataType) -> Self {
        match (pg, data_type) {
            (&Type::BOOL, DataType::Boolean) => Self::Bool,
            (&Type::INT2, DataType::Int16) => Self::Int16,
            (&Type::INT4, DataType::Int32) => Self::Int32,
            (&Type::INT8, DataType::Int64) => Self::Int64,
            (&Type::FLOAT4, DataType::Float32) => Self::Float32,
            (&Type::FLOAT8, DataType::Float64) => Self::Float64,
            (&Type::NUMERIC, DataType::Decimal128(precision, scale)) => {
                Self::Decimal(*precision, *scale)
            }
            (&Type::DATE, DataType::Date32) => Self::Date,
            (&Type::TIME, DataType::Time64(TimeUnit::Microsecond)) => Self::Time,
            (&Type::TIMESTAMP, DataType::Timestamp(TimeUnit::Microsecond, None)) => Self::Timestamp,
            (&Type::TIMESTAMPTZ, DataType::Timestamp(TimeUnit::Microsecond, Some(_))) => {
                Self::TimestampTz
            }
            (&Type::TEXT, text) if is_text(text) => Self::Text,
            (&Type::BYTEA, DataType::Binary | DataType::LargeBinary | DataType::BinaryView) => {
                Self::Bytea
            }
            _ => Self::Other,
        }
    }
}

impl Values {
    /// With place for so many values, and for so many bytes of text.
    fn new(kind: Kind, rows: usize, bytes: usize) -> Self {
        match kind {
            Kind::Bool => Self::Bool(BooleanBufferBuilder::new(rows)),
            Kind::Int16 => Self::I16(Vec::with_capacity(rows)),
            Kind::Int32 | Kind::Date => Self::I32(Vec::with_capacity(rows)),
            Kind::Int64 | Kind::Time | Kind::Timestamp | Kind::TimestampTz => {
                Self::I64(Vec::with_capacity(rows))
            }
            Kind::Float32 => Self::F32(Vec::with_capacity(rows)),
            Kind::Float64 => Self::F64(Vec::with_capacity(rows)),
            Kind::Decimal(..) => Self::I128(Vec::with_capacity(rows)),
            Kind::Text | Kind::Bytea => {
                let mut ends = Vec::with_capacity(rows + 1);
                ends.push(0);
                Self::Bytes { ends, data: Vec::with_capacity(bytes) }
            }
            Kind::Other => Self::Scalars(Vec::new()),
        }
    }

    /// As many as there are now, and a few bytes more: most batches are alike.
    fn another(&self, kind: Kind, rows: usize) -> Self {
        match self {
            Self::Bytes { data, .. } => Self::new(kind, rows, data.len() + data.len() / 16),
            _ => Self::new(kind, rows, 0),
        }
    }

    fn push_null(&mut self, data_type: &DataType) -> Result<(), Fault> {
        match self {
            Self::Bool(values) => values.append(false),
            Self::I16(values) => values.push(0),
            Self::I32(values) => values.push(0),
            Self::I64(values) => values.push(0),
            Self::I128(values) => values.push(0),
            Self::F32(values) => values.push(0.0),
            Self::F64(values) => values.push(0.0),
            Self::Bytes { ends, data } => ends.push(data.len() as i32),
            Self::Scalars(values) => {
                let null = ScalarValue::try_from(data_type);
                values.push(null.map_err(|error| ArrowError::ExternalError(error.into()))?);
            }
        }
        Ok(())
    }

    fn push_scalar(&mut self, value: ScalarValue) -> Result<(), Fault> {
        use ScalarValue as S;
        match (self, value) {
            (Self::Scalars(values), value) => values.push(value),
            (Self::Bool(values), S::Boolean(Some(value))) => values.append(value),
            (Self::I16(values), S::Int16(Some(value))) => values.push(value),
            (Self::I32(values), S::Int32(Some(value)) | S::Date32(Some(value))) => {
                values.push(value);
            }
            (
                Self::I64(values),
                S::Int64(Some(value))
                | S::Time64Microsecond(Some(value))
                | S::TimestampMicrosecond(Some(value), _),
            ) => values.push(value),
            (Self::I128(values), S::Decimal128(Some(value), ..)) => values.push(value),
            (Self::F32(values), S::Float32(Some(value))) => values.push(value),
            (Self::F64(values), S::Float64(Some(value))) => values.push(value),
            (
                values @ Self::Bytes { .. },
                S::Utf8(Some(value)) | S::LargeUtf8(Some(value)) | S::Utf8View(Some(value)),
            ) => values.push_bytes(value.as_bytes())?,
            (
                values @ Self::Bytes { .. },
                S::Binary(Some(value)) | S::LargeBinary(Some(value)) | S::BinaryView(Some(value)),
            ) => values.push_bytes(&value)?,
            (_, value) => {
                let text = format!("a value of {} has no place", value.data_type());
                return Err(ArrowError::SchemaError(text).into());
            }
        }
        Ok(())
    }

    #[inline]
    fn push_bytes(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let Self::Bytes { ends, data } = self else { return Ok(()) };
        data.extend_from_slice(bytes);
        let end = i32::try_from(data.len());
        ends.push(end.map_err(|_| Fault::TooLong { limit: i32::MAX as usize })?);
        Ok(())
    }
}

/// Keeps a value if it was read.
fn keep<T>(values: &mut Vec<T>, value: Option<T>) -> bool {
    match value {
        Some(value) => {
            values.push(value);
            true
        }
        None => false,
    }
}

impl Column {
    /// Reads a value in text; false for what is to be read otherwise.
    #[inline]
    fn read(&mut self, value: &[u8]) -> bool {
        match (self.kind, &mut self.values) {
            (Kind::Text, Values::Bytes { ends, data }) => {
                // Batches are far smaller than 2 GiB, and so are values.
                data.extend_from_slice(value);
                ends.push(data.len() as i32);
                true
            }
            (Kind::Bool, Values::Bool(values)) => match fast::boolean(value) {
                Some(value) => {
                    values.append(value);
                    true
                }
                None => false,
            },
            (Kind::Int16, Values::I16(values)) => {
                keep(values, fast::integer(value).and_then(|value| value.try_into().ok()))
            }
            (Kind::Int32, Values::I32(values)) => {
                keep(values, fast::integer(value).and_then(|value| value.try_into().ok()))
            }
            (Kind::Int64, Values::I64(values)) => keep(values, fast::integer(value)),
            (Kind::Decimal(precision, scale), Values::I128(values)) => {
                keep(values, fast::decimal(value, precision, scale))
            }
            (Kind::Date, Values::I32(values)) => keep(values, fast::date(value)),
            (Kind::Time, Values::I64(values)) => keep(values, fast::time(value)),
            (Kind::Timestamp, Values::I64(values)) => keep(values, fast::timestamp(value)),
            (Kind::TimestampTz, Values::I64(values)) => keep(values, fast::timestamptz(value)),
            (Kind::Float32, Values::F32(values)) => keep(values, text::number(value)),
            (Kind::Float64, Values::F64(values)) => keep(values, text::number(value)),
            _ => false,
        }
    }

    /// Reads a value in binary; false for what is to be read otherwise.
    #[inline]
    fn receive(&mut self, value: &[u8]) -> Result<bool, Fault> {
        Ok(match (self.kind, &mut self.values) {
            (Kind::Text, values) => {
                if let Some(fault) = Fault::not_text(value) {
                    return Err(fault);
                }
                values.push_bytes(value)?;
                true
            }
            (Kind::Bytea, values) => {
                values.push_bytes(value)?;
                true
            }
            (Kind::Bool, Values::Bool(values)) => match value {
                [byte] => {
                    values.append(*byte != 0);
                    true
                }
                _ => false,
            },
            (Kind::Int16, Values::I16(values)) => keep(values, fixed(value, i16::from_be_bytes)),
            (Kind::Int32, Values::I32(values)) => keep(values, fixed(value, i32::from_be_bytes)),
            (Kind::Int64, Values::I64(values)) => keep(values, fixed(value, i64::from_be_bytes)),
            (Kind::Float32, Values::F32(values)) => keep(values, fixed(value, f32::from_be_bytes)),
            (Kind::Float64, Values::F64(values)) => keep(values, fixed(value, f64::from_be_bytes)),
            (Kind::Decimal(precision, scale), Values::I128(values)) => {
                keep(values, fast::received_decimal(value, precision, scale))
            }
            (Kind::Date, Values::I32(values)) => {
                let days = fixed(value, i32::from_be_bytes);
                let unix = days.and_then(|days| days.checked_add(POSTGRES_EPOCH_DAYS));
                keep(values, unix.filter(|days| DATE_RANGE.contains(days)))
            }
            (Kind::Time, Values::I64(values)) => {
                let micros = fixed(value, i64::from_be_bytes);
                keep(values, micros.filter(|micros| (0..=DAY_MICROS).contains(micros)))
            }
            (Kind::Timestamp | Kind::TimestampTz, Values::I64(values)) => {
                let micros = fixed(value, i64::from_be_bytes);
                let unix = micros.and_then(|micros| micros.checked_add(POSTGRES_EPOCH_MICROS));
                keep(values, unix.filter(|micros| (TIMESTAMP_MIN..i64::MAX).contains(micros)))
            }
            _ => false,
        })
    }

    fn finish(&mut self, rows: usize) -> Result<ArrayRef, ArrowError> {
        let nulls = self.nulls.finish();
        let data_type = self.field.data_type();
        let another = self.values.another(self.kind, rows);
        let array: ArrayRef = match std::mem::replace(&mut self.values, another) {
            Values::Bool(mut values) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            Values::I16(values) => Arc::new(Int16Array::new(values.into(), nulls)),
            Values::I32(values) => match self.kind {
                Kind::Date => Arc::new(Date32Array::new(values.into(), nulls)),
                _ => Arc::new(Int32Array::new(values.into(), nulls)),
            },
            Values::I64(values) => match self.kind {
                Kind::Time => Arc::new(Time64MicrosecondArray::new(values.into(), nulls)),
                Kind::Timestamp | Kind::TimestampTz => {
                    typed::<arrow::datatypes::TimestampMicrosecondType>(
                        TimestampMicrosecondArray::new(values.into(), nulls),
                        data_type,
                    )
                }
                _ => Arc::new(Int64Array::new(values.into(), nulls)),
            },
            Values::I128(values) => typed(Decimal128Array::new(values.into(), nulls), data_type),
            Values::F32(values) => Arc::new(Float32Array::new(values.into(), nulls)),
            Values::F64(values) => Arc::new(Float64Array::new(values.into(), nulls)),
            Values::Bytes { ends, data } => bytes(self.kind, ends, data, nulls)?,
            Values::Scalars(values) if values.is_empty() => new_empty_array(data_type),
            Values::Scalars(values) => ScalarValue::iter_to_array(values)
                .map_err(|error| ArrowError::ExternalError(error.into()))?,
        };
        match array.data_type() == data_type {
            true => Ok(array),
            false => cast(&array, data_type),
        }
    }
}

/// The array as one of a type that has the same values, but for a zone or a precision.
fn typed<T: ArrowPrimitiveType>(array: PrimitiveArray<T>, data_type: &DataType) -> ArrayRef {
    Arc::new(array.with_data_type(data_type.clone()))
}

fn bytes(
    kind: Kind,
    ends: Vec<i32>,
    data: Vec<u8>,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef, ArrowError> {
    let (offsets, data) = (OffsetBuffer::new(ends.into()), Buffer::from_vec(data));
    Ok(match kind {
        Kind::Text => Arc::new(StringArray::try_new(offsets, data, nulls)?),
        _ => Arc::new(BinaryArray::try_new(offsets, data, nulls)?),
    })
}

fn fixed<const N: usize, T>(value: &[u8], read: impl Fn([u8; N]) -> T) -> Option<T> {
    value.try_into().ok().map(read)
}
