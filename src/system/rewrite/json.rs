//! Functions that make JSON: aggregates by `array_agg` of JSON texts, and those of `jsonb` by those of
//! `json`, whose result is brought to `jsonb`'s form.

use sqlparser::ast::{Expr, FunctionArguments, Ident, ObjectName};

use super::build::{arguments, call, function_name, take, text};

/// A call that makes JSON, by functions that the engine has. Returns whether it is one.
pub fn rewrite(expr: &mut Expr) -> bool {
    let Expr::Function(function) = expr else { return false };
    let Some(name) = function_name(function) else { return false };
    let (plain, normal) = match name.strip_prefix("jsonb_") {
        Some(rest) => (format!("json_{rest}"), true),
        None if name == "to_jsonb" => ("to_json".to_owned(), true),
        None => (name, false),
    };
    if !matches!(function.args, FunctionArguments::List(_)) {
        return false;
    }
    let args = arguments(function).unwrap_or_default();
    let gathering = match (plain.as_str(), args.len()) {
        ("json_agg", 1) => {
            for arg in args {
                *arg = call("json_item", vec![row(take(arg))]);
            }
            Some("json_array_of")
        }
        ("json_object_agg", 2) => {
            let args = args.into_iter().map(take).collect();
            set_argument(function, call("json_member", args));
            Some("json_object_of")
        }
        ("to_json" | "row_to_json" | "json_build_object" | "json_build_array", _) => {
            for arg in args {
                *arg = row(take(arg));
            }
            None
        }
        _ => return false,
    };
    let own = if gathering.is_some() { "array_agg" } else { &plain };
    function.name = ObjectName::from(vec![Ident::new(own)]);
    if let Some(gathering) = gathering {
        *expr = call(gathering, vec![take(expr)]);
    }
    if normal {
        *expr = call("jsonb_form", vec![take(expr)]);
    }
    true
}

/// Leaves a call one argument.
fn set_argument(function: &mut sqlparser::ast::Function, argument: Expr) {
    if let FunctionArguments::List(list) = &mut function.args {
        list.args.truncate(1);
    }
    if let Some(args) = arguments(function)
        && let Some(first) = args.into_iter().next()
    {
        *first = argument;
    }
}

/// A row that is written out, whose values PostgreSQL calls `f1`, `f2` and so on.
fn row(expr: Expr) -> Expr {
    let values = match expr {
        Expr::Tuple(values) => values,
        Expr::Function(mut function) if function_name(&function).is_some_and(|it| it == "row") => {
            match arguments(&mut function) {
                Some(values) => values.into_iter().map(take).collect(),
                None => return Expr::Function(function),
            }
        }
        other => return other,
    };
    let members = values.into_iter().map(row).enumerate();
    let members = members.flat_map(|(at, value)| [text(&format!("f{}", at + 1)), value]);
    call("json_row", members.collect())
}
