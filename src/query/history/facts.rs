//! What is known of one statement of this daemon, from its start on.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::super::Error;
use super::super::sessions::{SessionEntry, cut};
use super::tally::{End, Tally};
use super::{Record, State};
use crate::engine::observe::Observation;
use crate::engine::settings::Settings;

/// SQLSTATEs of statements that somebody has stopped: cancelled, timed out, terminated.
const STOPPED: [&str; 2] = ["57014", "57P01"];

/// SQLSTATE and text for one whose client has gone away.
const ABANDONED: (&str, &str) = ("08006", "connection to client lost");

/// One statement. What is written while it runs are a few numbers: all else waits for its end.
#[derive(Debug)]
pub struct Facts {
    pub id: Uuid,
    pub started: DateTime<Utc>,
    since: Instant,
    pub text: Arc<str>,
    /// As they were when it began.
    settings: Arc<Settings>,
    pub observation: Arc<Observation>,
    /// Microseconds.
    queued: AtomicU64,
    planning: AtomicU64,
    /// It has come so far that it counts: not only understood, for later execution.
    executed: AtomicBool,
    /// Its beginning was written down.
    pub(super) journaled: AtomicBool,
    outcome: Mutex<Outcome>,
}

#[derive(Clone, Debug, Default)]
struct Outcome {
    tag: Option<String>,
    failure: Option<Failure>,
    /// Set at its end.
    ended: Option<Ended>,
}

#[derive(Clone, Debug)]
struct Failure {
    sqlstate: Option<String>,
    message: String,
    stopped: bool,
}

#[derive(Clone, Debug)]
struct Ended {
    took: Duration,
    pool: Option<Arc<str>>,
    application_name: String,
}

impl Outcome {
    fn state(&self) -> State {
        match (&self.ended, &self.failure) {
            (None, _) => State::Running,
            (_, Some(failure)) if failure.stopped => State::Cancelled,
            (_, Some(_)) => State::Failed,
            (_, None) => State::Finished,
        }
    }
}

/// What settings differ from the defaults, for those that were asked for last: the statements of a session
/// have the same ones mostly.
#[derive(Debug, Default)]
pub struct Told(VecDeque<(Arc<Settings>, BTreeMap<String, String>)>);

impl Told {
    /// Of about as many sessions as run statements at one time.
    const KEPT: usize = 16;

    fn of(&mut self, settings: &Arc<Settings>) -> &BTreeMap<String, String> {
        let known = self.0.iter().position(|(known, _)| Arc::ptr_eq(known, settings));
        let at = known.unwrap_or_else(|| {
            self.0.truncate(Self::KEPT - 1);
            self.0.push_front((settings.clone(), settings.differing()));
            0
        });
        &self.0[at].1
    }
}

impl Facts {
    /// `profile`: how long a statement takes of which a profile is kept.
    pub fn new(
        text: &Arc<str>,
        settings: &Arc<Settings>,
        started: DateTime<Utc>,
        profile: Option<Duration>,
    ) -> Arc<Self> {
        let id = crate::id::statement();
        Arc::new(Self {
            id,
            started,
            since: Instant::now(),
            text: text.clone(),
            settings: settings.clone(),
            observation: Observation::new(id, profile),
            queued: AtomicU64::new(0),
            planning: AtomicU64::new(0),
            executed: AtomicBool::new(false),
            journaled: AtomicBool::new(false),
            outcome: Mutex::default(),
        })
    }

    /// It has waited for its turn since then.
    pub fn note_queued(&self, since: Instant) {
        self.queued.fetch_add(micros(since.elapsed()), Ordering::Relaxed);
    }

    /// It was understood and planned since then.
    pub fn note_planning(&self, since: Instant) {
        self.planning.fetch_add(micros(since.elapsed()), Ordering::Relaxed);
    }

    /// It is carried out from here on.
    pub fn note_execution(&self) {
        self.executed.store(true, Ordering::Relaxed);
    }

    /// Whether it is carried out by now.
    pub fn is_executed(&self) -> bool {
        self.executed.load(Ordering::Relaxed)
    }

    /// It has come to its end, with this command tag.
    pub fn complete(&self, tag: &str) {
        self.note_execution();
        self.outcome().tag = Some(tag.to_owned());
    }

    /// What its client is told of its failure.
    pub fn fail(&self, sqlstate: &str, message: &str) {
        let stopped = STOPPED.contains(&sqlstate);
        let (sqlstate, message) = (Some(sqlstate.to_owned()), message.to_owned());
        self.outcome().failure = Some(Failure { sqlstate, message, stopped });
    }

    /// The same where nobody may be there to be told.
    pub fn fail_with(&self, error: &Error) {
        let stopped = matches!(error, Error::Stopped(_));
        let message = error.to_string();
        let failure = || Failure { sqlstate: None, message, stopped };
        self.outcome().failure.get_or_insert_with(failure);
    }

    /// Its client has gone away: nobody takes the rest of its answer.
    pub fn abandon(&self) {
        let mut outcome = self.outcome();
        if self.is_executed() && outcome.tag.is_none() {
            let (sqlstate, message) = ABANDONED;
            let (sqlstate, message) = (Some(sqlstate.to_owned()), message.to_owned());
            let failure = || Failure { sqlstate, message, stopped: true };
            outcome.failure.get_or_insert_with(failure);
        }
    }

    /// It is over.
    pub fn end(&self, pool: Option<Arc<str>>, application_name: &str) {
        let application_name = application_name.to_owned();
        let ended = Ended { took: self.since.elapsed(), pool, application_name };
        self.outcome().ended = Some(ended);
    }

    /// Whether it is one that the history has: not what was only understood for later.
    pub fn counts(&self) -> bool {
        self.executed.load(Ordering::Relaxed) || self.outcome().failure.is_some()
    }

    /// Whether its beginning was written down.
    pub fn is_journaled(&self) -> bool {
        self.journaled.load(Ordering::Relaxed)
    }

    /// What has become of it.
    pub fn state(&self) -> State {
        self.outcome().state()
    }

    /// Counts it among those that have ended, if it is one of them.
    pub(super) fn count(&self, tally: &Tally) {
        let outcome = self.outcome();
        let Some(Ended { took, .. }) = outcome.ended else { return };
        let micros = |time: &AtomicU64| Duration::from_micros(time.load(Ordering::Relaxed));
        let (queued, planning) = (micros(&self.queued), micros(&self.planning));
        let end = End {
            state: outcome.state(),
            took,
            phases: [queued, planning, took.saturating_sub(queued + planning)],
            sqlstate: outcome.failure.as_ref().and_then(|failure| failure.sqlstate.as_deref()),
            rows: outcome.tag.as_deref().and_then(rows_of).unwrap_or_default(),
        };
        tally.end(&end, &self.observation);
    }

    /// What the history of the daemon `own` has of it, in place of what `record` has. `limit` are bytes of its
    /// text.
    pub fn tell(
        &self,
        own: &str,
        session: &SessionEntry,
        limit: usize,
        told: &mut Told,
        record: &mut Record,
    ) {
        let outcome = self.outcome();
        let (failure, end) = (outcome.failure.as_ref(), outcome.ended.as_ref());
        let figures = self.observation.figures();
        let took = end.map(|end| micros(end.took));
        let waited = self.queued.load(Ordering::Relaxed);
        let planned = self.planning.load(Ordering::Relaxed);
        let affected = outcome.tag.as_deref().and_then(rows_of).unwrap_or_default();
        // All of them, or one would stay that is another's.
        let Record {
            id,
            state,
            daemon,
            user,
            owner,
            database,
            sql,
            pid,
            pool,
            client,
            application_name,
            tag,
            started,
            ended,
            duration,
            queued,
            planning,
            execution,
            rows,
            scanned,
            rows_scanned,
            spilled,
            peak,
            retries,
            workers,
            silent,
            profile,
            sqlstate,
            error,
            settings,
        } = record;
        *id = self.id;
        *state = outcome.state();
        put(daemon, own);
        put(user, &session.user);
        *owner = Some(session.owner);
        put(database, &session.database);
        put(sql, &cut(&self.text, limit));
        *pid = Some(session.pid);
        put_if(pool, end.and_then(|end| end.pool.as_deref()));
        put_address(client.get_or_insert_default(), session.client);
        put(application_name, end.map_or("", |end| &end.application_name));
        put_if(tag, outcome.tag.as_deref());
        *started = Some(self.started);
        *ended = took.and_then(|took| {
            let took = TimeDelta::microseconds(i64::try_from(took).ok()?);
            self.started.checked_add_signed(took)
        });
        *duration = took;
        *queued = took.map(|_| waited);
        *planning = took.map(|_| planned);
        *execution = took.map(|took| took.saturating_sub(waited + planned));
        *rows = self.observation.rows().max(affected);
        *scanned = figures.scanned;
        *rows_scanned = figures.rows_scanned;
        *spilled = figures.spilled;
        *peak = figures.peak;
        *retries = self.observation.retries();
        *workers = self.observation.workers();
        *silent = self.observation.silent();
        *profile = false;
        put_if(sqlstate, failure.and_then(|failure| failure.sqlstate.as_deref()));
        put_if(error, failure.map(|failure| failure.message.as_str()));
        told.of(&self.settings).clone_into(settings);
    }

    fn outcome(&self) -> MutexGuard<'_, Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Replaces a text and keeps its room.
fn put(text: &mut String, by: &str) {
    by.clone_into(text);
}

fn put_if(text: &mut Option<String>, by: Option<&str>) {
    match by {
        Some(by) => put(text.get_or_insert_default(), by),
        None => *text = None,
    }
}

fn put_address(text: &mut String, address: SocketAddr) {
    text.clear();
    // A string takes all that is written to it.
    let _ = write!(text, "{address}");
}

/// The rows that a command tag counts, such as `INSERT 0 3`.
fn rows_of(tag: &str) -> Option<u64> {
    tag.rsplit_once(' ')?.1.parse().ok()
}
