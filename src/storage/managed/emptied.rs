//! Directories of this machine that no file is in any more: an object store has none, and leaves those that
//! it has made for files.

use std::fs;
use std::io;
use std::path::{Path as FilePath, PathBuf};
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use datafusion::execution::object_store::ObjectStoreUrl;
use object_store::path::Path;

/// Removes a directory and those below it as far as they are empty, and none of or in `others`, where other
/// tables lie. Whoever is about to write there makes them anew.
pub(super) async fn remove_empty(store: &ObjectStoreUrl, directory: &Path, others: &[Path]) {
    if others.iter().any(|other| directory.prefix_matches(other)) {
        return;
    }
    let apart: Vec<_> = others.iter().filter_map(|other| local(store, other)).collect();
    if let Some(place) = local(store, directory) {
        // What cannot be removed is found again by the next round.
        let _ = tokio::task::spawn_blocking(move || remove(&place, &apart)).await;
    }
}

/// Whether no file in a directory has changed since `limit`, neither one that is still being written. Where
/// the directory is `bare`, for no file is whole there, the times of directories count as well: they tell
/// when it was begun. Of a bucket its listing has told that.
pub(super) async fn is_quiet(
    store: &ObjectStoreUrl,
    directory: &Path,
    limit: DateTime<Utc>,
    bare: bool,
) -> bool {
    let Some(place) = local(store, directory) else { return true };
    let looked = tokio::task::spawn_blocking(move || all_before(&place, limit.into(), bare)).await;
    matches!(looked, Ok(Ok(true)))
}

fn local(store: &ObjectStoreUrl, directory: &Path) -> Option<PathBuf> {
    let is_local = store.as_str() == "file:///" && !directory.as_ref().is_empty();
    is_local.then(|| FilePath::new("/").join(directory.as_ref()))
}

fn remove(directory: &FilePath, apart: &[PathBuf]) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        if !apart.contains(&entry.path()) {
            remove(&entry.path(), apart);
        }
    }
    // The system removes none that something is in.
    let _ = fs::remove_dir(directory);
}

fn all_before(place: &FilePath, limit: SystemTime, directories: bool) -> io::Result<bool> {
    let metadata = fs::symlink_metadata(place)?;
    if (directories || !metadata.is_dir()) && metadata.modified()? >= limit {
        return Ok(false);
    }
    if metadata.is_dir() {
        for entry in fs::read_dir(place)? {
            if !all_before(&entry?.path(), limit, directories)? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_is_empty_goes_and_what_changes_is_not_quiet() {
        let directory = tempfile::TempDir::new().expect("a directory");
        let below = |name: &str| directory.path().join(name);
        let store = ObjectStoreUrl::local_filesystem();
        let place = |name: &str| Path::from_absolute_path(below(name)).expect("a path");
        fs::create_dir_all(below("left/data/a=1")).expect("directories");
        fs::create_dir_all(below("kept/data/a=1")).expect("directories");
        fs::create_dir_all(below("kept/empty")).expect("directories");
        fs::write(below("left/data/x.parquet#1"), "begun").expect("a file");
        fs::write(below("kept/data/x.parquet"), "rows").expect("a file");
        let day = chrono::Duration::days(1);
        let (past, future) = (Utc::now() - day, Utc::now() + day);
        assert!(is_quiet(&store, &place("left"), future, true).await);
        assert!(!is_quiet(&store, &place("left"), past, true).await);
        assert!(!is_quiet(&store, &place("nowhere"), future, true).await);
        // What is being written counts, whatever else is old.
        let old = SystemTime::now() - Duration::from_secs(7 * 24 * 3600);
        for name in ["left", "left/data", "left/data/a=1"] {
            let directory = fs::File::open(below(name)).expect("a directory");
            directory.set_modified(old).expect("its time");
        }
        assert!(!is_quiet(&store, &place("left"), past, true).await);
        assert!(!is_quiet(&store, &place("left"), past, false).await);
        let begun = fs::File::options().write(true).open(below("left/data/x.parquet#1"));
        begun.expect("a file").set_modified(old).expect("its time");
        assert!(is_quiet(&store, &place("left"), past, true).await);
        // A directory that was changed lately counts where there is nothing else to go by.
        fs::create_dir(below("left/data/b=1")).expect("a directory");
        assert!(!is_quiet(&store, &place("left"), past, true).await);
        assert!(is_quiet(&store, &place("left"), past, false).await);
        let bucket = ObjectStoreUrl::parse("s3://bucket").expect("a URL");
        assert!(is_quiet(&bucket, &place("left"), past, true).await);
        remove_empty(&bucket, &place("left"), &[]).await;
        for others in [[place("kept")], [place("")], [place("kept/empty")]] {
            remove_empty(&store, &place("kept"), &others).await;
            assert!(below("kept/empty").exists(), "{others:?}");
        }
        remove_empty(&store, &place("kept"), &[place("kept/empty/deeper"), place("left")]).await;
        assert!(below("kept/data/x.parquet").exists() && !below("kept/empty").exists());
        assert!(below("left/data/a=1").exists());
        fs::remove_file(below("left/data/x.parquet#1")).expect("removed");
        remove_empty(&store, &place("left"), &[]).await;
        assert!(!below("left").exists());
    }
}
