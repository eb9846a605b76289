//! What keeps managed tables in good order: small files made into large ones, old snapshots expired,
//! files that nothing names removed. Owners ask for it with OPTIMIZE and VACUUM; the daemon that
//! leads does it for all tables, one at a time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use sqlparser::ast::ObjectName;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::life::Session;
use super::running::Registered;
use super::{Done, Error, Notice, Result};
use crate::catalog::{
    self, Catalog, Consistency, DEFAULT_DATABASE, Definition, FIRST_ROLE, Managed, Table, TableName,
};
use crate::cluster::Election;
use crate::config;
use crate::coordination::Op;
use crate::engine::settings::Settings;
use crate::engine::system::SessionInfo;
use crate::engine::{self, Engine};
use crate::storage;
use crate::storage::managed::{
    Change, Commit, Commits, Orphans, expired, managed, own_files, reached, remove_orphans,
    retained_files,
};

/// Commits of one compaction at most.
const MAX_ROUNDS: u32 = 100;

/// How often a compaction starts again because rows that it moved have changed.
const MAX_CONFLICTS: u32 = 3;

/// Directories are listed no more often than this: what is looked for there is days old.
const LIST_EVERY: Duration = Duration::from_secs(60 * 60);

/// What OPTIMIZE has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    pub files_in: u64,
    pub files_out: u64,
}

/// What VACUUM has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vacuumed {
    pub snapshots: u64,
    /// That only these snapshots reached.
    pub files: u64,
    pub orphans: u64,
    pub orphan_bytes: u64,
}

/// Works on tables, whoever asks for it.
#[derive(Debug)]
pub struct Maintenance {
    engine: Arc<Engine>,
    catalog: Arc<Catalog>,
    commits: Arc<Commits>,
    options: config::Maintenance,
}

/// What the leader remembers between its rounds, by object identifier.
#[derive(Debug, Default)]
struct Seen {
    /// The metadata of tables in which nothing was left to compact.
    compacted: HashMap<u32, String>,
    listed: HashMap<u32, Instant>,
}

impl Maintenance {
    pub fn new(
        engine: Arc<Engine>,
        catalog: Arc<Catalog>,
        commits: Arc<Commits>,
        options: config::Maintenance,
    ) -> Arc<Self> {
        Arc::new(Self { engine, catalog, commits, options })
    }

    /// Makes large files of small ones. A conflict is no error: the next round sees the table anew.
    async fn compact(
        &self,
        session: &engine::Session,
        name: &TableName,
        fences: &[Op],
    ) -> Result<Compacted> {
        let mut done = Compacted::default();
        let mut conflicts = 0;
        for _ in 0..MAX_ROUNDS {
            let table = self.catalog.table(name, Consistency::Cached).await?;
            let target = session.target(table).await?;
            let written = session.compact(&target).await?;
            let Some(change) = written.change else { break };
            let added = change.added();
            let urls: Vec<_> = added.iter().map(|file| file.file_path().to_owned()).collect();
            let files_out = urls.len() as u64;
            let commit = Commit { fences: fences.to_vec(), ..target.commit(change) };
            match self.commits.commit(commit).await {
                Ok(_) => {
                    done.files_in += written.rows;
                    done.files_out += files_out;
                }
                Err(error) => {
                    if error.left_nothing() {
                        self.commits.files().remove(urls).await;
                    }
                    conflicts += 1;
                    if !is_conflict(&error) {
                        return Err(error.into());
                    }
                    if conflicts > MAX_CONFLICTS {
                        break;
                    }
                }
            }
        }
        Ok(done)
    }

    /// Takes snapshots out of a table's history, and then removes what only they reached.
    async fn expire(
        &self,
        name: &TableName,
        retain: Option<Duration>,
        fences: &[Op],
    ) -> Result<Vacuumed> {
        let files = self.commits.files();
        let table = self.catalog.table(name, Consistency::Strong).await?;
        let metadata = files.metadata(&managed(&table)?.metadata).await?;
        let now = chrono::Utc::now().timestamp_millis();
        let snapshots = expired(&metadata, retain, now)?;
        if snapshots.is_empty() {
            return Ok(Vacuumed::default());
        }
        let before = reached(files, &metadata, |id| snapshots.contains(&id)).await?;
        let commit = Commit {
            table,
            changes: vec![Change::Expire(snapshots.clone())],
            schema_id: metadata.current_schema_id(),
            fences: fences.to_vec(),
        };
        let table = self.commits.commit(commit).await?;
        crate::faults::point("snapshots are expired");
        let metadata = files.metadata(&managed(&table)?.metadata).await?;
        let after = reached(files, &metadata, |_| true).await?;
        let gone: Vec<String> = before.difference(&after).cloned().collect();
        let gone = own_files(files, managed(&table)?, gone, true).await;
        let done = Vacuumed {
            snapshots: snapshots.len() as u64,
            files: gone.len() as u64,
            ..Vacuumed::default()
        };
        files.remove(gone).await;
        Ok(done)
    }

    /// Removes files of a table that nothing names and that are older than the grace period.
    async fn remove_orphans(&self, name: &TableName) -> Result<(u64, u64)> {
        let files = self.commits.files();
        let table = self.catalog.table(name, Consistency::Cached).await?;
        // What lies beside the files of an adopted table may be another writer's.
        if managed(&table)?.adopted.is_some() {
            return Ok((0, 0));
        }
        let metadata = files.metadata(&managed(&table)?.metadata).await?;
        let others = self.other_places(&table);
        let grace = self.options.orphan_grace;
        let found = Orphans::list(files, metadata.location(), grace, &others).await?;
        // Only now: whatever was committed meanwhile is among the files that it names.
        let table = self.catalog.table(name, Consistency::Strong).await?;
        let Managed { metadata: url, adopted, .. } = managed(&table)?;
        // Another of the same name, since.
        if adopted.is_some() {
            return Ok((0, 0));
        }
        let metadata = files.metadata(url).await?;
        let named = retained_files(files, url, &metadata).await?;
        Ok(remove_orphans(files, found, &named).await?)
    }

    /// Where other tables have their files.
    fn other_places(&self, table: &Table) -> Vec<String> {
        let tables = self.tables().into_values().flatten();
        let others = tables.filter(|other| other.record.oid != table.record.oid);
        let place = |other: Arc<Table>| match &other.record.definition {
            Definition::Managed(managed) => managed.location().map(str::to_owned),
            Definition::External(external) => Some(external.location.clone()),
            Definition::View { .. } => None,
        };
        others.filter_map(place).collect()
    }

    /// All tables, by database.
    fn tables(&self) -> BTreeMap<String, Vec<Arc<Table>>> {
        let snapshot = self.catalog.snapshot();
        let tables = |schemas: &BTreeMap<String, crate::catalog::Schema>| {
            schemas.values().flat_map(|schema| schema.tables.values().cloned()).collect()
        };
        let databases = snapshot.databases.iter();
        databases.map(|(name, database)| (name.clone(), tables(&database.schemas))).collect()
    }

    /// Looks after all tables while this daemon leads, until `stop`. Needed exactly once.
    pub async fn run(self: Arc<Self>, election: Arc<Election>, stop: CancellationToken) {
        let Some(interval) = self.options.interval.0 else { return };
        let session = self.session();
        let mut seen = Seen::default();
        loop {
            let round = async {
                tokio::time::sleep(interval).await;
                self.round(&election, &session, &mut seen).await;
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = round => {}
            }
        }
    }

    async fn round(&self, election: &Election, session: &engine::Session, seen: &mut Seen) {
        let tables: Vec<Arc<Table>> = self.tables().into_values().flatten().collect();
        seen.compacted.retain(|oid, _| tables.iter().any(|table| table.record.oid == *oid));
        seen.listed.retain(|oid, _| tables.iter().any(|table| table.record.oid == *oid));
        for table in tables {
            let Definition::Managed(definition) = &table.record.definition else { continue };
            let Some(fence) = election.fence() else { return };
            let (oid, fences) = (table.record.oid, [fence]);
            if seen.compacted.get(&oid) != Some(&definition.metadata) {
                let compacted = self.compact(session, &table.name, &fences).await;
                let now = match self.catalog.table(&table.name, Consistency::Cached).await {
                    Ok(now) => now,
                    Err(error) => {
                        debug!(table = %table.name, %error, "the table is not there any more");
                        continue;
                    }
                };
                if compacted.is_ok()
                    && let Ok(managed) = managed(&now)
                {
                    seen.compacted.insert(oid, managed.metadata.clone());
                }
                tell(&table.name, "compact", compacted, Compacted::default());
            }
            let expired = self.expire(&table.name, None, &fences).await;
            tell(&table.name, "expire", expired, Vacuumed::default());
            if seen.listed.get(&oid).is_none_or(|at| at.elapsed() >= LIST_EVERY) {
                seen.listed.insert(oid, Instant::now());
                tell(&table.name, "orphans", self.remove_orphans(&table.name).await, (0, 0));
            }
        }
    }

    /// The leader's own place in the engine.
    fn session(&self) -> engine::Session {
        let info = SessionInfo {
            database: DEFAULT_DATABASE.into(),
            user: FIRST_ROLE.into(),
            login: FIRST_ROLE.into(),
            pid: 0,
            settings: Arc::new(Settings::default()),
            catalog: self.catalog.clone(),
            objects: Arc::default(),
            staged: Arc::default(),
            files: self.engine.files().clone(),
        };
        engine::Session::new(self.engine.clone(), info)
    }
}

impl Session {
    /// OPTIMIZE, VACUUM and ANALYZE.
    pub(super) async fn maintain(&self, registered: &Registered, upkeep: &Upkeep) -> Result<Done> {
        let mut notices = Vec::new();
        for (at, name) in upkeep.names.iter().enumerate() {
            let full = self.existing(name).await?;
            let table = self.catalog().table(&full, Consistency::Strong).await?;
            if upkeep.task == Task::Analyze {
                notices.extend(self.analyze(&table, upkeep.columns.get(at)).await?);
                continue;
            }
            self.must_own_table(&full).await?;
            let Definition::Managed(_) = &table.record.definition else {
                let reason = format!("skipping \"{}\": it is not a managed table", full.table);
                notices.push(Notice { code: "01000", message: reason });
                continue;
            };
            let done = registered.until_stopped(self.maintain_one(&full, upkeep)).await??;
            notices.push(Notice { code: "00000", message: format!("\"{}\": {done}", full.table) });
        }
        Ok(Done { tag: upkeep.tag().into(), notices, ..Done::default() })
    }

    /// ANALYZE has nothing to gather: what plans are made with (rows, bytes, bounds, NULLs by file)
    /// is part of each snapshot of a managed table, and of the files of others. So it only says what
    /// PostgreSQL's would say of names and rights.
    async fn analyze(
        &self,
        table: &Table,
        columns: Option<&Vec<String>>,
    ) -> Result<Option<Notice>> {
        let name = &table.name.table;
        let warning = |message: String| Ok(Some(Notice { code: "01000", message }));
        if table.record.is_view() {
            return warning(format!(
                "skipping \"{name}\" --- cannot analyze non-tables or special system tables"
            ));
        }
        match self.must_own_table(&table.name).await {
            Err(Error::Catalog(catalog::Error::NotOwner { .. })) => {
                return warning(format!("permission denied to analyze \"{name}\", skipping it"));
            }
            owned => owned?,
        }
        let missing = |wanted: &&String| !table.record.columns.iter().any(|c| c.name == **wanted);
        match columns.into_iter().flatten().find(missing) {
            None => Ok(None),
            Some(name) => {
                let (kind, name) = (catalog::ObjectKind::Column, name.clone());
                Err(catalog::Error::NotFound { kind, name }.into())
            }
        }
    }

    async fn maintain_one(&self, name: &TableName, upkeep: &Upkeep) -> Result<String> {
        let service = &self.queries().maintenance;
        if upkeep.task == Task::Optimize {
            let done = service.compact(self.engine_session(), name, &[]).await?;
            let Compacted { files_in, files_out } = done;
            return Ok(format!("{files_in} files became {files_out}"));
        }
        let mut done = service.expire(name, upkeep.retain, &[]).await?;
        (done.orphans, done.orphan_bytes) = service.remove_orphans(name).await?;
        let Vacuumed { snapshots, files, orphans, orphan_bytes } = done;
        let table = self.catalog().table(name, Consistency::Cached).await?;
        if managed(&table)?.adopted.is_some() {
            return Ok(format!(
                "{snapshots} snapshots expired with {files} files; the table was adopted, so files \
                 from before and orphans stay"
            ));
        }
        Ok(format!(
            "{snapshots} snapshots expired with {files} files, {orphans} orphans of {orphan_bytes} \
             bytes removed"
        ))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    Optimize,
    Vacuum,
    Analyze,
}

/// OPTIMIZE, VACUUM or ANALYZE.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Upkeep {
    pub names: Vec<ObjectName>,
    pub task: Task,
    /// Columns that ANALYZE names, by table.
    pub columns: Vec<Vec<String>>,
    /// Older snapshots go whatever the table's properties say.
    pub retain: Option<Duration>,
}

impl Upkeep {
    pub fn tag(&self) -> &'static str {
        match self.task {
            Task::Optimize => "OPTIMIZE",
            Task::Vacuum => "VACUUM",
            Task::Analyze => "ANALYZE",
        }
    }

    /// An age as RETAIN gives it.
    pub fn age(text: &str) -> Result<Duration> {
        humantime::parse_duration(text).map_err(|error| {
            Error::Invalid(format!("RETAIN takes an age such as '7 days', not '{text}': {error}"))
        })
    }
}

fn is_conflict(error: &storage::Error) -> bool {
    match error {
        storage::Error::Conflict { .. } | storage::Error::Busy { .. } => true,
        storage::Error::Shared(error) => is_conflict(error),
        _ => false,
    }
}

/// What came of one table's turn goes to the log, if anything did.
fn tell<T: PartialEq + std::fmt::Debug>(name: &TableName, kind: &str, done: Result<T>, nothing: T) {
    match done {
        Ok(done) if done == nothing => {}
        Ok(done) => info!(table = %name, kind, ?done, "maintenance"),
        Err(error) => warn!(table = %name, kind, %error, "maintenance failed and is tried again"),
    }
}
