//! Which of a table's snapshots a moment means.

use chrono::DateTime;
use iceberg::spec::{SnapshotRef, TableMetadata};

use crate::storage::{Error, Result};

/// Snapshots that an error names at most, the latest ones.
const NAMED: usize = 10;

/// A moment of a table's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moment {
    /// By its id.
    Snapshot(i64),
    /// A branch or tag.
    Name(String),
    /// In milliseconds since 1970, UTC.
    Time(i64),
}

impl Moment {
    /// The snapshot that was the current one at the moment, as the table's log has it: another one
    /// may have been made before, on a branch of its own. An error names what there is to those who
    /// may be `told`.
    pub fn find(&self, table: &str, metadata: &TableMetadata, told: bool) -> Result<SnapshotRef> {
        let found = match self {
            Self::Snapshot(id) => metadata.snapshot_by_id(*id),
            Self::Name(name) => metadata.snapshot_for_ref(name),
            Self::Time(time) => {
                let mut log = metadata.history().iter().rev();
                let entry = log.find(|entry| entry.timestamp_ms <= *time);
                entry.and_then(|entry| metadata.snapshot_by_id(entry.snapshot_id))
            }
        };
        let wanted = || match self {
            Self::Snapshot(id) => format!("snapshot {id}"),
            Self::Name(name) => format!("branch or tag \"{name}\""),
            Self::Time(time) => format!("snapshot of {} or before", shown(*time)),
        };
        found.cloned().ok_or_else(|| {
            let (table, wanted) = (table.to_owned(), wanted());
            let known = if told { format!(": {}", known(metadata)) } else { String::new() };
            Error::NoSnapshot { table, wanted, known }
        })
    }
}

/// What there is, for whoever asks for something else.
fn known(metadata: &TableMetadata) -> String {
    let mut all: Vec<&SnapshotRef> = metadata.snapshots().collect();
    if all.is_empty() {
        return "it has no snapshots yet".to_owned();
    }
    all.sort_by_key(|snapshot| snapshot.timestamp_ms());
    let older = all.len().saturating_sub(NAMED);
    let named = all[older..].iter().map(|snapshot| {
        format!("{} of {}", snapshot.snapshot_id(), shown(snapshot.timestamp_ms()))
    });
    let named = named.collect::<Vec<_>>().join(", ");
    match older {
        0 => format!("there are {named}"),
        older => format!("there are {named}, and {older} older ones"),
    }
}

fn shown(time_ms: i64) -> String {
    match DateTime::from_timestamp_millis(time_ms) {
        Some(time) => time.format("%Y-%m-%d %H:%M:%S%.3f+00").to_string(),
        None => format!("{time_ms} ms"),
    }
}
