//! What BEGIN promises here: a block of reads, of rows that COMMIT makes part of their tables in one
//! step, and of settings that ROLLBACK takes back.
//!
//! Each statement of a block reads the state of its own moment (PostgreSQL's READ COMMITTED), at
//! REPEATABLE READ and SERIALIZABLE that of the moment when the block first read the table. What
//! commits by itself, DDL above all, is refused inside a block rather than faked.

use std::sync::Arc;

use super::notify::Pending;
use super::{Error, Result};
use crate::engine::settings::Settings;
use crate::engine::staged::{Locked, Tables};

/// What a client is told after each statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionState {
    Idle,
    InBlock,
    Failed,
}

#[derive(Debug, Default)]
pub(super) struct Transaction {
    block: Option<Block>,
}

#[derive(Debug)]
struct Block {
    failed: bool,
    /// What ROLLBACK returns to.
    before: Arc<Settings>,
    /// What COMMIT leaves: the settings without those of SET LOCAL.
    lasting: Settings,
    savepoints: Vec<Savepoint>,
    /// A query has run in it.
    queried: bool,
    /// What LISTEN and NOTIFY leave for COMMIT.
    pending: Pending,
}

#[derive(Debug)]
struct Savepoint {
    name: String,
    settings: Arc<Settings>,
    lasting: Settings,
    /// What the block had written by then.
    tables: Tables,
    /// And what it had locked.
    locked: Locked,
    pending: Pending,
}

/// What ROLLBACK TO SAVEPOINT returns to.
#[derive(Debug)]
pub(super) struct Return {
    pub settings: Arc<Settings>,
    pub tables: Tables,
    pub locked: Locked,
}

impl Transaction {
    pub fn state(&self) -> TransactionState {
        match &self.block {
            None => TransactionState::Idle,
            Some(block) if block.failed => TransactionState::Failed,
            Some(_) => TransactionState::InBlock,
        }
    }

    /// Returns false if a block is open already, which PostgreSQL only warns of.
    pub fn begin(&mut self, settings: &Arc<Settings>) -> bool {
        let lasting = Settings::clone(settings);
        let block = Block {
            failed: false,
            before: settings.clone(),
            lasting,
            savepoints: Vec::new(),
            queried: false,
            pending: Pending::default(),
        };
        let fresh = self.block.is_none();
        self.block.get_or_insert(block);
        fresh
    }

    /// Ends the block; the settings that hold from now on, and whether it was committed. `None`
    /// outside of a block.
    pub fn end(&mut self, commit: bool) -> Option<(Arc<Settings>, bool)> {
        let block = self.block.take()?;
        let committed = commit && !block.failed;
        let settings = if committed { Arc::new(block.lasting) } else { block.before };
        Some((settings, committed))
    }

    /// Where LISTEN and NOTIFY leave what they have for COMMIT; `None` outside of a block.
    pub fn pending(&mut self) -> Option<&mut Pending> {
        self.block.as_mut().map(|block| &mut block.pending)
    }

    /// Changes all settings that it may return to.
    pub fn each_settings(&mut self, mut change: impl FnMut(&mut Settings)) {
        let Some(block) = &mut self.block else { return };
        change(Arc::make_mut(&mut block.before));
        change(&mut block.lasting);
        for savepoint in &mut block.savepoints {
            change(Arc::make_mut(&mut savepoint.settings));
            change(&mut savepoint.lasting);
        }
    }

    /// Savepoints that are set.
    pub fn depth(&self) -> usize {
        self.block.as_ref().map_or(0, |block| block.savepoints.len())
    }

    pub fn note_query(&mut self) {
        if let Some(block) = &mut self.block {
            block.queried = true;
        }
    }

    /// Whether the block can no longer choose its isolation level.
    pub fn has_queried(&self) -> bool {
        self.block.as_ref().is_some_and(|block| block.queried)
    }

    /// An error inside a block ends all but its end.
    pub fn fail(&mut self) {
        if let Some(block) = &mut self.block {
            block.failed = true;
        }
    }

    /// Applies SET to what COMMIT will leave.
    pub fn set_lasting(&mut self, change: impl FnOnce(&mut Settings)) {
        if let Some(block) = &mut self.block {
            change(&mut block.lasting);
        }
    }

    pub fn savepoint(
        &mut self,
        name: &str,
        settings: &Arc<Settings>,
        tables: Tables,
        locked: Locked,
    ) -> Result<()> {
        let block = self.block.as_mut().ok_or_else(|| outside("SAVEPOINT"))?;
        let (settings, lasting) = (settings.clone(), block.lasting.clone());
        let (name, pending) = (name.to_owned(), block.pending.clone());
        block.savepoints.push(Savepoint { name, settings, lasting, tables, locked, pending });
        Ok(())
    }

    pub fn release(&mut self, name: &str) -> Result<()> {
        let block = self.block.as_mut().ok_or_else(|| outside("RELEASE SAVEPOINT"))?;
        let at = block.position(name)?;
        block.savepoints.truncate(at);
        Ok(())
    }

    /// What was so at that moment; the savepoint stays.
    pub fn rollback_to(&mut self, name: &str) -> Result<Return> {
        let block = self.block.as_mut().ok_or_else(|| outside("ROLLBACK TO SAVEPOINT"))?;
        let at = block.position(name)?;
        block.savepoints.truncate(at + 1);
        block.failed = false;
        block.lasting = block.savepoints[at].lasting.clone();
        block.pending = block.savepoints[at].pending.clone();
        let Savepoint { settings, tables, locked, .. } = &block.savepoints[at];
        Ok(Return { settings: settings.clone(), tables: tables.clone(), locked: locked.clone() })
    }
}

impl Block {
    fn position(&self, name: &str) -> Result<usize> {
        self.savepoints
            .iter()
            .rposition(|savepoint| savepoint.name == name)
            .ok_or_else(|| Error::NoSavepoint(name.to_owned()))
    }
}

fn outside(command: &'static str) -> Error {
    Error::OutsideTransaction(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Arc<Settings> {
        let mut settings = Settings::default();
        settings.set("application_name", name).expect("valid");
        Arc::new(settings)
    }

    #[test]
    fn a_failed_block_rolls_back_whatever_is_asked() {
        let mut transaction = Transaction::default();
        assert!(transaction.begin(&named("before")));
        assert!(!transaction.begin(&named("other")));
        transaction.fail();
        assert_eq!(transaction.state(), TransactionState::Failed);
        assert_eq!(transaction.end(true), Some((named("before"), false)));
        assert_eq!(transaction.state(), TransactionState::Idle);
        assert_eq!(transaction.end(true), None);
    }

    #[test]
    fn savepoints_return_to_their_moment() {
        let mut transaction = Transaction::default();
        let set = |transaction: &mut Transaction, name: &str, settings: &str| {
            transaction.savepoint(name, &named(settings), Tables::default(), Locked::default())
        };
        assert!(set(&mut transaction, "a", "x").is_err());
        transaction.begin(&named("before"));
        set(&mut transaction, "a", "at a").expect("in a block");
        set(&mut transaction, "b", "at b").expect("in a block");
        transaction.fail();
        assert_eq!(transaction.rollback_to("a").expect("known").settings, named("at a"));
        assert_eq!(transaction.state(), TransactionState::InBlock);
        assert!(transaction.rollback_to("b").is_err());
        transaction.release("a").expect("known");
        assert!(transaction.release("a").is_err());
    }
}
