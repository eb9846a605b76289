//! The next of a few bytes, eight at a time.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// The position of the first byte at or after `from` that is one of the needles.
///
/// Of the flags for one needle only those above its first hit may be wrong, so the lowest of all is
/// always right.
#[inline]
pub(super) fn find<const N: usize>(needles: [u8; N], data: &[u8], from: usize) -> Option<usize> {
    let patterns = needles.map(|needle| u64::from(needle) * ONES);
    let mut at = from;
    while let Some(block) = data.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*block);
        let hits = patterns.iter().fold(0, |hits, pattern| hits | zeros(word ^ pattern));
        if hits != 0 {
            return Some(at + (hits.trailing_zeros() / 8) as usize);
        }
        at += 8;
    }
    let rest = data.get(at..)?;
    rest.iter().position(|byte| needles.contains(byte)).map(|found| at + found)
}

/// Calls for each position of a byte, in order. Where it comes every few bytes this is cheaper than to look
/// for each anew.
#[inline]
pub(super) fn each(needle: u8, data: &[u8], mut found: impl FnMut(usize)) {
    let pattern = u64::from(needle) * ONES;
    let (blocks, rest) = data.as_chunks::<8>();
    for (number, block) in blocks.iter().enumerate() {
        let mut hits = exact_zeros(u64::from_le_bytes(*block) ^ pattern);
        while hits != 0 {
            found(8 * number + (hits.trailing_zeros() / 8) as usize);
            hits &= hits - 1;
        }
    }
    let start = 8 * blocks.len();
    for (at, _) in rest.iter().enumerate().filter(|(_, byte)| **byte == needle) {
        found(start + at);
    }
}

/// Flags the bytes that are zero, and no others.
#[inline]
fn exact_zeros(word: u64) -> u64 {
    let low = (word & !HIGH) + !HIGH;
    !(low | word | !HIGH)
}

/// Flags the bytes that are zero; above the first of them perhaps others.
#[inline]
fn zeros(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & HIGH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_needle_is_found_wherever_it_stands() {
        for length in 0..40 {
            for (at, byte) in (0..length).flat_map(|at| [(at, b'\t'), (at, b'\n')]) {
                let mut data = vec![b'\x08'; length];
                data[at] = byte;
                if at + 1 < length {
                    data[at + 1] = b'\t';
                }
                for from in 0..=at {
                    assert_eq!(find([b'\t', b'\n'], &data, from), Some(at));
                }
                assert_eq!(find([b'\x0b'], &data, 0), None);
            }
        }
        assert_eq!(find([b'a'], b"a", 1), None);
        assert_eq!(find([b'a'], b"a", 2), None);
    }

    #[test]
    fn each_needle_is_found_once() {
        // Those behind a hit that differ from it by one bit are no hits.
        let bytes = [b',', b'-', b',', 0, 0x80, b',', b'.', b',' | 0x80];
        for length in 0..40 {
            for first in 0..bytes.len() {
                let data: Vec<u8> =
                    (0..length).map(|at| bytes[(first + at * at) % bytes.len()]).collect();
                let mut all = Vec::new();
                each(b',', &data, |at| all.push(at));
                let expected: Vec<usize> = (0..length).filter(|at| data[*at] == b',').collect();
                assert_eq!(all, expected, "{data:?}");
            }
        }
    }
}
