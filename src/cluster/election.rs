//! Who does what only one daemon is to do: an election by ephemeral sequential nodes, in which the
//! lowest leads.
//!
//! # Why a leader that no longer is one does no harm
//! A daemon that was stopped for a while may believe that it leads while another does already. So
//! whatever a leader writes carries a check of its own node ([`Election::fence`]): the store refuses
//! it once the node is gone, whatever the daemon believes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::membership::Membership;
use super::{Error, Result};
use crate::coordination::paths::Path;
use crate::coordination::{self, Coordination, Mode, Op, Scope, Session, SessionState};

/// Pause before what could not be read or written is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// What a candidate tells of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Candidate {
    daemon: String,
    incarnation: Uuid,
}

/// Who leads, as far as this daemon knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The leading daemon's id.
    pub leader: Option<String>,
    /// This daemon's node, while it is the one that leads.
    pub own: Option<String>,
}

/// This daemon's part in the election.
#[derive(Debug)]
pub struct Election {
    coordination: Arc<dyn Coordination>,
    membership: Arc<Membership>,
    state: watch::Sender<Leadership>,
}

impl Election {
    pub async fn open(
        coordination: Arc<dyn Coordination>,
        membership: Arc<Membership>,
    ) -> Result<Arc<Self>> {
        coordination::ensure(coordination.as_ref(), &Path::Leader.to_string()).await?;
        let state = watch::Sender::new(Leadership::default());
        Ok(Arc::new(Self { coordination, membership, state }))
    }

    /// Who leads now and from now on.
    pub fn state(&self) -> watch::Receiver<Leadership> {
        self.state.subscribe()
    }

    /// The leading daemon's id.
    pub fn leader(&self) -> Option<String> {
        self.state.borrow().leader.clone()
    }

    /// The check that goes with whatever this daemon writes as the leader; `None` if it is not, or
    /// cannot be sure by its own clock that it is.
    pub fn fence(&self) -> Option<Op> {
        let own = self.state.borrow().own.clone()?;
        self.membership.may_act().then_some(Op::Check { path: own, version: None })
    }

    /// Takes part until `stop`, and then makes room for another, as it does while its engine hangs. Needed exactly
    /// once.
    pub async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let mut session = self.coordination.session();
        let mut watch = self.coordination.watch(&Path::Leader.to_string(), Scope::Children);
        let mut hang = self.membership.watch_stuck();
        let mut known = BTreeMap::new();
        let mut behind = false;
        let mut last = session.borrow().id;
        loop {
            let retry = async {
                match behind {
                    true => tokio::time::sleep(RETRY).await,
                    false => std::future::pending().await,
                }
            };
            // All lead to the same look. In one order, so that a simulation repeats exactly.
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                event = watch.next() => if event.is_none() { break },
                changed = session.changed() => if changed.is_err() { break },
                changed = hang.changed() => if changed.is_err() { break },
                () = retry => {}
            }
            let now: Session = *session.borrow_and_update();
            // A place was its session's. That another has begun may be all that is heard of its end.
            if now.state != SessionState::Connected || now.id != last {
                self.publish(Leadership::default());
            }
            last = now.id;
            if now.state != SessionState::Connected {
                continue;
            }
            behind = match self.take_part(&mut known).await {
                Ok(leadership) => {
                    let lasts = session.borrow().id == now.id;
                    self.publish(if lasts { leadership } else { Leadership::default() });
                    false
                }
                Err(error) => {
                    warn!(%error, "who leads could not be found out");
                    self.publish(Leadership::default());
                    true
                }
            };
        }
        self.resign(&known).await;
    }

    /// Makes sure of exactly one node of this daemon, or none if its engine hangs; who leads then. Candidates never
    /// change, so each is read once.
    async fn take_part(&self, known: &mut BTreeMap<String, Candidate>) -> Result<Leadership> {
        self.read(known).await?;
        let me = self.candidate().await;
        let stands = !self.membership.is_stuck();
        let mut own: Vec<String> = Vec::new();
        for (node, candidate) in known.clone() {
            if candidate.daemon != me.daemon {
                continue;
            }
            // A node of an earlier life or session, or one too many, whose reply was lost.
            if candidate != me || !own.is_empty() || !stands {
                self.remove(&node, &me).await?;
                known.remove(&node);
            } else {
                own.push(node);
            }
        }
        if own.is_empty() && stands {
            let incarnation = Path::Incarnation(me.incarnation).to_string();
            let path = format!("{}/", Path::Leader);
            let data = serde_json::to_vec(&me)
                .map_err(|source| Error::BadRecord { path: path.clone(), source })?;
            let ops = vec![
                Op::Check { path: incarnation, version: None },
                Op::Create { path, data: data.into(), mode: Mode::EphemeralSequential },
            ];
            self.coordination.transact(ops).await?;
            self.read(known).await?;
        }
        let Some((node, first)) = known.first_key_value() else { return Ok(Leadership::default()) };
        let own = (*first == me).then(|| path_of(node));
        Ok(Leadership { leader: Some(first.daemon.clone()), own })
    }

    /// Reads the candidates that are not known yet, and forgets those that have gone.
    async fn read(&self, known: &mut BTreeMap<String, Candidate>) -> Result<()> {
        let nodes = self.coordination.children(&Path::Leader.to_string()).await?;
        known.retain(|node, _| nodes.contains(node));
        for node in nodes {
            if known.contains_key(&node) {
                continue;
            }
            let path = path_of(&node);
            let Some(found) = self.coordination.get(&path).await? else { continue };
            let candidate = serde_json::from_slice(&found.data)
                .map_err(|source| Error::BadRecord { path, source })?;
            known.insert(node, candidate);
        }
        Ok(())
    }

    async fn candidate(&self) -> Candidate {
        let incarnation = self.membership.record().await.incarnation;
        Candidate { daemon: self.membership.id().to_owned(), incarnation }
    }

    /// Removes a node of this daemon's name. Only who is registered may do so: it could be that of a
    /// daemon which has taken the name since.
    async fn remove(&self, node: &str, me: &Candidate) -> Result<()> {
        let path = path_of(node);
        let own = Path::Incarnation(me.incarnation).to_string();
        let ops = vec![
            Op::Check { path: own, version: None },
            Op::Delete { path: path.clone(), version: None },
        ];
        match self.coordination.transact(ops).await {
            Err(error) => match error.root() {
                coordination::Error::NoNode { path: missing } if *missing == path => Ok(()),
                _ => Err(error.into()),
            },
            Ok(_) => Ok(()),
        }
    }

    /// The next in line need not wait until the session is over.
    async fn resign(&self, known: &BTreeMap<String, Candidate>) {
        self.publish(Leadership::default());
        let me = self.candidate().await;
        for (node, candidate) in known {
            if *candidate == me
                && let Err(error) = self.remove(node, &me).await
            {
                warn!(%error, "the place in the election ends with the session");
            }
        }
    }

    fn publish(&self, leadership: Leadership) {
        self.state.send_if_modified(|current| {
            let changed = *current != leadership;
            if changed {
                if current.own.is_some() != leadership.own.is_some() {
                    info!(leads = leadership.own.is_some(), "the leader's work");
                }
                *current = leadership;
            }
            changed
        });
    }
}

fn path_of(node: &str) -> String {
    format!("{}/{node}", Path::Leader)
}
