//! Columns of old files under the table's present names and types.
//!
//! A column is known by its field id, never by its name or place: a renamed one is found in files
//! that were written before, and one that was dropped does not come back when another takes its
//! name.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::datasource::physical_plan::{FileScanConfig, FileScanConfigBuilder};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr_adapter::{
    DefaultPhysicalExprAdapterFactory, PhysicalExprAdapter, PhysicalExprAdapterFactory,
};
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;

/// Brings expressions on a table's columns to the columns of one file.
#[derive(Debug)]
pub(super) struct ByFieldId;

/// Whether a scan finds columns in its files by field id.
pub fn finds_by_field_id(scan: &FileScanConfig) -> bool {
    scan.expr_adapter_factory.is_some()
}

/// A scan that came from another daemon, finding columns by field id again.
pub fn with_field_ids(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let found = plan.transform_up(|node| {
        let source = node.downcast_ref::<DataSourceExec>().map(DataSourceExec::data_source);
        let Some(scan) = source.and_then(|source| source.downcast_ref::<FileScanConfig>()) else {
            return Ok(Transformed::no(node));
        };
        let scan = FileScanConfigBuilder::from(scan.clone())
            .with_expr_adapter(Some(Arc::new(ByFieldId)))
            .build();
        Ok(Transformed::yes(DataSourceExec::from_data_source(scan) as _))
    })?;
    Ok(found.data)
}

#[derive(Debug)]
struct Adapter {
    /// Matches by name, in a schema where each column of the file has the table's name for it.
    by_name: Arc<dyn PhysicalExprAdapter>,
    physical: SchemaRef,
}

impl PhysicalExprAdapterFactory for ByFieldId {
    fn create(
        &self,
        logical: SchemaRef,
        physical: SchemaRef,
    ) -> Result<Arc<dyn PhysicalExprAdapter>> {
        let renamed = Arc::new(renamed(&logical, &physical));
        let by_name = DefaultPhysicalExprAdapterFactory.create(logical, renamed)?;
        Ok(Arc::new(Adapter { by_name, physical }))
    }
}

impl PhysicalExprAdapter for Adapter {
    fn rewrite(&self, expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
        let rewritten = self.by_name.rewrite(expr)?;
        let own_names = |expr: Arc<dyn PhysicalExpr>| {
            let Some(column) = expr.downcast_ref::<Column>() else {
                return Ok(Transformed::no(expr));
            };
            let name = self.physical.field(column.index()).name();
            Ok(match name == column.name() {
                true => Transformed::no(expr),
                false => Transformed::yes(Arc::new(Column::new(name, column.index()))),
            })
        };
        rewritten.transform(own_names).data()
    }
}

/// A file's schema with the table's names. Files without any ids (their writer knew nothing of
/// Iceberg) are matched by name.
fn renamed(logical: &Schema, physical: &Schema) -> Schema {
    if !physical.fields().iter().any(|field| field_id(field).is_some()) {
        return physical.clone();
    }
    let names: HashMap<i32, &str> = (logical.fields().iter())
        .filter_map(|field| Some((field_id(field)?, field.name().as_str())))
        .collect();
    let fields = physical.fields().iter().enumerate().map(|(at, field)| {
        let name = match field_id(field) {
            // What the reader itself adds, such as row numbers.
            None => return field.as_ref().clone(),
            Some(id) => names.get(&id),
        };
        match name {
            Some(name) => field.as_ref().clone().with_name(*name),
            // Dropped: a name that no column can have.
            None => field.as_ref().clone().with_name(format!("\u{0}{at}")),
        }
    });
    Schema::new(fields.collect::<Vec<_>>())
}

/// The id of a column, by which it is known whatever it is called.
pub fn field_id(field: &Field) -> Option<i32> {
    field.metadata().get(PARQUET_FIELD_ID_META_KEY)?.parse().ok()
}
