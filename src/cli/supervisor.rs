//! Tells systemd how the daemon does (sd_notify). Without systemd (no `NOTIFY_SOCKET`) all of this
//! does nothing.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

use crate::cluster::State;
use crate::config::Config;
use crate::server::{Addresses, Look, Reloaded, Vitals};

/// What systemd waits beyond our own deadlines before it takes the daemon for stuck.
const MARGIN: Duration = Duration::from_secs(15);

/// How often the daemon is looked at for its status.
const GLANCE: Duration = Duration::from_secs(1);

/// Starting may take as long as the ensemble is waited for.
pub fn starting(config: &Config) {
    let status = match &config.zookeeper {
        Some(ensemble) => format!("Joining: looking for ZooKeeper at {ensemble}"),
        None => "Starting".to_owned(),
    };
    notify(&[NotifyState::Status(&status), extend(config.coordination.start_timeout)]);
}

/// Speaks for a daemon that serves.
pub struct Supervised {
    vitals: Vitals,
    told: Mutex<Told>,
}

struct Told {
    /// The state that was told last, and when it was seen first.
    state: State,
    since: DateTime<Utc>,
    status: String,
    /// What the last reload has left to be said.
    note: String,
}

impl Supervised {
    pub fn new(vitals: Vitals) -> Self {
        let (status, note) = Default::default();
        let told = Told { state: State::Joining, since: Utc::now(), status, note };
        Self { vitals, told: Mutex::new(told) }
    }

    pub fn ready(&self) {
        let status = self.status();
        notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
    }

    /// Files are read again, from now until [`Self::reloaded`].
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => notify(&[NotifyState::Reloading, now]),
            Err(error) => warn!(%error, "cannot notify systemd"),
        }
    }

    pub fn reloaded(&self, reloaded: &Reloaded) {
        self.told().note = note(reloaded);
        self.ready();
    }

    /// Running statements may take their time to finish.
    pub fn stopping(&self) {
        let status = "Draining: running statements finish";
        let extended = extend(self.vitals.drain_timeout());
        notify(&[NotifyState::Stopping, NotifyState::Status(status), extended]);
    }

    /// Tells of changes for as long as it is polled.
    pub async fn follow(&self) {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return std::future::pending().await;
        }
        let mut glances = interval(GLANCE);
        glances.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            glances.tick().await;
            let before = self.told().status.clone();
            let status = self.status();
            if status != before {
                notify(&[NotifyState::Status(&status)]);
            }
        }
    }

    /// Reports a sign of life for as long as it is polled, if systemd wants one: only while the threads
    /// that serve clients, those that execute statements and what speaks with the coordination store all
    /// take up work. If one of them is stuck, the log says so, and systemd restarts the daemon.
    pub async fn watchdog(&self) {
        let Some(limit) = sd_notify::watchdog_enabled() else {
            return std::future::pending().await;
        };
        // Three chances before the limit, for a busy machine.
        let chance = (limit / 3).max(Duration::from_millis(1));
        let mut ticks = interval(chance);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let stuck = self.vitals.stuck(chance).await;
            if stuck.is_empty() {
                notify(&[NotifyState::Watchdog]);
            } else {
                warn!(?stuck, "threads have taken up no work for {chance:?}: no sign of life");
            }
        }
    }

    /// The status as it is now.
    fn status(&self) -> String {
        let look = self.vitals.look();
        let mut told = self.told();
        if told.state != look.state {
            (told.state, told.since) = (look.state, Utc::now());
        }
        let alone = self.vitals.alone();
        let status = text(&look, alone, told.since, &self.vitals.addresses()) + &told.note;
        told.status.clone_from(&status);
        status
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One line about a daemon.
fn text(look: &Look, alone: bool, since: DateTime<Utc>, addresses: &Addresses) -> String {
    let Addresses { postgres, peer, web } = addresses;
    let since = since.format("%Y-%m-%dT%H:%M:%SZ");
    match look.state {
        State::Joining => "Joining".to_owned(),
        State::Ready => {
            let with = match (alone, look.daemons) {
                (true, _) => "alone".to_owned(),
                (false, 1) => "1 daemon in the cluster".to_owned(),
                (false, daemons) => format!("{daemons} daemons in the cluster"),
            };
            format!("Ready, {with}: PostgreSQL on {postgres}, peers on {peer}, web on {web}")
        }
        State::Degraded => {
            let trouble = look.trouble.as_deref().unwrap_or("out of touch with ZooKeeper");
            format!("Degraded since {since}: {trouble}; clients are served on {postgres}")
        }
        State::Draining => format!(
            "Draining since {since}: {} and {} left",
            count(look.clients, "connection"),
            count(look.running, "statement")
        ),
    }
}

fn count(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    }
}

fn note(Reloaded { failed, waiting }: &Reloaded) -> String {
    let mut note = String::new();
    if let Some(first) = failed.first() {
        // A status is one line.
        let first = first.replace('\n', " ");
        note += &format!("; the last reload failed, what was in force stays: {first}");
    }
    if !waiting.is_empty() {
        note += &format!("; changed, for the next start: {}", waiting.join(", "));
    }
    note
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_what_matters() {
        let address = |port| std::net::SocketAddr::from(([127, 0, 0, 1], port));
        let addresses = Addresses { postgres: address(1), peer: address(2), web: address(3) };
        let since = DateTime::UNIX_EPOCH;
        let trouble = || Some("out of touch: nothing can be changed".to_owned());
        let look =
            |state, daemons| Look { state, trouble: trouble(), daemons, clients: 1, running: 2 };
        let text = |state, daemons, alone| text(&look(state, daemons), alone, since, &addresses);
        let ports = "PostgreSQL on 127.0.0.1:1, peers on 127.0.0.1:2, web on 127.0.0.1:3";
        assert_eq!(text(State::Ready, 1, true), format!("Ready, alone: {ports}"));
        let three = format!("Ready, 3 daemons in the cluster: {ports}");
        assert_eq!(text(State::Ready, 3, false), three);
        assert_eq!(
            text(State::Degraded, 3, false),
            "Degraded since 1970-01-01T00:00:00Z: out of touch: nothing can be changed; clients are served on \
             127.0.0.1:1"
        );
        let draining = "Draining since 1970-01-01T00:00:00Z: 1 connection and 2 statements left";
        assert_eq!(text(State::Draining, 3, false), draining);
    }

    #[test]
    fn a_reload_leaves_a_note() {
        assert_eq!(note(&Reloaded::default()), "");
        let reloaded = Reloaded {
            failed: vec!["one\nbad line".to_owned(), "another".to_owned()],
            waiting: vec!["web".to_owned(), "id".to_owned()],
        };
        let said = note(&reloaded);
        assert!(said.contains("failed") && said.contains("one bad line"), "{said}");
        assert!(said.ends_with("next start: web, id"), "{said}");
    }
}
