//! `oribi bench`: the 22 queries of TPC-H on this machine, through the port, by one client.
//!
//! Each query is run once to warm up and then as often as is wanted. Its rows are fetched, and not looked
//! at. Nothing else runs meanwhile as far as this program knows: other load makes all of it slower.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde::Serialize;
use tokio::sync::oneshot;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::error::{Error, Result};
use super::tpch::{self, TABLES};
use super::{demo, environment, runtime, start_logging, text_table, tour};
use crate::config::Config;
use crate::server::{Given, Server};
use crate::wording::counted;

/// The queries with the parameters of validation.
const QUERIES: [&str; 22] = [
    include_str!("../../tests/tpch/queries/q01.sql"),
    include_str!("../../tests/tpch/queries/q02.sql"),
    include_str!("../../tests/tpch/queries/q03.sql"),
    include_str!("../../tests/tpch/queries/q04.sql"),
    include_str!("../../tests/tpch/queries/q05.sql"),
    include_str!("../../tests/tpch/queries/q06.sql"),
    include_str!("../../tests/tpch/queries/q07.sql"),
    include_str!("../../tests/tpch/queries/q08.sql"),
    include_str!("../../tests/tpch/queries/q09.sql"),
    include_str!("../../tests/tpch/queries/q10.sql"),
    include_str!("../../tests/tpch/queries/q11.sql"),
    include_str!("../../tests/tpch/queries/q12.sql"),
    include_str!("../../tests/tpch/queries/q13.sql"),
    include_str!("../../tests/tpch/queries/q14.sql"),
    include_str!("../../tests/tpch/queries/q15.sql"),
    include_str!("../../tests/tpch/queries/q16.sql"),
    include_str!("../../tests/tpch/queries/q17.sql"),
    include_str!("../../tests/tpch/queries/q18.sql"),
    include_str!("../../tests/tpch/queries/q19.sql"),
    include_str!("../../tests/tpch/queries/q20.sql"),
    include_str!("../../tests/tpch/queries/q21.sql"),
    include_str!("../../tests/tpch/queries/q22.sql"),
];

#[derive(Debug, Args)]
pub struct Options {
    /// How much data: 1 is about 250 MB of Parquet, with 6 million rows in the largest table.
    #[arg(long, default_value = "0.1", value_parser = demo::scale)]
    scale: f64,
    /// Runs of each query, after one that warms up.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Only these queries, such as 1,6,18.
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', value_parser = clap::value_parser!(u8).range(1..=22))]
    queries: Vec<u8>,
    /// Where the data is kept for the next time; without it, where `oribi demo` keeps its own.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The result cache stays on, so that all runs but the first come from it.
    #[arg(long)]
    cached: bool,
    /// As JSON: an object with the queries and their times.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Findings {
    scale: f64,
    runs: u32,
    cached: bool,
    version: &'static str,
    build: &'static str,
    cores: usize,
    queries: Vec<Timed>,
    /// The sum of the best times.
    total_ms: f64,
    /// The geometric mean of the best times.
    geometric_mean_ms: f64,
}

#[derive(Debug, Serialize)]
struct Timed {
    query: u8,
    best_ms: f64,
    median_ms: f64,
    rows: usize,
}

pub fn run(options: Options) -> Result<()> {
    let home = match &options.data_dir {
        Some(directory) => directory.clone(),
        None => demo::default_data_dir(|name| std::env::var_os(name).map(PathBuf::from))?,
    };
    let home = std::path::absolute(&home).map_err(Error::io("find", &home))?;
    let tables = tpch::ensure(&home.join("tpch"), options.scale)?;
    let place = home.join(format!("bench-{}", std::process::id()));
    let config = settings(&place)?;
    start_logging(&config)?;
    let findings = runtime()?.block_on(measure(config, &tables, &options));
    // Nothing of the daemon is of use to anybody.
    let _ = std::fs::remove_dir_all(&place);
    let findings = findings?;
    let text = match options.json {
        true => serde_json::to_string(&findings).map_err(|error| Error::Rows(error.to_string()))?,
        false => findings.show(),
    };
    tour::print(&text)
}

/// A daemon of its own: the environment's settings, free ports, no ensemble.
fn settings(place: &std::path::Path) -> Result<Config> {
    let mut variables = vec![("ORIBI_LOG_FILTER".to_owned(), "warn".to_owned())];
    variables.extend(environment()?);
    let free = || "127.0.0.1:0".to_owned();
    let flags = [
        ("data_dir", place.display().to_string()),
        ("postgres", free()),
        ("peer", free()),
        ("web", free()),
        ("zookeeper", String::new()),
    ];
    Ok(Config::load(None, variables, flags)?)
}

async fn measure(config: Config, tables: &std::path::Path, options: &Options) -> Result<Findings> {
    let cores = config.engine.threads.get();
    let server = Server::start(config, Given::default()).await?;
    let address = tour::reachable(server.addresses().postgres);
    // The sender is dropped at the end, and that stops the server.
    let (finished, stop) = oneshot::channel::<()>();
    let work = async {
        let measured = tokio::select! {
            measured = queries(address, tables, options) => measured,
            _ = tokio::signal::ctrl_c() => Err(Error::Interrupted),
        };
        drop(finished);
        Ok(measured)
    };
    let serve = async {
        let stop = async { drop(stop.await) };
        server.serve(stop).await.map_err(Error::from)
    };
    let ((), measured) = tokio::try_join!(serve, work)?;
    let queries = measured?;
    let total_ms = queries.iter().map(|query| query.best_ms).sum();
    let logarithms: f64 =
        queries.iter().map(|query| query.best_ms.max(f64::MIN_POSITIVE).ln()).sum();
    let geometric_mean_ms = (logarithms / queries.len().max(1) as f64).exp();
    let Options { scale, runs, cached, .. } = *options;
    let (version, build) = (env!("CARGO_PKG_VERSION"), env!("ORIBI_BUILD"));
    Ok(Findings {
        scale,
        runs,
        cached,
        version,
        build,
        cores,
        queries,
        total_ms,
        geometric_mean_ms,
    })
}

async fn queries(
    address: SocketAddr,
    tables: &std::path::Path,
    options: &Options,
) -> Result<Vec<Timed>> {
    let failed = |source| Error::Sql { title: format!("connecting to {address}"), source };
    let (client, connection) = tokio_postgres::Config::new()
        .host(address.ip().to_string())
        .port(address.port())
        .user(tour::USER)
        .dbname(tour::USER)
        .application_name("oribi bench")
        .connect(NoTls)
        .await
        .map_err(failed)?;
    let mut work = std::pin::pin!(all(&client, tables, options));
    tokio::select! {
        done = &mut work => done,
        // It ends for a reason, and what is being run knows the better message.
        _ = connection => work.await.and(Err(Error::Closed)),
    }
}

async fn all(client: &Client, tables: &std::path::Path, options: &Options) -> Result<Vec<Timed>> {
    for table in &TABLES {
        let location = table.file(tables).display().to_string().replace('\'', "''");
        let name = table.name;
        let sql = format!("CREATE EXTERNAL TABLE {name} STORED AS PARQUET LOCATION '{location}'");
        let created = client.batch_execute(&sql).await;
        created.map_err(|source| Error::Sql { title: format!("creating {name}"), source })?;
    }
    if !options.cached {
        let off = client.batch_execute("SET oribi.result_cache = off").await;
        off.map_err(Error::Statement)?;
    }
    let mut timed = Vec::new();
    for (query, sql) in (1u8..).zip(QUERIES) {
        if !options.queries.is_empty() && !options.queries.contains(&query) {
            continue;
        }
        let title = || format!("query {query}");
        let (mut times, mut rows) = (Vec::new(), 0);
        for run in 0..=options.runs {
            let since = Instant::now();
            let answer = client.simple_query(sql.trim().trim_end_matches(';')).await;
            let answer = answer.map_err(|source| Error::Sql { title: title(), source })?;
            let is_row =
                |message: &&SimpleQueryMessage| matches!(message, SimpleQueryMessage::Row(_));
            rows = answer.iter().filter(is_row).count();
            if run > 0 {
                times.push(since.elapsed().as_secs_f64() * 1000.0);
            }
        }
        times.sort_by(f64::total_cmp);
        let (best_ms, median_ms) = (times[0], times[times.len() / 2]);
        timed.push(Timed { query, best_ms, median_ms, rows });
    }
    Ok(timed)
}

impl Findings {
    fn show(&self) -> String {
        let names = ["query", "best ms", "median ms", "rows"].map(str::to_owned);
        let rows: Vec<Vec<Option<String>>> = (self.queries.iter())
            .map(|Timed { query, best_ms, median_ms, rows }| {
                vec![
                    Some(query.to_string()),
                    Some(format!("{best_ms:.1}")),
                    Some(format!("{median_ms:.1}")),
                    Some(rows.to_string()),
                ]
            })
            .collect();
        format!(
            "TPC-H at scale factor {}, {} of each query after one, {}, Oribi {} ({})\n\n{}\n\n\
             total of the best {:.1} ms, geometric mean {:.1} ms",
            self.scale,
            counted(u64::from(self.runs), "run"),
            counted(self.cores as u64, "core"),
            self.version,
            self.build,
            text_table::render(&names, &rows, rows.len()),
            self.total_ms,
            self.geometric_mean_ms
        )
    }
}
