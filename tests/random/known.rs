//! Differences from PostgreSQL that are known: each is a rule, as narrow as it can be, and its reason. A
//! rule that a long run never needs is to be taken out.

use crate::compare::{Alike, Answer, compare};

/// A statement that two servers do not answer in the same way.
pub struct Disagreement<'a> {
    pub sql: &'a str,
    pub theirs: &'a Answer,
    pub ours: &'a Answer,
}

/// A difference that is known.
pub struct Rule {
    pub reason: &'static str,
    applies: fn(&Disagreement<'_>) -> bool,
}

/// The rule for a disagreement, if there is one.
pub fn rule(found: &Disagreement<'_>) -> Option<&'static Rule> {
    RULES.iter().find(|rule| (rule.applies)(found))
}

const RULES: &[Rule] = &[
    Rule {
        reason: "the parser takes what stands in parentheses in ROLLUP and the like for a list: nothing \
                 may follow it",
        applies: |found| {
            let grouping = ["ROLLUP (", "CUBE (", "GROUPING SETS ("];
            grouping.iter().any(|clause| found.sql.contains(clause))
                && found.fails("42601", "found: ::")
        },
    },
    Rule {
        reason: "an array in a subquery cannot have the outer query's columns as elements",
        applies: |found| {
            found.sql.contains("(ARRAY[") && found.fails("42P01", "missing FROM-clause")
        },
    },
    Rule {
        reason: "an integer in figures is a bigint, and so is what is computed with it",
        applies: |found| {
            (found.sql.contains(" % 5)") || found.sql.contains(" << 2)"))
                && matches!(found.ours, Answer::Rows { .. })
                && matches!(found.theirs, Answer::Failed { code, .. } if code == "22003")
        },
    },
    Rule {
        reason: "the engine refuses a plan of its own, of a window over rows that it takes for sorted",
        applies: |found| found.fails("42000", "does not satisfy order requirements"),
    },
    Rule {
        reason: "groups by a column and by a cast of it, which have one name to the engine",
        applies: |found| {
            found.sql.contains(" GROUP BY ") && found.fails("42000", "have the same name")
        },
    },
    Rule {
        reason: "PostgreSQL computes constants before it knows that they decide nothing",
        applies: |found| {
            !found.sql.contains(" FROM ")
                && matches!(found.ours, Answer::Rows { .. })
                && matches!(found.theirs, Answer::Failed { code, .. } if code.starts_with("22"))
        },
    },
    Rule {
        reason: "nullif of a real and a double precision is a double precision beside other queries",
        applies: |found| {
            found.sql.contains(" nullif(")
                && found.sql.contains(" UNION ")
                && found.theirs.about().is_some_and(|rows| Some(rows) == found.ours.about())
        },
    },
    Rule {
        reason: "doubles of which large ones cancel each other out, added in another order",
        applies: |found| {
            ["sum(", "avg("].iter().any(|call| found.sql.contains(call))
                && found.theirs.about().is_some_and(|rows| Some(rows) == found.ours.about())
        },
    },
    Rule {
        reason: "intervals of one length, which are sorted as one value and written in several ways",
        applies: |found| {
            found.sql.contains(" ORDER BY ")
                && ["1 mon", "30 days"].iter().all(|text| found.theirs.has(text))
                && compare(found.theirs, found.ours, false) != Alike::Different
        },
    },
    Rule {
        reason: "zero with a minus comes before zero, where PostgreSQL sorts both alike",
        applies: |found| {
            found.sql.contains(" ORDER BY ")
                && found.theirs.has("-0")
                && compare(found.theirs, found.ours, false) != Alike::Different
        },
    },
];

impl Disagreement<'_> {
    /// Whether only the daemon fails, with this code and these words.
    fn fails(&self, wanted: &str, words: &str) -> bool {
        matches!(self.theirs, Answer::Rows { .. })
            && matches!(
                self.ours,
                Answer::Failed { code, message } if code == wanted && message.contains(words)
            )
    }
}
