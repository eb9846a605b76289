//! The thread that keeps a session: connects, serves, reconnects for ever, closes.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot, watch as latest};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use zookeeper_client::{Client, Error as ClientError, SessionInfo};

use super::Options;
use super::link::{self, Command, Event, Link, Registered, Target};
use super::security;
use crate::coordination::{Error, Result, Session, SessionState};
use crate::faults;

/// The first wait between two attempts; each later one is twice as long, up to a tenth of the
/// session time-out and no more than the longest.
const FIRST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// How an attempt ended.
enum End {
    /// It failed or broke: try again.
    Again,
    /// All is over.
    Closed,
}

pub(super) struct Driver {
    target: Target,
    hosts: String,
    request_timeout: Duration,
    commands: mpsc::UnboundedReceiver<Command>,
    session: Arc<latest::Sender<Session>>,
    /// The one connected to last.
    server: Arc<Mutex<String>>,
    watches: Vec<Arc<Registered>>,
    /// The session to take up again.
    saved: Option<SessionInfo>,
    /// A handle of the client in use, so that it is dropped after its runtime: dropped before, it
    /// would close the session.
    held: Option<Client>,
    wait: Duration,
    /// Who waits for the first connection.
    ready: Option<oneshot::Sender<Result<()>>>,
    /// Whether nothing is to be done any more but to close the session, and who waits for it.
    closing: bool,
    closed: Vec<oneshot::Sender<()>>,
    /// When to stop trying to connect, for the first time or to close the session.
    deadline: Option<Instant>,
    last_failure: String,
}

impl Driver {
    pub fn new(
        target: Target,
        options: &Options,
        commands: mpsc::UnboundedReceiver<Command>,
        (session, server): (Arc<latest::Sender<Session>>, Arc<Mutex<String>>),
        ready: oneshot::Sender<Result<()>>,
    ) -> Self {
        Self {
            target,
            hosts: options.hosts.clone(),
            request_timeout: options.request_timeout,
            commands,
            session,
            server,
            watches: Vec::new(),
            saved: None,
            held: None,
            wait: Duration::ZERO,
            ready: Some(ready),
            closing: false,
            closed: Vec::new(),
            deadline: Some(Instant::now() + options.request_timeout),
            last_failure: "no answer".to_owned(),
        }
    }

    /// Each attempt has a runtime of its own. Dropping that ends the crate's task with its socket
    /// and its queue, so that nothing of a broken connection is ever sent or resumed later.
    pub fn run(mut self) {
        loop {
            let end = match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => {
                    let attempt = AssertUnwindSafe(self.attempt()).catch_unwind();
                    let end = runtime.block_on(attempt);
                    drop(runtime);
                    end.unwrap_or(End::Again)
                }
                // Out of file descriptors, say.
                Err(error) => {
                    tracing::error!(%error, "no runtime for ZooKeeper");
                    std::thread::sleep(LONGEST_WAIT);
                    End::Again
                }
            };
            self.held = None;
            if let End::Closed = end {
                break;
            }
            self.publish(SessionState::Disconnected);
        }
        self.publish(SessionState::Closed);
        if let Some(ready) = self.ready.take() {
            let Self { hosts, last_failure, .. } = &self;
            let reason = format!("cannot reach ZooKeeper at {hosts}: {last_failure}");
            let _ = ready.send(Err(Error::Unavailable { reason }));
        }
    }

    async fn attempt(&mut self) -> End {
        let wait = self.next_wait();
        if self.refusing(sleep(wait)).await.is_none() {
            return End::Closed;
        }
        let link = match self.connect().await {
            Some(Ok(link)) => link,
            Some(Err(error)) => return self.failed(error),
            None => return End::Closed,
        };
        if self.closing {
            self.close(link).await;
            return End::Closed;
        }
        self.connected(link.client());
        let since = Instant::now();
        let end = self.serve(link).await;
        if since.elapsed() > self.target.session_timeout {
            self.wait = FIRST_WAIT;
        }
        end
    }

    /// A link ready for use; `None` when there is no more time for it.
    async fn connect(&mut self) -> Option<Result<Link, ClientError>> {
        let (target, saved) = (self.target.clone(), self.saved.clone());
        let opened = async move { link::open(&target, saved).await };
        let (client, server) = match self.refusing(opened).await? {
            Ok(opened) => opened,
            Err(error) => return Some(Err(error)),
        };
        let state = client.state_watcher();
        self.held = Some(client.clone());
        self.saved = Some(client.session().clone());
        self.watches.retain(|watch| !watch.sender.is_closed());
        let (target, watches) = (self.target.clone(), self.watches.clone());
        let armed = watches.len();
        let prepared = async move {
            let prepared = Link::prepare(client, state, &target, &watches);
            timeout(target.session_timeout / 2, prepared).await.unwrap_or(Err(ClientError::Timeout))
        };
        let mut link = self.refusing(prepared).await?;
        if let Ok(link) = &mut link {
            *self.server.lock().unwrap_or_else(PoisonError::into_inner) = server;
            // Those that were asked for meanwhile.
            self.watches.iter().skip(armed).for_each(|watch| link.watch(watch.clone()));
        }
        Some(link)
    }

    /// Waits for something while out of touch: calls are refused, watches noted for later. `None`
    /// when there is no more time for it.
    async fn refusing<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = std::pin::pin!(future);
        loop {
            let deadline = self.deadline;
            let out_of_time = async move {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                done = &mut future => return Some(done),
                () = out_of_time => return None,
                command = self.commands.recv(), if !self.closing => match command {
                    // Dropped before it began: its caller learns that it was not done.
                    Some(Command::Call(job)) => drop(job),
                    Some(Command::Watch(watch)) => self.watches.push(Arc::new(watch)),
                    Some(Command::Pulse(seen)) => drop(seen.send(())),
                    Some(Command::Close(closed)) => self.begin_close(Some(closed)),
                    None => self.begin_close(None),
                },
            }
            if self.closing && self.saved.is_none() {
                return None;
            }
        }
    }

    async fn serve(&mut self, mut link: Link) -> End {
        loop {
            faults::point("the thread for ZooKeeper goes on");
            tokio::select! {
                event = link.next() => match event {
                    Event::Progress => (),
                    Event::Unwatched(gone) => {
                        self.watches.retain(|watch| !Arc::ptr_eq(watch, &gone));
                    }
                    Event::Broken(reason) => {
                        tracing::warn!(hosts = self.hosts, reason, "lost touch with ZooKeeper");
                        self.publish(SessionState::Disconnected);
                        return End::Again;
                    }
                },
                command = self.commands.recv() => match command {
                    Some(Command::Call(job)) => link.call(job),
                    Some(Command::Watch(watch)) => {
                        let watch = Arc::new(watch);
                        self.watches.push(watch.clone());
                        link.watch(watch);
                    }
                    Some(Command::Pulse(seen)) => drop(seen.send(())),
                    Some(Command::Close(closed)) => {
                        self.begin_close(Some(closed));
                        self.close(link).await;
                        return End::Closed;
                    }
                    None => {
                        self.begin_close(None);
                        self.close(link).await;
                        return End::Closed;
                    }
                },
            }
        }
    }

    fn connected(&mut self, client: &Client) {
        self.deadline = None;
        self.last_failure.clear();
        let id = client.session_id().0;
        self.session.send_modify(|session| {
            if session.id != id {
                session.id = id;
                session.epoch += 1;
            }
            session.state = SessionState::Connected;
            session.timeout = client.session_timeout();
            tracing::info!(hosts = self.hosts, ?session, "in touch with ZooKeeper");
        });
        if let Some(ready) = self.ready.take() {
            // A caller that gave up drops the commands too, which ends all this.
            let _ = ready.send(Ok(()));
        }
    }

    fn failed(&mut self, error: ClientError) -> End {
        let failure = match &error {
            ClientError::NoHosts if self.target.tls.is_some() => {
                "no server accepts the connection with TLS".to_owned()
            }
            ClientError::NoHosts => "no server accepts the connection".to_owned(),
            other => other.to_string(),
        };
        // Once, and not for each attempt.
        if failure != self.last_failure {
            tracing::warn!(hosts = self.hosts, failure, "no connection to ZooKeeper");
            self.last_failure = failure;
        }
        match error {
            // The only authority on it is the ensemble. A new session can be had at once.
            ClientError::SessionExpired => {
                self.saved = None;
                self.wait = Duration::ZERO;
                return if self.closing { End::Closed } else { End::Again };
            }
            ClientError::NoAuth
            | ClientError::AuthFailed
            | ClientError::InvalidAcl
            | ClientError::NoNode
            | ClientError::Unimplemented => {
                // Waiting does not mend these, but a daemon that runs already keeps trying.
                if let Some(ready) = self.ready.take() {
                    let refusal = match error {
                        ClientError::Unimplemented => Error::Refused {
                            reason: format!("{} is older than ZooKeeper 3.6", self.hosts),
                        },
                        ClientError::NoNode => {
                            Error::NoNode { path: self.target.address.chroot.clone() }
                        }
                        _ => security::rejected(&self.hosts, self.target.credentials.as_ref()),
                    };
                    let _ = ready.send(Err(refusal));
                    return End::Closed;
                }
            }
            _ => (),
        }
        End::Again
    }

    fn begin_close(&mut self, closed: Option<oneshot::Sender<()>>) {
        self.closing = true;
        self.closed.extend(closed);
        self.commands.close();
        self.watches.clear();
        self.publish(SessionState::Closed);
        self.deadline = Some(Instant::now() + self.request_timeout);
    }

    async fn close(&mut self, link: Link) {
        self.held = None;
        let deadline = self.deadline.unwrap_or_else(Instant::now);
        if timeout_at(deadline, link.close()).await.is_err() {
            tracing::warn!(hosts = self.hosts, "the session could not be closed in time");
        }
    }

    /// A state once closed stays so.
    fn publish(&self, state: SessionState) {
        self.session.send_if_modified(|session| {
            let changes = session.state != state && session.state != SessionState::Closed;
            if changes {
                session.state = state;
            }
            changes
        });
    }

    /// Spread, so that many clients of one ensemble do not come back all at once.
    fn next_wait(&mut self) -> Duration {
        let longest =
            (self.target.session_timeout / 10).clamp(Duration::from_millis(100), LONGEST_WAIT);
        let wait = self.wait;
        self.wait = (wait * 2).clamp(FIRST_WAIT, longest);
        wait / 2 + (wait / 2).mul_f64((link::random() % 1024) as f64 / 1024.0)
    }
}
