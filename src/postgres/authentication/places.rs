//! Places for sessions: how many there are on this daemon, in all and for each role.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::catalog::Role;
use crate::postgres::sqlstate::Report;

#[derive(Debug)]
pub struct Places {
    all: usize,
    /// The last ones, for superusers.
    reserved: usize,
    taken: Mutex<HashMap<String, usize>>,
}

/// A session's place, for as long as it lives.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    role: String,
}

impl Places {
    pub fn new(all: usize, reserved: usize) -> Arc<Self> {
        Arc::new(Self { all, reserved, taken: Mutex::default() })
    }

    /// A place for a role's session, if there is one left. Superusers have no limit of their own.
    pub fn take(self: &Arc<Self>, role: &Role) -> Result<Place, Report> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let total: usize = taken.values().sum();
        let free = self.all.saturating_sub(total);
        if free == 0 {
            return Err(Report::fatal("53300", "sorry, too many clients already")
                .hint("The limit is the setting connections.max."));
        }
        if !role.record.superuser {
            if free <= self.reserved {
                let message = "remaining connection slots are reserved for non-replication \
                               superuser connections";
                return Err(Report::fatal("53300", message));
            }
            let own = taken.get(&role.name).copied().unwrap_or_default();
            let limit = role.record.connection_limit;
            if limit.is_some_and(|limit| own >= limit as usize) {
                let message = format!("too many connections for role \"{}\"", role.name);
                return Err(Report::fatal("53300", message)
                    .hint("The limit is the role's CONNECTION LIMIT, for each daemon."));
            }
        }
        *taken.entry(role.name.clone()).or_default() += 1;
        Ok(Place { places: self.clone(), role: role.name.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.role) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.role);
            }
        }
    }
}
