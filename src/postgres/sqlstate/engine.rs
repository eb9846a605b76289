//! Failures of the engine, and what of our own rooms is found inside them.

use arrow::error::ArrowError;
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;

use super::memory::out_of_memory;
use super::{
    Report, catalog_code, disk_hint, schedule_code, storage_code, store_code, submission_code,
    submission_hint,
};
use crate::engine::patterns::BadPattern;
use crate::engine::{self, Misplaced, notes, settings};
use crate::postgres::sayings::told_by;
use crate::query::{schedules, submitted};
use crate::values::{armor, decode, encode, jsonb, template};
use crate::{catalog, coordination, storage, telemetry};

/// What is to be done where only ZooKeeper has what is asked for.
const OUT_OF_REACH: &str = "Tables can be read meanwhile. Try again when ZooKeeper can be reached, or on \
                            another daemon; oribi doctor tells what is wrong.";

impl From<engine::Error> for Report {
    fn from(error: engine::Error) -> Self {
        use engine::Error as E;
        let message = error.to_string();
        let detail = error.detail().map(Box::from);
        let of_storage = error.of_storage();
        let meant = (error.hint())
            .or_else(|| submission_hint(&error))
            .or_else(|| Self::from(of_storage?).hint);
        let file = of_storage.and_then(storage::Error::file).map(Box::from);
        let own = of_storage.is_some_and(storage::Error::is_of_daemon);
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
                let report = Self::from(&error);
                if error.is_of_memory() {
                    return report;
                }
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
            return Self { file, ..out_of_memory(&message) };
        }
        if code == "53400" && message.contains("max_temp_directory_size") {
            let hint = "Raise engine.spill_limit, or engine.memory_limit so that less is spilled, or ask for \
                        less at once.";
            let message =
                "the statement's temporary files are larger than engine.spill_limit allows";
            return Self::error(code, message).hint(hint);
        }
        if code == "XX000" {
            let message = telemetry::discreet(&message);
            tracing::error!(%message, "a statement failed for a reason that is not its own");
        }
        Self { hint: meant, detail, file, own, ..Self::error(code, message) }
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

pub(super) fn setting_code(error: &settings::Error) -> &'static str {
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
            SchemaError::FieldNotFound { field, .. } if field.name.starts_with('\u{2}') => "0A000",
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
            _ => told_by(&error.to_string()).unwrap_or("58030"),
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
        ArrowError::ArithmeticOverflow(text) => told_by(text).unwrap_or("22003"),
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
        ArrowError::IoError(text, _) => return told_by(text),
        ArrowError::ExternalError(inner) => return external(inner.as_ref()),
        _ => return None,
    })
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
