//! The usual spellings of values, read without a detour. `None` for all others, which
//! [`decode_in`](crate::values::decode::decode_in) reads or refuses.

use crate::values::encode::calendar::{DAY_MICROS, Day, days};

/// Digits that no `i64` overflows with.
const SAFE_DIGITS: usize = 18;

fn sign(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    }
}

/// The number that so many digits are. Anything else is told by the flag.
fn digits(text: &[u8]) -> (i64, bool) {
    text.iter().fold((0, true), |(number, valid), byte| {
        let digit = byte.wrapping_sub(b'0');
        (number * 10 + i64::from(digit), valid & (digit < 10))
    })
}

/// The number that eight digits are, all at once: neighbours become a number of two digits, those one of four,
/// and those the whole.
fn eight_digits(text: [u8; 8]) -> (u64, bool) {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let digits = u64::from_le_bytes(text) ^ 0x3030_3030_3030_3030;
    let too_large = (digits.wrapping_add(0x7676_7676_7676_7676) | digits) & HIGH;
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8);
    let high = (pairs & 0xff_0000_00ff).wrapping_mul(100 + (1_000_000 << 32));
    let low = (pairs >> 16 & 0xff_0000_00ff).wrapping_mul(1 + (10_000 << 32));
    (high.wrapping_add(low) >> 32, too_large == 0)
}

pub(super) fn integer(text: &[u8]) -> Option<i64> {
    let (negative, rest) = sign(text);
    if rest.is_empty() || rest.len() > SAFE_DIGITS {
        return None;
    }
    let (number, valid) = digits(rest);
    valid.then_some(if negative { -number } else { number })
}

/// A number times 10^`scale`, if it has no more decimals than that.
pub(super) fn decimal(text: &[u8], precision: u8, scale: i8) -> Option<i128> {
    let (negative, rest) = sign(text);
    // Where it stands if all decimals are there, or anywhere.
    let usual = rest.len().checked_sub(1 + usize::try_from(scale).ok()?);
    let point = usual.filter(|at| rest[*at] == b'.');
    let (whole, fraction) = match point.or_else(|| rest.iter().position(|byte| *byte == b'.')) {
        Some(at) => (&rest[..at], &rest[at + 1..]),
        None => (rest, &[][..]),
    };
    let length = whole.len() + fraction.len();
    if length == 0 || length > SAFE_DIGITS {
        return None;
    }
    let missing = usize::try_from(scale).ok()?.checked_sub(fraction.len())?;
    let ((whole, valid), (part, also)) = (digits(whole), digits(fraction));
    let number = whole * power(fraction.len()) as i64 + part;
    let unscaled = i128::from(number).checked_mul(power(missing))?;
    let fits = valid && also && missing <= MAX_POWER && unscaled < power(usize::from(precision));
    fits.then_some(if negative { -unscaled } else { unscaled })
}

/// The largest power of ten of an `i128`.
const MAX_POWER: usize = 38;

const POWERS: [i128; MAX_POWER + 1] = {
    let mut powers = [1; MAX_POWER + 1];
    let mut at = 1;
    while at <= MAX_POWER {
        powers[at] = powers[at - 1] * 10;
        at += 1;
    }
    powers
};

/// Ten to this power, as far as there are such.
pub(super) fn power(exponent: usize) -> i128 {
    POWERS[exponent.min(MAX_POWER)]
}

/// `numeric_recv`'s format, as [`decimal`].
pub(super) fn received_decimal(value: &[u8], precision: u8, scale: i8) -> Option<i128> {
    let (words, rest) = value.as_chunks::<2>();
    let [count, weight, sign, _, groups @ ..] = words else { return None };
    let (count, sign) = (u16::from_be_bytes(*count), u16::from_be_bytes(*sign));
    // 28 digits, and ten zeros behind them, fit.
    if usize::from(count) != groups.len() || groups.len() > 7 || !rest.is_empty() {
        return None;
    }
    let mut number = 0_i128;
    for group in groups {
        let group = u16::from_be_bytes(*group);
        if group >= 10_000 {
            return None;
        }
        number = number * 10_000 + i128::from(group);
    }
    let behind = 4 * (groups.len() as i32 - 1 - i32::from(i16::from_be_bytes(*weight)));
    let shift = i32::from(scale) - behind;
    let unscaled = match usize::try_from(shift) {
        Ok(zeros) if zeros <= 10 => number * power(zeros),
        Err(_) if shift >= -10 => {
            let divisor = power(shift.unsigned_abs() as usize);
            (number % divisor == 0).then_some(number / divisor)?
        }
        _ => return None,
    };
    let negative = match sign {
        0 => false,
        0x4000 => true,
        _ => return None,
    };
    let fits = unscaled < power(usize::from(precision));
    fits.then_some(if negative { -unscaled } else { unscaled })
}

/// `YYYY-MM-DD`, in days since 1970.
pub(super) fn date(text: &[u8]) -> Option<i32> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = *text else { return None };
    let (number, valid) = eight_digits([y1, y2, y3, y4, m1, m2, d1, d2]);
    let year = (number / 10_000) as i32;
    if !valid || year == 0 {
        return None;
    }
    let (month, day) = ((number / 100 % 100) as u32, (number % 100) as u32);
    i32::try_from(days(Day { year, month, day })?).ok()
}

/// `HH:MM:SS[.ffffff]`, in microseconds, before midnight.
pub(super) fn time(text: &[u8]) -> Option<i64> {
    let (clock, fraction) = match text.split_at_checked(8)? {
        (clock, []) => (clock, &[][..]),
        (clock, [b'.', fraction @ ..]) if (1..=6).contains(&fraction.len()) => (clock, fraction),
        _ => return None,
    };
    let [h1, h2, b':', m1, m2, b':', s1, s2] = *clock else { return None };
    let (number, valid) = digits(&[h1, h2, m1, m2, s1, s2]);
    let (hours, minutes, seconds) = (number / 10_000, number / 100 % 100, number % 100);
    let (part, also) = digits(fraction);
    if !valid || !also || hours > 23 || minutes > 59 || seconds > 59 {
        return None;
    }
    let micros = part * power(6 - fraction.len()) as i64;
    Some(((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros)
}

/// A date and a time, in microseconds since 1970.
pub(super) fn timestamp(text: &[u8]) -> Option<i64> {
    let (day, rest) = text.split_at_checked(10)?;
    let [b' ' | b'T', clock @ ..] = rest else { return None };
    Some(i64::from(date(day)?) * DAY_MICROS + time(clock)?)
}

/// The same in UTC, as it must say.
pub(super) fn timestamptz(text: &[u8]) -> Option<i64> {
    let utc = text.strip_suffix(b"+00").or_else(|| text.strip_suffix(b"Z"));
    timestamp(utc.or_else(|| text.strip_suffix(b"+00:00"))?)
}

pub(super) fn boolean(text: &[u8]) -> Option<bool> {
    match text {
        b"t" | b"true" | b"1" => Some(true),
        b"f" | b"false" | b"0" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_digits_are_a_number_and_nothing_else_is() {
        for number in [0, 1, 10, 12_345_678, 20_260_228, 90_000_009, 99_999_999_u64] {
            let text = format!("{number:08}").into_bytes();
            let text: [u8; 8] = text.try_into().expect("eight");
            assert_eq!(eight_digits(text), (number, true));
            for (at, byte) in (0..8).flat_map(|at| (0..=u8::MAX).map(move |byte| (at, byte))) {
                let mut other = text;
                other[at] = byte;
                assert_eq!(eight_digits(other).1, byte.is_ascii_digit(), "{other:?}");
            }
        }
    }
}
