//! A statement under way: admitted, registered, planned, streaming.
//!
//! Each phase consumes the one before, and dropping one cancels the statement and takes it off all
//! lists.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use datafusion::error::DataFusionError;
use tokio::time::Instant;
use uuid::Uuid;

use super::admission::Seated;
use super::history::Facts;
use super::life::Session;
use super::registry::RegistryGuard;
use super::sessions::{SessionEntry, Stopper};
use super::shares::Share;
use super::{Error, Result, Stop};
use crate::engine::{self, Rows};
use crate::shutdown::GateGuard;

/// The daemon takes the statement.
pub(super) struct Admitted {
    pub gate: GateGuard,
    pub share: Option<Share>,
}

/// The statement has an id, is listed, and can be stopped.
#[derive(Debug)]
pub struct Registered {
    session: Arc<SessionEntry>,
    facts: Arc<Facts>,
    listed: RegistryGuard,
    stopper: Stopper,
    /// The most time it may take, and when that is over.
    timeout: Option<Duration>,
    deadline: Option<Instant>,
    _gate: GateGuard,
    _share: Option<Share>,
    /// Its place in its role's pool.
    seated: Option<Seated>,
    portions: bool,
}

/// The statement is ready to run.
pub(super) struct Planned {
    pub registered: Registered,
    pub plan: engine::Ready,
    pub tag: Cow<'static, str>,
    pub explain: bool,
    /// What EXPLAIN says above the plan.
    pub heading: Option<String>,
    pub constant: bool,
    /// What is left are rows in memory, of a change that is made.
    pub written: bool,
}

/// Rows on their way.
#[derive(Debug)]
pub struct Running<T> {
    rows: Rows<T>,
    /// The command tag, its word alone where it counts the rows that are read.
    pub tag: Cow<'static, str>,
    /// Constants, which PostgreSQL computes before it describes the result.
    pub constant: bool,
    /// It has changed something for good, and nothing takes the answer from whoever waits for it.
    written: bool,
    registered: Registered,
}

impl Admitted {
    pub fn register(self, session: &Session, text: &Arc<str>) -> Registered {
        let facts = session.queries().history.begin(text, session.settings());
        let entry = session.entry();
        // Whoever sees it in the list can stop it.
        let stopper = entry.begin(&facts);
        let listed = session.queries().registry.add(entry, &facts);
        let timeout = session.settings().statement_timeout();
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let session = entry.clone();
        let Self { gate: _gate, share: _share } = self;
        Registered {
            session,
            facts,
            listed,
            stopper,
            timeout,
            deadline,
            _gate,
            _share,
            seated: None,
            portions: false,
        }
    }
}

impl Registered {
    /// Waits for work, at most until somebody stops the statement or its time is up.
    pub(super) async fn until_stopped<F: Future>(&self, work: F) -> Result<F::Output> {
        tokio::select! {
            biased;
            stop = self.stopped() => Err(Error::Stopped(stop)),
            output = work => Ok(output),
        }
    }

    /// Waits until somebody stops the statement or its time is up.
    pub(super) fn watch(&self) -> impl Future<Output = Stop> + Send + use<> {
        stopped(self.stopper.clone(), self.deadline)
    }

    /// What is known of it.
    pub(super) fn facts(&self) -> &Arc<Facts> {
        &self.facts
    }

    pub(super) fn id(&self) -> Uuid {
        self.listed.id()
    }

    /// Its rows are taken in portions: whoever takes them may have enough before it ends.
    pub fn in_portions(mut self) -> Self {
        self.portions = true;
        self
    }

    pub(super) fn has_portions(&self) -> bool {
        self.portions
    }

    /// Its place among the statements of its pool that run, up to its end.
    pub(super) fn sit(&mut self, seated: Seated) {
        self.seated = Some(seated);
    }

    /// Lets others see which pool it is in, and whether it waits there.
    pub(super) fn set_pool(&self, pool: Option<&Arc<str>>, waits: bool) {
        self.session.set_pool(self.listed.id(), pool, waits);
    }

    pub(super) async fn stopped(&self) -> Stop {
        stopped(self.stopper.clone(), self.deadline).await
    }
}

async fn stopped(stopper: Stopper, deadline: Option<Instant>) -> Stop {
    let deadline = async {
        match deadline {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        stop = stopper.stopped() => stop,
        () = deadline => Stop::TimedOut,
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.session.end(self.listed.id());
    }
}

impl Planned {
    pub fn stream<T, F>(self, session: &Session, mut transform: F) -> Running<T>
    where
        T: Send + 'static,
        F: FnMut(RecordBatch) -> Result<T, Box<dyn std::error::Error + Send + Sync>>,
        F: Send + 'static,
    {
        let Self { registered, plan, tag, explain, heading, constant, written } = self;
        let transform = move |batch: RecordBatch| {
            let batch = match explain {
                true => engine::explain_lines(&batch, heading.as_deref())?,
                false => batch,
            };
            transform(batch)
                .map_err(|error| engine::Error::Execution(DataFusionError::External(error)))
        };
        let rows = session.engine_session().run(plan, transform);
        Running { rows, tag, constant, written, registered }
    }
}

impl<T> Running<T> {
    /// The client goes on reading: it is what its session runs now, with the time that statements
    /// have by now.
    pub fn resume(&mut self, timeout: Option<Duration>) {
        let registered = &mut self.registered;
        if registered.session.resume(registered.listed.id()) {
            registered.timeout = timeout;
            registered.deadline = registered.timeout.map(|timeout| Instant::now() + timeout);
        }
    }

    /// The client has all the rows that it asked for so far, and takes its time.
    pub fn suspend(&mut self) {
        self.registered.session.suspend(self.registered.listed.id());
        self.registered.deadline = None;
    }
}

impl<T: Send + 'static> Running<T> {
    /// The next rows; `None` after the last. Stopping wins over rows that are ready. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<T>> {
        let next = tokio::select! {
            biased;
            stop = self.registered.stopped(), if !self.written => Some(Err(Error::Stopped(stop))),
            rows = self.rows.next() => rows.map(|rows| rows.map_err(Error::from)),
        };
        if let Some(Err(error)) = &next {
            self.registered.facts.fail_with(error);
        }
        next
    }
}
