//! Mutations of bytes, from a seed.

/// A generator of pseudo-random numbers: xorshift64*, by Marsaglia and Vigna.
#[derive(Debug)]
pub struct Random(u64);

/// Numbers that code often gets wrong.
const EDGES: &[i32] = &[0, 1, -1, 2, 3, 4, 7, 255, 256, 32767, 32768, 65535, i32::MAX, i32::MIN];

impl Random {
    pub fn new(seed: u64) -> Self {
        // Zero would stay zero.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`; 0 if that is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    /// One to three changes.
    pub fn mutate(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        for _ in 0..=self.below(3) {
            self.change(&mut bytes);
        }
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len());
        match self.below(8) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
            1 if !bytes.is_empty() => bytes[at] = self.next() as u8,
            2 => bytes.truncate(at),
            3 => bytes.insert(at, self.next() as u8),
            4 => {
                let edge = self.pick(EDGES).to_be_bytes();
                self.write(bytes, at, &edge);
            }
            5 => {
                let edge = (self.pick(EDGES) as i16).to_be_bytes();
                self.write(bytes, at, &edge);
            }
            6 => {
                let end = (at + 1 + self.below(16)).min(bytes.len());
                let part = bytes[at.min(end)..end].to_vec();
                let to = self.below(bytes.len() + 1);
                bytes.splice(to..to, part);
            }
            _ => {
                // A lie about the length, or a right one about something else.
                let length = match self.chance(50) {
                    true => self.pick(EDGES),
                    false => bytes.len() as i32 - 1,
                };
                self.write(bytes, 1, &length.to_be_bytes());
            }
        }
    }

    fn write(&mut self, bytes: &mut [u8], at: usize, new: &[u8]) {
        for (old, new) in bytes.iter_mut().skip(at).zip(new) {
            *old = *new;
        }
    }
}
