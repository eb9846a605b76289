//! `zk.watch(path, seconds)`: what happens at and below a path, as rows, as it happens.
//!
//! A recursive watch is armed first, then stock is taken. After a reconnect, or more changes than are
//! kept for a reader that is slow, stock is taken again: what is different then gives rows as well,
//! so that the last state of each node is never missing. A row tells of the node as it is when it is
//! read, just after the change.

use std::collections::HashMap;
use std::fmt::{self, Debug, Formatter};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{ScalarValue, plan_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::stream::{self, TryStreamExt};
use tokio::time::{Instant, timeout_at};

use super::{Reader, failed, shown};
use crate::coordination::{Change, Coordination, Error, Happened, Node, Scope, Stat, Watch};
use crate::engine::system::SessionInfo;
use crate::system::relations::{self, Relation};
use crate::system::rows::{Rows, Value};
use crate::system::{Shared, View};

/// Not among the relations: it can only be called.
static RELATION: LazyLock<Option<Relation>> = LazyLock::new(|| {
    let columns = "zk 0 v watch\n time:timestamptz! path:text! event:text! czxid:int8 mzxid:int8 \
                   version:int4 data:bytea value:json note:text";
    relations::parse(columns).pop()
});

const COLUMNS: &[&str] =
    &["time", "path", "event", "czxid", "mzxid", "version", "data", "value", "note"];

/// The longest time that a watch may be asked for.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// The function.
#[derive(Debug)]
pub struct Watching(pub(in crate::system) Arc<Shared>);

impl TableFunctionImpl for Watching {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let (path, time) = match args.exprs() {
            [Expr::Literal(path, _), Expr::Literal(time, _)] => (path, seconds(time)),
            _ => return bad("zk.watch takes a path and a number of seconds".to_owned()),
        };
        let Some(path) = path.try_as_str().flatten() else {
            return bad(format!("zk.watch takes a path as text, such as '/kafka', and not {path}"));
        };
        let Some(time) = time.filter(|time| *time <= LONGEST) else {
            return bad(format!("zk.watch takes between 0 and {} seconds", LONGEST.as_secs()));
        };
        if !path.starts_with('/') || (path.len() > 1 && path.ends_with('/')) {
            return bad(format!(
                "\"{path}\" is no path of a znode: it begins with / and does not end so"
            ));
        }
        let Some(relation) = RELATION.as_ref() else {
            return plan_err!("zk.watch has no columns");
        };
        let (path, shared) = (path.to_owned(), self.0.clone());
        let scan = Arc::new(Scan { relation, shared, path, time });
        Ok(Arc::new(StreamingTable::try_new(relation.arrow.clone(), vec![scan])?))
    }
}

/// For arguments that make no sense: what is wrong with them.
fn bad<T>(reason: String) -> Result<T> {
    Err(DataFusionError::Configuration(reason))
}

fn seconds(value: &ScalarValue) -> Option<Duration> {
    let value = value.cast_to(&arrow::datatypes::DataType::Float64).ok()?;
    let ScalarValue::Float64(Some(value)) = value else { return None };
    Duration::try_from_secs_f64(value).ok()
}

#[derive(Clone)]
struct Scan {
    relation: &'static Relation,
    shared: Arc<Shared>,
    path: String,
    time: Duration,
}

impl Debug for Scan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}({}, {:?})", self.relation, self.path, self.time)
    }
}

impl PartitionStream for Scan {
    fn schema(&self) -> &SchemaRef {
        &self.relation.arrow
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let scan = self.clone();
        let batches = stream::once(async move {
            let session = SessionInfo::of(context.session_config().options())?;
            let reader = Reader::of(&View::new(session, &scan.shared), scan.relation).await?;
            let watch = reader.client.watch(&scan.path, Scope::Every);
            let end = Instant::now() + scan.time;
            let told = HashMap::new();
            let following = Following { reader, scan, watch, end, known: None, told };
            following.is_in_touch().await?;
            Ok::<_, DataFusionError>(following.batches())
        });
        let batches = batches.try_flatten();
        Box::pin(RecordBatchStreamAdapter::new(self.relation.arrow.clone(), batches))
    }
}

/// A node's state as it was told last.
type Known = HashMap<String, (i64, i64)>;

struct Following {
    reader: Reader,
    scan: Scan,
    watch: Watch,
    end: Instant,
    /// Unset until stock was taken.
    known: Option<Known>,
    /// What was told when stock was taken last, and may come as an event as well: paths with their
    /// `mzxid`, none for those that are gone.
    told: HashMap<String, Option<i64>>,
}

impl Following {
    fn batches(self) -> impl futures::Stream<Item = Result<RecordBatch>> {
        stream::try_unfold(self, async |mut following| {
            // What is under way at the end is dropped.
            match timeout_at(following.end, following.next()).await {
                Ok(next) => Ok::<_, DataFusionError>(next?.map(|batch| (batch, following))),
                Err(_) => following.is_in_touch().await.map(|()| None),
            }
        })
    }

    /// The next rows; `None` when the store was closed.
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            let (changes, new) = match self.watch.next_change().await {
                None => return Ok(None),
                Some(Happened::Changed(change, path)) => (vec![(change, path)], false),
                Some(Happened::Resync) => match self.compare().await {
                    Ok(changes) => (changes, true),
                    // The connection is made again, and then there is another event.
                    Err(error) if is_unavailable(&error) => continue,
                    Err(error) => return Err(error),
                },
            };
            let mut table = Rows::new(self.scan.relation, COLUMNS);
            let mut count = 0;
            for (change, path) in changes {
                if let Some(row) = self.row(change, path, new).await? {
                    table.push_vec(row);
                    count += 1;
                }
            }
            if count > 0 {
                return table.finish().map(Some);
            }
        }
    }

    /// Fails where the store cannot be reached: there may have been changes that nobody has seen.
    async fn is_in_touch(&self) -> Result<()> {
        self.reader.client.stat(&self.scan.path).await.map(drop).map_err(failed)
    }

    /// Takes stock: what is different from what was told.
    async fn compare(&mut self) -> Result<Vec<(Change, String)>> {
        let state = |stat: &Stat| (stat.czxid, stat.mzxid);
        let found = self.reader.stock(&self.scan.path).await?;
        let found: Known = found.into_iter().map(|(path, stat)| (path, state(&stat))).collect();
        self.told.clear();
        let Some(before) = self.known.replace(found) else { return Ok(Vec::new()) };
        let found = self.known.iter().flatten();
        let mut changes: Vec<_> = found
            .filter_map(|(path, (czxid, mzxid))| {
                let change = match before.get(path) {
                    Some((was, _)) if was != czxid => Change::Created,
                    Some((_, was)) if was != mzxid => Change::Data,
                    Some(_) => return None,
                    None => Change::Created,
                };
                Some((change, path.clone()))
            })
            .collect();
        let now = self.known.as_ref();
        let gone = before.keys().filter(|path| now.is_none_or(|now| !now.contains_key(*path)));
        changes.extend(gone.map(|path| (Change::Deleted, path.clone())));
        changes.sort_by(|(_, a), (_, b)| a.cmp(b));
        Ok(changes)
    }

    /// `new` ones are found by taking stock; an event that tells the same has no row.
    async fn row(&mut self, change: Change, path: String, new: bool) -> Result<Option<Vec<Value>>> {
        let mut note = None;
        let node = match change {
            Change::Deleted => Ok(None),
            Change::Created | Change::Data => self.reader.client.get(&path).await,
        };
        let node = match node {
            Ok(node) => node,
            Err(Error::Denied { .. }) => {
                note = Some("not readable: the access control list forbids it");
                None
            }
            // The connection is made again, and the change is found then.
            Err(error) if error.is_unavailable() => None,
            Err(error) => return Err(failed(error)),
        };
        let state = match (change, &node) {
            (Change::Deleted, _) => None,
            (_, node) => node.as_ref().map(|node| node.stat.mzxid),
        };
        if new {
            self.told.insert(path.clone(), state);
        } else if self.told.remove(&path) == Some(state)
            && (state.is_some() || change == Change::Deleted)
        {
            return Ok(None);
        }
        let known = self.known.get_or_insert_default();
        match (&node, change) {
            (Some(node), _) => {
                let state = (node.stat.czxid, node.stat.mzxid);
                if known.insert(path.clone(), state).is_none() {
                    self.reader.budget.nodes.take(1)?;
                }
            }
            (None, Change::Deleted) => {
                if known.remove(&path).is_some() {
                    self.reader.budget.nodes.left += 1;
                }
            }
            (None, _) => {}
        }
        let event = match change {
            Change::Created => "created",
            Change::Data => "changed",
            Change::Deleted => "deleted",
        };
        let mut row = vec![SystemTime::now().into(), path.as_str().into(), event.into()];
        let stat = node.as_ref().map(|node| node.stat);
        row.extend([
            stat.map(|stat| stat.czxid).into(),
            stat.map(|stat| stat.mzxid).into(),
            stat.map(|stat| stat.version).into(),
        ]);
        row.extend(match node {
            Some(Node { data, .. }) if self.reader.is_secret(&path, &data) => {
                note = Some(super::HIDDEN);
                [Value::Null, Value::Null]
            }
            Some(Node { data, .. }) => shown(&data),
            None => [Value::Null, Value::Null],
        });
        row.push(note.map(str::to_owned).into());
        Ok(Some(row))
    }
}

fn is_unavailable(error: &DataFusionError) -> bool {
    let DataFusionError::External(inner) = error else { return false };
    match inner.downcast_ref::<crate::engine::Error>() {
        Some(crate::engine::Error::Coordination(error)) => error.is_unavailable(),
        _ => false,
    }
}
