//! Statements that look for a key, `SELECT .. FROM table WHERE key = value [AND ..] [LIMIT n]`: their rows come
//! from what is kept for look-ups ([`storage::LookUps`]), if that has an answer, and from a plan otherwise.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, RecordBatchOptions};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchemaRef, ParamValues, ScalarValue};
use datafusion::datasource::source_as_provider;
use datafusion::error::Result;
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;

use super::ready::Course;
use crate::storage::{self, Keyed, LookUps};

/// A statement that looks for a key.
#[derive(Debug)]
pub(super) struct LookUp {
    keyed: Keyed,
    value: Expr,
    /// The other conditions, on the columns that are read.
    rest: Option<Expr>,
    /// The columns that are read.
    read: DFSchemaRef,
    /// What the result's columns are made of.
    outputs: Option<Vec<Expr>>,
    limit: Option<usize>,
    schema: SchemaRef,
    /// What stands for a plan where there is none.
    pub no_plan: Arc<dyn ExecutionPlan>,
}

impl LookUp {
    /// `None` if an optimised plan is of another form.
    pub fn of(plan: &LogicalPlan) -> Option<Self> {
        let schema = Arc::new(plan.schema().as_arrow().clone());
        let (node, limit) = match plan {
            LogicalPlan::Limit(limit) => match (limit.skip.as_deref(), limit.fetch.as_deref()) {
                (None | Some(Expr::Literal(ScalarValue::Int64(Some(0)), _)), Some(fetch)) => {
                    let Expr::Literal(ScalarValue::Int64(Some(fetch)), _) = fetch else {
                        return None;
                    };
                    (limit.input.as_ref(), Some(usize::try_from(*fetch).ok()?))
                }
                _ => return None,
            },
            plan => (plan, None),
        };
        let (node, outputs) = match node {
            LogicalPlan::Projection(projection) => {
                (projection.input.as_ref(), Some(projection.expr.clone()))
            }
            node => (node, None),
        };
        let (node, read) = match node {
            LogicalPlan::SubqueryAlias(alias) => (alias.input.as_ref(), alias.schema.clone()),
            node => (node, node.schema().clone()),
        };
        let LogicalPlan::Filter(filter) = node else { return None };
        let LogicalPlan::TableScan(scan) = filter.input.as_ref() else { return None };
        if scan.fetch.is_some() {
            return None;
        }
        let table = source_as_provider(&scan.source).ok()?;
        if !storage::is_of_files(table.as_ref()) {
            return None;
        }
        let scanned = filter.input.schema();
        let columns = match &scan.projection {
            Some(columns) => columns.clone(),
            None => (0..scanned.fields().len()).collect(),
        };
        let mut conditions = split_conjunction_owned(filter.predicate.clone());
        let found = conditions.iter().enumerate().find_map(|(at, condition)| {
            let (column, value) = equality(condition)?;
            let place = scanned.maybe_index_of_column(column)?;
            let kind = scanned.field(place).data_type();
            (storage::can_be_key(kind) && is_of(value, kind)).then(|| (at, place, value.clone()))
        });
        let (at, place, value) = found?;
        conditions.remove(at);
        // What they are called where they are read; the places are the same.
        let renamed = |expr: Expr| -> Option<Expr> {
            let by_place = expr.transform(|expr| match &expr {
                Expr::Column(column) => {
                    let place = scanned.index_of_column(column)?;
                    Ok(Transformed::yes(Expr::Column(Column::from(read.qualified_field(place)))))
                }
                _ => Ok(Transformed::no(expr)),
            });
            Some(by_place.ok()?.data)
        };
        let rest = match conjunction(conditions) {
            Some(rest) => Some(renamed(rest)?),
            None => None,
        };
        let key = *columns.get(place)?;
        let keyed = Keyed { table, key, columns };
        let no_plan = Arc::new(EmptyExec::new(schema.clone()));
        Some(Self { keyed, value, rest, read, outputs, limit, schema, no_plan })
    }

    /// The statement's rows; `None` if a plan is to find them.
    pub async fn rows(&self, values: &ParamValues, course: &Course) -> Result<Option<RecordBatch>> {
        // Files may be read in another way with them.
        if course.settings.engine_options().next().is_some() {
            return Ok(None);
        }
        let Some(look_ups) = course.state.config().get_extension::<LookUps>() else {
            return Ok(None);
        };
        let Expr::Literal(value, _) = with_values(self.value.clone(), values)? else {
            return Ok(None);
        };
        let found = look_ups.find(&self.keyed, &value, &course.state, &course.context).await?;
        let Some(mut rows) = found else { return Ok(None) };
        if let Some(rest) = &self.rest
            && rows.num_rows() > 0
        {
            let rest = with_values(rest.clone(), values)?;
            let rest = course.state.create_physical_expr(rest, &self.read)?;
            let kept = rest.evaluate(&rows)?.into_array(rows.num_rows())?;
            rows = filter_record_batch(&rows, kept.as_boolean())?;
        }
        if let Some(limit) = self.limit {
            rows = rows.slice(0, limit.min(rows.num_rows()));
        }
        let count = rows.num_rows();
        let columns = match &self.outputs {
            None => rows.columns().to_vec(),
            Some(outputs) => {
                let column = |output: &Expr| match self.place(output) {
                    Some(place) => Ok(rows.column(place).clone()),
                    None => {
                        let output = with_values(output.clone(), values)?;
                        let output = course.state.create_physical_expr(output, &self.read)?;
                        output.evaluate(&rows)?.into_array(count)
                    }
                };
                outputs.iter().map(column).collect::<Result<_>>()?
            }
        };
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        Ok(Some(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?))
    }

    /// The place of an output that is a column as it is read.
    fn place(&self, output: &Expr) -> Option<usize> {
        match output {
            Expr::Column(column) => self.read.maybe_index_of_column(column),
            Expr::Alias(alias) => self.place(&alias.expr),
            _ => None,
        }
    }
}

/// A column and what it is to be equal to.
fn equality(condition: &Expr) -> Option<(&Column, &Expr)> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = condition else {
        return None;
    };
    match (left.as_ref(), right.as_ref()) {
        (Expr::Column(column), value) | (value, Expr::Column(column)) => Some((column, value)),
        _ => None,
    }
}

/// Whether this is a value of a type, or a parameter.
fn is_of(value: &Expr, kind: &DataType) -> bool {
    match value {
        Expr::Literal(value, _) => value.data_type() == *kind,
        Expr::Placeholder(Placeholder { field, .. }) => {
            field.as_ref().is_some_and(|field| field.data_type() == kind)
        }
        _ => false,
    }
}

/// An expression with values for its parameters.
fn with_values(expr: Expr, values: &ParamValues) -> Result<Expr> {
    let replaced = expr.transform(|expr| match &expr {
        Expr::Placeholder(placeholder) => {
            let value = values.get_placeholders_with_values(&placeholder.id)?;
            Ok(Transformed::yes(Expr::Literal(value.value, value.metadata)))
        }
        _ => Ok(Transformed::no(expr)),
    })?;
    Ok(replaced.data)
}
