//! Files that nothing names: left by whatever died between two steps of a write.

use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;

use super::TableFiles;
use super::emptied::remove_empty;
use super::files::{of_store, store_url};
use super::unfinished::remove_unfinished;
use crate::storage::{Error, Result};

/// Files of a table's directory that were older than the grace period when it was listed.
#[derive(Debug)]
pub struct Orphans {
    location: String,
    old: Vec<(Path, u64)>,
    limit: DateTime<Utc>,
    /// Where other tables lie.
    apart: Vec<Path>,
}

impl Orphans {
    /// Lists a table's directory. What is looked for there are files of the kinds that writers make,
    /// and none below `others`, where other tables lie.
    ///
    /// Done before the table's state is read: whatever that names can only be more.
    pub async fn list(
        files: &TableFiles,
        location: &str,
        grace: Duration,
        others: &[String],
    ) -> Result<Self> {
        let grace = chrono::Duration::from_std(grace).unwrap_or(chrono::Duration::MAX);
        let limit = Utc::now().checked_sub_signed(grace).unwrap_or(DateTime::<Utc>::MIN_UTC);
        let (old, apart) = (Vec::new(), Vec::new());
        let mut found = Self { location: location.to_owned(), old, limit, apart };
        let place = files.place(location)?;
        let store = store_url(location)?;
        for other in others {
            if store_url(other).is_ok_and(|of| of == store) {
                found.apart.push(files.place(other)?.path);
            }
        }
        // Nobody has a whole bucket to itself, nor a directory that lies within another's.
        let shared = place.path.as_ref().is_empty()
            || found.apart.iter().any(|other| place.path.prefix_matches(other));
        if shared {
            return Ok(found);
        }
        let mut listed = place.store.list(Some(&place.path));
        while let Some(file) = listed.try_next().await.map_err(|error| of_store(location, error))? {
            let name = file.location.filename().unwrap_or_default();
            let ours =
                [".parquet", ".avro", ".metadata.json"].iter().any(|end| name.ends_with(end));
            let foreign = found.apart.iter().any(|other| file.location.prefix_matches(other));
            if ours && !foreign && file.last_modified < limit {
                found.old.push((file.location, file.size));
            }
        }
        Ok(found)
    }
}

/// Removes the directories that are left where a table was of which nothing is named any more.
pub async fn remove_emptied(files: &TableFiles, found: &Orphans) -> Result<()> {
    let (store, place) = (store_url(&found.location)?, files.place(&found.location)?);
    remove_empty(&store, &place.path, &found.apart).await;
    Ok(())
}

/// Removes those of the files that are not among `named`; how many, and their bytes.
pub async fn remove_orphans(
    files: &TableFiles,
    found: &Orphans,
    named: &HashSet<String>,
) -> Result<(u64, u64)> {
    let (store, place) = (store_url(&found.location)?, files.place(&found.location)?);
    let (mut count, mut bytes) = match place.path.as_ref().is_empty() {
        true => (0, 0),
        false => remove_unfinished(&store, &place.path, found.limit, &found.apart).await?,
    };
    if found.old.is_empty() {
        return Ok((count, bytes));
    }
    let mut live = HashSet::new();
    for url in named {
        live.insert(files.place(url)?.path);
    }
    for (path, size) in &found.old {
        if live.contains(path) {
            continue;
        }
        crate::faults::point("an orphan is to be removed");
        match place.store.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {
                count += 1;
                bytes += *size;
            }
            Err(error) => return Err(Error::not_written(path.to_string(), error)),
        }
    }
    Ok((count, bytes))
}
