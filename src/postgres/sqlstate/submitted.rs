//! Failures of submitted queries and schedules, and how their records tell of failures.

use datafusion::error::DataFusionError;

use super::{Report, catalog_code, catalog_hint, setting_code, store_code, store_hint};
use crate::engine;
use crate::query::submitted::{self, Failure};
use crate::query::{self, copy, schedules};

pub(super) fn submission_code(error: &submitted::Error) -> &'static str {
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
pub(super) fn submission_hint(error: &engine::Error) -> Option<String> {
    let (engine::Error::Plan(error) | engine::Error::Execution(error)) = error else { return None };
    let DataFusionError::External(inner) = error.find_root() else { return None };
    match inner.downcast_ref::<schedules::Error>() {
        Some(error) => schedule_hint(error),
        None => submitted_hint(inner.downcast_ref::<submitted::Error>()?),
    }
}

pub(super) fn submitted_hint(error: &submitted::Error) -> Option<String> {
    match error {
        submitted::Error::Store(error) => store_hint(error),
        submitted::Error::Catalog(error) => catalog_hint(error),
        error => error.hint().map(str::to_owned),
    }
}

pub(super) fn schedule_hint(error: &schedules::Error) -> Option<String> {
    match error {
        schedules::Error::Query(error) => submitted_hint(error),
        schedules::Error::Store(error) => store_hint(error),
        schedules::Error::Catalog(error) => catalog_hint(error),
        _ => None,
    }
}

pub(super) fn schedule_code(error: &schedules::Error) -> &'static str {
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
