//! Decimal digits without division chains or tables of branches: eight digits are computed at once
//! in the bytes of a machine word, and leading zeros are shifted out.

/// A word of eight ASCII zeros.
const ZEROS: u64 = 0x3030_3030_3030_3030;

const E8: u64 = 100_000_000;
const E16: u64 = E8 * E8;

/// All pairs of digits, "00" to "99".
pub(super) static PAIRS: [[u8; 2]; 100] = pairs();

const fn pairs() -> [[u8; 2]; 100] {
    let mut table = [[0; 2]; 100];
    let mut i = 0;
    while i < 100 {
        table[i] = [b'0' + (i / 10) as u8, b'0' + (i % 10) as u8];
        i += 1;
    }
    table
}

/// The two digits of `n`, which is below 100.
#[inline(always)]
pub(super) fn pair(n: u32) -> [u8; 2] {
    PAIRS[n as usize % 100]
}

/// The eight digits of `n` < 10^8 as numbers, the first in the lowest byte. Each step halves the
/// lanes: four digits, two, one; the multiplications are by the reciprocals of 100 and 10.
#[inline(always)]
fn eight(n: u64) -> u64 {
    let fours = (n / 10_000) | ((n % 10_000) << 32);
    let hundreds = ((fours * 10_486) >> 20) & 0x7f_0000_007f;
    let twos = hundreds | ((fours - hundreds * 100) << 16);
    let tens = ((twos * 103) >> 10) & 0x000f_000f_000f_000f;
    tens | ((twos - tens * 10) << 8)
}

/// Writes `n` < 10^8 without leading zeros at `at`; returns where it ends.
#[inline(always)]
fn head<const N: usize>(n: u64, out: &mut [u8; N], at: usize) -> usize {
    let digits = eight(n);
    // The mark in the last byte keeps the one digit of zero.
    let zeros = (digits | 1 << 63).trailing_zeros() & !7;
    let text = (digits | ZEROS) >> zeros;
    out[at..at + 8].copy_from_slice(&text.to_le_bytes());
    at + 8 - zeros as usize / 8
}

/// Writes `n` < 10^8 as eight digits at `at`; returns where they end.
#[inline(always)]
fn tail<const N: usize>(n: u64, out: &mut [u8; N], at: usize) -> usize {
    out[at..at + 8].copy_from_slice(&(eight(n) | ZEROS).to_le_bytes());
    at + 8
}

/// Writes `n` < 10^16 as sixteen digits at `at`; returns where they end.
pub(super) fn sixteen<const N: usize>(n: u64, out: &mut [u8; N], at: usize) -> usize {
    let at = tail(n / E8, out, at);
    tail(n % E8, out, at)
}

/// Writes `n` at `at`, of which at least 24 bytes must follow; returns where it ends.
#[inline(always)]
pub(super) fn unsigned<const N: usize>(n: u64, out: &mut [u8; N], at: usize) -> usize {
    if n < E8 {
        head(n, out, at)
    } else if n < E16 {
        let at = head(n / E8, out, at);
        tail(n % E8, out, at)
    } else {
        let at = head(n / E16, out, at);
        let at = tail(n / E8 % E8, out, at);
        tail(n % E8, out, at)
    }
}

/// Writes `n`; returns its length.
#[inline(always)]
pub(super) fn signed(n: i64, out: &mut [u8; 32]) -> usize {
    out[0] = b'-';
    unsigned(n.unsigned_abs(), out, usize::from(n < 0))
}

/// The largest number of digits that [`scaled`] takes, and the first value that is too large.
pub(super) const SCALED_DIGITS: u32 = 15;
pub(super) const SCALED_LIMIT: u64 = 1_000_000_000_000_000;

/// Writes `n` < [`SCALED_LIMIT`] with a point before the last `scale` digits, 0 < `scale` <
/// [`SCALED_DIGITS`], at `at`; returns where it ends. All digits and the point are put together in
/// one 16-byte word.
#[inline(always)]
pub(super) fn scaled(n: u64, scale: u32, out: &mut [u8; 48], at: usize) -> usize {
    let digits = (u128::from(eight(n / E8)) | u128::from(eight(n % E8)) << 64) >> 8;
    let point = 8 * (SCALED_DIGITS - scale);
    let whole = digits & !(u128::MAX << point);
    let fraction = digits >> point << point;
    // The digit before the point is shown even if it is zero.
    let zeros = (whole | 1 << (point - 1)).trailing_zeros() & !7;
    let zero_digits = (u128::from(ZEROS) | u128::from(ZEROS) << 64) >> 8;
    let ascii = (whole | fraction) | zero_digits;
    let low = ascii & !(u128::MAX << point);
    let text = low | u128::from(b'.') << point | (ascii >> point << point) << 8;
    out[at..at + 16].copy_from_slice(&(text >> zeros).to_le_bytes());
    at + 16 - zeros as usize / 8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(n: i64) -> String {
        let mut out = [b'#'; 32];
        let len = signed(n, &mut out);
        String::from_utf8(out[..len].to_vec()).unwrap()
    }

    #[test]
    fn integers() {
        for n in [0, 7, i64::MIN, i64::MAX, i64::MAX - 1, i64::from(i32::MIN)] {
            assert_eq!(text(n), n.to_string());
        }
        let mut power: i64 = 1;
        while let Some(next) = power.checked_mul(10) {
            for n in [power - 1, power, power + 1, power * 7 + 3, -power] {
                assert_eq!(text(n), n.to_string());
            }
            power = next;
        }
        let mut out = [0; 32];
        let len = unsigned(u64::MAX, &mut out, 0);
        assert_eq!(&out[..len], u64::MAX.to_string().as_bytes());
    }

    #[test]
    fn every_eight_digits_in_steps() {
        for n in (0..E8).step_by(9_973) {
            let mut out = [0; 32];
            let end = tail(n, &mut out, 3);
            assert_eq!(&out[3..end], format!("{n:08}").as_bytes());
        }
    }

    #[test]
    fn scaled_integers() {
        let cases = [
            (0, 2, "0.00"),
            (5, 2, "0.05"),
            (12345, 2, "123.45"),
            (12345, 14, "0.00000000012345"),
            (SCALED_LIMIT - 1, 1, "99999999999999.9"),
            (SCALED_LIMIT - 1, 14, "9.99999999999999"),
            (100_000_000, 8, "1.00000000"),
        ];
        for (n, scale, expected) in cases {
            let mut out = [b'#'; 48];
            let end = scaled(n, scale, &mut out, 1);
            assert_eq!(std::str::from_utf8(&out[1..end]).unwrap(), expected);
        }
    }
}
