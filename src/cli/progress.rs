//! How far a long piece of work is: a bar on a terminal, a few plain lines anywhere else.

use std::io::{IsTerminal, Write, stderr};

use indicatif::{HumanCount, ProgressBar, ProgressStyle};

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
