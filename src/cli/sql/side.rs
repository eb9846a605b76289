//! A second connection to the same daemon, for what is asked beside the statements: names to
//! complete, and how far a statement is. Made when it is needed first.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::time::timeout;

use super::complete::{self, Names};
use super::wire::{Row, Wire};
use crate::cli::link::login::Login;
use crate::cli::link::places::Place;

/// How long somebody who has pressed Tab waits.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long names are taken for good.
const FRESH: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub struct Side {
    login: Arc<Login>,
    place: Option<Place>,
    wire: Option<Wire>,
    names: Names,
    read: Option<Instant>,
}

impl Side {
    pub fn new(login: &Arc<Login>) -> Arc<Mutex<Self>> {
        let (login, names) = (login.clone(), Names::default());
        Arc::new(Mutex::new(Self { login, place: None, wire: None, names, read: None }))
    }

    /// Where the statements are run from now on.
    pub fn move_to(&mut self, login: &Arc<Login>, place: &Place) {
        (self.login, self.place) = (login.clone(), Some(place.clone()));
        (self.wire, self.read) = (None, None);
    }

    /// The catalog has changed, perhaps.
    pub fn forget(&mut self) {
        self.read = None;
    }

    /// The names that may be completed; those that were known last, if nobody tells.
    pub async fn names(&mut self) -> &Names {
        if self.read.is_none_or(|read| read.elapsed() > FRESH)
            && let Some(names) = timeout(PATIENCE, self.read_names()).await.ok().flatten()
        {
            self.names = names;
            self.read = Some(Instant::now());
        }
        &self.names
    }

    async fn read_names(&mut self) -> Option<Names> {
        let first =
            |rows: Vec<Row>| rows.into_iter().filter_map(|row| row.into_iter().next()?).collect();
        let columns = self.rows(complete::COLUMNS).await?.into_iter().filter_map(|row| {
            let mut values = row.into_iter();
            Some((values.next()??, values.next()??, values.next()??))
        });
        let columns = columns.collect();
        let functions = first(self.rows(complete::FUNCTIONS).await?);
        let settings = first(self.rows(complete::SETTINGS).await?);
        Some(Names { columns, functions, settings })
    }

    /// The rows of a statement, or none if there is no way to them.
    pub async fn rows(&mut self, sql: &str) -> Option<Vec<Row>> {
        let mut wire = match self.wire.take() {
            Some(wire) => wire,
            None => {
                let mut login = (*self.login).clone();
                login.set_application("oribi sql (aside)");
                Wire::connect(self.place.as_ref()?, &login).await.ok()?
            }
        };
        // A connection whose answer was not waited for to its end is not used again.
        let rows = wire.rows(sql).await.ok()?;
        self.wire = Some(wire);
        Some(rows)
    }
}
