//! `information_schema`: the catalog in the words of the SQL standard.
//!
//! - [`routines`]: functions and their parameters.
//! - [`privileges`]: who was granted what.
//!
//! Whatever is not listed in [`source`] is empty: constraints, sequences, triggers, domains and the
//! like, which do not exist here.

mod privileges;
mod routines;

use arrow::array::RecordBatch;
use datafusion::error::Result;

use super::View;
use super::pg_catalog::objects::{self, ColumnItem, RelationItem};
use super::pg_catalog::roles;
use super::relations::Relation;
use super::rows::{Rows, Value};
use super::table::Source;
use super::types;

/// The longest text, in bytes, as PostgreSQL puts it.
const TEXT_LIMIT: i32 = 1 << 30;

pub fn source(name: &str) -> Source {
    match name {
        "information_schema_catalog_name" => Source::Rows(catalog_name),
        "schemata" => Source::Rows(schemata),
        "tables" => Source::Rows(tables),
        "columns" => Source::Rows(columns),
        "views" => Source::Rows(views),
        "element_types" => Source::Rows(element_types),
        "enabled_roles" => Source::Rows(enabled_roles),
        "applicable_roles" => Source::Rows(privileges::applicable_roles),
        "administrable_role_authorizations" => Source::Rows(privileges::administrable),
        "table_privileges" | "role_table_grants" => Source::Rows(privileges::tables),
        "column_privileges" | "role_column_grants" => Source::Rows(privileges::columns),
        "routines" => Source::Rows(routines::routines),
        "parameters" => Source::Rows(routines::parameters),
        "character_sets" => Source::Rows(character_sets),
        "collations" => Source::Rows(collations),
        "collation_character_set_applicability" => Source::Rows(collation_character_sets),
        _ => Source::Nothing,
    }
}

fn catalog_name(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let mut rows = Rows::new(relation, &["catalog_name"]);
    rows.push([view.session.database.as_ref().into()]);
    rows.finish()
}

fn schemata(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let mut rows = Rows::new(relation, &["catalog_name", "schema_name", "schema_owner"]);
    for schema in objects::schema_items(view) {
        let database = view.session.database.as_ref();
        rows.push([database.into(), schema.name.into(), schema.owner.into()]);
    }
    rows.finish()
}

fn tables(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let mut rows = Rows::new(
        relation,
        &[
            "table_catalog",
            "table_schema",
            "table_name",
            "table_type",
            "is_insertable_into",
            "is_typed",
        ],
    );
    for item in objects::relation_items(view) {
        rows.push([
            view.session.database.as_ref().into(),
            item.schema().into(),
            item.name().into(),
            if item.is_view() { "VIEW" } else { "BASE TABLE" }.into(),
            "NO".into(),
            "NO".into(),
        ]);
    }
    rows.finish()
}

fn columns(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let mut rows = Rows::new(
        relation,
        &[
            "table_catalog",
            "table_schema",
            "table_name",
            "column_name",
            "ordinal_position",
            "column_default",
            "is_nullable",
            "data_type",
            "character_octet_length",
            "numeric_precision",
            "numeric_precision_radix",
            "numeric_scale",
            "datetime_precision",
            "udt_catalog",
            "udt_schema",
            "udt_name",
            "dtd_identifier",
            "is_self_referencing",
            "is_identity",
            "identity_cycle",
            "is_generated",
            "is_updatable",
        ],
    );
    for item in objects::relation_items(view) {
        for (column, position) in item.columns().into_iter().zip(1..) {
            rows.push(column_row(view, &item, &column, position));
        }
    }
    rows.finish()
}

fn column_row(
    view: &View<'_>,
    item: &RelationItem<'_>,
    column: &ColumnItem<'_>,
    position: i64,
) -> [Value; 22] {
    let oid = column.kind.oid;
    let array = column.kind.dimensions > 0;
    let (data_type, udt_name) = data_type(oid);
    let numeric = if array { Numeric::default() } else { numeric(oid, column.kind.modifier) };
    let time = match oid {
        1082 => Some(0),
        1083 | 1114 | 1184 | 1186 | 1266 if column.kind.modifier >= 0 => Some(column.kind.modifier),
        1083 | 1114 | 1184 | 1186 | 1266 => Some(6),
        _ => None,
    };
    [
        view.session.database.as_ref().into(),
        item.schema().into(),
        item.name().into(),
        column.name.into(),
        position.into(),
        column.default.into(),
        if column.not_null { "NO" } else { "YES" }.into(),
        data_type.into(),
        matches!(oid, 25 | 1042 | 1043).then_some(TEXT_LIMIT).into(),
        numeric.precision.into(),
        numeric.radix.into(),
        numeric.scale.into(),
        time.into(),
        view.session.database.as_ref().into(),
        "pg_catalog".into(),
        udt_name.into(),
        position.to_string().into(),
        "NO".into(),
        "NO".into(),
        "NO".into(),
        "NEVER".into(),
        "NO".into(),
    ]
}

/// A type's name in the standard's words, and in `pg_type`.
fn data_type(oid: u32) -> (String, Option<&'static str>) {
    let found = types::types().get(oid);
    let array = found.is_some_and(|found| found.element != 0 && found.length == -1);
    let name = if array { "ARRAY".to_owned() } else { types::types().format(oid, None) };
    (name, found.map(|found| found.name.as_str()))
}

/// What the elements of columns' arrays are.
fn element_types(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let mut rows = Rows::new(
        relation,
        &[
            "object_catalog",
            "object_schema",
            "object_name",
            "object_type",
            "collection_type_identifier",
            "data_type",
            "udt_catalog",
            "udt_schema",
            "udt_name",
            "dtd_identifier",
        ],
    );
    for item in objects::relation_items(view) {
        for (column, position) in item.columns().into_iter().zip(1i64..) {
            let array = types::types().get(column.kind.oid);
            let Some(array) = array.filter(|_| column.kind.dimensions > 0) else { continue };
            let (data_type, udt_name) = data_type(array.element);
            rows.push([
                view.session.database.as_ref().into(),
                item.schema().into(),
                item.name().into(),
                if item.is_view() { "VIEW" } else { "TABLE" }.into(),
                position.to_string().into(),
                data_type.into(),
                view.session.database.as_ref().into(),
                "pg_catalog".into(),
                udt_name.into(),
                format!("a{position}").into(),
            ]);
        }
    }
    rows.finish()
}

#[derive(Default)]
struct Numeric {
    precision: Option<i32>,
    radix: Option<i32>,
    scale: Option<i32>,
}

/// How exact a number is, in digits of the radix.
fn numeric(oid: u32, modifier: i32) -> Numeric {
    let binary = |precision, scale| Numeric { precision: Some(precision), radix: Some(2), scale };
    match oid {
        21 => binary(16, Some(0)),
        23 => binary(32, Some(0)),
        20 => binary(64, Some(0)),
        700 => binary(24, None),
        701 => binary(53, None),
        1700 if modifier >= 4 => Numeric {
            precision: Some(((modifier - 4) >> 16) & 0xffff),
            radix: Some(10),
            scale: Some((((modifier - 4) & 0x7ff) ^ 1024) - 1024),
        },
        1700 => Numeric { radix: Some(10), ..Numeric::default() },
        _ => Numeric::default(),
    }
}

fn views(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let mut rows = Rows::new(
        relation,
        &[
            "table_catalog",
            "table_schema",
            "table_name",
            "view_definition",
            "check_option",
            "is_updatable",
            "is_insertable_into",
            "is_trigger_updatable",
            "is_trigger_deletable",
            "is_trigger_insertable_into",
        ],
    );
    for item in objects::relation_items(view).into_iter().filter(RelationItem::is_view) {
        rows.push([
            view.session.database.as_ref().into(),
            item.schema().into(),
            item.name().into(),
            item.definition().map(objects::with_semicolon).into(),
            "NONE".into(),
            "NO".into(),
            "NO".into(),
            "NO".into(),
            "NO".into(),
            "NO".into(),
        ]);
    }
    rows.finish()
}

fn enabled_roles(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let mut rows = Rows::new(relation, &["role_name"]);
    let access = view.access();
    for role in roles::all(view).filter(|role| access.has_role(&role.name)) {
        rows.push([role.name.as_str().into()]);
    }
    rows.finish()
}

fn character_sets(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let mut rows = Rows::new(
        relation,
        &[
            "character_set_name",
            "character_repertoire",
            "form_of_use",
            "default_collate_catalog",
            "default_collate_schema",
            "default_collate_name",
        ],
    );
    rows.push([
        "UTF8".into(),
        "UCS".into(),
        "UTF8".into(),
        view.session.database.as_ref().into(),
        "pg_catalog".into(),
        "C".into(),
    ]);
    rows.finish()
}

/// Strings sort by their bytes: these names are one.
const COLLATIONS: [&str; 3] = ["default", "C", "POSIX"];

fn collations(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let names = ["collation_catalog", "collation_schema", "collation_name", "pad_attribute"];
    let mut rows = Rows::new(relation, &names);
    for name in COLLATIONS {
        let database = view.session.database.as_ref();
        rows.push([database.into(), "pg_catalog".into(), name.into(), "NO PAD".into()]);
    }
    rows.finish()
}

fn collation_character_sets(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let names = ["collation_catalog", "collation_schema", "collation_name", "character_set_name"];
    let mut rows = Rows::new(relation, &names);
    for name in COLLATIONS {
        let database = view.session.database.as_ref();
        rows.push([database.into(), "pg_catalog".into(), name.into(), "UTF8".into()]);
    }
    rows.finish()
}
