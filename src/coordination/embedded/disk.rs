//! The file beneath the embedded store: the persistent nodes and the last transaction number.

use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use redb::backends::InMemoryBackend;
use redb::{Builder, Database, DatabaseError, ReadableTable, StorageBackend, TableDefinition};

use super::tree::{Changes, Record};
use crate::coordination::{Error, Result};

const FILE: &str = "coordination.redb";

/// czxid, mzxid, ctime, mtime, version, children ever created, data.
type Stored = (i64, i64, i64, i64, i32, i32, &'static [u8]);

/// By path.
const NODES: TableDefinition<&str, Stored> = TableDefinition::new("nodes");
const META: TableDefinition<&str, i64> = TableDefinition::new("meta");

const FORMAT: i64 = 1;

/// The whole tree is in memory, so pages are hardly read again.
const CACHE_BYTES: usize = 4 << 20;

/// Why a commit failed.
pub(super) enum CommitError {
    /// Nothing was written.
    Refused(String),
    /// The disk failed while the commit was being made durable.
    Unknown(String),
}

#[derive(Debug)]
pub(super) struct Disk {
    database: Database,
}

/// What was on the disk.
pub(super) struct Loaded {
    pub disk: Disk,
    pub records: Vec<(String, Record)>,
    /// Numbers for transactions and sessions begin above this.
    pub zxid: i64,
}

impl Disk {
    pub fn open(dir: &Path) -> Result<Loaded> {
        let failed =
            |reason: String| Error::Storage { reason: format!("{}: {reason}", dir.display()) };
        let file = private(dir).map_err(|error| failed(error.to_string()))?;
        let database = builder().create(file).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
                failed("another process holds this directory".to_owned())
            }
            other => failed(other.to_string()),
        })?;
        // The file's name is durable only with its directory.
        let synced = File::open(dir).and_then(|directory| directory.sync_all());
        synced.map_err(|error| failed(error.to_string()))?;
        Self::load(database).map_err(failed)
    }

    /// Forgotten when closed.
    pub fn in_memory() -> Result<Loaded> {
        Self::with_backend(InMemoryBackend::new())
    }

    pub(super) fn with_backend(backend: impl StorageBackend) -> Result<Loaded> {
        let storage = |reason| Error::Storage { reason };
        let database = builder().create_with_backend(backend);
        Self::load(database.map_err(|error| storage(error.to_string()))?).map_err(storage)
    }

    fn load(database: Database) -> Result<Loaded, String> {
        let disk = Self { database };
        match disk.read() {
            Ok((records, zxid)) => Ok(Loaded { disk, records, zxid }),
            Err(Failure::Redb(error)) => Err(error.to_string()),
            Err(Failure::Format(found)) => {
                Err(format!("its format is {found}, and this program knows {FORMAT}"))
            }
        }
    }

    /// Reads all nodes, and begins a new epoch: as in ZooKeeper, the upper half of a transaction's
    /// number. So numbers grow even if the last ones of the epoch before were never stored, since
    /// they were given to ephemeral nodes.
    fn read(&self) -> Result<(Vec<(String, Record)>, i64), Failure> {
        let transaction = self.database.begin_write()?;
        let mut records = Vec::new();
        let zxid;
        {
            let mut meta = transaction.open_table(META)?;
            let format = meta.get("format")?.map(|format| format.value());
            match format {
                None => drop(meta.insert("format", FORMAT)?),
                Some(FORMAT) => (),
                Some(other) => return Err(Failure::Format(other)),
            }
            let last = meta.get("zxid")?.map_or(0, |last| last.value());
            zxid = ((last >> 32) + 1) << 32;
            meta.insert("zxid", zxid)?;
            let nodes = transaction.open_table(NODES)?;
            for node in nodes.iter()? {
                let (path, node) = node?;
                let (czxid, mzxid, ctime, mtime, version, created, data) = node.value();
                let data = Bytes::copy_from_slice(data);
                let record = Record {
                    data,
                    czxid,
                    mzxid,
                    ctime,
                    mtime,
                    version,
                    created,
                    ..Record::default()
                };
                records.push((path.value().to_owned(), record));
            }
        }
        transaction.commit()?;
        Ok((records, zxid))
    }

    /// Writes what belongs on disk, and returns once it is there.
    pub fn commit(&self, changes: &Changes) -> Result<(), CommitError> {
        let transaction =
            self.stage(changes).map_err(|error| CommitError::Refused(error.to_string()))?;
        transaction.commit().map_err(|error| CommitError::Unknown(error.to_string()))
    }

    fn stage(&self, changes: &Changes) -> Result<redb::WriteTransaction, redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut nodes = transaction.open_table(NODES)?;
            for path in &changes.durable {
                match changes.nodes.get(path) {
                    Some(Some(node)) if node.owner == 0 => {
                        let value = (
                            node.czxid,
                            node.mzxid,
                            node.ctime,
                            node.mtime,
                            node.version,
                            node.created,
                            node.data.as_ref(),
                        );
                        nodes.insert(path.as_str(), value)?;
                    }
                    // Deleted, or made again as an ephemeral node.
                    _ => drop(nodes.remove(path.as_str())?),
                }
            }
            transaction.open_table(META)?.insert("zxid", changes.zxid)?;
        }
        Ok(transaction)
    }
}

enum Failure {
    Redb(redb::Error),
    Format(i64),
}

impl<E: Into<redb::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Redb(error.into())
    }
}

/// The file's path, once it is there for nobody else to read: it has the verifiers of all passwords.
fn private(dir: &Path) -> std::io::Result<PathBuf> {
    std::fs::create_dir_all(dir)?;
    std::fs::set_permissions(dir, Permissions::from_mode(0o700))?;
    let path = dir.join(FILE);
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).mode(0o600).open(&path)?;
    // One that an earlier version made.
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(path)
}

fn builder() -> Builder {
    let mut builder = Database::builder();
    // A damaged file is to be an error that names it, not a panic.
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder
}
