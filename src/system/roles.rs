//! `system.roles`: who there is, and who is a member of whom. Never what passwords are known by.

use arrow::array::RecordBatch;
use datafusion::error::Result;

use super::View;
use super::relations::Relation;
use super::rows::{Rows, Value};
use crate::catalog::{Role, is_predefined};

const COLUMNS: &[&str] = &[
    "name",
    "oid",
    "superuser",
    "login",
    "inherit",
    "create_role",
    "create_database",
    "bypass_row_security",
    "connection_limit",
    "has_password",
    "valid_until",
    "member_of",
    "predefined",
    "comment",
];

pub fn rows(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let mut rows = Rows::new(relation, COLUMNS);
    for role in view.snapshot.roles.values() {
        rows.push_vec(row(role));
    }
    rows.finish()
}

fn row(role: &Role) -> Vec<Value> {
    let record = &role.record;
    vec![
        role.name.as_str().into(),
        record.oid.into(),
        record.superuser.into(),
        record.login.into(),
        record.inherit.into(),
        record.create_role.into(),
        record.create_database.into(),
        record.bypass_row_security.into(),
        record.connection_limit.into(),
        record.password.is_some().into(),
        record.valid_until.map_or(Value::Null, |at| Value::Time(at.timestamp_micros())),
        Value::List(record.member_of.keys().map(Value::from).collect()),
        is_predefined(&role.name).into(),
        record.comment.as_ref().into(),
    ]
}
