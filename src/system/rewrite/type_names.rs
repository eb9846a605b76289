//! Types by PostgreSQL's names that the engine does not know.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::error::Result;
use datafusion::logical_expr::planner::TypePlanner;
use postgres_types::Type;
use sqlparser::ast::{DataType as SqlType, ExactNumberInfo, ObjectNamePart};

use super::super::types;
use super::build::normal;
use crate::values::types::{extended, of_json_type};

/// Understood without a schema as well.
const BARE: &[&str] = &[
    "bpchar",
    "cid",
    "inet",
    "int2vector",
    "name",
    "oid",
    "oidvector",
    "regcollation",
    "regconfig",
    "regdictionary",
    "regnamespace",
    "regoper",
    "regoperator",
    "regproc",
    "regprocedure",
    "regrole",
    "regtype",
    "xid",
];

/// Understood when written as `pg_catalog.int4`.
const QUALIFIED: &[&str] = &[
    "bool",
    "bytea",
    "char",
    "date",
    "float4",
    "float8",
    "int2",
    "int4",
    "int8",
    "interval",
    "json",
    "jsonb",
    "text",
    "timestamptz",
    "uuid",
    "varchar",
];

/// The domains of `information_schema`, with what they hold.
const DOMAINS: &[(&str, &str)] = &[
    ("cardinal_number", "int4"),
    ("character_data", "varchar"),
    ("sql_identifier", "name"),
    ("time_stamp", "timestamptz"),
    ("yes_or_no", "varchar"),
];

#[derive(Debug)]
pub struct TypeNames;

impl TypePlanner for TypeNames {
    fn plan_type_field(&self, sql_type: &SqlType) -> Result<Option<FieldRef>> {
        Ok(match sql_type {
            SqlType::Regclass => Some(field("regclass")),
            SqlType::JSON => Some(field("json")),
            SqlType::JSONB => Some(field("jsonb")),
            SqlType::Uuid => Some(field("uuid")),
            // A float is a double one, unless it is to have 24 bits or less.
            SqlType::Float(ExactNumberInfo::Precision(1..=24)) => Some(field("float4")),
            SqlType::Float(_) => Some(field("float8")),
            SqlType::Custom(name, arguments) if arguments.is_empty() => named(&name.0),
            _ => None,
        })
    }
}

fn named(parts: &[ObjectNamePart]) -> Option<FieldRef> {
    match parts {
        [name] => {
            let name = name.as_ident()?;
            // Unquoted, char is a type of standard SQL.
            let known = name.quote_style.is_some() && name.value == "char";
            let name = normal(name);
            (known || BARE.contains(&name.as_str())).then(|| field(&name))
        }
        [schema, name] => {
            let (schema, name) = (normal(schema.as_ident()?), normal(name.as_ident()?));
            match (schema.as_str(), name.as_str()) {
                ("pg_catalog", "regclass") => Some(field("regclass")),
                ("pg_catalog", "timestamp") => {
                    let kind = DataType::Timestamp(TimeUnit::Microsecond, None);
                    Some(Arc::new(Field::new("", kind, true)))
                }
                ("pg_catalog", name) if BARE.contains(&name) || QUALIFIED.contains(&name) => {
                    Some(field(name))
                }
                ("information_schema", name) => {
                    let domain = DOMAINS.iter().find(|(domain, _)| *domain == name)?;
                    Some(field(domain.1))
                }
                _ => None,
            }
        }
        _ => None,
    }
}

fn field(name: &str) -> FieldRef {
    let text = || Field::new("", DataType::Utf8View, true);
    let uuid = || Field::new("", DataType::FixedSizeBinary(16), true);
    Arc::new(match name {
        "json" => of_json_type(text(), &Type::JSON),
        "jsonb" => of_json_type(text(), &Type::JSONB),
        "uuid" => extended(uuid(), "arrow.uuid"),
        _ => types::field("", name, true),
    })
}
