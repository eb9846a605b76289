//! What rooms count for monitoring: numbers that only grow, and times by their length.
//!
//! Counting is an atomic addition or three, without a lock, and never waits. Who wants to know looks
//! at the numbers when they are asked for.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Something that only grows while the process lives.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts by a word. The words must be few, and not a client's own: each is kept for ever. Takes a
/// lock, so it is for what is rare, such as failures.
#[derive(Debug, Default)]
pub struct ByWord(Mutex<BTreeMap<String, u64>>);

impl ByWord {
    pub fn add(&self, word: &str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(word) {
            Some(count) => *count += 1,
            None => drop(counts.insert(word.to_owned(), 1)),
        }
    }

    pub fn get(&self) -> BTreeMap<String, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Upper bounds of the classes of [`Timing`], in microseconds: from half a millisecond to half an hour.
const BOUNDS: [u64; 18] = [
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    1_800_000_000,
];

/// Times by their length: a histogram.
#[derive(Debug, Default)]
pub struct Timing {
    /// How many fell into each class, and beyond all of them.
    classes: [AtomicU64; BOUNDS.len()],
    beyond: AtomicU64,
    /// Microseconds.
    sum: AtomicU64,
}

/// A [`Timing`] at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Times {
    /// Upper bounds in seconds, with how many times were no longer.
    pub classes: Vec<(f64, u64)>,
    pub count: u64,
    /// Seconds.
    pub sum: f64,
}

impl Timing {
    pub fn add(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let class = self.classes.get(BOUNDS.partition_point(|bound| *bound < micros));
        class.unwrap_or(&self.beyond).fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(micros, Ordering::Relaxed);
    }

    pub fn get(&self) -> Times {
        let mut count = 0;
        let classes = BOUNDS.iter().zip(&self.classes).map(|(bound, class)| {
            count += class.load(Ordering::Relaxed);
            (*bound as f64 / 1e6, count)
        });
        let classes = classes.collect();
        let sum = self.sum.load(Ordering::Relaxed) as f64 / 1e6;
        Times { classes, count: count + self.beyond.load(Ordering::Relaxed), sum }
    }
}

/// What goes between the clients and a daemon.
#[derive(Debug, Default)]
pub struct Clients {
    /// Those that were let in.
    pub opened: Counter,
    /// Those that were not, by SQLSTATE.
    pub refused: ByWord,
    /// Bytes in messages, before encryption.
    pub received: Counter,
    pub sent: Counter,
    /// Errors that they were told of, by SQLSTATE.
    pub errors: ByWord,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_by_their_length() {
        let timing = Timing::default();
        for micros in [0, 500, 501, 1_000, 2_000_000, 1_800_000_000, 1_800_000_001] {
            timing.add(Duration::from_micros(micros));
        }
        let Times { classes, count, sum } = timing.get();
        assert_eq!((count, classes.len()), (7, BOUNDS.len()));
        assert_eq!(classes[..3], [(0.0005, 2), (0.001, 4), (0.0025, 4)]);
        assert_eq!(classes[BOUNDS.len() - 1], (1800.0, 6));
        assert!((sum - 3_602.002_002).abs() < 1e-6, "{sum}");
        assert!(BOUNDS.is_sorted());
    }

    #[test]
    fn words_are_counted_apart() {
        let words = ByWord::default();
        for word in ["a", "b", "a"] {
            words.add(word);
        }
        assert_eq!(words.get(), BTreeMap::from([("a".to_owned(), 2), ("b".to_owned(), 1)]));
    }
}
