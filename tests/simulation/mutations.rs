//! What a schedule finds when a check is missing: each row of [`CASES`] switches one off, and some
//! schedule must notice. The checks are left out on their way to the store, or its answers are not
//! what they were, so that the code under test is as in production.

use bytes::Bytes;
use oribi::coordination::{Node, Op, Stat};
use serde_json::Value;

use crate::Recipe;
use crate::sim::Sim;

/// What is switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Transactions do not check nodes whose paths begin so.
    NoCheck(&'static str),
    /// Writes of nodes whose paths begin so do not compare versions.
    NoVersion(&'static str),
    /// Nor do those of this node.
    NoVersionAt(&'static str),
    /// Deleting what is gone below this does not fail a transaction.
    NoDelete(&'static str),
    /// The client is told of a longer time-out than the store's.
    LongLease,
    /// A client takes a lost reply for a refusal.
    DoubtIsRefusal,
    /// What a client reads to clear up a doubt has another nonce than was written.
    ForeignNonce,
    /// Records are read without this.
    Without(&'static str),
    /// What is said of a node does not tell how often something was made or removed below it.
    StillChildren,
}

impl Mutation {
    /// A step as it is carried out; `None` if it is not.
    pub fn step(self, op: Op, sim: &Sim) -> Option<Op> {
        let below = |beginning: &str| op.path().starts_with(beginning);
        match (self, &op) {
            (Self::NoCheck(beginning), Op::Check { .. }) if below(beginning) => None,
            (Self::NoDelete(beginning), Op::Delete { path, .. })
                if below(beginning) && sim.node(path).is_none() =>
            {
                None
            }
            (Self::NoVersion(beginning), _) if below(beginning) => Some(without_version(op)),
            (Self::NoVersionAt(path), _) if op.path() == path => Some(without_version(op)),
            _ => Some(op),
        }
    }

    /// A node as it is read while a write is in doubt.
    pub fn read(self, mut node: Node) -> Node {
        if self == Self::ForeignNonce
            && let Ok(Value::Object(mut record)) = serde_json::from_slice(&node.data)
            && let Some(nonce) = record.get_mut("nonce")
        {
            *nonce = "00000000-0000-0000-0000-000000000000".into();
            node.data = Bytes::from(Value::Object(record).to_string());
        }
        node
    }

    /// A node as it is read at any time.
    pub fn get(self, mut node: Node) -> Node {
        if let Self::Without(field) = self
            && let Ok(Value::Object(mut record)) = serde_json::from_slice(&node.data)
            && record.remove(field).is_some()
        {
            node.data = Bytes::from(Value::Object(record).to_string());
        }
        node
    }

    /// What is said of a node.
    pub fn stat(self, stat: Stat) -> Stat {
        match self {
            Self::StillChildren => Stat { cversion: 0, ..stat },
            _ => stat,
        }
    }
}

fn without_version(op: Op) -> Op {
    match op {
        Op::Set { path, data, .. } => Op::Set { path, data, version: None },
        Op::Delete { path, .. } => Op::Delete { path, version: None },
        other => other,
    }
}

/// A missing check, and within how many schedules that is noticed.
pub struct Case {
    pub what: &'static str,
    pub recipe: Recipe,
    pub mutation: Mutation,
    /// The first seed that is tried: where it is noticed seldom, one that notices it.
    pub first: u64,
    pub seeds: u64,
}

/// All of them.
pub const CASES: &[Case] = &[
    Case {
        what: "a leader's act checks the leader's node",
        recipe: Recipe::Cluster,
        mutation: Mutation::NoCheck("/leader/"),
        first: 0,
        seeds: 200,
    },
    Case {
        what: "a candidate, and a change of the own record, check the incarnation",
        recipe: Recipe::Cluster,
        mutation: Mutation::NoCheck("/incarnations/"),
        first: 0,
        seeds: 200,
    },
    Case {
        what: "a predecessor's record goes with its incarnation",
        recipe: Recipe::Cluster,
        mutation: Mutation::NoDelete("/incarnations/"),
        first: 11_000,
        seeds: 2000,
    },
    Case {
        what: "a lease ends before the session",
        recipe: Recipe::Cluster,
        mutation: Mutation::LongLease,
        first: 0,
        seeds: 200,
    },
    Case {
        what: "a change of a table or schema compares its version",
        recipe: Recipe::Ddl,
        mutation: Mutation::NoVersion("/catalog/oribi/"),
        first: 0,
        seeds: 200,
    },
    Case {
        what: "a change of a table checks that it is still the same one",
        recipe: Recipe::Ddl,
        mutation: Mutation::NoCheck("/lives/"),
        first: 0,
        seeds: 1000,
    },
    Case {
        what: "whoever puts a table into a schema, and whoever drops that, compare its version",
        recipe: Recipe::Ddl,
        mutation: Mutation::NoVersionAt("/catalog/oribi/s."),
        first: 0,
        seeds: 1000,
    },
    Case {
        what: "a block of identifiers compares the counter's version",
        recipe: Recipe::Ddl,
        mutation: Mutation::NoVersionAt("/oids"),
        first: 0,
        seeds: 1000,
    },
    Case {
        what: "a lost reply leaves a doubt",
        recipe: Recipe::Ddl,
        mutation: Mutation::DoubtIsRefusal,
        first: 0,
        seeds: 200,
    },
    Case {
        what: "a doubt is cleared up by the nonce",
        recipe: Recipe::Ddl,
        mutation: Mutation::ForeignNonce,
        first: 0,
        seeds: 200,
    },
    Case {
        what: "no nonce proves nothing where something was made or removed meanwhile",
        recipe: Recipe::Ddl,
        mutation: Mutation::StillChildren,
        first: 0,
        seeds: 500,
    },
    Case {
        what: "a commit compares the version of the table's record",
        recipe: Recipe::Tables,
        mutation: Mutation::NoVersionAt("/catalog/oribi/t"),
        first: 0,
        seeds: 200,
    },
    Case {
        what: "a commit checks that its daemon is registered",
        recipe: Recipe::Tables,
        mutation: Mutation::NoCheck("/incarnations/"),
        first: 0,
        seeds: 2000,
    },
    Case {
        what: "a commit whose reply was lost is looked for",
        recipe: Recipe::Tables,
        mutation: Mutation::DoubtIsRefusal,
        first: 0,
        seeds: 200,
    },
    Case {
        what: "who knows one record of a commit over a few tables reads the others",
        recipe: Recipe::Joint,
        mutation: Mutation::Without("joint"),
        first: 0,
        seeds: 200,
    },
    Case {
        what: "who knows one record of a commit over many tables reads the others",
        recipe: Recipe::Joint,
        mutation: Mutation::Without("wide"),
        first: 0,
        seeds: 200,
    },
    Case {
        what: "an attempt's end removes the claim of this attempt",
        recipe: Recipe::Claims,
        mutation: Mutation::NoDelete("/claims/"),
        first: 0,
        seeds: 2000,
    },
    Case {
        what: "an end takes the query out of the queue",
        recipe: Recipe::Claims,
        mutation: Mutation::NoDelete("/queue/"),
        first: 0,
        seeds: 2000,
    },
    // Not here: who takes a query, or gives it back, checks that it is in the queue. Without that nothing went
    // wrong in 2,000 schedules: the record's version, which is compared as well, changes along with the queue.
    Case {
        what: "who takes or cancels a query compares its record's version",
        recipe: Recipe::Claims,
        mutation: Mutation::NoVersion("/queries/"),
        first: 0,
        seeds: 2000,
    },
    Case {
        what: "who takes a query checks that it is registered",
        recipe: Recipe::Claims,
        mutation: Mutation::NoCheck("/incarnations/"),
        first: 0,
        seeds: 2000,
    },
];
