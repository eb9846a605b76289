//! One object, sent while it is written: in parts if it is large, else at once.

use std::io;
use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::storage::error::brief;

/// Parts under way at once.
const CONCURRENT_PARTS: usize = 4;

/// Bytes of a part, if the object is not a very large one.
const MIN_PART: u64 = 8 * 1024 * 1024;

/// Parts of an object; S3 allows 10,000, and objects grow somewhat beyond their target.
const MAX_PARTS: u64 = 5000;

/// What was written and not sent yet, in parts of one size, as some stores demand.
#[derive(Debug)]
pub(super) struct Parts {
    size: usize,
    full: Vec<Bytes>,
    current: Vec<u8>,
    written: u64,
}

impl Parts {
    /// `target` is about the size of the object.
    pub fn new(target: u64) -> Self {
        let size = usize::try_from((target / MAX_PARTS).max(MIN_PART)).unwrap_or(usize::MAX);
        Self { size, full: Vec::new(), current: Vec::new(), written: 0 }
    }

    pub fn take_full(&mut self) -> Vec<Bytes> {
        mem::take(&mut self.full)
    }

    pub fn take_rest(&mut self) -> Bytes {
        mem::take(&mut self.current).into()
    }

    /// Bytes written so far, sent or not.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Bytes of memory.
    pub fn held(&self) -> usize {
        self.full.len() * self.size + self.current.capacity()
    }
}

impl io::Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = self.size - self.current.len();
            let (now, later) = rest.split_at(rest.len().min(room));
            self.current.extend_from_slice(now);
            rest = later;
            if self.current.len() == self.size {
                self.full.push(mem::take(&mut self.current).into());
                // The object is a large one, so the next part will be full as well.
                self.current.reserve_exact(self.size);
            }
        }
        self.written += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sends the parts of one object. What was sent is removed again unless it is kept: at once by
/// [`discard`](Self::discard), else when it is dropped.
#[derive(Debug)]
pub(super) struct Upload {
    store: Arc<dyn ObjectStore>,
    path: Path,
    /// Begins the upload in parts, whether or not somebody waits: one that nobody knows of would
    /// never be aborted.
    beginning: JoinSet<object_store::Result<Box<dyn MultipartUpload>>>,
    multipart: Option<Box<dyn MultipartUpload>>,
    /// Sizes of the parts when they have arrived.
    parts: JoinSet<object_store::Result<usize>>,
    under_way: usize,
    /// Whether there may be something at the path.
    begun: bool,
}

impl Upload {
    pub fn new(store: Arc<dyn ObjectStore>, path: Path) -> Self {
        let (beginning, parts) = (JoinSet::new(), JoinSet::new());
        Self { store, path, beginning, multipart: None, parts, under_way: 0, begun: false }
    }

    /// Bytes on their way.
    pub fn under_way(&self) -> usize {
        self.under_way
    }

    /// Whether there may be something at the path.
    #[cfg(test)]
    pub fn begun(&self) -> bool {
        self.begun
    }

    /// Begins to send a part; waits while too many are under way.
    pub async fn put(&mut self, part: Bytes) -> object_store::Result<()> {
        self.arrived(CONCURRENT_PARTS - 1).await?;
        self.begun = true;
        if self.multipart.is_none() && self.beginning.is_empty() {
            let (store, path) = (self.store.clone(), self.path.clone());
            self.beginning.spawn(async move { store.put_multipart(&path).await });
        }
        if let Some(begun) = self.beginning.join_next().await {
            self.multipart = Some(begun??);
        }
        let Some(multipart) = &mut self.multipart else { return Ok(()) };
        let size = part.len();
        let sent = multipart.put_part(part.into());
        self.under_way += size;
        self.parts.spawn(async move { sent.await.map(|()| size) });
        Ok(())
    }

    /// Waits until at most `left` parts are under way.
    pub async fn arrived(&mut self, left: usize) -> object_store::Result<()> {
        loop {
            let joined = match self.parts.len() > left {
                true => self.parts.join_next().await,
                false => self.parts.try_join_next(),
            };
            let Some(joined) = joined else { return Ok(()) };
            self.under_way = self.under_way.saturating_sub(joined??);
        }
    }

    /// Sends the rest; afterwards the object is there.
    pub async fn finish(&mut self, rest: Bytes) -> object_store::Result<()> {
        if self.multipart.is_none() {
            self.begun = true;
            self.store.put(&self.path, rest.into()).await?;
            return Ok(());
        }
        if !rest.is_empty() {
            self.put(rest).await?;
        }
        self.arrived(0).await?;
        if let Some(multipart) = &mut self.multipart {
            multipart.complete().await?;
        }
        self.multipart = None;
        Ok(())
    }

    /// The object is to stay.
    pub fn keep(mut self) {
        self.begun = false;
    }

    /// Removes what was sent, as far as the store lets it.
    pub async fn discard(&mut self) {
        if mem::take(&mut self.begun) {
            self.parts.shutdown().await;
            let multipart = known(self.multipart.take(), &mut self.beginning).await;
            remove(&self.store, &self.path, multipart).await;
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !mem::take(&mut self.begun) {
            return;
        }
        // Whoever drops it does not wait. What is left behind when the runtime ends first belongs
        // to no snapshot, and goes with the other orphans.
        let Ok(runtime) = Handle::try_current() else { return };
        let (store, path) = (self.store.clone(), self.path.clone());
        let multipart = self.multipart.take();
        let mut beginning = mem::take(&mut self.beginning);
        let mut parts = mem::take(&mut self.parts);
        runtime.spawn(async move {
            parts.shutdown().await;
            let multipart = known(multipart, &mut beginning).await;
            remove(&store, &path, multipart).await;
        });
    }
}

/// An upload in parts, also one whose beginning nobody has waited for.
async fn known(
    multipart: Option<Box<dyn MultipartUpload>>,
    beginning: &mut JoinSet<object_store::Result<Box<dyn MultipartUpload>>>,
) -> Option<Box<dyn MultipartUpload>> {
    match beginning.join_next().await {
        Some(Ok(Ok(begun))) => Some(begun),
        _ => multipart,
    }
}

async fn remove(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    multipart: Option<Box<dyn MultipartUpload>>,
) {
    // A completion that was interrupted may have come through.
    let aborted = match multipart {
        Some(mut multipart) => multipart.abort().await,
        None => Ok(()),
    };
    for removed in [aborted, store.delete(path).await] {
        match removed {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            // A file system that is read-only says so of what is not there as well.
            Err(_) if is_absent(store, path).await => {}
            Err(error) => {
                let error = brief(&error);
                tracing::warn!(%path, error, "an unfinished data file is left behind");
            }
        }
    }
}

async fn is_absent(store: &Arc<dyn ObjectStore>, path: &Path) -> bool {
    matches!(store.head(path).await, Err(object_store::Error::NotFound { .. }))
}
