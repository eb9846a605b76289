//! What changes a `jsonb` value, as PostgreSQL 15 does (`IteratorConcat`, `setPath` and `jsonb_delete` of
//! `jsonfuncs.c`). All take the texts of values, and give that of another one.

use super::tree::{Value, key};
use super::within::{BLANKS, Within, kind, named};
use super::{Error, Numbers, Result, quoted, read};

/// Why a value is not changed so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("cannot delete from scalar")]
    DeleteFromScalar,
    #[error("cannot delete from object using integer index")]
    NumberOfObject,
    #[error("cannot delete path in scalar")]
    DeletePathInScalar,
    #[error("cannot set path in scalar")]
    SetPathInScalar,
    #[error("cannot replace existing key")]
    ReplaceKey,
    #[error("path element at position {0} is null")]
    NullStep(usize),
    #[error("path element at position {position} is not an integer: \"{step}\"")]
    NoNumber { position: usize, step: String },
}

impl Refusal {
    /// The error code that PostgreSQL gives in this case.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            Self::NullStep(_) => "22004",
            Self::NoNumber { .. } => "22P02",
            _ => "22023",
        }
    }
}

fn value(text: &str) -> Result<Value> {
    read(text, Numbers::AsWritten)
}

/// `||`: the members of both objects, or the elements of both arrays; what is no array beside one is an
/// element.
pub fn concat(left: &str, right: &str) -> Result<String> {
    let joined = match (value(left)?, value(right)?) {
        (Value::Object(mut members), Value::Object(more)) => {
            members.extend(more);
            Value::Object(members)
        }
        (left, right) => {
            let mut items = items_of(left);
            items.extend(items_of(right));
            Value::Array(items)
        }
    };
    joined.text()
}

fn items_of(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items,
        other => vec![other],
    }
}

/// `-` of texts: members of these names, or elements that are these strings.
pub fn without_names(text: &str, names: &[&str]) -> Result<String> {
    let mut value = value(text)?;
    match &mut value {
        Value::Plain(_) => return Err(Refusal::DeleteFromScalar.into()),
        Value::Object(members) => names.iter().for_each(|name| drop(members.remove(&key(name)))),
        Value::Array(items) => {
            let names: Vec<String> = names.iter().map(|name| quoted(name)).collect();
            items.retain(|item| !matches!(item, Value::Plain(text) if names.contains(text)));
        }
    }
    value.text()
}

/// `-` of a number: that element, from the first one on with 0, or from the last one back with -1.
pub fn without_element(text: &str, at: i64) -> Result<String> {
    let mut value = value(text)?;
    match &mut value {
        Value::Plain(_) => return Err(Refusal::DeleteFromScalar.into()),
        Value::Object(_) => return Err(Refusal::NumberOfObject.into()),
        Value::Array(items) => {
            if let Some(at) = place(at, items.len()).filter(|at| *at < items.len()) {
                items.remove(at);
            }
        }
    }
    value.text()
}

/// The place of an element; `None` before the first.
fn place(at: i64, length: usize) -> Option<usize> {
    match usize::try_from(at) {
        Ok(at) => Some(at),
        Err(_) => length.checked_sub(usize::try_from(at.unsigned_abs()).ok()?),
    }
}

/// What is done at the end of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    Delete,
    /// Takes the place of what is there.
    Replace,
    /// The same, and is put where nothing is.
    Set,
    InsertBefore,
    InsertAfter,
}

impl Deed {
    fn creates(self) -> bool {
        matches!(self, Self::Set | Self::InsertBefore | Self::InsertAfter)
    }

    fn inserts(self) -> bool {
        matches!(self, Self::InsertBefore | Self::InsertAfter)
    }
}

/// `#-`, `jsonb_set` and `jsonb_insert`. `new` is what is put there, unless that is deleted.
pub fn at_path(text: &str, path: &[Option<&str>], deed: Deed, new: &str) -> Result<String> {
    let mut whole = value(text)?;
    let refusal = match (&whole, deed) {
        (Value::Plain(_), Deed::Delete) => Some(Refusal::DeletePathInScalar),
        (Value::Plain(_), _) => Some(Refusal::SetPathInScalar),
        _ => None,
    };
    if let Some(refusal) = refusal {
        return Err(refusal.into());
    }
    let new = if deed == Deed::Delete { Value::Plain(String::new()) } else { value(new)? };
    let empty = match &whole {
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Plain(_) => false,
    };
    if !path.is_empty() && (!empty || deed.creates()) {
        Change { path, deed, new }.apply(&mut whole, 0)?;
    }
    whole.text()
}

struct Change<'a> {
    path: &'a [Option<&'a str>],
    deed: Deed,
    new: Value,
}

impl Change<'_> {
    fn apply(&self, value: &mut Value, level: usize) -> Result<()> {
        let last = level + 1 == self.path.len();
        let Some(step) = self.path.get(level) else { return Ok(()) };
        if matches!(value, Value::Plain(_)) {
            return Ok(());
        }
        let step = step.ok_or(Refusal::NullStep(level + 1))?;
        match value {
            Value::Plain(_) => {}
            Value::Object(members) => {
                let key = key(step);
                match members.get_mut(&key) {
                    Some(_) if last && self.deed.inserts() => {
                        return Err(Refusal::ReplaceKey.into());
                    }
                    Some(_) if last && self.deed == Deed::Delete => drop(members.remove(&key)),
                    Some(found) if last => *found = self.new.clone(),
                    Some(found) => self.apply(found, level + 1)?,
                    None if last && self.deed.creates() => {
                        members.insert(key, self.new.clone());
                    }
                    None => {}
                }
            }
            Value::Array(items) => {
                let at = step.trim_start().parse::<i32>().map_err(|_| Refusal::NoNumber {
                    position: level + 1,
                    step: step.to_owned(),
                })?;
                let at = place(at.into(), items.len());
                match at.filter(|at| *at < items.len()) {
                    Some(at) if last => match self.deed {
                        Deed::Delete => drop(items.remove(at)),
                        Deed::Replace | Deed::Set => items[at] = self.new.clone(),
                        Deed::InsertBefore => items.insert(at, self.new.clone()),
                        Deed::InsertAfter => items.insert(at + 1, self.new.clone()),
                    },
                    Some(at) => self.apply(&mut items[at], level + 1)?,
                    // Before the first, or behind the last.
                    None if last && self.deed.creates() => {
                        let at = if at.is_none() { 0 } else { items.len() };
                        items.insert(at, self.new.clone());
                    }
                    None => {}
                }
            }
        }
        Ok(())
    }
}

/// `jsonb_strip_nulls`: without members that are null, at any depth.
pub fn without_nulls(text: &str) -> Result<String> {
    let mut value = value(text)?;
    strip(&mut value);
    value.text()
}

fn strip(value: &mut Value) {
    match value {
        Value::Plain(_) => {}
        Value::Array(items) => items.iter_mut().for_each(strip),
        Value::Object(members) => {
            members.retain(|_, value| !matches!(value, Value::Plain(text) if text == "null"));
            members.values_mut().for_each(strip);
        }
    }
}

/// `json_strip_nulls`: the same of a text that stays as it is but for the blanks.
pub fn json_without_nulls(text: &str) -> Result<String> {
    let text = text.trim_matches(BLANKS);
    let (open, close) = match kind(text) {
        "object" => ('{', '}'),
        "array" => ('[', ']'),
        "string" => return Ok(quoted(&named(text)?)),
        _ => return Ok(text.to_owned()),
    };
    let mut stripped = String::from(open);
    for (name, value) in Within::new(text) {
        if open == '{' && value == "null" {
            continue;
        }
        if stripped.len() > 1 {
            stripped.push(',');
        }
        if open == '{' {
            stripped.push_str(&quoted(&named(name)?));
            stripped.push(':');
        }
        stripped.push_str(&json_without_nulls(value)?);
    }
    stripped.push(close);
    Ok(stripped)
}

/// `jsonb_pretty`
pub fn pretty(text: &str) -> Result<String> {
    value(text)?.pretty()
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against PostgreSQL 15.
    #[test]
    fn values_are_joined() {
        for (left, right, expected) in [
            (r#"{"a": 1, "b": 2}"#, r#"{"b": 3}"#, r#"{"a": 1, "b": 3}"#),
            ("1", r#"{"a": 1}"#, r#"[1, {"a": 1}]"#),
            (r#"{"a":1}"#, "[]", r#"[{"a": 1}]"#),
            ("[]", "{}", "[{}]"),
            ("{}", "1", "[{}, 1]"),
            ("1", "2", "[1, 2]"),
            ("1", "[]", "[1]"),
            ("[1]", "[2, 3]", "[1, 2, 3]"),
        ] {
            assert_eq!(concat(left, right).as_deref(), Ok(expected), "{left} || {right}");
        }
    }

    /// Against PostgreSQL 15.
    #[test]
    fn what_a_path_leads_to_is_changed() {
        use Deed::{Delete, InsertAfter, InsertBefore, Replace, Set};
        for (text, path, deed, expected) in [
            (r#"{"a": 1}"#, &["b"][..], Set, r#"{"a": 1, "b": 9}"#),
            (r#"{"a": 1}"#, &["b"], Replace, r#"{"a": 1}"#),
            (r#"{"a": 1}"#, &["b", "c"], Set, r#"{"a": 1}"#),
            (r#"{"a": 1}"#, &["a", "b"], Set, r#"{"a": 1}"#),
            (r#"{"a": {"b": 1}}"#, &["a", "b"], Set, r#"{"a": {"b": 9}}"#),
            ("{}", &[], Set, "{}"),
            ("[1, 2]", &["5"], Set, "[1, 2, 9]"),
            ("[1, 2]", &["-5"], Set, "[9, 1, 2]"),
            ("[1, 2]", &["-1"], Set, "[1, 9]"),
            ("[]", &["3"], Set, "[9]"),
            ("[1, 2]", &["1"], InsertBefore, "[1, 9, 2]"),
            ("[1, 2]", &["1"], InsertAfter, "[1, 2, 9]"),
            ("[1, 2]", &["-1"], InsertBefore, "[1, 9, 2]"),
            (r#"{"a": [1, 2]}"#, &["a", "-1"], Delete, r#"{"a": [1]}"#),
            (r#"{"a": [1, 2]}"#, &["a", "5"], Delete, r#"{"a": [1, 2]}"#),
        ] {
            let path: Vec<Option<&str>> = path.iter().copied().map(Some).collect();
            assert_eq!(at_path(text, &path, deed, "9").as_deref(), Ok(expected), "{text} {path:?}");
        }
        let refused = |text, path: &[Option<&str>], deed| at_path(text, path, deed, "9").err();
        let number = Refusal::NoNumber { position: 1, step: "x".to_owned() };
        for (text, path, deed, refusal) in [
            ("1", Some("a"), Set, Refusal::SetPathInScalar),
            ("1", Some("a"), Delete, Refusal::DeletePathInScalar),
            ("[1]", Some("x"), Set, number),
            (r#"{"a": 1}"#, None, Set, Refusal::NullStep(1)),
            (r#"{"a": 1}"#, Some("a"), InsertBefore, Refusal::ReplaceKey),
        ] {
            assert_eq!(refused(text, &[path], deed), Some(Error::Refused(refusal)), "{text}");
        }
    }

    /// Against PostgreSQL 15.
    #[test]
    fn members_and_elements_are_taken_away() {
        assert_eq!(without_names(r#"{"a": 1, "b": 2}"#, &["a", "x"]).as_deref(), Ok(r#"{"b": 2}"#));
        assert_eq!(without_names(r#"["a", "b", 1]"#, &["a"]).as_deref(), Ok(r#"["b", 1]"#));
        for (at, expected) in [(1, "[1, 3]"), (-1, "[1, 2]"), (5, "[1, 2, 3]"), (-9, "[1, 2, 3]")] {
            assert_eq!(without_element("[1, 2, 3]", at).as_deref(), Ok(expected), "{at}");
        }
        assert_eq!(without_element("{}", 0), Err(Refusal::NumberOfObject.into()));
        assert_eq!(without_names("1", &["a"]), Err(Refusal::DeleteFromScalar.into()));
        let nulls = r#"{"a": null, "b": [null, {"c": null}], "d": {"e": null}}"#;
        assert_eq!(without_nulls(nulls).as_deref(), Ok(r#"{"b": [null, {}], "d": {}}"#));
        let json = r#"{"a" : null, "b": [null, {"c":null}], "b":"\u0041\n",  "d":{"e":1e2}}"#;
        let expected = r#"{"b":[null,{}],"b":"A\n","d":{"e":1e2}}"#;
        assert_eq!(json_without_nulls(json).as_deref(), Ok(expected));
    }

    /// Against PostgreSQL 15.
    #[test]
    fn pretty_values_have_a_line_for_each_part() {
        let lines =
            "{\n    \"a\": [\n        1,\n        {\n        }\n    ],\n    \"c\": \"x\"\n}";
        assert_eq!(pretty(r#"{"a":[1,{}],"c":"x"}"#).as_deref(), Ok(lines));
        assert_eq!(pretty("[]").as_deref(), Ok("[\n]"));
        let deep = "[".repeat(100) + &vec!["1"; 1 << 18].join(",") + &"]".repeat(100);
        assert_eq!(pretty(&deep), Err(Error::TooLarge));
    }

    #[test]
    fn what_is_put_deep_down_does_not_get_too_deep() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        let path = [Some("0"); 100];
        assert_eq!(at_path(&nested(101), &path, Deed::Set, &nested(50)), Err(Error::TooDeep));
    }
}
