//! UNION, INTERSECT and EXCEPT as PostgreSQL has them. With ALL, rows are counted: the engine's joins, into
//! which it turns the latter two, find out only whether there is such a row at all. And columns of several
//! types are of those that [`mixed`] says.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema, JoinType, NullEquality, Result};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{
    Expr, ExprFunctionExt, ExprSchemable, Join, LogicalPlan, LogicalPlanBuilder, Union, Values,
    cast,
};

use super::equal_json::{EqualJson, has_json};
use super::{mixed, typed};

/// The names of rows' numbers on both sides: no statement has columns of such names.
const NUMBERS: [&str; 2] = ["\u{2}left", "\u{2}right"];

/// A set operation that means what it does in PostgreSQL.
pub(super) fn settled(plan: LogicalPlan, json: &EqualJson) -> Result<Transformed<LogicalPlan>> {
    match plan {
        LogicalPlan::Union(union) => of_common_types(union),
        LogicalPlan::Values(values) => of_one_type(values),
        LogicalPlan::Join(join) if is_set_operation(&join) => compared(join, json),
        other => Ok(Transformed::no(other)),
    }
}

/// Whether a join is what the engine makes of INTERSECT or EXCEPT: no other join has NULLs equal before
/// subqueries have become joins.
fn is_set_operation(join: &Join) -> bool {
    matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti)
        && join.null_equality == NullEquality::NullEqualsNull
        && join.filter.is_none()
        && !join.null_aware
        // A plan may be looked at twice.
        && !join.left.schema().fields().iter().any(|field| field.name() == NUMBERS[0])
}

fn compared(join: Join, json: &EqualJson) -> Result<Transformed<LogicalPlan>> {
    let kinds = common_types(&[join.left.as_ref(), join.right.as_ref()]);
    // Without ALL the left side has each row once.
    let all = !matches!(join.left.as_ref(), LogicalPlan::Distinct(_));
    let of_json = has_json(join.left.schema()) || has_json(join.right.schema());
    let floats = [&join.left, &join.right].iter().any(|side| has_floats(side));
    if !all && !of_json && !floats && kinds.iter().all(Option::is_none) {
        return Ok(Transformed::no(LogicalPlan::Join(join)));
    }
    let side = |plan: &LogicalPlan, name: &str| -> Result<(LogicalPlan, Vec<Column>)> {
        let plan = signless(&taken_as(plan, &kinds)?)?;
        let (plan, mut keys) = json.with_keys(plan)?;
        let plan = match all {
            true => numbered(plan, &keys, name)?,
            false => plan,
        };
        keys.extend(all.then(|| Column::from_name(name)));
        Ok((plan, keys))
    };
    let (left, left_keys) = side(&join.left, NUMBERS[0])?;
    let (right, right_keys) = side(&join.right, NUMBERS[1])?;
    let columns: Vec<Expr> = join.schema.columns().into_iter().map(Expr::Column).collect();
    let joined = LogicalPlanBuilder::from(left).join_detailed(
        right,
        join.join_type,
        (left_keys, right_keys),
        None,
        NullEquality::NullEqualsNull,
    )?;
    joined.project(columns)?.build().map(Transformed::yes)
}

fn has_floats(plan: &LogicalPlan) -> bool {
    plan.schema().fields().iter().any(|field| field.data_type().is_floating())
}

/// A plan whose zeros are one, as they are by their bits then.
fn signless(plan: &LogicalPlan) -> Result<LogicalPlan> {
    let fields = plan.schema().fields().iter();
    let floats: Vec<_> = fields.map(|it| it.data_type().is_floating().then_some(())).collect();
    with_columns(plan, &floats, |column, ()| mixed::without_sign_of_zero(column))
}

/// A plan with one more column, the number of each row among those that are the same: the second such row
/// has to find a second one.
fn numbered(plan: LogicalPlan, keys: &[Column], name: &str) -> Result<LogicalPlan> {
    let keys = keys.iter().cloned().map(Expr::Column).collect();
    let number = Expr::from(WindowFunction::new(typed::row_number(), Vec::new()));
    let number = number.partition_by(keys).build()?;
    let mut columns: Vec<Expr> = plan.schema().columns().into_iter().map(Expr::Column).collect();
    let windowed = LogicalPlanBuilder::from(plan).window(vec![number])?.build()?;
    let last = windowed.schema().columns().pop();
    columns.extend(last.map(|number| Expr::Column(number).alias(name)));
    LogicalPlanBuilder::from(windowed).project(columns)?.build()
}

fn of_common_types(union: Union) -> Result<Transformed<LogicalPlan>> {
    let inputs: Vec<&LogicalPlan> = union.inputs.iter().map(AsRef::as_ref).collect();
    let kinds = common_types(&inputs);
    if kinds.iter().all(Option::is_none) {
        return Ok(Transformed::no(LogicalPlan::Union(union)));
    }
    let inputs = inputs.into_iter().map(|input| taken_as(input, &kinds).map(Arc::new));
    let inputs = inputs.collect::<Result<Vec<_>>>()?;
    Union::try_new_with_loose_types(inputs).map(|union| Transformed::yes(LogicalPlan::Union(union)))
}

/// VALUES of dates beside timestamps, and of floats beside exact numbers: the engine takes all for timestamps in
/// nanoseconds without a zone, and for decimals.
fn of_one_type(values: Values) -> Result<Transformed<LogicalPlan>> {
    let nanoseconds = DataType::Timestamp(TimeUnit::Nanosecond, None);
    let Values { schema, values: rows } = &values;
    let given = |expr: &Expr, field: &Field| match expr {
        Expr::Cast(cast) if cast.field.data_type() == field.data_type() => (*cast.expr).clone(),
        other => other.clone(),
    };
    let common = |(at, field): (usize, &Arc<Field>)| {
        let kind = field.data_type();
        if *kind != nanoseconds && !kind.is_decimal() {
            return None;
        }
        let types = rows.iter().map(|row| given(row.get(at)?, field).get_type(schema).ok());
        mixed::chosen_type(types.collect::<Option<Vec<_>>>()?.iter())
    };
    let kinds: Vec<Option<DataType>> = schema.fields().iter().enumerate().map(common).collect();
    if kinds.iter().all(Option::is_none) {
        return Ok(Transformed::no(LogicalPlan::Values(values)));
    }
    let taken = |(value, (kind, field)): (&Expr, (&Option<DataType>, &Arc<Field>))| match kind {
        Some(kind) => mixed::taken_as(given(value, field), kind, schema),
        None => value.clone(),
    };
    let columns = || kinds.iter().zip(schema.fields());
    let rows = rows.iter().map(|row| row.iter().zip(columns()).map(taken).collect()).collect();
    let fields = schema.iter().zip(&kinds).map(|((qualifier, field), kind)| {
        let field = match kind {
            Some(kind) => Arc::new(field.as_ref().clone().with_data_type(kind.clone())),
            None => field.clone(),
        };
        (qualifier.cloned(), field)
    });
    let schema = DFSchema::new_with_metadata(fields.collect(), schema.metadata().clone())?;
    let values = Values { schema: Arc::new(schema), values: rows };
    Ok(Transformed::yes(LogicalPlan::Values(values)))
}

/// The common types of columns, where the engine would take others.
fn common_types(inputs: &[&LogicalPlan]) -> Vec<Option<DataType>> {
    let count = inputs.iter().map(|input| input.schema().fields().len()).min().unwrap_or(0);
    let of = |at: usize| {
        mixed::chosen_type(inputs.iter().map(|input| input.schema().field(at).data_type()))
    };
    (0..count).map(of).collect()
}

/// A plan with its columns as of other types.
fn taken_as(plan: &LogicalPlan, kinds: &[Option<DataType>]) -> Result<LogicalPlan> {
    with_columns(plan, kinds, |column, kind| cast(column, kind.clone()))
}

/// A plan with other expressions for the columns of which there is something to be said.
fn with_columns<T>(
    plan: &LogicalPlan,
    said: &[Option<T>],
    other: impl Fn(Expr, &T) -> Expr,
) -> Result<LogicalPlan> {
    if said.iter().all(Option::is_none) {
        return Ok(plan.clone());
    }
    let columns = plan.schema().columns().into_iter().zip(said);
    let columns = columns.map(|(column, said)| match said {
        None => Expr::Column(column),
        Some(said) => {
            let Column { relation, name, .. } = column.clone();
            other(Expr::Column(column), said).alias_qualified(relation, name)
        }
    });
    LogicalPlanBuilder::from(plan.clone()).project(columns.collect::<Vec<_>>())?.build()
}
