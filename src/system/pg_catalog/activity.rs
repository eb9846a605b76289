//! Sessions and statistics, and the names of time zones.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use datafusion::error::Result;

use super::super::queries::HIDDEN;
use super::super::relations::{PG_CATALOG, Relation};
use super::super::rows::Rows;
use super::super::{QueryRow, SessionRow, UNREACHABLE, View, relations};
use super::{objects, roles};
use crate::query::history::is_final;
use crate::query::registry::QUEUED;
use crate::query::sessions::SHOWN_TEXT;

/// The names alone: abbreviations and offsets depend on the day.
pub fn time_zones(_: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let mut rows = Rows::new(relation, &["name"]);
    for zone in chrono_tz::TZ_VARIANTS {
        rows.push([zone.name().into()]);
    }
    rows.finish()
}

/// The clients of this daemon, and of the others those that run a statement.
pub async fn sessions(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
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
            "wait_event_type",
            "wait_event",
            "state",
            "query",
            "backend_type",
        ],
    );
    let own = view.shared.backends.sessions();
    let elsewhere = elsewhere(view).await;
    for session in own.into_iter().chain(elsewhere) {
        let database = view.snapshot.databases.get(&session.database);
        let session = match view.may_look_at(&session.user, session.owner) {
            true => session,
            false => hidden(session),
        };
        let owner = session.user;
        // Who runs nothing waits for the client's next word.
        let (event_type, event) = match session.state {
            // For what PostgreSQL itself has no name.
            _ if session.queued => (Some("Extension"), Some("PoolQueue")),
            None | Some("active") => (None, None),
            Some(_) => (Some("Client"), Some("ClientRead")),
        };
        rows.push([
            database.map(|database| database.record.oid).into(),
            session.database.into(),
            session.pid.into(),
            roles::oid(view, &owner).into(),
            owner.as_str().into(),
            session.application_name.into(),
            session.client.map(|client| client.ip().to_canonical().to_string()).into(),
            session.client.map(|client| i32::from(client.port())).into(),
            session.connected.into(),
            session.transaction_started.into(),
            session.query_started.into(),
            session.state_changed.into(),
            event_type.into(),
            event.into(),
            session.state.into(),
            session.query.into(),
            session.state.map(|_| "client backend").into(),
        ]);
    }
    rows.finish()
}

/// What everybody may know of a session, as in PostgreSQL.
fn hidden(session: SessionRow) -> SessionRow {
    let SessionRow { pid, user, database, application_name, .. } = session;
    let query = HIDDEN.to_owned();
    SessionRow { pid, user, database, application_name, query, ..SessionRow::default() }
}

/// Sessions of other daemons, as far as their running statements tell of them.
async fn elsewhere(view: &View<'_>) -> Vec<SessionRow> {
    let cluster = &view.shared.cluster;
    let daemons = cluster.daemons();
    if daemons.iter().all(|daemon| daemon.local) {
        return Vec::new();
    }
    let local =
        |query: &QueryRow| daemons.iter().any(|daemon| daemon.local && daemon.id == query.daemon);
    // Ids grow with time: of several statements of a session the last one counts.
    let mut by_pid = BTreeMap::new();
    let others = cluster.queries(false).await.0.into_iter();
    let lives = |query: &QueryRow| !is_final(&query.state) && query.state != UNREACHABLE;
    let others = others.filter(|query| !local(query) && lives(query));
    for query in others {
        let Some(pid) = query.pid else { continue };
        let mut text = query.sql;
        text.truncate(text.floor_char_boundary(SHOWN_TEXT));
        let row = SessionRow {
            pid,
            user: query.user,
            owner: query.owner,
            database: query.database,
            transaction_started: query.started,
            query_started: query.started,
            state_changed: query.started,
            state: Some("active"),
            queued: query.state == QUEUED,
            query: text,
            ..SessionRow::default()
        };
        by_pid.insert(pid, row);
    }
    by_pid.into_values().collect()
}

/// How clients' connections are encrypted; those of others as far as they are one's business.
pub fn encryption(view: &View<'_>, relation: &'static Relation) -> Result<RecordBatch> {
    let names = ["pid", "ssl", "version", "cipher", "bits", "client_dn", "issuer_dn"];
    let mut rows = Rows::new(relation, &names);
    let sessions = view.shared.backends.sessions();
    for session in
        sessions.into_iter().filter(|session| view.may_look_at(&session.user, session.owner))
    {
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
