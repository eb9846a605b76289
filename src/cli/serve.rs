//! `oribi serve`: a daemon, until it is told to stop.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use super::error::{Error, Result};
use super::supervisor::{self, Supervised};
use super::{runtime, settings, start_logging};
use crate::config::Config;
use crate::server::{Given, Reloaded, Reloader, Server};
use crate::shutdown;

/// How long threads may take to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where a daemon's settings and its store are. Behind the name of an action, too, where there are some.
#[derive(Clone, Debug, Args)]
pub struct Place {
    /// File with settings, such as config/oribi.toml (also ORIBI_CONFIG).
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where a daemon keeps its lock, its id, the embedded store and spill files.
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<String>,
    /// ZooKeeper ensemble, as host:port,host:port/chroot; without it a daemon is alone.
    #[arg(long, global = true, value_name = "ENSEMBLE")]
    zookeeper: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub struct Options {
    #[command(flatten)]
    place: Place,
    /// This daemon's name in the cluster.
    #[arg(long, value_name = "NAME")]
    id: Option<String>,
    /// Where PostgreSQL clients connect.
    #[arg(long, value_name = "ADDR:PORT")]
    postgres: Option<String>,
    /// Where other daemons connect.
    #[arg(long, value_name = "ADDR:PORT")]
    peer: Option<String>,
    /// Where browsers (the web console), health checks and metrics connect, over HTTP.
    #[arg(long, value_name = "ADDR:PORT")]
    web: Option<String>,
    /// Host name or address under which other daemons and clients reach this one.
    #[arg(long, value_name = "HOST")]
    advertise: Option<String>,
    /// Shared storage for managed tables and results.
    #[arg(long, value_name = "URL")]
    warehouse: Option<String>,
}

impl Place {
    /// The settings as a daemon in this place has them.
    pub fn settings(self) -> Result<Config> {
        self.settings_with([])
    }

    /// The same, for a command that opens the store by itself, and so needs no data directory where there
    /// is an ensemble. Two stores are not one too many for a daemon: it has a data directory in any case.
    pub fn settings_of_store(self) -> Result<Config> {
        let (directory, chosen) = (self.data_dir.clone(), self.zookeeper.is_some());
        let config = self.settings()?;
        let (Some(directory), Some(hosts), false) = (directory, &config.zookeeper, chosen) else {
            return Ok(config);
        };
        let origin = config.rows().into_iter().find(|row| row.key == "zookeeper");
        let origin = origin.map(|row| row.origin).unwrap_or_default();
        Err(Error::Usage(format!(
            "which store is meant? --data-dir names the embedded one in {directory}, and {origin} ZooKeeper \
             at {hosts}: leave out --data-dir to use ZooKeeper, or add --zookeeper '' to use the one in \
             {directory}"
        )))
    }

    fn settings_with<const N: usize>(
        self,
        flags: [(&'static str, Option<String>); N],
    ) -> Result<Config> {
        let place = [("data_dir", self.data_dir), ("zookeeper", self.zookeeper)];
        settings(self.config, place.into_iter().chain(flags))
    }
}

impl Options {
    /// The settings of a daemon that is started so.
    pub fn settings(self) -> Result<Config> {
        self.place.settings_with([
            ("id", self.id),
            ("postgres", self.postgres),
            ("peer", self.peer),
            ("web", self.web),
            ("advertise", self.advertise),
            ("warehouse", self.warehouse),
        ])
    }
}

pub fn run(options: Options) -> Result<()> {
    let mut config = options.clone().settings()?;
    let given = Given::take(&mut config)?;
    start_logging(&config)?;
    // From the same places as before.
    let read = move || options.clone().settings();
    let runtime = runtime()?;
    let served = runtime.block_on(serve(config, given, read));
    // Who hangs on one of its threads does not keep the process.
    runtime.shutdown_timeout(PATIENCE);
    served
}

async fn serve(
    config: Config,
    given: Given,
    read: impl Fn() -> Result<Config> + Send + Sync + 'static,
) -> Result<()> {
    supervisor::starting(&config);
    // One future from the beginning, so that a signal is neither lost between two phases nor
    // ignored while starting, as it would be for the first process of a container.
    let mut stopped = pin!(shutdown::signal());
    // Likewise: a SIGHUP that nobody listens for ends the process.
    let hangups = signal(SignalKind::hangup()).map_err(no_signals)?;
    let server = tokio::select! {
        started = Server::start(config, given) => started?,
        caught = &mut stopped => {
            info!("stopped before it had started");
            return caught.map_err(no_signals);
        }
    };
    let supervised = Supervised::new(server.vitals());
    supervised.ready();
    let reloading = reload(hangups, server.reloader(), Arc::new(read), &supervised);
    let mut caught = Ok(());
    let stop = async {
        caught = stopped.await;
        supervised.stopping();
    };
    tokio::select! {
        served = server.serve(stop) => served?,
        () = supervised.watchdog() => {}
        () = supervised.follow() => {}
        () = reloading => {}
    }
    caught.map_err(no_signals)
}

/// Reads files again at each SIGHUP, for as long as it is polled.
async fn reload(
    mut hangups: Signal,
    reloader: Reloader,
    read: Arc<impl Fn() -> Result<Config> + Send + Sync + 'static>,
    supervised: &Supervised,
) {
    while hangups.recv().await.is_some() {
        supervised.reloading();
        let (reloader, read) = (reloader.clone(), read.clone());
        let reloading = tokio::task::spawn_blocking(move || reloader.reload(read()));
        let reloaded = reloading.await.unwrap_or_else(|error| Reloaded {
            failed: vec![error.to_string()],
            waiting: Vec::new(),
        });
        match reloaded.failed.is_empty() {
            true => info!("settings' files read again"),
            false => warn!("not all of the settings' files could be read again"),
        }
        supervised.reloaded(&reloaded);
    }
    // No more signals: whatever else is polled goes on.
    std::future::pending().await
}

fn no_signals(source: std::io::Error) -> Error {
    Error::Io { what: "listen for signals".into(), source }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn settings(flags: &[&str]) -> Result<Config> {
        Line::parse_from(["serve"].iter().chain(flags)).options.settings()
    }

    #[test]
    fn every_flag_is_a_setting() {
        let config = settings(&[
            "--data-dir=/d",
            "--zookeeper=z:2181",
            "--id=n",
            "--postgres=127.0.0.2:1",
            "--peer=127.0.0.2:2",
            "--web=127.0.0.2:3",
            "--advertise=h",
            "--warehouse=s3://w",
        ])
        .expect("valid");
        assert_eq!(config.data_dir.as_deref(), Some("/d".as_ref()));
        assert_eq!(config.zookeeper.as_deref(), Some("z:2181"));
        assert_eq!(config.id.as_deref(), Some("n"));
        let ports = [config.postgres, config.peer, config.web].map(|address| address.port());
        assert_eq!(ports, [1, 2, 3]);
        assert_eq!(config.advertise.as_deref(), Some("h"));
        assert_eq!(config.warehouse.as_deref(), Some("s3://w"));
    }

    #[test]
    fn a_store_that_is_named_is_not_left_for_another() {
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            place: Place,
        }
        let directory = tempfile::tempdir().expect("a folder");
        let file = directory.path().join("oribi.toml");
        std::fs::write(&file, "zookeeper = 'z:2181'").expect("written");
        let settings = |flags: &[&str]| {
            let config = format!("--config={}", file.display());
            let line = ["backup", config.as_str()].into_iter().chain(flags.iter().copied());
            Line::parse_from(line).place.settings_of_store()
        };
        let message = settings(&["--data-dir=/d"]).expect_err("two stores").to_string();
        for part in ["/d", "z:2181", "oribi.toml", "--zookeeper ''"] {
            assert!(message.contains(part), "{message}");
        }
        let zookeeper = |flags: &[&str]| settings(flags).expect("one store").zookeeper;
        assert_eq!(zookeeper(&[]).as_deref(), Some("z:2181"));
        assert_eq!(zookeeper(&["--data-dir=/d", "--zookeeper="]), None);
        assert_eq!(zookeeper(&["--data-dir=/d", "--zookeeper=y:1"]).as_deref(), Some("y:1"));
    }

    #[test]
    fn wrong_settings_are_refused_by_flag_and_key() {
        let message = settings(&["--data-dir=/d", "--postgres=here"]).expect_err("bad").to_string();
        assert!(message.contains("--postgres") && message.contains("\"postgres\""), "{message}");
    }
}
