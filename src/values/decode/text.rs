//! Values in text format, but for numbers of any size, arrays and what has to do with time.

use std::str::FromStr;

use datafusion::common::ScalarValue;
use postgres_types::Type;

use super::{Error, Fault, Result, datetime, interval};
use crate::values::encode::TimeZone;
use crate::values::jsonb;

/// A value in text format, in the Arrow type that is nearest to it.
pub(super) fn parse(value: &[u8], pg: &Type, zone: &TimeZone) -> Result<ScalarValue> {
    if *pg == Type::BYTEA {
        let bytes = bytea(value).ok_or_else(|| Error::text(pg, value))?;
        return Ok(ScalarValue::Binary(Some(bytes)));
    }
    let text = std::str::from_utf8(value).ok().filter(|text| !text.contains('\0'));
    let text = text.ok_or(Error::InvalidEncoding)?;
    let trimmed = text.trim_matches(is_space);
    let parsed = match *pg {
        Type::BOOL => boolean(trimmed).map(ScalarValue::from),
        Type::INT2 => integer::<i16>(trimmed).map(ScalarValue::from),
        Type::INT4 => integer::<i32>(trimmed).map(ScalarValue::from),
        Type::INT8 => integer::<i64>(trimmed).map(ScalarValue::from),
        Type::OID => integer::<u32>(trimmed).map(ScalarValue::from),
        Type::FLOAT4 => float::<f32>(trimmed).map(ScalarValue::from),
        Type::FLOAT8 => float::<f64>(trimmed).map(ScalarValue::from),
        Type::UUID => uuid(trimmed).map(|bytes| ScalarValue::FixedSizeBinary(16, Some(bytes))),
        Type::JSON | Type::JSONB => return json(value, pg),
        Type::DATE => datetime::date(trimmed, zone),
        Type::TIME => datetime::time(trimmed),
        Type::TIMESTAMP | Type::TIMESTAMPTZ => datetime::timestamp(trimmed, pg, zone),
        Type::INTERVAL => interval::parse(trimmed),
        _ => Ok(ScalarValue::Utf8(Some(text.to_string()))),
    };
    parsed.map_err(|fault| fault.of(pg, value))
}

/// C's `isspace`.
pub(super) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r')
}

/// Any spelling that PostgreSQL takes: prefixes of true, false, yes and no; on, off, 1, 0.
fn boolean(text: &str) -> Result<bool, Fault> {
    let text = text.to_ascii_lowercase();
    let starts = |word: &str| !text.is_empty() && word.starts_with(&text);
    match text.as_str() {
        "1" | "on" => Ok(true),
        "0" | "off" | "of" => Ok(false),
        _ if starts("true") || starts("yes") => Ok(true),
        _ if starts("false") || starts("no") => Ok(false),
        _ => Err(Fault::Syntax),
    }
}

fn integer<T: FromStr>(text: &str) -> Result<T, Fault> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Fault::Syntax);
    }
    text.parse().map_err(|_| Fault::Range)
}

/// A floating-point number without spaces around it; `None` for all else.
pub(super) fn number<T: FromStr + Into<f64> + Copy>(value: &[u8]) -> Option<T> {
    float(std::str::from_utf8(value).ok()?).ok()
}

fn float<T: FromStr + Into<f64> + Copy>(text: &str) -> Result<T, Fault> {
    let value: T = text.parse().map_err(|_| Fault::Syntax)?;
    let wide: f64 = value.into();
    // A number that became infinite or zero was too large or too small.
    let mantissa = text.split(['e', 'E']).next().unwrap_or(text);
    let lost = (wide.is_infinite() && text.contains(|c: char| c.is_ascii_digit()))
        || (wide == 0.0 && mantissa.contains(|c: char| matches!(c, '1'..='9')));
    if lost { Err(Fault::Range) } else { Ok(value) }
}

/// JSON, which must be valid: `json` is kept as it came, `jsonb` in its own form. Deeper than 128 levels it is
/// refused.
pub(super) fn json(value: &[u8], pg: &Type) -> Result<ScalarValue> {
    let text = std::str::from_utf8(value).map_err(|_| Error::InvalidEncoding)?;
    let kept = match *pg {
        Type::JSONB => jsonb::normal(text)?,
        _ => jsonb::checked(text)?,
    };
    Ok(ScalarValue::Utf8(Some(kept)))
}

/// Hexadecimal after `\x`, with spaces between bytes; otherwise `\\` and `\ooo` are escapes.
fn bytea(value: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(value.len());
    if let Some(hex) = value.strip_prefix(b"\\x") {
        let mut rest = hex;
        loop {
            rest = match rest {
                [] => return Some(bytes),
                [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] => rest,
                [high, low, rest @ ..] => {
                    bytes.push(digit(*high)? << 4 | digit(*low)?);
                    rest
                }
                [_] => return None,
            };
        }
    }
    let mut rest = value;
    loop {
        rest = match rest {
            [] => return Some(bytes),
            [b'\\', b'\\', rest @ ..] => {
                bytes.push(b'\\');
                rest
            }
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', rest @ ..] => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest
            }
            [b'\\', ..] => return None,
            [byte, rest @ ..] => {
                bytes.push(*byte);
                rest
            }
        };
    }
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

/// 32 digits, with a hyphen behind any four of them, and braces around all.
fn uuid(text: &str) -> Result<Vec<u8>, Fault> {
    let inner = match text.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}').ok_or(Fault::Syntax)?,
        None => text,
    };
    let (mut bytes, mut rest) = (Vec::with_capacity(16), inner.as_bytes());
    while let [high, low, tail @ ..] = rest {
        let byte = digit(*high).zip(digit(*low)).ok_or(Fault::Syntax)?;
        bytes.push(byte.0 << 4 | byte.1);
        rest = match tail {
            [b'-', tail @ ..] if bytes.len() % 2 == 0 && bytes.len() < 16 => tail,
            tail => tail,
        };
        if bytes.len() > 16 {
            break;
        }
    }
    if bytes.len() == 16 && rest.is_empty() { Ok(bytes) } else { Err(Fault::Syntax) }
}

/// The usual spelling, with hyphens.
pub(super) fn uuid_text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(36);
    for (i, byte) in bytes.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}
