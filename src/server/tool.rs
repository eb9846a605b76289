//! The coordination store for the command line: where `oribi serve` with the same settings finds it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Error;
use super::store::{embedded_store, ensemble, reach};
use crate::config::Config;
use crate::coordination::{self, Coordination, zookeeper};
use crate::data_dir::DataDir;

/// How long somebody at a terminal waits for the ensemble; a daemon has more patience.
const PATIENCE: Duration = Duration::from_secs(5);

/// A session with the store that is no daemon's.
#[derive(Debug)]
pub struct Tool {
    pub coordination: Arc<dyn Coordination>,
    /// Of a daemon without an ensemble, which must not run meanwhile.
    _data_dir: Option<DataDir>,
}

impl Tool {
    /// Opens the ensemble; without one, the store in the data directory. A chroot or directory that is
    /// missing is made if it is a `new` one, else there is nothing to open.
    pub async fn open(config: &Config, new: bool) -> Result<Option<Self>, Error> {
        if let Some(options) = ensemble(config)? {
            let patience = config.coordination.start_timeout.min(PATIENCE);
            if !new {
                let looking = zookeeper::Options { read_only: true, ..options.clone() };
                match reach(looking, Instant::now() + patience).await {
                    Ok(found) => found.own.close().await,
                    Err(Error::Coordination(coordination::Error::NoNode { .. })) => {
                        return Ok(None);
                    }
                    Err(error) => return Err(error),
                }
            }
            let coordination = reach(options, Instant::now() + patience).await?.own;
            return Ok(Some(Self { coordination, _data_dir: None }));
        }
        let directory = config.data_dir.as_ref().ok_or(Error::NoStore)?;
        if !new && !directory.is_dir() {
            return Ok(None);
        }
        let data_dir = DataDir::open(directory).map_err(Error::StoreInUse)?;
        let coordination = embedded_store(config, &data_dir)?.own;
        Ok(Some(Self { coordination, _data_dir: Some(data_dir) }))
    }

    pub async fn close(&self) {
        self.coordination.close().await;
    }
}
