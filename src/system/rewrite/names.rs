//! Result columns get the names that PostgreSQL gives them (`FigureColname` in its
//! `parse_target.c`): a function its own name, a cast its type's, and so on.
//!
//! PostgreSQL does not mind columns of one name, the engine does: the second gets a mark and a
//! number at the end ([`NAME_MARK`]), which are cut off before the client sees it. So does the first, where
//! a query around could ask for it: it asks for either then, and PostgreSQL calls that ambiguous.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use sqlparser::ast::{
    AccessExpr, DataType, Expr, GroupByExpr, Ident, ObjectNamePart, OrderByKind, Query, Select,
    SelectItem, SetExpr, Statement, TableAlias, TableFactor, TrimWhereField, VisitorMut,
};

use super::build::normal;
use super::dialect::is_special;
use crate::engine::system::{NAME_MARK, shown_name};
use crate::engine::visit::visit_mut;

/// PostgreSQL's name for a column that has none.
const NAMELESS: &str = "?column?";

pub fn rewrite(statement: &mut Statement) {
    let _ = visit_mut(statement, &mut Names);
}

struct Names;

impl VisitorMut for Names {
    type Break = ();

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        name_columns(select);
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { alias: Some(alias), .. }
        | TableFactor::Derived { alias: Some(alias), .. }
        | TableFactor::UNNEST { alias: Some(alias), .. } = factor
        {
            tell_apart(alias);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        for named in query.with.iter_mut().flat_map(|with| &mut with.cte_tables) {
            tell_apart(&mut named.alias);
        }
        mark_first(query);
        if let SetExpr::Select(select) = query.body.as_ref()
            && select.distinct.is_some()
            && let Some(order) = &mut query.order_by
            && let OrderByKind::Expressions(keys) = &mut order.kind
        {
            keys.iter_mut().for_each(|key| sort_by_column(&mut key.expr, select));
        }
        ControlFlow::Continue(())
    }
}

/// Marks all columns of one name, of those that an alias lists.
fn tell_apart(alias: &mut TableAlias) {
    if alias.columns.len() < 2 {
        return;
    }
    let names: Vec<String> = alias.columns.iter().map(|column| normal(&column.name)).collect();
    let mut seen = HashSet::new();
    let twice: HashSet<&String> = names.iter().filter(|name| !seen.insert(*name)).collect();
    for (number, (column, name)) in alias.columns.iter_mut().zip(&names).enumerate() {
        if twice.contains(name) {
            column.name = Ident::with_quote('"', format!("{name}{NAME_MARK}{number}"));
        }
    }
}

/// Marks the first of columns of one name as well; not where it is no other than the second, and the query
/// sorts or groups by it.
fn mark_first(query: &mut Query) {
    let united = matches!(query.body.as_ref(), SetExpr::SetOperation { .. });
    let order = query.order_by.as_ref().map(|order| &order.kind);
    let mut keys: HashSet<String> = match order {
        Some(OrderByKind::Expressions(keys)) => {
            keys.iter().filter_map(|key| name_in(&key.expr)).collect()
        }
        _ => HashSet::new(),
    };
    let Some(select) = first_select(&mut query.body) else { return };
    if let GroupByExpr::Expressions(groups, _) = &select.group_by {
        keys.extend(groups.iter().filter_map(name_in));
    }
    // The first of each name; lists may be long.
    let mut firsts: HashMap<String, usize> = HashMap::new();
    for second in 0..select.projection.len() {
        let Some((own, expr)) = item_name(&select.projection[second]) else { continue };
        if !own.contains(NAME_MARK) {
            firsts.entry(own).or_insert(second);
            continue;
        }
        let name = shown_name(&own);
        let Some(first) = firsts.get(name).copied() else { continue };
        let same = item_name(&select.projection[first]).is_some_and(|(_, first)| first == expr);
        if same && !united && (select.distinct.is_some() || keys.contains(name)) {
            continue;
        }
        firsts.remove(name);
        let alias = Ident::with_quote('"', format!("{name}{NAME_MARK}{first}"));
        let item = &mut select.projection[first];
        if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
            let expr = super::build::take(expr);
            *item = SelectItem::ExprWithAlias { expr, alias };
        }
    }
}

/// The SELECT that names a query's columns.
fn first_select(body: &mut SetExpr) -> Option<&mut Select> {
    match body {
        SetExpr::Select(select) => Some(select),
        SetExpr::SetOperation { left, .. } => first_select(left),
        _ => None,
    }
}

/// What a column is called, and what it is of.
fn item_name(item: &SelectItem) -> Option<(String, &Expr)> {
    match item {
        SelectItem::UnnamedExpr(expr) => Some((column_name(expr), expr)),
        SelectItem::ExprWithAlias { expr, alias } => Some((normal(alias), expr)),
        _ => None,
    }
}

fn name_in(key: &Expr) -> Option<String> {
    match key {
        Expr::Identifier(ident) => Some(normal(ident)),
        _ => None,
    }
}

/// DISTINCT rows are sorted by their columns: the engine must be told that an expression is one.
fn sort_by_column(key: &mut Expr, select: &Select) {
    let column = select.projection.iter().find_map(|item| match item {
        SelectItem::ExprWithAlias { expr, alias } if *expr == *key => Some(alias),
        _ => None,
    });
    if let Some(alias) = column {
        *key = Expr::Identifier(alias.clone());
    }
}

fn name_columns(select: &mut Select) {
    let wildcard = select
        .projection
        .iter()
        .any(|item| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)));
    let mut taken = HashSet::new();
    for (number, item) in select.projection.iter_mut().enumerate() {
        match item {
            SelectItem::UnnamedExpr(expr) => {
                let plain = match &*expr {
                    Expr::Identifier(ident) => !is_special(ident),
                    other => matches!(other, Expr::CompoundIdentifier(_)),
                };
                let name = column_name(expr);
                // A column stands among all columns as well; what is called as another by chance is told
                // apart from it where these are known.
                let free = taken.insert(name.clone()) && !(plain && wildcard);
                if plain && free {
                    continue;
                }
                let name = if free { name } else { format!("{name}{NAME_MARK}{number}") };
                let expr = super::build::take(expr);
                *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', name) };
            }
            SelectItem::ExprWithAlias { alias, .. } => {
                let name = normal(alias);
                if !taken.insert(name.clone()) {
                    *alias = Ident::with_quote('"', format!("{name}{NAME_MARK}{number}"));
                }
            }
            _ => {}
        }
    }
}

/// The name of a result column that has no alias.
fn column_name(expr: &Expr) -> String {
    figure(expr).name
}

struct Name {
    name: String,
    /// Whether a cast around it leaves the name as it is.
    strong: bool,
}

fn strong(name: impl Into<String>) -> Name {
    Name { name: name.into(), strong: true }
}

fn weak(name: impl Into<String>) -> Name {
    Name { name: name.into(), strong: false }
}

fn last(parts: &[ObjectNamePart]) -> String {
    let last = parts.last().and_then(ObjectNamePart::as_ident);
    last.map_or_else(|| NAMELESS.to_owned(), normal)
}

fn figure(expr: &Expr) -> Name {
    match expr {
        Expr::Identifier(ident) => strong(normal(ident)),
        Expr::CompoundIdentifier(parts) => {
            parts.last().map_or_else(|| weak(NAMELESS), |ident| strong(normal(ident)))
        }
        Expr::Function(function) => strong(last(&function.name.0)),
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => figure(inner),
        Expr::Cast { expr: inner, data_type, .. } => {
            let inner = figure(inner);
            if inner.strong { inner } else { weak(type_name(data_type)) }
        }
        Expr::TypedString(typed) => weak(type_name(&typed.data_type)),
        Expr::Interval(_) => weak("interval"),
        Expr::Case { else_result, .. } => match else_result.as_deref().map(figure) {
            Some(name) if name.strong => name,
            _ => weak("case"),
        },
        Expr::Subquery(query) => subquery(&query.body),
        Expr::CompoundFieldAccess { root, access_chain } => {
            let field = access_chain.iter().rev().find_map(|access| match access {
                AccessExpr::Dot(Expr::Identifier(ident)) => Some(strong(normal(ident))),
                _ => None,
            });
            field.unwrap_or_else(|| figure(root))
        }
        other => match keyword(other) {
            Some(name) => strong(name),
            None => weak(NAMELESS),
        },
    }
}

/// What is a function to PostgreSQL, though written in a way of its own.
fn keyword(expr: &Expr) -> Option<&'static str> {
    Some(match expr {
        Expr::Array(_) => "array",
        Expr::Exists { negated: false, .. } => "exists",
        Expr::Extract { .. } => "extract",
        Expr::Position { .. } => "position",
        Expr::Substring { shorthand: true, .. } => "substr",
        Expr::Substring { .. } => "substring",
        Expr::Overlay { .. } => "overlay",
        Expr::Ceil { .. } => "ceil",
        Expr::Floor { .. } => "floor",
        Expr::AtTimeZone { .. } => "timezone",
        Expr::Tuple(_) => "row",
        Expr::Trim { trim_where, .. } => match trim_where {
            Some(TrimWhereField::Leading) => "ltrim",
            Some(TrimWhereField::Trailing) => "rtrim",
            _ => "btrim",
        },
        _ => return None,
    })
}

/// A scalar subquery is called as its only column is.
fn subquery(body: &SetExpr) -> Name {
    match body {
        SetExpr::Select(select) => match select.projection.first() {
            Some(SelectItem::ExprWithAlias { alias, .. }) => {
                let name = normal(alias);
                strong(name.split(NAME_MARK).next().unwrap_or_default())
            }
            Some(SelectItem::UnnamedExpr(expr)) => figure(expr),
            _ => weak(NAMELESS),
        },
        SetExpr::Query(query) => subquery(&query.body),
        SetExpr::SetOperation { left, .. } => subquery(left),
        _ => weak(NAMELESS),
    }
}

/// A type's name in `pg_type`.
fn type_name(data_type: &DataType) -> String {
    use DataType as Sql;
    let name = match data_type {
        Sql::SmallInt(_) | Sql::Int2(_) => "int2",
        Sql::Int(_) | Sql::Int4(_) | Sql::Integer(_) => "int4",
        Sql::BigInt(_) | Sql::Int8(_) => "int8",
        Sql::Real | Sql::Float4 => "float4",
        Sql::Double(_) | Sql::DoublePrecision | Sql::Float8 | Sql::Float(_) => "float8",
        Sql::Numeric(_) | Sql::Decimal(_) | Sql::Dec(_) => "numeric",
        Sql::Boolean | Sql::Bool => "bool",
        Sql::Varchar(_) | Sql::CharacterVarying(_) | Sql::CharVarying(_) => "varchar",
        Sql::Char(_) | Sql::Character(_) => "bpchar",
        Sql::Timestamp(_, zone) => match zone {
            sqlparser::ast::TimezoneInfo::WithTimeZone | sqlparser::ast::TimezoneInfo::Tz => {
                "timestamptz"
            }
            _ => "timestamp",
        },
        Sql::Time(_, zone) => match zone {
            sqlparser::ast::TimezoneInfo::WithTimeZone | sqlparser::ast::TimezoneInfo::Tz => {
                "timetz"
            }
            _ => "time",
        },
        Sql::Interval { .. } => "interval",
        Sql::Custom(name, _) => return last(&name.0),
        Sql::Array(sqlparser::ast::ArrayElemTypeDef::SquareBracket(element, _)) => {
            return type_name(element);
        }
        other => return other.to_string().to_lowercase(),
    };
    name.to_owned()
}
