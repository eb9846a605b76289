//! The audit trail: who came in, who was refused what, and who changed what, as lines of JSON.
//!
//! Recording an event never waits. A thread of its own writes to the file; what the disk does not
//! take is counted, said in the log once, and told in the trail itself as soon as it can be.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use chrono::{SecondsFormat, Utc};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info};

/// Events that may wait for the disk.
const WAITING: usize = 8192;

/// Bytes that are written at once.
const CHUNK: usize = 64 * 1024;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Login,
    LoginFailed,
    Logout,
    /// A change of the catalog: databases, schemas, tables, views, policies.
    Ddl,
    /// A role made, changed or dropped.
    Role,
    /// Rights given or taken.
    Grant,
    /// Something asked for without the right to it.
    Denied,
    /// Events before this one could not be kept: `count` of them.
    Lost,
}

/// An event. Holds names only: never a statement's text, which may contain a password.
#[derive(Clone, Debug, Serialize)]
pub struct Event<'a> {
    pub event: Kind,
    pub role: &'a str,
    /// Who logged in, if that was another role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login: Option<&'a str>,
    pub database: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<SocketAddr>,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// The command tag, such as `CREATE ROLE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statement: Option<&'a str>,
    /// What it was about, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<&'a str>,
    /// Of the failure, if it was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sqlstate: Option<&'a str>,
    /// What the client was told of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<&'a str>,
}

impl<'a> Event<'a> {
    pub fn new(event: Kind, role: &'a str, database: &'a str, client: Option<SocketAddr>) -> Self {
        let (login, statement, object, sqlstate, message) = Default::default();
        let tls = false;
        Self { event, role, login, database, client, tls, statement, object, sqlstate, message }
    }

    /// Names the role that logged in.
    pub fn logged_in_as(self, login: &'a str) -> Self {
        Self { login: (login != self.role).then_some(login), ..self }
    }
}

/// A line as it is written.
#[derive(Serialize)]
struct Line<'a, T> {
    time: String,
    daemon: &'a str,
    #[serde(flatten)]
    event: T,
}

#[derive(Serialize)]
struct Lost {
    event: Kind,
    count: u64,
}

/// Where events are recorded. The default keeps none, at no cost.
#[derive(Clone, Debug, Default)]
pub struct Audit(Option<Arc<Trail>>);

#[derive(Debug)]
struct Trail {
    daemon: String,
    notes: mpsc::Sender<Note>,
    /// Events that were recorded and are not in the file.
    lost: AtomicU64,
    reopen: AtomicBool,
}

#[derive(Debug)]
enum Note {
    Line(String),
    Finish(oneshot::Sender<()>),
}

impl Audit {
    /// Opens the file, for whose directory's owner to read, and starts the writer.
    pub fn open(path: &Path, daemon: &str) -> io::Result<Self> {
        let file = append(path)?;
        let (sender, receiver) = mpsc::channel(WAITING);
        let trail = Arc::new(Trail {
            daemon: daemon.to_owned(),
            notes: sender,
            lost: AtomicU64::new(0),
            reopen: AtomicBool::new(false),
        });
        let writer = Writer {
            path: path.to_owned(),
            file,
            trail: trail.clone(),
            waiting: Vec::new(),
            lines: 0,
            failing: false,
        };
        std::thread::Builder::new().name("audit".into()).spawn(move || writer.run(receiver))?;
        Ok(Self(Some(trail)))
    }

    /// Whether events are kept at all.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Takes an event down, without waiting.
    pub fn record(&self, event: Event<'_>) {
        let Some(trail) = &self.0 else { return };
        let sent = line(&trail.daemon, event).map(|line| trail.notes.try_send(Note::Line(line)));
        if !matches!(sent, Some(Ok(()))) {
            trail.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Has the file opened anew by its path, for whoever has moved it away.
    pub fn reopen(&self) {
        if let Some(trail) = &self.0 {
            trail.reopen.store(true, Ordering::Relaxed);
        }
    }

    /// Waits until all that was recorded is written, at most so long. Nothing is recorded any more.
    pub async fn finish(&self, patience: Duration) {
        let Some(trail) = &self.0 else { return };
        let (done, written) = oneshot::channel();
        let finish = async {
            let _ = trail.notes.send(Note::Finish(done)).await;
            let _ = written.await;
        };
        if tokio::time::timeout(patience, finish).await.is_err() {
            error!("the audit trail could not be written to its end");
        }
    }
}

fn line<T: Serialize>(daemon: &str, event: T) -> Option<String> {
    let time = Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
    let mut line = serde_json::to_string(&Line { time, daemon, event }).ok()?;
    line.push('\n');
    Some(line)
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// The thread that writes.
struct Writer {
    path: PathBuf,
    file: File,
    trail: Arc<Trail>,
    waiting: Vec<u8>,
    /// How many events wait.
    lines: u64,
    /// The last write failed, and perhaps left half a line.
    failing: bool,
}

impl Writer {
    fn run(mut self, mut notes: mpsc::Receiver<Note>) {
        while let Some(note) = notes.blocking_recv() {
            match note {
                Note::Line(line) => {
                    self.waiting.extend_from_slice(line.as_bytes());
                    self.lines += 1;
                }
                Note::Finish(done) => {
                    self.write();
                    let _ = done.send(());
                    return;
                }
            }
            // All that has gathered goes out in one write.
            if notes.is_empty() || self.waiting.len() >= CHUNK {
                self.write();
            }
        }
    }

    fn write(&mut self) {
        if self.trail.reopen.swap(false, Ordering::Relaxed) {
            match append(&self.path) {
                Ok(file) => self.file = file,
                Err(error) => {
                    error!(path = %self.path.display(), %error, "audit.file stays as it is: it cannot be opened anew");
                }
            }
        }
        let lost = self.trail.lost.swap(0, Ordering::Relaxed);
        let mut chunk = Vec::new();
        if self.failing {
            chunk.push(b'\n');
        }
        if lost > 0 {
            let told = line(&self.trail.daemon, Lost { event: Kind::Lost, count: lost });
            chunk.extend_from_slice(told.unwrap_or_default().as_bytes());
        }
        chunk.append(&mut self.waiting);
        let lines = std::mem::take(&mut self.lines);
        if chunk.is_empty() {
            return;
        }
        match self.file.write_all(&chunk) {
            Ok(()) if self.failing => {
                self.failing = false;
                info!(lost, "the audit trail is written again");
            }
            Ok(()) => {}
            Err(error) => {
                self.trail.lost.fetch_add(lost + lines, Ordering::Relaxed);
                if !self.failing {
                    error!(path = %self.path.display(), %error, "audit.file cannot be written: events are lost");
                }
                self.failing = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn event<'a>(event: Kind, role: &'a str) -> Event<'a> {
        Event::new(event, role, "oribi", Some(([127, 0, 0, 1], 5).into()))
    }

    fn read(path: &Path) -> Vec<Value> {
        let text = std::fs::read_to_string(path).expect("the trail");
        let lines = text.lines().filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    #[tokio::test]
    async fn events_are_lines_in_their_order() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit");
        let audit = Audit::open(&path, "node").expect("opens");
        audit.record(event(Kind::Login, "me\n\"too\""));
        let failure = Event {
            statement: Some("DROP TABLE"),
            object: Some("t"),
            sqlstate: Some("42501"),
            ..event(Kind::Denied, "me")
        };
        audit.record(failure);
        audit.finish(PATIENCE).await;
        let lines = read(&path);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["event"], "login");
        assert_eq!(lines[0]["role"], "me\n\"too\"");
        assert_eq!(lines[0]["daemon"], "node");
        assert_eq!(lines[0]["client"], "127.0.0.1:5");
        assert_eq!(lines[0].get("sqlstate"), None);
        assert_eq!(lines[1]["event"], "denied");
        assert_eq!(lines[1]["sqlstate"], "42501");
    }

    #[tokio::test]
    async fn a_file_that_was_moved_away_is_made_anew() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, old) = (directory.path().join("audit"), directory.path().join("audit.1"));
        let audit = Audit::open(&path, "node").expect("opens");
        audit.record(event(Kind::Login, "one"));
        while std::fs::metadata(&path).expect("the trail").len() == 0 {
            tokio::task::yield_now().await;
        }
        std::fs::rename(&path, &old).expect("moves");
        audit.reopen();
        audit.record(event(Kind::Logout, "one"));
        audit.finish(PATIENCE).await;
        assert_eq!(read(&old).len(), 1);
        assert_eq!(read(&path)[0]["event"], "logout");
    }

    #[tokio::test]
    async fn what_the_disk_does_not_take_is_counted() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit");
        std::os::unix::fs::symlink("/dev/full", &path).expect("a link");
        let audit = Audit::open(&path, "node").expect("opens");
        let trail = audit.0.clone().expect("on");
        audit.record(event(Kind::Login, "one"));
        audit.record(event(Kind::Login, "two"));
        while trail.lost.load(Ordering::Relaxed) < 2 {
            tokio::task::yield_now().await;
        }
        std::fs::remove_file(&path).expect("removes");
        audit.reopen();
        audit.record(event(Kind::Login, "three"));
        audit.finish(PATIENCE).await;
        let lines = read(&path);
        assert_eq!((&lines[0]["event"], &lines[0]["count"]), (&"lost".into(), &2.into()));
        assert_eq!(lines[1]["role"], "three");
    }
}
