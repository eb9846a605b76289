//! A session's settings: what SET, RESET and SHOW see, with PostgreSQL's names and rules.
//!
//! Values are text, normalised when they are set. Names are those of PostgreSQL 15's parameters,
//! `oribi.*` for our own, `datafusion.*` for the engine's, and any other dotted name as a
//! placeholder that only its owner understands, as PostgreSQL has it.
//!
//! - [`table`]: the settings that exist for every session.
//! - [`values`]: what values they take, and in which form they are kept.
//! - [`differing`]: those that are not as they are by default.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::catalog::Consistency;

mod differing;
mod table;
mod values;

pub use table::{Context, Kind, SERVER_VERSION, SETTINGS, Setting};
pub use values::{check_for_all, check_name_for_all, in_unit};

use values::{
    check_placeholder, is_engine_option, is_explain_option, normalise, parse_millis, refuse_fixed,
};

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("unrecognized configuration parameter \"{0}\"")]
    Unknown(String),
    /// A name that begins as our own settings do, and is none of them.
    #[error("invalid configuration parameter name \"{0}\"")]
    Reserved(String),
    #[error("SET requires parameter name")]
    NoName,
    #[error("parameter \"{0}\" cannot be changed")]
    ReadOnly(&'static str),
    #[error("permission denied to set parameter \"{0}\"")]
    Denied(&'static str),
    #[error("parameter \"{0}\" cannot be changed without restarting the server")]
    NeedsRestart(&'static str),
    /// It says something of a session or of a transaction.
    #[error("parameter \"{0}\" cannot be set for all sessions")]
    OfSession(&'static str),
    #[error("invalid value for parameter \"{name}\": \"{value}\"{hint}")]
    Invalid { name: String, value: String, hint: String },
}

impl Error {
    /// PostgreSQL's words for why.
    pub fn detail(&self) -> Option<String> {
        let Self::Reserved(_) = self else { return None };
        Some(format!("\"{}\" is a reserved prefix.", RESERVED.trim_end_matches('.')))
    }
}

/// What the names of our own settings begin with.
const RESERVED: &str = "oribi.";

/// Finds a setting by name, whatever its case.
pub fn find(name: &str) -> Option<&'static Setting> {
    fn bytes(name: &str) -> impl Iterator<Item = u8> {
        name.bytes().map(|byte| byte.to_ascii_lowercase())
    }
    let place = SETTINGS.binary_search_by(|setting| bytes(setting.name).cmp(bytes(name)));
    place.ok().map(|place| &SETTINGS[place])
}

/// A name as values are kept by.
fn lower(name: &str) -> Cow<'_, str> {
    match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(name.to_ascii_lowercase()),
        false => Cow::Borrowed(name),
    }
}

/// One session's values. Cheap to clone behind an `Arc`; a transaction keeps an earlier one to
/// return to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// What RESET returns to: the daemon's and the client's start-up values.
    defaults: BTreeMap<String, (String, Source)>,
    /// What ALTER SYSTEM has set, by lower-case name: all sessions of a daemon share it, and it may
    /// change while they last.
    system: Arc<BTreeMap<String, String>>,
    /// What SET has changed, by lower-case name.
    changed: BTreeMap<String, String>,
    /// All its transactions only read, whatever is SET.
    only_reads: bool,
}

/// Whether a statement runs on several daemons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribute {
    Off,
    /// If it reads enough.
    Auto,
    /// Whenever it can.
    Always,
}

/// Settings that tell of a session, and not of what its statements mean.
const IRRELEVANT: [&str; 4] = [
    "application_name",
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
];

/// What a session that is held to reading cannot change.
const READ_ONLY: [&str; 2] = ["transaction_read_only", "default_transaction_read_only"];

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    Default,
    /// The daemon's configuration.
    Configuration,
    /// ALTER SYSTEM.
    System,
    /// ALTER DATABASE ... SET.
    Database,
    /// ALTER ROLE ... SET.
    Role,
    /// The client's start-up message.
    Client,
    /// SET or `set_config`.
    Session,
    /// What the session tells of itself.
    Override,
}

impl Source {
    /// Its name in `pg_settings`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            // As in PostgreSQL, where ALTER SYSTEM writes a file as well.
            Self::Configuration | Self::System => "configuration file",
            Self::Database => "database",
            Self::Role => "user",
            Self::Client => "client",
            Self::Session => "session",
            Self::Override => "override",
        }
    }
}

impl Settings {
    /// The present value; `None` for a name nobody has set or defined.
    pub fn get(&self, name: &str) -> Option<&str> {
        let lower = lower(name);
        if self.only_reads && READ_ONLY.contains(&lower.as_ref()) {
            return Some("on");
        }
        if let Some(value) = self.changed.get(lower.as_ref()) {
            return Some(value);
        }
        // A transaction is what transactions are by default, unless it says otherwise.
        if let Some(default) = transaction_default(&lower) {
            return self.get(default);
        }
        self.reset_value(&lower)
    }

    /// What RESET would make of it.
    pub fn reset_value(&self, name: &str) -> Option<&str> {
        let given = self.given(&lower(name));
        given.map(|(value, _)| value).or_else(|| find(name).map(|s| s.default))
    }

    /// The default that counts, by lower-case name, and where it comes from.
    fn given(&self, lower: &str) -> Option<(&str, Source)> {
        let own = self.defaults.get(lower).map(|(value, source)| (value.as_str(), *source));
        match own {
            Some((_, source)) if source > Source::System => own,
            _ => self.system.get(lower).map(|value| (value.as_str(), Source::System)).or(own),
        }
    }

    /// Takes what ALTER SYSTEM has set; false if nothing changes.
    pub fn take_system(&mut self, system: &Arc<BTreeMap<String, String>>) -> bool {
        let changes = self.system != *system;
        self.system = system.clone();
        changes
    }

    /// Where the present value comes from.
    pub fn source(&self, name: &str) -> Source {
        let lower = lower(name);
        match self.given(&lower) {
            _ if is_of_transaction(&lower) => Source::Override,
            _ if self.changed.contains_key(lower.as_ref()) => Source::Session,
            Some((_, source)) => source,
            None => Source::Default,
        }
    }

    /// Whether the session may change a setting, as far as that is for some only.
    pub fn may_change(&self, name: &str) -> Result<()> {
        match find(name) {
            Some(Setting { name, context: Context::Superuser, .. })
                if self.get("is_superuser") != Some("on") =>
            {
                Err(Error::Denied(name))
            }
            // Statistics of files tell of rows that a role may not see.
            None if self.get("is_superuser") != Some("on") && is_explain_option(name) => {
                Err(Error::Denied("datafusion.explain"))
            }
            _ => Ok(()),
        }
    }

    /// Sets a value for this session; returns it in its normal form.
    pub fn set(&mut self, name: &str, value: &str) -> Result<&str> {
        self.may_change(name)?;
        let value = normalise(name, value)?;
        Ok(self.changed.entry(name.to_ascii_lowercase()).insert_entry(value).into_mut())
    }

    /// Sets what RESET returns to.
    pub fn set_default(&mut self, name: &str, value: &str, source: Source) -> Result<()> {
        if source == Source::Client {
            self.may_change(name)?;
        }
        let value = normalise(name, value)?;
        self.defaults.insert(name.to_ascii_lowercase(), (value, source));
        Ok(())
    }

    /// Sets what the session tells of itself and of the daemon, though nobody can change it.
    pub fn set_fact(&mut self, name: &'static str, value: &str, source: Source) {
        self.defaults.insert(name.to_ascii_lowercase(), (value.to_owned(), source));
    }

    pub fn reset(&mut self, name: &str) -> Result<()> {
        self.may_change(name)?;
        match find(name) {
            Some(setting) => refuse_fixed(setting)?,
            None => check_placeholder(name)?,
        }
        self.take_back(&name.to_ascii_lowercase());
        Ok(())
    }

    /// The role and what the present transaction is stay, as in PostgreSQL.
    pub fn reset_all(&mut self) {
        let names: Vec<_> = self.changed.keys().cloned().collect();
        for name in names.iter().filter(|name| !is_of_transaction(name) && *name != "role") {
            self.take_back(name);
        }
    }

    /// As in PostgreSQL, a placeholder stays, without a value.
    fn take_back(&mut self, lower: &str) {
        let defined = find(lower).is_some() || is_engine_option(lower);
        if defined || self.defaults.contains_key(lower) {
            self.changed.remove(lower);
        } else {
            self.changed.insert(lower.to_owned(), String::new());
        }
    }

    /// All settings with their values, and the placeholders that were set, by name.
    pub fn all(&self) -> Vec<(&str, &str)> {
        let known = SETTINGS.iter().map(|setting| setting.name);
        let placeholders = (self.changed.keys().chain(self.defaults.keys()))
            .map(String::as_str)
            .filter(|name| find(name).is_none());
        let names = known.chain(placeholders);
        let mut all: Vec<_> =
            names.map(|name| (name, self.get(name).unwrap_or_default())).collect();
        all.sort_by_key(|(name, _)| name.to_ascii_lowercase());
        all.dedup();
        all
    }

    /// The engine's own settings that were changed, as `datafusion.*`.
    pub fn engine_options(&self) -> impl Iterator<Item = (&str, &str)> {
        let file = |source: Source| source <= Source::System;
        let given = |file_too| {
            let fits = move |(_, (_, source)): &(_, &(String, Source))| file(*source) == file_too;
            self.defaults.iter().filter(fits).map(|(name, (value, _))| (name, value))
        };
        (given(true).chain(self.system.iter()).chain(given(false)).chain(&self.changed))
            .filter(|(name, _)| name.starts_with("datafusion."))
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// What the present transaction is.
    pub fn of_transaction(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let names = ["transaction_isolation", "transaction_read_only", "transaction_deferrable"];
        names.into_iter().filter_map(|name| Some((name, self.get(name)?)))
    }

    /// Whether the present transaction only reads.
    pub fn read_only(&self) -> bool {
        self.get("transaction_read_only") == Some("on")
    }

    /// Whether that is so for all transactions of the session, whatever is SET.
    pub fn only_reads(&self) -> bool {
        self.only_reads
    }

    /// From here on the session changes nothing, whatever is SET.
    pub fn hold_to_reading(&mut self) {
        self.only_reads = true;
    }

    pub fn time_zone(&self) -> &str {
        self.get("TimeZone").unwrap_or("UTC")
    }

    pub fn consistency(&self) -> Consistency {
        match self.get("oribi.consistency") {
            Some("strong") => Consistency::Strong,
            _ => Consistency::Cached,
        }
    }

    /// Whether statements are spread over the cluster.
    pub fn distribute(&self) -> Distribute {
        match self.get("oribi.distribution") {
            Some("auto") => Distribute::Auto,
            Some("always") => Distribute::Always,
            _ => Distribute::Off,
        }
    }

    /// Whether known results are given again.
    pub fn result_cache(&self) -> bool {
        self.get("oribi.result_cache") == Some("on")
    }

    /// Whether a statement means the same under both.
    pub fn give_the_same(&self, other: &Self) -> bool {
        fn told<V>(values: &BTreeMap<String, V>) -> impl Iterator<Item = (&String, &V)> {
            values.iter().filter(|(name, _)| !IRRELEVANT.contains(&name.as_str()))
        }
        self.system == other.system
            && told(&self.changed).eq(told(&other.changed))
            && told(&self.defaults).eq(told(&other.defaults))
    }

    /// The role taken with SET ROLE.
    pub fn role(&self) -> Option<&str> {
        self.get("role").filter(|role| *role != "none")
    }

    /// How many statements of the role may run at once; `None`: any number.
    pub fn statement_limit(&self) -> Option<usize> {
        self.get("oribi.statement_limit")?.parse().ok().filter(|limit| *limit > 0)
    }

    /// `None`: no limit.
    pub fn statement_timeout(&self) -> Option<Duration> {
        self.timeout("statement_timeout")
    }

    /// `None`: no limit.
    pub fn idle_in_transaction_timeout(&self) -> Option<Duration> {
        self.timeout("idle_in_transaction_session_timeout")
    }

    /// `None`: no limit.
    pub fn idle_session_timeout(&self) -> Option<Duration> {
        self.timeout("idle_session_timeout")
    }

    fn timeout(&self, name: &str) -> Option<Duration> {
        let millis = self.get(name).and_then(|text| parse_millis(text).ok())?;
        (millis > 0).then(|| Duration::from_millis(millis))
    }

    /// Schema names in the order of the search, `$user` replaced.
    pub fn search_path(&self, user: &str) -> Vec<String> {
        let text = self.get("search_path").unwrap_or_default();
        (text.split(','))
            .map(|part| part.trim().trim_matches(['"', '\'']))
            .filter(|part| !part.is_empty())
            .map(|part| if part == "$user" { user.to_owned() } else { part.to_owned() })
            .collect()
    }
}

/// Settings of the present transaction, which are not set for longer.
pub fn is_of_transaction(name: &str) -> bool {
    transaction_default(name).is_some()
}

/// Where a setting of the present transaction takes its value from.
fn transaction_default(name: &str) -> Option<&'static str> {
    match name {
        "transaction_isolation" => Some("default_transaction_isolation"),
        "transaction_read_only" => Some("default_transaction_read_only"),
        "transaction_deferrable" => Some("default_transaction_deferrable"),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
