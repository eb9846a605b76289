//! What can go wrong with the shared store, and whether a failed write may have landed.

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("no node at {path}")]
    NoNode { path: String },
    #[error("a node exists already at {path}")]
    NodeExists { path: String },
    #[error("the node at {path} was changed by someone else")]
    BadVersion { path: String },
    #[error("the node at {path} has children")]
    NotEmpty { path: String },
    #[error("the ephemeral node above {path} cannot have children")]
    NoChildrenForEphemerals { path: String },
    #[error("{path:?} is not a valid path: {reason}")]
    BadPath { path: String, reason: &'static str },
    #[error("{bytes} bytes for {path} exceed the limit of {limit} bytes")]
    TooLarge { path: String, bytes: usize, limit: usize },
    #[error("not permitted to access {path}: the store's access control list forbids it")]
    Denied { path: String },
    /// The store answered that it will not do this at all (a quota, a server that is too old):
    /// nothing was changed, and trying again will not help.
    #[error("the coordination store cannot do this: {reason}")]
    Refused { reason: String },
    /// A setting has to be mended before the store can be used.
    #[error("setting \"coordination.{key}\": {reason}")]
    Setting { key: &'static str, reason: String },
    /// Step `index` (from 0) of a transaction failed, so no step was done.
    #[error("step {index} of the transaction failed: {source}")]
    Transaction { index: usize, source: Box<Error> },
    /// The store could not be reached and the request was certainly not carried out.
    #[error("the coordination store is unavailable: {reason}")]
    Unavailable { reason: String },
    /// The reply was lost: the write may have been carried out, or still be.
    #[error("the coordination store's reply was lost: {reason}")]
    Ambiguous { reason: String },
    #[error("the session with the coordination store was closed")]
    Closed,
    /// The embedded store cannot write its file, as for want of room, and nothing was changed. It can
    /// again by itself as soon as the disk takes it.
    #[error("the embedded coordination store cannot write to {place}: {reason}")]
    Unwritable {
        /// The directory, as a rule.
        place: String,
        /// Whether there is no room.
        full: bool,
        reason: String,
    },
    /// The embedded store's own files cannot be opened or read.
    #[error("the embedded coordination store failed: {reason}")]
    Storage { reason: String },
}

impl Error {
    /// Whether the write that failed with this may nevertheless have been carried out.
    pub fn may_have_landed(&self) -> bool {
        matches!(self, Self::Ambiguous { .. })
    }

    /// Whether the store is out of reach, so that the same call may succeed later.
    pub fn is_unavailable(&self) -> bool {
        matches!(
            self,
            Self::Unavailable { .. }
                | Self::Unwritable { .. }
                | Self::Ambiguous { .. }
                | Self::Closed
        )
    }

    /// The failure itself, without the transaction step around it.
    pub fn root(&self) -> &Error {
        match self {
            Self::Transaction { source, .. } => source.root(),
            other => other,
        }
    }

    /// What is wrong with a store, in words for everybody: without the names of directories.
    pub fn outline(&self) -> &'static str {
        match self.root() {
            Self::Unwritable { full: true, .. } => "the disk of the coordination store is full",
            Self::Unwritable { full: false, .. } => "the coordination store cannot be written",
            _ => "the coordination store cannot be used",
        }
    }
}
