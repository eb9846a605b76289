//! TLS for clients and between daemons.
//!
//! - [`acceptor`]: the daemon's certificate and key, checked before they are used and read anew
//!   when asked to; handshakes.
//! - [`connector`]: the client's side, for the command line.
//! - [`files`]: certificates and keys as the operator gives them.
//! - [`facts`]: what is known of an encrypted connection once the handshake is done.
//! - [`peers`]: the certificates by which daemons know each other.

mod acceptor;
mod connector;
mod facts;
mod files;
mod peers;

pub use acceptor::Acceptor;
pub use connector::{Connector, Proof};
pub use facts::{ClientCertificate, Tls};
pub use files::{Error, expiry};
pub use peers::{PeerIdentity, Peering, new_cluster_key};
