//! Scans give the thread away now and then.
//!
//! Operators above a scan run for as long as it has rows, by tokio's and the engine's count for 128 batches,
//! which is a tenth of a second and more where much is computed of each. Who asks for little meanwhile, on the
//! same threads, waits for that each time that one of its tasks has something to do. So a scan lets the others
//! go by time, too.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::Stream;
use tokio::task::{Id, try_id};

/// How long a task runs before it gives its thread to others: a thousand times of what that costs,
/// and about what a small statement takes.
const TURN: Duration = Duration::from_millis(1);

thread_local! {
    static TASK: Cell<Option<Turn>> = const { Cell::new(None) };
}

/// How long a task has had this thread.
#[derive(Clone, Copy)]
struct Turn {
    task: Id,
    since: Instant,
}

/// Whether the task has had this thread for its turn. If so the next one begins.
fn is_over() -> bool {
    let Some(task) = try_id() else { return false };
    let now = Instant::now();
    let turn = TASK.get().filter(|turn| turn.task == task).unwrap_or(Turn { task, since: now });
    let over = now.duration_since(turn.since) >= TURN;
    TASK.set((!over).then_some(turn));
    over
}

/// Items of a task that takes turns at its thread with others.
#[derive(Debug)]
pub struct InTurns<S>(pub S);

impl<S: Stream + Unpin> Stream for InTurns<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        if is_over() {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let item = Pin::new(&mut self.0).poll_next(context);
        if item.is_pending() {
            // Others have the thread anyway.
            TASK.set(None);
        }
        item
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Future, poll_fn};
    use std::pin::pin;

    use futures::{StreamExt, stream};

    use super::*;

    /// In how many turns a task is done that needs `each` for an item, of 40 in all.
    async fn turns(each: Duration) -> usize {
        let items = stream::iter(0..40).map(move |_| std::thread::sleep(each)).boxed();
        let task = tokio::spawn(async move {
            let mut all = pin!(InTurns(items).for_each(|()| async {}));
            let mut turns = 0;
            poll_fn(|context| {
                turns += 1;
                all.as_mut().poll(context)
            })
            .await;
            turns
        });
        task.await.expect("it ends")
    }

    #[tokio::test]
    async fn others_have_the_thread_in_between() {
        assert!(turns(TURN).await >= 20, "after an item or two");
        assert!(turns(Duration::ZERO).await <= 20, "not after each item of little work");
    }
}
