//! Subqueries that compare with the outer query by IS NOT DISTINCT FROM, or something that is computed of their
//! rows, or below a name that rows have within. The engine makes a join of those alone that compare a column by
//! `=`: `x IS NOT DISTINCT FROM y` says as much as that both are NULL or neither, and that their values, with any
//! one in the place of NULL, are equal; what is computed becomes a column; and a name is left away. What its
//! join would compute of the rows for all values of the outer query is refused.

use std::sync::Arc;

use datafusion::common::alias::AliasGenerator;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, JoinType, Result, ScalarValue, not_impl_err};
use datafusion::logical_expr::expr::{BinaryExpr, Case, Exists, InSubquery};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::utils::{conjunction, split_conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    Expr, ExprSchemable, FetchType, Filter, Limit, LogicalPlan, LogicalPlanBuilder, Operator,
    Projection, SkipType, Subquery, SubqueryAlias, Window, binary_expr, lit,
};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

/// The rule. It belongs before the engine's own for such subqueries.
#[derive(Debug)]
pub(super) struct Correlated;

/// The engine's rules.
pub(super) const BEFORE: &[&str] = &["decorrelate_predicate_subquery", "scalar_subquery_to_join"];

/// How the names of columns begin that are added: no column of a statement's is called so.
const KEY: &str = "\u{2}key";

impl OptimizerRule for Correlated {
    fn name(&self) -> &str {
        "correlated_by_computed"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        let names = config.alias_generator();
        // A subquery behind LATERAL.
        if let LogicalPlan::Subquery(subquery) = &plan {
            let done = matched_within(subquery, true, names)?;
            return Ok(done.update_data(LogicalPlan::Subquery));
        }
        let is_one = |expr: &Expr| expr.exists(|expr| Ok(is_correlated(expr)));
        let found = match &plan {
            LogicalPlan::Filter(filter) => is_one(&filter.predicate)?,
            LogicalPlan::Projection(projection) => {
                projection.expr.iter().map(is_one).collect::<Result<Vec<_>>>()?.contains(&true)
            }
            _ => false,
        };
        if !found {
            return Ok(Transformed::no(plan));
        }
        // Elsewhere the others are none of the engine's joins, and what is computed has a name to keep.
        let condition = matches!(plan, LogicalPlan::Filter(_));
        plan.map_expressions(|expr| {
            expr.transform_down(|expr| match expr {
                expr if !is_correlated(&expr) => Ok(Transformed::no(expr)),
                Expr::ScalarSubquery(subquery) => {
                    Ok(matched_within(&subquery, true, names)?.update_data(Expr::ScalarSubquery))
                }
                expr if !condition => Ok(Transformed::no(expr)),
                Expr::Exists(Exists { subquery, negated }) if has_one_row(&subquery.subquery) => {
                    Ok(Transformed::yes(lit(!negated)))
                }
                Expr::InSubquery(InSubquery { expr, subquery, negated })
                    if has_one_row(&subquery.subquery) =>
                {
                    let subquery = matched_within(&subquery, true, names)?.data;
                    let op = if negated { Operator::NotEq } else { Operator::Eq };
                    let compared = binary_expr(*expr, op, Expr::ScalarSubquery(subquery));
                    Ok(Transformed::yes(compared))
                }
                Expr::Exists(Exists { subquery, .. }) if misses_rows(&subquery.subquery)? => {
                    not_impl_err!(
                        "OFFSET in EXISTS, or LIMIT below another step of it, beside a condition on the \
                         outer query is not supported"
                    )
                }
                Expr::Exists(Exists { subquery, negated }) => {
                    let unordered = in_any_order(&subquery.subquery);
                    let changed = !Arc::ptr_eq(unordered, &subquery.subquery);
                    let subquery = subquery.with_plan(unordered.clone());
                    let mut done = matched_within(&subquery, false, names)?;
                    done.transformed |= changed;
                    Ok(done.update_data(|subquery| Expr::Exists(Exists { subquery, negated })))
                }
                Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
                    let done = matched_within(&subquery, false, names)?;
                    Ok(done.update_data(|subquery| {
                        Expr::InSubquery(InSubquery { expr, subquery, negated })
                    }))
                }
                expr => Ok(Transformed::no(expr)),
            })
        })
    }
}

fn is_correlated(expr: &Expr) -> bool {
    match expr {
        Expr::ScalarSubquery(subquery)
        | Expr::Exists(Exists { subquery, .. })
        | Expr::InSubquery(InSubquery { subquery, .. }) => !subquery.outer_ref_columns.is_empty(),
        _ => false,
    }
}

/// Whether a subquery has a row, and no more, whatever the outer query's values are.
fn has_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(list) => has_one_row(&list.input),
        LogicalPlan::SubqueryAlias(alias) => has_one_row(&alias.input),
        LogicalPlan::Sort(sort) => sort.fetch.is_none() && has_one_row(&sort.input),
        LogicalPlan::Limit(limit) => has_first(limit) && has_one_row(&limit.input),
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        _ => false,
    }
}

/// Whether the first row is among those that are left.
fn has_first(limit: &Limit) -> bool {
    let none_skipped = matches!(limit.get_skip_type(), Ok(SkipType::Literal(0)));
    none_skipped && matches!(limit.get_fetch_type(), Ok(FetchType::Literal(None | Some(1..))))
}

/// A plan without an order and a limit to some of its rows, which are nothing to who asks whether there are any.
fn in_any_order(plan: &Arc<LogicalPlan>) -> &Arc<LogicalPlan> {
    match plan.as_ref() {
        LogicalPlan::Sort(sort) if sort.fetch != Some(0) => in_any_order(&sort.input),
        LogicalPlan::Limit(limit) if has_first(limit) => in_any_order(&limit.input),
        LogicalPlan::Projection(list) => {
            let below = in_any_order(&list.input);
            if Arc::ptr_eq(below, &list.input) { plan } else { below }
        }
        _ => plan,
    }
}

/// Whether there may be a row only because of some that LIMIT or OFFSET has to leave out for each row of the
/// outer query: the engine's join leaves out none.
fn misses_rows(plan: &LogicalPlan) -> Result<bool> {
    match plan {
        LogicalPlan::Projection(list) => misses_rows(&list.input),
        LogicalPlan::SubqueryAlias(alias) => misses_rows(&alias.input),
        LogicalPlan::Sort(sort) => misses_rows(&sort.input),
        LogicalPlan::Limit(limit) if has_first(limit) => misses_rows(&limit.input),
        other => other.exists(|plan| match plan {
            LogicalPlan::Limit(limit) => {
                let none = matches!(limit.get_fetch_type()?, FetchType::Literal(Some(0)));
                Ok(!none && !plan.all_out_ref_exprs().is_empty())
            }
            _ => Ok(false),
        }),
    }
}

/// `value`: whether it is a value that is asked for, or rows, of which the engine's join compares by equality
/// alone.
fn matched_within(
    subquery: &Subquery,
    value: bool,
    names: &Arc<AliasGenerator>,
) -> Result<Transformed<Subquery>> {
    let plan = subquery.subquery.as_ref();
    if compared(plan, !value)?.is_empty() {
        return Ok(Transformed::no(subquery.clone()));
    }
    // Of rows that are not aggregated the engine's join compares what it may.
    let groups = plan.exists(|plan| Ok(matches!(plan, LogicalPlan::Aggregate(_))))?;
    let named = plan.exists(|plan| is_named(plan, value))?;
    if !value && !groups && !named {
        return Ok(Transformed::no(subquery.clone()));
    }
    let done = plan.clone().transform_down(|plan| match plan {
        LogicalPlan::SubqueryAlias(alias)
            if named && !compared(&alias.input, false)?.is_empty() =>
        {
            without_name(alias).map(Transformed::yes)
        }
        plan => matched(plan, groups, named, names),
    })?;
    Ok(done.update_data(|plan| subquery.with_plan(plan.into())))
}

/// Whether rows have a name below which they are compared with the outer query's by something that is no column
/// of that name: the engine takes one for it that is called the same.
fn is_named(plan: &LogicalPlan, value: bool) -> Result<bool> {
    let LogicalPlan::SubqueryAlias(alias) = plan else { return Ok(false) };
    let gives = |name: &str| match alias.input.as_ref() {
        LogicalPlan::Projection(list) => list.expr.iter().any(|expr| {
            expr.qualified_name().1 == name
                && matches!(expr.clone().unalias(), Expr::Column(own) if own.name == name)
        }),
        input => input.schema().fields().iter().any(|field| field.name() == name),
    };
    let compared = compared(&alias.input, false)?;
    Ok(compared.iter().any(|column| match column {
        Some(name) => !gives(name),
        None => value,
    }))
}

/// The same rows, whose columns have that name one by one: others can be added.
fn without_name(alias: SubqueryAlias) -> Result<LogicalPlan> {
    let SubqueryAlias { input, alias, schema, .. } = alias;
    let columns = input.schema().columns().into_iter().zip(schema.fields());
    let columns: Vec<Expr> = columns
        .map(|(column, field)| {
            Expr::Column(column).alias_qualified(Some(alias.clone()), field.name())
        })
        .collect();
    LogicalPlanBuilder::from(input.as_ref().clone()).project(columns)?.build()
}

/// The columns of a plan's that conditions within compare with the outer query, by name, with `None` for what is
/// no column. `counted`: whether a step above looks at how many rows there are, or whether there are any.
///
/// # Errors
/// The engine's join would compute something of other rows than those that fulfil the conditions.
fn compared(plan: &LogicalPlan, counted: bool) -> Result<Vec<Option<String>>> {
    Ok(match plan {
        LogicalPlan::Filter(filter) => {
            let mut found = compared(&filter.input, counted)?;
            let conditions = split_conjunction(&filter.predicate).into_iter();
            found.extend(conditions.filter(|expr| expr.contains_outer()).map(|condition| {
                match sides(condition)? {
                    (Expr::Column(column), _, _) => Some(column.name),
                    _ => None,
                }
            }));
            found
        }
        LogicalPlan::Projection(list) => {
            compared(&list.input, counted || !shows_conditions(list)?)?
        }
        LogicalPlan::SubqueryAlias(alias) => compared(&alias.input, counted)?,
        LogicalPlan::Sort(sort) => compared(&sort.input, counted)?,
        LogicalPlan::Limit(limit) => compared(&limit.input, counted)?,
        LogicalPlan::Aggregate(aggregate) => {
            let found = compared(&aggregate.input, true)?;
            // There is a row of it where no row fulfils the conditions.
            if counted && aggregate.group_expr.is_empty() && !found.is_empty() {
                return not_impl_err!(
                    "a condition on the outer query below an aggregate that is part of another query is \
                     not supported"
                );
            }
            found
        }
        LogicalPlan::Window(window) => {
            let found = compared(&window.input, true)?;
            if !found.iter().all(|column| is_partitioned_by(window, column.as_deref())) {
                return not_impl_err!(
                    "a condition on the outer query below a window function is not supported"
                );
            }
            found
        }
        LogicalPlan::Join(join) => {
            let (left, right) = (compared(&join.left, true)?, compared(&join.right, true)?);
            let refused = match join.join_type {
                JoinType::Inner => false,
                JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => {
                    !right.is_empty()
                }
                JoinType::Full => !left.is_empty() || !right.is_empty(),
                _ => !left.is_empty(),
            };
            if refused {
                return not_impl_err!(
                    "a condition on the outer query below the optional side of a join is not supported"
                );
            }
            left.into_iter().chain(right).collect()
        }
        // What is within refers to this query.
        LogicalPlan::Subquery(_) => Vec::new(),
        other => {
            let below = other.inputs().into_iter().map(|input| compared(input, true));
            below.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect()
        }
    })
}

/// Whether the engine's join can look at the conditions below a list once more, where an aggregate has a row
/// that fulfils them, though none was read: what they are of has to be in the list.
fn shows_conditions(list: &Projection) -> Result<bool> {
    Ok(match list.input.as_ref() {
        LogicalPlan::Filter(filter) => {
            let mut shown = filter.predicate.column_refs().into_iter();
            let is = |column: &Column, expr: &Expr| matches!(expr.clone().unalias(), Expr::Column(own) if own == *column);
            shown.all(|column| list.expr.iter().any(|expr| is(column, expr)))
                || fails_for_none(filter)?
        }
        input => !has_conditions(input),
    })
}

fn has_conditions(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Filter(_) => true,
        LogicalPlan::Projection(list) => has_conditions(&list.input),
        LogicalPlan::SubqueryAlias(alias) => has_conditions(&alias.input),
        LogicalPlan::Sort(sort) => has_conditions(&sort.input),
        _ => false,
    }
}

/// Whether a condition on an aggregate does not hold where no row was read.
fn fails_for_none(filter: &Filter) -> Result<bool> {
    let LogicalPlan::Aggregate(aggregate) = filter.input.as_ref() else { return Ok(false) };
    let columns = aggregate.schema.columns().into_iter().skip(aggregate.group_expr.len());
    let mut values = Vec::new();
    for (column, expr) in columns.zip(&aggregate.aggr_expr) {
        let Expr::AggregateFunction(function) = expr.clone().unalias() else { return Ok(false) };
        values.push((
            column,
            function.func.default_value(&expr.get_type(aggregate.input.schema())?)?,
        ));
    }
    let of_none = filter.predicate.clone().transform(|expr| {
        let value = match &expr {
            Expr::Column(column) => values.iter().find(|(own, _)| own == column),
            _ => None,
        };
        Ok(match value {
            Some((_, value)) => Transformed::yes(lit(value.clone())),
            None => Transformed::no(expr),
        })
    })?;
    let simplifier = ExprSimplifier::new(SimplifyContext::builder().build());
    Ok(match simplifier.simplify(of_none.data)? {
        Expr::Literal(value, _) => value.is_null() || value == ScalarValue::from(false),
        _ => false,
    })
}

fn is_partitioned_by(window: &Window, column: Option<&str>) -> bool {
    let has = |key: &Expr| matches!(key, Expr::Column(own) if Some(own.name.as_str()) == column);
    window.window_expr.iter().all(|expr| match expr.clone().unalias() {
        Expr::WindowFunction(function) => function.params.partition_by.iter().any(has),
        _ => false,
    })
}

/// A filter whose conditions of that kind are comparisons by `=`, of columns that a step below adds.
fn matched(
    plan: LogicalPlan,
    groups: bool,
    named: bool,
    names: &Arc<AliasGenerator>,
) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Filter(Filter { predicate, input, .. }) = &plan else {
        return Ok(Transformed::no(plan));
    };
    let (mut keys, mut conditions) = (Vec::new(), Vec::new());
    let mut compare = |key: Expr, op: Operator, sought: Expr| {
        // Steps above see those of several filters.
        let name = names.next(KEY);
        keys.push(key.alias(&name));
        binary_expr(Expr::Column(Column::from_name(name)), op, sought)
    };
    for condition in split_conjunction_owned(predicate.clone()) {
        match sides(&condition) {
            Some((inner, Operator::IsNotDistinctFrom, outer)) => {
                let Ok(value) = ScalarValue::new_default(&inner.get_type(input.schema())?) else {
                    return Ok(Transformed::no(plan));
                };
                let nulls = (inner.clone().is_null(), outer.clone().is_null());
                conditions.push(compare(nulls.0, Operator::Eq, nulls.1));
                conditions.push(compare(or(inner, &value), Operator::Eq, or(outer, &value)));
            }
            Some((inner, op, outer))
                if (named || (groups && op == Operator::Eq && !is_taken(&inner)))
                    && can_be_column(&inner) =>
            {
                conditions.push(compare(inner, op, outer));
            }
            _ => conditions.push(condition),
        }
    }
    let columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
    let Some(predicate) = conjunction(conditions).filter(|_| !keys.is_empty()) else {
        return Ok(Transformed::no(plan));
    };
    let changed = LogicalPlanBuilder::from(input.as_ref().clone())
        .project(columns.iter().cloned().chain(keys))?
        .filter(predicate)?
        .project(columns)?
        .build()?;
    Ok(Transformed::yes(changed))
}

/// What a comparison compares: something of the subquery's own, and of the outer query alone.
fn sides(condition: &Expr) -> Option<(Expr, Operator, Expr)> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = condition else { return None };
    let is_outer = |side: &Expr| side.contains_outer() && !side.any_column_refs();
    // Of what is no comparison some can be swapped, too.
    let swapped = op.swap().filter(|_| op.supports_propagation())?;
    match (is_outer(left), is_outer(right)) {
        (false, true) if !left.contains_outer() => {
            Some((left.as_ref().clone(), *op, right.as_ref().clone()))
        }
        (true, false) if !right.contains_outer() => {
            Some((right.as_ref().clone(), swapped, left.as_ref().clone()))
        }
        _ => None,
    }
}

/// Whether the engine compares it as it is: a column, or the cast of one.
fn is_taken(expr: &Expr) -> bool {
    match expr {
        Expr::Cast(cast) => matches!(*cast.expr, Expr::Column(_)),
        expr => matches!(expr, Expr::Column(_)),
    }
}

/// Whether it can be a column of a step below, and is none that was added for this.
fn can_be_column(expr: &Expr) -> bool {
    let is_key = |expr: &Expr| matches!(expr, Expr::Column(own) if own.name.starts_with(KEY));
    let has_subquery = |expr: &Expr| {
        matches!(expr, Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_))
    };
    expr.any_column_refs()
        && !is_key(expr)
        && !expr.is_volatile()
        && !expr.exists(|expr| Ok(has_subquery(expr))).unwrap_or(true)
}

/// A value in the place of NULL.
fn or(expr: Expr, value: &ScalarValue) -> Expr {
    Expr::Case(Case {
        expr: None,
        when_then_expr: vec![(Box::new(expr.clone().is_null()), Box::new(lit(value.clone())))],
        else_expr: Some(Box::new(expr)),
    })
}
