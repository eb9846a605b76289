//! Slows down whoever guesses passwords.
//!
//! Failed log-ins are counted by address. After the first few, the answer to each further failure
//! is held back, longer each time; and who does not wait for it waits at the next try, as does
//! everybody at that address, for some seconds at most: nobody can keep others out.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What the first answer that is held back waits; each further one twice as long.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(8);

/// After so long without a failure an address is forgotten.
const FORGET: Duration = Duration::from_secs(5 * 60);

/// Addresses that are remembered at once.
const ADDRESSES: usize = 10_000;

/// Failed log-ins by address.
#[derive(Debug)]
pub struct Throttle {
    /// Failures that are answered at once.
    free: u32,
    failures: Mutex<HashMap<IpAddr, Failures>>,
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    last: Instant,
}

impl Throttle {
    pub fn new(free: u32) -> Self {
        Self { free, failures: Mutex::default() }
    }

    /// Counts a failure; returns how long its answer is to be held back.
    pub fn failed(&self, address: IpAddr, now: Instant) -> Duration {
        let source = source(address);
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= ADDRESSES && !failures.contains_key(&source) {
            make_room(&mut failures, now);
        }
        let entry = failures.entry(source).or_insert(Failures { count: 0, last: now });
        if now.duration_since(entry.last) >= FORGET {
            entry.count = 0;
        }
        entry.count = entry.count.saturating_add(1);
        entry.last = now;
        self.delay(entry.count)
    }

    /// How long the next try of an address has to wait: until the answer to its last failure is due.
    pub fn hold(&self, address: IpAddr, now: Instant) -> Duration {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        match failures.get(&source(address)) {
            Some(entry) => (entry.last + self.delay(entry.count)).saturating_duration_since(now),
            None => Duration::ZERO,
        }
    }

    /// What the answer to the failure of that number waits.
    fn delay(&self, count: u32) -> Duration {
        match count.saturating_sub(self.free).checked_sub(1) {
            None => Duration::ZERO,
            Some(doublings) => FIRST.saturating_mul(1 << doublings.min(10)).min(LONGEST),
        }
    }
}

/// Forgets who has not failed for a while, or else whoever failed the longest time ago.
fn make_room(failures: &mut HashMap<IpAddr, Failures>, now: Instant) {
    failures.retain(|_, entry| now.duration_since(entry.last) < FORGET);
    if failures.len() >= ADDRESSES {
        let oldest = failures.iter().min_by_key(|(_, entry)| entry.last);
        if let Some(oldest) = oldest.map(|(address, _)| *address) {
            failures.remove(&oldest);
        }
    }
}

/// What counts as one address: of IPv6 a /64, which is what one network gets.
pub fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (!0 << 64)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn answers_take_longer_each_time_up_to_a_limit() {
        let throttle = Throttle::new(3);
        let start = Instant::now();
        let delays: Vec<_> =
            (0..9).map(|_| throttle.failed(ip("10.0.0.1"), start).as_millis()).collect();
        assert_eq!(delays, [0, 0, 0, 500, 1000, 2000, 4000, 8000, 8000]);
        assert_eq!(throttle.failed(ip("10.0.0.2"), start), Duration::ZERO, "another address");
        let later = start + FORGET;
        assert_eq!(throttle.failed(ip("10.0.0.1"), later), Duration::ZERO, "forgotten");
        for _ in 0..100 {
            assert!(throttle.failed(ip("10.0.0.1"), later) <= LONGEST);
        }
    }

    #[test]
    fn who_does_not_wait_for_the_answer_waits_at_the_next_try() {
        let throttle = Throttle::new(1);
        let start = Instant::now();
        throttle.failed(ip("10.0.0.1"), start);
        assert_eq!(throttle.hold(ip("10.0.0.1"), start), Duration::ZERO);
        throttle.failed(ip("10.0.0.1"), start);
        assert_eq!(throttle.hold(ip("10.0.0.1"), start), FIRST);
        assert_eq!(throttle.hold(ip("10.0.0.1"), start + FIRST), Duration::ZERO);
        assert_eq!(throttle.hold(ip("10.0.0.2"), start), Duration::ZERO, "another address");
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let throttle = Throttle::new(1);
        let now = Instant::now();
        assert_eq!(throttle.failed(ip("2001:db8::1"), now), Duration::ZERO);
        assert_eq!(throttle.failed(ip("2001:db8::ffff:2"), now), FIRST);
        assert_eq!(throttle.failed(ip("2001:db8:0:1::1"), now), Duration::ZERO);
        assert_eq!(throttle.failed(ip("10.0.0.1"), now), Duration::ZERO);
        assert_eq!(throttle.failed(ip("::ffff:10.0.0.1"), now), FIRST);
    }

    #[test]
    fn the_table_is_bounded() {
        let throttle = Throttle::new(0);
        let start = Instant::now();
        for number in 0..ADDRESSES as u32 + 10 {
            let at = start + Duration::from_micros(u64::from(number));
            throttle.failed(std::net::Ipv4Addr::from_bits(number).into(), at);
        }
        let failures = throttle.failures.lock().expect("not poisoned");
        assert_eq!(failures.len(), ADDRESSES);
        assert!(!failures.contains_key(&ip("0.0.0.0")), "the oldest went");
    }
}
