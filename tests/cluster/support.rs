//! What the tests of whole daemons share: clusters of them, clients, and a look into the store.
//! Each test file uses a part of it.
#![allow(dead_code)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::SinkExt;
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_postgres::error::DbError;
use tokio_postgres::{NoTls, SimpleQueryMessage};
use uuid::Uuid;

pub use crate::common::daemon::{Daemon, PATIENCE};
use crate::common::daemon::{Options, eventually};
use crate::common::zookeeper::{self, Server};

/// Long enough for a busy machine to keep, short enough to wait for its end.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(4);

/// A statement that ends by itself after a second or some, and its answer.
pub const SLOW: (&str, &str) =
    ("SELECT count(*) FROM generate_series(1, 500000000) a(x) WHERE x % 7 = 3", "71428572");

/// A statement that does not end by itself.
pub const ENDLESS: &str =
    "SELECT count(*) FROM generate_series(1, 10000000000000) a(x) WHERE x % 7 = 3";

/// One that keeps all cores busy, and makes far more rows than it reads.
pub const HEAVY: &str = "SELECT count(*) FROM generate_series(1, 1000000) a(x) \
                         JOIN generate_series(1, 1000000) b(y) ON a.x % 10 = b.y % 10";

/// One that keeps all cores busy, and finds no row however long it looks.
pub const FRUITLESS: &str = "SELECT count(*) FROM generate_series(1, 1000000) a(x) \
                             JOIN generate_series(1, 1000000) b(y) ON a.x + b.y < 0";

pub async fn bounded<T>(case: impl Future<Output = T>) -> T {
    tokio::time::timeout(5 * PATIENCE, case).await.expect("the case ends in time")
}

/// Waits until a condition holds.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    eventually(what, async || holds().await.then_some(())).await;
}

/// The daemons of one test: below one chroot of an ensemble, or each for itself.
pub struct Cluster {
    zookeeper: Option<String>,
    variables: Vec<(String, String)>,
    folder: TempDir,
    /// Kept running.
    _server: Option<Arc<Server>>,
}

impl Cluster {
    /// On the server that tests share.
    pub fn on_shared_zookeeper() -> Self {
        let server = zookeeper::shared();
        Self { _server: Some(server.clone()), ..Self::on(&server.connect_string()) }
    }

    /// The same, with a warehouse that all its daemons share.
    pub fn with_warehouse() -> Self {
        let cluster = Self::on_shared_zookeeper();
        let warehouse = cluster.path("warehouse").display().to_string();
        cluster.with("WAREHOUSE", &warehouse)
    }

    /// On an ensemble, below a chroot of its own.
    pub fn on(hosts: &str) -> Self {
        let zookeeper = format!("{hosts}/test-{}", Uuid::new_v4().simple());
        let timeout = format!("{}s", SESSION_TIMEOUT.as_secs());
        Self { zookeeper: Some(zookeeper), ..Self::embedded() }
            .with("COORDINATION_SESSION_TIMEOUT", &timeout)
    }

    /// Each daemon with a store of its own.
    pub fn embedded() -> Self {
        let folder = TempDir::with_prefix("oribi-cluster-").expect("a temporary directory");
        Self { zookeeper: None, variables: Vec::new(), folder, _server: None }
    }

    /// Sets `ORIBI_<name>` for daemons started from now on.
    pub fn with(self, name: &str, value: &str) -> Self {
        self.with_variable(&format!("ORIBI_{name}"), value)
    }

    pub fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn is_embedded(&self) -> bool {
        self.zookeeper.is_none()
    }

    /// `host:port/chroot`.
    pub fn zookeeper(&self) -> &str {
        self.zookeeper.as_deref().expect("a cluster on an ensemble")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts a daemon on the data directory of its name, and waits until it is ready.
    pub fn start(&self, id: &str) -> Daemon {
        Daemon::start(&self.options(id, id))
    }

    /// Starts several at the same moment.
    pub fn start_all<const N: usize>(&self, ids: [&str; N]) -> [Daemon; N] {
        std::thread::scope(|scope| {
            let starting = ids.map(|id| scope.spawn(move || self.start(id)));
            starting.map(|daemon| daemon.join().expect("the daemon starts"))
        })
    }

    /// The same, and all of them know of each other.
    pub async fn start_together<const N: usize>(&self, ids: [&str; N]) -> [Daemon; N] {
        let daemons = self.start_all(ids);
        all_ready(&Client::connect(&daemons[0]).await, &ids).await;
        daemons
    }

    /// Starts another build at an address that clients know.
    pub fn start_build(&self, id: &str, binary: &Path, postgres: Option<SocketAddr>) -> Daemon {
        let options = self.options(id, id).binary(binary);
        let address = postgres.map(|address| address.to_string());
        Daemon::start(&match address {
            Some(address) => options.env("ORIBI_POSTGRES", address),
            None => options,
        })
    }

    /// Starts a daemon and does not wait for anything.
    pub fn launch(&self, id: &str, data_dir: &str) -> Daemon {
        Daemon::launch(&self.options(id, data_dir))
    }

    /// Starts a daemon that reaches the ensemble at other addresses.
    pub fn start_through(&self, id: &str, hosts: &str) -> Daemon {
        let (_, chroot) = self.zookeeper().split_once('/').expect("a chroot");
        Daemon::start(&self.options_on(Some(&format!("{hosts}/{chroot}")), id, id))
    }

    fn options(&self, id: &str, data_dir: &str) -> Options {
        self.options_on(self.zookeeper.as_deref(), id, data_dir)
    }

    fn options_on(&self, zookeeper: Option<&str>, id: &str, data_dir: &str) -> Options {
        let mut options = Options::new().data_dir(self.path(data_dir)).arg(format!("--id={id}"));
        if let Some(zookeeper) = zookeeper {
            options = options.arg(format!("--zookeeper={zookeeper}"));
        }
        for (name, value) in &self.variables {
            options = options.env(name, value);
        }
        options
    }

    /// A file with one column `x` and one row, and the statement that makes a table of it.
    pub fn table(&self, name: &str, value: i64) -> String {
        let file = self.path(&format!("{value}.csv"));
        std::fs::write(&file, format!("x\n{value}\n")).expect("a file");
        format!(
            "CREATE EXTERNAL TABLE {name} (x BIGINT) STORED AS CSV LOCATION '{}' \
             OPTIONS ('format.has_header' 'true')",
            file.display()
        )
    }
}

/// A client, and what became of its connection.
pub struct Client {
    client: tokio_postgres::Client,
    pub connection: JoinHandle<Result<(), tokio_postgres::Error>>,
}

impl Client {
    pub async fn try_connect(daemon: &Daemon) -> Result<Self, tokio_postgres::Error> {
        let (client, connection) = daemon.client_config().connect(NoTls).await?;
        Ok(Self { client, connection: tokio::spawn(connection) })
    }

    /// As another role than `oribi`.
    pub async fn connect_as(daemon: &Daemon, role: &str) -> Self {
        let connected = daemon.client_config().user(role).connect(NoTls).await;
        let (client, connection) = connected.unwrap_or_else(|error| panic!("{role}: {error:?}"));
        Self { client, connection: tokio::spawn(connection) }
    }

    pub async fn connect(daemon: &Daemon) -> Self {
        Self::try_connect(daemon).await.unwrap_or_else(|error| panic!("{error:?}"))
    }

    /// The rows of a statement as text; NULL is empty.
    pub async fn try_rows(&self, sql: &str) -> Result<Vec<Vec<String>>, tokio_postgres::Error> {
        let messages = self.client.simple_query(sql).await?;
        let row = |message: &SimpleQueryMessage| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|at| row.get(at).unwrap_or_default().to_owned()).collect())
            }
            _ => None,
        };
        Ok(messages.iter().filter_map(row).collect())
    }

    /// The same, and how many rows the last statement has changed.
    pub async fn run(&self, sql: &str) -> Result<(Vec<Vec<String>>, u64), tokio_postgres::Error> {
        let (mut rows, mut changed) = (Vec::new(), 0);
        for message in self.client.simple_query(sql).await? {
            match message {
                SimpleQueryMessage::Row(row) => {
                    let value = |at| row.get(at).unwrap_or_default().to_owned();
                    rows.push((0..row.len()).map(value).collect());
                }
                SimpleQueryMessage::CommandComplete(count) => changed = count,
                _ => {}
            }
        }
        Ok((rows, changed))
    }

    /// Copies lines into a table.
    pub async fn try_copy(&self, sql: &str, lines: &[u8]) -> Result<(), tokio_postgres::Error> {
        let mut sink = std::pin::pin!(self.client.copy_in::<_, Bytes>(sql).await?);
        sink.send(Bytes::copy_from_slice(lines)).await?;
        sink.finish().await.map(drop)
    }

    pub async fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        self.try_rows(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    }

    /// The one value of a statement; empty if it has no row.
    pub async fn value(&self, sql: &str) -> String {
        self.rows(sql).await.into_iter().flatten().next().unwrap_or_default()
    }

    /// Executes a statement that must fail.
    pub async fn refused(&self, sql: &str) -> DbError {
        match self.try_rows(sql).await {
            Ok(rows) => panic!("{sql} succeeded: {rows:?}"),
            Err(error) => db_error(&error),
        }
    }

    /// Executes a statement that may fail; the SQLSTATE if it does, "" if it does not.
    pub async fn outcome(&self, sql: &str) -> String {
        let failed = self.try_rows(sql).await.err();
        failed.map(|error| db_error(&error).code().code().to_owned()).unwrap_or_default()
    }

    /// Waits for the server's good-bye.
    pub async fn good_bye(self) -> DbError {
        let ended = tokio::time::timeout(PATIENCE, self.connection).await.expect("a good-bye");
        db_error(&ended.expect("the task ends").expect_err("a reason"))
    }

    pub fn cancel_token(&self) -> tokio_postgres::CancelToken {
        self.client.cancel_token()
    }
}

pub fn db_error(error: &tokio_postgres::Error) -> DbError {
    error.as_db_error().unwrap_or_else(|| panic!("no error of the server's: {error:?}")).clone()
}

/// The cluster as a daemon sees it: id and state.
pub async fn states(client: &Client) -> Vec<(String, String)> {
    let rows = client.rows("SELECT id, state FROM system.daemons ORDER BY id").await;
    rows.into_iter().map(|row| (row[0].clone(), row[1].clone())).collect()
}

/// Waits until a daemon sees exactly these, all ready.
pub async fn all_ready(client: &Client, ids: &[&str]) {
    let expected: Vec<_> = ids.iter().map(|id| ((*id).to_owned(), "ready".to_owned())).collect();
    until(&format!("{ids:?} ready"), async || states(client).await == expected).await;
}

/// What a daemon answers over HTTP, head and all.
async fn http(daemon: &Daemon, path: &str) -> Option<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(daemon.web()).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

/// What a daemon tells of itself.
pub async fn metrics(daemon: &Daemon) -> String {
    http(daemon, "/metrics").await.expect("an answer")
}

/// Whether the daemon is stopped, as by SIGSTOP.
pub fn is_stopped(daemon: &Daemon) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.pid()));
    let stat = stat.expect("the daemon is there, on Linux");
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
}

/// A daemon's answer to `GET /readyz`: the status and the body.
pub async fn readyz(daemon: &Daemon) -> Option<(u16, Value)> {
    let answer = http(daemon, "/readyz").await?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    let body = serde_json::from_str(answer.split("\r\n\r\n").nth(1)?).ok()?;
    Some((status, body))
}

/// The store as an operator sees it.
pub struct Store(zookeeper_client::Client);

impl Store {
    /// Looks below a cluster's chroot.
    pub async fn of(cluster: &Cluster) -> Self {
        let connector = zookeeper_client::Client::connector().with_session_timeout(PATIENCE);
        let (hosts, chroot) = cluster.zookeeper().split_once('/').expect("a chroot");
        let client = connector.connect(hosts).await.expect("a connection");
        let rooted = client.chroot(format!("/{chroot}"));
        Self(rooted.unwrap_or_else(|_| panic!("{chroot} is a chroot")))
    }

    /// A node's value; none if there is no such node.
    pub async fn get(&self, path: &str) -> Option<Value> {
        let data = match self.0.get_data(path).await {
            Ok((data, _)) => data,
            Err(zookeeper_client::Error::NoNode) => return None,
            Err(error) => panic!("{path}: {error}"),
        };
        let parsed = serde_json::from_slice(&data);
        Some(parsed.unwrap_or_else(|_| panic!("{path}: {}", String::from_utf8_lossy(&data))))
    }

    /// Makes a node that stays.
    pub async fn create(&self, path: &str, data: &[u8]) {
        let options = zookeeper_client::CreateMode::Persistent
            .with_acls(zookeeper_client::Acls::anyone_all());
        let created = self.0.create(path, data, &options).await;
        created.unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// Gives a node another value.
    pub async fn set(&self, path: &str, data: &[u8]) {
        let set = self.0.set_data(path, data, None).await;
        set.unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    pub async fn delete(&self, path: &str) {
        self.0.delete(path, None).await.unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// All nodes with their values, as they are.
    pub async fn all(&self) -> Vec<(String, String)> {
        let (mut found, mut paths) = (Vec::new(), vec!["/".to_owned()]);
        while let Some(path) = paths.pop() {
            // Ephemeral ones come and go.
            if let Ok((data, _)) = self.0.get_data(&path).await {
                found.push((path.clone(), String::from_utf8_lossy(&data).into_owned()));
            }
            let children = self.children(&path).await.into_iter();
            paths.extend(children.map(|name| format!("{}/{name}", path.trim_end_matches('/'))));
        }
        found
    }

    /// The names of a node's children; none if there is no such node.
    pub async fn children(&self, path: &str) -> Vec<String> {
        let mut names = match self.0.list_children(path).await {
            Ok(names) => names,
            Err(zookeeper_client::Error::NoNode) => Vec::new(),
            Err(error) => panic!("{path}: {error}"),
        };
        names.sort();
        names
    }
}
