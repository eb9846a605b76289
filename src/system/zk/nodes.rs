//! `zk.nodes`: the tree of znodes, read when it is asked for and no further than the conditions, the
//! limit and the columns of the statement need.

use std::collections::VecDeque;
use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::future::{BoxFuture, ready};
use futures::stream::{self, FuturesOrdered, StreamExt, TryStreamExt};

use super::selection::{Selection, Step};
use super::{HIDDEN, PIPELINE, Reader, below, depth, failed, moment, names, shown, split};
use crate::coordination::{self, Coordination, Stat};
use crate::engine::system::SessionInfo;
use crate::system::relations::Relation;
use crate::system::rows::{Rows, Value};
use crate::system::{Shared, View};

/// Rows of the first batch, which is to come soon, and of the others.
const BATCH: (usize, usize) = (64, 1024);

const COLUMNS: &[&str] = &[
    "path",
    "name",
    "parent",
    "depth",
    "data",
    "value",
    "czxid",
    "mzxid",
    "pzxid",
    "ctime",
    "mtime",
    "version",
    "cversion",
    "aversion",
    "ephemeral_owner",
    "data_length",
    "num_children",
    "note",
];

/// How much of a node has to be read for the columns that are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Depth {
    /// Its parent's list has it.
    Name,
    Stat,
    Data,
}

impl Depth {
    fn of(columns: &[usize]) -> Self {
        let wants = |range: std::ops::Range<usize>| columns.iter().any(|at| range.contains(at));
        // A note may be about the data.
        if wants(4..6) {
            Self::Data
        } else if wants(6..COLUMNS.len()) {
            Self::Stat
        } else {
            Self::Name
        }
    }
}

/// The table.
#[derive(Debug)]
pub struct Nodes {
    pub relation: &'static Relation,
    pub(in crate::system) shared: Arc<Shared>,
}

impl TableProvider for Nodes {
    fn schema(&self) -> SchemaRef {
        self.relation.arrow.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(filters.iter().map(|filter| Selection::default().narrow(filter)).collect())
    }

    fn scan<'a, 'b, 'c, 'd, 'e>(
        &'a self,
        _: &'b dyn Session,
        projection: Option<&'c Vec<usize>>,
        filters: &'d [Expr],
        limit: Option<usize>,
    ) -> BoxFuture<'e, Result<Arc<dyn ExecutionPlan>>>
    where
        'a: 'e,
        'b: 'e,
        'c: 'e,
        'd: 'e,
        Self: 'e,
    {
        Box::pin(ready(self.plan(projection, filters, limit)))
    }
}

impl Nodes {
    fn plan(
        &self,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut selection = Selection::default();
        for filter in filters {
            selection.narrow(filter);
        }
        let all = || (0..COLUMNS.len()).collect();
        let columns: Vec<usize> = projection.cloned().unwrap_or_else(all);
        let schema = Arc::new(self.relation.arrow.project(&columns)?);
        let scan = Scan {
            relation: self.relation,
            shared: self.shared.clone(),
            schema: schema.clone(),
            columns,
            selection,
            limit,
        };
        let plan =
            StreamingTableExec::try_new(schema, vec![Arc::new(scan)], None, [], false, limit);
        Ok(Arc::new(plan?))
    }
}

#[derive(Clone)]
struct Scan {
    relation: &'static Relation,
    shared: Arc<Shared>,
    schema: SchemaRef,
    columns: Vec<usize>,
    selection: Selection,
    limit: Option<usize>,
}

impl Debug for Scan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}", self.relation, self.selection)
    }
}

impl PartitionStream for Scan {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let scan = self.clone();
        let batches = stream::once(async move {
            let session = SessionInfo::of(context.session_config().options())?;
            let reader = Reader::of(&View::new(session, &scan.shared), scan.relation).await?;
            Ok::<_, DataFusionError>(Walk::new(reader, scan).batches())
        });
        let batches = batches.try_flatten();
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), batches))
    }
}

/// What came of a step.
struct Visited {
    row: Option<Row>,
    next: Option<(String, Vec<String>)>,
}

struct Row {
    path: String,
    stat: Option<Stat>,
    data: Option<bytes::Bytes>,
    note: Option<&'static str>,
}

type Running = BoxFuture<'static, coordination::Result<Visited>>;

/// A walk through the tree, breadth first.
struct Walk {
    reader: Reader,
    scan: Scan,
    depth: Depth,
    waiting: VecDeque<Step>,
    running: FuturesOrdered<Running>,
    sent: usize,
}

impl Walk {
    fn new(reader: Reader, scan: Scan) -> Self {
        let waiting = scan.selection.start();
        let depth = Depth::of(&scan.columns);
        Self { reader, scan, depth, waiting, running: FuturesOrdered::new(), sent: 0 }
    }

    fn batches(self) -> impl futures::Stream<Item = Result<RecordBatch>> {
        stream::try_unfold(self, async |mut walk| {
            Ok::<_, DataFusionError>(walk.next_batch().await?.map(|batch| (batch, walk)))
        })
    }

    async fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        let (first, later) = BATCH;
        let limit = self.scan.limit.unwrap_or(usize::MAX);
        let most = if self.sent == 0 { first } else { later };
        let wanted = most.min(limit - self.sent);
        let mut rows = Rows::new(self.scan.relation, COLUMNS);
        let mut count = 0;
        while count < wanted {
            self.begin(wanted - count)?;
            let Some(visited) = self.running.next().await else { break };
            let Visited { row, next } = visited.map_err(failed)?;
            if let Some(row) = row {
                let bytes = row.data.as_ref().map_or(0, |data| data.len());
                self.reader.budget.bytes.take(bytes as u64)?;
                rows.push_vec(self.values(row));
                count += 1;
            }
            if let Some((parent, names)) = next {
                self.waiting.extend(self.scan.selection.next(&parent, names));
                // No more of them could be read.
                let left = usize::try_from(self.reader.budget.nodes.left).unwrap_or(usize::MAX);
                self.waiting.truncate(left.saturating_add(1));
            }
        }
        self.sent += count;
        match count {
            0 => Ok(None),
            _ => Ok(Some(rows.finish()?.project(&self.scan.columns)?)),
        }
    }

    /// Begins steps, as many as may be under way at once; with a limit none that give more rows than
    /// it needs.
    fn begin(&mut self, rows: usize) -> Result<()> {
        let most = match self.scan.limit {
            Some(_) => PIPELINE.min(rows),
            None => PIPELINE,
        };
        while self.running.len() < most
            && let Some(step) = self.waiting.pop_front()
        {
            self.reader.budget.nodes.take(1)?;
            let (client, depth) = (self.reader.client.clone(), self.depth);
            let listed = split(&step.path).0.is_some() && self.scan.selection.is_listed();
            let known = listed && depth == Depth::Name;
            self.running
                .push_back(Box::pin(async move { visit(&client, step, depth, known).await }));
        }
        Ok(())
    }

    fn values(&self, row: Row) -> Vec<Value> {
        let Row { path, stat, data, mut note } = row;
        let (parent, name) = split(&path);
        let mut values = vec![name.into(), parent.map(str::to_owned).into(), depth(&path).into()];
        values.insert(0, path.as_str().into());
        values.extend(match data {
            Some(data) if self.reader.is_secret(&path, &data) => {
                note = Some(HIDDEN);
                [Value::Null, Value::Null]
            }
            Some(data) => shown(&data),
            None => [Value::Null, Value::Null],
        });
        let stat = stat.unwrap_or_default();
        values.extend([
            stat.czxid.into(),
            stat.mzxid.into(),
            stat.pzxid.into(),
            moment(stat.ctime),
            moment(stat.mtime),
            stat.version.into(),
            stat.cversion.into(),
            stat.aversion.into(),
            stat.ephemeral_owner.into(),
            stat.data_length.into(),
            stat.num_children.into(),
            note.map(str::to_owned).into(),
        ]);
        values
    }
}

/// Reads a node as deeply as is needed, and the names of its children where the way goes on.
/// `known` nodes are there, since they were listed.
async fn visit(
    client: &crate::coordination::counted::Counted,
    step: Step,
    depth: Depth,
    known: bool,
) -> coordination::Result<Visited> {
    use coordination::Error as E;
    let Step { path, show, descend } = step;
    let mut row = Row { path: path.clone(), stat: None, data: None, note: None };
    if show {
        let found = match depth {
            Depth::Data => client.get(&path).await.map(|node| {
                node.map(|node| {
                    row.data = Some(node.data);
                    node.stat
                })
            }),
            Depth::Name if known || descend => {
                Ok(Some(Stat { num_children: 1, ..Stat::default() }))
            }
            _ => client.stat(&path).await,
        };
        row.stat = match found {
            Err(E::Denied { .. }) => {
                row.note = Some("not readable: the access control list forbids it");
                client.stat(&path).await?
            }
            // What is no path names no node.
            Err(E::BadPath { .. }) => None,
            other => other?,
        };
        if row.stat.is_none() {
            return Ok(Visited { row: None, next: None });
        }
    }
    let inner = row.stat.is_none_or(|stat| stat.num_children > 0);
    let mut next = None;
    if descend && inner {
        match names(client, &path).await {
            Ok((names, true)) => next = Some((path, names)),
            Ok((_, false)) => row.note = Some("its children cannot be listed"),
            Err(E::BadPath { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Visited { row: show.then_some(row), next })
}

/// Nodes and bytes by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub kind: String,
    pub nodes: i64,
    pub bytes: i64,
    /// Bytes of the largest.
    pub largest: i64,
    pub ephemerals: i64,
}

/// What the daemons keep in the store, by the first name of the path.
pub async fn kinds(view: &View<'_>, relation: &Relation) -> Result<Vec<Count>> {
    let reader = Reader::of(view, relation).await?;
    let root = if reader.chroot.is_empty() { "/" } else { &reader.chroot };
    let mut kinds = std::collections::BTreeMap::<String, Count>::new();
    for (path, stat) in reader.stock(root).await? {
        let inside = path.strip_prefix(&below(root, "")).unwrap_or_default();
        let kind = match inside.split('/').next() {
            None | Some("") => "root",
            Some(name) => name,
        };
        let count = kinds.entry(kind.to_owned()).or_default();
        let bytes = i64::from(stat.data_length);
        kind.clone_into(&mut count.kind);
        count.nodes += 1;
        count.bytes += bytes;
        count.largest = count.largest.max(bytes);
        count.ephemerals += i64::from(stat.ephemeral_owner != 0);
    }
    Ok(kinds.into_values().collect())
}
