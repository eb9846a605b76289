//! `float4` and `float8` as text: the shortest digits that give the same value back, laid out by
//! PostgreSQL's rules (`float8out` with `extra_float_digits` at its default of 1).

use super::Result;
use super::digits::{pair, unsigned};
use super::sink::Sink;

/// What differs between the two widths.
pub(super) trait Float: zmij::Float + Copy {
    /// Below this exponent PostgreSQL writes digits only, from it on with an exponent.
    const FIXED_BELOW: i32;
    /// Significant digits that always suffice.
    const MAX_DIGITS: usize;
    /// Bits of the mantissa, with the hidden one.
    const MANTISSA: u32;

    fn widen(self) -> f64;
    /// The mantissa and the exponent of its last bit.
    fn parts(self) -> (u64, i32);
    /// Whether the text is read back as this value.
    fn reads(self, text: &str) -> bool;
}

impl Float for f64 {
    const FIXED_BELOW: i32 = 15;
    const MAX_DIGITS: usize = 17;
    const MANTISSA: u32 = 53;

    #[inline(always)]
    fn widen(self) -> f64 {
        self
    }

    fn parts(self) -> (u64, i32) {
        let (bits, exponent) = (self.to_bits() & ((1 << 52) - 1), (self.to_bits() >> 52) & 0x7ff);
        match exponent {
            0 => (bits, -1074),
            _ => (bits | 1 << 52, exponent as i32 - 1075),
        }
    }

    fn reads(self, text: &str) -> bool {
        text.parse() == Ok(self)
    }
}

impl Float for f32 {
    const FIXED_BELOW: i32 = 6;
    const MAX_DIGITS: usize = 9;
    const MANTISSA: u32 = 24;

    #[inline(always)]
    fn widen(self) -> f64 {
        f64::from(self)
    }

    fn parts(self) -> (u64, i32) {
        let (bits, exponent) = (self.to_bits() & ((1 << 23) - 1), (self.to_bits() >> 23) & 0xff);
        match exponent {
            0 => (u64::from(bits), -149),
            _ => (u64::from(bits | 1 << 23), exponent as i32 - 150),
        }
    }

    fn reads(self, text: &str) -> bool {
        text.parse() == Ok(self)
    }
}

#[inline]
pub(super) fn text<F: Float>(value: F, out: &mut Sink) -> Result<()> {
    let wide = value.widen();
    if wide.is_nan() {
        out.put(b"NaN");
    } else if wide.is_infinite() {
        out.put(if wide > 0.0 { b"Infinity" } else { b"-Infinity" });
    } else if wide == 0.0 {
        out.put(if wide.is_sign_negative() { b"-0" } else { b"0" });
    } else {
        finite(value, out);
    }
    Ok(())
}

#[inline]
fn finite<F: Float>(value: F, out: &mut Sink) {
    // No tie (see `may_be_a_tie`) lies in this range.
    let mut buffer = zmij::Buffer::new();
    let shortest = buffer.format_finite(value).as_bytes();
    let magnitude = value.widen().abs();
    let limit = if F::FIXED_BELOW == 15 { 1e15 } else { 1e6 };
    if (1e-4..limit).contains(&magnitude) {
        // Both write such values alike, but for whole ones.
        let room = out.room::<32>();
        room[..shortest.len()].copy_from_slice(shortest);
        let whole = shortest.ends_with(b".0");
        out.advance(shortest.len() - if whole { 2 } else { 0 });
    } else {
        let digits = Shortest::parse(shortest);
        let digits = strictly_inside(value, digits);
        digits.lay_out(F::FIXED_BELOW, out);
    }
}

/// Whether a number of at most [`Float::MAX_DIGITS`] digits can lie exactly between two floats of
/// this magnitude: only where a float's last bit is worth about one or more, and 10^k's odd factor
/// 5^k still fits in the mantissa.
#[inline(always)]
fn may_be_a_tie<F: Float>(magnitude: f64) -> bool {
    match F::MANTISSA {
        53 => (1e15..1e41).contains(&magnitude),
        _ => (1e6..1e20).contains(&magnitude),
    }
}

/// PostgreSQL takes the shortest number strictly nearer to this float than to its neighbours, while
/// the usual algorithms also accept one halfway between two if it reads back as this float.
fn strictly_inside<F: Float>(value: F, digits: Shortest) -> Shortest {
    if !may_be_a_tie::<F>(value.widen().abs()) || !digits.is_tie(value) {
        return digits;
    }
    for count in digits.count + 1..F::MAX_DIGITS {
        let text = format!("{:.*e}", count - 1, value.widen());
        let longer = Shortest::parse(text.as_bytes());
        if value.reads(&text) && !longer.is_tie(value) {
            return longer;
        }
    }
    Shortest::parse(format!("{:.*e}", F::MAX_DIGITS - 1, value.widen()).as_bytes())
}

/// A decimal number: its digits (no zero at either end) and the exponent of the first.
struct Shortest {
    negative: bool,
    digits: [u8; 20],
    count: usize,
    exponent: i32,
}

impl Shortest {
    /// Reads back what a formatter wrote, with or without a point or an exponent. More digits than
    /// a float has are not expected and would be cut.
    fn parse(text: &[u8]) -> Self {
        let mut this = Self { negative: false, digits: [b'0'; 20], count: 0, exponent: 0 };
        let (mantissa, exponent) = match text.iter().position(|&b| b == b'e') {
            Some(at) => (&text[..at], parse_exponent(&text[at + 1..])),
            None => (text, 0),
        };
        let mut behind_point = false;
        // The exponent of the first digit that is not zero.
        let mut first = exponent - 1;
        for &byte in mantissa {
            match byte {
                b'-' => this.negative = true,
                b'.' => behind_point = true,
                b'0' if this.count == 0 => first -= i32::from(behind_point),
                digit => {
                    first += i32::from(!behind_point);
                    if this.count < this.digits.len() {
                        this.digits[this.count] = digit;
                        this.count += 1;
                    }
                }
            }
        }
        this.exponent = first;
        while this.count > 1 && this.digits[this.count - 1] == b'0' {
            this.count -= 1;
        }
        this
    }

    fn digits(&self) -> &[u8] {
        &self.digits[..self.count]
    }

    /// Whether this number lies exactly halfway between the float and a neighbour.
    fn is_tie<F: Float>(&self, value: F) -> bool {
        let zeros = self.exponent - (self.count as i32 - 1);
        let (mantissa, last_bit) = value.parts();
        if zeros.abs() > 23 {
            return false;
        }
        // As an odd number times a power of two, where zeros < 0 leaves a factor of 1/5^k.
        let number = self.digits().iter().fold(0_u128, |n, d| n * 10 + u128::from(d - b'0'));
        let five = 5_u128.pow(zeros.unsigned_abs());
        let same = |bound: u64, exponent: i32| {
            let (left, right) = match zeros >= 0 {
                true => (number * five, u128::from(bound)),
                false => (number, u128::from(bound) * five),
            };
            let (left_twos, right_twos) = (left.trailing_zeros(), right.trailing_zeros());
            left >> left_twos == right >> right_twos
                && left_twos as i32 + zeros == right_twos as i32 + exponent
        };
        let power_of_two = mantissa == 1 << (F::MANTISSA - 1);
        same(2 * mantissa + 1, last_bit - 1)
            || same(2 * mantissa - 1, last_bit - 1)
            || (power_of_two && same(4 * mantissa - 1, last_bit - 2))
    }

    /// Digits only for exponents from -4 up to `fixed_below`, otherwise `d.ddde+XX`.
    fn lay_out(&self, fixed_below: i32, out: &mut Sink) {
        if self.negative {
            out.put(b"-");
        }
        let digits = self.digits();
        if self.exponent < -4 || self.exponent >= fixed_below {
            out.put(&digits[..1]);
            if digits.len() > 1 {
                out.put(b".");
                out.put(&digits[1..]);
            }
            put_exponent(self.exponent, out);
        } else if self.exponent < 0 {
            out.put(&b"0.000"[..1 + self.exponent.unsigned_abs() as usize]);
            out.put(digits);
        } else {
            let whole = self.exponent as usize + 1;
            let (whole_digits, fraction) = digits.split_at(whole.min(digits.len()));
            out.put(whole_digits);
            out.put(&[b'0'; 16][..whole - whole_digits.len()]);
            if !fraction.is_empty() {
                out.put(b".");
                out.put(fraction);
            }
        }
    }
}

fn parse_exponent(text: &[u8]) -> i32 {
    let number = text.iter().filter(|b| b.is_ascii_digit());
    let magnitude = number.fold(0, |n, d| n * 10 + i32::from(d - b'0'));
    if text.starts_with(b"-") { -magnitude } else { magnitude }
}

/// At least two digits, and always a sign.
fn put_exponent(exponent: i32, out: &mut Sink) {
    out.put(if exponent < 0 { b"e-" } else { b"e+" });
    let magnitude = exponent.unsigned_abs();
    if magnitude < 100 {
        out.put(&pair(magnitude));
    } else {
        let end = unsigned(u64::from(magnitude), out.room::<32>(), 0);
        out.advance(end);
    }
}
