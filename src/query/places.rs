//! Where in its text a statement has what an error is about.
//!
//! The engine rarely tells, and of a statement that was spelled anew not the place in the client's text. But an
//! error has a name, and where the client's text has that name once in such a place, it is meant. Where it
//! stands there twice no place is told: none is better than a wrong one.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, Word};

use super::Error;
use super::prepared::Source;
use crate::engine::{Subject, tokens};

/// Beginnings of statements of which PostgreSQL tells the place of names.
const TOLD: &[Keyword] = &[
    Keyword::SELECT,
    Keyword::WITH,
    Keyword::VALUES,
    Keyword::INSERT,
    Keyword::UPDATE,
    Keyword::DELETE,
    Keyword::MERGE,
    Keyword::EXPLAIN,
    Keyword::DECLARE,
];

/// An error with its place in the client's message, if that can be told.
pub(super) fn placed(error: Error, source: &Source) -> Error {
    match place(&error, source.text()).and_then(|at| source.in_message(at)) {
        Some(at) => Error::At { at, source: Box::new(error) },
        None => error,
    }
}

/// Characters in front of what an error is about.
fn place(error: &Error, text: &str) -> Option<usize> {
    let subject = match error {
        Error::Engine(error) => error.subject()?,
        Error::Catalog(error) => Subject::of_catalog(error)?,
        _ => return None,
    };
    let tokens = Tokens(tokens(text).ok()?);
    if !TOLD.contains(&tokens.keyword(0)) {
        return None;
    }
    let mut found = (0..tokens.0.len()).filter(|at| tokens.is(*at, &subject));
    let (at, None) = (found.next()?, found.next()) else { return None };
    let (place, _) = tokens.0.get(at)?;
    Some(text[..*place].chars().count())
}

struct Tokens(Vec<(usize, Token)>);

impl Tokens {
    fn token(&self, at: usize) -> Option<&Token> {
        self.0.get(at).map(|(_, token)| token)
    }

    fn word(&self, at: usize) -> Option<&Word> {
        match self.token(at) {
            Some(Token::Word(word)) => Some(word),
            _ => None,
        }
    }

    fn keyword(&self, at: usize) -> Keyword {
        match self.word(at) {
            Some(word) if word.quote_style.is_none() => word.keyword,
            _ => Keyword::NoKeyword,
        }
    }

    /// The names that a word begins which points join, and how many tokens they are; none where it does not
    /// begin them.
    fn names(&self, at: usize) -> Option<(Vec<String>, usize)> {
        if at > 0 && self.token(at - 1) == Some(&Token::Period) {
            return None;
        }
        let folded = |at: usize| {
            let word = self.word(at)?;
            Some(match word.quote_style {
                Some(_) => word.value.clone(),
                None => word.value.to_lowercase(),
            })
        };
        let (mut names, mut length) = (vec![folded(at)?], 1);
        while self.token(at + length) == Some(&Token::Period)
            && let Some(name) = folded(at + length + 1)
        {
            names.push(name);
            length += 2;
        }
        Some((names, length))
    }

    /// Whether a token may be what an error is about.
    fn is(&self, at: usize, subject: &Subject) -> bool {
        if let Subject::Literal(value) = subject {
            let Some(Token::SingleQuotedString(text)) = self.token(at) else { return false };
            return text == value;
        }
        if let Subject::Operator(symbol) = subject {
            return self.token(at).is_some_and(|token| token.to_string() == *symbol);
        }
        let Some((names, length)) = self.names(at) else { return false };
        let is_called = self.token(at + length) == Some(&Token::LParen);
        let before = at.checked_sub(1);
        match subject {
            Subject::Function(name) => {
                is_called && (names.join(".") == *name || names.last() == Some(name))
            }
            Subject::Relation(name) => {
                let behind = before.map_or(Keyword::NoKeyword, |at| self.keyword(at));
                let comma = before.is_some_and(|at| self.token(at) == Some(&Token::Comma));
                let stands = comma
                    || matches!(
                        behind,
                        Keyword::FROM
                            | Keyword::JOIN
                            | Keyword::INTO
                            | Keyword::UPDATE
                            | Keyword::TABLE
                            | Keyword::ONLY
                            | Keyword::USING
                    );
                let inserts = matches!(behind, Keyword::INTO | Keyword::TABLE);
                stands && (!is_called || inserts) && names.join(".") == *name
            }
            Subject::Column { table, name } => {
                let alias = before.is_some_and(|at| self.keyword(at) == Keyword::AS);
                let column = match (names.as_slice(), table) {
                    ([column], None) => column,
                    ([.., of, column], Some(table)) if of == table => column,
                    _ => return false,
                };
                !is_called && !alias && column == name && !self.is_in_using(at)
            }
            // In the list before FROM, or in HAVING: not where it is grouped by.
            Subject::Ungrouped { table, name } => {
                let of = names.len().checked_sub(2).map(|at| &names[at]);
                let same = of.is_none_or(|of| table.as_ref().is_none_or(|table| of == table));
                let alias = before.is_some_and(|at| self.keyword(at) == Keyword::AS);
                same && !is_called && !alias && names.last() == Some(name)
            }
            // Behind `::`, in a cast, or before a literal.
            Subject::Type(name) => !is_called && names.join(".") == *name,
            Subject::Literal(_) | Subject::Operator(_) => false,
        }
    }

    /// Whether a word stands in brackets behind USING, of which PostgreSQL tells no place.
    fn is_in_using(&self, at: usize) -> bool {
        let behind = |at: &usize| !matches!(self.token(*at), Some(Token::Word(_) | Token::Comma));
        let Some(bracket) = (0..at).rev().find(behind) else { return false };
        self.token(bracket) == Some(&Token::LParen)
            && bracket.checked_sub(1).is_some_and(|at| self.keyword(at) == Keyword::USING)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, subject: &Subject) -> Vec<usize> {
        let tokens = Tokens(tokens(text).expect(text));
        let found = (0..tokens.0.len()).filter(|at| tokens.is(*at, subject));
        found.map(|at| tokens.0[at].0).collect()
    }

    #[test]
    fn a_name_is_found_where_such_names_stand() {
        let column = |table: Option<&str>, name: &str| Subject::Column {
            table: table.map(str::to_owned),
            name: name.to_owned(),
        };
        let ungrouped = Subject::Ungrouped { table: Some("t".into()), name: "b".into() };
        for (text, subject, places) in [
            ("SELECT a, no FROM t", column(None, "no"), &[10][..]),
            ("SELECT a AS no FROM t WHERE NO = 1", column(None, "no"), &[28]),
            ("SELECT no(1), t.no, \"NO\" FROM t", column(None, "no"), &[]),
            ("SELECT no FROM t ORDER BY no", column(None, "no"), &[7, 26]),
            ("SELECT x.t.no, u.no FROM t", column(Some("t"), "no"), &[7]),
            ("SELECT 1 FROM t JOIN u USING (a, no)", column(None, "no"), &[]),
            ("INSERT INTO t (a, no) VALUES (1, 2)", column(None, "no"), &[18]),
            ("SELECT no.a FROM no AS x, b", Subject::Relation("no".into()), &[17]),
            ("SELECT 1 FROM b, s.no", Subject::Relation("s.no".into()), &[17]),
            ("INSERT INTO no(a) VALUES (1)", Subject::Relation("no".into()), &[12]),
            ("SELECT no FROM no(1)", Subject::Relation("no".into()), &[]),
            ("SELECT pg_catalog.no(1), no FROM t", Subject::Function("no".into()), &[7]),
            ("SELECT 'x', \"x\", 'xx'", Subject::Literal("x".into()), &[7]),
            ("SELECT a, u.b, t.b, x AS b FROM t", ungrouped.clone(), &[15]),
            ("SELECT upper(b) FROM t GROUP BY a", ungrouped, &[13]),
            ("SELECT 1::no, x no2", Subject::Type("no".into()), &[10]),
            ("SELECT a <> 1, a < 2", Subject::Operator("<>".into()), &[9]),
        ] {
            assert_eq!(found(text, &subject), places, "{text}");
        }
    }
}
