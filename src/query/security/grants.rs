//! GRANT, REVOKE, and who owns what.

use sqlparser::ast::ObjectName;

use super::{Grant, Objects, Owned, forbidden, invalid, warning};
use crate::catalog::{
    self, Access, Consistency, DatabaseRecord, Grants, ObjectKind, PUBLIC_ROLE, Privilege,
    TableName, TableRecord,
};
use crate::query::Notice;
use crate::query::Result;
use crate::query::ddl::single;
use crate::query::life::Session;

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
    grantees: &'a [String],
}

impl Change<'_> {
    fn apply(&self, grants: &mut Grants, privileges: &[Privilege]) {
        for role in self.grantees {
            match self.give {
                true => grants.grant(role, privileges, self.option),
                false => grants.revoke(role, privileges, self.option),
            }
        }
    }

    /// The roles that get something: see `catalog::roles`.
    fn beneficiaries(&self) -> Vec<&str> {
        match self.give {
            true => self.grantees.iter().map(String::as_str).collect(),
            false => Vec::new(),
        }
    }
}

impl Session {
    /// GRANT (`give`) or REVOKE on objects.
    pub(super) async fn grant(&mut self, grant: &Grant, give: bool) -> Result<Vec<Notice>> {
        let grantees = self.grantees(&grant.grantees).await?;
        if give && grant.option && grantees.iter().any(|role| role == PUBLIC_ROLE) {
            let text = "grant options can only be granted to roles";
            return Err(catalog::Error::InvalidGrant(text.to_owned()).into());
        }
        let change = Change { give, option: grant.option, grantees: &grantees };
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
        let (mine, notice) = grantable(
            &access,
            &record.owner,
            &record.grants,
            wanted,
            ObjectKind::Table,
            &name.table,
        )?;
        let columns: Vec<&String> = wanted.columns.iter().flat_map(|(_, names)| names).collect();
        let missing = |column: &&&String| !record.columns.iter().any(|c| c.name == ***column);
        if let Some(missing) = columns.iter().find(missing) {
            let name = format!("{missing}\" of relation \"{}", name.table);
            return Err(catalog::Error::NotFound { kind: ObjectKind::Column, name }.into());
        }
        let alter = |record: &mut TableRecord| {
            change.apply(&mut record.grants, &mine);
            // What is revoked from a table is revoked from its columns as well.
            if !change.give {
                for column in &mut record.columns {
                    change.apply(&mut column.grants, &mine);
                }
            }
            for (privilege, names) in &wanted.columns {
                for column in record.columns.iter_mut().filter(|c| names.contains(&c.name)) {
                    change.apply(&mut column.grants, &[*privilege]);
                }
            }
            Ok(())
        };
        self.catalog().alter_table(name, &change.beneficiaries(), alter).await?;
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
        let (mine, notice) = grantable(&access, owner, &grants, wanted, kind, name)?;
        let alter = |record: &mut DatabaseRecord| {
            change.apply(record.grants.get_or_insert(defaults), &mine);
            Ok(())
        };
        let beneficiaries = change.beneficiaries();
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
        let (mine, notice) =
            grantable(&access, &record.owner, &grants, wanted, ObjectKind::Database, name)?;
        let alter = |record: &mut DatabaseRecord| {
            change.apply(record.grants.get_or_insert(defaults), &mine);
            Ok(())
        };
        self.catalog().alter_database(name, &change.beneficiaries(), alter).await?;
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
            record.owner.clone_from(&new);
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
        self.catalog().role(to, Consistency::Cached).await?;
        self.superuser("reassign objects").await?;
        for role in roles {
            self.catalog().role(role, Consistency::Cached).await?;
        }
        let snapshot = self.catalog().snapshot();
        let theirs = |owner: &String| roles.contains(owner);
        let set = |record: &mut DatabaseRecord| {
            record.owner = to.to_owned();
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
        Ok(Vec::new())
    }

    /// DROP OWNED: what these roles were granted is revoked, in all databases. What they own is to
    /// be reassigned or dropped by name: an external table's definition cannot be had back.
    pub(super) async fn drop_owned(&mut self, roles: &[String]) -> Result<Vec<Notice>> {
        self.superuser("revoke all that was granted to a role").await?;
        let snapshot = self.catalog().snapshot();
        let named = |grants: &Grants| grants.grantees().any(|one| roles.iter().any(|r| r == one));
        let forget = |grants: &mut Grants| roles.iter().for_each(|role| grants.forget(role));
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
                                forget(&mut column.grants);
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
        let owned = snapshot.databases.values().any(|database| {
            let schemas = database.schemas.values();
            roles.contains(&database.record.owner)
                || schemas.clone().any(|schema| {
                    let own = schema.node.as_ref().is_some_and(|(r, _)| roles.contains(&r.owner));
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

/// What of it the session's role may grant or revoke. None of it is an error, some of it a warning,
/// as in PostgreSQL.
fn grantable(
    access: &Access<'_>,
    owner: &str,
    grants: &Grants,
    wanted: &Wanted,
    kind: ObjectKind,
    name: &str,
) -> Result<(Vec<Privilege>, Option<Notice>)> {
    let may = |privilege: &Privilege| access.may_grant(owner, grants, *privilege);
    let mine: Vec<Privilege> = wanted.whole.iter().copied().filter(may).collect();
    let columns = wanted.columns.iter().all(|(privilege, _)| may(privilege));
    if !columns || mine.is_empty() && !wanted.whole.is_empty() {
        return Err(catalog::Error::Denied { kind, name: name.to_owned() }.into());
    }
    let partly = mine.len() < wanted.whole.len() && !wanted.all;
    let text = format!("not all privileges were granted for \"{name}\"");
    Ok((mine, partly.then(|| warning("01007", text))))
}
