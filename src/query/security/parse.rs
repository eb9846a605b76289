//! The statements about roles and privileges, read from their text: PostgreSQL's grammar, of which
//! the SQL parser knows parts only.

use sqlparser::ast::{Ident, ObjectName};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::{
    Grant, GrantRoles, Grantee, Item, Objects, Owned, Password, PolicyChange, RoleChange,
    RoleOptions, Security, SettingChange, SystemChange,
};
use crate::catalog::{PolicyCommand, Privilege, RowSecurity};
use crate::query::{Error, Result};

/// Reads a statement about roles or privileges; `None` if it is another one.
pub fn parse(text: &str) -> Result<Option<Security>> {
    // Most statements are others: their first word tells, without a look at the rest.
    const FIRST: &[&str] = &["create", "alter", "drop", "grant", "revoke", "reassign"];
    let word: String = text.trim_start().chars().take_while(char::is_ascii_alphabetic).collect();
    let commented = text.trim_start().starts_with(['-', '/']);
    if !commented && !FIRST.iter().any(|first| word.eq_ignore_ascii_case(first)) {
        return Ok(None);
    }
    let dialect = PostgreSqlDialect {};
    let Ok(parser) = Parser::new(&dialect).try_with_sql(text) else { return Ok(None) };
    let mut words = Words { parser };
    let Some(security) = words.statement()? else { return Ok(None) };
    words.end()?;
    Ok(Some(security))
}

/// A statement, word by word.
pub(super) struct Words<'a> {
    parser: Parser<'a>,
}

impl Words<'_> {
    fn statement(&mut self) -> Result<Option<Security>> {
        Ok(Some(if self.take("create") {
            match () {
                () if self.role_kind() => self.create_role()?,
                () if self.take("policy") => self.create_policy()?,
                () if self.take("pool") => self.create_pool()?,
                () => return Ok(None),
            }
        } else if self.take("alter") {
            return self.alter();
        } else if self.take("drop") {
            match () {
                () if self.role_kind() => {
                    let if_exists = self.take_all(&["if", "exists"]);
                    Security::DropRoles { names: self.list(Self::name)?, if_exists }
                }
                () if self.take("policy") => {
                    let if_exists = self.take_all(&["if", "exists"]);
                    let name = self.name()?;
                    self.need("on")?;
                    let table = self.object()?;
                    // Nothing depends on a policy.
                    self.cascade();
                    Security::DropPolicy { name, table, if_exists }
                }
                () if self.take("pool") => self.drop_pools()?,
                () if self.take("owned") => {
                    self.need("by")?;
                    let roles = self.list(Self::name)?;
                    // What the roles own stays in either case, which is said.
                    self.cascade();
                    Security::DropOwned { roles }
                }
                () => return Ok(None),
            }
        } else if self.take("grant") {
            self.grant()?
        } else if self.take("revoke") {
            self.revoke()?
        } else if self.take("reassign") {
            self.need("owned")?;
            self.need("by")?;
            let roles = self.list(Self::name)?;
            self.need("to")?;
            Security::ReassignOwned { roles, to: self.name()? }
        } else {
            return Ok(None);
        }))
    }

    fn alter(&mut self) -> Result<Option<Security>> {
        if self.role_kind() {
            return self.alter_role().map(Some);
        }
        if self.take("policy") {
            return self.alter_policy().map(Some);
        }
        if self.take("pool") {
            return self.alter_pool().map(Some);
        }
        if self.take("system") {
            let change = match self.take_all(&["rollback", "to", "version"]) {
                true => Some(SystemChange::Rollback(self.version()?)),
                false => self.setting_change()?.map(SystemChange::Setting),
            };
            let unexpected = |words: &mut Self| {
                let token = words.parser.next_token().token;
                words.unexpected(&token)
            };
            return match change {
                Some(change) => Ok(Some(Security::AlterSystem(change))),
                None => Err(unexpected(self)),
            };
        }
        let owned = match () {
            () if self.take("database") => Owned::Database,
            () if self.take("schema") => Owned::Schema,
            () if self.take("table") => Owned::Table,
            () if self.take("view") => Owned::View,
            () => return Ok(None),
        };
        let if_exists = self.take_all(&["if", "exists"]);
        self.take("only");
        let Ok(name) = self.parser.parse_object_name(false) else { return Ok(None) };
        if owned == Owned::Database
            && let Some(change) = self.setting_change()?
        {
            let name = crate::query::ddl::single(&name)?;
            return Ok(Some(Security::AlterDatabase { name, change }));
        }
        if self.take_all(&["owner", "to"]) {
            let new = self.name()?;
            return Ok(Some(Security::Owner { kind: owned, name, new, if_exists }));
        }
        let row_security = match () {
            () if owned != Owned::Table => return Ok(None),
            () if self.take_all(&["enable", "row", "level", "security"]) => {
                RowSecurityChange::Enable
            }
            () if self.take_all(&["disable", "row", "level", "security"]) => {
                RowSecurityChange::Disable
            }
            () if self.take_all(&["force", "row", "level", "security"]) => RowSecurityChange::Force,
            () if self.take_all(&["no", "force", "row", "level", "security"]) => {
                RowSecurityChange::NoForce
            }
            () => return Ok(None),
        };
        Ok(Some(Security::RowLevel { table: name, change: row_security }))
    }

    fn create_role(&mut self) -> Result<Security> {
        let login = self.last_was("user");
        let if_not_exists = self.take_all(&["if", "not", "exists"]);
        let name = self.name()?;
        let mut options = RoleOptions { login: login.then_some(true), ..RoleOptions::default() };
        self.role_options(&mut options, true)?;
        Ok(Security::CreateRole { name, options: Box::new(options), if_not_exists })
    }

    fn alter_role(&mut self) -> Result<Security> {
        if self.take("all") {
            return Err(Error::NotSupported("ALTER ROLE ALL".to_owned()));
        }
        let name = self.name()?;
        let change = if self.take_all(&["rename", "to"]) {
            RoleChange::Rename(self.name()?)
        } else if let Some(change) = self.setting_change()? {
            RoleChange::Setting(change)
        } else if self.take_all(&["in", "database"]) {
            return Err(Error::NotSupported("ALTER ROLE ... IN DATABASE".to_owned()));
        } else {
            let mut options = RoleOptions::default();
            self.role_options(&mut options, false)?;
            RoleChange::Options(Box::new(options))
        };
        Ok(Security::AlterRole { name, change })
    }

    fn role_options(&mut self, options: &mut RoleOptions, create: bool) -> Result<()> {
        self.take("with");
        loop {
            let Some(word) = self.word() else { return Ok(()) };
            let flag = |value: &mut Option<bool>| {
                *value = Some(!word.starts_with("no"));
            };
            match word.as_str() {
                "superuser" | "nosuperuser" => flag(&mut options.superuser),
                "createdb" | "nocreatedb" => flag(&mut options.create_database),
                "createrole" | "nocreaterole" => flag(&mut options.create_role),
                "inherit" | "noinherit" => flag(&mut options.inherit),
                "login" | "nologin" => flag(&mut options.login),
                "bypassrls" | "nobypassrls" => flag(&mut options.bypass_row_security),
                "replication" => {
                    return Err(Error::NotSupported("REPLICATION".to_owned()));
                }
                // Nothing is replicated by log-ins.
                "noreplication" => {}
                "connection" => {
                    self.need("limit")?;
                    options.connection_limit = Some(self.limit()?);
                }
                "encrypted" => {
                    self.need("password")?;
                    options.password = Some(self.password()?);
                }
                "unencrypted" => {
                    let text = "UNENCRYPTED PASSWORD is no longer supported";
                    return Err(Error::NotSupported(text.to_owned()));
                }
                "password" => options.password = Some(self.password()?),
                "valid" => {
                    self.need("until")?;
                    options.valid_until = Some(self.string()?);
                }
                "in" if create => {
                    if !self.take("role") {
                        self.need("group")?;
                    }
                    options.member_of.extend(self.list(Self::name)?);
                }
                "role" | "user" if create => options.members.extend(self.list(Self::name)?),
                "admin" if create => options.admins.extend(self.list(Self::name)?),
                "sysid" => drop(self.parser.next_token()),
                other => {
                    return Err(Error::Invalid(format!("unrecognized role option \"{other}\"")));
                }
            }
        }
    }

    fn password(&mut self) -> Result<Password> {
        match self.take("null") {
            true => Ok(Password::None),
            false => Ok(Password::Text(self.string()?)),
        }
    }

    /// A number of connections; negative for no limit.
    fn limit(&mut self) -> Result<Option<u32>> {
        let negative = self.parser.consume_token(&Token::Minus);
        match self.parser.next_token().token {
            Token::Number(number, _) => match number.parse() {
                Ok(limit) => Ok((!negative).then_some(limit)),
                Err(_) => Err(Error::Invalid(format!("invalid connection limit: {number}"))),
            },
            other => Err(self.unexpected(&other)),
        }
    }

    fn create_policy(&mut self) -> Result<Security> {
        let name = self.name()?;
        self.need("on")?;
        let table = self.object()?;
        let mut permissive = true;
        if self.take("as") {
            permissive = match self.word().as_deref() {
                Some("permissive") => true,
                Some("restrictive") => false,
                _ => {
                    let text = "a policy is PERMISSIVE or RESTRICTIVE".to_owned();
                    return Err(Error::Invalid(text));
                }
            };
        }
        let mut command = PolicyCommand::All;
        if self.take("for") {
            command = match self.word().as_deref() {
                Some("all") => PolicyCommand::All,
                Some("select") => PolicyCommand::Select,
                Some("insert") => PolicyCommand::Insert,
                Some("update") => PolicyCommand::Update,
                Some("delete") => PolicyCommand::Delete,
                _ => {
                    let text = "a policy is FOR ALL, SELECT, INSERT, UPDATE or DELETE".to_owned();
                    return Err(Error::Invalid(text));
                }
            };
        }
        let change = self.policy_change()?;
        Ok(Security::CreatePolicy { name, table, permissive, command, change })
    }

    fn alter_policy(&mut self) -> Result<Security> {
        let name = self.name()?;
        self.need("on")?;
        let table = self.object()?;
        if self.take_all(&["rename", "to"]) {
            let new = self.name()?;
            return Ok(Security::RenamePolicy { name, table, new });
        }
        let change = self.policy_change()?;
        Ok(Security::AlterPolicy { name, table, change })
    }

    fn policy_change(&mut self) -> Result<PolicyChange> {
        let mut change = PolicyChange::default();
        if self.take("to") {
            change.roles = Some(self.list(Self::grantee)?);
        }
        if self.take("using") {
            change.using = Some(self.condition()?);
        }
        if self.take_all(&["with", "check"]) {
            change.check = Some(self.condition()?);
        }
        Ok(change)
    }

    /// A condition in brackets.
    fn condition(&mut self) -> Result<String> {
        self.token(&Token::LParen)?;
        let condition = self.parser.parse_expr().map_err(syntax)?;
        self.token(&Token::RParen)?;
        Ok(condition.to_string())
    }

    fn grant(&mut self) -> Result<Security> {
        let items = self.items()?;
        if self.take("on") {
            let objects = self.objects()?;
            self.need("to")?;
            let grantees = self.list(Self::grantee)?;
            let option = self.take_all(&["with", "grant", "option"]);
            let granted_by = self.granted_by()?;
            let grant = Grant { items, objects, grantees, option, granted_by, cascade: false };
            return Ok(Security::Grant(grant));
        }
        self.need("to")?;
        let members = self.list(Self::grantee)?;
        let mut admin = self.take_all(&["with", "admin"]);
        if admin && !self.take("option") && !self.take("true") {
            self.need("false")?;
            admin = false;
        }
        let granted_by = self.granted_by()?;
        let roles = role_names(items)?;
        Ok(Security::GrantRoles(GrantRoles { roles, members, admin, granted_by }))
    }

    fn revoke(&mut self) -> Result<Security> {
        let option_only = self.take_all(&["grant", "option", "for"]);
        let admin_only = !option_only && self.take_all(&["admin", "option", "for"]);
        let items = self.items()?;
        if self.take("on") {
            let objects = self.objects()?;
            self.need("from")?;
            let grantees = self.list(Self::grantee)?;
            let granted_by = self.granted_by()?;
            let cascade = self.cascade();
            let grant =
                Grant { items, objects, grantees, option: option_only, granted_by, cascade };
            return Ok(Security::Revoke(grant));
        }
        self.need("from")?;
        let members = self.list(Self::grantee)?;
        let granted_by = self.granted_by()?;
        if self.cascade() {
            // Who made whom a member is not recorded.
            return Err(Error::NotSupported("REVOKE ... CASCADE of a membership".to_owned()));
        }
        let roles = role_names(items)?;
        Ok(Security::RevokeRoles(GrantRoles { roles, members, admin: admin_only, granted_by }))
    }

    /// Privileges with their columns, or names of roles: which of the two, the next word tells.
    fn items(&mut self) -> Result<Vec<Item>> {
        self.list(|words| {
            let name = words.parser.parse_identifier().map_err(syntax)?;
            if name.quote_style.is_none() && name.value.eq_ignore_ascii_case("all") {
                words.take("privileges");
            }
            let mut columns = Vec::new();
            if words.parser.consume_token(&Token::LParen) {
                columns = words.list(Self::name)?;
                words.parser.expect_token(&Token::RParen).map_err(syntax)?;
            }
            Ok(Item { name, columns })
        })
    }

    fn objects(&mut self) -> Result<Objects> {
        if self.take_all(&["all", "tables", "in", "schema"]) {
            return Ok(Objects::AllTables(self.list(Self::name)?));
        }
        for kind in ["sequences", "functions", "procedures", "routines"] {
            // There are none: a script that grants on all of them goes on.
            if self.take_all(&["all", kind, "in", "schema"]) {
                self.list(Self::name)?;
                return Ok(Objects::Nothing);
            }
        }
        if self.take("database") {
            return Ok(Objects::Databases(self.list(Self::name)?));
        }
        if self.take("schema") {
            return Ok(Objects::Schemas(self.list(Self::name)?));
        }
        for kind in ["function", "sequence", "language", "type", "domain", "tablespace"] {
            if self.take(kind) {
                return Err(Error::NotSupported(format!("GRANT ON {}", kind.to_uppercase())));
            }
        }
        self.take("table");
        Ok(Objects::Tables(self.list(Self::object)?))
    }

    fn granted_by(&mut self) -> Result<Option<Grantee>> {
        match self.take_all(&["granted", "by"]) {
            true => self.grantee().map(Some),
            false => Ok(None),
        }
    }

    /// Whether CASCADE is said, and not RESTRICT or nothing.
    pub(super) fn cascade(&mut self) -> bool {
        self.take("cascade") || {
            self.take("restrict");
            false
        }
    }

    pub(super) fn grantee(&mut self) -> Result<Grantee> {
        self.take("group");
        let name = self.parser.parse_identifier().map_err(syntax)?;
        let word = name.value.to_lowercase();
        Ok(match (name.quote_style, word.as_str()) {
            (None, "public") => Grantee::Public,
            (None, "current_user" | "current_role") => Grantee::CurrentUser,
            (None, "session_user") => Grantee::SessionUser,
            _ => Grantee::Role(fold(&name)),
        })
    }

    /// `name = value`, `name TO value`, `TIME ZONE value`; no value for DEFAULT.
    /// SET or RESET, if one comes next.
    fn setting_change(&mut self) -> Result<Option<SettingChange>> {
        if self.take("set") {
            let (setting, value) = self.setting()?;
            return Ok(Some(SettingChange::Set { setting, value }));
        }
        if self.take("reset") {
            let setting = self.setting_name()?;
            let all = setting.eq_ignore_ascii_case("all");
            return Ok(Some(SettingChange::Reset((!all).then_some(setting))));
        }
        Ok(None)
    }

    /// A version's number.
    fn version(&mut self) -> Result<u64> {
        self.parser.parse_literal_uint().map_err(syntax)
    }

    fn setting(&mut self) -> Result<(String, Option<String>)> {
        if self.take_all(&["time", "zone"]) {
            return Ok(("TimeZone".to_owned(), Some(self.setting_value()?)));
        }
        let name = self.setting_name()?;
        if !self.parser.consume_token(&Token::Eq) {
            self.need("to")?;
        }
        if self.take("default") {
            return Ok((name, None));
        }
        let values = self.list(Self::setting_value)?;
        Ok((name, Some(values.join(", "))))
    }

    fn setting_name(&mut self) -> Result<String> {
        let name = self.parser.parse_object_name(false).map_err(syntax)?;
        Ok(name.to_string().replace('"', "").to_lowercase())
    }

    pub(super) fn setting_value(&mut self) -> Result<String> {
        let minus = if self.parser.consume_token(&Token::Minus) { "-" } else { "" };
        match self.parser.next_token().token {
            Token::Number(number, _) => Ok(format!("{minus}{number}")),
            Token::SingleQuotedString(text) => Ok(text),
            Token::Word(word) if word.quote_style.is_some() => Ok(format!("\"{}\"", word.value)),
            Token::Word(word) => Ok(word.value),
            other => Err(self.unexpected(&other)),
        }
    }

    fn role_kind(&mut self) -> bool {
        self.take("role") || self.take("user") || self.take("group")
    }

    /// A role's, schema's, column's or policy's name, folded as PostgreSQL does.
    pub(super) fn name(&mut self) -> Result<String> {
        self.parser.parse_identifier().map(|name| fold(&name)).map_err(syntax)
    }

    fn object(&mut self) -> Result<ObjectName> {
        self.parser.parse_object_name(false).map_err(syntax)
    }

    fn string(&mut self) -> Result<String> {
        self.parser.parse_literal_string().map_err(syntax)
    }

    pub(super) fn list<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut list = vec![item(self)?];
        while self.parser.consume_token(&Token::Comma) {
            list.push(item(self)?);
        }
        Ok(list)
    }

    /// The next word in lower case, if it is an unquoted one.
    fn word(&mut self) -> Option<String> {
        let word = match &self.parser.peek_token_ref().token {
            Token::Word(word) if word.quote_style.is_none() => word.value.to_lowercase(),
            _ => return None,
        };
        self.parser.next_token();
        Some(word)
    }

    pub(super) fn take(&mut self, expected: &str) -> bool {
        let found = match &self.parser.peek_token_ref().token {
            Token::Word(word) => {
                word.quote_style.is_none() && word.value.eq_ignore_ascii_case(expected)
            }
            _ => false,
        };
        if found {
            self.parser.next_token();
        }
        found
    }

    /// All of these words, or none.
    pub(super) fn take_all(&mut self, expected: &[&str]) -> bool {
        let mut taken = 0;
        while taken < expected.len() && self.take(expected[taken]) {
            taken += 1;
        }
        if taken < expected.len() {
            (0..taken).for_each(|_| self.parser.prev_token());
        }
        taken == expected.len()
    }

    fn last_was(&mut self, expected: &str) -> bool {
        self.parser.prev_token();
        self.take(expected) || {
            self.parser.next_token();
            false
        }
    }

    fn need(&mut self, expected: &str) -> Result<()> {
        match self.take(expected) {
            true => Ok(()),
            false => {
                let found = self.parser.peek_token().token;
                Err(self.unexpected(&found))
            }
        }
    }

    pub(super) fn token(&mut self, expected: &Token) -> Result<()> {
        self.parser.expect_token(expected).map(drop).map_err(syntax)
    }

    fn end(&mut self) -> Result<()> {
        while self.parser.consume_token(&Token::SemiColon) {}
        match self.parser.peek_token().token {
            Token::EOF => Ok(()),
            other => Err(self.unexpected(&other)),
        }
    }

    fn unexpected(&self, token: &Token) -> Error {
        match token {
            Token::EOF => Error::Invalid("syntax error at end of input".to_owned()),
            other => Error::Invalid(format!("syntax error at or near \"{other}\"")),
        }
    }
}

/// What ALTER TABLE says about row-level security.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowSecurityChange {
    Enable,
    Disable,
    Force,
    NoForce,
}

impl RowSecurityChange {
    pub fn apply(self, now: Option<RowSecurity>) -> Option<RowSecurity> {
        match (self, now) {
            (Self::Enable, Some(now)) => Some(now),
            (Self::Enable, None) | (Self::NoForce, Some(_)) => Some(RowSecurity::Enabled),
            (Self::Force, _) => Some(RowSecurity::Forced),
            (Self::Disable, _) | (Self::NoForce, None) => None,
        }
    }
}

impl Item {
    /// The privilege it names; `None` for ALL.
    pub fn privilege(&self) -> Result<Option<Privilege>> {
        if self.name.value.eq_ignore_ascii_case("all") {
            return Ok(None);
        }
        let unknown =
            || Error::Invalid(format!("unrecognized privilege type \"{}\"", self.name.value));
        Privilege::parse(&self.name.value).map(Some).ok_or_else(unknown)
    }
}

fn role_names(items: Vec<Item>) -> Result<Vec<String>> {
    let name = |item: Item| match item.columns.is_empty() {
        true => Ok(fold(&item.name)),
        false => Err(Error::Invalid("column names cannot be given when roles are granted".into())),
    };
    items.into_iter().map(name).collect()
}

fn fold(name: &Ident) -> String {
    match name.quote_style {
        Some(_) => name.value.clone(),
        None => name.value.to_lowercase(),
    }
}

fn syntax(error: sqlparser::parser::ParserError) -> Error {
    Error::Engine(crate::engine::Error::Syntax(format!("syntax error: {error}")))
}
