//! Which SQLSTATE a failure has, and what a client is told of it.
//!
//! Codes and their names: PostgreSQL's appendix A, "PostgreSQL Error Codes". What is internal goes
//! to the log as well.

use std::num::NonZeroU32;

use arrow::error::ArrowError;
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;

use super::files::storage_code;
pub use super::report::{Report, untranslated};
use super::sayings::told_by;
use crate::cluster::live;
use crate::engine::patterns::BadPattern;
use crate::engine::{self, Misplaced, notes, settings};
use crate::query::schedules;
use crate::query::submitted::{self, Failure};
use crate::query::{self, Stop, copy};
use crate::values::{armor, decode, encode, jsonb, template};
use crate::{catalog, coordination, storage, telemetry};

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
                    live::Error::Coordination(error) => disk_hint(error),
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
            E::Schedule(error) => schedule_code(&error),
            E::Engine(error) => return error.into(),
            E::Value(error) => return error.into(),
        };
        Self::error(code, message)
    }
}

fn live_code(error: &live::Error) -> &'static str {
    use live::Error as E;
    match error {
        E::Conflict { .. } | E::Busy => "40001",
        E::NoVersion { .. } => "22023",
        E::TooLong(_) => "54000",
        E::Coordination(error) => store_code(error),
        E::BadRecord { .. } => "XX001",
    }
}

fn store_code(error: &coordination::Error) -> &'static str {
    use coordination::Error as E;
    match error.root() {
        E::Ambiguous { .. } => "08007",
        E::TooLarge { .. } => "54000",
        E::Denied { .. } => "42501",
        E::Unwritable { full: true, .. } => "53100",
        E::Unwritable { full: false, .. } => "58030",
        error if error.is_unavailable() => "25006",
        _ => "58000",
    }
}

/// What is to be done where the embedded store's disk takes nothing; `None` for other failures.
fn disk_hint(error: &coordination::Error) -> Option<String> {
    let coordination::Error::Unwritable { place, full, .. } = error.root() else { return None };
    let what = match full {
        true => format!("Make room on the disk that holds {place}"),
        false => format!("See to the disk that holds {place}"),
    };
    Some(format!(
        "Nothing was changed, and tables can be read meanwhile. {what}: this daemon writes again by itself \
         then, without a restart."
    ))
}

impl From<copy::Error> for Report {
    fn from(error: copy::Error) -> Self {
        use copy::Error as E;
        let message = error.to_string();
        let (code, hint) = match error {
            E::Data(error) => {
                let hint = error.hint().map(str::to_owned);
                let context = error.context.as_deref().map(Box::from);
                return Self { hint, context, ..Self::error(error.sqlstate(), message) };
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

/// What is to be done where only ZooKeeper has what is asked for.
const OUT_OF_REACH: &str = "Tables can be read meanwhile. Try again when ZooKeeper can be reached, or on \
                            another daemon; oribi doctor tells what is wrong.";

/// What frees a role.
const REASSIGN: &str = "Use REASSIGN OWNED BY ... TO ... for what it owns, and DROP OWNED BY ... for \
                        what was granted to it.";

impl From<catalog::Error> for Report {
    fn from(error: catalog::Error) -> Self {
        Self::from(&error)
    }
}

impl From<&catalog::Error> for Report {
    fn from(error: &catalog::Error) -> Self {
        use catalog::Error as E;
        let report = Self::error(catalog_code(error), error.to_string());
        if let Some(hint) = catalog_disk_hint(error) {
            return report.hint(hint);
        }
        match error {
            E::NotEmpty { .. } => {
                report.hint("Use DROP ... CASCADE to drop the tables and views too.")
            }
            E::DependentPrivileges => report.hint("Use CASCADE to revoke them too."),
            E::RoleInUse { schedules: false, .. } => report.hint(REASSIGN),
            E::RoleInUse { schedules: true, .. } => {
                report.hint(format!("{REASSIGN} oribi.unschedule('<name>') removes a schedule."))
            }
            E::LastSuperuser { .. } => report.hint(
                "Nobody could make a superuser any more. Make another one first: CREATE ROLE ... SUPERUSER \
                 LOGIN PASSWORD '...'.",
            ),
            E::NeedsRole { role, .. } => report.hint(format!(
                "It takes the role {role}. A superuser gives it: GRANT {role} TO ..."
            )),
            E::Unavailable(_) => report.hint(
                "Nothing was changed. Reads go on from what this daemon knows. Try again when ZooKeeper \
                 can be reached, or on another daemon.",
            ),
            E::NotRead(_) => report.hint(
                "Reads without locks go on from what this daemon knows where oribi.consistency is \
                 'cached'. Try again when ZooKeeper can be reached, or on another daemon.",
            ),
            E::Unknown(_) => report.hint("Look whether the change is there before you repeat it."),
            E::Coordination(_) | E::BadRecord { .. } => {
                let message = telemetry::discreet(&report.message);
                tracing::error!(%message, "the catalog could not be used");
                report
            }
            _ => report,
        }
    }
}

fn catalog_disk_hint(error: &catalog::Error) -> Option<String> {
    use catalog::Error as E;
    match error {
        E::Unavailable(error) | E::NotRead(error) | E::Coordination(error) => disk_hint(error),
        _ => None,
    }
}

pub(super) fn catalog_code(error: &catalog::Error) -> &'static str {
    use catalog::{Error as E, ObjectKind as Kind};
    match error {
        E::Unavailable(source) | E::NotRead(source) | E::Coordination(source)
            if disk_hint(source).is_some() =>
        {
            store_code(source)
        }
        E::NotFound { kind, .. } => match kind {
            Kind::Database => "3D000",
            Kind::Schema => "3F000",
            Kind::Column => "42703",
            Kind::Role | Kind::Policy | Kind::Pool => "42704",
            Kind::Table | Kind::View => "42P01",
        },
        E::AlreadyExists { kind, .. } => match kind {
            Kind::Database => "42P04",
            Kind::Schema => "42P06",
            Kind::Column => "42701",
            Kind::Role | Kind::Policy | Kind::Pool => "42710",
            Kind::Table | Kind::View => "42P07",
        },
        E::AlreadyThere(_) => "42710",
        E::WrongKind { .. } => "42809",
        E::Conflict { .. } => "40001",
        E::Denied { .. } | E::NeedsRole { .. } | E::NotOwner { .. } | E::Forbidden(_) => "42501",
        E::NotEmpty { .. } | E::RoleInUse { .. } | E::DependentPrivileges | E::InPolicy { .. } => {
            "2BP01"
        }
        E::LastSuperuser { .. } => "55006",
        E::InvalidGrant(_) => "0LP01",
        E::UnknownPrivilege(_) => "22023",
        E::Reserved(_) | E::InvalidName(_) => "42939",
        E::NameTooLong { .. } => "42622",
        E::TooLarge { .. } | E::TooMany { .. } => "54000",
        E::Unavailable(_) => "25006",
        E::NotRead(_) => "58000",
        E::Unknown(_) => "08007",
        E::Coordination(_) | E::BadRecord { .. } => "XX000",
    }
}

impl From<engine::Error> for Report {
    fn from(error: engine::Error) -> Self {
        use engine::Error as E;
        let message = error.to_string();
        let detail = error.detail().map(Box::from);
        let meant = error.hint().or_else(|| submission_hint(&error));
        let file = error.file().map(Box::from);
        let code = match error {
            E::Syntax(_) | E::SyntaxAt { .. } => "42601",
            E::TooComplex { .. } => {
                let hint = "Alternatives may be written as a list, x IN (1, 2, 3), or as a table.";
                return Self::error("54001", message).hint(hint);
            }
            E::TooDeep(_) => "54001",
            E::NoParameter(_) => "42P02",
            E::FoundTwice => {
                let hint = "Ensure that not more than one source row matches any one target row.";
                return Self::error("21000", message).hint(hint);
            }
            E::Notes(notes::Error::Reserved(_)) => "42939",
            E::Notes(notes::Error::Full(_)) => "54000",
            E::Notes(_) => "22023",
            E::Settings(error) => {
                let detail = error.detail().map(Box::from);
                return Self { detail, ..Self::error(setting_code(&error), message) };
            }
            E::NoFunction(_) => {
                let hint = "No function matches the given name. Names of functions are in lower \
                            case.";
                return Self::error("42883", message).hint(hint);
            }
            // As PostgreSQL has it where a function that gives rows may not stand.
            E::GivesRows(name) => {
                let hint = format!("It stands in FROM, as a table does: SELECT * FROM {name}(...)");
                return Self::error("0A000", message).hint(hint);
            }
            E::NotAssignable { .. } => {
                let hint = "You will need to rewrite or cast the expression.";
                return Self::error("42804", message).hint(hint);
            }
            E::NoType(_) => "42704",
            E::Misplaced(misplaced) => misplaced_code(&misplaced),
            E::ViewTooDeep { .. } => "42P17",
            E::Catalog(error) => return error.into(),
            E::Storage(error) => {
                let report = Self::from(error);
                let detail = detail.or_else(|| report.detail.clone());
                return Self { message, detail, ..report };
            }
            E::Coordination(coordination::Error::Denied { .. }) => "42501",
            E::Coordination(error) if disk_hint(&error).is_some() => {
                let report = Self::error(store_code(&error), message);
                return Self { hint: disk_hint(&error), ..report };
            }
            E::Coordination(error) if error.is_unavailable() => {
                return Self::error("58000", message).hint(OUT_OF_REACH);
            }
            E::Coordination(_) => "58000",
            E::OverBudget { setting, .. } => {
                let hint = format!(
                    "Ask for less: path = '...', parent = '...', path LIKE '/.../%' and depth <= ... \
                     are looked up and not searched for, and data is read only where it is asked \
                     for. SET {setting} allows more."
                );
                return Self::error("53400", message).hint(hint);
            }
            E::Plan(error) => planning(&error),
            E::Execution(error) => execution(&error),
            E::Stopping => return Self::fatal("57P01", message),
            E::WorkerLost { .. } => {
                let hint = "Run the statement again: it will run without that worker. A larger \
                            distribution.spool lets the daemon do so itself for larger results.";
                return Self::error("58000", message).hint(hint);
            }
            E::Start(_) => "XX000",
            E::Panic(text) => {
                let text = telemetry::discreet(&text);
                tracing::error!(panic = text, "a statement met a defect");
                return Self::error("XX000", "the statement met a defect and was stopped")
                    .hint("The daemon's log has more. Other statements are not affected.");
            }
        };
        if code == "53200" {
            let hint = "Raise engine.memory_limit, or the memory of the role's pool, or ask for less \
                        at once.";
            return Self::error(code, first_line(&message)).hint(hint);
        }
        if code == "XX000" {
            let message = telemetry::discreet(&message);
            tracing::error!(%message, "a statement failed for a reason that is not its own");
        }
        Self { hint: meant, detail, file, ..Self::error(code, message) }
    }
}

fn misplaced_code(misplaced: &Misplaced) -> &'static str {
    match misplaced {
        Misplaced::Aggregate(_) => "42803",
        Misplaced::Window(_) => "42P20",
        Misplaced::Rows(_) | Misplaced::RowsInAggregate => "0A000",
        Misplaced::Kind(_) => "42809",
    }
}

fn setting_code(error: &settings::Error) -> &'static str {
    use settings::Error as E;
    match error {
        E::Unknown(_) => "42704",
        E::Reserved(_) => "42602",
        E::NoName => "22004",
        E::Denied(_) => "42501",
        E::ReadOnly(_) | E::NeedsRestart(_) | E::OfSession(_) => "55P02",
        E::Invalid { .. } => "22023",
    }
}

fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().to_owned()
}

/// A failure before the first row. What has no better code is a statement that does not fit.
fn planning(error: &DataFusionError) -> &'static str {
    // Rules that settle types put their name around what they refuse.
    let mut wrapped = error;
    let mut types = false;
    while let DataFusionError::Context(rule, inner) = wrapped {
        types |= rule == "type_coercion";
        wrapped = inner;
    }
    let root = error.find_root();
    match (known(root).or_else(|| told_by(&root.message())), types) {
        (Some(code), _) => code,
        (None, true) => "42804",
        (None, false) => "42000",
    }
}

fn execution(error: &DataFusionError) -> &'static str {
    let root = error.find_root();
    let failure = || storage::failure(root).map(|failure| storage_code(&failure));
    known(root).or_else(|| told_by(&root.message())).or_else(failure).unwrap_or("XX000")
}

/// Failures whose kind the engine tells.
pub(super) fn known(error: &DataFusionError) -> Option<&'static str> {
    Some(match error {
        DataFusionError::SQL(_, _) => "42601",
        DataFusionError::NotImplemented(text) => told_by(text).unwrap_or("0A000"),
        DataFusionError::SchemaError(inner, _) => match inner.as_ref() {
            SchemaError::FieldNotFound { field, valid_fields } => {
                let known = |relation| {
                    valid_fields.iter().any(|valid| valid.relation.as_ref() == Some(relation))
                };
                match &field.relation {
                    Some(relation) if !known(relation) => "42P01",
                    _ => "42703",
                }
            }
            SchemaError::AmbiguousReference { .. } => "42702",
            // Two relations of one name.
            SchemaError::DuplicateQualifiedField { .. } => "42712",
            SchemaError::DuplicateUnqualifiedField { .. } => "42701",
        },
        DataFusionError::ResourcesExhausted(_) => "53200",
        DataFusionError::ArrowError(inner, _) => return arrow_code(inner),
        DataFusionError::Configuration(_) => "22023",
        DataFusionError::IoError(error) => match error.kind() {
            std::io::ErrorKind::StorageFull => "53100",
            _ => "58030",
        },
        DataFusionError::Internal(text) => told_by(text).unwrap_or("XX000"),
        DataFusionError::External(inner) => return external(inner.as_ref()),
        DataFusionError::Execution(text) => told_by(text).unwrap_or("22000"),
        _ => return None,
    })
}

fn arrow_code(error: &ArrowError) -> Option<&'static str> {
    Some(match error {
        ArrowError::DivideByZero => "22012",
        ArrowError::ArithmeticOverflow(_) => "22003",
        ArrowError::CastError(text) | ArrowError::InvalidArgumentError(text)
            if [
                "Can't cast value",
                "is out of range",
                " to store in a Decimal",
                "Overflowing on ",
            ]
            .iter()
            .any(|saying| text.contains(saying)) =>
        {
            "22003"
        }
        ArrowError::CastError(_) | ArrowError::ParseError(_) => "22P02",
        ArrowError::ComputeError(text) => {
            let bad = BadPattern::of_text(text).map(|bad| bad.sqlstate());
            bad.or_else(|| told_by(text)).unwrap_or("22000")
        }
        ArrowError::InvalidArgumentError(text) => told_by(text).unwrap_or("22000"),
        ArrowError::NotYetImplemented(_) => "0A000",
        ArrowError::MemoryError(_) => "53200",
        ArrowError::ExternalError(inner) => return external(inner.as_ref()),
        _ => return None,
    })
}

fn submission_code(error: &submitted::Error) -> &'static str {
    use submitted::Error as E;
    match error {
        E::Store(error) => store_code(error),
        E::Catalog(error) => catalog_code(error),
        E::Full(_) => "53400",
        E::TooLong(_) | E::TooLarge(_) => "54000",
        E::TooManyColumns(_) => "54011",
        E::NotConstant => "0A000",
        E::InDoubt(_) => "08007",
        E::Busy(_) => "40001",
        E::Unknown(_) => "42704",
        E::Denied(_) => "42501",
        E::ReadOnly(_) => "25006",
        E::Twin(_) => "42710",
        E::Options(_) => "22023",
        E::NoResult { .. } => "55000",
        E::NotOne => "42601",
        E::Text(error) => text_code(error),
        E::NoWork => "0A000",
        E::Setting(error) => setting_code(error),
        E::Record { .. } => "XX001",
    }
}

/// Of a text that is not even planned.
fn text_code(error: &query::Error) -> &'static str {
    match error {
        query::Error::Engine(engine::Error::TooDeep(_)) => "54001",
        query::Error::NotSupported(_) | query::Error::Instead { .. } | query::Error::Refused(_) => {
            "0A000"
        }
        query::Error::Copy(copy::Error::InvalidValue(_)) => "22023",
        query::Error::Copy(copy::Error::NotSupported(_)) => "0A000",
        _ => "42601",
    }
}

/// What is to be done about a submission that was refused where functions are called.
fn submission_hint(error: &engine::Error) -> Option<String> {
    let (engine::Error::Plan(error) | engine::Error::Execution(error)) = error else { return None };
    let DataFusionError::External(inner) = error.find_root() else { return None };
    match inner.downcast_ref::<schedules::Error>() {
        Some(schedules::Error::Query(error)) => submitted_hint(error),
        Some(schedules::Error::Store(error)) => disk_hint(error),
        Some(schedules::Error::Catalog(error)) => catalog_disk_hint(error),
        Some(_) => None,
        None => submitted_hint(inner.downcast_ref::<submitted::Error>()?),
    }
}

fn submitted_hint(error: &submitted::Error) -> Option<String> {
    match error {
        submitted::Error::Store(error) => disk_hint(error),
        submitted::Error::Catalog(error) => catalog_disk_hint(error),
        error => error.hint().map(str::to_owned),
    }
}

fn schedule_code(error: &schedules::Error) -> &'static str {
    use schedules::Error as E;
    match error {
        E::Query(error) => submission_code(error),
        E::Store(error) => store_code(error),
        E::Catalog(error) => catalog_code(error),
        E::Full => "53400",
        E::Unknown(_) => "42704",
        E::Denied(_) => "42501",
        E::Name | E::Cron { .. } | E::Never(_) | E::TimeZone(_) | E::Options(_) => "22023",
        E::Busy(_) => "40001",
        E::Record { .. } => "XX001",
    }
}

/// Our own rooms' errors, found inside the engine's.
fn external(error: &(dyn std::error::Error + Send + Sync + 'static)) -> Option<&'static str> {
    if let Some(error) = error.downcast_ref::<encode::Error>() {
        return Some(error.sqlstate());
    }
    if let Some(error) = error.downcast_ref::<decode::Error>() {
        return Some(error.sqlstate());
    }
    if let Some(error) = error.downcast_ref::<armor::Error>() {
        return Some(error.sqlstate());
    }
    if let Some(error) = error.downcast_ref::<jsonb::Error>() {
        return Some(error.sqlstate());
    }
    if let Some(error) = error.downcast_ref::<engine::JsonError>() {
        return Some(error.sqlstate());
    }
    if let Some(error) = error.downcast_ref::<template::Error>() {
        return Some(error.sqlstate());
    }
    if let Some(error) = error.downcast_ref::<catalog::Error>() {
        return Some(catalog_code(error));
    }
    // Where several parts of a statement were told of it, nobody has it for their own.
    if let Some(error) = error.downcast_ref::<storage::Error>() {
        return Some(storage_code(error));
    }
    if error.is::<engine::TooLarge>() {
        return Some("54000");
    }
    if let Some(error) = error.downcast_ref::<submitted::Error>() {
        return Some(submission_code(error));
    }
    if let Some(error) = error.downcast_ref::<schedules::Error>() {
        return Some(schedule_code(error));
    }
    if let Some(bad) = BadPattern::of(error) {
        return Some(bad.sqlstate());
    }
    error.downcast_ref::<DataFusionError>().and_then(|error| known(error.find_root()))
}

/// An error as the record of a submitted query has it. Others may read that than those who may know where
/// tables keep their files.
pub fn failure(error: crate::query::Error) -> Failure {
    let mut report = Report::from(error);
    if let Some(file) = report.file.take() {
        tracing::info!(code = report.code, %file, "a submitted query failed on a file");
        let told = report.message.clone();
        report.hide(&file);
        if report.message != told {
            let hint = report.hint.take().map(|hint| hint + " ").unwrap_or_default();
            report.hint = Some(hint + "The log of the daemon that ran the query names the file.");
        }
    }
    let Report { code, message, hint, .. } = report;
    Failure { sqlstate: code.to_owned(), message, hint }
}

impl From<decode::Error> for Report {
    fn from(error: decode::Error) -> Self {
        Self::error(error.sqlstate(), error.to_string())
    }
}
