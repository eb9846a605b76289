//! Filters that choose columns as well are taken apart before columns are moved through them: the engine moves what
//! stands above such a filter below it as it is, where the same places have other columns.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use datafusion::physical_plan::projection::ProjectionExec;

type Rule = Arc<dyn PhysicalOptimizerRule + Send + Sync>;

/// DataFusion's rules, with filters taken apart before the one that moves columns.
pub(super) fn taken_apart(rules: Vec<Rule>) -> Vec<Rule> {
    let taken_apart = |rule: Rule| match rule.name() == "ProjectionPushdown" {
        true => Arc::new(TakenApart { rule }),
        false => rule,
    };
    rules.into_iter().map(taken_apart).collect()
}

/// The rule that moves columns.
#[derive(Debug)]
struct TakenApart {
    rule: Rule,
}

impl PhysicalOptimizerRule for TakenApart {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.rule.optimize(plan.transform_up(apart).data()?, config)
    }

    fn name(&self) -> &str {
        self.rule.name()
    }

    fn schema_check(&self) -> bool {
        self.rule.schema_check()
    }
}

fn apart(node: Arc<dyn ExecutionPlan>) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    let Some(filter) = node.downcast_ref::<FilterExec>() else {
        return Ok(Transformed::no(node));
    };
    let Some(columns) = filter.projection() else { return Ok(Transformed::no(node)) };
    let columns = ProjectionExprs::from_indices(columns, &filter.input().schema());
    let whole = FilterExecBuilder::from(filter).apply_projection(None)?.build()?;
    let chosen = ProjectionExec::try_new(columns.iter().cloned(), Arc::new(whole))?;
    Ok(Transformed::yes(Arc::new(chosen)))
}
