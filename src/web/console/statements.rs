//! Statements of who is logged in: their rows as lines of JSON, or as a file.
//!
//! A line is an array, a row's values in text, or an object: `{"columns": [{"name", "type"}]}` before
//! the rows of a result, `{"tag", "rows", "truncated"}` after them, `{"notice": ...}`, `{"error": ...}`,
//! `{"copy": "..."}` for what COPY sends. Whoever goes away in the middle has the statement cancelled.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;

use super::Refusal;
use super::logins::{Download, Login};
use super::wire::{Fault, Message, Wire};
use crate::query::sessions::{SessionEntry, Sessions, Signal};

/// Bytes that are gathered before they are sent.
const CHUNK: usize = 32 * 1024;

/// Bytes of COPY's rows that are shown.
const COPIED: usize = 1024 * 1024;

/// The most rows of a result that a page can have.
pub const MOST_ROWS: u32 = 10_000;

/// A statement under way. Dropped before its end, it is cancelled.
pub struct Underway {
    wire: Wire,
    login: Arc<Login>,
    session: Option<Arc<SessionEntry>>,
    done: bool,
    _place: OwnedSemaphorePermit,
}

impl Underway {
    pub fn new(
        wire: Wire,
        login: Arc<Login>,
        sessions: &Sessions,
        place: OwnedSemaphorePermit,
    ) -> Self {
        let session = sessions.find(wire.pid());
        Self { wire, login, session, done: false, _place: place }
    }

    /// What the daemon says next; an error as well once its user is logged in no more.
    async fn next(&mut self) -> io::Result<Message> {
        tokio::select! {
            heard = self.wire.next() => heard,
            () = self.login.revoked.cancelled() => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        if let Some(session) = self.session.as_ref().filter(|_| !self.done) {
            session.signal(Signal::Cancel);
        }
    }
}

/// What becomes of a text of SQL.
pub struct Answer {
    underway: Underway,
    sql: String,
    /// Rows of each result that are sent.
    limit: u32,
    /// Of the present result.
    rows: u32,
    copied: usize,
    /// The text has several statements, and is asked for as a whole.
    whole: bool,
    again: bool,
    over: bool,
}

impl Answer {
    /// Asks; the rows come when they are taken.
    pub async fn new(mut underway: Underway, (sql, limit): (String, u32)) -> io::Result<Self> {
        let limit = limit.clamp(1, MOST_ROWS);
        // One more tells that there are more.
        underway.wire.ask(&sql, Some(limit + 1)).await?;
        let (rows, copied, whole, again, over) = Default::default();
        Ok(Self { underway, sql, limit, rows, copied, whole, again, over })
    }

    pub fn into_response(self) -> Response {
        let lines = stream::unfold(self, |mut answer| async move {
            let lines = answer.next().await?;
            Some((Ok::<_, Infallible>(lines), answer))
        });
        let headers = [(CONTENT_TYPE, "application/x-ndjson")];
        (headers, Body::from_stream(lines)).into_response()
    }

    /// The next lines; `None` after the last.
    async fn next(&mut self) -> Option<Bytes> {
        let mut out = String::new();
        while !self.over {
            // What is here is not kept waiting for what is still to come.
            if !out.is_empty() && (out.len() >= CHUNK || !self.underway.wire.has_message()) {
                break;
            }
            let told = match self.underway.next().await {
                Ok(message) => self.tell(message, &mut out).await,
                Err(error) => Err(error),
            };
            if told.is_err() {
                let (code, message) = match self.underway.login.revoked.is_cancelled() {
                    true => ("57P01", "you are logged in no more"),
                    false => ("08006", "the connection within the daemon has ended"),
                };
                self.fail(&mut out, code, message);
            }
        }
        (!out.is_empty()).then(|| out.into())
    }

    async fn tell(&mut self, message: Message, out: &mut String) -> io::Result<()> {
        match message {
            Message::Columns(columns) => {
                self.rows = 0;
                line(out, &json!({ "columns": columns }));
            }
            Message::Row(row) => {
                if self.rows < self.limit {
                    self.rows += 1;
                    line(out, &json!(row.values()));
                } else if self.whole {
                    // It could be any number of them.
                    self.complete(out, "SELECT", true);
                    let message = "what comes after this result was not run, and what came before is \
                                   undone unless it was committed: it has more rows than are shown";
                    self.fail(out, "57014", message);
                }
            }
            Message::Complete(tag) => self.complete(out, &tag, false),
            Message::Suspended => self.complete(out, "SELECT", true),
            Message::Notice(notice) => line(out, &json!({ "notice": notice })),
            Message::Error(fault) if !self.whole && is_several(&fault) => self.again = true,
            Message::Error(fault) => line(out, &json!({ "error": fault })),
            Message::CopyIn => self.underway.wire.refuse_copy().await?,
            Message::CopyData(data) => {
                self.copied += data.len();
                line(out, &json!({ "copy": String::from_utf8_lossy(&data) }));
                if self.copied > COPIED {
                    self.complete(out, "COPY", true);
                    self.over = true;
                }
            }
            Message::Ready if std::mem::take(&mut self.again) => {
                self.whole = true;
                self.underway.wire.ask_all(&self.sql).await?;
            }
            Message::Ready => (self.over, self.underway.done) = (true, true),
            Message::CopyOut | Message::Other => {}
        }
        Ok(())
    }

    fn complete(&mut self, out: &mut String, tag: &str, truncated: bool) {
        line(out, &json!({ "tag": tag, "rows": self.rows, "truncated": truncated }));
        self.rows = 0;
    }

    fn fail(&mut self, out: &mut String, code: &str, message: &str) {
        let (severity, code, message) = ("FATAL".to_owned(), code.to_owned(), message.to_owned());
        let fault = Fault { severity, code, message, ..Fault::default() };
        line(out, &json!({ "error": fault }));
        self.over = true;
    }
}

/// Whether a text was refused since it has several statements.
fn is_several(fault: &Fault) -> bool {
    fault.code == "42601" && fault.message.starts_with("cannot insert multiple commands")
}

fn line(out: &mut String, value: &serde_json::Value) {
    out.push_str(&value.to_string());
    out.push('\n');
}

/// All rows of one statement, read for the daemon itself.
pub async fn rows(wire: &mut Wire, sql: &str) -> io::Result<Result<serde_json::Value, Fault>> {
    wire.ask(sql, Some(MOST_ROWS)).await?;
    let (mut columns, mut rows, mut failed) = (Vec::new(), Vec::new(), None);
    loop {
        match wire.next().await? {
            Message::Columns(found) => columns = found,
            Message::Row(row) => rows.push(row.values()),
            Message::Error(fault) => failed = Some(fault),
            Message::Ready => break,
            _ => {}
        }
    }
    Ok(match failed {
        Some(fault) => Err(fault),
        None => Ok(json!({ "columns": columns, "rows": rows })),
    })
}

/// A result as a file that is sent as it is made.
pub async fn download(mut underway: Underway, download: &Download) -> Result<Response, Refusal> {
    let sql = download.sql.trim().trim_end_matches(';');
    let options = match download.format {
        "parquet" => "FORMAT parquet",
        _ => "FORMAT csv, HEADER",
    };
    // A comment may be the last thing in it.
    let copy = format!("COPY (\n{sql}\n) TO STDOUT WITH ({options})");
    underway.wire.ask(&copy, None).await?;
    // Whether there is a file at all is known before its first byte.
    loop {
        match underway.next().await? {
            Message::CopyOut => break,
            Message::Error(fault) => return Err(Refusal::of(StatusCode::BAD_REQUEST, fault)),
            Message::Ready => {
                let message = "the statement has no rows to save";
                return Err(Refusal::new(StatusCode::BAD_REQUEST, "42601", message));
            }
            _ => {}
        }
    }
    let kind = match download.format {
        "parquet" => "application/vnd.apache.parquet",
        _ => "text/csv; charset=utf-8",
    };
    let disposition = format!("attachment; filename=\"{}\"", download.name);
    let file = stream::unfold(Some(underway), |underway| async move {
        let mut underway = underway?;
        loop {
            match underway.next().await {
                Ok(Message::CopyData(data)) => return Some((Ok(data), Some(underway))),
                Ok(Message::Ready) => {
                    underway.done = true;
                    return None;
                }
                // The browser sees that the file is not whole.
                Ok(Message::Error(fault)) => {
                    return Some((Err(io::Error::other(fault.message)), None));
                }
                Ok(_) => {}
                Err(error) => return Some((Err(error), None)),
            }
        }
    });
    let headers = [(CONTENT_TYPE, kind.to_owned()), (CONTENT_DISPOSITION, disposition)];
    Ok((headers, Body::from_stream(file)).into_response())
}
