//! The command line: `oribi serve` runs a daemon, `oribi demo` shows one at work, `oribi query` submits
//! queries and fetches their rows, `oribi config` reads and changes live settings.
//!
//! Exit codes: 0, all went well; 1, it failed, or was refused; 2, wrong use or a wrong setting, and
//! nothing was started; 3, the time of `--timeout` is up; 4, the query was cancelled; 5, neither a
//! daemon nor ZooKeeper can be reached (`query` and `config`); 130, interrupted (SIGINT).

mod config;
mod demo;
mod error;
mod progress;
mod query;
mod serve;
mod supervisor;
mod text_table;
mod tour;
mod tpch;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{Config, Error as ConfigError, LogFormat};
use crate::telemetry;
use error::{Error, Result};

/// The variable that names the settings file.
const CONFIG_VARIABLE: &str = "ORIBI_CONFIG";

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("ORIBI_BUILD"), ")");

/// A SQL query daemon over Parquet that speaks PostgreSQL and coordinates through ZooKeeper.
#[derive(Debug, Parser)]
#[command(name = "oribi", version = VERSION, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a daemon.
    ///
    /// Every setting can also be given as an environment variable (ORIBI_ + section + key, such as
    /// ORIBI_DATA_DIR or ORIBI_QUERY_STATEMENT_TIMEOUT) and in a file; flags win over the
    /// environment, the environment over the file, the file over the defaults.
    Serve(serve::Options),
    /// Makes TPC-H data, queries it over the wire, and goes on serving it.
    Demo(demo::Options),
    /// Submits queries, waits for them and fetches their rows, from any daemon.
    ///
    /// Daemons are found through ZooKeeper (--zookeeper, ORIBI_ZOOKEEPER, or a settings file); another
    /// takes over when one dies. Passwords come from PGPASSWORD, PGPASSFILE or ~/.pgpass.
    ///
    /// Exit codes: 0 succeeded, 1 failed or refused, 2 wrong use, 3 time is up, 4 cancelled, 5 no
    /// daemon can be reached, 130 interrupted.
    Query(query::Options),
    /// Reads and changes the settings that all daemons share and take up while they run.
    ///
    /// Exit codes: 0 done, 1 failed or nothing to show, 2 wrong use, 5 ZooKeeper cannot be reached.
    Config(config::Options),
}

/// Does what the command line says.
pub fn run() -> ExitCode {
    // Two libraries for cryptography are compiled in, so that who leaves the choice open would
    // panic. An error says that the choice was made before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let done = match Cli::parse().command {
        Command::Serve(options) => serve::run(options),
        Command::Demo(options) => demo::run(options),
        Command::Query(options) => query::run(options),
        Command::Config(options) => config::run(options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is_unheard() {
                // The exit code tells it, too, when nobody reads this.
                let _ = writeln!(std::io::stderr(), "oribi: {error}");
            }
            error.exit_code()
        }
    }
}

/// The process's environment, for [`Config::load`](crate::config::Config::load). What is not
/// Unicode is left out, unless it is meant for Oribi: then it is refused.
fn environment() -> Result<Vec<(String, String)>> {
    let mut variables = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Ok(name) = name.into_string() else { continue };
        match value.into_string() {
            Ok(value) => variables.push((name, value)),
            Err(_) if name.starts_with(crate::config::ENV_PREFIX) => {
                return Err(Error::Encoding(name));
            }
            Err(_) => {}
        }
    }
    Ok(variables)
}

/// The settings of a file (or the one that ORIBI_CONFIG names), the environment and flags.
fn settings(
    file: Option<PathBuf>,
    flags: impl IntoIterator<Item = (&'static str, Option<String>)>,
) -> Result<Config> {
    let environment = environment()?;
    let named = environment.iter().find(|(name, _)| name == CONFIG_VARIABLE);
    let named = named.map(|(_, path)| PathBuf::from(path));
    let file = file.or(named).filter(|path| !path.as_os_str().is_empty());
    let flags = flags.into_iter().filter_map(|(key, value)| Some((key, value?)));
    Ok(Config::load(file.as_deref(), environment, flags)?)
}

/// Starts logging, or refuses a filter that makes no sense as any other wrong setting.
fn start_logging(config: &Config) -> Result<()> {
    const KEY: &str = "log.filter";
    telemetry::start(&config.log.filter, config.log.format == LogFormat::Json).map_err(|error| {
        let set = config.rows().into_iter().find(|row| row.key == KEY);
        let origin = set.map(|row| row.origin).unwrap_or_default();
        let reason = error.to_string();
        Error::Config(ConfigError::BadValue { origin, key: KEY.to_owned(), reason })
    })
}

/// The runtime for network and coordination; statements execute on the engine's own.
fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .thread_name("oribi-io")
        .thread_stack_size(crate::engine::STACK_SIZE)
        .enable_all()
        .build()
        .map_err(|source| Error::Io { what: "start the threads".into(), source })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
