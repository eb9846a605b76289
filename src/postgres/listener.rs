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
    door: Door,
}

impl Listener {
    pub fn new(
        socket: TcpListener,
        queries: Arc<Queries>,
        in_force: Arc<InForce>,
        statement_timeout: Option<Duration>,
        tls: Option<Arc<Acceptor>>,
    ) -> Self {
        let shared = Arc::new(Shared::new(queries, in_force, statement_timeout, tls));
        Self { socket, door: Door { shared, clients: TaskTracker::new() } }
    }

    /// A way in without the port.
    pub fn door(&self) -> Door {
        self.door.clone()
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
                Ok((socket, peer)) => self.door.welcome(socket, peer),
                Err(error) => {
                    warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        let Self { socket, door } = self;
        match leave.asked.is_cancelled() {
            true => drop(socket),
            false => the_last(socket, |socket, peer| door.welcome(socket, peer)),
        }
        leave.left.cancel();
        // Those who come through the door may do so to the end.
        stop.cancelled().await;
        door.shared.ending.cancel();
        door.clients.close();
        door.clients.wait().await;
    }
}

/// Closes a socket that nobody holds but the daemon. Whom the system has let in until now is welcomed
/// yet, to be told that the daemon ends: else the connection would just be cut.
fn the_last(socket: TcpListener, mut welcome: impl FnMut(TcpStream, SocketAddr)) {
    let Ok(socket) = socket.into_std() else { return };
    while let Ok((client, peer)) = socket.accept() {
        let taken = client.set_nonblocking(true).and_then(|()| TcpStream::from_std(client));
        if let Ok(client) = taken {
            welcome(client, peer);
        }
    }
}

impl Door {
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
