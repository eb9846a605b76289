//! Results that are known: of statements whose tables have not changed since.
//!
//! Whole results are kept as far as they fit, for all sessions of this daemon. One is given again where
//! all is the same that it was made of: the plan with its parameters' values, the session's settings, the
//! snapshot of each managed table and the files of each other one. Nobody has to tell of a change: what
//! the tables hold is looked up each time.
//!
//! Not kept are the results of statements that call functions which are not immutable, and of those that
//! read anything but whole tables: system tables, or tables of which the role may see some rows or
//! columns only.

use std::collections::hash_map::DefaultHasher;
use std::fmt::{self, Debug, Formatter};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::error::Result as EngineResult;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{
    AggregateUDF, Expr, LogicalPlan, Signature, Volatility, WindowFunctionDefinition,
};
use datafusion::physical_plan::ExecutionPlan;
use moka::sync::Cache;

use super::ready::Given;
use super::semantics;
use super::settings::Settings;
use crate::storage::{self, Contents};

/// The part of the cache that one result may take.
const MAX_SHARE: usize = 8;

/// What an entry takes besides its rows and its plan, about.
const OVERHEAD: usize = 1024;

/// What a step of a plan takes, or an expression besides its value, about.
const STEP: usize = 512;

/// The results that are known.
pub struct ResultCache {
    /// By the hash of the plan: of a plan only the newest result is kept.
    entries: Cache<u64, Arc<Known>>,
    max_bytes: usize,
    /// Bytes of the results that are gathered just now.
    gathered: AtomicUsize,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// All that a result depends on.
#[derive(Debug)]
struct Key {
    /// Its scans have no tables.
    plan: LogicalPlan,
    settings: Arc<Settings>,
    /// Which of the tables each scan reads, in the order of the plan.
    scans: Vec<usize>,
    /// Of the tables.
    contents: Vec<Contents>,
    /// Of the plan's moments, in its order: to the engine one with a time zone is equal to one without.
    zones: Vec<Option<Arc<str>>>,
}

#[derive(Debug)]
struct Known {
    key: Key,
    schema: SchemaRef,
    batches: Given,
    bytes: usize,
}

/// What is known of a statement's result.
pub(super) enum Lookup {
    /// A plan that gives its rows, and these.
    Known(Arc<dyn ExecutionPlan>, Given),
    /// Nothing: it is to be kept. The plan reads just what was found.
    New(Box<Keep>, LogicalPlan),
    /// It cannot be kept.
    Passing,
}

/// Gathers a result that is to be kept.
#[derive(Debug)]
pub(super) struct Keep {
    hash: u64,
    key: Key,
    batches: Vec<RecordBatch>,
    gathered: Gathered,
}

/// Bytes of a result that is gathered, counted among all until it is dropped.
#[derive(Debug)]
struct Gathered {
    cache: Arc<ResultCache>,
    bytes: usize,
}

impl Gathered {
    /// Whether there is room for more.
    fn add(&mut self, bytes: usize) -> bool {
        let all = self.cache.gathered.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.bytes += bytes;
        all <= self.cache.max_bytes && self.bytes <= self.cache.max_bytes / MAX_SHARE
    }
}

impl Drop for Gathered {
    fn drop(&mut self) {
        self.cache.gathered.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Debug for ResultCache {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResultCache").field("max_bytes", &self.max_bytes).finish_non_exhaustive()
    }
}

impl ResultCache {
    pub fn new(max_bytes: u64) -> Arc<Self> {
        let weigh = |_: &u64, known: &Arc<Known>| u32::try_from(known.bytes).unwrap_or(u32::MAX);
        let max = usize::try_from(max_bytes).unwrap_or(usize::MAX);
        let entries = Cache::builder().max_capacity(max_bytes).weigher(weigh).build();
        Arc::new(Self {
            entries,
            max_bytes: max,
            gathered: AtomicUsize::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        })
    }

    /// Looks for the result of a statement.
    pub(super) async fn look(
        self: &Arc<Self>,
        state: &SessionState,
        settings: &Arc<Settings>,
        plan: &LogicalPlan,
    ) -> Lookup {
        if self.max_bytes == 0 {
            return Lookup::Passing;
        }
        let Some(Reads { tables, scans, zones, bytes }) = Reads::of(plan) else {
            return Lookup::Passing;
        };
        if bytes > self.max_bytes / MAX_SHARE {
            return Lookup::Passing;
        }
        let mut hasher = DefaultHasher::new();
        plan.hash(&mut hasher);
        let hash = hasher.finish();
        let mut contents = Vec::with_capacity(tables.len());
        for table in &tables {
            // What cannot be looked up fails when it is run.
            let Some(Ok(held)) = storage::contents(state, table.as_ref()).await else {
                return Lookup::Passing;
            };
            contents.push(held);
        }
        let known = self.entries.get(&hash).filter(|known| {
            known.key.scans == scans
                && known.key.zones == zones
                && known.key.contents == contents
                && known.key.settings.give_the_same(settings)
                && known.key.plan == *plan
        });
        let known = known.and_then(|known| Some((known.plan().ok()?, known.batches.clone())));
        if let Some((plan, rows)) = known {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Lookup::Known(plan, rows);
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let (Ok(pinned), Ok(bare)) = (pinned(plan, &tables, &contents), bare(plan)) else {
            return Lookup::Passing;
        };
        let key = Key { plan: bare, settings: settings.clone(), scans, contents, zones };
        let bytes = bytes + OVERHEAD + key.contents.iter().map(Contents::bytes).sum::<usize>();
        let gathered = Gathered { cache: self.clone(), bytes: 0 };
        let mut keep = Box::new(Keep { hash, key, batches: Vec::new(), gathered });
        match keep.gathered.add(bytes) {
            true => Lookup::New(keep, pinned),
            false => Lookup::Passing,
        }
    }

    /// Entries, their bytes, the most of these, and how often a result was known.
    pub fn figures(&self) -> ([u64; 3], u64) {
        // It counts when it has time.
        self.entries.run_pending_tasks();
        let figures = [self.entries.entry_count(), self.entries.weighted_size()];
        let [entries, bytes] = figures;
        ([entries, bytes, self.max_bytes as u64], self.hits.load(Ordering::Relaxed))
    }

    /// How often a result was not known that could have been.
    pub fn misses(&self) -> u64 {
        self.misses.load(Ordering::Relaxed)
    }
}

impl Known {
    fn plan(&self) -> EngineResult<Arc<dyn ExecutionPlan>> {
        let parts = [self.batches.to_vec()];
        Ok(MemorySourceConfig::try_new_exec(&parts, self.schema.clone(), None)?)
    }
}

impl Keep {
    /// With more rows of the result; `None` once there are too many.
    pub fn with(mut self: Box<Self>, batch: &RecordBatch) -> Option<Box<Self>> {
        let batch = compact(batch)?;
        let fits = self.gathered.add(batch.get_array_memory_size());
        self.batches.push(batch);
        fits.then_some(self)
    }

    /// All rows have been given.
    pub fn finish(self, schema: SchemaRef) {
        let Self { hash, key, batches, gathered } = self;
        let batches = batches.into();
        let known = Known { key, schema, batches, bytes: gathered.bytes };
        gathered.cache.entries.insert(hash, Arc::new(known));
    }
}

/// The same rows; texts are copied out of the pages of files that they would keep in memory. `None` for
/// what may have such texts inside.
fn compact(batch: &RecordBatch) -> Option<RecordBatch> {
    if batch.schema().fields().iter().any(|field| field.data_type().is_nested()) {
        return None;
    }
    let columns = batch.columns().iter().map(|column| -> ArrayRef {
        match column.data_type() {
            DataType::Utf8View => Arc::new(column.as_string_view().gc()),
            DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
            _ => column.clone(),
        }
    });
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(batch.schema(), columns.collect(), &rows).ok()
}

/// What a statement reads.
#[derive(Default)]
struct Reads {
    tables: Vec<Arc<dyn TableProvider>>,
    /// Which of them each scan reads.
    scans: Vec<usize>,
    /// See [`Key::zones`].
    zones: Vec<Option<Arc<str>>>,
    /// That the plan takes, about.
    bytes: usize,
}

impl Reads {
    /// `None` where a statement's result may be another next time although its tables are the same, and
    /// where it reads none.
    fn of(plan: &LogicalPlan) -> Option<Self> {
        let mut reads = Self::default();
        let mut lasting = true;
        let visited = plan.apply_with_subqueries(|node| {
            reads.bytes += STEP;
            match node {
                LogicalPlan::TableScan(scan) => reads.scan(source_as_provider(&scan.source)?),
                node => lasting &= lasts(node),
            }
            node.apply_expressions(|expr| {
                expr.apply(|expr| {
                    lasting &= is_lasting(expr);
                    reads.bytes += STEP;
                    if let Expr::Literal(value, _) = expr {
                        reads.bytes += value.size();
                        if let DataType::Timestamp(_, zone) = value.data_type() {
                            reads.zones.push(zone);
                        }
                    }
                    Ok(TreeNodeRecursion::Continue)
                })
            })?;
            Ok(match lasting {
                true => TreeNodeRecursion::Continue,
                false => TreeNodeRecursion::Stop,
            })
        });
        (visited.is_ok() && lasting && !reads.tables.is_empty()).then_some(reads)
    }

    fn scan(&mut self, table: Arc<dyn TableProvider>) {
        let known = self.tables.iter().position(|known| Arc::ptr_eq(known, &table));
        self.scans.push(known.unwrap_or_else(|| {
            self.tables.push(table);
            self.tables.len() - 1
        }));
    }
}

/// A plan whose tables hold just these contents.
fn pinned(
    plan: &LogicalPlan,
    tables: &[Arc<dyn TableProvider>],
    contents: &[Contents],
) -> EngineResult<LogicalPlan> {
    let pinned: Vec<_> = (tables.iter().zip(contents))
        .filter_map(|(table, held)| Some((table, storage::pinned(table.as_ref(), held)?)))
        .collect();
    if pinned.is_empty() {
        return Ok(plan.clone());
    }
    with_tables(plan, |table| {
        let pinned = pinned.iter().find(|(found, _)| Arc::ptr_eq(found, table));
        pinned.map(|(_, pinned)| pinned.clone())
    })
}

/// A plan that holds no tables, to be compared with others.
fn bare(plan: &LogicalPlan) -> EngineResult<LogicalPlan> {
    with_tables(plan, |table| Some(Arc::new(EmptyTable::new(table.schema())) as _))
}

fn with_tables(
    plan: &LogicalPlan,
    other: impl Fn(&Arc<dyn TableProvider>) -> Option<Arc<dyn TableProvider>>,
) -> EngineResult<LogicalPlan> {
    let plan = plan.clone().transform_up_with_subqueries(|node| {
        let LogicalPlan::TableScan(mut scan) = node else { return Ok(Transformed::no(node)) };
        let table = other(&source_as_provider(&scan.source)?);
        Ok(match table {
            Some(table) => {
                scan.source = provider_as_source(table);
                Transformed::yes(LogicalPlan::TableScan(scan))
            }
            None => Transformed::no(LogicalPlan::TableScan(scan)),
        })
    })?;
    Ok(plan.data)
}

/// Whether a step gives the same rows as long as its input and its expressions do.
pub(super) fn lasts(node: &LogicalPlan) -> bool {
    matches!(
        node,
        LogicalPlan::Projection(_)
            | LogicalPlan::Filter(_)
            | LogicalPlan::Window(_)
            | LogicalPlan::Aggregate(_)
            | LogicalPlan::Sort(_)
            | LogicalPlan::Join(_)
            | LogicalPlan::Union(_)
            | LogicalPlan::EmptyRelation(_)
            | LogicalPlan::Subquery(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Limit(_)
            | LogicalPlan::Values(_)
            | LogicalPlan::Distinct(_)
            | LogicalPlan::Unnest(_)
    )
}

/// Whether an expression's value follows from those below it.
pub(super) fn is_lasting(expr: &Expr) -> bool {
    let immutable = |signature: &Signature| signature.volatility == Volatility::Immutable;
    match expr {
        Expr::ScalarFunction(call) => semantics::is_lasting(&call.func),
        Expr::AggregateFunction(call) => immutable(AggregateUDF::signature(&call.func)),
        Expr::WindowFunction(call) => match &call.fun {
            WindowFunctionDefinition::AggregateUDF(function) => immutable(function.signature()),
            WindowFunctionDefinition::WindowUDF(function) => immutable(function.signature()),
        },
        Expr::Placeholder(_) | Expr::ScalarVariable(..) | Expr::HigherOrderFunction(_) => false,
        _ => true,
    }
}
