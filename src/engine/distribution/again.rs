//! Statements under which a worker died.
//!
//! As long as the client has seen nothing of a result, the statement can run again without the
//! worker, and the client need not know. The first part of a result waits here, so that more
//! statements are in that state for longer.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::LogicalPlan;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::Distribution;
use crate::cluster::Worker;
use crate::engine::ready::{Course, Ready};
use crate::engine::{Error, Result};
use crate::telemetry;

/// What is needed to run a spread statement once more.
#[derive(Debug)]
pub(in crate::engine) struct Again {
    pub distribution: Arc<Distribution>,
    pub course: Course,
    pub logical: LogicalPlan,
    pub returned: Option<usize>,
    /// Who takes part in the present attempt.
    pub workers: Vec<Worker>,
    /// Attempts that are left.
    pub left: u32,
    /// Bytes of the first part of the result that wait here.
    pub spool: usize,
    pub stop: CancellationToken,
}

impl Again {
    /// Ends with an error when the engine of a worker hangs, which ends no connection. Asked now and then for as
    /// long as the statement takes.
    pub fn bereaved(&self) -> AbortOnDropHandle<DataFusionError> {
        let (distribution, workers) = (self.distribution.clone(), self.workers.clone());
        let network = distribution.peers.network.clone();
        AbortOnDropHandle::new(network.spawn(async move {
            loop {
                tokio::time::sleep(QUESTIONS).await;
                if distribution.any_hangs(&workers).await {
                    let hangs = tonic::Status::unavailable("the engine of a worker hangs");
                    return DataFusionError::External(Box::new(hangs));
                }
            }
        }))
    }

    /// What to run instead, if the statement met the end of a worker and not an error of its own.
    /// Workers that do not answer are left alone from now on.
    pub async fn after(self, error: &DataFusionError) -> Result<Option<Ready>> {
        let cause = Cause::of(error);
        if cause == Cause::Statement {
            return Ok(None);
        }
        let failed = self.distribution.lost(&self.workers).await;
        let error = telemetry::discreet(error);
        let Self { course, logical, returned, left, stop, .. } = self;
        let lost = !failed.is_empty() || cause == Cause::Connection;
        let next = match left.checked_sub(1) {
            Some(left) if lost => {
                info!(?failed, left, %error, "a worker was lost under a statement");
                course.anywhere(logical, returned, Some(left), stop).await
            }
            // Nobody else can be lost here; and an error that lost its type on the way has it here.
            _ => {
                info!(?failed, %error, "a statement that failed on several daemons runs here alone");
                course.here(&logical, returned, stop).await
            }
        };
        next.map(Some)
    }

    /// What a client is told that has seen a part of the result already.
    pub async fn lost(self, error: DataFusionError) -> Error {
        let cause = Cause::of(&error);
        if cause == Cause::Statement {
            return Error::running(error);
        }
        let failed = self.distribution.lost(&self.workers).await;
        let lost = match failed.is_empty() {
            false => format!("the worker {}", failed.join(", ")),
            true if cause == Cause::Connection => "the connection to a worker".to_owned(),
            true => return Error::running(error),
        };
        let error = telemetry::discreet(&error);
        warn!(lost, %error, "a statement failed whose rows have left");
        Error::WorkerLost { lost }
    }
}

/// What an error of a spread statement comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// The statement itself: it would fail everywhere.
    Statement,
    /// A connection to a worker.
    Connection,
    /// It has come as a text, through another worker or because its type is this engine's own; or it
    /// is a defect.
    Unclear,
}

impl Cause {
    fn of(error: &DataFusionError) -> Self {
        use tonic::Code::{Cancelled, DeadlineExceeded, Unavailable, Unknown};
        match error.find_root() {
            DataFusionError::External(inner) => match inner.downcast_ref::<tonic::Status>() {
                Some(status)
                    if [Cancelled, DeadlineExceeded, Unavailable, Unknown]
                        .contains(&status.code()) =>
                {
                    Self::Connection
                }
                _ => Self::Unclear,
            },
            DataFusionError::Execution(text) if text.contains(NO_PLAN) => Self::Unclear,
            // What may be a defect of spreading: a panic on a worker, or a plan that cannot be read
            // there. (Seen: one that goes to a worker after a part of it here has put values into its
            // joins' dynamic filters.)
            DataFusionError::Internal(_)
            | DataFusionError::Plan(_)
            | DataFusionError::Configuration(_) => Self::Unclear,
            _ => Self::Statement,
        }
    }
}

/// In the words of datafusion-distributed 4.0, which gives no other sign, of a worker that was asked for
/// the rows of a part which it was not given, or no longer has.
const NO_PLAN: &str = "timed-out while waiting for the plan";

/// Time between questions to the workers of a statement, whether their engines hang.
const QUESTIONS: Duration = Duration::from_secs(5);

/// How long the first rows of a result wait for others.
const PATIENCE: Duration = Duration::from_secs(1);

/// The first part of a result, while it waits.
#[derive(Debug, Default)]
pub(in crate::engine) struct Spool {
    held: Vec<RecordBatch>,
    bytes: usize,
    /// How many bytes are held at most; 0 once they have left.
    limit: usize,
    due: Option<Instant>,
}

impl Spool {
    pub fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Takes a batch; returns what may leave.
    pub fn push(&mut self, batch: RecordBatch) -> Vec<RecordBatch> {
        self.bytes += batch.get_array_memory_size();
        self.held.push(batch);
        // Rows without columns have no bytes.
        if self.limit == 0 || self.bytes > self.limit {
            return self.finish();
        }
        self.due.get_or_insert_with(|| Instant::now() + PATIENCE);
        Vec::new()
    }

    /// When what is held has waited long enough.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// All that is held; nothing is from now on.
    pub fn finish(&mut self) -> Vec<RecordBatch> {
        self.limit = 0;
        self.due = None;
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn external(error: impl std::error::Error + Send + Sync + 'static) -> DataFusionError {
        DataFusionError::External(Box::new(error))
    }

    #[test]
    fn what_a_statement_says_is_no_connection_that_was_lost() {
        let said = DataFusionError::Execution("transport error, stream closed".to_owned());
        assert_eq!(Cause::of(&said), Cause::Statement);
        let told = std::io::Error::other("transport error").to_string();
        assert_eq!(Cause::of(&external(std::io::Error::other(told))), Cause::Unclear);
    }

    #[test]
    fn a_connection_is_known_by_its_type() {
        let reset = external(tonic::Status::unavailable("tcp connect error"));
        assert_eq!(Cause::of(&reset.context("while reading")), Cause::Connection);
        let refused = external(tonic::Status::permission_denied("no"));
        assert_eq!(Cause::of(&refused), Cause::Unclear);
    }

    #[test]
    fn rows_leave_when_there_are_enough_of_them_or_when_they_have_waited() {
        let values = || Arc::new(arrow::array::Int64Array::from(vec![1; 100])) as _;
        let batch = || RecordBatch::try_from_iter([("n", values())]).unwrap();
        let size = batch().get_array_memory_size();
        let mut spool = Spool::new(2 * size);
        assert!(spool.push(batch()).is_empty());
        assert!(spool.due().is_some());
        assert!(spool.push(batch()).is_empty());
        assert_eq!(spool.push(batch()).len(), 3);
        assert_eq!(spool.push(batch()).len(), 1);
        let empty = RecordBatch::new_empty(Arc::new(arrow::datatypes::Schema::empty()));
        assert_eq!(spool.push(empty).len(), 1);
        assert!(spool.due().is_none());
    }
}
