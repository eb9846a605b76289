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

use super::connection::{Connection, Error, Result};
use super::frontend::Malformed;
use super::session::Shared;
use super::sqlstate::Report;
use crate::catalog;
use crate::cluster::State;
use crate::engine::settings::{SETTINGS, Settings, Source};
use crate::query::Session;
use crate::query::sessions::SHOWN_TEXT;

/// A request code in place of a protocol version, from PostgreSQL's `pqcomm.h`.
const CANCEL: u32 = (1234 << 16) | 5678;

/// Length of a cancel key in protocol 3.2 and later, in bytes.
const LONG_KEY: usize = 32;

/// What a client wanted with its connection.
pub enum Arrival {
    Session(Box<Session>),
    /// It is over: a cancel request, a refusal, or nothing at all.
    Over,
}

/// Goes from the first packet that does not ask for encryption to a session that is ready for
/// queries.
pub async fn arrive(
    connection: &mut Connection,
    packet: Bytes,
    shared: &Shared,
    peer: SocketAddr,
    full: bool,
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
        _ if full => {
            let report = Report::fatal("53300", "sorry, too many clients already")
                .hint("The limit is the setting connections.max.");
            refuse(connection, report).await
        }
        version if version >> 16 != 3 => {
            let (major, minor) = (version >> 16, version & 0xffff);
            let message = format!(
                "unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.2"
            );
            refuse(connection, Report::fatal("0A000", message)).await
        }
        _ => log_in(connection, shared, peer, packet).await,
    }
}

async fn log_in(
    connection: &mut Connection,
    shared: &Shared,
    peer: SocketAddr,
    packet: Bytes,
) -> Result<Arrival> {
    let startup = decode(&packet)?;
    let long_keys = negotiate(connection, &startup)?;
    match open(connection, shared, peer, &startup.parameters).await {
        Ok(session) => {
            let key = shared.cancels.key(session.entry().pid, if long_keys { LONG_KEY } else { 4 });
            greet(connection, &session, key, long_keys)?;
            connection.flush().await?;
            Ok(Arrival::Session(Box::new(session)))
        }
        Err(report) => refuse(connection, report).await,
    }
}

async fn refuse(connection: &mut Connection, report: Report) -> Result<Arrival> {
    connection.put(Backend::ErrorResponse(ErrorResponse::from(report)))?;
    connection.close().await;
    Ok(Arrival::Over)
}

fn decode(packet: &Bytes) -> Result<Startup> {
    // Every name and value ends in a zero byte, and so does the list: what does not is no message.
    if packet.last() != Some(&0) {
        return Err(Malformed("the start-up packet has no end").into());
    }
    let mut bytes = BytesMut::with_capacity(packet.len() + 4);
    bytes.extend_from_slice(&(packet.len() as u32 + 4).to_be_bytes());
    bytes.extend_from_slice(packet);
    let context = DecodeContext::new(ProtocolVersion::PROTOCOL3_2);
    match Startup::decode(&mut bytes, &context) {
        Ok(Some(startup)) => Ok(startup),
        Ok(None) | Err(_) => Err(Malformed("the start-up packet is invalid").into()),
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
    connection: &Connection,
    shared: &Shared,
    peer: SocketAddr,
    parameters: &BTreeMap<String, String>,
) -> std::result::Result<Session, Report> {
    let Some(user) = parameters.get("user").filter(|user| !user.is_empty()) else {
        return Err(Report::fatal("28000", "no PostgreSQL user name specified in startup packet"));
    };
    match shared.queries.membership.state() {
        State::Joining => return Err(Report::fatal("57P03", "the database system is starting up")),
        State::Draining => {
            return Err(Report::fatal("57P03", "the database system is shutting down"));
        }
        State::Ready | State::Degraded => {}
    }
    if !shared.config.trust.contains(peer.ip()) {
        let message = format!("clients at {} are not trusted", peer.ip());
        let hint = "The setting connections.trust of the daemon lists the networks that are.";
        return Err(Report::fatal("28000", message).hint(hint));
    }
    let database = parameters.get("database").filter(|name| !name.is_empty()).unwrap_or(user);
    if let Err(error) = shared.queries.catalog.database(database).await {
        return Err(match error {
            catalog::Error::NotFound { .. } => {
                let hint = "The default database is oribi. SELECT datname FROM pg_database lists \
                            all.";
                let message = format!("database \"{database}\" does not exist");
                Report::fatal("3D000", message).hint(hint)
            }
            error => Report { fatal: true, ..Report::from(error) },
        });
    }
    let settings = settings(shared, user, parameters)?;
    let tls = connection.tls().cloned();
    let guard = shared.queries.sessions.open(user, database, peer, tls);
    Ok(Session::new(shared.queries.clone(), guard, settings))
}

/// The session's own defaults: the daemon's, then what the client asks for.
fn settings(
    shared: &Shared,
    user: &str,
    parameters: &BTreeMap<String, String>,
) -> std::result::Result<Settings, Report> {
    let mut settings = Settings::default();
    settings.set_fact("session_authorization", user, Source::Override);
    let facts = [
        ("max_connections", shared.config.max.to_string()),
        ("ssl", if shared.tls.is_some() { "on" } else { "off" }.to_owned()),
        ("track_activity_query_size", (SHOWN_TEXT + 1).to_string()),
    ];
    for (name, value) in facts {
        settings.set_fact(name, &value, Source::Configuration);
    }
    if let Some(timeout) = shared.statement_timeout {
        let millis = timeout.as_millis().to_string();
        // A duration is always a valid value for it.
        let _ = settings.set_default("statement_timeout", &millis, Source::Configuration);
    }
    let options = parameters.get("options").map(String::as_str).unwrap_or_default();
    let asked = (parameters.iter())
        .filter(|(name, _)| {
            !matches!(name.as_str(), "user" | "database" | "options" | "replication")
        })
        .filter(|(name, _)| !name.starts_with("_pq_."))
        .map(|(name, value)| (name.clone(), value.clone()))
        .chain(command_line(options));
    for (name, value) in asked {
        if let Err(error) = settings.set_default(&name, &value, Source::Client) {
            let report = Report::from(crate::engine::Error::from(error));
            return Err(Report { fatal: true, ..report });
        }
    }
    Ok(settings)
}

/// Settings from `-c name=value` and `--name=value`, as `PGOPTIONS` has them. A backslash makes the
/// next character, such as a space, part of the value.
fn command_line(options: &str) -> Vec<(String, String)> {
    let mut words = vec![String::new()];
    let mut characters = options.chars();
    while let Some(character) = characters.next() {
        let word = words.len() - 1;
        match character {
            '\\' => words[word].extend(characters.next()),
            ' ' | '\t' => words.push(String::new()),
            other => words[word].push(other),
        }
    }
    words.retain(|word| !word.is_empty());
    let mut found = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let setting = match word.as_str() {
            "-c" => words.next(),
            _ => word.strip_prefix("-c").or_else(|| word.strip_prefix("--")).map(str::to_owned),
        };
        if let Some((name, value)) = setting.as_deref().and_then(|text| text.split_once('=')) {
            found.push((name.replace('-', "_"), value.to_owned()));
        }
    }
    found
}

/// Tells a client that it is in, and who serves it.
fn greet(
    connection: &mut Connection,
    session: &Session,
    key: Bytes,
    long_keys: bool,
) -> Result<(), Error> {
    connection.put(Backend::Authentication(Authentication::Ok))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_like_a_command_line() {
        let expected = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
        };
        for (text, pairs) in [
            ("-c statement_timeout=5s", vec![("statement_timeout", "5s")]),
            (
                "-cdatestyle=ISO,\\ MDY --search-path=a",
                vec![("datestyle", "ISO, MDY"), ("search_path", "a")],
            ),
            ("-c", vec![]),
            ("nonsense", vec![]),
        ] {
            assert_eq!(command_line(text), expected(&pairs), "{text}");
        }
    }
}
