//! `system.settings`: the daemon's configuration, one row a key. It tells of paths and addresses, so
//! it is not for everybody.

use arrow::array::RecordBatch;
use datafusion::error::{DataFusionError, Result};

use super::View;
use super::relations::Relation;
use super::rows::Rows;
use crate::catalog::{Error, ObjectKind};

pub fn rows(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let access = view.access();
    if !access.has_role("pg_read_all_settings") && !access.has_role("pg_monitor") {
        let denied = Error::Denied { kind: ObjectKind::Table, name: relation.name.to_owned() };
        return Err(DataFusionError::External(Box::new(denied)));
    }
    let mut rows = Rows::new(relation, &["key", "value", "default", "origin"]);
    for setting in &view.shared.settings {
        let texts = [&setting.key, &setting.value, &setting.default, &setting.origin];
        rows.push(texts.map(Into::into));
    }
    rows.finish()
}
