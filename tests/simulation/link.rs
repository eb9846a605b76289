//! A daemon's way to the store, and all that can happen on it.
//!
//! As with ZooKeeper: the requests of one connection arrive in order, and so do the replies. Between
//! daemons anything goes. When a connection breaks, some of what was under way has arrived, and the
//! client finds out later; whatever it has asked for and not been answered is in doubt. The store ends
//! a session from which it has not heard for the session's time-out, give or take; the client learns
//! of it when it is in touch again. Nothing is sent twice, since no client does so.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use oribi::coordination::embedded::EmbeddedSession;
use oribi::coordination::{
    Coordination, Error, Event as Change, Op, Outcome, Result, Scope, Session, SessionState, Watch,
    watch_channel,
};
use tokio::sync::{Notify, oneshot, watch as latest};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use crate::calls::{Answer, Call};
use crate::mutations::Mutation;
use crate::process::Process;
use crate::sim::{Event, Sim, Write, at_once, lock};

pub const SESSION_TIMEOUT: Duration = Duration::from_secs(4);
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// What befalls the next write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    Request,
    Reply,
}

/// One life of a daemon's session or sessions with the store, from its start to its end.
pub struct Link {
    pub name: String,
    pub process: Process,
    sim: Arc<Sim>,
    store: Arc<EmbeddedSession>,
    /// What the client knows.
    session: latest::Sender<Session>,
    state: Mutex<State>,
    asked: Notify,
    answered: Notify,
    silence: Notify,
    /// A write is in doubt since the last one that was not.
    in_doubt: AtomicBool,
}

struct State {
    connected: bool,
    /// The process has ended.
    dead: bool,
    /// The store has ended the session, and there is no other yet.
    expired: bool,
    /// No connection is made before.
    blocked: Instant,
    /// When the store has last heard of the session, while it hears nothing.
    heard: Instant,
    /// How long it waits then.
    limit: Duration,
    slow: bool,
    loss: Option<Loss>,
    requests: VecDeque<Request>,
    replies: VecDeque<Reply>,
    broken: Vec<Reply>,
    /// When the last of each arrive.
    last: (Instant, Instant),
}

struct Request {
    at: Instant,
    number: u64,
    call: Call,
    reply: oneshot::Sender<Result<Answer>>,
}

struct Reply {
    at: Instant,
    number: u64,
    answer: Result<Answer>,
    write: bool,
    reply: oneshot::Sender<Result<Answer>>,
}

impl Request {
    /// That nothing came of it as far as the client knows.
    fn unanswered(self) -> Reply {
        let write = matches!(self.call, Call::Write { .. });
        let Self { at, number, reply, .. } = self;
        Reply { at, number, answer: Err(lost(write)), write, reply }
    }
}

fn lost(write: bool) -> Error {
    let reason = "the connection broke".to_owned();
    if write { Error::Ambiguous { reason } } else { Error::Unavailable { reason } }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Link {
    /// A new process, in a session of its own.
    pub fn open(sim: &Arc<Sim>, name: String) -> Arc<Self> {
        let store = sim.connect();
        let now = Instant::now();
        let state = State {
            connected: true,
            dead: false,
            expired: false,
            blocked: now,
            heard: now,
            limit: SESSION_TIMEOUT,
            slow: false,
            loss: None,
            requests: VecDeque::new(),
            replies: VecDeque::new(),
            broken: Vec::new(),
            last: (now, now),
        };
        let link = Arc::new(Self {
            name,
            process: Process::default(),
            sim: sim.clone(),
            session: latest::Sender::new(*store.session().borrow()),
            store,
            state: Mutex::new(state),
            asked: Notify::new(),
            answered: Notify::new(),
            silence: Notify::new(),
            in_doubt: AtomicBool::new(false),
        });
        link.publish(|_| {});
        sim.tell(|| format!("{} begins session {:x}", link.name, link.id()));
        sim.spawn("the way there", link.clone().serve());
        sim.spawn("the way back", link.clone().deliver());
        sim.spawn("the store's clock", link.clone().keep_time());
        link
    }

    /// The store's id of the session.
    pub fn id(&self) -> i64 {
        self.store.session().borrow().id
    }

    /// Whether the process has ended.
    pub fn is_dead(&self) -> bool {
        lock(&self.state).dead
    }

    fn publish(&self, change: impl FnOnce(&mut Session)) {
        let mut session = *self.store.session().borrow();
        change(&mut session);
        if self.sim.mutation == Some(Mutation::LongLease) {
            session.timeout *= 3;
        }
        self.session.send_replace(session);
    }

    /// How long a message is under way.
    fn delay(&self, slow: bool) -> Duration {
        match (slow, self.sim.below(100)) {
            (true, _) => self.sim.between(50, 900),
            (false, 0..70) => self.sim.between(0, 3),
            (false, 70..97) => self.sim.between(0, 40),
            (false, _) => self.sim.between(0, 400),
        }
    }

    /// Asks the store, as a client of ZooKeeper would.
    pub async fn call(&self, call: Call) -> Result<Answer> {
        self.process.runs().await;
        match self.session.borrow().state {
            SessionState::Connected => {}
            SessionState::Disconnected => {
                return Err(Error::Unavailable { reason: "out of touch".to_owned() });
            }
            SessionState::Closed => return Err(Error::Closed),
        }
        let (write, operation) = match &call {
            Call::Write { operation, .. } => (true, *operation),
            _ => (false, None),
        };
        let (reply, answer) = oneshot::channel();
        let number = self.sim.number();
        self.sim.tell(|| format!("{} #{number} asks {}", self.name, call.text()));
        {
            let mut state = lock(&self.state);
            let at = (Instant::now() + self.delay(state.slow)).max(state.last.0);
            state.last.0 = at;
            let request = Request { at, number, call, reply };
            match state.connected {
                true => state.requests.push_back(request),
                // It goes into a connection that leads nowhere.
                false => state.broken.push(request.unanswered()),
            }
        }
        self.asked.notify_one();
        let answer = timeout(REQUEST_TIMEOUT, answer).await;
        self.process.runs().await;
        let answer = match answer {
            Ok(Ok(answer)) => answer,
            _ => Err(lost(write)),
        };
        if write {
            let doubt = answer.as_ref().is_err_and(Error::may_have_landed);
            self.in_doubt.store(doubt, Ordering::Relaxed);
            if let Some(operation) = operation.filter(|_| doubt) {
                self.sim.judge(&Event::Doubt(operation));
            }
        }
        self.sim.tell(|| match &answer {
            Ok(_) => format!("{} #{number} is answered", self.name),
            Err(error) => format!("{} #{number} fails: {error}", self.name),
        });
        match answer {
            Err(Error::Ambiguous { reason })
                if self.sim.mutation == Some(Mutation::DoubtIsRefusal) =>
            {
                Err(Error::Unavailable { reason })
            }
            answer => answer,
        }
    }

    /// Carries out requests as they arrive.
    async fn serve(self: Arc<Self>) {
        loop {
            let next = lock(&self.state).requests.front().map(|request| request.at);
            let Some(at) = next else {
                if self.is_dead() {
                    return;
                }
                self.asked.notified().await;
                continue;
            };
            sleep_until(at).await;
            let request = {
                let mut state = lock(&self.state);
                match state.requests.front() {
                    Some(request) if request.at <= Instant::now() => state.requests.pop_front(),
                    _ => None,
                }
            };
            if let Some(request) = request {
                self.arrive(request);
            }
        }
    }

    /// A request has come as far as the store.
    fn arrive(self: &Arc<Self>, request: Request) {
        let write = matches!(request.call, Call::Write { .. });
        let loss = {
            let mut state = lock(&self.state);
            if write { state.loss.take() } else { None }
        };
        if loss == Some(Loss::Request) {
            lock(&self.state).requests.push_front(request);
            self.cut(Duration::ZERO, 0);
            return;
        }
        lock(&self.state).heard = Instant::now();
        let Request { number, call, reply, .. } = request;
        let answer = self.carry_out(call);
        self.sim.tell(|| {
            let done =
                answer.as_ref().map_or_else(|error| error.to_string(), |_| "done".to_owned());
            format!("{} #{number} arrives: {done}", self.name)
        });
        {
            let mut state = lock(&self.state);
            let at = (Instant::now() + self.delay(state.slow)).max(state.last.1);
            state.last.1 = at;
            state.replies.push_back(Reply { at, number, answer, write, reply });
        }
        self.answered.notify_one();
        if loss == Some(Loss::Reply) {
            self.cut(Duration::ZERO, 0);
        }
    }

    fn carry_out(&self, call: Call) -> Result<Answer> {
        const READ: &str = "reads are from memory";
        match call {
            Call::Get(path) => {
                let node = self.store.get(&path).now_or_never().expect(READ)?;
                let in_doubt = self.in_doubt.load(Ordering::Relaxed);
                Ok(Answer::Node(node.map(|node| match self.sim.mutation {
                    Some(mutation) if in_doubt => mutation.read(mutation.get(node)),
                    Some(mutation) => mutation.get(node),
                    None => node,
                })))
            }
            Call::Stat(path) => {
                let stat = self.store.stat(&path).now_or_never().expect(READ)?;
                Ok(Answer::Stat(stat.map(|stat| match self.sim.mutation {
                    Some(mutation) => mutation.stat(stat),
                    None => stat,
                })))
            }
            Call::Children(path) => {
                self.store.children(&path).now_or_never().expect(READ).map(Answer::Children)
            }
            // Behind what is being written.
            Call::Sync => at_once(self.store.sync()).map(|()| Answer::Synced),
            Call::Write { ops, alone, operation } => {
                let before = ops.iter().map(|op| self.sim.node(op.path())).collect();
                let done = self.write(&ops);
                let write = Write { link: self, ops: &ops, before, done: &done, operation };
                self.sim.judge(&Event::Write(&write));
                match done {
                    Err(Error::Transaction { source, .. }) if alone => Err(*source),
                    done => done.map(Answer::Written),
                }
            }
        }
    }

    /// Carries out a write, without what the mutation leaves out.
    fn write(&self, ops: &[Op]) -> Result<Vec<Outcome>> {
        let changed = ops.iter().cloned().map(|op| match self.sim.mutation {
            Some(mutation) => mutation.step(op, &self.sim),
            None => Some(op),
        });
        let changed: Vec<Option<Op>> = changed.collect();
        let steps: Vec<Op> = changed.iter().flatten().cloned().collect();
        let mut outcomes = at_once(self.store.transact(steps))?.into_iter();
        let outcome = |op: Option<Op>| match op {
            Some(_) => outcomes.next().expect("an outcome for each step"),
            None => Outcome::Checked,
        };
        Ok(changed.into_iter().map(outcome).collect())
    }

    /// Delivers replies.
    async fn deliver(self: Arc<Self>) {
        loop {
            let next = lock(&self.state).replies.front().map(|reply| reply.at);
            let Some(at) = next else {
                if self.is_dead() {
                    return;
                }
                self.answered.notified().await;
                continue;
            };
            sleep_until(at).await;
            let reply = {
                let mut state = lock(&self.state);
                match state.replies.front() {
                    Some(reply) if reply.at <= Instant::now() => state.replies.pop_front(),
                    _ => None,
                }
            };
            if let Some(Reply { answer, reply, .. }) = reply {
                let _ = reply.send(answer);
            }
        }
    }

    /// Ends the session once it has been silent for too long.
    async fn keep_time(self: Arc<Self>) {
        loop {
            let end = {
                let state = lock(&self.state);
                if state.dead && state.expired {
                    return;
                }
                let heard = state.connected && !self.process.is_stopped();
                (!heard && !state.expired).then(|| state.heard + state.limit)
            };
            match end {
                None => self.silence.notified().await,
                Some(end) if end <= Instant::now() => self.expire(),
                Some(end) => drop(timeout_at(end, self.silence.notified()).await),
            }
        }
    }

    /// The store hears nothing from now on. A client tells of itself every third of the time-out.
    fn fall_silent(&self, state: &mut State) {
        let ago = self.sim.between(0, SESSION_TIMEOUT.as_millis() as u64 / 3);
        if let Some(heard) = Instant::now().checked_sub(ago) {
            state.heard = state.heard.max(heard);
        }
        state.limit =
            SESSION_TIMEOUT * (95 + u32::try_from(self.sim.below(36)).expect("small")) / 100;
    }

    fn expire(self: &Arc<Self>) {
        self.sim.tell(|| format!("{}: the store ends session {:x}", self.name, self.id()));
        lock(&self.state).expired = true;
        self.hang_up(0);
        at_once(self.store.expire());
        self.sim.judge(&Event::Expired(self));
    }

    /// Breaks the connection; there is no other for some time. Of all requests under way `arriving`
    /// in a hundred come through.
    pub fn cut(self: &Arc<Self>, time: Duration, arriving: u64) {
        lock(&self.state).blocked = Instant::now() + time;
        self.hang_up(arriving);
        self.silence.notify_one();
    }

    fn hang_up(self: &Arc<Self>, arriving: u64) {
        let arrived: Vec<Request> = {
            let mut state = lock(&self.state);
            if !state.connected {
                return;
            }
            self.sim.tell(|| format!("{}: the connection breaks", self.name));
            state.connected = false;
            let count = state.requests.len() * usize::try_from(arriving).expect("small") / 100;
            state.requests.drain(..count).collect()
        };
        for request in arrived {
            self.arrive(request);
        }
        {
            let mut state = lock(&self.state);
            let requests: Vec<Request> = state.requests.drain(..).collect();
            let replies: Vec<Reply> = state.replies.drain(..).collect();
            state.broken.extend(replies);
            state.broken.extend(requests.into_iter().map(Request::unanswered));
            if !self.process.is_stopped() {
                self.fall_silent(&mut state);
            }
        }
        self.store.disconnect();
        self.sim.spawn("a broken connection", self.clone().come_back());
    }

    /// What the client does about a broken connection, once it notices.
    async fn come_back(self: Arc<Self>) {
        let unnoticed = if self.sim.happens(70) { 50 } else { 1500 };
        sleep(self.sim.between(0, unnoticed)).await;
        self.process.runs().await;
        if self.is_dead() {
            return;
        }
        self.sim.tell(|| format!("{} knows that it is out of touch", self.name));
        self.publish(|session| session.state = SessionState::Disconnected);
        let broken = std::mem::take(&mut lock(&self.state).broken);
        for Reply { number, write, reply, .. } in broken {
            self.sim.tell(|| format!("{} #{number} is in doubt", self.name));
            let _ = reply.send(Err(lost(write)));
        }
        loop {
            // Sometimes it is back before anybody has looked.
            if !self.sim.happens(20) {
                sleep(self.sim.between(20, 300)).await;
            }
            self.process.runs().await;
            let state = lock(&self.state);
            if state.dead {
                return;
            }
            if state.blocked <= Instant::now() {
                break;
            }
        }
        self.store.reconnect();
        {
            let mut state = lock(&self.state);
            state.connected = true;
            state.expired = false;
            state.heard = Instant::now();
            state.last = (state.heard, state.heard);
        }
        self.sim.tell(|| format!("{} is in touch again, session {:x}", self.name, self.id()));
        self.publish(|_| {});
        self.silence.notify_one();
    }

    /// Stops the process, as SIGSTOP does.
    pub fn stop(&self) {
        self.sim.tell(|| format!("{} is stopped", self.name));
        {
            let mut state = lock(&self.state);
            if state.connected {
                self.fall_silent(&mut state);
            }
        }
        self.process.stop();
        self.silence.notify_one();
    }

    pub fn go_on(&self) {
        self.sim.tell(|| format!("{} goes on", self.name));
        {
            let mut state = lock(&self.state);
            if state.connected {
                state.heard = Instant::now();
            }
        }
        self.process.go_on();
        self.silence.notify_one();
    }

    /// Messages take long from now on, or no longer do.
    pub fn slow(&self, slow: bool) {
        self.sim.tell(|| format!("{} is slow: {slow}", self.name));
        lock(&self.state).slow = slow;
    }

    /// The next write is lost, or its reply.
    pub fn lose(&self, loss: Option<Loss>) {
        lock(&self.state).loss = loss;
    }

    /// A connection can be made again.
    pub fn heal(&self) {
        let mut state = lock(&self.state);
        state.blocked = Instant::now();
        state.slow = false;
        state.loss = None;
    }

    /// The process ends without a word.
    pub fn die(self: &Arc<Self>) {
        self.sim.tell(|| format!("{} has ended", self.name));
        lock(&self.state).dead = true;
        let half = if self.sim.happens(50) { 100 } else { 0 };
        self.hang_up(half);
        self.session.send_modify(|session| session.state = SessionState::Closed);
        // Whoever waits in a process that is no more waits for ever.
        lock(&self.state).broken.clear();
        self.wake();
    }

    /// What the client knows of its session.
    pub fn told(&self) -> latest::Receiver<Session> {
        self.session.subscribe()
    }

    /// A watch whose events come late, and several of one path as one.
    pub fn follow(&self, path: &str, scope: Scope) -> Watch {
        let (sender, watch) = watch_channel();
        let (mut events, session) = (self.store.watch(path, scope), self.told());
        let (sim, name) = (self.sim.clone(), self.name.clone());
        self.sim.spawn("a watch", async move {
            while let Some(event) = events.next().await {
                sleep(if sim.happens(90) { sim.between(0, 5) } else { sim.between(0, 300) }).await;
                if sender.is_closed() || session.borrow().state == SessionState::Closed {
                    return;
                }
                sim.tell(|| format!("{name} is told {event:?}"));
                match event {
                    Change::Changed(path) => sender.changed(&path),
                    Change::Resync => sender.resync(),
                }
            }
        });
        watch
    }

    /// Ends the session in good order: the store does so at once, if it can be reached.
    pub fn end(&self) {
        self.sim.tell(|| format!("{} closes its session", self.name));
        self.session.send_modify(|session| session.state = SessionState::Closed);
        let connected = {
            let mut state = lock(&self.state);
            state.dead = true;
            state.broken.clear();
            state.requests.clear();
            state.replies.clear();
            std::mem::replace(&mut state.connected, false)
        };
        self.store.disconnect();
        if connected {
            lock(&self.state).expired = true;
            at_once(self.store.expire());
            self.sim.judge(&Event::Expired(self));
        }
        self.wake();
    }

    fn wake(&self) {
        for waiting in [&self.asked, &self.answered, &self.silence] {
            waiting.notify_one();
        }
    }
}
