//! `system.settings`: the daemon's configuration, one row a key. It tells of paths and addresses, so
//! it is not for everybody.

use arrow::array::RecordBatch;
use datafusion::error::Result;

use super::View;
use super::relations::Relation;
use super::rows::Rows;

pub fn rows(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    view.require("pg_read_all_settings", relation)?;
    let mut rows = Rows::new(relation, &["key", "value", "default", "origin"]);
    for setting in &view.shared.settings {
        let texts = [&setting.key, &setting.value, &setting.default, &setting.origin];
        rows.push(texts.map(Into::into));
    }
    rows.finish()
}
