//! JSON in the form in which PostgreSQL keeps and writes `jsonb`: members sorted by the length of their
//! names, then by their bytes, of two with one name the last; numbers as `numeric` writes them; one blank
//! behind each comma and colon.

pub mod change;
mod fault;
mod order;
mod tree;
pub mod within;

use std::fmt::Write;

pub use change::Refusal;
pub use order::order;
use tree::{Members, Value};

/// Why a text has no such form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("invalid input syntax for type json")]
    Invalid { detail: String },
    #[error("unsupported Unicode escape sequence")]
    ZeroByte,
    #[error("value overflows numeric format")]
    NumberTooLarge,
    #[error("a json value has more than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("a jsonb value would have more than {MAX_BYTES} bytes")]
    TooLarge,
    #[error(transparent)]
    Refused(Refusal),
}

impl Error {
    /// The error code that PostgreSQL gives in this case.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "22P02",
            Self::ZeroByte => "22P05",
            Self::NumberTooLarge => "22003",
            Self::TooDeep => "54001",
            Self::TooLarge => "54000",
            Self::Refused(refusal) => refusal.sqlstate(),
        }
    }

    /// More about it.
    pub fn detail(&self) -> Option<&str> {
        match self {
            Self::Invalid { detail } if !detail.is_empty() => Some(detail),
            Self::ZeroByte => Some("\\u0000 cannot be converted to text."),
            _ => None,
        }
    }

    /// What is to be done about it.
    pub fn hint(&self) -> Option<&'static str> {
        (*self == Self::Refused(Refusal::ReplaceKey))
            .then_some("Try using the function jsonb_set to replace key value.")
    }

    /// A text that is no JSON, of which is to be told what is wrong with it.
    fn invalid() -> Self {
        Self::Invalid { detail: String::new() }
    }
}

type Result<T> = std::result::Result<T, Error>;

/// Levels of arrays and objects: as many as are read elsewhere.
const MAX_DEPTH: usize = 128;

/// A number in a few bytes, such as `1e100000`, has many in this form.
const MAX_BYTES: usize = 64 << 20;

/// PostgreSQL's limits of digits before the point of a `numeric`, and behind it.
const MAX_WHOLE: i64 = 131_072;
const MAX_FRACTION: i64 = 16_383;

/// The largest exponent that PostgreSQL reads, even of zero.
const MAX_EXPONENT: i64 = i32::MAX as i64 / 2;

/// A valid JSON text in `jsonb`'s form.
///
/// # Errors
/// The text is not JSON, or holds what `jsonb` cannot.
pub fn normal(text: &str) -> Result<String> {
    form(text, Numbers::AsWritten)
}

/// A valid JSON text as it is.
///
/// # Errors
/// The text is not JSON, or has too many levels.
pub fn checked(text: &str) -> Result<String> {
    within::check(text).map(|()| text.to_owned())
}

/// A text that is the same for values that are equal: as [`normal`], but that `1.0` is `1`.
///
/// # Errors
/// As those of [`normal`].
pub fn comparable(text: &str) -> Result<String> {
    form(text, Numbers::ByValue)
}

/// How numbers are written.
#[derive(Clone, Copy)]
enum Numbers {
    /// With as many digits behind the point as they had.
    AsWritten,
    /// Without zeros at the end.
    ByValue,
}

fn form(text: &str, numbers: Numbers) -> Result<String> {
    read(text, numbers)?.text()
}

fn read(text: &str, numbers: Numbers) -> Result<Value> {
    let mut reader = Reader { rest: text, depth: 0, made: 0, numbers };
    let value = reader.value().and_then(|value| {
        reader.blanks();
        if reader.rest.is_empty() { Ok(value) } else { Err(Error::invalid()) }
    });
    value.map_err(|error| match error {
        Error::Invalid { .. } => Error::Invalid { detail: fault::detail(text, true) },
        other => other,
    })
}

struct Reader<'a> {
    rest: &'a str,
    depth: usize,
    /// Bytes of numbers, which may be longer than they were.
    made: usize,
    numbers: Numbers,
}

impl Reader<'_> {
    fn blanks(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    fn take(&mut self, start: &str) -> bool {
        let rest = self.rest.strip_prefix(start);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn require(&mut self, start: &str) -> Result<()> {
        self.blanks();
        if self.take(start) { Ok(()) } else { Err(Error::invalid()) }
    }

    fn value(&mut self) -> Result<Value> {
        self.blanks();
        Ok(Value::Plain(match self.rest.bytes().next() {
            Some(b'{') => return self.nested(Self::object),
            Some(b'[') => return self.nested(Self::array),
            Some(b'"') => quoted(&self.string()?),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            _ => {
                let word = ["true", "false", "null"].into_iter().find(|word| self.take(word));
                word.map(str::to_owned).ok_or_else(Error::invalid)?
            }
        }))
    }

    fn nested(&mut self, read: fn(&mut Self) -> Result<Value>) -> Result<Value> {
        if self.depth >= MAX_DEPTH {
            return Err(Error::TooDeep);
        }
        self.depth += 1;
        let value = read(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn object(&mut self) -> Result<Value> {
        self.require("{")?;
        let mut members = Members::new();
        self.blanks();
        if self.take("}") {
            return Ok(Value::Object(members));
        }
        loop {
            self.blanks();
            let name = self.string()?;
            self.require(":")?;
            let value = self.value()?;
            members.insert((name.len(), name), value);
            self.blanks();
            if !self.take(",") {
                break;
            }
        }
        self.require("}")?;
        Ok(Value::Object(members))
    }

    fn array(&mut self) -> Result<Value> {
        self.require("[")?;
        let mut items = Vec::new();
        self.blanks();
        if self.take("]") {
            return Ok(Value::Array(items));
        }
        loop {
            items.push(self.value()?);
            self.blanks();
            if !self.take(",") {
                break;
            }
        }
        self.require("]")?;
        Ok(Value::Array(items))
    }

    /// A string, as what it means.
    fn string(&mut self) -> Result<String> {
        if !self.take("\"") {
            return Err(Error::invalid());
        }
        let mut text = String::new();
        loop {
            let end = self.rest.find(['"', '\\']).ok_or_else(Error::invalid)?;
            let plain = &self.rest[..end];
            if plain.bytes().any(|byte| byte < b' ') {
                return Err(Error::invalid());
            }
            text.push_str(plain);
            self.rest = &self.rest[end..];
            if self.take("\"") {
                return Ok(text);
            }
            text.push(self.escaped()?);
        }
    }

    fn escaped(&mut self) -> Result<char> {
        let mut chars = self.rest.chars();
        let (_, letter) = (chars.next(), chars.next().ok_or_else(Error::invalid)?);
        self.rest = chars.as_str();
        Ok(match letter {
            '"' | '\\' | '/' => letter,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let first = self.unit()?;
                let code = match first {
                    0xd800..0xdc00 if self.take("\\u") => match self.unit()? {
                        second @ 0xdc00..0xe000 => {
                            0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)
                        }
                        _ => return Err(Error::invalid()),
                    },
                    0 => return Err(Error::ZeroByte),
                    code => code,
                };
                char::from_u32(code).ok_or_else(Error::invalid)?
            }
            _ => return Err(Error::invalid()),
        })
    }

    /// Four digits.
    fn unit(&mut self) -> Result<u32> {
        let digits = self.rest.get(..4).ok_or_else(Error::invalid)?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Error::invalid());
        }
        self.rest = &self.rest[4..];
        u32::from_str_radix(digits, 16).map_err(|_| Error::invalid())
    }

    fn number(&mut self) -> Result<String> {
        let in_number = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E');
        let end = self.rest.find(|c| !in_number(c)).unwrap_or(self.rest.len());
        let (written, rest) = self.rest.split_at(end);
        if !is_number(written) {
            return Err(Error::invalid());
        }
        self.rest = rest;
        let number = plain(written, self.numbers)?;
        self.made += number.len();
        if self.made > MAX_BYTES { Err(Error::TooLarge) } else { Ok(number) }
    }
}

/// Whether a text is a number as JSON writes it.
fn is_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.strip_prefix('-').unwrap_or(text);
    let (number, exponent) = match number.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, exponent.strip_prefix(['+', '-']).unwrap_or(exponent)),
        None => (number, "0"),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let whole_fits = digits(whole) && (whole == "0" || !whole.starts_with('0'));
    whole_fits && digits(fraction) && digits(exponent)
}

/// A number without an exponent.
fn plain(written: &str, numbers: Numbers) -> Result<String> {
    let (negative, number) = match written.strip_prefix('-') {
        Some(number) => (true, number),
        None => (false, written),
    };
    let (digits, exponent) = match number.split_once(['e', 'E']) {
        Some((digits, exponent)) => (digits, exponent.parse::<i64>()),
        None => (number, Ok(0)),
    };
    let exponent = exponent.map_err(|_| Error::NumberTooLarge)?;
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all = [whole, fraction].concat();
    if all.is_empty() || !all.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Error::invalid());
    }
    // What is too long is not made first.
    let scale = (fraction.len() as i64).saturating_sub(exponent).max(0);
    if exponent.abs() > MAX_EXPONENT || scale > MAX_FRACTION {
        return Err(Error::NumberTooLarge);
    }
    let digits = all.trim_start_matches('0');
    // Digits before the point, which may be less than none.
    let before = digits.len() as i64 - fraction.len() as i64 + exponent;
    if before > MAX_WHOLE && !digits.is_empty() {
        return Err(Error::NumberTooLarge);
    }
    let zeros = |count: i64| "0".repeat(usize::try_from(count).unwrap_or_default());
    let (whole, fraction) = match usize::try_from(before) {
        _ if digits.is_empty() => ("0".to_owned(), zeros(scale)),
        Ok(before) if before >= digits.len() => {
            (format!("{digits}{}", zeros((before - digits.len()) as i64)), String::new())
        }
        Ok(before @ 1..) => (digits[..before].to_owned(), digits[before..].to_owned()),
        _ => ("0".to_owned(), format!("{}{digits}", zeros(-before))),
    };
    let fraction = match numbers {
        Numbers::AsWritten => fraction.as_str(),
        Numbers::ByValue => fraction.trim_end_matches('0'),
    };
    let sign = if negative && !digits.is_empty() { "-" } else { "" };
    let point = if fraction.is_empty() { "" } else { "." };
    Ok(format!("{sign}{whole}{point}{fraction}"))
}

/// A text between quotes, with what JSON has no other way for escaped.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c < ' ' => drop(write!(quoted, "\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against PostgreSQL 15.
    #[test]
    fn one_form_for_what_is_equal() {
        for (text, expected) in [
            (r#" {"bb":1,"a": [1,2 , {}],"b":null, "a":[ ]} "#, r#"{"a": [], "b": null, "bb": 1}"#),
            (r#""\u0041\n\/\ud83d\ude00""#, "\"A\\n/😀\""),
            ("[1e2, 1.50, -0, 1.5e-3, 12.5E1, 0.0]", "[100, 1.50, 0, 0.0015, 125, 0.0]"),
            ("-1.0e1", "-10"),
            ("[0.001e1, 0e5, 0e1000000, 0.00001e6, -0.0]", "[0.01, 0, 0, 10, 0.0]"),
            ("true", "true"),
        ] {
            assert_eq!(normal(text).as_deref(), Ok(expected), "{text}");
        }
        for text in ["[1, 0, -2.5, 100]", "[1.0, -0.0, -2.50, 1e2]", "[1.00e0, 0e5, -25e-1, 100.0]"]
        {
            assert_eq!(comparable(text).as_deref(), Ok("[1, 0, -2.5, 100]"), "{text}");
        }
    }

    /// Against PostgreSQL 15.
    #[test]
    fn numbers_may_be_long() {
        let small = format!("0.{}1", "0".repeat(16_382));
        for (text, length) in [
            ("1e70000", 70_001),
            ("1e131071", 131_072),
            ("0.00001e131076", 131_072),
            ("1e-16383", 16_385),
            ("0e-16000", 16_002),
            (small.as_str(), 16_385),
        ] {
            assert_eq!(normal(text).map(|text| text.len()), Ok(length), "{text}");
        }
        let long = "1".repeat(131_073);
        for text in ["1e131072", "1e-16384", "1.5e-70000", "0e-20000", "1e9000000000", &long] {
            assert_eq!(normal(text), Err(Error::NumberTooLarge), "{text}");
        }
    }

    #[test]
    fn what_is_no_jsonb_is_refused() {
        let deep = "[".repeat(1000);
        let no_json = |detail: &str| Error::Invalid { detail: detail.to_owned() };
        for (text, error) in [
            ("", no_json("The input string ended unexpectedly.")),
            ("[1,]", no_json("Expected JSON value, but found \"]\".")),
            ("[00e5]", no_json("Token \"00e5\" is invalid.")),
            ("\"\t\"", no_json("Character with value 0x09 must be escaped.")),
            (r#""\ud83d""#, no_json("Unicode low surrogate must follow a high surrogate.")),
            (deep.as_str(), Error::TooDeep),
            (r#""\u0000""#, Error::ZeroByte),
            ("1e1000000", Error::NumberTooLarge),
        ] {
            assert_eq!(normal(text), Err(error), "{text}");
        }
    }
}
