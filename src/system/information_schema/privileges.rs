//! Who was granted what, as far as it concerns the session's role.

use arrow::array::RecordBatch;
use datafusion::error::Result;

use super::super::View;
use super::super::pg_catalog::objects::{self, RelationItem};
use super::super::pg_catalog::roles;
use super::super::relations::Relation;
use super::super::rows::{Rows, Value};
use crate::catalog::{Grantor, Grants, PUBLIC_ROLE, Privilege, Table};

/// A privilege that a role has, on a table or one of its columns.
struct Granted<'a> {
    column: Option<&'a str>,
    grantor: &'a str,
    grantee: &'a str,
    privilege: Privilege,
    grantable: bool,
}

/// Memberships of the roles that the session has.
pub fn applicable_roles(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    memberships(view, relation, |_| true)
}

/// Those of them that it may pass on.
pub fn administrable(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    memberships(view, relation, |admin| admin)
}

fn memberships(
    view: &View<'_>,
    relation: &'static Relation,
    wanted: fn(bool) -> bool,
) -> Result<RecordBatch> {
    let mut rows = Rows::new(relation, &["grantee", "role_name", "is_grantable"]);
    let access = view.access();
    for role in roles::all(view).filter(|role| access.has_role(&role.name)) {
        for (group, membership) in &role.record.member_of {
            if wanted(membership.admin) {
                rows.push([role.name.as_str().into(), group.into(), yes_no(membership.admin)]);
            }
        }
    }
    rows.finish()
}

/// Privileges on tables. `role_table_grants` leaves out those of everybody.
pub fn tables(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let columns = [
        "grantor",
        "grantee",
        "table_catalog",
        "table_schema",
        "table_name",
        "privilege_type",
        "is_grantable",
        "with_hierarchy",
    ];
    let mut rows = Rows::new(relation, &columns);
    let to_roles = relation.name == "role_table_grants";
    listed(
        view,
        to_roles,
        |table| with_owner(table, Privilege::TABLE),
        |granted, [by, to, at @ ..]| {
            let [database, schema, name] = at;
            let privilege = granted.privilege.name().into();
            let hierarchy = yes_no(granted.privilege == Privilege::Select);
            let grantable = yes_no(granted.grantable);
            rows.push([by, to, database, schema, name, privilege, grantable, hierarchy]);
        },
    );
    rows.finish()
}

/// Privileges on columns, those on their tables included.
pub fn columns(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let columns = [
        "grantor",
        "grantee",
        "table_catalog",
        "table_schema",
        "table_name",
        "column_name",
        "privilege_type",
        "is_grantable",
    ];
    let mut rows = Rows::new(relation, &columns);
    let to_roles = relation.name == "role_column_grants";
    listed(view, to_roles, on_columns, |granted, [by, to, database, schema, name]| {
        let column = granted.column.map_or(Value::Null, Value::from);
        let privilege = granted.privilege.name().into();
        let grantable = yes_no(granted.grantable);
        rows.push([by, to, database, schema, name, column, privilege, grantable]);
    });
    rows.finish()
}

/// Hands each privilege that the session's role may know of to `push`, with the columns that all
/// views about privileges begin with.
fn listed(
    view: &View<'_>,
    to_roles: bool,
    of: impl for<'t> Fn(&'t Table) -> Vec<Granted<'t>>,
    mut push: impl FnMut(&Granted<'_>, [Value; 5]),
) {
    for item in objects::user_relations(view) {
        let RelationItem::User { table, .. } = item else { continue };
        for granted in of(table).iter().filter(|one| concerns(view, one, to_roles)) {
            let where_ = [
                granted.grantor.into(),
                shown(granted.grantee),
                view.session.database.as_ref().into(),
                item.schema().into(),
                item.name().into(),
            ];
            push(granted, where_);
        }
    }
}

fn on_columns(table: &Table) -> Vec<Granted<'_>> {
    let of_table = with_owner(table, Privilege::COLUMN);
    let already = |one: &Granted<'_>| {
        let key =
            |one: &Granted<'_>| (one.grantee.to_owned(), one.grantor.to_owned(), one.privilege);
        of_table.iter().any(|other| key(other) == key(one))
    };
    let mut found = Vec::new();
    for column in &table.record.columns {
        let name = Some(column.name.as_str());
        let own = of_grants(table, &column.grants).filter(|one| !already(one));
        let all = with_owner(table, Privilege::COLUMN).into_iter().chain(own);
        let all = all.filter(|one| Privilege::COLUMN.contains(&one.privilege));
        found.extend(all.map(|granted| Granted { column: name, ..granted }));
    }
    found
}

fn of_grants<'a>(table: &'a Table, grants: &'a Grants) -> impl Iterator<Item = Granted<'a>> {
    grants.iter().map(|entry| Granted {
        column: None,
        grantor: match entry.grantor {
            Grantor::Owner => &table.record.owner,
            Grantor::Role(role) => role,
        },
        grantee: entry.grantee,
        privilege: entry.privilege,
        grantable: entry.with_grant_option,
    })
}

/// What an owner has without a grant, then what others were granted.
fn with_owner<'a>(table: &'a Table, all: &[Privilege]) -> Vec<Granted<'a>> {
    let owner = table.record.owner.as_str();
    let own = all.iter().map(|privilege| Granted {
        column: None,
        grantor: owner,
        grantee: owner,
        privilege: *privilege,
        grantable: true,
    });
    own.chain(of_grants(table, &table.record.grants).filter(|one| one.grantee != owner)).collect()
}

/// Whether the session's role may know: it has the role that granted it or that has it.
fn concerns(view: &View<'_>, granted: &Granted<'_>, to_roles: bool) -> bool {
    let access = view.access();
    let public = granted.grantee == PUBLIC_ROLE;
    access.has_role(granted.grantor)
        || public && !to_roles
        || !public && access.has_role(granted.grantee)
}

fn shown(grantee: &str) -> Value {
    if grantee == PUBLIC_ROLE { "PUBLIC" } else { grantee }.into()
}

fn yes_no(yes: bool) -> Value {
    if yes { "YES" } else { "NO" }.into()
}
