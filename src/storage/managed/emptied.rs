//! Directories of this machine that no file is in any more: an object store has none, and leaves those that
//! it has made for files.

use std::fs;
use std::io;
use std::path::{Path as FilePath, PathBuf};
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use datafusion::execution::object_store::ObjectStoreUrl;
use object_store::path::Path;

use super::unfinished::is_unfinished;

/// Removes a directory and those below it as far as they are empty. Whoever is about to write there makes
/// them anew.
pub(super) async fn remove_empty(store: &ObjectStoreUrl, directory: &Path) {
    if let Some(place) = local(store, directory) {
        // What cannot be removed is found again by the next round.
        let _ = tokio::task::spawn_blocking(move || remove(&place)).await;
    }
}

/// Whether nothing is in a directory but directories, and files that were begun, and all of that was last
/// changed before `limit`.
pub(super) async fn is_deserted(
    store: &ObjectStoreUrl,
    directory: &Path,
    limit: DateTime<Utc>,
) -> bool {
    let Some(place) = local(store, directory) else { return false };
    let looked = tokio::task::spawn_blocking(move || holds_nothing(&place, limit.into())).await;
    matches!(looked, Ok(Ok(true)))
}

fn local(store: &ObjectStoreUrl, directory: &Path) -> Option<PathBuf> {
    let is_local = store.as_str() == "file:///" && !directory.as_ref().is_empty();
    is_local.then(|| FilePath::new("/").join(directory.as_ref()))
}

fn remove(directory: &FilePath) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove(&entry.path());
    }
    // The system removes none that something is in.
    let _ = fs::remove_dir(directory);
}

fn holds_nothing(directory: &FilePath, limit: SystemTime) -> io::Result<bool> {
    if fs::metadata(directory)?.modified()? >= limit {
        return Ok(false);
    }
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let nothing = match kind.is_dir() {
            true => holds_nothing(&entry.path(), limit)?,
            false => {
                let begun = entry.file_name().to_str().is_some_and(is_unfinished);
                kind.is_file() && begun && entry.metadata()?.modified()? < limit
            }
        };
        if !nothing {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_is_empty_goes_and_only_when_it_is_old() {
        let directory = tempfile::TempDir::new().expect("a directory");
        let below = |name: &str| directory.path().join(name);
        let store = ObjectStoreUrl::local_filesystem();
        let place = |name: &str| Path::from_absolute_path(below(name)).expect("a path");
        fs::create_dir_all(below("left/data/a=1")).expect("directories");
        fs::create_dir_all(below("kept/data/a=1")).expect("directories");
        fs::create_dir_all(below("kept/empty")).expect("directories");
        fs::write(below("left/data/x.parquet#1"), "begun").expect("a file");
        fs::write(below("kept/data/x.parquet"), "rows").expect("a file");
        let (past, future) =
            (Utc::now() - chrono::Duration::days(1), Utc::now() + chrono::Duration::days(1));
        assert!(!is_deserted(&store, &place("left"), past).await, "somebody may be about to write");
        assert!(is_deserted(&store, &place("left"), future).await);
        assert!(!is_deserted(&store, &place("kept"), future).await);
        assert!(!is_deserted(&store, &place("nowhere"), future).await);
        let bucket = ObjectStoreUrl::parse("s3://bucket").expect("a URL");
        assert!(!is_deserted(&bucket, &place("left"), future).await);
        remove_empty(&bucket, &place("left")).await;
        remove_empty(&store, &place("kept")).await;
        assert!(below("kept/data/x.parquet").exists() && !below("kept/empty").exists());
        assert!(below("left/data/a=1").exists());
        fs::remove_file(below("left/data/x.parquet#1")).expect("removed");
        remove_empty(&store, &place("left")).await;
        assert!(!below("left").exists());
    }
}
