//! What clients did, and what they were told.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Microseconds since the run began, on the monotonic clock.
pub type Moment = u64;

/// A table of rows with a key that no two inserts share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    /// Rows that come one or several at a time, and go.
    Events,
    /// A row for each transfer between accounts.
    Ledger,
    /// A row for each submitted query.
    Done,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// By one statement, or one transaction.
    Insert(Table, Vec<i64>),
    Delete(Table, i64),
    /// All keys from one to another, both included.
    Read(Table, i64, i64),
    /// What all accounts hold.
    Sum,
    /// Something moves between them.
    Shift,
    /// The same with what the vault holds, and that without the ledger.
    Across,
    /// A table of that name with one row, which holds the number.
    Create(String, i64),
    Drop(String),
    /// What the table of that name holds.
    Look(String),
    /// A query that inserts that key into [`Table::Done`].
    Submit(i64),
    Set(i64),
    /// One of the queries whose answers are known.
    Fact(usize),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done, and so many rows were changed.
    Done(u64),
    Keys(Vec<i64>),
    /// What a table holds; none if there is no such table.
    Held(Option<i64>),
    /// The id of a submitted query.
    Id(String),
    /// By an SQLSTATE, with which nothing is done.
    Refused(String),
    /// Nobody knows whether it was done: why.
    Unknown(String),
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub session: u64,
    /// The daemon's number.
    pub daemon: usize,
    /// Whether the session asks the store before it plans.
    pub strong: bool,
    pub op: Op,
    pub start: Moment,
    pub end: Moment,
    pub outcome: Outcome,
}

impl Entry {
    pub fn refused(&self) -> bool {
        matches!(self.outcome, Outcome::Refused(_))
    }

    pub fn done(&self) -> bool {
        !matches!(self.outcome, Outcome::Refused(_) | Outcome::Unknown(_))
    }
}

/// Something that must not be, and when it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub at: Moment,
    pub what: String,
}

impl Violation {
    pub fn new(at: Moment, what: impl Into<String>) -> Self {
        Self { at, what: what.into() }
    }
}

/// Grows while clients work.
pub struct History {
    began: Instant,
    entries: Mutex<Vec<Entry>>,
    violations: Mutex<Vec<Violation>>,
}

impl History {
    pub fn new() -> Self {
        Self { began: Instant::now(), entries: Mutex::default(), violations: Mutex::default() }
    }

    pub fn now(&self) -> Moment {
        u64::try_from(self.began.elapsed().as_micros()).expect("not that long")
    }

    pub fn add(&self, entry: Entry) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
    }

    /// Something that is wrong whatever else happened.
    pub fn violation(&self, what: impl Into<String>) {
        let violation = Violation::new(self.now(), what);
        eprintln!("VIOLATION at {:.3} s: {}", seconds(violation.at), violation.what);
        self.violations.lock().unwrap_or_else(PoisonError::into_inner).push(violation);
    }

    pub fn entries(&self) -> Vec<Entry> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn violations(&self) -> Vec<Violation> {
        self.violations.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

pub fn seconds(moment: Moment) -> f64 {
    moment as f64 / 1e6
}
