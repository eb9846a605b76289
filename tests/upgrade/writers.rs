//! Clients that write whatever happens, and what became of their rows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::NoTls;

use crate::support::Client;

/// Between two tries to connect.
const PAUSE: Duration = Duration::from_millis(10);

/// Clients that insert one row after the other into `written (x bigint)`, each from 0 on.
pub struct Writers {
    end: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Written>>,
}

/// What became of the rows of one client.
#[derive(Debug, Default)]
pub struct Written {
    pub acknowledged: BTreeSet<i64>,
    pub refused: BTreeSet<i64>,
    pub unknown: BTreeSet<i64>,
    /// What was said of rows that were not acknowledged, by SQLSTATE.
    pub said: BTreeMap<String, String>,
}

impl Writers {
    /// Each goes to whichever of the daemons there is.
    pub fn start(count: usize, daemons: &[SocketAddr]) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let client = |_| tokio::spawn(write(daemons.to_vec(), end.clone()));
        Self { clients: (0..count).map(client).collect(), end: end.clone() }
    }

    pub async fn stop(self) -> Vec<Written> {
        self.end.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for client in self.clients {
            all.push(client.await.expect("it ends"));
        }
        all
    }
}

async fn write(daemons: Vec<SocketAddr>, end: Arc<AtomicBool>) -> Written {
    let mut written = Written::default();
    let (mut client, mut next) = (None, 0);
    for row in 0.. {
        while client.is_none() {
            let address = daemons[next % daemons.len()];
            next += 1;
            client = connect(address).await;
            if client.is_none() {
                tokio::time::sleep(PAUSE).await;
            }
        }
        let sql = format!("INSERT INTO written VALUES ({row})");
        let Some(connected) = &client else { continue };
        match connected.batch_execute(&sql).await {
            Ok(()) => drop(written.acknowledged.insert(row)),
            Err(error) => {
                client = None;
                let code = error.as_db_error().map(|said| said.code().code().to_owned());
                match code.as_deref() {
                    Some("08007") | None => written.unknown.insert(row),
                    Some(_) => written.refused.insert(row),
                };
                written.said.extend(code.map(|code| (code, error.to_string())));
            }
        }
        if end.load(Ordering::Relaxed) {
            break;
        }
    }
    written
}

async fn connect(address: SocketAddr) -> Option<tokio_postgres::Client> {
    let mut config = tokio_postgres::Config::new();
    config.host(address.ip().to_string()).port(address.port()).user("oribi").dbname("oribi");
    let (client, connection) = config.connect(NoTls).await.ok()?;
    tokio::spawn(connection);
    Some(client)
}

/// A row is there as often as it was acknowledged, or its fate is not known. How many were acknowledged.
pub async fn account(client: &Client, all: &[Written]) -> usize {
    let rows = client.rows("SELECT x, count(*) FROM written GROUP BY x").await;
    let number = |text: &String| text.parse::<i64>().expect("a number");
    let found: BTreeMap<_, _> = rows.iter().map(|row| (number(&row[0]), number(&row[1]))).collect();
    let rows: BTreeSet<i64> = (all.iter())
        .flat_map(|written| [&written.acknowledged, &written.refused, &written.unknown])
        .flatten()
        .chain(found.keys())
        .copied()
        .collect();
    for row in rows {
        let least = all.iter().filter(|written| written.acknowledged.contains(&row)).count();
        let most = least + all.iter().filter(|written| written.unknown.contains(&row)).count();
        let times = found.get(&row).map_or(0, |&times| usize::try_from(times).expect("a count"));
        assert!((least..=most).contains(&times), "row {row}: {times} not in {least}..={most}");
    }
    let acknowledged = all.iter().map(|written| written.acknowledged.len()).sum();
    assert!(acknowledged > 0);
    acknowledged
}
