//! Avro files, as manifests and lists of them are, walked before the reader underneath believes them.
//!
//! That reader reserves memory for as many elements as an array says that it has, decompresses blocks for as
//! long as there is anything, and follows types that contain themselves for as long as its stack lasts. So
//! all is walked here first, by the file's own schema.
//!
//! The format: <https://avro.apache.org/docs/1.12.0/specification/>.

use std::collections::HashMap;
use std::io::Read;

use flate2::read::DeflateDecoder;
use serde_json::{Map, Value};

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Damaged(String);

type Result<T> = std::result::Result<T, Damaged>;

const MAGIC: &[u8] = b"Obj\x01";

/// Bytes of what stands behind each block.
const MARK: usize = 16;

/// How deep values may be nested.
const MAX_DEPTH: usize = 64;

/// How values of a type are written.
enum Kind {
    Nothing,
    Number,
    /// So many bytes.
    Plain(usize),
    /// Their number, and the bytes.
    Text,
    Array(Box<Kind>),
    Map(Box<Kind>),
    Union(Vec<Kind>),
    Record(Vec<Kind>),
    Named(String),
}

/// Checks a file whose blocks may have so many bytes without their compression. Returns how many they have.
pub fn check(bytes: &[u8], most: usize) -> Result<usize> {
    let mut rest = bytes.strip_prefix(MAGIC).ok_or_else(|| damaged("it is no Avro file"))?;
    let mut facts = HashMap::new();
    items(&mut rest, |rest| {
        let name = text(rest)?.to_vec();
        facts.insert(name, text(rest)?.to_vec());
        Ok(())
    })?;
    let schema = facts.get(b"avro.schema".as_slice());
    let schema = schema.ok_or_else(|| damaged("it has no schema"))?;
    let schema = serde_json::from_slice(schema);
    let schema: Value = schema.map_err(|error| damaged(format!("its schema is none: {error}")))?;
    let mut names = Names::default();
    let schema = names.kind(&schema)?;
    let codec = facts.get(b"avro.codec".as_slice()).map_or(&b"null"[..], Vec::as_slice);
    let mark = take(&mut rest, MARK)?;
    let mut unpacked = 0;
    while !rest.is_empty() {
        let (count, length) = (natural(&mut rest)?, natural(&mut rest)?);
        let block = take(&mut rest, length)?;
        if take(&mut rest, MARK)? != mark {
            return Err(damaged("a block does not end where it should"));
        }
        let block = unpack(codec, block, most - unpacked)?;
        unpacked += block.len();
        let mut values = block.as_slice();
        for _ in 0..count {
            let before = values.len();
            names.pass(&schema, &mut values, 0)?;
            if values.len() == before {
                return Err(damaged(format!(
                    "a block has {count} values in {} bytes",
                    block.len()
                )));
            }
        }
    }
    Ok(unpacked)
}

fn unpack(codec: &[u8], block: &[u8], most: usize) -> Result<Vec<u8>> {
    let broken =
        |error: &dyn ToString| damaged(format!("a block is broken: {}", error.to_string()));
    let mut unpacked = Vec::new();
    let limit = most as u64 + 1;
    match codec {
        b"null" => unpacked.extend_from_slice(block),
        b"deflate" => {
            let read = DeflateDecoder::new(block).take(limit).read_to_end(&mut unpacked);
            read.map_err(|error| broken(&error))?;
        }
        b"zstandard" => {
            let decoder = zstd::Decoder::new(block).map_err(|error| broken(&error))?;
            let read = decoder.take(limit).read_to_end(&mut unpacked);
            read.map_err(|error| broken(&error))?;
        }
        b"snappy" => {
            // A checksum follows.
            let (packed, _) = block.split_last_chunk::<4>().ok_or_else(end)?;
            let length = snap::raw::decompress_len(packed).map_err(|error| broken(&error))?;
            if length > most {
                return Err(too_large());
            }
            let read = snap::raw::Decoder::new().decompress_vec(packed);
            unpacked = read.map_err(|error| broken(&error))?;
        }
        other => {
            let codec = String::from_utf8_lossy(other);
            return Err(damaged(format!("the codec {codec:?} is not supported")));
        }
    }
    match unpacked.len() > most {
        true => Err(too_large()),
        false => Ok(unpacked),
    }
}

/// Types by their names, without those of the spaces that they are in: these have to differ as well.
#[derive(Default)]
struct Names(HashMap<String, Kind>);

impl Names {
    fn kind(&mut self, schema: &Value) -> Result<Kind> {
        match schema {
            Value::String(name) => Ok(primitive(name)),
            Value::Array(kinds) => {
                let kinds = kinds.iter().map(|kind| self.kind(kind));
                Ok(Kind::Union(kinds.collect::<Result<_>>()?))
            }
            Value::Object(schema) => self.complex(schema),
            _ => Err(damaged("its schema has a type that is none")),
        }
    }

    fn complex(&mut self, schema: &Map<String, Value>) -> Result<Kind> {
        let part = |name: &str| {
            let part = schema.get(name);
            part.ok_or_else(|| damaged(format!("its schema has a type without {name:?}")))
        };
        let kind = match part("type")? {
            Value::String(kind) => kind.as_str(),
            inner => return self.kind(inner),
        };
        match kind {
            "array" => Ok(Kind::Array(Box::new(self.kind(part("items")?)?))),
            "map" => Ok(Kind::Map(Box::new(self.kind(part("values")?)?))),
            "record" | "error" => {
                let fields = part("fields")?.as_array();
                let fields = fields.ok_or_else(|| damaged("its schema has no list of fields"))?;
                let fields = fields.iter().map(|field| {
                    let kind = field.get("type");
                    self.kind(kind.ok_or_else(|| damaged("its schema has a field of no type"))?)
                });
                let fields = fields.collect::<Result<_>>()?;
                self.named(part("name")?, Kind::Record(fields))
            }
            "enum" => self.named(part("name")?, Kind::Number),
            "fixed" => {
                let size = part("size")?.as_u64().and_then(|size| usize::try_from(size).ok());
                let size = size.ok_or_else(|| damaged("its schema has a size that is none"))?;
                let uuid = schema.get("logicalType").is_some_and(|kind| kind == "uuid");
                // The reader underneath takes that for a text.
                let kind = if uuid && size == 16 { Kind::Text } else { Kind::Plain(size) };
                self.named(part("name")?, kind)
            }
            name => Ok(primitive(name)),
        }
    }

    fn named(&mut self, name: &Value, kind: Kind) -> Result<Kind> {
        let name = name.as_str().ok_or_else(|| damaged("its schema has a name that is none"))?;
        let name = short(name).to_owned();
        match self.0.insert(name.clone(), kind) {
            Some(_) => Err(damaged(format!("its schema has two types {name:?}"))),
            None => Ok(Kind::Named(name)),
        }
    }

    /// Passes over a value.
    fn pass(&self, kind: &Kind, rest: &mut &[u8], depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(damaged("its values are nested too deep"));
        }
        match kind {
            Kind::Nothing => Ok(()),
            Kind::Number => number(rest).map(drop),
            Kind::Plain(length) => take(rest, *length).map(drop),
            Kind::Text => text(rest).map(drop),
            Kind::Array(kind) => items(rest, |rest| self.pass(kind, rest, depth + 1)),
            Kind::Map(kind) => items(rest, |rest| {
                text(rest)?;
                self.pass(kind, rest, depth + 1)
            }),
            Kind::Union(kinds) => {
                let kind = kinds.get(natural(rest)?);
                let kind = kind.ok_or_else(|| damaged("a value is of a type that there is not"))?;
                self.pass(kind, rest, depth + 1)
            }
            Kind::Record(fields) => {
                fields.iter().try_for_each(|field| self.pass(field, rest, depth + 1))
            }
            Kind::Named(name) => {
                let kind = self.0.get(name);
                let kind =
                    kind.ok_or_else(|| damaged(format!("its schema has no type {name:?}")))?;
                self.pass(kind, rest, depth + 1)
            }
        }
    }
}

fn primitive(name: &str) -> Kind {
    match name {
        "null" => Kind::Nothing,
        "boolean" => Kind::Plain(1),
        "int" | "long" => Kind::Number,
        "float" => Kind::Plain(4),
        "double" => Kind::Plain(8),
        "bytes" | "string" => Kind::Text,
        name => Kind::Named(short(name).to_owned()),
    }
}

fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// The items of an array or a map, which come in blocks. Each takes a byte at least.
fn items(rest: &mut &[u8], mut item: impl FnMut(&mut &[u8]) -> Result<()>) -> Result<()> {
    loop {
        let count = number(rest)?;
        if count == 0 {
            return Ok(());
        }
        if count < 0 {
            number(rest)?;
        }
        if count.unsigned_abs() > rest.len() as u64 {
            let count = count.unsigned_abs();
            return Err(damaged(format!("it has {count} values in {} bytes", rest.len())));
        }
        for _ in 0..count.unsigned_abs() {
            let before = rest.len();
            item(rest)?;
            if rest.len() == before {
                return Err(damaged("it has values of no bytes"));
            }
        }
    }
}

fn text<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8]> {
    let length = natural(rest)?;
    take(rest, length)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length).ok_or_else(end)?;
    *rest = left;
    Ok(taken)
}

fn natural(rest: &mut &[u8]) -> Result<usize> {
    let number = number(rest)?;
    usize::try_from(number).map_err(|_| damaged(format!("{number} is no number of anything")))
}

/// A number of 7 bits a byte, the low ones first, and its sign the lowest of all.
fn number(rest: &mut &[u8]) -> Result<i64> {
    let mut number = 0u64;
    for shift in (0..u64::BITS).step_by(7) {
        let byte = take(rest, 1)?[0];
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok((number >> 1) as i64 ^ -((number & 1) as i64));
        }
    }
    Err(damaged("it has a number that does not end"))
}

fn damaged(reason: impl Into<String>) -> Damaged {
    Damaged(reason.into())
}

fn end() -> Damaged {
    damaged("it ends too early")
}

fn too_large() -> Damaged {
    damaged("it has more in its blocks than there is room for")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zigzag(number: i64, bytes: &mut Vec<u8>) {
        let mut number = ((number << 1) ^ (number >> 63)) as u64;
        while number >= 0x80 {
            bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        bytes.push(number as u8);
    }

    fn of(schema: &str, codec: &str, count: i64, block: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        zigzag(2, &mut bytes);
        for text in ["avro.schema", schema, "avro.codec", codec] {
            zigzag(text.len() as i64, &mut bytes);
            bytes.extend(text.as_bytes());
        }
        bytes.push(0);
        bytes.extend([7; MARK]);
        zigzag(count, &mut bytes);
        zigzag(block.len() as i64, &mut bytes);
        bytes.extend(block);
        bytes.extend([7; MARK]);
        bytes
    }

    fn refusal(bytes: &[u8]) -> String {
        check(bytes, 1 << 20).expect_err("it is refused").to_string()
    }

    const RECORD: &str = r#"{"type": "record", "name": "r", "fields": [
        {"name": "a", "type": ["null", "long"]},
        {"name": "b", "type": {"type": "array", "items": "string"}},
        {"name": "c", "type": {"type": "map", "values": {"type": "fixed", "name": "s.f", "size": 2}}},
        {"name": "d", "type": "f"}]}"#;

    /// {a: 5, b: ["x"], c: {"y": 1 2}, d: 3 4} and {a: null, b: [], c: {}, d: 5 6}.
    const VALUES: &[u8] = &[2, 10, 2, 2, b'x', 0, 1, 8, 2, b'y', 1, 2, 0, 3, 4, 0, 0, 0, 5, 6];

    #[test]
    fn what_is_right_is_passed_over() {
        assert_eq!(check(&of(RECORD, "null", 2, VALUES), 1 << 20).expect("it is right"), 20);
        let mut packed = Vec::new();
        let mut encoder = flate2::read::DeflateEncoder::new(VALUES, flate2::Compression::best());
        encoder.read_to_end(&mut packed).expect("memory does not fail");
        let file = of(RECORD, "deflate", 2, &packed);
        assert_eq!(check(&file, 20).expect("it is right"), 20);
        assert!(check(&file, 19).expect_err("it is refused").to_string().contains("room"));
        let packed = zstd::encode_all(VALUES, 1).expect("memory does not fail");
        assert_eq!(check(&of(RECORD, "zstandard", 2, &packed), 20).expect("it is right"), 20);
    }

    #[test]
    fn numbers_that_cannot_be_are_refused() {
        assert!(refusal(&of(RECORD, "null", 3, VALUES)).contains("too early"));
        let array = r#"{"type": "array", "items": "null"}"#;
        assert!(refusal(&of(array, "null", 1, &[2, 0])).contains("no bytes"));
        let mut many = Vec::new();
        zigzag(400 << 20, &mut many);
        let array = r#"{"type": "array", "items": "long"}"#;
        assert!(refusal(&of(array, "null", 1, &many)).contains("419430400 values in 0 bytes"));
        let fixed = r#"{"type": "fixed", "name": "f", "size": 1000000000000}"#;
        assert!(refusal(&of(fixed, "null", 1, VALUES)).contains("too early"));
        assert!(refusal(&of(r#""null""#, "null", 1 << 60, &[])).contains("values in 0 bytes"));
        assert!(
            refusal(&of(RECORD, "snappy", 1, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 0]))
                .contains("room")
        );
    }

    #[test]
    fn types_that_contain_themselves_end_somewhere() {
        let endless = r#"{"type": "record", "name": "r", "fields": [{"name": "r", "type": "r"}]}"#;
        assert!(refusal(&of(endless, "null", 1, VALUES)).contains("nested too deep"));
        let list = r#"{"type": "record", "name": "r",
                       "fields": [{"name": "r", "type": ["null", "r"]}]}"#;
        assert!(refusal(&of(list, "null", 1, &[2; 1000])).contains("nested too deep"));
        check(&of(list, "null", 1, &[2, 2, 2, 0]), 10).expect("it is right");
    }
}
