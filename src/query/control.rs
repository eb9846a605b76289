//! Carries out what is about the session itself: transaction blocks and settings.

use std::borrow::Cow;
use std::sync::Arc;

use super::command::{Command, Modes};
use super::life::Session;
use super::locks::Mode;
use super::notify::Action;
use super::running::Registered;
use super::transaction::Return;
use super::{Error, Result, TransactionState};
use crate::engine;
use crate::engine::objects::Change;
use crate::engine::settings::{Settings, is_of_transaction};
use crate::engine::staged::Tables;

/// A command that is done.
#[derive(Clone, Debug, Default)]
pub struct Done {
    pub tag: Cow<'static, str>,
    pub notices: Vec<Notice>,
    /// What became of the transaction block.
    pub boundary: Option<Boundary>,
}

/// Where portals may end. Levels count the savepoints that are set: what was made since a savepoint
/// has a higher level than it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundary {
    Committed,
    RolledBack,
    /// Back to a savepoint: what has this level or a higher one is gone.
    RolledBackTo(usize),
    /// What has a higher level has this one now.
    Released(usize),
}

/// Something the client is told beside the result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// SQLSTATE.
    pub code: &'static str,
    pub message: String,
}

impl Session {
    pub(super) async fn command(
        &mut self,
        registered: &Registered,
        command: Arc<Command>,
    ) -> Result<Done> {
        let done = |tag: &'static str| Ok(Done { tag: tag.into(), ..Done::default() });
        match command.as_ref() {
            Command::Begin { tag, modes } => self.begin(tag, modes),
            Command::End { commit, chain } => {
                let block = self.transaction.state();
                let commits = *commit && block == TransactionState::InBlock;
                let pending = self.transaction.pending().map(std::mem::take);
                let pending = pending.filter(|_| commits).unwrap_or_default();
                let published = match commits {
                    true => match self.may_let_go(&pending) {
                        Ok(()) => self.publish_block(registered).await,
                        full => {
                            self.discard_block(Tables::default()).await;
                            full
                        }
                    },
                    false => {
                        self.discard_block(Tables::default()).await;
                        Ok(())
                    }
                };
                if published.is_err() {
                    self.end_block(false, false)?;
                }
                published?;
                let mut done = self.end_block(*commit, *chain)?;
                done.notices.extend(self.let_go(pending).await);
                Ok(done)
            }
            Command::Savepoint(name) => {
                let settings = self.settings().clone();
                let staged = &self.engine_session().info().staged;
                let (tables, locked) = (staged.tables(), staged.locked());
                self.transaction.savepoint(name, &settings, tables, locked)?;
                done("SAVEPOINT")
            }
            Command::Release(name) => {
                self.transaction.release(name)?;
                let boundary = Some(Boundary::Released(self.transaction.depth()));
                Ok(Done { tag: "RELEASE".into(), boundary, ..Done::default() })
            }
            Command::RollbackTo(name) => {
                let Return { settings, tables, locked } = self.transaction.rollback_to(name)?;
                self.engine_session().info().staged.lock_only(locked);
                self.use_settings(settings);
                self.discard_block(tables).await;
                let boundary = Some(Boundary::RolledBackTo(self.transaction.depth()));
                Ok(Done { tag: "ROLLBACK".into(), boundary, ..Done::default() })
            }
            Command::Set { name, value, local } => {
                if name == "role" {
                    self.may_take_role(value.as_deref()).await?;
                }
                self.set(name, value.as_deref(), *local)
            }
            Command::SetTransaction(modes) => self.set_transaction(modes),
            Command::SetCharacteristics(modes) => {
                for (name, value) in modes.settings() {
                    self.set(&format!("default_{name}"), Some(value), false)?;
                }
                done("SET")
            }
            Command::SetConstraints(Some(name)) => Err(Error::NoConstraint(name.clone())),
            Command::SetConstraints(None) => {
                Ok(self.only_in_block("SET CONSTRAINTS", "SET CONSTRAINTS"))
            }
            Command::Reset(name) => {
                self.reset(name.as_deref())?;
                done("RESET")
            }
            Command::Lock { names, mode: Mode::Exclusive } => {
                self.lock_tables(registered, names, Mode::Exclusive).await?;
                done("LOCK TABLE")
            }
            Command::Lock { names, mode } => {
                for name in names {
                    // It keeps nobody out: that it is there is enough. What is no table of the
                    // catalog's is found, or not, by reading it.
                    if !self.is_table(name).await? {
                        let read = format!("SELECT 1 FROM {name}");
                        registered.until_stopped(self.plan_text(&read)).await??;
                    }
                    self.may_lock(name, mode.needs()).await?;
                }
                done("LOCK TABLE")
            }
            Command::Maintain(upkeep) => Box::pin(self.maintain(registered, upkeep)).await,
            Command::Listen(action) => {
                self.listen(action).await?;
                done(match action {
                    Action::Listen(_) => "LISTEN",
                    Action::Unlisten(_) => "UNLISTEN",
                })
            }
            Command::Notify { channel, payload } => {
                let notices = self.notify(vec![(channel.clone(), payload.clone())]).await?;
                Ok(Done { tag: "NOTIFY".into(), notices, ..Done::default() })
            }
            Command::Nothing(tag) => done(tag),
            Command::Ddl(ddl) => {
                let (notices, tag) = self.change(registered, ddl).await?;
                self.record(ddl);
                let tag = tag.map_or(ddl.tag().into(), Cow::from);
                Ok(Done { tag, notices, ..Done::default() })
            }
        }
    }

    fn begin(&mut self, tag: &'static str, modes: &Modes) -> Result<Done> {
        let settings = self.settings().clone();
        let fresh = self.transaction.begin(&settings);
        self.set_modes(modes)?;
        let notices = match fresh {
            true => Vec::new(),
            false => vec![warning("25001", "there is already a transaction in progress")],
        };
        Ok(Done { tag: tag.into(), notices, ..Done::default() })
    }

    fn end_block(&mut self, commit: bool, chain: bool) -> Result<Done> {
        let tag = if commit { "COMMIT" } else { "ROLLBACK" };
        let before = self.settings().clone();
        let staged = &self.engine_session().info().staged;
        staged.hold(false);
        drop(staged.unlock());
        let Some((settings, committed)) = self.transaction.end(commit) else {
            if chain {
                return Err(Error::OutsideTransaction(match commit {
                    true => "COMMIT AND CHAIN",
                    false => "ROLLBACK AND CHAIN",
                }));
            }
            let notices = vec![warning("25P01", "there is no transaction in progress")];
            return Ok(Done { tag: tag.into(), notices, ..Done::default() });
        };
        self.use_settings(settings);
        if chain {
            let settings = self.settings().clone();
            self.transaction.begin(&settings);
            // The next transaction is of the same kind.
            for (name, value) in before.of_transaction() {
                self.set(name, Some(value), true)?;
            }
        }
        // COMMIT of an aborted block says ROLLBACK, as in PostgreSQL.
        Ok(match committed {
            true => {
                Done { tag: tag.into(), boundary: Some(Boundary::Committed), ..Done::default() }
            }
            false => {
                let boundary = Some(Boundary::RolledBack);
                Done { tag: "ROLLBACK".into(), boundary, ..Done::default() }
            }
        })
    }

    fn set_transaction(&mut self, modes: &Modes) -> Result<Done> {
        if modes.isolation.is_some() && self.transaction.has_queried() {
            return Err(Error::TooLate);
        }
        let done = self.only_in_block("SET", "SET TRANSACTION");
        if done.notices.is_empty() {
            self.set_modes(modes)?;
        }
        Ok(done)
    }

    fn set_modes(&mut self, modes: &Modes) -> Result<()> {
        for (name, value) in modes.settings() {
            self.set(name, Some(value), true)?;
        }
        Ok(())
    }

    /// What is without effect outside of a block is said to be.
    fn only_in_block(&self, tag: &'static str, command: &str) -> Done {
        let notices = match self.transaction_state() {
            TransactionState::Idle => {
                let text = format!("{command} can only be used in transaction blocks");
                vec![warning("25P01", &text)]
            }
            _ => Vec::new(),
        };
        Done { tag: tag.into(), notices, ..Done::default() }
    }

    fn set(&mut self, name: &str, value: Option<&str>, local: bool) -> Result<Done> {
        let change = Change { name: name.to_owned(), value: value.map(str::to_owned), local };
        let mut settings = Settings::clone(self.settings());
        change.apply(&mut settings).map_err(engine::Error::from)?;
        if local && self.transaction_state() == TransactionState::Idle {
            return Ok(self.only_in_block("SET", "SET LOCAL"));
        }
        self.change_settings(settings, &change);
        Ok(Done { tag: "SET".into(), ..Done::default() })
    }

    /// Takes settings over that differ by a change from the present ones.
    fn change_settings(&mut self, settings: Settings, change: &Change) {
        let of_transaction = is_of_transaction(&change.name.to_ascii_lowercase());
        match (change.local || of_transaction, self.transaction_state()) {
            // Its transaction is over already.
            (true, TransactionState::Idle) => return,
            (true, _) => {}
            // Checked on the same names and values.
            (false, _) => self.transaction.set_lasting(|lasting| drop(change.apply(lasting))),
        }
        self.use_settings(Arc::new(settings));
    }

    /// Does what the last statement has left to do by functions: applies changes of settings, and
    /// notifies. Returns what the client is to be told.
    pub async fn settle(&mut self) -> Result<Vec<Notice>> {
        for change in self.engine_session().info().objects.changes.take() {
            let mut settings = Settings::clone(self.settings());
            // Checked when it was made.
            if change.apply(&mut settings).is_ok() {
                self.change_settings(settings, &change);
            }
        }
        self.say_noted().await
    }

    /// An error reached the client: what the statement changed is undone, an open transaction block
    /// is aborted.
    pub fn note_error(&mut self) {
        drop(self.engine_session().info().objects.changes.take());
        drop(self.engine_session().info().objects.notes.take());
        self.transaction.fail();
        self.tell_transaction();
    }

    pub(super) fn reset(&mut self, name: Option<&str>) -> Result<()> {
        let change = |settings: &mut Settings| match name {
            Some(name) => settings.reset(name),
            None => {
                settings.reset_all();
                Ok(())
            }
        };
        let mut settings = Settings::clone(self.settings());
        change(&mut settings).map_err(engine::Error::from)?;
        self.transaction.set_lasting(|lasting| drop(change(lasting)));
        self.use_settings(Arc::new(settings));
        Ok(())
    }
}

fn warning(code: &'static str, message: &str) -> Notice {
    Notice { code, message: message.to_owned() }
}
