//! Identifiers that are unique in the cluster without asking anybody.

use uuid::Uuid;

/// A new statement's id. Version 7 (RFC 9562), so ids sort by the time they were made.
pub fn statement() -> Uuid {
    Uuid::now_v7()
}

/// A new incarnation of a daemon: one for each session with the coordination store.
pub fn incarnation() -> Uuid {
    Uuid::new_v4()
}

/// A mark by which a writer recognises its own write after the reply was lost.
pub fn nonce() -> Uuid {
    Uuid::new_v4()
}
