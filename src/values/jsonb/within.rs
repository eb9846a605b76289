//! What a JSON text has within it, as parts of that text. The text is taken for JSON: of what is none comes
//! anything.

use std::borrow::Cow;

use super::{Error, MAX_DEPTH, Numbers, Reader, Result, comparable, fault};

/// Whether a text is JSON.
///
/// # Errors
/// It is not, or has too many levels.
pub fn check(text: &str) -> Result<()> {
    bounded(text)?;
    serde_json::from_str::<serde::de::IgnoredAny>(text)
        .map(drop)
        .map_err(|_| Error::Invalid { detail: fault::detail(text, false) })
}

/// What is within a value is read again for each of its levels.
fn bounded(text: &str) -> Result<()> {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(Error::TooDeep);
        }
    }
    Ok(())
}

/// What a value is, as `json_typeof` calls it.
pub fn kind(text: &str) -> &'static str {
    match trimmed(text).bytes().next() {
        Some(b'{') => "object",
        Some(b'[') => "array",
        Some(b'"') => "string",
        Some(b't' | b'f') => "boolean",
        Some(b'n') => "null",
        _ => "number",
    }
}

/// The elements of an array; `None` for what is none.
pub fn elements(text: &str) -> Option<impl Iterator<Item = &str>> {
    (kind(text) == "array").then(|| Within::new(text).map(|(_, value)| value))
}

/// A member of an object: its name, and the text of its value.
type Member<'a> = (Cow<'a, str>, &'a str);

/// The members of an object; `None` for what is no object.
///
/// # Errors
/// A name has what no text can hold.
pub fn members(text: &str) -> Result<Option<Vec<Member<'_>>>> {
    if kind(text) != "object" {
        return Ok(None);
    }
    let members = Within::new(text).map(|(name, value)| Ok((named(name)?, value)));
    members.collect::<Result<_>>().map(Some)
}

/// How many elements an array has; `None` for what is none.
pub fn length(text: &str) -> Option<usize> {
    (kind(text) == "array").then(|| Within::new(text).count())
}

/// The member of an object that has this name, the last of several; `None` if there is none.
///
/// # Errors
/// A name has what no text can hold.
pub fn member<'a>(text: &'a str, name: &str) -> Result<Option<&'a str>> {
    if kind(text) != "object" {
        return Ok(None);
    }
    let mut found = None;
    for (own, value) in Within::new(text) {
        if named(own)? == name {
            found = Some(value);
        }
    }
    Ok(found)
}

/// An element of an array, from the first one on with 0, or from the last one back with -1.
pub fn element(text: &str, at: i64) -> Option<&str> {
    let length = length(text)?;
    let at = match usize::try_from(at) {
        Ok(at) => at,
        Err(_) => length.checked_sub(usize::try_from(at.unsigned_abs()).ok()?)?,
    };
    Within::new(text).nth(at).map(|(_, value)| value)
}

/// What a path leads to: names of members, and numbers of elements.
///
/// # Errors
/// As those of [`member`].
pub fn at_path<'a>(text: &'a str, path: &[&str]) -> Result<Option<&'a str>> {
    let mut place = trimmed(text);
    for step in path {
        let next = match kind(place) {
            "array" => step.trim().parse().ok().and_then(|at| element(place, at)),
            _ => member(place, step)?,
        };
        let Some(next) = next else { return Ok(None) };
        place = next;
    }
    Ok(Some(place))
}

/// A value as text: a string as what it means, and nothing of `null`.
///
/// # Errors
/// It has what no text can hold.
pub fn as_text(value: &str) -> Result<Option<Cow<'_, str>>> {
    let value = trimmed(value);
    Ok(match kind(value) {
        "null" => None,
        "string" => Some(named(value)?),
        _ => Some(Cow::Borrowed(value)),
    })
}

/// Whether a value has all that another one has, as `@>` of `jsonb` means it.
///
/// # Errors
/// Either holds what `jsonb` cannot.
pub fn contains(text: &str, other: &str) -> Result<bool> {
    bounded(text)?;
    bounded(other)?;
    has_all(text, other)
}

fn has_all(text: &str, other: &str) -> Result<bool> {
    // An array may have what is no array.
    if kind(text) == "array" && !matches!(kind(other), "array" | "object") {
        return has_element(text, other);
    }
    match (kind(text), kind(other)) {
        ("object", "object") => {
            for (name, value) in Within::new(other) {
                match member(text, &named(name)?)? {
                    Some(own) if contains_alike(own, value)? => {}
                    _ => return Ok(false),
                }
            }
            Ok(true)
        }
        ("array", "array") => {
            for (_, value) in Within::new(other) {
                if !has_element(text, value)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        _ => contains_alike(text, other),
    }
}

/// The same below the top, where an array has no value that stands beside it.
fn contains_alike(text: &str, other: &str) -> Result<bool> {
    match (kind(text), kind(other)) {
        ("object", "object") | ("array", "array") => has_all(text, other),
        (one, other_kind) if one != other_kind => Ok(false),
        _ => Ok(comparable(text)? == comparable(other)?),
    }
}

fn has_element(array: &str, value: &str) -> Result<bool> {
    for (_, element) in Within::new(array) {
        if contains_alike(element, value)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a text is the name of a member, or a string in an array, or the string that the value is.
///
/// # Errors
/// As those of [`member`].
pub fn has_key(text: &str, key: &str) -> Result<bool> {
    match kind(text) {
        "object" => Ok(member(text, key)?.is_some()),
        "array" => {
            for (_, element) in Within::new(text) {
                if kind(element) == "string" && named(element)? == key {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        "string" => Ok(named(trimmed(text))? == key),
        _ => Ok(false),
    }
}

/// What a string between quotes means.
pub(super) fn named(quoted: &str) -> Result<Cow<'_, str>> {
    let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    match inner {
        Some(inner) if !inner.contains('\\') => Ok(Cow::Borrowed(inner)),
        _ => {
            let numbers = Numbers::AsWritten;
            Reader { rest: quoted, depth: 0, made: 0, numbers }.string().map(Cow::Owned)
        }
    }
}

pub(super) const BLANKS: [char; 4] = [' ', '\t', '\n', '\r'];

fn trimmed(text: &str) -> &str {
    text.trim_matches(BLANKS)
}

/// The values directly within an array or an object, each with its name between quotes, which is nothing in an
/// array.
pub(super) struct Within<'a> {
    rest: &'a str,
    object: bool,
}

impl<'a> Within<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let text = trimmed(text);
        let (rest, object) = match (text.strip_prefix('{'), text.strip_prefix('[')) {
            (Some(rest), _) => (rest, true),
            (None, Some(rest)) => (rest, false),
            (None, None) => ("", false),
        };
        Self { rest, object }
    }

    /// The value with which the rest begins.
    fn value(&mut self) -> Option<&'a str> {
        self.rest = self.rest.trim_start_matches(BLANKS);
        let (value, rest) = self.rest.split_at(size(self.rest));
        self.rest = rest.trim_start_matches(BLANKS);
        (!value.is_empty()).then_some(value)
    }
}

impl<'a> Iterator for Within<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let mut name = "";
        if self.object {
            name = self.value()?;
            self.rest = self.rest.strip_prefix(':')?;
        }
        let value = self.value()?;
        self.rest = self.rest.strip_prefix(',').unwrap_or(self.rest);
        Some((name, value))
    }
}

/// How many bytes the value has with which a text begins.
fn size(text: &str) -> usize {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => {
                quoted = !quoted;
                if !quoted && depth == 0 {
                    return at + 1;
                }
            }
            _ if quoted => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth > 1 => depth -= 1,
            b'}' | b']' => return at + depth,
            b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' if depth == 0 => return at,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against PostgreSQL 15.
    #[test]
    fn values_are_found_as_they_are_written() {
        let text =
            r#" {"a" : [1, {"b": "x,}\"]"} , -2 ], "c": null, "\u0064" :true, "a b":{}, "a":[3]} "#;
        for (path, found) in [
            (&["a"][..], Some("[3]")),
            (&["a", "0"], Some("3")),
            (&["a", "-1"], Some("3")),
            (&["a", "1"], None),
            (&["c"], Some("null")),
            (&["d"], Some("true")),
            (&["a b"], Some("{}")),
            (&["c", "d"], None),
            (&["x"], None),
            (&["a", "x"], None),
        ] {
            assert_eq!(at_path(text, path), Ok(found), "{path:?}");
        }
        let array = r#"[1, {"b": "x,}\"]"} , -2 ]"#;
        assert_eq!(length(array), Some(3));
        assert_eq!(element(array, 1), Some(r#"{"b": "x,}\"]"}"#));
        assert_eq!(element(array, -3), Some("1"));
        assert_eq!((element(array, -4), element(array, 3)), (None, None));
        assert_eq!((length("[ ]"), length("{}"), length("1")), (Some(0), None, None));
        assert_eq!(as_text(r#""a\n\u00e9""#), Ok(Some("a\né".into())));
        assert_eq!(as_text(" null"), Ok(None));
        assert_eq!(as_text(r#""\u0000""#), Err(Error::ZeroByte));
    }

    /// Against PostgreSQL 15.
    #[test]
    fn a_value_has_another_where_all_of_it_is_there() {
        for (text, other, expected) in [
            (r#"{"a": 1, "b": [1, 2, {"c": 3}]}"#, r#"{"b": [{"c": 3.0}]}"#, true),
            (r#"{"a": 1}"#, r#"{"a": 2}"#, false),
            (r#"{"a": [1]}"#, r#"{"a": 1}"#, false),
            ("[1, 2, 2]", "[2, 2, 1]", true),
            ("[1, 2]", "1", true),
            ("1", "[1]", false),
            ("[[1, 2]]", "[[1]]", true),
            ("[[1, 2]]", "[1]", false),
            (r#"[{"a": 1}]"#, r#"{"a": 1}"#, false),
            ("{}", "{}", true),
            ("[]", "{}", false),
            (r#""x""#, r#""x""#, true),
        ] {
            assert_eq!(contains(text, other), Ok(expected), "{text} {other}");
        }
        let keys = [(r#"{"a": 1}"#, true), (r#"["b", "a"]"#, true), (r#""a""#, true), ("1", false)];
        for (text, expected) in keys {
            assert_eq!(has_key(text, "a"), Ok(expected), "{text}");
        }
    }

    #[test]
    fn levels_are_bounded() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        let (most, deep) = (nested(MAX_DEPTH), nested(MAX_DEPTH + 1));
        assert_eq!((check(&most), contains(&most, &most)), (Ok(()), Ok(true)));
        assert_eq!(check(&deep), Err(Error::TooDeep));
        assert_eq!(contains(&deep, "[]"), Err(Error::TooDeep));
        assert_eq!(contains("[]", &deep), Err(Error::TooDeep));
        assert_eq!(check(&format!("[{}]", vec![r#""[[[""#; 99].join(","))), Ok(()));
    }

    #[test]
    fn what_is_no_json_ends() {
        for text in ["{", "[1", "{\"a\"", "{\"a\" 1}", "[,]", "{:}", "\"", "\\", "[é, \"ü"] {
            assert!(Within::new(text).count() < 3, "{text}");
            assert!(matches!(check(text), Err(Error::Invalid { .. })), "{text}");
        }
    }
}
