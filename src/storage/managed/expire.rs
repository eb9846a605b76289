//! Which snapshots a table's history need not have any more, and what only they reached.
//!
//! The rules are those of Iceberg's specification ("Snapshot Retention Policy"), by the table's
//! standard properties.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use iceberg::spec::{Snapshot, TableMetadata};
use serde::Deserialize;

use super::TableFiles;
use super::files::damaged;
use crate::storage::{Error, Result};

const MAX_AGE: &str = "history.expire.max-snapshot-age-ms";
const MIN_KEEP: &str = "history.expire.min-snapshots-to-keep";

/// Snapshots that a history has at most, in about: the metadata file, which each commit writes anew,
/// names all of them. Not one of the specification's properties.
const MAX_KEEP: &str = "history.expire.max-snapshots-to-keep";

/// Five days, in milliseconds.
const DEFAULT_MAX_AGE: i64 = 5 * 24 * 60 * 60 * 1000;

/// Some 600 KB of metadata.
const DEFAULT_MAX_KEEP: usize = 1000;

/// A branch or tag, as the metadata file has it.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Reference {
    pub snapshot_id: i64,
    #[serde(rename = "type")]
    pub kind: String,
    pub min_snapshots_to_keep: Option<usize>,
    pub max_snapshot_age_ms: Option<i64>,
    pub max_ref_age_ms: Option<i64>,
}

#[derive(Default, Deserialize)]
pub(super) struct References {
    #[serde(default)]
    pub refs: BTreeMap<String, Reference>,
}

/// Snapshots that may go; with `retain` all that are older than that, whatever the properties say.
/// The current one never does, nor do those that branches and tags name.
pub fn expired(
    metadata: &TableMetadata,
    retain: Option<Duration>,
    now_ms: i64,
) -> Result<Vec<i64>> {
    let millis = |age: Duration| i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    let max_age = match retain {
        Some(retain) => millis(retain),
        None => number(metadata, MAX_AGE)?.unwrap_or(DEFAULT_MAX_AGE),
    };
    let min_keep = match retain {
        Some(_) => 1,
        None => number(metadata, MIN_KEEP)?.unwrap_or(1),
    };
    // Without an age none is young, not even one of a clock that was ahead.
    let young = |snapshot: &Snapshot, age: i64| {
        age > 0 && snapshot.timestamp_ms() > now_ms.saturating_sub(age)
    };
    let mut kept: HashSet<i64> = metadata.current_snapshot_id().into_iter().collect();
    let mut named: HashSet<i64> = HashSet::new();
    for reference in references(metadata)?.refs.into_values() {
        let (age, least) = match retain {
            Some(_) => (max_age, min_keep),
            None => (
                reference.max_snapshot_age_ms.unwrap_or(max_age),
                reference.min_snapshots_to_keep.unwrap_or(min_keep),
            ),
        };
        let mut next = metadata.snapshot_by_id(reference.snapshot_id);
        let mut count = 0;
        let mut keeps = true;
        while let Some(snapshot) = next {
            // Parents are older than their children: a circle has no end that could be waited for.
            if count > metadata.snapshots().len() {
                break;
            }
            let first = count == 0;
            let branch = reference.kind == "branch";
            keeps = first || (keeps && branch && (count < least || young(snapshot, age)));
            if keeps {
                kept.insert(snapshot.snapshot_id());
            }
            named.insert(snapshot.snapshot_id());
            count += 1;
            next = snapshot.parent_snapshot_id().and_then(|id| metadata.snapshot_by_id(id));
        }
    }
    let gone = metadata.snapshots().filter(|snapshot| {
        let id = snapshot.snapshot_id();
        !kept.contains(&id) && (named.contains(&id) || !young(snapshot, max_age))
    });
    Ok(gone.map(|snapshot| snapshot.snapshot_id()).collect())
}

/// The oldest snapshots of a history that has got a tenth too long. What only they reach is left for
/// the orphan sweep.
pub(super) fn too_many(metadata: &TableMetadata) -> Result<Vec<i64>> {
    let limit = number(metadata, MAX_KEEP)?.unwrap_or(DEFAULT_MAX_KEEP).max(1);
    let count = metadata.snapshots().len();
    if count <= limit.saturating_add(limit / 10) {
        return Ok(Vec::new());
    }
    let mut named: HashSet<i64> = metadata.current_snapshot_id().into_iter().collect();
    named.extend(references(metadata)?.refs.into_values().map(|reference| reference.snapshot_id));
    let mut by_age: Vec<_> =
        metadata.snapshots().map(|s| (s.sequence_number(), s.snapshot_id())).collect();
    by_age.sort_unstable();
    let oldest = by_age.into_iter().take(count - limit).map(|(_, id)| id);
    Ok(oldest.filter(|id| !named.contains(id)).collect())
}

/// The files that snapshots reach: manifest lists, manifests, and what is alive in them.
pub async fn reached(
    files: &TableFiles,
    metadata: &TableMetadata,
    wanted: impl Fn(i64) -> bool,
) -> Result<HashSet<String>> {
    let mut urls = HashSet::new();
    for snapshot in metadata.snapshots().filter(|snapshot| wanted(snapshot.snapshot_id())) {
        let list = files.manifest_list(snapshot.manifest_list(), metadata.format_version()).await?;
        urls.insert(snapshot.manifest_list().to_owned());
        for manifest in list.entries() {
            if !urls.insert(manifest.manifest_path.clone()) {
                continue;
            }
            let parsed = files.manifest(&manifest.manifest_path).await?;
            let alive = parsed.entries().iter().filter(|entry| entry.is_alive());
            urls.extend(alive.map(|entry| entry.file_path().to_owned()));
        }
    }
    Ok(urls)
}

/// All files that a table consists of, with its history.
pub async fn retained_files(
    files: &TableFiles,
    url: &str,
    metadata: &TableMetadata,
) -> Result<HashSet<String>> {
    let mut urls = reached(files, metadata, |_| true).await?;
    urls.insert(url.to_owned());
    urls.extend(metadata.metadata_log().iter().map(|known| known.metadata_file.clone()));
    urls.extend(metadata.statistics_iter().map(|file| file.statistics_path.clone()));
    urls.extend(metadata.partition_statistics_iter().map(|file| file.statistics_path.clone()));
    Ok(urls)
}

/// The library keeps them to itself; their form in metadata files is the specification's.
pub(super) fn references(metadata: &TableMetadata) -> Result<References> {
    let invalid = |error| damaged(metadata.location(), error);
    let value = serde_json::to_value(metadata).map_err(invalid)?;
    serde_json::from_value(value).map_err(invalid)
}

fn number<T: std::str::FromStr>(metadata: &TableMetadata, name: &str) -> Result<Option<T>> {
    let parsed = metadata.properties().get(name).map(|value| {
        value.trim().parse().map_err(|_| Error::BadProperty {
            name: name.to_owned(),
            value: value.clone(),
            reason: "it must be a whole number in range".to_owned(),
        })
    });
    parsed.transpose()
}
