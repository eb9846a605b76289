//! Logs: to standard error, for people or for machines.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// Starts logging, once a process, in lines for people or in JSON. Refuses a filter it does not
/// understand.
pub fn start(filter: &str, json: bool) -> Result<(), ParseError> {
    // The parser repeats each statement, passwords and all.
    let filter = EnvFilter::builder().parse(filter)?.add_directive("sqlparser=off".parse()?);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // A second start (tests in one process) keeps the first one's settings.
    let _ = if json { builder.json().try_init() } else { builder.try_init() };
    Ok(())
}
