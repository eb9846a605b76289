//! `oribi query`: submits queries, waits for them and fetches their rows, from any daemon.
//!
//! [`output`]: rows in the format that is wanted.

mod output;

use std::collections::BTreeMap;
use std::io::{IsTerminal, Read, Write, stderr, stdin};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{NonEmptyStringValueParser, PossibleValuesParser};
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;

use self::output::Format;
use super::error::{Error, Result};
use super::link::Link;
use super::link::client::Client;
use super::link::login;
use super::progress::Waiting;
use super::{runtime, tour};
use crate::id;
use crate::query::submitted::{KIND, Record, State};

const APPLICATION: &str = "oribi query";

/// How long one question for the end of a query waits: a daemon that is stopped is not waited for
/// much longer.
const SLICE: Duration = Duration::from_secs(2);

/// The same while somebody at a terminal wants to see how it goes.
const SEEN_SLICE: Duration = Duration::from_millis(500);

/// The states of queries.
const STATES: [State; 5] =
    [State::Queued, State::Running, State::Succeeded, State::Failed, State::Cancelled];

/// The kinds of queries: a client's own is interactive.
const KINDS: [&str; 3] = [KIND, "interactive", "all"];

/// Statements that need not wait for anything.
const AT_ONCE: Duration = Duration::from_secs(10);

/// Characters of a query's text in a list that people read.
const SHOWN_SQL: usize = 60;

#[derive(Debug, Args)]
pub struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Submits a query and prints its id.
    Submit {
        #[command(flatten)]
        submission: Submission,
        /// Wait for its end as well.
        #[arg(long)]
        wait: bool,
        /// JSON: an object with the id.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        patience: Patience,
        #[command(flatten)]
        link: Link,
    },
    /// Submits a query, waits for its end, and writes its rows. Interrupted, it cancels the query.
    Run {
        #[command(flatten)]
        submission: Submission,
        #[command(flatten)]
        patience: Patience,
        #[command(flatten)]
        output: output::Options,
        #[command(flatten)]
        link: Link,
    },
    /// Waits for the end of a query, and prints what it came to.
    Wait {
        id: String,
        /// JSON: an object with id, state and tag.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        patience: Patience,
        #[command(flatten)]
        link: Link,
    },
    /// Writes the rows of a query that has succeeded.
    Result {
        id: String,
        /// Wait for its end first.
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        patience: Patience,
        #[command(flatten)]
        output: output::Options,
        #[command(flatten)]
        link: Link,
    },
    /// Lists queries, the newest first.
    List(List),
    /// Cancels a query.
    Cancel {
        id: String,
        #[command(flatten)]
        link: Link,
    },
}

#[derive(Debug, Args)]
struct Submission {
    /// The query: one statement. Without it, and without --file, it is read from standard input.
    #[arg(conflicts_with = "file")]
    sql: Option<String>,
    /// File with the query; "-" is standard input.
    #[arg(short = 'F', long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Submitting the same query again with the same key gives the query that is there.
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    key: Option<String>,
    /// A setting of the query's session; may be given several times.
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = login::setting)]
    settings: Vec<(String, String)>,
}

#[derive(Debug, Args)]
struct Patience {
    /// How long to wait, such as 90s or 1h; the query goes on when the time is up.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
}

#[derive(Debug, Args)]
struct List {
    /// Only those in this state.
    #[arg(long, value_parser = PossibleValuesParser::new(STATES.map(State::as_str)))]
    state: Option<String>,
    /// Only those of this role.
    #[arg(long, value_name = "ROLE")]
    owner: Option<String>,
    /// Only those of this kind.
    #[arg(long, default_value = KIND, value_parser = PossibleValuesParser::new(KINDS))]
    kind: String,
    /// As many at most.
    #[arg(long, default_value_t = 100)]
    limit: u32,
    #[command(flatten)]
    output: output::Options,
    #[command(flatten)]
    link: Link,
}

/// The second argument of `oribi.submit`.
#[derive(Serialize)]
struct Wishes {
    key: String,
    settings: BTreeMap<String, String>,
}

pub fn run(options: Options) -> Result<()> {
    runtime()?.block_on(async {
        match options.command {
            Command::Run { submission, patience, output, link } => {
                Query::submit(link, submission).await?.run(patience.timeout, &output).await
            }
            other => interruptible(other.carry_out()).await,
        }
    })
}

impl Command {
    async fn carry_out(self) -> Result<()> {
        match self {
            Self::Submit { submission, wait, json, patience, link } => {
                let mut query = Query::submit(link, submission).await?;
                match json {
                    true => tour::print(&json!({ "id": query.id }).to_string())?,
                    false => tour::print(&query.id)?,
                }
                match wait {
                    true => query.until_end(patience.timeout).await.map(drop),
                    false => Ok(()),
                }
            }
            Self::Run { submission, patience, output, link } => {
                Query::submit(link, submission).await?.run(patience.timeout, &output).await
            }
            Self::Wait { id, json, patience, link } => {
                let mut query = Query::known(link, id).await?;
                let record = query.until_end(patience.timeout).await?;
                let (id, state, tag) = (&query.id, record.state.as_str(), tag(&record));
                match json {
                    true => {
                        tour::print(&json!({ "id": id, "state": state, "tag": tag }).to_string())
                    }
                    false => tour::print(&tag),
                }
            }
            Self::Result { id, wait, patience, output, link } => {
                let mut query = Query::known(link, id).await?;
                let record = match wait {
                    true => query.until_end(patience.timeout).await?,
                    false => query.at_end().await?,
                };
                query.fetch(&record, &output).await
            }
            Self::List(list) => list.run().await,
            Self::Cancel { id, link } => Query::known(link, id).await?.cancel().await,
        }
    }
}

/// Work that SIGINT ends.
async fn interruptible<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        done = work => done,
        caught = tokio::signal::ctrl_c() => {
            let failed = |source| Error::Io { what: "listen for signals".into(), source };
            caught.map_err(failed).and(Err(Error::Interrupted))
        }
    }
}

/// A submitted query.
struct Query {
    client: Client,
    id: String,
}

impl Query {
    async fn known(link: Link, id: String) -> Result<Self> {
        Ok(Self { client: link.open(APPLICATION).await?, id })
    }

    /// Submits a query. With a key of its own it is submitted once, however often an answer is lost.
    async fn submit(link: Link, submission: Submission) -> Result<Self> {
        let sql = submission.text()?;
        let key = submission.key.unwrap_or_else(|| {
            let nonce = id::nonce().simple().to_string();
            nonce.chars().take(12).collect()
        });
        let wishes = Wishes { key, settings: submission.settings.into_iter().collect() };
        let wishes =
            serde_json::to_string(&wishes).map_err(|error| Error::Rows(error.to_string()))?;
        let mut client = link.open(APPLICATION).await?;
        let submit = "SELECT oribi.submit($1::text, $2::text)";
        let id = client.ask(submit, &[&sql, &wishes], AT_ONCE).await?;
        Ok(Self { client, id: id.unwrap_or_default() })
    }

    async fn record(&mut self) -> Result<Record> {
        let record = "SELECT oribi.record($1::text)";
        let record = self.client.ask(record, &[&self.id], AT_ONCE).await?.unwrap_or_default();
        serde_json::from_str(&record).map_err(|error| Error::Rows(error.to_string()))
    }

    /// Waits for the query's success.
    async fn until_end(&mut self, timeout: Option<Duration>) -> Result<Record> {
        let end = timeout.map(|timeout| Instant::now() + timeout);
        let waiting = Waiting::new(&self.id);
        loop {
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            let slice = if waiting.is_seen() { SEEN_SLICE } else { SLICE };
            let slice = left.map_or(slice, |left| left.min(slice));
            let text = format!("{}ms", slice.as_millis());
            let wait = "SELECT oribi.wait($1::text, $2::text)";
            let state = self.client.ask(wait, &[&self.id, &text], slice).await?;
            let state = state.unwrap_or_default();
            if STATES.iter().any(|over| over.is_final() && over.as_str() == state) {
                return self.at_end().await;
            }
            if left.is_some_and(|left| left <= slice) {
                return Err(Error::TimeUp { id: self.id.clone(), state });
            }
            if waiting.is_seen() {
                waiting.show(&self.record().await?);
            }
        }
    }

    /// Its record, if it has succeeded.
    async fn at_end(&mut self) -> Result<Record> {
        let record = self.record().await?;
        let id = self.id.clone();
        match (record.state, record.error) {
            (State::Succeeded, error) => Ok(Record { error, ..record }),
            (State::Cancelled, _) => Err(Error::Cancelled(id)),
            (_, Some(failure)) => Err(Error::Failed { id, failure }),
            (state, None) => Err(Error::NotDone { id, state: state.as_str() }),
        }
    }

    async fn fetch(&mut self, record: &Record, options: &output::Options) -> Result<()> {
        let outcome = record.outcome.as_ref().filter(|outcome| outcome.location.is_some());
        let Some(outcome) = outcome else {
            if options.format() == Format::Table {
                return tour::print(&tag(record));
            }
            // Standard output is for programs, which get no rows. Nobody has to listen.
            let _ = writeln!(stderr(), "{}", tag(record));
            return Ok(());
        };
        let id = self.id.replace('\'', "''");
        let sql = format!("SELECT * FROM oribi.result('{id}')");
        output::fetch(&mut self.client, &sql, &outcome.columns, options).await
    }

    async fn run(mut self, timeout: Option<Duration>, options: &output::Options) -> Result<()> {
        let work = async {
            let record = self.until_end(timeout).await?;
            self.fetch(&record, options).await
        };
        let done = interruptible(work).await;
        if let Err(Error::Interrupted) = done {
            // What it was asked last has no answer yet.
            self.client.lose();
            self.cancel().await?;
        }
        done
    }

    async fn cancel(&mut self) -> Result<()> {
        let cancel = "SELECT oribi.cancel($1::text)::text";
        let ended = self.client.ask(cancel, &[&self.id], AT_ONCE).await?;
        if ended.as_deref() == Some("true") {
            return Ok(());
        }
        match self.record().await?.state {
            State::Cancelled => Ok(()),
            state => Err(Error::TooLate { id: self.id.clone(), state: state.as_str() }),
        }
    }
}

impl Submission {
    fn text(&self) -> Result<String> {
        let text = match (&self.sql, &self.file) {
            (Some(sql), _) if sql != "-" => sql.clone(),
            (None, Some(path)) if path.as_os_str() != "-" => {
                let failed =
                    |error| Error::Usage(format!("cannot read {}: {error}", path.display()));
                std::fs::read_to_string(path).map_err(failed)?
            }
            (None, None) if stdin().is_terminal() => {
                let reason = "give a query, --file, or the query as standard input";
                return Err(Error::Usage(reason.to_owned()));
            }
            _ => {
                let mut text = String::new();
                let failed = |source| Error::Io { what: "read standard input".into(), source };
                stdin().read_to_string(&mut text).map_err(failed)?;
                text
            }
        };
        match text.trim() {
            "" => Err(Error::Usage("the query is empty".to_owned())),
            text => Ok(text.to_owned()),
        }
    }
}

impl List {
    async fn run(self) -> Result<()> {
        let sql = match self.output.format() {
            Format::Table => format!("left(replace(sql, E'\\n', ' '), {SHOWN_SQL}) AS sql"),
            _ => "sql".to_owned(),
        };
        let mut conditions = vec!["true".to_owned()];
        let mut only = |column: &str, value: &str| {
            conditions.push(format!("{column} = '{}'", value.replace('\'', "''")));
        };
        if self.kind != "all" {
            only("kind", &self.kind);
        }
        if let Some(state) = &self.state {
            only("state", state);
        }
        if let Some(owner) = &self.owner {
            only("\"user\"", owner);
        }
        let (conditions, limit) = (conditions.join(" AND "), self.limit);
        let sql = format!(
            "SELECT id, kind, state, progress, attempt, daemon, \"user\", database, submitted, error, \
                    {sql} \
             FROM system.queries WHERE {conditions} ORDER BY submitted DESC LIMIT {limit}"
        );
        output::fetch(&mut self.link.open(APPLICATION).await?, &sql, &[], &self.output).await
    }
}

/// PostgreSQL's command tag of a query that has succeeded.
fn tag(record: &Record) -> String {
    record.outcome.as_ref().map(|outcome| outcome.tag.clone()).unwrap_or_default()
}
