//! Places where a test may have the daemon die or stop: between any two steps of a write.
//!
//! `ORIBI_FAULT=<point>` in the environment makes the process abort when it comes to that point, as
//! suddenly as `kill -9` would; `ORIBI_FAULT_AFTER=<n>` lets it pass n times first. With
//! `ORIBI_FAULT_BY=stop` it stops as by SIGSTOP, until a SIGCONT; with `=panic` the thread panics.
//! Without a fault a point costs one look at a constant.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

/// More than enough for a signal to stop all threads.
const TAKEN: Duration = Duration::from_millis(200);

enum By {
    Abort,
    Stop,
    Panic,
}

struct Fault {
    point: String,
    left: AtomicU64,
    by: By,
}

static FAULT: OnceLock<Option<Fault>> = OnceLock::new();

/// A step is over, and the next has not begun.
pub fn point(name: &str) {
    let fault = FAULT.get_or_init(|| {
        let point = std::env::var("ORIBI_FAULT").ok()?;
        let left = std::env::var("ORIBI_FAULT_AFTER").ok();
        let left = left.and_then(|left| left.parse().ok()).unwrap_or(0);
        let by = match std::env::var("ORIBI_FAULT_BY").as_deref() {
            Ok("stop") => By::Stop,
            Ok("panic") => By::Panic,
            _ => By::Abort,
        };
        Some(Fault { point, left: AtomicU64::new(left), by })
    });
    let Some(fault) = fault else { return };
    if fault.point != name || fault.left.fetch_sub(1, Ordering::Relaxed) != 0 {
        return;
    }
    match fault.by {
        By::Abort => std::process::abort(),
        By::Panic => panic!("{name}, and a test wants a panic"),
        By::Stop => {
            if kill_process(getpid(), Signal::STOP).is_err() {
                std::process::abort();
            }
            // Another thread may be the one that the signal comes to: this one must not go on before
            // that has stopped them all.
            std::thread::sleep(TAKEN);
        }
    }
}
