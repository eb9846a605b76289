//! Bytes of a client's on their way to become a table's batches.
//!
//! The protocol pushes bytes into a [`Feed`]; they are decoded on the engine's threads, and
//! [`Batches`] of them go to whoever writes tables. Only a few blocks and batches are under way at a
//! time, so that a client is read only as fast as its rows are taken. A stream of batches ends well
//! only if the client has said that it is done; whatever else happens is an error in it, after which
//! nothing may be kept.

use std::fmt::{self, Debug, Formatter};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use arrow::array::RecordBatch;
use bytes::Bytes;
use futures::{Stream, stream};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::Error;
use crate::engine;
use crate::query::{self, Result, Stop};
use crate::values::decode::copy::{self as data, CopyDecoder, Fault};

/// Blocks of bytes, and batches, that wait for whoever takes them.
const IN_FLIGHT: usize = 2;

/// What a client sends.
#[derive(Debug)]
enum Input {
    Block(Bytes),
    End,
    Fault(Fault),
}

/// Takes what a client sends.
#[derive(Debug)]
pub struct Feed(mpsc::Sender<Input>);

impl Feed {
    /// Takes a block of bytes, cut anywhere, as soon as there is place for it. False if nobody wants
    /// more: the copy has ended, and not well.
    pub async fn push(&self, block: Bytes) -> bool {
        self.0.send(Input::Block(block)).await.is_ok()
    }

    /// That was all.
    pub async fn end(self) {
        // Nobody wants it who does not know already why.
        let _ = self.0.send(Input::End).await;
    }

    /// No more comes, for this reason.
    pub async fn fail(self, fault: Fault) {
        let _ = self.0.send(Input::Fault(fault)).await;
    }
}

/// What comes of the client's bytes.
#[derive(Debug)]
enum Output {
    Batch(RecordBatch),
    End,
    Failed(data::Error),
}

/// Why there are no more batches.
#[derive(Clone, Debug)]
pub enum Cause {
    Data(Arc<data::Error>),
    Stopped(Stop),
    Panic(String),
}

impl From<Cause> for query::Error {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Data(error) => Error::Data(error).into(),
            Cause::Stopped(stop) => Self::Stopped(stop),
            Cause::Panic(text) => engine::Error::Panic(text).into(),
        }
    }
}

/// Decoded rows.
pub struct Batches {
    output: mpsc::Receiver<Output>,
    /// Taken when there is no more output, to learn why.
    task: Option<AbortOnDropHandle<()>>,
    stop: Pin<Box<dyn Future<Output = Stop> + Send>>,
    /// Why they ended before their end.
    pub cause: Arc<OnceLock<Cause>>,
}

impl Debug for Batches {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batches").finish_non_exhaustive()
    }
}

/// A way for bytes to become batches on the threads of a runtime, until somebody says stop.
pub fn channel(
    decoder: CopyDecoder,
    runtime: &Handle,
    stop: impl Future<Output = Stop> + Send + 'static,
) -> (Feed, Batches) {
    let (feed, input) = mpsc::channel(IN_FLIGHT);
    let (decoded, output) = mpsc::channel(IN_FLIGHT);
    let task = AbortOnDropHandle::new(runtime.spawn(decode(decoder, input, decoded)));
    let (stop, cause) = (Box::pin(stop), Arc::default());
    (Feed(feed), Batches { output, task: Some(task), stop, cause })
}

async fn decode(
    mut decoder: CopyDecoder,
    mut input: mpsc::Receiver<Input>,
    output: mpsc::Sender<Output>,
) {
    while let Some(arrived) = input.recv().await {
        let is_end = matches!(arrived, Input::End);
        match arrived {
            Input::Block(block) => decoder.push(&block),
            Input::End => decoder.end(),
            Input::Fault(fault) => {
                return drop(output.send(Output::Failed(decoder.fail(fault))).await);
            }
        }
        loop {
            let next = match decoder.next_batch() {
                Ok(Some(batch)) => Output::Batch(batch),
                Ok(None) if is_end => Output::End,
                Ok(None) => break,
                Err(error) => Output::Failed(error),
            };
            let is_last = !matches!(next, Output::Batch(_));
            if output.send(next).await.is_err() || is_last {
                return;
            }
        }
    }
}

impl Batches {
    pub fn into_stream(self) -> impl Stream<Item = Result<RecordBatch>> + Send + 'static {
        stream::unfold(Some(self), |batches| async {
            let mut batches = batches?;
            match batches.next().await {
                Ok(None) => None,
                Ok(Some(batch)) => Some((Ok(batch), Some(batches))),
                Err(cause) => {
                    let cause = batches.cause.get_or_init(|| cause).clone();
                    Some((Err(cause.into()), None))
                }
            }
        })
    }

    async fn next(&mut self) -> Result<Option<RecordBatch>, Cause> {
        let output = tokio::select! {
            biased;
            stop = &mut self.stop => return Err(Cause::Stopped(stop)),
            output = self.output.recv() => output,
        };
        match output {
            Some(Output::Batch(batch)) => Ok(Some(batch)),
            Some(Output::End) => Ok(None),
            Some(Output::Failed(error)) => Err(Cause::Data(Arc::new(error))),
            // The client is gone without an end, or the decoder is.
            None => Err(match self.task.take() {
                Some(task) => match task.await.map_err(engine::Error::from) {
                    Err(engine::Error::Panic(text)) => Cause::Panic(text),
                    Ok(()) | Err(_) => Cause::Stopped(Stop::Terminated),
                },
                None => Cause::Stopped(Stop::Terminated),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field};
    use futures::{FutureExt, StreamExt, TryStreamExt};
    use tokio::task::yield_now;

    use super::*;
    use crate::values::decode::copy::{CopySource, Header};
    use crate::values::encode::{CopyText, TimeZone};

    fn start(stop: impl Future<Output = Stop> + Send + 'static) -> (Feed, Batches) {
        let field = |name: &str, data_type| Arc::new(Field::new(name, data_type, true));
        let fields = [field("a", DataType::Int32), field("b", DataType::Utf8)];
        let text = CopyText { delimiter: b'\t', null: "\\N".into() };
        let source = CopySource::Text(text, Header::None);
        let decoder = CopyDecoder::new("t", &fields, source, TimeZone::utc(), 1 << 20);
        channel(decoder, &Handle::current(), stop)
    }

    fn never() -> impl Future<Output = Stop> + Send + 'static {
        std::future::pending()
    }

    async fn rows(batches: Batches) -> Result<usize> {
        let sizes = batches.into_stream().map_ok(|batch| batch.num_rows());
        sizes.try_fold(0, |sum, rows| async move { Ok(sum + rows) }).await
    }

    #[tokio::test]
    async fn blocks_become_batches() {
        let (feed, batches) = start(never());
        let send = async {
            assert!(feed.push(Bytes::from_static(b"1\tx\n2")).await);
            assert!(feed.push(Bytes::from_static(b"\ty\n3\tz")).await);
            feed.end().await;
        };
        let ((), rows) = tokio::join!(send, rows(batches));
        assert_eq!(rows.expect("good"), 3);
    }

    #[tokio::test]
    async fn what_does_not_end_is_an_error() {
        let (feed, batches) = start(never());
        assert!(feed.push(Bytes::from_static(b"1\tx\n")).await);
        drop(feed);
        let error = rows(batches).await.expect_err("no end");
        assert!(matches!(error, query::Error::Stopped(Stop::Terminated)), "{error:?}");
    }

    #[tokio::test]
    async fn whoever_stops_it_is_heard_while_it_waits() {
        let (_feed, batches) = start(async { Stop::Cancelled });
        let error = rows(batches).await.expect_err("stopped");
        assert!(matches!(error, query::Error::Stopped(Stop::Cancelled)), "{error:?}");
    }

    #[tokio::test]
    async fn an_error_ends_it_and_its_cause_is_kept() {
        let (feed, batches) = start(never());
        let cause = batches.cause.clone();
        let mut batches = batches.into_stream().boxed();
        assert!(feed.push(Bytes::from_static(b"1\tx\nx\ty\n")).await);
        let error = batches.next().await.expect("an error").expect_err("no number");
        let query::Error::Copy(Error::Data(data)) = &error else { panic!("{error:?}") };
        assert_eq!(data.sqlstate(), "22P02");
        assert_eq!(data.context.as_deref(), Some("COPY t, line 2, column a: \"x\""));
        assert!(batches.next().await.is_none());
        assert!(matches!(cause.get(), Some(Cause::Data(_))));
        while feed.push(Bytes::from_static(b"z")).await {
            yield_now().await;
        }
    }

    /// On one thread, so that everybody else has run when it is this test's turn again.
    #[tokio::test]
    async fn blocks_wait_for_whoever_takes_the_batches() {
        let (feed, batches) = start(never());
        let block = Bytes::from("1\tx\n".repeat(10_000));
        let mut taken = 0;
        let mut refused = 0;
        while refused < 100 {
            match feed.push(block.clone()).now_or_never() {
                Some(wanted) => {
                    assert!(wanted);
                    (taken, refused) = (taken + 1, 0);
                }
                None => refused += 1,
            }
            yield_now().await;
            assert!(taken <= 2 * IN_FLIGHT + 2, "{taken} blocks were taken, and no batch");
        }
        let (rows, ()) = tokio::join!(rows(batches), feed.end());
        assert_eq!(rows.expect("good"), taken * 10_000);
    }
}
