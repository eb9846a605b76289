//! TLS for clients.
//!
//! - [`acceptor`]: the daemon's certificate and key, checked before they are used and read anew
//!   when asked to; handshakes.
//! - [`facts`]: what is known of an encrypted connection once the handshake is done.

mod acceptor;
mod facts;

pub use acceptor::{Acceptor, Error};
pub use facts::{ClientCertificate, Tls};
