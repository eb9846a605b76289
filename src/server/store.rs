//! The coordination store, as the configuration names it.

use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::Error;
use crate::config::{self, Config, Switch};
use crate::coordination;
use crate::coordination::counted::Counted;
use crate::coordination::embedded::{self, EmbeddedStore};
use crate::coordination::whole::{Store, Whole};
use crate::coordination::zookeeper::{self, ZooKeeper};
use crate::data_dir::DataDir;

/// Pause between attempts to reach the ensemble.
pub(super) const RECONNECT: Duration = Duration::from_secs(1);

/// Where the embedded store is, in the data directory.
const DIRECTORY: &str = "coordination";

/// Opens the coordination store: the ensemble if one is configured, else the embedded one.
pub(super) async fn connect(
    config: &Config,
    data_dir: &DataDir,
    deadline: Instant,
) -> Result<Store, Error> {
    match ensemble(config)? {
        Some(options) => reach(options, deadline).await,
        None => {
            let opened = embedded_store(config, data_dir).and_then(|store| {
                embedded::has_room(&data_dir.path().join(DIRECTORY))?;
                Ok(store)
            });
            // A daemon that begins with a full disk would say that it is ready, and could do nothing.
            opened.map_err(|error| match error {
                Error::Coordination(error @ coordination::Error::Unwritable { full: true, .. }) => {
                    Error::NoRoom(error)
                }
                other => other,
            })
        }
    }
}

pub(super) fn embedded_store(config: &Config, data_dir: &DataDir) -> Result<Store, Error> {
    let config::Coordination { session_timeout, request_timeout, .. } = config.coordination;
    let store = EmbeddedStore::open(&data_dir.path().join(DIRECTORY))?;
    let options = embedded::Options { session_timeout, request_timeout };
    let own = Counted::new(store.connect(options.clone()));
    Ok(Store { own, whole: Whole::of_embedded(store, options) })
}

/// Waits for the ensemble.
pub(super) async fn reach(options: zookeeper::Options, deadline: Instant) -> Result<Store, Error> {
    options.warn();
    loop {
        match ZooKeeper::connect(options.clone()).await {
            Ok(client) => {
                let whole = Whole::of_ensemble(options);
                return Ok(Store { own: Counted::new(client), whole });
            }
            Err(error) if error.is_unavailable() && Instant::now() < deadline => {
                warn!(%error, "waiting for the ensemble");
                tokio::time::sleep(RECONNECT).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// How the ensemble is reached, if there is one.
pub fn ensemble(config: &Config) -> Result<Option<zookeeper::Options>, Error> {
    let Some(hosts) = &config.zookeeper else { return Ok(None) };
    let credentials = config.coordination.credentials.as_ref();
    Ok(Some(zookeeper::Options {
        session_timeout: config.coordination.session_timeout,
        request_timeout: config.coordination.request_timeout,
        credentials: credentials.map(|path| zookeeper::Credentials::read(path)).transpose()?,
        tls: zookeeper_tls(&config.coordination)?,
        ..zookeeper::Options::new(hosts)
    }))
}

/// The files for TLS to the ensemble, if it is on. Files without it would be a false promise.
fn zookeeper_tls(config: &config::Coordination) -> Result<Option<zookeeper::Tls>, Error> {
    let wrong = |key, reason: &str| coordination::Error::Setting { key, reason: reason.to_owned() };
    let config::Coordination { tls, tls_ca, tls_certificate, tls_key, .. } = config;
    match (tls, tls_ca) {
        (Switch::Off, None) if tls_certificate.is_none() && tls_key.is_none() => Ok(None),
        (Switch::Off, _) => {
            Err(wrong("tls", "is off, and tls_ca, tls_certificate or tls_key is set").into())
        }
        (Switch::On, None) => Err(wrong("tls_ca", "is needed where coordination.tls is on").into()),
        (Switch::On, Some(ca)) => {
            let identity = match (tls_certificate, tls_key) {
                (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
                (None, None) => None,
                (Some(_), None) => return Err(wrong("tls_key", "is missing").into()),
                (None, Some(_)) => return Err(wrong("tls_certificate", "is missing").into()),
            };
            Ok(Some(zookeeper::Tls { ca: ca.clone(), identity }))
        }
    }
}
