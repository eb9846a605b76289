//! Literals of moments: `timestamp '2026-03-01'` and `timestamptz '2026-03-01'` in one statement. The engine
//! names a column without the casts in it, so that what is computed of the one and of the other would have
//! one name; a label keeps them apart.

use std::collections::HashMap;
use std::ops::ControlFlow;

use sqlparser::ast::{DataType, Expr, Statement, TimezoneInfo, TypedString, VisitorMut};

use super::build::{as_text, call, take, text};
use crate::engine::visit::{visit_expressions, visit_mut};

pub fn rewrite(statement: &mut Statement) {
    let mut known: HashMap<String, &str> = HashMap::new();
    let mut mixed = false;
    visit_expressions(statement, |expr| {
        if let Some((literal, kind)) = moment(expr) {
            mixed |= *known.entry(literal).or_insert(kind) != kind;
        }
    });
    // Few statements have a text as two types.
    if mixed {
        let _ = visit_mut(statement, &mut Labels(known));
    }
}

/// Labels literals of other types than the first that their text has.
struct Labels(HashMap<String, &'static str>);

impl VisitorMut for Labels {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Some((literal, kind)) = moment(expr)
            && self.0.get(&literal).is_some_and(|first| *first != kind)
        {
            *expr = call("labelled", vec![take(expr), text(kind)]);
        }
        ControlFlow::Continue(())
    }
}

/// The text of a literal, and the name of its type, if that is one of moments.
fn moment(expr: &Expr) -> Option<(String, &'static str)> {
    let (literal, data_type) = match expr {
        Expr::TypedString(TypedString { value, data_type, .. }) => {
            (value.value.clone().into_string()?, data_type)
        }
        Expr::Cast { expr, data_type, .. } => (as_text(expr)?.to_owned(), data_type),
        _ => return None,
    };
    let kind = match data_type {
        DataType::Date => "date",
        DataType::Timestamp(_, TimezoneInfo::Tz | TimezoneInfo::WithTimeZone) => "timestamptz",
        DataType::Timestamp(..) => "timestamp",
        _ => return None,
    };
    Some((literal, kind))
}
