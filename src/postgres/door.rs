//! A way in without a socket, for what speaks the protocol within this process on behalf of a client
//! that has come another way: the web console's server side.
//!
//! All that holds for a connection holds here: host rules with the client's own address, passwords,
//! places, rights, time-outs, the audit trail. What differs is in [`Guest`].

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::DuplexStream;
use tokio_util::task::TaskTracker;

use super::session::{Shared, serve_guest};
use crate::tls::Tls;

/// Bytes that wait for the other side in each direction.
const BUFFER: usize = 64 * 1024;

/// On whose behalf a connection is opened.
#[derive(Clone, Debug)]
pub struct Guest {
    /// Where the client is, and the address that it has connected to: for the host rules.
    pub peer: SocketAddr,
    pub server: SocketAddr,
    /// How the client's own connection is encrypted, if it is.
    pub tls: Option<Arc<Tls>>,
    pub proof: Proof,
    /// Its sessions change nothing, whatever the role may do and whatever they SET.
    pub only_reads: bool,
    /// Its statements are in no list of statements and in no history: what the daemon asks itself
    /// again and again on the client's behalf. Never what a client has written.
    pub unlisted: bool,
}

/// How a guest shows that it is the role it says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// As the host rule for it says.
    AsRuled,
    /// With a password, although the rule trusts its address: it came through somebody else's hands.
    Password,
    /// It has done so, on a connection that is still there. This one takes no place of its own and is
    /// not in the audit trail.
    Given,
}

/// Opens connections for guests.
#[derive(Clone, Debug)]
pub struct Door {
    pub(super) shared: Arc<Shared>,
    pub(super) clients: TaskTracker,
}

impl Door {
    /// A new connection: the client's end of it. The daemon's end is served until the client's is
    /// dropped; the listener waits for it like for any other.
    pub fn open(&self, guest: Guest) -> DuplexStream {
        let (near, far) = tokio::io::duplex(BUFFER);
        let shared = self.shared.clone();
        let seat = shared.lobby.enter(guest.peer.ip());
        self.clients.spawn(async move { serve_guest(far, guest, &shared, seat).await });
        near
    }
}
