//! CREATE, ALTER and DROP ROLE, and who is a member of whom.

use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};

use super::{GrantRoles, Password, RoleChange, RoleOptions, forbidden, invalid, warning};
use crate::catalog::{
    self, Consistency, Membership, ObjectKind, PUBLIC_ROLE, Role, RoleRecord, is_predefined,
};
use crate::password;
use crate::query::Notice;
use crate::query::life::Session;
use crate::query::{Error, Result};

impl Session {
    pub(super) async fn create_role(
        &mut self,
        name: &str,
        options: &RoleOptions,
        if_not_exists: bool,
    ) -> Result<Vec<Notice>> {
        self.require(|_, access| match access.may_create_roles() {
            true => Ok(()),
            false => Err(forbidden("permission denied to create role")),
        })
        .await?;
        self.may_set(options, "create").await?;
        let mut record = RoleRecord::default();
        for group in &options.member_of {
            self.may_give(group).await?;
            record.member_of.insert(group.clone(), Membership::default());
        }
        options.apply(&mut record)?;
        match self.catalog().create_role(name, record).await {
            Err(catalog::Error::AlreadyExists { .. }) if if_not_exists => {
                let text = format!("role \"{name}\" already exists, skipping");
                return Ok(vec![warning("42710", text)]);
            }
            created => created?,
        }
        for (members, admin) in [(&options.members, false), (&options.admins, true)] {
            for member in members {
                self.enter(member, name, admin).await?;
            }
        }
        Ok(Vec::new())
    }

    pub(super) async fn alter_role(
        &mut self,
        name: &str,
        change: &RoleChange,
    ) -> Result<Vec<Notice>> {
        let name = match name {
            "current_user" | "current_role" => self.user().to_owned(),
            "session_user" => self.entry().user.clone(),
            name => name.to_owned(),
        };
        let name = name.as_str();
        let role = self.catalog().role(name, Consistency::Cached).await?;
        // A role may change its own password and settings; all else is for those who make roles.
        let own = name == self.user()
            && match change {
                RoleChange::Options(options) => options.is_password_only(),
                RoleChange::Setting(_) => true,
                RoleChange::Rename(_) => false,
            };
        let renamed = matches!(change, RoleChange::Rename(_));
        // The session's settings and its entry tell its role by name.
        if renamed && name == self.entry().user {
            return Err(Error::Refused("session user cannot be renamed"));
        }
        if renamed && name == self.user() {
            return Err(Error::Refused("current user cannot be renamed"));
        }
        self.require(|_, access| match (role.record.superuser, own) {
            (true, false) if !access.is_superuser() => Err(forbidden(match renamed {
                true => "must be superuser to rename superusers",
                false => "must be superuser to alter superuser roles",
            })),
            (_, false) if renamed && !access.may_create_roles() => {
                Err(forbidden("permission denied to rename role"))
            }
            (_, false) if !access.may_create_roles() => Err(forbidden("permission denied")),
            _ => Ok(()),
        })
        .await?;
        let catalog = self.catalog();
        match change {
            RoleChange::Options(options) => {
                self.may_set(options, "alter").await?;
                catalog.alter_role(name, |record| options.apply(record)).await?;
            }
            RoleChange::Rename(new) => {
                catalog.rename_role(name, new).await?;
            }
            RoleChange::Setting(change) => {
                self.may_change(change)?;
                let settings = self.settings().clone();
                let alter = |record: &mut RoleRecord| {
                    change.apply(&mut record.settings, &settings);
                    Ok(())
                };
                self.catalog().alter_role(name, alter).await?;
            }
        }
        Ok(Vec::new())
    }

    pub(super) async fn drop_roles(
        &mut self,
        names: &[String],
        if_exists: bool,
    ) -> Result<Vec<Notice>> {
        let mut notices = Vec::new();
        let mut found = Vec::new();
        for name in names {
            if name == self.user() || *name == self.entry().user {
                return Err(Error::RoleInSession);
            }
            // That there is none is for the store to say.
            let role = match self.catalog().role(name, Consistency::Strong).await {
                Err(catalog::Error::NotFound { .. }) if if_exists => {
                    let text = format!("role \"{name}\" does not exist, skipping");
                    notices.push(warning("00000", text));
                    continue;
                }
                role => role?,
            };
            self.require(|_, access| match role.record.superuser {
                true if !access.is_superuser() => {
                    Err(forbidden("must be superuser to drop superusers"))
                }
                _ if !access.may_create_roles() => Err(forbidden("permission denied to drop role")),
                _ => Ok(()),
            })
            .await?;
            if !found.contains(name) {
                found.push(name.clone());
            }
        }
        let roles = self.catalog().roles_to_drop(&found).await?;
        let schedules = self.queries().schedules.all().await?;
        let owned = |role: &Role| {
            let owned = schedules.iter().filter(|(_, schedule)| schedule.is_of(role));
            owned.map(|(name, _)| format!("owner of schedule {name}")).collect()
        };
        self.catalog().drop_roles(&roles, owned).await?;
        Ok(notices)
    }

    pub(super) async fn grant_roles(&mut self, grant: &GrantRoles) -> Result<Vec<Notice>> {
        self.grants_itself(grant.granted_by.as_ref()).await?;
        let mut notices = Vec::new();
        for role in &grant.roles {
            self.may_give(role).await?;
            for member in self.members(grant).await? {
                let found = self.catalog().role(&member, Consistency::Strong).await?;
                let known = found.record.member_of.get(role);
                if known.is_some_and(|known| known.admin || !grant.admin) {
                    let text = format!("role \"{member}\" is already a member of role \"{role}\"");
                    notices.push(warning("42710", text));
                    continue;
                }
                self.enter(&member, role, grant.admin).await?;
            }
        }
        Ok(notices)
    }

    pub(super) async fn revoke_roles(&mut self, grant: &GrantRoles) -> Result<Vec<Notice>> {
        self.grants_itself(grant.granted_by.as_ref()).await?;
        let mut notices = Vec::new();
        for role in &grant.roles {
            self.may_give(role).await?;
            for member in self.members(grant).await? {
                let found = self.catalog().role(&member, Consistency::Strong).await?;
                if !found.record.member_of.contains_key(role) {
                    let text = format!("role \"{member}\" is not a member of role \"{role}\"");
                    notices.push(warning("01000", text));
                    continue;
                }
                let leave = |record: &mut RoleRecord| {
                    match (grant.admin, record.member_of.get_mut(role)) {
                        (true, Some(membership)) => membership.admin = false,
                        _ => drop(record.member_of.remove(role)),
                    }
                    Ok(())
                };
                self.catalog().alter_role(&member, leave).await?;
            }
        }
        Ok(notices)
    }

    async fn members(&self, grant: &GrantRoles) -> Result<Vec<String>> {
        let members = self.grantees(&grant.members).await?;
        match members.iter().any(|member| member == PUBLIC_ROLE) {
            true => Err(catalog::Error::NotFound {
                kind: ObjectKind::Role,
                name: PUBLIC_ROLE.to_owned(),
            }
            .into()),
            false => Ok(members),
        }
    }

    /// Makes a role a member of another; not in a circle.
    async fn enter(&self, member: &str, group: &str, admin: bool) -> Result<()> {
        self.catalog().role(group, Consistency::Cached).await?;
        let catalog = self.catalog();
        let join = |record: &mut RoleRecord| {
            if member == group || catalog.snapshot().is_member(group, member) {
                let text = format!("role \"{group}\" is a member of role \"{member}\"");
                return Err(catalog::Error::InvalidGrant(text));
            }
            record.member_of.entry(group.to_owned()).or_default().admin |= admin;
            Ok(())
        };
        Ok(catalog.alter_role(member, join).await?)
    }

    /// Whether the session's role may make others members of a role.
    async fn may_give(&self, role: &str) -> Result<()> {
        let record = self.catalog().role(role, Consistency::Cached).await?.record.clone();
        self.require(|snapshot, access| {
            match (access.may_give_membership(snapshot, role), record.superuser) {
                (true, _) => Ok(()),
                (false, true) => Err(forbidden("must be superuser to alter superusers")),
                (false, false) => {
                    Err(forbidden(format!("must have admin option on role \"{role}\"")))
                }
            }
        })
        .await?;
        // What these allow reaches beyond what one who makes roles has.
        self.require(|_, access| match is_predefined(role) && !access.is_superuser() {
            true => Err(forbidden(format!("must have admin option on role \"{role}\""))),
            false => Ok(()),
        })
        .await
    }

    /// Attributes that only a superuser may give or take.
    async fn may_set(&self, options: &RoleOptions, verb: &str) -> Result<()> {
        let attributes = [
            (options.superuser.is_some(), "superusers"),
            (options.bypass_row_security.is_some(), "bypassrls users"),
        ];
        for (given, what) in attributes {
            let superuser_only = given && (verb == "alter" || options.gives(what));
            self.require(|_, access| match superuser_only && !access.is_superuser() {
                true => Err(forbidden(format!("must be superuser to {verb} {what}"))),
                false => Ok(()),
            })
            .await?;
        }
        Ok(())
    }
}

impl RoleOptions {
    fn gives(&self, what: &str) -> bool {
        match what {
            "superusers" => self.superuser == Some(true),
            _ => self.bypass_row_security == Some(true),
        }
    }

    fn is_password_only(&self) -> bool {
        self.password.is_some()
            && self.superuser.is_none()
            && self.create_role.is_none()
            && self.create_database.is_none()
            && self.inherit.is_none()
            && self.login.is_none()
            && self.bypass_row_security.is_none()
            && self.connection_limit.is_none()
            && self.valid_until.is_none()
    }

    fn apply(&self, record: &mut RoleRecord) -> catalog::Result<()> {
        for (given, attribute) in [
            (self.superuser, &mut record.superuser),
            (self.create_role, &mut record.create_role),
            (self.create_database, &mut record.create_database),
            (self.inherit, &mut record.inherit),
            (self.login, &mut record.login),
            (self.bypass_row_security, &mut record.bypass_row_security),
        ] {
            *attribute = given.unwrap_or(*attribute);
        }
        if let Some(limit) = self.connection_limit {
            record.connection_limit = limit;
        }
        if let Some(until) = &self.valid_until {
            record.valid_until = timestamp(until)
                .map_err(|error| catalog::Error::InvalidGrant(error.to_string()))?;
        }
        match &self.password {
            None => {}
            Some(Password::None) => record.password = None,
            Some(Password::Text(text)) if text.is_empty() => record.password = None,
            Some(Password::Text(text)) => {
                let verifier = password::verifier(text);
                let refused = |error: password::Error| catalog::Error::Forbidden(error.to_string());
                record.password = Some(verifier.map_err(refused)?);
            }
        }
        Ok(())
    }
}

/// A timestamp as VALID UNTIL takes it; `None` for infinity.
fn timestamp(text: &str) -> Result<Option<DateTime<Utc>>> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("infinity") {
        return Ok(None);
    }
    let zoned = DateTime::parse_from_rfc3339(text)
        .or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%#z"))
        .map(|at| at.to_utc());
    let plain = || {
        let date =
            NaiveDate::parse_from_str(text, "%Y-%m-%d").map(|day| day.and_time(Default::default()));
        date.or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S"))
            .or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M"))
            .map(|at| at.and_utc())
    };
    zoned.or_else(|_| plain()).map(Some).map_err(|_| {
        invalid(format!("invalid input syntax for type timestamp with time zone: \"{text}\""))
    })
}
