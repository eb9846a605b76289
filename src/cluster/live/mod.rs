//! Settings that all daemons share and that change while they run.
//!
//! What somebody wants stands in `/settings/<name>`; what is in force, with a version, in `/settings`
//! itself. A statement or `oribi config` writes both in one transaction. A value that was written
//! into its node alone, with zkCli, is looked at by every daemon: a valid one the leader makes part
//! of the next version, another is refused, said in the log and in `system.settings`, and what was in
//! force stays. So all daemons run the same settings, told by one number, and a daemon that starts
//! runs what the others do whatever has been written meanwhile.
//!
//! A daemon that runs a version says so in `/settings-applied/<daemon>`: one write of each daemon for
//! each change. Nobody watches those nodes, so it costs the store nothing beside. In the daemons' own
//! records it would: all daemons read those whenever one of them changes.

mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::election::Election;
use crate::coordination::paths::{Path, decode};
use crate::coordination::{self, Coordination, Event, Mode, Op, Scope, SessionState};
use crate::id;
use record::value_of;
pub use record::{Change, Entry, Record, Values};

/// Pause before what could not be read or written is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// How often a change is tried again since somebody else has changed other settings meanwhile.
const MAX_ATTEMPTS: usize = 10;

/// Bytes of a value.
const MAX_VALUE: usize = 1024;

/// Who writes with zkCli.
const ZOOKEEPER: &str = "zookeeper";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Coordination(#[from] coordination::Error),
    #[error("{path} is not valid, and ALTER SYSTEM RESET ALL writes it anew: {source}")]
    BadRecord { path: String, source: serde_json::Error },
    #[error("\"{name}\" was changed by somebody else at the same moment: it is {} now", now(.value))]
    Conflict { name: String, value: Option<String> },
    #[error("the settings were changed too often at the same moment")]
    Busy,
    #[error("version {version} of the settings is not known: there are {oldest} to {newest}")]
    NoVersion { version: u64, oldest: u64, newest: u64 },
    #[error("the value of \"{0}\" is longer than {MAX_VALUE} bytes")]
    TooLong(String),
}

fn now(value: &Option<String>) -> String {
    value.as_ref().map_or_else(|| "not set".to_owned(), |value| format!("'{value}'"))
}

/// Checks a setting's value and brings it into its normal form; an error says why it is refused.
pub type Check = fn(&str, &str) -> std::result::Result<String, String>;

/// The settings as one daemon knows them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Live {
    pub version: u64,
    /// In force, as far as this daemon knows these settings.
    pub settings: Arc<Values>,
    /// What somebody has written and is not in force, and why.
    pub refused: BTreeMap<String, Refused>,
    pub record: Record,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    pub value: String,
    pub reason: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' is not in force: {}", self.value, self.reason)
    }
}

/// The value of `/settings-applied/<daemon>`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    pub version: u64,
    pub at: DateTime<Utc>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<String, Refused>,
}

/// What is to become of the settings.
#[derive(Clone, Debug)]
pub enum Wish {
    /// `None`: not set.
    Set(BTreeMap<String, Option<String>>),
    ResetAll,
    /// As they were at a version.
    Rollback(u64),
}

/// Reads and changes the live settings.
pub struct LiveSettings {
    coordination: Arc<dyn Coordination>,
    check: Check,
    state: watch::Sender<Arc<Live>>,
    /// Held from reading to publishing, so that an older state never replaces a newer one.
    refreshing: Mutex<()>,
}

impl Debug for LiveSettings {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveSettings").field("state", &*self.state.borrow()).finish_non_exhaustive()
    }
}

/// All that stands in the store.
struct Stored {
    record: Record,
    /// Of the record's node.
    version: i32,
    /// Nodes by name, with what is written there.
    nodes: BTreeMap<String, (String, i32)>,
}

impl Stored {
    /// The settings by name in lower case. Two nodes of one setting: the one in lower case counts.
    fn wanted(&self) -> Values {
        let of =
            |(node, (value, _)): (&String, &(String, i32))| (node.to_lowercase(), value.clone());
        self.nodes.iter().map(of).collect()
    }
}

impl LiveSettings {
    /// Makes the nodes if they are not there, and reads what is.
    pub async fn open(
        coordination: Arc<dyn Coordination>,
        check: Check,
    ) -> Result<Arc<Self>, Error> {
        for path in [Path::Settings, Path::SettingsApplied] {
            coordination::ensure(coordination.as_ref(), &path.to_string()).await?;
        }
        let state = watch::Sender::new(Arc::default());
        let live = Self { coordination, check, state, refreshing: Mutex::new(()) };
        match live.refresh().await {
            // What somebody has spoilt is no reason not to start.
            Err(error @ Error::BadRecord { .. }) => warn!(%error, "no live setting is in force"),
            refreshed => refreshed.map(drop)?,
        }
        Ok(Arc::new(live))
    }

    /// What is in force.
    pub fn current(&self) -> Arc<Live> {
        self.state.borrow().clone()
    }

    /// What is in force, as it changes.
    pub fn watch(&self) -> watch::Receiver<Arc<Live>> {
        self.state.subscribe()
    }

    /// Carries out a wish whose values are in their normal form. Returns the version that was made,
    /// or that was there if nothing had to change.
    pub async fn change(&self, wish: &Wish, by: &str) -> Result<u64, Error> {
        let mut first: Option<Values> = None;
        for _ in 0..MAX_ATTEMPTS {
            self.coordination.sync().await?;
            let stored = match self.read().await {
                Err(Error::BadRecord { .. }) if matches!(wish, Wish::ResetAll) => {
                    return self.begin_anew().await;
                }
                stored => stored?,
            };
            let settings = stored.record.wish(wish)?;
            let before = first.get_or_insert_with(|| stored.record.settings.clone());
            if let Wish::Set(names) = wish {
                let value = |values: &Values, name| values.get(name).cloned();
                let now = &stored.record.settings;
                if let Some(name) = names.keys().find(|n| value(before, *n) != value(now, *n)) {
                    return Err(Error::Conflict { name: name.clone(), value: value(now, name) });
                }
            }
            let nonce = id::nonce();
            let record = stored.record.next(settings, by, nonce);
            let ops = self.steps(&stored, record.as_ref(), wish)?;
            if ops.is_empty() {
                return Ok(stored.record.version);
            }
            let version = record.map_or(stored.record.version, |record| record.version);
            let done = match self.coordination.transact(ops).await {
                Ok(_) => true,
                // Perhaps only the answer was lost.
                Err(error) if error.may_have_landed() => match self.landed(nonce).await {
                    Ok(true) => true,
                    // A store that does not answer now has not told either.
                    Ok(false) | Err(_) => return Err(error.into()),
                },
                Err(error) if outrun(&error) => {
                    debug!(%error, "somebody else has changed the settings meanwhile");
                    false
                }
                Err(error) => return Err(error.into()),
            };
            if done {
                self.refresh_after_change().await;
                return Ok(version);
            }
        }
        Err(Error::Busy)
    }

    /// Writes an empty record in the place of one that cannot be read; its version is beyond all that
    /// were. Returns it.
    async fn begin_anew(&self) -> Result<u64, Error> {
        let root = Path::Settings.to_string();
        let missing = || coordination::Error::NoNode { path: root.clone() };
        let node = self.coordination.get(&root).await?.ok_or_else(missing)?;
        let writes = u64::try_from(node.stat.version).unwrap_or_default();
        let record = Record { version: writes + 1, ..Record::default() };
        let bad = |source| Error::BadRecord { path: root.clone(), source };
        let data = serde_json::to_vec(&record).map_err(bad)?;
        let mut ops = vec![Op::Set {
            path: root.clone(),
            data: data.into(),
            version: Some(node.stat.version),
        }];
        for name in self.coordination.children(&root).await? {
            ops.push(Op::Delete { path: Path::Setting(&name).to_string(), version: None });
        }
        self.coordination.transact(ops).await?;
        self.refresh_after_change().await;
        Ok(record.version)
    }

    /// A change is made by then, whether the store can be reached again or not: this daemon hears of it in time.
    async fn refresh_after_change(&self) {
        if let Err(error) = self.refresh().await {
            warn!(%error, "the live settings were changed, and could not be read yet");
        }
    }

    async fn landed(&self, nonce: uuid::Uuid) -> Result<bool, Error> {
        self.coordination.sync().await?;
        let stored = self.read().await?;
        Ok(stored.record.history.iter().any(|entry| entry.nonce == nonce))
    }

    /// The steps that bring record and nodes in line with a new record; without one the nodes alone,
    /// as far as the wish is about them.
    fn steps(
        &self,
        stored: &Stored,
        record: Option<&Record>,
        wish: &Wish,
    ) -> Result<Vec<Op>, Error> {
        let settings = &record.unwrap_or(&stored.record).settings;
        let concerned = |name: &String| match wish {
            Wish::Set(names) => names.contains_key(name),
            Wish::ResetAll | Wish::Rollback(_) => true,
        };
        let mut ops = Vec::new();
        if let Some(record) = record {
            let path = Path::Settings.to_string();
            ops.push(Op::Set { data: json(&path, record)?, path, version: Some(stored.version) });
        }
        for (node, (value, version)) in &stored.nodes {
            let name = node.to_lowercase();
            let path = Path::Setting(node).to_string();
            match settings.get(&name) {
                _ if !concerned(&name) => {}
                Some(wanted) if *node == name && value == wanted => {}
                Some(wanted) if *node == name => {
                    let (data, version) = (wanted.clone().into(), Some(*version));
                    ops.push(Op::Set { path, data, version });
                }
                _ => ops.push(Op::Delete { path, version: Some(*version) }),
            }
        }
        for (name, value) in settings {
            if concerned(name) && !stored.nodes.contains_key(name) {
                if value.len() > MAX_VALUE {
                    return Err(Error::TooLong(name.clone()));
                }
                let (path, data) = (Path::Setting(name).to_string(), value.clone().into());
                ops.push(Op::Create { path, data, mode: Mode::Persistent });
            }
        }
        Ok(ops)
    }

    /// Which version each daemon runs, by its id.
    pub async fn applied(&self) -> Result<Vec<(String, Applied)>, Error> {
        let root = Path::SettingsApplied.to_string();
        let mut all = Vec::new();
        for node in self.coordination.children(&root).await? {
            let Some(daemon) = decode(&node) else { continue };
            let read = self.coordination.get(&Path::SettingsAppliedBy(&daemon).to_string()).await?;
            let applied = read.and_then(|node| serde_json::from_slice(&node.data).ok());
            all.extend(applied.map(|applied| (daemon, applied)));
        }
        Ok(all)
    }

    /// Follows the store's changes until `stop`, and has `apply` put them in force. Needed exactly
    /// once.
    pub async fn follow(
        self: Arc<Self>,
        daemon: String,
        election: Arc<Election>,
        apply: impl Fn(&Live) + Send + Sync,
        stop: CancellationToken,
    ) {
        let root = Path::Settings.to_string();
        let mut watch = self.coordination.watch(&root, Scope::Subtree);
        let mut leadership = election.state();
        let mut session = self.coordination.session();
        let mut own = self.state.subscribe();
        let mut said = None;
        let mut behind = false;
        loop {
            let read = tokio::select! {
                () = stop.cancelled() => return,
                event = watch.next() => match event {
                    Some(Event::Changed(_) | Event::Resync) => true,
                    None => return,
                },
                changed = own.changed() => match changed {
                    Ok(()) => false,
                    Err(_) => return,
                },
                _ = leadership.changed() => true,
                _ = session.changed() => behind,
                () = tokio::time::sleep(RETRY), if behind => true,
            };
            if session.borrow_and_update().state != SessionState::Connected {
                behind = true;
                continue;
            }
            leadership.borrow_and_update();
            let kept = self.keep_up(read, &daemon, &election, &apply, &mut said).await;
            behind = kept.is_err();
            if let Err(error) = kept {
                warn!(%error, "the live settings could not be brought up to date; trying again");
            }
        }
    }

    async fn keep_up(
        &self,
        read: bool,
        daemon: &str,
        election: &Election,
        apply: &(impl Fn(&Live) + Send + Sync),
        said: &mut Option<(u64, Applied)>,
    ) -> Result<(), Error> {
        if read {
            self.refresh().await?;
            self.take_up(election).await?;
        }
        let live = self.current();
        let epoch = self.coordination.session().borrow().epoch;
        let applied =
            Applied { version: live.version, at: Utc::now(), refused: live.refused.clone() };
        let same = said.as_ref().is_some_and(|(at, before)| {
            *at == epoch && (before.version, &before.refused) == (live.version, &live.refused)
        });
        if same {
            return Ok(());
        }
        apply(&live);
        let path = Path::SettingsAppliedBy(daemon).to_string();
        let data = json(&path, &applied)?;
        match self.coordination.set(&path, data.clone(), None).await {
            Err(coordination::Error::NoNode { .. }) => {
                self.coordination.create(&path, data, Mode::Ephemeral).await?;
            }
            // One of a session that has ended, or is about to.
            Ok(stat) if stat.ephemeral_owner != self.coordination.session().borrow().id => {
                self.coordination.delete(&path, None).await?;
                self.coordination.create(&path, data, Mode::Ephemeral).await?;
            }
            set => drop(set?),
        }
        *said = Some((epoch, applied));
        Ok(())
    }

    /// As the leader, makes what was written with zkCli and is valid the next version.
    async fn take_up(&self, election: &Election) -> Result<(), Error> {
        let Some(fence) = election.fence() else { return Ok(()) };
        let stored = self.read().await?;
        let (settings, _) = self.judge(&stored);
        let Some(record) = stored.record.next(settings, ZOOKEEPER, id::nonce()) else {
            return Ok(());
        };
        let path = Path::Settings.to_string();
        let set = Op::Set { data: json(&path, &record)?, path, version: Some(stored.version) };
        match self.coordination.transact(vec![fence, set]).await {
            Ok(_) => info!(version = record.version, "settings written with zkCli are in force"),
            // Somebody was quicker: that is a change by itself, which brings us here again.
            Err(error) if outrun(&error) => debug!(%error, "the settings have changed meanwhile"),
            Err(error) => return Err(error.into()),
        }
        self.refresh().await
    }

    /// Reads everything again.
    pub async fn refresh(&self) -> Result<(), Error> {
        let _guard = self.refreshing.lock().await;
        let stored = self.read().await?;
        let (wanted, bad) = self.judge(&stored);
        let mut refused = bad.clone();
        let record = stored.record;
        for (name, value) in &wanted {
            if record.settings.get(name) != Some(value) {
                let reason = "the leader has not taken it up yet".to_owned();
                refused.insert(name.clone(), Refused { value: value.clone(), reason });
            }
        }
        let mut settings = record.settings.clone();
        settings.retain(|name, value| match (self.check)(name, value) {
            Ok(_) => true,
            // Another build has taken it.
            Err(reason) => {
                refused.insert(name.clone(), Refused { value: value.clone(), reason });
                false
            }
        });
        let live = Live { version: record.version, settings: Arc::new(settings), refused, record };
        self.state.send_if_modified(|known| {
            let news = **known != live;
            if news {
                for (name, Refused { value, reason }) in &bad {
                    if known.refused.get(name).is_none_or(|known| known.value != *value) {
                        warn!(name, value, reason, "a live setting is not in force");
                    }
                }
                if known.version != live.version {
                    info!(version = live.version, "live settings");
                }
                *known = Arc::new(live);
            }
            news
        });
        Ok(())
    }

    /// What the nodes ask for, in place of what is refused what is in force; and what is refused.
    fn judge(&self, stored: &Stored) -> (Values, BTreeMap<String, Refused>) {
        let (mut settings, mut refused) = (Values::new(), BTreeMap::new());
        for (name, value) in stored.wanted() {
            let checked = match value.len() > MAX_VALUE {
                true => Err(format!("it is longer than {MAX_VALUE} bytes")),
                false => (self.check)(&name, &value),
            };
            match checked {
                Ok(value) => drop(settings.insert(name, value)),
                Err(reason) => {
                    if let Some(kept) = stored.record.settings.get(&name) {
                        settings.insert(name.clone(), kept.clone());
                    }
                    let value = value.chars().take(MAX_VALUE).collect();
                    refused.insert(name, Refused { value, reason });
                }
            }
        }
        (settings, refused)
    }

    async fn read(&self) -> Result<Stored, Error> {
        let root = Path::Settings.to_string();
        let missing = || coordination::Error::NoNode { path: root.clone() };
        let node = self.coordination.get(&root).await?.ok_or_else(missing)?;
        let bad = |source| Error::BadRecord { path: root.clone(), source };
        let record = match node.data.is_empty() {
            true => Record::default(),
            false => serde_json::from_slice(&node.data).map_err(bad)?,
        };
        let mut nodes = BTreeMap::new();
        let names: BTreeSet<String> =
            self.coordination.children(&root).await?.into_iter().collect();
        for name in names {
            if let Some(node) = self.coordination.get(&Path::Setting(&name).to_string()).await? {
                nodes.insert(name, (value_of(&node.data), node.stat.version));
            }
        }
        Ok(Stored { record, version: node.stat.version, nodes })
    }
}

impl Record {
    /// The settings as somebody wishes them.
    fn wish(&self, wish: &Wish) -> Result<Values, Error> {
        Ok(match wish {
            Wish::Set(changes) => {
                let mut settings = self.settings.clone();
                for (name, value) in changes {
                    match value {
                        Some(value) => drop(settings.insert(name.clone(), value.clone())),
                        None => drop(settings.remove(name)),
                    }
                }
                settings
            }
            Wish::ResetAll => Values::new(),
            Wish::Rollback(version) => {
                let (version, oldest, newest) = (*version, self.oldest(), self.version);
                self.at(version).ok_or(Error::NoVersion { version, oldest, newest })?
            }
        })
    }
}

/// Somebody else has written since it was read.
fn outrun(error: &coordination::Error) -> bool {
    use coordination::Error::{BadVersion, NoNode, NodeExists};
    matches!(error.root(), BadVersion { .. } | NoNode { .. } | NodeExists { .. })
}

fn json(path: &str, value: &impl Serialize) -> Result<bytes::Bytes, Error> {
    let bad = |source| Error::BadRecord { path: path.to_owned(), source };
    serde_json::to_vec(value).map(Into::into).map_err(bad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordination::embedded::{EmbeddedStore, Options};

    fn accept(_: &str, value: &str) -> std::result::Result<String, String> {
        Ok(value.to_owned())
    }

    #[tokio::test]
    async fn a_change_whose_reply_was_lost_with_the_store_is_in_doubt() {
        let store = EmbeddedStore::in_memory().expect("a store");
        let session = store.connect(Options::default());
        let live = LiveSettings::open(session.clone(), accept).await.expect("settings");
        let set =
            |value: &str| Wish::Set(BTreeMap::from([("a".to_owned(), Some(value.to_owned()))]));
        assert_eq!(live.change(&set("1"), "me").await.expect("changed"), 1);
        session.lose_next_reply();
        let error = live.change(&set("2"), "me").await.expect_err("out of touch");
        let in_doubt = matches!(&error, Error::Coordination(error) if error.may_have_landed());
        assert!(in_doubt, "{error:?}");
        // It was made.
        session.reconnect();
        assert_eq!(live.change(&set("2"), "me").await.expect("nothing to do"), 2);
    }
}
