//! What a daemon consists of below its listeners and tasks, built upward in one session with the coordination
//! store.

use std::sync::Arc;

use super::cluster_view::{Clients, ClusterView};
use super::{Error, Ground, parts};
use crate::catalog::Catalog;
use crate::cluster::live::LiveSettings;
use crate::cluster::{self, Election, Membership, Workers};
use crate::config::InForce;
use crate::coordination::Coordination;
use crate::coordination::whole::Store;
use crate::engine::Engine;
use crate::engine::memory::Places;
use crate::query;
use crate::query::admission::Admission;
use crate::query::history::{self, History};
use crate::query::maintenance::log::Log;
use crate::query::maintenance::{Maintenance, Warehouse};
use crate::query::registry::Registry;
use crate::query::schedules::Schedules;
use crate::query::sessions::Sessions;
use crate::query::signals::Signals;
use crate::query::submitted::Submissions;
use crate::query::{Foundation, Queries};
use crate::shutdown::Shutdown;
use crate::storage::managed::Commits;
use crate::system::System;
use crate::traces::Traces;

/// What needs no engine: the daemon's place in the cluster, and what it knows of it and keeps count of.
pub(super) struct Base {
    pub membership: Arc<Membership>,
    pub workers: Arc<Workers>,
    pub election: Arc<Election>,
    pub signals: Arc<Signals>,
    pub submissions: Arc<Submissions>,
    pub in_force: Arc<InForce>,
    pub traces: Option<Arc<Traces>>,
    pub shutdown: Shutdown,
    /// Where managed tables are made.
    warehouse: Option<String>,
    catalog: Arc<Catalog>,
    history: Arc<History>,
    registry: Arc<Registry>,
    sessions: Arc<Sessions>,
    admission: Arc<Admission>,
    live: Arc<LiveSettings>,
    log: Arc<Log>,
}

impl Base {
    pub async fn open(ground: &Ground, store: &Store) -> Result<Self, Error> {
        let Ground { config, data_dir, addresses, .. } = ground;
        let coordination: Arc<dyn Coordination> = store.own.clone();
        let warehouse = parts::warehouse(config, data_dir)?;
        let told = warehouse.as_deref().map(parts::in_normal_form);
        let place = (data_dir.as_ref(), told, *addresses);
        let membership = parts::join(config, place, coordination.clone()).await?;
        let workers = Workers::new(membership.clone());
        let catalog = Catalog::open(coordination.clone()).await?;
        let in_force = InForce::new(config.clone());
        catalog.heed(in_force.clone());
        parts::set_first_password(config, &catalog).await?;
        let traces = Traces::of_environment(membership.id(), std::env::vars()).map(Arc::new);
        let history = History::new(
            membership.id(),
            history::directory(data_dir.path()),
            config.history.clone(),
            config.query.register_text_limit,
            traces.clone(),
        );
        let registry =
            Registry::new(coordination.clone(), membership.id(), &config.query, history.clone());
        let prefix = membership.record().await.pid_prefix.unwrap_or_default();
        let sessions = Arc::new(Sessions::new(prefix, history.clone()));
        let signals = Signals::open(
            coordination.clone(),
            membership.clone(),
            sessions.clone(),
            catalog.clone(),
        )
        .await?;
        Ok(Self {
            election: Election::open(coordination.clone(), membership.clone()).await?,
            log: Log::open(coordination.clone(), membership.id()).await?,
            submissions: Submissions::open(coordination.clone(), config.submitted.clone()).await?,
            admission: Admission::new(catalog.clone(), membership.clone()),
            live: LiveSettings::open(coordination, query::live::check_text).await?,
            in_force,
            shutdown: Shutdown::default(),
            membership,
            workers,
            signals,
            traces,
            warehouse,
            catalog,
            history,
            registry,
            sessions,
        })
    }

    /// The engine, with the cluster as tables in it.
    pub fn engine(&self, ground: &Ground, store: &Store) -> Result<Arc<Engine>, Error> {
        let system = System::new(
            Arc::new(ClusterView::new(
                (self.membership.clone(), self.workers.clone()),
                self.registry.clone(),
                self.history.clone(),
                self.election.clone(),
                self.log.clone(),
                (self.admission.clone(), store.clone()),
                (self.in_force.clone(), self.live.clone()),
            )),
            Arc::new(Clients::new(self.sessions.clone(), self.signals.clone())),
            self.submissions.clone(),
        );
        let spill = parts::spill_directory(&ground.config, &ground.data_dir);
        parts::check_spill_directory(&ground.config, &spill)?;
        let places = Places { spill, roots: parts::roots(&ground.config)? };
        Ok(Engine::new(&ground.config.engine, &places, Arc::new(system))?)
    }

    /// What carries statements out.
    pub async fn queries(
        &self,
        ground: &Ground,
        store: &Store,
        engine: Arc<Engine>,
    ) -> Result<Arc<Queries>, Error> {
        let config = &ground.config;
        let coordination: Arc<dyn Coordination> = store.own.clone();
        let commits = Commits::new(
            engine.files().clone(),
            self.catalog.clone(),
            self.membership.clone(),
            (engine.handle().clone(), engine.memory_pool().clone()),
        );
        let warehouse = self.warehouse.clone();
        parts::tell_of_warehouse_outside(warehouse.as_deref(), engine.roots());
        let cluster = self.membership.cluster();
        let restored_at = cluster::restored_at(coordination.as_ref()).await?;
        let warehouse_of = |url| Warehouse { url, cluster, restored_at };
        let maintenance = Maintenance::new(
            engine.clone(),
            self.catalog.clone(),
            commits.clone(),
            self.log.clone(),
            (config.maintenance.clone(), warehouse.clone().map(warehouse_of)),
        );
        let foundation = Foundation {
            coordination,
            engine,
            catalog: self.catalog.clone(),
            membership: self.membership.clone(),
            registry: self.registry.clone(),
            history: self.history.clone(),
            sessions: self.sessions.clone(),
            shutdown: self.shutdown.clone(),
            audit: parts::audit_trail(config, self.membership.id())?,
            commits,
            maintenance,
            admission: self.admission.clone(),
            live: self.live.clone(),
            schedules: Schedules::new(self.submissions.clone(), self.catalog.clone()),
            warehouse,
        };
        Ok(Queries::open(foundation).await?)
    }
}
