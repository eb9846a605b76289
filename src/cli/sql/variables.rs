//! Variables of `\set` and `-v`, put into statements: `:name` as it is, `:'name'` as a literal,
//! `:"name"` as an identifier, `:{?name}` whether there is one. What is not set stays as it stands.
//! Into the arguments of commands as well, where each stays one word. `\;` and `\:` stand for a semicolon that
//! ends nothing and a colon that begins no name.

use std::collections::BTreeMap;

use super::describe::literal;
use super::scan;

pub type Variables = BTreeMap<String, String>;

/// A statement as it is sent.
pub fn interpolate(sql: &str, variables: &Variables) -> String {
    scan::unescaped(&put_in(sql, variables))
}

fn put_in(sql: &str, variables: &Variables) -> String {
    if !sql.contains(':') {
        return sql.to_owned();
    }
    let (mut text, mut from) = (String::new(), 0);
    for at in scan::colons(sql) {
        if at < from {
            continue;
        }
        let Some((value, length)) = reference(&sql[at..], variables) else { continue };
        text.push_str(&sql[from..at]);
        text.push_str(&value);
        from = at + length;
    }
    text + &sql[from..]
}

/// What stands in place of the reference that a text begins with, if it does, and its bytes.
fn reference(text: &str, variables: &Variables) -> Option<(String, usize)> {
    let rest = text.strip_prefix(':')?;
    let end_of = |name: &str| {
        name.find(|letter: char| !(letter.is_alphanumeric() || letter == '_')).unwrap_or(name.len())
    };
    if let Some(name) = rest.strip_prefix("{?") {
        let end = end_of(name);
        let known = if variables.contains_key(&name[..end]) { "TRUE" } else { "FALSE" };
        return name[end..].starts_with('}').then(|| (known.to_owned(), end + 4));
    }
    let quote = rest.chars().next().filter(|first| matches!(first, '\'' | '"'));
    let name = &rest[quote.map_or(0, char::len_utf8)..];
    let name = &name[..end_of(name)];
    let value = variables.get(name)?;
    let Some(quote) = quote else { return Some((value.clone(), 1 + name.len())) };
    let put = match quote {
        '\'' => literal(value),
        _ => format!("\"{}\"", value.replace('"', "\"\"")),
    };
    rest[1 + name.len()..].starts_with(quote).then(|| (put, name.len() + 3))
}

/// Arguments between spaces; quotes hold one together. Single ones are taken off, with what is escaped in
/// them.
pub fn arguments(text: &str, variables: &Variables) -> Vec<String> {
    let (mut all, mut word, mut begun) = (Vec::new(), String::new(), false);
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        if let Some((value, length)) = reference(rest, variables) {
            begun = true;
            word.push_str(&value);
            rest = &rest[length..];
            continue;
        }
        rest = &rest[character.len_utf8()..];
        match character {
            '\'' => {
                begun = true;
                rest = unquoted(rest, &mut word);
            }
            '"' => {
                // Part of the name, as patterns want it.
                begun = true;
                let end = rest.find('"').map_or(rest.len(), |at| at + 1);
                word.push('"');
                word.push_str(&rest[..end]);
                rest = &rest[end..];
            }
            character if character.is_whitespace() => {
                if begun {
                    all.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            character => {
                begun = true;
                word.push(character);
            }
        }
    }
    if begun {
        all.push(word);
    }
    all
}

/// Adds what stands up to the next single quote; what is behind it.
fn unquoted<'a>(text: &'a str, word: &mut String) -> &'a str {
    let mut characters = text.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        match character {
            '\'' if characters.peek().is_some_and(|(_, next)| *next == '\'') => {
                characters.next();
                word.push('\'');
            }
            '\'' => return &text[at + 1..],
            '\\' => word.push(match characters.next() {
                Some((_, 'n')) => '\n',
                Some((_, 't')) => '\t',
                other => other.map_or('\\', |(_, escaped)| escaped),
            }),
            character => word.push(character),
        }
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_put_in_outside_of_literals() {
        let variables = BTreeMap::from([("a".to_owned(), "it's".to_owned())]);
        let put = |sql| interpolate(sql, &variables);
        assert_eq!(put("SELECT :a, :'a', :\"a\""), "SELECT it's, 'it''s', \"it's\"");
        assert_eq!(
            put("SELECT ':a', x::a, :b, $$:a$$ -- :a"),
            "SELECT ':a', x::a, :b, $$:a$$ -- :a"
        );
        assert_eq!(put("SELECT a[1:a]"), "SELECT a[1it's]");
        assert_eq!(put("SELECT :{?a}, :{?b}, :{a}"), "SELECT TRUE, FALSE, :{a}");
        assert_eq!(put("SELECT 1\\; SELECT '\\;', x[1\\:a]"), "SELECT 1; SELECT '\\;', x[1:a]");
    }

    #[test]
    fn arguments_are_told_apart() {
        let variables = BTreeMap::from([("a".to_owned(), "x y".to_owned())]);
        let told = |text| arguments(text, &variables);
        assert_eq!(told("a 'b c' \"D e\".f '' 'it''s'"), ["a", "b c", "\"D e\".f", "", "it's"]);
        assert_eq!(told("1:a2 :a :'a' ':a' :b"), ["1:a2", "x y", "'x y'", ":a", ":b"]);
        assert_eq!(told("'a\\tb\\'c"), ["a\tb'c"]);
    }
}
