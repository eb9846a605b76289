//! `system.caches` and `system.metrics`: what each daemon keeps in memory, and how busy it is.

use std::time::SystemTime;

use datafusion::execution::memory_pool::MemoryLimit;

use super::Shared;
use super::relations::Relation;
use super::rows::{Rows, Value};

fn number(number: u64) -> Value {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

/// What is kept of files, so that they need not be read again.
pub fn caches(shared: &Shared, relation: &'static Relation) -> Rows {
    let mut rows =
        Rows::new(relation, &["daemon", "name", "entries", "bytes", "bytes_limit", "hits"]);
    let Some(joined) = shared.joined.get() else { return rows };
    for cache in joined.kept.figures(&joined.environment) {
        rows.push([
            shared.own_id().into(),
            cache.name.into(),
            number(cache.entries),
            number(cache.bytes),
            number(cache.limit),
            cache.hits.map_or(Value::Null, number),
        ]);
    }
    rows
}

/// How busy the daemon is; names are those of what is counted, with the unit at their end.
pub fn metrics(shared: &Shared, relation: &'static Relation) -> Rows {
    let mut found: Vec<(&str, f64)> = Vec::new();
    let up = SystemTime::now().duration_since(shared.started).unwrap_or_default();
    found.push(("uptime_seconds", up.as_secs_f64()));
    if let Some(joined) = shared.joined.get() {
        let pool = &joined.environment.memory_pool;
        found.push(("memory_reserved_bytes", pool.reserved() as f64));
        if let MemoryLimit::Finite(limit) = pool.memory_limit() {
            found.push(("memory_limit_bytes", limit as f64));
        }
        let spilled = joined.environment.disk_manager.used_disk_space();
        found.push(("spilled_bytes", spilled as f64));
    }
    let sessions = shared.backends.sessions();
    let active = sessions.iter().filter(|session| session.state == Some("active")).count();
    found.push(("sessions", sessions.len() as f64));
    found.push(("sessions_active", active as f64));
    let total = |of: fn(&super::PoolRow) -> u64| -> f64 {
        shared.cluster.pools().iter().map(of).sum::<u64>() as f64
    };
    found.push(("pools_running", total(|pool| pool.running)));
    found.push(("pools_queued", total(|pool| pool.queued)));
    found.push(("pools_admitted_total", total(|pool| pool.admitted)));
    found.push(("pools_refused_total", total(|pool| pool.refused)));
    found.push(("pools_timed_out_total", total(|pool| pool.timed_out)));
    if let Some(session) = shared.cluster.own_session() {
        let figures = session.figures();
        found.push(("coordination_reads_total", figures.reads as f64));
        found.push(("coordination_writes_total", figures.writes as f64));
        found.push(("coordination_failed_total", figures.failed as f64));
        found.push(("coordination_reads_per_second", figures.reads_per_second));
        found.push(("coordination_writes_per_second", figures.writes_per_second));
        let latency = figures.p99.map_or(0.0, |latency| latency.as_secs_f64());
        found.push(("coordination_p99_latency_seconds", latency));
    }
    let mut rows = Rows::new(relation, &["daemon", "name", "value"]);
    for (name, value) in found {
        rows.push([shared.own_id().into(), name.into(), value.into()]);
    }
    rows
}
