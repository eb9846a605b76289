//! `system.settings`, the daemon's configuration and what is set for all sessions, one row a key;
//! `system.settings_applied`, which daemon runs which version of that; `system.settings_history`, how
//! it came to be. They tell of paths and addresses, so they are not for everybody.

use arrow::array::RecordBatch;
use datafusion::error::Result;

use super::View;
use super::relations::Relation;
use super::rows::{Rows, Value};

pub async fn rows(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    view.require("pg_read_all_settings", relation)?;
    match relation.name {
        "settings_applied" => applied(view, relation).await,
        "settings_history" => history(view, relation),
        _ => settings(view, relation),
    }
}

fn settings(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let mut rows =
        Rows::new(relation, &["key", "value", "default", "origin", "live", "version", "error"]);
    let (version, settings) = view.shared.cluster.settings();
    for setting in settings {
        rows.push([
            setting.key.into(),
            setting.value.into(),
            setting.default.into(),
            setting.origin.into(),
            setting.live.into(),
            number(version),
            setting.error.into(),
        ]);
    }
    rows.finish()
}

async fn applied(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let mut rows = Rows::new(relation, &["daemon", "version", "current", "applied", "error"]);
    for row in view.shared.cluster.settings_applied().await? {
        rows.push([
            row.daemon.into(),
            row.version.map_or(Value::Null, number),
            row.current.into(),
            row.applied.map_or(Value::Null, Into::into),
            row.error.into(),
        ]);
    }
    rows.finish()
}

fn history(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let mut rows = Rows::new(relation, &["version", "changed", "by", "name", "before", "value"]);
    for row in view.shared.cluster.settings_history() {
        rows.push([
            number(row.version),
            row.changed.into(),
            row.by.into(),
            row.name.into(),
            row.before.into(),
            row.value.into(),
        ]);
    }
    rows.finish()
}

fn number(number: u64) -> Value {
    i64::try_from(number).unwrap_or(i64::MAX).into()
}
