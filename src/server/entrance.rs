//! The web console's way to sessions: through the PostgreSQL room's door.

use tokio::io::DuplexStream;

use crate::postgres::{Door, Guest, Proof};
use crate::web::console::{Entrance, Visit};

impl Entrance for Door {
    fn open(&self, visit: Visit) -> DuplexStream {
        let Visit { peer, server, tls, proven, forwarded, only_reads, unlisted } = visit;
        let proof = match (proven, forwarded) {
            (true, _) => Proof::Given,
            (false, true) => Proof::Password,
            (false, false) => Proof::AsRuled,
        };
        Self::open(self, Guest { peer, server, tls, proof, only_reads, unlisted })
    }
}
