//! Scans of external tables: which files there are now, which of them a statement needs, and what
//! is known of their contents.
//!
//! Each statement lists the files anew, so it sees what is there; footers, page indexes and
//! statistics come from caches that are checked against each file's size and time of change.
//! DataFusion's own listing table does nearly the same, but knows no NULL in a partition column and
//! does not say which file it failed on.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, DFSchema, ScalarValue, TableReference};
use datafusion::datasource::TableType;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::helpers::expr_applicable_for_cols;
use datafusion::datasource::listing::{ListingTableUrl, PartitionedFile};
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::cache::cache_manager::CachedFileMetadata;
use datafusion::execution::cache::{SchemaFingerprint, TableScopedPath};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion_datasource::{TableSchemaBuilder, compute_all_files_statistics};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::{ObjectMeta, ObjectStore};
use percent_encoding::percent_decode_str;

use super::{Error, Listing, Location, external};
use crate::catalog::External;

/// Directory name of the partition whose key is NULL, by Hive's convention.
pub(super) const NULL_PARTITION: &str = "__HIVE_DEFAULT_PARTITION__";

/// External files as the engine sees them.
#[derive(Clone, Debug)]
pub(super) struct ExternalTable {
    definition: Arc<External>,
    location: Location,
    /// The files, where it is settled which they are.
    pinned: Option<Arc<Vec<ObjectMeta>>>,
    url: ListingTableUrl,
    format: Arc<dyn FileFormat>,
    file_extension: String,
    /// Columns in the files.
    file_schema: SchemaRef,
    /// Columns in the directories' names, outermost first.
    partitions: Vec<Arc<Field>>,
    table_schema: SchemaRef,
    /// Tells statistics of this schema from those of another in the cache.
    fingerprint: Arc<SchemaFingerprint>,
}

impl ExternalTable {
    pub fn new(
        definition: External,
        format: Arc<dyn FileFormat>,
        file_extension: String,
        file_schema: SchemaRef,
        partitions: Vec<Arc<Field>>,
    ) -> super::Result<Self> {
        let location = Location::from_catalog(&definition.location);
        let fields = file_schema.fields().iter().chain(&partitions).cloned();
        let table_schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Ok(Self {
            url: location.url()?,
            definition: Arc::new(definition),
            location,
            pinned: None,
            format,
            file_extension,
            fingerprint: Arc::new(SchemaFingerprint::from_schema(&file_schema)),
            file_schema,
            partitions,
            table_schema,
        })
    }

    /// The files that there are now.
    pub async fn list(&self, session: &dyn Session) -> super::Result<Vec<ObjectMeta>> {
        let listed = external::list(session, &self.location).await;
        if !matches!(&listed, Ok(files) if !files.is_empty()) {
            self.location.check_exists().await?;
        }
        listed
    }

    /// The files that a look for a key would read; `None` if keys are not looked for in this table.
    pub async fn keyed_files(
        &self,
        session: &dyn Session,
    ) -> Result<Option<(ObjectStoreUrl, Vec<ObjectMeta>)>> {
        if !self.format.is::<ParquetFormat>() || !self.partitions.is_empty() {
            return Ok(None);
        }
        let mut files = match &self.pinned {
            Some(files) => files.as_ref().clone(),
            None => self.list(session).await.map_err(failed)?,
        };
        files.retain(|file| self.is_part(file));
        Ok(Some((self.url.object_store(), files)))
    }

    fn is_part(&self, file: &ObjectMeta) -> bool {
        file.location.as_ref().ends_with(&self.file_extension) && file.size > 0
    }

    /// What there is to read, with these files.
    pub fn listing(&self, files: Arc<Vec<ObjectMeta>>) -> Listing {
        Listing { definition: self.definition.clone(), schema: self.table_schema.clone(), files }
    }

    /// The table with just these files.
    pub fn pinned(&self, files: Arc<Vec<ObjectMeta>>) -> Self {
        Self { pinned: Some(files), ..self.clone() }
    }

    fn partition_names(&self) -> Vec<&str> {
        self.partitions.iter().map(|field| field.name().as_str()).collect()
    }

    /// The files that a statement has to look at, with what is known of them.
    async fn files(
        &self,
        session: &dyn Session,
        store: &Arc<dyn ObjectStore>,
        pruner: &Pruner,
    ) -> super::Result<Vec<PartitionedFile>> {
        let listed = match &self.pinned {
            Some(files) => files.clone(),
            None => Arc::new(self.list(session).await?),
        };
        let mut files = Vec::new();
        for file in listed.iter() {
            if !self.is_part(file) {
                continue;
            }
            let values = self.partition_values(file)?;
            if pruner.keeps(&values).map_err(|error| self.of(file, error))? {
                files.push(
                    PartitionedFile::new_from_meta(file.clone()).with_partition_values(values),
                );
            }
        }
        let concurrency = session.config_options().execution.meta_fetch_concurrency.get();
        stream::iter(files)
            .map(|file| self.with_statistics(session, store, file))
            .buffered(concurrency)
            .try_collect()
            .await
    }

    /// What files are left out by.
    fn pruner(&self, filters: &[Expr]) -> super::Result<Pruner> {
        let names = self.partition_names();
        let of_partitions =
            |filter: &&Expr| !names.is_empty() && expr_applicable_for_cols(&names, filter);
        let filters = filters.iter().filter(of_partitions).cloned().collect();
        Pruner::new(&self.partitions, filters)
            .map_err(|error| Error::of_file(self.location.as_str(), error))
    }

    /// The values of the partition columns, from the names of the directories.
    fn partition_values(&self, file: &ObjectMeta) -> super::Result<Vec<ScalarValue>> {
        let found = external::partition_values(&self.url, file);
        let value = |field: &Arc<Field>| {
            let text = found.iter().find(|(name, _)| name == field.name()).map(|(_, text)| text);
            let Some(text) = text else {
                let reason = format!("its path has no directory \"{}=...\"", field.name());
                let location = external::file_url(&self.url, file);
                return Err(Error::BadDefinition { location, reason });
            };
            if text == NULL_PARTITION {
                return ScalarValue::try_from(field.data_type()).map_err(|e| self.of(file, e));
            }
            let decoded = percent_decode_str(text).decode_utf8_lossy().into_owned();
            ScalarValue::try_from_string(decoded, field.data_type()).map_err(|e| self.of(file, e))
        };
        self.partitions.iter().map(value).collect()
    }

    async fn with_statistics(
        &self,
        session: &dyn Session,
        store: &Arc<dyn ObjectStore>,
        file: PartitionedFile,
    ) -> super::Result<PartitionedFile> {
        let meta = &file.object_meta;
        let cache = session.runtime_env().cache_manager.get_file_statistic_cache();
        // A path alone is one of any store.
        let store_name = TableReference::bare(self.url.object_store().as_str());
        let key = TableScopedPath { table: Some(store_name), path: meta.location.clone() };
        let known = cache.as_ref().and_then(|cache| cache.get(&key));
        let (statistics, ordering) = match known {
            Some(known) if known.is_valid_for(meta, &self.fingerprint) => {
                (known.statistics, known.ordering)
            }
            _ => {
                let schema = self.file_schema.clone();
                let read = self.format.infer_stats_and_ordering(session, store, schema, meta);
                let read = match AssertUnwindSafe(read).catch_unwind().await {
                    Ok(read) => read.map_err(|error| self.of(meta, error))?,
                    Err(panic) => {
                        return Err(Error::of_panic(external::file_url(&self.url, meta), panic));
                    }
                };
                let statistics = Arc::new(read.statistics);
                if let Some(cache) = cache {
                    let entry = CachedFileMetadata::new(
                        meta.clone(),
                        self.fingerprint.clone(),
                        statistics.clone(),
                        read.ordering.clone(),
                    );
                    cache.put(&key, entry);
                }
                (statistics, read.ordering)
            }
        };
        Ok(self.mend_nulls(file.with_statistics(statistics)).with_ordering(ordering))
    }

    /// The engine takes every partition value for not null.
    fn mend_nulls(&self, mut file: PartitionedFile) -> PartitionedFile {
        if let Some(statistics) = &mut file.statistics
            && file.partition_values.iter().any(ScalarValue::is_null)
        {
            let statistics = Arc::make_mut(statistics);
            let rows = statistics.num_rows;
            let columns =
                statistics.column_statistics.iter_mut().skip(self.file_schema.fields.len());
            for (column, value) in columns.zip(&file.partition_values) {
                if value.is_null() {
                    *column =
                        ColumnStatistics { null_count: rows, ..ColumnStatistics::new_unknown() };
                }
            }
        }
        file
    }

    fn of(&self, file: &ObjectMeta, error: DataFusionError) -> Error {
        Error::of_file(external::file_url(&self.url, file), error)
    }
}

/// Decides from partition values alone whether a file can have rows that are wanted.
struct Pruner {
    schema: DFSchema,
    filter: Option<Arc<dyn datafusion::physical_plan::PhysicalExpr>>,
}

impl Pruner {
    fn new(partitions: &[Arc<Field>], filters: Vec<Expr>) -> Result<Self> {
        let schema = DFSchema::try_from(Schema::new(partitions.to_vec()))?;
        let filter = match conjunction(filters) {
            None => None,
            Some(filter) => {
                let properties = datafusion::logical_expr::execution_props::ExecutionProps::new();
                let context = Default::default();
                Some(datafusion::physical_expr::create_physical_expr(
                    &filter,
                    &schema,
                    &properties,
                    &context,
                )?)
            }
        };
        Ok(Self { schema, filter })
    }

    fn keeps(&self, values: &[ScalarValue]) -> Result<bool> {
        let Some(filter) = &self.filter else { return Ok(true) };
        let columns = values.iter().map(ScalarValue::to_array).collect::<Result<_>>()?;
        let row = RecordBatch::try_new(self.schema.inner().clone(), columns)?;
        let kept = filter.evaluate(&row)?.into_array(1)?;
        let kept = kept.as_boolean();
        Ok(kept.is_valid(0) && kept.value(0))
    }
}

/// Files enough for `limit` rows, if their numbers are known. Returns whether some were left out.
fn limited(files: Vec<PartitionedFile>, limit: Option<usize>) -> (Vec<PartitionedFile>, bool) {
    let Some(limit) = limit else { return (files, false) };
    let mut rows = 0usize;
    let total = files.len();
    let mut kept = Vec::new();
    for file in files {
        if rows > limit {
            break;
        }
        let known = file.statistics.as_ref().map(|statistics| statistics.num_rows);
        if let Some(Precision::Exact(count)) = known {
            rows = rows.saturating_add(count);
        }
        kept.push(file);
    }
    let left_out = kept.len() < total;
    (kept, left_out)
}

impl TableProvider for ExternalTable {
    fn schema(&self) -> SchemaRef {
        self.table_schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    // Not `async`, which would take the conditions along: for minutes the compiler would prove that they
    // may change threads.
    fn scan<'a, 'b, 'c, 'd, 'e>(
        &'a self,
        session: &'b dyn Session,
        projection: Option<&'c Vec<usize>>,
        filters: &'d [Expr],
        limit: Option<usize>,
    ) -> BoxFuture<'e, Result<Arc<dyn ExecutionPlan>>>
    where
        'a: 'e,
        'b: 'e,
        'c: 'e,
        'd: 'e,
        Self: 'e,
    {
        let limit_files = limit.filter(|_| filters.is_empty());
        let pruner = self.pruner(filters);
        Box::pin(self.scan_some(session, projection, pruner, (limit, limit_files)))
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        let names = self.partition_names();
        let exact = |filter: &&Expr| !names.is_empty() && expr_applicable_for_cols(&names, filter);
        Ok((filters.iter())
            .map(|filter| match exact(filter) {
                true => TableProviderFilterPushDown::Exact,
                false => TableProviderFilterPushDown::Inexact,
            })
            .collect())
    }
}

impl ExternalTable {
    /// `limit`: rows that are wanted, and those for which files are enough.
    async fn scan_some(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        pruner: super::Result<Pruner>,
        (limit, limit_files): (Option<usize>, Option<usize>),
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let store = session.runtime_env().object_store(&self.url)?;
        let pruner = pruner.map_err(failed)?;
        let files = self.files(session, &store, &pruner).await.map_err(failed)?;
        let (files, left_out) = limited(files, limit_files);
        if files.is_empty() {
            let schema = match projection {
                Some(columns) => Arc::new(self.table_schema.project(columns)?),
                None => self.table_schema.clone(),
            };
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let ordering = common_ordering(&files);
        let groups = FileGroup::new(files).split_files(session.config().target_partitions());
        let (groups, statistics) =
            compute_all_files_statistics(groups, self.schema(), true, left_out)?;
        let schema = TableSchemaBuilder::from(&self.file_schema)
            .with_table_partition_cols(self.partitions.clone())
            .build();
        let source = self.format.file_source(schema);
        let config = FileScanConfigBuilder::new(self.url.object_store(), source)
            .with_file_groups(groups)
            .with_statistics(statistics)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .with_output_ordering(ordering)
            .build();
        self.format.create_physical_plan(session, config).await
    }
}

fn failed(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// The order that all files say they are sorted in.
fn common_ordering(files: &[PartitionedFile]) -> Vec<datafusion::physical_expr::LexOrdering> {
    let Some(first) = files.first().and_then(|file| file.ordering.as_ref()) else {
        return Vec::new();
    };
    let mut common = first.len();
    for file in files {
        let Some(ordering) = &file.ordering else { return Vec::new() };
        common = first.iter().zip(ordering).take(common).take_while(|(a, b)| a == b).count();
    }
    let prefix = first.iter().take(common).cloned();
    datafusion::physical_expr::LexOrdering::new(prefix).into_iter().collect()
}

/// Whether a type can be read from a directory's name.
pub(super) fn is_partition_type(kind: &DataType) -> bool {
    !kind.is_nested() && !matches!(kind, DataType::Binary | DataType::LargeBinary)
}
