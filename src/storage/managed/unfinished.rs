//! Files of a local directory that a process had begun when it died.
//!
//! The object store writes a file beside its place, as `name#1`, and renames it when it is whole. It
//! does not list such files, so nobody else would find them.

use std::fs;
use std::path::{Path as FilePath, PathBuf};
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use datafusion::execution::object_store::ObjectStoreUrl;
use object_store::path::Path;

use crate::storage::{Error, Result};

/// Removes those of a directory that were begun before `limit`, and none below `others`, where other
/// tables lie; how many, and their bytes. In buckets there are none.
pub(super) async fn remove_unfinished(
    store: &ObjectStoreUrl,
    directory: &Path,
    limit: DateTime<Utc>,
    others: &[Path],
) -> Result<(u64, u64)> {
    if store.as_str() != "file:///" || others.iter().any(|other| directory.prefix_matches(other)) {
        return Ok((0, 0));
    }
    let local = |path: &Path| FilePath::new("/").join(path.as_ref());
    let (place, apart) = (local(directory), others.iter().map(local).collect::<Vec<_>>());
    let removed = tokio::task::spawn_blocking(move || remove(&place, limit.into(), &apart)).await;
    let removed = removed.unwrap_or_else(|error| Err(error.into()));
    removed.map_err(|error| Error::not_written(directory.as_ref(), error))
}

fn remove(
    directory: &FilePath,
    limit: SystemTime,
    apart: &[PathBuf],
) -> std::io::Result<(u64, u64)> {
    let (mut count, mut bytes) = (0, 0);
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let path = entry.path();
            // Links lead elsewhere.
            let kind = entry.file_type()?;
            if kind.is_dir() && !apart.contains(&path) {
                directories.push(path);
                continue;
            }
            let name = entry.file_name();
            if !kind.is_file() || !name.to_str().is_some_and(is_unfinished) {
                continue;
            }
            let metadata = entry.metadata()?;
            if metadata.modified()? < limit {
                fs::remove_file(&path)?;
                count += 1;
                bytes += metadata.len();
            }
        }
    }
    Ok((count, bytes))
}

/// Whether a name is that of a file of a kind that writers make, on its way.
fn is_unfinished(name: &str) -> bool {
    let Some((file, number)) = name.rsplit_once('#') else { return false };
    let ours = [".parquet", ".avro", ".metadata.json"].iter().any(|end| file.ends_with(end));
    ours && !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_was_begun_goes() {
        let directory = tempfile::TempDir::new().expect("a directory");
        let below = |name: &str| directory.path().join(name);
        fs::create_dir_all(below("data/deep")).expect("directories");
        fs::create_dir_all(below("other")).expect("a directory");
        let begun = ["data/a.parquet#1", "data/deep/b.avro#12", "v1.metadata.json#3"];
        let kept = ["data/a.parquet", "data/a.parquet#x", "notes#1", "other/c.parquet#1"];
        for name in begun.iter().chain(&kept) {
            fs::write(below(name), "12345").expect("a file");
        }
        let store = ObjectStoreUrl::local_filesystem();
        let place = Path::parse(directory.path().display().to_string()).expect("a path");
        let others = [place.clone().join("other")];
        let past = DateTime::<Utc>::UNIX_EPOCH;
        let none = remove_unfinished(&store, &place, past, &others).await.expect("nothing");
        assert_eq!(none, (0, 0));
        let future = Utc::now() + chrono::Duration::days(1);
        let removed = remove_unfinished(&store, &place, future, &others).await.expect("removed");
        assert_eq!(removed, (3, 15));
        assert!(kept.iter().all(|name| below(name).exists()));
        assert!(!begun.iter().any(|name| below(name).exists()));
        let bucket = ObjectStoreUrl::parse("s3://bucket").expect("a URL");
        let none = remove_unfinished(&bucket, &place, future, &[]).await.expect("nothing");
        assert_eq!(none, (0, 0));
    }
}
