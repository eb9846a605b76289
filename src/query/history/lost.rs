//! The statements of daemons that have died.
//!
//! A daemon that is started again finds in its own journal what it had begun. One that is not leaves
//! its running statements in the coordination store until its session ends there. Whoever suspects it
//! before that reads them at once, and after a moment, if it has not come back to life, tells of them
//! as lost. Several may do so, or a daemon be suspected that only was slow: see [`super::merged`].

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::{StreamExt, stream};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use tracing::info;
use uuid::Uuid;

use super::{History, Record, is_final};
use crate::cluster::{Member, Workers};
use crate::coordination::Coordination;
use crate::coordination::paths::Path;
use crate::query::submitted::KIND;

/// How long a daemon may take to answer again before its statements are taken for lost.
const GRACE: Duration = Duration::from_secs(2);

/// Reads of the store under way at once.
const CONCURRENT_READS: usize = 16;

/// Of the value of `/queries/<id>`: what is needed here.
#[derive(Debug, Deserialize)]
struct Seen {
    kind: String,
    state: String,
    daemon: String,
    pid: Option<i32>,
    user: String,
    owner: Option<u32>,
    database: String,
    #[serde(default)]
    application_name: String,
    pool: Option<String>,
    sql: String,
    started: Option<DateTime<Utc>>,
}

/// Watches over the other daemons, until `end`. Needed exactly once.
pub async fn watch(
    history: Arc<History>,
    coordination: Arc<dyn Coordination>,
    workers: Arc<Workers>,
    end: CancellationToken,
) {
    let mut suspicions = workers.watch_suspects();
    let members = workers.watch();
    let mut told = HashSet::new();
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            changed = suspicions.changed() => if changed.is_err() { return },
        }
        let present: Vec<Member> = members.borrow().iter().cloned().collect();
        let known =
            |incarnation: &Uuid| present.iter().any(|m| m.record.incarnation == *incarnation);
        told.retain(known);
        let ended = |member: &&Member| {
            let incarnation = member.record.incarnation;
            member.id != workers.own_id()
                && workers.has_ended(incarnation)
                && !told.contains(&incarnation)
        };
        let ended: Vec<&Member> = present.iter().filter(ended).collect();
        if ended.is_empty() {
            continue;
        }
        let names: HashSet<&str> = ended.iter().map(|member| member.id.as_str()).collect();
        let records = statements_of(coordination.as_ref(), &names).await;
        tokio::select! {
            () = end.cancelled() => return,
            () = tokio::time::sleep(GRACE) => {}
        }
        for member in ended {
            if !workers.has_ended(member.record.incarnation) {
                continue;
            }
            told.insert(member.record.incarnation);
            let of_it = records.iter().filter(|record| record.daemon == member.id);
            let of_it: Vec<Record> = of_it.cloned().collect();
            if !of_it.is_empty() {
                info!(daemon = member.id, statements = of_it.len(), "statements were lost");
            }
            of_it.into_iter().for_each(|record| history.note_lost(record));
        }
    }
}

/// What the store says that these daemons run.
async fn statements_of(coordination: &dyn Coordination, daemons: &HashSet<&str>) -> Vec<Record> {
    let root = Path::Queries.to_string();
    let nodes = coordination.children(&root).await.unwrap_or_default();
    let root = root.as_str();
    let read: Vec<Option<Record>> = stream::iter(nodes)
        .map(|node| async move {
            let id: Uuid = node.parse().ok()?;
            let read = coordination.get(&format!("{root}/{node}")).await;
            let seen: Seen = serde_json::from_slice(&read.ok()??.data).ok()?;
            (seen.kind != KIND && !is_final(&seen.state)).then(|| seen.record(id))
        })
        .buffer_unordered(CONCURRENT_READS)
        .collect()
        .await;
    let of_them = |record: &Record| daemons.contains(record.daemon.as_str());
    read.into_iter().flatten().filter(of_them).collect()
}

impl Seen {
    fn record(self, id: Uuid) -> Record {
        let Self { daemon, pid, user, owner, database, application_name, pool, sql, .. } = self;
        Record {
            id,
            daemon,
            pid,
            user,
            owner,
            database,
            application_name,
            pool,
            sql,
            started: self.started,
            ..Record::default()
        }
    }
}
