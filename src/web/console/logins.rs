//! Who is logged in: a random token in the browser, and here what it stands for.
//!
//! The connection on which somebody has logged in stays as long as they are: it is what
//! `pg_stat_activity` shows and `pg_terminate_backend` ends, it counts against the limits of
//! connections, and it goes when the daemon drains. Their statements run on connections of their own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::wire::{Message, Wire};

/// Statements that one who is logged in may have under way at once; more wait.
const AT_ONCE: usize = 16;

/// Pages of one who is logged in that are told what changes at once.
const LISTENERS: usize = 8;

/// Downloads that one who is logged in may have asked for and not begun, and for how long.
const DOWNLOADS: usize = 16;
const DOWNLOAD_WAITS: Duration = Duration::from_secs(60);

/// Somebody who is logged in.
#[derive(Debug)]
pub struct Login {
    /// What a changing request has to bring along, beside the cookie.
    pub csrf: String,
    pub user: String,
    pub database: String,
    /// The role as it was: its OID, and the verifier of its password.
    pub role: (u32, Option<String>),
    /// Ends when they are logged in no more.
    pub ended: CancellationToken,
    /// Ends then, too, but not where the daemon stops: it finishes what has begun.
    pub revoked: CancellationToken,
    pub places: Arc<Semaphore>,
    /// For pages that want to be told what changes.
    pub listeners: Arc<Semaphore>,
    seen: Mutex<Instant>,
    touched: Notify,
    downloads: Mutex<HashMap<String, (Download, Instant)>>,
}

/// Rows that are to be fetched as a file.
#[derive(Clone, Debug)]
pub struct Download {
    pub sql: String,
    pub database: String,
    pub format: &'static str,
    /// The file's name.
    pub name: String,
}

impl Login {
    pub fn new(user: String, database: String, role: (u32, Option<String>)) -> Self {
        Self {
            csrf: token(),
            user,
            database,
            role,
            ended: CancellationToken::new(),
            revoked: CancellationToken::new(),
            places: Arc::new(Semaphore::new(AT_ONCE)),
            listeners: Arc::new(Semaphore::new(LISTENERS)),
            seen: Mutex::new(Instant::now()),
            touched: Notify::new(),
            downloads: Mutex::default(),
        }
    }

    /// They are still there.
    pub fn touch(&self) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.touched.notify_one();
    }

    /// Keeps what is to be downloaded until it is fetched, once; `None` if too much waits already.
    pub fn offer(&self, download: Download) -> Option<String> {
        let mut downloads = self.downloads.lock().unwrap_or_else(PoisonError::into_inner);
        downloads.retain(|_, (_, since)| since.elapsed() < DOWNLOAD_WAITS);
        if downloads.len() >= DOWNLOADS {
            return None;
        }
        let ticket = token();
        downloads.insert(ticket.clone(), (download, Instant::now()));
        Some(ticket)
    }

    pub fn take(&self, ticket: &str) -> Option<Download> {
        let mut downloads = self.downloads.lock().unwrap_or_else(PoisonError::into_inner);
        let (download, since) = downloads.remove(ticket)?;
        (since.elapsed() < DOWNLOAD_WAITS).then_some(download)
    }

    fn last_seen(&self) -> Instant {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All who are logged in.
#[derive(Debug)]
pub struct Logins {
    idle: Duration,
    by_token: Mutex<HashMap<String, Arc<Login>>>,
    keepers: TaskTracker,
    /// The daemon sends away who is idle.
    draining: CancellationToken,
    stop: CancellationToken,
}

impl Logins {
    /// They go after so long without a request, and at `stop`.
    pub fn new(idle: Duration, draining: CancellationToken, stop: CancellationToken) -> Arc<Self> {
        let (by_token, keepers) = Default::default();
        // No later than clocks go.
        let idle = idle.min(Duration::from_hours(24 * 365));
        Arc::new(Self { idle, by_token, keepers, draining, stop })
    }

    pub fn find(&self, token: &str) -> Option<Arc<Login>> {
        self.all().get(token).filter(|login| !login.ended.is_cancelled()).cloned()
    }

    /// Lets somebody in who has logged in on a connection; returns their token.
    pub fn admit(self: &Arc<Self>, login: Arc<Login>, connection: Wire) -> String {
        let token = token();
        self.all().insert(token.clone(), login.clone());
        let (this, key) = (self.clone(), token.clone());
        self.keepers.spawn(async move {
            this.keep(&login, connection).await;
            login.ended.cancel();
            if !this.draining.is_cancelled() {
                login.revoked.cancel();
            }
            this.all().remove(&key);
        });
        token
    }

    /// Waits until nobody is logged in any more, after `stop`.
    pub async fn finish(&self) {
        self.keepers.close();
        self.keepers.wait().await;
    }

    /// Until they log out, do nothing for too long, or their connection is ended.
    async fn keep(&self, login: &Login, mut connection: Wire) {
        loop {
            let until = login.last_seen() + self.idle;
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = login.ended.cancelled() => return,
                () = sleep_until(until) => {
                    // Who waits for a statement, or takes its rows, is not idle.
                    if login.places.available_permits() < AT_ONCE {
                        login.touch();
                    } else if login.last_seen() + self.idle <= Instant::now() {
                        return;
                    }
                },
                () = login.touched.notified() => if connection.sync().await.is_err() {
                    return;
                },
                heard = connection.next() => if matches!(heard, Err(_) | Ok(Message::Error(_))) {
                    return;
                },
            }
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Arc<Login>>> {
        self.by_token.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// 244 random bits.
fn token() -> String {
    let random = || uuid::Uuid::new_v4().simple().to_string();
    random() + &random()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_is_fetched_once() {
        let login = Login::new("ann".into(), "oribi".into(), (10, None));
        let download = Download {
            sql: "SELECT 1".into(),
            database: "oribi".into(),
            format: "csv",
            name: "one.csv".into(),
        };
        let ticket = login.offer(download.clone()).expect("room");
        assert!(login.take("another").is_none());
        assert!(login.take(&ticket).is_some() && login.take(&ticket).is_none());
        let offered = (0..DOWNLOADS + 1).map(|_| login.offer(download.clone()).is_some());
        assert_eq!(offered.filter(|kept| *kept).count(), DOWNLOADS);
    }

    #[test]
    fn tokens_are_long_and_differ() {
        assert_eq!(token().len(), 64);
        assert_ne!(token(), token());
    }
}
