//! TLS for clients and between daemons.
//!
//! - [`acceptor`]: the daemon's certificate and key, checked before they are used and read anew
//!   when asked to; handshakes.
//! - [`facts`]: what is known of an encrypted connection once the handshake is done.
//! - [`peers`]: the certificates by which daemons know each other.

mod acceptor;
mod facts;
mod peers;

pub use acceptor::{Acceptor, Error};
pub use facts::{ClientCertificate, Tls};
pub use peers::{PeerError, PeerIdentity, new_cluster_key};
