//! What can go wrong on the command line, and the exit code that tells so.

use std::error::Error as _;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use parquet::errors::ParquetError;

use crate::cluster::live;
use crate::query::submitted::Failure;
use crate::{config, server};

/// The process's exit code for wrong use, as clap has it too.
const WRONG_USE: u8 = 2;

/// Of `oribi query`, the last one of `oribi config` as well.
const TIME_UP: u8 = 3;
const CANCELLED: u8 = 4;
const UNREACHABLE: u8 = 5;

/// Of `oribi sql`, as psql has it.
const NO_CONNECTION: u8 = 2;

/// As shells tell of a process that SIGINT or SIGPIPE has ended.
const INTERRUPTED: u8 = 130;
const UNHEARD: u8 = 141;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error("neither XDG_DATA_HOME nor HOME is set: say where to keep the data, with --data-dir")]
    NoHome,
    /// A live setting that makes no sense.
    #[error("{0}")]
    Setting(String),
    /// A live setting that somebody asks for and that has no value of its own.
    #[error("{0}")]
    NotInForce(String),
    #[error("{0}")]
    Live(#[from] live::Error),
    #[error("environment variable {0} is not valid UTF-8")]
    Encoding(String),
    #[error("{0}")]
    Server(#[from] server::Error),
    #[error("cannot {what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: Box<ParquetError> },
    #[error("another process is generating data in {0}")]
    Busy(PathBuf),
    #[error("{title}: {}", sql_message(source))]
    Sql { title: String, source: tokio_postgres::Error },
    #[error("the daemon closed the connection")]
    Closed,
    #[error("cannot print: {0}")]
    Print(#[source] io::Error),
    /// Wrong use that only shows once files and variables are read.
    #[error("{0}")]
    Usage(String),
    /// What a daemon says of a statement of ours.
    #[error("{}", sql_message(.0))]
    Statement(#[source] tokio_postgres::Error),
    /// A record of a file that a daemon does not take: where it is, and what to do then.
    #[error("{place}: {}\n{advice}", placed_message(source))]
    Record { place: String, advice: String, source: tokio_postgres::Error },
    #[error("{0}")]
    Unreachable(String),
    #[error("the rows cannot be read or written: {0}")]
    Rows(String),
    /// A file that is not what it is taken for.
    #[error("{}: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    #[error("query {id} has failed: {}", failure_message(failure))]
    Failed { id: String, failure: Failure },
    #[error("query {0} was cancelled")]
    Cancelled(String),
    #[error("query {id} is {state}: \"oribi query wait {id}\" waits for its end")]
    NotDone { id: String, state: &'static str },
    #[error("query {id} is {state} by now, and cannot be cancelled")]
    TooLate { id: String, state: &'static str },
    #[error("the time is up; query {id} is {state}, and goes on")]
    TimeUp { id: String, state: String },
    #[error("interrupted")]
    Interrupted,
    /// `oribi sql` has no connection, or none any more.
    #[error("{0}")]
    Lost(String),
    /// What went wrong has been told, and all that is left is the exit code.
    #[error("exit code {0}")]
    Told(u8),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_)
            | Self::NoHome
            | Self::Encoding(_)
            | Self::Usage(_)
            | Self::Setting(_) => ExitCode::from(WRONG_USE),
            Self::TimeUp { .. } => ExitCode::from(TIME_UP),
            Self::Cancelled(_) => ExitCode::from(CANCELLED),
            Self::Unreachable(_) => ExitCode::from(UNREACHABLE),
            Self::Interrupted => ExitCode::from(INTERRUPTED),
            Self::Lost(_) => ExitCode::from(NO_CONNECTION),
            Self::Told(code) => ExitCode::from(*code),
            error if error.is_unheard() => ExitCode::from(UNHEARD),
            Self::Server(error) if error.is_configuration() => ExitCode::from(WRONG_USE),
            _ => ExitCode::FAILURE,
        }
    }

    /// Whoever was printed for has gone, as `head` does: nothing to complain of.
    pub fn is_unheard(&self) -> bool {
        matches!(self, Self::Print(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// There is nothing to say beside the exit code.
    pub fn is_told(&self) -> bool {
        matches!(self, Self::Told(_)) || self.is_unheard()
    }

    /// For `map_err`: what could not be done to which file.
    pub fn io(verb: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let what = format!("{verb} {}", path.display());
        |source| Self::Io { what, source }
    }
}

/// What the server said, without its place: it counts lines of what it was sent, and not of the file.
fn placed_message(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => {
            message(error.message(), error.code().code(), [error.detail(), error.hint(), None])
        }
        None => sql_message(error),
    }
}

/// The server's own words where it said any: the client crate's are just "db error".
fn sql_message(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => {
            let more = [error.detail(), error.hint(), error.where_()];
            message(error.message(), error.code().code(), more)
        }
        None => match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    }
}

fn failure_message(failure: &Failure) -> String {
    message(&failure.message, &failure.sqlstate, [None, failure.hint.as_deref(), None])
}

/// `more`: what PostgreSQL calls detail, hint and context.
fn message(text: &str, sqlstate: &str, more: [Option<&str>; 3]) -> String {
    let mut message = format!("{text} (SQLSTATE {sqlstate})");
    for (title, text) in ["DETAIL", "HINT", "CONTEXT"].into_iter().zip(more) {
        if let Some(text) = text {
            message += &format!("\n{title}:  {text}");
        }
    }
    message
}
