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
//! - *casts from and to `timestamptz`*, and functions of it that look at a clock, use the session's zone,
//!   where the engine uses that of the column's type ([`zones`]); so do sums of it and intervals ([`moved`]).
//!   Constants with a zone and without are kept apart ([`apart`], [`bare`]). What such a cast is compared with
//!   bounds the column ([`implied`]).
//!
//! - *intervals* are compared and sorted by how long they are ([`intervals`]), JSON as `jsonb` is ([`json`]).
//!
//! What depends on the types of an operator's two sides is settled before ([`operators`]), and so is what
//! several values of different types are compared as ([`comparisons`], [`mixed`], [`sets`],
//! [`uuids`], [`equal_json`]), and which of them are JSON ([`json_types`]). Some calls are refused ([`refused`]).
//! Times are rounded to the digits of their type ([`precision`]).
//! Functions that mean something else in PostgreSQL take the place of the engine's ([`lengths`],
//! [`members`], [`moments`], [`templates`], [`whole`]), and some it has not ([`buckets`], [`made`]). Functions whose results can be huge are bounded ([`bounded`], [`collected`], [`joined`],
//! [`repeated`]), and what counts or numbers something gives signed numbers ([`typed`]).

mod alike;
mod apart;
mod arithmetic;
mod armor;
mod averages;
mod bare;
mod bins;
mod bounded;
mod buckets;
mod cased;
mod changed;
mod chosen;
mod collected;
mod comparisons;
mod decimals;
mod distinctions;
mod domains;
mod equal_json;
mod extremes;
mod fractions;
mod implied;
mod intervals;
mod joined;
mod json;
mod json_types;
mod labelled;
mod lengths;
mod literals;
mod made;
mod matched;
mod members;
mod mixed;
mod moments;
mod moved;
mod operators;
mod precision;
mod ranges;
mod reached;
mod refused;
mod repeated;
mod replaced;
mod rounding;
mod series;
mod sets;
mod shifted;
mod sum;
mod templates;
mod text;
mod truths;
mod typed;
mod unordered;
mod uuids;
mod whole;
mod words;
mod zones;

use std::sync::Arc;

use arrow::array::Array;
use arrow::datatypes::{DataType, FieldRef, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::error::DataFusionError;
use datafusion::functions_nested::array_has::array_has_udf;
use datafusion::logical_expr::expr::{
    Between, BinaryExpr, Case, Cast, GroupingSet, InList, ScalarFunction,
};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    AggregateUDF, Expr, ExprSchemable, LogicalPlan, Operator, ScalarUDF, Volatility, WindowUDF,
    binary_expr, cast, in_list,
};
use datafusion::optimizer::AnalyzerRule;

use crate::values::encode::TimeZone;
use crate::values::types::{dimensions, is_text, json_type};
pub(super) use intervals::INTERVAL;

pub(super) use alike::Arrays;
pub(super) use apart::Apart;
pub use bounded::TooLarge;
pub(super) use comparisons::Comparisons;
pub(super) use distinctions::Distinctions;
pub(super) use implied::Implied;
pub use json::JsonError;
pub(super) use json_types::{anew as json_anew, parameter_as};
pub(super) use operators::Operators;
pub(super) use precision::kept;
pub(super) use ranges::Ranges;
pub(super) use repeated::LargeConstants;
pub(super) use series::constant_series;
pub(super) use shifted::ShiftedSums;
pub(super) use typed::row_number;
pub(super) use unordered::Unordered;

/// The rule. It belongs behind the engine's own rule that settles types.
#[derive(Debug)]
pub(super) struct Semantics {
    checked: Arc<ScalarUDF>,
    round: Arc<ScalarUDF>,
    shorten: Arc<ScalarUDF>,
    at_time_zone: Arc<ScalarUDF>,
    joined: Arc<ScalarUDF>,
    interval_order: Arc<ScalarUDF>,
    array_has: Arc<ScalarUDF>,
    json_order: Arc<ScalarUDF>,
    sums: moved::Sums,
    words: words::Words,
}

impl Default for Semantics {
    fn default() -> Self {
        Self {
            checked: Arc::new(ScalarUDF::new_from_impl(arithmetic::Checked::default())),
            round: Arc::new(ScalarUDF::new_from_impl(rounding::RoundToEven::default())),
            shorten: Arc::new(ScalarUDF::new_from_impl(rounding::Shortened::default())),
            at_time_zone: Arc::new(ScalarUDF::new_from_impl(zones::AtTimeZone::default())),
            joined: Arc::new(ScalarUDF::new_from_impl(joined::Joined::default())),
            interval_order: Arc::new(ScalarUDF::new_from_impl(intervals::Order::default())),
            array_has: Arc::new(ScalarUDF::new_from_impl(members::ArrayHas::new(array_has_udf()))),
            json_order: json::order(),
            sums: moved::Sums::default(),
            words: words::Words::default(),
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
    let mut functions = vec![
        Arc::new(ScalarUDF::new_from_impl(armor::Encode::default())),
        Arc::new(ScalarUDF::new_from_impl(armor::Decode::default())),
        Arc::new(ScalarUDF::new_from_impl(zones::AtTimeZone::default())),
        Arc::new(ScalarUDF::new_from_impl(zones::AtTimeZone::of_moment())),
        Arc::new(ScalarUDF::new_from_impl(moments::IsFinite::default())),
        Arc::new(ScalarUDF::new_from_impl(labelled::Labelled::default())),
        Arc::new(ScalarUDF::new_from_impl(moments::Age::default())),
        Arc::new(ScalarUDF::new_from_impl(uuids::AsUuid::default())),
        Arc::new(ScalarUDF::new_from_impl(matched::Matched::default())),
        Arc::new(ScalarUDF::new_from_impl(precision::WithPrecision::default())),
        Arc::new(ScalarUDF::new_from_impl(precision::WithPrecision::unknown())),
        Arc::new(ScalarUDF::new_from_impl(buckets::WidthBucket::default())),
        Arc::new(ScalarUDF::new_from_impl(fractions::AtFraction::default())),
        Arc::new(ScalarUDF::new_from_impl(fractions::InOrder::default())),
        Arc::new(ScalarUDF::new_from_impl(fractions::MostFrequent::default())),
    ];
    functions.extend(json::functions());
    functions.extend(reached::functions());
    functions.extend(changed::functions());
    functions.extend(made::functions());
    functions
}

/// The functions that the rule puts in place of operators. No statement can call them: names lead to
/// them only where plans come from other daemons.
pub(super) fn unnamed_functions() -> Vec<Arc<ScalarUDF>> {
    let Semantics { checked, round, shorten, joined, interval_order, .. } = Semantics::default();
    let scaled = |divided| Arc::new(ScalarUDF::new_from_impl(intervals::Scaled::new(divided)));
    let difference = Arc::new(ScalarUDF::new_from_impl(moments::Difference::default()));
    let mut functions = vec![
        checked,
        round,
        shorten,
        joined,
        interval_order,
        scaled(false),
        scaled(true),
        difference,
    ];
    functions.extend(moved::functions());
    functions.extend(text::readers());
    functions.push(Arc::new(ScalarUDF::new_from_impl(series::MomentSeries::default())));
    functions.push(Arc::new(ScalarUDF::new_from_impl(zones::ClockOffset::default())));
    functions.push(Arc::new(ScalarUDF::new_from_impl(ranges::Roomy::default())));
    functions.push(Arc::new(ScalarUDF::new_from_impl(intervals::Epoch::default())));
    functions.extend([bare::function(), bare::optional()]);
    functions
}

/// Whether a function gives the same for the same arguments, on any daemon and at any time: `to_char` reads the
/// session's settings besides, which a statement has wherever it runs.
pub(super) fn is_lasting(function: &ScalarUDF) -> bool {
    function.signature().volatility == Volatility::Immutable
        || function.name() == templates::TO_CHAR
}

/// The forms of the engine's functions that do not make huge values, or have PostgreSQL's types.
pub(super) fn amended_functions(
    known: impl Fn(&str) -> Option<Arc<ScalarUDF>>,
) -> Vec<Arc<ScalarUDF>> {
    let mut functions = bounded::functions(&known);
    functions.extend(domains::functions(&known));
    functions.extend(lengths::functions(&known));
    functions.extend(whole::functions(&known));
    let truncated = |inner| Arc::new(ScalarUDF::new_from_impl(moments::DateTrunc::new(inner)));
    functions.extend(known("date_trunc").map(truncated));
    let now = |_| Arc::new(ScalarUDF::new_from_impl(words::Now::new(&ConfigOptions::default())));
    functions.extend(known("now").map(now));
    let since = |inner| Arc::new(ScalarUDF::new_from_impl(moments::AgeSince::new(inner)));
    functions.extend(known(moments::AgeSince::NAME).map(since));
    let has = |inner| Arc::new(ScalarUDF::new_from_impl(members::ArrayHas::new(inner)));
    functions.extend(known(members::NAME).map(has));
    functions.extend(members::functions(&known));
    functions.extend(alike::functions(&known));
    functions.extend(bins::function(&known));
    functions.extend(replaced::function(&known));
    functions.extend(cased::functions(&known));
    functions.extend(templates::functions(&known));
    functions.extend(typed::functions(known));
    functions
}

/// The same for aggregates.
pub(super) fn amended_aggregates(
    known: impl Fn(&str) -> Option<Arc<AggregateUDF>>,
) -> Vec<Arc<AggregateUDF>> {
    let mut functions = collected::functions(&known);
    functions.extend(averages::functions(&known));
    functions.extend(extremes::functions(known));
    functions
}

/// The same for window functions.
pub(super) fn amended_windows(
    known: impl Fn(&str) -> Option<Arc<WindowUDF>>,
) -> Vec<Arc<WindowUDF>> {
    typed::window_functions(known)
}

/// The value of a text that is cast to a field's type, as PostgreSQL reads it in a session's time zone; `None`
/// if the engine is to read it.
///
/// # Errors
/// It is none.
pub(super) fn constant_of(
    expr: &Expr,
    field: &FieldRef,
    zone: Option<&str>,
) -> Result<Option<Expr>> {
    text::constant(expr, field, &zone.and_then(TimeZone::parse).unwrap_or_default())
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
        if let LogicalPlan::RecursiveQuery(query) = &plan
            && let Some(query) = bare::recursive(query)?
        {
            return Ok(Transformed::yes(query));
        }
        let mut schema = merge_schema(&plan.inputs());
        if let LogicalPlan::TableScan(scan) = &plan {
            let columns = scan.source.schema();
            let name = scan.table_name.clone();
            schema.merge(&DFSchema::try_from_qualified_schema(name, &columns)?);
        }
        let names = NamePreserver::new(&plan);
        let sorts = matches!(plan, LogicalPlan::Sort(_));
        let done = plan.map_expressions(|expr| {
            if let Expr::GroupingSet(set) = expr {
                let each = |expr: Expr| {
                    let name = names.save(&expr);
                    let done = expr.transform_up(|expr| self.expression(expr, &schema, zone))?;
                    Ok(done.update_data(|expr| name.restore(expr)))
                };
                return grouped(set, each);
            }
            let name = names.save(&expr);
            let mut done = expr.transform_up(|expr| self.expression(expr, &schema, zone))?;
            if sorts && is_interval(&done.data, &schema) {
                let order = self.interval_order.call(vec![done.data]);
                done = Transformed::yes(order);
            } else if sorts && equal_json::gives_json(&done.data, &schema) {
                let order = self.json_order.call(vec![done.data]);
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
            Expr::BinaryExpr(binary) => self.operator(binary, schema, zone),
            Expr::Cast(cast) => self.cast(cast, schema, zone)?,
            Expr::Case(case) => chosen::in_order(case, schema),
            Expr::ScalarSubquery(subquery) => match bare::of_subquery(&subquery)? {
                Some(optional) => Transformed::yes(Expr::ScalarSubquery(optional)),
                None => Transformed::no(Expr::ScalarSubquery(subquery)),
            },
            Expr::Negative(operand) => self.negative(*operand, schema),
            Expr::Between(between) if is_interval(&between.expr, schema) => {
                let Between { expr, negated, low, high } = between;
                let [expr, low, high] = [expr, low, high].map(|side| Box::new(self.length(*side)));
                Transformed::yes(Expr::Between(Between { expr, negated, low, high }))
            }
            Expr::InList(list) if is_interval(&list.expr, schema) => {
                let InList { expr, list, negated } = list;
                let items = list.into_iter().map(|item| self.length(item)).collect();
                Transformed::yes(in_list(self.length(*expr), items, negated))
            }
            Expr::ScalarFunction(function) if chooses_interval(&function, schema) => {
                Transformed::yes(self.chosen(function))
            }
            Expr::ScalarFunction(function) if rounds_float(&function, schema) => {
                Transformed::yes(self.round.call(function.args))
            }
            Expr::ScalarFunction(function) => {
                let part = zones::part_of_zone(&function, schema, zone)?;
                if let Some(other) = part
                    .or_else(|| intervals::epoch(&function, schema))
                    .or_else(|| series::on_session_clocks(&function, schema, zone))
                    .or_else(|| zones::of_day(&function, schema, zone))
                    .or_else(|| self.age(&function, schema, zone))
                {
                    return Ok(Transformed::yes(other));
                }
                let function = with_texts(function, schema)
                    .transform_data(|function| Ok(on_session_clocks(function, schema, zone)))?;
                member_of_constant(function).update_data(|expr| self.with_nulls(expr))
            }
            other => Transformed::no(other),
        })
    }

    /// `age(moment)` by what a clock has shown then, and shows at midnight.
    fn age(&self, function: &ScalarFunction, schema: &DFSchema, zone: &TimeZone) -> Option<Expr> {
        let [moment] = function.args.as_slice() else { return None };
        let kind = moment.get_type(schema).ok()?;
        if function.func.name() != moments::AgeSince::NAME
            || !moments::AgeSince::is_of(std::slice::from_ref(&kind))
        {
            return None;
        }
        let local = DataType::Timestamp(TimeUnit::Microsecond, None);
        let shown = match kind {
            DataType::Timestamp(_, Some(_)) => {
                let name = Expr::Literal(ScalarValue::from(zone.name()), None);
                self.at_time_zone.call(vec![name, moment.clone()])
            }
            _ => moment.clone(),
        };
        let midnight = cast(self.words.today(zone, &self.at_time_zone), local.clone());
        let age = ScalarUDF::new_from_impl(moments::Age::default());
        Some(age.call(vec![midnight, cast(shown, local)]))
    }

    /// How long an interval is.
    fn length(&self, interval: Expr) -> Expr {
        self.interval_order.call(vec![interval])
    }

    /// A number with the other sign. The least integer has none; NaN has one to the engine, which sorts it
    /// by that.
    fn negative(&self, operand: Expr, schema: &DFSchema) -> Transformed<Expr> {
        let minus_one = match operand.get_type(schema) {
            Ok(DataType::Float64) => Some(ScalarValue::Float64(Some(-1.0))),
            Ok(DataType::Float32) => Some(ScalarValue::Float32(Some(-1.0))),
            _ => None,
        };
        if let Some(minus_one) = minus_one {
            let minus_one = Expr::Literal(minus_one, None);
            return Transformed::yes(binary_expr(operand, Operator::Multiply, minus_one));
        }
        let zero = (operand.get_type(schema).ok())
            .filter(DataType::is_signed_integer)
            .and_then(|kind| ScalarValue::new_zero(&kind).ok())
            .map(|zero| Expr::Literal(zero, None));
        match zero {
            Some(zero) if arithmetic::can_overflow(Operator::Minus, &zero, &operand, schema) => {
                Transformed::yes(arithmetic::call(&self.checked, Operator::Minus, zero, operand))
            }
            _ => Transformed::no(Expr::Negative(Box::new(operand))),
        }
    }

    /// The longest or the shortest of intervals; or the first, and NULL if the second is as long.
    fn chosen(&self, function: ScalarFunction) -> Expr {
        let ScalarFunction { func, args } = function;
        let op = match func.name() {
            "greatest" => Operator::GtEq,
            "least" => Operator::LtEq,
            _ => Operator::Eq,
        };
        let either = |left: Expr, right: Expr| {
            let (one, other) = (self.length(left.clone()), self.length(right.clone()));
            let compared = binary_expr(one, op, other);
            let (cases, otherwise) = match op {
                Operator::Eq => {
                    let none = ScalarValue::IntervalMonthDayNano(None);
                    (vec![(compared, Expr::Literal(none, None))], left)
                }
                _ => {
                    let no_left = (left.clone().is_null(), right.clone());
                    let no_right = (right.clone().is_null(), left.clone());
                    (vec![no_left, no_right, (compared, left)], right)
                }
            };
            let boxed = |(when, then)| (Box::new(when), Box::new(then));
            let when_then_expr = cases.into_iter().map(boxed).collect();
            Expr::Case(Case { expr: None, when_then_expr, else_expr: Some(Box::new(otherwise)) })
        };
        args.into_iter().reduce(either).unwrap_or_default()
    }

    /// `array_has` with PostgreSQL's NULLs.
    fn with_nulls(&self, expr: Expr) -> Expr {
        match expr {
            Expr::ScalarFunction(function) if function.func.name() == members::NAME => {
                self.array_has.call(function.args)
            }
            other => other,
        }
    }

    /// An operator between values of one type.
    fn operator(
        &self,
        binary: BinaryExpr,
        schema: &DFSchema,
        zone: &TimeZone,
    ) -> Transformed<Expr> {
        let BinaryExpr { left, op, right } = binary;
        if let Some(sum) = self.sums.call((&left, op, &right), schema, zone) {
            return Transformed::yes(sum);
        }
        let (left, op, right) = match bare::days(BinaryExpr { left, op, right }, schema) {
            Transformed { data, transformed: true, .. } => {
                return Transformed::yes(Expr::BinaryExpr(data));
            }
            Transformed { data: BinaryExpr { left, op, right }, .. } => (left, op, right),
        };
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
        if let Some(moment) = self.words.moment(&expr, &field, zone, &self.at_time_zone) {
            return Ok(Transformed::yes(moment));
        }
        if let Some(constant) = text::constant(&expr, &field, zone)? {
            return Ok(Transformed::yes(constant));
        }
        if let Some(constant) = zones::constant_on_clocks(&expr, field.data_type(), zone)? {
            return Ok(Transformed::yes(constant));
        }
        let Ok((_, source)) = expr.to_field(schema) else {
            return Ok(Transformed::no(Expr::Cast(Cast { expr, field })));
        };
        let (from, to) = (source.data_type(), field.data_type());
        if let Some(pg) = json_type(&field) {
            let cast = Cast { expr, field };
            return json_types::cast(cast, &source, &pg);
        }
        same_dimensions(from, to)?;
        if let Some(function) = text::ValueOf::cast(&source, &field, zone) {
            return Ok(Transformed::yes(function.call(vec![*expr])));
        }
        // What remains is a cast of something else to the same type.
        let inner = rounding::rounded(&self.round, &self.shorten, &expr, from, to)
            .or_else(|| zones::on_clocks(&self.at_time_zone, &expr, from, to, zone))
            .or_else(|| Some(text::TextOf::cast(&source, &field)?.call(vec![(*expr).clone()])));
        Ok(match inner {
            Some(inner) => Transformed::yes(Expr::Cast(Cast { expr: Box::new(inner), field })),
            None => Transformed::no(Expr::Cast(Cast { expr, field })),
        })
    }
}

/// The expressions of grouping sets, each with the name by which it is known elsewhere.
pub(super) fn grouped(
    set: GroupingSet,
    mut each: impl FnMut(Expr) -> Result<Transformed<Expr>>,
) -> Result<Transformed<Expr>> {
    let mut changed = false;
    let mut all = |exprs: Vec<Expr>| {
        let exprs = exprs.into_iter().map(|expr| {
            let done = each(expr)?;
            changed |= done.transformed;
            Ok(done.data)
        });
        exprs.collect::<Result<Vec<_>>>()
    };
    let set = match set {
        GroupingSet::Rollup(exprs) => GroupingSet::Rollup(all(exprs)?),
        GroupingSet::Cube(exprs) => GroupingSet::Cube(all(exprs)?),
        GroupingSet::GroupingSets(sets) => {
            GroupingSet::GroupingSets(sets.into_iter().map(all).collect::<Result<_>>()?)
        }
    };
    Ok(Transformed::new_transformed(Expr::GroupingSet(set), changed))
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

/// The most intervals of which one is chosen by a CASE, which has each of them several times.
const MAX_CHOICES: usize = 4;

fn chooses_interval(function: &ScalarFunction, schema: &DFSchema) -> bool {
    matches!(function.func.name(), "greatest" | "least" | "nullif")
        && (2..=MAX_CHOICES).contains(&function.args.len())
        && function.args.iter().all(|arg| is_interval(arg, schema))
}

fn compares(op: Operator) -> bool {
    use Operator::*;
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

fn is_interval(expr: &Expr, schema: &DFSchema) -> bool {
    expr.get_type(schema).is_ok_and(|kind| kind == INTERVAL)
}

/// Functions that make one text of values of any type, each of which is written as a result has it, or as a
/// cast makes it.
fn with_texts(mut function: ScalarFunction, schema: &DFSchema) -> Transformed<ScalarFunction> {
    let (elements, by_cast) = match function.func.name() {
        "format" => (false, false),
        "quote_literal" | "quote_nullable" => (false, true),
        "array_to_string" => (true, false),
        _ => return Transformed::no(function),
    };
    let mut changed = false;
    for arg in &mut function.args {
        let Ok((_, field)) = arg.to_field(schema) else { continue };
        let value = std::mem::take(arg);
        *arg = match text::TextOf::written(&field, elements) {
            Some(_) if by_cast && *field.data_type() == DataType::Boolean => {
                cast(value, DataType::Utf8)
            }
            Some(written) => written.call(vec![value]),
            None => {
                *arg = value;
                continue;
            }
        };
        changed = true;
    }
    Transformed::new_transformed(function, changed)
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
