//! Version-checked writes of the coordination store.
//!
//! Every write carries a nonce. When its reply is lost, the writer reads back whether the nonce is
//! there and so learns the truth ([`Catalog::settle`]). Where another may have changed or removed since
//! what was written, no nonce is no proof: then the outcome is unknown, and that is what is said.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::time::Instant;
use uuid::Uuid;

use super::cache::Catalog;
use super::lives::is_life;
use super::{Error, ObjectKind, Result};
use crate::coordination::{self, MAX_DATA, Mode, Node, Op, SessionState};

/// Steps in one transaction, up to four for each object: ZooKeeper takes 1 MiB for all of them together.
const MAX_STEPS: usize = 5000;

/// Bytes in one transaction, for the same reason.
const MAX_BYTES: usize = 512 * 1024;

/// How much longer than its session lasts a writer whose reply was lost tries to learn the truth, counted
/// from when it wrote: a store that is silent for longer has ended the session, and whoever waits is told.
const SETTLE: Duration = Duration::from_secs(2);

/// How long it tries at least.
const SETTLE_AT_LEAST: Duration = Duration::from_secs(3);

/// How a writer recognises its own write.
pub(super) enum Proof {
    /// The node holds this nonce.
    Written { path: String, nonce: Uuid },
    /// The node that this transaction created is gone.
    Deleted { path: String, czxid: i64 },
}

/// What stood where a write is made, before it was.
struct Before {
    /// The version that the node is expected at; `None` if it is made.
    version: Option<i32>,
    /// How often something was made or removed beside it; `None` if that does not matter.
    siblings: Option<i32>,
}

impl Catalog {
    /// Carries out a change; says what a failed step means for `name`.
    pub(super) async fn commit(
        &self,
        ops: Vec<Op>,
        proof: Proof,
        kind: ObjectKind,
        name: &str,
    ) -> Result<()> {
        self.attempt(ops, &proof).await?.map_err(|error| refused(error, kind, name))
    }

    /// Tries to carry out a change. The inner error is the store's refusal: nothing has changed.
    pub(super) async fn attempt(
        &self,
        ops: Vec<Op>,
        proof: &Proof,
    ) -> Result<Result<(), coordination::Error>> {
        let bytes = ops.iter().map(op_size).sum::<usize>();
        if ops.len() > MAX_STEPS || bytes > MAX_BYTES {
            let limit = MAX_STEPS.min(ops.len() * MAX_BYTES / bytes.max(1));
            return Err(Error::TooMany { count: ops.len(), limit });
        }
        let before = self.before(&ops, proof).await?;
        let sent = Instant::now();
        match self.transact(ops).await? {
            Ok(_) => Ok(Ok(())),
            Err(error) if error.may_have_landed() => {
                self.settle(error, proof, &before, sent).await.map(Ok)
            }
            Err(error) => Ok(Err(error)),
        }
    }

    async fn before(&self, ops: &[Op], proof: &Proof) -> Result<Before> {
        let Proof::Written { path, .. } = proof else {
            return Ok(Before { version: None, siblings: None });
        };
        let version = ops.iter().find_map(|op| match op {
            Op::Set { path: of, version, .. } if of == path => *version,
            _ => None,
        });
        Ok(Before { version, siblings: self.siblings(path).await? })
    }

    /// How often something was made or removed beside a node.
    async fn siblings(&self, path: &str) -> coordination::Result<Option<i32>> {
        let parent = path.rsplit_once('/').map_or("/", |(parent, _)| parent);
        Ok(self.coordination.stat(parent).await?.map(|stat| stat.cversion))
    }

    /// Finds out whether a write whose reply was lost has landed.
    async fn settle(
        &self,
        error: coordination::Error,
        proof: &Proof,
        before: &Before,
        sent: Instant,
    ) -> Result<()> {
        let deadline = self.settled_by(sent);
        while self.in_touch_again(deadline).await {
            match self.landed(proof, before).await {
                Ok(Some(true)) => return Ok(()),
                Ok(Some(false)) => return Err(Error::Unavailable(error)),
                Err(later) if later.is_unavailable() => {}
                Ok(None) | Err(_) => break,
            }
        }
        Err(Error::Unknown(error))
    }

    /// Until when the truth is waited for of a write that was sent then.
    pub(super) fn settled_by(&self, sent: Instant) -> Instant {
        let session = self.coordination.session().borrow().timeout;
        (sent + session + SETTLE).max(Instant::now() + SETTLE_AT_LEAST)
    }

    /// Waits until the store answers again after the reply to a write was lost; false if it does
    /// not in time. Requests of one session are carried out in order, so once a later `sync`
    /// succeeds, what is read is final.
    pub(super) async fn in_touch_again(&self, deadline: Instant) -> bool {
        let mut session = self.coordination.session();
        loop {
            match tokio::time::timeout_at(deadline, self.coordination.sync()).await {
                Ok(Ok(())) => return true,
                Ok(Err(later)) if later.is_unavailable() => {}
                Ok(Err(_)) | Err(_) => return false,
            }
            let connected = session.wait_for(|session| session.state == SessionState::Connected);
            let connected = tokio::time::timeout_at(deadline, connected).await;
            if !connected.is_ok_and(|session| session.is_ok()) {
                return false;
            }
            // In touch again, perhaps only just not yet when it was tried.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Whether a write has landed; `None` if nobody can tell any more.
    async fn landed(&self, proof: &Proof, before: &Before) -> coordination::Result<Option<bool>> {
        #[derive(serde::Deserialize)]
        struct Marked {
            nonce: Uuid,
        }
        let (path, nonce) = match proof {
            Proof::Deleted { path, czxid } => {
                let node = self.coordination.get(path).await?;
                return Ok(Some(node.is_none_or(|node| node.stat.czxid != *czxid)));
            }
            Proof::Written { path, nonce } => (path, nonce),
        };
        let node = self.coordination.get(path).await?;
        let own = |node: &Node| {
            serde_json::from_slice::<Marked>(&node.data).is_ok_and(|mark| mark.nonce == *nonce)
        };
        if node.as_ref().is_some_and(own) {
            return Ok(Some(true));
        }
        // Asked after the node was read: had it been made or removed, this would be another number.
        if self.siblings(path).await? != before.siblings {
            return Ok(None);
        }
        Ok(match (before.version, node) {
            (None, _) => Some(false),
            // As it was, or another's one change.
            (Some(version), Some(node)) if node.stat.version <= version.wrapping_add(1) => {
                Some(false)
            }
            (Some(_), _) => None,
        })
    }
}

/// What a refused step means for `name`.
pub(super) fn refused(error: coordination::Error, kind: ObjectKind, name: &str) -> Error {
    let name = name.to_owned();
    match error.root() {
        coordination::Error::NodeExists { path } if !is_life(path) => {
            Error::AlreadyExists { kind, name }
        }
        coordination::Error::NodeExists { .. }
        | coordination::Error::BadVersion { .. }
        | coordination::Error::NotEmpty { .. }
        | coordination::Error::NoNode { .. } => Error::Conflict { kind, name },
        coordination::Error::TooLarge { bytes, limit, .. } => {
            Error::TooLarge { bytes: *bytes, limit: *limit }
        }
        _ => error.into(),
    }
}

fn encode(path: &str, record: &impl Serialize) -> Result<Bytes> {
    let data = serde_json::to_vec(record)
        .map_err(|source| Error::BadRecord { path: path.to_owned(), source })?;
    if data.len() > MAX_DATA {
        return Err(Error::TooLarge { bytes: data.len(), limit: MAX_DATA });
    }
    Ok(data.into())
}

pub(super) fn create(path: &str, record: &impl Serialize) -> Result<Op> {
    let data = encode(path, record)?;
    Ok(Op::Create { path: path.to_owned(), data, mode: Mode::Persistent })
}

pub(super) fn set(path: &str, record: &impl Serialize, version: i32) -> Result<Op> {
    let data = encode(path, record)?;
    Ok(Op::Set { path: path.to_owned(), data, version: Some(version) })
}

pub(super) fn delete(path: String, version: Option<i32>) -> Op {
    Op::Delete { path, version }
}

fn op_size(op: &Op) -> usize {
    let data = match op {
        Op::Create { data, .. } | Op::Set { data, .. } => data.len(),
        Op::Check { .. } | Op::Delete { .. } => 0,
    };
    op.path().len() + data + 64
}
