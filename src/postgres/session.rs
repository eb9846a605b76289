//! One client's loop: which message does what, until one of the two sides goes.

use std::any::Any;
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use pgwire::messages::PgWireBackendMessage as Backend;
use pgwire::messages::response::{
    ErrorResponse, NoticeResponse, NotificationResponse, ReadyForQuery, TransactionStatus,
};
use pgwire::messages::startup::ParameterStatus;
use tokio::io::DuplexStream;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::authentication::{Lobby, Places, Seat, Throttle};
use super::cancel::Cancels;
use super::connection::{self, Connection, LINGER};
use super::door::Guest;
use super::encryption::{first_packet, negotiate};
use super::extended::Extended;
use super::frontend::{Frontend, Malformed};
use super::reading::Failure;
use super::sqlstate::{Report, untranslated};
use super::startup::{Arrival, Arrived, Ends, arrive, ending, reported};
use crate::audit::{Audit, Event, Kind};
use crate::config::{self, InForce};
use crate::engine::settings::Settings;
use crate::query::notify::{Lost, Notification};
use crate::query::{Notice, Queries, Session, TransactionState};
use crate::tls::Acceptor;
use crate::values::encode::{TextStyle, TimeZone};

/// What all connections share.
#[derive(Debug)]
pub struct Shared {
    pub queries: Arc<Queries>,
    /// Where the host rules are, which may change.
    pub in_force: Arc<InForce>,
    pub config: config::Connections,
    pub statement_timeout: Option<Duration>,
    /// Does handshakes, if there is TLS.
    pub tls: Option<Arc<Acceptor>>,
    pub cancels: Cancels,
    pub lobby: Arc<Lobby>,
    pub places: Arc<Places>,
    pub throttle: Throttle,
    /// Cancelled when the daemon ends: who is not logged in by then is not waited for.
    pub ending: CancellationToken,
}

impl Shared {
    pub fn new(
        queries: Arc<Queries>,
        in_force: Arc<InForce>,
        statement_timeout: Option<Duration>,
        tls: Option<Arc<Acceptor>>,
    ) -> Self {
        let config = in_force.get().connections.clone();
        Self {
            lobby: Lobby::new(config.login_max),
            places: Places::new(config.max, config.superuser_reserved),
            throttle: Throttle::new(config.login_failures),
            cancels: Cancels::new(),
            ending: CancellationToken::new(),
            queries,
            in_force,
            config,
            statement_timeout,
            tls,
        }
    }

    /// The most bytes a message may have.
    fn message_limit(&self) -> usize {
        usize::try_from(self.config.message_limit.0).unwrap_or(usize::MAX)
    }
}

/// Serves a client from its first byte to its last. It has its seat until it is logged in.
pub async fn serve(socket: TcpStream, peer: SocketAddr, shared: &Shared, seat: Seat) {
    let Ok(server) = socket.local_addr() else { return };
    let (ends, dismissed) = (Ends { peer, server }, seat.dismissed.clone());
    let arrival = async move {
        let (limit, counts) = (shared.message_limit(), shared.queries.clients.clone());
        let connection = Connection::new(socket, limit, counts).until(shared.ending.clone());
        let negotiated = negotiate(connection, shared.tls.as_deref()).await?;
        let Some((mut connection, packet)) = negotiated else { return Ok(None) };
        seat.speaks();
        let arrival = arrive(&mut connection, packet, shared, ends).await?;
        Ok::<_, connection::Error>(Some((connection, arrival)))
    };
    attend(arrival, dismissed, ends, shared).await;
}

/// The same for one whose connection is within this process.
pub async fn serve_guest(stream: DuplexStream, guest: Guest, shared: &Shared, seat: Seat) {
    let ends = Ends { peer: guest.peer, server: guest.server };
    let dismissed = seat.dismissed.clone();
    let arrival = async move {
        let counts = shared.queries.clients.clone();
        let connection = Connection::inside(stream, guest, shared.message_limit(), counts);
        let mut connection = connection.until(shared.ending.clone());
        let Some(packet) = first_packet(&mut connection).await? else { return Ok(None) };
        seat.speaks();
        let arrival = arrive(&mut connection, packet, shared, ends).await?;
        Ok::<_, connection::Error>(Some((connection, arrival)))
    };
    attend(arrival, dismissed, ends, shared).await;
}

/// Waits for a client to log in, for as long as it may take, and serves it. It has its seat until then.
async fn attend(
    arrival: impl Future<Output = connection::Result<Option<(Connection, Arrival)>>>,
    dismissed: CancellationToken,
    ends: Ends,
    shared: &Shared,
) {
    let Ends { peer, server } = ends;
    let arrival = tokio::select! {
        arrival = tokio::time::timeout(shared.config.login_timeout, arrival) => arrival,
        () = dismissed.cancelled() => {
            return debug!(%peer, "a client that did not log in had to make room");
        }
    };
    let (connection, arrived) = match arrival {
        Ok(Ok(Some((connection, Arrival::Session(arrived))))) => (connection, *arrived),
        Ok(Ok(None | Some((_, Arrival::Over)))) => return,
        Ok(Err(error)) => return debug!(%peer, %error, "a client did not log in"),
        Err(_) => return debug!(%peer, "a client took too long to log in"),
    };
    let Arrived { session, place: _place } = arrived;
    let pid = session.entry().pid;
    let _ = session.entry().server.set(server);
    let told = session.settings().clone();
    let manners = Manners::of(&told);
    let audit = shared.queries.audit.clone();
    let extended = Extended::default();
    let since = Instant::now();
    let mut client = Client { connection, session, extended, told, manners, since, peer, audit };
    if let Err(error) = client.run(shared).await {
        debug!(%peer, pid, %error, "a connection was lost");
    }
    if !client.connection.is_proven() {
        client.audit.record(client.event(Kind::Logout));
    }
    shared.cancels.forget(pid);
}

/// A client that is logged in.
pub(super) struct Client {
    pub connection: Connection,
    pub session: Session,
    pub extended: Extended,
    /// The settings that the client has been told of.
    told: Arc<Settings>,
    manners: Manners,
    /// When the client's last message was dealt with.
    since: Instant,
    peer: SocketAddr,
    audit: Audit,
}

/// How long a client may say nothing, and how it is sent values: worked out once for each change of its
/// settings.
struct Manners {
    settings: Arc<Settings>,
    style: TextStyle,
    in_session: Option<Duration>,
    in_transaction: Option<Duration>,
}

impl Manners {
    fn of(settings: &Arc<Settings>) -> Self {
        let zone = TimeZone::parse(settings.time_zone()).unwrap_or_default();
        Self {
            settings: settings.clone(),
            style: TextStyle { time_zone: zone, ..TextStyle::default() },
            in_session: settings.idle_session_timeout(),
            in_transaction: settings.idle_in_transaction_timeout(),
        }
    }
}

impl Client {
    async fn run(&mut self, shared: &Shared) -> io::Result<()> {
        let terminated = self.session.entry().terminated.clone();
        let draining = shared.queries.shutdown.draining.clone();
        let inbox = self.session.inbox().clone();
        let mut live = shared.queries.live.watch();
        loop {
            let patience = self.patience();
            let message = tokio::select! {
                biased;
                () = terminated.cancelled() => {
                    let report = self.why_terminated();
                    return self.take_leave(report).await;
                }
                // A client in the middle of its messages gets its answers first.
                () = settled(&draining), if self.is_idle() => return self.take_leave(ending()).await,
                report = patience => return self.take_leave(report).await,
                message = self.connection.next() => message,
                // How long it may be idle may have changed.
                Ok(()) = live.changed(), if self.is_idle() => {
                    self.session.take_live();
                    continue;
                }
                () = inbox.arrival(), if self.may_be_told() => {
                    self.tell()?;
                    tokio::select! {
                        flushed = self.connection.flush() => flushed?,
                        () = given_up(&terminated) => return Err(io::ErrorKind::TimedOut.into()),
                    }
                    continue;
                }
            };
            let message = match message {
                Ok(Some(Frontend::Terminate) | None) => return Ok(()),
                Ok(Some(Frontend::Password(_))) => {
                    return self.reject(&Malformed::UnknownType(b'p').into()).await;
                }
                Ok(Some(message)) => message,
                Err(connection::Error::Io(error)) => return Err(error),
                Err(error) => return self.reject(&error).await,
            };
            self.session.begin_turn();
            let is_query = matches!(message, Frontend::Query(_));
            let handled = tokio::select! {
                handled = AssertUnwindSafe(self.handle(message)).catch_unwind() => handled,
                // A client that does not read its answers keeps nobody waiting.
                () = given_up(&terminated) => return Err(io::ErrorKind::TimedOut.into()),
            };
            let handled = match handled {
                Ok(handled) => handled,
                Err(panic) => self.survive(panic, is_query).await,
            };
            if let Err(Failure::Gone(_)) = handled {
                self.session.entry().abandoned();
            }
            if !self.extended.is_busy() {
                self.session.end_turn();
            }
            match handled {
                Ok(()) => {}
                Err(Failure::Gone(error)) => return Err(error),
                Err(Failure::Query(error)) => {
                    let report = self.report_of(error);
                    let fatal = report.fatal;
                    self.report(report)?;
                    if fatal {
                        self.connection.close().await;
                        return Ok(());
                    }
                }
            }
            self.connection.flush_if_full().await?;
            self.since = Instant::now();
        }
    }

    async fn handle(&mut self, message: Frontend) -> Result<(), Failure> {
        if self.extended.is_skipping() && !message.is_sync() {
            return Ok(());
        }
        self.session.entry().next_message();
        match message {
            Frontend::Query(text) => self.simple(&text).await,
            Frontend::Parse { name, query, types } => {
                let done = self.parse(name, &query, types).await;
                self.extended_error(done).await
            }
            Frontend::Bind(bind) => {
                let done = self.bind(bind);
                self.extended_error(done).await
            }
            Frontend::Describe(target) => {
                let done = self.describe(&target);
                self.extended_error(done).await
            }
            Frontend::Execute { portal, max_rows } => {
                let done = self.execute(&portal, max_rows).await;
                self.extended_error(done).await
            }
            Frontend::Close(target) => self.close(&target).map_err(Failure::from),
            Frontend::Flush => Ok(self.connection.flush().await?),
            Frontend::Sync => {
                self.extended.sync(self.session.transaction_state());
                self.ready()?;
                Ok(self.connection.flush().await?)
            }
            Frontend::FunctionCall => {
                self.report(Report::error("0A000", "function calls are not supported"))?;
                self.ready()?;
                Ok(self.connection.flush().await?)
            }
            Frontend::Invalid { kind, reason } => {
                let report = Report::error(reason.code(), reason.to_string());
                if b"PBDECH".contains(&kind) {
                    return self.extended_error(Err(report.into())).await;
                }
                self.report(report)?;
                if kind == b'S' {
                    self.extended.sync(self.session.transaction_state());
                }
                self.ready()?;
                Ok(self.connection.flush().await?)
            }
            Frontend::CopyData(_) | Frontend::CopyDone | Frontend::CopyFail(_) => Ok(()),
            Frontend::Password(_) | Frontend::Terminate => Ok(()),
        }
    }

    /// Reports an error of the extended protocol and skips to the next Sync.
    async fn extended_error(&mut self, done: Result<(), Trouble>) -> Result<(), Failure> {
        let report = match done {
            Ok(()) => return Ok(()),
            Err(Trouble::Report(report)) => report,
            Err(Trouble::Failure(Failure::Query(error))) => self.report_of(error),
            Err(Trouble::Failure(gone)) => return Err(gone),
        };
        if report.fatal {
            return Err(Failure::Query(crate::query::Error::Stopped(
                crate::query::Stop::ShuttingDown,
            )));
        }
        self.extended.skip();
        self.report(report)?;
        // Clients that sent Flush and no Sync yet wait for this.
        Ok(self.connection.flush().await?)
    }

    /// A statement met a defect of ours: its own client is told, others do not notice.
    async fn survive(&mut self, panic: Box<dyn Any + Send>, is_query: bool) -> Result<(), Failure> {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown");
        let error = crate::engine::Error::Panic(text.to_owned());
        let report = self.report_of(error);
        self.report(report)?;
        if is_query {
            self.ready()?;
        } else {
            self.extended.skip();
        }
        Ok(self.connection.flush().await?)
    }

    /// Ends when the client has said nothing for longer than it may, with what it is told.
    fn patience(&mut self) -> impl Future<Output = Report> + use<> {
        if !Arc::ptr_eq(&self.manners.settings, self.session.settings()) {
            self.manners = Manners::of(self.session.settings());
        }
        let (limit, code, message) = match self.session.transaction_state() {
            TransactionState::Idle => (
                self.manners.in_session,
                "57P05",
                "terminating connection due to idle-session timeout",
            ),
            _ => (
                self.manners.in_transaction,
                "25P03",
                "terminating connection due to idle-in-transaction timeout",
            ),
        };
        // What the client is told meanwhile, and changed settings, do not begin it anew.
        let left = limit.filter(|_| self.is_idle());
        let left = left.map(|limit| limit.saturating_sub(self.since.elapsed()));
        async move {
            match left {
                Some(left) => tokio::time::sleep(left).await,
                None => std::future::pending().await,
            }
            Report::fatal(code, message)
        }
    }

    /// Whether the client waits for nothing.
    fn is_idle(&self) -> bool {
        !self.extended.is_busy() && !self.connection.has_message()
    }

    /// Whether a client can be told what it has not asked for: as in PostgreSQL, outside of
    /// transactions only.
    fn may_be_told(&self) -> bool {
        self.is_idle() && self.session.transaction_state() == TransactionState::Idle
    }

    /// Tells the client what it listens to.
    fn tell(&mut self) -> io::Result<()> {
        for notification in self.session.inbox().take() {
            let Notification { pid, channel, payload } = notification.as_ref();
            let response = NotificationResponse::new(*pid, channel.clone(), payload.clone());
            self.connection.put(Backend::NotificationResponse(response))?;
        }
        Ok(())
    }

    fn why_terminated(&self) -> Report {
        match self.session.inbox().lost() {
            None => ending(),
            Some(Lost::Full) => {
                let hint = "They wait for the end of its transaction, and until they are read.";
                let message = "terminating connection: too many notifications wait for it";
                Report::fatal("54000", message).hint(hint)
            }
            Some(Lost::OutOfTouch) => {
                let hint = "Connect again, LISTEN, and look at what may have changed meanwhile.";
                let message = "terminating connection: this daemon was out of the cluster, and \
                               notifications may have been lost";
                Report::fatal("57P01", message).hint(hint)
            }
        }
    }

    /// Says good-bye to a client that does not speak the protocol.
    async fn reject(&mut self, error: &connection::Error) -> io::Result<()> {
        let code = match error {
            connection::Error::TooLong { .. } => "54000",
            _ => "08P01",
        };
        self.dismiss(Report::fatal(code, error.to_string())).await
    }

    /// Says good-bye to a client that waits for nothing.
    ///
    /// Its next question may be under way already. It is told again then, and not only that the
    /// connection has ended: libpq takes what it reads between two questions for a notice, which most
    /// programs never see, and would not know whether the question was run.
    async fn take_leave(&mut self, report: Report) -> io::Result<()> {
        self.report(report.clone())?;
        self.connection.flush().await?;
        let crossing = tokio::time::timeout(LINGER, self.connection.next()).await;
        if let Ok(Ok(Some(message))) = crossing
            && !matches!(message, Frontend::Terminate)
        {
            self.report(report)?;
        }
        self.connection.close().await;
        Ok(())
    }

    /// Says good-bye to a client.
    async fn dismiss(&mut self, report: Report) -> io::Result<()> {
        self.report(report)?;
        self.connection.close().await;
        Ok(())
    }

    /// What the client is told of an error. If the log is told of it, too, it is of the statement as well.
    pub fn report_of(&self, error: impl Into<Report>) -> Report {
        self.session.entry().span().in_scope(|| error.into())
    }

    /// Tells the client of a failure, and the transaction.
    pub fn report(&mut self, mut report: Report) -> io::Result<()> {
        self.connection.counts().errors.add(report.code);
        if report.code == "42501" && !report.own {
            let Report { code, message, .. } = &report;
            let denied = Event { role: self.session.user(), ..self.event(Kind::Denied) }
                .logged_in_as(&self.session.entry().user);
            self.audit.record(Event { sqlstate: Some(code), message: Some(message), ..denied });
        }
        if let Some(file) = report.file.take() {
            let code = report.code;
            let span = self.session.entry().span();
            span.in_scope(|| tracing::info!(code, file, "a statement failed on a file"));
            // Where tables keep their files is not everybody's business.
            match self.session.may_see_files() {
                true if report.message.contains(&*file) => {}
                // It may be the statement's own computation, of values that the file has.
                true => {
                    report.context.get_or_insert_with(|| format!("reading {file}").into());
                }
                false => report.hide(&file),
            }
        }
        self.session.entry().failed(report.code, &report.message);
        self.session.note_error();
        if self.session.transaction_state() == TransactionState::Failed {
            self.extended.portals.abort(self.session.savepoints());
        }
        self.warn()?;
        self.connection.put(Backend::ErrorResponse(ErrorResponse::from(report)))
    }

    /// Tells the client what its statement has warned of, before its end.
    pub fn warn(&mut self) -> io::Result<()> {
        let warnings = self.session.entry().take_warnings();
        self.notify(warnings)
    }

    fn event(&self, kind: Kind) -> Event<'_> {
        let entry = self.session.entry();
        let tls = self.connection.tls().is_some();
        Event { tls, ..Event::new(kind, &entry.user, &entry.database, Some(self.peer)) }
    }

    pub fn notify(&mut self, notices: Vec<Notice>) -> io::Result<()> {
        for Notice { code, message } in notices {
            let severity =
                if code == "00000" || code.starts_with("42") { "NOTICE" } else { "WARNING" };
            let info = pgwire::error::ErrorInfo::new(severity.into(), code.into(), message);
            let mut notice = NoticeResponse::from(info);
            notice.fields.insert(1, untranslated(severity));
            self.connection.put(Backend::NoticeResponse(notice))?;
        }
        Ok(())
    }

    /// The end of a client's turn. Settings that have changed are told first, as it was promised at
    /// start-up.
    pub fn ready(&mut self) -> io::Result<()> {
        let now = self.session.settings();
        if !Arc::ptr_eq(&self.told, now) {
            let told = std::mem::replace(&mut self.told, now.clone());
            for ((name, old), (_, new)) in reported(&told).into_iter().zip(reported(&self.told)) {
                if old != new {
                    let status = ParameterStatus::new(name.to_owned(), new.to_owned());
                    self.connection.put(Backend::ParameterStatus(status))?;
                }
            }
        }
        if self.session.transaction_state() == TransactionState::Idle {
            self.tell()?;
        }
        ready(&mut self.connection, &self.session)
    }

    pub fn style(&self) -> TextStyle {
        let settings = self.session.settings();
        match Arc::ptr_eq(&self.manners.settings, settings) {
            true => self.manners.style.clone(),
            // An earlier statement of the same message has changed them.
            false => Manners::of(settings).style,
        }
    }
}

/// How long a client has waited for nothing before a daemon that drains sends it away: one that asks
/// again at once is told so in answer to that.
const SETTLED: Duration = Duration::from_millis(50);

/// Ends a while after the daemon has begun to drain, or the client to wait for nothing.
async fn settled(draining: &CancellationToken) {
    draining.cancelled().await;
    tokio::time::sleep(SETTLED).await;
}

/// How long a session that was ended may take to say so.
const FAREWELL: Duration = Duration::from_secs(3);

/// Ends a while after the session was ended.
async fn given_up(terminated: &CancellationToken) {
    terminated.cancelled().await;
    tokio::time::sleep(FAREWELL).await;
}

/// Why a message of the extended protocol failed.
pub(super) enum Trouble {
    Report(Report),
    Failure(Failure),
}

impl From<Report> for Trouble {
    fn from(report: Report) -> Self {
        Self::Report(report)
    }
}

impl From<crate::query::Error> for Trouble {
    fn from(error: crate::query::Error) -> Self {
        Self::Report(error.into())
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Failure(error.into())
    }
}

/// Tells the client that it may go on, and the state of its transaction.
pub fn ready(connection: &mut Connection, session: &Session) -> io::Result<()> {
    let status = match session.transaction_state() {
        TransactionState::Idle => TransactionStatus::Idle,
        TransactionState::InBlock => TransactionStatus::Transaction,
        TransactionState::Failed => TransactionStatus::Error,
    };
    connection.put(Backend::ReadyForQuery(ReadyForQuery::new(status)))
}
