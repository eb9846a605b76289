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
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::error::Result as EngineResult;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{
    AggregateUDF, Expr, LogicalPlan, Signature, Volatility, WindowFunctionDefinition,
};
use datafusion::physical_plan::ExecutionPlan;
use moka::sync::Cache;

use super::settings::Settings;
use crate::storage::{self, Contents};

/// The part of the cache that one result may take.
const MAX_SHARE: usize = 8;

/// What an entry takes besides its rows, about: the plan by which it is known.
const OVERHEAD: usize = 4096;

/// The results that are known.
pub struct ResultCache {
    /// By the hash of the plan: of a plan only the newest result is kept.
    entries: Cache<u64, Arc<Known>>,
    max_bytes: usize,
    hits: AtomicU64,
}

/// All that a result depends on.
#[derive(Debug)]
struct Key {
    plan: LogicalPlan,
    settings: Arc<Settings>,
    /// Of its tables, in the order in which the plan names them first.
    contents: Vec<Contents>,
}

#[derive(Debug)]
struct Known {
    key: Key,
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    bytes: usize,
}

/// What is known of a statement's result.
pub(super) enum Lookup {
    /// A plan that gives its rows.
    Known(Arc<dyn ExecutionPlan>),
    /// Nothing: it is to be kept. The plan reads just what was found.
    New(Box<Keep>, LogicalPlan),
    /// It cannot be kept.
    Passing,
}

/// Gathers a result that is to be kept.
#[derive(Debug)]
pub(super) struct Keep {
    cache: Arc<ResultCache>,
    hash: u64,
    key: Key,
    batches: Vec<RecordBatch>,
    bytes: usize,
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
        Arc::new(Self { entries, max_bytes: max, hits: AtomicU64::new(0) })
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
        let Some(tables) = tables_of(plan) else { return Lookup::Passing };
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
            known.key.contents == contents
                && known.key.settings.give_the_same(settings)
                && known.key.plan == *plan
        });
        if let Some(plan) = known.and_then(|known| known.plan().ok()) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Lookup::Known(plan);
        }
        let Ok(pinned) = pinned(plan.clone(), &tables, &contents) else { return Lookup::Passing };
        let key = Key { plan: plan.clone(), settings: settings.clone(), contents };
        let bytes = OVERHEAD + key.contents.iter().map(Contents::bytes).sum::<usize>();
        let keep = Keep { cache: self.clone(), hash, key, batches: Vec::new(), bytes };
        Lookup::New(Box::new(keep), pinned)
    }

    /// Entries, their bytes, the most of these, and how often a result was known.
    pub fn figures(&self) -> ([u64; 3], u64) {
        let figures = [self.entries.entry_count(), self.entries.weighted_size()];
        let [entries, bytes] = figures;
        ([entries, bytes, self.max_bytes as u64], self.hits.load(Ordering::Relaxed))
    }
}

impl Known {
    fn plan(&self) -> EngineResult<Arc<dyn ExecutionPlan>> {
        let parts = [self.batches.clone()];
        Ok(MemorySourceConfig::try_new_exec(&parts, self.schema.clone(), None)?)
    }
}

impl Keep {
    /// With more rows of the result; `None` once there are too many.
    pub fn with(mut self: Box<Self>, batch: &RecordBatch) -> Option<Box<Self>> {
        let batch = compact(batch)?;
        self.bytes += batch.get_array_memory_size();
        self.batches.push(batch);
        (self.bytes <= self.cache.max_bytes / MAX_SHARE).then_some(self)
    }

    /// All rows have been given.
    pub fn finish(self, schema: SchemaRef) {
        let Self { cache, hash, key, batches, bytes } = self;
        cache.entries.insert(hash, Arc::new(Known { key, schema, batches, bytes }));
    }
}

/// The same rows; texts are copied out of the pages of files that they would keep in memory.
fn compact(batch: &RecordBatch) -> Option<RecordBatch> {
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

/// The tables that a statement reads; `None` where its result may be another next time although they
/// are the same, and where there are none.
fn tables_of(plan: &LogicalPlan) -> Option<Vec<Arc<dyn TableProvider>>> {
    let mut tables = Vec::new();
    let mut lasting = true;
    let visited = plan.apply_with_subqueries(|node| {
        match node {
            LogicalPlan::TableScan(scan) => {
                let table = source_as_provider(&scan.source)?;
                if !tables.iter().any(|known| Arc::ptr_eq(known, &table)) {
                    tables.push(table);
                }
            }
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
            | LogicalPlan::Unnest(_) => {}
            _ => lasting = false,
        }
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                lasting &= is_lasting(expr);
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        Ok(match lasting {
            true => TreeNodeRecursion::Continue,
            false => TreeNodeRecursion::Stop,
        })
    });
    (visited.is_ok() && lasting && !tables.is_empty()).then_some(tables)
}

/// A plan whose tables hold just these contents.
fn pinned(
    plan: LogicalPlan,
    tables: &[Arc<dyn TableProvider>],
    contents: &[Contents],
) -> EngineResult<LogicalPlan> {
    let pinned: Vec<_> = (tables.iter().zip(contents))
        .filter_map(|(table, held)| Some((table, storage::pinned(table.as_ref(), held)?)))
        .collect();
    if pinned.is_empty() {
        return Ok(plan);
    }
    let plan = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::TableScan(mut scan) = node else { return Ok(Transformed::no(node)) };
        let table = source_as_provider(&scan.source)?;
        match pinned.iter().find(|(found, _)| Arc::ptr_eq(found, &table)) {
            Some((_, pinned)) => {
                scan.source = provider_as_source(pinned.clone());
                Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
            }
            None => Ok(Transformed::no(LogicalPlan::TableScan(scan))),
        }
    })?;
    Ok(plan.data)
}

/// Whether an expression's value follows from those below it.
fn is_lasting(expr: &Expr) -> bool {
    let immutable = |signature: &Signature| signature.volatility == Volatility::Immutable;
    match expr {
        Expr::ScalarFunction(call) => immutable(call.func.signature()),
        Expr::AggregateFunction(call) => immutable(AggregateUDF::signature(&call.func)),
        Expr::WindowFunction(call) => match &call.fun {
            WindowFunctionDefinition::AggregateUDF(function) => immutable(function.signature()),
            WindowFunctionDefinition::WindowUDF(function) => immutable(function.signature()),
        },
        Expr::Placeholder(_) | Expr::ScalarVariable(..) => false,
        _ => true,
    }
}
