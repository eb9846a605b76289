//! What parts of other daemons' statements may take of this one.
//!
//! A part that is too much is refused at once: nobody waits here for what others have asked for, and
//! the daemon that asked runs its statement by itself. What all parts of one statement use together
//! is bounded, so that one daemon's statement cannot take another daemon's memory: it spills, or fails
//! with what its own client is told.
//!
//! What they have done is kept for a while after their end, for the daemon whose statement it was.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::MemoryLimit;
use datafusion::execution::runtime_env::RuntimeEnv;
use tracing::debug;
use uuid::Uuid;

use super::figures::Told;
use super::travel::Travel;
use crate::config;
use crate::engine::memory::{Bound, bound_of, part_of};
use crate::engine::observe::{Figures, Observation};
use crate::id;
use crate::metrics::Counter;
use crate::traces::{Span, Traces};

/// Parts of a hundred of the engine's memory that are in use when no more statements are let in.
const FULL: usize = 90;

/// How long it is known what has been done for a statement, and for how many of them.
const MEMORY: (Duration, usize) = (Duration::from_secs(60), 10_000);

/// Why a part is not taken. It reaches the daemon that asked as a text, which is enough: an error
/// without a type has it run the statement by itself.
#[derive(Debug, thiserror::Error)]
#[error("this daemon takes no more parts of others' statements: {0}")]
struct Refused(&'static str);

/// The parts that run here.
#[derive(Debug)]
pub(super) struct Guests {
    /// What they share with this daemon's own statements.
    environment: Arc<RuntimeEnv>,
    inside: Mutex<Inside>,
    /// Parts that were let in, and that were not.
    pub admitted: Counter,
    pub refused: Counter,
    /// Where what they have done is told, with this daemon's name.
    traces: Option<(Arc<Traces>, String)>,
}

#[derive(Debug)]
struct Inside {
    settings: config::Distribution,
    parts: usize,
    statements: HashMap<Uuid, Statement>,
    past: Past,
}

/// What was done for statements no part of which runs here any more.
#[derive(Debug)]
struct Past {
    done: HashMap<Uuid, Arc<Observation>>,
    /// In the order of their ends.
    ends: VecDeque<(Instant, Uuid)>,
    /// Since when nothing is forgotten.
    since: Instant,
}

impl Past {
    fn new() -> Self {
        Self { done: HashMap::new(), ends: VecDeque::new(), since: Instant::now() }
    }

    fn keep(&mut self, statement: Uuid, observation: Arc<Observation>, now: Instant) {
        self.done.insert(statement, observation);
        self.ends.push_back((now, statement));
        let (keep, most) = MEMORY;
        while let Some((end, statement)) = self.ends.front().copied()
            && (self.ends.len() > most || now.saturating_duration_since(end) > keep)
        {
            self.ends.pop_front();
            self.done.remove(&statement);
            self.since = end;
        }
    }
}

/// A statement some of whose parts run here.
#[derive(Debug)]
struct Statement {
    environment: Arc<RuntimeEnv>,
    /// This daemon's own: its parts are no guests.
    own: bool,
    /// What its parts do here. One of this daemon's own need not be observed.
    observation: Option<Arc<Observation>>,
    parts: usize,
    since: DateTime<Utc>,
}

/// Held as long as a part runs.
#[derive(Debug)]
pub(super) struct Guest {
    guests: Arc<Guests>,
    statement: Uuid,
}

/// Held by a statement that this daemon spreads: its parts that come back here run with its memory.
#[derive(Debug)]
pub(super) struct Host {
    guests: Arc<Guests>,
    statement: Uuid,
}

impl Guests {
    pub fn new(
        settings: config::Distribution,
        environment: Arc<RuntimeEnv>,
        traces: Option<(Arc<Traces>, String)>,
    ) -> Arc<Self> {
        let (parts, statements, past) = (0, HashMap::new(), Past::new());
        let inside = Mutex::new(Inside { settings, parts, statements, past });
        let (admitted, refused) = Default::default();
        Arc::new(Self { environment, inside, admitted, refused, traces })
    }

    /// Parts that run here now, and how many may.
    pub fn parts(&self) -> (usize, usize) {
        let inside = self.inside();
        (inside.parts, inside.settings.max_parts)
    }

    /// Lets in as much as other settings say, from now on.
    pub fn change(&self, settings: config::Distribution) {
        self.inside().settings = settings;
    }

    /// A statement of this daemon is spread, which runs with this memory here, and is observed.
    pub fn host(
        self: &Arc<Self>,
        travel: &mut Travel,
        environment: &Arc<RuntimeEnv>,
        observation: Option<Arc<Observation>>,
    ) -> Host {
        let statement = id::statement();
        travel.statement = statement;
        travel.query = observation.as_ref().map(|observation| observation.id()).unwrap_or_default();
        travel.bound = bound_of(environment).cloned();
        let environment = match &observation {
            Some(observation) => observation.of(environment),
            None => environment.clone(),
        };
        let since = Utc::now();
        let own = Statement { environment, own: true, observation, parts: 0, since };
        self.inside().statements.insert(statement, own);
        Host { guests: self.clone(), statement }
    }

    /// A part of a statement arrives: what it runs with.
    pub fn admit(
        self: &Arc<Self>,
        travel: &Travel,
    ) -> Result<(Option<Guest>, Arc<RuntimeEnv>), DataFusionError> {
        let mut inside = self.inside();
        let known = inside.statements.get(&travel.statement);
        if let Some(own) = known.filter(|known| known.own) {
            return Ok((None, own.environment.clone()));
        }
        let refused = |reason| {
            debug!(statement = %travel.query, reason, "a part of another daemon's is refused");
            self.refused.add(1);
            Err(DataFusionError::External(Box::new(Refused(reason))))
        };
        if inside.parts >= inside.settings.max_parts {
            return refused("there are too many");
        }
        if known.is_none() && self.is_full() {
            return refused("its memory is nearly used up");
        }
        let Inside { settings, parts, statements, past } = &mut *inside;
        *parts += 1;
        self.admitted.add(1);
        let share = settings.statement_memory;
        let known = statements.entry(travel.statement).or_insert_with(|| {
            let observation = past.done.remove(&travel.statement);
            debug!(statement = %travel.query, "parts of another daemon's statement run here");
            let observation = observation.unwrap_or_else(|| Observation::new(travel.query, None));
            let environment = observation.of(&self.bound(travel, share).of(&self.environment));
            let (observation, since) = (Some(observation), Utc::now());
            Statement { environment, own: false, observation, parts: 0, since }
        });
        known.parts += 1;
        let guest = Guest { guests: self.clone(), statement: travel.statement };
        Ok((Some(guest), known.environment.clone()))
    }

    /// What observes a part's statement, as long as there are parts of it.
    pub fn observation(&self, travel: &Travel) -> Option<Arc<Observation>> {
        self.inside().statements.get(&travel.statement)?.observation.clone()
    }

    /// What was done here for others' statements, as far as it is known; and the time up to now of which
    /// nothing is forgotten.
    pub fn recall(&self, asked: &[Uuid]) -> (Duration, HashMap<Uuid, Told>) {
        let inside = self.inside();
        let Inside { statements, past, .. } = &*inside;
        let observation = |id: &Uuid| match statements.get(id) {
            Some(statement) => statement.observation.clone(),
            None => past.done.get(id).cloned(),
        };
        let known: Vec<_> = asked.iter().filter_map(|id| Some((*id, observation(id)?))).collect();
        let remembers = past.since.elapsed();
        drop(inside);
        (remembers, known.iter().map(|(id, observation)| (*id, Told::of(observation))).collect())
    }

    /// What observes this daemon's own statements that are spread.
    pub fn hosted(&self) -> Vec<Arc<Observation>> {
        let inside = self.inside();
        let own = inside.statements.values().filter(|statement| statement.own);
        own.filter_map(|statement| statement.observation.clone()).collect()
    }

    /// Tells a collector what was done for a statement since then, if there is one and it is sampled.
    fn trace(&self, observation: &Observation, since: DateTime<Utc>) {
        let statement = observation.id();
        let wanted = self.traces.as_ref().filter(|(traces, _)| traces.wants(statement));
        let Some((traces, daemon)) = wanted else { return };
        let Figures { scanned, rows_scanned, spilled, peak } = observation.share();
        let attributes = vec![
            ("oribi.daemon", daemon.as_str().into()),
            ("oribi.scanned_bytes", scanned.into()),
            ("oribi.scanned_rows", rows_scanned.into()),
            ("oribi.spilled_bytes", spilled.into()),
            ("oribi.peak_memory_bytes", peak.into()),
        ];
        let (name, ended) = ("parts".to_owned(), Utc::now());
        let (own, started, error) = (false, since, None);
        traces.add(Span { statement, own, name, started, ended, attributes, error });
    }

    fn bound(&self, travel: &Travel, share: config::Share) -> Bound {
        let here = part_of(share, self.limit().unwrap_or(usize::MAX));
        let here = Bound::of_guest(here);
        travel.bound.clone().filter(|bound| bound.bytes < here.bytes).unwrap_or(here)
    }

    fn limit(&self) -> Option<usize> {
        match self.environment.memory_pool.memory_limit() {
            MemoryLimit::Finite(limit) => Some(limit),
            MemoryLimit::Infinite | MemoryLimit::Unknown => None,
        }
    }

    fn is_full(&self) -> bool {
        let used = self.environment.memory_pool.reserved();
        self.limit().is_some_and(|limit| used >= limit / 100 * FULL)
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut inside = self.guests.inside();
        inside.parts -= 1;
        let Some(statement) = inside.statements.get_mut(&self.statement) else { return };
        statement.parts -= 1;
        if statement.parts == 0
            && let Some(Statement { observation: Some(observation), since, .. }) =
                inside.statements.remove(&self.statement)
        {
            self.guests.trace(&observation, since);
            inside.past.keep(self.statement, observation, Instant::now());
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.guests.inside().statements.remove(&self.statement);
    }
}

#[cfg(test)]
mod tests {
    use datafusion::execution::memory_pool::{FairSpillPool, MemoryConsumer};
    use datafusion::execution::runtime_env::RuntimeEnvBuilder;

    use super::*;
    use crate::config::Config;

    const LIMIT: usize = 100 << 20;

    fn guests(max_parts: usize) -> Arc<Guests> {
        let settings = Config::load(None, [], []).expect("defaults").distribution;
        let pool = Arc::new(FairSpillPool::new(LIMIT));
        let environment = RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc();
        let settings = config::Distribution { max_parts, ..settings };
        Guests::new(settings, environment.expect("an environment"), None)
    }

    fn statement() -> Travel {
        Travel { statement: id::statement(), ..Travel::default() }
    }

    #[test]
    fn too_many_parts_are_refused_until_others_have_ended() {
        let guests = guests(3);
        let (one, other) = (statement(), statement());
        let mut held = vec![guests.admit(&one).unwrap(), guests.admit(&one).unwrap()];
        held.push(guests.admit(&other).unwrap());
        let refused = guests.admit(&one).unwrap_err();
        assert!(refused.to_string().contains("there are too many"), "{refused}");
        held.pop();
        held.push(guests.admit(&one).unwrap());
        // As many as is said now.
        guests.admit(&one).unwrap_err();
        let settings = guests.inside().settings.clone();
        guests.change(config::Distribution { max_parts: 4, ..settings });
        held.push(guests.admit(&one).unwrap());
        drop(held);
        assert!(guests.inside().statements.is_empty());
        assert_eq!(guests.inside().parts, 0);
    }

    #[test]
    fn the_parts_of_a_statement_share_a_part_of_the_memory() {
        let guests = guests(10);
        let (one, other) = (statement(), statement());
        let (first, second) = (guests.admit(&one).unwrap(), guests.admit(&one).unwrap());
        assert!(Arc::ptr_eq(&first.1, &second.1));
        let reserve = |environment: &RuntimeEnv| {
            MemoryConsumer::new("test").register(&environment.memory_pool)
        };
        let (a, b) = (reserve(&first.1), reserve(&second.1));
        a.try_grow(LIMIT / 4).unwrap();
        b.try_grow(LIMIT / 4).unwrap();
        let refused = b.try_grow(1).unwrap_err();
        assert!(matches!(refused, DataFusionError::ResourcesExhausted(_)));
        assert!(refused.to_string().contains("a statement of another daemon may use 50.0 MiB"));
        // The others have what is left.
        let third = guests.admit(&other).unwrap();
        let c = reserve(&third.1);
        c.try_grow(LIMIT / 2 - 1).unwrap();
        let refused = guests.admit(&statement()).unwrap_err();
        assert!(refused.to_string().contains("nearly used up"), "{refused}");
        drop((a, b, c));
        guests.admit(&statement()).unwrap();
        assert_eq!(guests.environment.memory_pool.reserved(), 0);
    }

    #[test]
    fn what_was_done_is_known_for_a_while() {
        let guests = guests(3);
        let (one, own) = (statement(), statement().statement);
        let peak = |known: &HashMap<Uuid, Told>| {
            let told = known.get(&one.statement).expect("it is known");
            serde_json::to_value(told).expect("JSON")["figures"]["peak"].as_u64()
        };
        for bytes in [1000, 3000, 2000] {
            let (guest, environment) = guests.admit(&one).unwrap();
            let memory = MemoryConsumer::new("test").register(&environment.memory_pool);
            memory.try_grow(bytes).unwrap();
            let (_, known) = guests.recall(&[one.statement, own]);
            assert!(peak(&known) >= Some(bytes as u64) && known.len() == 1);
            drop((memory, guest));
        }
        let (_, known) = guests.recall(&[one.statement, own]);
        assert_eq!((peak(&known), known.len()), (Some(3000), 1));
        // It is forgotten for those that came after it, and the time is known up to which all are.
        let (begun, now) = (guests.inside().past.since, Instant::now());
        let (keep, most) = MEMORY;
        for _ in 0..most {
            guests.inside().past.keep(id::statement(), Observation::new(Uuid::nil(), None), now);
        }
        assert!(guests.recall(&[one.statement]).1.is_empty());
        let mut inside = guests.inside();
        assert!(inside.past.since > begun);
        inside.past.keep(id::statement(), Observation::new(Uuid::nil(), None), now + 2 * keep);
        assert_eq!((inside.past.done.len(), inside.past.ends.len()), (1, 1));
    }

    #[test]
    fn a_statement_of_a_pool_is_held_to_its_memory_everywhere() {
        let (here, there) = (guests(1), guests(1));
        let bounded = Bound::of_pool(1 << 20, "p").of(&here.environment);
        let mut travel = Travel::default();
        let host = here.host(&mut travel, &bounded, None);
        for _ in 0..3 {
            let (guest, environment) = here.admit(&travel).unwrap();
            assert!(guest.is_none() && Arc::ptr_eq(&environment, &bounded));
        }
        let (_guest, environment) = there.admit(&travel).unwrap();
        let reservation = MemoryConsumer::new("test").register(&environment.memory_pool);
        let refused = reservation.try_grow(2 << 20).unwrap_err();
        assert!(refused.to_string().contains("a statement of pool \"p\" may use 1.0 MiB"));
        drop(host);
        assert!(here.inside().statements.is_empty());
    }
}
