//! ZooKeeper itself as SQL: the schema `zk`.
//!
//! - [`nodes`]: `zk.nodes`, the tree.
//! - [`selection`]: which part of it a statement wants.
//! - [`watch`]: `zk.watch(path, seconds)`, its changes as they happen.
//! - [`servers`]: `zk.servers`, the ensemble's members.
//!
//! All of the ensemble is there to be read, below the daemons' chroot and beside it, as far as the
//! access control lists let the daemon read it. So it is for superusers and members of [`READERS`];
//! and what opens doors (verifiers of passwords, the key by which daemons know each other) is shown
//! to superusers only.

mod nodes;
mod selection;
mod servers;
mod watch;

use std::collections::VecDeque;
use std::sync::Arc;

use datafusion::error::{DataFusionError, Result};

pub use self::nodes::{Nodes, kinds};
pub use self::servers::rows as servers;
pub use self::watch::Watching;
use super::View;
use super::relations::Relation;
use super::rows::Value;
use crate::coordination::counted::Counted;
use crate::coordination::{self, Coordination, Stat};
use crate::engine::Error;
use crate::engine::settings::Settings;

/// The role whose members may read ZooKeeper.
pub const READERS: &str = "oribi_read_coordination";

/// Calls under way at once for one statement.
const PIPELINE: usize = 64;

/// In place of data that its reader may not see.
const HIDDEN: &str = "hidden: only superusers see it";

/// What begins or surrounds secrets, whoever keeps them.
const SECRETS: [&[u8]; 2] = [b"SCRAM-SHA-256$", b"PRIVATE KEY-----"];

/// What a statement may look at.
#[derive(Clone, Debug)]
struct Reader {
    client: Arc<Counted>,
    chroot: String,
    superuser: bool,
    budget: Budget,
}

/// What a statement may still read, and of how much.
#[derive(Clone, Copy, Debug)]
struct Budget {
    nodes: Bound,
    bytes: Bound,
}

#[derive(Clone, Copy, Debug)]
struct Bound {
    left: u64,
    limit: u64,
    what: &'static str,
    setting: &'static str,
}

impl Bound {
    fn of(settings: &Settings, what: &'static str, setting: &'static str) -> Self {
        let limit = settings.get(setting).and_then(|value| value.parse().ok()).unwrap_or(0);
        Self { left: limit, limit, what, setting }
    }

    fn take(&mut self, count: u64) -> Result<()> {
        let Self { limit, what, setting, .. } = *self;
        let left = self.left.checked_sub(count);
        self.left = left.ok_or_else(|| external(Error::OverBudget { limit, what, setting }))?;
        Ok(())
    }
}

impl Budget {
    fn of(settings: &Settings) -> Self {
        Self {
            nodes: Bound::of(settings, "znodes", "oribi.zk_max_nodes"),
            bytes: Bound::of(settings, "bytes of data", "oribi.zk_max_bytes"),
        }
    }
}

impl Reader {
    /// For the statement of a view, if its role may look at ZooKeeper at all.
    async fn of(view: &View<'_>, relation: &Relation) -> Result<Self> {
        let superuser = view.access().is_superuser();
        if !view.access().has_role(READERS) {
            return Err(view.denied(relation, READERS));
        }
        let whole = view.shared.cluster.store();
        let client = whole.client().await.map_err(failed)?;
        let settings = view.session.present_settings();
        if settings.consistency() == crate::catalog::Consistency::Strong {
            client.sync().await.map_err(failed)?;
        }
        Ok(Self {
            client,
            chroot: whole.chroot().map_err(failed)?,
            superuser,
            budget: Budget::of(&settings),
        })
    }

    /// Whether data is to be kept from this reader.
    fn is_secret(&self, path: &str, data: &[u8]) -> bool {
        let own = path.strip_prefix(self.chroot.as_str());
        let known = own.is_some_and(|own| own == "/peer-key" || own.starts_with("/roles/"));
        let marked =
            || SECRETS.iter().any(|mark| data.windows(mark.len()).any(|part| part == *mark));
        !self.superuser && (known || marked())
    }

    /// The metadata of all nodes at and below a path; empty if there is none.
    async fn stock(&self, path: &str) -> Result<Vec<(String, Stat)>> {
        use futures::stream::{FuturesOrdered, StreamExt};
        let mut budget = self.budget;
        let mut found = Vec::new();
        let mut waiting = VecDeque::from([path.to_owned()]);
        let mut running = FuturesOrdered::new();
        loop {
            while running.len() < PIPELINE
                && let Some(path) = waiting.pop_front()
            {
                budget.nodes.take(1)?;
                let client = self.client.clone();
                running.push_back(async move {
                    let stat = client.stat(&path).await?;
                    let inner = stat.is_some_and(|stat| stat.num_children > 0);
                    let names = if inner { names(&client, &path).await?.0 } else { Vec::new() };
                    Ok::<_, coordination::Error>((path, stat, names))
                });
            }
            let Some(visited) = running.next().await else { return Ok(found) };
            let (path, stat, names) = visited.map_err(failed)?;
            waiting.extend(names.iter().map(|name| below(&path, name)));
            found.extend(stat.map(|stat| (path, stat)));
        }
    }
}

/// A node's children, and whether they may be listed.
async fn names(client: &Counted, path: &str) -> coordination::Result<(Vec<String>, bool)> {
    match client.children(path).await {
        Ok(names) => Ok((names, true)),
        Err(coordination::Error::NoNode { .. }) => Ok((Vec::new(), true)),
        Err(coordination::Error::Denied { .. }) => Ok((Vec::new(), false)),
        Err(error) => Err(error),
    }
}

fn failed(error: coordination::Error) -> DataFusionError {
    external(Error::Coordination(error))
}

fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

fn below(parent: &str, name: &str) -> String {
    match parent {
        "/" => format!("/{name}"),
        _ => format!("{parent}/{name}"),
    }
}

/// The path above one, and the name there; no path above the root.
fn split(path: &str) -> (Option<&str>, &str) {
    match path.rsplit_once('/') {
        Some(("", "")) | None => (None, ""),
        Some(("", name)) => (Some("/"), name),
        Some((parent, name)) => (Some(parent), name),
    }
}

/// How many names a path has; the root has none.
fn depth(path: &str) -> i64 {
    if path == "/" { 0 } else { path.matches('/').count() as i64 }
}

/// Data as JSON, if that is what it is.
fn json(data: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(data).ok()?;
    serde_json::from_str::<serde::de::IgnoredAny>(text).ok().map(|_| text)
}

/// Data and what it says as JSON, for the columns `data` and `value`.
fn shown(data: &[u8]) -> [Value; 2] {
    [Value::Bytes(data.to_vec()), json(data).map(str::to_owned).into()]
}

/// Milliseconds since 1970.
fn moment(millis: i64) -> Value {
    Value::Time(millis.saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_apart() {
        assert_eq!(split("/"), (None, ""));
        assert_eq!(split("/a"), (Some("/"), "a"));
        assert_eq!(split("/a/b"), (Some("/a"), "b"));
        assert_eq!([depth("/"), depth("/a"), depth("/a/b")], [0, 1, 2]);
        assert_eq!((below("/", "a"), below("/a", "b")), ("/a".to_owned(), "/a/b".to_owned()));
    }

    #[test]
    fn json_is_known_by_its_look() {
        for text in [r#"{"a": [1, null]}"#, "17", r#""x""#, "true"] {
            assert_eq!(json(text.as_bytes()), Some(text));
        }
        for other in [&b""[..], b"host:2181", b"{", b"\xff", b"1 2"] {
            assert_eq!(json(other), None);
        }
    }
}
