//! What parts of other daemons' statements may take of this one.
//!
//! A part that is too much is refused at once: nobody waits here for what others have asked for, and
//! the daemon that asked runs its statement by itself. What all parts of one statement use together
//! is bounded, so that one daemon's statement cannot take another daemon's memory: it spills, or fails
//! with what its own client is told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::MemoryLimit;
use datafusion::execution::runtime_env::RuntimeEnv;
use tracing::debug;
use uuid::Uuid;

use super::travel::Travel;
use crate::config;
use crate::engine::memory::{Bound, bound_of, part_of};
use crate::engine::observe::Observation;
use crate::id;

/// Parts of a hundred of the engine's memory that are in use when no more statements are let in.
const FULL: usize = 90;

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
}

#[derive(Debug)]
struct Inside {
    settings: config::Distribution,
    parts: usize,
    statements: HashMap<Uuid, Statement>,
}

/// A statement some of whose parts run here.
#[derive(Debug)]
struct Statement {
    environment: Arc<RuntimeEnv>,
    /// This daemon's own: its parts are no guests.
    own: bool,
    /// Of one of this daemon's own.
    observation: Option<Arc<Observation>>,
    parts: usize,
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
    pub fn new(settings: config::Distribution, environment: Arc<RuntimeEnv>) -> Arc<Self> {
        let inside = Inside { settings, parts: 0, statements: HashMap::new() };
        Arc::new(Self { environment, inside: Mutex::new(inside) })
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
        travel.bound = bound_of(environment).cloned();
        let environment = environment.clone();
        let own = Statement { environment, own: true, observation, parts: 0 };
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
            debug!(statement = %travel.statement, reason, "a part of another daemon's is refused");
            Err(DataFusionError::External(Box::new(Refused(reason))))
        };
        if inside.parts >= inside.settings.max_parts {
            return refused("there are too many");
        }
        if known.is_none() && self.is_full() {
            return refused("its memory is nearly used up");
        }
        inside.parts += 1;
        let share = inside.settings.statement_memory;
        let known = inside.statements.entry(travel.statement).or_insert_with(|| {
            let environment = self.bound(travel, share).of(&self.environment);
            Statement { environment, own: false, observation: None, parts: 0 }
        });
        known.parts += 1;
        let guest = Guest { guests: self.clone(), statement: travel.statement };
        Ok((Some(guest), known.environment.clone()))
    }

    /// What observes a part's statement, if that is this daemon's own.
    pub fn observation(&self, travel: &Travel) -> Option<Arc<Observation>> {
        self.inside().statements.get(&travel.statement)?.observation.clone()
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
        if statement.parts == 0 {
            inside.statements.remove(&self.statement);
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
        Guests::new(settings, environment.expect("an environment"))
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
