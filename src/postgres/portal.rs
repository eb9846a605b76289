//! Portals: statements with their parameters, ready to run or running. A cursor is one.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::ScalarValue;

use super::reading::Reading;
use super::sqlstate::Report;
use super::statement::Statement;
use crate::engine::objects::{CursorItem, Listed};
use crate::query::objects::{Declare, Fetch};
use crate::query::{Boundary, TransactionState};
use crate::values::encode::Format;

/// A session's portals by name: Bind and DECLARE share the names.
#[derive(Debug, Default)]
pub struct Portals(HashMap<String, Portal>);

#[derive(Debug)]
pub struct Portal {
    pub statement: Arc<Statement>,
    pub values: Vec<ScalarValue>,
    pub formats: Vec<Format>,
    pub state: State,
    /// What DECLARE said of it.
    pub declared: Option<Declared>,
    pub life: Life,
    /// One that has a name is on `pg_cursors`.
    pub listed: Option<Listed<CursorItem>>,
}

#[derive(Clone, Copy, Debug)]
pub struct Declared {
    pub binary: bool,
    pub scroll: Option<bool>,
}

#[derive(Debug)]
pub enum State {
    New,
    Reading(Box<Reading>),
    /// FETCH in portions: what is left of it, and how many rows it has had.
    Fetching(Fetch, u64),
    /// FETCH that is over, with its tag.
    Fetched(String),
    /// Without rows: it cannot be run again.
    Done,
    /// An error has ended it.
    Failed,
}

/// How long a portal lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// As long as the transaction and the savepoints that it was made under.
    Transaction { level: usize, hold: bool },
    /// To the end of the session: WITH HOLD after its transaction was committed.
    Session,
}

impl From<&Declare> for Declared {
    fn from(declare: &Declare) -> Self {
        Self { binary: declare.binary, scroll: declare.scroll }
    }
}

impl Portal {
    fn level(&self) -> Option<usize> {
        match self.life {
            Life::Transaction { level, .. } => Some(level),
            Life::Session => None,
        }
    }

    /// The formats of its rows, if they are settled before somebody fetches them.
    pub fn settled_formats(&self) -> Option<&[Format]> {
        self.declared.is_none().then_some(&self.formats)
    }
}

impl Portals {
    pub fn get(&self, name: &str) -> Option<&Portal> {
        self.0.get(name)
    }

    pub fn insert(&mut self, name: String, portal: Portal) {
        self.0.insert(name, portal);
    }

    pub fn remove(&mut self, name: &str) -> Option<Portal> {
        self.0.remove(name)
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// A name that is taken is refused, except the empty one.
    pub fn refuse_taken(&self, name: &str) -> Result<(), Report> {
        if !name.is_empty() && self.0.contains_key(name) {
            return Err(Report::error("42P03", format!("cursor \"{name}\" already exists")));
        }
        Ok(())
    }

    /// Takes a portal out while it runs, with its name to put it back.
    pub fn take(&mut self, name: &str) -> Option<(String, Portal)> {
        self.0.remove_entry(name)
    }

    /// The transaction is over; cursors WITH HOLD stay if it was committed.
    pub fn end(&mut self, committed: bool) {
        self.0.retain(|_, portal| match portal.life {
            Life::Session => true,
            Life::Transaction { hold, .. } => {
                portal.life = Life::Session;
                committed && hold && !matches!(portal.state, State::Failed)
            }
        });
    }

    /// An error has aborted the block. What could be returned to with a savepoint stays, all else
    /// is of no use any more and gives back what it holds.
    pub fn abort(&mut self, savepoints: usize) {
        for portal in self.0.values_mut() {
            let lost = portal.level().is_some_and(|level| level >= savepoints);
            if lost && matches!(portal.state, State::Reading(_)) {
                portal.state = State::Failed;
            }
        }
    }

    pub fn cross(&mut self, boundary: Boundary) {
        match boundary {
            Boundary::Committed => self.end(true),
            Boundary::RolledBack => self.end(false),
            Boundary::RolledBackTo(savepoints) => {
                let stays = |level| level < savepoints;
                self.0.retain(|_, portal| portal.level().is_none_or(stays));
            }
            Boundary::Released(savepoints) => {
                for portal in self.0.values_mut() {
                    if let Life::Transaction { level, .. } = &mut portal.life {
                        *level = savepoints.min(*level);
                    }
                }
            }
        }
    }

    /// The client's turn is over: outside of a block its transaction is, too.
    pub fn end_turn(&mut self, transaction: TransactionState, well: bool) {
        if transaction == TransactionState::Idle && !self.0.is_empty() {
            self.end(well);
        }
    }
}

pub fn no_portal(name: &str) -> Report {
    Report::error("34000", format!("portal \"{name}\" does not exist"))
}

pub fn no_cursor(name: &str) -> Report {
    Report::error("34000", format!("cursor \"{name}\" does not exist"))
}

pub fn cannot_run(name: &str) -> Report {
    Report::error("55000", format!("portal \"{name}\" cannot be run"))
}
