//! Orderly shutdown: [`Signals`] begin it, [`Shutdown`] tells of it, and a [`Gate`] whose guards say
//! who is still inside lets nobody in any more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::signal::unix::{Signal, SignalKind, signal as signal_stream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Counts who is inside. Once closed nobody enters any more.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    inside: Mutex<Inside>,
    left: Notify,
}

#[derive(Debug, Default)]
struct Inside {
    closed: bool,
    /// How often anybody has entered.
    entries: u64,
    by_name: BTreeMap<&'static str, usize>,
}

/// Keeps the gate from being empty while it lives.
#[derive(Debug)]
pub struct GateGuard {
    gate: Gate,
    name: &'static str,
}

impl Gate {
    /// Enters, unless the gate is closed. `name` says in the log who is still inside.
    pub fn enter(&self, name: &'static str) -> Option<GateGuard> {
        let mut inside = self.0.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if inside.closed {
            return None;
        }
        inside.entries += 1;
        *inside.by_name.entry(name).or_default() += 1;
        Some(GateGuard { gate: self.clone(), name })
    }

    /// Enters even when the gate is closed, for who is inside already.
    pub fn enter_again(&self, name: &'static str) -> GateGuard {
        let mut inside = self.0.inside.lock().unwrap_or_else(PoisonError::into_inner);
        inside.entries += 1;
        *inside.by_name.entry(name).or_default() += 1;
        GateGuard { gate: self.clone(), name }
    }

    /// Lets nobody in any more.
    pub fn close(&self) {
        self.0.inside.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
    }

    /// Who is inside, with their number.
    pub fn inside(&self) -> BTreeMap<&'static str, usize> {
        self.0.inside.lock().unwrap_or_else(PoisonError::into_inner).by_name.clone()
    }

    /// Waits until all have left and nobody has come for a while, at most until the deadline; returns
    /// whether that was so. A closed gate lets those in who [enter again](Self::enter_again).
    pub async fn quiet(&self, quiet: Duration, deadline: Duration) -> bool {
        let entries = || self.0.inside.lock().unwrap_or_else(PoisonError::into_inner).entries;
        let wait = async {
            loop {
                self.empty(Duration::MAX).await;
                let before = entries();
                tokio::time::sleep(quiet).await;
                if entries() == before && self.inside().is_empty() {
                    return;
                }
            }
        };
        tokio::time::timeout(deadline, wait).await.is_ok()
    }

    /// Waits until all have left, at most until the deadline; returns whether they have.
    pub async fn empty(&self, deadline: Duration) -> bool {
        let wait = async {
            loop {
                let left = self.0.left.notified();
                tokio::pin!(left);
                left.as_mut().enable();
                if self.inside().is_empty() {
                    return;
                }
                left.await;
            }
        };
        tokio::time::timeout(deadline, wait).await.is_ok()
    }
}

impl Drop for GateGuard {
    fn drop(&mut self) {
        let mut inside = self.gate.0.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = inside.by_name.get_mut(self.name) {
            *count -= 1;
            if *count == 0 {
                inside.by_name.remove(self.name);
            }
        }
        drop(inside);
        self.gate.0.left.notify_waiters();
    }
}

/// The beginning of a shutdown, as a token that tasks await.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// No new work; what runs may finish.
    pub draining: CancellationToken,
}

/// SIGTERM and SIGINT as they arrive, from the moment of listening on.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal_stream(SignalKind::terminate())?,
            interrupt: signal_stream(SignalKind::interrupt())?,
        })
    }

    /// The next of either kind.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Forgets a signal that has arrived already.
    pub fn forget(&mut self) {
        while self.next().now_or_never().is_some() {}
    }
}

/// Waits for SIGTERM or SIGINT.
pub async fn signal() -> std::io::Result<()> {
    Signals::listen()?.next().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_gate_is_empty_when_the_last_guard_left() {
        let gate = Gate::default();
        let first = gate.enter("statement").expect("open");
        let second = gate.enter("statement").expect("open");
        gate.close();
        assert!(gate.enter("statement").is_none());
        assert_eq!(gate.inside().get("statement"), Some(&2));
        drop(first);
        assert!(!gate.empty(Duration::from_millis(1)).await);
        drop(second);
        assert!(gate.empty(Duration::from_secs(60)).await);
    }

    #[tokio::test]
    async fn a_gate_is_quiet_when_nobody_has_come_for_a_while() {
        let (gate, long) = (Gate::default(), Duration::from_secs(60));
        gate.close();
        let (quiet, begun) = (Duration::from_millis(300), std::time::Instant::now());
        // Comes and goes while somebody looks elsewhere.
        let coming = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            drop(gate.enter_again("part"));
        };
        assert!(tokio::join!(gate.quiet(quiet, long), coming).0);
        assert!(begun.elapsed() >= 2 * quiet, "{:?}", begun.elapsed());
        let _stays = gate.enter_again("part");
        assert!(!gate.quiet(quiet, 3 * quiet).await);
    }
}
