//! One connection, message by message.
//!
//! The crate `tokio-postgres` keeps back what somebody at a terminal has to see: the tag of a
//! command, the types of a text result's columns, and whether a transaction is open.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fallible_iterator::FallibleIterator;
use futures::FutureExt;
use postgres_protocol::IsNull;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::{DataRowBody, ErrorFields, Message, RowDescriptionBody};
use postgres_protocol::message::frontend;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};

use crate::cli::link::login::Login;
use crate::cli::link::places::Place;

/// How long a daemon has for letting somebody in.
const ENTRY: Duration = Duration::from_secs(5);

/// Bytes that are read at once.
const CHUNK: usize = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The connection is not there, or not any more.
    #[error("{0}")]
    Gone(#[from] io::Error),
    /// The daemon says so.
    #[error("{0}")]
    Said(Box<Said>),
    /// It wants a password, and none is known.
    #[error("a password is wanted: set PGPASSWORD, or put it in ~/.pgpass")]
    NoPassword,
    #[error("{0}")]
    Unsafe(String),
}

pub type Result<T, E = Fault> = std::result::Result<T, E>;

/// An error or a notice of a daemon's.
#[derive(Clone, Debug, Default, thiserror::Error)]
#[error("{severity}:  {message}")]
pub struct Said {
    pub severity: String,
    pub code: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    /// Where it happened: the line and column of COPY's data, say.
    pub context: Option<String>,
    /// Characters before the place in the statement, and one.
    pub position: Option<usize>,
    /// What it is about, by kind.
    pub objects: Vec<(&'static str, String)>,
}

impl Said {
    fn read(mut fields: ErrorFields<'_>) -> io::Result<Self> {
        let mut said = Self::default();
        while let Some(field) = fields.next()? {
            let text = String::from_utf8_lossy(field.value_bytes()).into_owned();
            match field.type_() {
                b'V' => said.severity = text,
                b'S' if said.severity.is_empty() => said.severity = text,
                b'C' => said.code = text,
                b'M' => said.message = text,
                b'D' => said.detail = Some(text),
                b'H' => said.hint = Some(text),
                b'W' => said.context = Some(text),
                b'P' => said.position = text.parse().ok(),
                b's' => said.objects.push(("SCHEMA", text)),
                b't' => said.objects.push(("TABLE", text)),
                b'c' => said.objects.push(("COLUMN", text)),
                b'd' => said.objects.push(("DATATYPE", text)),
                b'n' => said.objects.push(("CONSTRAINT", text)),
                _ => {}
            }
        }
        Ok(said)
    }

    /// The daemon goes down, is not up yet, or is full: another may do.
    pub fn is_of_daemon(&self) -> bool {
        matches!(self.code.as_str(), "57P01" | "57P02" | "57P03" | "53300")
    }
}

/// A column of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// PostgreSQL's identifier of its type.
    pub oid: u32,
}

/// The values of a row as text; `None` is NULL.
pub type Row = Vec<Option<String>>;

/// Columns and rows of a statement.
pub type Table = (Vec<Column>, Vec<Row>);

/// What a daemon sends while a statement is under way.
#[derive(Debug)]
pub enum Event {
    Columns(Vec<Column>),
    Row(Row),
    /// A statement's end, with its tag.
    Done(String),
    /// There was no statement.
    Empty,
    Failed(Said),
    Notice(Said),
    Notification {
        channel: String,
        payload: String,
        pid: i32,
    },
    /// Rows are wanted.
    CopyIn,
    /// Rows come.
    CopyOut,
    CopyData(Bytes),
    CopyDone,
    /// All that was asked is done.
    Ready,
}

pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A connection that is let in.
pub struct Wire {
    stream: Box<dyn Stream>,
    input: BytesMut,
    output: BytesMut,
    place: Place,
    pid: i32,
    key: i32,
    /// `I`dle, in a `T`ransaction, or in one that has `E`nded in an error.
    status: u8,
    encrypted: bool,
    version: String,
    /// What was asked for ends with a Sync.
    extended: bool,
}

/// Asks a daemon to end what another connection has under way.
#[derive(Clone, Debug)]
pub struct Canceller {
    login: Arc<Login>,
    place: Place,
    pid: i32,
    key: i32,
}

impl Canceller {
    pub async fn cancel(&self) -> Result<()> {
        let asked = async {
            let (mut stream, _) = open(&self.place, &self.login).await?;
            let mut bytes = BytesMut::new();
            frontend::cancel_request(self.pid, self.key, &mut bytes);
            stream.write_all(&bytes).await?;
            stream.flush().await?;
            // The daemon closes the connection once it has asked.
            let _ = stream.read(&mut [0]).await;
            Ok(())
        };
        within(asked).await
    }
}

async fn within<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(ENTRY, work).await {
        Ok(done) => done,
        Err(_) => Err(Fault::Gone(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))),
    }
}

/// The bytes' way, encrypted if that is wanted and offered.
async fn open(place: &Place, login: &Login) -> Result<(Box<dyn Stream>, bool)> {
    let mut stream = TcpStream::connect((place.host.as_str(), place.port)).await?;
    stream.set_nodelay(true)?;
    for set in [
        sockopt::set_socket_keepalive(&stream, true),
        sockopt::set_tcp_keepidle(&stream, Duration::from_secs(5)),
        sockopt::set_tcp_keepintvl(&stream, Duration::from_secs(2)),
        sockopt::set_tcp_keepcnt(&stream, 3),
    ] {
        set.map_err(io::Error::from)?;
    }
    let mode = login.ssl_mode();
    if mode == SslMode::Disable {
        return Ok((Box::new(stream), false));
    }
    let mut bytes = BytesMut::new();
    frontend::ssl_request(&mut bytes);
    stream.write_all(&bytes).await?;
    match stream.read_u8().await? {
        b'S' => {
            let mut connector = login.connector();
            let handshake =
                MakeTlsConnect::<TcpStream>::make_tls_connect(&mut connector, &place.host);
            let handshake = handshake.map_err(|error| Fault::Unsafe(error.to_string()))?;
            let stream = handshake.connect(stream).await;
            let stream = stream
                .map_err(|error| Fault::Unsafe(format!("{place} proves nothing: {error}")))?;
            Ok((Box::new(stream), true))
        }
        _ if mode == SslMode::Prefer => Ok((Box::new(stream), false)),
        _ => Err(Fault::Unsafe(format!(
            "{place} does not encrypt: set tls there, or ask with --sslmode prefer"
        ))),
    }
}

impl Wire {
    /// Connects and logs in.
    pub async fn connect(place: &Place, login: &Login) -> Result<Self> {
        let entered = async {
            let (stream, encrypted) = open(place, login).await?;
            let mut wire = Self {
                stream,
                input: BytesMut::new(),
                output: BytesMut::new(),
                place: place.clone(),
                pid: 0,
                key: 0,
                status: b'I',
                encrypted,
                version: String::new(),
                extended: false,
            };
            wire.enter(login).await?;
            Ok(wire)
        };
        within(entered).await
    }

    async fn enter(&mut self, login: &Login) -> Result<()> {
        let parameters = [
            ("client_encoding", "UTF8"),
            ("user", login.user()),
            ("database", login.database()),
            ("application_name", login.application()),
        ];
        frontend::startup_message(parameters, &mut self.output)?;
        self.flush().await?;
        let mut scram = None;
        loop {
            match self.message().await? {
                Message::AuthenticationOk
                | Message::NoticeResponse(_)
                | Message::NotificationResponse(_) => {}
                Message::AuthenticationCleartextPassword => {
                    if !self.encrypted {
                        let reason = "the password is wanted in clear, without encryption";
                        return Err(Fault::Unsafe(reason.to_owned()));
                    }
                    let password = login.password(&self.place).ok_or(Fault::NoPassword)?;
                    frontend::password_message(password.as_bytes(), &mut self.output)?;
                    self.flush().await?;
                }
                Message::AuthenticationSasl(body) => {
                    let mut mechanisms = body.mechanisms();
                    let mut known = false;
                    while let Some(mechanism) = mechanisms.next()? {
                        known |= mechanism == SCRAM_SHA_256;
                    }
                    if !known {
                        return Err(strange());
                    }
                    let password = login.password(&self.place).ok_or(Fault::NoPassword)?;
                    let begun =
                        ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
                    let first = begun.message();
                    frontend::sasl_initial_response(SCRAM_SHA_256, first, &mut self.output)?;
                    scram = Some(begun);
                    self.flush().await?;
                }
                Message::AuthenticationSaslContinue(body) => {
                    let scram = scram.as_mut().ok_or_else(strange)?;
                    scram.update(body.data())?;
                    frontend::sasl_response(scram.message(), &mut self.output)?;
                    self.flush().await?;
                }
                Message::AuthenticationSaslFinal(body) => {
                    scram.as_mut().ok_or_else(strange)?.finish(body.data())?;
                }
                Message::BackendKeyData(body) => {
                    (self.pid, self.key) = (body.process_id(), body.secret_key());
                }
                Message::ParameterStatus(body) => {
                    if body.name()? == "server_version" {
                        body.value()?.clone_into(&mut self.version);
                    }
                }
                Message::ReadyForQuery(body) => {
                    self.status = body.status();
                    return Ok(());
                }
                Message::ErrorResponse(body) => {
                    return Err(Fault::Said(Box::new(Said::read(body.fields())?)));
                }
                _ => return Err(strange()),
            }
        }
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The session's number, the same on all daemons.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    pub fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// The version of PostgreSQL whose behaviour the daemon has.
    pub fn version(&self) -> &str {
        &self.version
    }

    pub fn is_in_transaction(&self) -> bool {
        self.status != b'I'
    }

    pub fn is_in_failed_transaction(&self) -> bool {
        self.status == b'E'
    }

    pub fn canceller(&self, login: Arc<Login>) -> Canceller {
        Canceller { login, place: self.place.clone(), pid: self.pid, key: self.key }
    }

    /// Asks for statements; [`Self::next`] tells what becomes of them, up to [`Event::Ready`].
    pub async fn ask(&mut self, sql: &str) -> Result<()> {
        frontend::query(sql, &mut self.output)?;
        self.extended = false;
        self.flush().await
    }

    /// Asks for one statement with values for its parameters, whose types the daemon finds out.
    pub async fn ask_with(&mut self, sql: &str, values: &[String]) -> Result<()> {
        self.extended = true;
        frontend::parse("", sql, std::iter::empty(), &mut self.output)?;
        // All in text.
        let none = std::iter::empty::<i16>;
        let put = |value: &String, out: &mut BytesMut| {
            out.extend_from_slice(value.as_bytes());
            Ok(IsNull::No)
        };
        let bound = frontend::bind("", "", none(), values, put, none(), &mut self.output);
        bound.map_err(|_| strange())?;
        frontend::describe(b'P', "", &mut self.output)?;
        frontend::execute("", 0, &mut self.output)?;
        frontend::sync(&mut self.output);
        self.flush().await
    }

    /// Asks for a statement's columns, and does not run it.
    pub async fn ask_columns(&mut self, sql: &str) -> Result<()> {
        frontend::parse("", sql, std::iter::empty(), &mut self.output)?;
        frontend::describe(b'S', "", &mut self.output)?;
        frontend::sync(&mut self.output);
        self.flush().await
    }

    /// Rows that COPY wants.
    pub async fn copy_data(&mut self, data: &[u8]) -> Result<()> {
        frontend::CopyData::new(data)?.write(&mut self.output);
        self.flush().await
    }

    pub async fn copy_done(&mut self) -> Result<()> {
        frontend::copy_done(&mut self.output);
        self.end_copy().await
    }

    pub async fn copy_fail(&mut self, why: &str) -> Result<()> {
        frontend::copy_fail(why, &mut self.output)?;
        self.end_copy().await
    }

    /// A Sync that came while rows were wanted counts for nothing.
    async fn end_copy(&mut self) -> Result<()> {
        if self.extended {
            frontend::sync(&mut self.output);
        }
        self.flush().await
    }

    /// All rows of a statement whose outcome only the program looks at.
    pub async fn rows(&mut self, sql: &str) -> Result<Vec<Row>> {
        self.table(sql).await.map(|(_, rows)| rows)
    }

    /// The same with the columns.
    pub async fn table(&mut self, sql: &str) -> Result<(Vec<Column>, Vec<Row>)> {
        self.ask(sql).await?;
        self.all(&mut Vec::new()).await
    }

    /// Columns and rows of what was asked for. COPY gives none, and gets none. Of several statements in one
    /// request they are those of the last, and the others' come to `earlier`.
    pub async fn all(&mut self, earlier: &mut Vec<Table>) -> Result<Table> {
        let (mut table, mut failed) = (None, None);
        loop {
            match self.next().await? {
                Event::Columns(found) => table = Some((found, Vec::new())),
                Event::Done(_) => earlier.extend(table.take()),
                Event::Row(row) => {
                    if let Some((_, rows)) = &mut table {
                        rows.push(row);
                    }
                }
                Event::Failed(said) => failed = Some(said),
                // It would wait for rows for ever.
                Event::CopyIn => {
                    self.copy_fail("COPY gives no rows to do something with: run it by itself")
                        .await?;
                }
                Event::Ready => {
                    if let Some(said) = failed {
                        return Err(Fault::Said(Box::new(said)));
                    }
                    // Where only columns were asked for, nothing is done.
                    return Ok(table.or_else(|| earlier.pop()).unwrap_or_default());
                }
                _ => {}
            }
        }
    }

    /// What the daemon has said unasked; an error if it has gone.
    pub fn unasked(&mut self) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        while let Some(event) = self.next().now_or_never() {
            match event? {
                Event::Failed(said) => return Err(Fault::Said(Box::new(said))),
                event => events.push(event),
            }
        }
        Ok(events)
    }

    /// The next event. Nothing is lost if it is not waited for to the end.
    pub async fn next(&mut self) -> Result<Event> {
        loop {
            return Ok(match self.message().await? {
                Message::RowDescription(body) => Event::Columns(columns(&body)?),
                Message::DataRow(body) => Event::Row(row(&body)?),
                Message::CommandComplete(body) => Event::Done(body.tag()?.to_owned()),
                Message::EmptyQueryResponse => Event::Empty,
                Message::ErrorResponse(body) => Event::Failed(Said::read(body.fields())?),
                Message::NoticeResponse(body) => Event::Notice(Said::read(body.fields())?),
                Message::NotificationResponse(body) => Event::Notification {
                    channel: body.channel()?.to_owned(),
                    payload: body.message()?.to_owned(),
                    pid: body.process_id(),
                },
                Message::CopyInResponse(_) => Event::CopyIn,
                Message::CopyOutResponse(_) => Event::CopyOut,
                Message::CopyData(body) => Event::CopyData(body.into_bytes()),
                Message::CopyDone => Event::CopyDone,
                Message::ReadyForQuery(body) => {
                    self.status = body.status();
                    Event::Ready
                }
                Message::ParameterStatus(_)
                | Message::ParseComplete
                | Message::BindComplete
                | Message::ParameterDescription(_)
                | Message::NoData => continue,
                _ => return Err(strange()),
            });
        }
    }

    async fn message(&mut self) -> Result<Message> {
        loop {
            if let Some(message) = Message::parse(&mut self.input)? {
                return Ok(message);
            }
            self.input.reserve(CHUNK);
            if self.stream.read_buf(&mut self.input).await? == 0 {
                let reason = "the daemon closed the connection";
                return Err(Fault::Gone(io::Error::new(io::ErrorKind::UnexpectedEof, reason)));
            }
        }
    }

    async fn flush(&mut self) -> Result<()> {
        let written = async {
            self.stream.write_all(&self.output).await?;
            self.stream.flush().await
        };
        let written = written.await;
        self.output.clear();
        Ok(written?)
    }

    /// Says good-bye.
    pub async fn close(mut self) {
        frontend::terminate(&mut self.output);
        // Whoever does not hear it notices the end of the connection.
        let _ = self.flush().await;
    }
}

fn strange() -> Fault {
    Fault::Gone(io::Error::other("what answers does not speak PostgreSQL's protocol"))
}

fn columns(body: &RowDescriptionBody) -> io::Result<Vec<Column>> {
    let (mut fields, mut columns) = (body.fields(), Vec::new());
    while let Some(field) = fields.next()? {
        columns.push(Column { name: field.name().to_owned(), oid: field.type_oid() });
    }
    Ok(columns)
}

fn row(body: &DataRowBody) -> io::Result<Row> {
    let (mut ranges, mut row) = (body.ranges(), Vec::new());
    while let Some(range) = ranges.next()? {
        let value = range.and_then(|range| body.buffer().get(range));
        row.push(value.map(|value| String::from_utf8_lossy(value).into_owned()));
    }
    Ok(row)
}
