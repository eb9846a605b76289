//! What the rows of a table are made of: as long as that is the same, so are they.

use std::mem::size_of;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use object_store::ObjectMeta;
use uuid::Uuid;

use super::managed::ManagedTable;
use super::scan::ExternalTable;
use super::{Result, external};

/// What a scan of a whole table would read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents {
    Managed(Version),
    /// Files with their size, time of change and, where the store has one, tag.
    Files(Vec<ObjectMeta>),
}

/// A managed table as it was at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub table: Uuid,
    pub snapshot: Option<i64>,
    /// With the columns' ids.
    pub schema: SchemaRef,
    /// Milliseconds since 1970: properties may change without a snapshot.
    pub updated: i64,
}

impl Contents {
    /// Bytes that it takes in memory, about.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Managed(_) => size_of::<Self>(),
            Self::Files(files) => {
                let bytes =
                    |file: &ObjectMeta| size_of::<ObjectMeta>() + file.location.as_ref().len();
                files.iter().map(bytes).sum()
            }
        }
    }
}

/// Looks up what a table holds; `None` for tables that are not of files.
pub async fn contents(
    session: &dyn Session,
    table: &dyn TableProvider,
) -> Option<Result<Contents>> {
    if let Some(table) = table.downcast_ref::<ManagedTable>() {
        return table.version().map(|version| Ok(Contents::Managed(version)));
    }
    let table = table.downcast_ref::<ExternalTable>()?;
    Some(external::list(session, table.location()).await.map(Contents::Files))
}
