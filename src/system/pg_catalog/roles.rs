//! Roles. Until there are real ones: the superuser that owns everything, whoever owns something
//! else, and the session's own user.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use datafusion::error::Result;

use super::super::View;
use super::super::relations::Relation;
use super::super::rows::{Rows, Value};
use crate::catalog::DEFAULT_OWNER;

/// What PostgreSQL gives to its first superuser (`BOOTSTRAP_SUPERUSERID`).
pub const SUPERUSER: u32 = 10;

/// A role's identifier, the same on every daemon though nobody records it: the first superuser's,
/// or one made from the name by the hash FNV-1a, kept far above what the catalog assigns.
pub fn oid(name: &str) -> u32 {
    if name == DEFAULT_OWNER {
        return SUPERUSER;
    }
    let hash = name
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    0x4000_0000 | (hash >> 2)
}

/// All roles that have something to do with the session, by identifier.
pub fn all(view: &View<'_>) -> BTreeMap<u32, String> {
    let databases = view.snapshot.databases.values();
    let owners = databases.clone().map(|database| database.record.owner.as_str());
    let schemas = databases.flat_map(|database| database.schemas.values());
    let more = schemas.flat_map(|schema| {
        let own = schema.node.iter().map(|(record, _)| record.owner.as_str());
        own.chain(schema.tables.values().map(|table| table.record.owner.as_str()))
    });
    let known = [DEFAULT_OWNER, view.session.user.as_ref()];
    let names = known.into_iter().chain(owners).chain(more);
    names.map(|name| (oid(name), name.to_owned())).collect()
}

pub fn authid(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    list(view, relation, None)
}

pub fn roles(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    list(view, relation, Some("********"))
}

fn list(
    view: &View<'_>,
    relation: &'static Relation,
    password: Option<&str>,
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
        ],
    );
    for (oid, name) in all(view) {
        let no = || Value::Bool(false);
        let yes = || Value::Bool(true);
        rows.push([
            oid.into(),
            name.into(),
            yes(),
            yes(),
            no(),
            yes(),
            yes(),
            no(),
            yes(),
            (-1).into(),
            password.into(),
        ]);
    }
    rows.finish()
}

pub fn users(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let mut rows = Rows::new(
        relation,
        &["usename", "usesysid", "usecreatedb", "usesuper", "userepl", "usebypassrls", "passwd"],
    );
    for (oid, name) in all(view) {
        let [createdb, superuser, replication, bypass] = [true, true, false, true];
        rows.push([
            name.into(),
            oid.into(),
            createdb.into(),
            superuser.into(),
            replication.into(),
            bypass.into(),
            "********".into(),
        ]);
    }
    rows.finish()
}
