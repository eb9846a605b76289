//! Filters that DataFusion moves down a plan, kept from columns that they are not about.
//!
//! DataFusion finds the columns of such a filter by their names, and where a step gives two columns of one
//! name it may take the wrong one: `WHERE a.id IS NULL` above an outer join of `a` and `b` was asked of
//! `b.id` as well. Such filters are stopped.
//!
//! And a sort with a LIMIT tells all parts of its rows what the worst row is that one of them keeps. Where
//! what comes first in the order is one constant in each part of a union, it is left out of the order, and
//! another part's rows are lost: such a sort has no LIMIT, and what merges the parts has it.

use std::collections::{HashMap, HashSet};
use std::fmt::{self, Formatter};
use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::AcrossPartitions;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::filter_pushdown::{
    ChildFilterDescription, ChildPushdownResult, FilterDescription, FilterPushdownPhase,
    FilterPushdownPropagation,
};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PhysicalExpr,
    PlanProperties,
};

type Rule = Arc<dyn PhysicalOptimizerRule + Send + Sync>;

/// DataFusion's rules, with those that move filters looked after.
pub(super) fn looked_after(rules: Vec<Rule>) -> Vec<Rule> {
    let moves_filters = |rule: &Rule| rule.name().starts_with("FilterPushdown");
    let looked_after = |rule: Rule| match moves_filters(&rule) {
        true => Arc::new(LookedAfter { rule }),
        false => rule,
    };
    rules.into_iter().map(looked_after).collect()
}

/// A rule that moves filters.
#[derive(Debug)]
struct LookedAfter {
    rule: Rule,
}

impl PhysicalOptimizerRule for LookedAfter {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let guarded = plan.transform_up(guard).map(|guarded| (guarded.data, guarded.transformed));
        let (plan, guarded) = guarded?;
        let plan = self.rule.optimize(plan, config)?;
        if !guarded {
            return Ok(plan);
        }
        let unguarded = |plan: Arc<dyn ExecutionPlan>| match plan.downcast_ref::<Guard>() {
            Some(guard) => Ok(Transformed::yes(guard.rows.clone())),
            None => Ok(Transformed::no(plan)),
        };
        plan.transform_up(unguarded).data()
    }

    fn name(&self) -> &str {
        self.rule.name()
    }

    fn schema_check(&self) -> bool {
        self.rule.schema_check()
    }
}

/// Puts a guard where filters would go astray, and takes the LIMIT from a sort whose own would.
fn guard(plan: Arc<dyn ExecutionPlan>) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    if let Some(sort) = plan.downcast_ref::<SortExec>()
        && sort.preserve_partitioning()
        && sort.fetch().is_some()
        && differs_between_parts(sort.input())
    {
        return Ok(Transformed::yes(Arc::new(sort.with_fetch(None))));
    }
    match alone(&plan.schema()) {
        Some(lets_through) if !plan.children().is_empty() => {
            Ok(Transformed::yes(Arc::new(Guard { rows: plan, lets_through })))
        }
        _ => Ok(Transformed::no(plan)),
    }
}

/// Whether a column is one constant in one part of the rows, and another one in the next.
fn differs_between_parts(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let constants = plan.equivalence_properties().constants();
    constants.iter().any(|of| of.across_partitions == AcrossPartitions::Heterogeneous)
}

/// The columns whose names no other column has; `None` if that is all of them.
fn alone(schema: &Schema) -> Option<HashSet<usize>> {
    let mut times: HashMap<&str, usize> = HashMap::new();
    for field in schema.fields() {
        *times.entry(field.name()).or_default() += 1;
    }
    if times.len() == schema.fields().len() {
        return None;
    }
    let fields = schema.fields().iter().enumerate();
    Some(fields.filter(|(_, field)| times[field.name().as_str()] == 1).map(|(at, _)| at).collect())
}

/// Passes rows on, and filters of some columns alone.
#[derive(Debug)]
struct Guard {
    rows: Arc<dyn ExecutionPlan>,
    lets_through: HashSet<usize>,
}

impl DisplayAs for Guard {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl ExecutionPlan for Guard {
    fn name(&self) -> &'static str {
        "Guard"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.rows.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.rows]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let rows = children.pop().unwrap_or_else(|| self.rows.clone());
        Ok(Arc::new(Self { rows, lets_through: self.lets_through.clone() }))
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        self.rows.execute(partition, context)
    }

    fn gather_filters_for_pushdown(
        &self,
        _: FilterPushdownPhase,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        _: &ConfigOptions,
    ) -> Result<FilterDescription> {
        let passing = ChildFilterDescription::from_child_with_allowed_indices(
            &filters,
            self.lets_through.clone(),
            &self.rows,
        )?;
        Ok(FilterDescription::new().with_child(passing))
    }

    fn handle_child_pushdown_result(
        &self,
        _: FilterPushdownPhase,
        result: ChildPushdownResult,
        _: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        Ok(FilterPushdownPropagation::if_all(result))
    }
}
