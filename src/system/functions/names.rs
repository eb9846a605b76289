//! From names to identifiers and back, and quoting.

use datafusion::error::{DataFusionError, Result};

use super::super::View;
use super::super::pg_catalog::{objects, procedures, roles, statics};
use super::super::relations;
use super::super::rows::Value;
use super::super::types::{column_type, types};
use super::Kind::{Any, Bool, Int, Text};
use super::{Call, Given, Kind, Spec, fail, plain, spec};
use crate::catalog::{self, ObjectKind};
use crate::values::types::pg_type_name;

const TEXT: &[&[Kind]] = &[&[Text]];
const OID: &[&[Kind]] = &[&[Int]];
/// A name, or the number that it stands for.
const REFERENCE: &[&[Kind]] = &[&[Text], &[Int]];

pub const FUNCTIONS: &[Spec] = &[
    // What casts from text to these types do, and back: see `rewrite`.
    spec("regclassin", REFERENCE, "regclass", regclass_in),
    spec("regclassout", OID, "text", regclass_out),
    spec("regtypein", REFERENCE, "regtype", regtype_in),
    spec("regtypeout", OID, "text", regtype_out),
    spec("regprocin", REFERENCE, "regproc", regproc_in),
    spec("regprocout", OID, "text", regproc_out),
    spec("regnamespacein", REFERENCE, "regnamespace", regnamespace_in),
    spec("regnamespaceout", OID, "text", regnamespace_out),
    spec("regrolein", REFERENCE, "regrole", regrole_in),
    spec("regroleout", OID, "text", regrole_out),
    spec("to_regclass", TEXT, "regclass", to_regclass),
    spec("to_regtype", TEXT, "regtype", to_regtype),
    spec("to_regproc", TEXT, "regproc", to_regproc),
    spec("to_regnamespace", TEXT, "regnamespace", to_regnamespace),
    spec("to_regrole", TEXT, "regrole", to_regrole),
    spec("pg_typeof", &[&[Kind::Type]], "text", type_of).nullable(),
    plain("quote_ident", TEXT, "text", quote_ident_of),
    plain("quote_literal", &[&[Any]], "text", quote_literal_of),
    plain("quote_nullable", &[&[Any]], "text", quote_literal_of).nullable(),
    plain("parse_ident", &[&[Text], &[Text, Bool]], "_text", parse_ident),
    plain("format", &[&[Text], &[Text, Any]], "text", format).nullable().variadic(),
    plain("like_escape", &[&[Text, Text]], "text", like_escape),
];

/// A name as it must be written in SQL.
pub fn quote_ident(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !is_reserved(name);
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// PostgreSQL quotes every keyword that it does not take as a column's name.
fn is_reserved(name: &str) -> bool {
    use arrow::array::AsArray;
    let tables = statics::crate_tables();
    tables.pg_get_keywords.data().iter().any(|batch| {
        let (Some(words), Some(codes)) =
            (batch.column_by_name("word"), batch.column_by_name("catcode"))
        else {
            return false;
        };
        let (words, codes) = (words.as_string::<i32>(), codes.as_string::<i32>());
        words.iter().zip(codes).any(|(word, code)| word == Some(name) && code != Some("U"))
    })
}

fn quote_literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    match doubled.contains('\\') {
        true => format!("E'{}'", doubled.replace('\\', "\\\\")),
        false => format!("'{doubled}'"),
    }
}

/// The parts of a name such as `public."My table"`; `None` for what is no name.
pub(super) fn parts(text: &str) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    let mut rest = text.trim();
    loop {
        let part;
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut name = String::new();
            let mut chars = quoted.char_indices().peekable();
            let end = loop {
                match chars.next()? {
                    (_, '"') if chars.peek().is_some_and(|(_, c)| *c == '"') => {
                        chars.next();
                        name.push('"');
                    }
                    (at, '"') => break at,
                    (_, c) => name.push(c),
                }
            };
            part = name;
            rest = quoted[end + 1..].trim_start();
        } else {
            let wordy = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
            let end = rest.find(|c| !wordy(c)).unwrap_or(rest.len());
            let word = &rest[..end];
            if word.is_empty() || word.starts_with(|c: char| c.is_ascii_digit() || c == '$') {
                return None;
            }
            part = word.to_lowercase();
            rest = rest[end..].trim_start();
        }
        parts.push(part);
        match rest.strip_prefix('.') {
            Some(more) => rest = more.trim_start(),
            None if rest.is_empty() => return Some(parts),
            None => return None,
        }
    }
}

pub fn relation_exists(view: &View<'_>, schema: &str, name: &str) -> bool {
    relation_in(view, schema, name).is_some()
}

fn relation_in(view: &View<'_>, schema: &str, name: &str) -> Option<u32> {
    if let Some(relation) = relations::find(schema, name) {
        return Some(relation.oid);
    }
    let table = view.database()?.schemas.get(schema)?.tables.get(name)?;
    view.access().sees(table).then_some(table.record.oid)
}

/// A relation by its name as written in SQL, with its schema or by the search path.
pub fn resolve_relation(view: &View<'_>, text: &str) -> Option<u32> {
    match parts(text)?.as_slice() {
        [name] => {
            let path = view.session.search_path();
            path.iter().find_map(|schema| relation_in(view, schema, name))
        }
        [schema, name] => relation_in(view, schema, name),
        [database, schema, name] if **database == *view.session.database => {
            relation_in(view, schema, name)
        }
        _ => None,
    }
}

/// A number, or digits, stand for the identifier itself.
fn number(value: &Value) -> Option<Value> {
    match value {
        Value::Int(_) => Some(value.clone()),
        Value::Text(text) if text == "-" => Some(0.into()),
        Value::Text(text) => text.parse::<u32>().ok().map(Value::from),
        _ => None,
    }
}

pub(super) fn missing(kind: ObjectKind, name: &str) -> DataFusionError {
    let error = catalog::Error::NotFound { kind, name: name.to_owned() };
    DataFusionError::External(Box::new(error))
}

fn regclass_in(call: &Call<'_, '_>) -> Result<Value> {
    let text = call.text(0);
    if let Some(number) = number(&call.args[0]) {
        return Ok(number);
    }
    let found = resolve_relation(call.view, text).map(Value::from);
    found.ok_or_else(|| missing(ObjectKind::Table, text))
}

fn to_regclass(call: &Call<'_, '_>) -> Result<Value> {
    Ok(resolve_relation(call.view, call.text(0)).into())
}

fn regclass_out(call: &Call<'_, '_>) -> Result<Value> {
    let oid = call.oid(0);
    let Some(item) = call.relation(oid) else { return Ok(unnamed(oid)) };
    let path = call.session().search_path();
    let first = path.iter().find(|schema| relation_exists(call.view, schema, item.name()));
    let name = quote_ident(item.name());
    Ok(match first {
        Some(schema) if schema == item.schema() => name.into(),
        _ => format!("{}.{name}", quote_ident(item.schema())).into(),
    })
}

fn unnamed(oid: u32) -> Value {
    if oid == 0 { "-".into() } else { oid.to_string().into() }
}

fn regtype_in(call: &Call<'_, '_>) -> Result<Value> {
    let text = call.text(0);
    match number(&call.args[0]).or_else(|| types().resolve(text).map(Value::from)) {
        Some(found) => Ok(found),
        None => fail(format_args!("type \"{text}\" does not exist")),
    }
}

fn to_regtype(call: &Call<'_, '_>) -> Result<Value> {
    Ok(types().resolve(call.text(0)).into())
}

fn regtype_out(call: &Call<'_, '_>) -> Result<Value> {
    let oid = call.oid(0);
    Ok(match types().get(oid) {
        Some(_) => types().format(oid, None).into(),
        None => unnamed(oid),
    })
}

/// A function by its name; the types of its arguments may follow, and make no difference.
fn function(text: &str) -> Option<u32> {
    let name = text.split('(').next().unwrap_or(text);
    match parts(name)?.as_slice() {
        [name] => procedures::oid(name),
        [schema, name] if schema == "pg_catalog" => procedures::oid(name),
        [schema, name] => procedures::oid(&format!("{schema}.{name}")),
        _ => None,
    }
}

fn regproc_in(call: &Call<'_, '_>) -> Result<Value> {
    let text = call.text(0);
    match number(&call.args[0]).or_else(|| function(text).map(Value::from)) {
        Some(found) => Ok(found),
        None => fail(format_args!("function \"{text}\" does not exist")),
    }
}

fn to_regproc(call: &Call<'_, '_>) -> Result<Value> {
    Ok(function(call.text(0)).into())
}

fn regproc_out(call: &Call<'_, '_>) -> Result<Value> {
    let oid = call.oid(0);
    Ok(procedures::get(oid).map_or_else(|| unnamed(oid), |found| found.shown_name().into()))
}

fn schema(call: &Call<'_, '_>) -> Option<u32> {
    let [name] = <[String; 1]>::try_from(parts(call.text(0))?).ok()?;
    let all = objects::schema_items(call.view);
    all.into_iter().find(|schema| schema.name == name).map(|schema| schema.oid)
}

fn regnamespace_in(call: &Call<'_, '_>) -> Result<Value> {
    let text = call.text(0);
    let found = number(&call.args[0]).or_else(|| schema(call).map(Value::from));
    found.ok_or_else(|| missing(ObjectKind::Schema, text))
}

fn to_regnamespace(call: &Call<'_, '_>) -> Result<Value> {
    Ok(schema(call).into())
}

fn regnamespace_out(call: &Call<'_, '_>) -> Result<Value> {
    let oid = call.oid(0);
    let found = call.index().schemas.get(&oid);
    Ok(found.map_or_else(|| unnamed(oid), |schema| quote_ident(schema.name).into()))
}

fn role(call: &Call<'_, '_>) -> Option<u32> {
    let [name] = <[String; 1]>::try_from(parts(call.text(0))?).ok()?;
    call.view.snapshot.roles.get(&name).map(|role| role.record.oid)
}

fn regrole_in(call: &Call<'_, '_>) -> Result<Value> {
    let text = call.text(0);
    match number(&call.args[0]).or_else(|| role(call).map(Value::from)) {
        Some(found) => Ok(found),
        None => Err(missing(ObjectKind::Role, text)),
    }
}

fn to_regrole(call: &Call<'_, '_>) -> Result<Value> {
    Ok(role(call).into())
}

fn regrole_out(call: &Call<'_, '_>) -> Result<Value> {
    let oid = call.oid(0);
    let found = roles::name(call.view, oid);
    Ok(found.map_or_else(|| unnamed(oid), |name| quote_ident(name).into()))
}

fn type_of(call: &Call<'_, '_>) -> Result<Value> {
    let Some(field) = call.fields.first() else { return Ok(Value::Null) };
    let named = pg_type_name(field).and_then(|name| types().oid(name));
    let oid = named.unwrap_or_else(|| column_type(field).oid);
    Ok(types().format(oid, None).into())
}

fn quote_ident_of(call: &Given<'_>) -> Result<Value> {
    Ok(quote_ident(call.text(0)).into())
}

/// A value's text form, as far as SQL literals need it.
fn text(value: &Value) -> Option<String> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(value) => if *value { "t" } else { "f" }.to_owned(),
        Value::Int(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Text(text) => text.clone(),
        Value::Time(_) | Value::Bytes(_) => return None,
        Value::List(items) => {
            let items: Vec<_> =
                items.iter().map(|item| text(item).unwrap_or_else(|| "NULL".to_owned())).collect();
            format!("{{{}}}", items.join(","))
        }
    })
}

fn quote_literal_of(call: &Given<'_>) -> Result<Value> {
    Ok(text(&call.args[0]).map_or_else(|| "NULL".into(), |text| quote_literal(&text).into()))
}

fn parse_ident(call: &Given<'_>) -> Result<Value> {
    match parts(call.text(0)) {
        Some(parts) => Ok(Value::List(parts.into_iter().map(Value::Text).collect())),
        None => fail(format_args!("string is not a valid identifier: \"{}\"", call.text(0))),
    }
}

/// `%s`, `%I` and `%L` with the next argument or, as `%2$s`, with the one of that number.
fn format(call: &Given<'_>) -> Result<Value> {
    let Some(template) = call.args[0].as_text() else { return Ok(Value::Null) };
    let mut result = String::new();
    let mut next = 1;
    let mut rest = template;
    while let Some(at) = rest.find('%') {
        result.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let position = rest[digits..].strip_prefix('$').and_then(|after| {
            let position = rest[..digits].parse::<usize>().ok()?;
            rest = after;
            Some(position)
        });
        let Some(kind) = rest.chars().next() else {
            return fail("unterminated format() type specifier");
        };
        rest = &rest[kind.len_utf8()..];
        if kind == '%' {
            result.push('%');
            continue;
        }
        let number = position.unwrap_or(next);
        next = number + 1;
        let Some(value) = call.args.get(number) else {
            return fail("too few arguments for format()");
        };
        match (kind, text(value)) {
            ('s', value) => result.push_str(&value.unwrap_or_default()),
            ('I', Some(value)) => result.push_str(&quote_ident(&value)),
            ('I', None) => return fail("null values cannot be formatted as an SQL identifier"),
            ('L', Some(value)) => result.push_str(&quote_literal(&value)),
            ('L', None) => result.push_str("NULL"),
            _ => return fail(format_args!("unrecognized format() type specifier \"{kind}\"")),
        }
    }
    result.push_str(rest);
    Ok(result.into())
}

/// A pattern of LIKE with another escape character, in terms of the backslash.
fn like_escape(call: &Given<'_>) -> Result<Value> {
    let (pattern, escape) = (call.text(0), call.text(1));
    let mut escapes = escape.chars();
    let escape = escapes.next();
    if escapes.next().is_some() {
        return fail("invalid escape string: it must be empty or one character");
    }
    let mut result = String::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        if Some(c) == escape {
            result.push('\\');
            result.extend(chars.next());
        } else if c == '\\' {
            result.push_str("\\\\");
        } else {
            result.push(c);
        }
    }
    Ok(result.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart_as_postgresql_does() {
        let list = |parts: &[&str]| Some(parts.iter().map(ToString::to_string).collect());
        for (text, expected) in [
            ("Items", list(&["items"])),
            ("public . \"My \"\"t\"", list(&["public", "My \"t"])),
            ("a.b.c", list(&["a", "b", "c"])),
            ("a.", None),
            ("1a", None),
            ("\"a", None),
            ("", None),
            ("a b", None),
        ] {
            assert_eq!(parts(text), expected, "{text}");
        }
    }

    #[test]
    fn names_and_values_are_quoted_where_they_must_be() {
        for (name, expected) in [
            ("items", "items"),
            ("Items", "\"Items\""),
            ("select", "\"select\""),
            ("name", "name"),
            ("a\"b", "\"a\"\"b\""),
            ("", "\"\""),
        ] {
            assert_eq!(quote_ident(name), expected);
        }
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal("a\\b"), "E'a\\\\b'");
    }
}
