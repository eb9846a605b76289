//! Names as statements write them, and the full names that they stand for.

use sqlparser::ast::{Ident, ObjectName, ObjectNamePart};

use crate::catalog::{PUBLIC, RESERVED_SCHEMAS, TableName};
use crate::query::life::Session;
use crate::query::{Error, Result};

impl Session {
    /// The full name of something to be made.
    pub(in crate::query) async fn target(&self, name: &ObjectName) -> Result<TableName> {
        let parts: Vec<String> = name.0.iter().map(part_name).collect();
        Ok(match parts.as_slice() {
            [table] => {
                // The first schema of the search path that holds users' tables.
                let snapshot = self.catalog().snapshot();
                let schemas = snapshot.databases.get(self.database()).map(|d| &d.schemas);
                let path = self.search_path();
                let schema = path
                    .iter()
                    .find(|name| schemas.is_some_and(|known| known.contains_key(*name)))
                    .map_or(PUBLIC, String::as_str);
                TableName::new(self.database(), schema, table)
            }
            [qualifier, table] => self.qualified(qualifier, table).await,
            [database, schema, table] => TableName::new(database, schema, table),
            _ => return Err(Error::Invalid(format!("improper qualified name: {name}"))),
        })
    }

    /// `qualifier.table`: in a schema of this database or, where that has none of this name, in the
    /// database of this name.
    async fn qualified(&self, qualifier: &str, table: &str) -> TableName {
        let snapshot = self.catalog().snapshot();
        let own = snapshot.databases.get(self.database());
        let is_schema = RESERVED_SCHEMAS.contains(&qualifier)
            || own.is_some_and(|database| database.schemas.contains_key(qualifier));
        match is_schema || self.catalog().database(qualifier).await.is_err() {
            true => TableName::new(self.database(), qualifier, table),
            false => TableName::new(qualifier, PUBLIC, table),
        }
    }

    /// The full name of something that is there; if it is not, the name under which it would be
    /// made.
    pub(in crate::query) async fn existing(&self, name: &ObjectName) -> Result<TableName> {
        let target = self.target(name).await?;
        if name.0.len() == 1 {
            for schema in self.search_path() {
                let name = TableName::new(&target.database, &schema, &target.table);
                if self.catalog().snapshot().table(&name).is_some() {
                    return Ok(name);
                }
            }
        }
        Ok(target)
    }
}

/// An identifier as PostgreSQL folds it.
pub(in crate::query) fn ident(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

pub(super) fn part_name(part: &ObjectNamePart) -> String {
    part.as_ident().map(ident).unwrap_or_else(|| part.to_string())
}

/// A name as messages show it, which have quotes of their own around it.
pub(in crate::query) fn shown(name: &ObjectName) -> String {
    name.0.iter().map(part_name).collect::<Vec<_>>().join(".")
}

pub(in crate::query) fn single(name: &ObjectName) -> Result<String> {
    match name.0.as_slice() {
        [part] => Ok(part_name(part)),
        _ => Err(Error::Invalid(format!("improper qualified name: {name}"))),
    }
}
