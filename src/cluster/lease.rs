//! How long a daemon may take itself for registered.
//!
//! The store removes a silent daemon's ephemeral nodes after the session's time-out, and the client
//! library may learn of it seconds later or, after a pause of the whole process, not before it has
//! acted. So a daemon trusts only its own monotonic clock: from the moment it *sent* a request that
//! later proved its record to be there, it is registered for the time-out less a margin.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

#[derive(Debug)]
pub(super) struct Lease {
    valid_until: Mutex<Option<Instant>>,
}

impl Lease {
    pub fn new() -> Self {
        Self { valid_until: Mutex::new(None) }
    }

    /// The record was there at some time after `sent`.
    pub fn renew(&self, sent: Instant, timeout: Duration) {
        // The server counts in ticks and may be early by one: a tenth covers its usual settings.
        let until = sent + timeout.mul_f64(0.9);
        *self.valid_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }

    /// The record is known to be gone.
    pub fn revoke(&self) {
        *self.valid_until.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub fn is_valid(&self, now: Instant) -> bool {
        let until = *self.valid_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_by_itself() {
        let lease = Lease::new();
        let start = Instant::now();
        assert!(!lease.is_valid(start));
        lease.renew(start, Duration::from_secs(10));
        assert!(lease.is_valid(start + Duration::from_millis(8_999)));
        assert!(!lease.is_valid(start + Duration::from_secs(9)));
        lease.renew(start, Duration::from_secs(10));
        lease.revoke();
        assert!(!lease.is_valid(start));
    }
}
