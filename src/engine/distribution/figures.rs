//! What the daemons have done for a statement that several of them have run.
//!
//! Each sees what its own parts take ([`Observation`]), and keeps that for a while after their end. The
//! daemon whose statement it is asks the others: once when the statement is over and its client has
//! been served ([`complete`]), for all statements that have ended by then together; and now and then as
//! long as it runs for how far it is ([`Distribution::follow`]). No statement waits for either.
//!
//! A daemon that does not know a statement has had no part of it, if it remembers all since the
//! statement began; if not, it is one that does not tell.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::debug;
use uuid::Uuid;

use super::Distribution;
use super::guests::Guests;
use crate::cluster::Worker;
use crate::engine::observe::{Figures, Observation};
use crate::engine::progress::Progress;

/// How long a daemon may take to tell. Whoever reads the history may wait for it.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often it is asked how far statements are, and how long they have run by then at least.
const TELL: Duration = Duration::from_secs(1);

/// What a question begins with. The rest is a list of statements, as JSON.
pub(super) const QUESTION: &str = "figures ";

/// Statements in one question: a few ten kilobytes.
const STATEMENTS: usize = 1000;

/// A run of a statement on several daemons.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Attempt {
    pub distribution: Weak<Distribution>,
    pub statement: Uuid,
    pub since: Instant,
    /// The other daemons that take part.
    pub others: Vec<Worker>,
}

/// What a daemon has done for a statement of another's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Told {
    figures: Figures,
    progress: Progress,
}

/// What a daemon knows of some statements.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    /// Milliseconds up to now of which it has forgotten nothing.
    remembers: u64,
    statements: HashMap<Uuid, Told>,
}

impl Told {
    pub fn of(observation: &Observation) -> Self {
        Self { figures: observation.share(), progress: observation.here() }
    }
}

/// Answers another daemon.
pub(super) fn answer(guests: &Guests, statements: &str) -> Result<Vec<u8>, String> {
    let asked: Vec<Uuid> = serde_json::from_str(statements).map_err(|error| error.to_string())?;
    let (remembers, statements) = guests.recall(&asked);
    let remembers = u64::try_from(remembers.as_millis()).unwrap_or(u64::MAX);
    serde_json::to_vec(&Answer { remembers, statements }).map_err(|error| error.to_string())
}

impl Answer {
    /// Of a statement that has begun then; `None` if it may have been forgotten.
    fn of(&self, attempt: &Attempt) -> Option<Told> {
        let told = self.statements.get(&attempt.statement).copied();
        let age = attempt.since.elapsed();
        told.or_else(|| (age <= Duration::from_millis(self.remembers)).then(Told::default))
    }
}

/// Has all other daemons tell what they have done for these statements, which are over. Ends soon.
pub async fn complete(ended: impl IntoIterator<Item = &Arc<Observation>>) {
    let attempts = ended.into_iter().flat_map(|observation| {
        observation.take_attempts().into_iter().map(move |attempt| (observation, attempt))
    });
    let attempts: Vec<(&Arc<Observation>, Attempt)> = attempts.collect();
    let distribution = attempts.iter().find_map(|(_, attempt)| attempt.distribution.upgrade());
    let Some(distribution) = distribution else { return };
    let asked: Vec<&Attempt> = attempts.iter().map(|(_, attempt)| attempt).collect();
    let told = distribution.ask_each(&asked).await;
    for (observation, attempt) in &attempts {
        for worker in &attempt.others {
            let answer = told.get(&worker.incarnation).and_then(|answer| answer.of(attempt));
            observation.note_share(&worker.id, answer.map(|told| told.figures));
        }
    }
}

impl Distribution {
    /// Keeps in mind how far this daemon's statements are on the others, until `end`.
    pub(super) async fn follow(&self, end: &CancellationToken) {
        loop {
            tokio::select! {
                () = end.cancelled() => return,
                () = tokio::time::sleep(TELL) => {}
            }
            let running = self.guests.hosted().into_iter().filter_map(|observation| {
                let attempt = observation.last_attempt()?;
                (attempt.since.elapsed() >= TELL).then_some((observation, attempt))
            });
            let running: Vec<(Arc<Observation>, Attempt)> = running.collect();
            let asked: Vec<&Attempt> = running.iter().map(|(_, attempt)| attempt).collect();
            let told = self.ask_each(&asked).await;
            for (observation, attempt) in &running {
                for worker in &attempt.others {
                    let answer = told.get(&worker.incarnation);
                    if let Some(told) = answer.and_then(|answer| answer.of(attempt)) {
                        let Told { figures, progress } = told;
                        observation.note_elsewhere(&worker.id, progress, figures.scanned);
                    }
                }
            }
        }
    }

    /// Asks each worker once for all its statements among these. Those that do not answer are left out.
    async fn ask_each(&self, attempts: &[&Attempt]) -> HashMap<Uuid, Answer> {
        let mut asked: HashMap<Uuid, (&Worker, Vec<Uuid>)> = HashMap::new();
        for attempt in attempts {
            for worker in &attempt.others {
                let (_, statements) = asked.entry(worker.incarnation).or_insert((worker, vec![]));
                statements.push(attempt.statement);
            }
        }
        let asked = asked.into_values().map(async |(worker, statements)| {
            let answer = match self.peers.workers.is_well(worker) {
                true => timeout(PATIENCE, self.ask_one(worker, &statements)).await,
                false => Ok(Err("it is left alone".to_owned())),
            };
            let answer = answer.unwrap_or_else(|_| Err("it takes too long".to_owned()));
            answer
                .inspect_err(|reason| debug!(worker = worker.id, reason, "a worker does not tell"))
                .ok()
                .map(|answer| (worker.incarnation, answer))
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    async fn ask_one(&self, worker: &Worker, statements: &[Uuid]) -> Result<Answer, String> {
        let mut all = Answer { remembers: u64::MAX, statements: HashMap::new() };
        for some in statements.chunks(STATEMENTS) {
            let some = serde_json::to_string(some).map_err(|error| error.to_string())?;
            let answer = self.question(worker, &format!("{QUESTION}{some}")).await?;
            let answer: Answer =
                serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
            all.remembers = all.remembers.min(answer.remembers);
            all.statements.extend(answer.statements);
        }
        Ok(all)
    }
}
