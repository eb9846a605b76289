//! Registers this daemon, follows the others, and registers anew after a lost session.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::lease::Lease;
use super::record::{Lack, Member, Record, State, Trouble};
use super::warehouses::{self, NONE};
use super::{Error, Result, identity};
use crate::coordination::paths::{Path, decode};
use crate::coordination::{self, Coordination, Event, Mode, Op, Scope, SessionState};
use crate::id;
use crate::tls::Peering;

/// Reads under way at once while all records are read anew.
const CONCURRENT_READS: usize = 64;

/// Pause before a failed registration is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// What is wrong with a daemon that the ensemble does not answer.
const OUT_OF_TOUCH: &str =
    "out of touch with ZooKeeper: tables can be read, and nothing can be changed";

/// What is wrong with a daemon whose engine hangs.
fn stuck(time: Duration) -> Trouble {
    let time = time.as_secs();
    let outline =
        format!("the engine's threads have taken up no work for {time} s: statements wait");
    let full = format!("{outline}; if that does not end by itself, restart the daemon");
    Trouble { full, outline }
}

/// Between one reason and the next.
const AND: &str = "; ";

/// What a daemon tells of itself, apart from what changes.
#[derive(Clone, Debug)]
pub struct Options {
    pub id: String,
    pub data_dir: PathBuf,
    /// Whether nobody else can read what is in the store.
    pub protected: bool,
    /// The store's name, such as the ensemble's address: cluster identities are kept by it.
    pub store: String,
    pub postgres: String,
    pub peer: String,
    pub web: String,
    pub version: &'static str,
    pub build: &'static str,
    pub cores: usize,
    /// Bytes the engine may use.
    pub memory: u64,
    /// The URL of the warehouse.
    pub warehouse: Option<String>,
}

/// This daemon's place in the cluster.
#[derive(Debug)]
pub struct Membership {
    coordination: Arc<dyn Coordination>,
    options: Options,
    instance: Uuid,
    cluster: Uuid,
    lease: Lease,
    /// What this daemon wants to be; [`Self::state`] is what it can be.
    wanted: watch::Sender<State>,
    members: watch::Sender<Arc<Vec<Member>>>,
    registered: Mutex<Registered>,
    evicted: CancellationToken,
    /// What it cannot write to, as far as that has been found.
    lacks: watch::Sender<Vec<Lack>>,
    /// Who makes tables elsewhere than most.
    astray: watch::Sender<Vec<(String, Trouble)>>,
    /// How long its engine has taken up no work, if it hangs.
    stuck: watch::Sender<Option<Duration>>,
}

/// What stands in the store, as far as this daemon knows.
#[derive(Debug)]
struct Registered {
    /// The session's epoch it was written in; 0: not yet.
    epoch: u64,
    record: Record,
}

impl Membership {
    /// Registers as joining. Refuses if the id is held by a daemon that may be alive, or if the
    /// store is not the one this data directory belongs to.
    pub async fn join(coordination: Arc<dyn Coordination>, options: Options) -> Result<Arc<Self>> {
        let (clusters, instance) = identity::files(&options.data_dir);
        let cluster = identity::establish(coordination.as_ref(), &options.store, &clusters).await?;
        identity::ensure_roots(coordination.as_ref()).await?;
        let instance = identity::instance(&instance)?;
        let record = Record {
            incarnation: id::incarnation(),
            instance,
            postgres: options.postgres.clone(),
            peer: options.peer.clone(),
            web: options.web.clone(),
            version: options.version.to_owned(),
            build: options.build.to_owned(),
            cores: options.cores,
            memory: options.memory,
            pid_prefix: Some(any_prefix()),
            warehouse: Some(options.warehouse.clone().unwrap_or_else(|| NONE.to_owned())),
            state: State::Joining,
            trouble: None,
            since: Utc::now(),
        };
        let membership = Self {
            coordination,
            options,
            instance,
            cluster,
            lease: Lease::new(),
            wanted: watch::Sender::new(State::Joining),
            members: watch::Sender::new(Arc::default()),
            registered: Mutex::new(Registered { epoch: 0, record }),
            evicted: CancellationToken::new(),
            lacks: watch::Sender::new(Vec::new()),
            astray: watch::Sender::new(Vec::new()),
            stuck: watch::Sender::new(None),
        };
        membership.register().await?;
        membership.keep_pids_apart().await?;
        Ok(Arc::new(membership))
    }

    pub fn id(&self) -> &str {
        &self.options.id
    }

    /// What stands in this daemon's record, or will as soon as the store can be reached again.
    pub async fn record(&self) -> Record {
        self.registered.lock().await.record.clone()
    }

    /// The other live daemons whose process ids begin like this: one, hardly ever two, since a lost
    /// session does not change what a daemon has told its clients.
    pub fn others_with_prefix(&self, prefix: u16) -> Vec<Member> {
        let others = |member: &&Member| {
            member.id != self.options.id && member.record.pid_prefix == Some(prefix)
        };
        self.members().iter().filter(others).cloned().collect()
    }

    /// Live daemons by id, as of the last change this daemon has seen.
    pub fn members(&self) -> Arc<Vec<Member>> {
        self.members.borrow().clone()
    }

    /// What this daemon wants to be, or degraded while it cannot prove that it is registered, or cannot write
    /// what statements write.
    pub fn state(&self) -> State {
        match self.told() {
            (State::Ready, _) if !self.may_act() => State::Degraded,
            (state, _) => state,
        }
    }

    /// What the others are to know: the state, and what is wrong with this daemon's disks and warehouse.
    fn told(&self) -> (State, Option<String>) {
        let wanted = *self.wanted.borrow();
        match self.own_trouble() {
            Some(trouble) if wanted == State::Ready => (State::Degraded, Some(trouble.outline)),
            _ => (wanted, None),
        }
    }

    /// What is wrong with this daemon whether it is in touch with the ensemble or not.
    fn own_trouble(&self) -> Option<Trouble> {
        let lacks = self.lacks.borrow();
        let lacks =
            lacks.iter().map(|lack| Trouble { full: lack.to_string(), outline: lack.outline() });
        let astray = self.astray.borrow();
        let own = astray.iter().filter(|(id, _)| *id == self.options.id);
        let own = own.map(|(_, trouble)| trouble.clone());
        let stuck = self.stuck.borrow().map(stuck);
        stuck.into_iter().chain(lacks).chain(own).reduce(|first, next| Trouble {
            full: first.full + AND + &next.full,
            outline: first.outline + AND + &next.outline,
        })
    }

    /// Why this daemon is degraded, if it is: its store, its disks, its warehouse, or that it is out of touch
    /// with the ensemble.
    pub fn trouble(&self) -> Option<Trouble> {
        if self.state() != State::Degraded {
            return None;
        }
        if let Some(trouble) = self.coordination.trouble() {
            let outline = trouble.outline().to_owned();
            return Some(Trouble { full: trouble.to_string(), outline });
        }
        if !self.may_act() {
            let outline = OUT_OF_TOUCH.to_owned();
            let full = format!("{outline}; oribi doctor on its machine tells more");
            return Some(Trouble { full, outline });
        }
        self.own_trouble()
    }

    /// What cannot be written to, as it was looked at last.
    pub fn lacks(&self) -> Vec<Lack> {
        self.lacks.borrow().clone()
    }

    /// Somebody has looked whether there is room, and whether it can be written.
    pub fn note_lacks(&self, lacks: Vec<Lack>) {
        self.lacks.send_replace(lacks);
    }

    /// Whether statements hang here, and others wait for their turn in vain.
    pub fn is_stuck(&self) -> bool {
        self.stuck.borrow().is_some()
    }

    /// The same as it changes.
    pub fn watch_stuck(&self) -> watch::Receiver<Option<Duration>> {
        self.stuck.subscribe()
    }

    /// Somebody has looked whether the engine takes up work; how long it has not, if it hangs.
    pub fn note_stuck(&self, time: Option<Duration>) {
        self.stuck.send_replace(time);
    }

    /// What this daemon shows to its peers, and knows them by, as the cluster's own key has it.
    pub async fn peering(&self) -> Result<Arc<Peering>> {
        let protected = self.options.protected;
        let key = identity::peer_key(self.coordination.as_ref(), protected).await?;
        Ok(Peering::of_cluster(&key)?)
    }

    /// Live daemons as they change.
    pub fn watch_members(&self) -> watch::Receiver<Arc<Vec<Member>>> {
        self.members.subscribe()
    }

    /// The build of this daemon.
    pub fn build(&self) -> &'static str {
        self.options.build
    }

    /// The cluster's UUID: the same on all daemons, and after restarts.
    pub fn cluster(&self) -> Uuid {
        self.cluster
    }

    /// Whether this daemon may act in the cluster's name: in touch, and registered by its own
    /// clock.
    pub fn may_act(&self) -> bool {
        let connected = self.coordination.session().borrow().state == SessionState::Connected;
        connected && self.lease.is_valid(Instant::now())
    }

    /// Ends when somebody removed this daemon's record or took its id, or the store lost its
    /// data: the daemon is to drain.
    pub fn evicted(&self) -> &CancellationToken {
        &self.evicted
    }

    /// Changes what this daemon wants to be and writes it, as far as the store can be reached.
    pub async fn set_state(&self, state: State) {
        self.wanted.send_replace(state);
        if let Err(error) = self.write_state().await {
            warn!(%error, %state, "the new state could not be written and will be, once it can");
        }
    }

    /// Follows the store until `stop`. Needed exactly once.
    pub async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let mut session = self.coordination.session();
        let mut watch = self.coordination.watch(&Path::Daemons.to_string(), Scope::Subtree);
        let mut behind = false;
        loop {
            let timeout = session.borrow_and_update().timeout;
            let beat = tokio::time::sleep((timeout / 5).max(Duration::from_millis(50)));
            // In one order, so that a simulation repeats exactly: none of them keeps another from being
            // seen, since the session is looked at and a beat is due whatever happens.
            let event = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                event = watch.next() => match event {
                    Some(event) => Some(event),
                    None => return,
                },
                changed = session.changed() => match changed {
                    Ok(()) => None,
                    Err(_) => return,
                },
                () = beat => None,
            };
            // Out of touch nothing can be read; the reconnect brings a resync.
            if session.borrow().state != SessionState::Connected {
                continue;
            }
            // What could not be read is not lost: everything is read with the next beat.
            let event = if behind { Some(Event::Resync) } else { event };
            behind = false;
            if let Err(error) = self.keep_up(event).await {
                behind = true;
                if error_is_final(&error) {
                    error!(%error, "this daemon leaves the cluster");
                    self.evicted.cancel();
                    return;
                }
                warn!(%error, "the cluster's state could not be brought up to date");
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// Makes sure of the own record, then looks at what has changed.
    async fn keep_up(&self, event: Option<Event>) -> Result<()> {
        let epoch = self.coordination.session().borrow().epoch;
        if self.registered.lock().await.epoch != epoch {
            self.check_cluster().await?;
            self.register().await?;
            info!(epoch, "registered anew after a lost session");
        }
        self.beat(epoch).await?;
        self.write_state().await?;
        match event {
            None => Ok(()),
            Some(Event::Resync) => self.reload().await,
            Some(Event::Changed(path)) => self.refresh(&path).await,
        }
    }

    async fn check_cluster(&self) -> Result<()> {
        let found = identity::read(self.coordination.as_ref()).await?;
        if found == Some(self.cluster) {
            return Ok(());
        }
        Err(Error::OtherCluster {
            expected: self.cluster.to_string(),
            found: found.map_or_else(|| "no".to_owned(), |uuid| uuid.to_string()),
            file: identity::files(&self.options.data_dir).0.display().to_string(),
        })
    }

    /// Reads the own record and looks for the incarnation, which renews the lease; that one of them is
    /// missing in a living session is an operator's doing.
    async fn beat(&self, epoch: u64) -> Result<()> {
        let sent = Instant::now();
        let path = Path::Daemon(&self.options.id).to_string();
        let incarnation = self.registered.lock().await.record.incarnation;
        let fence = Path::Incarnation(incarnation).to_string();
        let (node, fence) =
            tokio::try_join!(self.coordination.get(&path), self.coordination.stat(&fence))?;
        let session = *self.coordination.session().borrow();
        let own = node
            .and_then(|node| serde_json::from_slice::<Record>(&node.data).ok())
            .is_some_and(|record| record.incarnation == incarnation && fence.is_some());
        if own {
            self.lease.renew(sent, session.timeout);
        } else if session.epoch == epoch && session.state == SessionState::Connected {
            self.lease.revoke();
            error!(%path, %incarnation, "this daemon's record or incarnation was removed or replaced: draining");
            self.evicted.cancel();
        }
        Ok(())
    }

    /// Writes record and incarnation in one transaction.
    async fn register(&self) -> Result<()> {
        let mut registered = self.registered.lock().await;
        let epoch = self.coordination.session().borrow().epoch;
        let mut record = registered.record.clone();
        record.incarnation = id::incarnation();
        (record.state, record.trouble) = self.told();
        let path = Path::Daemon(&self.options.id).to_string();
        loop {
            let sent = Instant::now();
            match self.create_record(&path, &record).await {
                Ok(()) => {
                    let timeout = self.coordination.session().borrow().timeout;
                    self.lease.renew(sent, timeout);
                    *registered = Registered { epoch, record };
                    return Ok(());
                }
                Err(Error::Coordination(error)) if is_taken(&error) => {
                    self.remove_predecessor(&path).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn create_record(&self, path: &str, record: &Record) -> Result<()> {
        let bad = |source| Error::BadRecord { path: path.to_owned(), source };
        let incarnation = serde_json::json!({ "daemon": self.options.id });
        let ops = vec![
            Op::Create {
                path: path.to_owned(),
                data: serde_json::to_vec(record).map_err(bad)?.into(),
                mode: Mode::Ephemeral,
            },
            Op::Create {
                path: Path::Incarnation(record.incarnation).to_string(),
                data: serde_json::to_vec(&incarnation).map_err(bad)?.into(),
                mode: Mode::Ephemeral,
            },
        ];
        match self.coordination.transact(ops).await {
            Ok(_) => Ok(()),
            // The incarnation is in the data: read back whether it was us.
            Err(error) if error.may_have_landed() => match self.read(path).await? {
                Some(found) if found.incarnation == record.incarnation => Ok(()),
                _ => Err(error.into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// Removes the record of a dead process that used this data directory: its lock, which we
    /// hold, proves it dead long before its session ends. Anybody else's record stands.
    async fn remove_predecessor(&self, path: &str) -> Result<()> {
        let Some(found) = self.read(path).await? else { return Ok(()) };
        if found.instance != self.instance {
            return Err(Error::IdTaken {
                id: self.options.id.clone(),
                postgres: found.postgres,
                incarnation: found.incarnation.to_string(),
                state: found.state.to_string(),
                since: found.since.to_rfc3339(),
            });
        }
        info!(incarnation = %found.incarnation, "removing the record of this daemon's predecessor");
        // Together: a record that somebody else put there meanwhile has another incarnation.
        let incarnation = Path::Incarnation(found.incarnation).to_string();
        let ops = [incarnation, path.to_owned()]
            .map(|path| Op::Delete { path, version: None })
            .into_iter()
            .collect();
        match self.coordination.transact(ops).await {
            Ok(_) => Ok(()),
            // Gone by itself, or no longer the one that was found: registering tells.
            Err(error) if matches!(error.root(), coordination::Error::NoNode { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn read(&self, path: &str) -> Result<Option<Record>> {
        let Some(node) = self.coordination.get(path).await? else { return Ok(None) };
        let record = serde_json::from_slice(&node.data)
            .map_err(|source| Error::BadRecord { path: path.to_owned(), source })?;
        Ok(Some(record))
    }

    /// Takes another prefix for process ids while a live daemon has the same. Done before there
    /// are sessions, and never after.
    async fn keep_pids_apart(&self) -> Result<()> {
        loop {
            // Of two that wrote the same at the same moment the later one sees the other.
            self.coordination.sync().await?;
            self.reload().await?;
            let mut registered = self.registered.lock().await;
            let own = registered.record.pid_prefix;
            let members = self.members();
            let mut others = members.iter().filter(|member| member.id != self.options.id);
            if others.all(|other| other.record.pid_prefix != own) {
                return Ok(());
            }
            let record = Record { pid_prefix: Some(any_prefix()), ..registered.record.clone() };
            self.write(&mut registered, record).await?;
        }
    }

    /// Brings the state in the own record up to date.
    async fn write_state(&self) -> Result<()> {
        let mut registered = self.registered.lock().await;
        let (state, trouble) = self.told();
        let record = &registered.record;
        if registered.epoch == 0 || (record.state, &record.trouble) == (state, &trouble) {
            return Ok(());
        }
        let since = if record.state == state { record.since } else { Utc::now() };
        let record = Record { state, trouble, since, ..record.clone() };
        self.write(&mut registered, record).await
    }

    /// Replaces the own record.
    async fn write(&self, registered: &mut Registered, record: Record) -> Result<()> {
        let path = Path::Daemon(&self.options.id).to_string();
        let data = serde_json::to_vec(&record)
            .map_err(|source| Error::BadRecord { path: path.clone(), source })?;
        // The check fences it: a record that is no longer ours must not be overwritten.
        let check =
            Op::Check { path: Path::Incarnation(record.incarnation).to_string(), version: None };
        let set = Op::Set { path, data: data.into(), version: None };
        self.coordination.transact(vec![check, set]).await?;
        registered.record = record;
        Ok(())
    }

    /// Reads all daemons' records.
    async fn reload(&self) -> Result<()> {
        let root = Path::Daemons.to_string();
        let nodes = self.coordination.children(&root).await?;
        let members: Vec<Member> = stream::iter(nodes)
            .map(|node| async move { self.member(&format!("{}/{node}", Path::Daemons)).await })
            .buffer_unordered(CONCURRENT_READS)
            .try_filter_map(async |member| Ok(member))
            .try_collect()
            .await?;
        self.publish(members);
        Ok(())
    }

    /// Reads one daemon's record: the cost of a change does not grow with the cluster.
    async fn refresh(&self, path: &str) -> Result<()> {
        let Some(id) = path.strip_prefix("/daemons/").and_then(decode) else { return Ok(()) };
        let member = self.member(path).await?;
        let others = self.members().iter().filter(|known| known.id != id).cloned().collect();
        self.publish([others, Vec::from_iter(member)].concat());
        Ok(())
    }

    async fn member(&self, path: &str) -> Result<Option<Member>> {
        let Some(id) = path.strip_prefix("/daemons/").and_then(decode) else { return Ok(None) };
        match self.read(path).await {
            Ok(record) => Ok(record.map(|record| Member { id, record })),
            Err(error @ Error::BadRecord { .. }) => {
                warn!(%error, "a daemon's record is left out");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Looks whether all make their tables in one place.
    fn compare(&self, members: &[Member]) {
        let found = warehouses::astray(members);
        let known = self.astray.borrow().clone();
        for (id, trouble) in found.iter().filter(|daemon| !known.contains(daemon)) {
            warn!("daemon {id}: {}", trouble.full);
        }
        if found.is_empty() && !known.is_empty() {
            info!("all daemons have the same warehouse again");
        }
        self.astray.send_replace(found);
    }

    fn publish(&self, mut members: Vec<Member>) {
        members.sort_by(|a, b| a.id.cmp(&b.id));
        self.compare(&members);
        self.members.send_if_modified(|current| {
            let changed = **current != members;
            if changed {
                *current = Arc::new(members);
            }
            changed
        });
    }
}

/// 15 bits: a process id is never negative.
fn any_prefix() -> u16 {
    let [high, low, ..] = id::nonce().into_bytes();
    u16::from_be_bytes([high & 0x7f, low])
}

fn is_taken(error: &coordination::Error) -> bool {
    matches!(error.root(), coordination::Error::NodeExists { .. })
}

fn error_is_final(error: &Error) -> bool {
    matches!(error, Error::IdTaken { .. } | Error::OtherCluster { .. })
}
