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
//! 5. The reply was lost: the table's own history tells, since each snapshot names its commits.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use datafusion::execution::memory_pool::MemoryPool;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::commit::{self, Change, Staged};
use super::{TableFiles, columns_of, own_files, rows};
use crate::catalog::{self, Catalog, Consistency, Definition, Managed, Swap, Table, TableRecord};
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
    /// Checks that have to hold beside that this daemon is registered: those of a leader's work.
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

    /// Makes changes of several tables durable in one step, or none of them.
    pub async fn commit_all(self: &Arc<Self>, commits: Vec<Commit>) -> Result<Vec<Arc<Table>>> {
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
                own.carry_out(commits, vec![id::nonce()]).await
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
        let commits: Vec<Uuid> = group.iter().map(|_| id::nonce()).collect();
        let (all, replies): (Vec<_>, Vec<_>) =
            group.into_iter().map(|waiting| (waiting.commit, waiting.reply)).unzip();
        let Some(first) = all.first().cloned() else { return };
        let changes = all.into_iter().flat_map(|commit| commit.changes).collect();
        let one = Commit { changes, ..first };
        match self.carry_out(vec![one], commits).await {
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
        marks: Vec<Uuid>,
    ) -> Result<Vec<Arc<Table>>> {
        let mut own = Vec::new();
        for commit in &mut commits {
            let metadata = self.files.metadata(&managed(&commit.table)?.metadata).await?;
            let changes = std::mem::take(&mut commit.changes);
            let before = changes.iter().flat_map(Change::added).count();
            commit.changes = rows::to_files(&self.files, &metadata, changes, &self.memory).await?;
            let added = commit.changes.iter().flat_map(Change::added).skip(before);
            own.extend(added.map(|file| file.file_path().to_owned()));
        }
        faults::point("rows are in files");
        let done = self.replace(commits, marks).await;
        if done.as_ref().is_err_and(Error::left_nothing) {
            self.files.remove(own).await;
        }
        done
    }

    async fn replace(&self, commits: Vec<Commit>, marks: Vec<Uuid>) -> Result<Vec<Arc<Table>>> {
        let mut tables: Vec<Arc<Table>> = Vec::new();
        for commit in &commits {
            tables.push(self.now(commit, Consistency::Cached).await?);
        }
        let mut unregistered = false;
        for attempt in 0..MAX_ATTEMPTS {
            let staged = self.stage(&commits, &tables, &marks).await?;
            let records: Vec<_> = (tables.iter().zip(&staged))
                .map(|(table, staged)| Ok((table.clone(), next_record(table, staged)?)))
                .collect::<Result<_>>()?;
            self.files.flush(new_files(&commits, &staged)).await?;
            let fence = Path::Incarnation(self.membership.record().await.incarnation).to_string();
            let mut fences = vec![Op::Check { path: fence, version: None }];
            fences.extend(commits.iter().flat_map(|commit| commit.fences.iter().cloned()));
            faults::point("a commit is to be made");
            let swap = self.catalog.swap_tables(records, fences).await;
            faults::point("a commit is made");
            let swap = match swap {
                Ok(Swap::Done(tables)) => {
                    for (table, staged) in tables.iter().zip(staged) {
                        let managed = managed(table)?;
                        let own = own_files(&self.files, managed, staged.expired, false).await;
                        self.files.remove(own).await;
                    }
                    return Ok(tables);
                }
                Ok(other) => other,
                // What became of it is unknown: what was written may be the table by now.
                Err(error) => return Err(error.into()),
            };
            match self.look_again(&commits, &mut tables, &marks).await {
                Ok(true) => return Ok(tables),
                Ok(false) => {}
                // Whether it was made is not known: nothing of it may be removed.
                Err(error) if matches!(swap, Swap::Ambiguous) => {
                    return Err(Error::Uncertain(Box::new(error)));
                }
                Err(error) => return Err(error),
            }
            for staged in staged {
                self.files.remove(staged.written).await;
            }
            match swap {
                Swap::Fenced if unregistered => return Err(Error::Unregistered),
                Swap::Fenced => unregistered = true,
                _ => {}
            }
            pause(attempt).await;
        }
        Err(Error::Busy { table: tables.first().map(|t| t.name.to_string()).unwrap_or_default() })
    }

    /// Reads the tables again after a commit was not made, or not certainly; whether it was.
    async fn look_again(
        &self,
        commits: &[Commit],
        tables: &mut [Arc<Table>],
        marks: &[Uuid],
    ) -> Result<bool> {
        for (table, commit) in tables.iter_mut().zip(commits) {
            *table = self.catalog.table(&commit.table.name, Consistency::Strong).await?;
        }
        if self.have_landed(tables, marks).await? {
            return Ok(true);
        }
        for commit in commits {
            self.now(commit, Consistency::Cached).await?;
        }
        Ok(false)
    }

    /// The table that a commit is for as it is now, if it still is the one.
    async fn now(&self, commit: &Commit, consistency: Consistency) -> Result<Arc<Table>> {
        let name = &commit.table.name;
        let now = self.catalog.table(name, consistency).await?;
        let conflict = || Error::Conflict { location: name.table.clone() };
        let same = now.record.oid == commit.table.record.oid
            && managed(&now)?.uuid == managed(&commit.table)?.uuid;
        if !same {
            return Err(conflict());
        }
        let metadata = self.files.metadata(&managed(&now)?.metadata).await?;
        if metadata.current_schema_id() != commit.schema_id {
            return Err(conflict());
        }
        Ok(now)
    }

    async fn stage(
        &self,
        commits: &[Commit],
        tables: &[Arc<Table>],
        marks: &[Uuid],
    ) -> Result<Vec<Staged>> {
        let mut all = Vec::new();
        for (commit, table) in commits.iter().zip(tables) {
            let url = &managed(table)?.metadata;
            match commit::stage(&self.files, url, &commit.changes, marks).await {
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

    /// Whether a commit has become part of the tables although its writer was not told.
    async fn have_landed(&self, tables: &[Arc<Table>], marks: &[Uuid]) -> Result<bool> {
        let (Some(table), Some(mark)) = (tables.first(), marks.first()) else { return Ok(false) };
        let metadata = self.files.metadata(&managed(table)?.metadata).await?;
        Ok(commit::has_commit(&metadata, *mark))
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

/// The record that names a staged state.
pub fn next_record(table: &Table, staged: &Staged) -> Result<TableRecord> {
    let before = managed(table)?;
    let definition =
        Definition::Managed(Managed { metadata: staged.metadata_url.clone(), ..before.clone() });
    Ok(TableRecord {
        columns: columns_of(&staged.metadata, &table.record.columns)?,
        definition,
        nonce: id::nonce(),
        ..table.record.clone()
    })
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
