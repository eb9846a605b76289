//! VALUES. A text in quotes beside values of a type is one of that type to PostgreSQL, and a text to the
//! engine, which then refuses the list.

use sqlparser::ast::{DataType, Expr, Query, SetExpr, Value};

use super::build::{as_text, cast, take};

/// Casts the texts and NULLs of a column in which casts say what type it is of.
pub fn rewrite(query: &mut Query) {
    let SetExpr::Values(values) = query.body.as_mut() else { return };
    let [first, _, ..] = values.rows.as_slice() else { return };
    for at in 0..first.content.len() {
        let rows = || values.rows.iter().filter_map(|row| row.content.get(at));
        let mut types = rows().filter_map(cast_to);
        let Some(kind) = types.next().cloned() else { continue };
        if types.any(|other| *other != kind) || !rows().any(has_no_type) {
            continue;
        }
        let rows = values.rows.iter_mut().filter_map(|row| row.content.get_mut(at));
        for value in rows.filter(|value| has_no_type(value)) {
            *value = cast(take(value), kind.clone());
        }
    }
}

fn cast_to(value: &Expr) -> Option<&DataType> {
    match value {
        Expr::Cast { data_type, .. } => Some(data_type),
        Expr::TypedString(typed) => Some(&typed.data_type),
        _ => None,
    }
}

fn has_no_type(value: &Expr) -> bool {
    let is_null = |value: &Expr| matches!(value, Expr::Value(value) if value.value == Value::Null);
    as_text(value).is_some() || is_null(value)
}
