//! Coordination through a ZooKeeper ensemble (3.6 or later), by the crate `zookeeper-client`.
//!
//! One thread of its own, with a runtime of its own, talks to the ensemble, so that CPU-bound plans
//! never starve heartbeats. Callers hand their requests over by channel and wait, each for no
//! longer than the request time-out.
//!
//! The crate's client serves exactly one connection here. When that breaks, its runtime is dropped
//! with everything in it, and a new client takes up the same session ([`driver`]). For the crate's
//! own reconnecting keeps requests queued while disconnected and sends them later, when nobody
//! waits for them any more; loses recursive watches; sleeps through the session's time-out; and
//! takes another session for the old one without a word. Only the ensemble says that a session has
//! expired: the client's clock is not asked.

mod acl;
mod address;
mod call;
mod driver;
mod link;
mod security;

use std::fmt::{self, Debug, Formatter};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch as latest};
use zookeeper_client::{Acl, CreateMode, CreateOptions};

use self::address::Address;
pub(super) use self::address::host_name;
use self::call::{Kind, Ticket};
use self::driver::Driver;
use self::link::{Command, Registered, Target};
pub use self::security::{Credentials, Tls};
use super::{
    Coordination, Error, Mode, Node, Op, Outcome, Result, Scope, Session, SessionState, Stat,
    Watch, validate, watch_channel,
};

/// How to reach an ensemble.
#[derive(Clone, Debug)]
pub struct Options {
    /// `host:port,host:port/chroot`. The chroot is made if it is missing; without one it is
    /// `/oribi`, and a bare `/` is the root.
    pub hosts: String,
    /// How long ephemeral nodes outlive the last sign of life, as asked for; the ensemble may
    /// negotiate another.
    pub session_timeout: Duration,
    /// Bound of every call, of connecting and of closing.
    pub request_timeout: Duration,
    /// Whom the nodes belong to; without, to everybody.
    pub credentials: Option<Credentials>,
    /// TLS, and nothing else; without, plaintext.
    pub tls: Option<Tls>,
    /// Only looks: nothing is made, and nothing closed to others.
    pub read_only: bool,
}

impl Options {
    /// In plaintext, without credentials, with the default time-outs: 10 s and 5 s.
    pub fn new(hosts: impl Into<String>) -> Self {
        Self {
            hosts: hosts.into(),
            session_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(5),
            credentials: None,
            tls: None,
            read_only: false,
        }
    }

    /// Says in the log what is not safe about them.
    pub fn warn(&self) {
        let Ok(address) = Address::parse(&self.hosts) else { return };
        if let Some(warning) =
            security::warning(&address, self.credentials.as_ref(), self.tls.is_some())
        {
            tracing::warn!(hosts = self.hosts, "{warning}");
        }
    }

    fn target(&self) -> Result<Target> {
        let address = Address::parse(&self.hosts)?;
        if let Some(tls) = &self.tls {
            security::check_names(&address)?;
            // What is wrong with the files is to be known now.
            tls.check()?;
        }
        if self.credentials.is_some() && address.chroot == "/" {
            let reason = "they need a chroot of their own, such as host:port/oribi: all of it \
                          is closed to others";
            return Err(security::setting("credentials", reason));
        }
        Ok(Target {
            address,
            session_timeout: self.session_timeout,
            credentials: self.credentials.clone(),
            tls: self.tls.clone(),
            read_only: self.read_only,
        })
    }

    /// To look at all that there is, below the chroot and beside it.
    fn whole(&self) -> Result<Target> {
        let mut target = self.target()?;
        target.address.chroot = "/".to_owned();
        Ok(Target { read_only: true, ..target })
    }

    /// The servers, as `host:port` or `host`.
    pub(super) fn servers(&self) -> Result<Vec<String>> {
        Ok(Address::parse(&self.hosts)?.hosts)
    }

    /// The chroot.
    pub fn chroot(&self) -> Result<String> {
        Ok(Address::parse(&self.hosts)?.chroot)
    }
}

/// A client of a ZooKeeper ensemble. Dropping it closes the session, without waiting for it.
pub struct ZooKeeper {
    hosts: String,
    request_timeout: Duration,
    /// What new nodes get.
    acl: Arc<[Acl]>,
    commands: mpsc::UnboundedSender<Command>,
    session: Arc<latest::Sender<Session>>,
    /// The one connected to last, as `host:port`.
    server: Arc<Mutex<String>>,
}

impl ZooKeeper {
    /// Connects, and unless it only looks makes the chroot if it is missing, and closes it to others
    /// if there are credentials. From then on it reconnects for ever.
    ///
    /// [`Error::Unavailable`] if the ensemble cannot be reached within the request time-out,
    /// [`Error::Refused`] if it is too old or the hosts are not a connect string,
    /// [`Error::NoNode`] if there is no chroot to look at,
    /// [`Error::Setting`] if credentials or files for TLS are wrong.
    pub async fn connect(options: Options) -> Result<Arc<Self>> {
        let target = options.target()?;
        let mut store = Self::open(&options, target).await?;
        if !options.read_only {
            store.acl = acl::settle(&store, options.credentials.as_ref()).await?;
        }
        Ok(Arc::new(store))
    }

    /// Connects in a session of its own to look at all that the ensemble holds. Paths count from its
    /// root, whatever the chroot; nothing is made or closed to others. To be read with only.
    pub async fn look(options: &Options) -> Result<Arc<Self>> {
        Ok(Arc::new(Self::open(options, options.whole()?).await?))
    }

    async fn open(options: &Options, target: Target) -> Result<Self> {
        let (commands, received) = mpsc::unbounded_channel();
        let (ready, connected) = oneshot::channel();
        let session = Arc::new(latest::Sender::new(Session {
            epoch: 0,
            id: 0,
            state: SessionState::Disconnected,
            timeout: options.session_timeout,
        }));
        let server = Arc::new(Mutex::new(String::new()));
        let told = (session.clone(), server.clone());
        let driver = Driver::new(target, options, received, told, ready);
        // The thread ends when the session is closed, or this handle dropped.
        std::thread::Builder::new()
            .name("oribi-zookeeper".to_owned())
            .spawn(move || driver.run())
            .map_err(|error| Error::Unavailable { reason: format!("no thread: {error}") })?;
        let unreachable = |reason: &str| {
            let hosts = &options.hosts;
            Error::Unavailable { reason: format!("cannot reach ZooKeeper at {hosts}: {reason}") }
        };
        connected.await.unwrap_or_else(|_| Err(unreachable("its thread stopped")))?;
        let (hosts, request_timeout) = (options.hosts.clone(), options.request_timeout);
        Ok(Self { hosts, request_timeout, acl: [].into(), commands, session, server })
    }

    /// Has the driver make a call, if it is in touch, and waits for the answer.
    async fn call<T, F, R>(&self, kind: Kind, make: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(Arc<zookeeper_client::Client>) -> R + Send + 'static,
        R: Future<Output = Result<T>> + Send + 'static,
    {
        self.in_touch()?;
        let (job, mut ticket) = Ticket::new(kind, make);
        if self.commands.send(Command::Call(job)).is_err() {
            return Err(Error::Closed);
        }
        if let Ok(Some(answer)) = tokio::time::timeout(self.request_timeout, ticket.answer()).await
        {
            return answer;
        }
        match ticket.give_up() {
            Some(answer) => answer,
            None => Err(match ticket.unanswered() {
                doubt @ Error::Ambiguous { .. } => doubt,
                other => self.in_touch().err().unwrap_or(other),
            }),
        }
    }

    fn in_touch(&self) -> Result<()> {
        match self.session.borrow().state {
            SessionState::Connected => Ok(()),
            SessionState::Disconnected => {
                let reason = format!("out of touch with ZooKeeper at {}", self.hosts);
                Err(Error::Unavailable { reason })
            }
            SessionState::Closed => Err(Error::Closed),
        }
    }
}

#[async_trait]
impl Coordination for ZooKeeper {
    async fn create(&self, path: &str, data: Bytes, mode: Mode) -> Result<String> {
        let path = path.to_owned();
        let step = Op::Create { path: path.clone(), data: data.clone(), mode };
        self.in_touch()?;
        validate::step(&step)?;
        let acl = self.acl.clone();
        self.call(Kind::Write, async move |client| {
            match client.create(&path, &data, &create_options(mode, &acl)).await {
                Ok((_, number)) if mode.is_sequential() => Ok(format!("{path}{number}")),
                Ok(_) => Ok(path),
                Err(error) => Err(call::step_failed(&step, error)),
            }
        })
        .await
    }

    async fn get(&self, path: &str) -> Result<Option<Node>> {
        self.in_touch()?;
        validate::path(path)?;
        let path = path.to_owned();
        self.call(Kind::Read, async move |client| match client.get_data(&path).await {
            Ok((data, stat)) => Ok(Some(Node { data: data.into(), stat: convert(&stat) })),
            Err(zookeeper_client::Error::NoNode) => Ok(None),
            Err(error) => Err(call::failed(Kind::Read, &path, error)),
        })
        .await
    }

    async fn stat(&self, path: &str) -> Result<Option<Stat>> {
        self.in_touch()?;
        validate::path(path)?;
        let path = path.to_owned();
        self.call(Kind::Read, async move |client| match client.check_stat(&path).await {
            Ok(stat) => Ok(stat.as_ref().map(convert)),
            Err(error) => Err(call::failed(Kind::Read, &path, error)),
        })
        .await
    }

    async fn set(&self, path: &str, data: Bytes, expected: Option<i32>) -> Result<Stat> {
        let path = path.to_owned();
        let step = Op::Set { path: path.clone(), data: data.clone(), version: expected };
        self.in_touch()?;
        validate::step(&step)?;
        self.call(Kind::Write, async move |client| {
            match client.set_data(&path, &data, expected).await {
                Ok(stat) => Ok(convert(&stat)),
                Err(error) => Err(call::step_failed(&step, error)),
            }
        })
        .await
    }

    async fn delete(&self, path: &str, expected: Option<i32>) -> Result<()> {
        let path = path.to_owned();
        let step = Op::Delete { path: path.clone(), version: expected };
        self.in_touch()?;
        validate::step(&step)?;
        self.call(Kind::Write, async move |client| {
            let deleted = client.delete(&path, expected).await;
            deleted.map_err(|error| call::step_failed(&step, error))
        })
        .await
    }

    async fn children(&self, path: &str) -> Result<Vec<String>> {
        self.in_touch()?;
        validate::path(path)?;
        let path = path.to_owned();
        self.call(Kind::Read, async move |client| {
            let listed = client.list_children(&path).await;
            let mut names = listed.map_err(|error| call::failed(Kind::Read, &path, error))?;
            names.sort_unstable();
            Ok(names)
        })
        .await
    }

    async fn transact(&self, ops: Vec<Op>) -> Result<Vec<Outcome>> {
        self.in_touch()?;
        let chroot = self.hosts.find('/').map_or(0, |at| self.hosts.len() - at);
        validate::transaction(&ops, chroot)?;
        if ops.is_empty() {
            return Ok(Vec::new());
        }
        let acl = self.acl.clone();
        self.call(Kind::Write, async move |client| call::transact(&client, &ops, &acl).await).await
    }

    async fn sync(&self) -> Result<()> {
        self.call(Kind::Read, async move |client| {
            let synced = client.sync("/").await;
            synced.map_err(|error| call::failed(Kind::Read, "/", error))
        })
        .await
    }

    fn watch(&self, path: &str, scope: Scope) -> Watch {
        let (sender, watch) = watch_channel();
        if validate::path(path).is_ok() {
            let registered = Registered { path: path.to_owned(), scope, sender };
            // If the driver is gone, the sender goes with the command, and the stream ends.
            let _ = self.commands.send(Command::Watch(registered));
        }
        watch
    }

    fn server(&self) -> Option<String> {
        self.in_touch().ok()?;
        Some(self.server.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    async fn pulse(&self) -> Result<()> {
        let (seen, sign) = oneshot::channel();
        self.commands.send(Command::Pulse(seen)).map_err(|_| Error::Closed)?;
        sign.await.map_err(|_| Error::Closed)
    }

    fn session(&self) -> latest::Receiver<Session> {
        self.session.subscribe()
    }

    async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.commands.send(Command::Close(done)).is_ok() {
            // The driver gives up by itself after the request time-out.
            let _ = closed.await;
        }
    }
}

impl Debug for ZooKeeper {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let session = &*self.session.borrow();
        f.debug_struct("ZooKeeper").field("hosts", &self.hosts).field("session", session).finish()
    }
}

fn create_options(mode: Mode, acl: &[Acl]) -> CreateOptions<'_> {
    let mode = match mode {
        Mode::Persistent => CreateMode::Persistent,
        Mode::PersistentSequential => CreateMode::PersistentSequential,
        Mode::Ephemeral => CreateMode::Ephemeral,
        Mode::EphemeralSequential => CreateMode::EphemeralSequential,
    };
    mode.with_acls(acl.into())
}

fn convert(stat: &zookeeper_client::Stat) -> Stat {
    Stat {
        czxid: stat.czxid,
        mzxid: stat.mzxid,
        ctime: stat.ctime,
        mtime: stat.mtime,
        version: stat.version,
        cversion: stat.cversion,
        ephemeral_owner: stat.ephemeral_owner,
        num_children: stat.num_children,
        pzxid: Some(stat.pzxid),
        aversion: stat.aversion,
        data_length: stat.data_length,
    }
}
