//! Statements that a session sends again with another key: `.. WHERE id = 17`, then `.. WHERE id = 42`.
//!
//! Who writes values into the text of statements looks for keys as often as who prepares them. From the second
//! of a kind on such a statement is run as the one that has parameters for its keys, whose plan is kept, and
//! with their values. That is done only where nothing can differ but the time it takes:
//! - What something is equal to becomes a parameter, no other constant. An integer stands for a parameter of an
//!   integer type that has room for it, a string for one of type `text`.
//! - The statement looks for a key ([`engine::Session::finds_keys`](crate::engine::Session::finds_keys)).
//! - What fails to be planned with parameters is planned, and told of, as it was sent.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::ScalarValue;
use postgres_types::Type;

use super::life::Session;
use super::prepared::{Body, Prepared, Read, Source};
use super::recent::{LONGEST, Recent};
use super::running::Registered;
use super::secrets::without_passwords;
use super::{Error, Result};
use crate::values::types::pg_type;

/// More of them are no key.
const MOST_KEYS: usize = 8;

/// Words before which a constant ends: before others it may be a part of something else.
const ENDS: [&str; 3] = ["AND", "LIMIT", "ORDER"];

/// What a session knows of kinds of statements.
#[derive(Debug, Default)]
pub(super) struct Kinds {
    plans: Recent,
    /// Those that are planned as they are sent.
    others: Recent,
}

/// A statement with keys.
#[derive(Debug, PartialEq)]
struct Alike {
    /// As it was sent.
    text: Arc<str>,
    /// With `$1`, `$2` and so on for its keys.
    kind: String,
    keys: Vec<Key>,
}

#[derive(Debug, PartialEq)]
enum Key {
    Number(i64),
    Text(String),
}

/// A statement of a kind of which one came before.
#[derive(Debug)]
pub struct Again {
    alike: Alike,
    plan: Kind,
}

#[derive(Debug)]
enum Kind {
    Known(Box<Prepared>),
    New(Box<Source>),
}

impl Session {
    /// `None` for a statement that is the first of its kind, or of none.
    pub fn again(&mut self, text: &str) -> Option<Again> {
        if !self.knows_plans() {
            return None;
        }
        let alike = Alike::of(text)?;
        let kind = &alike.kind;
        if self.kinds.others.has(kind) || !self.kinds.plans.has_come(kind) {
            return None;
        }
        let now = self.origin();
        let plan = match self.kinds.plans.find(kind, &[], &now) {
            Some(prepared) => Kind::Known(Box::new(prepared)),
            None => match Self::parse(kind).ok().and_then(only) {
                Some(source) => Kind::New(Box::new(source)),
                None => {
                    self.kinds.others.has_come(kind);
                    return None;
                }
            },
        };
        Some(Again { alike, plan })
    }

    /// The statement with parameters, and their values; `None` if it is to be planned as it was sent.
    pub async fn prepare_again(
        &mut self,
        registered: &Registered,
        Again { alike, plan }: Again,
    ) -> Option<(Prepared, Vec<ScalarValue>)> {
        let prepared = match plan {
            Kind::Known(prepared) => *prepared,
            Kind::New(source) => match self.prepare_kind(registered, &source, &alike).await {
                Ok(Some(prepared)) => {
                    self.kinds.plans.keep(&alike.kind, &prepared);
                    prepared
                }
                Err(Error::Stopped(_)) => return None,
                Ok(None) | Err(_) => {
                    self.kinds.others.has_come(&alike.kind);
                    return None;
                }
            },
        };
        let values = alike.values(prepared.parameters())?;
        Some((Prepared { text: alike.text, ..prepared }, values))
    }

    /// `None` for a kind that is none of those that look for a key.
    async fn prepare_kind(
        &mut self,
        registered: &Registered,
        source: &Source,
        alike: &Alike,
    ) -> Result<Option<Prepared>> {
        let prepared = self.prepare(registered, source, Vec::new()).await?;
        let Body::Read(Read { plan, .. }) = &prepared.body else { return Ok(None) };
        let plan = plan.clone();
        let finds = self.engine_session().finds_keys(&plan);
        let finds = alike.suits(prepared.parameters()) && registered.until_stopped(finds).await??;
        Ok(finds.then_some(prepared))
    }
}

fn only<T>(mut items: Vec<T>) -> Option<T> {
    items.pop().filter(|_| items.is_empty())
}

impl Again {
    /// As it was sent.
    pub fn text(&self) -> &Arc<str> {
        &self.alike.text
    }
}

impl Alike {
    /// `None` for what has no keys, and for all that is not as simple as most of what looks for one.
    fn of(text: &str) -> Option<Self> {
        let text = text.trim().trim_end_matches(';').trim_end();
        let selects = text.get(..6).is_some_and(|word| word.eq_ignore_ascii_case("select"));
        if !selects || text.len() > LONGEST || !text.contains('=') {
            return None;
        }
        let mut reader = Reader { text, at: 0, copied: 0, kind: String::new(), keys: Vec::new() };
        reader.all()?;
        let Reader { copied, mut kind, keys, .. } = reader;
        if keys.is_empty() {
            return None;
        }
        kind.push_str(&text[copied..]);
        Some(Self { text: without_passwords(text), kind, keys })
    }

    /// Whether the keys are of the types of parameters.
    fn suits(&self, parameters: &[FieldRef]) -> bool {
        let suits = |(key, parameter): (&Key, &FieldRef)| match key {
            Key::Number(_) => [Type::INT2, Type::INT4, Type::INT8].contains(&pg_type(parameter)),
            Key::Text(_) => pg_type(parameter) == Type::TEXT,
        };
        parameters.len() == self.keys.len() && self.keys.iter().zip(parameters).all(suits)
    }

    /// The keys as values of such parameters; `None` if one has no room for its own.
    fn values(&self, parameters: &[FieldRef]) -> Option<Vec<ScalarValue>> {
        self.keys.iter().zip(parameters).map(|(key, parameter)| key.value(parameter)).collect()
    }
}

impl Key {
    fn value(&self, parameter: &FieldRef) -> Option<ScalarValue> {
        Some(match (self, parameter.data_type()) {
            (Self::Number(number), DataType::Int16) => {
                ScalarValue::from(i16::try_from(*number).ok()?)
            }
            (Self::Number(number), DataType::Int32) => {
                ScalarValue::from(i32::try_from(*number).ok()?)
            }
            (Self::Number(number), DataType::Int64) => ScalarValue::from(*number),
            (Self::Text(text), DataType::Utf8) => ScalarValue::Utf8(Some(text.clone())),
            (Self::Text(text), DataType::Utf8View) => ScalarValue::Utf8View(Some(text.clone())),
            _ => return None,
        })
    }
}

/// Takes the keys out of a statement's text.
struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// Up to here it is in `kind`.
    copied: usize,
    kind: String,
    keys: Vec<Key>,
}

impl Reader<'_> {
    fn all(&mut self) -> Option<()> {
        let bytes = self.text.as_bytes();
        let mut equals = false;
        while let Some(&byte) = bytes.get(self.at) {
            let next = bytes.get(self.at + 1).copied();
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => {
                    self.at += 1;
                    continue;
                }
                // Parameters, escapes, comments, other statements.
                b'$' | b'\\' | b';' => return None,
                b'-' if next == Some(b'-') => return None,
                b'/' if next == Some(b'*') => return None,
                b'0'..=b'9' if equals => self.number()?,
                b'\'' => self.string(equals)?,
                b'"' => self.at = self.closing(b'"')?,
                byte if is_of_word(byte) => {
                    self.word();
                    // A string of another kind, such as `E'..'`.
                    if bytes.get(self.at) == Some(&b'\'') {
                        return None;
                    }
                }
                _ => {
                    let before = self.at.checked_sub(1).map(|at| bytes[at]);
                    equals = byte == b'=' && ![before, next].into_iter().flatten().any(is_operator);
                    self.at += 1;
                    continue;
                }
            }
            equals = false;
        }
        Some(())
    }

    /// A number, or a word.
    fn word(&mut self) {
        let rest = &self.text.as_bytes()[self.at..];
        self.at += rest.iter().position(|byte| !is_of_word(*byte)).unwrap_or(rest.len());
    }

    fn number(&mut self) -> Option<()> {
        let begin = self.at;
        self.word();
        self.key(begin, Key::Number(self.text[begin..self.at].parse().ok()?))
    }

    fn string(&mut self, equals: bool) -> Option<()> {
        let begin = self.at;
        self.at = self.closing(b'\'')?;
        match equals {
            true => self.key(begin, Key::Text(self.text[begin + 1..self.at - 1].to_owned())),
            false => Some(()),
        }
    }

    /// Behind the quote that closes the one here. A doubled one looks like the end and another begin.
    fn closing(&self, quote: u8) -> Option<usize> {
        let rest = &self.text.as_bytes()[self.at + 1..];
        Some(self.at + 1 + rest.iter().position(|byte| *byte == quote)? + 1)
    }

    /// A key has been read, if nothing goes on behind it.
    fn key(&mut self, begin: usize, key: Key) -> Option<()> {
        let rest = self.text[self.at..].trim_start();
        let word = rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next()?;
        let parts = self.text[self.at..].starts_with(|c: char| c.is_ascii_whitespace());
        let ends = rest.is_empty()
            || rest.starts_with(')')
            || parts && ENDS.iter().any(|end| word.eq_ignore_ascii_case(end));
        if !ends || self.keys.len() == MOST_KEYS {
            return None;
        }
        self.keys.push(key);
        self.kind.push_str(&self.text[self.copied..begin]);
        self.kind.push_str(&format!("${}", self.keys.len()));
        self.copied = self.at;
        Some(())
    }
}

fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.') || !byte.is_ascii()
}

/// Whether an operator may have it.
fn is_operator(byte: u8) -> bool {
    b"+-*/<>=~!@#%^&|`?:".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> Option<(String, Vec<Key>)> {
        Alike::of(text).map(|alike| (alike.kind, alike.keys))
    }

    #[test]
    fn what_something_is_equal_to_is_a_key() {
        let kinds = [
            (
                "SELECT * FROM t WHERE id = 17;",
                "SELECT * FROM t WHERE id = $1",
                vec![Key::Number(17)],
            ),
            ("select a1 from t where a1=1", "select a1 from t where a1=$1", vec![Key::Number(1)]),
            (
                "SELECT 'x = 1', 2 FROM \"a = 3\" WHERE (name = 'it = 4') AND id = 007 LIMIT 1",
                "SELECT 'x = 1', 2 FROM \"a = 3\" WHERE (name = $1) AND id = $2 LIMIT 1",
                vec![Key::Text("it = 4".to_owned()), Key::Number(7)],
            ),
            (
                "SELECT 1 FROM t WHERE k = 'ä'",
                "SELECT 1 FROM t WHERE k = $1",
                vec![Key::Text("ä".to_owned())],
            ),
        ];
        for (text, with_parameters, keys) in kinds {
            assert_eq!(kind(text), Some((with_parameters.to_owned(), keys)), "{text}");
        }
    }

    #[test]
    fn what_may_be_anything_else_is_left_alone() {
        for text in [
            "SELECT 1",
            "UPDATE t SET a = 1",
            "SELECT * FROM t WHERE a <= 1 AND b != 2 AND c => 3",
            "SELECT * FROM t WHERE a = -1",
            "SELECT * FROM t WHERE a = 1.5",
            "SELECT * FROM t WHERE a = 1e3",
            "SELECT * FROM t WHERE a = 1 + b",
            "SELECT * FROM t WHERE a = 1::text",
            "SELECT * FROM t WHERE a = 1 IS NULL",
            "SELECT * FROM t WHERE a = 99999999999999999999",
            "SELECT * FROM t WHERE a = 'it''s'",
            "SELECT * FROM t WHERE a = 'x'\n'y'",
            "SELECT * FROM t WHERE a = E'x'",
            "SELECT * FROM t WHERE a = 'x' COLLATE \"C\"",
            "SELECT * FROM t WHERE a = 1 -- AND b = 2",
            "SELECT * FROM t WHERE a = $1 AND b = 2",
            "SELECT * FROM t WHERE a = 1; SELECT 2",
            "SELECT * FROM t WHERE a = 1 ORDERS",
            "SELECT * FROM t WHERE a = 'x",
        ] {
            assert_eq!(kind(text), None, "{text}");
        }
    }
}
