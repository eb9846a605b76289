//! A physical plan running on the engine's runtime, and its rows arriving elsewhere.

use arrow::array::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::physical_plan::execute_stream;
use futures::StreamExt;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinError;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::DropGuard;
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument, Span};

use super::distribution::{Again, Spool};
use super::ready::Ready;
use super::{Error, Result};
use crate::faults;
use crate::storage::own_bytes;

/// Results on their way from the engine to a slower reader.
const IN_FLIGHT: usize = 2;

/// Bytes of rows that are few.
const FEW: usize = 64 << 10;

/// Bytes of a batch that are transformed at once.
const MAX_PART: usize = 16 << 20;

/// The results of a running plan, each batch transformed on the engine's threads.
///
/// At most a few results wait here: a reader that stops reading stops the plan. Dropping this
/// cancels the plan; its memory and spill files are gone as soon as its threads pause.
#[derive(Debug)]
pub struct Rows<T>(Source<T>);

#[derive(Debug)]
enum Source<T> {
    Running {
        results: mpsc::Receiver<Result<T>>,
        /// Taken when the results have ended, to learn how.
        task: Option<AbortOnDropHandle<()>>,
        _stop: DropGuard,
    },
    /// All of them.
    Given(std::vec::IntoIter<Result<T>>),
}

/// A batch in pieces of a bounded size, since what they become waits in memory for the reader.
fn parts(batch: &RecordBatch) -> impl Iterator<Item = RecordBatch> + use<'_> {
    let (rows, bytes) = (batch.num_rows(), batch.get_array_memory_size());
    let pieces = bytes.div_ceil(MAX_PART).max(1);
    let step = rows.div_ceil(pieces).max(1);
    // A batch without rows is still a result.
    (0..rows.max(1)).step_by(step).map(move |at| batch.slice(at, step.min(rows - at)))
}

/// Whether rows are so few that to hand them to another thread takes longer than what is done with them.
pub(super) fn are_few(rows: &[RecordBatch]) -> bool {
    rows.iter().flat_map(RecordBatch::columns).map(own_bytes).sum::<usize>() <= FEW
}

/// Whether rows are few and take little memory, so that they may be kept.
pub(super) fn are_small(rows: &[RecordBatch]) -> bool {
    rows.iter().map(RecordBatch::get_array_memory_size).sum::<usize>() <= FEW
}

impl<T: Send + 'static> Rows<T> {
    /// Starts a plan. `transform` runs for each batch, in order; returning an error ends it.
    pub(super) fn start(
        runtime: &Handle,
        ready: Ready,
        mut transform: impl FnMut(RecordBatch) -> Result<T> + Send + 'static,
    ) -> Self {
        if let Some(rows) = ready.given.as_deref().filter(|rows| are_few(rows)) {
            if let Some(observation) = &ready.observation {
                observation.count(rows.iter().map(RecordBatch::num_rows).sum());
            }
            let results: Vec<_> = rows.iter().cloned().map(transform).collect();
            return Self(Source::Given(results.into_iter()));
        }
        let (sender, results) = mpsc::channel(IN_FLIGHT);
        let stop = ready.stop.clone().drop_guard();
        let span = ready.observation.as_ref().map_or_else(Span::none, |seen| seen.span());
        let running = async move {
            let mut next = Some(ready);
            while let Some(ready) = next.take() {
                next = run(ready, &sender, &mut transform).await;
            }
        };
        let task = runtime.spawn(running.instrument(span));
        let task = Some(AbortOnDropHandle::new(task));
        Self(Source::Running { results, task, _stop: stop })
    }

    /// The next result; `None` at the end. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<T>> {
        let (results, task) = match &mut self.0 {
            Source::Running { results, task, .. } => (results, task),
            Source::Given(results) => return results.next(),
        };
        if let Some(result) = results.recv().await {
            return Some(result);
        }
        // The sender is gone: either all is well, or the task did not get to say what is not.
        match task.take()?.await {
            Ok(()) => None,
            Err(error) => Some(Err(error.into())),
        }
    }
}

/// Runs a plan to its end. Returns what is to run in its place, if a worker was lost under it and
/// nobody has seen anything of its result.
async fn run<T: Send + 'static>(
    ready: Ready,
    sender: &mpsc::Sender<Result<T>>,
    transform: &mut (impl FnMut(RecordBatch) -> Result<T> + Send),
) -> Option<Ready> {
    faults::point("a plan begins");
    // Outlives the plan's streams.
    let watch = ready.watch();
    let Ready { plan, context, again, observation, mut keep, .. } = ready;
    let schema = plan.schema();
    let mut spool = Spool::new(again.as_ref().map_or(0, |again| again.spool));
    let mut unseen = true;
    let mut bereaved = again.as_deref().map(Again::bereaved);
    let failed = match execute_stream(plan, context) {
        Err(error) => Some(error),
        Ok(mut stream) => loop {
            let next = async {
                match bereaved.as_mut() {
                    None => stream.next().await,
                    Some(bereaved) => tokio::select! {
                        biased;
                        next = stream.next() => next,
                        error = bereaved => Some(Err(error.unwrap_or_else(not_told))),
                    },
                }
            };
            let (leaving, end) = match before(spool.due(), next).await {
                Ok(Some(Ok(batch))) => (spool.push(batch), false),
                Ok(Some(Err(error))) => break Some(error),
                Ok(None) => (spool.finish(), true),
                Err(Elapsed) => (spool.finish(), false),
            };
            for batch in leaving {
                unseen = false;
                keep = keep.and_then(|keep| keep.with(&batch));
                if let Some(observation) = &observation {
                    observation.count(batch.num_rows());
                }
                if !pass_on(&batch, sender, transform).await {
                    return None;
                }
            }
            if end {
                if let Some(keep) = keep.take() {
                    keep.finish(schema.clone());
                }
                break None;
            }
        },
    };
    let failed = failed?;
    if let Some(watch) = watch {
        watch.fail();
    }
    let error = match (failed, again) {
        (error, None) => Error::running(error),
        (error, Some(again)) if unseen => match again.after(&error).await {
            Ok(Some(ready)) => {
                if let Some(observation) = &observation {
                    observation.note_retry();
                }
                return Some(ready);
            }
            Ok(None) => Error::running(error),
            Err(error) => error,
        },
        (error, Some(again)) => again.lost(error).await,
    };
    // Whoever does not listen any more need not know.
    let _ = sender.send(Err(error)).await;
    None
}

/// Whoever was to tell of the workers has ended.
fn not_told(error: JoinError) -> DataFusionError {
    DataFusionError::ExecutionJoin(Box::new(error))
}

/// The time has come.
struct Elapsed;

/// The future's output, if that comes before the time that is due.
async fn before<F: Future>(
    due: Option<Instant>,
    future: F,
) -> std::result::Result<F::Output, Elapsed> {
    match due {
        None => Ok(future.await),
        Some(due) => timeout_at(due, future).await.map_err(|_| Elapsed),
    }
}

/// Sends what becomes of a batch; returns whether anybody wants more.
async fn pass_on<T: Send + 'static>(
    batch: &RecordBatch,
    sender: &mpsc::Sender<Result<T>>,
    transform: &mut (impl FnMut(RecordBatch) -> Result<T> + Send),
) -> bool {
    for part in parts(batch) {
        let result = transform(part);
        let failed = result.is_err();
        if sender.send(result).await.is_err() || failed {
            return false;
        }
    }
    true
}
