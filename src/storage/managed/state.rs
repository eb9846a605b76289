//! A table's state as the catalog has it: which metadata it names, and the record of the next.

use std::sync::Arc;

use iceberg::spec::TableMetadata;

use super::commit::{Change, Staged};
use super::evolve::field_id;
use super::{Alteration, TableFiles, columns_of};
use crate::catalog::{self, Catalog, Column, Consistency, Definition, Managed, Table, TableRecord};
use crate::id;
use crate::storage::{Error, Result};

/// What a table's definition says of its files.
pub fn managed(table: &Table) -> Result<&Managed> {
    match &table.record.definition {
        Definition::Managed(managed) => Ok(managed),
        _ => Err(Error::NotManaged { table: table.name.table.clone() }),
    }
}

/// The record that names a staged state, to which changes have led.
pub fn next_record(table: &Table, staged: &Staged, changes: &[Change]) -> Result<TableRecord> {
    let before = managed(table)?;
    let definition = Definition::Managed(Managed {
        metadata: staged.metadata_url.clone(),
        serial: before.serial + 1,
        ..before.clone()
    });
    let mut columns = columns_of(&staged.metadata, &table.record.columns)?;
    set_beside_format(&mut columns, &table.record.columns, changes)?;
    Ok(TableRecord { columns, definition, nonce: id::nonce(), ..table.record.clone() })
}

/// Version 2 of the format has no defaults, no seconds with fewer digits than six, and no JSON: they are the
/// catalog's.
fn set_beside_format(columns: &mut [Column], before: &[Column], changes: &[Change]) -> Result<()> {
    // IF NOT EXISTS leaves one as it is that is there.
    let is_new = |column: &Column| {
        let id = field_id(&column.field());
        !before.iter().any(|before| field_id(&before.field()) == id)
    };
    let steps = changes.iter().flat_map(|change| match change {
        Change::Alter(steps) => steps.as_slice(),
        _ => &[],
    });
    for step in steps {
        let name = match step {
            Alteration::SetDefault { name, .. } | Alteration::SetType { name, .. } => name,
            Alteration::AddColumn { field, .. } => field.name(),
            _ => continue,
        };
        // Another step may have renamed it, or dropped it again.
        let column = columns.iter_mut().find(|column| column.name == *name);
        match (step, column) {
            (Alteration::SetDefault { default, .. }, Some(column)) => {
                column.default.clone_from(default);
            }
            (Alteration::SetDefault { .. }, None) => {
                return Err(Error::NoColumn { name: name.clone(), table: None });
            }
            (Alteration::SetType { field, .. }, Some(column)) => {
                *column = column.clone().declared_as(field);
            }
            (Alteration::AddColumn { field, .. }, Some(column)) if is_new(column) => {
                *column = column.clone().declared_as(field);
            }
            _ => {}
        }
    }
    Ok(())
}

/// A table with its metadata. Where others have changed it so often since this daemon has heard of it
/// that the metadata is gone, the table as it is now.
pub async fn current(
    files: &TableFiles,
    catalog: &Catalog,
    table: Arc<Table>,
) -> Result<(Arc<Table>, Arc<TableMetadata>)> {
    let missing = match files.metadata(&managed(&table)?.metadata).await {
        Err(error @ Error::NotFound { .. }) => error,
        metadata => return Ok((table, metadata?)),
    };
    let now = catalog.table(&table.name, Consistency::Strong).await?;
    let newer = now.record.oid == table.record.oid && now.stat.mzxid > table.stat.mzxid;
    // A state that no store knows is a transaction block's own, and nobody else has changed that.
    if !newer || table.stat.mzxid < 0 {
        return Err(missing);
    }
    let metadata = files.metadata(&managed(&now)?.metadata).await?;
    Ok((now, metadata))
}

impl From<catalog::Error> for Error {
    fn from(error: catalog::Error) -> Self {
        Self::Catalog(Box::new(error))
    }
}
