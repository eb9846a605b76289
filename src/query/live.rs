//! Settings that change while daemons run: which there are, and what they may be.

use std::sync::Arc;

use super::life::Session;
use super::{Error, Result};
use crate::cluster::live::Live;
use crate::config::{self, Config};
use crate::engine;
use crate::engine::settings::{self, Settings};
use crate::telemetry;

/// Keys of the configuration that sessions have under a name of their own.
const OF_SESSIONS: &[(&str, &str)] = &[
    ("query.statement_timeout", "statement_timeout"),
    ("engine.batch_size", "datafusion.execution.batch_size"),
    ("engine.target_partitions", "datafusion.execution.target_partitions"),
];

/// Names that sessions know of what only the configuration sets.
const OF_FILE: &[(&str, &str)] = &[("max_connections", "connections.max"), ("ssl", "tls.mode")];

/// Checks a live setting: one of a session's, as the default of all, or a key of the configuration.
/// Returns its normal form.
pub fn check(name: &str, value: &str) -> Result<String> {
    check_name(name)?;
    let lower = name.to_lowercase();
    if !Config::has_key(&lower) {
        return Ok(settings::check_for_all(name, value).map_err(engine::Error::from)?);
    }
    let name = lower;
    let checked = Config::check_value(&name, value).and_then(|value| match name.as_str() {
        "log.filter" => match telemetry::check(&value) {
            Ok(()) => Ok(value),
            Err(error) => Err(error.to_string()),
        },
        _ => Ok(value),
    });
    checked.map_err(|reason| {
        let (value, hint) = (value.to_owned(), format!(": {reason}"));
        engine::Error::from(settings::Error::Invalid { name, value, hint }).into()
    })
}

/// Refuses what cannot change while a daemon runs, and what is no setting.
pub fn check_name(name: &str) -> Result<()> {
    let lower = name.to_lowercase();
    let key = lower.as_str();
    let fixed = OF_FILE.iter().find(|(name, _)| *name == key).map(|(_, key)| *key);
    let fixed =
        fixed.or_else(|| (Config::has_key(key) && !config::LIVE.contains(&key)).then_some(key));
    if let Some(key) = fixed {
        let session = OF_SESSIONS.iter().find(|(of_file, _)| *of_file == key);
        return Err(Error::NeedsRestart {
            name: name.to_owned(),
            key: key.to_owned(),
            instead: session.map(|(_, name)| *name),
        });
    }
    if Config::has_key(key) {
        return Ok(());
    }
    Ok(settings::check_name_for_all(name).map_err(engine::Error::from)?)
}

/// Refuses to take back what could not be set; but what somebody has written all the same goes.
pub fn check_reset(live: &Live, name: &str) -> Result<()> {
    match live.refused.contains_key(&name.to_lowercase()) {
        true => Ok(()),
        false => check_name(name),
    }
}

/// The same as [`check`], as rooms below and the command line have it.
pub fn check_text(name: &str, value: &str) -> std::result::Result<String, String> {
    check(name, value).map_err(|error| match error.hint() {
        Some(hint) => format!("{error} ({hint})"),
        None => error.to_string(),
    })
}

impl Session {
    /// Takes up what has changed for all sessions. Between two messages of the client's, as in
    /// PostgreSQL: a statement under way keeps what it has begun with.
    pub fn take_live(&mut self) {
        let system = self.queries().live.current().settings.clone();
        if Arc::ptr_eq(&system, &self.system) {
            return;
        }
        self.system = system.clone();
        let mut settings = Settings::clone(self.settings());
        let changes = settings.take_system(&system);
        self.transaction.each_settings(|settings| {
            settings.take_system(&system);
        });
        if changes {
            self.use_settings(Arc::new(settings));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_restart_names_its_key() {
        for (name, value, expected) in [
            ("statement_timeout", "30 s", Ok("30s")),
            ("log.filter", "oribi=debug", Ok("oribi=debug")),
            ("LOG.filter", "oribi=loud", Err("log.filter")),
            ("distribution.min_bytes", "1 MiB", Ok("1.0 MiB")),
            ("distribution.retries", "many", Err("distribution.retries")),
            ("engine.threads", "2", Err("engine.threads")),
            ("max_connections", "5", Err("connections.max")),
            ("query.statement_timeout", "5s", Err("\"statement_timeout\"")),
            ("transaction_isolation", "serializable", Err("transaction_isolation")),
            ("server_version", "1", Err("server_version")),
            ("nothing.at.all", "1", Err("nothing.at.all")),
        ] {
            match (check_text(name, value), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{name}"),
                (Err(found), Err(part)) => assert!(found.contains(part), "{name}: {found}"),
                (found, _) => panic!("{name}: {found:?}"),
            }
        }
    }
}
