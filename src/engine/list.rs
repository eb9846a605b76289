//! Lists of expressions over given columns: what RETURNING, SET, WHEN and policies say, each as what
//! stands behind a SELECT without FROM.

use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DFSchema, TableReference, plan_datafusion_err};
use datafusion::error::{DataFusionError, Result as EngineResult};
use datafusion::logical_expr::expr_rewriter::normalize_col_with_schemas_and_ambiguity_check;
use datafusion::logical_expr::planner::ContextProvider;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder};
use datafusion::sql::parser::Statement;
use datafusion::sql::planner::{PlannerContext, SqlToRel};
use sqlparser::ast::{
    Ident, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, Statement as SqlStatement,
};

/// The expressions of a list. `*` leaves out columns that only the engine knows.
pub(super) fn expressions(
    planner: &SqlToRel<'_, impl ContextProvider>,
    list: &Statement,
    columns: &DFSchema,
    context: &mut PlannerContext,
) -> EngineResult<Vec<Expr>> {
    name_queries(planner, list, context)?;
    let items = select_list(list).into_iter();
    let items = items.map(|item| list_item(planner, item, columns, context));
    let items = items.collect::<EngineResult<Vec<_>>>()?.concat();
    items.iter().try_for_each(refuse_groups)?;
    Ok(items)
}

/// What stands behind the SELECT of a plain query.
fn select_list(statement: &Statement) -> Vec<SelectItem> {
    let Statement::Statement(statement) = statement else { return Vec::new() };
    let SqlStatement::Query(query) = statement.as_ref() else { return Vec::new() };
    match query.body.as_ref() {
        SetExpr::Select(select) => select.projection.clone(),
        _ => Vec::new(),
    }
}

/// Refuses what would look at several rows at once.
fn refuse_groups(expr: &Expr) -> EngineResult<()> {
    let has = |is: fn(&Expr) -> bool| expr.exists(|expr| Ok(is(expr)));
    for (found, what) in [
        (has(|expr| matches!(expr, Expr::AggregateFunction(_)))?, "aggregate"),
        (has(|expr| matches!(expr, Expr::WindowFunction(_)))?, "window"),
    ] {
        if found {
            return Err(plan_datafusion_err!(
                "{what} functions are not allowed in SET, WHEN, VALUES and RETURNING"
            ));
        }
    }
    Ok(())
}

/// The queries of a WITH, for what refers to them.
fn name_queries(
    planner: &SqlToRel<'_, impl ContextProvider>,
    statement: &Statement,
    context: &mut PlannerContext,
) -> EngineResult<()> {
    let Statement::Statement(statement) = statement else { return Ok(()) };
    let SqlStatement::Query(query) = statement.as_ref() else { return Ok(()) };
    for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
        let query = SqlStatement::Query(cte.query.clone());
        let plan = planner.sql_statement_to_plan_with_context(query, context)?;
        let name = folded(&cte.alias.name);
        let mut plan = LogicalPlanBuilder::from(plan).alias(name.as_str())?;
        if !cte.alias.columns.is_empty() {
            let columns = plan.schema().columns().into_iter().zip(&cte.alias.columns);
            let columns: Vec<Expr> = columns
                .map(|(column, alias)| Expr::Column(column).alias(folded(&alias.name)))
                .collect();
            plan = plan.project(columns)?.alias(name.as_str())?;
        }
        context.insert_cte(name, plan.build()?);
    }
    Ok(())
}

fn folded(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

fn list_item(
    planner: &SqlToRel<'_, impl ContextProvider>,
    item: SelectItem,
    columns: &DFSchema,
    context: &mut PlannerContext,
) -> EngineResult<Vec<Expr>> {
    let mut one = |expr, alias: Option<Ident>| {
        let expr = planner.sql_to_expr(expr, columns, context)?;
        let expr = normalize_col_with_schemas_and_ambiguity_check(expr, &[&[columns]], &[])?;
        Ok(vec![match alias {
            Some(alias) => expr.alias(folded(&alias)),
            None => expr,
        }])
    };
    let all = |of: &dyn Fn(&TableReference) -> bool| -> Vec<Expr> {
        let shown = columns.iter().filter(|(relation, field)| {
            !field.name().starts_with('\u{2}') && relation.is_none_or(of)
        });
        shown.map(|column| Expr::Column(column.into())).collect()
    };
    match item {
        SelectItem::UnnamedExpr(expr) => one(expr, None),
        SelectItem::ExprWithAlias { expr, alias } => one(expr, Some(alias)),
        SelectItem::Wildcard(_) => Ok(all(&|_| true)),
        SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
            let last = name.0.last().and_then(|part| part.as_ident());
            let last = last.map(folded);
            match all(&|relation| Some(relation.table()) == last.as_deref()) {
                found if found.is_empty() => Err(plan_datafusion_err!("Invalid qualifier {name}")),
                found => Ok(found),
            }
        }
        other => Err(DataFusionError::NotImplemented(format!("{other} is not supported"))),
    }
}
