//! PostgreSQL's syntax in any statement. Every rule here keeps the meaning: none looks at which
//! tables are read.

use std::ops::ControlFlow;

use sqlparser::ast::{
    AccessExpr, ArrayElemTypeDef, BinaryOperator, DataType, Expr, Fetch, Function, FunctionArg,
    FunctionArgExpr, FunctionArgumentClause, FunctionArguments, GroupByExpr, Ident, LimitClause,
    ObjectName, ObjectNamePart, OrderByExpr, OrderByKind, Query, Select, SelectItem, SetExpr,
    Statement, TableAlias, TableAliasColumnDef, TableFactor, TableWithJoins, Value, VisitorMut,
};

use super::build::{
    array, as_text, call, case, cast, function, function_name, has_aggregate, is_aggregate, normal,
    null, number, take, text,
};
use super::patterns::regular_expression;
use super::{
    calls, conditions, factors, frames, grouping, json, membership, operators, ordered, precision,
    tuples, values,
};
use crate::engine::joins;
use crate::engine::visit::visit_mut;

/// Schemas whose functions are known by their bare names.
const FUNCTION_SCHEMAS: &[&str] = &["pg_catalog", "information_schema"];

/// Types that hold an object's identifier and are written as its name.
const REFERENCE_TYPES: &[&str] =
    &["regclass", "regtype", "regproc", "regprocedure", "regnamespace", "regrole"];

pub fn rewrite(statement: &mut Statement) {
    let _ = visit_mut(statement, &mut Dialect);
    if let Statement::Query(query) = statement {
        show_references(&mut query.body);
    }
}

struct Dialect;

impl VisitorMut for Dialect {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        first_rows(query);
        factors::name_values(query);
        values::rewrite(query);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if let SetExpr::Values(values) = query.body.as_mut() {
            precision::of_values(values);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        joins::name_sides(select);
        conditions::to_where(select);
        lone_series(select);
        grouping::flat_sets(select);
        grouping::by_number(select);
        grouping::conditions(select);
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        match factor {
            TableFactor::Table { name, alias, args: Some(_), .. } => {
                factors::own_function(name, alias);
                strip_schema(name);
            }
            TableFactor::Function { name, .. } => strip_schema(name),
            _ => {}
        }
        factors::rewrite(factor);
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        frames::named(select);
        membership::select(select);
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
                series(expr);
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        operators::blank_padded(expr);
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Function(_) => {
                frames::of_call(expr);
                functions(expr);
            }
            Expr::Extract { .. } => calls::extract(expr),
            Expr::Substring { .. } => calls::substring(expr),
            Expr::UnaryOp { .. } => operators::prefix(expr),
            Expr::Identifier(_) => special_word(expr),
            Expr::BinaryOp { op, .. } => {
                plain_operator(op);
                beside_interval(expr);
                operators::binary(expr);
            }
            Expr::InList { .. } => operators::row_in_list(expr),
            Expr::InSubquery { .. } => membership::of_one_row(expr),
            Expr::IsNull(_) | Expr::IsNotNull(_) => tuples::null_test(expr),
            Expr::TypedString(_) => precision::rewrite(expr),
            Expr::Collate { .. } => collation(expr),
            Expr::Cast { .. } => {
                casts(expr);
                operators::cut(expr);
                precision::rewrite(expr);
            }
            Expr::CompoundFieldAccess { .. } => {
                operators::slice(expr);
                field(expr);
            }
            Expr::AnyOp { .. } | Expr::AllOp { .. } => membership::quantified(expr),
            Expr::Interval(_) => interval(expr),
            Expr::Value(_) => {
                unicode(expr);
                approximate(expr);
            }
            Expr::SimilarTo { .. } => similar_to(expr),
            Expr::AtTimeZone { timestamp, time_zone } => {
                *expr = call("timezone", vec![take(time_zone), take(timestamp)]);
            }
            Expr::Like { any: true, .. } | Expr::ILike { any: true, .. } => {
                any_pattern(expr);
                membership::quantified(expr);
            }
            Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. } => {
                escapes(pattern, escape_char);
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// `FETCH FIRST 3 ROWS ONLY` is `LIMIT 3`.
fn first_rows(query: &mut Query) {
    let Some(Fetch { with_ties: false, percent: false, quantity }) = &query.fetch else { return };
    let rows = quantity.clone().unwrap_or_else(|| number(1));
    match &mut query.limit_clause {
        None => {
            let limit_by = Vec::new();
            let clause = LimitClause::LimitOffset { limit: Some(rows), offset: None, limit_by };
            query.limit_clause = Some(clause);
        }
        Some(LimitClause::LimitOffset { limit: limit @ None, .. }) => *limit = Some(rows),
        Some(_) => return,
    }
    query.fetch = None;
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
    calls::rename(function);
    let Some(name) = function_name(function) else { return };
    ordered::without_numbers(function);
    if is_aggregate(&name) {
        label_casts(function);
    }
    if let Some(sorted) = ordered::distinct(function, &name) {
        *expr = sorted;
        return;
    }
    if ["percentile_disc", "percentile_cont"].contains(&name.as_str())
        && let Some(some) = ordered::has_values(function)
        && let Some(mut each) = ordered::one_by_one(function)
    {
        each.iter_mut().for_each(functions);
        *expr = case(some, array(each), None);
        return;
    }
    match (name.as_str(), &mut function.args) {
        // ARRAY(SELECT ...): the subquery's only column as an array, empty if there is no row.
        ("array", FunctionArguments::Subquery(query)) => {
            if let Some(array) = array_of(query) {
                *expr = array;
            }
        }
        ("mode", FunctionArguments::List(_)) => {
            if let Some(most) = ordered::mode(function) {
                *expr = most;
            }
        }
        ("percentile_disc", FunctionArguments::List(_)) => {
            if let Some(chosen) = ordered::percentile(function) {
                *expr = chosen;
            }
        }
        ("lag" | "lead", FunctionArguments::List(_)) => {
            if let Some(shifted) = calls::shifted(function) {
                *expr = shifted;
            }
        }
        ("generate_subscripts", FunctionArguments::List(_)) => {
            function.name = ObjectName::from(vec![Ident::new("array_subscripts")]);
            let subscripts = take(expr);
            *expr = call("unnest", vec![subscripts]);
        }
        _ => {
            if !json::rewrite(expr) {
                calls::rewrite(expr);
            }
        }
    }
}

/// The only column of a subquery as an array.
pub fn array_of(query: &Query) -> Option<Expr> {
    let subquery = Expr::Subquery(Box::new(aggregated(query)?));
    Some(call("coalesce", vec![subquery, call("make_array", Vec::new())]))
}

/// `SELECT x FROM ... ORDER BY y` as `SELECT array_agg(x ORDER BY y) FROM ...`, or with a subquery
/// in FROM where there is more to it. The engine takes only the first where the outer row is
/// referred to.
fn aggregated(query: &Query) -> Option<Query> {
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    let [SelectItem::UnnamedExpr(item) | SelectItem::ExprWithAlias { expr: item, .. }] =
        select.projection.as_slice()
    else {
        return None;
    };
    let plain = is_plain(query, select) && !has_aggregate(item);
    let mut whole = query.clone();
    let mut outer = select.clone();
    if plain {
        let order = match query.order_by.as_ref().map(|order| &order.kind) {
            None => Vec::new(),
            Some(OrderByKind::Expressions(order)) => order.clone(),
            Some(OrderByKind::All(_)) => return None,
        };
        outer.projection = vec![SelectItem::UnnamedExpr(array_agg(item.clone(), order))];
        whole.order_by = None;
    } else {
        const COLUMN: &str = "array_item";
        let item = Expr::Identifier(Ident::new(COLUMN));
        outer.projection = vec![SelectItem::UnnamedExpr(array_agg(item, Vec::new()))];
        let column = TableAliasColumnDef { name: Ident::new(COLUMN), data_type: None };
        let name = Ident::new("array_items");
        let alias = TableAlias { explicit: true, name, columns: vec![column], at: None };
        let subquery = Box::new(query.clone());
        let (alias, sample) = (Some(alias), None);
        let relation = TableFactor::Derived { lateral: false, subquery, alias, sample };
        outer.from = vec![TableWithJoins { relation, joins: Vec::new() }];
        (outer.distinct, outer.selection, outer.having) = (None, None, None);
        outer.group_by = GroupByExpr::Expressions(Vec::new(), Vec::new());
        (whole.with, whole.order_by, whole.limit_clause, whole.fetch) = (None, None, None, None);
    }
    whole.body = Box::new(SetExpr::Select(outer));
    Some(whole)
}

pub fn array_agg(item: Expr, mut order: Vec<OrderByExpr>) -> Expr {
    for key in &mut order {
        // ORDER BY 1: the only column there is.
        if matches!(&key.expr, Expr::Value(value) if matches!(value.value, Value::Number(..))) {
            key.expr = item.clone();
        }
    }
    let mut function = function("array_agg", vec![item]);
    if let FunctionArguments::List(list) = &mut function.args
        && !order.is_empty()
    {
        list.clauses.push(FunctionArgumentClause::OrderBy(order));
    }
    Expr::Function(function)
}

/// Whether a SELECT has a row for each row that it reads and wants.
pub fn is_plain(query: &Query, select: &Select) -> bool {
    select.distinct.is_none()
        && select.having.is_none()
        && matches!(&select.group_by, GroupByExpr::Expressions(groups, _) if groups.is_empty())
        && query.limit_clause.is_none()
        && query.fetch.is_none()
}

/// Words that are functions without parentheses, but names to the parser.
pub fn is_special(ident: &Ident) -> bool {
    let words = ["current_role", "current_schema"];
    ident.quote_style.is_none() && words.iter().any(|word| ident.value.eq_ignore_ascii_case(word))
}

fn special_word(expr: &mut Expr) {
    let Expr::Identifier(ident) = expr else { return };
    if is_special(ident) {
        *expr = call(&ident.value.to_lowercase(), Vec::new());
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

/// `(row).column`.
fn field(expr: &mut Expr) {
    let Expr::CompoundFieldAccess { root, access_chain } = expr else { return };
    if let [AccessExpr::Dot(Expr::Identifier(name))] = access_chain.as_slice() {
        *expr = call("get_field", vec![take(root), text(&normal(name))]);
    }
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
        *expr = call(&format!("{kind}in"), vec![take(inner)]);
        return;
    }
    if is_text(data_type)
        && let Some(kind) = reference_kind(inner)
    {
        **inner = call(&format!("{kind}out"), vec![take(inner)]);
        return;
    }
    if let DataType::Array(ArrayElemTypeDef::SquareBracket(element, _)) = data_type
        && let Some(mut items) = as_text(inner).and_then(array_literal)
    {
        // Of all texts the engine would read those of moments in another way.
        if let (Expr::Array(items), DataType::Timestamp(..)) = (&mut items, element.as_ref()) {
            for item in &mut items.elem {
                *item = cast(take(item), element.as_ref().clone());
            }
        }
        **inner = items;
    }
}

/// A text without a unit behind it is read as any other constant of the type is.
fn interval(expr: &mut Expr) {
    precision::interval(expr);
    if let Expr::Interval(interval) = expr
        && interval.leading_field.is_none()
        && as_text(&interval.value).is_some()
    {
        let kind = DataType::Interval { fields: None, precision: None };
        *expr = cast(take(&mut interval.value), kind);
    }
}

/// What is written beside an interval is one as well: `'1 mon'::interval + '40 days'`.
fn beside_interval(expr: &mut Expr) {
    if let Expr::BinaryOp { left, op: BinaryOperator::Plus | BinaryOperator::Minus, right } = expr
        && let Expr::Cast { data_type: kind @ DataType::Interval { .. }, .. } = left.as_ref()
        && as_text(right).is_some()
    {
        **right = cast(take(right), kind.clone());
    }
}

/// `SELECT generate_series(1, 3)`: from a series in FROM numbers come as they are wanted, where
/// [`series`] would have all of them in memory at once.
fn lone_series(select: &mut Select) {
    if !select.from.is_empty() {
        return;
    }
    let [SelectItem::UnnamedExpr(item) | SelectItem::ExprWithAlias { expr: item, .. }] =
        select.projection.as_mut_slice()
    else {
        return;
    };
    if let Expr::Function(function) = &*item
        && let Some(name) = function_name(function)
        && ["generate_series", factors::LISTENING].contains(&name.as_str())
        && let Some(factor) = factors::function_in_from(function)
    {
        *item = Expr::Identifier(Ident::new(name));
        select.from = vec![TableWithJoins { relation: factor, joins: Vec::new() }];
    }
}

/// A series in a SELECT's list is one row for each number, and so are the parts of a text.
fn series(expr: &mut Expr) {
    let function = match expr {
        Expr::Function(function) => function,
        Expr::Nested(inner) | Expr::Cast { expr: inner, .. } => return series(inner),
        Expr::BinaryOp { left, right, .. } => {
            series(left);
            return series(right);
        }
        _ => return,
    };
    match function_name(function).as_deref() {
        Some("generate_series") => {}
        Some(name) if factors::is_of_json(name) => {}
        Some(factors::STRING_TO_TABLE) => {
            function.name = ObjectName::from(vec![Ident::new("string_to_array")]);
        }
        _ => return,
    }
    *expr = call("unnest", vec![take(expr)]);
}

/// The engine names an aggregate without the casts in it, so that `sum(x)` and `sum(x::float8)`
/// have one name; a label keeps them apart.
pub fn label_casts(function: &mut Function) {
    let FunctionArguments::List(list) = &mut function.args else { return };
    for arg in &mut list.args {
        if let FunctionArg::Unnamed(FunctionArgExpr::Expr(arg)) = arg
            && let Expr::Cast { data_type, .. } = arg
        {
            let label = text(&data_type.to_string());
            *arg = call("labelled", vec![take(arg), label]);
        }
    }
}

/// The engine takes the pattern for a regular expression as it is.
fn similar_to(expr: &mut Expr) {
    let Expr::SimilarTo { negated, expr: left, pattern, escape_char } = expr else { return };
    let escape = match escape_char.as_ref().map(|value| &value.value) {
        None => Some('\\'),
        Some(Value::SingleQuotedString(escape)) => escape.chars().next(),
        Some(_) => return,
    };
    let Some(pattern) = as_text(pattern).map(|pattern| regular_expression(pattern, escape)) else {
        return;
    };
    let op = match negated {
        true => BinaryOperator::PGRegexNotMatch,
        false => BinaryOperator::PGRegexMatch,
    };
    let right = Box::new(text(&pattern));
    *expr = Expr::Nested(Box::new(Expr::BinaryOp { left: Box::new(take(left)), op, right }));
}

/// A number with an exponent is an approximate one, as in the SQL standard.
fn approximate(expr: &mut Expr) {
    if let Expr::Value(value) = expr
        && let Value::Number(digits, _) = &value.value
        && digits.contains(['e', 'E'])
    {
        *expr = cast(text(digits), DataType::DoublePrecision);
    }
}

/// `U&'...'`, whose escapes the parser has read.
fn unicode(expr: &mut Expr) {
    if let Expr::Value(value) = expr
        && let Value::UnicodeStringLiteral(decoded) = &value.value
    {
        *expr = text(decoded);
    }
}

/// `x LIKE ANY (array)` as `x ~~ ANY (array)`.
fn any_pattern(expr: &mut Expr) {
    use BinaryOperator::{PGILikeMatch, PGLikeMatch, PGNotILikeMatch, PGNotLikeMatch};
    let is_ilike = matches!(expr, Expr::ILike { .. });
    let (Expr::Like { negated, expr: left, pattern, escape_char: None, .. }
    | Expr::ILike { negated, expr: left, pattern, escape_char: None, .. }) = expr
    else {
        return;
    };
    let compare_op = match (is_ilike, *negated) {
        (false, false) => PGLikeMatch,
        (false, true) => PGNotLikeMatch,
        (true, false) => PGILikeMatch,
        (true, true) => PGNotILikeMatch,
    };
    while let Expr::Nested(inner) = pattern.as_mut() {
        **pattern = take(inner);
    }
    let (left, right) = (Box::new(take(left)), Box::new(take(pattern)));
    *expr = Expr::AnyOp { left, compare_op, right, is_some: false };
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
                    *expr = call(&format!("{kind}out"), vec![take(expr)]);
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
