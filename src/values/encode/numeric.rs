//! `numeric` from Arrow decimals: an unscaled integer of at most 256 bits and a scale.

use arrow::datatypes::i256;

use super::Result;
use super::digits::{SCALED_DIGITS, SCALED_LIMIT, scaled, sixteen, unsigned};
use super::sink::Sink;

/// Groups of eight digits that hold the longest unscaled value: 2^255 has 77 digits.
const GROUPS: usize = 12;

/// 10^32, four such groups.
const E32: i128 = 10_i128.pow(32);

/// Base-10000 digits that the longest value can have, with a scale of up to 127.
const WORDS: usize = (8 * GROUPS + 128) / 4;

/// The sign word of a negative value in binary format; zero for the others.
const NEGATIVE: u16 = 0x4000;

/// An unscaled value of any width.
pub(super) trait Unscaled: Copy {
    /// The value if it fits.
    fn narrow(self) -> Option<i64>;
    /// All digits, for values that do not.
    fn digits(self) -> Digits;
}

impl Unscaled for i32 {
    fn narrow(self) -> Option<i64> {
        Some(i64::from(self))
    }

    fn digits(self) -> Digits {
        Digits::of(&[i128::from(self)], self < 0)
    }
}

impl Unscaled for i64 {
    fn narrow(self) -> Option<i64> {
        Some(self)
    }

    fn digits(self) -> Digits {
        Digits::of(&[i128::from(self)], self < 0)
    }
}

impl Unscaled for u64 {
    fn narrow(self) -> Option<i64> {
        i64::try_from(self).ok()
    }

    fn digits(self) -> Digits {
        Digits::of(&[i128::from(self)], false)
    }
}

impl Unscaled for i128 {
    #[inline(always)]
    fn narrow(self) -> Option<i64> {
        i64::try_from(self).ok()
    }

    fn digits(self) -> Digits {
        Digits::of(&[self / E32, self % E32], self < 0)
    }
}

impl Unscaled for i256 {
    fn narrow(self) -> Option<i64> {
        self.to_i128().and_then(|n| i64::try_from(n).ok())
    }

    fn digits(self) -> Digits {
        let base = i256::from_i128(E32);
        let (rest, low) = (self.wrapping_div(base), self.wrapping_rem(base));
        let (high, middle) = (rest.wrapping_div(base), rest.wrapping_rem(base));
        Digits::of(&[high.as_i128(), middle.as_i128(), low.as_i128()], self.is_negative())
    }
}

/// Sign and digits of an unscaled value, without leading zeros; none for zero.
pub(super) struct Digits {
    buf: [u8; 8 * GROUPS],
    start: usize,
    negative: bool,
}

impl Digits {
    /// From parts of 32 digits each, the last the lowest, all of the same sign.
    fn of(parts: &[i128], negative: bool) -> Self {
        const E16: u128 = 10_u128.pow(16);
        let mut buf = [b'0'; 8 * GROUPS];
        let mut at = buf.len() - 32 * parts.len();
        for part in parts.iter().map(|part| part.unsigned_abs()) {
            for half in [(part / E16) as u64, (part % E16) as u64] {
                at = sixteen(half, &mut buf, at);
            }
        }
        let start = buf.iter().position(|&b| b != b'0').unwrap_or(buf.len());
        Self { buf, start, negative }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.buf[self.start..]
    }
}

/// Writes the value as text, with as many digits behind the point as the scale says.
#[inline(always)]
pub(super) fn text<T: Unscaled>(value: T, scale: i8, out: &mut Sink) -> Result<()> {
    match (value.narrow(), u32::try_from(scale)) {
        (Some(n), Ok(scale)) if n.unsigned_abs() < SCALED_LIMIT && scale < SCALED_DIGITS => {
            let room = out.room::<48>();
            room[0] = b'-';
            let start = usize::from(n < 0);
            let end = match scale {
                0 => unsigned(n.unsigned_abs(), room, start),
                _ => scaled(n.unsigned_abs(), scale, room, start),
            };
            out.advance(end);
        }
        _ => wide_text(&value.digits(), scale, out),
    }
    Ok(())
}

#[cold]
#[inline(never)]
fn wide_text(digits: &Digits, scale: i8, out: &mut Sink) {
    let (text, fraction) = (digits.as_bytes(), usize::try_from(scale).unwrap_or(0));
    if digits.negative {
        out.put(b"-");
    }
    let (whole, behind) = text.split_at(text.len().saturating_sub(fraction));
    out.put(if whole.is_empty() { b"0" } else { whole });
    if !whole.is_empty() && scale < 0 {
        zeros(usize::from(scale.unsigned_abs()), out);
    }
    if fraction > 0 {
        out.put(b".");
        zeros(fraction - behind.len(), out);
        out.put(behind);
    }
}

fn zeros(count: usize, out: &mut Sink) {
    out.room_for(count).fill(b'0');
    out.advance(count);
}

/// Writes the value in `numeric`'s binary format (`numeric_send`): the number of base-10000 digits,
/// the exponent of the first, the sign, the scale, the digits; no zero digits at either end.
#[inline(always)]
pub(super) fn binary<T: Unscaled>(value: T, scale: i8, out: &mut Sink) -> Result<()> {
    match (value.narrow(), usize::try_from(scale)) {
        // With up to three zeros appended, 16 digits still fit in 64 bits.
        (Some(n), Ok(scale)) if n.unsigned_abs() < 10_000_000_000_000_000 => {
            narrow_binary(n, scale, out);
        }
        _ => wide_binary(&value.digits(), scale, out),
    }
    Ok(())
}

#[inline(always)]
fn narrow_binary(n: i64, scale: usize, out: &mut Sink) {
    const PAD: [u64; 4] = [1, 1000, 100, 10];
    let mut rest = n.unsigned_abs() * PAD[scale % 4];
    // 10^19 in base 10000.
    let mut groups = [0_u16; 5];
    let mut first = groups.len();
    while rest != 0 {
        first -= 1;
        groups[first] = (rest % 10_000) as u16;
        rest /= 10_000;
    }
    let behind = scale.div_ceil(4);
    let sign = if n < 0 { NEGATIVE } else { 0 };
    let weight = groups.len() as i32 - first as i32 - behind as i32 - 1;
    put_groups(&groups[first..], weight, sign, scale, out);
}

#[cold]
#[inline(never)]
fn wide_binary(digits: &Digits, scale: i8, out: &mut Sink) {
    const POWERS: [u16; 4] = [1, 10, 100, 1000];
    let fraction = usize::try_from(scale).unwrap_or(0);
    let appended = match scale {
        ..0 => usize::from(scale.unsigned_abs()),
        _ => (4 - fraction % 4) % 4,
    };
    let mut groups = [0; WORDS];
    for (i, digit) in digits.as_bytes().iter().rev().enumerate() {
        let place = appended + i;
        groups[WORDS - 1 - place / 4] += u16::from(digit - b'0') * POWERS[place % 4];
    }
    let first = groups.iter().position(|&group| group != 0).unwrap_or(WORDS);
    let weight = (WORDS - first) as i32 - fraction.div_ceil(4) as i32 - 1;
    let sign = if digits.negative { NEGATIVE } else { 0 };
    put_groups(&groups[first..], weight, sign, fraction, out);
}

/// `groups` has no zero in front unless it is all zero.
#[inline(always)]
fn put_groups(groups: &[u16], weight: i32, sign: u16, scale: usize, out: &mut Sink) {
    let kept = groups.iter().rposition(|&g| g != 0).map_or(0, |last| last + 1);
    let weight = if kept == 0 { 0 } else { weight };
    let words = [kept as u16, weight as u16, sign, scale as u16];
    const { assert!(2 * (4 + WORDS) < 256) };
    let room = out.room::<256>();
    for (word, slot) in words.iter().chain(&groups[..kept]).zip(room.chunks_exact_mut(2)) {
        slot.copy_from_slice(&word.to_be_bytes());
    }
    out.advance(2 * (4 + kept));
}

#[cfg(test)]
mod tests {
    use super::super::testing::{hex, written};
    use super::*;

    /// Text and `numeric_send` of PostgreSQL 15.
    #[test]
    fn decimals_as_postgres_writes_them() {
        const NINES: i128 = 99_999_999_999_999_999_999_999_999_999_999_999_999;
        const DIGITS: i128 = -12_345_678_901_234_567_890;
        let cases = [
            (0, 0, "0", "0000000000000000"),
            (0, 5, "0.00000", "0000000000000005"),
            (1, 4, "0.0001", "0001ffff000000040001"),
            (-1, 5, "-0.00001", "0001fffe4000000503e8"),
            (12_345_678, 2, "123456.78", "0003000100000002000c0d801e78"),
            (100_000_000, 0, "100000000", "00010002000000000001"),
            (-10_000, 4, "-1.0000", "00010000400000040001"),
            (17, -3, "17000", "000200010000000000011b58"),
            (9_999_999_999_999_999, 3, "9999999999999.999", "00050003000000030009270f270f270f2706"),
            (-1_000_000_000_000_000, 0, "-1000000000000000", "000100034000000003e8"),
            (
                i128::from(i64::MAX),
                2,
                "92233720368547758.07",
                "0006000400000002000908b91c231ac61e4e02bc",
            ),
            (
                NINES,
                10,
                "9999999999999999999999999999.9999999999",
                "000a00060000000a270f270f270f270f270f270f270f270f270f26ac",
            ),
            (DIGITS, 20, "-0.12345678901234567890", "0005ffff4000001404d2162e23340d801ed2"),
        ];
        for (value, scale, expected, bytes) in cases {
            let wide = i256::from_i128(value);
            assert_eq!(written(|out| text(value, scale, out)), expected);
            assert_eq!(written(|out| text(wide, scale, out)), expected);
            assert_eq!(hex(&written(|out| binary(value, scale, out))), bytes, "{expected}");
            assert_eq!(hex(&written(|out| binary(wide, scale, out))), bytes, "{expected}");
            // The slow way round gives the same.
            let wide = |out: &mut Sink| {
                wide_text(&value.digits(), scale, out);
                wide_binary(&value.digits(), scale, out);
                Ok(())
            };
            assert!(hex(&written(wide)).ends_with(bytes));
            assert!(written(wide).starts_with(expected.as_bytes()));
        }
    }

    #[test]
    fn the_widest_values() {
        let min = i256::MIN.to_string();
        assert_eq!(written(|out| text(i256::MIN, 0, out)), min);
        assert_eq!(written(|out| text(i128::MIN, 0, out)), i128::MIN.to_string());
        assert_eq!(written(|out| text(u64::MAX, 0, out)), u64::MAX.to_string());
        let zeros = format!("-0.{}{}", "0".repeat(127 - 77), &min[1..]);
        assert_eq!(written(|out| text(i256::MIN, 127, out)), zeros);
        let padded = format!("{min}{}", "0".repeat(128));
        assert_eq!(written(|out| text(i256::MIN, -128, out)), padded);
        assert_eq!(written(|out| binary(i256::MIN, -128, out)).len(), 2 * (4 + 20));
    }
}
