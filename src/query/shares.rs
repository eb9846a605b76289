//! How many statements of one role run at once, for roles that have a limit.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Debug, Default)]
pub struct Shares(Mutex<HashMap<String, usize>>);

/// One statement's part of its role's limit.
#[derive(Debug)]
pub struct Share {
    shares: Arc<Shares>,
    role: String,
}

impl Shares {
    /// `None` when as many as the limit run already.
    pub fn take(self: &Arc<Self>, role: &str, limit: usize) -> Option<Share> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = running.entry(role.to_owned()).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(Share { shares: self.clone(), role: role.to_owned() })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut running = self.shares.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = running.get_mut(&self.role) {
            *count -= 1;
            if *count == 0 {
                running.remove(&self.role);
            }
        }
    }
}
