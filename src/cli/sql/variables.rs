//! Variables of `\set` and `-v`, put into statements: `:name` as it is, `:'name'` as a literal,
//! `:"name"` as an identifier. What is not set stays as it stands.

use std::collections::BTreeMap;

use super::describe::literal;
use super::scan;

pub fn interpolate(sql: &str, variables: &BTreeMap<String, String>) -> String {
    if variables.is_empty() || !sql.contains(':') {
        return sql.to_owned();
    }
    let (mut text, mut from) = (String::new(), 0);
    for at in scan::colons(sql) {
        if at < from {
            continue;
        }
        let rest = &sql[at + 1..];
        let quote = rest.chars().next().filter(|first| matches!(first, '\'' | '"'));
        let name = &rest[quote.map_or(0, char::len_utf8)..];
        let end = name.find(|letter: char| !(letter.is_alphanumeric() || letter == '_'));
        let name = &name[..end.unwrap_or(name.len())];
        let closed = quote.is_none_or(|quote| rest[1 + name.len()..].starts_with(quote));
        let Some(value) = variables.get(name).filter(|_| closed && !name.is_empty()) else {
            continue;
        };
        text.push_str(&sql[from..at]);
        match quote {
            Some('\'') => text.push_str(&literal(value)),
            Some(_) => text.push_str(&format!("\"{}\"", value.replace('"', "\"\""))),
            None => text.push_str(value),
        }
        from = at + 1 + name.len() + if quote.is_some() { 2 } else { 0 };
    }
    text + &sql[from..]
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
    }
}
