//! The configuration of a daemon that runs: where it listens, and what it takes up when its files are
//! read again.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use toml::Table;

use super::layers::{Layers, find, flatten};
use super::rules::Surroundings;
use super::{Config, Error, LIVE, Result, TlsMode};

/// Host rules hold for whoever comes in from then on.
const RULES: &str = "connections.rules";

/// Where the address of a port is set that is a socket which the daemon was given.
const SOCKETS: &str = "LISTEN_FDS";

/// The configuration in force, for all who look at what may change. Live settings go on top of it.
#[derive(Debug)]
pub struct InForce(RwLock<Arc<Config>>);

impl InForce {
    pub fn new(config: Config) -> Arc<Self> {
        Arc::new(Self(RwLock::new(Arc::new(config))))
    }

    pub fn get(&self) -> Arc<Config> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn replace(&self, config: Config) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }
}

/// What comes of a configuration that was read again.
#[derive(Clone, Debug)]
pub struct TakenUp {
    pub config: Config,
    /// Keys that are other ones from now on.
    pub changed: Vec<String>,
    /// Keys that are as they were until the daemon starts anew.
    pub waiting: Vec<String>,
}

impl Config {
    /// Has a port (`postgres`, `peer` or `web`) at the address of a socket that the daemon was given,
    /// whatever its setting says. Refuses what the host rules do not go with.
    pub fn listen_on(&mut self, port: &str, address: SocketAddr) -> Result<()> {
        let ports =
            [("postgres", &mut self.postgres), ("peer", &mut self.peer), ("web", &mut self.web)];
        for (_, setting) in ports.into_iter().filter(|(key, _)| *key == port) {
            *setting = address;
            self.origins.insert(port.to_owned(), SOCKETS.to_owned());
        }
        self.check_rules()
    }

    /// This configuration with what the daemon takes up of a newer one. Refuses rules that do not go
    /// with what stays as it is.
    pub fn take_up(&self, newer: &Self) -> Result<TakenUp> {
        let table = |config: &Self| Table::try_from(config).unwrap_or_default();
        let mut values = table(self);
        let mut origins = self.origins.clone();
        let (mut changed, mut waiting) = (Vec::new(), Vec::new());
        let before = flatten(values.clone());
        for (key, value) in flatten(table(newer)) {
            let same = before.get(&key) == Some(&value);
            if LIVE.contains(&key.as_str()) || key == RULES {
                match newer.origins.get(&key) {
                    Some(origin) => drop(origins.insert(key.clone(), origin.clone())),
                    None => drop(origins.remove(&key)),
                }
                if let Some(slot) = find(&mut values, &key).filter(|_| !same) {
                    *slot = value;
                    changed.push(key);
                }
            } else if !same && self.origins.get(&key).is_none_or(|origin| origin != SOCKETS) {
                waiting.push(key);
            }
        }
        let config = Layers::on(values).values().unwrap_or_else(|| self.clone());
        let config = Self { origins, ..config };
        config.check_rules()?;
        Ok(TakenUp { config, changed, waiting })
    }

    /// Whether the host rules go with the rest.
    pub(super) fn check_rules(&self) -> Result<()> {
        let tls = self.tls.certificate.is_some() && self.tls.mode != TlsMode::Off;
        let around = Surroundings {
            listens_on: self.postgres.ip(),
            tls,
            client_certificates: tls && self.tls.client_ca.is_some(),
        };
        self.connections.rules.check(around).map_err(|reason| {
            let origin = self.origins.get(RULES).cloned().unwrap_or_default();
            Error::BadValue { origin, key: RULES.to_owned(), reason }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        let mut layers = Layers::new().expect("the defaults");
        layers.add_file("test.toml", text).expect("read");
        layers.finish().expect("valid")
    }

    #[test]
    fn some_settings_are_taken_up_and_others_wait() {
        let running = config("data_dir = '/d'\n");
        let newer = config(
            "data_dir = '/other'\n[connections]\nmax = 7\nrules = 'host all all samehost trust'\n\
             [log]\nfilter = 'debug'\nformat = 'json'\n[shutdown]\ndrain_timeout = '5s'\n",
        );
        let TakenUp { config, changed, waiting } = running.take_up(&newer).expect("valid");
        assert_eq!(changed, ["connections.rules", "log.filter", "shutdown.drain_timeout"]);
        assert_eq!(waiting, ["connections.max", "data_dir", "log.format"]);
        let filter = config.rows().into_iter().find(|row| row.key == "log.filter").expect("there");
        assert_eq!((filter.value.as_str(), filter.origin.as_str()), ("debug", "test.toml"));
        assert_eq!(config.connections.rules, newer.connections.rules);
        assert_eq!(config.connections.max, running.connections.max);
        // And back.
        let TakenUp { config, changed, waiting } = config.take_up(&running).expect("valid");
        assert_eq!((changed.len(), waiting), (3, Vec::new()));
        assert_eq!(config, running);
    }

    #[test]
    fn rules_have_to_go_with_what_stays() {
        let running = config("");
        let newer = config(
            "[tls]\ncertificate = '/c'\nkey = '/k'\n\
             [connections]\nrules = 'hostssl all all all scram-sha-256'\n",
        );
        let refused = running.take_up(&newer).expect_err("there is no TLS").to_string();
        assert!(refused.contains("hostssl") && refused.contains("test.toml"), "{refused}");
    }

    #[test]
    fn a_socket_that_was_given_is_where_a_port_is() {
        let mut running = config("postgres = '127.0.0.1:1'\n");
        let address = SocketAddr::from(([127, 0, 0, 1], 2));
        running.listen_on("postgres", address).expect("loopback");
        assert_eq!(running.postgres, address);
        let taken = running.take_up(&config("postgres = '127.0.0.1:3'\n")).expect("valid");
        assert_eq!((taken.config.postgres, taken.waiting), (address, Vec::new()));
        // From beyond this machine nobody may come in.
        let everywhere = SocketAddr::from(([0, 0, 0, 0], 2));
        let refused = running.listen_on("postgres", everywhere).expect_err("no rule").to_string();
        assert!(refused.contains("connections.rules"), "{refused}");
    }
}
