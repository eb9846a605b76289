//! Statements that a session sends again, word for word: what was understood of them the time before
//! still holds.
//!
//! A plan is kept from the second time on, for most texts never come again. One that was made from
//! another catalog, other settings or other tables of the block is forgotten as soon as it is asked for;
//! what else plans depend on, such as the moment, [`Session::execute`] renews as for any statement that
//! was prepared.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};

use arrow::datatypes::FieldRef;

use super::life::Session;
use super::prepared::{Body, Origin, Prepared};
use super::transaction::TransactionState;
use crate::catalog::Consistency;

/// Most plans that a session keeps.
const PLANS: usize = 16;

/// Most texts of which a session knows that they have come.
const TEXTS: usize = 64;

/// Longer texts, in bytes, are taken for new.
pub(super) const LONGEST: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Recent {
    hasher: RandomState,
    /// Hashes, the latest last.
    texts: VecDeque<u64>,
    /// The latest last.
    plans: VecDeque<Plan>,
}

#[derive(Debug)]
struct Plan {
    hash: u64,
    text: Box<str>,
    prepared: Prepared,
}

impl Session {
    /// What is known of a statement that came before in these words, with these types of parameters
    /// declared.
    pub fn known(&mut self, text: &str, declared: &[Option<FieldRef>]) -> Option<Prepared> {
        if !self.knows_plans() {
            return None;
        }
        let now = self.origin();
        self.recent.find(text, declared, &now)
    }

    /// Whether what was planned before may be run now.
    pub(super) fn knows_plans(&self) -> bool {
        self.settings().consistency() == Consistency::Cached
            && self.transaction_state() != TransactionState::Failed
    }

    /// A statement came, the only one of its message, and was understood.
    pub fn note(&mut self, text: &str, prepared: &Prepared) {
        self.recent.note(text, prepared);
    }
}

impl Recent {
    pub(super) fn find(
        &mut self,
        text: &str,
        declared: &[Option<FieldRef>],
        now: &Origin,
    ) -> Option<Prepared> {
        if self.plans.is_empty() || text.len() > LONGEST {
            return None;
        }
        let hash = self.hasher.hash_one(text);
        let same = |plan: &Plan| plan.hash == hash && *plan.text == *text;
        let plan = self.plans.remove(self.plans.iter().position(same)?)?;
        if !plan.prepared.planned_from.is(now) {
            return None;
        }
        let prepared = (plan.prepared.declared == declared).then(|| plan.prepared.clone());
        self.plans.push_back(plan);
        prepared
    }

    fn note(&mut self, text: &str, prepared: &Prepared) {
        let reads = matches!(&prepared.body, Body::Read(read) if read.copy.is_none());
        if !reads || text.len() > LONGEST {
            return;
        }
        if self.has_come(text) {
            self.keep(text, prepared);
        }
    }

    /// Whether a text has come before; now it has.
    pub(super) fn has_come(&mut self, text: &str) -> bool {
        let come = self.has(text);
        if !come {
            push(&mut self.texts, self.hasher.hash_one(text), TEXTS);
        }
        come
    }

    pub(super) fn has(&self, text: &str) -> bool {
        self.texts.contains(&self.hasher.hash_one(text))
    }

    pub(super) fn keep(&mut self, text: &str, prepared: &Prepared) {
        let hash = self.hasher.hash_one(text);
        self.plans.retain(|plan| plan.hash != hash || *plan.text != *text);
        push(&mut self.plans, Plan { hash, text: text.into(), prepared: prepared.clone() }, PLANS);
    }
}

fn push<T>(queue: &mut VecDeque<T>, item: T, most: usize) {
    if queue.len() == most {
        queue.pop_front();
    }
    queue.push_back(item);
}
