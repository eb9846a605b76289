//! `system.settings`, the daemons' configuration and what is set for all sessions, one row a key and
//! daemon; `system.settings_applied`, which daemon runs which version of that; `system.settings_history`,
//! how it came to be. They tell of paths and addresses, so they are not for everybody.

use arrow::array::RecordBatch;
use datafusion::error::Result;

use super::relations::Relation;
use super::rows::{Rows, Value};
use super::{Shared, View};

pub async fn rows(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    view.require("pg_read_all_settings", relation)?;
    match relation.name {
        "settings_applied" => applied(view, relation).await,
        _ => history(view, relation),
    }
}

/// This daemon's.
pub fn own(shared: &Shared, relation: &'static Relation) -> Rows {
    let daemon = shared.own_id();
    let columns = ["key", "value", "default", "origin", "live", "version", "error", "daemon"];
    let mut rows = Rows::new(relation, &columns);
    let (version, settings) = shared.cluster.settings();
    for setting in settings {
        rows.push([
            setting.key.into(),
            setting.value.into(),
            setting.default.into(),
            setting.origin.into(),
            setting.live.into(),
            number(version),
            setting.error.into(),
            daemon.as_str().into(),
        ]);
    }
    rows
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
