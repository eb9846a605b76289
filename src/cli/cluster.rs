//! `oribi cluster`: the daemons and what they do; draining one.

use std::io::{IsTerminal, Write, stdout};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;
use tokio::time::{Instant, sleep};
use tokio_postgres::Row;

use super::error::{Error, Result};
use super::link::Link;
use super::link::client::{Client, is_lost};
use super::link::login::Login;
use super::link::places::{Place, Places};
use super::{runtime, text_table, tour};
use crate::cluster::State;
use crate::system::UNREACHABLE;

const APPLICATION: &str = "oribi cluster";

/// The exit code of `status` if a daemon of the cluster cannot be reached.
const NOT_ALL: u8 = 6;

const PAUSE: Duration = Duration::from_millis(300);

/// Statements that `top` shows.
const SHOWN: i64 = 15;

/// Characters of a statement's text.
const TEXT: i64 = 60;

#[derive(Debug, Args)]
pub struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Shows the daemons, and what runs on them.
    ///
    /// A daemon that was killed is listed until its session with ZooKeeper has ended, ten seconds by
    /// default, as "unreachable" once the daemon that is asked has noticed: the exit code is 6 then.
    Status {
        /// As JSON: an object with daemons, and statements that run and wait.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        link: Link,
    },
    /// Shows the daemons and the statements that run, again and again, until it is interrupted.
    Top {
        /// Seconds between two looks.
        #[arg(long, default_value = "2s", value_name = "TIME", value_parser = humantime::parse_duration)]
        interval: Duration,
        /// As many looks, and then it ends.
        #[arg(long, value_name = "N")]
        count: Option<u64>,
        /// A look a line, as JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        link: Link,
    },
    /// Has a daemon finish what runs, take nothing new, and end, as SIGTERM does. Waits for its end.
    Drain {
        /// The daemon's name.
        daemon: String,
        /// Do not wait for its end.
        #[arg(long)]
        no_wait: bool,
        /// How long to wait; the daemon goes on draining when the time is up.
        #[arg(long, default_value = "10min", value_name = "TIME", value_parser = humantime::parse_duration)]
        timeout: Duration,
        /// Say what was done as JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        link: Link,
    },
}

#[derive(Debug, Serialize)]
struct Overview {
    daemons: Vec<Daemon>,
    /// Statements that run, on all daemons, and that wait.
    running: i64,
    queued: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    statements: Option<Vec<Statement>>,
}

#[derive(Debug, Serialize)]
struct Daemon {
    id: String,
    state: String,
    leader: bool,
    postgres: Option<String>,
    version: String,
    build: String,
    cores: i64,
    /// Bytes.
    memory: i64,
    /// RFC 3339, in UTC.
    since: String,
    running: i64,
    /// Why it is degraded.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Statement {
    id: String,
    state: String,
    daemon: String,
    user: String,
    /// Since it was submitted.
    seconds: f64,
    progress: Option<f64>,
    sql: String,
}

#[derive(Debug, Serialize)]
struct Drained<'a> {
    daemon: &'a str,
    /// Whether it has ended.
    ended: bool,
}

pub fn run(options: Options) -> Result<()> {
    runtime()?.block_on(async {
        match options.action {
            Action::Status { json, link } => {
                let overview = Overview::read(&mut link.open(APPLICATION).await?, false).await?;
                tour::print(&overview.show(json)?)?;
                match overview.daemons.iter().any(|daemon| daemon.state == UNREACHABLE) {
                    true => Err(Error::Told(NOT_ALL)),
                    false => Ok(()),
                }
            }
            Action::Top { interval, count, json, link } => {
                let mut client = link.open(APPLICATION).await?;
                tokio::select! {
                    done = top(&mut client, interval, count, json) => done,
                    // That is how it ends.
                    _ = tokio::signal::ctrl_c() => Ok(()),
                }
            }
            Action::Drain { daemon, no_wait, timeout, json, link } => {
                let wait = (!no_wait).then_some(timeout);
                let ended = drain(link, &daemon, wait).await?;
                if json {
                    let drained = Drained { daemon: &daemon, ended };
                    return tour::print(&to_json(&drained)?);
                }
                tour::print(&match ended {
                    true => format!("daemon {daemon} has ended"),
                    false => format!("daemon {daemon} is draining"),
                })
            }
        }
    })
}

fn to_json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::Rows(error.to_string()))
}

impl Overview {
    async fn read(client: &mut Client, with_statements: bool) -> Result<Self> {
        let daemons = client.rows(
            "SELECT d.id, d.state, d.leader, d.postgres, d.version, d.build, d.cores::bigint, d.memory, \
             extract(epoch FROM d.since)::float8, (SELECT count(*) FROM system.queries q \
                             WHERE q.daemon = d.id AND q.state = 'running' \
                             AND q.pid IS DISTINCT FROM pg_backend_pid()) \
             FROM system.daemons d ORDER BY d.id",
        );
        let daemons = daemons.await?;
        let daemons = daemons.iter().map(Daemon::read).collect::<Result<Vec<_>, _>>();
        let mut daemons = daemons.map_err(Error::Statement)?;
        if daemons.iter().any(|daemon| daemon.state == State::Degraded.to_string()) {
            let sql = "SELECT id, error FROM system.daemons WHERE error IS NOT NULL";
            // An earlier version has no such column.
            for row in client.rows(sql).await.unwrap_or_default() {
                let named = row.try_get::<_, String>(0).map_err(Error::Statement)?;
                if let Some(daemon) = daemons.iter_mut().find(|daemon| daemon.id == named) {
                    daemon.error = row.try_get(1).map_err(Error::Statement)?;
                }
            }
        }
        let counts = client.rows(
            "SELECT count(*) FILTER (WHERE state = 'running'), count(*) FILTER (WHERE state = 'queued') \
             FROM system.queries WHERE pid IS DISTINCT FROM pg_backend_pid()",
        );
        let counts = counts.await?;
        let count = |at: usize| counts.first().map_or(Ok(0), |row| row.try_get::<_, i64>(at));
        let (running, queued) =
            (count(0).map_err(Error::Statement)?, count(1).map_err(Error::Statement)?);
        let statements = match with_statements {
            true => {
                let sql = format!(
                    "SELECT id, state, daemon, \"user\", \
                     extract(epoch FROM now() - submitted)::float8, progress, \
                     left(replace(sql, E'\\n', ' '), {TEXT}) FROM system.queries \
                     WHERE state IN ('running', 'queued') AND pid IS DISTINCT FROM pg_backend_pid() \
                     ORDER BY submitted LIMIT {SHOWN}"
                );
                let found = client.rows(&sql).await?;
                let found = found.iter().map(Statement::read).collect::<Result<_, _>>();
                Some(found.map_err(Error::Statement)?)
            }
            false => None,
        };
        Ok(Self { daemons, running, queued, statements })
    }

    fn show(&self, json: bool) -> Result<String> {
        if json {
            return to_json(self);
        }
        let cell = |text: &dyn ToString| Some(text.to_string());
        let daemons: Vec<Vec<Option<String>>> = (self.daemons.iter())
            .map(|daemon| {
                let role = if daemon.leader { "leads" } else { "" };
                let memory = bytesize::ByteSize(daemon.memory.unsigned_abs()).to_string();
                vec![
                    cell(&daemon.id),
                    cell(&daemon.state),
                    cell(&role),
                    daemon.postgres.clone(),
                    cell(&daemon.version),
                    cell(&daemon.build),
                    cell(&daemon.cores),
                    cell(&memory),
                    cell(&daemon.running),
                    cell(&daemon.since.replace('T', " ")),
                ]
            })
            .collect();
        let names = [
            "daemon", "state", "role", "postgres", "version", "build", "cores", "memory",
            "running", "since",
        ];
        let mut text = table(&names, &daemons);
        let running = match self.running {
            1 => "1 statement runs".to_owned(),
            several => format!("{several} statements run"),
        };
        let wait = if self.queued == 1 { "waits" } else { "wait" };
        text += &format!("\n{running}, {} {wait}", self.queued);
        for Daemon { id, state, error, .. } in &self.daemons {
            if let Some(error) = error {
                text += &format!("\n{id} is {state}: {error}");
            }
        }
        let Some(statements) = &self.statements else { return Ok(text) };
        let statements: Vec<Vec<Option<String>>> = (statements.iter())
            .map(|statement| {
                vec![
                    cell(&statement.id),
                    cell(&statement.state),
                    cell(&statement.daemon),
                    cell(&statement.user),
                    cell(&format!("{:.1}", statement.seconds)),
                    statement.progress.map(|progress| format!("{:.0}%", progress * 100.0)),
                    cell(&statement.sql),
                ]
            })
            .collect();
        let names = ["id", "state", "daemon", "user", "seconds", "progress", "sql"];
        Ok(text + "\n\n" + &table(&names, &statements))
    }
}

fn table(names: &[&str], rows: &[Vec<Option<String>>]) -> String {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    text_table::render(&names, rows, rows.len())
}

impl Daemon {
    fn read(row: &Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            id: row.try_get(0)?,
            state: row.try_get(1)?,
            leader: row.try_get(2)?,
            postgres: row.try_get(3)?,
            version: row.try_get(4)?,
            build: row.try_get(5)?,
            cores: row.try_get(6)?,
            memory: row.try_get(7)?,
            since: tour::moment(row.try_get(8)?),
            running: row.try_get(9)?,
            error: None,
        })
    }
}

impl Statement {
    fn read(row: &Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            id: row.try_get(0)?,
            state: row.try_get(1)?,
            daemon: row.try_get(2)?,
            user: row.try_get(3)?,
            seconds: row.try_get::<_, Option<f64>>(4)?.unwrap_or_default(),
            progress: row.try_get(5)?,
            sql: row.try_get(6)?,
        })
    }
}

async fn top(
    client: &mut Client,
    interval: Duration,
    count: Option<u64>,
    json: bool,
) -> Result<()> {
    let mut looks = 0;
    loop {
        let text = Overview::read(client, true).await?.show(json)?;
        if stdout().is_terminal() && !json {
            // From the top of an empty screen.
            write!(stdout(), "\x1b[H\x1b[2J").map_err(Error::Print)?;
        }
        tour::print(&text)?;
        looks += 1;
        if count.is_some_and(|count| looks >= count) {
            return Ok(());
        }
        sleep(interval).await;
    }
}

/// Drains a daemon: whether it has ended.
async fn drain(link: Link, daemon: &str, wait: Option<Duration>) -> Result<bool> {
    let login = Login::new(link.login, APPLICATION)?;
    let mut any = Client::new(Places::open(link.places).await?, login.clone());
    let known = any.rows("SELECT id, postgres FROM system.daemons").await?;
    let mut names = Vec::new();
    let mut place = None;
    for row in &known {
        let id: String = row.try_get(0).map_err(Error::Statement)?;
        let address: Option<String> = row.try_get(1).map_err(Error::Statement)?;
        if id == daemon {
            place = address.and_then(|address| address.parse::<Place>().ok());
        }
        names.push(id);
    }
    let place = place.ok_or_else(|| {
        Error::NotInForce(format!(
            "there is no daemon \"{daemon}\": there are {}",
            names.join(", ")
        ))
    })?;
    let mut own = Client::new(Places::Given(vec![place.clone()]), login);
    let literal = daemon.replace('\'', "''");
    let asked = own.link().await?.query(&format!("SELECT oribi.drain('{literal}')"), &[]).await;
    match asked {
        // It may be gone before it has answered.
        Err(error) if !is_lost(&error) => return Err(Error::Statement(error)),
        _ => {}
    }
    let Some(wait) = wait else { return Ok(false) };
    let deadline = Instant::now() + wait;
    while Instant::now() < deadline {
        // The process has ended when nothing listens there; before, it may be listed no more.
        let reached = tokio::net::TcpStream::connect((place.host.as_str(), place.port)).await;
        if reached.is_err() {
            return Ok(true);
        }
        sleep(PAUSE).await;
    }
    Err(Error::NotInForce(format!(
        "daemon {daemon} has not ended within {}, and goes on draining: oribi cluster top shows what it \
         waits for",
        humantime::format_duration(wait)
    )))
}
