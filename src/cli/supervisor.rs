//! Tells systemd how the daemon does (sd_notify). Without systemd (no `NOTIFY_SOCKET`) all of this
//! does nothing.

use std::time::Duration;

use sd_notify::NotifyState;
use tracing::warn;

use crate::server::Addresses;

/// What systemd waits beyond our own deadlines before it takes the daemon for stuck.
const MARGIN: Duration = Duration::from_secs(15);

/// Starting may take this long.
pub fn starting(deadline: Duration) {
    notify(&[NotifyState::Status("Starting"), extend(deadline)]);
}

pub fn ready(addresses: &Addresses) {
    let Addresses { postgres, peer, web } = addresses;
    let status = format!("Ready: PostgreSQL on {postgres}, peers on {peer}, web on {web}");
    notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// Files are read again, from now until [`reloaded`].
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => warn!(%error, "cannot notify systemd"),
    }
}

pub fn reloaded(all: bool) {
    let status = match all {
        true => "Ready",
        false => "Ready; not all files could be read again, see the log",
    };
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Running statements may take this long to finish.
pub fn stopping(deadline: Duration) {
    let status = "Draining: running statements finish";
    notify(&[NotifyState::Stopping, NotifyState::Status(status), extend(deadline)]);
}

/// Reports a sign of life for as long as it is polled, if systemd wants one. The sign is that the
/// runtime's threads take up a task: if all of them are stuck, systemd restarts the daemon.
pub async fn watchdog() {
    let Some(limit) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    // Three chances before the limit, for a busy machine.
    let mut ticks = tokio::time::interval((limit / 3).max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if tokio::spawn(async {}).await.is_ok() {
            notify(&[NotifyState::Watchdog]);
        }
    }
}

fn extend(deadline: Duration) -> NotifyState<'static> {
    let micros = deadline.saturating_add(MARGIN).as_micros();
    NotifyState::ExtendTimeoutUsec(u32::try_from(micros).unwrap_or(u32::MAX))
}

fn notify(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "cannot notify systemd");
    }
}
