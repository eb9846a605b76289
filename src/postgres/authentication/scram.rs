//! A SCRAM exchange (RFC 5802, RFC 7677) as PostgreSQL carries it: four messages, after which the
//! client has proved that it knows the password, and the daemon that it knows the verifier.
//!
//! The arithmetic is `pgwire`'s; here is what it leaves to its caller: that what the client says of
//! channel binding fits the mechanism it chose, and bounds for what it sends.

use bytes::Bytes;
use pgwire::api::auth::sasl::scram::ScramServerAuth;
use pgwire::error::PgWireError;
use pgwire::messages::PgWireBackendMessage as Backend;
use pgwire::messages::startup::Authentication;

use super::{Refusal, Result};
use crate::password::Verifier;
use crate::postgres::connection::Connection;
use crate::postgres::frontend::{Frontend, SaslInitialResponse};
use crate::postgres::sqlstate::Report;

const PLAIN: &str = "SCRAM-SHA-256";
const PLUS: &str = "SCRAM-SHA-256-PLUS";

/// The longest message, as in PostgreSQL (`PG_MAX_SASL_MESSAGE_LENGTH`).
const MAX_MESSAGE: usize = 1024;

/// Goes through an exchange; returns whether the client knows the password.
pub async fn exchange(connection: &mut Connection, verifier: Verifier) -> Result<bool> {
    let mut server = ScramServerAuth::new();
    // A certificate whose signature has no hash of its own (Ed25519) cannot be bound to.
    let bound = match connection.tls() {
        Some(tls) => server.configure_certificate(tls.server_chain.as_bytes()).is_ok(),
        None => false,
    };
    let mechanisms = if bound { &[PLUS, PLAIN][..] } else { &[PLAIN] };
    let mechanisms = mechanisms.iter().map(|name| (*name).to_owned()).collect();
    say(connection, Authentication::SASL(mechanisms)).await?;
    let first = SaslInitialResponse::decode(hear(connection).await?)?;
    check(&first, bound)?;
    let (challenge, server) = server
        .on_client_first_message_with_secret(&first.data, verifier.secret())
        .map_err(|_| malformed())?;
    say(connection, Authentication::SASLContinue(challenge.into())).await?;
    let last = hear(connection).await?;
    match server.on_client_final_message(&last) {
        Ok(signature) => {
            // Sent with what follows it.
            let signature = Authentication::SASLFinal(signature.into());
            connection.put(Backend::Authentication(signature))?;
            Ok(true)
        }
        Err(PgWireError::InvalidPassword(_)) => Ok(false),
        // PostgreSQL's code for a channel binding that does not fit: somebody may be in between.
        Err(_) => Err(Report::fatal("28000", "SCRAM exchange failed")
            .hint("The client's answer does not belong to this connection or its certificate.")
            .into()),
    }
}

/// Whether the mechanism was offered, and fits what the client says of channel binding.
fn check(first: &SaslInitialResponse, bound: bool) -> Result<()> {
    let plus = match first.mechanism.as_str() {
        PLAIN => false,
        PLUS if bound => true,
        _ => {
            let message = "client selected an invalid SASL authentication mechanism";
            return Err(Report::fatal("08P01", message).into());
        }
    };
    match (first.data.first(), plus) {
        (Some(b'p'), true) | (Some(b'n'), false) => {}
        // The client can bind and thinks that this daemon cannot: it was told so by another.
        (Some(b'y'), false) if bound => {
            let message = "SCRAM channel binding negotiation error";
            let hint = "The client supports channel binding and thinks that the server does not, \
                        which it does: is something between the two?";
            return Err(Report::fatal("28000", message).hint(hint).into());
        }
        (Some(b'y'), false) => {}
        _ => return Err(malformed()),
    }
    match nonce(&first.data) {
        Some(nonce) if !nonce.is_empty() && nonce.iter().all(u8::is_ascii_graphic) => Ok(()),
        _ => Err(malformed()),
    }
}

/// The client's part of the nonce: `gs2-header,authzid,n=name,r=NONCE`.
fn nonce(message: &[u8]) -> Option<&[u8]> {
    message.split(|byte| *byte == b',').nth(3)?.strip_prefix(b"r=")
}

async fn say(connection: &mut Connection, message: Authentication) -> Result<()> {
    connection.put(Backend::Authentication(message))?;
    Ok(connection.flush().await?)
}

async fn hear(connection: &mut Connection) -> Result<Bytes> {
    match connection.next_up_to(MAX_MESSAGE).await? {
        Some(Frontend::Password(message)) => Ok(message),
        // Clients that are to ask their user for the password first go away here.
        None | Some(Frontend::Terminate) => Err(Refusal::Gone),
        Some(_) => Err(Report::fatal("08P01", "expected SASL response").into()),
    }
}

fn malformed() -> Refusal {
    Report::fatal("08P01", "malformed SCRAM message").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(mechanism: &str, data: &'static str, bound: bool) -> &'static str {
        let first = SaslInitialResponse {
            mechanism: mechanism.to_owned(),
            data: Bytes::from_static(data.as_bytes()),
        };
        match check(&first, bound) {
            Ok(()) => "00000",
            Err(Refusal::Report(report)) => report.code,
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_mechanism_and_the_channel_binding_have_to_fit() {
        for (mechanism, data, bound, expected) in [
            (PLAIN, "n,,n=,r=abc", false, "00000"),
            (PLAIN, "n,,n=,r=abc", true, "00000"),
            (PLAIN, "y,,n=,r=abc", false, "00000"),
            (PLAIN, "y,,n=,r=abc", true, "28000"),
            (PLAIN, "p=tls-server-end-point,,n=,r=abc", true, "08P01"),
            (PLUS, "p=tls-server-end-point,,n=,r=abc", true, "00000"),
            (PLUS, "p=tls-server-end-point,,n=,r=abc", false, "08P01"),
            (PLUS, "n,,n=,r=abc", true, "08P01"),
            (PLUS, "y,,n=,r=abc", true, "08P01"),
            ("SCRAM-SHA-1", "n,,n=,r=abc", false, "08P01"),
            (PLAIN, "n,,n=,r=", false, "08P01"),
            (PLAIN, "n,,n=,r=a b", false, "08P01"),
            (PLAIN, "n,,n=", false, "08P01"),
            (PLAIN, "", false, "08P01"),
        ] {
            assert_eq!(verdict(mechanism, data, bound), expected, "{mechanism} {data} {bound}");
        }
    }
}
