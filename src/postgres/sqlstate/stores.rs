//! Failures of what keeps things: the coordination store, the catalog.

use super::Report;
use crate::cluster::live;
use crate::{catalog, coordination, telemetry};

pub(super) fn live_code(error: &live::Error) -> &'static str {
    use live::Error as E;
    match error {
        E::Conflict { .. } | E::Busy => "40001",
        E::NoVersion { .. } => "22023",
        E::TooLong(_) => "54000",
        E::Coordination(error) => store_code(error),
        E::BadRecord { .. } => "XX001",
    }
}

pub(super) fn store_code(error: &coordination::Error) -> &'static str {
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
pub(super) fn disk_hint(error: &coordination::Error) -> Option<String> {
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

/// What is to be done where the store has refused a change, or cannot be reached; `None` for other failures.
pub(super) fn store_hint(error: &coordination::Error) -> Option<String> {
    let unavailable = || (store_code(error) == "25006").then(|| UNAVAILABLE.to_owned());
    disk_hint(error).or_else(unavailable)
}

/// What is to be done where ZooKeeper does not answer.
const UNAVAILABLE: &str = "Nothing was changed. Reads go on from what this daemon knows. Try again when ZooKeeper \
                           can be reached, or on another daemon.";

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
        if let Some(hint) = catalog_hint(error) {
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
                 LOGIN PASSWORD '...'. One without a password counts where a host rule (connections.rules) asks \
                 for none.",
            ),
            E::NeedsRole { role, .. } => report.hint(format!(
                "It takes the role {role}. A superuser gives it: GRANT {role} TO ..."
            )),
            E::NotRead(_) => report.hint(
                "Reads without locks go on from what this daemon knows where oribi.consistency is \
                 'cached'. Try again when ZooKeeper can be reached, or on another daemon.",
            ),
            E::TooManyTables { tables, bytes, limit } => report.hint(format!(
                "Nothing was changed. Commit in several transactions, each over some {} of these tables.",
                tables * limit / bytes.max(&1)
            )),
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

/// The same where the catalog is what it was about.
pub(super) fn catalog_hint(error: &catalog::Error) -> Option<String> {
    use catalog::Error as E;
    match error {
        E::Unavailable(error) => Some(disk_hint(error).unwrap_or_else(|| UNAVAILABLE.to_owned())),
        E::NotRead(error) | E::Coordination(error) => disk_hint(error),
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
        E::TooLarge { .. } | E::TooMany { .. } | E::TooManyTables { .. } => "54000",
        E::Unavailable(_) => "25006",
        E::NotRead(_) => "58000",
        E::Unknown(_) => "08007",
        E::Coordination(_) | E::BadRecord { .. } => "XX000",
    }
}
