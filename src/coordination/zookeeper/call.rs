//! One call: from the caller to the driver and back, and what its failure means.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::BoxFuture;
use tokio::sync::oneshot;
use zookeeper_client::{Acl, Client, Error as ClientError, MultiWriteError, MultiWriteResult};

use super::{convert, create_options};
use crate::coordination::{Error, Op, Outcome, Result};

/// Whether a lost reply leaves a doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
}

/// The driver's half of a call.
pub(super) struct Job(Box<dyn FnOnce(Arc<Client>) -> Option<Running> + Send>);

/// A call under way: whether its reply was lost, and the connection with it.
pub(super) type Running = BoxFuture<'static, bool>;

impl Job {
    /// The call under way; `None` if its caller has given up, so that it never happens. Dropping
    /// a job instead tells the caller that it was not begun.
    pub fn start(self, client: Arc<Client>) -> Option<Running> {
        (self.0)(client)
    }
}

/// The caller's half of a call.
pub(super) struct Ticket<T> {
    kind: Kind,
    /// Set by whoever is first: the driver that begins, or the caller that gives up.
    claimed: Arc<AtomicBool>,
    begun: bool,
    answer: oneshot::Receiver<Result<T>>,
}

impl<T: Send + 'static> Ticket<T> {
    pub fn new<F, R>(kind: Kind, make: F) -> (Job, Self)
    where
        F: FnOnce(Arc<Client>) -> R + Send + 'static,
        R: Future<Output = Result<T>> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let claimed = Arc::new(AtomicBool::new(false));
        let claim = claimed.clone();
        let job = Job(Box::new(move |client| {
            if reply.is_closed() || claim.swap(true, Ordering::AcqRel) {
                return None;
            }
            Some(Box::pin(async move {
                let answer = make(client).await;
                let lost = matches!(answer, Err(Error::Ambiguous { .. }));
                // A caller that has gone needs no answer.
                let _ = reply.send(answer);
                lost
            }))
        }));
        (job, Self { kind, claimed, begun: false, answer })
    }

    /// The answer; `None` if there will be none.
    pub async fn answer(&mut self) -> Option<Result<T>> {
        (&mut self.answer).await.ok()
    }

    /// Stops waiting, and keeps the driver from beginning; an answer may have come just in time.
    pub fn give_up(&mut self) -> Option<Result<T>> {
        self.begun = self.claimed.swap(true, Ordering::AcqRel);
        self.answer.close();
        self.answer.try_recv().ok()
    }

    /// What it means that no answer came, once given up.
    pub fn unanswered(&self) -> Error {
        match (self.kind, self.begun) {
            (Kind::Write, true) => Error::Ambiguous { reason: "no reply from ZooKeeper".into() },
            _ => Error::Unavailable { reason: "no reply from ZooKeeper".into() },
        }
    }
}

/// All steps or none; new nodes get the ACL.
pub(super) async fn transact(client: &Client, ops: &[Op], acl: &[Acl]) -> Result<Vec<Outcome>> {
    let mut writer = client.new_multi_writer();
    for (index, op) in ops.iter().enumerate() {
        let added = match op {
            Op::Check { path, version } => writer.add_check_version(path, version.unwrap_or(-1)),
            Op::Create { path, data, mode } => {
                writer.add_create(path, data, &create_options(*mode, acl))
            }
            Op::Set { path, data, version } => writer.add_set_data(path, data, *version),
            Op::Delete { path, version } => writer.add_delete(path, *version),
        };
        added.map_err(|error| at(index, step_failed(op, error)))?;
    }
    let outcomes = writer.commit().await.map_err(|error| match error {
        MultiWriteError::OperationFailed { index, source } => match ops.get(index) {
            Some(op) => at(index, step_failed(op, source)),
            None => failed(Kind::Write, "/", source),
        },
        MultiWriteError::RequestFailed { source } => failed(Kind::Write, "/", source),
    })?;
    outcomes
        .into_iter()
        .map(|outcome| match outcome {
            MultiWriteResult::Check => Ok(Outcome::Checked),
            MultiWriteResult::Create { path, .. } => Ok(Outcome::Created(path)),
            MultiWriteResult::SetData { stat } => Ok(Outcome::Set(convert(&stat))),
            MultiWriteResult::Delete => Ok(Outcome::Deleted),
            other => Err(Error::Ambiguous { reason: format!("unknown outcome {other:?}") }),
        })
        .collect()
}

fn at(index: usize, source: Error) -> Error {
    Error::Transaction { index, source: Box::new(source) }
}

/// Why a write of one step failed. What a creation misses is its parent.
pub(super) fn step_failed(step: &Op, error: ClientError) -> Error {
    let path = match (step, &error) {
        (Op::Create { path, .. }, ClientError::NoNode) => match path.rsplit_once('/') {
            Some((parent, _)) if !parent.is_empty() => parent,
            _ => "/",
        },
        _ => step.path(),
    };
    failed(Kind::Write, path, error)
}

/// What an error of the client means. Whatever is not an answer of the ensemble that it did not do
/// it (closed, reset or idle connections come as different errors) leaves a write in doubt.
pub(super) fn failed(kind: Kind, path: &str, error: ClientError) -> Error {
    let path = path.to_owned();
    let reason = error.to_string();
    match error {
        ClientError::NoNode => Error::NoNode { path },
        ClientError::NodeExists => Error::NodeExists { path },
        ClientError::BadVersion => Error::BadVersion { path },
        ClientError::NotEmpty => Error::NotEmpty { path },
        ClientError::NoChildrenForEphemerals => Error::NoChildrenForEphemerals { path },
        ClientError::NoAuth => Error::Denied { path },
        ClientError::BadArguments(_) => {
            Error::BadPath { path, reason: "ZooKeeper does not accept it" }
        }
        ClientError::QuotaExceeded
        | ClientError::Unimplemented
        | ClientError::InvalidAcl
        | ClientError::MarshallingError => Error::Refused { reason },
        ClientError::Throttled | ClientError::SessionMoved | ClientError::NotReadOnly => {
            Error::Unavailable { reason }
        }
        _ => match kind {
            Kind::Read => Error::Unavailable { reason },
            Kind::Write => Error::Ambiguous { reason },
        },
    }
}
