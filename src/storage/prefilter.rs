//! Drops rows of a scan that a join or a sort with a limit above has no use for, where that is many of them.
//!
//! Joins, and sorts with a limit, tell the scans below what they have learned while they ran, as a filter
//! that changes. Scans leave out files and row groups by it, but not rows: to filter while decoding wins
//! much where few rows are left, and loses where many are. Here each filter is tried on some batches, and
//! used on all as long as it drops half of their rows. Before them comes what the statement itself asks of
//! numbers and dates: a step above would drop these rows as well, but after the filters had looked for each
//! of them in a hash table.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_expr::expressions::{Column, DynamicFilterPhysicalExpr};
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::{PhysicalExpr, conjunction, split_conjunction};

use super::conditions::{Cost, compares, cost};

/// Batches that pass unseen after one of which too few rows were dropped.
const UNSEEN: usize = 15;

/// Filters on a scan's rows, of which some change while they are used.
#[derive(Clone, Debug)]
pub struct Prefilter {
    filters: Vec<Filter>,
}

#[derive(Clone, Debug)]
struct Filter {
    condition: Arc<dyn PhysicalExpr>,
    /// Batches that still pass unseen.
    unseen: usize,
}

impl Prefilter {
    /// What of a scan's predicate changes, as far as its columns are among those of its rows, behind what
    /// does not and is cheap.
    pub fn new(
        predicate: &Arc<dyn PhysicalExpr>,
        projection: Option<&ProjectionExprs>,
        schema: &Schema,
    ) -> Option<Self> {
        let of_output = |part: &Arc<dyn PhysicalExpr>| on_output(part.clone(), projection).ok();
        let parts = split_conjunction(predicate);
        let changing = parts.iter().filter(|part| part.is::<DynamicFilterPhysicalExpr>());
        let changing: Vec<_> = changing.filter_map(|part| of_output(part)).collect();
        if changing.is_empty() {
            return None;
        }
        let cheap = parts.into_iter().filter(|part| is_cheap(part, schema));
        let fixed: Vec<_> = cheap.filter_map(of_output).collect();
        let fixed = (!fixed.is_empty()).then(|| conjunction(fixed));
        let conditions = fixed.into_iter().chain(changing);
        Some(Self {
            filters: conditions.map(|condition| Filter { condition, unseen: 0 }).collect(),
        })
    }

    pub fn apply(&mut self, batch: RecordBatch) -> RecordBatch {
        self.filters.iter_mut().fold(batch, |batch, filter| filter.apply(batch))
    }
}

impl Filter {
    fn apply(&mut self, batch: RecordBatch) -> RecordBatch {
        if batch.num_rows() == 0 {
            return batch;
        }
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
        let kept = self.condition.evaluate(batch)?.into_array(batch.num_rows())?;
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

/// Whether a condition compares a column of a few bytes with a constant.
fn is_cheap(condition: &Arc<dyn PhysicalExpr>, schema: &Schema) -> bool {
    compares(condition) && cost(condition, schema) == Cost::Constant
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

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array};
    use arrow::datatypes::Int64Type;
    use datafusion::logical_expr::Operator;
    use datafusion::physical_expr::expressions::{BinaryExpr, lit};
    use datafusion::physical_expr::projection::ProjectionExpr;

    use super::*;

    /// Rows with the numbers from 0 in the column `a`, and in `b`, where each tenth is NULL.
    fn batch(rows: i64) -> RecordBatch {
        let a = Arc::new(Int64Array::from_iter(0..rows)) as ArrayRef;
        let b = Arc::new(Int64Array::from_iter((0..rows).map(|n| (n % 10 > 0).then_some(n))));
        RecordBatch::try_from_iter_with_nullable([("a", a, true), ("b", b as ArrayRef, true)])
            .expect("rows")
    }

    fn schema() -> Schema {
        batch(0).schema().as_ref().clone()
    }

    /// A filter on the second of the table's columns, that lets pass what is below a limit.
    fn below(limit: i64) -> (Arc<DynamicFilterPhysicalExpr>, Arc<dyn PhysicalExpr>) {
        let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new("b", 1));
        let filter = DynamicFilterPhysicalExpr::new(vec![column], lit(true));
        let filter = Arc::new(filter);
        filter.update(below_expr(limit)).expect("an update");
        (filter.clone(), filter)
    }

    fn below_expr(limit: i64) -> Arc<dyn PhysicalExpr> {
        let column = Arc::new(Column::new("b", 1));
        Arc::new(BinaryExpr::new(column, Operator::Lt, lit(limit)))
    }

    fn rows(batch: &RecordBatch, column: &str) -> Vec<Option<i64>> {
        let column = batch.column_by_name(column).expect("a column");
        column.as_primitive::<Int64Type>().iter().collect()
    }

    #[test]
    fn what_drops_half_of_the_rows_is_used() {
        let (changing, predicate) = below(3);
        let mut prefilter = Prefilter::new(&predicate, None, &schema()).expect("it changes");
        // NULL is not below anything.
        assert_eq!(rows(&prefilter.apply(batch(100)), "b"), [Some(1), Some(2)]);
        changing.update(below_expr(90)).expect("an update");
        assert_eq!(prefilter.apply(batch(100)).num_rows(), 100, "it keeps too many");
        changing.update(below_expr(3)).expect("an update");
        for _ in 0..UNSEEN {
            assert_eq!(prefilter.apply(batch(100)).num_rows(), 100, "not tried");
        }
        assert_eq!(prefilter.apply(batch(100)).num_rows(), 2, "tried again");
    }

    #[test]
    fn what_the_statement_asks_comes_first() {
        let (changing, predicate) = below(90);
        let first: Arc<dyn PhysicalExpr> =
            Arc::new(BinaryExpr::new(Arc::new(Column::new("a", 0)), Operator::Lt, lit(30_i64)));
        let both = conjunction([predicate, first]);
        let mut prefilter = Prefilter::new(&both, None, &schema()).expect("it changes");
        assert_eq!(prefilter.apply(batch(100)).num_rows(), 30, "the other keeps too many");
        let mut prefilter = Prefilter::new(&both, None, &schema()).expect("it changes");
        changing.update(below_expr(12)).expect("an update");
        assert_eq!(prefilter.apply(batch(100)).num_rows(), 10);
        let all = batch(20);
        assert_eq!(prefilter.apply(all).num_rows(), 10, "only the one that changes drops some");
    }

    #[test]
    fn columns_are_those_that_the_scan_gives() {
        let (_, predicate) = below(3);
        let given = |names: &[(&str, usize)]| {
            names
                .iter()
                .map(|(name, place)| ProjectionExpr {
                    expr: Arc::new(Column::new(name, *place)),
                    alias: (*name).to_owned(),
                })
                .collect::<ProjectionExprs>()
        };
        let turned = batch(100).project(&[1, 0]).expect("columns");
        let projection = given(&[("b", 1), ("a", 0)]);
        let mut prefilter =
            Prefilter::new(&predicate, Some(&projection), &schema()).expect("it is there");
        assert_eq!(rows(&prefilter.apply(turned), "a"), [Some(1), Some(2)]);
        let without = given(&[("a", 0)]);
        assert!(Prefilter::new(&predicate, Some(&without), &schema()).is_none(), "it is not read");
        let fixed: Arc<dyn PhysicalExpr> = below_expr(3);
        assert!(Prefilter::new(&fixed, None, &schema()).is_none(), "others look at that");
    }
}
