//! Who was granted what, as far as it concerns the session's role.

use arrow::array::RecordBatch;
use datafusion::error::Result;

use super::super::View;
use super::super::pg_catalog::objects::{self, RelationItem};
use super::super::pg_catalog::roles;
use super::super::relations::Relation;
use super::super::rows::{Rows, Value};
use crate::catalog::{Grants, PUBLIC_ROLE, Privilege, Table};

/// A privilege that a role has, on a table or one of its columns.
struct Granted {
    grantee: String,
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
    let mut rows = Rows::new(
        relation,
        &[
            "grantor",
            "grantee",
            "table_catalog",
            "table_schema",
            "table_name",
            "privilege_type",
            "is_grantable",
            "with_hierarchy",
        ],
    );
    let to_roles = relation.name == "role_table_grants";
    for item in objects::user_relations(view) {
        let RelationItem::User { table, .. } = item else { continue };
        let owner = &table.record.owner;
        let granted = with_owner(owner, Privilege::TABLE, &table.record.grants);
        for granted in granted.into_iter().filter(|one| concerns(view, owner, one, to_roles)) {
            rows.push([
                owner.into(),
                shown(&granted.grantee),
                view.session.database.as_ref().into(),
                item.schema().into(),
                item.name().into(),
                granted.privilege.name().into(),
                yes_no(granted.grantable),
                yes_no(granted.privilege == Privilege::Select),
            ]);
        }
    }
    rows.finish()
}

/// Privileges on columns, those on their tables included.
pub fn columns(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let mut rows = Rows::new(
        relation,
        &[
            "grantor",
            "grantee",
            "table_catalog",
            "table_schema",
            "table_name",
            "column_name",
            "privilege_type",
            "is_grantable",
        ],
    );
    let to_roles = relation.name == "role_column_grants";
    for item in objects::user_relations(view) {
        let RelationItem::User { table, .. } = item else { continue };
        let owner = &table.record.owner;
        for (column, granted) in on_columns(table) {
            if concerns(view, owner, &granted, to_roles) {
                rows.push([
                    owner.into(),
                    shown(&granted.grantee),
                    view.session.database.as_ref().into(),
                    item.schema().into(),
                    item.name().into(),
                    column.into(),
                    granted.privilege.name().into(),
                    yes_no(granted.grantable),
                ]);
            }
        }
    }
    rows.finish()
}

fn on_columns(table: &Table) -> Vec<(&str, Granted)> {
    let mut found = Vec::new();
    for column in &table.record.columns {
        let of_table = with_owner(&table.record.owner, Privilege::COLUMN, &table.record.grants);
        let already = |one: &Granted| {
            let same =
                |other: &Granted| other.grantee == one.grantee && other.privilege == one.privilege;
            of_table.iter().any(same)
        };
        let own: Vec<_> = of_grants(&column.grants).filter(|one| !already(one)).collect();
        let all = of_table.into_iter().chain(own);
        let all = all.filter(|one| Privilege::COLUMN.contains(&one.privilege));
        found.extend(all.map(|granted| (column.name.as_str(), granted)));
    }
    found
}

fn of_grants(grants: &Grants) -> impl Iterator<Item = Granted> {
    grants.iter().map(|(grantee, privilege, grantable)| Granted {
        grantee: grantee.to_owned(),
        privilege,
        grantable,
    })
}

/// What an owner has without a grant, then what others were granted.
fn with_owner(owner: &str, all: &[Privilege], grants: &Grants) -> Vec<Granted> {
    let own = all.iter().map(|privilege| Granted {
        grantee: owner.to_owned(),
        privilege: *privilege,
        grantable: true,
    });
    own.chain(of_grants(grants).filter(|granted| granted.grantee != owner)).collect()
}

/// Whether the session's role may know: it has the role that granted it or that has it.
fn concerns(view: &View<'_>, owner: &str, granted: &Granted, to_roles: bool) -> bool {
    let access = view.access();
    let public = granted.grantee == PUBLIC_ROLE;
    access.has_role(owner) || public && !to_roles || !public && access.has_role(&granted.grantee)
}

fn shown(grantee: &str) -> Value {
    if grantee == PUBLIC_ROLE { "PUBLIC" } else { grantee }.into()
}

fn yes_no(yes: bool) -> Value {
    if yes { "YES" } else { "NO" }.into()
}
