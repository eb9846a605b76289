//! The PostgreSQL wire protocol: bytes in, statements; rows, bytes out.
//!
//! - [`listener`]: accepts clients.
//! - [`door`]: a way in for the web console, without a socket.
//! - [`connection`]: a socket as messages.
//! - [`encryption`]: requests for encryption, TLS.
//! - [`frontend`]: what clients send, decoded without trust.
//! - [`startup`]: the start-up message, log-in.
//! - [`authentication`]: who a client is, by host rules, passwords and certificates; who has a place.
//! - [`parameters`]: the settings that a session begins with.
//! - [`cancel`]: cancel requests, sent on to the daemon they are for.
//! - [`session`]: one client's loop: which message does what.
//! - [`simple`], [`extended`]: the two ways to ask.
//! - [`objects`]: cursors and prepared statements in SQL.
//! - [`statement`], [`portal`]: what has been prepared and bound.
//! - [`reading`]: a result on its way, or suspended; [`batches`]: a declared cursor's.
//! - [`copy`]: a result as COPY sends it; rows that the client copies.
//! - [`sqlstate`], [`files`]: failures as clients see them: each is a [`report`]; [`sayings`]: what the engine says of some.

mod authentication;
mod batches;
mod cancel;
mod connection;
mod copy;
mod door;
mod encryption;
mod extended;
mod files;
mod frontend;
mod listener;
mod objects;
mod parameters;
mod portal;
mod reading;
mod report;
mod sayings;
mod session;
mod simple;
mod sqlstate;
mod startup;
mod statement;

pub use door::{Door, Guest, Proof};
pub use listener::{Leave, Listener};
pub use sqlstate::failure;
