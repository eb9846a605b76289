//! What was done to keep tables in good order, as the whole cluster sees it: a few entries in one
//! node of the store, written by whichever daemon did the work, after it.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::Work;
use crate::coordination::paths::Path;
use crate::coordination::{self, Coordination, MAX_DATA};

/// Entries that are kept; the oldest go first.
const MAX_ENTRIES: usize = 100;

/// How often an entry is written again because another daemon has written its own.
const MAX_ATTEMPTS: u32 = 5;

/// Characters of an error that are kept.
const MAX_ERROR: usize = 200;

/// One piece of work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Who did it.
    pub daemon: String,
    /// On what: `database.schema.table`, or the warehouse.
    pub object: String,
    /// `compact`, `expire`, `orphans` or `dropped`.
    pub kind: String,
    pub started: DateTime<Utc>,
    pub seconds: f64,
    #[serde(flatten)]
    pub work: Work,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

#[derive(Default, Serialize, Deserialize)]
struct Record {
    entries: Vec<Entry>,
}

/// The cluster's log of maintenance.
#[derive(Debug)]
pub struct Log {
    coordination: Arc<dyn Coordination>,
    /// This daemon's id.
    daemon: String,
}

impl Log {
    pub async fn open(
        coordination: Arc<dyn Coordination>,
        daemon: &str,
    ) -> coordination::Result<Arc<Self>> {
        coordination::ensure(coordination.as_ref(), &Path::Maintenance.to_string()).await?;
        Ok(Arc::new(Self { coordination, daemon: daemon.to_owned() }))
    }

    /// What the store has, oldest first.
    pub async fn entries(&self) -> coordination::Result<Vec<Entry>> {
        let node = self.coordination.get(&Path::Maintenance.to_string()).await?;
        Ok(node.map(|node| from_json(&node.data).entries).unwrap_or_default())
    }

    /// What this daemon has done since `started`.
    pub(super) fn entry(
        &self,
        object: &str,
        kind: &str,
        started: DateTime<Utc>,
        done: super::Result<Work>,
    ) -> Entry {
        let (work, error) = match done {
            Ok(work) => (work, None),
            Err(error) => {
                let text: String = error.to_string().chars().take(MAX_ERROR).collect();
                (Work::default(), Some(text))
            }
        };
        let seconds = (Utc::now() - started).as_seconds_f64().max(0.0);
        let (daemon, object, kind) = (self.daemon.clone(), object.to_owned(), kind.to_owned());
        Entry { daemon, object, kind, started, seconds, work, error }
    }

    /// Adds entries. That they are missing if the store does not take them is no reason to fail.
    pub(super) async fn append(&self, entries: Vec<Entry>) {
        if !entries.is_empty()
            && let Err(error) = self.try_append(entries).await
        {
            warn!(%error, "maintenance is not in the cluster's log");
        }
    }

    async fn try_append(&self, entries: Vec<Entry>) -> coordination::Result<()> {
        let path = Path::Maintenance.to_string();
        let mut attempt = 1;
        loop {
            let Some(node) = self.coordination.get(&path).await? else { return Ok(()) };
            let mut record = from_json(&node.data);
            record.entries.extend(entries.iter().cloned());
            let written = self.coordination.set(&path, fitting(record), Some(node.stat.version));
            match written.await {
                Err(error)
                    if attempt < MAX_ATTEMPTS
                        && matches!(error.root(), coordination::Error::BadVersion { .. }) =>
                {
                    attempt += 1;
                }
                done => return done.map(drop),
            }
        }
    }
}

/// The newest entries as one value.
fn fitting(mut record: Record) -> bytes::Bytes {
    let surplus = record.entries.len().saturating_sub(MAX_ENTRIES);
    record.entries.drain(..surplus);
    loop {
        let json = to_json(&record);
        if json.len() <= MAX_DATA || record.entries.is_empty() {
            return json;
        }
        record.entries.remove(0);
    }
}

fn to_json(record: &Record) -> bytes::Bytes {
    serde_json::to_vec(record).unwrap_or_default().into()
}

/// What cannot be read, such as the empty value of a new node, is started anew.
fn from_json(data: &[u8]) -> Record {
    serde_json::from_slice(data).unwrap_or_default()
}
