//! GRANT, REVOKE, and who owns what.

use std::collections::BTreeSet;

use sqlparser::ast::ObjectName;

use super::{Grant, Objects, Owned, forbidden, invalid, warning};
use crate::catalog::{
    self, Access, Consistency, DatabaseRecord, Grantor, Grants, ObjectKind, PUBLIC_ROLE,
    PoolRecord, Privilege, TableName, TableRecord,
};
use crate::query::ddl::single;
use crate::query::life::Session;
use crate::query::{Error, Notice, Result};

/// What is granted on a whole object, and on some of its columns.
struct Wanted {
    whole: Vec<Privilege>,
    columns: Vec<(Privilege, Vec<String>)>,
    /// Whether ALL was said.
    all: bool,
}

/// One change of one object's grants.
struct Change<'a> {
    give: bool,
    option: bool,
    cascade: bool,
    grantees: &'a [String],
}

/// What of it is done with one object or column, and in whose name.
struct Part {
    grantor: Grantor,
    privileges: Vec<Privilege>,
}

impl Change<'_> {
    /// Changes an object's grants; `above` are those of a column's table.
    fn apply(
        &self,
        part: &Part,
        owner: &str,
        grants: &mut Grants,
        above: Option<&Grants>,
    ) -> catalog::Result<()> {
        let Part { grantor, privileges } = part;
        // The owner may do everything without an entry.
        for role in self.grantees.iter().filter(|role| *role != owner) {
            if !self.give {
                grants.revoke(grantor, role, privileges, self.option);
                continue;
            }
            let circular = |one: &Privilege| grants.is_circular(above, grantor, role, *one);
            if self.option && privileges.iter().any(circular) {
                let text = "grant options cannot be granted back to your own grantor";
                return Err(catalog::Error::InvalidGrant(text.to_owned()));
            }
            grants.grant(grantor, role, privileges, self.option);
        }
        // Also finds what was granted by somebody who lost the option a moment ago.
        match grants.cut_loose(above) && (self.give || !self.cascade) {
            true => Err(catalog::Error::DependentPrivileges),
            false => Ok(()),
        }
    }

    /// The roles that get something or give it: see `catalog::roles`.
    fn beneficiaries<'a>(&'a self, parts: impl IntoIterator<Item = &'a Part>) -> Vec<&'a str> {
        if !self.give {
            return Vec::new();
        }
        let grantors = parts.into_iter().filter_map(|part| match &part.grantor {
            Grantor::Role(role) => Some(role.as_str()),
            Grantor::Owner => None,
        });
        let roles: BTreeSet<&str> =
            self.grantees.iter().map(String::as_str).chain(grantors).collect();
        roles.into_iter().collect()
    }
}

impl Session {
    /// GRANT (`give`) or REVOKE on objects.
    pub(super) async fn grant(&mut self, grant: &Grant, give: bool) -> Result<Vec<Notice>> {
        self.grants_itself(grant.granted_by.as_ref()).await?;
        let grantees = self.grantees(&grant.grantees).await?;
        if give && grant.option && grantees.iter().any(|role| role == PUBLIC_ROLE) {
            let text = "grant options can only be granted to roles";
            return Err(catalog::Error::InvalidGrant(text.to_owned()).into());
        }
        let change =
            Change { give, option: grant.option, cascade: grant.cascade, grantees: &grantees };
        let mut notices = Vec::new();
        match &grant.objects {
            Objects::Nothing => {}
            Objects::Tables(names) => {
                let wanted = wanted(grant, Privilege::TABLE, "table")?;
                for name in names {
                    let name = self.existing(name).await?;
                    notices.extend(self.grant_on_table(&name, &wanted, &change).await?);
                }
            }
            Objects::AllTables(schemas) => {
                let wanted = wanted(grant, Privilege::TABLE, "table")?;
                for schema in schemas {
                    for name in self.tables_in(schema).await? {
                        notices.extend(self.grant_on_table(&name, &wanted, &change).await?);
                    }
                }
            }
            Objects::Schemas(names) => {
                let wanted = wanted(grant, Privilege::SCHEMA, "schema")?;
                for name in names {
                    notices.extend(self.grant_on_schema(name, &wanted, &change).await?);
                }
            }
            Objects::Databases(names) => {
                let wanted = wanted(grant, Privilege::DATABASE, "database")?;
                for name in names {
                    notices.extend(self.grant_on_database(name, &wanted, &change).await?);
                }
            }
        }
        Ok(notices)
    }

    async fn grant_on_table(
        &self,
        name: &TableName,
        wanted: &Wanted,
        change: &Change<'_>,
    ) -> Result<Option<Notice>> {
        let table = self.catalog().table(name, Consistency::Strong).await?;
        let snapshot = self.catalog().snapshot();
        let access = snapshot.access(self.user());
        let record = &table.record;
        let target = Target {
            owner: &record.owner,
            grants: &record.grants,
            kind: ObjectKind::Table,
            name: &name.table,
        };
        let (whole, notice) = change.on(&access, &target, wanted)?;
        let mut columns = Vec::new();
        for (privilege, names) in &wanted.columns {
            for column in names {
                let Some(found) = record.columns.iter().find(|c| c.name == *column) else {
                    let name = format!("{column}\" of relation \"{}", name.table);
                    return Err(catalog::Error::NotFound { kind: ObjectKind::Column, name }.into());
                };
                let grants = [&record.grants, &found.grants];
                let privileges = vec![*privilege];
                let grantor = access.grantor(&record.owner, &grants, &privileges);
                let grantor = grantor.ok_or_else(|| target.denied())?;
                columns.push((column, Part { grantor, privileges }));
            }
        }
        let alter = |record: &mut TableRecord| {
            let TableRecord { owner, grants, columns: all, .. } = record;
            change.apply(&whole, owner, grants, None)?;
            for column in all {
                // What is revoked from a table is revoked from its columns as well.
                if !change.give {
                    change.apply(&whole, owner, &mut column.grants, Some(grants))?;
                }
                for (_, part) in columns.iter().filter(|(name, _)| **name == column.name) {
                    change.apply(part, owner, &mut column.grants, Some(grants))?;
                }
            }
            Ok(())
        };
        let beneficiaries = change.beneficiaries(columns.iter().map(|c| &c.1).chain([&whole]));
        self.catalog().alter_table(name, &beneficiaries, alter).await?;
        Ok(notice)
    }

    async fn grant_on_schema(
        &self,
        name: &str,
        wanted: &Wanted,
        change: &Change<'_>,
    ) -> Result<Option<Notice>> {
        let database = self.catalog().database(self.database()).await?;
        let kind = ObjectKind::Schema;
        let not_found = || catalog::Error::NotFound { kind, name: name.to_owned() };
        let schema = database.schemas.get(name).ok_or_else(not_found)?;
        let defaults = match schema.is_public() {
            true => Grants::to_public(&[Privilege::Usage]),
            false => Grants::default(),
        };
        let known = schema.node.as_ref().and_then(|(record, _)| record.grants.clone());
        let grants = known.unwrap_or_else(|| defaults.clone());
        let snapshot = self.catalog().snapshot();
        let access = snapshot.access(self.user());
        let owner = schema.owner(&database);
        let target = Target { owner, grants: &grants, kind, name };
        let (part, notice) = change.on(&access, &target, wanted)?;
        let alter = |record: &mut DatabaseRecord| {
            change.apply(&part, &record.owner, record.grants.get_or_insert(defaults), None)
        };
        let beneficiaries = change.beneficiaries([&part]);
        self.catalog().alter_schema(self.database(), name, &beneficiaries, alter).await?;
        Ok(notice)
    }

    async fn grant_on_database(
        &self,
        name: &str,
        wanted: &Wanted,
        change: &Change<'_>,
    ) -> Result<Option<Notice>> {
        let database = self.catalog().database(name).await?;
        let defaults = Grants::to_public(&[Privilege::Temporary, Privilege::Connect]);
        let record = &database.record;
        let grants = record.grants.clone().unwrap_or_else(|| defaults.clone());
        let snapshot = self.catalog().snapshot();
        let access = snapshot.access(self.user());
        let target =
            Target { owner: &record.owner, grants: &grants, kind: ObjectKind::Database, name };
        let (part, notice) = change.on(&access, &target, wanted)?;
        let alter = |record: &mut DatabaseRecord| {
            change.apply(&part, &record.owner, record.grants.get_or_insert(defaults), None)
        };
        self.catalog().alter_database(name, &change.beneficiaries([&part]), alter).await?;
        Ok(notice)
    }

    /// ALTER ... OWNER TO.
    pub(super) async fn change_owner(
        &mut self,
        kind: Owned,
        name: &ObjectName,
        new: &str,
        if_exists: bool,
    ) -> Result<Vec<Notice>> {
        let new = match new {
            "current_user" | "current_role" => self.user().to_owned(),
            "session_user" => self.entry().user.clone(),
            new => new.to_owned(),
        };
        self.may_give_to(&new).await?;
        let set = |record: &mut DatabaseRecord| {
            give(record, &new);
            Ok(())
        };
        match kind {
            Owned::Database => {
                let name = single(name)?;
                let owner = self.catalog().database(&name).await?.record.owner.clone();
                self.must_own(&owner, ObjectKind::Database, &name).await?;
                self.catalog().alter_database(&name, &[&new], set).await?;
            }
            Owned::Schema => {
                let name = single(name)?;
                let database = self.catalog().database(self.database()).await?;
                let not_found =
                    || catalog::Error::NotFound { kind: ObjectKind::Schema, name: name.clone() };
                let schema = database.schemas.get(&name).ok_or_else(not_found)?;
                self.must_own(schema.owner(&database), ObjectKind::Schema, &name).await?;
                self.catalog().alter_schema(self.database(), &name, &[&new], set).await?;
            }
            Owned::Table | Owned::View => {
                let name = self.existing(name).await?;
                let table = match self.catalog().table(&name, Consistency::Strong).await {
                    Err(catalog::Error::NotFound { name, .. }) if if_exists => {
                        let text = format!("relation \"{name}\" does not exist, skipping");
                        return Ok(vec![warning("00000", text)]);
                    }
                    table => table?,
                };
                self.must_own(&table.record.owner, ObjectKind::Table, &name.table).await?;
                self.give_table(&name, &new).await?;
            }
        }
        Ok(Vec::new())
    }

    async fn give_table(&self, name: &TableName, new: &str) -> Result<()> {
        let set = |record: &mut TableRecord| {
            record.owner = new.to_owned();
            record.grants.change_owner(new);
            record.columns.iter_mut().for_each(|column| column.grants.change_owner(new));
            Ok(())
        };
        Ok(self.catalog().alter_table(name, &[new], set).await?)
    }

    /// REASSIGN OWNED: everything that these roles own goes to another, in all databases.
    pub(super) async fn reassign_owned(
        &mut self,
        roles: &[String],
        to: &str,
    ) -> Result<Vec<Notice>> {
        let heir = self.catalog().role(to, Consistency::Cached).await?;
        self.superuser("reassign objects").await?;
        let mut owners = Vec::new();
        for role in roles {
            owners.push(self.catalog().role(role, Consistency::Cached).await?);
        }
        let snapshot = self.catalog().snapshot();
        let theirs = |owner: &String| roles.contains(owner);
        let set = |record: &mut DatabaseRecord| {
            give(record, to);
            Ok(())
        };
        for (name, database) in &snapshot.databases {
            if theirs(&database.record.owner) {
                self.catalog().alter_database(name, &[to], set).await?;
            }
            for (schema, content) in &database.schemas {
                if content.node.as_ref().is_some_and(|(record, _)| theirs(&record.owner)) {
                    self.catalog().alter_schema(name, schema, &[to], set).await?;
                }
                let tables = content.tables.values();
                for table in tables.filter(|table| theirs(&table.record.owner)) {
                    self.give_table(&table.name, to).await?;
                }
            }
        }
        self.queries().schedules.reassign(&owners, &heir).await?;
        Ok(Vec::new())
    }

    /// DROP OWNED: what these roles were granted is revoked, in all databases. What they own is to
    /// be reassigned or dropped by name: an external table's definition cannot be had back.
    pub(super) async fn drop_owned(&mut self, roles: &[String]) -> Result<Vec<Notice>> {
        self.superuser("revoke all that was granted to a role").await?;
        let snapshot = self.catalog().snapshot();
        let named = |grants: &Grants| roles.iter().any(|role| grants.names(role));
        let forget = |grants: &mut Grants| roles.iter().for_each(|role| grants.forget(role, None));
        let clean = |record: &mut DatabaseRecord| {
            record.grants.as_mut().map(forget);
            Ok(())
        };
        for (name, database) in &snapshot.databases {
            if database.record.grants.as_ref().is_some_and(named) {
                self.catalog().alter_database(name, &[], clean).await?;
            }
            for (schema, content) in &database.schemas {
                let record = content.node.as_ref().map(|(record, _)| record);
                if record.and_then(|record| record.grants.as_ref()).is_some_and(named) {
                    self.catalog().alter_schema(name, schema, &[], clean).await?;
                }
                for table in content.tables.values() {
                    let record = &table.record;
                    let columns = record.columns.iter().any(|column| named(&column.grants));
                    let policies = record.policies.values();
                    let in_policy =
                        policies.clone().any(|p| p.roles.iter().any(|r| roles.contains(r)));
                    if named(&record.grants) || columns || in_policy {
                        let clean = |record: &mut TableRecord| {
                            forget(&mut record.grants);
                            for column in &mut record.columns {
                                let table = Some(&record.grants);
                                roles.iter().for_each(|role| column.grants.forget(role, table));
                            }
                            for policy in record.policies.values_mut() {
                                policy.roles.retain(|role| !roles.contains(role));
                            }
                            record.policies.retain(|_, policy| !policy.roles.is_empty());
                            Ok(())
                        };
                        self.catalog().alter_table(&table.name, &[], clean).await?;
                    }
                }
            }
        }
        for (name, pool) in snapshot.pools.iter() {
            if pool.record.roles.iter().any(|role| roles.contains(role)) {
                let clean = |record: &mut PoolRecord| record.roles.retain(|r| !roles.contains(r));
                self.catalog().alter_pool(name, clean).await?;
            }
        }
        let schedules = self.queries().schedules.all().await?;
        let mut owners = roles.iter().filter_map(|role| snapshot.roles.get(role));
        let scheduled = owners.any(|role| schedules.iter().any(|(_, record)| record.is_of(role)));
        let owned = scheduled
            || snapshot.databases.values().any(|database| {
                let schemas = database.schemas.values();
                roles.contains(&database.record.owner)
                    || schemas.clone().any(|schema| {
                        let own =
                            schema.node.as_ref().is_some_and(|(r, _)| roles.contains(&r.owner));
                        own || schema.tables.values().any(|t| roles.contains(&t.record.owner))
                    })
            });
        Ok(match owned {
            true => vec![warning("01000", "what the roles own stays: use REASSIGN OWNED or DROP")],
            false => Vec::new(),
        })
    }

    async fn superuser(&self, what: &str) -> Result<()> {
        self.require(|_, access| match access.is_superuser() {
            true => Ok(()),
            false => Err(forbidden(format!("must be superuser to {what}"))),
        })
        .await
    }

    /// Refuses whoever does not own an object.
    pub(in crate::query) async fn must_own(
        &self,
        owner: &str,
        kind: ObjectKind,
        name: &str,
    ) -> Result<()> {
        self.require(|_, access| access.require_owner(owner, kind, name)).await
    }

    /// All tables and views of a schema.
    async fn tables_in(&self, schema: &str) -> Result<Vec<TableName>> {
        let database = self.catalog().database(self.database()).await?;
        let kind = ObjectKind::Schema;
        let not_found = || catalog::Error::NotFound { kind, name: schema.to_owned() };
        let content = database.schemas.get(schema).ok_or_else(not_found)?;
        Ok(content.tables.values().map(|table| table.name.clone()).collect())
    }
}

fn wanted(grant: &Grant, possible: &[Privilege], kind: &str) -> Result<Wanted> {
    let mut wanted = Wanted { whole: Vec::new(), columns: Vec::new(), all: false };
    for item in &grant.items {
        let privileges = match item.privilege()? {
            Some(privilege) if possible.contains(&privilege) => vec![privilege],
            Some(privilege) => {
                let text = format!("invalid privilege type {privilege} for {kind}");
                return Err(catalog::Error::InvalidGrant(text).into());
            }
            None if item.columns.is_empty() => {
                wanted.all = true;
                possible.to_vec()
            }
            None => Privilege::COLUMN.to_vec(),
        };
        if item.columns.is_empty() {
            wanted.whole.extend(privileges);
            continue;
        }
        if kind != "table" {
            return Err(invalid("column privileges are only valid for relations"));
        }
        for privilege in privileges {
            if !Privilege::COLUMN.contains(&privilege) {
                let text = format!("invalid privilege type {privilege} for column");
                return Err(catalog::Error::InvalidGrant(text).into());
            }
            wanted.columns.push((privilege, item.columns.clone()));
        }
    }
    Ok(wanted)
}

/// An object whose grants are changed.
struct Target<'a> {
    owner: &'a str,
    grants: &'a Grants,
    kind: ObjectKind,
    name: &'a str,
}

impl Target<'_> {
    fn denied(&self) -> catalog::Error {
        catalog::Error::Denied { kind: self.kind, name: self.name.to_owned() }
    }
}

impl Change<'_> {
    /// What the session's role may grant or revoke of what is wanted of the whole object. None of it
    /// is an error, some of it a warning, as in PostgreSQL.
    fn on(
        &self,
        access: &Access<'_>,
        target: &Target<'_>,
        wanted: &Wanted,
    ) -> Result<(Part, Option<Notice>)> {
        if wanted.whole.is_empty() {
            let part = Part { grantor: Grantor::Owner, privileges: Vec::new() };
            return Ok((part, None));
        }
        let grantor = access.grantor(target.owner, &[target.grants], &wanted.whole);
        let grantor = grantor.ok_or_else(|| target.denied())?;
        let may = |privilege: &Privilege| match &grantor {
            Grantor::Owner => true,
            Grantor::Role(role) => target.grants.allows_granting(role, *privilege),
        };
        let privileges: Vec<_> = wanted.whole.iter().copied().filter(may).collect();
        let own = self.grantees.iter().any(|role| role == target.owner);
        if !self.give && own {
            // PostgreSQL can take from owners what they can give back to themselves.
            let text = format!("REVOKE from \"{}\", who owns \"{}\"", target.owner, target.name);
            return Err(Error::NotSupported(text));
        }
        let partly = privileges.len() < wanted.whole.len() && !wanted.all;
        let (code, done) = match self.give {
            true => ("01007", "were granted"),
            false => ("01006", "could be revoked"),
        };
        let text = format!("not all privileges {done} for \"{}\"", target.name);
        Ok((Part { grantor, privileges }, partly.then(|| warning(code, text))))
    }
}

/// Gives a database or schema to another owner.
fn give(record: &mut DatabaseRecord, owner: &str) {
    record.owner = owner.to_owned();
    if let Some(grants) = &mut record.grants {
        grants.change_owner(owner);
    }
}
