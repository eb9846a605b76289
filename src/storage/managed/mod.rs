//! Managed tables: Apache Iceberg v2, with Parquet files that this daemon and its peers write.
//!
//! # What a table is
//! The znode of a table names one metadata file. That names snapshots; the current one names a list
//! of manifests; those name the data files. None of these files ever changes. So a commit is one
//! version-checked write of the znode, a reader sees one snapshot from its first row to its last,
//! and whatever dies in between leaves files that nothing names, which housekeeping removes.
//!
//! - [`types`]: columns in Arrow's and in Iceberg's terms.
//! - [`create`]: a new table's first metadata.
//! - [`files`]: the small files that describe a table, through caches.
//! - [`avro`]: looks at manifests before their reader does.
//! - [`listing`]: a manifest's files in the form that scans use.
//! - [`scan`]: a snapshot as the engine sees it.
//! - [`history`]: which snapshot a moment means.
//! - [`evolve`]: old files under present names and types.
//! - [`write`](mod@write): rows become data files, whose form [`properties`] says.
//! - [`transforms`]: what a column's values become as those of a partition.
//! - [`rows`]: a few rows that wait for others before they become a file.
//! - [`commit`]: a table's next state.
//! - [`clock`]: its own time, which only goes forward.
//! - [`inspect`]: what is known of a table, as tables.
//! - [`alter`]: changes of columns and properties.
//! - [`compact`]: which small files are worth being made one.
//! - [`expire`]: which snapshots a table's history need not have any more, and what only they reached.
//! - [`orphans`]: files that nothing names.
//! - [`unfinished`]: files that were begun and are not whole.
//! - [`emptied`]: directories that no file is in any more.
//! - [`overwrite`]: which files make room for those of INSERT OVERWRITE.
//! - [`adopt`]: tables of other writers, taken over.
//! - [`abandoned`]: directories of tables that no catalog has any more.
//! - [`publish`]: the write that makes the next state the current one.

mod abandoned;
mod adopt;
mod alter;
mod avro;
mod clock;
mod commit;
mod compact;
mod create;
mod emptied;
mod evolve;
mod expire;
mod files;
mod history;
mod inspect;
mod listing;
mod orphans;
mod overwrite;
mod parquet_schema;
mod partitioning;
pub mod properties;
mod publish;
mod queue;
pub mod rows;
mod scan;
mod state;
mod statistics;
mod transforms;
pub mod types;
mod unfinished;
mod upload;
pub mod write;

pub use abandoned::Abandoned;
pub use adopt::{Adoptable, Here, examine, own_files};
pub use alter::Alteration;
pub use commit::{Change, NewFiles, Removed, Staged, snapshots, stage};
pub use compact::{Small, small_files};
pub use create::{
    DELETE_AFTER_COMMIT, NewTable, Partitioning, SortColumn, create, is_for_users, is_of_managed,
    table_location, written_location,
};
pub use evolve::{field_id, finds_by_field_id, with_field_ids};
pub use expire::{expired, reached, retained_files};
pub use files::TableFiles;
pub use history::Moment;
pub use inspect::{Aspect, Inspection};
pub use orphans::{Orphans, remove_emptied, remove_orphans};
pub use overwrite::Overwritten;
pub use publish::{Commit, Commits, Races};
pub use scan::{FILE_COLUMN, ManagedTable, ROW_COLUMN, RowIds, live_files};
pub use state::{current, managed, next_record};
pub use write::{DataWriter, WriteContext};

use iceberg::spec::TableMetadata;

use crate::catalog::Column;
use crate::storage::Result;

/// A table's columns for the catalog: those of its metadata, with what the catalog knows of the ones
/// that were there `before`.
pub fn columns_of(metadata: &TableMetadata, before: &[Column]) -> Result<Vec<Column>> {
    let schema = scan::scan_schema(metadata.current_schema())?;
    let columns = schema.fields().iter().map(|field| {
        let id = evolve::field_id(field);
        let known =
            before.iter().find(|column| id.is_some() && evolve::field_id(&column.field()) == id);
        let column = Column::from(field.as_ref());
        match known {
            None => column,
            Some(known) => Column {
                comment: known.comment.clone(),
                default: known.default.clone(),
                grants: known.grants.clone(),
                ..column.declared_as(&known.field())
            },
        }
    });
    Ok(columns.collect())
}
