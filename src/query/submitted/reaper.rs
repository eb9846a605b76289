//! Removes queries that are long done, with their rows.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::attempt::Results;
use super::runner::{Runner, names};
use super::{Found, Result};
use crate::coordination::Op;
use crate::coordination::paths::Path;

/// How often old queries are looked for, if they are not to go sooner.
const REAP: Duration = Duration::from_secs(60);

impl Runner {
    /// As long as this daemon leads, removes queries whose time is over, until `stop`. Needed exactly
    /// once.
    pub async fn reap(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(REAP.min(self.submissions.limits.keep)) => {}
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
            let Ok(Some(Found { record, version })) = self.submissions.find(&id).await else {
                continue;
            };
            if let Some(finished) = record.finished {
                let bytes = record.outcome.map_or(0, |outcome| outcome.bytes);
                done.push((finished, id, version, bytes));
            }
        }
        done.sort_by(|a, b| b.cmp(a));
        let limits = &self.submissions.limits;
        let oldest = chrono::Duration::from_std(limits.keep)
            .ok()
            .and_then(|keep| Utc::now().checked_sub_signed(keep));
        let mut total = 0;
        for (at, (finished, id, version, bytes)) in done.into_iter().enumerate() {
            total += bytes;
            let too_much = at > 0 && total > limits.results.0;
            if at < limits.history && Some(finished) >= oldest && !too_much {
                continue;
            }
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
}
