//! What values settings take, and the form in which they are kept and shown.

use arrow::array::timezone::Tz;
use datafusion::config::ConfigOptions;
use datafusion::error::DataFusionError;

use super::Kind::{Bool, DateStyle, Duration as Millis, Encoding, Integer, OneOf, Text, TimeZone};
use super::{Context, Error, RESERVED, Result, Setting, find, is_of_transaction};

/// The value in the unit that `pg_settings` names beside it.
pub fn in_unit(setting: &Setting, value: &str) -> String {
    match setting.kind {
        Millis => parse_millis(value).map_or_else(|_| value.to_owned(), |ms| ms.to_string()),
        _ => value.to_owned(),
    }
}

pub(super) fn refuse_fixed(setting: &Setting) -> Result<()> {
    match setting.context {
        Context::User | Context::Superuser => Ok(()),
        Context::Internal => Err(Error::ReadOnly(setting.name)),
        Context::Postmaster => Err(Error::NeedsRestart(setting.name)),
    }
}

fn invalid(name: &str, value: &str, hint: impl Into<String>) -> Error {
    Error::Invalid { name: name.to_owned(), value: value.to_owned(), hint: hint.into() }
}

pub(super) fn is_explain_option(name: &str) -> bool {
    name.get(..18).is_some_and(|start| start.eq_ignore_ascii_case("datafusion.explain"))
}

pub(super) fn is_engine_option(name: &str) -> bool {
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
pub(super) fn normalise(name: &str, value: &str) -> Result<String> {
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
pub(super) fn check_placeholder(name: &str) -> Result<()> {
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
pub(super) fn parse_millis(text: &str) -> Result<u64, String> {
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
