//! What keeps managed tables in good order: small files made into large ones, old snapshots expired,
//! files that nothing names removed. Owners ask for it with OPTIMIZE and VACUUM; the daemon that
//! leads does it for all tables, one at a time.

pub mod log;

use std::collections::{HashMap, HashSet};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlparser::ast::ObjectName;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use self::log::{Entry, Log};
use super::life::Session;
use super::running::Registered;
use super::{Done, Error, Notice, Result};
use crate::catalog::{
    self, Catalog, Consistency, DEFAULT_DATABASE, Definition, FIRST_ROLE, Managed, Snapshot, Table,
    TableName,
};
use crate::cluster::Election;
use crate::config::{self, Rate};
use crate::coordination::Op;
use crate::engine::settings::Settings;
use crate::engine::system::SessionInfo;
use crate::engine::{self, Engine};
use crate::metrics::Counter;
use crate::storage::managed::{
    Abandoned, Change, Commit, Commits, Orphans, expired, managed, own_files, reached,
    remove_emptied, remove_orphans, retained_files,
};
use crate::wording::counted;

/// Commits of one compaction at most.
const MAX_ROUNDS: u32 = 100;

/// How often a compaction starts again because rows that it moved have changed.
const MAX_CONFLICTS: u32 = 3;

/// Bytes that one commit of a compaction takes up, about: a conflict costs no more than that much
/// work.
const MAX_BYTES: u64 = 4 << 30;

/// With a rate, so much that the pause behind it is a matter of seconds; but not so little that files
/// of the usual size (512 MiB) are cut.
const PACED_BYTES: u64 = 1 << 30;

/// Directories are listed no more often than this: what is looked for there is days old.
const LIST_EVERY: Duration = Duration::from_secs(60 * 60);

/// What a piece of work came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Files that became others.
    pub files_read: u64,
    pub files_written: u64,
    pub snapshots_expired: u64,
    /// Files that nothing needs any more.
    pub files_removed: u64,
    pub bytes_removed: u64,
}

/// Works on tables, whoever asks for it.
#[derive(Debug)]
pub struct Maintenance {
    engine: Arc<Engine>,
    catalog: Arc<Catalog>,
    commits: Arc<Commits>,
    log: Arc<Log>,
    options: watch::Sender<config::Maintenance>,
    warehouse: Option<Warehouse>,
    /// Pieces of work that this daemon did as the leader, and those that failed.
    pub done: Counter,
    pub failed: Counter,
}

/// Where managed tables are made, and who makes them.
#[derive(Clone, Debug)]
pub struct Warehouse {
    pub url: String,
    pub cluster: Uuid,
    /// When the catalog was taken from a back-up. It may not know what was made before.
    pub restored_at: Option<DateTime<Utc>>,
}

/// What the leader remembers between its rounds, by object identifier.
#[derive(Debug, Default)]
struct Seen {
    /// The metadata of tables in which nothing was left to compact.
    compacted: HashMap<u32, String>,
    listed: HashMap<u32, Instant>,
    /// When the warehouse was.
    swept: Option<Instant>,
}

impl Maintenance {
    pub fn new(
        engine: Arc<Engine>,
        catalog: Arc<Catalog>,
        commits: Arc<Commits>,
        log: Arc<Log>,
        (options, warehouse): (config::Maintenance, Option<Warehouse>),
    ) -> Arc<Self> {
        let options = watch::Sender::new(options);
        let (done, failed) = Default::default();
        Arc::new(Self { engine, catalog, commits, log, options, warehouse, done, failed })
    }

    /// Has other options from now on.
    pub fn change(&self, options: config::Maintenance) {
        self.options.send_if_modified(|known| {
            let news = *known != options;
            *known = options;
            news
        });
    }

    fn orphan_grace(&self) -> Duration {
        self.options.borrow().orphan_grace
    }

    /// Makes large files of small ones, no faster than the rate says; with the metadata in which
    /// nothing was left to do. A conflict is no error: the next round sees the table anew.
    async fn compact(
        &self,
        session: &engine::Session,
        name: &TableName,
        fences: &[Op],
        rate: Rate,
    ) -> Result<(Work, Option<String>)> {
        let limit = if rate.0.is_some() { PACED_BYTES } else { MAX_BYTES };
        let mut done = Work::default();
        let mut conflicts = 0;
        for _ in 0..MAX_ROUNDS {
            let table = self.catalog.table(name, Consistency::Cached).await?;
            let metadata = managed(&table)?.metadata.clone();
            let target = session.target(table).await?;
            let begun = Instant::now();
            let written = session.compact(&target, limit).await?;
            let Some(change) = written.change else { return Ok((done, Some(metadata))) };
            let added = change.added();
            let urls: Vec<_> = added.iter().map(|file| file.file_path().to_owned()).collect();
            let bytes: u64 = added.iter().map(|file| file.file_size_in_bytes()).sum();
            let files_written = urls.len() as u64;
            let commit = Commit { fences: fences.to_vec(), ..target.commit(change) };
            match self.commits.commit(commit, pending()).await {
                Ok(_) => {
                    done.files_read += written.rows;
                    done.files_written += files_written;
                }
                Err(error) => {
                    if error.left_nothing() {
                        self.commits.files().remove(urls).await;
                    }
                    conflicts += 1;
                    if !error.is_conflict() {
                        return Err(error.into());
                    }
                    if conflicts > MAX_CONFLICTS {
                        break;
                    }
                }
            }
            if let Rate(Some(rate)) = rate {
                let due = Duration::from_secs_f64(bytes as f64 / rate as f64);
                tokio::time::sleep_until(begun + due).await;
            }
        }
        Ok((done, None))
    }

    /// Takes snapshots out of a table's history, and then removes what only they reached.
    async fn expire(
        &self,
        name: &TableName,
        retain: Option<Duration>,
        fences: &[Op],
    ) -> Result<Work> {
        let files = self.commits.files();
        let table = self.catalog.table(name, Consistency::Strong).await?;
        let metadata = files.metadata(&managed(&table)?.metadata).await?;
        let now = Utc::now().timestamp_millis();
        let snapshots = expired(&metadata, retain, now)?;
        if snapshots.is_empty() {
            return Ok(Work::default());
        }
        let before = reached(files, &metadata, |id| snapshots.contains(&id)).await?;
        let commit = Commit {
            table,
            changes: vec![Change::Expire(snapshots.clone())],
            schema_id: metadata.current_schema_id(),
            fences: fences.to_vec(),
        };
        let table = self.commits.commit(commit, pending()).await?;
        crate::faults::point("snapshots are expired");
        let metadata = files.metadata(&managed(&table)?.metadata).await?;
        let after = reached(files, &metadata, |_| true).await?;
        let gone: Vec<String> = before.difference(&after).cloned().collect();
        let gone = own_files(files, managed(&table)?, gone, true).await;
        let done = Work {
            snapshots_expired: snapshots.len() as u64,
            files_removed: gone.len() as u64,
            ..Work::default()
        };
        files.remove(gone).await;
        Ok(done)
    }

    /// Removes files of a table that nothing names and that are older than the grace period.
    async fn remove_orphans(&self, name: &TableName) -> Result<Work> {
        let files = self.commits.files();
        let table = self.catalog.table(name, Consistency::Cached).await?;
        // What lies beside the files of an adopted table may be another writer's.
        if managed(&table)?.adopted.is_some() {
            return Ok(Work::default());
        }
        let metadata = files.metadata(&managed(&table)?.metadata).await?;
        let others = other_places(&self.catalog.snapshot(), &table);
        let grace = self.orphan_grace();
        let found = Orphans::list(files, metadata.location(), grace, &others).await?;
        // Only now: whatever was committed meanwhile is among the files that it names.
        let table = self.catalog.table(name, Consistency::Strong).await?;
        let Managed { metadata: url, adopted, .. } = managed(&table)?;
        // Another of the same name, since.
        if adopted.is_some() {
            return Ok(Work::default());
        }
        let metadata = files.metadata(url).await?;
        let named = retained_files(files, url, &metadata).await?;
        let (files_removed, bytes_removed) = remove_orphans(files, &found, &named).await?;
        Ok(Work { files_removed, bytes_removed, ..Work::default() })
    }

    /// Removes the files of a table that was dropped.
    pub(super) async fn purge(&self, table: &Table) -> Result<()> {
        let files = self.commits.files();
        let metadata = files.metadata(&managed(table)?.metadata).await?;
        let others = other_places(&self.catalog.snapshot(), table);
        let all = Orphans::list(files, metadata.location(), Duration::ZERO, &others).await?;
        remove_orphans(files, &all, &HashSet::new()).await?;
        remove_emptied(files, &all).await?;
        Ok(())
    }

    /// Removes the directories of tables that were dropped, or never finished, longer ago than the
    /// grace period.
    async fn sweep(&self, warehouse: &Warehouse, election: &Election) -> Result<Work> {
        let Warehouse { url, cluster, restored_at } = warehouse;
        let files = self.commits.files();
        let known = places(&self.catalog.snapshot());
        let grace = self.orphan_grace();
        let mut found =
            Abandoned::list(files, url, *cluster, (grace, *restored_at), &known).await?;
        let mut work = Work::default();
        while !found.is_empty() && election.fence().is_some() {
            // One may have been taken over since they were listed.
            let known = places(self.catalog.latest().await?.as_ref());
            let (files_removed, bytes_removed) = found.remove_one(files, &known).await?;
            work.files_removed += files_removed;
            work.bytes_removed += bytes_removed;
        }
        Ok(work)
    }

    /// Looks after all tables while this daemon leads, until `stop`. Needed exactly once.
    pub async fn run(self: Arc<Self>, election: Arc<Election>, stop: CancellationToken) {
        let session = self.session();
        let mut seen = Seen::default();
        let mut options = self.options.subscribe();
        loop {
            let interval = options.borrow_and_update().interval.0;
            tokio::select! {
                () = stop.cancelled() => return,
                // The time begins anew.
                _ = options.changed() => continue,
                () = tokio::time::sleep(interval.unwrap_or_default()), if interval.is_some() => {}
            }
            let round = async {
                let mut entries = Vec::new();
                self.round(&election, &session, &mut seen, &mut entries).await;
                self.log.append(entries).await;
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = round => {}
            }
        }
    }

    /// Looks at each table once; `entries` gathers what was done.
    async fn round(
        &self,
        election: &Election,
        session: &engine::Session,
        seen: &mut Seen,
        entries: &mut Vec<Entry>,
    ) {
        let mut note = |object: &str, kind, started, done: Result<Work>| {
            let Some(entry) = self.log.entry(object, kind, started, done) else { return };
            match &entry.error {
                None => {
                    self.done.add(1);
                    info!(object, kind, work = ?entry.work, "maintenance");
                }
                Some(error) => {
                    self.failed.add(1);
                    warn!(object, kind, error, "maintenance failed and is tried again");
                }
            }
            entries.push(entry);
        };
        let tables: Vec<Arc<Table>> = self.catalog.snapshot().tables().cloned().collect();
        seen.compacted.retain(|oid, _| tables.iter().any(|table| table.record.oid == *oid));
        seen.listed.retain(|oid, _| tables.iter().any(|table| table.record.oid == *oid));
        for table in tables {
            let Definition::Managed(definition) = &table.record.definition else { continue };
            let Some(fence) = election.fence() else { return };
            let (oid, fences) = (table.record.oid, [fence]);
            let object = table.name.to_string();
            if seen.compacted.get(&oid) != Some(&definition.metadata) {
                let started = Utc::now();
                let rate = self.options.borrow().rate;
                let compacted = self.compact(session, &table.name, &fences, rate).await;
                let compacted = compacted.map(|(work, metadata)| {
                    // Not the table's metadata by now: what was written meanwhile was not looked at.
                    seen.compacted.extend(metadata.map(|metadata| (oid, metadata)));
                    work
                });
                note(&object, "compact", started, compacted);
            }
            let started = Utc::now();
            note(&object, "expire", started, self.expire(&table.name, None, &fences).await);
            if seen.listed.get(&oid).is_none_or(|at| at.elapsed() >= LIST_EVERY) {
                seen.listed.insert(oid, Instant::now());
                let started = Utc::now();
                note(&object, "orphans", started, self.remove_orphans(&table.name).await);
            }
        }
        if let Some(warehouse) = &self.warehouse
            && seen.swept.is_none_or(|at| at.elapsed() >= LIST_EVERY)
        {
            seen.swept = Some(Instant::now());
            let started = Utc::now();
            note(&warehouse.url, "dropped", started, self.sweep(warehouse, election).await);
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
            warehouse: self.warehouse.as_ref().map(|warehouse| warehouse.url.as_str().into()),
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
        let object = &name.to_string();
        if upkeep.task == Task::Optimize {
            let started = Utc::now();
            let (done, _) = service.compact(self.engine_session(), name, &[], Rate(None)).await?;
            let entry = service.log.entry(object, "compact", started, Ok(done));
            service.log.append(entry.into_iter().collect()).await;
            let read = counted(done.files_read, "file");
            return Ok(format!("{read} became {}", done.files_written));
        }
        let started = Utc::now();
        let expired = service.expire(name, upkeep.retain, &[]).await?;
        let orphans = service.remove_orphans(name).await?;
        let entries = [("expire", expired), ("orphans", orphans)];
        let entries =
            entries.map(|(kind, work)| service.log.entry(object, kind, started, Ok(work)));
        service.log.append(entries.into_iter().flatten().collect()).await;
        let table = self.catalog().table(name, Consistency::Cached).await?;
        let snapshots = counted(expired.snapshots_expired, "snapshot");
        let files = counted(expired.files_removed, "file");
        if managed(&table)?.adopted.is_some() {
            return Ok(format!(
                "{snapshots} expired with {files}; the table was adopted, so files from before and \
                 orphans stay"
            ));
        }
        let orphans_removed = counted(orphans.files_removed, "orphan");
        let bytes = counted(orphans.bytes_removed, "byte");
        Ok(format!("{snapshots} expired with {files}, {orphans_removed} of {bytes} removed"))
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

/// Where tables have their files.
fn places(catalog: &Snapshot) -> Vec<String> {
    catalog.tables().filter_map(|table| place(table)).collect()
}

/// Where tables other than this one have theirs.
fn other_places(catalog: &Snapshot, table: &Table) -> Vec<String> {
    let others = catalog.tables().filter(|other| other.record.oid != table.record.oid);
    others.filter_map(|table| place(table)).collect()
}

fn place(table: &Table) -> Option<String> {
    match &table.record.definition {
        Definition::Managed(managed) => managed.location().map(str::to_owned),
        Definition::External(external) => Some(external.location.clone()),
        Definition::View { .. } => None,
    }
}
