//! INSERT, and rows that come from a client.

use arrow::array::RecordBatch;
use arrow::datatypes::FieldRef;
use datafusion::common::ScalarValue;
use datafusion::error::DataFusionError;
use datafusion::sql::parser::Statement as EngineStatement;
use futures::{Stream, StreamExt, TryStreamExt};
use sqlparser::ast::{
    BinaryOperator, Expr, Ident, Insert, ObjectName, Query, SetExpr, Statement, TableObject, Value,
    Values, With,
};

use super::command::writes;
use super::copy;
use super::ddl::{ident, shown, single};
use super::life::Session;
use super::running::Registered;
use super::write::{Action, Needs, Planned, cast, default_of, is_default, list_of};
use super::{Error, Result};
use crate::catalog::{self, Definition, ObjectKind, Privilege, Table};
use crate::engine::visit::has_subquery;
use crate::engine::{self, Addition, NO_ALIAS, Target, parse_expressions, parse_one};
use crate::storage::managed::Overwritten;

impl Session {
    /// Plans INSERT, and INSERT OVERWRITE.
    pub(super) async fn plan_insert(
        &self,
        with: Option<&With>,
        insert: &Insert,
        declared: &[Option<FieldRef>],
    ) -> Result<Planned> {
        let TableObject::TableName(name) = &insert.table else {
            return Err(Error::NotSupported("INSERT INTO something other than a table".to_owned()));
        };
        let conflict = "ON CONFLICT (managed tables have no unique constraints; use MERGE INTO ... \
                        WHEN NOT MATCHED THEN INSERT, which compares rows itself)";
        for (given, what) in [
            (insert.on.is_some(), conflict),
            (insert.or.is_some() || insert.replace_into, "REPLACE INTO"),
            (!insert.assignments.is_empty(), "INSERT with SET"),
            (
                insert.partitioned.is_some() && insert.source.is_none(),
                "INSERT with PARTITION and DEFAULT VALUES",
            ),
        ] {
            if given {
                return Err(Error::NotSupported(what.to_owned()));
            }
        }
        let action = if insert.overwrite { Action::Overwrite } else { Action::Insert };
        let target = self.writable(name, action, |target| needs(insert, target)).await?;
        let mut columns = columns(insert, &target)?;
        let partition = Partition::of(insert, &target)?;
        let fixed = self.fixed(&partition, &target).await?;
        if columns.is_empty() && !fixed.is_empty() {
            let all = 0..target.schema.fields().len();
            columns = all.filter(|at| fixed.iter().all(|(fixed, _)| fixed != at)).collect();
        }
        let mut query = match &insert.source {
            Some(source) => source.as_ref().clone(),
            // DEFAULT VALUES
            None => {
                columns = vec![0];
                query_of(&format!("SELECT {}", default_of(&target, 0)?))?
            }
        };
        assign_values(&mut query, &target, &columns)?;
        if let Some(with) = with {
            add_with(&mut query, with);
        }
        let source = EngineStatement::Statement(Box::new(Statement::Query(Box::new(query))));
        let last = name.0.last().and_then(|part| part.as_ident());
        let alias = insert.table_alias.as_ref().map(|alias| &alias.alias);
        let called = alias.filter(|alias| alias.value != NO_ALIAS).or(last);
        let called = called.map_or_else(|| name.to_string(), ident);
        let list = match &insert.returning {
            Some(items) => {
                let with = with.map_or_else(String::new, With::to_string);
                Some(parse_one(&format!("{with} SELECT {}", list_of(items)))?.statement)
            }
            None => None,
        };
        let returning = list.as_ref().map(|list| (called.as_str(), list));
        let addition = Addition { columns: &columns, source: &source, fixed: &fixed, returning };
        let plan = self.engine_session().plan_insert(&target, addition, declared).await?;
        let overwritten = match &insert.partitioned {
            None => Overwritten::All,
            Some(_) => {
                let value = |(at, value): &(usize, ScalarValue)| {
                    let value = value.to_array().map_err(engine::Error::Execution)?;
                    Ok((target.schema.field(*at).name().clone(), value))
                };
                let fixed: Vec<_> = fixed.iter().map(value).collect::<Result<_>>()?;
                Overwritten::partitions(&target.metadata, &fixed, &partition.varying)?
            }
        };
        Ok((target, plan, overwritten))
    }

    /// The values that PARTITION gives columns.
    async fn fixed(
        &self,
        partition: &Partition<'_>,
        target: &Target,
    ) -> Result<Vec<(usize, ScalarValue)>> {
        let mut fixed = Vec::new();
        for (at, value) in &partition.fixed {
            let value = cast((*value).clone(), target.schema.field(*at))?.to_string();
            fixed.push((*at, self.engine_session().constant_value(&value).await?));
        }
        Ok(fixed)
    }

    /// The fields of the columns that rows for a table have: those that are named, in their order,
    /// or all. The role must have INSERT on each of them.
    pub(super) async fn insert_fields(
        &mut self,
        table: &ObjectName,
        columns: &[Ident],
    ) -> Result<Vec<FieldRef>> {
        let name = self.existing(table).await?;
        let found = self.catalog().table(&name, self.settings().consistency()).await;
        let found = found.map_err(|error| match error {
            catalog::Error::NotFound { kind: kind @ ObjectKind::Table, .. } => {
                catalog::Error::NotFound { kind, name: shown(table) }
            }
            other => other,
        })?;
        let fields = fields(&found, columns)?;
        let kind = if found.record.is_view() { ObjectKind::View } else { ObjectKind::Table };
        self.require(|snapshot, access| {
            let denied = |kind, name: &str| catalog::Error::Denied { kind, name: name.to_owned() };
            let database = snapshot.databases.get(&name.database);
            let schema = database.and_then(|d| Some((d, d.schemas.get(&name.schema)?)));
            let is_open = |database| {
                name.database == self.database() || access.database(database, Privilege::Connect)
            };
            match schema {
                Some((database, _)) if !is_open(database) => {
                    return Err(denied(ObjectKind::Database, &name.database));
                }
                Some((database, schema)) if access.schema(database, schema, Privilege::Usage) => {}
                _ => return Err(denied(ObjectKind::Schema, &name.schema)),
            }
            let allowed = |field: &FieldRef| access.column(&found, field.name(), Privilege::Insert);
            match fields.iter().all(allowed) {
                true => Ok(()),
                false => Err(denied(kind, &name.table)),
            }
        })
        .await?;
        match kind {
            ObjectKind::View => Err(copy::Error::ToView(name.table.clone()).into()),
            _ if matches!(found.record.definition, Definition::External(_)) => {
                Err(writes("COPY FROM"))
            }
            _ => Ok(fields),
        }
    }

    /// Appends batches to a table, whose columns are those of [`Self::insert_fields`]: all of them,
    /// or, after an error among them, none. Returns how many rows there were.
    pub(super) async fn insert_batches(
        &mut self,
        registered: Registered,
        table: &ObjectName,
        columns: &[String],
        batches: impl Stream<Item = Result<RecordBatch>> + Send + 'static,
    ) -> Result<u64> {
        let written = async {
            // The rights to its columns were looked at before the first row.
            let target = self.writable(table, Action::Insert, |_| Ok(Needs::new())).await?;
            let snapshot = self.catalog().snapshot();
            if snapshot.access(self.user()).row_policies(&target.table).is_some() {
                return Err(copy::Error::RowSecurity.into());
            }
            let columns: Vec<usize> =
                columns.iter().map(|name| target.column(name)).collect::<Result<_, _>>()?;
            let batches =
                batches.map_err(|error| DataFusionError::External(Box::new(error))).boxed();
            let written = self.engine_session().insert_stream(&target, &columns, batches).await?;
            Ok::<_, Error>((target, written))
        };
        let (target, written) = registered.until_stopped(written).await??;
        let changes = written.change.map(|change| (target, change)).into_iter().collect();
        self.keep(&registered, changes, "COPY").await?;
        Ok(written.rows)
    }
}

/// The fields of these columns of a table, each named once, or of all.
fn fields(table: &Table, columns: &[Ident]) -> Result<Vec<FieldRef>> {
    let schema = table.record.schema();
    if columns.is_empty() {
        return Ok(schema.fields().iter().cloned().collect());
    }
    let mut fields: Vec<FieldRef> = Vec::with_capacity(columns.len());
    for column in columns.iter().map(ident) {
        let Some((_, field)) = schema.fields().find(&column) else {
            let relation = table.name.table.clone();
            return Err(copy::Error::NoColumn { column, relation }.into());
        };
        if fields.iter().any(|known| known.name() == field.name()) {
            return Err(copy::Error::Twice(column).into());
        }
        fields.push(field.clone());
    }
    Ok(fields)
}

/// What PARTITION says, in Hive's way: `column = value`, and columns whose values the rows bring.
#[derive(Default)]
struct Partition<'a> {
    fixed: Vec<(usize, &'a Expr)>,
    varying: Vec<String>,
}

impl<'a> Partition<'a> {
    fn of(insert: &'a Insert, target: &Target) -> Result<Self> {
        let mut partition = Self::default();
        let mut named = columns(insert, target)?;
        for item in insert.partitioned.iter().flatten() {
            let (column, value) = match item {
                Expr::Identifier(column) => (ident(column), None),
                Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => match left.as_ref() {
                    Expr::Identifier(column) => (ident(column), Some(right.as_ref())),
                    _ => return Err(unfit(item)),
                },
                _ => return Err(unfit(item)),
            };
            let at = target.column(&column)?;
            let twice = || Error::Twice { kind: ObjectKind::Column, name: column.clone() };
            match value {
                Some(value) if !named.contains(&at) => {
                    named.push(at);
                    partition.fixed.push((at, value));
                }
                None if !partition.varying.contains(&column) => partition.varying.push(column),
                _ => return Err(twice()),
            }
        }
        Ok(partition)
    }
}

fn unfit(item: &Expr) -> Error {
    Error::Invalid(format!("PARTITION takes column = value, or a column, not {item}"))
}

/// The places of the columns that INSERT names.
fn columns(insert: &Insert, target: &Target) -> Result<Vec<usize>> {
    let mut columns = Vec::new();
    for column in &insert.columns {
        let column = single(column)?;
        let at = target.column(&column)?;
        if columns.contains(&at) {
            let (kind, name) = (ObjectKind::Column, column);
            return Err(Error::Twice { kind, name });
        }
        columns.push(at);
    }
    Ok(columns)
}

fn needs(insert: &Insert, target: &Target) -> Result<Needs> {
    let mut named = columns(insert, target)?;
    if !named.is_empty() {
        named.extend(Partition::of(insert, target)?.fixed.iter().map(|(at, _)| *at));
    }
    let name = |at: usize| target.schema.field(at).name().clone();
    let named: Vec<String> = match named.is_empty() {
        true => (0..target.schema.fields().len()).map(name).collect(),
        false => named.into_iter().map(name).collect(),
    };
    let removes = insert.overwrite.then_some((Privilege::Delete, None));
    Ok([(Privilege::Insert, Some(named))].into_iter().chain(removes).collect())
}

/// Puts a WITH in front of a query that may have one of its own.
fn add_with(query: &mut Query, with: &With) {
    match &mut query.with {
        Some(own) => {
            own.recursive |= with.recursive;
            own.cte_tables.splice(0..0, with.cte_tables.iter().cloned());
        }
        none => *none = Some(with.clone()),
    }
}

/// Brings what VALUES holds to the types of the columns that it goes to, as PostgreSQL does: a
/// string in quotes or a parameter without a type takes the column's. Rows with subqueries become
/// queries, since the engine takes VALUES for constants.
fn assign_values(query: &mut Query, target: &Target, columns: &[usize]) -> Result<()> {
    let SetExpr::Values(Values { rows, .. }) = query.body.as_mut() else { return Ok(()) };
    for row in rows.iter_mut() {
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
    if rows.iter().flat_map(|row| &row.content).any(has_subquery) {
        let list = |values: &[Expr]| {
            let values: Vec<String> = values.iter().map(Expr::to_string).collect();
            format!("SELECT {}", values.join(", "))
        };
        let rows: Vec<String> = rows.iter().map(|row| list(&row.content)).collect();
        query.body = query_of(&rows.join(" UNION ALL "))?.body;
    }
    Ok(())
}

fn query_of(sql: &str) -> Result<Query> {
    match parse_one(sql)?.sql() {
        Some(Statement::Query(query)) => Ok(query.as_ref().clone()),
        _ => Err(Error::Invalid(format!("no query: {sql}"))),
    }
}
