//! What scans get just before they run.
//!
//! [`ready_scans`] wraps each file source of a finished plan: by then no optimiser rule and no
//! serialisation looks at the sources any more. Each failure names the file it came from: readers report
//! what is wrong with the bytes but not whose bytes they were; a reader's panic over damaged bytes becomes
//! such a failure, too. Parquet files are checked as they are read ([`super::guard`]), with what is kept of
//! them in memory ([`super::pages`]), and rows are dropped that joins above have no use for
//! ([`super::prefilter`]).

use std::fmt::{self, Debug, Formatter};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{
    CsvSource, FileGroup, FileScanConfig, FileScanConfigBuilder, FileSource,
    ParquetFileReaderFactory, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::physical_expr::ConstExpr;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_plan::execution_plan::{EmissionType, replace_children_if_necessary};
use datafusion::physical_plan::filter::{FilterExec, batch_filter};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::{
    DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PhysicalExpr,
};
use datafusion_datasource::TableSchema;
use datafusion_datasource::file_stream::FileOpener;
use datafusion_datasource::morsel::{Morsel, MorselPlan, MorselPlanner, Morselizer};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};

use super::csv::Csv;
use super::guard::{CheckedFactory, Footers, Seen};
use super::pages::PagedFactory;
use super::prefilter::Prefilter;
use super::turns::InTurns;
use super::{Error, PageCache, lines, nan, pushdown};

/// Makes the scans of a plan ready to run.
pub fn ready_scans(
    plan: Arc<dyn ExecutionPlan>,
    context: &TaskContext,
) -> Result<Arc<dyn ExecutionPlan>> {
    ready(plan, context, false)
}

/// The same, of a plan whose rows are taken in portions: whoever takes them may have enough before it ends.
pub fn ready_in_portions(
    plan: Arc<dyn ExecutionPlan>,
    context: &TaskContext,
) -> Result<Arc<dyn ExecutionPlan>> {
    ready(plan, context, true)
}

fn ready(
    plan: Arc<dyn ExecutionPlan>,
    context: &TaskContext,
    hurried: bool,
) -> Result<Arc<dyn ExecutionPlan>> {
    let pages = context.session_config().get_extension::<PageCache>();
    let preparation = Preparation { environment: context.runtime_env(), pages };
    Ok(preparation.below(plan, hurried)?.data)
}

/// Whether a node's input may be left before it ends, where its own rows may be.
fn is_hurried(node: &Arc<dyn ExecutionPlan>, hurried: bool) -> bool {
    match node.pipeline_behavior() {
        // It takes all rows before it gives one.
        EmissionType::Final => false,
        EmissionType::Incremental | EmissionType::Both => hurried || node.fetch().is_some(),
    }
}

/// What scans are made ready with.
struct Preparation {
    environment: Arc<RuntimeEnv>,
    pages: Option<Arc<PageCache>>,
}

impl Preparation {
    /// `hurried`: a node above may have enough before the scans end.
    fn below(
        &self,
        node: Arc<dyn ExecutionPlan>,
        hurried: bool,
    ) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
        if let Some(config) = files_of(&node) {
            return Ok(Transformed::yes(self.scan(config, hurried, None)?.0));
        }
        if let Some(filter) = node.downcast_ref::<FilterExec>()
            && let Some(config) = files_of(filter.input())
            && filter.fetch().is_none()
        {
            let (scan, filters) = self.scan(config, hurried, Some(filter.predicate()))?;
            let rest: Arc<dyn ExecutionPlan> = match filter.projection() {
                None => scan.clone(),
                Some(columns) => {
                    let columns = ProjectionExprs::from_indices(columns, &scan.schema());
                    Arc::new(ProjectionExec::try_new(columns.iter().cloned(), scan.clone())?)
                }
            };
            // Steps above rely on what the filter makes of its condition, such as `k >= 5` where no `k` is
            // greater.
            let knows = |constant: &ConstExpr| {
                rest.equivalence_properties().is_expr_constant(&constant.expr).is_some()
            };
            let spared = filters && node.equivalence_properties().constants().iter().all(knows);
            return Ok(Transformed::yes(match spared {
                true => rest,
                false => replace_children_if_necessary(node, vec![scan])?,
            }));
        }
        let hurried = is_hurried(&node, hurried);
        node.map_children(|child| self.below(child, hurried))
    }

    /// A scan, and whether its rows are those alone that fulfil the `condition` above it. Where files are
    /// filtered while they are decoded few rows are left: a step of their own would hold them back until they
    /// are many, and what a sort with a limit learns of them would come late. But it is looked at all the
    /// same: the reader of files takes a condition that it cannot use for fulfilled.
    fn scan(
        &self,
        config: &FileScanConfig,
        hurried: bool,
        condition: Option<&Arc<dyn PhysicalExpr>>,
    ) -> Result<(Arc<dyn ExecutionPlan>, bool)> {
        let base: Arc<str> = config.object_store_url.as_str().trim_end_matches('/').into();
        let mut inner = config.file_source().clone();
        let (mut pages, mut condition) = (self.pages.clone(), condition);
        match inner.downcast_ref::<ParquetSource>() {
            Some(source) => {
                let pays = pushdown::pays(config, source, hurried);
                condition = condition.filter(|_| pays);
                let source = source.clone().with_pushdown_filters(pays || pushes_down(source));
                let files = self.files(config, &base)?;
                inner = Arc::new(source.with_parquet_file_reader_factory(files));
            }
            None => (pages, condition) = (None, None),
        }
        let mut builder = FileScanConfigBuilder::from(config.clone());
        if let Some(source) = inner.downcast_ref::<CsvSource>() {
            let hurried = hurried || config.limit.is_some();
            if hurried || source.comment().is_some() {
                builder = builder.with_file_groups(uncut(&config.file_groups));
            }
            inner = Arc::new(Csv::new(source.clone()));
        }
        let prefilter = prefilter(inner.as_ref());
        let inner = guarded(config, inner);
        let condition = condition.cloned();
        let filters = condition.is_some();
        let source = Named { inner, base, pages, dropping: Dropping { prefilter, condition } };
        let config = builder.with_source(Arc::new(source)).build();
        Ok((DataSourceExec::from_data_source(config), filters))
    }

    /// What makes the readers of Parquet files.
    fn files(
        &self,
        config: &FileScanConfig,
        base: &Arc<str>,
    ) -> Result<Arc<dyn ParquetFileReaderFactory>> {
        let store = self.environment.object_store(&config.object_store_url)?;
        let footers = Footers::new(store.clone(), &self.environment);
        let files: Arc<dyn ParquetFileReaderFactory> = Arc::new(CheckedFactory::new(footers));
        let Some(cache) = self.pages.clone() else { return Ok(files) };
        Ok(Arc::new(PagedFactory { cache, files, store, url: base.clone() }))
    }
}

/// The same files, each as a whole. A file of CSV that is cut within a quoted value is known to be so at the end of
/// a part: whoever has enough rows before that, or sees no quotes for comments, would take what it read for rows.
fn uncut(groups: &[FileGroup]) -> Vec<FileGroup> {
    let begins = |file: &&PartitionedFile| file.range.as_ref().is_none_or(|part| part.start == 0);
    let whole = |file: &PartitionedFile| PartitionedFile { range: None, ..file.clone() };
    (groups.iter())
        .map(|group| FileGroup::new(group.iter().filter(begins).map(whole).collect()))
        .collect()
}

/// What a step reads, if it reads files.
fn files_of(node: &Arc<dyn ExecutionPlan>) -> Option<&FileScanConfig> {
    node.downcast_ref::<DataSourceExec>()?.data_source().downcast_ref::<FileScanConfig>()
}

fn pushes_down(source: &ParquetSource) -> bool {
    source.table_parquet_options().global.pushdown_filters
}

/// The same source, by whose conditions nothing is left out that has NaN.
fn guarded(config: &FileScanConfig, source: Arc<dyn FileSource>) -> Arc<dyn FileSource> {
    let Some(parquet) = source.downcast_ref::<ParquetSource>() else { return source };
    let Some(condition) = parquet.filter() else { return source };
    let nan = nan::may_be_there(config);
    match nan.contains(&true) {
        true => Arc::new(parquet.with_predicate(nan::guarded(&condition, &nan))),
        false => source,
    }
}

/// What drops rows of a scan that does not filter them itself.
fn prefilter(source: &dyn FileSource) -> Option<Prefilter> {
    let source = source.downcast_ref::<ParquetSource>()?;
    if pushes_down(source) {
        return None;
    }
    let schema = source.table_schema().table_schema();
    Prefilter::new(&source.filter()?, source.projection(), schema)
}

/// A file source whose errors name the file, with what is kept of the files and what drops rows.
#[derive(Clone)]
struct Named {
    inner: Arc<dyn FileSource>,
    /// The store's URL, without a slash at the end.
    base: Arc<str>,
    pages: Option<Arc<PageCache>>,
    dropping: Dropping,
}

/// What drops rows of a scan.
#[derive(Clone, Debug)]
struct Dropping {
    prefilter: Option<Prefilter>,
    /// On the scan's columns.
    condition: Option<Arc<dyn PhysicalExpr>>,
}

impl Dropping {
    fn apply(&mut self, mut batch: RecordBatch) -> Result<RecordBatch> {
        if let Some(condition) = &self.condition {
            batch = batch_filter(&batch, condition)?;
        }
        Ok(match &mut self.prefilter {
            Some(prefilter) => prefilter.apply(batch),
            None => batch,
        })
    }
}

impl FileSource for Named {
    fn create_file_opener(
        &self,
        store: Arc<dyn ObjectStore>,
        config: &FileScanConfig,
        partition: usize,
    ) -> Result<Arc<dyn FileOpener>> {
        self.inner.create_file_opener(store, config, partition)
    }

    fn create_morselizer(
        &self,
        store: Arc<dyn ObjectStore>,
        config: &FileScanConfig,
        partition: usize,
    ) -> Result<Box<dyn Morselizer>> {
        let inner = self.inner.create_morselizer(store.clone(), config, partition)?;
        Ok(Box::new(NamedMorselizer { inner, source: self.clone(), store }))
    }

    fn table_schema(&self) -> &TableSchema {
        self.inner.table_schema()
    }

    fn with_batch_size(&self, batch_size: usize) -> Arc<dyn FileSource> {
        let inner = self.inner.with_batch_size(batch_size);
        Arc::new(Self { inner, ..self.clone() })
    }

    fn filter(&self) -> Option<Arc<dyn PhysicalExpr>> {
        self.inner.filter()
    }

    fn projection(&self) -> Option<&ProjectionExprs> {
        self.inner.projection()
    }

    fn metrics(&self) -> &ExecutionPlanMetricsSet {
        self.inner.metrics()
    }

    fn file_type(&self) -> &str {
        self.inner.file_type()
    }

    fn fmt_extra(&self, format: DisplayFormatType, f: &mut Formatter) -> fmt::Result {
        self.inner.fmt_extra(format, f)
    }

    fn supports_repartitioning(&self) -> bool {
        self.inner.supports_repartitioning()
    }

    fn reorder_files(&self, files: Vec<PartitionedFile>) -> Vec<PartitionedFile> {
        self.inner.reorder_files(files)
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.inner.apply_expressions(f)
    }
}

/// Puts the file's name around an error, unless it is about something else.
fn named(file: &str, error: DataFusionError) -> DataFusionError {
    match error {
        // Memory, and what was named already, are not the file's fault.
        DataFusionError::ResourcesExhausted(_) => error,
        DataFusionError::External(inner) if inner.is::<Error>() => DataFusionError::External(inner),
        error => external(Error::of_file(file, error)),
    }
}

/// Where rows go to several steps, each of them is told what has failed: it is shared from the beginning.
fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(Error::Shared(Arc::new(error))))
}

struct NamedMorselizer {
    inner: Box<dyn Morselizer>,
    source: Named,
    store: Arc<dyn ObjectStore>,
}

impl Debug for NamedMorselizer {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl Morselizer for NamedMorselizer {
    fn plan_file(&self, file: PartitionedFile) -> Result<Box<dyn MorselPlanner>> {
        let Named { base, pages, dropping, .. } = &self.source;
        let path = format!("{base}/{}", file.object_meta.location).into();
        let json = (self.source.inner.file_type() == "json")
            .then(|| (self.store.clone(), file.object_meta.clone()));
        let origin = Origin { path, part: self.part(&file), json, dropping: dropping.clone() };
        let file = match pages {
            Some(pages) => pages.opening(base, file),
            None => file,
        }
        .with_extension(Seen::default());
        match self.inner.plan_file(file) {
            Ok(inner) => Ok(Box::new(NamedPlanner { inner, origin })),
            Err(error) => Err(named(&origin.path, error)),
        }
    }
}

impl NamedMorselizer {
    /// Where a file is read of which the beginning is left to others.
    fn part(&self, file: &PartitionedFile) -> Option<Part> {
        let start = file.range.as_ref().and_then(|range| u64::try_from(range.start).ok());
        let start = start.filter(|start| *start > 0)?;
        let (store, location) = (self.store.clone(), file.object_meta.location.clone());
        let most = if self.source.base.starts_with("file:") { MOST_READ } else { MOST_FETCHED };
        Some(Part { store, location, start, most })
    }
}

/// Where rows come from, and what is dropped of them.
#[derive(Clone, Debug)]
struct Origin {
    path: Arc<str>,
    part: Option<Part>,
    /// The whole file, if it is of JSON, whose readers tell no lines.
    json: Option<(Arc<dyn ObjectStore>, ObjectMeta)>,
    dropping: Dropping,
}

/// A part of a file, from the first line on that begins behind so many bytes.
#[derive(Clone, Debug)]
struct Part {
    store: Arc<dyn ObjectStore>,
    location: Path,
    start: u64,
    /// Bytes that may be read again to tell a line by its number.
    most: u64,
}

impl Part {
    /// An error with the file's name, and the line as it is counted in the whole file.
    async fn named(self, path: Arc<str>, error: DataFusionError) -> DataFusionError {
        match error {
            DataFusionError::ArrowError(..) => {}
            error => return named(&path, error),
        }
        let error = Error::of_file(path.as_ref(), error);
        external(match error.tells_line() {
            true => error.behind(self.start, self.lines_before().await),
            false => error,
        })
    }

    /// How many lines are in front of it; `None` if they are too many to be counted for a message, or cannot be
    /// read.
    async fn lines_before(&self) -> Option<u64> {
        // A line is of the part that it begins in: the first end of one from here on is that of the last before.
        let last = self.start - 1;
        if last > self.most {
            return None;
        }
        let (mut lines, mut at) = (1, 0);
        while at < last {
            let end = last.min(at + COUNTED_AT_ONCE);
            let bytes = self.store.get_range(&self.location, at..end).await.ok()?;
            lines += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
            at = end;
        }
        Some(lines)
    }
}

/// An error in JSON with the line where it is, if it is one of syntax and the file is small enough to be read
/// again.
pub(super) async fn with_line(
    store: &dyn ObjectStore,
    file: &ObjectMeta,
    error: DataFusionError,
) -> DataFusionError {
    if file.size > MOST_FETCHED || !matches!(error.find_root(), DataFusionError::ArrowError(..)) {
        return error;
    }
    let bytes = store.get_range(&file.location, 0..file.size).await.ok();
    match bytes.and_then(|bytes| lines::of_json(&bytes)) {
        Some(told) => ArrowError::JsonError(told).into(),
        None => error,
    }
}

/// The same of local files, and of those that are far away.
const MOST_READ: u64 = 4 << 30;
const MOST_FETCHED: u64 = 64 << 20;
const COUNTED_AT_ONCE: u64 = 8 << 20;

#[derive(Debug)]
struct NamedPlanner {
    inner: Box<dyn MorselPlanner>,
    origin: Origin,
}

impl MorselPlanner for NamedPlanner {
    fn plan(self: Box<Self>) -> Result<Option<MorselPlan>> {
        let Self { inner, origin } = *self;
        let planned = catch_unwind(AssertUnwindSafe(|| inner.plan()))
            .map_err(|panic| external(Error::of_panic(origin.path.as_ref(), panic)))?;
        let Some(mut plan) = planned.map_err(|error| named(&origin.path, error))? else {
            return Ok(None);
        };
        let morsels = (plan.take_morsels().into_iter())
            .map(|inner| Box::new(NamedMorsel { inner, origin: origin.clone() }) as Box<dyn Morsel>)
            .collect();
        let planners = (plan.take_ready_planners().into_iter())
            .map(|inner| {
                Box::new(NamedPlanner { inner, origin: origin.clone() }) as Box<dyn MorselPlanner>
            })
            .collect();
        let pending = plan.take_pending_planner();
        let mut wrapped = MorselPlan::new().with_morsels(morsels).with_planners(planners);
        if let Some(pending) = pending {
            wrapped.set_pending_planner(async move {
                match AssertUnwindSafe(pending).catch_unwind().await {
                    Ok(Ok(inner)) => Ok(Box::new(NamedPlanner { inner, origin }) as _),
                    Ok(Err(error)) => Err(named(&origin.path, error)),
                    Err(panic) => Err(external(Error::of_panic(origin.path.as_ref(), panic))),
                }
            });
        }
        Ok(Some(wrapped))
    }
}

#[derive(Debug)]
struct NamedMorsel {
    inner: Box<dyn Morsel>,
    origin: Origin,
}

impl Morsel for NamedMorsel {
    fn into_stream(self: Box<Self>) -> BoxStream<'static, Result<RecordBatch>> {
        let Self { inner, origin: Origin { path, part, json, mut dropping } } = *self;
        let rows = inner.into_stream();
        let rows = match json {
            Some((store, file)) => {
                let told = move |error| {
                    let (store, file) = (store.clone(), file.clone());
                    async move { Err::<RecordBatch, _>(with_line(store.as_ref(), &file, error).await) }
                };
                rows.or_else(told).boxed()
            }
            None => rows,
        };
        let rows = match part {
            Some(part) => {
                let path = path.clone();
                let named = move |error| {
                    let (part, path) = (part.clone(), path.clone());
                    async move { Err::<RecordBatch, _>(part.named(path, error).await) }
                };
                rows.or_else(named).boxed()
            }
            None => rows,
        };
        let rows = InTurns(rows).map(move |batch| dropping.apply(batch?));
        let name = move |item: std::thread::Result<Result<_>>| match item {
            Ok(item) => item.map_err(|error| named(&path, error)),
            Err(panic) => Err(external(Error::of_panic(path.as_ref(), panic))),
        };
        AssertUnwindSafe(rows).catch_unwind().map(name).boxed()
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn a_part_knows_the_lines_in_front_of_it() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let location = Path::from("t.csv");
        let text = "n\n12\n345\n\n6\n";
        store.put(&location, text.into()).await.expect("it is written");
        for start in 1..text.len() {
            let (store, location) = (store.clone(), location.clone());
            let mut part = Part { store, location, start: start as u64, most: start as u64 - 1 };
            let begins = (start..).find(|at| text.as_bytes()[at - 1] == b'\n').expect("a line");
            let before = text[..begins].matches('\n').count() as u64;
            assert_eq!(part.lines_before().await, Some(before), "from byte {start}");
            if let Some(fewer) = part.most.checked_sub(1) {
                part.most = fewer;
                assert_eq!(part.lines_before().await, None, "from byte {start}");
            }
        }
    }
}
