//! The catalog at one moment, immutable: what a statement plans from.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::sync::Arc;

use super::PUBLIC;
use super::record::{DatabaseRecord, SchemaRecord, TableRecord};
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

/// All databases, as of the last change this daemon has seen.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub databases: BTreeMap<String, Arc<Database>>,
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
    /// None for `public`, which has no node of its own.
    pub node: Option<(SchemaRecord, Stat)>,
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

    pub(super) fn set_database(&mut self, name: &str, node: Option<(DatabaseRecord, Stat)>) {
        match node {
            None => drop(self.databases.remove(name)),
            Some((record, stat)) => match self.databases.get_mut(name) {
                Some(database) => {
                    let database = Arc::make_mut(database);
                    (database.record, database.stat) = (record, stat);
                }
                None => {
                    let schemas = BTreeMap::from([(PUBLIC.to_owned(), Schema::default())]);
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
                let table = Arc::new(Table { name: name.clone(), record, stat });
                let schema = schemas.entry(name.schema.clone()).or_default();
                schema.tables.insert(name.table.clone(), table);
            }
        }
    }
}
