//! Roles: what `/roles/<name>` holds, and how it is changed.
//!
//! What was granted to a role stands in the records of the objects. Dropping a role must see all of
//! it: whoever grants something, or makes a role an owner, writes the role's node as well (as it
//! is), so that a drop that has not seen the grant meets another version and starts again. Whoever makes
//! something of a role's writes the role's [life](super::lives) for the same reason.
//!
//! Somebody must be able to log in as a superuser, or nobody could ever make one again: with LOGIN, before VALID
//! UNTIL, and with what a host rule of the daemon that is asked wants to see, which may be nothing, a certificate,
//! or a password (other daemons' rules are not looked at, nor whether anybody has the certificate). What takes that
//! from a role names another that has it, and fails if that one is changed meanwhile: of two daemons that
//! take it from the last two at the same moment, each in view of the other, one is refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::cache::Catalog;
use super::ddl::stale_is_fine;
use super::lives::made;
use super::record::is_first;
use super::snapshot::{Role, Snapshot};
use super::transact::{Proof, create, delete, set};
use super::{Consistency, Error, ObjectKind, PUBLIC_ROLE, Result};
use crate::config::InForce;
use crate::coordination::paths::{CatalogName, Path};
use crate::coordination::{Coordination, Mode, Op};
use crate::id;

/// The role that a new store begins with: a superuser without a password.
pub const FIRST_ROLE: &str = "oribi";

/// What PostgreSQL gives to its first superuser (`BOOTSTRAP_SUPERUSERID`).
const FIRST_ROLE_OID: u32 = 10;

/// Roles that are always there, with PostgreSQL's names and identifiers as far as it has them: being
/// a member of one allows what its name says.
pub const PREDEFINED_ROLES: &[(&str, u32)] = &[
    ("oribi_read_coordination", 15300),
    ("pg_monitor", 3373),
    ("pg_read_all_data", 6181),
    ("pg_read_all_settings", 3374),
    ("pg_read_all_stats", 3375),
    ("pg_read_server_files", 4569),
    ("pg_signal_backend", 4200),
    ("pg_write_server_files", 4570),
];

/// A role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleRecord {
    pub oid: u32,
    /// Which of its [lives](super::lives) it is, since it has its name; 0 is that of its first.
    #[serde(default, skip_serializing_if = "is_first")]
    pub life: u32,
    #[serde(default, skip_serializing_if = "is_false")]
    pub superuser: bool,
    /// Whether it has the privileges of the roles it is a member of, without SET ROLE.
    pub inherit: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub create_role: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub create_database: bool,
    pub login: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub bypass_row_security: bool,
    /// Sessions at once on one daemon; `None`: no limit of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_limit: Option<u32>,
    /// A SCRAM-SHA-256 verifier as PostgreSQL writes it; never the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// When the password ceases to count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<DateTime<Utc>>,
    /// What its sessions begin with (ALTER ROLE ... SET).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
    /// The roles it is a member of.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub member_of: BTreeMap<String, Membership>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// The last writer's mark, by which it recognises its own write.
    pub nonce: Uuid,
}

/// How a role belongs to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// Whether it may make others members.
    #[serde(default, skip_serializing_if = "is_false")]
    pub admin: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl Default for RoleRecord {
    /// As CREATE ROLE makes them when nothing is said.
    fn default() -> Self {
        Self {
            oid: 0,
            life: 0,
            superuser: false,
            inherit: true,
            create_role: false,
            create_database: false,
            login: false,
            bypass_row_security: false,
            connection_limit: None,
            password: None,
            valid_until: None,
            settings: BTreeMap::new(),
            member_of: BTreeMap::new(),
            comment: None,
            nonce: Uuid::nil(),
        }
    }
}

/// Whether a name is one of [`PREDEFINED_ROLES`].
pub fn is_predefined(name: &str) -> bool {
    PREDEFINED_ROLES.iter().any(|(known, _)| *known == name)
}

impl Catalog {
    /// Creates a role. `record` has neither an identifier nor a nonce yet.
    pub async fn create_role(&self, name: &str, record: RoleRecord) -> Result<()> {
        check_role_name(name)?;
        if is_predefined(name) {
            let name = name.to_owned();
            return Err(Error::AlreadyExists { kind: ObjectKind::Role, name });
        }
        let mut ops = Vec::new();
        for group in record.member_of.keys() {
            ops.extend(self.touch_role(group).await?);
        }
        let record = RoleRecord { oid: self.oids.next().await?, nonce: id::nonce(), ..record };
        let path = Path::Role(name).to_string();
        ops.extend(made(&path, &record)?);
        let proof = Proof::Written { path, nonce: record.nonce };
        let created = self.commit(ops, proof, ObjectKind::Role, name).await;
        self.refresh_role(name).await?;
        created
    }

    /// Changes a role's record.
    pub async fn alter_role(
        &self,
        name: &str,
        change: impl FnOnce(&mut RoleRecord) -> Result<()>,
    ) -> Result<()> {
        if is_predefined(name) {
            return Err(Error::Forbidden(format!("role \"{name}\" cannot be changed")));
        }
        let role = self.role(name, Consistency::Strong).await?;
        let mut record = RoleRecord { nonce: id::nonce(), ..role.record.clone() };
        change(&mut record)?;
        let mut ops = Vec::new();
        let now = Utc::now();
        if self.lets_superuser_in(name, &role.record, now)
            && !self.lets_superuser_in(name, &record, now)
        {
            ops.push(self.another_superuser(&[name], name).await?);
        }
        for group in record.member_of.keys().filter(|group| !role.record.is_member(group)) {
            ops.extend(self.touch_role(group).await?);
        }
        ops.extend(role.being().changed(&record)?);
        let path = Path::Role(name).to_string();
        let proof = Proof::Written { path, nonce: record.nonce };
        let altered = self.commit(ops, proof, ObjectKind::Role, name).await;
        self.refresh_role(name).await?;
        altered
    }

    /// Roles as they are now, to be dropped: what is given to one from here on changes its version.
    pub async fn roles_to_drop(&self, names: &[String]) -> Result<Vec<Arc<Role>>> {
        self.coordination.sync().await?;
        let mut roles = Vec::new();
        for name in names {
            if is_predefined(name) {
                return Err(Error::Forbidden(format!("role \"{name}\" cannot be dropped")));
            }
            roles.push(self.role(name, Consistency::Strong).await?);
        }
        Ok(roles)
    }

    /// Drops roles that own nothing and were granted nothing, in one step. Their memberships, and
    /// those of others in them, go with them. `schedules` are those that a role owns.
    pub async fn drop_roles(
        &self,
        roles: &[Arc<Role>],
        schedules: impl Fn(&Role) -> Vec<String>,
    ) -> Result<()> {
        let mut ops = Vec::new();
        let mut proof = None;
        for role in roles {
            let path = Path::Role(&role.name).to_string();
            ops.push(delete(path.clone(), Some(role.stat.version)));
            proof = Some(Proof::Deleted { path, czxid: role.stat.czxid });
            // Before the look at what it owns.
            ops.push(self.end_of_role(role).await?);
        }
        let Some(proof) = proof else { return Ok(()) };
        self.reload().await?;
        let snapshot = self.snapshot();
        for role in roles {
            let owned = schedules(role);
            let has_schedules = !owned.is_empty();
            if let Some(objects) = snapshot.uses_of(&role.name, owned) {
                let (role, schedules) = (role.name.clone(), has_schedules);
                return Err(Error::RoleInUse { role, objects, schedules });
            }
        }
        let names: Vec<&str> = roles.iter().map(|role| role.name.as_str()).collect();
        let now = Utc::now();
        let lets_in = |role: &&Arc<Role>| self.lets_superuser_in(&role.name, &role.record, now);
        if let Some(role) = roles.iter().find(lets_in) {
            // Before a step that writes the same role, since it leaves another version.
            ops.insert(0, self.another_superuser(&names, &role.name).await?);
        }
        let members = snapshot.roles.values().filter(|role| !names.contains(&role.name.as_str()));
        for member in members {
            let mut record = member.record.clone();
            record.member_of.retain(|group, _| !names.contains(&group.as_str()));
            if record != member.record {
                record.nonce = id::nonce();
                let path = Path::Role(&member.name).to_string();
                ops.push(set(&path, &record, member.stat.version)?);
            }
        }
        let name = roles.iter().map(|role| role.name.as_str()).collect::<Vec<_>>().join(", ");
        let dropped = self.commit(ops, proof, ObjectKind::Role, &name).await;
        self.reload_roles().await.or_else(stale_is_fine)?;
        dropped
    }

    /// The step that fails unless there is still the superuser who can log in that is found now, apart
    /// from some roles. [`Error::LastSuperuser`] names `role` if there is none.
    async fn another_superuser(&self, apart_from: &[&str], role: &str) -> Result<Op> {
        self.coordination.sync().await?;
        self.reload_roles().await?;
        let (snapshot, now) = (self.snapshot(), Utc::now());
        let another = (snapshot.roles.values())
            .find(|role| {
                !apart_from.contains(&role.name.as_str())
                    && self.lets_superuser_in(&role.name, &role.record, now)
            })
            .ok_or_else(|| Error::LastSuperuser { role: role.to_owned() })?;
        let path = Path::Role(&another.name).to_string();
        Ok(Op::Check { path, version: Some(another.stat.version) })
    }

    /// The steps that go with whatever gives a role something: see the module's text.
    pub async fn touch_role(&self, name: &str) -> Result<Vec<Op>> {
        if name == PUBLIC_ROLE || is_predefined(name) {
            return Ok(Vec::new());
        }
        let role = self.role(name, Consistency::Strong).await?;
        role.being().changed(&role.record)
    }

    async fn refresh_role(&self, name: &str) -> Result<()> {
        self.refresh(&CatalogName::Role(name.to_owned())).await.or_else(stale_is_fine)
    }
}

impl Catalog {
    /// Whether somebody can log in with a role as a superuser.
    fn lets_superuser_in(&self, name: &str, record: &RoleRecord, now: DateTime<Utc>) -> bool {
        let valid = record.valid_until.is_none_or(|until| until > now);
        let is_let_in = |in_force: &Arc<InForce>| {
            let connections = &in_force.get().connections;
            // The next start gives it one.
            let to_come = name == FIRST_ROLE && connections.superuser_password_file.is_some();
            let snapshot = self.snapshot();
            // As the record has it, which may be about to be written.
            let is_member = |of: &str| {
                name == of || record.member_of.keys().any(|group| snapshot.is_member(group, of))
            };
            connections.rules.may_let_in(name, record.password.is_some() || to_come, is_member)
        };
        record.superuser && record.login && valid && self.entrance.get().is_none_or(is_let_in)
    }
}

impl RoleRecord {
    fn is_member(&self, group: &str) -> bool {
        self.member_of.contains_key(group)
    }
}

impl Snapshot {
    /// What keeps a role from being dropped, for people, after what is known already; `None` if
    /// nothing does.
    fn uses_of(&self, role: &str, mut uses: Vec<String>) -> Option<String> {
        const SHOWN: usize = 10;
        for (name, database) in &self.databases {
            let record = &database.record;
            let mut note = |owner: &str, granted: bool, what: String| match (owner == role, granted)
            {
                (true, _) => uses.push(format!("owner of {what}")),
                (false, true) => uses.push(format!("privileges for {what}")),
                (false, false) => {}
            };
            let granted = |grants: &Option<super::Grants>| {
                grants.as_ref().is_some_and(|grants| grants.names(role))
            };
            note(&record.owner, granted(&record.grants), format!("database {name}"));
            for (schema, content) in &database.schemas {
                if let Some((record, _)) = &content.node {
                    note(&record.owner, granted(&record.grants), format!("schema {name}.{schema}"));
                }
                for table in content.tables.values() {
                    let record = &table.record;
                    let columns = record.columns.iter().map(|column| &column.grants);
                    let mut grants = columns.chain([&record.grants]);
                    let mut policies = record.policies.values().flat_map(|policy| &policy.roles);
                    let named =
                        grants.any(|grants| grants.names(role)) || policies.any(|one| one == role);
                    note(&record.owner, named, format!("table {}", table.name));
                }
            }
        }
        let pools = self.pools.values();
        let named = pools.filter(|pool| pool.record.roles.iter().any(|name| name == role));
        uses.extend(named.map(|pool| format!("pool {}", pool.name)));
        let more = uses.len().saturating_sub(SHOWN);
        uses.truncate(SHOWN);
        let more = (more > 0).then(|| format!("and {more} more"));
        (!uses.is_empty()).then(|| uses.into_iter().chain(more).collect::<Vec<_>>().join(", "))
    }
}

impl Role {
    /// One of [`PREDEFINED_ROLES`]: nobody logs in as it.
    pub(super) fn predefined(name: &str, oid: u32) -> Self {
        let record = RoleRecord { oid, ..RoleRecord::default() };
        Self { name: name.to_owned(), record, stat: Default::default() }
    }
}

pub(super) fn check_role_name(name: &str) -> Result<()> {
    super::ddl::check_name(name)?;
    if name.is_empty() {
        return Err(Error::InvalidName("a role needs a name".to_owned()));
    }
    // These mean something else wherever a role is named.
    if matches!(name, PUBLIC_ROLE | "none" | "current_user" | "current_role" | "session_user") {
        return Err(Error::InvalidName(format!("role name \"{name}\" is reserved")));
    }
    if name.starts_with("pg_") && !is_predefined(name) {
        let text = format!("role name \"{name}\" is reserved: names that begin with \"pg_\" are");
        return Err(Error::InvalidName(text));
    }
    Ok(())
}

/// Makes the roles' root with the first role in one step, the first time only.
pub(super) async fn bootstrap(coordination: &dyn Coordination) -> Result<()> {
    let root = Path::Roles.to_string();
    if coordination.get(&root).await?.is_some() {
        return Ok(());
    }
    let record = RoleRecord {
        oid: FIRST_ROLE_OID,
        superuser: true,
        create_role: true,
        create_database: true,
        login: true,
        bypass_row_security: true,
        nonce: id::nonce(),
        ..RoleRecord::default()
    };
    let first = create(&Path::Role(FIRST_ROLE).to_string(), &record)?;
    let root_op = Op::Create { path: root.clone(), data: Bytes::new(), mode: Mode::Persistent };
    match coordination.transact(vec![root_op, first]).await {
        Ok(_) => Ok(()),
        // Another daemon was first, or our own reply was lost: what counts is that it is there.
        Err(error) => match coordination.get(&root).await? {
            Some(_) => Ok(()),
            None => Err(error.into()),
        },
    }
}
