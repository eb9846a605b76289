//! The catalog at one moment, immutable: what a statement plans from.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::PUBLIC;
use super::pools::{Pool, PoolRecord};
use super::record::{DatabaseRecord, SchemaRecord, TableRecord};
use super::roles::{PREDEFINED_ROLES, RoleRecord};
use crate::coordination::Stat;

/// A table's or view's full name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName {
    pub database: String,
    pub schema: String,
    pub table: String,
}

impl TableName {
    pub fn new(
        database: impl Into<String>,
        schema: impl Into<String>,
        table: impl Into<String>,
    ) -> Self {
        Self { database: database.into(), schema: schema.into(), table: table.into() }
    }
}

impl Display for TableName {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.database, self.schema, self.table)
    }
}

/// All databases, roles and pools, as of the last change this daemon has seen.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub databases: BTreeMap<String, Arc<Database>>,
    /// Predefined ones included.
    pub roles: BTreeMap<String, Arc<Role>>,
    /// The same map as long as none of them changes.
    pub pools: Arc<BTreeMap<String, Arc<Pool>>>,
    pub(super) absent: Absent,
}

/// Identifiers that no table of a snapshot has, as far as somebody has looked: tables that were dropped are
/// asked for time and again.
#[derive(Debug, Default)]
pub(super) struct Absent(Mutex<BTreeSet<u32>>);

/// More are not kept in mind.
const MAX_ABSENT: usize = 10_000;

impl Absent {
    fn all(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn has(&self, oid: u32) -> bool {
        self.all().contains(&oid)
    }

    pub fn add(&self, oid: u32) {
        let mut all = self.all();
        if all.len() >= MAX_ABSENT {
            all.clear();
        }
        all.insert(oid);
    }
}

impl Clone for Absent {
    fn clone(&self) -> Self {
        Self(Mutex::new(self.all().clone()))
    }
}

impl Snapshot {
    /// All tables and views.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        let schemas = self.databases.values().flat_map(|database| database.schemas.values());
        schemas.flat_map(|schema| schema.tables.values())
    }

    /// The role that something was written down for, by whatever name it has now. What has not its
    /// identifier goes by the name.
    pub fn role_of(&self, name: &str, oid: Option<u32>) -> Option<&Arc<Role>> {
        let named = self.roles.get(name);
        match oid {
            None => named,
            Some(oid) => named
                .filter(|role| role.record.oid == oid)
                .or_else(|| self.roles.values().find(|role| role.record.oid == oid)),
        }
    }
}

/// A role with its record.
#[derive(Clone, Debug)]
pub struct Role {
    pub name: String,
    pub record: RoleRecord,
    pub stat: Stat,
}

#[derive(Clone, Debug)]
pub struct Database {
    pub record: DatabaseRecord,
    pub stat: Stat,
    /// `public` is always there.
    pub schemas: BTreeMap<String, Schema>,
}

#[derive(Clone, Debug, Default)]
pub struct Schema {
    /// None for `public` as long as nothing was said about it.
    pub node: Option<(SchemaRecord, Stat)>,
    /// Whether it is the one that every database has.
    pub(super) public: bool,
    pub tables: BTreeMap<String, Arc<Table>>,
}

#[derive(Clone, Debug)]
pub struct Table {
    pub name: TableName,
    pub record: TableRecord,
    /// The node's metadata: `version` for versioned writes, `mzxid` as the definition's identity
    /// in caches.
    pub stat: Stat,
}

impl Snapshot {
    pub fn table(&self, name: &TableName) -> Option<&Arc<Table>> {
        self.databases.get(&name.database)?.schemas.get(&name.schema)?.tables.get(&name.table)
    }

    /// `None` for the records: no such role any more.
    pub(super) fn set_role(&mut self, name: &str, node: Option<(RoleRecord, Stat)>) {
        match node {
            None => drop(self.roles.remove(name)),
            Some((record, stat)) => {
                let role = Role { name: name.to_owned(), record, stat };
                self.roles.insert(name.to_owned(), Arc::new(role));
            }
        }
    }

    /// Replaces all roles; the predefined ones stay.
    pub(super) fn set_roles(&mut self, nodes: Vec<(String, (RoleRecord, Stat))>) {
        let predefined = PREDEFINED_ROLES.iter().map(|(name, oid)| Role::predefined(name, *oid));
        self.roles = predefined.map(|role| (role.name.clone(), Arc::new(role))).collect();
        for (name, node) in nodes {
            self.set_role(&name, Some(node));
        }
    }

    /// `None` for the records: no such pool any more.
    pub(super) fn set_pool(&mut self, name: &str, node: Option<(PoolRecord, Stat)>) {
        let pools = Arc::make_mut(&mut self.pools);
        match node {
            None => drop(pools.remove(name)),
            Some((record, stat)) => {
                let pool = Pool { name: name.to_owned(), record, stat };
                pools.insert(name.to_owned(), Arc::new(pool));
            }
        }
    }

    pub(super) fn set_database(&mut self, name: &str, node: Option<(DatabaseRecord, Stat)>) {
        match node {
            None => drop(self.databases.remove(name)),
            Some((record, stat)) => match self.databases.get_mut(name) {
                Some(database) => {
                    let database = Arc::make_mut(database);
                    (database.record, database.stat) = (record, stat);
                }
                None => {
                    let public = Schema { public: true, ..Schema::default() };
                    let schemas = BTreeMap::from([(PUBLIC.to_owned(), public)]);
                    let database = Database { record, stat, schemas };
                    self.databases.insert(name.to_owned(), Arc::new(database));
                }
            },
        }
    }

    /// Does nothing if the database is unknown: its own event brings it, with all it holds.
    pub(super) fn set_schema(
        &mut self,
        database: &str,
        schema: &str,
        node: Option<(SchemaRecord, Stat)>,
    ) {
        let Some(database) = self.databases.get_mut(database) else { return };
        let schemas = &mut Arc::make_mut(database).schemas;
        match node {
            None if schema != PUBLIC => drop(schemas.remove(schema)),
            node => schemas.entry(schema.to_owned()).or_default().node = node,
        }
    }

    pub(super) fn set_table(&mut self, name: &TableName, node: Option<(TableRecord, Stat)>) {
        let Some(database) = self.databases.get_mut(&name.database) else { return };
        let schemas = &mut Arc::make_mut(database).schemas;
        match node {
            None => {
                if let Some(schema) = schemas.get_mut(&name.schema) {
                    schema.tables.remove(&name.table);
                }
            }
            Some((record, stat)) => {
                self.absent.all().remove(&record.oid);
                let table = Arc::new(Table { name: name.clone(), record, stat });
                let schema = schemas.entry(name.schema.clone()).or_default();
                schema.tables.insert(name.table.clone(), table);
            }
        }
    }
}
