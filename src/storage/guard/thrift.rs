//! Thrift's compact protocol, walked before the reader underneath believes it.
//!
//! That reader reserves memory for as many elements as a list says that it has, takes each field that it
//! knows for the type that it should have, whatever type the bytes name, and, of what it does not know,
//! takes lists of booleans for empty. So bytes are walked as it would read them, by [`Shape`]s, and all is
//! refused that it could take for something else than is walked here.
//!
//! The protocol: <https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>.

use parquet::errors::{ParquetError, Result};

/// How deep what nobody knows may be nested: as deep as the reader underneath skips.
const MAX_DEPTH: u8 = 64;

/// The longest number of 64 bits.
const MAX_VARINT: usize = 10;

const STOP: u8 = 0;
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const BYTE: u8 = 3;
const I16: u8 = 4;
const I32: u8 = 5;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;
const STRUCT: u8 = 12;
const UUID: u8 = 13;

/// The type of a field's values.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Bool,
    Byte,
    /// Of 16, 32 or 64 bits, which are written alike.
    Int,
    Double,
    /// Bytes or text.
    Binary,
    List(&'static Kind),
    Struct(&'static Shape),
}

/// A structure, or a union, whose fields are those of its variants.
#[derive(Debug)]
pub struct Shape {
    pub name: &'static str,
    /// Bytes that one takes once it is read, about, without texts and lists.
    pub weight: u64,
    pub fields: &'static [(i16, Kind)],
}

impl Shape {
    fn kind(&self, field: i16) -> Option<Kind> {
        self.fields.iter().find(|(id, _)| *id == field).map(|(_, kind)| *kind)
    }
}

/// The number of no field: that a structure begins.
pub const BEGIN: i16 = 0;

/// Is told of each structure that begins, with 0, and of each number and truth value of a known field.
pub type See<'a> = dyn FnMut(&'static Shape, i16, i64) -> Result<()> + 'a;

/// What is left of some bytes.
#[derive(Debug)]
pub struct Walk<'a> {
    rest: &'a [u8],
    weight: u64,
}

impl<'a> Walk<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, weight: 0 }
    }

    /// Bytes not walked yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Bytes of memory that what was walked takes once it is read, about.
    pub fn weight(&self) -> u64 {
        self.weight
    }

    /// Walks a structure to its end.
    pub fn structure(&mut self, shape: &'static Shape, see: &mut See<'_>) -> Result<()> {
        self.weight = self.weight.saturating_add(shape.weight);
        see(shape, BEGIN, 0)?;
        let mut last = 0i16;
        while let Some((field, kind)) = self.field_head(last)? {
            match shape.kind(field) {
                Some(known) => self.field(kind, known, (shape, field), see)?,
                None => self.skip(kind, MAX_DEPTH)?,
            }
            last = field;
        }
        Ok(())
    }

    /// Number and type of the next field; `None` at the structure's end.
    fn field_head(&mut self, last: i16) -> Result<Option<(i16, u8)>> {
        let head = self.byte()?;
        let (delta, kind) = (i16::from(head >> 4), head & 0x0f);
        if kind == STOP {
            return Ok(None);
        }
        let field = match delta {
            0 => self.number()? as i16,
            delta => {
                last.checked_add(delta).ok_or_else(|| damaged("a field's number is too large"))?
            }
        };
        Ok(Some((field, kind)))
    }

    fn field(
        &mut self,
        kind: u8,
        known: Kind,
        of: (&'static Shape, i16),
        see: &mut See<'_>,
    ) -> Result<()> {
        match (known, kind) {
            (Kind::Bool, TRUE | FALSE) => see(of.0, of.1, i64::from(kind == TRUE)),
            // In a list each has a byte of its own.
            (Kind::Bool, _) => Err(mistaken(of)),
            _ => self.value(kind, known, of, see),
        }
    }

    fn value(
        &mut self,
        kind: u8,
        known: Kind,
        of: (&'static Shape, i16),
        see: &mut See<'_>,
    ) -> Result<()> {
        match (known, kind) {
            (Kind::Bool, TRUE | FALSE) | (Kind::Byte, BYTE) => self.byte().map(drop),
            (Kind::Int, I16 | I32 | I64) => {
                let number = self.number()?;
                see(of.0, of.1, number)
            }
            (Kind::Double, DOUBLE) => self.pass(8),
            (Kind::Binary, BINARY) => self.binary(),
            (Kind::List(element), LIST) => self.list(element, of, see),
            (Kind::Struct(inner), STRUCT) => self.structure(inner, see),
            _ => Err(mistaken(of)),
        }
    }

    fn list(
        &mut self,
        element: &'static Kind,
        of: (&'static Shape, i16),
        see: &mut See<'_>,
    ) -> Result<()> {
        let (kind, count) = self.list_head()?;
        let each = match element {
            Kind::Struct(_) => 0,
            Kind::Binary => 24,
            _ => 8,
        };
        self.weight = self.weight.saturating_add(count as u64 * each);
        for _ in 0..count {
            self.value(kind, *element, of, see)?;
        }
        Ok(())
    }

    /// Type and number of a list's elements, of which each takes a byte at least.
    fn list_head(&mut self) -> Result<(u8, usize)> {
        let head = self.byte()?;
        // Some write an empty list so.
        if head == 0 {
            return Ok((BYTE, 0));
        }
        let count = match head >> 4 {
            15 => self.varint()?,
            few => u64::from(few),
        };
        Ok((head & 0x0f, self.fits(count)?))
    }

    /// What nobody knows, as the reader underneath skips it.
    fn skip(&mut self, kind: u8, depth: u8) -> Result<()> {
        if depth == 0 {
            return Err(damaged("it is nested too deep"));
        }
        match kind {
            TRUE | FALSE => Ok(()),
            BYTE => self.pass(1),
            I16 | I32 | I64 => self.varint().map(drop),
            DOUBLE => self.pass(8),
            BINARY => self.binary(),
            UUID => self.pass(16),
            STRUCT => {
                while let Some((_, kind)) = self.field_head(0)? {
                    self.skip(kind, depth - 1)?;
                }
                Ok(())
            }
            LIST | SET => {
                let (kind, count) = self.list_head()?;
                self.skip_elements(&[kind], count, depth)
            }
            MAP => {
                let count = self.varint()?;
                let count = self.fits(count)?;
                if count == 0 {
                    return Ok(());
                }
                let kinds = self.byte()?;
                self.skip_elements(&[kinds >> 4, kinds & 0x0f], count, depth)
            }
            _ => Err(damaged("it has a field of no type")),
        }
    }

    fn skip_elements(&mut self, kinds: &[u8], count: usize, depth: u8) -> Result<()> {
        if count > 0 && kinds.iter().any(|kind| matches!(*kind, STOP | TRUE | FALSE)) {
            return Err(damaged("it has a list of truth values that nobody knows"));
        }
        for _ in 0..count {
            for kind in kinds {
                self.skip(*kind, depth - 1)?;
            }
        }
        Ok(())
    }

    /// So many elements, if there can be as many.
    fn fits(&self, count: u64) -> Result<usize> {
        match usize::try_from(count) {
            Ok(count) if count <= self.rest.len() => Ok(count),
            _ => Err(damaged(format!(
                "it has a list of {count} elements in {} bytes",
                self.rest.len()
            ))),
        }
    }

    fn binary(&mut self) -> Result<()> {
        let length = self.varint()?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        self.weight = self.weight.saturating_add(length as u64);
        self.pass(length)
    }

    fn pass(&mut self, bytes: usize) -> Result<()> {
        self.rest = self.rest.get(bytes..).ok_or_else(end)?;
        Ok(())
    }

    fn byte(&mut self) -> Result<u8> {
        let (first, rest) = self.rest.split_first().ok_or_else(end)?;
        self.rest = rest;
        Ok(*first)
    }

    fn number(&mut self) -> Result<i64> {
        let number = self.varint()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    fn varint(&mut self) -> Result<u64> {
        let (number, length) = varint(self.rest)?;
        self.rest = &self.rest[length..];
        Ok(number)
    }
}

/// A number of 7 bits a byte, the low ones first, and how many bytes it has.
pub fn varint(bytes: &[u8]) -> Result<(u64, usize)> {
    let mut number = 0u64;
    for (place, byte) in bytes.iter().take(MAX_VARINT).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * place).min(63);
        if byte & 0x80 == 0 {
            return Ok((number, place + 1));
        }
    }
    match bytes.len() < MAX_VARINT {
        true => Err(end()),
        false => Err(damaged("it has a number that does not end")),
    }
}

pub fn damaged(reason: impl Into<String>) -> ParquetError {
    ParquetError::General(reason.into())
}

fn end() -> ParquetError {
    ParquetError::EOF("it ends too early".to_owned())
}

fn mistaken((shape, field): (&Shape, i16)) -> ParquetError {
    damaged(format!("field {field} of {} has another type", shape.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    static INNER: Shape = Shape { name: "Inner", weight: 10, fields: &[(1, Kind::Int)] };
    static OUTER: Shape = Shape {
        name: "Outer",
        weight: 100,
        fields: &[
            (1, Kind::Int),
            (2, Kind::List(&Kind::Struct(&INNER))),
            (3, Kind::Binary),
            (4, Kind::Bool),
            (5, Kind::List(&Kind::Bool)),
        ],
    };

    /// Shape, field and value.
    type Seen = (&'static str, i16, i64);

    /// What was seen of some bytes, the rest of them, and the weight.
    fn walk(bytes: &[u8]) -> Result<(Vec<Seen>, usize, u64)> {
        let mut seen = Vec::new();
        let mut walk = Walk::new(bytes);
        walk.structure(&OUTER, &mut |shape, field, value| {
            seen.push((shape.name, field, value));
            Ok(())
        })?;
        Ok((seen, walk.rest().len(), walk.weight()))
    }

    fn refusal(bytes: &[u8]) -> String {
        walk(bytes).expect_err("it is refused").to_string()
    }

    #[test]
    fn what_is_right_is_walked_to_its_end() {
        // 1: -2; 2: [{1: 5}, {}]; 3: "ab"; 4: true; 5: [true, false]; 9: a map nobody knows.
        let bytes = [
            0x15, 0x03, 0x19, 0x2c, 0x16, 0x0a, 0x00, 0x00, 0x18, 0x02, b'a', b'b', 0x11, 0x19,
            0x22, 0x01, 0x02, 0x4b, 0x01, 0x58, 0x02, 0x01, b'x', 0x00, 0xee,
        ];
        let (seen, rest, weight) = walk(&bytes).expect("it is right");
        let expected = [
            ("Outer", BEGIN, 0),
            ("Outer", 1, -2),
            ("Inner", BEGIN, 0),
            ("Inner", 1, 5),
            ("Inner", BEGIN, 0),
            ("Outer", 4, 1),
        ];
        assert_eq!(seen, expected);
        assert_eq!((rest, weight), (1, 100 + 2 * 10 + 2 + 2 * 8 + 1));
    }

    #[test]
    fn lists_are_no_longer_than_their_bytes() {
        // 2: a list of 2^31 - 1 structures.
        let list = [0x29, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07, 0x00, 0x00];
        assert!(refusal(&list).contains("2147483647 elements in 2 bytes"));
        // The same where nobody knows the field, and as a map.
        let list = [0x79, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07, 0x00, 0x00];
        assert!(refusal(&list).contains("2147483647 elements in 2 bytes"));
        let map = [0x7b, 0xff, 0xff, 0xff, 0xff, 0x07, 0x55, 0x00];
        assert!(refusal(&map).contains("2147483647 elements in 2 bytes"));
        // 3: a text of 100 bytes.
        assert!(refusal(&[0x38, 0x64, b'a', 0x00]).contains("ends too early"));
    }

    #[test]
    fn what_could_be_read_as_something_else_is_refused() {
        // 1: a list, where a number should be.
        assert!(refusal(&[0x19, 0x00, 0x00]).contains("field 1 of Outer has another type"));
        // 2: a list of numbers.
        assert!(refusal(&[0x29, 0x15, 0x02, 0x00]).contains("field 2 of Outer"));
        // 9: a list of truth values.
        assert!(refusal(&[0x99, 0x22, 0x01, 0x01, 0x00]).contains("truth values"));
        // 9: a type that there is not.
        assert!(refusal(&[0x9e, 0x00]).contains("no type"));
        // 1: a number without an end.
        assert!(
            refusal(&[0x15, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01])
                .contains("does not end")
        );
        assert!(refusal(&[0x15]).contains("ends too early"));
    }

    #[test]
    fn nesting_has_a_bound() {
        // 9: structures in structures that nobody knows.
        let mut bytes = vec![0x9c];
        bytes.resize(200, 0x1c);
        assert!(refusal(&bytes).contains("nested too deep"));
        // Lists of one list each.
        let mut bytes = vec![0x99];
        bytes.resize(200, 0x19);
        assert!(refusal(&bytes).contains("nested too deep"));
    }
}
