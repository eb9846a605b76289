//! Which SQLSTATE a failure has, and what a client is told of it: of a statement as a whole and of COPY here,
//! of the rooms below in modules of their own.
//!
//! Codes and their names: PostgreSQL's appendix A, "PostgreSQL Error Codes". What is internal goes
//! to the log as well.

mod engine;
mod files;
mod memory;
mod stores;
mod submitted;

use std::num::NonZeroU32;

use engine::{known, setting_code};
use files::storage_code;
use stores::{catalog_code, catalog_hint, disk_hint, live_code, store_code, store_hint};
pub use submitted::failure;
use submitted::{schedule_code, schedule_hint, submission_code, submission_hint, submitted_hint};

pub use super::report::{Report, untranslated};
use crate::cluster::live;
use crate::query::{self, Stop, copy};
use crate::values::decode;

impl From<query::Error> for Report {
    fn from(error: query::Error) -> Self {
        use query::Error as E;
        let message = error.to_string();
        let code = match error {
            E::At { at, source } => {
                let position = u32::try_from(at + 1).ok().and_then(NonZeroU32::new);
                return Self { position, ..Self::from(*source) };
            }
            E::Stopped(Stop::Cancelled | Stop::TimedOut) => "57014",
            E::Stopped(Stop::ShuttingDown | Stop::Terminated) => {
                return Self::fatal("57P01", message);
            }
            E::NotSupported(_) | E::NotInTransaction(_) | E::Refused(_) => "0A000",
            E::NotLockable { .. } => "0A000",
            E::Instead { instead, .. } => return Self::error("0A000", message).hint(instead),
            E::InsideTransaction(_) | E::TooLate => "25001",
            E::CursorDefinition(_) => "42P11",
            E::NeedsRestart { .. } => {
                let hint = error.hint();
                return Self { hint, ..Self::error("55P02", message) };
            }
            E::Live(error) => {
                let hint = match &error {
                    live::Error::Coordination(error) => store_hint(error),
                    _ => None,
                };
                return Self { hint, ..Self::error(live_code(&error), message) };
            }
            E::NoConstraint(_) => "42704",
            E::NoRoleToTake(_) => "22023",
            E::ArgumentCount { expected, given, .. } => {
                let detail = format!("Expected {expected} parameters but got {given}.");
                return Self::error("42601", message).detail(detail);
            }
            E::ArgumentType { .. } => {
                let hint = "You will need to rewrite or cast the expression.";
                return Self::error("42804", message).hint(hint);
            }
            E::InFailedTransaction => "25P02",
            E::OutsideTransaction(_) => "25P01",
            E::NoSavepoint(_) => "3B001",
            E::NotInFrom(_) => "42P01",
            E::ReadOnly(_) => "25006",
            E::Invalid(_) => "42601",
            E::Twice { .. } => "42701",
            E::DatabaseInUse | E::RoleInSession => "55006",
            E::TooManyStatements(_) => {
                let hint =
                    "The limit is the role's setting oribi.statement_limit, for each daemon.";
                return Self::error("53400", message).hint(hint);
            }
            E::QueueFull { .. } => {
                let hint = "Try again later. system.pools shows what runs and waits; ALTER POOL ... \
                            WITH (concurrency = ..., queue = ...) lets more of it.";
                return Self::error("53400", message).hint(hint);
            }
            E::QueueTimedOut { .. } => {
                let hint = "Try again later. system.queries shows what runs and waits; the limit is \
                            the pool's queue_timeout.";
                return Self::error("53400", message).hint(hint);
            }
            E::ParameterCount { .. } => "08P01",
            E::ResultChanged => "0A000",
            E::Copy(error) => return error.into(),
            E::Catalog(error) => return error.into(),
            E::Submitted(error) => {
                let hint = submitted_hint(&error);
                return Self { hint, ..Self::error(submission_code(&error), message) };
            }
            E::Schedule(error) => {
                let hint = schedule_hint(&error);
                return Self { hint, ..Self::error(schedule_code(&error), message) };
            }
            E::Engine(error) => return error.into(),
            E::Value(error) => return error.into(),
        };
        Self::error(code, message)
    }
}

impl From<copy::Error> for Report {
    fn from(error: copy::Error) -> Self {
        use copy::Error as E;
        let message = error.to_string();
        let (code, hint) = match error {
            E::Data(error) => {
                let hint = error.hint().map(str::to_owned);
                let context = error.context.as_deref().map(Box::from);
                let detail = error.detail().map(Box::from);
                return Self { detail, hint, context, ..Self::error(error.sqlstate(), message) };
            }
            E::Syntax(_) => ("42601", None),
            E::InvalidValue(_) => ("22023", None),
            E::NotSupported(_) => ("0A000", None),
            E::NotFromClient(_) => {
                ("0A000", Some("Anyone can COPY from stdin. psql's \\copy command also works."))
            }
            E::NotAllowed(_) => (
                "42501",
                Some(
                    "Anyone can COPY to stdout or from stdin. psql's \\copy command also works for \
                     anyone.",
                ),
            ),
            E::RowSecurity => ("0A000", Some("Use INSERT statements instead.")),
            E::ToView(_) => (
                "42809",
                Some("To enable copying to a view, provide an INSTEAD OF INSERT trigger."),
            ),
            E::NotToClient(_) => {
                ("0A000", Some("Anyone can COPY to stdout. psql's \\copy command also works."))
            }
            E::View(_) => ("42809", Some("Try the COPY (SELECT ...) TO variant.")),
            E::Twice(_) => ("42701", None),
            E::NoColumn { .. } => ("42703", None),
            E::NotCopied { .. } => ("42P10", None),
        };
        Self { hint: hint.map(str::to_owned), ..Self::error(code, message) }
    }
}

impl From<decode::Error> for Report {
    fn from(error: decode::Error) -> Self {
        let detail = error.detail().map(Box::from);
        Self { detail, ..Self::error(error.sqlstate(), error.to_string()) }
    }
}
