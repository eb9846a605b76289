//! Expressions that mean in PostgreSQL something else than in the engine.
//!
//! One rule, applied once all types are known:
//! - *text to a value*: a constant is read as PostgreSQL reads it, and so are columns of text cast
//!   to types for which the engine has no reading of its own ([`text::ValueOf`]);
//! - *a value to text* is written as PostgreSQL writes it ([`text::TextOf`]);
//! - *integer arithmetic* and sums refuse to overflow, where the engine wraps
//!   ([`arithmetic::Checked`], [`sum::CheckedSum`]);
//! - *arithmetic of decimals* does the same as the engine's, quicker ([`decimals`]);
//! - *casts to integers* round, where the engine cuts off ([`rounding::RoundToEven`]);
//! - *casts of a `timestamptz`*, and functions of it that look at a clock, use the session's zone,
//!   where the engine uses that of the column's type ([`zones`]).
//!
//! - *intervals* are compared and sorted by how long they are ([`intervals`]).
//!
//! What depends on the types of an operator's two sides is settled before ([`operators`]), and a
//! string next to a `uuid` becomes one ([`uuids`]).
//! Functions whose results can be huge are bounded ([`bounded`], [`collected`], [`joined`],
//! [`repeated`]), and what counts or numbers something gives signed numbers ([`typed`]).

mod arithmetic;
mod armor;
mod bounded;
mod collected;
mod decimals;
mod intervals;
mod joined;
mod labelled;
mod operators;
mod repeated;
mod rounding;
mod shifted;
mod sum;
mod text;
mod typed;
mod uuids;
mod zones;

use std::sync::Arc;

use arrow::array::Array;
use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::expr::{BinaryExpr, Case, Cast, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    AggregateUDF, Expr, ExprSchemable, LogicalPlan, Operator, ScalarUDF, WindowUDF, binary_expr,
    cast, in_list, lit,
};
use datafusion::optimizer::AnalyzerRule;

use crate::values::encode::TimeZone;
use crate::values::types::{dimensions, is_text};
use intervals::INTERVAL;

pub use bounded::TooLarge;
pub(super) use operators::Operators;
pub(super) use repeated::LargeConstants;
pub(super) use shifted::ShiftedSums;
pub(super) use uuids::Uuids;

/// The rule. It belongs behind the engine's own rule that settles types.
#[derive(Debug)]
pub(super) struct Semantics {
    checked: Arc<ScalarUDF>,
    round: Arc<ScalarUDF>,
    at_time_zone: Arc<ScalarUDF>,
    joined: Arc<ScalarUDF>,
    interval_order: Arc<ScalarUDF>,
}

impl Default for Semantics {
    fn default() -> Self {
        Self {
            checked: Arc::new(ScalarUDF::new_from_impl(arithmetic::Checked::default())),
            round: Arc::new(ScalarUDF::new_from_impl(rounding::RoundToEven::default())),
            at_time_zone: Arc::new(ScalarUDF::new_from_impl(zones::AtTimeZone::default())),
            joined: Arc::new(ScalarUDF::new_from_impl(joined::Joined::default())),
            interval_order: Arc::new(ScalarUDF::new_from_impl(intervals::Order::default())),
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

/// The functions that the rule puts in place of operators. No statement can call them: names lead to
/// them only where plans come from other daemons.
pub(super) fn unnamed_functions() -> Vec<Arc<ScalarUDF>> {
    let Semantics { checked, round, joined, interval_order, .. } = Semantics::default();
    let scaled = |divided| Arc::new(ScalarUDF::new_from_impl(intervals::Scaled::new(divided)));
    vec![checked, round, joined, interval_order, scaled(false), scaled(true)]
}

/// The forms of the engine's functions that do not make huge values, or have PostgreSQL's types.
pub(super) fn amended_functions(
    known: impl Fn(&str) -> Option<Arc<ScalarUDF>>,
) -> Vec<Arc<ScalarUDF>> {
    let mut functions = bounded::functions(&known);
    functions.extend(typed::functions(known));
    functions
}

/// The same for aggregates.
pub(super) fn amended_aggregates(
    known: impl Fn(&str) -> Option<Arc<AggregateUDF>>,
) -> Vec<Arc<AggregateUDF>> {
    collected::functions(known)
}

/// The same for window functions.
pub(super) fn amended_windows(
    known: impl Fn(&str) -> Option<Arc<WindowUDF>>,
) -> Vec<Arc<WindowUDF>> {
    typed::window_functions(known)
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
        let sorts = matches!(plan, LogicalPlan::Sort(_));
        let done = plan.map_expressions(|expr| {
            let name = names.save(&expr);
            let mut done = expr.transform_up(|expr| self.expression(expr, &schema, zone))?;
            if sorts && is_interval(&done.data, &schema) {
                let order = self.interval_order.call(vec![done.data]);
                done = Transformed::yes(order);
            }
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
            Expr::BinaryExpr(binary) => self.operator(binary, schema),
            Expr::Cast(cast) => self.cast(cast, schema, zone)?,
            Expr::ScalarFunction(function) if rounds_float(&function, schema) => {
                Transformed::yes(self.round.call(function.args))
            }
            Expr::ScalarFunction(function) => {
                let function = on_session_clocks(function, schema, zone);
                member_of_constant(function.update_data(|function| short_truths(function, schema)))
            }
            other => Transformed::no(other),
        })
    }

    /// An operator between values of one type.
    fn operator(&self, binary: BinaryExpr, schema: &DFSchema) -> Transformed<Expr> {
        let BinaryExpr { left, op, right } = binary;
        let both = |fits: fn(&DataType) -> bool| {
            let (left, right) = (left.get_type(schema).ok(), right.get_type(schema).ok());
            left == right && left.is_some_and(|kind| fits(&kind))
        };
        if both(DataType::is_integer) && arithmetic::can_overflow(op, &left, &right, schema) {
            return Transformed::yes(arithmetic::call(&self.checked, op, *left, *right));
        }
        let is_constant = |side: &Expr| matches!(side, Expr::Literal(..));
        if let (Ok(of_left), Ok(of_right)) = (left.get_type(schema), right.get_type(schema))
            && arithmetic::is_of_decimals(op, &of_left, &of_right)
            && !(is_constant(&left) && is_constant(&right))
        {
            let call = arithmetic::call_of_decimals(&self.checked, op, *left, *right);
            return Transformed::yes(call);
        }
        if op == Operator::StringConcat && both(is_text) {
            return Transformed::yes(joined::call(&self.joined, *left, *right));
        }
        if compares(op) && both(|kind| *kind == INTERVAL) {
            let order = |side: Box<Expr>| self.interval_order.call(vec![*side]);
            return Transformed::yes(binary_expr(order(left), op, order(right)));
        }
        Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right }))
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
        same_dimensions(from, to)?;
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

/// Refuses an array as one of other dimensions: the engine would write the inner arrays as texts, or
/// make arrays of the values.
fn same_dimensions(from: &DataType, to: &DataType) -> Result<()> {
    let (given, wanted) = (dimensions(from), dimensions(to));
    if given == wanted || given == 0 || wanted == 0 || holds_nothing(from) {
        return Ok(());
    }
    let written = |dimensions: usize| "[]".repeat(dimensions);
    Err(DataFusionError::NotImplemented(format!(
        "an array of a type with {} cannot become one of a type with {}: dimensions are fixed",
        written(given),
        written(wanted)
    )))
}

/// Whether it is the type of `ARRAY[]`.
fn holds_nothing(data_type: &DataType) -> bool {
    matches!(data_type, DataType::List(element) if element.data_type().is_null())
}

/// `round` of a float, which takes the even one of two.
fn rounds_float(function: &ScalarFunction, schema: &DFSchema) -> bool {
    let float = |arg: &Expr| arg.get_type(schema).is_ok_and(|kind| kind.is_floating());
    function.func.name() == "round" && matches!(function.args.as_slice(), [arg] if float(arg))
}

/// `concat` writes truth values as `t` and `f`.
fn short_truths(mut function: ScalarFunction, schema: &DFSchema) -> ScalarFunction {
    if !matches!(function.func.name(), "concat" | "concat_ws") {
        return function;
    }
    for arg in &mut function.args {
        if let Expr::Cast(Cast { expr, field }) = arg
            && expr.get_type(schema).is_ok_and(|kind| kind == DataType::Boolean)
        {
            let letter = |letter: &str| Box::new(cast(lit(letter), field.data_type().clone()));
            let truth = expr.as_ref().clone();
            let otherwise = Expr::Not(Box::new(truth.clone()));
            let cases = vec![(Box::new(truth), letter("t")), (Box::new(otherwise), letter("f"))];
            *arg = Expr::Case(Case { expr: None, when_then_expr: cases, else_expr: None });
        }
    }
    function
}

fn compares(op: Operator) -> bool {
    use Operator::*;
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

fn is_interval(expr: &Expr, schema: &DFSchema) -> bool {
    expr.get_type(schema).is_ok_and(|kind| kind == INTERVAL)
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
