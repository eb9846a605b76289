//! Who a client is: the host rule for its connection, and the proof that the rule asks for.
//!
//! 1. The first rule that fits decides ([`crate::config::rules`]); without one nobody comes in.
//! 2. *certificate*: if the rule asks for one, the TLS handshake has checked it, and its common name
//!    may have to be the user's.
//! 3. *password*: a SCRAM exchange ([`scram`]) against the role's verifier, as the store has it now:
//!    a new password counts on all daemons at once. A name without a role, or a role without a
//!    password that counts, goes through the same exchange and fails in the same way, so that
//!    nobody learns which names there are.
//!
//! A failed proof is logged, counted, and answered later each time ([`throttle`]). Who is not
//! logged in yet waits in the [`lobby`]; who is has one of the [`places`].

mod lobby;
mod places;
mod scram;
mod throttle;

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use tokio::time::{Instant, sleep, timeout};
use tracing::info;

use super::connection::{self, Connection};
use super::door::Proof;
use super::frontend::Malformed;
use super::session::Shared;
use super::sqlstate::Report;
use crate::catalog::{self, Consistency, FIRST_ROLE, Role};
use crate::config::rules::{Certificate, Method, Visitor};
use crate::password::Verifier;
pub use lobby::{Lobby, Seat};
pub use places::{Place, Places};
pub use throttle::Throttle;

/// How long the store is asked for a role before what is known has to do.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why a client does not come in.
#[derive(Debug)]
pub enum Refusal {
    Report(Report),
    /// It went away by itself.
    Gone,
    Connection(connection::Error),
}

pub type Result<T, E = Refusal> = std::result::Result<T, E>;

impl From<Report> for Refusal {
    fn from(report: Report) -> Self {
        Self::Report(report)
    }
}

impl From<connection::Error> for Refusal {
    fn from(error: connection::Error) -> Self {
        Self::Connection(error)
    }
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        Self::Connection(error.into())
    }
}

impl From<Malformed> for Refusal {
    fn from(error: Malformed) -> Self {
        Self::Connection(error.into())
    }
}

/// A proof that failed: what the client is told, and what only the log is.
struct Failed {
    report: Report,
    reason: &'static str,
}

/// Finds out whether a client is the role it says it is.
pub async fn authenticate(
    connection: &mut Connection,
    shared: &Shared,
    visitor: &Visitor<'_>,
) -> Result<Arc<Role>> {
    match prove(connection, shared, visitor).await? {
        Ok(role) => Ok(role),
        Err(Failed { report, reason }) => {
            let Visitor { address, user, database, .. } = visitor;
            info!(client = %address, ?user, ?database, reason, "a log-in failed");
            let delay = shared.throttle.failed(*address, Instant::now());
            let ending = connection.ending();
            // A guesser that goes away meanwhile takes up no place.
            tokio::select! {
                () = sleep(delay) => Err(report.into()),
                () = connection.closed() => Err(Refusal::Gone),
                () = ending => Err(connection::Error::Ending.into()),
            }
        }
    }
}

async fn prove(
    connection: &mut Connection,
    shared: &Shared,
    visitor: &Visitor<'_>,
) -> Result<Result<Arc<Role>, Failed>> {
    // Those of this moment, for all of its log-in.
    let in_force = shared.in_force.get();
    let rules = &in_force.connections.rules;
    let user = visitor.user;
    if rules.name_groups() {
        // A new member is one on all daemons at once.
        find(shared, user, Consistency::Strong).await;
    }
    let snapshot = shared.queries.catalog.snapshot();
    let Some(rule) = rules.find(visitor, |group| snapshot.is_member(user, group)) else {
        return Err(no_entry(visitor, "no pg_hba.conf entry for", NO_RULE).into());
    };
    if rule.method == Method::Reject {
        return Err(no_entry(visitor, "pg_hba.conf rejects connection for", REJECTED).into());
    }
    if let Some(asked) = rule.certificate {
        let Some(certificate) = connection.tls().and_then(|tls| tls.client.as_ref()) else {
            let message = "connection requires a valid client certificate";
            return Err(Report::fatal("28000", message).into());
        };
        let name = certificate.common_name.as_deref();
        if asked == Certificate::NamesUser && name != Some(user) {
            let message = format!("certificate authentication failed for user \"{user}\"");
            let reason = "the certificate names another user";
            return Ok(Err(Failed { report: Report::fatal("28000", message), reason }));
        }
    }
    let asked = connection.guest().map_or(Proof::AsRuled, |guest| guest.proof);
    let by_password =
        rule.method == Method::Scram || (rule.method == Method::Trust && asked == Proof::Password);
    if by_password && asked != Proof::Given {
        let hold = shared.throttle.hold(visitor.address, Instant::now());
        let ending = connection.ending();
        tokio::select! {
            () = sleep(hold) => {}
            () = connection.closed(), if !hold.is_zero() => return Err(Refusal::Gone),
            () = ending => return Err(connection::Error::Ending.into()),
        }
        return password(connection, shared, user).await;
    }
    Ok(find(shared, user, Consistency::Cached).await.ok_or_else(|| Failed {
        report: Report::fatal("28000", format!("role \"{user}\" does not exist")).hint(format!(
            "The first role is {FIRST_ROLE}; as it, CREATE ROLE ... LOGIN makes others."
        )),
        reason: "there is no such role",
    }))
}

/// Asks for the password.
async fn password(
    connection: &mut Connection,
    shared: &Shared,
    user: &str,
) -> Result<Result<Arc<Role>, Failed>> {
    let role = find(shared, user, Consistency::Strong).await;
    let (verifier, reason) = match &role {
        None => (None, "there is no such role"),
        Some(role) => match role.record.password.as_deref().map(Verifier::parse) {
            None => (None, "the role has no password"),
            Some(None) => (None, "the role's verifier is damaged"),
            Some(_) if role.record.valid_until.is_some_and(|until| until <= Utc::now()) => {
                (None, "the password has expired")
            }
            Some(verifier) => (verifier, "the password is wrong"),
        },
    };
    let known = verifier.is_some();
    let mock = || Verifier::mock(user, shared.queries.membership.cluster().as_bytes());
    let proven = scram::exchange(connection, verifier.unwrap_or_else(mock)).await?;
    match role.filter(|_| known && proven) {
        Some(role) => Ok(Ok(role)),
        None => {
            let message = format!("password authentication failed for user \"{user}\"");
            Ok(Err(Failed { report: Report::fatal("28P01", message), reason }))
        }
    }
}

/// A role, as the store has it if that can be asked in time.
async fn find(shared: &Shared, name: &str, consistency: Consistency) -> Option<Arc<Role>> {
    let catalog = &shared.queries.catalog;
    match timeout(PATIENCE, catalog.role(name, consistency)).await {
        Ok(Ok(role)) => Some(role),
        Ok(Err(catalog::Error::NotFound { .. })) => None,
        Ok(Err(_)) | Err(_) => catalog.snapshot().roles.get(name).cloned(),
    }
}

const NO_RULE: &str = "The setting connections.rules of the daemon says who may come in.";
const REJECTED: &str = "A rule in the daemon's setting connections.rules says so.";

/// PostgreSQL's words, for clients that look for them.
fn no_entry(visitor: &Visitor<'_>, what: &str, hint: &str) -> Report {
    let Visitor { address, encrypted, user, database, .. } = visitor;
    let encryption = if *encrypted { "SSL encryption" } else { "no encryption" };
    let message = format!(
        "{what} host \"{}\", user \"{user}\", database \"{database}\", {encryption}",
        address.to_canonical()
    );
    Report::fatal("28000", message).hint(hint)
}
