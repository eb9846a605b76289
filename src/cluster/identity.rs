//! The cluster's UUID: a store that lost its data, or another store, is recognised by it.

use std::collections::BTreeMap;
use std::path::{Path as FilePath, PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tracing::info;
use uuid::Uuid;

use super::{Error, Result};
use crate::coordination::paths::Path;
use crate::coordination::{self, Coordination, Mode};
use crate::id;
use crate::tls;

/// The version of the forms in which znodes are written. A daemon refuses a store whose number is
/// greater: it would misread what newer daemons have written there.
pub const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct ClusterRecord {
    uuid: Uuid,
    #[serde(default = "first_format")]
    format: u32,
    /// When all of the store was taken from a back-up, in RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    restored_at: Option<String>,
}

/// That of stores from before it was written down.
fn first_format() -> u32 {
    1
}

/// The cluster's UUID as the store has it; `None` if it has none.
pub(super) async fn read(coordination: &dyn Coordination) -> Result<Option<Uuid>> {
    Ok(record(coordination).await?.map(|record| record.uuid))
}

async fn record(coordination: &dyn Coordination) -> Result<Option<ClusterRecord>> {
    let path = Path::Cluster.to_string();
    let Some(node) = coordination.get(&path).await? else { return Ok(None) };
    let record: ClusterRecord =
        serde_json::from_slice(&node.data).map_err(|source| Error::BadRecord { path, source })?;
    if record.format > FORMAT {
        return Err(Error::NewerFormat { found: record.format, known: FORMAT });
    }
    Ok(Some(record))
}

/// When the store was taken from a back-up, if it was: what was made before then may be missing in it.
pub async fn restored_at(coordination: &dyn Coordination) -> Result<Option<DateTime<Utc>>> {
    let at = record(coordination).await?.and_then(|record| record.restored_at);
    // What cannot be read might be any time until now.
    let parsed =
        |at: String| DateTime::parse_from_rfc3339(&at).map_or_else(|_| Utc::now(), Into::into);
    Ok(at.map(parsed))
}

/// The UUID of the cluster to join. The first daemon of a new store makes it; a daemon that knew
/// this store under another UUID refuses.
///
/// `file` in the data directory remembers, for each store by its name, which cluster it held.
pub(super) async fn establish(
    coordination: &dyn Coordination,
    store: &str,
    file: &FilePath,
) -> Result<Uuid> {
    let mut known = load(file)?;
    let found = match read(coordination).await? {
        Some(uuid) => Some(uuid),
        None if known.contains_key(store) => None,
        None => Some(create(coordination).await?),
    };
    match (found, known.get(store)) {
        (Some(found), Some(expected)) if found == *expected => Ok(found),
        (Some(found), None) => {
            known.insert(store.to_owned(), found);
            save(file, &known)?;
            Ok(found)
        }
        (found, expected) => Err(Error::OtherCluster {
            expected: expected.map(Uuid::to_string).unwrap_or_default(),
            found: found.map_or_else(|| "no".to_owned(), |uuid| uuid.to_string()),
            file: file.display().to_string(),
        }),
    }
}

async fn create(coordination: &dyn Coordination) -> Result<Uuid> {
    let path = Path::Cluster.to_string();
    let record = ClusterRecord { uuid: id::nonce(), format: FORMAT, restored_at: None };
    let data = serde_json::to_vec(&record)
        .map_err(|source| Error::BadRecord { path: path.clone(), source })?;
    match coordination.create(&path, data.into(), Mode::Persistent).await {
        Ok(_) => Ok(record.uuid),
        // Whoever was first, or whatever became of a lost reply: what is there now counts.
        Err(error) => match (read(coordination).await?, error) {
            (Some(uuid), _) => Ok(uuid),
            (None, error) => Err(error.into()),
        },
    }
}

#[derive(Serialize, Deserialize)]
struct PeerKey {
    key: String,
    /// Whether it was made where nobody else could read it.
    #[serde(default)]
    protected: bool,
}

/// The key with which the cluster's daemons sign the certificates that they show each other. One that
/// others could read once is not used where they cannot any more: it is replaced.
pub(super) async fn peer_key(coordination: &dyn Coordination, protected: bool) -> Result<String> {
    let path = Path::PeerKey.to_string();
    let read = async || -> Result<Option<(PeerKey, i32)>> {
        let Some(node) = coordination.get(&path).await? else { return Ok(None) };
        let record = serde_json::from_slice(&node.data)
            .map_err(|source| Error::BadRecord { path: path.clone(), source })?;
        Ok(Some((record, node.stat.version)))
    };
    let fit = |record: &PeerKey| record.protected || !protected;
    let found = read().await?;
    let version = match found {
        Some((record, _)) if fit(&record) => return Ok(record.key),
        Some((_, version)) => Some(version),
        None => None,
    };
    let record = PeerKey { key: tls::new_cluster_key()?, protected };
    let data = serde_json::to_vec(&record)
        .map_err(|source| Error::BadRecord { path: path.clone(), source })?
        .into();
    let written = match version {
        Some(_) => coordination.set(&path, data, version).await.map(drop),
        None => coordination.create(&path, data, Mode::Persistent).await.map(drop),
    };
    match written {
        Ok(()) => {
            if version.is_some() {
                info!(path, "the key between daemons could be read by others: it is a new one now");
            }
            Ok(record.key)
        }
        // Whoever was first, or whatever became of a lost reply: what is there now counts.
        Err(error) => match read().await? {
            Some((record, _)) if fit(&record) => Ok(record.key),
            _ => Err(error.into()),
        },
    }
}

fn load(file: &FilePath) -> Result<BTreeMap<String, Uuid>> {
    let loaded = match std::fs::read(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        read => read.and_then(|text| serde_json::from_slice(&text).map_err(std::io::Error::other)),
    };
    loaded.map_err(|source| Error::File { path: file.display().to_string(), source })
}

/// Replaces a file in one step: whatever happens, it holds the old or the new text.
fn replace(file: &FilePath, text: &[u8]) -> Result<()> {
    use std::io::Write;
    let written = || {
        let next = file.with_extension("new");
        let mut handle = std::fs::File::create(&next)?;
        handle.write_all(text)?;
        handle.sync_all()?;
        std::fs::rename(&next, file)
    };
    written().map_err(|source| Error::File { path: file.display().to_string(), source })
}

fn save(file: &FilePath, known: &BTreeMap<String, Uuid>) -> Result<()> {
    let text = serde_json::to_vec_pretty(known).map_err(std::io::Error::other);
    let text = text.map_err(|source| Error::File { path: file.display().to_string(), source })?;
    replace(file, &text)
}

/// The data directory's own identity, made on first use.
pub(super) fn instance(file: &FilePath) -> Result<Uuid> {
    let failed = |source| Error::File { path: file.display().to_string(), source };
    match std::fs::read_to_string(file) {
        Ok(text) => text.trim().parse().map_err(|error| failed(std::io::Error::other(error))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let uuid = id::nonce();
            replace(file, uuid.to_string().as_bytes())?;
            Ok(uuid)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Where the two files are.
pub(super) fn files(data_dir: &FilePath) -> (PathBuf, PathBuf) {
    (data_dir.join("clusters.json"), data_dir.join("instance"))
}

/// The nodes whose children this room owns.
pub(super) async fn ensure_roots(coordination: &dyn Coordination) -> Result<()> {
    for path in [Path::Daemons, Path::Incarnations] {
        coordination::ensure(coordination, &path.to_string()).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::coordination::embedded::{self, EmbeddedStore};

    #[tokio::test]
    async fn a_store_of_a_newer_format_is_refused() {
        let store = EmbeddedStore::in_memory().expect("a store");
        let limit = Duration::from_secs(60);
        let options = embedded::Options { session_timeout: limit, request_timeout: limit };
        let session = store.connect(options);
        let uuid = create(session.as_ref()).await.expect("made");
        assert_eq!(read(session.as_ref()).await.expect("read"), Some(uuid));
        let path = Path::Cluster.to_string();
        let old = serde_json::json!({ "uuid": uuid }).to_string();
        session.set(&path, old.into(), None).await.expect("written");
        assert_eq!(read(session.as_ref()).await.expect("read"), Some(uuid));
        let newer = serde_json::json!({ "uuid": uuid, "format": FORMAT + 1 }).to_string();
        session.set(&path, newer.into(), None).await.expect("written");
        let refused = read(session.as_ref()).await;
        assert!(matches!(refused, Err(Error::NewerFormat { .. })), "{refused:?}");
    }

    #[tokio::test]
    async fn a_key_that_others_could_read_is_replaced_once_they_cannot() {
        let store = EmbeddedStore::in_memory().expect("a store");
        let limit = Duration::from_secs(60);
        let options = embedded::Options { session_timeout: limit, request_timeout: limit };
        let session = store.connect(options);
        let open = peer_key(session.as_ref(), false).await.expect("a key");
        assert_eq!(peer_key(session.as_ref(), false).await.expect("a key"), open);
        let closed = peer_key(session.as_ref(), true).await.expect("a key");
        assert_ne!(closed, open);
        for protected in [true, false] {
            assert_eq!(peer_key(session.as_ref(), protected).await.expect("a key"), closed);
        }
        // As earlier versions have written it.
        let path = Path::PeerKey.to_string();
        let old = serde_json::json!({ "key": open }).to_string();
        session.set(&path, old.into(), None).await.expect("written");
        assert_eq!(peer_key(session.as_ref(), false).await.expect("a key"), open);
        let new = peer_key(session.as_ref(), true).await.expect("a key");
        assert!(new != open && new != closed);
    }
}
