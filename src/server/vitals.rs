//! How a daemon does, for whoever supervises its process.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

use super::{Addresses, in_force_drain_timeout};
use crate::cluster::State;
use crate::config::InForce;
use crate::coordination::Coordination;
use crate::query::Queries;

/// Looks at a daemon that runs.
#[derive(Clone, Debug)]
pub struct Vitals {
    pub(super) addresses: Addresses,
    pub(super) in_force: Arc<InForce>,
    pub(super) queries: Arc<Queries>,
    pub(super) store: Arc<dyn Coordination>,
    /// The runtime for network.
    pub(super) network: Handle,
}

/// A daemon at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    pub state: State,
    /// Why it is degraded.
    pub trouble: Option<String>,
    /// Daemons of the cluster that are ready, with this one. Without an ensemble it is alone.
    pub daemons: usize,
    pub clients: usize,
    /// Statements that run here, and parts of those of other daemons.
    pub running: usize,
}

impl Vitals {
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Whether there is no ensemble, and so no other daemon.
    pub fn alone(&self) -> bool {
        self.in_force.get().zookeeper.is_none()
    }

    /// How long running statements may go on after a stop.
    pub fn drain_timeout(&self) -> Duration {
        in_force_drain_timeout(&self.in_force, &self.queries)
    }

    pub fn look(&self) -> Look {
        let membership = &self.queries.membership;
        let members = membership.members();
        let ready = members.iter().filter(|member| member.record.state.serves());
        let inside = self.queries.gate.inside();
        // A client's turn has a statement of its own in it.
        let running = inside.iter().filter(|(name, _)| **name != "client");
        Look {
            state: membership.state(),
            trouble: membership.trouble().map(|trouble| trouble.full),
            daemons: ready.count(),
            clients: self.queries.sessions.count(),
            running: running.map(|(_, count)| count).sum(),
        }
    }

    /// Which of the parts that everything depends on do not take up any work within `patience`: the
    /// runtime that serves clients, the one that executes statements, and what keeps the session with the
    /// coordination store. None is how it should be; an ensemble that is out of reach is no reason.
    pub async fn stuck(&self, patience: Duration) -> Vec<&'static str> {
        let turns = async |runtime: &Handle| {
            let task = AbortOnDropHandle::new(runtime.spawn(async {}));
            matches!(tokio::time::timeout(patience, task).await, Ok(Ok(())))
        };
        let pulse =
            async || matches!(tokio::time::timeout(patience, self.store.pulse()).await, Ok(Ok(())));
        let (network, engine, store) =
            tokio::join!(turns(&self.network), turns(self.queries.engine.handle()), pulse());
        [("network", network), ("engine", engine), ("coordination", store)]
            .into_iter()
            .filter(|(_, turns)| !turns)
            .map(|(part, _)| part)
            .collect()
    }
}
