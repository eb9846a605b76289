//! Puts live settings in force where they are not a session's, and shows what is in force.

use std::collections::BTreeMap;

use tracing::warn;

use crate::cluster::live::{Live, Refused};
use crate::config::{self, Config, Switch};
use crate::engine::settings;
use crate::query::Queries;
use crate::query::submitted::Submissions;
use crate::system::{SettingChangeRow, SettingRow};
use crate::telemetry;

/// Puts the settings in force that are keys of the configuration.
pub fn apply(config: &Config, queries: &Queries, submissions: &Submissions, live: &Live) {
    let now = config.with(live.settings.iter());
    queries.engine.change_distribution(&now.distribution);
    queries.engine.change_caches(&now.engine);
    queries.history.change(now.history);
    queries.maintenance.change(now.maintenance);
    submissions.change(now.submitted);
    telemetry::set_literals(now.log.literals == Switch::On);
    // The environment has its say first: it may be another one that the configuration has.
    if let Err(error) = telemetry::set_filter(&now.log.filter) {
        warn!(%error, "the log's filter stays as it was");
    }
}

/// The configuration with what is set on top of it, a row a key.
pub fn rows(config: &Config, live: &Live) -> Vec<SettingRow> {
    let origin = |name: &str| format!("/settings/{name}");
    let error = |name: &str| live.refused.get(name).map(Refused::to_string);
    let mut rows: BTreeMap<String, SettingRow> =
        (config.with(live.settings.iter()).rows().into_iter())
            .map(|row| {
                let origin = match live.settings.contains_key(&row.key) {
                    true => origin(&row.key),
                    false => row.origin,
                };
                let key = row.key.clone();
                let row = SettingRow {
                    live: config::LIVE.contains(&key.as_str()),
                    error: error(&key),
                    key: row.key,
                    value: row.value,
                    default: row.default,
                    origin,
                };
                (key, row)
            })
            .collect();
    for name in live.settings.keys().chain(live.refused.keys()) {
        rows.entry(name.clone()).or_insert_with(|| {
            let known = settings::find(name);
            let default = known.map(|known| known.default).unwrap_or_default();
            let value = live.settings.get(name);
            SettingRow {
                key: known.map_or(name.as_str(), |known| known.name).to_owned(),
                value: value.cloned().unwrap_or_else(|| default.to_owned()),
                default: default.to_owned(),
                origin: if value.is_some() { origin(name) } else { "default".to_owned() },
                live: true,
                error: error(name),
            }
        });
    }
    rows.into_values().collect()
}

/// The last changes, oldest first.
pub fn history(live: &Live) -> Vec<SettingChangeRow> {
    let mut rows = Vec::new();
    for entry in &live.record.history {
        for (name, change) in &entry.changes {
            rows.push(SettingChangeRow {
                version: entry.version,
                changed: entry.at.into(),
                by: entry.by.clone(),
                name: name.clone(),
                before: change.from.clone(),
                value: change.to.clone(),
            });
        }
    }
    rows
}
