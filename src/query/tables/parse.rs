//! The clauses of CREATE TABLE that the SQL parser does not know: PARTITIONED BY with transforms, and
//! SORTED BY.

use std::ops::Range;

use iceberg::spec::Transform;
use sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, FunctionArguments, OrderByKind, Statement, Value,
};
use sqlparser::tokenizer::Token;

use super::CreateTable;
use crate::engine::{parse_expressions, parse_one, tokens};
use crate::query::ddl::ident;
use crate::query::{Error, Result};
use crate::storage::managed::{Partitioning, SortColumn};

/// Reads CREATE TABLE with clauses that the parser does not know; `None` if it has none of them.
pub(in crate::query) fn with_clauses(text: &str) -> Result<Option<CreateTable>> {
    // Most statements are no CREATE, and need not be looked at twice.
    let start = text.trim_start().get(..6).unwrap_or_default();
    if !start.eq_ignore_ascii_case("create") {
        return Ok(None);
    }
    let Ok(tokens) = tokens(text) else { return Ok(None) };
    if !makes_table(&tokens) {
        return Ok(None);
    }
    let partitioned = clause(text, &tokens, "PARTITIONED")?;
    let sorted = clause(text, &tokens, "SORTED")?;
    if partitioned.is_none() && sorted.is_none() {
        return Ok(None);
    }
    let mut plain = text.to_owned();
    let mut cuts: Vec<Range<usize>> =
        [&partitioned, &sorted].into_iter().flatten().map(|clause| clause.all.clone()).collect();
    cuts.sort_by_key(|cut| std::cmp::Reverse(cut.start));
    for cut in cuts {
        plain.replace_range(cut, " ");
    }
    let parsed = parse_one(&plain)?;
    let Some(Statement::CreateTable(create)) = parsed.sql() else { return Ok(None) };
    let mut create = CreateTable::new(create)?;
    if let Some(clause) = partitioned {
        create.partitioning =
            parse_expressions(clause.list)?.iter().map(partitioning).collect::<Result<_>>()?;
    }
    if let Some(clause) = sorted {
        create.sort = sort_columns(clause.list)?;
    }
    Ok(Some(create))
}

/// A clause in the text, and what stands between its brackets.
struct Clause<'a> {
    all: Range<usize>,
    list: &'a str,
}

/// Whether the text begins with CREATE [OR REPLACE] TABLE.
fn makes_table(tokens: &[(usize, Token)]) -> bool {
    let words: Vec<String> = tokens.iter().skip(1).take(3).map(|(_, token)| word(token)).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    matches!(words.as_slice(), ["TABLE", ..] | ["OR", "REPLACE", "TABLE"])
}

fn word(token: &Token) -> String {
    match token {
        Token::Word(word) if word.quote_style.is_none() => word.value.to_uppercase(),
        _ => String::new(),
    }
}

/// `<first> BY ( ... )` outside of all brackets.
fn clause<'a>(text: &'a str, tokens: &[(usize, Token)], first: &str) -> Result<Option<Clause<'a>>> {
    let mut depth = 0u32;
    for (at, (start, token)) in tokens.iter().enumerate() {
        match token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            _ => {}
        }
        let next = |n: usize| tokens.get(at + n).map(|(_, token)| token);
        let by = next(1).is_some_and(|token| word(token) == "BY");
        if depth > 0 || word(token) != first || !by || next(2) != Some(&Token::LParen) {
            continue;
        }
        let open = tokens[at + 2].0;
        let mut inner = 0u32;
        for (end, token) in &tokens[at + 2..] {
            match token {
                Token::LParen => inner += 1,
                Token::RParen => inner -= 1,
                _ => {}
            }
            if inner == 0 {
                return Ok(Some(Clause { all: *start..end + 1, list: &text[open + 1..*end] }));
            }
        }
        return Err(Error::Invalid(format!("syntax error: {first} BY (...) is not closed")));
    }
    Ok(None)
}

/// A column, or a transform of one by the names of Iceberg, Spark and Trino.
fn partitioning(expr: &Expr) -> Result<Partitioning> {
    let bad = || {
        Error::Invalid(format!(
            "{expr} is nothing to partition by; write a column, year(c), month(c), day(c), hour(c), \
             bucket(n, c) or truncate(n, c)"
        ))
    };
    if let Expr::Identifier(column) = expr {
        return Ok(Partitioning { column: ident(column), transform: Transform::Identity });
    }
    let Expr::Function(function) = expr else { return Err(bad()) };
    let FunctionArguments::List(list) = &function.args else { return Err(bad()) };
    let (mut column, mut number) = (None, None);
    for argument in &list.args {
        match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Identifier(name))) => {
                column = Some(ident(name));
            }
            FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value))) => {
                if let Value::Number(text, _) = &value.value {
                    number = text.to_string().parse::<u32>().ok().filter(|number| *number > 0);
                }
            }
            _ => return Err(bad()),
        }
    }
    let name = function.name.to_string().to_lowercase();
    let transform = match (name.as_str(), number, list.args.len()) {
        ("year" | "years", None, 1) => Transform::Year,
        ("month" | "months", None, 1) => Transform::Month,
        ("day" | "days" | "date", None, 1) => Transform::Day,
        ("hour" | "hours", None, 1) => Transform::Hour,
        ("bucket", Some(count), 2) => Transform::Bucket(count),
        ("truncate" | "trunc", Some(width), 2) => Transform::Truncate(width),
        _ => return Err(bad()),
    };
    Ok(Partitioning { column: column.ok_or_else(bad)?, transform })
}

fn sort_columns(list: &str) -> Result<Vec<SortColumn>> {
    let parsed = parse_one(&format!("SELECT 1 ORDER BY {list}"))?;
    let bad = || Error::Invalid(format!("SORTED BY takes columns, not {list}"));
    let Some(Statement::Query(query)) = parsed.sql() else { return Err(bad()) };
    let Some(OrderByKind::Expressions(list)) = query.order_by.as_ref().map(|by| &by.kind) else {
        return Err(bad());
    };
    let column = |by: &sqlparser::ast::OrderByExpr| {
        let Expr::Identifier(column) = &by.expr else { return Err(bad()) };
        let descending = by.options.asc == Some(false);
        // As in ORDER BY: NULL is the greatest value.
        let nulls_first = by.options.nulls_first.unwrap_or(descending);
        Ok(SortColumn { column: ident(column), descending, nulls_first })
    };
    list.iter().map(column).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clauses_are_read_wherever_they_stand() {
        let create = with_clauses(
            "CREATE TABLE t (a int, \"B\" text) PARTITIONED BY (day(ts), bucket(16, a), \"B\") \
             SORTED BY (a DESC, b) WITH (x = 'y')",
        );
        let create = create.expect("valid").expect("has clauses");
        let transforms: Vec<_> =
            create.partitioning.iter().map(|p| (p.column.as_str(), p.transform)).collect();
        assert_eq!(
            transforms,
            [("ts", Transform::Day), ("a", Transform::Bucket(16)), ("B", Transform::Identity)]
        );
        assert_eq!(create.sort.len(), 2);
        assert!(create.sort[0].descending && create.sort[0].nulls_first);
        assert!(!create.sort[1].descending && !create.sort[1].nulls_first);
    }

    #[test]
    fn other_statements_are_left_alone() {
        for text in [
            "CREATE TABLE t (partitioned int)",
            "SELECT 1",
            "CREATE VIEW v AS SELECT 1",
            "CREATE EXTERNAL TABLE t STORED AS PARQUET PARTITIONED BY (a) LOCATION '/x'",
        ] {
            assert!(with_clauses(text).expect(text).is_none(), "{text}");
        }
        for text in [
            "CREATE TABLE t (a int) PARTITIONED BY (lower(a))",
            "CREATE TABLE t (a int) PARTITIONED BY (bucket(a))",
            "CREATE TABLE t (a int) PARTITIONED BY (a",
        ] {
            assert!(with_clauses(text).is_err(), "{text}");
        }
    }
}
