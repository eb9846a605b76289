//! The PostgreSQL wire protocol: bytes in, statements; rows, bytes out.
//!
//! - [`listener`]: accepts clients, within a limit.
//! - [`connection`]: a socket as messages.
//! - [`encryption`]: requests for encryption, TLS.
//! - [`frontend`]: what clients send, decoded without trust.
//! - [`startup`]: the start-up message, log-in, cancel requests.
//! - [`session`]: one client's loop: which message does what.
//! - [`simple`], [`extended`]: the two ways to ask.
//! - [`portal`]: a running or suspended result.
//! - [`sqlstate`]: failures as clients see them.

mod connection;
mod encryption;
mod extended;
mod frontend;
mod listener;
mod portal;
mod session;
mod simple;
mod sqlstate;
mod startup;

pub use listener::Listener;
