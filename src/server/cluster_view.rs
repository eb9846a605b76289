//! What the system tables show of the rooms below.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use crate::cluster::{Membership, State};
use crate::config::Config;
use crate::query::registry::Registry;
use crate::query::sessions::Sessions;
use crate::system::{Backends, Cluster, DaemonRow, QueryRow, SessionRow, SettingRow};

/// How long `system.queries` waits for the coordination store before it shows what it has.
const PATIENCE: Duration = Duration::from_secs(2);

/// Daemons and running statements.
#[derive(Debug)]
pub struct ClusterView {
    membership: Arc<Membership>,
    registry: Arc<Registry>,
}

impl ClusterView {
    pub fn new(membership: Arc<Membership>, registry: Arc<Registry>) -> Self {
        Self { membership, registry }
    }
}

#[async_trait]
impl Cluster for ClusterView {
    fn daemons(&self) -> Vec<DaemonRow> {
        let members = self.membership.members();
        let row = |member: &crate::cluster::Member| {
            let record = &member.record;
            let local = member.id == self.membership.id();
            // Of itself a daemon knows more than its record says.
            let state = match (local, self.membership.state()) {
                (true, State::Degraded) => State::Degraded,
                _ => record.state,
            };
            DaemonRow {
                id: member.id.clone(),
                state: state.to_string(),
                postgres: Some(record.postgres.clone()),
                peer: Some(record.peer.clone()),
                web: Some(record.web.clone()),
                incarnation: record.incarnation.to_string(),
                version: record.version.clone(),
                build: record.build.clone(),
                cores: u32::try_from(record.cores).unwrap_or(u32::MAX),
                memory: record.memory,
                since: record.since.into(),
                local,
            }
        };
        members.iter().map(row).collect()
    }

    async fn queries(&self) -> Vec<QueryRow> {
        let everywhere = self.registry.everywhere(self.membership.id());
        let found = match tokio::time::timeout(PATIENCE, everywhere).await {
            Ok(found) => found,
            Err(_) => self.registry.local(),
        };
        (found.into_iter())
            .map(|(id, entry)| {
                let started: SystemTime = entry.started.into();
                QueryRow {
                    id: id.to_string(),
                    kind: entry.kind.clone(),
                    state: entry.state.clone(),
                    daemon: entry.daemon.clone(),
                    pid: Some(entry.pid),
                    attempt: i32::try_from(entry.attempt).ok(),
                    user: entry.user.clone(),
                    database: entry.database.clone(),
                    sql: entry.sql.clone(),
                    progress: None,
                    submitted: started,
                    started: Some(started),
                    error: None,
                }
            })
            .collect()
    }
}

/// The clients of this daemon.
#[derive(Debug)]
pub struct Clients {
    sessions: Arc<Sessions>,
}

impl Clients {
    pub fn new(sessions: Arc<Sessions>) -> Self {
        Self { sessions }
    }
}

impl Backends for Clients {
    fn sessions(&self) -> Vec<SessionRow> {
        (self.sessions.activity().into_iter())
            .map(|activity| {
                let (query, query_started) = match activity.statement {
                    Some((text, since)) => (text, Some(since.into())),
                    None => (String::new(), None),
                };
                SessionRow {
                    pid: activity.pid,
                    user: activity.user,
                    database: activity.database,
                    application_name: String::new(),
                    client: activity.client.parse().ok(),
                    tls: activity.tls,
                    connected: activity.started.into(),
                    transaction_started: None,
                    query_started,
                    state_changed: query_started,
                    state: if query_started.is_some() { "active" } else { "idle" },
                    query,
                }
            })
            .collect()
    }

    fn cancel(&self, pid: i32) -> bool {
        self.sessions.cancel(pid)
    }

    fn terminate(&self, pid: i32) -> bool {
        self.sessions.terminate(pid)
    }
}

/// The daemon's configuration, a row a key.
pub fn setting_rows(config: &Config) -> Vec<SettingRow> {
    (config.rows().into_iter())
        .map(|row| SettingRow {
            key: row.key,
            value: row.value,
            default: row.default,
            origin: row.origin,
        })
        .collect()
}
