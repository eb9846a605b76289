//! Who may do what.

use datafusion::error::{DataFusionError, Result};

use super::super::pg_catalog::roles;
use super::super::rows::Value;
use super::Kind::{Any, Text};
use super::names::{missing, parts, resolve_relation};
use super::{Call, Kind, RelationItem, Spec, spec};
use crate::catalog::{self, Access, Grants, ObjectKind, Privilege, Table, is_predefined};

/// An object and a privilege, with the role in front or not.
const OBJECT: &[&[Kind]] = &[&[Any, Text], &[Any, Any, Text]];
/// The same for a column of an object.
const COLUMN: &[&[Kind]] = &[&[Any, Any, Text], &[Any, Any, Any, Text]];

pub const FUNCTIONS: &[Spec] = &[
    spec("has_any_column_privilege", OBJECT, "bool", any_column),
    spec("has_column_privilege", COLUMN, "bool", column),
    spec("has_database_privilege", OBJECT, "bool", database),
    spec("has_foreign_data_wrapper_privilege", OBJECT, "bool", of_everybody),
    spec("has_function_privilege", OBJECT, "bool", of_everybody),
    spec("has_language_privilege", OBJECT, "bool", of_everybody),
    spec("has_parameter_privilege", OBJECT, "bool", of_superusers),
    spec("has_schema_privilege", OBJECT, "bool", schema),
    spec("has_sequence_privilege", OBJECT, "bool", of_superusers),
    spec("has_server_privilege", OBJECT, "bool", of_superusers),
    spec("has_table_privilege", OBJECT, "bool", table),
    spec("has_tablespace_privilege", OBJECT, "bool", of_superusers),
    spec("has_type_privilege", OBJECT, "bool", of_everybody),
    spec("pg_has_role", OBJECT, "bool", role),
    // Names by identifiers, in order: see `rewrite`.
    spec("oribi_role_names", &[&[Any]], "_name", role_names),
    spec("row_security_active", &[&[Any]], "bool", row_security_active),
];

/// Whose rights are asked for: the first of `count` arguments, or the session's role if there is
/// one less.
fn subject<'a>(call: &Call<'a, '_>, count: usize) -> Result<&'a str> {
    if call.args.len() < count {
        return Ok(&call.session().user);
    }
    let wanted = reference(call, 0);
    role_name(call, &wanted).ok_or_else(|| missing(ObjectKind::Role, &wanted))
}

/// A role by its name or identifier.
fn role_name<'a>(call: &Call<'a, '_>, wanted: &str) -> Option<&'a str> {
    match call.view.snapshot.roles.get(wanted) {
        Some(role) => Some(&role.name),
        None => wanted.parse().ok().and_then(|oid| roles::name(call.view, oid)),
    }
}

/// Privileges as `SELECT, INSERT WITH GRANT OPTION`: one of them is enough.
fn wanted(call: &Call<'_, '_>, possible: &[Privilege]) -> Result<Vec<(Privilege, bool)>> {
    let text = call.text(call.args.len() - 1);
    let one = |part: &str| {
        let upper = part.trim().to_ascii_uppercase();
        let name = upper.strip_suffix("WITH GRANT OPTION").map(str::trim_end);
        let privilege = Privilege::parse(name.unwrap_or(&upper));
        let privilege = privilege.filter(|privilege| possible.contains(privilege));
        privilege.map(|privilege| (privilege, name.is_some())).ok_or_else(|| {
            let error = catalog::Error::UnknownPrivilege(part.trim().to_owned());
            DataFusionError::External(Box::new(error))
        })
    };
    text.split(',').map(one).collect()
}

fn granted(
    access: &Access<'_>,
    owner: &str,
    grants: &Grants,
    (privilege, option): (Privilege, bool),
    has: bool,
) -> bool {
    if option { access.may_grant(owner, grants, privilege) } else { has }
}

fn relation<'a>(call: &Call<'a, '_>, at: usize) -> Result<RelationItem<'a>> {
    let text = reference(call, at);
    let oid = text.parse().ok().or_else(|| resolve_relation(call.view, &text));
    let found = oid.and_then(|oid| call.relation(oid));
    found.ok_or_else(|| missing(ObjectKind::Table, &text))
}

/// An argument that is a name or a number.
fn reference(call: &Call<'_, '_>, at: usize) -> String {
    match &call.args[at] {
        Value::Int(number) => number.to_string(),
        value => value.as_text().unwrap_or_default().to_owned(),
    }
}

fn on_table(access: &Access<'_>, table: &Table, wanted: (Privilege, bool)) -> bool {
    let has = access.table(table, wanted.0);
    granted(access, &table.record.owner, &table.record.grants, wanted, has)
}

fn table(call: &Call<'_, '_>) -> Result<Value> {
    let access = call.view.snapshot.access(subject(call, 3)?);
    let wanted = wanted(call, Privilege::TABLE)?;
    Ok(match relation(call, call.args.len() - 2)? {
        RelationItem::System(_) => on_system(&access, &wanted),
        RelationItem::User { table, .. } => wanted.iter().any(|w| on_table(&access, table, *w)),
    }
    .into())
}

/// System relations are read by everybody.
fn on_system(access: &Access<'_>, wanted: &[(Privilege, bool)]) -> bool {
    access.is_superuser() || wanted.contains(&(Privilege::Select, false))
}

fn any_column(call: &Call<'_, '_>) -> Result<Value> {
    let access = call.view.snapshot.access(subject(call, 3)?);
    let wanted = wanted(call, Privilege::COLUMN)?;
    Ok(match relation(call, call.args.len() - 2)? {
        RelationItem::System(_) => on_system(&access, &wanted),
        RelationItem::User { table, .. } => {
            let mut names = table.record.columns.iter().map(|column| column.name.as_str());
            names.any(|name| wanted.iter().any(|(p, _)| access.column(table, name, *p)))
        }
    }
    .into())
}

fn column(call: &Call<'_, '_>) -> Result<Value> {
    let access = call.view.snapshot.access(subject(call, 4)?);
    let wanted = wanted(call, Privilege::COLUMN)?;
    let text = &reference(call, call.args.len() - 2);
    Ok(match relation(call, call.args.len() - 3)? {
        RelationItem::System(_) => on_system(&access, &wanted),
        RelationItem::User { table, .. } => {
            let columns = &table.record.columns;
            let by_number = || columns.get(text.parse::<usize>().ok()?.checked_sub(1)?);
            let found = columns.iter().find(|column| column.name == *text).or_else(by_number);
            let name = &found.ok_or_else(|| missing(ObjectKind::Column, text))?.name;
            wanted.iter().any(|(privilege, _)| access.column(table, name, *privilege))
        }
    }
    .into())
}

fn database(call: &Call<'_, '_>) -> Result<Value> {
    let access = call.view.snapshot.access(subject(call, 3)?);
    let wanted = wanted(call, Privilege::DATABASE)?;
    let text = &reference(call, call.args.len() - 2);
    let mut databases = call.view.snapshot.databases.iter();
    let found =
        databases.find(|(name, database)| *name == text || text.parse() == Ok(database.record.oid));
    let (_, database) = found.ok_or_else(|| missing(ObjectKind::Database, text))?;
    let none = Grants::default();
    let grants = database.record.grants.as_ref().unwrap_or(&none);
    let owner = &database.record.owner;
    let has =
        |w: &(Privilege, bool)| granted(&access, owner, grants, *w, access.database(database, w.0));
    Ok(wanted.iter().any(has).into())
}

fn schema(call: &Call<'_, '_>) -> Result<Value> {
    let access = call.view.snapshot.access(subject(call, 3)?);
    let wanted = wanted(call, Privilege::SCHEMA)?;
    let text = &reference(call, call.args.len() - 2);
    let by_number = || {
        let oid = text.parse().ok()?;
        Some(call.index().schemas.get(&oid)?.name.to_owned())
    };
    let name = by_number().or_else(|| parts(text)?.pop());
    let name = name.ok_or_else(|| missing(ObjectKind::Schema, text))?;
    if super::super::relations::schema_oid(&name).is_some() {
        let used = wanted.contains(&(Privilege::Usage, false));
        return Ok((used || access.is_superuser()).into());
    }
    let found = call.view.database().and_then(|d| Some((d, d.schemas.get(&name)?)));
    let (database, schema) = found.ok_or_else(|| missing(ObjectKind::Schema, text))?;
    let none = Grants::default();
    let grants = schema.node.as_ref().and_then(|(record, _)| record.grants.as_ref());
    let owner = schema.owner(database);
    let has = |w: &(Privilege, bool)| {
        let has = access.schema(database, schema, w.0);
        granted(&access, owner, grants.unwrap_or(&none), *w, has)
    };
    Ok(wanted.iter().any(has).into())
}

/// `MEMBER`: directly or indirectly; `USAGE`: with its privileges at hand; `SET`: may become it.
fn role(call: &Call<'_, '_>) -> Result<Value> {
    let snapshot = &call.view.snapshot;
    let subject = subject(call, 3)?;
    let of = reference(call, call.args.len() - 2);
    let of = role_name(call, &of).ok_or_else(|| missing(ObjectKind::Role, &of))?;
    let access = snapshot.access(subject);
    let text = call.text(call.args.len() - 1).to_ascii_uppercase();
    let one = |part: &str| match part.split_whitespace().next() {
        Some("USAGE") => access.has_role(of),
        _ => access.is_superuser() || snapshot.is_member(subject, of),
    };
    // Superusers are members of all roles but those that only give something away.
    Ok((is_predefined(of) && access.is_superuser() || text.split(',').any(one)).into())
}

fn row_security_active(call: &Call<'_, '_>) -> Result<Value> {
    Ok(match relation(call, 0)? {
        RelationItem::System(_) => false,
        RelationItem::User { table, .. } => call.view.access().row_policies(table).is_some(),
    }
    .into())
}

fn role_names(call: &Call<'_, '_>) -> Result<Value> {
    let Value::List(oids) = &call.args[0] else { return Ok(Value::Null) };
    let names = oids.iter().filter_map(|oid| roles::name(call.view, oid.as_oid()?));
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    Ok(Value::List(names.into_iter().map(Value::from).collect()))
}

fn of_everybody(call: &Call<'_, '_>) -> Result<Value> {
    subject(call, 3)?;
    Ok(true.into())
}

fn of_superusers(call: &Call<'_, '_>) -> Result<Value> {
    Ok(call.view.snapshot.access(subject(call, 3)?).is_superuser().into())
}
