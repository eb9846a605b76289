//! What a history proves: each function gives what cannot be.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::history::{Entry, Moment, Op, Outcome, Table, Violation};

/// What is known of one key.
#[derive(Default)]
struct Row {
    /// From when on it may be there; none if it may never be.
    may: Option<Moment>,
    /// From when on it must be; none if it need not.
    must: Option<Moment>,
    /// When a session that asks the store first was shown it.
    seen: Option<Moment>,
    /// The session that was told so.
    by: u64,
    /// From when on it may be gone again.
    may_go: Option<Moment>,
    /// From when on it must be gone.
    must_go: Option<Moment>,
    /// Those who came by the same statement.
    with: Vec<i64>,
}

/// Every acknowledged row is there once, no refused one is, and rows that came together are seen together.
pub fn rows(history: &[Entry], table: Table) -> Vec<Violation> {
    let mut wrong = Vec::new();
    let known = known(history, table, &mut wrong);
    for entry in history {
        let Op::Read(of, from, to) = &entry.op else { continue };
        let (true, Outcome::Keys(keys)) = (*of == table, &entry.outcome) else { continue };
        let mut say = |what: String| {
            let what = format!("{table:?}: {what} (read {from}..={to}, {})", told(entry));
            wrong.push(Violation::new(entry.end, what));
        };
        let mut seen = HashSet::new();
        for key in keys {
            if !seen.insert(*key) {
                say(format!("{key} is there twice"));
            }
            match known.get(key) {
                None => say(format!("{key} was never inserted")),
                Some(Row { may: None, .. }) => say(format!("{key} was refused and is there")),
                Some(row) if row.may.is_some_and(|may| may > entry.end) => {
                    say(format!("{key} is there before its time"));
                }
                Some(row) if entry.strong && row.must_go.is_some_and(|go| go < entry.start) => {
                    say(format!("{key} was deleted and is there"));
                }
                Some(row) => {
                    let whole = |other: &i64| {
                        seen_or_gone(&known, keys, *other, entry) || other < from || other > to
                    };
                    if !row.with.iter().all(whole) {
                        say(format!("{key} is there, and not all of {:?}", row.with));
                    }
                }
            }
        }
        for (key, row) in known.range(from..=to) {
            let told = row.must.is_some_and(|must| must < entry.start);
            let owed = told && (entry.strong || row.by == entry.session);
            let gone = row.may_go.is_some_and(|go| go <= entry.end);
            if gone || seen.contains(key) {
                continue;
            }
            if owed {
                say(format!("{key} was acknowledged and is not there"));
            } else if entry.strong && row.seen.is_some_and(|seen| seen < entry.start) {
                say(format!("{key} was there before and is gone"));
            }
        }
    }
    wrong
}

/// Whether a key is among those read, or may have been deleted.
fn seen_or_gone(known: &BTreeMap<i64, Row>, keys: &[i64], key: i64, read: &Entry) -> bool {
    keys.contains(&key)
        || known.get(&key).is_some_and(|row| row.may_go.is_some_and(|go| go <= read.end))
}

fn known(history: &[Entry], table: Table, wrong: &mut Vec<Violation>) -> BTreeMap<i64, Row> {
    let mut known: BTreeMap<i64, Row> = BTreeMap::new();
    for entry in history {
        let Op::Insert(of, keys) = &entry.op else { continue };
        for key in keys.iter().filter(|_| *of == table) {
            let row = known.entry(*key).or_default();
            if entry.refused() {
                continue;
            }
            row.may = Some(row.may.map_or(entry.start, |may| may.min(entry.start)));
            row.with.clone_from(keys);
            if entry.done() {
                (row.must, row.by) = (Some(entry.end), entry.session);
            }
        }
    }
    for entry in history {
        let Op::Delete(of, key) = entry.op else { continue };
        if of != table || entry.refused() {
            continue;
        }
        let row = known.entry(key).or_default();
        let there = row.must.is_some_and(|must| must < entry.start);
        match entry.outcome {
            Outcome::Done(0) if there && entry.strong && row.may_go.is_none() => {
                let what =
                    format!("{table:?}: {key} was acknowledged, and DELETE does not find it");
                wrong.push(Violation::new(entry.end, what));
            }
            Outcome::Done(0) => continue,
            Outcome::Done(1) => {
                row.must_go = Some(row.must_go.map_or(entry.end, |go| go.min(entry.end)));
            }
            Outcome::Done(many) => {
                let what = format!("{table:?}: DELETE finds {key} {many} times");
                wrong.push(Violation::new(entry.end, what));
            }
            _ => {}
        }
        row.may_go = Some(row.may_go.map_or(entry.start, |go| go.min(entry.start)));
    }
    for entry in history.iter().filter(|entry| entry.strong) {
        let (Op::Read(of, ..), Outcome::Keys(keys)) = (&entry.op, &entry.outcome) else { continue };
        for key in keys.iter().filter(|_| *of == table) {
            if let Some(row) = known.get_mut(key) {
                row.seen = Some(row.seen.map_or(entry.end, |seen| seen.min(entry.end)));
            }
        }
    }
    known
}

fn told(entry: &Entry) -> String {
    let how = if entry.strong { "strong" } else { "weak" };
    format!("session {} on daemon {}, {how}", entry.session, entry.daemon)
}

/// The inserts that submitted queries owe, from what has become of them by id: a key whose query has
/// succeeded is there once, one whose query has not is not.
pub fn submitted(
    history: &[Entry],
    states: &HashMap<String, String>,
) -> (Vec<Entry>, Vec<Violation>) {
    let (mut owed, mut wrong) = (Vec::new(), Vec::new());
    let mut ids: HashMap<i64, BTreeSet<&str>> = HashMap::new();
    for entry in history {
        let Op::Submit(key) = entry.op else { continue };
        let outcome = match &entry.outcome {
            Outcome::Id(id) => {
                ids.entry(key).or_default().insert(id);
                match states.get(id).map(String::as_str) {
                    Some("succeeded") => Outcome::Done(1),
                    Some("failed" | "cancelled") => Outcome::Refused("failed".to_owned()),
                    other => {
                        let what = format!("submitted query {id} ({key}) does not end: {other:?}");
                        wrong.push(Violation::new(entry.end, what));
                        Outcome::Unknown("it does not end".to_owned())
                    }
                }
            }
            // Another attempt with the same key may have been acknowledged.
            Outcome::Unknown(why) => Outcome::Unknown(why.clone()),
            _ => Outcome::Refused("refused".to_owned()),
        };
        let op = Op::Insert(Table::Done, vec![key]);
        // It ends when it wants; only reads after the end of all are owed its row.
        owed.push(Entry { op, outcome, ..entry.clone() });
    }
    let end = history.iter().map(|entry| entry.end).max().unwrap_or_default();
    for entry in owed.iter_mut().filter(|entry| entry.done()) {
        entry.end = end;
    }
    // The attempts of one key are one query: what an acknowledged one came to holds for the others.
    owed.retain(|entry| {
        let Op::Insert(_, keys) = &entry.op else { return true };
        entry.done() || keys.iter().all(|key| !ids.contains_key(key)) || decided(entry)
    });
    for (key, ids) in ids.iter().filter(|(_, ids)| ids.len() > 1) {
        wrong.push(Violation::new(end, format!("the key of {key} has several queries: {ids:?}")));
    }
    (owed, wrong)
}

/// Whether the entry tells what became of a query.
fn decided(entry: &Entry) -> bool {
    entry.outcome == Outcome::Refused("failed".to_owned())
}

/// What is only moved from one place to another is never more nor less.
pub fn sums(history: &[Entry], op: &Op, right: &[i64]) -> Vec<Violation> {
    let seen = history.iter().filter(|entry| entry.op == *op);
    let wrong = seen.filter_map(|entry| match &entry.outcome {
        Outcome::Keys(sums) if sums != right => {
            let what = format!("the sums are {sums:?} instead of {right:?} ({})", told(entry));
            Some(Violation::new(entry.end, what))
        }
        _ => None,
    });
    wrong.collect()
}

/// A setting holds the last value that was acknowledged, or one that may be later.
pub fn setting(history: &[Entry], held: i64) -> Vec<Violation> {
    let sets = || history.iter().filter(|entry| matches!(entry.op, Op::Set(_)) && !entry.refused());
    if !sets().any(Entry::done) {
        return Vec::new();
    }
    let last = sets().filter(|entry| entry.done()).map(|entry| entry.start).max().unwrap_or(0);
    let may = sets().any(|entry| entry.op == Op::Set(held) && (!entry.done() || entry.end >= last));
    let what = format!("the setting is {held}, which is not what was set last");
    if may { Vec::new() } else { vec![Violation::new(last, what)] }
}

/// One daemon's stay in the lead, as a witness saw it in the store.
#[derive(Clone, Debug)]
pub struct Term {
    pub daemon: String,
    /// The candidate's number: who comes later has a higher one.
    pub node: String,
    pub from: Moment,
}

/// A piece of housekeeping that was done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Work {
    pub daemon: String,
    pub object: String,
    /// Microseconds of the wall clock.
    pub start: u64,
    pub end: u64,
}

/// The lead only ever passes on, and to one.
pub fn leaders(terms: &[Term]) -> Vec<Violation> {
    let mut wrong = Vec::new();
    for pair in terms.windows(2) {
        if pair[1].node <= pair[0].node {
            let what = format!("{:?} leads after {:?}", pair[1], pair[0]);
            wrong.push(Violation::new(pair[1].from, what));
        }
    }
    let mut of: HashMap<&str, &str> = HashMap::new();
    for term in terms {
        let before = of.insert(&term.node, &term.daemon);
        if before.is_some_and(|before| before != term.daemon) {
            let what = format!("{} is the candidate of two: {before:?}, {term:?}", term.node);
            wrong.push(Violation::new(term.from, what));
        }
    }
    wrong
}

/// No two daemons keep house on one table at the same time. A daemon that was frozen after its commit takes
/// its end for later than it was: pieces of `frozen` microseconds and more say nothing.
pub fn housekeepers(done: &[Work], frozen: u64) -> Vec<Violation> {
    let mut done: Vec<&Work> = done.iter().filter(|work| work.end - work.start < frozen).collect();
    done.sort_by_key(|work| work.start);
    let mut wrong = Vec::new();
    for (at, work) in done.iter().enumerate() {
        let meanwhile = done[at + 1..].iter().take_while(|other| other.start < work.end);
        for other in meanwhile.filter(|other| other.daemon != work.daemon) {
            if other.object == work.object {
                wrong.push(Violation::new(0, format!("two keep house: {work:?} and {other:?}")));
            }
        }
    }
    wrong
}
