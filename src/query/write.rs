//! INSERT, UPDATE, DELETE, MERGE and TRUNCATE: recognised, planned as queries, carried out on managed
//! tables.
//!
//! What is written becomes part of the table by one commit, at the statement's end or at that of
//! its transaction block.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef, Schema};
use datafusion::common::ScalarValue;
use futures::future::BoxFuture;
use iceberg::spec::Operation;
use sqlparser::ast::{Expr, Ident, ObjectName, SelectItem, SetExpr, Statement, Truncate, With};

use super::command::writes;
use super::ddl::{ident, shown};
use super::life::Session;
use super::running::Registered;
use super::{Error, Result, TransactionState};
use crate::catalog::{self, Definition, ObjectKind, Privilege, Table};
use crate::engine::{self, Plan, Ready, Target, Written, parse_expressions, parse_types};
use crate::storage::managed::{Change, NewFiles, Overwritten, Removed, snapshots};
use crate::values::types::written_type;

/// How often a statement is planned again whose tables do not belong together.
const MAX_PLANS: usize = 20;

/// A statement that writes, planned.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub statement: Arc<Statement>,
    pub action: Action,
    /// The table that rows go to; TRUNCATE may have several.
    pub targets: Vec<Target>,
    /// The rows; TRUNCATE has none.
    pub plan: Option<Arc<Plan>>,
    /// What INSERT OVERWRITE takes away.
    pub overwritten: Overwritten,
}

/// One target, the plan of the rows, and what they take the place of.
pub(super) type Planned = (Target, Plan, Overwritten);

impl Write {
    /// The columns that RETURNING gives.
    pub fn returned(&self) -> Option<Schema> {
        self.plan.as_ref()?.returned()
    }

    /// What EXPLAIN shows of it.
    pub fn explained(&self) -> Result<Plan> {
        let (Some(plan), [target]) = (&self.plan, self.targets.as_slice()) else {
            return Err(Error::NotSupported(format!("EXPLAIN of {}", self.action.name())));
        };
        let command = match self.action {
            Action::Insert => "Insert",
            Action::Overwrite => "Insert Overwrite",
            Action::Update => "Update",
            Action::Delete => "Delete",
            Action::Merge => "Merge",
            Action::Truncate => "Truncate",
        };
        Ok(plan.explained(format!("{command} on {}", target.table.name.table))?)
    }
}

/// A statement that has written.
pub(super) struct Wrote {
    pub tag: Cow<'static, str>,
    /// What RETURNING asked for.
    pub returned: Option<Ready>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Insert,
    /// INSERT OVERWRITE: in place of other rows.
    Overwrite,
    Update,
    Delete,
    Merge,
    Truncate,
}

/// What a statement needs beside the right to read what it looks at: a privilege on some columns, or
/// on the table.
pub(super) type Needs = Vec<(Privilege, Option<Vec<String>>)>;

impl Action {
    /// Of a statement that writes; `None` for any other.
    pub fn of(statement: &Statement) -> Option<Self> {
        Some(match parts(statement).1 {
            Statement::Insert(insert) if insert.overwrite => Self::Overwrite,
            Statement::Insert(_) => Self::Insert,
            Statement::Update(_) => Self::Update,
            Statement::Delete(_) => Self::Delete,
            Statement::Merge(_) => Self::Merge,
            Statement::Truncate(_) => Self::Truncate,
            _ => return None,
        })
    }

    /// The command's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Insert | Self::Overwrite => "INSERT",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Merge => "MERGE",
            Self::Truncate => "TRUNCATE",
        }
    }

    /// The tag of a command that has changed so many rows.
    fn tag(self, rows: u64) -> Cow<'static, str> {
        match self {
            Self::Insert | Self::Overwrite => format!("INSERT 0 {rows}").into(),
            Self::Truncate => "TRUNCATE TABLE".into(),
            _ => format!("{} {rows}", self.name()).into(),
        }
    }

    /// What it takes, as far as the statement's text does not say more.
    pub fn privileges(self) -> &'static [Privilege] {
        match self {
            Self::Insert => &[Privilege::Insert],
            Self::Overwrite => &[Privilege::Insert, Privilege::Delete],
            Self::Update => &[Privilege::Update],
            Self::Delete => &[Privilege::Delete],
            Self::Merge => &[],
            Self::Truncate => &[Privilege::Truncate],
        }
    }
}

/// Whether a statement that writes has a RETURNING.
pub(super) fn returns_rows(statement: &Statement) -> bool {
    match parts(statement).1 {
        Statement::Insert(insert) => insert.returning.is_some(),
        Statement::Update(update) => update.returning.is_some(),
        Statement::Delete(delete) => delete.returning.is_some(),
        Statement::Merge(merge) => merge.output.is_some(),
        _ => false,
    }
}

/// A statement, and the WITH in front of it.
pub(super) fn parts(statement: &Statement) -> (Option<&With>, &Statement) {
    let Statement::Query(query) = statement else { return (None, statement) };
    match query.body.as_ref() {
        SetExpr::Insert(inner)
        | SetExpr::Update(inner)
        | SetExpr::Delete(inner)
        | SetExpr::Merge(inner) => (query.with.as_ref(), inner),
        _ => (None, statement),
    }
}

impl Session {
    /// Plans a statement that writes.
    pub(super) fn plan_write<'a>(
        &'a self,
        statement: &'a Statement,
        declared: &'a [Option<FieldRef>],
    ) -> BoxFuture<'a, Result<Write>> {
        Box::pin(async move {
            let mut left = MAX_PLANS;
            loop {
                match self.plan_any(statement, declared).await {
                    // Its target was looked up before others have committed to it and to what it reads.
                    Err(error) if error.is_conflict() && left > 0 => left -= 1,
                    planned => return planned,
                }
            }
        })
    }

    async fn plan_any(
        &self,
        statement: &Statement,
        declared: &[Option<FieldRef>],
    ) -> Result<Write> {
        let action = Action::of(statement).unwrap_or(Action::Insert);
        let (with, inner) = parts(statement);
        let planned = match inner {
            Statement::Insert(insert) => self.plan_insert(with, insert, declared).await?,
            Statement::Update(update) => self.plan_update(with, update, declared).await?,
            Statement::Delete(delete) => self.plan_delete(with, delete, declared).await?,
            Statement::Merge(merge) => self.plan_merge(with, merge, declared).await?,
            Statement::Truncate(truncate) => {
                let (statement, plan) = (Arc::new(statement.clone()), None);
                let (targets, overwritten) = (self.truncated(truncate).await?, Overwritten::All);
                return Ok(Write { statement, action, targets, plan, overwritten });
            }
            other => return Err(Error::NotSupported(other.to_string())),
        };
        let (target, plan, overwritten) = planned;
        self.may_see(&target, action, &plan).await?;
        let (statement, plan) = (Arc::new(statement.clone()), Some(Arc::new(plan)));
        Ok(Write { statement, action, targets: vec![target], plan, overwritten })
    }

    /// Carries out a statement that writes.
    pub(super) fn write<'a>(
        &'a mut self,
        registered: &'a Registered,
        write: &'a Write,
        values: Vec<ScalarValue>,
    ) -> BoxFuture<'a, Result<Wrote>> {
        Box::pin(self.write_any(registered, write, values))
    }

    async fn write_any(
        &mut self,
        registered: &Registered,
        write: &Write,
        values: Vec<ScalarValue>,
    ) -> Result<Wrote> {
        let (Some(plan), [target]) = (&write.plan, write.targets.as_slice()) else {
            let in_block = self.transaction.state() == TransactionState::InBlock;
            let all = |target: &Target| {
                let (removed, added) = (Removed::All, NewFiles::default());
                let operation = Operation::Delete;
                let change = match in_block {
                    // Rows that others add before the block ends were never looked at.
                    true => Change::Merge {
                        seen: snapshots(&target.metadata),
                        removed,
                        added,
                        operation,
                    },
                    false => Change::Replace { removed, added, operation },
                };
                (target.clone(), change)
            };
            let tag = write.action.tag(0);
            self.keep(registered, write.targets.iter().map(all).collect(), &tag).await?;
            return Ok(Wrote { tag, returned: None });
        };
        let engine = self.engine_session();
        let written = async {
            let ready = engine.prepare(plan, values).await?;
            match write.action {
                Action::Insert => engine.insert(target, ready).await,
                Action::Overwrite => engine.overwrite(target, ready, &write.overwritten).await,
                action => engine.change(target, ready, action == Action::Merge).await,
            }
        };
        let Written { rows, change, returned } = registered.until_stopped(written).await??;
        let changes = change.map(|change| (target.clone(), change));
        // From here on the rows that go back are all there: only the commit can fail.
        let returned = match plan.returned() {
            Some(schema) => Some(engine.answer(returned, &schema)?),
            None => None,
        };
        let tag = write.action.tag(rows);
        self.keep(registered, changes.into_iter().collect(), &tag).await?;
        Ok(Wrote { tag, returned })
    }

    /// A table that a statement is to change, if the role may.
    pub(super) async fn writable(
        &self,
        name: &ObjectName,
        action: Action,
        needs: impl Fn(&Target) -> Result<Needs>,
    ) -> Result<Target> {
        let parts: Vec<String> =
            name.0.iter().filter_map(|part| part.as_ident()).map(ident).collect();
        if let [.., table] = parts.as_slice() {
            let schema = parts.iter().rev().nth(1).map(String::as_str);
            if self.engine_session().is_system_table(schema, table) {
                let reason = format!("permission denied: \"{table}\" is a system catalog");
                return Err(catalog::Error::Forbidden(reason).into());
            }
        }
        let full = self.existing(name).await?;
        let consistency = self.settings().consistency();
        let table = match self.staged(&full) {
            Some(table) => table,
            None => match self.catalog().table(&full, consistency).await {
                Err(catalog::Error::NotFound { kind, .. }) => {
                    let name = shown(name);
                    return Err(catalog::Error::NotFound { kind, name }.into());
                }
                table => table?,
            },
        };
        let target = match &table.record.definition {
            Definition::Managed(_) => self.engine_session().target(table.clone()).await?,
            definition => {
                let needs = action.privileges().iter().map(|privilege| (*privilege, None));
                self.may_write(&table, action, &needs.collect()).await?;
                return Err(match definition {
                    Definition::View { .. } => {
                        Error::NotSupported(format!("{} on a view", action.name()))
                    }
                    _ => writes(action.name()),
                });
            }
        };
        match needs(&target) {
            Ok(needs) => self.may_write(&table, action, &needs).await?,
            Err(error) => {
                self.may_write(&table, action, &Needs::new()).await?;
                return Err(error);
            }
        }
        Ok(target)
    }

    /// Whether the role may read what a statement looks at of its target.
    async fn may_see(&self, target: &Target, action: Action, plan: &Plan) -> Result<()> {
        if plan.reads.is_empty() {
            return Ok(());
        }
        let columns = plan.reads.iter().cloned().collect();
        self.may_write(&target.table, action, &vec![(Privilege::Select, Some(columns))]).await
    }

    async fn may_write(&self, table: &Table, action: Action, needs: &Needs) -> Result<()> {
        self.require(|snapshot, access| {
            let name = &table.name;
            let denied = |kind, name: &str| catalog::Error::Denied { kind, name: name.to_owned() };
            if access.is_superuser() {
                return Ok(());
            }
            let database = snapshot.databases.get(&name.database);
            let schema = database.and_then(|d| Some((d, d.schemas.get(&name.schema)?)));
            let in_schema = schema.is_some_and(|(d, s)| access.schema(d, s, Privilege::Usage));
            let elsewhere = name.database != self.database();
            if elsewhere && !database.is_some_and(|d| access.database(d, Privilege::Connect)) {
                return Err(denied(ObjectKind::Database, &name.database));
            }
            if !in_schema {
                return Err(denied(ObjectKind::Schema, &name.schema));
            }
            // Their own rights are looked at again where the store has the newest.
            let table = snapshot.table(name).map_or(table, AsRef::as_ref);
            let allowed = |(privilege, columns): &(Privilege, Option<Vec<String>>)| match columns {
                Some(columns) => {
                    columns.iter().all(|column| access.column(table, column, *privilege))
                }
                None => access.table(table, *privilege),
            };
            if !needs.iter().all(allowed) {
                return Err(denied(ObjectKind::Table, &name.table));
            }
            match access.row_policies(table) {
                Some(_) if self.settings().get("row_security") == Some("off") => {
                    Err(catalog::Error::Forbidden(format!(
                        "query would be affected by row-level security policy for table \"{}\"",
                        name.table
                    )))
                }
                // Rows that it must not see would go as well, or be met.
                Some(_) if matches!(action, Action::Overwrite | Action::Merge) => {
                    Err(catalog::Error::Forbidden(format!(
                        "permission denied for table {}: only roles above its row-level policies \
                         may {} it",
                        name.table,
                        if action == Action::Merge { "MERGE into" } else { "overwrite" },
                    )))
                }
                _ => Ok(()),
            }
        })
        .await
    }

    async fn truncated(&self, truncate: &Truncate) -> Result<Vec<Target>> {
        let mut targets: Vec<Target> = Vec::new();
        for name in &truncate.table_names {
            let target = self
                .writable(&name.name, Action::Truncate, |_| Ok(vec![(Privilege::Truncate, None)]))
                .await?;
            if !targets.iter().any(|known| known.table.record.oid == target.table.record.oid) {
                targets.push(target);
            }
        }
        Ok(targets)
    }
}

pub(super) fn is_default(value: &Expr) -> bool {
    matches!(value, Expr::Identifier(Ident { value, quote_style: None, .. })
        if value.eq_ignore_ascii_case("default"))
}

/// A column's default as SQL.
pub(super) fn default_of(target: &Target, at: usize) -> Result<String> {
    let column = target.table.record.columns.get(at);
    Ok(column.and_then(|column| column.default.clone()).unwrap_or_else(|| "NULL".to_owned()))
}

/// A value as one of a column's type, where that has a name in SQL.
pub(super) fn cast(value: Expr, field: &Field) -> Result<Expr> {
    let Ok(data_type) = sql_type(field) else { return Ok(value) };
    let text = format!("CAST(NULL AS {data_type})");
    let Some(Expr::Cast { kind, data_type, array, format, .. }) = parse_expressions(&text)?.pop()
    else {
        return Ok(value);
    };
    Ok(Expr::Cast { kind, expr: Box::new(value), data_type, array, format })
}

/// A column's type as SQL has it.
pub(super) fn sql_type(field: &Field) -> Result<sqlparser::ast::DataType> {
    let unnamed =
        || Error::NotSupported(format!("a value for columns of type {}", field.data_type()));
    let written = written_type(field).ok_or_else(unnamed)?;
    parse_types(&written)?.pop().ok_or_else(unnamed)
}

/// What RETURNING asks for, as it stands behind a SELECT.
pub(super) fn list_of(items: &[SelectItem]) -> String {
    let items: Vec<String> = items.iter().map(SelectItem::to_string).collect();
    items.join(", ")
}

pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl From<crate::storage::Error> for Error {
    fn from(error: crate::storage::Error) -> Self {
        Self::Engine(engine::Error::Storage(error))
    }
}
