//! Object identifiers, reserved in blocks from one counter in the coordination store.
//!
//! A daemon that stops leaves the rest of its block unused: identifiers are unique and stable, not
//! dense.

use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::{Error, Result};
use crate::coordination::{self, Coordination, Mode, Op, paths::Path};

/// The first identifier that PostgreSQL gives to users' objects (`FirstNormalObjectId` in its
/// `transam.h`). The ones below are fixed.
pub const FIRST_USER_OID: u32 = 16384;

/// Identifiers reserved by one write.
const BLOCK: u32 = 64;

/// Lost races in a row after which the store is taken to be in trouble.
const ATTEMPTS: usize = 100;

#[derive(Serialize, Deserialize)]
struct Counter {
    next: u32,
}

/// This daemon's reserve.
#[derive(Debug)]
pub(super) struct Oids {
    coordination: Arc<dyn Coordination>,
    reserve: Mutex<Range<u32>>,
}

impl Oids {
    pub fn new(coordination: Arc<dyn Coordination>) -> Self {
        Self { coordination, reserve: Mutex::new(0..0) }
    }

    /// An identifier nobody else has or will have.
    pub async fn next(&self) -> Result<u32> {
        let mut reserve = self.reserve.lock().await;
        if reserve.is_empty() {
            *reserve = self.reserve_block().await?;
        }
        let oid = reserve.start;
        reserve.start += 1;
        Ok(oid)
    }

    /// An identifier nobody else has or will have, and the step that takes it. Of all who take one
    /// this way at the same time only one is not refused: a turn.
    pub async fn turn(&self) -> Result<(u32, Op)> {
        let path = Path::Oids.to_string();
        let node = match self.coordination.get(&path).await.map_err(unreachable)? {
            Some(node) => node,
            None => {
                // Makes it.
                self.next().await?;
                let node = self.coordination.get(&path).await.map_err(unreachable)?;
                node.ok_or_else(|| unreachable(coordination::Error::NoNode { path: path.clone() }))?
            }
        };
        let invalid = |source| Error::BadRecord { path: path.clone(), source };
        let Counter { next } = serde_json::from_slice(&node.data).map_err(invalid)?;
        let data = serde_json::to_vec(&Counter { next: next + 1 }).map_err(invalid)?.into();
        let version = Some(node.stat.version);
        Ok((next, Op::Set { path: path.clone(), data, version }))
    }

    async fn reserve_block(&self) -> Result<Range<u32>> {
        let path = Path::Oids.to_string();
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let node = self.coordination.get(&path).await.map_err(unreachable)?;
            let (first, version) = match &node {
                None => (FIRST_USER_OID, None),
                Some(node) => {
                    let counter: Counter = serde_json::from_slice(&node.data)
                        .map_err(|source| Error::BadRecord { path: path.clone(), source })?;
                    (counter.next, Some(node.stat.version))
                }
            };
            let block = first..first + BLOCK;
            let data = serde_json::to_vec(&Counter { next: block.end })
                .map_err(|source| Error::BadRecord { path: path.clone(), source })?;
            let written = match version {
                None => {
                    // In a store that has lost its data nothing is to be made.
                    let check = Op::Check { path: Path::Catalog.to_string(), version: None };
                    let (path, data, mode) = (path.clone(), data.into(), Mode::Persistent);
                    let create = Op::Create { path, data, mode };
                    self.coordination.transact(vec![check, create]).await.map(drop)
                }
                Some(_) => self.coordination.set(&path, data.into(), version).await.map(drop),
            };
            match written {
                Ok(()) => return Ok(block),
                // A lost reply costs at most a block: start again from what is there now.
                Err(error) if error.may_have_landed() => last = Some(error),
                Err(error) => match error.root() {
                    coordination::Error::BadVersion { .. }
                    | coordination::Error::NodeExists { .. } => {}
                    _ => return Err(error.into()),
                },
            }
        }
        Err(unreachable(last.unwrap_or(coordination::Error::BadVersion { path })))
    }
}

/// Nothing that matters was changed when reserving failed, whatever became of the write.
fn unreachable(error: coordination::Error) -> Error {
    if error.is_unavailable() { Error::Unavailable(error) } else { Error::Coordination(error) }
}
