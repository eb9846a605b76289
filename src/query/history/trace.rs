//! A statement as the first span of its trace.

use serde_json::Value;

use super::Record;
use crate::telemetry;
use crate::traces::Span;

/// What a collector of traces is told of a statement; `None` if it has not ended. Names are those of
/// OpenTelemetry's conventions for databases, as far as they have one.
pub(super) fn span(record: &Record, text: &str) -> Option<Span> {
    let (started, ended) = (record.started?, record.ended?);
    let seconds = |micros: Option<u64>| Value::from(micros.unwrap_or_default() as f64 / 1e6);
    let mut attributes: Vec<(&'static str, Value)> = vec![
        ("db.system.name", "oribi".into()),
        ("db.namespace", record.database.as_str().into()),
        ("db.query.text", text.into()),
        ("db.response.returned_rows", record.rows.into()),
        ("oribi.daemon", record.daemon.as_str().into()),
        ("oribi.user", record.user.as_str().into()),
        ("oribi.state", record.state.as_str().into()),
        ("oribi.queue_seconds", seconds(record.queued)),
        ("oribi.plan_seconds", seconds(record.planning)),
        ("oribi.execute_seconds", seconds(record.execution)),
        ("oribi.scanned_bytes", record.scanned.into()),
        ("oribi.scanned_rows", record.rows_scanned.into()),
        ("oribi.spilled_bytes", record.spilled.into()),
        ("oribi.peak_memory_bytes", record.peak.into()),
        ("oribi.retries", record.retries.into()),
    ];
    for (key, value) in [
        ("db.response.status_code", &record.sqlstate),
        ("client.address", &record.client),
        ("oribi.pool", &record.pool),
    ] {
        attributes.extend(value.as_deref().map(|value| (key, value.into())));
    }
    if !record.workers.is_empty() {
        attributes.push(("oribi.workers", record.workers.clone().into()));
    }
    let error = record.error.as_ref().map(telemetry::discreet);
    let name = name_of(record.tag.as_deref());
    Some(Span { statement: record.id, own: true, name, started, ended, attributes, error })
}

/// A command tag without the rows that it counts.
fn name_of(tag: Option<&str>) -> String {
    let is_count = |word: &&str| word.bytes().all(|byte| byte.is_ascii_digit());
    let words = tag.unwrap_or("statement").split(' ').filter(|word| !is_count(word));
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_named_by_what_is_done() {
        for (tag, name) in [
            (Some("SELECT 17"), "SELECT"),
            (Some("INSERT 0 3"), "INSERT"),
            (Some("CREATE TABLE"), "CREATE TABLE"),
            (None, "statement"),
        ] {
            assert_eq!(name_of(tag), name);
        }
    }
}
