//! What is known of a table beside its rows, as tables: snapshots, files and so on, under the names
//! and with the columns that Trino has for them (`"t$snapshots"`).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryViewBuilder, BooleanArray, BooleanBuilder, Int32Array, Int32Builder,
    Int64Array, Int64Builder, ListArray, ListBuilder, MapBuilder, MapFieldNames, RecordBatch,
    StringArray, StringBuilder, StructArray, TimestampMicrosecondArray, new_empty_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::datasource::TableType;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::{DataFusionError, Result as EngineResult};
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use iceberg::spec::{
    DataFile, Datum, FieldSummary, Literal, ManifestFile, NestedFieldRef, PrimitiveLiteral,
    PrimitiveType, Struct, TableMetadata, Transform, Type,
};

use super::commit::manifests;
use super::expire::references;
use super::files::{TableFiles, damaged};
use super::listing::scalar_of;
use super::transforms::human;
use super::types::arrow_field;
use crate::storage::{Error, Result};

/// What stands between a table's name and that of what is known of it.
const SEPARATOR: char = '$';

/// One of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aspect {
    Snapshots,
    History,
    Files,
    Partitions,
    Manifests,
    References,
}

/// What is known of a table, as a table.
#[derive(Debug)]
pub struct Inspection {
    files: Arc<TableFiles>,
    metadata: Arc<TableMetadata>,
    aspect: Aspect,
    partitioning: Partitioning,
    schema: SchemaRef,
}

/// What a partition's live files hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionFigures {
    /// Empty for a table without partitions.
    pub name: String,
    pub rows: u64,
    pub files: u64,
    pub bytes: u64,
}

/// All partition fields that the table ever had, by the specification's rule: known by their ids.
#[derive(Debug)]
struct Partitioning {
    fields: Vec<NestedFieldRef>,
    /// By partition specification: its fields with their transforms, and where they are in `fields`.
    specs: HashMap<i32, Vec<(usize, Transform)>>,
}

impl Aspect {
    /// Reads `table$aspect`.
    pub fn of(name: &str) -> Option<(&str, Self)> {
        let (table, aspect) = name.rsplit_once(SEPARATOR)?;
        let aspect = match aspect {
            "snapshots" => Self::Snapshots,
            "history" => Self::History,
            "files" => Self::Files,
            "partitions" => Self::Partitions,
            "manifests" => Self::Manifests,
            "refs" => Self::References,
            _ => return None,
        };
        (!table.is_empty()).then_some((table, aspect))
    }
}

impl Inspection {
    pub fn new(
        files: Arc<TableFiles>,
        metadata: Arc<TableMetadata>,
        aspect: Aspect,
    ) -> Result<Self> {
        let partitioning = Partitioning::of(&metadata)?;
        let schema = Arc::new(Schema::new(columns(aspect, &partitioning)?));
        Ok(Self { files, metadata, aspect, partitioning, schema })
    }

    async fn rows(&self) -> Result<RecordBatch> {
        let columns = match self.aspect {
            Aspect::Snapshots => self.snapshots(),
            Aspect::History => self.history(),
            Aspect::References => self.references()?,
            Aspect::Manifests => self.manifests().await?,
            Aspect::Files => self.data_files().await?,
            Aspect::Partitions => self.partitions().await?,
        };
        RecordBatch::try_new(self.schema.clone(), columns).map_err(|error| self.unexpected(error))
    }

    fn unexpected(&self, error: arrow::error::ArrowError) -> Error {
        damaged(self.metadata.location(), error)
    }

    fn snapshots(&self) -> Vec<ArrayRef> {
        let mut all: Vec<_> = self.metadata.snapshots().collect();
        all.sort_by_key(|snapshot| (snapshot.timestamp_ms(), snapshot.sequence_number()));
        let mut summaries = texts_by_text();
        for snapshot in &all {
            let figures: BTreeMap<_, _> = snapshot.summary().additional_properties.iter().collect();
            for (name, value) in figures {
                summaries.keys().append_value(name);
                summaries.values().append_value(value);
            }
            // The builder only refuses keys and values that differ in number.
            let _ = summaries.append(true);
        }
        let operation = |snapshot: &&iceberg::spec::SnapshotRef| {
            snapshot.summary().operation.as_str().to_owned()
        };
        vec![
            times(all.iter().map(|snapshot| snapshot.timestamp_ms())),
            Arc::new(Int64Array::from_iter_values(all.iter().map(|s| s.snapshot_id()))),
            Arc::new(all.iter().map(|s| s.parent_snapshot_id()).collect::<Int64Array>()),
            Arc::new(StringArray::from_iter_values(all.iter().map(operation))),
            Arc::new(StringArray::from_iter_values(all.iter().map(|s| s.manifest_list()))),
            Arc::new(summaries.finish()),
        ]
    }

    fn history(&self) -> Vec<ArrayRef> {
        let mut ancestors = HashSet::new();
        let mut next = self.metadata.current_snapshot();
        while let Some(snapshot) = next.filter(|s| ancestors.insert(s.snapshot_id())) {
            next = snapshot.parent_snapshot_id().and_then(|id| self.metadata.snapshot_by_id(id));
        }
        let log = self.metadata.history();
        let parent = |id| self.metadata.snapshot_by_id(id)?.parent_snapshot_id();
        let is_ancestor = log.iter().map(|entry| Some(ancestors.contains(&entry.snapshot_id)));
        vec![
            times(log.iter().map(|entry| entry.timestamp_ms)),
            Arc::new(Int64Array::from_iter_values(log.iter().map(|entry| entry.snapshot_id))),
            Arc::new(log.iter().map(|entry| parent(entry.snapshot_id)).collect::<Int64Array>()),
            Arc::new(is_ancestor.collect::<BooleanArray>()),
        ]
    }

    fn references(&self) -> Result<Vec<ArrayRef>> {
        let all = references(&self.metadata)?.refs;
        let kinds = all.values().map(|reference| reference.kind.to_uppercase());
        let kept = all.values().map(|reference| {
            reference.min_snapshots_to_keep.and_then(|count| i32::try_from(count).ok())
        });
        Ok(vec![
            Arc::new(StringArray::from_iter_values(all.keys())),
            Arc::new(StringArray::from_iter_values(kinds)),
            Arc::new(Int64Array::from_iter_values(all.values().map(|r| r.snapshot_id))),
            Arc::new(all.values().map(|r| r.max_ref_age_ms).collect::<Int64Array>()),
            Arc::new(kept.collect::<Int32Array>()),
            Arc::new(all.values().map(|r| r.max_snapshot_age_ms).collect::<Int64Array>()),
        ])
    }

    async fn manifests(&self) -> Result<Vec<ArrayRef>> {
        let all = manifests(&self.files, &self.metadata).await?;
        let count = |of: fn(&ManifestFile) -> Option<u32>| -> ArrayRef {
            let counts =
                all.iter().map(|manifest| of(manifest).and_then(|n| i32::try_from(n).ok()));
            Arc::new(counts.collect::<Int32Array>())
        };
        let rows = |of: fn(&ManifestFile) -> Option<u64>| -> ArrayRef {
            let rows = all.iter().map(|manifest| of(manifest).and_then(|n| i64::try_from(n).ok()));
            Arc::new(rows.collect::<Int64Array>())
        };
        let specs = all.iter().map(|manifest| manifest.partition_spec_id);
        Ok(vec![
            Arc::new(StringArray::from_iter_values(all.iter().map(|m| &m.manifest_path))),
            Arc::new(Int64Array::from_iter_values(all.iter().map(|m| m.manifest_length))),
            Arc::new(Int32Array::from_iter_values(specs)),
            Arc::new(Int64Array::from_iter_values(all.iter().map(|m| m.added_snapshot_id))),
            count(|manifest| manifest.added_files_count),
            rows(|manifest| manifest.added_rows_count),
            count(|manifest| manifest.existing_files_count),
            rows(|manifest| manifest.existing_rows_count),
            count(|manifest| manifest.deleted_files_count),
            rows(|manifest| manifest.deleted_rows_count),
            self.summaries(&all),
        ])
    }

    /// The ranges of manifests' partitions, each a list with an entry for each partition field.
    fn summaries(&self, manifests: &[ManifestFile]) -> ArrayRef {
        let (mut nulls, mut nans) = (BooleanBuilder::new(), BooleanBuilder::new());
        let (mut lower, mut upper) = (StringBuilder::new(), StringBuilder::new());
        let mut lengths = Vec::new();
        for manifest in manifests {
            let fields = self.partitioning.specs.get(&manifest.partition_spec_id);
            let summaries = manifest.partitions.as_deref().unwrap_or_default();
            lengths.push(summaries.len());
            for (at, summary) in summaries.iter().enumerate() {
                let FieldSummary { contains_null, contains_nan, lower_bound, upper_bound } =
                    summary;
                let field = fields.and_then(|fields| fields.get(at));
                let text = |bound: Option<&[u8]>| {
                    let (at, transform) = field?;
                    let kind = self.partitioning.kind(*at)?;
                    let datum = Datum::try_from_bytes(bound?, kind.clone()).ok()?;
                    let literal = Literal::Primitive(datum.literal().clone());
                    Some(human(*transform, kind, Some(&literal)))
                };
                nulls.append_value(*contains_null);
                nans.append_option(*contains_nan);
                lower.append_option(text(lower_bound.as_ref().map(|bound| &bound[..])));
                upper.append_option(text(upper_bound.as_ref().map(|bound| &bound[..])));
            }
        }
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(nulls.finish()),
            Arc::new(nans.finish()),
            Arc::new(lower.finish()),
            Arc::new(upper.finish()),
        ];
        let entries = StructArray::new(summary_fields(), arrays, None);
        let offsets = OffsetBuffer::from_lengths(lengths);
        Arc::new(ListArray::new(
            item(DataType::Struct(summary_fields())),
            offsets,
            Arc::new(entries),
            None,
        ))
    }

    /// All live files with the partition specifications of their manifests, and the memory that they
    /// take.
    async fn live(&self) -> Result<(Vec<(i32, DataFile)>, Vec<MemoryReservation>)> {
        let (mut live, mut memory) = (Vec::new(), Vec::new());
        for manifest in manifests(&self.files, &self.metadata).await? {
            let parsed = self.files.manifest(&manifest.manifest_path).await?;
            let entries = parsed.entries().iter().filter(|entry| entry.is_alive());
            let spec = manifest.partition_spec_id;
            live.extend(entries.map(|entry| (spec, entry.data_file().clone())));
            memory.push(parsed.memory);
        }
        Ok((live, memory))
    }

    async fn data_files(&self) -> Result<Vec<ArrayRef>> {
        let (all, _memory) = self.live().await?;
        let files = || all.iter().map(|(_, file)| file);
        let number = |of: fn(&DataFile) -> u64| -> ArrayRef {
            let numbers = files().map(|file| i64::try_from(of(file)).unwrap_or(i64::MAX));
            Arc::new(Int64Array::from_iter_values(numbers))
        };
        let formats = files().map(|file| file.file_format().to_string().to_uppercase());
        let mut keys = BinaryViewBuilder::new();
        let mut offsets = ListBuilder::new(Int64Builder::new()).with_field(item(DataType::Int64));
        let mut ids = ListBuilder::new(Int32Builder::new()).with_field(item(DataType::Int32));
        for file in files() {
            keys.append_option(file.key_metadata());
            offsets.append_option(file.split_offsets().map(|list| list.iter().copied().map(Some)));
            ids.append_option(file.equality_ids().map(|list| list.into_iter().map(Some)));
        }
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(Int32Array::from_iter_values(files().map(|file| file.content_type() as i32))),
            Arc::new(StringArray::from_iter_values(files().map(DataFile::file_path))),
            Arc::new(StringArray::from_iter_values(formats)),
            Arc::new(Int32Array::from_iter_values(all.iter().map(|(spec, _)| *spec))),
        ];
        if !self.partitioning.fields.is_empty() {
            let rows: Vec<_> = all.iter().map(|(spec, file)| (*spec, file.partition())).collect();
            columns.push(self.partitioning.values(&rows)?);
        }
        columns.extend([
            number(DataFile::record_count),
            number(DataFile::file_size_in_bytes),
            self.counts(files().map(DataFile::column_sizes)),
            self.counts(files().map(DataFile::value_counts)),
            self.counts(files().map(DataFile::null_value_counts)),
            self.counts(files().map(DataFile::nan_value_counts)),
            self.bounds(files().map(DataFile::lower_bounds)),
            self.bounds(files().map(DataFile::upper_bounds)),
            Arc::new(keys.finish()),
            Arc::new(offsets.finish()),
            Arc::new(ids.finish()),
            Arc::new(files().map(DataFile::sort_order_id).collect::<Int32Array>()),
        ]);
        Ok(columns)
    }

    async fn partitions(&self) -> Result<Vec<ArrayRef>> {
        let (all, _memory) = self.live().await?;
        let mut places: HashMap<(i32, &Struct), usize> = HashMap::new();
        let mut rows: Vec<(i32, &Struct)> = Vec::new();
        let mut totals: Vec<[u64; 3]> = Vec::new();
        for (spec, file) in &all {
            let key = (*spec, file.partition());
            let place = *places.entry(key).or_insert_with(|| {
                rows.push(key);
                totals.push([0; 3]);
                rows.len() - 1
            });
            let figures = [file.record_count(), 1, file.file_size_in_bytes()];
            for (total, figure) in totals[place].iter_mut().zip(figures) {
                *total += figure;
            }
        }
        let mut columns = Vec::new();
        if !self.partitioning.fields.is_empty() {
            columns.push(self.partitioning.values(&rows)?);
        }
        for at in 0..3 {
            let figures = totals.iter().map(|total| i64::try_from(total[at]).unwrap_or(i64::MAX));
            columns.push(Arc::new(Int64Array::from_iter_values(figures)));
        }
        Ok(columns)
    }

    /// The partitions of the current snapshot.
    pub async fn by_partition(&self) -> Result<Vec<PartitionFigures>> {
        let (all, _memory) = self.live().await?;
        let mut found: BTreeMap<String, PartitionFigures> = BTreeMap::new();
        for (spec, file) in &all {
            let name = self.partitioning.name(*spec, file.partition());
            let figures = found.entry(name.clone()).or_default();
            figures.name = name;
            figures.rows += file.record_count();
            figures.files += 1;
            figures.bytes += file.file_size_in_bytes();
        }
        Ok(found.into_values().collect())
    }

    /// What is known of a file's columns, by field id; of those that are there no more, nothing.
    fn present<'m, V>(
        &self,
        known: &'m HashMap<i32, V>,
    ) -> impl Iterator<Item = (i32, &'m V)> + use<'m, V> {
        let schema = self.metadata.current_schema();
        let here = known.iter().filter(|(id, _)| schema.field_by_id(**id).is_some());
        here.map(|(id, value)| (*id, value)).collect::<BTreeMap<_, _>>().into_iter()
    }

    fn counts<'a>(&self, files: impl Iterator<Item = &'a HashMap<i32, u64>>) -> ArrayRef {
        let mut builder = MapBuilder::new(Some(names()), Int32Builder::new(), Int64Builder::new());
        for counts in files {
            for (id, count) in self.present(counts) {
                builder.keys().append_value(id);
                builder.values().append_value(i64::try_from(*count).unwrap_or(i64::MAX));
            }
            let _ = builder.append(true);
        }
        Arc::new(builder.finish())
    }

    /// Bounds as people read them.
    fn bounds<'a>(&self, files: impl Iterator<Item = &'a HashMap<i32, Datum>>) -> ArrayRef {
        let mut builder = MapBuilder::new(Some(names()), Int32Builder::new(), StringBuilder::new());
        for bounds in files {
            for (id, bound) in self.present(bounds) {
                let literal = Literal::Primitive(bound.literal().clone());
                builder.keys().append_value(id);
                let text = human(Transform::Identity, bound.data_type(), Some(&literal));
                builder.values().append_value(text);
            }
            let _ = builder.append(true);
        }
        Arc::new(builder.finish())
    }
}

impl Partitioning {
    fn of(metadata: &TableMetadata) -> Result<Self> {
        let mut fields: Vec<NestedFieldRef> = Vec::new();
        let mut specs = HashMap::new();
        let mut all: Vec<_> = metadata.partition_specs_iter().collect();
        // The newest name of a field counts.
        all.sort_by_key(|spec| std::cmp::Reverse(spec.spec_id()));
        for spec in all {
            // A field whose column is there no more has no type either.
            let Ok(kinds) = spec.partition_type(metadata.current_schema()) else { continue };
            let mut of_spec = Vec::new();
            for (kind, field) in kinds.fields().iter().zip(spec.fields()) {
                let known = fields.iter().position(|known| known.id == kind.id);
                let at = known.unwrap_or_else(|| {
                    fields.push(kind.clone());
                    fields.len() - 1
                });
                of_spec.push((at, field.transform));
            }
            specs.insert(spec.spec_id(), of_spec);
        }
        Ok(Self { fields, specs })
    }

    /// A partition as directories are called after it: `day=2026-01-01/kind=a`.
    fn name(&self, spec: i32, values: &Struct) -> String {
        let fields = self.specs.get(&spec).map(Vec::as_slice).unwrap_or_default();
        let parts = fields.iter().zip(values.fields()).map(|((at, transform), value)| {
            let name = self.fields.get(*at).map_or("", |field| field.name.as_str());
            let value = self.kind(*at).map(|kind| human(*transform, kind, value.as_ref()));
            format!("{name}={}", value.unwrap_or_default())
        });
        parts.collect::<Vec<_>>().join("/")
    }

    fn kind(&self, at: usize) -> Option<&PrimitiveType> {
        match self.fields.get(at)?.field_type.as_ref() {
            Type::Primitive(kind) => Some(kind),
            _ => None,
        }
    }

    fn arrow_fields(&self) -> Result<Fields> {
        let field = |field: &NestedFieldRef| {
            let arrow = arrow_field(&field.name, field)?;
            Ok(arrow.with_nullable(true).with_metadata(HashMap::new()))
        };
        self.fields.iter().map(field).collect::<Result<Vec<_>>>().map(Into::into)
    }

    /// Partitions with their specifications as rows of all partition fields.
    fn values(&self, rows: &[(i32, &Struct)]) -> Result<ArrayRef> {
        let fields = self.arrow_fields()?;
        let mut arrays = Vec::new();
        for (at, field) in fields.iter().enumerate() {
            let value = |(spec, values): &(i32, &Struct)| {
                let place = self.specs.get(spec)?.iter().position(|(field, _)| *field == at)?;
                let Some(Some(Literal::Primitive(literal))) = values.fields().get(place) else {
                    return None;
                };
                value_of(self.kind(at)?, literal)?.cast_to(field.data_type()).ok()
            };
            let null = ScalarValue::try_new_null(field.data_type()).map_err(unexpected)?;
            let values = rows.iter().map(|row| value(row).unwrap_or_else(|| null.clone()));
            arrays.push(match rows.is_empty() {
                true => new_empty_array(field.data_type()),
                false => ScalarValue::iter_to_array(values).map_err(unexpected)?,
            });
        }
        Ok(Arc::new(StructArray::new(fields, arrays, None)))
    }
}

/// A partition's value as the engine's.
fn value_of(kind: &PrimitiveType, literal: &PrimitiveLiteral) -> Option<ScalarValue> {
    match (kind, literal) {
        (PrimitiveType::Uuid, PrimitiveLiteral::UInt128(value)) => {
            Some(ScalarValue::FixedSizeBinary(16, Some(value.to_be_bytes().to_vec())))
        }
        (PrimitiveType::Fixed(length), PrimitiveLiteral::Binary(value)) => {
            Some(ScalarValue::FixedSizeBinary(i32::try_from(*length).ok()?, Some(value.clone())))
        }
        _ => scalar_of(kind, literal),
    }
}

fn unexpected(error: DataFusionError) -> Error {
    Error::BadSchema(error.message().into_owned())
}

fn text(name: &str) -> Field {
    Field::new(name, DataType::Utf8, true)
}

fn integer(name: &str) -> Field {
    Field::new(name, DataType::Int32, true)
}

fn bigint(name: &str) -> Field {
    Field::new(name, DataType::Int64, true)
}

fn instant(name: &str) -> Field {
    let kind = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Field::new(name, kind, false)
}

fn item(kind: DataType) -> Arc<Field> {
    Arc::new(Field::new("item", kind, true))
}

fn names() -> MapFieldNames {
    MapFieldNames { entry: "entries".into(), key: "key".into(), value: "value".into() }
}

fn map(name: &str, key: DataType, value: DataType) -> Field {
    let fields = vec![Field::new("key", key, false), Field::new("value", value, true)];
    let entries = Field::new("entries", DataType::Struct(fields.into()), false);
    Field::new(name, DataType::Map(Arc::new(entries), false), true)
}

fn summary_fields() -> Fields {
    let boolean = |name: &str| Field::new(name, DataType::Boolean, true);
    let (null, nan) = (boolean("contains_null"), boolean("contains_nan"));
    vec![null, nan, text("lower_bound"), text("upper_bound")].into()
}

/// The columns by Trino's names and types.
fn columns(aspect: Aspect, partitioning: &Partitioning) -> Result<Vec<Field>> {
    let list = |name: &str, kind: DataType| Field::new(name, DataType::List(item(kind)), true);
    let partition = match partitioning.fields.is_empty() {
        true => None,
        false => {
            let fields = partitioning.arrow_fields()?;
            Some(Field::new("partition", DataType::Struct(fields), true))
        }
    };
    Ok(match aspect {
        Aspect::Snapshots => vec![
            instant("committed_at"),
            bigint("snapshot_id"),
            bigint("parent_id"),
            text("operation"),
            text("manifest_list"),
            map("summary", DataType::Utf8, DataType::Utf8),
        ],
        Aspect::History => vec![
            instant("made_current_at"),
            bigint("snapshot_id"),
            bigint("parent_id"),
            Field::new("is_current_ancestor", DataType::Boolean, true),
        ],
        Aspect::References => vec![
            text("name"),
            text("type"),
            bigint("snapshot_id"),
            bigint("max_reference_age_in_ms"),
            integer("min_snapshots_to_keep"),
            bigint("max_snapshot_age_in_ms"),
        ],
        Aspect::Manifests => vec![
            text("path"),
            bigint("length"),
            integer("partition_spec_id"),
            bigint("added_snapshot_id"),
            integer("added_data_files_count"),
            bigint("added_rows_count"),
            integer("existing_data_files_count"),
            bigint("existing_rows_count"),
            integer("deleted_data_files_count"),
            bigint("deleted_rows_count"),
            list("partition_summaries", DataType::Struct(summary_fields())),
        ],
        Aspect::Partitions => {
            let figures = ["record_count", "file_count", "total_size"].map(bigint);
            partition.into_iter().chain(figures).collect()
        }
        Aspect::Files => {
            let counts = |name: &str| map(name, DataType::Int32, DataType::Int64);
            let bounds = |name: &str| map(name, DataType::Int32, DataType::Utf8);
            let first = [integer("content"), text("file_path"), text("file_format")];
            let rest = [
                bigint("record_count"),
                bigint("file_size_in_bytes"),
                counts("column_sizes"),
                counts("value_counts"),
                counts("null_value_counts"),
                counts("nan_value_counts"),
                bounds("lower_bounds"),
                bounds("upper_bounds"),
                Field::new("key_metadata", DataType::BinaryView, true),
                list("split_offsets", DataType::Int64),
                list("equality_ids", DataType::Int32),
                integer("sort_order_id"),
            ];
            let first = first.into_iter().chain([integer("spec_id")]);
            first.chain(partition).chain(rest).collect()
        }
    })
}

fn times(millis: impl Iterator<Item = i64>) -> ArrayRef {
    let micros = millis.map(|millis| millis.saturating_mul(1000));
    Arc::new(TimestampMicrosecondArray::from_iter_values(micros).with_timezone("UTC"))
}

fn texts_by_text() -> MapBuilder<StringBuilder, StringBuilder> {
    MapBuilder::new(Some(names()), StringBuilder::new(), StringBuilder::new())
}

#[async_trait]
impl TableProvider for Inspection {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> EngineResult<Arc<dyn ExecutionPlan>> {
        let rows = self.rows().await.map_err(|error| DataFusionError::External(Box::new(error)))?;
        let partitions = [vec![rows]];
        let schema = self.schema.clone();
        Ok(MemorySourceConfig::try_new_exec(&partitions, schema, projection.cloned())?)
    }
}
