//! Where daemons are: at addresses that were given, or wherever ZooKeeper says.

use std::fmt::{self, Display, Formatter};
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use clap::Args;

use crate::cli::error::{Error, Result};
use crate::cli::{settings, tour};
use crate::cluster::{Record, State};
use crate::coordination::paths::{self, Path};
use crate::coordination::zookeeper::ZooKeeper;
use crate::coordination::{self, Coordination};
use crate::server;

/// Where daemons listen for PostgreSQL clients unless they are told otherwise.
const PORT: u16 = 5439;

#[derive(Clone, Debug, Args)]
pub struct Options {
    /// File with settings that names the ensemble, as for `oribi serve` (also ORIBI_CONFIG).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// ZooKeeper ensemble through which daemons are found, as host:port,host:port/chroot (also
    /// ORIBI_ZOOKEEPER).
    #[arg(long, value_name = "ENSEMBLE", conflicts_with = "host")]
    zookeeper: Option<String>,
    /// Daemons to ask, without ZooKeeper: one or several.
    #[arg(long, visible_alias = "postgres", value_name = "HOST:PORT", value_delimiter = ',')]
    host: Vec<Place>,
}

impl Options {
    /// Daemons by their addresses.
    pub fn of(host: Vec<Place>) -> Self {
        Self { config: None, zookeeper: None, host }
    }
}

/// Where a daemon listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    pub host: String,
    pub port: u16,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (host, port) = match text.rsplit_once(':') {
            // Colons of an address without a port.
            Some((host, _)) if host.contains(':') && !host.ends_with(']') => (text, None),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        };
        let port = port.map_or(Ok(PORT), str::parse);
        let port = port.map_err(|_| format!("\"{text}\" is not host:port"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        match host.is_empty() {
            true => Err(format!("\"{text}\" has no host")),
            false => Ok(Self { host: host.to_owned(), port }),
        }
    }
}

impl Display for Place {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Finds daemons.
#[derive(Debug)]
pub enum Places {
    Given(Vec<Place>),
    Ensemble(Arc<ZooKeeper>),
}

impl Places {
    pub async fn open(options: Options) -> Result<Self> {
        if !options.host.is_empty() {
            return Ok(Self::Given(options.host));
        }
        let flags = [("zookeeper", options.zookeeper)];
        let config = settings(options.config, flags)?;
        let Some(ensemble) = server::ensemble(&config)? else {
            let address = tour::reachable(config.postgres);
            return Ok(Self::Given(vec![Place {
                host: address.ip().to_string(),
                port: address.port(),
            }]));
        };
        let hosts = ensemble.hosts.clone();
        let ensemble = coordination::zookeeper::Options { read_only: true, ..ensemble };
        match ZooKeeper::connect(ensemble).await {
            Ok(store) => Ok(Self::Ensemble(store)),
            Err(coordination::Error::NoNode { path }) => Err(Error::Unreachable(format!(
                "there is nothing of Oribi's at {path} of ZooKeeper at {hosts}: is the path behind \
                 the hosts right?"
            ))),
            Err(error) if error.is_unavailable() => {
                let advice = "oribi doctor looks at each of its members";
                Err(Error::Unreachable(format!("{error}: {advice}")))
            }
            Err(error) => Err(Error::Usage(error.to_string())),
        }
    }

    /// Daemons that may be asked, the best first; those that are equally good in any order, so that
    /// not all clients come to the same one.
    pub async fn list(&self) -> Result<Vec<Place>> {
        let store = match self {
            Self::Given(places) => return Ok(places.clone()),
            Self::Ensemble(store) => store,
        };
        let gone = |error: coordination::Error| Error::Unreachable(error.to_string());
        let order = RandomState::new();
        let mut found = Vec::new();
        let names = match store.children(&Path::Daemons.to_string()).await {
            Ok(names) => names,
            // No daemon has ever been there.
            Err(coordination::Error::NoNode { .. }) => Vec::new(),
            Err(error) => return Err(gone(error)),
        };
        for name in names {
            let Some(id) = paths::decode(&name) else { continue };
            let node = store.get(&Path::Daemon(&id).to_string()).await.map_err(gone)?;
            let record = node.and_then(|node| serde_json::from_slice::<Record>(&node.data).ok());
            let Some(record) = record else { continue };
            let rank = match record.state {
                State::Ready => 0,
                State::Degraded => 1,
                State::Joining | State::Draining => continue,
            };
            if let Ok(place) = record.postgres.parse::<Place>() {
                found.push((rank, order.hash_one(&id), place));
            }
        }
        found.sort_by_key(|(rank, order, _)| (*rank, *order));
        Ok(found.into_iter().map(|(_, _, place)| place).collect())
    }

    /// Where they were looked for.
    pub fn describe(&self, tried: &[Place]) -> String {
        let tried = tried.iter().map(Place::to_string).collect::<Vec<_>>().join(", ");
        match self {
            Self::Ensemble(_) if tried.is_empty() => {
                "ZooKeeper knows of no daemon that is ready".to_owned()
            }
            Self::Ensemble(_) => {
                format!("none of the daemons that ZooKeeper names answers: {tried}")
            }
            Self::Given(_) => format!("no daemon answers at {tried}"),
        }
    }

    /// What to do where none was found.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Ensemble(_) => "oribi doctor says which are there, and in which state",
            Self::Given(_) => "name a daemon with --host, or the ensemble with --zookeeper",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_and_written() {
        for (text, host, port) in [
            ("h:1", "h", 1),
            ("h", "h", PORT),
            ("[::1]:2", "::1", 2),
            ("::1", "::1", PORT),
            ("[::1]", "::1", PORT),
        ] {
            let place: Place = text.parse().expect(text);
            assert_eq!(place, Place { host: host.to_owned(), port }, "{text}");
            assert_eq!(place.to_string().parse(), Ok(place), "{text}");
        }
        for text in ["", ":1", "h:x", "h:99999"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }
}
