//! Statements that read system tables: what follows from what these never hold. Introspection
//! queries ask for indexes, constraints, triggers, domains and more in ways that the engine cannot
//! plan; since there are none, much of that has an answer already.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::LazyLock;

use sqlparser::ast::{
    BinaryOperator, DataType, Expr, FunctionArguments, GroupByExpr, JoinOperator, Query, Select,
    SelectItem, SetExpr, TableFactor, TableWithJoins, VisitMut, VisitorMut,
};

use super::super::relations::{self, Relation};
use super::super::table::is_always_empty;
use super::build::{
    arguments, array, as_text, boolean, call, cast, function_name, is_false, normal, null, number,
    single_item,
};
use super::dialect::{array_literal, number_array};
use super::system_relation;

/// Aggregates that give NULL for no rows.
const AGGREGATES: &[&str] =
    &["array_agg", "avg", "bool_and", "bool_or", "every", "max", "min", "string_agg", "sum"];

/// What must be done while names still stand as they were written.
pub struct Before;

impl VisitorMut for Before {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        replace_table_oids(select);
        if gives_nothing(select) {
            for item in &mut select.projection {
                if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item
                {
                    let _ = expr.visit(&mut Unseen);
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        // Before their inner parts are looked at: these may then never be.
        prune_case(expr);
        no_rows(expr);
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        compare_arrays(expr);
        ControlFlow::Continue(())
    }
}

/// What the plain form makes visible.
pub struct After;

impl VisitorMut for After {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr
            && function_name(function).as_deref() == Some("coalesce")
            && let Some(arguments) = arguments(function)
        {
            for argument in arguments {
                if as_text(argument) == Some("{}") {
                    *argument = call("make_array", Vec::new());
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
                let _ = expr.visit(&mut SingleRow);
            }
        }
        ControlFlow::Continue(())
    }
}

/// Whether a relation in FROM never has rows.
fn is_empty_factor(factor: &TableFactor) -> bool {
    match factor {
        TableFactor::Table { name, args: None, .. } => {
            system_relation(name).is_some_and(is_always_empty)
        }
        TableFactor::NestedJoin { table_with_joins, .. } => is_empty_join(table_with_joins),
        TableFactor::Derived { subquery, .. } => match subquery.body.as_ref() {
            SetExpr::Select(select) => gives_nothing(select),
            _ => false,
        },
        _ => false,
    }
}

fn is_empty_join(table: &TableWithJoins) -> bool {
    table.joins.iter().fold(is_empty_factor(&table.relation), |empty, join| {
        match &join.join_operator {
            JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(_) => {
                empty || is_empty_factor(&join.relation)
            }
            JoinOperator::Left(_) | JoinOperator::LeftOuter(_) => empty,
            JoinOperator::Right(_) | JoinOperator::RightOuter(_) => is_empty_factor(&join.relation),
            _ => false,
        }
    })
}

/// Whether a SELECT has no rows to look at.
fn reads_nothing(select: &Select) -> bool {
    select.from.iter().any(is_empty_join)
}

/// Whether a SELECT has no rows to give: an aggregate without groups gives one in any case.
fn gives_nothing(select: &Select) -> bool {
    let grouped = match &select.group_by {
        GroupByExpr::Expressions(expressions, _) => !expressions.is_empty(),
        GroupByExpr::All(_) => true,
    };
    let aggregates = || {
        select.projection.iter().any(|item| match item {
            SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => {
                has_aggregate(expr)
            }
            _ => false,
        })
    };
    reads_nothing(select) && (grouped || !aggregates() && select.having.is_none())
}

fn has_aggregate(expr: &Expr) -> bool {
    sqlparser::ast::visit_expressions(expr, |expr| match expr {
        Expr::Function(function) => {
            let name = function.name.0.last().and_then(|part| part.as_ident()).map(normal);
            match name {
                Some(name) if name == "count" || AGGREGATES.contains(&name.as_str()) => {
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            }
        }
        _ => ControlFlow::Continue(()),
    })
    .is_break()
}

/// Expressions over no rows at all.
fn no_rows(expr: &mut Expr) {
    match expr {
        Expr::Subquery(query) => {
            if let Some(value) = value_of_nothing(query) {
                *expr = value;
            }
        }
        Expr::Exists { subquery, negated } if query_gives_nothing(subquery) => {
            *expr = boolean(*negated);
        }
        Expr::InSubquery { subquery, negated, .. } if query_gives_nothing(subquery) => {
            *expr = boolean(*negated);
        }
        Expr::Function(function) => {
            let FunctionArguments::Subquery(query) = &function.args else { return };
            let is_array = function_name(function).as_deref() == Some("array");
            if is_array && query_gives_nothing(query) {
                *expr = cast(array(Vec::new()), text_array());
            }
        }
        // No type is a domain.
        Expr::BinaryOp { left, op: BinaryOperator::Eq, right } if is_domain_test(left, right) => {
            *expr = boolean(false);
        }
        _ => {}
    }
}

fn text_array() -> DataType {
    let element = Box::new(DataType::Text);
    DataType::Array(sqlparser::ast::ArrayElemTypeDef::SquareBracket(element, None))
}

fn is_domain_test(column: &Expr, value: &Expr) -> bool {
    let name = match column {
        Expr::CompoundIdentifier(parts) => parts.last(),
        Expr::Identifier(ident) => Some(ident),
        _ => None,
    };
    name.is_some_and(|name| normal(name) == "typtype") && as_text(value) == Some("d")
}

fn query_gives_nothing(query: &Query) -> bool {
    match query.body.as_ref() {
        SetExpr::Select(select) => gives_nothing(select),
        _ => false,
    }
}

/// The value of a scalar subquery that reads no rows.
fn value_of_nothing(query: &Query) -> Option<Expr> {
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    if gives_nothing(select) || compares_collations(select) {
        return Some(null());
    }
    if !reads_nothing(select) {
        return None;
    }
    let Expr::Function(function) = single_item(query)? else { return None };
    let name = function.name.0.last().and_then(|part| part.as_ident()).map(normal)?;
    match name.as_str() {
        "count" => Some(number(0)),
        name if AGGREGATES.contains(&name) => Some(null()),
        _ => None,
    }
}

/// psql asks for a column's collation where it is not its type's: here it always is.
fn compares_collations(select: &Select) -> bool {
    let Some(selection) = &select.selection else { return false };
    sqlparser::ast::visit_expressions(selection, |expr| match expr {
        Expr::BinaryOp { left, op: BinaryOperator::NotEq, right } => {
            let collation = |side: &Expr| match side {
                Expr::CompoundIdentifier(parts) => parts.last().is_some_and(|name| {
                    matches!(normal(name).as_str(), "attcollation" | "typcollation")
                }),
                _ => false,
            };
            match collation(left) && collation(right) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        }
        _ => ControlFlow::Continue(()),
    })
    .is_break()
}

/// Branches that are never taken go, with whatever they hold.
fn prune_case(expr: &mut Expr) {
    let Expr::Case { operand: None, conditions, else_result, .. } = expr else { return };
    for branch in conditions.iter_mut() {
        no_rows(&mut branch.condition);
    }
    conditions.retain(|branch| !is_false(&branch.condition));
    if conditions.is_empty() {
        *expr = else_result.take().map_or_else(null, |expr| *expr);
    }
}

/// Nobody sees the values of rows that are not there, only their types: a subquery among them may
/// as well be NULL.
struct Unseen;

impl VisitorMut for Unseen {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Subquery(_) => *expr = null(),
            Expr::Function(function) if matches!(function.args, FunctionArguments::Subquery(_)) => {
                *expr = cast(array(Vec::new()), text_array());
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// The engine takes a scalar subquery that refers to the outer row only if it cannot give two
/// rows, so it must be an aggregate. Where it does give two, PostgreSQL reports an error and this
/// takes the least; on system tables clients ask by key.
struct SingleRow;

impl VisitorMut for SingleRow {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let Expr::Subquery(query) = expr else { return ControlFlow::Continue(()) };
        if query.with.is_some() || query.limit_clause.is_some() {
            return ControlFlow::Continue(());
        }
        let SetExpr::Select(select) = query.body.as_mut() else {
            return ControlFlow::Continue(());
        };
        let grouped = !matches!(&select.group_by, GroupByExpr::Expressions(e, _) if e.is_empty());
        if grouped || select.selection.is_none() || select.from.is_empty() {
            return ControlFlow::Continue(());
        }
        if let [SelectItem::UnnamedExpr(item) | SelectItem::ExprWithAlias { expr: item, .. }] =
            select.projection.as_mut_slice()
            && !has_aggregate(item)
        {
            let value = super::build::take(item);
            *item = call("min", vec![value]);
            query.order_by = None;
        }
        ControlFlow::Continue(())
    }
}

/// Columns that hold arrays, and whether of numbers, by name.
static ARRAY_COLUMNS: LazyLock<HashMap<&str, bool>> = LazyLock::new(|| {
    let columns = relations::all().iter().flat_map(|relation| &relation.columns);
    let arrays = columns.filter_map(|column| match column.kind {
        "int2vector" | "oidvector" | "_int2" | "_int4" | "_oid" => Some((column.name, true)),
        kind if kind.starts_with('_') => Some((column.name, false)),
        _ => None,
    });
    arrays.collect()
});

/// `polroles = '{0}'`: the literal is an array.
fn compare_arrays(expr: &mut Expr) {
    let Expr::BinaryOp { left, op: BinaryOperator::Eq | BinaryOperator::NotEq, right } = expr else {
        return;
    };
    let name = match left.as_ref() {
        Expr::CompoundIdentifier(parts) => parts.last(),
        Expr::Identifier(ident) => Some(ident),
        _ => None,
    };
    let Some(numbers) = name.and_then(|name| ARRAY_COLUMNS.get(normal(name).as_str())) else {
        return;
    };
    let literal = as_text(right);
    let array = literal.and_then(if *numbers { number_array } else { array_literal });
    if let Some(array) = array {
        **right = array;
    }
}

/// `c.tableoid`: a column that every table has, and no list of columns shows.
fn replace_table_oids(select: &mut Select) {
    let mut oids: Vec<(String, u32)> = Vec::new();
    let mut note = |factor: &TableFactor| {
        if let TableFactor::Table { name, alias, args: None, .. } = factor
            && let Some(Relation { oid, name: table, .. }) = system_relation(name)
        {
            let name = alias.as_ref().map(|alias| normal(&alias.name));
            oids.push((name.unwrap_or_else(|| (*table).to_owned()), *oid));
        }
    };
    for table in &select.from {
        note(&table.relation);
        table.joins.iter().for_each(|join| note(&join.relation));
    }
    if !oids.is_empty() {
        let _ = select.visit(&mut TableOids(oids));
    }
}

struct TableOids(Vec<(String, u32)>);

impl VisitorMut for TableOids {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let oid = match expr {
            Expr::Identifier(ident) if normal(ident) == "tableoid" => self.0.first(),
            Expr::CompoundIdentifier(parts) => match parts.as_slice() {
                [.., table, column] if normal(column) == "tableoid" => {
                    let table = normal(table);
                    self.0.iter().find(|(name, _)| *name == table)
                }
                _ => None,
            },
            _ => None,
        };
        if let Some((_, oid)) = oid {
            *expr = call("arrow_cast", vec![number(oid), super::build::text("Int32")]);
        }
        ControlFlow::Continue(())
    }
}
