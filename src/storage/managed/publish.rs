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
//!
//! # Several daemons
//! Who has lost, or hears that others wait, takes its turn among the daemons that change the table
//! ([`Catalog::take_turn`]). Who is alone never asks.
//!
//! # Giving up
//! Who waits for a commit may give it up. One that has not begun is taken out of the queue, one that
//! has certainly not been made is not begun again; one that is under way to the store is carried to its
//! end, and its outcome is what is told.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use datafusion::execution::memory_pool::MemoryPool;
use iceberg::spec::TableMetadata;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::commit::{self, Change, Staged};
use super::queue::{MAX_ATTEMPTS, Queue, Waiting};
use super::state::{current, managed, next_record};
use super::{TableFiles, own_files, rows};
use crate::catalog::{Catalog, Consistency, Managed, Swap, Table, TableName, Turn};
use crate::cluster::Membership;
use crate::coordination::Op;
use crate::coordination::paths::Path;
use crate::faults;
use crate::id;
use crate::metrics::{Counter, Timing};
use crate::storage::{Error, Result};

/// The longest pause before one commit starts again because others were quicker.
const MAX_PAUSE: Duration = Duration::from_millis(250);

/// How long a daemon keeps its turn while its own clients have commits and others wait. Longer is
/// better for all together, who then read less often what others have made of the table.
const TURN: Duration = Duration::from_millis(100);

/// How long it waits in its turn for its clients' next commits: what a client takes for the next
/// statement after the last one's answer.
const LINGER: Duration = Duration::from_millis(5);

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
    pub races: Races,
}

/// What several daemons that change the same tables at the same time cost.
#[derive(Debug, Default)]
pub struct Races {
    /// Attempts at commits that others were quicker than.
    pub lost: Counter,
    /// How long commits have waited for a turn at their tables, of those that had to.
    pub waited: Timing,
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

/// Whether nobody wants a commit any more.
type GivenUp<'a> = &'a (dyn Fn() -> bool + Send + Sync);

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
            races: Races::default(),
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

    /// Makes a change durable; the table as it is then. Given up at `stop` ([`Error::GivenUp`]), if
    /// that comes before the change is under way. Once begun it goes on if this future is dropped.
    pub async fn commit(
        self: &Arc<Self>,
        commit: Commit,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<Arc<Table>> {
        let queue = self.queue(commit.table.record.oid);
        let mut place = queue.push(commit);
        let (commits, own) = (self.clone(), queue.clone());
        self.tasks.spawn_on(
            async move {
                let _turn = own.turn.lock().await;
                commits.serve(&own).await;
            },
            &self.handle,
        );
        tokio::select! {
            biased;
            done = &mut place.answer => return done.unwrap_or_else(|_| Err(Error::Stopped)),
            () = stop => {}
        }
        if queue.give_up(&place) {
            return Err(Error::GivenUp);
        }
        place.answer.await.unwrap_or_else(|_| Err(Error::Stopped))
    }

    /// Makes changes of several tables durable in one step, or none of them, if certain tables still
    /// are in these states. Given up at `stop`, as [`Self::commit`].
    pub async fn commit_all(
        self: &Arc<Self>,
        commits: Vec<Commit>,
        unchanged: Vec<Arc<Table>>,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<Vec<Arc<Table>>> {
        let given_up = CancellationToken::new();
        let (own, wanted) = (self.clone(), given_up.clone());
        let mut task = self.tasks.spawn_on(
            async move { own.carry_out_all(commits, &unchanged, &wanted).await },
            &self.handle,
        );
        tokio::select! {
            biased;
            done = &mut task => return done.unwrap_or(Err(Error::Stopped)),
            () = stop => given_up.cancel(),
        }
        task.await.unwrap_or(Err(Error::Stopped))
    }

    async fn carry_out_all(
        &self,
        commits: Vec<Commit>,
        unchanged: &[Arc<Table>],
        given_up: &CancellationToken,
    ) -> Result<Vec<Arc<Table>>> {
        // In one order everywhere, so that no two wait for each other.
        let tables: BTreeMap<u32, TableName> = (commits.iter())
            .map(|commit| (commit.table.record.oid, commit.table.name.clone()))
            .collect();
        let queues: Vec<_> = tables.keys().map(|oid| self.queue(*oid)).collect();
        let mut turns = Vec::new();
        for queue in &queues {
            tokio::select! {
                biased;
                () = given_up.cancelled() => return Err(Error::GivenUp),
                turn = queue.turn.lock() => turns.push(turn),
            }
        }
        for losses in 0..MAX_ATTEMPTS {
            let turns = self.take_turns(tables.values(), losses, given_up).await;
            let alone = turns.is_empty();
            let done = match given_up.is_cancelled() {
                true => Err(Error::GivenUp),
                false => {
                    let stop = || given_up.is_cancelled();
                    self.carry_out(commits.clone(), unchanged, &stop).await
                }
            };
            self.end_turns(turns).await;
            match done? {
                Some(tables) => return Ok(tables),
                None if alone => pause(losses).await,
                None => {}
            }
        }
        let first = tables.into_values().next();
        Err(Error::Busy { table: first.map(|name| name.to_string()).unwrap_or_default() })
    }

    /// Waits until what has begun is done.
    pub async fn finish(&self, patience: Duration) {
        self.tasks.close();
        let _ = timeout(patience, self.tasks.wait()).await;
    }

    fn queue(&self, oid: u32) -> Arc<Queue> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.retain(|known, queue| *known == oid || Arc::strong_count(queue) > 1);
        queues.entry(oid).or_default().clone()
    }

    /// Carries out all that waits for one table.
    async fn serve(&self, queue: &Queue) {
        let mut losses = 0;
        while let Some(table) = queue.first() {
            let turns = self.take_turns([&table], losses, &CancellationToken::new()).await;
            let since = Instant::now();
            let lost = loop {
                let mut lost = Vec::new();
                for group in queue.take() {
                    lost.extend(self.run(group).await);
                }
                let lost = queue.put_back(lost);
                let goes_on = !turns.is_empty()
                    && since.elapsed() < TURN
                    && (lost || self.has_more(queue, &table).await);
                if !goes_on {
                    break lost;
                }
            };
            let alone = turns.is_empty();
            self.end_turns(turns).await;
            match lost {
                // Whatever has come meanwhile has a task of its own.
                false => return,
                true if alone => pause(losses).await,
                true => {}
            }
            losses += 1;
        }
    }

    /// Whether there is more to do in a turn that others wait for.
    async fn has_more(&self, queue: &Queue, table: &TableName) -> bool {
        self.catalog.waited(table) > 1 && timeout(LINGER, queue.arrival()).await.is_ok()
    }

    /// This daemon's turns at tables where it takes turns to get through. Where there is none, or none
    /// is needed, it tries without.
    async fn take_turns(
        &self,
        tables: impl IntoIterator<Item = &TableName>,
        losses: u32,
        stop: &CancellationToken,
    ) -> Vec<Turn> {
        let (since, mut turns) = (Instant::now(), Vec::new());
        for table in tables {
            if losses == 0 && !self.catalog.is_wanted(table).await {
                continue;
            }
            if let Some(turn) = self.catalog.take_turn(table, self.membership.id(), stop).await {
                turns.push(turn);
                // What the others have made of it: if that cannot be read, the commit will say so.
                let _ = self.catalog.table(table, Consistency::Strong).await;
            }
        }
        if !turns.is_empty() {
            self.races.waited.add(since.elapsed());
        }
        turns
    }

    async fn end_turns(&self, turns: Vec<Turn>) {
        for turn in turns {
            self.catalog.end_turn(turn).await;
        }
    }

    /// Carries out a group in one snapshot, and tells each what came of it. Returns those that others
    /// were quicker than.
    async fn run(&self, group: Vec<Waiting>) -> Vec<Waiting> {
        let Some(first) = group.first() else { return group };
        let changes = group.iter().flat_map(|one| one.commit.changes.iter().cloned()).collect();
        let one = Commit { changes, ..first.commit.clone() };
        let given_up = || group.iter().all(Waiting::is_given_up);
        match self.carry_out(vec![one], &[], &given_up).await {
            Ok(None) => return group,
            Ok(Some(tables)) => {
                for one in group {
                    one.reply(tables.first().cloned().ok_or(Error::Stopped));
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for one in group {
                    one.reply(Err(Error::Shared(error.clone())));
                }
            }
        }
        Vec::new()
    }

    /// Puts rows that wait into files, and carries out all changes in one step. `None` if others were
    /// quicker: nothing has changed, and nothing is left.
    async fn carry_out(
        &self,
        mut commits: Vec<Commit>,
        unchanged: &[Arc<Table>],
        given_up: GivenUp<'_>,
    ) -> Result<Option<Vec<Arc<Table>>>> {
        let mut own = Vec::new();
        let done = match self.to_files(&mut commits, &mut own).await {
            Ok(tables) => {
                faults::point("rows are in files");
                self.replace(commits, tables, unchanged, given_up).await
            }
            Err(error) => Err(error),
        };
        let left_nothing = match &done {
            Ok(done) => done.is_none(),
            Err(error) => error.left_nothing(),
        };
        if left_nothing {
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
        given_up: GivenUp<'_>,
    ) -> Result<Option<Vec<Arc<Table>>>> {
        let mut doubt = false;
        match self.try_to_replace((commits, tables), unchanged, given_up, &mut doubt).await {
            // Nothing of what may have been made may be removed.
            Err(error) if doubt => Err(Error::Uncertain(Box::new(error))),
            done => done,
        }
    }

    /// `in_doubt` says afterwards whether an attempt that failed may have been made after all.
    async fn try_to_replace(
        &self,
        (commits, mut tables): (Vec<Commit>, Vec<Arc<Table>>),
        unchanged: &[Arc<Table>],
        given_up: GivenUp<'_>,
        in_doubt: &mut bool,
    ) -> Result<Option<Vec<Arc<Table>>>> {
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
            if !*in_doubt && given_up() {
                self.files.remove(written(staged)).await;
                return Err(Error::GivenUp);
            }
            let fences = self.fences(&commits).await;
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
                    return Ok(Some(tables));
                }
                Ok(other) => other,
                Err(error) => {
                    let error = Error::from(error);
                    // Unless it is unknown what became of it: what was written may be the table by now.
                    if !*in_doubt && error.left_nothing() {
                        self.files.remove(written(staged)).await;
                    }
                    return Err(error);
                }
            };
            *in_doubt |= matches!(swap, Swap::Ambiguous);
            if self.look_again(&commits, &mut tables, &traces).await? {
                return Ok(Some(tables));
            }
            // What is on its way still may be made as long as nobody else is quicker.
            if !matches!(swap, Swap::Ambiguous) {
                self.files.remove(written(staged)).await;
            }
            match swap {
                Swap::Fenced if unregistered => return Err(Error::Unregistered),
                Swap::Fenced => unregistered = true,
                Swap::Outrun => {
                    *in_doubt = false;
                    self.races.lost.add(1);
                    return Ok(None);
                }
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

    /// What goes with a commit of this daemon's.
    async fn fences(&self, commits: &[Commit]) -> Vec<Op> {
        let path = Path::Incarnation(self.membership.record().await.incarnation).to_string();
        let own = Op::Check { path, version: None };
        [own].into_iter().chain(commits.iter().flat_map(|commit| commit.fences.clone())).collect()
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

/// All that was written for these, data files left out.
fn written(staged: Vec<Staged>) -> Vec<String> {
    staged.into_iter().flat_map(|staged| staged.written).collect()
}

/// Waits longer with each attempt, and never as long as the next daemon.
async fn pause(attempt: u32) {
    let limit = Duration::from_millis(2 << attempt.min(7)).min(MAX_PAUSE);
    let (_, random) = Uuid::new_v4().as_u64_pair();
    let share = u32::try_from(random % 1000).unwrap_or(500);
    tokio::time::sleep(limit * share / 1000).await;
}
