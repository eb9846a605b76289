//! Why a statement did not come to its end.

use std::time::Duration;

use crate::values::decode;
use crate::{catalog, engine};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What stopped a statement that was running well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The user asked for it: a cancel request, `pg_cancel_backend`.
    Cancelled,
    TimedOut,
    /// The daemon stops.
    ShuttingDown,
    /// The client is gone or was disconnected.
    Terminated,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}", stop_message(.0))]
    Stopped(Stop),
    #[error("{0} is not supported")]
    NotSupported(String),
    /// The same, of what something else does here.
    #[error("{what} is not supported")]
    Instead { what: String, instead: &'static str },
    #[error(
        "{0} cannot run inside a transaction block: it commits by itself, so a rollback could not \
         undo it"
    )]
    NotInTransaction(&'static str),
    #[error("current transaction is aborted, commands ignored until end of transaction block")]
    InFailedTransaction,
    #[error("cannot execute {0} in a read-only transaction")]
    ReadOnly(&'static str),
    #[error("{0}")]
    Invalid(String),
    /// What is wrong with a client's text, and where.
    #[error("{source}")]
    At {
        /// Characters in front of it.
        at: usize,
        source: Box<Error>,
    },
    /// The command manages transactions itself.
    #[error("{0} cannot run inside a transaction block")]
    InsideTransaction(&'static str),
    #[error("{0}")]
    Refused(&'static str),
    #[error("{0}")]
    CursorDefinition(&'static str),
    /// What only the configuration sets, with its key there, and a session's setting in its place.
    #[error("parameter \"{name}\" cannot be changed without restarting the server")]
    NeedsRestart { name: String, key: String, instead: Option<&'static str> },
    #[error(transparent)]
    Live(#[from] crate::cluster::live::Error),
    #[error("constraint \"{0}\" does not exist")]
    NoConstraint(String),
    #[error("SET TRANSACTION ISOLATION LEVEL must be called before any query")]
    TooLate,
    #[error("wrong number of parameters for prepared statement \"{name}\"")]
    ArgumentCount { name: String, expected: usize, given: usize },
    #[error("parameter ${number} of type {found} cannot be coerced to the expected type {wanted}")]
    ArgumentType { number: usize, found: String, wanted: String },
    /// What a locking clause names.
    #[error("relation \"{0}\" in FOR UPDATE clause not found in FROM clause")]
    NotInFrom(String),
    #[error("{clause} {what}")]
    NotLockable { clause: &'static str, what: String },
    #[error("savepoint \"{0}\" does not exist")]
    NoSavepoint(String),
    #[error("{0} can only be used in transaction blocks")]
    OutsideTransaction(&'static str),
    #[error("too many statements of role \"{0}\" at once")]
    TooManyStatements(String),
    #[error("the queue of pool \"{pool}\" is full ({waiting} waiting here)")]
    QueueFull { pool: String, waiting: usize },
    #[error("the statement waited longer than {} in the queue of pool \"{pool}\"", show(.limit))]
    QueueTimedOut { pool: String, limit: Duration },
    #[error("{kind} \"{name}\" specified more than once")]
    Twice { kind: catalog::ObjectKind, name: String },
    #[error("cannot drop the currently open database")]
    DatabaseInUse,
    /// SET ROLE to a role that is not there.
    #[error("role \"{0}\" does not exist")]
    NoRoleToTake(String),
    #[error("current user cannot be dropped")]
    RoleInSession,
    #[error("the statement takes {expected} parameters but {given} were given")]
    ParameterCount { expected: usize, given: usize },
    #[error("cached plan must not change result type")]
    ResultChanged,
    #[error(transparent)]
    Copy(#[from] super::copy::Error),
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    #[error(transparent)]
    Submitted(#[from] super::submitted::Error),
    #[error(transparent)]
    Schedule(#[from] super::schedules::Error),
    #[error(transparent)]
    Engine(#[from] engine::Error),
    #[error(transparent)]
    Value(#[from] decode::Error),
}

impl Error {
    /// What to do about it, where the message does not say it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NeedsRestart { instead: Some(instead), .. } => {
                Some(format!("Set \"{instead}\", which is the default of all sessions."))
            }
            Self::NeedsRestart { key, .. } => Some(format!(
                "Set {key} in the configuration of each daemon, and restart them one by one."
            )),
            Self::Instead { instead, .. } => Some((*instead).to_owned()),
            _ => None,
        }
    }

    /// Whether others have changed what a statement has written.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Engine(engine::Error::Storage(error)) if error.is_conflict())
    }
}

fn show(limit: &Duration) -> humantime::FormattedDuration {
    humantime::format_duration(*limit)
}

fn stop_message(stop: &Stop) -> &'static str {
    match stop {
        Stop::Cancelled => "canceling statement due to user request",
        Stop::TimedOut => "canceling statement due to statement timeout",
        Stop::ShuttingDown => "terminating connection due to administrator command",
        Stop::Terminated => "terminating connection due to administrator command",
    }
}
