//! `oribi config`: the live settings, from the ensemble alone. No daemon has to run.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use clap::{Args, Subcommand};

use super::error::{Error, Result};
use super::serve;
use super::{runtime, start_logging, text_table};
use crate::cluster::live::{self, Live, LiveSettings, Wish};
use crate::coordination;
use crate::coordination::paths::Path;
use crate::query::live::{check_name, check_reset, check_text};
use crate::server::{self, Tool};

#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    place: serve::Place,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Shows settings that are set for all daemons; with a name, that one's value.
    Get { name: Option<String> },
    /// Sets a setting for all daemons, which take it up at once.
    Set {
        name: String,
        value: String,
        /// Also where no daemon has ever started: for a cluster that is to come.
        #[arg(long)]
        new: bool,
    },
    /// Takes a setting back, or with --all every one.
    Reset {
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        name: Option<String>,
        #[arg(long)]
        all: bool,
    },
    /// Lists the last changes, oldest first.
    History,
    /// Makes all settings what they were at a version.
    Rollback { version: u64 },
    /// Lists which daemon runs which version.
    Applied,
}

pub fn run(options: Options) -> Result<()> {
    let config = options.place.settings()?;
    // Standard error is for what went wrong.
    let mut quiet = config.clone();
    quiet.log.filter = "error".to_owned();
    start_logging(&quiet)?;
    let new = matches!(options.action, Action::Set { new: true, .. });
    runtime()?.block_on(async {
        let opened = Tool::open(&config, new).await.map_err(|error| match error {
            server::Error::Coordination(error) => of_store(error),
            error => error.into(),
        })?;
        let tool = opened.ok_or_else(|| no_cluster(&options.action))?;
        let done = act(&tool, options.action).await;
        tool.close().await;
        done.map_err(|error| match error {
            Error::Live(live::Error::Coordination(error)) => of_store(error),
            error => error,
        })
    })
}

/// As `oribi query` has it: nobody to be reached is an exit code of its own.
fn of_store(error: coordination::Error) -> Error {
    use coordination::Error::NoNode;
    match error.root() {
        root if root.is_unavailable() || matches!(root, NoNode { .. }) => {
            Error::Unreachable(error.to_string())
        }
        _ => server::Error::Coordination(error).into(),
    }
}

/// Whether a daemon has ever started there, or there are settings for the first one to come.
async fn is_there(tool: &Tool) -> Result<bool> {
    let get =
        async |path: Path<'_>| tool.coordination.get(&path.to_string()).await.map_err(of_store);
    Ok(get(Path::Cluster).await?.is_some()
        || get(Path::Settings).await?.is_some_and(|node| !node.data.is_empty()))
}

fn no_cluster(action: &Action) -> Error {
    let new = match action {
        Action::Set { .. } => "; for a cluster that is to come, set it with --new",
        _ => "",
    };
    Error::Unreachable(format!(
        "there is no cluster: no daemon has ever started with this ensemble and chroot, or data \
         directory{new}"
    ))
}

async fn act(tool: &Tool, action: Action) -> Result<()> {
    if !matches!(action, Action::Set { new: true, .. }) && !is_there(tool).await? {
        return Err(no_cluster(&action));
    }
    let settings = LiveSettings::open(tool.coordination.clone(), check_text).await?;
    let change = async |wish: Wish| {
        let version = settings.change(&wish, "oribi config").await?;
        say(&format!("version {version}"))
    };
    let one = |name: String, value| Wish::Set(BTreeMap::from([(name.to_lowercase(), value)]));
    match action {
        Action::Get { name } => get(&settings.current(), name.as_deref()),
        Action::Set { name, value, new: _ } => {
            let value = check_text(&name, &value).map_err(Error::Setting)?;
            change(one(name, Some(value))).await
        }
        Action::Reset { name: Some(name), .. } => {
            let current = settings.current();
            check_reset(&current, &name).map_err(|error| Error::Setting(error.to_string()))?;
            change(one(name, None)).await
        }
        Action::Reset { name: None, .. } => change(Wish::ResetAll).await,
        Action::Rollback { version } => change(Wish::Rollback(version)).await,
        Action::History => history(&settings.current()),
        Action::Applied => applied(&settings).await,
    }
}

fn get(live: &Arc<Live>, name: Option<&str>) -> Result<()> {
    let Some(name) = name else {
        let mut rows: Vec<Vec<String>> = (live.settings.iter())
            .map(|(name, value)| vec![name.clone(), value.clone(), "in force".to_owned()])
            .collect();
        for (name, refused) in &live.refused {
            let state = format!("refused: {}", refused.reason);
            rows.push(vec![name.clone(), refused.value.clone(), state]);
        }
        return say(&table(&["name", "value", "state"], rows));
    };
    let lower = name.to_lowercase();
    if let Some(refused) = live.refused.get(&lower) {
        return Err(Error::NotInForce(format!("{lower}: {refused}")));
    }
    check_name(name).map_err(|error| Error::Setting(error.to_string()))?;
    match live.settings.get(&lower) {
        Some(value) => say(value),
        None => Err(Error::NotInForce(format!(
            "\"{lower}\" is not set: each daemon's configuration, or the default, holds"
        ))),
    }
}

fn history(live: &Arc<Live>) -> Result<()> {
    let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "(not set)".to_owned());
    let mut rows = Vec::new();
    for entry in &live.record.history {
        for (name, change) in &entry.changes {
            let at = entry.at.format("%Y-%m-%d %H:%M:%SZ").to_string();
            let (version, by) = (entry.version.to_string(), entry.by.clone());
            rows.push(vec![version, at, by, name.clone(), shown(&change.from), shown(&change.to)]);
        }
    }
    say(&table(&["version", "at", "by", "name", "before", "value"], rows))
}

async fn applied(settings: &LiveSettings) -> Result<()> {
    let newest = settings.current().version;
    let mut rows = Vec::new();
    for (daemon, applied) in settings.applied().await? {
        let state = if applied.version == newest { "current" } else { "behind" };
        let refused: Vec<String> =
            applied.refused.iter().map(|(name, refused)| format!("{name}: {refused}")).collect();
        let version = applied.version.to_string();
        rows.push(vec![daemon, version, state.to_owned(), refused.join("; ")]);
    }
    say(&table(&["daemon", "version", "state", "refused"], rows))
}

fn table(columns: &[&str], rows: Vec<Vec<String>>) -> String {
    let columns: Vec<String> = columns.iter().map(|&name| name.to_owned()).collect();
    let rows: Vec<Vec<Option<String>>> =
        rows.into_iter().map(|row| row.into_iter().map(Some).collect()).collect();
    text_table::render(&columns, &rows, rows.len())
}

fn say(text: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{}", text.trim_end()).map_err(Error::Print)
}
