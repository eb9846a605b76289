//! Expressions that differ in a cast only: the engine names columns without the casts in them, and refuses
//! two of one name. A label tells them apart, which the plan loses again.
//!
//! Casts of constants have none: what asks for a constant would not know it. Only a statement that has failed
//! for its names is labelled.

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement as EngineStatement;
use sqlparser::ast::{Expr, Value, VisitorMut};

use super::as_of;
use super::joins::call;
use super::visit::{visit_expressions, visit_mut};

/// Whether a plan groups by two expressions of one name: what reads its rows may take one for the other.
pub(super) fn clash(plan: &LogicalPlan) -> bool {
    let clashes = |plan: &LogicalPlan| {
        let LogicalPlan::Aggregate(aggregate) = plan else { return false };
        let mut names = HashSet::new();
        let mut exprs = aggregate.group_expr.iter().chain(&aggregate.aggr_expr);
        exprs.any(|expr| !names.insert(expr.schema_name().to_string()))
    };
    let mut found = false;
    // Infallible.
    let _ = plan.apply_with_subqueries(|plan| {
        found = found || clashes(plan);
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    found
}

/// Whether there is a cast to be labelled.
pub(super) fn are_in(statement: &mut EngineStatement) -> bool {
    let mut any = false;
    if let Some(statement) = as_of::sql(statement) {
        visit_expressions(statement, |expr| any |= is_cast(expr));
    }
    any
}

/// Labels each cast with its type.
pub(super) fn label(statement: &mut EngineStatement) {
    if let Some(statement) = as_of::sql(statement) {
        let _ = visit_mut(statement, &mut Labels);
    }
}

fn is_cast(expr: &Expr) -> bool {
    matches!(expr, Expr::Cast { expr, .. } if !matches!(expr.as_ref(), Expr::Value(_)))
}

struct Labels;

impl VisitorMut for Labels {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Cast { data_type, .. } = &*expr
            && is_cast(expr)
        {
            let label = Value::SingleQuotedString(data_type.to_string());
            *expr = call("labelled", vec![expr.clone(), Expr::Value(label.into())]);
        }
        ControlFlow::Continue(())
    }
}
