//! `system.query_history`: the statements that have ended, on all daemons, and their profiles.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use arrow::array::RecordBatch;
use datafusion::common::exec_datafusion_err;
use datafusion::error::Result;

use super::relations::Relation;
use super::rows::{Rows, Value};
use super::{HistoryRow, ProfileRow, Shared, View, everywhere};

const COLUMNS: &[&str] = &[
    "id",
    "state",
    "daemon",
    "pid",
    "user",
    "user_oid",
    "database",
    "pool",
    "client",
    "application_name",
    "sql",
    "tag",
    "started",
    "ended",
    "duration_ms",
    "queued_ms",
    "planning_ms",
    "execution_ms",
    "rows",
    "bytes_scanned",
    "rows_scanned",
    "bytes_spilled",
    "peak_memory",
    "retries",
    "workers",
    "silent_workers",
    "profile",
    "sqlstate",
    "error",
    "settings",
];

/// What a statement's state is whose daemon has died: others tell of it, each for itself.
const LOST: &str = "lost";

/// The statements that this daemon knows of.
pub async fn own(shared: &Shared, relation: &'static Relation) -> Rows {
    let mut rows = Rows::new(relation, COLUMNS);
    for statement in shared.cluster.history().await {
        push(&mut rows, statement);
    }
    rows
}

/// The statements of roles that the session's role may look at, each once.
pub async fn rows(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let mut rows = everywhere::everywhere(view, relation).await?;
    let kept = visible(view, &rows);
    rows.retain(&kept);
    rows.finish()
}

/// Which rows are shown. A statement that several daemons know of is shown as the one tells it that
/// does not only know that it was lost.
fn visible(view: &View<'_>, rows: &Rows) -> Vec<bool> {
    let (ids, states) = (rows.column("id"), rows.column("state"));
    let is_lost = |state: &Value| state.as_text() == Some(LOST);
    let mut seen: HashSet<&str> = (ids.iter().zip(states))
        .filter(|(_, state)| !is_lost(state))
        .filter_map(|(id, _)| id.as_text())
        .collect();
    let mut roles: HashMap<(&str, Option<u32>), bool> = HashMap::new();
    let users = rows.column("user").iter().zip(rows.column("user_oid"));
    (ids.iter().zip(states).zip(users))
        .map(|((id, state), (user, owner))| {
            let (id, user) = (id.as_text().unwrap_or_default(), user.as_text().unwrap_or_default());
            let role = (user, owner.as_oid());
            let may = *roles.entry(role).or_insert_with(|| view.may_look_at(role.0, role.1));
            may && (!is_lost(state) || seen.insert(id))
        })
        .collect()
}

/// How daemons ask each other for the profile of a statement, whose id follows.
pub const PROFILE: &str = "profile ";

/// The profile of a statement, from whichever daemon keeps it.
pub async fn profile(shared: &Shared, id: &str) -> Option<ProfileRow> {
    if let Some(found) = shared.cluster.profile(id).await {
        return Some(found);
    }
    let answers = shared.ask(&format!("{PROFILE}{id}")).await;
    answers.into_iter().find_map(|(_, answer)| serde_json::from_slice(&answer.ok()?).ok())
}

/// What another daemon is told that asks for a profile.
pub async fn answer(shared: &Shared, id: &str) -> Result<Vec<u8>> {
    let found = shared.cluster.profile(id).await;
    let found = found.ok_or_else(|| exec_datafusion_err!("no profile of {id} is kept here"))?;
    serde_json::to_vec(&found).map_err(|error| exec_datafusion_err!("a profile: {error}"))
}

fn push(rows: &mut Rows, statement: HistoryRow) {
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX).into();
    let names = |names: Vec<String>| Value::List(names.into_iter().map(Value::from).collect());
    // To the microsecond: a division of whole numbers has no tail of digits.
    let millis = |took: Option<Duration>| took.map(|took| took.as_micros() as f64 / 1000.0).into();
    // As PostgreSQL keeps them in `pg_db_role_setting`.
    let settings = statement.settings.into_iter().map(|(name, value)| format!("{name}={value}"));
    rows.push([
        statement.id.into(),
        statement.state.into(),
        statement.daemon.into(),
        statement.pid.into(),
        statement.user.into(),
        statement.owner.into(),
        statement.database.into(),
        statement.pool.into(),
        statement.client.into(),
        statement.application_name.into(),
        statement.sql.into(),
        statement.tag.into(),
        statement.started.into(),
        statement.ended.into(),
        millis(statement.duration),
        millis(statement.queued),
        millis(statement.planning),
        millis(statement.execution),
        number(statement.rows),
        number(statement.scanned),
        number(statement.rows_scanned),
        number(statement.spilled),
        number(statement.peak),
        i64::from(statement.retries).into(),
        names(statement.workers),
        names(statement.silent),
        statement.profile.into(),
        statement.sqlstate.into(),
        statement.error.into(),
        names(settings.collect()),
    ]);
}
