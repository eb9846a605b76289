//! Large statements on several daemons at once, with `datafusion-distributed`.
//!
//! Every daemon coordinates what its clients ask for and works for the others. A statement is
//! planned here as always; whether it is spread is decided on that plan, by the bytes it has to read
//! and by what would become of it elsewhere. A spread plan is cut into stages whose tasks run on the
//! workers that were ready when it was planned, and no others.
//!
//! - [`fitness`]: which plans can be spread, and which are worth it.
//! - [`stages`]: how they are cut.
//! - [`places`]: which files a worker reads.
//! - [`travel`]: build and settings, which go along.
//! - [`codec`]: steps of a plan that only this engine knows.
//! - [`channels`]: connections to the others.
//! - [`door`]: the port to which they connect.
//! - [`messages`]: what daemons tell each other beside statements.
//! - [`guests`]: how much others may have run here.
//! - [`worker`]: this daemon as one of the others.
//! - [`part`]: what it runs for them.
//! - [`pulse`]: notices deaths.
//! - [`questions`]: what daemons ask each other beside statements.
//! - [`figures`]: what each has done for a statement.
//! - [`again`]: statements under which a worker died.
//! - [`analysis`]: EXPLAIN ANALYZE.

mod again;
mod analysis;
mod channels;
mod codec;
mod door;
mod figures;
mod fitness;
mod guests;
mod messages;
mod part;
mod places;
mod pulse;
mod questions;
mod stages;
mod travel;
mod worker;

use std::collections::HashMap;
use std::fmt::{self, Debug, Formatter};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::catalog::Session;
use datafusion::common::tree_node::TreeNode;
use datafusion::error::Result as EngineResult;
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::memory_pool::MemoryLimit;
use datafusion::execution::session_state::SessionState;
use datafusion::execution::{FunctionRegistry, SessionStateBuilder, TaskContext};
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::analyze::AnalyzeExec;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use datafusion::prelude::SessionConfig;
use datafusion_distributed::{
    CompressionType, DistributedExec, DistributedExt, SessionStateBuilderExt, Worker as PlanWorker,
    WorkerResolver, display_plan_ascii,
};
use futures::future::join_all;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument, Span, debug, info, warn};
use url::Url;
use uuid::Uuid;

use super::cooperation::pausing;
use super::observe::Observation;
use super::ready::Course;
use super::semantics::unnamed_functions;
use super::settings::Distribute;
use super::shared::unshared;
use super::system::SystemCatalog;
use super::{Error, Result};
use crate::cluster::{Worker, Workers};
use crate::config;
use crate::metrics::Counter;
use crate::shutdown::Gate;
use crate::storage;
use crate::telemetry;
use crate::tls::Peering;
use crate::traces::Traces;
pub(super) use again::{Again, Spool};
use analysis::Analysis;
pub(super) use analysis::{is_spread, show_spread};
use channels::{Answer, Channels, url};
pub(super) use codec::scan_of;
use codec::{Codec, mark_field_ids};
pub(super) use figures::Attempt;
pub use figures::complete;
pub(super) use fitness::bytes_of_scan;
use fitness::{arrives, bytes_to_read, obstacle};
use guests::Guests;
use messages::Receiver;
pub use messages::{Messages, NoAnswer};
use places::assign;
use pulse::Pulse;
use questions::Questions;
pub(super) use stages::own_part;
use stages::{Pinned, defect, desired_tasks, route, without_merges};
use travel::Travel;

/// How often those that have failed are asked whether they are well, as far as they are due.
const CONVALESCENCE: Duration = Duration::from_millis(250);

/// As many daemons as make spreading one.
const MIN_WORKERS: usize = 2;

/// Partitions that a plan needs so that its steps say which of them need all rows.
const PARTITIONS: usize = 2;

/// Bytes and rows up to which one side of a join is kept whole on each worker: all of them are sent it. On one
/// daemon more are kept as one.
const MAX_BROADCAST: (usize, usize) = (64 << 20, 8_000_000);

/// Bytes of the smallest and of the largest buffer for what a worker sends.
const BUFFER: (usize, usize) = (1 << 20, 64 << 20);

/// How many buffers fit into the engine's memory.
const BUFFERS: usize = 64;

/// The other daemons, as far as the engine needs to know.
#[derive(Debug)]
pub struct Peers {
    pub workers: Arc<Workers>,
    pub peering: Arc<Peering>,
    /// Runs no statements: where connections are driven.
    pub network: Handle,
    /// Parts of statements that run here are inside.
    pub gate: Gate,
    /// Takes what they say beside statements.
    pub messages: Arc<dyn Messages>,
    /// Where is told what was done for them.
    pub traces: Option<Arc<Traces>>,
}

/// Spreads statements over the cluster.
pub(super) struct Distribution {
    settings: RwLock<Arc<config::Distribution>>,
    peers: Peers,
    channels: Channels,
    guests: Arc<Guests>,
    worker: PlanWorker,
    questions: Questions,
    /// What a plan that comes from elsewhere finds here.
    context: Arc<TaskContext>,
    /// Statements that were spread.
    spread: Counter,
}

/// What this daemon does together with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Together {
    /// Of its own clients, which ran on several daemons; each attempt counts.
    pub spread: u64,
    /// Parts of others' statements: how many run here now, and may.
    pub parts: usize,
    pub max_parts: usize,
    pub admitted: u64,
    pub refused: u64,
    /// Daemons that do not answer and are left alone.
    pub suspects: usize,
    /// How often one was found not to answer.
    pub suspicions: u64,
}

/// A statement on several daemons.
pub(super) struct Spread {
    pub plan: Arc<dyn ExecutionPlan>,
    pub context: Arc<TaskContext>,
    pub workers: Vec<Worker>,
    /// By which its parts know it.
    statement: Uuid,
    since: Instant,
}

impl Debug for Distribution {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Distribution").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// A session as plans from elsewhere find it.
fn with_unnamed(template: &SessionState) -> SessionState {
    let mut template = template.clone();
    for function in unnamed_functions() {
        // The registry of a state takes any function, and replaces one of the same name.
        let _ = template.register_udf(function);
    }
    template
}

impl Distribution {
    pub fn new(
        settings: config::Distribution,
        peers: Peers,
        template: &SessionState,
        (roots, system): (storage::Roots, Arc<dyn SystemCatalog>),
    ) -> Arc<Self> {
        let channels = Channels::new(peers.peering.clone(), peers.network.clone());
        let mut template = with_unnamed(template);
        let own = || peers.workers.own_id().to_owned();
        let traces = peers.traces.clone().map(|traces| (traces, own()));
        let guests = Guests::new(settings.clone(), template.runtime_env().clone(), traces);
        let sessions = worker::Sessions {
            template: Arc::new(template.clone()),
            channels: channels.clone(),
            build: peers.workers.build(),
            gate: peers.gate.clone(),
            roots,
            guests: guests.clone(),
        };
        let worker = PlanWorker::from_session_builder(sessions)
            .with_runtime_env(template.runtime_env().clone())
            .with_version(peers.workers.build());
        template.config_mut().set_distributed_user_codec(Codec);
        let context = template.task_ctx();
        let questions = Questions { system, guests: guests.clone() };
        let settings = RwLock::new(Arc::new(settings));
        let spread = Counter::default();
        Arc::new(Self { settings, peers, channels, guests, worker, questions, context, spread })
    }

    pub fn figures(&self) -> Together {
        let Self { guests, peers, .. } = self;
        let (parts, max_parts) = guests.parts();
        let (suspects, suspicions) = peers.workers.suspected();
        let (admitted, refused) = (guests.admitted.get(), guests.refused.get());
        let spread = self.spread.get();
        Together { spread, parts, max_parts, admitted, refused, suspects, suspicions }
    }

    /// Serves the other daemons until `end`, whose parts of statements run on the threads of `engine`,
    /// and keeps an eye on them. To be run on threads that no statement keeps busy. An error says that
    /// the port for them has failed.
    pub async fn keep(
        self: Arc<Self>,
        engine: Handle,
        socket: std::net::TcpListener,
        end: CancellationToken,
    ) -> Result<()> {
        let Peers { workers, peering, gate, messages, .. } = &self.peers;
        let pulse = Pulse::new(workers.clone(), self.channels.clone(), peering.clone());
        let worker = self.worker.clone();
        let messages = Receiver(messages.clone());
        let services = (worker.clone(), self.questions.clone(), messages);
        let served =
            door::serve(services, (engine, workers.clone()), peering.clone(), socket, end.clone());
        let beside = async {
            let sweep = worker::sweep(worker, gate.clone(), end.clone());
            tokio::join!(pulse.run(end.clone()), self.nurse(&end), self.follow(&end), sweep);
            Ok(())
        };
        tokio::try_join!(served, beside).map(drop)
    }

    /// Sends a message to the daemon at an address, and waits for its answer.
    pub async fn tell(&self, peer: &str, kind: &str, body: Bytes) -> Result<Bytes, NoAnswer> {
        let failed = |error: String| NoAnswer::Failed(error);
        let url = Url::parse(&format!("https://{peer}")).map_err(|e| failed(e.to_string()))?;
        let channel = self.channels.channel(&url).map_err(|error| failed(error.to_string()))?;
        messages::send(channel, kind, body).await
    }

    /// Asks those that have failed whether they are well again, until `end`.
    async fn nurse(&self, end: &CancellationToken) {
        loop {
            tokio::select! {
                () = end.cancelled() => return,
                () = tokio::time::sleep(CONVALESCENCE) => {}
            }
            self.examine(&self.peers.workers.due()).await;
            let ready = self.peers.workers.ready();
            let urls: Vec<Url> = ready.iter().filter_map(|worker| url(worker).ok()).collect();
            self.channels.keep(&urls);
        }
    }

    /// Asks workers whether they are well; those that are not are left alone from now on. Returns
    /// their names.
    async fn examine(&self, workers: &[Worker]) -> Vec<String> {
        let others = workers.iter().filter(|worker| worker.id != self.peers.workers.own_id());
        let asked = others.map(async |worker| {
            let (channels, build) = (self.channels.clone(), self.peers.workers.build());
            let asking = worker.clone();
            let answer = async move { channels.answers(&asking, build).await };
            let answer = self.peers.network.spawn(answer);
            (worker, AbortOnDropHandle::new(answer).await.unwrap_or(false))
        });
        let mut failed = Vec::new();
        for (worker, well) in join_all(asked).await {
            match well {
                true => self.peers.workers.trust(worker),
                false => {
                    info!(worker = worker.id, "a worker does not answer and is left alone");
                    self.peers.workers.suspect(worker);
                    failed.push(worker.id.clone());
                }
            }
        }
        failed
    }

    /// Whether the engine of a worker hangs: its process lives, and so do its connections.
    async fn any_hangs(&self, workers: &[Worker]) -> bool {
        let others = workers.iter().filter(|worker| worker.id != self.peers.workers.own_id());
        let asked = others.map(|worker| self.channels.ask(worker, self.peers.workers.build()));
        join_all(asked).await.contains(&Answer::Hangs)
    }

    /// Which workers of a statement do not answer. Those that are left alone already are not asked:
    /// their silence would be waited for once more.
    async fn lost(&self, workers: &[Worker]) -> Vec<String> {
        let (well, left): (Vec<Worker>, Vec<Worker>) =
            workers.iter().cloned().partition(|worker| self.peers.workers.is_well(worker));
        let mut lost = self.examine(&well).await;
        lost.extend(left.into_iter().map(|worker| worker.id));
        lost
    }

    /// Whether a statement that is large enough would be spread.
    pub fn may_spread(&self, course: &Course) -> bool {
        !matches!(course.settings.distribute(), Distribute::Off)
            && self.peers.workers.ready().len() >= MIN_WORKERS
    }

    /// The statement on several daemons, if that is possible and worth it. `local` is its plan for
    /// this one alone.
    pub async fn spread(
        &self,
        course: &Course,
        logical: &LogicalPlan,
        local: &Arc<dyn ExecutionPlan>,
    ) -> Result<Option<Spread>> {
        let least = match course.settings.distribute() {
            Distribute::Off => return Ok(None),
            Distribute::Auto => self.settings().min_bytes.0.max(1),
            Distribute::Always => 0,
        };
        let bytes = bytes_to_read(local);
        if bytes < least || bytes == 0 {
            return Ok(None);
        }
        let workers = self.peers.workers.ready();
        if workers.len() < MIN_WORKERS {
            return Ok(None);
        }
        let analysed = local.is::<AnalyzeExec>();
        let since = Instant::now();
        let (state, statement) = self.session(course, &workers, least, analysed)?;
        let span = course.observation.as_ref().map_or_else(Span::none, |seen| seen.span());
        let spread = Box::pin(self.spread_on(&state, logical, local)).instrument(span.clone());
        let plan = match spread.await {
            Ok(Some(plan)) => plan,
            Ok(None) => return Ok(None),
            // Its plan for this daemon alone is there.
            Err(error) => {
                let (_entered, error) = (span.enter(), telemetry::discreet(&error));
                warn!(%error, "a statement stays on this daemon: it could not be spread");
                return Ok(None);
            }
        };
        let context = Arc::new(TaskContext::new(
            None,
            state.session_id().to_owned(),
            state.config().clone(),
            HashMap::new(),
            HashMap::new(),
            HashMap::new(),
            HashMap::new(),
            course.context.runtime_env(),
        ));
        Ok(Some(Spread { plan, context, workers, statement, since }))
    }

    async fn spread_on(
        &self,
        state: &SessionState,
        logical: &LogicalPlan,
        local: &Arc<dyn ExecutionPlan>,
    ) -> EngineResult<Option<Arc<dyn ExecutionPlan>>> {
        // Subqueries of one row become joins: the way to another daemon knows no others.
        let subquery = |node: &Arc<dyn ExecutionPlan>| Ok(node.name() == "ScalarSubqueryExec");
        let options = state.config_options();
        let planned = options.execution.target_partitions >= PARTITIONS
            && options.optimizer.repartition_file_min_size > 0;
        let plan = match planned && !local.exists(subquery)? && !local.exists(kept_as_one)? {
            true => local.clone(),
            false => state.create_physical_plan(logical).await?,
        };
        // Each worker has its own part.
        let plan = unshared(plan)?;
        if let Some(reason) = obstacle(&plan, &self.context)? {
            debug!(reason, "a statement stays on this daemon");
            return Ok(None);
        }
        let plan = without_merges(pausing(plan)?)?;
        let plan = mark_field_ids(plan)?;
        let analysed = plan.downcast_ref::<AnalyzeExec>();
        let part = analysed.map_or(&plan, AnalyzeExec::input);
        match arrives(part, &self.context) {
            Ok(true) => {}
            Ok(false) => {
                debug!("a statement stays on this daemon: its plan would be another elsewhere");
                return Ok(None);
            }
            Err(error) => {
                let error = telemetry::discreet(&error);
                debug!(%error, "a statement stays on this daemon: its plan cannot travel");
                return Ok(None);
            }
        }
        let mut builder = SessionStateBuilder::new()
            .with_query_planner(Arc::new(Given(part.clone())))
            .with_distributed_planner();
        let Some(planner) = builder.query_planner().take() else { return Ok(None) };
        let nothing = LogicalPlanBuilder::empty(false).build()?;
        let spread = planner.create_physical_plan(&nothing, state).await?;
        if !spread.is::<DistributedExec>() {
            return Ok(None);
        }
        if let Some(reason) = defect(&spread)? {
            warn!(reason, "a statement stays on this daemon: its stages would not give its rows");
            return Ok(None);
        }
        Ok(Some(match analysed {
            Some(analyze) => Arc::new(Analysis::new(analyze, spread)),
            None => spread,
        }))
    }

    /// The session of one spread statement, and by what its parts know it.
    fn session(
        &self,
        course: &Course,
        workers: &[Worker],
        least: u64,
        analysed: bool,
    ) -> Result<(SessionState, Uuid)> {
        let failed = Error::planning;
        let urls: Vec<Url> =
            workers.iter().map(url).collect::<EngineResult<_>>().map_err(failed)?;
        let place = workers.iter().position(|worker| worker.id == self.peers.workers.own_id());
        // Not ready itself, a daemon is no worker, but can run what needs no others.
        let own = place.and_then(|at| urls.get(at)).or(urls.first()).cloned();
        let Some(own) = own else { return Err(Error::Start("no worker".to_owned())) };
        let mut state = course.state.as_ref().clone();
        let environment = state.runtime_env().clone();
        let config = state.config_mut();
        let options = config.options_mut();
        options.optimizer.enable_physical_uncorrelated_scalar_subquery = false;
        options.execution.target_partitions = options.execution.target_partitions.max(PARTITIONS);
        let as_one = &mut options.optimizer.hash_join_single_partition_threshold;
        *as_one = MAX_BROADCAST.0.min(*as_one);
        let as_one = &mut options.optimizer.hash_join_single_partition_threshold_rows;
        *as_one = MAX_BROADCAST.1.min(*as_one);
        if least == 0 {
            // Whatever it reads.
            options.optimizer.repartition_file_min_size = 0;
        }
        let mut travel = Travel::of(&course.settings);
        let host = self.guests.host(&mut travel, &environment, course.observation.clone());
        config.set_extension(Arc::new(host));
        let headers = travel.headers(self.peers.workers.build()).map_err(failed)?;
        config.set_distributed_passthrough_headers(headers).map_err(failed)?;
        config
            .set_distributed_compression(compression(self.settings().compression))
            .map_err(failed)?;
        // Only where they are asked for: the end of the rows waits for them, so that a worker that is
        // cut off then would fail a statement whose rows are all there.
        config.set_distributed_metrics_collection(analysed).map_err(failed)?;
        config.set_distributed_channel_resolver(self.channels.clone());
        config.set_distributed_user_codec(Codec);
        config.set_distributed_worker_resolver(Resolver(urls.clone()));
        if place.is_some() {
            let context = self.worker.to_local_worker_context(own.clone());
            config.set_distributed_local_worker_context(context);
        }
        let buffers = self.buffer_bytes();
        config.set_distributed_worker_connection_buffer_budget_bytes(buffers).map_err(failed)?;
        config.set_distributed_desired_task_count_handler(desired_tasks);
        config.set_distributed_scale_up_leaf_node_handler(assign);
        config.set_distributed_route_tasks_handler(route);
        let task_bytes = (least / workers.len() as u64).max(1);
        config.set_extension(Arc::new(Pinned { urls, own, task_bytes }));
        Ok((state, travel.statement))
    }

    /// Bytes of rows that wait here for each worker that a stage reads from.
    fn buffer_bytes(&self) -> usize {
        let (least, most) = BUFFER;
        match self.context.runtime_env().memory_pool.memory_limit() {
            MemoryLimit::Finite(bytes) => (bytes / BUFFERS).clamp(least, most),
            MemoryLimit::Infinite | MemoryLimit::Unknown => most,
        }
    }

    fn settings(&self) -> Arc<config::Distribution> {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has other settings from now on.
    pub fn change(&self, new: &config::Distribution) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new.clone());
        self.guests.change(new.clone());
    }

    /// How often a statement may run again.
    pub fn retries(&self) -> u32 {
        self.settings().retries
    }

    /// Bytes of the first part of a result that are held back.
    pub fn spool(&self) -> usize {
        usize::try_from(self.settings().spool.0).unwrap_or(usize::MAX)
    }

    /// A spread statement is about to run, which is observed.
    pub fn note(self: &Arc<Self>, spread: &Spread, observation: &Observation) {
        self.spread.add(1);
        let Spread { workers, statement, since, .. } = spread;
        let own = self.peers.workers.own_id();
        let others = workers.iter().filter(|worker| worker.id != own).cloned().collect();
        let distribution = Arc::downgrade(self);
        let attempt = Attempt { distribution, statement: *statement, since: *since, others };
        observation.note_spread(workers.iter().map(|one| one.id.clone()).collect(), attempt);
    }

    /// A spread plan as EXPLAIN shows it.
    pub fn explain(&self, spread: &Spread) -> String {
        let plan = display_plan_ascii(spread.plan.as_ref(), false);
        format!("{}\n{plan}", spread.heading())
    }
}

fn compression(wanted: config::Compression) -> Option<CompressionType> {
    match wanted {
        config::Compression::None => None,
        config::Compression::Lz4 => Some(CompressionType::LZ4_FRAME),
        config::Compression::Zstd => Some(CompressionType::ZSTD),
    }
}

impl Spread {
    /// Who takes part.
    pub fn heading(&self) -> String {
        let names: Vec<&str> = self.workers.iter().map(|worker| worker.id.as_str()).collect();
        format!("Workers: {} (task 0 of a stage runs on the first)", names.join(", "))
    }
}

/// What sessions start with so that their plans can be spread.
pub(super) fn prepared(config: SessionConfig) -> SessionConfig {
    let mut builder = SessionStateBuilder::new().with_config(config).with_distributed_planner();
    let mut config = builder.config().take().unwrap_or_default();
    // For spread plans only.
    config.options_mut().optimizer.enable_physical_uncorrelated_scalar_subquery = true;
    config
}

/// Whether a join keeps all of one side, which each worker would have to be sent.
fn kept_as_one(node: &Arc<dyn ExecutionPlan>) -> EngineResult<bool> {
    let join = node.downcast_ref::<HashJoinExec>();
    Ok(join.is_some_and(|join| *join.partition_mode() == PartitionMode::CollectLeft))
}

/// Gives a plan that is there already.
#[derive(Debug)]
struct Given(Arc<dyn ExecutionPlan>);

#[async_trait]
impl QueryPlanner for Given {
    async fn create_physical_plan(
        &self,
        _: &LogicalPlan,
        _: &dyn Session,
    ) -> EngineResult<Arc<dyn ExecutionPlan>> {
        Ok(self.0.clone())
    }
}

/// The workers of one statement.
struct Resolver(Vec<Url>);

impl WorkerResolver for Resolver {
    fn get_urls(&self) -> EngineResult<Vec<Url>> {
        Ok(self.0.clone())
    }
}
