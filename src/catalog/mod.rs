//! Databases, schemas, tables and views: the shared truth, cached and watched.
//!
//! The nodes below `/catalog` are the only truth (see [`crate::coordination::paths`]). Each daemon
//! keeps a [`Snapshot`] of them in memory, plans from it without asking anybody, and brings it up
//! to date by a watch. Three rules make that safe:
//!
//! - DDL ([`ddl`]) is a version-checked write of the store, never of the cache. Two daemons that
//!   create the same table produce one table and one [`Error::AlreadyExists`].
//! - A daemon that wrote refreshes its own cache before it answers: clients read their own writes.
//! - A name that is not in the cache costs one `sync` and a second look before it is an error, so
//!   a table made on one daemon is there on the next ([`Catalog::table`]).
//!
//! Object identifiers come from the store ([`oids`]), so they are the same on every daemon and
//! after restarts.

mod cache;
mod ddl;
mod error;
mod oids;
mod record;
mod snapshot;

pub use cache::{Catalog, Consistency};
pub use ddl::{CreateMode, DropMode};
pub use error::{Error, ObjectKind, Result};
pub use oids::FIRST_USER_OID;
pub use record::{
    Column, DatabaseRecord, Definition, External, FileFormat, SchemaRecord, TableRecord,
};
pub use snapshot::{Database, Schema, Snapshot, Table, TableName};

/// The database every cluster has from its first start, and the owner's name until roles exist.
pub const DEFAULT_DATABASE: &str = "oribi";

/// Who owns what is made before roles exist.
pub const DEFAULT_OWNER: &str = "oribi";

pub use crate::coordination::paths::PUBLIC;

/// Schemas that every database has and nobody can create, change or drop.
pub const RESERVED_SCHEMAS: [&str; 6] =
    [PUBLIC, "pg_catalog", "information_schema", "system", "oribi", "zk"];
