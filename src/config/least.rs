//! The least that sizes and times may be: with less a daemon would start and not work.

use std::time::Duration;

use bytesize::ByteSize;

use super::{Config, Share};

/// Bytes for statements: an ORDER BY on two cores keeps 20 MiB for merging what it may have to spill.
pub const MEMORY: u64 = 64 << 20;

/// Bytes of a message: the text of a statement is one.
const MESSAGE: u64 = 64 << 10;

/// Looks at settings by themselves; an error says what they must be.
pub(super) fn check(config: &Config) -> Result<(), String> {
    let millis = Duration::from_millis;
    let times = [
        // A daemon looks for its own record every 50 ms at most, and must see it in nine tenths of this.
        (config.coordination.session_timeout, millis(1000)),
        (config.coordination.request_timeout, millis(100)),
        (config.query.register_interval, millis(1)),
        (config.connections.login_timeout, millis(100)),
        (config.console.idle, millis(1000)),
        // Nobody could fetch what is forgotten as soon as it is there.
        (config.submitted.keep, millis(1000)),
    ];
    if let Some((_, least)) = times.into_iter().find(|(time, least)| time < least) {
        return Err(format!("must be at least {}", humantime::format_duration(least)));
    }
    let memory = match config.engine.memory_limit {
        Share::Bytes(bytes) => bytes,
        // Of a machine that has hardly any it is this much all the same.
        Share::Percent(_) => MEMORY,
    };
    let sizes = [(memory, MEMORY), (config.connections.message_limit.0, MESSAGE)];
    if let Some((_, least)) = sizes.into_iter().find(|(size, least)| size < least) {
        return Err(format!("must be at least {}", ByteSize(least).display().iec()));
    }
    Ok(())
}
