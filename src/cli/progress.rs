//! How far a long piece of work is: a bar on a terminal, a few plain lines anywhere else.

use std::io::{IsTerminal, Write, stderr};

use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use crate::query::submitted::{Record, State};

/// Progress in rows, shown on standard error.
pub struct Progress {
    bar: ProgressBar,
    plain: bool,
}

impl Progress {
    pub fn new(rows: u64) -> Self {
        let plain = !stderr().is_terminal();
        let bar = if plain { ProgressBar::hidden() } else { ProgressBar::new(rows) };
        let template = "{msg:10} [{bar:40}] {human_pos} of about {human_len} rows, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { bar, plain }
    }

    /// The next part of the work begins.
    pub fn begin(&self, name: &'static str) {
        self.bar.set_message(name);
    }

    pub fn advance(&self, rows: u64) {
        self.bar.inc(rows);
    }

    /// The part of the work that began last is done.
    pub fn done(&self, name: &str, rows: u64) {
        if self.plain {
            // Nobody has to listen.
            let _ = writeln!(stderr(), "{name:10} {:>13} rows", HumanCount(rows).to_string());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A query that is waited for, shown on standard error if that is a terminal: with a bar as soon as
/// it is known how far it is.
pub struct Waiting {
    bar: ProgressBar,
}

/// As long as that is not known.
const WITHOUT_BAR: &str = "{spinner} {prefix}: {msg} ({elapsed})";
const WITH_BAR: &str = "{spinner} {prefix}: {msg} [{bar:30}] {percent:>3}% ({elapsed})";

/// Steps of a whole bar.
const STEPS: f64 = 1000.0;

impl Waiting {
    pub fn new(id: &str) -> Self {
        if !stderr().is_terminal() {
            return Self { bar: ProgressBar::hidden() };
        }
        let bar = ProgressBar::new(STEPS as u64);
        bar.set_prefix(id.to_owned());
        bar.set_message("submitted");
        let waiting = Self { bar };
        waiting.set_template(WITHOUT_BAR);
        waiting.bar.enable_steady_tick(Duration::from_millis(100));
        waiting
    }

    fn set_template(&self, template: &str) {
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style.progress_chars("=> "));
        }
    }

    /// Whether anybody looks at it.
    pub fn is_seen(&self) -> bool {
        !self.bar.is_hidden()
    }

    pub fn show(&self, record: &Record) {
        let state = record.state.as_str();
        let attempt = match record.attempt {
            0 | 1 => String::new(),
            attempt => format!(", attempt {attempt}"),
        };
        self.bar.set_message(match &record.daemon {
            Some(daemon) if record.state == State::Running => {
                format!("{state} on {daemon}{attempt}")
            }
            _ => state.to_owned() + &attempt,
        });
        match record.progress {
            Some(progress) => {
                self.bar.set_position((progress * STEPS) as u64);
                self.set_template(WITH_BAR);
            }
            // Another attempt begins.
            None => self.set_template(WITHOUT_BAR),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
