//! `pg_catalog`: PostgreSQL's system tables, with what is true here.
//!
//! - [`objects`]: databases, schemas, relations, columns, views and comments, from the catalog.
//! - [`roles`]: roles, memberships, row-level policies.
//! - [`activity`]: sessions, statistics.
//! - [`own`]: a session's settings, cursors and prepared statements.
//! - [`procedures`]: the functions that can be called.
//! - [`statics`]: types, operators and the like, which are the same everywhere.
//!
//! Whatever is not listed in [`source`] is empty: it speaks of indexes, constraints, triggers,
//! partitions, replication and other things that do not exist here.

mod activity;
pub mod objects;
mod own;
pub mod procedures;
pub mod roles;
pub mod statics;

use super::table::Source;

pub use activity::sessions;

pub fn source(name: &str) -> Source {
    match name {
        "pg_database" => Source::Rows(objects::databases),
        "pg_namespace" => Source::Rows(objects::schemas),
        "pg_class" => Source::Rows(objects::relations),
        "pg_attribute" => Source::Rows(objects::columns),
        "pg_attrdef" => Source::Rows(objects::defaults),
        "pg_tables" => Source::Rows(objects::tables),
        "pg_views" => Source::Rows(objects::views),
        "pg_description" => Source::Rows(objects::descriptions),
        "pg_shdescription" => Source::Rows(objects::shared_descriptions),
        "pg_authid" => Source::Rows(roles::authid),
        "pg_roles" => Source::Rows(roles::roles),
        "pg_auth_members" => Source::Rows(roles::members),
        "pg_db_role_setting" => Source::Rows(roles::settings),
        "pg_policy" => Source::Rows(roles::policy),
        "pg_policies" => Source::Rows(roles::policies),
        "pg_user" | "pg_shadow" => Source::Rows(roles::users),
        "pg_settings" => Source::Rows(own::settings),
        "pg_cursors" => Source::Rows(own::cursors),
        "pg_prepared_statements" => Source::Rows(own::prepared_statements),
        "pg_timezone_names" => Source::Rows(activity::time_zones),
        "pg_stat_activity" => Source::Sessions,
        "pg_stat_ssl" => Source::Rows(activity::encryption),
        "pg_stat_database" => Source::Rows(activity::databases),
        "pg_stat_all_tables" | "pg_stat_user_tables" | "pg_stat_sys_tables" => {
            Source::Rows(activity::tables)
        }
        name if statics::has(name) => Source::Rows(statics::rows),
        _ => Source::Nothing,
    }
}
