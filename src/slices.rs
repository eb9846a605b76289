//! Threads that serve clients, and wait for files and the like for those, ask for short turns at the processor.
//!
//! The kernel's scheduler lets a thread run for a slice (2.8 ms and the like) before others that are due, and
//! who has a short one gets it sooner (EEVDF; Linux 6.12 and later take a slice for each thread from
//! `sched_setattr`, least 0.1 ms; older ones ignore it). A thread's share of the processor stays what it was.
//! Of eight clients on the machine of the daemon the slowest answers come in two thirds of the time.
//!
//! The one place with `unsafe`: no crate offers the call without it.
#![allow(unsafe_code)]

use std::io;

/// The least slice that the kernel takes, in nanoseconds: about what two look-ups cost.
const SLICE: u64 = 100_000;

/// What is asked for, or has been, for one thread.
type Attributes = libc::sched_attr;

/// This thread takes short turns from now on. Where that is not allowed it goes on as it was.
pub fn shorten() {
    if let Err(error) = set(SLICE) {
        tracing::debug!(%error, "a thread's slice stays as it is");
    }
}

/// Only the slice changes: niceness and policy stay. A thread with a policy that has no slice is let be.
fn set(slice: u64) -> io::Result<()> {
    let mut attributes = get()?;
    if ![libc::SCHED_OTHER, libc::SCHED_BATCH].contains(&attributes.sched_policy.cast_signed()) {
        return Ok(());
    }
    attributes.sched_runtime = slice;
    // SAFETY: the kernel reads as many bytes as the structure says that it has.
    told(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) })
}

fn get() -> io::Result<Attributes> {
    const SIZE: u32 = size_of::<Attributes>() as u32;
    // SAFETY: it is made of integers, all of which may be zero.
    let mut attributes: Attributes = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes no more bytes than that.
    told(unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, SIZE, 0) })?;
    Ok(attributes)
}

fn told(result: libc::c_long) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_has_a_short_slice_and_keeps_the_rest() {
        let before = get().expect("attributes");
        shorten();
        let after = get().expect("attributes");
        assert_eq!(
            (after.sched_policy, after.sched_nice, after.sched_flags),
            (before.sched_policy, before.sched_nice, before.sched_flags)
        );
        // Older kernels have none.
        if before.sched_runtime != 0 {
            assert_eq!(after.sched_runtime, SLICE);
        }
        set(before.sched_runtime).expect("it may be set back");
    }
}
