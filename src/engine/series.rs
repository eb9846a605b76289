//! `generate_series` of moments in FROM. The engine has it in nanoseconds, and of dates, which PostgreSQL
//! takes for moments in the session's time zone.

use std::sync::Arc;

use arrow::array::TimestampMicrosecondArray;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, TimeUnit};
use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, Result, ScalarValue, plan_datafusion_err};
use datafusion::datasource::{MemTable, ViewTable, provider_as_source};
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, TableSource, cast};

use super::semantics::{INTERVAL, constant_of, constant_series};

/// The function.
const NAME: &str = "generate_series";

/// The constants among a function's arguments as PostgreSQL reads them, if it makes a series.
///
/// # Errors
/// A text is no value of its type.
pub(super) fn read(name: &str, args: Vec<Expr>, session_zone: Option<&str>) -> Result<Vec<Expr>> {
    if name != NAME {
        return Ok(args);
    }
    let read = |expr: Expr| -> Result<Transformed<Expr>> {
        let value = match &expr {
            Expr::Cast(cast) => constant_of(&cast.expr, &cast.field, session_zone)?,
            _ => None,
        };
        Ok(value.map_or_else(|| Transformed::no(expr), Transformed::yes))
    };
    args.into_iter().map(|arg| arg.transform_up(read).map(|done| done.data)).collect()
}

/// The arguments of a series of moments as the engine takes them, and the type of what it gives; `None` if
/// it is a series of something else.
///
/// # Errors
/// A text is none of what it has to be, or a moment is out of the range of nanoseconds.
pub(super) fn of_moments(
    name: &str,
    args: &[Expr],
    session_zone: Option<&str>,
) -> Result<Option<(Vec<Expr>, DataType)>> {
    let [Expr::Literal(first, _), Expr::Literal(last, _), Expr::Literal(step, _)] = args else {
        return Ok(None);
    };
    let bounds = [first, last];
    let is_moment = |value: &ScalarValue| {
        matches!(value.data_type(), DataType::Timestamp(..) | DataType::Date32)
    };
    if name != NAME || !bounds.into_iter().any(is_moment) {
        return Ok(None);
    }
    let mut zones = bounds.iter().filter_map(|bound| match bound.data_type() {
        DataType::Timestamp(_, zone) => Some(zone),
        _ => None,
    });
    let own = || Some(session_zone.unwrap_or("UTC").into());
    let zone = match (zones.next(), zones.next()) {
        (None, _) => own(),
        (Some(one), other) => one.or_else(|| other.flatten()),
    };
    let engine = DataType::Timestamp(TimeUnit::Nanosecond, zone.clone());
    let kind = DataType::Timestamp(TimeUnit::Microsecond, zone);
    let read: FieldRef = Arc::new(Field::new("", kind.clone(), true));
    let moment = |value: &ScalarValue| -> Result<Expr> {
        // By its text a date begins at midnight in the zone.
        let text = match value {
            ScalarValue::Date32(Some(_)) => value.cast_to(&DataType::Utf8)?,
            other => other.clone(),
        };
        let value = match constant_of(&Expr::Literal(text.clone(), None), &read, session_zone)? {
            Some(Expr::Literal(value, _)) => value,
            _ => text,
        };
        let cast = value.cast_to(&engine);
        let cast = cast.map_err(|_| plan_datafusion_err!("timestamp out of range: \"{value}\""))?;
        Ok(Expr::Literal(cast, None))
    };
    let args = vec![moment(first)?, moment(last)?, Expr::Literal(step.cast_to(&INTERVAL)?, None)];
    Ok(Some((args, kind)))
}

/// The rows of a series of moments with a zone whose days are those of the session's clocks; `None` for any
/// other series. The arguments are those that the engine takes.
///
/// # Errors
/// The step is zero, or there are too many rows.
pub(super) fn on_session_clocks(
    args: &[Expr],
    kind: &DataType,
    session_zone: Option<&str>,
) -> Result<Option<Arc<dyn TableSource>>> {
    let [Expr::Literal(first, _), Expr::Literal(last, _), Expr::Literal(step, _)] = args else {
        return Ok(None);
    };
    let micros = |value: &ScalarValue| match value.cast_to(kind) {
        Ok(ScalarValue::TimestampMicrosecond(micros, Some(_))) => micros,
        _ => None,
    };
    let (Some(first), Some(last)) = (micros(first), micros(last)) else { return Ok(None) };
    let ScalarValue::IntervalMonthDayNano(Some(step)) = step else { return Ok(None) };
    let Some(moments) = constant_series([first, last], *step, session_zone)? else {
        return Ok(None);
    };
    let DataType::Timestamp(_, zone) = kind else { return Ok(None) };
    let moments = TimestampMicrosecondArray::from(moments).with_timezone_opt(zone.clone());
    let schema = Arc::new(Schema::new(vec![Field::new("value", kind.clone(), false)]));
    let rows = RecordBatch::try_new(schema.clone(), vec![Arc::new(moments)])?;
    let table = MemTable::try_new(schema, vec![vec![rows]])?;
    Ok(Some(provider_as_source(Arc::new(table))))
}

/// The rows of a function of one column, as of another type.
pub(super) fn taken_as(
    name: &str,
    rows: Arc<dyn TableSource>,
    kind: DataType,
) -> Result<Arc<dyn TableSource>> {
    let plan = LogicalPlanBuilder::scan(name, rows, None)?;
    let columns: Vec<Expr> = plan
        .schema()
        .columns()
        .into_iter()
        .map(|column| {
            let Column { name, .. } = column.clone();
            cast(Expr::Column(column), kind.clone()).alias(name)
        })
        .collect();
    let plan = plan.project(columns)?.build()?;
    Ok(provider_as_source(Arc::new(ViewTable::new(plan, None))))
}
