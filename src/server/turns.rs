//! Watches whether the engine's threads take up work: who hangs there keeps all others from having their turn,
//! and nobody notices but who waits for an answer.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info};

use crate::cluster::Membership;

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(1);

/// How long one try waits for its turn.
const TRY: Duration = Duration::from_secs(2);

/// Tries that may fail in a row: a process that was stopped for long has its turn within one of them.
const TRIES: u32 = 5;

/// Tells the daemon's membership whether the threads of `engine` have hung for a while, until `end`.
pub(super) async fn watch(membership: Arc<Membership>, engine: Handle, end: CancellationToken) {
    let look = async {
        loop {
            let mut turn = AbortOnDropHandle::new(engine.spawn(async {}));
            let (mut tries, mut worked) = (0, worked(&engine));
            while timeout(TRY, &mut turn).await.is_err() {
                let now = self::worked(&engine);
                // Many wait, and one after the other has its turn.
                tries = if now == worked { tries + 1 } else { 0 };
                worked = now;
                if tries == TRIES {
                    let time = TRY * TRIES;
                    error!("the engine's threads have taken up no work for {time:?}");
                    membership.note_stuck(Some(time));
                }
            }
            if tries >= TRIES {
                info!("the engine's threads take up work again");
                membership.note_stuck(None);
            }
            sleep(LOOK).await;
        }
    };
    tokio::select! {
        () = end.cancelled() => {}
        () = look => {}
    }
}

/// How long each of a runtime's threads has worked, as it tells whenever it has taken up some work.
fn worked(runtime: &Handle) -> Vec<Duration> {
    let metrics = runtime.metrics();
    (0..metrics.num_workers()).map(|thread| metrics.worker_total_busy_duration(thread)).collect()
}
