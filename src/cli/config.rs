//! `oribi config`: the live settings, from the ensemble alone: no daemon has to run. Or from a daemon that is
//! asked ([`daemon`]).

mod daemon;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;

use super::error::{Error, Result};
use super::link::Link;
use super::link::{login, places};
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
    /// Daemons to ask, one or several, in place of the store: as a role that may read settings, or change
    /// them.
    #[arg(
        long,
        global = true,
        visible_alias = "postgres",
        value_name = "HOST:PORT",
        value_delimiter = ',',
        conflicts_with_all = ["zookeeper", "data_dir", "config"]
    )]
    host: Vec<places::Place>,
    #[command(flatten)]
    login: login::Options,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Shows settings that are set for all daemons; with a name, that one's value.
    Get {
        name: Option<String>,
        #[command(flatten)]
        form: Form,
    },
    /// Sets a setting for all daemons, which take it up at once.
    Set {
        name: String,
        // Some settings have -1 for what is switched off.
        #[arg(allow_negative_numbers = true)]
        value: String,
        /// Also where no daemon has ever started: for a cluster that is to come.
        #[arg(long)]
        new: bool,
        #[command(flatten)]
        form: Form,
    },
    /// Takes a setting back, or with --all every one.
    Reset {
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        name: Option<String>,
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        form: Form,
    },
    /// Lists the last changes, oldest first.
    History(Form),
    /// Makes all settings what they were at a version.
    Rollback {
        version: u64,
        #[command(flatten)]
        form: Form,
    },
    /// Lists which daemon runs which version.
    Applied(Form),
}

#[derive(Clone, Copy, Debug, Args)]
struct Form {
    /// JSON: an object, or an array with one for each row.
    #[arg(long)]
    json: bool,
}

pub fn run(options: Options) -> Result<()> {
    if !options.host.is_empty() {
        let places = places::Options::of(options.host);
        return daemon::run(Link { places, login: options.login }, options.action);
    }
    let config = options.place.settings_of_store()?;
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
    use coordination::Error::{NoNode, Unwritable};
    match error.root() {
        Unwritable { .. } => server::Error::Coordination(error).into(),
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
    let change = async |wish: Wish, form: Form| {
        let version = settings.change(&wish, "oribi config").await?;
        match form.json {
            true => say(&json!({ "version": version }).to_string()),
            false => say(&format!("version {version}")),
        }
    };
    let one = |name: String, value| Wish::Set(BTreeMap::from([(name.to_lowercase(), value)]));
    match action {
        Action::Get { name, form } => get(&settings.current(), name.as_deref(), form),
        Action::Set { name, value, new: _, form } => {
            let value = check_text(&name, &value).map_err(Error::Setting)?;
            change(one(name, Some(value)), form).await
        }
        Action::Reset { name: Some(name), form, .. } => {
            let current = settings.current();
            check_reset(&current, &name).map_err(|error| Error::Setting(error.to_string()))?;
            change(one(name, None), form).await
        }
        Action::Reset { name: None, form, .. } => change(Wish::ResetAll, form).await,
        Action::Rollback { version, form } => change(Wish::Rollback(version), form).await,
        Action::History(form) => history(&settings.current(), form),
        Action::Applied(form) => applied(&settings, form).await,
    }
}

fn get(live: &Arc<Live>, name: Option<&str>, form: Form) -> Result<()> {
    let Some(name) = name else {
        let row = |name: &String, value: &String, refused: Option<String>| Setting {
            name: name.clone(),
            value: value.clone(),
            refused,
        };
        let set = live.settings.iter().map(|(name, value)| row(name, value, None));
        let refused = live
            .refused
            .iter()
            .map(|(name, refused)| row(name, &refused.value, Some(refused.reason.to_string())));
        return show(&set.chain(refused).collect::<Vec<_>>(), form);
    };
    let lower = name.to_lowercase();
    if let Some(refused) = live.refused.get(&lower) {
        return Err(Error::NotInForce(format!("{lower}: {refused}")));
    }
    check_name(name).map_err(|error| Error::Setting(error.to_string()))?;
    match live.settings.get(&lower) {
        Some(value) if form.json => {
            say(&to_json(&Setting { name: lower, value: value.clone(), refused: None })?)
        }
        Some(value) => say(value),
        None => Err(Error::NotInForce(format!(
            "\"{lower}\" is not set: each daemon's configuration, or the default, holds"
        ))),
    }
}

fn history(live: &Arc<Live>, form: Form) -> Result<()> {
    let changes = live.record.history.iter().flat_map(|entry| {
        entry.changes.iter().map(|(name, change)| Change {
            version: entry.version,
            at: entry.at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
            by: entry.by.clone(),
            name: name.clone(),
            before: change.from.clone(),
            value: change.to.clone(),
        })
    });
    show(&changes.collect::<Vec<_>>(), form)
}

async fn applied(settings: &LiveSettings, form: Form) -> Result<()> {
    let newest = settings.current().version;
    let daemons = settings.applied().await?.into_iter().map(|(daemon, applied)| Daemon {
        daemon,
        version: applied.version,
        current: applied.version == newest,
        refused: (applied.refused.iter())
            .map(|(name, refused)| (name.clone(), refused.to_string()))
            .collect(),
    });
    show(&daemons.collect::<Vec<_>>(), form)
}

/// A row of a table, or an object of JSON.
trait Row: Serialize {
    const COLUMNS: &[&str];

    fn cells(&self) -> Vec<String>;
}

#[derive(Debug, Serialize)]
struct Setting {
    name: String,
    value: String,
    /// Why it is not in force.
    refused: Option<String>,
}

impl Row for Setting {
    const COLUMNS: &[&str] = &["name", "value", "state"];

    fn cells(&self) -> Vec<String> {
        let state = match &self.refused {
            Some(reason) => format!("refused: {reason}"),
            None => "in force".to_owned(),
        };
        vec![self.name.clone(), self.value.clone(), state]
    }
}

#[derive(Debug, Serialize)]
struct Change {
    version: u64,
    /// UTC.
    at: String,
    by: String,
    name: String,
    before: Option<String>,
    value: Option<String>,
}

impl Row for Change {
    const COLUMNS: &[&str] = &["version", "at", "by", "name", "before", "value"];

    fn cells(&self) -> Vec<String> {
        let shown = |value: &Option<String>| match value {
            Some(value) => value.clone(),
            None => "(not set)".to_owned(),
        };
        let at = self.at.replace('T', " ");
        let (before, value) = (shown(&self.before), shown(&self.value));
        vec![self.version.to_string(), at, self.by.clone(), self.name.clone(), before, value]
    }
}

#[derive(Debug, Serialize)]
struct Daemon {
    daemon: String,
    version: u64,
    /// Whether that is the newest version.
    current: bool,
    /// Why settings are not in force there, by name.
    refused: BTreeMap<String, String>,
}

impl Row for Daemon {
    const COLUMNS: &[&str] = &["daemon", "version", "state", "refused"];

    fn cells(&self) -> Vec<String> {
        let state = if self.current { "current" } else { "behind" };
        let refused: Vec<String> =
            self.refused.iter().map(|(name, why)| format!("{name}: {why}")).collect();
        let version = self.version.to_string();
        vec![self.daemon.clone(), version, state.to_owned(), refused.join("; ")]
    }
}

fn show<R: Row>(rows: &[R], form: Form) -> Result<()> {
    if form.json {
        return say(&to_json(&rows)?);
    }
    let columns: Vec<String> = R::COLUMNS.iter().map(|&name| name.to_owned()).collect();
    let cells: Vec<Vec<Option<String>>> =
        rows.iter().map(|row| row.cells().into_iter().map(Some).collect()).collect();
    say(&text_table::render(&columns, &cells, cells.len()))
}

fn to_json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::Rows(error.to_string()))
}

fn say(text: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{}", text.trim_end()).map_err(Error::Print)
}
