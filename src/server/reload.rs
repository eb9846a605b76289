//! Reads again, while the daemon runs, what is in files: settings, certificates, the audit trail.

use std::fmt::Display;
use std::sync::Arc;

use tracing::{error, info, warn};

use super::live;
use crate::audit::Audit;
use crate::config::{self, Config, InForce, TakenUp};
use crate::query::Queries;
use crate::query::submitted::Submissions;
use crate::tls::{Acceptor, Peering};

/// Takes up what has changed in files.
#[derive(Clone, Debug)]
pub struct Reloader {
    pub(super) in_force: Arc<InForce>,
    pub(super) queries: Arc<Queries>,
    pub(super) submissions: Arc<Submissions>,
    pub(super) tls: Option<Arc<Acceptor>>,
    pub(super) peering: Arc<Peering>,
    pub(super) audit: Audit,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// What could not be taken up, and why; it is as it was before.
    pub failed: Vec<String>,
    /// Settings that have changed in the files and count from the next start on.
    pub waiting: Vec<String>,
}

impl Reloader {
    /// Takes up what has changed: the settings that this may be done with (host rules, the log's filter,
    /// and all that live settings can change), certificates with their keys, and the audit trail's file.
    /// What cannot be taken up stays as it was, and is logged. Blocks for as long as reading takes.
    pub fn reload(&self, read: Result<Config, impl Display>) -> Reloaded {
        self.audit.reopen();
        let mut reloaded = Reloaded::default();
        let mut note = |done: Result<(), String>| {
            if let Err(reason) = done {
                error!(error = reason, "it stays as it was");
                reloaded.failed.push(reason);
            }
        };
        let read = read.map_err(|error| error.to_string());
        let newer = read.and_then(|newer| self.take_up(&newer).map_err(|error| error.to_string()));
        let mut waiting = Vec::new();
        note(newer.map(|found| waiting = found));
        let certificates = self.tls.as_ref().map_or(Ok(()), |tls| tls.reload());
        note(certificates.map_err(|error| error.to_string()));
        note(self.peering.reload().map_err(|error| error.to_string()));
        reloaded.waiting = waiting;
        reloaded
    }

    /// Returns what has to wait for the next start.
    fn take_up(&self, newer: &Config) -> Result<Vec<String>, config::Error> {
        let TakenUp { config, changed, waiting } = self.in_force.get().take_up(newer)?;
        if !changed.is_empty() {
            info!(settings = ?changed, "taken up from the files");
        }
        if !waiting.is_empty() {
            warn!(settings = ?waiting, "changed in the files; they count from the next start on");
        }
        live::apply(&config, &self.queries, &self.submissions, &self.queries.live.current());
        self.in_force.replace(config);
        Ok(waiting)
    }
}
