//! Expressions that mean in PostgreSQL something else than in the engine.
//!
//! One rule, applied once all types are known:
//! - *text to a value*: a constant is read as PostgreSQL reads it, and so are columns of text cast
//!   to types for which the engine has no reading of its own ([`text::ValueOf`]);
//! - *a value to text* is written as PostgreSQL writes it ([`text::TextOf`]);
//! - *integer arithmetic* and sums refuse to overflow, where the engine wraps
//!   ([`arithmetic::Checked`], [`sum::CheckedSum`]);
//! - *casts to integers* round, where the engine cuts off ([`rounding::RoundToEven`]);
//! - *casts of a `timestamptz`*, and functions of it that look at a clock, use the session's zone,
//!   where the engine uses that of the column's type ([`zones`]).
//!
//! Before that a string next to a `uuid` becomes one ([`uuids`]).
//!
//! Functions whose results can be huge are bounded ([`bounded`]).

mod arithmetic;
mod armor;
mod bounded;
mod labelled;
mod rounding;
mod sum;
mod text;
mod uuids;
mod zones;

use std::sync::Arc;

use arrow::array::Array;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::expr::{BinaryExpr, Cast, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    AggregateUDF, Expr, ExprSchemable, LogicalPlan, ScalarUDF, in_list,
};
use datafusion::optimizer::AnalyzerRule;

use crate::values::encode::TimeZone;

pub use bounded::TooLarge;
pub(super) use uuids::Uuids;

/// The rule. It belongs behind the engine's own rule that settles types.
#[derive(Debug)]
pub(super) struct Semantics {
    checked: Arc<ScalarUDF>,
    round: Arc<ScalarUDF>,
    at_time_zone: Arc<ScalarUDF>,
}

impl Default for Semantics {
    fn default() -> Self {
        Self {
            checked: Arc::new(ScalarUDF::new_from_impl(arithmetic::Checked::default())),
            round: Arc::new(ScalarUDF::new_from_impl(rounding::RoundToEven::default())),
            at_time_zone: Arc::new(ScalarUDF::new_from_impl(zones::AtTimeZone::default())),
        }
    }
}

/// The aggregate functions that replace those of the engine.
pub(super) fn aggregate_functions() -> Vec<Arc<AggregateUDF>> {
    vec![Arc::new(AggregateUDF::new_from_impl(sum::CheckedSum::default()))]
}

/// The functions that replace those of the engine, and what the rewriting of PostgreSQL's dialect
/// relies on.
pub(super) fn scalar_functions() -> Vec<Arc<ScalarUDF>> {
    vec![
        Arc::new(ScalarUDF::new_from_impl(armor::Encode::default())),
        Arc::new(ScalarUDF::new_from_impl(armor::Decode::default())),
        Arc::new(ScalarUDF::new_from_impl(zones::AtTimeZone::default())),
        Arc::new(ScalarUDF::new_from_impl(labelled::Labelled::default())),
    ]
}

/// The forms of the engine's functions that do not make huge values.
pub(super) fn bounded_functions(
    known: impl Fn(&str) -> Option<Arc<ScalarUDF>>,
) -> Vec<Arc<ScalarUDF>> {
    bounded::functions(known)
}

impl AnalyzerRule for Semantics {
    fn name(&self) -> &str {
        "postgres_semantics"
    }

    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        let zone = session_zone(config);
        plan.transform_up_with_subqueries(|plan| self.node(plan, &zone)).map(|done| done.data)
    }
}

/// The session's time zone, as the engine's functions find it.
fn session_zone(config: &ConfigOptions) -> TimeZone {
    config.execution.time_zone.as_deref().and_then(TimeZone::parse).unwrap_or_default()
}

impl Semantics {
    fn node(&self, plan: LogicalPlan, zone: &TimeZone) -> Result<Transformed<LogicalPlan>> {
        let mut schema = merge_schema(&plan.inputs());
        if let LogicalPlan::TableScan(scan) = &plan {
            let columns = scan.source.schema();
            let name = scan.table_name.clone();
            schema.merge(&DFSchema::try_from_qualified_schema(name, &columns)?);
        }
        let names = NamePreserver::new(&plan);
        let done = plan.map_expressions(|expr| {
            let name = names.save(&expr);
            let done = expr.transform_up(|expr| self.expression(expr, &schema, zone))?;
            Ok(match done.transformed {
                true => done.update_data(|expr| name.restore(expr)),
                false => done,
            })
        })?;
        match done.transformed {
            true => done.map_data(LogicalPlan::recompute_schema),
            false => Ok(done),
        }
    }

    fn expression(
        &self,
        expr: Expr,
        schema: &DFSchema,
        zone: &TimeZone,
    ) -> Result<Transformed<Expr>> {
        Ok(match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                let integers = || {
                    let (left, right) = (left.get_type(schema).ok(), right.get_type(schema).ok());
                    left == right && left.is_some_and(|kind| kind.is_integer())
                };
                match arithmetic::can_overflow(op) && integers() {
                    true => Transformed::yes(arithmetic::call(&self.checked, op, *left, *right)),
                    false => Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })),
                }
            }
            Expr::Cast(cast) => self.cast(cast, schema, zone)?,
            Expr::ScalarFunction(function) => {
                member_of_constant(on_session_clocks(function, schema, zone))
            }
            other => Transformed::no(other),
        })
    }

    fn cast(&self, cast: Cast, schema: &DFSchema, zone: &TimeZone) -> Result<Transformed<Expr>> {
        let Cast { expr, field } = cast;
        if let Some(constant) = text::constant(&expr, &field, zone)? {
            return Ok(Transformed::yes(constant));
        }
        let Ok((_, source)) = expr.to_field(schema) else {
            return Ok(Transformed::no(Expr::Cast(Cast { expr, field })));
        };
        let (from, to) = (source.data_type(), field.data_type());
        if let Some(function) = text::ValueOf::cast(&source, &field) {
            return Ok(Transformed::yes(function.call(vec![*expr])));
        }
        // What remains is a cast of something else to the same type.
        let inner = rounding::rounded(&self.round, &expr, from, to)
            .or_else(|| zones::on_clocks(&self.at_time_zone, &expr, from, to, zone))
            .or_else(|| Some(text::TextOf::cast(&source, &field)?.call(vec![(*expr).clone()])));
        Ok(match inner {
            Some(inner) => Transformed::yes(Expr::Cast(Cast { expr: Box::new(inner), field })),
            None => Transformed::no(Expr::Cast(Cast { expr, field })),
        })
    }
}

/// Functions that look at a clock look at the session's.
fn on_session_clocks(
    mut function: ScalarFunction,
    schema: &DFSchema,
    zone: &TimeZone,
) -> Transformed<ScalarFunction> {
    let mut changed = false;
    for arg in &mut function.args {
        let Ok((_, field)) = arg.to_field(schema) else { continue };
        if let Some(arg_in_zone) = zones::in_session(function.func.name(), arg, &field, zone) {
            *arg = arg_in_zone;
            changed = true;
        }
    }
    match changed {
        true => Transformed::yes(function),
        false => Transformed::no(function),
    }
}

/// `x = ANY(...)` of a constant array is `x IN (...)`: that skips row groups, and knows of NULL.
fn member_of_constant(function: Transformed<ScalarFunction>) -> Transformed<Expr> {
    let Transformed { data: function, transformed, tnr } = function;
    if function.func.name() == "array_has"
        && let [list, member] = function.args.as_slice()
        && let Some(ScalarValue::List(list)) = constant(list)
        && list.len() == 1
        && list.is_valid(0)
    {
        let items = list.value(0);
        let list = (0..items.len()).map(|at| ScalarValue::try_from_array(&items, at));
        let list = list.map(|item| item.map(|item| Expr::Literal(item, None)));
        if let Ok(list) = list.collect::<Result<Vec<_>>>()
            && !list.is_empty()
        {
            return Transformed::yes(in_list(member.clone(), list, false));
        }
    }
    Transformed::new(Expr::ScalarFunction(function), transformed, tnr)
}

/// The value of a constant, or of the cast of one.
fn constant(expr: &Expr) -> Option<ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Some(value.clone()),
        Expr::Cast(Cast { expr, field }) => constant(expr)?.cast_to(field.data_type()).ok(),
        _ => None,
    }
}
