//! What a transaction block leaves for its commit.

use std::collections::HashSet;

/// LISTEN, or UNLISTEN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Listen(String),
    /// `None`: to nothing at all.
    Unlisten(Option<String>),
}

/// In the order in which it was said.
#[derive(Clone, Debug, Default)]
pub struct Pending {
    pub actions: Vec<Action>,
    /// Channels and payloads.
    notifications: Vec<(String, String)>,
    /// The same: a notification that repeats another of its transaction is folded into it, as in
    /// PostgreSQL.
    known: HashSet<(String, String)>,
}

impl Pending {
    pub fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    pub fn notify(&mut self, said: (String, String)) {
        if self.known.insert(said.clone()) {
            self.notifications.push(said);
        }
    }

    pub fn notifies(&self) -> bool {
        !self.notifications.is_empty()
    }

    pub fn into_notifications(self) -> impl Iterator<Item = (String, String)> {
        self.notifications.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_repeats_itself_is_folded() {
        let mut pending = Pending::default();
        for said in [("c", "1"), ("c", "2"), ("d", "1"), ("c", "1")] {
            pending.notify((said.0.to_owned(), said.1.to_owned()));
        }
        let said: Vec<_> = pending.into_notifications().map(|(c, p)| c + &p).collect();
        assert_eq!(said, ["c1", "c2", "d1"]);
    }
}
