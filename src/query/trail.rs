//! What the audit trail says of changes of the catalog.

use super::ddl::Ddl;
use super::life::Session;
use crate::audit::{Event, Kind};

impl Session {
    /// Takes down a change that was made.
    pub(super) fn record(&self, ddl: &Ddl) {
        let audit = &self.queries().audit;
        if !audit.is_on() {
            return;
        }
        let entry = self.entry();
        let (kind, object) = subject(ddl);
        audit.record(Event {
            tls: entry.tls.is_some(),
            statement: Some(ddl.tag()),
            object: Some(&object),
            ..Event::new(kind, self.user(), self.database(), Some(entry.client))
                .logged_in_as(&entry.user)
        });
    }
}

/// What a change is about, by name.
fn subject(ddl: &Ddl) -> (Kind, String) {
    let object = match ddl {
        Ddl::Security(change) => return change.subject(),
        Ddl::CreateDatabase { name, .. }
        | Ddl::DropDatabase { name, .. }
        | Ddl::CreateSchema { name, .. } => name.clone(),
        Ddl::RenameDatabase { name, new } => format!("{name} TO {new}"),
        Ddl::DropSchema { names, .. } => names.join(", "),
        Ddl::CreateExternal(create) => create.name().to_string(),
        Ddl::CreateTable(create) => create.name.to_string(),
        Ddl::Adopt { name, .. } => name.to_string(),
        Ddl::AlterTable(alter) => alter.name.to_string(),
        Ddl::CreateView { name, .. } | Ddl::Comment { name, .. } => name.to_string(),
        Ddl::DropTables { names, .. } => list(names),
        Ddl::RenameTable { name, new, .. } => format!("{name} TO {new}"),
    };
    (Kind::Ddl, object)
}

/// Names separated by commas.
pub(super) fn list<T: ToString>(names: &[T]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
