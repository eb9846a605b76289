//! One connection to the ensemble: calls and watches for as long as it lasts.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, try_join_all};
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::oneshot;
use tokio::time::timeout;
use zookeeper_client::{
    AddWatchMode, Client, Connector, Error as ClientError, EventType, PersistentWatcher,
    StateWatcher,
};

use super::address::Address;
use super::call::{Job, Running};
use super::create_options;
use super::security::{self, Credentials, Tls};
use crate::coordination::watch::Change;
use crate::coordination::{Mode, Scope, WatchSender};

/// What callers ask of the driver.
pub(super) enum Command {
    Call(Job),
    Watch(Registered),
    /// Answered at once, in touch or not.
    Pulse(oneshot::Sender<()>),
    /// What it carries is dropped once the session is closed, or could not be in time.
    Close(oneshot::Sender<()>),
}

/// A watch, for as long as its consumer lives: longer than any connection.
pub(super) struct Registered {
    pub path: String,
    pub scope: Scope,
    pub sender: WatchSender,
}

/// How to connect, and as whom.
#[derive(Clone)]
pub(super) struct Target {
    pub address: Address,
    pub session_timeout: Duration,
    pub credentials: Option<Credentials>,
    pub tls: Option<Tls>,
    /// It is for looking only: nothing is made, a chroot that is missing stays so, and the root, where
    /// everybody's changes would be told of, is not watched.
    pub read_only: bool,
}

impl Target {
    /// Asks for the session that is given, and says who we are, as each connection has to.
    fn connector(
        &self,
        session: Option<&zookeeper_client::SessionInfo>,
    ) -> Result<Connector, ClientError> {
        let mut connector =
            Client::connector().with_session_timeout(self.session_timeout).with_fail_eagerly();
        if let Some(session) = session {
            connector = connector.with_session(session.clone());
        }
        if let Some(credentials) = &self.credentials {
            connector = credentials.apply(connector);
        }
        if let Some(tls) = &self.tls {
            let options = tls.read().map_err(|error| {
                tracing::error!(%error, "no TLS to ZooKeeper");
                ClientError::BadArguments(&"the files for TLS cannot be used")
            })?;
            connector = connector.with_tls(options);
        }
        Ok(connector)
    }

    /// The same failure, or what is wrong with TLS if that is why.
    async fn explained(&self, failure: ClientError, host: &str, patience: Duration) -> ClientError {
        let (Some(tls), ClientError::NoHosts) = (&self.tls, &failure) else { return failure };
        match timeout(patience, tls.trouble(host)).await {
            Ok(Some(trouble)) => {
                ClientError::UnexpectedError(format!("TLS with {host}: {trouble}"))
            }
            _ => failure,
        }
    }

    /// Never in plaintext where TLS is asked for.
    async fn connect(&self, connector: Connector, host: &str) -> Result<Client, ClientError> {
        match self.tls {
            Some(_) => connector.secure_connect(host).await,
            None => connector.connect(host).await,
        }
    }
}

/// A new connection, in the given session if there is one. Tries each host once, beginning with
/// any, and none for so long that the others would come too late for the session.
pub(super) async fn open(
    target: &Target,
    session: Option<zookeeper_client::SessionInfo>,
) -> Result<(Client, String), ClientError> {
    let Target { address, session_timeout, .. } = target;
    let count = address.hosts.len();
    let share = *session_timeout / u32::try_from(2 * count).unwrap_or(u32::MAX);
    let patience = share.max(Duration::from_millis(500));
    let first = random() as usize % count;
    let mut failure = ClientError::NoHosts;
    for host in address.hosts.iter().cycle().skip(first).take(count) {
        let connector = target.connector(session.as_ref())?;
        match timeout(patience, target.connect(connector, host)).await {
            Ok(Ok(client)) => return Ok((client, host.clone())),
            Ok(Err(error @ (ClientError::SessionExpired | ClientError::AuthFailed))) => {
                return Err(error);
            }
            Ok(Err(error)) => failure = target.explained(error, host, patience).await,
            Err(_) => failure = ClientError::Timeout,
        }
    }
    Err(failure)
}

/// A connection ready for use.
pub(super) struct Link {
    client: Arc<Client>,
    /// Tells of any change since the connection was made.
    state: StateWatcher,
    follows: FuturesUnordered<BoxFuture<'static, Follow>>,
    calls: FuturesUnordered<Running>,
}

/// Why a watch is no longer followed on a connection.
pub(super) enum Follow {
    ConsumerGone(Arc<Registered>),
    Broken(String),
}

/// What a link has to tell.
pub(super) enum Event {
    /// The connection broke: nothing that is under way will be answered.
    Broken(String),
    /// A watch's consumer is gone.
    Unwatched(Arc<Registered>),
    /// Something was finished.
    Progress,
}

impl Link {
    /// Makes the chroot if it is missing, catches up with the ensemble, and arms the watches.
    pub async fn prepare(
        client: Client,
        state: StateWatcher,
        target: &Target,
        watches: &[Arc<Registered>],
    ) -> Result<Self, ClientError> {
        // The server may lag behind the one before, whose word was already passed on.
        client.sync("/").await?;
        let chroot = target.address.chroot.as_str();
        if chroot != "/" && client.check_stat(chroot).await?.is_none() {
            if target.read_only {
                return Err(ClientError::NoNode);
            }
            let acl = security::first_acl(target.credentials.as_ref());
            client.mkdir(chroot, &create_options(Mode::Persistent, &acl)).await?;
        }
        let rooted = client.chroot(chroot);
        let client = Arc::new(rooted.map_err(|_| ClientError::BadArguments(&"chroot"))?);
        // A server before 3.6 is to be found out now, and not at the first watch.
        if !target.read_only {
            arm(&client, "/").await?;
        }
        let armed = watches.iter().map(|watch| arm(&client, &watch.path));
        let armed = try_join_all(armed).await?;
        let link = Self {
            client: client.clone(),
            state,
            follows: FuturesUnordered::new(),
            calls: FuturesUnordered::new(),
        };
        for (watch, watcher) in watches.iter().zip(armed) {
            link.follows.push(Box::pin(follow(watch.clone(), watcher)));
        }
        Ok(link)
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn call(&mut self, job: Job) {
        self.calls.extend(job.start(self.client.clone()));
    }

    pub fn watch(&mut self, watch: Arc<Registered>) {
        let client = self.client.clone();
        self.follows.push(Box::pin(async move {
            match arm(&client, &watch.path).await {
                Ok(watcher) => {
                    drop(client);
                    follow(watch, watcher).await
                }
                Err(error) => Follow::Broken(format!("watching {}: {error}", watch.path)),
            }
        }));
    }

    /// The next event. Cancel safe.
    pub async fn next(&mut self) -> Event {
        tokio::select! {
            // In this order: the break before the calls it ended, so that whoever learns of a lost
            // reply finds the session disconnected; and watches, which seldom are done, before
            // calls, which may be without a pause.
            biased;
            // Even a return to "connected" is a break: watches and requests did not survive it.
            state = self.state.changed() => Event::Broken(format!("session is {state}")),
            Some(follow) = self.follows.next() => match follow {
                Follow::ConsumerGone(watch) => Event::Unwatched(watch),
                Follow::Broken(reason) => Event::Broken(reason),
            },
            // Should the crate's task ever die of a bug, nothing else would tell.
            Some(lost) = self.calls.next() => match lost {
                true => Event::Broken("a reply was lost".to_owned()),
                false => Event::Progress,
            },
        }
    }

    /// Lets calls under way finish, then closes the session: the crate does so when the last
    /// handle of its client is dropped, and tells by a final state.
    pub async fn close(self) {
        let Self { client, mut state, follows, mut calls } = self;
        while calls.next().await.is_some() {}
        drop((follows, client));
        while !state.state().is_terminated() {
            state.changed().await;
        }
    }
}

/// Always recursive, for servers before 3.9 keep only one mode for a path.
async fn arm(client: &Client, path: &str) -> Result<PersistentWatcher, ClientError> {
    client.watch(path, AddWatchMode::PersistentRecursive).await
}

async fn follow(watch: Arc<Registered>, mut watcher: PersistentWatcher) -> Follow {
    watch.sender.resync();
    loop {
        let event = tokio::select! {
            event = watcher.changed() => event,
            () = watch.sender.closed() => return Follow::ConsumerGone(watch),
        };
        let change = match event.event_type {
            EventType::NodeCreated => Change::Created,
            EventType::NodeDeleted => Change::Deleted,
            EventType::NodeDataChanged => Change::Data,
            EventType::NodeChildrenChanged => continue,
            // The watcher must not be asked again after a final state.
            EventType::Session => return Follow::Broken(event.session_state.to_string()),
        };
        if let Some(path) = watch.scope.report(&watch.path, change, &event.path) {
            watch.sender.tell(watch.scope, change, path);
        }
    }
}

/// For spreading, not for secrets.
pub(super) fn random() -> u64 {
    RandomState::new().hash_one(())
}
