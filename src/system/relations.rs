//! Which relations the system has, with their columns: data, read once from `relations.txt`.

use std::collections::HashMap;
use std::fmt::{self, Display, Formatter};
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{Schema, SchemaRef};

use super::types;

/// The schemas that are the same in every database, with their object identifiers: PostgreSQL's
/// own, and for `system` and `zk` some below the first that users' objects get.
pub const SCHEMAS: &[(&str, u32)] =
    &[("pg_catalog", PG_CATALOG), ("information_schema", 13207), ("system", 15100), ("zk", 15200)];

/// The schema of this server's own functions. It holds no relations, and is in nobody's search path:
/// that of the role `oribi` would else begin with it.
pub const FUNCTIONS: (&str, u32) = ("oribi", 15050);

pub const PG_CATALOG: u32 = 11;

/// The schema `public`, which is there in every database and belongs to users.
pub const PUBLIC: u32 = 2200;

/// A system table or view.
#[derive(Debug)]
pub struct Relation {
    pub schema: &'static str,
    pub oid: u32,
    /// `r` for a table, `v` for a view.
    pub kind: &'static str,
    pub name: &'static str,
    pub columns: Vec<Column>,
    pub arrow: SchemaRef,
}

#[derive(Debug)]
pub struct Column {
    pub name: &'static str,
    /// PostgreSQL's name of the type.
    pub kind: &'static str,
    pub not_null: bool,
}

static RELATIONS: LazyLock<Vec<Relation>> = LazyLock::new(|| parse(include_str!("relations.txt")));

static BY_NAME: LazyLock<HashMap<(&str, &str), &Relation>> = LazyLock::new(|| {
    RELATIONS.iter().map(|relation| ((relation.schema, relation.name), relation)).collect()
});

pub fn all() -> &'static [Relation] {
    &RELATIONS
}

pub fn find(schema: &str, name: &str) -> Option<&'static Relation> {
    BY_NAME.get(&(schema, name)).copied()
}

pub fn schema_oid(name: &str) -> Option<u32> {
    let mut all = SCHEMAS.iter().chain([&FUNCTIONS]);
    all.find(|(schema, _)| *schema == name).map(|(_, oid)| *oid)
}

/// Whether a schema is of the system and may hold relations.
pub fn is_schema(name: &str) -> bool {
    SCHEMAS.iter().any(|(schema, _)| *schema == name)
}

impl Display for Relation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

impl Relation {
    pub fn position(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|candidate| candidate.name == column)
    }
}

/// Relations as they are written in `relations.txt`.
pub fn parse(text: &'static str) -> Vec<Relation> {
    let mut relations: Vec<Relation> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words: Vec<&'static str> = line.split_whitespace().collect();
        match (line.starts_with(' '), words.as_slice()) {
            (false, &[schema, oid, kind, name]) => {
                let oid = oid.parse().unwrap_or_default();
                let arrow = Arc::new(Schema::empty());
                relations.push(Relation { schema, oid, kind, name, columns: Vec::new(), arrow });
            }
            (true, columns) => {
                if let Some(relation) = relations.last_mut() {
                    relation.columns.extend(columns.iter().map(|column| parse_column(column)));
                }
            }
            _ => {}
        }
    }
    for relation in &mut relations {
        let field = |column: &Column| types::field(column.name, column.kind, !column.not_null);
        relation.arrow =
            Arc::new(Schema::new(relation.columns.iter().map(field).collect::<Vec<_>>()));
    }
    relations
}

fn parse_column(text: &'static str) -> Column {
    let (name, kind) = text.split_once(':').unwrap_or((text, "text"));
    match kind.strip_suffix('!') {
        Some(kind) => Column { name, kind, not_null: true },
        None => Column { name, kind, not_null: false },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::catalog::FIRST_USER_OID;

    #[test]
    fn every_relation_is_whole_and_its_identifier_its_own() {
        let mut oids = HashSet::new();
        for relation in all() {
            let name = format!("{}.{}", relation.schema, relation.name);
            assert!(relation.oid > 0 && relation.oid < FIRST_USER_OID, "{name}");
            assert!(oids.insert(relation.oid), "{name}");
            assert!(matches!(relation.kind, "r" | "v"), "{name}");
            assert!(!relation.columns.is_empty(), "{name}");
            assert!(schema_oid(relation.schema).is_some(), "{name}");
        }
        assert_eq!(find("pg_catalog", "pg_class").map(|class| class.oid), Some(1259));
        assert_eq!(find("pg_catalog", "nothing").map(|class| class.oid), None);
    }
}
