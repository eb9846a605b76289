//! From a client's text to statements.

use std::borrow::Cow;

use datafusion::sql::parser::{DFParserBuilder, Statement as EngineStatement};
use sqlparser::ast::{DataType, Expr, Statement as SqlStatement, Value};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, Tokenizer};

use super::copy::{self, CopyOption};
use super::visit::visit_expressions;
use super::{Error, Result, as_of, complexity, literals, precedence, spelling};

/// How deeply expressions and subqueries may nest before the text is refused, so that none can
/// exhaust the stack.
pub(super) const MAX_DEPTH: usize = 200;

/// One statement with its own part of the text.
#[derive(Clone, Debug)]
pub struct Parsed {
    pub statement: EngineStatement,
    pub text: String,
    /// What COPY says of its format.
    pub copy_options: Vec<CopyOption>,
    /// Which rows COPY FROM is to keep.
    pub copy_filter: Option<Expr>,
}

impl Parsed {
    /// The statement in standard SQL, unless it is one of the engine's own kinds.
    pub fn sql(&self) -> Option<&SqlStatement> {
        match &self.statement {
            EngineStatement::Statement(statement) => Some(statement),
            _ => None,
        }
    }
}

/// Parses all statements of a text; as in PostgreSQL an error anywhere refuses all of them. Empty
/// statements are left out.
pub fn parse(text: &str) -> Result<Vec<Parsed>> {
    split(text)?.into_iter().map(parse_one).collect()
}

/// Parses a text that is one statement.
pub fn parse_one(text: &str) -> Result<Parsed> {
    let own = |error| placed(error, text, text);
    complexity::refuse_long_chains(text).map_err(own)?;
    let literals = literals::plain(text)?;
    let plain = literals.as_deref().unwrap_or(text);
    let known = spelling::known(plain).map_err(own)?;
    let known = known.as_deref().unwrap_or(plain);
    let seen = as_of::marked(known).map_err(own)?;
    let mut parsed = parse_seen(&seen).map_err(|error| placed(named(error), &seen, text))?;
    if matches!(seen, Cow::Owned(_)) {
        as_of::restore(&mut parsed.statement);
    }
    if may_have_colons(text) {
        refuse_colons(&parsed.statement, &seen, text)?;
    }
    precedence::settle(&mut parsed.statement, text);
    Ok(Parsed { text: text.to_owned(), ..parsed })
}

/// Whether a colon stands before a name that does not belong to `::`, if not within something else.
fn may_have_colons(text: &str) -> bool {
    let begins_name = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let bytes = text.as_bytes();
    let pairs = bytes.windows(2).enumerate();
    let mut colons = pairs.filter(|(_, pair)| pair[0] == b':' && begins_name(pair[1]));
    colons.any(|(at, _)| at == 0 || bytes[at - 1] != b':')
}

/// `:name` is a parameter to the parser, and nothing to PostgreSQL: clients that have such variables put their
/// values into the text.
fn refuse_colons(statement: &EngineStatement, seen: &str, text: &str) -> Result<()> {
    let EngineStatement::Statement(statement) = statement else { return Ok(()) };
    let mut found = None;
    visit_expressions(statement.as_ref(), |expr| {
        if let Expr::Value(value) = expr
            && matches!(&value.value, Value::Placeholder(name) if name.starts_with(':'))
        {
            found = found.or(Some(value.span.start));
        }
    });
    let Some(place) = found else { return Ok(()) };
    let reason = "syntax error at or near \":\"";
    let (line, column) = (place.line, place.column);
    // Where the parser does not say it, the text does.
    let error = match line {
        0 => Error::Syntax(reason.to_owned()),
        _ => Error::Syntax(format!("{reason}{AT_LINE}{line}{COLUMN}{column}")),
    };
    Err(placed(error, seen, text))
}

/// An error of what the parser does not know, but people may look for.
fn named(error: Error) -> Error {
    match &error {
        Error::Syntax(reason) if reason.contains("Expected: ), found: EXCLUDE") => {
            Error::not_supported("EXCLUDE of rows of a window's frame")
        }
        _ => error,
    }
}

/// The same, of a text as the parser understands it.
fn parse_seen(text: &str) -> Result<Parsed> {
    refuse_explained_explain(text)?;
    let dialect = PostgreSqlDialect {};
    let (mut copy_options, mut copy_filter) = (Vec::new(), None);
    let statement = if first_word_is(text, "copy") {
        let statement;
        (statement, copy_options, copy_filter) = copy::parse(text)?;
        EngineStatement::Statement(Box::new(statement))
    } else if let Some(end) = options_of_explain(text)? {
        return explained(text, end);
    } else {
        let mut parsed = DFParserBuilder::new(text)
            .with_dialect(&dialect)
            .with_recursion_limit(MAX_DEPTH)
            .build()
            .and_then(|mut parser| parser.parse_statements())
            .map_err(syntax)?;
        match (parsed.pop_front(), parsed.is_empty()) {
            (Some(statement), true) => statement,
            _ => return Err(Error::Syntax("syntax error: one statement was expected".into())),
        }
    };
    Ok(Parsed { statement, text: String::new(), copy_options, copy_filter })
}

/// Parses what stands between the brackets of a call: `1, 'a', $1`.
pub fn parse_expressions(text: &str) -> Result<Vec<Expr>> {
    complexity::refuse_long_chains(text)?;
    parse_list(text, |parser| parser.parse_expr())
}

/// Parses a list of types: `int, text[]`.
pub fn parse_types(text: &str) -> Result<Vec<DataType>> {
    parse_list(text, |parser| parser.parse_data_type())
}

fn parse_list<T>(
    text: &str,
    item: impl FnMut(&mut Parser<'_>) -> std::result::Result<T, ParserError>,
) -> Result<Vec<T>> {
    let dialect = PostgreSqlDialect {};
    let parser = Parser::new(&dialect).with_recursion_limit(MAX_DEPTH);
    let list = parser.try_with_sql(text).and_then(|mut parser| {
        let list = parser.parse_comma_separated(item)?;
        parser.expect_token(&Token::EOF).map(|_| list)
    });
    list.map_err(syntax)
}

/// The tokens of a text with their places in it, in bytes. White space and comments are left out.
pub fn tokens(text: &str) -> Result<Vec<(usize, Token)>> {
    let dialect = PostgreSqlDialect {};
    let tokens = Tokenizer::new(&dialect, text).tokenize_with_location();
    let tokens = tokens.map_err(|error| placed(syntax(error), text, text))?;
    let mut positions = Positions::new(text);
    let found = tokens
        .into_iter()
        .filter(|token| !matches!(token.token, Token::Whitespace(_) | Token::EOF));
    Ok(found
        .map(|token| {
            let start = token.span.start;
            (positions.offset(start.line, start.column), token.token)
        })
        .collect())
}

pub(super) fn syntax(error: impl std::fmt::Display) -> Error {
    let text = error.to_string();
    let text = ["SQL error: ", "ParserError(\"", "TokenizerError(\"", "sql parser error: "]
        .iter()
        .fold(text.as_str(), |text, prefix| text.strip_prefix(prefix).unwrap_or(text));
    // The parser's words, and the engine's.
    if ["recursion limit exceeded", "RecursionLimitExceeded"].iter().any(|it| text.starts_with(it))
    {
        return Error::TooDeep(MAX_DEPTH);
    }
    Error::Syntax(format!("syntax error: {}", text.trim_end_matches("\")")))
}

/// The parser's words for a place that it knows, and for the end of a text.
const AT_LINE: &str = " at Line: ";
const COLUMN: &str = ", Column: ";
const AT_END: &str = "found: EOF";

/// An error of the parser's with its place in the client's text, of which the parser has `seen` one that
/// may be spelled differently.
pub fn placed(error: Error, seen: &str, text: &str) -> Error {
    let reason = match error {
        Error::Syntax(reason) => reason,
        Error::SyntaxAt { reason, at } => {
            return Error::SyntaxAt { reason, at: translated(at, seen, text) };
        }
        other => return other,
    };
    let number = |digits: &str| digits.parse::<usize>().ok();
    let place = reason.rsplit_once(AT_LINE).and_then(|(reason, place)| {
        let (line, column) = place.split_once(COLUMN)?;
        let before: usize = seen
            .split_inclusive('\n')
            .take(number(line)?.checked_sub(1)?)
            .map(|line| line.chars().count())
            .sum();
        Some((reason, before + number(column)?.checked_sub(1)?))
    });
    match place {
        Some((reason, at)) => {
            Error::SyntaxAt { reason: reason.to_owned(), at: translated(at, seen, text) }
        }
        None if reason.ends_with(AT_END) => {
            Error::SyntaxAt { reason, at: text.trim_end().chars().count() }
        }
        None => Error::Syntax(reason),
    }
}

/// A place in one spelling of a text as a place in another: what differs is between what they begin and
/// what they end with.
fn translated(at: usize, seen: &str, text: &str) -> usize {
    if seen == text {
        return at;
    }
    let same = seen.chars().zip(text.chars()).take_while(|(a, b)| a == b).count();
    let (length, own_length) = (seen.chars().count(), text.chars().count());
    let ends = seen.chars().rev().zip(text.chars().rev()).take_while(|(a, b)| a == b).count();
    match at {
        _ if at <= same => at,
        _ if at >= length.saturating_sub(ends) => (at + own_length).saturating_sub(length),
        _ => same,
    }
}

/// Where the options of EXPLAIN end that stand in brackets, in bytes; `None` if there are none.
fn options_of_explain(text: &str) -> Result<Option<usize>> {
    if !is_explain_with_options(text) {
        return Ok(None);
    }
    let mut depth = 0;
    for (place, token) in tokens(text)? {
        match token {
            Token::LParen => depth += 1,
            Token::RParen if depth == 1 => return Ok(Some(place + 1)),
            Token::RParen => depth -= 1,
            _ => {}
        }
    }
    let at = text.trim_end().chars().count();
    Err(Error::SyntaxAt { reason: "syntax error at end of input".to_owned(), at })
}

/// EXPLAIN of an EXPLAIN, which would be one level of the parser's stack for each word.
fn refuse_explained_explain(text: &str) -> Result<()> {
    if !first_word_is(text, "explain") {
        return Ok(());
    }
    let mut rest = match options_of_explain(text)? {
        Some(end) => &text[end..],
        None => &skip_blank(text)["explain".len()..],
    };
    let words = ["analyze", "verbose", "format"];
    while let Some(word) = words.iter().find(|word| first_word_is(rest, word)) {
        rest = &skip_blank(rest)[word.len()..];
        if *word == "format" {
            let is_of_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '\'' | '"');
            rest = skip_blank(rest).trim_start_matches(is_of_name);
        }
    }
    if !first_word_is(rest, "explain") {
        return Ok(());
    }
    let at = text[..text.len() - skip_blank(rest).len()].chars().count();
    Err(Error::SyntaxAt { reason: "syntax error at or near \"EXPLAIN\"".to_owned(), at })
}

/// EXPLAIN (ANALYZE, ...) is known to the SQL parser but not to the engine's: the options, which end at a
/// place, are read by themselves, and what is explained as it would be without them.
fn explained(text: &str, end: usize) -> Result<Parsed> {
    let (options, rest) = text.split_at(end);
    let dialect = PostgreSqlDialect {};
    let parser = Parser::new(&dialect).with_recursion_limit(MAX_DEPTH);
    let blank = format!("{options} SELECT 1");
    let statement = parser.try_with_sql(&blank).and_then(|mut parser| parser.parse_statement());
    let mut explain = statement.map_err(|error| placed(syntax(error), &blank, &blank))?;
    explain_options(&mut explain)?;
    let before = options.chars().count();
    if is_blank(rest)? {
        let reason = "syntax error at end of input".to_owned();
        return Err(Error::SyntaxAt { reason, at: before + rest.trim_end().chars().count() });
    }
    let parsed = parse_seen(rest).map_err(|error| match placed(error, rest, rest) {
        Error::SyntaxAt { reason, at } => Error::SyntaxAt { reason, at: before + at },
        other => other,
    })?;
    let SqlStatement::Explain { statement, .. } = &mut explain else {
        return Err(Error::Syntax("syntax error: EXPLAIN has no such options".to_owned()));
    };
    match parsed.statement {
        EngineStatement::Statement(inner) => *statement = inner,
        _ => return Err(Error::not_supported("EXPLAIN of this statement")),
    }
    Ok(Parsed { statement: EngineStatement::Statement(Box::new(explain)), ..parsed })
}

/// EXPLAIN's options in brackets as the words that they stand for.
fn explain_options(statement: &mut SqlStatement) -> Result<()> {
    let SqlStatement::Explain { analyze, verbose, options, .. } = statement else { return Ok(()) };
    for option in options.take().unwrap_or_default() {
        let value = option.arg.map(|arg| arg.to_string().trim_matches('\'').to_lowercase());
        let name = option.name.value.to_lowercase();
        let on = match value.as_deref() {
            None | Some("true" | "on" | "1") => Some(true),
            Some("false" | "off" | "0") => Some(false),
            Some(_) => None,
        };
        let switch = || on.ok_or_else(|| Error::Syntax(format!("{name} requires a Boolean value")));
        match name.as_str() {
            "analyze" => *analyze = switch()?,
            "verbose" => *verbose = switch()?,
            "format" if value.as_deref() == Some("text") => {}
            "format" => return Err(Error::not_supported("EXPLAIN in another FORMAT than TEXT")),
            // What there is of these is shown in any case.
            "buffers" | "costs" | "generic_plan" | "settings" | "summary" | "timing" | "wal" => {
                switch()?;
            }
            name => return Err(Error::Syntax(format!("unrecognized EXPLAIN option \"{name}\""))),
        }
    }
    Ok(())
}

fn is_explain_with_options(text: &str) -> bool {
    first_word_is(text, "explain")
        && skip_blank(skip_blank(text).get("explain".len()..).unwrap_or_default()).starts_with('(')
}

fn first_word_is(text: &str, word: &str) -> bool {
    let text = skip_blank(text);
    text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
        && !text[word.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// The text without the blanks and comments in front.
fn skip_blank(mut text: &str) -> &str {
    loop {
        text = text.trim_start();
        if let Some(comment) = text.strip_prefix("--") {
            text = comment.split_once('\n').map_or("", |(_, rest)| rest);
        } else if text.starts_with("/*") {
            text = skip_comment(text);
        } else {
            return text;
        }
    }
}

/// What follows a comment in `/*` and `*/`, which nest.
fn skip_comment(text: &str) -> &str {
    let mut depth = 0;
    let mut at = 0;
    while let Some(pair) = text.as_bytes().get(at..at + 2) {
        match pair {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return &text[at..];
        }
    }
    ""
}

/// Cuts a text at the semicolons between statements, and leaves out empty ones.
pub fn split(text: &str) -> Result<Vec<&str>> {
    if !text.contains(';') {
        return Ok(if is_blank(text)? { vec![] } else { vec![text] });
    }
    let dialect = PostgreSqlDialect {};
    let tokens = Tokenizer::new(&dialect, text).tokenize_with_location();
    let tokens = tokens.map_err(|error| placed(syntax(error), text, text))?;
    let mut parts = Vec::new();
    let mut start = 0;
    let mut blank = true;
    let mut positions = Positions::new(text);
    for token in &tokens {
        match &token.token {
            Token::SemiColon => {
                let end = positions.offset(token.span.start.line, token.span.start.column);
                if !blank {
                    parts.push(text[start..end].trim());
                }
                (start, blank) = (end + 1, true);
            }
            Token::Whitespace(_) | Token::EOF => {}
            _ => blank = false,
        }
    }
    if !blank {
        parts.push(text[start..].trim());
    }
    Ok(parts)
}

fn is_blank(text: &str) -> Result<bool> {
    // Most texts begin with a word: no need to look further.
    if text.trim_start().starts_with(|c: char| c.is_ascii_alphabetic()) {
        return Ok(false);
    }
    let dialect = PostgreSqlDialect {};
    let tokens = Tokenizer::new(&dialect, text).tokenize();
    let tokens = tokens.map_err(|error| placed(syntax(error), text, text))?;
    Ok(tokens.iter().all(|token| matches!(token, Token::Whitespace(_) | Token::EOF)))
}

/// Turns the tokenizer's lines and columns (in characters, from 1) into byte offsets, in one pass.
struct Positions<'a> {
    rest: std::str::CharIndices<'a>,
    line: u64,
    column: u64,
    length: usize,
}

impl<'a> Positions<'a> {
    fn new(text: &'a str) -> Self {
        Self { rest: text.char_indices(), line: 1, column: 1, length: text.len() }
    }

    /// Positions must be asked for in order.
    fn offset(&mut self, line: u64, column: u64) -> usize {
        loop {
            let at = self.rest.offset();
            if (self.line, self.column) >= (line, column) {
                return at;
            }
            match self.rest.next() {
                Some((_, '\n')) => (self.line, self.column) = (self.line + 1, 1),
                Some(_) => self.column += 1,
                None => return self.length,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        parse(text).expect("valid").into_iter().map(|parsed| parsed.text).collect()
    }

    #[test]
    fn statements_keep_their_own_text() {
        assert_eq!(texts("SELECT 1"), ["SELECT 1"]);
        assert_eq!(texts(" ; ;"), Vec::<String>::new());
        assert_eq!(texts("-- nothing\n"), Vec::<String>::new());
        assert_eq!(
            texts("SELECT 'a;ü';\n /* ; */ SELECT 2 -- ;\n;VALUES (3)"),
            ["SELECT 'a;ü'", "/* ; */ SELECT 2 -- ;", "VALUES (3)"]
        );
        assert_eq!(texts("SELECT ';';"), ["SELECT ';'"]);
    }

    #[test]
    fn what_is_no_sql_is_refused() {
        for text in ["SELEC 1", "SELECT 1; FROM", "SELECT 'a", "SELECT (1"] {
            assert!(matches!(parse(text), Err(Error::SyntaxAt { .. })), "{text}");
        }
        let deep = format!("SELECT {}1{}", "(".repeat(100_000), ")".repeat(100_000));
        for deep in [deep.clone(), format!("EXPLAIN (ANALYZE) {deep}")] {
            assert!(matches!(parse(&deep), Err(Error::TooDeep(MAX_DEPTH))));
        }
    }

    #[test]
    fn errors_have_their_place() {
        for (text, expected) in [
            ("SELECT 1 FRM t x", 13),
            ("SELECT 'ü',\n  2 x yy", 18),
            ("SELECT (1 ", 9),
            ("SELECT 'ü', 'a", 12),
            ("SELECT * FROM t FOR VERSION AS OF 3 x yy", 38),
            ("SELECT * FROM a, b FOR UPDATE OF a, b yy", 38),
            ("EXPLAIN (ANALYZE) SELECT 1 FRM t x", 31),
            ("EXPLAIN (COSTS)\n SELEC 1", 17),
            ("EXPLAIN (ANALYZE, COSTS off) ", 28),
            ("EXPLAIN (ANALYZE", 16),
        ] {
            match parse_one(text) {
                Err(Error::SyntaxAt { at, reason }) => {
                    assert_eq!(at, expected, "{text}: {reason}");
                    assert!(!reason.contains("Line"), "{reason}");
                }
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn explain_comes_in_both_notations() {
        for text in ["EXPLAIN SELECT 1", "EXPLAIN ANALYZE SELECT 1", "explain (analyze) select 1"] {
            parse(text).expect(text);
        }
    }

    #[test]
    fn what_is_explained_is_no_explain() {
        for (text, expected) in [
            ("EXPLAIN (COSTS) explain (costs) SELECT 1", 16),
            ("EXPLAIN /* ü */ EXPLAIN SELECT 1", 16),
            ("EXPLAIN ANALYZE VERBOSE EXPLAIN SELECT 1", 24),
            ("EXPLAIN FORMAT TREE EXPLAIN SELECT 1", 20),
        ] {
            match parse_one(text) {
                Err(Error::SyntaxAt { at, .. }) => assert_eq!(at, expected, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        for words in ["EXPLAIN ", "EXPLAIN (COSTS) ", "EXPLAIN ANALYZE ", "EXPLAIN FORMAT TREE "] {
            let text = words.repeat(10_000) + "SELECT 1";
            assert!(matches!(parse(&text), Err(Error::SyntaxAt { .. })), "{words}");
        }
        parse("EXPLAIN (COSTS) SELECT 1 AS explain").expect("a name");
    }

    #[test]
    fn comments_in_front_hide_nothing() {
        for text in ["-- a\n--b\ncopy", "/* /* ü */ */\n\tCOPY", "copy", "COPY -- x", "Copy("] {
            assert!(first_word_is(text, "copy"), "{text}");
        }
        for text in ["/* copy", "-- copy", "copying", "", "/* */", "/* /* */ copy", "é copy"] {
            assert!(!first_word_is(text, "copy"), "{text}");
        }
        assert!(is_explain_with_options("/* a */ EXPLAIN /* b */ (ANALYZE) SELECT 1"));
    }
}
