//! How far the statement under way is, by a second connection: a bar on a terminal.

use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::side::Side;

/// Statements that are done sooner show nothing.
const DELAY: Duration = Duration::from_millis(800);

const PERIOD: Duration = Duration::from_millis(400);

/// Steps of a whole bar.
const STEPS: f64 = 1000.0;

const WITHOUT_BAR: &str = "{spinner} {msg} ({elapsed})";
const WITH_BAR: &str = "{spinner} {msg} [{bar:30}] {percent:>3}% ({elapsed})";

/// Shows how far a statement is for as long as this is there.
pub struct Watch {
    bar: ProgressBar,
    _task: JoinSet<()>,
}

impl Watch {
    /// `pid` is the session's whose statement it is.
    pub fn start(side: Arc<Mutex<Side>>, pid: i32) -> Self {
        let bar = ProgressBar::hidden();
        let mut task = JoinSet::new();
        let shown = bar.clone();
        task.spawn(async move {
            sleep(DELAY).await;
            shown.set_length(STEPS as u64);
            shown.set_draw_target(indicatif::ProgressDrawTarget::stderr());
            set_template(&shown, WITHOUT_BAR);
            shown.set_message("running");
            shown.enable_steady_tick(Duration::from_millis(100));
            loop {
                let sql = format!(
                    "SELECT state, progress FROM system.queries WHERE pid = {pid} \
                     AND state IN ('queued', 'running')"
                );
                let rows = side.lock().await.rows(&sql).await.unwrap_or_default();
                if let Some(row) = rows.into_iter().next() {
                    let mut values = row.into_iter();
                    shown.set_message(values.next().flatten().unwrap_or_default());
                    let progress =
                        values.next().flatten().and_then(|text| text.parse::<f64>().ok());
                    if let Some(progress) = progress {
                        set_template(&shown, WITH_BAR);
                        shown.set_position((progress * STEPS) as u64);
                    }
                }
                sleep(PERIOD).await;
            }
        });
        Self { bar, _task: task }
    }
}

fn set_template(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
