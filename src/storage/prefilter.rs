//! Drops rows of a scan that a join or a sort with a limit above has no use for, where that is many of them.
//!
//! Joins, and sorts with a limit, tell the scans below what they have learned while they ran, as a filter
//! that changes. Scans leave out files and row groups by it, but not rows: to filter while decoding wins
//! much where few rows are left, and loses where many are. Here the filter is tried on some batches, and
//! used on all as long as it drops half of their rows.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_expr::expressions::{Column, DynamicFilterPhysicalExpr};
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::{PhysicalExpr, conjunction, split_conjunction};

/// Batches that pass unseen after one of which too few rows were dropped.
const UNSEEN: usize = 15;

/// A filter that changes while it is used, on a scan's rows.
#[derive(Clone, Debug)]
pub struct Prefilter {
    filter: Arc<dyn PhysicalExpr>,
    /// Batches that still pass unseen.
    unseen: usize,
}

impl Prefilter {
    /// What of a scan's predicate changes, as far as its columns are among those of its rows.
    pub fn new(
        predicate: &Arc<dyn PhysicalExpr>,
        projection: Option<&ProjectionExprs>,
    ) -> Option<Self> {
        let changing = split_conjunction(predicate)
            .into_iter()
            .filter(|part| part.is::<DynamicFilterPhysicalExpr>())
            .filter_map(|part| on_output(part.clone(), projection).ok())
            .collect::<Vec<_>>();
        (!changing.is_empty()).then(|| Self { filter: conjunction(changing), unseen: 0 })
    }

    pub fn apply(&mut self, batch: RecordBatch) -> RecordBatch {
        if self.unseen > 0 {
            self.unseen -= 1;
            return batch;
        }
        // Whoever gave the filter looks at the rows anyway, and fails where that is right.
        match self.filtered(&batch) {
            Ok(Some(filtered)) => filtered,
            Ok(None) | Err(_) => {
                self.unseen = UNSEEN;
                batch
            }
        }
    }

    /// What the filter leaves of a batch; `None` if that is more than half.
    fn filtered(&self, batch: &RecordBatch) -> Result<Option<RecordBatch>> {
        let kept = self.filter.evaluate(batch)?.into_array(batch.num_rows())?;
        if kept.data_type() != &DataType::Boolean {
            return Ok(None);
        }
        let kept = kept.as_boolean();
        if kept.true_count() * 2 > batch.num_rows() {
            return Ok(None);
        }
        Ok(Some(filter_record_batch(batch, kept)?))
    }
}

/// An expression of a table's columns as one of those that a scan gives.
fn on_output(
    expr: Arc<dyn PhysicalExpr>,
    projection: Option<&ProjectionExprs>,
) -> Result<Arc<dyn PhysicalExpr>> {
    let Some(projection) = projection else { return Ok(expr) };
    let moved = expr.transform_up(|node| {
        let Some(column) = node.downcast_ref::<Column>() else {
            return Ok(Transformed::no(node));
        };
        let place = projection.iter().position(|projected| {
            let projected = projected.expr.downcast_ref::<Column>();
            projected.is_some_and(|projected| projected.index() == column.index())
        });
        match place {
            Some(place) => Ok(Transformed::yes(Arc::new(Column::new(column.name(), place)) as _)),
            None => Err(DataFusionError::Plan(format!("{column} is not read"))),
        }
    })?;
    Ok(moved.data)
}
