//! A string in quotes that is compared with a `uuid` is one: the engine has no common type for them.

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::expr::{Between, BinaryExpr, Cast, InList};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;
use postgres_types::Type;

use crate::values::types::pg_type;

/// The rule. It belongs before the engine's own rule that settles types.
#[derive(Debug, Default)]
pub(in crate::engine) struct Uuids;

impl AnalyzerRule for Uuids {
    fn name(&self) -> &str {
        "postgres_uuids"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(compared).map(|done| done.data)
    }
}

fn compared(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let may_be = |kind: &DataType| *kind == DataType::FixedSizeBinary(16);
    let mut inputs = plan.inputs().into_iter().flat_map(|input| input.schema().fields());
    // Few statements have any.
    if !inputs.any(|field| may_be(field.data_type())) {
        return Ok(Transformed::no(plan));
    }
    let schema = merge_schema(&plan.inputs());
    let names = NamePreserver::new(&plan);
    plan.map_expressions(|expr| {
        let name = names.save(&expr);
        let done = expr.transform_up(|expr| Ok(with_uuids(expr, &schema)))?;
        Ok(match done.transformed {
            true => done.update_data(|expr| name.restore(expr)),
            false => done,
        })
    })
}

fn with_uuids(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if op.supports_propagation() => {
            let (of_left, of_right) = (uuid(&left, schema), uuid(&right, schema));
            let (left, right) = (read(*left, of_right.as_ref()), read(*right, of_left.as_ref()));
            let changed = left.transformed || right.transformed;
            let (left, right) = (Box::new(left.data), Box::new(right.data));
            Transformed::new_transformed(Expr::BinaryExpr(BinaryExpr { left, op, right }), changed)
        }
        Expr::InList(InList { expr, list, negated }) => {
            let field = uuid(&expr, schema);
            let list = list.into_iter().map(|item| read(item, field.as_ref()).data).collect();
            let list = Expr::InList(InList { expr, list, negated });
            Transformed::new_transformed(list, field.is_some())
        }
        Expr::Between(Between { expr, negated, low, high }) => {
            let field = uuid(&expr, schema);
            let bound = |bound: Box<Expr>| Box::new(read(*bound, field.as_ref()).data);
            let (low, high) = (bound(low), bound(high));
            let between = Expr::Between(Between { expr, negated, low, high });
            Transformed::new_transformed(between, field.is_some())
        }
        other => Transformed::no(other),
    }
}

/// The field of an expression that is a `uuid`.
fn uuid(expr: &Expr, schema: &DFSchema) -> Option<FieldRef> {
    let (_, field) = expr.to_field(schema).ok()?;
    (pg_type(&field) == Type::UUID).then_some(field)
}

/// A string in quotes as a `uuid`.
fn read(expr: Expr, field: Option<&FieldRef>) -> Transformed<Expr> {
    match (&expr, field) {
        (Expr::Literal(value, _), Some(field)) if value.try_as_str().is_some() => {
            let (expr, field) = (Box::new(expr), field.clone());
            Transformed::yes(Expr::Cast(Cast { expr, field }))
        }
        _ => Transformed::no(expr),
    }
}
