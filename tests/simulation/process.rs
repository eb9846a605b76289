//! A process that can be stopped and go on.

use std::sync::Mutex;
use std::task::{Poll, Waker};

use crate::sim::lock;

/// A process may be stopped: then none of its tasks runs, and the time goes by.
#[derive(Debug, Default)]
pub struct Process(Mutex<(bool, Vec<Waker>)>);

impl Process {
    pub fn stop(&self) {
        lock(&self.0).0 = true;
    }

    pub fn go_on(&self) {
        let waiting = {
            let mut state = lock(&self.0);
            state.0 = false;
            std::mem::take(&mut state.1)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    pub fn is_stopped(&self) -> bool {
        lock(&self.0).0
    }

    /// Waits as long as it is stopped.
    pub async fn runs(&self) {
        self.run(async {}).await;
    }

    /// Runs a future as a part of the process.
    pub async fn run<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|context| {
            {
                let mut state = lock(&self.0);
                if state.0 {
                    state.1.push(context.waker().clone());
                    return Poll::Pending;
                }
            }
            future.as_mut().poll(context)
        })
        .await
    }
}
