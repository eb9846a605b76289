//! A file of a table, read as its scans read it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::concat_batches;
use arrow::datatypes::DataType;
use datafusion::datasource::physical_plan::parquet::ParquetAccessPlan;
use datafusion::datasource::physical_plan::{
    FileGroup, FileScanConfig, FileScanConfigBuilder, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::session_state::SessionState;
use datafusion::physical_plan::SendableRecordBatchStream;
use futures::TryStreamExt;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::{RowSelection, RowSelector};
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};

use super::zones::Zones;
use super::{Keyed, MAX_PIECE_BYTES};
use crate::storage::guard::Footers;
use crate::storage::ready_scans;

/// A file in which keys are looked for, and with what it is read.
pub struct Source {
    pub store: ObjectStoreUrl,
    pub file: ObjectMeta,
    /// It never changes.
    pub lasting: bool,
    pub keyed: Keyed,
    pub state: Arc<SessionState>,
    pub context: Arc<TaskContext>,
}

impl Source {
    /// Columns of a piece.
    pub async fn piece(&self, zones: &Zones, piece: u32, columns: &[usize]) -> Result<Read> {
        let metadata = self.metadata().await?;
        let range = zones.range(piece);
        if row_bytes(&metadata).saturating_mul(range.len()) > MAX_PIECE_BYTES {
            return Ok(Read::TooLarge);
        }
        let selection = RowSelection::from(vec![
            RowSelector::skip(range.start),
            RowSelector::select(range.len()),
            RowSelector::skip(zones.rows - range.end),
        ]);
        let plan =
            ParquetAccessPlan::try_new_from_overall_row_selection(selection, metadata.row_groups());
        // Of another file by now.
        let Ok(plan) = plan else { return Ok(Read::Gone) };
        let Some(mut rows) = self.scan(columns, Some(plan)).await? else { return Ok(Read::Gone) };
        let schema = rows.schema();
        let (mut batches, mut bytes) = (Vec::new(), 0);
        while let Some(batch) = rows.try_next().await? {
            bytes += batch.columns().iter().map(own_bytes).sum::<usize>();
            if bytes > MAX_PIECE_BYTES {
                return Ok(Read::TooLarge);
            }
            batches.push(batch);
        }
        let rows = concat_batches(&schema, &batches)?;
        if rows.num_rows() != range.len() || !self.is_same().await? {
            return Ok(Read::Gone);
        }
        Ok(Read::Columns(rows.columns().iter().map(compact).collect()))
    }

    /// Rows of the file, all of them or those of a plan; `None` if it is not there as it was.
    pub async fn scan(
        &self,
        columns: &[usize],
        rows: Option<ParquetAccessPlan>,
    ) -> Result<Option<SendableRecordBatchStream>> {
        let columns = columns.to_vec();
        let scan = self.keyed.table.scan(self.state.as_ref(), Some(&columns), &[], None).await?;
        let Some(config) = (scan.downcast_ref::<DataSourceExec>())
            .and_then(|scan| scan.data_source().downcast_ref::<FileScanConfig>())
            .filter(|config| config.file_source().is::<ParquetSource>())
        else {
            return Ok(None);
        };
        let mut files = config.file_groups.iter().flat_map(FileGroup::iter);
        let Some(file) = files.find(|file| file.object_meta == self.file) else { return Ok(None) };
        let mut file = file.clone();
        file.range = None;
        if let Some(rows) = rows {
            file = file.with_extension(rows);
        }
        let config = FileScanConfigBuilder::from(config.clone())
            .with_file_groups(vec![FileGroup::new(vec![file])])
            .build();
        let scan = ready_scans(DataSourceExec::from_data_source(config), &self.context)?;
        Ok(Some(scan.execute(0, self.context.clone())?))
    }

    pub async fn metadata(&self) -> Result<Arc<ParquetMetaData>> {
        let footers = Footers::new(self.object_store()?, self.state.runtime_env());
        Ok(footers.read(&self.file).await?)
    }

    /// Whether the file that was read is the one that was listed.
    pub async fn is_same(&self) -> Result<bool> {
        if self.lasting {
            return Ok(true);
        }
        let now = self.object_store()?.head(&self.file.location).await?;
        let (then, size) = (&self.file, now.size == self.file.size);
        // A listing may tell less than a look at one file: no version, a finer time.
        Ok(size
            && match (&now.e_tag, &then.e_tag) {
                (Some(now), Some(then)) => now == then,
                _ => now.last_modified.timestamp() == then.last_modified.timestamp(),
            })
    }

    fn object_store(&self) -> Result<Arc<dyn ObjectStore>> {
        self.state.runtime_env().object_store(&self.store)
    }
}

/// What was read of a piece.
pub enum Read {
    Columns(Vec<ArrayRef>),
    TooLarge,
    /// The file is not the same any more.
    Gone,
}

/// Bytes of a row of all columns, in the row group with the largest ones.
fn row_bytes(metadata: &ParquetMetaData) -> usize {
    let bytes = |group: &RowGroupMetaData| group.total_byte_size() / group.num_rows().max(1);
    let most = metadata.row_groups().iter().map(bytes).max().unwrap_or(0);
    usize::try_from(most).unwrap_or(usize::MAX)
}

/// Bytes of a column's own values, which may be parts of what is larger, or the same ones many times.
pub fn own_bytes(column: &ArrayRef) -> usize {
    let texts = |lengths: usize| lengths + column.len() * size_of::<u128>();
    match column.data_type() {
        DataType::Utf8View => texts(column.as_string_view().lengths().map(|n| n as usize).sum()),
        DataType::BinaryView => texts(column.as_binary_view().lengths().map(|n| n as usize).sum()),
        kind => match kind.primitive_width() {
            Some(width) => column.len() * width,
            None => column.get_array_memory_size(),
        },
    }
}

/// A column that holds no more than its own values.
pub fn compact(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Utf8View => Arc::new(column.as_string_view().gc()),
        DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
        _ => column.clone(),
    }
}
