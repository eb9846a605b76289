//! What the suite asks of a backend: clients, and ways to hurt them.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use oribi::coordination::embedded::{self, EmbeddedSession, EmbeddedStore};
use oribi::coordination::zookeeper::{Credentials, Options, ZooKeeper};
use oribi::coordination::{Coordination, Event, Mode, Session, SessionState, Watch};
use tempfile::TempDir;
use uuid::Uuid;

use crate::common::certificates::secret;
use crate::common::zookeeper::Server;
use crate::proxy::{Break, Proxy};

/// Bound of whatever must happen sooner or later, generous for a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Long enough for a busy machine to keep, short enough to wait for.
const SESSION_TIMEOUT: Duration = Duration::from_secs(4);

pub async fn bounded<T>(case: impl Future<Output = T>) -> T {
    tokio::time::timeout(3 * PATIENCE, case).await.expect("the case ends in time")
}

/// Waits until a condition holds.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[async_trait]
pub trait Backend: Send + Sync {
    /// A new client of the same store.
    async fn connect(&self) -> Client;
}

/// A client, and ways to hurt it.
pub struct Client {
    pub store: Arc<dyn Coordination>,
    faults: Box<dyn Faults>,
}

#[async_trait]
trait Faults: Send + Sync {
    fn cut(&self);
    fn restore(&self);
    fn lose_next_reply(&self);
    async fn expire(&self, store: &dyn Coordination);
}

impl Client {
    /// Cuts it off, and waits until it knows.
    pub async fn cut(&self) {
        self.faults.cut();
        self.until("out of touch", |session| session.state == SessionState::Disconnected).await;
    }

    /// Lets it back, and waits until it is.
    pub async fn restore(&self) -> Session {
        self.begin_restore();
        self.until("in touch again", |session| session.state == SessionState::Connected).await
    }

    /// Lets it back.
    pub fn begin_restore(&self) {
        self.faults.restore();
    }

    /// The next write is carried out, but its reply is lost and the client cut off.
    pub async fn lose_next_reply(&self) {
        // Nothing earlier is to be on its way.
        self.store.sync().await.expect("sync");
        self.faults.lose_next_reply();
    }

    /// Has the store expire the session, and waits for the new one.
    pub async fn expire(&self) -> Session {
        let epoch = self.session().epoch;
        self.faults.expire(&*self.store).await;
        let renewed = |now: &Session| now.epoch > epoch && now.state == SessionState::Connected;
        self.until("a new session", renewed).await
    }

    pub fn session(&self) -> Session {
        *self.store.session().borrow()
    }

    pub async fn until(&self, what: &str, reached: impl Fn(&Session) -> bool) -> Session {
        let mut session = self.store.session();
        let waiting = tokio::time::timeout(PATIENCE, session.wait_for(|now| reached(now))).await;
        *waiting.unwrap_or_else(|_| panic!("never {what}")).expect("the session is published")
    }

    pub async fn put(&self, path: &str, data: &str) {
        let data = Bytes::from(data.to_owned());
        self.store.create(path, data, Mode::Persistent).await.expect(path);
    }

    /// A node's data, after a sync, so that what others did before is seen.
    pub async fn read(&self, path: &str) -> Option<String> {
        self.store.sync().await.expect("sync");
        let node = self.store.get(path).await.expect(path)?;
        Some(String::from_utf8(node.data.to_vec()).expect("text"))
    }

    pub async fn exists(&self, path: &str) -> bool {
        self.read(path).await.is_some()
    }
}

/// Takes events until the wanted one.
pub async fn expect_event(watch: &mut Watch, wanted: Event) {
    let waiting = async { while watch.next().await.expect("the watch goes on") != wanted {} };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never {wanted:?}"));
}

pub fn changed(path: &str) -> Event {
    Event::Changed(path.to_owned())
}

/// The embedded store, in a directory of its own.
pub struct Embedded {
    store: Arc<EmbeddedStore>,
    _dir: TempDir,
}

impl Embedded {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        Self { store: EmbeddedStore::open(dir.path()).expect("the store opens"), _dir: dir }
    }
}

#[async_trait]
impl Backend for Embedded {
    async fn connect(&self) -> Client {
        let session = self.store.connect(embedded::Options::default());
        Client { store: session.clone(), faults: Box::new(Arc::downgrade(&session)) }
    }
}

/// Weak, so that a test can drop the client.
fn alive(session: &Weak<EmbeddedSession>) -> Arc<EmbeddedSession> {
    session.upgrade().expect("the client is alive")
}

#[async_trait]
impl Faults for Weak<EmbeddedSession> {
    fn cut(&self) {
        alive(self).disconnect();
    }

    fn restore(&self) {
        alive(self).reconnect();
    }

    fn lose_next_reply(&self) {
        alive(self).lose_next_reply();
    }

    async fn expire(&self, _: &dyn Coordination) {
        alive(self).expire().await;
    }
}

/// A real server, shared by the cases that run at the same time, each below a chroot of its own.
pub struct RealZooKeeper {
    server: Arc<Server>,
    chroot: String,
    credentials: Option<Credentials>,
}

impl RealZooKeeper {
    pub fn start() -> Self {
        static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let server = shared.upgrade().unwrap_or_else(|| Arc::new(Server::start()));
        *shared = Arc::downgrade(&server);
        Self { server, chroot: format!("/suite/{}", Uuid::new_v4()), credentials: None }
    }

    /// The same, with nodes that belong to one user alone.
    pub fn start_with_credentials() -> Self {
        let chroot = format!("/closed/{}", Uuid::new_v4());
        let credentials = Some(credentials("digest herd:s3cret"));
        Self { chroot, credentials, ..Self::start() }
    }

    async fn reach(&self, hosts: &str) -> Arc<ZooKeeper> {
        let options = Options {
            session_timeout: SESSION_TIMEOUT,
            credentials: self.credentials.clone(),
            ..Options::new(format!("{hosts}{}", self.chroot))
        };
        ZooKeeper::connect(options).await.expect("ZooKeeper is reached")
    }

    async fn direct(&self) -> Arc<ZooKeeper> {
        self.reach(&self.server.connect_string()).await
    }
}

/// What a file with this line says.
pub fn credentials(line: &str) -> Credentials {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("credentials");
    secret(&path, line);
    Credentials::read(&path).expect("they are credentials")
}

pub async fn connect(hosts: &str, chroot: &str, session_timeout: Duration) -> Arc<ZooKeeper> {
    let options = Options { session_timeout, ..Options::new(format!("{hosts}{chroot}")) };
    ZooKeeper::connect(options).await.expect("ZooKeeper is reached")
}

#[async_trait]
impl Backend for RealZooKeeper {
    async fn connect(&self) -> Client {
        let proxy = Proxy::start(self.server.address()).await;
        let store = self.reach(&proxy.address().to_string()).await;
        Client { store, faults: Box::new(Proxied { proxy, observer: self.direct().await }) }
    }
}

struct Proxied {
    proxy: Proxy,
    observer: Arc<ZooKeeper>,
}

#[async_trait]
impl Faults for Proxied {
    fn cut(&self) {
        self.proxy.cut();
    }

    fn restore(&self) {
        self.proxy.restore();
    }

    fn lose_next_reply(&self) {
        self.proxy.lose_next_reply(Break::Close);
    }

    /// Keeps the client cut off until the server has given it up.
    async fn expire(&self, store: &dyn Coordination) {
        let marker = format!("/marker-{}", Uuid::new_v4());
        store.create(&marker, Bytes::new(), Mode::Ephemeral).await.expect("a marker");
        self.proxy.cut();
        eventually("the session expires", || async {
            matches!(self.observer.get(&marker).await, Ok(None))
        })
        .await;
        self.proxy.restore();
    }
}
