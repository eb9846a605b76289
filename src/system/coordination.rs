//! `system.coordination`: the daemons' sessions with the coordination store, and what goes through
//! them; `system.coordination_nodes`: what they keep there.

use arrow::array::RecordBatch;
use datafusion::error::Result;

use super::relations::Relation;
use super::rows::{Rows, Value};
use super::{Shared, View, zk};
use crate::coordination::counted::Counted;
use crate::coordination::{Coordination, SessionState};

const COLUMNS: &[&str] = &[
    "daemon",
    "purpose",
    "backend",
    "session_id",
    "server",
    "state",
    "epoch",
    "session_timeout",
    "reads",
    "writes",
    "failed",
    "reads_per_second",
    "writes_per_second",
    "last_latency",
    "p50_latency",
    "p99_latency",
    "error",
];

/// This daemon's sessions: the one it lives by, and the one for `zk.nodes` and the like, if it was
/// needed yet.
pub fn own(shared: &Shared, relation: &'static Relation) -> Rows {
    let whole = shared.cluster.store();
    let sessions = [("daemon", shared.cluster.own_session()), ("sql", whole.opened())];
    let mut rows = Rows::new(relation, COLUMNS);
    for (purpose, client) in sessions {
        if let Some(client) = client {
            rows.push_vec(row(shared.own_id(), purpose, whole.backend(), client));
        }
    }
    rows
}

fn row(daemon: String, purpose: &str, backend: &str, client: &Counted) -> Vec<Value> {
    let session = *client.session().borrow();
    let figures = client.figures();
    let state = match session.state {
        SessionState::Connected => "connected",
        SessionState::Disconnected => "disconnected",
        SessionState::Closed => "closed",
    };
    let count = |count: u64| Value::Int(i64::try_from(count).unwrap_or(i64::MAX));
    let millis =
        |time: Option<std::time::Duration>| time.map(|time| time.as_secs_f64() * 1e3).into();
    vec![
        daemon.into(),
        purpose.into(),
        backend.into(),
        // As ZooKeeper writes it in its log.
        format!("0x{:x}", session.id).into(),
        client.server().into(),
        state.into(),
        count(session.epoch),
        humantime::format_duration(session.timeout).to_string().into(),
        count(figures.reads),
        count(figures.writes),
        count(figures.failed),
        figures.reads_per_second.into(),
        figures.writes_per_second.into(),
        millis(figures.last_latency),
        millis(figures.p50),
        millis(figures.p99),
        client.trouble().map(|trouble| trouble.to_string()).into(),
    ]
}

pub async fn nodes(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let columns = ["kind", "znodes", "bytes", "largest", "ephemerals"];
    let mut rows = Rows::new(relation, &columns);
    for count in zk::kinds(view, relation).await? {
        rows.push([
            count.kind.into(),
            count.nodes.into(),
            count.bytes.into(),
            count.largest.into(),
            count.ephemerals.into(),
        ]);
    }
    rows.finish()
}
