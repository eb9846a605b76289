//! What the rows of a table are made of: as long as that is the same, so are they.

use std::mem::size_of;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use chrono::{DateTime, TimeDelta, Utc};
use datafusion::catalog::{Session, TableProvider};
use object_store::ObjectMeta;
use uuid::Uuid;

use super::Result;
use super::managed::ManagedTable;
use super::scan::ExternalTable;
use crate::catalog::External;

/// What a scan of a whole table would read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents {
    Managed(Version),
    External(Listing),
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

/// An external table as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    pub definition: Arc<External>,
    pub schema: SchemaRef,
    /// Files with their size, time of change and, where the store has one, tag.
    pub files: Arc<Vec<ObjectMeta>>,
}

impl Contents {
    /// Bytes that it takes in memory, about.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Managed(_) => size_of::<Self>(),
            Self::External(listing) => {
                let bytes =
                    |file: &ObjectMeta| size_of::<ObjectMeta>() + file.location.as_ref().len();
                listing.files.iter().map(bytes).sum()
            }
        }
    }
}

/// A file that is younger may be written again without a later time of change: the coarsest clocks of
/// file systems tell two seconds apart.
const SETTLED_AFTER: TimeDelta = TimeDelta::seconds(2);

/// Whether a table's rows are those of files.
pub fn is_of_files(table: &dyn TableProvider) -> bool {
    table.is::<ManagedTable>() || table.is::<ExternalTable>()
}

/// Looks up what a table holds; `None` for tables that are not of files, or of files that are changed
/// just now.
pub async fn contents(
    session: &dyn Session,
    table: &dyn TableProvider,
) -> Option<Result<Contents>> {
    if let Some(table) = table.downcast_ref::<ManagedTable>() {
        return table.version().map(|version| Ok(Contents::Managed(version)));
    }
    let table = table.downcast_ref::<ExternalTable>()?;
    match table.list(session).await {
        Ok(files) if are_settled(&files, Utc::now()) => {
            Some(Ok(Contents::External(table.listing(Arc::new(files)))))
        }
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    }
}

/// The table with just these contents, if others might be found when it is scanned.
pub fn pinned(table: &dyn TableProvider, contents: &Contents) -> Option<Arc<dyn TableProvider>> {
    match (table.downcast_ref::<ExternalTable>(), contents) {
        (Some(table), Contents::External(listing)) => {
            Some(Arc::new(table.pinned(listing.files.clone())))
        }
        _ => None,
    }
}

fn are_settled(files: &[ObjectMeta], now: DateTime<Utc>) -> bool {
    files.iter().all(|file| is_settled(file, now))
}

/// Whether each further change of a file would show in its time of change.
pub(super) fn is_settled(file: &ObjectMeta, now: DateTime<Utc>) -> bool {
    now - file.last_modified >= SETTLED_AFTER
}
