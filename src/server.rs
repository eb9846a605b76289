//! Composition: builds the rooms upward, runs them, drains them downward.
//!
//! A stop goes in two stages. First the daemon drains: its record says so, idle clients are sent
//! away, running statements finish within `shutdown.drain_timeout`. Then what is left is cancelled,
//! the session with the coordination store is closed, which takes the daemon's nodes with it, and
//! the engine's threads end.

mod base;
mod cluster_view;
mod entrance;
mod live;
mod parts;
mod peer_messages;
mod reload;
mod room;
mod sockets;
mod store;
mod tool;
mod turns;
mod vitals;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::background;
use crate::catalog;
use crate::cluster::{self, Election, Membership, State, Workers};
use crate::config::{self, Config, InForce};
use crate::coordination::whole::Store;
use crate::coordination::{self, Coordination};
use crate::data_dir::{self, DataDir};
use crate::engine::{self, Peers};
use crate::postgres::{Door, Leave, Listener};
use crate::query::Queries;
use crate::query::history;
use crate::query::schedules;
use crate::query::signals::Signals;
use crate::query::submitted::{Runner, Submissions};
use crate::shutdown::{self, Shutdown};
use crate::storage;
use crate::tls::{self, Acceptor, Peering};
use crate::traces::Traces;
use crate::web;
use crate::web::console::Console;
use crate::web::port::Port;
use base::Base;
use peer_messages::PeerMessages;
pub use reload::{Reloaded, Reloader};
pub use sockets::Given;
use sockets::Sockets;
pub use store::ensemble;
pub use tool::Tool;
pub use vitals::{Look, Vitals};

/// How long clients may take to go once their statements are cancelled, and threads to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long no other daemon has asked for anything, before the port for them is closed: the word that
/// this one drains takes milliseconds, planning a statement some more.
const UNASKED: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("data_dir is not set: give --data-dir or ORIBI_DATA_DIR, or set it in the file")]
    NoDataDir,
    #[error(
        "there is neither an ensemble nor a data directory: give --zookeeper or ORIBI_ZOOKEEPER, or \
         set it in the file"
    )]
    NoStore,
    #[error("{0}; while the daemon runs, use ALTER SYSTEM")]
    StoreInUse(data_dir::Error),
    #[error("the live settings: {0}")]
    Live(#[from] cluster::live::Error),
    #[error("{key}: cannot listen on {address}: {source}{}", listening(key, address, source))]
    Listen { key: &'static str, address: SocketAddr, source: std::io::Error },
    #[error("a socket that the daemon was given (LISTEN_FDS), {0}")]
    Given(String),
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(transparent)]
    DataDir(#[from] data_dir::Error),
    #[error(transparent)]
    Tls(#[from] tls::Error),
    #[error("warehouse: {path} cannot be used: {source}")]
    Warehouse { path: String, source: std::io::Error },
    #[error("warehouse: {0}")]
    WarehouseUrl(storage::Error),
    #[error("{}", of_store(.0))]
    Coordination(#[from] coordination::Error),
    /// While the daemon started.
    #[error("{0}: make room there, and start it again")]
    NoRoom(coordination::Error),
    /// While the daemon started.
    #[error(
        "cannot reach ZooKeeper at {hosts}, tried for {} (coordination.start_timeout): {reason}",
        shown(.limit)
    )]
    OutOfReach { hosts: String, limit: Duration, reason: String },
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    #[error(transparent)]
    Engine(#[from] engine::Error),
    #[error("this daemon's record was removed or replaced in the coordination store")]
    Evicted,
    #[error("the port for other daemons has failed")]
    Peers,
    #[error("setting \"{key}\": {path}: {reason}")]
    File { key: &'static str, path: PathBuf, reason: String },
    #[error("setting \"{key}\" {reason}")]
    Setting { key: &'static str, reason: String },
    #[error("cannot handle signals: {0}")]
    Signals(std::io::Error),
}

/// An error of the store says which one it is.
fn of_store(error: &coordination::Error) -> String {
    use coordination::Error as E;
    match error {
        E::Storage { .. } | E::Unwritable { .. } => error.to_string(),
        error => format!("zookeeper: {error}"),
    }
}

/// What to do where a listener finds no place.
fn listening(key: &str, address: &SocketAddr, source: &std::io::Error) -> String {
    let who = match key {
        "postgres" => "PostgreSQL clients",
        "peer" => "other daemons",
        _ => "browsers, health checks and metrics",
    };
    let other = format!("--{key} ADDR:PORT, ORIBI_{}, or {key} in the file", key.to_uppercase());
    match source.kind() {
        std::io::ErrorKind::AddrInUse => format!(
            ". Another process listens there, where this daemon waits for {who}: \"ss -ltnp sport = :{}\" shows \
             which, as does \"oribi doctor\"; end it, or have this daemon listen elsewhere: {other}",
            address.port()
        ),
        std::io::ErrorKind::AddrNotAvailable => {
            format!(". It is no address of this machine (\"ip address\" lists them): {other}")
        }
        std::io::ErrorKind::PermissionDenied => format!(
            ". Ports below 1024 take a right of their own (CAP_NET_BIND_SERVICE): take another one: {other}"
        ),
        _ => String::new(),
    }
}

impl Error {
    /// Whether the coordination store was out of reach, so that another try may succeed.
    fn is_out_of_touch(&self) -> bool {
        match self {
            Self::Coordination(error)
            | Self::Cluster(cluster::Error::Coordination(error))
            | Self::Live(cluster::live::Error::Coordination(error)) => error.is_unavailable(),
            Self::Catalog(error) => error.is_out_of_touch(),
            _ => false,
        }
    }

    /// Whether the configuration is to be mended before another try.
    pub fn is_configuration(&self) -> bool {
        matches!(
            self,
            Self::NoDataDir
                | Self::NoStore
                | Self::Given(_)
                | Self::Config(_)
                | Self::File { .. }
                | Self::Setting { .. }
                | Self::Tls(_)
                | Self::WarehouseUrl(_)
                | Self::DataDir(data_dir::Error::NotADirectory { .. })
                | Self::Coordination(coordination::Error::Setting { .. })
        )
    }
}

/// Where the daemon listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    pub postgres: SocketAddr,
    pub peer: SocketAddr,
    pub web: SocketAddr,
}

/// A daemon that accepts clients.
#[derive(Debug)]
pub struct Server {
    config: Config,
    in_force: Arc<InForce>,
    addresses: Addresses,
    store: Store,
    membership: Arc<Membership>,
    workers: Arc<Workers>,
    election: Arc<Election>,
    queries: Arc<Queries>,
    signals: Arc<Signals>,
    submissions: Arc<Submissions>,
    tls: Option<Arc<Acceptor>>,
    peering: Arc<Peering>,
    traces: Option<Arc<Traces>>,
    shutdown: Shutdown,
    /// Ends the PostgreSQL port's part in a socket that outlives this daemon.
    leave: Option<Leave>,
    /// Ends the background tasks and the listeners.
    end: CancellationToken,
    /// Something has ended without which this daemon is of no use to the others.
    failed: CancellationToken,
    tasks: TaskTracker,
    data_dir: Arc<DataDir>,
}

/// What a daemon stands on, whichever session with the coordination store it has.
struct Ground {
    config: Config,
    data_dir: Arc<DataDir>,
    tls: Option<Arc<Acceptor>>,
    peering: Option<Arc<Peering>>,
    addresses: Addresses,
    leave: Option<Leave>,
}

impl Server {
    /// Builds a daemon, from the data directory up, on sockets that it was given or makes. It accepts
    /// clients when this returns. An ensemble that is out of reach, or goes away meanwhile, is waited for.
    pub async fn start(config: Config, given: Given) -> Result<Self, Error> {
        let directory = config.data_dir.as_ref().ok_or(Error::NoDataDir)?;
        let data_dir = Arc::new(DataDir::open(directory)?);
        let tls = Acceptor::open(&config.tls)?;
        let peering = Peering::of_files(&config.peers)?;
        let sockets = Sockets::open(&config, given).await?;
        let ground = Ground {
            addresses: sockets.addresses()?,
            leave: sockets.outlives.then(Leave::default),
            config,
            data_dir,
            tls,
            peering,
        };
        let has_ensemble = ground.config.zookeeper.is_some();
        let deadline = Instant::now() + ground.config.coordination.start_timeout;
        let server = loop {
            match Self::build(&ground, deadline).await {
                Err(error) if has_ensemble && error.is_out_of_touch() => {
                    match Instant::now() < deadline {
                        true => warn!(%error, "out of touch with the ensemble: starting again"),
                        false => return Err(out_of_reach(&ground.config, error)),
                    }
                }
                built => break built?,
            }
            tokio::time::sleep(store::RECONNECT).await;
        };
        server.launch(sockets).await?;
        Ok(server)
    }

    /// All of it in one session with the coordination store. Where that is lost on the way nothing is
    /// left but what the next attempt finds as it would after a crash.
    async fn build(ground: &Ground, deadline: Instant) -> Result<Self, Error> {
        let store = store::connect(&ground.config, &ground.data_dir, deadline).await?;
        let built = Self::assemble(ground, store.clone()).await;
        if built.is_err() {
            store.whole.close().await;
            store.own.close().await;
        }
        built
    }

    async fn assemble(ground: &Ground, store: Store) -> Result<Self, Error> {
        let base = Base::open(ground, &store).await?;
        let engine = base.engine(ground, &store)?;
        let queries = base.queries(ground, &store, engine).await?;
        let peering = match &ground.peering {
            Some(peering) => peering.clone(),
            None => base.membership.peering().await?,
        };
        Ok(Self {
            config: ground.config.clone(),
            in_force: base.in_force,
            addresses: ground.addresses,
            store,
            membership: base.membership,
            workers: base.workers,
            election: base.election,
            queries,
            signals: base.signals,
            submissions: base.submissions,
            tls: ground.tls.clone(),
            peering,
            traces: base.traces,
            shutdown: base.shutdown,
            leave: ground.leave.clone(),
            end: CancellationToken::new(),
            failed: CancellationToken::new(),
            tasks: TaskTracker::new(),
            data_dir: ground.data_dir.clone(),
        })
    }

    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// What can be read again while the daemon runs.
    pub fn reloader(&self) -> Reloader {
        Reloader {
            in_force: self.in_force.clone(),
            queries: self.queries.clone(),
            submissions: self.submissions.clone(),
            tls: self.tls.clone(),
            peering: self.peering.clone(),
            audit: self.queries.audit.clone(),
        }
    }

    /// How the daemon does, to be looked at while it serves.
    pub fn vitals(&self) -> Vitals {
        Vitals {
            addresses: self.addresses,
            in_force: self.in_force.clone(),
            queries: self.queries.clone(),
            store: self.store.own.clone(),
            network: tokio::runtime::Handle::current(),
        }
    }

    /// Starts the tasks that run as long as the daemon, and opens its door.
    async fn launch(&self, sockets: Sockets) -> Result<(), Error> {
        let Self { queries, signals, membership, end, tasks, .. } = self;
        tasks.spawn(membership.clone().follow(end.clone()));
        let spill = parts::spill_directory(&self.config, &self.data_dir);
        let places = room::places(self.data_dir.path(), queries.warehouse.as_deref(), spill);
        tasks.spawn(room::watch(membership.clone(), places, end.clone()));
        let engine = queries.engine.handle().clone();
        tasks.spawn(turns::watch(membership.clone(), engine, end.clone()));
        tasks.spawn(queries.catalog.clone().follow(end.clone()));
        tasks.spawn(queries.admission.clone().follow(end.clone()));
        tasks.spawn(queries.registry.clone().tick(end.clone()));
        tasks.spawn(background::run("oribi-history", queries.history.clone().run(end.clone())));
        tasks.spawn(history::watch_for_lost(
            queries.history.clone(),
            self.store.own.clone(),
            self.workers.clone(),
            end.clone(),
        ));
        tasks.spawn(signals.clone().follow(end.clone()));
        let store: Arc<dyn Coordination> = self.store.own.clone();
        let store = (membership.clone(), store);
        let (notifications, engine) = (queries.notifications.clone(), queries.engine.clone());
        tasks.spawn(notifications.clone().follow(store, engine, end.clone()));
        tasks.spawn(notifications.feed(end.clone()));
        let draining = &self.shutdown.draining;
        tasks.spawn(self.election.clone().follow(draining.clone()));
        let maintenance = queries.maintenance.clone();
        tasks.spawn(maintenance.run(self.election.clone(), draining.clone()));
        let runner = Runner::new(
            self.submissions.clone(),
            queries.clone(),
            self.workers.clone(),
            self.election.clone(),
            crate::postgres::failure,
        );
        tasks.spawn(runner.clone().run(draining.clone()));
        tasks.spawn(runner.reap(draining.clone()));
        tasks.spawn(schedules::run(
            queries.schedules.clone(),
            self.election.clone(),
            draining.clone(),
        ));
        let peers = Peers {
            workers: self.workers.clone(),
            peering: self.peering.clone(),
            network: tokio::runtime::Handle::current(),
            gate: queries.gate.clone(),
            messages: Arc::new(PeerMessages::new(queries.notifications.clone())),
            traces: self.traces.clone(),
        };
        if let Some(traces) = self.traces.clone() {
            let end = end.clone();
            tasks.spawn(async move { traces.run(end).await });
        }
        let listening =
            |source| Error::Listen { key: "peer", address: self.addresses.peer, source };
        let socket = sockets.peer.into_std().map_err(listening)?;
        let settings = self.config.distribution.clone();
        let peers = queries.engine.join(settings, peers, socket, end.clone())?;
        live::apply(&self.in_force.get(), queries, &self.submissions, &queries.live.current());
        let (in_force, shared, submissions) =
            (self.in_force.clone(), queries.clone(), self.submissions.clone());
        let apply = move |live: &cluster::live::Live| {
            live::apply(&in_force.get(), &shared, &submissions, live);
        };
        let id = membership.id().to_owned();
        let live = queries.live.clone();
        tasks.spawn(live.follow(id, self.election.clone(), apply, end.clone()));
        let failed = self.failed.clone();
        tasks.spawn(async move {
            if let Err(error) = peers.await {
                error!(%error, "the port for other daemons has failed");
                failed.cancel();
            }
        });
        let timeout = self.config.query.statement_timeout.0;
        let (in_force, tls) = (self.in_force.clone(), self.tls.clone());
        let listener = Listener::new(sockets.postgres, queries.clone(), in_force, timeout, tls);
        self.open_web_port(sockets.web, Arc::new(listener.door()));
        membership.set_state(State::Ready).await;
        tasks.spawn(listener.run(self.leave.clone().unwrap_or_default(), end.clone()));
        let Addresses { postgres, peer, web } = self.addresses;
        info!(id = membership.id(), %postgres, %peer, %web, "ready");
        Ok(())
    }

    /// The web port, whose console comes in through the other port's door.
    fn open_web_port(&self, socket: TcpListener, door: Arc<Door>) {
        let Self { config, queries, end, .. } = self;
        let console = Console::new(
            queries.clone(),
            door,
            (&config.console, config.advertise.as_deref()),
            self.addresses.web.port(),
            end.clone(),
        );
        let port = Port::new(socket, self.tls.clone());
        let sources = web::Sources {
            queries: queries.clone(),
            election: self.election.clone(),
            workers: self.workers.clone(),
            store: self.store.own.clone(),
            health: config.health.clone(),
            max_connections: config.connections.max,
            traces: self.traces.clone(),
        };
        let served = web::serve(port, sources, console, end.clone());
        self.tasks.spawn(async move {
            if let Err(error) = served.await {
                error!(%error, "the web port has failed");
            }
        });
    }

    /// Serves until `stop`, then drains. A signal while it drains ends the patience.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> Result<(), Error> {
        // Listens from the start: the streams made by whoever waits for the first signal end with it.
        let mut signals = shutdown::Signals::listen().map_err(Error::Signals)?;
        let reason = tokio::select! {
            () = stop => None,
            () = self.membership.evicted().cancelled() => Some(Error::Evicted),
            () = self.failed.cancelled() => Some(Error::Peers),
        };
        if let Some(leave) = &self.leave {
            // Who comes from now on waits for the next daemon.
            leave.begin(PATIENCE).await;
        }
        info!(reason = reason.as_ref().map(tracing::field::display), "stopping");
        signals.forget();
        self.membership.set_state(State::Draining).await;
        self.queries.gate.close();
        self.shutdown.draining.cancel();
        tokio::select! {
            empty = self.empty() => if !empty {
                warn!(inside = ?self.queries.gate.inside(), "cancelling what still runs");
            },
            () = signals.next() => warn!("a second signal: ending at once"),
        }
        self.queries.sessions.terminate_all();
        self.queries.commits.finish(PATIENCE).await;
        self.end.cancel();
        self.tasks.close();
        if tokio::time::timeout(PATIENCE, self.tasks.wait()).await.is_err() {
            warn!("some tasks did not end in time");
        }
        // Sessions that ended just now are in it, too.
        self.queries.audit.finish(PATIENCE).await;
        if !matches!(tokio::time::timeout(PATIENCE, self.queries.history.write()).await, Ok(true)) {
            warn!("some statements are missing in the history");
        }
        self.store.whole.close().await;
        self.store.own.close().await;
        let engine = self.queries.engine.clone();
        let stopped = tokio::task::spawn_blocking(move || engine.stop(PATIENCE));
        if stopped.await.is_err() {
            warn!("the engine's threads did not end in time");
        }
        info!("stopped");
        // A supervisor starts it again where it was not asked to stop.
        reason.map_or(Ok(()), Err)
    }

    /// Waits until nothing runs here any more, at most until the deadline; returns whether that was so.
    ///
    /// Other daemons learn from the store that this one drains. Until they have, they send parts of
    /// statements, which are run: who would find the port closed would have to begin anew.
    async fn empty(&self) -> bool {
        let patience = in_force_drain_timeout(&self.in_force, &self.queries);
        let others = !self.workers.successors(1).is_empty();
        match others {
            true => self.queries.gate.quiet(UNASKED, patience).await,
            false => self.queries.gate.empty(patience).await,
        }
    }
}

fn shown(limit: &Duration) -> humantime::FormattedDuration {
    humantime::format_duration(*limit)
}

/// What is said when the patience with an ensemble is over.
fn out_of_reach(config: &Config, error: Error) -> Error {
    let Some(hosts) = config.zookeeper.clone() else { return error };
    let limit = config.coordination.start_timeout;
    Error::OutOfReach { hosts, limit, reason: error.to_string() }
}

/// How long running statements may go on after a stop, as the settings have it at the moment.
fn in_force_drain_timeout(in_force: &InForce, queries: &Queries) -> Duration {
    let live = queries.live.current();
    in_force.get().with(live.settings.iter()).shutdown.drain_timeout
}
