//! What the engine has to say of a statement, in PostgreSQL's words: people look for them, and
//! clients know errors by them. What has no counterpart is left in the engine's words.

use arrow::datatypes::{DataType, Field};
use arrow::error::ArrowError;
use datafusion::common::{Column, SchemaError, TableReference};
use datafusion::error::DataFusionError;

use super::system::NAME_MARK;
use crate::values::types::{pg_type, sql_name};
use crate::values::{decode, jsonb};

/// Columns that a hint lists.
const SHOWN_COLUMNS: usize = 20;

/// What the engine says of a call that it has no function for, and what PostgreSQL hints at then.
const NO_MATCH: &str = "No function matches the given name and argument types";
const CASTS: &str = "No function matches the given name and argument types. You might need to add explicit \
                     type casts.";

const OPERATOR_CASTS: &str = "No operator matches the given name and argument types. You might need to add \
                              explicit type casts.";

/// An error's text.
pub(super) fn of(root: &DataFusionError) -> Option<String> {
    match root {
        DataFusionError::SchemaError(error, _) => of_names(error),
        DataFusionError::NotImplemented(text)
        | DataFusionError::Plan(text)
        | DataFusionError::Execution(text)
        | DataFusionError::Internal(text) => of_text(text),
        DataFusionError::ArrowError(error, _) => match error.as_ref() {
            ArrowError::CastError(text)
            | ArrowError::ArithmeticOverflow(text)
            | ArrowError::InvalidArgumentError(text) => of_text(text),
            ArrowError::ComputeError(text) if text.contains("overflow on abs(") => of_text(text),
            _ => None,
        },
        _ => None,
    }
}

/// What could have been meant.
pub(super) fn hint(error: &DataFusionError) -> Option<String> {
    let error = match error.find_root() {
        DataFusionError::SchemaError(error, _) => error,
        DataFusionError::Plan(text) if of_text(text)?.starts_with("function ") => {
            return text.contains(NO_MATCH).then(|| CASTS.to_owned());
        }
        DataFusionError::Plan(text) if of_text(text)?.starts_with("operator does not exist") => {
            return Some(OPERATOR_CASTS.to_owned());
        }
        DataFusionError::External(inner) => {
            let hint = match inner.downcast_ref::<jsonb::Error>() {
                Some(error) => error.hint(),
                None => inner.downcast_ref::<decode::Error>()?.hint(),
            };
            return hint.map(str::to_owned);
        }
        _ => return None,
    };
    let SchemaError::FieldNotFound { field, valid_fields } = error.as_ref() else { return None };
    if field.name.starts_with('\u{2}') {
        return None;
    }
    // Some columns only the engine knows.
    let named = valid_fields.iter().filter(|column| !column.name.starts_with('\u{2}'));
    let mut names: Vec<String> = named.map(|column| shown(&column.flat_name())).collect();
    names.dedup();
    let more = names.len() > SHOWN_COLUMNS;
    names.truncate(SHOWN_COLUMNS);
    let more = if more { ", and more" } else { "" };
    (!names.is_empty()).then(|| format!("The columns here are {}{more}.", names.join(", ")))
}

/// A text without the numbers that keep columns of one name apart.
pub(super) fn shown(text: &str) -> String {
    let mut parts = text.split(NAME_MARK);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |shown, part| shown + part.trim_start_matches(|c: char| c.is_ascii_digit()))
}

fn of_names(error: &SchemaError) -> Option<String> {
    Some(match error {
        // One that was added to compare with the outer query, and has not arrived.
        SchemaError::FieldNotFound { field, .. } if field.name.starts_with('\u{2}') => {
            "a comparison with the outer query in a table of a join is not supported: compare in the join's own \
             condition, or in WHERE"
                .to_owned()
        }
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
        SchemaError::DuplicateUnqualifiedField { name } => {
            format!("column \"{name}\" specified more than once")
        }
    })
}

fn belongs(column: &Column, table: &TableReference) -> bool {
    column.relation.as_ref().is_some_and(|relation| relation.table() == table.table())
}

/// Beginnings of the engine's texts, and what PostgreSQL says.
const SAYINGS: &[(&str, &str)] = &[
    ("Cannot cast Date32 value ", "date out of range for timestamp"),
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
    (
        "Physical plan does not support logical expression Exists",
        "EXISTS cannot stand in this condition, such as that of a join: put it into WHERE, or into the list \
         of a subquery",
    ),
    (
        "Physical plan does not support logical expression InSubquery",
        "IN with a subquery is not supported in this place, such as the condition of an outer join, or where it \
         compares with the outer query by anything but =: put it into WHERE",
    ),
    ("Inconsistent data length across values list", "VALUES lists must all be the same length"),
    ("Too many columns! The subquery should only", "subquery must return only one column"),
    ("Substring without for/from is not valid", "function substr(text) does not exist"),
    ("LIMIT must be >= 0", "LIMIT must not be negative"),
    ("OFFSET must be >=0", "OFFSET must not be negative"),
    ("NTILE requires a positive integer", "argument of ntile must be greater than zero"),
    (
        "Invalid window frame: frame offsets for ROWS / GROUPS must be non negative integers",
        "frame starting or ending offset must not be negative",
    ),
    (
        "RANGE requires exactly one ORDER BY column",
        "RANGE with offset PRECEDING/FOLLOWING requires exactly one ORDER BY column",
    ),
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
    of_calls(text).or_else(|| of_values(text)).or_else(|| of_places(text))
}

/// What is said of functions and operators for which there are no arguments of these types.
fn of_calls(text: &str) -> Option<String> {
    if let Some(call) = between(text, "given name and argument types '", "'") {
        return of_signature(&signature(call)?);
    }
    if let Some(operation) = between(text, "Cannot coerce arithmetic expression ", " to valid") {
        return operator(operation, &[" + ", " - ", " * ", " / ", " % "]);
    }
    if let Some(operation) = between(text, "for logical boolean operation ", "\n") {
        return logical(operation);
    }
    if let Some((_, operation)) = text.split_once("Cannot infer common argument type for ") {
        let (_, operation) = operation.split_once(" operation ")?;
        return operator(operation, COMPARISONS);
    }
    if let Some(operation) = between(text, "for string concat operation ", "\n") {
        return operator(operation, &[" || "]);
    }
    if let Some(types) = between(text, "There isn't a common type to coerce ", " in ") {
        let (left, right) = types.split_once(" and ")?;
        let (left, right) = (type_name(left)?, type_name(right)?);
        return Some(format!("operator does not exist: {left} ~~ {right}"));
    }
    if let Some(rest) = text.strip_prefix("expr type ") {
        let (left, right) = rest.strip_suffix(" in InSubquery")?.split_once(" can't cast to ")?;
        if left.starts_with("Struct(") {
            return Some("subquery has too few columns".to_owned());
        }
        let (left, right) = (type_name(left)?, type_name(right)?);
        return Some(format!("operator does not exist: {left} = {right}"));
    }
    if let Some(kind) = between(text, "Cannot access field at argument 1: type ", " is not") {
        let kind = type_name(kind)?;
        return Some(format!(
            "column notation applied to type {kind}, which is not a composite type"
        ));
    }
    let (from, to) = between(text, "Unsupported CAST from ", "\n")?.split_once(" to ")?;
    Some(format!("cannot cast type {} to {}", type_name(from)?, type_name(to)?))
}

/// What is said of values that do not fit their types.
fn of_values(text: &str) -> Option<String> {
    if let Some((value, kind)) = (text.strip_prefix("Cannot cast string '"))
        .and_then(|rest| rest.rsplit_once("' to value of "))
    {
        let kind = type_name(kind.strip_suffix(" type")?)?;
        return Some(format!("invalid input syntax for type {kind}: \"{value}\""));
    }
    if let Some((value, kind)) =
        (text.strip_prefix("Can't cast value ")).and_then(|rest| rest.split_once(" to type "))
    {
        return Some(format!("{} out of range: {value}", type_name(kind)?));
    }
    if let Some(column) = between(text, "Column '", "' is declared as non-nullable but") {
        return Some(format!(
            "null value in column \"{column}\", which is declared NOT NULL: the file has no such column, or no \
             value there"
        ));
    }
    if let Some(call) = text.strip_prefix("Overflow happened on FACTORIAL") {
        return Some(format!("bigint out of range: factorial{call}"));
    }
    if let Some(operation) = text.strip_prefix("Overflow happened on: ") {
        return Some(format!("value out of range: {operation}"));
    }
    if let Some((kind, _)) = text.split_once("Array overflow on abs(") {
        return Some(format!("{} out of range", type_name(kind)?));
    }
    if let Some(operator) = between(text, "Unsupported binary operator: Custom(\"", "\")") {
        return Some(format!("operator does not exist: {operator}"));
    }
    if let Some(call) =
        text.strip_prefix("Aggregate can not be used as a sliding accumulator because `retract_batch` is not implemented: ")
    {
        let name = call.split('(').next()?;
        return Some(format!("{name} is not supported over a frame that begins behind the first row"));
    }
    if let Some((said, _)) = too_large(text) {
        return Some(said);
    }
    if let Some(value) =
        between(text, "Percentile value must be between 0.0 and 1.0 inclusive, ", " is invalid")
    {
        return Some(format!("percentile value {value} is not between 0 and 1"));
    }
    if let Some((what, got)) = text.split_once(", got ").filter(|_| text.starts_with("Argument #"))
    {
        return Some(match between(got, "name: \"", "\"") {
            Some(column) => format!(
                "arguments of a function in FROM must be constants here, and column \"{column}\" is none"
            ),
            None => format!("{what}, not {}", type_name(got)?),
        });
    }
    if text.starts_with("Inconsistent metadata across values list") {
        let kind =
            ["jsonb", "json", "uuid"].into_iter().find(|kind| text.contains(&format!(".{kind}\"")));
        let kind = kind.unwrap_or("unknown");
        return Some(format!("VALUES types {kind} and text cannot be matched"));
    }
    if let Some(types) = between(text, "Inconsistent data type across values list at ", "\n") {
        let (_, types) = types.split_once(". Was ")?;
        let (one, other) = types.split_once(" but found ")?;
        let (one, other) = (type_name(one)?, type_name(other)?);
        return Some(format!("VALUES types {one} and {other} cannot be matched"));
    }
    let kind =
        type_name(between(text, "Expected LIMIT to be an integer or null, but got ", "\n")?)?;
    Some(format!("argument of LIMIT must be type bigint, not type {kind}"))
}

/// What is said of a number that has too many digits for its type, and more about it.
fn too_large(text: &str) -> Option<(String, Option<String>)> {
    if let Some((_, value)) = text.split_once("). Overflowing on ") {
        return Some((format!("value \"{value}\" is out of range for type numeric"), None));
    }
    let (_, rest) = text.split_once(" to store in a Decimal")?;
    let (precision, bound) = between(rest, "of precision ", "\n")?.split_once(". M")?;
    let precision: usize = precision.parse().ok()?;
    let scale = bound.split_once('.').map_or(0, |(_, digits)| digits.len());
    let below = match precision.checked_sub(scale)? {
        0 => "1".to_owned(),
        whole => format!("10^{whole}"),
    };
    let detail = format!(
        "A field with precision {precision}, scale {scale} must round to an absolute value less than \
         {below}."
    );
    Some(("numeric field overflow".to_owned(), Some(detail)))
}

/// More of what is wrong.
pub(super) fn detail(root: &DataFusionError) -> Option<String> {
    let DataFusionError::ArrowError(error, _) = root else { return None };
    match error.as_ref() {
        ArrowError::CastError(text) | ArrowError::InvalidArgumentError(text) => too_large(text)?.1,
        _ => None,
    }
}

/// What is said of names and places that are not there.
fn of_places(text: &str) -> Option<String> {
    if let Some(having) = between(text, "HAVING clause references: ", " must appear in") {
        return Some(match column_of(having) {
            Some(column) => format!(
                "column \"{column}\" must appear in the GROUP BY clause or be used in an aggregate \
                 function"
            ),
            None => "HAVING takes GROUP BY, or an aggregate function".to_owned(),
        });
    }
    if let Some(rest) = text.strip_prefix("Source table contains ") {
        let (there, named) = rest.split_once(" columns but only ")?;
        let named = named.split_once(' ')?.0;
        return Some(format!("table has {there} columns available but {named} columns specified"));
    }
    if let Some(argument) = between(text, "Argument ", " to grouping function is not in") {
        return Some(format!(
            "arguments to GROUPING must be grouping expressions of the associated query level, \
             and {argument} is none"
        ));
    }
    if text.starts_with("Unsupported Value 'SingleQuotedByteStringLiteral")
        || text.starts_with("Unsupported Value 'HexStringLiteral")
    {
        return Some("type \"bit\" does not exist".to_owned());
    }
    if let Some(name) = between(text, "Function '", "' does not support named arguments") {
        return Some(format!("function {name} does not exist with arguments of these names"));
    }
    if let Some(date_part) = between(text, "Date part '", "' not supported") {
        return Some(format!("unit \"{date_part}\" not recognized"));
    }
    if let Some(unit) = between(text, "Unsupported date_trunc granularity: '", "'") {
        return Some(format!("unit \"{unit}\" not recognized"));
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

/// What is said of a function that there is not for types; the engine has functions for what is written
/// as an operator.
fn of_signature(call: &str) -> Option<String> {
    let (name, types) = call.strip_suffix(')')?.split_once('(')?;
    let mut parts = types.split(", ");
    let (one, other) = (parts.next().unwrap_or_default(), parts.next());
    let matched = |what: &str| {
        let other = parts.clone().chain(other).find(|other| *other != one).unwrap_or(one);
        Some(format!("{what} types {one} and {other} cannot be matched"))
    };
    match name {
        "make_array" => matched("ARRAY"),
        "coalesce" => matched("COALESCE"),
        "greatest" => matched("GREATEST"),
        "least" => matched("LEAST"),
        "array_has" if !one.ends_with("[]") => {
            Some("op ANY/ALL (array) requires array on right side".to_owned())
        }
        "array_element" if !one.ends_with("[]") => {
            Some(format!("cannot subscript type {one} because it does not support subscripting"))
        }
        _ => Some(format!("function {call} does not exist")),
    }
}

/// `Int32 AND Boolean`: which side is no condition.
fn logical(operation: &str) -> Option<String> {
    let (word, (left, right)) = ["AND", "OR"]
        .iter()
        .find_map(|word| Some((word, operation.split_once(&format!(" {word} "))?)))?;
    let wrong = [left, right].into_iter().find(|side| side.trim() != "Boolean")?;
    Some(format!("argument of {word} must be type boolean, not type {}", type_name(wrong)?))
}

/// The first column that an expression of the engine's names with its table.
fn column_of(expression: &str) -> Option<&str> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    expression.split(|c: char| !is_part(c)).find(|word| {
        word.contains('.') && word.starts_with(|c: char| c.is_alphabetic() || c == '_')
    })
}

const COMPARISONS: &[&str] = &[
    " = ",
    " != ",
    " <= ",
    " >= ",
    " < ",
    " > ",
    " IS DISTINCT FROM ",
    " IS NOT DISTINCT FROM ",
    " !~* ",
    " !~ ",
    " ~* ",
    " ~ ",
];

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
fn operator(operation: &str, symbols: &[&str]) -> Option<String> {
    symbols.iter().find_map(|symbol| {
        let (left, right) = operation.split_once(symbol)?;
        if left.starts_with("Struct(") && right.starts_with("Struct(") && left != right {
            return Some("unequal number or types of entries in row expressions".to_owned());
        }
        let (left, right) = (type_name(left)?, type_name(right)?);
        let symbol = match *symbol {
            " != " => " <> ",
            symbol if symbol.starts_with(" IS ") => " = ",
            symbol => symbol,
        };
        Some(format!("operator does not exist: {left}{symbol}{right}"))
    })
}

/// PostgreSQL's name of a type that the engine has named.
fn type_name(kind: &str) -> Option<String> {
    if kind.trim().starts_with("Struct(") {
        return Some("record".to_owned());
    }
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
        let operation = operator("Utf8 + Timestamp(µs)", &[" + "]).expect("known");
        assert_eq!(operation, "operator does not exist: text + timestamp without time zone");
    }

    #[test]
    fn what_is_wrong_is_said_in_the_words_of_sql() {
        for (text, said) in [
            (
                "Cannot cast string 'x' to value of Int32 type",
                "invalid input syntax for type integer: \"x\"",
            ),
            ("Can't cast value 99999999999 to type Int32", "integer out of range: 99999999999"),
            (
                "123456.0 is too large to store in a Decimal128 of precision 3. Max is 99.9",
                "numeric field overflow",
            ),
            (
                "Cannot cast to Decimal128(38, 10). Overflowing on 123",
                "value \"123\" is out of range for type numeric",
            ),
            ("Int32Array overflow on abs(-2147483648)", "integer out of range"),
            (
                "Inconsistent metadata across values list at row 1 column 0. Was FieldMetadata { \
                 inner: {\"ARROW:extension:name\": \"arrow.json\"} } but found FieldMetadata { inner: {} }",
                "VALUES types json and text cannot be matched",
            ),
            (
                "Cannot infer common argument type for comparison operation Int32 = Date32",
                "operator does not exist: integer = date",
            ),
            (
                "Cannot infer common argument type for logical boolean operation Int32 AND Boolean",
                "argument of AND must be type boolean, not type integer",
            ),
            (
                "Cannot infer common argument type for comparison operation Struct(\"c0\": Int32) = Int64",
                "operator does not exist: record = bigint",
            ),
            (
                "Cannot infer common argument type for regex operation Int32 ~ Utf8",
                "operator does not exist: integer ~ text",
            ),
            (
                "Cannot infer common string type for string concat operation Int32 || Int32",
                "operator does not exist: integer || integer",
            ),
            (
                "There isn't a common type to coerce Date32 and Utf8 in LIKE expression",
                "operator does not exist: date ~~ text",
            ),
            ("Unsupported CAST from Boolean to Date32", "cannot cast type boolean to date"),
            (
                "Argument #2 must be an INTEGER or NULL, got Utf8",
                "Argument #2 must be an INTEGER or NULL, not text",
            ),
            (
                "Argument #2 must be an INTEGER or NULL, got Column(Column { name: \"c\" })",
                "arguments of a function in FROM must be constants here, and column \"c\" is none",
            ),
            (
                "Inconsistent data type across values list at row 1 column 0. Was Int64 but found Boolean",
                "VALUES types bigint and boolean cannot be matched",
            ),
            (
                "HAVING clause references: t.a > Int64(1) must appear in the GROUP BY clause or be used",
                "column \"t.a\" must appear in the GROUP BY clause or be used in an aggregate function",
            ),
            (
                "Source table contains 1 columns but only 2 names given as column alias",
                "table has 1 columns available but 2 columns specified",
            ),
            (
                "expr type Struct(\"c0\": Int32, \"c1\": Utf8View) can't cast to Int32 in InSubquery",
                "subquery has too few columns",
            ),
        ] {
            assert_eq!(of_text(text).as_deref(), Some(said), "{text}");
        }
        for (call, said) in [
            (
                "make_array(bigint, bigint, boolean)",
                "ARRAY types bigint and boolean cannot be matched",
            ),
            ("coalesce(integer, date)", "COALESCE types integer and date cannot be matched"),
            ("array_has(text, integer)", "op ANY/ALL (array) requires array on right side"),
            ("array_has(text[], integer)", "function array_has(text[], integer) does not exist"),
            (
                "array_element(integer, bigint)",
                "cannot subscript type integer because it does not support subscripting",
            ),
            ("upper()", "function upper() does not exist"),
        ] {
            assert_eq!(of_signature(call).as_deref(), Some(said), "{call}");
        }
        for (text, below) in [
            (
                "1234 is too large to store in a Decimal64 of precision 3. Max is 999",
                "scale 0 must round to an absolute value less than 10^3.",
            ),
            (
                "-1.23 is too small to store in a Decimal128 of precision 2. Min is -0.99",
                "scale 2 must round to an absolute value less than 1.",
            ),
        ] {
            let (_, detail) = too_large(text).expect("known");
            assert!(detail.expect("more").ends_with(below), "{text}");
        }
        assert_eq!(shown("no id\u{1}12 and b\u{1}1"), "no id and b");
    }
}
