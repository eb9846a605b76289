//! Functions that make JSON: aggregates by `array_agg` of JSON texts, and those of `jsonb` by those of
//! `json`, whose result is brought to `jsonb`'s form.

use sqlparser::ast::{DataType, Expr, FunctionArguments, Ident, ObjectName};

use super::build::{arguments, call, cast, function_name, single_item, take, text};

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
                *arg = call("json_item", vec![row(kept(take(arg)))]);
            }
            Some("json_array_of")
        }
        ("json_object_agg", 2) => {
            let args = args.into_iter().map(|arg| kept(take(arg))).collect();
            set_argument(function, call("json_member", args));
            Some("json_object_of")
        }
        ("to_json" | "row_to_json" | "json_build_object" | "json_build_array", _) => {
            for arg in args {
                *arg = row(kept(take(arg)));
            }
            None
        }
        // What is JSON stays so, whichever it is.
        ("coalesce", _) if !normal && args.iter().any(|arg| is_json(arg)) => {
            *expr = call("as_json", vec![take(expr)]);
            return true;
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

/// Functions whose result is JSON, as they are called once they are rewritten.
const OF_JSON: &[&str] = &[
    "as_json",
    "json_array_of",
    "json_build_array",
    "json_build_object",
    "json_object_of",
    "jsonb_form",
    "row_to_json",
    "to_json",
];

fn is_json(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) => is_json(inner),
        Expr::Function(function) => {
            function_name(function).is_some_and(|name| OF_JSON.contains(&name.as_str()))
        }
        Expr::Subquery(query) => single_item(query).is_some_and(is_json),
        _ => false,
    }
}

/// The engine forgets of a subquery's value that it is JSON.
fn kept(expr: Expr) -> Expr {
    match &expr {
        Expr::Subquery(_) if is_json(&expr) => call("as_json", vec![expr]),
        _ => expr,
    }
}

/// A value that becomes `jsonb` gets that type's form.
pub fn normal(expr: &mut Expr) {
    match expr {
        Expr::Cast { data_type, .. } if is_jsonb(data_type) => {
            *expr = call("jsonb_form", vec![take(expr)]);
        }
        Expr::TypedString(typed) if is_jsonb(&typed.data_type) => {
            if let Some(literal) = typed.value.clone().into_string() {
                let json = cast(text(&literal), DataType::JSONB);
                *expr = call("jsonb_form", vec![json]);
            }
        }
        _ => {}
    }
}

fn is_jsonb(data_type: &DataType) -> bool {
    match data_type {
        DataType::JSONB => true,
        DataType::Custom(name, _) => name.to_string().eq_ignore_ascii_case("pg_catalog.jsonb"),
        _ => false,
    }
}
