//! A file of a table, read as its scans read it.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::array::{Array, AsArray};
use arrow::compute::concat_batches;
use arrow::datatypes::DataType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::{
    CachedParquetFileReaderFactory, ParquetAccessPlan, ParquetFileReaderFactory,
};
use datafusion::datasource::physical_plan::{
    FileGroup, FileScanConfig, FileScanConfigBuilder, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::session_state::SessionState;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::TryStreamExt;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::{RowSelection, RowSelector};
use parquet::file::metadata::ParquetMetaData;

use super::Keyed;
use super::zones::Zones;
use crate::storage::ready_scans;

/// A file in which keys are looked for, and with what it is read.
pub struct Source {
    pub store: ObjectStoreUrl,
    pub file: ObjectMeta,
    pub keyed: Keyed,
    pub state: Arc<SessionState>,
    pub context: Arc<TaskContext>,
}

impl Source {
    /// Columns of a piece; `None` if the file is not the same any more.
    pub async fn piece(
        &self,
        zones: &Zones,
        piece: u32,
        columns: &[usize],
    ) -> Result<Option<Vec<ArrayRef>>> {
        let Some(metadata) = self.metadata().await? else { return Ok(None) };
        let range = zones.range(piece);
        let selection = RowSelection::from(vec![
            RowSelector::skip(range.start),
            RowSelector::select(range.len()),
            RowSelector::skip(zones.rows - range.end),
        ]);
        let plan =
            ParquetAccessPlan::try_new_from_overall_row_selection(selection, metadata.row_groups());
        // Of another file by now.
        let Ok(plan) = plan else { return Ok(None) };
        let Some(batches) = self.scan(columns, Some(plan)).await? else { return Ok(None) };
        let schema = batches.schema();
        let batches: Vec<_> = batches.try_collect().await?;
        let rows = concat_batches(&schema, &batches)?;
        if rows.num_rows() != range.len() || !self.is_same().await {
            return Ok(None);
        }
        Ok(Some(rows.columns().iter().map(compact).collect()))
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

    /// The file's footer; `None` if there is none where the file was.
    pub async fn metadata(&self) -> Result<Option<Arc<ParquetMetaData>>> {
        let environment = self.state.runtime_env();
        let footers = environment.cache_manager.get_file_metadata_cache();
        let files = CachedParquetFileReaderFactory::new(self.object_store()?, footers);
        let file = PartitionedFile::new_from_meta(self.file.clone());
        let metrics = ExecutionPlanMetricsSet::new();
        let mut reader = files.create_reader(0, file, None, &metrics)?;
        Ok(reader.get_metadata(None).await.ok())
    }

    /// Whether the file that was read is the one that was listed.
    pub async fn is_same(&self) -> bool {
        // Files of managed tables never change.
        if self.file.last_modified == chrono::DateTime::UNIX_EPOCH {
            return true;
        }
        let Ok(store) = self.object_store() else { return false };
        store.head(&self.file.location).await.is_ok_and(|now| now == self.file)
    }

    fn object_store(&self) -> Result<Arc<dyn ObjectStore>> {
        self.state.runtime_env().object_store(&self.store)
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
