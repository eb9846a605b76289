//! Expressions that mean in PostgreSQL something else than in the engine.
//!
//! One rule, applied once all types are known:
//! - *text to a value*: a constant is read as PostgreSQL reads it, and so are columns of text cast
//!   to types for which the engine has no reading of its own ([`text::ValueOf`]);
//! - *a value to text* is written as PostgreSQL writes it ([`text::TextOf`]);
//! - *integer arithmetic* refuses to overflow, where the engine wraps ([`arithmetic::Checked`]).

mod arithmetic;
mod text;

use std::sync::Arc;

use arrow::array::Array;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::expr::{BinaryExpr, Cast, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, ScalarUDF, in_list};
use datafusion::optimizer::AnalyzerRule;

use crate::values::encode::TimeZone;

/// The rule. It belongs behind the engine's own rule that settles types.
#[derive(Debug)]
pub(super) struct Semantics {
    checked: Arc<ScalarUDF>,
}

impl Default for Semantics {
    fn default() -> Self {
        let checked = ScalarUDF::new_from_impl(arithmetic::Checked::default());
        Self { checked: Arc::new(checked) }
    }
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
            Expr::Cast(Cast { expr, field }) => {
                if let Some(constant) = text::constant(&expr, &field, zone)? {
                    return Ok(Transformed::yes(constant));
                }
                let Ok((_, source)) = expr.to_field(schema) else {
                    return Ok(Transformed::no(Expr::Cast(Cast { expr, field })));
                };
                if let Some(function) = text::ValueOf::cast(&source, &field) {
                    return Ok(Transformed::yes(function.call(vec![*expr])));
                }
                match text::TextOf::cast(&source, &field) {
                    Some(function) => {
                        let text = Box::new(function.call(vec![*expr]));
                        let field = Arc::clone(&field);
                        Transformed::yes(Expr::Cast(Cast { expr: text, field }))
                    }
                    None => Transformed::no(Expr::Cast(Cast { expr, field })),
                }
            }
            Expr::ScalarFunction(function) => member_of_constant(function),
            other => Transformed::no(other),
        })
    }
}

/// `x = ANY(...)` of a constant array is `x IN (...)`: that skips row groups, and knows of NULL.
fn member_of_constant(function: ScalarFunction) -> Transformed<Expr> {
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
    Transformed::no(Expr::ScalarFunction(function))
}

/// The value of a constant, or of the cast of one.
fn constant(expr: &Expr) -> Option<ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Some(value.clone()),
        Expr::Cast(Cast { expr, field }) => constant(expr)?.cast_to(field.data_type()).ok(),
        _ => None,
    }
}
