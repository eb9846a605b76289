//! What the cluster's live settings are, and were: the value of `/settings`.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Versions that can be returned to.
const MAX_HISTORY: usize = 100;

/// Bytes that the history takes at most, as JSON: a node takes 64 KiB, settings and all.
const MAX_HISTORY_BYTES: usize = 32 * 1024;

/// Settings by name, as text.
pub type Values = BTreeMap<String, String>;

/// The settings in force, and how they came to be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Grows by one with each change.
    pub version: u64,
    pub settings: Values,
    /// The last changes, oldest first.
    #[serde(default)]
    pub history: Vec<Entry>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The version that it made.
    pub version: u64,
    pub at: DateTime<Utc>,
    /// Who made it.
    pub by: String,
    pub changes: BTreeMap<String, Change>,
    /// The writer's mark, by which it recognises its own write.
    pub nonce: Uuid,
}

/// A setting's values; none: it was not set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    pub from: Option<String>,
    pub to: Option<String>,
}

impl Record {
    /// The record with other settings; `None` if they are the same.
    pub fn next(&self, settings: Values, by: &str, nonce: Uuid) -> Option<Self> {
        let names = self.settings.keys().chain(settings.keys());
        let changes: BTreeMap<String, Change> = names
            .filter(|name| self.settings.get(*name) != settings.get(*name))
            .map(|name| {
                let value = |values: &Values| values.get(name).cloned();
                (name.clone(), Change { from: value(&self.settings), to: value(&settings) })
            })
            .collect();
        if changes.is_empty() {
            return None;
        }
        let version = self.version + 1;
        let entry = Entry { version, at: Utc::now(), by: by.to_owned(), changes, nonce };
        let mut history = self.history.clone();
        history.push(entry);
        let size = |entry: &Entry| serde_json::to_vec(entry).map_or(0, |text| text.len() + 1);
        let (mut kept, mut bytes) = (0, 0);
        for entry in history.iter().rev().take(MAX_HISTORY) {
            bytes += size(entry);
            if kept > 0 && bytes > MAX_HISTORY_BYTES {
                break;
            }
            kept += 1;
        }
        history.drain(..history.len() - kept);
        Some(Self { version, settings, history })
    }

    /// The settings of a version; `None` if the history does not reach it.
    pub fn at(&self, version: u64) -> Option<Values> {
        if version > self.version {
            return None;
        }
        let mut settings = self.settings.clone();
        let mut reached = self.version;
        for entry in self.history.iter().rev() {
            if reached == version {
                break;
            }
            for (name, change) in &entry.changes {
                match &change.from {
                    Some(value) => drop(settings.insert(name.clone(), value.clone())),
                    None => drop(settings.remove(name)),
                }
            }
            reached = entry.version - 1;
        }
        (reached == version).then_some(settings)
    }

    /// The oldest version that can be returned to.
    pub fn oldest(&self) -> u64 {
        self.history.first().map_or(self.version, |entry| entry.version - 1)
    }
}

/// A value as somebody has written it into its node: as it is, or as JSON's text.
pub fn value_of(data: &[u8]) -> String {
    let text = String::from_utf8_lossy(data);
    let text = text.trim();
    match serde_json::from_str::<String>(text) {
        Ok(quoted) => quoted,
        Err(_) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(pairs: &[(&str, &str)]) -> Values {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn versions_can_be_returned_to() {
        let states = [
            values(&[]),
            values(&[("a", "1")]),
            values(&[("a", "2"), ("b", "1")]),
            values(&[("b", "1")]),
        ];
        let mut record = Record::default();
        for state in &states[1..] {
            record = record.next(state.clone(), "x", Uuid::nil()).expect("a change");
        }
        assert_eq!(record.version, 3);
        assert_eq!(record.next(states[3].clone(), "x", Uuid::nil()), None);
        for (version, state) in (0..).zip(&states) {
            assert_eq!(record.at(version).as_ref(), Some(state), "{version}");
        }
        assert_eq!(record.at(4), None);
    }

    #[test]
    fn the_history_is_bounded() {
        let mut record = Record::default();
        for count in 0..300 {
            let state = values(&[("a", &count.to_string())]);
            record = record.next(state, "x", Uuid::nil()).expect("a change");
        }
        assert_eq!((record.version, record.oldest()), (300, 200));
        assert!(record.at(199).is_none() && record.at(200).is_some());
        for count in 0..20 {
            let state = values(&[("a", &format!("{count}{}", "x".repeat(4000)))]);
            record = record.next(state, "x", Uuid::nil()).expect("a change");
        }
        let bytes = serde_json::to_vec(&record.history).expect("it can be written").len();
        assert!(bytes < MAX_HISTORY_BYTES + 100, "{bytes}");
        assert!(record.at(record.version - 1).is_some());
    }

    #[test]
    fn values_are_read_as_they_are_written() {
        for (data, value) in [("30s", "30s"), (" 30s\n", "30s"), ("\"30s\"", "30s"), ("1", "1")] {
            assert_eq!(value_of(data.as_bytes()), value);
        }
    }
}
