//! Logs: to standard error, for people or for machines.

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// Changes the filter of the process's log, of which there is one.
static FILTER: OnceLock<Box<dyn Fn(EnvFilter) + Send + Sync>> = OnceLock::new();

/// Starts logging, once a process, in lines for people or in JSON. Refuses a filter it does not
/// understand.
pub fn start(filter: &str, json: bool) -> Result<(), ParseError> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(parse(filter)?)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // A second start (tests in one process) keeps the first one's settings.
    if json {
        let builder = builder.json().with_filter_reloading();
        let handle = builder.reload_handle();
        if builder.try_init().is_ok() {
            let _ = FILTER.set(Box::new(move |filter| drop(handle.reload(filter))));
        }
    } else {
        let builder = builder.with_filter_reloading();
        let handle = builder.reload_handle();
        if builder.try_init().is_ok() {
            let _ = FILTER.set(Box::new(move |filter| drop(handle.reload(filter))));
        }
    }
    Ok(())
}

/// Has another filter from now on. Refuses one it does not understand.
pub fn set_filter(filter: &str) -> Result<(), ParseError> {
    let filter = parse(filter)?;
    if let Some(set) = FILTER.get() {
        set(filter);
    }
    Ok(())
}

/// Says what is wrong with a filter.
pub fn check(filter: &str) -> Result<(), ParseError> {
    parse(filter).map(drop)
}

fn parse(filter: &str) -> Result<EnvFilter, ParseError> {
    // The parser repeats each statement, passwords and all.
    Ok(EnvFilter::builder().parse(filter)?.add_directive("sqlparser=off".parse()?))
}
