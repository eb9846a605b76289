//! Runtimes, begun only where the system has room for their threads: tokio panics where one cannot be started.

use std::sync::{Mutex, PoisonError};
use std::{io, thread};

use tokio::runtime::{Builder, Runtime};

/// Threads that a runtime has room for besides, which wait for files and the like.
const BESIDE: usize = 8;

/// What may be lacking.
pub const NEED: &str = "each needs 128 MiB of address space (ulimit -v, LimitAS=) and a place among the user's \
                        tasks (ulimit -u, TasksMax=)";

/// What a builder makes, with so many threads.
pub fn build(builder: &mut Builder, threads: usize, stack: usize) -> io::Result<Runtime> {
    have_room(threads + BESIDE, stack)?;
    builder.worker_threads(threads).thread_stack_size(stack).enable_all().build()
}

/// Has all of them at once for a moment.
fn have_room(threads: usize, stack: usize) -> io::Result<()> {
    let gate = Mutex::new(());
    let wait = || drop(gate.lock().unwrap_or_else(PoisonError::into_inner));
    thread::scope(|scope| {
        let _shut = gate.lock().unwrap_or_else(PoisonError::into_inner);
        (0..threads).try_for_each(|_| {
            thread::Builder::new().stack_size(stack).spawn_scoped(scope, wait).map(drop)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_cannot_be_started_are_an_error() {
        let runtime = build(&mut Builder::new_multi_thread(), 2, 1 << 20).expect("a runtime");
        assert_eq!(runtime.metrics().num_workers(), 2);
        // More than a process can have addresses.
        let error = build(&mut Builder::new_multi_thread(), 2, 1 << 47).expect_err("no room");
        assert!(error.raw_os_error().is_some(), "{error}");
    }
}
