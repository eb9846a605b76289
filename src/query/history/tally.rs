//! What all statements of this daemon's clients together have come to, for monitoring.

use std::time::Duration;

use super::State;
use crate::engine::observe::{Figures, Observation};
use crate::metrics::{ByWord, Counter, Timing};

/// The ends of statements that are told apart.
pub const STATES: [State; 3] = [State::Finished, State::Failed, State::Cancelled];

/// The phases of statements that are timed.
pub const PHASES: [&str; 3] = ["queue", "plan", "execute"];

/// Statements that have ended, since the process began.
#[derive(Debug, Default)]
pub struct Tally {
    /// From the start to the end, by [`STATES`].
    pub durations: [Timing; 3],
    /// By [`STATES`] and [`PHASES`].
    pub phases: [[Timing; 3]; 3],
    /// Those that were not finished, by SQLSTATE.
    pub errors: ByWord,
    /// Rows that clients were given, or that statements have changed.
    pub rows: Counter,
    /// How often one ran again because a worker was lost.
    pub retries: Counter,
    pub rows_scanned: Counter,
    /// Bytes.
    pub scanned: Counter,
    pub spilled: Counter,
    /// Statements that are missing in the history.
    pub forgotten: Counter,
}

/// How a statement has ended.
#[derive(Debug)]
pub(super) struct End<'a> {
    pub state: State,
    pub took: Duration,
    /// Of these, in the order of [`PHASES`].
    pub phases: [Duration; 3],
    pub sqlstate: Option<&'a str>,
    /// Rows that its command tag counts.
    pub rows: u64,
}

impl Tally {
    /// A statement has ended.
    pub(super) fn end(&self, end: &End, observation: &Observation) {
        let Some(state) = STATES.iter().position(|state| *state == end.state) else { return };
        self.durations[state].add(end.took);
        for (timing, time) in self.phases[state].iter().zip(end.phases) {
            timing.add(time);
        }
        if let Some(sqlstate) = end.sqlstate {
            self.errors.add(sqlstate);
        }
        self.rows.add(observation.rows().max(end.rows));
        self.retries.add(observation.retries().into());
    }

    /// What one has used is known.
    pub(super) fn measured(&self, figures: Figures) {
        let Figures { scanned, rows_scanned, spilled, peak: _ } = figures;
        self.scanned.add(scanned);
        self.rows_scanned.add(rows_scanned);
        self.spilled.add(spilled);
    }
}
