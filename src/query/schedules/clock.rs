//! Submits the queries of schedules when their times come, as long as this daemon leads.
//!
//! All schedules are in memory, kept up to date by a watch; nothing is asked of the store until the
//! next time comes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::record::Pattern;
use super::{Error, Found, Last, Missed, Overlap, Record, Result, Schedules, encoded};
use crate::cluster::Election;
use crate::coordination::paths::{self, Path};
use crate::coordination::{Event, Op, Scope};
use crate::query::submitted;

/// Pause after the store has refused something, or while it is not sure who leads.
const RETRY: Duration = Duration::from_secs(1);

/// The clock on the wall may be set while one sleeps.
const LONGEST: Duration = Duration::from_secs(60);

/// What the leader knows.
#[derive(Default)]
struct Known {
    schedules: HashMap<String, (Found, Pattern)>,
    /// To be read again.
    changed: HashSet<String>,
    /// All of them are to be read.
    behind: bool,
    /// A time waits for the end of a query.
    waits: bool,
}

/// Follows the election, and does the leader's part until `stop`. Needed exactly once.
pub async fn run(schedules: Schedules, election: Arc<Election>, stop: CancellationToken) {
    let store = schedules.submissions.store();
    let mut changes = store.watch(&Path::Schedules.to_string(), Scope::Subtree);
    // A query's end lets the next one begin.
    let mut ends = store.watch(&Path::Queue.to_string(), Scope::Children);
    let mut leadership = election.state();
    let mut known = Known { behind: true, ..Known::default() };
    loop {
        let leads = leadership.borrow_and_update().own.is_some();
        let pause = match (leads, election.fence()) {
            (false, _) => {
                known = Known { behind: true, ..Known::default() };
                None
            }
            (true, None) => Some(RETRY),
            (true, Some(fence)) => match known.drive(&schedules, &fence).await {
                Ok(pause) => Some(pause),
                Err(error) => {
                    debug!(%error, "schedules could not be looked at");
                    known.behind = true;
                    Some(RETRY)
                }
            },
        };
        tokio::select! {
            () = stop.cancelled() => return,
            event = changes.next() => match event {
                Some(event) => known.note(event),
                None => return,
            },
            event = ends.next(), if known.waits => if event.is_none() { return },
            changed = leadership.changed() => match changed {
                // Whoever led meanwhile has changed them.
                Ok(()) => known.behind = true,
                Err(_) => return,
            },
            () = sleep(pause.unwrap_or_default()), if pause.is_some() => {}
        }
    }
}

impl Known {
    fn note(&mut self, event: Event) {
        let name = |path: &str| paths::decode(path.strip_prefix(&format!("{}/", Path::Schedules))?);
        match event {
            Event::Resync => self.behind = true,
            Event::Changed(path) => self.changed.extend(name(&path)),
        }
    }

    /// Submits what is due; how long there is nothing to do.
    async fn drive(&mut self, schedules: &Schedules, fence: &Op) -> Result<Duration> {
        self.catch_up(schedules).await?;
        let now = Utc::now();
        let mut next = None;
        self.waits = false;
        for (name, (found, pattern)) in &mut self.schedules {
            if !found.record.enabled {
                continue;
            }
            next = [next, pattern.next(now)].into_iter().flatten().min();
            let due = pattern.due(&found.record, now);
            if due.is_empty() {
                continue;
            }
            let Some(owner) = schedules.owner(&found.record).await? else {
                warn!(name, "the role of a schedule is gone: its query is not submitted");
                continue;
            };
            // What is written with the first run tells who it is now.
            (found.record.user, found.record.owner) = (owner.name.clone(), Some(owner.record.oid));
            for time in due {
                match submit(schedules, fence, name, &found.record, found.version, time).await {
                    Ok(Step::Taken(record)) => {
                        *found = Found { record: *record, version: found.version + 1 };
                    }
                    Ok(Step::Waits) => {
                        self.waits = true;
                        break;
                    }
                    // Read again, once the store tells of the change.
                    Ok(Step::Outrun) => {
                        self.changed.insert(name.clone());
                        break;
                    }
                    Err(error) => {
                        warn!(name, %time, %error, "the query of a schedule is not submitted yet");
                        next = Some(now);
                        break;
                    }
                }
            }
        }
        let pause = match next {
            Some(next) if next <= now => RETRY,
            Some(next) => (next - Utc::now()).to_std().unwrap_or_default().min(LONGEST),
            None => LONGEST,
        };
        Ok(if self.changed.is_empty() { pause } else { pause.min(RETRY) })
    }

    async fn catch_up(&mut self, schedules: &Schedules) -> Result<()> {
        if self.behind {
            // What the leader before has written last has to be seen.
            schedules.submissions.store().sync().await?;
            let names: HashSet<String> = schedules.names().await?.into_iter().collect();
            self.schedules.retain(|name, _| names.contains(name));
            self.changed.extend(names);
            self.behind = false;
        }
        let changed = std::mem::take(&mut self.changed);
        for name in changed {
            let found = match schedules.find(&name).await {
                Err(Error::Record { name, source }) => {
                    warn!(name, %source, "a schedule cannot be read");
                    None
                }
                found => found?,
            };
            let pattern = found.as_ref().map(|found| Pattern::of(&found.record)).transpose();
            match (found, pattern) {
                (Some(found), Ok(Some(pattern))) => {
                    self.schedules.insert(name, (found, pattern));
                }
                (_, Err(error)) => {
                    warn!(name, %error, "a schedule is left out");
                    self.schedules.remove(&name);
                }
                _ => drop(self.schedules.remove(&name)),
            }
        }
        Ok(())
    }
}

/// What came of one time.
enum Step {
    /// It is seen to: the record as it stands in the store.
    Taken(Box<Record>),
    /// The query before is not done, or there is no room for another.
    Waits,
    /// The schedule is not what it was, or this daemon does not lead.
    Outrun,
}

async fn submit(
    schedules: &Schedules,
    fence: &Op,
    name: &str,
    record: &Record,
    version: i32,
    time: DateTime<Utc>,
) -> Result<Step> {
    let (submissions, store) = (&schedules.submissions, schedules.submissions.store());
    let id = format!("schedule-{name}-{}", time.format("%Y%m%dT%H%M%SZ"));
    let left_out = Record { since: time, ..record.clone() };
    let last = Some(Last { time, query: id.clone() });
    let taken = Record { last, ..left_out.clone() };
    let write = |record: &Record| -> Result<Vec<Op>> {
        let path = Path::Schedule(name).to_string();
        let set = Op::Set { path, data: encoded(name, record)?, version: Some(version) };
        Ok(vec![fence.clone(), set])
    };
    let busy = record.overlap == Overlap::Skip && is_busy(schedules, record).await?;
    if busy && record.missed == Missed::RunAll {
        return Ok(Step::Waits);
    }
    let (after, ops) = if busy {
        debug!(name, %time, "the query before is not done: this time is left out");
        let ops = write(&left_out)?;
        (left_out, ops)
    } else {
        if submissions.room().await? == 0 {
            return Ok(Step::Waits);
        }
        let settings = record.settings.clone();
        let Record { user, owner, database, sql, .. } = record;
        let query = submitted::Record::new((user, *owner), database, sql, settings);
        let mut ops = write(&taken)?;
        ops.extend(submissions.entering(&id, &query)?);
        (taken, ops)
    };
    match store.transact(ops).await {
        Ok(_) => {
            info!(name, %time, id, busy, "a schedule's time");
            Ok(Step::Taken(Box::new(after)))
        }
        // Of an earlier schedule of that name: this time has been seen to.
        Err(error) if submitted::exists(&error) => match store.transact(write(&after)?).await {
            Ok(_) => Ok(Step::Taken(Box::new(after))),
            Err(error) if submitted::outrun(&error) => Ok(Step::Outrun),
            Err(error) => Err(error.into()),
        },
        // Whether it has landed shows in the version.
        Err(error) if submitted::outrun(&error) || error.may_have_landed() => Ok(Step::Outrun),
        Err(error) => Err(error.into()),
    }
}

/// Whether the query of the last time is not done.
async fn is_busy(schedules: &Schedules, record: &Record) -> Result<bool> {
    let state = schedules.last_state(record).await?;
    Ok(state.is_some_and(|state| !state.is_final()))
}
