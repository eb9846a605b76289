//! Roles, their memberships, and row-level policies.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use datafusion::error::{DataFusionError, Result};

use super::super::View;
use super::super::relations::Relation;
use super::super::rows::{Rows, Value};
use super::objects::{self, RelationItem};
use crate::catalog::{Error, ObjectKind, PolicyCommand, Role, TableRecord};

/// A role's identifier; 0, as for PUBLIC, for one that is not there (any more).
pub fn oid(view: &View<'_>, name: &str) -> u32 {
    view.snapshot.roles.get(name).map_or(0, |role| role.record.oid)
}

/// A role's name.
pub fn name<'a>(view: &'a View<'_>, oid: u32) -> Option<&'a str> {
    all(view).find(|role| role.record.oid == oid).map(|role| role.name.as_str())
}

pub fn all<'a>(view: &'a View<'_>) -> impl Iterator<Item = &'a Role> {
    view.snapshot.roles.values().map(AsRef::as_ref)
}

/// With the verifiers of passwords, so for superusers only.
pub fn authid(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    superusers_only(view, relation)?;
    list(view, relation, |role| role.record.password.clone())
}

pub fn roles(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    list(view, relation, |_| Some("********".to_owned()))
}

fn superusers_only(view: &View<'_>, relation: &Relation) -> Result<()> {
    if view.access().is_superuser() {
        return Ok(());
    }
    let denied = Error::Denied { kind: ObjectKind::Table, name: relation.name.to_owned() };
    Err(DataFusionError::External(Box::new(denied)))
}

fn list(
    view: &View<'_>,
    relation: &'static Relation,
    password: fn(&Role) -> Option<String>,
) -> Result<RecordBatch> {
    let mut rows = Rows::new(
        relation,
        &[
            "oid",
            "rolname",
            "rolsuper",
            "rolinherit",
            "rolcreaterole",
            "rolcreatedb",
            "rolcanlogin",
            "rolreplication",
            "rolbypassrls",
            "rolconnlimit",
            "rolpassword",
            "rolvaliduntil",
        ],
    );
    for role in all(view) {
        let record = &role.record;
        rows.push([
            record.oid.into(),
            role.name.as_str().into(),
            record.superuser.into(),
            record.inherit.into(),
            record.create_role.into(),
            record.create_database.into(),
            record.login.into(),
            false.into(),
            record.bypass_row_security.into(),
            connection_limit(role),
            password(role).into(),
            valid_until(role),
        ]);
    }
    rows.finish()
}

fn connection_limit(role: &Role) -> Value {
    role.record.connection_limit.map_or(Value::Int(-1), |limit| Value::Int(limit.into()))
}

fn valid_until(role: &Role) -> Value {
    role.record.valid_until.map_or(Value::Null, |at| Value::Time(at.timestamp_micros()))
}

pub fn users(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let shadow = relation.name == "pg_shadow";
    if shadow {
        superusers_only(view, relation)?;
    }
    let mut rows = Rows::new(
        relation,
        &[
            "usename",
            "usesysid",
            "usecreatedb",
            "usesuper",
            "userepl",
            "usebypassrls",
            "passwd",
            "valuntil",
        ],
    );
    for role in all(view).filter(|role| role.record.login) {
        let record = &role.record;
        rows.push([
            role.name.as_str().into(),
            record.oid.into(),
            record.create_database.into(),
            record.superuser.into(),
            false.into(),
            record.bypass_row_security.into(),
            if shadow { record.password.as_ref().into() } else { "********".into() },
            valid_until(role),
        ]);
    }
    rows.finish()
}

/// Who is a member of whom.
pub fn members(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let mut rows = Rows::new(relation, &["roleid", "member", "grantor", "admin_option"]);
    for member in all(view) {
        for (group, membership) in &member.record.member_of {
            let group = oid(view, group);
            rows.push([
                group.into(),
                member.record.oid.into(),
                group.into(),
                membership.admin.into(),
            ]);
        }
    }
    rows.finish()
}

/// What sessions of each role begin with.
pub fn settings(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let mut rows = Rows::new(relation, &["setdatabase", "setrole", "setconfig"]);
    let texts = |settings: &BTreeMap<String, String>| {
        let texts = settings.iter().map(|(name, value)| format!("{name}={value}").into());
        Value::List(texts.collect())
    };
    for role in all(view).filter(|role| !role.record.settings.is_empty()) {
        rows.push([0.into(), role.record.oid.into(), texts(&role.record.settings)]);
    }
    for database in view.snapshot.databases.values().map(|database| &database.record) {
        if !database.settings.is_empty() {
            rows.push([database.oid.into(), 0.into(), texts(&database.settings)]);
        }
    }
    rows.finish()
}

/// `pg_policy`: by identifiers.
pub fn policy(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let mut rows = Rows::new(
        relation,
        &[
            "oid",
            "polname",
            "polrelid",
            "polcmd",
            "polpermissive",
            "polroles",
            "polqual",
            "polwithcheck",
        ],
    );
    for (_, record) in tables(view) {
        for (number, (name, policy)) in (1..).zip(&record.policies) {
            let roles = policy.roles.iter().map(|role| oid(view, role).into()).collect();
            rows.push([
                // Nobody looks a policy up by number: this one is unique in the table of policies.
                Value::Int(i64::from(record.oid) * 100 % i64::from(u32::MAX) + number),
                name.into(),
                record.oid.into(),
                letter(policy.command).into(),
                policy.permissive.into(),
                Value::List(roles),
                policy.using.as_ref().into(),
                policy.check.as_ref().into(),
            ]);
        }
    }
    rows.finish()
}

/// `pg_policies`: for people.
pub fn policies(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let mut rows = Rows::new(
        relation,
        &[
            "schemaname",
            "tablename",
            "policyname",
            "permissive",
            "roles",
            "cmd",
            "qual",
            "with_check",
        ],
    );
    for (item, record) in tables(view) {
        for (name, policy) in &record.policies {
            let roles = policy.roles.iter().map(Value::from).collect();
            rows.push([
                item.schema().into(),
                item.name().into(),
                name.into(),
                if policy.permissive { "PERMISSIVE" } else { "RESTRICTIVE" }.into(),
                Value::List(roles),
                command(policy.command).into(),
                policy.using.as_ref().into(),
                policy.check.as_ref().into(),
            ]);
        }
    }
    rows.finish()
}

fn tables<'a>(view: &'a View<'_>) -> impl Iterator<Item = (RelationItem<'a>, &'a TableRecord)> {
    objects::user_relations(view).into_iter().filter_map(|item| match item {
        RelationItem::User { table, .. } => Some((item, &table.record)),
        RelationItem::System(_) => None,
    })
}

fn letter(command: PolicyCommand) -> &'static str {
    match command {
        PolicyCommand::All => "*",
        PolicyCommand::Select => "r",
        PolicyCommand::Insert => "a",
        PolicyCommand::Update => "w",
        PolicyCommand::Delete => "d",
    }
}

fn command(command: PolicyCommand) -> &'static str {
    match command {
        PolicyCommand::All => "ALL",
        PolicyCommand::Select => "SELECT",
        PolicyCommand::Insert => "INSERT",
        PolicyCommand::Update => "UPDATE",
        PolicyCommand::Delete => "DELETE",
    }
}
