//! Commits: the one version-checked write of a table's znode that makes a new state its state.
//!
//! # How a commit goes
//! 1. Statements that append to one table at the same time are gathered: whoever's turn it is
//!    carries out all that wait, in one snapshot.
//! 2. The next state is written ([`commit::stage`]).
//! 3. One `transact` checks that this daemon is still registered and that the table's znode is at
//!    the version that the state was made from, and names the new metadata in it.
//! 4. Another was quicker: what was written is removed, and it starts again from the table as it is
//!    now. Appends always go through in the end; whatever depends on rows that are gone, or on
//!    columns that have changed, is a conflict (40001).
//! 5. The reply was lost: the table's own history tells. It names the metadata files that went
//!    before, and each snapshot names its commit.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use datafusion::execution::memory_pool::MemoryPool;
use iceberg::spec::TableMetadata;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::commit::{self, Change, Staged};
use super::{Alteration, TableFiles, columns_of, own_files, rows};
use crate::catalog::{
    self, Catalog, Column, Consistency, Definition, Managed, Swap, Table, TableRecord,
};
use crate::cluster::Membership;
use crate::coordination::Op;
use crate::coordination::paths::Path;
use crate::faults;
use crate::id;
use crate::storage::{Error, Result};

/// How often one commit starts again because others were quicker.
const MAX_ATTEMPTS: u32 = 100;

/// The longest pause before it does.
const MAX_PAUSE: Duration = Duration::from_millis(250);

/// Statements that one snapshot carries out at most.
const MAX_GROUP: usize = 256;

/// Carries out changes of managed tables.
#[derive(Debug)]
pub struct Commits {
    files: Arc<TableFiles>,
    catalog: Arc<Catalog>,
    membership: Arc<Membership>,
    /// By object identifier.
    queues: Mutex<HashMap<u32, Arc<Queue>>>,
    /// Commits run to their end whatever becomes of the client.
    tasks: TaskTracker,
    /// Where they run.
    handle: Handle,
    memory: Arc<dyn MemoryPool>,
}

/// What waits for its turn at one table.
#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Vec<Waiting>>,
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Waiting {
    commit: Commit,
    reply: oneshot::Sender<Result<Arc<Table>>>,
}

/// A change of one table, made from what the table was.
#[derive(Clone, Debug)]
pub struct Commit {
    pub table: Arc<Table>,
    pub changes: Vec<Change>,
    /// The schema that it was made for.
    pub schema_id: i32,
    /// Steps that go with it, beside the check that this daemon is registered: checks of a leader's work, the
    /// end of a submitted query.
    pub fences: Vec<Op>,
}

impl Commits {
    pub fn new(
        files: Arc<TableFiles>,
        catalog: Arc<Catalog>,
        membership: Arc<Membership>,
        (handle, memory): (Handle, Arc<dyn MemoryPool>),
    ) -> Arc<Self> {
        Arc::new(Self {
            files,
            catalog,
            membership,
            queues: Mutex::default(),
            tasks: TaskTracker::new(),
            handle,
            memory,
        })
    }

    pub fn files(&self) -> &Arc<TableFiles> {
        &self.files
    }

    /// The change of a table with all its rows in files.
    pub async fn settled(&self, commit: Commit) -> Result<Commit> {
        if !commit.changes.iter().any(|change| matches!(change, Change::Rows(_))) {
            return Ok(commit);
        }
        let metadata = self.files.metadata(&managed(&commit.table)?.metadata).await?;
        let changes = rows::to_files(&self.files, &metadata, commit.changes, &self.memory).await?;
        Ok(Commit { changes, ..commit })
    }

    /// Makes a change durable; the table as it is then.
    pub async fn commit(self: &Arc<Self>, commit: Commit) -> Result<Arc<Table>> {
        let queue = self.queue(commit.table.record.oid);
        let (reply, answer) = oneshot::channel();
        let lock = |queue: &Queue| {
            std::mem::take(&mut *queue.waiting.lock().unwrap_or_else(PoisonError::into_inner))
        };
        queue
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Waiting { commit, reply });
        let commits = self.clone();
        self.tasks.spawn_on(
            async move {
                let _turn = queue.turn.lock().await;
                for group in groups(lock(&queue)) {
                    commits.run(group).await;
                }
            },
            &self.handle,
        );
        answer.await.unwrap_or_else(|_| Err(Error::Stopped))
    }

    /// Makes changes of several tables durable in one step, or none of them, if certain tables still
    /// are in these states.
    pub async fn commit_all(
        self: &Arc<Self>,
        commits: Vec<Commit>,
        unchanged: Vec<Arc<Table>>,
    ) -> Result<Vec<Arc<Table>>> {
        let own = self.clone();
        let task = self.tasks.spawn_on(
            async move {
                // In one order everywhere, so that no two wait for each other.
                let oids: BTreeMap<u32, ()> =
                    commits.iter().map(|commit| (commit.table.record.oid, ())).collect();
                let queues: Vec<_> = oids.into_keys().map(|oid| own.queue(oid)).collect();
                let mut turns = Vec::new();
                for queue in &queues {
                    turns.push(queue.turn.lock().await);
                }
                own.carry_out(commits, &unchanged).await
            },
            &self.handle,
        );
        task.await.unwrap_or(Err(Error::Stopped))
    }

    /// Waits until what has begun is done.
    pub async fn finish(&self, patience: Duration) {
        self.tasks.close();
        let _ = tokio::time::timeout(patience, self.tasks.wait()).await;
    }

    fn queue(&self, oid: u32) -> Arc<Queue> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.retain(|known, queue| *known == oid || Arc::strong_count(queue) > 1);
        queues.entry(oid).or_default().clone()
    }

    /// Carries out a group in one snapshot, and tells each what came of it.
    async fn run(&self, group: Vec<Waiting>) {
        let (all, replies): (Vec<_>, Vec<_>) =
            group.into_iter().map(|waiting| (waiting.commit, waiting.reply)).unzip();
        let Some(first) = all.first().cloned() else { return };
        let changes = all.into_iter().flat_map(|commit| commit.changes).collect();
        let one = Commit { changes, ..first };
        match self.carry_out(vec![one], &[]).await {
            Ok(tables) => {
                for reply in replies {
                    let table = tables.first().cloned().ok_or(Error::Stopped);
                    // Whoever no longer listens finds its rows in the table all the same.
                    let _ = reply.send(table);
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for reply in replies {
                    let _ = reply.send(Err(Error::Shared(error.clone())));
                }
            }
        }
    }

    /// Puts rows that wait into files, and carries out all changes in one step.
    async fn carry_out(
        &self,
        mut commits: Vec<Commit>,
        unchanged: &[Arc<Table>],
    ) -> Result<Vec<Arc<Table>>> {
        let mut own = Vec::new();
        let done = match self.to_files(&mut commits, &mut own).await {
            Ok(tables) => {
                faults::point("rows are in files");
                self.replace(commits, tables, unchanged).await
            }
            Err(error) => Err(error),
        };
        if done.as_ref().is_err_and(Error::left_nothing) {
            self.files.remove(own).await;
        }
        done
    }

    /// Puts rows that wait into files, which `own` gathers; the tables as they are now.
    async fn to_files(
        &self,
        commits: &mut [Commit],
        own: &mut Vec<String>,
    ) -> Result<Vec<Arc<Table>>> {
        let mut tables = Vec::new();
        for commit in commits {
            let (table, metadata) = self.now(commit).await?;
            let changes = std::mem::take(&mut commit.changes);
            let before = changes.iter().flat_map(Change::added).count();
            commit.changes = rows::to_files(&self.files, &metadata, changes, &self.memory).await?;
            let added = commit.changes.iter().flat_map(Change::added).skip(before);
            own.extend(added.map(|file| file.file_path().to_owned()));
            tables.push(table);
        }
        Ok(tables)
    }

    async fn replace(
        &self,
        commits: Vec<Commit>,
        tables: Vec<Arc<Table>>,
        unchanged: &[Arc<Table>],
    ) -> Result<Vec<Arc<Table>>> {
        let mut in_doubt = false;
        match self.try_to_replace(commits, tables, unchanged, &mut in_doubt).await {
            // Nothing of what may have been made may be removed.
            Err(error) if in_doubt => Err(Error::Uncertain(Box::new(error))),
            done => done,
        }
    }

    /// `in_doubt` says afterwards whether an attempt that failed may have been made after all.
    async fn try_to_replace(
        &self,
        commits: Vec<Commit>,
        mut tables: Vec<Arc<Table>>,
        unchanged: &[Arc<Table>],
        in_doubt: &mut bool,
    ) -> Result<Vec<Arc<Table>>> {
        let mut traces = Traces { mark: id::nonce(), metadata_urls: Vec::new() };
        let mut unregistered = false;
        for attempt in 0..MAX_ATTEMPTS {
            // Then no attempt from before can be made any more.
            must_be_unchanged(unchanged, &tables).inspect_err(|_| *in_doubt = false)?;
            let staged = self.stage(&commits, &tables, traces.mark).await?;
            traces.metadata_urls.extend(staged.first().map(|first| first.metadata_url.clone()));
            let records: Vec<_> = (tables.iter().zip(&staged).zip(&commits))
                .map(|((table, staged), commit)| {
                    Ok((table.clone(), next_record(table, staged, &commit.changes)?))
                })
                .collect::<Result<_>>()?;
            for table in &tables {
                self.files.must_be_there(&managed(table)?.metadata).await?;
            }
            self.files.flush(new_files(&commits, &staged)).await?;
            let fence = Path::Incarnation(self.membership.record().await.incarnation).to_string();
            let mut fences = vec![Op::Check { path: fence, version: None }];
            fences.extend(commits.iter().flat_map(|commit| commit.fences.iter().cloned()));
            faults::point("a commit is to be made");
            let swap = self.catalog.swap_tables(records, unchanged, fences).await;
            faults::point("a commit is made");
            let swap = match swap {
                Ok(Swap::Done(tables)) => {
                    for (table, staged) in tables.iter().zip(staged) {
                        // By now another may have taken its name.
                        let Ok(managed) = managed(table) else { continue };
                        let own = own_files(&self.files, managed, staged.expired, false).await;
                        self.files.remove(own).await;
                    }
                    return Ok(tables);
                }
                Ok(other) => other,
                // What became of it is unknown: what was written may be the table by now.
                Err(error) => return Err(error.into()),
            };
            *in_doubt |= matches!(swap, Swap::Ambiguous);
            if self.look_again(&commits, &mut tables, &traces).await? {
                return Ok(tables);
            }
            match swap {
                // What is on its way still may be made as long as nobody else is quicker.
                Swap::Ambiguous => {}
                _ => {
                    let written = staged.into_iter().flat_map(|staged| staged.written);
                    self.files.remove(written.collect()).await;
                }
            }
            match swap {
                Swap::Fenced if unregistered => return Err(Error::Unregistered),
                Swap::Fenced => unregistered = true,
                Swap::Outrun => *in_doubt = false,
                Swap::Changed(table) => {
                    *in_doubt = false;
                    return Err(Error::Conflict { table });
                }
                _ => {}
            }
            pause(attempt).await;
        }
        let first = tables.first().or(unchanged.first());
        Err(Error::Busy { table: first.map(|table| table.name.to_string()).unwrap_or_default() })
    }

    /// Reads the tables again after a commit was not made, or not certainly; whether it was.
    async fn look_again(
        &self,
        commits: &[Commit],
        tables: &mut [Arc<Table>],
        traces: &Traces,
    ) -> Result<bool> {
        for (table, commit) in tables.iter_mut().zip(commits) {
            *table = self.catalog.table(&commit.table.name, Consistency::Strong).await?;
        }
        if let Some(first) = tables.first_mut() {
            let (now, metadata) = current(&self.files, &self.catalog, first.clone()).await?;
            if traces.are_in(managed(&now)?, &metadata) {
                return Ok(true);
            }
        }
        for (table, commit) in tables.iter_mut().zip(commits) {
            (*table, _) = self.now(commit).await?;
        }
        Ok(false)
    }

    /// The table that a commit is for as it is now, if it still is the one.
    async fn now(&self, commit: &Commit) -> Result<(Arc<Table>, Arc<TableMetadata>)> {
        let name = &commit.table.name;
        let now = self.catalog.table(name, Consistency::Cached).await?;
        let (now, metadata) = current(&self.files, &self.catalog, now).await?;
        let same = now.record.oid == commit.table.record.oid
            && managed(&now)?.uuid == managed(&commit.table)?.uuid
            && metadata.current_schema_id() == commit.schema_id;
        match same {
            true => Ok((now, metadata)),
            false => Err(Error::Conflict { table: name.table.clone() }),
        }
    }

    async fn stage(
        &self,
        commits: &[Commit],
        tables: &[Arc<Table>],
        mark: Uuid,
    ) -> Result<Vec<Staged>> {
        let mut all = Vec::new();
        for (commit, table) in commits.iter().zip(tables) {
            let state = (table.name.table.as_str(), managed(table)?.metadata.as_str());
            match commit::stage(&self.files, state, &commit.changes, Some(mark)).await {
                Ok(staged) => all.push(staged),
                Err(error) => {
                    let written =
                        all.into_iter().flat_map(|staged: Staged| staged.written).collect();
                    self.files.remove(written).await;
                    return Err(error);
                }
            }
        }
        Ok(all)
    }
}

/// By what a commit is recognised that was made although its writer was not told.
struct Traces {
    /// In the snapshot.
    mark: Uuid,
    /// The first table's metadata, of each attempt.
    metadata_urls: Vec<String>,
}

impl Traces {
    fn are_in(&self, now: &Managed, metadata: &TableMetadata) -> bool {
        let log = metadata.metadata_log().iter().map(|entry| &entry.metadata_file);
        log.chain([&now.metadata]).any(|url| self.metadata_urls.contains(url))
            || commit::has_commit(metadata, self.mark)
    }
}

/// A table with its metadata. Where others have changed it so often since this daemon has heard of it
/// that the metadata is gone, the table as it is now.
pub async fn current(
    files: &TableFiles,
    catalog: &Catalog,
    table: Arc<Table>,
) -> Result<(Arc<Table>, Arc<TableMetadata>)> {
    let missing = match files.metadata(&managed(&table)?.metadata).await {
        Err(error @ Error::NotFound { .. }) => error,
        metadata => return Ok((table, metadata?)),
    };
    let now = catalog.table(&table.name, Consistency::Strong).await?;
    let newer = now.record.oid == table.record.oid && now.stat.mzxid > table.stat.mzxid;
    // A state that no store knows is a transaction block's own, and nobody else has changed that.
    if !newer || table.stat.mzxid < 0 {
        return Err(missing);
    }
    let metadata = files.metadata(&managed(&now)?.metadata).await?;
    Ok((now, metadata))
}

/// Refuses a commit over tables that are no longer what they were when they were to stay so. Of those
/// that it does not change the store tells.
fn must_be_unchanged(unchanged: &[Arc<Table>], tables: &[Arc<Table>]) -> Result<()> {
    let now = |before: &Table| tables.iter().find(|now| now.record.oid == before.record.oid);
    let changed =
        |before: &Table| now(before).is_some_and(|now| now.stat.mzxid != before.stat.mzxid);
    match unchanged.iter().find(|before| changed(before)) {
        Some(table) => Err(Error::Conflict { table: table.name.table.clone() }),
        None => Ok(()),
    }
}

/// All files that a commit brings.
fn new_files(commits: &[Commit], staged: &[Staged]) -> Vec<String> {
    let added = commits.iter().flat_map(|commit| &commit.changes).flat_map(Change::added);
    let added = added.map(|file| file.file_path().to_owned());
    added.chain(staged.iter().flat_map(|staged| staged.written.iter().cloned())).collect()
}

/// Which table of its name a commit is for.
fn uuid(commit: &Commit) -> Option<Uuid> {
    managed(&commit.table).ok().map(|managed| managed.uuid)
}

/// Appends for the same schema go together; all else goes by itself, in its turn.
fn groups(waiting: Vec<Waiting>) -> Vec<Vec<Waiting>> {
    let mut groups: Vec<Vec<Waiting>> = Vec::new();
    for one in waiting {
        let joins = |group: &Vec<Waiting>| {
            let together = |a: &Commit, b: &Commit| {
                let appends = |commit: &Commit| commit.changes.iter().all(Change::is_append);
                appends(a)
                    && appends(b)
                    && a.fences.is_empty()
                    && b.fences.is_empty()
                    && a.schema_id == b.schema_id
                    && a.table.name == b.table.name
                    && uuid(a) == uuid(b)
            };
            group.len() < MAX_GROUP
                && group.first().is_some_and(|first| together(&first.commit, &one.commit))
        };
        match groups.last_mut() {
            Some(group) if joins(group) => group.push(one),
            _ => groups.push(vec![one]),
        }
    }
    groups
}

/// What a table's definition says of its files.
pub fn managed(table: &Table) -> Result<&Managed> {
    match &table.record.definition {
        Definition::Managed(managed) => Ok(managed),
        _ => Err(Error::NotManaged { table: table.name.table.clone() }),
    }
}

/// The record that names a staged state, to which changes have led.
pub fn next_record(table: &Table, staged: &Staged, changes: &[Change]) -> Result<TableRecord> {
    let before = managed(table)?;
    let definition = Definition::Managed(Managed {
        metadata: staged.metadata_url.clone(),
        serial: before.serial + 1,
        ..before.clone()
    });
    let mut columns = columns_of(&staged.metadata, &table.record.columns)?;
    set_defaults(&mut columns, changes)?;
    Ok(TableRecord { columns, definition, nonce: id::nonce(), ..table.record.clone() })
}

/// Version 2 of the format has no defaults: they are the catalog's.
fn set_defaults(columns: &mut [Column], changes: &[Change]) -> Result<()> {
    let steps = changes.iter().flat_map(|change| match change {
        Change::Alter(steps) => steps.as_slice(),
        _ => &[],
    });
    for step in steps {
        let Alteration::SetDefault { name, default } = step else { continue };
        let column = columns.iter_mut().find(|column| column.name == *name);
        let column = column.ok_or_else(|| Error::NoColumn { name: name.clone() })?;
        column.default.clone_from(default);
    }
    Ok(())
}

/// Waits longer with each attempt, and never as long as the next daemon.
async fn pause(attempt: u32) {
    let limit = Duration::from_millis(2 << attempt.min(7)).min(MAX_PAUSE);
    let (_, random) = Uuid::new_v4().as_u64_pair();
    let share = u32::try_from(random % 1000).unwrap_or(500);
    tokio::time::sleep(limit * share / 1000).await;
}

impl From<catalog::Error> for Error {
    fn from(error: catalog::Error) -> Self {
        Self::Catalog(Box::new(error))
    }
}
