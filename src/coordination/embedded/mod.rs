//! The embedded store: coordination in process and persistent, for one daemon without ZooKeeper.
//!
//! Persistent nodes are in one file and, with all others, in memory. Ephemeral nodes are in memory
//! only and go with their session or the process. The life of a write:
//!
//! 1. the caller puts it into the queue; if nobody is working the queue off, it starts a thread
//!    that does;
//! 2. that thread takes all that waits as one batch and applies it on top of the tree, unseen;
//! 3. what is persistent goes to the file in one commit with one `fsync`, however many wait for it;
//! 4. the batch becomes visible, the watches fire, the callers get their answers.
//!
//! So a read never sees what a crash could take back.
//!
//! A store in memory waits for nothing: whoever finds the queue idle works it off there and then.
//!
//! # A disk that takes nothing
//! Where the file cannot be written, for want of room as a rule, it is written anew from what is in memory,
//! and the batch is tried once more. If that fails too, its callers are told, and the store is *down*: all
//! sessions are out of touch, as they would be with an ensemble that is out of reach, and whoever asks for
//! anything gets [`Error::Unwritable`]. From then on a new file is tried every few seconds ([`MEND`]); when there
//! is one, the sessions are in touch again, and all watches say that everything is to be read.
//!
//! What was refused is not there, in memory or in any file that a later start may find. Of what was written
//! and could not be made durable that is not known before there is a new file, so [`Error::Ambiguous`] says
//! so, and nobody reads or syncs before.

mod disk;
mod medium;
mod session;
mod tree;

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::thread;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use self::disk::{Disk, Failure, Loaded, Place};
use self::session::Line;
use self::tree::{Batch, Changes, Record, Tree};
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

/// The thread that waits for the disk.
const THREAD: &str = "oribi-store";

/// Pause before a new file is tried again; twice as long after each failure, and never longer than
/// [`MAX_MEND`].
const MEND: Duration = Duration::from_secs(1);
const MAX_MEND: Duration = Duration::from_secs(8);

/// Whether a store in this directory has room for what a daemon writes; [`Error::Unwritable`] if not.
/// Blocks for the disk.
pub fn has_room(dir: &Path) -> Result<()> {
    disk::has_room(dir)
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
        Ok(Self::new(Place::open(dir)?))
    }

    /// A store that is forgotten when closed, and has no file: for tests and simulation.
    pub fn in_memory() -> Result<Arc<Self>> {
        Ok(Self::with(State::Memory, Place::Memory, Vec::new(), 0))
    }

    fn new(loaded: Loaded) -> Arc<Self> {
        Self::with(State::Open(loaded.disk), loaded.place, loaded.records, loaded.zxid)
    }

    fn with(disk: State, place: Place, records: Vec<(String, Record)>, zxid: i64) -> Arc<Self> {
        let shared = Shared {
            tree: RwLock::new(Tree::load(records)),
            queue: Mutex::default(),
            has_file: !matches!(disk, State::Memory),
            writer: Mutex::new(Writer { disk, place, zxid }),
            lines: Mutex::default(),
            last_session: AtomicI64::new(zxid),
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
        lock(&self.shared.writer).disk = State::Closed;
    }
}

/// What the queue carries.
enum Command {
    Write(Vec<Op>),
    /// Ends the session.
    End,
    /// Tries to write the file anew, if the store is down.
    Mend,
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

struct Writer {
    disk: State,
    place: Place,
    zxid: i64,
}

enum State {
    Open(Disk),
    /// There is no file.
    Memory,
    /// Nothing can be written, for this reason.
    Down(Error),
    Closed,
}

/// Locks are taken in this order: `writer`, then `tree`, then `lines`; `queue` by itself.
struct Shared {
    tree: RwLock<Tree>,
    queue: Mutex<Queue>,
    /// Whether whoever works the queue off waits for a disk.
    has_file: bool,
    writer: Mutex<Writer>,
    lines: Mutex<Lines>,
    last_session: AtomicI64,
}

/// The ways to the sessions.
#[derive(Default)]
struct Lines {
    list: Vec<Weak<Line>>,
    /// Why the store is down, if it is.
    down: Option<Error>,
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

    /// Whether writes are being worked off.
    fn is_busy(&self) -> bool {
        lock(&self.queue).led
    }

    /// The duty to work the queue off, unless somebody has it.
    fn lead(self: &Arc<Self>) -> Option<Lead> {
        let led = std::mem::replace(&mut lock(&self.queue).led, true);
        (!led).then(|| Lead { shared: self.clone(), done: false })
    }

    /// Queues a request; its answer arrives even if the caller's task ends meanwhile.
    fn submit(
        self: &Arc<Self>,
        session: i64,
        command: Command,
    ) -> oneshot::Receiver<Result<Vec<Outcome>>> {
        let (reply, answer) = oneshot::channel();
        lock(&self.queue).waiting.push(Request { session, command, reply });
        let Some(lead) = self.lead() else { return answer };
        if !self.has_file {
            lead.work_off();
            return answer;
        }
        let runtime = Handle::try_current().ok();
        let body = move || {
            // For what mends the store.
            let _entered = runtime.as_ref().map(Handle::enter);
            lead.work_off();
        };
        // Ends by itself as soon as the queue is empty.
        let thread = thread::Builder::new().name(THREAD.to_owned()).spawn(body);
        // No room for one, as a pool of threads would panic of: the disk is waited for here.
        if thread.is_err()
            && let Some(lead) = self.lead()
        {
            lead.work_off();
        }
        answer
    }

    fn execute(self: &Arc<Self>, requests: Vec<Request>) {
        let mut writer = lock(&self.writer);
        let was_down = writer.down().is_some();
        let mended = match requests.iter().any(|request| matches!(request.command, Command::Mend)) {
            true => writer.mend(self),
            false => Ok(()),
        };
        let mut answers = Vec::with_capacity(requests.len());
        let mut ended = Vec::new();
        let changes = self.read(|tree| {
            let mut batch = Batch::new(tree, writer.zxid);
            for Request { session, command, reply } in requests {
                match command {
                    // The caller gave up before anything was done.
                    Command::Write(_) if reply.is_closed() => (),
                    // What changes nothing only asks whether anybody is here.
                    Command::Write(ops) => match writer.down().filter(|_| !ops.is_empty()) {
                        Some(error) => answers.push((reply, Err(error.clone()))),
                        None => answers.push((reply, batch.write(session, ops))),
                    },
                    Command::End => {
                        batch.end(session);
                        ended.push(session);
                        answers.push((reply, Ok(Vec::new())));
                    }
                    Command::Mend => answers.push((reply, mended.clone().map(|()| Vec::new()))),
                }
            }
            batch.into_changes()
        });
        match writer.persist(&changes, self) {
            Ok(()) => {
                writer.zxid = changes.zxid;
                self.publish(changes);
            }
            // Later writes of the batch were judged on top of earlier ones, so all of them fail.
            Err(error) => {
                for (_, answer) in &mut answers {
                    *answer = Err(error.clone());
                }
                self.end(&mut writer, ended);
            }
        }
        // Before anybody is answered: who does not know what came of a write must not be able to sync.
        if writer.down().is_some() != was_down {
            self.tell(writer.down().cloned());
        }
        drop(writer);
        for (reply, answer) in answers {
            // A caller that has gone needs no answer.
            let _ = reply.send(answer);
        }
    }

    /// Sessions end, whatever can be written: what goes with them is on no disk.
    fn end(&self, writer: &mut Writer, sessions: Vec<i64>) {
        let changes = self.read(|tree| {
            let mut batch = Batch::new(tree, writer.zxid);
            sessions.into_iter().for_each(|session| batch.end(session));
            batch.into_changes()
        });
        writer.zxid = changes.zxid;
        self.publish(changes);
    }

    /// Lets all sessions know whether the store is down.
    fn tell(self: &Arc<Self>, down: Option<Error>) {
        match &down {
            Some(error) => {
                error!(%error, "nothing can be changed until the store can be written again");
                self.mend_later();
            }
            None => info!("the embedded coordination store can be written again"),
        }
        let mut lines = lock(&self.lines);
        lines.down = down.clone();
        for line in lines.list.iter().filter_map(Weak::upgrade) {
            line.set_down(down.clone());
        }
    }

    /// Tries again and again, as long as there is a store.
    fn mend_later(self: &Arc<Self>) {
        let Ok(runtime) = Handle::try_current() else { return };
        let shared = Arc::downgrade(self);
        // Ends by itself as soon as the store is well, or is gone.
        drop(runtime.spawn(async move {
            let mut pause = MEND;
            loop {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(MAX_MEND);
                let Some(answer) = shared.upgrade().map(|shared| shared.submit(0, Command::Mend))
                else {
                    return;
                };
                // No answer: whoever was to try has not come to it.
                if let Ok(Ok(_) | Err(Error::Closed)) = answer.await {
                    return;
                }
            }
        }));
    }

    fn publish(&self, mut changes: Changes) {
        let events = std::mem::take(&mut changes.events);
        let mut tree = self.tree.write().unwrap_or_else(PoisonError::into_inner);
        tree.apply(changes);
        lock(&self.lines).list.retain(|line| match line.upgrade() {
            Some(line) => {
                line.fire(&events);
                true
            }
            None => false,
        });
    }
}

impl Writer {
    fn down(&self) -> Option<&Error> {
        match &self.disk {
            State::Down(error) => Some(error),
            State::Open(_) | State::Memory | State::Closed => None,
        }
    }

    /// Makes a batch durable; what is told to its callers if that is not possible.
    fn persist(&mut self, changes: &Changes, shared: &Shared) -> Result<()> {
        if changes.durable.is_empty() {
            return Ok(());
        }
        let Err(failure) = self.commit(changes)? else { return Ok(()) };
        warn!(reason = failure.reason, "the embedded store's file is written anew after a failure");
        let failure = match self.write_anew(shared) {
            // So the batch is not there, whatever had become of it.
            Ok(()) => match self.commit(changes)? {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            },
            Err(_) => failure,
        };
        let error = self.place.error(&failure);
        let known = Failure { may_have_landed: false, ..failure };
        self.disk = State::Down(self.place.error(&known));
        Err(error)
    }

    fn commit(&self, changes: &Changes) -> Result<Result<(), Failure>> {
        match &self.disk {
            State::Open(disk) => Ok(disk.commit(changes)),
            State::Memory => Ok(Ok(())),
            State::Down(error) => Err(error.clone()),
            State::Closed => Err(Error::Closed),
        }
    }

    fn mend(&mut self, shared: &Shared) -> Result<()> {
        match &self.disk {
            State::Open(_) | State::Memory => Ok(()),
            State::Closed => Err(Error::Closed),
            State::Down(_) => {
                let written = self.write_anew(shared);
                written.map_err(|failure| self.place.error(&failure))
            }
        }
    }

    /// What is in memory is all that was acknowledged, as long as nothing of a batch is visible.
    fn write_anew(&mut self, shared: &Shared) -> Result<(), Failure> {
        // Nobody waits for the tree while the disk is busy.
        let own = |(path, node): (&str, &Record)| (path.to_owned(), node.clone());
        let nodes: Vec<_> = shared.read(|tree| tree.persistent().map(own).collect());
        let disk = self.place.write_anew(&nodes, self.zxid)?;
        self.disk = State::Open(disk);
        Ok(())
    }
}

/// The duty to work the queue off. If it is dropped undone (there was no thread for it), the next
/// caller takes it over.
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
    use crate::coordination::{Coordination, Event, Mode, Scope, Session, SessionState};

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

    /// A disk that fails on demand: to sync, or to be written at all; and that waits as long as somebody
    /// holds it up.
    #[derive(Debug)]
    struct Failing {
        disk: InMemoryBackend,
        broken: Arc<AtomicBool>,
        unsynced: Arc<AtomicBool>,
        held: Arc<AtomicBool>,
    }

    impl Failing {
        fn works(&self) -> Result<(), std::io::Error> {
            match self.broken.load(Ordering::Relaxed) {
                true => {
                    let full = std::io::ErrorKind::StorageFull;
                    Err(std::io::Error::new(full, "no space left on device"))
                }
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
            while self.held.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            self.works()?;
            if self.unsynced.load(Ordering::Relaxed) {
                return Err(std::io::Error::other("it cannot be made durable"));
            }
            self.disk.sync_data()
        }

        fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
            self.works()?;
            self.disk.write(offset, data)
        }
    }

    async fn until(session: &mut tokio::sync::watch::Receiver<Session>, state: SessionState) {
        let reached = session.wait_for(|now| now.state == state);
        let reached = tokio::time::timeout(Duration::from_secs(30), reached).await;
        assert!(reached.is_ok_and(|reached| reached.is_ok()), "it gets {state:?}");
    }

    /// A store whose disk fails as long as it is told to.
    fn failing() -> (Arc<EmbeddedStore>, Arc<AtomicBool>, Arc<AtomicBool>) {
        let (store, [broken, unsynced, _]) = failing_or_held();
        (store, broken, unsynced)
    }

    fn failing_or_held() -> (Arc<EmbeddedStore>, [Arc<AtomicBool>; 3]) {
        let [broken, unsynced, held] = [(); 3].map(|()| Arc::new(AtomicBool::new(false)));
        let told = (broken.clone(), unsynced.clone(), held.clone());
        let made = move || -> Box<dyn StorageBackend> {
            let (broken, unsynced, held) = told.clone();
            Box::new(Failing { disk: InMemoryBackend::new(), broken, unsynced, held })
        };
        let store = EmbeddedStore::new(Place::made(made).expect("opens"));
        (store, [broken, unsynced, held])
    }

    #[tokio::test]
    async fn nobody_syncs_before_a_write_whose_caller_has_gone_is_decided() {
        let (store, [_, _, held]) = failing_or_held();
        let request_timeout = Duration::from_millis(50);
        let a = store.connect(Options { request_timeout, ..Options::default() });
        let patient = store.connect(Options::default());
        held.store(true, Ordering::Relaxed);
        let error = a.create("/x", Bytes::new(), Mode::Persistent).await.unwrap_err();
        assert!(error.may_have_landed(), "{error:?}");
        assert!(matches!(a.sync().await, Err(Error::Unavailable { .. })));
        held.store(false, Ordering::Relaxed);
        patient.sync().await.unwrap();
        assert_eq!(patient.children("/").await.unwrap(), ["x"]);
    }

    #[test]
    fn a_file_that_is_not_whole_is_made_anew_where_nothing_was_and_told_of_where_something_is() {
        let outer = tempfile::tempdir().expect("a directory");
        let dir = outer.path().join("store");
        std::fs::create_dir(&dir).expect("a directory");
        let (file, fresh) = (dir.join("coordination.redb"), dir.join("coordination.redb.new"));
        // As whoever ran out of room, or was killed, at its first start left them.
        std::fs::write(&file, "").expect("written");
        std::fs::write(&fresh, [0; 4096]).expect("written");
        drop(EmbeddedStore::open(&dir).expect("opens"));
        drop(EmbeddedStore::open(&dir).expect("opens again"));
        assert!(!fresh.exists());
        std::fs::write(&file, [0; 4096]).expect("damaged");
        let error = EmbeddedStore::open(&dir).expect_err("no store");
        assert!(matches!(&error, Error::Storage { reason } if reason.contains("store")), "{error}");
    }

    #[tokio::test]
    async fn what_may_be_there_is_said_to_be_unknown_and_nobody_syncs_before_it_is_not() {
        let (store, _, unsynced) = failing();
        let a = store.connect(Options::default());
        unsynced.store(true, Ordering::Relaxed);
        let error = a.create("/x", Bytes::new(), Mode::Persistent).await.unwrap_err();
        assert!(error.may_have_landed(), "{error:?}");
        assert!(matches!(a.sync().await, Err(Error::Unwritable { full: false, .. })));
        // And of the next one it is known.
        let error = a.create("/y", Bytes::new(), Mode::Persistent).await.unwrap_err();
        assert!(!error.may_have_landed(), "{error:?}");
        unsynced.store(false, Ordering::Relaxed);
        let mut session = a.session();
        until(&mut session, SessionState::Connected).await;
        a.sync().await.unwrap();
        assert_eq!(a.children("/").await.unwrap(), [""; 0]);
        a.create("/x", Bytes::new(), Mode::Persistent).await.unwrap();
    }

    #[tokio::test]
    async fn what_the_disk_did_not_take_is_not_seen_and_the_store_mends_itself() {
        let (store, broken, _) = failing();
        let a = store.connect(Options::default());
        let create = async |path: &str, mode| a.create(path, Bytes::new(), mode).await;
        create("/before", Mode::Persistent).await.unwrap();
        create("/e", Mode::Ephemeral).await.unwrap();
        let (mut watch, mut session) = (a.watch("/", Scope::Children), a.session());
        assert_eq!(watch.next().await, Some(Event::Resync));
        broken.store(true, Ordering::Relaxed);
        let error = create("/x", Mode::Persistent).await.unwrap_err();
        assert!(error.to_string().contains("no space left"), "{error}");
        assert!(matches!(error, Error::Unwritable { full: true, .. }), "{error:?}");
        // Out of touch, with the reason, whatever is asked for.
        until(&mut session, SessionState::Disconnected).await;
        assert!(matches!(create("/y", Mode::Persistent).await, Err(Error::Unwritable { .. })));
        assert!(matches!(a.children("/").await, Err(Error::Unwritable { .. })));
        assert!(matches!(a.sync().await, Err(Error::Unwritable { .. })));
        a.pulse().await.unwrap();
        let late = store.connect(Options::default());
        assert_eq!(late.session().borrow().state, SessionState::Disconnected);
        broken.store(false, Ordering::Relaxed);
        until(&mut session, SessionState::Connected).await;
        assert_eq!(session.borrow().epoch, 1);
        assert_eq!(watch.next().await, Some(Event::Resync));
        assert_eq!(a.children("/").await.unwrap(), ["before", "e"]);
        create("/x", Mode::Persistent).await.unwrap();
        late.create("/z", Bytes::new(), Mode::Persistent).await.unwrap();
        assert_eq!(a.children("/").await.unwrap(), ["before", "e", "x", "z"]);
    }

    #[tokio::test]
    async fn a_session_ends_although_nothing_can_be_written() {
        let (store, broken, _) = failing();
        let (a, b) = (store.connect(Options::default()), store.connect(Options::default()));
        b.create("/e", Bytes::new(), Mode::Ephemeral).await.unwrap();
        broken.store(true, Ordering::Relaxed);
        a.create("/x", Bytes::new(), Mode::Persistent).await.unwrap_err();
        b.close().await;
        assert!(store.shared.read(|tree| tree.get("/e").is_none()));
    }

    #[tokio::test]
    async fn a_failure_that_passes_is_not_seen() {
        let (store, broken, _) = failing();
        let a = store.connect(Options::default());
        a.create("/before", Bytes::new(), Mode::Persistent).await.unwrap();
        broken.store(true, Ordering::Relaxed);
        let failed = {
            let writer = lock(&store.shared.writer);
            let mut batch = Changes::default();
            batch.zxid = writer.zxid + 1;
            batch.durable.insert("/before".to_owned());
            matches!(&writer.disk, State::Open(disk) if disk.commit(&batch).is_err())
        };
        broken.store(false, Ordering::Relaxed);
        assert!(failed, "the database takes nothing any more");
        a.create("/x", Bytes::new(), Mode::Persistent).await.unwrap();
        assert_eq!(a.children("/").await.unwrap(), ["before", "x"]);
    }
}
