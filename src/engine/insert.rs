//! The rows that INSERT adds, planned; and what all plans of statements that write are made with.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::metadata::FieldMetadata;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ScalarValue, TableReference};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, lit};
use datafusion::sql::parser::Statement;

use super::session::{Draft, Plan, Session};
use super::write::Target;
use super::{Error, Result, semantics};
use crate::catalog::PolicyCommand;
use crate::values::types::{beside_format, json_type, pg_type, precision, sql_name};

/// What INSERT adds.
#[derive(Clone, Copy, Debug)]
pub struct Addition<'a> {
    /// The columns of the target that the source's are for; none: all.
    pub columns: &'a [usize],
    pub source: &'a Statement,
    /// Columns whose values the statement gives apart from the source.
    pub fixed: &'a [(usize, ScalarValue)],
    /// The target's name in RETURNING, and what it asks for, as a SELECT.
    pub returning: Option<(&'a str, &'a Statement)>,
}

impl Session {
    /// Plans the rows that INSERT adds.
    pub async fn plan_insert(
        &self,
        target: &Target,
        addition: Addition<'_>,
        declared: &[Option<FieldRef>],
    ) -> Result<Plan> {
        let Addition { columns, source, fixed, returning } = addition;
        let mut defaults = self.defaults(target, columns).await?;
        for (at, value) in fixed {
            defaults[*at] = Some(lit(value.clone()));
        }
        let (scope, defaults) = (&self.scope(), &defaults);
        let plan = |known: Vec<Option<FieldRef>>| async move {
            let rows = self.plan_in(scope, source.clone(), known.clone(), 0).await?;
            let name = returning.map(|(name, _)| name);
            let rows = insert_plan(rows, target, name, columns, defaults)?;
            let (of, command) = ((target, name), PolicyCommand::Insert);
            let rows = self.checked(rows, scope, of, command, name.is_some()).await?;
            let Some((name, list)) = returning else { return Ok(rows.into()) };
            let returned = self.plan_list(scope, list, rows.schema(), &known).await?;
            let reads = columns_of(&returned, name)?;
            let written = (0..).zip(rows.schema().columns());
            let written = written.map(|(at, column)| Expr::Column(column).alias(value_name(at)));
            let logical = project(rows.clone(), written.chain(returned))?;
            Ok(Draft { logical, reads })
        };
        let statements: Vec<_> =
            [source].into_iter().chain(returning.map(|(_, list)| list)).collect();
        let returned = returning.map(|_| target.schema.fields().len());
        self.plan_with(scope, &statements, declared, returned, plan).await
    }

    /// Plans the rows that a new table begins with.
    pub async fn plan_first_rows(&self, statement: &Statement) -> Result<Plan> {
        let scope = &self.scope();
        let plan = |known| async move {
            let rows = self.plan_in(scope, statement.clone(), known, 0).await?;
            Ok(with_json_read(rows)?.into())
        };
        self.plan_with(scope, &[statement], &[], None, plan).await
    }

    /// The values of columns that are not given.
    pub(super) async fn defaults(
        &self,
        target: &Target,
        columns: &[usize],
    ) -> Result<Vec<Option<Expr>>> {
        let mut defaults = Vec::new();
        for (at, column) in target.table.record.columns.iter().enumerate() {
            defaults.push(match &column.default {
                Some(default) if !columns.contains(&at) => Some(self.constant(default).await?),
                _ => None,
            });
        }
        Ok(defaults)
    }

    /// An expression without columns, planned.
    async fn constant(&self, sql: &str) -> Result<Expr> {
        let parsed = super::parse_one(&format!("SELECT {sql}"))?;
        let plan = self.plan_in(&self.scope(), parsed.statement, Vec::new(), 0).await?;
        match plan {
            LogicalPlan::Projection(projection) => {
                let expr = projection.expr.first().cloned();
                expr.map(Expr::unalias).ok_or_else(|| Error::Syntax(format!("no value: {sql}")))
            }
            _ => Err(Error::Syntax(format!("{sql} is not a constant"))),
        }
    }

    /// The value of an expression that is the same at all times.
    pub async fn constant_value(&self, sql: &str) -> Result<ScalarValue> {
        let not_constant = || Error::Syntax(format!("{sql} is not a constant"));
        let plan = self.plan(&super::parse_one(&format!("SELECT {sql}"))?.statement, &[]).await?;
        if !plan.constant || !plan.parameters.is_empty() {
            return Err(not_constant());
        }
        let ready = self.prepare(&plan, Vec::new()).await?;
        let mut rows = self.run(ready, Ok);
        while let Some(rows) = rows.next().await {
            let rows = rows?;
            if rows.num_rows() > 0 {
                return ScalarValue::try_from_array(rows.column(0), 0).map_err(Error::Execution);
            }
        }
        Err(not_constant())
    }
}

/// The rows of a plan as those that INSERT adds to its target, under this name.
pub(super) fn insert_plan(
    plan: LogicalPlan,
    target: &Target,
    name: Option<&str>,
    columns: &[usize],
    defaults: &[Option<Expr>],
) -> Result<LogicalPlan> {
    let all = target.schema.fields().len();
    let width = if columns.is_empty() { all } else { columns.len() };
    let given = plan.schema().fields().len();
    if given > width {
        let reason = "INSERT has more expressions than target columns".to_owned();
        return Err(Error::Syntax(reason));
    }
    if given < width && !columns.is_empty() {
        let reason = "INSERT has more target columns than expressions".to_owned();
        return Err(Error::Syntax(reason));
    }
    if let LogicalPlan::Values(values) = &plan {
        for row in &values.values {
            for (n, value) in row.iter().enumerate() {
                let at = columns.get(n).copied().unwrap_or(n);
                refuse_unassignable(value, target.schema.field(at), &DFSchema::empty())?;
            }
        }
    }
    let place = |at: usize| match columns.is_empty() {
        true => (at < given).then_some(at),
        false => columns.iter().position(|column| *column == at),
    };
    let values = (0..all).map(|at| match place(at) {
        Some(source) => Expr::Column(Column::from(plan.schema().qualified_field(source))),
        None => defaults[at].clone().unwrap_or_else(|| lit(ScalarValue::Null)),
    });
    let input = plan.schema().clone();
    let assigned = (0..).zip(values).zip(target.schema.fields()).map(|((at, value), field)| {
        if place(at).is_some() {
            refuse_unassignable(&value, field, &input)?;
        }
        let value = assigned(value, field, &input)?;
        Ok(named(value, name.map(TableReference::bare), field))
    });
    let assigned: Vec<Expr> = assigned.collect::<Result<_>>()?;
    project(plan, assigned)
}

/// Types between which PostgreSQL has no cast that an assignment makes.
#[derive(PartialEq)]
enum Kind {
    Truth,
    Number,
    Time,
}

impl Kind {
    fn of(kind: &DataType) -> Option<Self> {
        match kind {
            DataType::Boolean => Some(Self::Truth),
            kind if kind.is_numeric() => Some(Self::Number),
            kind if kind.is_temporal() => Some(Self::Time),
            _ => None,
        }
    }
}

/// Refuses a value that a column takes with an explicit cast only. Statements with values of their
/// own have each of them in a cast to its column, which is not the client's.
pub(super) fn refuse_unassignable(value: &Expr, field: &Field, input: &DFSchema) -> Result<()> {
    let mut given = value;
    while let Expr::Alias(alias) = given {
        given = &alias.expr;
    }
    if let Expr::Cast(cast) = given {
        given = &cast.expr;
    }
    // What has no type by itself takes the column's.
    let Ok((_, given)) = given.to_field(input) else { return Ok(()) };
    let json = json_type(field).is_some();
    let (found, wanted) = (Kind::of(given.data_type()), Kind::of(field.data_type()));
    if found.is_none() || wanted.is_none() && !json || found == wanted {
        return Ok(());
    }
    let name = |field: &Field| sql_name(pg_type(field).name());
    let (column, wanted, found) = (field.name().clone(), name(field), name(&given));
    Err(Error::NotAssignable { column, wanted, found })
}

/// A value brought to a column, as an assignment does.
pub(super) fn assigned(value: Expr, field: &Field, input: &DFSchema) -> Result<Expr> {
    if let Some(pg) = json_type(field) {
        let value = semantics::parameter_as(value, &pg);
        // A file that somebody else has written may say so of anything.
        let known = value.to_field(input).is_ok_and(|(_, given)| json_type(&given).is_some());
        let value = if known { semantics::json_anew(value, &pg) } else { value };
        let kind = Field::new("", field.data_type().clone(), true);
        let field = Arc::new(kind.with_metadata(beside_format(field)));
        return Ok(Expr::Cast(Cast { expr: Box::new(value), field }));
    }
    let value = value.cast_to(field.data_type(), input).map_err(Error::planning)?;
    Ok(match precision(field) {
        Some(digits) => semantics::kept(value, digits),
        None => value,
    })
}

/// Rows whose JSON is looked at, which a file that somebody else has written may only call so.
fn with_json_read(rows: LogicalPlan) -> Result<LogicalPlan> {
    let schema = rows.schema().clone();
    if !schema.fields().iter().any(|field| json_type(field).is_some()) {
        return Ok(rows);
    }
    let values = schema.iter().map(|(relation, field)| {
        let column = Expr::Column(Column::from((relation, field)));
        match json_type(field) {
            Some(pg) => named(semantics::json_anew(column, &pg), relation.cloned(), field),
            None => column,
        }
    });
    project(rows, values)
}

/// A value as the column that it is for, whose metadata tells its type in PostgreSQL.
pub(super) fn named(value: Expr, relation: Option<TableReference>, field: &Field) -> Expr {
    let metadata = Some(FieldMetadata::from(field));
    value.alias_qualified_with_metadata(relation, field.name(), metadata)
}

pub(super) fn project(
    plan: LogicalPlan,
    exprs: impl IntoIterator<Item = Expr>,
) -> Result<LogicalPlan> {
    LogicalPlanBuilder::from(plan)
        .project(exprs)
        .and_then(|plan| plan.build())
        .map_err(Error::planning)
}

/// The columns of a relation that expressions look at, those of subqueries included.
pub(super) fn columns_of<'a>(
    exprs: impl IntoIterator<Item = &'a Expr>,
    relation: &str,
) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for expr in exprs {
        let walk = expr.apply(|expr| {
            let outer = match expr {
                Expr::Column(column) | Expr::OuterReferenceColumn(_, column) => {
                    let here = column.relation.as_ref().is_some_and(|of| of.table() == relation);
                    found.extend(here.then(|| column.name.clone()));
                    return Ok(TreeNodeRecursion::Continue);
                }
                Expr::ScalarSubquery(subquery) => &subquery.outer_ref_columns,
                Expr::Exists(exists) => &exists.subquery.outer_ref_columns,
                Expr::InSubquery(within) => &within.subquery.outer_ref_columns,
                Expr::SetComparison(compared) => &compared.subquery.outer_ref_columns,
                _ => return Ok(TreeNodeRecursion::Continue),
            };
            let outer =
                columns_of(outer, relation).map_err(|e| DataFusionError::External(Box::new(e)));
            found.extend(outer?);
            Ok(TreeNodeRecursion::Continue)
        });
        walk.map_err(Error::planning)?;
    }
    found.retain(|name| !name.starts_with('\u{2}'));
    Ok(found)
}

/// What a value to be written is called next to what RETURNING asks for.
pub(super) fn value_name(at: usize) -> String {
    format!("\u{2}{at}")
}
