//! What the system tables show of the rooms below.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use datafusion::error::{DataFusionError, Result};

use crate::catalog;
use crate::cluster::live::{Applied, LiveSettings};
use crate::cluster::{Election, Member, Membership, State, Workers};
use crate::config::InForce;
use crate::coordination::counted::Counted;
use crate::coordination::whole::{Store, Whole};
use crate::engine::system::SessionInfo;
use crate::query::admission::{Admission, Shown};
use crate::query::history::{self, History, Record};
use crate::query::maintenance::log::{Entry, Log};
use crate::query::registry::{self, Registry};
use crate::query::sessions::{self, Activity, Sessions, prefix_of};
use crate::query::signals::{Denied, Outcome, Signals};
use crate::query::submitted::KIND;
use crate::query::{Notice, TransactionState};
use crate::system::{
    Backends, Cluster, DaemonRow, HistoryRow, LookRow, MaintenanceRow, PoolRow, ProfileRow,
    QueryRow, SessionRow, SettingAppliedRow, SettingChangeRow, SettingRow, Signal, Trouble,
    UNREACHABLE,
};

/// How long `system.queries` waits for the coordination store before it shows what it has.
const PATIENCE: Duration = Duration::from_secs(2);

/// Daemons and running statements.
#[derive(Debug)]
pub struct ClusterView {
    membership: Arc<Membership>,
    workers: Arc<Workers>,
    registry: Arc<Registry>,
    history: Arc<History>,
    election: Arc<Election>,
    log: Arc<Log>,
    admission: Arc<Admission>,
    store: Store,
    in_force: Arc<InForce>,
    live: Arc<LiveSettings>,
}

impl ClusterView {
    pub fn new(
        (membership, workers): (Arc<Membership>, Arc<Workers>),
        registry: Arc<Registry>,
        history: Arc<History>,
        election: Arc<Election>,
        log: Arc<Log>,
        (admission, store): (Arc<Admission>, Store),
        (in_force, live): (Arc<InForce>, Arc<LiveSettings>),
    ) -> Self {
        Self {
            membership,
            workers,
            registry,
            history,
            election,
            log,
            admission,
            store,
            in_force,
            live,
        }
    }

    /// What has become of a client's statement with its daemon, whose entry in the store stays as long as the
    /// daemon's session: it is lost if another process has the daemon's name, and while the daemon is only
    /// silent nobody knows.
    fn fate(&self, entry: &registry::Entry, members: &[Member]) -> Option<&'static str> {
        let of_client = entry.kind != KIND && !history::is_final(&entry.state);
        let known = members.iter().find(|member| of_client && member.id == entry.daemon);
        let Member { record, .. } = known?;
        let (its, now) = (entry.pid.and_then(prefix_of), record.pid_prefix);
        match its.zip(now).is_some_and(|(its, now)| its != now) {
            true => Some(history::State::Lost.as_str()),
            false => self.workers.is_silent(record.incarnation).then_some(UNREACHABLE),
        }
    }
}

#[async_trait]
impl Cluster for ClusterView {
    fn daemons(&self) -> Vec<DaemonRow> {
        let members = self.membership.members();
        let leader = self.election.leader();
        let row = |member: &Member| {
            let record = &member.record;
            let local = member.id == self.membership.id();
            // Of itself a daemon knows more than its record says, and of a neighbour that is dead, whose
            // record stays as long as its session.
            let state = match (local, self.membership.state()) {
                (true, State::Degraded) => State::Degraded.to_string(),
                (false, _) if self.workers.is_silent(record.incarnation) => UNREACHABLE.to_owned(),
                _ => record.state.to_string(),
            };
            DaemonRow {
                id: member.id.clone(),
                state,
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
                leader: leader.as_ref() == Some(&member.id),
                error: match local {
                    true => self.membership.trouble(),
                    false => record.trouble.clone().map(Trouble::of_everybody),
                },
            }
        };
        members.iter().map(row).collect()
    }

    async fn queries(&self, submitted: bool) -> (Vec<QueryRow>, bool) {
        let everywhere = self.registry.everywhere(submitted);
        let (found, complete) = match tokio::time::timeout(PATIENCE, everywhere).await {
            Ok(found) => found,
            Err(_) => {
                let local = self.registry.local().into_iter();
                (local.map(|(id, entry)| (id.to_string(), entry)).collect(), false)
            }
        };
        let found = if submitted { registry::without_attempts(found) } else { found };
        let members = self.membership.members();
        let row = |(id, mut entry): (String, registry::Entry)| {
            if let Some(fate) = self.fate(&entry, &members) {
                fate.clone_into(&mut entry.state);
            }
            let started: Option<SystemTime> = entry.started.map(Into::into);
            let submitted = entry.submitted.map(Into::into).or(started);
            QueryRow {
                id,
                kind: entry.kind,
                state: entry.state,
                daemon: entry.daemon,
                pid: entry.pid,
                attempt: i32::try_from(entry.attempt).ok(),
                user: entry.user,
                owner: entry.owner,
                database: entry.database,
                pool: entry.pool,
                sql: entry.sql,
                progress: entry.progress,
                submitted: submitted.unwrap_or(SystemTime::UNIX_EPOCH),
                started,
                sqlstate: entry.error.as_ref().map(|error| error.sqlstate.clone()),
                error: entry.error.map(|error| error.message),
                phase: None,
                rows: None,
                scanned: None,
                workers: Vec::new(),
            }
        };
        (found.into_iter().map(row).collect(), complete)
    }

    fn looks(&self) -> Vec<LookRow> {
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let row = |look: registry::Look| LookRow {
            id: look.id,
            attempt: i32::try_from(look.attempt).ok(),
            phase: look.phase.to_owned(),
            progress: look.progress,
            rows: number(look.rows),
            scanned: number(look.scanned),
            workers: look.workers,
        };
        self.registry.looks().into_iter().map(row).collect()
    }

    async fn history(&self) -> Vec<HistoryRow> {
        self.history.records().await.into_iter().map(history_row).collect()
    }

    async fn profile(&self, id: &str) -> Option<ProfileRow> {
        let kept = self.history.profile(id.parse().ok()?).await?;
        Some(ProfileRow { user: kept.user, owner: kept.owner, full: kept.full, plain: kept.plain })
    }

    fn pools(&self) -> Vec<PoolRow> {
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let row = |pool: Shown| PoolRow {
            name: pool.name,
            roles: pool.record.roles,
            concurrency: pool.record.concurrency.map(u64::from),
            queue: pool.record.queue.into(),
            queue_timeout: pool.record.queue_timeout,
            memory: pool.record.memory,
            daemon: self.membership.id().to_owned(),
            share: pool.limits.running.map(count),
            queue_share: count(pool.limits.waiting),
            running: count(pool.running),
            queued: count(pool.waiting),
            admitted: pool.counts.admitted,
            waited: pool.counts.waited,
            refused: pool.counts.refused,
            timed_out: pool.counts.timed_out,
            cancelled: pool.counts.left,
        };
        self.admission.shown().into_iter().map(row).collect()
    }

    async fn maintenance(&self) -> Result<Vec<MaintenanceRow>> {
        let entries = self.log.entries().await.map_err(catalog::Error::from);
        let entries = entries.map_err(|error| DataFusionError::External(Box::new(error)))?;
        let row = |entry: Entry| MaintenanceRow {
            daemon: entry.daemon,
            object: entry.object,
            kind: entry.kind,
            started: entry.started.into(),
            seconds: entry.seconds,
            files_read: entry.work.files_read,
            files_written: entry.work.files_written,
            snapshots_expired: entry.work.snapshots_expired,
            files_removed: entry.work.files_removed,
            bytes_removed: entry.work.bytes_removed,
            error: entry.error,
        };
        Ok(entries.into_iter().map(row).collect())
    }

    fn settings(&self) -> (u64, Vec<SettingRow>) {
        let live = self.live.current();
        (live.version, super::live::rows(&self.in_force.get(), &live))
    }

    async fn settings_applied(&self) -> Result<Vec<SettingAppliedRow>> {
        let external = |error| DataFusionError::External(Box::new(error));
        let applied = match tokio::time::timeout(PATIENCE, self.live.applied()).await {
            Ok(applied) => applied.map_err(external)?,
            Err(_) => Vec::new(),
        };
        let newest = self.live.current().version;
        // A daemon that lives and says nothing is one to look at.
        let silent = (self.membership.members().iter())
            .filter(|member| !applied.iter().any(|(daemon, _)| *daemon == member.id))
            .map(|member| SettingAppliedRow {
                daemon: member.id.clone(),
                version: None,
                current: false,
                applied: None,
                error: Some("it does not say which version it runs".to_owned()),
            })
            .collect::<Vec<_>>();
        let row = |(daemon, applied): &(String, Applied)| {
            let refused: Vec<String> = applied
                .refused
                .iter()
                .map(|(name, refused)| format!("{name}: {refused}"))
                .collect();
            SettingAppliedRow {
                daemon: daemon.clone(),
                version: Some(applied.version),
                current: applied.version == newest,
                applied: Some(applied.at.into()),
                error: (!refused.is_empty()).then(|| refused.join("; ")),
            }
        };
        Ok(applied.iter().map(row).chain(silent).collect())
    }

    fn settings_history(&self) -> Vec<SettingChangeRow> {
        super::live::history(&self.live.current())
    }

    fn store(&self) -> &Whole {
        &self.store.whole
    }

    fn own_session(&self) -> Option<&Arc<Counted>> {
        Some(&self.store.own)
    }
}

fn history_row(record: Record) -> HistoryRow {
    HistoryRow {
        id: record.id.to_string(),
        state: record.state.as_str(),
        daemon: record.daemon,
        pid: record.pid,
        user: record.user,
        owner: record.owner,
        database: record.database,
        pool: record.pool,
        client: record.client,
        application_name: record.application_name,
        sql: record.sql,
        tag: record.tag,
        started: record.started.map(Into::into),
        ended: record.ended.map(Into::into),
        duration: record.duration.map(Duration::from_micros),
        queued: record.queued.map(Duration::from_micros),
        planning: record.planning.map(Duration::from_micros),
        execution: record.execution.map(Duration::from_micros),
        rows: record.rows,
        scanned: record.scanned,
        rows_scanned: record.rows_scanned,
        spilled: record.spilled,
        peak: record.peak,
        retries: record.retries,
        workers: record.workers,
        silent: record.silent,
        profile: record.profile,
        sqlstate: record.sqlstate,
        error: record.error,
        settings: record.settings.into_iter().collect(),
    }
}

/// The clients of this daemon, and the way to those of others.
#[derive(Debug)]
pub struct Clients {
    sessions: Arc<Sessions>,
    signals: Arc<Signals>,
}

impl Clients {
    pub fn new(sessions: Arc<Sessions>, signals: Arc<Signals>) -> Self {
        Self { sessions, signals }
    }
}

#[async_trait]
impl Backends for Clients {
    fn sessions(&self) -> Vec<SessionRow> {
        let state = |activity: &Activity| match activity.transaction {
            _ if activity.active => "active",
            TransactionState::Idle => "idle",
            TransactionState::InBlock => "idle in transaction",
            TransactionState::Failed => "idle in transaction (aborted)",
        };
        let row = |activity: Activity| SessionRow {
            pid: activity.session.pid,
            user: activity.session.user.clone(),
            owner: Some(activity.session.owner),
            database: activity.session.database.clone(),
            client: Some(activity.session.client),
            tls: activity.session.tls.clone(),
            connected: Some(activity.session.started.into()),
            transaction_started: activity.transaction_since.map(Into::into),
            query_started: activity.statement.as_ref().map(|(_, since)| (*since).into()),
            state_changed: Some(activity.changed.into()),
            state: Some(state(&activity)),
            queued: activity.waits,
            query: activity.statement.map(|(text, _)| text.to_string()).unwrap_or_default(),
            application_name: Some(activity.application_name),
        };
        self.sessions.activity().into_iter().map(row).collect()
    }

    fn addresses(&self, pid: i32) -> (Option<SocketAddr>, Option<SocketAddr>) {
        let session = self.sessions.find(pid);
        let server = session.as_ref().and_then(|session| session.server.get().copied());
        (session.map(|session| session.client), server)
    }

    async fn signal(&self, asker: &SessionInfo, pid: i32, signal: Signal) -> Result<bool> {
        // Who is no longer there is nobody to act for.
        let Some(session) = self.sessions.find(asker.pid) else { return Ok(false) };
        let (kind, limit) = match signal {
            Signal::Cancel => (sessions::Signal::Cancel, None),
            Signal::Terminate(limit) => (sessions::Signal::Terminate, limit),
        };
        let outcome = tokio::select! {
            outcome = self.signals.send(&asker.user, pid, kind, limit) => outcome,
            () = session.stopped() => return Ok(false),
        };
        let message = match outcome {
            Outcome::Sent => return Ok(true),
            Outcome::Unknown => format!("PID {pid} is not a PostgreSQL backend process"),
            Outcome::Denied(denied) => {
                let denied = catalog::Error::Forbidden(denial(signal, denied).to_owned());
                return Err(DataFusionError::External(Box::new(denied)));
            }
            Outcome::NoAnswer(daemon) => {
                format!(
                    "could not send signal to process {pid}: daemon \"{daemon}\" did not answer"
                )
            }
            Outcome::StillThere => {
                let millis = limit.unwrap_or_default().as_millis();
                format!("backend with PID {pid} did not terminate within {millis} milliseconds")
            }
        };
        session.warn(Notice { code: "01000", message });
        Ok(false)
    }

    fn warn(&self, pid: i32, message: String) {
        if let Some(session) = self.sessions.find(pid) {
            session.warn(Notice { code: "01000", message });
        }
    }
}

/// What PostgreSQL says to who may not signal a session.
fn denial(signal: Signal, denied: Denied) -> &'static str {
    match (signal, denied) {
        (Signal::Cancel, Denied::Superuser) => "must be a superuser to cancel superuser query",
        (Signal::Cancel, Denied::NotMember) => {
            "must be a member of the role whose query is being canceled or member of \
             pg_signal_backend"
        }
        (Signal::Terminate(_), Denied::Superuser) => {
            "must be a superuser to terminate superuser process"
        }
        (Signal::Terminate(_), Denied::NotMember) => {
            "must be a member of the role whose process is being terminated or member of \
             pg_signal_backend"
        }
    }
}
