//! Sessions and statistics, and the names of time zones.

use arrow::array::RecordBatch;
use datafusion::error::Result;

use super::super::queries::HIDDEN;
use super::super::relations::{PG_CATALOG, Relation};
use super::super::rows::Rows;
use super::super::{View, relations};
use super::{objects, roles};

/// The names alone: abbreviations and offsets depend on the day.
pub fn time_zones(_: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let mut rows = Rows::new(relation, &["name"]);
    for zone in chrono_tz::TZ_VARIANTS {
        rows.push([zone.name().into()]);
    }
    rows.finish()
}

pub fn sessions(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let mut rows = Rows::new(
        relation,
        &[
            "datid",
            "datname",
            "pid",
            "usesysid",
            "usename",
            "application_name",
            "client_addr",
            "client_port",
            "backend_start",
            "xact_start",
            "query_start",
            "state_change",
            "state",
            "query",
            "backend_type",
        ],
    );
    for session in view.shared.backends.sessions() {
        let database = view.snapshot.databases.get(&session.database);
        let owner = session.user;
        rows.push([
            database.map(|database| database.record.oid).into(),
            session.database.into(),
            session.pid.into(),
            roles::oid(view, &owner).into(),
            owner.as_str().into(),
            session.application_name.into(),
            session.client.map(|client| client.ip().to_string()).into(),
            session.client.map_or(-1, |client| i32::from(client.port())).into(),
            session.connected.into(),
            session.transaction_started.into(),
            session.query_started.into(),
            session.state_changed.into(),
            session.state.into(),
            match view.may_look_at(&owner) {
                true => session.query.into(),
                false => HIDDEN.into(),
            },
            "client backend".into(),
        ]);
    }
    rows.finish()
}

/// How clients' connections are encrypted; those of others as far as they are one's business.
pub fn encryption(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let names = ["pid", "ssl", "version", "cipher", "bits", "client_dn", "issuer_dn"];
    let mut rows = Rows::new(relation, &names);
    let sessions = view.shared.backends.sessions();
    for session in sessions.into_iter().filter(|session| view.may_look_at(&session.user)) {
        let tls = session.tls.as_deref();
        let client = tls.and_then(|tls| tls.client.as_ref());
        rows.push([
            session.pid.into(),
            tls.is_some().into(),
            tls.map(|tls| tls.version).into(),
            tls.map(|tls| tls.cipher).into(),
            tls.map(|tls| tls.bits).into(),
            client.map(|client| &client.subject).into(),
            client.map(|client| &client.issuer).into(),
        ]);
    }
    rows.finish()
}

pub fn databases(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let mut rows = Rows::new(relation, &["datid", "datname", "numbackends"]);
    let sessions = view.shared.backends.sessions();
    for (name, database) in &view.snapshot.databases {
        let count = sessions.iter().filter(|session| session.database == *name).count();
        let count = i32::try_from(count).unwrap_or(i32::MAX);
        rows.push([database.record.oid.into(), name.into(), count.into()]);
    }
    rows.finish()
}

/// Tables without their figures: nobody counts.
pub fn tables(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let mut rows = Rows::new(relation, &["relid", "schemaname", "relname"]);
    let information_schema = relations::schema_oid("information_schema");
    for item in objects::relation_items(view).into_iter().filter(|item| !item.is_view()) {
        let system =
            item.schema_oid() == PG_CATALOG || Some(item.schema_oid()) == information_schema;
        let wanted = match relation.name {
            "pg_stat_user_tables" => !system,
            "pg_stat_sys_tables" => system,
            _ => true,
        };
        if wanted {
            rows.push([item.oid().into(), item.schema().into(), item.name().into()]);
        }
    }
    rows.finish()
}
