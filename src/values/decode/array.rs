//! Array parameters, in text (`{{1,2},{3,NULL}}`) and binary format.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{ArrayRef, ListArray, new_empty_array};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::ScalarValue;
use postgres_types::Type;

use super::{Error, Result, convert, scalar, sql_name};
use crate::values::encode::{Format, TimeZone};
use crate::values::types::{arrow_type, element};

/// PostgreSQL's `MAXDIM`.
const MAX_DIMENSIONS: usize = 6;

/// Elements as they came, and the lengths of the dimensions they fill.
#[derive(Default)]
struct Elements<'a> {
    lengths: Vec<usize>,
    values: Vec<Option<Cow<'a, [u8]>>>,
    /// How many lists a value stands in, beyond the first.
    depth: Option<usize>,
}

/// An array as a list; of the target's type if that is a list of as many dimensions.
pub(super) fn decode(
    value: &[u8],
    format: Format,
    pg: &Type,
    element_pg: &Type,
    target: &DataType,
    zone: &TimeZone,
) -> Result<ScalarValue> {
    let elements = match format {
        Format::Text => Parser { text: value, at: 0 }.array().ok_or_else(|| Error::text(pg, value)),
        Format::Binary => receive(value, element_pg).ok_or_else(|| Error::binary(pg)),
    }?;
    let natural;
    let target = match element(target) {
        Some(_) => target,
        None => {
            natural = arrow_type(pg).ok_or_else(|| Error::unsupported(pg, target))?;
            &natural
        }
    };
    let (fields, leaf) = levels(target);
    let lengths = match elements.lengths.len() {
        0 => vec![0; 1],
        dimensions if dimensions == fields.len() => elements.lengths,
        given => {
            let (wanted, target) = (fields.len(), sql_name(pg.name()));
            return Err(Error::Dimensions { given, wanted, target });
        }
    };
    let values = elements.values.into_iter().map(|value| match value {
        None => ScalarValue::try_from(leaf).map_err(|_| Error::unsupported(pg, target)),
        Some(value) => {
            let value = scalar(&value, format, element_pg, leaf, zone)?;
            convert(value, element_pg, leaf)
        }
    });
    let values: Vec<_> = values.collect::<Result<_>>()?;
    build(&lengths, values, &fields, leaf).ok_or_else(|| Error::unsupported(pg, target))
}

/// The fields of the elements at each level of a nested list, and the innermost type.
fn levels(list: &DataType) -> (Vec<FieldRef>, &DataType) {
    let (mut fields, mut data_type) = (Vec::new(), list);
    while let Some(child) = element(data_type) {
        // Below a kind of list other than `List` the value is cast, and the names do not matter.
        fields.push(Arc::new(child.clone().with_nullable(true)));
        data_type = child.data_type();
    }
    (fields, data_type)
}

fn build(
    lengths: &[usize],
    values: Vec<ScalarValue>,
    fields: &[FieldRef],
    leaf: &DataType,
) -> Option<ScalarValue> {
    if values.is_empty() {
        // No dimension at all: an empty list, whatever it is a list of.
        let outer = fields.first()?;
        let values = new_empty_array(outer.data_type());
        return list(outer.clone(), 1, 0, values);
    }
    let mut array = ScalarValue::iter_to_array(values).ok()?;
    debug_assert_eq!(array.data_type(), leaf);
    for (level, length) in lengths.iter().enumerate().rev() {
        let count: usize = lengths[..level].iter().product();
        let name = fields[level].name();
        let field = Field::new(name, array.data_type().clone(), true);
        let field = field.with_metadata(fields[level].metadata().clone());
        array = list_array(field.into(), count, *length, array)?;
    }
    ScalarValue::try_from_array(&array, 0).ok()
}

fn list(field: FieldRef, count: usize, length: usize, values: ArrayRef) -> Option<ScalarValue> {
    ScalarValue::try_from_array(&list_array(field, count, length, values)?, 0).ok()
}

/// `count` lists of `length` values each.
fn list_array(field: FieldRef, count: usize, length: usize, values: ArrayRef) -> Option<ArrayRef> {
    let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(length, count));
    Some(Arc::new(ListArray::try_new(field, offsets, values, None).ok()?))
}

/// `array_recv`'s format: dimensions, whether there are nulls, the elements' type, the length and
/// lower bound of each dimension, the elements. `None` if it is malformed.
fn receive<'a>(value: &'a [u8], element: &Type) -> Option<Elements<'a>> {
    let mut rest = value;
    let mut word = || {
        let (word, tail) = rest.split_first_chunk::<4>()?;
        rest = tail;
        Some(i32::from_be_bytes(*word))
    };
    let dimensions = usize::try_from(word()?).ok().filter(|&n| n <= MAX_DIMENSIONS)?;
    let (_has_nulls, oid) = (word()?, word()? as u32);
    if oid != element.oid() {
        return None;
    }
    let mut lengths = Vec::with_capacity(dimensions);
    for _ in 0..dimensions {
        let (length, _lower_bound) = (usize::try_from(word()?).ok()?, word()?);
        lengths.push(length);
    }
    let count = lengths.iter().try_fold(1_usize, |n, length| n.checked_mul(*length))?;
    if dimensions == 0 || count == 0 {
        return rest.is_empty().then(Elements::default);
    }
    // Each element has at least its length, so a claim beyond the message costs nothing.
    if count > rest.len() / 4 {
        return None;
    }
    let mut values = Vec::with_capacity(count);
    for _ in 0..count {
        let (length, tail) = rest.split_first_chunk::<4>()?;
        let length = i32::from_be_bytes(*length);
        if length == -1 {
            (rest, _) = (tail, values.push(None));
            continue;
        }
        let (value, tail) = tail.split_at_checked(usize::try_from(length).ok()?)?;
        values.push(Some(value.into()));
        rest = tail;
    }
    rest.is_empty().then_some(Elements { lengths, values, depth: None })
}

/// Reads an array's text; every method gives `None` for what `array_in` refuses.
struct Parser<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Parser<'a> {
    fn array(mut self) -> Option<Elements<'a>> {
        self.spaces();
        if self.peek() == Some(b'[') {
            self.bounds()?;
        }
        let mut elements = Elements::default();
        self.list(0, &mut elements)?;
        self.spaces();
        if self.at < self.text.len() {
            return None;
        }
        if elements.values.is_empty() {
            elements.lengths.clear();
        }
        Some(elements)
    }

    /// `[1:2][1:3]=`: where the dimensions begin is of no account here.
    fn bounds(&mut self) -> Option<()> {
        let end = self.text[self.at..].iter().position(|&b| b == b'=')?;
        let bounds = &self.text[self.at..self.at + end];
        let valid = |b: &u8| b.is_ascii_digit() || b" []:+-".contains(b);
        self.at += end + 1;
        self.spaces();
        bounds.iter().all(valid).then_some(())
    }

    fn list(&mut self, depth: usize, elements: &mut Elements<'a>) -> Option<()> {
        if depth == MAX_DIMENSIONS || self.next() != Some(b'{') {
            return None;
        }
        let mut length = 0;
        self.spaces();
        if self.peek() == Some(b'}') {
            // Only the whole array may be empty, in PostgreSQL 15.
            self.at += 1;
            return (depth == 0).then_some(());
        }
        loop {
            self.spaces();
            if self.peek()? == b'{' {
                self.list(depth + 1, elements)?;
            } else {
                // Values and lists do not stand side by side.
                if *elements.depth.get_or_insert(depth) != depth {
                    return None;
                }
                let value = self.value()?;
                elements.values.push(value);
            }
            length += 1;
            self.spaces();
            match self.next()? {
                b',' => (),
                b'}' => return agree(depth, length, elements),
                _ => return None,
            }
        }
    }

    /// A value in quotes or without.
    fn value(&mut self) -> Option<Option<Cow<'a, [u8]>>> {
        let quoted = self.peek() == Some(b'"');
        self.at += usize::from(quoted);
        let start = self.at;
        let (mut value, mut kept) = (Vec::new(), 0);
        loop {
            match self.peek()? {
                b'"' if quoted => {
                    self.at += 1;
                    return Some(Some(value.into()));
                }
                b'\\' => {
                    self.at += 1;
                    value.push(self.next()?);
                    kept = value.len();
                    continue;
                }
                b',' | b'}' if !quoted => break,
                b'"' | b'{' if !quoted => return None,
                byte => value.push(byte),
            }
            self.at += 1;
            // Spaces behind a value do not belong to it.
            if quoted || !is_space(value[value.len() - 1]) {
                kept = value.len();
            }
        }
        value.truncate(kept);
        if value.is_empty() {
            return None;
        }
        let escaped = self.at - start > value.len() && self.text[start..self.at].contains(&b'\\');
        let null = value.eq_ignore_ascii_case(b"null") && !escaped;
        Some((!null).then(|| value.into()))
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn spaces(&mut self) {
        while self.peek().is_some_and(is_space) {
            self.at += 1;
        }
    }
}

fn is_space(byte: u8) -> bool {
    super::text::is_space(byte.into())
}

/// Enters the length of a list at some depth, which must be that of its neighbours.
fn agree(depth: usize, length: usize, elements: &mut Elements) -> Option<()> {
    if elements.lengths.len() <= depth {
        elements.lengths.resize(depth + 1, usize::MAX);
    }
    let known = &mut elements.lengths[depth];
    if *known == usize::MAX {
        *known = length;
    }
    (*known == length).then_some(())
}
