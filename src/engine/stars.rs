//! `*` beside columns of the same name, and over tables that have some: the engine names columns twice
//! there, which it refuses, or gives the second a name of its own. PostgreSQL does not mind, as long as
//! nobody asks for one of them by its name.
//!
//! It takes the tables' columns to tell, so that a statement is looked at only once it has failed for that
//! reason, or was planned with such names.

use std::collections::{HashMap, HashSet};

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Column, SchemaError};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::LogicalPlan;
use sqlparser::ast::{
    Cte, Expr, Ident, Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr,
};

use super::joins::{folded, is_star};
use super::system::{NAME_MARK, shown_name};

/// Whether a SELECT may have columns of one name for a `*` in its list, and it matters: those of several
/// tables do where the SELECT is `nested` in another.
pub(super) fn may_clash(select: &Select, nested: bool) -> bool {
    let is_star = |item: &SelectItem| {
        matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..))
    };
    let several = || select.from.len() > 1 || select.from.iter().any(|it| !it.joins.is_empty());
    select.projection.iter().any(is_star) && (select.projection.len() > 1 || nested && several())
}

/// Whether a statement was refused for columns of one name.
pub(super) fn clashed(error: &DataFusionError) -> bool {
    match error.find_root() {
        DataFusionError::SchemaError(error, _) => matches!(
            error.as_ref(),
            SchemaError::AmbiguousReference { .. }
                | SchemaError::DuplicateUnqualifiedField { .. }
                | SchemaError::DuplicateQualifiedField { .. }
        ),
        DataFusionError::Plan(text) => text.contains("require unique expression names"),
        _ => false,
    }
}

/// Whether a subquery's columns have other names in a plan than they were given: `id:1` behind `id`, which
/// the engine calls them, or one that is told apart from one that is not.
pub(super) fn renamed(plan: &LogicalPlan) -> bool {
    let mut found = false;
    // Infallible.
    let _ = plan.apply_with_subqueries(|plan| {
        if let LogicalPlan::SubqueryAlias(alias) = plan {
            let names = || alias.schema.fields().iter().map(|field| field.name().as_str());
            let all: HashSet<&str> = names().collect();
            found = found || names().filter_map(given).any(|given| all.contains(given));
        }
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    found
}

/// The name that a column was given, if it has another now.
fn given(name: &str) -> Option<&str> {
    if let Some((given, _)) = name.split_once(NAME_MARK) {
        return Some(given);
    }
    let (given, number) = name.rsplit_once(':')?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then_some(given)
}

/// Writes each `*` of a list as the columns that it stands for, and tells columns of one name apart.
/// `columns`: what the joins have, each with what it is; `own`: the columns of each table, which are a
/// table's `*` though a join merges some.
pub(super) fn spell_out(select: &mut Select, columns: &[(String, Expr)], own: &[(String, Expr)]) {
    let list = std::mem::take(&mut select.projection).into_iter();
    let items = |of: Option<&Ident>| {
        let of = of.map(folded);
        let all = if of.is_none() { columns } else { own };
        let wanted = all.iter().filter(move |(_, value)| match (&of, value) {
            (None, _) => true,
            (Some(of), Expr::CompoundIdentifier(parts)) => {
                parts.first().is_some_and(|table| folded(table) == *of)
            }
            _ => false,
        });
        let item = |(name, value): &(String, Expr)| SelectItem::ExprWithAlias {
            expr: value.clone(),
            alias: Ident::with_quote('"', name),
        };
        wanted.map(item).collect::<Vec<_>>()
    };
    let list = list.flat_map(|item| match &item {
        star if is_star(star) => items(None),
        SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
            let table = match name.0.as_slice() {
                [table] => table.as_ident(),
                _ => None,
            };
            let found = table.map(|table| items(Some(table))).unwrap_or_default();
            if found.is_empty() { vec![item] } else { found }
        }
        _ => vec![item],
    });
    select.projection = list.collect();
    tell_apart(&mut select.projection);
}

/// Tells columns of one name in a list apart.
pub(super) fn tell_apart(list: &mut [SelectItem]) {
    let names: Vec<Option<String>> = list.iter().map(name).collect();
    let mut counts: HashMap<&String, usize> = HashMap::new();
    for name in names.iter().flatten() {
        *counts.entry(name).or_default() += 1;
    }
    for (number, (item, name)) in list.iter_mut().zip(&names).enumerate() {
        let Some(name) =
            name.as_ref().filter(|name| counts.get(name).is_some_and(|count| *count > 1))
        else {
            continue;
        };
        if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = &*item {
            let alias = Ident::with_quote('"', format!("{name}{NAME_MARK}{number}"));
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
        }
    }
}

/// Marks what the text of a statement gives no name to: by chance it may be called as a column of tables
/// whose columns are not known. What is not named in the text has a name in quotes by now, which few write
/// about one that needs none.
pub(super) fn mark_unnamed(list: &mut [SelectItem]) {
    let needs_none = |name: &str| {
        name == "?column?"
            || name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte.is_ascii_digit())
    };
    for (number, item) in list.iter_mut().enumerate() {
        if let SelectItem::ExprWithAlias { expr, alias } = item
            && !matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_))
            && alias.quote_style.is_some()
            && needs_none(&alias.value)
        {
            alias.value = format!("{}{NAME_MARK}{number}", alias.value);
        }
    }
}

/// The columns of a query of a WITH, if its text names them all.
pub(super) fn listed(table: &Cte) -> Option<Vec<String>> {
    let mut body = table.query.body.as_ref();
    while let SetExpr::SetOperation { left, .. } = body {
        body = left;
    }
    let SetExpr::Select(select) = body else { return None };
    let column = |item: &SelectItem| match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(folded(alias)),
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some(folded(name)),
        _ => None,
    };
    let names: Vec<String> = select.projection.iter().map(column).collect::<Option<_>>()?;
    let given = &table.alias.columns;
    match given.is_empty() {
        true => Some(names),
        false if given.len() == names.len() => {
            Some(given.iter().map(|column| folded(&column.name)).collect())
        }
        false => None,
    }
}

/// What a column is called, without the number that keeps it apart.
fn name(item: &SelectItem) -> Option<String> {
    let ident = match item {
        SelectItem::ExprWithAlias { alias, .. } => alias,
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => name,
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => parts.last()?,
        _ => return None,
    };
    Some(shown_name(&folded(ident)).to_owned())
}

/// An error of a name that several columns have: each of them has a name of its own to the engine, so that
/// it finds none.
pub(super) fn as_ambiguous(error: DataFusionError) -> DataFusionError {
    let field = match error.find_root() {
        DataFusionError::SchemaError(schema, _) => match schema.as_ref() {
            SchemaError::FieldNotFound { field, valid_fields } => {
                let named = |valid: &&Column| {
                    valid.name.contains(NAME_MARK)
                        && shown_name(&valid.name) == field.name
                        && (field.relation.is_none() || field.relation == valid.relation)
                };
                let several = valid_fields.iter().filter(named).count() > 1;
                several.then(|| field.clone())
            }
            _ => None,
        },
        _ => None,
    };
    match field {
        Some(field) => {
            let ambiguous = SchemaError::AmbiguousReference { field };
            DataFusionError::SchemaError(Box::new(ambiguous), Box::new(None))
        }
        None => error,
    }
}
