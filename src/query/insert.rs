//! Rows that come from a client, into tables.

use arrow::array::RecordBatch;
use arrow::datatypes::FieldRef;
use datafusion::error::DataFusionError;
use futures::{Stream, StreamExt, TryStreamExt};
use sqlparser::ast::{Ident, ObjectName};

use super::command::writes;
use super::copy;
use super::ddl::ident;
use super::life::Session;
use super::running::Registered;
use super::write::Action;
use super::{Error, Result};
use crate::catalog::{self, Definition, ObjectKind, Privilege, Table};

impl Session {
    /// The fields of the columns that rows for a table have: those that are named, in their order,
    /// or all. The role must have INSERT on each of them.
    pub(super) async fn insert_fields(
        &mut self,
        table: &ObjectName,
        columns: &[Ident],
    ) -> Result<Vec<FieldRef>> {
        let name = self.existing(table).await?;
        let found = self.catalog().table(&name, self.settings().consistency()).await;
        let found = found.map_err(|error| match error {
            catalog::Error::NotFound { kind: kind @ ObjectKind::Table, .. } => {
                catalog::Error::NotFound { kind, name: table.to_string() }
            }
            other => other,
        })?;
        let fields = fields(&found, columns)?;
        let kind = if found.record.is_view() { ObjectKind::View } else { ObjectKind::Table };
        self.require(|snapshot, access| {
            let denied = |kind, name: &str| catalog::Error::Denied { kind, name: name.to_owned() };
            let database = snapshot.databases.get(&name.database);
            let schema = database.and_then(|d| Some((d, d.schemas.get(&name.schema)?)));
            let is_open = |database| {
                name.database == self.database() || access.database(database, Privilege::Connect)
            };
            match schema {
                Some((database, _)) if !is_open(database) => {
                    return Err(denied(ObjectKind::Database, &name.database));
                }
                Some((database, schema)) if access.schema(database, schema, Privilege::Usage) => {}
                _ => return Err(denied(ObjectKind::Schema, &name.schema)),
            }
            let allowed = |field: &FieldRef| access.column(&found, field.name(), Privilege::Insert);
            match fields.iter().all(allowed) {
                true => Ok(()),
                false => Err(denied(kind, &name.table)),
            }
        })
        .await?;
        match kind {
            ObjectKind::View => Err(copy::Error::ToView(name.table.clone()).into()),
            _ if matches!(found.record.definition, Definition::External(_)) => {
                Err(writes("COPY FROM"))
            }
            _ => Ok(fields),
        }
    }

    /// Appends batches to a table, whose columns are those of [`Self::insert_fields`]: all of them,
    /// or, after an error among them, none. Returns how many rows there were.
    pub(super) async fn insert_batches(
        &mut self,
        registered: Registered,
        table: &ObjectName,
        columns: &[String],
        batches: impl Stream<Item = Result<RecordBatch>> + Send + 'static,
    ) -> Result<u64> {
        let written = async {
            let target = self.writable(table, Action::Insert).await?;
            let columns: Vec<usize> =
                columns.iter().map(|name| target.column(name)).collect::<Result<_, _>>()?;
            let batches =
                batches.map_err(|error| DataFusionError::External(Box::new(error))).boxed();
            let written = self.engine_session().insert_stream(&target, &columns, batches).await?;
            Ok::<_, Error>((target, written))
        };
        let (target, written) = registered.until_stopped(written).await??;
        let changes = written.change.map(|change| (target, change)).into_iter().collect();
        self.keep(changes).await?;
        Ok(written.rows)
    }
}

/// The fields of these columns of a table, each named once, or of all.
fn fields(table: &Table, columns: &[Ident]) -> Result<Vec<FieldRef>> {
    let schema = table.record.schema();
    if columns.is_empty() {
        return Ok(schema.fields().iter().cloned().collect());
    }
    let mut fields: Vec<FieldRef> = Vec::with_capacity(columns.len());
    for column in columns.iter().map(ident) {
        let Some((_, field)) = schema.fields().find(&column) else {
            let relation = table.name.table.clone();
            return Err(copy::Error::NoColumn { column, relation }.into());
        };
        if fields.iter().any(|known| known.name() == field.name()) {
            return Err(copy::Error::Twice(column).into());
        }
        fields.push(field.clone());
    }
    Ok(fields)
}
