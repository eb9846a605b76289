//! Threads that serve clients leave the processor to others now and then.
//!
//! A thread that always finds something to do runs until the kernel takes the processor from it, at a tick of its
//! clock: milliseconds (4 at 250 Hz). Meanwhile nobody else runs there, such as a client on the same machine whose
//! answer has come. So a thread that has run for a while without a pause offers the processor after an answer.
//!
//! Others may take it for long, though, up to a tick, if they compute: a thread that was away for long offers
//! nothing for a while, and loses next to nothing by it. One that waits for clients now and then never offers it.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// How long a thread runs before it offers the processor: a few answers.
const BURST: Duration = Duration::from_micros(150);

/// The least wait for something to do that is a pause.
const PAUSE: Duration = Duration::from_micros(20);

/// Who takes the processor for longer than this computes: a client reads some answers.
const LONG: Duration = Duration::from_micros(500);

/// How many times as long as it was away a thread offers nothing then.
const REST: u32 = 100;

/// The longest that it offers nothing.
const MAX_REST: Duration = Duration::from_secs(1);

thread_local! {
    static RUN: Cell<Run> = const { Cell::new(Run { began: None, parked: None, rests: None }) };
}

/// A thread's time without a pause.
#[derive(Clone, Copy)]
struct Run {
    began: Option<Instant>,
    parked: Option<Instant>,
    /// Until when it offers nothing.
    rests: Option<Instant>,
}

impl Run {
    fn unpark(&mut self, now: Instant) {
        if self.parked.take().is_some_and(|parked| now.duration_since(parked) >= PAUSE) {
            self.began = Some(now);
        }
    }

    /// Whether it was long enough.
    fn is_over(&mut self, now: Instant) -> bool {
        let began = *self.began.get_or_insert(now);
        now.duration_since(began) >= BURST && self.rests.is_none_or(|until| now >= until)
    }

    /// The thread has had the processor again since `now`, after it has offered it at `left`.
    fn is_back(&mut self, left: Instant, now: Instant) {
        let away = now.duration_since(left);
        self.began = Some(now);
        self.rests = (away >= LONG).then(|| now + away.saturating_mul(REST).min(MAX_REST));
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
    let (mut run, now) = (RUN.get(), Instant::now());
    if run.is_over(now) {
        std::thread::yield_now();
        run.is_back(now, Instant::now());
    }
    RUN.set(run);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_over_after_a_while_without_a_pause() {
        let start = Instant::now();
        let mut run = Run { began: None, parked: None, rests: None };
        assert!(!run.is_over(start), "it begins with its first answer");
        assert!(!run.is_over(start + BURST / 2));
        assert!(run.is_over(start + BURST));
        // What there is to do has come while it looked for it.
        run.parked = Some(start + BURST);
        run.unpark(start + BURST + PAUSE / 2);
        assert!(run.is_over(start + BURST + PAUSE));
        run.parked = Some(start + BURST);
        run.unpark(start + BURST + PAUSE);
        assert!(!run.is_over(start + 2 * BURST), "it has paused");
    }

    #[test]
    fn who_was_away_for_long_offers_nothing_for_a_while() {
        let start = Instant::now();
        let mut run = Run { began: Some(start), parked: None, rests: None };
        run.is_back(start + BURST, start + BURST + LONG / 2);
        assert!(run.is_over(start + 2 * BURST + LONG), "somebody was there for a moment");
        let (left, back) = (start + 2 * BURST, start + 2 * BURST + 2 * LONG);
        run.is_back(left, back);
        assert!(!run.is_over(back + BURST));
        assert!(!run.is_over(back + 2 * LONG * REST - BURST));
        assert!(run.is_over(back + 2 * LONG * REST));
    }
}
