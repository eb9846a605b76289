//! What has to be settled before the engine looks for a common type of several values: where there is
//! a `uuid` among them ([`uuids`]), or types of which it takes another than PostgreSQL does ([`mixed`],
//! [`sets`]), or JSON ([`super::equal_json`]), which calls are none ([`refused`]), and which values may stand where a truth value has to ([`truths`]).

use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;

use super::equal_json::{EqualJson, has_json};
use super::mixed::Mixed;
use super::{grouped, json_types, refused, sets, truths, uuids};

/// The rule. It belongs before the engine's own rule that settles types.
#[derive(Debug, Default)]
pub(in crate::engine) struct Comparisons {
    mixed: Mixed,
    equal_json: EqualJson,
}

impl AnalyzerRule for Comparisons {
    fn name(&self) -> &str {
        "postgres_comparisons"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let mut changed = false;
        let settled = |plan: LogicalPlan| {
            // Columns may have got another type, by which what stands above them is settled.
            let plan = if changed { plan.recompute_schema()? } else { plan };
            let done = self.settled(plan)?;
            changed |= done.transformed;
            Ok(done)
        };
        plan.transform_up_with_subqueries(settled).map(|done| done.data)
    }
}

impl Comparisons {
    fn settled(&self, plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        of_json(plan)?
            .transform_data(|plan| sets::settled(plan, &self.equal_json))?
            .transform_data(|plan| self.compared(plan))?
            .transform_data(|plan| self.equal_json.settled(plan))
    }

    fn compared(&self, plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        let may_be = |kind: &DataType| *kind == DataType::FixedSizeBinary(16);
        let mut inputs = plan.inputs().into_iter().flat_map(|input| input.schema().fields());
        let uuids = inputs.any(|field| may_be(field.data_type()));
        let json = plan.inputs().iter().any(|input| has_json(input.schema()));
        // Few statements have any of these.
        if !uuids && !json && !has_several(&plan)? {
            return Ok(Transformed::no(plan));
        }
        let schema = merge_schema(&plan.inputs());
        let names = NamePreserver::new(&plan);
        let settled = |expr: Expr| {
            let name = names.save(&expr);
            let done = expr.transform_up(|expr| {
                refused::check(&expr, &schema)?;
                let expr = match uuids {
                    true => uuids::with_uuids(expr, &schema),
                    false => Transformed::no(expr),
                };
                expr.transform_data(|expr| truths::settled(expr, &schema))?
                    .transform_data(|expr| self.mixed.settled(expr, &schema))?
                    .transform_data(|expr| json_types::settled(expr, &schema))?
                    .transform_data(|expr| self.equal_json.compared(expr, &schema))
            })?;
            Ok(match done.transformed {
                true => done.update_data(|expr| name.restore(expr)),
                false => done,
            })
        };
        let done = plan.map_expressions(|expr| match expr {
            Expr::GroupingSet(set) => grouped(set, settled),
            expr => settled(expr),
        })?;
        match done.transformed {
            true => done.map_data(LogicalPlan::recompute_schema),
            false => Ok(done),
        }
    }
}

fn of_json(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    match plan {
        LogicalPlan::Union(union) => json_types::of_union(union),
        other => Ok(Transformed::no(other)),
    }
}

/// Whether an expression of the plan is one of those of which types may be mixed.
fn has_several(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_expressions(|expr| {
        let may_have = |expr: &Expr| {
            Mixed::may_have(expr)
                || EqualJson::may_have(expr)
                || json_types::may_have(expr)
                || truths::may_have(expr)
                || refused::may_have(expr)
        };
        found = found || expr.exists(|expr| Ok(may_have(expr)))?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}
