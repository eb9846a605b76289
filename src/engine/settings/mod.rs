//! A session's settings: what SET, RESET and SHOW see, with PostgreSQL's names and rules.
//!
//! Values are text, normalised when they are set. Names are those of PostgreSQL 15's parameters,
//! `oribi.*` for our own, `datafusion.*` for the engine's, and any other dotted name as a
//! placeholder that only its owner understands, as PostgreSQL has it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::timezone::Tz;
use datafusion::config::ConfigOptions;
use datafusion::error::DataFusionError;

use crate::catalog::Consistency;

mod differing;
mod table;

pub use table::{Context, Kind, SERVER_VERSION, SETTINGS, Setting};

use Kind::{Bool, DateStyle, Duration as Millis, Encoding, Integer, OneOf, Text, TimeZone};

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

/// The value in the unit that `pg_settings` names beside it.
pub fn in_unit(setting: &Setting, value: &str) -> String {
    match setting.kind {
        Millis => parse_millis(value).map_or_else(|_| value.to_owned(), |ms| ms.to_string()),
        _ => value.to_owned(),
    }
}

fn refuse_fixed(setting: &Setting) -> Result<()> {
    match setting.context {
        Context::User | Context::Superuser => Ok(()),
        Context::Internal => Err(Error::ReadOnly(setting.name)),
        Context::Postmaster => Err(Error::NeedsRestart(setting.name)),
    }
}

fn invalid(name: &str, value: &str, hint: impl Into<String>) -> Error {
    Error::Invalid { name: name.to_owned(), value: value.to_owned(), hint: hint.into() }
}

fn is_explain_option(name: &str) -> bool {
    name.get(..18).is_some_and(|start| start.eq_ignore_ascii_case("datafusion.explain"))
}

fn is_engine_option(name: &str) -> bool {
    name.get(..11).is_some_and(|start| start.eq_ignore_ascii_case("datafusion."))
}

/// Sizes that the engine would take whatever they are. The bounds are those of the daemon's own
/// configuration.
fn check_bounds(name: &str, value: &str) -> Result<()> {
    let greatest = match name.to_ascii_lowercase().as_str() {
        "datafusion.execution.target_partitions" => 1024,
        "datafusion.execution.batch_size" => 1 << 20,
        _ => return Ok(()),
    };
    match value.trim().parse::<u64>() {
        Ok(number) if !(1..=greatest).contains(&number) => {
            Err(invalid(name, value, format!(": it takes 1 to {greatest}")))
        }
        _ => Ok(()),
    }
}

/// What is wrong with one of the engine's settings: the last of what it has to say.
fn of_engine(name: &str, value: &str, error: &DataFusionError) -> Error {
    let text = error.strip_backtrace();
    let last = text.rsplit("caused by\n").next().unwrap_or_default();
    if last.contains(" not found on ") || last.contains("Could not find config namespace") {
        return Error::Unknown(name.to_owned());
    }
    let last = last.trim_start_matches("External error: ").trim_start_matches("Execution error: ");
    // What the readers of numbers and truth values say.
    let takes = |what: &str| invalid(name, value, format!(": it takes {what}"));
    match last {
        text if text.contains("invalid digit found in string") => takes("a whole number"),
        text if text.contains("too large to fit in target type") => takes("a smaller number"),
        text if text.contains("cannot parse integer from empty string") => takes("a number"),
        text if text.contains("invalid float literal") => takes("a number"),
        text if text.contains("provided string was not `true` or `false`") => {
            takes("true or false")
        }
        last => invalid(name, value, format!(": {last}")),
    }
}

/// Checks a value for all sessions, and brings it into the form that SHOW prints.
pub fn check_for_all(name: &str, value: &str) -> Result<String> {
    check_name_for_all(name)?;
    normalise(name, value)
}

/// Refuses what is no setting of all sessions.
pub fn check_name_for_all(name: &str) -> Result<()> {
    match find(name) {
        Some(Setting { name, .. }) if is_of_transaction(name) || *name == "role" => {
            Err(Error::OfSession(name))
        }
        Some(setting) => refuse_fixed(setting),
        None if is_engine_option(name) => Ok(()),
        // A misspelt name would be a placeholder that nobody asks for.
        None => Err(Error::Unknown(name.to_owned())),
    }
}

/// Checks a value and brings it into the form that SHOW prints.
fn normalise(name: &str, value: &str) -> Result<String> {
    if is_engine_option(name) {
        check_bounds(name, value)?;
        let mut options = ConfigOptions::new();
        options.set(name, value).map_err(|error| of_engine(name, value, &error))?;
        return Ok(value.to_owned());
    }
    let Some(setting) = find(name) else {
        return check_placeholder(name).map(|()| value.to_owned());
    };
    refuse_fixed(setting)?;
    let name = setting.name;
    match setting.kind {
        Text => Ok(value.to_owned()),
        Bool => match value.to_ascii_lowercase().as_str() {
            "on" | "true" | "yes" | "1" | "t" | "y" => Ok("on".to_owned()),
            "off" | "false" | "no" | "0" | "f" | "n" => Ok("off".to_owned()),
            _ => Err(invalid(name, value, ": it takes a Boolean value")),
        },
        Integer(least, greatest) => match value.parse::<i64>() {
            Ok(number) if (least..=greatest).contains(&number) => Ok(number.to_string()),
            _ => Err(invalid(name, value, format!(": it takes {least} to {greatest}"))),
        },
        OneOf(choices) => (choices.iter())
            .find(|choice| choice.eq_ignore_ascii_case(value))
            .map(|choice| (*choice).to_owned())
            .ok_or_else(|| invalid(name, value, format!(": it takes {}", choices.join(", ")))),
        Encoding => encoding(value).ok_or_else(|| invalid(name, value, ": it takes UTF8")),
        TimeZone => time_zone(value).ok_or_else(|| invalid(name, value, "")),
        DateStyle => date_style(value)
            .ok_or_else(|| invalid(name, value, ": only ISO is supported, with MDY, DMY or YMD")),
        Millis => match parse_millis(value) {
            Ok(millis) => Ok(show_millis(millis)),
            Err(hint) => Err(invalid(name, value, hint)),
        },
    }
}

/// Refuses what is no setting, and not some other program's either.
fn check_placeholder(name: &str) -> Result<()> {
    let start = name.get(..RESERVED.len());
    match start.is_some_and(|start| start.eq_ignore_ascii_case(RESERVED)) {
        true => Err(Error::Reserved(name.to_owned())),
        false if name.contains('.') => Ok(()),
        false => Err(Error::Unknown(name.to_owned())),
    }
}

/// PostgreSQL looks at the letters and digits of an encoding's name only.
fn encoding(value: &str) -> Option<String> {
    let name: String = value.chars().filter(char::is_ascii_alphanumeric).collect();
    let known = ["utf8", "unicode"].iter().any(|known| name.eq_ignore_ascii_case(known));
    known.then(|| "UTF8".to_owned())
}

/// The canonical name of a time zone: as in the tz database, or an offset such as `+02:00`.
fn time_zone(value: &str) -> Option<String> {
    let fixed = match value.to_ascii_lowercase().as_str() {
        "utc" | "gmt" | "zulu" | "z" | "default" | "local" => Some("UTC".to_owned()),
        _ => None,
    };
    let hours = || {
        // Hours east of Greenwich; the names of these zones count westward.
        let hours: i32 = value.parse().ok().filter(|hours| (-12..=14).contains(hours))?;
        Some(format!("Etc/GMT{:+}", -hours))
    };
    fixed.or_else(hours).or_else(|| value.parse::<Tz>().ok().map(|_| value.to_owned()))
}

fn date_style(value: &str) -> Option<String> {
    let mut order = "MDY";
    for part in value.split(',') {
        match part.trim().to_ascii_uppercase().as_str() {
            "ISO" | "" => {}
            "MDY" | "US" | "NONEUROPEAN" => order = "MDY",
            "DMY" | "EURO" | "EUROPEAN" => order = "DMY",
            "YMD" => order = "YMD",
            _ => return None,
        }
    }
    Some(format!("ISO, {order}"))
}

/// Milliseconds from PostgreSQL's notation: a number with an optional unit.
fn parse_millis(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "us" => 0.001,
        "" | "ms" => 1.0,
        "s" => 1e3,
        "min" => 60e3,
        "h" => 3_600e3,
        "d" => 86_400e3,
        _ => return Err(": its units are us, ms, s, min, h and d".to_owned()),
    };
    match number.parse::<f64>() {
        Ok(number) if number * factor <= f64::from(i32::MAX) => {
            Ok((number * factor).round() as u64)
        }
        _ => Err(format!(": it takes 0 to {} milliseconds", i32::MAX)),
    }
}

/// The largest unit that divides the value, as PostgreSQL shows it.
fn show_millis(millis: u64) -> String {
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s")];
    match units.iter().find(|(unit, _)| millis > 0 && millis.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", millis / unit),
        None if millis == 0 => "0".to_owned(),
        None => format!("{millis}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked_and_normalised() {
        for (name, value, expected) in [
            ("statement_timeout", "1500", Ok("1500ms")),
            ("statement_timeout", "2 min", Ok("2min")),
            ("statement_timeout", "0", Ok("0")),
            ("STATEMENT_TIMEOUT", "90s", Ok("90s")),
            ("statement_timeout", "soon", Err(())),
            ("timezone", "europe/vienna", Err(())),
            ("timezone", "Europe/Vienna", Ok("Europe/Vienna")),
            ("timezone", "-5", Ok("Etc/GMT+5")),
            ("datestyle", "iso, dmy", Ok("ISO, DMY")),
            ("datestyle", "SQL", Err(())),
            ("client_encoding", "'utf-8'", Ok("UTF8")),
            ("client_encoding", "LATIN1", Err(())),
            ("extra_float_digits", "3", Ok("3")),
            ("extra_float_digits", "4", Err(())),
            ("my.own", "x", Ok("x")),
            ("nothing", "x", Err(())),
            ("Oribi.distributon", "off", Err(())),
            ("server_version", "16", Err(())),
            ("datafusion.execution.batch_size", "100", Ok("100")),
            ("datafusion.execution.batch_size", "many", Err(())),
            ("datafusion.nothing", "1", Err(())),
        ] {
            let mut settings = Settings::default();
            let result = settings.set(name, value).map(str::to_owned).map_err(drop);
            assert_eq!(result, expected.map(str::to_owned), "{name} = {value}");
        }
    }

    #[test]
    fn reset_returns_to_the_session_default() {
        let mut settings = Settings::default();
        settings.set_default("application_name", "psql", Source::Client).expect("valid");
        settings.set("application_name", "other").expect("valid");
        settings.reset("application_name").expect("known");
        assert_eq!(settings.get("application_name"), Some("psql"));
        assert_eq!(settings.search_path("me"), ["me", "public"]);
        assert_eq!(settings.reset("nothing"), Err(Error::Unknown("nothing".into())));
    }

    #[test]
    fn what_is_set_for_all_is_below_what_is_set_for_one() {
        let mut settings = Settings::default();
        let name = "statement_timeout";
        settings.set_default(name, "1s", Source::Configuration).expect("valid");
        let system = |value: &str| Arc::new(BTreeMap::from([(name.to_owned(), value.to_owned())]));
        assert!(settings.take_system(&system("2s")) && !settings.take_system(&system("2s")));
        assert_eq!((settings.get(name), settings.source(name)), (Some("2s"), Source::System));
        settings.set(name, "5s").expect("valid");
        settings.take_system(&system("3s"));
        assert_eq!(settings.get(name), Some("5s"));
        settings.reset(name).expect("valid");
        assert_eq!(settings.get(name), Some("3s"));
        settings.set_default(name, "4s", Source::Role).expect("valid");
        assert_eq!((settings.get(name), settings.source(name)), (Some("4s"), Source::Role));
        let mut alone = Settings::default();
        alone.set_default(name, "1s", Source::Configuration).expect("valid");
        alone.take_system(&Arc::default());
        assert_eq!(alone.get(name), Some("1s"));
        for (name, expected) in [
            ("role", Err(Error::OfSession("role"))),
            ("oribi.distributon", Err(Error::Unknown("oribi.distributon".to_owned()))),
            ("max_connections", Err(Error::NeedsRestart("max_connections"))),
            ("STATEMENT_TIMEOUT", Ok("10s".to_owned())),
        ] {
            assert_eq!(check_for_all(name, "10s"), expected);
        }
    }

    #[test]
    fn some_settings_are_for_superusers() {
        let mut settings = Settings::default();
        settings.set_fact("is_superuser", "off", Source::Override);
        let denied = Err(Error::Denied("oribi.statement_limit"));
        assert_eq!(settings.set("oribi.Statement_Limit", "0").map(drop), denied);
        assert_eq!(settings.reset("oribi.statement_limit"), denied);
        assert_eq!(settings.set_default("oribi.statement_limit", "0", Source::Client), denied);
        settings.set_default("oribi.statement_limit", "3", Source::Role).expect("the role's own");
        assert_eq!(settings.statement_limit(), Some(3));
        settings.set_fact("is_superuser", "on", Source::Override);
        settings.set("oribi.statement_limit", "0").expect("a superuser");
        assert_eq!(settings.statement_limit(), None);
    }

    #[test]
    fn the_table_is_sorted() {
        let names: Vec<_> = SETTINGS.iter().map(|s| s.name.to_ascii_lowercase()).collect();
        assert!(names.is_sorted());
    }
}
