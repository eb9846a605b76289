//! `system.queries`: the statements under way, on all daemons.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use arrow::array::RecordBatch;
use datafusion::common::exec_datafusion_err;
use datafusion::error::{DataFusionError, Result};

use super::relations::Relation;
use super::rows::{Rows, Value};
use super::{LookRow, QueryRow, Shared, View};
use crate::query::history::is_final;
use crate::query::submitted::KIND;

/// The cluster is to answer much sooner; this only makes sure that nothing hangs.
const PATIENCE: Duration = Duration::from_secs(5);

/// In place of a text that the session's role may not see, as in PostgreSQL.
pub const HIDDEN: &str = "<insufficient privilege>";

const COLUMNS: &[&str] = &[
    "id",
    "kind",
    "state",
    "daemon",
    "pid",
    "attempt",
    "user",
    "database",
    "pool",
    "sql",
    "progress",
    "submitted",
    "started",
    "error",
    "phase",
    "rows",
    "bytes_scanned",
    "workers",
    "sqlstate",
];

pub async fn rows(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let queries = view.shared.cluster.queries(true);
    let (queries, complete) = tokio::time::timeout(PATIENCE, queries).await.map_err(|_| {
        DataFusionError::Execution("the running statements could not be listed in time".to_owned())
    })?;
    if !complete {
        let warning = "the coordination store did not answer in time: statements of other daemons \
                       and submitted queries may be missing";
        view.shared.backends.warn(view.session.pid, warning.to_owned());
    }
    let mut rows = Rows::new(relation, COLUMNS);
    for mut query in with_looks(view.shared, queries).await {
        if !view.may_look_at(&query.user, query.owner) {
            HIDDEN.clone_into(&mut query.sql);
            if query.kind == KIND {
                // Whoever submitted it may have chosen that.
                HIDDEN.clone_into(&mut query.id);
            }
            // It may quote what was queried.
            query.error = query.error.map(|_| HIDDEN.to_owned());
        }
        if let Some(role) = view.snapshot.role_of(&query.user, query.owner) {
            query.user.clone_from(&role.name);
        }
        push(&mut rows, query);
    }
    rows.finish()
}

/// How daemons ask each other how their statements go.
pub const LOOKS: &str = "looks";

/// What another daemon is told that asks how the statements of this one go.
pub fn answer(shared: &Shared) -> Result<Vec<u8>> {
    let looks = shared.cluster.looks();
    serde_json::to_vec(&looks).map_err(|error| exec_datafusion_err!("running statements: {error}"))
}

/// Adds how statements go, which the daemon knows that runs them and nobody writes to the store. Others
/// are asked only if they run some; those that do not answer at once leave it open.
async fn with_looks(shared: &Shared, mut queries: Vec<QueryRow>) -> Vec<QueryRow> {
    let own = shared.own_id();
    let under_way = queries.iter().filter(|query| !is_final(&query.state));
    let busy: BTreeSet<&String> = under_way.map(|query| &query.daemon).collect();
    let others: Vec<String> =
        busy.into_iter().filter(|daemon| !daemon.is_empty() && **daemon != own).cloned().collect();
    let mut told = vec![(own, shared.cluster.looks())];
    if !others.is_empty() {
        let answers = shared.ask_soon(LOOKS, &others).await;
        let read = |answer: &[u8]| serde_json::from_slice::<Vec<LookRow>>(answer).ok();
        told.extend(answers.iter().filter_map(|(id, answer)| Some((id.clone(), read(answer)?))));
    }
    let mut looks: HashMap<(String, String, Option<i32>), LookRow> = HashMap::new();
    for (daemon, of_daemon) in told {
        let of_daemon = of_daemon.into_iter();
        looks.extend(of_daemon.map(|look| ((daemon.clone(), look.id.clone(), look.attempt), look)));
    }
    for query in queries.iter_mut().filter(|query| !is_final(&query.state)) {
        let key = (query.daemon.clone(), query.id.clone(), query.attempt);
        let Some(look) = looks.remove(&key) else { continue };
        query.phase = Some(look.phase);
        query.progress = look.progress.map(shown).or(query.progress);
        (query.rows, query.scanned) = (Some(look.rows), Some(look.scanned));
        query.workers = look.workers;
    }
    queries
}

/// How far something is, in no more digits than mean something. All of it only at its end.
fn shown(progress: f64) -> f64 {
    (progress * 1000.0).floor() / 1000.0
}

fn push(rows: &mut Rows, query: QueryRow) {
    rows.push([
        query.id.into(),
        query.kind.into(),
        query.state.into(),
        query.daemon.into(),
        query.pid.into(),
        query.attempt.into(),
        query.user.into(),
        query.database.into(),
        query.pool.into(),
        query.sql.into(),
        query.progress.into(),
        query.submitted.into(),
        query.started.into(),
        query.error.into(),
        query.phase.into(),
        query.rows.into(),
        query.scanned.into(),
        Value::List(query.workers.into_iter().map(Value::from).collect()),
        query.sqlstate.into(),
    ]);
}
