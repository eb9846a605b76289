//! One client of the embedded store.

use std::fmt::{self, Debug, Formatter};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch as latest;

use super::{Command, EmbeddedStore, Options, lock};
use crate::coordination::watch::Change;
use crate::coordination::{
    Coordination, Error, Mode, Node, Op, Outcome, Result, Scope, Session, SessionState, Stat,
    Watch, WatchSender, validate, watch_channel,
};

/// Bytes of a chroot that this store does not have: what fits here is to fit into ZooKeeper below `/oribi`.
const CHROOT: usize = 6;

/// A session's watches and its state, as the store reaches them.
pub(super) struct Line {
    watches: Mutex<Watches>,
    /// For tests and simulation. Changed with the lock on `watches` only.
    cut: AtomicBool,
    /// Changed with the lock on `watches` only.
    session: latest::Sender<Session>,
}

#[derive(Default)]
struct Watches {
    /// Why the store is down, if it is.
    down: Option<Error>,
    closed: bool,
    list: Vec<(String, Scope, WatchSender)>,
}

impl Watches {
    fn state(&self, cut: bool) -> SessionState {
        match (self.closed, cut || self.down.is_some()) {
            (true, _) => SessionState::Closed,
            (false, true) => SessionState::Disconnected,
            (false, false) => SessionState::Connected,
        }
    }
}

impl Line {
    fn new(id: i64, timeout: Duration, down: Option<Error>) -> Self {
        let watches = Watches { down, ..Watches::default() };
        let session = Session { epoch: 1, id, state: watches.state(false), timeout };
        let cut = AtomicBool::new(false);
        Self { watches: Mutex::new(watches), cut, session: latest::Sender::new(session) }
    }

    pub fn fire(&self, events: &[(Change, String)]) {
        let watches = lock(&self.watches);
        if watches.state(self.is_cut()) != SessionState::Connected {
            return;
        }
        for (watched, scope, sender) in &watches.list {
            for (change, path) in events {
                if let Some(path) = scope.report(watched, *change, path) {
                    sender.tell(*scope, *change, path);
                }
            }
        }
    }

    fn add(&self, path: String, scope: Scope, sender: WatchSender) {
        let mut watches = lock(&self.watches);
        match watches.state(self.is_cut()) {
            SessionState::Closed => return,
            SessionState::Connected => sender.resync(),
            SessionState::Disconnected => {}
        }
        watches.list.retain(|(_, _, sender)| !sender.is_closed());
        watches.list.push((path, scope, sender));
    }

    /// The store is down, or not any more.
    pub fn set_down(&self, down: Option<Error>) {
        self.change(|watches, _| watches.down = down);
    }

    /// Changes whether there is a way to the store. What changed while there was none was not reported,
    /// so everything is to be read again.
    fn change(&self, change: impl FnOnce(&mut Watches, &mut Session)) {
        let mut watches = lock(&self.watches);
        self.session.send_if_modified(|session| {
            let before = *session;
            change(&mut watches, session);
            session.state = watches.state(self.is_cut());
            if session.state == SessionState::Connected && before.state != session.state {
                watches.list.iter().for_each(|(_, _, sender)| sender.resync());
            }
            *session != before
        });
    }

    fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }
}

/// A client of an [`EmbeddedStore`]. Dropping it ends its session.
pub struct EmbeddedSession {
    store: Arc<EmbeddedStore>,
    request_timeout: Duration,
    line: Arc<Line>,
    lose_next_reply: AtomicBool,
}

impl EmbeddedSession {
    pub(super) fn new(store: Arc<EmbeddedStore>, options: Options) -> Arc<Self> {
        let id = store.shared.open_session();
        let mut lines = lock(&store.shared.lines);
        let line = Arc::new(Line::new(id, options.session_timeout, lines.down.clone()));
        lines.list.push(Arc::downgrade(&line));
        drop(lines);
        Arc::new(Self {
            store,
            request_timeout: options.request_timeout,
            line,
            lose_next_reply: AtomicBool::new(false),
        })
    }

    /// For tests and simulation: cuts the connection. The session lives on in the store, until
    /// [`expire`](Self::expire).
    pub fn disconnect(&self) {
        self.line.change(|_, _| self.line.cut.store(true, Ordering::Relaxed));
    }

    /// For tests and simulation: ends the cut. If the session expired meanwhile, a new one takes
    /// its place.
    pub fn reconnect(&self) {
        if !self.line.is_cut() {
            return;
        }
        let id = self.now().id;
        let lives = self.store.shared.read(|tree| tree.has_session(id));
        let new = (!lives).then(|| self.store.shared.open_session());
        self.line.change(|_, session| {
            self.line.cut.store(false, Ordering::Relaxed);
            if let Some(new) = new {
                session.id = new;
                session.epoch += 1;
            }
        });
    }

    fn now(&self) -> Session {
        *self.line.session.borrow()
    }

    /// For tests and simulation: the store expires the session, and its ephemeral nodes go. The
    /// client learns of it at once if it is connected, else when it connects again.
    pub async fn expire(&self) {
        let Session { id, .. } = self.now();
        // No answer means that the runtime stops, and with it the process that could tell.
        let _ = self.store.shared.submit(id, Command::End).await;
        if !self.line.is_cut() {
            self.disconnect();
            self.reconnect();
        }
    }

    /// For tests and simulation: the next write that gets as far as the store is carried out, but
    /// its reply is lost with the connection.
    pub fn lose_next_reply(&self) {
        self.lose_next_reply.store(true, Ordering::Relaxed);
    }

    /// The session, if requests can be made in it.
    fn connected(&self) -> Result<i64> {
        let session = self.now();
        match session.state {
            SessionState::Connected => Ok(session.id),
            SessionState::Disconnected => Err(self.trouble().unwrap_or_else(|| {
                Error::Unavailable { reason: "the connection is cut".to_owned() }
            })),
            SessionState::Closed => Err(Error::Closed),
        }
    }

    async fn write(&self, steps: Vec<Op>) -> Result<Vec<Outcome>> {
        let id = self.connected()?;
        let mut session = self.session();
        let mut answer = self.store.shared.submit(id, Command::Write(steps));
        if self.lose_next_reply.swap(false, Ordering::Relaxed) {
            let _ = answer.await;
            self.disconnect();
            return ambiguous("the connection was cut");
        }
        tokio::select! {
            biased;
            answer = &mut answer => {
                answer.unwrap_or_else(|_| ambiguous("the store stopped"))
            }
            // A store that is down answers all the same.
            _ = session.wait_for(|now| {
                now.id != id || (now.state != SessionState::Connected && self.line.is_cut())
            }) => ambiguous("the connection was cut"),
            () = tokio::time::sleep(self.request_timeout) => ambiguous("the disk is too slow"),
        }
    }

    /// A write of one step: its failure is reported as such, and not as a transaction's.
    async fn write_one(&self, step: Op) -> Result<Outcome> {
        self.connected()?;
        validate::step(&step)?;
        match self.write(vec![step]).await {
            Ok(mut outcomes) => outcomes.pop().map_or_else(|| ambiguous("no outcome"), Ok),
            Err(Error::Transaction { source, .. }) => Err(*source),
            Err(other) => Err(other),
        }
    }
}

fn ambiguous<T>(reason: &str) -> Result<T> {
    Err(Error::Ambiguous { reason: reason.to_owned() })
}

#[async_trait]
impl Coordination for EmbeddedSession {
    async fn create(&self, path: &str, data: Bytes, mode: Mode) -> Result<String> {
        match self.write_one(Op::Create { path: path.to_owned(), data, mode }).await? {
            Outcome::Created(path) => Ok(path),
            _ => ambiguous("another outcome than asked for"),
        }
    }

    async fn get(&self, path: &str) -> Result<Option<Node>> {
        self.connected()?;
        validate::path(path)?;
        Ok(self.store.shared.read(|tree| {
            tree.get(path).map(|node| Node { data: node.data.clone(), stat: node.stat() })
        }))
    }

    async fn stat(&self, path: &str) -> Result<Option<Stat>> {
        self.connected()?;
        validate::path(path)?;
        Ok(self.store.shared.read(|tree| tree.get(path).map(|node| node.stat())))
    }

    async fn set(&self, path: &str, data: Bytes, expected: Option<i32>) -> Result<Stat> {
        match self.write_one(Op::Set { path: path.to_owned(), data, version: expected }).await? {
            Outcome::Set(stat) => Ok(stat),
            _ => ambiguous("another outcome than asked for"),
        }
    }

    async fn delete(&self, path: &str, expected: Option<i32>) -> Result<()> {
        self.write_one(Op::Delete { path: path.to_owned(), version: expected }).await.map(drop)
    }

    async fn children(&self, path: &str) -> Result<Vec<String>> {
        self.connected()?;
        validate::path(path)?;
        let names = self.store.shared.read(|tree| tree.children(path));
        names.ok_or_else(|| Error::NoNode { path: path.to_owned() })
    }

    async fn transact(&self, ops: Vec<Op>) -> Result<Vec<Outcome>> {
        self.connected()?;
        validate::transaction(&ops, CHROOT)?;
        if ops.is_empty() {
            return Ok(Vec::new());
        }
        self.write(ops).await
    }

    /// Reads see whatever was acknowledged, to whomever, and what will become of writes is decided: one
    /// whose caller has stopped waiting for a slow disk may be on its way.
    async fn sync(&self) -> Result<()> {
        let id = self.connected()?;
        if self.store.shared.is_busy() {
            let behind = self.store.shared.submit(id, Command::Write(Vec::new()));
            let done = tokio::time::timeout(self.request_timeout, behind).await;
            done.map_err(|_| Error::Unavailable { reason: "the disk is too slow".to_owned() })?
                .map_err(|_| Error::Closed)??;
        }
        self.connected().map(drop)
    }

    fn watch(&self, path: &str, scope: Scope) -> Watch {
        let (sender, watch) = watch_channel();
        if validate::path(path).is_ok() {
            self.line.add(path.to_owned(), scope, sender);
        }
        watch
    }

    fn server(&self) -> Option<String> {
        self.connected().is_ok().then(|| "embedded".to_owned())
    }

    async fn pulse(&self) -> Result<()> {
        let id = self.now().id;
        // Whatever the answer: somebody has worked the queue off.
        let answer = self.store.shared.submit(id, Command::Write(Vec::new())).await;
        answer.map(drop).map_err(|_| Error::Closed)
    }

    fn session(&self) -> latest::Receiver<Session> {
        self.line.session.subscribe()
    }

    fn trouble(&self) -> Option<Error> {
        lock(&self.line.watches).down.clone()
    }

    async fn close(&self) {
        let mut reached = false;
        self.line.change(|watches, _| {
            // A store that is out of reach keeps the session, as ZooKeeper would.
            reached = !watches.closed && !self.line.is_cut();
            *watches = Watches { closed: true, ..Watches::default() };
        });
        if reached {
            let ended = self.store.shared.submit(self.now().id, Command::End);
            let _ = tokio::time::timeout(self.request_timeout, ended).await;
        }
    }
}

impl Drop for EmbeddedSession {
    fn drop(&mut self) {
        let Session { id, state, .. } = self.now();
        if state != SessionState::Closed {
            drop(self.store.shared.submit(id, Command::End));
        }
    }
}

impl Debug for EmbeddedSession {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedSession").field("session", &self.now()).finish()
    }
}
