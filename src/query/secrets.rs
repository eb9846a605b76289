//! Statements' texts are kept for others to look at: in `pg_stat_activity`, in `system.queries`, in
//! the log. The passwords of roles are not for them.

use std::sync::Arc;

use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, Tokenizer, Whitespace};

/// What stands for a password.
const HIDDEN: &str = "'***'";

/// A statement's text with the passwords of roles blanked out, and those in URLs.
pub fn without_passwords(text: &str) -> Arc<str> {
    let text = without_roles_passwords(text);
    match text.contains(SCHEME) && text.contains('@') {
        true => without_urls_keys(&text).into(),
        false => text,
    }
}

/// Who a URL says that asks, with a password, stands between this and an `@`.
const SCHEME: &str = "://";

fn without_urls_keys(text: &str) -> String {
    let mut parts = text.split(SCHEME);
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        shown.push_str(SCHEME);
        let end = part.find(|c: char| matches!(c, '/' | '\'' | '"' | '$') || c.is_whitespace());
        let authority = part.get(..end.unwrap_or(part.len())).unwrap_or_default();
        match authority.rfind('@') {
            Some(at) => {
                shown.push_str("***");
                shown.push_str(part.get(at..).unwrap_or_default());
            }
            None => shown.push_str(part),
        }
    }
    shown
}

/// A statement's text with a parameter in the place of each constant, as `pg_stat_statements` has it, and
/// without comments. Nothing is left of what cannot be understood.
pub fn without_literals(text: &str) -> Arc<str> {
    let dialect = PostgreSqlDialect {};
    let tokens = Tokenizer::new(&dialect, text).with_unescape(false).tokenize();
    let Ok(tokens) = tokens else { return "".into() };
    // After those that the statement has of its own.
    let number = |token: &Token| match token {
        Token::Placeholder(name) => name.strip_prefix('$')?.parse().ok(),
        _ => None,
    };
    let mut last: u32 = tokens.iter().filter_map(number).max().unwrap_or_default();
    let mut shown = String::with_capacity(text.len());
    for token in &tokens {
        match token {
            Token::Whitespace(Whitespace::Space | Whitespace::Newline | Whitespace::Tab) => {
                shown.push_str(&token.to_string());
            }
            Token::Whitespace(_) => shown.push(' '),
            Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::DollarQuotedString(_)
            | Token::EscapedStringLiteral(_)
            | Token::UnicodeStringLiteral(_)
            | Token::NationalStringLiteral(_)
            | Token::HexStringLiteral(_)
            | Token::SingleQuotedByteStringLiteral(_) => {
                last = last.saturating_add(1);
                shown.push_str(&format!("${last}"));
            }
            other => shown.push_str(&other.to_string()),
        }
    }
    shown.into()
}

fn without_roles_passwords(text: &str) -> Arc<str> {
    const WORD: &[u8] = b"password";
    if !text.as_bytes().windows(WORD.len()).any(|part| part.eq_ignore_ascii_case(WORD)) {
        return text.into();
    }
    let dialect = PostgreSqlDialect {};
    // As it is written: what an escape stands for does not matter here.
    let tokens = Tokenizer::new(&dialect, text).with_unescape(false).tokenize();
    match tokens {
        Ok(tokens) if is_of_role(&tokens) => blank(&tokens).into(),
        Ok(_) => text.into(),
        // Nothing that could be understood, and nobody needs to see it.
        Err(_) => "".into(),
    }
}

/// CREATE or ALTER, then ROLE, USER or GROUP.
fn is_of_role(tokens: &[Token]) -> bool {
    let mut words = tokens.iter().filter(|token| !matches!(token, Token::Whitespace(_)));
    let mut next = || match words.next() {
        Some(Token::Word(word)) => word.keyword,
        _ => Keyword::NoKeyword,
    };
    matches!(next(), Keyword::CREATE | Keyword::ALTER)
        && matches!(next(), Keyword::ROLE | Keyword::USER | Keyword::GROUP)
}

fn blank(tokens: &[Token]) -> String {
    let mut text = String::new();
    let mut expected = false;
    for token in tokens {
        match token {
            Token::Whitespace(_) => text.push_str(&token.to_string()),
            Token::Word(word) => {
                expected = word.keyword == Keyword::PASSWORD && word.quote_style.is_none();
                text.push_str(&token.to_string());
            }
            _ if expected => {
                expected = false;
                text.push_str(HIDDEN);
            }
            _ => text.push_str(&token.to_string()),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{without_literals, without_passwords};

    #[test]
    fn constants_are_not_shown() {
        for (text, shown) in [
            ("SELECT 1", "SELECT $1"),
            (
                "SELECT a, 'it''s' FROM \"T 1\" WHERE b=-2.5e3 AND c = $2 -- 77",
                "SELECT a, $3 FROM \"T 1\" WHERE b=-$4 AND c = $2  ",
            ),
            (
                r"VALUES (E'a\'b', $x$7$x$, B'01', X'ff', U&'\0061', N'n', DATE '2024-01-01', true)",
                "VALUES ($1, $2, $3, $4, $5, $6, DATE $7, true)",
            ),
            ("SELECT/* 'x' */t1.c1 FROM t1 LIMIT 10", "SELECT t1.c1 FROM t1 LIMIT $1"),
            ("SELECT 'not closed", ""),
        ] {
            assert_eq!(&*without_literals(text), shown, "{text}");
        }
    }

    #[test]
    fn passwords_of_roles_are_not_shown() {
        for (text, shown) in [
            ("CREATE ROLE a PASSWORD 'secret' LOGIN", "CREATE ROLE a PASSWORD '***' LOGIN"),
            (
                "/* password */ alter /**/ user a with encrypted password\n--x\n'sec''ret';",
                "/* password */ alter /**/ user a with encrypted password\n--x\n'***';",
            ),
            (r"CREATE USER a PASSWORD E'se\'cret'", "CREATE USER a PASSWORD '***'"),
            ("CREATE USER a PASSWORD $$secret$$", "CREATE USER a PASSWORD '***'"),
            ("CREATE USER a PASSWORD $x$sec$$ret$x$", "CREATE USER a PASSWORD '***'"),
            (r"CREATE USER a PASSWORD U&'secr\0065t'", "CREATE USER a PASSWORD '***'"),
            (
                "CREATE GROUP a PASSWORD 'a' PASSWORD 'b'",
                "CREATE GROUP a PASSWORD '***' PASSWORD '***'",
            ),
            ("ALTER ROLE \"password\" PASSWORD NULL", "ALTER ROLE \"password\" PASSWORD NULL"),
            (
                "SELECT password FROM t WHERE password = 'x'",
                "SELECT password FROM t WHERE password = 'x'",
            ),
            ("CREATE ROLE a PASSWORD 'not closed", ""),
            ("SELECT 1", "SELECT 1"),
            (
                "CREATE TABLE e (a int) LOCATION 's3://key:sec%2Fret@lake/x/' -- s3://lake/a@b",
                "CREATE TABLE e (a int) LOCATION 's3://***@lake/x/' -- s3://lake/a@b",
            ),
            ("SELECT 'http://é@ü', '@://'", "SELECT 'http://***@ü', '@://'"),
        ] {
            assert_eq!(&*without_passwords(text), shown, "{text}");
        }
    }
}
