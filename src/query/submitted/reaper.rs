//! Removes queries that are long done, with their rows.
//!
//! Clocks of daemons may be wrong by hours, and nobody is to lose rows for that: a query is as old as the later
//! says of the clock of the daemon that has run it and of the store's, and it is now what the earlier says of
//! the store's clock and of the one here.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::attempt::Results;
use super::runner::{Runner, names};
use super::{Found, Result};
use crate::coordination::paths::Path;
use crate::coordination::{self, Op};

/// How often old queries are looked for, if they are not to go sooner.
const REAP: Duration = Duration::from_secs(60);

/// A query that is done.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Done {
    finished: DateTime<Utc>,
    id: String,
    version: i32,
    /// Of its rows.
    bytes: u64,
    owner: Owner,
}

/// Whose a query is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    Role(u32),
    /// One that nobody knew.
    Named(String),
}

impl Done {
    /// `None` if it is not.
    fn of(id: String, Found { record, version, written }: Found) -> Option<Self> {
        let finished = record.finished?.max(moment(written));
        let bytes = record.outcome.map_or(0, |outcome| outcome.bytes);
        let owner = record.owner.map_or(Owner::Named(record.user), Owner::Role);
        Some(Self { finished, id, version, bytes, owner })
    }
}

/// The queries that are too old; and of those that are too many, or have too many bytes of rows, the
/// oldest of whoever has most, so that no role's take the room of another's. The newest query stays,
/// however many bytes it has.
fn to_remove(
    mut done: Vec<Done>,
    oldest: Option<DateTime<Utc>>,
    history: usize,
    results: u64,
) -> Vec<Done> {
    done.sort();
    let left = done.split_off(done.partition_point(|one| Some(one.finished) < oldest));
    let mut removed = done;
    let newest = left.last().map(|one| one.id.clone());
    let (mut count, mut total) = (left.len(), left.iter().map(|one| one.bytes).sum::<u64>());
    let mut owners: BTreeMap<Owner, (u64, VecDeque<Done>)> = BTreeMap::new();
    for one in left {
        let (bytes, queue) = owners.entry(one.owner.clone()).or_default();
        *bytes += one.bytes;
        queue.push_back(one);
    }
    while count > history || total > results {
        let too_many = count > history;
        let most = (owners.values_mut())
            .filter(|(_, queue)| queue.front().is_some_and(|one| Some(&one.id) != newest.as_ref()))
            .max_by_key(|(bytes, queue)| {
                let oldest = Reverse(queue.front().map(|one| one.finished));
                (if too_many { queue.len() as u64 } else { *bytes }, oldest)
            });
        let Some((bytes, queue)) = most else { break };
        let Some(one) = queue.pop_front() else { break };
        (count, total, *bytes) = (count - 1, total - one.bytes, *bytes - one.bytes);
        removed.push(one);
    }
    removed
}

impl Runner {
    /// As long as this daemon leads, removes queries whose time is over, until `stop`. Needed exactly
    /// once.
    pub async fn reap(self: Arc<Self>, stop: CancellationToken) {
        let mut limits = self.submissions.limits.subscribe();
        loop {
            let pause = REAP.min(limits.borrow_and_update().keep);
            tokio::select! {
                () = stop.cancelled() => return,
                _ = limits.changed() => {}
                () = sleep(pause) => {}
            }
            let Some(fence) = self.election.fence() else { continue };
            if let Err(error) = self.remove_old(&fence).await {
                debug!(%error, "old queries could not be removed yet");
            }
        }
    }

    /// Removes the records, and then the rows, of queries that were done too long ago or are too many,
    /// and rows without a record.
    async fn remove_old(&self, fence: &Op) -> Result<()> {
        let store = self.submissions.coordination.as_ref();
        let results = Results::of_daemon(&self.queries);
        // First: whose record is made after this has no rows yet.
        let mut stray = match &results {
            Some(results) => {
                results.ids(self.queries.engine.files()).await.unwrap_or_else(|error| {
                    debug!(%error, "the results could not be listed");
                    HashSet::new()
                })
            }
            None => HashSet::new(),
        };
        let mut done = Vec::new();
        for id in names(store, &Path::Queries).await? {
            stray.remove(&id);
            // Running statements of clients are there as well.
            if let Ok(Some(found)) = self.submissions.find(&id).await {
                done.extend(Done::of(id, found));
            }
        }
        let limits = self.submissions.limits();
        let keep = chrono::Duration::from_std(limits.keep).unwrap_or(chrono::Duration::MAX);
        let mut oldest = Utc::now().checked_sub_signed(keep);
        if done.iter().any(|one| Some(one.finished) < oldest) {
            oldest = self.stored_time(fence).await?.checked_sub_signed(keep).min(oldest);
        }
        for Done { id, version, .. } in to_remove(done, oldest, limits.history, limits.results.0) {
            let path = Path::Query(&id).to_string();
            let ops = vec![fence.clone(), Op::Delete { path, version: Some(version) }];
            // Another leads by now, or somebody has written the record: the next pass looks again.
            store.transact(ops).await?;
            stray.insert(id);
        }
        for (id, results) in stray.iter().filter_map(|id| Some((id, results.as_ref()?))) {
            if let Err(error) = self.queries.engine.files().remove_directory(&results.of(id)).await
            {
                debug!(id, %error, "the rows of an old query stay for a while");
            }
        }
        Ok(())
    }

    /// What time it is by the store's clock: it shows where something is written, here what this daemon says as
    /// the one that leads, once more.
    async fn stored_time(&self, fence: &Op) -> Result<DateTime<Utc>> {
        let (store, path) = (self.submissions.coordination.as_ref(), fence.path());
        let Some(node) = store.get(path).await? else {
            return Err(coordination::Error::NoNode { path: path.to_owned() }.into());
        };
        Ok(moment(store.set(path, node.data, None).await?.mtime))
    }
}

/// By the store's clock.
fn moment(millis: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(millis).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_as_old_as_the_later_clock_says() {
        let found = |finished: i64, written: i64| {
            let finished = DateTime::from_timestamp(finished, 0).expect("a time").to_rfc3339();
            let record = serde_json::json!({
                "kind": "submitted", "attempt": 1, "sql": "SELECT 1", "user": "u", "database": "d", "submitted": finished, "finished": finished,
                "state": "succeeded",
            });
            let record = serde_json::from_value(record).expect("a record");
            let done =
                Done::of("a".to_owned(), Found { record, version: 7, written: written * 1000 });
            done.map(|done| (done.finished.timestamp(), done.version))
        };
        assert_eq!(found(1000, 1001), Some((1001, 7)));
        assert_eq!(found(1000, 90_000), Some((90_000, 7)), "its daemon's clock was a day behind");
        assert_eq!(found(90_000, 1000), Some((90_000, 7)), "a day ahead");
    }

    /// Ids such as `a1`, of role `a` at its first second, with bytes of rows.
    fn done(queries: &[(&str, u64)]) -> Vec<Done> {
        let one = |(at, (id, bytes)): (usize, &(&str, u64))| {
            let finished = DateTime::from_timestamp(at as i64, 0).expect("a time");
            let owner = Owner::Named(id[..1].to_owned());
            Done { finished, id: (*id).to_owned(), version: 0, bytes: *bytes, owner }
        };
        queries.iter().enumerate().map(one).collect()
    }

    fn left(queries: &[(&str, u64)], oldest: i64, history: usize, results: u64) -> String {
        let oldest = DateTime::from_timestamp(oldest, 0);
        let removed = to_remove(done(queries), oldest, history, results);
        let left = done(queries).into_iter().filter(|one| !removed.contains(one));
        left.map(|one| one.id).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn whoever_has_most_makes_room() {
        let queries = ["a1", "b1", "b2", "a2", "b3", "b4", "b5"].map(|id| (id, 1));
        assert_eq!(left(&queries, 0, 7, 100), "a1 b1 b2 a2 b3 b4 b5");
        assert_eq!(left(&queries, 0, 5, 100), "a1 a2 b3 b4 b5");
        assert_eq!(left(&queries, 0, 4, 100), "a1 a2 b4 b5");
        // Of two with as many, whoever has the oldest.
        assert_eq!(left(&queries, 0, 3, 100), "a2 b4 b5");
        assert_eq!(left(&queries, 4, 100, 100), "b3 b4 b5");
        assert_eq!(left(&[], 0, 1, 1), "");
    }

    #[test]
    fn rows_have_a_bound_as_well() {
        let queries = [("a1", 1), ("b1", 4), ("b2", 4), ("a2", 1), ("c1", 9)];
        assert_eq!(left(&queries, 0, 9, 16), "a1 b2 a2 c1");
        assert_eq!(left(&queries, 0, 9, 11), "a1 a2 c1");
        // The newest stays, however large.
        assert_eq!(left(&queries, 0, 9, 5), "c1");
        assert_eq!(left(&[("a1", 0), ("a2", 1)], 0, 1, 9), "a2");
    }
}
