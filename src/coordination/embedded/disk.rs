//! The file beneath the embedded store: the persistent nodes and the last transaction number.
//!
//! A database that has met an error of the disk once takes nothing any more. Then a new file is written
//! from what is in memory, which is all that was acknowledged and nothing else, and takes the old one's
//! place ([`Place::write_anew`]): so it is decided that what failed is not there, whatever the old file
//! has of it, and what a failed `fsync` may have left unwritten is written again.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use redb::backends::FileBackend;
use redb::{
    Builder, Database, DatabaseError, ReadableTable, StorageBackend, StorageError, TableDefinition,
};
use rustix::fs::statvfs;

use super::medium::{Medium, Troubles, is_full};
use super::tree::{Changes, Record};
use crate::coordination::{Error, Result};

const FILE: &str = "coordination.redb";

/// What is to take its place, until it is whole.
const FRESH: &str = "coordination.redb.new";

/// Bytes that there must be room for when a daemon starts.
const ROOM: usize = 256 << 10;

/// czxid, mzxid, ctime, mtime, version, children ever created, data.
type Stored = (i64, i64, i64, i64, i32, i32, &'static [u8]);

/// By path.
const NODES: TableDefinition<&str, Stored> = TableDefinition::new("nodes");
const META: TableDefinition<&str, i64> = TableDefinition::new("meta");

const FORMAT: i64 = 1;

/// The whole tree is in memory, so pages are hardly read again.
const CACHE_BYTES: usize = 4 << 20;

/// Why a commit failed.
#[derive(Debug)]
pub(super) struct Failure {
    /// Whether there is no room.
    pub full: bool,
    pub reason: String,
    /// Whether the disk failed while the commit was being made durable, so that it may be there.
    pub may_have_landed: bool,
}

/// An open file.
#[derive(Debug)]
pub(super) struct Disk {
    database: Database,
    troubles: Arc<Troubles>,
}

/// Where the file is.
pub(super) enum Place {
    Directory(PathBuf),
    /// Nowhere: the store is in memory and has no file.
    Memory,
    /// In memory, as made by this.
    #[cfg(test)]
    Made(Box<dyn Fn() -> Box<dyn StorageBackend> + Send + Sync>),
}

/// What was on the disk.
pub(super) struct Loaded {
    pub disk: Disk,
    pub place: Place,
    pub records: Vec<(String, Record)>,
    /// Numbers for transactions and sessions begin above this.
    pub zxid: i64,
}

impl Place {
    pub fn open(dir: &Path) -> Result<Loaded> {
        let place = Self::Directory(dir.to_owned());
        let failed = |error: io::Error| place.not_opened(&error.into());
        // The first file is there whole or not at all, as each that takes its place.
        if std::fs::metadata(dir.join(FILE)).is_ok_and(|file| file.len() > 0) {
            let file = private(dir, FILE).map_err(failed)?;
            let opened = FileBackend::new(file).and_then(|backend| Disk::open(Box::new(backend)));
            let disk = opened.map_err(|error| place.of(error))?;
            return place.load(disk);
        }
        let disk = place.write_anew(&[], 0).map_err(|failure| place.not_opened(&failure))?;
        place.load(disk)
    }

    #[cfg(test)]
    pub fn made(
        made: impl Fn() -> Box<dyn StorageBackend> + Send + Sync + 'static,
    ) -> Result<Loaded> {
        let disk = Disk::open(made());
        let place = Self::Made(Box::new(made));
        let disk = disk.map_err(|error| place.of(error))?;
        place.load(disk)
    }

    fn load(self, disk: Disk) -> Result<Loaded> {
        match disk.read() {
            Ok((records, zxid)) => Ok(Loaded { disk, place: self, records, zxid }),
            Err(Unread::Redb(error)) => Err(self.not_opened(&disk.failure(error))),
            Err(Unread::Format(found)) => {
                let reason = format!("its format is {found}, and this program knows {FORMAT}");
                Err(Error::Storage { reason: format!("{self}: {reason}") })
            }
        }
    }

    /// A new file with these nodes, in place of the one that is there, if any.
    pub fn write_anew(&self, nodes: &[(String, Record)], zxid: i64) -> Result<Disk, Failure> {
        let dir = match self {
            Self::Directory(dir) => dir,
            Self::Memory => {
                let reason = "a store in memory has no file".to_owned();
                return Err(Failure { full: false, reason, may_have_landed: false });
            }
            #[cfg(test)]
            Self::Made(made) => return Disk::new(made(), nodes, zxid),
        };
        let fresh = dir.join(FRESH);
        let written = || {
            std::fs::create_dir_all(dir)?;
            let bytes = |(path, node): &(String, Record)| (path.len() + node.data.len()) as u64;
            let room = statvfs(dir).map_err(io::Error::from)?;
            let least = nodes.iter().map(bytes).sum();
            if room.f_bavail.saturating_mul(room.f_frsize) < least {
                // To find that out byte by byte would take the room from others meanwhile.
                return Err(io::Error::from(io::ErrorKind::StorageFull).into());
            }
            // One that was left behind.
            match std::fs::remove_file(&fresh) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
            let file = private(dir, FRESH)?;
            let backend = FileBackend::new(file).map_err(|error| Failure::of(error.into()))?;
            let disk = Disk::new(Box::new(backend), nodes, zxid)?;
            std::fs::rename(&fresh, dir.join(FILE))?;
            sync(dir)?;
            Ok(disk)
        };
        // What there is of it would only take room.
        written().inspect_err(|_| drop(std::fs::remove_file(&fresh)))
    }

    /// What a failure to open or read the file is.
    fn not_opened(&self, failure: &Failure) -> Error {
        match failure.full {
            true => self.error(failure),
            false => Error::Storage { reason: format!("{self}: {}", failure.reason) },
        }
    }

    /// What a failure is for those who wanted something written.
    pub fn error(&self, failure: &Failure) -> Error {
        let Failure { full, reason, may_have_landed } = failure;
        match may_have_landed {
            true => Error::Ambiguous { reason: format!("{self}: {reason}") },
            false => {
                Error::Unwritable { place: self.to_string(), full: *full, reason: reason.clone() }
            }
        }
    }

    /// What it is that the file cannot be opened.
    fn of(&self, error: DatabaseError) -> Error {
        match error {
            DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
                let reason = format!("{self}: another process holds this directory");
                Error::Storage { reason }
            }
            DatabaseError::Storage(StorageError::Io(error)) if is_full(&error) => {
                self.error(&error.into())
            }
            other => Error::Storage { reason: format!("{self}: {other}") },
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Directory(dir) => dir.display().fmt(f),
            Self::Memory => f.write_str("memory"),
            #[cfg(test)]
            Self::Made(_) => f.write_str("memory"),
        }
    }
}

/// Whether there is room in a directory for what a daemon writes. [`Error::Unwritable`] if not.
pub(super) fn has_room(dir: &Path) -> Result<()> {
    let path = dir.join(FRESH);
    let written = private(dir, FRESH).and_then(|mut file| {
        file.write_all(&[b'x'; ROOM])?;
        file.sync_all()
    });
    let removed = std::fs::remove_file(&path);
    let place = Place::Directory(dir.to_owned());
    written.and(removed).map_err(|error| place.error(&error.into()))
}

impl Disk {
    fn open(backend: Box<dyn StorageBackend>) -> Result<Self, DatabaseError> {
        let (medium, troubles) = Medium::new(backend);
        let mut builder = Builder::new();
        // A damaged file is to be an error that names it, not a panic.
        builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
        Ok(Self { database: builder.create_with_backend(medium)?, troubles })
    }

    /// With these nodes, durable.
    fn new(
        backend: Box<dyn StorageBackend>,
        nodes: &[(String, Record)],
        zxid: i64,
    ) -> Result<Self, Failure> {
        let disk = Self::open(backend).map_err(|error| Failure::of(error.into()))?;
        let filled = || -> Result<(), redb::Error> {
            let transaction = disk.database.begin_write()?;
            let mut meta = transaction.open_table(META)?;
            meta.insert("format", FORMAT)?;
            meta.insert("zxid", zxid)?;
            let mut all = transaction.open_table(NODES)?;
            for (path, node) in nodes {
                all.insert(path.as_str(), stored(node))?;
            }
            drop((meta, all));
            Ok(transaction.commit()?)
        };
        filled().map_err(|error| disk.failure(error))?;
        Ok(disk)
    }

    /// What an error was, before anything counts.
    fn failure(&self, error: redb::Error) -> Failure {
        let told = self.troubles.take();
        let failure = told.map_or_else(|| Failure::of(error), |(failure, _)| failure);
        Failure { may_have_landed: false, ..failure }
    }

    /// Reads all nodes, and begins a new epoch: as in ZooKeeper, the upper half of a transaction's
    /// number. So numbers grow even if the last ones of the epoch before were never stored, since
    /// they were given to ephemeral nodes.
    fn read(&self) -> Result<(Vec<(String, Record)>, i64), Unread> {
        let transaction = self.database.begin_write()?;
        let mut records = Vec::new();
        let zxid;
        {
            let mut meta = transaction.open_table(META)?;
            let format = meta.get("format")?.map(|format| format.value());
            match format {
                None => drop(meta.insert("format", FORMAT)?),
                Some(FORMAT) => (),
                Some(other) => return Err(Unread::Format(other)),
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

    /// Writes what belongs on disk, and returns once it is there. After a failure this takes nothing any
    /// more.
    pub fn commit(&self, changes: &Changes) -> Result<(), Failure> {
        let staged = self.stage(changes).map_err(|error| self.failure(error))?;
        staged.commit().map_err(|error| match self.troubles.take() {
            // Before a commit counts all of it is written, and known by its checksums. So what could not
            // be written is not there, and only what was not made durable may be.
            Some((failure, unsynced)) => Failure { may_have_landed: unsynced, ..failure },
            None => Failure { may_have_landed: true, ..Failure::of(error.into()) },
        })
    }

    fn stage(&self, changes: &Changes) -> Result<redb::WriteTransaction, redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut nodes = transaction.open_table(NODES)?;
            for path in &changes.durable {
                match changes.nodes.get(path) {
                    Some(Some(node)) if node.owner == 0 => {
                        nodes.insert(path.as_str(), stored(node))?;
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

fn stored(node: &Record) -> (i64, i64, i64, i64, i32, i32, &[u8]) {
    let Record { czxid, mzxid, ctime, mtime, version, created, data, .. } = node;
    (*czxid, *mzxid, *ctime, *mtime, *version, *created, data.as_ref())
}

impl Failure {
    fn of(error: redb::Error) -> Self {
        match error {
            redb::Error::Io(error) => error.into(),
            other => Self { full: false, reason: other.to_string(), may_have_landed: false },
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self { full: is_full(&error), reason: error.to_string(), may_have_landed: false }
    }
}

/// Why what is on the disk was not read.
enum Unread {
    Redb(redb::Error),
    Format(i64),
}

impl<E: Into<redb::Error>> From<E> for Unread {
    fn from(error: E) -> Self {
        Self::Redb(error.into())
    }
}

/// A file of the directory, once it is there for nobody else to read: it has the verifiers of all passwords.
fn private(dir: &Path, name: &str) -> io::Result<File> {
    std::fs::create_dir_all(dir)?;
    std::fs::set_permissions(dir, Permissions::from_mode(0o700))?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(dir.join(name))?;
    // One that an earlier version made.
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir).and_then(|directory| directory.sync_all())
}
