//! Databases, schemas, relations, columns, views and comments.

use arrow::array::RecordBatch;
use arrow::datatypes::Field;
use datafusion::error::Result;

use super::super::relations::{self, PG_CATALOG, PUBLIC, Relation};
use super::super::rows::{Rows, Value};
use super::super::types::{self, ColumnType};
use super::super::{View, relations::FUNCTIONS, relations::SCHEMAS};
use super::roles;
use crate::catalog::{
    self, Definition, External, FIRST_ROLE, FileFormat, Grants, Privilege, RowSecurity, Table,
};

/// Identifiers of the tables that a comment's or dependency's `classoid` names.
pub const PG_CLASS: u32 = 1259;
pub const PG_DATABASE: u32 = 1262;
pub const PG_NAMESPACE: u32 = 2615;

/// PostgreSQL's number for UTF8.
const UTF8: i32 = 6;

/// `pg_default` in `pg_tablespace`.
const DEFAULT_TABLESPACE: u32 = 1663;

/// A schema of the session's database or of the system.
#[derive(Clone, Copy, Debug)]
pub struct SchemaItem<'a> {
    pub oid: u32,
    pub name: &'a str,
    pub owner: &'a str,
    pub comment: Option<&'a str>,
    pub grants: Option<&'a Grants>,
}

/// A relation of the session's database or of the system.
#[derive(Clone, Copy, Debug)]
pub enum RelationItem<'a> {
    System(&'static Relation),
    User { schema: u32, table: &'a Table },
}

impl<'a> RelationItem<'a> {
    pub fn oid(&self) -> u32 {
        match self {
            Self::System(relation) => relation.oid,
            Self::User { table, .. } => table.record.oid,
        }
    }

    pub fn schema_oid(&self) -> u32 {
        match self {
            Self::System(relation) => relations::schema_oid(relation.schema).unwrap_or_default(),
            Self::User { schema, .. } => *schema,
        }
    }

    pub fn schema(&self) -> &'a str {
        match self {
            Self::System(relation) => relation.schema,
            Self::User { table, .. } => &table.name.schema,
        }
    }

    pub fn name(&self) -> &'a str {
        match self {
            Self::System(relation) => relation.name,
            Self::User { table, .. } => &table.name.table,
        }
    }

    pub fn owner(&self) -> &'a str {
        match self {
            Self::System(_) => FIRST_ROLE,
            Self::User { table, .. } => &table.record.owner,
        }
    }

    pub fn is_view(&self) -> bool {
        match self {
            Self::System(relation) => relation.kind == "v",
            Self::User { table, .. } => table.record.is_view(),
        }
    }

    pub fn row_security(&self) -> Option<RowSecurity> {
        match self {
            Self::System(_) => None,
            Self::User { table, .. } => table.record.row_security,
        }
    }

    /// The SELECT statement of a user's view.
    pub fn definition(&self) -> Option<&'a str> {
        match self {
            Self::User { table, .. } => match &table.record.definition {
                Definition::View { sql, .. } => Some(sql),
                Definition::External(_) | Definition::Managed(_) => None,
            },
            Self::System(_) => None,
        }
    }

    pub fn columns(&self) -> Vec<ColumnItem<'a>> {
        match self {
            Self::System(relation) => (relation.columns.iter())
                .map(|column| ColumnItem {
                    name: column.name,
                    kind: ColumnType {
                        oid: types::types().oid(column.kind).unwrap_or(25),
                        modifier: -1,
                        dimensions: column.kind.starts_with('_').into(),
                    },
                    not_null: column.not_null,
                    default: None,
                    grants: None,
                })
                .collect(),
            Self::User { table, .. } => table.record.columns.iter().map(ColumnItem::of).collect(),
        }
    }
}

/// A column of any relation.
#[derive(Clone, Copy, Debug)]
pub struct ColumnItem<'a> {
    pub name: &'a str,
    pub kind: ColumnType,
    pub not_null: bool,
    /// As SQL.
    pub default: Option<&'a str>,
    /// What was granted on it alone.
    pub grants: Option<&'a Grants>,
}

impl<'a> ColumnItem<'a> {
    fn of(column: &'a catalog::Column) -> Self {
        let field = match column.metadata.is_empty() {
            true => Field::new("", column.data_type.clone(), true),
            false => column.field(),
        };
        Self {
            name: &column.name,
            kind: types::column_type(&field),
            not_null: !column.nullable,
            default: column.default.as_deref(),
            grants: some(&column.grants),
        }
    }
}

/// All schemas that the session sees: those of the system, and those it may use.
pub fn schema_items<'a>(view: &'a View<'_>) -> Vec<SchemaItem<'a>> {
    let system = SCHEMAS.iter().chain([&FUNCTIONS]).map(|&(name, oid)| SchemaItem {
        oid,
        name,
        owner: FIRST_ROLE,
        comment: None,
        grants: None,
    });
    let access = view.access();
    let sees = |database: &catalog::Database, schema: &catalog::Schema| {
        Privilege::SCHEMA.iter().any(|privilege| access.schema(database, schema, *privilege))
    };
    let users = view.database().into_iter().flat_map(|database| {
        let schemas = database.schemas.iter();
        let seen = schemas.filter(|(_, schema)| sees(database, schema));
        seen.map(|(name, schema)| {
            let record = schema.node.as_ref().map(|(record, _)| record);
            SchemaItem {
                oid: record.map_or(PUBLIC, |record| record.oid),
                name,
                owner: schema.owner(database),
                comment: record.and_then(|record| record.comment.as_deref()),
                grants: record.and_then(|record| record.grants.as_ref()),
            }
        })
    });
    system.chain(users.collect::<Vec<_>>()).collect()
}

/// The relations of users in the session's database, as far as the session's role may do something
/// with them.
pub fn user_relations<'a>(view: &'a View<'_>) -> Vec<RelationItem<'a>> {
    let access = view.access();
    let Some(database) = view.database() else { return Vec::new() };
    let usable = |schema: &&catalog::Schema| access.schema(database, schema, Privilege::Usage);
    let tables = database.schemas.values().filter(usable).flat_map(|schema| {
        let oid = schema.node.as_ref().map_or(PUBLIC, |(record, _)| record.oid);
        let seen = schema.tables.values().filter(|table| access.sees(table));
        seen.map(move |table| RelationItem::User { schema: oid, table })
    });
    tables.collect()
}

/// All relations that the session sees.
pub fn relation_items<'a>(view: &'a View<'_>) -> Vec<RelationItem<'a>> {
    let system = relations::all().iter().map(RelationItem::System);
    system.chain(user_relations(view)).collect()
}

pub fn databases(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let mut rows = Rows::new(
        relation,
        &[
            "oid",
            "datname",
            "datdba",
            "encoding",
            "datlocprovider",
            "datallowconn",
            "datconnlimit",
            "dattablespace",
            "datcollate",
            "datctype",
            "datacl",
        ],
    );
    let access = view.access();
    let seen = |database: &catalog::Database| {
        Privilege::DATABASE.iter().any(|privilege| access.database(database, *privilege))
    };
    for (name, database) in view.snapshot.databases.iter().filter(|(_, database)| seen(database)) {
        rows.push([
            database.record.oid.into(),
            name.into(),
            roles::oid(view, &database.record.owner).into(),
            UTF8.into(),
            "c".into(),
            true.into(),
            (-1).into(),
            DEFAULT_TABLESPACE.into(),
            "C".into(),
            "C.UTF-8".into(),
            acl(database.record.grants.as_ref(), &database.record.owner, Privilege::DATABASE),
        ]);
    }
    rows.finish()
}

pub fn schemas(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let mut rows = Rows::new(relation, &["oid", "nspname", "nspowner", "nspacl"]);
    for schema in schema_items(view) {
        rows.push([
            schema.oid.into(),
            schema.name.into(),
            roles::oid(view, schema.owner).into(),
            acl(schema.grants, schema.owner, Privilege::SCHEMA),
        ]);
    }
    rows.finish()
}

/// Grants in PostgreSQL's notation; NULL where nothing was said.
fn acl(grants: Option<&Grants>, owner: &str, all: &[Privilege]) -> Value {
    grants.map_or(Value::Null, |grants| {
        Value::List(grants.acl(owner, all).into_iter().map(Value::Text).collect())
    })
}

fn some(grants: &Grants) -> Option<&Grants> {
    (!grants.is_empty()).then_some(grants)
}

pub fn relations(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let mut rows = Rows::new(
        relation,
        &[
            "oid",
            "relname",
            "relnamespace",
            "relowner",
            "reltuples",
            "relpersistence",
            "relkind",
            "relnatts",
            "relhasrules",
            "relispopulated",
            "relreplident",
            "reloptions",
            "relrowsecurity",
            "relforcerowsecurity",
            "relacl",
        ],
    );
    for item in relation_items(view) {
        let (count, options, security, grants) = match item {
            RelationItem::System(relation) => (relation.columns.len(), Value::Null, None, None),
            RelationItem::User { table, .. } => {
                let record = &table.record;
                let options = options(&record.definition, view.access().reads_all(table));
                (record.columns.len(), options, record.row_security, some(&record.grants))
            }
        };
        rows.push([
            item.oid().into(),
            item.name().into(),
            item.schema_oid().into(),
            roles::oid(view, item.owner()).into(),
            (-1.0).into(),
            "p".into(),
            if item.is_view() { "v" } else { "r" }.into(),
            i16::try_from(count).unwrap_or(i16::MAX).into(),
            item.is_view().into(),
            true.into(),
            if item.schema_oid() == PG_CATALOG { "n" } else { "d" }.into(),
            options,
            security.is_some().into(),
            (security == Some(RowSecurity::Forced)).into(),
            acl(grants, item.owner(), Privilege::TABLE),
        ]);
    }
    rows.finish()
}

/// Where an external table's files are, in the notation of PostgreSQL's storage parameters: psql's
/// `\d+` shows it.
fn options(definition: &Definition, reads_all: bool) -> Value {
    let External { location, format, partition_columns, options } = match definition {
        Definition::External(external) => external,
        Definition::Managed(managed) => {
            // A new name tells of a change, which is for those who may read all of it.
            let metadata = reads_all.then(|| format!("metadata={}", managed.metadata));
            let list = ["format=iceberg".to_owned()].into_iter().chain(metadata);
            return Value::List(list.map(Value::Text).collect());
        }
        Definition::View { .. } => return Value::Null,
    };
    let format = match format {
        FileFormat::Parquet => "parquet",
        FileFormat::Csv => "csv",
        FileFormat::Json => "json",
    };
    let mut list = vec![format!("location={location}"), format!("format={format}")];
    if !partition_columns.is_empty() {
        list.push(format!("partitioned_by={}", partition_columns.join(" ")));
    }
    list.extend(options.iter().map(|(name, value)| format!("{name}={value}")));
    Value::List(list.into_iter().map(Value::Text).collect())
}

pub fn columns(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let mut rows = Rows::new(
        relation,
        &[
            "attrelid",
            "attname",
            "atttypid",
            "attstattarget",
            "attlen",
            "attnum",
            "attndims",
            "attcacheoff",
            "atttypmod",
            "attbyval",
            "attalign",
            "attstorage",
            "attnotnull",
            "atthasdef",
            "attislocal",
            "attcollation",
            "attacl",
        ],
    );
    for item in relation_items(view) {
        for (column, number) in item.columns().into_iter().zip(1..) {
            let layout = types::types().get(column.kind.oid);
            rows.push([
                item.oid().into(),
                column.name.into(),
                column.kind.oid.into(),
                (-1).into(),
                layout.map_or(-1, |layout| layout.length).into(),
                Value::Int(number),
                column.kind.dimensions.into(),
                (-1).into(),
                column.kind.modifier.into(),
                layout.is_some_and(|layout| layout.by_value).into(),
                layout.map_or("i", |layout| &layout.align).into(),
                layout.map_or("x", |layout| &layout.storage).into(),
                column.not_null.into(),
                column.default.is_some().into(),
                true.into(),
                layout.map_or(0, |layout| layout.collation).into(),
                column.grants.map_or(Value::Null, |grants| acl(Some(grants), item.owner(), &[])),
            ]);
        }
    }
    rows.finish()
}

pub fn defaults(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let mut rows = Rows::new(relation, &["oid", "adrelid", "adnum", "adbin"]);
    for item in user_relations(view) {
        for (column, number) in item.columns().into_iter().zip(1i64..) {
            let Some(default) = column.default else { continue };
            // Nothing refers to a default by an identifier of its own.
            rows.push([item.oid().into(), item.oid().into(), number.into(), default.into()]);
        }
    }
    rows.finish()
}

pub fn tables(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let mut rows = Rows::new(
        relation,
        &[
            "schemaname",
            "tablename",
            "tableowner",
            "hasindexes",
            "hasrules",
            "hastriggers",
            "rowsecurity",
        ],
    );
    for item in relation_items(view).into_iter().filter(|item| !item.is_view()) {
        rows.push([
            item.schema().into(),
            item.name().into(),
            item.owner().into(),
            false.into(),
            false.into(),
            false.into(),
            item.row_security().is_some().into(),
        ]);
    }
    rows.finish()
}

pub fn views(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let mut rows = Rows::new(relation, &["schemaname", "viewname", "viewowner", "definition"]);
    for item in relation_items(view).into_iter().filter(RelationItem::is_view) {
        rows.push([
            item.schema().into(),
            item.name().into(),
            item.owner().into(),
            item.definition().map(with_semicolon).into(),
        ]);
    }
    rows.finish()
}

/// A view's definition as PostgreSQL gives it back: clients cut off the semicolon.
pub fn with_semicolon(sql: &str) -> String {
    format!(" {};", sql.trim().trim_end_matches(';'))
}

pub fn descriptions(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let mut rows = Rows::new(relation, &["objoid", "classoid", "objsubid", "description"]);
    for schema in schema_items(view) {
        if let Some(comment) = schema.comment {
            rows.push([schema.oid.into(), PG_NAMESPACE.into(), 0.into(), comment.into()]);
        }
    }
    for item in user_relations(view) {
        let RelationItem::User { table, .. } = item else { continue };
        if let Some(comment) = &table.record.comment {
            rows.push([item.oid().into(), PG_CLASS.into(), 0.into(), comment.into()]);
        }
        for (column, number) in table.record.columns.iter().zip(1..) {
            if let Some(comment) = &column.comment {
                let number = Value::Int(number);
                rows.push([item.oid().into(), PG_CLASS.into(), number, comment.into()]);
            }
        }
    }
    rows.finish()
}

pub fn shared_descriptions(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let mut rows = Rows::new(relation, &["objoid", "classoid", "description"]);
    for database in view.snapshot.databases.values() {
        if let Some(comment) = &database.record.comment {
            rows.push([database.record.oid.into(), PG_DATABASE.into(), comment.into()]);
        }
    }
    rows.finish()
}
