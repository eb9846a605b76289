//! The embedded store: coordination in process and persistent, for one daemon without ZooKeeper.
//!
//! Persistent nodes are in one file and, with all others, in memory. Ephemeral nodes are in memory
//! only and go with their session or the process. The life of a write:
//!
//! 1. the caller puts it into the queue; if nobody is working the queue off, it starts a blocking
//!    task that does;
//! 2. that task takes all that waits as one batch and applies it on top of the tree, unseen;
//! 3. what is persistent goes to the file in one commit with one `fsync`, however many wait for it;
//! 4. the batch becomes visible, the watches fire, the callers get their answers.
//!
//! So a read never sees what a crash could take back.

mod disk;
mod session;
mod tree;

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use self::disk::{CommitError, Disk, Loaded};
use self::session::Line;
use self::tree::{Batch, Changes, Tree};
use super::{Error, Op, Outcome, Result};

pub use self::session::EmbeddedSession;

/// How a session uses the store.
#[derive(Clone, Debug)]
pub struct Options {
    /// What [`Session::timeout`](super::Session::timeout) says. A session ends when it is closed or
    /// dropped, and with the process; the store never expires it by itself.
    pub session_timeout: Duration,
    /// Bound of every call.
    pub request_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { session_timeout: Duration::from_secs(10), request_timeout: Duration::from_secs(10) }
    }
}

/// A store, open for as long as this or a session of it lives.
#[derive(Debug)]
pub struct EmbeddedStore {
    shared: Arc<Shared>,
}

impl EmbeddedStore {
    /// Opens the store in a directory, which is made if it is missing. Blocks for the disk.
    ///
    /// [`Error::Storage`] names the directory: it cannot be read or written, its file is damaged,
    /// or another process holds it.
    pub fn open(dir: &Path) -> Result<Arc<Self>> {
        Ok(Self::new(Disk::open(dir)?))
    }

    /// A store that is forgotten when closed: for tests and simulation.
    pub fn in_memory() -> Result<Arc<Self>> {
        Ok(Self::new(Disk::in_memory()?))
    }

    fn new(loaded: Loaded) -> Arc<Self> {
        let shared = Shared {
            tree: RwLock::new(Tree::load(loaded.records)),
            queue: Mutex::default(),
            writer: Mutex::new(Writer { disk: Some(loaded.disk), zxid: loaded.zxid }),
            lines: Mutex::default(),
            last_session: AtomicI64::new(loaded.zxid),
        };
        Arc::new(Self { shared: Arc::new(shared) })
    }

    /// A new session, connected at once.
    pub fn connect(self: &Arc<Self>, options: Options) -> Arc<EmbeddedSession> {
        EmbeddedSession::new(self.clone(), options)
    }
}

impl Drop for EmbeddedStore {
    /// Closes the file, so that it can be opened again at once. Waits for a commit under way.
    fn drop(&mut self) {
        drop(lock(&self.shared.writer).disk.take());
    }
}

/// What the queue carries.
enum Command {
    Write(Vec<Op>),
    /// Ends the session.
    End,
}

struct Request {
    session: i64,
    command: Command,
    reply: oneshot::Sender<Result<Vec<Outcome>>>,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Request>,
    /// Whether someone is working the queue off.
    led: bool,
}

#[derive(Debug)]
struct Writer {
    /// `None` once the store was closed.
    disk: Option<Disk>,
    zxid: i64,
}

/// Locks are taken in this order: `writer`, then `tree`, then `lines`; `queue` by itself.
struct Shared {
    tree: RwLock<Tree>,
    queue: Mutex<Queue>,
    writer: Mutex<Writer>,
    lines: Mutex<Vec<Weak<Line>>>,
    last_session: AtomicI64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedStore").finish_non_exhaustive()
    }
}

impl Shared {
    fn open_session(&self) -> i64 {
        let session = self.last_session.fetch_add(1, Ordering::Relaxed) + 1;
        self.tree.write().unwrap_or_else(PoisonError::into_inner).open_session(session);
        session
    }

    fn read<T>(&self, read: impl FnOnce(&Tree) -> T) -> T {
        read(&self.tree.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Queues a request; its answer arrives even if the caller's task ends meanwhile.
    fn submit(
        self: &Arc<Self>,
        session: i64,
        command: Command,
    ) -> oneshot::Receiver<Result<Vec<Outcome>>> {
        let (reply, answer) = oneshot::channel();
        let mut queue = lock(&self.queue);
        queue.waiting.push(Request { session, command, reply });
        if !queue.led {
            queue.led = true;
            drop(queue);
            let lead = Lead { shared: self.clone(), done: false };
            match Handle::try_current() {
                // Ends by itself as soon as the queue is empty.
                Ok(runtime) => drop(runtime.spawn_blocking(move || lead.work_off())),
                Err(_) => lead.work_off(),
            }
        }
        answer
    }

    fn execute(&self, requests: Vec<Request>) {
        let mut writer = lock(&self.writer);
        let mut answers = Vec::with_capacity(requests.len());
        let changes = self.read(|tree| {
            let mut batch = Batch::new(tree, writer.zxid);
            for Request { session, command, reply } in requests {
                match command {
                    // The caller gave up before anything was done.
                    Command::Write(_) if reply.is_closed() => (),
                    Command::Write(ops) => answers.push((reply, batch.write(session, ops))),
                    Command::End => {
                        batch.end(session);
                        answers.push((reply, Ok(Vec::new())));
                    }
                }
            }
            batch.into_changes()
        });
        match writer.persist(&changes) {
            Ok(()) => {
                writer.zxid = changes.zxid;
                self.publish(changes);
            }
            // Later writes of the batch were judged on top of earlier ones, so all of them fail.
            Err(failure) => {
                for (_, answer) in &mut answers {
                    *answer = Err(failure.error());
                }
            }
        }
        drop(writer);
        for (reply, answer) in answers {
            // A caller that has gone needs no answer.
            let _ = reply.send(answer);
        }
    }

    fn publish(&self, mut changes: Changes) {
        let events = std::mem::take(&mut changes.events);
        let mut tree = self.tree.write().unwrap_or_else(PoisonError::into_inner);
        tree.apply(changes);
        let mut lines = lock(&self.lines);
        lines.retain(|line| match line.upgrade() {
            Some(line) => {
                line.fire(&events);
                true
            }
            None => false,
        });
    }
}

impl Writer {
    fn persist(&self, changes: &Changes) -> Result<(), CommitError> {
        if changes.durable.is_empty() {
            return Ok(());
        }
        let disk = self.disk.as_ref();
        disk.ok_or_else(|| CommitError::Refused("it was closed".to_owned()))?.commit(changes)
    }
}

impl CommitError {
    fn error(&self) -> Error {
        match self {
            Self::Refused(reason) => Error::Storage { reason: reason.clone() },
            Self::Unknown(reason) => Error::Ambiguous { reason: reason.clone() },
        }
    }
}

/// The duty to work the queue off. If it is dropped undone (the runtime stops), the next caller
/// takes it over.
struct Lead {
    shared: Arc<Shared>,
    done: bool,
}

impl Lead {
    fn work_off(mut self) {
        loop {
            let requests = {
                let mut queue = lock(&self.shared.queue);
                if queue.waiting.is_empty() {
                    queue.led = false;
                    self.done = true;
                    return;
                }
                std::mem::take(&mut queue.waiting)
            };
            self.shared.execute(requests);
        }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        if !self.done {
            lock(&self.shared.queue).led = false;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use bytes::Bytes;
    use redb::StorageBackend;
    use redb::backends::InMemoryBackend;

    use super::*;
    use crate::coordination::{Coordination, Mode};

    #[test]
    fn nobody_else_can_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let outer = tempfile::tempdir().expect("a directory");
        let dir = outer.path().join("store");
        let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
        for _ in 0..2 {
            drop(EmbeddedStore::open(&dir).expect("opens"));
            let file = dir.join("coordination.redb");
            assert_eq!((mode(&dir), mode(&file)), (0o700, 0o600));
            // As an earlier version left them.
            for path in [&dir, &file] {
                let open = std::fs::Permissions::from_mode(0o755);
                std::fs::set_permissions(path, open).expect("changed");
            }
        }
    }

    /// A disk that fails on demand.
    #[derive(Debug)]
    struct Failing {
        disk: InMemoryBackend,
        broken: Arc<AtomicBool>,
    }

    impl Failing {
        fn works(&self) -> Result<(), std::io::Error> {
            match self.broken.load(Ordering::Relaxed) {
                true => Err(std::io::Error::other("no space left on device")),
                false => Ok(()),
            }
        }
    }

    impl StorageBackend for Failing {
        fn len(&self) -> Result<u64, std::io::Error> {
            self.disk.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
            self.disk.read(offset, out)
        }

        fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
            self.works()?;
            self.disk.set_len(len)
        }

        fn sync_data(&self) -> Result<(), std::io::Error> {
            self.works()?;
            self.disk.sync_data()
        }

        fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
            self.works()?;
            self.disk.write(offset, data)
        }
    }

    #[tokio::test]
    async fn what_the_disk_did_not_take_is_not_seen() {
        let broken = Arc::new(AtomicBool::new(false));
        let disk = Failing { disk: InMemoryBackend::new(), broken: broken.clone() };
        let store = EmbeddedStore::new(Disk::with_backend(disk).unwrap());
        let a = store.connect(Options::default());
        a.create("/before", Bytes::new(), Mode::Persistent).await.unwrap();
        broken.store(true, Ordering::Relaxed);
        let error = a.create("/x", Bytes::new(), Mode::Persistent).await.unwrap_err();
        assert!(error.to_string().contains("no space left"), "{error}");
        let error = a.create("/y", Bytes::new(), Mode::Persistent).await.unwrap_err();
        assert!(matches!(error, Error::Storage { .. }), "{error:?}");
        assert_eq!(a.children("/").await.unwrap(), ["before"]);
        // What needs no disk goes on.
        a.create("/e", Bytes::new(), Mode::Ephemeral).await.unwrap();
        assert_eq!(a.children("/").await.unwrap(), ["before", "e"]);
    }
}
