//! Constants that are moments with a zone, beside such without one. To the engine they are one value if their
//! numbers are: it would compute `timestamp '2026-03-01' + x` once, for itself and for
//! `timestamptz '2026-03-01' + x`, and give one column twice.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::metadata::FieldMetadata;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, ScalarUDF};
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

use super::{bare, grouped};

/// What marks a constant with a zone.
pub(super) const MARK: (&str, &str) = ("oribi.zone", "yes");

/// The rule. It marks constants with a zone in plans that have one without it that the engine takes for the
/// same, and all of the same number alike. No others: to the engine a constant with a mark is another one
/// than the same without it, and one that a parameter stands for gets none.
#[derive(Debug)]
pub(in crate::engine) struct Apart;

impl Apart {
    /// The rule that computes constants.
    pub(in crate::engine) const BEHIND: &str = "simplify_expressions";
}

impl OptimizerRule for Apart {
    fn name(&self) -> &str {
        "moments_apart"
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        let mixed = mixed(&plan)?;
        match mixed.is_empty() {
            true => Ok(Transformed::no(plan)),
            false => plan.transform_up_with_subqueries(|plan| marked(plan, &mixed)),
        }
    }
}

/// The constants of which a plan has one with a zone that needs a mark, and one without a zone.
fn mixed(plan: &LogicalPlan) -> Result<HashSet<ScalarValue>> {
    let (mut zoned, mut bare) = (HashSet::new(), HashSet::new());
    plan.apply_with_subqueries(|plan| {
        plan.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::Literal(value, metadata) = expr
                    && let DataType::Timestamp(_, zone) = value.data_type()
                {
                    match (zone, metadata) {
                        (None, _) => bare.insert(value.clone()),
                        (Some(_), None) => zoned.insert(value.clone()),
                        (Some(_), Some(_)) => false,
                    };
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    zoned.retain(|value| bare.contains(value));
    Ok(zoned)
}

fn marked(plan: LogicalPlan, mixed: &HashSet<ScalarValue>) -> Result<Transformed<LogicalPlan>> {
    // Its rows are of constants one by one, none of which stands for another.
    if matches!(plan, LogicalPlan::Values(_)) {
        return Ok(Transformed::no(plan));
    }
    let names = NamePreserver::new(&plan);
    let schema = merge_schema(&plan.inputs());
    let each = |expr: Expr| {
        let name = names.save(&expr);
        let mut done = with_marks(expr.clone(), mixed, None)?;
        if done.transformed && leaks(&done.data, &schema) {
            done = with_marks(expr, mixed, Some(&bare::function()))?;
        }
        Ok(match done.transformed {
            true => done.update_data(|expr| name.restore(expr)),
            false => done,
        })
    };
    let done = plan.map_expressions(|expr| match expr {
        Expr::GroupingSet(set) => grouped(set, each),
        expr => each(expr),
    })?;
    match done.transformed {
        true => done.map_data(LogicalPlan::recompute_schema),
        false => Ok(done),
    }
}

/// An expression with the constants in it marked, each as a value without its mark if there is a function for
/// that.
fn with_marks(
    expr: Expr,
    mixed: &HashSet<ScalarValue>,
    bare: Option<&Arc<ScalarUDF>>,
) -> Result<Transformed<Expr>> {
    expr.transform_up(|expr| match expr {
        Expr::Literal(value, None)
            if matches!(value.data_type(), DataType::Timestamp(_, Some(_)))
                && mixed.contains(&value) =>
        {
            let (key, marked) = MARK;
            let metadata = [(key.to_owned(), marked.to_owned())].into_iter().collect();
            let marked = Expr::Literal(value, Some(FieldMetadata::new(metadata)));
            Ok(Transformed::yes(match bare {
                Some(bare) => bare.call(vec![marked]),
                None => marked,
            }))
        }
        other => Ok(Transformed::no(other)),
    })
}

/// Whether a mark is one of the column that an expression becomes: another step may want a column without it,
/// as the two sides of a union or of a recursive query do.
fn leaks(expr: &Expr, schema: &DFSchema) -> bool {
    expr.to_field(schema).is_ok_and(|(_, field)| field.metadata().contains_key(MARK.0))
}
