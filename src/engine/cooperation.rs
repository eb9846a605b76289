//! Keeps one statement from holding a thread for itself.
//!
//! Operators yield when they have taken their share of rows from a scan. One that makes many rows
//! of few, a join or an UNNEST, asks its scan so rarely that it would run for minutes without a
//! pause: other statements would starve and nobody could cancel it. Such operators are put on a
//! share of their own.
//!
//! A nested loop join may look at billions of pairs before it has a row to give, in one poll that no
//! share ends: its condition looks whether the statement still runs, and gives the other tasks of its
//! thread another one.

use std::cell::Cell;
use std::fmt::{self, Display, Formatter};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema};

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec,
};
use datafusion::physical_plan::unnest::UnnestExec;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};
use tokio_util::sync::CancellationToken;

use super::branches::in_turn;

/// How long other tasks wait for a thread on which a condition is computed again and again.
const SHARE: Duration = Duration::from_millis(10);

thread_local! {
    /// When this thread last let its other tasks go.
    static LET_GO: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Lets every operator that multiplies rows pause, or end once `stop` is cancelled, and has no more
/// branches of a union at work than there are `threads`.
pub(super) fn make_fair(
    plan: Arc<dyn ExecutionPlan>,
    threads: usize,
    stop: &CancellationToken,
) -> Result<Arc<dyn ExecutionPlan>> {
    let stoppable = plan.transform_up(|node| {
        let join = node.downcast_ref::<NestedLoopJoinExec>();
        Ok(match join.map(|join| watched(join, stop)).transpose()?.flatten() {
            Some(watched) => Transformed::yes(watched),
            None => Transformed::no(node),
        })
    })?;
    pausing(in_turn(stoppable.data, threads)?)
}

/// Lets every operator that multiplies rows pause.
pub(super) fn pausing(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let fair = plan.transform_up(|node| {
        let multiplies = node.is::<NestedLoopJoinExec>()
            || node.is::<CrossJoinExec>()
            || node.is::<HashJoinExec>()
            || node.is::<SortMergeJoinExec>()
            || node.is::<UnnestExec>();
        Ok(match multiplies {
            true => Transformed::yes(Arc::new(CooperativeExec::new(node)) as _),
            false => Transformed::no(node),
        })
    })?;
    Ok(fair.data)
}

/// The join with a condition that fails once the statement is stopped.
pub(super) fn watched(
    join: &NestedLoopJoinExec,
    stop: &CancellationToken,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(filter) = join.filter() else { return Ok(None) };
    let condition = Watched { inner: filter.expression().clone(), stop: stop.clone() };
    let filter = JoinFilter::new(
        Arc::new(condition),
        filter.column_indices().to_vec(),
        filter.schema().clone(),
    );
    let join = NestedLoopJoinExec::try_new(
        join.left().clone(),
        join.right().clone(),
        Some(filter),
        join.join_type(),
        join.projection().as_deref().map(<[usize]>::to_vec),
    )?;
    Ok(Some(Arc::new(join)))
}

/// Whether this thread's other tasks have waited long enough. From then on they count as let go: the
/// rest of the poll runs on this thread without them.
fn has_had_its_share() -> bool {
    LET_GO.with(|let_go| {
        let now = Instant::now();
        let since = let_go.get().map(|last| now - last);
        if since.is_none_or(|since| since >= SHARE) {
            let_go.set(Some(now));
        }
        since.is_some_and(|since| since >= SHARE)
    })
}

/// Why a condition was not computed. Not an error of the statement's: where a part of it was given up,
/// the rest may go on elsewhere.
#[derive(Debug, thiserror::Error)]
#[error("the statement was stopped")]
struct Stopped;

/// A condition, as long as the statement runs.
#[derive(Debug)]
struct Watched {
    inner: Arc<dyn PhysicalExpr>,
    stop: CancellationToken,
}

impl PartialEq for Watched {
    fn eq(&self, other: &Self) -> bool {
        self.inner.eq(&other.inner)
    }
}

impl Eq for Watched {}

impl Hash for Watched {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl Display for Watched {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl PhysicalExpr for Watched {
    fn data_type(&self, schema: &Schema) -> Result<DataType> {
        self.inner.data_type(schema)
    }

    fn nullable(&self, schema: &Schema) -> Result<bool> {
        self.inner.nullable(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        if self.stop.is_cancelled() {
            return Err(DataFusionError::External(Box::new(Stopped)));
        }
        match has_had_its_share() {
            true => tokio::task::block_in_place(|| {
                // Or the thread that takes over the tasks may never be as quick as the condition.
                std::thread::yield_now();
                self.inner.evaluate(batch)
            }),
            false => self.inner.evaluate(batch),
        }
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.inner]
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        let inner = children.pop().unwrap_or_else(|| self.inner.clone());
        Ok(Arc::new(Self { inner, stop: self.stop.clone() }))
    }

    fn fmt_sql(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.inner.fmt_sql(f)
    }
}
