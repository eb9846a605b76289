//! LISTEN and NOTIFY, over all daemons.
//!
//! A notification leaves with the commit of its transaction. It is put into the inboxes of this
//! daemon's listeners and into a queue for each other live daemon ([`peers`]), which delivers it at
//! the port for daemons; the coordination store has no part in it. NOTIFY returns when all of them
//! have it, or says who has not confirmed it yet: that one gets it for as long as it lives.
//!
//! Nothing is lost in silence: a session whose daemon was out of the cluster for a while, or that
//! leaves too many notifications unread, is ended.
//!
//! - [`inbox`]: what waits for a session.
//! - [`pending`]: what waits for a transaction's commit.
//! - [`peers`]: from daemon to daemon.
//! - [`feeds`]: the channels that tell of the cluster itself.

mod feeds;
mod inbox;
mod peers;
mod pending;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use feeds::Feeds;
pub use feeds::Sources;
pub use inbox::{Inbox, Lost};
pub use peers::KIND;
use peers::{Incoming, Outgoing};
pub(super) use pending::{Action, Pending};

use super::life::Session;
use super::{Notice, Result};
use crate::catalog;
use crate::engine::{self, notes};

/// A notification as a client gets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// Of the session that notifies; 0 for the cluster itself.
    pub pid: i32,
    pub channel: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub payload: String,
}

/// A daemon's listeners, and the way to those of the others.
#[derive(Debug)]
pub struct Notifications {
    listeners: Mutex<Listeners>,
    outgoing: Outgoing,
    incoming: Incoming,
    feeds: Feeds,
}

/// Who listens, by channel and process id.
#[derive(Debug, Default)]
struct Listeners(HashMap<String, BTreeMap<i32, Arc<Inbox>>>);

impl Notifications {
    pub fn new(sources: Sources) -> Arc<Self> {
        Arc::new(Self {
            listeners: Mutex::default(),
            outgoing: Outgoing::default(),
            incoming: Incoming::default(),
            feeds: Feeds::new(sources),
        })
    }

    /// Notifies, in order, and waits until the other live daemons have it, as long as that takes no
    /// longer than they may. What was not confirmed by then is said.
    async fn send(&self, notifications: Vec<Arc<Notification>>) -> Vec<Notice> {
        if notifications.is_empty() {
            return Vec::new();
        }
        let out_of_touch = self.feeds.out_of_touch();
        let waits = {
            // In one order for all who listen, wherever they do.
            let listeners = self.listeners();
            notifications.iter().for_each(|notification| listeners.deliver(notification));
            self.outgoing.put(&notifications)
        };
        let mut notices = peers::confirmed(waits).await;
        notices.extend(out_of_touch);
        notices
    }

    /// Notifies this daemon's listeners of something that all daemons see for themselves.
    fn announce(&self, channel: &str, payload: &serde_json::Value) {
        self.announce_to(channel, payload, |_| true);
    }

    /// The same, to those only who may know of it.
    fn announce_to(
        &self,
        channel: &str,
        payload: &serde_json::Value,
        may: impl Fn(&Inbox) -> bool,
    ) {
        let (channel, payload) = (channel.to_owned(), payload.to_string());
        self.listeners().deliver_to(&Arc::new(Notification { pid: 0, channel, payload }), may);
    }

    fn is_heard(&self, channel: &str) -> bool {
        self.listeners().0.contains_key(channel)
    }

    fn listeners(&self) -> MutexGuard<'_, Listeners> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn apply(&self, action: &Action, inbox: &Arc<Inbox>) {
        match action {
            Action::Listen(channel) => {
                inbox.notes().add(channel);
                self.listeners().add(channel, inbox);
                self.open_feed(channel).await;
            }
            Action::Unlisten(channel) => self.forget(inbox, channel.as_deref()),
        }
    }

    /// A session listens no more to a channel, or to none at all.
    fn forget(&self, inbox: &Inbox, channel: Option<&str>) {
        let mut listeners = self.listeners();
        for channel in inbox.notes().remove(channel) {
            if let Some(heard) = listeners.0.get_mut(&channel) {
                heard.remove(&inbox.pid());
                if heard.is_empty() {
                    listeners.0.remove(&channel);
                }
            }
        }
    }

    /// Ends the sessions that may have missed something.
    fn lose(&self) {
        let listeners = self.listeners();
        for (channel, heard) in &listeners.0 {
            if !notes::FED.contains(&channel.as_str()) {
                heard.values().for_each(|inbox| inbox.lose(Lost::OutOfTouch));
            }
        }
    }
}

impl Listeners {
    fn add(&mut self, channel: &str, inbox: &Arc<Inbox>) {
        self.0.entry(channel.to_owned()).or_default().insert(inbox.pid(), inbox.clone());
    }

    fn deliver(&self, notification: &Arc<Notification>) {
        self.deliver_to(notification, |_| true);
    }

    fn deliver_to(&self, notification: &Arc<Notification>, may: impl Fn(&Inbox) -> bool) {
        let heard = self.0.get(&notification.channel).into_iter().flat_map(BTreeMap::values);
        heard.filter(|inbox| may(inbox)).for_each(|inbox| inbox.put(notification));
    }
}

/// A session's end of it, with which goes what it listens to.
#[derive(Debug)]
pub(super) struct Ear {
    notifications: Arc<Notifications>,
    inbox: Arc<Inbox>,
}

impl Ear {
    pub fn new(notifications: Arc<Notifications>, inbox: Inbox) -> Self {
        Self { notifications, inbox: Arc::new(inbox) }
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.notifications.forget(&self.inbox, None);
    }
}

impl Session {
    /// What waits for the client.
    pub fn inbox(&self) -> &Arc<Inbox> {
        &self.ear.inbox
    }

    /// LISTEN and UNLISTEN: at once, or with the commit of the transaction block.
    pub(super) async fn listen(&mut self, action: &Action) -> Result<()> {
        if let Action::Listen(channel) = action {
            notes::check_channel(channel).map_err(engine::Error::from)?;
            self.may_hear(channel)?;
        }
        match self.transaction.pending() {
            Some(pending) => pending.act(action.clone()),
            None => self.ear.notifications.apply(action, &self.ear.inbox).await,
        }
        Ok(())
    }

    /// What `system.settings_history` shows to some only, nobody else hears of.
    fn may_hear(&self, channel: &str) -> Result<()> {
        let snapshot = self.queries().catalog.snapshot();
        let access = snapshot.access(self.user());
        let allowed =
            ["pg_read_all_settings", "pg_monitor"].iter().any(|role| access.has_role(role));
        match channel == feeds::SETTINGS && !allowed {
            true => Err(catalog::Error::Forbidden(format!(
                "permission denied to listen to \"{channel}\": it takes the role \
                 pg_read_all_settings"
            ))
            .into()),
            false => Ok(()),
        }
    }

    /// UNLISTEN *.
    pub async fn listen_to_nothing(&mut self) -> Result<()> {
        self.listen(&Action::Unlisten(None)).await
    }

    /// What `pg_notify` has said in a statement that is complete.
    pub(super) async fn say_noted(&mut self) -> Result<Vec<Notice>> {
        match self.inbox().notes().take() {
            said if said.is_empty() => Ok(Vec::new()),
            said => self.notify(said).await,
        }
    }

    /// NOTIFY: at once, or with the commit of the transaction block.
    pub(super) async fn notify(&mut self, said: Vec<(String, String)>) -> Result<Vec<Notice>> {
        for (channel, payload) in &said {
            notes::check(channel, payload).map_err(engine::Error::from)?;
        }
        let mut at_once = Pending::default();
        let pending = self.transaction.pending();
        let in_block = pending.is_some();
        let pending = pending.unwrap_or(&mut at_once);
        said.into_iter().for_each(|said| pending.notify(said));
        if in_block {
            return Ok(Vec::new());
        }
        self.may_let_go(&at_once)?;
        Ok(self.let_go(at_once).await)
    }

    /// Whether the other daemons can take what a transaction has to say.
    pub(super) fn may_let_go(&self, pending: &Pending) -> Result<()> {
        match pending.notifies() {
            true => Ok(self.ear.notifications.outgoing.check().map_err(engine::Error::from)?),
            false => Ok(()),
        }
    }

    /// Does what has waited for the commit.
    pub(super) async fn let_go(&self, pending: Pending) -> Vec<Notice> {
        let notifications = &self.ear.notifications;
        for action in &pending.actions {
            notifications.apply(action, &self.ear.inbox).await;
        }
        let pid = self.entry().pid;
        let said = pending.into_notifications();
        let said = said.map(|(channel, payload)| Notification { pid, channel, payload });
        notifications.send(said.map(Arc::new).collect()).await
    }
}
