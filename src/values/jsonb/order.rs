//! The order of `jsonb` values (`compareJsonbContainers` of PostgreSQL 15's `jsonb_util.c`) as one of texts.
//!
//! NULL is less than texts, these than numbers, truth values, arrays and objects; of arrays and of objects
//! the shorter is less, then what their members say in turn. At the top a value by itself is an array of
//! one, less than one that is written as such.

use super::{Error, Numbers, Reader, Result};

/// Ends a text, in which it cannot stand, and the digits of a positive number.
const END: char = '\0';
/// Ends the digits of a negative number: more than any of them.
const NEGATIVE_END: char = '~';

/// A text that is less than that of another value if the value is, by their bytes, and the same if they are
/// equal.
///
/// # Errors
/// As those of [`super::normal`].
pub fn order(text: &str) -> Result<String> {
    // There members have their order already, and numbers one spelling.
    let form = super::form(text, Numbers::ByValue)?;
    let mut reader = Reader { rest: &form, depth: 0, made: 0, numbers: Numbers::ByValue };
    let mut key = String::with_capacity(form.len() + 16);
    match form.as_bytes().first() {
        Some(b'{') => {
            key.push('2');
            reader.members(&mut key)?;
        }
        Some(b'[') => {
            key.push('1');
            reader.items(&mut key, "1")?;
        }
        _ => {
            key.push('1');
            count(&mut key, 1);
            key.push('0');
            reader.key(&mut key)?;
        }
    }
    Ok(key)
}

/// Numbers of one width are in order as texts.
fn count(key: &mut String, number: u32) {
    key.push_str(&format!("{number:08x}"));
}

impl Reader<'_> {
    fn key(&mut self, key: &mut String) -> Result<()> {
        self.blanks();
        match self.rest.bytes().next() {
            Some(b'{') => {
                key.push('6');
                self.members(key)
            }
            Some(b'[') => {
                key.push('5');
                self.items(key, "")
            }
            Some(b'"') => {
                key.push('2');
                key.push_str(&self.string()?);
                key.push(END);
                Ok(())
            }
            Some(b'-' | b'0'..=b'9') => {
                key.push('3');
                number(key, &self.number()?);
                Ok(())
            }
            _ => {
                let words = [("null", "1"), ("false", "40"), ("true", "41")];
                let word = words.iter().find(|(word, _)| self.take(word));
                key.push_str(word.ok_or_else(Error::invalid)?.1);
                Ok(())
            }
        }
    }

    /// An array: how many items it has, what is said between, and these.
    fn items(&mut self, key: &mut String, between: &str) -> Result<()> {
        self.list(key, ("[", "]"), between, Self::key)
    }

    /// An object, in the same way.
    fn members(&mut self, key: &mut String) -> Result<()> {
        self.list(key, ("{", "}"), "", |reader, key| {
            reader.blanks();
            key.push_str(&reader.string()?);
            key.push(END);
            reader.require(":")?;
            reader.key(key)
        })
    }

    fn list(
        &mut self,
        key: &mut String,
        (open, close): (&str, &str),
        between: &str,
        item: fn(&mut Self, &mut String) -> Result<()>,
    ) -> Result<()> {
        self.require(open)?;
        let (mut items, mut number) = (String::new(), 0);
        self.blanks();
        while !self.take(close) {
            if number > 0 {
                self.require(",")?;
            }
            item(self, &mut items)?;
            number += 1;
            self.blanks();
        }
        count(key, number);
        key.push_str(between);
        key.push_str(&items);
        Ok(())
    }
}

/// A number without an exponent, and without zeros at its ends: its sign, how many digits stand before the
/// point, and the digits.
fn number(key: &mut String, written: &str) {
    let (negative, digits) = match written.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, written),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole = whole.trim_start_matches('0');
    let before = match whole.len() {
        0 => -((fraction.len() - fraction.trim_start_matches('0').len()) as i64),
        length => length as i64,
    };
    let all = [whole, fraction].concat();
    let digits = all.trim_start_matches('0').trim_end_matches('0');
    if digits.is_empty() {
        key.push('1');
        return;
    }
    // Far less than half of what there is room for: PostgreSQL's numbers end at 131072 digits.
    let place = (before + (1 << 31)) as u32;
    if negative {
        key.push('0');
        count(key, !place);
        key.extend(digits.bytes().map(|digit| char::from(b'0' + b'9' - digit)));
        key.push(NEGATIVE_END);
    } else {
        key.push('2');
        count(key, place);
        key.push_str(digits);
        key.push(END);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against PostgreSQL 15: `SELECT j FROM (VALUES ...) v (j) ORDER BY j`, with the collation "C".
    #[test]
    fn values_are_in_the_order_of_jsonb() {
        let sorted = [
            "[]",
            "null",
            r#""""#,
            r#""a""#,
            r#""ab""#,
            r#""b""#,
            "-100",
            "-99.5",
            "-2",
            "-1.5",
            "-0.02",
            "-0.01",
            "0",
            "0.001",
            "0.01",
            "0.011",
            "1",
            "1.5",
            "2",
            "10",
            "100",
            "123456789012345678901234567890",
            "false",
            "true",
            "[null]",
            r#"["z"]"#,
            "[2]",
            "[10]",
            "[true]",
            "[[]]",
            "[{}]",
            "[1, 1]",
            "[1, 2]",
            "{}",
            r#"{"a": 1}"#,
            r#"{"a": 2}"#,
            r#"{"aa": 1}"#,
            r#"{"b": 1}"#,
            r#"{"a": 1, "b": 2}"#,
        ];
        let keys = sorted.map(|text| order(text).expect(text));
        for (at, pair) in keys.windows(2).enumerate() {
            assert!(pair[0] < pair[1], "{} and {}", sorted[at], sorted[at + 1]);
        }
        for (one, other) in
            [("1.0", "1"), ("1e2", "100"), (r#"{"b":1,"a":2}"#, r#"{"a":2.0,"b":1}"#)]
        {
            assert_eq!(order(one), order(other));
        }
    }
}
