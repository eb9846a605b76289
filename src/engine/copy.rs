//! COPY as PostgreSQL's grammar has it: both notations of options, of which the SQL parser knows
//! neither in full. What the options mean is for others to say.

use sqlparser::ast::{CopySource, CopyTarget, Expr, Statement as SqlStatement};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::keywords::Keyword;
use sqlparser::parser::{IsOptional, Parser, ParserError};
use sqlparser::tokenizer::{Token, Word};

use super::Result;
use super::parse::{MAX_DEPTH, syntax};

/// An option of COPY, under its name in today's notation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyOption {
    pub name: String,
    pub value: Option<CopyValue>,
}

/// What may stand behind an option's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyValue {
    /// A string, or a word in lower case.
    Text(String),
    Number(String),
    Star,
    List(Vec<String>),
}

type Parsing<T> = Result<T, ParserError>;

/// A statement with what the parser's own kind has no place for.
type Copy = (SqlStatement, Vec<CopyOption>, Option<Expr>);

/// Parses a COPY statement. Its options stand apart, since those of the parser's own kind hold too
/// little, and so does WHERE.
pub(super) fn parse(text: &str) -> Result<Copy> {
    let dialect = PostgreSqlDialect {};
    let parser = Parser::new(&dialect).with_recursion_limit(MAX_DEPTH);
    parser.try_with_sql(text).and_then(|mut parser| statement(&mut parser)).map_err(syntax)
}

fn statement(parser: &mut Parser<'_>) -> Parsing<Copy> {
    parser.expect_keyword(Keyword::COPY)?;
    let mut options = Vec::new();
    let source = source(parser, &mut options)?;
    let is_table = matches!(source, CopySource::Table { .. });
    let to = parser.parse_keyword(Keyword::TO);
    let from = !to && is_table && parser.parse_keyword(Keyword::FROM);
    if !to && !from {
        return parser.expected_ref("TO", parser.peek_token_ref());
    }
    let target = target(parser)?;
    if is_table {
        delimiters(parser, &mut options)?;
    }
    let _ = parser.parse_keyword(Keyword::WITH);
    match parser.consume_token(&Token::LParen) {
        true => {
            options.extend(parser.parse_comma_separated(option)?);
            parser.expect_token(&Token::RParen)?;
        }
        false => {
            while let Some(option) = old_option(parser)? {
                options.push(option);
            }
        }
    }
    if to && is_table && parser.parse_keyword(Keyword::WHERE) {
        let text = "WHERE clause not allowed with COPY TO; use COPY (SELECT ... WHERE ...) TO";
        return Err(ParserError::ParserError(text.to_owned()));
    }
    let filter = match !to && parser.parse_keyword(Keyword::WHERE) {
        true => Some(parser.parse_expr()?),
        false => None,
    };
    parser.expect_token(&Token::EOF)?;
    let (legacy_options, values) = (Vec::new(), Vec::new());
    let copy =
        SqlStatement::Copy { source, to, target, options: Vec::new(), legacy_options, values };
    Ok((copy, options, filter))
}

fn source(parser: &mut Parser<'_>, options: &mut Vec<CopyOption>) -> Parsing<CopySource> {
    if parser.consume_token(&Token::LParen) {
        let query = parser.parse_query()?;
        parser.expect_token(&Token::RParen)?;
        return Ok(CopySource::Query(query));
    }
    // The oldest notation of all.
    if parser.parse_keyword(Keyword::BINARY) {
        options.push(with_text("format", "binary"));
    }
    let table_name = parser.parse_object_name(false)?;
    let columns = parser.parse_parenthesized_column_list(IsOptional::Optional, false)?;
    Ok(CopySource::Table { table_name, columns })
}

/// STDIN and STDOUT are the same to PostgreSQL: the direction is said already.
fn target(parser: &mut Parser<'_>) -> Parsing<CopyTarget> {
    let program = parser.parse_keyword(Keyword::PROGRAM);
    match parser.parse_one_of_keywords(&[Keyword::STDIN, Keyword::STDOUT]) {
        Some(_) if program => {
            let text = "STDIN/STDOUT not allowed with PROGRAM".to_owned();
            Err(ParserError::ParserError(text))
        }
        Some(Keyword::STDIN) => Ok(CopyTarget::Stdin),
        Some(_) => Ok(CopyTarget::Stdout),
        None if program => Ok(CopyTarget::Program { command: string(parser)? }),
        None => Ok(CopyTarget::File { filename: string(parser)? }),
    }
}

/// `[USING] DELIMITERS 'x'`, from before 7.3.
fn delimiters(parser: &mut Parser<'_>, options: &mut Vec<CopyOption>) -> Parsing<()> {
    let using = parser.parse_keyword(Keyword::USING);
    if next_of(parser, &["delimiters"]).is_some() {
        options.push(with_text("delimiter", string(parser)?));
    } else if using {
        return parser.expected_ref("DELIMITERS", parser.peek_token_ref());
    }
    Ok(())
}

/// `name [value]`, as between brackets.
fn option(parser: &mut Parser<'_>) -> Parsing<CopyOption> {
    let token = parser.next_token();
    let Token::Word(word) = &token.token else { return parser.expected("an option", token) };
    let name = folded(word);
    let value = match &parser.peek_token_ref().token {
        Token::Mul => {
            parser.advance_token();
            Some(CopyValue::Star)
        }
        Token::LParen => {
            parser.advance_token();
            let list = parser.parse_comma_separated(word_or_string)?;
            parser.expect_token(&Token::RParen)?;
            Some(CopyValue::List(list))
        }
        Token::Plus | Token::Minus | Token::Number(..) => Some(number(parser)?),
        Token::Comma | Token::RParen => None,
        _ => Some(CopyValue::Text(word_or_string(parser)?)),
    };
    Ok(CopyOption { name, value })
}

fn number(parser: &mut Parser<'_>) -> Parsing<CopyValue> {
    let minus = parser.consume_token(&Token::Minus);
    if !minus {
        let _ = parser.consume_token(&Token::Plus);
    }
    let token = parser.next_token();
    match &token.token {
        Token::Number(digits, _) if minus => Ok(CopyValue::Number(format!("-{digits}"))),
        Token::Number(digits, _) => Ok(CopyValue::Number(digits.clone())),
        _ => parser.expected("a number", token),
    }
}

/// An option of the notation without brackets, if there is one more.
fn old_option(parser: &mut Parser<'_>) -> Parsing<Option<CopyOption>> {
    const WORDS: &[&str] = &[
        "binary",
        "csv",
        "delimiter",
        "encoding",
        "escape",
        "force",
        "freeze",
        "header",
        "null",
        "quote",
    ];
    Ok(Some(match next_of(parser, WORDS) {
        None => return Ok(None),
        Some(format @ ("binary" | "csv")) => with_text("format", format),
        Some(flag @ ("freeze" | "header")) => CopyOption { name: flag.to_owned(), value: None },
        Some("force") => force(parser)?,
        Some("encoding") => with_text("encoding", string(parser)?),
        Some(name) => {
            let _ = parser.parse_keyword(Keyword::AS);
            with_text(name, string(parser)?)
        }
    }))
}

/// What follows FORCE.
fn force(parser: &mut Parser<'_>) -> Parsing<CopyOption> {
    let name = match next_of(parser, &["quote", "not", "null"]) {
        Some("quote") => "force_quote",
        Some("null") => "force_null",
        Some(_) => {
            parser.expect_keyword(Keyword::NULL)?;
            "force_not_null"
        }
        None => return parser.expected_ref("QUOTE, NULL or NOT NULL", parser.peek_token_ref()),
    };
    let value = match name == "force_quote" && parser.consume_token(&Token::Mul) {
        true => CopyValue::Star,
        false => CopyValue::List(parser.parse_comma_separated(column)?),
    };
    Ok(CopyOption { name: name.to_owned(), value: Some(value) })
}

fn with_text(name: &str, value: impl Into<String>) -> CopyOption {
    CopyOption { name: name.to_owned(), value: Some(CopyValue::Text(value.into())) }
}

/// Takes one of these words, unless it is quoted.
fn next_of(parser: &mut Parser<'_>, words: &[&'static str]) -> Option<&'static str> {
    let Token::Word(word) = &parser.peek_token_ref().token else { return None };
    let found = words.iter().find(|known| word.value.eq_ignore_ascii_case(known));
    let found = found.filter(|_| word.quote_style.is_none()).copied();
    if found.is_some() {
        parser.advance_token();
    }
    found
}

fn folded(word: &Word) -> String {
    match word.quote_style {
        Some(_) => word.value.clone(),
        None => word.value.to_lowercase(),
    }
}

fn column(parser: &mut Parser<'_>) -> Parsing<String> {
    let token = parser.next_token();
    match &token.token {
        Token::Word(word) => Ok(folded(word)),
        _ => parser.expected("a column", token),
    }
}

fn word_or_string(parser: &mut Parser<'_>) -> Parsing<String> {
    match parser.peek_token_ref().token {
        Token::Word(_) => column(parser),
        _ => string(parser),
    }
}

fn string(parser: &mut Parser<'_>) -> Parsing<String> {
    let token = parser.next_token();
    match token.token {
        Token::SingleQuotedString(text)
        | Token::EscapedStringLiteral(text)
        | Token::UnicodeStringLiteral(text) => Ok(text),
        Token::DollarQuotedString(text) => Ok(text.value),
        _ => parser.expected("a string", token),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Vec<(String, Option<CopyValue>)> {
        let (_, options, _) = parse(text).expect(text);
        options.into_iter().map(|option| (option.name, option.value)).collect()
    }

    fn text(name: &str, value: &str) -> (String, Option<CopyValue>) {
        (name.to_owned(), Some(CopyValue::Text(value.to_owned())))
    }

    #[test]
    fn both_notations_say_the_same() {
        let expected = vec![
            text("format", "csv"),
            ("header".to_owned(), None),
            text("delimiter", ";"),
            text("null", ""),
            ("force_quote".to_owned(), Some(CopyValue::List(vec!["a".into(), "B".into()]))),
        ];
        for copy in [
            "COPY t TO STDOUT (FORMAT csv, HEADER, DELIMITER ';', NULL '', FORCE_QUOTE (A, \"B\"))",
            "COPY t TO STDOUT WITH CSV HEADER DELIMITER AS ';' NULL '' FORCE QUOTE a, \"B\"",
            "copy (select 1 as t) to stdout csv header delimiter ';' null as '' force quote a,\"B\"",
        ] {
            assert_eq!(options(copy), expected, "{copy}");
        }
        assert_eq!(options("COPY BINARY t TO STDOUT"), [text("format", "binary")]);
        assert_eq!(options("COPY t TO STDOUT USING DELIMITERS '|'"), [text("delimiter", "|")]);
        assert_eq!(options(r"COPY t TO STDOUT DELIMITER E'\t'"), [text("delimiter", "\t")]);
        let star = ("force_quote".to_owned(), Some(CopyValue::Star));
        assert_eq!(
            options("COPY t TO STDOUT CSV FORCE QUOTE *"),
            [text("format", "csv"), star.clone()]
        );
        assert_eq!(options("COPY t TO STDOUT (FORCE_QUOTE *)"), [star]);
        let one = Some(CopyValue::Number("-1".to_owned()));
        assert_eq!(options("COPY t TO STDOUT (header -1)"), [("header".to_owned(), one)]);
    }

    #[test]
    fn what_is_no_copy_is_refused() {
        for copy in [
            "COPY",
            "COPY t",
            "COPY t TO",
            "COPY t TO STDOUT ()",
            "COPY t TO STDOUT (FORMAT csv",
            "COPY t TO STDOUT (FORMAT csv) CSV",
            "COPY t TO STDOUT PARQUET",
            "COPY t TO STDOUT FORCE QUOTE",
            "COPY t TO STDOUT DELIMITER",
            "COPY t TO STDOUT WHERE a = 1",
            "COPY t TO PROGRAM STDOUT",
            "COPY t () TO STDOUT",
            "COPY (SELECT 1) FROM STDIN",
            "COPY (SHOW x) TO STDOUT",
        ] {
            assert!(matches!(parse(copy), Err(super::super::Error::Syntax(_))), "{copy}");
        }
    }
}
