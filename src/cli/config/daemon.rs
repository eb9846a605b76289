//! The same by way of a daemon, with SQL: `ALTER SYSTEM` and `system.settings*`.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::error::SqlState;

use super::{Action, Change, Daemon, Form, Setting, say, show, to_json};
use crate::cli::error::{Error, Result};
use crate::cli::link::Link;
use crate::cli::link::client::Client;
use crate::cli::sql::describe::literal;
use crate::cli::{runtime, tour};
use crate::query::live::check_name;

const APPLICATION: &str = "oribi config";

/// How long a statement takes that waits for nothing.
const AT_ONCE: Duration = Duration::from_secs(10);

/// Where the daemon says that a live setting comes from.
const ORIGIN: &str = "/settings/";

pub fn run(link: Link, action: Action) -> Result<()> {
    runtime()?.block_on(async {
        let mut client = link.open(APPLICATION).await?;
        act(&mut client, action).await
    })
}

async fn act(client: &mut Client, action: Action) -> Result<()> {
    match action {
        Action::Get { name, form } => get(client, name.as_deref(), form).await,
        Action::Set { new: true, .. } => {
            let reason = "--new is for a cluster without daemons: leave it out, or --host";
            Err(Error::Usage(reason.to_owned()))
        }
        Action::Set { name, value, new: false, form } => {
            let sql = format!("ALTER SYSTEM SET {} = {}", checked(&name)?, literal(&value));
            change(client, &sql, form).await.map_err(of_setting)
        }
        Action::Reset { name: Some(name), form, .. } => {
            let sql = format!("ALTER SYSTEM RESET {}", checked(&name)?);
            change(client, &sql, form).await.map_err(of_setting)
        }
        Action::Reset { name: None, form, .. } => {
            change(client, "ALTER SYSTEM RESET ALL", form).await
        }
        Action::Rollback { version, form } => {
            change(client, &format!("ALTER SYSTEM ROLLBACK TO VERSION {version}"), form).await
        }
        Action::History(form) => history(client, form).await,
        Action::Applied(form) => applied(client, form).await,
    }
}

/// A name that can stand in a statement as it is.
fn checked(name: &str) -> Result<&str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    match !name.is_empty() && name.chars().all(plain) {
        true => Ok(name),
        false => Err(Error::Setting(format!("there is no setting \"{name}\""))),
    }
}

/// A name or a value that the daemon does not take is wrong use, as it is where the store is asked.
fn of_setting(error: Error) -> Error {
    let Error::Statement(said) = &error else { return error };
    match said.code().map(SqlState::code) {
        // A bad value, an unknown name (also one of a reserved kind), and what only a restart changes.
        Some("22023" | "42704" | "42602" | "55P02") => Error::Setting(error.to_string()),
        _ => error,
    }
}

async fn rows(client: &mut Client, sql: &str) -> Result<Vec<Row>> {
    client.link().await?.query(sql, &[]).await.map_err(Error::Statement)
}

async fn change(client: &mut Client, sql: &str, form: Form) -> Result<()> {
    client.link().await?.batch_execute(sql).await.map_err(Error::Statement)?;
    // On the same connection, whose daemon has just made it.
    let newest = "SELECT coalesce(max(version), 0)::text FROM system.settings_history";
    let version = client.ask(newest, &[], AT_ONCE).await?.unwrap_or_default();
    match form.json {
        true => say(&format!("{{\"version\":{version}}}")),
        false => say(&format!("version {version}")),
    }
}

/// What is set for all daemons, by name; of what is refused, why.
async fn set(client: &mut Client) -> Result<Vec<Setting>> {
    let sql = format!(
        "SELECT key, value, origin, error FROM system.settings \
         WHERE starts_with(origin, {}) OR error IS NOT NULL",
        literal(ORIGIN)
    );
    let mut found = BTreeMap::new();
    for row in rows(client, &sql).await? {
        let text = |at: usize| row.try_get::<_, Option<String>>(at).map_err(Error::Statement);
        let (key, value) = (text(0)?.unwrap_or_default(), text(1)?.unwrap_or_default());
        let name = key.to_lowercase();
        // Each daemon has a row, and they may differ in what they refuse.
        let refused = text(3)?;
        let known = found.entry(name.clone()).or_insert(Setting { name, value, refused: None });
        known.refused = known.refused.take().or(refused);
    }
    Ok(found.into_values().collect())
}

async fn get(client: &mut Client, name: Option<&str>, form: Form) -> Result<()> {
    let all = set(client).await?;
    let Some(name) = name else { return show(&all, form) };
    let lower = name.to_lowercase();
    match all.into_iter().find(|setting| setting.name == lower) {
        Some(Setting { refused: Some(reason), .. }) => {
            Err(Error::NotInForce(format!("{lower}: {reason}")))
        }
        Some(setting) if form.json => say(&to_json(&setting)?),
        Some(setting) => say(&setting.value),
        None => {
            check_name(name).map_err(|error| Error::Setting(error.to_string()))?;
            Err(Error::NotInForce(format!(
                "\"{lower}\" is not set: each daemon's configuration, or the default, holds"
            )))
        }
    }
}

async fn history(client: &mut Client, form: Form) -> Result<()> {
    let sql = "SELECT version, extract(epoch FROM changed)::float8, \"by\", name, before, value \
               FROM system.settings_history ORDER BY version, name";
    let read = |row: &Row| {
        Ok(Change {
            version: row.try_get::<_, i64>(0)?.unsigned_abs(),
            at: tour::moment(row.try_get(1)?),
            by: row.try_get(2)?,
            name: row.try_get(3)?,
            before: row.try_get(4)?,
            value: row.try_get(5)?,
        })
    };
    let changes = rows(client, sql).await?;
    let changes = changes.iter().map(read).collect::<Result<Vec<_>, _>>();
    show(&changes.map_err(Error::Statement)?, form)
}

async fn applied(client: &mut Client, form: Form) -> Result<()> {
    let sql = "SELECT daemon, version, current, error FROM system.settings_applied ORDER BY daemon";
    let read = |row: &Row| {
        let refused: Option<String> = row.try_get(3)?;
        // One text: a daemon joins "name: reason" with semicolons.
        let refused = refused.map(|text| match text.split_once(": ") {
            Some((name, why)) => (name.to_owned(), why.to_owned()),
            None => (String::new(), text),
        });
        Ok(Daemon {
            daemon: row.try_get(0)?,
            version: row.try_get::<_, Option<i64>>(1)?.unwrap_or_default().unsigned_abs(),
            current: row.try_get(2)?,
            refused: refused.into_iter().collect(),
        })
    };
    let daemons = rows(client, sql).await?;
    let daemons = daemons.iter().map(read).collect::<Result<Vec<_>, _>>();
    show(&daemons.map_err(Error::Statement)?, form)
}
