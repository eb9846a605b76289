//! What can go wrong on the command line, and the exit code that tells so.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use parquet::errors::ParquetError;

use crate::cluster::live;
use crate::{config, server};

/// The process's exit code for wrong use, as clap has it too.
const WRONG_USE: u8 = 2;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error("neither XDG_DATA_HOME nor HOME is set: say where to keep the data, with --data-dir")]
    NoHome,
    /// A live setting that makes no sense.
    #[error("{0}")]
    Setting(String),
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
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_) | Self::NoHome | Self::Encoding(_) | Self::Setting(_) => {
                ExitCode::from(WRONG_USE)
            }
            Self::Server(error) if error.is_configuration() => ExitCode::from(WRONG_USE),
            _ => ExitCode::FAILURE,
        }
    }

    /// For `map_err`: what could not be done to which file.
    pub fn io(verb: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let what = format!("{verb} {}", path.display());
        |source| Self::Io { what, source }
    }
}

/// The server's own words where it said any: the client crate's are just "db error".
fn sql_message(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => format!("{} (SQLSTATE {})", error.message(), error.code().code()),
        None => error.to_string(),
    }
}
