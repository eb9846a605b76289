//! Coordination: the one small trait through which everything that daemons share is
//! read, written and watched. It mirrors ZooKeeper's own model and nothing more.
//!
//! Two backends pass the same conformance suite (`tests/coordination.rs`), and no code above this
//! floor knows which of them runs:
//!
//! - [`zookeeper`]: a real ensemble, through the crate `zookeeper-client`;
//! - [`embedded`]: in process and persistent, for one daemon without ZooKeeper.
//!
//! [`counted`] counts what goes through either, and [`whole`] is for people who want to see all that
//! is there, below the daemons' own chroot and beside it. [`members`] asks an ensemble's servers.
//!
//! # Promises
//! - A write that returned `Ok` is durable. One that returned an error for which
//!   [`Error::may_have_landed`] is true may or may not have happened: put a nonce of your own into
//!   the data and read it back to learn the truth.
//! - No call hangs: each ends within the configured request time-out.
//! - A [`Watch`] never misses the last state: after any change there is an event that is delivered
//!   when a read sees that change or a later one. Several changes may arrive as one event, and a
//!   reconnect arrives as [`Event::Resync`].
//! - Ephemeral nodes belong to a session. When the session is lost they are gone, and
//!   [`Session::epoch`] grows: whoever created them creates them anew.

pub mod counted;
pub mod embedded;
mod error;
pub mod members;
pub mod paths;
mod validate;
mod watch;
pub mod whole;
pub mod zookeeper;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

pub use error::{Error, Result};
pub use watch::{Change, Event, Happened, Scope, Watch, WatchSender, watch_channel};

/// The largest value a node may hold, in bytes. Bigger things are pointers to storage: ZooKeeper's
/// own limit (`jute.maxbuffer`, 1 MiB) covers child lists and transactions as well.
pub const MAX_DATA: usize = 64 * 1024;

/// How long a node lives and who names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Persistent,
    /// The store appends a ten-digit number that only grows among the children of one parent.
    PersistentSequential,
    /// Gone with the session that created it; cannot have children.
    Ephemeral,
    EphemeralSequential,
}

impl Mode {
    pub fn is_ephemeral(self) -> bool {
        matches!(self, Self::Ephemeral | Self::EphemeralSequential)
    }

    pub fn is_sequential(self) -> bool {
        matches!(self, Self::PersistentSequential | Self::EphemeralSequential)
    }
}

/// A node's metadata, in ZooKeeper's terms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// Transaction that created the node.
    pub czxid: i64,
    /// Transaction that last changed its data.
    pub mzxid: i64,
    /// Wall clock of creation, milliseconds since the epoch. For people only.
    pub ctime: i64,
    /// Wall clock of the last change of data, milliseconds since the epoch. For people only.
    pub mtime: i64,
    /// Number of changes of data since the node was created: what versioned writes compare.
    pub version: i32,
    /// Number of changes to the list of children.
    pub cversion: i32,
    /// Session that owns an ephemeral node; 0 for a persistent one.
    pub ephemeral_owner: i64,
    pub num_children: i32,
    /// Transaction that last changed the list of children; `None` where the store does not know.
    pub pzxid: Option<i64>,
    /// Number of changes to the access control list.
    pub aversion: i32,
    /// Bytes.
    pub data_length: i32,
}

/// A node as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub data: Bytes,
    pub stat: Stat,
}

/// One step of a [`Coordination::transact`]. `version: None` accepts any version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Fails the transaction unless the node exists, at that version if one is given.
    Check {
        path: String,
        version: Option<i32>,
    },
    Create {
        path: String,
        data: Bytes,
        mode: Mode,
    },
    Set {
        path: String,
        data: Bytes,
        version: Option<i32>,
    },
    Delete {
        path: String,
        version: Option<i32>,
    },
}

impl Op {
    pub fn path(&self) -> &str {
        match self {
            Self::Check { path, .. }
            | Self::Create { path, .. }
            | Self::Set { path, .. }
            | Self::Delete { path, .. } => path,
        }
    }
}

/// What one step of a transaction did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Checked,
    /// The path that was created, with the store's number if the mode was sequential.
    Created(String),
    Set(Stat),
    Deleted,
}

/// The state of a connection to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// Not yet, or not at the moment, in touch. Ephemeral nodes may still exist.
    Disconnected,
    Connected,
    /// Closed by [`Coordination::close`]: final.
    Closed,
}

/// A session as a value one can await (see [`Coordination::session`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Grows by one each time a session was lost and a new one took its place. Ephemeral nodes
    /// created in an earlier epoch are gone. 0: never connected yet.
    pub epoch: u64,
    /// The store's id for the session; what [`Stat::ephemeral_owner`] shows.
    pub id: i64,
    pub state: SessionState,
    /// How long the store keeps ephemeral nodes after the last sign of life, as negotiated.
    pub timeout: Duration,
}

/// The shared store. All paths are absolute and below the configured chroot.
#[async_trait]
pub trait Coordination: Send + Sync + std::fmt::Debug + 'static {
    /// Creates a node under an existing parent; returns its path, with the number appended if
    /// `mode` is sequential.
    async fn create(&self, path: &str, data: Bytes, mode: Mode) -> Result<String>;

    /// Reads a node; `None` if there is none.
    async fn get(&self, path: &str) -> Result<Option<Node>>;

    /// A node without its data; `None` if there is none. Needs no permission to read it.
    async fn stat(&self, path: &str) -> Result<Option<Stat>>;

    /// Replaces a node's data, if it is at the expected version.
    async fn set(&self, path: &str, data: Bytes, expected: Option<i32>) -> Result<Stat>;

    /// Deletes a node without children, if it is at the expected version.
    async fn delete(&self, path: &str, expected: Option<i32>) -> Result<()>;

    /// Names (not paths) of a node's children, sorted. [`Error::NoNode`] if the node is missing.
    async fn children(&self, path: &str) -> Result<Vec<String>>;

    /// All of the steps or none of them, in order; a failing step is named by
    /// [`Error::Transaction`].
    async fn transact(&self, ops: Vec<Op>) -> Result<Vec<Outcome>>;

    /// Waits until this client has seen everything committed before the call.
    async fn sync(&self) -> Result<()>;

    /// Watches a path, which need not exist yet. The first event is always [`Event::Resync`],
    /// delivered once the watch is armed: read after it and nothing is missed. A path that is not
    /// valid has a stream that ends at once.
    fn watch(&self, path: &str, scope: Scope) -> Watch;

    /// Where this client is connected to, for people; `None` while it is not.
    fn server(&self) -> Option<String>;

    /// Returns once whoever keeps the session (a thread of the client's own) or works off the writes (in
    /// the embedded store) has taken notice, in touch or not: a sign that nothing is stuck there. How long
    /// that takes is for the caller to bound. [`Error::Closed`] if there is nobody any more.
    async fn pulse(&self) -> Result<()>;

    /// The session's current and future states.
    fn session(&self) -> tokio::sync::watch::Receiver<Session>;

    /// Why the store cannot be used at the moment, where more is known than that it is out of touch.
    fn trouble(&self) -> Option<Error> {
        None
    }

    /// Ends the session: its ephemeral nodes are gone when this returns, if the store could be
    /// reached within the request time-out.
    async fn close(&self);
}

/// Creates a persistent, empty node unless it is there already.
pub async fn ensure(coordination: &dyn Coordination, path: &str) -> Result<()> {
    match coordination.create(path, Bytes::new(), Mode::Persistent).await {
        Ok(_) | Err(Error::NodeExists { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}
