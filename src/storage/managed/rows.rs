//! A few rows on their way to a file that several statements share.
//!
//! A statement that inserts a row should not cost a file of its own: with many of them the table
//! would be nothing but small files. Rows wait in memory until their commit's turn comes, checked,
//! so that no statement can make another's fail.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool};
use iceberg::spec::TableMetadata;

use super::commit::{Change, NewFiles};
use super::write::{DataWriter, WriteContext, check_rows};
use super::{TableFiles, types};
use crate::storage::Result;

/// Rows of more bytes get files of their own.
pub const MAX_BYTES: usize = 1 << 20;

/// Whether rows of a table may wait for others: where nothing but a NULL can be wrong with them.
pub fn may_wait(metadata: &TableMetadata) -> bool {
    metadata.default_partition_spec().is_unpartitioned()
}

/// Refuses rows that the table cannot take.
pub fn check(metadata: &TableMetadata, rows: &[RecordBatch]) -> Result<()> {
    let schema = types::arrow_schema(metadata.current_schema())?;
    rows.iter().try_for_each(|batch| check_rows(&schema, batch))
}

/// Puts the rows that wait into files.
pub async fn to_files(
    files: &TableFiles,
    metadata: &TableMetadata,
    changes: Vec<Change>,
    memory: &Arc<dyn MemoryPool>,
) -> Result<Vec<Change>> {
    if !changes.iter().any(|change| matches!(change, Change::Rows(_))) {
        return Ok(changes);
    }
    let memory = MemoryConsumer::new("insert").register(memory);
    let mut writer = DataWriter::new(WriteContext::of(files, metadata)?, memory)?;
    let mut others = Vec::new();
    for change in changes {
        match change {
            Change::Rows(rows) => {
                for batch in &rows {
                    writer.write(batch).await?;
                }
            }
            other => others.push(other),
        }
    }
    let spec_id = metadata.default_partition_spec_id();
    others.push(Change::Append(NewFiles { spec_id, files: writer.close().await? }));
    Ok(others)
}
