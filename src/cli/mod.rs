//! The command line: `oribi serve` runs a daemon, `oribi demo` shows one at work, `oribi sql` is for SQL
//! at a terminal or from scripts, `oribi query` submits queries and fetches their rows, `oribi config`
//! reads and changes live settings, `oribi cluster` looks at daemons and drains them, `oribi doctor` says
//! what is wrong, `oribi backup` and `oribi restore` save the coordination store, `oribi import` and
//! `oribi bench` bring data in and measure, and `oribi help` has the reference.
//!
//! Exit codes: 0, all went well; 1, it failed, or was refused; 2, wrong use or a wrong setting, and
//! nothing was started; 3, the time of `--timeout` is up; 4, the query was cancelled; 5, neither a
//! daemon nor ZooKeeper can be reached; 6, one of a cluster's daemons cannot be reached; 130, interrupted (SIGINT). Those of `oribi sql` are psql's.

mod backup;
mod bench;
mod cluster;
mod config;
mod demo;
mod doctor;
mod error;
mod help;
mod import;
mod link;
mod pages;
mod progress;
mod query;
mod serve;
mod sql;
mod supervisor;
mod text_table;
mod tour;
mod tpch;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{Config, Error as ConfigError, LogFormat};
use crate::{telemetry, threads};
use error::{Error, Result};

/// The variable that names the settings file.
const CONFIG_VARIABLE: &str = "ORIBI_CONFIG";

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("ORIBI_BUILD"), ")");

/// A SQL query daemon over Parquet that speaks PostgreSQL and coordinates through ZooKeeper.
#[derive(Debug, Parser)]
#[command(name = "oribi", version = VERSION, max_term_width = 100, disable_help_subcommand = true)]
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
    /// They are in ZooKeeper, or in the embedded store of a daemon that does not run; --host asks a daemon that
    /// does, with a role's rights. --data-dir means the embedded store: where ORIBI_ZOOKEEPER or a file names
    /// an ensemble as well, --zookeeper '' says that it is not meant.
    ///
    /// Exit codes: 0 done, 1 failed or nothing to show, 2 wrong use, an unknown name or a bad value, 5 neither
    /// ZooKeeper nor a daemon can be reached.
    Config(config::Options),
    /// SQL at a terminal, or from scripts, with any daemon.
    ///
    /// Daemons are found through ZooKeeper (--zookeeper, ORIBI_ZOOKEEPER, or a settings file), or at
    /// --host; another takes over when one dies. Passwords come from PGPASSWORD, PGPASSFILE or ~/.pgpass.
    /// "oribi help client" has more.
    ///
    /// Exit codes are psql's: 0 done, 1 failed, 2 no connection or wrong use, 3 a script has failed with
    /// ON_ERROR_STOP, 130 interrupted.
    Sql(sql::Options),
    /// Looks at the daemons of a cluster, and drains them.
    ///
    /// Exit codes: 0 done, 1 failed or refused, 2 wrong use, 5 no daemon can be reached, 6 (of status) one of
    /// them cannot be reached.
    Cluster(cluster::Options),
    /// Checks this machine for a daemon: configuration, storage, ensemble, clocks, ports, limits.
    ///
    /// Give it what "oribi serve" is given: flags, file and environment.
    ///
    /// Exit codes: 0 nothing keeps a daemon from running, 1 something does.
    Doctor(doctor::Options),
    /// Saves what the coordination store keeps as one file ("oribi help backup").
    ///
    /// --data-dir means the embedded store: where ORIBI_ZOOKEEPER or a file names an ensemble as well,
    /// --zookeeper '' says that it is not meant.
    ///
    /// Exit codes: 0 done, 1 failed, 2 wrong use or the store is in use, 5 ZooKeeper cannot be reached.
    Backup(backup::Backup),
    /// Puts a file of "oribi backup" into a coordination store, which is named as for it.
    ///
    /// Exit codes: 0 done, 1 failed, 2 wrong use or the store is in use (daemons run with it, or it holds
    /// something), 5 ZooKeeper cannot be reached.
    Restore(backup::Restore),
    /// Brings a CSV, JSON or Parquet file into a managed table, and goes on where it was interrupted.
    ///
    /// What is in the table is noted in a table "oribi_imports" beside it ("oribi help import").
    ///
    /// Exit codes: 0 done, 1 failed, 2 wrong use, 5 no daemon can be reached, 130 interrupted: run it again
    /// to go on.
    Import(import::Options),
    /// Runs the 22 queries of TPC-H on this machine, and tells how long they take.
    Bench(bench::Options),
    /// The reference: SQL, settings, functions, system tables, znodes, error codes.
    Help(help::Options),
    /// Prints what a shell needs to complete this command line.
    Completions(pages::Completions),
    /// Prints the manual page, or writes those of all commands into a folder.
    Man(pages::Man),
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
        Command::Sql(options) => sql::run(options),
        Command::Cluster(options) => cluster::run(options),
        Command::Doctor(options) => doctor::run(options),
        Command::Backup(options) => backup::backup(options),
        Command::Restore(options) => backup::restore(options),
        Command::Import(options) => import::run(options),
        Command::Bench(options) => bench::run(options),
        Command::Help(options) => help::run(options),
        Command::Completions(options) => pages::completions(options),
        Command::Man(options) => pages::man(options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is_told() {
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
    let config = Config::load(file.as_deref(), environment, flags)?;
    telemetry::check(&config.log.filter).map_err(|error| bad_filter(&config, &error))?;
    Ok(config)
}

/// Starts logging, or refuses a filter that makes no sense as any other wrong setting.
fn start_logging(config: &Config) -> Result<()> {
    telemetry::start(&config.log.filter, config.log.format == LogFormat::Json)
        .map_err(|error| bad_filter(config, &error))
}

fn bad_filter(config: &Config, error: &impl ToString) -> Error {
    const KEY: &str = "log.filter";
    let set = config.rows().into_iter().find(|row| row.key == KEY);
    let origin = set.map(|row| row.origin).unwrap_or_default();
    let reason = error.to_string();
    Error::Config(ConfigError::BadValue { origin, key: KEY.to_owned(), reason })
}

/// The runtime for network and coordination; statements execute on the engine's own.
fn runtime() -> Result<tokio::runtime::Runtime> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime
        .thread_name("oribi-io")
        .on_thread_start(crate::slices::shorten)
        .on_thread_park(crate::bursts::park)
        .on_thread_unpark(crate::bursts::unpark);
    // As the runtime itself has it.
    let asked = std::env::var("TOKIO_WORKER_THREADS").ok().and_then(|asked| asked.parse().ok());
    let cores = asked.or_else(|| std::thread::available_parallelism().ok());
    let count = cores.map_or(1, std::num::NonZero::get);
    threads::build(&mut runtime, count, crate::engine::STACK_SIZE).map_err(|source| Error::Io {
        what: format!("start the threads, of which {}", threads::NEED),
        source,
    })
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
