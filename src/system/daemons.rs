//! `system.daemons`: who is there.

use arrow::array::RecordBatch;
use datafusion::error::Result;

use super::View;
use super::relations::Relation;
use super::rows::Rows;
use super::zk::READERS;

pub fn rows(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let mut rows = Rows::new(
        relation,
        &[
            "id",
            "state",
            "postgres",
            "peer",
            "web",
            "incarnation",
            "version",
            "build",
            "cores",
            "memory",
            "since",
            "local",
            "leader",
            "error",
        ],
    );
    // As in `system.coordination`.
    let full = view.watches_as(READERS);
    for daemon in view.shared.cluster.daemons() {
        rows.push([
            daemon.id.into(),
            daemon.state.into(),
            daemon.postgres.into(),
            daemon.peer.into(),
            daemon.web.into(),
            daemon.incarnation.into(),
            daemon.version.into(),
            daemon.build.into(),
            daemon.cores.into(),
            i64::try_from(daemon.memory).unwrap_or(i64::MAX).into(),
            daemon.since.into(),
            daemon.local.into(),
            daemon.leader.into(),
            daemon.error.map(|trouble| if full { trouble.full } else { trouble.outline }).into(),
        ]);
    }
    rows.finish()
}
