//! PostgreSQL's syntax in any statement. Every rule here keeps the meaning: none looks at which
//! tables are read.

use std::ops::ControlFlow;

use sqlparser::ast::{
    ArrayElemTypeDef, BinaryOperator, DataType, Expr, FunctionArguments, Ident, ObjectName,
    ObjectNamePart, Query, SelectItem, SetExpr, Statement, TableAlias, TableAliasColumnDef,
    TableFactor, Value, VisitMut, VisitorMut,
};

use super::build::{array, as_text, call, function_name, normal, null, number, take, text};
use super::names;

/// Schemas whose functions are known by their bare names.
const FUNCTION_SCHEMAS: &[&str] = &["pg_catalog", "information_schema"];

/// Types that hold an object's identifier and are written as its name.
const REFERENCE_TYPES: &[&str] =
    &["regclass", "regtype", "regproc", "regprocedure", "regnamespace", "regrole"];

pub fn rewrite(statement: &mut Statement) {
    let _ = statement.visit(&mut Dialect);
    if let Statement::Query(query) = statement {
        show_references(&mut query.body);
    }
}

struct Dialect;

impl VisitorMut for Dialect {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        match factor {
            TableFactor::Table { name, args: Some(_), .. } => strip_schema(name),
            TableFactor::Function { name, .. } => strip_schema(name),
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Function(_) => functions(expr),
            Expr::Identifier(_) => special_word(expr),
            Expr::BinaryOp { op, .. } => plain_operator(op),
            Expr::Collate { .. } => collation(expr),
            Expr::Cast { .. } => casts(expr),
            Expr::AnyOp { right, .. } | Expr::AllOp { right, .. } => {
                let literal = as_text(right).and_then(array_literal);
                if let Some(items) = literal {
                    **right = items;
                }
            }
            Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. } => {
                escapes(pattern, escape_char);
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

fn strip_schema(name: &mut ObjectName) {
    let known = |part: &ObjectNamePart| {
        part.as_ident().is_some_and(|ident| FUNCTION_SCHEMAS.contains(&normal(ident).as_str()))
    };
    if let [schema, _] = name.0.as_slice()
        && known(schema)
    {
        name.0.remove(0);
    }
}

fn functions(expr: &mut Expr) {
    let Expr::Function(function) = expr else { return };
    strip_schema(&mut function.name);
    let Some(name) = function_name(function) else { return };
    match (name.as_str(), &mut function.args) {
        // ARRAY(SELECT ...): the subquery's only column as an array, empty if there is no row.
        ("array", FunctionArguments::Subquery(query)) => {
            if let Some(aggregated) = aggregated(query) {
                let subquery = Expr::Subquery(Box::new(aggregated));
                *expr = call("coalesce", vec![subquery, call("make_array", vec![])]);
            }
        }
        ("generate_subscripts", FunctionArguments::List(_)) => {
            function.name = ObjectName::from(vec![Ident::new("array_subscripts")]);
            let subscripts = take(expr);
            *expr = call("unnest", vec![subscripts]);
        }
        _ => {}
    }
}

/// `SELECT x FROM ...` as `SELECT array_agg(x) FROM (SELECT x FROM ...)`.
fn aggregated(query: &Query) -> Option<Query> {
    const COLUMN: &str = "array_item";
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    let [_] = select.projection.as_slice() else { return None };
    let mut outer = select.clone();
    let item = call("array_agg", vec![Expr::Identifier(Ident::new(COLUMN))]);
    outer.projection = vec![SelectItem::UnnamedExpr(item)];
    let column = TableAliasColumnDef { name: Ident::new(COLUMN), data_type: None };
    let alias = TableAlias {
        explicit: true,
        name: Ident::new("array_items"),
        columns: vec![column],
        at: None,
    };
    let subquery = Box::new(query.clone());
    let relation = TableFactor::Derived { lateral: false, subquery, alias: Some(alias), sample: None };
    outer.from = vec![sqlparser::ast::TableWithJoins { relation, joins: Vec::new() }];
    (outer.distinct, outer.selection, outer.having) = (None, None, None);
    outer.group_by = sqlparser::ast::GroupByExpr::Expressions(Vec::new(), Vec::new());
    let mut whole = query.clone();
    (whole.with, whole.order_by, whole.limit_clause, whole.fetch) = (None, None, None, None);
    whole.body = Box::new(SetExpr::Select(outer));
    Some(whole)
}

/// Words that are functions without parentheses, but names to the parser.
fn special_word(expr: &mut Expr) {
    let Expr::Identifier(ident) = expr else { return };
    if ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("current_schema") {
        *expr = call("current_schema", Vec::new());
    }
}

/// `OPERATOR(pg_catalog.~)` is `~`.
fn plain_operator(op: &mut BinaryOperator) {
    let BinaryOperator::PGCustomBinaryOperator(path) = op else { return };
    let [.., schema, name] = path.as_slice() else { return };
    if schema != "pg_catalog" {
        return;
    }
    *op = match name.as_str() {
        "=" => BinaryOperator::Eq,
        "<>" | "!=" => BinaryOperator::NotEq,
        "<" => BinaryOperator::Lt,
        "<=" => BinaryOperator::LtEq,
        ">" => BinaryOperator::Gt,
        ">=" => BinaryOperator::GtEq,
        "+" => BinaryOperator::Plus,
        "-" => BinaryOperator::Minus,
        "*" => BinaryOperator::Multiply,
        "/" => BinaryOperator::Divide,
        "%" => BinaryOperator::Modulo,
        "||" => BinaryOperator::StringConcat,
        "~" => BinaryOperator::PGRegexMatch,
        "~*" => BinaryOperator::PGRegexIMatch,
        "!~" => BinaryOperator::PGRegexNotMatch,
        "!~*" => BinaryOperator::PGRegexNotIMatch,
        "~~" => BinaryOperator::PGLikeMatch,
        "~~*" => BinaryOperator::PGILikeMatch,
        "!~~" => BinaryOperator::PGNotLikeMatch,
        "!~~*" => BinaryOperator::PGNotILikeMatch,
        _ => return,
    };
}

/// Strings are compared by their bytes: the collations that say so may be left out, and no other
/// is there.
fn collation(expr: &mut Expr) {
    let Expr::Collate { expr: inner, collation } = expr else { return };
    let name = collation.0.last().and_then(ObjectNamePart::as_ident).map(|ident| &ident.value);
    if name.is_some_and(|name| matches!(name.as_str(), "default" | "C" | "POSIX" | "ucs_basic")) {
        *expr = take(inner);
    }
}

fn casts(expr: &mut Expr) {
    let Expr::Cast { expr: inner, data_type, .. } = expr else { return };
    if let Some(kind) = reference_type(data_type) {
        let named = as_text(inner).is_some() || matches!(inner.as_ref(), Expr::Value(v)
            if matches!(v.value, Value::Placeholder(_)));
        if named {
            *expr = call(&format!("{kind}in"), vec![take(inner)]);
        }
        return;
    }
    if is_text(data_type)
        && let Some(kind) = reference_kind(inner)
    {
        **inner = call(&format!("{kind}out"), vec![take(inner)]);
        return;
    }
    if let DataType::Array(ArrayElemTypeDef::SquareBracket(..)) = data_type
        && let Some(items) = as_text(inner).and_then(array_literal)
    {
        **inner = items;
    }
}

/// The reference type that an expression has by its own form.
fn reference_kind(expr: &Expr) -> Option<&'static str> {
    match expr {
        Expr::Nested(inner) => reference_kind(inner),
        Expr::Cast { data_type, .. } => reference_type(data_type),
        Expr::Function(function) => {
            let name = function_name(function)?;
            let bare = name.strip_prefix("to_").or_else(|| name.strip_suffix("in"))?;
            REFERENCE_TYPES.iter().find(|kind| **kind == bare).copied()
        }
        _ => None,
    }
}

fn reference_type(data_type: &DataType) -> Option<&'static str> {
    let name = match data_type {
        DataType::Regclass => "regclass".to_owned(),
        DataType::Custom(name, args) if args.is_empty() => match name.0.as_slice() {
            [name] => normal(name.as_ident()?),
            [schema, name] if normal(schema.as_ident()?) == "pg_catalog" => {
                normal(name.as_ident()?)
            }
            _ => return None,
        },
        _ => return None,
    };
    let kind = REFERENCE_TYPES.iter().find(|kind| **kind == name).copied()?;
    // A function without the types of its arguments is close enough.
    Some(if kind == "regprocedure" { "regproc" } else { kind })
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Text | DataType::Varchar(_) | DataType::CharacterVarying(_) => true,
        DataType::Custom(name, _) => {
            let last = name.0.last().and_then(ObjectNamePart::as_ident);
            last.is_some_and(|last| matches!(normal(last).as_str(), "text" | "varchar" | "name"))
        }
        _ => false,
    }
}

/// A client is shown names, not numbers, where a statement's result is of a reference type.
fn show_references(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => {
            for item in &mut select.projection {
                if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item
                    && let Some(kind) = reference_kind(expr)
                {
                    let name = names::column_name(expr);
                    let shown = call(&format!("{kind}out"), vec![take(expr)]);
                    match item {
                        SelectItem::UnnamedExpr(_) => {
                            let alias = Ident::with_quote('"', name);
                            *item = SelectItem::ExprWithAlias { expr: shown, alias };
                        }
                        SelectItem::ExprWithAlias { expr, .. } => *expr = shown,
                        _ => {}
                    }
                }
            }
        }
        SetExpr::SetOperation { left, right, .. } => {
            show_references(left);
            show_references(right);
        }
        SetExpr::Query(query) => show_references(&mut query.body),
        _ => {}
    }
}

/// The engine's LIKE knows the backslash alone.
fn escapes(pattern: &mut Expr, escape: &mut Option<sqlparser::ast::ValueWithSpan>) {
    let Some(value) = escape else { return };
    let Value::SingleQuotedString(character) = &value.value else { return };
    if character != "\\" {
        let character = text(character);
        *pattern = call("like_escape", vec![take(pattern), character]);
        *escape = None;
    }
}

/// `{a,"b c",NULL}` as `ARRAY['a', 'b c', NULL]`; arrays of arrays are left alone.
pub fn array_literal(literal: &str) -> Option<Expr> {
    let inner = literal.trim().strip_prefix('{')?.strip_suffix('}')?;
    let mut items = Vec::new();
    let mut chars = inner.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let Some(first) = chars.peek().copied() else { break };
        let mut item = String::new();
        let quoted = first == '"';
        if quoted {
            chars.next();
            loop {
                match chars.next()? {
                    '"' => break,
                    '\\' => item.push(chars.next()?),
                    c => item.push(c),
                }
            }
        } else {
            while let Some(c) = chars.next_if(|c| *c != ',') {
                match c {
                    '{' | '}' | '"' => return None,
                    '\\' => item.push(chars.next()?),
                    c => item.push(c),
                }
            }
            item.truncate(item.trim_end().len());
        }
        items.push(match item.as_str() {
            word if !quoted && word.eq_ignore_ascii_case("null") => null(),
            item => text(item),
        });
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        match chars.next() {
            None => break,
            Some(',') => {}
            Some(_) => return None,
        }
    }
    Some(array(items))
}

/// The same with numbers, for columns of numbers.
pub fn number_array(literal: &str) -> Option<Expr> {
    let inner = literal.trim().strip_prefix('{')?.strip_suffix('}')?;
    let items = inner.split(',').map(str::trim).filter(|item| !item.is_empty());
    let numbers: Option<Vec<Expr>> =
        items.map(|item| item.parse::<i64>().ok().map(number)).collect();
    numbers.map(array)
}
