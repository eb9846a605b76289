//! What the engine has to say of a statement, in PostgreSQL's words: people look for them, and
//! clients know errors by them. What has no counterpart is left in the engine's words.

use arrow::datatypes::{DataType, Field};
use datafusion::common::{Column, SchemaError, TableReference};
use datafusion::error::DataFusionError;

use crate::values::types::{pg_type, sql_name};

/// Columns that a hint lists.
const SHOWN_COLUMNS: usize = 20;

/// An error's text.
pub(super) fn of(root: &DataFusionError) -> Option<String> {
    match root {
        DataFusionError::SchemaError(error, _) => of_names(error),
        DataFusionError::NotImplemented(text)
        | DataFusionError::Plan(text)
        | DataFusionError::Execution(text)
        | DataFusionError::Internal(text) => of_text(text),
        _ => None,
    }
}

/// What could have been meant.
pub(super) fn hint(error: &DataFusionError) -> Option<String> {
    let DataFusionError::SchemaError(error, _) = error.find_root() else { return None };
    let SchemaError::FieldNotFound { valid_fields, .. } = error.as_ref() else { return None };
    // Some columns only the engine knows.
    let named = valid_fields.iter().filter(|column| !column.name.starts_with('\u{2}'));
    let mut names: Vec<String> = named.map(Column::flat_name).collect();
    names.dedup();
    let more = names.len() > SHOWN_COLUMNS;
    names.truncate(SHOWN_COLUMNS);
    let more = if more { ", and more" } else { "" };
    (!names.is_empty()).then(|| format!("The columns here are {}{more}.", names.join(", ")))
}

fn of_names(error: &SchemaError) -> Option<String> {
    Some(match error {
        SchemaError::FieldNotFound { field, valid_fields } => match &field.relation {
            Some(table) if !valid_fields.iter().any(|valid| belongs(valid, table)) => {
                format!("missing FROM-clause entry for table \"{}\"", table.table())
            }
            Some(table) => format!("column {}.{} does not exist", table.table(), field.name),
            None => format!("column \"{}\" does not exist", field.name),
        },
        SchemaError::AmbiguousReference { field } => {
            format!("column reference \"{}\" is ambiguous", field.name)
        }
        SchemaError::DuplicateQualifiedField { qualifier, .. } => {
            format!("table name \"{}\" specified more than once", qualifier.table())
        }
        SchemaError::DuplicateUnqualifiedField { .. } => return None,
    })
}

fn belongs(column: &Column, table: &TableReference) -> bool {
    column.relation.as_ref().is_some_and(|relation| relation.table() == table.table())
}

/// Beginnings of the engine's texts, and what PostgreSQL says.
const SAYINGS: &[(&str, &str)] = &[
    (
        "async functions should not be called directly",
        "a function that asks ZooKeeper or other daemons cannot stand inside another function: call \
         it in a statement of its own, and the other with its result in a second one",
    ),
    (
        "Scalar subquery returned more than one row",
        "more than one row returned by a subquery used as an expression",
    ),
    (
        "Aggregate functions are not allowed in the WHERE clause",
        "aggregate functions are not allowed in WHERE",
    ),
    (
        "Aggregate function calls cannot contain window function calls",
        "aggregate function calls cannot contain window function calls",
    ),
    ("Aggregate function calls cannot be nested", "aggregate function calls cannot be nested"),
    (
        "Window function calls cannot be nested",
        "window functions are not allowed in window definitions",
    ),
    ("Inconsistent data length across values list", "VALUES lists must all be the same length"),
    ("Order by index starts at 1", "ORDER BY position 0 is not in select list"),
    (
        "For SELECT DISTINCT, ORDER BY expressions",
        "for SELECT DISTINCT, ORDER BY expressions must appear in select list",
    ),
    (
        "Invalid window frame: start bound cannot be UNBOUNDED FOLLOWING",
        "frame start cannot be UNBOUNDED FOLLOWING",
    ),
];

fn of_text(text: &str) -> Option<String> {
    if let Some((_, said)) = SAYINGS.iter().find(|(saying, _)| text.starts_with(saying)) {
        return Some((*said).to_owned());
    }
    if let Some(call) = between(text, "given name and argument types '", "'") {
        return Some(format!("function {} does not exist", signature(call)?));
    }
    if let Some(operation) = between(text, "Cannot coerce arithmetic expression ", " to valid") {
        return operator(operation);
    }
    if let Some(name) = text.strip_prefix("Unsupported SQL type ") {
        return Some(format!("type \"{}\" does not exist", name.to_lowercase()));
    }
    if let Some(column) = between(text, "column \"", "\" must appear in the GROUP BY clause") {
        return Some(format!(
            "column \"{column}\" must appear in the GROUP BY clause or be used in an aggregate \
             function"
        ));
    }
    if let Some((kind, _)) = text.split_once(" queries have different number of columns") {
        return Some(format!("each {kind} query must have the same number of columns"));
    }
    if let Some(table) = text.strip_prefix("Invalid qualifier ") {
        return Some(format!("missing FROM-clause entry for table \"{table}\""));
    }
    if let Some(window) = between(text, "The window ", " is not defined!") {
        return Some(format!("window \"{window}\" does not exist"));
    }
    if let Some(window) = between(text, "The window ", " is defined multiple times!") {
        return Some(format!("window \"{window}\" is already defined"));
    }
    if let Some(place) = between(text, "Cannot find column with position ", " in SELECT") {
        return Some(format!("GROUP BY position {place} is not in select list"));
    }
    if let Some(place) = between(text, "Order by column out of bounds, specified: ", ",") {
        return Some(format!("ORDER BY position {place} is not in select list"));
    }
    if let Some((_, kind)) = text.split_once("with non-boolean predicate")
        && let Some((_, kind)) = kind.rsplit_once(" returning ")
    {
        let kind = type_name(kind)?;
        return Some(format!("argument of WHERE must be type boolean, not type {kind}"));
    }
    if let Some(kind) =
        between(text, "Unary operator 'NOT' requires a boolean expression, got ", "\n")
    {
        let kind = type_name(kind)?;
        return Some(format!("argument of NOT must be type boolean, not type {kind}"));
    }
    None
}

/// What stands between two texts; the second may be missing if it is a line's end.
fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    match rest.split_once(after) {
        Some((found, _)) => Some(found),
        None => (after == "\n").then_some(rest),
    }
}

/// `upper(Int32)` as `upper(integer)`.
fn signature(call: &str) -> Option<String> {
    let (name, types) = call.strip_suffix(')')?.split_once('(')?;
    let name = if name == "character_length" { "length" } else { name };
    let mut names = Vec::new();
    // Types have commas of their own: as many parts as make a type belong together.
    let mut part = String::new();
    for piece in types.split(", ").filter(|piece| !piece.is_empty()) {
        if !part.is_empty() {
            part.push_str(", ");
        }
        part.push_str(piece);
        if let Some(name) = type_name(&part) {
            names.push(name);
            part.clear();
        }
    }
    part.is_empty().then(|| format!("{name}({})", names.join(", ")))
}

/// `Utf8 + Int32` as `text + integer`.
fn operator(operation: &str) -> Option<String> {
    [" + ", " - ", " * ", " / ", " % "].iter().find_map(|symbol| {
        let (left, right) = operation.split_once(symbol)?;
        let (left, right) = (type_name(left)?, type_name(right)?);
        Some(format!("operator does not exist: {left}{symbol}{right}"))
    })
}

/// PostgreSQL's name of a type that the engine has named.
fn type_name(kind: &str) -> Option<String> {
    let kind: DataType = kind.trim().parse().ok()?;
    match &kind {
        DataType::Null => Some("unknown".to_owned()),
        kind => Some(sql_name(pg_type(&Field::new("", kind.clone(), true)).name())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_called_by_their_names_in_sql() {
        let call = "f(Int32, Decimal128(1, 1), List(Int64), Utf8View, Null)";
        let named = "f(integer, numeric, bigint[], text, unknown)";
        assert_eq!(signature(call).as_deref(), Some(named));
        let operation = operator("Utf8 + Timestamp(µs)").expect("known");
        assert_eq!(operation, "operator does not exist: text + timestamp without time zone");
    }
}
