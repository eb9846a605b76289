//! The first thing between a client and the daemon: whether they speak in TLS.
//!
//! A client may begin with TLS at once (direct TLS), or ask for it with a request of its own, or not
//! at all. What it sent in plaintext together with its request was perhaps put there by somebody
//! between the two (CVE-2021-23214): such a connection ends.

use std::sync::Arc;

use bytes::{Buf, Bytes};
use tokio::net::TcpStream;

use super::connection::{Connection, Result};
use super::frontend::Malformed;
use crate::metrics::Clients;
use crate::tls::Acceptor;

/// Request codes in place of a protocol version, from PostgreSQL's `pqcomm.h`.
const SSL: u32 = (1234 << 16) | 5679;
const GSSAPI: u32 = (1234 << 16) | 5680;

/// The first byte of TLS: a handshake record. As the begin of a start-up packet it would announce
/// far more than the longest.
const HANDSHAKE: u8 = 0x16;

/// Answers requests for encryption. Returns the connection, encrypted if the client wants that and
/// the daemon can, with the first packet that is about something else; `None` if there is none.
pub async fn negotiate(
    socket: TcpStream,
    message_limit: usize,
    acceptor: Option<&Acceptor>,
    counts: Arc<Clients>,
) -> Result<Option<(Connection, Bytes)>> {
    let direct = begins_with_tls(&socket).await?;
    let mut connection = Connection::new(socket, message_limit, counts);
    if direct {
        let Some(acceptor) = acceptor else { return Ok(None) };
        connection = connection.encrypt(acceptor, true).await?;
    }
    // Each may be asked once, in either order.
    let (mut tls_asked, mut gssapi_asked) = (direct, false);
    loop {
        let Some(packet) = connection.startup_packet().await? else { return Ok(None) };
        let asked = match (&packet[..]).get_u32() {
            SSL => &mut tls_asked,
            GSSAPI => &mut gssapi_asked,
            _ => return Ok(Some((connection, packet))),
        };
        if std::mem::replace(asked, true) {
            return Ok(Some((connection, packet)));
        }
        if connection.has_input() {
            return Err(Malformed::Invalid("data in plaintext behind an encryption request").into());
        }
        let acceptor = acceptor.filter(|_| (&packet[..]).get_u32() == SSL);
        connection.put_byte(if acceptor.is_some() { b'S' } else { b'N' });
        connection.flush().await?;
        if let Some(acceptor) = acceptor {
            connection = connection.encrypt(acceptor, false).await?;
        }
    }
}

async fn begins_with_tls(socket: &TcpStream) -> Result<bool> {
    let mut first = [0];
    Ok(socket.peek(&mut first).await? == 1 && first[0] == HANDSHAKE)
}
