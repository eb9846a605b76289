//! A table's own time, which only goes forward (Iceberg's `last-updated-ms` and the times in its logs).
//!
//! Clocks of daemons differ. A snapshot is given a time behind all that is there. What changes columns or
//! history alone gets the time of the clock from the format's library, which refuses one that lies a minute
//! and more before the last: the table of a daemon whose clock was a day ahead could not be changed for a day.
//! So it works on a copy whose times are set back by as much, and the result is set forward again.

use iceberg::spec::TableMetadata;
use serde_json::{Result, Value};

/// By how many milliseconds a table's time is ahead of this daemon's.
pub(super) fn ahead(metadata: &TableMetadata) -> i64 {
    metadata.last_updated_ms().saturating_sub(chrono::Utc::now().timestamp_millis()).max(0)
}

/// The same with another time of its last change and of all before it, which no snapshot's own time is.
pub(super) fn moved(metadata: &TableMetadata, millis: i64) -> Result<TableMetadata> {
    let mut json = serde_json::to_value(metadata)?;
    let shift = |time: Option<&mut Value>| {
        if let Some(time) = time
            && let Some(was) = time.as_i64()
        {
            *time = was.saturating_add(millis).into();
        }
    };
    shift(json.get_mut("last-updated-ms"));
    for log in ["snapshot-log", "metadata-log"] {
        let entries = json.get_mut(log).and_then(Value::as_array_mut);
        for entry in entries.into_iter().flatten() {
            shift(entry.get_mut("timestamp-ms"));
        }
    }
    serde_json::from_value(json)
}
