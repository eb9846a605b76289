//! Functions that the engine lacks, by others that it has.

use sqlparser::ast::{
    BinaryOperator, DataType, DateTimeField, ExactNumberInfo, Expr, Function, FunctionArg,
    FunctionArgExpr, FunctionArguments, Ident, ObjectName, TimezoneInfo, Value,
};

use super::super::functions::{self, Kind};
use super::build::{
    arguments, as_text, boolean, call, case, cast, function_name, is_parameter, normal, number,
    take, text,
};
use crate::values::template::NumberTemplate;

/// Functions that the engine has under another name.
const OTHER_NAMES: &[(&str, &str)] = &[
    ("array_remove", "array_remove_all"),
    ("array_replace", "array_replace_all"),
    ("ceiling", "ceil"),
    ("every", "bool_and"),
    ("sign", "signum"),
    ("statement_timestamp", "now"),
    ("variance", "var_samp"),
];

pub fn rename(function: &mut Function) {
    let Some(name) = function_name(function) else { return };
    if let Some((_, other)) = OTHER_NAMES.iter().find(|(known, _)| *known == name) {
        function.name = ObjectName::from(vec![Ident::new(*other)]);
    }
}

/// A call by one that means the same.
pub fn rewrite(expr: &mut Expr) {
    let Expr::Function(function) = expr else { return };
    let Some(name) = function_name(function) else { return };
    let bare = matches!(function.args, sqlparser::ast::FunctionArguments::None);
    named_parts(&name, function);
    let mut args = match bare {
        true => Vec::new(),
        false => match arguments(function) {
            Some(args) => args,
            None => return,
        },
    };
    type_literals(&name, &mut args);
    let same = match (name.as_str(), args.as_mut_slice()) {
        ("gen_random_uuid", []) => cast(call("uuid", Vec::new()), DataType::Uuid),
        // With how many digits of a second.
        (
            name @ ("current_timestamp" | "current_time" | "localtimestamp" | "localtime"),
            [digits],
        ) if digits_of(digits).is_some() => {
            let digits = digits_of(digits).unwrap_or_default();
            let mut whole = call(name, Vec::new());
            rewrite(&mut whole);
            call("with_precision", vec![whole, number(digits)])
        }
        ("localtimestamp", []) => cast(call("now", Vec::new()), timestamp(TimezoneInfo::None)),
        ("localtime", []) => {
            cast(call("now", Vec::new()), DataType::Time(None, TimezoneInfo::None))
        }
        // Of transactions there is one with one argument.
        ("age", [left, right]) => call("age_between", vec![take(left), take(right)]),
        (
            "make_timestamp" | "make_timestamptz",
            [year, month, day, hour, minute, second, zone @ ..],
        ) if zone.len() < 2 => {
            let second = cast(take(second), DataType::DoublePrecision);
            let mut parts: Vec<Expr> =
                [year, month, day, hour, minute].into_iter().map(|part| take(part)).collect();
            parts.push(second);
            let moment = call("make_timestamp", parts);
            match zone {
                // Its signs are those of moments: see `timezone_of_moment`.
                [zone] => call("timezone_of_moment", vec![take(zone), moment]),
                _ if name == "make_timestamptz" => cast(moment, timestamp(TimezoneInfo::Tz)),
                _ => moment,
            }
        }
        ("convert_to", [value, encoding]) if is_utf8(encoding) => {
            call("arrow_cast", vec![take(value), text("Binary")])
        }
        ("convert_from", [value, encoding]) if is_utf8(encoding) => {
            let bytes = cast(take(value), DataType::Bytea);
            call("arrow_cast", vec![bytes, text("Utf8")])
        }
        ("regexp_substr", [value, pattern]) => first_match(take(value), take(pattern)),
        ("mod", [left, right]) => operator(take(left), BinaryOperator::Modulo, take(right)),
        ("div", [left, right]) => quotient(take(left), take(right)),
        ("date_part", [part, value]) => {
            let Some(part) = as_text(part).map(str::to_lowercase) else { return };
            match part_of(&part, value) {
                Some(part) => cast(part, DataType::DoublePrecision),
                None => return,
            }
        }
        ("to_number", [_, template]) => {
            // A type that is known before any text is read.
            let digits = as_text(template).and_then(|text| NumberTemplate::parse(text).ok());
            let Some((_, scale)) = digits.map(|template| template.digits()) else { return };
            let Ok(scale) = i64::try_from(scale.min(10)) else { return };
            cast(take(expr), DataType::Numeric(ExactNumberInfo::PrecisionAndScale(38, scale)))
        }
        _ => return,
    };
    *expr = same;
}

/// `lag(x, n, y)` and `lead(x, n, y)` whose last argument is computed of the row: the engine takes a literal
/// for it alone. From NULL rows on there is nothing.
pub fn shifted(function: &Function) -> Option<Expr> {
    let mut own = function.clone();
    let args: Vec<Expr> = arguments(&mut own)?.into_iter().map(take).collect();
    if let [value, Expr::Value(offset), ..] = args.as_slice()
        && offset.value == Value::Null
        && function.over.is_some()
    {
        return Some(case(boolean(false), value.clone(), None));
    }
    let [value, offset, default] = <[Expr; 3]>::try_from(args).ok()?;
    if function.over.is_none() || is_literal(&default) {
        return None;
    }
    let of = |value: Expr| {
        let name = function_name(function).unwrap_or_default();
        let plain = super::build::function(&name, vec![value, offset.clone()]);
        Expr::Function(Function { over: function.over.clone(), ..plain })
    };
    let nowhere = Expr::IsNull(Box::new(of(boolean(true))));
    Some(case(nowhere, default, Some(Box::new(of(value)))))
}

/// Whether an expression is a literal, or the cast of one.
fn is_literal(expr: &Expr) -> bool {
    match expr {
        Expr::Value(_) | Expr::TypedString(_) | Expr::Interval(_) => true,
        Expr::Nested(inner)
        | Expr::Cast { expr: inner, .. }
        | Expr::UnaryOp { expr: inner, .. } => is_literal(inner),
        _ => false,
    }
}

/// The arguments of `make_interval`, each of which may be given by its name or left out.
const PARTS: &[&str] = &["years", "months", "weeks", "days", "hours", "mins", "secs"];

/// Puts the arguments of `make_interval` in their places, and zeros where there are none. What is no call of
/// it is left as it is.
fn named_parts(name: &str, function: &mut Function) {
    let FunctionArguments::List(list) = &mut function.args else { return };
    if name != "make_interval" || list.args.len() > PARTS.len() {
        return;
    }
    let mut parts: Vec<Option<&FunctionArgExpr>> = vec![None; PARTS.len()];
    for (at, arg) in list.args.iter().enumerate() {
        let (at, arg) = match arg {
            FunctionArg::Unnamed(arg) => (Some(at), arg),
            FunctionArg::Named { name, arg, .. }
            | FunctionArg::ExprNamed { name: Expr::Identifier(name), arg, .. } => {
                (PARTS.iter().position(|part| *part == normal(name)), arg)
            }
            FunctionArg::ExprNamed { .. } => return,
        };
        match at {
            Some(at) if parts[at].is_none() => parts[at] = Some(arg),
            _ => return,
        }
    }
    let zero = FunctionArgExpr::Expr(number(0));
    let mut parts: Vec<_> = parts.into_iter().map(|part| part.unwrap_or(&zero).clone()).collect();
    if let Some(FunctionArgExpr::Expr(seconds)) = parts.last_mut() {
        *seconds = cast(take(seconds), DataType::DoublePrecision);
    }
    list.args = parts.into_iter().map(FunctionArg::Unnamed).collect();
}

/// A number of digits that is written out.
fn digits_of(expr: &Expr) -> Option<u64> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Number(digits, _) => digits.to_string().parse().ok(),
            _ => None,
        },
        _ => None,
    }
}

fn is_utf8(encoding: &Expr) -> bool {
    as_text(encoding).is_some_and(|name| ["utf8", "utf-8"].contains(&name.to_lowercase().as_str()))
}

/// `substring(text FROM 'pattern')`.
pub fn substring(expr: &mut Expr) {
    if let Expr::Substring {
        expr: value, substring_from: Some(pattern), substring_for: None, ..
    } = expr
        && as_text(pattern).is_some()
    {
        *expr = first_match(take(value), take(pattern));
    }
}

/// What a regular expression finds: what its first parentheses hold, if it has any.
fn first_match(value: Expr, pattern: Expr) -> Expr {
    call("array_element", vec![call("regexp_match", vec![value, pattern]), number(1)])
}

/// A literal in quotes, or a parameter, is of the type that the function takes.
fn type_literals(name: &str, args: &mut [&mut Expr]) {
    let kinds = functions::asked_for(name, args.len()).unwrap_or_default();
    for (arg, kind) in args.iter_mut().zip(kinds) {
        let data_type = match kind {
            Kind::Int => DataType::BigInt(None),
            Kind::Float => DataType::DoublePrecision,
            _ => continue,
        };
        if as_text(arg).is_some() || is_parameter(arg) {
            **arg = cast(take(arg), data_type);
        }
    }
}

/// `extract(second FROM x)` and the like: with the fraction that the engine cuts off.
pub fn extract(expr: &mut Expr) {
    let Expr::Extract { field, expr: value, .. } = expr else { return };
    let part = match field {
        DateTimeField::Second | DateTimeField::Seconds => "second",
        DateTimeField::Millisecond | DateTimeField::Milliseconds => "milliseconds",
        DateTimeField::Century => "century",
        DateTimeField::Decade => "decade",
        DateTimeField::Millennium | DateTimeField::Millenium => "millennium",
        _ => return,
    };
    if let Some(part) = part_of(part, value) {
        *expr = part;
    }
}

fn part_of(part: &str, value: &mut Expr) -> Option<Expr> {
    let part_of = |part: &str, value: &mut Expr| call("date_part", vec![text(part), take(value)]);
    // The engine's microseconds are those of the minute, as PostgreSQL's are.
    let seconds = |value: &mut Expr, factor: &str| {
        let digits = DataType::Numeric(ExactNumberInfo::PrecisionAndScale(8, 0));
        let micros = cast(part_of("microsecond", value), digits);
        operator(micros, BinaryOperator::Multiply, number(factor))
    };
    let of_year = |value: &mut Expr, more: u32, years: u32| {
        let year = operator(part_of("year", value), BinaryOperator::Plus, number(more));
        operator(year, BinaryOperator::Divide, number(years))
    };
    Some(match part {
        "second" | "seconds" => seconds(value, "0.000001"),
        "millisecond" | "milliseconds" => seconds(value, "0.001"),
        "decade" | "decades" => of_year(value, 0, 10),
        "century" | "centuries" => of_year(value, 99, 100),
        "millennium" | "millennia" => of_year(value, 999, 1000),
        _ => return None,
    })
}

/// What a number is divided by another without a rest.
fn quotient(left: Expr, right: Expr) -> Expr {
    let rest = operator(left.clone(), BinaryOperator::Modulo, right.clone());
    let whole =
        operator(operator(left, BinaryOperator::Minus, rest), BinaryOperator::Divide, right);
    cast(whole, DataType::Numeric(ExactNumberInfo::PrecisionAndScale(38, 0)))
}

fn timestamp(zone: TimezoneInfo) -> DataType {
    DataType::Timestamp(None, zone)
}

fn operator(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    let nested = |side: Expr| Box::new(Expr::Nested(Box::new(side)));
    Expr::Nested(Box::new(Expr::BinaryOp { left: nested(left), op, right: nested(right) }))
}
