//! Arrow lists as PostgreSQL arrays: one array of several dimensions, whatever the nesting.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::*;
use postgres_types::Type;

use super::column::{Column, ValueWriter, build, mismatch, plain, storage_field};
use super::sink::{Escaped, Sink};
use super::{Error, Format, Result, TextStyle};
use crate::values::types::{element, element_type, pg_type};

/// PostgreSQL's `MAXDIM`.
const MAX_DIMENSIONS: usize = 6;

/// Where a list's elements stand in its child array.
pub(super) enum Spans {
    Offsets(OffsetBuffer<i32>),
    LargeOffsets(OffsetBuffer<i64>),
    Views(ScalarBuffer<i32>, ScalarBuffer<i32>),
    LargeViews(ScalarBuffer<i64>, ScalarBuffer<i64>),
    Fixed(usize),
}

impl Spans {
    /// The spans and the elements of any list array.
    pub(super) fn of(array: &ArrayRef) -> Result<(Self, ArrayRef)> {
        Ok(match array.data_type() {
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                (Self::Offsets(list.offsets().clone()), list.values().clone())
            }
            DataType::LargeList(_) => {
                let list = array.as_list::<i64>();
                (Self::LargeOffsets(list.offsets().clone()), list.values().clone())
            }
            DataType::ListView(_) => {
                let list = array.as_list_view::<i32>();
                let spans = Self::Views(list.offsets().clone(), list.sizes().clone());
                (spans, list.values().clone())
            }
            DataType::LargeListView(_) => {
                let list = array.as_list_view::<i64>();
                let spans = Self::LargeViews(list.offsets().clone(), list.sizes().clone());
                (spans, list.values().clone())
            }
            DataType::FixedSizeList(..) => {
                let list = array.as_fixed_size_list();
                (Self::Fixed(list.value_length().as_usize()), list.values().clone())
            }
            _ => return Err(mismatch(array)),
        })
    }

    pub(super) fn get(&self, row: usize) -> Range<usize> {
        match self {
            Self::Offsets(offsets) => offsets[row].as_usize()..offsets[row + 1].as_usize(),
            Self::LargeOffsets(offsets) => offsets[row].as_usize()..offsets[row + 1].as_usize(),
            Self::Views(offsets, sizes) => {
                offsets[row].as_usize()..offsets[row].as_usize() + sizes[row].as_usize()
            }
            Self::LargeViews(offsets, sizes) => {
                offsets[row].as_usize()..offsets[row].as_usize() + sizes[row].as_usize()
            }
            Self::Fixed(size) => row * size..(row + 1) * size,
        }
    }
}

/// A list's elements: lists again, or values.
enum Elements {
    Lists(Box<Lists>),
    Values(Column),
}

/// Lists of one depth.
struct Lists {
    nulls: Option<NullBuffer>,
    spans: Spans,
    elements: Elements,
}

/// The lengths of an array's dimensions; `None` where there was no element to tell.
type Lengths = [Option<usize>; MAX_DIMENSIONS];

impl Lists {
    fn new(array: &ArrayRef, format: Format, style: &TextStyle, depth: usize) -> Result<Self> {
        if depth > MAX_DIMENSIONS {
            return Err(Error::TooManyDimensions { found: depth });
        }
        let nulls = array.logical_nulls().filter(|nulls| nulls.null_count() > 0);
        let (spans, values) = Spans::of(array)?;
        let field = element(array.data_type()).ok_or_else(|| mismatch(array))?;
        let inner = plain(&values)?;
        let elements = if element(inner.data_type()).is_some() {
            Elements::Lists(Box::new(Self::new(&inner, format, style, depth + 1)?))
        } else {
            // Not `values`: their dictionary may be far larger than what these rows refer to.
            Elements::Values(build(&storage_field(field, &inner), &inner, format, style)?)
        };
        Ok(Self { nulls, spans, elements })
    }

    fn depth(&self) -> usize {
        match &self.elements {
            Elements::Lists(lists) => 1 + lists.depth(),
            Elements::Values(_) => 1,
        }
    }

    /// A list within a list that is null counts as empty, as in PostgreSQL's `ARRAY[NULL::int[]]`.
    fn span(&self, row: usize) -> Range<usize> {
        match &self.nulls {
            Some(nulls) if nulls.is_null(row) => 0..0,
            _ => self.spans.get(row),
        }
    }

    /// Enters the lengths found in this list, which must agree with those found so far.
    fn measure(&self, row: usize, lengths: &mut [Option<usize>]) -> Result<()> {
        let span = self.span(row);
        let [length, inner @ ..] = lengths else { return Ok(()) };
        if *length.get_or_insert(span.len()) != span.len() {
            return Err(Error::Ragged);
        }
        match &self.elements {
            Elements::Lists(lists) => span.into_iter().try_for_each(|i| lists.measure(i, inner)),
            Elements::Values(_) => Ok(()),
        }
    }

    fn text(&self, row: usize, bare: bool, out: &mut Sink) -> Result<()> {
        out.put(b"{");
        for (i, at) in self.span(row).enumerate() {
            if i > 0 {
                out.put(b",");
            }
            match &self.elements {
                Elements::Lists(lists) => lists.text(at, bare, out)?,
                Elements::Values(column) if column.is_null(at) => out.put(b"NULL"),
                Elements::Values(column) if bare => column.write(at, out)?,
                Elements::Values(column) => quoted(column, at, out)?,
            }
        }
        out.put(b"}");
        Ok(())
    }

    fn vector(&self, row: usize, out: &mut Sink) -> Result<()> {
        for (i, at) in self.span(row).enumerate() {
            if i > 0 {
                out.put(b" ");
            }
            if let Elements::Values(column) = &self.elements {
                column.write(at, out)?;
            }
        }
        Ok(())
    }

    fn binary(&self, row: usize, out: &mut Sink) -> Result<()> {
        self.span(row).try_for_each(|at| match &self.elements {
            Elements::Lists(lists) => lists.binary(at, out),
            Elements::Values(column) => column.frame(at, out),
        })
    }

    fn has_nulls(&self, row: usize) -> bool {
        match &self.elements {
            Elements::Lists(lists) => self.span(row).any(|at| lists.has_nulls(at)),
            Elements::Values(column) => column.has_nulls(self.span(row)),
        }
    }
}

/// Writes arrays.
struct Arrays {
    lists: Lists,
    depth: usize,
    format: Format,
    element: Type,
    /// The elements' text never needs quotes.
    bare: bool,
    /// `int2vector` or `oidvector`, whose text is bare numbers and whose first index is 0.
    vector: bool,
}

/// The writer of an array column.
pub(super) fn writer(
    field: &Field,
    array: &ArrayRef,
    format: Format,
    style: &TextStyle,
) -> Result<Box<dyn ValueWriter>> {
    let lists = Lists::new(array, format, style, 1)?;
    let pg = pg_type(field);
    let vector = matches!(pg, Type::INT2_VECTOR | Type::OID_VECTOR);
    let element = element_type(&pg).unwrap_or(Type::TEXT);
    let integer = matches!(element, Type::INT2 | Type::INT4 | Type::INT8 | Type::NUMERIC);
    let other =
        matches!(element, Type::BOOL | Type::FLOAT4 | Type::FLOAT8 | Type::UUID | Type::TIME);
    let depth = lists.depth();
    Ok(Box::new(Arrays { lists, depth, format, element, bare: integer || other, vector }))
}

impl Arrays {
    /// The dimensions' lengths; none for an empty array.
    fn lengths(&self, row: usize) -> Result<Lengths> {
        let mut lengths = Lengths::default();
        self.lists.measure(row, &mut lengths[..self.depth])?;
        let empty = lengths[..self.depth].iter().any(|length| length.unwrap_or(0) == 0);
        Ok(if empty { Lengths::default() } else { lengths })
    }
}

impl ValueWriter for Arrays {
    fn write(&self, row: usize, out: &mut Sink) -> Result<()> {
        let lengths = self.lengths(row)?;
        let empty = lengths[0].is_none();
        match self.format {
            Format::Text if self.vector => self.lists.vector(row, out)?,
            Format::Text if empty => out.put(b"{}"),
            Format::Text => self.lists.text(row, self.bare, out)?,
            Format::Binary => {
                out.put_i32(lengths.iter().flatten().count() as i32);
                out.put_i32(i32::from(self.lists.has_nulls(row)));
                out.put_i32(self.element.oid() as i32);
                for length in lengths.into_iter().flatten() {
                    let too_large = |_| Error::TooLarge { bytes: length };
                    out.put_i32(i32::try_from(length).map_err(too_large)?);
                    out.put_i32(i32::from(!self.vector));
                }
                if !empty {
                    self.lists.binary(row, out)?;
                }
            }
        }
        Ok(())
    }
}

/// An element, in quotes if `array_out` would put it in quotes.
fn quoted(column: &Column, at: usize, out: &mut Sink) -> Result<()> {
    let start = out.len();
    column.write(at, out)?;
    let text = out.since(start);
    let special = |b: &u8| matches!(b, b'"' | b'\\' | b'{' | b'}' | b',' | b' ' | 9..=13);
    if !text.is_empty() && !text.eq_ignore_ascii_case(b"null") && !text.iter().any(special) {
        return Ok(());
    }
    out.quote(start, |byte| match byte {
        b'"' | b'\\' => Escaped::pair(b'\\', byte),
        _ => Escaped::plain(byte),
    });
    Ok(())
}
