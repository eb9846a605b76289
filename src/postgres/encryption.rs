//! The first thing between a client and the daemon: whether they speak in TLS.
//!
//! A client may begin with TLS at once (direct TLS), or ask for it with a request of its own, or not
//! at all. What it sent in plaintext together with its request was perhaps put there by somebody
//! between the two (CVE-2021-23214): such a connection ends.

use bytes::{Buf, Bytes};

use super::connection::{Connection, Error, Result};
use super::frontend::Malformed;
use super::startup::{ending, refuse};
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
    mut connection: Connection,
    acceptor: Option<&Acceptor>,
) -> Result<Option<(Connection, Bytes)>> {
    let direct = connection.first_byte().await? == Some(HANDSHAKE);
    if direct {
        let Some(acceptor) = acceptor else { return Ok(None) };
        connection = connection.encrypt(acceptor, true).await?;
    }
    // Each may be asked once, in either order.
    let (mut tls_asked, mut gssapi_asked) = (direct, false);
    loop {
        let Some(packet) = first_packet(&mut connection).await? else { return Ok(None) };
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

/// The next start-up packet; `None` at the end of the connection. Who says nothing until the daemon ends
/// is told so, in answer to whatever that will be.
pub async fn first_packet(connection: &mut Connection) -> Result<Option<Bytes>> {
    match connection.startup_packet().await {
        Err(Error::Ending) => refuse(connection, ending()).await.map(|_| None),
        packet => packet,
    }
}
