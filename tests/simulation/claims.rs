//! Daemons that carry out submitted queries.
//!
//! The queries are for a database that is not there, so that an attempt looks at the catalog and comes
//! to its end, without the engine. Clients submit and cancel. What must hold:
//!
//! - A query ends once, and what is said of it then is its last attempt's.
//! - An attempt is the next one, of a daemon that is registered, and no other has a claim then.
//! - What was submitted is there; what was cancelled has ended.
//! - Once faults have ended, every query comes to its end, and neither the queue nor the claims have
//!   anything left.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use datafusion::catalog::{TableFunctionImpl, TableProvider};
use datafusion::error::Result as Answered;
use datafusion::logical_expr::ScalarUDF;
use futures::FutureExt;
use oribi::audit::Audit;
use oribi::catalog::{Catalog, FIRST_ROLE};
use oribi::cluster::live::LiveSettings;
use oribi::cluster::{Election, Membership, State as DaemonState, Workers};
use oribi::config::Config;
use oribi::coordination::Op;
use oribi::engine::Engine;
use oribi::engine::memory::Places;
use oribi::engine::system::{Joined, SessionInfo, SystemCatalog};
use oribi::query::admission::Admission;
use oribi::query::history::History;
use oribi::query::maintenance::Maintenance;
use oribi::query::maintenance::log::Log;
use oribi::query::registry::Registry;
use oribi::query::schedules::Schedules;
use oribi::query::sessions::Sessions;
use oribi::query::submitted::{Error, Options, Runner, Submissions};
use oribi::query::{Foundation, Queries};
use oribi::shutdown::Shutdown;
use oribi::storage::Roots;
use oribi::storage::managed::Commits;
use serde_json::Value;
use sqlparser::ast::Statement;
use tokio::runtime::Handle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::cluster::options;
use crate::link::Link;
use crate::processes::{Processes, RECOVERY};
use crate::sim::{Event, Sim, Write};

const PROCESSES: usize = 3;

static CONFIG: LazyLock<Config> = LazyLock::new(|| Config::load(None, [], []).expect("defaults"));

/// The engine, which no statement of a schedule gets as far as.
static ENGINE: LazyLock<Arc<Engine>> = LazyLock::new(|| {
    let make = || {
        let spill = std::env::temp_dir().join("oribi-simulation");
        let places = Places { spill, roots: Roots::default() };
        Engine::new(&CONFIG.engine, &places, Arc::new(NoSystem)).expect("an engine")
    };
    // On a thread that is in no world.
    std::thread::spawn(make).join().expect("an engine")
});

/// No system tables.
#[derive(Debug)]
struct NoSystem;

#[async_trait]
impl SystemCatalog for NoSystem {
    fn has_schema(&self, _: &str) -> bool {
        false
    }

    fn table(&self, _: &SessionInfo, _: &str, _: &str) -> Answered<Option<Arc<dyn TableProvider>>> {
        Ok(None)
    }

    fn rewrite(&self, statement: Statement) -> Statement {
        statement
    }

    fn scalar_functions(&self) -> Vec<Arc<ScalarUDF>> {
        Vec::new()
    }

    fn table_functions(&self) -> Vec<(String, Arc<dyn TableFunctionImpl>)> {
        Vec::new()
    }

    async fn answer(&self, _: &str) -> Answered<Vec<u8>> {
        Ok(Vec::new())
    }

    fn join(&self, _: Joined) {}
}

pub async fn run(sim: Arc<Sim>) {
    sim.add_judge(|sim, event| {
        if let Event::Write(write) = event
            && write.done.is_ok()
        {
            judge(sim, write);
        }
    });
    let own = sim.clone();
    let program = move |number, link, leave| {
        let sim = own.clone();
        async move {
            let name: Arc<Link> = Arc::clone(&link);
            if let Err(error) = daemon(&sim, number, link, leave).await {
                sim.tell(|| format!("{} does not start: {error}", name.name));
            }
        }
        .boxed()
    };
    let processes = Processes::start(&sim, PROCESSES, Arc::new(program));
    let time = sim.between(4_000, 15_000);
    processes.suffer(time).await;
    sim.wait_until(RECOVERY, || unsettled(&sim)).await;
}

type Started<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

async fn daemon(
    sim: &Sim,
    number: usize,
    link: Arc<Link>,
    leave: CancellationToken,
) -> Started<()> {
    let id = format!("d{number}");
    let membership = Membership::join(link.clone(), options(sim, number, &id)).await?;
    let catalog = Catalog::open(link.clone()).await?;
    let submissions = Submissions::open(link.clone(), CONFIG.submitted.clone()).await?;
    let election = Election::open(link.clone(), membership.clone()).await?;
    let shutdown = Shutdown::default();
    let directory = sim.directory.join(number.to_string()).join("history");
    let built = Built {
        link: link.clone(),
        membership: membership.clone(),
        catalog: catalog.clone(),
        submissions: submissions.clone(),
        shutdown: shutdown.clone(),
    };
    let queries = built.queries(&id, directory).await?;
    membership.set_state(DaemonState::Ready).await;
    let workers = Workers::new(membership.clone());
    let runner =
        Runner::new(submissions.clone(), queries, workers, election, oribi::postgres::failure);
    let end = CancellationToken::new();
    let draining = shutdown.draining.clone();
    let living = async {
        let stopping = async {
            tokio::select! {
                biased;
                () = membership.evicted().cancelled() => {}
                () = leave.cancelled() => {}
            }
            membership.set_state(DaemonState::Draining).await;
            draining.cancel();
        };
        futures::join!(runner.clone().run(draining.clone()), stopping);
        end.cancel();
    };
    let following = async {
        futures::join!(
            membership.clone().follow(end.clone()),
            catalog.clone().follow(end.clone()),
            living
        )
    };
    tokio::select! {
        biased;
        _ = following => {}
        () = client(sim, &submissions, number) => {}
    }
    Ok(())
}

/// What a daemon's queries are built upon.
struct Built {
    link: Arc<Link>,
    membership: Arc<Membership>,
    catalog: Arc<Catalog>,
    submissions: Arc<Submissions>,
    shutdown: Shutdown,
}

impl Built {
    async fn queries(self, id: &str, directory: PathBuf) -> Started<Arc<Queries>> {
        let Self { link, membership, catalog, submissions, shutdown } = self;
        let engine = ENGINE.clone();
        let text_limit = CONFIG.query.register_text_limit;
        let history = History::new(id, directory, CONFIG.history.clone(), text_limit, None);
        let registry = Registry::new(link.clone(), id, &CONFIG.query, history.clone());
        let prefix = membership.record().await.pid_prefix.unwrap_or_default();
        let sessions = Arc::new(Sessions::new(prefix, history.clone()));
        let log = Log::open(link.clone(), id).await?;
        let live = LiveSettings::open(link.clone(), oribi::query::live::check_text).await?;
        let commits = Commits::new(
            engine.files().clone(),
            catalog.clone(),
            membership.clone(),
            (Handle::current(), engine.memory_pool().clone()),
        );
        let maintenance = Maintenance::new(
            engine.clone(),
            catalog.clone(),
            commits.clone(),
            log,
            (CONFIG.maintenance.clone(), None),
        );
        let foundation = Foundation {
            coordination: link,
            engine,
            catalog: catalog.clone(),
            membership: membership.clone(),
            registry,
            history,
            sessions,
            shutdown,
            audit: Audit::default(),
            commits,
            maintenance,
            admission: Admission::new(catalog.clone(), membership),
            live,
            schedules: Schedules::new(submissions, catalog),
            warehouse: None,
        };
        Ok(Queries::open(foundation).await?)
    }
}

/// Submits and cancels.
async fn client(sim: &Sim, submissions: &Submissions, number: usize) {
    let (mut known, mut refused): (Vec<String>, Vec<String>) = Default::default();
    loop {
        sleep(sim.between(50, 2500)).await;
        let there = sim.children("/queries");
        let landed = refused.iter().find(|start| there.iter().any(|id| id.starts_with(*start)));
        if let Some(id) = landed {
            sim.violated(format!("{id} was refused and is there"));
        }
        if sim.is_calm() {
            continue;
        }
        if !known.is_empty() && sim.happens(30) {
            let id = sim.pick(&known).clone();
            let cancelled = submissions.cancel(&id).await;
            sim.tell(|| format!("d{number} cancels {id}: {cancelled:?}"));
            let state = sim.node(&format!("/queries/{id}")).map(|node| state(&node.data));
            let right = match cancelled {
                Ok(true) => state.as_deref() == Some("cancelled"),
                Ok(false) => state.as_deref().is_some_and(is_final),
                Err(_) => true,
            };
            if !right {
                sim.violated(format!("{id} was cancelled, {cancelled:?}, and is {state:?}"));
            }
            continue;
        }
        let key = format!("{number}-{}", sim.number());
        let options = Options { key: Some(key.clone()), ..Options::default() };
        let submitted =
            submissions.submit((FIRST_ROLE, None), "nowhere", "SELECT 1", options, false).await;
        sim.tell(|| format!("d{number} submits {key}: {submitted:?}"));
        match submitted {
            Ok(id) => {
                if sim.node(&format!("/queries/{id}")).is_none() {
                    sim.violated(format!("{id} was submitted and is not there"));
                }
                known.push(id);
            }
            Err(Error::InDoubt(_)) => {}
            Err(Error::Store(error)) if error.may_have_landed() => {}
            Err(_) => refused.push(format!("key-{key}-")),
        }
    }
}

fn parse(data: &[u8]) -> Value {
    serde_json::from_slice(data).expect("a record")
}

fn state(data: &[u8]) -> String {
    parse(data)["state"].as_str().expect("a state").to_owned()
}

fn attempt(record: &Value) -> u64 {
    record["attempt"].as_u64().expect("a number")
}

fn is_final(state: &str) -> bool {
    matches!(state, "succeeded" | "failed" | "cancelled")
}

fn judge(sim: &Sim, write: &Write<'_>) {
    let name = &write.link.name;
    for (op, before) in write.ops.iter().zip(&write.before) {
        match op {
            Op::Set { path, data, .. } if path.starts_with("/queries/") => {
                let Some(before) = before else { continue };
                let (was, is) = (parse(&before.data), parse(data));
                let (old, new) = (state(&before.data), state(data));
                if is_final(&old) {
                    sim.violated(format!("{name} makes {path} {new}, and it was {old}"));
                }
                let (from, to) = (attempt(&was), attempt(&is));
                if to != from && (to != from + 1 || new != "running") {
                    sim.violated(format!(
                        "{name} makes attempt {to} of {path} {new} during attempt {from}"
                    ));
                }
                let id = path.trim_start_matches("/queries/");
                let claims = sim.children("/claims");
                let claims: Vec<&String> = claims
                    .iter()
                    .filter(|claim| claim.rsplit_once(':').is_some_and(|(of, _)| of == id))
                    .collect();
                if to != from && claims.len() != 1 {
                    sim.violated(format!("{name} works on {path}, with the claims {claims:?}"));
                }
            }
            Op::Create { path, data, .. } if path.starts_with("/claims/") => {
                let claim = parse(data);
                let incarnation = claim["incarnation"].as_str().expect("an incarnation");
                if sim.node(&format!("/incarnations/{incarnation}")).is_none() {
                    sim.violated(format!("{name} claims {path} and is not registered"));
                }
            }
            _ => {}
        }
    }
}

/// What is not done yet.
fn unsettled(sim: &Sim) -> Option<String> {
    let open: Vec<String> = sim
        .children("/queries")
        .into_iter()
        .filter(|id| {
            sim.node(&format!("/queries/{id}")).is_some_and(|node| !is_final(&state(&node.data)))
        })
        .collect();
    let (queue, claims) = (sim.children("/queue"), sim.children("/claims"));
    let settled = open.is_empty() && queue.is_empty() && claims.is_empty();
    (!settled).then(|| format!("open: {open:?}, in the queue: {queue:?}, claimed: {claims:?}"))
}
