//! Places where a test may have the daemon die: between any two steps of a write.
//!
//! `ORIBI_FAULT=<point>` in the environment makes the process abort when it comes to that point, as
//! suddenly as `kill -9` would; `ORIBI_FAULT_AFTER=<n>` lets it pass n times first. Without it a
//! point costs one look at a constant.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

struct Fault {
    point: String,
    left: AtomicU64,
}

static FAULT: OnceLock<Option<Fault>> = OnceLock::new();

/// A step is over, and the next has not begun.
pub fn point(name: &str) {
    let fault = FAULT.get_or_init(|| {
        let point = std::env::var("ORIBI_FAULT").ok()?;
        let left = std::env::var("ORIBI_FAULT_AFTER").ok();
        let left = left.and_then(|left| left.parse().ok()).unwrap_or(0);
        Some(Fault { point, left: AtomicU64::new(left) })
    });
    let Some(fault) = fault else { return };
    if fault.point == name && fault.left.fetch_sub(1, Ordering::Relaxed) == 0 {
        std::process::abort();
    }
}
