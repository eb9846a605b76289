//! Statements under which a worker died.
//!
//! As long as the client has seen nothing of a result, the statement can run again without the
//! worker, and the client need not know. The first part of a result waits here, so that more
//! statements are in that state for longer.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::LogicalPlan;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::Distribution;
use crate::cluster::Worker;
use crate::engine::ready::{Course, Ready};
use crate::engine::{Error, Result};

/// What an error says that comes from a connection and was passed on by a worker, as a text.
const OF_CONNECTIONS: [&str; 6] = [
    "transport error",
    "tcp connect error",
    "error reading a body from connection",
    "h2 protocol error",
    "waiting for the plan",
    "stream closed",
];

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
    /// Whether the error is a worker's end, and what to run instead. Those that do not answer are left alone
    /// from now on.
    pub async fn after(self, error: &DataFusionError) -> Result<Option<Ready>> {
        let failed = self.distribution.examine(&self.workers).await;
        let lost = !failed.is_empty() || is_of_connection(error);
        if !lost && !is_opaque(error) {
            return Ok(None);
        }
        let Self { course, logical, returned, left, stop, .. } = self;
        if !lost {
            debug!(%error, "a statement runs here once more, to fail with an error that says more");
            return course.here(&logical, returned, stop).await.map(Some);
        }
        info!(?failed, left, %error, "a worker was lost under a statement");
        let next = match left.checked_sub(1) {
            // Nobody else can be lost here.
            None => course.here(&logical, returned, stop).await,
            left => course.anywhere(logical, returned, left, stop).await,
        };
        next.map(Some)
    }

    /// What a client is told that has seen a part of the result already.
    pub async fn lost(self, error: DataFusionError) -> Error {
        let failed = self.distribution.examine(&self.workers).await;
        if failed.is_empty() {
            return Error::running(error);
        }
        warn!(?failed, %error, "a worker was lost under a statement whose rows have left");
        Error::WorkerLost { workers: failed.join(", ") }
    }
}

/// Whether an error is that of a connection.
fn is_of_connection(error: &DataFusionError) -> bool {
    use tonic::Code::{Cancelled, DeadlineExceeded, Unavailable, Unknown};
    let status = match error.find_root() {
        DataFusionError::External(inner) => inner.downcast_ref::<tonic::Status>(),
        _ => None,
    };
    if let Some(status) = status
        && [Cancelled, DeadlineExceeded, Unavailable, Unknown].contains(&status.code())
    {
        return true;
    }
    let text = error.to_string();
    OF_CONNECTIONS.iter().any(|part| text.contains(part))
}

/// Whether an error is one of this engine's own that has become a text on its way here: neither its
/// SQLSTATE nor its hint can be told.
fn is_opaque(error: &DataFusionError) -> bool {
    matches!(error.find_root(), DataFusionError::External(inner) if !inner.is::<tonic::Status>())
}

/// The first part of a result, while it waits.
#[derive(Debug, Default)]
pub(in crate::engine) struct Spool {
    pub held: Vec<RecordBatch>,
    bytes: usize,
    /// How many bytes are held at most; 0 once they have left.
    limit: usize,
}

impl Spool {
    pub fn new(limit: usize) -> Self {
        Self { held: Vec::new(), bytes: 0, limit }
    }

    /// Takes a batch; returns what may leave.
    pub fn push(&mut self, batch: RecordBatch) -> Vec<RecordBatch> {
        self.bytes += batch.get_array_memory_size();
        self.held.push(batch);
        match self.bytes > self.limit {
            true => self.finish(),
            false => Vec::new(),
        }
    }

    /// All that is held.
    pub fn finish(&mut self) -> Vec<RecordBatch> {
        self.limit = 0;
        std::mem::take(&mut self.held)
    }
}
