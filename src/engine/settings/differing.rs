//! What a statement is remembered to have run with.

use std::collections::{BTreeMap, BTreeSet};

use super::{Context, READ_ONLY, Setting, Settings, find, is_engine_option, transaction_default};

/// Characters of a value that are remembered with a statement.
const TOLD: usize = 200;

impl Settings {
    /// What differs from the built-in defaults, by name: what a statement is remembered to have run
    /// with. Of the engine's own settings those that were set. Neither what the session only tells of
    /// itself nor what has a place of its own is among these, nor the placeholders of programs: nobody
    /// knows what secrets they are.
    pub fn differing(&self) -> BTreeMap<String, String> {
        let given = self.defaults.keys().chain(self.system.keys()).chain(self.changed.keys());
        let mut names: BTreeSet<&str> = given.map(String::as_str).collect();
        if self.only_reads {
            names.extend(READ_ONLY);
        }
        let mut differing = BTreeMap::new();
        for lower in names {
            let (name, default) = match find(lower) {
                Some(Setting { context: Context::Internal | Context::Postmaster, .. }) => continue,
                Some(Setting { name: "application_name", .. }) => continue,
                Some(setting) => {
                    let of_session = transaction_default(lower).and_then(|name| self.get(name));
                    (setting.name, Some(of_session.unwrap_or(setting.default)))
                }
                None if is_engine_option(lower) => (lower, None),
                None => continue,
            };
            let value = self.get(lower).unwrap_or_default();
            if default != Some(value) {
                differing.insert(name.to_owned(), value.chars().take(TOLD).collect());
            }
        }
        differing
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Source;
    use super::*;

    #[test]
    fn what_differs_from_the_defaults_is_told() {
        let mut settings = Settings::default();
        assert_eq!(settings.differing(), BTreeMap::new());
        settings.set_fact("is_superuser", "off", Source::Override);
        settings.set_fact("max_connections", "7", Source::Configuration);
        settings.set_default("timezone", "Europe/Vienna", Source::Client).expect("valid");
        settings.set_default("application_name", "psql", Source::Client).expect("valid");
        settings.set_default("client_encoding", "utf-8", Source::Client).expect("valid");
        settings.take_system(&Arc::new(BTreeMap::from([
            ("statement_timeout".to_owned(), "2s".to_owned()),
            ("log.filter".to_owned(), "debug".to_owned()),
        ])));
        settings.set("search_path", &"x".repeat(1000)).expect("valid");
        settings.set("DateStyle", "DMY").expect("valid");
        settings.set("datestyle", "MDY").expect("valid");
        settings.set("datafusion.execution.batch_size", "100").expect("valid");
        settings.set("my.token", "secret").expect("valid");
        settings.set("default_transaction_isolation", "serializable").expect("valid");
        let long = "x".repeat(TOLD);
        let expected = [
            ("TimeZone", "Europe/Vienna"),
            ("datafusion.execution.batch_size", "100"),
            ("default_transaction_isolation", "serializable"),
            ("search_path", &long),
            ("statement_timeout", "2s"),
        ];
        let told = settings.differing();
        let told: Vec<_> = told.iter().map(|(name, value)| (name.as_str(), &**value)).collect();
        assert_eq!(told, expected);
        settings.set("transaction_isolation", "repeatable read").expect("valid");
        settings.hold_to_reading();
        let told = settings.differing();
        assert_eq!(told["transaction_isolation"], "repeatable read");
        assert_eq!(told["default_transaction_read_only"], "on");
        assert!(!told.contains_key("transaction_read_only"), "it follows from the other");
    }
}
