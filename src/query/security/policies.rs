//! Row-level security: CREATE, ALTER and DROP POLICY, and whether a table's policies count.

use sqlparser::ast::ObjectName;

use super::{PolicyChange, RowSecurityChange, warning};
use crate::catalog::{
    self, Consistency, ObjectKind, PUBLIC_ROLE, Policy, PolicyCommand, TableName, TableRecord,
};
use crate::query::Notice;
use crate::query::life::Session;
use crate::query::{Error, Result};

impl Session {
    pub(super) async fn row_security(
        &mut self,
        table: &ObjectName,
        change: RowSecurityChange,
    ) -> Result<Vec<Notice>> {
        let name = self.own_table(table).await?;
        let set = |record: &mut TableRecord| {
            record.row_security = change.apply(record.row_security);
            Ok(())
        };
        self.catalog().alter_table(&name, &[], set).await?;
        Ok(Vec::new())
    }

    pub(super) async fn create_policy(
        &mut self,
        name: &str,
        table: &ObjectName,
        (permissive, command): (bool, PolicyCommand),
        change: &PolicyChange,
    ) -> Result<Vec<Notice>> {
        let table = self.own_table(table).await?;
        let error = match (command, &change.using, &change.check) {
            (PolicyCommand::Insert, Some(_), _) => "only WITH CHECK expression allowed for INSERT",
            (PolicyCommand::Select | PolicyCommand::Delete, _, Some(_)) => {
                "WITH CHECK cannot be applied to SELECT or DELETE"
            }
            _ => "",
        };
        if !error.is_empty() {
            return Err(Error::Invalid(error.to_owned()));
        }
        self.check_conditions(&table, change).await?;
        let roles = match &change.roles {
            Some(roles) => self.grantees(roles).await?,
            None => vec![PUBLIC_ROLE.to_owned()],
        };
        let policy = Policy {
            permissive,
            command,
            roles: roles.clone(),
            using: change.using.clone(),
            check: change.check.clone(),
            search_path: self.search_path(),
        };
        let add = |record: &mut TableRecord| match record.policies.contains_key(name) {
            true => {
                let name = format!("{name}\" for table \"{}", table.table);
                Err(catalog::Error::AlreadyExists { kind: ObjectKind::Policy, name })
            }
            false => {
                record.policies.insert(name.to_owned(), policy);
                Ok(())
            }
        };
        let beneficiaries: Vec<&str> = roles.iter().map(String::as_str).collect();
        self.catalog().alter_table(&table, &beneficiaries, add).await?;
        Ok(Vec::new())
    }

    pub(super) async fn alter_policy(
        &mut self,
        name: &str,
        table: &ObjectName,
        change: &PolicyChange,
    ) -> Result<Vec<Notice>> {
        let table = self.own_table(table).await?;
        self.check_conditions(&table, change).await?;
        let roles = match &change.roles {
            Some(roles) => Some(self.grantees(roles).await?),
            None => None,
        };
        let path = self.search_path();
        let alter = |record: &mut TableRecord| {
            let policy = record.policies.get_mut(name).ok_or_else(|| missing(name, &table))?;
            policy.search_path = path;
            if let Some(roles) = &roles {
                policy.roles.clone_from(roles);
            }
            if change.using.is_some() {
                policy.using.clone_from(&change.using);
            }
            if change.check.is_some() {
                policy.check.clone_from(&change.check);
            }
            Ok(())
        };
        let beneficiaries: Vec<&str> = roles.iter().flatten().map(String::as_str).collect();
        self.catalog().alter_table(&table, &beneficiaries, alter).await?;
        Ok(Vec::new())
    }

    pub(super) async fn rename_policy(
        &mut self,
        name: &str,
        table: &ObjectName,
        new: &str,
    ) -> Result<Vec<Notice>> {
        let table = self.own_table(table).await?;
        let rename = |record: &mut TableRecord| {
            let policy = record.policies.remove(name).ok_or_else(|| missing(name, &table))?;
            if record.policies.contains_key(new) {
                let name = format!("{new}\" for table \"{}", table.table);
                return Err(catalog::Error::AlreadyExists { kind: ObjectKind::Policy, name });
            }
            record.policies.insert(new.to_owned(), policy);
            Ok(())
        };
        self.catalog().alter_table(&table, &[], rename).await?;
        Ok(Vec::new())
    }

    pub(super) async fn drop_policy(
        &mut self,
        name: &str,
        table: &ObjectName,
        if_exists: bool,
    ) -> Result<Vec<Notice>> {
        let table = self.own_table(table).await?;
        let remove = |record: &mut TableRecord| {
            record.policies.remove(name).map(drop).ok_or_else(|| missing(name, &table))
        };
        match self.catalog().alter_table(&table, &[], remove).await {
            Err(catalog::Error::NotFound { kind: ObjectKind::Policy, name }) if if_exists => {
                let text = format!("policy \"{name}\" does not exist, skipping");
                Ok(vec![warning("00000", text)])
            }
            done => Ok(done.map(|()| Vec::new())?),
        }
    }

    /// Conditions that do not fit the table are refused now, not when somebody reads it.
    async fn check_conditions(&mut self, table: &TableName, change: &PolicyChange) -> Result<()> {
        for condition in change.using.iter().chain(&change.check) {
            let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
            let TableName { database, schema, table } = table;
            let (database, schema, table) = (quote(database), quote(schema), quote(table));
            let sql = format!("SELECT 1 FROM {database}.{schema}.{table} WHERE ({condition})");
            let plan = self.plan_text(&sql).await?;
            if !plan.parameters.is_empty() {
                return Err(Error::Invalid("there is no parameter $1 in a policy".to_owned()));
            }
        }
        Ok(())
    }

    /// The full name of a table of the session's role.
    async fn own_table(&self, table: &ObjectName) -> Result<TableName> {
        let name = self.existing(table).await?;
        let table = self.catalog().table(&name, Consistency::Strong).await?;
        if table.record.is_view() {
            let name = name.table;
            return Err(catalog::Error::WrongKind { name, expected: "table" }.into());
        }
        self.must_own(&table.record.owner, ObjectKind::Table, &name.table).await?;
        Ok(name)
    }
}

fn missing(name: &str, table: &TableName) -> catalog::Error {
    let name = format!("{name}\" for table \"{}", table.table);
    catalog::Error::NotFound { kind: ObjectKind::Policy, name }
}
