//! Signals from one session to another, on whichever daemon that is: `pg_cancel_backend` and
//! `pg_terminate_backend`.
//!
//! A signal for another daemon's session is a node below that daemon's `/signals/<daemon>`. The
//! daemon that asks makes it, ephemeral, and removes it in any case; the one that is asked watches
//! its own, acts, and writes its answer into it. Who wants to wait until the session has ended is
//! told by the removal of the node. While nobody signals it costs nothing.
//!
//! A signal is for one incarnation of a daemon: the process that was started after it has other
//! sessions.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::sessions::{SessionEntry, Sessions, Signal, prefix_of};
use crate::catalog::Catalog;
use crate::cluster::{Member, Membership};
use crate::coordination::paths::Path;
use crate::coordination::{self, Coordination, Event, Mode, Scope, SessionState};
use crate::id;

/// How long another daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest wait for a session's end; PostgreSQL takes any, and nobody waits for so long.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Pause before something is tried again that the store refused.
const RETRY: Duration = Duration::from_millis(500);

/// Signals on their way to other daemons at once; more have to wait.
const AT_ONCE: usize = 64;

/// The value of `/signals/<daemon>/<uuid>`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Message {
    pid: i32,
    signal: Signal,
    /// The daemon that asks, and the role on whose behalf.
    from: String,
    user: String,
    /// The incarnation of the daemon that is asked.
    to: Uuid,
    /// Whether the node is to be removed when the session has ended.
    until_gone: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answer: Option<Answer>,
}

/// What the daemon that is asked has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Sent,
    /// It has no such session.
    Unknown,
    /// The role may not do this to that session.
    Denied(Denied),
}

/// Why a role may not signal a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Denied {
    /// Sessions of superusers are for superusers.
    Superuser,
    /// It does not have the role of the session, nor `pg_signal_backend`.
    NotMember,
}

/// What came of a signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The session has it; where its end was waited for, it has ended.
    Sent,
    /// The session has it, and has not ended in time.
    StillThere,
    Unknown,
    Denied(Denied),
    /// The daemon with this id has not answered in time.
    NoAnswer(String),
}

/// Signals of this daemon's clients, and to them.
#[derive(Debug)]
pub struct Signals {
    coordination: Arc<dyn Coordination>,
    membership: Arc<Membership>,
    sessions: Arc<Sessions>,
    catalog: Arc<Catalog>,
    places: Semaphore,
    /// Questions under way, on the runtime of the network: whoever has asked may give up, the node
    /// is removed in any case.
    tasks: TaskTracker,
    handle: Handle,
    stopping: CancellationToken,
}

impl Signals {
    /// From here on others may leave signals, which [`Self::follow`] will find.
    pub async fn open(
        coordination: Arc<dyn Coordination>,
        membership: Arc<Membership>,
        sessions: Arc<Sessions>,
        catalog: Arc<Catalog>,
    ) -> coordination::Result<Arc<Self>> {
        for path in [Path::Signals, Path::SignalsTo(membership.id())] {
            coordination::ensure(coordination.as_ref(), &path.to_string()).await?;
        }
        Ok(Arc::new(Self {
            coordination,
            membership,
            sessions,
            catalog,
            places: Semaphore::new(AT_ONCE),
            tasks: TaskTracker::new(),
            handle: Handle::current(),
            stopping: CancellationToken::new(),
        }))
    }

    /// Signals a session on whichever daemon it is. `until_gone`: waits so long for its end. May be
    /// called on any runtime; dropping it gives up.
    pub async fn send(
        self: &Arc<Self>,
        user: &str,
        pid: i32,
        signal: Signal,
        until_gone: Option<Duration>,
    ) -> Outcome {
        let until_gone = until_gone.map(|limit| limit.min(LONGEST));
        if let Some(session) = self.sessions.find(pid) {
            if let Err(denied) = self.may_signal(user, &session) {
                return Outcome::Denied(denied);
            }
            session.signal(signal);
            return match until_gone {
                Some(limit) if timeout(limit, session.gone.cancelled()).await.is_err() => {
                    Outcome::StillThere
                }
                _ => Outcome::Sent,
            };
        }
        let prefix = prefix_of(pid).filter(|_| !self.sessions.gives(pid));
        let others = prefix.map(|prefix| self.membership.others_with_prefix(prefix));
        for member in others.unwrap_or_default() {
            match self.ask(user, pid, signal, until_gone, &member).await {
                Outcome::Unknown => {}
                outcome => return outcome,
            }
        }
        Outcome::Unknown
    }

    /// Leaves a signal for another daemon, and waits for what comes of it.
    async fn ask(
        self: &Arc<Self>,
        user: &str,
        pid: i32,
        signal: Signal,
        until_gone: Option<Duration>,
        member: &Member,
    ) -> Outcome {
        let message = Message {
            pid,
            signal,
            from: self.membership.id().to_owned(),
            user: user.to_owned(),
            to: member.record.incarnation,
            until_gone: until_gone.is_some(),
            answer: None,
        };
        let path = Path::Signal(&member.id, id::nonce()).to_string();
        let given_up = CancellationToken::new();
        let _guard = given_up.clone().drop_guard();
        let this = self.clone();
        let task = async move {
            let limit = PATIENCE + until_gone.unwrap_or_default();
            let outcome = tokio::select! {
                exchanged = timeout(limit, this.exchange(&path, message, until_gone)) => exchanged,
                () = given_up.cancelled() => Ok(Ok(None)),
            };
            this.remove(&path).await;
            outcome
        };
        match self.tasks.spawn_on(task, &self.handle).await {
            Ok(Ok(Ok(Some(outcome)))) => return outcome,
            Ok(Ok(Err(error))) => {
                warn!(daemon = member.id, pid, %error, "a signal could not be sent");
            }
            _ => warn!(daemon = member.id, pid, "a signal was not answered in time"),
        }
        Outcome::NoAnswer(member.id.clone())
    }

    /// Makes the node and waits for the answer; `None` if there is none.
    async fn exchange(
        &self,
        path: &str,
        message: Message,
        until_gone: Option<Duration>,
    ) -> coordination::Result<Option<Outcome>> {
        let Ok(_place) = self.places.acquire().await else { return Ok(None) };
        let Ok(data) = serde_json::to_vec(&message) else { return Ok(None) };
        self.coordination.create(path, data.into(), Mode::Ephemeral).await?;
        let mut watch = self.coordination.watch(path, Scope::Node);
        let mut deadline = Instant::now() + PATIENCE;
        let mut sent = false;
        loop {
            match timeout_at(deadline, watch.next()).await {
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return Ok(sent.then_some(Outcome::StillThere)),
            }
            // Only the end of the session removes it.
            let Some(node) = self.coordination.get(path).await? else {
                return Ok(Some(Outcome::Sent));
            };
            let message = serde_json::from_slice::<Message>(&node.data).ok();
            match (message.and_then(|message| message.answer), until_gone) {
                (None, _) => {}
                (Some(Answer::Sent), Some(limit)) if !sent => {
                    (sent, deadline) = (true, Instant::now() + limit);
                }
                (Some(Answer::Sent), Some(_)) => {}
                (Some(Answer::Sent), None) => return Ok(Some(Outcome::Sent)),
                (Some(Answer::Unknown), _) => return Ok(Some(Outcome::Unknown)),
                (Some(Answer::Denied(denied)), _) => return Ok(Some(Outcome::Denied(denied))),
            }
        }
    }

    /// Removes a node, if it takes until the store can be reached again: found later it would stop
    /// what nobody wants to be stopped any more.
    async fn remove(&self, path: &str) {
        let session = self.coordination.session();
        let epoch = session.borrow().epoch;
        while session.borrow().epoch == epoch {
            match self.coordination.delete(path, None).await {
                Ok(()) | Err(coordination::Error::NoNode { .. }) => return,
                Err(error) => debug!(%error, path, "a signal could not be removed yet"),
            }
            tokio::select! {
                () = self.stopping.cancelled() => return,
                () = sleep(RETRY) => {}
            }
        }
    }

    /// Acts on other daemons' signals until `stop`. Needed exactly once.
    pub async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let own = Path::SignalsTo(self.membership.id()).to_string();
        let mut watch = self.coordination.watch(&own, Scope::Subtree);
        let mut inbox = Inbox::default();
        let mut behind = false;
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => break,
                event = watch.next() => event,
                Some(path) = inbox.leaving.next() => {
                    // What cannot be removed now its asker removes, when its patience ends.
                    let _ = self.coordination.delete(&path, None).await;
                    continue;
                }
                () = sleep(RETRY), if behind => Some(Event::Resync),
            };
            let Some(event) = event else { break };
            let looked = self.look(&own, event, &mut inbox).await;
            behind = looked.is_err();
            if let Err(error) = looked {
                debug!(%error, "signals could not be read yet");
            }
        }
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        if self.coordination.session().borrow().state == SessionState::Connected {
            // Somebody's signal may still be there, and goes with its asker.
            let _ = self.coordination.delete(&own, None).await;
        }
    }

    async fn look(&self, own: &str, event: Event, inbox: &mut Inbox) -> coordination::Result<()> {
        let paths = match event {
            Event::Changed(path) if path == own => return Ok(()),
            Event::Changed(path) => vec![path],
            Event::Resync => {
                coordination::ensure(self.coordination.as_ref(), own).await?;
                let names = self.coordination.children(own).await?;
                let paths: Vec<_> = names.iter().map(|name| format!("{own}/{name}")).collect();
                inbox.answers.retain(|path, _| paths.contains(path));
                paths
            }
        };
        for path in paths {
            self.answer(path, inbox).await?;
        }
        Ok(())
    }

    /// Acts on a signal, once, and writes the answer to it.
    async fn answer(&self, path: String, inbox: &mut Inbox) -> coordination::Result<()> {
        let Some(node) = self.coordination.get(&path).await? else {
            inbox.answers.remove(&path);
            return Ok(());
        };
        let message = match serde_json::from_slice::<Message>(&node.data) {
            Ok(message) => message,
            Err(error) => {
                warn!(path, %error, "a signal is not valid and is left alone");
                return Ok(());
            }
        };
        if message.answer.is_some() {
            return Ok(());
        }
        let answer = match inbox.answers.get(&path) {
            Some(answer) => *answer,
            None => {
                let answer = self.act(&message, &path, inbox).await;
                inbox.answers.insert(path.clone(), answer);
                answer
            }
        };
        let Ok(data) = serde_json::to_vec(&Message { answer: Some(answer), ..message }) else {
            return Ok(());
        };
        match self.coordination.set(&path, data.into(), None).await {
            // The asker has given up.
            Ok(_) | Err(coordination::Error::NoNode { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn act(&self, message: &Message, path: &str, inbox: &mut Inbox) -> Answer {
        if message.to != self.membership.record().await.incarnation {
            return Answer::Unknown;
        }
        let Some(session) = self.sessions.find(message.pid) else { return Answer::Unknown };
        let Message { pid, signal, from, user, .. } = message;
        if let Err(denied) = self.may_signal(user, &session) {
            return Answer::Denied(denied);
        }
        info!(pid, ?signal, from, user, "a session is signalled from another daemon");
        session.signal(*signal);
        if message.until_gone {
            inbox.leaving.push(left(session.gone.clone(), path.to_owned()));
        }
        Answer::Sent
    }

    /// Whether a role may signal a session, by PostgreSQL's rules.
    fn may_signal(&self, user: &str, session: &SessionEntry) -> Result<(), Denied> {
        let snapshot = self.catalog.snapshot();
        let access = snapshot.access(user);
        if access.is_superuser() {
            return Ok(());
        }
        if snapshot.access(&session.user).is_superuser() {
            return Err(Denied::Superuser);
        }
        let member = access.has_role(&session.user) || access.has_role("pg_signal_backend");
        if member { Ok(()) } else { Err(Denied::NotMember) }
    }
}

/// What a daemon has to remember of the signals to it.
#[derive(Default)]
struct Inbox {
    /// Answers by path, as long as the node is there: an answer that did not get through is written
    /// again, and nothing is done twice.
    answers: HashMap<String, Answer>,
    /// Nodes to remove when a session has ended, which is soon.
    leaving: FuturesUnordered<BoxFuture<'static, String>>,
}

fn left(gone: CancellationToken, path: String) -> BoxFuture<'static, String> {
    Box::pin(async move {
        gone.cancelled().await;
        path
    })
}
