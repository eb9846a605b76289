//! Values of several types where PostgreSQL takes one for them, and the engine another.
//!
//! An exact number beside a float is an inexact one to PostgreSQL: the engine makes decimals of floats, of
//! fifteen digits behind the point, which are other numbers, or none. A date beside a timestamp begins
//! with midnight: the engine's timestamps of that kind are in nanoseconds, and end in 2262.

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{
    AggregateFunction, Alias, Between, BinaryExpr, Case, InList, InSubquery, ScalarFunction,
    WindowFunction,
};
use datafusion::logical_expr::expr_schema::cast_subquery;
use datafusion::logical_expr::type_coercion::binary::type_union_resolution;
use datafusion::logical_expr::{
    Expr, ExprSchemable, LogicalPlanBuilder, Operator, ScalarUDF, Subquery, WindowFrame,
    WindowFrameBound, WindowFrameUnits, binary_expr, cast,
};

use super::intervals::{INTERVAL, Order};
use super::operators::is_constant_text;
use super::uuids::{AsUuid, uuid};
use crate::engine::MEMBER;

/// Functions whose arguments are of one type.
const OF_ONE_TYPE: &[&str] = &["coalesce", "greatest", "least", "make_array", "nullif"];

/// A float of a subquery: no statement has a column of that name.
const FLOAT: &str = "\u{2}float";

#[derive(Debug)]
pub(super) struct Mixed {
    interval_order: Arc<ScalarUDF>,
    as_uuid: Arc<ScalarUDF>,
}

impl Default for Mixed {
    fn default() -> Self {
        Self {
            interval_order: Arc::new(ScalarUDF::new_from_impl(Order::default())),
            as_uuid: Arc::new(ScalarUDF::new_from_impl(AsUuid::default())),
        }
    }
}

/// The type that values of these types are to be taken as; `None` if the engine takes the same.
pub(super) fn common_type<'a>(types: impl Iterator<Item = &'a DataType>) -> Option<DataType> {
    let (mut double, mut single, mut exact, mut decimal) = (false, false, false, false);
    let (mut date, mut bare, mut zone, mut unit) = (false, false, None, None);
    let mut bytes: Vec<&DataType> = Vec::new();
    for kind in types {
        match kind {
            DataType::Null => {}
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => bytes.push(kind),
            DataType::Float64 => double = true,
            DataType::Float32 | DataType::Float16 => single = true,
            DataType::Decimal128(..) | DataType::Decimal256(..) => (exact, decimal) = (true, true),
            kind if kind.is_integer() => exact = true,
            DataType::Date32 => date = true,
            // A moment with a zone makes moments of that zone of all others.
            DataType::Timestamp(of, its) => {
                (bare, zone) = (bare || its.is_none(), zone.or_else(|| its.clone()));
                unit = unit.max(Some(*of));
            }
            _ => return None,
        }
    }
    let numbers = double || single || exact;
    if let [first, more @ ..] = bytes.as_slice() {
        let mixed = more.iter().any(|kind| kind != first);
        return (mixed && !numbers && !date && unit.is_none()).then_some(DataType::LargeBinary);
    }
    match (date, unit) {
        (true, Some(_)) if !numbers => Some(DataType::Timestamp(TimeUnit::Microsecond, zone)),
        (false, Some(unit)) if bare && zone.is_some() && !numbers => {
            Some(DataType::Timestamp(unit, zone))
        }
        (false, None) if double && (decimal || single) || single && exact => {
            Some(DataType::Float64)
        }
        _ => None,
    }
}

/// The type of a value that is one of these, if the engine takes another: what is only chosen and not compared stays a
/// `real` beside exact numbers (`select_common_type` of PostgreSQL's `parse_coerce.c`).
pub(super) fn chosen_type<'a>(
    types: impl Iterator<Item = &'a DataType> + Clone,
) -> Option<DataType> {
    let double = types.clone().any(|kind| *kind == DataType::Float64);
    match common_type(types) {
        Some(DataType::Float64) if !double => Some(DataType::Float32),
        other => other,
    }
}

/// An expression as of a type.
pub(super) fn taken_as(expr: Expr, kind: &DataType, schema: &DFSchema) -> Expr {
    match expr.get_type(schema) {
        Ok(same) if same == *kind => expr,
        _ => cast(expr, kind.clone()),
    }
}

/// The common type of expressions, if the engine takes another.
pub(super) fn common<'a>(
    exprs: impl IntoIterator<Item = &'a Expr>,
    schema: &DFSchema,
) -> Option<DataType> {
    common_type(types_of(exprs, schema)?.iter())
}

/// The same of what is chosen among them.
fn chosen<'a>(exprs: impl IntoIterator<Item = &'a Expr>, schema: &DFSchema) -> Option<DataType> {
    chosen_type(types_of(exprs, schema)?.iter())
}

/// `None` if one has no type yet, such as a parameter, which gets the engine's.
fn types_of<'a>(
    exprs: impl IntoIterator<Item = &'a Expr>,
    schema: &DFSchema,
) -> Option<Vec<DataType>> {
    exprs.into_iter().map(|expr| expr.get_type(schema).ok()).collect()
}

fn is_float(expr: &Expr, schema: &DFSchema) -> bool {
    expr.get_type(schema).is_ok_and(|kind| kind.is_floating())
}

impl Mixed {
    /// Whether an expression is one that [`Self::settled`] looks at.
    pub(super) fn may_have(expr: &Expr) -> bool {
        match expr {
            Expr::InList(_) | Expr::Between(_) | Expr::Case(_) | Expr::InSubquery(_) => true,
            Expr::BinaryExpr(binary) => is_distinction(binary.op),
            Expr::ScalarFunction(function) => {
                let name = function.func.name();
                OF_ONE_TYPE.contains(&name) || name == "round"
            }
            Expr::AggregateFunction(function) => function.params.distinct,
            Expr::Alias(alias) => alias.name == MEMBER,
            Expr::WindowFunction(function) => {
                let params = &function.params;
                !params.order_by.is_empty() || !params.partition_by.is_empty() || is_shift(function)
            }
            _ => false,
        }
    }

    pub(super) fn settled(&self, expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
        Ok(match expr {
            Expr::InList(list) => in_list(list, schema),
            Expr::Between(range) => between(range, schema),
            Expr::Case(case) => {
                let results = case.when_then_expr.iter().map(|(_, then)| then);
                let uuids = results.chain(&case.else_expr).any(|one| uuid(one, schema).is_some());
                self.named(cases(case, schema), uuids)
            }
            Expr::InSubquery(member) => in_subquery(member, schema)?,
            Expr::BinaryExpr(binary) if is_distinction(binary.op) => distinction(binary, schema),
            Expr::ScalarFunction(function) if OF_ONE_TYPE.contains(&function.func.name()) => {
                let uuids = function.func.name() != "make_array"
                    && function.args.iter().any(|arg| uuid(arg, schema).is_some());
                self.named(of_one_type(function, schema), uuids)
            }
            Expr::ScalarFunction(function) if function.func.name() == "round" => rounded(function),
            Expr::AggregateFunction(function) if function.params.distinct => {
                of_distinct(function, schema)
            }
            Expr::WindowFunction(function) => self.window(function, schema),
            Expr::Alias(alias) if alias.name == MEMBER => member(alias, schema),
            other => Transformed::no(other),
        })
    }

    /// A `uuid`, if what was chosen among is.
    fn named(&self, chosen: Transformed<Expr>, uuids: bool) -> Transformed<Expr> {
        match uuids {
            true => Transformed::yes(self.as_uuid.call(vec![chosen.data])),
            false => chosen,
        }
    }

    /// A window over rows in an order of which the engine makes no ranges, though they have peers:
    /// the same window in groups. Intervals are sorted by how long they are, and zeros are one value.
    fn window(&self, mut function: Box<WindowFunction>, schema: &DFSchema) -> Transformed<Expr> {
        let shifts = is_shift(&function);
        let params = &mut function.params;
        let mut changed = shifts && default_alike(&mut params.args, schema);
        for key in &mut params.order_by {
            if key.expr.get_type(schema).is_ok_and(|kind| kind == INTERVAL) {
                key.expr = self.interval_order.call(vec![std::mem::take(&mut key.expr)]);
                changed = true;
            } else if is_float(&key.expr, schema) {
                key.expr = without_sign_of_zero(std::mem::take(&mut key.expr));
                changed = true;
            }
        }
        for key in &mut params.partition_by {
            if is_float(key, schema) {
                *key = without_sign_of_zero(std::mem::take(key));
                changed = true;
            }
        }
        let no_ranges = |kind: &DataType| {
            matches!(
                kind,
                DataType::Binary
                    | DataType::LargeBinary
                    | DataType::BinaryView
                    | DataType::FixedSizeBinary(_)
            )
        };
        let frame = &params.window_frame;
        let of_peers = |bound: &WindowFrameBound| {
            bound.is_unbounded() || matches!(bound, WindowFrameBound::CurrentRow)
        };
        let first = params.order_by.first().and_then(|key| key.expr.get_type(schema).ok());
        if frame.units == WindowFrameUnits::Range
            && of_peers(&frame.start_bound)
            && of_peers(&frame.end_bound)
            && first.is_some_and(|kind| no_ranges(&kind))
        {
            let unbounded = |bound: &WindowFrameBound| match bound {
                WindowFrameBound::Preceding(_) => {
                    WindowFrameBound::Preceding(ScalarValue::UInt64(None))
                }
                WindowFrameBound::CurrentRow => WindowFrameBound::CurrentRow,
                WindowFrameBound::Following(_) => {
                    WindowFrameBound::Following(ScalarValue::UInt64(None))
                }
            };
            let (start, end) = (unbounded(&frame.start_bound), unbounded(&frame.end_bound));
            params.window_frame = WindowFrame::new_bounds(WindowFrameUnits::Groups, start, end);
            changed = true;
        }
        Transformed::new_transformed(Expr::WindowFunction(function), changed)
    }
}

/// Whether a window function takes a value of another row, and another one where there is none.
fn is_shift(function: &WindowFunction) -> bool {
    matches!(function.fun.name(), "lag" | "lead") && function.params.args.len() == 3
}

/// Gives both values one type: the engine reads the second as one of the first's, in UTC.
fn default_alike(args: &mut [Expr], schema: &DFSchema) -> bool {
    let [value, _, default] = args else { return false };
    let (Ok(kind), Ok(other)) = (value.get_type(schema), default.get_type(schema)) else {
        return false;
    };
    if kind == other || kind.is_null() || other.is_null() {
        return false;
    }
    // A number in figures is of the value's type, if that has it.
    let fits = |value: &ScalarValue| {
        let integers = kind.is_integer() && other.is_integer();
        integers && value.cast_to(&kind).is_ok_and(|own| !own.is_null())
    };
    let written = match &*default {
        Expr::Literal(value, _) => fits(value),
        Expr::Negative(operand) => matches!(&**operand, Expr::Literal(value, _) if fits(value)),
        _ => false,
    };
    let kind = match written || is_constant_text(default) {
        true => Some(kind),
        false => chosen_type([&kind, &other].into_iter())
            .or_else(|| type_union_resolution(&[kind, other])),
    };
    let Some(kind) = kind else { return false };
    for side in [value, default] {
        *side = taken_as(std::mem::take(side), &kind, schema);
    }
    true
}

fn is_distinction(op: Operator) -> bool {
    matches!(op, Operator::IsDistinctFrom | Operator::IsNotDistinctFrom)
}

fn distinction(binary: BinaryExpr, schema: &DFSchema) -> Transformed<Expr> {
    let BinaryExpr { left, op, right } = binary;
    let kind = common([&*left, &*right], schema);
    let (left, right) = joinable(*left, *right, schema);
    let [left, right] = [left, right].map(|side| match &kind {
        Some(kind) => taken_as(side, kind, schema),
        None => side,
    });
    Transformed::yes(binary_expr(left, op, right))
}

/// Both sides of what rows may be joined by, also if it stands behind NOT: the engine gathers the floats of one and
/// looks by their bits for those of the other that it can do without.
pub(super) fn joinable(left: Expr, right: Expr, schema: &DFSchema) -> (Expr, Expr) {
    let floats = [is_float(&left, schema), is_float(&right, schema)];
    if floats[1] && matches!(&left, Expr::Column(column) if column.name == MEMBER) {
        // That on the left has no sign, see `member`.
        return (left, without_sign_of_zero(right));
    }
    if floats == [false, false] || !is_of_own_rows(&left) || !is_of_own_rows(&right) {
        return (left, right);
    }
    let signless = |side, is_float| if is_float { without_sign_of_zero(side) } else { side };
    (signless(left, floats[0]), signless(right, floats[1]))
}

/// Whether an expression is of the rows of this query alone. What refers to an outer one has to stay as
/// it is: subqueries become joins by columns.
fn is_of_own_rows(expr: &Expr) -> bool {
    let is = |kind: fn(&Expr) -> bool| expr.exists(|expr| Ok(kind(expr))).unwrap_or(true);
    is(|expr| matches!(expr, Expr::Column(_)))
        && !is(|expr| matches!(expr, Expr::OuterReferenceColumn(..)))
}

/// Texts in quotes beside intervals, which are intervals.
fn beside_intervals(exprs: Vec<Expr>, schema: &DFSchema) -> Transformed<Vec<Expr>> {
    let is_interval = |expr: &Expr| expr.get_type(schema).is_ok_and(|kind| kind == INTERVAL);
    if !exprs.iter().any(is_interval) || !exprs.iter().any(is_constant_text) {
        return Transformed::no(exprs);
    }
    let read = exprs.into_iter().map(|expr| match is_constant_text(&expr) {
        true => cast(expr, INTERVAL),
        false => expr,
    });
    Transformed::yes(read.collect())
}

fn between(mut between: Between, schema: &DFSchema) -> Transformed<Expr> {
    let Between { expr, low, high, .. } = &mut between;
    let sides = [expr, low, high];
    let read = sides.map(|side| std::mem::take(&mut **side));
    let read = beside_intervals(read.into(), schema);
    let changed = read.transformed;
    let Between { expr, low, high, .. } = &mut between;
    for (side, read) in [expr, low, high].into_iter().zip(read.data) {
        **side = read;
    }
    let done = of_one_kind(between, schema);
    Transformed::new_transformed(done.data, changed || done.transformed)
}

fn of_one_kind(between: Between, schema: &DFSchema) -> Transformed<Expr> {
    let Between { expr, negated, low, high } = between;
    let Some(kind) = common([&*expr, &*low, &*high], schema) else {
        return Transformed::no(Expr::Between(Between { expr, negated, low, high }));
    };
    let [expr, low, high] = [expr, low, high].map(|expr| Box::new(taken_as(*expr, &kind, schema)));
    Transformed::yes(Expr::Between(Between { expr, negated, low, high }))
}

/// A float plus zero: the zero that has a sign gets that of the other.
pub(super) fn without_sign_of_zero(expr: Expr) -> Expr {
    let zero = Expr::Literal(ScalarValue::Float32(Some(0.0)), None);
    match expr {
        // A cast has no name of its own: the sum is not to have that of the one without it.
        Expr::Cast(_) => binary_expr(zero, Operator::Plus, expr),
        _ => binary_expr(expr, Operator::Plus, zero),
    }
}

/// What another value is looked for among, where the engine makes a join of it.
fn member(mut alias: Alias, schema: &DFSchema) -> Transformed<Expr> {
    let signless = matches!(&*alias.expr, Expr::BinaryExpr(sum)
        if sum.op == Operator::Plus && (is_zero(&sum.left) || is_zero(&sum.right)));
    if signless || !is_float(&alias.expr, schema) {
        return Transformed::no(Expr::Alias(alias));
    }
    *alias.expr = without_sign_of_zero(*alias.expr);
    Transformed::yes(Expr::Alias(alias))
}

/// An aggregate of values that differ, which floats do for the engine by their bits.
fn of_distinct(mut function: AggregateFunction, schema: &DFSchema) -> Transformed<Expr> {
    let mut changed = false;
    for arg in &mut function.params.args {
        if is_float(arg, schema) {
            *arg = without_sign_of_zero(std::mem::take(arg));
            changed = true;
        }
    }
    Transformed::new_transformed(Expr::AggregateFunction(function), changed)
}

/// Among a list's items floats are looked for by their bits: zero is there with both its signs.
fn in_list(list: InList, schema: &DFSchema) -> Transformed<Expr> {
    let InList { mut expr, mut list, negated } = list;
    let mut changed;
    list.push(std::mem::take(&mut *expr));
    let read = beside_intervals(list, schema);
    (list, changed) = (read.data, read.transformed);
    *expr = list.pop().unwrap_or_default();
    let kind = common(std::iter::once(&*expr).chain(&list), schema);
    if is_float(&expr, schema) && list.iter().any(is_zero) {
        let zeros = [0.0, -0.0].map(|zero| Expr::Literal(ScalarValue::Float32(Some(zero)), None));
        list.extend(zeros);
        changed = true;
    }
    let Some(kind) = kind else {
        let list = Expr::InList(InList { expr, list, negated });
        return Transformed::new_transformed(list, changed);
    };
    let expr = Box::new(taken_as(*expr, &kind, schema));
    let list = list.into_iter().map(|item| taken_as(item, &kind, schema)).collect();
    Transformed::yes(Expr::InList(InList { expr, list, negated }))
}

/// Whether an item is zero, as a number or as the text of one.
fn is_zero(item: &Expr) -> bool {
    match item {
        Expr::Literal(value, _) => {
            !value.is_null() && value.to_string().parse::<f64>().is_ok_and(|number| number == 0.0)
        }
        Expr::Cast(cast) => is_zero(&cast.expr),
        Expr::Negative(operand) => is_zero(operand),
        _ => false,
    }
}

/// `round(x, n)` with a constant of the type that the engine takes: it is no constant to the engine where
/// it has to be cast, and the result has other digits at first.
fn rounded(mut function: ScalarFunction) -> Transformed<Expr> {
    let mut changed = false;
    if let [_, Expr::Literal(digits, _)] = function.args.as_mut_slice()
        && let ScalarValue::Int64(Some(number)) = digits
        && let Ok(number) = i32::try_from(*number)
    {
        *digits = ScalarValue::Int32(Some(number));
        changed = true;
    }
    Transformed::new_transformed(Expr::ScalarFunction(function), changed)
}

fn in_subquery(member: InSubquery, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let InSubquery { expr, subquery, negated } = member;
    let column = subquery.subquery.schema().fields().first().map(|field| field.data_type().clone());
    let types = expr.get_type(schema).ok().zip(column);
    let kind = types.and_then(|(member, column)| common_type([&member, &column].into_iter()));
    if is_float(&expr, schema) && kind.is_none() {
        let expr = Box::new(without_sign_of_zero(*expr));
        let member = InSubquery { expr, subquery: without_signs_of_zeros(subquery)?, negated };
        return Ok(Transformed::yes(Expr::InSubquery(member)));
    }
    let Some(kind) = kind else {
        return Ok(Transformed::no(Expr::InSubquery(InSubquery { expr, subquery, negated })));
    };
    let expr = Box::new(taken_as(*expr, &kind, schema));
    let subquery = cast_subquery(subquery, &kind)?;
    Ok(Transformed::yes(Expr::InSubquery(InSubquery { expr, subquery, negated })))
}

/// A subquery with its floats so that they can be looked for by their bits.
fn without_signs_of_zeros(subquery: Subquery) -> Result<Subquery> {
    let plan = subquery.subquery.as_ref().clone();
    let Some(column) = plan.schema().columns().into_iter().next() else { return Ok(subquery) };
    // A plan may be looked at twice.
    if column.name == FLOAT {
        return Ok(subquery);
    }
    let value = without_sign_of_zero(Expr::Column(column)).alias(FLOAT);
    let plan = LogicalPlanBuilder::from(plan).project(vec![value])?.build()?;
    Ok(subquery.with_plan(Arc::new(plan)))
}

/// The results of a CASE; and what a float is compared with, which the engine does by its bits.
fn cases(mut case: Case, schema: &DFSchema) -> Transformed<Expr> {
    let mut changed = false;
    let results = case.when_then_expr.iter().map(|(_, then)| &**then);
    if let Some(kind) = chosen(results.chain(case.else_expr.as_deref()), schema) {
        let results = case.when_then_expr.iter_mut().map(|(_, then)| then);
        for result in results.chain(&mut case.else_expr) {
            **result = taken_as(std::mem::take(result), &kind, schema);
        }
        changed = true;
    }
    if let Some(operand) = case.expr.take() {
        let whens = || case.when_then_expr.iter().map(|(when, _)| &**when);
        let kind = common(std::iter::once(&*operand).chain(whens()), schema);
        if kind.is_some()
            || is_float(&operand, schema)
            || whens().any(|when| is_float(when, schema))
        {
            let kind = kind.unwrap_or(DataType::Float64);
            for (when, _) in &mut case.when_then_expr {
                let value = taken_as(std::mem::take(when), &kind, schema);
                let operand = taken_as((*operand).clone(), &kind, schema);
                **when = binary_expr(operand, Operator::Eq, value);
            }
            changed = true;
        } else {
            case.expr = Some(operand);
        }
    }
    Transformed::new_transformed(Expr::Case(case), changed)
}

/// A value, or NULL if two others are equal.
fn null_if_equal(value: Expr, [one, other]: [Expr; 2]) -> Expr {
    let equal = binary_expr(one, Operator::Eq, other);
    let none = Expr::Literal(ScalarValue::Null, None);
    Expr::Case(Case {
        expr: None,
        when_then_expr: vec![(Box::new(equal), Box::new(none))],
        else_expr: Some(Box::new(value)),
    })
}

/// The type as which moments of several types are compared, with and without a zone among them.
fn of_moments<'a>(
    exprs: impl IntoIterator<Item = &'a Expr>,
    schema: &DFSchema,
) -> Option<DataType> {
    let types = exprs.into_iter().map(|expr| expr.get_type(schema).ok());
    let types = types.collect::<Option<Vec<_>>>()?;
    let is_moment = |kind: &DataType| {
        matches!(kind, DataType::Timestamp(..) | DataType::Date32 | DataType::Null)
    };
    if !types.iter().all(is_moment) || types.windows(2).all(|two| two[0] == two[1]) {
        return None;
    }
    let zoned = types.iter().find(|kind| matches!(kind, DataType::Timestamp(_, Some(_))));
    let bare = types.iter().find(|kind| matches!(kind, DataType::Timestamp(..)));
    zoned.or(bare).cloned()
}

fn of_one_type(function: ScalarFunction, schema: &DFSchema) -> Transformed<Expr> {
    let ScalarFunction { func, args } = function;
    // The result is of the first one's type, whatever both are compared as.
    if func.name() == "nullif"
        && let [value, other] = args.as_slice()
        && let Some(kind) = of_moments(&args, schema)
    {
        let compared = [value, other].map(|side| taken_as(side.clone(), &kind, schema));
        return Transformed::yes(null_if_equal(value.clone(), compared));
    }
    // There is an operator for a float and any other number: the result is the float. The engine compares floats by
    // their bits here, where -0 is not 0.
    if func.name() == "nullif"
        && let [value, other] = args.as_slice()
        && is_float(value, schema)
    {
        let kind = common(&args, schema);
        let compared = [value, other].map(|side| match &kind {
            Some(kind) => taken_as(side.clone(), kind, schema),
            None => side.clone(),
        });
        return Transformed::yes(null_if_equal(value.clone(), compared));
    }
    let kind = match func.name() {
        "nullif" => common(&args, schema),
        _ => chosen(&args, schema),
    };
    let args: Vec<Expr> = match &kind {
        Some(kind) => args.into_iter().map(|arg| taken_as(arg, kind, schema)).collect(),
        None => args,
    };
    // Both are floats now.
    if func.name() == "nullif"
        && let [value, other] = args.as_slice()
        && is_float(value, schema)
    {
        return Transformed::yes(null_if_equal(value.clone(), [value.clone(), other.clone()]));
    }
    let call = Expr::ScalarFunction(ScalarFunction { func, args });
    Transformed::new_transformed(call, kind.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_make_floats_of_exact_numbers() {
        use DataType::{Date32, Float32, Float64, Int32, Null, Utf8};
        let decimal = DataType::Decimal128(12, 3);
        let timestamp = |unit| DataType::Timestamp(unit, None);
        let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        for (types, expected) in [
            (vec![&Float64, &decimal, &Null], Some(Float64)),
            (vec![&Float32, &Int32], Some(Float64)),
            (vec![&Float64, &Float32], Some(Float64)),
            // Those that the engine takes in the same way.
            (vec![&Float64, &Int32], None),
            (vec![&decimal, &Int32], None),
            (vec![&Float64, &decimal, &Utf8], None),
            (vec![&Float64, &Date32], None),
            (
                vec![&Date32, &timestamp(TimeUnit::Nanosecond)],
                Some(timestamp(TimeUnit::Microsecond)),
            ),
            (vec![&timestamp(TimeUnit::Microsecond), &Date32, &zoned], Some(zoned.clone())),
            (vec![&timestamp(TimeUnit::Microsecond), &zoned], Some(zoned.clone())),
            (vec![&zoned, &zoned], None),
        ] {
            assert_eq!(common_type(types.iter().copied()), expected, "{types:?}");
        }
    }
}
