//! The engine: from a statement's text to a stream of rows, on DataFusion.
//!
//! - [`parse`]: text to statements, in PostgreSQL's dialect.
//! - [`caches`]: what is kept in memory.
//! - [`change`]: UPDATE, DELETE and MERGE.
//! - [`as_of`]: the clauses that ask for a table as it was.
//! - [`history`]: tables as they were.
//! - [`copy`]: COPY's grammar.
//! - [`correlated`]: subqueries that compare with the outer query by IS NOT DISTINCT FROM.
//! - [`parameters`]: the types of `$1`, `$2`, ...
//! - [`joins`]: the columns that joins merge.
//! - [`laterals`]: what is computed of rows in FROM.
//! - [`records`]: tables' names as the rows that they have.
//! - [`literals`]: literals as the SQL parser knows them.
//! - [`list`]: expressions over given columns, such as RETURNING's.
//! - [`planner`]: names to tables, statements to logical plans.
//! - [`session`]: one client's settings, and its plans.
//! - [`described`]: what is known of a table beside its rows.
//! - [`definitions`]: the statements that make tables and views again.
//! - [`complexity`]: refuses what would take too long to plan.
//! - [`cooperation`]: keeps one statement from holding a thread for itself.
//! - [`branches`]: a union's branches, a few at a time.
//! - [`spans`]: whose statement a task of a plan works for.
//! - [`existence`]: whether subqueries have rows.
//! - [`explain`]: EXPLAIN's answer in PostgreSQL's form.
//! - [`misplaced`]: calls where calls of their kind may not stand.
//! - [`generic`]: plans that are optimised once for all executions.
//! - [`look_up`]: statements that look for a key.
//! - [`insert`]: the rows that INSERT adds.
//! - [`patterns`]: what is wrong with a regular expression.
//! - [`policies`]: row-level security.
//! - [`pushdown`]: filters that move down a plan, kept from columns that they are not about.
//! - [`rights`]: tables as a role may read them.
//! - [`type_names`]: types as statements write them.
//! - [`through`]: steps of a plan that pass rows on.
//! - [`observe`]: what is seen of a statement while it runs and after it.
//! - [`usage`]: the memory and disk that it takes.
//! - [`ready`]: plans for one execution.
//! - [`distribution`]: large statements on several daemons.
//! - [`rows`]: a physical plan running on the engine's own runtime, with backpressure.
//! - [`memory`]: the limits that all statements share.
//! - [`semantics`]: expressions that mean something else in PostgreSQL.
//! - [`objects`]: a session's cursors, prepared statements and changes of settings, for its own
//!   statements.
//! - [`notes`]: what a session's statements say to listeners.
//! - [`series`]: series of moments in FROM.
//! - [`settings`]: what SET and SHOW see.
//! - [`dense`]: aggregates by one whole number, whose groups stand in an array.
//! - [`shared`]: aggregates that a statement has more than once, computed once.
//! - [`spelling`]: statements that write, as the SQL parser knows them.
//! - [`stars`]: `*` beside columns of the same name.
//! - [`subject`]: what of its text a statement failed for.
//! - [`staged`]: tables as a transaction block has made them.
//! - [`system`]: what the floor above contributes.
//! - [`visit`]: walks over parsed statements.
//! - [`write`]: the rows of statements that write, gone to files.
//! - [`ordering`]: the order that a table declares for them.
//! - [`compact`]: small files made into few large ones.
//!
//! The engine has a tokio runtime of its own: a plan that keeps all its threads busy delays neither
//! the network nor heartbeats.

mod as_of;
mod branches;
pub mod caches;
mod casts;
mod change;
mod compact;
mod complexity;
mod conditions;
mod cooperation;
mod copy;
mod correlated;
mod definitions;
mod dense;
pub mod described;
mod differing;
mod distribution;
mod error;
mod existence;
mod explain;
mod generic;
mod history;
mod insert;
pub mod joins;
mod laterals;
mod list;
mod literals;
mod look_up;
pub mod memory;
mod misplaced;
pub mod notes;
pub mod objects;
pub mod observe;
mod once;
mod ordering;
mod parameters;
pub mod parse;
pub mod patterns;
mod planner;
mod policies;
mod precedence;
mod progress;
mod projected;
mod pushdown;
mod ready;
mod records;
mod result_cache;
mod rights;
mod rows;
mod semantics;
mod series;
mod session;
pub mod settings;
mod shared;
mod sides;
mod spans;
mod spelling;
pub mod staged;
mod stars;
mod subject;
pub mod system;
mod through;
mod together;
mod topmost;
mod type_names;
mod usage;
pub mod visit;
mod words;
mod write;

use std::fmt::{self, Debug, Formatter};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use datafusion::catalog::TableProvider;
use datafusion::datasource::provider_as_source;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::TableSource;
use datafusion::optimizer::{Analyzer, AnalyzerRule, Optimizer};
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::prelude::SessionConfig;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

pub use change::{Changes, Clause, Deed, SOURCE_COLUMN, Side, TARGET};
pub use copy::{CopyOption, CopyValue};
pub use distribution::{Messages, NoAnswer, Peers, Together};
pub use error::{Error, Result};
pub use explain::{explain_lines, explain_schema};
pub use insert::Addition;
pub use misplaced::{Calls, Misplaced};
pub use parse::{Parsed, parse, parse_expressions, parse_one, parse_types, placed, split, tokens};
pub use ready::Ready;
pub use result_cache::ResultCache;
pub use rows::Rows;
pub use semantics::{JsonError, TooLarge};
pub use session::{Plan, Session};
pub use spelling::{MEMBER, NO_ALIAS, NOTHING};
pub use subject::Subject;
pub use write::{Returned, Target, Written};

use crate::catalog::Table;
use crate::config;
use crate::storage::managed::{ManagedTable, TableFiles};
use crate::storage::{self, Folders, LookUps, PageCache};
use crate::threads;
use caches::{CacheFigures, Kept};
use distribution::Distribution;
use system::{Joined, Others, SessionInfo, SystemCatalog};

/// Bytes that a definition takes which is kept ready to scan, without the metadata of its table, about.
const SOURCE: u64 = 4 << 10;

/// One engine serves all sessions of a daemon.
pub struct Engine {
    /// Taken when the engine stops.
    runtime: Mutex<Option<Runtime>>,
    handle: tokio::runtime::Handle,
    environment: Arc<RuntimeEnv>,
    roots: storage::Roots,
    files: Arc<TableFiles>,
    /// What every session starts from.
    template: SessionState,
    system: Arc<dyn SystemCatalog>,
    /// Unset as long as the daemon has no peers.
    distribution: OnceLock<Arc<Distribution>>,
    /// Parts of Parquet files; scans find it as an extension of their session's configuration.
    pages: Arc<PageCache>,
    /// Pieces of files in which keys are looked for; found in the same way.
    look_ups: Arc<LookUps>,
    /// What is known of external tables' files; scans find it in the same way.
    folders: Arc<Folders>,
    results: Arc<ResultCache>,
    /// Tables ready to scan, by object identifier.
    sources: Cache<u32, CachedSource>,
}

/// What is kept for look-ups takes so much less than the pages of files, and comes on top of the memory that
/// these share with statements.
const LOOK_UPS_SHARE: u64 = 12;

/// Bytes of stack for each thread that parses, plans or drops statements: what the deepest statement
/// needs that [`complexity`] lets through. The system gives memory only to what is used of it.
pub const STACK_SIZE: usize = 128 << 20;

/// A table ready to scan, with the `mzxid` of its definition and the bytes that it takes, about.
#[derive(Clone)]
struct CachedSource {
    version: i64,
    bytes: u64,
    source: Arc<dyn TableSource>,
}

impl Debug for Engine {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

impl Engine {
    pub fn new(
        config: &config::Engine,
        places: &memory::Places,
        system: Arc<dyn SystemCatalog>,
    ) -> Result<Arc<Self>> {
        spans::follow_tasks();
        let pages_limit = memory::pages_limit(config);
        let pages = PageCache::new(pages_limit, memory::limit(config.memory_limit));
        let environment = memory::environment(config, places, pages.clone())?;
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.thread_name("oribi-engine");
        let runtime =
            threads::build(&mut runtime, config.threads.get(), STACK_SIZE).map_err(|error| {
                Error::Start(format!(
                    "no threads for the engine, of which {}: {error}",
                    threads::NEED
                ))
            })?;
        let look_ups = LookUps::new(pages_limit / LOOK_UPS_SHARE, runtime.handle().clone());
        let folders = Folders::new(memory::folders_limit(config), places.roots.clone());
        let kept = (pages.clone(), look_ups.clone(), folders.clone());
        let template = template(config, environment.clone(), kept, system.as_ref());
        Ok(Arc::new(Self {
            handle: runtime.handle().clone(),
            runtime: Mutex::new(Some(runtime)),
            files: Arc::new(TableFiles::new(
                environment.object_store_registry.clone(),
                environment.memory_pool.clone(),
                memory::managed_limit(config),
            )),
            environment,
            roots: places.roots.clone(),
            template,
            system,
            distribution: OnceLock::new(),
            pages,
            look_ups,
            folders,
            results: ResultCache::new(config.result_cache.0),
            sources: cached_sources(memory::managed_limit(config)),
        }))
    }

    /// From now on large statements are spread over the cluster, and parts of those of other daemons
    /// run here: `socket` is where they ask for it, until `end`. Returns what serves and watches them,
    /// to be run on threads that no statement keeps busy; it fails if the port does.
    pub fn join(
        &self,
        settings: config::Distribution,
        peers: Peers,
        socket: std::net::TcpListener,
        end: CancellationToken,
    ) -> Result<impl Future<Output = Result<()>> + use<>> {
        let above = (self.roots.clone(), self.system.clone());
        let distribution = Distribution::new(settings, peers, &self.template, above);
        if self.distribution.set(distribution.clone()).is_err() {
            return Err(Error::Start("the engine has peers already".to_owned()));
        }
        let others: Arc<dyn Others> = distribution.clone();
        self.system.join(Joined {
            others: Arc::downgrade(&others),
            environment: self.environment.clone(),
            kept: self.kept(),
        });
        Ok(distribution.keep(self.handle.clone(), socket, end))
    }

    /// Spreads statements with other settings from now on.
    pub fn change_distribution(&self, settings: &config::Distribution) {
        if let Some(distribution) = self.distribution() {
            distribution.change(settings);
        }
    }

    /// Has other sizes of caches from now on, as far as they can change while the daemon runs.
    pub fn change_caches(&self, config: &config::Engine) {
        memory::change_caches(&self.environment, config);
    }

    /// Sends a message to the daemon at an address, and waits for its answer.
    pub async fn tell(&self, peer: &str, kind: &str, body: Bytes) -> Result<Bytes, NoAnswer> {
        match self.distribution() {
            Some(distribution) => distribution.tell(peer, kind, body).await,
            None => Err(NoAnswer::Failed("this daemon is not ready yet".to_owned())),
        }
    }

    fn distribution(&self) -> Option<&Arc<Distribution>> {
        self.distribution.get()
    }

    pub fn memory_pool(&self) -> &Arc<dyn MemoryPool> {
        &self.environment.memory_pool
    }

    /// Bytes in spill files at the moment.
    pub fn spilled_bytes(&self) -> u64 {
        self.environment.disk_manager.used_disk_space()
    }

    /// The most bytes that spill files may have.
    pub fn spill_limit(&self) -> u64 {
        self.environment.disk_manager.max_temp_directory_size()
    }

    /// What is kept in memory of files and results.
    pub fn caches(&self) -> Vec<CacheFigures> {
        self.kept().figures(&self.environment)
    }

    /// What this daemon does together with others; `None` as long as it has no peers.
    pub fn together(&self) -> Option<Together> {
        self.distribution().map(|distribution| distribution.figures())
    }

    fn kept(&self) -> Kept {
        Kept {
            files: self.files.clone(),
            pages: self.pages.clone(),
            look_ups: self.look_ups.clone(),
            folders: self.folders.clone(),
            results: self.results.clone(),
        }
    }

    /// Stops the engine's threads; work that still runs is dropped at its next pause.
    pub fn stop(&self, patience: Duration) {
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(runtime) = runtime {
            runtime.shutdown_timeout(patience);
        }
    }

    /// Where the files of tables may lie.
    pub fn roots(&self) -> &storage::Roots {
        &self.roots
    }

    /// The files that describe managed tables.
    pub fn files(&self) -> &Arc<TableFiles> {
        &self.files
    }

    /// Where work is done that keeps threads busy.
    pub fn handle(&self) -> &tokio::runtime::Handle {
        &self.handle
    }

    fn system(&self) -> &dyn SystemCatalog {
        self.system.as_ref()
    }

    /// A table made ready earlier from the same definition. A session with engine settings of its
    /// own makes its own.
    fn cached_source(&self, session: &SessionInfo, table: &Table) -> Option<Arc<dyn TableSource>> {
        if session.settings.engine_options().next().is_some() {
            return None;
        }
        let known = self.sources.get(&table.record.oid)?;
        (known.version == table.stat.mzxid).then_some(known.source)
    }

    /// Keeps a table that was made ready, for all sessions.
    fn keep_source(
        &self,
        session: &SessionInfo,
        table: &Table,
        provider: Arc<dyn TableProvider>,
    ) -> Arc<dyn TableSource> {
        let metadata = provider.downcast_ref::<ManagedTable>().map_or(0, ManagedTable::bytes);
        let source = provider_as_source(provider);
        if session.settings.engine_options().next().is_none() {
            let (version, bytes) = (table.stat.mzxid, SOURCE + metadata);
            let known = CachedSource { version, bytes, source: source.clone() };
            self.sources.insert(table.record.oid, known);
        }
        source
    }
}

/// Of tables that are gone some stay until others need their place.
fn cached_sources(bytes: u64) -> Cache<u32, CachedSource> {
    let weigh = |_: &u32, known: &CachedSource| u32::try_from(known.bytes).unwrap_or(u32::MAX);
    let sources = Cache::builder().max_capacity(bytes).weigher(weigh);
    sources.eviction_policy(EvictionPolicy::lru()).build()
}

impl Drop for Engine {
    /// Threads must not be waited for where others run as well.
    fn drop(&mut self) {
        let runtime = self.runtime.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(runtime) = runtime {
            runtime.shutdown_background();
        }
    }
}

/// Places of an array that is made however few of them are taken.
const SMALL_ARRAY: usize = 1 << 16;

/// Bytes and rows of a join's kept side up to which it is kept as one, by one thread, and the other side's
/// rows stay where they are; beyond, both sides are divided among all threads, which costs each row of the
/// other side a hash and a copy, but keeps no thread waiting. The more threads, the more wait.
fn kept_as_one(threads: usize) -> (usize, usize) {
    let bytes = (LARGEST_AS_ONE / threads).clamp(64 << 20, 256 << 20);
    (bytes, bytes / BYTES_OF_ROW)
}

const LARGEST_AS_ONE: usize = 512 << 20;

/// Bytes of a row: where a side's bytes are not known, its rows are asked.
const BYTES_OF_ROW: usize = 16;

/// The settings that measured best, and all functions.
fn template(
    config: &config::Engine,
    environment: Arc<RuntimeEnv>,
    (pages, look_ups, folders): (Arc<PageCache>, Arc<LookUps>, Arc<Folders>),
    system: &dyn SystemCatalog,
) -> SessionState {
    let mut session = distribution::prepared(SessionConfig::new())
        .with_target_partitions(config.target_partitions.get())
        .with_batch_size(config.batch_size)
        .with_information_schema(false)
        .with_create_default_catalog_and_schema(false)
        .with_extension(pages)
        .with_extension(look_ups)
        .with_extension(folders);
    let options = session.options_mut();
    options.execution.parquet.pushdown_filters = config.filter_pushdown == config::Switch::On;
    options.execution.parquet.reorder_filters = true;
    options.execution.parquet.bloom_filter_on_read = true;
    options.execution.collect_statistics = true;
    // Of what files say beside a column's type, nothing changes a result.
    options.execution.skip_physical_aggregate_schema_check = true;
    options.execution.perfect_hash_join_min_key_density =
        memory::density(memory::limit(config.memory_limit));
    options.execution.perfect_hash_join_small_build_threshold = SMALL_ARRAY;
    let (bytes, rows) = kept_as_one(config.target_partitions.get());
    options.optimizer.hash_join_single_partition_threshold = bytes;
    options.optimizer.hash_join_single_partition_threshold_rows = rows;
    // Numbers with a point are exact, as in PostgreSQL.
    options.sql_parser.parse_float_as_decimal = true;
    options.sql_parser.dialect = datafusion::common::config::Dialect::PostgreSQL;
    let mut rules: Vec<Arc<dyn AnalyzerRule + Send + Sync>> = vec![
        Arc::new(existence::Existence),
        Arc::new(laterals::Laterals),
        Arc::new(semantics::Comparisons::default()),
        Arc::new(semantics::Semantics::default()),
    ];
    rules.splice(3..3, Analyzer::new().rules);
    rules.push(Arc::new(semantics::Distinctions));
    let mut optimizer_rules = Optimizer::new().rules;
    optimizer_rules.insert(0, Arc::new(semantics::ShiftedSums::default()));
    for name in correlated::BEFORE {
        if let Some(at) = optimizer_rules.iter().position(|rule| rule.name() == *name) {
            optimizer_rules.insert(at, Arc::new(correlated::Correlated));
        }
    }
    // Behind what computes constants, and before whatever looks for expressions that are the same.
    let computed = optimizer_rules.iter().position(|rule| rule.name() == semantics::Apart::BEHIND);
    let behind = computed.map_or(0, |at| at + 1);
    optimizer_rules.insert(behind, Arc::new(semantics::Apart));
    optimizer_rules.insert(behind, Arc::new(semantics::Implied));
    optimizer_rules.push(Arc::new(semantics::LargeConstants::default()));
    let physical_rules = sides::Sides::among(PhysicalOptimizer::new().rules);
    let physical_rules = projected::taken_apart(pushdown::looked_after(physical_rules));
    let mut physical_rules = differing::counted(physical_rules);
    physical_rules.push(Arc::new(conditions::Conditions));
    physical_rules.push(Arc::new(topmost::Topmost));
    let mut state = SessionStateBuilder::new()
        .with_config(session)
        .with_runtime_env(environment)
        .with_expr_planners(vec![
            Arc::new(semantics::Arrays),
            Arc::new(semantics::Ranges),
            Arc::new(semantics::Unordered),
        ])
        .with_default_features()
        .with_analyzer_rules(rules)
        .with_query_planner(Arc::new(shared::Planner))
        .with_optimizer_rules(optimizer_rules)
        .with_physical_optimizer_rules(physical_rules)
        .build();
    use datafusion::execution::FunctionRegistry;
    for function in semantics::aggregate_functions() {
        let _ = state.register_udaf(function);
    }
    for function in semantics::scalar_functions().into_iter().chain(system.scalar_functions()) {
        // The registry of a state takes any function, and replaces one of the same name.
        let _ = state.register_udf(function);
    }
    for function in semantics::amended_functions(|name| state.udf(name).ok()) {
        let _ = state.register_udf(function);
    }
    for function in semantics::amended_aggregates(|name| state.udaf(name).ok()) {
        let _ = state.register_udaf(function);
    }
    for function in semantics::amended_windows(|name| state.udwf(name).ok()) {
        let _ = state.register_udwf(function);
    }
    // Asked last, so that the types are those of what the others have not planned.
    let _ = state.register_expr_planner(Arc::new(semantics::Operators::default()));
    for (name, function) in system.table_functions() {
        state.register_udtf(&name, function);
    }
    state
}
