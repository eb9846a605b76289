//! Scans of external tables: which files there are now, which of them a statement needs, and what
//! is known of their contents.
//!
//! Each statement lists the files anew, so it sees what is there. What is known of them comes from
//! [`folders`](super::folders), or, file by file, from caches of footers, page indexes and statistics; all
//! are checked against each file's size and time of change.
//! DataFusion's own listing table does nearly the same, but knows no NULL in a partition column and
//! does not say which file it failed on.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::{Array, BooleanArray, RecordBatch, new_empty_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::cast::as_boolean_array;
use datafusion::common::pruning::PrunableStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, DFSchema, ScalarValue, TableReference};
use datafusion::datasource::TableType;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::file_format::{FileFormat, FileMeta};
use datafusion::datasource::listing::helpers::expr_applicable_for_cols;
use datafusion::datasource::listing::{ListingTableUrl, PartitionedFile};
use datafusion::datasource::physical_plan::FileScanConfigBuilder;
use datafusion::datasource::physical_plan::parquet::metadata::{
    DFParquetMetadata, ordering_from_parquet_metadata,
};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::cache::cache_manager::CachedFileMetadata;
use datafusion::execution::cache::{SchemaFingerprint, TableScopedPath};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_optimizer::pruning::{PruningPredicate, PruningPredicateBuilder};
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};
use datafusion_datasource::TableSchemaBuilder;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::{ObjectMeta, ObjectStore};
use percent_encoding::percent_decode_str;

use super::external::lacks_bytes;
use super::folders::{Folder, Key};
use super::guard::Footers;
use super::json::Json;
use super::{Error, Folders, Listing, Location, external, nan};
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
    store: ObjectStoreUrl,
    format: Arc<dyn FileFormat>,
    file_extension: String,
    /// Columns in the files.
    file_schema: SchemaRef,
    /// Columns in the directories' names, outermost first.
    partitions: Vec<Arc<Field>>,
    table_schema: SchemaRef,
    /// Tells statistics of this schema from those of another in the cache.
    fingerprint: Arc<SchemaFingerprint>,
    key: Key,
    reading: Arc<str>,
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
        let definition = Arc::new(definition);
        let url = location.url()?;
        Ok(Self {
            store: url.object_store(),
            url,
            reading: format!("{definition:?}").into(),
            key: Key { definition: definition.clone(), columns: table_schema.fields().clone() },
            definition,
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
        let listed = external::list(session, &self.location, &self.url).await;
        if !matches!(&listed, Ok(files) if !files.is_empty()) {
            self.location.check_exists().await?;
        }
        listed
    }

    /// Whether keys are looked for in this table.
    pub fn is_keyed(&self) -> bool {
        self.format.is::<ParquetFormat>() && self.partitions.is_empty()
    }

    /// What its files are read as: files of one store are read alike by tables of one definition.
    pub fn reading(&self) -> Arc<str> {
        self.reading.clone()
    }

    /// The files that a look for a key would read.
    pub async fn keyed_files(
        &self,
        session: &dyn Session,
    ) -> Result<(ObjectStoreUrl, Vec<ObjectMeta>)> {
        let files = match &self.pinned {
            Some(files) => files.clone(),
            None => Arc::new(self.list(session).await.map_err(failed)?),
        };
        Ok((self.store.clone(), self.own(&files).cloned().collect()))
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

    /// The files that there are, and the places of those that a statement has to look at; these have
    /// statistics.
    async fn files(
        &self,
        session: &dyn Session,
        store: &Arc<dyn ObjectStore>,
        Pruning { by_partition, by_statistics }: &Pruning,
    ) -> super::Result<(Arc<Folder>, Vec<usize>)> {
        let listed = match &self.pinned {
            Some(files) => files.clone(),
            None => Arc::new(self.list(session).await?),
        };
        let folders = session.config().get_extension::<Folders>();
        let known = folders.as_ref().and_then(|folders| folders.get(&self.key));
        let (mut folder, mut changed) = match known {
            Some(known) if known.is_of(self.own(&listed)) => (known, false),
            known => (Arc::new(Folder::new(self.found(&listed, known.as_deref())?)), true),
        };
        let kept = by_partition.kept(&folder.files);
        let kept = kept.map_err(|(file, error)| self.of(&file.object_meta, error))?;
        let unknown: Vec<usize> =
            kept.iter().copied().filter(|at| folder.files[*at].statistics.is_none()).collect();
        if !unknown.is_empty() {
            let mut files = folder.files.clone();
            let concurrency = session.config_options().execution.meta_fetch_concurrency.get();
            let mut read = stream::iter(unknown)
                .map(|at| {
                    let file = folder.files[at].clone();
                    async move {
                        self.with_statistics(session, store, file).await.map(|file| (at, file))
                    }
                })
                .buffered(concurrency);
            while let Some((at, file)) = read.try_next().await? {
                files[at] = file;
            }
            drop(read);
            (folder, changed) = (Arc::new(Folder::new(files)), true);
        }
        match &folders {
            Some(folders) if changed => folders.put(self.key.clone(), folder.clone()),
            Some(folders) => folders.hit(),
            None => {}
        }
        let kept = match by_statistics {
            Some(predicate) => self.wanted(predicate, &folder, kept),
            None => kept,
        };
        Ok((folder, kept))
    }

    /// Files that belong to the table.
    fn own<'a>(&self, listed: &'a [ObjectMeta]) -> impl Iterator<Item = &'a ObjectMeta> {
        let format = self.definition.format;
        listed.iter().filter(move |file| {
            file.location.as_ref().ends_with(&self.file_extension)
                && (file.size > 0 || lacks_bytes(&self.location, format, &self.file_extension))
        })
    }

    /// Files as they were found, with what is known of those that have not changed. Both are in the order of
    /// their paths.
    fn found(
        &self,
        listed: &[ObjectMeta],
        before: Option<&Folder>,
    ) -> super::Result<Vec<PartitionedFile>> {
        let mut before = before.map_or(&[][..], |folder| &folder.files).iter().peekable();
        let found = self.own(listed).map(|file| {
            while before.next_if(|known| known.object_meta.location < file.location).is_some() {}
            match before.peek() {
                Some(known) if known.object_meta == *file => Ok((*known).clone()),
                _ => {
                    let values = self.partition_values(file)?;
                    Ok(PartitionedFile::new_from_meta(file.clone()).with_partition_values(values))
                }
            }
        });
        found.collect()
    }

    /// Of some files those whose statistics do not tell that no row of them is wanted.
    fn wanted(
        &self,
        predicate: &PruningPredicate,
        folder: &Folder,
        places: Vec<usize>,
    ) -> Vec<usize> {
        // Of a single one its reader finds out as well.
        if places.len() < 2 {
            return places;
        }
        let known: Option<Vec<_>> =
            places.iter().map(|at| folder.files[*at].statistics.clone()).collect();
        let Some(known) = known else { return places };
        let known = PrunableStatistics::new(known, self.file_schema.clone());
        // What cannot be decided here is decided row by row.
        let Ok(wanted) = predicate.prune(&known) else { return places };
        places.into_iter().zip(wanted).filter_map(|(at, wanted)| wanted.then_some(at)).collect()
    }

    /// What files are left out by.
    fn pruning(&self, session: &dyn Session, filters: &[Expr]) -> super::Result<Pruning> {
        let names = self.partition_names();
        let of_partitions =
            |filter: &&Expr| !names.is_empty() && expr_applicable_for_cols(&names, filter);
        let conditions = filters.iter().filter(of_partitions).cloned().collect();
        let by_partition = Pruner::new(&self.partitions, conditions)
            .map_err(|error| Error::of_file(self.location.as_str(), error))?;
        Ok(Pruning { by_partition, by_statistics: self.predicate(session, filters) })
    }

    /// What the statistics of files are held against: the conditions on their own columns alone.
    fn predicate(&self, session: &dyn Session, filters: &[Expr]) -> Option<PruningPredicate> {
        let of_files = |filter: &&Expr| {
            let mut columns = filter.column_refs().into_iter();
            !filter.is_volatile()
                && columns.all(|column| self.file_schema.field_with_name(&column.name).is_ok())
        };
        let filter = conjunction(filters.iter().filter(of_files).cloned())?;
        let schema = DFSchema::try_from(self.file_schema.as_ref().clone()).ok()?;
        let filter = session.create_physical_expr(filter, &schema).ok()?;
        let schema = self.file_schema.clone();
        PruningPredicateBuilder::new().with_file_schema(schema).try_build(filter).ok()
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
        let store_name = TableReference::bare(self.store.as_str());
        let key = TableScopedPath { table: Some(store_name), path: meta.location.clone() };
        let known = cache.as_ref().and_then(|cache| cache.get(&key));
        let (statistics, ordering) = match known {
            Some(known) if known.is_valid_for(meta, &self.fingerprint) => {
                (known.statistics, known.ordering)
            }
            _ => {
                let read = self.read_statistics(session, store, meta);
                let read = match AssertUnwindSafe(read).catch_unwind().await {
                    Ok(read) => read.map_err(|error| self.of(meta, error))?,
                    Err(panic) => {
                        return Err(Error::of_panic(external::file_url(&self.url, meta), panic));
                    }
                };
                let mut statistics = read.statistics;
                nan::forget_greatest(&mut statistics, &self.file_schema);
                let statistics = Arc::new(statistics);
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

    async fn read_statistics(
        &self,
        session: &dyn Session,
        store: &Arc<dyn ObjectStore>,
        file: &ObjectMeta,
    ) -> Result<FileMeta> {
        let schema = self.file_schema.clone();
        let Some(format) = self.format.downcast_ref::<ParquetFormat>() else {
            return self.format.infer_stats_and_ordering(session, store, schema, file).await;
        };
        let footers = Footers::new(store.clone(), session.runtime_env());
        let hint = format.options().global.metadata_size_hint;
        let metadata = footers.with_hint(hint).read(file).await?;
        let statistics = DFParquetMetadata::statistics_from_parquet_metadata(&metadata, &schema)?;
        let ordering = ordering_from_parquet_metadata(&metadata, &schema)?;
        Ok(FileMeta::new(statistics).with_ordering(ordering))
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

/// What files are left out by.
struct Pruning {
    by_partition: Pruner,
    by_statistics: Option<PruningPredicate>,
}

/// Decides from partition values alone whether a file can have rows that are wanted.
struct Pruner {
    schema: DFSchema,
    filter: Option<Arc<dyn PhysicalExpr>>,
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

    /// The places of the files that can have such rows, or the file for which that cannot be told.
    fn kept<'a>(
        &self,
        files: &'a [PartitionedFile],
    ) -> std::result::Result<Vec<usize>, (&'a PartitionedFile, DataFusionError)> {
        let Some(filter) = &self.filter else { return Ok((0..files.len()).collect()) };
        let found = match self.keeps(filter, files) {
            Ok(found) => found,
            // One of them is the reason.
            Err(_) => {
                let each = files.iter().map(|file| {
                    let found = self.keeps(filter, std::slice::from_ref(file));
                    found.map(|found| is_true(&found, 0)).map_err(|error| (file, error))
                });
                BooleanArray::from(each.collect::<std::result::Result<Vec<_>, _>>()?)
            }
        };
        Ok((0..files.len()).filter(|at| is_true(&found, *at)).collect())
    }

    fn keeps(
        &self,
        filter: &Arc<dyn PhysicalExpr>,
        files: &[PartitionedFile],
    ) -> Result<BooleanArray> {
        let columns =
            (self.schema.fields().iter().enumerate()).map(|(at, field)| match files.is_empty() {
                true => Ok(new_empty_array(field.data_type())),
                false => ScalarValue::iter_to_array(
                    files.iter().map(|file| file.partition_values[at].clone()),
                ),
            });
        let rows = RecordBatch::try_new(
            self.schema.inner().clone(),
            columns.collect::<Result<Vec<_>>>()?,
        )?;
        let kept = filter.evaluate(&rows)?.into_array(files.len())?;
        Ok(as_boolean_array(&kept)?.clone())
    }
}

fn is_true(found: &BooleanArray, at: usize) -> bool {
    found.is_valid(at) && found.value(at)
}

/// How many of the files are enough for `limit` rows, if their numbers are known.
fn enough(folder: &Folder, places: &[usize], limit: usize) -> usize {
    let mut rows = 0usize;
    let few = places.iter().take_while(|at| {
        let before = rows;
        let known = folder.files[**at].statistics.as_ref().map(|statistics| statistics.num_rows);
        if let Some(Precision::Exact(count)) = known {
            rows = rows.saturating_add(count);
        }
        before <= limit
    });
    few.count()
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
        let pruning = self.pruning(session, filters);
        Box::pin(self.scan_some(session, projection, pruning, (limit, limit_files)))
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
        pruning: super::Result<Pruning>,
        (limit, limit_files): (Option<usize>, Option<usize>),
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let store = session.runtime_env().object_store(&self.url)?;
        let pruning = pruning.map_err(failed)?;
        let (folder, mut places) = self.files(session, &store, &pruning).await.map_err(failed)?;
        let all = places.len();
        if let Some(limit) = limit_files {
            places.truncate(enough(&folder, &places, limit));
        }
        if places.is_empty() {
            let schema = match projection {
                Some(columns) => Arc::new(self.table_schema.project(columns)?),
                None => self.table_schema.clone(),
            };
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let ordering = common_ordering(places.iter().map(|at| &folder.files[*at]));
        let partitions = session.config().target_partitions();
        let left_out = places.len() < all;
        let (groups, statistics) =
            folder.groups(&places, partitions, &self.table_schema, left_out)?;
        let schema = TableSchemaBuilder::from(&self.file_schema)
            .with_table_partition_cols(self.partitions.clone())
            .build();
        let mut source = self.format.file_source(schema);
        if let Some(format) = self.format.downcast_ref::<JsonFormat>() {
            source = Arc::new(Json::new(source, format.options()));
        }
        let config = FileScanConfigBuilder::new(self.store.clone(), source)
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
fn common_ordering<'a>(
    mut files: impl Iterator<Item = &'a PartitionedFile>,
) -> Vec<datafusion::physical_expr::LexOrdering> {
    let Some(first) = files.next().and_then(|file| file.ordering.as_ref()) else {
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
