//! Scans of managed tables: which of a snapshot's files a statement needs, and what is known of
//! them without opening any.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, UInt64Array, new_null_array};
use arrow::compute::{cast, concat};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use chrono::DateTime;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::{Column, ColumnStatistics, DFSchema, ScalarValue, Statistics};
use datafusion::datasource::TableType;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_optimizer::pruning::{PruningPredicate, PruningPredicateBuilder};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion_datasource::TableSchemaBuilder;
use datafusion_functions_aggregate_common::min_max::{max_batch, min_batch};
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt, stream};
use iceberg::spec::{ManifestContentType, ManifestFile, SnapshotRef, TableMetadata};
use object_store::ObjectMeta;
use parquet::arrow::RowNumber;

use super::evolve::{ByFieldId, field_id};
use super::files::{self, TableFiles};
use super::listing::FileList;
use super::{commit, types};
use crate::catalog;
use crate::storage::{Error, Version};
use crate::values::types::with_json_of;

/// The column of a scan with row ids that says which file a row lies in: its place in
/// [`Scan::urls`].
pub const FILE_COLUMN: &str = "\u{2}file";

/// The column of a scan with row ids that says which row of its file it is, from 0.
pub const ROW_COLUMN: &str = "\u{2}pos";

/// Manifests read at once.
const CONCURRENT_READS: usize = 16;

/// Files for each of which statistics are made for the plan; with more only their sum is.
const DETAILED_FILES: usize = 1000;

/// One snapshot of a managed table as the engine sees it.
#[derive(Debug)]
pub struct ManagedTable {
    files: Arc<TableFiles>,
    metadata: Arc<TableMetadata>,
    snapshot: Option<SnapshotRef>,
    schema: SchemaRef,
    row_ids: bool,
    /// Only these files, by [`FILE_COLUMN`]; `None`: all.
    only: Option<HashSet<usize>>,
}

/// The files of a snapshot that may hold rows that are wanted.
#[derive(Debug)]
struct Selection {
    lists: Vec<Arc<FileList>>,
    /// By list: the places of its files.
    kept: Vec<Vec<usize>>,
}

/// Bytes that a table's metadata takes without what there may be many of, and those of one of these, about.
const METADATA: u64 = 8 << 10;
const ENTRY: u64 = 1 << 10;

impl ManagedTable {
    /// What it takes in memory, about.
    pub fn bytes(&self) -> u64 {
        let metadata = &self.metadata;
        let columns = metadata.schemas_iter().map(|schema| schema.as_struct().fields().len());
        let (snapshots, log) = (metadata.snapshots().len(), metadata.metadata_log().len());
        let entries = columns.sum::<usize>() + snapshots + metadata.history().len() + log;
        METADATA + ENTRY * entries as u64
    }

    pub fn new(
        files: Arc<TableFiles>,
        metadata: Arc<TableMetadata>,
    ) -> crate::storage::Result<Self> {
        let schema = scan_schema(metadata.current_schema())?;
        let snapshot = metadata.current_snapshot().cloned();
        Ok(Self { files, metadata, snapshot, schema, row_ids: false, only: None })
    }

    /// The table as it was at one of its snapshots, with the columns that it had then.
    pub fn at(
        files: Arc<TableFiles>,
        metadata: Arc<TableMetadata>,
        snapshot: SnapshotRef,
    ) -> crate::storage::Result<Self> {
        let invalid = |error| files::damaged(metadata.location(), error);
        let schema = scan_schema(snapshot.schema(&metadata).map_err(invalid)?.as_ref())?;
        Ok(Self { files, metadata, snapshot: Some(snapshot), schema, row_ids: false, only: None })
    }

    /// The same with its columns JSON where the catalog knows that they are.
    pub fn declared_as(mut self, columns: &[catalog::Column]) -> Self {
        let declared: Vec<Field> = columns.iter().map(catalog::Column::field).collect();
        let fields = self.schema.fields().iter().map(|field| {
            let id = field_id(field);
            let same = declared.iter().find(|other| id.is_some() && field_id(other) == id);
            match same {
                Some(same) => with_json_of(field.as_ref().clone(), same),
                None => field.as_ref().clone(),
            }
        });
        self.schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        self
    }

    /// The same with [`FILE_COLUMN`] and [`ROW_COLUMN`] at the end, by which rows are found again.
    pub fn with_row_ids(mut self) -> Self {
        let mut fields = self.schema.fields().to_vec();
        fields.extend([file_field(), row_field()]);
        self.schema = Arc::new(Schema::new(fields));
        self.row_ids = true;
        self
    }

    /// The same with some of its files only, by their place in [`live_files`].
    pub fn only(mut self, files: HashSet<usize>) -> Self {
        self.only = Some(files);
        self
    }

    /// Which rows these are; `None` if they are not all of the table's.
    pub fn version(&self) -> Option<Version> {
        if self.row_ids || self.only.is_some() {
            return None;
        }
        Some(Version {
            table: self.metadata.uuid(),
            snapshot: self.snapshot.as_ref().map(|snapshot| snapshot.snapshot_id()),
            schema: self.schema.clone(),
            updated: self.metadata.last_updated_ms(),
        })
    }

    /// The files in which a key may lie: all of them, if they are not more than `few`. `None` if keys are
    /// not looked for in this table.
    pub async fn files_with(
        &self,
        session: &dyn Session,
        key: usize,
        value: &ScalarValue,
        few: usize,
    ) -> Result<Option<(ObjectStoreUrl, Vec<ObjectMeta>)>> {
        if self.row_ids || self.only.is_some() {
            return Ok(None);
        }
        let mut selection = self.select(None).await?;
        if selection.kept.iter().map(Vec::len).sum::<usize>() > few {
            let column = Column::new_unqualified(self.schema.field(key).name());
            let condition = Expr::Column(column).eq(Expr::Literal(value.clone(), None));
            selection = self.select(self.predicate(session, &[condition])?).await?;
        }
        let store = files::store_url(self.metadata.location()).map_err(external)?;
        let kept = selection.lists.iter().zip(&selection.kept);
        let files = kept.flat_map(|(list, kept)| kept.iter().map(|at| meta_of(list, *at)));
        Ok(Some((store, files.collect())))
    }

    /// Columns of the files, without those that the scan itself adds.
    fn file_schema(&self) -> SchemaRef {
        let columns = self.schema.fields().len() - if self.row_ids { 2 } else { 0 };
        Arc::new(Schema::new(self.schema.fields()[..columns].to_vec()))
    }

    /// What files are left out by.
    fn predicate(
        &self,
        session: &dyn Session,
        filters: &[Expr],
    ) -> Result<Option<PruningPredicate>> {
        let conditions = filters.iter().filter(|filter| self.prunes(filter)).cloned();
        let Some(filter) = conjunction(conditions) else { return Ok(None) };
        let schema = self.file_schema();
        let schema_of = DFSchema::try_from(schema.as_ref().clone())?;
        let filter = session.create_physical_expr(filter, &schema_of)?;
        Ok(PruningPredicateBuilder::new().with_file_schema(schema).try_build(filter).ok())
    }

    async fn select(&self, predicate: Option<PruningPredicate>) -> Result<Selection> {
        let lists = files_of(&self.files, &self.metadata, self.snapshot.as_ref()).await;
        let lists = lists.map_err(external)?;
        let schema = self.file_schema();
        let mut kept = Vec::new();
        let mut before = 0;
        for list in &lists {
            let keep = match &predicate {
                Some(predicate) => predicate.prune(&Bounds { list, schema: &schema })?,
                None => vec![true; list.len()],
            };
            let wanted = |at: &usize| self.only.as_ref().is_none_or(|only| only.contains(at));
            kept.push((0..list.len()).filter(|at| keep[*at] && wanted(&(before + at))).collect());
            before += list.len();
        }
        Ok(Selection { lists, kept })
    }

    /// Whether a condition is on columns of the files alone.
    fn prunes(&self, filter: &Expr) -> bool {
        !filter.is_volatile()
            && filter.column_refs().iter().all(|column| !column.name.starts_with('\u{2}'))
    }
}

/// A table's columns as queries see them: strings and bytes as views, which the engine is quickest
/// with.
pub fn scan_schema(schema: &iceberg::spec::Schema) -> crate::storage::Result<SchemaRef> {
    let stored = types::arrow_schema(schema)?;
    let fields = stored.fields().iter().map(|field| {
        let viewed = match field.data_type() {
            DataType::Utf8 => DataType::Utf8View,
            DataType::Binary => DataType::BinaryView,
            other => without_marks(other),
        };
        field.as_ref().clone().with_data_type(viewed)
    });
    Ok(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
}

/// A nested type without the ids of its fields: these are found by name.
fn without_marks(kind: &DataType) -> DataType {
    let plain = |field: &FieldRef| {
        let plain = Field::new(field.name(), without_marks(field.data_type()), field.is_nullable());
        Arc::new(plain)
    };
    match kind {
        DataType::List(element) => DataType::List(plain(element)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(plain).collect()),
        DataType::Map(entries, sorted) => DataType::Map(plain(entries), *sorted),
        other => other.clone(),
    }
}

/// The files of a table's current snapshot, by manifest.
pub async fn live_files(
    files: &TableFiles,
    metadata: &TableMetadata,
) -> crate::storage::Result<Vec<Arc<FileList>>> {
    files_of(files, metadata, metadata.current_snapshot()).await
}

/// The files of one of a table's snapshots, by manifest.
async fn files_of(
    files: &TableFiles,
    metadata: &TableMetadata,
    snapshot: Option<&SnapshotRef>,
) -> crate::storage::Result<Vec<Arc<FileList>>> {
    let manifests = commit::manifests_of(files, metadata, snapshot).await?;
    let live =
        |manifest: &ManifestFile| manifest.has_added_files() || manifest.has_existing_files();
    if manifests.iter().any(|m| m.content == ManifestContentType::Deletes && live(m)) {
        let what = format!("{}: row-level deletes", metadata.location());
        return Err(Error::Unsupported { what });
    }
    stream::iter(manifests.into_iter().filter(live))
        .map(|manifest| async move { files.listing(&manifest.manifest_path).await })
        .buffered(CONCURRENT_READS)
        .try_collect()
        .await
}

fn file_field() -> FieldRef {
    Arc::new(Field::new(FILE_COLUMN, DataType::Int64, false))
}

fn row_field() -> FieldRef {
    Arc::new(Field::new(ROW_COLUMN, DataType::Int64, false).with_extension_type(RowNumber))
}

impl TableProvider for ManagedTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
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
        let predicate = self.predicate(session, filters);
        let limit_files = limit.filter(|_| filters.is_empty());
        Box::pin(self.scan_some(session, projection, predicate, (limit, limit_files)))
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }
}

impl ManagedTable {
    /// `limit`: rows that are wanted, and those for which files are enough.
    async fn scan_some(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        predicate: Result<Option<PruningPredicate>>,
        (limit, limit_files): (Option<usize>, Option<usize>),
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let selection = self.select(predicate?).await?;
        let file_schema = self.file_schema();
        let files = selection.files(&file_schema, self.row_ids, limit_files);
        if files.is_empty() {
            let schema = match projection {
                Some(columns) => Arc::new(self.schema.project(columns)?),
                None => self.schema.clone(),
            };
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let store = files::store_url(self.metadata.location()).map_err(external)?;
        let statistics = selection.statistics(&self.schema);
        let groups = FileGroup::new(files).split_files(session.config().target_partitions());
        let mut schema = TableSchemaBuilder::from(&file_schema);
        if self.row_ids {
            schema = schema
                .with_table_partition_cols(vec![file_field()])
                .with_virtual_columns(vec![row_field()]);
        }
        let options = session.table_options().parquet.clone();
        let format = ParquetFormat::default().with_options(options);
        let source = format.file_source(schema.build());
        let config = FileScanConfigBuilder::new(store, source)
            .with_file_groups(groups)
            .with_statistics(statistics)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .with_expr_adapter(Some(Arc::new(ByFieldId)))
            .build();
        format.create_physical_plan(session, config).await
    }
}

impl Selection {
    /// The files as the scan takes them; with a limit as many as have that many rows.
    fn files(&self, schema: &Schema, row_ids: bool, limit: Option<usize>) -> Vec<PartitionedFile> {
        let detailed = self.kept.iter().map(Vec::len).sum::<usize>() <= DETAILED_FILES;
        let mut files = Vec::new();
        let (mut rows, mut before) = (0u64, 0usize);
        for (list, kept) in self.lists.iter().zip(&self.kept) {
            for at in kept {
                if limit.is_some_and(|limit| rows > limit as u64) {
                    return files;
                }
                rows += list.rows.value(*at);
                files.push(file_of(list, *at, schema, row_ids.then_some(before + at), detailed));
            }
            before += list.len();
        }
        files
    }

    /// What is known of all selected files together.
    fn statistics(&self, schema: &Schema) -> Statistics {
        let parts: Vec<_> = self.lists.iter().zip(&self.kept).collect();
        let sum = |counts: &dyn Fn(&FileList) -> Option<UInt64Array>| -> Option<u64> {
            let mut total = 0u64;
            for (list, kept) in &parts {
                let counts = counts(list)?;
                for at in kept.iter() {
                    total += counts.is_valid(*at).then(|| counts.value(*at))?;
                }
            }
            Some(total)
        };
        let exact = |total: Option<u64>| match total {
            Some(total) => Precision::Exact(total as usize),
            None => Precision::Absent,
        };
        let rows = sum(&|list| Some(list.rows.clone()));
        let column = |field: &FieldRef| {
            let Some(id) = field_id(field) else { return ColumnStatistics::new_unknown() };
            let bound = |upper: bool| {
                let bound = self.bound(id, field.data_type(), upper);
                bound.map_or(Precision::Absent, Precision::Inexact)
            };
            let bytes = sum(&|list| list.columns.get(&id).map(|column| column.sizes.clone()));
            ColumnStatistics {
                null_count: exact(sum(&|list| {
                    list.columns.get(&id).map(|column| column.nulls.clone())
                })),
                max_value: bound(true),
                min_value: bound(false),
                sum_value: Precision::Absent,
                distinct_count: Precision::Absent,
                byte_size: bytes.map_or(Precision::Absent, |b| Precision::Inexact(b as usize)),
            }
        };
        let bytes: u64 =
            (parts.iter()).flat_map(|(list, kept)| kept.iter().map(|at| list.sizes[*at])).sum();
        Statistics {
            num_rows: exact(rows),
            total_byte_size: Precision::Inexact(bytes as usize),
            column_statistics: schema.fields().iter().map(column).collect(),
        }
    }

    fn bound(&self, id: i32, kind: &DataType, upper: bool) -> Option<ScalarValue> {
        let mut all = Vec::new();
        for (list, kept) in self.lists.iter().zip(&self.kept) {
            if kept.is_empty() {
                continue;
            }
            let column = list.columns.get(&id)?;
            let bound = if upper { column.upper.as_ref() } else { column.lower.as_ref() }?;
            let places = UInt64Array::from_iter_values(kept.iter().map(|at| *at as u64));
            all.push(cast(&arrow::compute::take(bound, &places, None).ok()?, kind).ok()?);
        }
        let all: Vec<&dyn Array> = all.iter().map(|array| array.as_ref()).collect();
        let all = concat(&all).ok()?;
        let bound = if upper { max_batch(&all) } else { min_batch(&all) };
        bound.ok().filter(|bound| !bound.is_null())
    }
}

/// A file by which caches know it. That it never changes shows in its time of change.
fn meta_of(list: &FileList, at: usize) -> ObjectMeta {
    ObjectMeta {
        location: list.paths[at].clone(),
        last_modified: DateTime::UNIX_EPOCH,
        size: list.sizes[at],
        e_tag: None,
        version: None,
    }
}

/// A file as scans take it.
fn file_of(
    list: &FileList,
    at: usize,
    schema: &Schema,
    id: Option<usize>,
    detailed: bool,
) -> PartitionedFile {
    let mut file = PartitionedFile::new_from_meta(meta_of(list, at));
    if let Some(id) = id {
        file = file.with_partition_values(vec![ScalarValue::Int64(Some(id as i64))]);
    }
    if !detailed {
        return file;
    }
    let column = |field: &FieldRef| {
        let known = field_id(field).and_then(|id| list.columns.get(&id));
        let Some(known) = known else { return ColumnStatistics::new_unknown() };
        let value = |bound: &Option<ArrayRef>| {
            let bound = cast(&bound.as_ref()?.slice(at, 1), field.data_type()).ok()?;
            let value = ScalarValue::try_from_array(&bound, 0).ok()?;
            (!value.is_null()).then_some(Precision::Inexact(value))
        };
        let nulls = known.nulls.is_valid(at).then(|| known.nulls.value(at) as usize);
        ColumnStatistics {
            null_count: nulls.map_or(Precision::Absent, Precision::Exact),
            max_value: value(&known.upper).unwrap_or(Precision::Absent),
            min_value: value(&known.lower).unwrap_or(Precision::Absent),
            ..ColumnStatistics::new_unknown()
        }
    };
    let statistics = Statistics {
        num_rows: Precision::Exact(list.rows.value(at) as usize),
        total_byte_size: Precision::Inexact(list.sizes[at] as usize),
        column_statistics: schema.fields().iter().map(column).collect(),
    };
    file.with_statistics(Arc::new(statistics))
}

/// What a manifest says of its files, for leaving some out.
struct Bounds<'a> {
    list: &'a FileList,
    schema: &'a Schema,
}

impl Bounds<'_> {
    fn bounds(&self, column: &Column, upper: bool) -> Option<ArrayRef> {
        let field = self.schema.field_with_name(&column.name).ok()?;
        let known = self.list.columns.get(&field_id(field)?)?;
        let bound = if upper { known.upper.as_ref() } else { known.lower.as_ref() };
        match bound {
            Some(bound) => cast(bound, field.data_type()).ok(),
            None => Some(new_null_array(field.data_type(), self.list.len())),
        }
    }
}

impl PruningStatistics for Bounds<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, false)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, true)
    }

    fn num_containers(&self) -> usize {
        self.list.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let field = self.schema.field_with_name(&column.name).ok()?;
        let known = self.list.columns.get(&field_id(field)?)?;
        Some(Arc::new(known.nulls.clone()))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(self.list.rows.clone()))
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}

fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// Rows of files by number, gathered from a scan with row ids.
#[derive(Debug, Default)]
pub struct RowIds {
    by_file: HashMap<usize, roaring::RoaringTreemap>,
}

impl RowIds {
    /// Takes up a batch of the two columns; says which of its rows are new.
    pub fn add(&mut self, files: &Int64Array, rows: &Int64Array) -> BooleanArray {
        let new = files.values().iter().zip(rows.values()).map(|(file, row)| {
            let file = usize::try_from(*file).unwrap_or(usize::MAX);
            Some(
                self.by_file
                    .entry(file)
                    .or_default()
                    .insert(u64::try_from(*row).unwrap_or(u64::MAX)),
            )
        });
        new.collect()
    }

    pub fn contains(&self, file: i64, row: i64) -> bool {
        let (Ok(file), Ok(row)) = (usize::try_from(file), u64::try_from(row)) else { return false };
        self.by_file.get(&file).is_some_and(|rows| rows.contains(row))
    }

    pub fn len(&self) -> u64 {
        self.by_file.values().map(roaring::RoaringTreemap::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.by_file.is_empty()
    }

    pub fn files(&self) -> impl Iterator<Item = (usize, &roaring::RoaringTreemap)> {
        self.by_file.iter().map(|(file, rows)| (*file, rows))
    }
}
