//! Settings while they are gathered, from the defaults up.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use toml::de::DeTable;
use toml::{Table, Value};

use super::{Config, DEFAULTS, ENV_PREFIX, Error, Result, strange};

/// Each value with the place it came from, for messages.
pub(super) struct Layers {
    values: Table,
    origins: BTreeMap<String, String>,
    /// On which line of the file a value stands, of those that come from one.
    lines: BTreeMap<String, usize>,
    /// What is wrong so far: all of it is told at once.
    wrong: Vec<Error>,
}

impl Layers {
    pub fn new() -> Result<Self> {
        Ok(Self::on(parse("config/oribi.toml", DEFAULTS)?))
    }

    /// On top of settings that are there.
    pub fn on(values: Table) -> Self {
        Self { values, origins: BTreeMap::new(), lines: BTreeMap::new(), wrong: Vec::new() }
    }

    pub fn has(&self, key: &str) -> bool {
        flatten(self.values.clone()).contains_key(key)
    }

    /// The settings as they are, if they are some.
    pub fn values(self) -> Option<Config> {
        typed(self.values).ok()
    }

    pub fn add_file(&mut self, origin: &str, text: &str) -> Result<()> {
        let table = parse(origin, text)?;
        let lines = lines(text);
        let misplaced = misplaced(&self.values, &table);
        let is_misplaced = |key: &str| {
            let below = |(above, _): &(String, String)| {
                let rest = key.strip_prefix(above.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            misplaced.iter().any(below)
        };
        for (key, value) in flatten(table) {
            if is_misplaced(&key) {
                continue;
            }
            let Some(slot) = find(&mut self.values, &key) else {
                let nearest = strange::nearest(&key, self.keys());
                let origin = on_line(origin, lines.get(&key));
                self.wrong.push(Error::UnknownKey { origin, key, nearest });
                continue;
            };
            *slot = value;
            self.origins.insert(key, origin.to_owned());
        }
        self.wrong.extend(misplaced.into_iter().map(|(key, reason)| {
            let origin = on_line(origin, lines.get(&key));
            Error::BadValue { origin, key, reason }
        }));
        self.lines = lines;
        Ok(())
    }

    fn keys(&self) -> impl Iterator<Item = String> + use<> {
        flatten(self.values.clone()).into_keys()
    }

    /// Takes a variable that names a setting, and refuses one with the prefix that nobody is known to
    /// set: a setting that is spelt wrong must not go unnoticed.
    pub fn add_variable(&mut self, name: &str, value: &str) {
        let Some(wanted) = name.strip_prefix(ENV_PREFIX) else { return };
        match self.keys().find(|key| strange::folded(key) == wanted) {
            Some(key) => self.set(&key, value, name.to_owned()),
            None if strange::is_known(wanted, value) => {}
            None => {
                let nearest = strange::nearest(wanted, self.keys());
                let nearest = nearest.map(|key| format!("{ENV_PREFIX}{}", strange::folded(&key)));
                self.wrong.push(Error::UnknownVariable { name: name.to_owned(), nearest });
            }
        }
    }

    pub fn set(&mut self, key: &str, text: &str, origin: String) {
        if let Some(slot) = find(&mut self.values, key) {
            *slot = match slot {
                // Text that is no number stays text, and is refused with its key in `finish`.
                Value::Integer(_) => text.parse().map_or_else(|_| text.into(), Value::Integer),
                _ => text.into(),
            };
            self.origins.insert(key.to_owned(), origin);
            self.lines.remove(key);
        }
    }

    /// Where a value stands, for messages.
    fn place(&self, key: &str) -> String {
        let origin = self.origins.get(key).map(String::as_str).unwrap_or_default();
        on_line(origin, self.lines.get(key))
    }

    /// Checks each value on its own, so that a message can name its key and where it was set.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn finish(mut self) -> Result<Config> {
        let defaults = parse("config/oribi.toml", DEFAULTS)?;
        for (key, value) in flatten(self.values.clone()) {
            let with = |value: Value| {
                let mut one = defaults.clone();
                if let Some(slot) = find(&mut one, &key) {
                    *slot = value;
                }
                typed::<Config>(one)
            };
            let reason = match with(value.clone()).map(|config| config.check()) {
                Ok(Ok(())) => continue,
                // What it must be is said of the value.
                Ok(Err(reason)) if reason.starts_with("must ") => format!("{value} {reason}"),
                Ok(Err(reason)) => reason,
                Err(said) => {
                    let default = find(&mut defaults.clone(), &key).cloned();
                    reason(default.as_ref(), &value, &said, with)
                }
            };
            let origin = self.place(&key);
            self.wrong.push(Error::BadValue { origin, key, reason });
        }
        only(self.wrong)?;
        let mut config: Config = typed(self.values).map_err(|reason| Error::BadValue {
            origin: String::new(),
            key: String::new(),
            reason,
        })?;
        config.settle();
        let config = Config { origins: self.origins, ..config };
        let checks = [config.check_places(), config.check_ports(), config.check_rules()];
        only(checks.into_iter().filter_map(Result::err).collect())?;
        Ok(config)
    }
}

/// What is wrong, if anything is.
fn only(mut wrong: Vec<Error>) -> Result<()> {
    match (wrong.pop(), wrong.is_empty()) {
        (None, _) => Ok(()),
        (Some(one), true) => Err(one),
        (Some(last), false) => {
            wrong.push(last);
            Err(Error::Several(wrong))
        }
    }
}

fn typed<T: DeserializeOwned>(values: Table) -> Result<T, String> {
    Value::Table(values).try_into().map_err(|error: toml::de::Error| error.message().to_owned())
}

/// What is wrong with a value that is not taken in a setting with this default; `said` is serde's word for it,
/// and `with` tries another value in its place.
fn reason(
    default: Option<&Value>,
    value: &Value,
    said: &str,
    with: impl Fn(Value) -> Result<Config, String>,
) -> String {
    match (default, value) {
        (Some(Value::Integer(default)), Value::Integer(number)) => {
            let how = if *number < 0 { "negative" } else { "too large" };
            format!("{number} is {how}: it takes a whole number such as {default}")
        }
        (Some(Value::Integer(default)), other) => {
            format!("{other} is no whole number such as {default}")
        }
        (_, Value::Array(_)) => format!(
            "{value} is a list, and it takes one text in quotes (several things stand in it with commas between)"
        ),
        (_, Value::String(_)) => in_words(said),
        // A number where there is to be text may be one that would do as text.
        (_, other) => match with(Value::String(other.to_string())) {
            Ok(_) => format!("{other} is no text: write it in quotes, \"{other}\""),
            Err(said) => in_words(&said),
        },
    }
}

/// Sections in a setting's place, and values in a section's: the keys, and what is wrong with them.
fn misplaced(known: &Table, given: &Table) -> Vec<(String, String)> {
    let both = given.iter().filter_map(|(key, value)| Some((key, known.get(key)?, value)));
    let wrong = both.flat_map(|(key, known, value)| match (known, value) {
        (Value::Table(known), Value::Table(given)) => {
            let below = misplaced(known, given).into_iter();
            below.map(|(inner, reason)| (format!("{key}.{inner}"), reason)).collect()
        }
        (Value::Table(known), other) => {
            let first = known.keys().next().map_or("", String::as_str);
            let reason = format!(
                "{other} is the value of no setting: \"{key}\" is a section, whose settings stand below \
                 [{key}], such as {first}"
            );
            vec![(key.clone(), reason)]
        }
        (default, Value::Table(_)) => {
            let reason = format!("it is a setting and no section: it takes a value such as {default}");
            vec![(key.clone(), reason)]
        }
        _ => Vec::new(),
    });
    wrong.collect()
}

/// The line, from 1, on which the value of each key stands in a file.
fn lines(text: &str) -> BTreeMap<String, usize> {
    fn each(text: &str, table: &DeTable<'_>, above: &str, lines: &mut BTreeMap<String, usize>) {
        for (key, value) in table {
            let path = format!("{above}{}", key.get_ref());
            let before = text.get(..key.span().start).unwrap_or_default();
            lines.insert(path.clone(), before.matches('\n').count() + 1);
            if let Some(inner) = value.get_ref().as_table() {
                each(text, inner, &format!("{path}."), lines);
            }
        }
    }
    let mut lines = BTreeMap::new();
    if let Ok(table) = DeTable::parse(text) {
        each(text, table.get_ref(), "", &mut lines);
    }
    lines
}

fn on_line(origin: &str, line: Option<&usize>) -> String {
    match line {
        Some(line) => format!("{origin}, line {line}"),
        None => origin.to_owned(),
    }
}

/// Serde's words for a value that is not one of a list, as people say it; others as they are.
fn in_words(said: &str) -> String {
    let parts =
        said.strip_prefix("unknown variant ").and_then(|rest| rest.split_once(", expected "));
    let Some((value, known)) = parts else { return said.to_owned() };
    let known = known.trim_start_matches("one of ").replace(" or ", ", ");
    format!("{value} is none of {known}").replace('`', "\"")
}

fn parse(origin: &str, text: &str) -> Result<Table> {
    text.parse()
        .map_err(|source| Error::Syntax { origin: origin.to_owned(), source: Box::new(source) })
}

/// All values with their keys as `section.key`.
pub(super) fn flatten(table: Table) -> BTreeMap<String, Value> {
    let mut flat = BTreeMap::new();
    for (key, value) in table {
        match value {
            Value::Table(section) => {
                for (inner, value) in flatten(section) {
                    flat.insert(format!("{key}.{inner}"), value);
                }
            }
            value => drop(flat.insert(key, value)),
        }
    }
    flat
}

pub(super) fn find<'a>(table: &'a mut Table, key: &str) -> Option<&'a mut Value> {
    match key.split_once('.') {
        None => table.get_mut(key).filter(|value| !value.is_table()),
        Some((section, rest)) => find(table.get_mut(section)?.as_table_mut()?, rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let file = "datadir = '/d'\nengine = 3\nid = 5\n[query]\nlimit = 1\n[console]\nidle = 'soon'\n\
                    [history.keep]\nx = 1\n";
        let mut layers = Layers::new().expect("the defaults");
        layers.add_file("test.toml", file).expect("it is TOML");
        layers.add_variable("ORIBI_NOTHING", "1");
        layers.add_variable("ORIBI_WEB", "here");
        let told = layers.finish().expect_err("much is wrong").to_string();
        assert!(told.starts_with("8 things are wrong:\n- "), "{told}");
        for part in [
            "test.toml, line 1: there is no setting \"datadir\"",
            "test.toml, line 2: setting \"engine\": 3 is the value of no setting",
            "test.toml, line 3: setting \"id\": 5 is no text",
            "test.toml, line 5: there is no setting \"query.limit\"",
            "test.toml, line 7: setting \"console.idle\": \"soon\" is no duration",
            "setting \"history.keep\": it is a setting and no section",
            "ORIBI_NOTHING is no setting",
            "ORIBI_WEB: setting \"web\": \"here\" is no address",
        ] {
            assert_eq!(told.matches(part).count(), 1, "{part}: {told}");
        }
    }
}
