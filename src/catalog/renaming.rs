//! ALTER ROLE ... RENAME: records name roles, so that all of them take the new name in one step.

use serde::Serialize;

use super::cache::Catalog;
use super::ddl::stale_is_fine;
use super::lives::Being;
use super::pools::PoolRecord;
use super::record::{DatabaseRecord, TableRecord};
use super::roles::{RoleRecord, check_role_name};
use super::snapshot::Snapshot;
use super::transact::{Proof, set};
use super::{Consistency, Error, ObjectKind, Result, is_predefined};
use crate::coordination::Op;
use crate::coordination::paths::Path;
use crate::id;

/// How often a renaming starts again because others have changed what it changes. A managed table
/// has a new version with each commit.
const MAX_TRIES: usize = 20;

/// A record that may name roles. Returns whether it does.
trait NamesRoles: Clone + Serialize {
    fn rename_role(&mut self, role: &str, new: &str) -> bool;
}

fn replace(name: &mut String, role: &str, new: &str) -> bool {
    let found = name == role;
    if found {
        *name = new.to_owned();
    }
    found
}

impl NamesRoles for RoleRecord {
    fn rename_role(&mut self, role: &str, new: &str) -> bool {
        let Some(membership) = self.member_of.remove(role) else { return false };
        self.member_of.insert(new.to_owned(), membership);
        self.nonce = id::nonce();
        true
    }
}

impl NamesRoles for PoolRecord {
    fn rename_role(&mut self, role: &str, new: &str) -> bool {
        let mut found = false;
        for name in &mut self.roles {
            found |= replace(name, role, new);
        }
        if found {
            self.nonce = id::nonce();
        }
        found
    }
}

impl NamesRoles for DatabaseRecord {
    fn rename_role(&mut self, role: &str, new: &str) -> bool {
        let mut found = replace(&mut self.owner, role, new);
        if let Some(grants) = self.grants.as_mut().filter(|grants| grants.names(role)) {
            grants.rename(role, new);
            found = true;
        }
        if found {
            self.nonce = id::nonce();
        }
        found
    }
}

impl NamesRoles for TableRecord {
    fn rename_role(&mut self, role: &str, new: &str) -> bool {
        let mut found = replace(&mut self.owner, role, new);
        let columns = self.columns.iter_mut().map(|column| &mut column.grants);
        for grants in columns.chain([&mut self.grants]).filter(|grants| grants.names(role)) {
            grants.rename(role, new);
            found = true;
        }
        for policy in self.policies.values_mut() {
            for name in &mut policy.roles {
                found |= replace(name, role, new);
            }
        }
        if found {
            self.nonce = id::nonce();
        }
        found
    }
}

impl Catalog {
    /// Gives a role another name: what it owns, what it was granted and has granted, its
    /// memberships, its members, and the policies and pools that name it go with it in one step. Its
    /// identifier, password and settings stay.
    pub async fn rename_role(&self, name: &str, new: &str) -> Result<()> {
        check_role_name(new)?;
        if let Some(reserved) = [name, new].into_iter().find(|name| is_predefined(name)) {
            return Err(Error::InvalidName(format!("role name \"{reserved}\" is reserved")));
        }
        let mut left = MAX_TRIES;
        loop {
            match self.try_renaming(name, new).await {
                Err(Error::Conflict { .. }) if left > 0 => left -= 1,
                renamed => {
                    renamed?;
                    break;
                }
            }
        }
        self.rename_late_comers(name, new).await
    }

    async fn try_renaming(&self, name: &str, new: &str) -> Result<()> {
        // What was granted up to now is seen; what is granted meanwhile changes the role's version.
        self.coordination.sync().await?;
        self.reload().await?;
        let snapshot = self.snapshot();
        let role = self.role(name, Consistency::Strong).await?;
        if snapshot.roles.contains_key(new) {
            let name = new.to_owned();
            return Err(Error::AlreadyExists { kind: ObjectKind::Role, name });
        }
        let record = RoleRecord { nonce: id::nonce(), ..role.record.clone() };
        let path = Path::Role(new).to_string();
        let renaming = role.being().renamed(&path, record.clone())?;
        let mut ops: Vec<Op> = renaming.into();
        ops.extend(renamed_everywhere(&snapshot, name, new)?);
        let proof = Proof::Written { path, nonce: record.nonce };
        let renamed = self.commit(ops, proof, ObjectKind::Role, new).await;
        self.reload().await.or_else(stale_is_fine)?;
        renamed
    }

    /// What was made in the role's old name between the look and the step: nothing is made in it
    /// after that, since whoever makes something sees to it that its owner is there.
    async fn rename_late_comers(&self, name: &str, new: &str) -> Result<()> {
        for _ in 0..MAX_TRIES {
            self.coordination.sync().await?;
            self.reload().await?;
            let snapshot = self.snapshot();
            // Somebody has made a role of the old name: what is there may be its own.
            if snapshot.roles.contains_key(name) || !snapshot.roles.contains_key(new) {
                return Ok(());
            }
            let ops = renamed_everywhere(&snapshot, name, new)?;
            if ops.is_empty() {
                return Ok(());
            }
            // A lost reply is as good as any: the next look tells.
            let proof = Proof::Written { path: Path::Role(new).to_string(), nonce: id::nonce() };
            match self.commit(ops, proof, ObjectKind::Role, new).await {
                Ok(())
                | Err(Error::Conflict { .. } | Error::Unavailable(_) | Error::Unknown(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Conflict { kind: ObjectKind::Role, name: new.to_owned() })
    }
}

/// The steps that write the new name into every record that holds the old one.
fn renamed_everywhere(snapshot: &Snapshot, role: &str, new: &str) -> Result<Vec<Op>> {
    let mut steps = Vec::new();
    for other in snapshot.roles.values().filter(|other| other.name != role) {
        if let Some(record) = renamed(&other.record, role, new) {
            steps.extend(other.being().changed(&record)?);
        }
    }
    for (name, pool) in snapshot.pools.iter() {
        let (path, version) = (Path::Pool(name).to_string(), pool.stat.version);
        let record = renamed(&pool.record, role, new);
        steps.extend(record.map(|record| set(&path, &record, version)).transpose()?);
    }
    for (name, database) in &snapshot.databases {
        if let Some(record) = renamed(&database.record, role, new) {
            let path = Path::Database(name);
            steps.extend(Being::new(path, &record, &database.stat).changed(&record)?);
        }
        for (schema, content) in &database.schemas {
            if let Some((record, stat)) = &content.node
                && let Some(record) = renamed(record, role, new)
            {
                let path = Path::Schema(name, schema);
                steps.extend(Being::new(path, &record, stat).changed(&record)?);
            }
        }
    }
    for table in snapshot.tables() {
        if let Some(record) = renamed(&table.record, role, new) {
            steps.extend(table.being().changed(&record)?);
        }
    }
    Ok(steps)
}

/// A record with the new name; `None` if it does not name the role.
fn renamed<T: NamesRoles>(record: &T, role: &str, new: &str) -> Option<T> {
    let mut record = record.clone();
    record.rename_role(role, new).then_some(record)
}
