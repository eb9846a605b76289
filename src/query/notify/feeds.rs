//! The channels that tell of the cluster itself. Each daemon tells its own listeners what it sees
//! anyway; only who listens to `queries` has the store watched for that, for as long as somebody
//! does.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Inbox, Notifications};
use crate::catalog::{Catalog, Privilege, Snapshot, TableName};
use crate::cluster::live::LiveSettings;
use crate::cluster::{Member, Membership};
use crate::coordination::paths::Path;
use crate::coordination::{Coordination, Event, Scope, SessionState};
use crate::query::Notice;
use crate::query::history::{State, is_final};
use crate::query::registry::ATTEMPT;

const MEMBERS: &str = "members";
const CATALOG: &str = "catalog";
const QUERIES: &str = "queries";
pub(super) const SETTINGS: &str = "settings";

/// How long LISTEN waits until the store's statements are watched.
const ARMING: Duration = Duration::from_secs(5);

/// How long a daemon may be seen after what it ran is gone with it.
const FAREWELL: Duration = Duration::from_millis(200);

/// What is listened to on behalf of sessions.
#[derive(Clone, Debug)]
pub struct Sources {
    pub catalog: Arc<Catalog>,
    pub membership: Arc<Membership>,
    pub live: Arc<LiveSettings>,
    pub coordination: Arc<dyn Coordination>,
}

/// How far listeners were told.
#[derive(Debug)]
pub(super) struct Feeds {
    sources: Sources,
    /// The catalog that they know; `None` while nobody listens.
    catalog: Mutex<Option<Arc<Snapshot>>>,
    /// Whether somebody wants to know of statements, and whether those are watched.
    queries: watch::Sender<bool>,
    watching: watch::Sender<bool>,
}

impl Feeds {
    pub fn new(sources: Sources) -> Self {
        let (queries, watching) = (watch::Sender::new(false), watch::Sender::new(false));
        Self { sources, catalog: Mutex::default(), queries, watching }
    }

    /// What somebody who notifies is told while this daemon does not see who joins the cluster.
    pub fn out_of_touch(&self) -> Option<Notice> {
        let state = self.sources.coordination.session().borrow().state;
        let message = "this daemon is out of touch with ZooKeeper: listeners of daemons that have \
                       joined the cluster meanwhile do not get the notification";
        (state != SessionState::Connected)
            .then(|| Notice { code: "01000", message: message.to_owned() })
    }
}

impl Notifications {
    /// Somebody listens to a channel now: from here on nothing is missed there.
    pub(super) async fn open_feed(&self, channel: &str) {
        match channel {
            CATALOG => {
                let mut known = self.feeds.catalog.lock().unwrap_or_else(PoisonError::into_inner);
                known.get_or_insert_with(|| self.feeds.sources.catalog.snapshot());
            }
            QUERIES => {
                self.feeds.queries.send_replace(true);
                let mut watching = self.feeds.watching.subscribe();
                // Out of reach of the store it begins later.
                let _ = timeout(ARMING, watching.wait_for(|watching| *watching)).await;
            }
            _ => {}
        }
    }

    /// Tells listeners of the cluster, until `end`. Needed exactly once.
    pub async fn feed(self: Arc<Self>, end: CancellationToken) {
        let feeds =
            async { tokio::join!(self.members(), self.catalog(), self.queries(), self.settings()) };
        tokio::select! {
            () = end.cancelled() => {}
            _ = feeds => {}
        }
    }

    async fn members(&self) {
        let mut members = self.feeds.sources.membership.watch_members();
        let mut known = members.borrow_and_update().clone();
        while members.changed().await.is_ok() {
            let now = members.borrow_and_update().clone();
            if self.is_heard(MEMBERS) {
                let payload = |change, member: &Member| {
                    let (state, incarnation) = (member.record.state, member.record.incarnation);
                    json!({
                        "event": change, "daemon": member.id, "state": state,
                        "incarnation": incarnation, "postgres": member.record.postgres,
                    })
                };
                let key = |member: &Member| (member.id.clone(), member.record.incarnation);
                let changes = compare(&by(&known, key), &by(&now, key));
                for (change, member) in changes {
                    let change = match change {
                        Change::Created => "joined",
                        Change::Changed => "changed",
                        Change::Dropped => "left",
                    };
                    self.announce(MEMBERS, &payload(change, member));
                }
            }
            known = now;
        }
    }

    async fn catalog(&self) {
        let mut watch = self.feeds.sources.catalog.watch();
        while watch.changed().await.is_ok() {
            let (known, now) = {
                let mut known = self.feeds.catalog.lock().unwrap_or_else(PoisonError::into_inner);
                // Under the lock: whoever begins to listen later finds `None` and what is there then.
                let now = watch.borrow_and_update().clone();
                let now = self.is_heard(CATALOG).then_some(now);
                (std::mem::replace(&mut *known, now.clone()), now)
            };
            if let (Some(before), Some(after)) = (known, now) {
                let (known, now) = (objects(&before), objects(&after));
                let key = |object: &Object| object.names.to_string();
                for (change, object) in compare(&by(&known, key), &by(&now, key)) {
                    let event = match change {
                        Change::Created => "created",
                        Change::Changed => "changed",
                        Change::Dropped => "dropped",
                    };
                    let mut payload = object.names.clone();
                    payload["event"] = event.into();
                    let then = if change == Change::Dropped { &before } else { &after };
                    self.announce_to(CATALOG, &payload, |inbox| object.is_known_to(then, inbox));
                }
            }
        }
    }

    async fn settings(&self) {
        let mut live = self.feeds.sources.live.watch();
        let mut known = live.borrow_and_update().version;
        while live.changed().await.is_ok() {
            let now = live.borrow_and_update().clone();
            for entry in now.record.history.iter().filter(|entry| entry.version > known) {
                for (name, change) in &entry.changes {
                    let payload = json!({
                        "event": "changed", "version": entry.version, "name": name,
                        "value": change.to, "by": entry.by,
                    });
                    self.announce(SETTINGS, &payload);
                }
            }
            known = now.version;
        }
    }

    /// Watches the store's statements while somebody listens.
    async fn queries(&self) {
        let mut wanted = self.feeds.queries.subscribe();
        while wanted.wait_for(|wanted| *wanted).await.is_ok() {
            let root = Path::Queries.to_string();
            let mut watch = self.feeds.sources.coordination.watch(&root, Scope::Subtree);
            let mut known = HashMap::new();
            while let Some(event) = watch.next().await {
                let paths = match event {
                    Event::Changed(path) => vec![path],
                    Event::Resync => self.statements(&root, &known).await,
                };
                let first = !*self.feeds.watching.borrow();
                for path in paths.into_iter().filter(|path| *path != root) {
                    self.look(path, &mut known, first).await;
                }
                self.feeds.watching.send_replace(true);
                if self.ends_watching() {
                    break;
                }
            }
            self.feeds.watching.send_replace(false);
        }
    }

    /// Ends the watch if nobody listens to it any more. In one step: whoever begins to listen
    /// meanwhile is either seen here, or finds that nothing is watched.
    fn ends_watching(&self) -> bool {
        let mut ends = false;
        self.feeds.queries.send_modify(|wanted| {
            *wanted = self.is_heard(QUERIES);
            ends = !*wanted;
            if ends {
                self.feeds.watching.send_replace(false);
            }
        });
        ends
    }

    /// The statements that are in the store, or were.
    async fn statements(&self, root: &str, known: &HashMap<String, Value>) -> Vec<String> {
        let listed = self.feeds.sources.coordination.children(root).await.unwrap_or_default();
        let mut paths: Vec<_> = listed.iter().map(|name| format!("{root}/{name}")).collect();
        paths
            .extend(known.keys().filter(|path| !paths.contains(path)).cloned().collect::<Vec<_>>());
        paths
    }

    /// What has become of a statement of which the store does not tell it: it was lost if its daemon
    /// is gone, which may be seen a moment later.
    async fn state_of_gone(&self, last: &Value) -> Option<&'static str> {
        let daemon = last["daemon"].as_str().filter(|daemon| !daemon.is_empty())?;
        let mut members = self.feeds.sources.membership.watch_members();
        let gone = members.wait_for(|members| !members.iter().any(|member| member.id == daemon));
        timeout(FAREWELL, gone).await.ok().map(|_| State::Lost.as_str())
    }

    /// Tells what has become of a statement, unless it is only looked at to know of it.
    async fn look(&self, path: String, known: &mut HashMap<String, Value>, quietly: bool) {
        // What lies below a statement is of no interest here.
        let Some(id) = path.strip_prefix("/queries/").filter(|id| !id.contains('/')) else {
            return;
        };
        let Ok(node) = self.feeds.sources.coordination.get(&path).await else { return };
        let entry = node.and_then(|node| serde_json::from_slice::<Value>(&node.data).ok());
        if entry.as_ref().is_some_and(|entry| entry["kind"] == ATTEMPT) {
            // The query that it is about tells of itself.
            return;
        }
        let shown = |entry: &Value| {
            // No error: it quotes data, and anybody may listen.
            let kept = ["kind", "state", "daemon", "attempt", "user", "database"];
            let kept =
                kept.into_iter().filter_map(|key| Some((key.to_owned(), entry.get(key)?.clone())));
            Value::Object(kept.chain([("id".to_owned(), Value::from(id))]).collect())
        };
        let (event, mut payload) = match entry {
            Some(entry) => {
                let now = shown(&entry);
                let ended = has_ended(&now);
                match known.insert(path.clone(), now.clone()) {
                    Some(before) if before == now => return,
                    _ if ended => ("ended", now),
                    Some(_) => ("changed", now),
                    None => ("started", now),
                }
            }
            None => match known.remove(&path) {
                Some(mut last) if !has_ended(&last) => {
                    let state = self.state_of_gone(&last).await;
                    last["state"] = state.into();
                    ("ended", last)
                }
                // That was told; what is gone now is what was kept of it.
                _ => return,
            },
        };
        if !quietly {
            payload["event"] = event.into();
            self.announce(QUERIES, &payload);
        }
    }
}

/// Whether a statement has ended, as it was shown last.
fn has_ended(shown: &Value) -> bool {
    shown["state"].as_str().is_some_and(is_final)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Created,
    Changed,
    Dropped,
}

/// What differs between two states, by key.
fn compare<'a, K: Ord, T: PartialEq>(
    before: &BTreeMap<K, &'a T>,
    now: &BTreeMap<K, &'a T>,
) -> Vec<(Change, &'a T)> {
    let gone = before.iter().filter(|(key, _)| !now.contains_key(key));
    let gone = gone.map(|(_, item)| (Change::Dropped, *item));
    let there = now.iter().filter_map(|(key, item)| match before.get(key) {
        None => Some((Change::Created, *item)),
        Some(old) if old != item => Some((Change::Changed, *item)),
        Some(_) => None,
    });
    gone.chain(there).collect()
}

fn by<T, K: Ord>(items: &[T], key: impl Fn(&T) -> K) -> BTreeMap<K, &T> {
    items.iter().map(|item| (key(item), item)).collect()
}

/// A catalog's object.
#[derive(Debug)]
struct Object {
    names: Value,
    /// Of the last change.
    mzxid: i64,
    kind: Kind,
}

/// Who may know of an object depends on what it is.
#[derive(Debug)]
enum Kind {
    Database(String),
    Schema(String, String),
    Table(TableName),
    /// Roles and pools, whose names all may see.
    Open,
}

impl Object {
    /// Whether a session may know that it is there: what `system.tables` shows its role.
    fn is_known_to(&self, snapshot: &Snapshot, inbox: &Inbox) -> bool {
        let Some(role) = inbox.role(snapshot) else { return false };
        let access = snapshot.access(&role.name);
        let database = |name: &str| {
            let database = snapshot.databases.get(name)?;
            access.database(database, Privilege::Connect).then_some(database)
        };
        let in_schema = |name: &str, schema: &str| {
            let database = database(name)?;
            let schema = database.schemas.get(schema)?;
            access.schema(database, schema, Privilege::Usage).then_some(schema)
        };
        match &self.kind {
            Kind::Open => true,
            Kind::Database(name) => database(name).is_some(),
            Kind::Schema(name, schema) => in_schema(name, schema).is_some(),
            Kind::Table(name) => in_schema(&name.database, &name.schema)
                .and_then(|schema| schema.tables.get(&name.table))
                .is_some_and(|table| access.sees(table)),
        }
    }
}

impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        self.mzxid == other.mzxid
    }
}

/// All of a catalog's objects, by kind and name.
fn objects(snapshot: &Snapshot) -> Vec<Object> {
    let mut objects = Vec::new();
    let mut add =
        |names: Value, mzxid: i64, kind: Kind| objects.push(Object { names, mzxid, kind });
    for (database, content) in &snapshot.databases {
        let names = json!({ "kind": "database", "name": database });
        add(names, content.stat.mzxid, Kind::Database(database.clone()));
        for (schema, content) in &content.schemas {
            let names = json!({ "kind": "schema", "database": database, "name": schema });
            if let Some((_, stat)) = &content.node {
                add(names, stat.mzxid, Kind::Schema(database.clone(), schema.clone()));
            }
            for (table, content) in &content.tables {
                let kind = if content.record.is_view() { "view" } else { "table" };
                let names = json!({
                    "kind": kind, "database": database, "schema": schema, "name": table,
                });
                add(names, content.stat.mzxid, Kind::Table(content.name.clone()));
            }
        }
    }
    for role in snapshot.roles.values() {
        add(json!({ "kind": "role", "name": role.name }), role.stat.mzxid, Kind::Open);
    }
    for pool in snapshot.pools.values() {
        add(json!({ "kind": "pool", "name": pool.name }), pool.stat.mzxid, Kind::Open);
    }
    objects
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_found() {
        let object =
            |name: &str, mzxid| Object { names: json!({ "name": name }), mzxid, kind: Kind::Open };
        let before = [object("a", 1), object("b", 1), object("c", 1)];
        let now = [object("a", 1), object("b", 2), object("d", 1)];
        let key = |object: &Object| object.names.to_string();
        let found: Vec<_> = (compare(&by(&before, key), &by(&now, key)).into_iter())
            .map(|(change, object)| (change, object.names["name"].as_str().expect("a name")))
            .collect();
        let expected = [(Change::Dropped, "c"), (Change::Changed, "b"), (Change::Created, "d")];
        assert_eq!(found, expected);
    }
}
