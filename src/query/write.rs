//! INSERT, UPDATE, DELETE and TRUNCATE: recognised, planned as queries, carried out on managed
//! tables.
//!
//! What is written becomes part of the table by one commit, at the statement's end or at that of
//! its transaction block.

use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::sql::parser::Statement as EngineStatement;
use futures::future::BoxFuture;
use iceberg::spec::Operation;
use sqlparser::ast::{
    AssignmentTarget, Delete, Expr, FromTable, Ident, Insert, ObjectName, Query, SetExpr,
    Statement, TableFactor, TableObject, TableWithJoins, Truncate, Update, UpdateTableFromKind,
    Value, Values,
};

use super::command::writes;
use super::ddl::ident;
use super::life::Session;
use super::running::Registered;
use super::{Done, Error, Result};
use crate::catalog::{self, Definition, ObjectKind, Privilege, Table};
use crate::engine::{
    self, Plan, TARGET, Target, Written, parse_expressions, parse_one, parse_types,
};
use crate::storage::managed::{Change, FILE_COLUMN, NewFiles, ROW_COLUMN, Removed};
use crate::values::types::written_type;

/// A statement that writes, planned.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub statement: Arc<Statement>,
    pub action: Action,
    /// The table that rows go to; TRUNCATE may have several.
    pub targets: Vec<Target>,
    /// The rows; TRUNCATE has none.
    pub plan: Option<Arc<Plan>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Insert,
    /// INSERT OVERWRITE: in place of all rows.
    Overwrite,
    Update,
    Delete,
    Truncate,
}

impl Action {
    /// Of a statement that writes; `None` for any other.
    pub fn of(statement: &Statement) -> Option<Self> {
        Some(match statement {
            Statement::Insert(insert) if insert.overwrite => Self::Overwrite,
            Statement::Insert(_) => Self::Insert,
            Statement::Update(_) => Self::Update,
            Statement::Delete(_) => Self::Delete,
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
            Self::Truncate => "TRUNCATE",
        }
    }

    /// The tag of a command that has changed so many rows.
    fn tag(self, rows: u64) -> String {
        match self {
            Self::Insert | Self::Overwrite => format!("INSERT 0 {rows}"),
            Self::Update => format!("UPDATE {rows}"),
            Self::Delete => format!("DELETE {rows}"),
            Self::Truncate => "TRUNCATE TABLE".to_owned(),
        }
    }

    /// What it takes beside the right to read what it looks at.
    fn privileges(self) -> &'static [Privilege] {
        match self {
            Self::Insert => &[Privilege::Insert],
            Self::Overwrite => &[Privilege::Insert, Privilege::Delete],
            Self::Update => &[Privilege::Update],
            Self::Delete => &[Privilege::Delete],
            Self::Truncate => &[Privilege::Truncate],
        }
    }
}

impl Session {
    /// Plans a statement that writes.
    pub(super) fn plan_write<'a>(
        &'a self,
        statement: &'a Statement,
        declared: &'a [Option<FieldRef>],
    ) -> BoxFuture<'a, Result<Write>> {
        Box::pin(self.plan_any(statement, declared))
    }

    async fn plan_any(
        &self,
        statement: &Statement,
        declared: &[Option<FieldRef>],
    ) -> Result<Write> {
        let (targets, plan) = match statement {
            Statement::Insert(insert) => self.plan_insert(insert, declared).await?,
            Statement::Update(update) => self.plan_update(update, declared).await?,
            Statement::Delete(delete) => self.plan_delete(delete, declared).await?,
            Statement::Truncate(truncate) => (self.truncated(truncate).await?, None),
            other => return Err(Error::NotSupported(other.to_string())),
        };
        let action = Action::of(statement).unwrap_or(Action::Insert);
        let statement = Arc::new(statement.clone());
        Ok(Write { statement, action, targets, plan: plan.map(Arc::new) })
    }

    /// Carries out a statement that writes.
    pub(super) fn write<'a>(
        &'a mut self,
        registered: &'a Registered,
        write: &'a Write,
        values: Vec<ScalarValue>,
    ) -> BoxFuture<'a, Result<Done>> {
        Box::pin(self.write_any(registered, write, values))
    }

    async fn write_any(
        &mut self,
        registered: &Registered,
        write: &Write,
        values: Vec<ScalarValue>,
    ) -> Result<Done> {
        let (rows, changes) = match (&write.plan, write.targets.as_slice()) {
            (Some(plan), [target]) => {
                let written = async {
                    let ready = self.engine_session().prepare(plan, values).await?;
                    match write.action {
                        Action::Insert => self.engine_session().insert(target, ready).await,
                        Action::Overwrite => self.engine_session().overwrite(target, ready).await,
                        _ => self.engine_session().replace(target, ready).await,
                    }
                };
                let Written { rows, change } = registered.until_stopped(written).await??;
                (rows, change.map(|change| (target.clone(), change)).into_iter().collect())
            }
            (_, targets) => {
                let all = |target: &Target| {
                    let (removed, added) = (Removed::All, NewFiles::default());
                    let operation = Operation::Delete;
                    (target.clone(), Change::Replace { removed, added, operation })
                };
                (0, targets.iter().map(all).collect::<Vec<_>>())
            }
        };
        self.keep(changes).await?;
        Ok(Done { tag: write.action.tag(rows).into(), ..Done::default() })
    }

    /// A table that a statement is to change, if the role may.
    pub(super) async fn writable(&self, name: &ObjectName, action: Action) -> Result<Target> {
        let full = self.existing(name).await?;
        let consistency = self.settings().consistency();
        let table = match self.staged(&full) {
            Some(table) => table,
            None => match self.catalog().table(&full, consistency).await {
                Err(catalog::Error::NotFound { kind, .. }) => {
                    let name = name.to_string();
                    return Err(catalog::Error::NotFound { kind, name }.into());
                }
                table => table?,
            },
        };
        self.may_write(&table, action).await?;
        match &table.record.definition {
            Definition::Managed(_) => Ok(self.engine_session().target(table).await?),
            Definition::External(_) => Err(writes(action.name())),
            Definition::View { .. } => {
                Err(Error::NotSupported(format!("{} on a view", action.name())))
            }
        }
    }

    async fn may_write(&self, table: &Table, action: Action) -> Result<()> {
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
            let reads = matches!(action, Action::Update | Action::Delete);
            let reads = reads.then_some(Privilege::Select);
            let mut needed = action.privileges().iter().copied().chain(reads);
            if needed.any(|privilege| !access.table(table, privilege)) {
                return Err(denied(ObjectKind::Table, &name.table));
            }
            match access.row_policies(table) {
                None => Ok(()),
                Some(_) => Err(catalog::Error::Forbidden(format!(
                    "permission denied for table {}: only roles above its row-level policies may \
                     write to it",
                    name.table
                ))),
            }
        })
        .await
    }

    async fn plan_insert(
        &self,
        insert: &Insert,
        declared: &[Option<FieldRef>],
    ) -> Result<(Vec<Target>, Option<Plan>)> {
        let TableObject::TableName(name) = &insert.table else {
            return Err(Error::NotSupported("INSERT INTO something other than a table".to_owned()));
        };
        let action = if insert.overwrite { Action::Overwrite } else { Action::Insert };
        let target = self.writable(name, action).await?;
        for (given, what) in [
            (insert.on.is_some(), "ON CONFLICT (managed tables have no unique constraints)"),
            (insert.returning.is_some(), "INSERT with RETURNING"),
            (insert.partitioned.is_some(), "INSERT with PARTITION"),
            (insert.or.is_some() || insert.replace_into, "REPLACE INTO"),
            (!insert.assignments.is_empty(), "INSERT with SET"),
        ] {
            if given {
                return Err(Error::NotSupported(what.to_owned()));
            }
        }
        let mut columns = Vec::new();
        for column in &insert.columns {
            let column = super::ddl::single(column)?;
            let at = target.column(&column)?;
            if columns.contains(&at) {
                let (kind, name) = (ObjectKind::Column, column);
                return Err(Error::Twice { kind, name });
            }
            columns.push(at);
        }
        let mut query = match &insert.source {
            Some(source) => source.as_ref().clone(),
            // DEFAULT VALUES
            None => {
                columns = vec![0];
                let value = default_of(&target, 0)?;
                query_of(&format!("SELECT {value}"))?
            }
        };
        assign_values(&mut query, &target, &columns)?;
        let statement = EngineStatement::Statement(Box::new(Statement::Query(Box::new(query))));
        let plan =
            self.engine_session().plan_insert(&target, &columns, &statement, declared).await?;
        Ok((vec![target], Some(plan)))
    }

    async fn plan_delete(
        &self,
        delete: &Delete,
        declared: &[Option<FieldRef>],
    ) -> Result<(Vec<Target>, Option<Plan>)> {
        let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
        let (name, alias) = single_table(from)?;
        let target = self.writable(name, Action::Delete).await?;
        for (given, what) in [
            (delete.returning.is_some(), "DELETE with RETURNING"),
            (delete.limit.is_some(), "DELETE with LIMIT"),
            (!delete.order_by.is_empty(), "DELETE with ORDER BY"),
        ] {
            if given {
                return Err(Error::NotSupported(what.to_owned()));
            }
        }
        let find = find(&alias, &[], delete.using.as_deref(), delete.selection.as_ref());
        let plan = self.plan_found(&target, &find, declared).await?;
        Ok((vec![target], Some(plan)))
    }

    async fn plan_update(
        &self,
        update: &Update,
        declared: &[Option<FieldRef>],
    ) -> Result<(Vec<Target>, Option<Plan>)> {
        let (name, alias) = single_table(std::slice::from_ref(&update.table))?;
        let target = self.writable(name, Action::Update).await?;
        for (given, what) in [
            (update.returning.is_some(), "UPDATE with RETURNING"),
            (update.limit.is_some(), "UPDATE with LIMIT"),
            (!update.order_by.is_empty(), "UPDATE with ORDER BY"),
        ] {
            if given {
                return Err(Error::NotSupported(what.to_owned()));
            }
        }
        let mut values: Vec<Option<String>> = vec![None; target.schema.fields().len()];
        for assignment in &update.assignments {
            let pairs = match (&assignment.target, &assignment.value) {
                (AssignmentTarget::ColumnName(name), value) => vec![(name, value)],
                (AssignmentTarget::Tuple(names), Expr::Tuple(values))
                    if names.len() == values.len() =>
                {
                    names.iter().zip(values).collect()
                }
                _ => {
                    let what = "UPDATE of several columns from a subquery".to_owned();
                    return Err(Error::NotSupported(what));
                }
            };
            for (name, value) in pairs {
                let column = super::ddl::single(name)?;
                let at = target.column(&column)?;
                let value = match is_default(value) {
                    true => default_of(&target, at)?,
                    false => cast(value.clone(), target.schema.field(at))?.to_string(),
                };
                if values[at].replace(value).is_some() {
                    return Err(Error::Twice { kind: ObjectKind::Column, name: column });
                }
            }
        }
        let values: Vec<String> = (values.into_iter().zip(target.schema.fields()))
            .map(|(value, field)| {
                value.unwrap_or_else(|| format!("{alias}.{}", quoted(field.name())))
            })
            .collect();
        let from = update.from.as_ref().map(|from| match from {
            UpdateTableFromKind::BeforeSet(from) | UpdateTableFromKind::AfterSet(from) => {
                from.as_slice()
            }
        });
        let find = find(&alias, &values, from, update.selection.as_ref());
        let plan = self.plan_found(&target, &find, declared).await?;
        Ok((vec![target], Some(plan)))
    }

    async fn plan_found(
        &self,
        target: &Target,
        find: &str,
        declared: &[Option<FieldRef>],
    ) -> Result<Plan> {
        let parsed = parse_one(find)?;
        Ok(self.engine_session().plan_find(target, &parsed.statement, declared).await?)
    }

    async fn truncated(&self, truncate: &Truncate) -> Result<Vec<Target>> {
        let mut targets: Vec<Target> = Vec::new();
        for name in &truncate.table_names {
            let target = self.writable(&name.name, Action::Truncate).await?;
            if !targets.iter().any(|known| known.table.record.oid == target.table.record.oid) {
                targets.push(target);
            }
        }
        Ok(targets)
    }
}

/// The query that finds the rows of a statement's target.
fn find(
    alias: &str,
    values: &[String],
    others: Option<&[TableWithJoins]>,
    condition: Option<&Expr>,
) -> String {
    let ids = [FILE_COLUMN, ROW_COLUMN].map(|column| format!("{alias}.{}", quoted(column)));
    let values = values.iter().enumerate().map(|(at, value)| format!("{value} AS \"\u{2}{at}\""));
    let columns: Vec<String> = ids.into_iter().chain(values).collect();
    let mut sql = format!("SELECT {} FROM {} AS {alias}", columns.join(", "), quoted(TARGET));
    for other in others.unwrap_or_default() {
        sql.push_str(&format!(", {other}"));
    }
    if let Some(condition) = condition {
        sql.push_str(&format!(" WHERE {condition}"));
    }
    sql
}

/// The one table that a statement changes, and the name under which it speaks of it.
fn single_table(from: &[TableWithJoins]) -> Result<(&ObjectName, String)> {
    let [TableWithJoins { relation: TableFactor::Table { name, alias, version, .. }, joins }] =
        from
    else {
        return Err(Error::NotSupported("a statement that changes several tables".to_owned()));
    };
    if version.is_some() {
        return Err(Error::NotSupported("changing a table as it was".to_owned()));
    }
    if !joins.is_empty() {
        return Err(Error::NotSupported("a join as what a statement changes".to_owned()));
    }
    let last = name.0.last().and_then(|part| part.as_ident());
    let called = alias.as_ref().map(|alias| &alias.name).or(last);
    Ok((name, called.map_or_else(|| name.to_string(), |name| quoted(&ident(name)))))
}

/// Brings what VALUES holds to the types of the columns that it goes to, as PostgreSQL does: a
/// string in quotes or a parameter without a type takes the column's.
fn assign_values(query: &mut Query, target: &Target, columns: &[usize]) -> Result<()> {
    let SetExpr::Values(Values { rows, .. }) = query.body.as_mut() else { return Ok(()) };
    for row in rows {
        for (n, value) in row.content.iter_mut().enumerate() {
            let at = if columns.is_empty() { Some(n) } else { columns.get(n).copied() };
            let Some(at) = at.filter(|at| *at < target.schema.fields().len()) else { continue };
            if is_default(value) {
                let default = parse_expressions(&default_of(target, at)?)?.pop();
                *value = default.unwrap_or_else(|| value.clone());
            }
            let plain = std::mem::replace(value, Expr::Value(Value::Null.into()));
            *value = cast(plain, target.schema.field(at))?;
        }
    }
    Ok(())
}

fn is_default(value: &Expr) -> bool {
    matches!(value, Expr::Identifier(Ident { value, quote_style: None, .. })
        if value.eq_ignore_ascii_case("default"))
}

/// A column's default as SQL.
fn default_of(target: &Target, at: usize) -> Result<String> {
    let column = target.table.record.columns.get(at);
    Ok(column.and_then(|column| column.default.clone()).unwrap_or_else(|| "NULL".to_owned()))
}

/// A value as one of a column's type, where that has a name in SQL.
fn cast(value: Expr, field: &Field) -> Result<Expr> {
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

fn query_of(sql: &str) -> Result<Query> {
    match parse_one(sql)?.sql() {
        Some(Statement::Query(query)) => Ok(query.as_ref().clone()),
        _ => Err(Error::Invalid(format!("no query: {sql}"))),
    }
}

pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl From<crate::storage::Error> for Error {
    fn from(error: crate::storage::Error) -> Self {
        Self::Engine(engine::Error::Storage(error))
    }
}
