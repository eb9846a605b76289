//! The tree of nodes in memory, and what a write does to it: ZooKeeper's rules and nothing else.
//!
//! A [`Batch`] gathers the changes of many writes on top of a tree without touching it, so that
//! readers see nothing before it is on disk. An [`Attempt`] does the same for the steps of one
//! write on top of a batch, so that a failing step leaves no trace of the earlier ones.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::coordination::watch::Change;
use crate::coordination::{Error, Mode, Op, Outcome, Result, Stat};

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    pub data: Bytes,
    pub czxid: i64,
    pub mzxid: i64,
    pub ctime: i64,
    pub mtime: i64,
    pub version: i32,
    /// Children ever created: the next sequential number.
    pub created: i32,
    /// Session that owns an ephemeral node; 0 for a persistent one.
    pub owner: i64,
    /// Children at present.
    pub children: i32,
}

impl Record {
    pub fn stat(&self) -> Stat {
        Stat {
            czxid: self.czxid,
            mzxid: self.mzxid,
            ctime: self.ctime,
            mtime: self.mtime,
            version: self.version,
            // Creations and deletions, as ZooKeeper's DataNode.copyStat counts them.
            cversion: self.created.wrapping_mul(2).wrapping_sub(self.children),
            ephemeral_owner: self.owner,
            num_children: self.children,
            pzxid: None,
            aversion: 0,
            data_length: i32::try_from(self.data.len()).unwrap_or(i32::MAX),
        }
    }

    fn expect(&self, path: &str, version: Option<i32>) -> Result<()> {
        match version {
            Some(version) if version != self.version => {
                Err(Error::BadVersion { path: path.to_owned() })
            }
            _ => Ok(()),
        }
    }
}

/// All nodes, and the live sessions with their ephemeral nodes.
#[derive(Debug, Default)]
pub(super) struct Tree {
    nodes: HashMap<String, Record>,
    children: HashMap<String, BTreeSet<String>>,
    sessions: HashMap<i64, BTreeSet<String>>,
}

impl Tree {
    /// A tree of the persistent nodes as stored, which do not know how many children they have.
    pub fn load(records: Vec<(String, Record)>) -> Self {
        let mut tree = Self::default();
        tree.nodes.insert("/".to_owned(), Record::default());
        let paths: Vec<_> = records.iter().map(|(path, _)| path.clone()).collect();
        tree.nodes.extend(records);
        for path in paths.iter().filter(|path| *path != "/") {
            let (parent, name) = split(path);
            if let Some(parent) = tree.nodes.get_mut(parent) {
                parent.children += 1;
            }
            tree.children.entry(parent.to_owned()).or_default().insert(name.to_owned());
        }
        tree
    }

    pub fn get(&self, path: &str) -> Option<&Record> {
        self.nodes.get(path)
    }

    /// What belongs on disk.
    pub fn persistent(&self) -> impl Iterator<Item = (&str, &Record)> {
        let all = self.nodes.iter().map(|(path, node)| (path.as_str(), node));
        all.filter(|(_, node)| node.owner == 0)
    }

    /// Sorted names of a node's children; `None` if there is no such node.
    pub fn children(&self, path: &str) -> Option<Vec<String>> {
        self.nodes.get(path)?;
        let names = self.children.get(path);
        Some(names.map(|names| names.iter().cloned().collect()).unwrap_or_default())
    }

    pub fn open_session(&mut self, session: i64) {
        self.sessions.insert(session, BTreeSet::new());
    }

    pub fn has_session(&self, session: i64) -> bool {
        self.sessions.contains_key(&session)
    }

    /// Makes a batch visible.
    pub fn apply(&mut self, changes: Changes) {
        for (path, record) in changes.nodes {
            let before = match record {
                Some(record) => self.nodes.insert(path.clone(), record),
                None => self.nodes.remove(&path),
            };
            if let Some(names) = before.and_then(|before| self.sessions.get_mut(&before.owner)) {
                names.remove(&path);
            }
            let (parent, name) = split(&path);
            match self.nodes.get(&path) {
                Some(record) => {
                    if let Some(names) = self.sessions.get_mut(&record.owner) {
                        names.insert(path.clone());
                    }
                    if path != "/" {
                        let siblings = self.children.entry(parent.to_owned()).or_default();
                        siblings.insert(name.to_owned());
                    }
                }
                None => {
                    self.children.remove(&path);
                    if let Some(siblings) = self.children.get_mut(parent) {
                        siblings.remove(name);
                    }
                }
            }
        }
        for session in changes.ended {
            self.sessions.remove(&session);
        }
    }
}

/// What a batch changes: the last state of each path it touched.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub nodes: HashMap<String, Option<Record>>,
    /// Those paths of `nodes` that belong on disk.
    pub durable: HashSet<String>,
    pub events: Vec<(Change, String)>,
    ended: HashSet<i64>,
    /// The last transaction number.
    pub zxid: i64,
}

/// Writes on top of a tree that are not visible yet.
pub(super) struct Batch<'a> {
    tree: &'a Tree,
    changes: Changes,
}

impl<'a> Batch<'a> {
    pub fn new(tree: &'a Tree, zxid: i64) -> Self {
        Self { tree, changes: Changes { zxid, ..Changes::default() } }
    }

    /// All steps or none.
    pub fn write(&mut self, session: i64, steps: Vec<Op>) -> Result<Vec<Outcome>> {
        if !self.tree.has_session(session) || self.changes.ended.contains(&session) {
            return Err(Error::Unavailable { reason: "the session was lost".to_owned() });
        }
        let mut attempt = Attempt::new(self, session);
        let mut outcomes = Vec::with_capacity(steps.len());
        for (index, step) in steps.into_iter().enumerate() {
            let outcome = attempt.step(step);
            outcomes.push(
                outcome.map_err(|source| Error::Transaction { index, source: Box::new(source) })?,
            );
        }
        let done = attempt.done;
        self.changes.merge(done);
        Ok(outcomes)
    }

    /// Ends a session, and with it its ephemeral nodes.
    pub fn end(&mut self, session: i64) {
        let before = self.tree.sessions.get(&session).into_iter().flatten();
        let mut paths: BTreeSet<String> = before.cloned().collect();
        for (path, record) in &self.changes.nodes {
            match record {
                Some(record) if record.owner == session => paths.insert(path.clone()),
                _ => paths.remove(path),
            };
        }
        let mut attempt = Attempt::new(self, session);
        for path in &paths {
            attempt.remove(path);
        }
        let done = attempt.done;
        self.changes.merge(done);
        self.changes.ended.insert(session);
    }

    pub fn into_changes(self) -> Changes {
        self.changes
    }

    fn get(&self, path: &str) -> Option<&Record> {
        match self.changes.nodes.get(path) {
            Some(changed) => changed.as_ref(),
            None => self.tree.get(path),
        }
    }
}

impl Changes {
    fn merge(&mut self, done: Changes) {
        self.nodes.extend(done.nodes);
        self.durable.extend(done.durable);
        self.events.extend(done.events);
        self.zxid = done.zxid;
    }
}

/// The steps of one write on top of a batch.
struct Attempt<'b, 'a> {
    batch: &'b Batch<'a>,
    session: i64,
    now: i64,
    done: Changes,
}

impl<'b, 'a> Attempt<'b, 'a> {
    fn new(batch: &'b Batch<'a>, session: i64) -> Self {
        let done = Changes { zxid: batch.changes.zxid + 1, ..Changes::default() };
        Self { batch, session, now: wall_clock(), done }
    }

    fn get(&self, path: &str) -> Option<&Record> {
        match self.done.nodes.get(path) {
            Some(changed) => changed.as_ref(),
            None => self.batch.get(path),
        }
    }

    fn existing(&self, path: &str) -> Result<&Record> {
        self.get(path).ok_or_else(|| Error::NoNode { path: path.to_owned() })
    }

    fn step(&mut self, step: Op) -> Result<Outcome> {
        match step {
            Op::Check { path, version } => {
                self.existing(&path)?.expect(&path, version)?;
                Ok(Outcome::Checked)
            }
            Op::Create { path, data, mode } => self.create(path, data, mode).map(Outcome::Created),
            Op::Set { path, data, version } => self.set(path, data, version).map(Outcome::Set),
            Op::Delete { path, version } => {
                let record = self.existing(&path)?;
                record.expect(&path, version)?;
                if record.children > 0 {
                    return Err(Error::NotEmpty { path });
                }
                self.remove(&path);
                Ok(Outcome::Deleted)
            }
        }
    }

    fn create(&mut self, path: String, data: Bytes, mode: Mode) -> Result<String> {
        let parent_path = split(&path).0.to_owned();
        let mut parent = self.existing(&parent_path)?.clone();
        let path = match mode.is_sequential() {
            true => format!("{path}{:010}", parent.created),
            false => path,
        };
        if self.get(&path).is_some() {
            return Err(Error::NodeExists { path });
        }
        if parent.owner != 0 {
            return Err(Error::NoChildrenForEphemerals { path });
        }
        let record = Record {
            data,
            czxid: self.done.zxid,
            mzxid: self.done.zxid,
            ctime: self.now,
            mtime: self.now,
            owner: if mode.is_ephemeral() { self.session } else { 0 },
            ..Record::default()
        };
        parent.created = parent.created.wrapping_add(1);
        parent.children += 1;
        // A number that was handed out must never come again, even for an ephemeral node.
        if !mode.is_ephemeral() || mode.is_sequential() {
            self.done.durable.insert(parent_path.clone());
        }
        self.done.nodes.insert(parent_path, Some(parent));
        self.put(&path, record, Change::Created);
        Ok(path)
    }

    fn set(&mut self, path: String, data: Bytes, version: Option<i32>) -> Result<Stat> {
        let mut record = self.existing(&path)?.clone();
        record.expect(&path, version)?;
        record.data = data;
        record.version = record.version.wrapping_add(1);
        record.mzxid = self.done.zxid;
        record.mtime = self.now;
        let stat = record.stat();
        self.put(&path, record, Change::Data);
        Ok(stat)
    }

    fn put(&mut self, path: &str, record: Record, change: Change) {
        if record.owner == 0 {
            self.done.durable.insert(path.to_owned());
        }
        self.done.nodes.insert(path.to_owned(), Some(record));
        self.done.events.push((change, path.to_owned()));
    }

    /// Removes a node without children, if it is there.
    fn remove(&mut self, path: &str) {
        let Some(record) = self.get(path) else { return };
        if record.owner == 0 {
            self.done.durable.insert(path.to_owned());
        }
        let parent_path = split(path).0.to_owned();
        if let Some(mut parent) = self.get(&parent_path).cloned() {
            parent.children -= 1;
            self.done.nodes.insert(parent_path, Some(parent));
        }
        self.done.nodes.insert(path.to_owned(), None);
        self.done.events.push((Change::Deleted, path.to_owned()));
    }
}

/// A path's parent and its name. The root is its own parent and has no name.
fn split(path: &str) -> (&str, &str) {
    match path.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some(split) => split,
        None => ("/", path),
    }
}

fn wall_clock() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(path: &str, mode: Mode) -> Op {
        Op::Create { path: path.to_owned(), data: Bytes::new(), mode }
    }

    fn tree() -> Tree {
        let mut tree = Tree::load(Vec::new());
        tree.open_session(7);
        tree
    }

    #[test]
    fn a_batch_sees_itself_and_the_tree_sees_nothing_before_it_is_applied() {
        let mut tree = tree();
        let mut batch = Batch::new(&tree, 10);
        batch.write(7, vec![create("/a", Mode::Persistent)]).unwrap();
        batch.write(7, vec![create("/a/e", Mode::Ephemeral)]).unwrap();
        let failed = vec![create("/a/x", Mode::Persistent), create("/a", Mode::Persistent)];
        assert!(matches!(batch.write(7, failed), Err(Error::Transaction { index: 1, .. })));
        let changes = batch.into_changes();
        assert_eq!(changes.zxid, 12);
        assert!(!changes.durable.contains("/a/e"));
        assert!(tree.get("/a").is_none());
        tree.apply(changes);
        assert_eq!(tree.children("/a").unwrap(), ["e"]);
        assert_eq!(tree.get("/a").unwrap().stat().cversion, 1);
        assert_eq!(tree.get("/").unwrap().children, 1);
    }

    #[test]
    fn a_session_takes_along_what_it_made_in_the_same_batch() {
        let mut tree = tree();
        let mut batch = Batch::new(&tree, 0);
        batch.write(7, vec![create("/p", Mode::Persistent)]).unwrap();
        batch.write(7, vec![create("/e", Mode::Ephemeral)]).unwrap();
        tree.apply(batch.into_changes());
        let mut batch = Batch::new(&tree, 2);
        batch.write(7, vec![create("/p/s", Mode::EphemeralSequential)]).unwrap();
        batch.end(7);
        assert!(batch.write(7, vec![create("/late", Mode::Ephemeral)]).is_err());
        let changes = batch.into_changes();
        assert!(changes.durable.contains("/p"), "the number that was handed out");
        tree.apply(changes);
        assert_eq!(tree.children("/").unwrap(), ["p"]);
        assert_eq!(tree.children("/p").unwrap(), [""; 0]);
        assert_eq!(tree.get("/p").unwrap().created, 1);
        assert!(!tree.has_session(7));
    }

    #[test]
    fn a_node_made_and_deleted_in_one_batch_leaves_only_its_number() {
        let mut tree = tree();
        let mut batch = Batch::new(&tree, 0);
        batch.write(7, vec![create("/a", Mode::Persistent)]).unwrap();
        let delete = Op::Delete { path: "/a".to_owned(), version: Some(0) };
        batch.write(7, vec![delete]).unwrap();
        tree.apply(batch.into_changes());
        assert!(tree.get("/a").is_none());
        assert_eq!(tree.get("/").unwrap().stat().cversion, 2);
    }
}
