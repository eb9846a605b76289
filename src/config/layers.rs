//! Settings while they are gathered, from the defaults up.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::{Config, DEFAULTS, ENV_PREFIX, Error, Result, strange};

/// Each value with the place it came from, for messages.
pub(super) struct Layers {
    values: Table,
    origins: BTreeMap<String, String>,
}

impl Layers {
    pub fn new() -> Result<Self> {
        Ok(Self { values: parse("config/oribi.toml", DEFAULTS)?, origins: BTreeMap::new() })
    }

    /// On top of settings that are there.
    pub fn on(values: Table) -> Self {
        Self { values, origins: BTreeMap::new() }
    }

    pub fn has(&self, key: &str) -> bool {
        flatten(self.values.clone()).contains_key(key)
    }

    /// The settings as they are, if they are some.
    pub fn values(self) -> Option<Config> {
        typed(self.values).ok()
    }

    pub fn add_file(&mut self, origin: &str, text: &str) -> Result<()> {
        for (key, value) in flatten(parse(origin, text)?) {
            let Some(slot) = find(&mut self.values, &key) else {
                let nearest = strange::nearest(&key, self.keys());
                return Err(Error::UnknownKey { origin: origin.to_owned(), key, nearest });
            };
            *slot = value;
            self.origins.insert(key, origin.to_owned());
        }
        Ok(())
    }

    fn keys(&self) -> impl Iterator<Item = String> + use<> {
        flatten(self.values.clone()).into_keys()
    }

    /// Takes a variable that names a setting, and refuses one with the prefix that nobody is known to
    /// set: a setting that is spelt wrong must not go unnoticed.
    pub fn add_variable(&mut self, name: &str, value: &str) -> Result<()> {
        let Some(wanted) = name.strip_prefix(ENV_PREFIX) else { return Ok(()) };
        match self.keys().find(|key| strange::folded(key) == wanted) {
            Some(key) => self.set(&key, value, name.to_owned()),
            None if strange::is_known(wanted, value) => {}
            None => {
                let nearest = strange::nearest(wanted, self.keys());
                let nearest = nearest.map(|key| format!("{ENV_PREFIX}{}", strange::folded(&key)));
                return Err(Error::UnknownVariable { name: name.to_owned(), nearest });
            }
        }
        Ok(())
    }

    pub fn set(&mut self, key: &str, text: &str, origin: String) {
        if let Some(slot) = find(&mut self.values, key) {
            *slot = match slot {
                // Text that is no number stays text, and is refused with its key in `finish`.
                Value::Integer(_) => text.parse().map_or_else(|_| text.into(), Value::Integer),
                _ => text.into(),
            };
            self.origins.insert(key.to_owned(), origin);
        }
    }

    /// Checks each value on its own, so that a message can name its key and where it was set.
    pub fn finish(self) -> Result<Config> {
        let defaults = parse("config/oribi.toml", DEFAULTS)?;
        for (key, value) in flatten(self.values.clone()) {
            let mut one = defaults.clone();
            let mut plain = None;
            if let Some(slot) = find(&mut one, &key) {
                plain = wrong_kind(slot, &value);
                *slot = value;
            }
            let origin = self.origins.get(&key).cloned().unwrap_or_default();
            let error = |reason| Error::BadValue { origin, key, reason };
            let config: Config = typed(one)
                .map_err(|said| error.clone()(plain.unwrap_or_else(|| in_words(&said))))?;
            config.check().map_err(error)?;
        }
        let config: Config = typed(self.values).map_err(|reason| Error::BadValue {
            origin: String::new(),
            key: String::new(),
            reason,
        })?;
        let config = Config { origins: self.origins, ..config };
        config.check_places()?;
        config.check_rules()?;
        Ok(config)
    }
}

fn typed<T: DeserializeOwned>(values: Table) -> Result<T, String> {
    Value::Table(values).try_into().map_err(|error: toml::de::Error| error.message().to_owned())
}

/// What is wrong with a value of another kind than the setting's default, should it be wrong.
fn wrong_kind(default: &Value, value: &Value) -> Option<String> {
    match (default, value) {
        (Value::Integer(_), Value::Integer(number)) if *number < 0 => {
            Some(format!("{number} is negative"))
        }
        (Value::Integer(_), Value::Integer(_)) => None,
        (Value::Integer(_), other) => Some(format!("{other} is no whole number")),
        (Value::String(_), Value::String(_)) => None,
        (Value::String(_), other) => Some(format!("{other} is no text: write it in quotes")),
        _ => None,
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
