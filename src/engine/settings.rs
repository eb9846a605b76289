//! A session's settings: what SET, RESET and SHOW see, with PostgreSQL's names and rules.
//!
//! Values are text, normalised when they are set. Names are those of PostgreSQL 15's parameters,
//! `oribi.*` for our own, `datafusion.*` for the engine's, and any other dotted name as a
//! placeholder that only its owner understands, as PostgreSQL has it.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::array::timezone::Tz;
use datafusion::config::ConfigOptions;

use crate::catalog::Consistency;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("unrecognized configuration parameter \"{0}\"")]
    Unknown(String),
    #[error("parameter \"{0}\" cannot be changed")]
    ReadOnly(&'static str),
    #[error("invalid value for parameter \"{name}\": \"{value}\"{hint}")]
    Invalid { name: String, value: String, hint: String },
}

/// What values a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bool,
    /// With the least and the greatest value.
    Integer(i64, i64),
    Text,
    OneOf(&'static [&'static str]),
    TimeZone,
    DateStyle,
    Encoding,
    /// Milliseconds, or a number with PostgreSQL's units (`us ms s min h d`); 0 switches it off.
    Duration,
    /// Told to clients and never changed.
    Fixed,
}

/// A setting that exists for every session.
#[derive(Debug)]
pub struct Setting {
    pub name: &'static str,
    pub default: &'static str,
    pub kind: Kind,
    /// Whether clients are told of each change (PostgreSQL's `GUC_REPORT`).
    pub report: bool,
    pub description: &'static str,
}

/// The version of PostgreSQL whose behaviour clients may expect.
pub const SERVER_VERSION: &str = "15.18";

const fn setting(
    name: &'static str,
    default: &'static str,
    kind: Kind,
    report: bool,
    description: &'static str,
) -> Setting {
    Setting { name, default, kind, report, description }
}

use Kind::{Bool, DateStyle, Duration as Millis, Encoding, Fixed, Integer, OneOf, Text, TimeZone};

/// All settings, sorted by name without regard to case.
#[rustfmt::skip] // A table: one row a line.
pub const SETTINGS: &[Setting] = &[
    setting("application_name", "", Text, true, "The client's name for itself."),
    setting("backslash_quote", "safe_encoding", OneOf(&["safe_encoding", "on", "off"]), false, "Accepted for compatibility."),
    setting("bytea_output", "hex", OneOf(&["hex"]), false, "The text form of bytea."),
    setting("check_function_bodies", "on", Bool, false, "Accepted for compatibility."),
    setting("client_encoding", "UTF8", Encoding, true, "The client's encoding: always UTF8."),
    setting("client_min_messages", "notice", OneOf(&["debug5", "debug4", "debug3", "debug2", "debug1", "log", "notice", "warning", "error"]), false, "The least severe message that is sent."),
    setting("DateStyle", "ISO, MDY", DateStyle, true, "The text form of dates: always ISO."),
    setting("default_transaction_isolation", "read committed", OneOf(&["serializable", "repeatable read", "read committed", "read uncommitted"]), false, "Accepted for compatibility."),
    setting("default_transaction_read_only", "off", Bool, true, "Whether transactions only read unless they say otherwise."),
    setting("extra_float_digits", "1", Integer(-15, 3), false, "Accepted for compatibility: floats are always exact."),
    setting("idle_in_transaction_session_timeout", "0", Millis, false, "How long a session may idle within a transaction."),
    setting("in_hot_standby", "off", Fixed, true, "Whether this daemon only reads."),
    setting("integer_datetimes", "on", Fixed, true, "Timestamps are integers on the wire."),
    setting("IntervalStyle", "postgres", OneOf(&["postgres"]), true, "The text form of intervals."),
    setting("is_superuser", "on", Fixed, true, "Whether the current role may do anything."),
    setting("lc_collate", "C", Fixed, false, "Strings sort by their bytes."),
    setting("lc_ctype", "C.UTF-8", Fixed, false, "Character classes."),
    setting("lc_messages", "C", Text, false, "Accepted for compatibility."),
    setting("lc_monetary", "C", Text, false, "Accepted for compatibility."),
    setting("lc_numeric", "C", Text, false, "Accepted for compatibility."),
    setting("lc_time", "C", Text, false, "Accepted for compatibility."),
    setting("lock_timeout", "0", Millis, false, "Accepted for compatibility: nothing waits for locks."),
    setting("max_identifier_length", "255", Fixed, false, "The longest name, in bytes."),
    setting("max_index_keys", "32", Fixed, false, "For clients that ask."),
    setting("oribi.consistency", "cached", OneOf(&["cached", "strong"]), false, "strong: ask the coordination store for each table before planning."),
    setting("role", "none", Text, false, "The role whose rights count, if it is not the one that logged in."),
    setting("row_security", "on", Bool, false, "Accepted for compatibility."),
    setting("search_path", "\"$user\", public", Text, false, "Schemas that are searched for names without one."),
    setting("server_encoding", "UTF8", Fixed, true, "The encoding of all text."),
    setting("server_version", SERVER_VERSION, Fixed, true, "The PostgreSQL version whose behaviour clients may expect."),
    setting("server_version_num", "150018", Fixed, false, "The same as a number."),
    setting("session_authorization", "oribi", Fixed, true, "The role that logged in."),
    setting("ssl", "off", Fixed, false, "Whether clients may use TLS."),
    setting("standard_conforming_strings", "on", OneOf(&["on"]), true, "Backslashes in '...' are ordinary."),
    setting("statement_timeout", "0", Millis, false, "The longest a statement may run; 0: no limit."),
    setting("synchronize_seqscans", "on", Bool, false, "Accepted for compatibility."),
    setting("TimeZone", "UTC", TimeZone, true, "The time zone of timestamps with one."),
    setting("transaction_isolation", "read committed", OneOf(&["serializable", "repeatable read", "read committed", "read uncommitted"]), false, "Accepted for compatibility."),
    setting("transaction_read_only", "off", Bool, false, "Whether the current transaction only reads."),
    setting("vacuum_cost_delay", "0", Text, false, "Accepted for compatibility."),
    setting("work_mem", "4MB", Text, false, "Accepted for compatibility: see engine.memory_limit."),
    setting("xmloption", "content", OneOf(&["content", "document"]), false, "Accepted for compatibility."),
];

/// Finds a setting by name, whatever its case.
pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name.eq_ignore_ascii_case(name))
}

/// One session's values. Cheap to clone behind an `Arc`; a transaction keeps an earlier one to
/// return to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// What RESET returns to: the daemon's and the client's start-up values.
    defaults: BTreeMap<String, String>,
    /// What SET has changed, by lower-case name.
    changed: BTreeMap<String, String>,
}

impl Settings {
    /// The present value; `None` for a name nobody has set or defined.
    pub fn get(&self, name: &str) -> Option<&str> {
        let lower = name.to_ascii_lowercase();
        let given = self.changed.get(&lower).or_else(|| self.defaults.get(&lower));
        given.map(String::as_str).or_else(|| find(name).map(|setting| setting.default))
    }

    /// Sets a value for this session; returns it in its normal form.
    pub fn set(&mut self, name: &str, value: &str) -> Result<&str> {
        let value = normalise(name, value)?;
        Ok(self.changed.entry(name.to_ascii_lowercase()).insert_entry(value).into_mut())
    }

    /// Sets what RESET returns to.
    pub fn set_default(&mut self, name: &str, value: &str) -> Result<()> {
        let value = normalise(name, value)?;
        self.defaults.insert(name.to_ascii_lowercase(), value);
        Ok(())
    }

    /// Sets what the session tells of itself, fixed ones included.
    pub fn set_fact(&mut self, name: &'static str, value: &str) {
        self.defaults.insert(name.to_ascii_lowercase(), value.to_owned());
    }

    pub fn reset(&mut self, name: &str) -> Result<()> {
        match find(name) {
            Some(Setting { name, kind: Fixed, .. }) => Err(Error::ReadOnly(name)),
            None if !name.contains('.') => Err(Error::Unknown(name.to_owned())),
            _ => {
                self.changed.remove(&name.to_ascii_lowercase());
                Ok(())
            }
        }
    }

    pub fn reset_all(&mut self) {
        self.changed.clear();
    }

    /// All settings with their values, and the placeholders that were set, by name.
    pub fn all(&self) -> Vec<(&str, &str, &'static str)> {
        let known = SETTINGS.iter().map(|setting| {
            (setting.name, self.get(setting.name).unwrap_or_default(), setting.description)
        });
        let placeholders = (self.changed.iter())
            .filter(|(name, _)| find(name).is_none())
            .map(|(name, value)| (name.as_str(), value.as_str(), ""));
        let mut all: Vec<_> = known.chain(placeholders).collect();
        all.sort_by_key(|(name, ..)| name.to_ascii_lowercase());
        all
    }

    /// The engine's own settings that were changed, as `datafusion.*`.
    pub fn engine_options(&self) -> impl Iterator<Item = (&str, &str)> {
        (self.defaults.iter().chain(&self.changed))
            .filter(|(name, _)| name.starts_with("datafusion."))
            .map(|(name, value)| (name.as_str(), value.as_str()))
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

    /// The role taken with SET ROLE.
    pub fn role(&self) -> Option<&str> {
        self.get("role").filter(|role| *role != "none")
    }

    /// `None`: no limit.
    pub fn statement_timeout(&self) -> Option<Duration> {
        self.timeout("statement_timeout")
    }

    /// `None`: no limit.
    pub fn idle_in_transaction_timeout(&self) -> Option<Duration> {
        self.timeout("idle_in_transaction_session_timeout")
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

fn invalid(name: &str, value: &str, hint: impl Into<String>) -> Error {
    Error::Invalid { name: name.to_owned(), value: value.to_owned(), hint: hint.into() }
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

/// Checks a value and brings it into the form that SHOW prints.
fn normalise(name: &str, value: &str) -> Result<String> {
    if is_engine_option(name) {
        check_bounds(name, value)?;
        let mut options = ConfigOptions::new();
        options
            .set(name, value)
            .map_err(|error| invalid(name, value, format!(": {}", error.strip_backtrace())))?;
        return Ok(value.to_owned());
    }
    let Some(setting) = find(name) else {
        return match name.contains('.') {
            true => Ok(value.to_owned()),
            false => Err(Error::Unknown(name.to_owned())),
        };
    };
    let name = setting.name;
    match setting.kind {
        Text => Ok(value.to_owned()),
        Fixed => Err(Error::ReadOnly(name)),
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
            ("server_version", "16", Err(())),
            ("datafusion.execution.batch_size", "100", Ok("100")),
            ("datafusion.execution.batch_size", "many", Err(())),
        ] {
            let mut settings = Settings::default();
            let result = settings.set(name, value).map(str::to_owned).map_err(drop);
            assert_eq!(result, expected.map(str::to_owned), "{name} = {value}");
        }
    }

    #[test]
    fn reset_returns_to_the_session_default() {
        let mut settings = Settings::default();
        settings.set_default("application_name", "psql").expect("valid");
        settings.set("application_name", "other").expect("valid");
        settings.reset("application_name").expect("known");
        assert_eq!(settings.get("application_name"), Some("psql"));
        assert_eq!(settings.search_path("me"), ["me", "public"]);
        assert_eq!(settings.reset("nothing"), Err(Error::Unknown("nothing".into())));
    }

    #[test]
    fn the_table_is_sorted() {
        let names: Vec<_> = SETTINGS.iter().map(|s| s.name.to_ascii_lowercase()).collect();
        assert!(names.is_sorted());
    }
}
