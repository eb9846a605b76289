//! VALUES. A text in quotes beside values of a type is one of that type to PostgreSQL, and a text to the
//! engine, which then refuses the list.

use sqlparser::ast::{ArrayElemTypeDef, DataType, ExactNumberInfo, Expr, Query, SetExpr, Value};

use super::build::{as_text, cast, take};

/// Casts the texts and NULLs of a column in which casts say what type it is of.
pub fn rewrite(query: &mut Query) {
    let SetExpr::Values(values) = query.body.as_mut() else { return };
    let [first, _, ..] = values.rows.as_slice() else { return };
    for at in 0..first.content.len() {
        let rows = || values.rows.iter().filter_map(|row| row.content.get(at));
        let typed = || rows().filter(|value| !has_no_type(value));
        let Some(kind) = typed().next().and_then(cast_to) else { continue };
        // What has another type, or one of its own, makes the column one of both.
        if typed().any(|value| cast_to(value).as_ref() != Some(&kind)) {
            continue;
        }
        let rows = values.rows.iter_mut().filter_map(|row| row.content.get_mut(at));
        for value in rows.filter(|value| has_no_type(value)) {
            *value = cast(take(value), kind.clone());
        }
    }
}

/// The type that a value is cast to, without the length or precision, which is that value's alone.
fn cast_to(value: &Expr) -> Option<DataType> {
    match value {
        Expr::Cast { data_type, .. } => bare(data_type),
        Expr::TypedString(typed) => bare(&typed.data_type),
        _ => None,
    }
}

/// A type without a length or precision; `None` if it means another then.
fn bare(kind: &DataType) -> Option<DataType> {
    let none = ExactNumberInfo::None;
    Some(match kind {
        DataType::Char(_) | DataType::Character(_) | DataType::Bit(_) => return None,
        DataType::Varchar(_) | DataType::CharacterVarying(_) | DataType::CharVarying(_) => {
            DataType::Varchar(None)
        }
        DataType::Numeric(_) | DataType::Decimal(_) | DataType::Dec(_) => DataType::Numeric(none),
        DataType::Time(_, zone) => DataType::Time(None, *zone),
        DataType::Timestamp(_, zone) => DataType::Timestamp(None, *zone),
        DataType::Interval { .. } => DataType::Interval { fields: None, precision: None },
        DataType::Custom(_, modifiers) if !modifiers.is_empty() => return None,
        DataType::Array(ArrayElemTypeDef::SquareBracket(element, size)) => {
            let element = Box::new(bare(element)?);
            DataType::Array(ArrayElemTypeDef::SquareBracket(element, *size))
        }
        other => other.clone(),
    })
}

fn has_no_type(value: &Expr) -> bool {
    let is_null = |value: &Expr| matches!(value, Expr::Value(value) if value.value == Value::Null);
    as_text(value).is_some() || is_null(value)
}
