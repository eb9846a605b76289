//! The inbox: what was left there with any client of the coordination store becomes a query.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{StreamExt, stream};
use serde::Deserialize;
use tracing::{debug, info, warn};

use super::{
    Describe, Error, Found, Record, Result, Submissions, check, check_settings, encoded, exists,
    fits, outrun, plain_settings,
};
use crate::catalog::{Catalog, DEFAULT_DATABASE, FIRST_ROLE};
use crate::coordination::paths::{self, Path};
use crate::coordination::{self, Mode, Op};
use crate::engine::settings::Settings;
use crate::query::options;

/// Znodes below letters that are removed at a time: the letters behind have their turn before the rest
/// goes.
const SWEPT: usize = 500;

/// Of these, under way at once.
const CONCURRENT_DELETES: usize = 16;

/// What may stand in the inbox in place of bare SQL.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Letter {
    /// Never left out.
    #[serde(default)]
    sql: Option<String>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    database: Option<String>,
    #[serde(default, deserialize_with = "options::settings")]
    settings: BTreeMap<String, String>,
}

impl Submissions {
    /// Makes queries of what lies in the inbox, as far as the queue has room, of those letters that are
    /// `own` to this daemon by now. As many more may lie there as the queue takes; what lies behind them
    /// is refused.
    pub(super) async fn empty_inbox(
        &self,
        catalog: &Catalog,
        describe: Describe,
        mut own: impl FnMut(&str) -> bool,
    ) -> Result<()> {
        let mut letters = self.coordination.children(&Path::Inbox.to_string()).await?;
        if letters.is_empty() {
            return Ok(());
        }
        letters.sort();
        let (room, queue) = (self.room().await?, self.limits().queue);
        let mut sweeps = SWEPT;
        for (at, name) in letters.iter().enumerate() {
            let place = match at.checked_sub(room) {
                None => Place::Queue,
                Some(beyond) if beyond < queue => continue,
                Some(_) => Place::Nowhere,
            };
            if !own(name) {
                continue;
            }
            match self.open_letter(catalog, describe, name, place, &mut sweeps).await {
                Ok(()) => {}
                Err(Error::Store(error)) if error.is_unavailable() => return Err(error.into()),
                Err(error) => debug!(name, %error, "a letter stays in the inbox"),
            }
        }
        Ok(())
    }

    async fn open_letter(
        &self,
        catalog: &Catalog,
        describe: Describe,
        name: &str,
        place: Place,
        sweeps: &mut usize,
    ) -> Result<()> {
        let store = self.coordination.as_ref();
        let path = format!("{}/{name}", Path::Inbox);
        let Some(node) = store.get(&path).await? else { return Ok(()) };
        let id = paths::decode(name).unwrap_or_else(|| name.to_owned());
        let refuse = |record: &mut Record, error: Error| {
            if !record.state.is_final() {
                *record = record.failed(describe(error.into()));
            }
        };
        let (mut record, wrong) = read_letter(&node.data);
        if let Some(error) = wrong {
            refuse(&mut record, error);
        }
        let role = catalog.role_of(&record.user, None).await?;
        record.owner = role.as_ref().map(|role| role.record.oid);
        // A role that is not there is found out when it runs: it may be there by then.
        let session = role.map_or_else(Settings::default, |role| plain_settings(&role));
        if let Err(error) = check_settings(&record.settings, &session) {
            refuse(&mut record, error);
        }
        if let Err(error) = fits(&id, &record) {
            record.settings.clear();
            refuse(&mut record, error);
        }
        if matches!(place, Place::Nowhere) {
            refuse(&mut record, Error::Full(self.limits().queue));
        }
        if node.stat.num_children > 0 && !self.empty_node(&path, sweeps).await? {
            return Ok(());
        }
        let remove = Op::Delete { path, version: Some(node.stat.version) };
        let mut ops = vec![remove.clone()];
        let mode = Mode::Persistent;
        let query = Path::Query(&id).to_string();
        ops.push(Op::Create { path: query, data: encoded(&id, &record)?, mode });
        if !record.state.is_final() {
            let path = Path::Queued(record.since(), &id).to_string();
            ops.push(Op::Create { path, data: Bytes::new(), mode });
        }
        match store.transact(ops).await {
            Ok(_) => info!(id, "a query from the inbox"),
            // Another daemon was quicker.
            Err(error) if outrun(&error) => {}
            Err(error) if exists(&error) => {
                let record = record.failed(describe(Error::Twin(id.clone()).into()));
                self.refuse_twin(&id, record, remove).await?;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Tells the sender of a letter that another query has its name: in a record of its own, which a
    /// later letter of that name may replace.
    async fn refuse_twin(&self, id: &str, record: Record, remove: Op) -> Result<()> {
        let refused = format!("{REFUSED}{id}");
        let (path, data) = (Path::Query(&refused).to_string(), encoded(&refused, &record)?);
        let told = match self.find(&refused).await? {
            None => Some(Op::Create { path, data, mode: Mode::Persistent }),
            Some(Found { record, version, .. })
                if record.error.as_ref().is_some_and(|error| error.sqlstate == TWIN) =>
            {
                Some(Op::Set { path, data, version: Some(version) })
            }
            // Somebody has called a query so.
            Some(_) => None,
        };
        warn!(id, told_in = refused, "what lies in the inbox has the name of another query");
        match self.coordination.transact(std::iter::once(remove).chain(told).collect()).await {
            Ok(_) => Ok(()),
            Err(error) if outrun(&error) || exists(&error) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes what lies below a letter, since nobody reads it: so many znodes at most. Whether that was
    /// all of it.
    async fn empty_node(&self, letter: &str, sweeps: &mut usize) -> Result<bool> {
        let store = self.coordination.as_ref();
        let before = *sweeps;
        // Each is below the one before it, or beside it.
        let mut parents = vec![letter.to_owned()];
        while let Some(parent) = parents.last() {
            let children = match store.children(parent).await {
                // Another daemon was quicker.
                Err(coordination::Error::NoNode { .. }) => Vec::new(),
                children => children?,
            };
            if children.is_empty() {
                parents.pop();
                continue;
            }
            if *sweeps == 0 {
                break;
            }
            let paths: Vec<_> =
                children.iter().take(*sweeps).map(|name| format!("{parent}/{name}")).collect();
            let deletes = paths.into_iter().map(|path| async {
                let deleted = store.delete(&path, None).await;
                (path, deleted)
            });
            let done: Vec<_> =
                stream::iter(deletes).buffer_unordered(CONCURRENT_DELETES).collect().await;
            for (path, deleted) in done {
                match deleted {
                    Ok(()) | Err(coordination::Error::NoNode { .. }) => *sweeps -= 1,
                    Err(coordination::Error::NotEmpty { .. }) => parents.push(path),
                    Err(error) => return Err(error.into()),
                }
            }
        }
        info!(letter, znodes = before - *sweeps, "what lies below a letter is removed");
        Ok(parents.is_empty())
    }
}

/// What stands before the id of a query in that of a letter which was refused since it has its name.
const REFUSED: &str = "refused-";

/// The SQLSTATE of such a letter.
const TWIN: &str = "42710";

/// What becomes of a letter.
enum Place {
    Queue,
    /// It is refused, and its record says so.
    Nowhere,
}

/// The query that a letter asks for, and what is wrong with it.
fn read_letter(data: &[u8]) -> (Record, Option<Error>) {
    let text = String::from_utf8_lossy(data);
    let text = text.trim();
    let letter = match text.starts_with('{') {
        true => options::read::<Letter>(text).map_err(Error::Options),
        false => Ok(Letter { sql: Some(text.to_owned()), ..Letter::default() }),
    };
    let (Letter { sql, user, database, settings }, wrong) = match letter {
        Ok(letter) if letter.sql.is_none() => {
            (letter, Some(Error::Options("there is no \"sql\"".to_owned())))
        }
        Ok(letter) => (letter, None),
        Err(error) => (Letter::default(), Some(error)),
    };
    let sql = sql.as_deref().unwrap_or(text);
    let user = user.unwrap_or_else(|| FIRST_ROLE.to_owned());
    let database = database.unwrap_or_else(|| DEFAULT_DATABASE.to_owned());
    let record = Record::new((&user, None), &database, sql, settings);
    let wrong = wrong.or_else(|| check(sql).err());
    (record, wrong)
}
