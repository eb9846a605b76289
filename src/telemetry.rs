//! Logs: to standard error, for people or for machines.

use std::fmt::Display;
use std::io::IsTerminal;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tracing::{Event, Level, Span, Subscriber, error_span};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use uuid::Uuid;

/// Changes the filter of the process's log, of which there is one.
static FILTER: OnceLock<Box<dyn Fn(EnvFilter) + Send + Sync>> = OnceLock::new();

/// Whether constants of statements may be logged.
static LITERALS: AtomicBool = AtomicBool::new(true);

/// Lines of the log that somebody should look at.
static LOGGED: [(Level, AtomicU64); 2] =
    [(Level::ERROR, AtomicU64::new(0)), (Level::WARN, AtomicU64::new(0))];

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
        if builder.finish().with(Counts).try_init().is_ok() {
            let _ = FILTER.set(Box::new(move |filter| drop(handle.reload(filter))));
        }
    } else {
        let builder = builder.with_filter_reloading();
        let handle = builder.reload_handle();
        if builder.finish().with(Counts).try_init().is_ok() {
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

/// Whether constants of statements, which may be anybody's data, may be logged from now on.
pub fn set_literals(shown: bool) {
    LITERALS.store(shown, Ordering::Relaxed);
}

pub fn shows_literals() -> bool {
    LITERALS.load(Ordering::Relaxed)
}

/// What an error of a statement's says, as it may be logged: if there are to be no constants, without
/// whatever stands in quotes, and without digits.
pub fn discreet(error: &impl Display) -> String {
    let text = error.to_string();
    match shows_literals() {
        true => text,
        false => without_values(&text),
    }
}

fn without_values(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        match character {
            '\'' | '"' | '`' => {
                shown.extend([character, '?', character]);
                // What is not closed is left out to the end.
                rest.by_ref().find(|next| *next == character);
            }
            digit if digit.is_ascii_digit() => {
                if !shown.ends_with('?') {
                    shown.push('?');
                }
            }
            other => shown.push(other),
        }
    }
    shown
}

/// What is logged within it names the statement, by the id that all daemons know it by. At the level of
/// errors, so that every line has it that is logged at all.
pub fn statement(id: Uuid) -> Span {
    error_span!(target: "oribi::statement", "statement", %id)
}

/// Errors and warnings that were logged since the process began.
pub fn logged() -> impl Iterator<Item = (&'static str, u64)> {
    LOGGED.iter().map(|(level, count)| (level.as_str(), count.load(Ordering::Relaxed)))
}

/// Counts what is logged.
struct Counts;

impl<S: Subscriber> Layer<S> for Counts {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = event.metadata().level();
        if let Some((_, count)) = LOGGED.iter().find(|(counted, _)| counted == level) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Says what is wrong with a filter.
pub fn check(filter: &str) -> Result<(), ParseError> {
    parse(filter).map(drop)
}

fn parse(filter: &str) -> Result<EnvFilter, ParseError> {
    // The parser repeats each statement, passwords and all.
    let filter = EnvFilter::builder().parse(filter)?.add_directive("sqlparser=off".parse()?);
    match shows_literals() {
        true => Ok(filter),
        // The engine tells of plans, with all that is in them.
        false => Ok(filter.add_directive("datafusion=warn".parse()?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_left_out() {
        for (text, shown) in [
            ("division by zero", "division by zero"),
            (
                "invalid input syntax for type integer: \"42 apples\"",
                "invalid input syntax for type integer: \"?\"",
            ),
            ("Cast error: Can't parse '2024-01-01'", "Cast error: Can'?'?-?-?'?'"),
            ("value 12345678 is out of range", "value ? is out of range"),
            ("it's", "it'?'"),
        ] {
            assert_eq!(without_values(text), shown);
        }
    }
}
