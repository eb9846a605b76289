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
//! Who gives up, or cannot reach the store, leaves the removal of its place to a task that tries until that is
//! done: whoever comes later would wait for it, and it would stay for as long as the session.
//!
//! A turn is a courtesy and no claim: nothing rests on it but how long others wait. Who has none may
//! commit all the same, and the table's version decides. So a place may be taken away from whoever
//! does not move on, and whatever goes wrong with it is no error.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::cache::Catalog;
use super::ddl::path_of;
use super::snapshot::TableName;
use crate::coordination::paths::{Path, is_below_table, is_table};
use crate::coordination::{self, Error, Event, Mode, Op, Outcome, SessionState};
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

/// What is heard of the queues of tables, and what is to be removed from them.
#[derive(Debug)]
pub(super) struct Turns {
    news: broadcast::Sender<News>,
    left: Arc<Left>,
}

impl Turns {
    pub fn new() -> Self {
        Self { news: broadcast::Sender::new(MAX_NEWS), left: Arc::default() }
    }
}

/// Places that nobody wants any more and that may be there. As many as were taken or left while the store went
/// out of reach: nobody takes one in a store that is.
#[derive(Debug, Default)]
struct Left {
    places: Mutex<Vec<Spot>>,
    arrival: Notify,
}

impl Left {
    fn add(&self, spot: Spot) {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).push(spot);
        self.arrival.notify_one();
    }

    fn take(&self) -> Vec<Spot> {
        std::mem::take(&mut self.places.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Where a place is.
#[derive(Clone, Debug)]
struct Spot {
    table: String,
    /// Its path without the number that the store gives it. No other has the same.
    beginning: String,
}

/// A place that is taken, or is about to be. One that is dropped is removed as soon as the store can be reached.
#[derive(Debug)]
struct Place {
    /// None once it is known to be gone.
    spot: Option<Spot>,
    left: Arc<Left>,
}

impl Place {
    fn forget(mut self) {
        self.spot = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(spot) = self.spot.take() {
            self.left.add(spot);
        }
    }
}

/// A daemon's turn at a table, to be handed back with [`Catalog::end_turn`]. One that is dropped ends a little
/// later.
#[derive(Debug)]
pub struct Turn {
    path: String,
    place: Place,
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
        if stop.is_cancelled() {
            return None;
        }
        let table = path_of(name);
        // Before the place is there, so that nothing is missed.
        let news = self.turns.news.subscribe();
        let beginning = Path::Turn(&table, id::nonce()).to_string();
        let spot = Spot { table: table.clone(), beginning: beginning.clone() };
        let place = Place { spot: Some(spot), left: self.turns.left.clone() };
        let data = Bytes::from(serde_json::json!({ "daemon": daemon }).to_string());
        let created = tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            created = self.coordination.create(&beginning, data, Mode::EphemeralSequential) => created,
        };
        let turn = match created {
            Ok(path) => Turn { path, place },
            // It may be there.
            Err(error) if error.may_have_landed() => return None,
            Err(_) => {
                place.forget();
                return None;
            }
        };
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

    /// Lets the next one have its turn: at once, or as soon as the store can be reached again.
    pub async fn end_turn(&self, turn: Turn) {
        match self.coordination.delete(&turn.path, None).await {
            Ok(()) | Err(Error::NoNode { .. }) => turn.place.forget(),
            Err(error) => {
                tracing::debug!(%error, path = turn.path, "a turn at a table ends later");
            }
        }
    }

    /// Removes places that nobody wants any more, as they come: for as long as the session lasts.
    pub(super) async fn remove_left_places(&self) {
        loop {
            for spot in self.turns.left.take() {
                self.remove_left_place(spot).await;
            }
            self.turns.left.arrival.notified().await;
        }
    }

    /// Tries until it is certainly gone, or is known not to be this daemon's to remove.
    async fn remove_left_place(&self, spot: Spot) {
        loop {
            // What was asked for before has arrived by then, if it ever does.
            if self.in_touch_again(self.settled_by(Instant::now())).await {
                match self.try_to_remove(&spot).await {
                    Ok(()) => return,
                    Err(error) if error.is_unavailable() => {}
                    Err(error) => {
                        tracing::warn!(%error, path = spot.beginning, "a place in a table's queue stays");
                        return;
                    }
                }
            } else if self.coordination.session().borrow().state == SessionState::Closed {
                return;
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    async fn try_to_remove(&self, spot: &Spot) -> coordination::Result<()> {
        let places = match self.places(&spot.table).await {
            // It has gone with its table.
            Err(Error::NoNode { .. }) => return Ok(()),
            places => places?,
        };
        for place in places.iter().filter(|path| path.starts_with(&spot.beginning)) {
            match self.coordination.delete(place, None).await {
                Ok(()) | Err(Error::NoNode { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
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
        let _ = self.turns.news.send(news);
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
