//! `oribi demo`: TPC-H data, a daemon with the embedded store, a few queries, and psql may follow.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Instant;

use clap::Args;
use tokio::sync::oneshot;

use super::error::{Error, Result};
use super::{environment, runtime, start_logging, tour, tpch};
use crate::config::Config;
use crate::server::{Addresses, Given, Server};
use crate::shutdown;

#[derive(Debug, Args)]
pub struct Options {
    /// How much data: 1 is about 250 MB of Parquet, with 6 million rows in the largest table.
    #[arg(long, default_value = "0.1", value_parser = scale)]
    scale: f64,
    /// Where data and daemon live; without it, a folder below your own data directory.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Where PostgreSQL clients connect; without it, the usual port or else a free one.
    #[arg(long, value_name = "ADDR:PORT")]
    postgres: Option<String>,
    /// Where browsers (the web console) and health checks connect; without it, the usual port or else a free one.
    #[arg(long, value_name = "ADDR:PORT")]
    web: Option<String>,
    /// Only make the data.
    #[arg(long)]
    generate_only: bool,
    /// End after the queries, rather than go on serving.
    #[arg(long, conflicts_with = "generate_only")]
    exit: bool,
}

pub fn scale(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(scale) if (0.001..=1000.0).contains(&scale) => Ok(scale),
        _ => Err("must be a number from 0.001 to 1000".to_owned()),
    }
}

impl Options {
    fn settings(&self) -> Result<Config> {
        let environment = environment()?;
        // The demo's own defaults come first, so that the environment and flags replace them.
        let mut variables = vec![("ORIBI_LOG_FILTER".to_owned(), "warn".to_owned())];
        variables.extend(environment);
        let flags = [
            ("data_dir", self.data_dir.clone()),
            ("postgres", self.postgres.clone()),
            ("web", self.web.clone()),
            ("zookeeper", Some(String::new())),
        ];
        let flags = flags.into_iter().filter_map(|(key, value)| Some((key, value?)));
        Ok(Config::load(None, variables, flags)?)
    }
}

pub fn run(options: Options) -> Result<()> {
    let mut config = options.settings()?;
    start_logging(&config)?;
    let data_dir = match config.data_dir.take() {
        Some(dir) => dir,
        None => default_data_dir(|name| std::env::var_os(name).map(PathBuf::from))?,
    };
    let data_dir = std::path::absolute(&data_dir).map_err(Error::io("find", &data_dir))?;
    let tables = make_tables(&data_dir, options.scale)?;
    if options.generate_only {
        return Ok(());
    }
    config.data_dir = Some(data_dir);
    let chosen = [options.postgres.is_some(), false, options.web.is_some()];
    let addresses = [&mut config.postgres, &mut config.peer, &mut config.web];
    for (address, chosen) in addresses.into_iter().zip(chosen) {
        if !chosen {
            take_free_port(address)?;
        }
    }
    runtime()?.block_on(serve(config, &tables, options.exit))
}

/// By the XDG base directory specification, which has relative paths ignored.
pub fn default_data_dir(variable: impl Fn(&str) -> Option<PathBuf>) -> Result<PathBuf> {
    let absolute = |name| variable(name).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME")
        .or_else(|| Some(absolute("HOME")?.join(".local/share")))
        .map(|home| home.join("oribi/demo"))
        .ok_or(Error::NoHome)
}

fn make_tables(data_dir: &Path, scale: f64) -> Result<PathBuf> {
    let start = Instant::now();
    // Before there is a runtime: Ctrl-C simply ends it, and the next run starts over.
    let tables = tpch::ensure(&data_dir.join("tpch"), scale)?;
    let taken = start.elapsed().as_secs_f64();
    tour::print(&format!(
        "TPC-H at scale factor {scale}: eight Parquet tables in {} ({taken:.1} s)",
        tables.display()
    ))?;
    Ok(tables)
}

/// Moves to a free port if the usual one is taken, perhaps by another demo.
fn take_free_port(address: &mut SocketAddr) -> Result<()> {
    let taken = TcpListener::bind(*address)
        .is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse);
    if taken {
        tour::print(&format!("{address} is taken: using a free port"))?;
        address.set_port(0);
    }
    Ok(())
}

async fn serve(config: Config, tables: &Path, exit: bool) -> Result<()> {
    let mut signal = pin!(shutdown::signal());
    let server = tokio::select! {
        started = Server::start(config, Given::default()) => started?,
        _ = &mut signal => return Ok(()),
    };
    let addresses = server.addresses();
    // The sender is dropped at the end, and that stops the server.
    let (finished, stop) = oneshot::channel::<()>();
    let guide = async {
        let shown = tokio::select! {
            shown = show(&addresses, tables, exit) => shown,
            _ = &mut signal => Ok(()),
        };
        drop(finished);
        Ok(shown)
    };
    let serve = async {
        let stop = async { drop(stop.await) };
        server.serve(stop).await.map_err(Error::from)
    };
    let ((), shown) = tokio::try_join!(serve, guide)?;
    shown
}

async fn show(addresses: &Addresses, tables: &Path, exit: bool) -> Result<()> {
    let postgres = tour::reachable(addresses.postgres);
    tour::run(postgres, tables).await?;
    if exit {
        return Ok(());
    }
    let (host, port, user) = (postgres.ip(), postgres.port(), tour::USER);
    let web = tour::reachable(addresses.web);
    tour::print(&format!(
        "\nNow it is your turn, until you press Ctrl-C here:\n\n  \
         psql -h {host} -p {port} -U {user}\n\n\
         or any other PostgreSQL client (host {host}, port {port}, user {user}, database {user}, \
         no password).\nConsole: http://{web}/ (role {user}, no password); health: http://{web}/readyz"
    ))?;
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_directory_follows_the_specification() {
        let dir = |xdg: Option<&str>, home: Option<&str>| {
            let variable = |name: &str| match name {
                "XDG_DATA_HOME" => xdg.map(PathBuf::from),
                _ => home.map(PathBuf::from),
            };
            default_data_dir(variable).ok()
        };
        assert_eq!(dir(Some("/x"), Some("/h")), Some("/x/oribi/demo".into()));
        assert_eq!(dir(Some("x"), Some("/h")), Some("/h/.local/share/oribi/demo".into()));
        assert_eq!(dir(None, None), None);
    }

    #[test]
    fn a_taken_port_is_replaced() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let mut address = listener.local_addr().expect("bound");
        take_free_port(&mut address).expect("prints");
        assert_eq!(address.port(), 0);
    }

    #[test]
    fn scales_have_limits() {
        assert_eq!(scale("0.1"), Ok(0.1));
        for text in ["0", "-1", "NaN", "inf", "much", "1e9"] {
            assert!(scale(text).is_err(), "{text}");
        }
    }
}
