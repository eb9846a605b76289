//! EXISTS. The engine tells only in conditions whether a subquery has rows, but anywhere how many. Here
//! EXISTS becomes their number wherever else it stands: the subquery has been planned as it is written by
//! then, so that what is wrong in its list is an error, though nobody looks at the values.
//!
//! And it makes joins of such subqueries by the conditions that it finds above the tables; values that
//! stand in a list below them, as those of `(a, b) IN (SELECT ...)` do, are put into the conditions.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, Spans};
use datafusion::config::ConfigOptions;
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::expr::Exists;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    Expr, FetchType, Filter, Limit, LogicalPlan, LogicalPlanBuilder, Operator, Projection,
    SkipType, Subquery, SubqueryAlias, binary_expr, lit,
};
use datafusion::optimizer::AnalyzerRule;

/// The rule. It belongs before those that look at the types of expressions.
#[derive(Debug)]
pub(super) struct Existence;

impl AnalyzerRule for Existence {
    fn name(&self) -> &str {
        "existence"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        // Few statements have any.
        let mut any = false;
        plan.apply_with_subqueries(|plan| {
            any = any || asks(plan)?;
            Ok(if any { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })?;
        if !any {
            return Ok(plan);
        }
        plan.transform_up_with_subqueries(settled).map(|done| done.data)
    }
}

/// Whether EXISTS stands in an expression of a plan's own.
fn asks(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_expressions(|expr| {
        found = found || expr.exists(|expr| Ok(matches!(expr, Expr::Exists(_))))?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

fn settled(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    if !asks(&plan)? {
        return Ok(Transformed::no(plan));
    }
    let in_condition = matches!(plan, LogicalPlan::Filter(_) | LogicalPlan::Join(_));
    let names = NamePreserver::new(&plan);
    plan.map_expressions(|expr| {
        let name = names.save(&expr);
        let done = expr.transform_up(|expr| match expr {
            Expr::Exists(exists) if in_condition => Ok(match flattened(&exists.subquery)? {
                Some(subquery) => {
                    let negated = exists.negated;
                    Transformed::yes(Expr::Exists(Exists { subquery, negated }))
                }
                None => Transformed::no(Expr::Exists(exists)),
            }),
            Expr::Exists(exists) => counted(exists).map(Transformed::yes),
            other => Ok(Transformed::no(other)),
        })?;
        Ok(match done.transformed {
            true => done.update_data(|expr| name.restore(expr)),
            false => done,
        })
    })
}

/// Whether a subquery has rows, by their number.
fn counted(exists: Exists) -> Result<Expr> {
    let Exists { subquery, negated } = exists;
    let subquery = flattened(&subquery)?.unwrap_or(subquery);
    let mut rows = subquery.subquery;
    loop {
        rows = match rows.as_ref() {
            LogicalPlan::Projection(list) => list.input.clone(),
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => sort.input.clone(),
            LogicalPlan::Limit(limit) if lets_one_through(limit) => limit.input.clone(),
            // Without groups there is always one.
            LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.is_empty() => {
                return Ok(lit(!negated));
            }
            _ => break,
        };
    }
    let number = LogicalPlanBuilder::from(rows.as_ref().clone())
        .aggregate(Vec::<Expr>::new(), vec![count(lit(1_i64))])?;
    let number = {
        let columns: Vec<Expr> = number.schema().columns().into_iter().map(Expr::Column).collect();
        number.project(columns)?.build()?
    };
    let number = Expr::ScalarSubquery(Subquery {
        outer_ref_columns: number.all_out_ref_exprs(),
        subquery: Arc::new(number),
        spans: Spans::new(),
    });
    let op = if negated { Operator::Eq } else { Operator::Gt };
    Ok(binary_expr(coalesce(vec![number, lit(0_i64)]), op, lit(0_i64)))
}

/// Whether there are rows behind LIMIT wherever there are some before it.
fn lets_one_through(limit: &Limit) -> bool {
    matches!(limit.get_skip_type(), Ok(SkipType::Literal(0)))
        && matches!(limit.get_fetch_type(), Ok(FetchType::Literal(None | Some(1..))))
}

/// A subquery that has rows where another one has, and of which the engine can make a join; `None` if it
/// is that one.
fn flattened(subquery: &Subquery) -> Result<Option<Subquery>> {
    if subquery.outer_ref_columns.is_empty() {
        return Ok(None);
    }
    // Nobody looks at the list.
    let (rows, listed) = match subquery.subquery.as_ref() {
        LogicalPlan::Projection(list) => (&list.input, refers_out(&list.expr)),
        _ => (&subquery.subquery, false),
    };
    let changed = match rows.as_ref() {
        LogicalPlan::Filter(filter) => inlined(filter)?,
        _ => None,
    };
    let rows = match changed {
        Some(changed) => Arc::new(changed),
        None if listed => rows.clone(),
        None => return Ok(None),
    };
    let outer_ref_columns = rows.all_out_ref_exprs();
    Ok(Some(Subquery { subquery: rows, outer_ref_columns, spans: Spans::new() }))
}

fn refers_out(exprs: &[Expr]) -> bool {
    exprs.iter().any(Expr::contains_outer)
}

/// A condition on the columns of a list as one on what these are made of, if there the outer query's are
/// referred to.
fn inlined(filter: &Filter) -> Result<Option<LogicalPlan>> {
    // A subquery within refers to the columns by the names that they have here.
    if filter.input.all_out_ref_exprs().is_empty() || has_subquery(&filter.predicate) {
        return Ok(None);
    }
    let (mut condition, mut input) = (filter.predicate.clone(), &filter.input);
    loop {
        let below = match input.as_ref() {
            LogicalPlan::SubqueryAlias(SubqueryAlias { input: below, .. }) => {
                let columns = below.schema().columns().into_iter().map(Expr::Column);
                condition = put(condition, input, &columns.collect::<Vec<_>>())?;
                below
            }
            LogicalPlan::Projection(Projection { expr, input: below, .. }) => {
                // Of what is the outer query's alone, the engine forgets that it may be NULL.
                let stays = |expr: &Expr| expr.is_volatile() || expr.contains_outer();
                if expr.iter().any(|expr| stays(expr) || has_subquery(expr)) {
                    return Ok(None);
                }
                condition = put(condition, input, expr)?;
                below
            }
            _ => break,
        };
        input = below;
    }
    let changed = !Arc::ptr_eq(input, &filter.input);
    match changed {
        true => Filter::try_new(condition, input.clone()).map(LogicalPlan::Filter).map(Some),
        false => Ok(None),
    }
}

fn has_subquery(expr: &Expr) -> bool {
    let is = |expr: &Expr| {
        matches!(expr, Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_))
    };
    expr.exists(|expr| Ok(is(expr))).unwrap_or(true)
}

/// An expression of a plan's columns, with these in the place of the columns.
fn put(expr: Expr, plan: &LogicalPlan, values: &[Expr]) -> Result<Expr> {
    let done = expr.transform(|expr| match expr {
        Expr::Column(column) => Ok(match plan.schema().maybe_index_of_column(&column) {
            Some(at) if at < values.len() => Transformed::yes(values[at].clone().unalias()),
            _ => Transformed::no(Expr::Column(column)),
        }),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(done.data)
}
