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
    Shared, View, daemons, information_schema, maintenance, pg_catalog, pools, queries, settings,
    tables,
};
use crate::engine::system::SessionInfo;

/// How a relation's rows are made.
#[derive(Clone, Copy)]
pub enum Source {
    Rows(fn(&View<'_>, &'static Relation) -> Result<RecordBatch>),
    /// The statements of all daemons, which have to be asked.
    Queries,
    /// What all daemons have done for tables, which the store has.
    Maintenance,
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
    let scan = Scan { relation, source: source(relation), shared };
    Ok(Arc::new(StreamingTable::try_new(relation.arrow.clone(), vec![Arc::new(scan)])?))
}

fn source(relation: &Relation) -> Source {
    match (relation.schema, relation.name) {
        ("pg_catalog", name) => pg_catalog::source(name),
        ("information_schema", name) => information_schema::source(name),
        (_, "daemons") => Source::Rows(daemons::rows),
        (_, "queries") => Source::Queries,
        (_, "pools") => Source::Rows(pools::rows),
        (_, "tables") => Source::Tables,
        (_, "maintenance") => Source::Maintenance,
        (_, "settings" | "settings_applied" | "settings_history") => Source::Settings,
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
                Source::Nothing => Rows::new(relation, &[]).finish(),
                Source::Queries => {
                    let session = SessionInfo::of(context.session_config().options())?;
                    queries::rows(&View::new(session, &shared), relation).await
                }
                Source::Maintenance => {
                    let session = SessionInfo::of(context.session_config().options())?;
                    maintenance::rows(&View::new(session, &shared), relation).await
                }
                Source::Settings => {
                    let session = SessionInfo::of(context.session_config().options())?;
                    settings::rows(&View::new(session, &shared), relation).await
                }
                Source::Sessions => {
                    let session = SessionInfo::of(context.session_config().options())?;
                    pg_catalog::sessions(&View::new(session, &shared), relation).await
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
