//! Plans that are optimised once for all executions of a statement, whatever the values of its parameters.
//!
//! Most of what it takes to plan a short statement is the optimiser, whose work comes out the same each time:
//! it is kept with the statement, parameters and all. With their values only constants are computed. Left to
//! each execution are statements whose optimised plan depends on more than the catalog and the settings that
//! they were planned with: on the moment, on a LIMIT that is a parameter, or on the conditions on a table
//! that is not one of files; and those that do more with a parameter than to compare it.

use std::sync::{Arc, OnceLock};

use datafusion::common::ParamValues;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::source_as_provider;
use datafusion::error::Result;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, Operator};
use datafusion::optimizer::Optimizer;
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;

use super::look_up::LookUp;
use super::result_cache::{is_lasting, lasts};
use super::semantics::{Implied, LargeConstants};
use crate::storage;

/// Of a statement: what was made once for all executions; `None` in it if each needs its own.
pub(super) type Generic = Arc<OnceLock<Option<Made>>>;

/// What all executions of a statement begin with.
#[derive(Debug)]
pub(super) struct Made {
    optimised: LogicalPlan,
    /// If it looks for a key.
    pub look_up: Option<LookUp>,
}

/// What all executions of a statement begin with; `None` if there is no such thing.
pub(super) fn made<'a>(
    generic: &'a Generic,
    logical: &LogicalPlan,
    state: &SessionState,
) -> Result<Option<&'a Made>> {
    if let Some(made) = generic.get() {
        return Ok(made.as_ref());
    }
    let made = match suits_all(logical)? {
        true => {
            let optimised = state.optimize(logical)?;
            let look_up = LookUp::of(&optimised);
            Some(Made { optimised, look_up })
        }
        false => None,
    };
    Ok(generic.get_or_init(|| made).as_ref())
}

impl Made {
    /// The optimised plan with values for its parameters.
    pub fn plan(&self, values: &ParamValues, state: &SessionState) -> Result<LogicalPlan> {
        let plan = self.optimised.clone();
        if matches!(values, ParamValues::List(values) if values.is_empty()) {
            return Ok(plan);
        }
        let plan = plan.replace_params_with_values(values)?;
        let constants = Optimizer::with_rules(vec![
            Arc::new(SimplifyExpressions::new()),
            // What follows of a value could not be known before.
            Arc::new(Implied),
            Arc::new(LargeConstants::default()),
        ]);
        constants.optimize(plan, state, |_, _| {})
    }
}

fn suits_all(plan: &LogicalPlan) -> Result<bool> {
    let mut suits = true;
    plan.apply_with_subqueries(|node| {
        suits &= match node {
            LogicalPlan::TableScan(scan) => {
                storage::is_of_files(source_as_provider(&scan.source)?.as_ref())
            }
            LogicalPlan::Limit(_) => !node.expressions().iter().any(has_parameter),
            node => lasts(node),
        };
        node.apply_expressions(|expr| {
            suits &= !matches!(expr, Expr::Placeholder(_));
            expr.apply(|expr| {
                suits &= !has_parameter_below(expr)? || compares(expr);
                suits &= match expr {
                    Expr::Placeholder(_) => true,
                    // Where it runs decides what becomes of them.
                    Expr::ScalarSubquery(_)
                    | Expr::Exists(_)
                    | Expr::InSubquery(_)
                    | Expr::SetComparison(_) => false,
                    expr => is_lasting(expr),
                };
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        Ok(if suits { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(suits)
}

/// Whether an expression is about a parameter itself.
fn has_parameter_below(expr: &Expr) -> Result<bool> {
    let mut found = false;
    expr.apply_children(|child| {
        found |= matches!(child, Expr::Placeholder(_));
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

fn compares(expr: &Expr) -> bool {
    match expr {
        Expr::BinaryExpr(binary) => matches!(
            binary.op,
            Operator::Eq
                | Operator::NotEq
                | Operator::Lt
                | Operator::LtEq
                | Operator::Gt
                | Operator::GtEq
        ),
        Expr::InList(_) | Expr::Between(_) => true,
        _ => false,
    }
}

fn has_parameter(expr: &Expr) -> bool {
    expr.exists(|expr| Ok(matches!(expr, Expr::Placeholder(_)))).unwrap_or(true)
}
