//! A watch: a stream of changes that survives reconnects and needs bounded memory.
//!
//! Invariant: an event stays pending until the consumer took it. Changes to one path that were not
//! taken yet are one event, and more than [`MAX_PENDING`] paths collapse into one
//! [`Event::Resync`], so a slow consumer costs no more than that.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// Paths kept apart before they collapse into one resync.
const MAX_PENDING: usize = 4096;

/// What a watch looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Creation, change of data, and deletion of one node.
    Node,
    /// Creation and deletion of a node's direct children, and of the node itself.
    Children,
    /// All of these for a node and everything below it.
    Subtree,
    /// The same, and each change is an event of its own: see [`Watch::next_change`].
    Every,
}

/// What happened to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Created,
    Deleted,
    Data,
}

impl Scope {
    /// The path that a watch of this scope at `watched` reports when `change` happened at `path`;
    /// `None` if it does not look there.
    pub(super) fn report<'a>(
        self,
        watched: &'a str,
        change: Change,
        path: &'a str,
    ) -> Option<&'a str> {
        let beneath = match watched {
            "/" => path.strip_prefix('/').filter(|name| !name.is_empty()),
            _ => path.strip_prefix(watched).and_then(|rest| rest.strip_prefix('/')),
        };
        match (self, beneath) {
            (Self::Node | Self::Subtree | Self::Every, None) => (path == watched).then_some(path),
            (Self::Node, Some(_)) => None,
            (Self::Subtree | Self::Every, Some(_)) => Some(path),
            (Self::Children, _) if change == Change::Data => None,
            (Self::Children, None) => (path == watched).then_some(watched),
            (Self::Children, Some(name)) => (!name.contains('/')).then_some(watched),
        }
    }
}

/// A change to look at. The event carries no data: read the path to learn the present state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// This node was created, changed or deleted. With [`Scope::Children`]: the watched parent.
    Changed(String),
    /// Anything may have changed (first arming, reconnect, new session, too many changes):
    /// read everything again.
    Resync,
}

/// An event of a watch of [`Scope::Every`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened {
    Changed(Change, String),
    /// As [`Event::Resync`].
    Resync,
}

#[derive(Default)]
struct Pending {
    resync: bool,
    paths: BTreeSet<String>,
    /// Instead of the paths for [`Scope::Every`], and as many at most.
    changes: VecDeque<(Change, String)>,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    pending: Mutex<Pending>,
    notify: Notify,
    consumer_gone: Notify,
}

impl Shared {
    fn update(&self, change: impl FnOnce(&mut Pending)) {
        change(&mut self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        self.notify.notify_one();
    }
}

/// The consumer's end. Dropping it ends the watch.
pub struct Watch(Arc<Shared>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.consumer_gone.notify_one();
    }
}

/// The backend's end. Dropping it ends the stream once pending events were taken.
pub struct WatchSender(Arc<Shared>);

pub fn watch_channel() -> (WatchSender, Watch) {
    let shared = Arc::new(Shared::default());
    (WatchSender(shared.clone()), Watch(shared))
}

impl Watch {
    /// The next change; `None` when the store was closed. Cancel safe.
    pub async fn next(&mut self) -> Option<Event> {
        self.take(|pending| match std::mem::take(&mut pending.resync) {
            true => {
                pending.paths.clear();
                Some(Event::Resync)
            }
            false => pending.paths.pop_first().map(Event::Changed),
        })
        .await
    }

    /// The same for a watch of [`Scope::Every`].
    pub async fn next_change(&mut self) -> Option<Happened> {
        self.take(|pending| match std::mem::take(&mut pending.resync) {
            true => {
                pending.changes.clear();
                Some(Happened::Resync)
            }
            false => {
                let next = pending.changes.pop_front();
                next.map(|(change, path)| Happened::Changed(change, path))
            }
        })
        .await
    }

    async fn take<T>(&mut self, mut next: impl FnMut(&mut Pending) -> Option<T>) -> Option<T> {
        loop {
            {
                let mut pending = self.0.pending.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(event) = next(&mut pending) {
                    return Some(event);
                }
                if pending.closed {
                    return None;
                }
            }
            self.0.notify.notified().await;
        }
    }
}

impl WatchSender {
    pub fn changed(&self, path: &str) {
        self.0.update(|pending| {
            if pending.resync {
                return;
            }
            pending.paths.insert(path.to_owned());
            pending.resync = pending.paths.len() > MAX_PENDING;
        });
    }

    /// What a watch of a scope reports.
    pub(super) fn tell(&self, scope: Scope, change: Change, path: &str) {
        if scope != Scope::Every {
            return self.changed(path);
        }
        self.0.update(|pending| {
            if pending.resync {
                return;
            }
            pending.changes.push_back((change, path.to_owned()));
            pending.resync = pending.changes.len() > MAX_PENDING;
        });
    }

    pub fn resync(&self) {
        self.0.update(|pending| pending.resync = true);
    }

    /// Returns once the consumer is gone. For one waiter.
    pub async fn closed(&self) {
        self.0.consumer_gone.notified().await;
    }

    /// Whether the consumer is gone, so that nothing more need be sent.
    pub fn is_closed(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl Drop for WatchSender {
    fn drop(&mut self) {
        self.0.update(|pending| pending.closed = true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn changes_of_one_path_are_one_event_and_many_paths_collapse() {
        let (sender, mut watch) = watch_channel();
        sender.changed("/a");
        sender.changed("/a");
        sender.changed("/b");
        assert_eq!(watch.next().await, Some(Event::Changed("/a".into())));
        assert_eq!(watch.next().await, Some(Event::Changed("/b".into())));
        for n in 0..=MAX_PENDING {
            sender.changed(&format!("/{n}"));
        }
        assert_eq!(watch.next().await, Some(Event::Resync));
        sender.changed("/last");
        drop(sender);
        assert_eq!(watch.next().await, Some(Event::Changed("/last".into())));
        assert_eq!(watch.next().await, None);
    }

    #[tokio::test]
    async fn every_change_is_an_event_where_asked_for() {
        let (sender, mut watch) = watch_channel();
        for change in [Change::Created, Change::Data, Change::Data, Change::Deleted] {
            sender.tell(Scope::Every, change, "/a");
        }
        for change in [Change::Created, Change::Data, Change::Data, Change::Deleted] {
            assert_eq!(watch.next_change().await, Some(Happened::Changed(change, "/a".into())));
        }
        for n in 0..=MAX_PENDING {
            sender.tell(Scope::Every, Change::Data, &format!("/{n}"));
        }
        assert_eq!(watch.next_change().await, Some(Happened::Resync));
        drop(sender);
        assert_eq!(watch.next_change().await, None);
    }

    #[tokio::test]
    async fn a_dropped_consumer_is_noticed() {
        let (sender, watch) = watch_channel();
        assert!(!sender.is_closed());
        drop(watch);
        sender.closed().await;
        assert!(sender.is_closed());
    }

    #[test]
    fn scopes_report_what_they_look_at() {
        use {Change::*, Scope::*};
        let reports = [
            (Node, "/a", Data, "/a", Some("/a")),
            (Node, "/a", Created, "/a/b", None),
            (Children, "/a", Created, "/a/b", Some("/a")),
            (Children, "/a", Data, "/a/b", None),
            (Children, "/a", Deleted, "/a/b/c", None),
            (Children, "/a", Deleted, "/a", Some("/a")),
            (Children, "/", Created, "/a", Some("/")),
            (Subtree, "/a", Data, "/a/b/c", Some("/a/b/c")),
            (Subtree, "/a", Data, "/ab", None),
            (Subtree, "/", Data, "/ab", Some("/ab")),
        ];
        for (scope, watched, change, path, expected) in reports {
            assert_eq!(scope.report(watched, change, path), expected, "{scope:?} {watched} {path}");
        }
    }
}
