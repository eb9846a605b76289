//! Values without what is said of their column alone: its number in files, and marks of constants. The terms
//! of a recursive query have to say the same of each column, or the engine refuses them. And values of which
//! the engine is to estimate nothing.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, DFSchemaRef, Result, exec_err};
use datafusion::logical_expr::expr::{BinaryExpr, Cast};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, RecursiveQuery,
    ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Subquery, Volatility,
};

use super::apart::MARK;

/// Under which name a column's number in files is kept.
const IN_FILES: &str = "PARQUET:field_id";

/// `bare_value(value)`, the value; `optional_value(value)`, one that may be NULL.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Bare {
    optional: bool,
    signature: Signature,
}

impl Default for Bare {
    fn default() -> Self {
        Self { optional: false, signature: Signature::any(1, Volatility::Immutable) }
    }
}

/// The function whose value may be NULL.
pub(super) fn optional() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(Bare { optional: true, ..Bare::default() }))
}

/// The value of a subquery, which is NULL if it has no row, even if its column never is. `None` where the engine
/// knows, or there is always a row.
pub(super) fn of_subquery(subquery: &Subquery) -> Result<Option<Subquery>> {
    let mut rows = subquery.subquery.as_ref();
    if rows.schema().fields().iter().any(|field| field.is_nullable()) {
        return Ok(None);
    }
    loop {
        rows = match rows {
            LogicalPlan::Projection(list) => &list.input,
            LogicalPlan::SubqueryAlias(alias) => &alias.input,
            LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.is_empty() => {
                return Ok(None);
            }
            LogicalPlan::EmptyRelation(_) => return Ok(None),
            _ => break,
        };
    }
    let plan = subquery.subquery.as_ref().clone();
    let columns = plan.schema().columns().into_iter();
    let columns = columns.map(|column| {
        let name = column.name.clone();
        optional().call(vec![Expr::Column(column)]).alias(name)
    });
    let columns: Vec<Expr> = columns.collect();
    let plan = LogicalPlanBuilder::from(plan).project(columns)?.build()?;
    Ok(Some(subquery.with_plan(Arc::new(plan))))
}

pub(super) fn function() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(Bare::default()))
}

impl ScalarUDFImpl for Bare {
    fn name(&self) -> &str {
        if self.optional { "optional_value" } else { "bare_value" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[0].clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let mut field = args.arg_fields[0].as_ref().clone();
        if self.optional {
            return Ok(Arc::new(field.with_nullable(true)));
        }
        // What remains is the type's: that a text is a `uuid`, or how many digits a time has.
        field.metadata_mut().retain(|key, _| key != IN_FILES && key != MARK.0);
        Ok(Arc::new(field))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.into_iter().next() {
            Some(value) => Ok(value),
            None => exec_err!("bare_value takes a value"),
        }
    }
}

/// A recursive query whose terms say nothing of their columns but what types say; `None` if it is one.
///
/// # Errors
/// Only if the query is none that the engine would take.
pub(super) fn recursive(query: &RecursiveQuery) -> Result<Option<LogicalPlan>> {
    let RecursiveQuery { name, static_term, recursive_term, is_distinct, .. } = query;
    if !says_more(static_term.schema()) && !says_more(recursive_term.schema()) {
        return Ok(None);
    }
    let (first, next) = (bared(static_term)?, bared(recursive_term)?);
    let query = RecursiveQuery::try_new(name.clone(), first, next, *is_distinct)?;
    Ok(Some(LogicalPlan::RecursiveQuery(query)))
}

fn says_more(schema: &DFSchemaRef) -> bool {
    schema.fields().iter().any(|field| field.metadata().contains_key(IN_FILES))
}

fn bared(term: &Arc<LogicalPlan>) -> Result<Arc<LogicalPlan>> {
    let schema = term.schema();
    if !says_more(schema) {
        return Ok(term.clone());
    }
    let function = function();
    let columns =
        schema.iter().zip(schema.columns()).map(|((qualifier, field), column)| {
            match field.metadata().contains_key(IN_FILES) {
                true => (function.call(vec![Expr::Column(column)]))
                    .alias_qualified(qualifier.cloned(), field.name()),
                false => Expr::Column(column),
            }
        });
    let columns: Vec<Expr> = columns.collect();
    Ok(Arc::new(LogicalPlanBuilder::from(term.as_ref().clone()).project(columns)?.build()?))
}

/// A comparison of two columns, with the days of moments in it as values that no cast makes. By a cast the
/// engine would compute from the other side in which range the moments are that fit, which days make wider
/// than it was, and fail because more than all rows fit.
pub(super) fn days(compared: BinaryExpr, schema: &DFSchema) -> Transformed<BinaryExpr> {
    let is_day = |side: &Expr| match side {
        Expr::Cast(Cast { expr, field }) => {
            *field.data_type() == DataType::Date32
                && matches!(expr.get_type(schema), Ok(DataType::Timestamp(..)))
        }
        _ => false,
    };
    let BinaryExpr { left, op, right } = compared;
    let any = is_day(&left) || is_day(&right);
    if !any || !super::compares(op) || !left.any_column_refs() || !right.any_column_refs() {
        return Transformed::no(BinaryExpr { left, op, right });
    }
    let function = function();
    let [left, right] = [left, right].map(|side| match is_day(&side) {
        true => Box::new(function.call(vec![*side])),
        false => side,
    });
    Transformed::yes(BinaryExpr { left, op, right })
}
