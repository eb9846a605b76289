//! What a condition on a moment as a zone's clocks show it implies of the column itself, by which files and
//! row groups are skipped: `timezone('Europe/Berlin', t) >= k` is nothing that they say anything about.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema, ExprSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{BinaryExpr, Cast};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, Filter, LogicalPlan, Operator, binary_expr};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use super::zones::AtTimeZone;
use crate::values::encode::TimeZone;

/// A day, in microseconds.
const DAY: i64 = 86_400 * 1_000_000;

/// The rule. It belongs behind the one that computes constants, and adds to what a filter asks of all its
/// rows alone: there NULL and false are one, and a NULL column makes NULL of both conditions.
#[derive(Debug)]
pub(in crate::engine) struct Implied;

impl OptimizerRule for Implied {
    fn name(&self) -> &str {
        "implied_moments"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        let filter = match plan {
            LogicalPlan::Filter(filter) => filter,
            // Where conditions have gone down already.
            LogicalPlan::TableScan(mut scan) if !scan.filters.is_empty() => {
                let columns = scan.source.schema();
                let schema =
                    DFSchema::try_from_qualified_schema(scan.table_name.clone(), &columns)?;
                let added = added(&scan.filters.iter().collect::<Vec<_>>(), &schema);
                let changed = !added.is_empty();
                scan.filters.extend(added);
                return Ok(Transformed::new_transformed(LogicalPlan::TableScan(scan), changed));
            }
            other => return Ok(Transformed::no(other)),
        };
        let added = added(&split_conjunction(&filter.predicate), filter.input.schema());
        let Some(added) = added.into_iter().reduce(Expr::and) else {
            return Ok(Transformed::no(LogicalPlan::Filter(filter)));
        };
        let predicate = filter.predicate.and(added);
        Ok(Transformed::yes(LogicalPlan::Filter(Filter::try_new(predicate, filter.input)?)))
    }
}

/// What conditions imply of columns, beside what they say.
fn added(asked: &[&Expr], schema: &DFSchema) -> Vec<Expr> {
    let mut added: Vec<Expr> = Vec::new();
    for bound in asked.iter().flat_map(|condition| bounds(condition, schema)) {
        if !asked.contains(&&bound) && !added.contains(&bound) {
            added.push(bound);
        }
    }
    added
}

/// The bounds of a column that a comparison with a constant implies.
fn bounds(condition: &Expr, schema: &DFSchema) -> Vec<Expr> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = condition else { return Vec::new() };
    let (shown, op, constant) = match (left.as_ref(), right.as_ref()) {
        (shown, Expr::Literal(constant, _)) => (shown, Some(*op), constant),
        (Expr::Literal(constant, _), shown) => (shown, op.swap(), constant),
        _ => return Vec::new(),
    };
    let (low, high) = match op {
        Some(Operator::Eq) => (true, true),
        Some(Operator::Gt | Operator::GtEq) => (true, false),
        Some(Operator::Lt | Operator::LtEq) => (false, true),
        _ => return Vec::new(),
    };
    let Some(moment) = micros(constant) else { return Vec::new() };
    let Some((column, days)) = column_of(shown, moment) else { return Vec::new() };
    let Ok(field) = schema.field_from_column(column) else { return Vec::new() };
    let bound = |op: Operator, days: i64| {
        let value = value(moment.checked_add(days * DAY)?, field.data_type())?;
        Some(binary_expr(Expr::Column(column.clone()), op, Expr::Literal(value, None)))
    };
    let low = low.then(|| bound(Operator::GtEq, -days)).flatten();
    let high = high.then(|| bound(Operator::LtEq, days)).flatten();
    low.into_iter().chain(high).collect()
}

/// The column that a moment is made of by clocks, and how many days at most that moment is off. `None` if
/// something else is done to it, or no clock has to do with it: then the engine skips by itself.
fn column_of(mut shown: &Expr, moment: i64) -> Option<(&Column, i64)> {
    let (mut days, mut clocks) = (0, false);
    loop {
        shown = match shown {
            Expr::Column(column) => return clocks.then_some((column, days)),
            // What is cut off is less than a day.
            Expr::Cast(Cast { expr, field }) if is_of_moments(field.data_type()) => expr,
            Expr::ScalarFunction(call) if call.func.name() == AtTimeZone::NAME => {
                let [Expr::Literal(zone, _), inner] = call.args.as_slice() else { return None };
                let zone = TimeZone::parse(zone.try_as_str().flatten()?)?;
                // Zones with a name are never that far; those in hours may be, and are so always.
                let offset = i64::from(zone.offset_at(moment.div_euclid(1_000_000)));
                if offset.abs() >= DAY / 1_000_000 {
                    return None;
                }
                clocks = true;
                inner
            }
            _ => return None,
        };
        days += 1;
    }
}

fn is_of_moments(kind: &DataType) -> bool {
    matches!(kind, DataType::Timestamp(..) | DataType::Date32)
}

/// A moment or a day's midnight, in microseconds since 1970 on whatever clocks.
fn micros(value: &ScalarValue) -> Option<i64> {
    match value {
        ScalarValue::TimestampSecond(moment, _) => (*moment)?.checked_mul(1_000_000),
        ScalarValue::TimestampMillisecond(moment, _) => (*moment)?.checked_mul(1_000),
        ScalarValue::TimestampMicrosecond(moment, _) => *moment,
        ScalarValue::TimestampNanosecond(moment, _) => {
            moment.map(|moment| moment.div_euclid(1_000))
        }
        ScalarValue::Date32(day) => i64::from((*day)?).checked_mul(DAY),
        _ => None,
    }
}

/// The same as a value of a column's type.
fn value(micros: i64, kind: &DataType) -> Option<ScalarValue> {
    Some(match kind {
        DataType::Date32 => ScalarValue::Date32(Some(i32::try_from(micros.div_euclid(DAY)).ok()?)),
        DataType::Timestamp(unit, zone) => {
            let zone = zone.clone();
            match unit {
                TimeUnit::Second => {
                    ScalarValue::TimestampSecond(Some(micros.div_euclid(1_000_000)), zone)
                }
                TimeUnit::Millisecond => {
                    ScalarValue::TimestampMillisecond(Some(micros.div_euclid(1_000)), zone)
                }
                TimeUnit::Microsecond => ScalarValue::TimestampMicrosecond(Some(micros), zone),
                TimeUnit::Nanosecond => {
                    ScalarValue::TimestampNanosecond(Some(micros.checked_mul(1_000)?), zone)
                }
            }
        }
        _ => return None,
    })
}
