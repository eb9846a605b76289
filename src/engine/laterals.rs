//! What stands behind LATERAL, or is an array of an earlier table's in FROM, and is computed of single rows
//! of what stands before it: `FROM t, unnest(t.list) AS x`. The engine makes joins of such subqueries only
//! where they read tables; here their columns are added to the rows that they are computed of.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchemaRef, Result, ScalarValue, UnnestOptions};
use datafusion::config::ConfigOptions;
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_nested::empty::array_empty_udf;
use datafusion::functions_window::lead_lag::lag_udwf;
use datafusion::logical_expr::expr::{Case, WindowFunction};
use datafusion::logical_expr::{
    Expr, ExprFunctionExt, Filter, Join, JoinType, LogicalPlan, LogicalPlanBuilder, Operator,
    Projection, SubqueryAlias, Unnest, WindowFrame, WindowFrameBound, WindowFrameUnits,
    binary_expr, lit,
};
use datafusion::optimizer::AnalyzerRule;

use super::semantics::row_number;

/// The rule. It belongs before those that look at the types of expressions.
#[derive(Debug)]
pub(super) struct Laterals;

impl AnalyzerRule for Laterals {
    fn name(&self) -> &str {
        "laterals"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        // Few statements have any.
        let mut any = false;
        plan.apply_with_subqueries(|plan| {
            any = matches!(plan, LogicalPlan::Subquery(_));
            Ok(if any { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })?;
        if !any {
            return Ok(plan);
        }
        plan.transform_up_with_subqueries(|plan| match plan {
            LogicalPlan::Join(join) => Ok(match added(&join)? {
                Some(plan) => Transformed::yes(plan),
                None => Transformed::no(LogicalPlan::Join(join)),
            }),
            other => Ok(Transformed::no(other)),
        })
        .map(|done| done.data)
    }
}

/// The rows of a join's left side with the columns of the right one, if those are computed of them.
fn added(join: &Join) -> Result<Option<LogicalPlan>> {
    let outer = match join.join_type {
        JoinType::Inner => false,
        // A row for which there is none is kept, which only a condition that always holds can promise.
        JoinType::Left if join.on.is_empty() && holds(join.filter.as_ref()) => true,
        _ => return Ok(None),
    };
    let Some(subquery) = lateral(&join.right) else { return Ok(None) };
    let left = match outer && filters(subquery)? {
        true => Arc::new(numbered(join.left.as_ref().clone())?),
        false => join.left.clone(),
    };
    let mut rows = Rows { left: left.schema().clone(), outer, names: 0, any: None };
    let Some((plan, columns)) = rows.with(subquery, &left)? else { return Ok(None) };
    let right = join.right.schema().iter().zip(columns);
    let right = right.map(|((qualifier, field), column)| {
        column.alias_qualified(qualifier.cloned(), field.name())
    });
    let exprs: Vec<Expr> = own(join.left.schema()).chain(right).collect();
    let mut plan = LogicalPlanBuilder::from(plan).project(exprs)?.build()?;
    let equal = join.on.iter().map(|(left, right)| left.clone().eq(right.clone()));
    let conditions = equal.chain(join.filter.clone().filter(|_| !outer));
    if let Some(condition) = conditions.reduce(Expr::and) {
        plan = LogicalPlan::Filter(Filter::try_new(condition, Arc::new(plan))?);
    }
    Ok(Some(plan))
}

fn holds(condition: Option<&Expr>) -> bool {
    let truth = ScalarValue::Boolean(Some(true));
    condition.is_none_or(|expr| matches!(expr, Expr::Literal(value, _) if *value == truth))
}

/// The subquery that a side of a join is, if it refers to the other side.
fn lateral(plan: &LogicalPlan) -> Option<&LogicalPlan> {
    match plan {
        LogicalPlan::SubqueryAlias(SubqueryAlias { input, .. }) => lateral(input),
        LogicalPlan::Subquery(subquery) => Some(&subquery.subquery),
        _ => None,
    }
}

/// Whether a subquery leaves out some of the rows that it makes of lists.
fn filters(plan: &LogicalPlan) -> Result<bool> {
    plan.exists(|plan| match plan {
        LogicalPlan::Filter(filter) => has_lists(&filter.input),
        _ => Ok(false),
    })
}

/// Whether a subquery makes several rows of one.
fn has_lists(plan: &LogicalPlan) -> Result<bool> {
    plan.exists(|plan| Ok(matches!(plan, LogicalPlan::Unnest(_))))
}

/// The number of a row of the left side: no statement has a column of this name.
const ROW: &str = "\u{2}row";

/// Rows with a number each.
fn numbered(plan: LogicalPlan) -> Result<LogicalPlan> {
    let number = Expr::from(WindowFunction::new(row_number(), Vec::new()));
    let name = Column::from_name(number.schema_name().to_string());
    let exprs: Vec<Expr> = own(plan.schema()).chain([Expr::Column(name).alias(ROW)]).collect();
    LogicalPlanBuilder::from(plan).window(vec![number])?.project(exprs)?.build()
}

fn own(schema: &DFSchemaRef) -> impl Iterator<Item = Expr> {
    schema
        .iter()
        .map(|(qualifier, field)| Expr::Column(Column::new(qualifier.cloned(), field.name())))
}

/// A side's rows, to which columns are added.
struct Rows {
    left: DFSchemaRef,
    /// Rows stay for which a list has no element.
    outer: bool,
    /// Names given so far.
    names: usize,
    /// The column that is true where a list has an element, if a row stays for which none has: of that row
    /// all that the subquery computes is NULL.
    any: Option<Expr>,
}

/// A plan whose rows begin with those of the left side, and where the columns of another plan are in it.
type Added = Option<(LogicalPlan, Vec<Expr>)>;

impl Rows {
    fn with(&mut self, plan: &LogicalPlan, left: &Arc<LogicalPlan>) -> Result<Added> {
        Ok(match plan {
            LogicalPlan::EmptyRelation(empty) if empty.produce_one_row => {
                Some((left.as_ref().clone(), Vec::new()))
            }
            LogicalPlan::SubqueryAlias(SubqueryAlias { input, .. }) => self.with(input, left)?,
            // An array in FROM of what is lateral itself: `LATERAL (SELECT * FROM unnest(t.list))`.
            LogicalPlan::Subquery(subquery) => self.with(&subquery.subquery, left)?,
            LogicalPlan::Projection(projection) => self.projected(projection, left)?,
            LogicalPlan::Filter(filter) if !self.outer => {
                let Some((plan, columns)) = self.with(&filter.input, left)? else {
                    return Ok(None);
                };
                let condition = moved(filter.predicate.clone(), filter.input.schema(), &columns)?;
                let plan = LogicalPlanBuilder::from(plan).filter(condition)?.build()?;
                Some((plan, columns))
            }
            LogicalPlan::Filter(filter) => self.kept(filter, left)?,
            LogicalPlan::Unnest(unnest) => self.unnested(unnest, left)?,
            _ => None,
        })
    }

    /// The rows for which a condition holds; where it does for none of a row of the left side, one of them,
    /// of which all that the subquery computes is NULL.
    fn kept(&mut self, filter: &Filter, left: &Arc<LogicalPlan>) -> Result<Added> {
        let Some((plan, columns)) = self.with(&filter.input, left)? else { return Ok(None) };
        let condition = moved(filter.predicate.clone(), filter.input.schema(), &columns)?;
        let condition = match self.any.take() {
            // Of a row without an element it is not computed.
            Some(any) => when(any, number_of(condition)).eq(lit(1_i64)),
            None => condition,
        };
        let name = format!("\u{2}fits{}", self.names);
        self.names += 1;
        let exprs: Vec<Expr> =
            own(plan.schema()).chain([condition.is_true().alias(&name)]).collect();
        let mut plan = LogicalPlanBuilder::from(plan).project(exprs)?.build()?;
        let fits = Expr::Column(Column::from_name(&name));
        // Otherwise there is one row anyway.
        if has_lists(&filter.input)? {
            plan = fitting(plan, &fits)?;
        }
        self.any = Some(fits.clone());
        let columns = columns.into_iter().map(|column| when(fits.clone(), column));
        Ok(Some((plan, columns.collect())))
    }

    fn projected(&mut self, projection: &Projection, left: &Arc<LogicalPlan>) -> Result<Added> {
        let Some((plan, columns)) = self.with(&projection.input, left)? else { return Ok(None) };
        let mut exprs: Vec<Expr> = own(&self.left).chain(self.any.clone()).collect();
        let mut added = Vec::new();
        for expr in &projection.expr {
            // No statement has a column of this name.
            let name = format!("\u{2}lateral{}", self.names);
            self.names += 1;
            let expr = expr.clone().unalias();
            // A column of the subquery's is NULL already; an expression would be computed.
            let is_column = matches!(expr, Expr::Column(_));
            let expr = moved(expr, projection.input.schema(), &columns)?;
            let expr = if is_column { expr } else { self.if_any(expr) };
            exprs.push(expr.alias(&name));
            added.push(Expr::Column(Column::from_name(name)));
        }
        Ok(Some((LogicalPlanBuilder::from(plan).project(exprs)?.build()?, added)))
    }

    /// An expression, or NULL for a row that stays without an element.
    fn if_any(&self, expr: Expr) -> Expr {
        match &self.any {
            Some(any) => when(any.clone(), expr),
            None => expr,
        }
    }

    fn unnested(&mut self, unnest: &Unnest, left: &Arc<LogicalPlan>) -> Result<Added> {
        let lists: Vec<usize> = unnest.list_type_columns.iter().map(|(at, _)| *at).collect();
        let flat = unnest.list_type_columns.iter().all(|(_, list)| list.depth == 1);
        if !flat || !unnest.struct_type_columns.is_empty() {
            return Ok(None);
        }
        let Some((mut plan, columns)) = self.with(&unnest.input, left)? else { return Ok(None) };
        if self.outer {
            // Each list in another would keep rows of its own.
            if self.any.is_some() {
                return Ok(None);
            }
            // A list without elements is none: only of that is a row kept.
            let exprs =
                own(plan.schema()).map(|expr| match lists.iter().any(|at| columns[*at] == expr) {
                    true => unless_empty(expr),
                    false => expr,
                });
            // No statement has a column of this name.
            let name = "\u{2}any";
            let any = lists.iter().map(|at| has_elements(columns[*at].clone())).reduce(Expr::or);
            let exprs: Vec<Expr> = exprs.chain(any.map(|any| any.alias(name))).collect();
            plan = LogicalPlanBuilder::from(plan).project(exprs)?.build()?;
            self.any = Some(Expr::Column(Column::from_name(name)));
        }
        let named = |at: &usize| match &columns[*at] {
            Expr::Column(column) => Some(column.clone()),
            _ => None,
        };
        let Some(names) = lists.iter().map(named).collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        let options = UnnestOptions::new().with_preserve_nulls(self.outer);
        let plan = LogicalPlanBuilder::from(plan);
        let plan = plan.unnest_columns_with_options(names, options)?.build()?;
        let columns = unnest.dependency_indices.iter().map(|at| match lists.contains(at) {
            true => columns[*at].clone(),
            false => self.if_any(columns[*at].clone()),
        });
        Ok(Some((plan, columns.collect())))
    }
}

/// The rows that fit; where none of those with a number does, the first of them.
///
/// The windows are of the rows in the order of their numbers, and reach from the row before to the last with
/// the same number: of one without an end the engine would hold all rows, without asking for the memory.
/// Sorting asks, and spills.
fn fitting(plan: LogicalPlan, fits: &Expr) -> Result<LogicalPlan> {
    let row = Expr::Column(Column::from_name(ROW));
    let order = || vec![row.clone().sort(true, false)];
    let same = WindowFrame::new_bounds(
        WindowFrameUnits::Range,
        WindowFrameBound::CurrentRow,
        WindowFrameBound::CurrentRow,
    );
    let counted = vec![when(fits.clone(), lit(1_i64))];
    let number = Expr::from(WindowFunction::new(count_udaf(), counted));
    let number = number.order_by(order()).window_frame(same).build()?;
    let before = Expr::from(WindowFunction::new(lag_udwf(), vec![row.clone()]));
    let before = before.order_by(order()).build()?;
    let column = |expr: &Expr| Expr::Column(Column::from_name(expr.schema_name().to_string()));
    let first = binary_expr(column(&before), Operator::IsDistinctFrom, row.clone());
    let stays = fits.clone().or(column(&number).eq(lit(0_i64)).and(first));
    let exprs: Vec<Expr> = own(plan.schema()).collect();
    LogicalPlanBuilder::from(plan)
        .window(vec![number, before])?
        .filter(stays)?
        .project(exprs)?
        .build()
}

/// A list, or NULL if it has no element.
fn unless_empty(list: Expr) -> Expr {
    let name = list.schema_name().to_string();
    when(has_elements(list.clone()), list).alias(name)
}

/// Whether a list has elements; not true for NULL.
fn has_elements(list: Expr) -> Expr {
    array_empty_udf().call(vec![list]).eq(lit(false))
}

/// A value under a condition, without which it is not computed, and NULL.
fn when(condition: Expr, value: Expr) -> Expr {
    let when_then_expr = vec![(Box::new(condition), Box::new(value))];
    Expr::Case(Case { expr: None, when_then_expr, else_expr: None })
}

/// 1 where a condition holds, and 0 where not: of a CASE whose results are truth values the engine makes AND
/// and OR, which compute both sides.
fn number_of(condition: Expr) -> Expr {
    let when_then_expr = vec![(Box::new(condition), Box::new(lit(1_i64)))];
    Expr::Case(Case { expr: None, when_then_expr, else_expr: Some(Box::new(lit(0_i64))) })
}

/// An expression of a plan's columns as one of where these are now, and of the left side's.
fn moved(expr: Expr, schema: &DFSchemaRef, columns: &[Expr]) -> Result<Expr> {
    let moved = expr.transform(|expr| {
        Ok(match expr {
            Expr::OuterReferenceColumn(_, column) => Transformed::yes(Expr::Column(column)),
            Expr::Column(column) => match schema.maybe_index_of_column(&column) {
                Some(at) if at < columns.len() => Transformed::yes(columns[at].clone()),
                _ => Transformed::no(Expr::Column(column)),
            },
            other => Transformed::no(other),
        })
    })?;
    Ok(moved.data)
}
