//! `system.tables`: tables and views of all databases, with where their files are: whoever reads
//! Iceberg finds the current metadata of managed tables here. What a table holds, and when it was
//! changed, is for those who may read all of it.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use datafusion::error::Result;
use futures::{StreamExt, stream};
use iceberg::spec::{SnapshotRef, TableMetadata};
use tokio::time::Instant;

use super::View;
use super::relations::Relation;
use super::rows::{Rows, Value};
use crate::catalog::{Definition, FileFormat, Managed, Privilege, Table, TableName};
use crate::storage::managed::{Aspect, Inspection};
use crate::storage::{self, Directory};

/// How long metadata files are waited for, all together. What has not been read by then is missing.
const PATIENCE: Duration = Duration::from_secs(5);

/// Files of external tables that are listed, all together, to count what is in their directories.
const MOST_FILES: usize = 100_000;

/// Metadata files read at once.
const CONCURRENT_READS: usize = 16;

const COLUMNS: &[&str] = &[
    "database",
    "schema",
    "name",
    "kind",
    "owner",
    "oid",
    "format",
    "location",
    "metadata_location",
    "snapshot_id",
    "committed_at",
    "rows",
    "bytes",
    "files",
    "error",
];

pub async fn rows(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let deadline = Instant::now() + PATIENCE;
    let found: Vec<Vec<Value>> = stream::iter(seen(view))
        .map(|table| async move { row(view, &table, deadline).await })
        .buffered(CONCURRENT_READS)
        .collect()
        .await;
    let mut rows = Rows::new(relation, COLUMNS);
    for row in found {
        rows.push_vec(row);
    }
    rows.finish()
}

/// Tables and views that the session's role sees, in the databases that it may connect to.
fn seen(view: &View<'_>) -> Vec<Arc<Table>> {
    let access = view.access();
    let mut seen = Vec::new();
    for database in view.snapshot.databases.values() {
        if !access.database(database, Privilege::Connect) {
            continue;
        }
        for schema in database.schemas.values() {
            if access.schema(database, schema, Privilege::Usage) {
                seen.extend(schema.tables.values().filter(|table| access.sees(table)).cloned());
            }
        }
    }
    seen
}

async fn row(view: &View<'_>, table: &Table, deadline: Instant) -> Vec<Value> {
    let (kind, format, location) = match &table.record.definition {
        Definition::View { .. } => ("view", None, Value::Null),
        Definition::External(external) => {
            let format = match external.format {
                FileFormat::Parquet => "parquet",
                FileFormat::Csv => "csv",
                FileFormat::Json => "json",
            };
            ("external", Some(format), (&external.location).into())
        }
        Definition::Managed(_) => ("managed", Some("iceberg"), Value::Null),
    };
    let mut row = vec![
        (&table.name.database).into(),
        (&table.name.schema).into(),
        (&table.name.table).into(),
        kind.into(),
        (&table.record.owner).into(),
        table.record.oid.into(),
        format.into(),
    ];
    let Definition::Managed(managed) = &table.record.definition else {
        row.push(location);
        row.resize(COLUMNS.len(), Value::Null);
        return row;
    };
    match metadata(view, managed, deadline).await {
        Ok(metadata) => {
            row.push(metadata.location().into());
            if view.access().reads_all(table) {
                row.push((&managed.metadata).into());
                row.extend(figures(&metadata));
            }
            row.resize(COLUMNS.len(), Value::Null);
        }
        Err(_) if !view.access().reads_all(table) => row.resize(COLUMNS.len(), Value::Null),
        Err(error) => {
            row.extend([Value::Null, (&managed.metadata).into()]);
            row.resize(COLUMNS.len() - 1, Value::Null);
            row.push(error.into());
        }
    }
    row
}

const SNAPSHOTS: &[&str] = &[
    "database",
    "schema",
    "table",
    "snapshot_id",
    "parent_id",
    "sequence",
    "committed_at",
    "operation",
    "current",
    "rows",
    "bytes",
    "files",
    "manifest_list",
];

const PARTITIONS: &[&str] = &["database", "schema", "table", "partition", "rows", "files", "bytes"];

/// `system.snapshots`: the history of managed tables, for those who may read all of them.
pub async fn snapshots(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let mut rows = Rows::new(relation, SNAPSHOTS);
    for (table, metadata) in readable(view, Instant::now() + PATIENCE).await {
        for snapshot in metadata.snapshots() {
            rows.push_vec(snapshot_row(&table, &metadata, snapshot));
        }
    }
    rows.finish()
}

/// `system.partitions`: what the present partitions of managed tables hold, and the directories of
/// external ones, for those who may read all of them. How many rows the latter have only their files
/// know.
pub async fn partitions(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let deadline = Instant::now() + PATIENCE;
    let mut rows = Rows::new(relation, PARTITIONS);
    for (table, metadata) in readable(view, deadline).await {
        let read = async {
            Inspection::new(view.session.files.clone(), metadata, Aspect::Partitions)?
                .by_partition()
                .await
        };
        for partition in in_time(view, &table, deadline, read).await.unwrap_or_default() {
            let figures = [partition.rows, partition.files, partition.bytes].map(number);
            rows.push_vec(partition_row(&table, partition.name, figures));
        }
    }
    let mut left = MOST_FILES;
    for table in seen(view) {
        let Definition::External(external) = &table.record.definition else { continue };
        if external.partition_columns.is_empty() || !view.access().reads_all(&table) {
            continue;
        }
        let read = storage::partitions(&view.session.files, external, &mut left);
        let Some(found) = in_time(view, &table, deadline, read).await else { continue };
        let Some(found) = found else {
            missing(view, &table, &format!("more than {MOST_FILES} files would be listed"));
            continue;
        };
        for (name, Directory { files, bytes }) in found {
            let figures = [Value::Null, number(files), number(bytes)];
            rows.push_vec(partition_row(&table, name, figures));
        }
    }
    rows.finish()
}

fn partition_row(table: &Table, partition: String, figures: [Value; 3]) -> Vec<Value> {
    let TableName { database, schema, table } = &table.name;
    let names = [database.into(), schema.into(), table.into(), partition.into()];
    names.into_iter().chain(figures).collect()
}

fn number(number: u64) -> Value {
    i64::try_from(number).unwrap_or(i64::MAX).into()
}

/// What is read of a table, unless that fails or takes too long, which a warning tells.
async fn in_time<T>(
    view: &View<'_>,
    table: &Table,
    deadline: Instant,
    read: impl Future<Output = storage::Result<T>>,
) -> Option<T> {
    let reason = match tokio::time::timeout_at(deadline, read).await {
        Ok(Ok(found)) => return Some(found),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "they could not be read in time".to_owned(),
    };
    missing(view, table, &reason);
    None
}

/// Managed tables that the session's role may read all of, as far as their metadata can be read.
async fn readable(view: &View<'_>, deadline: Instant) -> Vec<(Arc<Table>, Arc<TableMetadata>)> {
    let mut found = Vec::new();
    for table in seen(view) {
        let Definition::Managed(managed) = &table.record.definition else { continue };
        if !view.access().reads_all(&table) {
            continue;
        }
        match metadata(view, managed, deadline).await {
            Ok(metadata) => found.push((table.clone(), metadata)),
            Err(reason) => missing(view, &table, &reason),
        }
    }
    found
}

fn missing(view: &View<'_>, table: &Table, reason: &str) {
    let warning = format!("rows about {} are missing: {reason}", table.name);
    view.shared.backends.warn(view.session.pid, warning);
}

fn snapshot_row(table: &Table, metadata: &TableMetadata, snapshot: &SnapshotRef) -> Vec<Value> {
    let mut row = vec![
        (&table.name.database).into(),
        (&table.name.schema).into(),
        (&table.name.table).into(),
        snapshot.snapshot_id().into(),
        snapshot.parent_snapshot_id().into(),
        snapshot.sequence_number().into(),
        Value::Time(snapshot.timestamp_ms().saturating_mul(1000)),
        snapshot.summary().operation.as_str().into(),
        (metadata.current_snapshot_id() == Some(snapshot.snapshot_id())).into(),
    ];
    row.extend(totals(snapshot));
    row.push(snapshot.manifest_list().into());
    row
}

async fn metadata(
    view: &View<'_>,
    managed: &Managed,
    deadline: Instant,
) -> Result<Arc<TableMetadata>, String> {
    let read = view.session.files.metadata(&managed.metadata);
    match tokio::time::timeout_at(deadline, read).await {
        Ok(read) => read.map_err(|error| error.to_string()),
        Err(_) => Err(format!("{} could not be read in time", managed.metadata)),
    }
}

/// The current snapshot, its time, and what its writer has counted.
fn figures(metadata: &TableMetadata) -> [Value; 5] {
    let Some(snapshot) = metadata.current_snapshot() else {
        return [Value::Null, Value::Null, Value::Int(0), Value::Int(0), Value::Int(0)];
    };
    let [rows, bytes, files] = totals(snapshot);
    let committed = Value::Time(snapshot.timestamp_ms().saturating_mul(1000));
    [snapshot.snapshot_id().into(), committed, rows, bytes, files]
}

/// Rows, bytes and files.
fn totals(snapshot: &SnapshotRef) -> [Value; 3] {
    ["total-records", "total-files-size", "total-data-files"].map(|name| {
        let figure = snapshot.summary().additional_properties.get(name);
        figure.and_then(|figure| figure.parse::<i64>().ok()).into()
    })
}
