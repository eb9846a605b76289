//! What is wrong with a text that is no JSON, in PostgreSQL's words (`json_errdetail` of `jsonapi.c`).

/// What may stand next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Value,
    /// A member's name, or the end of the object.
    FirstName,
    Name,
    Colon,
    /// A comma, or the end of what is open.
    Comma,
    /// An element, or the end of the array.
    FirstElement,
}

/// What is wrong with a text of which it is known that it is no JSON, or none that `jsonb` can hold.
pub(super) fn detail(text: &str, escapes_are_read: bool) -> String {
    let mut lexer = Lexer { rest: text, escapes_are_read };
    let (mut open, mut next) = (Vec::new(), Some(Next::Value));
    loop {
        let token = match lexer.token() {
            Ok(Some(token)) => token,
            Ok(None) => return "The input string ended unexpectedly.".to_owned(),
            Err(detail) => return detail,
        };
        let expected = match (next, token) {
            (None, _) => "end of input",
            (Some(Next::FirstName), "}") | (Some(Next::FirstElement), "]") => {
                open.pop();
                next = after_value(&open);
                continue;
            }
            (Some(Next::Value | Next::FirstElement), "{") => {
                open.push('}');
                next = Some(Next::FirstName);
                continue;
            }
            (Some(Next::Value | Next::FirstElement), "[") => {
                open.push(']');
                next = Some(Next::FirstElement);
                continue;
            }
            (Some(Next::Value | Next::FirstElement), "}" | "]" | ":" | ",") => "JSON value",
            (Some(Next::Value | Next::FirstElement), _) => {
                next = after_value(&open);
                continue;
            }
            (Some(Next::FirstName | Next::Name), name) if name.starts_with('"') => {
                next = Some(Next::Colon);
                continue;
            }
            (Some(Next::FirstName), _) => r#"string or "}""#,
            (Some(Next::Name), _) => "string",
            (Some(Next::Colon), ":") => {
                next = Some(Next::Value);
                continue;
            }
            (Some(Next::Colon), _) => r#"":""#,
            (Some(Next::Comma), ",") => {
                next = Some(if open.last() == Some(&'}') { Next::Name } else { Next::Value });
                continue;
            }
            (Some(Next::Comma), end) if open.last().is_some_and(|open| end.starts_with(*open)) => {
                open.pop();
                next = after_value(&open);
                continue;
            }
            (Some(Next::Comma), _) if open.last() == Some(&'}') => r#""," or "}""#,
            (Some(Next::Comma), _) => r#""," or "]""#,
        };
        return format!("Expected {expected}, but found \"{token}\".");
    }
}

fn after_value(open: &[char]) -> Option<Next> {
    (!open.is_empty()).then_some(Next::Comma)
}

struct Lexer<'a> {
    rest: &'a str,
    /// Whether what is escaped is looked at, as `jsonb` does.
    escapes_are_read: bool,
}

impl<'a> Lexer<'a> {
    /// The next token; `None` at the end.
    fn token(&mut self) -> Result<Option<&'a str>, String> {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
        let Some(first) = self.rest.chars().next() else { return Ok(None) };
        let length = match first {
            '{' | '}' | '[' | ']' | ',' | ':' => 1,
            '"' => self.string()?,
            _ => {
                let in_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii();
                let is_number = first == '-' || first.is_ascii_digit();
                let fits = |c: char| in_word(c) || is_number && matches!(c, '+' | '-' | '.');
                let end = self.rest.find(|c| !fits(c)).unwrap_or(self.rest.len());
                let word = &self.rest[..end.max(first.len_utf8())];
                let valid = matches!(word, "true" | "false" | "null") || super::is_number(word);
                if !valid {
                    return Err(format!("Token \"{word}\" is invalid."));
                }
                word.len()
            }
        };
        let (token, rest) = self.rest.split_at(length);
        self.rest = rest;
        Ok(Some(token))
    }

    /// How many bytes a string has, between its quotes and with them.
    fn string(&self) -> Result<usize, String> {
        let unfinished = || format!("Token \"{}\" is invalid.", self.rest);
        // The first half of a character that is written as two.
        let mut high = false;
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            let lone = |code: u32| high && !(0xdc00..0xe000).contains(&code);
            let code = match c {
                '"' if high && self.escapes_are_read => return Err(lone_half()),
                '"' => return Ok(at + 1),
                c if c < ' ' => {
                    return Err(format!(
                        "Character with value 0x{:02x} must be escaped.",
                        u32::from(c)
                    ));
                }
                '\\' => match chars.next().ok_or_else(unfinished)?.1 {
                    'u' => {
                        let mut code = 0;
                        for _ in 0..4 {
                            let digit = chars.next().ok_or_else(unfinished)?.1.to_digit(16);
                            code = code * 16
                                + digit.ok_or_else(|| {
                                    "\"\\u\" must be followed by four hexadecimal digits."
                                        .to_owned()
                                })?;
                        }
                        code
                    }
                    '"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't' => 0,
                    other => return Err(format!("Escape sequence \"\\{other}\" is invalid.")),
                },
                _ => 0,
            };
            if !self.escapes_are_read {
                continue;
            }
            if high && (0xd800..0xdc00).contains(&code) {
                return Err("Unicode high surrogate must not follow a high surrogate.".to_owned());
            }
            if lone(code) || !high && (0xdc00..0xe000).contains(&code) {
                return Err(lone_half());
            }
            high = (0xd800..0xdc00).contains(&code);
        }
        Err(unfinished())
    }
}

fn lone_half() -> String {
    "Unicode low surrogate must follow a high surrogate.".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against PostgreSQL 15: `SELECT text::jsonb`.
    #[test]
    fn faults_are_told_as_postgres_tells_them() {
        for (text, expected) in [
            ("{bad", r#"Token "bad" is invalid."#),
            (r#"{"a":1"#, "The input string ended unexpectedly."),
            (r#"{"a" 1}"#, r#"Expected ":", but found "1"."#),
            ("{1:1}", r#"Expected string or "}", but found "1"."#),
            ("[1,]", r#"Expected JSON value, but found "]"."#),
            ("[1 2]", r#"Expected "," or "]", but found "2"."#),
            (r#"{"a":1,}"#, r#"Expected string, but found "}"."#),
            (r#"{"a":1 "b"}"#, r#"Expected "," or "}", but found ""b""."#),
            ("1 2", r#"Expected end of input, but found "2"."#),
            (" ", "The input string ended unexpectedly."),
            ("01", r#"Token "01" is invalid."#),
            ("1.", r#"Token "1." is invalid."#),
            ("-", r#"Token "-" is invalid."#),
            ("1e", r#"Token "1e" is invalid."#),
            (r#""abc"#, r#"Token ""abc" is invalid."#),
            (r#""a\qb""#, r#"Escape sequence "\q" is invalid."#),
            (r#""a\u12""#, r#""\u" must be followed by four hexadecimal digits."#),
            ("\"a\nb\"", "Character with value 0x0a must be escaped."),
            (r#""\ud800""#, "Unicode low surrogate must follow a high surrogate."),
            (r#""\udc00""#, "Unicode low surrogate must follow a high surrogate."),
            (r#""\ud800\ud800""#, "Unicode high surrogate must not follow a high surrogate."),
            (r#""\ud800x""#, "Unicode low surrogate must follow a high surrogate."),
            ("}", r#"Expected JSON value, but found "}"."#),
            ("{]", r#"Expected string or "}", but found "]"."#),
            ("[}", r#"Expected JSON value, but found "}"."#),
            ("{\"a\":*}", r#"Token "*" is invalid."#),
            ("é", r#"Token "é" is invalid."#),
            ("[1,2", "The input string ended unexpectedly."),
            (r#""\"#, r#"Token ""\" is invalid."#),
            (r#""\u"#, r#"Token ""\u" is invalid."#),
            ("[[], {}, {\"a\": [{}]}, nul]", r#"Token "nul" is invalid."#),
        ] {
            assert_eq!(detail(text, true), expected, "{text}");
        }
        assert_eq!(
            detail(r#"["\ud800", "\u0000" 1]"#, false),
            r#"Expected "," or "]", but found "1"."#
        );
    }
}
