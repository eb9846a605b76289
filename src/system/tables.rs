//! `system.tables`: tables and views of all databases, with where their files are: whoever reads
//! Iceberg finds the current metadata of managed tables here. What a table holds, and when it was
//! changed, is for those who may read all of it.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use datafusion::error::Result;
use futures::{StreamExt, stream};
use iceberg::spec::TableMetadata;
use tokio::time::Instant;

use super::View;
use super::relations::Relation;
use super::rows::{Rows, Value};
use crate::catalog::{Definition, FileFormat, Managed, Privilege, Table};

/// How long metadata files are waited for, all together. What has not been read by then is missing.
const PATIENCE: Duration = Duration::from_secs(5);

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
    let figure = |name: &str| {
        let figure = snapshot.summary().additional_properties.get(name);
        figure.and_then(|figure| figure.parse::<i64>().ok()).into()
    };
    [
        snapshot.snapshot_id().into(),
        Value::Time(snapshot.timestamp_ms().saturating_mul(1000)),
        figure("total-records"),
        figure("total-files-size"),
        figure("total-data-files"),
    ]
}
