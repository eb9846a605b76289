//! What is known of a table beside its rows: `"t$snapshots"` and the like, and the statement that
//! makes it again. Each is read as if it were a table itself, whose name goes with that of the table.

use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::catalog::{MemTable, TableProvider};
use datafusion::common::TableReference;
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::TableSource;

use super::planner::Scope;
use super::session::Session;
use super::{Error, Result, definitions};
use crate::catalog::{self, Columns, Definition, ObjectKind, PolicyCommand, Table, TableName};
use crate::storage;
use crate::storage::managed::{Aspect, Inspection};

/// What stands between the names of a table and a view and what asks for their statements: nothing
/// that a client would write.
const STATEMENT_OF: &str = "\u{2}create ";

/// What is asked for.
#[derive(Clone, Copy, Debug)]
enum Description {
    Aspect(Aspect),
    /// Of a view, or of a table.
    Statement {
        view: bool,
    },
}

/// The name under which the statement for a table or view is read, in the column `statement`.
pub fn statement_of(name: &str, view: bool) -> String {
    format!("{name}{STATEMENT_OF}{}", if view { "view" } else { "table" })
}

impl Description {
    fn of(name: &TableName) -> Option<(TableName, Self)> {
        let (table, description) = match name.table.split_once(STATEMENT_OF) {
            Some((table, kind)) => (table, Self::Statement { view: kind == "view" }),
            None => {
                let (table, aspect) = Aspect::of(&name.table)?;
                (table, Self::Aspect(aspect))
            }
        };
        Some((TableName::new(&name.database, &name.schema, table), description))
    }
}

/// A name as messages show it.
pub(super) fn without_request(name: &TableReference) -> String {
    let shown = name.to_string();
    match name.table().contains(STATEMENT_OF) {
        true => shown.split(STATEMENT_OF).next().unwrap_or_default().trim_matches('"').to_owned(),
        false => shown,
    }
}

/// The table that a name asks something about.
pub(super) fn described(name: &TableName) -> Option<TableName> {
    Description::of(name).map(|(table, _)| table)
}

impl Session {
    /// What is known of a table, if the name asks for that.
    pub(super) async fn description(
        &self,
        scope: &Scope,
        name: &TableName,
    ) -> Result<Option<Arc<dyn TableSource>>> {
        let Some((of, description)) = Description::of(name) else { return Ok(None) };
        let Some(table) = self.found(&of).await? else { return Ok(None) };
        let provider = match description {
            Description::Aspect(aspect) => self.inspection(scope, table, aspect).await?,
            Description::Statement { view } => self.statement(scope, table, view).await?,
        };
        Ok(Some(provider_as_source(provider)))
    }

    /// It tells of values in all columns and rows, so that it is for those only who may read all of
    /// them.
    async fn inspection(
        &self,
        scope: &Scope,
        table: Arc<Table>,
        aspect: Aspect,
    ) -> Result<Arc<dyn TableProvider>> {
        let (table, columns) = self.readable(scope, table).await?;
        let name = table.name.table.clone();
        if columns != Columns::All {
            return Err(catalog::Error::Denied { kind: ObjectKind::Table, name }.into());
        }
        if self.policy(scope, &table, PolicyCommand::Select).is_some() {
            return Err(catalog::Error::Forbidden(format!(
                "permission denied for table {name}: what is known of its files tells of rows that \
                 its row-level policies hide"
            ))
            .into());
        }
        if !matches!(table.record.definition, Definition::Managed(_)) {
            return Err(storage::Error::NoHistory { table: name }.into());
        }
        let (_, metadata) = self.metadata_of(&table).await?;
        Ok(Arc::new(Inspection::new(self.engine().files().clone(), metadata, aspect)?))
    }

    /// It is for those who see the table at all, as are its columns in system tables.
    async fn statement(
        &self,
        scope: &Scope,
        table: Arc<Table>,
        view: bool,
    ) -> Result<Arc<dyn TableProvider>> {
        let table = match self.readable(scope, table.clone()).await {
            Ok((table, _)) => table,
            Err(Error::Catalog(catalog::Error::Denied {
                kind: ObjectKind::Table | ObjectKind::View,
                ..
            })) if self.info().catalog.snapshot().access(&scope.role).sees(&table) => table,
            Err(error) => return Err(error),
        };
        if table.record.is_view() != view {
            let (name, expected) = (table.name.table.clone(), if view { "view" } else { "table" });
            return Err(catalog::Error::WrongKind { name, expected }.into());
        }
        let metadata = match &table.record.definition {
            Definition::Managed(_) => Some(self.metadata_of(&table).await?.1),
            Definition::External(_) | Definition::View { .. } => None,
        };
        let text = definitions::statement(&table, metadata.as_deref(), self.info());
        let schema = Schema::new(vec![Field::new("statement", DataType::Utf8, false)]);
        let schema = Arc::new(schema);
        let rows =
            RecordBatch::try_new(schema.clone(), vec![Arc::new(StringArray::from(vec![text]))]);
        let rows = rows.map_err(|error| Error::planning(error.into()))?;
        Ok(Arc::new(MemTable::try_new(schema, vec![vec![rows]]).map_err(Error::planning)?))
    }
}
