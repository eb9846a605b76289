//! Threads that serve clients leave the processor to others now and then.
//!
//! A thread that always finds something to do runs until the kernel takes the processor from it, at a tick of its
//! clock: milliseconds (4 at 250 Hz). Meanwhile nobody else runs there, such as a client on the same machine whose
//! answer has come. So a thread that has run for a while without a pause offers the processor after an answer. One
//! that waits for clients now and then never does: it would come back late where others compute.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// How long a thread runs before it offers the processor: a few answers.
const BURST: Duration = Duration::from_micros(150);

/// The least wait for something to do that is a pause.
const PAUSE: Duration = Duration::from_micros(20);

thread_local! {
    static RUN: Cell<Run> = const { Cell::new(Run { began: None, parked: None }) };
}

/// A thread's time without a pause.
#[derive(Clone, Copy)]
struct Run {
    began: Option<Instant>,
    parked: Option<Instant>,
}

impl Run {
    fn unpark(&mut self, now: Instant) {
        if self.parked.take().is_some_and(|parked| now.duration_since(parked) >= PAUSE) {
            self.began = Some(now);
        }
    }

    /// Whether it was long enough; another one begins then.
    fn is_over(&mut self, now: Instant) -> bool {
        let over = self.began.map(|began| now.duration_since(began) >= BURST);
        if over != Some(false) {
            self.began = Some(now);
        }
        over == Some(true)
    }
}

/// The thread has nothing to do.
pub fn park() {
    let run = RUN.get();
    RUN.set(Run { parked: Some(Instant::now()), ..run });
}

/// The thread has something to do again.
pub fn unpark() {
    let mut run = RUN.get();
    run.unpark(Instant::now());
    RUN.set(run);
}

/// An answer is on its way: others may run, if this thread has run for long.
pub fn answered() {
    let mut run = RUN.get();
    let over = run.is_over(Instant::now());
    RUN.set(run);
    if over {
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_over_after_a_while_without_a_pause() {
        let start = Instant::now();
        let mut run = Run { began: None, parked: None };
        assert!(!run.is_over(start), "it begins with its first answer");
        assert!(!run.is_over(start + BURST / 2));
        assert!(run.is_over(start + BURST));
        assert!(!run.is_over(start + BURST + BURST / 2), "another one has begun");
        // What there is to do has come while it looked for it.
        run.parked = Some(start + BURST);
        run.unpark(start + BURST + PAUSE / 2);
        assert!(run.is_over(start + 2 * BURST));
        run.parked = Some(start + 2 * BURST);
        run.unpark(start + 2 * BURST + PAUSE);
        assert!(!run.is_over(start + 3 * BURST), "it has paused");
    }
}
