//! Statements that a seed makes up, answered by a real PostgreSQL and by a daemon: rows have to be the same,
//! and so has the class of an error. And conditions, of which each row fulfils one of `p`, `NOT p` and
//! `p IS NULL`, asked of the daemon alone.
//!
//! [`tables`] and [`expressions`] say what is in them, [`known`] which differences there are and why.
//! A run is short by default. `ORIBI_RANDOM_STATEMENTS` makes it longer, another `ORIBI_RANDOM_SEED`
//! makes up other statements.

mod common;
#[path = "random/compare.rs"]
mod compare;
#[path = "random/expressions.rs"]
mod expressions;
#[path = "random/generator.rs"]
mod generator;
#[path = "random/known.rs"]
mod known;
#[path = "fuzz/mutate.rs"]
#[allow(dead_code)]
mod mutate;
#[path = "differential/script.rs"]
#[allow(dead_code)]
mod script;
#[path = "differential/session.rs"]
#[allow(dead_code)]
mod session;
#[path = "random/tables.rs"]
mod tables;
#[path = "differential/transcript.rs"]
#[allow(dead_code)]
mod transcript;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use common::daemon::{Daemon, Options};
use common::postgres::Server;
use compare::{Alike, Answer, ask, compare};
use expressions::Maker;
use known::{Disagreement, rule};
use mutate::Random;
use script::Step;
use session::Session;

/// Of a short run.
const STATEMENTS: u64 = 1_500;

/// Statements over the same tables.
const ROUND: u64 = 1_000;

/// For each condition that is partitioned, so many statements.
const PER_PARTITION: u64 = 8;

/// How many disagreements are told in full.
const TOLD: usize = 40;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// What came of a run.
#[derive(Default)]
struct Figures {
    asked: BTreeMap<&'static str, u64>,
    /// Of them, those that gave rows, or failed, on both sides.
    rows: u64,
    failed: u64,
    rounded: u64,
    known: BTreeMap<&'static str, u64>,
    disagreements: Vec<String>,
}

#[test]
fn statements_are_answered_as_by_postgresql() {
    let count = setting("ORIBI_RANDOM_STATEMENTS").unwrap_or(STATEMENTS);
    let seed = setting("ORIBI_RANDOM_SEED").unwrap_or(1);
    println!("ORIBI_RANDOM_SEED={seed} ORIBI_RANDOM_STATEMENTS={count}");
    let (postgres, oribi) = (Server::start(), Daemon::start(&Options::new()));
    let (mut theirs, mut ours) = (open(postgres.address()), open(oribi.postgres()));
    let (mut figures, began) = (Figures::default(), Instant::now());
    let rounds = count.div_ceil(ROUND);
    for round in 0..rounds {
        // Rounds of other runs have other seeds, as long as these are not very many.
        let seed = seed.wrapping_mul(1_000).wrapping_add(round);
        make_tables(seed, round > 0, &mut [&mut theirs, &mut ours]);
        let mut maker = Maker::new(seed);
        for number in 0..ROUND.min(count - round * ROUND) {
            let statement = generator::statement(&mut maker);
            let extended = number % 2 == 1;
            *figures.asked.entry(statement.about).or_default() += 1;
            let (sql, ordered) = (&statement.sql, statement.ordered);
            let answers = [&mut theirs, &mut ours].map(|session| ask(session, sql, extended));
            figures.note(sql, &answers, ordered);
            if matches!(answers[1], Answer::Lost(_)) {
                ours = open(oribi.postgres());
            }
            if number % PER_PARTITION == 0 {
                let partition = generator::partition(&mut maker);
                *figures.asked.entry("partitions").or_default() += 1;
                let (whole, parts) = (&partition.whole, &partition.parts);
                let answers = [whole, parts].map(|sql| ask(&mut ours, sql, extended));
                figures.note(parts, &answers, false);
            }
        }
    }
    figures.tell(began);
    assert!(
        figures.disagreements.is_empty(),
        "ORIBI_RANDOM_SEED={seed} ORIBI_RANDOM_STATEMENTS={count}: {} disagreements\n{}",
        figures.disagreements.len(),
        figures.disagreements[..TOLD.min(figures.disagreements.len())].join("\n")
    );
}

fn open(address: SocketAddr) -> Session {
    let mut session = Session::open(address);
    session.say(&Step::usual_start());
    session.hear('Z');
    session
}

fn make_tables(seed: u64, again: bool, sessions: &mut [&mut Session]) {
    let mut statements = Vec::new();
    if again {
        statements.extend(tables::TABLES.iter().map(|(table, _)| format!("DROP TABLE {table}")));
    }
    statements.extend(tables::made(&mut Random::new(seed)));
    for session in sessions {
        for sql in &statements {
            let answer = ask(session, sql, false);
            assert!(matches!(answer, Answer::Rows { .. }), "{sql}\n{}", answer.shown());
        }
    }
}

impl Figures {
    fn note(&mut self, sql: &str, answers: &[Answer; 2], ordered: bool) {
        let [theirs, ours] = answers;
        match compare(theirs, ours, ordered) {
            Alike::Same => {}
            Alike::Rounded => self.rounded += 1,
            Alike::Different => {
                match rule(&Disagreement { sql, theirs, ours }) {
                    Some(rule) => *self.known.entry(rule.reason).or_default() += 1,
                    None => self.disagreements.push(format!(
                        "\n{sql}\n- {}\n+ {}",
                        theirs.shown(),
                        ours.shown()
                    )),
                }
                return;
            }
        }
        match ours {
            Answer::Failed { .. } => self.failed += 1,
            _ => self.rows += 1,
        }
    }

    fn tell(&self, began: Instant) {
        let seconds = began.elapsed().as_secs_f32();
        println!("{} asked in {seconds:.0} s: {:?}", self.asked.values().sum::<u64>(), self.asked);
        println!(
            "{} with the same rows ({} but for the last digits of inexact numbers), {} with the same \
             class of error, {} disagreements; known differences:",
            self.rows,
            self.rounded,
            self.failed,
            self.disagreements.len()
        );
        for (reason, times) in &self.known {
            println!("{times:6} {reason}");
        }
    }
}
