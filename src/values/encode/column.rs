//! From an Arrow array to the writer of its values.

use std::ops::Range;

use arrow::array::{AnyDictionaryArray, StringViewArray, UInt32Array, downcast_run_array};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray, make_array};
use arrow::buffer::{BooleanBuffer, NullBuffer, ScalarBuffer};
use arrow::datatypes::*;

use super::bytes;
use super::datetime::{self, Clock};
use super::sink::Sink;
use super::{Error, Format, Result, TextStyle, digits, float, interval, json, list, numeric};
use crate::values::types::{self, Extension, extension};

/// Writes single values of a column. `row` is below the array's length, and not null.
pub(super) trait ValueWriter {
    /// Appends the value alone, as it stands in a result column, an array or a COPY field.
    fn write(&self, row: usize, out: &mut Sink) -> Result<()>;

    /// Appends the value behind its length. Here, so that there is one virtual call a value.
    fn frame(&self, row: usize, out: &mut Sink) -> Result<()> {
        let start = out.open();
        self.write(row, out)?;
        out.close(start, false)
    }
}

/// How a column's values are written. The commonest need no virtual call, which makes
/// rows of lineitem about a sixth faster.
enum Writer {
    Int4Text(ScalarBuffer<i32>),
    Int8Text(ScalarBuffer<i64>),
    NumericText(ScalarBuffer<i128>, i8),
    DateText(ScalarBuffer<i32>),
    Text(StringViewArray),
    Other(Box<dyn ValueWriter>),
}

impl Writer {
    /// The writer of an array of one of the commonest types.
    fn common(array: &ArrayRef, format: Format) -> Option<Self> {
        Some(match (array.data_type(), format) {
            (DataType::Int32, Format::Text) => {
                Self::Int4Text(array.as_primitive::<Int32Type>().values().clone())
            }
            (DataType::Int64, Format::Text) => {
                Self::Int8Text(array.as_primitive::<Int64Type>().values().clone())
            }
            (DataType::Decimal128(_, scale), Format::Text) => {
                Self::NumericText(array.as_primitive::<Decimal128Type>().values().clone(), *scale)
            }
            (DataType::Date32, Format::Text) => {
                Self::DateText(array.as_primitive::<Date32Type>().values().clone())
            }
            // The same bytes in both formats.
            (DataType::Utf8View, _) => Self::Text(array.as_string_view().clone()),
            _ => return None,
        })
    }

    #[inline(always)]
    fn write(&self, row: usize, out: &mut Sink) -> Result<()> {
        match self {
            Self::Int4Text(values) => integer(values[row].into(), out),
            Self::Int8Text(values) => integer(values[row], out),
            Self::NumericText(values, scale) => numeric::text(values[row], *scale, out),
            Self::DateText(values) => datetime::put_date(values[row].into(), out),
            Self::Text(strings) => bytes::view(strings, row, out),
            Self::Other(writer) => writer.write(row, out),
        }
    }
}

/// A column of a batch, ready to be written.
pub(super) struct Column {
    /// Absent if no value is null.
    nulls: Option<NullBuffer>,
    writer: Writer,
}

impl Column {
    fn new(nulls: Option<NullBuffer>, writer: Writer) -> Self {
        Self { nulls: nulls.filter(|nulls| nulls.null_count() > 0), writer }
    }

    #[inline(always)]
    pub(super) fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }

    pub(super) fn has_nulls(&self, mut rows: Range<usize>) -> bool {
        self.nulls.is_some() && rows.any(|row| self.is_null(row))
    }

    /// Appends the value behind its length, -1 for null.
    #[inline(always)]
    pub(super) fn frame(&self, row: usize, out: &mut Sink) -> Result<()> {
        if self.is_null(row) {
            out.put_i32(-1);
            return Ok(());
        }
        if let Writer::Other(writer) = &self.writer {
            return writer.frame(row, out);
        }
        let start = out.open();
        self.writer.write(row, out)?;
        out.close(start, false)
    }

    /// Appends a value that is not null.
    pub(super) fn write(&self, row: usize, out: &mut Sink) -> Result<()> {
        self.writer.write(row, out)
    }
}

/// The writer of an array of the field's type.
pub(super) fn build(
    field: &Field,
    array: &ArrayRef,
    format: Format,
    style: &TextStyle,
) -> Result<Column> {
    let nulls = array.logical_nulls();
    if format == Format::Binary
        && extension(field) == Some(Extension::Jsonb)
        && types::is_text(array.data_type())
    {
        let versioned = Versioned(bytes::raw(array)?);
        return Ok(Column::new(nulls, Writer::Other(Box::new(versioned))));
    }
    if let Some(writer) = Writer::common(array, format) {
        return Ok(Column::new(nulls, writer));
    }
    let writer = match array.data_type() {
        DataType::Dictionary(..) => return dictionary(field, array, nulls, format, style),
        DataType::RunEndEncoded(..) => {
            let array = plain(array)?;
            return build(&storage_field(field, &array), &array, format, style);
        }
        data_type if types::is_json(data_type) => json::writer(field, array, style)?,
        data_type if types::element(data_type).is_some() => {
            list::writer(field, array, format, style)?
        }
        _ => match format {
            Format::Text => text(field, array, &Clock::new(style, false))?,
            Format::Binary => binary(array)?,
        },
    };
    Ok(Column::new(nulls, Writer::Other(writer)))
}

/// The field of the values behind an encoding; an extension type's name stays.
pub(super) fn storage_field(field: &Field, values: &ArrayRef) -> Field {
    let inner = match field.data_type() {
        DataType::RunEndEncoded(_, values) if extension(field) == extension(values) => values,
        _ => field,
    };
    inner.clone().with_data_type(values.data_type().clone())
}

/// The array without dictionary or run-end encoding.
pub(super) fn plain(array: &ArrayRef) -> Result<ArrayRef> {
    let array = match array.data_type() {
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            arrow::compute::take(dictionary.values(), dictionary.keys(), None)?
        }
        DataType::RunEndEncoded(..) => {
            let array: &dyn Array = array;
            downcast_run_array! {
                array => {
                    let rows = 0..array.len();
                    let index = |row| array.get_physical_index(row) as u32;
                    let indices: UInt32Array = rows.map(index).collect();
                    arrow::compute::take(array.values(), &indices, None)?
                },
                _ => return Ok(make_array(array.to_data())),
            }
        }
        _ => return Ok(array.clone()),
    };
    plain(&array)
}

/// Each value of the dictionary is formatted once, unless there are more of them than rows.
fn dictionary(
    field: &Field,
    array: &ArrayRef,
    nulls: Option<NullBuffer>,
    format: Format,
    style: &TextStyle,
) -> Result<Column> {
    let dictionary = array.as_any_dictionary();
    let values = dictionary.values();
    let inner = storage_field(field, values);
    if !values.is_empty() && values.len() <= array.len() {
        let column = build(&inner, values, format, style)?;
        // A value that cannot be sent may be one that no row has.
        if let Ok(writer) = Rendered::new(&column, dictionary) {
            return Ok(Column::new(nulls, Writer::Other(Box::new(writer))));
        }
    }
    build(&inner, &plain(array)?, format, style)
}

/// `jsonb` in binary format: the format's version, then the text.
struct Versioned(Box<dyn ValueWriter>);

impl ValueWriter for Versioned {
    fn write(&self, row: usize, out: &mut Sink) -> Result<()> {
        out.put_array([1]);
        self.0.write(row, out)
    }
}

/// Values that were formatted beforehand.
struct Rendered {
    keys: Vec<usize>,
    values: bytes::Slices,
}

impl Rendered {
    fn new(column: &Column, dictionary: &dyn AnyDictionaryArray) -> Result<Self> {
        let mut sink = Sink::after(::bytes::BytesMut::new());
        let mut ends = Vec::with_capacity(dictionary.values().len());
        for row in 0..dictionary.values().len() {
            if !column.is_null(row) {
                column.write(row, &mut sink)?;
            }
            ends.push(sink.len());
        }
        let values = bytes::Slices::new(sink.into_bytes(), ends);
        Ok(Self { keys: dictionary.normalized_keys(), values })
    }
}

impl ValueWriter for Rendered {
    fn write(&self, row: usize, out: &mut Sink) -> Result<()> {
        self.values.copy(self.keys[row], out)
    }
}

/// Values of a fixed width, each written by a function.
struct Each<N: ArrowNativeType, F> {
    values: ScalarBuffer<N>,
    put: F,
}

impl<N: ArrowNativeType, F: Fn(N, &mut Sink) -> Result<()>> ValueWriter for Each<N, F> {
    #[inline(always)]
    fn write(&self, row: usize, out: &mut Sink) -> Result<()> {
        (self.put)(self.values[row], out)
    }
}

/// A writer of a primitive array, which must be of type `T`.
pub(super) fn each<T, F>(array: &ArrayRef, put: F) -> Result<Box<dyn ValueWriter>>
where
    T: ArrowPrimitiveType,
    F: Fn(T::Native, &mut Sink) -> Result<()> + 'static,
{
    let array: &PrimitiveArray<T> = array.as_primitive_opt().ok_or_else(|| mismatch(array))?;
    Ok(Box::new(Each { values: array.values().clone(), put }))
}

pub(super) fn mismatch(array: &ArrayRef) -> Error {
    Error::Schema { detail: format!("no writer for {}", array.data_type()) }
}

/// Booleans, as one of two byte strings.
struct Bits {
    values: BooleanBuffer,
    words: [&'static [u8]; 2],
}

impl ValueWriter for Bits {
    fn write(&self, row: usize, out: &mut Sink) -> Result<()> {
        out.put(self.words[usize::from(self.values.value(row))]);
        Ok(())
    }
}

/// A writer of booleans: the bytes for false and for true.
pub(super) fn bits(array: &ArrayRef, words: [&'static [u8]; 2]) -> Result<Box<dyn ValueWriter>> {
    let array: &BooleanArray = array.as_boolean_opt().ok_or_else(|| mismatch(array))?;
    Ok(Box::new(Bits { values: array.values().clone(), words }))
}

/// A column in which every value is null.
struct Nothing;

impl ValueWriter for Nothing {
    fn write(&self, _row: usize, _out: &mut Sink) -> Result<()> {
        Ok(())
    }
}

/// The text writer of a scalar column.
pub(super) fn text(field: &Field, array: &ArrayRef, clock: &Clock) -> Result<Box<dyn ValueWriter>> {
    use DataType::*;
    match *array.data_type() {
        Null => Ok(Box::new(Nothing)),
        Boolean => bits(array, [b"f", b"t"]),
        Int8 => each::<Int8Type, _>(array, |n, out| integer(n.into(), out)),
        Int16 => each::<Int16Type, _>(array, |n, out| integer(n.into(), out)),
        Int32 => each::<Int32Type, _>(array, |n, out| integer(n.into(), out)),
        Int64 => each::<Int64Type, _>(array, integer),
        UInt8 => each::<UInt8Type, _>(array, |n, out| integer(n.into(), out)),
        UInt16 => each::<UInt16Type, _>(array, |n, out| integer(n.into(), out)),
        UInt32 => each::<UInt32Type, _>(array, |n, out| integer(n.into(), out)),
        UInt64 => each::<UInt64Type, _>(array, |n, out| numeric::text(n, 0, out)),
        Float16 => each::<Float16Type, _>(array, |n, out| float::text(n.to_f32(), out)),
        Float32 => each::<Float32Type, _>(array, float::text),
        Float64 => each::<Float64Type, _>(array, float::text),
        Decimal32(_, scale) => {
            each::<Decimal32Type, _>(array, move |n, out| numeric::text(n, scale, out))
        }
        Decimal64(_, scale) => {
            each::<Decimal64Type, _>(array, move |n, out| numeric::text(n, scale, out))
        }
        Decimal128(_, scale) => {
            each::<Decimal128Type, _>(array, move |n, out| numeric::text(n, scale, out))
        }
        Decimal256(_, scale) => {
            each::<Decimal256Type, _>(array, move |n, out| numeric::text(n, scale, out))
        }
        Date32 | Date64 | Time32(_) | Time64(_) | Timestamp(..) => datetime::text(array, clock),
        Interval(_) | Duration(_) => interval::writer(array, Format::Text),
        Binary | LargeBinary | BinaryView | FixedSizeBinary(_) => match extension(field) {
            Some(Extension::Uuid) => bytes::uuid(array),
            _ => bytes::hex(array),
        },
        _ => bytes::raw(array),
    }
}

fn binary(array: &ArrayRef) -> Result<Box<dyn ValueWriter>> {
    use DataType::*;
    macro_rules! be {
        ($arrow:ty, $wire:ty) => {
            each::<$arrow, _>(array, |n, out| fixed(<$wire>::from(n).to_be_bytes(), out))
        };
    }
    match *array.data_type() {
        Null => Ok(Box::new(Nothing)),
        Boolean => bits(array, [&[0], &[1]]),
        Int8 => be!(Int8Type, i16),
        Int16 => be!(Int16Type, i16),
        Int32 => be!(Int32Type, i32),
        Int64 => be!(Int64Type, i64),
        UInt8 => be!(UInt8Type, i16),
        UInt16 => be!(UInt16Type, i32),
        UInt32 => be!(UInt32Type, i64),
        UInt64 => each::<UInt64Type, _>(array, |n, out| numeric::binary(n, 0, out)),
        Float16 => be!(Float16Type, f32),
        Float32 => be!(Float32Type, f32),
        Float64 => be!(Float64Type, f64),
        Decimal32(_, scale) => {
            each::<Decimal32Type, _>(array, move |n, out| numeric::binary(n, scale, out))
        }
        Decimal64(_, scale) => {
            each::<Decimal64Type, _>(array, move |n, out| numeric::binary(n, scale, out))
        }
        Decimal128(_, scale) => {
            each::<Decimal128Type, _>(array, move |n, out| numeric::binary(n, scale, out))
        }
        Decimal256(_, scale) => {
            each::<Decimal256Type, _>(array, move |n, out| numeric::binary(n, scale, out))
        }
        Date32 | Date64 | Time32(_) | Time64(_) | Timestamp(..) => datetime::binary(array),
        Interval(_) | Duration(_) => interval::writer(array, Format::Binary),
        _ => bytes::raw(array),
    }
}

#[inline(always)]
fn integer(n: i64, out: &mut Sink) -> Result<()> {
    let len = digits::signed(n, out.room());
    out.advance(len);
    Ok(())
}

#[inline(always)]
pub(super) fn fixed<const N: usize>(bytes: [u8; N], out: &mut Sink) -> Result<()> {
    out.put_array(bytes);
    Ok(())
}
