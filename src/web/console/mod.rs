//! The web console: a page that is a client of SQL, and the little that it needs of a server.
//!
//! Somebody logs in with the name and the password of a role, under the host rules of the PostgreSQL
//! port. Their statements run on connections within the process ([`wire`]), which are like any
//! other: rights, time-outs, limits, the history, the audit trail and cancellation are those of SQL, by
//! construction.
//!
//! | request | what it does |
//! |---|---|
//! | `GET /`, `/assets/...` | the pages ([`assets`]) |
//! | `GET /api/session` | who is logged in, and their token for changing requests |
//! | `POST /api/login`, `/api/logout` | [`logins`] |
//! | `POST /api/sql` | runs a text of SQL: lines of JSON ([`statements`]) |
//! | `POST /api/export`, then `GET /api/export/{ticket}` | a statement's rows as a file |
//! | `GET /api/events` | what changes in the cluster ([`events`]) |
//!
//! Which requests are taken says [`guard`].

pub(super) mod assets;
mod events;
mod guard;
mod logins;
mod statements;
mod wire;

use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, DefaultBodyLimit, FromRequestParts, Path, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, SET_COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::io::DuplexStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::port::Caller;
use crate::config::{self, ConsoleMode};
use crate::query::Queries;
use crate::tls::Tls;
use guard::Hosts;
use logins::{Download, Login, Logins};
use statements::{Answer, Underway};
use wire::{Fault, LogIn, Refused, Wire};

/// What `application_name` says of statements of the pages' own, and of those somebody has typed.
const PAGES: &str = "oribi console";
const TYPED: &str = "oribi console, SQL";

/// The database that somebody is in who names none: the first.
const DATABASE: &str = "oribi";

/// Bytes of a request's body.
const MOST_BYTES: usize = 8 * 1024 * 1024;

/// On whose behalf a connection is opened.
#[derive(Clone, Debug)]
pub struct Visit {
    pub peer: SocketAddr,
    pub server: SocketAddr,
    pub tls: Option<Arc<Tls>>,
    /// They have proved who they are.
    pub proven: bool,
    /// They came through somebody else's hands: their address proves nothing.
    pub forwarded: bool,
    pub only_reads: bool,
    pub unlisted: bool,
}

/// The way to the daemon's own sessions.
pub trait Entrance: Debug + Send + Sync {
    /// A new connection, on which PostgreSQL's protocol is spoken.
    fn open(&self, visit: Visit) -> DuplexStream;
}

/// What all requests share.
#[derive(Debug)]
pub struct Console {
    queries: Arc<Queries>,
    entrance: Arc<dyn Entrance>,
    mode: ConsoleMode,
    hosts: Hosts,
    logins: Arc<Logins>,
    /// The cookie's name: browsers keep one set of cookies for all ports of a host.
    cookie: String,
}

impl Console {
    /// `port` is the web port's number. All who are logged in go at `stop`.
    pub fn new(
        queries: Arc<Queries>,
        entrance: Arc<dyn Entrance>,
        (config, advertised): (&config::Console, Option<&str>),
        port: u16,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let draining = queries.shutdown.draining.clone();
        Arc::new(Self {
            queries,
            entrance,
            mode: config.mode,
            hosts: Hosts::new(advertised, &config.hosts),
            logins: Logins::new(config.idle, draining, stop),
            cookie: format!("oribi_{port}"),
        })
    }

    pub fn router(self: Arc<Self>) -> Router {
        if self.mode == ConsoleMode::Off {
            return Router::new();
        }
        let pages = Router::new()
            .route("/", get(assets::index))
            .route("/assets/{name}", get(assets::asset));
        let api = Router::new()
            .route("/api/session", get(session))
            .route("/api/login", post(log_in))
            .route("/api/logout", post(log_out))
            .route("/api/sql", post(sql))
            .route("/api/export", post(export))
            .route("/api/export/{ticket}", get(fetch))
            .route("/api/events", get(events))
            .layer(DefaultBodyLimit::max(MOST_BYTES))
            .layer(from_fn(uncached));
        pages.merge(api).layer(from_fn(safe)).with_state(self)
    }

    /// Waits until nobody is logged in any more, after the stop.
    pub async fn finish(&self) {
        self.logins.finish().await;
    }

    fn visit(&self, caller: &Caller, forwarded: bool) -> Visit {
        let Caller { peer, server, tls } = caller.clone();
        let only_reads = self.mode == ConsoleMode::ReadOnly;
        Visit { peer, server, tls, proven: false, forwarded, only_reads, unlisted: false }
    }

    /// A connection for one who is logged in.
    async fn connect(
        &self,
        caller: &Caller,
        login: &Login,
        (database, application_name): (Option<&str>, &str),
        unlisted: bool,
    ) -> Result<Wire, Refusal> {
        let visit = Visit { proven: true, unlisted, ..self.visit(caller, false) };
        let database = database.unwrap_or(&login.database);
        let who = LogIn { user: &login.user, database, password: None, application_name };
        Ok(Wire::log_in(self.entrance.open(visit), who).await?)
    }

    /// Who is logged in.
    fn known(&self, headers: &HeaderMap) -> Option<Arc<Login>> {
        let login = self.logins.find(guard::cookie(headers, &self.cookie)?)?;
        if self.role(&login.user).as_ref() == Some(&login.role) {
            return Some(login);
        }
        // Another password: whoever had the old one may not go on with it.
        login.ended.cancel();
        None
    }

    /// A role's OID and its password's verifier, by which one is known that has another by now; `None` once
    /// it may log in no more.
    fn role(&self, name: &str) -> Option<(u32, Option<String>)> {
        let snapshot = self.queries.catalog.snapshot();
        let role = snapshot.roles.get(name)?;
        if role.record.valid_until.is_some_and(|until| until <= chrono::Utc::now()) {
            return None;
        }
        Some((role.record.oid, role.record.password.clone()))
    }

    fn set_cookie(&self, caller: &Caller, token: &str) -> Result<HeaderValue, Refusal> {
        let mut cookie = format!("{}={token}; Path=/; HttpOnly; SameSite=Strict", self.cookie);
        if caller.tls.is_some() {
            cookie += "; Secure";
        }
        if token.is_empty() {
            cookie += "; Max-Age=0";
        }
        HeaderValue::from_str(&cookie)
            .map_err(|_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "XX000", "a bad cookie"))
    }

    fn about(&self, login: &Login) -> serde_json::Value {
        json!({
            "user": login.user,
            "database": login.database,
            "csrf": login.csrf,
            "mode": self.mode,
            "daemon": self.queries.membership.id(),
            "version": env!("CARGO_PKG_VERSION"),
        })
    }
}

/// Why a request is not answered.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    fault: Box<Fault>,
}

impl Refusal {
    pub fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        let (severity, code, message) = ("ERROR".to_owned(), code.to_owned(), message.into());
        Self::of(status, Fault { severity, code, message, ..Fault::default() })
    }

    pub fn of(status: StatusCode, fault: Fault) -> Self {
        Self { status, fault: Box::new(fault) }
    }

    pub fn hint(mut self, hint: &str) -> Self {
        self.fault.hint = Some(hint.to_owned());
        self
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Fault(fault) => {
                let status = match fault.code.get(..2) {
                    Some("28") => StatusCode::UNAUTHORIZED,
                    Some("42") => StatusCode::FORBIDDEN,
                    Some("3D") => StatusCode::NOT_FOUND,
                    _ => StatusCode::SERVICE_UNAVAILABLE,
                };
                Self::of(status, *fault)
            }
            Refused::Io(error) => error.into(),
        }
    }
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        debug!(%error, "a connection of the console's has ended");
        let message = "the connection within the daemon has ended";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "08006", message)
            .hint("Try again; the daemon may be about to stop.")
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.fault }))).into_response()
    }
}

/// A request of the console's own pages.
struct Asked {
    caller: Caller,
    headers: HeaderMap,
}

impl FromRequestParts<Arc<Console>> for Asked {
    type Rejection = Refusal;

    async fn from_request_parts(
        parts: &mut Parts,
        console: &Arc<Console>,
    ) -> Result<Self, Refusal> {
        let caller = parts.extensions.get::<ConnectInfo<Caller>>();
        let Some(ConnectInfo(caller)) = caller.cloned() else {
            let message = "nobody knows where the request comes from";
            return Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "XX000", message));
        };
        console.hosts.check(&caller, &parts.headers)?;
        Ok(Self { caller, headers: parts.headers.clone() })
    }
}

/// The same of somebody who is logged in. A changing one has brought its token along.
struct Known {
    caller: Caller,
    login: Arc<Login>,
}

impl FromRequestParts<Arc<Console>> for Known {
    type Rejection = Refusal;

    async fn from_request_parts(
        parts: &mut Parts,
        console: &Arc<Console>,
    ) -> Result<Self, Refusal> {
        let Asked { caller, headers } = Asked::from_request_parts(parts, console).await?;
        let login = console.known(&headers).ok_or_else(nobody)?;
        if !parts.method.is_safe() {
            guard::check_body(&headers)?;
            guard::check_token(&headers, &login.csrf)?;
        }
        login.touch();
        Ok(Self { caller, login })
    }
}

impl Known {
    /// A place for a statement.
    async fn place(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        self.login.places.clone().acquire_owned().await.map_err(|_| nobody())
    }
}

fn nobody() -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, "28000", "you are not logged in")
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| {
        let message = format!("the request cannot be read: {error}");
        Refusal::new(StatusCode::BAD_REQUEST, "08P01", message)
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Credentials {
    user: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    database: String,
}

async fn log_in(
    State(console): State<Arc<Console>>,
    Asked { caller, headers }: Asked,
    body: Bytes,
) -> Result<Response, Refusal> {
    guard::check_body(&headers)?;
    let Credentials { user, password, database } = read(&body)?;
    let database = if database.is_empty() { DATABASE.to_owned() } else { database };
    // As it is before the proof: a password that is changed meanwhile ends the log-in.
    let before = console.role(&user);
    let stream = console.entrance.open(console.visit(&caller, guard::is_forwarded(&headers)));
    let who = LogIn {
        user: &user,
        database: &database,
        password: Some(&password),
        application_name: PAGES,
    };
    let connection = Wire::log_in(stream, who).await?;
    // One that this daemon has learnt of on the way there.
    let role = before.or_else(|| console.role(&user)).ok_or_else(nobody)?;
    let login = Arc::new(Login::new(user, database, role));
    let token = console.logins.admit(login.clone(), connection);
    let cookie = console.set_cookie(&caller, &token)?;
    Ok(([(SET_COOKIE, cookie)], Json(console.about(&login))).into_response())
}

async fn log_out(State(console): State<Arc<Console>>, known: Known) -> Result<Response, Refusal> {
    known.login.ended.cancel();
    let cookie = console.set_cookie(&known.caller, "")?;
    Ok(([(SET_COOKIE, cookie)], StatusCode::NO_CONTENT).into_response())
}

/// Nobody being logged in is no failure: a page asks this first.
async fn session(State(console): State<Arc<Console>>, asked: Asked) -> Json<serde_json::Value> {
    match console.known(&asked.headers) {
        None => Json(json!({ "user": null, "mode": console.mode })),
        Some(login) => {
            login.touch();
            Json(console.about(&login))
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    sql: String,
    /// Rows of each result.
    #[serde(default = "most_rows")]
    limit: u32,
    #[serde(default)]
    database: Option<String>,
    /// Whether somebody has typed it, or a page asks for what it shows.
    #[serde(default)]
    typed: bool,
}

fn most_rows() -> u32 {
    statements::MOST_ROWS
}

async fn sql(
    State(console): State<Arc<Console>>,
    known: Known,
    body: Bytes,
) -> Result<Response, Refusal> {
    let Text { sql, limit, database, typed } = read(&body)?;
    let place = known.place().await?;
    let name = if typed { TYPED } else { PAGES };
    let to = (database.as_deref(), name);
    let wire = console.connect(&known.caller, &known.login, to, false).await?;
    let underway = Underway::new(wire, known.login, &console.queries.sessions, place);
    let answer = Answer::new(underway, (sql, limit)).await?;
    Ok(answer.into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Export {
    sql: String,
    format: String,
    #[serde(default)]
    database: Option<String>,
}

/// Keeps what is to be downloaded for the request that fetches it: that one is the browser's own, with
/// no headers of the page's, and writes to disk as it reads.
async fn export(known: Known, body: Bytes) -> Result<Json<serde_json::Value>, Refusal> {
    let Export { sql, format, database } = read(&body)?;
    let format = match format.as_str() {
        "csv" => "csv",
        "parquet" => "parquet",
        other => {
            let message = format!("\"{other}\" is no format: csv and parquet are");
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "22023", message));
        }
    };
    let database = database.unwrap_or_else(|| known.login.database.clone());
    let name = format!("oribi-result.{format}");
    let ticket = known.login.offer(Download { sql, database, format, name });
    let ticket = ticket.ok_or_else(|| {
        let message = "too many downloads wait to be fetched";
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "53400", message)
    })?;
    Ok(Json(json!({ "url": format!("/api/export/{ticket}") })))
}

async fn fetch(
    State(console): State<Arc<Console>>,
    Path(ticket): Path<String>,
    known: Known,
) -> Result<Response, Refusal> {
    let Some(download) = known.login.take(&ticket) else {
        let message = "this download was fetched already, or too late";
        return Err(Refusal::new(StatusCode::NOT_FOUND, "22023", message).hint("Ask for it again."));
    };
    let place = known.place().await?;
    let to = (Some(download.database.as_str()), TYPED);
    let wire = console.connect(&known.caller, &known.login, to, false).await?;
    let underway = Underway::new(wire, known.login, &console.queries.sessions, place);
    statements::download(underway, &download).await
}

async fn events(State(console): State<Arc<Console>>, known: Known) -> Result<Response, Refusal> {
    let Ok(listener) = known.login.listeners.clone().try_acquire_owned() else {
        let message = "too many pages of this log-in are open";
        let hint = "Close some of them.";
        return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, "53300", message).hint(hint));
    };
    let open = || console.connect(&known.caller, &known.login, (None, PAGES), true);
    let (near, far) = (open().await?, open().await?);
    Ok(events::tell(near, far, known.login, listener))
}

/// Says with each answer what pages may do with it.
async fn safe(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().extend(assets::safe());
    response
}

/// What is somebody's own is kept nowhere.
async fn uncached(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
    response
}
