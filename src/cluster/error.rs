//! Why a daemon cannot join.

use crate::{coordination, tls};

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "the id \"{id}\" is held by the daemon at {postgres} (incarnation {incarnation}, {state} \
         since {since}); choose another with --id, or wait until its session has ended if it died"
    )]
    IdTaken { id: String, postgres: String, incarnation: String, state: String, since: String },
    #[error(
        "the coordination store holds cluster {found} but this data directory belongs to cluster \
         {expected}: the store lost its data or is another one; restore it, or remove {file} to \
         join the store as it is"
    )]
    OtherCluster { expected: String, found: String, file: String },
    #[error(
        "the coordination store is written in format {found}, and this daemon knows those up to \
         {known}: a newer version has used it; start that version, or restore a back-up"
    )]
    NewerFormat { found: u32, known: u32 },
    #[error("the record at {path} is not valid: {source}")]
    BadRecord { path: String, source: serde_json::Error },
    #[error("cannot write {path}: {source}")]
    File { path: String, source: std::io::Error },
    #[error(transparent)]
    Peers(#[from] tls::Error),
    #[error(transparent)]
    Coordination(#[from] coordination::Error),
}
