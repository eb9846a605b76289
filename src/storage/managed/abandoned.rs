//! Directories of tables that are in no catalog any more: those of tables that were dropped, and of
//! those that died while they were made. Also those that only directories are left of.

use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use iceberg::spec::TableMetadata;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use uuid::Uuid;

use super::TableFiles;
use super::create::is_of_table;
use super::emptied::{is_quiet, remove_empty};
use super::files::{self, of_store};
use super::unfinished::remove_unfinished;
use crate::storage::Result;

/// The property that names the cluster which made a table. Only its own daemons remove the table's
/// directory: others may share the warehouse.
pub(super) const CLUSTER: &str = "oribi.cluster";

/// A warehouse holds tables below a database and a schema ([`super::table_location`]).
const DEPTH: usize = 3;

/// Directories of a warehouse that may go.
#[derive(Debug)]
pub struct Abandoned {
    warehouse: String,
    /// What is younger stays.
    limit: DateTime<Utc>,
    /// With their files.
    directories: Vec<(Path, Vec<ObjectMeta>)>,
}

impl Abandoned {
    /// Lists the directories of tables that `cluster` has made, in which no file is younger than
    /// the grace period, except those of tables that are `known`. After the catalog was taken from a
    /// back-up, what is older than that stays: it may be of tables that the back-up does not know.
    pub async fn list(
        files: &TableFiles,
        warehouse: &str,
        cluster: Uuid,
        (grace, restored_at): (Duration, Option<DateTime<Utc>>),
        known: &[String],
    ) -> Result<Self> {
        let place = files.place(warehouse)?;
        let store = files::store_url(warehouse)?;
        let known = paths(known)?;
        let grace = chrono::Duration::from_std(grace).unwrap_or(chrono::Duration::MAX);
        let limit = Utc::now().checked_sub_signed(grace).unwrap_or(DateTime::<Utc>::MIN_UTC);
        let mut directories = vec![place.path];
        for _ in 0..DEPTH {
            let mut deeper = Vec::new();
            for directory in directories {
                let listed = place.store.list_with_delimiter(Some(&directory)).await;
                deeper.extend(listed.map_err(|error| of_store(warehouse, error))?.common_prefixes);
            }
            directories = deeper;
        }
        let mut found = Self { warehouse: warehouse.to_owned(), limit, directories: Vec::new() };
        for directory in directories {
            if overlaps(&directory, &known) {
                continue;
            }
            let listed = place.store.list(Some(&directory)).try_collect::<Vec<ObjectMeta>>().await;
            let listed = listed.map_err(|error| of_store(warehouse, error))?;
            let is_old = |file: &ObjectMeta| {
                file.last_modified < limit && restored_at.is_none_or(|at| file.last_modified > at)
            };
            let old = listed.iter().all(is_old);
            let named = |directory: &Path| directory.filename().is_some_and(is_of_table);
            let abandoned = match listed.is_empty() {
                true => named(&directory),
                false => old && maker(place.store.as_ref(), &listed).await == Some(cluster),
            };
            if abandoned && is_quiet(&store, &directory, limit, listed.is_empty()).await {
                found.directories.push((directory, listed));
            }
        }
        Ok(found)
    }

    pub fn is_empty(&self) -> bool {
        self.directories.is_empty()
    }

    /// Removes one of them, if it is not `known` by now; how many files, and their bytes.
    pub async fn remove_one(&mut self, files: &TableFiles, known: &[String]) -> Result<(u64, u64)> {
        let place = files.place(&self.warehouse)?;
        let Some((directory, mut files)) = self.directories.pop() else { return Ok((0, 0)) };
        let known = paths(known)?;
        if overlaps(&directory, &known) {
            return Ok((0, 0));
        }
        let store = files::store_url(&self.warehouse)?;
        let (mut count, mut bytes) =
            remove_unfinished(&store, &directory, self.limit, &known).await?;
        // What tells whose the directory is goes last, so that what stays is found again.
        files.sort_by_key(|file| is_metadata(&file.location));
        for file in files {
            crate::faults::point("a file of a dropped table is to be removed");
            match place.store.delete(&file.location).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {
                    count += 1;
                    bytes += file.size;
                }
                Err(error) => return Err(of_store(file.location.as_ref(), error)),
            }
        }
        remove_empty(&store, &directory, &known).await;
        Ok((count, bytes))
    }
}

fn paths(urls: &[String]) -> Result<Vec<Path>> {
    urls.iter().map(|url| files::path(url)).collect()
}

/// Whether a directory is, holds or lies in one of those.
fn overlaps(directory: &Path, known: &[Path]) -> bool {
    known.iter().any(|known| known.prefix_matches(directory) || directory.prefix_matches(known))
}

fn is_metadata(path: &Path) -> bool {
    path.as_ref().ends_with(".metadata.json")
}

/// The cluster that made the table in a directory, if its newest metadata says so.
async fn maker(store: &dyn ObjectStore, listed: &[ObjectMeta]) -> Option<Uuid> {
    let metadata = listed.iter().map(|file| &file.location).filter(|path| is_metadata(path));
    let bytes = store.get(metadata.max()?).await.ok()?.bytes().await.ok()?;
    let metadata: TableMetadata = serde_json::from_slice(&bytes).ok()?;
    metadata.properties().get(CLUSTER)?.parse().ok()
}
