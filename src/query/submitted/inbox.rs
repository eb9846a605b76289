//! The inbox: what was left there with any client of the coordination store becomes a query.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use tracing::{debug, info, warn};

use super::{Error, Failure, Record, Result, Submissions, check, encoded, exists, fits, outrun};
use crate::catalog::{DEFAULT_DATABASE, FIRST_ROLE};
use crate::coordination::paths::{self, Path};
use crate::coordination::{Mode, Op};

/// What may stand in the inbox in place of bare SQL.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Letter {
    sql: String,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    database: Option<String>,
    #[serde(default)]
    settings: BTreeMap<String, String>,
}

impl Submissions {
    /// Makes queries of what lies in the inbox, as far as the queue has room, of those letters that are
    /// `own` to this daemon by now. As many more may lie there as the queue takes; what lies behind them
    /// is refused.
    pub(super) async fn empty_inbox(&self, mut own: impl FnMut(&str) -> bool) -> Result<()> {
        let mut letters = self.coordination.children(&Path::Inbox.to_string()).await?;
        if letters.is_empty() {
            return Ok(());
        }
        letters.sort();
        let room = self.room().await?;
        for (at, name) in letters.iter().enumerate() {
            let place = match at.checked_sub(room) {
                None => Place::Queue,
                Some(beyond) if beyond < self.limits.queue => continue,
                Some(_) => Place::Nowhere,
            };
            if !own(name) {
                continue;
            }
            match self.open_letter(name, place).await {
                Ok(()) => {}
                Err(Error::Store(error)) if error.is_unavailable() => return Err(error.into()),
                Err(error) => debug!(name, %error, "a letter stays in the inbox"),
            }
        }
        Ok(())
    }

    async fn open_letter(&self, name: &str, place: Place) -> Result<()> {
        let store = self.coordination.as_ref();
        let path = format!("{}/{name}", Path::Inbox);
        let Some(node) = store.get(&path).await? else { return Ok(()) };
        let id = paths::decode(name).unwrap_or_else(|| name.to_owned());
        let mut record = read_letter(&node.data);
        if let Err(error) = fits(&id, &record) {
            record.settings.clear();
            record = record.failed(refusal("54000", &error));
        }
        if matches!(place, Place::Nowhere) && !record.state.is_final() {
            record = record.failed(refusal("53400", &Error::Full(self.limits.queue)));
        }
        let mut ops = vec![Op::Delete { path: path.clone(), version: Some(node.stat.version) }];
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
                warn!(id, "what lies in the inbox has the name of another query, and is removed");
                store.delete(&path, None).await?;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// What becomes of a letter.
enum Place {
    Queue,
    /// It is refused, and its record says so.
    Nowhere,
}

fn read_letter(data: &[u8]) -> Record {
    let text = String::from_utf8_lossy(data);
    let text = text.trim();
    let letter = match text.starts_with('{') {
        true => serde_json::from_str(text).map_err(|error| Error::Options(error.to_string())),
        false => Ok(Letter { sql: text.to_owned(), ..Letter::default() }),
    };
    let (letter, wrong) = match letter {
        Ok(letter) => (letter, None),
        Err(error) => (Letter { sql: text.to_owned(), ..Letter::default() }, Some(error)),
    };
    let Letter { sql, user, database, settings } = letter;
    let user = user.unwrap_or_else(|| FIRST_ROLE.to_owned());
    let database = database.unwrap_or_else(|| DEFAULT_DATABASE.to_owned());
    let record = Record::new(&user, &database, &sql, settings);
    match wrong.or_else(|| check(&sql).err()) {
        None => record,
        Some(error @ Error::TooLong(_)) => record.failed(refusal("54000", &error)),
        Some(error @ Error::Options(_)) => record.failed(refusal("22023", &error)),
        Some(error) => record.failed(refusal("42601", &error)),
    }
}

fn refusal(sqlstate: &str, error: &Error) -> Failure {
    Failure { sqlstate: sqlstate.to_owned(), message: error.to_string(), hint: None }
}
