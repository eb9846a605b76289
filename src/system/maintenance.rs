//! `system.maintenance`: what was done lately to keep managed tables in good order, by all daemons. It
//! tells of tables of all databases, so it is not for everybody.

use arrow::array::RecordBatch;
use datafusion::error::Result;

use super::View;
use super::relations::Relation;
use super::rows::Rows;

const COLUMNS: &[&str] = &[
    "daemon",
    "object",
    "kind",
    "started",
    "seconds",
    "files_read",
    "files_written",
    "snapshots_expired",
    "files_removed",
    "bytes_removed",
    "error",
];

pub async fn rows(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    view.require("pg_read_all_stats", relation)?;
    let mut rows = Rows::new(relation, COLUMNS);
    for work in view.shared.cluster.maintenance().await? {
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX).into();
        rows.push([
            work.daemon.into(),
            work.object.into(),
            work.kind.into(),
            work.started.into(),
            work.seconds.into(),
            number(work.files_read),
            number(work.files_written),
            number(work.snapshots_expired),
            number(work.files_removed),
            number(work.bytes_removed),
            work.error.into(),
        ]);
    }
    rows.finish()
}
