//! What a session's own statements see of it, and may change while they run: its cursors and
//! prepared statements, as system views list them, settings changed by `set_config`, and what
//! `pg_notify` says.
//!
//! Functions run on the engine's threads, where the session is out of reach: what they change is
//! noted here, seen from then on by the statement itself, and applied by the session when the
//! statement is complete.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use super::notes::Notes;
use super::settings::{self, Settings};

/// One session's.
#[derive(Debug, Default)]
pub struct SessionObjects {
    pub cursors: Arc<List<CursorItem>>,
    pub statements: Arc<List<StatementItem>>,
    pub changes: Changes,
    pub notes: Notes,
}

/// A cursor, as `pg_cursors` shows it.
#[derive(Debug)]
pub struct CursorItem {
    pub statement: String,
    pub is_holdable: bool,
    pub is_binary: bool,
    pub is_scrollable: bool,
    pub created: SystemTime,
}

/// A prepared statement, as `pg_prepared_statements` shows it.
#[derive(Debug)]
pub struct StatementItem {
    pub statement: String,
    /// PostgreSQL's types.
    pub parameters: Vec<u32>,
    /// Made by PREPARE, and not by the protocol's Parse.
    pub from_sql: bool,
    pub prepared: SystemTime,
}

/// Named things, for whoever lists them.
#[derive(Debug)]
pub struct List<T>(Mutex<BTreeMap<String, Arc<T>>>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// Keeps a thing on its list.
#[derive(Debug)]
pub struct Listed<T> {
    list: Arc<List<T>>,
    name: String,
    item: Arc<T>,
}

impl<T> List<T> {
    /// Lists a thing until the guard is dropped.
    pub fn add(self: &Arc<Self>, name: &str, item: T) -> Listed<T> {
        let item = Arc::new(item);
        let mut items = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        items.insert(name.to_owned(), item.clone());
        Listed { list: self.clone(), name: name.to_owned(), item }
    }

    /// All of them, by name.
    pub fn items(&self) -> Vec<(String, Arc<T>)> {
        let items = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        items.iter().map(|(name, item)| (name.clone(), item.clone())).collect()
    }
}

impl<T> Drop for Listed<T> {
    fn drop(&mut self) {
        let mut items = self.list.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Another one may have taken the name.
        if items.get(&self.name).is_some_and(|item| Arc::ptr_eq(item, &self.item)) {
            items.remove(&self.name);
        }
    }
}

/// A setting that a statement changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub name: String,
    /// `None`: back to its default.
    pub value: Option<String>,
    /// Only to the end of the transaction.
    pub local: bool,
}

impl Change {
    /// Makes the change.
    pub fn apply(&self, settings: &mut Settings) -> settings::Result<()> {
        match &self.value {
            Some(value) => settings.set(&self.name, value).map(drop),
            None => settings.reset(&self.name),
        }
    }
}

/// Changes of settings by a statement under way.
#[derive(Debug, Default)]
pub struct Changes {
    pending: Mutex<Vec<Change>>,
    /// Whether there are any, told without the lock.
    any: AtomicBool,
}

impl Changes {
    /// Notes a change if it is valid; returns the settings as they are with it.
    pub fn note(&self, settings: &Settings, change: Change) -> settings::Result<Settings> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let mut settings = with(settings, &pending);
        change.apply(&mut settings)?;
        pending.push(change);
        self.any.store(true, Ordering::Release);
        Ok(settings)
    }

    /// The settings with what was noted so far; `None` if that is nothing.
    pub fn over(&self, settings: &Settings) -> Option<Settings> {
        self.any.load(Ordering::Acquire).then(|| {
            let pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            with(settings, &pending)
        })
    }

    /// What was noted, to be applied or forgotten.
    pub fn take(&self) -> Vec<Change> {
        if !self.any.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        std::mem::take(&mut self.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn with(settings: &Settings, changes: &[Change]) -> Settings {
    let mut settings = settings.clone();
    for change in changes {
        // Checked when it was noted.
        let _ = change.apply(&mut settings);
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_listed_as_long_as_its_last_owner() {
        let list = Arc::new(List::default());
        let first = list.add("a", 1);
        let second = list.add("a", 2);
        drop(first);
        assert_eq!(list.items(), [("a".to_owned(), Arc::new(2))]);
        drop(second);
        assert_eq!(list.items(), []);
    }

    #[test]
    fn changes_are_checked_seen_and_taken_once() {
        let (changes, settings) = (Changes::default(), Settings::default());
        let change = |name: &str, value: &str| Change {
            name: name.to_owned(),
            value: Some(value.to_owned()),
            local: false,
        };
        assert!(changes.note(&settings, change("nothing", "x")).is_err());
        assert_eq!(changes.over(&settings), None);
        let seen = changes.note(&settings, change("statement_timeout", "1500")).expect("valid");
        assert_eq!(seen.get("statement_timeout"), Some("1500ms"));
        assert_eq!(changes.over(&settings), Some(seen));
        assert_eq!(changes.take(), [change("statement_timeout", "1500")]);
        assert_eq!(changes.take(), []);
    }
}
