//! `*` beside columns of the same name, and over tables that have some: the engine names columns twice
//! there, which it refuses, or gives the second a name of its own. PostgreSQL does not mind, as long as
//! nobody asks for one of them by its name.
//!
//! It takes the tables' columns to tell, so that a statement is looked at only once it has failed for that
//! reason, or was planned with such names.

use std::collections::HashMap;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Column, SchemaError};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::LogicalPlan;
use sqlparser::ast::{Expr, Ident, Select, SelectItem, SelectItemQualifiedWildcardKind};

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
            let fields = alias.schema.fields();
            found = found
                || fields
                    .iter()
                    .filter_map(|field| given(field.name()))
                    .any(|given| fields.iter().any(|field| field.name() == given));
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
/// `columns`: those of all tables, each with what it is.
pub(super) fn spell_out(select: &mut Select, columns: &[(String, Expr)]) {
    let list = std::mem::take(&mut select.projection).into_iter();
    let items = |of: Option<&Ident>| {
        let of = of.map(folded);
        let own = columns.iter().filter(move |(_, value)| match (&of, value) {
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
        own.map(item).collect::<Vec<_>>()
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
