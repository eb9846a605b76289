//! `system.pools`: how much the statements of some roles may do at once, and what each daemon
//! makes of its share of that. Figures count from when the daemon has known the pool.

use super::Shared;
use super::relations::Relation;
use super::rows::{Rows, Value};

const COLUMNS: &[&str] = &[
    "name",
    "roles",
    "concurrency",
    "queue",
    "queue_timeout",
    "memory",
    "daemon",
    "share",
    "queue_share",
    "running",
    "queued",
    "admitted",
    "waited",
    "refused",
    "timed_out",
    "cancelled",
];

pub fn own(shared: &Shared, relation: &'static Relation) -> Rows {
    let number = |number: u64| Value::from(i64::try_from(number).unwrap_or(i64::MAX));
    let limit = |limit: Option<u64>| limit.map_or(Value::Null, number);
    let mut rows = Rows::new(relation, COLUMNS);
    for pool in shared.cluster.pools() {
        rows.push([
            pool.name.into(),
            Value::List(pool.roles.into_iter().map(Value::from).collect()),
            limit(pool.concurrency),
            number(pool.queue),
            pool.queue_timeout.map(|limit| humantime::format_duration(limit).to_string()).into(),
            limit(pool.memory),
            pool.daemon.into(),
            limit(pool.share),
            number(pool.queue_share),
            number(pool.running),
            number(pool.queued),
            number(pool.admitted),
            number(pool.waited),
            number(pool.refused),
            number(pool.timed_out),
            number(pool.cancelled),
        ]);
    }
    rows
}
