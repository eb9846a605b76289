//! A connection to whichever daemon answers; another takes its place when it dies or drains.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::Row;
use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::types::ToSql;

use super::login::Login;
use super::places::{Place, Places};
use crate::cli::error::{Error, Result};

/// How long a daemon has for letting somebody in.
const ENTRY: Duration = Duration::from_secs(5);

/// How long a daemon has for an answer beyond what it was told to wait.
const ANSWER: Duration = Duration::from_secs(10);

/// How long somebody has to be found once the daemon that was asked so far has gone, and how long
/// answers may be lost before it is asked no more.
const SEARCH: Duration = Duration::from_secs(30);

const PAUSE: Duration = Duration::from_millis(300);

#[derive(Debug)]
pub struct Client {
    places: Places,
    login: Login,
    link: Option<Link>,
    /// Where the last connection was lost: asked last.
    lost: Option<Place>,
    /// Where daemons were when they were looked for last.
    seen: Vec<Place>,
    /// Somebody has answered before.
    known: bool,
}

struct Link {
    client: tokio_postgres::Client,
    place: Place,
    /// Moves bytes for as long as the link is there.
    _connection: JoinSet<()>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Client {
    pub fn new(places: Places, login: Login) -> Self {
        Self { places, login, link: None, lost: None, seen: Vec::new(), known: false }
    }

    /// The first value of a statement's first row, from any daemon. It is asked again elsewhere when
    /// an answer is lost, so it must do no harm twice. `patience` is how long it may take by itself.
    pub async fn ask(
        &mut self,
        sql: &str,
        arguments: &[&str],
        patience: Duration,
    ) -> Result<Option<String>> {
        let arguments: Vec<&(dyn ToSql + Sync)> =
            arguments.iter().map(|argument| argument as &(dyn ToSql + Sync)).collect();
        let mut lost_since = None;
        loop {
            let link = self.link().await?;
            let why = match timeout(patience + ANSWER, link.query_opt(sql, &arguments)).await {
                Ok(Ok(row)) => {
                    return match row.map(|row| row.try_get(0)).transpose() {
                        Ok(value) => Ok(value.flatten()),
                        Err(error) => Err(Error::Statement(error)),
                    };
                }
                Ok(Err(error)) if !is_lost(&error) => return Err(Error::Statement(error)),
                // Stopped, cut off, or going down.
                Ok(Err(error)) => with_causes(&error),
                Err(_) => "no answer in time".to_owned(),
            };
            self.lose();
            if lost_since.get_or_insert_with(Instant::now).elapsed() > SEARCH {
                let tried = self.places.describe(&self.seen);
                return Err(Error::Unreachable(format!("{tried} ({why})")));
            }
        }
    }

    /// The rows of a statement that only reads, and not for long, from any daemon.
    pub async fn rows(&mut self, sql: &str) -> Result<Vec<Row>> {
        let mut lost = 0;
        loop {
            let link = self.link().await?;
            let why = match timeout(ANSWER, link.query(sql, &[])).await {
                Ok(Err(error)) if is_lost(&error) => with_causes(&error),
                Ok(done) => return done.map_err(Error::Statement),
                Err(_) => format!("no answer within {} s", ANSWER.as_secs()),
            };
            self.lose();
            lost += 1;
            if lost > self.seen.len() {
                let (tried, advice) = (self.places.describe(&self.seen), self.places.advice());
                return Err(Error::Unreachable(format!("{tried} ({why}): {advice}")));
            }
        }
    }

    /// Asks another daemon from now on.
    pub fn lose(&mut self) {
        self.lost = self.link.take().map(|link| link.place);
    }

    /// The connection, made if there is none.
    pub async fn link(&mut self) -> Result<&tokio_postgres::Client> {
        if self.link.as_ref().is_some_and(|link| link.client.is_closed()) {
            self.lose();
        }
        let link = match self.link.take() {
            Some(link) => link,
            None => self.find().await?,
        };
        self.known = true;
        Ok(&self.link.insert(link).client)
    }

    async fn find(&mut self) -> Result<Link> {
        let since = Instant::now();
        loop {
            match self.places.list().await {
                Ok(places) => self.seen = places,
                Err(error) if !self.known => return Err(error),
                // ZooKeeper has gone as well: daemons may be where they were.
                Err(_) => {}
            }
            let mut places = self.seen.clone();
            places.sort_by_key(|place| Some(place) == self.lost.as_ref());
            let mut last = String::new();
            for place in &places {
                match timeout(ENTRY, self.connect(place)).await {
                    Ok(Ok(link)) => return Ok(link),
                    Ok(Err(error)) if is_refusal(&error) => {
                        let title = format!("connecting to {place}");
                        return Err(Error::Sql { title, source: error });
                    }
                    Ok(Err(error)) => last = format!(" ({})", with_causes(&error)),
                    Err(_) => last = " (no answer in time)".to_owned(),
                }
            }
            if !self.known || since.elapsed() > SEARCH {
                let (tried, advice) = (self.places.describe(&places), self.places.advice());
                return Err(Error::Unreachable(format!("{tried}{last}: {advice}")));
            }
            sleep(PAUSE).await;
        }
    }

    async fn connect(&self, place: &Place) -> Result<Link, tokio_postgres::Error> {
        let config = self.login.to(place);
        let (client, connection) = config.connect(self.login.connector()).await?;
        let mut owner = JoinSet::new();
        owner.spawn(async move {
            // Whoever asks on it learns of its end.
            let _ = connection.await;
        });
        Ok(Link { client, place: place.clone(), _connection: owner })
    }
}

/// Whether the daemon, and not the statement, is at an end.
pub fn is_lost(error: &tokio_postgres::Error) -> bool {
    let io = || error.source().is_some_and(|source| source.is::<io::Error>());
    match error.as_db_error() {
        Some(error) => is_busy(error),
        None => error.is_closed() || io(),
    }
}

/// Whether no other daemon would let in whom this one does not.
fn is_refusal(error: &tokio_postgres::Error) -> bool {
    match error.as_db_error() {
        Some(error) => !is_busy(error),
        // A password that is missing, an encryption that is not offered.
        None => !error.is_closed() && error.source().is_none_or(|source| !source.is::<io::Error>()),
    }
}

/// Going down, not up yet, or full.
fn is_busy(error: &DbError) -> bool {
    let codes = [
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
        SqlState::TOO_MANY_CONNECTIONS,
    ];
    codes.contains(error.code())
}

fn with_causes(error: &tokio_postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        return error.message().to_owned();
    }
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}
