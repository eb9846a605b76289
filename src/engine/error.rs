//! What can go wrong while a statement is parsed, planned and executed.

use std::sync::Arc;

use datafusion::error::DataFusionError;

use super::patterns::BadPattern;
use super::words;
use crate::values::{decode, jsonb, template};
use crate::{catalog, coordination, storage};

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is not SQL.
    #[error("{0}")]
    Syntax(String),
    /// Two rows of a source are about one of the target.
    #[error("MERGE command cannot affect row a second time")]
    FoundTwice,
    #[error("the statement is too complex: more than {limit} {what}")]
    TooComplex { what: &'static str, limit: usize },
    #[error("the statement is nested too deeply: more than {0} levels")]
    TooDeep(usize),
    #[error("there is no parameter ${0}")]
    NoParameter(usize),
    /// The engine cannot be set up.
    #[error("{0}")]
    Start(String),
    #[error("{0}")]
    Settings(#[from] super::settings::Error),
    /// What is wrong with a text, and where.
    #[error("{reason}")]
    SyntaxAt {
        reason: String,
        /// Characters in front of it.
        at: usize,
    },
    #[error("{0}")]
    Notes(#[from] super::notes::Error),
    #[error("function {0} does not exist")]
    NoFunction(String),
    /// A call where such calls may not stand.
    #[error("{0}")]
    Misplaced(#[from] super::misplaced::Misplaced),
    #[error("{0} gives rows, and no value")]
    GivesRows(String),
    /// PostgreSQL has no cast for an assignment between these types.
    #[error("column \"{column}\" is of type {wanted} but expression is of type {found}")]
    NotAssignable { column: String, wanted: String, found: String },
    #[error("type \"{0}\" does not exist")]
    NoType(String),
    #[error("view \"{view}\" refers to itself, or views refer to each other too deeply")]
    ViewTooDeep { view: String },
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    #[error("{}", of_file(.0))]
    Storage(#[from] storage::Error),
    #[error("{0}")]
    Coordination(#[from] coordination::Error),
    #[error("the statement reads more than {limit} {what}")]
    OverBudget { limit: u64, what: &'static str, setting: &'static str },
    /// The statement cannot be planned as it is.
    #[error("{}", message(.0))]
    Plan(DataFusionError),
    /// It failed while it ran.
    #[error("{}", message(.0))]
    Execution(DataFusionError),
    /// Daemons that worked on it are gone, and a part of its result has left already.
    #[error("lost {lost} under the statement, after rows had been sent")]
    WorkerLost { lost: String },
    /// The engine's threads have ended under it.
    #[error("terminating connection due to administrator command")]
    Stopping,
    #[error("the statement met a defect in the engine and was stopped: {0}")]
    Panic(String),
}

impl From<tokio::task::JoinError> for Error {
    fn from(error: tokio::task::JoinError) -> Self {
        let Ok(panic) = error.try_into_panic() else { return Self::Stopping };
        Self::Panic(match panic.downcast::<String>() {
            Ok(text) => *text,
            Err(panic) => match panic.downcast::<&str>() {
                Ok(text) => (*text).to_owned(),
                Err(_) => "unknown".to_owned(),
            },
        })
    }
}

/// An error as users should see it: without the wrapping, the source code's location and the
/// engine's remarks on itself.
fn message(error: &DataFusionError) -> String {
    let root = error.find_root();
    let text = words::of(root).unwrap_or_else(|| own_message(root));
    words::shown(&text)
}

/// What is wrong with values of a file, in the words that are used of others.
fn of_file(error: &storage::Error) -> String {
    match error {
        storage::Error::Values { source, .. } => message(source),
        storage::Error::Shared(error) => of_file(error),
        error => error.to_string(),
    }
}

/// What has no counterpart in PostgreSQL's words.
fn own_message(root: &DataFusionError) -> String {
    match root {
        DataFusionError::External(inner) => {
            if let Some(error) = inner.downcast_ref::<storage::Error>() {
                return of_file(error);
            }
            match BadPattern::of(inner.as_ref()) {
                Some(bad) => bad.to_string(),
                None => inner.to_string(),
            }
        }
        DataFusionError::ArrowError(inner, _) => match inner.as_ref() {
            arrow::error::ArrowError::DivideByZero => "division by zero".to_owned(),
            arrow::error::ArrowError::ComputeError(text) => match BadPattern::of_text(text) {
                Some(bad) => bad.to_string(),
                None => strip(text),
            },
            other => strip(&other.to_string()),
        },
        DataFusionError::NotImplemented(text) if text.contains("OuterReferenceColumn") => {
            "a subquery that uses the outer query's columns in this place is not supported here"
                .to_owned()
        }
        DataFusionError::NotImplemented(text) if text.contains("ScalarSubquery") => {
            "a subquery that compares with the outer query by anything but = is not supported here"
                .to_owned()
        }
        root => strip(&root.message()),
    }
}

/// Removes a leading "Cast error: " and the like, which say which library it came from.
fn strip(text: &str) -> String {
    let known = [
        "Cast error: ",
        "Parser error: ",
        "Compute error: ",
        "Arithmetic overflow: ",
        "Invalid argument error: ",
        "External error: ",
        "Execution error: ",
        "Optimizer rule 'simplify_expressions' failed\ncaused by\n",
    ];
    let mut text = text.split("\n\nbacktrace:").next().unwrap_or(text);
    while let Some(rest) = known.iter().find_map(|prefix| text.strip_prefix(prefix)) {
        text = rest;
    }
    text.trim_end().to_owned()
}

impl Error {
    /// More of what is wrong with a value, or with the template that it is read by.
    pub fn detail(&self) -> Option<String> {
        let error = match self {
            Self::Plan(error) | Self::Execution(error) => error,
            Self::Storage(error) => error.of_values()?,
            _ => return None,
        };
        match error.find_root() {
            DataFusionError::External(inner) => {
                let inner = inner.as_ref();
                let detail = (inner.downcast_ref::<template::Error>()).and_then(|it| it.detail());
                let detail = detail
                    .or_else(|| inner.downcast_ref::<decode::Error>()?.detail())
                    .or_else(|| inner.downcast_ref::<jsonb::Error>()?.detail());
                detail.map(str::to_owned)
            }
            root => words::detail(root),
        }
    }

    /// What could have been meant, for people.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Plan(error) => words::hint(error),
            _ => None,
        }
    }

    /// What has failed of files, if that is what it is about.
    pub fn of_storage(&self) -> Option<&storage::Error> {
        match self {
            Self::Storage(error) => Some(error),
            Self::Plan(error) | Self::Execution(error) => {
                // Around what it is made of.
                let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
                while let Some(error) = next {
                    if let Some(error) = error.downcast_ref::<storage::Error>() {
                        return Some(error);
                    }
                    next = error.source();
                }
                None
            }
            _ => None,
        }
    }

    /// For what the engine would otherwise ignore, or do wrong.
    pub(super) fn not_supported(what: &str) -> Self {
        Self::Plan(DataFusionError::NotImplemented(format!("{what} is not supported")))
    }

    /// An error met while planning: our own rooms' errors come back out of the engine's wrapping.
    pub(super) fn planning(error: DataFusionError) -> Self {
        match Self::unwrap(error) {
            Ok(own) => own,
            Err(error) => Self::Plan(error),
        }
    }

    /// The same, met while running.
    pub(super) fn running(error: DataFusionError) -> Self {
        match Self::unwrap(error) {
            Ok(own) => own,
            Err(error) => Self::Execution(error),
        }
    }

    /// Of an error that others hold as well: a budget's end, or that of the store, which come to all
    /// partitions, and what has failed of files.
    fn copied(error: &DataFusionError) -> Option<Self> {
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(error) = next {
            if let Some(storage::Error::Shared(shared)) = error.downcast_ref() {
                return Some(Self::Storage(storage::Error::Shared(shared.clone())));
            }
            next = error.source();
        }
        let DataFusionError::External(inner) = error.find_root() else { return None };
        match inner.downcast_ref::<Self>()? {
            &Self::OverBudget { limit, what, setting } => {
                Some(Self::OverBudget { limit, what, setting })
            }
            Self::Coordination(error) => Some(Self::Coordination(error.clone())),
            _ => None,
        }
    }

    fn unwrap(error: DataFusionError) -> std::result::Result<Self, DataFusionError> {
        let inner = match error {
            DataFusionError::External(inner) => inner,
            DataFusionError::Context(context, inner) => {
                return Self::unwrap(*inner)
                    .map_err(|inner| DataFusionError::Context(context, Box::new(inner)));
            }
            DataFusionError::Diagnostic(diagnostic, inner) => {
                return Self::unwrap(*inner)
                    .map_err(|inner| DataFusionError::Diagnostic(diagnostic, Box::new(inner)));
            }
            DataFusionError::Shared(shared) => {
                return match Arc::try_unwrap(shared) {
                    Ok(inner) => Self::unwrap(inner),
                    Err(shared) => Self::copied(&shared).ok_or(DataFusionError::Shared(shared)),
                };
            }
            other => return Err(other),
        };
        let inner = match inner.downcast::<catalog::Error>() {
            Ok(error) => return Ok(Self::Catalog(*error)),
            Err(inner) => inner,
        };
        let inner = match inner.downcast::<Self>() {
            Ok(error) => return Ok(*error),
            Err(inner) => inner,
        };
        let inner = match inner.downcast::<super::settings::Error>() {
            Ok(error) => return Ok(Self::Settings(*error)),
            Err(inner) => inner,
        };
        let inner = match inner.downcast::<super::notes::Error>() {
            Ok(error) => return Ok(Self::Notes(*error)),
            Err(inner) => inner,
        };
        match inner.downcast::<storage::Error>() {
            Ok(error) => Ok(Self::Storage(error.unshared())),
            Err(inner) => match inner.downcast::<DataFusionError>() {
                Ok(nested) => Self::unwrap(*nested),
                Err(inner) => Err(DataFusionError::External(inner)),
            },
        }
    }
}
