//! System tables as the engine sees them: their rows are made at each scan.

use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;

use super::relations::Relation;
use super::rows::Rows;
use super::{
    Shared, View, coordination, daemons, everywhere, history, information_schema, maintenance,
    pg_catalog, queries, roles, schedules, settings, tables, zk,
};
use crate::engine::system::SessionInfo;

/// How a relation's rows are made.
#[derive(Clone, Copy)]
pub enum Source {
    Rows(fn(&View<'_>, &'static Relation) -> Result<RecordBatch>),
    /// What each daemon has a part of; only for members of this role if one is given.
    Everywhere(Option<&'static str>),
    /// The statements of all daemons, which have to be asked.
    Queries,
    /// The statements that have ended.
    History,
    /// Their snapshots and partitions, which are in such files, too.
    Snapshots,
    Partitions,
    /// ZooKeeper's tree, as far as it is wanted.
    Nodes,
    /// The ensemble's members, which have to be asked.
    Servers,
    /// What daemons keep in the coordination store, which has to be gone through.
    Kept,
    /// What all daemons have done for tables, which the store has.
    Maintenance,
    /// What the store has of schedules.
    Schedules,
    /// Live settings, and who runs them: in the store.
    Settings,
    /// The clients of this daemon, and the statements of the others.
    Sessions,
    /// Tables, whose metadata files have to be read.
    Tables,
    Nothing,
}

struct Scan {
    relation: &'static Relation,
    source: Source,
    shared: Arc<Shared>,
}

pub fn provider(
    relation: &'static Relation,
    shared: Arc<Shared>,
) -> Result<Arc<dyn TableProvider>> {
    let source = source(relation);
    if let Source::Nodes = source {
        return Ok(Arc::new(zk::Nodes { relation, shared }));
    }
    let scan = Scan { relation, source, shared };
    Ok(Arc::new(StreamingTable::try_new(relation.arrow.clone(), vec![Arc::new(scan)])?))
}

fn source(relation: &Relation) -> Source {
    match (relation.schema, relation.name) {
        ("pg_catalog", name) => pg_catalog::source(name),
        ("information_schema", name) => information_schema::source(name),
        ("zk", "nodes") => Source::Nodes,
        ("zk", "servers") => Source::Servers,
        (_, "coordination") => Source::Everywhere(Some(zk::READERS)),
        (_, "coordination_nodes") => Source::Kept,
        (_, "daemons") => Source::Rows(daemons::rows),
        (_, "queries") => Source::Queries,
        (_, "query_history") => Source::History,
        (_, "caches" | "metrics") => Source::Everywhere(Some("pg_read_all_stats")),
        (_, "roles") => Source::Rows(roles::rows),
        (_, "snapshots") => Source::Snapshots,
        (_, "partitions") => Source::Partitions,
        (_, "pools") => Source::Everywhere(None),
        (_, "tables") => Source::Tables,
        (_, "maintenance") => Source::Maintenance,
        (_, "schedules") => Source::Schedules,
        (_, "settings") => Source::Everywhere(Some("pg_read_all_settings")),
        (_, "settings_applied" | "settings_history") => Source::Settings,
        _ => Source::Nothing,
    }
}

/// Whether a relation never has rows, whatever happens: there are no indexes, constraints, triggers
/// and so on here. Who asks for them can be told at once.
pub fn is_always_empty(relation: &Relation) -> bool {
    matches!(source(relation), Source::Nothing)
}

impl PartitionStream for Scan {
    fn schema(&self) -> &SchemaRef {
        &self.relation.arrow
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (relation, source, shared) = (self.relation, self.source, self.shared.clone());
        let batch = async move {
            match source {
                Source::Nothing | Source::Nodes => Rows::new(relation, &[]).finish(),
                Source::Everywhere(role) => {
                    let session = SessionInfo::of(context.session_config().options())?;
                    let view = View::new(session, &shared);
                    role.map_or(Ok(()), |role| view.require(role, relation))?;
                    everywhere::rows(&view, relation).await
                }
                Source::Servers => {
                    let session = SessionInfo::of(context.session_config().options())?;
                    zk::servers(&View::new(session, &shared), relation).await
                }
                Source::Kept => {
                    let session = SessionInfo::of(context.session_config().options())?;
                    coordination::nodes(&View::new(session, &shared), relation).await
                }
                Source::Queries => {
                    let session = SessionInfo::of(context.session_config().options())?;
                    queries::rows(&View::new(session, &shared), relation).await
                }
                Source::History => {
                    let session = SessionInfo::of(context.session_config().options())?;
                    history::rows(&View::new(session, &shared), relation).await
                }
                Source::Maintenance => {
                    let session = SessionInfo::of(context.session_config().options())?;
                    maintenance::rows(&View::new(session, &shared), relation).await
                }
                Source::Schedules => {
                    let session = SessionInfo::of(context.session_config().options())?;
                    schedules::rows(&View::new(session, &shared), relation).await
                }
                Source::Settings => {
                    let session = SessionInfo::of(context.session_config().options())?;
                    settings::rows(&View::new(session, &shared), relation).await
                }
                Source::Sessions => {
                    let session = SessionInfo::of(context.session_config().options())?;
                    pg_catalog::sessions(&View::new(session, &shared), relation).await
                }
                Source::Snapshots => {
                    let session = SessionInfo::of(context.session_config().options())?;
                    tables::snapshots(&View::new(session, &shared), relation).await
                }
                Source::Partitions => {
                    let session = SessionInfo::of(context.session_config().options())?;
                    tables::partitions(&View::new(session, &shared), relation).await
                }
                Source::Tables => {
                    let session = SessionInfo::of(context.session_config().options())?;
                    tables::rows(&View::new(session, &shared), relation).await
                }
                Source::Rows(make) => {
                    let session = SessionInfo::of(context.session_config().options())?;
                    make(&View::new(session, &shared), relation)
                }
            }
        };
        let stream = futures::stream::once(batch);
        Box::pin(RecordBatchStreamAdapter::new(self.relation.arrow.clone(), stream))
    }
}

impl Debug for Scan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.relation.schema, self.relation.name)
    }
}
