//! Accepts clients.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::door::Door;
use super::session::{Shared, serve};
use crate::config::InForce;
use crate::faults;
use crate::query::Queries;
use crate::tls::Acceptor;

/// Pause after the system has refused a connection, for want of descriptors say.
const PAUSE: Duration = Duration::from_millis(100);

/// The end of a daemon's part in a socket that others hold as well: who connects from then on waits in
/// the socket's queue for the next daemon, instead of being told that this one ends.
#[derive(Clone, Debug, Default)]
pub struct Leave {
    asked: CancellationToken,
    left: CancellationToken,
}

impl Leave {
    /// Has the port accept nobody any more, and waits until that is so; no longer than `patience`.
    pub async fn begin(&self, patience: Duration) {
        self.asked.cancel();
        let _ = tokio::time::timeout(patience, self.left.cancelled()).await;
    }
}

/// The PostgreSQL port.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    shared: Arc<Shared>,
    clients: TaskTracker,
}

impl Listener {
    pub fn new(
        socket: TcpListener,
        queries: Arc<Queries>,
        in_force: Arc<InForce>,
        statement_timeout: Option<Duration>,
        tls: Option<Arc<Acceptor>>,
    ) -> Self {
        Self {
            socket,
            shared: Arc::new(Shared::new(queries, in_force, statement_timeout, tls)),
            clients: TaskTracker::new(),
        }
    }

    /// A way in without the port.
    pub fn door(&self) -> Door {
        Door { shared: self.shared.clone(), clients: self.clients.clone() }
    }

    /// Accepts until it is to leave the socket to others, or until `stop`, and then waits for the clients
    /// to be gone.
    pub async fn run(self, leave: Leave, stop: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = leave.asked.cancelled() => break,
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                Ok((socket, peer)) => self.welcome(socket, peer),
                Err(error) => {
                    warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        drop(self.socket);
        leave.left.cancel();
        // Those who come through the door may do so to the end.
        stop.cancelled().await;
        self.clients.close();
        self.clients.wait().await;
    }

    fn welcome(&self, socket: TcpStream, peer: SocketAddr) {
        faults::point("a client comes");
        // Small answers must not wait for one another.
        let _ = socket.set_nodelay(true);
        // A client whose machine has vanished must not keep its place for ever.
        let _ = SockRef::from(&socket).set_keepalive(true);
        let shared = self.shared.clone();
        let seat = shared.lobby.enter(peer.ip());
        self.clients.spawn(async move { serve(socket, peer, &shared, seat).await });
    }
}
