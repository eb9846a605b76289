//! Sums of a column and several constants, from one sum: `sum(x + 1)` is `sum(x) + count(x)`.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema, Result, ScalarValue};
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams};
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, Projection, ScalarUDF, cast,
    lit,
};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use super::arithmetic::{self, can_overflow};

/// How many sums of one column, that its count spares, are worth that count.
const WORTH_A_COUNT: usize = 2;

/// The rule. It belongs before those of the engine, which give parts of expressions other names.
///
/// It takes what cannot overflow by its types alone, as a `smallint` and a constant, or whatever was cast to
/// `bigint` before: a sum that fails has to fail still, and no other.
#[derive(Debug)]
pub(in crate::engine) struct ShiftedSums {
    checked: Arc<ScalarUDF>,
}

impl Default for ShiftedSums {
    fn default() -> Self {
        Self { checked: Arc::new(ScalarUDF::new_from_impl(arithmetic::Checked::default())) }
    }
}

impl OptimizerRule for ShiftedSums {
    fn name(&self) -> &str {
        "shifted_sums"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Aggregate(aggregate) = plan else { return Ok(Transformed::no(plan)) };
        match self.rewritten(&aggregate)? {
            Some(rewritten) => Ok(Transformed::yes(rewritten)),
            None => Ok(Transformed::no(LogicalPlan::Aggregate(aggregate))),
        }
    }
}

/// `sum(x + k)`.
struct ShiftedSum {
    /// Of a type of at most 32 bits, so that sums of it do not come near the ends of `bigint`.
    column: Expr,
    shift: i64,
    function: AggregateFunction,
}

impl ShiftedSums {
    fn rewritten(&self, aggregate: &Aggregate) -> Result<Option<LogicalPlan>> {
        let Aggregate { input, group_expr, aggr_expr, schema, .. } = aggregate;
        let found: Vec<Option<ShiftedSum>> =
            aggr_expr.iter().map(|expr| shifted_sum(expr, input.schema())).collect();
        let mut columns: Vec<&Expr> = Vec::new();
        for sum in found.iter().flatten() {
            let of_same = found.iter().flatten().filter(|other| other.column == sum.column);
            let spared = of_same.filter(|other| other.shift != 0).count();
            if spared >= WORTH_A_COUNT && !columns.contains(&&sum.column) {
                columns.push(&sum.column);
            }
        }
        // A column of the statement may be called as those that are made here.
        let is_taken = |name: &str| name.starts_with("__sum_") || name.starts_with("__count_");
        if columns.is_empty() || schema.fields().iter().any(|field| is_taken(field.name())) {
            return Ok(None);
        }
        // Names of their own: an aggregate of the statement may be called as what stands there now.
        let names = |at: usize| (format!("__sum_{at}"), format!("__count_{at}"));
        let place = |sum: &ShiftedSum| columns.iter().position(|column| **column == sum.column);
        let mut computed = Vec::new();
        for (at, column) in columns.iter().enumerate() {
            let (sum_name, count_name) = names(at);
            let Some(sum) = found.iter().flatten().find(|sum| sum.column == **column) else {
                continue;
            };
            let of = |func, arg| {
                let params =
                    AggregateFunctionParams { args: vec![arg], ..sum.function.params.clone() };
                Expr::AggregateFunction(AggregateFunction { func, params })
            };
            let wide = cast((*column).clone(), DataType::Int64);
            computed.push(of(sum.function.func.clone(), wide).alias(sum_name));
            computed.push(of(count_udaf(), (*column).clone()).alias(count_name));
        }
        let keys = schema.fields().len() - aggr_expr.len();
        let mut shown: Vec<Expr> =
            schema.columns().into_iter().take(keys).map(Expr::Column).collect();
        for (column, (expr, sum)) in
            schema.columns().into_iter().skip(keys).zip(aggr_expr.iter().zip(&found))
        {
            let Some((sum, place)) = sum.as_ref().and_then(|sum| Some((sum, place(sum)?))) else {
                computed.push(expr.clone());
                shown.push(Expr::Column(column));
                continue;
            };
            let (sum_name, count_name) = names(place);
            let named = |name| Expr::Column(Column::from_name(name));
            let counted = arithmetic::call(
                &self.checked,
                Operator::Multiply,
                named(count_name),
                lit(sum.shift),
            );
            let value = match sum.shift {
                0 => named(sum_name),
                _ => arithmetic::call(&self.checked, Operator::Plus, named(sum_name), counted),
            };
            shown.push(value.alias(column.name));
        }
        let below = Aggregate::try_new(input.clone(), group_expr.clone(), computed)?;
        let below = Arc::new(LogicalPlan::Aggregate(below));
        Ok(Some(LogicalPlan::Projection(Projection::try_new(shown, below)?)))
    }
}

fn shifted_sum(expr: &Expr, schema: &DFSchema) -> Option<ShiftedSum> {
    let Expr::AggregateFunction(function) = expr else { return None };
    let params = &function.params;
    let plain = !params.distinct && params.filter.is_none() && params.order_by.is_empty();
    if function.func.name() != "sum" || !plain || params.null_treatment.is_some() {
        return None;
    }
    let [arg] = params.args.as_slice() else { return None };
    if arg.is_volatile() || expr.get_type(schema).ok()? != DataType::Int64 {
        return None;
    }
    let (column, shift) = match unwidened(arg, schema) {
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: op @ (Operator::Plus | Operator::Minus),
            right,
        }) if !can_overflow(*op, left, right, schema) => match (whole(left), op, whole(right)) {
            (None, Operator::Plus, Some(shift)) => (left.as_ref(), i64::from(shift)),
            (None, Operator::Minus, Some(shift)) => (left.as_ref(), -i64::from(shift)),
            (Some(shift), Operator::Plus, None) => (right.as_ref(), i64::from(shift)),
            _ => return None,
        },
        other => (other, 0),
    };
    let column = unwidened(column, schema);
    let short =
        matches!(column.get_type(schema).ok()?, DataType::Int8 | DataType::Int16 | DataType::Int32);
    short.then(|| ShiftedSum { column: column.clone(), shift, function: function.clone() })
}

/// A number that was made a longer one, as it was before.
fn unwidened<'a>(expr: &'a Expr, schema: &DFSchema) -> &'a Expr {
    if let Expr::Cast(cast) = expr
        && let (Ok(from), to) = (cast.expr.get_type(schema), cast.field.data_type())
        && from.is_signed_integer()
        && to.is_signed_integer()
        && from.primitive_width() <= to.primitive_width()
    {
        return unwidened(&cast.expr, schema);
    }
    expr
}

/// A constant whole number, so short that as many of it as there are rows are far from the ends of `bigint`.
fn whole(expr: &Expr) -> Option<i16> {
    let Expr::Literal(value, _) = expr else { return None };
    match value {
        ScalarValue::Int8(Some(value)) => Some((*value).into()),
        ScalarValue::Int16(Some(value)) => Some(*value),
        ScalarValue::Int32(Some(value)) => (*value).try_into().ok(),
        ScalarValue::Int64(Some(value)) => (*value).try_into().ok(),
        _ => None,
    }
}
