//! `system.queries`: the statements under way, on all daemons.

use std::time::Duration;

use arrow::array::RecordBatch;
use datafusion::error::{DataFusionError, Result};

use super::relations::Relation;
use super::rows::{Rows, Value};
use super::{QueryRow, View};
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
    for mut query in queries {
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
        query.phase.map(str::to_owned).into(),
        query.rows.into(),
        query.scanned.into(),
        Value::List(query.workers.into_iter().map(Value::from).collect()),
    ]);
}
