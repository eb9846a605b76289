//! `FOR SYSTEM_VERSION AS OF` and `FOR SYSTEM_TIME AS OF` behind a table's name, in the text and in
//! parsed statements. What they mean is for [`super::history`].
//!
//! The grammar is that of SQL:2011 and Trino: also `FOR VERSION AS OF` and `FOR TIMESTAMP AS OF`.
//! The SQL parser's dialect knows none of them, so that it is shown a call in their place.

use std::borrow::Cow;
use std::ops::ControlFlow;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::sql::parser::Statement as EngineStatement;
use sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, Ident, ObjectNamePart, Query, Statement, TableAlias,
    TableFactor, TableFunctionArgs, TableVersion, Value, VisitorMut,
};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::Result;
use super::parse::{MAX_DEPTH, syntax, tokens};
use super::visit::{visit_expressions, visit_mut};

/// What the parser takes for a function's first argument: nothing that a client would write.
const VERSION: &str = "\u{2}version";
const TIME: &str = "\u{2}time";

/// How the clauses are written back.
const FOR_VERSION: &str = "FOR SYSTEM_VERSION AS OF";
const FOR_TIME: &str = "FOR SYSTEM_TIME AS OF";

/// What stands between a table's name and the number of its clause.
const NUMBER_MARK: &str = "\u{2}as of ";

/// The moment of a table that is asked for.
#[derive(Clone, Debug)]
pub(super) enum AsOf {
    Version(Expr),
    Time(Expr),
}

/// A statement's text as the parser reads it: with calls in place of the clauses, if it has any.
pub(super) fn marked(text: &str) -> Result<Cow<'_, str>> {
    if !mentions_of(text) {
        return Ok(Cow::Borrowed(text));
    }
    // What is wrong with the text the parser says better.
    let Ok(tokens) = tokens(text) else { return Ok(Cow::Borrowed(text)) };
    let (mut marked, mut copied, mut at) = (String::new(), 0, 0);
    while at < tokens.len() {
        let Some(mark) = clause(&tokens[at..]) else {
            at += 1;
            continue;
        };
        let rest = &tokens[at + 4..];
        let length = expression_length(rest)?;
        let place = |at: usize| rest.get(at).map_or(text.len(), |(place, _)| *place);
        let (start, end) = (place(0), place(length));
        let behind_name = tokens[alias(&tokens[..at])].0;
        marked.push_str(&text[copied..behind_name]);
        // A comment at the expression's end must not hide the bracket.
        marked.push_str(&format!("(\"{mark}\", {}\n) ", &text[start..end]));
        marked.push_str(&text[behind_name..tokens[at].0]);
        copied = end;
        at += 4 + length;
    }
    if copied == 0 {
        return Ok(Cow::Borrowed(text));
    }
    marked.push_str(&text[copied..]);
    Ok(Cow::Owned(marked))
}

/// Where an alias begins that stands before a clause, where the parser's own statements have it when
/// they are written back; the clause's own place if there is none.
fn alias(before: &[(usize, Token)]) -> usize {
    let mut end = before.len();
    if matches!(before.last(), Some((_, Token::RParen))) {
        let mut depth = 0;
        for (at, (_, token)) in before.iter().enumerate().rev() {
            match token {
                Token::RParen => depth += 1,
                Token::LParen => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                end = at;
                break;
            }
        }
    }
    match before[..end] {
        [.., (_, Token::Word(ref word)), (_, Token::Word(_))]
            if word.quote_style.is_none() && word.value.eq_ignore_ascii_case("as") =>
        {
            end - 2
        }
        _ => before.len(),
    }
}

/// Whether the word `of` is in a text: few are, and need not be looked at more closely.
fn mentions_of(text: &str) -> bool {
    let bytes = text.as_bytes();
    let part_of_word = |byte: Option<&u8>| {
        byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_' || !byte.is_ascii())
    };
    bytes.windows(2).enumerate().any(|(at, pair)| {
        pair.eq_ignore_ascii_case(b"of")
            && !part_of_word(at.checked_sub(1).and_then(|before| bytes.get(before)))
            && !part_of_word(bytes.get(at + 2))
    })
}

/// The mark for a clause that begins here.
fn clause(tokens: &[(usize, Token)]) -> Option<&'static str> {
    let word = |at: usize| match tokens.get(at) {
        Some((_, Token::Word(word))) if word.quote_style.is_none() => word.value.as_str(),
        _ => "",
    };
    let is = |at: usize, wanted: &str| word(at).eq_ignore_ascii_case(wanted);
    if !is(0, "for") || !is(2, "as") || !is(3, "of") {
        return None;
    }
    let version = is(1, "system_version") || is(1, "version");
    let time = is(1, "system_time") || is(1, "timestamp");
    version.then_some(VERSION).or(time.then_some(TIME))
}

/// How many of the tokens are the expression that they begin with.
fn expression_length(tokens: &[(usize, Token)]) -> Result<usize> {
    let dialect = PostgreSqlDialect {};
    let parser = Parser::new(&dialect).with_recursion_limit(MAX_DEPTH);
    let mut parser = parser.with_tokens(tokens.iter().map(|(_, token)| token.clone()).collect());
    parser.parse_expr().map_err(syntax)?;
    Ok(parser.get_current_index() + 1)
}

/// The SQL in a statement of the engine's kind.
pub(super) fn sql(statement: &mut EngineStatement) -> Option<&mut Statement> {
    match statement {
        EngineStatement::Statement(statement) => Some(statement),
        EngineStatement::Explain(explain) => sql(&mut explain.statement),
        _ => None,
    }
}

/// Puts the clauses back where [`marked`] has put calls.
pub(super) fn restore(statement: &mut EngineStatement) {
    struct Restore;
    impl VisitorMut for Restore {
        type Break = ();
        fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
            if let TableFactor::Table { args, version, alias, .. } = factor
                && let Some(clause) = args.as_ref().and_then(clause_of)
            {
                (*args, *version) = (None, Some(clause));
                // Written back, it is known by its AS.
                alias.iter_mut().for_each(|alias| alias.explicit = true);
            }
            ControlFlow::Continue(())
        }
    }
    if let Some(statement) = sql(statement) {
        let _ = visit_mut(statement, &mut Restore);
    }
}

fn clause_of(call: &TableFunctionArgs) -> Option<TableVersion> {
    let [
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Identifier(mark))),
        FunctionArg::Unnamed(FunctionArgExpr::Expr(moment)),
    ] = call.args.as_slice()
    else {
        return None;
    };
    let prefix = match mark.value.as_str() {
        TIME => FOR_TIME,
        VERSION => FOR_VERSION,
        _ => return None,
    };
    // The parser's own kind of a version would be written back without FOR.
    let (prefix, value) = (Ident::new(prefix), Box::new(moment.clone()));
    Some(TableVersion::Function(Expr::Prefixed { prefix, value }))
}

/// The clause as parsed.
fn moment(version: &TableVersion) -> Option<AsOf> {
    let TableVersion::Function(Expr::Prefixed { prefix, value }) = version else { return None };
    match prefix.value.as_str() {
        FOR_VERSION => Some(AsOf::Version(value.as_ref().clone())),
        FOR_TIME => Some(AsOf::Time(value.as_ref().clone())),
        _ => None,
    }
}

/// Takes the clauses out of a statement: each of their tables gets a name of its own, which
/// [`numbered`] reads back, and its old one as alias.
pub(super) fn take(statement: &mut EngineStatement) -> Result<Vec<AsOf>> {
    #[derive(Default)]
    struct Take {
        found: Vec<AsOf>,
        queries: Vec<String>,
        refused: Option<String>,
    }
    impl VisitorMut for Take {
        type Break = ();
        fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
            let names = query.with.iter().flat_map(|with| &with.cte_tables);
            self.queries.extend(names.map(|query| folded(&query.alias.name)));
            ControlFlow::Continue(())
        }
        fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
            let TableFactor::Table { name, alias, version, .. } = factor else {
                return ControlFlow::Continue(());
            };
            let Some(as_of) = version.take().as_ref().and_then(moment) else {
                return ControlFlow::Continue(());
            };
            let single = name.0.len() == 1;
            let Some(ObjectNamePart::Identifier(last)) = name.0.last_mut() else {
                return ControlFlow::Continue(());
            };
            let table = folded(last);
            if single && self.queries.contains(&table) {
                self.refused = Some(table);
                return ControlFlow::Break(());
            }
            let numbered = format!("{table}{NUMBER_MARK}{}", self.found.len());
            *last = Ident::with_quote('"', numbered);
            alias.get_or_insert_with(|| TableAlias {
                explicit: true,
                name: Ident::with_quote('"', table),
                columns: Vec::new(),
                at: None,
            });
            self.found.push(as_of);
            ControlFlow::Continue(())
        }
    }
    let mut take = Take::default();
    if let Some(statement) = sql(statement) {
        let _ = visit_mut(statement, &mut take);
    }
    match take.refused {
        None => Ok(take.found),
        Some(table) => Err(crate::storage::Error::NoHistory { table }.into()),
    }
}

/// A name that [`take`] has given: the table's own, and which clause it goes with.
pub(super) fn numbered(name: &str) -> Option<(&str, usize)> {
    let (table, number) = name.split_once(NUMBER_MARK)?;
    Some((table, number.parse().ok()?))
}

fn folded(name: &Ident) -> String {
    match name.quote_style {
        Some(_) => name.value.clone(),
        None => name.value.to_lowercase(),
    }
}

/// What stands alone in a clause, with the type that a parameter has there.
pub(super) fn moment_in(expr: &Expr) -> Option<(&Expr, DataType)> {
    let Expr::Prefixed { prefix, value } = expr else { return None };
    match prefix.value.as_str() {
        FOR_VERSION => Some((value, DataType::Int64)),
        FOR_TIME => {
            Some((value, DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()))))
        }
        _ => None,
    }
}

impl AsOf {
    pub fn expr(&self) -> &Expr {
        match self {
            Self::Version(expr) | Self::Time(expr) => expr,
        }
    }

    /// What PostgreSQL's words for a moment mean, as an expression.
    pub fn spoken(&self) -> Option<&'static str> {
        let Self::Time(Expr::Value(value)) = self else { return None };
        let Value::SingleQuotedString(text) = &value.value else { return None };
        Some(match text.trim().to_ascii_lowercase().as_str() {
            "now" => "now()",
            "today" => "CURRENT_DATE",
            "yesterday" => "CURRENT_DATE - INTERVAL '1 day'",
            "tomorrow" => "CURRENT_DATE + INTERVAL '1 day'",
            _ => return None,
        })
    }

    /// Whether it depends on parameters.
    pub fn has_parameters(&self) -> bool {
        let mut found = false;
        visit_expressions(self.expr(), |expr| {
            if let Expr::Value(value) = expr {
                found |= matches!(value.value, Value::Placeholder(_));
            }
        });
        found
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse::parse_one;
    use super::*;

    /// A statement as it is written back.
    fn back(text: &str) -> String {
        parse_one(text).expect(text).sql().expect("standard SQL").to_string()
    }

    #[test]
    fn clauses_read_back_as_written() {
        for (text, expected) in [
            ("SELECT * FROM t FOR VERSION AS OF 5", "SELECT * FROM t FOR SYSTEM_VERSION AS OF 5"),
            (
                "SELECT * FROM t FOR VERSION AS OF 'a' AS x (a, b) JOIN u FOR VERSION AS OF 1 ON b",
                "SELECT * FROM t AS x (a, b) FOR SYSTEM_VERSION AS OF 'a' \
                 JOIN u FOR SYSTEM_VERSION AS OF 1 ON b",
            ),
            (
                "SELECT * FROM s.t for timestamp as of now() - interval '1 day' x WHERE a = 1",
                "SELECT * FROM s.t AS x FOR SYSTEM_TIME AS OF now() - INTERVAL '1 day' WHERE a = 1",
            ),
            (
                "SELECT * FROM t FOR SYSTEM_TIME AS OF '2026-01-01' -- then\n, u AS \"of\"",
                "SELECT * FROM t FOR SYSTEM_TIME AS OF '2026-01-01', u AS \"of\"",
            ),
        ] {
            assert_eq!(back(text), expected);
            assert_eq!(back(expected), expected);
        }
    }

    #[test]
    fn other_words_are_left_alone() {
        for text in ["SELECT version AS of FROM t", "SELECT * FROM t FOR UPDATE OF t", "SELECT 1"] {
            assert_eq!(marked(text).expect(text), text);
        }
        assert!(marked("SELECT * FROM t FOR VERSION AS OF").is_err());
    }

    #[test]
    fn tables_keep_their_names_as_aliases() {
        let mut parsed =
            parse_one("SELECT * FROM a.T FOR VERSION AS OF 1 JOIN u ON true").expect("");
        let taken = take(&mut parsed.statement).expect("valid");
        assert_eq!(taken.len(), 1);
        assert_eq!(numbered("t\u{2}as of 0"), Some(("t", 0)));
        let text = parsed.sql().expect("SQL").to_string();
        assert!(text.contains("a.\"t\u{2}as of 0\" AS \"t\""), "{text}");
    }
}
