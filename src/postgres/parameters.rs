//! The settings that a session begins with.

use std::collections::BTreeMap;

use tracing::warn;

use super::session::Shared;
use super::sqlstate::Report;
use crate::catalog::{Database, Role};
use crate::engine::settings::{Settings, Source};

/// The session's own defaults: the daemon's, those of all sessions, the database's, the role's, then
/// what the client asks for.
pub fn settings(
    shared: &Shared,
    (role, database): (&Role, &Database),
    parameters: &BTreeMap<String, String>,
) -> std::result::Result<Settings, Report> {
    let mut settings = Settings::default();
    settings.set_fact("session_authorization", &role.name, Source::Override);
    let superuser = if role.record.superuser { "on" } else { "off" };
    settings.set_fact("is_superuser", superuser, Source::Override);
    let facts = [
        ("max_connections", shared.config.max.to_string()),
        ("ssl", if shared.tls.is_some() { "on" } else { "off" }.to_owned()),
    ];
    for (name, value) in facts {
        settings.set_fact(name, &value, Source::Configuration);
    }
    if let Some(timeout) = shared.statement_timeout {
        let millis = timeout.as_millis().to_string();
        // A duration is always a valid value for it.
        let _ = settings.set_default("statement_timeout", &millis, Source::Configuration);
    }
    settings.take_system(&shared.queries.live.current().settings);
    let of_database = database.record.settings.iter().map(|set| (Source::Database, set));
    let of_role = role.record.settings.iter().map(|set| (Source::Role, set));
    for (source, (name, value)) in of_database.chain(of_role) {
        // What a newer or older daemon has taken must not keep the role out.
        if let Err(error) = settings.set_default(name, value, source) {
            let source = source.name();
            warn!(role = ?role.name, source, %error, "a setting of a role or database is left out");
        }
    }
    let options = parameters.get("options").map(String::as_str).unwrap_or_default();
    let asked = (parameters.iter())
        .filter(|(name, _)| {
            !matches!(name.as_str(), "user" | "database" | "options" | "replication")
        })
        .filter(|(name, _)| !name.starts_with("_pq_."))
        .map(|(name, value)| (name.clone(), value.clone()))
        .chain(command_line(options)?);
    for (name, value) in asked {
        if let Err(error) = settings.set_default(&name, &value, Source::Client) {
            let report = Report::from(crate::engine::Error::from(error));
            return Err(Report { fatal: true, ..report });
        }
    }
    Ok(settings)
}

/// Settings from `-c name=value` and `--name=value`, as `PGOPTIONS` has them. A backslash makes the
/// next character, such as a space, part of the value. Other words are refused.
fn command_line(options: &str) -> Result<Vec<(String, String)>, Report> {
    let mut words = vec![String::new()];
    let mut characters = options.chars();
    while let Some(character) = characters.next() {
        let word = words.len() - 1;
        match character {
            '\\' => words[word].extend(characters.next()),
            ' ' | '\t' => words.push(String::new()),
            other => words[word].push(other),
        }
    }
    words.retain(|word| !word.is_empty());
    let mut found = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let setting = match word.as_str() {
            "-c" => words.next(),
            _ => word.strip_prefix("-c").or_else(|| word.strip_prefix("--")).map(str::to_owned),
        };
        let Some((name, value)) = setting.as_deref().and_then(|text| text.split_once('=')) else {
            let message = format!("invalid command-line argument for server process: {word}");
            return Err(Report::fatal("42601", message));
        };
        found.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::engine::settings;
    use crate::query::sessions::SHOWN_TEXT;

    #[test]
    fn defaults_that_are_shown_are_those_in_force() {
        let default = |name: &str| settings::find(name).expect("a setting").default.to_owned();
        let config = Config::load(None, [], []).expect("the defaults");
        assert_eq!(default("max_connections"), config.connections.max.to_string());
        assert_eq!(default("track_activity_query_size"), (SHOWN_TEXT + 1).to_string());
    }

    #[test]
    fn options_are_read_like_a_command_line() {
        let expected = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
        };
        for (text, pairs) in [
            ("-c statement_timeout=5s", vec![("statement_timeout", "5s")]),
            (
                "-cdatestyle=ISO,\\ MDY --search-path=a",
                vec![("datestyle", "ISO, MDY"), ("search_path", "a")],
            ),
            ("  ", vec![]),
        ] {
            assert_eq!(command_line(text), Ok(expected(&pairs)), "{text}");
        }
        for wrong in ["-c", "nonsense", "-c nothing", "--nothing"] {
            assert_eq!(command_line(wrong).map_err(|report| report.code), Err("42601"), "{wrong}");
        }
    }
}
