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

/// Tries that may fail in a row: a process that was stopped for long has its turn within one of them, and a
/// thread whose every step is long tells of its work after some dozen of these.
const TRIES: u32 = 10;

/// What the tries have come to.
#[derive(Debug, Default)]
struct Watch {
    /// Without a turn, and without any sign of work.
    failed: u32,
    told: bool,
    worked: Vec<Duration>,
}

impl Watch {
    /// A try is over, with a turn or without one. What is to be told now: whether the threads hang.
    fn step(&mut self, turn: bool, worked: Vec<Duration>) -> Option<bool> {
        // Many wait, and one after the other has its turn.
        let works = turn || worked != self.worked;
        self.worked = worked;
        self.failed = if works { 0 } else { self.failed + 1 };
        let hang = if self.told { !works } else { self.failed >= TRIES };
        (std::mem::replace(&mut self.told, hang) != hang).then_some(hang)
    }
}

/// Tells the daemon's membership whether the threads of `engine` have hung for a while, until `end`.
pub(super) async fn watch(membership: Arc<Membership>, engine: Handle, end: CancellationToken) {
    let look = async {
        let mut watch = Watch { worked: worked(&engine), ..Watch::default() };
        loop {
            let mut turn = AbortOnDropHandle::new(engine.spawn(async {}));
            loop {
                let had = timeout(TRY, &mut turn).await.is_ok();
                match watch.step(had, worked(&engine)) {
                    Some(true) => {
                        let time = TRY * TRIES;
                        error!("the engine's threads have taken up no work for {time:?}");
                        membership.note_stuck(Some(time));
                    }
                    Some(false) => {
                        info!("the engine's threads take up work again");
                        membership.note_stuck(None);
                    }
                    None => {}
                }
                if had {
                    break;
                }
            }
            sleep(LOOK).await;
        }
    };
    tokio::select! {
        () = end.cancelled() => {}
        () = look => {}
    }
}

/// How long each of a runtime's threads has worked: it tells after some dozen steps, and when it has nothing
/// to do.
fn worked(runtime: &Handle) -> Vec<Duration> {
    let metrics = runtime.metrics();
    (0..metrics.num_workers()).map(|thread| metrics.worker_total_busy_duration(thread)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_neither_has_a_turn_nor_works_hangs() {
        let mut watch = Watch { worked: vec![Duration::ZERO], ..Watch::default() };
        let mut now = 0;
        let mut step = |turn, works| {
            now += u64::from(works);
            watch.step(turn, vec![Duration::from_secs(now)])
        };
        for round in 0..3 {
            for _ in 1..TRIES {
                assert_eq!(step(false, false), None, "round {round}");
            }
            // A sign of life in the last moment, of either kind.
            assert_eq!(step(round == 1, round != 1), None);
        }
        for (turn, works) in [(true, false), (false, true)] {
            for _ in 1..TRIES {
                assert_eq!(step(false, false), None);
            }
            assert_eq!(step(false, false), Some(true));
            assert_eq!(step(false, false), None);
            assert_eq!(step(turn, works), Some(false));
            assert_eq!(step(true, true), None);
        }
    }
}
