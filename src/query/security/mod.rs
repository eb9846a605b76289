//! Roles, privileges, policies, pools, settings: the statements that change who may do what, how much,
//! and with what sessions begin.
//!
//! [`parse`] reads them; [`roles`], [`grants`], [`policies`], [`pools`] and
//! [`settings`] carry them out; [`rights`] is what
//! they and other DDL require. Whether somebody may do something
//! is decided in [`crate::catalog::Access`] alone.

mod grants;
mod parse;
mod policies;
mod pools;
mod rights;
mod roles;
mod settings;

use sqlparser::ast::{Ident, ObjectName};

pub use parse::{RowSecurityChange, parse};
pub use pools::PoolChange;

use super::life::Session;
use super::trail::list;
use super::{Error, Notice, Result};
use crate::audit::Kind;
use crate::catalog::{Access, DropMode, PUBLIC_ROLE, PolicyCommand, Snapshot};

/// A change of who may do what.
#[derive(Clone, Debug)]
pub enum Security {
    CreateRole {
        name: String,
        options: Box<RoleOptions>,
        if_not_exists: bool,
    },
    AlterRole {
        name: String,
        change: RoleChange,
    },
    AlterSystem(SystemChange),
    AlterDatabase {
        name: String,
        change: SettingChange,
    },
    DropRoles {
        names: Vec<String>,
        if_exists: bool,
    },
    GrantRoles(GrantRoles),
    RevokeRoles(GrantRoles),
    Grant(Grant),
    Revoke(Grant),
    Owner {
        kind: Owned,
        name: ObjectName,
        new: String,
        if_exists: bool,
    },
    ReassignOwned {
        roles: Vec<String>,
        to: String,
    },
    DropOwned {
        roles: Vec<String>,
    },
    RowLevel {
        table: ObjectName,
        change: RowSecurityChange,
    },
    CreatePolicy {
        name: String,
        table: ObjectName,
        permissive: bool,
        command: PolicyCommand,
        change: PolicyChange,
    },
    AlterPolicy {
        name: String,
        table: ObjectName,
        change: PolicyChange,
    },
    RenamePolicy {
        name: String,
        table: ObjectName,
        new: String,
    },
    DropPolicy {
        name: String,
        table: ObjectName,
        if_exists: bool,
    },
    CreatePool {
        name: String,
        change: PoolChange,
        if_not_exists: bool,
    },
    AlterPool {
        name: String,
        change: PoolChange,
    },
    DropPools {
        names: Vec<String>,
        mode: DropMode,
    },
}

/// A role's attributes as far as a statement names them.
#[derive(Clone, Default)]
pub struct RoleOptions {
    superuser: Option<bool>,
    create_role: Option<bool>,
    create_database: Option<bool>,
    inherit: Option<bool>,
    login: Option<bool>,
    bypass_row_security: Option<bool>,
    connection_limit: Option<Option<u32>>,
    password: Option<Password>,
    /// A timestamp as written.
    valid_until: Option<String>,
    /// The roles it is to be a member of.
    member_of: Vec<String>,
    /// The roles that are to be members of it.
    members: Vec<String>,
    admins: Vec<String>,
}

/// Never printed: the statement is all that knows it.
#[derive(Clone)]
pub enum Password {
    None,
    Text(String),
}

impl std::fmt::Debug for RoleOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RoleOptions")
    }
}

#[derive(Clone, Debug)]
pub enum RoleChange {
    Options(Box<RoleOptions>),
    Rename(String),
    Setting(SettingChange),
}

/// What sessions are to begin with.
#[derive(Clone, Debug)]
pub enum SettingChange {
    /// No value: DEFAULT.
    Set { setting: String, value: Option<String> },
    /// `None`: all.
    Reset(Option<String>),
}

/// A change for all sessions, those that are open included.
#[derive(Clone, Debug)]
pub enum SystemChange {
    Setting(SettingChange),
    /// All as it was at a version.
    Rollback(u64),
}

/// Makes roles members of others, or ends that.
#[derive(Clone, Debug)]
pub struct GrantRoles {
    roles: Vec<String>,
    members: Vec<Grantee>,
    /// GRANT: with the right to make others members. REVOKE: only that right.
    admin: bool,
    granted_by: Option<Grantee>,
}

#[derive(Clone, Debug)]
pub struct Grant {
    items: Vec<Item>,
    objects: Objects,
    grantees: Vec<Grantee>,
    /// GRANT: with the right to grant it on. REVOKE: only that right.
    option: bool,
    granted_by: Option<Grantee>,
    /// REVOKE: from those as well who have it from whom it is revoked.
    cascade: bool,
}

/// A privilege with its columns, or a role.
#[derive(Clone, Debug)]
pub struct Item {
    name: Ident,
    columns: Vec<String>,
}

#[derive(Clone, Debug)]
pub enum Objects {
    Tables(Vec<ObjectName>),
    /// Of these schemas.
    AllTables(Vec<String>),
    Schemas(Vec<String>),
    Databases(Vec<String>),
    Nothing,
}

#[derive(Clone, Debug)]
pub enum Grantee {
    Public,
    CurrentUser,
    SessionUser,
    Role(String),
}

/// What can be given to another owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owned {
    Database,
    Schema,
    Table,
    View,
}

/// What a statement says about a policy.
#[derive(Clone, Debug, Default)]
pub struct PolicyChange {
    roles: Option<Vec<Grantee>>,
    using: Option<String>,
    check: Option<String>,
}

impl Security {
    /// The command tag.
    pub fn tag(&self) -> &'static str {
        match self {
            Self::CreateRole { .. } => "CREATE ROLE",
            Self::AlterRole { .. } => "ALTER ROLE",
            Self::AlterSystem(_) => "ALTER SYSTEM",
            Self::AlterDatabase { .. } => "ALTER DATABASE",
            Self::DropRoles { .. } => "DROP ROLE",
            Self::GrantRoles(_) => "GRANT ROLE",
            Self::RevokeRoles(_) => "REVOKE ROLE",
            Self::Grant(_) => "GRANT",
            Self::Revoke(_) => "REVOKE",
            Self::Owner { kind: Owned::Database, .. } => "ALTER DATABASE",
            Self::Owner { kind: Owned::Schema, .. } => "ALTER SCHEMA",
            Self::Owner { kind: Owned::Table, .. } | Self::RowLevel { .. } => "ALTER TABLE",
            Self::Owner { kind: Owned::View, .. } => "ALTER VIEW",
            Self::ReassignOwned { .. } => "REASSIGN OWNED",
            Self::DropOwned { .. } => "DROP OWNED",
            Self::CreatePolicy { .. } => "CREATE POLICY",
            Self::AlterPolicy { .. } | Self::RenamePolicy { .. } => "ALTER POLICY",
            Self::DropPolicy { .. } => "DROP POLICY",
            Self::CreatePool { .. } => "CREATE POOL",
            Self::AlterPool { .. } => "ALTER POOL",
            Self::DropPools { .. } => "DROP POOL",
        }
    }

    /// What the audit trail says that it is about. Names only.
    pub fn subject(&self) -> (Kind, String) {
        match self {
            Self::CreateRole { name, .. } | Self::AlterRole { name, .. } => {
                (Kind::Role, name.clone())
            }
            Self::AlterSystem(change) => (Kind::Ddl, change.subject()),
            Self::AlterDatabase { name, .. } => (Kind::Ddl, name.clone()),
            Self::DropRoles { names, .. } => (Kind::Role, list(names)),
            Self::GrantRoles(grant) => {
                (Kind::Grant, format!("{} TO {}", list(&grant.roles), list(&grant.members)))
            }
            Self::RevokeRoles(grant) => {
                (Kind::Grant, format!("{} FROM {}", list(&grant.roles), list(&grant.members)))
            }
            Self::Grant(grant) => (Kind::Grant, grant.subject("TO")),
            Self::Revoke(grant) => (Kind::Grant, grant.subject("FROM")),
            Self::Owner { name, new, .. } => (Kind::Grant, format!("{name} OWNER TO {new}")),
            Self::ReassignOwned { roles, to } => (Kind::Grant, format!("{} TO {to}", list(roles))),
            Self::DropOwned { roles } => (Kind::Grant, list(roles)),
            Self::RowLevel { table, .. } => (Kind::Grant, table.to_string()),
            Self::CreatePolicy { name, table, .. }
            | Self::AlterPolicy { name, table, .. }
            | Self::RenamePolicy { name, table, .. }
            | Self::DropPolicy { name, table, .. } => (Kind::Grant, format!("{name} ON {table}")),
            Self::CreatePool { name, .. } | Self::AlterPool { name, .. } => {
                (Kind::Ddl, name.clone())
            }
            Self::DropPools { names, .. } => (Kind::Ddl, list(names)),
        }
    }
}

impl SystemChange {
    fn subject(&self) -> String {
        match self {
            Self::Setting(SettingChange::Set { setting, .. }) => setting.clone(),
            Self::Setting(SettingChange::Reset(setting)) => {
                setting.clone().unwrap_or_else(|| "ALL".to_owned())
            }
            Self::Rollback(version) => format!("VERSION {version}"),
        }
    }
}

impl Grant {
    fn subject(&self, preposition: &str) -> String {
        let privileges: Vec<_> = self.items.iter().map(|item| item.name.to_string()).collect();
        let objects = match &self.objects {
            Objects::Tables(names) => format!(" ON {}", list(names)),
            Objects::AllTables(schemas) => format!(" ON ALL TABLES IN SCHEMA {}", list(schemas)),
            Objects::Schemas(names) => format!(" ON SCHEMA {}", list(names)),
            Objects::Databases(names) => format!(" ON DATABASE {}", list(names)),
            Objects::Nothing => String::new(),
        };
        format!("{}{objects} {preposition} {}", privileges.join(", "), list(&self.grantees))
    }
}

impl std::fmt::Display for Grantee {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Public => "PUBLIC",
            Self::CurrentUser => "CURRENT_USER",
            Self::SessionUser => "SESSION_USER",
            Self::Role(name) => name,
        })
    }
}

impl Session {
    /// Carries out a change of who may do what.
    pub(super) async fn secure(&mut self, change: &Security) -> Result<Vec<Notice>> {
        match change {
            Security::CreateRole { name, options, if_not_exists } => {
                self.create_role(name, options, *if_not_exists).await
            }
            Security::AlterRole { name, change } => self.alter_role(name, change).await,
            Security::AlterSystem(change) => self.alter_system(change).await,
            Security::AlterDatabase { name, change } => {
                self.alter_database_settings(name, change).await
            }
            Security::DropRoles { names, if_exists } => self.drop_roles(names, *if_exists).await,
            Security::GrantRoles(grant) => self.grant_roles(grant).await,
            Security::RevokeRoles(grant) => self.revoke_roles(grant).await,
            Security::Grant(grant) => self.grant(grant, true).await,
            Security::Revoke(grant) => self.grant(grant, false).await,
            Security::Owner { kind, name, new, if_exists } => {
                self.change_owner(*kind, name, new, *if_exists).await
            }
            Security::ReassignOwned { roles, to } => self.reassign_owned(roles, to).await,
            Security::DropOwned { roles } => self.drop_owned(roles).await,
            Security::RowLevel { table, change } => self.row_security(table, *change).await,
            Security::CreatePolicy { name, table, permissive, command, change } => {
                self.create_policy(name, table, (*permissive, *command), change).await
            }
            Security::AlterPolicy { name, table, change } => {
                self.alter_policy(name, table, change).await
            }
            Security::RenamePolicy { name, table, new } => {
                self.rename_policy(name, table, new).await
            }
            Security::DropPolicy { name, table, if_exists } => {
                self.drop_policy(name, table, *if_exists).await
            }
            Security::CreatePool { name, change, if_not_exists } => {
                self.create_pool(name, change, *if_not_exists).await
            }
            Security::AlterPool { name, change } => self.alter_pool(name, change).await,
            Security::DropPools { names, mode } => self.drop_pools(names, *mode).await,
        }
    }

    /// The roles that grantees name; `public` stands for all.
    async fn grantees(&self, grantees: &[Grantee]) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for grantee in grantees {
            let name = match grantee {
                Grantee::Public => PUBLIC_ROLE.to_owned(),
                Grantee::CurrentUser => self.user().to_owned(),
                Grantee::SessionUser => self.entry().user.clone(),
                Grantee::Role(name) => {
                    self.catalog().role(name, Default::default()).await?;
                    name.clone()
                }
            };
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Refuses a grantor who is not the session's role, as PostgreSQL does.
    async fn grants_itself(&self, granted_by: Option<&Grantee>) -> Result<()> {
        let Some(grantor) = granted_by else { return Ok(()) };
        match self.grantees(std::slice::from_ref(grantor)).await? {
            names if names == [self.user()] => Ok(()),
            _ => {
                Err(Error::NotSupported("GRANTED BY a role other than the current one".to_owned()))
            }
        }
    }

    /// Refuses what `allowed` does not allow to the session's role; a denial is final only after
    /// the store was asked.
    pub(super) async fn require(
        &self,
        allowed: impl Fn(&Snapshot, &Access<'_>) -> crate::catalog::Result<()>,
    ) -> Result<()> {
        let check = |snapshot: &Snapshot| allowed(snapshot, &snapshot.access(self.user()));
        if check(&self.catalog().snapshot()).is_ok() {
            return Ok(());
        }
        self.catalog().look_again_at_grants(Vec::new()).await?;
        Ok(check(&self.catalog().snapshot())?)
    }
}

/// Refused with words of PostgreSQL's.
fn forbidden(text: impl Into<String>) -> crate::catalog::Error {
    crate::catalog::Error::Forbidden(text.into())
}

fn warning(code: &'static str, message: impl Into<String>) -> Notice {
    Notice { code, message: message.into() }
}

fn invalid(text: impl Into<String>) -> Error {
    Error::Invalid(text.into())
}
