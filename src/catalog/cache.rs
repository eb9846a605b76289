//! The daemon's copy of the catalog and how it is kept up to date.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use serde::de::DeserializeOwned;
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::oids::Oids;
use super::pools::{Pool, PoolRecord};
use super::record::{DatabaseRecord, TableRecord};
use super::roles::{self, RoleRecord};
use super::snapshot::{Database, Role, Snapshot, Table, TableName};
use super::turns::Turns;
use super::{DEFAULT_DATABASE, Error, FIRST_ROLE, ObjectKind, Result};
use crate::config::InForce;
use crate::coordination::paths::{CatalogName, Path, parse_catalog};
use crate::coordination::{self, Coordination, Event, Mode, Op, Scope, Stat};
use crate::id;

/// PostgreSQL gives its default database the same one (`PostgresDbOid` in its `pg_database.dat`).
const DEFAULT_DATABASE_OID: u32 = 5;

/// The pause before everything is read anew because something could not be.
const CATCH_UP: Duration = Duration::from_secs(1);

/// Reads under way at once while everything is read anew.
pub(super) const CONCURRENT_READS: usize = 64;

/// How sure a look-up must be of seeing other daemons' latest DDL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// The cached copy; only a missing name is looked up in the store.
    #[default]
    Cached,
    /// Ask the store first.
    Strong,
}

/// The catalog as one daemon sees it.
#[derive(Debug)]
pub struct Catalog {
    pub(super) coordination: Arc<dyn Coordination>,
    pub(super) oids: Oids,
    pub(super) snapshot: watch::Sender<Arc<Snapshot>>,
    /// Held from reading a node until it is in the snapshot, so that an older read can never
    /// overwrite a newer one. Taken with [`Self::refreshing`].
    pub(super) refreshing: Mutex<()>,
    /// Tables as this daemon has written them while somebody read, which may have been from before that.
    /// Locked before the snapshot changes.
    pub(super) written: std::sync::Mutex<Vec<Arc<Table>>>,
    pub(super) turns: Turns,
    /// What this daemon asks of those who log in. Where nothing is set, LOGIN is enough.
    pub(super) entrance: OnceLock<Arc<InForce>>,
}

impl Catalog {
    /// Makes the default database and the first role if the store is new, and reads everything.
    pub async fn open(coordination: Arc<dyn Coordination>) -> Result<Arc<Self>> {
        roles::bootstrap(coordination.as_ref()).await?;
        bootstrap(coordination.as_ref()).await?;
        for root in [Path::Pools, Path::Lives] {
            coordination::ensure(coordination.as_ref(), &root.to_string()).await?;
        }
        let catalog = Self {
            oids: Oids::new(coordination.clone()),
            coordination,
            snapshot: watch::Sender::new(Arc::default()),
            refreshing: Mutex::new(()),
            written: std::sync::Mutex::default(),
            turns: Turns::new(),
            entrance: OnceLock::new(),
        };
        catalog.reload().await?;
        Ok(Arc::new(catalog))
    }

    /// From here on, whether somebody can still log in as a superuser is told by these settings' host rules, too.
    pub fn heed(&self, in_force: Arc<InForce>) {
        let _ = self.entrance.set(in_force);
    }

    /// The catalog at this moment.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.borrow().clone()
    }

    /// The catalog as it changes.
    pub fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.subscribe()
    }

    /// Follows the store's changes until `stop`. Needed exactly once.
    pub async fn follow(self: Arc<Self>, stop: CancellationToken) {
        tokio::select! {
            biased;
            () = self.follow_changes(stop) => {}
            () = self.remove_left_places() => {}
        }
    }

    async fn follow_changes(&self, stop: CancellationToken) {
        let watch = |path: Path<'_>| self.coordination.watch(&path.to_string(), Scope::Subtree);
        let (mut objects, mut roles) = (watch(Path::Catalog), watch(Path::Roles));
        let mut pools = watch(Path::Pools);
        // A change that could not be read: everything is read again until that succeeds.
        let mut behind = false;
        loop {
            // In one order, so that a simulation repeats exactly: what changes less often goes first.
            let (event, part) = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                event = pools.next() => (event, Part::Pools),
                event = roles.next() => (event, Part::Roles),
                event = objects.next() => (event, Part::Objects),
                () = tokio::time::sleep(CATCH_UP), if behind => (Some(Event::Resync), Part::Objects),
            };
            let Some(event) = event else { return };
            self.hear_of_turns(&event);
            let result = match &event {
                Event::Changed(path) if !behind => match parse_catalog(path) {
                    Some(name) => self.refresh(&name).await,
                    None => Ok(()),
                },
                Event::Resync | Event::Changed(_) => self.resync(part, behind).await,
            };
            behind = result.is_err();
            if let Err(error) = result {
                warn!(%error, ?event, "the catalog could not be refreshed; trying again");
            }
        }
    }

    /// Reads again what events no longer tell of. Another member of the ensemble may answer now, one
    /// that has not heard of all that this daemon has seen or done: it is to catch up first.
    async fn resync(&self, part: Part, behind: bool) -> Result<()> {
        self.coordination.sync().await?;
        match part {
            Part::Roles if !behind => self.reload_roles().await,
            Part::Pools if !behind => self.reload_pools().await,
            _ => self.reload().await,
        }
    }

    /// A table or view by its full name; [`Error::NotFound`] only after the store was asked.
    pub async fn table(&self, name: &TableName, consistency: Consistency) -> Result<Arc<Table>> {
        if consistency == Consistency::Cached
            && let Some(table) = self.snapshot().table(name)
        {
            return Ok(table.clone());
        }
        let node = if self.snapshot().databases.contains_key(&name.database) {
            CatalogName::Table {
                database: name.database.clone(),
                schema: name.schema.clone(),
                table: name.table.clone(),
            }
        } else {
            CatalogName::Database(name.database.clone())
        };
        self.second_look(&node, consistency).await?;
        self.snapshot()
            .table(name)
            .cloned()
            .ok_or_else(|| Error::NotFound { kind: ObjectKind::Table, name: display_name(name) })
    }

    /// A role by name; [`Error::NotFound`] only after the store was asked.
    pub async fn role(&self, name: &str, consistency: Consistency) -> Result<Arc<Role>> {
        let known = self.snapshot().roles.get(name).cloned();
        match known {
            Some(role) if consistency == Consistency::Cached => return Ok(role),
            Some(role) if roles::is_predefined(name) => return Ok(role),
            _ => self.second_look(&CatalogName::Role(name.to_owned()), consistency).await?,
        }
        (self.snapshot().roles.get(name).cloned())
            .ok_or_else(|| Error::NotFound { kind: ObjectKind::Role, name: name.to_owned() })
    }

    /// The role that something was written down for: see [`Snapshot::role_of`]. One that is not known
    /// here is looked for.
    pub async fn role_of(&self, name: &str, oid: Option<u32>) -> Result<Option<Arc<Role>>> {
        if let Some(role) = self.snapshot().role_of(name, oid) {
            return Ok(Some(role.clone()));
        }
        self.look_again_at_grants(Vec::new()).await?;
        Ok(self.snapshot().role_of(name, oid).cloned())
    }

    /// Reads again all that decides about a role's rights: before a denial is final, so that a
    /// grant made on one daemon counts on the next. While the store is out of reach what is known
    /// stands.
    pub async fn look_again_at_grants(&self, objects: Vec<CatalogName>) -> Result<()> {
        let looked = async {
            self.coordination.sync().await?;
            self.reload_roles().await?;
            for object in &objects {
                self.refresh(object).await?;
            }
            Ok(())
        };
        match looked.await {
            Err(Error::Unavailable(_)) => Ok(()),
            result => result,
        }
    }

    /// A database by name; [`Error::NotFound`] only after the store was asked.
    pub async fn database(&self, name: &str) -> Result<Arc<Database>> {
        if let Some(database) = self.snapshot().databases.get(name) {
            return Ok(database.clone());
        }
        self.second_look(&CatalogName::Database(name.to_owned()), Consistency::Cached).await?;
        self.snapshot()
            .databases
            .get(name)
            .cloned()
            .ok_or_else(|| Error::NotFound { kind: ObjectKind::Database, name: name.to_owned() })
    }

    /// Brings one name up to date with all that was committed before the call. While the store is
    /// out of reach the cached answer stands, unless the caller insists.
    async fn second_look(&self, name: &CatalogName, consistency: Consistency) -> Result<()> {
        let looked = async {
            self.coordination.sync().await?;
            self.refresh(name).await
        };
        match looked.await {
            Err(Error::Unavailable(_)) if consistency == Consistency::Cached => Ok(()),
            result => result,
        }
    }

    /// Reads one node again.
    pub(super) async fn refresh(&self, name: &CatalogName) -> Result<()> {
        let _guard = self.refreshing().await;
        match name {
            CatalogName::Role(role) => {
                let node = self.read(&Path::Role(role)).await?;
                let known = self.snapshot().roles.get(role).map(|known| known.stat);
                if !roles::is_predefined(role) && is_news(known.as_ref(), &node) {
                    self.update(|snapshot| snapshot.set_role(role, node));
                }
            }
            CatalogName::Pool(pool) => {
                let node = self.read(&Path::Pool(pool)).await?;
                let known = self.snapshot().pools.get(pool).map(|known| known.stat);
                if is_news(known.as_ref(), &node) {
                    self.update(|snapshot| snapshot.set_pool(pool, node));
                }
            }
            CatalogName::Database(database) => {
                let node = self.read(&Path::Database(database)).await?;
                let unknown = !self.snapshot().databases.contains_key(database);
                if unknown && node.is_some() {
                    return self.load_database(database).await;
                }
                let known = self.snapshot().databases.get(database).map(|known| known.stat);
                if is_news(known.as_ref(), &node) {
                    self.update(|snapshot| snapshot.set_database(database, node));
                }
            }
            CatalogName::Schema(database, schema) => {
                let node = self.read(&Path::Schema(database, schema)).await?;
                let snapshot = self.snapshot();
                let known = snapshot.databases.get(database).and_then(|d| d.schemas.get(schema));
                let known = known.and_then(|schema| Some(schema.node.as_ref()?.1));
                if is_news(known.as_ref(), &node) {
                    self.update(|snapshot| snapshot.set_schema(database, schema, node));
                }
            }
            CatalogName::Table { database, schema, table } => {
                let node = self.read(&Path::Table { database, schema, table }).await?;
                let name = TableName::new(database, schema, table);
                let known = self.snapshot().table(&name).map(|known| known.stat);
                if is_news(known.as_ref(), &node) {
                    return self.take_table(name, node).await;
                }
            }
        }
        Ok(())
    }

    /// Brings a schema up to date with which tables and views it holds.
    ///
    /// Its node is read before they are listed: what is created after the list was read changes
    /// the node's version after it was read, so that a write that checks the version notices.
    /// Returned is the snapshot with both: in a later one the schema may be newer than its list.
    pub(super) async fn refresh_schema(
        &self,
        database: &str,
        schema: &str,
    ) -> Result<Arc<Snapshot>> {
        self.coordination.sync().await?;
        let _guard = self.refreshing().await;
        let node = self.read(&Path::Schema(database, schema)).await?;
        let path = Path::Database(database).to_string();
        let listed: Vec<String> = (self.coordination.children(&path).await?.iter())
            .filter_map(|child| match parse_catalog(&format!("{path}/{child}"))? {
                CatalogName::Table { schema: of, table, .. } => (of == schema).then_some(table),
                _ => None,
            })
            .collect();
        let mut next = self.snapshot().as_ref().clone();
        next.set_schema(database, schema, node);
        let names = listed.iter().map(|table| TableName::new(database, schema, table));
        let unknown: Vec<_> = names.filter(|name| next.table(name).is_none()).collect();
        for name in &unknown {
            let table = name.table.as_str();
            let node = self.read(&Path::Table { database, schema, table }).await?;
            next.set_table(name, node);
        }
        self.publish(next, unknown).await?;
        Ok(self.snapshot())
    }

    /// The whole catalog as the store has it now.
    pub async fn latest(&self) -> Result<Arc<Snapshot>> {
        self.coordination.sync().await?;
        self.reload().await?;
        Ok(self.snapshot())
    }

    /// Reads everything again and replaces the snapshot at once.
    pub(super) async fn reload(&self) -> Result<()> {
        let _guard = self.refreshing().await;
        let snapshot = self.read_everything().await?;
        let names = snapshot.tables().map(|table| table.name.clone()).collect();
        self.publish(snapshot, names).await
    }

    pub(super) async fn read_everything(&self) -> Result<Snapshot> {
        let mut snapshot = Snapshot::default();
        snapshot.set_roles(self.read_roles().await?);
        snapshot.pools = self.read_pools().await?;
        for node in self.coordination.children(&Path::Catalog.to_string()).await? {
            if let Some(CatalogName::Database(name)) = parse_catalog(&format!("/catalog/{node}")) {
                self.read_database(&name, &mut snapshot).await?;
            }
        }
        Ok(snapshot)
    }

    /// Reads all roles again.
    pub(super) async fn reload_roles(&self) -> Result<()> {
        let _guard = self.refreshing().await;
        let nodes = self.read_roles().await?;
        let snapshot = self.snapshot();
        let same = nodes.len() + roles::PREDEFINED_ROLES.len() == snapshot.roles.len()
            && nodes.iter().all(|(name, (_, stat))| {
                snapshot.roles.get(name).is_some_and(|known| known.stat.mzxid == stat.mzxid)
            });
        if !same {
            self.update(|snapshot| snapshot.set_roles(nodes));
        }
        Ok(())
    }

    async fn read_roles(&self) -> Result<Vec<(String, (RoleRecord, Stat))>> {
        let names = self.coordination.children(&Path::Roles.to_string()).await?;
        let names: Vec<String> = (names.iter())
            .filter_map(|node| match parse_catalog(&format!("/roles/{node}")) {
                Some(CatalogName::Role(name)) if !roles::is_predefined(&name) => Some(name),
                _ => None,
            })
            .collect();
        let nodes: Vec<_> =
            stream::iter(names.into_iter().map(|name| async { self.read_role(name).await }))
                .buffer_unordered(CONCURRENT_READS)
                .try_collect()
                .await?;
        Ok(nodes.into_iter().flatten().collect())
    }

    async fn reload_pools(&self) -> Result<()> {
        let _guard = self.refreshing().await;
        let pools = self.read_pools().await?;
        if !Arc::ptr_eq(&pools, &self.snapshot().pools) {
            self.update(|snapshot| snapshot.pools = pools);
        }
        Ok(())
    }

    async fn read_pools(&self) -> Result<Arc<BTreeMap<String, Arc<Pool>>>> {
        let mut snapshot = Snapshot::default();
        for node in self.coordination.children(&Path::Pools.to_string()).await? {
            if let Some(CatalogName::Pool(name)) = parse_catalog(&format!("{}/{node}", Path::Pools))
            {
                let node = self.read::<PoolRecord>(&Path::Pool(&name)).await?;
                snapshot.set_pool(&name, node);
            }
        }
        // Who holds the map takes another one for news.
        let known = self.snapshot().pools.clone();
        Ok(if known == snapshot.pools { known } else { snapshot.pools })
    }

    async fn read_role(&self, name: String) -> Result<Option<(String, (RoleRecord, Stat))>> {
        let node = self.read(&Path::Role(&name)).await?;
        Ok(node.map(|node| (name, node)))
    }

    async fn load_database(&self, name: &str) -> Result<()> {
        let mut next = self.snapshot().as_ref().clone();
        self.read_database(name, &mut next).await?;
        let tables = next.tables().map(|table| &table.name);
        let news = tables.filter(|table| table.database == name).cloned().collect();
        self.publish(next, news).await
    }

    async fn read_database(&self, name: &str, into: &mut Snapshot) -> Result<()> {
        let path = Path::Database(name);
        let Some(node) = self.read::<DatabaseRecord>(&path).await? else { return Ok(()) };
        into.set_database(name, Some(node));
        let path = path.to_string();
        let children = match self.coordination.children(&path).await {
            // Dropped since its node was read.
            Err(coordination::Error::NoNode { .. }) => {
                into.set_database(name, None);
                return Ok(());
            }
            children => children?,
        };
        let names: Vec<CatalogName> = (children.iter())
            .filter_map(|child| parse_catalog(&format!("{path}/{child}")))
            .collect();
        let loaded: Vec<Loaded> =
            stream::iter(names.into_iter().map(|name| async { self.load(name).await }))
                .buffer_unordered(CONCURRENT_READS)
                .try_collect()
                .await?;
        // Schemas first: a table's entry must not be there before its schema's.
        for item in &loaded {
            if let Loaded::Schema(schema, node) = item {
                into.set_schema(name, schema, node.clone());
            }
        }
        for item in loaded {
            if let Loaded::Table(table, node) = item {
                into.set_table(&table, *node);
            }
        }
        Ok(())
    }

    pub(super) async fn load(&self, name: CatalogName) -> Result<Loaded> {
        Ok(match name {
            CatalogName::Table { database, schema, table } => {
                let path = Path::Table { database: &database, schema: &schema, table: &table };
                let node = self.read(&path).await?;
                Loaded::Table(TableName { database, schema, table }, Box::new(node))
            }
            CatalogName::Schema(database, schema) => {
                let node = self.read(&Path::Schema(&database, &schema)).await?;
                Loaded::Schema(schema, node)
            }
            CatalogName::Database(_) | CatalogName::Role(_) | CatalogName::Pool(_) => {
                Loaded::Nothing
            }
        })
    }

    /// Reads a record. One that an operator made unreadable is reported and left out, so that it
    /// costs nobody the rest of the catalog.
    async fn read<T: DeserializeOwned>(&self, path: &Path<'_>) -> Result<Option<(T, Stat)>> {
        let path = path.to_string();
        let Some(node) = self.coordination.get(&path).await? else { return Ok(None) };
        match serde_json::from_slice(&node.data) {
            Ok(record) => Ok(Some((record, node.stat))),
            Err(error) => {
                warn!(%path, %error, "a record in the catalog is not valid and is left out");
                Ok(None)
            }
        }
    }
}

/// What is watched by itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Objects,
    Roles,
    Pools,
}

/// Whether a node is another than the one known. What was planned from a snapshot stays valid
/// while nothing changes in it.
pub(super) fn is_news<T>(known: Option<&Stat>, node: &Option<(T, Stat)>) -> bool {
    known.map(|stat| stat.mzxid) != node.as_ref().map(|(_, stat)| stat.mzxid)
}

pub(super) enum Loaded {
    Schema(String, Option<(DatabaseRecord, Stat)>),
    Table(TableName, Box<Option<(TableRecord, Stat)>>),
    Nothing,
}

/// A name as messages show it: without the database and the schema everyone has.
pub(super) fn display_name(name: &TableName) -> String {
    if name.schema == super::PUBLIC {
        name.table.clone()
    } else {
        format!("{}.{}", name.schema, name.table)
    }
}

/// Makes the catalog's root and the default database in one step, the first time only: a default
/// database that somebody dropped stays dropped.
async fn bootstrap(coordination: &dyn Coordination) -> Result<()> {
    let root = Path::Catalog.to_string();
    if coordination.get(&root).await?.is_some() {
        return Ok(());
    }
    let record = DatabaseRecord {
        oid: DEFAULT_DATABASE_OID,
        life: 0,
        owner: FIRST_ROLE.to_owned(),
        grants: None,
        comment: None,
        settings: BTreeMap::new(),
        nonce: id::nonce(),
    };
    let path = Path::Database(DEFAULT_DATABASE).to_string();
    let data = serde_json::to_vec(&record)
        .map_err(|source| Error::BadRecord { path: path.clone(), source })?;
    let ops = vec![
        Op::Create { path: root.clone(), data: Bytes::new(), mode: Mode::Persistent },
        Op::Create { path, data: data.into(), mode: Mode::Persistent },
    ];
    match coordination.transact(ops).await {
        Ok(_) => Ok(()),
        // Another daemon was first, or our own reply was lost: what counts is that it is there.
        Err(error) => match coordination.get(&root).await? {
            Some(_) => Ok(()),
            None => Err(error.into()),
        },
    }
}
