//! What can go wrong with names and definitions.

use std::fmt::{self, Display, Formatter};

use crate::coordination;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kinds of things that have a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    Database,
    Schema,
    Table,
    View,
    Column,
    Role,
    Policy,
    Pool,
}

impl Display for ObjectKind {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Database => "database",
            Self::Schema => "schema",
            Self::Table => "relation",
            Self::View => "view",
            Self::Column => "column",
            Self::Role => "role",
            Self::Policy => "policy",
            Self::Pool => "pool",
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{kind} \"{name}\" does not exist")]
    NotFound { kind: ObjectKind, name: String },
    #[error("{kind} \"{name}\" already exists")]
    AlreadyExists { kind: ObjectKind, name: String },
    /// A table of another name.
    #[error("{0}")]
    AlreadyThere(String),
    #[error("\"{name}\" is not a {expected}")]
    WrongKind { name: String, expected: &'static str },
    #[error("{kind} \"{name}\" was changed by another daemon at the same time; try again")]
    Conflict { kind: ObjectKind, name: String },
    #[error("cannot drop {kind} \"{name}\" because it still holds {}", held(.count))]
    NotEmpty { kind: ObjectKind, name: String, count: usize },
    /// PostgreSQL's words, by which clients know it.
    #[error("permission denied for {} {name}", denied_kind(.kind))]
    Denied { kind: ObjectKind, name: String },
    /// For want of a role that can be granted.
    #[error("permission denied for table {relation}")]
    NeedsRole { relation: String, role: String },
    #[error("must be owner of {} {name}", denied_kind(.kind))]
    NotOwner { kind: ObjectKind, name: String },
    /// Something that only roles with an attribute or a membership may do.
    #[error("{0}")]
    Forbidden(String),
    #[error("role \"{role}\" cannot be dropped because some objects depend on it: {objects}")]
    RoleInUse {
        role: String,
        objects: String,
        /// Whether it owns schedules.
        schedules: bool,
    },
    /// Nobody could log in as a superuser any more.
    #[error("role \"{role}\" is the last superuser that can log in")]
    LastSuperuser { role: String },
    #[error("{0}")]
    InvalidGrant(String),
    /// Somebody has granted on what is to be revoked.
    #[error("dependent privileges exist")]
    DependentPrivileges,
    #[error(
        "cannot drop or rename column \"{column}\" of table \"{table}\": policy \"{policy}\" is about \
         it; drop the policy first"
    )]
    InPolicy { column: String, table: String, policy: String },
    #[error("{0}")]
    InvalidName(String),
    #[error("unrecognized privilege type: \"{0}\"")]
    UnknownPrivilege(String),
    #[error("schema \"{0}\" is reserved")]
    Reserved(String),
    #[error("the name is {length} bytes long; at most {limit} are possible")]
    NameTooLong { length: usize, limit: usize },
    #[error("the definition takes {bytes} bytes in the coordination store, which holds {limit}")]
    TooLarge { bytes: usize, limit: usize },
    #[error(
        "the change takes {count} steps in the coordination store, which takes {limit} at once: it is about too many objects"
    )]
    TooMany { count: usize, limit: usize },
    #[error(
        "the records of the {tables} tables that the transaction changes take {bytes} bytes together, and the coordination store takes {limit} at once"
    )]
    TooManyTables { tables: usize, bytes: usize, limit: usize },
    /// The store is out of reach, and nothing was changed.
    #[error("nothing can be changed while the coordination store is out of reach: {0}")]
    Unavailable(#[source] coordination::Error),
    /// The store is out of reach, and what this daemon knows is not sure enough for who asks.
    #[error("the latest state cannot be read while the coordination store is out of reach: {0}")]
    NotRead(#[source] coordination::Error),
    /// The reply was lost and could not be cleared up within the time allowed.
    #[error("it is unknown whether the change was made: {0}")]
    Unknown(#[source] coordination::Error),
    #[error("the coordination store failed: {0}")]
    Coordination(#[source] coordination::Error),
    #[error("the record at {path} is not valid: {source}")]
    BadRecord { path: String, source: serde_json::Error },
}

fn held(count: &usize) -> String {
    if *count == 1 { "1 table or view".to_owned() } else { format!("{count} tables and views") }
}

/// Who is refused a table is told of a table, not of a relation.
fn denied_kind(kind: &ObjectKind) -> String {
    match kind {
        ObjectKind::Table => "table".to_owned(),
        other => other.to_string(),
    }
}

impl Error {
    /// Whether the store was out of reach, whatever has become of a change.
    pub fn is_out_of_touch(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::NotRead(_) | Self::Unknown(_))
    }

    /// The same, of somebody who only reads.
    pub fn of_reading(self) -> Self {
        match self {
            Self::Unavailable(error) => Self::NotRead(error),
            other => other,
        }
    }
}

impl From<coordination::Error> for Error {
    fn from(error: coordination::Error) -> Self {
        match error {
            error if error.may_have_landed() => Self::Unknown(error),
            error if error.is_unavailable() => Self::Unavailable(error),
            coordination::Error::TooLarge { bytes, limit, .. } => Self::TooLarge { bytes, limit },
            error => Self::Coordination(error),
        }
    }
}
