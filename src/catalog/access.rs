//! Whether a role may do something: the one place where grants are read.
//!
//! The rules are PostgreSQL's. A superuser may do everything; an owner everything with what it
//! owns; others what was granted to them, to PUBLIC, or to a role whose privileges they inherit.
//! Where nothing was ever granted or revoked, PUBLIC may connect to a database and use the schema
//! `public`, and no more.

use std::collections::BTreeSet;

use super::grants::{Grantor, PUBLIC_ROLE, Privilege};
use super::record::{PolicyCommand, RowSecurity};
use super::roles::FIRST_ROLE;
use super::snapshot::{Database, Role, Schema, Snapshot, Table};
use super::{Error, ObjectKind, Policy, Result};

/// What one role may do, as of one snapshot.
#[derive(Debug)]
pub struct Access<'a> {
    role: Option<&'a Role>,
    superuser: bool,
    /// The roles whose privileges it has: itself and those it inherits from.
    acts_as: BTreeSet<&'a str>,
}

/// Which columns of a table may be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Columns {
    All,
    /// These alone, by name. Never empty.
    Some(BTreeSet<String>),
}

impl Snapshot {
    /// What a role may do. One that is not there (any more) may do nothing.
    pub fn access<'a>(&'a self, role: &'a str) -> Access<'a> {
        let found = self.roles.get(role).map(AsRef::as_ref);
        let superuser = found.is_some_and(|role| role.record.superuser);
        let acts_as = match found {
            Some(_) => self.reach(role, |role| role.record.inherit),
            None => BTreeSet::new(),
        };
        Access { role: found, superuser, acts_as }
    }

    /// Whether a role is, directly or through others, a member of another, or is it.
    pub fn is_member(&self, role: &str, of: &str) -> bool {
        self.reach(role, |_| true).contains(of)
    }

    /// A role with all it is a member of, following only those who `pass` on what they have.
    fn reach<'a>(&'a self, role: &'a str, pass: impl Fn(&Role) -> bool) -> BTreeSet<&'a str> {
        let mut reached = BTreeSet::from([role]);
        let mut rest = vec![role];
        while let Some(name) = rest.pop() {
            let Some(role) = self.roles.get(name).filter(|role| pass(role)) else { continue };
            let groups = role.record.member_of.keys().map(String::as_str);
            rest.extend(groups.filter(|group| reached.insert(group)));
        }
        reached
    }
}

impl Access<'_> {
    pub fn is_superuser(&self) -> bool {
        self.superuser
    }

    pub fn role(&self) -> Option<&Role> {
        self.role
    }

    /// Whether it has the privileges of a role: is it, inherits from it, or is a superuser.
    pub fn has_role(&self, role: &str) -> bool {
        self.superuser || self.acts_as.contains(role)
    }

    pub fn may_create_roles(&self) -> bool {
        self.superuser || self.role.is_some_and(|role| role.record.create_role)
    }

    pub fn may_create_databases(&self) -> bool {
        self.superuser || self.role.is_some_and(|role| role.record.create_database)
    }

    /// Whether this entry of an object's grants counts for it.
    fn counts(&self, grantee: &str) -> bool {
        self.role.is_some() && (grantee == PUBLIC_ROLE || self.acts_as.contains(grantee))
    }

    fn granted(&self, grants: &super::Grants, privilege: Privilege) -> bool {
        grants.grantees().any(|role| self.counts(role) && grants.allows(role, privilege))
    }

    pub fn database(&self, database: &Database, privilege: Privilege) -> bool {
        self.has_role(&database.record.owner)
            || match &database.record.grants {
                Some(grants) => self.granted(grants, privilege),
                None => self.role.is_some() && privilege == Privilege::Connect,
            }
    }

    pub fn schema(&self, database: &Database, schema: &Schema, privilege: Privilege) -> bool {
        let (owner, grants) = match &schema.node {
            Some((record, _)) => (&record.owner, record.grants.as_ref()),
            None => (&database.record.owner, None),
        };
        // The owner of the database may put things into its schema public, as in PostgreSQL.
        let is_public = schema.is_public();
        if self.has_role(owner) || is_public && self.has_role(&database.record.owner) {
            return true;
        }
        match grants {
            Some(grants) => self.granted(grants, privilege),
            None => is_public && self.role.is_some() && privilege == Privilege::Usage,
        }
    }

    /// On the table as a whole.
    pub fn table(&self, table: &Table, privilege: Privilege) -> bool {
        self.has_role(&table.record.owner)
            || self.granted(&table.record.grants, privilege)
            || privilege == Privilege::Select && self.acts_as.contains("pg_read_all_data")
    }

    pub fn column(&self, table: &Table, column: &str, privilege: Privilege) -> bool {
        let grants = table.record.columns.iter().find(|c| c.name == column).map(|c| &c.grants);
        self.table(table, privilege) || grants.is_some_and(|grants| self.granted(grants, privilege))
    }

    /// What of a table may be read; `None`: nothing.
    pub fn readable(&self, table: &Table) -> Option<Columns> {
        if self.table(table, Privilege::Select) {
            return Some(Columns::All);
        }
        let columns = table.record.columns.iter();
        let some: BTreeSet<String> = columns
            .filter(|column| self.granted(&column.grants, Privilege::Select))
            .map(|column| column.name.clone())
            .collect();
        (!some.is_empty()).then_some(Columns::Some(some))
    }

    /// Whether it may read all columns and rows: what is known of a table's files and of its history
    /// is for those who may.
    pub fn reads_all(&self, table: &Table) -> bool {
        self.readable(table) == Some(Columns::All) && self.row_policies(table).is_none()
    }

    /// Whether catalogs show the table to it: whether it may do anything at all with it.
    pub fn sees(&self, table: &Table) -> bool {
        let any = |grants: &super::Grants| grants.grantees().any(|role| self.counts(role));
        self.has_role(&table.record.owner)
            || self.acts_as.contains("pg_read_all_data")
            || any(&table.record.grants)
            || table.record.columns.iter().any(|column| any(&column.grants))
    }

    /// Whether it may grant a privilege to others.
    pub fn may_grant(&self, owner: &str, grants: &super::Grants, privilege: Privilege) -> bool {
        self.has_role(owner)
            || (self.acts_as.iter()).any(|role| grants.allows_granting(role, privilege))
    }

    /// In whose name it grants or revokes something of an object, as PostgreSQL chooses: the
    /// owner's if it has its privileges, else that of the one of its roles that may grant most of
    /// what is wanted, itself first; `None` if it may grant nothing of it. `grants` are the
    /// object's, and those above it.
    pub fn grantor(
        &self,
        owner: &str,
        grants: &[&super::Grants],
        wanted: &[Privilege],
    ) -> Option<Grantor> {
        if self.has_role(owner) {
            return Some(Grantor::Owner);
        }
        let itself = self.role.map(|role| role.name.as_str());
        let grantable = |role: &str| {
            let may = |privilege: &&Privilege| {
                grants.iter().any(|grants| grants.allows_granting(role, **privilege))
            };
            wanted.iter().filter(may).count()
        };
        let roles = self.acts_as.iter().map(|role| (grantable(role), itself == Some(role), *role));
        let (_, _, best) = roles.filter(|(count, ..)| *count > 0).max()?;
        Some(Grantor::Role(best.to_owned()))
    }

    /// Whether it may make others members of a role.
    pub fn may_give_membership(&self, snapshot: &Snapshot, of: &str) -> bool {
        let superuser = snapshot.roles.get(of).is_some_and(|role| role.record.superuser);
        let admin = |role: &&str| {
            let role = snapshot.roles.get(*role);
            role.and_then(|role| role.record.member_of.get(of)).is_some_and(|m| m.admin)
        };
        self.superuser || !superuser && self.may_create_roles() || self.acts_as.iter().any(admin)
    }

    /// The policies that say which rows it may read; `None`: it reads all.
    pub fn row_policies<'t>(&self, table: &'t Table) -> Option<Vec<&'t Policy>> {
        self.policies_for(table, PolicyCommand::Select)
    }

    /// The policies that count for it where it does something; `None`: it is above them.
    pub fn policies_for<'t>(
        &self,
        table: &'t Table,
        command: PolicyCommand,
    ) -> Option<Vec<&'t Policy>> {
        let record = &table.record;
        let above = self.superuser || self.role.is_some_and(|role| role.record.bypass_row_security);
        let bound = match record.row_security? {
            RowSecurity::Enabled => !self.has_role(&record.owner),
            RowSecurity::Forced => true,
        };
        if above || !bound {
            return None;
        }
        let about_it =
            |policy: &Policy| policy.command == PolicyCommand::All || policy.command == command;
        let for_it = |policy: &Policy| policy.roles.iter().any(|role| self.counts(role));
        let policies = record.policies.values();
        Some(policies.filter(|policy| about_it(policy) && for_it(policy)).collect())
    }

    pub fn require_owner(&self, owner: &str, kind: ObjectKind, name: &str) -> Result<()> {
        match self.has_role(owner) {
            true => Ok(()),
            false => Err(Error::NotOwner { kind, name: name.to_owned() }),
        }
    }
}

impl Schema {
    /// The schema that every database has.
    pub fn is_public(&self) -> bool {
        self.public
    }

    /// The owner of a schema in a database.
    pub fn owner<'a>(&'a self, database: &'a Database) -> &'a str {
        match &self.node {
            Some((record, _)) => &record.owner,
            None if self.public => &database.record.owner,
            None => FIRST_ROLE,
        }
    }
}
