//! From a new connection to a session: the start-up message, log-in, cancel requests.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::{Buf, Bytes, BytesMut};
use pgwire::messages::PgWireBackendMessage as Backend;
use pgwire::messages::response::ErrorResponse;
use pgwire::messages::startup::{
    Authentication, BackendKeyData, NegotiateProtocolVersion, ParameterStatus, SecretKey, Startup,
};
use pgwire::messages::{DecodeContext, Message, ProtocolVersion};

use super::authentication::{Place, Refusal, authenticate};
use super::connection::{Connection, Error, Result};
use super::frontend::Malformed;
use super::parameters;
use super::session::Shared;
use super::sqlstate::Report;
use crate::audit::{Event, Kind};
use crate::catalog::{self, Privilege, Role};
use crate::cluster::State;
use crate::config::rules::Visitor;
use crate::coordination::paths::CatalogName;
use crate::engine::settings::{SETTINGS, Settings, Source};
use crate::query::Session;

/// A request code in place of a protocol version, from PostgreSQL's `pqcomm.h`.
const CANCEL: u32 = (1234 << 16) | 5678;

/// Length of a cancel key in protocol 3.2 and later, in bytes.
const LONG_KEY: usize = 32;

/// What a client wanted with its connection.
pub enum Arrival {
    Session(Box<Arrived>),
    /// It is over: a cancel request, a refusal, or nothing at all.
    Over,
}

/// A client that is logged in.
pub struct Arrived {
    pub session: Session,
    /// `None` for a guest, whose place is that of the connection on which it has proved who it is.
    pub place: Option<Place>,
}

/// Both ends of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    pub peer: SocketAddr,
    pub server: SocketAddr,
}

/// Goes from the first packet that does not ask for encryption to a session that is ready for
/// queries.
pub async fn arrive(
    connection: &mut Connection,
    packet: Bytes,
    shared: &Shared,
    ends: Ends,
) -> Result<Arrival> {
    let must_encrypt = shared.tls.as_ref().is_some_and(|tls| tls.is_required());
    match (&packet[..]).get_u32() {
        CANCEL => {
            shared.cancels.request(&shared.queries, packet).await;
            Ok(Arrival::Over)
        }
        _ if must_encrypt && connection.tls().is_none() => {
            let report = Report::fatal("28000", "connections have to be encrypted with TLS")
                .hint("Connect with sslmode=require or stricter. The setting is tls.mode.");
            refuse(connection, report).await
        }
        version if version >> 16 != 3 => {
            let (major, minor) = (version >> 16, version & 0xffff);
            let message = format!(
                "unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.2"
            );
            refuse(connection, Report::fatal("0A000", message)).await
        }
        _ => log_in(connection, shared, ends, packet).await,
    }
}

async fn log_in(
    connection: &mut Connection,
    shared: &Shared,
    ends: Ends,
    packet: Bytes,
) -> Result<Arrival> {
    let startup = decode(&packet)?;
    let long_keys = negotiate(connection, &startup)?;
    match open(connection, shared, ends, &startup.parameters).await {
        Ok(arrived) => {
            let pid = arrived.session.entry().pid;
            let key = shared.cancels.key(pid, if long_keys { LONG_KEY } else { 4 });
            greet(connection, &arrived.session, key, long_keys)?;
            connection.flush().await?;
            connection.logged_in();
            Ok(Arrival::Session(Box::new(arrived)))
        }
        Err(Refusal::Report(report)) => refuse(connection, report).await,
        Err(Refusal::Gone) => Ok(Arrival::Over),
        Err(Refusal::Connection(Error::Io(error))) => Err(error.into()),
        Err(Refusal::Connection(Error::Ending)) => refuse(connection, ending()).await,
        Err(Refusal::Connection(error)) => {
            refuse(connection, Report::fatal("08P01", error.to_string())).await
        }
    }
}

/// Says why a client does not come in.
pub async fn refuse(connection: &mut Connection, report: Report) -> Result<Arrival> {
    connection.put(Backend::ErrorResponse(ErrorResponse::from(report)))?;
    connection.close().await;
    Ok(Arrival::Over)
}

/// What clients are told whose connection ends with the daemon.
pub fn ending() -> Report {
    Report::fatal("57P01", "terminating connection due to administrator command")
}

fn decode(packet: &Bytes) -> Result<Startup> {
    // Every name and value ends in a zero byte, and so does the list: what does not is no message.
    if packet.last() != Some(&0) {
        return Err(Malformed::Invalid("the start-up packet has no end").into());
    }
    let mut bytes = BytesMut::with_capacity(packet.len() + 4);
    bytes.extend_from_slice(&(packet.len() as u32 + 4).to_be_bytes());
    bytes.extend_from_slice(packet);
    let context = DecodeContext::new(ProtocolVersion::PROTOCOL3_2);
    match Startup::decode(&mut bytes, &context) {
        Ok(Some(startup)) => Ok(startup),
        Ok(None) | Err(_) => Err(Malformed::Invalid("the start-up packet is invalid").into()),
    }
}

/// Settles the minor version: tells a client that asked for a newer one, or for options of the
/// protocol that are not there, what there is. Returns whether cancel keys may be long.
fn negotiate(connection: &mut Connection, startup: &Startup) -> Result<bool> {
    let minor = startup.protocol_number_minor;
    let options: Vec<String> =
        startup.parameters.keys().filter(|name| name.starts_with("_pq_.")).cloned().collect();
    // 3.1 was never used, 3.2 is the newest.
    let spoken = if minor >= 2 { 2 } else { 0 };
    if u16::from(spoken == 2) * 2 != minor || !options.is_empty() {
        let newest = i32::from(ProtocolVersion::PROTOCOL3_0) + spoken;
        let message = NegotiateProtocolVersion::new(newest, options);
        connection.put(Backend::NegotiateProtocolVersion(message))?;
    }
    Ok(spoken == 2)
}

/// Finds out whether and how this client may come in.
async fn open(
    connection: &mut Connection,
    shared: &Shared,
    ends: Ends,
    parameters: &BTreeMap<String, String>,
) -> std::result::Result<Arrived, Refusal> {
    let given = |name| parameters.get(name).filter(|value| !value.is_empty());
    let Some(user) = given("user") else {
        let message = "no PostgreSQL user name specified in startup packet";
        return Err(Report::fatal("28000", message).into());
    };
    let closed = match shared.queries.membership.state() {
        State::Joining => Some("the database system is starting up"),
        State::Draining => Some("the database system is shutting down"),
        State::Ready | State::Degraded => None,
    };
    let counts = &shared.queries.clients;
    if let Some(reason) = closed {
        counts.refused.add("57P03");
        return Err(Report::fatal("57P03", reason).into());
    }
    let visitor = Visitor {
        address: ends.peer.ip(),
        server: ends.server.ip(),
        encrypted: connection.tls().is_some(),
        user,
        database: given("database").unwrap_or(user),
    };
    let arrived = match authenticate(connection, shared, &visitor).await {
        Ok(role) => {
            // As in PostgreSQL: who it is is settled, whatever else is refused.
            connection.put(Backend::Authentication(Authentication::Ok))?;
            let entered = enter(connection, shared, ends, &visitor, &role, parameters).await;
            entered.map_err(Refusal::from)
        }
        Err(refusal) => Err(refusal),
    };
    let event = Event {
        tls: visitor.encrypted,
        ..Event::new(Kind::Login, user, visitor.database, Some(ends.peer))
    };
    match &arrived {
        Ok(_) if connection.is_proven() => {}
        Ok(_) => {
            counts.opened.add(1);
            shared.queries.audit.record(event);
        }
        Err(Refusal::Report(report)) => {
            counts.refused.add(report.code);
            shared.queries.audit.record(Event {
                event: Kind::LoginFailed,
                sqlstate: Some(report.code),
                message: Some(&report.message),
                ..event
            });
        }
        Err(Refusal::Gone | Refusal::Connection(_)) => {}
    }
    arrived
}

/// Opens a session for who has proved to be a role, if it may have one.
async fn enter(
    connection: &Connection,
    shared: &Shared,
    ends: Ends,
    visitor: &Visitor<'_>,
    role: &Role,
    asked: &BTreeMap<String, String>,
) -> std::result::Result<Arrived, Report> {
    let Visitor { user, database, .. } = *visitor;
    if !role.record.login {
        let message = format!("role \"{user}\" is not permitted to log in");
        return Err(Report::fatal("28000", message));
    }
    let place = match connection.is_proven() {
        true => None,
        false => Some(shared.places.take(role)?),
    };
    let found = shared.queries.catalog.database(database).await;
    let found = found.map_err(|error| match error {
        catalog::Error::NotFound { .. } => {
            let hint = "The default database is oribi. SELECT datname FROM pg_database lists \
                            all.";
            let message = format!("database \"{database}\" does not exist");
            Report::fatal("3D000", message).hint(hint)
        }
        error => Report { fatal: true, ..Report::from(error) },
    })?;
    may_connect(shared, user, database).await?;
    let mut settings = parameters::settings(shared, (role, &found), asked)?;
    if connection.guest().is_some_and(|guest| guest.only_reads) {
        settings.hold_to_reading();
    }
    let tls = connection.tls().cloned();
    let guard = shared.queries.sessions.open(role, database, ends.peer, tls);
    if connection.guest().is_some_and(|guest| guest.unlisted) {
        let _ = guard.entry().unlisted.set(());
    }
    let asked_role = (settings.source("role") == Source::Client)
        .then(|| settings.get("role").map(str::to_owned))
        .flatten();
    let session = Session::new(shared.queries.clone(), guard, settings);
    // A role's own setting that no longer holds is passed over, as in PostgreSQL.
    let may_take = session.may_take_role(asked_role.as_deref()).await;
    may_take.map_err(|error| Report { fatal: true, ..Report::from(error) })?;
    Ok(Arrived { session, place })
}

/// Whether a role has CONNECT on a database, as the store has it before that is denied.
async fn may_connect(
    shared: &Shared,
    user: &str,
    database: &str,
) -> std::result::Result<(), Report> {
    let catalog = &shared.queries.catalog;
    let allowed = || {
        let snapshot = catalog.snapshot();
        let found = snapshot.databases.get(database);
        found.is_some_and(|found| snapshot.access(user).database(found, Privilege::Connect))
    };
    if !allowed() {
        let name = CatalogName::Database(database.to_owned());
        let looked = catalog.look_again_at_grants(vec![name]).await;
        looked.map_err(|error| Report { fatal: true, ..Report::from(error) })?;
    }
    if allowed() {
        return Ok(());
    }
    let hint = "The role has no CONNECT privilege on it.";
    Err(Report::fatal("42501", format!("permission denied for database \"{database}\"")).hint(hint))
}

/// Tells a client who serves it.
fn greet(
    connection: &mut Connection,
    session: &Session,
    key: Bytes,
    long_keys: bool,
) -> Result<(), Error> {
    for (name, value) in reported(session.settings()) {
        let status = ParameterStatus::new(name.to_owned(), value.to_owned());
        connection.put(Backend::ParameterStatus(status))?;
    }
    let secret = match long_keys {
        true => SecretKey::Bytes(key),
        false => SecretKey::I32((&key[..]).get_i32()),
    };
    let key = BackendKeyData::new(session.entry().pid, secret);
    connection.put(Backend::BackendKeyData(key))?;
    super::session::ready(connection, session)?;
    Ok(())
}

/// The settings that clients are told of, with their values.
pub fn reported(settings: &Settings) -> Vec<(&'static str, &str)> {
    (SETTINGS.iter())
        .filter(|setting| setting.report)
        .map(|setting| (setting.name, settings.get(setting.name).unwrap_or_default()))
        .collect()
}
