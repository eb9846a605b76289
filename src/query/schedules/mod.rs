//! Queries that the cluster submits by itself, again and again, at times that a cron pattern gives.
//!
//! A schedule is a node `/schedules/<name>`, its [`Record`]. The daemon that leads ([`clock`]) submits
//! its query at each of its times, with the rights of the role that owns it. A role that owns some is
//! not dropped: making one writes the role's node as well, see [`crate::catalog::Catalog::drop_roles`].
//!
//! # Why each time is submitted once
//! A run is one transaction: the check that this daemon leads, the schedule with that time as its
//! last, expected at the version that was read, and the query under an id made of the schedule's name
//! and the time. Two daemons that both take themselves for the leader cannot both succeed.
//!
//! - [`record`]: what stands in the store, and which times are due.
//! - [`clock`]: submits what is due.

mod clock;
mod record;

use std::str::FromStr;
use std::sync::Arc;

use chrono::{DateTime, Utc};

pub use clock::run;
use record::Pattern;
pub use record::{Last, Missed, Options, Overlap, Record};

use super::options;
use super::submitted::{self, Submissions};
use crate::catalog::{self, Catalog, Role};
use crate::coordination::paths::{self, Path};
use crate::coordination::{self, Mode, Op};

/// Schedules that there may be.
const MAX_SCHEDULES: i32 = 1000;

/// Bytes of a schedule's name. Its znode's name has up to three times as many, and the time.
const MAX_NAME: usize = 100;

/// How often a write is tried that another was quicker than.
const TRIES: u32 = 5;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] coordination::Error),
    #[error(transparent)]
    Query(#[from] submitted::Error),
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    #[error("there is no schedule \"{0}\"")]
    Unknown(String),
    #[error("permission denied for schedule \"{0}\"")]
    Denied(String),
    #[error("there are {MAX_SCHEDULES} schedules already: remove one with oribi.unschedule")]
    Full,
    #[error("a schedule's name has 1 to {MAX_NAME} bytes, and no control characters")]
    Name,
    #[error(
        "\"{cron}\" is no cron pattern such as '30 2 * * mon-fri' (minute, hour, day of month, month, \
         day of week) or '@hourly': {reason}"
    )]
    Cron { cron: String, reason: String },
    #[error("\"{0}\" never comes")]
    Never(String),
    #[error("\"{0}\" is no time zone such as 'Europe/Paris'")]
    TimeZone(String),
    #[error("options: {0}")]
    Options(String),
    #[error("schedule \"{0}\" is being changed by others all the time")]
    Busy(String),
    #[error("the record of schedule \"{name}\" cannot be read or written: {source}")]
    Record { name: String, source: serde_json::Error },
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl FromStr for Options {
    type Err = Error;

    fn from_str(json: &str) -> Result<Self> {
        options::read(json).map_err(Error::Options)
    }
}

/// A schedule as it was read.
#[derive(Clone, Debug)]
struct Found {
    record: Record,
    /// Of its node.
    version: i32,
}

/// The schedules of the cluster.
#[derive(Clone, Debug)]
pub struct Schedules {
    submissions: Arc<Submissions>,
    catalog: Arc<Catalog>,
}

/// What somebody wants to be submitted, and when.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    pub name: &'a str,
    pub cron: &'a str,
    pub sql: &'a str,
    pub user: &'a str,
    /// The OID of that role.
    pub owner: Option<u32>,
    /// That of the session, unless the options name another.
    pub database: &'a str,
}

impl Schedules {
    pub fn new(submissions: Arc<Submissions>, catalog: Arc<Catalog>) -> Self {
        Self { submissions, catalog }
    }

    /// Makes a schedule, or changes the one of that name if `may` says so: the owner stays who it is.
    /// Returns when it comes next; `None` of one that is switched off.
    pub async fn schedule(
        &self,
        wish: Wish<'_>,
        options: Options,
        may: impl Fn(&Record) -> bool,
    ) -> Result<Option<DateTime<Utc>>> {
        let fits = (1..=MAX_NAME).contains(&wish.name.len());
        if !fits || wish.name.contains(char::is_control) {
            return Err(Error::Name);
        }
        submitted::check(wish.sql)?;
        let now = Utc::now();
        let new = Record::new(wish, options, now);
        if Pattern::of(&new)?.next(now).is_none() {
            return Err(Error::Never(new.cron));
        }
        let store = self.submissions.store();
        let path = Path::Schedule(wish.name).to_string();
        for _ in 0..TRIES {
            let written = match self.find(wish.name).await? {
                Some(found) if !may(&found.record) => {
                    return Err(Error::Denied(wish.name.to_owned()));
                }
                Some(Found { record, version }) => {
                    let changed = encoded(wish.name, &new.clone().in_place_of(record))?;
                    store.set(&path, changed, Some(version)).await.map(drop)
                }
                None => {
                    self.has_room().await?;
                    let (path, data) = (path.clone(), encoded(wish.name, &new)?);
                    let mut ops = vec![Op::Create { path, data, mode: Mode::Persistent }];
                    ops.extend(self.catalog.touch_role(wish.user).await?);
                    self.catalog.transact(ops).await?.map(drop)
                }
            };
            match written {
                Ok(()) => return Ok(new.next(now)),
                // Looked at again: it may be this very write that others would see.
                Err(error)
                    if submitted::outrun(&error)
                        || submitted::exists(&error)
                        || error.may_have_landed() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Busy(wish.name.to_owned()))
    }

    /// Removes a schedule, if `may` says so. What it has submitted goes on.
    pub async fn unschedule(&self, name: &str, may: impl Fn(&Record) -> bool) -> Result<()> {
        let mut perhaps_done = false;
        for _ in 0..TRIES {
            let found = match self.find(name).await? {
                Some(found) => found,
                None if perhaps_done => return Ok(()),
                None => return Err(Error::Unknown(name.to_owned())),
            };
            if !may(&found.record) {
                return Err(Error::Denied(name.to_owned()));
            }
            let path = Path::Schedule(name).to_string();
            match self.submissions.store().delete(&path, Some(found.version)).await {
                Ok(()) => return Ok(()),
                Err(error) if submitted::outrun(&error) => {}
                // Looked at again: this very removal may be what others would see.
                Err(error) if error.may_have_landed() => perhaps_done = true,
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Busy(name.to_owned()))
    }

    /// Gives the schedules of some roles to another.
    pub async fn reassign(&self, from: &[Arc<Role>], to: &Role) -> Result<()> {
        for (name, record) in self.all().await? {
            if from.iter().any(|role| record.is_of(role)) {
                self.give(&name, from, to).await?;
            }
        }
        Ok(())
    }

    async fn give(&self, name: &str, from: &[Arc<Role>], to: &Role) -> Result<()> {
        for _ in 0..TRIES {
            let Some(Found { record, version }) = self.find(name).await? else { return Ok(()) };
            if !from.iter().any(|role| record.is_of(role)) {
                return Ok(());
            }
            let (user, owner) = (to.name.clone(), Some(to.record.oid));
            let data = encoded(name, &Record { user, owner, ..record })?;
            let path = Path::Schedule(name).to_string();
            let mut ops = vec![Op::Set { path, data, version: Some(version) }];
            ops.extend(self.catalog.touch_role(&to.name).await?);
            match self.catalog.transact(ops).await? {
                Ok(_) => return Ok(()),
                Err(error) if submitted::outrun(&error) || error.may_have_landed() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Busy(name.to_owned()))
    }

    /// All schedules by name, those that cannot be read left out.
    pub async fn all(&self) -> Result<Vec<(String, Record)>> {
        let mut all = Vec::new();
        for name in self.names().await? {
            match self.find(&name).await {
                Ok(Some(found)) => all.push((name, found.record)),
                Ok(None) | Err(Error::Record { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// The role that a schedule belongs to; `None` if it is gone.
    async fn owner(&self, record: &Record) -> Result<Option<Arc<Role>>> {
        Ok(self.catalog.role_of(&record.user, record.owner).await?)
    }

    /// How the last query of a schedule is; `None` if there was none, or its record is gone.
    pub async fn last_state(&self, record: &Record) -> Result<Option<submitted::State>> {
        let Some(last) = &record.last else { return Ok(None) };
        let found = self.submissions.find(&last.query).await?;
        Ok(found.map(|found| found.record.state))
    }

    async fn names(&self) -> Result<Vec<String>> {
        let nodes = self.submissions.store().children(&Path::Schedules.to_string()).await?;
        Ok(nodes.iter().filter_map(|node| paths::decode(node)).collect())
    }

    async fn find(&self, name: &str) -> Result<Option<Found>> {
        if name.is_empty() {
            return Ok(None);
        }
        let path = Path::Schedule(name).to_string();
        let Some(node) = self.submissions.store().get(&path).await? else { return Ok(None) };
        let record = serde_json::from_slice(&node.data)
            .map_err(|source| Error::Record { name: name.to_owned(), source })?;
        Ok(Some(Found { record, version: node.stat.version }))
    }

    async fn has_room(&self) -> Result<()> {
        let parent = self.submissions.store().get(&Path::Schedules.to_string()).await?;
        match parent.is_none_or(|node| node.stat.num_children < MAX_SCHEDULES) {
            true => Ok(()),
            false => Err(Error::Full),
        }
    }
}

fn encoded(name: &str, record: &Record) -> Result<bytes::Bytes> {
    let data = serde_json::to_vec(record)
        .map_err(|source| Error::Record { name: name.to_owned(), source })?;
    Ok(data.into())
}
