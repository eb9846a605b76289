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

/// A session's watches, as the store reaches them.
#[derive(Default)]
pub(super) struct Line(Mutex<Watches>);

#[derive(Default)]
struct Watches {
    connected: bool,
    closed: bool,
    list: Vec<(String, Scope, WatchSender)>,
}

impl Line {
    pub fn fire(&self, events: &[(Change, String)]) {
        let watches = lock(&self.0);
        if !watches.connected {
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
        let mut watches = lock(&self.0);
        if watches.closed {
            return;
        }
        if watches.connected {
            sender.resync();
        }
        watches.list.retain(|(_, _, sender)| !sender.is_closed());
        watches.list.push((path, scope, sender));
    }

    /// What changed while the line was cut was not reported, so everything is to be read again.
    fn connect(&self) {
        let mut watches = lock(&self.0);
        watches.connected = true;
        for (_, _, sender) in &watches.list {
            sender.resync();
        }
    }

    fn disconnect(&self) {
        lock(&self.0).connected = false;
    }

    fn close(&self) {
        *lock(&self.0) = Watches { closed: true, ..Watches::default() };
    }
}

/// A client of an [`EmbeddedStore`]. Dropping it ends its session.
pub struct EmbeddedSession {
    store: Arc<EmbeddedStore>,
    request_timeout: Duration,
    session: latest::Sender<Session>,
    line: Arc<Line>,
    lose_next_reply: AtomicBool,
}

impl EmbeddedSession {
    pub(super) fn new(store: Arc<EmbeddedStore>, options: Options) -> Arc<Self> {
        let line = Arc::new(Line::default());
        lock(&store.shared.lines).push(Arc::downgrade(&line));
        let session = Session {
            epoch: 1,
            id: store.shared.open_session(),
            state: SessionState::Connected,
            timeout: options.session_timeout,
        };
        line.connect();
        Arc::new(Self {
            store,
            request_timeout: options.request_timeout,
            session: latest::Sender::new(session),
            line,
            lose_next_reply: AtomicBool::new(false),
        })
    }

    /// For tests and simulation: cuts the connection. The session lives on in the store, until
    /// [`expire`](Self::expire).
    pub fn disconnect(&self) {
        self.session.send_if_modified(|session| {
            let connected = session.state == SessionState::Connected;
            if connected {
                self.line.disconnect();
                session.state = SessionState::Disconnected;
            }
            connected
        });
    }

    /// For tests and simulation: ends the cut. If the session expired meanwhile, a new one takes
    /// its place.
    pub fn reconnect(&self) {
        self.session.send_if_modified(|session| {
            let disconnected = session.state == SessionState::Disconnected;
            if disconnected {
                if !self.store.shared.read(|tree| tree.has_session(session.id)) {
                    session.id = self.store.shared.open_session();
                    session.epoch += 1;
                }
                session.state = SessionState::Connected;
                self.line.connect();
            }
            disconnected
        });
    }

    /// For tests and simulation: the store expires the session, and its ephemeral nodes go. The
    /// client learns of it at once if it is connected, else when it connects again.
    pub async fn expire(&self) {
        let Session { id, state, .. } = *self.session.borrow();
        // No answer means that the runtime stops, and with it the process that could tell.
        let _ = self.store.shared.submit(id, Command::End).await;
        if state == SessionState::Connected {
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
        let session = self.session.borrow();
        match session.state {
            SessionState::Connected => Ok(session.id),
            SessionState::Disconnected => {
                Err(Error::Unavailable { reason: "the connection is cut".to_owned() })
            }
            SessionState::Closed => Err(Error::Closed),
        }
    }

    async fn write(&self, steps: Vec<Op>) -> Result<Vec<Outcome>> {
        let id = self.connected()?;
        let mut session = self.session.subscribe();
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
            _ = session.wait_for(|now| now.id != id || now.state != SessionState::Connected) => {
                ambiguous("the connection was cut")
            }
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
        validate::transaction(&ops)?;
        if ops.is_empty() {
            return Ok(Vec::new());
        }
        self.write(ops).await
    }

    /// Reads see whatever was acknowledged, to whomever.
    async fn sync(&self) -> Result<()> {
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
        let id = self.session.borrow().id;
        // Whatever the answer: somebody has worked the queue off.
        let answer = self.store.shared.submit(id, Command::Write(Vec::new())).await;
        answer.map(drop).map_err(|_| Error::Closed)
    }

    fn session(&self) -> latest::Receiver<Session> {
        self.session.subscribe()
    }

    async fn close(&self) {
        let mut connected = false;
        let closed = self.session.send_if_modified(|session| {
            connected = session.state == SessionState::Connected;
            std::mem::replace(&mut session.state, SessionState::Closed) != SessionState::Closed
        });
        self.line.close();
        // A store that is out of reach keeps the session, as ZooKeeper would.
        if closed && connected {
            let id = self.session.borrow().id;
            let ended = self.store.shared.submit(id, Command::End);
            let _ = tokio::time::timeout(self.request_timeout, ended).await;
        }
    }
}

impl Drop for EmbeddedSession {
    fn drop(&mut self) {
        let Session { id, state, .. } = *self.session.borrow();
        if state != SessionState::Closed {
            drop(self.store.shared.submit(id, Command::End));
        }
    }
}

impl Debug for EmbeddedSession {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedSession").field("session", &*self.session.borrow()).finish()
    }
}
