//! `numeric` parameters: digits of any number, brought to the precision that is wanted.

use arrow::datatypes::{DataType, i256};
use datafusion::common::ScalarValue;

use super::{Fault, is_text};

/// The most digits an Arrow decimal has.
const MAX_DIGITS: usize = 76;

/// The most digits of a `Decimal128`.
const NARROW_DIGITS: usize = 38;

/// A decimal number, or what is none.
pub(super) struct Number {
    negative: bool,
    /// Values from 0 to 9, none of them zero in front; empty for zero.
    digits: Vec<u8>,
    /// How many of the digits stand behind the point; negative if zeros follow the last.
    scale: i64,
    /// Digits behind the point that the sender showed.
    shown: i64,
}

/// Text such as `-12.5e-3`. Infinity and NaN have no decimal and are out of range.
pub(super) fn parse(value: &[u8]) -> Result<Number, Fault> {
    let text = value.trim_ascii();
    let (negative, rest) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let words: [&[u8]; 3] = [b"nan", b"infinity", b"inf"];
    if words.iter().any(|word| rest.eq_ignore_ascii_case(word)) {
        return Err(Fault::Range);
    }
    let (mantissa, exponent) = match rest.iter().position(|b| b.eq_ignore_ascii_case(&b'e')) {
        Some(at) => (&rest[..at], parse_exponent(&rest[at + 1..])?),
        None => (rest, 0),
    };
    let point = mantissa.iter().position(|&b| b == b'.');
    let behind = point.map_or(0, |at| mantissa.len() - at - 1) as i64;
    let (whole, fraction) = match point {
        Some(at) => (&mantissa[..at], &mantissa[at + 1..]),
        None => (mantissa, &[][..]),
    };
    let digits: Vec<u8> = [whole, fraction].concat();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Fault::Syntax);
    }
    let digits = digits.into_iter().map(|b| b - b'0').skip_while(|&d| d == 0).collect();
    let scale = behind - exponent;
    Ok(Number { negative, digits, scale, shown: scale.max(0) })
}

fn parse_exponent(text: &[u8]) -> Result<i64, Fault> {
    let text = std::str::from_utf8(text).map_err(|_| Fault::Syntax)?;
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Fault::Syntax);
    }
    // PostgreSQL's own limit is half the range of an int.
    let exponent = text.parse::<i32>().map_err(|_| Fault::Range)?;
    Ok(i64::from(exponent))
}

/// `numeric_recv`'s format; `None` if it is malformed.
pub(super) fn receive(value: &[u8]) -> Option<Result<Number, Fault>> {
    let (words, rest) = value.as_chunks::<2>();
    let [count, weight, sign, shown, groups @ ..] = words else { return None };
    let groups: Vec<u16> = groups.iter().map(|word| u16::from_be_bytes(*word)).collect();
    let shown = u16::from_be_bytes(*shown);
    let malformed = groups.len() != usize::from(u16::from_be_bytes(*count))
        || groups.iter().any(|&group| group >= 10_000)
        || shown > 0x3fff
        || !rest.is_empty();
    if malformed {
        return None;
    }
    let negative = match u16::from_be_bytes(*sign) {
        0 => false,
        0x4000 => true,
        // NaN, Infinity, -Infinity.
        0xc000 | 0xd000 | 0xf000 => return Some(Err(Fault::Range)),
        _ => return None,
    };
    let split = |group: &u16| [group / 1000, group / 100 % 10, group / 10 % 10, group % 10];
    let digits = groups.iter().flat_map(split).map(|d| d as u8).skip_while(|&d| d == 0).collect();
    let scale = 4 * (groups.len() as i64 - 1 - i64::from(i16::from_be_bytes(*weight)));
    Some(Ok(Number { negative, digits, scale, shown: shown.into() }))
}

impl Number {
    /// The number as a value of the target's type, or of the nearest type that casts to it.
    pub(super) fn to_scalar(&self, target: &DataType) -> Result<ScalarValue, Fault> {
        match target {
            DataType::Decimal32(precision, scale)
            | DataType::Decimal64(precision, scale)
            | DataType::Decimal128(precision, scale)
            | DataType::Decimal256(precision, scale) => {
                let unscaled = self.unscaled((*scale).into(), (*precision).into())?;
                decimal(unscaled, target)
            }
            DataType::Float16 | DataType::Float32 | DataType::Float64 => {
                let value: f64 = self.to_text().parse().map_err(|_| Fault::Syntax)?;
                if value.is_infinite() { Err(Fault::Range) } else { Ok(value.into()) }
            }
            _ if target.is_integer() => {
                let unscaled = self.unscaled(0, NARROW_DIGITS)?;
                decimal(unscaled, &DataType::Decimal128(NARROW_DIGITS as u8, 0))
            }
            _ if is_text(target) => Ok(self.to_text().into()),
            _ => self.natural(),
        }
    }

    /// As many decimals as were shown.
    fn natural(&self) -> Result<ScalarValue, Fault> {
        let scale = self.shown.min(NARROW_DIGITS as i64);
        match self.unscaled(scale, NARROW_DIGITS) {
            Ok(unscaled) => {
                decimal(unscaled, &DataType::Decimal128(NARROW_DIGITS as u8, scale as i8))
            }
            Err(_) => {
                let scale = self.shown.min(MAX_DIGITS as i64);
                let unscaled = self.unscaled(scale, MAX_DIGITS)?;
                decimal(unscaled, &DataType::Decimal256(MAX_DIGITS as u8, scale as i8))
            }
        }
    }

    /// The number times 10^`scale`, rounded half away from zero, if it has at most `precision`
    /// digits.
    fn unscaled(&self, scale: i64, precision: usize) -> Result<i256, Fault> {
        // Digits to drop at the end, or zeros to append.
        let drop = self.scale - scale;
        let length = self.digits.len() as i64;
        if self.digits.is_empty() || drop > length {
            return Ok(i256::ZERO);
        }
        if length - drop > MAX_DIGITS as i64 {
            return Err(Fault::Range);
        }
        let kept = (length - drop.max(0)) as usize;
        let ten = i256::from_i128(10);
        let digits = self.digits[..kept].iter().copied();
        let appended = std::iter::repeat_n(0, (-drop).max(0) as usize);
        let magnitude = digits.chain(appended).try_fold(i256::ZERO, |n, digit| {
            n.checked_mul(ten)?.checked_add(i256::from_i128(digit.into()))
        });
        let up = self.digits.get(kept).is_some_and(|&digit| digit >= 5);
        let magnitude = magnitude
            .and_then(|n| n.checked_add(i256::from_i128(up.into())))
            .filter(|n| ten.checked_pow(precision as u32).is_some_and(|limit| *n < limit))
            .ok_or(Fault::Range)?;
        Ok(if self.negative { magnitude.wrapping_neg() } else { magnitude })
    }

    fn to_text(&self) -> String {
        let sign = if self.negative && !self.digits.is_empty() { "-" } else { "" };
        let digits: String = self.digits.iter().map(|&d| char::from(b'0' + d)).collect();
        match usize::try_from(self.scale) {
            // Without an exponent only as long as that does not invent digits by the thousand.
            Ok(scale) if scale < digits.len() + 40 => {
                let padded = format!("{digits:0>width$}", width = scale + 1);
                let (whole, fraction) = padded.split_at(padded.len() - scale);
                let point = if scale == 0 { "" } else { "." };
                format!("{sign}{whole}{point}{fraction}")
            }
            _ if digits.is_empty() => "0".into(),
            _ => format!("{sign}{digits}e{}", -self.scale),
        }
    }
}

/// A decimal of the given type, whose precision the value was checked for.
fn decimal(unscaled: i256, data_type: &DataType) -> Result<ScalarValue, Fault> {
    let narrow = || unscaled.to_i128().ok_or(Fault::Range);
    Ok(match *data_type {
        DataType::Decimal32(precision, scale) => {
            let value = i32::try_from(narrow()?).map_err(|_| Fault::Range)?;
            ScalarValue::Decimal32(Some(value), precision, scale)
        }
        DataType::Decimal64(precision, scale) => {
            let value = i64::try_from(narrow()?).map_err(|_| Fault::Range)?;
            ScalarValue::Decimal64(Some(value), precision, scale)
        }
        DataType::Decimal128(precision, scale) => {
            ScalarValue::Decimal128(Some(narrow()?), precision, scale)
        }
        DataType::Decimal256(precision, scale) => {
            ScalarValue::Decimal256(Some(unscaled), precision, scale)
        }
        _ => return Err(Fault::Range),
    })
}
