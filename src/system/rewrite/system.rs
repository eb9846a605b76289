//! Statements that read system tables: what follows from what these never hold. Introspection
//! queries ask for indexes, constraints, triggers, domains and more in ways that the engine cannot
//! plan; since there are none, much of that has an answer already.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::LazyLock;

use sqlparser::ast::{
    ArrayElemTypeDef, BinaryOperator, DataType, Expr, FunctionArguments, GroupByExpr, JoinOperator,
    OrderByKind, Query, Select, SelectItem, SetExpr, TableFactor, TableWithJoins, UnaryOperator,
    VisitorMut,
};

use super::super::relations::{self, Relation};
use super::super::table::is_always_empty;
use super::build::{
    AGGREGATES, arguments, array, as_text, boolean, call, cast, function_name, has_aggregate,
    is_false, normal, null, number, single_item,
};
use super::dialect::{array_literal, array_of, number_array};
use super::system_relation;
use crate::engine::visit::visit_mut;

/// What must be done while names still stand as they were written.
pub struct Before;

impl VisitorMut for Before {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        replace_table_oids(select);
        ask_defaults_by_key(select);
        if gives_nothing(select) {
            for item in &mut select.projection {
                if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item
                {
                    let _ = visit_mut(expr, &mut Unseen);
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        // Before their inner parts are looked at: these may then never be.
        prune_case(expr);
        no_rows(expr);
        role_names(expr);
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

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let order = query.order_by.as_mut().map(|order| &mut order.kind);
        if let Some(OrderByKind::Expressions(order)) = order {
            for key in order {
                let _ = visit_mut(&mut key.expr, &mut Membership);
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        // What a subquery in FROM reads is not one row of the outer query's.
        let items = select.projection.iter_mut().filter_map(|item| match item {
            SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
            _ => None,
        });
        for expr in items {
            let _ = visit_mut(expr, &mut Membership);
            let _ = visit_mut(expr, &mut SingleRow);
        }
        if let Some(condition) = &mut select.selection {
            let _ = visit_mut(condition, &mut SingleRow);
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

/// Clients look up a column's default only if there is one: a condition on the outer row alone,
/// which the engine does not take, and which says no more than the key does.
fn ask_defaults_by_key(select: &mut Select) {
    let [TableWithJoins { relation: TableFactor::Table { name, args: None, .. }, joins }] =
        select.from.as_slice()
    else {
        return;
    };
    let of_defaults = system_relation(name).is_some_and(|relation| relation.name == "pg_attrdef");
    if of_defaults
        && joins.is_empty()
        && let Some(condition) = &mut select.selection
    {
        without_flag(condition);
    }
}

fn without_flag(condition: &mut Expr) {
    match condition {
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            without_flag(left);
            without_flag(right);
        }
        Expr::Nested(inner) => without_flag(inner),
        flag if is_column(flag, &["atthasdef"]) => *flag = boolean(true),
        _ => {}
    }
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
    let nothing = reads_nothing(select) || select.selection.as_ref().is_some_and(is_never);
    nothing && (grouped || !aggregates() && select.having.is_none())
}

/// Whether a condition is false for every row.
fn is_never(condition: &Expr) -> bool {
    match condition {
        Expr::Nested(inner) => is_never(inner),
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            is_never(left) || is_never(right)
        }
        Expr::BinaryOp { left, op: BinaryOperator::Or, right } => is_never(left) && is_never(right),
        // No type is a row of others, a domain or an enumeration.
        Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => {
            is_column(left, &["typtype"]) && matches!(as_text(right), Some("c" | "d" | "e"))
        }
        // No column has another collation than its type.
        Expr::BinaryOp { left, op: BinaryOperator::NotEq, right } => {
            is_collation(left) && is_collation(right)
        }
        Expr::Exists { subquery, negated: false }
        | Expr::InSubquery { subquery, negated: false, .. } => query_gives_nothing(subquery),
        other => is_false(other),
    }
}

fn is_column(expr: &Expr, names: &[&str]) -> bool {
    let name = match expr {
        Expr::CompoundIdentifier(parts) => parts.last(),
        Expr::Identifier(ident) => Some(ident),
        _ => None,
    };
    name.is_some_and(|name| names.contains(&normal(name).as_str()))
}

fn is_collation(expr: &Expr) -> bool {
    match expr {
        Expr::Subquery(query) => single_item(query).is_some_and(is_collation),
        other => is_column(other, &["attcollation", "typcollation"]),
    }
}

/// Expressions over no rows at all.
fn no_rows(expr: &mut Expr) {
    match expr {
        Expr::Subquery(query) => {
            if let Some(value) = value_of_nothing(query) {
                *expr = value;
            }
        }
        Expr::Exists { subquery, negated: true }
        | Expr::InSubquery { subquery, negated: true, .. }
            if query_gives_nothing(subquery) =>
        {
            *expr = boolean(true);
        }
        Expr::Function(function) => {
            let FunctionArguments::Subquery(query) = &function.args else { return };
            let is_array = function_name(function).as_deref() == Some("array");
            if is_array && (query_gives_nothing(query) || reads_toast(query)) {
                *expr = cast(array(Vec::new()), text_array());
            }
        }
        Expr::BinaryOp { .. } | Expr::Exists { .. } | Expr::InSubquery { .. } if is_never(expr) => {
            *expr = boolean(false);
        }
        _ => {}
    }
}

/// psql lists the options of a table's TOAST table, which no table has.
fn reads_toast(query: &Query) -> bool {
    let Some(Expr::BinaryOp { left, op: BinaryOperator::StringConcat, .. }) = single_item(query)
    else {
        return false;
    };
    as_text(left) == Some("toast.")
}

fn text_array() -> DataType {
    let element = Box::new(DataType::Text);
    DataType::Array(ArrayElemTypeDef::SquareBracket(element, None))
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
    if gives_nothing(select) {
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

/// `ARRAY(SELECT rolname FROM pg_roles WHERE oid = ANY (list) ORDER BY 1)`, by which psql shows whom
/// a policy is for, is a function of the list: the engine takes no such condition on an outer row.
fn role_names(expr: &mut Expr) {
    let Expr::Function(function) = expr else { return };
    let FunctionArguments::Subquery(query) = &mut function.args else { return };
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    let [TableWithJoins { relation: TableFactor::Table { name, args: None, .. }, joins }] =
        select.from.as_slice()
    else {
        return;
    };
    let of_roles = joins.is_empty()
        && system_relation(name).is_some_and(|relation| relation.name == "pg_roles");
    let [SelectItem::UnnamedExpr(Expr::Identifier(column))] = select.projection.as_slice() else {
        return;
    };
    if let Some(Expr::AnyOp { left, compare_op: BinaryOperator::Eq, right, .. }) =
        &mut select.selection
        && let Expr::Identifier(key) = left.as_ref()
        && of_roles
        && normal(column) == "rolname"
        && normal(key) == "oid"
    {
        *expr = call("oribi_role_names", vec![super::build::take(right)]);
    }
}

/// Branches that are never taken go, with whatever they hold.
fn prune_case(expr: &mut Expr) {
    let Expr::Case { operand: None, conditions, else_result, .. } = expr else { return };
    conditions.retain(|branch| !is_never(&branch.condition));
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

/// The engine tells only in conditions whether a subquery has a value, but anywhere whether an
/// array has it.
struct Membership;

impl VisitorMut for Membership {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::InSubquery { expr: value, subquery, negated } = expr
            && let Some(array) = array_of(subquery)
        {
            let value = super::build::take(value);
            let has = call("array_has", vec![array, value]);
            let op = UnaryOperator::Not;
            *expr = if *negated { Expr::UnaryOp { op, expr: Box::new(has) } } else { has };
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
    let Expr::BinaryOp { left, op: BinaryOperator::Eq | BinaryOperator::NotEq, right } = expr
    else {
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
        let _ = visit_mut(select, &mut TableOids(oids));
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
