//! What becomes of changes of tables: committed at once, or kept until the transaction block ends.
//!
//! A block keeps each change together with the state that it leads to, which the block's own
//! statements read. COMMIT carries out all changes of all tables in one step of the store, on what
//! the tables are by then: rows that were only added go through whatever others did, and whatever
//! depends on rows that have changed since is a conflict.

use std::sync::Arc;

use super::life::Session;
use super::running::Registered;
use super::{Error, Result, TransactionState};
use crate::catalog::{Stat, Table, TableName};
use crate::engine::Target;
use crate::engine::staged::{Tables, unique_version};
use crate::storage::managed::{self, Change, Commit};

impl Session {
    /// The table as this session's block has made it, if it has.
    pub(super) fn staged(&self, name: &TableName) -> Option<Arc<Table>> {
        self.engine_session().info().staged.get(name)
    }

    /// Makes changes durable, or keeps them for the end of the block. Whoever stops the statement ends
    /// its wait for others; a change that is under way is carried out or refused, never left open.
    pub(super) async fn keep(
        &mut self,
        registered: &Registered,
        changes: Vec<(Target, Change)>,
        tag: &str,
    ) -> Result<()> {
        if self.transaction.state() == TransactionState::InBlock {
            for (target, change) in changes {
                self.stage(target.commit(change)).await?;
            }
            return Ok(());
        }
        let mut commits: Vec<Commit> =
            changes.into_iter().map(|(target, change)| target.commit(change)).collect();
        let (Some(ending), Some(commit)) = (&self.ending, commits.first_mut()) else {
            return self.commit(registered, commits, Vec::new()).await;
        };
        commit.fences = ending.ops(tag)?;
        self.commit(registered, commits, Vec::new()).await?;
        ending.note_landed();
        Ok(())
    }

    /// Carries out changes in one step, if certain tables are unchanged. If that fails, what was written
    /// for them goes.
    async fn commit(
        &self,
        registered: &Registered,
        commits: Vec<Commit>,
        unchanged: Vec<Arc<Table>>,
    ) -> Result<()> {
        let service = &self.queries().commits;
        let mut stopped = None;
        let stop = async { stopped = Some(registered.stopped().await) };
        let done = match commits.as_slice() {
            [] if unchanged.is_empty() => return Ok(()),
            [commit] if unchanged.is_empty() => {
                service.commit(commit.clone(), stop).await.map(drop)
            }
            _ => service.commit_all(commits.clone(), unchanged, stop).await.map(drop),
        };
        if let Err(error) = done {
            if error.left_nothing() {
                let added = commits.iter().flat_map(|commit| &commit.changes);
                let added = added.flat_map(Change::added);
                let urls: Vec<_> = added.map(|file| file.file_path().to_owned()).collect();
                service.files().remove(urls).await;
            }
            return Err(match stopped {
                Some(stop) if error.is_given_up() => Error::Stopped(stop),
                _ => error.into(),
            });
        }
        Ok(())
    }

    async fn stage(&self, commit: Commit) -> Result<()> {
        let commit = self.queries().commits.settled(commit).await?;
        let staged = &self.engine_session().info().staged;
        let files = self.queries().commits.files();
        let before = staged.get(&commit.table.name).unwrap_or_else(|| commit.table.clone());
        let state = (before.name.table.as_str(), managed::managed(&before)?.metadata.as_str());
        let next = managed::stage(files, state, &commit.changes, None).await?;
        let record = managed::next_record(&before, &next, &commit.changes)?;
        let stat = Stat { mzxid: unique_version(), ..before.stat };
        let now = Arc::new(Table { name: before.name.clone(), record, stat });
        staged.add(commit, now, next.written);
        Ok(())
    }

    /// COMMIT: carries out what the block has written, if what it has locked is unchanged.
    pub(super) async fn publish_block(&mut self, registered: &Registered) -> Result<()> {
        let staged = &self.engine_session().info().staged;
        let (tables, locked) = (staged.replace(Tables::default()), staged.unlock());
        // The states on the way were for the block's own eyes.
        self.queries().commits.files().remove(tables.files(false)).await;
        self.commit(registered, tables.commits(), locked).await
    }

    /// ROLLBACK: what the block has written goes, as far as it came after a savepoint.
    pub(super) async fn discard_block(&self, back_to: Tables) {
        let kept: std::collections::HashSet<String> = back_to.files(true).into_iter().collect();
        let written = self.engine_session().info().staged.replace(back_to);
        let mut gone = written.files(true);
        gone.retain(|url| !kept.contains(url));
        self.queries().commits.files().remove(gone).await;
    }
}
