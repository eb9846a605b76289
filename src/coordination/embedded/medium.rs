//! What a database writes to, with a memory for what went wrong there: the database itself tells only the
//! first error as it was, and does not tell which step of a commit it was in.

use std::io;
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};

use redb::{BackendError, StorageBackend};

use super::disk::Failure;

/// Passes all on.
#[derive(Debug)]
pub(super) struct Medium {
    file: Box<dyn StorageBackend>,
    troubles: Arc<Troubles>,
}

/// The first thing that went wrong, if any has.
#[derive(Debug, Default)]
pub(super) struct Troubles(Mutex<Option<Trouble>>);

#[derive(Debug)]
struct Trouble {
    full: bool,
    reason: String,
    /// Whether all had been written, and only was not made durable.
    unsynced: bool,
}

impl Troubles {
    /// What it was, and whether only what was written already was not made durable.
    pub fn take(&self) -> Option<(Failure, bool)> {
        let trouble = self.0.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let Trouble { full, reason, unsynced } = trouble;
        Some((Failure { full, reason, may_have_landed: false }, unsynced))
    }

    fn note<T>(&self, unsynced: bool, done: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &done {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let (full, reason) = (is_full(error), error.to_string());
            known.get_or_insert(Trouble { full, reason, unsynced });
        }
        done
    }
}

impl Medium {
    pub fn new(file: Box<dyn StorageBackend>) -> (Self, Arc<Troubles>) {
        let troubles = Arc::new(Troubles::default());
        (Self { file, troubles: troubles.clone() }, troubles)
    }
}

/// Whether an error says that there is no room.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl StorageBackend for Medium {
    fn len(&self) -> io::Result<u64> {
        self.troubles.note(false, self.file.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.troubles.note(false, self.file.read(offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        // It grows before anything of a commit is written, and shrinks after.
        let shrinks = self.file.len().is_ok_and(|before| len < before);
        self.troubles.note(shrinks, self.file.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.troubles.note(true, self.file.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.troubles.note(false, self.file.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}
