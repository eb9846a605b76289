//! Databases, schemas, tables, views, roles and pools: the shared truth, cached and watched.
//!
//! The nodes below `/catalog`, `/roles` and `/pools` are the only truth (see
//! [`crate::coordination::paths`]). Each daemon
//! keeps a [`Snapshot`] of them in memory, plans from it without asking anybody, and brings it up
//! to date by a watch. Three rules make that safe:
//!
//! - DDL ([`ddl`]) is a version-checked write of the store, never of the cache. Two daemons that
//!   create the same table produce one table and one [`Error::AlreadyExists`].
//! - A daemon that wrote refreshes its own cache before it answers: clients read their own writes.
//! - A name that is not in the cache costs one `sync` and a second look before it is an error, so
//!   a table made on one daemon is there on the next ([`Catalog::table`]).
//!
//! Daemons that change one managed table at the same time take turns at it ([`turns`]).
//!
//! Object identifiers come from the store ([`oids`]), so they are the same on every daemon and
//! after restarts.
//!
//! Who may do what stands in [`grants`], and is decided in [`access`] alone.

mod access;
mod cache;
mod ddl;
mod error;
mod grants;
mod joint;
mod lives;
mod oids;
mod pools;
mod record;
mod renaming;
mod roles;
mod snapshot;
mod swap;
mod transact;
mod turns;
mod view;
mod wide;

pub use access::{Access, Columns};
pub use cache::{Catalog, Consistency};
pub use ddl::{CreateMode, DropMode};
pub use error::{Error, ObjectKind, Result};
pub use grants::{Entry, Grantor, Grants, PUBLIC_ROLE, Privilege};
pub use joint::{Joint, older};
pub use oids::FIRST_USER_OID;
pub use pools::{Pool, PoolRecord};
pub use record::{
    Adopted, Column, DatabaseRecord, Definition, External, FileFormat, Managed, Policy,
    PolicyCommand, RowSecurity, SchemaRecord, TableRecord,
};
pub use roles::{FIRST_ROLE, Membership, PREDEFINED_ROLES, RoleRecord, is_predefined};
pub use snapshot::{Database, Role, Schema, Snapshot, Table, TableName};
pub use swap::Swap;
pub use turns::Turn;
pub use wide::{List, Wide};

/// The database every cluster has from its first start.
pub const DEFAULT_DATABASE: &str = "oribi";

pub use crate::coordination::Stat;
pub use crate::coordination::paths::PUBLIC;

/// Schemas that every database has and nobody can create, change or drop.
pub const RESERVED_SCHEMAS: [&str; 6] =
    [PUBLIC, "pg_catalog", "information_schema", "system", "oribi", "zk"];
