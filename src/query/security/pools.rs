//! CREATE, ALTER and DROP POOL: how much the statements of some roles may do at once.
//!
//! ```sql
//! CREATE POOL [IF NOT EXISTS] name [WITH (option = value, ...)] TO role [, ...]
//! ALTER POOL name [WITH (option = value, ...)] [TO role [, ...]]
//! DROP POOL [IF EXISTS] name [, ...]
//! ```
//! An option that is not named stays as it is; `none` takes a limit away, DEFAULT brings back what
//! CREATE POOL begins with. Pools are the superusers' business: they decide about everybody.

use std::time::Duration;

use sqlparser::tokenizer::Token;

use super::parse::Words;
use super::{Grantee, Security, forbidden, invalid, warning};
use crate::catalog::{self, DropMode, ObjectKind, PoolRecord};
use crate::config::{Limit, Size};
use crate::engine::{self, settings};
use crate::query::ddl::missing;
use crate::query::life::Session;
use crate::query::{Error, Notice, Result};

/// The least memory a statement may be held to, in bytes: with less hardly any could run.
const LEAST_MEMORY: u64 = 1 << 20;

/// What a statement says of a pool.
#[derive(Clone, Debug, Default)]
pub struct PoolChange {
    concurrency: Option<Option<u32>>,
    queue: Option<u32>,
    queue_timeout: Option<Option<Duration>>,
    memory: Option<Option<u64>>,
    roles: Option<Vec<Grantee>>,
}

impl PoolChange {
    fn apply(&self, roles: Option<Vec<String>>, record: &mut PoolRecord) {
        record.concurrency = self.concurrency.unwrap_or(record.concurrency);
        record.queue = self.queue.unwrap_or(record.queue);
        record.queue_timeout = self.queue_timeout.unwrap_or(record.queue_timeout);
        record.memory = self.memory.unwrap_or(record.memory);
        if let Some(roles) = roles {
            record.roles = roles;
        }
    }

    /// Takes an option; no value for DEFAULT.
    fn set(&mut self, option: &str, value: Option<&str>) -> Result<()> {
        let default = PoolRecord::default();
        let wrong = |hint: &str| {
            let (name, value) = (option.to_owned(), value.unwrap_or_default().to_owned());
            let error =
                settings::Error::Invalid { name, value, hint: format!(": it takes {hint}") };
            Error::from(engine::Error::from(error))
        };
        let limit = |value: &str| value.parse::<Limit>().ok().map(|Limit(limit)| limit);
        let number = |least: u32, value: &str| value.parse().ok().filter(|n| *n >= least);
        match (option, value) {
            ("concurrency", None) => self.concurrency = Some(default.concurrency),
            ("concurrency", Some("none")) => self.concurrency = Some(None),
            ("concurrency", Some(value)) => {
                let count = number(1, value).ok_or_else(|| wrong("a number from 1, or none"))?;
                self.concurrency = Some(Some(count));
            }
            ("queue", None) => self.queue = Some(default.queue),
            ("queue", Some(value)) => {
                let length = number(0, value);
                self.queue = Some(length.ok_or_else(|| wrong("a number from 0"))?);
            }
            ("queue_timeout", None) => self.queue_timeout = Some(default.queue_timeout),
            ("queue_timeout", Some(value)) => {
                let hint = "a duration such as '30s', or none";
                self.queue_timeout = Some(limit(value).ok_or_else(|| wrong(hint))?);
            }
            ("memory", None) => self.memory = Some(default.memory),
            ("memory", Some("none")) => self.memory = Some(None),
            ("memory", Some(value)) => {
                let size = value.parse::<Size>().ok().filter(|size| size.0 >= LEAST_MEMORY);
                let size =
                    size.ok_or_else(|| wrong("a size such as '2GiB' (1MiB at least), or none"))?;
                self.memory = Some(Some(size.0));
            }
            _ => {
                return Err(invalid(format!(
                    "unrecognized option of a pool: \"{option}\" (there are concurrency, queue, \
                     queue_timeout and memory)"
                )));
            }
        }
        Ok(())
    }
}

impl Words<'_> {
    pub(super) fn create_pool(&mut self) -> Result<Security> {
        let if_not_exists = self.take_all(&["if", "not", "exists"]);
        let (name, change) = (self.name()?, self.pool_change()?);
        if change.roles.is_none() {
            let text = "CREATE POOL needs TO and the roles whose statements it is for (PUBLIC: all \
                        who are in no other)";
            return Err(invalid(text));
        }
        Ok(Security::CreatePool { name, change, if_not_exists })
    }

    pub(super) fn alter_pool(&mut self) -> Result<Security> {
        Ok(Security::AlterPool { name: self.name()?, change: self.pool_change()? })
    }

    pub(super) fn drop_pools(&mut self) -> Result<Security> {
        let mode = match self.take_all(&["if", "exists"]) {
            true => DropMode::IfExists,
            false => DropMode::Fail,
        };
        let names = self.list(Self::name)?;
        // Nothing depends on a pool.
        self.cascade();
        Ok(Security::DropPools { names, mode })
    }

    fn pool_change(&mut self) -> Result<PoolChange> {
        let mut change = PoolChange::default();
        if self.take("with") {
            self.token(&Token::LParen)?;
            for (option, value) in self.list(Self::pool_option)? {
                change.set(&option, value.as_deref())?;
            }
            self.token(&Token::RParen)?;
        }
        if self.take("to") {
            change.roles = Some(self.list(Self::grantee)?);
        }
        Ok(change)
    }

    fn pool_option(&mut self) -> Result<(String, Option<String>)> {
        let option = self.name()?;
        self.token(&Token::Eq)?;
        match self.take("default") {
            true => Ok((option, None)),
            false => Ok((option, Some(self.setting_value()?.to_lowercase()))),
        }
    }
}

impl Session {
    pub(super) async fn create_pool(
        &mut self,
        name: &str,
        change: &PoolChange,
        if_not_exists: bool,
    ) -> Result<Vec<Notice>> {
        let roles = self.pool_roles(change, "create").await?;
        let mut record = PoolRecord::default();
        change.apply(roles, &mut record);
        match self.catalog().create_pool(name, record).await {
            Err(catalog::Error::AlreadyExists { .. }) if if_not_exists => {
                let text = format!("pool \"{name}\" already exists, skipping");
                Ok(vec![warning("42710", text)])
            }
            created => Ok(created.map(|()| Vec::new())?),
        }
    }

    pub(super) async fn alter_pool(
        &mut self,
        name: &str,
        change: &PoolChange,
    ) -> Result<Vec<Notice>> {
        let roles = self.pool_roles(change, "alter").await?;
        self.catalog().alter_pool(name, |record| change.apply(roles, record)).await?;
        Ok(Vec::new())
    }

    pub(super) async fn drop_pools(
        &mut self,
        names: &[String],
        mode: DropMode,
    ) -> Result<Vec<Notice>> {
        self.may_change_pools("drop").await?;
        let mut notices = Vec::new();
        for name in names {
            match self.catalog().drop_pool(name).await {
                Err(catalog::Error::NotFound { .. }) if mode == DropMode::IfExists => {
                    notices.push(missing(ObjectKind::Pool, name));
                }
                dropped => dropped?,
            }
        }
        Ok(notices)
    }

    async fn pool_roles(&self, change: &PoolChange, what: &str) -> Result<Option<Vec<String>>> {
        self.may_change_pools(what).await?;
        match &change.roles {
            Some(roles) => self.grantees(roles).await.map(Some),
            None => Ok(None),
        }
    }

    async fn may_change_pools(&self, what: &str) -> Result<()> {
        self.require(|_, access| match access.is_superuser() {
            true => Ok(()),
            false => Err(forbidden(format!("must be superuser to {what} pools"))),
        })
        .await
    }
}
