//! Turns: how daemons that change one table at the same time take it in turns.
//!
//! A commit is a version-checked write, made from the table as its writer has read it. Of two daemons
//! that commit one change after another, whoever needs longer from that reading to the write gets
//! through by luck only, the less the longer it waits in between. So who has lost takes a place in the
//! table's queue, an ephemeral node below the table's that the store numbers, and has its turn when
//! there is none before it.
//!
//! Who wins hears of it without asking: how many nodes there are below the table's comes with the
//! table's record, which every daemon reads after each commit. Where nobody waits nothing is written,
//! read or watched for all this. Who waits is woken by the watch of the whole catalog that each daemon
//! has anyway.
//!
//! A turn is a courtesy and no claim: nothing rests on it but how long others wait. Who has none may
//! commit all the same, and the table's version decides. So a place may be taken away from whoever
//! does not move on, and whatever goes wrong with it is no error.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::cache::Catalog;
use super::ddl::path_of;
use super::snapshot::TableName;
use crate::coordination::paths::{Path, is_below_table, is_table};
use crate::coordination::{self, Error, Event, Mode, Op, Outcome};
use crate::id;

/// How long the same daemon may have its turn while others wait: a multiple of what a commit takes, and
/// less than it takes ZooKeeper to find that a daemon is dead.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long who waits hears nothing before it looks by itself.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// How often places are removed that are in the way of a change, for others take new ones.
const MAX_CLEARED: usize = 20;

/// Pieces of news that are kept for who waits: who misses some looks by itself.
const MAX_NEWS: usize = 256;

/// The path of a place that was taken or left; none if anything may have happened.
pub(super) type News = Option<Arc<str>>;

pub(super) fn channel() -> broadcast::Sender<News> {
    broadcast::Sender::new(MAX_NEWS)
}

/// A daemon's turn at a table, to be handed back with [`Catalog::end_turn`].
#[derive(Debug)]
pub struct Turn {
    path: String,
}

impl Catalog {
    /// Whether somebody waits for a turn at a table. Asks the store only where somebody did when the
    /// table was read last.
    pub async fn is_wanted(&self, name: &TableName) -> bool {
        self.waited(name) > 0
            && self.places(&path_of(name)).await.is_ok_and(|places| !places.is_empty())
    }

    /// How many places there were in a table's queue when it was read last.
    pub fn waited(&self, name: &TableName) -> i32 {
        self.snapshot().table(name).map_or(0, |table| table.stat.num_children)
    }

    /// Waits for a turn at a table, at most until `stop`. `None` if there is no telling whose turn it
    /// is: who wanted one goes on without.
    pub async fn take_turn(
        &self,
        name: &TableName,
        daemon: &str,
        stop: &CancellationToken,
    ) -> Option<Turn> {
        let table = path_of(name);
        // Before the place is there, so that nothing is missed.
        let news = self.turns.subscribe();
        let place = Path::Turn(&table, id::nonce()).to_string();
        let data = Bytes::from(serde_json::json!({ "daemon": daemon }).to_string());
        let path = match self.coordination.create(&place, data, Mode::EphemeralSequential).await {
            Ok(path) => path,
            // It may be there for as long as the session is.
            Err(error) if error.may_have_landed() => {
                if !self.in_touch_again(self.settled_by(Instant::now())).await {
                    return None;
                }
                let places = self.places(&table).await.ok()?;
                places.into_iter().find(|path| path.starts_with(&place))?
            }
            Err(_) => return None,
        };
        let turn = Turn { path };
        let has_come = tokio::select! {
            biased;
            () = stop.cancelled() => false,
            has_come = self.wait_in_queue(&table, &turn.path, news) => has_come,
        };
        if !has_come {
            self.end_turn(turn).await;
            return None;
        }
        Some(turn)
    }

    /// Lets the next one have its turn.
    pub async fn end_turn(&self, turn: Turn) {
        let deadline = self.settled_by(Instant::now());
        loop {
            match self.coordination.delete(&turn.path, None).await {
                Ok(()) | Err(Error::NoNode { .. }) => return,
                Err(error) if error.is_unavailable() && Instant::now() < deadline => {
                    if !self.in_touch_again(deadline).await {
                        return;
                    }
                }
                // It ends with the session, or whoever waits takes it away.
                Err(error) => {
                    tracing::debug!(%error, path = turn.path, "a turn at a table cannot be ended");
                    return;
                }
            }
        }
    }

    /// Waits until a place is the first; false if it is none any more, or the store is out of reach.
    async fn wait_in_queue(
        &self,
        table: &str,
        own: &str,
        mut news: broadcast::Receiver<News>,
    ) -> bool {
        let (mut first, mut since) = (String::new(), Instant::now());
        loop {
            let Ok(places) = self.places(table).await else { return false };
            let before = match places.iter().position(|path| path == own) {
                Some(0) => return true,
                Some(at) => places[at - 1].as_str(),
                None => return false,
            };
            if first != places[0] {
                (first, since) = (places[0].clone(), Instant::now());
            } else if since.elapsed() >= PATIENCE {
                match self.coordination.delete(&first, None).await {
                    Ok(()) | Err(Error::NoNode { .. }) => continue,
                    Err(_) => return false,
                }
            }
            let heard = async {
                loop {
                    match news.recv().await {
                        Ok(Some(path)) if *path != *before => {}
                        Ok(_) | Err(RecvError::Lagged(_)) => return,
                        Err(RecvError::Closed) => std::future::pending().await,
                    }
                }
            };
            let _ = timeout(LOOK_AGAIN, heard).await;
        }
    }

    /// The paths of all places in a table's queue, in their order.
    async fn places(&self, table: &str) -> coordination::Result<Vec<String>> {
        let mut names = self.coordination.children(table).await?;
        names.sort_by_key(|name| number(name));
        Ok(names.into_iter().map(|name| format!("{table}/{name}")).collect())
    }

    /// Wakes those that wait for what has happened.
    pub(super) fn hear_of_turns(&self, event: &Event) {
        let news = match event {
            Event::Changed(path) if is_below_table(path) => Some(path.as_str().into()),
            Event::Changed(_) => return,
            Event::Resync => None,
        };
        // Most of the time nobody listens.
        let _ = self.turns.send(news);
    }

    /// Carries out steps. Places in the queues of tables that are dropped or renamed are no obstacle.
    pub(super) async fn transact_past_turns(
        &self,
        ops: Vec<Op>,
    ) -> coordination::Result<Vec<Outcome>> {
        let mut left = MAX_CLEARED;
        loop {
            let error = match self.coordination.transact(ops.clone()).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let table = match error.root() {
                Error::NotEmpty { path } if left > 0 && is_table(path) => path,
                _ => return Err(error),
            };
            left -= 1;
            for place in self.places(table).await? {
                match self.coordination.delete(&place, None).await {
                    Ok(()) | Err(Error::NoNode { .. }) => {}
                    Err(_) => return Err(error),
                }
            }
        }
    }
}

/// The number that the store has given a place.
fn number(name: &str) -> Option<i64> {
    name.rsplit_once('-')?.1.parse().ok()
}
