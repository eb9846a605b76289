//! Whether what was told of tables, and of roles, by their names can have happened one after the other: for each name a
//! register that holds a table or none. After Wing and Gong, with the configurations that are possible
//! kept from event to event (Lowe, "Testing for linearizability").

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::history::{Entry, Moment, Op, Outcome, Violation};

/// Configurations that are looked at for one event; beyond it nothing is said of the name.
const MOST: usize = 200_000;

#[derive(Clone, Copy, Debug)]
enum Step {
    Create(i64),
    /// Refused, because there is one.
    There,
    Drop,
    /// Refused, because there is none.
    Absent,
    Look(Option<i64>),
}

impl Step {
    /// What is there afterwards; none if it cannot come now.
    fn after(self, held: Option<i64>) -> Option<Option<i64>> {
        match (self, held) {
            (Self::Create(value), None) => Some(Some(value)),
            (Self::There, Some(_)) => Some(held),
            (Self::Drop, Some(_)) => Some(None),
            (Self::Absent, None) => Some(None),
            (Self::Look(seen), held) if seen == held => Some(held),
            _ => None,
        }
    }
}

struct Call {
    step: Step,
    start: Moment,
    /// None if nobody knows whether it was done: it may come at any time after its start, or never.
    end: Option<Moment>,
    told: String,
}

/// What is held, and which of the calls under way have come.
type Configuration = (Option<i64>, BTreeSet<usize>);

/// The violations, and how many names were too entangled to decide.
pub fn check(history: &[Entry]) -> (Vec<Violation>, usize) {
    let (mut wrong, mut undecided) = (Vec::new(), 0);
    let mut names: BTreeMap<&str, Vec<Call>> = BTreeMap::new();
    for entry in history {
        if let Some((name, call)) = call(entry) {
            names.entry(name).or_default().push(call);
        }
    }
    for (name, calls) in names {
        match linearize(&calls) {
            Verdict::Fine => {}
            Verdict::Entangled => undecided += 1,
            Verdict::Wrong(at) => {
                let around = calls.iter().filter(|call| {
                    call.start < calls[at].end.unwrap_or(Moment::MAX)
                        && call.end.is_none_or(|end| end + 10_000_000 > calls[at].start)
                });
                let around: Vec<_> = around.map(|call| call.told.as_str()).collect();
                let what = format!(
                    "{name}: {} cannot be, after and beside\n    {}",
                    calls[at].told,
                    around.join("\n    ")
                );
                wrong.push(Violation::new(calls[at].start, what));
            }
        }
    }
    (wrong, undecided)
}

fn call(entry: &Entry) -> Option<(&str, Call)> {
    let (name, step) = match (&entry.op, &entry.outcome) {
        (Op::Create(name, _), Outcome::Refused(code)) if ["42P07", "42710"].contains(&&**code) => {
            (name, Step::There)
        }
        (Op::Drop(name), Outcome::Refused(code)) if ["42P01", "42704"].contains(&&**code) => {
            (name, Step::Absent)
        }
        (_, Outcome::Refused(_)) => return None,
        (Op::Create(name, value), _) => (name, Step::Create(*value)),
        (Op::Drop(name), _) => (name, Step::Drop),
        (Op::Look(name), Outcome::Held(held)) => (name, Step::Look(*held)),
        _ => return None,
    };
    let end = entry.done() || entry.refused();
    let told = format!(
        "{:.3}-{:.3} {:?} on daemon {}: {:?}",
        crate::history::seconds(entry.start),
        crate::history::seconds(entry.end),
        entry.op,
        entry.daemon,
        entry.outcome
    );
    Some((name.as_str(), Call { step, start: entry.start, end: end.then_some(entry.end), told }))
}

enum Verdict {
    Fine,
    Entangled,
    /// The call that can have no place.
    Wrong(usize),
}

fn linearize(calls: &[Call]) -> Verdict {
    let mut events: Vec<(Moment, bool, usize)> = Vec::new();
    for (at, call) in calls.iter().enumerate() {
        events.push((call.start, false, at));
        events.extend(call.end.map(|end| (end, true, at)));
    }
    events.sort_unstable();
    let mut pending = BTreeSet::new();
    let mut possible: HashSet<Configuration> = HashSet::from([(None, BTreeSet::new())]);
    for (_, ends, at) in events {
        if !ends {
            pending.insert(at);
            continue;
        }
        let Some(reached) = reach(&possible, &pending, calls, at) else {
            return Verdict::Entangled;
        };
        if reached.is_empty() {
            return Verdict::Wrong(at);
        }
        pending.remove(&at);
        possible = reached;
    }
    Verdict::Fine
}

/// All configurations in which a call has come, without it; none if there are too many.
fn reach(
    possible: &HashSet<Configuration>,
    pending: &BTreeSet<usize>,
    calls: &[Call],
    wanted: usize,
) -> Option<HashSet<Configuration>> {
    let mut seen: HashSet<Configuration> = possible.clone();
    let mut left: Vec<Configuration> = possible.iter().cloned().collect();
    let mut reached = HashSet::new();
    while let Some((held, come)) = left.pop() {
        if come.contains(&wanted) {
            let mut without = come;
            without.remove(&wanted);
            reached.insert((held, without));
            continue;
        }
        for at in pending.difference(&come) {
            let Some(after) = calls[*at].step.after(held) else { continue };
            let mut more = come.clone();
            more.insert(*at);
            if seen.insert((after, more.clone())) {
                left.push((after, more));
            }
        }
        if seen.len() > MOST {
            return None;
        }
    }
    Some(reached)
}
