//! A statement's life: from its text to its last row, or to the reason why there are no more.
//!
//! - [`life`]: the phases as types, and the one function that goes through them.
//! - [`running`]: a statement from its admission to its last row.
//! - [`places`]: where in its text a statement is wrong.
//! - [`prepared`]: statements that are understood and planned.
//! - [`command`]: what is not a query: SET, DDL, recognised from the parsed text.
//! - [`grammar`]: what the SQL parser does not know: transactions, cursors, prepared statements.
//! - [`control`]: carries out transactions and settings.
//! - [`objects`]: cursors and prepared statements, which live with the protocol.
//! - [`copy`]: COPY's query and format; rows that come in.
//! - [`find`]: UPDATE, DELETE, MERGE as queries that find rows.
//! - [`insert`]: rows into tables.
//! - [`ddl`]: carries out what changes the catalog.
//! - [`live`]: settings that change while daemons run.
//! - [`notify`]: LISTEN and NOTIFY.
//! - [`security`]: roles, privileges and policies: what changes who may do what.
//! - [`admission`]: which statements of a pool run at once, and which wait.
//! - [`shares`]: how many statements of one role run at once.
//! - [`trail`]: what the audit trail says of such changes.
//! - [`tables`]: managed tables made, changed and dropped.
//! - [`maintenance`]: OPTIMIZE, VACUUM, and what the leader does by itself.
//! - [`transaction`]: what BEGIN promises here.
//! - [`write`]: statements that write, from their plan to their change.
//! - [`block`]: what becomes of what they write.
//! - [`locks`]: what COMMIT is to find unchanged.
//! - [`history`]: statements that have ended.
//! - [`recent`]: statements that come again; [`alike`]: with another key.
//! - [`registry`]: running statements, in memory and in the coordination store.
//! - [`sessions`]: clients' sessions, to be listed, cancelled and ended.
//! - [`signals`]: cancels and ends sessions of other daemons.
//! - [`submitted`]: queries that are submitted now and fetched later.
//! - [`schedules`]: queries that are submitted again and again.
//! - [`options`]: what is said of both, as JSON.
//! - [`secrets`]: keeps passwords out of whatever shows a statement's text.

pub mod admission;
mod alike;
mod block;
mod command;
mod control;
pub mod copy;
mod ddl;
mod error;
mod find;
mod grammar;
pub mod history;
mod insert;
mod instead;
pub mod life;
pub mod live;
mod locks;
pub mod maintenance;
pub mod notify;
pub mod objects;
mod options;
mod places;
mod prepared;
mod recent;
pub mod registry;
mod running;
pub mod schedules;
mod secrets;
mod security;
pub mod sessions;
mod shares;
pub mod signals;
pub mod submitted;
mod tables;
mod trail;
mod transaction;
mod write;

use std::sync::Arc;

pub use control::{Boundary, Done, Notice};
pub use error::{Error, Result, Stop};
pub use life::{Outcome, Session};
pub use prepared::{Prepared, Source};
pub use running::{Registered, Running};
pub use transaction::TransactionState;

use crate::audit::Audit;
use crate::catalog::Catalog;
use crate::cluster::Membership;
use crate::cluster::live::LiveSettings;
use crate::coordination::{self, Coordination, paths::Path};
use crate::engine::Engine;
use crate::metrics::Clients;
use crate::shutdown::{Gate, Shutdown};
use crate::storage::managed::Commits;
use admission::Admission;
use history::History;
use maintenance::Maintenance;
use notify::Notifications;
use registry::Registry;
use schedules::Schedules;
use sessions::Sessions;
use shares::Shares;

/// What all sessions of a daemon share.
#[derive(Debug)]
pub struct Queries {
    pub engine: Arc<Engine>,
    pub catalog: Arc<Catalog>,
    pub membership: Arc<Membership>,
    pub registry: Arc<Registry>,
    pub history: Arc<History>,
    pub sessions: Arc<Sessions>,
    /// Statements are inside while they run; draining waits for it to be empty.
    pub gate: Gate,
    pub shutdown: Shutdown,
    pub audit: Audit,
    pub commits: Arc<Commits>,
    pub maintenance: Arc<Maintenance>,
    pub admission: Arc<Admission>,
    pub notifications: Arc<Notifications>,
    pub live: Arc<LiveSettings>,
    pub schedules: Schedules,
    /// What clients have come to, counted.
    pub clients: Arc<Clients>,
    /// Where managed tables are made; `None`: nowhere that all daemons could read.
    pub warehouse: Option<String>,
    shares: Arc<Shares>,
}

/// The rooms below, to build upon.
#[derive(Debug)]
pub struct Foundation {
    pub coordination: Arc<dyn Coordination>,
    pub engine: Arc<Engine>,
    pub catalog: Arc<Catalog>,
    pub membership: Arc<Membership>,
    pub registry: Arc<Registry>,
    pub history: Arc<History>,
    pub sessions: Arc<Sessions>,
    pub shutdown: Shutdown,
    pub audit: Audit,
    pub commits: Arc<Commits>,
    pub maintenance: Arc<Maintenance>,
    pub admission: Arc<Admission>,
    pub live: Arc<LiveSettings>,
    pub schedules: Schedules,
    pub warehouse: Option<String>,
}

impl Queries {
    pub async fn open(foundation: Foundation) -> coordination::Result<Arc<Self>> {
        let Foundation {
            coordination,
            engine,
            catalog,
            membership,
            registry,
            history,
            sessions,
            shutdown,
            audit,
            commits,
            maintenance,
            admission,
            live,
            schedules,
            warehouse,
        } = foundation;
        coordination::ensure(coordination.as_ref(), &Path::Queries.to_string()).await?;
        let sources = notify::Sources {
            catalog: catalog.clone(),
            membership: membership.clone(),
            live: live.clone(),
            coordination,
        };
        let gate = Gate::default();
        Ok(Arc::new(Self {
            engine,
            catalog,
            membership,
            registry,
            history,
            sessions,
            gate,
            shutdown,
            audit,
            commits,
            maintenance,
            admission,
            notifications: Notifications::new(sources),
            live,
            schedules,
            clients: Arc::default(),
            warehouse,
            shares: Arc::default(),
        }))
    }
}
