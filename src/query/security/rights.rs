//! What changes of the catalog require of who makes them, as PostgreSQL has it.

use sqlparser::ast::ObjectName;

use super::forbidden;
use crate::catalog::{
    self, Consistency, CreateMode, Database, ObjectKind, Privilege, Schema, Table, TableName,
};
use crate::query::life::Session;
use crate::query::{Error, Result};
use crate::storage::Location;

impl Session {
    pub(in crate::query) async fn may_create_databases(&self) -> Result<()> {
        self.require(|_, access| match access.may_create_databases() {
            true => Ok(()),
            false => Err(forbidden("permission denied to create database")),
        })
        .await
    }

    /// CREATE on the session's database.
    pub(in crate::query) async fn may_create_schemas(&self) -> Result<()> {
        let name = self.database();
        self.require(|snapshot, access| {
            let database = snapshot.databases.get(name);
            match database.is_some_and(|database| access.database(database, Privilege::Create)) {
                true => Ok(()),
                false => Err(denied(ObjectKind::Database, name)),
            }
        })
        .await
    }

    /// CREATE on the schema of something new, and ownership of what it replaces.
    pub(in crate::query) async fn may_create(
        &self,
        name: &TableName,
        mode: CreateMode,
    ) -> Result<()> {
        self.may_create_in(name).await?;
        match mode {
            CreateMode::Replace => self.must_own_table(name).await,
            CreateMode::Fail | CreateMode::IfNotExists => Ok(()),
        }
    }

    /// CREATE on the schema that `name` is to be in.
    pub(in crate::query) async fn may_create_in(&self, name: &TableName) -> Result<()> {
        self.require(|snapshot, access| {
            // One that is not there is said to be missing by whoever looks for it next.
            let Some(database) = snapshot.databases.get(&name.database) else { return Ok(()) };
            let Some(schema) = database.schemas.get(&name.schema) else { return Ok(()) };
            match access.schema(database, schema, Privilege::Create) {
                true => Ok(()),
                false => Err(denied(ObjectKind::Schema, &name.schema)),
            }
        })
        .await
    }

    pub(in crate::query) async fn must_own_database(&self, name: &str) -> Result<()> {
        self.require(|snapshot, access| match snapshot.databases.get(name) {
            Some(database) => {
                access.require_owner(&database.record.owner, ObjectKind::Database, name)
            }
            None => Ok(()),
        })
        .await
    }

    pub(in crate::query) async fn must_own_schema(&self, name: &str) -> Result<()> {
        let owner = |database: &Database, schema: &Schema| schema.owner(database).to_owned();
        self.require(|snapshot, access| {
            let Some(database) = snapshot.databases.get(self.database()) else { return Ok(()) };
            let Some(schema) = database.schemas.get(name) else { return Ok(()) };
            access.require_owner(&owner(database, schema), ObjectKind::Schema, name)
        })
        .await
    }

    pub(in crate::query) async fn must_own_table(&self, name: &TableName) -> Result<()> {
        let Some(table) = self.found(name).await? else { return Ok(()) };
        self.must_own(&table.record.owner, kind(&table), &name.table).await
    }

    /// The owner of a table's schema may drop the table, too.
    pub(in crate::query) async fn may_drop(&self, name: &TableName) -> Result<()> {
        let Some(table) = self.found(name).await? else { return Ok(()) };
        self.require(|snapshot, access| {
            let database = snapshot.databases.get(&name.database);
            let schema = database.and_then(|d| Some((d, d.schemas.get(&name.schema)?)));
            let of_schema = schema.is_some_and(|(d, s)| access.has_role(s.owner(d)));
            match of_schema {
                true => Ok(()),
                false => access.require_owner(&table.record.owner, kind(&table), &name.table),
            }
        })
        .await
    }

    /// Files on the server's side are read with the daemon's rights, so that naming a place is a
    /// privilege of its own, and ends at the configured roots.
    pub(in crate::query) async fn may_use_location(&self, location: &Location) -> Result<()> {
        let roots = self.roots();
        self.require(|_, access| {
            if access.is_superuser() {
                return Ok(());
            }
            match (access.has_role("pg_read_server_files"), roots.is_everywhere()) {
                (true, false) => Ok(()),
                (true, true) => Err(forbidden(
                    "permission denied to use a location: without storage.roots only superusers \
                     may create external tables",
                )),
                (false, _) => Err(forbidden(
                    "permission denied to use a location: only roles with privileges of the \
                     \"pg_read_server_files\" role may create external tables",
                )),
            }
        })
        .await?;
        Ok(roots.check(location).map_err(crate::engine::Error::from)?)
    }

    /// One of these privileges on a table, or on one of its columns, which keeps others from changing it. What
    /// is not there, whoever looks for it next says.
    pub(in crate::query) async fn may_lock(
        &self,
        name: &ObjectName,
        any_of: &[Privilege],
    ) -> Result<()> {
        let name = self.existing(name).await?;
        let Some(table) = self.found(&name).await? else { return Ok(()) };
        self.require(|snapshot, access| {
            let table = snapshot.table(&name).unwrap_or(&table);
            let on_column = |privilege| {
                let mut columns = table.record.columns.iter();
                columns.any(|column| access.column(table, &column.name, privilege))
            };
            let may =
                |privilege: &Privilege| access.table(table, *privilege) || on_column(*privilege);
            match access.is_superuser() || any_of.iter().any(may) {
                true => Ok(()),
                false => Err(denied(kind(table), &name.table)),
            }
        })
        .await
    }

    /// Whether the catalog has a table or view of this name, in a schema that the role may use.
    pub(in crate::query) async fn is_table(&self, name: &ObjectName) -> Result<bool> {
        let name = self.existing(name).await?;
        if self.found(&name).await?.is_none() {
            return Ok(false);
        }
        self.require(|snapshot, access| {
            let Some(database) = snapshot.databases.get(&name.database) else { return Ok(()) };
            let Some(schema) = database.schemas.get(&name.schema) else { return Ok(()) };
            match access.schema(database, schema, Privilege::Usage) {
                true => Ok(()),
                false => Err(denied(ObjectKind::Schema, &name.schema)),
            }
        })
        .await?;
        Ok(true)
    }

    /// Whether errors may tell the role which file they are about, as far as this daemon knows.
    pub fn may_see_files(&self) -> bool {
        let snapshot = self.catalog().snapshot();
        snapshot.access(self.user()).has_role("pg_read_server_files")
    }

    /// Who makes another role an owner must be able to take it back.
    pub(in crate::query) async fn may_give_to(&self, role: &str) -> Result<()> {
        self.catalog().role(role, Consistency::Cached).await?;
        self.require(|snapshot, access| {
            match access.is_superuser() || snapshot.is_member(self.user(), role) {
                true => Ok(()),
                false => Err(forbidden(format!("must be member of role \"{role}\""))),
            }
        })
        .await
    }

    /// SET ROLE: to one of the roles that the one who logged in is a member of.
    pub async fn may_take_role(&self, role: Option<&str>) -> Result<()> {
        let Some(role) = role.filter(|role| *role != "none") else { return Ok(()) };
        match self.catalog().role(role, Consistency::Cached).await {
            Err(catalog::Error::NotFound { .. }) => {
                return Err(Error::NoRoleToTake(role.to_owned()));
            }
            found => drop(found?),
        }
        let login = &self.entry().user;
        let allowed = || {
            let snapshot = self.catalog().snapshot();
            snapshot.access(login).is_superuser() || snapshot.is_member(login, role)
        };
        if !allowed() {
            self.catalog().look_again_at_grants(Vec::new()).await?;
        }
        match allowed() {
            true => Ok(()),
            false => Err(forbidden(format!("permission denied to set role \"{role}\"")).into()),
        }
    }

    async fn found(&self, name: &TableName) -> Result<Option<std::sync::Arc<Table>>> {
        match self.catalog().table(name, Consistency::Cached).await {
            Ok(table) => Ok(Some(table)),
            Err(catalog::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn kind(table: &Table) -> ObjectKind {
    if table.record.is_view() { ObjectKind::View } else { ObjectKind::Table }
}

fn denied(kind: ObjectKind, name: &str) -> catalog::Error {
    catalog::Error::Denied { kind, name: name.to_owned() }
}
