//! Maps, structs, unions and lists of them as `json`, laid out as PostgreSQL's `to_json` does:
//! no spaces, ISO timestamps, `bytea` in hex, NaN and infinities as strings.

use arrow::array::{Array, ArrayRef, AsArray, UnionArray};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::*;

use super::column::{ValueWriter, bits, mismatch, plain, storage_field, text};
use super::datetime::Clock;
use super::list::Spans;
use super::sink::{Escaped, Sink};
use super::{Result, TextStyle};
use crate::values::types::{Extension, element, extension};

/// The writer of a column of JSON values; the same bytes in text and binary format.
pub(super) fn writer(
    field: &Field,
    array: &ArrayRef,
    style: &TextStyle,
) -> Result<Box<dyn ValueWriter>> {
    Ok(Box::new(Json::new(field, array, &Clock::new(style, true))?))
}

/// Values of one array.
struct Json {
    nulls: Option<NullBuffer>,
    kind: Kind,
}

enum Kind {
    /// Text that is JSON already.
    Bare(Box<dyn ValueWriter>),
    /// A number, or "NaN" and the like.
    Float(Box<dyn ValueWriter>),
    /// Any other text.
    Quoted(Box<dyn ValueWriter>),
    List(Spans, Box<Json>),
    /// Each field with its name, quoted, and the colon.
    Object(Vec<(Vec<u8>, Json)>),
    Map {
        spans: OffsetBuffer<i32>,
        keys: Box<Json>,
        values: Box<Json>,
    },
    Union {
        ids: ScalarBuffer<i8>,
        offsets: Option<ScalarBuffer<i32>>,
        children: Vec<(i8, Json)>,
    },
}

impl Json {
    fn new(field: &Field, array: &ArrayRef, clock: &Clock) -> Result<Self> {
        let values = plain(array)?;
        let field = &storage_field(field, &values);
        // A union has no nulls of its own; its children tell.
        let nulls = match values.data_type() {
            DataType::Union(..) => None,
            _ => values.logical_nulls().filter(|nulls| nulls.null_count() > 0),
        };
        Ok(Self { nulls, kind: Kind::new(field, &values, clock)? })
    }

    fn put(&self, row: usize, out: &mut Sink) -> Result<()> {
        if self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            out.put(b"null");
            return Ok(());
        }
        let start = out.len();
        match &self.kind {
            Kind::Bare(writer) => writer.write(row, out)?,
            Kind::Float(writer) => {
                writer.write(row, out)?;
                if !ends_in_digit(out.since(start)) {
                    out.quote(start, escape);
                }
            }
            Kind::Quoted(writer) => {
                writer.write(row, out)?;
                out.quote(start, escape);
            }
            Kind::List(spans, elements) => {
                let elements = spans.get(row).map(|at| (at, elements.as_ref()));
                sequence(elements, [b'[', b']'], out, |(at, json), out| json.put(at, out))?;
            }
            Kind::Object(fields) => sequence(fields.iter(), [b'{', b'}'], out, |field, out| {
                out.put(&field.0);
                field.1.put(row, out)
            })?,
            Kind::Map { spans, keys, values } => {
                let entries = spans[row].as_usize()..spans[row + 1].as_usize();
                sequence(entries, [b'{', b'}'], out, |at, out| {
                    keys.put_key(at, out)?;
                    out.put(b":");
                    values.put(at, out)
                })?;
            }
            Kind::Union { ids, offsets, children } => {
                let at = offsets.as_ref().map_or(row, |offsets| offsets[row].as_usize());
                match children.iter().find(|(id, _)| *id == ids[row]) {
                    Some((_, child)) => child.put(at, out)?,
                    None => out.put(b"null"),
                }
            }
        }
        Ok(())
    }

    /// The value as an object's key: always a string.
    fn put_key(&self, row: usize, out: &mut Sink) -> Result<()> {
        let start = out.len();
        self.put(row, out)?;
        if out.since(start).first() != Some(&b'"') {
            out.quote(start, escape);
        }
        Ok(())
    }
}

impl ValueWriter for Json {
    fn write(&self, row: usize, out: &mut Sink) -> Result<()> {
        self.put(row, out)
    }
}

impl Kind {
    fn new(field: &Field, array: &ArrayRef, clock: &Clock) -> Result<Self> {
        let data_type = array.data_type();
        Ok(match data_type {
            DataType::Struct(fields) => {
                let columns = fields.iter().zip(array.as_struct().columns());
                let members = columns.map(|(field, column)| {
                    Ok((name(field.name()), Json::new(field, column, clock)?))
                });
                Self::Object(members.collect::<Result<_>>()?)
            }
            DataType::Map(entries, _) => {
                let map = array.as_map();
                let DataType::Struct(fields) = entries.data_type() else {
                    return Err(mismatch(array));
                };
                let [key, value] = fields.as_ref() else { return Err(mismatch(array)) };
                Self::Map {
                    spans: map.offsets().clone(),
                    keys: Box::new(Json::new(key, map.keys(), clock)?),
                    values: Box::new(Json::new(value, map.values(), clock)?),
                }
            }
            DataType::Union(fields, _) => Self::union(fields, array.as_union(), clock)?,
            _ => match element(data_type) {
                Some(child) => {
                    let (spans, values) = Spans::of(array)?;
                    Self::List(spans, Box::new(Json::new(child, &values, clock)?))
                }
                None => Self::scalar(field, array, clock)?,
            },
        })
    }

    fn union(fields: &UnionFields, array: &UnionArray, clock: &Clock) -> Result<Self> {
        let child =
            |(id, field): (i8, &FieldRef)| Ok((id, Json::new(field, array.child(id), clock)?));
        Ok(Self::Union {
            ids: array.type_ids().clone(),
            offsets: array.offsets().cloned(),
            children: fields.iter().map(child).collect::<Result<_>>()?,
        })
    }

    fn scalar(field: &Field, array: &ArrayRef, clock: &Clock) -> Result<Self> {
        let data_type = array.data_type();
        Ok(match data_type {
            DataType::Boolean => Self::Bare(bits(array, [b"false", b"true"])?),
            _ if data_type.is_floating() => Self::Float(text(field, array, clock)?),
            _ if data_type.is_integer() || data_type.is_decimal() => {
                Self::Bare(text(field, array, clock)?)
            }
            _ if matches!(extension(field), Some(Extension::Json | Extension::Jsonb)) => {
                Self::Bare(text(field, array, clock)?)
            }
            _ => Self::Quoted(text(field, array, clock)?),
        })
    }
}

fn sequence<T>(
    items: impl Iterator<Item = T>,
    [open, close]: [u8; 2],
    out: &mut Sink,
    put: impl Fn(T, &mut Sink) -> Result<()>,
) -> Result<()> {
    out.put_array([open]);
    for (i, item) in items.enumerate() {
        if i > 0 {
            out.put_array([b',']);
        }
        put(item, out)?;
    }
    out.put_array([close]);
    Ok(())
}

/// A field's name with quotes and colon.
fn name(name: &str) -> Vec<u8> {
    let mut sink = Sink::after(bytes::BytesMut::new());
    sink.put(name.as_bytes());
    sink.quote(0, escape);
    sink.put(b":");
    sink.into_bytes().to_vec()
}

fn ends_in_digit(text: &[u8]) -> bool {
    text.last().is_some_and(u8::is_ascii_digit)
}

/// As PostgreSQL's `escape_json`: control characters only, beyond what JSON demands.
fn escape(byte: u8) -> Escaped {
    let short = match byte {
        b'"' | b'\\' => byte,
        8 => b'b',
        9 => b't',
        10 => b'n',
        12 => b'f',
        13 => b'r',
        0..0x20 => {
            let [high, low] = [b'0' + (byte >> 4), b"0123456789abcdef"[usize::from(byte & 15)]];
            return Escaped::six([b'\\', b'u', b'0', b'0', high, low]);
        }
        _ => return Escaped::plain(byte),
    };
    Escaped::pair(b'\\', short)
}
