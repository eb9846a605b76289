//! Places where a test may have the daemon die or stop: between any two steps of a write.
//!
//! `ORIBI_FAULT=<point>` in the environment makes the process abort when it comes to that point, as
//! suddenly as `kill -9` would; `ORIBI_FAULT_AFTER=<n>` lets it pass n times first. With
//! `ORIBI_FAULT_BY=stop` it stops as by SIGSTOP, until a SIGCONT; with `=panic` the thread panics, with
//! `=stall` it does nothing any more, and all others go on. `ORIBI_FAULT_WHEN=<file>` lets it pass for as
//! long as there is no such file.
//! Without a fault a point costs one look at a constant.

use std::path::PathBuf;
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
    Stall,
}

struct Fault {
    point: String,
    when: Option<PathBuf>,
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
            Ok("stall") => By::Stall,
            _ => By::Abort,
        };
        let when = std::env::var_os("ORIBI_FAULT_WHEN").map(PathBuf::from);
        Some(Fault { point, when, left: AtomicU64::new(left), by })
    });
    let Some(fault) = fault else { return };
    if fault.point != name || fault.when.as_ref().is_some_and(|file| !file.exists()) {
        return;
    }
    if fault.left.fetch_sub(1, Ordering::Relaxed) != 0 {
        return;
    }
    match fault.by {
        By::Abort => std::process::abort(),
        By::Panic => panic!("{name}, and a test wants a panic"),
        By::Stall => loop {
            std::thread::park();
        },
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
