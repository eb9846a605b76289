//! The data directory: one daemon's own, locked for as long as its process lives.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// What is below it for the tables of a daemon alone.
pub const WAREHOUSE: &str = "warehouse";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("data_dir: {path} is used by another process ({holder}); each daemon needs its own")]
    InUse { path: PathBuf, holder: String },
    #[error("data_dir: {path} is no directory: name one, which is made if it is not there")]
    NotADirectory { path: PathBuf },
    #[error("data_dir: cannot use {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

/// A locked data directory. The kernel releases the lock with the process, however it ends: who
/// holds it knows that its predecessor is dead.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the directory if it is missing, and locks it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Io { path: path.to_owned(), source };
        std::fs::create_dir_all(path).map_err(|source| {
            // It, or what it should be in.
            let file = path.ancestors().find(|place| place.exists() && !place.is_dir());
            file.map_or_else(|| failed(source), |file| Error::NotADirectory { path: file.into() })
        })?;
        let path = path.canonicalize().map_err(failed)?;
        let failed = |source| Error::Io { path: path.clone(), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut lock = options.open(path.join("lock")).map_err(failed)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut holder = String::new();
            let _ = lock.read_to_string(&mut holder);
            let holder = if holder.is_empty() { "unknown".to_owned() } else { holder };
            return Err(Error::InUse { path, holder });
        }
        lock.set_len(0).map_err(failed)?;
        write!(lock, "pid {}", std::process::id()).map_err(failed)?;
        Ok(Self { path, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The daemon's name, made from the host's on first use and kept.
    pub fn default_id(&self) -> Result<String, Error> {
        let file = self.path.join("id");
        if let Ok(id) = std::fs::read_to_string(&file)
            && !id.trim().is_empty()
        {
            return Ok(id.trim().to_owned());
        }
        let host = host_name();
        let id = format!("{host}-{:04x}", uuid::Uuid::new_v4().as_u128() as u16);
        std::fs::write(&file, &id).map_err(|source| Error::Io { path: file, source })?;
        Ok(id)
    }
}

/// The host's name, without its domain.
pub fn host_name() -> String {
    let name = rustix::system::uname();
    let name = name.nodename().to_string_lossy();
    let short = name.split('.').next().unwrap_or_default();
    if short.is_empty() { "oribi".to_owned() } else { short.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_user_is_refused_and_the_name_is_kept() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let first = DataDir::open(directory.path()).expect("free");
        let id = first.default_id().expect("writable");
        let error = DataDir::open(directory.path()).expect_err("locked");
        assert!(matches!(&error, Error::InUse { holder, .. } if holder.starts_with("pid ")));
        drop(first);
        let second = DataDir::open(directory.path()).expect("free again");
        assert_eq!(second.default_id().expect("readable"), id);
    }

    #[test]
    fn a_file_is_no_directory() {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        for path in [file.path().to_owned(), file.path().join("below")] {
            let error = DataDir::open(&path).expect_err("a file");
            assert!(
                matches!(&error, Error::NotADirectory { path } if path == file.path()),
                "{error}"
            );
        }
    }
}
