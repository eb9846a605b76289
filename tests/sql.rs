//! The scripts of `tests/sql`, run through the port with the simple protocol: each column is text.
//! All of them are run with embedded coordination and with a real ZooKeeper, and nearly all on three
//! daemons that run together whatever they can, to the same answers.
//!
//! Each script has a database of its own, called like the script, and may write files into
//! `$__TEST_DIR__`. `ORIBI_SQL_UPDATE=1` writes the daemon's answers into the scripts instead of
//! comparing: read the difference before you keep it.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use common::daemon::{Daemon, Options, Shared, eventually, explain};
use common::zookeeper;
use sqllogictest::{
    AsyncDB, DBOutput, DefaultColumnType, Runner, default_normalizer, default_validator,
    strict_column_validator,
};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

static EMBEDDED: Shared = Shared::new(Options::new);
static ON_ZOOKEEPER: Shared = Shared::new(on_zookeeper);

fn on_zookeeper() -> Options {
    let options = Options::new();
    let warehouse = options.directory().join("warehouse");
    let ensemble = zookeeper::shared().connect_string();
    options.arg(format!("--zookeeper={ensemble}/scripts")).env("ORIBI_WAREHOUSE", warehouse)
}

static TOGETHER: [Shared; 3] =
    [Shared::new(of_three), Shared::new(of_three), Shared::new(of_three)];

/// A daemon of three. Each has a warehouse of its own, which all can read.
fn of_three() -> Options {
    let options = Options::new();
    let warehouse = options.directory().join("warehouse");
    let ensemble = zookeeper::shared().connect_string();
    options.arg(format!("--zookeeper={ensemble}/together")).env("ORIBI_WAREHOUSE", warehouse)
}

/// Scripts about what is another where statements run on several daemons.
const ALONE: [&str; 2] = ["explain", "settings"];

/// Three tests for each script.
macro_rules! scripts {
    ($($name:ident)*) => {
        const SCRIPTS: &[&str] = &[$(concat!(stringify!($name), ".slt")),*];

        mod together {
            $(#[tokio::test]
            async fn $name() {
                // Ends after the daemons.
                let _server = super::zookeeper::shared();
                if !super::updates() && !super::ALONE.contains(&stringify!($name)) {
                    let [a, b, c] = super::TOGETHER.each_ref().map(|daemon| daemon.get());
                    super::all_there(&a).await;
                    super::run(stringify!($name), &a, "-c oribi.distribution=always").await;
                    drop((b, c));
                }
            })*
        }

        mod embedded {
            $(#[tokio::test]
            async fn $name() {
                super::run(stringify!($name), &super::EMBEDDED.get(), "").await;
            })*
        }

        mod on_zookeeper {
            $(#[tokio::test]
            async fn $name() {
                // Ends after the daemon.
                let _server = super::zookeeper::shared();
                if !super::updates() {
                    super::run(stringify!($name), &super::ON_ZOOKEEPER.get(), "").await;
                }
            })*
        }
    };
}

scripts! {
    again catalog cluster comparisons csv_json cursors ddl dialect errors explain functions grants history hive json_columns laterals
    managed merge names overwrite policies pools precision prepared returning roles select semantics settings transactions types upkeep views zones
}

#[test]
fn every_script_is_run() {
    let files = fs::read_dir(directory()).expect("tests/sql can be listed");
    let mut found: Vec<String> = files
        .map(|file| file.expect("an entry of tests/sql").file_name().to_string_lossy().into())
        .collect();
    found.sort();
    assert_eq!(found, SCRIPTS);
}

/// Whether the scripts are written anew instead of compared.
fn updates() -> bool {
    std::env::var_os("ORIBI_SQL_UPDATE").is_some()
}

/// Waits until a daemon of three sees the others, and perhaps some that are dead already.
async fn all_there(daemon: &Daemon) {
    let client = daemon.connect().await;
    // Those with another warehouse than most are degraded.
    let ready = "SELECT count(*) FROM system.daemons WHERE state IN ('ready', 'degraded')";
    eventually("three daemons", async || {
        let count: i64 = client.query_one(ready, &[]).await.expect("a count").get(0);
        (count >= 3).then_some(())
    })
    .await;
}

async fn run(name: &str, daemon: &Daemon, options: &str) {
    make_database(daemon, name).await;
    let connect = async || {
        let mut config = daemon.client_config();
        config.dbname(name).options(options);
        let (client, connection) = config.connect(NoTls).await.expect("a connection");
        tokio::spawn(connection);
        Ok(Session(client))
    };
    let mut runner = Runner::new(connect);
    runner.with_column_validator(strict_column_validator);
    let script = directory().join(format!("{name}.slt"));
    if updates() {
        let updated = runner.update_test_file(
            &script,
            "\t",
            default_validator,
            default_normalizer,
            strict_column_validator,
        );
        updated.await.unwrap_or_else(|error| panic!("{}: {error}", script.display()));
    } else if let Err(error) = runner.run_file_async(&script).await {
        panic!("{}", error.display(false));
    }
    runner.shutdown_async().await;
}

async fn make_database(daemon: &Daemon, name: &str) {
    let client = daemon.connect().await;
    let made = client.batch_execute(&format!("CREATE DATABASE {name}")).await;
    made.unwrap_or_else(|error| panic!("CREATE DATABASE {name}: {}", explain(&error)));
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sql")
}

/// A connection, as the scripts see it.
struct Session(Client);

#[async_trait]
impl AsyncDB for Session {
    type Error = Failure;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Failure> {
        let messages = self.0.simple_query(sql).await.map_err(Failure)?;
        let mut types = None;
        let mut rows = Vec::new();
        let mut count = 0;
        for message in messages {
            match message {
                SimpleQueryMessage::RowDescription(columns) => {
                    types = Some(vec![DefaultColumnType::Text; columns.len()]);
                    rows.clear();
                }
                SimpleQueryMessage::Row(row) => {
                    rows.push((0..row.len()).map(|column| shown(row.get(column))).collect());
                }
                SimpleQueryMessage::CommandComplete(rows) => count = rows,
                _ => {}
            }
        }
        Ok(match types {
            Some(types) => DBOutput::Rows { types, rows },
            None => DBOutput::StatementComplete(count),
        })
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        "oribi"
    }

    fn error_sql_state(error: &Failure) -> Option<String> {
        error.0.code().map(|code| code.code().to_owned())
    }
}

fn shown(value: Option<&str>) -> String {
    match value {
        None => "NULL".to_owned(),
        Some("") => "(empty)".to_owned(),
        Some(text) => text.replace('\n', "\\n"),
    }
}

/// An error with its SQLSTATE in front.
#[derive(Debug)]
struct Failure(tokio_postgres::Error);

impl std::error::Error for Failure {}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&explain(&self.0))
    }
}
